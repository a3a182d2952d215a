// What a provider that hangs costs a service whose callers send made-up kids: 16 request threads, every other request with a kid that
// nobody published.
//
//   hanging           8 s with a provider that answers, 8 s with one that hangs; prints how many good requests were served, and the ratio
//   hanging --check   the same, and fails if the ratio is below 0.5
//   hanging --smoke   a moment, and only what must hold on any machine: a good kid has its key, a made-up one has none
//
// A request thread that has to wait for a fetch serves nobody meanwhile, so what counts is how long made-up kids can hold it.
#include "axioms_jwks.hpp"
#include "support/fake_fetcher.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;
constexpr unsigned threads = 16;
constexpr auto work = 50us;  // of a request, beside the lookup
constexpr double limit = 0.5;

struct outcome {
  std::uint64_t good = 0, wrong = 0;
};

// The default options, with all times divided by faster.
outcome serve(bool hangs, int faster) {
  support::fake_fetcher provider;
  axioms::basic_jwks_manager<support::fake_fetcher> manager(provider);
  axioms::jwks_config config;
  config.jwks_url = "https://idp.example.com/.well-known/jwks.json";
  config.fetch_timeout /= faster;
  config.connect_timeout /= faster;
  config.unknown_kid_wait /= faster;
  config.unknown_kid_interval /= faster;
  if (!manager.initialize(config)) return {0, 1};
  if (hangs) provider.hold();

  std::atomic<std::uint64_t> good{0}, wrong{0}, made_up{0};
  const auto end = clock_type::now() + 8000ms / faster;
  std::vector<std::thread> pool;
  for (unsigned i = 0; i < threads; ++i) {
    pool.emplace_back([&] {
      while (clock_type::now() < end) {
        const auto key = manager.get_key({.kid = "k1", .alg = "EdDSA"});
        (key ? good : wrong).fetch_add(1, std::memory_order_relaxed);
        for (const auto until = clock_type::now() + work; clock_type::now() < until;) {}
        const std::string kid = "made-up-" + std::to_string(made_up.fetch_add(1, std::memory_order_relaxed));
        if (manager.get_key({.kid = kid, .alg = "EdDSA"})) wrong.fetch_add(1, std::memory_order_relaxed);
      }
    });
  }
  for (auto& thread : pool) thread.join();
  return {good, wrong};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  const int faster = mode == "--smoke" ? 40 : 1;
  const outcome answers = serve(false, faster), hangs = serve(true, faster);
  const double ratio = static_cast<double>(hangs.good) / static_cast<double>(answers.good);
  std::printf("good requests with a provider that answers %llu, that hangs %llu: %.2f x\n",
              static_cast<unsigned long long>(answers.good), static_cast<unsigned long long>(hangs.good), ratio);
  std::printf("wrong answers %llu\n", static_cast<unsigned long long>(answers.wrong + hangs.wrong));
  if (answers.good == 0 || hangs.good == 0 || answers.wrong + hangs.wrong != 0) return 1;
  return mode == "--check" && ratio < limit ? 1 : 0;
}
