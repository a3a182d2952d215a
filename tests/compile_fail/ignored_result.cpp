// expect: nodiscard
// flags: -Werror=unused-result -Werror=unused-value
#include "axioms_jwks.hpp"

axioms::result<void> try_it();

int main() { try_it(); }
