// The part "tokens": the tokens of tests/vectors/tokens, made by another implementation, through each form of verification.
#include "support/token_corpus.hpp"
#include "axioms_jwks.hpp"
#include "support/coroutine.hpp"
#include "support/jwk_text.hpp"
#include "support/rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

using axioms::errc;
using axioms::result;
using axioms::token_rules;
using axioms::verified_token;
using namespace std::chrono_literals;
using support::config_for;
using support::fake_fetcher;
using support::manual_clock;
using support::response;
using support::token_row;

namespace {

std::string code_of(const result<verified_token>& out) {
  return out ? "good" : std::string(to_string(out.error().code));
}

// ---- what a result must be ----

void check_grants(const verified_token& token, const support::token_grants& grants, bool expected) {
  for (const auto& name : grants.scopes) CHECK_MESSAGE(token.has_scope(name) == expected, "scope ", name);
  for (const auto& name : grants.roles) CHECK_MESSAGE(token.has_role(name) == expected, "role ", name);
  for (const auto& name : grants.permissions)
    CHECK_MESSAGE(token.has_permission(name) == expected, "permission ", name);
}

void check_content(const token_row& row, const verified_token& token) {
  CHECK(token.token() == row.token);
  const auto first = row.token.find('.'), second = row.token.rfind('.');
  const std::string payload = support::decoded(std::string_view(row.token).substr(first + 1, second - first - 1));
  CHECK(token.payload() == payload);
  const auto claims = nlohmann::json::parse(payload, nullptr, false);
  const auto text = [&](const char* name) {
    const auto found = claims.find(name);
    return found != claims.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  CHECK(token.issuer() == text("iss"));
  CHECK(token.subject() == text("sub"));
  CHECK(token.id() == text("jti"));
  const char* client = "client_id";
  for (const char* each : {"appid", "cid", "azp", "client_id"}) client = claims.contains(each) ? each : client;
  CHECK(token.client_id() == text(client));
  CHECK(token.claims().size() == claims.size());
  CHECK(token.header()["alg"].type() == axioms::claim_view::kind::string);
  // What system_clock cannot hold is as late as it can be.
  const auto found = claims.find("exp");
  REQUIRE(found != claims.end());
  REQUIRE(found->is_number());
  const auto exp = found->get<double>();
  using clock = std::chrono::system_clock;
  const double held = std::chrono::duration<double>(token.expires_at().time_since_epoch()).count();
  if (exp < std::chrono::duration<double>(clock::time_point::max().time_since_epoch()).count()) {
    CHECK(held == doctest::Approx(exp).epsilon(1e-12));
  } else {
    CHECK(token.expires_at() > clock::time_point(9'000'000'000s));
  }
  REQUIRE(token.key() != nullptr);
  check_grants(token, row.grants, true);
  check_grants(token, row.denies, false);
}

// No text holds a part of the token, and who forges tokens learns nothing from the challenge.
void check_refusal(const token_row& row, const axioms::error& why) {
  for (std::size_t from = 0; from < row.token.size();) {
    const std::size_t end = std::min(row.token.find('.', from), row.token.size());
    const std::string part = row.token.substr(from, end - from);
    if (part.size() >= 16) CHECK(why.description.find(part.substr(0, 16)) == std::string::npos);
    from = end + 1;
  }
  for (const char* secret : {"orders:write", "user-1"}) CHECK(why.description.find(secret) == std::string::npos);
  if (why.status_code() != 401 || why.code == errc::token_missing || why.code == errc::token_expired) return;
  static const std::string challenge = axioms::error{errc::malformed_token, {}, 0}.www_authenticate();
  CHECK(why.www_authenticate() == challenge);
}

void check_outcome(const token_row& row, const result<verified_token>& out) {
  const std::string code = code_of(out);
  CHECK_MESSAGE(row.expects(code), "expected ", row.expected.front(), ", got ", code);
  if (out) {
    check_content(row, *out);
  } else {
    check_refusal(row, out.error());
  }
}

// ---- the forms of verification ----

struct blocking_only {
  fake_fetcher provider;
  result<axioms::fetch_response> operator()(const axioms::fetch_request& request, const axioms::stop_token& stop) {
    return provider(request, stop);
  }
};
struct callback_only {
  fake_fetcher provider;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    provider.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};

template <class T>
T take(std::future<T> from) {
  REQUIRE(from.wait_for(support::patience) == std::future_status::ready);
  return from.get();
}

struct by_blocking {
  using manager = axioms::basic_jwks_manager<blocking_only, manual_clock>;
  static void initialize(manager& keys, axioms::jwks_config config) {
    REQUIRE(keys.initialize(std::move(config)).has_value());
  }
  static result<verified_token> verify(const axioms::basic_token_verifier<manager>& verifier, std::string_view token) {
    return verifier.verify(token);
  }
};

template <class Fetcher>
struct by_coroutine {
  using manager = axioms::basic_async_jwks_manager<Fetcher, manual_clock>;
  template <class T, class Operation>
  static support::detached drive(Operation operation, std::promise<T> to) {
    to.set_value(co_await std::move(operation));
  }
  template <class T, class Operation>
  static T run(Operation operation) {
    std::promise<T> to;
    auto from = to.get_future();
    drive<T>(std::move(operation), std::move(to));
    return take(std::move(from));
  }
  static void initialize(manager& keys, axioms::jwks_config config) {
    REQUIRE(run<result<void>>(keys.initialize(std::move(config))).has_value());
  }
  static result<verified_token> verify(const axioms::basic_token_verifier<manager>& verifier, std::string_view token) {
    return run<result<verified_token>>(verifier.verify(token));
  }
};

template <class Fetcher>
struct by_callback : by_coroutine<Fetcher> {
  static result<verified_token> verify(
      const axioms::basic_token_verifier<typename by_coroutine<Fetcher>::manager>& verifier, std::string_view token) {
    std::promise<result<verified_token>> to;
    auto from = to.get_future();
    verifier.async_verify(token,
                          [to = std::move(to)](result<verified_token> out) mutable { to.set_value(std::move(out)); });
    return take(std::move(from));
  }
};

using on_threads = by_coroutine<blocking_only>;
using on_threads_by_callback = by_callback<blocking_only>;
using on_loop = by_coroutine<callback_only>;
using on_loop_by_callback = by_callback<callback_only>;

// A provider of those key sets, and a manager that has fetched them.
template <class Form>
struct world {
  using manager_type = typename Form::manager;
  using verifier_type = axioms::basic_token_verifier<manager_type>;

  explicit world(const std::map<std::string, std::string>& sets, bool es256k = false, int burst = 3) {
    const std::size_t before = provider.requests();
    bool first = true;
    for (const auto& [url, text] : sets) {
      auto config = config_for(url.empty() ? support::url : url);
      config.allow_es256k = es256k;
      config.unknown_kid_burst = burst;
      provider.always_at(config.jwks_url, response(200, text));
      if (std::exchange(first, false)) {
        Form::initialize(keys, std::move(config));
      } else {
        REQUIRE(keys.add(std::move(config)).has_value());
      }
    }
    clock.advance(0s);  // what add() has put in line begins
    for (const auto& each : sets) {
      const std::string& where = each.first.empty() ? support::url : each.first;
      REQUIRE(support::eventually(
          [&] { return keys.health(where).ready && keys.health(where).next_attempt > clock.now(); }));
    }
    REQUIRE(provider.requests() == before + sets.size());
    clock.advance(31s);  // a key set that is younger is an answer to a wrong signature
  }

  void set_wall(std::chrono::system_clock::time_point now) {
    clock.step_wall(std::chrono::duration_cast<std::chrono::seconds>(now - clock.system_now()));
  }
  // How many requests that cost.
  template <class Action>
  int cost(Action action) {
    const std::size_t before = provider.requests();
    action();
    return static_cast<int>(provider.requests() - before);
  }

  manual_clock clock;
  fake_fetcher provider;
  manager_type keys{{provider}, clock};
};

template <class Form>
auto verifier_of(world<Form>& at, const token_row& row) {
  using verifier = typename world<Form>::verifier_type;
  return row.several ? std::make_unique<verifier>(at.keys, row.rules)
                     : std::make_unique<verifier>(at.keys, row.rules.front());
}

// One for all rows of a key set that fetch nothing; one of its own for each that does.
template <class Form>
class worlds {
 public:
  world<Form>& of(const token_row& row) {
    if (row.fetches != 0) return own_.emplace(row.sets, row.es256k);
    const auto found = shared_.try_emplace({row.sets, row.es256k}, row.sets, row.es256k).first;
    return found->second;
  }

 private:
  std::map<std::pair<std::map<std::string, std::string>, bool>, world<Form>> shared_;
  std::optional<world<Form>> own_;
};

template <class Form>
void play_row(world<Form>& at, const token_row& row) {
  at.set_wall(row.now);
  const auto verifier = verifier_of(at, row);
  for (const bool first : {true, false}) {
    CAPTURE(first);
    const int cost = at.cost([&] { check_outcome(row, Form::verify(*verifier, row.token)); });
    if (row.fetches < 0) {
      CHECK(cost <= 1);
    } else if (first) {
      CHECK(cost == row.fetches);
    } else {
      CHECK(cost <= row.fetches);
    }
  }
}

// With the memo off and on: the second time it answers for good tokens.
template <class Form>
void play() {
  for (const std::size_t memo : {std::size_t{0}, std::size_t{64}}) {
    CAPTURE(memo);
    worlds<Form> all;
    for (const token_row* each : support::all_token_rows()) {
      CAPTURE(each->name);
      token_row row = *each;
      for (auto& rules : row.rules) rules.memo = memo;
      play_row(all.of(row), row);
    }
  }
}

// ---- where the key is not at hand ----

bool is_refused_before_its_key(const token_row& row) {
  return row.fetches == 0 && std::none_of(row.expected.begin(), row.expected.end(), [](std::string_view code) {
           return code == "good" || code == "bad_signature" || code.substr(0, 4) == "key_";
         });
}

// An object, if it can be read.
nlohmann::json header_of(const token_row& row) {
  const std::string text = row.token.substr(0, row.token.find('.'));
  if (text.find_first_not_of(support::base64url_digits) != std::string::npos) return nullptr;
  return nlohmann::json::parse(support::decoded(text), nullptr, false);
}

bool names_a_key(const nlohmann::json& header) {
  const auto has = [&](const char* name) {
    const auto found = header.find(name);
    return found != header.end() && found->is_string() && *found != "";
  };
  return has("kid") || has("x5t#S256") || has("x5t");
}

const std::string& set_named(const std::string& name) { return support::read_token_corpus("corpus").sets.at(name); }

// The token with another signature.
token_row forged(token_row row) {
  const auto dot = row.token.rfind('.');
  if (dot == std::string::npos || dot + 1 == row.token.size()) return row;
  char& first = row.token[dot + 1];
  first = first == 'A' ? 'B' : 'A';
  row.expected.emplace_back("bad_signature");
  return row;
}

// The same URLs, and keys that no token is for.
std::map<std::string, std::string> sets_elsewhere(const token_row& row) {
  auto out = row.sets;
  for (auto& each : out) each.second = set_named("elsewhere");
  return out;
}

template <class Form>
void play_with_unknown_keys() {
  std::map<std::map<std::string, std::string>, world<Form>> shared;
  for (const token_row* row : support::all_token_rows()) {
    CAPTURE(row->name);
    const auto header = header_of(*row);
    if (header.is_object() && !names_a_key(header)) continue;  // no fetch could bring what it asks for
    const auto sets = sets_elsewhere(*row);
    if (is_refused_before_its_key(*row)) {
      auto& at = shared.try_emplace(sets, sets).first->second;
      at.set_wall(row->now);
      const auto verifier = verifier_of(at, *row);
      CHECK(at.cost([&] { check_outcome(*row, Form::verify(*verifier, row->token)); }) == 0);
    } else if (row->is_good() && row->expected.size() == 1) {
      world<Form> at(sets, row->es256k);
      at.set_wall(row->now);
      const auto verifier = verifier_of(at, *row);
      CHECK(at.cost([&] { CHECK(code_of(Form::verify(*verifier, row->token)) == "key_not_found"); }) == 1);
      // Nobody asks twice for a kid that nobody knows.
      CHECK(at.cost([&] { CHECK(code_of(Form::verify(*verifier, row->token)) == "key_not_found"); }) == 0);
    }
  }
}

template <class Form>
void play_forged() {
  worlds<Form> all;
  for (const token_row* each : support::all_token_rows()) {
    if (!is_refused_before_its_key(*each)) continue;
    CAPTURE(each->name);
    const token_row row = forged(*each);
    play_row(all.of(row), row);
  }
}

template <class Form>
void play_without_a_key_set() {
  manual_clock clock;
  fake_fetcher provider;
  provider.always(axioms::error{errc::connect_failed, "refused", 0});
  typename Form::manager keys({provider}, clock);
  auto config = config_for(support::url);
  config.prefetch = false;
  Form::initialize(keys, std::move(config));
  for (const bool good : {false, true}) {
    for (const token_row* row : support::all_token_rows()) {
      const bool wanted = good ? row->is_good() && row->expected.size() == 1 : is_refused_before_its_key(*row);
      if (row->several || !wanted) continue;
      CAPTURE(row->name);
      clock.step_wall(std::chrono::duration_cast<std::chrono::seconds>(row->now - clock.system_now()));
      const axioms::basic_token_verifier<typename Form::manager> verifier(keys, row->rules.front());
      const auto out = Form::verify(verifier, row->token);
      if (good) {
        REQUIRE(!out);
        CHECK(out.error().status_code() == 503);
      } else {
        check_outcome(*row, out);
      }
    }
    // Refusals fetch nothing; of the good ones the first fetches, and the others learn of its failure.
    CHECK(provider.requests() == (good ? 1 : 0));
  }
}

std::string spelt(const std::string& header, const std::string& payload, const std::string& signature) {
  return support::encoded(header) + "." + support::encoded(payload) + "." + support::encoded(signature);
}

template <class Form>
void play_budget() {
  const auto& corpus = support::read_token_corpus("corpus");
  const token_row& good = corpus.named("EdDSA by ed25519: good");
  const std::string unsigned_part = good.token.substr(0, good.token.rfind('.') + 1);
  for (const int burst : {3, 0}) {
    CAPTURE(burst);
    world<Form> at(good.sets, false, burst);
    const auto verifier = verifier_of(at, good);
    const int cost = at.cost([&] {
      for (char c = 0; c < 50; ++c)
        CHECK(code_of(Form::verify(*verifier, unsigned_part + support::encoded(std::string(64, c)))) ==
              "bad_signature");
    });
    CHECK(cost == (burst > 0 ? 1 : 0));  // then the key set is young
    CHECK(at.cost([&] { check_outcome(good, Form::verify(*verifier, good.token)); }) == 0);
  }
}

// ---- keys that change ----

template <class Form>
void play_rotation() {
  const token_row& row = support::read_token_corpus("corpus").named("one kid for keys of three kinds: the EdDSA one");
  for (const std::string before : {"issuer_b", "elsewhere"}) {  // another key of its kid; none
    CAPTURE(before);
    world<Form> at({{"", set_named(before)}});
    const auto verifier = verifier_of(at, row);
    at.provider.always_at(support::url, response(200, set_named("one_kid")));
    CHECK(at.cost([&] { check_outcome(row, Form::verify(*verifier, row.token)); }) == 1);
    CHECK(at.cost([&] { check_outcome(row, Form::verify(*verifier, row.token)); }) == 0);
  }
}

}  // namespace

TEST_SUITE_BEGIN("slow");

TEST_CASE("the corpus is as large as it says: 300 tokens and an issuer's each") {
  CHECK(support::read_token_corpus("corpus").rows.size() >= 300);
  CHECK(support::read_token_corpus("providers").rows.size() >= 46);
  for (const token_row* row : support::all_token_rows()) {
    CAPTURE(row->name);
    for (const token_rules& rules : row->rules) CHECK(rules.validate().has_value());
  }
}

TEST_CASE("each token of the corpus, twice: by the pure function") {
  std::map<std::pair<std::string, bool>, axioms::jwk_set> sets;
  for (const token_row* row : support::all_token_rows()) {
    if (row->several) continue;
    CAPTURE(row->name);
    const std::string& text = row->sets.at("");
    auto at = sets.find({text, row->es256k});
    if (at == sets.end()) {
      auto parsed = axioms::jwk_set::parse(text, row->options());
      REQUIRE(parsed.has_value());
      at = sets.emplace(std::pair(text, row->es256k), *std::move(parsed)).first;
    }
    for (int i = 0; i < 2; ++i)
      check_outcome(*row, axioms::verify_token(row->token, at->second, row->rules.front(), row->now));
  }
}
TEST_CASE("each token of the corpus, twice: by the blocking verifier") { play<by_blocking>(); }
TEST_CASE("each token of the corpus, twice: by the async verifier on threads") { play<on_threads>(); }
TEST_CASE("each token of the corpus, twice: by the async verifier on threads, by callback") {
  play<on_threads_by_callback>();
}
TEST_CASE("each token of the corpus, twice: by the async verifier on a loop") { play<on_loop>(); }
TEST_CASE("each token of the corpus, twice: by the async verifier on a loop, by callback") {
  play<on_loop_by_callback>();
}

TEST_CASE("an unknown kid: what would be refused anyway fetches nothing, a good token once") {
  SUBCASE("blocking") { play_with_unknown_keys<by_blocking>(); }
  SUBCASE("async on threads") { play_with_unknown_keys<on_threads>(); }
  SUBCASE("async on threads, by callback") { play_with_unknown_keys<on_threads_by_callback>(); }
  SUBCASE("async on a loop") { play_with_unknown_keys<on_loop>(); }
  SUBCASE("async on a loop, by callback") { play_with_unknown_keys<on_loop_by_callback>(); }
}

TEST_CASE("a wrong signature: what would be refused anyway fetches nothing") {
  SUBCASE("blocking") { play_forged<by_blocking>(); }
  SUBCASE("async on threads") { play_forged<on_threads>(); }
  SUBCASE("async on a loop") { play_forged<on_loop>(); }
}

TEST_CASE("no key set: what would be refused anyway fetches nothing, a good token is told of the outage") {
  SUBCASE("blocking") { play_without_a_key_set<by_blocking>(); }
  SUBCASE("async on threads") { play_without_a_key_set<on_threads>(); }
  SUBCASE("async on threads, by callback") { play_without_a_key_set<on_threads_by_callback>(); }
  SUBCASE("async on a loop") { play_without_a_key_set<on_loop>(); }
  SUBCASE("async on a loop, by callback") { play_without_a_key_set<on_loop_by_callback>(); }
}

TEST_CASE("many wrong signatures under a good token fetch once, and never without a budget") {
  SUBCASE("blocking") { play_budget<by_blocking>(); }
  SUBCASE("async on threads") { play_budget<on_threads>(); }
  SUBCASE("async on a loop") { play_budget<on_loop>(); }
}

TEST_CASE("a key that was replaced, and one that is new, are found by one request") {
  SUBCASE("blocking") { play_rotation<by_blocking>(); }
  SUBCASE("async on threads") { play_rotation<on_threads>(); }
  SUBCASE("async on threads, by callback") { play_rotation<on_threads_by_callback>(); }
  SUBCASE("async on a loop") { play_rotation<on_loop>(); }
  SUBCASE("async on a loop, by callback") { play_rotation<on_loop_by_callback>(); }
}

TEST_CASE("10,000 foreign, expired and malformed tokens with made-up kids fetch nothing") {
  const token_row& good = support::read_token_corpus("corpus").named("EdDSA by ed25519: good");
  world<by_blocking> at(good.sets);
  const auto verifier = verifier_of(at, good);
  const std::string signature(64, 's');
  const std::string claims = R"({"iss":"https://idp.example.com/","aud":"https://api.example.com","exp":1790000600)";
  const std::vector<std::pair<std::string, std::string>> payloads = {
      {"token_expired", R"({"iss":"https://idp.example.com/","aud":"https://api.example.com","exp":1780000000})"},
      {"issuer_mismatch", R"({"iss":"https://evil.example/","aud":"https://api.example.com","exp":1790000600})"},
      {"audience_mismatch", R"({"iss":"https://idp.example.com/","aud":"https://evil.example","exp":1790000600})"},
      {"token_not_yet_valid", claims + R"(,"nbf":1790000100})"},
      {"token_type_mismatch", claims + R"(,"cnf":{}})"},
      {"claim_missing", R"({"iss":"https://idp.example.com/","exp":1790000600})"},
      {"malformed_token", claims},
      {"malformed_token", claims + R"(,"exp":1790000600})"},
  };
  const int cost = at.cost([&] {
    for (int i = 0; i < 10000; ++i) {
      const auto& [code, payload] = payloads[static_cast<std::size_t>(i) % payloads.size()];
      const std::string header = R"({"alg":"EdDSA","kid":"made-up-)" + std::to_string(i) + R"("})";
      REQUIRE(code_of(verifier->verify(spelt(header, payload, signature))) == code);
    }
  });
  CHECK(cost == 0);
  // That they would have been told apart from a good one: it fetches.
  CHECK(at.cost([&] {
    CHECK(code_of(verifier->verify(spelt(R"({"alg":"EdDSA","kid":"made-up"})", claims + "}", signature))) ==
          "key_not_found");
  }) == 1);
}

TEST_CASE("tokens too large to stand in a file are malformed, at any limit") {
  const auto keys = axioms::jwk_set::parse(set_named("all"));
  REQUIRE(keys.has_value());
  const token_row& good = support::read_token_corpus("corpus").named("EdDSA by ed25519: good");
  const auto code = [&](const std::string& token, std::size_t limit) {
    token_rules rules = good.rules.front();
    rules.max_token_bytes = limit;
    return code_of(axioms::verify_token(token, *keys, rules, good.now));
  };
  constexpr std::size_t most = std::size_t{1} << 20U;
  const std::string mib(most, 'a');
  const std::string header = R"({"alg":"EdDSA","kid":"unknown, so the claims are read first"})", claims = "{}",
                    signature(64, 's');
  std::string nested = R"({"a":)" + std::string(300000, '[') + std::string(300000, ']') + "}";
  std::string members = R"({"alg":"EdDSA")";
  for (int i = 0; i < 5000; ++i) members += ",\"" + std::to_string(i) + "\":0";
  for (const std::size_t limit : {std::size_t{16384}, most}) {
    CAPTURE(limit);
    CHECK(code(std::string(limit + 1, 'a'), limit) == "malformed_token");
    CHECK(code(std::string(limit, 'a'), limit) == "malformed_token");
    CHECK(code(std::string(10000, '.'), limit) == "malformed_token");
    CHECK(code(std::string(limit, '.'), limit) == "malformed_token");
    CHECK(code(good.token + std::string(10000, '.'), limit) == "malformed_token");
    CHECK(code(spelt(R"({"alg":"EdDSA","kid":")" + mib + "\"}", claims, signature), limit) == "malformed_token");
    CHECK(code(spelt(R"({"alg":")" + mib + "\"}", claims, signature), limit) == "malformed_token");
    CHECK(code(spelt(nested, claims, signature), limit) == "malformed_token");
    CHECK(code(spelt(header, nested, signature), limit) == "malformed_token");
    CHECK(code(spelt(members + "}", claims, signature), limit) == "malformed_token");
    CHECK(code("." + mib + ".", limit) == "malformed_token");
  }
  const std::string long_kid = R"({"alg":"EdDSA","kid":")" + std::string(700000, 'k') + "\"}";
  const std::string refused = code(spelt(long_kid, claims, signature), most);
  CHECK_MESSAGE((refused == "malformed_token" || refused == "key_not_found" || refused == "claim_missing"), refused);
}

// By the pure function: nothing else stands between a text and its verification.
TEST_CASE("no other text than the token itself is good: cut short, or with another byte") {
  const auto keys = axioms::jwk_set::parse(set_named("all"));
  REQUIRE(keys.has_value());
  for (const char* name : {"EdDSA by ed25519: good", "ES256 by p256: good", "RS256 by rsa: good"}) {
    CAPTURE(name);
    const token_row& row = support::read_token_corpus("corpus").named(name);
    const auto refused = [&](const std::string& text) {
      const auto out = axioms::verify_token(text, *keys, row.rules.front(), row.now);
      const bool is = !out && out.error().status_code() == 401;
      CHECK_MESSAGE(is, text, ": ", code_of(out));
    };
    for (std::size_t length = 0; length < row.token.size(); ++length) refused(row.token.substr(0, length));
    for (std::size_t at = 0; at < row.token.size(); ++at) {
      for (const char other : {'A', 'B', '_', '.', '=', '\0'}) {
        std::string text = row.token;
        if (std::exchange(text[at], other) != other) refused(text);
      }
    }
  }
}

TEST_SUITE_END();
