// Waiting for another thread without sleeping.
#ifndef AXIOMS_JWKS_TESTS_EVENTUALLY_HPP
#define AXIOMS_JWKS_TESTS_EVENTUALLY_HPP

#include "manual_clock.hpp"

#include <chrono>
#include <thread>

namespace support {

// Sanitizers and valgrind make threads ten times slower; limits in real time are widened by as much. g++ says which one it is by
// a macro, clang by __has_feature.
#if defined(__has_feature)
#define SUPPORT_HAS_FEATURE(name) __has_feature(name)
#else
#define SUPPORT_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_THREAD__) || SUPPORT_HAS_FEATURE(thread_sanitizer)
inline constexpr bool under_tsan = true;
#else
inline constexpr bool under_tsan = false;
#endif
#if defined(__SANITIZE_ADDRESS__) || SUPPORT_HAS_FEATURE(address_sanitizer)
inline constexpr bool under_asan = true;
#else
inline constexpr bool under_asan = false;
#endif
#undef SUPPORT_HAS_FEATURE
inline constexpr int slowness = under_tsan || under_asan ? 10 : 1;

/// True as soon as check() is; false when patience is over.
template <class Check>
bool eventually(Check check) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!check()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace support

#endif
