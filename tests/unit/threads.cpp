// The threads of the managers: one that cannot be started, and what signals they take.
#include "support/rig.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#endif
#if defined(__linux__)
#include <dlfcn.h>
#endif

#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_event;
using support::config_for, support::eventually, support::rig, support::url;

#if defined(__unix__) || defined(__APPLE__)
namespace {

struct masks {
  std::mutex mutex;  // guards the rest
  std::vector<sigset_t> seen;

  void add() {
    sigset_t mine;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mine);
    const std::lock_guard lock(mutex);
    seen.push_back(mine);
  }
  std::size_t count() {
    const std::lock_guard lock(mutex);
    return seen.size();
  }
};

struct noting_fetcher {
  masks* into;
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request&, axioms::stop_token) const {
    into->add();
    return axioms::error{errc::fetch_failed, "only looked at"};
  }
};

// Its scheduler reads it.
struct noting_clock : support::manual_clock {
  masks* into = nullptr;
  pthread_t test = ::pthread_self();
  std::chrono::steady_clock::time_point now() const {
    if (::pthread_equal(::pthread_self(), test) == 0) into->add();
    return support::manual_clock::now();
  }
};

}  // namespace

TEST_CASE("threads of the managers take no signals of the application's, but those of faults") {
  masks all;
  noting_clock clock;
  clock.into = &all;
  {
    axioms::basic_jwks_manager<noting_fetcher, noting_clock> manager(noting_fetcher{&all}, clock);
    auto config = config_for(url);
    std::atomic<bool> told{false};
    config.on_event = [&](const jwks_event&) {
      all.add();
      told = true;
    };
    REQUIRE(manager.initialize(config).has_value());
    CHECK(eventually([&] { return told.load(); }));
  }
  CHECK(all.count() >= 3);
  for (const sigset_t& mask : all.seen) {
    for (const int each : {SIGUSR1, SIGTERM, SIGINT, SIGCHLD, SIGALRM}) CHECK(sigismember(&mask, each) == 1);
    for (const int each : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) CHECK(sigismember(&mask, each) == 0);
  }
  sigset_t mine;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  CHECK(sigismember(&mine, SIGUSR1) == 0);  // nor is it left blocked here
}
#endif

// ---- a thread that cannot be started ---------------------------------------------------------------

// Sanitizers put their own function in this place.
#if defined(__linux__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define UNIT_KEEP_PTHREAD_CREATE
#endif
#endif
#if !defined(UNIT_KEEP_PTHREAD_CREATE)

namespace {
// How many threads may still be started; negative: as many as one likes.
std::atomic<int> threads_left{-1};
}  // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                              void* argument) noexcept {
  using function = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto real = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left == 0) return EAGAIN;
  if (threads_left > 0) --threads_left;
  return real(thread, attributes, start, argument);
}

TEST_CASE("a thread that cannot be started is no_resources, an outage, and the manager recovers") {
  rig r;
  threads_left = 0;  // not even the scheduler
  CHECK(r.manager.get_jwks(url).error().code == errc::no_resources);
  CHECK(r.manager.initialize(config_for(url)).error().code == errc::no_resources);
  CHECK(r.manager.add(config_for(url)).error().code == errc::no_resources);
  CHECK_FALSE(r.manager.running());
  threads_left = 1;  // the scheduler, but no fetch
  const auto document = r.manager.get_jwks(url);
  REQUIRE_FALSE(document.has_value());
  CHECK(document.error().code == errc::no_resources);
  CHECK(document.error().status_code() == 503);
  threads_left = -1;
  r.clock.advance(10s);
  CHECK(r.manager.get_jwks(url).has_value());

  rig prefetching;
  threads_left = 1;
  CHECK(prefetching.manager.initialize(config_for(url)).has_value());  // a failed prefetch is success
  CHECK(prefetching.manager.running());
  REQUIRE(prefetching.manager.health().last_error.has_value());
  CHECK(prefetching.manager.health().last_error->code == errc::no_resources);
  threads_left = -1;

  rig listening;
  auto config = config_for(url);
  config.on_event = [](const jwks_event&) {};
  threads_left = 1;  // the scheduler, but no listener
  CHECK(listening.manager.initialize(config).error().code == errc::no_resources);
  CHECK_FALSE(listening.manager.running());
  threads_left = -1;
  CHECK(listening.manager.initialize(config).has_value());
}

TEST_CASE("a flight without a thread has asked for nothing: it fails once, and the next one reads the metadata again") {
  rig r;
  axioms::jwks_config config;
  config.issuer = "https://idp.example.com";
  config.discovery = true;
  config.random = [] { return std::uint64_t{0}; };
  const std::string metadata = *config.resolved_url();
  r.provider.always_at(
      metadata,
      support::response(200, R"({"issuer":"https://idp.example.com","jwks_uri":"https://idp.example.com/k"})"));
  r.start(config);
  threads_left = 0;
  axioms::result<void> refused;
  REQUIRE(eventually([&] { return !(refused = r.manager.refresh()); }));  // the prefetch's thread may still be there
  threads_left = -1;
  CHECK(refused.error().code == errc::no_resources);
  CHECK(r.manager.stats().failed == 1);
  const std::size_t before = r.provider.requests();
  REQUIRE(r.manager.refresh().has_value());
  CHECK(r.provider.request(before).url == metadata);
}
#endif
#endif
