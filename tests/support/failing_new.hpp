// Makes memory run out on purpose: replaces operator new and delete of a whole program, counts what is allocated, and fails the n-th
// allocation of one thread or of all. Include it in exactly one TU of a program of its own.
//
//   support::failing_new::during(n, [&] { m.get_jwks(url); });         // on this thread
//   support::failing_new::fail_anywhere(n); ...; failing_new::stop();   // on whichever thread comes to it
//
// Not for clang's ThreadSanitizer, whose runtime defines these operators in every executable.
#ifndef AXIOMS_JWKS_TESTS_FAILING_NEW_HPP
#define AXIOMS_JWKS_TESTS_FAILING_NEW_HPP

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace support {

class failing_new {
 public:
  /// Who counts: the thread that asked for it, or all threads together. A failure is one bad_alloc (a null pointer from the nothrow
  /// forms); what is allocated after it succeeds again.
  static void fail_here(std::uint64_t nth) noexcept {
    here().seen = 0;
    here().fails_at = nth;
    here().failed = false;
  }
  static void fail_anywhere(std::uint64_t nth) noexcept {
    everywhere().seen.store(0);
    everywhere().failed.store(false);
    everywhere().fails_at.store(nth);
  }
  /// Nothing fails any more. True: something did since fail_here() (on this thread) or fail_anywhere().
  static bool stop() noexcept {
    here().fails_at = never;
    everywhere().fails_at.store(never);
    const bool failed_here = std::exchange(here().failed, false);
    return everywhere().failed.exchange(false) || failed_here;
  }

  /// Calls f() with the n-th allocation of this thread failing (the first is 0). True: it came to that one.
  template <class F>
  static bool during(std::uint64_t nth, F&& f) {
    struct guard {
      ~guard() { here().fails_at = never; }
    } const restore;
    fail_here(nth);
    std::forward<F>(f)();
    return here().failed;
  }
  /// How many allocations of this thread f() makes.
  template <class F>
  static std::uint64_t count(F&& f) {
    fail_here(never);
    std::forward<F>(f)();
    return here().seen;
  }
  /// Blocks that were allocated and not freed, of all threads.
  static std::int64_t alive() noexcept { return blocks().load(); }
  /// Blocks that this thread allocated, less those that it freed: what other threads do meanwhile does not count.
  static std::int64_t alive_here() noexcept { return here().blocks; }

  // Of the operators below. Not inlined, or g++ 12 takes free() for the wrong partner of operator new.
  [[gnu::noinline]] static void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
    if (falls_due()) return nullptr;
    void* block = nullptr;
    if (bytes == 0) bytes = 1;
    if (alignment <= alignof(std::max_align_t)) {
      block = std::malloc(bytes);
    } else if (::posix_memalign(&block, alignment, bytes) != 0) {
      block = nullptr;
    }
    if (block != nullptr) count_block(1);
    return block;
  }
  [[gnu::noinline]] static void release(void* block) noexcept {
    if (block != nullptr) count_block(-1);
    std::free(block);
  }

 private:
  static constexpr std::uint64_t never = ~std::uint64_t{0};
  struct per_thread {
    std::uint64_t seen = 0, fails_at = never;
    std::int64_t blocks = 0;
    bool failed = false;
  };
  struct shared {
    std::atomic<std::uint64_t> seen{0}, fails_at{never};
    std::atomic<bool> failed{false};
  };
  static per_thread& here() noexcept {
    static thread_local constinit per_thread mine;
    return mine;
  }
  static shared& everywhere() noexcept {
    static constinit shared all;
    return all;
  }
  static std::atomic<std::int64_t>& blocks() noexcept {
    static constinit std::atomic<std::int64_t> count{0};
    return count;
  }
  static void count_block(std::int64_t more) noexcept {
    here().blocks += more;
    blocks().fetch_add(more, std::memory_order_relaxed);
  }
  static bool falls_due() noexcept {
    if (here().seen++ == here().fails_at) return here().failed = true;
    const std::uint64_t nth = everywhere().fails_at.load(std::memory_order_relaxed);
    if (nth == never || everywhere().seen.fetch_add(1) != nth) return false;
    everywhere().failed.store(true);
    return true;
  }
};

[[noreturn]] inline void out_of_memory() {
#if defined(__cpp_exceptions)
  throw std::bad_alloc();
#else
  std::abort();
#endif
}

}  // namespace support

void* operator new(std::size_t bytes) {
  void* const block = support::failing_new::allocate(bytes, 0);
  return block != nullptr ? block : (support::out_of_memory(), nullptr);
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  void* const block = support::failing_new::allocate(bytes, static_cast<std::size_t>(alignment));
  return block != nullptr ? block : (support::out_of_memory(), nullptr);
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return support::failing_new::allocate(bytes, 0);
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return support::failing_new::allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* block) noexcept { support::failing_new::release(block); }
void operator delete(void* block, std::size_t) noexcept { support::failing_new::release(block); }
void operator delete(void* block, std::align_val_t) noexcept { support::failing_new::release(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { support::failing_new::release(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { support::failing_new::release(block); }
void operator delete(void* block, std::align_val_t, const std::nothrow_t&) noexcept {
  support::failing_new::release(block);
}
// The array forms of the standard library call these.

#endif
