// What a key set costs on its way to usable keys, beside the same keys read from PEM.
//
//   parse             21 interleaved rounds; prints the median and the fastest us per set, and the ratio; then what choosing a key
//                     costs, and what the worst bodies of 1 MiB do
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

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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
  // nlohmann's lexer doubles its buffers for it; the reader keeps nothing of it.
  const std::string longer = key_set(64 * 1024);
  const std::uint64_t before_longer = allocations;
  const axioms::jwk_set same = parsed(longer);
  const std::uint64_t more = allocations - before_longer - allocated;
  check(more <= 16, "a certificate of 62 KB more costs a few doublings of the lexer's buffers", more);
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

// n P-256 keys with kids of their own. The last one is looked for.
void time_select(std::size_t keys) {
  std::string text = R"({"keys":[)";
  for (std::size_t i = 0; i < keys; ++i) {
    text += std::string(vectors::p256_jwk.substr(0, vectors::p256_jwk.size() - 1)) + R"(,"kid":"key-)" +
            std::to_string(10000 + i) + R"("},)";
  }
  text.back() = ']';
  const auto set = axioms::jwk_set::parse(text + "}");
  const std::string kid = "key-" + std::to_string(10000 + keys - 1);
  std::vector<double> rounds;
  for (int round = 0; round < 21; ++round) {
    rounds.push_back(1000 * microseconds(2000, [&](int n) {
                       for (int i = 0; i < n; ++i) {
                         if (!set->select({.kid = kid, .alg = "ES256"})) std::abort();
                       }
                     }));
  }
  std::printf("select() of the last of %4zu keys                %9.0f ns\n", keys, median(rounds));
}

// Each in a process of its own, for the memory that it takes at most.
void time_worst(const char* what, const std::string& begin, const std::string& piece, const std::string& end) {
  std::string body = begin;
  while (body.size() + piece.size() + end.size() < (1U << 20U)) body += piece;
  body += end;
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child == 0) {
    rusage before{}, after{};
    ::getrusage(RUSAGE_SELF, &before);
    std::size_t found = 0;
    const double us = microseconds(1, [&](int) {
      const auto set = axioms::jwk_set::parse(body);
      if (set) found = set->size();
    });
    ::getrusage(RUSAGE_SELF, &after);
    std::printf("%-45s %9.1f ms %5ld MiB, %zu keys\n", what, us / 1000, (after.ru_maxrss - before.ru_maxrss) / 1024,
                found);
    std::fflush(stdout);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
}

void time_worst_bodies() {
  const std::string good(vectors::p256_jwk), tail = good + "]}", p256 = good + ",";
  std::string off_curve = p256, many;
  off_curve[off_curve.find("\"x\":\"") + 8] ^= 1;
  for (int i = 0; i < 60000; ++i) many += "\"" + std::to_string(i) + "\":0,";
  std::printf("\nThe worst bodies of 1 MiB\n");
  time_worst("RSA keys of 16384 bits", R"({"keys":[)",
             R"({"kty":"RSA","e":"AQAB","n":"w)" + std::string(2729, 'B') + "E\"},", tail);
  time_worst("P-256 keys", R"({"keys":[)", p256, tail);
  time_worst("P-256 keys off the curve", R"({"keys":[)", off_curve, tail);
  time_worst("100,000 tiny members", R"({"keys":[)", "{},", tail);
  time_worst("60,000 members that are 0", R"({"keys":[0)", std::string(16, ' ') + ",0", "," + tail);
  time_worst("one member with 60,000 names", R"({"keys":[{)" + many, " ", R"("a":0},)" + tail);
  time_worst("one member with 100,000 names", R"({"keys":[{)" + many, R"("a":0,)", R"("a":0},)" + tail);
  time_worst("arrays 30 deep", R"({"keys":[)", std::string(28, '[') + std::string(28, ']') + ",", tail);
  time_worst("one string of escapes", R"({"keys":[{"kid":")", "\\u0041", "\"}," + tail);
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
  for (const std::size_t n : {3U, 256U, 1024U}) time_select(n);
  time_worst_bodies();
  return 0;
}
