// Part "async manager": awaitables and callbacks round the same core, on threads and on an event loop.
#include "support/coroutine.hpp"
#include "support/eventually.hpp"
#include "support/fake_fetcher.hpp"
#include "support/manual_clock.hpp"
#include "support/rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <future>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config, axioms::jwks_ptr, axioms::key_ptr, axioms::result;
using support::detached, support::eventually, support::fake_fetcher, support::manual_clock, support::manual_loop,
    support::ok, support::owned, support::response;

namespace {

const std::string url = "https://idp.example.com/.well-known/jwks.json";

// A fetcher that only blocks, so that the manager runs on threads of its own.
struct blocking_only {
  fake_fetcher provider;
  result<axioms::fetch_response> operator()(const axioms::fetch_request& request, const axioms::stop_token& stop) {
    return provider(request, stop);
  }
};
// And one that only calls back: with the clock's timers the manager lives on the loop alone.
struct callback_only {
  fake_fetcher provider;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    provider.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};

#if defined(__cpp_exceptions)
struct throwing {
  template <class Callback>
  void async_fetch(axioms::fetch_request, axioms::stop_token, Callback) {
    throw std::runtime_error("no network");
  }
};
#endif

// Asks for the stop of whoever waits, inside the call; answers it inside the stop.
struct stopping_client {
  struct shared {
    axioms::stop_source stop;
    bool inside = false;
  };
  std::shared_ptr<shared> state = std::make_shared<shared>();
  template <class Callback>
  void async_fetch(axioms::fetch_request, const axioms::stop_token&, Callback callback) {
    state->inside = true;
    state->stop.request_stop();
    callback(ok({"k1"}));
    state->inside = false;
  }
};

// The timers of a manual clock, which throw when they are told to.
#if defined(__cpp_exceptions)
struct moody_timer {
  struct shared {
    bool clock_throws = false, timer_throws = false;
  };
  manual_clock clock;
  std::shared_ptr<shared> state = std::make_shared<shared>();
  manual_clock::time_point now() const {
    if (state->clock_throws) throw std::runtime_error("no time");
    return clock.now();
  }
  manual_clock::system_point system_now() const { return clock.system_now(); }
  manual_clock::timer call_at(manual_clock::time_point when, std::function<void()> callback) {
    if (state->timer_throws) throw std::runtime_error("no timer");
    return clock.call_at(when, std::move(callback));
  }
};
#endif

// An executor with a thread of its own.
class own_thread {
 public:
  own_thread() {
    thread_ = std::thread([this] {
      while (!over_) {
        if (!loop_.run_one()) static_cast<void>(loop_.await_task());
      }
    });
  }
  ~own_thread() {
    loop_.post({[](void* self) noexcept { static_cast<own_thread*>(self)->over_ = true; }, this});
    thread_.join();
  }
  own_thread(const own_thread&) = delete;
  own_thread& operator=(const own_thread&) = delete;
  void post(axioms::executor_task task) { loop_.post(task); }
  std::thread::id id() const { return thread_.get_id(); }

 private:
  manual_loop loop_;
  std::atomic<bool> over_{false};
  std::thread thread_;
};

// An executor whose threads have run a task before post() returns.
class new_thread_each {
 public:
  void post(axioms::executor_task task) {
    std::thread thread(task);
    {
      const std::lock_guard lock(mutex_);
      ids_.push_back(thread.get_id());
    }
    thread.join();
  }
  bool knows(std::thread::id id) const {
    const std::lock_guard lock(mutex_);
    return std::find(ids_.begin(), ids_.end(), id) != ids_.end();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::thread::id> ids_;
};

using on_threads = axioms::basic_async_jwks_manager<blocking_only, manual_clock>;
using on_loop = axioms::basic_async_jwks_manager<callback_only, manual_clock>;

jwks_config config_for(const std::string& where) {
  jwks_config config;
  config.jwks_url = where;
  config.random = [] { return std::uint64_t{0}; };
  return config;
}

// What a coroutine or a callback ended with, on which thread, and how often.
template <class T>
struct landing {
  std::promise<T> promise;
  std::future<T> future = promise.get_future();
  std::thread::id thread;
  std::atomic<int> count{0};
  void operator()(T value) {
    thread = std::this_thread::get_id();
    if (count++ == 0) promise.set_value(std::move(value));
  }
  bool ready() { return future.wait_for(0s) == std::future_status::ready; }
  T get() {
    REQUIRE(future.wait_for(support::patience) == std::future_status::ready);
    return future.get();
  }
};

template <class T, class Operation>
detached run(Operation operation, landing<T>& to) {
  to(co_await std::move(operation));
}
template <class Operation>
detached run_void(Operation operation, landing<int>& to) {
  co_await std::move(operation);
  to(0);
}

template <class Manager, class Fetcher>
struct rig_of {
  manual_clock clock;
  fake_fetcher provider;
  Manager manager{Fetcher{provider}, clock};

  result<void> start(jwks_config config) {
    landing<result<void>> done;
    run<result<void>>(manager.initialize(std::move(config)), done);
    return done.get();
  }
  void start() { REQUIRE(start(config_for(url)).has_value()); }
  // The same when the manager's executor is one that has to be turned.
  void start_on(manual_loop& executor) {
    landing<result<void>> done;
    run<result<void>>(manager.initialize(config_for(url)), done);
    REQUIRE(eventually([&] { return executor.run() > 0 || done.ready(); }));
    REQUIRE(done.get().has_value());
  }
  result<jwks_ptr> get(std::string_view where = url) {
    landing<result<jwks_ptr>> done;
    run<result<jwks_ptr>>(manager.get_jwks(where), done);
    return done.get();
  }
  result<key_ptr> key(std::string_view kid) {
    landing<result<key_ptr>> done;
    run<result<key_ptr>>(manager.get_key(url, {.kid = kid}), done);
    return done.get();
  }
  void shutdown() {
    landing<int> done;
    run_void(manager.shutdown(), done);
    static_cast<void>(done.get());
  }
};
using thread_rig = rig_of<on_threads, blocking_only>;
using loop_rig = rig_of<on_loop, callback_only>;

std::string kids_of(const jwks_ptr& document) {
  std::string all;
  for (const auto& key : document->keys()) all.append(key->kid()).append(" ");
  return all;
}

}  // namespace

// -- each of the Python original's async tests, by its name, on threads and on a loop (those of the process-wide manager, "singleton
//    pattern", "initialize async jwks manager" and "shutdown async jwks manager", stand in integration/managers.cpp) --

TEST_CASE_TEMPLATE("initialize with prefetch: the key set is there when it goes on, and the manager runs", Rig,
                   thread_rig, loop_rig) {
  Rig r;
  CHECK_FALSE(r.manager.running());
  r.start();
  CHECK(r.manager.running());
  CHECK(r.provider.requests() == 1);
  CHECK(r.manager.peek().has_value());
  CHECK(r.manager.health().ready);
}

TEST_CASE_TEMPLATE("initialize without prefetch: it runs, and nothing is fetched before the first lookup", Rig,
                   thread_rig, loop_rig) {
  Rig r;
  auto config = config_for(url);
  config.prefetch = false;
  CHECK(r.start(config).has_value());
  CHECK(r.manager.running());
  CHECK(r.provider.requests() == 0);
  CHECK(r.get().has_value());
  CHECK(r.provider.requests() == 1);
}

TEST_CASE_TEMPLATE("a failed prefetch is success", Rig, thread_rig, loop_rig) {
  Rig r;
  r.provider.push(response(503));
  CHECK(r.start(config_for(url)).has_value());
  CHECK(r.manager.running());
  CHECK(r.manager.health().last_error->http_status == 503);
}

TEST_CASE_TEMPLATE("an invalid configuration starts nothing", Rig, thread_rig, loop_rig) {
  Rig r;
  auto config = config_for(url);
  config.refresh_interval = 0s;
  CHECK(r.start(config).error().code == errc::invalid_config);
  CHECK(r.start(config_for("file:///etc/passwd")).error().code == errc::unsupported_scheme);
  CHECK_FALSE(r.manager.running());
  CHECK(r.provider.requests() == 0);
}

TEST_CASE_TEMPLATE("fetch jwks success: the published bytes and keys", Rig, thread_rig, loop_rig) {
  Rig r;
  const auto document = r.get();
  CHECK((*document)->body() == support::key_set({"k1"}));
  CHECK(kids_of(*document) == "k1 ");
  CHECK(r.manager.peek(url).has_value());
}

TEST_CASE_TEMPLATE("fetch jwks invalid scheme: the configuration is to blame, and nothing is fetched", Rig, thread_rig,
                   loop_rig) {
  Rig r;
  const auto refused = r.get("file:///etc/passwd");
  CHECK(refused.error().code == errc::unsupported_scheme);
  CHECK(refused.error().status_code() == 500);
  CHECK(r.get("").error().code == errc::invalid_url);
  CHECK(r.provider.requests() == 0);
}

TEST_CASE_TEMPLATE("fetch jwks http error: the provider's status", Rig, thread_rig, loop_rig) {
  Rig r;
  r.provider.always(response(404));
  const auto failed = r.get();
  CHECK(failed.error().code == errc::http_status);
  CHECK(failed.error().http_status == 404);
  CHECK_FALSE(r.manager.peek(url).has_value());
}

TEST_CASE_TEMPLATE("get jwks from cache: the same bytes, without a request", Rig, thread_rig, loop_rig) {
  Rig r;
  const auto first = r.get(), second = r.get();
  CHECK((*first)->body().data() == (*second)->body().data());
  CHECK(r.provider.requests() == 1);
}

TEST_CASE_TEMPLATE("background refresh: it goes on after the first fetch, also without initialize and after a failure",
                   Rig, thread_rig, loop_rig) {
  Rig r;
  CHECK(r.get().has_value());
  for (std::size_t round = 2; round <= 4; ++round) {
    r.clock.advance(3600s);
    REQUIRE(eventually([&] { return support::good_answers(r.manager) == round; }));
    CHECK(r.get().has_value());  // a URL that nobody asks for any more would be dropped
  }
  r.provider.push(response(503));
  r.clock.advance(3600s);
  REQUIRE(eventually([&] { return r.manager.stats().failed == 1; }));
  r.clock.advance(1s);
  REQUIRE(eventually([&] { return support::good_answers(r.manager) == 5; }));
}

TEST_CASE_TEMPLATE("get jwks cache expired: the caller that comes first renews it", Rig, thread_rig, loop_rig) {
  Rig r;
  auto config = config_for(url);
  config.refresh_interval = 60s;
  config.cache_ttl = 120s;
  config.outage_window = 0s;
  CHECK(r.start(config).has_value());
  r.provider.always(response(503, {}, {{"Retry-After", "60"}}));
  r.clock.advance(60s);
  REQUIRE(eventually([&] { return r.manager.stats().failed == 1; }));
  CHECK(r.get().has_value());
  r.provider.always(ok({"new"}));
  r.clock.advance(60s);
  CHECK(kids_of(*r.get()) == "new ");
}

TEST_CASE_TEMPLATE("initialize idempotent: while it runs another call succeeds and changes nothing", Rig, thread_rig,
                   loop_rig) {
  Rig r;
  r.start();
  auto other = config_for("https://other.example.com/jwks");
  other.refresh_interval = 10s;
  other.cache_ttl = 20s;
  CHECK(r.start(other).has_value());
  CHECK(r.provider.requests() == 1);
  landing<result<jwks_ptr>> configured;
  run<result<jwks_ptr>>(r.manager.get_jwks(), configured);
  const auto document = configured.get();
  CHECK((*document)->url() == url);
  CHECK((*document)->expires_at() == r.clock.now() + 7200s);
}

TEST_CASE_TEMPLATE("shutdown: it no longer runs, lookups say so, and initialize works again", Rig, thread_rig,
                   loop_rig) {
  Rig r;
  r.start();
  r.shutdown();
  CHECK_FALSE(r.manager.running());
  CHECK(r.get().error().code == errc::shut_down);
  CHECK(r.key("k1").error().code == errc::shut_down);
  r.clock.advance(7200s);  // the background has ended, too
  CHECK(r.provider.requests() == 1);
  r.provider.always(ok({"second"}));
  r.start();
  CHECK(kids_of(*r.get()) == "second ");
}

TEST_CASE_TEMPLATE("shutdown idempotent: before, after and together with another", Rig, thread_rig, loop_rig) {
  Rig r;
  r.shutdown();
  r.start();
  landing<int> first, second;
  run_void(r.manager.shutdown(), first);
  run_void(r.manager.shutdown(), second);
  static_cast<void>(first.get());
  static_cast<void>(second.get());
  r.shutdown();
  CHECK_FALSE(r.manager.running());
}

// -- the rest --

TEST_CASE_TEMPLATE("rotation: refresh brings the new set, an unknown kid asks for it", Rig, thread_rig, loop_rig) {
  Rig r;
  r.start();
  CHECK(r.key("k1").has_value());
  r.provider.always(ok({"k2"}));
  landing<result<void>> refreshed;
  run<result<void>>(r.manager.refresh(url), refreshed);
  CHECK(refreshed.get().has_value());
  CHECK(r.key("k2").has_value());
  r.provider.always(ok({"k2", "k3"}));
  CHECK(r.key("k3").has_value());
  CHECK(r.provider.requests() == 3);
  CHECK(r.key("k4").error().code == errc::key_not_found);
}

TEST_CASE_TEMPLATE("1,000 coroutines that miss together make one request", Rig, thread_rig, loop_rig) {
  Rig r;
  r.provider.hold();
  std::vector<landing<result<jwks_ptr>>> all(1000);
  for (auto& each : all) run<result<jwks_ptr>>(r.manager.get_jwks(url), each);
  REQUIRE(r.provider.await_requests(1));
  r.provider.release();
  std::size_t good = 0;
  for (auto& each : all) good += each.get().has_value() && each.count == 1 ? 1U : 0U;
  CHECK(good == all.size());
  CHECK(r.provider.requests() == 1);
  CHECK(r.manager.stats().misses == 1000);
  CHECK(r.manager.stats().coalesced == 999);
}

TEST_CASE_TEMPLATE("callers that miss together cause one request, by coroutine and by callback", Rig, thread_rig,
                   loop_rig) {
  Rig r;
  r.provider.hold();
  std::vector<std::unique_ptr<landing<result<jwks_ptr>>>> documents;
  std::vector<std::unique_ptr<landing<result<key_ptr>>>> keys;
  for (int i = 0; i < 30; ++i) {
    run<result<jwks_ptr>>(r.manager.get_jwks(url),
                          *documents.emplace_back(std::make_unique<landing<result<jwks_ptr>>>()));
    auto& by_callback = *documents.emplace_back(std::make_unique<landing<result<jwks_ptr>>>());
    r.manager.async_get_jwks(url, [&](result<jwks_ptr> document) { by_callback(std::move(document)); });
    auto& key = *keys.emplace_back(std::make_unique<landing<result<key_ptr>>>());
    r.manager.async_get_key(url, {.kid = "k1"}, [&](result<key_ptr> found) { key(std::move(found)); });
  }
  REQUIRE(r.provider.await_requests(1));
  r.provider.release();
  for (auto& document : documents) CHECK(document->get().has_value());
  for (auto& key : keys) CHECK(key->get().has_value());
  CHECK(r.provider.requests() == 1);
}

// What a callback returns is nobody's business.
TEST_CASE_TEMPLATE("every verb has its callback form", Rig, thread_rig, loop_rig) {
  Rig r;
  landing<result<void>> started;
  r.manager.async_initialize(config_for(url), [&](result<void> out) { return started(std::move(out)), 7; });
  CHECK(started.get().has_value());
  landing<result<jwks_ptr>> configured;
  r.manager.async_get_jwks([&](result<jwks_ptr> out) { return configured(std::move(out)), 7; });
  CHECK(configured.get().has_value());
  landing<result<key_ptr>> key;
  r.manager.async_get_key({.kid = "k1"}, [&](result<key_ptr> out) { return key(std::move(out)), 7; });
  CHECK(key.get().has_value());
  landing<result<void>> refreshed;
  r.manager.async_refresh(url, [&](result<void> out) { return refreshed(std::move(out)), 7; });
  CHECK(refreshed.get().has_value());
  landing<bool> ready;
  r.manager.async_wait_ready(0ms, [&](bool out) { return ready(out), 7; });
  CHECK(ready.get());
  landing<int> ended;
  r.manager.async_shutdown([&] { return ended(0), 7; });
  static_cast<void>(ended.get());
  CHECK_FALSE(r.manager.running());
}

TEST_CASE_TEMPLATE("wait_ready ends with the first document, or when its time is over", Rig, thread_rig, loop_rig) {
  Rig r;
  auto config = config_for(url);
  config.prefetch = false;
  CHECK(r.start(config).has_value());
  landing<bool> late, in_time;
  run<bool>(r.manager.wait_ready(5s), late);
  r.clock.advance(5s);
  CHECK_FALSE(late.get());
  run<bool>(r.manager.wait_ready(5s), in_time);
  CHECK(r.get().has_value());
  CHECK(in_time.get());
}

TEST_CASE_TEMPLATE("add serves one more URL with a policy of its own", Rig, thread_rig, loop_rig) {
  Rig r;
  r.start();
  auto config = config_for("https://other.example.com/jwks");
  config.refresh_interval = 10s;
  config.cache_ttl = 20s;
  CHECK(r.manager.add(config).has_value());
  r.clock.advance(0s);  // lets the loop look at its timers
  REQUIRE(eventually([&] { return r.manager.health(config.jwks_url).ready; }));
  CHECK((*r.get(config.jwks_url))->expires_at() == r.clock.now() + 20s);
}

TEST_CASE_TEMPLATE("a fetch that overstays ends with timed_out", Rig, thread_rig, loop_rig) {
  Rig r;
  r.provider.hold();
  landing<result<jwks_ptr>> document;
  run<result<jwks_ptr>>(r.manager.get_jwks(url), document);
  REQUIRE(r.provider.await_requests(1));
  r.clock.advance(10s - 1ns);
  CHECK_FALSE(document.ready());
  r.clock.advance(1ns);
  CHECK(document.get().error().code == errc::timed_out);
}

TEST_CASE_TEMPLATE("a stop token cancels its own wait alone, exactly once", Rig, thread_rig, loop_rig) {
  Rig r;
  r.provider.hold();
  axioms::stop_source stop;
  landing<result<jwks_ptr>> coroutine, callback, patient;
  run<result<jwks_ptr>>(r.manager.get_jwks(url, {.stop = stop.get_token()}), coroutine);
  r.manager.async_get_jwks(
      url, [&](result<jwks_ptr> out) { callback(std::move(out)); }, stop.get_token());
  run<result<jwks_ptr>>(r.manager.get_jwks(url), patient);
  REQUIRE(r.provider.await_requests(1));
  stop.request_stop();
  CHECK(coroutine.get().error().code == errc::cancelled);
  CHECK(callback.get().error().code == errc::cancelled);
  CHECK_FALSE(patient.ready());
  r.provider.release();
  CHECK(patient.get().has_value());
  CHECK(coroutine.count == 1);
  CHECK(callback.count == 1);
}

TEST_CASE("options may be written in braces inside a co_await expression") {
  // g++ 12 copies such an aggregate byte by byte and destroys both: with a token inside, this test crashes.
  loop_rig r;
  axioms::stop_source stop;
  manual_loop executor;
  landing<int> done;
  const auto both = [](loop_rig& rig, axioms::stop_source& source, manual_loop& where, landing<int>& to) -> detached {
    const axioms::stop_token token = source.get_token();
    int good = (co_await rig.manager.get_jwks(url, {.executor = where, .stop = token})).has_value() ? 1 : 0;
    good += (co_await rig.manager.get_key(url, {.kid = "k1"}, {.stop = source.get_token()})).has_value() ? 1 : 0;
    to(good);
  };
  both(r, stop, executor, done);
  executor.run();
  CHECK(done.get() == 2);
  CHECK(stop.get_token().stop_possible());
  static_assert(!std::is_assignable_v<axioms::stop_ref&, axioms::stop_token>, "a temporary token would dangle");
  static_assert(std::is_assignable_v<axioms::stop_ref&, const axioms::stop_token&>);
}

TEST_CASE_TEMPLATE("a stop that was asked before completes at once, but not a hit", Rig, thread_rig, loop_rig) {
  Rig r;
  axioms::stop_source stop;
  stop.request_stop();
  landing<result<jwks_ptr>> miss, hit, callback;
  landing<result<void>> started;
  run<result<jwks_ptr>>(r.manager.get_jwks(url, {.stop = stop.get_token()}), miss);
  CHECK(miss.get().error().code == errc::cancelled);
  r.manager.async_get_jwks(
      url, [&](result<jwks_ptr> out) { callback(std::move(out)); }, stop.get_token());
  CHECK(callback.get().error().code == errc::cancelled);
  run<result<void>>(r.manager.initialize(config_for(url), {.stop = stop.get_token()}), started);
  CHECK(started.get().error().code == errc::cancelled);
  CHECK_FALSE(r.manager.running());
  CHECK(r.provider.requests() == 0);
  r.start();
  run<result<jwks_ptr>>(r.manager.get_jwks(url, {.stop = stop.get_token()}), hit);
  CHECK(hit.get().has_value());
}

TEST_CASE_TEMPLATE("shutdown completes every waiter with shut_down", Rig, thread_rig, loop_rig) {
  Rig r;
  r.provider.hold();
  landing<result<jwks_ptr>> document;
  landing<result<void>> started;
  run<result<void>>(r.manager.initialize(config_for(url)), started);
  run<result<jwks_ptr>>(r.manager.get_jwks(url), document);
  REQUIRE(r.provider.await_requests(1));
  r.shutdown();
  CHECK(document.get().error().code == errc::shut_down);
  CHECK(started.get().error().code == errc::shut_down);
  r.provider.release();  // on the loop the late answer meets a manager that is down
  CHECK_FALSE(r.manager.peek(url).has_value());
}

TEST_CASE_TEMPLATE("the destructor completes every waiter without executor before it returns", Rig, thread_rig,
                   loop_rig) {
  landing<result<jwks_ptr>> document;
  fake_fetcher provider;
  {
    Rig r;
    provider = r.provider;
    r.provider.hold();
    run<result<jwks_ptr>>(r.manager.get_jwks(url), document);
    REQUIRE(r.provider.await_requests(1));
  }
  REQUIRE(document.ready());
  CHECK(document.get().error().code == errc::shut_down);
  provider.release();  // late, after the manager is gone
}

TEST_CASE_TEMPLATE("a frame that is destroyed while it waits is never resumed, and harms no other", Rig, thread_rig,
                   loop_rig) {
  Rig r;
  r.provider.hold();
  std::atomic<int> resumed{0};
  landing<result<jwks_ptr>> other;
  {
    const auto wait = [](Rig& rig, std::atomic<int>& count) -> owned {
      static_cast<void>(co_await rig.manager.get_jwks(url));
      ++count;
    };
    const owned frame = wait(r, resumed);
    run<result<jwks_ptr>>(r.manager.get_jwks(url), other);
    REQUIRE(r.provider.await_requests(1));
    CHECK_FALSE(frame.done());
  }
  r.provider.release();
  CHECK(other.get().has_value());
  r.shutdown();
  CHECK(resumed == 0);
}

TEST_CASE_TEMPLATE("continuations run on the executor of the call, else on the manager's", Rig, thread_rig, loop_rig) {
  Rig r;
  manual_loop mine, managers;
  r.manager.set_executor(managers);
  r.provider.hold();
  landing<result<jwks_ptr>> a, b, c;
  run<result<jwks_ptr>>(r.manager.get_jwks(url, {.executor = mine}), a);
  run<result<jwks_ptr>>(r.manager.get_jwks(url), b);
  r.manager.async_get_jwks(url, [&](result<jwks_ptr> out) { c(std::move(out)); });
  r.provider.release();
  REQUIRE(eventually([&] { return mine.posted() == 1 && managers.posted() == 2; }));
  CHECK_FALSE(a.ready());
  CHECK(mine.run() == 1);
  CHECK(managers.run() == 2);
  CHECK(a.get().has_value());
  CHECK(a.thread == std::this_thread::get_id());
  CHECK(b.thread == std::this_thread::get_id());
  CHECK(c.thread == std::this_thread::get_id());
  // A hit does not go through the executor when it is awaited; a callback always does.
  landing<result<jwks_ptr>> hit, by_callback;
  run<result<jwks_ptr>>(r.manager.get_jwks(url), hit);
  CHECK(hit.ready());
  r.manager.async_get_jwks(url, [&](result<jwks_ptr> out) { by_callback(std::move(out)); });
  CHECK_FALSE(by_callback.ready());
  CHECK(managers.run() == 1);
  CHECK(by_callback.ready());
}

TEST_CASE_TEMPLATE("a callback runs on the executor of its call, a hit too, and may be given a stop token as well", Rig,
                   thread_rig, loop_rig) {
  Rig r;
  manual_loop mine, managers;
  r.manager.set_executor(managers);
  r.start_on(managers);
  const std::size_t posted = managers.posted();
  std::vector<std::string> said;
  const auto note = [&](const char* verb) { return [&said, verb](const auto&) { said.emplace_back(verb); }; };
  r.manager.async_initialize(config_for(url), note("initialize"), {.executor = mine});
  r.manager.async_get_jwks(url, note("get_jwks"), {.executor = mine});
  r.manager.async_get_jwks(note("get_jwks"), {.executor = mine});
  r.manager.async_get_key(url, {.kid = "k1"}, note("get_key"), {.executor = mine});
  r.manager.async_get_key({.kid = "k1"}, note("get_key"), {.executor = mine});
  r.manager.async_refresh_after_bad_signature(url, "k1", note("bad signature"), {.executor = mine});
  r.manager.async_refresh_after_bad_signature("k1", note("bad signature"), {.executor = mine});
  r.manager.async_refresh("not a URL", note("refresh"), {.executor = mine});
  r.manager.async_wait_ready(0ms, note("ready"), {.executor = mine});
  CHECK(said.empty());
  CHECK(managers.posted() == posted);
  CHECK(mine.run() == 9);
  CHECK(said == std::vector<std::string>{"initialize", "get_jwks", "get_jwks", "get_key", "get_key", "bad signature",
                                         "bad signature", "refresh", "ready"});
  r.provider.hold();
  axioms::stop_source stop;
  landing<result<void>> refreshed, configured;
  const axioms::stop_token token = stop.get_token();
  r.manager.async_refresh(url, [&](result<void> out) { refreshed(std::move(out)); }, {.executor = mine, .stop = token});
  r.manager.async_refresh([&](result<void> out) { configured(std::move(out)); }, {.executor = mine, .stop = token});
  stop.request_stop();
  REQUIRE(eventually([&] { return mine.posted() == 11; }));
  mine.run();
  CHECK(refreshed.get().error().code == errc::cancelled);
  CHECK(configured.get().error().code == errc::cancelled);
  landing<int> ended;
  r.manager.async_shutdown([&] { ended(0); }, {.executor = mine});
  REQUIRE(mine.await_task());
  CHECK_FALSE(ended.ready());
  mine.run();
  static_cast<void>(ended.get());
}

TEST_CASE_TEMPLATE("whatever ends a wait, it goes on in the executor's own thread", Rig, thread_rig, loop_rig) {
  own_thread executor;
  Rig r;
  axioms::async_options on;
  on.executor = executor;
  r.provider.hold();
  axioms::stop_source stop;
  const axioms::stop_token token = stop.get_token();
  landing<result<jwks_ptr>> answered, stopped, shut;
  landing<result<void>> started;
  landing<bool> waited;
  run<result<jwks_ptr>>(r.manager.get_jwks(url, {.executor = executor, .stop = token}), stopped);
  run<result<jwks_ptr>>(r.manager.get_jwks(url, on), answered);
  r.manager.async_initialize(
      config_for(url), [&](result<void> out) { started(std::move(out)); }, on);
  REQUIRE(r.provider.await_requests(1));
  stop.request_stop();
  CHECK(stopped.get().error().code == errc::cancelled);
  r.provider.release();
  CHECK(answered.get().has_value());
  CHECK(started.get().has_value());
  r.provider.hold();
  run<result<jwks_ptr>>(r.manager.get_jwks("https://other.example.com/jwks", on), shut);
  run<bool>(r.manager.wait_ready(0ms, on), waited);  // an answer that needs no waiting stays where it was asked
  landing<int> down;
  run_void(r.manager.shutdown(on), down);
  static_cast<void>(down.get());
  CHECK(shut.get().error().code == errc::shut_down);
  CHECK(waited.thread == std::this_thread::get_id());
  for (const auto at : {answered.thread, stopped.thread, started.thread, shut.thread}) CHECK(at == executor.id());
  CHECK((down.thread == executor.id() || down.thread == std::this_thread::get_id()));
}

TEST_CASE_TEMPLATE(
    "an executor may run at once what it is given, in another thread, and that is where a callback's captures end", Rig,
    thread_rig, loop_rig) {
  new_thread_each executor;
  Rig r;
  r.provider.hold();
  std::thread::id ran, gone;
  std::atomic<int> count{0};
  {
    const auto last = [&gone](int* p) {
      gone = std::this_thread::get_id();
      delete p;
    };
    std::unique_ptr<int, decltype(last)> held(new int(7), last);
    r.manager.async_get_jwks(url,
                             [held = std::move(held), &ran, &count](const result<jwks_ptr>& out) {
                               ran = std::this_thread::get_id();
                               count += out.has_value() && *held == 7 ? 1 : 100;
                             },
                             {.executor = executor});
  }
  landing<result<jwks_ptr>> coroutine;
  run<result<jwks_ptr>>(r.manager.get_jwks(url, {.executor = executor}), coroutine);
  REQUIRE(r.provider.await_requests(1));
  r.provider.release();
  CHECK(coroutine.get().has_value());
  REQUIRE(eventually([&] { return count.load() == 1; }));
  r.shutdown();
  CHECK(executor.knows(ran));
  CHECK(executor.knows(coroutine.thread));
  CHECK(gone == ran);
}

TEST_CASE(
    "without executor a continuation runs on a manager thread, also when it is cancelled, and there every verb is legal") {
  thread_rig r;
  r.provider.hold();
  axioms::stop_source stop;
  landing<result<jwks_ptr>> cancelled;
  run<result<jwks_ptr>>(r.manager.get_jwks(url, {.stop = stop.get_token()}), cancelled);
  REQUIRE(r.provider.await_requests(1));
  stop.request_stop();
  CHECK(cancelled.get().error().code == errc::cancelled);
  CHECK(cancelled.thread != std::this_thread::get_id());

  landing<int> all;
  const auto everything = [](thread_rig& rig, landing<int>& done) -> detached {
    int good = 0;
    good += (co_await rig.manager.get_jwks(url)).has_value() ? 1 : 0;  // resumed on a manager thread from here on
    good += (co_await rig.manager.initialize(config_for(url))).has_value() ? 1 : 0;
    good += (co_await rig.manager.refresh()).has_value() ? 1 : 0;
    co_await rig.manager.shutdown();
    good += rig.manager.running() ? 0 : 1;
    good += (co_await rig.manager.initialize(config_for(url))).has_value() ? 1 : 0;
    good += (co_await rig.manager.get_key({.kid = "k1"})).has_value() ? 1 : 0;
    done(good);
  };
  everything(r, all);
  r.provider.release();
  CHECK(all.get() == 6);
}

TEST_CASE("a manager that a continuation destroys on a manager thread ends without a hang") {
  fake_fetcher provider;
  const manual_clock clock;
  auto manager = std::make_unique<on_threads>(blocking_only{provider}, clock);
  landing<int> gone;
  const auto last_words = [](std::unique_ptr<on_threads> mine, landing<int>& done) -> detached {
    static_cast<void>(co_await mine->get_jwks(url));
    mine.reset();
    done(1);
  };
  last_words(std::move(manager), gone);
  CHECK(gone.get() == 1);
  CHECK(eventually([&] { return clock.waiting() == 0; }));
}

TEST_CASE("a fetcher that answers inside the call neither recurses nor resumes inside await_suspend") {
  loop_rig r;  // its provider answers inside async_fetch()
  int depth = 0, deepest = 0, done = 0;
  const auto many = [](loop_rig& rig, int& now, int& most, int& count) -> detached {
    for (int i = 0; i < 20; ++i) {
      ++now;
      most = std::max(most, now);
      if ((co_await rig.manager.refresh(url)).has_value()) ++count;
      --now;
    }
  };
  many(r, depth, deepest, done);
  CHECK(done == 20);
  CHECK(deepest == 1);
}

TEST_CASE("a stop that is asked while the wait is being set up resumes nothing inside, and exactly once") {
  manual_clock clock;
  stopping_client client;
  axioms::basic_async_jwks_manager<stopping_client, manual_clock> manager{client, clock};
  landing<result<jwks_ptr>> document, by_callback;
  bool inside = true;
  const auto wait = [](auto& m, stopping_client& c, landing<result<jwks_ptr>>& done, bool& in) -> detached {
    const axioms::stop_token token = c.state->stop.get_token();
    auto out = co_await m.get_jwks(url, {.stop = token});
    in = c.state->inside;
    done(std::move(out));
  };
  wait(manager, client, document, inside);
  CHECK(document.get().error().code == errc::cancelled);
  CHECK(document.count == 1);
  CHECK_FALSE(inside);
  // A callback may run in there: it has no frame.
  client.state->stop = axioms::stop_source();
  manager.async_get_jwks(
      "https://other.example.com/jwks", [&](result<jwks_ptr> out) { by_callback(std::move(out)); },
      client.state->stop.get_token());
  CHECK(by_callback.get().error().code == errc::cancelled);
  CHECK(by_callback.count == 1);
}

TEST_CASE("who is cancelled may destroy the manager of an event loop in its continuation") {
  const manual_clock clock;
  const fake_fetcher provider;
  provider.hold();
  auto manager = std::make_unique<on_loop>(callback_only{provider}, clock);
  axioms::stop_source stop;
  landing<int> gone, called;
  manager->async_get_jwks(
      url, [&](const result<jwks_ptr>& out) { called(out.error().code == errc::shut_down ? 1 : 0); }, stop.get_token());
  const auto last_words = [](std::unique_ptr<on_loop> mine, axioms::stop_token token, landing<int>& done) -> detached {
    const auto out = co_await mine->get_jwks(url, {.stop = token});
    mine.reset();
    done(out.error().code == errc::cancelled ? 1 : 0);
  };
  last_words(std::move(manager), stop.get_token(), gone);  // asked last, so it is told first
  stop.request_stop();
  CHECK(gone.get() == 1);
  static_cast<void>(called.get());
  CHECK(called.count == 1);
  CHECK(clock.timers() == 0);
  provider.release();
}

TEST_CASE_TEMPLATE("a frame that is destroyed after its continuation was posted is not resumed", Rig, thread_rig,
                   loop_rig) {
  manual_loop executor;
  Rig r;
  r.provider.hold();
  std::atomic<int> resumed{0};
  {
    const auto wait = [](Rig& rig, manual_loop& where, std::atomic<int>& count) -> owned {
      static_cast<void>(co_await rig.manager.get_jwks(url, {.executor = where}));
      ++count;
    };
    const owned frame = wait(r, executor, resumed);
    REQUIRE(r.provider.await_requests(1));
    r.provider.release();
    REQUIRE(executor.await_task());
    CHECK_FALSE(frame.done());
  }
  CHECK(executor.run() == 1);
  CHECK(resumed == 0);
}

TEST_CASE(
    "a loop manager starts no thread, takes its timer back on shutdown, and an abandoned one leaves no timer that bites") {
  const manual_clock clock;
  const fake_fetcher provider;
  {
    on_loop manager{callback_only{provider}, clock};
    landing<result<void>> started;
    run<result<void>>(manager.initialize(config_for(url)), started);
    REQUIRE(started.ready());  // all of it inside the call: the provider answered at once
    CHECK(clock.arrivals() == 0);
    CHECK(clock.timers() == 1);
    CHECK(provider.threads()[0] == std::this_thread::get_id());
  }
  CHECK(clock.timers() == 0);
}

TEST_CASE("a fetcher that throws from async_fetch becomes fetch_failed") {
#if defined(__cpp_exceptions)
  axioms::basic_async_jwks_manager<throwing, manual_clock> manager;
  landing<result<jwks_ptr>> document;
  run<result<jwks_ptr>>(manager.get_jwks(url), document);
  REQUIRE(document.ready());
  CHECK(document.get().error().code == errc::fetch_failed);
#endif
}

TEST_CASE(
    "a loop's clock that throws is an error of the lookup, and a timer that throws is armed again by the next one") {
#if defined(__cpp_exceptions)
  moody_timer timer;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<callback_only, moody_timer> manager{callback_only{provider}, timer};
  timer.state->clock_throws = true;
  landing<result<jwks_ptr>> none, some, more;
  run<result<jwks_ptr>>(manager.get_jwks(url), none);
  CHECK(none.get().error().code == errc::fetch_failed);
  timer.state->clock_throws = false;
  timer.state->timer_throws = true;
  run<result<jwks_ptr>>(manager.get_jwks(url), some);
  CHECK(some.get().has_value());
  CHECK(timer.clock.timers() == 0);
  timer.state->timer_throws = false;
  run<result<jwks_ptr>>(manager.get_jwks("https://other.example.com/jwks"), more);
  CHECK(more.get().has_value());
  CHECK(timer.clock.timers() == 1);
  timer.clock.advance(3600s);
  CHECK(provider.requests() == 4);  // the background refresh of both
#endif
}

TEST_CASE("events of a loop manager are told on the loop, in order") {
  loop_rig r;
  std::vector<axioms::jwks_event_kind> told;
  auto config = config_for(url);
  config.on_event = [&](const axioms::jwks_event& event) { told.push_back(event.kind); };
  CHECK(r.start(config).has_value());
  r.provider.push(response(500));
  r.clock.advance(3600s);
  CHECK(told == std::vector{axioms::jwks_event_kind::fetched, axioms::jwks_event_kind::failed});
}

TEST_CASE("operations are lazy, movable, and a named one can be awaited") {
  loop_rig r;
  auto operation = r.manager.get_jwks(url);
  CHECK(r.provider.requests() == 0);
  auto moved = std::move(operation);
  landing<result<jwks_ptr>> document;
  const auto named = [](axioms::async_operation<result<jwks_ptr>>& what, landing<result<jwks_ptr>>& done) -> detached {
    done(co_await what);
  };
  named(moved, document);
  CHECK(document.get().has_value());
  static_assert(std::is_move_constructible_v<axioms::async_operation<result<jwks_ptr>>>);
  static_assert(!std::is_copy_constructible_v<axioms::async_operation<result<jwks_ptr>>>);
}

TEST_CASE_TEMPLATE("callbacks may be move-only", Rig, thread_rig, loop_rig) {
  Rig r;
  landing<result<jwks_ptr>> document;
  r.manager.async_get_jwks(url, [own = std::make_unique<int>(7), &document](result<jwks_ptr> out) {
    CHECK(*own == 7);
    document(std::move(out));
  });
  CHECK(document.get().has_value());
}

#if defined(__unix__)
TEST_CASE(
    "in a forked child a waiting frame can be destroyed and its stop asked, whatever locks the parent's threads held" *
    doctest::test_suite("slow") * doctest::skip(support::under_tsan)) {
  thread_rig r;
  r.provider.hold();
  axioms::stop_source stop;
  const auto wait = [](thread_rig& rig, axioms::stop_token token) -> owned {
    static_cast<void>(co_await rig.manager.get_jwks(url, {.stop = token}));
  };
  auto frame = std::make_unique<owned>(wait(r, stop.get_token()));
  REQUIRE(r.provider.await_requests(1));
  // A thread that holds the engine's mutex most of the time.
  std::atomic<bool> over{false};
  std::thread busy([&] {
    while (!over) static_cast<void>(r.manager.stats());
  });
  int hung = 0;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(5);  // a child that hangs is killed
      stop.request_stop();
      frame.reset();
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    hung += WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1;
    if (hung > 0) break;
  }
  over = true;
  busy.join();
  CHECK(hung == 0);
  frame.reset();  // before its answer comes: nobody may destroy a frame that runs
  r.provider.release();
}
#endif

// Red when close() does not set closed_.
TEST_CASE("a continuation that runs while its manager is destroyed starts it no more") {
  manual_clock clock;
  fake_fetcher provider;
  provider.hold();
  using manager_type = axioms::basic_async_jwks_manager<callback_only, manual_clock>;
  std::optional<manager_type> manager(std::in_place, callback_only{provider}, clock);
  manager_type& going = *manager;
  std::vector<errc> said;
  going.async_get_jwks(support::url, [&](auto first) {
    said.push_back(first ? errc{} : first.error().code);
    going.async_initialize(support::config_for(support::url),
                           [&](auto again) { said.push_back(again ? errc{} : again.error().code); });
  });
  manager.reset();
  CHECK(said == std::vector{errc::shut_down, errc::shut_down});
  CHECK(clock.timers() == 0);
  CHECK(provider.requests() == 1);
}

// Red when perform() does not keep the engine, or import_cache() performs between two documents.
TEST_CASE("a continuation may destroy the manager that imports a document for it") {
  manual_clock clock;
  fake_fetcher provider;
  using manager_type = axioms::basic_async_jwks_manager<callback_only, manual_clock>;
  std::string saved;
  {
    manager_type first(callback_only{provider}, clock);
    for (const char* where : {"https://a/", "https://b/", "https://c/"}) first.async_get_jwks(where, [](auto) {});
    saved = first.export_cache();
  }
  provider.hold();
  auto manager = std::make_unique<manager_type>(callback_only{provider}, clock);
  bool called = false;
  manager->async_get_jwks("https://a/", [&](auto document) {
    called = document.has_value();
    manager.reset();
  });
  CHECK(manager->import_cache(saved).value() == 3);
  CHECK(called);
  CHECK(manager == nullptr);
}

// Red when conclude() does not tell it.
TEST_CASE("stale is told once, also when the one who began the renewal gets the old document first") {
  manual_clock clock;
  fake_fetcher provider;
  using manager_type = axioms::basic_async_jwks_manager<callback_only, manual_clock>;
  manager_type manager(callback_only{provider}, clock);
  std::vector<axioms::jwks_event_kind> told;
  auto config = support::config_for(support::url);
  config.max_parallel_fetches = 1;
  config.fetch_timeout = 24h;
  config.on_event = [&](const axioms::jwks_event& event) { told.push_back(event.kind); };
  manager.async_initialize(config, [](auto) {});
  provider.hold("https://slow/");
  manager.async_get_jwks("https://slow/", [](auto) {});  // takes the only slot, so the lookup below begins the renewal
  clock.advance(7200s);
  provider.always(response(503));
  told.clear();
  for (int i = 0; i < 2; ++i) manager.async_get_jwks(support::url, [](auto document) { CHECK(document.has_value()); });
  CHECK(told == std::vector{axioms::jwks_event_kind::failed, axioms::jwks_event_kind::stale});
}
