// What verifying a token costs beside the signature check alone, as OpenSSL's manual shows it: a new context for each.
//
//   verify             interleaved rounds of thread CPU time; ratios within each round, median of 9; then the throughput of two threads
//   verify --smoke     a moment of it, and only what must hold on any machine: every token is good, and allocations of ours
//   verify RS256 N     N verifications of that kind and nothing else, for callgrind
//   verify memo N      N verifications of one RS256 token that the memo knows; --toggle-collect='*known_again*' counts nothing else
//
// Build with -O2.
#define DOCTEST_CONFIG_IMPLEMENT
#include "axioms_jwks.hpp"
#include "support/token_maker.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <malloc.h>
#include <time.h>

namespace {
thread_local constinit std::uint64_t allocations = 0;
thread_local constinit std::int64_t alive = 0;  // bytes

void* counted(std::size_t size) {
  ++allocations;
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  alive += static_cast<std::int64_t>(::malloc_usable_size(memory));
  return memory;
}
void freed(void* memory) {
  alive -= static_cast<std::int64_t>(::malloc_usable_size(memory));
  std::free(memory);
}
}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { freed(memory); }
void operator delete[](void* memory) noexcept { freed(memory); }
void operator delete(void* memory, std::size_t) noexcept { freed(memory); }
void operator delete[](void* memory, std::size_t) noexcept { freed(memory); }

namespace {

constexpr std::string_view url = "https://idp.example.com/.well-known/jwks.json";

// No fetch is ever made: the key set is static.
struct no_fetcher {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request&, const axioms::stop_token&) const {
    return axioms::error{axioms::errc::fetch_failed, "not fetched", 0};
  }
};
using manager_type = axioms::basic_jwks_manager<no_fetcher>;

std::int64_t now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// 12 claims in 400 bytes.
std::string claims() {
  return R"({"iss":"https://idp.example.com/","sub":"auth0|5f7c8ec7c33c6c004bbafe82","aud":["https://api.example.com","https://idp.example.com/userinfo"],"exp":)" +
         std::to_string(now() + 36000) + R"(,"iat":)" + std::to_string(now()) + R"(,"nbf":)" + std::to_string(now()) +
         R"(,"jti":"0b2b3b5e-0d4e-4c6c-9a51-6f0c8d3c1c55","azp":"my_client_id_123456789","scope":"openid profile orders:read","gty":"password","email":"jane@example.com","tid":"t-42"})";
}

struct kind {
  std::string alg;
  support::signing_key key{alg, alg};
  std::string token = key.token(claims());
};

double thread_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}
template <class F>
double ns_each(int count, F f) {
  const double begun = thread_ns();
  for (int i = 0; i < count; ++i) f();
  return (thread_ns() - begun) / count;
}
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The signature alone, the way everybody writes it first.
struct raw_check {
  axioms::key_ptr jwk;
  EVP_PKEY* key;
  const EVP_MD* digest;
  bool pss;
  std::string message, signature;

  raw_check(const kind& what, axioms::key_ptr of)
      : jwk(std::move(of)), key(jwk->native_handle()), pss(what.alg[0] == 'P') {
    digest = what.alg == "EdDSA" ? nullptr : EVP_sha256();
    const auto dot = what.token.rfind('.');
    message = what.token.substr(0, dot);
    signature = support::decoded(std::string_view(what.token).substr(dot + 1));
    if (what.alg[0] != 'E' || what.alg == "EdDSA") return;
    const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> both(ECDSA_SIG_new(), &ECDSA_SIG_free);
    const auto* bytes = reinterpret_cast<const unsigned char*>(signature.data());
    const int half = static_cast<int>(signature.size() / 2);
    ECDSA_SIG_set0(both.get(), BN_bin2bn(bytes, half, nullptr), BN_bin2bn(bytes + half, half, nullptr));
    unsigned char* der = nullptr;
    const int length = i2d_ECDSA_SIG(both.get(), &der);
    signature.assign(reinterpret_cast<const char*>(der), static_cast<std::size_t>(length));
    OPENSSL_free(der);
  }
  void operator()() const {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    EVP_PKEY_CTX* options = nullptr;
    bool good = EVP_DigestVerifyInit(context, &options, digest, nullptr, key) == 1;
    if (pss) {
      good = good && EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1;
    }
    good = good && EVP_DigestVerify(context, reinterpret_cast<const unsigned char*>(signature.data()), signature.size(),
                                    reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1;
    EVP_MD_CTX_free(context);
    if (!good) std::abort();
  }
};

using verifier_type = axioms::basic_token_verifier<manager_type>;

struct bench {
  std::vector<kind> kinds;
  manager_type manager{};
  axioms::token_rules rules{
      .issuer = "https://idp.example.com/", .audience = {"https://api.example.com"}, .jwks_url = std::string(url)};
  verifier_type verifier{manager, rules};
  verifier_type remembering{manager, with_memo()};

  axioms::token_rules with_memo() const {
    axioms::token_rules out = rules;
    out.memo = 1000;
    return out;
  }
  bench() {
    for (const char* alg : {"RS256", "PS256", "ES256", "EdDSA"}) kinds.push_back({alg});
    std::vector<const support::signing_key*> keys;
    for (const auto& each : kinds) keys.push_back(&each.key);
    if (!manager.add_static(url, support::set_of_keys(keys))) std::abort();
  }
  axioms::key_ptr key_of(const kind& what) const {
    return manager.get_jwks(url).value()->keys().find(what.key.kid()).front();
  }
  void verify(const std::string& token) const { verify(token, verifier); }
  static void verify(const std::string& token, const verifier_type& by) {
    if (!by.verify(token)) std::abort();
  }
};

struct rate {
  double per_second, cores;
};
rate throughput(int threads, const std::function<void()>& work) {
  std::atomic<bool> go{false}, stop{false};
  std::atomic<std::uint64_t> done{0}, busy{0};
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&] {
      while (!go) std::this_thread::yield();
      const double begun = thread_ns();
      std::uint64_t mine = 0;
      while (!stop) work(), ++mine;
      busy += static_cast<std::uint64_t>(thread_ns() - begun);
      done += mine;
    });
  }
  const auto begun = std::chrono::steady_clock::now();
  go = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  stop = true;
  for (auto& each : all) each.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return {static_cast<double>(done.load()) / seconds, static_cast<double>(busy.load()) * 1e-9 / seconds};
}

// How much two threads do beside one: median of the rounds in which each thread had a core. 0: there was none.
double gain(const std::function<void()>& work) {
  std::vector<double> gains;
  for (int round = 0; round < 100 && gains.size() < 9; ++round) {
    const rate one = throughput(1, work), two = throughput(2, work);
    if (one.cores > 0.97 && two.cores > 1.9) gains.push_back(two.per_second / one.per_second);
  }
  return gains.empty() ? 0 : median(gains);
}

// A function of its own, so that callgrind can count what it does and nothing else.
[[gnu::noinline]] void known_again(const verifier_type& by, const std::string& token, int count) {
  for (int i = 0; i < count; ++i) bench::verify(token, by);
}

// What a hit allocates, which must be nothing.
bool knows_without_memory(const bench& b, const std::string& token) {
  for (int i = 0; i < 3; ++i) bench::verify(token, b.remembering);
  const std::uint64_t before = allocations;
  bench::verify(token, b.remembering);
  const std::uint64_t count = allocations - before;
  std::printf("%s: a token that is known makes %llu allocations\n", count == 0 ? "ok" : "FAILED",
              static_cast<unsigned long long>(count));
  return count == 0;
}

// A token that is known, and more tokens in turn than the memo has room for.
void time_memo(const bench& b) {
  const kind& rs = b.kinds.front();
  const auto hit = [&] { bench::verify(rs.token, b.remembering); };
  std::vector<double> hits, misses;
  std::vector<std::string> many;
  for (int i = 0; i < 10000; ++i) {
    std::string with_number = claims();
    with_number.insert(with_number.size() - 1, ",\"n\":" + std::to_string(i));
    many.push_back(rs.key.token(with_number));
  }
  const auto in_turn = [&](const verifier_type& by) {
    std::size_t at = 0;
    return ns_each(static_cast<int>(many.size()), [&] { bench::verify(many[at++], by); });
  };
  for (int round = 0; round < 5; ++round) {
    hits.push_back(ns_each(200000, hit));
    misses.push_back(in_turn(b.remembering) / in_turn(b.verifier));
  }
  std::printf("\na token of %zu bytes that the memo knows: %.0f ns, two threads on one token %.2fx one\n",
              rs.token.size(), median(hits), gain(hit));
  std::printf("10,000 tokens in turn with a memo of 1,000: %.3fx without memo\n", median(misses));
  const std::int64_t before = alive;
  const auto kept = b.verifier.verify(rs.token);
  std::printf("one takes %lld bytes, and 54 of its memo\n\n", static_cast<long long>(alive - before));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  doctest::Context asserts;  // of what makes the tokens
  asserts.setAsDefaultForAssertsOutOfTestCases();
  asserts.setAssertHandler([](const doctest::AssertData& data) {
    if (data.m_failed) std::abort();
  });
  bench b;
  if (argc == 3) {
    if (mode == "memo") known_again(b.remembering, b.kinds[0].token, std::atoi(argv[2]));
    for (const auto& each : b.kinds) {
      for (int i = 0; each.alg == mode && i < std::atoi(argv[2]); ++i) b.verify(each.token);
    }
    return 0;
  }
  int failures = 0;
  for (const auto& each : b.kinds) {
    b.verify(each.token);
    const std::uint64_t before = allocations;
    b.verify(each.token);
    const std::uint64_t count = allocations - before;
    const bool few = count <= 16;
    std::printf("%s: %s makes %llu allocations, 6 of them nlohmann's\n", few ? "ok" : "FAILED", each.alg.c_str(),
                static_cast<unsigned long long>(count));
    failures += few ? 0 : 1;
  }
  failures += knows_without_memory(b, b.kinds.front().token) ? 0 : 1;
  if (mode == "--smoke") return failures == 0 ? 0 : 1;

  std::printf("\n%-8s %12s %12s %9s %9s %14s %14s\n", "", "verify ns", "raw ns", "ratio", "best", "verify 2T/1T",
              "raw 2T/1T");
  for (const auto& each : b.kinds) {
    const raw_check raw(each, b.key_of(each));
    std::vector<double> ours, theirs, ratios;
    for (int round = 0; round < 10; ++round) {
      const double a = ns_each(400, [&] { b.verify(each.token); }), c = ns_each(400, raw);
      if (round == 0) continue;
      ours.push_back(a);
      theirs.push_back(c);
      ratios.push_back(a / c);
    }
    const auto work = [&] { b.verify(each.token); };
    const double two = gain(work), raw_two = gain(raw);
    std::printf("%-8s %12.0f %12.0f %8.3fx %8.3fx %13.2fx %13.2fx\n", each.alg.c_str(), median(ours), median(theirs),
                median(ratios),
                *std::min_element(ours.begin(), ours.end()) / *std::min_element(theirs.begin(), theirs.end()), two,
                raw_two);
  }

  time_memo(b);

  // Refusals cost no signature check.
  const kind& rs = b.kinds.front();
  const auto refused = [&](const char* what, const std::string& token, const verifier_type& by) {
    std::vector<double> times;
    for (int round = 0; round < 9; ++round) {
      times.push_back(ns_each(2000, [&] {
        if (by.verify(token)) std::abort();
      }));
    }
    std::printf("refused for its %-22s %9.0f ns\n", what, median(times));
  };
  axioms::token_rules a = b.rules, c = b.rules;
  a.issuer = "https://a.example.com/";
  c.issuer = "https://c.example.com/";
  const verifier_type several(b.manager, std::vector<axioms::token_rules>{a, c});
  refused("form", rs.token + ".x", b.verifier);
  refused("alg", rs.key.sign(R"({"alg":"HS256","typ":"at+jwt","kid":"RS256"})", claims()), b.verifier);
  refused("issuer, one of several", rs.token, several);
  return failures;
}
