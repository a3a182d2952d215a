// Your own event loop: says where continuations run. The manager's awaitables can be awaited by any coroutine type that
// takes foreign awaitables (libcoro, cppcoro, stdexec, Drogon, or the ten lines below); only Asio's own `awaitable`
// wants the adapter of support/asio_verbs.hpp. The loop here is one of std::function, as many programs have. Run it without arguments.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"

#include <condition_variable>
#include <functional>
#include <iostream>
#include <mutex>
#include <queue>

class event_loop {
 public:
  void post(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push(std::move(task));
    changed_.notify_one();
  }
  void run() {
    for (stopped_ = false; !stopped_;) next()();
  }
  void stop() { stopped_ = true; }  // on the loop

 private:
  std::function<void()> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !tasks_.empty(); });
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop();
    return task;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::queue<std::function<void()>> tasks_;
  bool stopped_ = false;
};

// A coroutine that starts at once and belongs to nobody.
struct task {
  struct promise_type {
    task get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

// [readme]
struct loop_executor {
  event_loop& loop;
  void post(axioms::executor_task f) { loop.post(f); }
};

task show_keys(axioms::async_jwks_manager& manager, std::string url, loop_executor& on_loop, int& exit_code) {
  // Suspends on a miss, and goes on in the loop's thread.
  const auto set = co_await manager.get_jwks(url, {.executor = on_loop});
  std::cout << (set ? "keys: " + std::to_string((*set)->keys().size()) : set.error().description) << '\n';
  exit_code = set ? 0 : 1;
  co_await manager.shutdown({.executor = on_loop});
  on_loop.loop.stop();
}
// [/readme]

int main() {
  const demo::issuer issuer;
  axioms::httplib_options trust;
  trust.ca_pem = issuer.ca_pem();
  trust.proxy_from_environment = false;  // the issuer is on this machine

  event_loop loop;
  loop_executor on_loop{loop};
  axioms::async_jwks_manager manager(trust);
  int exit_code = 2;
  show_keys(manager, issuer.url(), on_loop, exit_code);
  loop.run();
  return exit_code;
}
