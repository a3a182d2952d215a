// What a hit costs: a cached key set or key in each form of asking, beside a literal port of the Python original.
//
//   hit                        interleaved rounds at 1 and 2 threads; prints the median ns per call and the throughput of 2 threads
//   hit --smoke                a moment of it, and only what must hold on any machine: a warm hit allocates nothing and fetches nothing
//   hit --callgrind FORM N     N warm hits with a clock that costs nothing, for the script `instructions`; FORM: get_jwks, get_key
//
// ns per call are wall time over the calls of all threads together. A round counts if its threads ran all the time, and two at the same
// time: otherwise another program had a core. The port's threads wait for each other, so less is asked of them. Build with -O2.
#include "axioms_jwks.hpp"
#include "support/fake_fetcher.hpp"
#include "vectors/keys.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iterator>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

// ---- allocations are counted ---------------------------------------------------------------------

namespace {
thread_local constinit std::uint64_t allocations = 0;

void* counted(std::size_t size, std::size_t alignment) {
  ++allocations;
  void* memory = alignment <= alignof(std::max_align_t)
                     ? std::malloc(size == 0 ? 1 : size)
                     : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

void* operator new(std::size_t size) { return counted(size, 1); }
void* operator new[](std::size_t size) { return counted(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

constexpr std::string_view url = "https://idp1.example.com/.well-known/jwks.json";
static_assert(url.size() == 46);

// Three keys, with as much beside them as providers send, 2 KB in all.
std::string body() {
  const auto member = [](std::string_view jwk, std::string_view kid) {
    return std::string(jwk.substr(0, jwk.size() - 1)) + R"(,"use":"sig","kid":")" + std::string(kid) + "\"";
  };
  std::string out = R"({"keys":[)" + member(vectors::rsa_jwk, "2026-01") + "}," +
                    member(vectors::rsa_e3_jwk, "2026-02") + "}," + member(vectors::p256_jwk, "2026-03") +
                    R"(,"x5c":[")";
  return out + std::string(2048 - out.size() - 5, 'M') + "\"]}]}";
}

// Time stands still and costs next to nothing, so that callgrind sees the library alone.
struct fixed_clock {
  std::chrono::steady_clock::time_point now() const noexcept {
    return std::chrono::steady_clock::time_point(std::chrono::hours(1000));
  }
  std::chrono::system_clock::time_point system_now() const noexcept {
    return std::chrono::system_clock::time_point(std::chrono::hours(490000));
  }
  template <class Ready>
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, axioms::stop_token stop,
                  std::chrono::steady_clock::time_point deadline, Ready ready) const {
    if (deadline <= now()) return ready();
    return axioms::wait_until(lock, cv, std::move(stop), std::chrono::steady_clock::time_point::max(), ready);
  }
};

// What the Python original does on a hit, line by line: a recursive lock, a dictionary, the wall clock, and the bytes handed out
// by value.
class literal_port {
 public:
  void put(const std::string& where, std::string data) {
    const std::lock_guard lock(mutex_);
    cache_[where] = {std::move(data), static_cast<double>(std::time(nullptr))};
  }
  std::string get(const std::string& where) {
    const std::lock_guard lock(mutex_);
    const auto found = cache_.find(where);
    if (found != cache_.end()) {
      const auto& [data, timestamp] = found->second;
      const double age = static_cast<double>(std::time(nullptr)) - timestamp;
      if (age < ttl_) return data;
    }
    return {};
  }

 private:
  std::recursive_mutex mutex_;
  std::unordered_map<std::string, std::pair<std::string, double>> cache_;
  double ttl_ = 7200;
};

template <class T>
void keep(const T& value) {
#if defined(__GNUC__)
  asm volatile("" : : "g"(&value) : "memory");
#else
  static volatile const void* sink;
  sink = &value;
#endif
}

template <class Clock>
using manager_of = axioms::basic_jwks_manager<support::fake_fetcher, Clock>;

struct provider {
  provider() { fetch.always(support::response(200, body())); }
  support::fake_fetcher fetch;
};

// As a fetcher only, and as an async_fetcher only.
struct provider_thread {
  support::fake_fetcher fetch;
  support::reply operator()(const axioms::fetch_request& request, const axioms::stop_token& stop) {
    return fetch(request, stop);
  }
};
struct provider_loop {
  support::fake_fetcher fetch;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    fetch.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};

template <class Manager>
void start(Manager& manager) {
  axioms::jwks_config config;
  config.jwks_url = url;
  if (!manager.initialize(std::move(config)) || !manager.peek(url)) {
    std::fprintf(stderr, "the manager did not start\n");
    std::exit(1);
  }
}

// Each loop is a function of its own: within main() it would be compiled as what runs once.
template <class Manager>
[[gnu::noinline]] void hits(const Manager& manager, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto document = manager.get_jwks(url);
    if (!document) std::abort();
    keep(*document);
  }
}
template <class Manager>
void default_hits(const Manager& manager, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto document = manager.get_jwks();
    if (!document) std::abort();
    keep(*document);
  }
}
template <class Manager>
[[gnu::noinline]] void key_hits(const Manager& manager, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto key = manager.get_key(url, {.kid = "2026-03", .alg = "ES256"});
    if (!key) std::abort();
    keep(*key);
  }
}
void port_hits(literal_port& port, const std::string& where, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::string data = port.get(where);
    if (data.empty()) std::abort();
    keep(data);
  }
}

// ns per call, over all threads together. Each thread is warm when the clock starts. cores: how many really ran at a time.
struct timing {
  double ns, cores;
};
timing timed(unsigned threads, std::uint64_t count, const std::function<void(std::uint64_t)>& work) {
  std::atomic<unsigned> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> all;
  for (unsigned i = 0; i < threads; ++i) {
    all.emplace_back([&] {
      work(100);
      ++ready;
      while (!go) std::this_thread::yield();
      work(count);
    });
  }
  while (ready < threads) std::this_thread::yield();
  const auto begun = std::chrono::steady_clock::now();
  const std::clock_t cpu = std::clock();
  go = true;
  for (auto& at : all) at.join();
  const double took = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begun).count();
  const double busy = static_cast<double>(std::clock() - cpu) * (1e9 / CLOCKS_PER_SEC);
  return {took / (static_cast<double>(count) * threads), busy / took};
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

int failures = 0;
void check(bool holds, const char* rule, std::uint64_t found) {
  std::printf("%s: %s (%llu)\n", holds ? "ok" : "BROKEN", rule, static_cast<unsigned long long>(found));
  if (!holds) ++failures;
}

// What must hold on any machine, however slow.
template <class Manager>
void check_invariants(const Manager& manager, const provider& idp, literal_port& port, const std::string& where) {
  constexpr std::uint64_t count = 10000;
  const auto counted = [](auto&& work) {
    work();  // warm
    const std::uint64_t before = allocations;
    work();
    return allocations - before;
  };
  const auto of_port = counted([&] { port_hits(port, where, 100); });
  check(of_port >= 100, "the counter sees the port's copies", of_port);
  const auto of_hits = counted([&] { hits(manager, count); });
  check(of_hits == 0, "a warm get_jwks(url) allocates nothing", of_hits);
  const auto of_default = counted([&] { default_hits(manager, count); });
  check(of_default == 0, "a warm get_jwks() allocates nothing", of_default);
  const auto of_keys = counted([&] { key_hits(manager, count); });
  check(of_keys == 0, "a warm get_key() allocates nothing", of_keys);

  std::uint64_t elsewhere = 1;
  const void* bytes = nullptr;
  std::thread other([&] {
    elsewhere = counted([&] { hits(manager, count); });
    bytes = (*manager.get_jwks(url))->body().data();
  });
  other.join();
  check(elsewhere == 0, "a warm hit on another thread allocates nothing", elsewhere);
  check(bytes == (*manager.get_jwks(url))->body().data(), "all threads see the same bytes", 0);
  check((*manager.get_jwks(url))->body() == body(), "the bytes are those that were fetched", body().size());
  check((*manager.get_jwks(url))->keys().size() == 3, "the set has its keys", (*manager.get_jwks(url))->keys().size());
  check(idp.fetch.requests() == 1, "no hit fetches", idp.fetch.requests());
  const auto stats = manager.stats();
  check(stats.hits >= 8 * count, "every hit is counted", stats.hits);
  check(stats.misses <= 1, "no hit is counted as a miss", stats.misses);
}

// ---- the async manager ---------------------------------------------------------------------------

struct counted_task {
  struct promise_type {
    counted_task get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::abort(); }
  };
};

// Awaits what it is given, and counts how often that suspends.
template <class Awaiter>
struct counted_awaiter {
  Awaiter inner;
  std::uint64_t& suspensions;
  bool await_ready() { return inner.await_ready(); }
  bool await_suspend(std::coroutine_handle<> frame) {
    ++suspensions;
    return inner.await_suspend(frame);
  }
  decltype(auto) await_resume() { return inner.await_resume(); }
};
template <class Operation>
auto counting(Operation&& operation, std::uint64_t& suspensions) {
  return counted_awaiter<typename std::remove_cvref_t<Operation>::awaiter>{operation.operator co_await(), suspensions};
}

struct tally {
  std::uint64_t good = 0, suspensions = 0, allocated = 0;
};

template <class Manager>
counted_task awaited_hits(const Manager& manager, std::uint64_t count, tally& of) {
  const std::uint64_t before = allocations;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto document = co_await counting(manager.get_jwks(url), of.suspensions);
    const auto configured = co_await counting(manager.get_jwks(), of.suspensions);
    const auto key = co_await counting(manager.get_key(url, {.kid = "2026-03", .alg = "ES256"}), of.suspensions);
    of.good += document && configured && key ? 3U : 0U;
  }
  of.allocated = allocations - before;
}
template <class Manager>
void called_hits(const Manager& manager, std::uint64_t count, tally& of) {
  const std::uint64_t before = allocations;
  const auto take = [&of](const auto& answer) { of.good += answer ? 1U : 0U; };
  for (std::uint64_t i = 0; i < count; ++i) {
    manager.async_get_jwks(url, take);
    manager.async_get_jwks(take);
    manager.async_get_key(url, {.kid = "2026-03", .alg = "ES256"}, take);
  }
  of.allocated = allocations - before;
}

// By a thread that has only ever asked by coroutine, and by one that has only ever asked by callback: each becomes warm by itself.
template <class Manager>
void check_async(const Manager& manager, const char* by_coroutine, const char* by_callback) {
  constexpr std::uint64_t count = 1000;
  tally cold, awaited, called;
  std::thread([&] {
    awaited_hits(manager, 2, cold);
    awaited_hits(manager, count, awaited);
  }).join();
  std::thread([&] {
    called_hits(manager, 2, cold);
    called_hits(manager, count, called);
  }).join();
  check(awaited.good == 3 * count && called.good == 3 * count, "every one of them is answered",
        awaited.good + called.good);
  check(awaited.allocated == 0, by_coroutine, awaited.allocated);
  check(awaited.suspensions == 0, "and suspends nothing", awaited.suspensions);
  check(called.allocated == 0, by_callback, called.allocated);
}

using async_on_threads = axioms::basic_async_jwks_manager<provider_thread, axioms::steady_clock>;
void start(async_on_threads& manager) {
  axioms::jwks_config config;
  config.jwks_url = url;
  manager.async_initialize(config, [](const axioms::result<void>&) {});
  while (!manager.peek()) std::this_thread::yield();
}
void callback_hits(const async_on_threads& manager, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    manager.async_get_jwks(url, [](const axioms::result<axioms::jwks_ptr>& document) {
      if (!document) std::abort();
      keep(*document);
    });
  }
}
counted_task coroutine_hits(const async_on_threads& manager, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto document = co_await manager.get_jwks(url);
    if (!document) std::abort();
    keep(*document);
  }
}

void check_async_managers(const provider& idp) {
  axioms::jwks_config config;
  config.jwks_url = url;
  const auto started = [](const axioms::result<void>&) {};
  async_on_threads on_threads{provider_thread{idp.fetch}};
  start(on_threads);
  check_async(on_threads, "an awaited hit allocates nothing, on threads",
              "a hit by callback allocates nothing, on threads");
  axioms::basic_async_jwks_manager<provider_loop, support::manual_clock> on_loop{provider_loop{idp.fetch}};
  on_loop.async_initialize(config, started);
  check_async(on_loop, "an awaited hit allocates nothing, on a loop", "a hit by callback allocates nothing, on a loop");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  const provider idp;
  if (mode == "--callgrind" && argc > 3) {
    const std::uint64_t count = std::strtoull(argv[3], nullptr, 10);
    manager_of<fixed_clock> manager{idp.fetch, fixed_clock()};
    start(manager);
    for (const std::uint64_t each : {std::uint64_t{1000}, count}) {
      if (std::string_view(argv[2]) == "get_key") {
        key_hits(manager, each);
      } else {
        hits(manager, each);
      }
    }
    return 0;
  }
  const bool smoke = mode == "--smoke";
  if (!mode.empty() && !smoke) {
    std::fprintf(stderr, "usage: %s [--smoke | --callgrind FORM N]\n", argv[0]);
    return 2;
  }

  manager_of<axioms::steady_clock> manager{idp.fetch, axioms::steady_clock()};
  start(manager);
  literal_port port;
  const std::string where(url);
  port.put(where, body());
  check_invariants(manager, idp, port, where);
  check_async_managers(provider());
  if (smoke || failures > 0) return failures == 0 ? 0 : 1;

  async_on_threads by_loop{provider_thread{provider().fetch}};
  start(by_loop);
  struct contestant {
    const char* name;
    std::function<void(std::uint64_t)> work;
    std::vector<double> one{}, two{}, gain{};
  };
  contestant all[] = {
      {"literal port (recursive_mutex, unordered_map, copy, time())", [&](auto n) { port_hits(port, where, n); }},
      {"get_jwks(url)", [&](auto n) { hits(manager, n); }},
      {"get_key(url, kid and alg)", [&](auto n) { key_hits(manager, n); }},
      {"async_get_jwks(url, callback)", [&](auto n) { callback_hits(by_loop, n); }},
      {"co_await get_jwks(url)", [&](auto n) { coroutine_hits(by_loop, n); }},
  };
  constexpr std::size_t enough = 15, most = 150;
  constexpr std::uint64_t count = 500000;
  for (std::size_t round = 0; round < most; ++round) {
    bool done = true;
    for (auto& at : all) {
      if (at.gain.size() >= enough) continue;
      done = false;
      const timing one = timed(1, count, at.work), two = timed(2, count, at.work);
      if (one.cores < 0.97 || two.cores < (&at == all ? 1.4 : 1.9)) continue;
      at.one.push_back(one.ns);
      at.two.push_back(two.ns);
      at.gain.push_back(one.ns / two.ns);
    }
    if (done) break;
  }
  std::printf("\n%-60s %9s %9s %9s %9s %10s %7s\n", "median of the rounds that count, ns per call", "1 thread",
              "port / it", "2 threads", "port / it", "throughput", "rounds");
  for (const auto& at : all) {
    if (at.gain.empty() || all[0].gain.empty()) {
      std::printf("%-60s no round in which the threads ran at the same time\n", at.name);
      continue;
    }
    const double one = median(at.one), two = median(at.two);
    std::printf("%-60s %9.1f %8.1fx %9.1f %8.1fx %9.2fx %7zu\n", at.name, one, median(all[0].one) / one, two,
                median(all[0].two) / two, median(at.gain), at.gain.size());
  }
  return 0;
}
