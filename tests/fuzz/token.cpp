// Any text as a token. Only texts that were signed here are accepted: neither another one, nor one of them that was altered.
// After a zero byte the input is a list of changes to a good token, three bytes each: where (two bytes), and what is xored there.
#include "tokens.hpp"

#include <algorithm>

namespace {

struct signed_texts {
  std::string good = fuzz::signer().sign(fuzz::good_header, fuzz::good_claims);
  // Good signatures all, but not what the rules ask for.
  std::array<std::string, 3> others{
      fuzz::signer().sign(fuzz::good_header,
                          R"({"iss":"https://idp.example.com/","aud":"https://api.example.com","exp":1})"),
      fuzz::signer().sign(R"({"alg":"EdDSA","typ":"JOSE"})", fuzz::good_claims),
      fuzz::signer().sign(fuzz::good_header, "no claims")};
  bool holds(std::string_view text) const {
    return text == good || std::find(others.begin(), others.end(), text) != others.end();
  }
};

void check_text(const signed_texts& known, std::string_view text) {
  const auto verdict = fuzz::verify(text, fuzz::plain_rules());
  fuzz::check(verdict.has_value() == (text == known.good), "the good token is accepted, and nothing else");
  if (verdict) {
    fuzz::check(verdict->token() == text && verdict->payload() == fuzz::good_claims, "it holds what was signed");
    fuzz::check(verdict->subject() == "user-1" && verdict->has_scope("orders:write"), "it says what was signed");
  }
  const auto payload = axioms::verify_signature(text, fuzz::keys());
  fuzz::check(payload.has_value() == known.holds(text), "a signature is good if it was made here");
  if (!payload) fuzz::check_shown(payload.error());

  // With several issuers the claims are read before the signature.
  static const auto several = [] {
    std::vector<axioms::token_rules> rules(2, fuzz::plain_rules());
    rules[0].issuer = "https://other.example.com/";
    rules[0].jwks_url = rules[1].jwks_url = "https://idp.example.com/jwks.json";
    return axioms::detail::compile_rules(std::move(rules), false);
  }();
  const bool accepted = axioms::detail::verify_alone(several, text, fuzz::keys(), fuzz::now).has_value();
  fuzz::check(accepted == verdict.has_value(), "several issuers accept the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const signed_texts known;
  if (size == 0 || data[0] != 0) {
    check_text(known, fuzz::text_of(data, size));
    return 0;
  }
  std::string text = known.good;
  for (std::size_t i = 1; i + 2 < size; i += 3) {
    char& c = text[(data[i] * 256U + data[i + 1]) % text.size()];
    c = static_cast<char>(c ^ static_cast<char>(data[i + 2]));
  }
  check_text(known, text);
  return 0;
}
