// The smallest fetcher: for a client that is just a function from a URL to a body, as many a code base has one. Run it without
// arguments.
//
// Such a client cannot be stopped, so shutdown() and the destructor wait until it returns: give it a timeout of its own. Nor
// does it ask whether anything has changed: every refresh brings the whole document.

// In a real project on the command line, for every file: CMake's axioms::jwks_core does that.
#define AXIOMS_JWKS_NO_HTTPLIB
#include "axioms_jwks.hpp"

#include <iostream>
#include <optional>
#include <string>

// Yours; here it knows one page.
std::optional<std::string> get(const std::string& url) {
  if (url != "https://idp.example.com/jwks.json") return std::nullopt;
  return R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})";
}

// [readme]
struct simple_fetcher {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request, axioms::stop_token) const {
    const auto body = get(request.url);
    if (!body) return axioms::error{axioms::errc::fetch_failed, "no answer from " + request.url};
    return axioms::fetch_response{.status = 200, .body = *body};
  }
};
// [/readme]

int main() {
  axioms::basic_jwks_manager<simple_fetcher> manager;
  const auto key = manager.get_key("https://idp.example.com/jwks.json", {.kid = "a", .alg = "EdDSA"});
  const auto missing = manager.get_jwks("https://idp.example.com/other.json");
  if (!key || missing) return std::cerr << "wrong\n", 1;
  std::cout << (*key)->kid() << ": " << (*key)->curve() << '\n' << missing.error().description << '\n';
}
