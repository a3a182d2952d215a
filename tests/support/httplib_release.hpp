// Which cpp-httplib is in this program: some of what servers may send depends on it.
#ifndef AXIOMS_JWKS_TESTS_HTTPLIB_RELEASE_HPP
#define AXIOMS_JWKS_TESTS_HTTPLIB_RELEASE_HPP

#include <httplib.h>

#include <string>

namespace test_support {

/// 1104 for 0.11.4.
inline const int httplib_release = [] {
  const std::string text = CPPHTTPLIB_VERSION;
  const auto minor = text.find('.') + 1, patch = text.find('.', minor) + 1;
  return std::stoi(text) * 10'000 + std::stoi(text.substr(minor)) * 100 + std::stoi(text.substr(patch));
}();

}  // namespace test_support

#endif
