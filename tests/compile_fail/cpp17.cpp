// expect: axioms_jwks.hpp needs C++20: compile with -std=c++20
// flags: -std=c++17
#include "axioms_jwks.hpp"
int main() {}
