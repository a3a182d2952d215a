// libevent, by callback: lookups never block the loop, and their answers come on it. Needs libevent with its pthreads part. Run it
// without arguments.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"

#include <event2/event.h>
#include <event2/thread.h>

#include <iostream>
#include <memory>

// [readme]
struct event_executor {  // call evthread_use_pthreads() before the base is made
  event_base* base;
  void post(axioms::executor_task f) {
    const auto run = [](evutil_socket_t, short, void* posted) {
      const std::unique_ptr<axioms::executor_task> task(static_cast<axioms::executor_task*>(posted));
      (*task)();
    };
    const timeval now{};
    event_base_once(base, -1, EV_TIMEOUT, run, new axioms::executor_task(f), &now);
  }
};
// [/readme]

int main() {
  const demo::issuer issuer;
  axioms::httplib_options trust;
  trust.ca_pem = issuer.ca_pem();
  trust.proxy_from_environment = false;  // the issuer is on this machine

  evthread_use_pthreads();
  const std::unique_ptr<event_base, void (*)(event_base*)> base(event_base_new(), event_base_free);
  event_executor on_loop{base.get()};
  axioms::async_jwks_manager manager(trust);
  manager.set_executor(on_loop);  // for all verbs
  const auto here = std::this_thread::get_id();
  int exit_code = 2;
  manager.async_get_jwks(issuer.url(), [&](const axioms::result<axioms::jwks_ptr>& set) {
    std::cout << (set ? "keys: " + std::to_string((*set)->keys().size()) : set.error().description) << '\n';
    exit_code = set && std::this_thread::get_id() == here ? 0 : 1;
    manager.async_shutdown([&] { event_base_loopbreak(base.get()); });
  });
  event_base_loop(base.get(), EVLOOP_NO_EXIT_ON_EMPTY);
  return exit_code;
}
