// Any text as the header of a token that is good otherwise: signed here, with good claims. What is accepted is, by nlohmann's
// reading too, a header for our key that asks for nothing special.
#include "tokens.hpp"

namespace {

using nlohmann::json;

bool absent(const json& header, const char* name) { return !header.contains(name) || header[name].is_null(); }

bool is_text_or_absent(const json& header, const char* name) {
  return absent(header, name) || header[name].is_string();
}
std::string text_in(const json& header, const char* name) {
  return absent(header, name) ? std::string() : header[name].get<std::string>();
}

// Of another type, or too long for a kid: as good as absent.
std::string hash_in(const json& header, const char* name) {
  const std::string text = is_text_or_absent(header, name) ? text_in(header, name) : std::string();
  return text.size() <= 1024 ? text : std::string();
}

// The rules, by nlohmann's reading.
bool within_rules(const json& header) {
  if (!header.is_object() || header.contains("crit") || !absent(header, "enc")) return false;
  if (!absent(header, "b64") && header["b64"] != true) return false;
  for (const char* name : {"alg", "kid", "typ"}) {
    if (!is_text_or_absent(header, name)) return false;
  }
  // Without a kid the certificate's hash names the key, of two hashes the one that the set has.
  std::string kid = text_in(header, "kid");
  if (kid.empty()) {
    const std::string sha1 = hash_in(header, "x5t"), sha256 = hash_in(header, "x5t#S256");
    kid = !sha256.empty() && (sha1.empty() || fuzz::keys().contains(sha256)) ? sha256 : sha1;
  }
  std::string typ = text_in(header, "typ");
  for (char& c : typ) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  return text_in(header, "alg") == "EdDSA" && (kid.empty() || kid == "ed") &&
         (typ.empty() || typ == "jwt" || typ == "at+jwt" || typ == "application/jwt" || typ == "application/at+jwt");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  axioms::token_rules rules = fuzz::plain_rules();
  rules.max_token_bytes = 1 << 20;
  const std::string token = fuzz::signer().sign(input, fuzz::good_claims);
  const auto verdict = fuzz::verify(token, rules);
  const json header = json::parse(input, nullptr, false);
  if (verdict) {
    fuzz::check(within_rules(header), "what is accepted is within the rules");
    fuzz::check(verdict->header().size() == header.size(), "its members are all there");
    fuzz::check(verdict->header()["alg"].string() == "EdDSA", "it is shown as it is");
    fuzz::check((*verdict).key()->kid() == "ed", "our key verified it");
  } else if (header.is_discarded() || !header.is_object()) {
    fuzz::check(verdict.error().code == axioms::errc::malformed_token, "what is no object is malformed");
  }
  // Written by nlohmann no name stands twice, so that it must be accepted if it is within the rules.
  if (!header.is_discarded() && within_rules(header)) {
    const auto anew = fuzz::verify(fuzz::signer().sign(header.dump(), fuzz::good_claims), rules);
    fuzz::check(anew.has_value() == fuzz::within_limits(header), "what is within the rules is accepted");
  }
  // The last header is remembered: the same again.
  const auto again = fuzz::verify(token, rules);
  fuzz::check(again.has_value() == verdict.has_value(), "the same header, the same verdict");
  if (!again) fuzz::check(again.error().code == verdict.error().code, "the same header, the same code");
  rules.types = {"at+jwt"};
  fuzz::check(!fuzz::verify(token, rules) || verdict.has_value(), "stricter rules accept no more");
  return 0;
}
