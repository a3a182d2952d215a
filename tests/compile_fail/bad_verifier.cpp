// A token verifier over keys that no manager keeps.
// expect: basic_token_verifier takes a basic_jwks_manager or a basic_async_jwks_manager
#include "axioms_jwks.hpp"

int main() {
  const axioms::jwk_set keys;
  const axioms::basic_token_verifier verifier(keys, {.issuer = "https://idp.example.com/", .audience = {"api"}});
  return verifier.verify("no.token.here") ? 0 : 1;
}
