// An event loop's time whose timers cannot be cancelled.
// expect: constraint
// expect: a timer_source calls back, and returns a handle with cancel()
#include "axioms_jwks.hpp"

struct my_loop {
  std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
  std::chrono::system_clock::time_point system_now() { return std::chrono::system_clock::now(); }
  void call_at(std::chrono::steady_clock::time_point, std::function<void()>) {}
};

template <axioms::timer_source Timer>
void start(Timer) {}

int main() { start(my_loop()); }
