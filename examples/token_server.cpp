// A server with protected routes: one needs a scope, one a role. Run it with your issuer's name as its first argument;
// the second is the port, 8080 if there is none. The tests run it beside support/ask_token_server.cpp, which is the
// issuer and the client.
// [readme]
#include "axioms_jwks.hpp"
#include <httplib.h>

int main(int argc, char** argv) {
  const std::string issuer = argc > 1 ? argv[1] : "https://idp.example.com";
  axioms::jwks_manager keys;
  if (!keys.initialize({.issuer = issuer, .discovery = true})) return 1;
  const axioms::token_verifier verifier(keys, {.issuer = issuer, .audience = {"https://api.example.com"}});

  const auto guarded = [&](const axioms::required_access& access, auto answer) {
    return [&verifier, access, answer](const httplib::Request& request, httplib::Response& response) {
      const std::string header = request.get_header_value("Authorization");
      const auto token = axioms::bearer_token(header).and_then([&](auto text) { return verifier.verify(text); });
      const auto allowed = token.and_then([&](const axioms::verified_token& good) { return good.require(access); });
      if (allowed) return response.set_content(answer(*token), "text/plain");
      // 401, 403, or 503 if there are no keys to be had
      response.status = allowed.error().status_code();
      if (response.status < 500) response.set_header("WWW-Authenticate", allowed.error().www_authenticate());
    };
  };
  httplib::Server server;
  server.Get("/orders", guarded({.all_scopes = {"orders:read"}}, [](auto& t) { return std::string(t.subject()); }));
  server.Delete("/orders", guarded({.any_roles = {"admin"}}, [](auto&) { return std::string("deleted"); }));
  return server.listen("127.0.0.1", argc > 2 ? std::atoi(argv[2]) : 8080) ? 0 : 1;
}
// [/readme]
