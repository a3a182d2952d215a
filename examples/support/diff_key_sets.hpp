// What differs between two key sets.
#ifndef AXIOMS_JWKS_EXAMPLES_DIFF_KEY_SETS_HPP
#define AXIOMS_JWKS_EXAMPLES_DIFF_KEY_SETS_HPP

#include "axioms_jwks.hpp"
#include "terminal.hpp"

#include <nlohmann/json.hpp>

#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace demo {

/// The keys of one kid before and after, each as its public members and its thumbprint.
struct key_change {
  std::set<std::pair<std::string, std::string>> before, after;
};

/// By kid, which is from outside. The order of a set says nothing, and is not compared.
inline std::map<std::string, key_change> difference(const axioms::jwk_set& before, const axioms::jwk_set& after) {
  std::map<std::string, key_change> out;
  for (const auto& key : before) out[std::string(key->kid())].before.emplace(key->to_json(), key->thumbprint());
  for (const auto& key : after) out[std::string(key->kid())].after.emplace(key->to_json(), key->thumbprint());
  for (auto at = out.begin(); at != out.end();) at = at->second.before == at->second.after ? out.erase(at) : ++at;
  return out;
}

/// Prints it. Returns 0 if both hold the same keys, 1 if they do not.
inline int show_difference(const axioms::jwk_set& before, const axioms::jwk_set& after, bool json) {
  const auto changes = difference(before, after);
  const auto text_of = [](const nlohmann::json& value) {
    return value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  };
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [kid, change] : changes) {
    nlohmann::json entry = {{"kid", kid}, {"before", nlohmann::json::array()}, {"after", nlohmann::json::array()}};
    for (const auto& [side, other, name, mark] : {std::tuple(&change.before, &change.after, "before", '-'),
                                                  std::tuple(&change.after, &change.before, "after", '+')}) {
      for (const auto& key : *side) {
        nlohmann::json members = nlohmann::json::parse(key.first, nullptr, false);
        entry[name].push_back(members);
        if (json || other->count(key) != 0) continue;
        for (const char* material : {"n", "e", "x", "y", "pub", "kid"}) members.erase(material);
        const std::string line = mark + (' ' + plain(kid)) + "  " + text_of(members) + ' ' + key.second;
        std::printf("%s\n", painted(mark == '-' ? colour::red : colour::green, line).c_str());
      }
    }
    list.push_back(std::move(entry));
  }
  if (json) {
    std::printf("%s\n", text_of({{"same", changes.empty()}, {"changes", list}}).c_str());
  } else {
    std::printf("%s\n",
                changes.empty() ? "the same keys" : ("kids that differ: " + std::to_string(changes.size())).c_str());
  }
  return changes.empty() ? 0 : 1;
}

}  // namespace demo

#endif
