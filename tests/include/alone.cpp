#include "axioms_jwks.hpp"
