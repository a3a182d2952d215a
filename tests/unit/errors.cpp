// The part "errors": errc, error, exception, result<T>.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <array>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

using axioms::errc;
using axioms::error;
using axioms::result;

namespace {

struct row {
  errc code;
  int number;
  std::string_view name;
  std::string_view oauth_error;
  int status_code;
};

// The closed list with its numbers, and the table of what an application answers.
constexpr std::array<row, 29> rows{{
    {errc::invalid_config, 1, "invalid_config", "server_error", 500},
    {errc::invalid_url, 2, "invalid_url", "server_error", 500},
    {errc::unsupported_scheme, 3, "unsupported_scheme", "server_error", 500},
    {errc::resolve_failed, 4, "resolve_failed", "server_error", 503},
    {errc::connect_failed, 5, "connect_failed", "server_error", 503},
    {errc::tls_failed, 6, "tls_failed", "server_error", 503},
    {errc::fetch_failed, 7, "fetch_failed", "server_error", 503},
    {errc::timed_out, 8, "timed_out", "server_error", 503},
    {errc::cancelled, 9, "cancelled", "server_error", 503},
    {errc::shut_down, 10, "shut_down", "server_error", 503},
    {errc::http_status, 11, "http_status", "server_error", 503},
    {errc::response_too_large, 12, "response_too_large", "server_error", 503},
    {errc::not_a_key_set, 13, "not_a_key_set", "server_error", 503},
    {errc::no_usable_key, 14, "no_usable_key", "server_error", 503},
    {errc::key_not_found, 15, "key_not_found", "invalid_token", 401},
    {errc::key_ambiguous, 16, "key_ambiguous", "invalid_token", 401},
    {errc::throttled, 17, "throttled", "server_error", 503},
    {errc::malformed_token, 18, "malformed_token", "invalid_token", 401},
    {errc::unsupported_algorithm, 19, "unsupported_algorithm", "invalid_token", 401},
    {errc::bad_signature, 20, "bad_signature", "invalid_token", 401},
    {errc::token_expired, 21, "token_expired", "invalid_token", 401},
    {errc::token_not_yet_valid, 22, "token_not_yet_valid", "invalid_token", 401},
    {errc::issuer_mismatch, 23, "issuer_mismatch", "invalid_token", 401},
    {errc::audience_mismatch, 24, "audience_mismatch", "invalid_token", 401},
    {errc::token_type_mismatch, 25, "token_type_mismatch", "invalid_token", 401},
    {errc::claim_missing, 26, "claim_missing", "invalid_token", 401},
    {errc::insufficient_scope, 27, "insufficient_scope", "insufficient_scope", 403},
    {errc::token_missing, 28, "token_missing", "", 401},
    {errc::no_resources, 29, "no_resources", "server_error", 503},
}};

error sample() { return error{errc::http_status, "the provider answered 500", 500}; }

}  // namespace

TEST_CASE("every error code keeps its number and its name") {
  for (const auto& row : rows) {
    CAPTURE(row.name);
    CHECK(static_cast<int>(row.code) == row.number);
    CHECK(axioms::to_string(row.code) == row.name);
  }
}

TEST_CASE("a number outside the list has a name of its own") {
  CHECK(axioms::to_string(static_cast<errc>(0)) == "success");
  CHECK(axioms::to_string(static_cast<errc>(30)) == "unknown");
  CHECK(axioms::to_string(static_cast<errc>(-1)) == "unknown");
}

TEST_CASE("every error code maps to the OAuth error and the status that the design's table gives") {
  for (const auto& row : rows) {
    CAPTURE(row.name);
    const error e{row.code, "secret detail"};
    CHECK(e.oauth_error() == row.oauth_error);
    CHECK(e.status_code() == row.status_code);
  }
}

TEST_CASE("the challenge of a refused token has the realm, the error and a fixed text") {
  const error e{errc::token_expired, "exp 1700000000 is over, now is 1700000001"};
  CHECK(e.www_authenticate("api") ==
        "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"The access token expired\"");
  CHECK(e.www_authenticate() == "Bearer error=\"invalid_token\", error_description=\"The access token expired\"");
}

TEST_CASE("the challenge for a missing token says nothing but the scheme and the realm") {
  const error e{errc::token_missing, "no Authorization header"};
  CHECK(e.www_authenticate("api") == "Bearer realm=\"api\"");
  CHECK(e.www_authenticate() == "Bearer");
}

TEST_CASE("an outage or a fault of configuration has no challenge") {
  for (const auto& row : rows) {
    CAPTURE(row.name);
    const std::string challenge = error{row.code, "secret detail"}.www_authenticate("api");
    CHECK(challenge.empty() == (row.status_code >= 500));
  }
}

TEST_CASE("the challenge never holds the description, and has one text for all that is wrong with a token but expiry") {
  std::set<std::string> seen;
  for (const auto& row : rows) {
    if (row.oauth_error.empty() || row.status_code >= 500) continue;
    CAPTURE(row.name);
    const std::string challenge = error{row.code, "secret detail"}.www_authenticate();
    CHECK(challenge.find("secret") == std::string::npos);
    CHECK(challenge.find("error_description=\"") != std::string::npos);
    seen.insert(challenge);
  }
  CHECK(seen.size() == 3);  // a token, an expired one, and a scope
}

TEST_CASE("quotes and backslashes of a realm are escaped and control bytes are dropped") {
  const error e{errc::token_missing, {}};
  CHECK(e.www_authenticate("a\"b\\c") == "Bearer realm=\"a\\\"b\\\\c\"");
  CHECK(e.www_authenticate("a\r\nSet-Cookie: x\x7f") == "Bearer realm=\"aSet-Cookie: x\"");
  CHECK(e.www_authenticate(std::string_view("a\0b\tc", 5)) == "Bearer realm=\"abc\"");
}

TEST_CASE("an error code is usable as a std::error_code") {
  static_assert(std::is_error_code_enum_v<errc>);
  const std::error_code code = errc::timed_out;
  CHECK(code.value() == 8);
  CHECK(code == errc::timed_out);
  CHECK(code != errc::cancelled);
  CHECK(static_cast<bool>(code));
  CHECK(std::string_view(code.category().name()) == "axioms.jwks");
  CHECK(code.message() == "timed_out");
  CHECK(&code.category() == &axioms::error_category());
  CHECK(code != std::make_error_code(std::errc::timed_out));
  CHECK(axioms::make_error_code(errc::timed_out) == code);
}

TEST_CASE("text from outside is quoted so that it can forge no log line") {
  CHECK(axioms::detail::quote("plain text") == "'plain text'");
  CHECK(axioms::detail::quote("") == "''");
  CHECK(axioms::detail::quote("a\nb\r\x1b[31m") == "'a\\x0ab\\x0d\\x1b[31m'");
  CHECK(axioms::detail::quote("it's") == "'it\\x27s'");
  CHECK(axioms::detail::quote("back\\slash") == "'back\\x5cslash'");
  CHECK(axioms::detail::quote("\x7f\xff") == "'\\x7f\\xff'");
  CHECK(axioms::detail::quote(std::string_view("\0", 1)) == "'\\x00'");
}

TEST_CASE("text from outside is cut at its limit, and only beyond it") {
  CHECK(axioms::detail::quote("abcdef", 6) == "'abcdef'");
  CHECK(axioms::detail::quote("abcdefg", 6) == "'abcdef...'");
  CHECK(axioms::detail::quote(std::string(10'000, 'x')).size() < 110);
}

TEST_CASE("a message is put together from pieces of text and numbers") {
  const error e = axioms::detail::make_error(errc::invalid_config, "refresh_interval is ", -5, 's', " of ",
                                             std::size_t{18}, std::string(" options"));
  CHECK(e.code == errc::invalid_config);
  CHECK(e.description == "refresh_interval is -5s of 18 options");
  CHECK(e.http_status == 0);
}

TEST_CASE("an exception carries the error and shows its description") {
  const axioms::exception thrown(sample());
  CHECK(thrown.error().code == errc::http_status);
  CHECK(thrown.error().http_status == 500);
  CHECK(std::string_view(thrown.what()) == "the provider answered 500");
  const std::exception& base = thrown;
  CHECK(std::string_view(base.what()) == "the provider answered 500");
}

// ---- result<T> ----

static_assert(std::is_convertible_v<int, result<int>>);
static_assert(std::is_convertible_v<error, result<int>>);
static_assert(std::is_convertible_v<const char*, result<std::string>>);
static_assert(!std::is_constructible_v<result<int>, std::string>);
static_assert(!std::is_constructible_v<result<std::string>, int>);
static_assert(!std::is_convertible_v<result<int>, bool> && std::is_constructible_v<bool, result<int>>);
static_assert(!std::is_convertible_v<errc, result<int>>, "a bare code lacks the description");
static_assert(!std::is_default_constructible_v<result<int>> && std::is_default_constructible_v<result<void>>);
static_assert(!std::is_copy_constructible_v<result<std::unique_ptr<int>>>);
static_assert(std::is_nothrow_move_constructible_v<result<std::unique_ptr<int>>>);
static_assert(std::is_copy_constructible_v<result<std::string>> && std::is_copy_assignable_v<result<std::string>>);
static_assert(std::is_nothrow_move_constructible_v<result<void>>);
static_assert(std::is_same_v<result<int>::value_type, int> && std::is_same_v<result<void>::value_type, void>);
static_assert(std::is_same_v<result<int>::error_type, error> && std::is_same_v<result<void>::error_type, error>);
static_assert(!std::is_constructible_v<result<void>, int> && std::is_convertible_v<error, result<void>>);
template <class R>
concept points_to_a_value = requires(R& r) {
  r.operator->();
};
template <class R>
concept may_fall_back = requires(R& r) {
  r.value_or(1);
};
static_assert(points_to_a_value<result<int>> && !points_to_a_value<result<void>>);
static_assert(may_fall_back<result<int>> && !may_fall_back<result<void>>);
static_assert(std::is_void_v<decltype(*std::declval<result<void>&>())>);
static_assert(std::is_void_v<decltype(std::declval<result<void>&>().value())>);

TEST_CASE("a result holds a value or an error, and knows which") {
  const result<int> good = 7;
  CHECK(good.has_value());
  CHECK(static_cast<bool>(good));
  CHECK(*good == 7);

  const result<int> bad = sample();
  CHECK_FALSE(bad.has_value());
  CHECK_FALSE(static_cast<bool>(bad));
  CHECK(bad.error().code == errc::http_status);
  CHECK(bad.error().description == "the provider answered 500");
  CHECK(bad.error().http_status == 500);
}

TEST_CASE("a function returns either alternative by plain conversion") {
  const auto half = [](int number) -> result<int> {
    if (number % 2 != 0) return error{errc::invalid_config, "odd"};
    return number / 2;
  };
  CHECK(*half(8) == 4);
  CHECK(half(7).error().description == "odd");

  const auto text = []() -> result<std::string> { return "from a literal"; };
  CHECK(*text() == "from a literal");
}

TEST_CASE("a value and an error in a result can be changed in place") {
  result<std::string> r = std::string("a");
  *r += "b";
  r->push_back('c');
  CHECK(*r == "abc");
  CHECK(r->size() == 3);
  CHECK(std::as_const(r)->size() == 3);

  r = sample();
  CHECK_FALSE(r.has_value());
  r.error().description += "!";
  CHECK(r.error().description == "the provider answered 500!");

  r = std::string("again");
  CHECK(*r == "again");
}

TEST_CASE("copies of a result are independent") {
  result<std::string> first = std::string("one");
  const result<std::string> second = first;  // NOLINT(performance-unnecessary-copy-initialization)
  *first = "two";
  CHECK(*first == "two");
  CHECK(*second == "one");
}

TEST_CASE("value() gives the value") {
  result<std::string> r = std::string("x");
  r.value() = "y";
  CHECK(std::as_const(r).value() == "y");
  const std::string taken = std::move(r).value();
  CHECK(taken == "y");
}

#if !defined(AXIOMS_JWKS_NO_EXCEPTIONS)
TEST_CASE("value() of an error throws axioms::exception with that error") {
  result<int> bad = sample();
  CHECK_THROWS_AS(static_cast<void>(bad.value()), axioms::exception);
  CHECK_THROWS_AS(static_cast<void>(std::as_const(bad).value()), axioms::exception);
  CHECK_THROWS_AS(static_cast<void>(result<int>(sample()).value()), axioms::exception);
  bool caught = false;
  try {
    static_cast<void>(bad.value());
  } catch (const axioms::exception& thrown) {
    caught = true;
    CHECK(thrown.error().code == errc::http_status);
    CHECK(thrown.error().http_status == 500);
    CHECK(std::string_view(thrown.what()) == "the provider answered 500");
  }
  CHECK(caught);
}

TEST_CASE("value() of a failed result<void> throws, and of a success does not") {
  CHECK_THROWS_AS(result<void>(sample()).value(), axioms::exception);
  CHECK_NOTHROW(result<void>().value());
}

namespace {

// Counts what is alive; the copy or move that is its turn throws.
struct fragile {
  static inline int alive = 0, until_throw = -1;
  std::string text;

  explicit fragile(std::string given) : text(std::move(given)) { ++alive; }
  fragile(const fragile& other) : text(other.text) { count(); }
  fragile(fragile&& other) : text(std::move(other.text)) { count(); }
  fragile& operator=(const fragile&) = delete;
  ~fragile() { --alive; }

 private:
  static void count() {
    if (until_throw-- == 0) throw 7;
    ++alive;
  }
};

}  // namespace

static_assert(!std::is_nothrow_move_assignable_v<result<fragile>>);

// Red when a move assignment that throws leaves what it destroyed to be destroyed again.
TEST_CASE("a value whose copy or move throws leaves a result behind that can be used") {
  {
    const result<fragile> whole = fragile("a value that is too long for the string's own buffer");
    const result<fragile> failed(sample());
    fragile::until_throw = 0;
    CHECK_THROWS_AS(static_cast<void>(result<fragile>(whole)), int);

    for (const result<fragile>* before : {&whole, &failed}) {
      // Copied before anything is destroyed: as it was.
      result<fragile> copied = *before;
      fragile::until_throw = 0;
      CHECK_THROWS_AS(copied = whole, int);
      CHECK(copied.has_value() == before->has_value());

      // Moved aside before, and to its place after: an error without a code, rather than nothing.
      result<fragile> moved = *before, source = whole;
      fragile::until_throw = 0;
      CHECK_THROWS_AS(moved = std::move(source), int);
      CHECK(moved.has_value() == before->has_value());
      source = whole;
      fragile::until_throw = 1;
      CHECK_THROWS_AS(moved = std::move(source), int);
      REQUIRE_FALSE(moved.has_value());
      CHECK(moved.error().code == errc{});
      moved = sample();
      CHECK(moved.error().http_status == 500);
      moved = result<fragile>(whole);
      CHECK(moved->text == whole->text);
    }
    fragile::until_throw = -1;
  }
  CHECK(fragile::alive == 0);
}
#endif

namespace {

struct chain_link {
  int number;
  result<std::shared_ptr<chain_link>> next;
};

// As a COM pointer: its address is not to be had with &.
struct shy {
  int number = 0;
  int* operator&() { return &number; }
  const int* operator&() const { return &number; }
};

}  // namespace

// Red when a move assignment destroys the old value before it has taken the new one.
TEST_CASE("a result may be assigned from inside its own value") {
  auto last = std::make_shared<chain_link>(chain_link{2, sample()});
  result<std::shared_ptr<chain_link>> here = std::make_shared<chain_link>(chain_link{1, std::move(last)});
  here = std::move((*here)->next);
  REQUIRE(here.has_value());
  CHECK((*here)->number == 2);
  here = std::move((*here)->next);
  REQUIRE_FALSE(here.has_value());
  CHECK(here.error().http_status == 500);
}

TEST_CASE("a result holds a type without an address of its own, and a constant one") {
  result<shy> first = shy{3};
  const result<shy> second = first;
  first = second;
  CHECK(first->number == 3);
  CHECK((*second).number == 3);
  const result<const int> five = 5;
  const result<const int> again = five;
  CHECK(*again == 5);
}

TEST_CASE("value_or gives the value or the other one") {
  const result<std::string> good = std::string("value");
  const result<std::string> bad = sample();
  CHECK(good.value_or("other") == "value");
  CHECK(bad.value_or("other") == "other");
  CHECK(result<std::string>(std::string("value")).value_or("other") == "value");
  CHECK(result<std::string>(sample()).value_or("other") == "other");
}

TEST_CASE("a result holds a type that can only be moved") {
  result<std::unique_ptr<int>> r = std::make_unique<int>(5);
  CHECK(**r == 5);
  result<std::unique_ptr<int>> moved = std::move(r);
  CHECK(**moved == 5);
  const std::unique_ptr<int> taken = *std::move(moved);
  CHECK(*taken == 5);

  CHECK(*result<std::unique_ptr<int>>(sample()).value_or(std::make_unique<int>(6)) == 6);
  const auto number =
      result<std::unique_ptr<int>>(std::make_unique<int>(8)).transform([](std::unique_ptr<int> held) { return *held; });
  CHECK(*number == 8);
  const auto chained =
      result<std::unique_ptr<int>>(std::make_unique<int>(9)).and_then([](std::unique_ptr<int> held) -> result<int> {
        return *held + 1;
      });
  CHECK(*chained == 10);
  const auto rescued = result<std::unique_ptr<int>>(sample()).or_else(
      [](const error&) -> result<std::unique_ptr<int>> { return std::make_unique<int>(11); });
  CHECK(**rescued == 11);
}

TEST_CASE("and_then chains functions that may fail") {
  const auto half = [](int number) -> result<int> {
    if (number % 2 != 0) return error{errc::invalid_config, "odd"};
    return number / 2;
  };
  const result<int> twelve = 12;
  CHECK(*twelve.and_then(half) == 6);
  CHECK(*twelve.and_then(half).and_then(half) == 3);
  CHECK(twelve.and_then(half).and_then(half).and_then(half).error().description == "odd");

  int calls = 0;
  const result<int> bad = sample();
  const auto none = bad.and_then([&](int number) -> result<std::string> {
    ++calls;
    return std::to_string(number);
  });
  CHECK(none.error().http_status == 500);
  CHECK(calls == 0);

  const result<void> nothing = twelve.and_then([](int) -> result<void> { return {}; });
  CHECK(nothing.has_value());
}

TEST_CASE("transform changes the value and lets an error pass") {
  const result<int> good = 3;
  const result<int> bad = sample();
  const auto twice = [](int number) { return std::to_string(number * 2); };
  const result<std::string> six = good.transform(twice);
  CHECK(*six == "6");
  CHECK(bad.transform(twice).error().code == errc::http_status);

  int seen = 0;
  const result<void> done = good.transform([&](int number) { seen = number; });
  CHECK(done.has_value());
  CHECK(seen == 3);
  seen = 0;
  CHECK_FALSE(bad.transform([&](int number) { seen = number; }).has_value());
  CHECK(seen == 0);
}

TEST_CASE("or_else replaces an error and lets a value pass") {
  const result<int> good = 3;
  const result<int> bad = sample();
  const auto status = [](const error& why) -> result<int> { return why.http_status; };
  CHECK(*good.or_else(status) == 3);
  CHECK(*bad.or_else(status) == 500);
  CHECK(*result<int>(sample()).or_else(status) == 500);
  CHECK(*result<int>(4).or_else(status) == 4);
  const auto other = bad.or_else([](const error&) -> result<int> { return error{errc::cancelled, "no"}; });
  CHECK(other.error().code == errc::cancelled);
}

TEST_CASE("an error moves out of a result") {
  const std::string long_text(200, 'x');
  result<int> r = error{errc::fetch_failed, long_text};
  const error taken = std::move(r).error();
  CHECK(taken.description == long_text);

  result<void> v = error{errc::fetch_failed, long_text};
  v.error().http_status = 502;
  const error other = std::move(v).error();
  CHECK(other.description == long_text);
  CHECK(other.http_status == 502);
}

TEST_CASE("a result<void> is success or an error") {
  const result<void> good;
  CHECK(good.has_value());
  CHECK(static_cast<bool>(good));
  *good;

  const result<void> bad = sample();
  CHECK_FALSE(bad.has_value());
  CHECK_FALSE(static_cast<bool>(bad));
  CHECK(bad.error().code == errc::http_status);
}

TEST_CASE("a result<void> chains as other results do") {
  const result<void> good;
  const result<void> bad = sample();
  int calls = 0;
  const auto count = [&]() -> result<int> { return ++calls; };

  CHECK(*good.and_then(count) == 1);
  CHECK(bad.and_then(count).error().code == errc::http_status);
  CHECK(calls == 1);

  CHECK(*good.transform([] { return 5; }) == 5);
  CHECK(good.transform([&] { ++calls; }).has_value());
  CHECK(calls == 2);
  CHECK(bad.transform([&] { ++calls; }).error().code == errc::http_status);
  CHECK(calls == 2);

  CHECK(bad.or_else([](const error&) -> result<void> { return {}; }).has_value());
  CHECK(good.or_else([&](const error& why) -> result<void> {
              ++calls;
              return why;
            })
            .has_value());
  CHECK(calls == 2);
}
