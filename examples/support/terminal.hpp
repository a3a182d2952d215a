// How names from outside and our own words come to a terminal.
#ifndef AXIOMS_JWKS_EXAMPLES_TERMINAL_HPP
#define AXIOMS_JWKS_EXAMPLES_TERMINAL_HPP

#include <cstdlib>
#include <ctime>
#include <string>
#include <string_view>

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace demo {

/// A name from outside, in plain ASCII and without blanks: what could steer a terminal is escaped. "-" if there is none.
inline std::string plain(std::string_view text, std::size_t most = 64) {
  constexpr std::string_view hex = "0123456789abcdef";
  if (text.empty()) return "-";
  std::string out;
  for (const char c : text.substr(0, most)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7f && c != '\\') {
      out += c;
    } else {
      out += {'\\', 'x', hex[byte >> 4U], hex[byte & 15U]};
    }
  }
  return text.size() > most ? out + "..." : out;
}

/// A time in UTC, as 2026-03-01T12:00:00Z; empty if it cannot be written so.
inline std::string utc(std::time_t time) {
  char text[32] = "";
  const std::tm* parts = std::gmtime(&time);
  return parts != nullptr && std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", parts) > 0 ? text : "";
}

enum class colour { red = 31, green = 32, yellow = 33, blue = 34 };

/// The text in that colour, if the standard output is a terminal and NO_COLOR is not set (https://no-color.org).
inline std::string painted(colour which, std::string_view text) {
  static const bool wanted = [] {
    const auto variable = [](const char* name) {
      const char* value = std::getenv(name);
      return std::string_view(value != nullptr ? value : "");
    };
#if defined(_WIN32)
    return false;
#else
    return variable("NO_COLOR").empty() && variable("TERM") != "dumb" && ::isatty(STDOUT_FILENO) == 1;
#endif
  }();
  if (!wanted) return std::string(text);
  return "\033[" + std::to_string(static_cast<int>(which)) + 'm' + std::string(text) + "\033[0m";
}

}  // namespace demo

#endif
