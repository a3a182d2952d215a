#include "parts.hpp"

void look_from_third(seen& out) {
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
  out.manager = &axioms::default_jwks_manager();
  out.async_manager = &axioms::default_async_jwks_manager();
#else
  out.manager = out.async_manager = nullptr;
#endif
}
