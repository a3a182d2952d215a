// The part "clocks": real time, forks, and the promises of the manual clock that all other tests stand on.
#include "axioms_jwks.hpp"
#include "support/manual_clock.hpp"

#include <doctest/doctest.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using support::manual_clock;
using real = std::chrono::steady_clock;

namespace {

// What a thread needs to wait on a clock.
struct room {
  std::mutex mutex;
  std::condition_variable_any changed;
  bool open = false;

  void unlock_door() {
    {
      const std::lock_guard hold(mutex);
      open = true;
    }
    changed.notify_all();
  }
};

// Enough for a machine that is busy or runs a sanitizer; a wait that hangs is far longer.
constexpr auto soon = 5s;

}  // namespace

// ---- steady_clock --------------------------------------------------------------------------------

TEST_CASE("the steady clock never goes back") {
  const axioms::steady_clock clock;
  auto last = clock.now();
  for (int i = 0; i < 1000; ++i) {
    const auto next = clock.now();
    REQUIRE(next >= last);
    last = next;
  }
}

#if defined(__linux__)
TEST_CASE("on Linux the steady clock counts suspended time: it is CLOCK_BOOTTIME") {
  const axioms::steady_clock clock;
  const auto boot = [] {
    timespec t{};
    REQUIRE(::clock_gettime(CLOCK_BOOTTIME, &t) == 0);
    return real::time_point(std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec));
  };
  const auto before = boot();
  const auto now = clock.now();
  const auto after = boot();
  CHECK(before <= now);
  CHECK(now <= after);
}
#endif

TEST_CASE("system_now is the wall clock's time") {
  const axioms::steady_clock clock;
  const auto before = std::chrono::system_clock::now();
  const auto now = clock.system_now();
  const auto after = std::chrono::system_clock::now();
  // Not ordered strictly: the wall clock may be set between the calls.
  CHECK(now >= before - 1s);
  CHECK(now <= after + 1s);
}

TEST_CASE("a wait for what is ready returns at once, whatever the deadline") {
  const axioms::steady_clock clock;
  room here;
  std::unique_lock lock(here.mutex);
  const auto begun = real::now();
  for (const auto deadline : {real::time_point::max(), clock.now() + 10h, clock.now() - 10h, real::time_point()}) {
    CHECK(clock.wait_until(lock, here.changed, {}, deadline, [] { return true; }));
    CHECK(lock.owns_lock());
  }
  CHECK(real::now() - begun < soon);
}

TEST_CASE("a wait for a deadline that has passed returns false at once") {
  const axioms::steady_clock clock;
  room here;
  std::unique_lock lock(here.mutex);
  const auto begun = real::now();
  for (const auto deadline :
       {clock.now(), clock.now() - 1ns, clock.now() - 10h, real::time_point(), real::time_point::min()}) {
    CHECK_FALSE(clock.wait_until(lock, here.changed, {}, deadline, [] { return false; }));
    CHECK(lock.owns_lock());
  }
  CHECK(real::now() - begun < soon);
}

TEST_CASE("a wait ends at its deadline, and not before" * doctest::test_suite("slow")) {
  const axioms::steady_clock clock;
  room here;
  std::unique_lock lock(here.mutex);
  const auto deadline = clock.now() + 2ms;
  CHECK_FALSE(clock.wait_until(lock, here.changed, {}, deadline, [] { return false; }));
  CHECK(clock.now() >= deadline);
  CHECK(clock.now() < deadline + soon);
}

TEST_CASE("a wait ends at once when a stop was asked before, and is ready's to judge") {
  const axioms::steady_clock clock;
  room here;
  std::unique_lock lock(here.mutex);
  axioms::stop_source stop;
  stop.request_stop();
  const auto begun = real::now();
  for (const auto deadline : {real::time_point::max(), clock.now() + 10h}) {
    CHECK_FALSE(clock.wait_until(lock, here.changed, stop.get_token(), deadline, [] { return false; }));
    CHECK(clock.wait_until(lock, here.changed, stop.get_token(), deadline, [] { return true; }));
    CHECK(lock.owns_lock());
  }
  CHECK(real::now() - begun < soon);
}

TEST_CASE("a stop and a notification wake a thread that waits") {
  for (const bool with_deadline : {false, true}) {
    for (const bool by_stop : {false, true}) {
      CAPTURE(with_deadline);
      CAPTURE(by_stop);
      const axioms::steady_clock clock;
      room here;
      axioms::stop_source stop;
      std::atomic<bool> waits{false}, result{false};
      std::thread sleeper([&] {
        std::unique_lock lock(here.mutex);
        const auto deadline = with_deadline ? clock.now() + 10h : real::time_point::max();
        result = clock.wait_until(lock, here.changed, stop.get_token(), deadline, [&] {
          waits = true;
          return here.open;
        });
      });
      while (!waits) std::this_thread::yield();
      if (by_stop) {
        stop.request_stop();
      } else {
        here.unlock_door();
      }
      sleeper.join();  // a lost wake-up hangs here, until the test's time limit
      CHECK(result == !by_stop);
    }
  }
}

// ---- forks ---------------------------------------------------------------------------------------

#if defined(__unix__) || defined(__APPLE__)
TEST_CASE("a forked child sees another epoch, and its parent does not" * doctest::test_suite("slow")) {
  axioms::detail::watch_forks();
  axioms::detail::watch_forks();  // twice is as once
  const std::uint64_t before = axioms::detail::fork_epoch();
  const pid_t child = ::fork();
  if (child == 0) {
    // The child of the child differs from both.
    const std::uint64_t mine = axioms::detail::fork_epoch();
    const pid_t grandchild = ::fork();
    if (grandchild == 0) ::_exit(axioms::detail::fork_epoch() == mine + 1 ? 7 : 8);
    int status = 0;
    if (::waitpid(grandchild, &status, 0) != grandchild || !WIFEXITED(status) || WEXITSTATUS(status) != 7) ::_exit(9);
    ::_exit(mine == before + 1 ? 42 : 43);
  }
  REQUIRE(child > 0);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 42);
  CHECK(axioms::detail::fork_epoch() == before);
}
#endif

#if defined(__unix__) || defined(__APPLE__)
namespace {

// Forks, and gives the exit status of the child, which runs @p checks.
int status_of_child(int (*checks)()) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(checks());
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a fork waits for who is inside the gate, and shuts out who comes" * doctest::test_suite("slow")) {
  using axioms::detail::fork_gate;
  std::atomic<int> inside{0};
  std::atomic<bool> second_came{false};
  static std::atomic<bool> first_left, second_in;
  first_left = second_in = false;
  std::thread second, first([&] {
    const fork_gate held;
    inside = 1;
    while (!fork_gate::closing()) std::this_thread::yield();
    second = std::thread([&] {
      second_came = true;
      const fork_gate late;
      second_in = true;
    });
    while (!second_came) std::this_thread::yield();
    first_left = true;
  });
  while (inside == 0) std::this_thread::yield();
  // The child sees what the parent was like when it was made, and finds the gate open.
  const int status = status_of_child([] {
    const bool left = first_left, in = second_in;
    const fork_gate mine;
    return fork_gate::closing() ? 3 : !left ? 1 : in ? 2 : 42;
  });
  CHECK(status == 42);
  CHECK_FALSE(fork_gate::closing());
  first.join();
  second.join();
  CHECK(second_in);
}

TEST_CASE("a fork does not wait for its own thread, which may be inside twice" * doctest::test_suite("slow")) {
  using axioms::detail::fork_gate;
  const fork_gate outer;
  {
    const fork_gate inner;
    CHECK(status_of_child([] { return fork_gate::closing() ? 1 : 42; }) == 42);
  }
  CHECK_FALSE(fork_gate::closing());
  CHECK(status_of_child([] { return 42; }) == 42);
}
#endif

// ---- the manual clock ----------------------------------------------------------------------------

TEST_CASE("the manual clock stands still until it is advanced, and copies are the same clock") {
  const manual_clock clock;
  manual_clock copy = clock;
  const auto begun = clock.now();
  const auto wall = clock.system_now();
  CHECK(clock.now() == begun);
  copy.advance(90s);
  CHECK(clock.now() == begun + 90s);
  CHECK(clock.system_now() == wall + 90s);
  copy.step_wall(-3600s);
  CHECK(clock.now() == begun + 90s);
  CHECK(clock.system_now() == wall + 90s - 3600s);
  CHECK(manual_clock().now() == begun);  // another clock is another
}

TEST_CASE("the manual clock returns at once for what is ready, a past deadline and a stop") {
  manual_clock clock;
  room here;
  std::unique_lock lock(here.mutex);
  CHECK(clock.wait_until(lock, here.changed, {}, real::time_point::max(), [] { return true; }));
  CHECK_FALSE(clock.wait_until(lock, here.changed, {}, clock.now(), [] { return false; }));
  CHECK_FALSE(clock.wait_until(lock, here.changed, {}, clock.now() - 1h, [] { return false; }));
  axioms::stop_source stop;
  stop.request_stop();
  CHECK_FALSE(clock.wait_until(lock, here.changed, stop.get_token(), real::time_point::max(), [] { return false; }));
  CHECK(lock.owns_lock());
  CHECK(clock.arrivals() == 4);
  CHECK(clock.waiting() == 0);
}

TEST_CASE("a thread on the manual clock wakes at its deadline and not a tick before") {
  manual_clock clock;
  room here;
  std::atomic<bool> over{false}, ready{true};
  const auto deadline = clock.now() + 10s;
  std::thread sleeper([&] {
    std::unique_lock lock(here.mutex);
    ready = clock.wait_until(lock, here.changed, {}, deadline, [] { return false; });
    over = true;
  });
  REQUIRE(clock.await_waiting_from(1, deadline));
  clock.advance(10s - 1ns);
  // It was woken and looked: by the time advance() can take its mutex again, it has seen that it is too early.
  clock.advance(0ns);
  CHECK_FALSE(over);
  CHECK(clock.waiting() == 1);
  clock.advance(1ns);
  sleeper.join();
  CHECK_FALSE(ready);
  CHECK(clock.arrivals() == 1);
  CHECK(clock.waiting() == 0);
}

TEST_CASE("no advance is lost between a thread's check and its wait") {
  manual_clock clock;
  room here;
  constexpr int rounds = 30;
  std::atomic<int> done{0};
  std::thread sleeper([&] {
    for (int i = 0; i < rounds; ++i) {
      std::unique_lock lock(here.mutex);
      // The next second, seen from a time that may be over already when the wait begins.
      const auto deadline = clock.now() + 1s;
      static_cast<void>(clock.wait_until(lock, here.changed, {}, deadline, [] { return false; }));
      ++done;
    }
  });
  const auto begun = real::now();
  // One advance for each arrival: if one were lost, the sleeper would wait for ever and no more advance would come.
  for (std::uint64_t i = 1; i <= rounds; ++i) {
    while (clock.arrivals() < i) std::this_thread::yield();
    clock.advance(1s);
    if (real::now() - begun > support::patience) break;
  }
  const bool all = [&] {
    while (done < rounds && real::now() - begun < support::patience) std::this_thread::yield();
    return done == rounds;
  }();
  CHECK(all);
  if (!all) clock.advance(1h * rounds);
  sleeper.join();
}

TEST_CASE("an advance wakes all threads that are due, whatever they wait on") {
  manual_clock clock;
  constexpr int threads = 4;
  std::vector<room> rooms(threads);
  std::atomic<int> woken{0};
  std::vector<std::thread> sleepers;
  const auto from = clock.now();
  for (int i = 0; i < threads; ++i) {
    sleepers.emplace_back([&, i] {
      room& mine = rooms[static_cast<std::size_t>(i)];
      std::unique_lock lock(mine.mutex);
      static_cast<void>(
          clock.wait_until(lock, mine.changed, {}, from + std::chrono::seconds(i + 1), [] { return false; }));
      ++woken;
    });
  }
  REQUIRE(clock.await_waiting(threads));
  clock.advance(2s);
  while (clock.waiting() > 2) std::this_thread::yield();
  CHECK(clock.waiting() == 2);
  clock.advance(2s);
  for (auto& at : sleepers) at.join();
  CHECK(woken == threads);
}

TEST_CASE("timers of the manual clock run once, in order, at their own time") {
  manual_clock clock;
  const auto from = clock.now();
  std::vector<std::pair<int, real::duration>> ran;
  const auto note = [&](int which) { return [&, which] { ran.emplace_back(which, clock.now() - from); }; };
  static_cast<void>(clock.call_at(from + 3s, note(3)));
  static_cast<void>(clock.call_at(from + 1s, note(1)));
  static_cast<void>(clock.call_at(from + 1s, note(2)));  // the same time: in the order of asking
  auto cancelled = clock.call_at(from + 2s, note(99));
  static_cast<void>(clock.call_at(from + 10s, note(10)));
  static_cast<void>(clock.call_at(from - 1s, note(0)));
  CHECK(ran.empty());  // never inside call_at
  CHECK(clock.timers() == 6);
  cancelled.cancel();
  cancelled.cancel();
  clock.advance(5s);
  CHECK(ran == std::vector<std::pair<int, real::duration>>{{0, 0s}, {1, 1s}, {2, 1s}, {3, 3s}});
  CHECK(clock.now() == from + 5s);
  CHECK(clock.timers() == 1);
  clock.advance(5s);
  CHECK(ran.size() == 5);
}

TEST_CASE("a timer that sets another one within an advance is served by it") {
  manual_clock clock;
  const auto from = clock.now();
  int ticks = 0;
  std::function<void()> again = [&] {
    ++ticks;
    static_cast<void>(clock.call_at(clock.now() + 1s, again));
  };
  static_cast<void>(clock.call_at(from + 1s, again));
  clock.advance(10s);
  CHECK(ticks == 10);
  CHECK(clock.timers() == 1);
}
