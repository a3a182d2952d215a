// The reader of all JSON: what it keeps of a text, what it refuses, and what that means for key sets, metadata and saved caches.
//
// "Red when" names a change to the header that makes the test fail.
#include "axioms_jwks.hpp"
#include "support/json_equal.hpp"
#include "support/jwk_text.hpp"
#include "support/rig.hpp"
#include "vectors/keys.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using axioms::errc, axioms::detail::json_node, axioms::detail::json_rules, axioms::detail::json_tree;
using kind = json_node::kind;

namespace {

json_tree tree_of(std::string_view text, const json_rules& rules = {}) {
  auto tree = json_tree::read(text, rules);
  REQUIRE(tree);
  return *std::move(tree);
}
std::string fault_of(std::string_view text, const json_rules& rules = {}) {
  const auto tree = json_tree::read(text, rules);
  REQUIRE_FALSE(tree);
  CHECK(tree.error().code == rules.code);
  return tree.error().description;
}

}  // namespace

// ---- what it keeps -------------------------------------------------------------------------------

TEST_CASE("every kind of value is kept as it is") {
  const json_tree tree = tree_of(
      R"( {"a":null,"b":[true,false],"c":-7,"d":9223372036854775807,"e":1.5,"f":"x\u0000\u00e9\ud83d\ude00\"","":{}} )");
  const json_node& root = tree.root();
  CHECK(root.type == kind::object);
  CHECK(root.count == 7);
  CHECK(root.span == tree.nodes.size());
  CHECK_FALSE(root.twice);
  CHECK(root.find("a")->type == kind::null);
  REQUIRE(root.find("b")->count == 2);
  std::vector<std::int64_t> truths;
  for (const json_node& each : *root.find("b")) truths.push_back(each.integer);
  CHECK(truths == std::vector<std::int64_t>{1, 0});
  CHECK(root.find("c")->integer == -7);
  CHECK(root.find("c")->real == -7);
  CHECK(root.find("d")->integer == 9223372036854775807);
  CHECK(root.find("e")->type == kind::real);
  CHECK(root.find("e")->real == 1.5);
  CHECK(root.find("f")->text == std::string_view("x\0\xc3\xa9\xf0\x9f\x98\x80\"", 9));
  CHECK(root.find("f")->count == 9);
  CHECK(root.find("")->type == kind::object);
  CHECK(root.find("x") == nullptr);
  CHECK(root.find("b", kind::array) == root.find("b"));
  CHECK(root.find("b", kind::object) == nullptr);
  CHECK(root.find("f")->find("x") == nullptr);
  CHECK(tree_of("7").root().integer == 7);
}

// Red when it is wrapped to a negative one.
TEST_CASE("a whole number beyond 64 bits with sign is kept as a real one") {
  const json_tree tree = tree_of("[9223372036854775808,18446744073709551615,-9223372036854775808,1e2]");
  std::vector<kind> kinds;
  std::vector<double> values;
  for (const json_node& each : tree.root()) {
    kinds.push_back(each.type);
    values.push_back(each.real);
  }
  CHECK(kinds == std::vector<kind>{kind::real, kind::real, kind::integer, kind::real});
  CHECK(values == std::vector<double>{9223372036854775808.0, 18446744073709551615.0, -9223372036854775808.0, 100});
}

TEST_CASE("the texts do not move with the tree") {
  json_tree tree = tree_of(R"(["short"])");
  const char* const before = tree.nodes[1].text.data();
  const json_tree moved = std::move(tree);
  CHECK(moved.nodes[1].text == "short");
  CHECK(moved.nodes[1].text.data() == before);
}

TEST_CASE("what holds nothing is null and whatever is empty, and nothing else") {
  const json_tree tree = tree_of(R"([null,"",[],{},0,false," ",[null],{"":null}])");
  std::string nothing;
  for (const json_node& each : tree.root()) nothing += each.holds_nothing() ? '1' : '0';
  CHECK(nothing == "111100000");
}

// Red when the names of an object are not all compared, or with those of another object.
TEST_CASE("a name that stands twice in an object is told, however it is spelt, and of two the last is found") {
  const auto twice = [](std::string_view text) { return tree_of(text).root().twice; };
  CHECK(twice(R"({"a":1,"a":2})"));
  CHECK(twice(R"({"a":1,"\u0061":2})"));
  CHECK(twice(R"({"\u0061b":1,"c":0,"\u0061\u0062":2})"));
  CHECK(twice(R"({"":1,"":2})"));
  CHECK(twice(R"({"a\u0000":1,"a\u0000":2})"));
  CHECK_FALSE(twice(R"({"a":1,"A":2,"a ":3,"a\u0000":4,"aa":5})"));
  CHECK_FALSE(twice(R"({"a":{"a":{"a":1}},"b":{"a":1},"c":["a","a"]})"));
  const json_tree tree = tree_of(R"({"a":1,"b":{"x":1,"y":{"z":1,"z":2},"x":2},"a":[3]})");
  CHECK(tree.root().find("a")->type == kind::array);
  CHECK(tree.root().find("b")->twice);
  CHECK(tree.root().find("b")->find("x")->integer == 2);
  CHECK(tree.root().find("b")->find("y")->twice);
  for (const std::size_t names : {2U, 15U, 16U, 17U, 1000U}) {
    for (const std::size_t again : {std::size_t{0}, names / 2, names - 1}) {
      std::string text = "{";
      for (std::size_t i = 0; i < names; ++i) text += "\"n" + std::to_string(i) + "\":0,";
      CHECK_FALSE(twice(text + "\"m\":0}"));
      CHECK(twice(text + "\"n" + std::to_string(again) + "\":0}"));
    }
  }
}

// Red when the texts are kept, also those behind a container that ends in one that is not kept, when a whole container is left out
// (x5c would hide a private key), or when what follows is lost.
TEST_CASE("what stands under a name that is not kept loses its texts, not its nodes and names") {
  constexpr std::array<std::string_view, 2> unkept{"d", "x5c"};
  const json_tree tree = tree_of(
      R"({"a":"1","d":"secret","b":"2","x5c":["secret",{"n":"secret","d":{"e":[[],12345,1.5,true,"secret"],"g":"secret"},"f":"","h":"secret"},"secret"],"c":"3",)"
      R"("\u0064":777,"list":["d",{"d":[]},"4"]})",
      {.unkept = unkept});
  std::string texts;
  for (const json_node& each : tree.nodes) {
    texts += each.text;
    CHECK((each.integer == 0 && each.real == 0));
  }
  CHECK(texts == "123d4");
  CHECK(tree.root().twice);
  const json_node& x5c = *tree.root().find("x5c");
  CHECK(x5c.type == kind::array);
  CHECK(x5c.count == 3);
  const json_node& inner = *(++x5c.begin());
  CHECK(inner.find("n")->type == kind::string);
  CHECK(inner.find("n")->count == 6);
  CHECK_FALSE(inner.find("n")->holds_nothing());
  CHECK(inner.find("d")->find("e")->count == 5);
  CHECK(inner.find("f")->holds_nothing());
  CHECK(tree.root().find("d")->type == kind::integer);
}

// Red when an escaped backslash counts as one that escapes the quote behind it.
TEST_CASE("where a string ends is nlohmann's to say, however many backslashes stand before its quote") {
  for (const std::string_view text :
       {R"(["a\\","b","c"])", R"(["a\\\\","b","c"])", R"(["a\"","b","c"])", R"({"\\":"\\\"","b":["\\",""],"":"c"})",
        R"(["a\\\",","b","\\"])", R"(["","\u00e9","plain","\\"])", "[\"\x7f\",\"\xc3\xa9\",\"\xc3\",\"b\"]"}) {
    CAPTURE(text);
    CHECK(support::difference(text) == "");
  }
  CHECK(json_tree::read(R"(["a\\","b","c"])", {}));
  CHECK(json_tree::read(R"({"\\":"\\\"","b":["\\",""],"":"c"})", {}));
  CHECK_FALSE(json_tree::read("[\"a\xff z\",\"b\"]", {}));
}

// ---- what it refuses -----------------------------------------------------------------------------

TEST_CASE("a text that is no JSON is refused with the byte where it ends to be some, and quoted nowhere") {
  CHECK(fault_of("") == "is no JSON from byte 1 on");
  CHECK(fault_of("secret") == "is no JSON from byte 1 on");
  CHECK(fault_of(R"({"secret":"secret)") == "is no JSON from byte 18 on");
  CHECK(fault_of(R"({"a":secret})") == "is no JSON from byte 6 on");
  CHECK(fault_of(R"({"a":1} secret)") == "is no JSON from byte 9 on");
  CHECK(fault_of("[1e999]").find("is no JSON from byte ") == 0);
  CHECK(fault_of("[\"\xff\"]").find("is no JSON from byte ") == 0);
  CHECK(fault_of(R"(["\ud800"])").find("is no JSON from byte ") == 0);
  for (const std::string_view bad : {"nul", "{", "[", "[1,]", R"({"a"})", R"({"a":})", "{a:1}", "01", "+1", "'a'",
                                     "[1]]", "// x\n[]", "[\"\t\"]", "NaN", "\xef\xbb"}) {
    CAPTURE(bad);
    CHECK(fault_of(bad).find("is no JSON from byte ") == 0);
  }
  CHECK(json_tree::read("\xef\xbb\xbf[]", {}));
}

// Red when the search is left out: behind the value the parser takes a zero byte for the end of the text.
TEST_CASE("a zero byte is refused before the parser sees the text") {
  const std::string text = R"({"a":"b"} )";
  for (std::size_t at = 0; at <= text.size(); ++at) {
    const std::string with_zero = text.substr(0, at) + '\0' + text.substr(at);
    CHECK(fault_of(with_zero) == "is no JSON from byte " + std::to_string(at + 1) + " on, a zero byte");
  }
}

// Red when a limit is compared with the other sign, or not at all.
TEST_CASE("bytes, depth and number of values are limited by whoever asks") {
  CHECK(json_tree::read("[1,2]", {.bytes = 5, .depth = 1, .values = 3}));
  CHECK(fault_of("[1,2]", {.bytes = 4}) == "is over the limit of 4 bytes");
  CHECK(fault_of("[1,2]", {.values = 2}) == "holds more than 2 values");
  CHECK(fault_of("[[]]", {.values = 1}) == "holds more than 1 values");
  CHECK(fault_of(R"({"a":[]})", {.depth = 1}) == "is nested deeper than 1 levels");
  CHECK(json_tree::read("[[],{},[[]],[[]]]", {.depth = 3}));
  CHECK(fault_of(std::string(100000, '['), {.depth = 3}) == "is nested deeper than 3 levels");
  CHECK(fault_of("7 ", {.code = errc::malformed_token, .bytes = 1}) == "is over the limit of 1 bytes");
  // Whatever is wrong, the error's code is that of whoever asked.
  for (const std::string_view bad : {"{", "7 7", "[[]]", "[0,0,0]"})
    CHECK(fault_of(bad, {.code = errc::malformed_token, .depth = 1, .values = 3}) != "");
  CHECK(fault_of({"7\0", 2}, {.code = errc::malformed_token}) == "is no JSON from byte 2 on, a zero byte");
}

// ---- beside nlohmann's own values ----------------------------------------------------------------

namespace {

// Cuts, doubles, swaps and overwrites, mostly with what JSON is made of.
std::string mutated(std::string text, std::mt19937_64& random) {
  constexpr std::string_view pieces = "{}[]\",:\\u0078 \n0123456789-+.eEtfn\x7f\x80\xc3\xff";
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random() % n); };
  for (std::size_t changes = 1 + below(4); changes > 0 && !text.empty(); --changes) {
    const std::size_t at = below(text.size()), length = below(std::min<std::size_t>(text.size() - at, 40) + 1);
    switch (below(6)) {
      case 0: text.erase(at, length); break;
      case 1: text.insert(below(text.size()), text.substr(at, length)); break;
      case 2: text.insert(at, 1, pieces[below(pieces.size())]); break;
      case 3: text[at] = static_cast<char>(random()); break;
      case 4: std::swap(text[at], text[below(text.size())]); break;
      default: text[at] = pieces[below(pieces.size())]; break;
    }
  }
  return text;
}

}  // namespace

TEST_CASE("a mutated set means to the reader what it means to nlohmann, value by value" * doctest::test_suite("slow")) {
  const char* const asked = std::getenv("AXIOMS_JWKS_TEST_MUTATIONS");
  const int count = asked != nullptr ? std::atoi(asked) : 2000;
  const std::string sets[] = {
      support::set_of({support::with(vectors::p256_jwk, R"("kid":"a\u0062","x5c":["MIIC"],"iat":1.5e3,"ext":true)"),
                       std::string(support::rfc8037), "null", R"({"n":[{},[],-0,18446744073709551615]})"}),
      R"({"a":{"b":{"c":[1,[2,[3]]]}},"a":{"\u0062":"\ud83d\ude00"},"":"","k":[true,false,null]})",
      R"([[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]])"};
  std::mt19937_64 random(7517);
  int good = 0;
  for (int i = 0; i < count; ++i) {
    const std::string text = mutated(sets[random() % std::size(sets)], random);
    const std::string wrong = support::difference(text);
    if (!wrong.empty()) {
      CAPTURE(text);
      FAIL_CHECK(wrong);
    }
    good += json_tree::read(text, {}) ? 1 : 0;
  }
  CHECK(good > count / 50);
  CHECK(good < count);
}

// ---- whose rule it is what a name means that stands twice ----------------------------------------

TEST_CASE("in metadata the last of equal names counts, null is as good as absent, and a zero byte is refused") {
  using axioms::detail::verdict;
  axioms::jwks_config config;
  config.issuer = "https://idp.example.com";
  config.discovery = true;
  const auto source = axioms::detail::metadata_source_of(config);
  REQUIRE(source);
  const auto judged = [&](const std::string& body) {
    axioms::fetch_request request;
    request.url = source->urls[0];
    return axioms::detail::judge_metadata(request, support::response(200, body), *source, {});
  };
  const std::string issuer = R"("issuer":"https://idp.example.com")", uri = R"("jwks_uri":"https://keys.example.com/")";
  const std::string good = "{" + issuer + "," + uri + "}";
  CHECK(judged(good).what == verdict::kind::found);
  const auto last =
      judged("{" + issuer + R"(,"jwks_uri":"https://first/",)" + uri + "," + R"("\u006awks_uri":"https://last/"})");
  CHECK(last.what == verdict::kind::found);
  CHECK(last.jwks_uri == "https://last/");
  CHECK(judged(R"({"issuer":"https://other",)" + issuer + "," + uri + "}").what == verdict::kind::found);
  CHECK(judged("{" + issuer + R"(,"issuer":"https://other",)" + uri + "}").what != verdict::kind::found);
  CHECK(judged("{" + issuer + "," + uri + R"(,"jwks_uri":null})").why.description.find("no string named jwks_uri") !=
        std::string::npos);
  CHECK(judged("{" + issuer + "," + uri + R"(,"registration_endpoint":null})").what == verdict::kind::found);
  for (std::size_t at = 0; at <= good.size(); ++at) {
    const auto said = judged(good.substr(0, at) + '\0' + good.substr(at));
    CHECK(said.what != verdict::kind::found);
    CHECK(said.why.code == errc::not_a_key_set);
    CHECK(said.why.description.find("is no JSON from byte " + std::to_string(at + 1) + " on, a zero byte") !=
          std::string::npos);
  }
}

TEST_CASE("in a saved cache the last of equal names counts, and a zero byte is refused" * doctest::test_suite("slow")) {
  support::rig r;
  r.start();
  const std::string saved = r.manager.export_cache();
  const auto begin = saved.find(R"({"url")");
  REQUIRE(begin != std::string::npos);
  const auto taken = [](const std::string& text) {
    support::rig next;
    const auto count = next.manager.import_cache(text);
    return count ? std::to_string(*count) : count.error().description;
  };
  CHECK(taken(saved) == "1");
  CHECK(taken(saved.substr(0, begin + 1) + R"("url":"https://first/","body":7,)" + saved.substr(begin + 1)) == "1");
  CHECK(taken(R"({"axioms_jwks_cache":2,"documents":7,)" + saved.substr(1)) == "1");
  CHECK(taken(saved.substr(0, saved.size() - 1) + R"(,"documents":[]})") == "0");
  const auto limit = axioms::detail::max_saved_bytes;
  CHECK(taken(saved + std::string(limit - saved.size(), ' ')) == "1");
  CHECK(taken(saved + std::string(limit + 1 - saved.size(), ' ')) ==
        "the text is no exported cache: it is over the limit of " + std::to_string(limit) + " bytes");
  for (std::size_t at = 0; at <= saved.size(); ++at) {
    CHECK(taken(saved.substr(0, at) + '\0' + saved.substr(at)) ==
          "the text is no exported cache: it is no JSON from byte " + std::to_string(at + 1) + " on, a zero byte");
  }
}
