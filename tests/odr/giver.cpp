// Half of a program that exchanges our types: see taker.cpp.
#include "axioms_jwks.hpp"

bool give_result(const axioms::result<int>& result, const axioms::error& error);

bool give_result(const axioms::result<int>& result, const axioms::error& error) {
  return !result && result.error().code == error.code && result.error().description == error.description;
}
