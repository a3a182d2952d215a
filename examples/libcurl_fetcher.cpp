// Your own HTTP client, a real one: the manager over libcurl, by the fetcher in support/curl_fetcher.hpp. Needs libcurl
// 7.85. It fetches from a demo issuer on this machine, over TLS; run it without arguments.

// In a real project on the command line, for every file: CMake's axioms::jwks_core does that.
#define AXIOMS_JWKS_NO_HTTPLIB
#include "axioms_jwks.hpp"
#include "support/curl_fetcher.hpp"
#include "support/issuer.hpp"

#include <iostream>

int main() {
  curl_global_init(CURL_GLOBAL_DEFAULT);
  ::setenv("no_proxy", "127.0.0.1", 1);  // the issuer is on this machine
  demo::issuer issuer;
  axioms::basic_jwks_manager<curl_fetcher> manager(curl_fetcher{issuer.ca_pem()});

  axioms::jwks_config config;
  config.jwks_url = issuer.url();
  const auto started = manager.initialize(config);
  const auto key = started.and_then([&] { return manager.get_key({.kid = "2026-01", .alg = "ES256"}); });
  if (!key) return std::cerr << key.error().description << '\n', 1;
  std::cout << (*key)->kid() << ": " << (*key)->curve() << ", by libcurl "
            << curl_version_info(CURLVERSION_NOW)->version << '\n';

  const auto again = manager.refresh(issuer.url());  // with the ETag of the first answer
  issuer.stop();
  const auto refused = manager.refresh(issuer.url());
  const auto kept = manager.get_jwks();
  if (!again || issuer.asked().not_modified != 1 || refused || !kept) return std::cerr << "wrong\n", 1;
  std::cout << "unchanged since, as a 304 says; and kept during an outage: " << refused.error().description << '\n';
}
