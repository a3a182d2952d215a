// expect: axioms_jwks.hpp needs cpp-httplib with OpenSSL: compile with -DCPPHTTPLIB_OPENSSL_SUPPORT everywhere
// expect: or define AXIOMS_JWKS_NO_HTTPLIB to bring your own fetcher
// without: -DCPPHTTPLIB_OPENSSL_SUPPORT
#include "axioms_jwks.hpp"
int main() {}
