// A clock without wait_until(): it could be read, but not waited with.
// expect: constraint
// expect: a clock_source owns waiting as well
#include "axioms_jwks.hpp"

struct my_client {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request, axioms::stop_token stop) {
    if (stop.stop_requested()) return axioms::error{axioms::errc::cancelled, "asked to stop"};
    return axioms::fetch_response{404, request.url, {}};
  }
};

struct my_time {
  std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
  std::chrono::system_clock::time_point system_now() { return std::chrono::system_clock::now(); }
};

static_assert(axioms::fetcher<my_client> && !axioms::clock_source<my_time>);
int main() {
  axioms::basic_jwks_manager<my_client, my_time> manager;
  return manager.running() ? 1 : 0;
}
