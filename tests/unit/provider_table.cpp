// The table of examples/providers.md, row by row: with the configuration that stands there, a manager finds the key set
// where that provider publishes it, and a verifier takes the tokens that it issues and refuses those that are for
// others. Metadata, key sets and tokens have the shapes of each provider's own; names, ids and keys are made up.
#include "axioms_jwks.hpp"
#include "examples/support/providers.hpp"
#include "support/rig.hpp"
#include "support/token_corpus.hpp"
#include "support/token_maker.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using support::response;

// Key sets of RSA keys take the better part of a millisecond: too long to be repeated 1,000 times with the others.
TEST_SUITE_BEGIN("slow");

namespace {

// What a provider publishes, and where. Of two URLs the first is that of the metadata.
struct published {
  std::vector<std::string> urls;
  std::string metadata;
};

// By the names of rows in tests/vectors/tokens/providers.json.
struct tokens {
  std::vector<std::string> good;
  std::vector<std::pair<std::string, std::string>> refused;  // with the code
};

std::string with_altered_signature(std::string token) {
  char& first = token[token.rfind('.') + 1];
  first = first == 'A' ? 'B' : 'A';
  return token;
}

void check(const providers::provider& configured, const published& what, const tokens& expected) {
  CAPTURE(configured.name);
  const auto& corpus = support::read_token_corpus("providers");
  const auto& first = corpus.named(expected.good.front());
  support::rig r;
  r.provider.always(response(404));
  if (what.urls.size() > 1) r.provider.always_at(what.urls.front(), response(200, what.metadata));
  r.provider.always_at(what.urls.back(), response(200, first.sets.at("")));
  r.clock.step_wall(std::chrono::duration_cast<std::chrono::seconds>(first.now - r.clock.system_now()));
  auto config = configured.keys;
  config.random = [] { return std::uint64_t{0}; };
  r.start(config);
  r.settle(1);
  r.clock.advance(31s);  // a key set that is younger is an answer to a wrong signature

  const axioms::basic_token_verifier<support::manager_type> verifier(r.manager, configured.rules);
  const auto verified = [&](const std::string& token) {
    const auto out = verifier.verify(token);
    return out ? std::string("good") : std::string(to_string(out.error().code));
  };
  for (const auto& name : expected.good) {
    CAPTURE(name);
    const auto& row = corpus.named(name);
    const auto token = verifier.verify(row.token);
    REQUIRE_MESSAGE(token.has_value(), token.error().description);
    for (const auto& scope : row.grants.scopes) CHECK(token->has_scope(scope));
    for (const auto& role : row.grants.roles) CHECK(token->has_role(role));
    for (const auto& role : row.denies.roles) CHECK_FALSE(token->has_role(role));
    for (const auto& permission : row.grants.permissions) CHECK(token->has_permission(permission));
  }
  for (const auto& each : expected.refused) {
    CAPTURE(each.first);
    CHECK(verified(corpus.named(each.first).token) == each.second);
  }
  // Nothing but what is published was asked for, and each once.
  REQUIRE(r.provider.requests() == what.urls.size());
  for (std::size_t i = 0; i < what.urls.size(); ++i) CHECK(r.provider.request(i).url == what.urls[i]);
  CHECK(verified(with_altered_signature(first.token)) == "bad_signature");
}

}  // namespace

TEST_CASE("the table of providers: Auth0") {
  check(providers::auth0(), {{"https://acme.eu.auth0.com/.well-known/jwks.json"}, {}},
        {{"Auth0: a user", "Auth0: a machine", "Auth0: the RFC 9068 profile"},
         {{"Auth0: an API with HS256", "unsupported_algorithm"}}});
}

TEST_CASE("the table of providers: Okta") {
  check(
      providers::okta(),
      {{"https://acme.okta.com/oauth2/default/.well-known/openid-configuration",
        "https://acme.okta.com/oauth2/default/v1/keys"},
       R"({"issuer":"https://acme.okta.com/oauth2/default","authorization_endpoint":"https://acme.okta.com/oauth2/)"
       R"(default/v1/authorize","token_endpoint":"https://acme.okta.com/oauth2/default/v1/token","jwks_uri":"https://)"
       R"(acme.okta.com/oauth2/default/v1/keys","response_types_supported":["code"],"scopes_supported":["openid"]})"},
      {{"Okta: a custom authorization server"}, {{"Okta: the org's own authorization server", "token_type_mismatch"}}});
}

TEST_CASE("the table of providers: Entra ID v1") {
  check(providers::entra_v1(),
        {{"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/discovery/keys"}, {}},
        {{"Entra ID v1", "Entra ID v1: the GUID as the audience, roles as a string, groups elsewhere",
          "Entra ID v1: only x5t"},
         {{"Entra ID v1: of Graph, whose nonce was hashed before it was signed", "bad_signature"},
          {"Entra ID v2", "issuer_mismatch"}}});
}

TEST_CASE("the table of providers: Entra ID v2") {
  const std::string base = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/";
  check(providers::entra_v2(),
        {{base + "v2.0/.well-known/openid-configuration", base + "discovery/v2.0/keys"},
         R"({"token_endpoint":")" + base + R"(oauth2/v2.0/token","jwks_uri":")" + base +
             R"(discovery/v2.0/keys","id_token_signing_alg_values_supported":["RS256"],"issuer":")" + base +
             R"(v2.0","request_uri_parameter_supported":false,"tenant_region_scope":"EU","cloud_instance_name":)"
             R"("microsoftonline.com","rbac_url":"https://pas.windows.net"})"},
        {{"Entra ID v2"}, {{"Entra ID v2: another tenant", "issuer_mismatch"}, {"Entra ID v1", "issuer_mismatch"}}});
}

TEST_CASE("the table of providers: Azure AD B2C") {
  check(providers::b2c(), {{"https://acme.b2clogin.com/acme.onmicrosoft.com/B2C_1_signin/discovery/v2.0/keys"}, {}},
        {{"Azure AD B2C"},
         {{"Azure AD B2C: another flow", "claim_missing"},
          {"Azure AD B2C: the issuer names the flow", "issuer_mismatch"}}});
}

TEST_CASE("the table of providers: Amazon Cognito") {
  check(providers::cognito(),
        {{"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE/.well-known/jwks.json"}, {}},
        {{"Amazon Cognito: an access token"},
         {{"Amazon Cognito: an ID token", "claim_missing"},
          {"Amazon Cognito: of another client", "audience_mismatch"},
          {"Amazon Cognito: bound to a resource", "audience_mismatch"}}});
}

TEST_CASE("the table of providers: Google") {
  check(providers::google(), {{"https://www.googleapis.com/oauth2/v3/certs"}, {}},
        {{"Google: an ID token", "Google: the issuer without https://"},
         {{"Google: a service account that names a URL", "audience_mismatch"},
          {"Google: an access token is opaque", "malformed_token"},
          {"Google: signed by a service account itself", "issuer_mismatch"},
          {"Google: Identity-Aware Proxy", "issuer_mismatch"}}});
}

// Any service account may ask for that audience.
TEST_CASE("the table of providers: Google, somebody else's service account") {
  const support::signing_key key("RS256", "c3afe7a9bda46bae6ef97e46c95cda48912e5979");
  support::rig r;
  r.provider.always(response(200, support::set_of_keys({&key})));
  auto configured = providers::google();
  r.start(configured.keys);
  const axioms::basic_token_verifier<support::manager_type> verifier(r.manager, configured.rules);
  const auto token = [&](const std::string& email) {
    const auto now = std::chrono::floor<std::chrono::seconds>(r.clock.system_now().time_since_epoch()).count();
    return key.sign(
        R"({"alg":"RS256","kid":"c3afe7a9bda46bae6ef97e46c95cda48912e5979","typ":"JWT"})",
        R"({"iss":"https://accounts.google.com","aud":"32555940559.apps.googleusercontent.com","sub":"1","email":")" +
            email + R"(","email_verified":true,"iat":)" + std::to_string(now) + R"(,"exp":)" +
            std::to_string(now + 3600) + "}");
  };
  CHECK(verifier.verify(token("jane@acme.example")).has_value());
  const auto refused = verifier.verify(token("robot@evil.iam.gserviceaccount.com"));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == axioms::errc::claim_missing);
}

TEST_CASE("the table of providers: Keycloak") {
  const std::string realm = "https://sso.acme.example/realms/shop";
  check(providers::keycloak(),
        {{realm + "/.well-known/openid-configuration", realm + "/protocol/openid-connect/certs"},
         R"({"issuer":")" + realm + R"(","authorization_endpoint":")" + realm +
             R"(/protocol/openid-connect/auth","jwks_uri":")" + realm +
             R"(/protocol/openid-connect/certs","grant_types_supported":["authorization_code"],"acr_values_supported":)"
             R"(["0","1"],"mtls_endpoint_aliases":{"token_endpoint":")" +
             realm + R"(/protocol/openid-connect/token"},"authorization_response_iss_parameter_supported":true})"},
        {{"Keycloak", "Keycloak: at+jwt for a client", "Keycloak: a lightweight token without sub"},
         {{"Keycloak: no audience mapper", "claim_missing"},
          {"Keycloak: only account as the audience", "audience_mismatch"},
          {"Keycloak: an ID token", "claim_missing"},
          {"Keycloak: the client sent a DPoP header", "token_type_mismatch"}}});
}

TEST_CASE("the table of providers: Kubernetes") {
  check(providers::kubernetes(), {{"https://kubernetes.default.svc/openid/v1/jwks"}, {}},
        {{"Kubernetes: a projected service account token"},
         {{"Kubernetes: for the API server", "audience_mismatch"},
          {"Kubernetes: another service account", "claim_missing"},
          {"Kubernetes: a legacy secret without exp and aud", "claim_missing"}}});
}

TEST_CASE("the table of providers: SPIFFE") {
  check(providers::spiffe(), {{"https://spire.acme.example/bundle"}, {}},
        {{"SPIFFE: a JWT-SVID", "SPIFFE: a JWT-SVID of typ JOSE without kid"},
         {{"SPIFFE: another trust domain", "issuer_mismatch"}}});
}

TEST_CASE("the table of providers: GitHub Actions") {
  const std::string issuer = "https://token.actions.githubusercontent.com";
  check(providers::github_actions(),
        {{issuer + "/.well-known/openid-configuration", issuer + "/.well-known/jwks"},
         R"({"issuer":")" + issuer + R"(","jwks_uri":")" + issuer +
             R"(/.well-known/jwks","subject_types_supported":["public","pairwise"],"response_types_supported":)"
             R"(["id_token"],"claims_supported":["sub","aud","exp","iat","iss","jti","repository"],)"
             R"("id_token_signing_alg_values_supported":["RS256"],"scopes_supported":["openid"]})"},
        {{"GitHub Actions"},
         {{"GitHub Actions: somebody else's repository", "claim_missing"},
          {"GitHub Actions: an enterprise's slug", "issuer_mismatch"},
          {"GitHub Actions: Enterprise Server", "issuer_mismatch"}}});
}

TEST_SUITE_END();
