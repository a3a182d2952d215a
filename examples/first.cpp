// Fetches the key set of the URL it is given and finds a key in it. It needs a provider; the tests give it one with
// support/with_issuer.cpp. Run it with your provider's URL as its argument.
#include "axioms_jwks.hpp"
#include <iostream>
#include <openssl/evp.h>

int main(int argc, char** argv) {
  axioms::jwks_manager manager;
  axioms::jwks_config config;
  config.jwks_url = argc > 1 ? argv[1] : "https://idp.example.com/.well-known/jwks.json";
  // Fetches now, then keeps the set fresh in the background. A provider that is down is no error yet: get_key() tells.
  const auto started = manager.initialize(config);

  // From memory, like every lookup from now on. The header of a token says which key signed it:
  const auto key = started.and_then([&] { return manager.get_key({.kid = "2026-01", .alg = "ES256"}); });
  if (!key) {
    std::cerr << key.error().description << '\n';
    return 1;
  }
  EVP_PKEY* pkey = (*key)->native_handle();  // ready for EVP_DigestVerifyInit, and built only once
  std::cout << (*key)->kid() << ": " << (*key)->curve() << ", " << EVP_PKEY_get_bits(pkey) << " bits\n";
}
