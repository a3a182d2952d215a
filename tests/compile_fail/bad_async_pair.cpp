// A fetcher for event loops with a clock that blocks: the async manager takes pairs that go together.
// expect: constraint
// expect: async_fetcher
// expect: timer_source
#include "axioms_jwks.hpp"

struct my_client {
  template <class Callback>
  void async_fetch(axioms::fetch_request, axioms::stop_token, Callback callback) {
    callback(axioms::result<axioms::fetch_response>(axioms::error{axioms::errc::connect_failed, "no network"}));
  }
};

static_assert(axioms::async_fetcher<my_client> && !axioms::fetcher<my_client>);
int main() {
  axioms::basic_async_jwks_manager<my_client, axioms::steady_clock> manager;
  return manager.running() ? 1 : 0;
}
