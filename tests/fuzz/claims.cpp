// Any text as the claims of a token that is good otherwise: signed here, with a good header. What is accepted is, by nlohmann's
// reading too, within the rules, and shown as nlohmann reads it.
#include "tokens.hpp"

#include <algorithm>

namespace {

using axioms::claim_view;
using nlohmann::json;

const json* find(const json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// Whether nlohmann sees a string, or one of an array of nothing but strings.
bool names_us(const json& aud) {
  const json us = "https://api.example.com";
  if (!aud.is_array()) return aud == us;
  const bool strings = std::all_of(aud.begin(), aud.end(), [](const json& each) { return each.is_string(); });
  return strings && std::find(aud.begin(), aud.end(), us) != aud.end();
}

bool is_date(const json& value) {
  return value.is_number() && value.get<double>() >= -62135596800.0 && value.get<double>() < 253402300800.0;
}
bool is_digits(const json& value) {
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return !text.empty() && text.size() <= 12 && text.find_first_not_of("0123456789") == std::string::npos;
}
// Up to a minute ahead.
bool is_past(const json* when, bool text_too) {
  if (when == nullptr) return true;
  if (text_too && is_digits(*when)) return std::stod(when->get<std::string>()) <= 1790000060;
  return is_date(*when) && when->get<double>() <= 1790000060;
}

// The rules, by nlohmann's reading.
bool within_rules(const json& claims) {
  if (!claims.is_object()) return false;
  const json *iss = find(claims, "iss"), *aud = find(claims, "aud"), *exp = find(claims, "exp");
  const json *sub = find(claims, "sub"), *jti = find(claims, "jti");
  return iss != nullptr && *iss == "https://idp.example.com/" && aud != nullptr && names_us(*aud) && exp != nullptr &&
         is_date(*exp) && exp->get<double>() > 1789999940 && is_past(find(claims, "nbf"), false) &&
         is_past(find(claims, "iat"), true) && (sub == nullptr || sub->is_string()) &&
         (jti == nullptr || jti->is_string()) && find(claims, "cnf") == nullptr;
}

void check_view(claim_view view, const json& value) {
  using kind = claim_view::kind;
  fuzz::check(static_cast<bool>(view), "what is there is seen");
  fuzz::check(view.type() == (value.is_null()      ? kind::null
                              : value.is_boolean() ? kind::boolean
                              : value.is_number()  ? kind::number
                              : value.is_string()  ? kind::string
                              : value.is_array()   ? kind::array
                                                   : kind::object),
              "a value is of the same kind");
  fuzz::check(!value.is_string() || view.string() == value.get<std::string>(), "a string is the same");
  fuzz::check(!value.is_boolean() || view.boolean() == value.get<bool>(), "a boolean is the same");
  fuzz::check(!value.is_number() || view.number() == value.get<double>(), "a number is the same");
  if (value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX))
    fuzz::check(view.integer() == value.get<std::int64_t>(), "a whole number is the same");
  fuzz::check(view.size() == (value.is_structured() ? value.size() : 0), "there are as many in it");
  std::size_t at = 0;
  for (const claim_view each : view) {
    if (value.is_array()) {
      check_view(each, value[at++]);
      continue;
    }
    const auto found = value.find(std::string(each.name()));
    fuzz::check(found != value.end(), "a member is called the same");
    check_view(each, *found);
  }
}

// Paths lead where nlohmann's lead; a name without a slash is a member's.
void check_paths(const axioms::verified_token& token, const json& claims) {
  for (const auto& [name, value] : claims.items()) {
    const std::string path = (json::json_pointer() / name).to_string();
    check_view(token[path], value);
    if (!name.starts_with('/')) check_view(token[name], value);
    if (value.is_array() && !value.empty()) check_view(token[path + "/0"], value[0]);
  }
  fuzz::check(!token["/no such/claim"] || claims.contains("no such"), "a path to nowhere leads nowhere");
}

void check_scopes(const axioms::verified_token& token, const json& claims) {
  fuzz::check(!token.has_scope(""), "nobody holds the empty name");
  const json* scope = find(claims, "scope");
  if (scope == nullptr) return;
  const bool read = token.has_scope("orders:read");
  fuzz::check(token.require({.all_scopes = {"orders:read"}}).has_value() == read, "require() asks has_scope()");
  if (scope->is_string()) {
    fuzz::check(read == ((' ' + scope->get<std::string>() + ' ').find(" orders:read ") != std::string::npos),
                "a string is a list with blanks");
  } else {
    fuzz::check(read == (scope->is_array() && std::find(scope->begin(), scope->end(), "orders:read") != scope->end()),
                "an array is a list of names, nothing else grants");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  axioms::token_rules rules = fuzz::plain_rules();
  rules.max_token_bytes = 1 << 20;
  const std::string token = fuzz::signer().sign(fuzz::good_header, input);
  const auto verdict = fuzz::verify(token, rules);
  const json claims = json::parse(input, nullptr, false);
  if (verdict) {
    fuzz::check(within_rules(claims), "what is accepted is within the rules");
    fuzz::check(verdict->payload() == input && verdict->token() == token, "it holds what was signed");
    check_view(verdict->claims(), claims);
    check_paths(*verdict, claims);
    check_scopes(*verdict, claims);
  } else if (!claims.is_object()) {
    fuzz::check(verdict.error().code == axioms::errc::malformed_token, "what is no object is malformed");
  }

  // Written by nlohmann no name stands twice, so that it must be accepted if it is within the rules.
  if (!claims.is_discarded()) {
    const auto anew = fuzz::verify(fuzz::signer().sign(fuzz::good_header, claims.dump()), rules);
    fuzz::check(anew.has_value() == (within_rules(claims) && fuzz::within_limits(claims)),
                "what is within the rules is accepted");
  }

  rules.accept_bound = true;
  rules.audience_claim = "client_id";
  fuzz::check(!verdict || fuzz::verify(token, rules).has_value(), "laxer rules accept no less");
  rules.required_claims = {"/realm_access/roles/0"};
  rules.required_values = {{"/token_use", {"access"}}};
  if (const auto strict = fuzz::verify(token, rules)) {
    const claim_view role = (*strict)["/realm_access/roles/0"], use = (*strict)["token_use"];
    fuzz::check(role && role.type() != claim_view::kind::null, "what is required is there");
    fuzz::check(use.string() == "access" || use.type() == claim_view::kind::array, "a required value is there");
  }
  return 0;
}
