// How each identity provider is configured: whose keys a manager fetches, and which tokens a verifier accepts. The
// table in providers.md is printed from here by providers.cpp, and tests/unit/provider_table.cpp verifies tokens of
// each shape with it.
//
// acme, orders, shop and the identifiers stand for yours. Copy `iss` and `aud` from a token of your own provider: each
// byte counts.
#ifndef AXIOMS_JWKS_EXAMPLES_PROVIDERS_HPP
#define AXIOMS_JWKS_EXAMPLES_PROVIDERS_HPP

#include "axioms_jwks.hpp"

#include <string>
#include <vector>

namespace providers {

struct provider {
  std::string name;
  axioms::jwks_config keys;                // for initialize() of a manager
  std::vector<axioms::token_rules> rules;  // for a token_verifier on it
  std::string remarks;
};

inline const std::string tenant = "11111111-2222-3333-4444-555555555555";  // Entra's directory
inline const std::string api = "66666666-7777-8888-9999-000000000000";     // Entra's application of your service

inline provider auth0() {
  return {"Auth0",
          {.issuer = "https://acme.eu.auth0.com/"},
          {{.issuer = "https://acme.eu.auth0.com/", .audience = {"https://api.acme.example"}}},
          "The slash at the end of the issuer belongs to it. Without an audience in the login request the token is "
          "opaque. Turn on RBAC to get `permissions`."};
}

inline provider okta() {
  return {
      "Okta",
      {.issuer = "https://acme.okta.com/oauth2/default", .discovery = true},
      {{.issuer = "https://acme.okta.com/oauth2/default", .audience = {"api://default"}, .role_claims = {"groups"}}},
      "A custom authorization server. Tokens of the org's own one are for Okta alone."};
}

inline provider entra_v1() {
  return {"Entra ID, tokens of version 1",
          {.jwks_url = "https://login.microsoftonline.com/" + tenant + "/discovery/keys"},
          {{.issuer = "https://sts.windows.net/" + tenant + "/", .audience = {"api://" + api, api}}},
          "The API's registration decides on the version, not the endpoint: look at `ver` in a token. Tokens for "
          "Microsoft Graph cannot be verified by others."};
}

inline provider entra_v2() {
  return {"Entra ID, tokens of version 2",
          {.issuer = "https://login.microsoftonline.com/" + tenant + "/v2.0", .discovery = true},
          {{.issuer = "https://login.microsoftonline.com/" + tenant + "/v2.0", .audience = {api}}},
          "An ID token of the same registration has the same audience: require a scope or a role. Several tenants: one "
          "rule each, all with one `jwks_url`."};
}

inline provider b2c() {
  return {"Azure AD B2C",
          {.jwks_url = "https://acme.b2clogin.com/acme.onmicrosoft.com/B2C_1_signin/discovery/v2.0/keys"},
          {{.issuer = "https://acme.b2clogin.com/" + tenant + "/v2.0/",
            .audience = {api},
            .required_values = {{"tfp", {"B2C_1_signin"}}}}},
          "Each flow has keys of its own. Its name is in `tfp`, or in `acr` if the tenant says so."};
}

inline provider cognito() {
  return {"Amazon Cognito",
          {.issuer = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE"},
          {{.issuer = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE",
            .audience = {"4example23456789"},
            .required_values = {{"token_use", {"access"}}},
            .audience_claim = "client_id",
            .role_claims = {"cognito:groups"}}},
          "Access tokens have no `aud`, so the client's id stands in for it. Without `token_use`, ID tokens pass."};
}

inline provider google() {
  const axioms::token_rules rules{.issuer = "https://accounts.google.com",
                                  .audience = {"32555940559.apps.googleusercontent.com"},
                                  .jwks_url = "https://www.googleapis.com/oauth2/v3/certs",
                                  .required_values = {{"email", {"jane@acme.example"}}}};
  axioms::token_rules other = rules;
  other.issuer = "accounts.google.com";
  return {"Google, ID tokens",
          {.jwks_url = "https://www.googleapis.com/oauth2/v3/certs"},
          {rules, other},
          "Both issuers are in use. Every service account may ask for any audience: require `email` or `sub`. Access "
          "tokens are opaque. Identity-Aware Proxy has an issuer and keys of its own."};
}

inline provider keycloak() {
  return {
      "Keycloak",
      {.issuer = "https://sso.acme.example/realms/shop", .discovery = true},
      {{.issuer = "https://sso.acme.example/realms/shop",
        .audience = {"orders"},
        .required_values = {{"typ", {"Bearer"}}},
        .role_claims = {"/realm_access/roles"}}},
      "Give the client an audience mapper; an audience of `account` proves nothing. Without `typ`, ID tokens pass. A "
      "client's own roles are in `/resource_access/CLIENT/roles`."};
}

inline provider kubernetes() {
  return {"Kubernetes, service accounts",
          {.jwks_url = "https://kubernetes.default.svc/openid/v1/jwks"},
          {{.issuer = "https://kubernetes.default.svc.cluster.local",
            .audience = {"orders"},
            .required_values = {{"sub", {"system:serviceaccount:shop:web"}}}}},
          "The key set needs the cluster's CA and the pod's own token: [private_provider.cpp](private_provider.cpp). "
          "The issuer is the cluster's `--service-account-issuer`, the audience that of the projected volume."};
}

inline provider spiffe() {
  return {"SPIFFE, JWT-SVIDs",
          {.jwks_url = "https://spire.acme.example/bundle"},
          {{.audience = {"spiffe://acme.example/orders"}, .trust_domain = "acme.example"}},
          "The bundle endpoint of the trust domain. With SPIRE's `jwt_issuer`, `issuer` instead of `trust_domain`."};
}

inline provider github_actions() {
  return {"GitHub Actions",
          {.issuer = "https://token.actions.githubusercontent.com", .discovery = true},
          {{.issuer = "https://token.actions.githubusercontent.com",
            .audience = {"https://github.com/acme"},
            .required_values = {{"repository_owner_id", {"1234"}}}}},
          "The job chooses the audience, and one key set signs for all repositories: always require "
          "`repository_owner_id` or `repository_id`. An Enterprise Server's issuer is `https://HOST/_services/token`."};
}

inline std::vector<provider> all() {
  return {auth0(),  okta(),     entra_v1(),   entra_v2(), b2c(),           cognito(),
          google(), keycloak(), kubernetes(), spiffe(),   github_actions()};
}

}  // namespace providers

#endif
