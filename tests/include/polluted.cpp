// After headers that define macros with everyday names, as <windows.h> does. Those of the dependencies come before them: what they
// do about such macros is their affair.
#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <concepts>
#include <condition_variable>
#include <coroutine>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <optional>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>
#include <version>
#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
#include <httplib.h>
#endif
#if defined(__unix__)
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define ERROR 0
#define NO_ERROR 0L
#undef DELETE  // <arpa/nameser.h> has one as well
#define DELETE 0x00010000L
#define IN
#define OUT
#define OPTIONAL
#define near
#define far
#define small char
#define hyper __int64
#define interface struct
#define TRUE 1
#define FALSE 0
#define VOID void
#define CONST const
#define STRICT 1
#define IGNORE 0
#define INFINITE 0xFFFFFFFF
#define GetObject GetObjectA
#define GetMessage GetMessageA
#define SendMessage SendMessageA
#define CreateEvent CreateEventA
#define Yield()
// And as other platforms' headers do.
#define major(device) ((device) >> 8)
#define minor(device) ((device)&0xff)
#define unix 1
#define linux 1
#define verify(expression) expression
#define require(expression, label) expression
#define check(expression) expression
#define nil nullptr
// Those of Qt, and one of X11.
#define signals public
#define slots
#define emit
#define foreach for
#define forever for (;;)
#define Success 0

#include "axioms_jwks.hpp"

int use_them() {
  axioms::jwks_config config;
  config.issuer = "https://issuer.example";
  const auto url = config.resolved_url();
  return url ? static_cast<int>(url->size()) : static_cast<int>(url.error().code);
}

// They are as they were.
static_assert(min(1, 2) == 1 && max(1, 2) == 2 && verify(true) && require(true, none) && check(true));
