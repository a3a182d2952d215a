// libuv, by callback: lookups never block the loop, and their answers come on it. Needs libuv. Run it without arguments.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"

#include <uv.h>

#include <iostream>
#include <mutex>
#include <vector>

class uv_executor {  // close() it on the loop; uv_run() returns then
 public:
  explicit uv_executor(uv_loop_t* loop) {
    uv_async_init(loop, &wake_, [](uv_async_t* self) { static_cast<uv_executor*>(self->data)->run(); });
    wake_.data = this;
  }
  void post(axioms::executor_task f) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(f);
    uv_async_send(&wake_);
  }
  void close() { uv_close(reinterpret_cast<uv_handle_t*>(&wake_), nullptr); }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    const auto now = std::exchange(tasks_, {});
    lock.unlock();
    for (const auto& task : now) task();
  }
  uv_async_t wake_;
  std::mutex mutex_;
  std::vector<axioms::executor_task> tasks_;
};

int main() {
  const demo::issuer issuer;
  axioms::httplib_options trust;
  trust.ca_pem = issuer.ca_pem();
  trust.proxy_from_environment = false;  // the issuer is on this machine

  uv_loop_t loop;
  uv_loop_init(&loop);
  uv_executor on_loop(&loop);
  axioms::async_jwks_manager manager(trust);
  manager.set_executor(on_loop);  // for all verbs
  const auto here = std::this_thread::get_id();
  int exit_code = 2;
  manager.async_get_jwks(issuer.url(), [&](const axioms::result<axioms::jwks_ptr>& set) {
    std::cout << (set ? "keys: " + std::to_string((*set)->keys().size()) : set.error().description) << '\n';
    exit_code = set && std::this_thread::get_id() == here ? 0 : 1;
    manager.async_shutdown([&] { on_loop.close(); });
  });
  uv_run(&loop, UV_RUN_DEFAULT);
  uv_loop_close(&loop);
  return exit_code;
}
