// Key sets as text: made from the vectors of other implementations, and altered.
#ifndef AXIOMS_JWKS_TESTS_JWK_TEXT_HPP
#define AXIOMS_JWKS_TESTS_JWK_TEXT_HPP

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace support {

// RFC 7517 appendix A.1.
inline constexpr std::string_view rfc7517_ec =
    R"({"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc","kid":"1"})";
// RFC 7517 appendix A.1 and RFC 7638 section 3.1.
inline constexpr std::string_view rfc7517_n =
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W"
    "-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qN"
    "Lyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
inline std::string rfc7517_rsa() {
  return R"({"kty":"RSA","n":")" + std::string(rfc7517_n) + R"(","e":"AQAB","alg":"RS256","kid":"2011-04-29"})";
}
// RFC 8037 appendix A.2.
inline constexpr std::string_view rfc8037 =
    R"({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})";

inline bool holds(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

inline std::string set_of(const std::vector<std::string>& members) {
  std::string out = R"({"keys":[)";
  for (std::size_t i = 0; i < members.size(); ++i) out += (i == 0 ? "" : ",") + members[i];
  return out + "]}";
}

// A member with more in it: `more` is put before the closing brace.
inline std::string with(std::string_view member, std::string_view more) {
  return std::string(member.substr(0, member.size() - 1)) + "," + std::string(more) + "}";
}
// A member with one text exchanged for another. The text must be there.
inline std::string replaced(std::string_view member, std::string_view old, std::string_view by) {
  std::string out(member);
  const auto at = out.find(old);
  REQUIRE(at != std::string::npos);
  return out.replace(at, old.size(), by);
}
inline std::string_view text_of(std::string_view member, std::string_view name) {
  const std::string label = '"' + std::string(name) + "\":\"";
  const auto at = member.find(label);
  REQUIRE(at != std::string_view::npos);
  const auto begin = at + label.size();
  return member.substr(begin, member.find('"', begin) - begin);
}

inline constexpr std::string_view base64url_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

inline std::string decoded(std::string_view base64url) {
  std::string out;
  unsigned bits = 0, count = 0;
  for (const char c : base64url) {
    const auto value = base64url_digits.find(c);
    REQUIRE(value != std::string_view::npos);
    bits = (bits << 6U) | static_cast<unsigned>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>((bits >> count) & 0xffU);
    }
  }
  return out;
}
inline std::string encoded(std::string_view bytes) {
  std::string out;
  unsigned bits = 0, count = 0;
  for (const char c : bytes) {
    bits = (bits << 8U) | static_cast<unsigned char>(c);
    for (count += 8; count >= 6; count -= 6) out += base64url_digits[(bits >> (count - 6)) & 63U];
  }
  if (count > 0) out += base64url_digits[(bits << (6 - count)) & 63U];
  return out;
}

}  // namespace support

#endif
