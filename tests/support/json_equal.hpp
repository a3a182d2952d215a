// The reader's tree beside nlohmann's own values: the same text must mean the same to both.
#ifndef AXIOMS_JWKS_TESTS_JSON_EQUAL_HPP
#define AXIOMS_JWKS_TESTS_JSON_EQUAL_HPP

#include "axioms_jwks.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace support {

using axioms::detail::json_node;

inline bool equal(const json_node& node, const nlohmann::json& value);

// Of equal names nlohmann keeps the last, as find() does.
inline bool equal_object(const json_node& node, const nlohmann::json& value) {
  std::set<std::string_view> names;
  std::size_t members = 0;
  for (const json_node& each : node) {
    names.insert(each.name);
    ++members;
  }
  if (names.size() != value.size() || members != node.count || node.twice != (names.size() < members)) return false;
  for (const auto& [name, member] : value.items()) {
    const json_node* found = node.find(name);
    if (found == nullptr || !equal(*found, member)) return false;
  }
  return true;
}

inline bool equal(const json_node& node, const nlohmann::json& value) {
  using kind = json_node::kind;
  switch (node.type) {
    case kind::null: return value.is_null();
    case kind::boolean: return value.is_boolean() && value.get<bool>() == (node.integer == 1);
    case kind::integer:
      return value.is_number_integer() && value.get<std::int64_t>() == node.integer &&
             (value.get<std::int64_t>() < 0) == (node.real < 0) && value.get<double>() == node.real;
    case kind::real: return (value.is_number_float() || value.is_number_unsigned()) && value.get<double>() == node.real;
    case kind::string:
      return value.is_string() && value.get_ref<const std::string&>() == node.text && node.text.size() == node.count;
    case kind::array: {
      if (!value.is_array() || value.size() != node.count) return false;
      std::size_t index = 0;
      for (const json_node& each : node) {
        if (!equal(each, value[index++])) return false;
      }
      return index == node.count;
    }
    case kind::object: return value.is_object() && equal_object(node, value);
  }
  return false;
}

inline std::size_t depth_of(const nlohmann::json& value) {
  if (!value.is_structured()) return 0;
  std::size_t most = 0;
  for (const auto& each : value) most = std::max(most, depth_of(each));
  return most + 1;
}
inline std::size_t values_in(const nlohmann::json& value) {
  std::size_t all = 1;
  if (value.is_structured()) {
    for (const auto& each : value) all += values_in(each);
  }
  return all;
}

// What is wrong between the two, or nothing. The reader refuses more: zero bytes, depth, number of values.
inline std::string difference(std::string_view text) {
  const auto tree = axioms::detail::json_tree::read(text, {});
  const nlohmann::json value = nlohmann::json::parse(text, nullptr, false);
  if (tree && value.is_discarded()) return "the reader takes what nlohmann refuses";
  if (tree && text.find('\0') != text.npos) return "the reader takes a zero byte";
  if (tree) return equal(tree->root(), value) ? "" : "the values differ";
  if (value.is_discarded() || text.find('\0') != text.npos) return "";
  // Of equal names nlohmann's value keeps one, so it may look smaller than the text.
  const bool small = text.size() < 32 || (depth_of(value) <= 32 && std::count(text.begin(), text.end(), ',') < 65000);
  const bool twice = tree.error().description.find("nested") != std::string::npos ||
                     tree.error().description.find("values") != std::string::npos;
  return small && !twice ? "the reader refuses what nlohmann takes" : "";
}

}  // namespace support

#endif
