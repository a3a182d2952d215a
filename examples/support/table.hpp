// What the demos print: one line per step, and whether the step did what it claims.
#ifndef AXIOMS_JWKS_EXAMPLES_TABLE_HPP
#define AXIOMS_JWKS_EXAMPLES_TABLE_HPP

#include "axioms_jwks.hpp"
#include "issuer.hpp"

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>

namespace demo {

/// Checks a signature of the issuer's with a key from the library.
inline bool verifies(const axioms::jwk& key, const signed_text& what) {
  return key.verify(what.alg, what.text, what.signature);
}

inline std::string name(const axioms::error& why) { return std::string(axioms::to_string(why.code)); }

inline std::string kids(const axioms::result<axioms::jwks_ptr>& set) {
  if (!set) return name(set.error());
  std::string out;
  for (const auto& key : (*set)->keys()) out.append(out.empty() ? "" : ", ").append(key->kid());
  return out;
}

/// Prints step, what the caller got, what the issuer was asked since the last line, and the manager's health.
template <class Manager>
class table {
 public:
  table(const Manager& manager, const issuer& provider) : manager_(manager), provider_(provider) {
    print("step", "the caller got", "the issuer saw", "health");
    print(std::string(30, '-'), std::string(38, '-'), std::string(20, '-'), std::string(38, '-'));
  }
  void line(const std::string& step, const std::string& got, bool as_claimed) {
    const auto now = provider_.asked();
    const int full = now.full - last_.full, unchanged = now.not_modified - last_.not_modified;
    last_ = now;
    std::string saw;
    if (full != 0) saw = std::to_string(full) + " x 200";
    if (unchanged != 0) saw += (saw.empty() ? "" : ", ") + std::to_string(unchanged) + " x 304";
    print(step, got, saw.empty() ? "nothing" : saw, health());
    if (as_claimed) return;
    ++wrong_;
    std::printf("  ^ not what this step is to show\n");
  }
  /// For main(): 0 if every step did what it claims.
  int exit_code() const { return wrong_ == 0 ? 0 : 1; }

 private:
  static void print(const std::string& step, const std::string& got, const std::string& saw,
                    const std::string& health) {
    std::printf("%-30s | %-38s | %-20s | %s\n", step.c_str(), got.c_str(), saw.c_str(), health.c_str());
    std::fflush(stdout);
  }
  std::string health() const {
    const auto now = manager_.health();
    std::string out = !now.ready ? "not ready" : now.stale ? "ready, stale" : "ready";
    if (now.consecutive_failures > 0) out += ", " + std::to_string(now.consecutive_failures) + " failed";
    if (now.last_error) out += " (" + name(*now.last_error) + ")";
    return out;
  }

  const Manager& manager_;
  const issuer& provider_;
  issuer::counts last_;
  int wrong_ = 0;
};

}  // namespace demo

#endif
