#include "axioms_jwks.hpp"

// Its internal macros are gone, and what users may ask stays.
#if defined(AXIOMS_JWKS_ABI) || defined(AXIOMS_JWKS_INLINE) || defined(AXIOMS_JWKS_TRY) || \
    defined(AXIOMS_JWKS_CATCH_ALL) || defined(AXIOMS_JWKS_CPLUSPLUS)
#error "an internal macro leaks"
#endif
static_assert(AXIOMS_JWKS_VERSION_NUM ==
              AXIOMS_JWKS_VERSION_MAJOR * 10000 + AXIOMS_JWKS_VERSION_MINOR * 100 + AXIOMS_JWKS_VERSION_PATCH);
