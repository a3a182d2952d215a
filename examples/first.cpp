// Fetches the key set of the URL it is given and finds a key in it. It needs a provider; the tests give it one with
// support/with_issuer.cpp. Run it with your provider's URL as its argument.
#include "axioms_jwks.hpp"
#include <iostream>

int main(int argc, char** argv) {
  axioms::jwks_manager manager;
  axioms::jwks_config config;
  config.jwks_url = argc > 1 ? argv[1] : "https://idp.example.com/.well-known/jwks.json";
  // Fetches now, then keeps the set fresh in the background. If the provider is down, this succeeds, and get_key()
  // returns the error.
  const auto started = manager.initialize(config);

  // From memory, like every lookup from now on. The header of a token says which key signed it:
  const auto key = started.and_then([&] { return manager.get_key({.kid = "2026-01", .alg = "ES256"}); });
  if (!key) {
    std::cerr << key.error().description << '\n';
    return 1;
  }
  // (*key)->verify(alg, text, signature) checks what it signed; a token_verifier checks whole tokens.
  std::cout << (*key)->kid() << ": " << (*key)->curve() << ", " << (*key)->bits() << " bits\n";
}
