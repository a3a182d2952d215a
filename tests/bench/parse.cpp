// What a key set costs on its way to usable keys, beside the same keys read from PEM.
//
//   parse             21 interleaved rounds; prints the median and the fastest us per set, and the ratio
//   parse --smoke     a moment of it, and only what must hold on any machine: the keys are there, and choosing one allocates nothing
//
// Build with -O2.
#include "axioms_jwks.hpp"
#include "vectors/keys.hpp"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <vector>

// ---- allocations are counted ---------------------------------------------------------------------

namespace {
thread_local constinit std::uint64_t allocations = 0;

void* counted(std::size_t size) {
  ++allocations;
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

constexpr std::string_view pems[] = {vectors::rsa_pem, vectors::rsa_e3_pem, vectors::p256_pem};

// Three keys, with as much beside them as providers send, 2 KB in all.
std::string key_set(std::size_t bytes = 2048) {
  const auto member = [](std::string_view jwk, std::string_view kid) {
    return std::string(jwk.substr(0, jwk.size() - 1)) + R"(,"use":"sig","kid":")" + std::string(kid) + "\"";
  };
  std::string out = R"({"keys":[)" + member(vectors::rsa_jwk, "2026-01") + "}," +
                    member(vectors::rsa_e3_jwk, "2026-02") + "}," + member(vectors::p256_jwk, "2026-03") +
                    R"(,"x5t":"NzbLsXh8uDCcd-6MNwXF4W_7noU","x5c":[")";
  return out + std::string(bytes - out.size() - 5, 'M') + "\"]}]}";
}

axioms::jwk_set parsed(std::string_view text) {
  auto set = axioms::jwk_set::parse(text);
  if (!set || set->size() != 3) std::abort();
  return *std::move(set);
}

void parse_sets(std::string_view text, int count) {
  for (int i = 0; i < count; ++i) parsed(text);
}
void parse_pems(int count) {
  for (int i = 0; i < count; ++i) {
    for (const std::string_view pem : pems) {
      BIO* text = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
      EVP_PKEY* key = PEM_read_bio_PUBKEY(text, nullptr, nullptr, nullptr);
      if (key == nullptr) std::abort();
      EVP_PKEY_free(key);
      BIO_free(text);
    }
  }
}

template <class Work>
double microseconds(int count, Work work) {
  const auto begun = std::chrono::steady_clock::now();
  work(count);
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begun).count() / count;
}
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int failures = 0;
void check(bool holds, const char* what, std::uint64_t value) {
  std::printf("%s: %s (%llu)\n", holds ? "ok" : "FAILED", what, static_cast<unsigned long long>(value));
  if (!holds) ++failures;
}

void check_invariants(const std::string& text) {
  check(text.size() == 2048, "the set has 2 KB", text.size());
  const std::uint64_t before_parse = allocations;
  const axioms::jwk_set set = parsed(text);
  const std::uint64_t allocated = allocations - before_parse;
  check(allocated > 0, "the counter sees what parsing allocates", allocated);
  // A parser would make room for the certificate, by doubling.
  const std::string longer = key_set(64 * 1024);
  const std::uint64_t before_longer = allocations;
  const axioms::jwk_set same = parsed(longer);
  check(allocations - before_longer == allocated, "a long certificate costs what a short one does",
        allocations - before_longer);
  std::size_t right = 0;
  const std::uint64_t before = allocations;
  for (int i = 0; i < 1000; ++i) {
    const auto by_kid = set.select({.kid = "2026-03", .alg = "ES256"});
    const auto by_x5t = set.select({.kid = "NzbLsXh8uDCcd-6MNwXF4W_7noU", .alg = "ES256"});
    const auto by_alg = set.select({.alg = "ES256"});
    right += by_kid && by_x5t && by_alg && *by_kid == *by_x5t && *by_kid == *by_alg ? 1U : 0U;
    right += set.contains("2026-01") && set.contains("NzbLsXh8uDCcd-6MNwXF4W_7noU") && !set.contains("x") ? 1U : 0U;
  }
  check(allocations == before, "select() that finds a key and contains() allocate nothing", allocations - before);
  check(right == 2000, "each finds the right key", right);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  if (!mode.empty() && mode != "--smoke") {
    std::fprintf(stderr, "usage: %s [--smoke]\n", argv[0]);
    return 2;
  }
  const std::string text = key_set();
  check_invariants(text);
  parse_pems(1);
  if (mode == "--smoke" || failures > 0) return failures == 0 ? 0 : 1;

  const int count = 200;
  std::vector<double> sets, keys, ratios;
  for (int round = 0; round < 22; ++round) {
    const double set = microseconds(count, [&](int n) { parse_sets(text, n); }), pem = microseconds(count, parse_pems);
    if (round == 0) continue;  // cold
    sets.push_back(set);
    keys.push_back(pem);
    ratios.push_back(pem / set);
  }
  std::printf("\n%-45s %9s %9s\n", "us per set", "median", "fastest");
  const auto fastest = [](const std::vector<double>& values) {
    return *std::min_element(values.begin(), values.end());
  };
  std::printf("%-45s %9.1f %9.1f\n", "jwk_set::parse, 2 KB, RSA 2048 + 3072 + P-256", median(sets), fastest(sets));
  std::printf("%-45s %9.1f %9.1f\n", "the same keys from PEM", median(keys), fastest(keys));
  std::printf("%-45s %8.1fx\n", "PEM / set", median(ratios));
  return 0;
}
