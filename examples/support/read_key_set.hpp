// A key set with what is wrong with each of its members, also if none of them is a usable key.
#ifndef AXIOMS_JWKS_EXAMPLES_READ_KEY_SET_HPP
#define AXIOMS_JWKS_EXAMPLES_READ_KEY_SET_HPP

#include "axioms_jwks.hpp"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace demo {

struct read_key_set {
  axioms::result<axioms::jwk_set> keys;
  std::vector<axioms::skipped_key> skipped{};
  bool held_secrets = false;
};

/// Where the first element of the array `keys` of a key set begins. npos if its name is written with escapes.
inline std::size_t first_member(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n", marks = "\"{}[]";
  int depth = 0;
  for (std::size_t at = text.find_first_of(marks); at < text.size(); at = text.find_first_of(marks, at)) {
    const char found = text[at++];
    if (found == '{' || found == '[') ++depth;
    if (found == '}' || found == ']') --depth;
    if (found != '"') continue;
    const std::size_t name = at;
    while (at < text.size() && text[at] != '"') at += text[at] == '\\' ? 2U : 1U;
    if (at >= text.size()) break;
    const std::string_view string = text.substr(name, at++ - name);
    if (depth != 1 || string != "keys") continue;
    const std::size_t colon = text.find_first_not_of(blanks, at);
    const std::size_t array = colon < text.size() ? text.find_first_not_of(blanks, colon + 1) : text.npos;
    if (array < text.size() && text[colon] == ':' && text[array] == '[')
      return text.find_first_not_of(blanks, array + 1);
  }
  return text.npos;
}

/// jwk_set::parse() gives no set without a usable key. With one more key, which is taken out here again, it does.
inline read_key_set read(std::string_view text, const axioms::jwk_options& options) {
  read_key_set out{axioms::jwk_set::parse(text, options)};
  if (out.keys) {
    out.skipped = out.keys->skipped();
    out.held_secrets = out.keys->held_secrets();
    return out;
  }
  const std::size_t at = first_member(text);
  if (out.keys.error().code != axioms::errc::no_usable_key || at >= text.size() || text[at] == ']') return out;
  std::string longer(text);  // with the key of RFC 8037 appendix A
  longer.insert(at, R"({"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},)");
  if (const auto more = axioms::jwk_set::parse(longer, options)) {
    out.held_secrets = more->held_secrets();
    for (auto member : more->skipped()) {
      --member.index;
      out.skipped.push_back(std::move(member));
    }
  }
  return out;
}

}  // namespace demo

#endif
