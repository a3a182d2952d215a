// expect: axioms_jwks.hpp works with cpp-httplib's OpenSSL backend only: remove CPPHTTPLIB_MBEDTLS_SUPPORT
// expect: or define AXIOMS_JWKS_NO_HTTPLIB to bring your own fetcher
// flags: -DCPPHTTPLIB_MBEDTLS_SUPPORT
// without: -DCPPHTTPLIB_OPENSSL_SUPPORT
#include "axioms_jwks.hpp"
int main() {}
