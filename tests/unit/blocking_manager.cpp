// Part "blocking manager": locks, flights and threads round the refresh policy. No test here sleeps or opens a socket.
#include "support/rig.hpp"

#include <thread>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config, axioms::jwks_event, axioms::jwks_event_kind;
using support::config_for, support::eventually, support::fake_fetcher, support::key_set, support::manager_type,
    support::manual_clock, support::ok, support::response, support::rig, support::url;

namespace {

std::string kids_of(const axioms::jwks_ptr& document) {
  std::string all;
  for (const auto& key : document->keys()) all.append(key->kid()).append(" ");
  return all;
}

// What a listener was told, in order.
struct listener {
  struct state {
    std::mutex mutex;
    std::vector<jwks_event> events;
  };
  std::shared_ptr<state> heard = std::make_shared<state>();
  void operator()(const jwks_event& event) const {
    const std::lock_guard lock(heard->mutex);
    heard->events.push_back(event);
  }
  std::vector<jwks_event> all() const {
    const std::lock_guard lock(heard->mutex);
    return heard->events;
  }
  bool await(std::size_t count) const {
    return eventually([&] { return all().size() >= count; });
  }
};

}  // namespace

// -- what the Python original's tests say --

TEST_CASE("initialize with prefetch has the key set before it returns, and runs") {
  rig r;
  CHECK_FALSE(r.manager.running());
  r.start();
  CHECK(r.manager.running());
  CHECK(r.provider.requests() == 1);
  CHECK(r.provider.request(0).url == url);
  const auto document = r.manager.peek(url);
  REQUIRE(document.has_value());
  CHECK((*document)->body() == key_set({"k1"}));
}

TEST_CASE("initialize without prefetch fetches nothing before the first lookup") {
  rig r;
  auto config = config_for(url);
  config.prefetch = false;
  r.start(config);
  CHECK(r.manager.running());
  CHECK(r.provider.requests() == 0);
  CHECK_FALSE(r.manager.peek(url).has_value());
  CHECK(r.manager.get_jwks().has_value());
  CHECK(r.provider.requests() == 1);
}

TEST_CASE("a failed prefetch is success, told by on_event and health") {
  rig r;
  listener heard;
  auto config = config_for(url);
  config.on_event = heard;
  r.provider.push(response(503));
  r.start(config);
  CHECK(r.manager.running());
  const auto health = r.manager.health();
  CHECK_FALSE(health.ready);
  CHECK(health.consecutive_failures == 1);
  REQUIRE(health.last_error.has_value());
  CHECK(health.last_error->code == errc::http_status);
  CHECK(health.last_error->http_status == 503);
  CHECK(health.next_attempt == r.clock.now() + 500ms);
  REQUIRE(heard.await(1));
  CHECK(heard.all()[0].kind == jwks_event_kind::failed);
  CHECK(heard.all()[0].status == 503);
}

TEST_CASE("a lookup returns the body and the keys that were fetched") {
  rig r;
  r.provider.always(ok({"a", "b"}));
  const auto document = r.manager.get_jwks(url);
  REQUIRE(document.has_value());
  CHECK((*document)->body() == key_set({"a", "b"}));
  CHECK((*document)->keys().size() == 2);
  CHECK((*document)->url() == url);
  CHECK((*document)->fetched_at() == r.clock.now());
  CHECK((*document)->expires_at() == r.clock.now() + 7200s);
  CHECK((*document)->fetched_at_system() == r.clock.system_now());
  CHECK((*document)->generation() > 0);
}

TEST_CASE("schemes other than http and https are a server_error and 500, before any I/O") {
  rig r;
  for (const std::string bad :
       {"file:///etc/passwd", "ftp://h/jwks", "data:application/json,{}", "gopher://h/", "jar:https://h/"}) {
    CAPTURE(bad);
    const auto document = r.manager.get_jwks(bad);
    REQUIRE_FALSE(document.has_value());
    CHECK(document.error().code == errc::unsupported_scheme);
    CHECK(document.error().oauth_error() == "server_error");
    CHECK(document.error().status_code() == 500);
    auto config = config_for(bad);
    CHECK(r.manager.initialize(config).error().code == errc::unsupported_scheme);
    CHECK(r.manager.add(config).error().code == errc::unsupported_scheme);
    CHECK(r.manager.refresh(bad).error().code == errc::unsupported_scheme);
    CHECK_FALSE(r.manager.peek(bad).has_value());
  }
  CHECK_FALSE(r.manager.running());
  CHECK(r.provider.requests() == 0);
  CHECK(r.clock.waiting() == 0);  // not even a thread was started
}

TEST_CASE("URLs that are no URLs are refused before any I/O") {
  rig r;
  for (const std::string& bad :
       {std::string(), std::string("/jwks"), std::string("idp.example.com/jwks"), std::string("https://user:pw@h/"),
        std::string("https://h:0/"), std::string("https://h:65536/"), std::string("https://h/\n"),
        std::string("https://h/") + std::string(3000, 'a'), std::string("https://h/\0x", 12)}) {
    CAPTURE(bad);
    CHECK(r.manager.get_jwks(bad).error().code == errc::invalid_url);
    CHECK(r.manager.get_key(bad, {.kid = "k1"}).error().code == errc::invalid_url);
    CHECK_FALSE(r.manager.health(bad.empty() ? "x" : bad).ready);
  }
  CHECK(r.provider.requests() == 0);
}

TEST_CASE("a status other than 200 is an error with that status" * doctest::test_suite("slow")) {
  for (const int status : {204, 304, 503}) {
    CAPTURE(status);
    rig r;
    r.provider.always(response(status, key_set({"k1"})));
    const auto document = r.manager.get_jwks(url);
    REQUIRE_FALSE(document.has_value());
    CHECK(document.error().code == errc::http_status);
    CHECK(document.error().http_status == status);
    CHECK(document.error().status_code() == 503);
  }
}

TEST_CASE("the background refresh happens again and again, each refresh_interval after the last success" *
          doctest::test_suite("slow")) {
  rig r;
  r.start();
  for (std::size_t round = 1; round <= 3; ++round) {
    r.provider.always(ok({round % 2 == 0 ? "even" : "odd"}));
    r.clock.advance(3600s - 1ns);
    r.settle(1);
    CHECK(r.provider.requests() == round);
    r.clock.advance(1ns);
    REQUIRE(eventually([&] { return support::good_answers(r.manager) == round + 1; }));
    CHECK(kids_of(*r.manager.get_jwks()) == (round % 2 == 0 ? "even " : "odd "));
    r.settle(1);
  }
}

TEST_CASE("shutdown ends the scheduler's thread and stops refreshing") {
  rig r;
  r.start();
  r.settle(1);
  r.manager.shutdown();
  CHECK_FALSE(r.manager.running());
  CHECK(r.clock.waiting() == 0);
  r.clock.advance(100h);
  CHECK(r.provider.requests() == 1);
}

TEST_CASE("shutdown is idempotent, also when nothing was started") {
  rig r;
  r.manager.shutdown();
  r.manager.shutdown();
  r.start();
  r.manager.shutdown();
  r.manager.shutdown();
  CHECK_FALSE(r.manager.running());
  CHECK(r.manager.get_jwks(url).error().code == errc::shut_down);
}

TEST_CASE("initialize works again after shutdown, and the documents of the life before are gone" *
          doctest::test_suite("slow")) {
  rig r;
  r.start();
  r.manager.shutdown();
  CHECK_FALSE(r.manager.peek(url).has_value());
  r.provider.always(ok({"second"}));
  r.start();
  CHECK(r.provider.requests() == 2);
  CHECK(kids_of(*r.manager.get_jwks()) == "second ");
  r.clock.advance(3600s);
  CHECK(r.provider.await_requests(3));
}

TEST_CASE("64 threads that miss together cause exactly one request, whichever way they ask" *
          doctest::test_suite("slow")) {
  rig r;
  r.provider.hold();
  std::vector<std::future<bool>> calls;
  for (int i = 0; i < 64; ++i) {
    calls.push_back(std::async(std::launch::async, [&r, i]() -> bool {
      switch (i % 3) {
        case 0: return r.manager.get_jwks(url).has_value();
        case 1: return r.manager.get_key(url, {.kid = "k1"}).has_value();
        default: return r.manager.refresh(url).has_value();
      }
    }));
  }
  r.settle(65);  // all of them, and the scheduler
  REQUIRE(r.provider.await_requests(1));
  CHECK(r.provider.requests() == 1);
  r.provider.release();
  for (auto& call : calls) CHECK(call.get());
  CHECK(r.provider.requests() == 1);
  CHECK(r.manager.stats().coalesced == 63);
}

TEST_CASE("initialize refuses a configuration that breaks a rule and starts nothing") {
  rig r;
  auto config = config_for(url);
  config.cache_ttl = 7199s;
  const auto started = r.manager.initialize(config);
  REQUIRE_FALSE(started.has_value());
  CHECK(started.error().code == errc::invalid_config);
  CHECK(started.error().description.find("cache_ttl is 7199") != std::string::npos);
  CHECK_FALSE(r.manager.running());
  CHECK(r.provider.requests() == 0);
  CHECK(r.clock.waiting() == 0);
  CHECK(r.manager.initialize(jwks_config{}).error().code == errc::invalid_config);
}

// -- life --

TEST_CASE("a lookup without initialize fetches on demand and is refreshed in the background from then on" *
          doctest::test_suite("slow")) {
  rig r;
  CHECK(r.manager.get_jwks(url).has_value());
  CHECK_FALSE(r.manager.running());
  r.clock.advance(3600s);  // at most 10 % of jitter before that
  REQUIRE(r.provider.await_requests(2));
  REQUIRE(eventually([&] { return support::good_answers(r.manager) == 2; }));
  CHECK(r.manager.get_jwks(url).has_value());
  r.clock.advance(3600s);
  REQUIRE(r.provider.await_requests(3));
}

TEST_CASE("initialize after lazy use keeps the cached documents and brings their refresh forward") {
  rig r;
  const auto before = r.manager.get_jwks(url);
  REQUIRE(before.has_value());
  auto config = config_for(url);
  config.refresh_interval = 10s;
  config.cache_ttl = 20s;
  r.clock.advance(5s);
  r.start(config);
  CHECK(r.provider.requests() == 1);
  CHECK((*r.manager.get_jwks())->body().data() == (*before)->body().data());
  CHECK((*r.manager.get_jwks())->expires_at() == (*before)->fetched_at() + 20s);
  r.clock.advance(5s);
  CHECK(r.provider.await_requests(2));
}

TEST_CASE("after shutdown every verb says shut_down until initialize, but wrong arguments come first") {
  rig r;
  r.start();
  for (int i = 0; i < 2; ++i) {  // the second time they are this thread's hits
    REQUIRE(r.manager.get_jwks().has_value());
    REQUIRE(r.manager.get_jwks(url).has_value());
  }
  r.manager.shutdown();
  CHECK(r.manager.get_jwks().error().code == errc::shut_down);
  CHECK(r.manager.get_jwks(url).error().code == errc::shut_down);
  CHECK(r.manager.get_key(url, {.kid = "k1"}).error().code == errc::shut_down);
  CHECK(r.manager.refresh(url).error().code == errc::shut_down);
  CHECK(r.manager.add(config_for(url)).error().code == errc::shut_down);
  CHECK_FALSE(r.manager.wait_ready(0ms));
  CHECK_FALSE(r.manager.health(url).ready);
  CHECK(r.manager.get_jwks("file:///x").error().code == errc::unsupported_scheme);
  CHECK(r.manager.get_jwks("").error().code == errc::invalid_url);
  CHECK(r.manager.add(config_for("nonsense")).error().code == errc::invalid_url);
}

TEST_CASE("shutdown acts on a lazy manager too") {
  rig r;
  CHECK(r.manager.get_jwks(url).has_value());
  r.manager.shutdown();
  CHECK(r.manager.get_jwks(url).error().code == errc::shut_down);
  CHECK(r.clock.waiting() == 0);
}

TEST_CASE("shutdown ends waiting callers with shut_down, stops the fetch in flight, and takes less than 100 ms" *
          doctest::test_suite("slow")) {
  auto fastest = std::chrono::steady_clock::duration::max();  // of three: the machine may be busy with something else
  for (int i = 0; i < 3; ++i) {
    rig r;
    r.provider.hold();
    auto first = r.get(), second = r.get();
    REQUIRE(r.provider.await_requests(1));
    r.settle(3);
    const auto before = std::chrono::steady_clock::now();
    r.manager.shutdown();
    fastest = std::min(fastest, std::chrono::steady_clock::now() - before);
    CHECK(first.get().error().code == errc::shut_down);
    CHECK(second.get().error().code == errc::shut_down);
    CHECK(r.provider.await_ended(1));  // by its stop token: nothing was released
  }
  CHECK(fastest < 100ms * support::slowness);
}

TEST_CASE("shutdown ends an initialize that waits for its prefetch") {
  rig r;
  r.provider.hold();
  auto starting = std::async(std::launch::async, [&] { return r.manager.initialize(config_for(url)); });
  r.settle(2);
  r.manager.shutdown();
  CHECK(starting.get().error().code == errc::shut_down);
  CHECK_FALSE(r.manager.running());
}

TEST_CASE("shutdown from several threads at once returns from all of them when all has ended" *
          doctest::test_suite("slow")) {
  rig r;
  r.start();
  std::vector<std::future<bool>> calls;
  for (int i = 0; i < 4; ++i) {
    calls.push_back(std::async(std::launch::async, [&] {
      r.manager.shutdown();
      return r.clock.waiting() == 0;
    }));
  }
  for (auto& call : calls) CHECK(call.get());
}

TEST_CASE("the answer of a fetch that shutdown stopped is dropped, also after initialize" *
          doctest::test_suite("slow")) {
  rig r;
  r.provider.hold();
  r.provider.deaf(true);
  auto call = r.get();
  REQUIRE(r.provider.await_requests(1));
  r.settle(2);
  auto ending = std::async(std::launch::async, [&] { r.manager.shutdown(); });
  CHECK(call.get().error().code == errc::shut_down);  // before the deaf fetcher has come back
  r.provider.always(ok({"late"}));
  r.provider.release();
  ending.get();
  r.provider.always(ok({"new"}));
  r.start();
  CHECK(kids_of(*r.manager.get_jwks()) == "new ");
}

TEST_CASE("documents and keys outlive their manager") {
  axioms::jwks_ptr document;
  axioms::key_ptr key;
  {
    rig r;
    document = *r.manager.get_jwks(url);
    key = *r.manager.get_key(url, {.kid = "k1"});
  }
  CHECK(document->keys().size() == 1);
  CHECK(key->native_handle() != nullptr);
  CHECK(key->thumbprint().size() == 43);
}

TEST_CASE("a manager at the address of an old one has none of its documents" * doctest::test_suite("slow")) {
  manual_clock clock;
  fake_fetcher provider;
  std::optional<manager_type> manager;
  for (std::size_t i = 1; i <= 3; ++i) {
    manager.emplace(provider, clock);
    CHECK(manager->get_jwks(url).has_value());
    CHECK(manager->get_jwks(url).has_value());
    CHECK(provider.requests() == i);
    manager.reset();
  }
}

TEST_CASE("a thread keeps at most 64 documents alive" * doctest::test_suite("slow")) {
  rig r;
  std::vector<std::weak_ptr<const axioms::detail::document_content>> contents;
  for (int i = 0; i < 70; ++i) {
    const std::string where = url + std::to_string(i);
    REQUIRE(r.manager.get_jwks(where).has_value());
    const auto document = r.manager.get_jwks(where);
    REQUIRE(document.has_value());
    contents.push_back((*document)->content());
  }
  r.manager.shutdown();
  std::size_t alive = 0;
  for (const auto& content : contents) alive += content.expired() ? 0U : 1U;
  CHECK(alive <= 64);
}

TEST_CASE("a thread's documents of one manager are no hits of another" * doctest::test_suite("slow")) {
  rig a, b;
  a.provider.always(ok({"of-a"}));
  b.provider.always(ok({"of-b"}));
  for (int i = 0; i < 3; ++i) {
    CHECK(kids_of(*a.manager.get_jwks(url)) == "of-a ");
    CHECK(kids_of(*b.manager.get_jwks(url)) == "of-b ");
  }
}

// -- flights --

TEST_CASE("a fetch runs on a thread of the manager's, never on the caller's") {
  rig r;
  CHECK(r.manager.get_jwks(url).has_value());
  REQUIRE(r.provider.threads().size() == 1);
  CHECK(r.provider.threads()[0] != std::this_thread::get_id());
}

TEST_CASE("a caller's stop token ends its own wait alone" * doctest::test_suite("slow")) {
  rig r;
  r.provider.hold();
  axioms::stop_source stop;
  auto impatient = r.get(url, stop.get_token()), patient = r.get();
  r.settle(3);
  stop.request_stop();
  CHECK(impatient.get().error().code == errc::cancelled);
  r.provider.release();
  CHECK(patient.get().has_value());
  CHECK(r.provider.requests() == 1);
}

TEST_CASE("a fetch that its only caller left goes on and is published") {
  rig r;
  r.provider.hold();
  axioms::stop_source stop;
  auto call = r.get(url, stop.get_token());
  r.settle(2);
  stop.request_stop();
  CHECK(call.get().error().code == errc::cancelled);
  r.provider.release();
  CHECK(eventually([&] { return r.manager.peek(url).has_value(); }));
}

TEST_CASE("a stop that was asked before the call starts nothing, but a hit is still served") {
  rig r;
  axioms::stop_source stop;
  stop.request_stop();
  CHECK(r.manager.get_jwks(url, stop.get_token()).error().code == errc::cancelled);
  CHECK(r.manager.initialize(config_for(url), stop.get_token()).error().code == errc::cancelled);
  CHECK_FALSE(r.manager.running());
  CHECK(r.provider.requests() == 0);
  r.start();
  CHECK(r.manager.get_jwks(url, stop.get_token()).has_value());
}

TEST_CASE("a stop during initialize ends the wait for the prefetch; the manager runs on" *
          doctest::test_suite("slow")) {
  rig r;
  r.provider.hold();
  axioms::stop_source stop;
  auto starting =
      std::async(std::launch::async, [&] { return r.manager.initialize(config_for(url), stop.get_token()); });
  r.settle(2);
  stop.request_stop();
  CHECK(starting.get().error().code == errc::cancelled);
  CHECK(r.manager.running());
  r.provider.release();
  CHECK(eventually([&] { return r.manager.peek(url).has_value(); }));
}

TEST_CASE("the manager enforces fetch_timeout by its own clock: waiters get timed_out, the flight is told to stop") {
  rig r;
  r.provider.hold();
  auto call = r.get();
  REQUIRE(r.provider.await_requests(1));
  r.settle(2);
  r.clock.advance(10s - 1ns);
  CHECK(call.wait_for(0s) == std::future_status::timeout);
  r.clock.advance(1ns);
  const auto document = call.get();
  CHECK(document.error().code == errc::timed_out);
  CHECK(document.error().status_code() == 503);
  CHECK(r.provider.await_ended(1));
  CHECK(r.manager.health(url).last_error->code == errc::timed_out);
  CHECK(r.manager.stats().failed == 1);
}

TEST_CASE("a good answer that comes after the deadline is published, unless a newer one has overtaken it" *
          doctest::test_suite("slow")) {
  rig r;
  r.provider.hold();
  r.provider.deaf(true);
  auto first = r.get();
  REQUIRE(r.provider.await_requests(1));
  r.settle(2);
  r.clock.advance(10s);
  CHECK(first.get().error().code == errc::timed_out);

  SUBCASE("published") {
    r.provider.always(ok({"late"}));
    r.provider.release();
    REQUIRE(eventually([&] { return r.manager.peek(url).has_value(); }));
    CHECK(kids_of(*r.manager.peek(url)) == "late ");
    CHECK_FALSE(r.manager.health(url).last_error.has_value());
  }
  SUBCASE("overtaken") {
    r.clock.advance(10s);  // the backoff is over
    auto second = r.get();
    REQUIRE(r.provider.await_requests(2));
    r.provider.always(ok({"newer"}));
    r.provider.release_one(1);
    REQUIRE(second.get().has_value());
    r.provider.always(ok({"late"}));
    r.provider.release_one(0);
    REQUIRE(r.provider.await_ended(2));
    r.manager.shutdown();  // joins: the late answer has landed
    CHECK(support::good_answers(r.manager) == 1);
  }
  r.provider.release();
}

TEST_CASE("what a fetcher throws becomes fetch_failed") {
#if defined(__cpp_exceptions)
  rig r;
  r.provider.push_throw();
  const auto document = r.manager.get_jwks(url);
  CHECK(document.error().code == errc::fetch_failed);
  r.clock.advance(10s);
  CHECK(r.manager.get_jwks(url).has_value());
#endif
}

TEST_CASE("what a clock throws becomes fetch_failed, and the manager recovers") {
#if defined(__cpp_exceptions)
  struct moody_clock : manual_clock {
    std::shared_ptr<std::atomic<bool>> broken = std::make_shared<std::atomic<bool>>(false);
    time_point now() const {
      if (*broken) throw std::runtime_error("no time");
      return manual_clock::now();
    }
  };
  const moody_clock clock;
  axioms::basic_jwks_manager<fake_fetcher, moody_clock> manager(fake_fetcher(), clock);
  CHECK(manager.get_jwks(url).has_value());
  *clock.broken = true;
  CHECK(manager.get_jwks(url).error().code == errc::fetch_failed);
  CHECK_FALSE(manager.health(url).ready);
  *clock.broken = false;
  CHECK(manager.get_jwks(url).has_value());
#endif
}

TEST_CASE("a random source that throws is replaced, not passed on") {
#if defined(__cpp_exceptions)
  rig r;
  auto config = config_for(url);
  config.random = []() -> std::uint64_t { throw std::runtime_error("no dice"); };
  r.start(config);
  CHECK(r.manager.get_jwks().has_value());
#endif
}

TEST_CASE("at most max_parallel_fetches run at once, and a caller's fetch goes before background ones" *
          doctest::test_suite("slow")) {
  rig r;
  auto config = config_for(url);
  config.max_parallel_fetches = 2;
  r.start(config);
  for (const char* path : {"/1", "/2", "/3"}) {
    auto more = config_for("https://idp.example.com" + std::string(path));
    more.prefetch = false;
    REQUIRE(r.manager.add(more).has_value());
  }
  r.provider.hold();
  r.clock.advance(3600s);  // four refreshes are due at once
  REQUIRE(r.provider.await_requests(3));
  auto urgent = r.get("https://urgent.example.com/jwks");
  r.settle(2);
  CHECK(r.provider.requests() == 3);  // the prefetch and two that hang
  r.provider.release_one(1);
  REQUIRE(r.provider.await_requests(4));
  CHECK(r.provider.request(3).url == "https://urgent.example.com/jwks");
  r.provider.release();
  CHECK(urgent.get().has_value());
  CHECK(eventually([&] { return r.provider.requests() == 6; }));
}

TEST_CASE("a refresh that waits for a free thread does not use up its timeout" * doctest::test_suite("slow")) {
  rig r;
  auto config = config_for(url);
  config.max_parallel_fetches = 1;
  config.prefetch = false;
  r.start(config);
  auto more = config_for("https://other.example.com/jwks");
  more.prefetch = false;
  REQUIRE(r.manager.add(more).has_value());
  r.provider.hold();
  r.clock.advance(3600s);  // both are due, one may run
  REQUIRE(r.provider.await_requests(1));
  r.settle(1);
  r.clock.advance(10s);  // it has overstayed; the other has not even begun
  REQUIRE(r.provider.await_requests(2));
  r.settle(1);
  CHECK(r.manager.stats().failed == 1);
  r.provider.release();
}

// -- URLs --

TEST_CASE("past cache_ttl: a renewal that fails gives the caller who waited the stale document" *
          doctest::test_suite("slow")) {
  rig r;
  auto config = config_for(url);
  config.max_parallel_fetches = 1;
  r.start(config);
  // The only fetch thread hangs at another URL, so the background refresh cannot run and the lookup starts the renewal.
  r.provider.hold("https://slow.example.com/jwks");
  auto slow_config = config_for("https://slow.example.com/jwks");
  slow_config.fetch_timeout = 24h;
  REQUIRE(r.manager.add(slow_config).has_value());
  REQUIRE(r.provider.await_requests(2));
  r.clock.advance(7200s);
  auto starter = r.get();
  r.settle(2);
  CHECK(kids_of(*r.manager.get_jwks(url)) == "k1 ");  // everybody else: at once
  CHECK(starter.wait_for(0s) == std::future_status::timeout);
  r.clock.advance(10s);
  const auto document = starter.get();
  REQUIRE(document.has_value());
  CHECK(kids_of(*document) == "k1 ");
  CHECK(r.manager.stats().stale_served == 2);
}

TEST_CASE("spellings of one URL share its document") {
  rig r;
  for (const std::string same : {"https://idp.example.com/jwks", "HTTPS://IDP.Example.COM/jwks",
                                 "https://idp.example.com:443/jwks", "https://idp.example.com/jwks#frag"}) {
    CHECK(r.manager.get_jwks(same).has_value());
    CHECK(r.manager.get_jwks(same).has_value());
  }
  CHECK(r.provider.requests() == 1);
  CHECK(r.manager.get_jwks("https://idp.example.com/JWKS").has_value());
  CHECK(r.provider.requests() == 2);
}

TEST_CASE("require_https refuses http lookups too; without it health says that the transport is insecure" *
          doctest::test_suite("slow")) {
  rig r;
  auto config = config_for(url);
  config.require_https = true;
  r.start(config);
  CHECK(r.manager.get_jwks("http://idp.example.com/jwks").error().code == errc::unsupported_scheme);
  CHECK_FALSE(r.manager.health().insecure_transport);
  r.manager.shutdown();
  r.start(config_for("http://idp.example.com/jwks"));
  CHECK(r.manager.health().insecure_transport);
}

TEST_CASE("add with prefetch of a URL that was configured without starts its first fetch at once") {
  rig r;
  auto config = config_for(url);
  config.prefetch = false;
  r.start(config);
  CHECK(r.provider.requests() == 0);
  config.prefetch = true;
  REQUIRE(r.manager.add(config).has_value());
  CHECK(r.manager.wait_ready(1h));
}

TEST_CASE("what a listener captured may call the manager when it is destroyed, and goes with its life" *
          doctest::test_suite("slow")) {
  struct last_words {
    last_words(manager_type* whose, std::atomic<int>* count) : manager(whose), said(count) {}
    last_words(const last_words&) = delete;
    last_words& operator=(const last_words&) = delete;
    manager_type* manager;
    std::atomic<int>* said;
    ~last_words() {
      static_cast<void>(manager->stats());
      manager->shutdown();
      ++*said;
    }
  };
  std::atomic<int> said{0};
  rig r;
  const auto config_with = [&](const std::string& where) {
    auto config = config_for(where);
    config.on_event = [held = std::make_shared<last_words>(&r.manager, &said)](const jwks_event&) {};
    return config;
  };
  r.start(config_with(url));
  REQUIRE(r.manager.add(config_with("https://other.example.com/jwks")).has_value());
  r.manager.shutdown();
  CHECK(said == 2);
  r.start();
  CHECK(r.manager.get_jwks().has_value());
}

TEST_CASE("what initialize would refuse to look up is no longer refreshed in the background either" *
          doctest::test_suite("slow")) {
  rig r;
  REQUIRE(r.manager.get_jwks("http://plain.example.com/jwks").has_value());
  REQUIRE(r.manager.get_jwks("https://other.example.com/jwks").has_value());
  auto config = config_for(url);
  config.require_https = config.only_configured_urls = true;
  r.start(config);
  r.clock.advance(3600s);
  REQUIRE(eventually([&] { return support::good_answers(r.manager) == 4; }));
  r.settle(1);
  CHECK(r.provider.requests() == 4);
  CHECK(r.provider.request(3).url == url);
}

// -- unknown kids --

TEST_CASE("random kids cost the provider no more than the budget, and it refills" * doctest::test_suite("slow")) {
  rig r;
  listener heard;
  auto config = config_for(url);
  config.on_event = heard;
  r.start(config);
  int missing = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto key = r.manager.get_key({.kid = "random" + std::to_string(i)});
    missing += key.error().code == errc::key_not_found ? 1 : 0;
  }
  CHECK(r.provider.requests() == 1 + 3);
  CHECK(missing == 1000);
  CHECK(r.manager.stats().throttled == 997);
  r.clock.advance(30s);
  r.provider.always(ok({"k1", "new"}));
  CHECK(r.manager.get_key({.kid = "new"}).has_value());
  CHECK(r.provider.requests() == 5);
  CHECK(r.manager.get_key({.kid = "k1"}).has_value());
  REQUIRE(heard.await(6));
  int told = 0;
  for (const auto& event : heard.all()) told += event.kind == jwks_event_kind::throttled ? 1 : 0;
  CHECK(told == 1);  // on the transition
}

TEST_CASE("past cache_ttl an unknown kid is an outage too when the renewal fails") {
  rig r;
  auto config = config_for(url);
  config.max_parallel_fetches = 1;
  r.start(config);
  r.provider.hold(
      "https://slow.example.com/jwks");  // occupies the only fetch thread, so that the lookup starts the renewal
  auto slow_config = config_for("https://slow.example.com/jwks");
  slow_config.fetch_timeout = 24h;
  REQUIRE(r.manager.add(slow_config).has_value());
  REQUIRE(r.provider.await_requests(2));
  r.clock.advance(7200s);
  auto starter = std::async(std::launch::async, [&] { return r.manager.get_key(url, {.kid = "k2"}); });
  r.settle(2);
  r.clock.advance(10s);
  CHECK(starter.get().error().code == errc::timed_out);
  CHECK(r.manager.get_key(url, {.kid = "k1"}).has_value());
}

TEST_CASE("a kid that a fetch already in the air lacked is looked for once more, and is not remembered as missing" *
          doctest::test_suite("slow")) {
  rig r;
  r.start();
  r.provider.hold();
  auto refreshing = std::async(std::launch::async, [&] { return r.manager.refresh(); });
  REQUIRE(r.provider.await_requests(2));
  auto asking = std::async(std::launch::async, [&] { return r.manager.get_key({.kid = "k2"}); });
  r.settle(3);
  CHECK(r.manager.stats().coalesced == 1);
  r.provider.push(ok({"k1"}));  // the provider answered before it published the key
  r.provider.always(ok({"k1", "k2"}));
  SUBCASE("it is there now") {
    r.provider.release();
    CHECK(asking.get().has_value());
  }
  SUBCASE("it is not answered in time") {
    r.provider.release_one(1);
    REQUIRE(r.provider.await_requests(3));  // its own fetch
    r.clock.advance(2s);
    CHECK(asking.get().error().code == errc::timed_out);
    r.provider.release();
    CHECK(eventually([&] { return support::good_answers(r.manager) == 3; }));
    CHECK(r.manager.get_key({.kid = "k2"}).has_value());
  }
  CHECK(refreshing.get().has_value());
  CHECK(r.provider.requests() == 3);
}

// Red when settle() remembers a kid that no fetch has proven to be missing.
TEST_CASE("a kid that the budget did not allow to look for once more is not remembered as missing" *
          doctest::test_suite("slow")) {
  rig r;
  auto config = config_for(url);
  config.unknown_kid_burst = 1;
  config.unknown_kid_interval = 10s;
  r.start(config);
  r.provider.hold();
  auto first = std::async(std::launch::async, [&] { return r.manager.get_key({.kid = "x"}); });
  REQUIRE(r.provider.await_requests(2));
  auto second = std::async(std::launch::async, [&] { return r.manager.get_key({.kid = "k2"}); });
  REQUIRE(eventually([&] { return r.manager.stats().coalesced == 1; }));
  r.provider.release();
  CHECK(first.get().error().code == errc::key_not_found);
  CHECK(second.get().error().code == errc::key_not_found);
  CHECK(r.manager.stats().throttled == 1);
  r.provider.always(ok({"k1", "k2"}));
  r.settle(1);
  r.clock.advance(10s);
  CHECK(r.manager.get_key({.kid = "k2"}).has_value());
}

TEST_CASE("a kid is missing without a second fetch when the set was fetched for this very lookup") {
  rig r;
  CHECK(r.manager.get_key(url, {.kid = "nope"}).error().code == errc::key_not_found);
  CHECK(r.provider.requests() == 1);
}

// -- what it tells --

TEST_CASE("events tell which kids were added, removed and changed, in order" * doctest::test_suite("slow")) {
  rig r;
  listener heard;
  auto config = config_for(url);
  config.on_event = heard;
  r.provider.push(ok({"a", "b"}, {{"ETag", "\"1\""}}));
  r.start(config);
  r.provider.push(ok({"b", "c"}));
  REQUIRE(r.manager.refresh().has_value());
  const std::string swapped = R"({"keys":[{"kty":"EC","crv":"P-256","kid":"b","x":")" + std::string(support::p256_x) +
                              R"(","y":")" + std::string(support::p256_y) + R"("},)" + key_set({"c"}).substr(9);
  r.provider.push(response(200, swapped, {{"ETag", "\"3\""}}));
  REQUIRE(r.manager.refresh().has_value());
  r.provider.push(response(304));
  REQUIRE(r.manager.refresh().has_value());
  REQUIRE(heard.await(4));
  const auto events = heard.all();
  CHECK(events[0].kind == jwks_event_kind::fetched);
  CHECK(events[0].url == url);
  CHECK(events[0].status == 200);
  CHECK(events[0].added == std::vector<std::string>{"a", "b"});
  CHECK(events[0].next_attempt == r.clock.now() + 3600s);
  CHECK(events[1].added == std::vector<std::string>{"c"});
  CHECK(events[1].removed == std::vector<std::string>{"a"});
  CHECK(events[1].changed.empty());
  CHECK(events[2].changed == std::vector<std::string>{"b"});
  CHECK(events[2].added.empty());
  CHECK(events[3].kind == jwks_event_kind::not_modified);
  CHECK(events[3].status == 304);
}

TEST_CASE("a listener may throw, and may call the members that do not wait") {
  rig r;
  std::atomic<int> calls{0};
  auto config = config_for(url);
  config.on_event = [&](const jwks_event&) {
    static_cast<void>(r.manager.peek(url));
    static_cast<void>(r.manager.health());
    static_cast<void>(r.manager.stats());
    static_cast<void>(r.manager.running());
    ++calls;
#if defined(__cpp_exceptions)
    throw std::runtime_error("listener");
#endif
  };
  r.start(config);
  REQUIRE(r.manager.refresh().has_value());
  CHECK(eventually([&] { return calls == 2; }));
}

TEST_CASE("events that wait at shutdown are still delivered" * doctest::test_suite("slow")) {
  listener heard;
  {
    rig r;
    auto config = config_for(url);
    config.on_event = heard;
    r.start(config);
    for (int i = 0; i < 4; ++i) REQUIRE(r.manager.refresh().has_value());
  }
  CHECK(heard.all().size() == 5);
}

TEST_CASE("wait_ready waits for the first document, by the manager's clock" * doctest::test_suite("slow")) {
  rig r;
  auto config = config_for(url);
  config.prefetch = false;
  r.start(config);
  CHECK_FALSE(r.manager.wait_ready(0ms));
  auto waiting = std::async(std::launch::async, [&] { return r.manager.wait_ready(5s); });
  r.settle(2);
  r.clock.advance(5s);
  CHECK_FALSE(waiting.get());
  auto again = std::async(std::launch::async, [&] { return r.manager.wait_ready(5s); });
  r.settle(2);
  CHECK(r.manager.get_jwks().has_value());
  CHECK(again.get());
  CHECK(r.manager.wait_ready(0ms));
}

TEST_CASE("health tells age, staleness and the next attempt without waiting for a fetch") {
  rig r;
  r.start();
  r.clock.advance(90s);
  const auto health = r.manager.health();
  CHECK(health.ready);
  CHECK_FALSE(health.stale);
  CHECK(health.age == 90s);
  CHECK_FALSE(health.last_error.has_value());
  CHECK(health.next_attempt == r.clock.now() + 3510s);
  r.provider.hold();
  auto call = std::async(std::launch::async, [&] { return r.manager.refresh(); });
  r.settle(2);
  CHECK(r.manager.health().ready);
  CHECK(support::good_answers(r.manager) == 1);
  r.provider.release();
  CHECK(call.get().has_value());
}

// Red when the difference is taken as it is: a fetch may land between the reading of the clock and the look at the document.
TEST_CASE("no document is younger than nothing") {
  rig r;
  r.start();
  r.clock.advance(-5s);
  CHECK(r.manager.health().age == 0s);
}

TEST_CASE("an address of a document changes with every refresh, and readers keep what they hold") {
  rig r;
  r.start();
  const auto before = *r.manager.get_jwks();
  r.provider.always(ok({"k2"}));
  REQUIRE(r.manager.refresh().has_value());
  const auto after = *r.manager.get_jwks();
  CHECK(kids_of(before) == "k1 ");
  CHECK(kids_of(after) == "k2 ");
  CHECK(after->generation() == before->generation() + 1);
}

// -- fork --

#if defined(__unix__)
// ThreadSanitizer does not support threads in the child of a process that has some. AddressSanitizer does not either with g++ 12 and
// clang 14: its allocator's locks stay as another thread held them when the process was forked, and once in 200 times the child hangs.
TEST_CASE("in a forked child the manager is down, hangs nobody, and initialize starts it afresh" *
          doctest::test_suite("slow") * doctest::skip(support::under_tsan || support::under_asan)) {
  rig r;
  r.start();
  r.provider.hold("https://slow.example.com/jwks");
  auto hanging = r.get("https://slow.example.com/jwks");
  REQUIRE(r.provider.await_requests(2));
  r.settle(2);
  const pid_t child = r.clock.fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(20);  // a child that hangs must not outlive the test
    int wrong = 0;
    wrong |= r.manager.running() ? 1 : 0;
    const auto lookup = r.manager.get_jwks(url);
    wrong |= !lookup && lookup.error().code == errc::shut_down ? 0 : 2;
    wrong |= r.manager.peek(url).has_value() ? 4 : 0;
    r.manager.shutdown();
    // The fake's own mutex is not the manager's business: the child brings a new provider with a new manager.
    {
      rig fresh;
      wrong |= fresh.manager.initialize(config_for(url)).has_value() ? 0 : 8;
      wrong |= fresh.manager.get_jwks().has_value() ? 0 : 16;
    }
    wrong |= r.manager.initialize(config_for(url)).has_value() && r.manager.get_jwks().has_value() ? 0 : 32;
    ::_exit(wrong);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(r.manager.get_jwks().has_value());  // the parent goes on
  r.provider.release();
  CHECK(hanging.get().has_value());
}
#endif
