// A server with protected routes: one needs a scope, one a role. Run it with your issuer's name as its first argument;
// the second is the port, 8080 if there is none. The tests run it beside support/ask_token_server.cpp, which is the
// issuer and the client.
// [readme]
#include "axioms_jwks.hpp"
#include <httplib.h>
#include <iostream>

int main(int argc, char** argv) {
  const std::string issuer = argc > 1 ? argv[1] : "https://idp.example.com";
  axioms::jwks_manager keys;
  const auto started = keys.initialize({.issuer = issuer, .discovery = true});
  if (!started) return std::cerr << started.error().description << '\n', 1;
  const axioms::token_verifier verifier(keys, {.issuer = issuer, .audience = {"https://api.example.com"}});

  // The token of a request that may do this; for any other request the response says why not.
  const auto admit = [&](const auto& request, auto& response, const axioms::required_access& access) {
    const auto token = axioms::bearer_token(request.get_header_value("Authorization")).and_then([&](auto text) {
      return verifier.verify(text);
    });
    const auto allowed = token.and_then([&](const auto& good) { return good.require(access); });
    if (allowed) return token;
    // 401, 403, or 503 if there are no keys to be had. For your log: allowed.error().description
    response.status = allowed.error().status_code();
    if (response.status < 500) response.set_header("WWW-Authenticate", allowed.error().www_authenticate());
    return axioms::result<axioms::verified_token>(allowed.error());
  };
  httplib::Server server;
  server.Get("/orders", [&](const httplib::Request& request, httplib::Response& response) {
    const auto token = admit(request, response, {.all_scopes = {"orders:read"}});
    if (token) response.set_content(std::string(token->subject()), "text/plain");
  });
  server.Delete("/orders", [&](const httplib::Request& request, httplib::Response& response) {
    if (admit(request, response, {.any_roles = {"admin"}})) response.set_content("deleted", "text/plain");
  });
  return server.listen("127.0.0.1", argc > 2 ? std::atoi(argv[2]) : 8080) ? 0 : 1;
}
// [/readme]
