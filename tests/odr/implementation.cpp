// The one TU of the split mode that holds the bodies.
#define AXIOMS_JWKS_IMPLEMENTATION
#include "axioms_jwks.hpp"
