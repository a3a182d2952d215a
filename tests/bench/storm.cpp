// What a lookup costs while its document is replaced every millisecond: 2 readers, beside the same readers with nothing going on.
//
//   storm           7 rounds, idle and storm by turns; prints the median ns per lookup and the ratio
//   storm --check   the same, and fails if the ratio is above 1.5
//   storm --smoke   one short round, and only what must hold on any machine: every lookup is answered by a published document
//
// The ratio is that of the readers' own CPU time. Two readers, the publisher and the manager's threads share the cores: on two of
// them the wall time of a reader holds what the others took away from it as well, which is not the lookup's cost. It is printed
// beside. Build with -O2.
#include "axioms_jwks.hpp"
#include "support/fake_fetcher.hpp"
#include "vectors/keys.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using clock_type = std::chrono::steady_clock;
constexpr std::string_view url = "https://idp1.example.com/.well-known/jwks.json";
constexpr unsigned readers = 2;
constexpr int rounds = 7;
constexpr double limit = 1.5;

// Three keys, 2 KB in all, as in hit.cpp; the number makes it another document.
std::string body(std::uint64_t number) {
  const auto member = [](std::string_view jwk, std::string_view kid) {
    return std::string(jwk.substr(0, jwk.size() - 1)) + R"(,"use":"sig","kid":")" + std::string(kid) + "\"";
  };
  std::string out = R"({"number":)" + std::to_string(number) + R"(,"keys":[)" + member(vectors::rsa_jwk, "2026-01") +
                    "}," + member(vectors::rsa_e3_jwk, "2026-02") + "}," + member(vectors::p256_jwk, "2026-03") +
                    R"(,"x5c":[")";
  return out + std::string(2048 - out.size() - 5, 'M') + "\"]}]}";
}

// The CPU time of the calling thread, in ns.
double own_cpu() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  std::timespec now{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0)
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
#endif
  std::fprintf(stderr, "this system does not tell the CPU time of a thread\n");
  std::exit(2);
}

template <class T>
void keep(const T& value) {
#if defined(__GNUC__)
  asm volatile("" : : "g"(&value) : "memory");
#else
  static volatile const void* sink;
  sink = &value;
#endif
}

using manager_type = axioms::basic_jwks_manager<support::fake_fetcher, axioms::steady_clock>;

void look_up(const manager_type& manager) {
  const auto document = manager.get_jwks(url);
  if (!document) {
    std::fprintf(stderr, "a lookup failed: %s\n", document.error().description.c_str());
    std::exit(1);
  }
  keep(*document);
}
void look_up_key(const manager_type& manager) {
  const auto key = manager.get_key(url, {.kid = "2026-03", .alg = "ES256"});
  if (!key) {
    std::fprintf(stderr, "a lookup failed: %s\n", key.error().description.c_str());
    std::exit(1);
  }
  keep(*key);
}

// Replaces the document every millisecond; when it comes late it makes up for it.
class publisher {
 public:
  publisher(manager_type& manager, const support::fake_fetcher& provider) : manager_(manager), provider_(provider) {}

  void run(const std::atomic<bool>& over) {
    auto next = clock_type::now();
    while (!over) {
      provider_.always(support::response(200, body(++number_)));
      if (!manager_.refresh(url)) {
        std::fprintf(stderr, "a refresh failed\n");
        std::exit(1);
      }
      next += std::chrono::milliseconds(1);
      std::this_thread::sleep_until(next);
    }
  }
  std::uint64_t published() const { return number_; }

 private:
  manager_type& manager_;
  const support::fake_fetcher& provider_;
  std::uint64_t number_ = 0;
};

struct measured {
  double cpu = 0, wall = 0;  // ns per lookup of one reader
  double per_ms = 0;         // publications
};

// One stretch of time with all readers; with a publisher, or without.
template <class Lookup>
measured measure(manager_type& manager, publisher* storm, std::chrono::milliseconds length, Lookup lookup) {
  std::atomic<unsigned> ready{0};
  std::atomic<bool> go{false}, over{false};
  struct sum {
    double cpu = 0, wall = 0;
    std::uint64_t count = 0;
  };
  std::vector<sum> sums(readers);
  std::vector<std::thread> all;
  for (unsigned i = 0; i < readers; ++i) {
    all.emplace_back([&, i] {
      sum mine;
      lookup(manager);  // warm
      ++ready;
      while (!go) std::this_thread::yield();
      const auto begun = clock_type::now();
      const double cpu = own_cpu();
      while (!over) {
        for (int n = 0; n < 256; ++n) lookup(manager);
        mine.count += 256;
      }
      mine.cpu = own_cpu() - cpu;
      mine.wall = std::chrono::duration<double, std::nano>(clock_type::now() - begun).count();
      sums[i] = mine;
    });
  }
  while (ready < readers) std::this_thread::yield();
  const std::uint64_t before = storm != nullptr ? storm->published() : 0;
  const auto begun = clock_type::now();
  go = true;
  std::thread publishing;
  if (storm != nullptr) publishing = std::thread([&] { storm->run(over); });
  std::this_thread::sleep_for(length);
  over = true;
  for (auto& at : all) at.join();
  if (publishing.joinable()) publishing.join();
  const double took = std::chrono::duration<double, std::milli>(clock_type::now() - begun).count();

  measured out;
  double count = 0;
  for (const sum& each : sums) {
    out.cpu += each.cpu;
    out.wall += each.wall;
    count += static_cast<double>(each.count);
  }
  out.cpu /= count;
  out.wall /= count;
  if (storm != nullptr) out.per_ms = static_cast<double>(storm->published() - before) / took;
  return out;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// Prints what one kind of lookup costs; the ratio of the medians of CPU time.
struct verdict {
  double ratio = 0, per_ms = 0;
};
template <class Lookup>
verdict contest(const char* name, manager_type& manager, publisher& storm, Lookup lookup) {
  std::vector<double> cpu[2], wall[2], pace;
  for (int round = 0; round < rounds; ++round) {
    for (const bool stormy : {false, true}) {
      const measured one = measure(manager, stormy ? &storm : nullptr, std::chrono::milliseconds(400), lookup);
      cpu[stormy ? 1 : 0].push_back(one.cpu);
      wall[stormy ? 1 : 0].push_back(one.wall);
      if (stormy) pace.push_back(one.per_ms);
    }
  }
  const verdict out{median(cpu[1]) / median(cpu[0]), median(pace)};
  std::printf("%-28s %9.1f %9.1f %7.2fx %11.1f %9.1f %7.2fx %13.2f\n", name, median(cpu[0]), median(cpu[1]), out.ratio,
              median(wall[0]), median(wall[1]), median(wall[1]) / median(wall[0]), out.per_ms);
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  const bool smoke = mode == "--smoke", check = mode == "--check";
  if (!mode.empty() && !smoke && !check) {
    std::fprintf(stderr, "usage: %s [--smoke | --check]\n", argv[0]);
    return 2;
  }

  const support::fake_fetcher provider;
  provider.always(support::response(200, body(0)));
  manager_type manager{provider, axioms::steady_clock()};
  axioms::jwks_config config;
  config.jwks_url = url;
  if (!manager.initialize(std::move(config)) || !manager.peek(url)) {
    std::fprintf(stderr, "the manager did not start\n");
    return 1;
  }
  publisher storm(manager, provider);

  if (smoke) {
    static_cast<void>(measure(manager, &storm, std::chrono::milliseconds(50), look_up));
    static_cast<void>(measure(manager, &storm, std::chrono::milliseconds(50), look_up_key));
    const auto last = manager.get_jwks(url);
    const bool newest = last && storm.published() > 0 && (*last)->body() == body(storm.published());
    std::printf("%s: after %llu publications a lookup gets the last one\n", newest ? "ok" : "BROKEN",
                static_cast<unsigned long long>(storm.published()));
    const auto stats = manager.stats();
    const bool counted = stats.fetched == storm.published() + 1 && stats.misses <= 1 && stats.stale_served == 0;
    std::printf("%s: no lookup had to wait\n", counted ? "ok" : "BROKEN");
    return newest && counted ? 0 : 1;
  }

  std::printf("%-28s %29s %29s\n", "2 readers, median of 7", "own CPU time, ns per lookup", "wall time, ns per lookup");
  std::printf("%-28s %9s %9s %8s %11s %9s %8s %13s\n", "", "idle", "storm", "ratio", "idle", "storm", "ratio",
              "publications");
  const verdict found[] = {contest("get_jwks(url)", manager, storm, look_up),
                           contest("get_key(url, kid and alg)", manager, storm, look_up_key)};
  std::printf("The ratio that counts is the one of CPU time, the limit is %.1f; publications are per ms.\n", limit);
  int status = 0;
  for (const verdict& each : found) {
    if (each.per_ms < 0.8) {
      std::printf("The publisher did not get to publish every millisecond: that figure says nothing here.\n");
    } else if (check && each.ratio > limit) {
      std::printf("BROKEN: a lookup costs %.2f times as much during the storm\n", each.ratio);
      status = 1;
    }
  }
  return status;
}
