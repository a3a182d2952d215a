// What a token says of itself, and what a verifier says of it.
#ifndef AXIOMS_JWKS_EXAMPLES_SHOW_TOKEN_HPP
#define AXIOMS_JWKS_EXAMPLES_SHOW_TOKEN_HPP

#include "axioms_jwks.hpp"
#include "terminal.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace demo {

/// A part of a token as JSON, null if it is none. Lenient, for it is shown and not believed.
inline nlohmann::json part_of(std::string_view token, int index) {
  for (; index > 0; --index) token.remove_prefix(std::min(token.find('.'), token.size() - 1) + 1);
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  for (const char c : token.substr(0, token.find('.'))) {
    const auto value = digits.find(c);
    if (value == digits.npos) return nullptr;
    bits = bits << 6U | static_cast<std::uint32_t>(value);
    if ((count += 6) >= 8) bytes += static_cast<char>(bits >> static_cast<unsigned>(count -= 8) & 0xffU);
  }
  const auto out = nlohmann::json::parse(bytes, nullptr, false);
  return out.is_discarded() ? nlohmann::json() : out;
}

inline std::string text_of(const nlohmann::json& value) {
  return value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

/// What a part says, and of the claims the dates as people read them.
inline void print_part(const char* name, const nlohmann::json& part) {
  std::printf("%s  %s\n", name, part.is_null() ? "not readable" : text_of(part).c_str());
  for (const char* claim : {"iat", "nbf", "exp"}) {
    const auto at = part.is_object() ? part.find(claim) : part.end();
    if (at == part.end() || !at->is_number_integer()) continue;
    const std::string date = utc(static_cast<std::time_t>(at->get<std::int64_t>()));
    if (!date.empty()) std::printf("%s     %s\n", claim, date.c_str());
  }
}

/// Prints the token and the verdict. Returns 0 if it is good, 1 if it is refused, 3 if that cannot be told for want of keys.
inline int show_token(std::string_view token, const axioms::result<axioms::verified_token>& verdict, bool json) {
  const nlohmann::json header = part_of(token, 0), claims = part_of(token, 1);
  const std::string code(verdict ? "" : axioms::to_string(verdict.error().code));
  const bool refused = !verdict && verdict.error().status_code() < 500;
  if (json) {
    nlohmann::json out = {{"header", header}, {"claims", claims}, {"good", verdict.has_value()}};
    if (verdict) out["key"] = {{"kid", (*verdict).key()->kid()}, {"thumbprint", (*verdict).key()->thumbprint()}};
    if (!verdict) out["error"] = {{"code", code}, {"description", verdict.error().description}};
    std::printf("%s\n", text_of(out).c_str());
  } else {
    print_part("header", header);
    print_part("claims", claims);
    if (verdict) {
      const axioms::jwk& key = *(*verdict).key();
      std::printf("%s: signed with the key %s (%s)\n", painted(colour::green, "good").c_str(), plain(key.kid()).c_str(),
                  key.thumbprint().c_str());
    } else {
      std::printf("%s: %s: %s\n", painted(colour::red, refused ? "refused" : "not verified").c_str(), code.c_str(),
                  verdict.error().description.c_str());
    }
  }
  return verdict ? 0 : refused ? 1 : 3;
}

}  // namespace demo

#endif
