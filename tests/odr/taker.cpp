// Exchanges our types with giver.cpp. They stand in parameters, because a return type is no part of a mangled name.
#include "axioms_jwks.hpp"

bool give_result(const axioms::result<int>& result, const axioms::error& error);

int main() {
  const axioms::error late{axioms::errc::timed_out, "late"};
  return give_result(late, late) ? 0 : 1;
}
