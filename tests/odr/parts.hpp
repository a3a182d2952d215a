// What first.cpp and second.cpp tell each other.
#pragma once

#include "axioms_jwks.hpp"

struct seen {
  const std::error_category* category = nullptr;
  axioms::result<std::string> normalized = std::string();
  axioms::result<axioms::jwk_set> set = axioms::error{};
  const void* manager = nullptr;
  const void* async_manager = nullptr;
};

seen look_from_second(const axioms::result<std::string>& given);  // compiled without cpp-httplib
void look_from_third(seen& out);                                  // compiled as first.cpp is
