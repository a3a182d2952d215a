// A blocking manager between a scripted provider and a clock that is moved by hand.
#ifndef AXIOMS_JWKS_TESTS_RIG_HPP
#define AXIOMS_JWKS_TESTS_RIG_HPP

#include "eventually.hpp"
#include "fake_fetcher.hpp"
#include "manual_clock.hpp"

#include <doctest/doctest.h>

#include <future>

namespace support {

inline const std::string url = "https://idp.example.com/.well-known/jwks.json";

using manager_type = axioms::basic_jwks_manager<fake_fetcher, manual_clock>;

inline axioms::jwks_config config_for(const std::string& where) {
  axioms::jwks_config config;
  config.jwks_url = where;
  config.random = [] { return std::uint64_t{0}; };  // no jitter, shortest backoff
  return config;
}

// Fetches that brought a document or confirmed the one that was there, which the same bytes do.
template <class Manager>
std::uint64_t good_answers(const Manager& manager) {
  const auto stats = manager.stats();
  return stats.fetched + stats.not_modified;
}

// A provider, a clock and a manager between them.
struct rig {
  manual_clock clock;
  fake_fetcher provider;
  manager_type manager{provider, clock};

  void start(axioms::jwks_config config) { REQUIRE(manager.initialize(std::move(config)).has_value()); }
  void start() { start(config_for(url)); }
  // Waits until that many threads stand still: the scheduler, and callers that wait.
  void settle(std::size_t threads) { REQUIRE(clock.await_waiting(threads)); }
  // Waits until no fetch of the configured URL is due or in the air.
  void quiet() {
    REQUIRE(eventually([&] { return manager.health().next_attempt > clock.now(); }));
  }
  auto get(const std::string& where = url, axioms::stop_token stop = {}) {
    return std::async(std::launch::async, [this, where, stop] { return manager.get_jwks(where, stop); });
  }
};

}  // namespace support

#endif
