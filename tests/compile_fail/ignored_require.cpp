// Who ignores the answer lets everybody in.
// expect: nodiscard
// expect: require
// flags: -Werror=unused-result -Werror=unused-value
#include "axioms_jwks.hpp"

void delete_orders(const axioms::verified_token& token) { token.require({.any_roles = {"admin"}}); }

int main() {}
