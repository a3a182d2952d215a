// The least that tests need to run coroutines: a detached task, and an executor whose loop they turn by hand.
#ifndef AXIOMS_JWKS_TESTS_COROUTINE_HPP
#define AXIOMS_JWKS_TESTS_COROUTINE_HPP

#include "axioms_jwks.hpp"
#include "manual_clock.hpp"

#include <condition_variable>
#include <coroutine>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>

namespace support {

/// A coroutine that starts at once and belongs to nobody.
struct detached {
  struct promise_type {
    detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::abort(); }
  };
};

/// A coroutine that starts at once, whose frame is destroyed with its owner.
class owned {
 public:
  struct promise_type {
    owned get_return_object() noexcept { return owned(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::abort(); }
  };
  owned(owned&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  owned& operator=(owned&&) = delete;
  ~owned() {
    if (frame_) frame_.destroy();
  }
  bool done() const { return frame_.done(); }

 private:
  explicit owned(std::coroutine_handle<promise_type> frame) noexcept : frame_(frame) {}
  std::coroutine_handle<promise_type> frame_;
};

/// Keeps what is posted until run() or run_one() is called, on the thread that calls it.
class manual_loop {
 public:
  void post(axioms::executor_task task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(task);
    ++posted_;
    changed_.notify_all();
  }
  /// Runs what is there; how many that was.
  std::size_t run() {
    std::size_t count = 0;
    while (run_one()) ++count;
    return count;
  }
  bool run_one() {
    std::unique_lock lock(mutex_);
    if (tasks_.empty()) return false;
    const axioms::executor_task task = tasks_.front();
    tasks_.pop_front();
    lock.unlock();
    task();
    return true;
  }
  /// Blocks until something waits to be run; false when patience is over.
  bool await_task() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return !tasks_.empty(); });
  }
  std::size_t posted() const {
    const std::lock_guard lock(mutex_);
    return posted_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<axioms::executor_task> tasks_;
  std::size_t posted_ = 0;
};

}  // namespace support

#endif
