// Three TUs of one program, of which the second leaves cpp-httplib out: they link and share everything. Built with
// inline bodies, with AXIOMS_JWKS_SPLIT, and with both mixed.
#include "parts.hpp"

#include <cstdio>

namespace {

int failures = 0;

void check(bool ok, const char* what) {
  if (ok) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

}  // namespace

int main() {
  axioms::jwks_config config;
  config.issuer = "https://issuer.example/";
  const auto url = config.resolved_url();
  check(url.has_value() && *url == "https://issuer.example/.well-known/jwks.json", "this TU resolves the URL");

  seen second = look_from_second(url);
  check(second.category == &axioms::error_category(), "one error category");
  check(second.normalized.has_value() && *second.normalized == *url, "a result passes through the other TU");
  check(!second.set && second.set.error().code == axioms::errc::not_a_key_set, "the other TU parses key sets");
  const auto here = axioms::jwk_set::parse("[]");
  check(!here && here.error().code == axioms::errc::not_a_key_set, "this TU parses key sets");
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
  look_from_third(second);
  check(second.manager == &axioms::default_jwks_manager(), "one process-wide manager");
  check(second.async_manager == &axioms::default_async_jwks_manager(), "one process-wide async manager");
  check(!axioms::default_jwks_manager().running(), "which does not run by itself");
#endif
  std::printf(failures == 0 ? "the TUs share everything\n" : "%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
