// The table "What it does when" of the README, row by row, through both managers: on threads, and on an event loop. No test here
// sleeps or opens a socket.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "support/rig.hpp"

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config, axioms::jwks_event, axioms::jwks_event_kind, axioms::jwks_ptr, axioms::key_ptr,
    axioms::result;
using support::config_for, support::eventually, support::fake_fetcher, support::key_set, support::manual_clock,
    support::ok, support::response, support::url;

// Each takes the better part of a millisecond: too long to be repeated 1,000 times with the others.
TEST_SUITE_BEGIN("slow");

namespace {

using nanoseconds = std::chrono::nanoseconds;
constexpr nanoseconds tick{1};
const std::string other_url = "https://other.example.com/jwks";

// One that only calls back, so that the async manager lives on the loop alone.
struct callback_only {
  fake_fetcher provider;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    provider.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};

template <class T>
bool ready(const std::future<T>& call) {
  return call.wait_for(0s) == std::future_status::ready;
}
template <class T>
T take(std::future<T> call) {
  REQUIRE(call.wait_for(support::patience) == std::future_status::ready);
  return call.get();
}

struct threads {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_jwks_manager<fake_fetcher, manual_clock> manager{provider, clock};

  std::future<result<jwks_ptr>> ask(const std::string& where = url) {
    return std::async(std::launch::async, [this, where] { return manager.get_jwks(where); });
  }
  std::future<result<key_ptr>> ask_key(const std::string& kid, const std::string& alg = {}) {
    return std::async(std::launch::async, [this, kid, alg] { return manager.get_key(url, {.kid = kid, .alg = alg}); });
  }
  std::future<result<void>> refresh(const std::string& where = url) {
    return std::async(std::launch::async, [this, where] { return manager.refresh(where); });
  }
  result<void> initialize(jwks_config config) { return manager.initialize(std::move(config)); }
  result<void> refresh_now() { return manager.refresh(url); }
  result<jwks_ptr> get(const std::string& where = url) { return manager.get_jwks(where); }
  result<key_ptr> key(const std::string& kid, const std::string& alg = {}) {
    return manager.get_key(url, {.kid = kid, .alg = alg});
  }
  // Waits until all that is due by now has begun, and that many callers wait.
  void settle(std::size_t callers = 0) { REQUIRE(clock.await_waiting_from(1 + callers, clock.now() + tick)); }
};

struct loop {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<callback_only, manual_clock> manager{callback_only{provider}, clock};

  template <class T, class Start>
  static std::future<T> promised(Start start) {
    const auto done = std::make_shared<std::promise<T>>();
    start([done](T out) { done->set_value(std::move(out)); });
    return done->get_future();
  }
  std::future<result<jwks_ptr>> ask(const std::string& where = url) {
    return promised<result<jwks_ptr>>([&](auto then) { manager.async_get_jwks(where, then); });
  }
  std::future<result<key_ptr>> ask_key(const std::string& kid, const std::string& alg = {}) {
    return promised<result<key_ptr>>([&](auto then) { manager.async_get_key(url, {.kid = kid, .alg = alg}, then); });
  }
  std::future<result<void>> refresh(const std::string& where = url) {
    return promised<result<void>>([&](auto then) { manager.async_refresh(where, then); });
  }
  result<void> initialize(jwks_config config) {
    return take(promised<result<void>>([&](auto then) { manager.async_initialize(std::move(config), then); }));
  }
  result<void> refresh_now() { return take(refresh()); }
  result<jwks_ptr> get(const std::string& where = url) { return take(ask(where)); }
  result<key_ptr> key(const std::string& kid, const std::string& alg = {}) { return take(ask_key(kid, alg)); }
  void settle(std::size_t = 0) { clock.advance(0s); }  // lets the loop look at its timers
};

// What every script needs.
template <class World>
struct script : World {
  using World::clock, World::manager, World::provider;

  void start(jwks_config config) { REQUIRE(this->initialize(std::move(config)).has_value()); }
  void start() { start(config_for(url)); }
  // One that must be answered although the provider is silent and the time stands still.
  void served_at_once(const char* body, const std::string& where = url) {
    const auto document = this->get(where);
    REQUIRE(document.has_value());
    CHECK((*document)->body() == body);
  }
  void landed(std::uint64_t count) {
    REQUIRE(eventually([&] {
      const auto stats = manager.stats();
      return stats.fetched + stats.not_modified + stats.failed == count;
    }));
  }
  nanoseconds until_next(const std::string& where = url) { return manager.health(where).next_attempt - clock.now(); }
  // To the instant of the next fetch; checks that there is none before.
  void advance_to_next() {
    const std::size_t requests = provider.requests();
    const nanoseconds wait = until_next();
    REQUIRE(wait > tick);
    clock.advance(wait - tick);
    this->settle();
    CHECK(provider.requests() == requests);
    clock.advance(tick);
    REQUIRE(provider.await_requests(requests + 1));
  }
};
using on_threads = script<threads>;
using on_loop = script<loop>;

const std::string k1 = key_set({"k1"}), k2 = key_set({"k2"});

// The longest backoff and the most jitter, less what rounding takes.
std::uint64_t most() { return ~std::uint64_t{0}; }
bool just_below(nanoseconds value, nanoseconds limit) { return value < limit && value >= limit - 1ms; }

}  // namespace

// Red when expires_at() comes after half of cache_ttl.
TEST_CASE_TEMPLATE("younger than cache_ttl: from memory, and the provider sees nothing, not even while it is down",
                   World, on_threads, on_loop) {
  World w;
  w.start();
  w.provider.always(response(503, {}, {{"Retry-After", "3600"}}));
  w.clock.advance(3600s);
  w.landed(2);  // the refresh, which failed
  for (const nanoseconds step : {nanoseconds(0s), nanoseconds(3600s) - tick}) {
    w.clock.advance(step);
    w.settle();
    w.served_at_once(k1.c_str());
    CHECK_FALSE(w.manager.health().stale);
  }
  CHECK(w.manager.stats().hits >= 2);
  CHECK(w.manager.stats().stale_served == 0);
  CHECK(w.provider.requests() == 2);
}

// Red when submit() starts a flight beside one in the air.
TEST_CASE_TEMPLATE("miss: all callers wait for one fetch and share it, at most fetch_timeout", World, on_threads,
                   on_loop) {
  World w;
  w.provider.hold();
  auto first = w.ask();
  REQUIRE(w.provider.await_requests(1));
  auto second = w.ask();
  auto third = w.ask_key("k1");
  w.settle(3);
  CHECK(w.manager.stats().coalesced == 2);
  SUBCASE("it is answered") {
    w.clock.advance(10s - tick);
    CHECK_FALSE(ready(first));
    w.provider.release();
    const auto a = take(std::move(first)), b = take(std::move(second));
    REQUIRE(a.has_value());
    REQUIRE(b.has_value());
    CHECK((*a)->body().data() == (*b)->body().data());
    CHECK(take(std::move(third)).has_value());
  }
  SUBCASE("it is not") {
    w.clock.advance(10s);
    CHECK(take(std::move(first)).error().code == errc::timed_out);
    CHECK(take(std::move(second)).error().code == errc::timed_out);
    CHECK(take(std::move(third)).error().code == errc::timed_out);
  }
  CHECK(w.provider.requests() == 1);
}

// Red when max_backoff_without_document is 20 s.
TEST_CASE_TEMPLATE("nothing cached, last fetch failed: the same error at once until the backoff is over, at most 10 s",
                   World, on_threads, on_loop) {
  World w;
  auto config = config_for(url);
  config.random = most;
  w.provider.always(response(500));
  w.start(config);
  std::uint64_t failures = 1;
  while (w.until_next() < 20s) {
    const auto refused = w.get();
    CHECK(refused.error().http_status == 500);
    CHECK(w.provider.requests() == failures);
    w.advance_to_next();
    w.landed(++failures);
  }
  // The background waits for more than 20 s, a lookup for no more than 10.
  w.provider.always(ok({"k1"}));
  w.clock.advance(10s - tick);
  CHECK(w.get().error().http_status == 500);
  CHECK(w.provider.requests() == failures);
  w.clock.advance(tick);
  w.served_at_once(k1.c_str());
  CHECK(w.provider.requests() == failures + 1);
}

// Red when begin_flight() forgets either validator, put() keeps the version, or a 304 is counted as fetched.
TEST_CASE_TEMPLATE(
    "refresh_interval after the last success: a conditional request in the background, nobody waits for it", World,
    on_threads, on_loop) {
  World w;
  w.provider.push(ok({"k1"}, {{"ETag", "\"v1\""}, {"Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"}}));
  w.start();
  const auto before = *w.get();
  w.clock.advance(3600s - tick);
  w.settle();
  CHECK(w.provider.requests() == 1);
  w.provider.hold();
  w.clock.advance(tick);
  REQUIRE(w.provider.await_requests(2));
  CHECK(w.provider.request(1).etag == "\"v1\"");
  CHECK(w.provider.request(1).last_modified == "Sun, 06 Nov 1994 08:49:37 GMT");
  w.served_at_once(k1.c_str());  // while it is in the air
  w.provider.push(response(304));
  w.provider.release();
  w.landed(2);
  const auto after = *w.get();
  CHECK(after->body().data() == before->body().data());
  CHECK(after->generation() == before->generation());
  CHECK(after->expires_at() == before->expires_at() + 3600s);
  CHECK(w.manager.stats().not_modified == 1);
  CHECK(w.until_next() == 3600s);
}

// Red when succeed() draws no jitter.
TEST_CASE_TEMPLATE("the background refresh comes up to 10 percent sooner, so that a fleet does not come all at once",
                   World, on_threads, on_loop) {
  World w;
  auto config = config_for(url);
  config.random = most;
  w.start(config);
  CHECK(w.until_next() > 3240s);
  CHECK(w.until_next() <= 3240s + 1ms);
  w.advance_to_next();
  w.landed(2);
}

// Red when judge() does not look at Age or at Expires, or succeed() forgets the floor or takes a longer freshness.
TEST_CASE_TEMPLATE(
    "the provider may ask for sooner than refresh_interval, down to min_refresh_interval, and not for later", World,
    on_threads, on_loop) {
  using headers = std::vector<std::pair<std::string, std::string>>;
  World w;
  w.start();
  const std::string in_20_minutes = "Mon, 21 Sep 2026 14:33:20 GMT", date = "Mon, 21 Sep 2026 14:13:20 GMT";
  const std::pair<headers, nanoseconds> rows[] = {
      {{{"Cache-Control", "public, max-age=15, must-revalidate"}}, 60s},  // Auth0
      {{{"Cache-Control", "max-age=3283200"}}, 3600s},                    // Okta
      {{{"Cache-Control", "no-cache"}}, 3600s},                           // Keycloak
      {{{"Cache-Control", "no-store, max-age=600"}}, 3600s},
      {{{"Cache-Control", "max-age=600"}}, 600s},
      {{{"Cache-Control", "max-age=600"}, {"Age", "200"}}, 400s},
      {{{"Expires", in_20_minutes}, {"Date", date}}, 1200s},
      {{}, 3600s},
  };
  for (const auto& [sent, expected] : rows) {
    w.provider.push(ok({"k1"}, sent));
    REQUIRE(w.refresh_now().has_value());
    CHECK(w.until_next() == expected);
    CHECK((*w.get())->expires_at() == w.clock.now() + 7200s);  // cache_ttl is the caller's alone
  }
}

// Red when ask() lets everybody join the renewal, or starts none; or servable() forgets the outage window.
TEST_CASE_TEMPLATE(
    "past cache_ttl, provider up: the one caller that starts the renewal waits, everybody else gets the old one at once",
    World, on_threads, on_loop) {
  World w;
  auto config = config_for(url);
  config.max_parallel_fetches = 1;
  w.start(config);
  // Another URL takes the only slot, so that no background refresh comes before the lookup.
  w.provider.hold();
  auto slow = config_for(other_url);
  slow.fetch_timeout = 24h;
  REQUIRE(w.manager.add(slow).has_value());
  w.settle();
  REQUIRE(w.provider.await_requests(2));
  w.clock.advance(7200s);
  auto starter = w.ask();
  w.settle(1);
  for (int i = 0; i < 3; ++i) w.served_at_once(k1.c_str());
  CHECK_FALSE(ready(starter));
  CHECK(w.manager.stats().stale_served == 3);
  CHECK(w.manager.health().stale);
  w.provider.always(ok({"k2"}));
  w.provider.release();
  const auto renewed = take(std::move(starter));
  REQUIRE(renewed.has_value());
  CHECK((*renewed)->body() == k2);
  w.served_at_once(k2.c_str());
  CHECK(w.provider.requests() == 3);
}

// Red when fail() does not double, forgets backoff_max or drops the document, or conclude() does not count a stale answer.
TEST_CASE_TEMPLATE("past cache_ttl, provider down: the old document for outage_window, and a try per backoff", World,
                   on_threads, on_loop) {
  World w;
  auto config = config_for(url);
  config.random = most;
  w.start(config);
  const auto fetched = w.clock.now();
  w.provider.always(axioms::error{errc::connect_failed, "refused", 0});
  w.advance_to_next();
  std::uint64_t tries = 1;
  const auto begun = w.clock.now();
  for (const auto limit : {1s, 2s, 4s, 8s, 16s, 32s, 64s, 128s, 256s, 300s, 300s}) {
    w.landed(1 + tries);
    CHECK(just_below(w.until_next(), limit));
    w.advance_to_next();
    ++tries;
  }
  w.landed(1 + tries);
  CHECK(w.clock.now() - begun < 19min);
  w.provider.always(response(503, {}, {{"Retry-After", "3600"}}));  // spares the test the other tries
  while (w.manager.health().next_attempt < fetched + 14400s) {
    w.advance_to_next();
    w.landed(1 + ++tries);
    w.served_at_once(k1.c_str());
    CHECK(w.manager.health().consecutive_failures == static_cast<int>(tries));
  }
  CHECK(w.manager.health().stale);
  CHECK(w.manager.health().ready);
  CHECK(w.manager.stats().stale_served > 0);
}

// Red when fail() forgets Retry-After or its limit.
TEST_CASE_TEMPLATE("a failure with Retry-After: no request before it is over, in both forms and up to retry_after_max",
                   World, on_threads, on_loop) {
  World w;
  w.start();
  std::uint64_t answers = 1;
  const std::pair<const char*, nanoseconds> rows[] = {
      {"120", 120s}, {"Mon, 21 Sep 2026 14:23:20 GMT", 600s}, {"86400", 3600s}, {"soon", 500ms}};
  for (const auto& row : rows) {
    const std::string value = row.first;
    const nanoseconds expected = row.second;
    CAPTURE(value);
    w.provider.push(response(429, {}, {{"Retry-After", value}}));
    CHECK(w.refresh_now().error().http_status == 429);
    CHECK(w.until_next() == expected);
    w.landed(++answers);
    REQUIRE(w.refresh_now().has_value());  // asked for by the caller, so at once; ends the backoff
    w.landed(++answers);
    CHECK(w.until_next() == 3600s);
  }
}

// Red when servable() forgets the end of the outage window, or compares with <=.
TEST_CASE_TEMPLATE("past cache_ttl and outage_window: the error of the last fetch", World, on_threads, on_loop) {
  for (const auto window : {nanoseconds(7200s), nanoseconds(0s)}) {
    World w;
    auto config = config_for(url);
    config.outage_window = std::chrono::duration_cast<std::chrono::seconds>(window);
    w.start(config);
    w.provider.always(response(503, {}, {{"Retry-After", "3600"}}));
    std::uint64_t answers = 1;
    for (auto left = 7200s + window; left > 3600s; left -= 3600s) {
      w.advance_to_next();
      w.landed(++answers);
    }
    const nanoseconds rest = w.until_next();
    w.clock.advance(rest - tick);
    w.settle();
    w.served_at_once(k1.c_str());  // the last instant
    w.clock.advance(tick);
    w.landed(++answers);
    CHECK(w.get().error().http_status == 503);
    CHECK_FALSE(w.manager.peek().has_value());
    CHECK_FALSE(w.manager.health().ready);
    CHECK(w.manager.health().last_error->http_status == 503);
  }
}

TEST_CASE_TEMPLATE("a key set with some bad members: the good keys, and the others with a reason in skipped()", World,
                   on_threads, on_loop) {
  World w;
  const std::string bad = R"({"keys":[{"kty":"oct","k":"AAAA","kid":"secret"},{"kty":"EC","kid":"half"},7,)";
  w.provider.always(response(200, bad + key_set({"good"}).substr(9)));
  w.start();
  const auto document = w.get();
  REQUIRE(document.has_value());
  CHECK((*document)->keys().size() == 1);
  CHECK(w.key("good").has_value());
  const auto& skipped = (*document)->keys().skipped();
  REQUIRE(skipped.size() == 3);
  CHECK(skipped[0].kid == "secret");
  CHECK(skipped[1].kid == "half");
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(skipped[i].index == i);
    CHECK_FALSE(skipped[i].reason.empty());
  }
  CHECK(w.manager.health().consecutive_failures == 0);
}

// Red when put() keeps the version.
TEST_CASE_TEMPLATE("rotation: the next background refresh brings the new key and takes the withdrawn one away at once",
                   World, on_threads, on_loop) {
  World w;
  auto config = config_for(url);
  config.unknown_kid_burst = 0;  // only the refresh may bring it
  w.start(config);
  w.provider.always(ok({"k2"}));
  const auto held = *w.key("k1");
  w.clock.advance(3600s - tick);
  w.settle();
  CHECK(w.key("k1").has_value());
  CHECK(w.key("k2").error().code == errc::key_not_found);
  w.clock.advance(tick);
  w.landed(2);
  CHECK_FALSE(w.key("k1").has_value());  // at first: the other lookup would renew what this thread keeps
  CHECK(w.key("k2").has_value());
  CHECK(w.provider.requests() == 2);
  CHECK(held->kid() == "k1");  // whoever holds it may go on
}

// Red when keep_waiting() sets no deadline, settle() does not remember a missing kid, or negative_kid_ttl is 29 s.
TEST_CASE_TEMPLATE("unknown kid: one shared refetch, at most unknown_kid_wait; still unknown is remembered for 30 s",
                   World, on_threads, on_loop) {
  World w;
  w.start();
  w.provider.hold();
  auto first = w.ask_key("k2"), second = w.ask_key("k2");
  REQUIRE(w.provider.await_requests(2));
  w.settle(2);
  CHECK(w.key("k1").has_value());  // those that are known do not wait
  SUBCASE("it has come") {
    w.provider.always(ok({"k1", "k2"}));
    w.provider.release();
    CHECK(take(std::move(first)).has_value());
    CHECK(take(std::move(second)).has_value());
    CHECK(w.provider.requests() == 2);
  }
  SUBCASE("the provider is slow") {
    w.clock.advance(2s - tick);
    CHECK_FALSE(ready(first));
    w.clock.advance(tick);
    CHECK(take(std::move(first)).error().code == errc::timed_out);
    CHECK(take(std::move(second)).error().code == errc::timed_out);
  }
  SUBCASE("it is still unknown") {
    w.provider.release();
    CHECK(take(std::move(first)).error().code == errc::key_not_found);
    CHECK(take(std::move(second)).error().code == errc::key_not_found);
    const std::size_t requests = w.provider.requests();  // who joined a flight in the air looks once more
    CHECK(requests <= 3);
    w.clock.advance(30s - tick);
    CHECK(w.key("k2").error().code == errc::key_not_found);
    CHECK(w.provider.requests() == requests);
    w.clock.advance(tick);
    CHECK(w.key("k2").error().code == errc::key_not_found);
    CHECK(w.provider.requests() == requests + 1);
  }
}

// Red when has_one() never says no, or fills the bucket at once.
TEST_CASE_TEMPLATE("unknown kids: at most 3 requests, then 1 per 30 s, however many are tried", World, on_threads,
                   on_loop) {
  World w;
  w.start();
  int tried = 0;
  const auto try_some = [&] {
    for (int i = 0; i < 8; ++i) static_cast<void>(w.key("random" + std::to_string(++tried)));
  };
  try_some();
  CHECK(w.provider.requests() == 1 + 3);
  w.clock.advance(30s - tick);
  try_some();
  CHECK(w.provider.requests() == 1 + 3);
  w.clock.advance(tick);
  try_some();
  CHECK(w.provider.requests() == 1 + 4);
  w.clock.advance(30s);
  try_some();
  CHECK(w.provider.requests() == 1 + 5);
  CHECK(w.manager.stats().throttled == static_cast<std::uint64_t>(tried) - 5);
}

// Red when select() calls every kid unknown whose key it refuses.
TEST_CASE_TEMPLATE("a kid that is known never causes a request, also not with a wrong alg", World, on_threads,
                   on_loop) {
  World w;
  w.start();
  w.provider.hold();  // a request would hang
  CHECK(w.key("k1").has_value());
  CHECK(w.key("k1", "EdDSA").has_value());
  for (const char* alg : {"RS256", "ES512"}) CHECK(w.key("k1", alg).error().code == errc::key_not_found);
  for (const char* alg : {"HS256", "none"}) CHECK(w.key("k1", alg).error().code == errc::unsupported_algorithm);
  CHECK(w.provider.requests() == 1);
}

// Red when next_wake() leaves out the other URLs while a flight is in the air.
TEST_CASE_TEMPLATE(
    "several URLs: one that hangs for its whole timeout delays neither lookups nor refreshes of the others", World,
    on_threads, on_loop) {
  World w;
  w.start();
  const std::string slow_url = "https://slow.example.com/jwks", broken_url = "https://broken.example.com/jwks";
  auto quick = config_for(other_url), slow = config_for(slow_url);
  quick.refresh_interval = 10s;
  quick.cache_ttl = 20s;
  slow.fetch_timeout = 60s;
  slow.prefetch = false;
  REQUIRE(w.manager.add(quick).has_value());
  REQUIRE(w.manager.add(slow).has_value());
  w.settle();
  w.landed(2);
  w.provider.always_at(broken_url, response(503, {}, {{"Retry-After", "3600"}}));
  CHECK(w.get(broken_url).error().http_status == 503);
  w.provider.hold(slow_url);
  auto hanging = w.ask(slow_url);
  w.settle(1);
  REQUIRE(w.provider.await_requests(4));
  for (std::size_t round = 1; round < 6; ++round) {
    const std::string fresh = key_set({round % 2 == 0 ? "even" : "odd"});
    w.provider.always_at(other_url, response(200, fresh));
    w.clock.advance(10s);
    REQUIRE(eventually([&] { return w.manager.stats().fetched == 2 + 2 * round - 1; }));
    w.served_at_once(fresh.c_str(), other_url);
    w.served_at_once(k1.c_str());
    w.served_at_once(k1.c_str(), "https://new" + std::to_string(round) + ".example.com/jwks");  // a miss
    CHECK(w.manager.health(other_url).consecutive_failures == 0);
    CHECK_FALSE(ready(hanging));
  }
  w.clock.advance(10s);
  CHECK(take(std::move(hanging)).error().code == errc::timed_out);
  CHECK(w.manager.health(slow_url).consecutive_failures == 1);
  CHECK(w.manager.health(broken_url).consecutive_failures == 1);  // it asked for an hour
}

// Red when tick() never drops what is unused, or drops the configured URL as well.
TEST_CASE_TEMPLATE("a looked-up URL is dropped when nobody asks for it any more, a configured one never", World,
                   on_threads, on_loop) {
  World w;
  w.start();
  CHECK(w.get(other_url).has_value());
  for (int hour = 0; hour < 4; ++hour) {
    CHECK(w.manager.health(other_url).ready);
    w.clock.advance(3600s);
    w.settle();
    if (hour < 3) w.landed(4 + 2 * static_cast<std::uint64_t>(hour));
  }
  CHECK(eventually([&] { return !w.manager.health(other_url).ready; }));
  CHECK(eventually([&] { return w.manager.health().ready && w.until_next() == 3600s; }));
  CHECK(w.provider.requests() == 2 + 3 + 4);
}

// Red when begin_shutdown() does not ask the flights to stop.
TEST_CASE_TEMPLATE("shutdown: shut_down, also for those that wait, and the fetch in flight is told to stop", World,
                   on_threads, on_loop) {
  World w;
  w.start();
  w.provider.hold();
  auto waiting = w.ask(other_url);
  auto refreshing = w.refresh();
  REQUIRE(w.provider.await_requests(3));
  w.settle(2);
  if constexpr (std::is_same_v<World, on_threads>) {
    w.manager.shutdown();
    CHECK(w.provider.await_ended(3));  // by their stop tokens: nothing was released
  } else {
    w.manager.async_shutdown([] {});
    CHECK(w.provider.stopped(1));
    CHECK(w.provider.stopped(2));
  }
  CHECK(take(std::move(waiting)).error().code == errc::shut_down);
  CHECK(take(std::move(refreshing)).error().code == errc::shut_down);
  CHECK(w.get().error().code == errc::shut_down);
  CHECK_FALSE(w.manager.running());
  CHECK_FALSE(w.manager.peek(url).has_value());
  CHECK(w.clock.waiting() == 0);
  CHECK(w.clock.timers() == 0);
}

// Red when a 304 is counted as fetched, or a join is not counted.
TEST_CASE_TEMPLATE("stats count every hit, miss, stale answer, fetch, 304, failure, join and refusal", World,
                   on_threads, on_loop) {
  World w;
  auto config = config_for(url);
  config.unknown_kid_burst = 0;
  config.prefetch = false;
  w.start(config);
  w.provider.hold();
  auto first = w.ask();
  REQUIRE(w.provider.await_requests(1));
  auto second = w.ask();
  w.settle(2);
  w.provider.push(ok({"k1"}, {{"ETag", "\"1\""}}));
  w.provider.release();
  CHECK(take(std::move(first)).has_value());
  CHECK(take(std::move(second)).has_value());
  CHECK(w.get().has_value());
  CHECK(w.key("unknown").error().code == errc::key_not_found);
  w.provider.push(response(304));
  CHECK(w.refresh_now().has_value());
  w.provider.always(response(503, {}, {{"Retry-After", "3600"}}));
  for (int hour = 0; hour < 2; ++hour) {
    w.clock.advance(3600s);
    w.landed(3 + static_cast<std::uint64_t>(hour));
  }
  CHECK(w.get().has_value());
  const auto stats = w.manager.stats();
  CHECK(stats.misses == 2);
  CHECK(stats.coalesced == 1);
  CHECK(stats.hits == 1);
  CHECK(stats.throttled == 0);  // there is no budget
  CHECK(stats.fetched == 1);
  CHECK(stats.not_modified == 1);
  CHECK(stats.failed == 2);
  CHECK(stats.stale_served == 1);
  CHECK(stats.events_dropped == 0);
}

// Red when deliver() does not swallow an exception.
TEST_CASE_TEMPLATE("a listener that throws harms nobody and is told the next event too", World, on_threads, on_loop) {
#if defined(__cpp_exceptions)
  World w;
  std::atomic<int> told{0};
  auto config = config_for(url);
  config.on_event = [&](const jwks_event&) {
    ++told;
    throw std::runtime_error("listener");
  };
  w.start(config);
  w.provider.push(response(500));
  CHECK(w.refresh_now().error().http_status == 500);
  w.served_at_once(k1.c_str());
  REQUIRE(w.refresh_now().has_value());
  CHECK(eventually([&] { return told == 3; }));
#endif
}

#if defined(__unix__)
// Red when forked() is never true.
TEST_CASE("in a forked child the manager of an event loop is down too, and initialize starts it afresh" *
          doctest::test_suite("slow") * doctest::skip(support::under_tsan)) {
  on_loop w;
  w.start();
  w.provider.hold(other_url);
  const auto hanging = w.ask(other_url);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(20);  // a child that hangs must not outlive the test
    int wrong = w.manager.running() ? 1 : 0;
    const auto down = w.get();
    wrong |= !down && down.error().code == errc::shut_down ? 0 : 2;
    wrong |= w.manager.peek(url).has_value() || w.manager.health().ready ? 4 : 0;
    w.provider.release();  // the answer to the parent's request is nothing to the child
    wrong |= w.manager.peek(other_url).has_value() ? 8 : 0;
    wrong |= w.initialize(config_for(url)).has_value() && w.get().has_value() ? 0 : 16;
    ::_exit(wrong);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  w.served_at_once(k1.c_str());  // the parent goes on
  CHECK_FALSE(ready(hanging));
  w.provider.release();
  CHECK(ready(hanging));
}
#endif

TEST_SUITE_END();
