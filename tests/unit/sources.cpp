// Key sets that no fetch brought: add_static(), export_cache() and import_cache(), and withdrawn_key_grace, in both managers.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "support/coroutine.hpp"
#include "support/rig.hpp"

#include <atomic>
#include <set>
#include <thread>

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config, axioms::jwks_event, axioms::jwks_event_kind;
using support::config_for, support::eventually, support::fake_fetcher, support::key_set, support::manager_type,
    support::manual_clock, support::ok, support::response, support::rig, support::url;

// Each takes the better part of a millisecond: too long to be repeated 1,000 times with the others.
TEST_SUITE_BEGIN("slow");

namespace {

const std::string other = "https://other.example.com/keys";

axioms::key_query kid(std::string_view name) { return {name, {}}; }

std::string saved_cache(const std::string& where, std::int64_t fetched_at, const std::string& body) {
  std::string escaped;
  for (const char c : body) escaped += c == '"' ? std::string("\\\"") : std::string(1, c);
  return R"({"axioms_jwks_cache":1,"documents":[{"url":")" + where + R"(","fetched_at":)" + std::to_string(fetched_at) +
         R"(,"etag":"\"1\"","last_modified":"","body":")" + escaped + R"("}]})";
}
constexpr std::int64_t today = 1790000000;  // of manual_clock's wall clock

// What the first manager knew when it was shut down, for the next one.
std::string saved_by(rig& r) {
  std::string text = r.manager.export_cache();
  r.manager.shutdown();
  return text;
}

}  // namespace

// ---- static sources ------------------------------------------------------------------------------

// Red when decide() lets a refresh of a pinned document wait, or the policy forgets pinned_ anywhere.
TEST_CASE("a static source is served without any request, before initialize and after, however old it is") {
  rig r;
  REQUIRE(r.manager.add_static(other, key_set({"s"})).has_value());
  CHECK_FALSE(r.manager.running());
  CHECK(r.manager.get_key(other, kid("s")).has_value());
  r.provider.always(response(503));
  auto config = config_for(url);
  config.prefetch = false;
  r.start(config);
  r.clock.advance(std::chrono::hours(24 * 400));
  const auto document = r.manager.get_jwks(other);
  REQUIRE(document.has_value());
  CHECK((*document)->body() == key_set({"s"}));
  CHECK((*document)->url() == other);
  CHECK(r.manager.refresh(other).has_value());
  CHECK(r.manager.get_key(other, kid("nobody")).error().code == errc::key_not_found);
  const auto health = r.manager.health(other);
  CHECK(health.ready);
  CHECK_FALSE(health.stale);
  CHECK(health.next_attempt == manual_clock::time_point::max());
  REQUIRE(r.provider.await_requests(1));  // the configured URL's refresh after 400 days
  for (std::size_t i = 0; i < r.provider.requests(); ++i) CHECK(r.provider.request(i).url == url);
}

// Red when try_start() leaves what threads keep of other URLs as it was.
TEST_CASE("require_https ends lookups of a static http set in a thread that has just got it, too") {
  rig r;
  const std::string plain = "http://idp.example.com/keys";
  REQUIRE(r.manager.add_static(plain, key_set({"s"})).has_value());
  for (int i = 0; i < 2; ++i) REQUIRE(r.manager.get_jwks(plain).has_value());
  auto config = config_for(url);
  config.require_https = true;
  r.start(config);
  const auto document = r.manager.get_jwks(plain);
  REQUIRE_FALSE(document.has_value());
  CHECK(document.error().code == errc::unsupported_scheme);
}

// Red when take_over() or configure() unpins, or try_start() fetches what is there.
TEST_CASE("a static source of the configured URL stays what it is, and initialize fetches nothing") {
  rig r;
  REQUIRE(r.manager.add_static(url, key_set({"s"})).has_value());
  r.start();
  REQUIRE(r.manager.add(config_for(url)).has_value());
  r.settle(1);
  r.clock.advance(3600s * 24);
  r.settle(1);
  CHECK(r.manager.get_key(kid("s")).has_value());
  CHECK(r.manager.wait_ready(0ms));
  CHECK(r.provider.requests() == 0);
}

// Red when a hit is kept past the next add_static(), or put() keeps the generation.
TEST_CASE("add_static again replaces the set, and a listener is told which keys came and went") {
  rig r;
  std::mutex mutex;
  std::vector<jwks_event> events;
  auto config = config_for(url);
  config.on_event = [&](const jwks_event& event) {
    const std::lock_guard lock(mutex);
    if (event.kind == jwks_event_kind::loaded) events.push_back(event);
  };
  r.start(config);
  REQUIRE(r.manager.add_static(other, key_set({"a", "b"})).has_value());
  const auto first = r.manager.get_jwks(other);
  REQUIRE(first.has_value());
  CHECK(r.manager.get_jwks(other).has_value());  // warm
  REQUIRE(r.manager.add_static(other, key_set({"b", "c"})).has_value());
  const auto second = r.manager.get_jwks(other);
  REQUIRE(second.has_value());
  CHECK((*second)->body() == key_set({"b", "c"}));
  CHECK((*second)->generation() > (*first)->generation());
  CHECK((*first)->body() == key_set({"a", "b"}));
  REQUIRE(eventually([&] {
    const std::lock_guard lock(mutex);
    return events.size() == 2;
  }));
  CHECK(events[0].url == other);
  CHECK(events[0].added == std::vector<std::string>{"a", "b"});
  CHECK(events[1].added == std::vector<std::string>{"c"});
  CHECK(events[1].removed == std::vector<std::string>{"a"});
  r.manager.shutdown();  // before `events` is gone
}

// Red when add_static() takes what judge() refuses.
TEST_CASE("a bad static source is an error that names what is wrong, and the old set stays") {
  rig r;
  REQUIRE(r.manager.add_static(other, key_set({"s"})).has_value());
  CHECK(r.manager.add_static(other, "<html>").error().code == errc::not_a_key_set);
  CHECK(r.manager.add_static(other, R"({"keys":[]})").error().code == errc::no_usable_key);
  CHECK(r.manager.add_static(other, R"({"keys":[]})").error().http_status == 0);
  CHECK(r.manager.add_static("ftp://x/keys", key_set({"s"})).error().code == errc::unsupported_scheme);
  CHECK(r.manager.add_static("not a url", key_set({"s"})).error().code == errc::invalid_url);
  CHECK(r.manager.get_key(other, kid("s")).has_value());
  auto config = config_for(url);
  config.require_https = true;
  r.start(config);
  CHECK(r.manager.add_static("http://x/keys", key_set({"s"})).error().code == errc::unsupported_scheme);
}

// Red when add_static() does not ask for the state, or begin_shutdown() spares it.
TEST_CASE("a static source goes with shutdown, and cannot be added after it") {
  rig r;
  r.start();
  REQUIRE(r.manager.add_static(other, key_set({"s"})).has_value());
  r.manager.shutdown();
  CHECK(r.manager.get_jwks(other).error().code == errc::shut_down);
  CHECK(r.manager.add_static(other, key_set({"s"})).error().code == errc::shut_down);
  r.start();
  CHECK(r.manager.get_key(other, kid("s")).error().code != errc{});
  REQUIRE(r.manager.add_static(other, key_set({"s"})).has_value());
  CHECK(r.manager.get_key(other, kid("s")).has_value());
}

// Red when add_static() leaves the flight in the air, or does not settle those who wait for it.
TEST_CASE("who waits for a fetch gets the static source that is put in its place, and the fetch is stopped") {
  rig r;
  r.start();
  r.provider.hold();
  auto waiting = r.get(other);
  REQUIRE(r.provider.await_requests(2));
  auto key = std::async(std::launch::async, [&] { return r.manager.get_key(other, kid("s")); });
  auto unknown = std::async(std::launch::async, [&] { return r.manager.get_key(other, kid("nobody")); });
  auto refreshed = std::async(std::launch::async, [&] { return r.manager.refresh(other); });
  REQUIRE(eventually([&] { return r.manager.stats().coalesced == 3; }));
  REQUIRE(r.manager.add_static(other, key_set({"s"})).has_value());
  const auto got = waiting.get();
  REQUIRE(got.has_value());
  CHECK((*got)->body() == key_set({"s"}));
  CHECK(key.get().has_value());
  CHECK(unknown.get().error().code == errc::key_not_found);
  CHECK(refreshed.get().has_value());
  CHECK(r.provider.await_ended(2));  // it was told to stop
  r.provider.release();
  CHECK(r.manager.get_jwks(other).value()->body() == key_set({"s"}));
}

// Red when health() says insecure whatever the source is.
TEST_CASE("a static source of an http URL is not called insecure: nothing is transported") {
  rig r;
  REQUIRE(r.manager.add_static("http://local/keys", key_set({"s"})).has_value());
  CHECK_FALSE(r.manager.health("http://local/keys").insecure_transport);
  CHECK(r.manager.get_jwks("http://remote/keys").has_value());
  CHECK(r.manager.health("http://remote/keys").insecure_transport);
}

// Red when a static entry counts as looked up.
TEST_CASE("a static source is never dropped for looked-up URLs, and is served with only_configured_urls") {
  rig r;
  REQUIRE(r.manager.add_static(other, key_set({"s"})).has_value());
  for (int i = 0; i < 70; ++i) REQUIRE(r.manager.get_jwks("https://h" + std::to_string(i) + "/k").has_value());
  CHECK(r.manager.peek(other).has_value());
  auto config = config_for(url);
  config.only_configured_urls = true;
  r.start(config);
  CHECK(r.manager.get_jwks(other).has_value());
}

// ---- a cache that survives a restart -------------------------------------------------------------

// Red when import_cache() forgets the age, the validators or the keys.
TEST_CASE("after a restart during an outage the exported keys are served, with their age") {
  rig before;
  before.provider.always(ok({"k1"}, {{"ETag", "\"v7\""}, {"Last-Modified", "Tue, 22 Sep 2026 10:00:00 GMT"}}));
  before.start();
  before.clock.advance(1000s);
  const std::string text = saved_by(before);

  rig after;
  after.clock.step_wall(1000s + 500s);  // the restart took 500 s
  after.provider.always(axioms::error{errc::connect_failed, "down", 0});
  const auto taken = after.manager.import_cache(text);
  REQUIRE(taken.has_value());
  CHECK(*taken == 1);
  after.start();
  CHECK(after.manager.get_key(kid("k1")).has_value());
  const auto document = after.manager.peek();
  REQUIRE(document.has_value());
  CHECK((*document)->body() == key_set({"k1"}));
  CHECK((*document)->fetched_at() == after.clock.now() - 1500s);
  CHECK((*document)->fetched_at_system() == after.clock.system_now() - 1500s);
  CHECK((*document)->expires_at() == after.clock.now() + 5700s);
  CHECK(after.manager.health().age == 1500s);
  after.settle(1);
  after.clock.advance(3600s - 1500s);  // when it would have been due, less the jitter
  REQUIRE(after.provider.await_requests(1));
  CHECK(after.provider.request(0).etag == "\"v7\"");
  CHECK(after.provider.request(0).last_modified == "Tue, 22 Sep 2026 10:00:00 GMT");
  after.settle(1);
  after.clock.advance(5700s + 7200s - 2100s - 1ns);
  CHECK(after.manager.get_key(kid("k1")).has_value());
  after.clock.advance(1ns);
  CHECK_FALSE(after.manager.get_key(kid("k1")).has_value());
}

// Red when initialize() waits for the refresh of a document that it has.
TEST_CASE("initialize does not wait for the provider when an imported document may be served") {
  rig r;
  r.provider.hold();
  REQUIRE(r.manager.import_cache(saved_cache(url, today - 100, key_set({"old"}))).has_value());
  CHECK(r.provider.requests() == 0);  // nothing runs before initialize
  r.start();
  CHECK(r.manager.get_key(kid("old")).has_value());
  CHECK(r.provider.requests() == 0);
  r.settle(1);
  r.clock.advance(3500s);
  REQUIRE(r.provider.await_requests(1));
  r.provider.release();
  CHECK(eventually([&] { return r.manager.get_key(kid("k1")).has_value(); }));
  CHECK(r.manager.get_key(kid("old")).error().code == errc::key_not_found);
}

// Red when a 304 confirms nothing after an import.
TEST_CASE("a 304 confirms an imported document, also one that was too old to be served") {
  for (const std::int64_t age : {100, 20000}) {
    CAPTURE(age);
    rig r;
    r.provider.always(response(304));
    REQUIRE(r.manager.import_cache(saved_cache(url, today - age, key_set({"old"}))).has_value());
    CHECK(r.manager.peek(url).has_value() == (age == 100));
    r.start();
    r.settle(1);
    if (age == 100) r.clock.advance(3500s);
    REQUIRE(eventually([&] { return r.manager.stats().not_modified == 1; }));
    CHECK(r.manager.get_key(kid("old")).has_value());
    CHECK(r.manager.health().age == 0ms);
  }
}

// Red when the limits of the lazy life decide what an import may bring.
TEST_CASE("whether an imported document is too old is decided by the limits of initialize") {
  rig r;
  REQUIRE(r.manager.import_cache(saved_cache(url, today - 20000, key_set({"old"}))).has_value());
  CHECK_FALSE(r.manager.peek(url).has_value());
  r.provider.hold();
  auto config = config_for(url);
  config.refresh_interval = 24h;
  config.cache_ttl = 48h;
  r.start(config);
  CHECK(r.manager.get_key(kid("old")).has_value());
}

// Red when restore() replaces.
TEST_CASE("an import replaces neither what was fetched nor what is static") {
  rig r;
  r.start();
  REQUIRE(r.manager.add_static(other, key_set({"s"})).has_value());
  CHECK(r.manager.import_cache(saved_cache(url, today, key_set({"old"}))).value() == 0);
  CHECK(r.manager.import_cache(saved_cache(other, today, key_set({"old"}))).value() == 0);
  CHECK(r.manager.get_key(kid("k1")).has_value());
  CHECK(r.manager.get_key(other, kid("s")).has_value());
}

// Red when import_cache() leaves wait_ready() and lookups waiting.
TEST_CASE("who waits for a first document gets the one that is imported meanwhile") {
  rig r;
  r.provider.hold();
  auto config = config_for(url);
  config.prefetch = false;
  r.start(config);
  auto ready = std::async(std::launch::async, [&] { return r.manager.wait_ready(10s); });
  r.settle(2);
  auto waiting = r.get();
  REQUIRE(r.provider.await_requests(1));
  REQUIRE(r.manager.import_cache(saved_cache(url, today - 5, key_set({"old"}))).has_value());
  CHECK(ready.get());
  const auto got = waiting.get();
  REQUIRE(got.has_value());
  CHECK((*got)->body() == key_set({"old"}));
  CHECK(r.manager.stats().failed == 0);  // and not because the fetch ended
}

// Red when settle() answers with a document that may not be served.
TEST_CASE("who waits for a first document does not get one that is too old, but the answer of the fetch") {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  provider.hold();
  std::vector<axioms::jwks_ptr> got;
  manager.async_get_jwks(url, [&](auto document) { got.push_back(document.value_or(nullptr)); });
  CHECK(manager.import_cache(saved_cache(url, today - 14400, key_set({"old"}))).value() == 1);
  CHECK(got.empty());
  provider.release();
  REQUIRE(got.size() == 1);
  REQUIRE(got[0]);
  CHECK(got[0]->body() == key_set({"k1"}));
}

// Red when restore() counts a document that may not be served, or lets an older one replace a younger.
TEST_CASE("of two saved documents that are too old the younger stays, and a good one replaces it") {
  rig r;
  CHECK(r.manager.import_cache(saved_cache(url, today - 20000, key_set({"b"}))).value() == 1);
  CHECK(r.manager.import_cache(saved_cache(url, today - 30000, key_set({"a"}))).value() == 0);
  CHECK_FALSE(r.manager.peek(url).has_value());
  CHECK(r.manager.import_cache(saved_cache(url, today - 60, key_set({"c"}))).value() == 1);
  CHECK(r.manager.import_cache(saved_cache(url, today - 30, key_set({"d"}))).value() == 0);
  CHECK((*r.manager.peek(url))->body() == key_set({"c"}));
}

// Red when initialize() without prefetch leaves what was imported due at once.
TEST_CASE("without prefetch nothing that was imported is fetched before one refresh_interval") {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  REQUIRE(manager.import_cache(saved_cache(url, today - 60, key_set({"old"}))).has_value());
  REQUIRE(manager.import_cache(saved_cache(other, today - 60, key_set({"old"}))).has_value());
  auto config = config_for(url);
  config.prefetch = false;
  manager.async_initialize(config, [](auto) {});
  clock.advance(3600s - 1ns);
  CHECK(provider.requests() == 0);
  clock.advance(1ns);
  CHECK(provider.requests() == 2);
}

// Red when restored_attempt() counts from the present.
TEST_CASE("what is imported while the manager runs is refreshed when it would have been without a restart") {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  manager.async_initialize(config_for(url), [](auto) {});
  clock.advance(100s);
  CHECK(provider.requests() == 1);
  REQUIRE(manager.import_cache(saved_cache(other, today + 90, key_set({"old"}))).has_value());
  clock.advance(3590s - 1ns);
  REQUIRE(provider.requests() == 2);
  CHECK(provider.request(1).url == url);
  clock.advance(1ns);
  REQUIRE(provider.requests() == 3);
  CHECK(provider.request(2).url == other);
}

// Red when any check of import_cache() or of judge_saved() is left out.
TEST_CASE("a text that is no exported cache is an error, and nothing is taken") {
  const std::string good = saved_cache(url, today, key_set({"k"}));
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
  };
  const std::vector<std::string> bad = {
      "",
      "null",
      "[]",
      "{}",
      "\xff\xfe",
      good.substr(0, good.size() / 2),
      std::string(100000, '['),
      R"({"axioms_jwks_cache":2,"documents":[]})",
      R"({"axioms_jwks_cache":"1","documents":[]})",
      R"({"axioms_jwks_cache":1})",
      R"({"axioms_jwks_cache":1,"documents":{}})",
      R"({"axioms_jwks_cache":1,"documents":[1]})",
      R"({"axioms_jwks_cache":1,"documents":[{}]})",
      with("1790000000", "1790000061"),
      with("1790000000", "-1"),
      with("1790000000", "17.9e8"),
      with("1790000000", "\"1790000000\""),
      with("1790000000", "18446744073709551615"),
      with("1790000000", "1000000000"),
      with("https://idp", "ftp://idp"),
      with("https://idp", "https://user:secret@idp"),
      with("\"url\":\"", "\"url\":1,\"x\":\""),
      with("{\\\"keys", "<{\\\"keys"),
      with("Ed25519", "Ed1"),
      with("\"body\":", "\"bodies\":"),
  };
  for (const auto& text : bad) {
    CAPTURE(text.substr(0, 400));
    rig r;
    const auto taken = r.manager.import_cache(text);
    REQUIRE_FALSE(taken.has_value());
    CHECK_FALSE(taken.error().description.empty());
    CHECK(taken.error().description.find("secret") == std::string::npos);
    CHECK_FALSE(r.manager.peek(url).has_value());
  }
  rig r;
  CHECK(r.manager.import_cache(good).value() == 1);  // the control
}

// Red when one bad document fails the others.
TEST_CASE("a bad document in an exported cache does not cost the good ones") {
  rig r;
  const std::string good = saved_cache(url, today, key_set({"k"}));
  const auto at = good.find("[{") + 1;
  const auto taken = r.manager.import_cache(good.substr(0, at) + R"({"url":"nonsense"},17,)" + good.substr(at));
  REQUIRE(taken.has_value());
  CHECK(*taken == 1);
  CHECK(r.manager.peek(url).has_value());
}

// Red when the validators of a text are sent as they are.
TEST_CASE("a validator from an exported cache cannot split a request") {
  rig r;
  std::string text = saved_cache(url, today - 5, key_set({"k"}));
  text.replace(text.find(R"(\"1\")"), 5, R"(x\r\nEvil: 1)");
  REQUIRE(r.manager.import_cache(text).has_value());
  r.start();
  r.settle(1);
  r.clock.advance(3600s);
  REQUIRE(r.provider.await_requests(1));
  CHECK(r.provider.request(0).etag.empty());
}

// Red when restore() does not ask whether the table is full, or judge_saved() not what the rules refuse.
TEST_CASE("an import brings no more than 64 URLs, and none that the configuration refuses" *
          doctest::test_suite("slow")) {
  std::string text = R"({"axioms_jwks_cache":1,"documents":[)";
  for (int i = 0; i < 100; ++i) {
    const std::string one = saved_cache("https://h" + std::to_string(i) + "/k", today, key_set({"k"}));
    const auto from = one.find("[{") + 1;
    text += one.substr(from, one.size() - from - 2) + ",";
  }
  text.back() = ']';
  text += "}";
  rig r;
  CHECK(r.manager.import_cache(text).value() == 64);
  CHECK(r.manager.peek("https://h0/k").has_value());
  CHECK_FALSE(r.manager.peek("https://h99/k").has_value());

  rig strict;
  auto config = config_for(url);
  config.only_configured_urls = true;
  config.require_https = true;
  REQUIRE(strict.manager.import_cache(text).has_value());
  REQUIRE(strict.manager.import_cache(saved_cache("http://plain/k", today, key_set({"k"}))).has_value());
  strict.start(config);
  CHECK(strict.manager.get_jwks("https://h0/k").error().code == errc::invalid_url);
  CHECK(strict.manager.import_cache(text).error().code == errc::invalid_url);
  CHECK(strict.manager.import_cache(saved_cache("http://plain/k", today, key_set({"k"}))).error().code ==
        errc::unsupported_scheme);
}

// Red when export_cache() writes static sources, or forgets one of several URLs.
TEST_CASE("what is exported is every fetched document and no static one, and imports as it was") {
  rig r;
  r.provider.always_at(other, ok({"o1", "o2"}));
  r.start();
  REQUIRE(r.manager.get_jwks(other).has_value());
  REQUIRE(r.manager.add_static("https://static/k", key_set({"s"})).has_value());
  const std::string text = saved_by(r);
  CHECK(text.find("https://static/k") == std::string::npos);
  rig next;
  CHECK(next.manager.import_cache(text).value() == 2);
  CHECK((*next.manager.peek(other))->body() == key_set({"o1", "o2"}));
  CHECK((*next.manager.peek(url))->body() == key_set({"k1"}));
  CHECK(next.manager.export_cache() == text);
}

// Red when export_cache() writes what the wall clock said at the fetch.
TEST_CASE("a wall clock that is set after the fetch does not change the age that is exported") {
  rig r;
  r.clock.step_wall(-std::chrono::seconds(today - 1000));  // a machine that starts in 1970
  r.start();
  r.clock.advance(50s);
  r.clock.step_wall(std::chrono::seconds(today));
  const std::string text = saved_by(r);
  CHECK(text.find("\"fetched_at\":" + std::to_string(today + 1000)) != std::string::npos);
}

// Red when the states are not asked for.
TEST_CASE("a manager that is shut down exports nothing and imports nothing") {
  rig r;
  r.start();
  r.manager.shutdown();
  const std::string text = r.manager.export_cache();
  CHECK(text == R"({"axioms_jwks_cache":1,"documents":[]})");
  CHECK(r.manager.import_cache(saved_cache(url, today, key_set({"k"}))).error().code == errc::shut_down);
  r.start();
  CHECK(r.manager.import_cache(text).value() == 0);
}

// ---- withdrawn keys ------------------------------------------------------------------------------

// Red when decide() asks the set alone.
TEST_CASE("with a withdrawn_key_grace a key that left the set is still given, without a request, and then gone") {
  rig r;
  auto config = config_for(url);
  config.withdrawn_key_grace = 120s;
  r.provider.push(ok({"a"}));
  r.provider.always(ok({"b"}));
  r.start(config);
  REQUIRE(r.manager.refresh().has_value());
  CHECK(r.manager.get_jwks().value()->keys().contains("a") == false);
  CHECK(r.manager.get_key(kid("a")).has_value());
  CHECK(r.provider.requests() == 2);
  r.settle(1);
  r.clock.advance(120s);
  CHECK(r.manager.get_key(kid("a")).error().code == errc::key_not_found);
  CHECK(r.provider.requests() == 3);  // an unknown kid like any other now
}

// Red when decide() asks the set alone.
TEST_CASE("a caller that waits for a fetch gets a key that this fetch withdraws, within the grace") {
  rig r;
  auto config = config_for(url);
  config.withdrawn_key_grace = 120s;
  config.max_parallel_fetches = 1;
  r.provider.always_at(url, ok({"a"}));
  r.start(config);
  r.settle(1);
  r.provider.always_at(url, response(503));
  r.clock.advance(7195s);
  REQUIRE(r.provider.await_requests(2));
  r.quiet();
  r.provider.hold(other);  // takes the only slot, so that no background refresh comes before the caller
  auto hanging = r.get(other);
  REQUIRE(r.provider.await_requests(3));
  r.clock.advance(5s);
  auto waiting = std::async(std::launch::async, [&] { return r.manager.get_key(url, kid("a")); });
  r.settle(3);  // it waits for the renewal
  r.provider.always_at(url, ok({"b"}));
  r.provider.release();
  CHECK(hanging.get().has_value());
  const auto key = waiting.get();
  REQUIRE(key.has_value());
  CHECK((*key)->kid() == "a");
  CHECK(r.manager.get_key(url, kid("b")).has_value());
}

// ---- the async manager ---------------------------------------------------------------------------

// Red when tick() or next_wake() does not ask for the state.
TEST_CASE("what is imported is not fetched before the first lookup or initialize, and then by its configuration") {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  REQUIRE(manager.import_cache(saved_cache("http://plain/k", today - 10, key_set({"old"}))).has_value());
  REQUIRE(manager.import_cache(saved_cache(other, today - 10, key_set({"old"}))).has_value());
  clock.advance(1000s);
  CHECK(provider.requests() == 0);
  auto config = config_for(url);
  config.require_https = true;
  manager.async_initialize(config, [](auto) {});
  clock.advance(2590s);
  CHECK(provider.requests() == 2);
  for (std::size_t i = 0; i < provider.requests(); ++i) CHECK(provider.request(i).url != "http://plain/k");
}

// Red when answer_now() serves it without making the life a lazy one, or ensure_open() wakes nobody.
TEST_CASE("a lookup of what is imported begins its background refresh, without initialize") {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  REQUIRE(manager.import_cache(saved_cache(url, today - 10, key_set({"old"}))).has_value());
  bool old = false;
  manager.async_get_key(url, kid("old"), [&](auto key) { old = key.has_value(); });
  CHECK(old);
  clock.advance(3590s);
  CHECK(provider.requests() == 1);
  manager.async_get_key(url, kid("k1"), [&](auto key) { CHECK(key.has_value()); });

  rig r;
  REQUIRE(r.manager.import_cache(saved_cache(url, today - 10, key_set({"old"}))).has_value());
  CHECK(r.manager.get_key(url, kid("old")).has_value());
  r.settle(1);
  r.clock.advance(3590s);
  CHECK(r.provider.await_requests(1));
}

// Red when the async manager does not hand these on to its engine.
TEST_CASE("the async manager has static sources and a saved cache too, on an event loop") {
  manual_clock clock;
  fake_fetcher provider;
  provider.hold();
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  REQUIRE(manager.add_static(other, key_set({"s"})).has_value());
  CHECK(manager.import_cache(saved_cache(url, today - 10, key_set({"old"}))).value() == 1);
  bool called = false;
  manager.async_get_key(other, kid("s"), [&](auto key) { called = key.has_value(); });
  CHECK(called);
  called = false;
  manager.async_get_key(url, kid("old"), [&](auto key) { called = key.has_value(); });
  CHECK(called);
  CHECK(manager.export_cache().find(url) != std::string::npos);
}

// Red when settle() finishes those who wait on the thread that called add_static().
TEST_CASE("a continuation without executor does not run in the thread that calls add_static") {
  manual_clock clock;
  fake_fetcher provider;
  provider.hold();
  // fake_fetcher models async_fetcher too; a plain callable chooses the manager's own threads.
  const auto blocking = [provider](const axioms::fetch_request& asked, const axioms::stop_token& stop) {
    return provider(asked, stop);
  };
  axioms::basic_async_jwks_manager<decltype(blocking), manual_clock> manager(blocking, clock);
  std::atomic<int> called{0};
  std::thread::id ran;
  manager.async_get_jwks(other, [&](auto) {
    ran = std::this_thread::get_id();
    called = 1;
  });
  REQUIRE(provider.await_requests(1));
  REQUIRE(manager.add_static(other, key_set({"s"})).has_value());
  REQUIRE(eventually([&] { return called == 1; }));
  CHECK(ran != std::this_thread::get_id());
}

TEST_SUITE_END();
