// The other backend beside OpenSSL: httplib.h would take it, and its sockets would be no SSL of OpenSSL's.
// expect: axioms_jwks.hpp works with cpp-httplib's OpenSSL backend only: remove CPPHTTPLIB_MBEDTLS_SUPPORT
// expect: / CPPHTTPLIB_WOLFSSL_SUPPORT
// flags: -DCPPHTTPLIB_WOLFSSL_SUPPORT
#include "axioms_jwks.hpp"
int main() {}
