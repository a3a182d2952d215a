// What the targets about tokens share: a key that is always the same, tokens signed with it, and what holds for every refusal.
#ifndef AXIOMS_JWKS_TESTS_FUZZ_TOKENS_HPP
#define AXIOMS_JWKS_TESTS_FUZZ_TOKENS_HPP

#include "check.hpp"

#include <nlohmann/json.hpp>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>

namespace fuzz {

inline std::string base64url(std::string_view bytes) {
  std::string out(bytes.size() * 4 / 3 + 5, '\0');
  out.resize(static_cast<std::size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                                      reinterpret_cast<const unsigned char*>(bytes.data()),
                                                      static_cast<int>(bytes.size()))));
  for (char& c : out) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return out.substr(0, out.find('='));
}

// RFC 8037 appendix A.1: what is signed with it is the same in every run.
class signing_key {
 public:
  signing_key() {
    constexpr std::string_view seed =
        "\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03"
        "\x1c\xae\x7f\x60";
    key_.reset(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr,
                                            reinterpret_cast<const unsigned char*>(seed.data()), seed.size()));
    check(key_ != nullptr, "there is a key");
  }
  std::string sign(std::string_view header, std::string_view payload) const {
    const std::string text = base64url(header) + '.' + base64url(payload);
    std::array<unsigned char, 64> out{};
    std::size_t size = out.size();
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    check(EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) == 1 &&
              EVP_DigestSign(context.get(), out.data(), &size, reinterpret_cast<const unsigned char*>(text.data()),
                             text.size()) == 1,
          "it signs");
    return text + '.' + base64url(std::string_view(reinterpret_cast<const char*>(out.data()), size));
  }

 private:
  struct free_key {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  };
  std::unique_ptr<EVP_PKEY, free_key> key_;
};

inline const signing_key& signer() {
  static const signing_key key;
  return key;
}

// Its public half, and others, so that each alg gets as far as a signature.
inline const axioms::jwk_set& keys() {
  static const axioms::jwk_set out = [] {
    auto read = axioms::jwk_set::parse(R"({"keys":[
      {"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
      {"kty":"EC","crv":"P-256","kid":"ec","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
       "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
      {"kty":"RSA","kid":"rsa","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}]})");
    check(read.has_value() && read->size() == 3, "there is a key set");
    return *std::move(read);
  }();
  return out;
}

inline const std::string good_header = R"({"alg":"EdDSA","kid":"ed","typ":"at+jwt"})";
inline const std::string good_claims =
    R"({"iss":"https://idp.example.com/","aud":"https://api.example.com","sub":"user-1","exp":1790003600,"iat":1790000000,"scope":"orders:read orders:write"})";

inline axioms::token_rules plain_rules() {
  return {.issuer = "https://idp.example.com/", .audience = {"https://api.example.com"}};
}

// Verifies, and looks at the refusal: one of the codes for a token, and a text that shows no part of it. What is
// quoted is an alg, a kid, a typ or an issuer, which may be shown.
inline axioms::result<axioms::verified_token> verify(std::string_view token, const axioms::token_rules& rules) {
  auto out = axioms::verify_token(token, keys(), rules, now);
  if (out) return out;
  check_shown(out.error());
  check(out.error().status_code() == 401, "a refusal is the token's fault");
  std::string shown = out.error().description;
  if (const auto quote = shown.find('\''); quote != std::string::npos)
    shown.erase(quote, shown.rfind('\'') - quote + 1);
  for (std::string_view rest = token; !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find('.'));
    const bool words = part.find(' ') != std::string_view::npos;  // as in our own texts
    check(words || part.size() < 24 || shown.find(part) == std::string::npos, "a refusal shows no part of the token");
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
  }
  return out;
}

// How deep it may be, and no object with too many members.
inline bool within_limits(const nlohmann::json& value, int depth = 32) {
  if (!value.is_structured()) return true;
  return depth > 0 && value.size() <= 4096 &&
         std::all_of(value.begin(), value.end(), [&](const auto& each) { return within_limits(each, depth - 1); });
}

}  // namespace fuzz

#endif
