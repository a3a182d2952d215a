// A manager of static storage whose fetch is in the air when the process exits: its answer comes when the destructor
// tells it to stop, and is read by OpenSSL then. Exits with 0 if OpenSSL still worked.
//
// Without cpp-httplib, which may initialise OpenSSL while static objects are made.
#include "support/fake_fetcher.hpp"

#include <cstdlib>

namespace {

struct late_fetcher {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request,
                                                    axioms::stop_token stop) const {
    if (request.url == "https://idp.example.com/now") return support::ok({"a"});
    started = true;
    while (!stop.stop_requested()) std::this_thread::yield();
    if (!axioms::jwk_set::parse(support::key_set({"a"}))) std::_Exit(1);
    return support::ok({"a"});
  }
  static inline std::atomic<bool> started{false};
};

axioms::basic_jwks_manager<late_fetcher> manager;

}  // namespace

int main() {
  axioms::jwks_config config;
  config.jwks_url = "https://idp.example.com/now";
  if (!manager.initialize(config) || !manager.get_key({.kid = "a", .alg = "EdDSA"})) return 2;
  config.jwks_url = "https://idp.example.com/later";
  if (!manager.add(config)) return 3;
  while (!late_fetcher::started) std::this_thread::yield();
}
