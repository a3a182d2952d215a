// A loop with Drogon's interface, queueInLoop(std::function<void()>), in a thread of its own: a request's handler looks a key up by
// callback, and answers on the loop that its connection belongs to. Run it without arguments.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <iostream>
#include <mutex>

// What trantor::EventLoop has, as far as it is needed here.
class EventLoop {
 public:
  EventLoop() : thread_([this] { run(); }) {}
  ~EventLoop() {
    queueInLoop([this] { over_ = true; });
    thread_.join();
  }
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  bool isInLoopThread() const { return std::this_thread::get_id() == thread_.get_id(); }
  void queueInLoop(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    changed_.notify_one();
  }

 private:
  void run() {
    while (!over_) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !tasks_.empty(); });
      const std::deque<std::function<void()>> now = std::exchange(tasks_, {});
      lock.unlock();
      for (const auto& task : now) task();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool over_ = false;
  std::thread thread_;  // last: it uses the others
};

// [readme]
struct drogon_executor {
  EventLoop* loop;  // trantor::EventLoop
  void post(axioms::executor_task f) { loop->queueInLoop(f); }
};

void handle(axioms::async_jwks_manager& manager, std::string kid, drogon_executor& connection,
            std::function<void(int status)> reply) {
  manager.async_get_key({.kid = kid}, [reply](const auto& key) { reply(key ? 200 : key.error().status_code()); },
                        {.executor = connection});
}
// [/readme]

int main() {
  const demo::issuer issuer;
  axioms::httplib_options trust;
  trust.ca_pem = issuer.ca_pem();
  trust.proxy_from_environment = false;  // the issuer is on this machine
  axioms::jwks_config config;
  config.jwks_url = issuer.url();
  config.prefetch = false;

  EventLoop loop;
  drogon_executor connection{&loop};
  axioms::async_jwks_manager manager(trust);
  std::promise<int> good, unknown;
  bool on_loop = true;
  const auto into = [&](std::promise<int>& to) {
    return [&to, &loop, &on_loop](int status) {
      on_loop = on_loop && loop.isInLoopThread();
      to.set_value(status);
    };
  };
  manager.async_initialize(config, [](const axioms::result<void>&) {});
  handle(manager, "2026-01", connection, into(good));  // a miss
  handle(manager, "made-up", connection, into(unknown));
  const int first = good.get_future().get(), second = unknown.get_future().get();
  std::cout << "a known kid: " << first << ", an unknown one: " << second
            << (on_loop ? ", on the loop\n" : ", elsewhere\n");
  return first == 200 && second == 401 && on_loop ? 0 : 1;
}
