// What is wrong with a key set, or with the way it is published.
#ifndef AXIOMS_JWKS_EXAMPLES_LINT_KEY_SET_HPP
#define AXIOMS_JWKS_EXAMPLES_LINT_KEY_SET_HPP

#include "axioms_jwks.hpp"
#include "read_key_set.hpp"
#include "terminal.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace demo {

enum class severity { note, warning, error };

/// The rules have short names that stay, for scripts.
struct finding {
  severity level;
  std::string_view rule;
  std::string text;  ///< names from outside are escaped
  std::optional<std::size_t> member = std::nullopt;
  std::string kid{};  ///< from outside
};

inline std::string_view name_of(severity level) {
  return level == severity::note ? "note" : level == severity::warning ? "warning" : "error";
}

/// Finds what is wrong with the set itself.
class key_set_lint {
 public:
  explicit key_set_lint(const axioms::jwk_options& options) : options_(options) {}

  std::vector<finding> operator()(std::string_view text) {
    if (text.size() > large) {
      note(severity::warning, "size", std::to_string(text.size()) + " bytes: every verifier loads and parses them");
    }
    const read_key_set set = read(text, options_);
    if (!set.keys) {
      const bool none = set.keys.error().code == axioms::errc::no_usable_key;
      note(severity::error, none ? "no-usable-key" : "not-a-key-set", set.keys.error().description);
      if (!none) return std::move(found_);
    }
    // It is JSON with an array `keys`, not deep and not large: the library has read it.
    const auto whole = nlohmann::json::parse(text, nullptr, false);
    if (whole.is_object() && whole.contains("keys")) look_at(whole["keys"], set);
    return std::move(found_);
  }

 private:
  using json = nlohmann::json;
  static constexpr std::size_t large = 65536, many = 100, most = 1024;
  // A name in `kid` is compared by others with what a token says, and copied into logs.
  static constexpr std::size_t long_kid = 64;

  struct seen {
    std::size_t member;
    std::string kty;
    bool usable;
  };

  void note(severity level, std::string_view rule, std::string text) {
    found_.push_back({level, rule, std::move(text)});
  }
  void note(severity level, std::string_view rule, std::string text, std::size_t member, std::string kid) {
    found_.push_back({level, rule, std::move(text), member, std::move(kid)});
  }

  static std::string text_of(const json& member, const char* name) {
    const auto at = member.find(name);
    return at != member.end() && at->is_string() ? at->get<std::string>() : std::string();
  }

  void look_at(const json& members, const read_key_set& set) {
    if (!members.is_array()) return;
    if (members.size() > many)
      note(severity::warning, "size", std::to_string(members.size()) + " members: a verifier tries to use each");
    if (members.size() > most)
      note(severity::error, "size", "members past " + std::to_string(most) + " are not used at all");
    auto skipped = set.skipped.begin();
    auto usable = set.keys ? set.keys->begin() : axioms::jwk_set::const_iterator();
    const std::size_t count = set.keys ? set.keys->size() : 0;
    bool secret_seen = false;
    for (std::size_t i = 0; i < std::min(members.size(), most); ++i) {
      const json& member = members[i];
      if (skipped != set.skipped.end() && skipped->index == i) {
        secret_seen = look_at_unused(member, *skipped++) || secret_seen;
      } else if (set.keys && usable != set.keys->end()) {
        look_at_key(member, **usable++, i, count);
      }
    }
    if (set.held_secrets && !secret_seen)
      note(severity::error, "secret",
           "private or symmetric key material stands outside of the members: replace that key");
  }

  static bool holds_secret(const json& member) {
    if (text_of(member, "kty") == "oct") return true;
    for (const char* name : {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}) {
      const auto at = member.find(name);
      if (at != member.end() && !at->empty() && *at != json("")) return true;
    }
    return false;
  }
  // For encryption, or for whatever is not verification: that is no fault, but does not help to verify.
  static bool not_for_signatures(const json& member) {
    const std::string use = text_of(member, "use"), alg = text_of(member, "alg");
    if (!use.empty() && use != "sig" && use != "jwt-svid") return true;
    const auto operations = member.find("key_ops");
    if (operations != member.end() && operations->is_array() && !operations->empty() &&
        std::find(operations->begin(), operations->end(), json("verify")) == operations->end())
      return true;
    return alg.rfind("RSA", 0) == 0 || alg.rfind("ECDH-ES", 0) == 0;
  }
  static bool known_kind(const json& member) {
    const std::string kty = text_of(member, "kty"), crv = text_of(member, "crv");
    if (kty == "EC") return crv == "P-256" || crv == "P-384" || crv == "P-521";
    if (kty == "OKP") return crv == "Ed25519" || crv == "Ed448";
    return kty == "RSA" || kty.empty();
  }
  // By its length alone: six bits a digit.
  static bool short_modulus(const json& member) {
    const std::string n = text_of(member, "n");
    return text_of(member, "kty") == "RSA" && !n.empty() && n.size() * 6 < 2048;
  }

  // Returns whether it publishes a secret.
  bool look_at_unused(const json& member, const axioms::skipped_key& why) {
    const auto say = [&](severity level, std::string_view rule, const std::string& text) {
      note(level, rule, text, why.index, why.kid);
    };
    if (!member.is_object()) return say(severity::error, "unusable", why.reason), false;
    // Of a name that stands there twice, the library looks at both.
    if (holds_secret(member) || why.reason == "it holds private members") {
      say(severity::error, "secret", why.reason + ": whoever has read it can sign; replace that key now");
      return true;
    }
    if (not_for_signatures(member)) return say(severity::note, "other-use", why.reason), false;
    see_kid(member, why.index, false);
    if (short_modulus(member)) return say(severity::error, "weak-key", why.reason), false;
    if (!known_kind(member)) return say(severity::warning, "unknown-kind", why.reason), false;
    say(severity::error, "unusable", why.reason);
    return false;
  }

  void look_at_key(const json& member, const axioms::jwk& key, std::size_t index, std::size_t count) {
    const std::string kid(key.kid());
    const auto say = [&](severity level, std::string_view rule, const std::string& text) {
      note(level, rule, text, index, kid);
    };
    if (kid.empty()) {
      say(count > 1 ? severity::error : severity::warning, "kid-missing",
          count > 1 ? "no token can name it, and it is not the only one"
                    : "no token can name it once there is a second key");
    }
    if (key.alg().empty()) {
      say(key.kty() == "RSA" ? severity::warning : severity::note, "alg-missing",
          key.kty() == "RSA" ? "it would verify each of six algorithms, also those that were never meant"
                             : "its kind says which algorithm it is for, but not every verifier concludes that");
    }
    if (key.use().empty() && key.key_ops().empty())
      say(severity::note, "use-missing", "nothing says that it is for signatures");
    if (kid.size() > long_kid || (!kid.empty() && plain(kid, long_kid) != kid))
      say(severity::warning, "kid-odd", "the kid is long, or not plain text without blanks");
    // 65537 has four digits in base64url.
    if (key.kty() == "RSA" && text_of(json::parse(key.to_json(), nullptr, false), "e").size() < 4)
      say(severity::warning, "weak-key", "the public exponent is below 65537");
    see_kid(member, index, true);
    const auto [at, fresh] = thumbprints_.emplace(key.thumbprint(), index);
    if (!fresh) say(severity::warning, "key-twice", "the same key as member " + std::to_string(at->second));
  }

  void see_kid(const json& member, std::size_t index, bool usable) {
    const std::string kid = text_of(member, "kid");
    if (kid.empty()) return;
    const seen now{index, text_of(member, "kty"), usable};
    const auto [at, fresh] = kids_.emplace(kid, now);
    if (fresh) return;
    const bool alike = at->second.usable && usable && at->second.kty == now.kty;
    note(alike ? severity::error : severity::warning, "kid-twice",
         "the kid of member " + std::to_string(at->second.member) + " again" +
             (alike ? ": a token that names it may be meant for either" : ""),
         index, kid);
  }

  axioms::jwk_options options_;
  std::vector<finding> found_;
  std::map<std::string, seen> kids_;
  std::map<std::string, std::size_t> thumbprints_;
};

/// Finds what is wrong with the response that brought a set.
inline std::vector<finding> lint_response(const axioms::fetch_response& response, std::string_view asked_url) {
  std::vector<finding> found;
  const auto add = [&](severity level, std::string_view rule, std::string text) {
    found.push_back({level, rule, std::move(text)});
  };
  const std::string_view url = response.url.empty() ? asked_url : std::string_view(response.url);
  if (url.substr(0, 8) != "https://" || asked_url.substr(0, 8) != "https://")
    add(severity::error, "https", "without TLS anybody on the path can exchange the keys");
  if (!response.url.empty() && response.url != asked_url)
    add(severity::note, "redirect", "the set comes from " + plain(response.url, 256) + ": name that URL itself");

  const auto lower = [](std::string_view text) {
    std::string out(text);
    for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    return out;
  };
  std::string type = lower(response.header("Content-Type"));
  type.erase(std::min(type.find_first_of("; \t"), type.size()));
  if (type != "application/json" && type != "application/jwk-set+json")
    add(severity::warning, "content-type",
        "the type is " + plain(type) + ", not application/jwk-set+json or application/json");

  std::string directives;
  for (const auto& [name, value] : response.headers) {
    if (lower(name) == "cache-control") directives += ',' + lower(value);
  }
  directives.erase(std::remove_if(directives.begin(), directives.end(), [](char c) { return c == ' ' || c == '\t'; }),
                   directives.end());
  directives += ',';
  const std::size_t age = directives.find(",max-age=");
  constexpr long long day = 86400;
  long long seconds = -1;
  if (age != directives.npos) {
    const char* const digits = directives.data() + age + 9;
    const auto [end, failed] = std::from_chars(digits, directives.data() + directives.size(), seconds);
    if (failed == std::errc::result_out_of_range) seconds = day + 1;
  }
  if (directives.find(",no-store,") != directives.npos || directives.find(",no-cache,") != directives.npos ||
      seconds == 0)
    add(severity::warning, "cache", "Cache-Control forbids to keep it: a verifier that obeys asks for each token");
  else if (seconds > day)
    add(severity::warning, "cache",
        "it may be kept for more than a day: that long a new or a withdrawn key is not noticed");
  else if (seconds < 0 && response.header("Expires").empty())
    add(severity::note, "cache", "neither Cache-Control nor Expires: each verifier keeps it as long as it likes");
  if (response.header("ETag").empty() && response.header("Last-Modified").empty())
    add(severity::note, "validator", "neither ETag nor Last-Modified: each refresh transfers the whole set");
  return found;
}

inline int count_of(const std::vector<finding>& found, severity level) {
  return static_cast<int>(
      std::count_if(found.begin(), found.end(), [&](const finding& f) { return f.level == level; }));
}

/// Prints what was found, the worst first. Returns 0 if that is notes at most, 1 with an error, 4 with warnings.
inline int show_findings(std::vector<finding> found, bool json) {
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.level > b.level; });
  const int errors = count_of(found, severity::error), warnings = count_of(found, severity::warning);
  const int notes = count_of(found, severity::note);
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const finding& each : found) {
      list.push_back({{"severity", name_of(each.level)}, {"rule", each.rule}, {"text", each.text}});
      if (each.member) list.back()["member"] = *each.member;
      if (each.member) list.back()["kid"] = each.kid;
    }
    const nlohmann::json out = {{"findings", list}, {"errors", errors}, {"warnings", warnings}, {"notes", notes}};
    std::printf("%s\n", out.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    for (const finding& each : found) {
      const colour which = each.level == severity::error     ? colour::red
                           : each.level == severity::warning ? colour::yellow
                                                             : colour::blue;
      const std::string where =
          each.member ? "member " + std::to_string(*each.member) + ", kid " + plain(each.kid) + ": " : std::string();
      std::printf("%s [%s] %s%s\n", painted(which, name_of(each.level)).c_str(), std::string(each.rule).c_str(),
                  where.c_str(), each.text.c_str());
    }
    std::printf("errors: %d, warnings: %d, notes: %d\n", errors, warnings, notes);
  }
  return errors > 0 ? 1 : warnings > 0 ? 4 : 0;
}

}  // namespace demo

#endif
