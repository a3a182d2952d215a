// The control of bad_verifier and ignored_require: the same without their faults.
#include "axioms_jwks.hpp"

struct my_client {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request&, axioms::stop_token) const {
    return axioms::fetch_response{404, {}, {}};
  }
};

bool delete_orders(const axioms::verified_token& token) { return token.require({.any_roles = {"admin"}}).has_value(); }

int main() {
  axioms::basic_jwks_manager<my_client> keys;
  const axioms::basic_token_verifier verifier(keys, {.issuer = "https://idp.example.com/", .audience = {"api"}});
  const auto token = verifier.verify("no.token.here");
  return token && delete_orders(*token) ? 0 : 1;
}
