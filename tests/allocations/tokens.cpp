// Memory runs out at the n-th allocation, for every n, while a token is verified: bad_alloc on the caller's thread, a refusal that says
// so, or a verified token; nothing is leaked, and the next verification is as if nothing had been.
#include "support/failing_new.hpp"
#include "support/rig.hpp"
#include "support/token_maker.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <new>
#include <string>

using axioms::errc, axioms::jwk_set, axioms::verified_token;
using support::failing_new, support::signing_key;

namespace {

constexpr std::chrono::system_clock::time_point noon{std::chrono::seconds(1790000000)};

std::string claims(std::string_view audience = "https://api.example.com") {
  return R"({"iss":"https://idp.example.com/","aud":["https://userinfo.example.com",")" + std::string(audience) +
         R"("],"exp":1790003600,"sub":"somebody with a name that is long enough","realm":{"roles":["a","b","c"]},"scope":"read write"})";
}
axioms::token_rules rules() {
  return {
      .issuer = "https://idp.example.com/", .audience = {"https://api.example.com"}, .role_claims = {"/realm/roles"}};
}

enum class outcome { accepted, refused, no_memory, wrong };

// f() returns what it came to, and asserts nothing itself, for doctest allocates, too.
template <class F>
std::uint64_t fails_cleanly(outcome expected, F f) {
  const auto tried = [&]() -> outcome {
    try {
      return f();
    } catch (const std::bad_alloc&) { return outcome::no_memory; }
  };
  REQUIRE(tried() == expected);  // what is made once is made here
  bool failed = true;
  std::uint64_t n = 0;
  for (; failed; ++n) {
    outcome came = outcome::wrong;
    const std::int64_t before = failing_new::alive_here();
    failed = failing_new::during(n, [&] { came = tried(); });
    const std::int64_t after = failing_new::alive_here();
    CAPTURE(n);
    CHECK(after <= before);  // the header that this thread remembers may have gone
    CHECK((came == expected || (failed && came == outcome::no_memory)));
    CHECK(tried() == expected);
  }
  return n;
}

outcome outcome_of(const axioms::result<verified_token>& what, errc expected = {}) {
  if (what) return what->has_role("b") && what->has_scope("write") ? outcome::accepted : outcome::wrong;
  if (what.error().code == errc::no_resources) return outcome::no_memory;
  return what.error().code == expected ? outcome::refused : outcome::wrong;
}

}  // namespace

TEST_CASE("a token is verified, or there was no memory for it") {
  for (const char* alg : {"ES256", "EdDSA", "RS256"}) {
    const signing_key key(alg, "a kid that is no short string");
    const jwk_set keys = jwk_set::parse(support::set_of_keys({&key})).value();
    const std::string good = key.token(claims()), other = key.token(claims("https://other.example.com"));
    std::string forged = good;
    forged[forged.size() - 10] = forged[forged.size() - 10] == 'A' ? 'B' : 'A';
    CHECK(fails_cleanly(outcome::accepted,
                        [&] { return outcome_of(axioms::verify_token(good, keys, rules(), noon)); }) > 20);
    fails_cleanly(outcome::refused, [&] {
      return outcome_of(axioms::verify_token(other, keys, rules(), noon), errc::audience_mismatch);
    });
    fails_cleanly(outcome::refused,
                  [&] { return outcome_of(axioms::verify_token(forged, keys, rules(), noon), errc::bad_signature); });
    fails_cleanly(outcome::accepted, [&] {
      return axioms::verify_signature(good, keys).has_value() ? outcome::accepted : outcome::no_memory;
    });
    const std::string message = good.substr(0, good.rfind('.')),
                      signature = support::decoded(good.substr(good.rfind('.') + 1));
    fails_cleanly(outcome::accepted, [&] {
      return (*keys.begin())->verify(alg, message, signature) ? outcome::accepted : outcome::no_memory;
    });
  }
}

TEST_CASE("a verifier over a manager verifies, or there was no memory for it, and asks for nothing") {
  const signing_key key("ES256", "a kid that is no short string");
  support::rig r;
  r.provider.always(support::response(200, support::set_of_keys({&key})));
  r.start();
  r.quiet();
  const axioms::basic_token_verifier verifier(r.manager, rules());
  const std::string good = key.token(claims());
  const std::size_t before = r.provider.requests();
  fails_cleanly(outcome::accepted, [&] { return outcome_of(verifier.verify(good)); });
  CHECK(r.provider.requests() == before);
}
