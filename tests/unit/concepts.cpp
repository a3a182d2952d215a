// The part "concepts": fetcher, async_fetcher, clock_source, timer_source, executor_ref, stop tokens, wait_until.
//
// Built twice: with std's stop tokens, and with the header's own.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using axioms::fetch_request;
using axioms::fetch_response;
using axioms::result;
using axioms::stop_source;
using axioms::stop_token;
using steady = std::chrono::steady_clock;

namespace {

// ---- fetcher ----

struct good_fetcher {
  result<fetch_response> operator()(const fetch_request& request, const stop_token& stop);
};
struct fetcher_without_stop {
  result<fetch_response> operator()(const fetch_request& request);
};
struct fetcher_with_bare_response {
  fetch_response operator()(const fetch_request& request, const stop_token& stop);
};
struct fetcher_that_changes_the_request {
  result<fetch_response> operator()(fetch_request& request, const stop_token& stop);
};
struct fetcher_for_rvalues {
  result<fetch_response> operator()(const fetch_request& request, const stop_token& stop) &&;
};
using fetch_function = result<fetch_response>(const fetch_request&, stop_token);

static_assert(axioms::fetcher<good_fetcher>);
static_assert(axioms::fetcher<fetch_function*>);
static_assert(axioms::fetcher<std::function<fetch_function>>);
static_assert(!axioms::fetcher<const good_fetcher>, "checked on a non-const lvalue, which this is not");
static_assert(!axioms::fetcher<fetcher_without_stop>);
static_assert(!axioms::fetcher<fetcher_with_bare_response>);
static_assert(!axioms::fetcher<fetcher_that_changes_the_request>);
static_assert(!axioms::fetcher<fetcher_for_rvalues>);
static_assert(!axioms::fetcher<int>);

// ---- async_fetcher ----

struct good_async_fetcher {
  template <class Callback>
  void async_fetch(fetch_request request, stop_token stop, Callback callback);
};
struct async_fetcher_that_copies_its_callback {
  template <std::copy_constructible Callback>
  void async_fetch(fetch_request request, stop_token stop, Callback callback);
};
struct async_fetcher_that_refers_to_its_callback {
  template <class Callback>
  void async_fetch(fetch_request request, stop_token stop, Callback& callback);
};
struct async_fetcher_without_stop {
  template <class Callback>
  void async_fetch(fetch_request request, Callback callback);
};

static_assert(axioms::async_fetcher<good_async_fetcher>);
static_assert(!axioms::async_fetcher<async_fetcher_that_copies_its_callback>);
static_assert(!axioms::async_fetcher<async_fetcher_that_refers_to_its_callback>);
static_assert(!axioms::async_fetcher<async_fetcher_without_stop>);
static_assert(!axioms::async_fetcher<good_fetcher> && !axioms::fetcher<good_async_fetcher>);

// ---- clock_source ----

struct good_clock {
  steady::time_point now() { return steady::now(); }
  std::chrono::system_clock::time_point system_now() { return std::chrono::system_clock::now(); }
  template <class Ready>
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, stop_token stop,
                  steady::time_point deadline, Ready ready) {
    return axioms::wait_until(lock, cv, std::move(stop), deadline, std::move(ready));
  }
};
struct clock_of_wall_time : good_clock {
  std::chrono::system_clock::time_point now();
};
struct clock_without_wall_time : private good_clock {
  using good_clock::now;
  using good_clock::wait_until;
};
struct clock_that_cannot_wait {
  steady::time_point now();
  std::chrono::system_clock::time_point system_now();
};
struct clock_that_tells_nothing : good_clock {
  template <class Ready>
  void wait_until(std::unique_lock<std::mutex>&, std::condition_variable_any&, stop_token, steady::time_point, Ready);
};

static_assert(axioms::clock_source<good_clock>);
static_assert(!axioms::clock_source<clock_of_wall_time>);
static_assert(!axioms::clock_source<clock_without_wall_time>);
static_assert(!axioms::clock_source<clock_that_cannot_wait>);
static_assert(!axioms::clock_source<clock_that_tells_nothing>);
static_assert(!axioms::clock_source<steady>, "std's clock is read without an object, but cannot be waited with");

// ---- timer_source ----

struct timer_handle {
  void cancel();
};
struct good_timer {
  steady::time_point now();
  std::chrono::system_clock::time_point system_now();
  timer_handle call_at(steady::time_point when, const std::function<void()>& callback);
};
struct timer_without_handle : good_timer {
  void call_at(steady::time_point when, const std::function<void()>& callback);
};
struct timer_that_cannot_cancel : good_timer {
  int call_at(steady::time_point when, const std::function<void()>& callback);
};
struct timer_of_wall_time : good_timer {
  timer_handle call_at(std::chrono::system_clock::time_point when, const std::function<void()>& callback);
};

static_assert(axioms::timer_source<good_timer>);
static_assert(!axioms::timer_source<timer_without_handle>);
static_assert(!axioms::timer_source<timer_that_cannot_cancel>);
static_assert(!axioms::timer_source<timer_of_wall_time>);
static_assert(!axioms::timer_source<good_clock> && !axioms::clock_source<good_timer>);

// ---- executor_ref ----

struct queue_executor {
  template <class Task>
  void post(Task task) {
    static_assert(std::is_copy_constructible_v<Task> && std::is_nothrow_invocable_v<Task&>);
    static_assert(sizeof(Task) <= 2 * sizeof(void*));
    queue.emplace_back(task);
  }
  std::vector<std::function<void()>> queue;
};
struct executor_that_is_const {
  void post(const std::function<void()>& task) const { target->queue.push_back(task); }
  queue_executor* target;
};
struct executor_without_post {
  void run(const std::function<void()>& task);
};
struct executor_of_other_tasks {
  void post(int task);
};

using axioms::executor_ref;
static_assert(std::is_convertible_v<queue_executor&, executor_ref>);
static_assert(std::is_convertible_v<const executor_that_is_const&, executor_ref>);
static_assert(!std::is_constructible_v<executor_ref, const queue_executor&>, "post() would change a const executor");
static_assert(!std::is_constructible_v<executor_ref, queue_executor>, "a temporary would dangle");
static_assert(!std::is_constructible_v<executor_ref, executor_without_post&>);
static_assert(!std::is_constructible_v<executor_ref, executor_of_other_tasks&>);
static_assert(!std::is_convertible_v<executor_ref, bool>);
static_assert(std::is_trivially_copyable_v<executor_ref> && std::is_nothrow_default_constructible_v<executor_ref>);
static_assert(std::is_trivially_copyable_v<axioms::executor_task>);
static_assert(sizeof(axioms::executor_task) == 2 * sizeof(void*));

void count_up(void* counter) noexcept { ++*static_cast<int*>(counter); }

}  // namespace

TEST_CASE("an executor reference is empty until it is made from an executor") {
  queue_executor executor;
  CHECK_FALSE(static_cast<bool>(executor_ref()));
  CHECK(static_cast<bool>(executor_ref(executor)));
}

TEST_CASE("an executor reference posts to the executor it was made from, once each") {
  queue_executor first;
  queue_executor second;
  int runs = 0;
  executor_ref reference = first;
  const executor_ref copy = reference;
  reference.post({count_up, &runs});
  CHECK(first.queue.size() == 1);
  reference = second;
  reference.post({count_up, &runs});
  copy.post({count_up, &runs});
  CHECK(first.queue.size() == 2);
  CHECK(second.queue.size() == 1);
  CHECK(runs == 0);
  for (const auto& task : first.queue) task();
  CHECK(runs == 2);
  for (const auto& task : second.queue) task();
  CHECK(runs == 3);
}

TEST_CASE("a const executor whose post() is const can be referred to") {
  queue_executor target;
  const executor_that_is_const executor{&target};
  int runs = 0;
  const executor_ref reference = executor;
  reference.post({count_up, &runs});
  REQUIRE(target.queue.size() == 1);
  target.queue.front()();
  CHECK(runs == 1);
}

// ---- stop tokens ----

namespace {

// clang before 19 deduces no arguments of an alias template.
template <class Callback>
axioms::stop_callback<Callback> on_stop(stop_token stop, Callback callback) {
  return axioms::stop_callback<Callback>(std::move(stop), std::move(callback));
}

}  // namespace

TEST_CASE("a default token can never be asked to stop") {
  const stop_token token;
  CHECK_FALSE(token.stop_requested());
  CHECK_FALSE(token.stop_possible());
}

TEST_CASE("a request to stop is seen by all tokens and copies of a source, and is made once") {
  stop_source source;
  stop_source copy = source;
  const stop_token early = source.get_token();
  CHECK(early.stop_possible());
  CHECK_FALSE(early.stop_requested());
  CHECK(copy.request_stop());
  CHECK_FALSE(source.request_stop());
  CHECK_FALSE(copy.request_stop());
  CHECK(early.stop_requested());
  CHECK(source.stop_requested());
  CHECK(source.get_token().stop_requested());
}

TEST_CASE("a token whose sources are gone can no longer be asked, unless it was") {
  stop_token unasked;
  stop_token asked;
  {
    stop_source source;
    unasked = source.get_token();
    const stop_source copy = source;
    { const stop_source moved = std::move(source); }
    CHECK(unasked.stop_possible());
  }
  CHECK_FALSE(unasked.stop_possible());
  {
    stop_source source;
    asked = source.get_token();
    source.request_stop();
  }
  CHECK(asked.stop_possible());
  CHECK(asked.stop_requested());
}

TEST_CASE("tokens are equal if they are of the same source") {
  const stop_source one;
  const stop_source other;
  CHECK(one.get_token() == one.get_token());
  CHECK_FALSE(one.get_token() == other.get_token());
  CHECK(one.get_token() != other.get_token());
  CHECK(stop_token() == stop_token());
}

TEST_CASE("an assigned source takes the other's place") {
  stop_source first;
  stop_source second;
  const stop_token of_first = first.get_token();
  const stop_token of_second = second.get_token();
  first = second;
  CHECK_FALSE(of_first.stop_possible());
  first.request_stop();
  CHECK_FALSE(of_first.stop_requested());
  CHECK(of_second.stop_requested());
  second = stop_source();
  CHECK_FALSE(second.stop_requested());
  CHECK(second.stop_possible());
}

TEST_CASE("a callback runs once, in the thread that asks, before the request returns") {
  stop_source source;
  int runs = 0;
  std::thread::id runner;
  const auto record = [&] {
    ++runs;
    runner = std::this_thread::get_id();
  };
  const auto callback = on_stop(source.get_token(), record);
  CHECK(runs == 0);
  std::thread::id asker;
  std::thread thread([&] {
    asker = std::this_thread::get_id();
    source.request_stop();
    source.request_stop();
  });
  thread.join();
  CHECK(runs == 1);
  CHECK(runner == asker);
}

TEST_CASE("a callback on a token that was asked already runs at once") {
  stop_source source;
  source.request_stop();
  int runs = 0;
  const auto count = [&] { ++runs; };
  { const auto callback = on_stop(source.get_token(), count); }
  CHECK(runs == 1);
}

TEST_CASE("a callback that is gone or has no source does not run") {
  stop_source source;
  int runs = 0;
  const auto count = [&] { ++runs; };
  {
    const auto first = on_stop(source.get_token(), count);
    const auto second = on_stop(source.get_token(), count);
    const auto third = on_stop(source.get_token(), count);
  }
  { const auto never = on_stop(stop_token(), count); }
  source.request_stop();
  CHECK(runs == 0);
}

TEST_CASE("callbacks can go in any order, and the others still run") {
  stop_source source;
  std::vector<int> ran;
  using function = std::function<void()>;
  std::vector<std::unique_ptr<axioms::stop_callback<function>>> callbacks;
  for (int i = 0; i < 5; ++i) {
    callbacks.push_back(std::make_unique<axioms::stop_callback<function>>(source.get_token(),
                                                                          function([&ran, i] { ran.push_back(i); })));
  }
  callbacks[2].reset();  // in the middle
  callbacks[4].reset();  // the newest
  callbacks[0].reset();  // the oldest
  source.request_stop();
  std::sort(ran.begin(), ran.end());
  CHECK(ran == std::vector<int>{1, 3});
}

TEST_CASE("a callback may be destroyed in its own call") {
  stop_source source;
  int runs = 0;
  using function = std::function<void()>;
  std::optional<axioms::stop_callback<function>> callback;
  const auto destroy = [&runs, &callback] {
    ++runs;
    callback.reset();
  };
  // The function must outlive its own destruction from inside: so it only forwards to one that stands outside.
  callback.emplace(source.get_token(), function(std::ref(destroy)));
  int later = 0;
  const auto count = [&] { ++later; };
  const auto other = on_stop(source.get_token(), count);
  source.request_stop();
  CHECK(runs == 1);
  CHECK(later == 1);
  CHECK_FALSE(callback.has_value());
}

TEST_CASE("a callback may destroy another one, which then does not run") {
  stop_source source;
  int runs = 0;
  using function = std::function<void()>;
  std::optional<axioms::stop_callback<function>> first;
  std::optional<axioms::stop_callback<function>> second;
  first.emplace(source.get_token(), function([&] {
                  ++runs;
                  second.reset();
                }));
  second.emplace(source.get_token(), function([&] {
                   ++runs;
                   first.reset();
                 }));
  source.request_stop();
  CHECK(runs == 1);
  CHECK(first.has_value() != second.has_value());
}

TEST_CASE("the destruction of a callback waits while another thread runs it") {
  for (int round = 0; round < 1; ++round) {
    stop_source source;
    std::atomic<bool> started{false};
    std::atomic<bool> destroying{false};
    std::atomic<bool> finished{false};
    using function = std::function<void()>;
    std::optional<axioms::stop_callback<function>> callback;
    callback.emplace(source.get_token(), function([&] {
                       started = true;
                       while (!destroying) std::this_thread::yield();
                       for (int i = 0; i < 50; ++i) std::this_thread::yield();
                       finished = true;
                     }));
    std::thread asker([&] { source.request_stop(); });
    while (!started) std::this_thread::yield();
    destroying = true;
    callback.reset();
    CHECK(finished.load());
    asker.join();
  }
}

TEST_CASE("callbacks that several threads make and destroy while one asks run once each") {
  for (int round = 0; round < 1; ++round) {
    stop_source source;
    std::atomic<int> ready{0};
    std::atomic<bool> asked{false};
    std::atomic<int> kept_runs{0};
    std::atomic<int> brief_runs{0};
    std::atomic<int> late_runs{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        const auto count_kept = [&] { ++kept_runs; };
        const auto kept = on_stop(source.get_token(), count_kept);
        ++ready;
        for (int i = 0; i < 30 && !asked; ++i) {
          std::atomic<int> runs{0};
          const auto count = [&runs] { ++runs; };
          { const auto brief = on_stop(source.get_token(), count); }
          brief_runs = std::max(brief_runs.load(), runs.load());
        }
        while (!asked) std::this_thread::yield();
        const auto count_late = [&] { ++late_runs; };
        const auto late = on_stop(source.get_token(), count_late);
      });
    }
    while (ready < 3) std::this_thread::yield();
    source.request_stop();
    asked = true;
    for (auto& thread : threads) thread.join();
    CHECK(kept_runs == 3);
    CHECK(brief_runs <= 1);
    CHECK(late_runs == 3);
  }
}

// ---- jthread ----

TEST_CASE("a jthread that is destroyed asks its function to stop and waits for it") {
  std::atomic<bool> finished{false};
  {
    const axioms::jthread thread([&finished](const stop_token& stop) {
      while (!stop.stop_requested()) std::this_thread::yield();
      finished = true;
    });
    CHECK(thread.joinable());
    CHECK(thread.get_id() != std::thread::id());
  }
  CHECK(finished.load());
}

TEST_CASE("a jthread passes a token only to a function that takes one, and its arguments to both") {
  int without = 0;
  int with = 0;
  bool possible = false;
  {
    axioms::jthread first([](int* out, int value) { *out = value; }, &without, 7);
    axioms::jthread second(
        [](const stop_token& stop, int* out, bool* seen, std::unique_ptr<int> value) {
          *out = *value;
          *seen = stop.stop_possible();
        },
        &with, &possible, std::make_unique<int>(8));
    first.join();
    second.join();
    CHECK_FALSE(first.joinable());
  }
  CHECK(without == 7);
  CHECK(with == 8);
  CHECK(possible);
}

TEST_CASE("a default jthread has nothing to join") {
  const axioms::jthread thread;
  CHECK_FALSE(thread.joinable());
  CHECK(thread.get_id() == std::thread::id());
}

TEST_CASE("a jthread can be asked from outside, once, and its token shows it") {
  axioms::jthread thread([](const stop_token& stop) {
    while (!stop.stop_requested()) std::this_thread::yield();
  });
  const stop_token token = thread.get_stop_token();
  CHECK_FALSE(token.stop_requested());
  CHECK(thread.request_stop());
  CHECK_FALSE(thread.request_stop());
  CHECK(token.stop_requested());
  thread.join();
}

TEST_CASE("a moved jthread keeps its thread, and an assigned one ends the old") {
  std::atomic<int> ended{0};
  const auto wait = [&ended](const stop_token& stop) {
    while (!stop.stop_requested()) std::this_thread::yield();
    ++ended;
  };
  axioms::jthread first(wait);
  axioms::jthread second(std::move(first));
  CHECK_FALSE(first.joinable());  // NOLINT(bugprone-use-after-move)
  CHECK(second.joinable());
  CHECK(ended == 0);
  axioms::jthread third(wait);
  third = std::move(second);
  CHECK(ended == 1);
  CHECK(third.joinable());
  third = axioms::jthread();
  CHECK(ended == 2);
  CHECK_FALSE(third.joinable());
}

// ---- wait_until ----

namespace {

struct waiting_room {
  std::mutex mutex;
  std::condition_variable_any cv;
  bool open = false;
  bool waiting = false;  // set under the mutex by ready(): whoever then gets the mutex finds the waiter waiting
  auto is_open() {
    return [this] {
      waiting = true;
      return open;
    };
  }
  void await_waiter() {
    for (;;) {
      {
        const std::lock_guard lock(mutex);
        if (waiting) return;
      }
      std::this_thread::yield();
    }
  }
};

const auto far_deadline = [] { return steady::now() + std::chrono::hours(1); };

}  // namespace

TEST_CASE("wait_until returns at once when it is ready, even after a stop or a deadline") {
  waiting_room room;
  room.open = true;
  stop_source asked;
  asked.request_stop();
  std::unique_lock lock(room.mutex);
  CHECK(axioms::wait_until(lock, room.cv, stop_token(), steady::time_point::max(), room.is_open()));
  CHECK(axioms::wait_until(lock, room.cv, asked.get_token(), steady::time_point::max(), room.is_open()));
  CHECK(axioms::wait_until(lock, room.cv, stop_token(), steady::now() - std::chrono::seconds(1), room.is_open()));
  CHECK(axioms::wait_until(lock, room.cv, stop_token(), steady::time_point::min(), room.is_open()));
  CHECK(lock.owns_lock());
}

TEST_CASE("wait_until does not wait past a deadline that is over") {
  waiting_room room;
  std::unique_lock lock(room.mutex);
  CHECK_FALSE(axioms::wait_until(lock, room.cv, stop_token(), steady::now() - std::chrono::seconds(1), room.is_open()));
  CHECK_FALSE(axioms::wait_until(lock, room.cv, stop_token(), steady::time_point(), room.is_open()));
  const stop_source source;
  CHECK_FALSE(axioms::wait_until(lock, room.cv, source.get_token(), steady::now(), room.is_open()));
  CHECK(lock.owns_lock());
}

TEST_CASE("wait_until does not wait when the stop was asked before") {
  waiting_room room;
  stop_source asked;
  asked.request_stop();
  std::unique_lock lock(room.mutex);
  CHECK_FALSE(axioms::wait_until(lock, room.cv, asked.get_token(), steady::time_point::max(), room.is_open()));
  CHECK_FALSE(axioms::wait_until(lock, room.cv, asked.get_token(), far_deadline(), room.is_open()));
  CHECK(lock.owns_lock());
}

TEST_CASE("wait_until is ended by a stop from another thread, with and without a deadline") {
  for (const auto deadline : {steady::time_point::max(), far_deadline()}) {
    waiting_room room;
    stop_source source;
    std::thread other([&] {
      room.await_waiter();
      source.request_stop();
    });
    std::unique_lock lock(room.mutex);
    CHECK_FALSE(axioms::wait_until(lock, room.cv, source.get_token(), deadline, room.is_open()));
    CHECK(lock.owns_lock());
    CHECK(source.stop_requested());
    lock.unlock();
    other.join();
  }
}

TEST_CASE("wait_until is ended by a notification when it is ready, with and without a deadline or a token") {
  const stop_source source;
  for (const auto& stop : {stop_token(), source.get_token()}) {
    for (const auto deadline : {steady::time_point::max(), far_deadline()}) {
      waiting_room room;
      std::thread other([&] {
        room.await_waiter();
        const std::lock_guard lock(room.mutex);
        room.open = true;
        room.cv.notify_all();
      });
      std::unique_lock lock(room.mutex);
      CHECK(axioms::wait_until(lock, room.cv, stop, deadline, room.is_open()));
      CHECK(lock.owns_lock());
      lock.unlock();
      other.join();
    }
  }
}

TEST_CASE("a notification without reason does not end wait_until") {
  waiting_room room;
  std::thread other([&] {
    for (int i = 0; i < 10; ++i) {
      room.await_waiter();
      room.cv.notify_all();
      std::this_thread::yield();
    }
    const std::lock_guard lock(room.mutex);
    room.open = true;
    room.cv.notify_all();
  });
  std::unique_lock lock(room.mutex);
  CHECK(axioms::wait_until(lock, room.cv, stop_token(), steady::time_point::max(), room.is_open()));
  CHECK(room.open);
  lock.unlock();
  other.join();
}

TEST_CASE("a stop that races with the start of wait_until is never lost") {
  for (int round = 0; round < 4; ++round) {
    waiting_room room;
    stop_source source;
    std::atomic<bool> go{false};
    std::thread other([&] {
      while (!go) std::this_thread::yield();
      source.request_stop();
    });
    std::unique_lock lock(room.mutex);
    go = true;
    CHECK_FALSE(axioms::wait_until(lock, room.cv, source.get_token(), steady::time_point::max(), room.is_open()));
    lock.unlock();
    other.join();
  }
}

// Red when request_stop() does not keep the state (under AddressSanitizer, with the own stop_source).
TEST_CASE("a stop callback may destroy the last source") {
  auto source = std::make_unique<axioms::stop_source>();
  const auto over = [&source] { source.reset(); };
  const axioms::stop_callback<decltype(over)> on_stop(source->get_token(), over);
  source->request_stop();
  CHECK(source == nullptr);
}

TEST_CASE("several threads wait on one condition, and one stop ends only its own wait") {
  waiting_room room;
  stop_source source;
  std::atomic<int> stopped{0};
  std::atomic<int> opened{0};
  std::atomic<int> entered{0};
  const auto wait = [&](const stop_token& stop, std::atomic<int>& out) {
    std::unique_lock lock(room.mutex);
    ++entered;
    const bool ready = axioms::wait_until(lock, room.cv, stop, steady::time_point::max(), room.is_open());
    if (&out == (ready ? &opened : &stopped)) ++out;
  };
  std::thread first([&] { wait(source.get_token(), stopped); });
  std::thread second([&] { wait(stop_token(), opened); });
  while (entered < 2) std::this_thread::yield();
  source.request_stop();
  first.join();
  CHECK(stopped == 1);
  CHECK(opened == 0);
  {
    const std::lock_guard lock(room.mutex);
    room.open = true;
  }
  room.cv.notify_all();
  second.join();
  CHECK(opened == 1);
}
