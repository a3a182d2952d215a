// Reads the rows of tests/vectors/tokens/*.json; its README.md says what their members mean.
#ifndef AXIOMS_JWKS_TESTS_TOKEN_CORPUS_HPP
#define AXIOMS_JWKS_TESTS_TOKEN_CORPUS_HPP

#include "axioms_jwks.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

using token_names = std::vector<std::string>;

// What a good token grants, or does not.
struct token_grants {
  token_names scopes, roles, permissions;
};

struct token_row {
  std::string name, token;
  std::vector<axioms::token_rules> rules;  // of several issuers all of them
  bool several = false;
  std::map<std::string, std::string> sets;  // URL -> text; under "" that of the configured URL
  std::chrono::system_clock::time_point now;
  token_names expected;  // "good" or names of errc: one of them
  bool es256k = false;
  int fetches = 0;  // beyond the manager's first, for the first verification; -1: not said
  token_grants grants, denies;

  bool expects(std::string_view code) const {
    return std::find(expected.begin(), expected.end(), code) != expected.end();
  }
  bool is_good() const { return expects("good"); }
  axioms::jwk_options options() const {
    axioms::jwk_options out;
    out.allow_es256k = es256k;
    return out;
  }
};

struct token_corpus {
  std::vector<token_row> rows;
  std::map<std::string, std::string> sets;  // by their names

  const token_row& named(std::string_view name) const {
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const token_row& row) { return row.name == name; });
    REQUIRE_MESSAGE(found != rows.end(), "no row ", std::string(name));
    return *found;
  }
};

namespace token_corpus_detail {

using json = nlohmann::json;

template <class T>
void take(const json& from, const char* name, T& to) {
  if (const auto found = from.find(name); found != from.end()) found->get_to(to);
}

inline axioms::token_rules rules_of(const json& from, const json& file) {
  axioms::token_rules out;
  file.at("issuer").get_to(out.issuer);
  out.audience = {file.at("audience").get<std::string>()};
  std::size_t known = 0;
  const auto read = [&](const char* name, auto& to) {
    known += from.contains(name) ? 1U : 0U;
    take(from, name, to);
  };
  read("issuer", out.issuer);
  read("audience", out.audience);
  read("jwks_url", out.jwks_url);
  read("algorithms", out.algorithms);
  read("types", out.types);
  read("rfc9068", out.rfc9068);
  read("required_claims", out.required_claims);
  read("required_values", out.required_values);
  auto leeway = static_cast<int>(out.leeway.count());
  read("leeway", leeway);
  out.leeway = std::chrono::seconds(leeway);
  read("audience_claim", out.audience_claim);
  read("any_audience", out.any_audience);
  read("trust_domain", out.trust_domain);
  read("accept_bound", out.accept_bound);
  read("scope_claims", out.scope_claims);
  read("role_claims", out.role_claims);
  read("permission_claims", out.permission_claims);
  read("split_roles", out.split_roles);
  read("max_token_bytes", out.max_token_bytes);
  REQUIRE_MESSAGE(known == from.size(), "unknown rules in ", from.dump());
  if (!out.trust_domain.empty()) out.issuer.clear();
  return out;
}

inline token_grants grants_of(const json& row, const char* name) {
  token_grants out;
  if (const auto found = row.find(name); found != row.end()) {
    take(*found, "scopes", out.scopes);
    take(*found, "roles", out.roles);
    take(*found, "permissions", out.permissions);
  }
  return out;
}

inline token_row row_of(const json& row, const json& file, const std::map<std::string, std::string>& sets) {
  token_row out;
  row.at("name").get_to(out.name);
  row.at("token").get_to(out.token);
  if (const json& expected = row.at("expected"); expected.is_array()) {
    expected.get_to(out.expected);
  } else {
    out.expected = {expected.get<std::string>()};
  }
  auto now = file.at("now").get<std::int64_t>();
  take(row, "now", now);
  out.now = std::chrono::system_clock::time_point(std::chrono::seconds(now));
  out.several = row.contains("several");
  if (out.several) {
    for (const json& each : row.at("several")) out.rules.push_back(rules_of(each, file));
    for (const auto& [url, name] : row.at("sets").items()) out.sets[url] = sets.at(name.get<std::string>());
  } else {
    out.rules.push_back(rules_of(row.value("rules", json::object()), file));
    out.sets[""] = row.contains("jwks") ? row.at("jwks").dump() : sets.at(row.value("set", "all"));
  }
  take(row, "es256k", out.es256k);
  take(row, "fetches", out.fetches);
  out.grants = grants_of(row, "grants");
  out.denies = grants_of(row, "denies");
  return out;
}

}  // namespace token_corpus_detail

/// The file of that name ("corpus", "providers"); read once.
inline const token_corpus& read_token_corpus(const char* name) {
  static std::map<std::string, token_corpus> all;
  token_corpus& out = all[name];
  if (!out.rows.empty()) return out;
  std::ifstream in(std::string(AXIOMS_JWKS_TEST_VECTORS "/tokens/") + name + ".json", std::ios::binary);
  REQUIRE_MESSAGE(in, name, ".json cannot be read");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const auto file = nlohmann::json::parse(text, nullptr, false);
  REQUIRE(file.is_object());
  if (const auto sets = file.find("sets"); sets != file.end()) {
    for (const auto& [set, keys] : sets->items()) out.sets[set] = keys.dump();
  }
  for (const auto& row : file.at("rows")) out.rows.push_back(token_corpus_detail::row_of(row, file, out.sets));
  return out;
}

/// The rows of both files.
inline std::vector<const token_row*> all_token_rows() {
  std::vector<const token_row*> out;
  for (const char* name : {"corpus", "providers"}) {
    for (const token_row& row : read_token_corpus(name).rows) out.push_back(&row);
  }
  return out;
}

}  // namespace support

#endif
