// The part "detail: refresh policy": every rule about time, retries and acceptance, without threads, clocks or sockets.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "axioms_jwks.hpp"
#include "support/fake_fetcher.hpp"

#include <doctest/doctest.h>

#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using axioms::errc;
using axioms::fetch_request;
using axioms::fetch_response;
using axioms::jwks_config;
using axioms::detail::judge;
using axioms::detail::refresh_policy;
using axioms::detail::steady_point;
using axioms::detail::verdict;
using answer = refresh_policy::answer;
using kid_answer = refresh_policy::kid_answer;
using landing = refresh_policy::landing;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr steady_point start{1000h};
constexpr steady_point::duration tick{1};
constexpr std::uint64_t lowest = 0, highest = ~std::uint64_t{0};  // random numbers: no jitter, all of it

jwks_config config_with(void (*change)(jwks_config&) = [](jwks_config&) {}) {
  jwks_config config;
  config.jwks_url = "https://idp.example.com/jwks.json";
  change(config);
  return config;
}

verdict document(std::optional<seconds> freshness = std::nullopt) {
  verdict out;
  out.what = verdict::kind::document;
  out.status = 200;
  out.freshness = freshness;
  return out;
}
verdict not_modified(std::optional<seconds> freshness = std::nullopt) {
  verdict out;
  out.what = verdict::kind::not_modified;
  out.status = 304;
  out.freshness = freshness;
  return out;
}
verdict failure(std::optional<seconds> retry_after = std::nullopt, errc code = errc::connect_failed) {
  verdict out;
  out.why = axioms::error{code, "the provider is down", 0};
  out.retry_after = retry_after;
  return out;
}

// A policy with a time of its own.
struct world {
  explicit world(void (*change)(jwks_config&) = [](jwks_config&) {}) : policy(config_with(change)) {}

  answer ask() const { return policy.ask(now); }
  // And pays for the flight that it may start.
  kid_answer ask_kid(std::string_view kid, std::size_t waiting = 0) {
    const auto said = policy.ask_unknown_kid(now, kid, waiting);
    if (said == kid_answer::start) policy.pay(now);
    return said;
  }
  // One flight that lands at once.
  landing fetch(const verdict& brought, std::uint64_t random = lowest, bool confirms = true) {
    return policy.land(policy.begin(now), now, brought, confirms, random);
  }
  void fail_times(int times, std::uint64_t random = lowest) {
    for (int i = 0; i < times; ++i) REQUIRE(fetch(failure(), random) == landing::failed);
  }
  steady_point::duration until_next() const { return policy.next_attempt() - now; }

  refresh_policy policy;
  steady_point now = start;
};

// Within a millisecond: jitter is drawn in whole milliseconds below its limit.
bool just_below(steady_point::duration value, steady_point::duration limit) {
  return value < limit && value >= limit - 1ms;
}

}  // namespace

// ---- lookups -------------------------------------------------------------------------------------

// Red when ask() returns start although a flight is in progress.
TEST_CASE("with nothing cached the first lookup starts a flight and everybody else joins it") {
  world w;
  CHECK(w.ask() == answer::start);
  CHECK(w.ask() == answer::start);  // asking changes nothing
  const auto flight = w.policy.begin(w.now);
  CHECK(w.ask() == answer::join);
  w.now += 9s;
  CHECK(w.ask() == answer::join);
  CHECK(w.policy.land(flight, w.now, document(), true, lowest) == landing::published);
  CHECK(w.ask() == answer::fresh);
}

// Red when ask() compares with <= expires_at(), or expires_at() is not fetched_at + cache_ttl.
TEST_CASE("a document is fresh until cache_ttl and not a tick longer") {
  world w;
  w.fetch(document());
  CHECK(w.policy.fetched_at() == start);
  CHECK(w.policy.expires_at() == start + 7200s);
  CHECK(w.ask() == answer::fresh);
  w.now = start + 7200s - tick;
  CHECK(w.ask() == answer::fresh);
  w.now += tick;
  CHECK(w.ask() == answer::start);
}

// Red when stale() compares with > expires_at().
TEST_CASE("a document is called stale from cache_ttl until it is no longer served") {
  world w;
  CHECK_FALSE(w.policy.stale(w.now));
  w.fetch(document());
  CHECK_FALSE(w.policy.stale(start + 7200s - tick));
  CHECK(w.policy.stale(start + 7200s));
  CHECK(w.policy.stale(start + 14400s - tick));
  CHECK_FALSE(w.policy.stale(start + 14400s));
}

// Red when ask() forgets in_flight_ for a stale document.
TEST_CASE("past cache_ttl the one who starts the renewal waits and everybody else gets the stale document") {
  world w;
  w.fetch(document());
  w.now = start + 7200s;
  CHECK(w.ask() == answer::start);
  const auto flight = w.policy.begin(w.now);
  CHECK(w.ask() == answer::stale);
  w.now += 5s;
  CHECK(w.ask() == answer::stale);
  w.policy.land(flight, w.now, document(), true, lowest);
  CHECK(w.ask() == answer::fresh);
}

// Red when ask() does not look at the backoff for a stale document.
TEST_CASE("during a backoff everybody gets the stale document at once") {
  world w;
  w.fetch(document());
  w.now = start + 8000s;
  w.fetch(failure());
  const steady_point retry = w.policy.next_attempt();
  REQUIRE(retry == w.now + 500ms);
  CHECK(w.ask() == answer::stale);
  w.now = retry - tick;
  CHECK(w.ask() == answer::stale);
  w.now = retry;
  CHECK(w.ask() == answer::start);
}

// Red when ask() looks at the backoff before it looks at the age.
TEST_CASE("a failed refresh does not make a fresh document stale") {
  world w;
  w.fetch(document());
  w.now += 3600s;
  w.fail_times(3);
  CHECK(w.ask() == answer::fresh);
  CHECK(w.policy.fetched_at() == start);
}

// Red when servable() compares with <=.
TEST_CASE("a document is served until cache_ttl + outage_window and not a tick longer") {
  world w;
  w.fetch(document());
  w.now = start + 14400s - tick;
  CHECK(w.policy.servable(w.now));
  CHECK(w.ask() == answer::start);
  w.policy.begin(w.now);
  CHECK(w.ask() == answer::stale);
  w.now += tick;
  CHECK_FALSE(w.policy.servable(w.now));
  CHECK(w.ask() == answer::join);
}

// Red when ask() says stale for what servable() refuses.
TEST_CASE("past cache_ttl + outage_window a backoff gives the error") {
  world w;
  w.fetch(document());
  w.now = start + 14400s - 100ms;
  w.fetch(failure());
  CHECK(w.ask() == answer::stale);
  w.now += 100ms;
  CHECK(w.ask() == answer::refuse);
  w.now += 400ms;
  CHECK(w.ask() == answer::start);
}

// Red when servable() adds a second to the outage window.
TEST_CASE("an outage_window of 0 fails closed at cache_ttl") {
  world w([](jwks_config& c) { c.outage_window = 0s; });
  w.fetch(document());
  w.now = start + 7200s - tick;
  CHECK(w.ask() == answer::fresh);
  w.now += tick;
  CHECK(w.ask() == answer::start);
  CHECK_FALSE(w.policy.servable(w.now));
  w.policy.begin(w.now);
  CHECK(w.ask() == answer::join);
}

// Red when ask() always starts with nothing cached, or compares the end of the backoff with <=.
TEST_CASE("with nothing cached and a failed fetch lookups get the error until the backoff is over") {
  world w;
  w.fetch(failure({}, errc::tls_failed));
  const steady_point retry = w.policy.next_attempt();
  CHECK(w.ask() == answer::refuse);
  REQUIRE(w.policy.last_error().has_value());
  CHECK(w.policy.last_error()->code == errc::tls_failed);
  w.now = retry - tick;
  CHECK(w.ask() == answer::refuse);
  w.now = retry;
  CHECK(w.ask() == answer::start);
  w.policy.begin(w.now);
  CHECK(w.ask() == answer::join);
}

// ---- backoff -------------------------------------------------------------------------------------

// Red when the limit triples, or doubles before the first failure.
TEST_CASE("the backoff doubles from backoff_initial to backoff_max") {
  world w;
  for (const steady_point::duration limit : {1s, 2s, 4s, 8s, 16s, 32s, 64s, 128s, 256s, 300s, 300s, 300s}) {
    w.fetch(failure(), highest);
    CHECK(just_below(w.until_next(), limit));
    w.now = w.policy.next_attempt();
  }
  CHECK(w.policy.consecutive_failures() == 12);
}

// Red when fail() does not cap the limit by backoff_max.
TEST_CASE("a backoff_max that is no power of two is kept exactly") {
  world w([](jwks_config& c) { c.backoff_initial = 1000ms, c.backoff_max = 3500ms; });
  w.fail_times(20, highest);
  CHECK(just_below(w.until_next(), 3500ms));
}

// Red when fail() takes the limit itself instead of a random part of it.
TEST_CASE("the backoff is drawn from its whole range") {
  world w;
  w.fail_times(6, highest / 2);
  CHECK(just_below(w.until_next(), 16s));
  w.fetch(failure(), highest / 4);
  CHECK(just_below(w.until_next(), 16s));
}

// Red when the least backoff is backoff_initial, or 0.
TEST_CASE("the backoff is at least half backoff_initial, however often it failed") {
  world w([](jwks_config& c) { c.backoff_initial = 3000ms; });
  for (int i = 0; i < 15; ++i) {
    w.fetch(failure(), lowest);
    CHECK(w.until_next() == 1500ms);
  }
}

TEST_CASE("a backoff does not overflow after a long outage, at the largest limits either") {
  world w([](jwks_config& c) { c.backoff_initial = 87840h, c.backoff_max = 87840h; });
  w.fail_times(3000, highest);
  CHECK(w.policy.consecutive_failures() == 3000);
  CHECK(just_below(w.until_next(), 87840h));
}

// Red when max_backoff_without_document is 20 s, or is not applied.
TEST_CASE("while nothing is cached a lookup may try again after 10 s, the background waits longer") {
  world w;
  w.fail_times(9, highest);
  REQUIRE(just_below(w.until_next(), 256s));
  w.now += 10s - tick;
  CHECK(w.ask() == answer::refuse);
  w.now += tick;
  CHECK(w.ask() == answer::start);
  CHECK_FALSE(w.policy.due(w.now));
  w.now = w.policy.next_attempt();
  CHECK(w.policy.due(w.now));
}

// Red when the cap of 10 s is applied to a document that is still served.
TEST_CASE("the cap of 10 s is not for a stale document, and begins to hold when it is served no more") {
  world w;
  w.fetch(document());
  w.now = start + 14400s - 60s;
  w.fail_times(9, highest);
  w.now += 30s;
  CHECK(w.ask() == answer::stale);
  w.now += 30s;
  CHECK(w.ask() == answer::start);
}

// Red when next_attempt is the end of our own backoff alone.
TEST_CASE("a Retry-After that is longer than the backoff is honoured") {
  world w;
  w.fetch(document());
  w.now += 7200s;
  w.fetch(failure(120s));
  CHECK(w.until_next() == 120s);
  CHECK(w.ask() == answer::stale);
  w.now += 120s - tick;
  CHECK(w.ask() == answer::stale);
  CHECK_FALSE(w.policy.due(w.now));
  w.now += tick;
  CHECK(w.ask() == answer::start);
  CHECK(w.policy.due(w.now));
}

// Red when fail() lets the background try at the very end of the Retry-After, whatever the random number, or makes lookups wait
// for more than it.
TEST_CASE("those who were told the same Retry-After do not all come back in the same second") {
  world late, short_wait;
  late.fetch(document());
  late.fetch(failure(600s), highest);
  CHECK(just_below(late.until_next(), 600s + 300s));  // spread over backoff_max
  short_wait.fetch(document());
  short_wait.fetch(failure(20s), highest);
  CHECK(just_below(short_wait.until_next(), 20s + 20s));  // and over no more than the wait
  late.now += 600s - tick;
  CHECK(late.ask_kid("a") == kid_answer::refuse);
  late.now += tick;
  CHECK_FALSE(late.policy.due(late.now));
  CHECK(late.ask_kid("a") == kid_answer::start);
}

// Red when next_attempt is the Retry-After alone.
TEST_CASE("a Retry-After that is shorter than the backoff does not shorten it") {
  world w;
  w.fail_times(9, highest);
  w.fetch(failure(1s), highest);
  CHECK(just_below(w.until_next(), 300s));
  w.fetch(failure(0s), lowest);
  CHECK(w.until_next() == 500ms);
}

// Red when fail() does not take the smaller of Retry-After and retry_after_max.
TEST_CASE("a Retry-After is honoured up to retry_after_max") {
  world w;
  w.fetch(failure(3600s));
  CHECK(w.until_next() == 3600s);
  w.fetch(failure(3601s));
  CHECK(w.until_next() == 3600s);
  w.fetch(failure(seconds(2147483647)));
  CHECK(w.until_next() == 3600s);
  world none([](jwks_config& c) { c.retry_after_max = 0ms; });
  none.fetch(failure(3600s));
  CHECK(none.until_next() == 500ms);
}

// Red when backoff::blocks() leaves asked_end_ out, or caps it to 10 s.
TEST_CASE("a Retry-After holds with nothing cached, too") {
  world w;
  w.fetch(failure(120s));
  w.now += 120s - tick;
  CHECK(w.ask() == answer::refuse);
  w.now += tick;
  CHECK(w.ask() == answer::start);
}

// Red when fail() keeps the old asked_end_.
TEST_CASE("the next failure without a Retry-After forgets the last one") {
  world w;
  w.fetch(failure(3600s));
  w.now += 1s;
  w.fetch(failure());
  CHECK(w.until_next() == 500ms);
  w.now += 500ms;
  CHECK(w.ask() == answer::start);
}

// Red when succeed() keeps last_error_, failures_, or the ends of the backoffs.
TEST_CASE("a success ends every backoff") {
  world w;
  w.fail_times(8, highest);
  w.fetch(failure(3600s), highest);
  w.fetch(document());
  CHECK_FALSE(w.policy.last_error().has_value());
  CHECK(w.policy.consecutive_failures() == 0);
  CHECK(w.ask() == answer::fresh);
  w.now += 7200s;
  w.fetch(failure(), highest);
  CHECK(just_below(w.until_next(), 1s));
  w.now += 1s;
  CHECK(w.ask() == answer::start);
  // Nor does what is over hold a new configuration up.
  w.fetch(failure(3600s), highest);
  w.fetch(document());
  w.policy.configure(config_with([](jwks_config& c) { c.refresh_interval = 10s, c.cache_ttl = 20s; }));
  CHECK(w.until_next() == 10s);
}

// Red when fail() drops the document.
TEST_CASE("no failure takes a document away") {
  world w;
  w.fetch(document());
  for (const errc code :
       {errc::http_status, errc::not_a_key_set, errc::no_usable_key, errc::timed_out, errc::response_too_large}) {
    w.now += 1s;
    CHECK(w.fetch(failure(60s, code), highest) == landing::failed);
    CHECK(w.policy.servable(w.now));
    CHECK(w.ask() == answer::fresh);
    CHECK(w.policy.last_error()->code == code);
  }
  CHECK(w.policy.fetched_at() == start);
}

// ---- background refresh --------------------------------------------------------------------------

// Red when the jitter is 20 %, or is added.
TEST_CASE("the next refresh comes after refresh_interval, up to 10 percent sooner") {
  world w;
  w.fetch(document(), lowest);
  CHECK(w.until_next() == 3600s);
  w.fetch(document(), highest);
  CHECK(w.until_next() > 3240s);
  CHECK(w.until_next() <= 3240s + 1ms);
  w.fetch(document(), highest / 2);
  CHECK(w.until_next() >= 3420s);
  CHECK(w.until_next() <= 3420s + 1ms);
}

// Red when succeed() ignores the freshness.
TEST_CASE("the server may ask for sooner") {
  world w;
  w.fetch(document(600s), lowest);
  CHECK(w.until_next() == 600s);
  w.fetch(document(600s), highest);
  CHECK(w.until_next() > 540s);
  CHECK(w.until_next() <= 540s + 1ms);
  w.fetch(not_modified(300s), lowest);
  CHECK(w.until_next() == 300s);
}

// Red when the floor is not applied, or the jitter goes below it.
TEST_CASE("the server may not ask for sooner than min_refresh_interval") {
  world w;
  w.fetch(document(1s), lowest);
  CHECK(w.until_next() == 60s);
  w.fetch(document(1s), highest);
  CHECK(w.until_next() == 60s);
  w.fetch(document(61s), highest);
  CHECK(w.until_next() == 60s);
  world free([](jwks_config& c) { c.min_refresh_interval = 0s; });
  free.fetch(document(1s), lowest);
  CHECK(free.until_next() == 1s);
}

// Red when a longer freshness is taken as well.
TEST_CASE("the server may not ask for later") {
  world w;
  for (const seconds asked : {3600s, 3601s, 86400s, seconds(2147483647)}) {
    w.fetch(document(asked), lowest);
    CHECK(w.until_next() == 3600s);
    w.fetch(document(asked), highest);
    CHECK(w.until_next() > 3240s);
    CHECK(w.until_next() <= 3240s + 1ms);
  }
}

TEST_CASE("a server that says nothing gets the configured interval, and freshness does not change cache_ttl") {
  world w;
  w.fetch(document(), lowest);
  CHECK(w.until_next() == 3600s);
  w.fetch(document(60s), lowest);
  CHECK(w.policy.expires_at() == w.now + 7200s);
}

TEST_CASE("a floor above refresh_interval is capped to it") {
  world w([](jwks_config& c) { c.refresh_interval = 10s, c.cache_ttl = 20s, c.min_refresh_interval = 60s; });
  w.fetch(document(5s), lowest);
  CHECK(w.until_next() == 10s);
  w.fetch(document(), highest);
  CHECK(w.until_next() > 9s);
  CHECK(w.until_next() <= 9s + 1ms);
}

// Red when due() forgets the flight in progress, or compares with >.
TEST_CASE("a refresh is due at its time, once") {
  world w;
  CHECK_FALSE(w.policy.due(w.now + 1000h));  // nobody has asked for the URL yet
  w.policy.plan_first(w.now + 10s);
  CHECK_FALSE(w.policy.due(w.now + 10s - tick));
  CHECK(w.policy.due(w.now + 10s));
  w.now += 10s;
  const auto flight = w.policy.begin(w.now);
  CHECK_FALSE(w.policy.due(w.now));
  CHECK_FALSE(w.policy.due(w.now + 1h));
  w.policy.land(flight, w.now, document(), true, lowest);
  CHECK_FALSE(w.policy.due(w.now + 3600s - tick));
  CHECK(w.policy.due(w.now + 3600s));
}

// Red when next_wake() is always next_attempt_.
TEST_CASE("the next wake is the flight's deadline while there is one, else the next attempt") {
  world w;
  CHECK(w.policy.next_wake() == steady_point::max());
  w.policy.plan_first(w.now + 1s);
  CHECK(w.policy.next_wake() == w.now + 1s);
  const auto flight = w.policy.begin(w.now);
  CHECK(w.policy.next_wake() == w.now + 10s);
  w.policy.land(flight, w.now, failure(), true, lowest);
  CHECK(w.policy.next_wake() == w.now + 500ms);
}

// ---- flights -------------------------------------------------------------------------------------

// Red when expire() compares with <=, or leaves the flight in progress.
TEST_CASE("a flight expires at its deadline, exactly once") {
  world w;
  CHECK_FALSE(w.policy.expire(w.now, lowest));
  const auto flight = w.policy.begin(w.now);
  CHECK(w.policy.in_flight());
  CHECK(w.policy.in_flight(flight));
  CHECK_FALSE(w.policy.in_flight(flight + 1));
  CHECK_FALSE(w.policy.expire(w.now + 10s - tick, lowest));
  w.now += 10s;
  CHECK(w.policy.expire(w.now, lowest));
  CHECK_FALSE(w.policy.in_flight());
  CHECK_FALSE(w.policy.in_flight(flight));
  CHECK_FALSE(w.policy.expire(w.now, lowest));
  CHECK_FALSE(w.policy.expire(w.now + 1h, lowest));
  CHECK(w.policy.consecutive_failures() == 1);
  REQUIRE(w.policy.last_error().has_value());
  CHECK(w.policy.last_error()->code == errc::timed_out);
  CHECK(w.policy.last_error()->description == "the fetch took longer than fetch_timeout (10000 ms)");
  CHECK(w.until_next() == 500ms);
}

// Red when land() refuses every flight that is not the current one.
TEST_CASE("a good answer that comes after the timeout is accepted") {
  world w;
  const auto flight = w.policy.begin(w.now);
  w.now += 10s;
  REQUIRE(w.policy.expire(w.now, highest));
  CHECK(w.ask() == answer::refuse);
  w.now += 1ms;
  CHECK(w.policy.land(flight, w.now, document(), true, lowest) == landing::published);
  CHECK(w.ask() == answer::fresh);
  CHECK(w.policy.fetched_at() == w.now);
  CHECK_FALSE(w.policy.last_error().has_value());
  CHECK(w.policy.consecutive_failures() == 0);
}

// Red when land() ends the flight in progress although another one came back.
TEST_CASE("a late good answer does not end the flight that is in the air") {
  world w;
  const auto late = w.policy.begin(w.now);
  w.now += 10s;
  REQUIRE(w.policy.expire(w.now, lowest));
  w.now += 1s;
  const auto newer = w.policy.begin(w.now);
  CHECK(newer > late);
  CHECK(w.policy.land(late, w.now, document(), true, lowest) == landing::published);
  CHECK(w.policy.in_flight(newer));
  CHECK(w.policy.next_wake() == w.now + 10s);
  w.now += 1s;
  CHECK(w.policy.land(newer, w.now, document(), true, lowest) == landing::published);
  CHECK_FALSE(w.policy.in_flight());
  CHECK(w.policy.fetched_at() == w.now);
}

// Red when land() does not compare with the newest flight that was answered.
TEST_CASE("a good answer that a newer one has overtaken is dropped") {
  world w;
  const auto late = w.policy.begin(w.now);
  w.now += 10s;
  REQUIRE(w.policy.expire(w.now, lowest));
  w.now += 1s;
  w.fetch(document());
  const steady_point published = w.now, next = w.policy.next_attempt();
  w.now += 1s;
  CHECK(w.policy.land(late, w.now, document(), true, lowest) == landing::dropped);
  CHECK(w.policy.land(late, w.now, not_modified(), true, lowest) == landing::dropped);
  CHECK(w.policy.fetched_at() == published);
  CHECK(w.policy.next_attempt() == next);
}

// Red when land() counts the failure of a flight that is not the current one.
TEST_CASE("a failure that comes after the timeout is not counted a second time") {
  world w;
  const auto late = w.policy.begin(w.now);
  w.now += 10s;
  REQUIRE(w.policy.expire(w.now, lowest));
  const steady_point next = w.policy.next_attempt();
  w.now += 100ms;
  CHECK(w.policy.land(late, w.now, failure(3600s), true, highest) == landing::dropped);
  CHECK(w.policy.land(late, w.now, not_modified(), false, highest) == landing::dropped);
  CHECK(w.policy.consecutive_failures() == 1);
  CHECK(w.policy.last_error()->code == errc::timed_out);
  CHECK(w.policy.next_attempt() == next);
  // Nor does it end a newer flight.
  const auto newer = w.policy.begin(w.now);
  CHECK(w.policy.land(late, w.now, failure(), true, lowest) == landing::dropped);
  CHECK(w.policy.in_flight(newer));
}

// Red when a 304 is never good.
TEST_CASE("a 304 that confirms the document renews its stamp") {
  world w;
  w.fetch(document());
  w.now += 3600s;
  CHECK(w.fetch(not_modified(), lowest, true) == landing::confirmed);
  CHECK(w.policy.fetched_at() == w.now);
  CHECK(w.policy.expires_at() == w.now + 7200s);
  CHECK(w.until_next() == 3600s);
}

// Red when a 304 is always good.
TEST_CASE("a 304 for a document that was replaced meanwhile is a failure") {
  world w;
  w.fetch(document());
  w.now += 3600s;
  CHECK(w.fetch(not_modified(), lowest, false) == landing::failed);
  CHECK(w.policy.fetched_at() == start);
  CHECK(w.policy.consecutive_failures() == 1);
  CHECK(w.policy.last_error()->code == errc::http_status);
  CHECK(w.policy.last_error()->http_status == 304);
  CHECK(w.until_next() == 500ms);
}

TEST_CASE("every flight has a number of its own") {
  world w;
  std::uint64_t last = 0;
  for (int i = 0; i < 5; ++i) {
    const auto flight = w.policy.begin(w.now);
    CHECK(flight > last);
    last = flight;
    w.policy.land(flight, w.now, failure(), true, lowest);
  }
}

// ---- unknown kids --------------------------------------------------------------------------------

// Red when the bucket starts with one more.
TEST_CASE("unknown kids may start as many flights as the burst, then the set is the answer while it is young") {
  world w;
  w.fetch(document());
  for (const std::string_view kid : {"a", "b", "c"}) {
    CHECK(w.ask_kid(kid) == kid_answer::start);
    w.fetch(document());
  }
  CHECK(w.ask_kid("d") == kid_answer::answered);
  CHECK(w.ask_kid("e") == kid_answer::answered);
}

// Red when ask_for_refetch() says answered whatever the age is, or counts it from the end of the fetch.
TEST_CASE("without budget, place or time an unknown kid is throttled once the fetch of the set began 30 s ago") {
  world w([](jwks_config& c) { c.unknown_kid_burst = 1; });
  const auto flight = w.policy.begin(w.now);
  w.now += 9s;
  w.policy.land(flight, w.now, document(), true, lowest);
  REQUIRE(w.ask_kid("a") == kid_answer::start);
  w.now += 21s - tick;
  CHECK(w.ask_kid("b") == kid_answer::answered);  // no budget
  CHECK(w.ask_kid("b", 16) == kid_answer::answered);
  w.now += tick;
  CHECK(w.ask_kid("b") == kid_answer::throttled);
  w.now += 9s;
  CHECK(w.ask_kid("b", 16) == kid_answer::throttled);  // no place
  CHECK(w.ask_kid("b") == kid_answer::start);
  w.policy.begin(w.now);
  w.now += 2s;
  CHECK(w.ask_kid("b") == kid_answer::throttled);  // no time
}

// Red when token_deadline() counts from now although a flight is in the air.
TEST_CASE("a caller waits for unknown_kid_wait after the flight began that it joins, and joins none that is older") {
  world w;
  w.fetch(document());
  w.now += 40s;
  CHECK(w.policy.token_deadline(w.now) == w.now + 2s);
  w.policy.begin(w.now);
  w.now += 2s - tick;
  CHECK(w.ask_kid("a") == kid_answer::join);
  CHECK(w.policy.token_deadline(w.now) == w.now + tick);
  w.now += tick;
  CHECK(w.ask_kid("a") == kid_answer::throttled);
}

// Red when a late answer counts as one of a young fetch.
TEST_CASE("a late answer makes no set young") {
  world w([](jwks_config& c) { c.unknown_kid_burst = 1, c.unknown_kid_interval = 1h; });
  w.fetch(document());
  REQUIRE(w.ask_kid("a") == kid_answer::start);
  w.now += 2h;
  const auto late = w.policy.begin(w.now);
  w.now += 10s;
  REQUIRE(w.policy.expire(w.now, lowest));
  w.now += 1h - 20s;
  w.policy.begin(w.now);
  w.policy.land(late, w.now, document(), true, lowest);
  CHECK(w.ask_kid("a", 16) == kid_answer::throttled);
}

// Red when the remainder of an interval is lost (level() always says since now), or earned tokens are not capped to the burst.
TEST_CASE("the budget earns one flight per interval, and part of an interval is not lost") {
  world w;
  w.fetch(document());
  w.now += 30s;  // the set is no answer any more
  for (int i = 0; i < 3; ++i) REQUIRE(w.ask_kid("a") == kid_answer::start);
  w.now += 30s - tick;
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  w.now += tick;
  CHECK(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  w.now += 45s;  // one and a half
  CHECK(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  w.now += 15s;  // the other half
  CHECK(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  w.now += 1000h;
  CHECK(w.ask_kid("a") == kid_answer::start);
  w.now += 1000h;  // with two left
  for (int i = 0; i < 3; ++i) CHECK(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
}

// Red when a full bucket goes on earning (level() always says since_ and what was earned).
TEST_CASE("a full budget earns nothing") {
  world w;
  w.fetch(document());
  w.now += 30s;  // the set is no answer any more
  REQUIRE(w.ask_kid("a") == kid_answer::start);
  w.now += 30s + 29s;  // full again after 30 s
  for (int i = 0; i < 3; ++i) CHECK(w.ask_kid("a") == kid_answer::start);
  w.now += 1s;  // would be the second interval, had it counted on
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  w.now += 29s - tick;
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  w.now += tick;
  CHECK(w.ask_kid("a") == kid_answer::start);
}

TEST_CASE("with a burst of 0 an unknown kid is missing, always") {
  world w([](jwks_config& c) { c.unknown_kid_burst = 0; });
  w.fetch(document());
  CHECK(w.ask_kid("a") == kid_answer::missing);
  w.now += 1000h;
  CHECK(w.ask_kid("a") == kid_answer::missing);
}

TEST_CASE("the budget does not overflow at its extremes") {
  world w([](jwks_config& c) { c.unknown_kid_burst = 1000, c.unknown_kid_interval = 1ms; });
  for (int i = 0; i < 1000; ++i) REQUIRE(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  w.now += 24h * 366 * 200;
  for (int i = 0; i < 1000; ++i) REQUIRE(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
  world slow([](jwks_config& c) { c.unknown_kid_burst = 1, c.unknown_kid_interval = 87840h; });
  CHECK(slow.ask_kid("a") == kid_answer::start);
  slow.now += 87840h - tick;
  CHECK(slow.ask_kid("a") == kid_answer::throttled);
  slow.now += tick;
  CHECK(slow.ask_kid("a") == kid_answer::start);
}

// Red when negative_kid_ttl is 31 s, or the end is compared with <=.
TEST_CASE("a kid that a fetch lacked is missing for 30 s, without a flight and without the budget") {
  world w;
  w.fetch(document());
  w.policy.remember_missing(w.now, "a");
  CHECK(w.ask_kid("a") == kid_answer::missing);
  w.now += 30s - tick;
  for (int i = 0; i < 10; ++i) CHECK(w.ask_kid("a") == kid_answer::missing);
  CHECK(w.policy.negative_kids() == 1);
  CHECK(w.ask_kid("A") == kid_answer::start);
  w.now += tick;
  CHECK(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("b") == kid_answer::start);
  CHECK(w.ask_kid("b") == kid_answer::throttled);
}

// Red when the bound is 2048, or when the youngest goes instead of the oldest.
TEST_CASE("1024 missing kids are remembered, and the oldest goes") {
  world w;
  w.fetch(document());
  for (int i = 0; i < 1024; ++i) {
    w.policy.remember_missing(w.now, "kid" + std::to_string(i));
    w.now += 1ms;
  }
  CHECK(w.policy.negative_kids() == 1024);
  CHECK(w.ask_kid("kid0") == kid_answer::missing);
  w.policy.remember_missing(w.now, "one more");
  CHECK(w.policy.negative_kids() == 1024);
  CHECK(w.ask_kid("kid0") == kid_answer::start);
  CHECK(w.ask_kid("kid1") == kid_answer::missing);
  CHECK(w.ask_kid("kid1023") == kid_answer::missing);
  CHECK(w.ask_kid("one more") == kid_answer::missing);
}

TEST_CASE("a missing kid that is told again pushes no other out") {
  world w;
  for (int i = 0; i < 1024; ++i) w.policy.remember_missing(w.now, "kid" + std::to_string(i));
  w.policy.remember_missing(w.now + 1s, "kid7");
  CHECK(w.policy.negative_kids() == 1024);
}

// Red when a document does not empty it, or a 304 does.
TEST_CASE("new content empties the list of missing kids, a 304 and a failure do not") {
  world w;
  w.fetch(document());
  w.policy.remember_missing(w.now, "a");
  CHECK(w.fetch(not_modified()) == landing::confirmed);
  CHECK(w.ask_kid("a") == kid_answer::missing);
  CHECK(w.fetch(failure()) == landing::failed);
  CHECK(w.ask_kid("a") == kid_answer::missing);
  CHECK(w.fetch(document()) == landing::published);
  CHECK(w.policy.negative_kids() == 0);
  CHECK(w.ask_kid("a") == kid_answer::start);
}

// Red when a join takes from the budget.
TEST_CASE("to join a flight in progress costs nothing") {
  world w;
  w.fetch(document());
  w.now += 30s;  // the set is no answer any more
  const auto flight = w.policy.begin(w.now);
  for (int i = 0; i < 100; ++i) CHECK(w.ask_kid("a") == kid_answer::join);
  w.policy.land(flight, w.now, failure(0s), true, lowest);
  w.now += 1s;
  for (int i = 0; i < 3; ++i) CHECK(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
}

// Red when the bound is 17, or is looked at after the flight.
TEST_CASE("at most 16 callers wait for an unknown kid") {
  world w;
  w.fetch(document());
  w.now += 30s;  // the set is no answer any more
  CHECK(w.ask_kid("a", 16) == kid_answer::throttled);
  const auto flight = w.policy.begin(w.now);
  CHECK(w.ask_kid("a", 15) == kid_answer::join);
  CHECK(w.ask_kid("a", 16) == kid_answer::throttled);
  CHECK(w.ask_kid("a", 1000) == kid_answer::throttled);
  w.policy.land(flight, w.now, document(), true, lowest);
  CHECK(w.ask_kid("a", 15) == kid_answer::start);
  // Those who ask for a kid that is known to be missing need no place.
  w.policy.remember_missing(w.now, "b");
  CHECK(w.ask_kid("b", 16) == kid_answer::missing);
}

// Red when the length is not looked at.
TEST_CASE("a kid that is longer than any kid of a set is missing, without a flight") {
  world w;
  w.fetch(document());
  CHECK(w.ask_kid(std::string(1025, 'k')) == kid_answer::missing);
  CHECK(w.policy.negative_kids() == 0);
  CHECK(w.ask_kid(std::string(1024, 'k')) == kid_answer::start);
}

// Red when ask_for_refetch() waits for the whole backoff, or for none.
TEST_CASE("an unknown kid waits no longer for a backoff than the budget's interval") {
  world w;
  w.fetch(document());
  w.fail_times(12, highest);
  CHECK(w.until_next() > 299s);
  w.now += 30s - tick;
  CHECK(w.ask_kid("a") == kid_answer::refuse);
  w.now += tick;
  CHECK(w.ask_kid("a") == kid_answer::start);
}

// Red when an unknown kid does not look at the backoff.
TEST_CASE("an unknown kid starts no flight during a backoff") {
  world w;
  w.fetch(document());
  w.fetch(failure(60s));
  CHECK(w.ask_kid("a") == kid_answer::refuse);
  w.now += 60s - tick;
  CHECK(w.ask_kid("a") == kid_answer::refuse);
  w.now += tick;
  for (int i = 0; i < 3; ++i) CHECK(w.ask_kid("a") == kid_answer::start);  // and it paid nothing for the refusals
}

// ---- change of configuration ---------------------------------------------------------------------

// Red when configure() does not look at next_attempt_.
TEST_CASE("a shorter refresh_interval brings the next refresh forward") {
  world w;
  w.fetch(document());
  w.now += 50s;
  w.policy.configure(config_with([](jwks_config& c) { c.refresh_interval = 100s, c.cache_ttl = 200s; }));
  CHECK(w.policy.next_attempt() == start + 100s);
  CHECK(w.policy.fetched_at() == start);
  CHECK(w.policy.expires_at() == start + 200s);
  w.now = start + 200s;
  CHECK(w.ask() == answer::start);
}

// Red when configure() puts the next refresh off.
TEST_CASE("a longer refresh_interval does not put off what is planned") {
  world w;
  w.fetch(document(60s));
  w.policy.configure(config_with([](jwks_config& c) { c.refresh_interval = 36000s, c.cache_ttl = 72000s; }));
  CHECK(w.policy.next_attempt() == start + 60s);
  w.fetch(document());
  CHECK(w.until_next() == 36000s);
}

// Red when configure() takes the end of the backoff for the refresh interval's.
TEST_CASE("a new configuration does not break a backoff or a Retry-After") {
  world w;
  w.fetch(document());
  w.now += 3600s;
  w.fetch(failure(600s));
  w.policy.configure(config_with([](jwks_config& c) { c.refresh_interval = 1s, c.cache_ttl = 20000s; }));
  CHECK(w.until_next() == 600s);
  CHECK(w.policy.consecutive_failures() == 1);
  CHECK(w.policy.last_error().has_value());
}

TEST_CASE("without a document a new configuration plans nothing") {
  world w;
  w.policy.configure(config_with([](jwks_config& c) { c.refresh_interval = 1s; }));
  CHECK(w.policy.next_attempt() == steady_point::max());
  w.fetch(failure(), highest);
  const steady_point next = w.policy.next_attempt();
  w.policy.configure(config_with());
  CHECK(w.policy.next_attempt() == next);
}

TEST_CASE("new limits hold from the next flight on") {
  world w;
  const auto flight = w.policy.begin(w.now);
  w.policy.configure(config_with([](jwks_config& c) { c.fetch_timeout = 50ms; }));
  CHECK(w.policy.next_wake() == w.now + 10s);
  w.policy.land(flight, w.now, failure(), true, lowest);
  w.policy.begin(w.now);
  CHECK(w.policy.next_wake() == w.now + 50ms);
}

// Red when configure() leaves the tokens of the old budget.
TEST_CASE("a smaller budget for unknown kids holds at once") {
  world w;
  w.fetch(document());
  w.now += 30s;  // the set is no answer any more
  REQUIRE(w.ask_kid("a") == kid_answer::start);
  w.policy.configure(config_with([](jwks_config& c) { c.unknown_kid_burst = 1; }));
  CHECK(w.ask_kid("a") == kid_answer::start);
  CHECK(w.ask_kid("a") == kid_answer::throttled);
}

// Red when unused() compares with >, or leaves the outage window out.
TEST_CASE("a URL is unused when a lookup would have to fetch anyway") {
  const world w;
  CHECK_FALSE(w.policy.unused(start, start));
  CHECK_FALSE(w.policy.unused(start + 14400s - tick, start));
  CHECK(w.policy.unused(start + 14400s, start));
}

// Red when later() is a plain sum.
TEST_CASE("the end of time is a deadline like any other") {
  using axioms::detail::later;
  CHECK(later(steady_point::max(), 1h) == steady_point::max());
  CHECK(later(steady_point::max() - 1s, 2s) == steady_point::max());
  CHECK(later(steady_point::max() - 2s, 1s) == steady_point::max() - 1s);
  world w;
  w.now = steady_point::max() - 1s;
  w.fetch(document());
  CHECK(w.ask() == answer::fresh);
  CHECK(w.policy.expires_at() == steady_point::max());
  CHECK(w.policy.next_attempt() == steady_point::max());
  w.fetch(failure(60s), highest);
  CHECK(w.policy.next_attempt() == steady_point::max());
}

// ---- judge ---------------------------------------------------------------------------------------

namespace {

const std::chrono::system_clock::time_point wall{seconds(1767225600)};  // 2026-01-01T00:00:00Z

fetch_request plain() { return fetch_request{.url = "https://idp.example.com/jwks.json"}; }
fetch_request conditional() { return fetch_request{.url = "https://idp.example.com/jwks.json", .etag = "\"1\""}; }

verdict judged(int status, std::string body = {}, std::vector<std::pair<std::string, std::string>> headers = {},
               const fetch_request& request = plain()) {
  return judge(request, support::response(status, std::move(body), std::move(headers)), wall);
}

}  // namespace

TEST_CASE("a 200 with a usable key set is a document") {
  const std::string body = support::key_set({"a", "b"});
  const verdict what = judged(200, body,
                              {{"ETag", "\"7\""},
                               {"Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"},
                               {"Cache-Control", "max-age=600"},
                               {"Age", "60"}});
  CHECK(what.what == verdict::kind::document);
  CHECK(what.status == 200);
  REQUIRE(what.content != nullptr);
  CHECK(what.content->body == body);
  CHECK(what.content->keys.size() == 2);
  CHECK(what.etag == "\"7\"");
  CHECK(what.last_modified == "Thu, 01 Jan 2026 00:00:00 GMT");
  CHECK(what.freshness == std::optional<seconds>(540s));
  CHECK_FALSE(what.retry_after.has_value());
}

TEST_CASE("one usable key among bad members makes a document") {
  const verdict what =
      judged(200, R"({"keys":[{"kty":"oct","k":"AAAA"},{"kty":"EC"},)" + support::key_set({"a"}).substr(9));
  CHECK(what.what == verdict::kind::document);
  CHECK(what.content->keys.size() == 1);
  CHECK(what.content->keys.skipped().size() == 2);
}

// Red when judge() gives every bad body the code fetch_failed.
TEST_CASE("a 200 that is no key set is a failure with the parser's code and the status") {
  const std::pair<std::string, errc> rows[] = {
      {"", errc::not_a_key_set},
      {"<html>Sign in</html>", errc::not_a_key_set},
      {R"({"keys":[{"kty":)", errc::not_a_key_set},
      {"{}", errc::not_a_key_set},
      {"[]", errc::not_a_key_set},
      {R"({"keys":{}})", errc::not_a_key_set},
      {R"({"keys":[]})", errc::no_usable_key},
      {R"({"keys":[{"kty":"oct","k":"AAAA"}]})", errc::no_usable_key},
  };
  for (const auto& [body, code] : rows) {
    const std::string_view which = body;  // clang 14 cannot capture body itself
    CAPTURE(which);
    const verdict what = judged(200, body);
    CHECK(what.what == verdict::kind::failure);
    CHECK(what.why.code == code);
    CHECK(what.why.http_status == 200);
    CHECK(what.status == 200);
    CHECK(what.why.description.find("no key set from 'https://idp.example.com/jwks.json': ") == 0);
    CHECK(what.content == nullptr);
  }
}

// Red when the limit is compared with >=, or not at all.
TEST_CASE("a body over the limit is too large, one of exactly the limit is not" * doctest::test_suite("slow")) {
  fetch_request request = plain();
  const std::string body = support::key_set({"a"});
  request.max_body_bytes = body.size();
  CHECK(judged(200, body, {}, request).what == verdict::kind::document);
  request.max_body_bytes = body.size() - 1;
  const verdict what = judged(200, body, {}, request);
  CHECK(what.what == verdict::kind::failure);
  CHECK(what.why.code == errc::response_too_large);
  CHECK(what.why.http_status == 200);
  const verdict huge = judged(200, std::string((1 << 20) + 1, '['));
  CHECK(huge.why.code == errc::response_too_large);
  CHECK(huge.why.description == "the body from 'https://idp.example.com/jwks.json' is over the limit of 1048576 bytes");
}

// Red when every 304 is taken for a confirmation.
TEST_CASE("a 304 is a confirmation only if it was asked for") {
  const verdict by_etag = judged(304, {}, {{"Cache-Control", "max-age=60"}}, conditional());
  CHECK(by_etag.what == verdict::kind::not_modified);
  CHECK(by_etag.status == 304);
  CHECK(by_etag.freshness == std::optional<seconds>(60s));
  fetch_request by_date = plain();
  by_date.last_modified = "Thu, 01 Jan 2026 00:00:00 GMT";
  CHECK(judged(304, {}, {}, by_date).what == verdict::kind::not_modified);
  const verdict unasked = judged(304);
  CHECK(unasked.what == verdict::kind::failure);
  CHECK(unasked.why.code == errc::http_status);
  CHECK(unasked.why.http_status == 304);
}

// RFC 9110 section 15.3.4. Red when 203 is a status like the others.
TEST_CASE("a 203 brings a document like a 200") {
  const verdict what = judged(203, support::key_set({"a"}));
  REQUIRE(what.what == verdict::kind::document);
  CHECK(what.status == 203);
  CHECK(judged(203, "<html>").why.http_status == 203);
}

// Red when http_status is not set, or when another 2xx is taken for a 200.
TEST_CASE("every other status is a failure, whatever stands in the body") {
  for (const int status : {0,   100, 199, 201, 202, 204, 206, 301, 302, 307, 308, 400,
                           401, 403, 404, 410, 429, 500, 502, 503, 504, 599, 999, -1}) {
    CAPTURE(status);
    const verdict what = judged(status, support::key_set({"a"}), {}, conditional());
    CHECK(what.what == verdict::kind::failure);
    CHECK(what.why.code == errc::http_status);
    CHECK(what.why.http_status == status);
    CHECK(what.why.description ==
          "HTTP status " + std::to_string(status) + " from 'https://idp.example.com/jwks.json'");
    CHECK(what.content == nullptr);
  }
}

// Red when judge() adds the hint to no 404, or to every one.
TEST_CASE("a 404 where an issuer's keys are by default names the options that say where they are") {
  fetch_request request = plain();
  request.url = "https://idp.example.com/realms/shop/.well-known/jwks.json";
  CHECK(judged(404, {}, {}, request).why.description ==
        "HTTP status 404 from 'https://idp.example.com/realms/shop/.well-known/jwks.json'; if the issuer has its keys "
        "elsewhere, set jwks_config::discovery, or jwks_url");
  CHECK(judged(503, {}, {}, request).why.description.ends_with("jwks.json'"));
  request.url += "?tenant=1";
  CHECK(judged(404, {}, {}, request).why.description.ends_with("tenant=1'"));
}

TEST_CASE("a Retry-After is read from every response, in both forms") {
  CHECK(judged(503, {}, {{"retry-after", "120"}}).retry_after == std::optional<seconds>(120s));
  CHECK(judged(429, {}, {{"Retry-After", "Thu, 01 Jan 2026 00:01:00 GMT"}}).retry_after == std::optional<seconds>(60s));
  CHECK(judged(200, "<html>", {{"Retry-After", "5"}}).retry_after == std::optional<seconds>(5s));
  CHECK_FALSE(judged(503, {}, {{"Retry-After", "soon"}}).retry_after.has_value());
}

TEST_CASE("no-cache, no-store and max-age=0 ask for nothing") {
  for (const std::string value :
       {"no-cache", "no-store", "max-age=0", "max-age=600, no-cache", "No-Store, max-age=600"}) {
    CAPTURE(value);
    const verdict what = judged(200, support::key_set({"a"}), {{"Cache-Control", value}});
    CHECK(what.what == verdict::kind::document);
    CHECK_FALSE(what.freshness.has_value());
  }
}

// Red when validators are kept without a look at their bytes, or at their length.
TEST_CASE("a validator that could split our next request is dropped, and the document is kept") {
  for (const std::string& bad : {std::string("\"1\"\r\nX: y"), std::string("\"1\n\""), std::string("\"\0\"", 3),
                                 std::string("\"\x7f\""), std::string(1025, 'e')}) {
    const verdict what = judged(200, support::key_set({"a"}), {{"ETag", bad}, {"Last-Modified", bad}});
    CHECK(what.what == verdict::kind::document);
    CHECK(what.etag == "");
    CHECK(what.last_modified == "");
  }
  const std::string longest(1024, 'e');
  const verdict what = judged(200, support::key_set({"a"}), {{"ETag", longest}, {"Last-Modified", longest}});
  CHECK(what.etag == longest);
  CHECK(what.last_modified == longest);
  CHECK(judged(304, {}, {{"ETag", "W/\"2\""}}, conditional()).etag == "W/\"2\"");
}

TEST_CASE("a fetcher's error is the failure, with its code, text and status") {
  for (const errc code : {errc::resolve_failed, errc::connect_failed, errc::tls_failed, errc::fetch_failed,
                          errc::timed_out, errc::response_too_large}) {
    const verdict what = judge(plain(), axioms::error{code, "as the fetcher says", 0}, wall);
    CHECK(what.what == verdict::kind::failure);
    CHECK(what.why.code == code);
    CHECK(what.why.description == "as the fetcher says");
    CHECK(what.status == 0);
  }
  CHECK(judge(plain(), axioms::error{errc::connect_failed, "the proxy says no", 407}, wall).why.http_status == 407);
}

// Red when an error without a code stays one.
TEST_CASE("a fetcher's error without a code is still an error") {
  const verdict what = judge(plain(), axioms::error{errc{}, "something", 0}, wall);
  CHECK(what.what == verdict::kind::failure);
  CHECK(what.why.code == errc::fetch_failed);
}

// ---- withdrawn keys ------------------------------------------------------------------------------

namespace {

verdict document_of(std::initializer_list<std::string_view> kids) {
  verdict out = document();
  out.content = std::make_shared<axioms::detail::document_content>();
  out.content->keys = *axioms::jwk_set::parse(support::key_set(kids));
  return out;
}

// A policy and the set that it has published last.
struct rotating_world : world {
  using world::world;

  landing publish(std::initializer_list<std::string_view> kids) {
    const verdict brought = document_of(kids);
    const auto said = policy.land(policy.begin(now), now, brought, false, lowest, served ? &served->keys : nullptr);
    served = brought.content;
    return said;
  }
  std::string pick(std::string_view kid, std::string_view alg = {}) const {
    const auto found = policy.select(now, served->keys, {kid, alg});
    if (found.key) return std::string((*found.key)->kid());
    return found.kid_unknown ? "unknown" : std::string(to_string(found.key.error().code));
  }

  std::shared_ptr<axioms::detail::document_content> served;
};

}  // namespace

// Red when select() looks at withdrawn_ without asking for the time.
TEST_CASE("without a withdrawn_key_grace a key that left the set is gone at once") {
  rotating_world w;
  w.publish({"a", "b"});
  CHECK(w.pick("a") == "a");
  w.publish({"b", "c"});
  CHECK(w.pick("a") == "unknown");
  CHECK(w.pick("c") == "c");
  CHECK(w.policy.withdrawn_keys() == 0);
}

// Red when select() compares with <= or leaves out grace_, and when replace() keeps nothing.
TEST_CASE("a withdrawn key is given for withdrawn_key_grace and not a tick longer") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300s; });
  w.publish({"a", "b"});
  w.now += 60s;
  w.publish({"b"});
  w.now += 300s - tick;
  CHECK(w.pick("a") == "a");
  w.now += tick;
  CHECK(w.pick("a") == "unknown");
}

// Red when replace() does not leave out what is published again, or sets `since` anew for a key that stays away.
TEST_CASE("the grace counts from the set that lacked the key first, and again after the key came back") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300s; });
  w.publish({"a", "b"});
  w.publish({"b"});
  w.now += 200s;
  w.publish({"b", "c"});  // still without it
  w.now += 99s;
  CHECK(w.pick("a") == "a");
  w.now += 1s;
  CHECK(w.pick("a") == "unknown");
  w.publish({"a"});
  CHECK(w.pick("b") == "b");
  CHECK(w.policy.withdrawn_keys() == 2);  // b and c
  w.now += 100s;
  w.publish({"b"});
  w.now += 299s;
  CHECK(w.pick("a") == "a");
}

// Red when select() looks at the withdrawn keys first, or for every error.
TEST_CASE("a key of the set comes before a withdrawn one, and a withdrawn one settles nothing that is ambiguous") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300s; });
  w.publish({"a"});
  w.publish({"b"});
  CHECK(w.pick("", "EdDSA") == "b");
  CHECK(w.pick("a", "EdDSA") == "a");
  CHECK(w.pick("b", "ES256") == "key_not_found");  // known: another algorithm does not make it unknown
  CHECK(w.pick("a", "ES256") == "unknown");        // no key of the set has it
  CHECK(w.pick("a", "HS256") == "unsupported_algorithm");
}

// Red when replace() does not ask servable().
TEST_CASE("keys of a document that was served no more do not come back with the next one") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 100000s; });
  w.publish({"a"});
  w.now += 7200s + 7200s;
  w.publish({"b"});
  CHECK(w.pick("a") == "unknown");
}

// Red when select() uses a `grace_` that configure() did not set.
TEST_CASE("a shorter withdrawn_key_grace holds at once") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300s; });
  w.publish({"a"});
  w.publish({"b"});
  w.now += 10s;
  CHECK(w.pick("a") == "a");
  w.policy.configure(config_with([](jwks_config& c) { c.withdrawn_key_grace = 10s; }));
  CHECK(w.pick("a") == "unknown");
}

// Red when replace() keeps what is published again, or what no query can get any more.
TEST_CASE("a key that came back and one whose grace is over take no room") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300s; });
  w.publish({"a", "b"});
  w.publish({"b"});
  CHECK(w.policy.withdrawn_keys() == 1);
  w.publish({"a", "b"});
  CHECK(w.policy.withdrawn_keys() == 0);
  w.publish({"b"});
  w.now += 300s;
  w.publish({"b", "c"});
  CHECK(w.policy.withdrawn_keys() == 0);
}

// Red when replace() has no limit, or drops the youngest.
TEST_CASE("256 withdrawn keys are kept, and the oldest goes" * doctest::test_suite("slow")) {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300000s; });
  for (int i = 0; i <= 258; ++i) {
    w.publish({std::to_string(i)});
    w.now += 1s;
  }
  CHECK(w.policy.withdrawn_keys() == 256);
  CHECK(w.pick("1") == "unknown");
  CHECK(w.pick("2") == "2");
  CHECK(w.pick("257") == "257");
}

// Red when a 304 or a failure touches the withdrawn keys.
TEST_CASE("a 304 and a failure neither withdraw a key nor end a grace") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300s; });
  w.publish({"a"});
  w.publish({"b"});
  for (const verdict& what : {not_modified(), failure()}) {
    w.policy.land(w.policy.begin(w.now), w.now, what, true, lowest, &w.served->keys);
    CHECK(w.pick("a") == "a");
    CHECK(w.pick("b") == "b");
  }
}

// An oracle that knows only who was in which set, and when.
// Red when replace() forgets to erase, erases too much, or select() mistakes the time.
TEST_CASE("no random rotation ends a grace too soon or lets it last too long" * doctest::test_suite("slow")) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    std::uint64_t state = seed * 0x9e3779b97f4a7c15U + 1;
    const auto below = [&](std::uint64_t most) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      return (state >> 33U) % most;
    };
    rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 50s; });
    std::map<std::string, steady_point> until;  // of those that left
    std::string inside;
    for (int step = 0; step < 60; ++step) {
      if (below(2) == 0) {
        std::string next;
        while (next.empty()) {
          for (const char kid : {'a', 'b', 'c', 'd', 'e'}) next += below(2) == 0 ? std::string(1, kid) : std::string();
        }
        for (const char kid : inside) {
          if (next.find(kid) == std::string::npos) until[std::string(1, kid)] = w.now + 50s;
        }
        for (const char kid : next) until.erase(std::string(1, kid));
        inside = next;
        std::vector<std::string> kids;
        for (const char kid : next) kids.emplace_back(1, kid);
        verdict brought = document();
        brought.content = std::make_shared<axioms::detail::document_content>();
        std::string body = R"({"keys":[)";
        for (const auto& kid : kids)
          body += support::key_set({kid}).substr(9, support::key_set({kid}).size() - 11) + ",";
        body.back() = ']';
        brought.content->keys = *axioms::jwk_set::parse(body + "}");
        REQUIRE(w.policy.land(w.policy.begin(w.now), w.now, brought, false, lowest,
                              w.served ? &w.served->keys : nullptr) == landing::published);
        w.served = brought.content;
      } else {
        w.now += std::chrono::seconds(below(40));
      }
      if (!w.served) continue;
      for (const char kid : {'a', 'b', 'c', 'd', 'e'}) {
        const std::string name(1, kid);
        const auto left = until.find(name);
        const bool usable = inside.find(kid) != std::string::npos || (left != until.end() && w.now < left->second);
        CAPTURE(seed);
        CAPTURE(step);
        REQUIRE(w.pick(name) == (usable ? name : "unknown"));
      }
    }
  }
}

// ---- unknown kids and the flights that answer them -----------------------------------------------

// Red when answered_since() counts the flight that was in the air already, or one that failed.
TEST_CASE("an answer proves that a kid is missing only to those who asked before its flight began") {
  world w;
  const auto first = w.policy.begin(w.now);
  const auto asked = w.policy.newest_flight();  // the first flight is in the air
  w.policy.land(first, w.now, document(), false, lowest);
  CHECK_FALSE(w.policy.answered_since(asked));
  CHECK(w.fetch(failure()) == landing::failed);
  CHECK_FALSE(w.policy.answered_since(asked));
  CHECK(w.fetch(document()) == landing::published);
  CHECK(w.policy.answered_since(asked));
}

// ---- documents that no flight brought ------------------------------------------------------------

// Red when any of the three is left out.
TEST_CASE("a body is the same if its bytes and its place are, and it was read by the same options") {
  const auto content = [](const char* url, const char* kid) {
    axioms::detail::document_content out;
    out.url = url;
    out.body = support::key_set({kid});
    out.keys = *axioms::jwk_set::parse(out.body);
    return out;
  };
  const auto served = content("https://a/", "k1");
  CHECK(is_same(content("https://a/", "k1"), served));
  CHECK_FALSE(is_same(content("https://b/", "k1"), served));
  CHECK_FALSE(is_same(content("https://a/", "k2"), served));
  auto other_options = content("https://a/", "k1");
  other_options.keys = *axioms::jwk_set::parse(other_options.body, {.allow_es256k = true});
  CHECK_FALSE(is_same(other_options, served));
}

// Red when pin() leaves out pinned_ in servable() or expires_at(), next_attempt_, or the failures.
TEST_CASE("a pinned document is fresh for ever and never fetched") {
  world w;
  w.fail_times(3);
  w.policy.pin(w.now, document_of({"a"}).content->keys);
  w.policy.plan_first(w.now);
  w.policy.configure(config_with());
  w.now += std::chrono::hours(24 * 365 * 10);
  CHECK(w.ask() == answer::fresh);
  CHECK(w.policy.servable(w.now));
  CHECK_FALSE(w.policy.stale(w.now));
  CHECK_FALSE(w.policy.due(w.now));
  CHECK(w.policy.next_wake() == steady_point::max());
  CHECK(w.policy.expires_at() == steady_point::max());
  CHECK_FALSE(w.policy.last_error());
  CHECK(w.policy.consecutive_failures() == 0);
}

// Red when ask_unknown_kid() does not ask pinned_.
TEST_CASE("an unknown kid of a pinned document is missing, at once and without a flight") {
  world w;
  w.policy.pin(w.now, document_of({"a"}).content->keys);
  for (int i = 0; i < 10; ++i) CHECK(w.ask_kid("b" + std::to_string(i)) == kid_answer::missing);
  CHECK(w.policy.negative_kids() == 0);
}

// Red when pin() leaves answered_ or in_flight_ as they are.
TEST_CASE("what is in the air when a document is pinned does not replace it") {
  for (const verdict& late : {document_of({"b"}), not_modified(), failure()}) {
    world w;
    const auto flight = w.policy.begin(w.now);
    w.policy.pin(w.now, document_of({"a"}).content->keys);
    CHECK_FALSE(w.policy.in_flight());
    CHECK(w.policy.land(flight, w.now, late, true, lowest) == landing::dropped);
    CHECK(w.ask() == answer::fresh);
    CHECK_FALSE(w.policy.last_error());
  }
}

// Red when pin() does not withdraw.
TEST_CASE("a pinned set withdraws keys as a fetched one does") {
  rotating_world w([](jwks_config& c) { c.withdrawn_key_grace = 300s; });
  w.publish({"a"});
  const auto next = document_of({"b"}).content;
  w.policy.pin(w.now, next->keys, &w.served->keys);
  w.served = next;
  CHECK(w.pick("a") == "a");
  w.now += 300s;
  CHECK(w.pick("a") == "unknown");
}

// Red when restore() takes the present for the time of the fetch, or plans nothing.
TEST_CASE("a restored document keeps its age") {
  world w;
  CHECK(w.policy.restore(w.now, w.now - 7000s, lowest));
  CHECK(w.ask() == answer::fresh);
  CHECK(w.policy.due(w.now));
  CHECK(w.policy.expires_at() == w.now + 200s);
  w.now += 200s;
  CHECK(w.ask() == answer::start);
  w.now += 7200s - tick;
  CHECK(w.policy.servable(w.now));
  w.now += tick;
  CHECK_FALSE(w.policy.servable(w.now));
}

// Red when restored_attempt() forgets the jitter, or configure() keeps the plan of another interval.
TEST_CASE("a restored document is refreshed refresh_interval after it was fetched, less its jitter") {
  world soonest, latest;
  CHECK(soonest.policy.restore(soonest.now, soonest.now - 1000s, highest));
  CHECK(soonest.until_next() > 3240s - 1000s);
  CHECK(soonest.until_next() <= 3240s - 1000s + 1ms);
  CHECK(latest.policy.restore(latest.now, latest.now - 1000s, lowest));
  CHECK(latest.until_next() == 2600s);
  latest.policy.configure(config_with([](jwks_config& c) { c.refresh_interval = 36000s, c.cache_ttl = 72000s; }));
  CHECK(latest.until_next() == 35000s);
  latest.fetch(document());
  CHECK(latest.until_next() == 36000s);
}

// Red when what is overdue is fetched by everybody at once.
TEST_CASE("restored documents that are overdue are spread over min_refresh_interval") {
  world w;
  CHECK(w.policy.restore(w.now, w.now - 3600s, highest));
  CHECK(just_below(w.until_next(), 60s));
  w.policy.put_off(w.now + 100s);
  CHECK(w.until_next() == 100s);
  w.policy.put_off(w.now + 10s);
  CHECK(w.until_next() == 100s);
}

// Red when restore() returns true whatever there is.
TEST_CASE("a restored document replaces none, be it fetched, pinned or restored") {
  world fetched, pinned, restored;
  CHECK(fetched.fetch(document()) == landing::published);
  pinned.policy.pin(pinned.now, document_of({"a"}).content->keys);
  CHECK(restored.policy.restore(restored.now, restored.now - 10s, lowest));
  for (world* w : {&fetched, &pinned, &restored}) {
    const auto before = w->policy.fetched_at();
    CHECK_FALSE(w->policy.restore(w->now, w->now - 5s, lowest));
    CHECK(w->policy.fetched_at() == before);
  }
}

// Red when restore() sets next_attempt_ to now.
TEST_CASE("a restored document does not break a backoff or a Retry-After") {
  world w;
  w.fetch(failure(100s), highest);
  const auto allowed = w.policy.next_attempt();
  CHECK(w.policy.restore(w.now, w.now - 7300s, lowest));
  CHECK(w.policy.next_attempt() == allowed);
  CHECK(w.ask() == answer::stale);
}

// Red when a flight that began before restore() is dropped.
TEST_CASE("a flight that is in the air when a document is restored replaces it") {
  world w;
  const auto flight = w.policy.begin(w.now);
  CHECK(w.policy.restore(w.now, w.now - 7000s, lowest));
  CHECK(w.policy.land(flight, w.now, document(), false, lowest) == landing::published);
  CHECK(w.policy.fetched_at() == w.now);
}

// Red when either limit or the clamp to 0 is left out.
TEST_CASE("the age of a saved document is what the wall clock says, as far as that makes sense") {
  using axioms::detail::age_of_saved;
  using wall = std::chrono::system_clock::time_point;
  const wall today{seconds(1790000000)};
  CHECK(*age_of_saved(today, 1790000000) == 0s);
  CHECK(*age_of_saved(today, 1789999000) == 1000s);
  CHECK(*age_of_saved(today, 1790000060) == 0s);  // the clock was stepped back a little
  CHECK(age_of_saved(today, 1790000061).error().code == errc::not_a_key_set);
  CHECK(*age_of_saved(today, 1790000000 - axioms::detail::max_duration.count()) == axioms::detail::max_duration);
  CHECK_FALSE(age_of_saved(today, 1790000000 - axioms::detail::max_duration.count() - 1));
  CHECK_FALSE(age_of_saved(today, -1));
  CHECK_FALSE(age_of_saved(today, std::numeric_limits<std::int64_t>::min()));
  CHECK_FALSE(age_of_saved(today, std::numeric_limits<std::int64_t>::max()));
  CHECK_FALSE(age_of_saved(wall{seconds(-5)}, 1790000000));  // a machine whose clock was not set yet
  CHECK_FALSE(age_of_saved(wall::min(), 0));
  CHECK_FALSE(age_of_saved(wall::max(), 0));
}

// ---- random schedules ----------------------------------------------------------------------------

namespace {

// splitmix64: a sequence is told by its number alone.
class dice {
 public:
  explicit dice(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15U + 1) {}
  std::uint64_t operator()() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::int64_t below(std::int64_t most) {
    return static_cast<std::int64_t>((*this)() % static_cast<std::uint64_t>(most));
  }
  bool one_in(std::int64_t chances) { return below(chances) == 0; }

 private:
  std::uint64_t state_;
};

// What the world knows without the policy's help. Returns the first rule that is broken, or nothing.
class schedule {
 public:
  explicit schedule(std::uint64_t seed) : roll_(seed), config_(draw_config()), policy_(config_) {
    if (roll_.one_in(2)) policy_.plan_first(now_ + seconds(roll_.below(20)));
  }

  const char* run(int steps) {
    for (int i = 0; i < steps; ++i) {
      const char* broken = step();
      if (broken == nullptr) broken = check_serving();
      if (broken != nullptr) return broken;
    }
    return check_budget();
  }

 private:
  jwks_config draw_config() {
    jwks_config config;
    config.refresh_interval = seconds(1 + roll_.below(30));
    config.cache_ttl = 2 * config.refresh_interval + seconds(roll_.below(20));
    config.outage_window = seconds(roll_.one_in(3) ? 0 : roll_.below(60));
    config.min_refresh_interval = seconds(roll_.below(20));
    config.fetch_timeout = milliseconds(1 + roll_.below(10000));
    config.backoff_initial = milliseconds(2 + roll_.below(3000));
    config.backoff_max = config.backoff_initial + milliseconds(roll_.below(60000));
    config.retry_after_max = milliseconds(roll_.below(120000));
    config.unknown_kid_burst = static_cast<int>(roll_.below(4));
    config.unknown_kid_interval = milliseconds(1 + roll_.below(20000));
    return config;
  }

  const char* step() {
    switch (roll_.below(11)) {
      case 0:
      case 1:
      case 2: return advance();
      case 10: return load();
      case 3:
      case 4: return policy_.ask(now_) == answer::start ? begin() : nullptr;
      case 5:
        if (policy_.due(now_)) {
          if (now_ < next_allowed_) return "the background did not wait for its backoff";
          return begin();
        }
        return nullptr;
      case 6: return unknown_kid();
      case 7:
      case 8: return land();
      default: return roll_.one_in(8) ? configure() : nullptr;
    }
  }

  const char* advance() {
    switch (roll_.below(4)) {
      case 0: now_ += milliseconds(roll_.below(200)); break;
      case 1: now_ += milliseconds(roll_.below(20000)); break;
      case 2: now_ += seconds(roll_.below(200)); break;
      default:  // exactly to where something is to happen
        if (policy_.next_wake() < steady_point::max())
          now_ = std::max(now_, policy_.next_wake() - tick * roll_.below(2));
    }
    const bool overdue = flying_ && now_ >= deadline_;
    const bool servable = policy_.servable(now_);
    if (policy_.expire(now_, roll_()) != overdue) return "a flight expired at the wrong time";
    if (policy_.servable(now_) != servable) return "an expiry changed what is served";
    if (overdue) failed();
    return nullptr;
  }

  const char* begin() {
    if (flying_) return "two flights at once";
    flying_ = true;
    current_ = policy_.begin(now_);
    if (!numbers_.empty() && current_ <= numbers_.back()) return "a flight's number was used twice";
    numbers_.push_back(current_);
    deadline_ = now_ + config_.fetch_timeout;
    return nullptr;
  }

  const char* unknown_kid() {
    const std::string kid(1, static_cast<char>('a' + roll_.below(5)));
    const auto said = policy_.ask_unknown_kid(now_, kid, static_cast<std::size_t>(roll_.below(18)));
    if (said == kid_answer::start) {
      policy_.pay(now_);
      kid_flights_.push_back(now_);
      if (roll_.one_in(3)) policy_.remember_missing(now_, kid);
      return begin();
    }
    if (said == kid_answer::join && !flying_) return "an unknown kid joined no flight";
    if (said == kid_answer::refuse && !policy_.last_error()) return "an unknown kid was refused without an error";
    return nullptr;
  }

  const char* land() {
    if (numbers_.empty()) return nullptr;
    const auto number =
        roll_.one_in(3) || !flying_
            ? numbers_[static_cast<std::size_t>(roll_.below(static_cast<std::int64_t>(numbers_.size())))]
            : current_;
    const bool is_current = flying_ && number == current_;
    numbers_.erase(std::find(numbers_.begin(), numbers_.end(), number));
    const bool confirms = !roll_.one_in(3);
    const auto asked = roll_.one_in(2) ? std::optional<seconds>(roll_.below(300)) : std::nullopt;
    const auto kind = roll_.below(3);
    const verdict brought = kind == 0 ? document(asked) : kind == 1 ? not_modified(asked) : failure(asked);
    const bool good = !pinned_ && (kind == 0 || (kind == 1 && confirms && fetched_.has_value()));
    const bool servable = policy_.servable(now_);
    const auto next = policy_.next_attempt();
    const auto said = policy_.land(number, now_, brought, kind == 1 && good, roll_());
    if (is_current) flying_ = false;
    if (pinned_) return said == landing::dropped ? nullptr : "an answer replaced a pinned document";
    if (good && number > answered_) {
      answered_ = number;
      fetched_ = now_;
      next_allowed_ = steady_point{};
      if (said != (kind == 0 ? landing::published : landing::confirmed)) return "a good answer was not taken";
      if (policy_.next_attempt() > now_ + config_.refresh_interval)
        return "the next refresh is later than refresh_interval";
      if (policy_.next_attempt() < now_ + config_.refresh_interval * 9 / 10 && !asked)
        return "the next refresh is sooner than its jitter allows";
      const auto floor = std::min(config_.min_refresh_interval, config_.refresh_interval * 9 / 10);
      if (policy_.next_attempt() < now_ + floor) return "the next refresh is sooner than the floor";
    } else if (!good && is_current) {
      if (said != landing::failed) return "a failure was not taken";
      if (policy_.servable(now_) != servable) return "a failure changed what is served";
      failed();
    } else {
      if (said != landing::dropped) return "an answer that counts no more was taken";
      if (policy_.servable(now_) != servable || policy_.next_attempt() != next)
        return "a dropped answer changed something";
    }
    return nullptr;
  }

  // A document that no flight brought: rarely one of the application's own, which ends all fetching.
  const char* load() {
    if (roll_.one_in(30)) {
      policy_.pin(now_, no_keys_);
      pinned_ = true;
      flying_ = false;
      return nullptr;
    }
    const seconds age(roll_.below(200));
    const bool better = !policy_.servable(now_) && (!fetched_ || now_ - age > *fetched_);
    const bool taken = policy_.restore(now_, now_ - age, roll_());
    if (taken != better) return "a saved document replaced a better one, or was not taken";
    if (taken) fetched_ = now_ - age;
    return nullptr;
  }

  const char* configure() {
    const int burst = config_.unknown_kid_burst;  // the sum at the end is for one budget
    const auto interval = config_.unknown_kid_interval;
    config_ = draw_config();
    config_.unknown_kid_burst = burst;
    config_.unknown_kid_interval = interval;
    policy_.configure(config_);
    return nullptr;
  }

  void failed() {
    flying_ = false;
    failed_at_ = now_;
    next_allowed_ = now_ + config_.backoff_initial / 2;
  }

  // What is served, and to whom, after every step.
  const char* check_serving() const {
    const auto said = policy_.ask(now_);
    if (pinned_)
      return said == answer::fresh && policy_.next_wake() == steady_point::max() ? nullptr : "a pinned document aged";
    const bool servable = fetched_ && now_ < *fetched_ + config_.cache_ttl + config_.outage_window;
    const bool fresh = fetched_ && now_ < *fetched_ + config_.cache_ttl;
    if (policy_.servable(now_) != servable) return "served past cache_ttl + outage_window, or not served within";
    if ((said == answer::fresh) != fresh) return "fresh is not what is younger than cache_ttl";
    if (said == answer::stale && !servable) return "stale was served past cache_ttl + outage_window";
    if (servable && (said == answer::join || said == answer::refuse))
      return "somebody waited or failed beside a document";
    if (said == answer::start && flying_) return "a second flight would start";
    if (said == answer::join && !flying_) return "a flight was joined that is none";
    if (said == answer::start && now_ < next_allowed_) return "a lookup did not wait for the backoff";
    if (said == answer::refuse && !policy_.last_error()) return "refused without an error";
    if (policy_.in_flight() != flying_) return "the policy lost count of its flight";
    if (policy_.due(now_) && flying_) return "a flight is due beside another";
    if (fetched_ && !flying_ && policy_.next_attempt() == steady_point::max())
      return "nothing is planned for a URL that is cached";
    return nullptr;
  }

  // Any stretch of time: the burst, and one more per interval.
  const char* check_budget() const {
    for (std::size_t from = 0; from < kid_flights_.size(); ++from) {
      for (std::size_t to = from; to < kid_flights_.size(); ++to) {
        const auto intervals = (kid_flights_[to] - kid_flights_[from]) / config_.unknown_kid_interval;
        if (static_cast<std::int64_t>(to - from + 1) > config_.unknown_kid_burst + intervals)
          return "unknown kids went over their budget";
      }
    }
    return nullptr;
  }

  dice roll_;
  jwks_config config_;
  refresh_policy policy_;
  steady_point now_ = start;
  std::optional<steady_point> fetched_;
  steady_point failed_at_{}, next_allowed_{}, deadline_{};
  bool flying_ = false, pinned_ = false;
  axioms::jwk_set no_keys_;
  std::uint64_t current_ = 0, answered_ = 0;
  std::vector<std::uint64_t> numbers_;  // of flights that have not come back
  std::vector<steady_point> kid_flights_;
};

}  // namespace

// Red when ask() starts beside a flight, servable() forgets the TTL, fail() drops the document, or has_one() never says no.
TEST_CASE("no random schedule breaks a rule of serving, of flights or of budgets") {
  std::uint64_t sequences = 200;
  if (const char* asked = ::getenv("AXIOMS_JWKS_TEST_SEQUENCES")) sequences = std::strtoull(asked, nullptr, 10);
  REQUIRE(sequences > 0);
  for (std::uint64_t seed = 0; seed < sequences; ++seed) {
    if (const char* broken = schedule(seed).run(60)) {
      CAPTURE(seed);
      FAIL(broken);
    }
  }
}

// Red when: fail()'s least delay is initial_ / 2, which is 0 for 1 ms.
TEST_CASE("the shortest backoff is never zero, or a failing provider would be asked in a tight loop") {
  axioms::jwks_config config;
  config.backoff_initial = config.backoff_max = std::chrono::milliseconds(1);
  axioms::detail::refresh_policy policy(config);
  const axioms::detail::steady_point now{std::chrono::hours(1)};
  axioms::detail::verdict bad;
  bad.why = {axioms::errc::connect_failed, "refused", 0};
  const auto flight = policy.begin(now);
  CHECK(policy.land(flight, now, bad, false, 0) == axioms::detail::refresh_policy::landing::failed);
  CHECK(policy.next_attempt() > now);
}
