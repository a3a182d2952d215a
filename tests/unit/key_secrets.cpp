// The part "keys": private and symmetric key material in a key set goes no further.
#include "axioms_jwks.hpp"
#include "support/jwk_text.hpp"
#include "vectors/keys.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
  // Wherever a symmetric key stands: beside the keys, and past the members that are looked at.
  std::vector<std::string> many(3000, "7");
  many.front() = good;
  many[1100] = many.back() = R"({"kty":"oct","key":"c2VjcmV0"})";
  for (const std::string& body :
       {set_of(many), R"({"backup":{"kty":"\u006fct","key":"c2VjcmV0"},"keys":[)" + good + "]}"}) {
    const verdict what = judged(body);
    REQUIRE(what.what == verdict::kind::document);
    CHECK(what.content->keys.held_secrets());
    CHECK_FALSE(holds(what.content->body, "c2VjcmV0"));
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
        set_of({with(rfc8037, R"("d":null,"oth":[],"k":"","priv":{})")}),
        set_of({with(rfc8037, R"("note":"\"d\":1","D":"x","dd":"x","d ":"x","list":["d","k"],"issuer":"d")"), "7"})}) {
    CAPTURE(body);
    const verdict what = judged(body);
    REQUIRE(what.what == verdict::kind::document);
    CHECK_FALSE(what.content->keys.held_secrets());
    CHECK(what.content->body == body);
  }
}

TEST_CASE("a JWK that loses its secrets is still skipped for what it is") {
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
