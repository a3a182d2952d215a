// An event loop's fetcher that nobody can stop.
// expect: constraint
// expect: an async_fetcher is called so; callbacks only move
#include "axioms_jwks.hpp"

struct my_client {
  template <class Callback>
  void async_fetch(const axioms::fetch_request&, Callback callback) {
    callback(axioms::result<axioms::fetch_response>(axioms::error{axioms::errc::connect_failed, "no network"}));
  }
};

template <axioms::async_fetcher Client>
void start(Client) {}

int main() { start(my_client()); }
