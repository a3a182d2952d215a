// A clock that tests move by hand. It models clock_source and, for event loops, timer_source.
#ifndef AXIOMS_JWKS_TESTS_MANUAL_CLOCK_HPP
#define AXIOMS_JWKS_TESTS_MANUAL_CLOCK_HPP

#include "axioms_jwks.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/types.h>
#include <unistd.h>
#endif

namespace support {

// A test that hangs must fail instead: no wait of a test double is longer than this, in real time.
inline constexpr std::chrono::seconds patience{60};

/// A handle onto shared state: copies are the same clock. Time stands still until advance().
///
/// A thread that waits here holds a ticket; advance() moves the time and wakes all of them under their own mutexes, so an advance
/// between a thread's check and its wait is never lost.
class manual_clock {
 public:
  using time_point = std::chrono::steady_clock::time_point;
  using system_point = std::chrono::system_clock::time_point;

  manual_clock() : state_(std::make_shared<state>()) {}

  time_point now() const {
    const std::lock_guard lock(state_->mutex);
    return state_->now;
  }
  system_point system_now() const {
    const std::lock_guard lock(state_->mutex);
    return state_->system_now;
  }

  template <class Ready>
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, axioms::stop_token stop,
                  time_point deadline, Ready ready) {
    {
      const ticket mine(*state_, cv, *lock.mutex(), deadline);
      const auto over = [&] { return ready() || now() >= deadline; };
      axioms::wait_until(lock, cv, stop, time_point::max(), over);
      lock.unlock();  // advance() may hold on to the ticket while it takes this mutex
    }
    lock.lock();
    return ready();
  }

  /// Moves monotonic and wall time together, wakes whoever waits, and runs the timers that are due, in order of time.
  void advance(std::chrono::nanoseconds by) {
    const time_point end = now() + by;
    for (;;) {
      std::function<void()> due;
      {
        const std::lock_guard lock(state_->mutex);
        const auto first = state_->timers.begin();
        const bool none = first == state_->timers.end() || first->first.first > end;
        const time_point next = none ? end : std::max(state_->now, first->first.first);
        state_->system_now += std::chrono::duration_cast<std::chrono::system_clock::duration>(next - state_->now);
        state_->now = next;
        if (!none) {
          due = std::move(first->second);
          state_->timers.erase(first);
        }
      }
      if (!due) break;
      due();
    }
    wake_all();
  }
  /// Moves wall time alone: an administrator or NTP sets the clock.
  void step_wall(std::chrono::seconds by) {
    const std::lock_guard lock(state_->mutex);
    state_->system_now += by;
  }

#if defined(__unix__) || defined(__APPLE__)
  /// A child whose manager has this clock: no thread that the child lacks holds its mutex.
  pid_t fork() const {
    const std::lock_guard lock(state_->mutex);
    return ::fork();
  }
#endif

  /// How often a thread has come to wait_until() so far.
  std::uint64_t arrivals() const {
    const std::lock_guard lock(state_->mutex);
    return state_->arrivals;
  }
  /// Blocks until `count` threads wait at the same time; false when patience is over.
  bool await_waiting(std::size_t count) const {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, patience, [&] { return state_->waiting.size() >= count; });
  }
  /// Blocks until `count` threads wait, whose deadlines are all at or after `from`.
  bool await_waiting_from(std::size_t count, time_point from) const {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, patience, [&] {
      std::size_t late = 0;
      for (const ticket* at : state_->waiting) late += at->deadline >= from ? 1U : 0U;
      return late >= count && late == state_->waiting.size();
    });
  }
  std::size_t waiting() const {
    const std::lock_guard lock(state_->mutex);
    return state_->waiting.size();
  }

  // timer_source
  class timer {
   public:
    timer(std::shared_ptr<void> keep, std::function<void()> cancel)
        : keep_(std::move(keep)), cancel_(std::move(cancel)) {}
    void cancel() { cancel_(); }

   private:
    std::shared_ptr<void> keep_;
    std::function<void()> cancel_;
  };
  timer call_at(time_point when, std::function<void()> callback) {
    const std::lock_guard lock(state_->mutex);
    const auto key = std::pair(when, ++state_->timer_number);
    state_->timers.emplace(key, std::move(callback));
    const auto at = state_;
    return {at, [at, key] {
              const std::lock_guard hold(at->mutex);
              at->timers.erase(key);
            }};
  }
  std::size_t timers() const {
    const std::lock_guard lock(state_->mutex);
    return state_->timers.size();
  }

 private:
  struct ticket;
  struct state {
    std::mutex mutex;
    std::condition_variable changed;
    // Not zero: a manager that mixes up "never" with the start of time would pass by luck.
    time_point now{std::chrono::hours(1000)};
    system_point system_now{std::chrono::seconds(1790000000)};
    std::uint64_t arrivals = 0, timer_number = 0;
    std::set<ticket*> waiting;
    std::map<std::pair<time_point, std::uint64_t>, std::function<void()>> timers;
  };
  struct ticket {
    ticket(state& clock, std::condition_variable_any& wake, std::mutex& guard, time_point until)
        : at(clock), cv(wake), mutex(guard), deadline(until) {
      const std::lock_guard lock(at.mutex);
      ++at.arrivals;
      at.waiting.insert(this);
      at.changed.notify_all();
    }
    ~ticket() {
      std::unique_lock lock(at.mutex);
      at.changed.wait(lock, [&] { return users == 0; });  // advance() is about to wake us
      at.waiting.erase(this);
      at.changed.notify_all();
    }
    ticket(const ticket&) = delete;
    ticket& operator=(const ticket&) = delete;
    state& at;
    std::condition_variable_any& cv;
    std::mutex& mutex;
    time_point deadline;
    int users = 0;
  };

  void wake_all() {
    std::vector<ticket*> all;
    {
      const std::lock_guard lock(state_->mutex);
      all.assign(state_->waiting.begin(), state_->waiting.end());
      for (ticket* at : all) ++at->users;
    }
    for (ticket* at : all) {
      { const std::lock_guard lock(at->mutex); }  // whoever has checked the time is waiting now
      at->cv.notify_all();
    }
    {
      const std::lock_guard lock(state_->mutex);
      for (ticket* at : all) --at->users;
    }
    state_->changed.notify_all();
  }

  std::shared_ptr<state> state_;
};

static_assert(axioms::clock_source<manual_clock>);
static_assert(axioms::timer_source<manual_clock>);

}  // namespace support

#endif
