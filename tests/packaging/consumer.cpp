// The program of somebody who takes this library in: each packaging test builds it and runs it.
#include "axioms_jwks.hpp"
#include <iostream>

int main() {
  const auto set = axioms::jwk_set::parse(
      R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"signing","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})");
  if (!set) return 1;
  const auto key = set->select({.kid = "signing", .alg = "EdDSA"});
  if (!key) return 1;
  std::cout << AXIOMS_JWKS_VERSION << ' ' << (*key)->thumbprint();
#if defined(AXIOMS_JWKS_NO_HTTPLIB)
  std::cout << " core\n";
#else
  // Nobody listens there; but a TLS client has been made, which a cpp-httplib with the wrong macros does not survive.
  axioms::jwks_manager manager;
  const auto nothing = manager.get_jwks("https://127.0.0.1:1/jwks.json");
  std::cout << ' ' << (nothing ? "a key set" : to_string(nothing.error().code)) << " httplib\n";
#endif
}
