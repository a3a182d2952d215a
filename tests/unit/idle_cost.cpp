// How often a manager that nobody asks anything wakes up. Each wait at the clock is one wake-up that led to it.
#include "support/rig.hpp"

using namespace std::chrono_literals;
using namespace support;

TEST_SUITE_BEGIN("idle cost");

TEST_CASE("between two refreshes nothing wakes up") {
  rig r;
  auto config = config_for(url);
  config.refresh_interval = 24h;
  config.cache_ttl = 48h;
  r.start(config);
  REQUIRE(r.get().get().has_value());
  r.quiet();
  REQUIRE(eventually([&] { return r.clock.waiting() == 1; }));  // the thread of the first fetch ends after a while
  const auto before = r.clock.arrivals();
  for (int step = 0; step < 20 * 12; ++step) {
    r.clock.advance(5min);
    REQUIRE(r.clock.await_waiting_from(1, r.clock.now() + 1s));  // who had to wake up has done so
  }
  // Those that were awake when the counting began may still come to wait; 240 steps went by.
  CHECK(r.clock.arrivals() - before <= 3);
  CHECK(r.provider.requests() == 1);
}

TEST_CASE("a refresh costs a handful of wake-ups, and there is one per refresh_interval" *
          doctest::test_suite("slow")) {
  rig r;
  r.start();
  REQUIRE(r.get().get().has_value());
  const auto before = r.clock.arrivals();
  constexpr unsigned hours = 24;
  for (unsigned hour = 1; hour <= hours; ++hour) {
    r.quiet();
    r.clock.advance(1h);
    REQUIRE(eventually([&] { return r.provider.requests() == 1 + hour; }));
  }
  r.quiet();
  CHECK(r.clock.arrivals() - before <= std::uint64_t{5} * hours);
}

TEST_SUITE_END();
