#include "axioms_jwks.hpp"
#include <iostream>

int main() {
  const auto set = axioms::jwk_set::parse(
      R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"signing","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})");
  if (!set) return std::cerr << set.error().description << '\n', 1;
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
  const axioms::jwks_manager manager;  // links the default fetcher
  if (manager.running()) return 1;
#endif
  std::cout << "axioms_jwks " << AXIOMS_JWKS_VERSION << ": " << set->size() << " key\n";
}
