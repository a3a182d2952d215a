// The part "tokens": what is asked of a manager and in which order, views, access, and the rules themselves. The corpus of tokens is
// in token_corpus.cpp.
//
// "Red when" names a change to the header that makes the test fail.
#include "axioms_jwks.hpp"
#include "support/coroutine.hpp"
#include "support/rig.hpp"
#include "support/token_maker.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using namespace support;  // NOLINT(google-build-using-namespace): how keys and tokens are made
using axioms::bearer_token, axioms::claim_view, axioms::errc, axioms::jwk_set, axioms::token_rules,
    axioms::verified_token, axioms::verify_token;

namespace {

const std::string issuer = "https://idp.example.com/";
const std::string audience = "https://api.example.com";

jwk_set keys_of(const std::vector<const signing_key*>& keys) { return jwk_set::parse(set_of_keys(keys)).value(); }

token_rules plain_rules() { return {.issuer = issuer, .audience = {audience}}; }
std::int64_t seconds_of(std::chrono::system_clock::time_point when) {
  return std::chrono::floor<std::chrono::seconds>(when.time_since_epoch()).count();
}
constexpr std::chrono::system_clock::time_point noon{std::chrono::seconds(1790000000)};

// Good claims for an hour from `when` on, with more members before the closing brace.
std::string claims_at(std::chrono::system_clock::time_point when, const std::string& more = "") {
  const std::int64_t now = seconds_of(when);
  return R"({"iss":")" + issuer + R"(","aud":")" + audience + R"(","sub":"user-1","exp":)" +
         std::to_string(now + 3600) + R"(,"iat":)" + std::to_string(now) + more + "}";
}
axioms::result<verified_token> pure(const std::string& token, const token_rules& rules = plain_rules()) {
  return verify_token(token, keys_of({&key_one()}), rules, noon);
}
errc code_of(const axioms::result<verified_token>& what) { return what ? errc{} : what.error().code; }

// A verifier over a manager whose provider publishes key one.
struct verifying : rig {
  explicit verifying(token_rules rules = plain_rules()) : verifier(manager, std::move(rules)) {
    provider.always(response(200, set_of_keys({&key_one()})));
    start();
    quiet();
  }
  errc code(const std::string& token) { return code_of(verifier.verify(token)); }
  std::string good(const signing_key& key = key_one()) { return key.token(claims_at(clock.system_now())); }
  axioms::basic_token_verifier<manager_type> verifier;
};

}  // namespace

// ---- the way of a token --------------------------------------------------------------------------

TEST_CASE("a good token is verified, and tells what it holds") {
  const std::string claims =
      claims_at(noon, R"(,"jti":"7","azp":"app","scope":"orders:read  orders:write","roles":["admin"],)"
                      R"("n":{"list":[1,{"deep":true}]},"https://x/y":"z","none":null)");
  const std::string text = key_one().token(claims);
  const auto token = pure(text);
  REQUIRE(token);
  CHECK(token->issuer() == issuer);
  CHECK(token->subject() == "user-1");
  CHECK(token->id() == "7");
  CHECK(token->client_id() == "app");
  CHECK(token->expires_at() == noon + 1h);
  CHECK(token->token() == text);
  CHECK(token->payload() == claims);
  CHECK(token->key()->kid() == "one");
  CHECK(token->header()["alg"].string() == "ES256");
  CHECK((*token)["/n/list/1/deep"].boolean() == std::optional(true));
  CHECK((*token)["https://x/y"].string() == "z");
  CHECK((*token)["none"].type() == claim_view::kind::null);
  CHECK(token->claims().size() == 12);
  const verified_token copy = *token;
  CHECK(copy.payload().data() == token->payload().data());
}

TEST_CASE("a key at hand costs no request, for any number of tokens") {
  verifying v;
  const std::size_t before = v.provider.requests();
  for (int i = 0; i < 10; ++i) CHECK(v.code(v.good()) == errc{});
  CHECK(v.provider.requests() == before);
}

// Red when the claims are looked at after the fetch.
TEST_CASE("tokens that would be refused anyway cause no request, however their kid is called") {
  verifying v;
  const std::size_t before = v.provider.requests();
  const auto now = v.clock.system_now();
  const auto refused = [&](const std::string& claims) { return v.code(key_two().token(claims)); };
  for (int i = 0; i < 20; ++i) {
    CHECK(refused(claims_at(now - 2h)) == errc::token_expired);
    CHECK(refused(replaced(claims_at(now), issuer, "https://other/")) == errc::issuer_mismatch);
    CHECK(refused(replaced(claims_at(now), audience, "https://other")) == errc::audience_mismatch);
    CHECK(refused(claims_at(now, R"(,"cnf":{"jkt":"x"})")) == errc::token_type_mismatch);
    CHECK(refused("no JSON") == errc::malformed_token);
    CHECK(v.code(v.good(key_two()) + "=") == errc::malformed_token);
    CHECK(v.code(key_two().sign(R"({"alg":"ES256","kid":"x","typ":"JWE"})", claims_at(now))) ==
          errc::token_type_mismatch);
  }
  CHECK(v.provider.requests() == before);
  CHECK(v.manager.stats().throttled == 0);
}

TEST_CASE("a good token with an unknown kid costs one request, and is verified with what that brings") {
  verifying v;
  const std::size_t before = v.provider.requests();
  v.provider.always(response(200, set_of_keys({&key_one(), &key_two()})));
  CHECK(v.code(v.good(key_two())) == errc{});
  CHECK(v.provider.requests() == before + 1);
  CHECK(v.code(v.good(key_two())) == errc{});
  CHECK(v.provider.requests() == before + 1);
}

TEST_CASE("an unknown kid that the provider does not publish either is key_not_found, once for one request") {
  verifying v;
  const std::size_t before = v.provider.requests();
  for (int i = 0; i < 5; ++i) CHECK(v.code(v.good(key_two())) == errc::key_not_found);
  CHECK(v.provider.requests() == before + 1);
}

// Red when the document is asked for first, and the kid then.
TEST_CASE("with nothing cached a good token costs one request, whether its kid is published or not") {
  for (const signing_key* key : {&key_one(), &key_two()}) {
    rig r;
    r.provider.always(response(200, set_of_keys({&key_one()})));
    axioms::basic_token_verifier verifier(r.manager, plain_rules());
    auto config = config_for(url);
    config.prefetch = false;
    r.start(config);
    const errc expected = key == &key_one() ? errc{} : errc::key_not_found;
    CHECK(code_of(verifier.verify(key->token(claims_at(r.clock.system_now())))) == expected);
    CHECK(r.provider.requests() == 1);
  }
}

// Red when take() goes by what was asked, and not by the set that came.
TEST_CASE(
    "a token that names its key by both thumbprints is verified by the one that is published, from the first on") {
  const signing_key key("ES256", "");
  const std::string named = replaced(set_of_keys({&key}), R"({"kty")", R"({"x5t":"short","kty")");
  rig r;
  r.provider.always(response(200, named));
  axioms::basic_token_verifier verifier(r.manager, plain_rules());
  auto config = config_for(url);
  config.prefetch = false;
  r.start(config);
  const std::string text =
      key.sign(R"({"alg":"ES256","typ":"JWT","x5t":"short","x5t#S256":"long"})", claims_at(r.clock.system_now()));
  for (int i = 0; i < 2; ++i) CHECK(code_of(verifier.verify(text)) == errc{});
  CHECK(r.provider.requests() == 1);
}

// Red when the set is asked for its kid alone, or when the manager is asked.
TEST_CASE("a known kid with another algorithm causes no request") {
  verifying v;
  const std::size_t before = v.provider.requests();
  CHECK(v.code(key_two().sign(R"({"alg":"RS256","kid":"one"})", claims_at(v.clock.system_now()))) ==
        errc::key_not_found);
  CHECK(v.provider.requests() == before);
}

// Red when refresh_after_bad_signature() is not asked, or asked without end.
TEST_CASE("a wrong signature of a known kid is looked at again with the key that is published now") {
  const signing_key replaced_key("ES256", "one");
  verifying v;
  v.clock.advance(31s);
  const std::size_t before = v.provider.requests();
  v.provider.always(response(200, set_of_keys({&replaced_key})));
  CHECK(v.code(v.good(replaced_key)) == errc{});
  CHECK(v.provider.requests() == before + 1);
  CHECK(v.code(v.good(key_one())) == errc::bad_signature);
}

TEST_CASE("a wrong signature on claims that would be refused causes no request") {
  const signing_key forger("ES256", "one");
  verifying v;
  v.clock.advance(31s);
  const std::size_t before = v.provider.requests();
  CHECK(v.code(forger.token(claims_at(v.clock.system_now() - 2h))) == errc::bad_signature);
  CHECK(v.provider.requests() == before);
  CHECK(v.code(forger.token(claims_at(v.clock.system_now()))) == errc::bad_signature);
  CHECK(v.provider.requests() == before + 1);
}

TEST_CASE("forged signatures stay within the budget of unknown kids, and are never an outage" *
          doctest::test_suite("slow")) {
  const signing_key forger("ES256", "one");
  verifying v;
  const std::size_t before = v.provider.requests();
  for (int i = 0; i < 100; ++i) {
    v.clock.advance(10ms);
    CHECK(v.code(forger.token(claims_at(v.clock.system_now()))) == errc::bad_signature);
  }
  CHECK(v.provider.requests() - before <= 3);
}

TEST_CASE("a provider that is down is 503 for a good token and 401 for one that is refused anyway") {
  rig r;
  r.provider.always(response(500));
  axioms::basic_token_verifier verifier(r.manager, plain_rules());
  r.start();
  const auto now = r.clock.system_now();
  const auto good = verifier.verify(key_one().token(claims_at(now)));
  REQUIRE_FALSE(good);
  CHECK(good.error().status_code() == 503);
  CHECK(code_of(verifier.verify(key_one().token(claims_at(now - 2h)))) == errc::token_expired);
}

TEST_CASE("a stale set verifies, and past the outage window nothing does") {
  verifying v;
  v.provider.always(response(500));
  const std::string token = key_one().token(
      replaced(claims_at(v.clock.system_now()), "\"exp\":" + std::to_string(seconds_of(v.clock.system_now()) + 3600),
               "\"exp\":4000000000"));
  v.clock.advance(7200s + 1s);
  CHECK(v.code(token) == errc{});
  v.clock.advance(7200s);
  const auto gone = v.verifier.verify(token);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().status_code() == 503);
}

// Red when a set is served that no lookup has asked for.
TEST_CASE("a token that is verified by an imported set begins its background refresh, without initialize") {
  rig before, r;
  before.provider.always(response(200, set_of_keys({&key_one()})));
  REQUIRE(before.manager.get_jwks(url));
  REQUIRE(r.manager.import_cache(before.manager.export_cache()));
  token_rules rules = plain_rules();
  rules.jwks_url = url;
  const axioms::basic_token_verifier verifier(r.manager, std::move(rules));
  CHECK(code_of(verifier.verify(key_one().token(claims_at(r.clock.system_now())))) == errc{});
  CHECK(r.provider.requests() == 0);
  r.settle(1);
  r.clock.advance(3600s);
  CHECK(r.provider.await_requests(1));
}

TEST_CASE("shut down, a verifier says so") {
  verifying v;
  const std::string token = v.good();
  v.manager.shutdown();
  CHECK(v.code(token) == errc::shut_down);
}

TEST_CASE("a verified token outlives verifier and manager, and keeps no document alive") {
  std::optional<verified_token> kept;
  std::weak_ptr<const axioms::jwks_document> document;
  {
    verifying v;
    document = v.manager.get_jwks(url).value();
    kept.emplace(v.verifier.verify(v.good()).value());
    v.manager.shutdown();
  }
  CHECK(kept->subject() == "user-1");
  CHECK(kept->key()->kid() == "one");
}

// Red when the keys are looked for before the issuer.
TEST_CASE("keys of several issuers never mix, even under one kid") {
  const signing_key a("ES256", "same"), b("ES256", "same");
  rig r;
  r.provider.always_at("https://a/k", response(200, set_of_keys({&a})));
  r.provider.always_at("https://b/k", response(200, set_of_keys({&b})));
  const axioms::basic_token_verifier verifier(
      r.manager, std::vector<token_rules>{{.issuer = "https://a", .audience = {audience}, .jwks_url = "https://a/k"},
                                          {.issuer = "https://b", .audience = {audience}, .jwks_url = "https://b/k"}});
  REQUIRE(r.manager.get_jwks("https://a/k"));
  REQUIRE(r.manager.get_jwks("https://b/k"));
  const auto of = [&](const std::string& who) { return replaced(claims_at(r.clock.system_now()), issuer, who); };
  CHECK(code_of(verifier.verify(a.token(of("https://a")))) == errc{});
  CHECK(code_of(verifier.verify(b.token(of("https://b")))) == errc{});
  CHECK(code_of(verifier.verify(b.token(of("https://a")))) == errc::bad_signature);
  CHECK(code_of(verifier.verify(a.token(of("https://b")))) == errc::bad_signature);
  const std::size_t before = r.provider.requests();
  CHECK(code_of(verifier.verify(a.token(of("https://c")))) == errc::issuer_mismatch);
  CHECK(code_of(verifier.verify(a.token(replaced(of("https://a"), "\"iss\"", "\"who\"")))) == errc::issuer_mismatch);
  CHECK(r.provider.requests() == before);
}

TEST_CASE("without a kid the few keys that fit are tried in turn, and too many are ambiguous") {
  std::vector<signing_key> keys;
  for (int i = 0; i < 5; ++i) keys.emplace_back("ES256", "");
  const auto set = [&](std::size_t count) {
    std::vector<const signing_key*> some;
    for (std::size_t i = 0; i < count; ++i) some.push_back(&keys[i]);
    return keys_of(some);
  };
  const std::string token = keys[3].token(claims_at(noon));
  CHECK(code_of(verify_token(token, set(4), plain_rules(), noon)) == errc{});
  CHECK(code_of(verify_token(token, set(3), plain_rules(), noon)) == errc::bad_signature);
  CHECK(code_of(verify_token(token, set(5), plain_rules(), noon)) == errc::key_ambiguous);
  CHECK(code_of(verify_token(token, jwk_set(), plain_rules(), noon)) == errc::key_not_found);
}

// RFC 9068 section 4: any other typ is refused, also one that SPIFFE allows. Red when JOSE is added after the profile.
TEST_CASE("rfc9068 overrides the types of a trust domain too") {
  token_rules rules{.audience = {audience}, .trust_domain = "example.com"};
  const std::string claims =
      replaced(claims_at(noon, R"(,"client_id":"a","jti":"7")"), "user-1", "spiffe://example.com/a");
  const auto code = [&](const std::string& typ) {
    return code_of(pure(key_one().sign(R"({"alg":"ES256","kid":"one","typ":")" + typ + "\"}", claims), rules));
  };
  CHECK(code("JOSE") == errc{});
  CHECK(code("at+jwt") == errc{});
  rules.rfc9068 = true;
  CHECK(code("JOSE") == errc::token_type_mismatch);
  CHECK(code("at+jwt") == errc{});
}

// ---- waiting without blocking --------------------------------------------------------------------

namespace {

using async_type = axioms::basic_async_jwks_manager<fake_fetcher, manual_clock>;

struct async_verifying {
  manual_clock clock;
  fake_fetcher provider;
  async_type manager{provider, clock};
  axioms::basic_token_verifier<async_type> verifier{manager, plain_rules()};
  async_verifying() {
    provider.always(response(200, set_of_keys({&key_one()})));
    auto config = config_for(url);
    config.prefetch = false;
    std::promise<void> started;
    manager.async_initialize(config, [&](const axioms::result<void>&) { started.set_value(); });
    started.get_future().wait();
  }
  std::string good(const signing_key& key = key_one()) { return key.token(claims_at(clock.system_now())); }
  errc code(const std::string& token, axioms::async_options how = {}) {
    std::promise<errc> said;
    verifier.async_verify(
        token, [&](const axioms::result<verified_token>& what) { said.set_value(code_of(what)); }, how);
    return said.get_future().get();
  }
};

}  // namespace

TEST_CASE("the async verifier waits for the first set, then answers inside the call") {
  async_verifying v;
  const std::string token = v.good();
  CHECK(v.code(token) == errc{});
  CHECK(v.provider.requests() == 1);
  bool inside = false;
  const auto thread = std::this_thread::get_id();
  v.verifier.async_verify(token, [&](const axioms::result<verified_token>& what) {
    inside = what.has_value() && std::this_thread::get_id() == thread;
  });
  CHECK(inside);
  CHECK(v.code(v.good(key_two())) == errc::key_not_found);
  CHECK(v.provider.requests() == 2);
  CHECK(v.code("a.b") == errc::malformed_token);
}

TEST_CASE("a caller that is cancelled while it waits for keys completes once, with cancelled") {
  async_verifying v;
  v.provider.hold();
  axioms::stop_source stop;
  std::promise<errc> said;
  const std::string token = v.good();
  const axioms::stop_token asked = stop.get_token();
  v.verifier.async_verify(
      token, [&](const axioms::result<verified_token>& what) { said.set_value(code_of(what)); },
      axioms::async_options{.stop = asked});
  REQUIRE(v.provider.await_requests(1));
  stop.request_stop();
  CHECK(said.get_future().get() == errc::cancelled);
  v.provider.release();
}

// ---- the Authorization header --------------------------------------------------------------------

TEST_CASE("a bearer token is taken out of the Authorization header") {
  for (const std::string_view text : {"Bearer abc", "bearer abc", "BEARER  abc", " Bearer\tabc "}) {
    CAPTURE(text);
    CHECK(bearer_token(text).value() == "abc");
  }
  CHECK(bearer_token("Bearer a-._~+/9==").value() == "a-._~+/9==");
  for (const std::string_view text : {"", "  ", "Basic abc", "Bearerabc", "DPoP abc", "abc"}) {
    CAPTURE(text);
    CHECK(bearer_token(text).error().code == errc::token_missing);
  }
  for (const std::string_view text :
       {"Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer ==", "Bearer a=b", "Bearer \"a\"", "Bearer a\nb"}) {
    CAPTURE(text);
    CHECK(bearer_token(text).error().code == errc::malformed_token);
    CHECK(bearer_token(text).error().description.find("a b") == std::string::npos);
  }
}

// Red, under AddressSanitizer, when that of a temporary is a view as well.
TEST_CASE("the bearer token of a temporary string outlives it") {
  const std::string kept = "Bearer abc";
  static_assert(std::same_as<decltype(bearer_token(kept)), axioms::result<std::string_view>>);
  const auto token = bearer_token("Bearer " + std::string(100, 'a'));
  static_assert(std::same_as<decltype(token), const axioms::result<std::string>>);
  CHECK(token.value() == std::string(100, 'a'));
  CHECK(bearer_token(std::string("Basic abc")).error().code == errc::token_missing);
  CHECK(bearer_token(kept).value().data() == kept.data() + 7);
}

// ---- views ---------------------------------------------------------------------------------------

TEST_CASE("a claim_view gives what is there and nothing else") {
  const auto token = pure(key_one().token(claims_at(
      noon,
      R"(,"s":"","t":"x","i":-7,"d":1.5,"w":1e3,"big":9223372036854775808,"b":false,"a":[1,"2",[3]],"o":{"":1,"a/b":2,"m~n":3,"0":4})")));
  REQUIRE(token);
  const claim_view none = (*token)["nowhere"];
  CHECK_FALSE(none);
  CHECK(none.type() == claim_view::kind::missing);
  CHECK(none.string("other") == "other");
  CHECK_FALSE(none.integer());
  CHECK_FALSE(none.number());
  CHECK_FALSE(none.boolean());
  CHECK_FALSE(none["x"]);
  CHECK(none.size() == 0);
  CHECK(none.begin() == none.end());
  CHECK((*token)["s"].string("other") == "");
  CHECK((*token)["i"].string("other") == "other");
  CHECK((*token)["i"].integer() == std::optional<std::int64_t>(-7));
  CHECK((*token)["i"].number() == std::optional(-7.0));
  CHECK_FALSE((*token)["d"].integer());
  CHECK((*token)["d"].number() == std::optional(1.5));
  CHECK((*token)["w"].integer() == std::optional<std::int64_t>(1000));
  CHECK_FALSE((*token)["big"].integer());
  CHECK((*token)["big"].number() == std::optional(9223372036854775808.0));
  CHECK((*token)["b"].boolean() == std::optional(false));
  CHECK_FALSE((*token)["t"].number());
  std::string elements;
  for (const claim_view each : (*token)["a"])
    elements += std::to_string(static_cast<int>(each.type())) + std::string(each.string("-"));
  CHECK(elements == "3-425-");
  CHECK((*token)["a"].size() == 3);
  CHECK((*token)["t"].size() == 0);
  std::string names;
  for (const claim_view each : (*token)["o"]) names += std::string(each.name()) + ',';
  CHECK(names == ",a/b,m~n,0,");
  CHECK((*token)["/o/a~1b"].integer() == std::optional<std::int64_t>(2));
  CHECK((*token)["/o/m~0n"].integer() == std::optional<std::int64_t>(3));
  CHECK((*token)["/o/"].integer() == std::optional<std::int64_t>(1));
  CHECK((*token)["/o/0"].integer() == std::optional<std::int64_t>(4));
  CHECK((*token)["/a/2/0"].integer() == std::optional<std::int64_t>(3));
  for (const std::string_view path : {"/a/3", "/a/-1", "/a/01", "/a/", "/a/1x", "/t/0", "/o/x", "/x/y", "/"}) {
    CAPTURE(path);
    CHECK_FALSE((*token)[path]);
  }
}

TEST_CASE("scopes, roles and permissions are held by whole names") {
  const auto with_claims = [](const std::string& more, const token_rules& rules = plain_rules()) {
    return pure(key_one().token(claims_at(noon, "," + more)), rules).value();
  };
  const auto scopes = with_claims(R"("scope":" a  b\tc d ")");
  CHECK(scopes.has_scope("a"));
  CHECK(scopes.has_scope("d"));
  CHECK(scopes.has_scope("b\tc"));
  CHECK_FALSE(scopes.has_scope("b"));
  CHECK_FALSE(scopes.has_scope(""));
  CHECK_FALSE(scopes.has_scope("a  b"));
  const auto listed = with_claims(R"("scp":["a","b c",7,""],"roles":"admin of all","permissions":["x"])");
  CHECK(listed.has_scope("b c"));
  CHECK_FALSE(listed.has_scope("b"));
  CHECK_FALSE(listed.has_scope(""));
  CHECK(listed.has_role("admin of all"));
  CHECK_FALSE(listed.has_role("admin"));
  CHECK(listed.has_permission("x"));
  token_rules split = plain_rules();
  split.split_roles = true;
  split.role_claims = {"nowhere", "/realm_access/roles", "roles"};
  CHECK(with_claims(R"("roles":"admin of all")", split).has_role("admin"));
  CHECK(with_claims(R"("roles":"x","realm_access":{"roles":["deep"]})", split).has_role("deep"));
  CHECK_FALSE(with_claims(R"("roles":"x","realm_access":{"roles":["deep"]})", split).has_role("x"));
  for (const std::string odd : {R"("scope":7)", R"("scope":{"a":1})", R"("scope":true)", R"("scope":null)"})
    CHECK_FALSE(with_claims(odd).has_scope("a"));
  CHECK(with_claims(R"("scope":null,"scp":"a")").has_scope("a"));
  CHECK_FALSE(with_claims(R"("scope":"b","scp":"a")").has_scope("a"));
}

TEST_CASE("access is granted when every list that is not empty holds, else the description names what is lacking") {
  const auto token =
      pure(key_one().token(claims_at(noon, R"(,"scope":"read write","roles":["dev"],"permissions":["p"])"))).value();
  CHECK(token.require({}));
  CHECK(token.require({.all_scopes = {"read", "write"}, .any_roles = {"ops", "dev"}, .all_permissions = {"p"}}));
  const auto lacking = [&](const axioms::required_access& access) {
    const auto allowed = token.require(access);
    REQUIRE_FALSE(allowed);
    CHECK(allowed.error().code == errc::insufficient_scope);
    CHECK(allowed.error().status_code() == 403);
    return allowed.error().description;
  };
  CHECK(lacking({.all_scopes = {"read", "delete"}}) == "the token lacks the scope 'delete'");
  CHECK(lacking({.any_scopes = {"a", "b"}}) == "the token has no scope of 'a', 'b'");
  CHECK(lacking({.all_roles = {"ops"}}) == "the token lacks the role 'ops'");
  CHECK(lacking({.any_roles = {"ops"}}) == "the token has no role of 'ops'");
  CHECK(lacking({.all_scopes = {"read"}, .all_permissions = {"q"}}) == "the token lacks the permission 'q'");
  CHECK(lacking({.any_permissions = {""}}) == "the token has no permission of ''");
}

// ---- the rules -----------------------------------------------------------------------------------

TEST_CASE("rules are checked, and the description names the option, its value and the rule") {
  CHECK(plain_rules().validate());
  const auto broken = [](const std::string& text, auto change) {
    token_rules rules = plain_rules();
    change(rules);
    const auto checked = rules.validate();
    CAPTURE(text);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == errc::invalid_config);
    CHECK(checked.error().description.find(text) == 0);
    CHECK(code_of(pure("a.b.c", rules)) == errc::invalid_config);
  };
  broken("issuer is empty", [](token_rules& r) { r.issuer.clear(); });
  broken("trust_domain is 'x'", [](token_rules& r) { r.trust_domain = "x"; });
  broken("trust_domain is 'a/b'", [](token_rules& r) { r.issuer.clear(), r.trust_domain = "a/b"; });
  broken("audience is empty", [](token_rules& r) { r.audience.clear(); });
  broken("audience is set", [](token_rules& r) { r.any_audience = true; });
  broken("audience holds an empty name", [](token_rules& r) { r.audience = {"a", ""}; });
  broken("algorithms holds 'HS256'", [](token_rules& r) { r.algorithms = {"RS256", "HS256"}; });
  broken("algorithms holds 'none'", [](token_rules& r) { r.algorithms = {"none"}; });
  broken("types is empty", [](token_rules& r) { r.types.clear(); });
  broken("leeway is -1 s", [](token_rules& r) { r.leeway = -1s; });
  broken("leeway is 301 s", [](token_rules& r) { r.leeway = 301s; });
  broken("max_token_bytes is 63", [](token_rules& r) { r.max_token_bytes = 63; });
  broken("max_token_bytes is 1048577", [](token_rules& r) { r.max_token_bytes = (1 << 20) + 1; });
  broken("memo is 1048577", [](token_rules& r) { r.memo = (1 << 20) + 1; });
  broken("required_claims holds an empty name", [](token_rules& r) { r.required_claims = {""}; });
  broken("required_values holds 'a' with 0 values", [](token_rules& r) { r.required_values = {{"a", {}}}; });
  broken("scope_claims holds an empty name", [](token_rules& r) { r.scope_claims = {""}; });
  broken("jwks_url is no URL", [](token_rules& r) { r.jwks_url = "nowhere"; });
}

TEST_CASE("several issuers must differ, have a URL each, and share what is the verifier's") {
  rig r;
  const auto broken = [&](std::vector<token_rules> rules) {
    const axioms::basic_token_verifier verifier(r.manager, std::move(rules));
    const auto said = verifier.verify("a.b.c");
    REQUIRE_FALSE(said);
    CHECK(said.error().code == errc::invalid_config);
    return said.error().description;
  };
  const auto at = [](const std::string& who) {
    token_rules rules = plain_rules();
    rules.issuer = who;
    rules.jwks_url = "https://keys/";
    return rules;
  };
  token_rules without = at("b"), longer = at("b"), remembering = at("b");
  without.jwks_url.clear();
  longer.max_token_bytes = 100;
  remembering.memo = 1;
  CHECK(broken({}) == "there are no rules; there must be some");
  CHECK(broken({at("a"), without}).find("jwks_url is empty") == 0);
  CHECK(broken({at("a"), longer}).find("max_token_bytes and memo differ") == 0);
  CHECK(broken({at("a"), remembering}).find("max_token_bytes and memo differ") == 0);
  CHECK(broken({at("a"), at("a")}).find("issuer 'a' stands in two rules") == 0);
  const axioms::basic_token_verifier good(r.manager, std::vector<token_rules>{at("a"), at("b")});
  CHECK(code_of(good.verify("a.b.c")) == errc::malformed_token);
}

// ---- answers to a request ------------------------------------------------------------------------

// Red when a text says which check failed.
TEST_CASE("the challenge says the same for whatever is wrong with a token, but for expiry") {
  for (const errc code : {errc::malformed_token, errc::unsupported_algorithm, errc::bad_signature,
                          errc::token_not_yet_valid, errc::issuer_mismatch, errc::audience_mismatch,
                          errc::token_type_mismatch, errc::claim_missing, errc::key_not_found, errc::key_ambiguous}) {
    CHECK(axioms::error{code, "secret", 0}.www_authenticate() ==
          R"(Bearer error="invalid_token", error_description="The access token is invalid")");
  }
  CHECK(axioms::error{errc::token_expired, "", 0}.www_authenticate() ==
        R"(Bearer error="invalid_token", error_description="The access token expired")");
  CHECK(axioms::error{errc::token_missing, "", 0}.www_authenticate() == "Bearer");
  CHECK(
      axioms::error{errc::insufficient_scope, "", 0}.www_authenticate(
          axioms::challenge{.realm = "r\"x", .scope = "a b", .resource_metadata = "https://x/"}) ==
      R"(Bearer realm="r\"x", error="insufficient_scope", error_description="The access token lacks what the request needs", scope="a b", resource_metadata="https://x/")");
  CHECK(axioms::error{errc::timed_out, "", 0}.www_authenticate(axioms::challenge{.realm = "r"}) == "");
}
