// A fetcher that returns the response itself, where a result is asked for.
// expect: constraint
// expect: a fetcher is called so, and returns that result
#include "axioms_jwks.hpp"

struct my_client {
  axioms::fetch_response operator()(const axioms::fetch_request& request, axioms::stop_token) {
    return axioms::fetch_response{404, request.url, {}};
  }
};

struct my_time {
  std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
  std::chrono::system_clock::time_point system_now() { return std::chrono::system_clock::now(); }
  template <class Ready>
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, axioms::stop_token stop,
                  std::chrono::steady_clock::time_point deadline, Ready ready) {
    return axioms::wait_until(lock, cv, stop, deadline, ready);
  }
};

static_assert(!axioms::fetcher<my_client> && axioms::clock_source<my_time>);
int main() {
  axioms::basic_jwks_manager<my_client, my_time> manager;
  return manager.running() ? 1 : 0;
}
