// Prints how each identity provider is configured, as the table of providers.md. Works offline and without arguments.
// Exits non-zero if one of the configurations is none.
#include "support/providers.hpp"
#include "axioms_jwks.hpp"

#include <iostream>
#include <string_view>

namespace {

using names = std::vector<std::string>;

std::string in_quotes(std::string_view text) { return '"' + std::string(text) + '"'; }
std::string braced(const names& all) {
  std::string out;
  for (const auto& each : all) out += (out.empty() ? "{" : ", ") + in_quotes(each);
  return out + '}';
}

/// What differs from the defaults, as designated initializers, a line each.
class initializers {
 public:
  void add(std::string_view option, const std::string& value) {
    if (!text_.empty()) text_ += "<br>";
    text_.append("`.").append(option).append(" = ").append(value).append("`");
  }
  void text(std::string_view option, const std::string& value) {
    if (!value.empty()) add(option, in_quotes(value));
  }
  void list(std::string_view option, const names& values, const names& otherwise = {}) {
    if (values != otherwise) add(option, braced(values));
  }
  const std::string& str() const { return text_; }

 private:
  std::string text_;
};

std::string shown(const axioms::jwks_config& keys) {
  initializers out;
  out.text("jwks_url", keys.jwks_url);
  out.text("issuer", keys.issuer);
  if (keys.discovery) out.add("discovery", "true");
  return out.str();
}

std::string shown(const axioms::token_rules& rules) {
  const axioms::token_rules otherwise;
  initializers out;
  out.text("issuer", rules.issuer);
  out.list("audience", rules.audience);
  out.text("jwks_url", rules.jwks_url);
  for (const auto& [claim, values] : rules.required_values)
    out.add("required_values", "{{" + in_quotes(claim) + ", " + braced(values) + "}}");
  out.text("audience_claim", rules.audience_claim);
  out.text("trust_domain", rules.trust_domain);
  out.list("role_claims", rules.role_claims, otherwise.role_claims);
  return out.str();
}

}  // namespace

int main() {
  int wrong = 0;
  std::cout << "| provider | `jwks_config` | `token_rules` | remarks |\n|---|---|---|---|\n";
  for (const auto& each : providers::all()) {
    wrong += each.keys.validate() ? 0 : 1;
    std::string rules;
    for (const auto& one : each.rules) {
      wrong += one.validate() ? 0 : 1;
      rules += (rules.empty() ? "" : "<br>and<br>") + shown(one);
    }
    std::cout << "| " << each.name << " | " << shown(each.keys) << " | " << rules << " | " << each.remarks << " |\n";
  }
  return wrong;
}
