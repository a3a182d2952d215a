// The part "keys": private and symmetric key material in a key set leaves no trace.
#include "axioms_jwks.hpp"
#include "support/eventually.hpp"
#include "support/fake_fetcher.hpp"
#include "support/jwk_text.hpp"
#include "vectors/keys.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <openssl/crypto.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#if defined(__linux__)
#include <fcntl.h>
#include <unistd.h>
#endif

using axioms::errc;
using axioms::jwk_set;
using axioms::detail::verdict;
using support::holds, support::rfc8037, support::set_of, support::with;

namespace {

const axioms::fetch_request request{.url = "https://idp.example.com/jwks.json"};

verdict judged(std::string body) {
  axioms::fetch_response response;
  response.status = 200;
  response.body = std::move(body);
  return axioms::detail::judge(request, std::move(response), std::chrono::system_clock::time_point());
}

}  // namespace

// Red when judge() hands the body on although the set held secrets.
TEST_CASE("the document of a set that held secrets is written anew from its usable keys" *
          doctest::test_suite("slow")) {
  const std::string good =
      with(rfc8037,
           R"("kid":"a\"b","use":"sig","x5t":"abc","key_ops":["verify"],"x5c":["MIIC"],"issuer":"https://x.example")");
  for (const std::string& secret :
       {std::string(vectors::rsa_private_jwk), std::string(vectors::ed25519_private_jwk),
        std::string(R"({"kty":"oct","k":"c2VjcmV0"})"), std::string(R"({"kty":"oct","key":"c2VjcmV0"})"),
        with(vectors::p256_jwk, R"("d":"c2VjcmV0")"), with(vectors::p256_jwk, R"("\u0064":"c2VjcmV0")"),
        std::string(R"({"keys":[{"kty":"RSA","d":"c2VjcmV0"}]})"),
        std::string(R"({"kty":"RSA","x5c":["MIIC",{"d":"c2VjcmV0"}]})")}) {
    CAPTURE(secret);
    const verdict what = judged(set_of({secret, good, std::string(vectors::p256_jwk)}));
    REQUIRE(what.what == verdict::kind::document);
    CHECK(what.content->keys.held_secrets());
    REQUIRE(what.content->keys.size() == 2);
    const auto& keys = what.content->keys;
    CHECK(what.content->body == set_of({(*keys.begin())->to_json(), keys.begin()[1]->to_json()}));
    const auto again = jwk_set::parse(what.content->body);
    REQUIRE(again);
    CHECK_FALSE(again->held_secrets());
    CHECK(again->skipped().empty());
    REQUIRE(again->size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(again->begin()[static_cast<std::ptrdiff_t>(i)]->to_json() ==
            keys.begin()[static_cast<std::ptrdiff_t>(i)]->to_json());
    }
  }
  const std::string elsewhere = R"({"backup":{"kty":"RSA","d":"c2VjcmV0"},"keys":[)" + good + "]}";
  const verdict what = judged(elsewhere);
  REQUIRE(what.what == verdict::kind::document);
  CHECK(what.content->keys.skipped().empty());
  CHECK_FALSE(holds(what.content->body, "c2VjcmV0"));
}

TEST_CASE("a document without secrets is kept byte by byte") {
  for (const std::string& body :
       {set_of({std::string(rfc8037)}) + " \n", "\xef\xbb\xbf" + set_of({std::string(rfc8037)}),
        set_of({with(rfc8037, R"("note":"\"d\":1","D":"x","dd":"x","d ":"x","list":["d","k"],"issuer":"d")"), "7"})}) {
    CAPTURE(body);
    const verdict what = judged(body);
    REQUIRE(what.what == verdict::kind::document);
    CHECK_FALSE(what.content->keys.held_secrets());
    CHECK(what.content->body == body);
  }
}

TEST_CASE("a JWK that is masked is still skipped for what it is") {
  const auto set =
      jwk_set::parse(set_of({std::string(rfc8037), std::string(vectors::rsa_private_jwk),
                             R"({"kty":"oct","kid":"shared","k":"c2VjcmV0","alg":"HS256"})",
                             with(vectors::p256_jwk, R"("kid":"p","d":12345)"),
                             with(vectors::p256_jwk, R"("kid":"q","oth":[{"d":"x","r":[1,{"t":"y"}]}],"use":"sig")")}));
  REQUIRE(set);
  CHECK(set->held_secrets());
  REQUIRE(set->skipped().size() == 4);
  CHECK(set->skipped()[0].reason == "it holds private members");
  CHECK(set->skipped()[1].reason == "a symmetric key does not belong into a public key set");
  CHECK(set->skipped()[1].kid == "shared");
  CHECK(set->skipped()[2].reason == "it holds private members");
  CHECK(set->skipped()[3].reason == "it holds private members");
  CHECK(set->skipped()[3].kid == "q");
}

#if defined(__linux__)

namespace {

// A secret that is nowhere in the program until it is written somewhere: each character is computed.
char secret_at(unsigned which, std::size_t i) {
  std::uint32_t x = which * 2654435761U + static_cast<std::uint32_t>(i) * 40503U + 12345U;
  x ^= x >> 15U;
  x *= 2246822519U;
  x ^= x >> 13U;
  return support::base64url_digits[x & 63U];
}
constexpr std::size_t secret_bytes = 86;

// The template with the secret for each '@'. Its buffer never moves, so that it is the only copy.
std::string filled(std::string_view text, unsigned which) {
  std::string out;
  out.reserve(text.size() + 16 * secret_bytes);
  for (const char c : text) {
    if (c != '@') {
      out.push_back(c);
    } else {
      for (std::size_t i = 0; i < secret_bytes; ++i) out.push_back(secret_at(which, i));
    }
  }
  return out;
}

// How often twelve characters in a row of the secret stand anywhere in this process's memory, also in memory that was freed.
class memory_scan {
 public:
  explicit memory_scan(unsigned which) {
    for (std::size_t i = 0; i < secret_bytes; ++i) inverted_[i] = static_cast<char>(~secret_at(which, i));
    const int maps = ::open("/proc/self/maps", O_RDONLY);
    memory_ = ::open("/proc/self/mem", O_RDONLY);
    REQUIRE(maps >= 0);
    REQUIRE(memory_ >= 0);
    std::size_t length = 0;
    for (ssize_t got = 1; got > 0 && length < sizeof maps_ - 1; length += static_cast<std::size_t>(got)) {
      got = ::read(maps, maps_ + length, sizeof maps_ - 1 - length);
      if (got < 0) break;
    }
    maps_[length] = '\0';
    ::close(maps);
    for (char* line = maps_; *line != '\0';) {
      char* end = nullptr;
      const auto first = std::strtoull(line, &end, 16), last = std::strtoull(end + 1, &end, 16);
      // What sanitizers and threads' stacks reserve is large, and nearly all of it has never been touched.
      if (std::strncmp(end, " rw", 3) == 0 && last - first <= (std::uint64_t{1} << 24U)) read(first, last);
      line = std::strchr(end, '\n');
      if (line == nullptr) break;
      ++line;
    }
    ::close(memory_);
  }
  std::size_t hits() const { return hits_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t overlap = 16;

  void read(std::uint64_t first, std::uint64_t last) {
    const auto own = reinterpret_cast<std::uintptr_t>(buffer_);
    for (std::uint64_t at = first; at < last; at += sizeof buffer_ - overlap) {
      const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(last - at, sizeof buffer_));
      if (at < own + sizeof buffer_ && own < at + wanted) continue;  // what was read before
      const ssize_t got = ::pread(memory_, buffer_, wanted, static_cast<off_t>(at));
      if (got <= 0) return;
      bytes_ += static_cast<std::uint64_t>(got);
      look(static_cast<std::size_t>(got));
    }
  }
  void look(std::size_t length) {
    constexpr std::size_t window = 12;
    for (const std::size_t offset : {std::size_t{0}, std::size_t{24}, std::size_t{48}, secret_bytes - window}) {
      const char head = static_cast<char>(~inverted_[offset]);
      const char* const end = buffer_ + length;
      for (const char* at = buffer_; at != end; ++at) {
        at = static_cast<const char*>(std::memchr(at, head, static_cast<std::size_t>(end - at)));
        if (at == nullptr || end - at < static_cast<std::ptrdiff_t>(window)) break;
        std::size_t same = 1;
        while (same < window && at[same] == static_cast<char>(~inverted_[offset + same])) ++same;
        if (same == window) ++hits_;
      }
    }
    OPENSSL_cleanse(buffer_, length);
  }

  std::array<char, secret_bytes> inverted_{};
  int memory_ = -1;
  std::size_t hits_ = 0;
  std::uint64_t bytes_ = 0;
  inline static char maps_[1 << 18];
  inline static char buffer_[1 << 20];
};

std::size_t traces(unsigned which) {
  const memory_scan scan(which);
  CHECK(scan.bytes() > 100000);
  return scan.hits();
}

void wipe(std::string& text) { OPENSSL_cleanse(text.data(), text.size()); }

}  // namespace

TEST_CASE("the memory scan finds a secret, also one that a JSON parser has freed" * doctest::test_suite("slow") *
          doctest::skip(support::under_tsan)) {
  CHECK(traces(1) == 0);
  std::string body = filled(R"({"keys":[{"kty":"oct","k":"@"}]})", 1);
  CHECK(traces(1) > 0);
  wipe(body);
  CHECK(traces(1) == 0);
  body = filled(R"({"keys":[{"kty":"oct","k":"@"}]})", 2);
  CHECK_FALSE(nlohmann::json::parse(body, nullptr, false).is_discarded());
  wipe(body);
  CHECK(traces(2) > 0);  // why the parser must not see it
}

// Red when the parser is given the text as it came, when only the first secret is masked, or only strings that stand
// directly in the member, and, for the second half, when judge() frees a body that it does not hand on. One thread that reads all
// of the memory has nothing to tell ThreadSanitizer, and takes minutes there.
TEST_CASE("no trace of a secret is left in memory, whatever became of the set" * doctest::test_suite("slow") *
          doctest::skip(support::under_tsan)) {
  const std::string good(rfc8037);
  const std::string rsa = R"({"kty":"RSA","n":"AQAB","e":"AQAB","d":"@","p":"@","q":"@","dp":"@","dq":"@","qi":"@"})";
  struct row {
    std::string text;
    errc expected;  // errc{}: a document
  };
  const row rows[] = {
      {set_of({good, rsa, R"({"kty":"oct","k":"@"})", R"({"kty":"AKP","alg":"ML-DSA-44","pub":"AAAA","priv":"@"})"}),
       errc{}},
      {set_of({good, R"({"kty":"RSA","oth":[{"r":"@","d":"@","t":["@",{"x":"@"}]}],"use":"sig"})"}), errc{}},
      {set_of({good, R"({"kty":"EC","\u0064":"@"})", R"({"k" : {"@":"@"}})", R"({"d":["\"@","\\@"]})"}), errc{}},
      {set_of({good, R"({"d":"@","d":"@"})", R"({"p":null,"q":"@"})"}), errc{}},
      {set_of({good, R"({"kty":"EC","x5c":["MIIC",{"d":["@"]},"MIIC"],"k":"@"})"}), errc{}},
      {R"({"backup":[{"kty":"RSA","d":"@"}],"keys":[)" + good + R"(],"k":"@"})", errc{}},
      {set_of({rsa}), errc::no_usable_key},
      {R"({"kty":"RSA","n":"AQAB","e":"AQAB","d":"@"})", errc::not_a_key_set},
      {R"([{"kty":"oct","k":"@"}])", errc::not_a_key_set},
      {set_of({good, rsa}) + "]", errc::not_a_key_set},
      {R"({"keys":[{"kty":"RSA","d":"@)", errc::not_a_key_set},
      {R"({"keys":[{"kty":"RSA","d":"@\)", errc::not_a_key_set},
      {R"({"keys":[{"d":"@","note":)" + std::string(40, '[') + R"("@")", errc::not_a_key_set},
      {R"({"keys":[{"d":)" + std::string(40, '[') + R"("@")", errc::not_a_key_set},
      {R"("d":"@")", errc::not_a_key_set},
  };
  unsigned which = 10;
  for (const auto& [text, expected] : rows) {
    const std::string_view shown = text;  // clang 14 cannot capture text itself
    CAPTURE(shown);
    ++which;
    std::string body = filled(text, which);
    {
      const auto set = jwk_set::parse(body);
      CHECK((set ? errc{} : set.error().code) == expected);
      wipe(body);
      CHECK(traces(which) == 0);  // while the set lives
    }
    CHECK(traces(which) == 0);

    ++which;
    {
      const verdict what = judged(filled(text, which));
      CHECK(what.why.code == expected);
      CHECK(traces(which) == 0);
    }
    CHECK(traces(which) == 0);
  }
}

#endif
