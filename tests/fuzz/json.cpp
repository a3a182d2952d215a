// Any text as JSON: the reader takes nothing that nlohmann refuses, and the values that it keeps are nlohmann's.
#include "check.hpp"
#include "support/json_equal.hpp"

#include <array>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using axioms::detail::json_node, axioms::detail::json_tree;
  const std::string_view input = fuzz::text_of(data, size);
  const std::string wrong = support::difference(input);
  fuzz::check(wrong.empty(), wrong.c_str());

  // What is not kept changes neither the nodes nor the names.
  constexpr std::array<std::string_view, 3> unkept{"d", "x5c", ""};
  const auto whole = json_tree::read(input, {}), less = json_tree::read(input, {.unkept = unkept});
  fuzz::check(whole.has_value() == less.has_value(), "what is kept does not change what is JSON");
  if (!whole) {
    fuzz::check_shown(whole.error());
    return 0;
  }
  fuzz::check(whole->nodes.size() == less->nodes.size() && whole->root().span == whole->nodes.size(), "the same nodes");
  for (std::size_t i = 0; i < whole->nodes.size(); ++i) {
    const json_node &a = whole->nodes[i], &b = less->nodes[i];
    fuzz::check(a.type == b.type && a.count == b.count && a.span == b.span && a.name == b.name && a.twice == b.twice,
                "the same nodes");
    fuzz::check(b.text.empty() || b.text == a.text, "a text is kept or lost");
  }
  return 0;
}
