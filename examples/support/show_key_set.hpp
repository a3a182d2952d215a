// The library's main job on one URL: fetch the key set and show it.
#ifndef AXIOMS_JWKS_EXAMPLES_SHOW_KEY_SET_HPP
#define AXIOMS_JWKS_EXAMPLES_SHOW_KEY_SET_HPP

#include "axioms_jwks.hpp"
#include "terminal.hpp"

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace demo {

/// Those that cannot be used, and how many there are of either.
inline void print_skipped(std::size_t usable, const std::vector<axioms::skipped_key>& skipped, bool held_secrets) {
  for (const auto& left_out : skipped) {
    std::printf("skipped: member %zu, kid %s: %s\n", left_out.index, plain(left_out.kid).c_str(),
                left_out.reason.c_str());
  }
  if (held_secrets)
    std::printf(
        "%s\n",
        painted(colour::red, "the set publishes secrets: whoever published it must replace those keys").c_str());
  std::printf("%zu usable, %zu skipped\n", usable, skipped.size());
}

/// The usable keys, and the others with the reason why they are not.
inline void print_table(const axioms::jwk_set& keys) {
  const auto line = [](const std::string& kid, std::string_view kty, const std::string& size, std::string_view alg,
                       std::string_view use, const std::string& last) {
    std::printf("%-40s  %-4s  %-14s  %-6s  %-4s  %s\n", kid.c_str(), plain(kty).c_str(), size.c_str(),
                plain(alg).c_str(), plain(use).c_str(), last.c_str());
  };
  line("kid", "kty", "curve or bits", "alg", "use", "thumbprint (RFC 7638)");
  for (const auto& key : keys) {
    const std::string size = key->curve().empty() ? std::to_string(key->bits()) + " bits" : std::string(key->curve());
    line(plain(key->kid()), key->kty(), size, key->alg(), key->use(), key->thumbprint());
  }
  print_skipped(keys.size(), keys.skipped(), keys.held_secrets());
}

/// Returns what main() is to return.
inline int show_key_set(const char* url) {
  axioms::jwks_manager manager;
  axioms::jwks_config config;
  config.jwks_url = url;
  const auto started = manager.initialize(config);
  const auto set = started.and_then([&] { return manager.get_jwks(); });
  if (!set) {
    const auto& why = set.error();
    std::fprintf(stderr, "%s: %s\n", std::string(axioms::to_string(why.code)).c_str(), why.description.c_str());
    return 1;
  }
  print_table((*set)->keys());
  const auto health = manager.health();
  std::printf("%zu bytes, %lld ms old%s\n", (*set)->body().size(), static_cast<long long>(health.age.count()),
              health.insecure_transport ? ", over http: anybody on the path can change them" : "");
  return 0;
}

}  // namespace demo

#endif
