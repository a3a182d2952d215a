// What the fuzz targets share: a check that ends the program, so that libFuzzer keeps the input, and rules that hold for
// every text the library makes of hostile input.
#ifndef AXIOMS_JWKS_TESTS_FUZZ_CHECK_HPP
#define AXIOMS_JWKS_TESTS_FUZZ_CHECK_HPP

#include "axioms_jwks.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

inline void check(bool holds, const char* rule) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", rule);
  std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return size == 0 ? std::string_view() : std::string_view(reinterpret_cast<const char*>(data), size);
}

// What reaches a log is cut, and cannot move a terminal's cursor or start a line.
inline void check_shown(std::string_view text) {
  check(text.size() <= 2000, "a description is short");
  for (const char c : text) check(c >= 0x20 && c < 0x7f, "a description is plain ASCII");
}
inline void check_shown(const axioms::error& why) {
  check(why.code != axioms::errc{}, "an error has a code");
  check_shown(why.description);
}

// Not the real time: a crash must come again.
inline constexpr std::chrono::system_clock::time_point now{std::chrono::seconds(1790000000)};

}  // namespace fuzz

#endif
