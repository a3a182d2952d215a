// expect: nodiscard
// flags: -Werror
#include "axioms_jwks.hpp"

axioms::result<void> try_it();

int main() { try_it(); }
