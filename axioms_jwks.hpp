// axioms_jwks.hpp - keeps the JSON Web Key Sets (JWKS, RFC 7517) of identity providers for C++20:
// fetched over HTTP(S), checked, cached with a TTL, refreshed in the background, ready as OpenSSL keys.
//
// Version 0.1.0
// SPDX-License-Identifier: MIT
//
// MIT License
//
// Copyright (c) 2026 the axioms_jwks authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
// associated documentation files (the "Software"), to deal in the Software without restriction,
// including without limitation the rights to use, copy, modify, merge, publish, distribute,
// sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all copies or
// substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
// NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
// NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
// DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
// OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
//
// Example:
//
//   #include "axioms_jwks.hpp"
//   #include <iostream>
//
//   int main() {
//     axioms::jwks_manager manager;
//     axioms::jwks_config config;
//     config.jwks_url = "https://idp.example.com/.well-known/jwks.json";
//     if (auto ok = manager.initialize(config); !ok) return std::cerr << ok.error().description << '\n', 1;
//
//     auto key = manager.get_key({.kid = "2026-01", .alg = "RS256"});   // no I/O while the set is cached
//     if (!key) return std::cerr << key.error().description << '\n', 1;
//     EVP_PKEY* pkey = (*key)->native_handle();                         // for EVP_DigestVerifyInit
//     return pkey != nullptr ? 0 : 1;
//   }
//
// Contents (each name is a ruler line below; each part uses only parts above it):
//
//   version and language
//   configuration macros
//   includes
//   errors
//   http vocabulary
//   concepts
//   configuration
//   keys
//   detail: refresh policy
//   clocks
//   default fetcher
//   blocking manager
//   async manager
//   tokens
//   process-wide managers
//   implementation
//   clean-up

#ifndef AXIOMS_JWKS_HPP
#define AXIOMS_JWKS_HPP

// ---- version and language -----------------------------------------------------------------------

#define AXIOMS_JWKS_VERSION_MAJOR 0
#define AXIOMS_JWKS_VERSION_MINOR 1
#define AXIOMS_JWKS_VERSION_PATCH 0
/// The version as text, and as one number for `#if` (major * 10000 + minor * 100 + patch).
#define AXIOMS_JWKS_VERSION "0.1.0"
#define AXIOMS_JWKS_VERSION_NUM 100

#if defined(_MSVC_LANG)
#define AXIOMS_JWKS_CPLUSPLUS _MSVC_LANG
#else
#define AXIOMS_JWKS_CPLUSPLUS __cplusplus
#endif
#if AXIOMS_JWKS_CPLUSPLUS < 202002L
#error "axioms_jwks.hpp needs C++20: compile with -std=c++20 (MSVC: /std:c++20) or later."
#endif

// ---- configuration macros -----------------------------------------------------------------------
//
// Define them for a whole program, on the command line, before the header is included.
//
// AXIOMS_JWKS_NO_HTTPLIB        Leaves cpp-httplib, libssl and everything that needs them out: no default
//                               fetcher, no jwks_manager, no process-wide managers. Only libcrypto is used.
//                               Default: undefined. Reason: you bring your own HTTP client.
// AXIOMS_JWKS_SPLIT             The bodies that need nlohmann/json, cpp-httplib or OpenSSL headers are compiled
//                               in one TU only. Default: undefined (everything is inline). Reason: build time.
// AXIOMS_JWKS_IMPLEMENTATION    With AXIOMS_JWKS_SPLIT, defined in exactly one TU: that one holds the bodies.
// AXIOMS_JWKS_NO_EXCEPTIONS     No `throw` and no `try`: result::value() on an error ends the program instead.
//                               Default: found from the compiler (-fno-exceptions).
// AXIOMS_JWKS_OWN_STOP_TOKEN    Uses this header's stop_token and jthread although std has them. Default: defined
//                               where `__cpp_lib_jthread` is not (libc++ before 20).

// <version> carries the library feature macros (`__cpp_lib_jthread`).
#include <version>

#if !defined(AXIOMS_JWKS_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#define AXIOMS_JWKS_NO_EXCEPTIONS
#endif
#if !defined(AXIOMS_JWKS_OWN_STOP_TOKEN) && !defined(__cpp_lib_jthread)
#define AXIOMS_JWKS_OWN_STOP_TOKEN
#endif

#if defined(AXIOMS_JWKS_SPLIT)
#define AXIOMS_JWKS_INLINE
#else
#define AXIOMS_JWKS_INLINE inline
#endif

// `try` and `catch` that vanish without exceptions, so that each body is written once.
#if defined(AXIOMS_JWKS_NO_EXCEPTIONS)
#define AXIOMS_JWKS_TRY if constexpr (true)
#define AXIOMS_JWKS_CATCH_ALL else
#else
#define AXIOMS_JWKS_TRY try
#define AXIOMS_JWKS_CATCH_ALL catch (...)
#endif

// Without cpp-httplib the managers have no default fetcher.
#if defined(AXIOMS_JWKS_NO_HTTPLIB)
#define AXIOMS_JWKS_DEFAULT_FETCHER
#else
#define AXIOMS_JWKS_DEFAULT_FETCHER = httplib_fetcher
#endif

// clang before 17 may keep locals of an inlined await_suspend() in the frame, which another thread may have freed by then.
#if defined(__clang__) && __clang_major__ < 17
#define AXIOMS_JWKS_SUSPENDS __attribute__((noinline))
#else
#define AXIOMS_JWKS_SUSPENDS
#endif

// Of the hit path: with several callers in one TU compilers would call what is worth inlining.
#if defined(__GNUC__)
#define AXIOMS_JWKS_HOT __attribute__((always_inline))
#else
#define AXIOMS_JWKS_HOT
#endif

// Lets clang warn where a reference is kept longer than what it refers to.
#if defined(__clang__)
#define AXIOMS_JWKS_LIFETIMEBOUND [[clang::lifetimebound]]
#else
#define AXIOMS_JWKS_LIFETIMEBOUND
#endif

// The inline namespace carries the version and what changes a layout or a signature, so that two TUs
// which disagree fail to link instead of corrupting each other.
#if defined(AXIOMS_JWKS_NO_EXCEPTIONS) && defined(AXIOMS_JWKS_OWN_STOP_TOKEN)
#define AXIOMS_JWKS_ABI v0_1_0_noexcept_ownstop
#elif defined(AXIOMS_JWKS_NO_EXCEPTIONS)
#define AXIOMS_JWKS_ABI v0_1_0_noexcept
#elif defined(AXIOMS_JWKS_OWN_STOP_TOKEN)
#define AXIOMS_JWKS_ABI v0_1_0_ownstop
#else
#define AXIOMS_JWKS_ABI v0_1_0
#endif

// <windows.h> and others make macros of these two. They are put aside down to the end of this header.
#pragma push_macro("min")
#pragma push_macro("max")
#undef min
#undef max

// ---- includes -----------------------------------------------------------------------------------

#include <openssl/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if !defined(AXIOMS_JWKS_OWN_STOP_TOKEN)
#include <stop_token>
#endif

#if !defined(AXIOMS_JWKS_NO_HTTPLIB) && (!defined(AXIOMS_JWKS_SPLIT) || defined(AXIOMS_JWKS_IMPLEMENTATION))
// The library's class layouts depend on this macro. Debian's compiled library links without it and then
// corrupts memory, so a wrong setting must stop here. It must be set for the whole program, never by a header.
#if !defined(CPPHTTPLIB_OPENSSL_SUPPORT)
#error \
    "axioms_jwks.hpp needs cpp-httplib with OpenSSL: compile with -DCPPHTTPLIB_OPENSSL_SUPPORT everywhere (pkg-config --cflags cpp-httplib, or CMake's httplib::httplib, set it), or define AXIOMS_JWKS_NO_HTTPLIB to bring your own fetcher."
#endif
#if defined(CPPHTTPLIB_MBEDTLS_SUPPORT) || defined(CPPHTTPLIB_WOLFSSL_SUPPORT)
#error \
    "axioms_jwks.hpp works with cpp-httplib's OpenSSL backend only: remove CPPHTTPLIB_MBEDTLS_SUPPORT / CPPHTTPLIB_WOLFSSL_SUPPORT, or define AXIOMS_JWKS_NO_HTTPLIB to bring your own fetcher."
#endif
#endif

// ---- errors -------------------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

/// Everything that can go wrong, as a closed list with stable numbers (0 is no error).
///
/// Usable as a std::error_code: `std::error_code ec = axioms::errc::timed_out;`.
enum class errc {
  invalid_config = 1,  ///< an option of jwks_config breaks its rule; the description names it
  invalid_url,         ///< not an absolute http(s) URL, or one with user-info, control bytes, too long
  unsupported_scheme,  ///< a scheme other than https (and http, unless `require_https`)
  resolve_failed,      ///< the host name has no address
  connect_failed,      ///< no address of the host accepted a connection
  tls_failed,          ///< handshake or certificate check failed, or a CA or key file is bad
  fetch_failed,        ///< any other failure of the exchange, and whatever a fetcher or clock throws
  timed_out,           ///< `fetch_timeout` or `unknown_kid_wait` was over
  cancelled,           ///< the caller's stop token asked
  shut_down,           ///< the manager is shut down, or the process was forked
  http_status,         ///< a status other than 200 (or 304 where it was asked for)
  response_too_large,  ///< head or body is over its limit
  not_a_key_set,       ///< the body is not a JSON object with an array `keys` (RFC 7517 section 5)
  no_usable_key,       ///< a key set in which every member had to be skipped
  key_not_found,       ///< no key of the set fits the query
  key_ambiguous,       ///< several keys of the set fit the query
  throttled,           ///< a budget of requests or of waiters is used up
  malformed_token,     ///< tokens, from here to token_missing: see the part of that name
  unsupported_algorithm,
  bad_signature,
  token_expired,
  token_not_yet_valid,
  issuer_mismatch,
  audience_mismatch,
  token_type_mismatch,
  claim_missing,
  insufficient_scope,
  token_missing,
  no_resources  ///< a thread could not be started, or there was no memory
};

/// The name of @p code as it stands in the enumeration, for logs.
[[nodiscard]] constexpr std::string_view to_string(errc code) noexcept {
  // clang-format off
  constexpr std::array<std::string_view, 30> names{
      "success",           "invalid_config",      "invalid_url",         "unsupported_scheme",
      "resolve_failed",    "connect_failed",      "tls_failed",          "fetch_failed",
      "timed_out",         "cancelled",           "shut_down",           "http_status",
      "response_too_large", "not_a_key_set",      "no_usable_key",       "key_not_found",
      "key_ambiguous",     "throttled",           "malformed_token",     "unsupported_algorithm",
      "bad_signature",     "token_expired",       "token_not_yet_valid", "issuer_mismatch",
      "audience_mismatch", "token_type_mismatch", "claim_missing",       "insufficient_scope",
      "token_missing",     "no_resources"};
  // clang-format on
  const auto index = static_cast<std::size_t>(code);
  return index < names.size() ? names[index] : std::string_view("unknown");
}

/// The category of errc in a std::error_code: name "axioms.jwks", message to_string().
[[nodiscard]] inline const std::error_category& error_category() noexcept {
  struct category final : std::error_category {
    const char* name() const noexcept override { return "axioms.jwks"; }
    std::string message(int code) const override { return std::string(to_string(static_cast<errc>(code))); }
  };
  static const category instance;
  return instance;
}

[[nodiscard]] inline std::error_code make_error_code(errc code) noexcept {
  return {static_cast<int>(code), error_category()};
}

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
// At -O1, g++ 11 takes the error in a result that holds a value for one that is read.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

/// What a `WWW-Authenticate` header tells beside the error. An empty member is left out.
struct challenge {
  std::string_view realm{};              ///< RFC 9110 section 11.5
  std::string_view scope{};              ///< the scopes that the request needs (RFC 6750 section 3)
  std::string_view resource_metadata{};  ///< a URL (RFC 9728 section 5.1)
};

/// What went wrong, as a value.
struct error {
  errc code{};              ///< which of the closed list
  std::string description;  ///< one sentence for logs: may hold URLs, never key bytes, tokens or credentials
  int http_status = 0;      ///< status of the response that failed, 0 if there was none

  /// The OAuth 2.0 error code to answer a request with (RFC 6749 section 5.2, RFC 6750 section 3.1); empty for
  /// token_missing.
  [[nodiscard]] std::string_view oauth_error() const noexcept;
  /// The HTTP status to answer a request with: 401, 403, 500 for a fault of configuration, 503 for an outage.
  [[nodiscard]] int status_code() const noexcept;
  /// The value of a `WWW-Authenticate` header (RFC 6750 section 3): fixed text per code, never the description.
  ///
  /// Empty where status_code() is 5xx: an outage is no fault of the token. Quotes and backslashes of @p realm are
  /// escaped and its control bytes dropped.
  [[nodiscard]] std::string www_authenticate(std::string_view realm = {}) const {
    return challenge_text({.realm = realm});
  }
  /// The same with more to tell: `www_authenticate(challenge{.scope = "orders:read"})`.
  template <std::same_as<challenge> Challenge>
  [[nodiscard]] std::string www_authenticate(const Challenge& more) const {
    return challenge_text(more);
  }

 private:
  [[nodiscard]] std::string challenge_text(const challenge& more) const;
};

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#pragma GCC diagnostic pop
#endif

namespace detail {

// The one table behind oauth_error(), status_code() and www_authenticate(): why a request is refused.
enum class refusal { token, missing_token, scope, configuration, outage };

constexpr refusal refusal_of(errc code) noexcept {
  switch (code) {
    case errc::malformed_token:
    case errc::unsupported_algorithm:
    case errc::bad_signature:
    case errc::token_expired:
    case errc::token_not_yet_valid:
    case errc::issuer_mismatch:
    case errc::audience_mismatch:
    case errc::token_type_mismatch:
    case errc::claim_missing:
    case errc::key_not_found:
    case errc::key_ambiguous: return refusal::token;
    case errc::token_missing: return refusal::missing_token;
    case errc::insufficient_scope: return refusal::scope;
    case errc::invalid_config:
    case errc::invalid_url:
    case errc::unsupported_scheme: return refusal::configuration;
    default: return refusal::outage;
  }
}

// Text that a client may read. Whoever forges tokens learns nothing from it: of what is wrong only expiry is told.
constexpr std::string_view client_text(errc code) noexcept {
  if (code == errc::token_expired) return "The access token expired";
  switch (refusal_of(code)) {
    case refusal::token: return "The access token is invalid";
    case refusal::scope: return "The access token lacks what the request needs";
    default: return {};
  }
}

// Quotes a string from outside for a message: escaped, so that it can forge no log line, and cut.
inline std::string quote(std::string_view text, std::size_t limit = 96) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '\'' || c == '\\') {
      out += "\\x";
      out += hex[byte >> 4U];
      out += hex[byte & 15U];
    } else {
      out += c;
    }
  }
  out += text.size() > limit ? "...'" : "'";
  return out;
}

// "a" + "b" + 3 without a stream and without a temporary per plus.
inline void append_to(std::string& out, std::string_view text) { out += text; }
inline void append_to(std::string& out, char text) { out += text; }
template <std::integral Number>
  requires(!std::same_as<Number, char>)
void append_to(std::string& out, Number number) { out += std::to_string(number); }
template <class... Pieces>
[[nodiscard]] std::string concat(const Pieces&... pieces) {
  std::string out;
  (append_to(out, pieces), ...);
  return out;
}

template <class... Pieces>
[[nodiscard]] error make_error(errc code, const Pieces&... pieces) {
  return error{code, concat(pieces...), 0};
}

}  // namespace detail

inline std::string_view error::oauth_error() const noexcept {
  switch (detail::refusal_of(code)) {
    case detail::refusal::token: return "invalid_token";
    case detail::refusal::scope: return "insufficient_scope";
    case detail::refusal::missing_token: return {};
    default: return "server_error";
  }
}

inline int error::status_code() const noexcept {
  switch (detail::refusal_of(code)) {
    case detail::refusal::token:
    case detail::refusal::missing_token: return 401;
    case detail::refusal::scope: return 403;
    case detail::refusal::configuration: return 500;
    default: return 503;
  }
}

inline std::string error::challenge_text(const challenge& more) const {
  if (status_code() >= 500) return {};
  std::string out = "Bearer";
  std::string_view separator = " ";
  const auto attribute = [&](std::string_view name, std::string_view text) {
    if (text.empty()) return;
    out.append(separator).append(name).append("=\"");
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte == 0x7f) continue;  // a realm from outside must not start a header of its own
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
    separator = ", ";
  };
  attribute("realm", more.realm);
  attribute("error", oauth_error());
  attribute("error_description", detail::client_text(code));
  attribute("scope", more.scope);
  attribute("resource_metadata", more.resource_metadata);
  return out;
}

/// An error as an exception. Only result::value() throws it.
class exception : public std::exception {
 public:
  explicit exception(axioms::error why) noexcept : error_(std::move(why)) {}
  [[nodiscard]] const char* what() const noexcept override { return error_.description.c_str(); }
  [[nodiscard]] const axioms::error& error() const noexcept { return error_; }

 private:
  axioms::error error_;
};

namespace detail {

[[noreturn]] inline void throw_error(const error& why) {
#if defined(AXIOMS_JWKS_NO_EXCEPTIONS)
  static_cast<void>(why);
  std::abort();
#else
  throw exception(why);
#endif
}

template <class T>
inline constexpr bool is_result = false;

}  // namespace detail

/// A value or an error: what std::expected<T, error> will be where every standard library has it.
///
/// Both T and error convert to it, so a function returns either. Inside the class the type error is spelt
/// axioms::error. operator*, operator-> and error() on the wrong alternative end the program: they are for after a
/// check.
template <class T>
class [[nodiscard]] result {
 public:
  using value_type = T;
  using error_type = axioms::error;

  template <class U = T>
    requires(!std::same_as<std::remove_cvref_t<U>, result> && std::is_constructible_v<T, U> &&
             std::is_convertible_v<U, T> && !std::same_as<std::remove_cvref_t<U>, axioms::error>)
  result(U&& value) : value_(static_cast<T>(std::forward<U>(value))), has_value_(true) {}
  result(axioms::error why) noexcept : error_(std::move(why)), has_value_(false) {}

  result(const result& other) requires std::is_copy_constructible_v<T> : has_value_(other.has_value_) {
    construct(other);
  }
  result(result&& other) noexcept(std::is_nothrow_move_constructible_v<T>) : has_value_(other.has_value_) {
    construct(std::move(other));
  }
  result& operator=(const result& other) requires std::is_copy_constructible_v<T> {
    if (this != std::addressof(other)) *this = result(other);
    return *this;
  }
  result& operator=(result&& other) noexcept(std::is_nothrow_move_constructible_v<T>) {
    if (this == std::addressof(other)) return *this;
    result taken(std::move(other));  // which may be part of what is destroyed next
    destroy();
    // Should T's constructor throw, this holds an error without a code instead of nothing.
    struct guard {
      result* unfinished;
      ~guard() {
        if (unfinished == nullptr) return;
        std::construct_at(std::addressof(unfinished->error_));
        unfinished->has_value_ = false;
      }
    } until_done{this};
    has_value_ = taken.has_value_;
    construct(std::move(taken));
    until_done.unfinished = nullptr;
    return *this;
  }
  ~result() { destroy(); }

  [[nodiscard]] bool has_value() const noexcept { return has_value_; }
  [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }

  [[nodiscard]] T& operator*() & noexcept { return expect(true), value_; }
  [[nodiscard]] const T& operator*() const& noexcept { return expect(true), value_; }
  [[nodiscard]] T&& operator*() && noexcept { return expect(true), std::move(value_); }
  [[nodiscard]] T* operator->() noexcept { return expect(true), std::addressof(value_); }
  [[nodiscard]] const T* operator->() const noexcept { return expect(true), std::addressof(value_); }

  /// The value; throws axioms::exception on an error (ends the program without exceptions).
  [[nodiscard]] T& value() & { return checked(), **this; }
  [[nodiscard]] const T& value() const& { return checked(), **this; }
  [[nodiscard]] T&& value() && { return checked(), *std::move(*this); }

  template <class U>
  [[nodiscard]] T value_or(U&& other) const& {
    return has_value() ? **this : static_cast<T>(std::forward<U>(other));
  }
  template <class U>
  [[nodiscard]] T value_or(U&& other) && {
    return has_value() ? *std::move(*this) : static_cast<T>(std::forward<U>(other));
  }

  [[nodiscard]] axioms::error& error() & noexcept { return expect(false), error_; }
  [[nodiscard]] const axioms::error& error() const& noexcept { return expect(false), error_; }
  [[nodiscard]] axioms::error&& error() && noexcept { return expect(false), std::move(error_); }

  /// f(value), which returns a result; an error passes through.
  template <class F>
  [[nodiscard]] auto and_then(F&& f) const& {
    return chain(*this, std::forward<F>(f));
  }
  template <class F>
  [[nodiscard]] auto and_then(F&& f) && {
    return chain(std::move(*this), std::forward<F>(f));
  }
  /// A result of f(value), which returns a plain value or void; an error passes through.
  template <class F>
  [[nodiscard]] auto transform(F&& f) const& {
    return map(*this, std::forward<F>(f));
  }
  template <class F>
  [[nodiscard]] auto transform(F&& f) && {
    return map(std::move(*this), std::forward<F>(f));
  }
  /// f(error), which returns a result<T>; a value passes through.
  template <class F>
  [[nodiscard]] result or_else(F&& f) const& {
    return has_value() ? *this : result(std::forward<F>(f)(error()));
  }
  template <class F>
  [[nodiscard]] result or_else(F&& f) && {
    return has_value() ? std::move(*this) : result(std::forward<F>(f)(std::move(*this).error()));
  }

 private:
  void expect(bool value) const noexcept {
    if (has_value_ != value) std::abort();
  }
  template <class Other>
  void construct(Other&& other) {
    if (has_value_) {
      std::construct_at(const_cast<std::remove_const_t<T>*>(std::addressof(value_)), std::forward<Other>(other).value_);
    } else {
      std::construct_at(std::addressof(error_), std::forward<Other>(other).error_);
    }
  }
  void destroy() noexcept {
    if (has_value_) {
      value_.~T();
    } else {
      error_.~error();
    }
  }
  void checked() const {
    if (!has_value()) detail::throw_error(error());
  }
  template <class Self, class F>
  static auto chain(Self&& self, F&& f)
      -> std::remove_cvref_t<decltype(std::forward<F>(f)(*std::forward<Self>(self)))> {
    using next = std::remove_cvref_t<decltype(std::forward<F>(f)(*std::forward<Self>(self)))>;
    static_assert(detail::is_result<next>,
                  "and_then takes a function that returns an axioms::result; use transform for a plain value");
    if (!self) return std::forward<Self>(self).error();
    return std::forward<F>(f)(*std::forward<Self>(self));
  }
  template <class Self, class F>
  static auto map(Self&& self, F&& f)
      -> result<std::remove_cvref_t<decltype(std::forward<F>(f)(*std::forward<Self>(self)))>> {
    using plain = decltype(std::forward<F>(f)(*std::forward<Self>(self)));
    if (!self) return std::forward<Self>(self).error();
    if constexpr (std::is_void_v<plain>) {
      std::forward<F>(f)(*std::forward<Self>(self));
      return {};
    } else {
      return std::forward<F>(f)(*std::forward<Self>(self));
    }
  }

  // Not a std::variant: its machinery, once per T, took a tenth of what including this header costs.
  union {
    T value_;
    axioms::error error_;
  };
  bool has_value_;
};

/// Success without a value, or an error.
template <>
class [[nodiscard]] result<void> {
 public:
  using value_type = void;
  using error_type = axioms::error;

  result() noexcept = default;
  result(axioms::error why) noexcept : error_(std::move(why)) {}

  [[nodiscard]] bool has_value() const noexcept { return !error_.has_value(); }
  [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }
  void operator*() const noexcept {
    if (!has_value()) std::abort();
  }
  /// Throws axioms::exception on an error (ends the program without exceptions).
  void value() const {
    if (!has_value()) detail::throw_error(*error_);
  }

  [[nodiscard]] axioms::error& error() & noexcept { return checked(), *error_; }
  [[nodiscard]] const axioms::error& error() const& noexcept { return checked(), *error_; }
  [[nodiscard]] axioms::error&& error() && noexcept { return checked(), std::move(*error_); }

  /// f(), which returns a result; an error passes through.
  template <class F>
  [[nodiscard]] auto and_then(F&& f) const -> std::remove_cvref_t<decltype(std::forward<F>(f)())> {
    using next = std::remove_cvref_t<decltype(std::forward<F>(f)())>;
    static_assert(detail::is_result<next>,
                  "and_then takes a function that returns an axioms::result; use transform for a plain value");
    if (!has_value()) return *error_;
    return std::forward<F>(f)();
  }
  /// A result of f(), which returns a plain value or void; an error passes through.
  template <class F>
  [[nodiscard]] auto transform(F&& f) const -> result<std::remove_cvref_t<decltype(std::forward<F>(f)())>> {
    if (!has_value()) return *error_;
    if constexpr (std::is_void_v<decltype(std::forward<F>(f)())>) {
      std::forward<F>(f)();
      return {};
    } else {
      return std::forward<F>(f)();
    }
  }
  /// f(error), which returns a result<void>; success passes through.
  template <class F>
  [[nodiscard]] result or_else(F&& f) const {
    return has_value() ? *this : result(std::forward<F>(f)(*error_));
  }

 private:
  void checked() const noexcept {
    if (has_value()) std::abort();
  }

  std::optional<axioms::error> error_;
};

namespace detail {
template <class T>
inline constexpr bool is_result<result<T>> = true;
}

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

template <>
struct std::is_error_code_enum<axioms::errc> : std::true_type {};

// ---- http vocabulary ----------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

/// One GET that a manager asks its fetcher for.
struct fetch_request {
  std::string url{};                         ///< absolute, http or https, without user-info and fragment
  std::string etag{};                        ///< for `If-None-Match` (RFC 9110 section 13.1.2); empty: do not send
  std::string last_modified{};               ///< for `If-Modified-Since` (RFC 9110 section 13.1.3); empty: do not send
  std::string accept{};                      ///< for `Accept`
  std::size_t max_body_bytes = 1 << 20;      ///< more decoded bytes than this are `response_too_large`
  std::chrono::milliseconds timeout{10000};  ///< for the whole exchange, from resolve to the last byte
  std::chrono::milliseconds connect_timeout{3000};  ///< for one address
  /// `scheme://host[:port]` of the URL that the application named: credentials go there only. Empty: that of url.
  std::string origin{};
};

/// What came back. Any status is a response; only an exchange that failed is an error.
struct fetch_response {
  int status = 0;
  std::string body{};
  std::vector<std::pair<std::string, std::string>> headers{};
  std::string url{};  ///< what answered, at the end of all redirects; empty from a fetcher that does not tell

  /// The first header of that name, whatever the case of its letters (RFC 9110 section 5.1); empty if there is none.
  [[nodiscard]] std::string_view header(std::string_view name) const noexcept;
};

namespace detail {

constexpr char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr bool is_alnum(char c) noexcept { return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z'); }

inline std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}

constexpr bool iequals(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

// Names that differ mostly do so in length, first or last byte; a call of memcmp for each would be most of what a hit costs.
constexpr bool same_name(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && (a.empty() || (a.front() == b.front() && a.back() == b.back() && a == b));
}

constexpr std::string_view trim(std::string_view text) noexcept {
  constexpr std::string_view blank = " \t";
  const auto first = text.find_first_not_of(blank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blank) - first + 1);
}

// True for a value that may be sent or kept as a header: an ETag with CR or LF in it would split our next request.
constexpr bool is_header_safe(std::string_view text) noexcept {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t') || byte == 0x7f) return false;
  }
  return true;
}

constexpr bool is_token(std::string_view text) noexcept {  // RFC 9110 section 5.6.2
  for (const char c : text) {
    if (!is_alnum(c) && std::string_view("!#$%&'*+-.^_`|~").find(c) == std::string_view::npos) return false;
  }
  return !text.empty();
}

// An absolute http or https URL, taken apart and checked (RFC 3986).
struct parsed_url {
  bool https = false;
  bool ipv6 = false;       // host is an IPv6 literal, kept without its brackets
  std::string host;        // lower case
  std::uint16_t port = 0;  // the default one if none was given
  std::string target;      // path and query as given, never empty, without fragment
  std::string normalized;  // equal for the same URL: lower-case scheme and host, no default port, no fragment

  [[nodiscard]] std::string_view scheme() const noexcept { return https ? "https" : "http"; }
  // What belongs into a Host header, and what a URL has behind its slashes.
  [[nodiscard]] std::string authority() const;
};

inline constexpr std::size_t max_url_bytes = 2048;

// `scheme://host[:port]` of a normalized URL (RFC 6454).
[[nodiscard]] constexpr std::string_view origin_of(std::string_view normalized) noexcept {
  return normalized.substr(0, normalized.find_first_of("/?", normalized.find("//") + 2));
}

// Errors: invalid_url, unsupported_scheme.
[[nodiscard]] result<parsed_url> parse_url(std::string_view text);

// Whole digits only, saturated far below overflow, as RFC 9111 section 1.2.2 asks of delta-seconds.
[[nodiscard]] std::optional<std::chrono::seconds> parse_delta_seconds(std::string_view text) noexcept;

// The three forms of RFC 9110 section 5.6.7.
[[nodiscard]] std::optional<std::chrono::system_clock::time_point> parse_http_date(
    std::string_view text, std::chrono::system_clock::time_point now) noexcept;

// How long the server calls its answer fresh, less the Age it already has (RFC 9111 section 4.2); none if it says
// nothing, forbids caching, or the time is already over.
[[nodiscard]] std::optional<std::chrono::seconds> freshness_lifetime(
    const fetch_response& response, std::chrono::system_clock::time_point now) noexcept;

// Retry-After in seconds from now (RFC 9110 section 10.2.3), in either form; never negative.
[[nodiscard]] std::optional<std::chrono::seconds> retry_after(const fetch_response& response,
                                                              std::chrono::system_clock::time_point now) noexcept;

}  // namespace detail

inline std::string_view fetch_response::header(std::string_view name) const noexcept {
  for (const auto& [key, value] : headers) {
    if (detail::iequals(key, name)) return value;
  }
  return {};
}

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- concepts -----------------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

#if !defined(AXIOMS_JWKS_OWN_STOP_TOKEN)

using stop_token = std::stop_token;
using stop_source = std::stop_source;
using std::stop_callback;  // not an alias template: clang before 19 deduces no arguments for one
using jthread = std::jthread;

#else

namespace detail {

struct no_stop_state {};
class stop_link;

// What a stop_source, its tokens and its callbacks share. Callbacks run once, in the thread that asks, outside
// the lock; a callback's destructor waits while another thread runs it.
class stop_state {
 public:
  [[nodiscard]] bool requested() const noexcept { return requested_.load(std::memory_order_acquire); }
  bool request() noexcept;
  bool attach(stop_link& link) noexcept;  // false: asked already, the link is not kept
  void detach(stop_link& link) noexcept;

  std::atomic<int> sources{0};  // stop_possible() ends with the last source

 private:
  std::atomic<bool> requested_{false};
  std::mutex mutex_;  // guards everything below, and the links' neighbours
  std::condition_variable idle_;
  stop_link* first_ = nullptr;
  stop_link* running_ = nullptr;
  std::thread::id runner_;
};

class stop_link {
 public:
  stop_link(const stop_link&) = delete;
  stop_link& operator=(const stop_link&) = delete;

 protected:
  stop_link() = default;
  ~stop_link() = default;

 private:
  friend class stop_state;
  virtual void run() noexcept = 0;
  stop_link* next_ = nullptr;
  stop_link* previous_ = nullptr;
};

inline bool stop_state::request() noexcept {
  std::unique_lock lock(mutex_);
  if (requested_.exchange(true, std::memory_order_acq_rel)) return false;
  runner_ = std::this_thread::get_id();
  while (first_ != nullptr) {
    stop_link* link = first_;
    first_ = link->next_;
    if (first_ != nullptr) first_->previous_ = nullptr;
    link->next_ = nullptr;
    running_ = link;
    lock.unlock();
    link->run();
    lock.lock();
    running_ = nullptr;
    idle_.notify_all();
  }
  return true;
}

inline bool stop_state::attach(stop_link& link) noexcept {
  const std::lock_guard lock(mutex_);
  if (requested()) return false;
  link.next_ = first_;
  if (first_ != nullptr) first_->previous_ = &link;
  first_ = &link;
  return true;
}

inline void stop_state::detach(stop_link& link) noexcept {
  std::unique_lock lock(mutex_);
  if (running_ == &link) {
    // Destroyed from inside its own call: nothing to wait for. request() does not touch a link that ran.
    if (runner_ != std::this_thread::get_id()) idle_.wait(lock, [&] { return running_ != &link; });
    return;
  }
  if (first_ != &link && link.previous_ == nullptr) return;  // never attached, or run already
  if (link.previous_ != nullptr) link.previous_->next_ = link.next_;
  if (link.next_ != nullptr) link.next_->previous_ = link.previous_;
  if (first_ == &link) first_ = link.next_;
}

}  // namespace detail

/// The part of std::stop_token that this library and its fetchers need, for standard libraries without it.
class stop_token {
 public:
  stop_token() noexcept = default;
  [[nodiscard]] bool stop_requested() const noexcept { return state_ && state_->requested(); }
  [[nodiscard]] bool stop_possible() const noexcept {
    return state_ && (state_->requested() || state_->sources.load(std::memory_order_acquire) > 0);
  }
  friend bool operator==(const stop_token&, const stop_token&) noexcept = default;

 private:
  friend class stop_source;
  template <class Callback>
  friend class stop_callback;
  explicit stop_token(std::shared_ptr<detail::stop_state> state) noexcept : state_(std::move(state)) {}
  std::shared_ptr<detail::stop_state> state_;
};

/// The part of std::stop_source that this library needs.
class stop_source {
 public:
  stop_source() : state_(std::make_shared<detail::stop_state>()) { count(1); }
  explicit stop_source(detail::no_stop_state) noexcept {}
  stop_source(const stop_source& other) noexcept : state_(other.state_) { count(1); }
  stop_source(stop_source&& other) noexcept : state_(std::move(other.state_)) {}
  stop_source& operator=(stop_source other) noexcept {
    state_.swap(other.state_);
    return *this;
  }
  ~stop_source() { count(-1); }

  bool request_stop() noexcept { return state_ && state_->request(); }
  [[nodiscard]] bool stop_requested() const noexcept { return state_ && state_->requested(); }
  [[nodiscard]] bool stop_possible() const noexcept { return state_ != nullptr; }
  [[nodiscard]] stop_token get_token() const noexcept { return stop_token(state_); }

 private:
  void count(int change) noexcept {
    if (state_) state_->sources.fetch_add(change, std::memory_order_acq_rel);
  }
  std::shared_ptr<detail::stop_state> state_;
};

/// The part of std::stop_callback that this library needs: neither copied nor moved.
template <class Callback>
class stop_callback final : private detail::stop_link {
 public:
  template <class C>
  stop_callback(const stop_token& token, C&& callback) : callback_(std::forward<C>(callback)), state_(token.state_) {
    if (state_ && !state_->attach(*this)) {
      state_.reset();
      run();
    }
  }
  ~stop_callback() {
    if (state_) state_->detach(*this);
  }
  stop_callback(const stop_callback&) = delete;
  stop_callback& operator=(const stop_callback&) = delete;

 private:
  void run() noexcept override { callback_(); }
  Callback callback_;
  std::shared_ptr<detail::stop_state> state_;
};
template <class Callback>
stop_callback(stop_token, Callback) -> stop_callback<Callback>;

/// The part of std::jthread that this library needs: asks to stop and joins when it is destroyed.
class jthread {
 public:
  jthread() noexcept : source_(detail::no_stop_state{}) {}
  template <class F, class... Args>
    requires(!std::same_as<std::remove_cvref_t<F>, jthread>)
  explicit jthread(F&& f, Args&&... args)
      : source_(),
        thread_(
            [token = source_.get_token()](auto&& call, auto&&... rest) {
              if constexpr (std::is_invocable_v<decltype(call), stop_token, decltype(rest)...>) {
                std::forward<decltype(call)>(call)(token, std::forward<decltype(rest)>(rest)...);
              } else {
                std::forward<decltype(call)>(call)(std::forward<decltype(rest)>(rest)...);
              }
            },
            std::forward<F>(f), std::forward<Args>(args)...) {}
  jthread(jthread&&) noexcept = default;
  jthread& operator=(jthread&& other) noexcept {
    if (this != &other) {
      finish();
      source_ = std::move(other.source_);
      thread_ = std::move(other.thread_);
    }
    return *this;
  }
  ~jthread() { finish(); }

  [[nodiscard]] bool joinable() const noexcept { return thread_.joinable(); }
  void join() { thread_.join(); }
  void detach() { thread_.detach(); }
  [[nodiscard]] std::thread::id get_id() const noexcept { return thread_.get_id(); }
  bool request_stop() noexcept { return source_.request_stop(); }
  [[nodiscard]] stop_token get_stop_token() const noexcept { return source_.get_token(); }

 private:
  void finish() noexcept {
    if (!thread_.joinable()) return;
    source_.request_stop();
    thread_.join();
  }
  stop_source source_;
  std::thread thread_;  // last: its function uses the source
};

#endif

/// Waits in real time until ready(), the deadline or a stop; returns ready(). For your own clock's wait_until().
///
/// @p ready is called with @p lock held. `time_point::max()` is no deadline.
///
/// Threads: any number at once on one @p cv; whoever makes ready() true notifies it.
template <class Ready>
bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, stop_token stop,
                std::chrono::steady_clock::time_point deadline, Ready ready) {
  using time_point = std::chrono::steady_clock::time_point;
#if !defined(AXIOMS_JWKS_OWN_STOP_TOKEN)
  if (deadline == time_point::max()) return cv.wait(lock, std::move(stop), std::move(ready));
  return cv.wait_until(lock, std::move(stop), deadline, std::move(ready));
#else
  // The callback must take the mutex, or its notification could fall between a check and the wait; so it is made
  // and destroyed while the mutex is free.
  lock.unlock();
  {
    std::mutex& mutex = *lock.mutex();
    const auto wake = [&mutex, &cv] {
      { const std::lock_guard hold(mutex); }
      cv.notify_all();
    };
    const stop_callback<decltype(wake)> on_stop(stop, wake);
    lock.lock();
    while (!ready() && !stop.stop_requested()) {
      if (deadline == time_point::max()) {
        cv.wait(lock);
      } else if (cv.wait_until(lock, deadline) == std::cv_status::timeout) {
        break;
      }
    }
    lock.unlock();
  }
  lock.lock();
  return ready();
#endif
}

namespace detail {

// Stands for whatever the managers pass: a predicate, a fetch callback that only moves, a timer callback.
struct ready_probe {
  bool operator()() const { return true; }
};
struct fetch_callback_probe {
  fetch_callback_probe() = default;
  fetch_callback_probe(fetch_callback_probe&&) = default;
  fetch_callback_probe& operator=(fetch_callback_probe&&) = default;
  void operator()(result<fetch_response>) {}
};

}  // namespace detail

/// A blocking HTTP client: `f(const fetch_request&, stop_token) -> result<fetch_response>`.
///
/// Any status is a response, not an error. It must keep `timeout` in real time and return within 50 ms of a stop.
/// What it throws becomes `fetch_failed`. A fetcher that can tell beforehand that no fetch of its will succeed may have
/// `check() -> result<void>`, which initialize() and add() call, on the caller's thread; its error is theirs.
///
/// Threads: called from several threads at once.
template <class F>  // compilers show the line that a type does not keep to, and so what stands beside it here and below
concept fetcher = requires(F& f, const fetch_request& request, stop_token stop) {
  { f(request, stop) } -> std::same_as<result<fetch_response>>;  // a fetcher is called so, and returns that result
};

/// An event loop's HTTP client: `f.async_fetch(fetch_request, stop_token, callback)`.
///
/// It calls `callback(result<fetch_response>)` exactly once, from any thread, possibly inside the call, possibly after
/// the manager is gone. The callback can be moved but not copied.
template <class F>
concept async_fetcher = requires(F& f, fetch_request request, stop_token stop, detail::fetch_callback_probe callback) {
  f.async_fetch(std::move(request), stop, std::move(callback));  // an async_fetcher is called so; callbacks only move
};

/// Where a manager reads the time and how it waits, so that a test can own both.
///
/// - `now() -> std::chrono::steady_clock::time_point`: must never go back.
/// - `system_now() -> std::chrono::system_clock::time_point`: for HTTP dates only.
/// - `wait_until(std::unique_lock<std::mutex>&, std::condition_variable_any&, stop_token, deadline, ready) -> bool`:
///   waits until ready(), the deadline or a stop, and returns ready(); `time_point::max()` is no deadline.
///   axioms::wait_until() does it in real time. A clock that is moved by hand must lose no advance between its check
///   and its wait.
///
/// Threads: called from several threads at once.
template <class C>
concept clock_source = requires(C& c, std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv,
                                stop_token stop, std::chrono::steady_clock::time_point deadline,
                                detail::ready_probe ready) {
  { c.now() } -> std::same_as<std::chrono::steady_clock::time_point>;         // a clock_source tells monotonic time
  { c.system_now() } -> std::same_as<std::chrono::system_clock::time_point>;  // and the time of day
  { c.wait_until(lock, cv, stop, deadline, ready) } -> std::same_as<bool>;    // a clock_source owns waiting as well
};

/// The time of an event loop that calls back: `now()`, `system_now()` and `call_at(time_point, callback)`, which
/// returns a handle with `cancel()`. The callback, a `std::function<void()>`, runs once, on the loop, never inside call_at().
/// cancel() does nothing once it runs, also when the callback itself calls it.
///
/// Threads: now() and system_now() from any thread, several at once; call_at() and cancel() from any thread that calls the
///          manager or completes a fetch, one at a time.
template <class T>
concept timer_source = requires(T& t, std::chrono::steady_clock::time_point when, std::function<void()> callback) {
  { t.now() } -> std::same_as<std::chrono::steady_clock::time_point>;         // a timer_source tells monotonic time
  { t.system_now() } -> std::same_as<std::chrono::system_clock::time_point>;  // and the time of day
  t.call_at(when, callback).cancel();  // a timer_source calls back, and returns a handle with cancel()
};

/// What an executor is given to run: two pointers, copyable, noexcept. Must be run exactly once.
class executor_task {
 public:
  using function = void (*)(void*) noexcept;
  constexpr executor_task(function call, void* argument) noexcept : call_(call), argument_(argument) {}
  void operator()() const noexcept { call_(argument_); }

 private:
  function call_;
  void* argument_;
};

/// A reference to anything with `e.post(f)`: says where continuations run.
///
/// post() must keep the copyable, noexcept f (at most two pointers), run it exactly once, later, never inside post(),
/// and must not throw. An empty reference means: no executor.
///
/// Lifetime: does not own; the executor must outlive the manager, or the call that it was given to and every post() of
///           that call: what was posted may run before post() has returned on the manager's thread.
class executor_ref {
 public:
  constexpr executor_ref() noexcept = default;
  template <class Executor>
    requires(!std::same_as<std::remove_cv_t<Executor>, executor_ref> &&
             requires(Executor & e, executor_task f) { e.post(f); })
  constexpr executor_ref(Executor& executor) noexcept
      : target_(const_cast<void*>(static_cast<const void*>(std::addressof(executor)))),
        post_([](void* target, executor_task task) noexcept { static_cast<Executor*>(target)->post(task); }) {}

  constexpr explicit operator bool() const noexcept { return target_ != nullptr; }
  void post(executor_task task) const noexcept { post_(target_, task); }

 private:
  void* target_ = nullptr;
  void (*post_)(void*, executor_task) noexcept = nullptr;
};

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- configuration ------------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

/// What a jwks_event tells.
enum class jwks_event_kind {
  fetched = 1,   ///< a new document was published; `added`, `removed` and `changed` say how its keys differ
  not_modified,  ///< the provider confirmed the document (304)
  failed,        ///< a fetch failed; the old document stays
  stale,         ///< told once when lookups begin to get a document past its `cache_ttl`
  throttled,     ///< told once when the budget for unknown kids is used up
  loaded         ///< add_static() or import_cache() put a document in place; the kids are told as for `fetched`
};

[[nodiscard]] constexpr std::string_view to_string(jwks_event_kind kind) noexcept {
  switch (kind) {
    case jwks_event_kind::fetched: return "fetched";
    case jwks_event_kind::not_modified: return "not_modified";
    case jwks_event_kind::failed: return "failed";
    case jwks_event_kind::stale: return "stale";
    case jwks_event_kind::throttled: return "throttled";
    case jwks_event_kind::loaded: return "loaded";
  }
  return "unknown";
}

/// One thing that happened to one URL. Holds no key material.
struct jwks_event {
  jwks_event_kind kind{};
  std::string url;
  std::optional<axioms::error> error;     ///< of `failed`, and of `stale` if a failed fetch is the reason
  int status = 0;                         ///< of the response, 0 if there was none
  std::chrono::milliseconds duration{0};  ///< of the fetch, by the manager's clock
  std::vector<std::string> added, removed,
      changed;  ///< kids (thumbprints of keys without kid); changed: same kid, new key
  std::chrono::steady_clock::time_point next_attempt{};  ///< when the next fetch is due, by the manager's clock
};

/// Counters since the manager was made; they only grow.
struct jwks_stats {
  std::uint64_t hits = 0;            ///< lookups answered with a document younger than `cache_ttl`
  std::uint64_t misses = 0;          ///< lookups that had to wait, or found nothing to serve
  std::uint64_t stale_served = 0;    ///< lookups answered with a document past `cache_ttl`
  std::uint64_t fetched = 0;         ///< fetches that published a document
  std::uint64_t not_modified = 0;    ///< fetches answered with 304
  std::uint64_t failed = 0;          ///< fetches that failed
  std::uint64_t coalesced = 0;       ///< lookups and refreshes that joined a fetch of somebody else
  std::uint64_t throttled = 0;       ///< lookups refused by a budget
  std::uint64_t events_dropped = 0;  ///< events a slow listener lost
};

/// The state of one URL, for a readiness probe or a dashboard.
struct jwks_health {
  bool ready = false;                       ///< a lookup would get a document now
  bool stale = false;                       ///< that document is past its `cache_ttl`
  bool insecure_transport = false;          ///< the URL is http: anybody on the path can exchange the keys
  std::chrono::milliseconds age{0};         ///< of the document; 0 if there is none
  std::optional<axioms::error> last_error;  ///< of the last fetch, none if it succeeded
  int consecutive_failures = 0;
  /// Of a fetch, by the manager's clock: now while one runs; max(): none is planned.
  std::chrono::steady_clock::time_point next_attempt = std::chrono::steady_clock::time_point::max();
};

/// What a manager is to do for one URL. Every duration is at most 10 years; validate() says which rule is broken.
///
/// `min_refresh_interval` and `connect_timeout` are capped to `refresh_interval` and `fetch_timeout`, silently.
struct jwks_config {
  /// Where the key set is. Else `issuer` (less one trailing slash) + "/.well-known/jwks.json", else https://`domain` +
  /// the same.
  std::string jwks_url{};
  std::string issuer{}, domain{};
  /// From one successful fetch to the next in the background, less up to 10 % jitter. More than 0. Default 1 h.
  std::chrono::seconds refresh_interval{3600};
  /// How long a document is served without I/O. At least 2 x `refresh_interval`. Default 2 h.
  std::chrono::seconds cache_ttl{7200};
  /// initialize() fetches before it returns. A failure is reported, not fatal. Default true.
  bool prefetch = true;

  /// How long past `cache_ttl` a document is served while the provider cannot be reached. 0: fail closed. Default 2 h.
  std::chrono::seconds outage_window{7200};
  /// The soonest refresh that the provider's Cache-Control or Expires may ask for. 0 or more. Default 60 s.
  std::chrono::seconds min_refresh_interval{60};
  /// How long get_key() still gives a key that left the set, for tokens that were signed just before. 0 or more; 0: gone
  /// at once, as a key that was withdrawn because it leaked must be. Default 0.
  std::chrono::seconds withdrawn_key_grace{0};
  /// Limit of one fetch, from resolve to the last byte. More than 0. Default 10 s.
  std::chrono::milliseconds fetch_timeout{10000};
  /// Limit of one connection attempt, per address. More than 0. Default 3 s.
  std::chrono::milliseconds connect_timeout{3000};
  /// Backoff after failed fetches: full jitter under a limit that doubles from `backoff_initial` to `backoff_max`.
  /// More than 0, and `backoff_max` >= `backoff_initial`. Default 1 s and 5 min.
  std::chrono::milliseconds backoff_initial{1000}, backoff_max{300000};
  /// The longest Retry-After that is honoured. 0 or more. Default 1 h.
  std::chrono::milliseconds retry_after_max{3600000};
  /// Limit of a body. 1 byte to 1 GiB. Default 1 MiB.
  std::size_t max_body_bytes = 1 << 20;
  /// Fetch threads at most. 1 to 64. Default 8. Of initialize() only.
  std::size_t max_parallel_fetches = 8;
  /// Refetches for kids that the set lacks: a bucket of `unknown_kid_burst` (0 to 1000, 0 is never), one more per
  /// `unknown_kid_interval` (more than 0); a caller waits at most `unknown_kid_wait` (0 or more). Default 3, 30 s
  /// and 2 s.
  int unknown_kid_burst = 3;
  std::chrono::milliseconds unknown_kid_interval{30000}, unknown_kid_wait{2000};
  /// Refuses http. Default false, as in the Python original.
  bool require_https = false;
  /// Finds the key set through the metadata of `issuer` (or of https://`domain`): OpenID Connect Discovery 1.0 section 4, else
  /// RFC 8414. The metadata must name exactly that issuer, and are read again when a refresh is due and after the key set could
  /// not be fetched; they outlive an outage like the keys. `jwks_url` must be empty. Default false.
  bool discovery = false;
  /// Accepts secp256k1 keys for ES256K (RFC 8812). Default false: they are skipped.
  bool allow_es256k = false;
  /// Lookups of URLs that neither initialize() nor add() named are refused. Default false. Of initialize() only.
  bool only_configured_urls = false;
  /// Told what happens, in order, on one thread of the manager's. May call the manager's non-waiting members only
  /// (peek, health, stats, running, export_cache); what it throws is swallowed. Default: none.
  std::function<void(const jwks_event&)> on_event{};
  /// Uniform random numbers for jitter, called from any thread. Default: seeded per process. Of initialize() only.
  std::function<std::uint64_t()> random{};

  /// Reads AXIOMS_JWKS_URL, AXIOMS_ISS_URL, AXIOMS_DOMAIN, AXIOMS_JWKS_REFRESH_INTERVAL and AXIOMS_JWKS_CACHE_TTL
  /// (seconds) and AXIOMS_JWKS_PREFETCH (true/false, 1/0, yes/no, on/off). A variable that is unset or empty leaves
  /// its default.
  ///
  /// Errors: invalid_config for a value that cannot be read; it names the variable. The rest is validate()'s.
  [[nodiscard]] static result<jwks_config> from_environment();

  /// The URL that will be fetched; with `discovery` that of the OpenID Connect metadata, by which lookups name the key set.
  ///
  /// Errors: invalid_config (no URL option is set), invalid_url, unsupported_scheme.
  [[nodiscard]] result<std::string> resolved_url() const;

  /// Checks every option and their combination; the description names the option, its value and the rule.
  ///
  /// Errors: invalid_config, invalid_url, unsupported_scheme.
  [[nodiscard]] result<void> validate() const;
};

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- keys ---------------------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

namespace detail {

// One value of a JSON text. What is in it follows it in the array of its json_tree, so a walk over its members or elements
// steps from one to the next over all that is in them.
struct json_node {
  enum class kind : std::uint8_t { null, boolean, integer, real, string, array, object };
  struct iterator {
    const json_node* at;
    const json_node& operator*() const noexcept { return *at; }
    iterator& operator++() noexcept { return at += at->span, *this; }
    bool operator==(const iterator&) const noexcept = default;
  };

  kind type = kind::null;
  bool twice = false;        // of an object: a name stands in it twice
  std::uint32_t count = 0;   // of members, of elements, or of the bytes of a string
  std::uint32_t span = 1;    // of nodes: this one and all below it
  std::string_view name{};   // of a member, without escapes
  std::string_view text{};   // of a string, without escapes; empty if the reader was told not to keep it
  std::int64_t integer = 0;  // of a whole number that fits; 1 for true
  double real = 0;           // of every number

  [[nodiscard]] iterator begin() const noexcept { return {this + 1}; }
  [[nodiscard]] iterator end() const noexcept { return {this + span}; }
  // null, "", [] or {}.
  [[nodiscard]] bool holds_nothing() const noexcept {
    return type == kind::null || (count == 0 && (type == kind::string || type == kind::array || type == kind::object));
  }
  // The member of that name, of several the last; nullptr if there is none.
  [[nodiscard]] const json_node* find(std::string_view wanted) const noexcept {
    const json_node* found = nullptr;
    for (const json_node& each : *this) found = type == kind::object && same_name(each.name, wanted) ? &each : found;
    return found;
  }
  // The same, where a member of another kind, or null, is as good as none.
  [[nodiscard]] const json_node* find(std::string_view wanted, kind as) const noexcept {
    const json_node* found = find(wanted);
    return found != nullptr && found->type == as ? found : nullptr;
  }
};

// How large a text may be, and how it is refused.
struct json_rules {
  errc code = errc::not_a_key_set;
  std::size_t bytes = std::size_t{1} << 30U;
  std::size_t depth = 32;
  std::size_t values = 65536;
  std::span<const std::string_view> unkept{};  // what stands under these names keeps its kind and loses its texts
};

// A JSON text, read in one pass into a flat array of nodes. Their texts stand in one block that never moves.
struct json_tree {
  std::unique_ptr<char[]> texts;
  std::vector<json_node> nodes;

  [[nodiscard]] const json_node& root() const noexcept { return nodes.front(); }
  // An error says what the text does wrong ("is no JSON from byte 7 on") and quotes nothing of it.
  static result<json_tree> read(std::string_view text, const json_rules& rules);
};

struct pkey_free {
  void operator()(EVP_PKEY* key) const noexcept;
};
struct jwk_builder;
struct digest_alg;
enum class signature_state;
using key_kinds = std::uint16_t;  // a bit each

// Ready for the algorithms of an RSA key, or the one of an EC key; made when first used.
struct verify_contexts {
  verify_contexts() = default;
  ~verify_contexts();
  verify_contexts(const verify_contexts&) = delete;
  verify_contexts& operator=(const verify_contexts&) = delete;
  std::array<std::atomic<EVP_PKEY_CTX*>, 6> ready{};
};

}  // namespace detail

/// One public key (RFC 7517 section 4), built once and ready for OpenSSL. Immutable.
///
/// Threads:  callable from any number at once; OpenSSL allows the same of native_handle() for verification.
/// Lifetime: kept alive by key_ptr, also after its set has been replaced.
class jwk {
 public:
  jwk(const jwk&) = delete;
  jwk& operator=(const jwk&) = delete;

  [[nodiscard]] std::string_view kid() const noexcept { return kid_; }  ///< key id, empty if the member has none
  [[nodiscard]] std::string_view kty() const noexcept { return kty_; }  ///< "RSA", "EC", "OKP" or "AKP"
  [[nodiscard]] std::string_view alg() const noexcept { return alg_; }  ///< the only one it is for; empty: not said
  [[nodiscard]] std::string_view use() const noexcept { return use_; }  ///< "sig", SPIFFE's "jwt-svid", or empty
  /// "P-256", "Ed25519", ..., empty for RSA and AKP
  [[nodiscard]] std::string_view curve() const noexcept { return curve_; }
  /// The thumbprints of its certificate, as the member gives them (RFC 7517 sections 4.8 and 4.9): identifiers, not
  /// checked against anything.
  [[nodiscard]] std::string_view x5t() const noexcept { return x5t_; }
  [[nodiscard]] std::string_view x5t_s256() const noexcept { return x5t_s256_; }
  [[nodiscard]] const std::vector<std::string>& key_ops() const noexcept { return key_ops_; }
  /// Of the modulus, of the curve or of the ML-DSA key, as OpenSSL counts.
  [[nodiscard]] int bits() const noexcept { return bits_; }
  /// The SHA-256 thumbprint, base64url without padding (RFC 7638, RFC 8037 section 2, RFC 9964).
  [[nodiscard]] const std::string& thumbprint() const noexcept { return thumbprint_; }
  /// The public key as a PEM "PUBLIC KEY" block; empty if OpenSSL cannot write it.
  [[nodiscard]] std::string to_pem() const;
  /// The public members as JSON.
  [[nodiscard]] const std::string& to_json() const noexcept { return json_; }
  /// The OpenSSL key. Owned by this object: do not free; EVP_PKEY_up_ref to keep it longer.
  [[nodiscard]] EVP_PKEY* native_handle() const noexcept { return key_.get(); }
  /// Whether the signature, as a JWS has it (RFC 7518 section 3), is good. False if @p alg does not go with the key, and if
  /// OpenSSL cannot carry it out.
  [[nodiscard]] bool verify(std::string_view alg, std::string_view message, std::string_view signature) const noexcept;

 private:
  friend struct detail::jwk_builder;
  friend class jwk_set;
  jwk() = default;

  std::string kid_, kty_, alg_, use_, curve_, x5t_, x5t_s256_, thumbprint_, json_;
  std::vector<std::string> key_ops_;
  int bits_ = 0;
  detail::key_kinds kind_ = 0;
  std::unique_ptr<EVP_PKEY, detail::pkey_free> key_;
  mutable detail::verify_contexts contexts_;
};

using key_ptr = std::shared_ptr<const jwk>;

/// Which key is wanted: what a token's header says. An empty member does not restrict.
struct key_query {
  /// The header's `kid` (RFC 7515 section 4.1.4); of a header without one its `x5t` or `x5t#S256` (ADFS). It is looked
  /// for among the kids first, and only if no key has that kid among the x5t and x5t#S256 of the keys.
  std::string_view kid{};
  std::string_view alg{};  ///< the header's `alg`; it fixes key type and curve (RFC 7518 section 3.1)
};

/// A member of a key set that is not used, and why.
struct skipped_key {
  std::size_t index = 0;  ///< its place in `keys`
  std::string kid;        ///< empty if it has none; from outside: quote before showing
  std::string reason;
};

/// What jwk_set::parse() accepts beyond the default.
struct jwk_options {
  bool allow_es256k = false;  ///< secp256k1 keys for ES256K (RFC 8812)
};

/// The usable keys of a JWK Set (RFC 7517 section 5). Immutable.
///
/// A bad member never fails the set: it is skipped and listed.
class jwk_set {
 public:
  using const_iterator = std::vector<key_ptr>::const_iterator;

  /// Reads a key set: RSA of 2048 to 16384 bits, EC P-256, P-384, P-521 and on request secp256k1, OKP Ed25519 and
  /// Ed448, AKP ML-DSA-44, -65 and -87 where the OpenSSL at run time has them (3.5 and later).
  ///
  /// Skipped are also members that repeat a name (RFC 7517 section 4), and members past 1,024. A member of a key that is
  /// null counts as absent. Private and symmetric key material is not kept.
  ///
  /// Errors: not_a_key_set (no JSON object with one array `keys`; nested deeper than 32; over 65,536 values; a zero byte
  ///         in it), no_usable_key, no_resources (OpenSSL had no memory for a key).
  [[nodiscard]] static result<jwk_set> parse(std::string_view json, const jwk_options& options = {});

  [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }
  [[nodiscard]] const_iterator begin() const noexcept { return keys_.begin(); }
  [[nodiscard]] const_iterator end() const noexcept { return keys_.end(); }

  /// All keys of that kid, in the order of the set. If there is none, those with that x5t or x5t#S256.
  [[nodiscard]] std::vector<key_ptr> find(std::string_view kid) const;
  /// Whether find() would find any.
  [[nodiscard]] bool contains(std::string_view kid) const noexcept;

  /// The one key that fits: `alg` fixes key type and curve, then kid as in find(), then the member's own `alg`.
  ///
  /// Errors: unsupported_algorithm (unknown, `none`, HMAC), key_not_found, key_ambiguous (names the candidates).
  [[nodiscard]] result<key_ptr> select(const key_query& query) const;

  [[nodiscard]] const std::vector<skipped_key>& skipped() const noexcept { return skipped_; }
  /// The text held private or symmetric key material, which was dropped: whoever published it must replace those keys.
  [[nodiscard]] bool held_secrets() const noexcept { return held_secrets_; }

 private:
  friend struct detail::jwk_builder;
  std::vector<key_ptr> keys_;
  std::vector<skipped_key> skipped_;
  bool held_secrets_ = false;
  bool allow_es256k_ = false;
};

namespace detail {

// What one 200 response brought. Shared by every stamp that a 304 makes of it.
struct document_content {
  std::string url;
  std::string body;
  jwk_set keys;
  std::uint64_t generation = 0;
};

}  // namespace detail

/// One published key set: an immutable stamp (when it was confirmed) over shared content.
///
/// Lifetime: kept alive by jwks_ptr, also after it has been replaced and after the manager is gone.
class jwks_document {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  jwks_document(std::shared_ptr<const detail::document_content> content, time_point fetched_at, time_point expires_at,
                std::chrono::system_clock::time_point fetched_at_system) noexcept
      : content_(std::move(content)),
        fetched_at_(fetched_at),
        expires_at_(expires_at),
        fetched_at_system_(fetched_at_system) {}

  /// The bytes as received. A set that held private or symmetric key material is written anew from its usable keys.
  [[nodiscard]] std::string_view body() const noexcept { return content_->body; }
  [[nodiscard]] const jwk_set& keys() const noexcept { return content_->keys; }
  [[nodiscard]] std::string_view url() const noexcept { return content_->url; }
  /// When it was confirmed last, by the manager's clock.
  [[nodiscard]] time_point fetched_at() const noexcept { return fetched_at_; }
  [[nodiscard]] time_point expires_at() const noexcept { return expires_at_; }  ///< fetched_at() + `cache_ttl`
  [[nodiscard]] std::chrono::system_clock::time_point fetched_at_system() const noexcept { return fetched_at_system_; }
  /// Grows with every new content of a manager; a 304 keeps it.
  [[nodiscard]] std::uint64_t generation() const noexcept { return content_->generation; }
  [[nodiscard]] const std::shared_ptr<const detail::document_content>& content() const noexcept { return content_; }

 private:
  std::shared_ptr<const detail::document_content> content_;
  time_point fetched_at_, expires_at_;
  std::chrono::system_clock::time_point fetched_at_system_;
};

using jwks_ptr = std::shared_ptr<const jwks_document>;

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- detail: refresh policy ---------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {
namespace detail {

using steady_point = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr seconds max_duration{std::int64_t{10} * 366 * 24 * 3600};
inline constexpr milliseconds max_backoff_without_document{10000};
inline constexpr std::size_t max_negative_kids = 1024;
inline constexpr seconds negative_kid_ttl{30};
inline constexpr std::size_t max_kid_bytes = 1024;
inline constexpr std::size_t max_kid_waiters = 16;
inline constexpr std::size_t max_looked_up_urls = 64;
inline constexpr std::size_t max_withdrawn_keys = 256;
inline constexpr std::size_t max_saved_bytes = std::size_t{16} << 20U;
inline constexpr seconds max_wall_clock_step{60};

// t + d without overflow: a deadline beyond the end of time is none.
[[nodiscard]] constexpr steady_point later(steady_point t, steady_point::duration d) noexcept {
  return t > steady_point::max() - d ? steady_point::max() : t + d;
}

// What a flight brought, judged without a lock: a document, a confirmation, or a reason why not.
struct verdict {
  enum class kind { document, not_modified, failure };
  kind what = kind::failure;
  std::shared_ptr<document_content> content;  // of a document
  axioms::error why{};                        // of a failure
  int status = 0;
  std::string etag, last_modified;
  std::optional<seconds> freshness, retry_after;
};

// The rule of acceptance: only a 200 with a usable key set is a document, and only a 304 that was asked for confirms
// one.
[[nodiscard]] verdict judge(const fetch_request& request, result<fetch_response> response,
                            std::chrono::system_clock::time_point now, const jwk_options& options = {});

// How old a document is that an earlier process fetched, which only the wall clock can tell. Errors: that clock talks
// nonsense. A document from the future is no younger than now: the clock may have been stepped back a little.
[[nodiscard]] result<seconds> age_of_saved(std::chrono::system_clock::time_point now, std::int64_t fetched_at);

// What a fetch of an issuer's metadata brought.
struct metadata {
  enum class kind { found, not_modified, absent, failure };
  kind what = kind::failure;
  std::string jwks_uri;  // of found
  axioms::error why{};   // of absent and failure
  int status = 0;
  std::string etag, last_modified;
  std::optional<seconds> freshness, retry_after;
};

// Which issuer metadata must name, and where they may be (OpenID Connect Discovery 1.0 section 4, RFC 8414 section 3.1).
struct metadata_source {
  std::string issuer;
  bool slash_optional = false;  // of an issuer that is known by its domain only
  std::array<std::string, 2> urls;
  bool operator==(const metadata_source&) const = default;
};
[[nodiscard]] result<metadata_source> metadata_source_of(const jwks_config& config);

// The rule of acceptance for metadata: a JSON object of exactly that issuer, whose jwks_uri is a URL that we may fetch, and not
// http if the metadata came by https.
[[nodiscard]] metadata judge_metadata(const fetch_request& request, result<fetch_response> response,
                                      const metadata_source& source, std::chrono::system_clock::time_point now);

// From an issuer to the URL of its key set. Sans-I/O, like refresh_policy, whose flights it leads: first to the metadata,
// where they are due, then to the key set.
class discovery_policy {
 public:
  enum class step { metadata, keys, fail };

  discovery_policy(metadata_source source, const jwks_config& config) : source_(std::move(source)) {
    configure(config);
  }
  void configure(const jwks_config& config) noexcept {
    reread_after_ = config.refresh_interval * 9 / 10;  // a refresh comes that soon with all its jitter
    usable_for_ = config.cache_ttl + config.outage_window;
    floor_ =
        config.min_refresh_interval < config.refresh_interval ? config.min_refresh_interval : config.refresh_interval;
    retry_after_max_ = config.retry_after_max;
  }

  // A flight begins.
  step begin(steady_point now);
  // Its metadata came, or did not.
  step read(steady_point now, metadata&& what);
  // It was over before they came: the next one must not lose its time in the same way.
  void overstayed(steady_point now) noexcept { retry_at_ = later(now, floor_); }
  // It ended, with a good answer of the key set or without.
  void ended(bool well) noexcept { suspect_ = !well; }

  [[nodiscard]] const metadata_source& source() const noexcept { return source_; }
  [[nodiscard]] const std::string& metadata_url() const noexcept { return source_.urls[form_]; }
  [[nodiscard]] const std::string& jwks_uri() const noexcept { return jwks_uri_; }
  [[nodiscard]] const std::string& etag() const noexcept { return etag_; }
  [[nodiscard]] const std::string& last_modified() const noexcept { return last_modified_; }
  [[nodiscard]] bool usable(steady_point now) const noexcept {
    return !jwks_uri_.empty() && now < later(read_at_, usable_for_);
  }
  // Of the metadata that were read last, or not.
  [[nodiscard]] const std::optional<metadata>& failure() const noexcept { return failure_; }

 private:
  metadata_source source_;
  seconds reread_after_{}, usable_for_{}, floor_{};
  milliseconds retry_after_max_{};
  std::size_t form_ = 0;
  bool other_form_tried_ = false;
  bool suspect_ = false;  // the key set was not to be had where the metadata say
  std::string jwks_uri_, etag_, last_modified_;
  steady_point read_at_{}, reread_at_{};
  steady_point retry_at_{};  // the old ones do until then
  std::optional<metadata> failure_;
};

// Everything that is decided about one URL over time: what to serve, whether to fetch, when to look again.
//
// Sans-I/O: it is told the time, what happened and a random number; it has no thread, lock, socket or clock. Both
// managers call it under their lock. A flight is a number; the newest one may be in progress.
class refresh_policy {
 public:
  // What a lookup gets, and what its manager has to do.
  enum class answer {
    fresh,  // serve the document
    stale,  // serve it although it is past cache_ttl
    join,   // wait for the flight in progress
    start,  // start a flight and wait for it
    refuse  // last_error(), at once
  };
  // What a lookup of a kid gets that the served set lacks.
  enum class kid_answer { join, start, missing, throttled, refuse };
  enum class landing { published, confirmed, failed, dropped };
  struct selection {
    result<key_ptr> key;
    bool kid_unknown = false;  // no key of the set has the kid: ask_unknown_kid() says whether to look for it
  };

  explicit refresh_policy(const jwks_config& config) noexcept { configure(config); }

  // Takes new limits; the document and the failures so far stay.
  void configure(const jwks_config& config) noexcept;
  // The first background fetch, if no lookup comes before. Without effect once a flight has begun.
  void plan_first(steady_point when) noexcept {
    if (newest_ == 0 && !pinned_) next_attempt_ = when;
  }

  [[nodiscard]] answer ask(steady_point now) const noexcept;
  [[nodiscard]] kid_answer ask_unknown_kid(steady_point now, std::string_view kid, std::size_t waiting);
  // What a caller gets whose key of a known kid did not verify a signature. missing: the set is what the provider said just
  // now. insist: that answer may be older than the question.
  [[nodiscard]] kid_answer ask_bad_signature(steady_point now, std::size_t waiting, bool insist);
  // A fetch that brought a set without the kid: do not ask for it again for a while.
  void remember_missing(steady_point now, std::string_view kid);
  // True if an answer came from a flight that began after `newest` was the newest. An older one proves nothing to who asked
  // then: the provider may have answered before it published the key.
  [[nodiscard]] bool answered_since(std::uint64_t newest) const noexcept { return answered_ > newest; }
  [[nodiscard]] std::uint64_t newest_flight() const noexcept { return newest_; }

  // Which key a query gets: one of the set that is served, else one that left it less than withdrawn_key_grace ago.
  [[nodiscard]] selection select(steady_point now, const jwk_set& served, const key_query& query) const;

  // The document is the application's own: it never ages, is never fetched, and no answer replaces it.
  void pin(steady_point now, const jwk_set& keys, const jwk_set* served = nullptr);
  // A document that an earlier process fetched at that time. It is refreshed as soon as possible. False: there is one that is
  // served, or younger.
  [[nodiscard]] bool restore(steady_point now, steady_point fetched_at) noexcept;

  std::uint64_t begin(steady_point now) noexcept;
  // A flight came back, in time or late. served: the set that a new one would replace.
  landing land(std::uint64_t flight, steady_point now, const verdict& what, bool confirms_current, std::uint64_t random,
               const jwk_set* served = nullptr);
  // True once when the flight in progress has overstayed; it then counts as failed.
  [[nodiscard]] bool expire(steady_point now, std::uint64_t random);
  [[nodiscard]] bool due(steady_point now) const noexcept { return !in_flight_ && now >= next_attempt_; }
  // Nobody looked it up for so long that a lookup would have to fetch anyway.
  [[nodiscard]] bool unused(steady_point now, steady_point last_used) const noexcept {
    return now >= later(last_used, ttl_ + outage_);
  }

  [[nodiscard]] bool servable(steady_point now) const noexcept {
    return has_document_ && (pinned_ || now < later(fetched_at_, ttl_ + outage_));
  }
  [[nodiscard]] bool stale(steady_point now) const noexcept { return servable(now) && now >= expires_at(); }
  [[nodiscard]] bool in_flight() const noexcept { return in_flight_; }
  [[nodiscard]] bool in_flight(std::uint64_t flight) const noexcept { return in_flight_ && flight == newest_; }
  [[nodiscard]] steady_point flight_deadline() const noexcept { return deadline_; }
  [[nodiscard]] steady_point next_attempt() const noexcept { return next_attempt_; }
  [[nodiscard]] steady_point next_wake() const noexcept { return in_flight_ ? deadline_ : next_attempt_; }
  [[nodiscard]] steady_point fetched_at() const noexcept { return fetched_at_; }
  [[nodiscard]] steady_point expires_at() const noexcept {
    return pinned_ ? steady_point::max() : later(fetched_at_, ttl_);
  }
  [[nodiscard]] bool pinned() const noexcept { return pinned_; }
  // New content came so lately that callers may still hold keys of the old.
  [[nodiscard]] bool replaced_lately(steady_point now) const noexcept {
    return has_document_ && now < later(replaced_at_, negative_kid_ttl);
  }
  [[nodiscard]] const std::optional<axioms::error>& last_error() const noexcept { return last_error_; }
  [[nodiscard]] int consecutive_failures() const noexcept { return failures_; }
  [[nodiscard]] std::size_t negative_kids() const noexcept { return missing_.size(); }
  [[nodiscard]] std::size_t withdrawn_keys() const noexcept { return withdrawn_.size(); }

 private:
  [[nodiscard]] steady_point blocked_until(steady_point now) const noexcept;
  void succeed(std::uint64_t flight, steady_point now, const std::optional<seconds>& freshness,
               std::uint64_t random) noexcept;
  void fail(steady_point now, const axioms::error& why, const std::optional<seconds>& retry_after,
            std::uint64_t random);
  [[nodiscard]] bool take_token(steady_point now) noexcept;
  [[nodiscard]] kid_answer ask_for_refetch(steady_point now, std::size_t waiting) noexcept;
  void replace_keys(steady_point now, const jwk_set& served, const jwk_set& keys);

  // limits
  seconds refresh_{}, ttl_{}, outage_{}, floor_{}, grace_{};
  milliseconds timeout_{}, backoff_initial_{}, backoff_max_{}, retry_after_max_{}, kid_interval_{};
  int kid_burst_ = 0;

  // document
  bool has_document_ = false;
  bool pinned_ = false;
  steady_point fetched_at_{}, replaced_at_{};
  std::vector<std::pair<key_ptr, steady_point>> withdrawn_;  // since when, oldest first

  // flights
  bool in_flight_ = false;
  std::uint64_t newest_ = 0;    // number of the newest flight
  std::uint64_t answered_ = 0;  // number of the newest flight whose answer was good
  steady_point deadline_{};
  steady_point next_attempt_ = steady_point::max();

  // failures
  std::optional<axioms::error> last_error_;
  int failures_ = 0;
  steady_point failed_at_{};
  steady_point backoff_until_{};      // our own backoff
  steady_point retry_after_until_{};  // what the provider asked for

  // unknown kids
  int tokens_ = 0;
  bool bucket_touched_ = false;
  steady_point bucket_at_{};
  std::map<std::string, steady_point, std::less<>> missing_;  // until when
};

}  // namespace detail
}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- clocks -------------------------------------------------------------------------------------

#if defined(__linux__)
#include <time.h>
#endif

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

namespace detail {

// Grows in every forked child, so that whoever keeps threads, locks or sockets sees that they are not its own.
inline std::atomic<std::uint64_t> fork_counter{1};
[[nodiscard]] inline std::uint64_t fork_epoch() noexcept { return fork_counter.load(std::memory_order_relaxed); }
void watch_forks() noexcept;

// Held round calls of OpenSSL: a forked child would find a lock held for ever that a thread of its parent had taken.
// fork() shuts out who comes and waits for who is inside, but not for its own thread. Never held over what may wait.
class fork_gate {
 public:
  fork_gate() noexcept;
  ~fork_gate();
  fork_gate(const fork_gate&) = delete;
  fork_gate& operator=(const fork_gate&) = delete;
  [[nodiscard]] static bool closing() noexcept;  // a fork waits: come to an end
};

}  // namespace detail

/// Real time: the default clock of both managers.
///
/// On Linux now() counts suspended time too (CLOCK_BOOTTIME): keys must not look fresh after a night in a closed
/// laptop.
struct steady_clock {
  [[nodiscard]] std::chrono::steady_clock::time_point now() const noexcept {
#if defined(__linux__)
    timespec t{};
    if (::clock_gettime(CLOCK_BOOTTIME, &t) == 0) {
      return std::chrono::steady_clock::time_point(std::chrono::duration_cast<std::chrono::steady_clock::duration>(
          std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec)));
    }
#endif
    return std::chrono::steady_clock::now();
  }
  [[nodiscard]] std::chrono::system_clock::time_point system_now() const noexcept {
    return std::chrono::system_clock::now();
  }

  template <class Ready>
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, stop_token stop,
                  std::chrono::steady_clock::time_point deadline, Ready ready) const {
    using real = std::chrono::steady_clock;
    if (deadline == real::time_point::max()) return axioms::wait_until(lock, cv, stop, deadline, ready);
    // The kernel's wait does not count suspended time, so a long one is looked at again from time to time: less than twice an hour.
    constexpr auto slice = std::chrono::minutes(45);
    for (;;) {
      const auto at = now();
      if (at >= deadline) return ready();  // before the subtraction, which time_point::min() would overflow
      const real::duration left = deadline - at;
      if (axioms::wait_until(lock, cv, stop, real::now() + (left < slice ? left : slice), ready)) return true;
      if (stop.stop_requested()) return false;
    }
  }
};
static_assert(clock_source<steady_clock>);

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- default fetcher ----------------------------------------------------------------------------

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

namespace detail {
class httplib_state;
struct httplib_access;
}  // namespace detail

/// How httplib_fetcher reaches a provider. There is no option that turns certificate checks off.
///
/// Files are read at the first https fetch, and by check(); a bad one is that fetch's `tls_failed`, and the next fetch
/// reads it again. "Credentials" are `headers` and the client certificate: they go to the origin of the URL that the
/// application named (fetch_request::origin) and to `credential_origins`, nowhere else. Each hop of a redirect is
/// judged by its own origin, and after one that may not see them no later one does.
struct httplib_options {
  std::string ca_file{};  ///< PEM file of trusted certificates, in place of the system's; default: the system's
  std::string ca_pem{};   ///< the same as text; what stands in either is trusted, an intermediate or a leaf, too
  std::string client_cert_file{};  ///< PEM chain shown to a server that asks for one; default: none
  std::string client_key_file{};   ///< its PEM key, not encrypted; default: looked for in client_cert_file
  /// `http://[user:password@]host[:port]` for every fetch; default: none. https goes through CONNECT.
  std::string proxy{};
  /// Without `proxy`: `https_proxy`, `HTTPS_PROXY`, `http_proxy`, `HTTP_PROXY` and `no_proxy`, `NO_PROXY` (names,
  /// addresses, networks, with or without a port), as they are when the fetcher is made. HTTP_PROXY is not believed in
  /// a CGI process (REQUEST_METHOD set): there a client can set it.
  bool proxy_from_environment = true;
  /// Further origins, `scheme://host[:port]`, that may see the credentials, as that of a `jwks_uri` elsewhere. Default:
  /// none.
  std::vector<std::string> credential_origins{};
  /// Further request headers, asked for once per fetch that may send them, from the fetching thread, so that a token
  /// can be renewed; default: none. At most 64 KiB together. What it throws becomes `fetch_failed`.
  std::function<std::vector<std::pair<std::string, std::string>>()> headers{};
};

/// The fetcher over cpp-httplib and OpenSSL that the managers use by default.
///
/// One deadline covers the whole exchange with all its redirects (at most 5, never from https to http, never with
/// user-info; the response tells the last URL). TLS is 1.2 or later with peer and host verified. Bodies come with 2xx
/// only, unencoded, within `max_body_bytes`; header names and values come as they were received, folded lines joined,
/// what is no header left out. Copies share one state.
///
/// Threads: callable from any number at once.
/// Blocks:  at most `timeout`; a stop ends it within 50 ms in every phase, name resolution too.
/// Errors:  invalid_url, unsupported_scheme, resolve_failed, connect_failed, tls_failed, fetch_failed, timed_out,
///          cancelled, response_too_large, no_resources; invalid_config for options that cannot be right.
class httplib_fetcher {
 public:
  explicit httplib_fetcher(httplib_options options = {});
  // Without moves: a moved-from handle would have no state to fetch with.
  httplib_fetcher(const httplib_fetcher&) noexcept = default;
  httplib_fetcher& operator=(const httplib_fetcher&) noexcept = default;
  ~httplib_fetcher() = default;

  result<fetch_response> operator()(const fetch_request& request, stop_token stop) const;

  /// Reads the files that the options name, never the system's certificates. initialize() and add() of the managers
  /// call it.
  ///
  /// Errors: invalid_config: a file is missing or no good, the key is not the certificate's, an origin is none.
  [[nodiscard]] result<void> check() const;

 private:
  friend struct detail::httplib_access;
  std::shared_ptr<detail::httplib_state> state_;
};

static_assert(fetcher<httplib_fetcher>);

namespace detail {

// For the process-wide managers, whose fetcher exists before their user's options do.
struct httplib_access {
  // For every copy; fetches in flight keep the options they began with. Threads: any, at any time.
  static void set_options(httplib_fetcher& fetcher, httplib_options options);
};

}  // namespace detail

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

#endif  // !AXIOMS_JWKS_NO_HTTPLIB

// ---- blocking manager ---------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {
namespace detail {

class engine;
struct entry;
struct effects;
struct saved_document;

// Tells the threads that keep a document whether it is still the published one, without a lock and without the manager.
struct publication {
  std::atomic<std::uint64_t> version{1};   // grows with every stamp, and when the URL is dropped
  std::atomic<std::int64_t> last_used{0};  // ticks of the manager's clock, at most once a second
};

// What a lookup ends with. failure is empty on success.
struct outcome {
  jwks_ptr document;
  key_ptr key;
  bool changed = false;  // of bad_signature: the kid has another key now
  std::optional<axioms::error> failure;
  std::shared_ptr<publication> source;  // of a fresh document: may be kept per thread while version is this
  std::uint64_t version = 0;
};

enum class verb { lookup, key, bad_signature, refresh, ready, initialize, shutdown };

// What is asked for. url: as the caller spelt it; none for the configured one.
struct request {
  verb what = verb::lookup;
  std::optional<std::string_view> url{};
  key_query query{};
  std::chrono::milliseconds limit{0};  // of ready
};

// One caller that waits, blocked or suspended. Everything but the first two members is guarded by the engine's mutex
// until done() is called, which happens once, without the mutex.
class waiter : public std::enable_shared_from_this<waiter> {
 public:
  explicit waiter(const request& asked)
      : what(asked.what),
        limit(asked.limit),
        url_(asked.url ? *asked.url : std::string_view()),
        kid_(asked.query.kid),
        alg_(asked.query.alg),
        has_url_(asked.url.has_value()) {}
  virtual ~waiter() = default;
  waiter(const waiter&) = delete;
  waiter& operator=(const waiter&) = delete;

  virtual void done() noexcept = 0;
  // A continuation that nobody gave an executor for: it must run on a manager thread, not on the one that cancels.
  [[nodiscard]] virtual bool wants_manager_thread() const noexcept { return false; }
  // Copies: what the caller's views point to may be gone while it waits.
  [[nodiscard]] request asked() const noexcept {
    return {what, has_url_ ? std::optional<std::string_view>(url_) : std::nullopt, {kid_, alg_}, limit};
  }

  const verb what;
  const std::chrono::milliseconds limit;
  bool finished = false;
  bool cancelled = false;    // before it was submitted
  bool refetching = false;   // waits for a refetch because of an unknown kid
  std::uint64_t newest = 0;  // the newest flight when it asked
  bool forgiving = false;    // waits for a prefetch, whose failure is success
  steady_point deadline = steady_point::max();
  jwks_ptr before;  // of bad_signature: what the key was taken from
  outcome out;
  std::shared_ptr<entry> on;  // in whose list it stands
  std::list<std::shared_ptr<waiter>>::iterator place;

 private:
  std::string url_, kid_, alg_;
  bool has_url_;
};

// One fetch in progress. It belongs to the manager; whoever waits for it may leave.
struct flight {
  std::shared_ptr<entry> on;
  std::uint64_t number = 0;
  fetch_request request;
  jwk_options accepts;
  stop_source stop;
  std::shared_ptr<const document_content> basis;  // whose validators were sent
  steady_point begun{};
  bool foreground = false;
  bool reads_metadata = false;            // its next response is metadata
  std::optional<metadata_source> source;  // what discovery it follows
};

// An event as it is queued; the kids are compared when it is delivered, not under the engine's lock.
struct event_record {
  std::shared_ptr<const jwks_config> listener;
  jwks_event event;
  std::shared_ptr<const document_content> before, after;
};

struct token_access;

// The documents that this thread has got lately. A hit reads nothing else: no lock, no allocation, no parsing.
struct hit_slot {
  std::uint64_t engine = 0;  // never reused, so a new manager at an old address is no hit
  std::string url;           // as the caller spells it; empty: the configured one
  std::shared_ptr<publication> source;
  std::uint64_t version = 0;
  jwks_ptr document;  // with a control block of this thread's own: copies do not fight over a cache line
  steady_point until{}, touch{};
};

struct hit_cache {
  std::array<hit_slot, 8> slots;
  hit_slot* recent = slots.data();
  std::size_t next = 0;
  std::size_t shard = 0;  // of the counters
};

// A plain pointer costs no guard on the hit path; the object behind it is made on the first refill and freed at thread
// exit.
inline thread_local constinit hit_cache* this_thread_hits = nullptr;

[[nodiscard]] hit_slot* find_slot(hit_cache& cache, std::uint64_t engine, std::string_view url) noexcept;

// The slot used last is looked at first, inline; a thread that goes back and forth between URLs pays for a call.
[[nodiscard]] AXIOMS_JWKS_HOT inline hit_slot* find_hit(hit_cache& cache, std::uint64_t engine, std::string_view url,
                                                        steady_point now) noexcept {
  hit_slot* slot = cache.recent;
  if (slot->engine != engine || slot->url != url) {
    slot = find_slot(cache, engine, url);
    if (slot == nullptr) return nullptr;
  }
  if (slot->source->version.load(std::memory_order_acquire) != slot->version || now >= slot->until) return nullptr;
  if (now >= slot->touch) {
    slot->source->last_used.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    slot->touch = later(now, std::chrono::seconds(1));
  }
  return slot;
}
void keep_hit(std::uint64_t engine, std::string_view url, const outcome& served) noexcept;

// Locks, flights and waiters round the cores: all that the two managers have in common. It decides nothing about time,
// retries or acceptance; those rules stand in refresh_policy and judge().
//
// How flights are launched and when it is woken is its driver's: threads (thread_engine) or an event loop
// (loop_engine).
class engine : public std::enable_shared_from_this<engine> {
 public:
  enum class life { idle, lazy, running, down };

  engine() noexcept;
  virtual ~engine();
  engine(const engine&) = delete;
  engine& operator=(const engine&) = delete;

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] bool forked() const noexcept { return epoch_ != fork_epoch(); }
  [[nodiscard]] bool running() const noexcept { return state_.load(std::memory_order_acquire) == life::running; }
  // Until the holder lets go; threads that still run keep it a little longer.
  void own_itself(std::shared_ptr<engine> self) noexcept {
    const std::shared_ptr<engine> last = std::exchange(self_, std::move(self));
  }
  void start_down() noexcept { state_.store(life::down, std::memory_order_release); }
  void count_hit(std::size_t shard) noexcept {
    hits_[shard % hits_.size()].count.fetch_add(1, std::memory_order_relaxed);
  }

  // The answer, if it needs no waiting; changes nothing otherwise.
  [[nodiscard]] std::optional<outcome> answer_now(const request& asked);
  // Finishes the waiter now or lets it wait.
  void submit(const std::shared_ptr<waiter>& who);
  // A stop token asked: the waiter alone is finished, with `cancelled`.
  void cancel(const std::shared_ptr<waiter>& who);
  // The frame of the waiter is gone: nobody may be told.
  void abandon(const std::shared_ptr<waiter>& who) noexcept;

  // Starts, or is started already. With a prefetch, who is submitted to wait for it.
  void start(jwks_config config, const std::shared_ptr<waiter>& who);
  [[nodiscard]] result<void> add(jwks_config config);
  [[nodiscard]] result<void> add_static(std::string_view url, std::string_view json);
  [[nodiscard]] std::string export_cache();
  [[nodiscard]] result<std::size_t> import_cache(std::string_view text);
  // Ends this life at once; threads and flights wind down by themselves, then who is finished (if given).
  void begin_shutdown(const std::shared_ptr<waiter>& who = nullptr) noexcept;

  [[nodiscard]] std::optional<jwks_ptr> peek(const request& asked);
  [[nodiscard]] jwks_health health(std::string_view url);
  [[nodiscard]] jwks_stats stats() const;

  [[nodiscard]] virtual bool read_clock(steady_point& now) noexcept = 0;
  [[nodiscard]] virtual bool read_clock(std::chrono::system_clock::time_point& now) noexcept = 0;
  [[nodiscard]] virtual result<void> check_fetcher() noexcept = 0;

 protected:
  // Of the driver. Those marked (locked) are called under the mutex.
  virtual result<void> open(bool with_listener) = 0;  // be ready to launch flights
  virtual void retire(effects& fx, std::vector<std::shared_ptr<waiter>> last,
                      const std::shared_ptr<waiter>& who) = 0;               // (locked)
  virtual void wind_down() noexcept = 0;                                     // after retire, unlocked
  virtual void launch(const std::shared_ptr<flight>& what) = 0;              // may come back inside
  virtual void wake() noexcept = 0;                                          // next_wake() may be sooner now
  [[nodiscard]] virtual std::size_t busy() const noexcept = 0;               // (locked) flights that hold a slot
  [[nodiscard]] virtual bool defer(const std::shared_ptr<waiter>& who) = 0;  // (locked) finish it on a manager thread
  [[nodiscard]] virtual bool queue_event(event_record&& record) = 0;         // (locked) false: full
  virtual void deliver_events() noexcept = 0;

  // For the driver.
  static void finish_all(effects& fx, std::vector<std::shared_ptr<waiter>> last, const std::shared_ptr<waiter>& who);
  bool tick_now();                                                // unlocked; false: the clock failed
  [[nodiscard]] std::size_t flights_in_the_air() const noexcept;  // locked
  // A response came: judges it. True: the flight goes on, with another request.
  [[nodiscard]] bool arrive(const std::shared_ptr<flight>& what, result<fetch_response> response);
  void land(const std::shared_ptr<flight>& what, verdict&& brought);
  void tick(steady_point now, std::uint64_t random, effects& fx);  // locked
  void perform(effects& fx);                                       // unlocked
  [[nodiscard]] steady_point next_wake() const noexcept;           // locked
  [[nodiscard]] std::uint64_t draw() const noexcept;               // unlocked: it may be the user's function
  bool remove(waiter& who) noexcept;                               // locked; false: it does not wait
  static void deliver(const event_record& record) noexcept;
  void finish(waiter& who, effects& fx, bool here);                                           // locked
  [[nodiscard]] std::size_t slots() const noexcept { return config_->max_parallel_fetches; }  // locked
  void count_dropped_events(std::size_t count) noexcept { stats_.events_dropped += count; }   // locked

  mutable std::mutex
      mutex_;  // guards everything below but the atomics; never held over I/O, parsing or a call of the user's

 private:
  enum class progress { done, must_wait };
  enum class settling { failed, answered, answered_late, pinned, restored };

  result<std::shared_ptr<entry>> find(const request& asked, steady_point now, bool create, effects& fx);
  result<void> make_room(effects& fx);
  [[nodiscard]] std::size_t looked_up_urls() const noexcept;
  [[nodiscard]] bool background_runs() const noexcept;
  progress step(const request& asked, entry& on, steady_point now, outcome& out, waiter* who, effects& fx);
  progress serve(const request& asked, entry& on, steady_point now, outcome& out, waiter* who, effects& fx);
  progress ask_for_kid(const request& asked, entry& on, steady_point now, outcome& out, waiter* who, effects& fx);
  [[nodiscard]] bool go_on(flight& what, steady_point now, metadata&& brought, verdict& failure, effects& fx);
  static void aim(flight& what, entry& on, discovery_policy::step next, steady_point now);
  void begin_flight(const std::shared_ptr<entry>& on, steady_point now, bool foreground, effects& fx);
  void publish(entry& on, std::chrono::system_clock::time_point fetched_at_system,
               std::shared_ptr<const document_content> content, effects& fx);
  void load(entry& on, verdict&& saved, std::chrono::system_clock::time_point fetched_at_system, effects& fx);
  void settle(entry& on, steady_point now, settling why, effects& fx);
  [[nodiscard]] verdict judge_given(const parsed_url& url, fetch_response given,
                                    std::chrono::system_clock::time_point system_now);
  result<bool> import_document(const saved_document& saved);
  void enqueue(const std::shared_ptr<waiter>& who, const std::shared_ptr<entry>& on, steady_point deadline,
               effects& fx);
  void drop(const std::shared_ptr<entry>& on, effects& fx);
  void configure(entry& on, std::shared_ptr<const jwks_config> config, effects& fx);
  std::shared_ptr<entry> settle_in(const parsed_url& url, const std::shared_ptr<const jwks_config>& config,
                                   steady_point first, effects& fx);
  result<bool> try_start(std::shared_ptr<const jwks_config> config,
                         waiter& who);  // true: who may wait for the prefetch
  void tell(const entry& on, jwks_event&& event, std::shared_ptr<const document_content> before,
            std::shared_ptr<const document_content> after, effects& fx);
  bool look_once_more(waiter& who, entry& on, steady_point now, effects& fx);
  void wait_over(waiter& who, entry& on, effects& fx);
  result<void> ensure_open();

  struct alignas(64) counter {
    std::atomic<std::uint64_t> count{0};
  };

  const std::uint64_t id_;
  const std::uint64_t epoch_;
  std::atomic<life> state_{life::idle};
  std::array<counter, 16> hits_;
  std::mutex life_mutex_;  // start, add, ensure_open and begin_shutdown one after the other; taken before mutex_
  std::shared_ptr<const jwks_config> config_;
  std::shared_ptr<entry> configured_;
  std::map<std::string, std::shared_ptr<entry>, std::less<>> entries_;
  std::uint64_t generation_ = 0;
  jwks_stats stats_;
  std::shared_ptr<engine> self_;
};

// A reference to a predicate, so that the threads below need no template.
class ready_ref {
 public:
  template <class Ready>
    requires(!std::same_as<std::remove_cvref_t<Ready>, ready_ref>)
  ready_ref(const Ready& ready)
  noexcept
      : target_(std::addressof(ready)),
        call_([](const void* target) -> bool { return (*static_cast<const Ready*>(target))(); }) {}
  bool operator()() const { return call_(target_); }

 private:
  const void* target_;
  bool (*call_)(const void*);
};

// The user's fetcher and clock. Nothing they throw gets past it.
class blocking_io {
 public:
  blocking_io() = default;
  virtual ~blocking_io() = default;
  blocking_io(const blocking_io&) = delete;
  blocking_io& operator=(const blocking_io&) = delete;
  [[nodiscard]] virtual bool now(steady_point& out) noexcept = 0;
  [[nodiscard]] virtual bool now(std::chrono::system_clock::time_point& out) noexcept = 0;
  [[nodiscard]] virtual result<fetch_response> fetch(const fetch_request& request, const stop_token& stop) noexcept = 0;
  [[nodiscard]] virtual result<void> check() noexcept = 0;
  // False: the clock failed.
  [[nodiscard]] virtual bool wait(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv,
                                  const stop_token& stop, steady_point deadline, ready_ref ready) noexcept = 0;
};

template <class Clock, class Point>
[[nodiscard]] bool guarded_now(Clock& clock, Point& out) noexcept {
  AXIOMS_JWKS_TRY {
    if constexpr (std::same_as<Point, steady_point>) {
      out = clock.now();
    } else {
      out = clock.system_now();
    }
    return true;
  }
  AXIOMS_JWKS_CATCH_ALL { return false; }
}

// Of a fetcher that can tell beforehand that no fetch of its will succeed.
template <class Fetcher>
[[nodiscard]] result<void> guarded_check(Fetcher& fetch) noexcept {
  AXIOMS_JWKS_TRY {
    if constexpr (requires {
                    { fetch.check() } -> std::same_as<result<void>>;
                  })
      return fetch.check();
    return {};
  }
  AXIOMS_JWKS_CATCH_ALL { return error{errc::fetch_failed, "the fetcher threw an exception", 0}; }
}

template <fetcher Fetcher, clock_source Clock>
class io_of final : public blocking_io {
 public:
  io_of(Fetcher&& fetch, Clock&& time) : fetcher_(std::move(fetch)), clock_(std::move(time)) {}
  bool now(steady_point& out) noexcept override { return guarded_now(clock_, out); }
  bool now(std::chrono::system_clock::time_point& out) noexcept override { return guarded_now(clock_, out); }
  result<fetch_response> fetch(const fetch_request& request, const stop_token& stop) noexcept override {
    AXIOMS_JWKS_TRY { return fetcher_(request, stop); }
    AXIOMS_JWKS_CATCH_ALL { return error{errc::fetch_failed, "the fetcher threw an exception", 0}; }
  }
  result<void> check() noexcept override { return guarded_check(fetcher_); }
  bool wait(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, const stop_token& stop,
            steady_point deadline, ready_ref ready) noexcept override {
    AXIOMS_JWKS_TRY {
      static_cast<void>(clock_.wait_until(lock, cv, stop, deadline, ready));
      return true;
    }
    AXIOMS_JWKS_CATCH_ALL {
      if (!lock.owns_lock()) lock.lock();
      return false;
    }
  }

 private:
  Fetcher fetcher_;
  Clock clock_;
};

struct crew;

// Drives the engine with one scheduler thread, fetch threads on demand, and a listener thread if somebody listens.
class thread_engine final : public engine {
 public:
  explicit thread_engine(std::shared_ptr<blocking_io> io) noexcept;
  ~thread_engine() override;

  // Submits and blocks until the answer, the stop, or an end by the manager's clock.
  [[nodiscard]] outcome ask(const request& asked, const stop_token& stop);
  [[nodiscard]] outcome start_and_wait(jwks_config config, const stop_token& stop);
  // Waits until the threads of all past lives have ended; returns at once on one of them.
  void join() noexcept;
  void close() noexcept;

  [[nodiscard]] bool read_clock(steady_point& now) noexcept override { return io_->now(now); }
  [[nodiscard]] bool read_clock(std::chrono::system_clock::time_point& now) noexcept override { return io_->now(now); }
  [[nodiscard]] result<void> check_fetcher() noexcept override { return io_->check(); }

 private:
  result<void> open(bool with_listener) override;
  void retire(effects& fx, std::vector<std::shared_ptr<waiter>> last, const std::shared_ptr<waiter>& who) override;
  void wind_down() noexcept override;
  void launch(const std::shared_ptr<flight>& what) override;
  void wake() noexcept override;
  std::size_t busy() const noexcept override;
  bool defer(const std::shared_ptr<waiter>& who) override;
  bool queue_event(event_record&& record) override;
  void deliver_events() noexcept override;

  void reap();
  void schedule(crew& mine, const stop_token& stop);
  void end_of_life(crew& mine) noexcept;
  void work(crew& mine) noexcept;
  void listen(crew& mine) noexcept;
  void spawn_worker(crew& mine);
  outcome wait_for(const std::shared_ptr<waiter>& who, std::condition_variable_any& cv, const stop_token& stop);

  std::shared_ptr<blocking_io> io_;
  std::shared_ptr<crew> crew_;                  // of the present life
  std::vector<std::shared_ptr<crew>> retired_;  // of past lives, until joined
};

// Holds the engine that is in use. A forked child gets a new one: the old one's locks may be held by threads that do
// not exist here, so it is left as it is and never touched again.
template <class Engine>
class engine_holder {
 public:
  template <class Make>
  explicit engine_holder(Make make) : make_(std::move(make)) {
    watch_forks();
    std::shared_ptr<Engine> first = make_();
    current_.store(first.get(), std::memory_order_release);
    first->own_itself(first);
  }
  engine_holder(const engine_holder&) = delete;
  engine_holder& operator=(const engine_holder&) = delete;
  ~engine_holder() {
    Engine* last = current_.load(std::memory_order_acquire);
    if (last->forked()) return;
    last->close();
    last->own_itself(nullptr);
  }

  [[nodiscard]] Engine& get() {
    Engine* now = current_.load(std::memory_order_acquire);
    return now->forked() ? renewed(now) : *now;
  }

 private:
  Engine& renewed(Engine* old) {
    std::shared_ptr<Engine> fresh = make_();
    fresh->start_down();
    if (!current_.compare_exchange_strong(old, fresh.get(), std::memory_order_acq_rel))
      return *old;  // another thread was faster
    fresh->own_itself(fresh);
    return *fresh;
  }

  std::function<std::shared_ptr<Engine>()> make_;
  std::atomic<Engine*> current_{nullptr};
};

// A document that this thread may serve without the engine's slow path, and where the hit is counted.
struct warm_document {
  const jwks_ptr* document = nullptr;
  std::size_t shard = 0;
};
template <class Engine>
[[nodiscard]] AXIOMS_JWKS_HOT inline warm_document warm_hit(Engine& core, std::string_view url) noexcept {
  steady_point now{};
  hit_cache* const cache = this_thread_hits;
  if (cache == nullptr || !core.read_clock(now)) return {};
  const hit_slot* slot = find_hit(*cache, core.id(), url, now);
  return slot != nullptr ? warm_document{&slot->document, cache->shard} : warm_document{};
}

}  // namespace detail

/// Keeps the key sets of identity providers for threads that may block.
///
/// initialize() fetches the configured URL and keeps it fresh in the background; get_jwks() and get_key() answer from
/// memory. A lookup without initialize() works too: it fetches on demand, with the default configuration, and from
/// then on that URL is refreshed in the background as well. Fetches run on the manager's threads, one at a time per
/// URL, never on the caller's.
///
/// Fetcher and Clock are held by value. For your own HTTP client write a type that models `fetcher`; if the compiler
/// says "constraints not satisfied", its call operator is not `result<fetch_response> (const fetch_request&,
/// stop_token)`.
///
/// Threads:  every member is callable from any number of threads at once.
/// Blocks:   only where a member says so.
/// Lifetime: documents and keys outlive the manager. The destructor calls shutdown(). After fork() the child's manager
///           is down, without threads; initialize() starts it afresh there.
template <fetcher Fetcher AXIOMS_JWKS_DEFAULT_FETCHER, clock_source Clock = steady_clock>
class basic_jwks_manager {
 public:
  explicit basic_jwks_manager(Fetcher fetch = Fetcher(), Clock time = Clock())
      : io_(std::make_shared<detail::io_of<Fetcher, Clock>>(std::move(fetch), std::move(time))),
        engine_([io = io_] { return std::make_shared<detail::thread_engine>(io); }) {}
  basic_jwks_manager(const basic_jwks_manager&) = delete;
  basic_jwks_manager& operator=(const basic_jwks_manager&) = delete;
  ~basic_jwks_manager() = default;

  /// Starts the manager: checks @p config, fetches its URL (unless `prefetch` is false), then refreshes it in the
  /// background.
  ///
  /// A failed prefetch is success; on_event and health() tell it. While the manager runs it succeeds and changes
  /// nothing. Documents that were looked up before stay cached.
  ///
  /// Blocks: for the prefetch, at most `fetch_timeout`.
  /// Errors: invalid_config, invalid_url, unsupported_scheme: nothing was started. no_resources: no thread could be
  ///         started. cancelled: @p stop ended the wait for the prefetch (the manager runs, unless the stop was asked
  ///         before the call). shut_down: shutdown() was called meanwhile.
  result<void> initialize(jwks_config config, stop_token stop = {}) {
    return to_void(engine_.get().start_and_wait(std::move(config), stop));
  }

  /// Stops everything: waiting callers get `shut_down`, fetches in flight are stopped, threads joined, documents
  /// dropped.
  ///
  /// Idempotent. Afterwards lookups give `shut_down` until initialize().
  ///
  /// Blocks: until the threads have ended, within 100 ms if the fetcher returns within 50 ms of a stop.
  void shutdown() noexcept {
    detail::thread_engine& core = engine_.get();
    core.begin_shutdown();
    core.join();
  }

  /// True between a successful initialize() and shutdown().
  [[nodiscard]] bool running() const noexcept { return engine_.get().running(); }

  /// Adds one more URL, with a policy of its own; with `prefetch` its first fetch starts at once, in the background.
  ///
  /// A URL that is configured already takes the new policy and keeps its document. Options marked "of initialize()
  /// only" are ignored; without an `on_event` of its own its events go to that of initialize().
  ///
  /// Errors: as initialize(), and shut_down.
  result<void> add(jwks_config config) { return engine_.get().add(std::move(config)); }

  /// Puts a key set of the application's own in place at @p url: @p json is served like a fetched one, never ages and is
  /// never fetched.
  ///
  /// Called again, it replaces the set. It stays until shutdown(), also when initialize() or add() name that URL (but with
  /// `require_https` no lookup of an http URL is answered);
  /// refresh() succeeds without a fetch, and an unknown kid is `key_not_found` at once. Not an answer in the air, nor
  /// import_cache(), replaces it. Legal before initialize(), but for secp256k1 keys: the configuration in force must
  /// `allow_es256k`.
  ///
  /// Blocks: never. Errors: invalid_url, unsupported_scheme, shut_down, not_a_key_set, no_usable_key, response_too_large
  ///         (over 16 MiB); the old set stays.
  result<void> add_static(std::string_view url, std::string_view json) { return engine_.get().add_static(url, json); }

  /// The fetched documents as text for import_cache(), so that a restart during an outage still has keys.
  ///
  /// Holds what the providers published, their validators, and when that was by the wall clock; no static sources. After
  /// shutdown() it is empty. Who can change the text chooses your keys: store it like a CA file.
  ///
  /// Blocks: never; fit for `on_event`.
  [[nodiscard]] std::string export_cache() const { return engine_.get().export_cache(); }

  /// Takes the documents of an export_cache() of an earlier process. Legal before initialize(), where it belongs.
  ///
  /// Each keeps its age by the wall clock, is served within `cache_ttl` + `outage_window` like any other, and is refreshed as
  /// soon as the manager runs (without `prefetch`: one `refresh_interval` later). Documents from the future (by more than a
  /// minute) or older than 10 years are refused, and so is what is no key set. A URL that has a document to serve keeps it.
  ///
  /// Returns: how many documents were taken.
  /// Blocks:  never.
  /// Errors:  not_a_key_set (no such text), shut_down; if no document could be taken, the reason why the first one was
  ///          refused.
  result<std::size_t> import_cache(std::string_view text) { return engine_.get().import_cache(text); }

  /// Returns the key set published at @p url, from the cache when it is younger than `cache_ttl`.
  ///
  /// A miss makes the caller wait for one fetch; callers that miss together share it. Past `cache_ttl`, within
  /// `outage_window`, one caller waits for the renewal and everybody else gets the stale document at once.
  ///
  /// Blocks:   only on a miss, at most `fetch_timeout`; ends at once when @p stop or shutdown() asks.
  /// Errors:   invalid_url, unsupported_scheme, cancelled, shut_down, no_resources, throttled, timed_out, and every
  ///           error of a fetch.
  /// Lifetime: the document lives as long as the returned pointer, also after it has been replaced.
  [[nodiscard]] result<jwks_ptr> get_jwks(std::string_view url, stop_token stop = {}) const {
    detail::thread_engine& core = engine_.get();
    if (!url.empty()) {  // which stands for the configured URL in there
      if (const auto hit = detail::warm_hit(core, url); hit.document != nullptr)
        return core.count_hit(hit.shard), *hit.document;
    }
    return to_document(core.ask({.url = url}, stop));
  }
  /// The same for the URL of initialize(). Errors: also invalid_config, if there is none.
  [[nodiscard]] result<jwks_ptr> get_jwks(stop_token stop = {}) const {
    detail::thread_engine& core = engine_.get();
    if (const auto hit = detail::warm_hit(core, {}); hit.document != nullptr)
      return core.count_hit(hit.shard), *hit.document;
    return to_document(core.ask({}, stop));
  }

  /// Returns the one key of the set at @p url that fits @p query.
  ///
  /// A kid that the set lacks is fetched again once, within the budget of `unknown_kid_burst`; a known kid never is. With a
  /// `withdrawn_key_grace`, a key that left the set is still given for that long.
  ///
  /// Blocks: as get_jwks(), and for an unknown kid at most `unknown_kid_wait`.
  /// Errors: as get_jwks(), and unsupported_algorithm, key_not_found, key_ambiguous, throttled (the budget is used up).
  [[nodiscard]] result<key_ptr> get_key(std::string_view url, const key_query& query, stop_token stop = {}) const {
    detail::thread_engine& core = engine_.get();
    if (auto key = url.empty() ? std::nullopt : warm_key(core, url, query)) return *std::move(key);
    return to_key(core.ask({.what = detail::verb::key, .url = url, .query = query}, stop));
  }
  /// The same for the URL of initialize().
  [[nodiscard]] result<key_ptr> get_key(const key_query& query, stop_token stop = {}) const {
    detail::thread_engine& core = engine_.get();
    if (auto key = warm_key(core, {}, query)) return *std::move(key);
    return to_key(core.ask({.what = detail::verb::key, .query = query}, stop));
  }

  /// For a caller whose key of a known @p kid did not verify a signature: a provider may have put new material under an old
  /// kid. Fetches the set again, within the budget for unknown kids, unless that was done less than 30 s ago.
  ///
  /// Returns: true if that kid has another key now than 30 s ago: look it up and verify again.
  /// Blocks:  as get_key() for an unknown kid. Errors: as get_jwks(), and throttled (the budget is used up).
  [[nodiscard]] result<bool> refresh_after_bad_signature(std::string_view url, std::string_view kid,
                                                         stop_token stop = {}) {
    return to_changed(
        engine_.get().ask({.what = detail::verb::bad_signature, .url = url, .query = {.kid = kid}}, stop));
  }
  /// The same for the URL of initialize().
  [[nodiscard]] result<bool> refresh_after_bad_signature(std::string_view kid, stop_token stop = {}) {
    return to_changed(engine_.get().ask({.what = detail::verb::bad_signature, .query = {.kid = kid}}, stop));
  }

  /// What is cached and may be served now, fresh or stale; none if there is nothing. Blocks: never.
  [[nodiscard]] std::optional<jwks_ptr> peek(std::string_view url) const { return engine_.get().peek({.url = url}); }
  [[nodiscard]] std::optional<jwks_ptr> peek() const { return engine_.get().peek({}); }

  /// Fetches now, whatever the age of the document and the backoff, joining a fetch in progress.
  ///
  /// Blocks: until that fetch is over, at most `fetch_timeout`. Errors: as get_jwks(); the old document stays.
  result<void> refresh(std::string_view url, stop_token stop = {}) {
    return to_void(engine_.get().ask({.what = detail::verb::refresh, .url = url}, stop));
  }
  result<void> refresh(stop_token stop = {}) {
    return to_void(engine_.get().ask({.what = detail::verb::refresh}, stop));
  }

  /// Waits until the configured URL has a document that would be served; false if it has none when @p limit is over, and
  /// at once if there is no configured URL.
  ///
  /// Blocks: at most @p limit, by the manager's clock; ends at once on shutdown().
  [[nodiscard]] bool wait_ready(std::chrono::milliseconds limit) const {
    return !engine_.get().ask({.what = detail::verb::ready, .limit = limit}, {}).failure;
  }

  /// The state of @p url, of the configured one if it is empty. Never waits for a fetch.
  [[nodiscard]] jwks_health health(std::string_view url = {}) const { return engine_.get().health(url); }
  /// Counters of all URLs since the manager was made. Never waits for a fetch.
  [[nodiscard]] jwks_stats stats() const { return engine_.get().stats(); }

 private:
  // What select() refuses may be worth a refetch, so it is the slow path's.
  static std::optional<key_ptr> warm_key(detail::thread_engine& core, std::string_view url, const key_query& query) {
    const auto hit = detail::warm_hit(core, url);
    if (hit.document == nullptr) return std::nullopt;
    auto key = (*hit.document)->keys().select(query);
    if (!key) return std::nullopt;
    core.count_hit(hit.shard);
    return *std::move(key);
  }
  static result<void> to_void(detail::outcome&& out) {
    return out.failure ? result<void>(*std::move(out.failure)) : result<void>();
  }
  static result<bool> to_changed(detail::outcome&& out) {
    return out.failure ? result<bool>(*std::move(out.failure)) : result<bool>(out.changed);
  }
  static result<jwks_ptr> to_document(detail::outcome&& out) {
    return out.failure ? result<jwks_ptr>(*std::move(out.failure)) : result<jwks_ptr>(std::move(out.document));
  }
  static result<key_ptr> to_key(detail::outcome&& out) {
    return out.failure ? result<key_ptr>(*std::move(out.failure)) : result<key_ptr>(std::move(out.key));
  }

  friend struct detail::token_access;

  std::shared_ptr<detail::blocking_io> io_;
  mutable detail::engine_holder<detail::thread_engine> engine_;
};

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
using jwks_manager = basic_jwks_manager<>;
#endif

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- async manager ------------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

/// A reference to a stop_token: what cancels a wait. Empty: nothing does.
///
/// Not a token itself, for async_options must have no destructor to run: g++ 12 copies an aggregate that is written in
/// braces inside a co_await expression byte by byte, and then destroys both copies.
///
/// Lifetime: the token must live until the verb that is given it has returned, which every temporary in its call does.
class stop_ref {
 public:
  constexpr stop_ref() noexcept = default;
  constexpr stop_ref(const stop_token& token AXIOMS_JWKS_LIFETIMEBOUND) noexcept : token_(&token) {}
  constexpr stop_ref& operator=(const stop_token& token) noexcept {
    token_ = &token;
    return *this;
  }
  stop_ref& operator=(stop_token&&) = delete;  // it would be gone at the end of the statement

  [[nodiscard]] stop_token get() const noexcept { return token_ != nullptr ? *token_ : stop_token(); }

 private:
  const stop_token* token_ = nullptr;
};

/// Per call: where the continuation runs, and what cancels the wait.
struct async_options {
  executor_ref executor{};  ///< empty: the manager's default, see set_executor()
  stop_ref stop{};          ///< ends this wait alone, with `cancelled`
};
static_assert(std::is_trivially_destructible_v<async_options>);

/// What the callback forms take last: a stop_token, or async_options, in braces too.
template <class How>
concept async_how = std::same_as<How, async_options> || std::convertible_to<const How&, stop_token>;

namespace detail {

template <class How>
[[nodiscard]] std::pair<executor_ref, stop_token> taken_apart(const How& how) noexcept {
  if constexpr (std::same_as<How, async_options>) {
    return {how.executor, how.stop.get()};
  } else {
    return {executor_ref(), how};
  }
}

// Turns what a request ended with into what its verb returns.
template <class T>
[[nodiscard]] T convert(outcome&& out) {
  if constexpr (std::same_as<T, bool>) {
    return !out.failure;
  } else if constexpr (!std::is_void_v<T>) {
    if (out.failure) return T(*std::move(out.failure));
    if constexpr (std::same_as<T, result<jwks_ptr>>) return T(std::move(out.document));
    if constexpr (std::same_as<T, result<key_ptr>>) return T(std::move(out.key));
    if constexpr (std::same_as<T, result<bool>>) return T(out.changed);
    if constexpr (std::same_as<T, result<void>>) return T();
  }
}

// A waiter that goes on somewhere: on its executor, or where it is finished.
class async_waiter : public waiter {
 public:
  async_waiter(const request& asked, executor_ref where) : waiter(asked), executor_(where) {}
  [[nodiscard]] bool wants_manager_thread() const noexcept override { return !executor_; }
  void done() noexcept override {
    if (!arrive()) return;
    if (!executor_) return resume();
    self_ = shared_from_this();
    executor_.post({[](void* posted) noexcept {
                      auto* who = static_cast<async_waiter*>(posted);
                      const auto keep = std::move(who->self_);
                      who->resume();
                    },
                    this});
  }

 protected:
  virtual bool arrive() noexcept { return true; }
  virtual void resume() noexcept = 0;

 private:
  executor_ref executor_;
  std::shared_ptr<waiter> self_;  // while it is posted
};

struct canceller {
  std::shared_ptr<engine> core;
  std::weak_ptr<waiter> who;
  void operator()() const noexcept {
    const auto keep = core;  // who goes on in there may destroy this callback, and the manager
    if (const auto still = who.lock()) keep->cancel(still);
  }
};

// A coroutine that waits. It is resumed at most once, and never inside its own await_suspend(): a fetcher or a stop
// that completes at once would otherwise destroy the awaiter while it is still being set up.
class coroutine_waiter final : public async_waiter {
 public:
  coroutine_waiter(const request& asked, executor_ref where, std::coroutine_handle<> frame)
      : async_waiter(asked, where), frame_(frame) {}

  // Of await_suspend(): true if the frame is suspended now; it may be gone already, then.
  [[nodiscard]] bool suspend() noexcept { return move(phase::starting, phase::suspended); }
  // Of the awaiter's destructor: true if nobody will resume the frame.
  [[nodiscard]] bool abandon() noexcept { return move(phase::suspended, phase::over); }

 protected:
  bool arrive() noexcept override { return !move(phase::starting, phase::early); }
  void resume() noexcept override {
    if (move(phase::suspended, phase::over)) frame_.resume();
  }

 private:
  enum class phase { starting, early, suspended, over };
  bool move(phase from, phase to) noexcept {
    return phase_.compare_exchange_strong(from, to, std::memory_order_acq_rel);
  }
  std::atomic<phase> phase_{phase::starting};
  std::coroutine_handle<> frame_;
};

template <class T, class Callback>
class callback_waiter final : public async_waiter {
 public:
  callback_waiter(const request& asked, executor_ref where, Callback&& callback)
      : async_waiter(asked, where), callback_(std::move(callback)) {}
  void arm(const stop_token& stop, std::shared_ptr<engine> core) {
    if (stop.stop_possible()) on_stop_.emplace(stop, canceller{std::move(core), weak_from_this()});
  }

 private:
  void resume() noexcept override {
    on_stop_.reset();
    // What it holds goes here and now, not on whichever thread lets go of the waiter last.
    Callback mine(std::move(callback_));
    if constexpr (std::is_void_v<T>) {
      mine();
    } else {
      mine(convert<T>(std::move(out)));
    }
  }
  Callback callback_;
  std::optional<stop_callback<canceller>> on_stop_;
};

// What the awaitables need of their manager, so that they are no templates over its fetcher and clock.
class async_shell {
 public:
  async_shell() = default;
  virtual ~async_shell() = default;
  async_shell(const async_shell&) = delete;
  async_shell& operator=(const async_shell&) = delete;
  [[nodiscard]] virtual std::shared_ptr<engine> core() const = 0;
  [[nodiscard]] virtual engine& hot_core() const = 0;
  executor_ref default_executor;
};

[[nodiscard]] inline bool answer_warm(engine& core, const request& asked, outcome& out) {
  if ((asked.what != verb::lookup && asked.what != verb::key) || (asked.url && asked.url->empty())) return false;
  const auto hit = warm_hit(core, asked.url.value_or(std::string_view()));
  if (hit.document == nullptr) return false;
  if (asked.what == verb::key) {
    auto key = (*hit.document)->keys().select(asked.query);
    if (!key) return false;
    out.key = *std::move(key);
  }
  out.document = *hit.document;
  core.count_hit(hit.shard);
  return true;
}

inline void begin(engine& core, const std::shared_ptr<waiter>& who, std::optional<jwks_config>&& config) {
  if (who->what == verb::initialize) {
    core.start(*std::move(config), who);
  } else if (who->what == verb::shutdown) {
    core.begin_shutdown(who);
  } else {
    core.submit(who);
  }
}

}  // namespace detail

/// What the verbs of an async manager return: lazy, movable, to be awaited once, by any coroutine.
///
/// Lifetime: the manager, and the url and key_query that the verb was given, must live until the `co_await` has
///           suspended.
template <class T>
class [[nodiscard]] async_operation {
 public:
  class awaiter {
   public:
    explicit awaiter(async_operation&& what) noexcept : what_(std::move(what)) {}
    awaiter(const awaiter&) = delete;
    awaiter& operator=(const awaiter&) = delete;
    ~awaiter() {
      stop_.reset();
      if (who_ && who_->abandon()) core_->abandon(who_);
    }

    [[nodiscard]] bool await_ready() {
      detail::engine& core = what_.shell_->hot_core();
      ready_.emplace();
      if (detail::answer_warm(core, what_.asked_, *ready_)) return true;
      ready_.reset();
      if (what_.asked_.what == detail::verb::initialize || what_.asked_.what == detail::verb::shutdown) return false;
      ready_ = core.answer_now(what_.asked_);
      return ready_.has_value();
    }
    [[nodiscard]] AXIOMS_JWKS_SUSPENDS bool await_suspend(std::coroutine_handle<> frame) {
      core_ = what_.shell_->core();
      const executor_ref where = what_.executor_ ? what_.executor_ : what_.shell_->default_executor;
      const auto who = std::make_shared<detail::coroutine_waiter>(what_.asked_, where, frame);
      who_ = who;
      if (what_.token_.stop_possible()) stop_.emplace(what_.token_, detail::canceller{core_, who});
      const auto core =
          core_;  // from here on the frame may be resumed elsewhere, and *this be gone with it, when suspend() says so
      detail::begin(*core, who, std::move(what_.config_));
      return who->suspend();
    }
    T await_resume() {
      stop_.reset();
      return detail::convert<T>(std::move(ready_ ? *ready_ : who_->out));
    }

   private:
    async_operation what_;
    std::optional<detail::outcome> ready_;
    std::shared_ptr<detail::engine> core_;
    std::shared_ptr<detail::coroutine_waiter> who_;
    std::optional<stop_callback<detail::canceller>> stop_;
  };

  async_operation(const detail::async_shell& shell, const detail::request& asked, async_options options,
                  std::optional<jwks_config> config = std::nullopt)
      : shell_(&shell),
        asked_(asked),
        executor_(options.executor),
        token_(options.stop.get()),
        config_(std::move(config)) {}
  async_operation(async_operation&&) noexcept = default;
  async_operation& operator=(async_operation&&) noexcept = default;
  async_operation(const async_operation&) = delete;
  async_operation& operator=(const async_operation&) = delete;

  // Not only for rvalues: some coroutine libraries await a named object.
  awaiter operator co_await() noexcept { return awaiter(std::move(*this)); }

 private:
  const detail::async_shell* shell_;
  detail::request asked_;
  executor_ref executor_;
  stop_token token_;
  std::optional<jwks_config> config_;
};

namespace detail {

// Drives the engine on an event loop: no thread of ours, and nothing ever waits.
template <async_fetcher Fetcher, timer_source Timer>
class loop_engine final : public engine {
 public:
  struct io {
    io(Fetcher&& fetch, Timer&& time) : fetcher(std::move(fetch)), timer(std::move(time)) {}
    Fetcher fetcher;
    Timer timer;
  };
  explicit loop_engine(std::shared_ptr<io> loop) noexcept : io_(std::move(loop)) {}

  void join() noexcept {}
  void close() noexcept { begin_shutdown(); }
  bool read_clock(steady_point& now) noexcept override { return guarded_now(io_->timer, now); }
  bool read_clock(std::chrono::system_clock::time_point& now) noexcept override { return guarded_now(io_->timer, now); }
  result<void> check_fetcher() noexcept override { return guarded_check(io_->fetcher); }

 private:
  using handle = decltype(std::declval<Timer&>().call_at(steady_point{}, std::function<void()>()));

  // What the fetcher is given. It holds the engine weakly: the answer may come when the manager is gone.
  struct landing {
    std::weak_ptr<engine> core;
    std::shared_ptr<flight> what;
    landing(std::weak_ptr<engine> whose, std::shared_ptr<flight> which)
        : core(std::move(whose)), what(std::move(which)) {}
    landing(landing&&) noexcept = default;
    landing& operator=(landing&&) noexcept = default;
    void operator()(result<fetch_response> response) {
      const auto still = core.lock();
      if (!still) return;
      auto& self = static_cast<loop_engine&>(*still);
      if (self.arrive(what, std::move(response))) self.launch(what);
    }
  };

  result<void> open(bool) override { return {}; }
  void retire(effects& fx, std::vector<std::shared_ptr<waiter>> last, const std::shared_ptr<waiter>& who) override {
    finish_all(fx, std::move(last), who);
  }
  void wind_down() noexcept override { wake(); }  // nothing is due any more: takes the timer back
  void launch(const std::shared_ptr<flight>& what) override {
    landing callback(weak_from_this(), what);
    AXIOMS_JWKS_TRY { io_->fetcher.async_fetch(what->request, what->stop.get_token(), std::move(callback)); }
    AXIOMS_JWKS_CATCH_ALL {
      verdict none;
      none.why = {errc::fetch_failed, "the fetcher threw an exception", 0};
      land(what, std::move(none));
    }
  }
  // One thread at a time sets the timer; whoever comes meanwhile makes it look again.
  void wake() noexcept override {
    {
      const std::lock_guard lock(mutex_);
      again_ = true;
      if (arming_) return;
      arming_ = true;
    }
    for (;;) {
      steady_point when{};
      {
        const std::lock_guard lock(mutex_);
        if (!again_) {
          arming_ = false;
          return;
        }
        again_ = false;
        when = next_wake();
      }
      AXIOMS_JWKS_TRY {
        if (timer_) timer_->cancel();
        timer_.reset();
        if (when == steady_point::max()) continue;
        timer_.emplace(io_->timer.call_at(when, std::function<void()>([core = weak_from_this()] {
                                            if (const auto still = core.lock()) {
                                              static_cast<loop_engine&>(*still).on_timer();
                                            }
                                          })));
      }
      AXIOMS_JWKS_CATCH_ALL {}  // the next lookup or landing arms it again
    }
  }
  void on_timer() {
    if (tick_now()) wake();  // with a clock that throws it would come back at once, for ever
  }
  std::size_t busy() const noexcept override { return flights_in_the_air(); }
  bool defer(const std::shared_ptr<waiter>&) override { return false; }
  bool queue_event(event_record&& record) override {
    if (events_.size() >= 256) return false;
    events_.push_back(std::move(record));
    return true;
  }
  // On the thread that caused them, in order: a listener that causes another is not entered again.
  void deliver_events() noexcept override {
    std::unique_lock lock(mutex_);
    if (delivering_) return;
    delivering_ = true;
    while (!events_.empty()) {
      std::optional<event_record> record(std::move(events_.front()));
      events_.pop_front();
      lock.unlock();
      deliver(*record);
      record.reset();  // without the mutex: it may hold the last reference to its listener
      lock.lock();
    }
    delivering_ = false;
  }

  std::shared_ptr<io> io_;
  std::optional<handle> timer_;  // of the thread that is arming
  bool arming_ = false, again_ = false, delivering_ = false;
  std::deque<event_record> events_;
};

// Which engine a pair of policies gets. A loop is preferred: who brings a timer_source wants no threads.
template <class Fetcher, class Clock>
struct async_driver {
  static constexpr bool on_loop = async_fetcher<Fetcher> && timer_source<Clock>;
  static auto make_io(Fetcher&& fetch, Clock&& time) {
    if constexpr (on_loop) {
      return std::make_shared<typename loop_engine<Fetcher, Clock>::io>(std::move(fetch), std::move(time));
    } else {
      return std::shared_ptr<blocking_io>(std::make_shared<io_of<Fetcher, Clock>>(std::move(fetch), std::move(time)));
    }
  }
  template <class Io>
  static auto make_engine(std::shared_ptr<Io> io) {
    if constexpr (on_loop) {
      return std::make_shared<loop_engine<Fetcher, Clock>>(std::move(io));
    } else {
      return std::make_shared<thread_engine>(std::move(io));
    }
  }
  using io_ptr = decltype(make_io(std::declval<Fetcher>(), std::declval<Clock>()));
  using engine_type = typename decltype(make_engine(std::declval<io_ptr>()))::element_type;
};

struct process_wide;

}  // namespace detail

/// Keeps the key sets of identity providers for event loops and coroutines: what basic_jwks_manager does, without
/// blocking anybody.
///
/// Every verb comes twice: as an awaitable (`co_await m.get_jwks(url, {.executor = e, .stop = t})`) and with a callback
/// (`m.async_get_jwks(url, callback, {.executor = e, .stop = t})`, or a stop_token alone for the last). With a blocking
/// fetcher it runs fetches on threads of its own; with an async_fetcher and a timer_source it lives on their event loop
/// alone and starts no thread. A hit neither suspends nor allocates, but for the post of a callback that has an executor.
///
/// Continuations run on the executor of the call, else on the manager's, see set_executor(). Without one they run
/// inline when the answer is ready, else on a manager thread (with an event loop: on the thread that has the answer);
/// there every verb is legal. A caller that is cancelled completes once, with `cancelled`; one whose frame is
/// destroyed while it waits is never resumed. Callbacks, and the `post` of an executor, must not throw.
///
/// Threads:  every member is callable from any number of threads at once.
/// Blocks:   never, but for the destructor, which returns when every waiter without executor has completed. A
///           destructor that runs on a manager thread does not wait; nor does one with an event loop: destroy that
///           manager on the loop's thread.
/// Lifetime: documents and keys outlive the manager. An executor must outlive the manager, or the call that it was given
///           to and its post() (see executor_ref); an awaitable that has not been awaited must not outlive the manager.
template <class Fetcher AXIOMS_JWKS_DEFAULT_FETCHER, class Clock = steady_clock>
  requires((fetcher<Fetcher> && clock_source<Clock>) || (async_fetcher<Fetcher> && timer_source<Clock>))
class basic_async_jwks_manager : private detail::async_shell {
  using driver = detail::async_driver<Fetcher, Clock>;

 public:
  explicit basic_async_jwks_manager(Fetcher fetch = Fetcher(), Clock time = Clock())
      : io_(driver::make_io(std::move(fetch), std::move(time))),
        engine_([io = io_] { return driver::make_engine(io); }) {}
  ~basic_async_jwks_manager() override = default;

  /// Where continuations run that no executor was given for. Threads: set it before the first verb.
  void set_executor(executor_ref executor) noexcept { default_executor = executor; }

  /// As basic_jwks_manager::initialize(). Awaits the prefetch.
  ///
  /// Give the configuration a name: `co_await m.initialize({.jwks_url = url})` is miscompiled by g++ 12, which destroys an
  /// aggregate written in braces inside a co_await expression twice.
  [[nodiscard]] async_operation<result<void>> initialize(jwks_config config, async_options options = {}) {
    return {*this, {.what = detail::verb::initialize}, options, std::move(config)};
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<void>>
  void async_initialize(jwks_config config, Callback callback, How how = {}) {
    call<result<void>>({.what = detail::verb::initialize}, std::move(callback), how, std::move(config));
  }

  /// As basic_jwks_manager::shutdown(). Completes when the threads of this life have ended; with
  /// an async_fetcher, when its fetches were told to stop.
  [[nodiscard]] async_operation<void> shutdown(async_options options = {}) {
    options.stop = stop_ref();  // it is not to be cancelled
    return {*this, {.what = detail::verb::shutdown}, options};
  }
  template <class Callback>
    requires std::invocable<Callback&>
  void async_shutdown(Callback callback, async_options options = {}) {
    options.stop = stop_ref();
    call<void>({.what = detail::verb::shutdown}, std::move(callback), options);
  }

  /// True between the start of a successful initialize() and shutdown().
  [[nodiscard]] bool running() const noexcept { return engine_.get().running(); }
  /// As basic_jwks_manager::add(), add_static(), export_cache() and import_cache(). They wait for nothing.
  result<void> add(jwks_config config) { return engine_.get().add(std::move(config)); }
  result<void> add_static(std::string_view url, std::string_view json) { return engine_.get().add_static(url, json); }
  [[nodiscard]] std::string export_cache() const { return engine_.get().export_cache(); }
  result<std::size_t> import_cache(std::string_view text) { return engine_.get().import_cache(text); }

  /// As basic_jwks_manager::get_jwks().
  [[nodiscard]] async_operation<result<jwks_ptr>> get_jwks(std::string_view url, async_options options = {}) const {
    return {*this, {.url = url}, options};
  }
  [[nodiscard]] async_operation<result<jwks_ptr>> get_jwks(async_options options = {}) const {
    return {*this, {}, options};
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<jwks_ptr>>
  void async_get_jwks(std::string_view url, Callback callback, How how = {}) const {
    call<result<jwks_ptr>>({.url = url}, std::move(callback), how);
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<jwks_ptr>>
  void async_get_jwks(Callback callback, How how = {}) const { call<result<jwks_ptr>>({}, std::move(callback), how); }

  /// As basic_jwks_manager::get_key().
  [[nodiscard]] async_operation<result<key_ptr>> get_key(std::string_view url, const key_query& query,
                                                         async_options options = {}) const {
    return {*this, {.what = detail::verb::key, .url = url, .query = query}, options};
  }
  [[nodiscard]] async_operation<result<key_ptr>> get_key(const key_query& query, async_options options = {}) const {
    return {*this, {.what = detail::verb::key, .query = query}, options};
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<key_ptr>>
  void async_get_key(std::string_view url, const key_query& query, Callback callback, How how = {}) const {
    call<result<key_ptr>>({.what = detail::verb::key, .url = url, .query = query}, std::move(callback), how);
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<key_ptr>>
  void async_get_key(const key_query& query, Callback callback, How how = {}) const {
    call<result<key_ptr>>({.what = detail::verb::key, .query = query}, std::move(callback), how);
  }

  /// As basic_jwks_manager::refresh_after_bad_signature().
  [[nodiscard]] async_operation<result<bool>> refresh_after_bad_signature(std::string_view url, std::string_view kid,
                                                                          async_options options = {}) {
    return {*this, {.what = detail::verb::bad_signature, .url = url, .query = {.kid = kid}}, options};
  }
  [[nodiscard]] async_operation<result<bool>> refresh_after_bad_signature(std::string_view kid,
                                                                          async_options options = {}) {
    return {*this, {.what = detail::verb::bad_signature, .query = {.kid = kid}}, options};
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<bool>>
  void async_refresh_after_bad_signature(std::string_view url, std::string_view kid, Callback callback, How how = {}) {
    call<result<bool>>({.what = detail::verb::bad_signature, .url = url, .query = {.kid = kid}}, std::move(callback),
                       how);
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<bool>>
  void async_refresh_after_bad_signature(std::string_view kid, Callback callback, How how = {}) {
    call<result<bool>>({.what = detail::verb::bad_signature, .query = {.kid = kid}}, std::move(callback), how);
  }

  /// As basic_jwks_manager::refresh().
  [[nodiscard]] async_operation<result<void>> refresh(std::string_view url, async_options options = {}) {
    return {*this, {.what = detail::verb::refresh, .url = url}, options};
  }
  [[nodiscard]] async_operation<result<void>> refresh(async_options options = {}) {
    return {*this, {.what = detail::verb::refresh}, options};
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<void>>
  void async_refresh(std::string_view url, Callback callback, How how = {}) {
    call<result<void>>({.what = detail::verb::refresh, .url = url}, std::move(callback), how);
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<void>>
  void async_refresh(Callback callback, How how = {}) {
    call<result<void>>({.what = detail::verb::refresh}, std::move(callback), how);
  }

  /// As basic_jwks_manager::wait_ready().
  [[nodiscard]] async_operation<bool> wait_ready(std::chrono::milliseconds limit, async_options options = {}) const {
    return {*this, {.what = detail::verb::ready, .limit = limit}, options};
  }
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, bool>
  void async_wait_ready(std::chrono::milliseconds limit, Callback callback, How how = {}) const {
    call<bool>({.what = detail::verb::ready, .limit = limit}, std::move(callback), how);
  }

  /// As basic_jwks_manager::peek(), health() and stats().
  [[nodiscard]] std::optional<jwks_ptr> peek(std::string_view url) const { return engine_.get().peek({.url = url}); }
  [[nodiscard]] std::optional<jwks_ptr> peek() const { return engine_.get().peek({}); }
  [[nodiscard]] jwks_health health(std::string_view url = {}) const { return engine_.get().health(url); }
  [[nodiscard]] jwks_stats stats() const { return engine_.get().stats(); }

 private:
  friend struct detail::process_wide;
  friend struct detail::token_access;

  std::shared_ptr<detail::engine> core() const override { return engine_.get().shared_from_this(); }
  detail::engine& hot_core() const override { return engine_.get(); }
  void shutdown_and_join() noexcept {
    engine_.get().begin_shutdown();
    engine_.get().join();
  }

  template <class T, class Callback, class How>
  void call(const detail::request& asked, Callback&& callback, const How& how,
            std::optional<jwks_config> config = std::nullopt) const {
    const auto core = engine_.get().shared_from_this();
    const auto [wished, stop] = detail::taken_apart(how);
    const executor_ref where = wished ? wished : default_executor;
    if constexpr (!std::is_void_v<T>) {
      // Inline, as it would be from submit(), but without a waiter to allocate.
      if (!where && asked.what != detail::verb::initialize) {
        detail::outcome out;
        if (detail::answer_warm(*core, asked, out))
          return static_cast<void>(callback(detail::convert<T>(std::move(out))));
        if (auto ready = core->answer_now(asked))
          return static_cast<void>(callback(detail::convert<T>(*std::move(ready))));
      }
    }
    const auto who = std::make_shared<detail::callback_waiter<T, Callback>>(asked, where, std::move(callback));
    who->arm(stop, core);
    detail::begin(*core, who, std::move(config));
  }

  typename driver::io_ptr io_;
  mutable detail::engine_holder<typename driver::engine_type> engine_;
};

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
using async_jwks_manager = basic_async_jwks_manager<>;
#endif

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- tokens -------------------------------------------------------------------------------------

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

/// What a token must be to be accepted. A verifier keeps a copy; nothing changes it then.
///
/// Claims are named as in verified_token::operator[]: `/realm_access/roles` is a path (RFC 6901).
struct token_rules {
  /// `iss`, byte for byte: no slash is added or dropped (RFC 7519 sections 4.1.1 and 7.3). Required, but with `trust_domain`.
  std::string issuer{};
  /// The names of this service: `aud` must hold one of them (RFC 7519 section 4.1.3). Required, but with `any_audience`.
  std::vector<std::string> audience{};
  /// Whose keys: a URL that the manager knows; with discovery what `resolved_url()` says. Empty: the manager's configured one,
  /// which is legal with one issuer only.
  std::string jwks_url{};
  /// Algorithms that are accepted (RFC 8725 section 3.1). Empty: all asymmetric ones; each goes with its kind of key only.
  std::vector<std::string> algorithms{};
  /// Values of `typ` that are accepted, compared as RFC 7515 section 4.1.9 says; "" stands for a token without one.
  std::vector<std::string> types{"at+jwt", "JWT", ""};
  /// The profile of RFC 9068: `typ` at+jwt whatever `types` says, and `sub`, `client_id`, `iat` and `jti` required.
  bool rfc9068 = false;
  /// Claims that must be there beside `iss`, `aud` and `exp`; null is as good as absent.
  std::vector<std::string> required_claims{};
  /// Claims with the strings of which they must equal one, or of an array one member: {"token_use", {"access"}}.
  std::vector<std::pair<std::string, std::vector<std::string>>> required_values{};
  /// How far clocks may be apart, for `exp`, `nbf` and `iat`. 0 to 300 s. Default 60 s.
  std::chrono::seconds leeway{60};
  /// Stands in for `aud` if the token has none: "client_id" for Amazon Cognito. Default: nothing does.
  std::string audience_claim{};
  /// `aud` is not looked at; `audience` must be empty then. Default false.
  bool any_audience = false;
  /// In place of `issuer`, for SPIFFE JWT-SVIDs: `iss` is not needed, `sub` must begin with spiffe://<trust_domain>/, and `typ`
  /// may also be JOSE.
  std::string trust_domain{};
  /// Takes tokens with `cnf` (DPoP, mTLS); whoever sets it compares `token["/cnf/jkt"]` with the proof. Default false.
  bool accept_bound = false;
  /// Where scopes, roles and permissions stand: the first claim that is there.
  std::vector<std::string> scope_claims{"scope", "scp"}, role_claims{"roles"}, permission_claims{"permissions"};
  /// A string among roles and permissions is a list with blanks between, as in the Python original. Default: one name.
  bool split_roles = false;
  /// The longest token. 64 bytes to 1 MiB. Default 16 KiB.
  std::size_t max_token_bytes = 16384;
  /// How many verified tokens are remembered. 0 to 1 Mi; 0: none. Default 0.
  std::size_t memo = 0;

  /// Reads AXIOMS_ISS_URL, else AXIOMS_DOMAIN (https:// is put before it), AXIOMS_AUDIENCE, AXIOMS_TOKEN_TYPS,
  /// AXIOMS_SCOPE_CLAIMS, AXIOMS_ROLES_CLAIMS and AXIOMS_PERMISSIONS_CLAIMS; lists have commas or blanks between. A variable
  /// that is unset or empty leaves its default. The rest is validate()'s.
  [[nodiscard]] static result<token_rules> from_environment();

  /// Checks every option and their combination. Errors: invalid_config; it names the option, its value and the rule.
  [[nodiscard]] result<void> validate() const;
};

/// A value among the claims or in the header of a token, or none.
///
/// Lifetime: a view; it lives as long as any verified_token of that content.
class claim_view {
 public:
  enum class kind { missing, null, boolean, number, string, array, object };
  class iterator;

  claim_view() noexcept = default;
  explicit claim_view(const detail::json_node* node) noexcept : node_(node) {}

  [[nodiscard]] kind type() const noexcept;
  /// Whether there is such a claim; null is one.
  [[nodiscard]] explicit operator bool() const noexcept { return node_ != nullptr; }
  /// Of a member; empty for an element of an array.
  [[nodiscard]] std::string_view name() const noexcept { return node_ != nullptr ? node_->name : std::string_view(); }
  /// The text of a string, @p otherwise of anything else.
  [[nodiscard]] std::string_view string(std::string_view otherwise = {}) const noexcept {
    return type() == kind::string ? node_->text : otherwise;
  }
  /// A whole number, also one that is written 1.0 or 1e3; none if it does not fit.
  [[nodiscard]] std::optional<std::int64_t> integer() const noexcept;
  [[nodiscard]] std::optional<double> number() const noexcept {
    return type() == kind::number ? std::optional(node_->real) : std::nullopt;
  }
  [[nodiscard]] std::optional<bool> boolean() const noexcept {
    return type() == kind::boolean ? std::optional(node_->integer != 0) : std::nullopt;
  }
  /// The member of an object.
  [[nodiscard]] claim_view operator[](std::string_view name) const noexcept {
    return node_ != nullptr ? claim_view(node_->find(name)) : claim_view();
  }
  /// How many members or elements there are; 0 of anything but an object or array.
  [[nodiscard]] std::size_t size() const noexcept {
    return type() == kind::array || type() == kind::object ? node_->count : 0;
  }
  [[nodiscard]] iterator begin() const noexcept;
  [[nodiscard]] iterator end() const noexcept;

 private:
  const detail::json_node* node_ = nullptr;
};

/// Over the members of an object or the elements of an array, in their order.
class claim_view::iterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = claim_view;
  using difference_type = std::ptrdiff_t;
  using pointer = const claim_view*;
  using reference = claim_view;

  iterator() noexcept = default;
  explicit iterator(detail::json_node::iterator at) noexcept : at_(at) {}
  claim_view operator*() const noexcept { return claim_view(at_.at); }
  iterator& operator++() noexcept { return ++at_, *this; }
  iterator operator++(int) noexcept {
    const iterator before = *this;
    ++at_;
    return before;
  }
  bool operator==(const iterator&) const noexcept = default;

 private:
  detail::json_node::iterator at_{};
};

inline claim_view::iterator claim_view::begin() const noexcept {
  return node_ != nullptr ? iterator(node_->begin()) : iterator();
}
inline claim_view::iterator claim_view::end() const noexcept {
  return node_ != nullptr ? iterator(node_->end()) : iterator();
}

/// What a request needs: every list that is not empty must hold.
struct required_access {
  std::vector<std::string> all_scopes{}, any_scopes{}, all_roles{}, any_roles{}, all_permissions{}, any_permissions{};
};

namespace detail {

struct token_header;
struct token_content;
class token_core;
class token_check;

}  // namespace detail

/// A token that was accepted. A handle: copies share the content.
///
/// Threads: callable from any number at once. Lifetime: outlives the verifier and the manager.
class verified_token {
 public:
  [[nodiscard]] std::string_view issuer() const noexcept;   ///< `iss`; empty: none
  [[nodiscard]] std::string_view subject() const noexcept;  ///< `sub`
  [[nodiscard]] std::string_view id() const noexcept;       ///< `jti`
  /// `client_id`, else `azp`, else `cid`, else `appid`.
  [[nodiscard]] std::string_view client_id() const noexcept;
  /// `exp`, at most what the clock's type can hold.
  [[nodiscard]] std::chrono::system_clock::time_point expires_at() const noexcept;
  /// A claim by its name; a name with a leading / is a path (RFC 6901): "/realm_access/roles".
  [[nodiscard]] claim_view operator[](std::string_view name) const;
  [[nodiscard]] claim_view claims() const noexcept;
  [[nodiscard]] claim_view header() const noexcept;
  [[nodiscard]] std::string_view payload() const noexcept;  ///< the JSON as it was signed
  [[nodiscard]] std::string_view token() const noexcept;    ///< the compact text: a credential
  /// What verified it: the key set's own handle, which keeps no document alive.
  [[nodiscard]] const key_ptr& key() const noexcept;

  /// Whether the name is among the scopes, roles or permissions. A string of scopes is a list with blanks between, an array
  /// a list of names; nothing else grants anything.
  [[nodiscard]] bool has_scope(std::string_view name) const noexcept;
  [[nodiscard]] bool has_role(std::string_view name) const noexcept;
  [[nodiscard]] bool has_permission(std::string_view name) const noexcept;
  /// Errors: insufficient_scope; the description names what is lacking.
  [[nodiscard]] result<void> require(const required_access& access) const;

 private:
  friend class detail::token_check;
  explicit verified_token(std::shared_ptr<const detail::token_content> content) noexcept
      : content_(std::move(content)) {}
  std::shared_ptr<const detail::token_content> content_;
};

/// The token of an `Authorization` header (RFC 6750 section 2.1), as a view into it.
///
/// Errors: token_missing (no header, or another scheme), malformed_token.
[[nodiscard]] result<std::string_view> bearer_token(std::string_view authorization AXIOMS_JWKS_LIFETIMEBOUND);

/// Verifies a token with the keys at hand: no manager, no fetch. What the verifiers do, as a function.
///
/// Errors: as basic_token_verifier::verify(), but for those of a fetch.
[[nodiscard]] result<verified_token> verify_token(std::string_view token, const jwk_set& keys, const token_rules& rules,
                                                  std::chrono::system_clock::time_point now);

/// The payload of any compact JWS (a logout token, a DPoP proof, signed metadata) whose signature is good. Looks at no claim.
///
/// Errors: token_missing, malformed_token, unsupported_algorithm, key_not_found, key_ambiguous, bad_signature, no_resources.
[[nodiscard]] result<std::string> verify_signature(std::string_view jws, const jwk_set& keys);

namespace detail {

// One token on its way: sans-I/O. It is told the time and the key set that is served, and says what it needs.
class token_check {
 public:
  enum class need {
    nothing,   // it is over, see outcome()
    document,  // there is no key set to serve
    key,       // the set lacks the kid
    other_key  // the key of that kid did not verify the signature
  };

  token_check(std::shared_ptr<const token_core> core, std::string_view token) noexcept
      : core_(std::move(core)), text_(token) {}
  token_check(const token_check&) = delete;
  token_check& operator=(const token_check&) = delete;

  // Form and header. False: it is over.
  bool read();
  need look(const jwk_set* served, std::chrono::system_clock::time_point now);
  // What came of a need, in place of a key set that is served.
  void take(need what, outcome&& came);

  // The text is read until it is over, so whoever waits must keep it.
  void keep_text() {
    kept_ = text_;
    text_ = kept_;
  }
  // Of the key set, and what is wanted of it; valid after read().
  [[nodiscard]] request asked(need what) const;
  [[nodiscard]] const jwks_ptr& brought() const noexcept { return brought_; }
  [[nodiscard]] bool over() const noexcept { return out_.has_value(); }
  [[nodiscard]] bool has_read() const noexcept { return rules_ != nullptr; }
  [[nodiscard]] result<verified_token> take_result() { return *std::move(out_); }
  void end(axioms::error why) { out_.emplace(std::move(why)); }
  // What it needs is not to be had: there is only this key set.
  void end_with(const jwk_set& keys, need what);

 private:
  [[nodiscard]] std::optional<axioms::error> pick_rules();
  [[nodiscard]] std::optional<axioms::error> read_claims();
  [[nodiscard]] std::optional<axioms::error> check_claims(std::chrono::system_clock::time_point now);
  void accept(key_ptr key);

  std::shared_ptr<const token_core> core_;
  std::string_view text_;
  std::string kept_;
  const token_rules* rules_ = nullptr;
  std::shared_ptr<const token_header> header_;
  std::string signature_, payload_;
  std::optional<json_tree> claims_;
  jwks_ptr brought_;
  key_ptr key_;
  double expires_ = 0;
  bool fetched_again_ = false;
  std::optional<result<verified_token>> out_;
};

}  // namespace detail
namespace detail {

// What the verifiers use of a manager.
struct token_access {
  template <class Fetcher, class Clock>
  static thread_engine& engine_of(const basic_jwks_manager<Fetcher, Clock>& keys) noexcept {
    return keys.engine_.get();
  }
  template <class Fetcher, class Clock>
  static const async_shell& shell_of(const basic_async_jwks_manager<Fetcher, Clock>& keys) noexcept {
    return keys;
  }
};

template <class Manager>
concept blocking_keys = requires(const Manager& keys) {
  token_access::engine_of(keys);
};
template <class Manager>
concept async_keys = requires(const Manager& keys) {
  token_access::shell_of(keys);
};

[[nodiscard]] std::shared_ptr<const token_core> compile_rules(std::vector<token_rules> rules);
// As far as it goes without waiting; what it needs then, nothing if it is over.
[[nodiscard]] token_check::need proceed(token_check& check, engine& core);
[[nodiscard]] result<verified_token> verify_waiting(thread_engine& core, const std::shared_ptr<const token_core>& rules,
                                                    std::string_view token, const stop_token& stop);

// A verification that waits, one request of the engine after the other.
class token_task : public std::enable_shared_from_this<token_task> {
 public:
  token_task(std::shared_ptr<engine> core, std::shared_ptr<const token_core> rules, std::string_view token,
             executor_ref where)
      : core_(std::move(core)), check_(std::move(rules), token), where_(where) {
    check_.keep_text();
  }
  virtual ~token_task() = default;
  token_task(const token_task&) = delete;
  token_task& operator=(const token_task&) = delete;

  // complete() is called once: in here if there is nothing to wait for and no executor, else later.
  void start(const stop_token& stop);
  void cancel() noexcept { cancelled_.request_stop(); }
  void take(outcome&& came) noexcept;

 protected:
  virtual void complete() noexcept = 0;
  [[nodiscard]] result<verified_token> take_result() {
    on_stop_.reset();
    return check_.take_result();
  }

 private:
  struct canceller {
    std::weak_ptr<token_task> task;
    void operator()() const noexcept {
      if (const auto still = task.lock()) still->cancel();
    }
  };
  // Whether it waits now.
  bool go_on() noexcept;

  std::shared_ptr<engine> core_;
  token_check check_;
  token_check::need need_ = token_check::need::nothing;
  executor_ref where_;
  stop_source cancelled_;
  std::optional<stop_callback<canceller>> on_stop_;
  std::shared_ptr<token_task> self_;  // while it is posted
};

template <class Callback>
class callback_token_task final : public token_task {
 public:
  callback_token_task(std::shared_ptr<engine> core, std::shared_ptr<const token_core> rules, std::string_view token,
                      executor_ref where, Callback&& callback)
      : token_task(std::move(core), std::move(rules), token, where), callback_(std::move(callback)) {}

 private:
  void complete() noexcept override {
    Callback mine(std::move(callback_));  // what it holds goes here and now
    mine(take_result());
  }
  Callback callback_;
};

// Resumes its frame at most once, and never inside await_suspend(), see coroutine_waiter.
class coroutine_token_task final : public token_task {
 public:
  coroutine_token_task(std::shared_ptr<engine> core, std::shared_ptr<const token_core> rules, std::string_view token,
                       executor_ref where, std::coroutine_handle<> frame)
      : token_task(std::move(core), std::move(rules), token, where), frame_(frame) {}
  [[nodiscard]] bool suspend() noexcept { return move(phase::starting, phase::suspended); }
  [[nodiscard]] bool abandon() noexcept { return move(phase::suspended, phase::over); }
  [[nodiscard]] result<verified_token> result_of() { return take_result(); }

 private:
  enum class phase { starting, early, suspended, over };
  bool move(phase from, phase to) noexcept {
    return phase_.compare_exchange_strong(from, to, std::memory_order_acq_rel);
  }
  void complete() noexcept override {
    if (!move(phase::starting, phase::early) && move(phase::suspended, phase::over)) frame_.resume();
  }
  std::atomic<phase> phase_{phase::starting};
  std::coroutine_handle<> frame_;
};

}  // namespace detail

/// What basic_token_verifier::verify() of an async manager returns: lazy, movable, to be awaited once.
///
/// Lifetime: the manager and the token must live until the `co_await` has suspended.
class [[nodiscard]] token_operation {
 public:
  class awaiter;

  token_operation(const detail::async_shell& shell, std::shared_ptr<const detail::token_core> rules,
                  std::string_view token, async_options options) noexcept
      : shell_(&shell),
        rules_(std::move(rules)),
        token_(token),
        executor_(options.executor),
        stop_(options.stop.get()) {}
  token_operation(token_operation&&) noexcept = default;
  token_operation& operator=(token_operation&&) noexcept = default;
  token_operation(const token_operation&) = delete;
  token_operation& operator=(const token_operation&) = delete;

  awaiter operator co_await() noexcept;

 private:
  const detail::async_shell* shell_;
  std::shared_ptr<const detail::token_core> rules_;
  std::string_view token_;
  executor_ref executor_;
  stop_token stop_;
};

class token_operation::awaiter {
 public:
  explicit awaiter(token_operation&& what) noexcept : what_(std::move(what)) {}
  awaiter(const awaiter&) = delete;
  awaiter& operator=(const awaiter&) = delete;
  ~awaiter() {
    if (task_ && task_->abandon()) task_->cancel();
  }
  [[nodiscard]] bool await_ready() {
    detail::token_check check(what_.rules_, what_.token_);
    if (detail::proceed(check, what_.shell_->hot_core()) != detail::token_check::need::nothing) return false;
    ready_.emplace(check.take_result());
    return true;
  }
  [[nodiscard]] AXIOMS_JWKS_SUSPENDS bool await_suspend(std::coroutine_handle<> frame) {
    const executor_ref where = what_.executor_ ? what_.executor_ : what_.shell_->default_executor;
    const auto task =
        std::make_shared<detail::coroutine_token_task>(what_.shell_->core(), what_.rules_, what_.token_, where, frame);
    task_ = task;
    // From here on the frame may be resumed elsewhere, and *this be gone with it, when suspend() says so.
    task->start(what_.stop_);
    return task->suspend();
  }
  result<verified_token> await_resume() { return ready_ ? *std::move(ready_) : task_->result_of(); }

 private:
  token_operation what_;
  std::optional<result<verified_token>> ready_;
  std::shared_ptr<detail::coroutine_token_task> task_;
};

inline token_operation::awaiter token_operation::operator co_await() noexcept { return awaiter(std::move(*this)); }

/// Verifies JWT access tokens (RFC 7519, RFC 9068, RFC 8725) with the keys of a manager.
///
/// A token is accepted if its signature, issuer, audience and times are good and the rules are kept. An unknown kid is looked
/// for once, within the manager's budget, and only for a token that would be accepted but for its signature; so expired,
/// foreign and malformed tokens cause no request. After a wrong signature of a known kid the key set is fetched again, within
/// the same budget.
///
/// Threads:  verify() is callable from any number at once.
/// Errors:   malformed_token, unsupported_algorithm, bad_signature, token_expired, token_not_yet_valid, issuer_mismatch,
///           audience_mismatch, token_type_mismatch, claim_missing, token_missing, key_not_found, key_ambiguous: the token is
///           refused (401). invalid_config: the rules are broken (500). Everything else: the keys are not to be had (503).
///           A token with several faults gets the code of any of them.
/// Lifetime: the manager must outlive it.
template <class Manager>
class basic_token_verifier {
  static_assert(detail::blocking_keys<Manager> || detail::async_keys<Manager>,
                "basic_token_verifier takes a basic_jwks_manager or a basic_async_jwks_manager");

 public:
  /// With broken rules each verify() is invalid_config.
  basic_token_verifier(Manager& keys AXIOMS_JWKS_LIFETIMEBOUND, token_rules rules)
      : keys_(keys), rules_(detail::compile_rules({std::move(rules)})) {}
  /// Several issuers: the token's `iss` picks the rules, and only keys of that issuer's `jwks_url` count.
  ///
  /// The issuers must differ, each must have a `jwks_url`, and `max_token_bytes` and `memo` must be the same in all.
  template <std::same_as<std::vector<token_rules>> Several>
  basic_token_verifier(Manager& keys AXIOMS_JWKS_LIFETIMEBOUND, Several rules)
      : keys_(keys), rules_(detail::compile_rules(std::move(rules))) {}
  basic_token_verifier(const basic_token_verifier&) = delete;
  basic_token_verifier& operator=(const basic_token_verifier&) = delete;

  /// Blocks: only when the keys are not at hand, as get_key().
  [[nodiscard]] result<verified_token> verify(std::string_view token,
                                              stop_token stop = {}) const requires detail::blocking_keys<Manager> {
    return detail::verify_waiting(detail::token_access::engine_of(keys_), rules_, token, stop);
  }

  /// Ready without suspending when the keys are at hand. @p token must live until the `co_await` has suspended.
  [[nodiscard]] token_operation verify(std::string_view token,
                                       async_options options = {}) const requires detail::async_keys<Manager> {
    return {detail::token_access::shell_of(keys_), rules_, token, options};
  }
  /// The same with a callback: inline when the keys are at hand and there is no executor.
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<verified_token>> && detail::async_keys<Manager>
  void async_verify(std::string_view token, Callback callback, How how = {}) const {
    const detail::async_shell& shell = detail::token_access::shell_of(keys_);
    const auto [wished, stop] = detail::taken_apart(how);
    const executor_ref where = wished ? wished : shell.default_executor;
    if (!where) {
      detail::token_check check(rules_, token);
      if (detail::proceed(check, shell.hot_core()) == detail::token_check::need::nothing)
        return static_cast<void>(callback(check.take_result()));
    }
    std::make_shared<detail::callback_token_task<Callback>>(shell.core(), rules_, token, where, std::move(callback))
        ->start(stop);
  }

 private:
  Manager& keys_;
  std::shared_ptr<const detail::token_core> rules_;
};

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
using token_verifier = basic_token_verifier<jwks_manager>;
using async_token_verifier = basic_token_verifier<async_jwks_manager>;
#endif

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

// ---- process-wide managers ----------------------------------------------------------------------

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {

/// The one blocking manager of this process. Made at the first use, shut down at process exit, never destroyed.
[[nodiscard]] jwks_manager& default_jwks_manager();
/// The one async manager of this process, as above.
[[nodiscard]] async_jwks_manager& default_async_jwks_manager();

/// default_jwks_manager().initialize(); the options take effect unless that manager runs already.
///
/// Blocks and Errors: as basic_jwks_manager::initialize().
result<void> initialize_jwks_manager(jwks_config config, httplib_options options = {});
/// The short form, for a URL and the three options that are set most.
result<void> initialize_jwks_manager(std::string jwks_url,
                                     std::chrono::seconds refresh_interval = std::chrono::seconds(3600),
                                     std::chrono::seconds cache_ttl = std::chrono::seconds(7200), bool prefetch = true);
/// default_jwks_manager().shutdown().
void shutdown_jwks_manager() noexcept;

/// The awaitable twins, on default_async_jwks_manager().
[[nodiscard]] async_operation<result<void>> initialize_async_jwks_manager(jwks_config config,
                                                                          httplib_options options = {});
[[nodiscard]] async_operation<result<void>> initialize_async_jwks_manager(
    std::string jwks_url, std::chrono::seconds refresh_interval = std::chrono::seconds(3600),
    std::chrono::seconds cache_ttl = std::chrono::seconds(7200), bool prefetch = true);
[[nodiscard]] async_operation<void> shutdown_async_jwks_manager();

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

#endif

// ---- implementation -----------------------------------------------------------------------------

#if !defined(AXIOMS_JWKS_SPLIT) || defined(AXIOMS_JWKS_IMPLEMENTATION)

#include <nlohmann/json.hpp>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
#include <openssl/ssl.h>
#endif

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
#include <httplib.h>
#endif

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#endif

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <tuple>
#include <unordered_map>

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {
namespace detail {

// -- http vocabulary --

AXIOMS_JWKS_INLINE std::string parsed_url::authority() const {
  const bool default_port = port == (https ? 443 : 80);
  std::string out = ipv6 ? concat('[', host, ']') : host;
  if (!default_port) append_to(out, concat(':', port));
  return out;
}

AXIOMS_JWKS_INLINE result<parsed_url> parse_url(std::string_view text) {
  // What stands before an @ may be a password, so such a URL is in no message.
  const auto shown = [&] {
    return text.find('@') == std::string_view::npos ? quote(text) : std::string("(not shown, it holds an @)");
  };
  const auto refuse = [&](const auto&... why) {
    return make_error(errc::invalid_url, "invalid URL ", shown(), ": ", why...);
  };
  if (text.empty()) return refuse("it is empty");
  if (text.size() > max_url_bytes) return refuse("it has ", text.size(), " bytes, the limit is ", max_url_bytes);
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= 0x20 || byte == 0x7f) return refuse("it holds a space or a control byte");
    if (byte > 0x7f)
      return refuse("it holds a byte outside ASCII (write the host in Punycode and percent-encode the path)");
  }

  const auto colon = text.find(':');
  const auto is_scheme = [](std::string_view s) {
    return !s.empty() && !is_digit(s.front()) &&
           std::all_of(s.begin(), s.end(), [](char c) { return is_alnum(c) || c == '+' || c == '-' || c == '.'; });
  };
  if (colon == std::string_view::npos || !is_scheme(text.substr(0, colon))) {
    return refuse("it is relative; an absolute http or https URL is needed");
  }
  parsed_url url;
  if (iequals(text.substr(0, colon), "https")) {
    url.https = true;
  } else if (!iequals(text.substr(0, colon), "http")) {
    return make_error(errc::unsupported_scheme, "URL ", shown(), " has the scheme ", quote(text.substr(0, colon)),
                      "; only http and https are allowed");
  }
  // After the scheme, so that data: and its kin are told what is really wrong with them.
  if (const auto bad = text.find_first_of("\\\"<>^`{|}"); bad != std::string_view::npos) {
    return refuse("it holds the illegal character '", text[bad], "'");
  }
  std::string_view rest = text.substr(colon + 1);
  if (rest.substr(0, 2) != "//") return refuse("'//' must follow the scheme");
  rest.remove_prefix(2);
  rest = rest.substr(0, rest.find('#'));
  const auto path = std::min(rest.find_first_of("/?"), rest.size());
  std::string_view authority = rest.substr(0, path);
  const std::string_view target = rest.substr(path);

  if (authority.find('@') != std::string_view::npos)
    return refuse("user-info before the host; credentials do not belong into a URL");
  std::string_view port;
  if (!authority.empty() && authority.front() == '[') {
    const auto end = authority.find(']');
    if (end == std::string_view::npos) return refuse("the IPv6 address lacks its closing bracket");
    url.ipv6 = true;
    url.host = lower(authority.substr(1, end - 1));
    port = authority.substr(end + 1);
    const auto colons = std::count(url.host.begin(), url.host.end(), ':');
    if (colons < 2 || colons > 7 || url.host.find_first_not_of("0123456789abcdef:.") != std::string::npos) {
      return refuse("the host is no IPv6 address");
    }
  } else {
    const auto end = std::min(authority.find(':'), authority.size());
    url.host = lower(authority.substr(0, end));
    port = authority.substr(end);
    if (url.host.empty()) return refuse("it has no host");
    if (url.host.size() > 253) return refuse("the host has more than 253 bytes");
    // OpenSSL takes a leading dot for any subdomain.
    if (url.host.front() == '.' || url.host.find("..") != std::string::npos) {
      return refuse("the host has an empty label");
    }
    for (const char c : url.host) {
      if (!is_alnum(c) && c != '-' && c != '.' && c != '_')
        return refuse("the host holds the illegal character '", c, "'");
    }
  }
  url.port = url.https ? 443 : 80;
  if (!port.empty()) {
    if (port.front() != ':') return refuse("only a port may follow the host");
    port.remove_prefix(1);
    unsigned number = 0;
    const auto [end, failed] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (!port.empty()) {  // "host:" means the default port (RFC 3986 section 3.2.3)
      if (failed != std::errc() || end != port.data() + port.size() || number < 1 || number > 65535) {
        return refuse("the port must be a number from 1 to 65535");
      }
      url.port = static_cast<std::uint16_t>(number);
    }
  }
  url.normalized = concat(url.scheme(), "://", url.authority(), target);
  url.target = target.empty() || target.front() != '/' ? concat('/', target) : std::string(target);
  return url;
}

// A sum of headers, comma-separated lists and all: every directive once, name and value (RFC 9110 section 5.6.1).
template <class Visit>
void each_directive(const fetch_response& response, std::string_view header, Visit visit) {
  for (const auto& [name, value] : response.headers) {
    if (!iequals(name, header)) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      std::size_t end = 0;
      for (bool quoted = false; end < rest.size() && (quoted || rest[end] != ','); ++end) {
        if (rest[end] == '"') quoted = !quoted;
      }
      const std::string_view directive = trim(rest.substr(0, end));
      const auto equals = std::min(directive.find('='), directive.size());
      std::string_view argument = equals < directive.size() ? trim(directive.substr(equals + 1)) : std::string_view();
      if (argument.size() >= 2 && argument.front() == '"' && argument.back() == '"')
        argument = argument.substr(1, argument.size() - 2);
      visit(trim(directive.substr(0, equals)), argument);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
}

AXIOMS_JWKS_INLINE std::optional<std::chrono::seconds> parse_delta_seconds(std::string_view text) noexcept {
  text = trim(text);
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  std::int64_t value = 0;
  for (const char c : text) value = std::min(most, value * 10 + (c - '0'));
  return std::chrono::seconds(value);
}

AXIOMS_JWKS_INLINE std::optional<std::chrono::system_clock::time_point> parse_http_date(
    std::string_view text, std::chrono::system_clock::time_point now) noexcept {
  // "Sun, 06 Nov 1994 08:49:37 GMT" | "Sunday, 06-Nov-94 08:49:37 GMT" | "Sun Nov  6 08:49:37 1994"
  std::array<std::string_view, 6> words{};
  std::size_t count = 0;
  for (text = trim(text); !text.empty() && count < words.size();) {
    const auto end = std::min(text.find_first_of(" ,-"), text.size());
    if (end > 0) words[count++] = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  const bool asctime = count == 5;
  if (!text.empty() || (!asctime && (count != 6 || !iequals(words[5], "GMT")))) return std::nullopt;
  const std::string_view day = words[asctime ? 2 : 1], month = words[asctime ? 1 : 2];
  const std::string_view year = words[asctime ? 4 : 3], clock = words[asctime ? 3 : 4];

  const auto number = [](std::string_view s) -> int {
    if (s.empty() || s.size() > 4 || !std::all_of(s.begin(), s.end(), is_digit)) return -1;
    int value = 0;
    for (const char c : s) value = value * 10 + (c - '0');
    return value;
  };
  constexpr std::string_view months = "janfebmaraprmayjunjulaugsepoctnovdec";
  const auto month_at = month.size() == 3 ? months.find(lower(month)) : std::string_view::npos;
  if (month_at == std::string_view::npos || month_at % 3 != 0) return std::nullopt;
  if (clock.size() != 8 || clock[2] != ':' || clock[5] != ':') return std::nullopt;
  const int hour = number(clock.substr(0, 2)), minute = number(clock.substr(3, 2)), second = number(clock.substr(6, 2));
  int years = number(year);
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 || years < 0 || number(day) < 1)
    return std::nullopt;

  const auto today = std::chrono::year_month_day(std::chrono::floor<std::chrono::days>(now));
  if (year.size() == 2) {  // RFC 9110: more than 50 years ahead means the past century
    const int this_year = static_cast<int>(today.year());
    years += this_year - this_year % 100;
    if (years > this_year + 50) years -= 100;
  } else if (year.size() != 4) {
    return std::nullopt;
  }
  const auto date = std::chrono::year(years) / std::chrono::month(static_cast<unsigned>(month_at / 3 + 1)) /
                    std::chrono::day(static_cast<unsigned>(number(day)));
  if (!date.ok() || years < 1970 || years > 2200) return std::nullopt;
  return std::chrono::sys_days(date) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
         std::chrono::seconds(second);
}

AXIOMS_JWKS_INLINE std::optional<std::chrono::seconds> freshness_lifetime(
    const fetch_response& response, std::chrono::system_clock::time_point now) noexcept {
  using std::chrono::seconds;
  bool forbidden = false;
  std::optional<seconds> lifetime;
  each_directive(response, "Cache-Control", [&](std::string_view name, std::string_view argument) {
    if (iequals(name, "no-cache") || iequals(name, "no-store")) forbidden = true;
    if (!iequals(name, "max-age")) return;
    if (const auto age = parse_delta_seconds(argument)) lifetime = std::min(*age, lifetime.value_or(seconds::max()));
  });
  if (forbidden) return std::nullopt;
  if (!lifetime) {
    const auto expires = parse_http_date(response.header("Expires"), now);
    if (!expires) return std::nullopt;
    const auto date = parse_http_date(response.header("Date"), now).value_or(now);
    lifetime = std::chrono::duration_cast<seconds>(*expires - date);
  }
  *lifetime -= parse_delta_seconds(response.header("Age")).value_or(seconds(0));
  if (*lifetime <= seconds(0)) return std::nullopt;
  return lifetime;
}

AXIOMS_JWKS_INLINE std::optional<std::chrono::seconds> retry_after(const fetch_response& response,
                                                                   std::chrono::system_clock::time_point now) noexcept {
  const std::string_view value = response.header("Retry-After");
  if (const auto delta = parse_delta_seconds(value)) return delta;
  const auto date = parse_http_date(value, now);
  if (!date) return std::nullopt;
  return std::max(std::chrono::seconds(0), std::chrono::ceil<std::chrono::seconds>(*date - now));
}

// -- configuration --

inline error insecure_url_error(std::string_view url) {
  return make_error(errc::unsupported_scheme, "URL ", quote(url), " is http; require_https allows https only");
}

AXIOMS_JWKS_INLINE std::uint64_t default_random() noexcept {
  // splitmix64 over a counter: no lock, and a forked child goes its own way with the next seed.
  static std::atomic<std::uint64_t> state{[] {
    std::uint64_t seed = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    AXIOMS_JWKS_TRY {
      std::random_device device;
      seed ^= (static_cast<std::uint64_t>(device()) << 32U) ^ device();
    }
    AXIOMS_JWKS_CATCH_ALL {}  // no entropy source: the time has to do, jitter is no secret
    return seed;
  }()};
  std::uint64_t z =
      state.fetch_add(0x9e3779b97f4a7c15U, std::memory_order_relaxed) + fork_epoch() * 0xd1342543de82ef95U;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

AXIOMS_JWKS_INLINE result<std::int64_t> integer_from(std::string_view variable, std::string_view text) {
  std::int64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed == std::errc() && end == text.data() + text.size() && value >= 0 && value <= max_duration.count())
    return value;
  return make_error(errc::invalid_config, variable, " is ", quote(text),
                    "; it must be a whole number of seconds, at most 10 years");
}

AXIOMS_JWKS_INLINE result<bool> boolean_from(std::string_view variable, std::string_view text) {
  for (const std::string_view yes : {"true", "1", "yes", "on"}) {
    if (iequals(text, yes)) return true;
  }
  for (const std::string_view no : {"false", "0", "no", "off"}) {
    if (iequals(text, no)) return false;
  }
  return make_error(errc::invalid_config, variable, " is ", quote(text), "; it must be true or false");
}

}  // namespace detail

AXIOMS_JWKS_INLINE result<jwks_config> jwks_config::from_environment() {
  const auto read = [](const char* variable) -> std::string_view {
    const char* value = std::getenv(variable);
    return value != nullptr ? value : "";
  };
  jwks_config config;
  config.jwks_url = read("AXIOMS_JWKS_URL");
  config.issuer = read("AXIOMS_ISS_URL");
  config.domain = read("AXIOMS_DOMAIN");
  for (const auto& [variable, option] : {std::pair("AXIOMS_JWKS_REFRESH_INTERVAL", &jwks_config::refresh_interval),
                                         std::pair("AXIOMS_JWKS_CACHE_TTL", &jwks_config::cache_ttl)}) {
    if (const std::string_view text = read(variable); !text.empty()) {
      const auto value = detail::integer_from(variable, text);
      if (!value) return value.error();
      config.*option = std::chrono::seconds(*value);
    }
  }
  if (const std::string_view text = read("AXIOMS_JWKS_PREFETCH"); !text.empty()) {
    const auto value = detail::boolean_from("AXIOMS_JWKS_PREFETCH", text);
    if (!value) return value.error();
    config.prefetch = *value;
  }
  return config;
}

namespace detail {

AXIOMS_JWKS_INLINE result<std::string> checked_url(std::string url) {
  if (auto parsed = parse_url(url); !parsed) return std::move(parsed).error();
  return url;
}

// The issuer as it is configured, less one slash at its end.
AXIOMS_JWKS_INLINE result<std::string> issuer_base(const jwks_config& config) {
  std::string base = config.issuer;
  if (base.empty()) {
    if (config.domain.empty()) {
      return make_error(errc::invalid_config, config.discovery ? "discovery needs issuer or domain"
                                                               : "one of jwks_url, issuer and domain must be set");
    }
    if (config.domain.find("://") != std::string::npos) {
      return make_error(errc::invalid_config, "domain is ", quote(config.domain),
                        "; it must be a host name, without a scheme");
    }
    if (config.domain.find_first_of("?#") != std::string::npos) {
      return make_error(errc::invalid_config, "domain is ", quote(config.domain),
                        "; it must have no query and no fragment");
    }
    base = concat("https://", config.domain);
  } else if (base.find_first_of("?#") != std::string::npos) {
    return make_error(errc::invalid_config, "issuer is ", quote(base), "; it must have no query and no fragment");
  }
  // On its own first: of "https://" less a slash, the path that follows would be the host.
  if (auto whole = checked_url(base); !whole) return whole;
  if (base.back() == '/') base.pop_back();
  return base;
}

}  // namespace detail

AXIOMS_JWKS_INLINE result<std::string> jwks_config::resolved_url() const {
  if (!jwks_url.empty() && !discovery) return detail::checked_url(jwks_url);
  const auto base = detail::issuer_base(*this);
  if (!base) return base.error();
  return detail::checked_url(*base + (discovery ? "/.well-known/openid-configuration" : "/.well-known/jwks.json"));
}

AXIOMS_JWKS_INLINE result<void> jwks_config::validate() const {
  using detail::make_error;
  std::optional<axioms::error> broken;
  const auto rule = [&](bool holds, std::string_view option, auto value, std::string_view unit, std::string_view text) {
    if (!holds && !broken)
      broken = make_error(errc::invalid_config, option, " is ", value, unit, "; it must be ", text);
  };
  const auto duration = [&](std::string_view option, auto value, bool zero_allowed) {
    const std::string_view unit = std::is_same_v<decltype(value), std::chrono::seconds> ? " s" : " ms";
    rule(zero_allowed ? value.count() >= 0 : value.count() > 0, option, value.count(), unit,
         zero_allowed ? "0 or more" : "more than 0");
    rule(value <= detail::max_duration, option, value.count(), unit, "at most 10 years");
  };
  duration("refresh_interval", refresh_interval, false);
  duration("cache_ttl", cache_ttl, false);
  rule(cache_ttl.count() / 2 >= refresh_interval.count(), "cache_ttl", cache_ttl.count(), " s",
       detail::concat("at least 2 x refresh_interval (", refresh_interval.count(), " s)"));
  duration("outage_window", outage_window, true);
  duration("min_refresh_interval", min_refresh_interval, true);
  duration("withdrawn_key_grace", withdrawn_key_grace, true);
  duration("fetch_timeout", fetch_timeout, false);
  duration("connect_timeout", connect_timeout, false);
  duration("backoff_initial", backoff_initial, false);
  duration("backoff_max", backoff_max, false);
  rule(backoff_max >= backoff_initial, "backoff_max", backoff_max.count(), " ms",
       detail::concat("at least backoff_initial (", backoff_initial.count(), " ms)"));
  duration("retry_after_max", retry_after_max, true);
  rule(max_body_bytes >= 1 && max_body_bytes <= (std::size_t{1} << 30U), "max_body_bytes", max_body_bytes, "",
       "1 byte to 1 GiB");
  rule(max_parallel_fetches >= 1 && max_parallel_fetches <= 64, "max_parallel_fetches", max_parallel_fetches, "",
       "1 to 64");
  rule(unknown_kid_burst >= 0 && unknown_kid_burst <= 1000, "unknown_kid_burst", unknown_kid_burst, "", "0 to 1000");
  duration("unknown_kid_interval", unknown_kid_interval, false);
  duration("unknown_kid_wait", unknown_kid_wait, true);
  rule(!discovery || jwks_url.empty(), "jwks_url", "set", "", "empty with discovery");
  if (broken) return *broken;

  const auto url = resolved_url();
  if (!url) return url.error();
  if (require_https && !detail::parse_url(*url)->https) return detail::insecure_url_error(*url);
  return {};
}

namespace detail {

// -- json --

using json = nlohmann::json;

// nlohmann's parser calls these for what it meets; false ends it.
class json_reader {
 public:
  json_reader(std::size_t bytes, const json_rules& rules) : rules_(rules) {
    tree.nodes.reserve(std::min(bytes / 16 + 4, rules.values));
    tree.texts = std::make_unique_for_overwrite<char[]>(bytes);  // without its escapes no text is longer
    free_ = tree.texts.get();
  }
  bool null() { return add({}); }
  bool boolean(bool value) { return add({.type = json_node::kind::boolean, .integer = value ? 1 : 0}); }
  bool number_integer(std::int64_t value) {
    return add({.type = json_node::kind::integer, .integer = value, .real = static_cast<double>(value)});
  }
  bool number_unsigned(std::uint64_t value) {
    const bool fits = value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return fits ? number_integer(static_cast<std::int64_t>(value)) : number_float(static_cast<double>(value), {});
  }
  bool number_float(double value, const std::string&) { return add({.type = json_node::kind::real, .real = value}); }
  bool string(const std::string& value) {
    return add({.type = json_node::kind::string, .count = static_cast<std::uint32_t>(value.size()), .text = value});
  }
  bool binary(const json::binary_t&) { return false; }
  bool key(const std::string& name) { return name_ = keep(name), true; }
  bool start_object(std::size_t) { return open(json_node::kind::object); }
  bool start_array(std::size_t) { return open(json_node::kind::array); }
  bool end_object() { return look_for_repeated_names(close()), true; }
  bool end_array() { return close(), true; }
  // The texts that come with it quote what they are about. True would not mean that it goes on.
  bool parse_error(std::size_t at, const std::string&, const json::exception&) {
    return refuse("is no JSON from byte ", at, " on");
  }

  json_tree tree{};
  std::string fault{};

 private:
  bool add(json_node node);
  bool open(json_node::kind type);
  json_node& close();
  std::string_view keep(std::string_view text) {
    char* const begin = std::exchange(free_, std::copy(text.begin(), text.end(), free_));
    return {begin, text.size()};
  }
  [[nodiscard]] bool keeps(const json_node& node) const {
    return unkept_at_ == 0 && std::find(rules_.unkept.begin(), rules_.unkept.end(), node.name) == rules_.unkept.end();
  }
  void look_for_repeated_names(json_node& object);
  bool refuse(const auto&... why) { return fault = concat(why...), false; }

  const json_rules& rules_;
  char* free_ = nullptr;     // where the next text goes
  std::string_view name_{};  // of the next value
  std::size_t depth_ = 0;
  std::size_t unkept_at_ = 0;  // the depth of the container that loses its texts, 0: none
  std::uint32_t open_ = 0;     // the innermost container; while it is open its span is the index of the one round it
  std::vector<std::string_view> names_{};
};

AXIOMS_JWKS_INLINE bool json_reader::add(json_node node) {
  if (tree.nodes.size() >= rules_.values) return refuse("holds more than ", rules_.values, " values");
  if (!tree.nodes.empty()) ++tree.nodes[open_].count;
  node.name = std::exchange(name_, {});
  if (keeps(node)) {
    node.text = keep(node.text);
  } else {
    node = {.type = node.type, .count = node.count, .name = node.name};
  }
  tree.nodes.push_back(node);
  return true;
}

AXIOMS_JWKS_INLINE bool json_reader::open(json_node::kind type) {
  if (++depth_ > rules_.depth) return refuse("is nested deeper than ", rules_.depth, " levels");
  if (!add({.type = type})) return false;
  if (unkept_at_ == 0 && !keeps(tree.nodes.back())) unkept_at_ = depth_;
  tree.nodes.back().span = std::exchange(open_, static_cast<std::uint32_t>(tree.nodes.size() - 1));
  return true;
}

AXIOMS_JWKS_INLINE json_node& json_reader::close() {
  json_node& node = tree.nodes[open_];
  open_ = std::exchange(node.span, static_cast<std::uint32_t>(tree.nodes.size()) - open_);
  if (unkept_at_ == depth_) unkept_at_ = 0;
  --depth_;
  return node;
}

AXIOMS_JWKS_INLINE void json_reader::look_for_repeated_names(json_node& object) {
  names_.clear();
  names_.reserve(object.count);
  for (const json_node& each : object) names_.push_back(each.name);
  std::sort(names_.begin(), names_.end());
  object.twice = std::adjacent_find(names_.begin(), names_.end()) != names_.end();
}

AXIOMS_JWKS_INLINE result<json_tree> json_tree::read(std::string_view text, const json_rules& rules) {
  if (text.size() > rules.bytes) return make_error(rules.code, "is over the limit of ", rules.bytes, " bytes");
  // nlohmann takes a zero byte for the end of the text.
  if (const auto zero = text.find('\0'); zero != text.npos)
    return make_error(rules.code, "is no JSON from byte ", zero + 1, " on, a zero byte");
  json_reader reader(text.size(), rules);
  if (!json::sax_parse(text.begin(), text.end(), &reader)) return axioms::error{rules.code, std::move(reader.fault)};
  return std::move(reader.tree);
}

// -- keys --

AXIOMS_JWKS_INLINE void pkey_free::operator()(EVP_PKEY* key) const noexcept {
  const fork_gate inside;
  EVP_PKEY_free(key);
}

// Whatever OpenSSL leaves in the thread's error queue inside this scope is taken away again: a stale entry there makes
// an unrelated SSL_get_error() of the application fail.
class openssl_errors {
 public:
  openssl_errors() noexcept { ERR_set_mark(); }
  ~openssl_errors() { ERR_pop_to_mark(); }
  openssl_errors(const openssl_errors&) = delete;
  openssl_errors& operator=(const openssl_errors&) = delete;
};

template <auto Free>
struct openssl_free {
  template <class T>
  void operator()(T* object) const noexcept {
    Free(object);
  }
};

struct curve_info {
  std::string_view kty, crv, alg;  // OKP: the curve's name is an alg, too (RFC 9864)
  const char* openssl_name;
  int bits;
  std::size_t bytes;
};
inline constexpr std::string_view opt_in_curve = "secp256k1";  // needs jwk_options::allow_es256k
// clang-format off
inline constexpr std::array curves{
    curve_info{"EC", "P-256", "ES256", "P-256", 256, 32},
    curve_info{"EC", "P-384", "ES384", "P-384", 384, 48},
    curve_info{"EC", "P-521", "ES512", "P-521", 521, 66},
    curve_info{"EC", opt_in_curve, "ES256K", "secp256k1", 256, 32},
    curve_info{"OKP", "Ed25519", "EdDSA", "ED25519", 256, 32},
    curve_info{"OKP", "Ed448", "EdDSA", "ED448", 456, 57},
};
// clang-format on

inline constexpr std::array<std::string_view, 6> rsa_algs{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"};

// FIPS 204 table 2. The name is the JOSE alg (RFC 9964) and OpenSSL's as well.
struct ml_dsa_info {
  std::string_view alg;  // of a literal: ends with a zero byte
  std::size_t bytes;     // of the public key
};
inline constexpr std::array ml_dsa_algs{ml_dsa_info{"ML-DSA-44", 1312}, ml_dsa_info{"ML-DSA-65", 1952},
                                        ml_dsa_info{"ML-DSA-87", 2592}};

constexpr const ml_dsa_info* ml_dsa_of(std::string_view alg) noexcept {
  for (const auto& known : ml_dsa_algs) {
    if (alg == known.alg) return &known;
  }
  return nullptr;
}

// Whether the providers that are loaded know the key type: ML-DSA came with OpenSSL 3.5.
AXIOMS_JWKS_INLINE bool openssl_knows(const char* type) noexcept {
  const openssl_errors scope;
  EVP_KEYMGMT* found = EVP_KEYMGMT_fetch(nullptr, type, nullptr);
  EVP_KEYMGMT_free(found);
  return found != nullptr;
}

// A bit for each kind of key: what select() compares, for every key, in place of names.
inline constexpr key_kinds rsa_kind = 1;
constexpr key_kinds curve_kind(std::size_t index) noexcept { return static_cast<key_kinds>(2U << index); }
constexpr key_kinds ml_dsa_kind(std::size_t index) noexcept { return curve_kind(curves.size() + index); }

// Which kinds an algorithm goes with (RFC 7518 section 3.1). No unknown algorithm goes with any.
constexpr key_kinds kinds_of_alg(std::string_view alg) noexcept {
  for (const auto known : rsa_algs) {
    if (same_name(alg, known)) return rsa_kind;
  }
  unsigned kinds = 0;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    if (same_name(alg, curves[i].alg) || (curves[i].kty == "OKP" && same_name(alg, curves[i].crv)))
      kinds |= curve_kind(i);
  }
  for (std::size_t i = 0; i < ml_dsa_algs.size(); ++i) {
    if (same_name(alg, ml_dsa_algs[i].alg)) kinds |= ml_dsa_kind(i);
  }
  return static_cast<key_kinds>(kinds);
}
inline constexpr key_kinds opt_in_kind = kinds_of_alg("ES256K");  // needs jwk_options::allow_es256k

// RFC 4648 section 5 without padding. Bits that stand for nothing must be zero, or a value had several spellings.
AXIOMS_JWKS_INLINE std::optional<std::string> base64url_decode(std::string_view text, bool any_spare_bits = false) {
  static constexpr auto values = [] {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::array<std::uint32_t, 256> out{};
    out.fill(0xff000000U);  // no digit
    for (std::size_t i = 0; i < digits.size(); ++i)
      out[static_cast<unsigned char>(digits[i])] = static_cast<std::uint32_t>(i);
    return out;
  }();
  const auto value = [&](std::size_t i) { return values[static_cast<unsigned char>(text[i])]; };
  const std::size_t whole = text.size() / 4 * 4, left = text.size() % 4;
  if (left == 1) return std::nullopt;
  std::string out(text.size() / 4 * 3 + left * 3 / 4, '\0');
  char* to = out.data();
  std::uint32_t faults = 0;
  const auto put = [&](std::uint32_t bits, std::size_t bytes) {
    faults |= bits;
    for (std::size_t i = 0; i < bytes; ++i) *to++ = static_cast<char>((bits >> (16 - 8 * i)) & 0xffU);
  };
  for (std::size_t i = 0; i < whole; i += 4)
    put((value(i) << 18U | value(i + 1) << 12U | value(i + 2) << 6U | value(i + 3)) |
            ((value(i) | value(i + 1) | value(i + 2) | value(i + 3)) & 0xff000000U),
        3);
  if (left > 0) {
    std::uint32_t bits = 0, digits = 0;
    for (std::size_t i = 0; i < left; ++i) {
      digits |= value(whole + i);
      bits |= (value(whole + i) & 0x3fU) << (18 - 6 * i);
    }
    if (!any_spare_bits && (bits & (left == 2 ? 0xffffU : 0xffU)) != 0) return std::nullopt;
    put(bits | (digits & 0xff000000U), left - 1);
  }
  return (faults & 0xff000000U) == 0 ? std::optional(std::move(out)) : std::nullopt;
}

// Key material as providers publish it: RFC 4648 section 5, but also in the alphabet of section 4, padded, or with line breaks.
AXIOMS_JWKS_INLINE std::optional<std::string> key_bytes(std::string_view text) {
  std::string digits;
  digits.reserve(text.size());
  for (const char c : text) {
    if (c != '\r' && c != '\n') digits += c == '+' ? '-' : c == '/' ? '_' : c;
  }
  digits.erase(digits.find_last_not_of('=') + 1);
  return digits.empty() ? std::nullopt : base64url_decode(digits, true);
}

AXIOMS_JWKS_INLINE std::string base64url_encode(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(std::max(length, 0)));
  while (!out.empty() && out.back() == '=') out.pop_back();
  for (char& c : out) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return out;
}

inline void trim_zeros(std::string& number) {
  number.erase(0, std::min(number.find_first_not_of('\0'), number.size()));
}

inline constexpr std::size_t max_set_members = 1024;
inline constexpr std::size_t max_key_ops = 32;

// Members that hold private or symmetric key material (RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 8037, RFC 9964), and the
// certificates, which are most of what a provider sends. Nobody reads what they hold.
inline constexpr std::array<std::string_view, 10> unread_names{"d",  "p",   "q", "dp",   "dq",
                                                               "qi", "oth", "k", "priv", "x5c"};
inline bool is_secret(const json_node& member) noexcept {
  if (member.name == "kty") return member.text == "oct";  // then any member may hold the key
  return !member.holds_nothing() && member.name != unread_names.back() &&
         std::find(unread_names.begin(), unread_names.end(), member.name) != unread_names.end();
}

// A text as JSON writes it.
AXIOMS_JWKS_INLINE std::string json_string(std::string_view text) {
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; });
  return plain ? concat('"', text, '"') : json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

// The public members of a key, each with its value as JSON.
using public_members = std::vector<std::pair<std::string_view, std::string>>;

// RFC 7638 section 3.3: sorted, no blanks.
AXIOMS_JWKS_INLINE std::string json_object(public_members& members) {
  std::sort(members.begin(), members.end());
  std::string out;
  for (const auto& [name, value] : members) append_to(out, concat(out.empty() ? "{\"" : ",\"", name, "\":", value));
  return out + '}';
}

// What OpenSSL looks up by name, once for a whole set: it takes longer than to make a key.
class openssl_lookups {
 public:
  // For EVP_PKEY_fromdata; nullptr if there is no such key type.
  EVP_PKEY_CTX* keys_of(std::string_view type) {
    auto& maker = type == "RSA" ? rsa_ : ec_;
    if (!maker) maker.reset(EVP_PKEY_CTX_new_from_name(nullptr, type == "RSA" ? "RSA" : "EC", nullptr));
    return maker.get();
  }
  const EVP_MD* sha256() {
    if (!sha256_) sha256_.reset(EVP_MD_fetch(nullptr, "SHA256", nullptr));
    return sha256_.get();
  }

 private:
  std::unique_ptr<EVP_PKEY_CTX, openssl_free<&EVP_PKEY_CTX_free>> rsa_, ec_;
  std::unique_ptr<EVP_MD, openssl_free<&EVP_MD_free>> sha256_;
};

// Why a member of a key set is skipped.
using skip_reason = std::optional<std::string>;

AXIOMS_JWKS_INLINE skip_reason read_text(const json_node& member, std::string_view name, std::string& out,
                                         std::size_t limit) {
  const json_node* found = member.find(name);
  if (found == nullptr || found->type == json_node::kind::null) return std::nullopt;
  if (found->type != json_node::kind::string) return concat(name, " is no string");
  if (found->text.size() > limit) return concat(name, " has more than ", limit, " bytes");
  out = found->text;
  return std::nullopt;
}

AXIOMS_JWKS_INLINE skip_reason read_number(const json_node& member, std::string_view name, std::string& out) {
  std::string text;
  if (auto why = read_text(member, name, text, 8192)) return why;
  auto bytes = key_bytes(text);
  if (!bytes) return concat(name, text.empty() ? " is missing" : " is no base64url");
  out = std::move(*bytes);
  return std::nullopt;
}

// RFC 7517 section 4.3; some providers write one operation as a string.
AXIOMS_JWKS_INLINE skip_reason read_key_ops(const json_node& operations, std::vector<std::string>& out) {
  const bool one = operations.type == json_node::kind::string;
  if (!one && operations.type != json_node::kind::array) return "key_ops is no array";
  if (!one && operations.count > max_key_ops) return concat("key_ops has more than ", max_key_ops, " entries");
  for (auto at = one ? json_node::iterator{&operations} : operations.begin(); at != operations.end(); ++at) {
    const json_node& each = *at;
    if (each.type != json_node::kind::string) return "key_ops holds something other than strings";
    if (each.text.size() > max_kid_bytes) return concat("key_ops has an entry of more than ", max_kid_bytes, " bytes");
    out.emplace_back(each.text);
  }
  if (std::find(out.begin(), out.end(), "verify") == out.end()) return "key_ops lacks verify";
  return std::nullopt;
}

// Turns members of a key set into keys.
struct jwk_builder {
  using reason = skip_reason;

  const jwk_options options;
  openssl_lookups lookups{};
  bool doubtful = false;       // the member that was built last may be a good key: another try may tell
  bool out_of_memory = false;  // as far as OpenSSL says

  static jwk_set set_of(std::vector<key_ptr> keys) {
    jwk_set set;
    set.keys_ = std::move(keys);
    // They were accepted once.
    set.allow_es256k_ = std::any_of(set.keys_.begin(), set.keys_.end(),
                                    [](const key_ptr& key) { return key->curve() == opt_in_curve; });
    return set;
  }
  // The algorithm goes with the kind of key and with the key's own alg; EdDSA and Ed25519 name the same (RFC 9864).
  static bool fits(const jwk& key, std::string_view alg) noexcept {
    return (key.kind_ & kinds_of_alg(alg)) != 0 && (key.alg_.empty() || same_name(key.alg_, alg) || key.kty_ == "OKP");
  }
  static signature_state digest_signature(const jwk& key, const digest_alg& how, std::string_view message,
                                          std::string_view signature);
  static signature_state message_signature(const jwk& key, std::string_view message, std::string_view signature);
  result<jwk_set> build_set(std::string_view text);
  reason build(const json_node& member, jwk& out);
  static reason read_common(const json_node& member, jwk& out);
  reason build_rsa(const json_node& member, jwk& out, public_members& published);
  reason build_ec(const json_node& member, const curve_info& curve, jwk& out, public_members& published);
  reason build_raw(const json_node& member, std::string_view name, std::size_t bytes, const char* type, jwk& out,
                   public_members& published);
  reason build_ml_dsa(const json_node& member, jwk& out, public_members& published);
  reason publish(jwk& out, public_members& published);
  reason import(EVP_PKEY_CTX* maker, OSSL_PARAM_BLD* parameters, jwk& out);
  reason refused();
  std::shared_ptr<jwk> build_surely(const json_node& member, reason& why);
};

inline constexpr int no_openssl_error = 7517;

// OpenSSL did not do what it was asked for with a key that passed our own checks: the point is none of the curve, or there was no
// memory, for which OpenSSL gives many reasons, none at all, or has not even a queue.
AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::refused() {
  const unsigned long last = ERR_peek_last_error();
  const int library = ERR_GET_LIB(last), code = ERR_GET_REASON(last);
  out_of_memory = last == 0 || code == ERR_R_MALLOC_FAILURE || (library == ERR_LIB_USER && code == no_openssl_error);
  doubtful = true;  // it may even say that a point is not on its curve when it had no memory to find out
  return "OpenSSL refuses the key";
}

// What a key is and what it is for, and whether it may verify signatures at all (RFC 7517 section 4).
AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::read_common(const json_node& member, jwk& out) {
  for (const auto& [name, field] : {std::pair("kty", &out.kty_), std::pair("kid", &out.kid_),
                                    std::pair("alg", &out.alg_), std::pair("use", &out.use_)}) {
    if (auto why = read_text(member, name, *field, max_kid_bytes)) return why;
  }
  if (out.kty_ == "oct") return "a symmetric key does not belong into a public key set";
  for (const json_node& each : member) {
    if (is_secret(each)) return "it holds private members";
  }
  // Only identifiers: one that is of no use must not cost the key.
  for (const auto& [name, field] : {std::pair("x5t", &out.x5t_), std::pair("x5t#S256", &out.x5t_s256_)}) {
    if (read_text(member, name, *field, max_kid_bytes)) field->clear();
  }
  if (out.kty_.empty()) return "kty is missing";
  const bool on_curve = out.kty_ == "EC" || out.kty_ == "OKP";
  if (!on_curve && out.kty_ != "RSA" && out.kty_ != "AKP") return concat("kty ", quote(out.kty_), " is not supported");
  if (on_curve) {
    if (auto why = read_text(member, "crv", out.curve_, max_kid_bytes)) return why;
  }
  // SPIFFE marks its signing keys "jwt-svid".
  if (!out.use_.empty() && out.use_ != "sig" && out.use_ != "jwt-svid")
    return concat("use is ", quote(out.use_), ", not sig");
  const json_node* operations = member.find("key_ops");
  if (operations == nullptr || operations->type == json_node::kind::null) return std::nullopt;
  return read_key_ops(*operations, out.key_ops_);
}

AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::import(EVP_PKEY_CTX* maker, OSSL_PARAM_BLD* parameters, jwk& out) {
  const std::unique_ptr<OSSL_PARAM, openssl_free<&OSSL_PARAM_free>> params(OSSL_PARAM_BLD_to_param(parameters));
  EVP_PKEY* key = nullptr;
  if (!params || maker == nullptr || EVP_PKEY_fromdata_init(maker) != 1 ||
      EVP_PKEY_fromdata(maker, &key, EVP_PKEY_PUBLIC_KEY, params.get()) != 1)
    return refused();
  // No EVP_PKEY_public_check: fromdata has seen that a point is on its curve, and for RSA it is a primality test of n,
  // which takes seconds for a hostile 16384-bit modulus and milliseconds for an honest one.
  out.key_.reset(key);
  return std::nullopt;
}

AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::build_rsa(const json_node& member, jwk& out,
                                                              public_members& published) {
  std::string n, e;
  if (auto why = read_number(member, "n", n)) return why;
  if (auto why = read_number(member, "e", e)) return why;
  trim_zeros(n);  // Firebase once published a leading zero byte
  trim_zeros(e);
  const auto as_bytes = [](const std::string& s) { return reinterpret_cast<const unsigned char*>(s.data()); };
  using bignum = std::unique_ptr<BIGNUM, openssl_free<&BN_free>>;
  const bignum modulus(BN_bin2bn(as_bytes(n), static_cast<int>(n.size()), nullptr));
  const bignum exponent(BN_bin2bn(as_bytes(e), static_cast<int>(e.size()), nullptr));
  const std::unique_ptr<OSSL_PARAM_BLD, openssl_free<&OSSL_PARAM_BLD_free>> parameters(OSSL_PARAM_BLD_new());
  if (!modulus || !exponent || !parameters) return refused();
  out.bits_ = BN_num_bits(modulus.get());
  if (out.bits_ < 2048 || out.bits_ > 16384) return concat("the modulus has ", out.bits_, " bits, not 2048 to 16384");
  if (BN_is_odd(modulus.get()) == 0) return "the modulus is even";
  if (BN_is_odd(exponent.get()) == 0 || BN_is_one(exponent.get()) != 0 || BN_num_bits(exponent.get()) > 64)
    return "the exponent is not odd, at least 3 and at most 64 bits";
  published.emplace_back("n", concat('"', base64url_encode(n), '"'));
  published.emplace_back("e", concat('"', base64url_encode(e), '"'));
  if (OSSL_PARAM_BLD_push_BN(parameters.get(), OSSL_PKEY_PARAM_RSA_N, modulus.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(parameters.get(), OSSL_PKEY_PARAM_RSA_E, exponent.get()) != 1)
    return refused();
  return import(lookups.keys_of("RSA"), parameters.get(), out);
}

AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::build_ec(const json_node& member, const curve_info& curve, jwk& out,
                                                             public_members& published) {
  std::string point(1, '\x04');  // SEC 1 section 2.3.4: uncompressed
  for (const std::string_view name : {"x", "y"}) {
    std::string coordinate;
    if (auto why = read_number(member, name, coordinate)) return why;
    trim_zeros(coordinate);  // one coordinate in 256 starts with a zero, and some providers drop it
    if (coordinate.size() > curve.bytes) return concat(name, " has more than ", curve.bytes, " bytes");
    coordinate.insert(0, curve.bytes - coordinate.size(), '\0');
    published.emplace_back(name, concat('"', base64url_encode(coordinate), '"'));
    point += coordinate;
  }
  const std::unique_ptr<OSSL_PARAM_BLD, openssl_free<&OSSL_PARAM_BLD_free>> parameters(OSSL_PARAM_BLD_new());
  if (!parameters ||
      OSSL_PARAM_BLD_push_utf8_string(parameters.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve.openssl_name, 0) != 1 ||
      OSSL_PARAM_BLD_push_octet_string(parameters.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()) != 1)
    return refused();
  return import(lookups.keys_of("EC"), parameters.get(), out);
}

// A key that OpenSSL takes as bytes.
AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::build_raw(const json_node& member, std::string_view name,
                                                              std::size_t bytes, const char* type, jwk& out,
                                                              public_members& published) {
  std::string raw;
  if (auto why = read_number(member, name, raw)) return why;
  if (raw.size() != bytes) return concat(name, " has ", raw.size(), " bytes, not ", bytes);
  published.emplace_back(name, concat('"', base64url_encode(raw), '"'));
  doubtful = !openssl_knows(type);
  out_of_memory = doubtful && !openssl_knows("RSA");  // which every OpenSSL has
  if (doubtful) return concat("this OpenSSL has no ", type);
  out.key_.reset(EVP_PKEY_new_raw_public_key_ex(nullptr, type, nullptr,
                                                reinterpret_cast<const unsigned char*>(raw.data()), raw.size()));
  if (!out.key_) return refused();
  out.bits_ = EVP_PKEY_get_bits(out.key_.get());
  return std::nullopt;
}

// RFC 9964.
AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::build_ml_dsa(const json_node& member, jwk& out,
                                                                 public_members& published) {
  if (out.alg_.empty()) return "alg is missing";  // it says what kind of key this is
  const ml_dsa_info* info = ml_dsa_of(out.alg_);
  if (info == nullptr) return concat("alg ", quote(out.alg_), " is not supported");
  out.kind_ = kinds_of_alg(out.alg_);
  published.emplace_back("alg", json_string(out.alg_));
  return build_raw(member, "pub", info->bytes, info->alg.data(), out, published);
}

AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::build(const json_node& member, jwk& out) {
  // Per member: the queue has 16 places, and many bad keys would push the application's entries out.
  const openssl_errors scope;
  ERR_raise(ERR_LIB_USER, no_openssl_error);
  if (member.type != json_node::kind::object) return "it is no object";
  if (auto why = read_common(member, out)) return why;
  // RFC 7517 section 4: of equal names either the last counts or the key is refused. Other readers may take the first.
  if (member.twice) return "a name stands in it twice";
  public_members published;
  published.emplace_back("kty", json_string(out.kty_));
  reason why;
  if (out.kty_ == "RSA") {
    out.kind_ = rsa_kind;
    why = build_rsa(member, out, published);
  } else if (out.kty_ == "AKP") {
    why = build_ml_dsa(member, out, published);
  } else {
    const auto* end = curves.data() + curves.size();
    const auto* curve =
        std::find_if(curves.data(), end, [&](const auto& c) { return c.kty == out.kty_ && c.crv == out.curve_; });
    if (curve == end) return concat("crv ", quote(out.curve_), " is not supported");
    if (curve->crv == opt_in_curve && !options.allow_es256k)
      return concat("crv ", quote(out.curve_), " is used with the option allow_es256k only");
    out.bits_ = curve->bits;
    out.kind_ = curve_kind(static_cast<std::size_t>(curve - curves.data()));
    published.emplace_back("crv", json_string(out.curve_));
    why = out.kty_ == "EC" ? build_ec(member, *curve, out, published)
                           : build_raw(member, "x", curve->bytes, curve->openssl_name, out, published);
  }
  if (why) return why;
  if (!out.alg_.empty() && (kinds_of_alg(out.alg_) & out.kind_) == 0)
    return concat("alg ", quote(out.alg_), " does not go with the key");
  return publish(out, published);
}

// Makes the thumbprint of the required members, and the JSON of all public ones.
AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::publish(jwk& out, public_members& published) {
  // RFC 7638 section 3.3: exactly the required members are hashed. None of them needs an escape.
  const std::string canonical = json_object(published);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  const EVP_MD* sha256 = lookups.sha256();
  if (sha256 == nullptr || EVP_Digest(canonical.data(), canonical.size(), digest.data(), &length, sha256, nullptr) != 1)
    return refused();
  out.thumbprint_ = base64url_encode({reinterpret_cast<const char*>(digest.data()), length});

  for (const auto& [name, text] :
       {std::pair("kid", &out.kid_), std::pair("alg", &out.alg_), std::pair("use", &out.use_),
        std::pair("x5t", &out.x5t_), std::pair("x5t#S256", &out.x5t_s256_)}) {
    const bool there = text == &out.alg_ && out.kty_ == "AKP";  // required there
    if (!text->empty() && !there) published.emplace_back(name, json_string(*text));
  }
  if (!out.key_ops_.empty()) {
    std::string operations;
    for (const auto& operation : out.key_ops_)
      operations += concat(operations.empty() ? "[" : ",", json_string(operation));
    published.emplace_back("key_ops", operations + ']');
  }
  out.json_ = json_object(published);
  return std::nullopt;
}

// A key is not left out for want of memory, which may be there again the next moment.
AXIOMS_JWKS_INLINE std::shared_ptr<jwk> jwk_builder::build_surely(const json_node& member, reason& why) {
  std::shared_ptr<jwk> key;
  doubtful = true;
  for (int tries = 0; doubtful && tries < 2; ++tries) {
    doubtful = out_of_memory = false;
    key.reset(new jwk);
    why = build(member, *key);
  }
  return key;
}

AXIOMS_JWKS_INLINE result<jwk_set> jwk_builder::build_set(std::string_view text) {
  const auto refuse = [](const auto&... why) { return make_error(errc::not_a_key_set, why...); };
  const auto tree = json_tree::read(text, {.unkept = unread_names});
  if (!tree) {
    const bool markup = text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size())).starts_with('<');
    return refuse("the body (", text.size(), " bytes) ", tree.error().description,
                  markup ? "; it looks like HTML" : "");
  }
  const json_node& root = tree->root();
  if (root.type != json_node::kind::object) return refuse("the body is JSON, but no object");
  const json_node* members = root.find("keys", json_node::kind::array);
  if (members == nullptr) return refuse("the JSON object has no array named keys");
  std::size_t named_keys = 0;
  for (const json_node& each : root) named_keys += each.name == "keys" ? 1U : 0U;
  if (named_keys > 1) return refuse("the JSON object has several members named keys");

  jwk_set set;
  set.allow_es256k_ = options.allow_es256k;
  set.held_secrets_ = std::any_of(tree->nodes.begin(), tree->nodes.end(), is_secret);
  std::size_t index = 0;
  for (const json_node& member : *members) {
    if (index >= 2 * max_set_members) break;
    reason why = concat("the set has more than ", max_set_members, " members");
    const auto key = index < max_set_members ? build_surely(member, why) : std::shared_ptr<jwk>(new jwk);
    if (out_of_memory) return make_error(errc::no_resources, "OpenSSL had no memory for key ", index, " of the set");
    if (why) {
      set.skipped_.push_back({index, std::move(key->kid_), *std::move(why)});
    } else {
      set.keys_.push_back(key);
    }
    ++index;
  }
  if (set.keys_.empty()) {
    std::string first = set.skipped_.empty() ? std::string("the set is empty")
                                             : concat("the first was skipped because ", set.skipped_.front().reason);
    return make_error(errc::no_usable_key, "none of ", members->count, " members is a usable key: ", first);
  }
  return set;
}

// The key set as it should have been published.
AXIOMS_JWKS_INLINE std::string public_part(const jwk_set& set) {
  std::string out = R"({"keys":[)";
  for (const auto& key : set) out += concat(out.back() == '[' ? "" : ",", key->to_json());
  return out + "]}";
}

// ADFS names its keys by x5t alone, so what is no kid of the set may be the thumbprint of a certificate.
inline bool has_x5t(const jwk& key, std::string_view id) noexcept { return key.x5t() == id || key.x5t_s256() == id; }

// The keys that fit a query, of which its caller wants one.
struct key_choice {
  const key_ptr* first = nullptr;
  std::string rivals;  // thumbprints, if there is more than one key
  std::size_t more = 0;

  void add(const key_ptr& key) {
    if (first == nullptr) {
      first = &key;
      return;
    }
    if ((*first)->thumbprint() == key->thumbprint()) return;  // listed twice, or once per alg: the same key
    if (rivals.empty()) rivals = (*first)->thumbprint();
    if (rivals.size() > 400) {
      ++more;
    } else {
      rivals += concat(", ", key->thumbprint());
    }
  }
};

// What a signature is worth. failed: OpenSSL could not carry out the verification.
enum class signature_state { good, bad, failed };

// The algorithms that sign a digest (RFC 7518 section 3.1, RFC 8812).
struct digest_alg {
  std::string_view alg;
  std::size_t digest;  // SHA-256, SHA-384 or SHA-512
  bool pss = false;
};
inline constexpr std::array digest_algs{
    digest_alg{"RS256", 0},       digest_alg{"RS384", 1},       digest_alg{"RS512", 2}, digest_alg{"PS256", 0, true},
    digest_alg{"PS384", 1, true}, digest_alg{"PS512", 2, true}, digest_alg{"ES256", 0}, digest_alg{"ES384", 1},
    digest_alg{"ES512", 2},       digest_alg{"ES256K", 0}};

// A context for each digest, kept by each thread: fetching a digest by its name takes as long as to compute it. nullptr: no memory.
AXIOMS_JWKS_INLINE EVP_MD_CTX* thread_digest(std::size_t which) noexcept {
  using context = std::unique_ptr<EVP_MD_CTX, openssl_free<&EVP_MD_CTX_free>>;
  static thread_local std::array<context, 3> kept;
  if (!kept[which]) {
    constexpr std::array names{"SHA256", "SHA384", "SHA512"};
    const std::unique_ptr<EVP_MD, openssl_free<&EVP_MD_free>> digest(EVP_MD_fetch(nullptr, names[which], nullptr));
    context made(EVP_MD_CTX_new());
    if (!digest || !made || EVP_DigestInit_ex2(made.get(), digest.get(), nullptr) != 1) return nullptr;
    kept[which] = std::move(made);
  }
  return EVP_DigestInit_ex2(kept[which].get(), nullptr, nullptr) == 1 ? kept[which].get() : nullptr;
}

// r and s side by side (RFC 7518 section 3.4) as OpenSSL wants them: a DER sequence of two integers.
AXIOMS_JWKS_INLINE std::string der_of(std::string_view sides) {
  std::string out("\x30\x81\0", 3);
  out.reserve(sides.size() + 10);
  for (std::string_view half : {sides.substr(0, sides.size() / 2), sides.substr(sides.size() / 2)}) {
    half.remove_prefix(std::min(half.find_first_not_of('\0'), half.size() - 1));
    const bool high = (static_cast<unsigned char>(half.front()) & 0x80U) != 0;
    out += '\x02';
    out += static_cast<char>(half.size() + (high ? 1U : 0U));
    out.append(high ? 1 : 0, '\0').append(half);
  }
  out[2] = static_cast<char>(out.size() - 3);
  if (out.size() - 3 < 128) out.erase(1, 1);
  return out;
}

// A duplicate of a context of the key that is ready for the algorithm. That is made when it is first used, by whichever thread.
AXIOMS_JWKS_INLINE EVP_PKEY_CTX* ready_context(std::atomic<EVP_PKEY_CTX*>& place, EVP_PKEY* key, const digest_alg& how,
                                               const EVP_MD* digest) noexcept {
  EVP_PKEY_CTX* ready = place.load(std::memory_order_acquire);
  if (ready != nullptr) return EVP_PKEY_CTX_dup(ready);
  using context = std::unique_ptr<EVP_PKEY_CTX, openssl_free<&EVP_PKEY_CTX_free>>;
  context made(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr));
  if (!made || EVP_PKEY_verify_init(made.get()) != 1 || EVP_PKEY_CTX_set_signature_md(made.get(), digest) != 1)
    return nullptr;
  const bool rsa = how.alg.front() != 'E';
  if (rsa && EVP_PKEY_CTX_set_rsa_padding(made.get(), how.pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) != 1)
    return nullptr;
  if (how.pss && EVP_PKEY_CTX_set_rsa_pss_saltlen(made.get(), RSA_PSS_SALTLEN_DIGEST) != 1) return nullptr;
  if (place.compare_exchange_strong(ready, made.get(), std::memory_order_acq_rel)) ready = made.release();
  return EVP_PKEY_CTX_dup(ready);
}

AXIOMS_JWKS_INLINE signature_state state_of(int verified) noexcept {
  if (verified == 1) return signature_state::good;
  const bool failed = verified < 0 || ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE;
  return failed ? signature_state::failed : signature_state::bad;
}

AXIOMS_JWKS_INLINE signature_state jwk_builder::digest_signature(const jwk& key, const digest_alg& how,
                                                                 std::string_view message, std::string_view signature) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); };
  const auto length = (static_cast<std::size_t>(key.bits_) + 7) / 8;
  const bool ecdsa = key.kty_ == "EC";
  if (signature.size() != (ecdsa ? 2 * length : length)) return signature_state::bad;
  const std::string der = ecdsa ? der_of(signature) : std::string();
  if (ecdsa) signature = der;
  EVP_MD_CTX* digest = thread_digest(how.digest);
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned hash_length = 0;
  if (digest == nullptr || EVP_DigestUpdate(digest, message.data(), message.size()) != 1 ||
      EVP_DigestFinal_ex(digest, hash.data(), &hash_length) != 1)
    return signature_state::failed;
  const auto row = static_cast<std::size_t>(&how - digest_algs.data());
  const std::unique_ptr<EVP_PKEY_CTX, openssl_free<&EVP_PKEY_CTX_free>> context(
      ready_context(key.contexts_.ready[ecdsa ? 0 : row], key.key_.get(), how, EVP_MD_CTX_get0_md(digest)));
  if (!context) return signature_state::failed;
  return state_of(EVP_PKEY_verify(context.get(), bytes(signature), signature.size(), hash.data(), hash_length));
}

// Ed25519, Ed448 and ML-DSA sign the message itself.
AXIOMS_JWKS_INLINE signature_state jwk_builder::message_signature(const jwk& key, std::string_view message,
                                                                  std::string_view signature) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); };
  const std::unique_ptr<EVP_MD_CTX, openssl_free<&EVP_MD_CTX_free>> context(EVP_MD_CTX_new());
  if (!context ||
      EVP_DigestVerifyInit_ex(context.get(), nullptr, nullptr, nullptr, nullptr, key.key_.get(), nullptr) != 1)
    return signature_state::failed;
  return state_of(EVP_DigestVerify(context.get(), bytes(signature), signature.size(), bytes(message), message.size()));
}

// The algorithm is bound to the key before any cryptography (RFC 8725 section 3.1).
AXIOMS_JWKS_INLINE signature_state signature_of(const jwk& key, std::string_view alg, std::string_view message,
                                                std::string_view signature) noexcept {
  if (kinds_of_alg(alg) == 0 || !jwk_builder::fits(key, alg)) return signature_state::bad;
  const openssl_errors scope;
  AXIOMS_JWKS_TRY {
    for (const digest_alg& how : digest_algs) {
      if (how.alg == alg) return jwk_builder::digest_signature(key, how, message, signature);
    }
    return jwk_builder::message_signature(key, message, signature);
  }
  AXIOMS_JWKS_CATCH_ALL { return signature_state::failed; }
}

AXIOMS_JWKS_INLINE verify_contexts::~verify_contexts() {
  for (auto& each : ready) EVP_PKEY_CTX_free(each.load(std::memory_order_relaxed));
}

}  // namespace detail

AXIOMS_JWKS_INLINE bool jwk::verify(std::string_view alg, std::string_view message,
                                    std::string_view signature) const noexcept {
  return detail::signature_of(*this, alg, message, signature) == detail::signature_state::good;
}

AXIOMS_JWKS_INLINE std::string jwk::to_pem() const {
  const detail::openssl_errors scope;
  const std::unique_ptr<BIO, detail::openssl_free<&BIO_free>> memory(BIO_new(BIO_s_mem()));
  if (!memory || PEM_write_bio_PUBKEY(memory.get(), key_.get()) != 1) return {};
  char* text = nullptr;
  const long length = BIO_get_mem_data(memory.get(), &text);
  return {text, static_cast<std::size_t>(std::max(length, 0L))};
}

AXIOMS_JWKS_INLINE result<jwk_set> jwk_set::parse(std::string_view json, const jwk_options& options) {
  const detail::fork_gate inside;
  return detail::jwk_builder{options}.build_set(json);
}

AXIOMS_JWKS_INLINE std::vector<key_ptr> jwk_set::find(std::string_view kid) const {
  std::vector<key_ptr> found;
  const auto keep = [&](auto meant) { std::copy_if(keys_.begin(), keys_.end(), std::back_inserter(found), meant); };
  keep([&](const key_ptr& key) { return key->kid() == kid; });
  if (found.empty() && !kid.empty()) keep([&](const key_ptr& key) { return detail::has_x5t(*key, kid); });
  return found;
}

AXIOMS_JWKS_INLINE bool jwk_set::contains(std::string_view kid) const noexcept {
  return std::any_of(keys_.begin(), keys_.end(), [&](const key_ptr& key) {
    return key->kid() == kid || (!kid.empty() && detail::has_x5t(*key, kid));
  });
}

AXIOMS_JWKS_INLINE result<key_ptr> jwk_set::select(const key_query& query) const {
  using detail::concat, detail::make_error, detail::quote;
  const detail::key_kinds kinds = detail::kinds_of_alg(query.alg);
  const bool opt_in = kinds == detail::opt_in_kind && !allow_es256k_;
  if (!query.alg.empty() && (kinds == 0 || opt_in))
    return make_error(errc::unsupported_algorithm, "alg ", quote(query.alg), " is not accepted");
  const auto fits = [&](const jwk& key) {
    if (query.alg.empty()) return true;
    if ((key.kind_ & kinds) == 0) return false;
    return key.alg().empty() || detail::same_name(key.alg(), query.alg) ||
           key.kty() == "OKP";  // EdDSA and Ed25519 name the same (RFC 9864)
  };
  detail::key_choice chosen;
  bool kid_known = query.kid.empty();
  for (const auto& key : keys_) {
    if (!query.kid.empty() && !detail::same_name(key->kid(), query.kid)) continue;
    kid_known = true;
    if (fits(*key)) chosen.add(key);
  }
  if (!kid_known) {
    for (const auto& key : keys_) {
      if (detail::has_x5t(*key, query.kid) && fits(*key)) chosen.add(key);
    }
  }
  const auto asked = [&]() -> std::string {
    if (query.kid.empty() && query.alg.empty()) return "a query without kid and alg";
    const std::string kid = query.kid.empty() ? std::string() : concat("kid ", quote(query.kid));
    if (query.alg.empty()) return kid;
    return concat(kid, kid.empty() ? "alg " : " and alg ", quote(query.alg));
  };
  if (chosen.first == nullptr) {
    // Not that the key is unknown: no fetch can help.
    if (const auto* info = detail::ml_dsa_of(query.alg); info != nullptr && !detail::openssl_knows(info->alg.data()))
      return make_error(errc::unsupported_algorithm, "alg ", quote(query.alg),
                        " is not accepted: this OpenSSL lacks it");
    return make_error(errc::key_not_found, "no key of the set fits ", asked());
  }
  if (!chosen.rivals.empty()) {
    return make_error(errc::key_ambiguous, "several keys fit ", asked(), ", thumbprints: ", chosen.rivals,
                      chosen.more > 0 ? concat(" and ", chosen.more, " more") : std::string());
  }
  return *chosen.first;
}

namespace detail {

// -- refresh policy --

// One that could split our next request is as good as none.
AXIOMS_JWKS_INLINE std::string validator(const fetch_response& response, std::string_view name) {
  const std::string_view value = response.header(name);
  return value.size() <= 1024 && is_header_safe(value) ? std::string(value) : std::string();
}

// 203 is a 200 that a proxy has changed (RFC 9110 section 15.3.4).
constexpr bool brings_content(int status) noexcept { return status == 200 || status == 203; }

AXIOMS_JWKS_INLINE verdict judge_answer(const fetch_request& request, result<fetch_response> response,
                                        std::chrono::system_clock::time_point now, const jwk_options& options) {
  verdict out;
  const auto failed = [&](axioms::error why) {
    out.what = verdict::kind::failure;
    out.why = std::move(why);
    if (out.status != 0) out.why.http_status = out.status;          // else a fetcher may have told one, a proxy's 407
    if (out.why.code == errc{}) out.why.code = errc::fetch_failed;  // a fetcher's error without a code is still one
    return std::move(out);
  };
  const std::string from = quote(request.url, 256);
  if (!response) return failed(std::move(response).error());
  out.status = response->status;
  out.freshness = freshness_lifetime(*response, now);
  out.retry_after = retry_after(*response, now);
  out.etag = validator(*response, "ETag");
  out.last_modified = validator(*response, "Last-Modified");
  if (out.status == 304 && !(request.etag.empty() && request.last_modified.empty())) {
    out.what = verdict::kind::not_modified;
    return out;
  }
  if (!brings_content(out.status))
    return failed(make_error(errc::http_status, "HTTP status ", out.status, " from ", from));
  if (response->body.size() > request.max_body_bytes) {
    return failed(make_error(errc::response_too_large, "the body from ", from, " is over the limit of ",
                             request.max_body_bytes, " bytes"));
  }
  auto keys = jwk_set::parse(response->body, options);
  if (!keys) return failed(make_error(keys.error().code, "no key set from ", from, ": ", keys.error().description));
  out.content = std::make_shared<document_content>();
  out.content->body = keys->held_secrets() ? public_part(*keys) : std::move(response->body);
  out.content->keys = *std::move(keys);
  out.what = verdict::kind::document;
  return out;
}

// Short enough for a string that allocates nothing.
inline axioms::error out_of_memory_error() noexcept { return {errc::no_resources, "out of memory", 0}; }

AXIOMS_JWKS_INLINE verdict judge(const fetch_request& request, result<fetch_response> response,
                                 std::chrono::system_clock::time_point now, const jwk_options& options) {
  AXIOMS_JWKS_TRY { return judge_answer(request, std::move(response), now, options); }
  AXIOMS_JWKS_CATCH_ALL {
    verdict out;
    out.why = out_of_memory_error();
    return out;
  }
}

AXIOMS_JWKS_INLINE result<seconds> age_of_saved(std::chrono::system_clock::time_point now, std::int64_t fetched_at) {
  const std::int64_t today = std::chrono::floor<seconds>(now.time_since_epoch()).count();
  if (fetched_at < 0 || fetched_at > today + max_wall_clock_step.count())
    return make_error(errc::not_a_key_set, "it was fetched before 1970 or in the future (", fetched_at, ", now it is ",
                      today, ")");
  if (today - fetched_at > max_duration.count())
    return make_error(errc::not_a_key_set, "it was fetched more than 10 years ago (", fetched_at, ")");
  return seconds(std::max<std::int64_t>(today - fetched_at, 0));
}

AXIOMS_JWKS_INLINE result<metadata_source> metadata_source_of(const jwks_config& config) {
  const auto base = issuer_base(config);
  if (!base) return base.error();
  const auto url = parse_url(*base);
  if (!url) return url.error();
  metadata_source out;
  out.issuer = config.issuer.empty() ? *base : config.issuer;
  out.slash_optional = config.issuer.empty();
  out.urls[0] = concat(*base, "/.well-known/openid-configuration");
  out.urls[1] = concat(url->scheme(), "://", url->authority(), "/.well-known/oauth-authorization-server",
                       url->target == "/" ? std::string() : url->target);
  return out;
}

AXIOMS_JWKS_INLINE metadata judge_metadata_answer(const fetch_request& request, result<fetch_response> response,
                                                  const metadata_source& source,
                                                  std::chrono::system_clock::time_point now) {
  metadata out;
  const auto failed = [&](axioms::error why) {
    out.why = std::move(why);
    if (out.status != 0) out.why.http_status = out.status;
    if (out.why.code == errc{}) out.why.code = errc::fetch_failed;
    return std::move(out);
  };
  const std::string from = quote(request.url, 256);
  const auto no_metadata = [&](const auto&... why) {
    return failed(make_error(errc::not_a_key_set, "no metadata of the issuer from ", from, ": ", why...));
  };
  if (!response) return failed(std::move(response).error());
  out.status = response->status;
  out.freshness = freshness_lifetime(*response, now);
  out.retry_after = retry_after(*response, now);
  out.etag = validator(*response, "ETag");
  out.last_modified = validator(*response, "Last-Modified");
  if (out.status == 304 && !(request.etag.empty() && request.last_modified.empty())) {
    out.what = metadata::kind::not_modified;
    return out;
  }
  if (!brings_content(out.status)) {
    // Not there, or not for us. Those that ask us to come back later say nothing about where the metadata are.
    if (out.status >= 400 && out.status < 500 && out.status != 408 && out.status != 429)
      out.what = metadata::kind::absent;
    return failed(make_error(errc::http_status, "HTTP status ", out.status, " from ", from));
  }
  if (response->body.size() > request.max_body_bytes) {
    return failed(make_error(errc::response_too_large, "the body from ", from, " is over the limit of ",
                             request.max_body_bytes, " bytes"));
  }
  const auto document = json_tree::read(response->body, {});
  if (!document) return no_metadata("the body ", document.error().description);
  const json_node& root = document->root();
  if (root.type != json_node::kind::object) return no_metadata("the body is JSON, but no object");
  const json_node* const issuer = root.find("issuer", json_node::kind::string);
  if (issuer == nullptr) return no_metadata("it has no string named issuer");
  if (issuer->text != source.issuer && !(source.slash_optional && issuer->text == source.issuer + "/"))
    return no_metadata("its issuer is ", quote(issuer->text, 256), ", not ", quote(source.issuer, 256));
  const json_node* const jwks_uri = root.find("jwks_uri", json_node::kind::string);
  if (jwks_uri == nullptr) return no_metadata("it has no string named jwks_uri");
  const auto url = parse_url(jwks_uri->text);
  if (!url) return failed(make_error(errc::not_a_key_set, "the jwks_uri from ", from, ": ", url.error().description));
  if (const auto own = parse_url(request.url); own && own->https && !url->https)
    return no_metadata("its jwks_uri ", quote(jwks_uri->text, 256), " is http, the metadata are https");
  out.jwks_uri = url->normalized;
  out.what = metadata::kind::found;
  return out;
}

AXIOMS_JWKS_INLINE metadata judge_metadata(const fetch_request& request, result<fetch_response> response,
                                           const metadata_source& source, std::chrono::system_clock::time_point now) {
  AXIOMS_JWKS_TRY { return judge_metadata_answer(request, std::move(response), source, now); }
  AXIOMS_JWKS_CATCH_ALL {
    metadata out;
    out.why = out_of_memory_error();
    return out;
  }
}

AXIOMS_JWKS_INLINE discovery_policy::step discovery_policy::begin(steady_point now) {
  failure_.reset();
  other_form_tried_ = false;
  if (usable(now) && now < retry_at_) return step::keys;
  return jwks_uri_.empty() || suspect_ || now >= reread_at_ ? step::metadata : step::keys;
}

AXIOMS_JWKS_INLINE discovery_policy::step discovery_policy::read(steady_point now, metadata&& what) {
  if (what.what == metadata::kind::found || (what.what == metadata::kind::not_modified && !jwks_uri_.empty())) {
    read_at_ = now;
    reread_at_ =
        later(now, what.freshness ? std::min(std::max(*what.freshness, floor_), reread_after_) : reread_after_);
    retry_at_ = steady_point{};
    failure_.reset();
    if (what.what == metadata::kind::found) jwks_uri_ = std::move(what.jwks_uri);
    if (what.what == metadata::kind::found || !what.etag.empty()) etag_ = std::move(what.etag);
    if (what.what == metadata::kind::found || !what.last_modified.empty())
      last_modified_ = std::move(what.last_modified);
    return step::keys;
  }
  const bool absent = what.what == metadata::kind::absent;
  if (what.what == metadata::kind::not_modified)
    what.why = {errc::http_status, "HTTP status 304 for metadata that were not there", what.status};
  // With a key set that cannot be had every flight asks again, unless that costs it its time.
  if (!suspect_ || what.why.code == errc::timed_out) retry_at_ = std::max(retry_at_, later(now, floor_));
  if (what.retry_after)
    retry_at_ = std::max(retry_at_, later(now, std::min<milliseconds>(*what.retry_after, retry_after_max_)));
  if (!failure_ || !absent) failure_ = std::move(what);
  if (absent && !other_form_tried_) {
    other_form_tried_ = true;
    form_ = 1 - form_;
    etag_.clear();
    last_modified_.clear();
    return step::metadata;
  }
  if (other_form_tried_) form_ = 1 - form_;
  return usable(now) ? step::keys : step::fail;
}

// Uniform in [0, most).
inline milliseconds scaled(milliseconds most, std::uint64_t random) noexcept {
  return milliseconds(
      static_cast<std::int64_t>(static_cast<double>(most.count()) * (static_cast<double>(random >> 11U) * 0x1p-53)));
}

AXIOMS_JWKS_INLINE void refresh_policy::configure(const jwks_config& config) noexcept {
  refresh_ = config.refresh_interval;
  ttl_ = config.cache_ttl;
  outage_ = config.outage_window;
  floor_ = std::min(config.min_refresh_interval, config.refresh_interval);
  grace_ = config.withdrawn_key_grace;
  timeout_ = config.fetch_timeout;
  backoff_initial_ = config.backoff_initial;
  backoff_max_ = config.backoff_max;
  retry_after_max_ = config.retry_after_max;
  kid_interval_ = config.unknown_kid_interval;
  kid_burst_ = config.unknown_kid_burst;
  tokens_ = std::min(tokens_, kid_burst_);
  // A document from a lazy life keeps its age; its renewal must not wait for the old, longer interval.
  if (has_document_ && !pinned_ && !last_error_) next_attempt_ = std::min(next_attempt_, later(fetched_at_, refresh_));
}

// While there is nothing to serve, a lookup may try again after 10 s at most: the provider's return must not be missed
// for the rest of a long backoff. What the provider itself asked for is kept all the same.
AXIOMS_JWKS_INLINE steady_point refresh_policy::blocked_until(steady_point now) const noexcept {
  const steady_point own =
      servable(now) ? backoff_until_ : std::min(backoff_until_, later(failed_at_, max_backoff_without_document));
  return std::max(own, retry_after_until_);
}

AXIOMS_JWKS_INLINE refresh_policy::answer refresh_policy::ask(steady_point now) const noexcept {
  const bool blocked = last_error_ && now < blocked_until(now);
  if (servable(now)) {
    if (now < expires_at()) return answer::fresh;
    return in_flight_ || blocked ? answer::stale : answer::start;
  }
  if (in_flight_) return answer::join;
  return blocked ? answer::refuse : answer::start;
}

AXIOMS_JWKS_INLINE std::uint64_t refresh_policy::begin(steady_point now) noexcept {
  in_flight_ = true;
  deadline_ = later(now, timeout_);
  return ++newest_;
}

AXIOMS_JWKS_INLINE bool refresh_policy::expire(steady_point now, std::uint64_t random) {
  if (!in_flight_ || now < deadline_) return false;
  in_flight_ = false;
  fail(now, make_error(errc::timed_out, "the fetch took longer than fetch_timeout (", timeout_.count(), " ms)"),
       std::nullopt, random);
  return true;
}

AXIOMS_JWKS_INLINE refresh_policy::landing refresh_policy::land(std::uint64_t flight, steady_point now,
                                                                const verdict& what, bool confirms_current,
                                                                std::uint64_t random, const jwk_set* served) {
  const bool current = in_flight(flight);
  const bool good =
      what.what == verdict::kind::document || (what.what == verdict::kind::not_modified && confirms_current);
  if (good) {
    if (flight <= answered_) return landing::dropped;  // a newer flight has brought its answer already
    if (current) in_flight_ = false;
    if (what.what == verdict::kind::document) {
      missing_.clear();
      replaced_at_ = now;
      if (served != nullptr) replace_keys(now, *served, what.content->keys);
    }
    succeed(flight, now, what.freshness, random);
    return what.what == verdict::kind::document ? landing::published : landing::confirmed;
  }
  if (!current) return landing::dropped;  // it was counted as failed when it overstayed
  in_flight_ = false;
  if (what.what == verdict::kind::not_modified) {
    fail(now, axioms::error{errc::http_status, "HTTP status 304 for a document that was replaced meanwhile", 304},
         what.retry_after, random);
  } else {
    fail(now, what.why, what.retry_after, random);
  }
  return landing::failed;
}

AXIOMS_JWKS_INLINE void refresh_policy::succeed(std::uint64_t flight, steady_point now,
                                                const std::optional<seconds>& freshness,
                                                std::uint64_t random) noexcept {
  answered_ = flight;
  has_document_ = true;
  fetched_at_ = now;
  last_error_.reset();
  failures_ = 0;
  backoff_until_ = retry_after_until_ = steady_point{};
  milliseconds wait = refresh_, least{0};
  if (freshness && std::max(*freshness, floor_) < refresh_) {  // the server may ask for sooner, never for later
    wait = std::max(*freshness, floor_);
    least = floor_;
  }
  next_attempt_ = later(now, std::max(wait - scaled(wait / 10, random), least));
}

AXIOMS_JWKS_INLINE void refresh_policy::fail(steady_point now, const axioms::error& why,
                                             const std::optional<seconds>& retry_after, std::uint64_t random) {
  last_error_ = why;
  failures_ = std::min(failures_ + 1, 1000000);
  failed_at_ = now;
  milliseconds limit = backoff_initial_;
  for (int i = 1; i < failures_ && limit < backoff_max_; ++i) limit *= 2;
  limit = std::min(limit, backoff_max_);
  backoff_until_ = later(now, std::max(scaled(limit, random), (backoff_initial_ + milliseconds(1)) / 2));
  retry_after_until_ = steady_point{};
  next_attempt_ = backoff_until_;
  if (retry_after) {
    const milliseconds asked = std::min<milliseconds>(*retry_after, retry_after_max_);
    retry_after_until_ = later(now, asked);
    // Whoever was told the same date must not come back in the same second.
    next_attempt_ = std::max(next_attempt_, later(retry_after_until_, scaled(std::min(asked, backoff_max_), random)));
  }
}

AXIOMS_JWKS_INLINE bool refresh_policy::take_token(steady_point now) noexcept {
  if (!bucket_touched_) {
    bucket_touched_ = true;
    tokens_ = kid_burst_;
    bucket_at_ = now;
  } else if (now > bucket_at_) {
    const auto earned = (now - bucket_at_) / kid_interval_;
    tokens_ =
        static_cast<int>(std::min<std::int64_t>(kid_burst_, tokens_ + std::min<std::int64_t>(earned, kid_burst_)));
    bucket_at_ += earned * kid_interval_;
    if (tokens_ == kid_burst_) bucket_at_ = now;  // a full bucket earns nothing
  }
  if (tokens_ <= 0) return false;
  --tokens_;
  return true;
}

AXIOMS_JWKS_INLINE refresh_policy::kid_answer refresh_policy::ask_unknown_kid(steady_point now, std::string_view kid,
                                                                              std::size_t waiting) {
  if (pinned_ || kid.size() > max_kid_bytes) return kid_answer::missing;
  if (const auto found = missing_.find(kid); found != missing_.end()) {
    if (now < found->second) return kid_answer::missing;
    missing_.erase(found);
  }
  return ask_for_refetch(now, waiting);
}

AXIOMS_JWKS_INLINE refresh_policy::kid_answer refresh_policy::ask_bad_signature(steady_point now, std::size_t waiting,
                                                                                bool insist) {
  if (pinned_ || (!insist && now < later(fetched_at_, negative_kid_ttl))) return kid_answer::missing;
  return ask_for_refetch(now, waiting);
}

// The one budget of all that tokens can make us fetch.
AXIOMS_JWKS_INLINE refresh_policy::kid_answer refresh_policy::ask_for_refetch(steady_point now,
                                                                              std::size_t waiting) noexcept {
  if (waiting >= max_kid_waiters) return kid_answer::throttled;
  if (in_flight_) return kid_answer::join;
  // Our own backoff may be long, and a rotation may have gone with the outage: no longer than the budget's interval.
  const steady_point own = std::min(backoff_until_, later(failed_at_, kid_interval_));
  if (last_error_ && now < std::max(own, retry_after_until_)) return kid_answer::refuse;
  return take_token(now) ? kid_answer::start : kid_answer::throttled;
}

AXIOMS_JWKS_INLINE void refresh_policy::remember_missing(steady_point now, std::string_view kid) {
  if (missing_.size() >= max_negative_kids && missing_.find(kid) == missing_.end()) {
    missing_.erase(std::min_element(missing_.begin(), missing_.end(),
                                    [](const auto& a, const auto& b) { return a.second < b.second; }));
  }
  missing_.insert_or_assign(std::string(kid), later(now, negative_kid_ttl));
}

AXIOMS_JWKS_INLINE refresh_policy::selection refresh_policy::select(steady_point now, const jwk_set& served,
                                                                    const key_query& query) const {
  auto key = served.select(query);
  if (key || key.error().code != errc::key_not_found) return {std::move(key), false};
  std::vector<key_ptr> graced;
  for (const auto& [withdrawn, since] : withdrawn_) {
    if (now < later(since, grace_)) graced.push_back(withdrawn);
  }
  if (!graced.empty()) {
    if (auto old = jwk_builder::set_of(std::move(graced)).select(query)) return {std::move(old), false};
  }
  return {std::move(key), !query.kid.empty() && !served.contains(query.kid)};
}

// What the new set lacks is withdrawn now, and what came back is withdrawn no more. Keys of a set that was not served any
// more are not brought back.
AXIOMS_JWKS_INLINE void refresh_policy::replace_keys(steady_point now, const jwk_set& served, const jwk_set& keys) {
  const auto published = [&](const key_ptr& key) {
    return std::any_of(keys.begin(), keys.end(), [&](const key_ptr& other) {
      return other->thumbprint() == key->thumbprint() && other->kid() == key->kid();
    });
  };
  withdrawn_.erase(
      std::remove_if(withdrawn_.begin(), withdrawn_.end(),
                     [&](const auto& old) { return now >= later(old.second, grace_) || published(old.first); }),
      withdrawn_.end());
  if (grace_.count() == 0 || !servable(now)) return;
  for (const auto& key : served) {
    if (!published(key)) withdrawn_.emplace_back(key, now);
  }
  if (withdrawn_.size() > max_withdrawn_keys)
    withdrawn_.erase(withdrawn_.begin(), withdrawn_.end() - static_cast<std::ptrdiff_t>(max_withdrawn_keys));
}

AXIOMS_JWKS_INLINE void refresh_policy::pin(steady_point now, const jwk_set& keys, const jwk_set* served) {
  if (served != nullptr) replace_keys(now, *served, keys);
  pinned_ = has_document_ = true;
  fetched_at_ = replaced_at_ = now;
  in_flight_ = false;
  answered_ = newest_;  // what is still in the air is overtaken
  next_attempt_ = steady_point::max();
  last_error_.reset();
  failures_ = 0;
  missing_.clear();
}

AXIOMS_JWKS_INLINE bool refresh_policy::restore(steady_point now, steady_point fetched_at) noexcept {
  if (has_document_ && (servable(now) || fetched_at <= fetched_at_)) return false;
  has_document_ = true;
  fetched_at_ = fetched_at;
  if (!last_error_) next_attempt_ = now;  // else the backoff says when
  return true;
}

// -- clocks --

// How many threads are inside, and above that how many wait to fork. No mutex: whatever is waited for here would be in
// an unknown state in the child.
inline std::atomic<std::uint64_t> gate{0};
inline constexpr std::uint64_t one_fork = std::uint64_t{1} << 32U;
inline thread_local constinit int gate_depth = 0;

inline void pause_at_gate() noexcept { std::this_thread::sleep_for(std::chrono::microseconds(20)); }

AXIOMS_JWKS_INLINE fork_gate::fork_gate() noexcept {
  if (gate_depth++ > 0) return;
  watch_forks();
  while (gate.fetch_add(1) >= one_fork) {
    gate.fetch_sub(1);
    pause_at_gate();
  }
}
AXIOMS_JWKS_INLINE fork_gate::~fork_gate() {
  if (--gate_depth == 0) gate.fetch_sub(1);
}
AXIOMS_JWKS_INLINE bool fork_gate::closing() noexcept { return gate.load(std::memory_order_relaxed) >= one_fork; }

AXIOMS_JWKS_INLINE void watch_forks() noexcept {
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = ::pthread_atfork(
      [] {
        gate.fetch_add(one_fork);
        while (gate.load() % one_fork > (gate_depth > 0 ? 1U : 0U)) pause_at_gate();
      },
      [] { gate.fetch_sub(one_fork); },
      [] {
        gate.store(gate_depth > 0 ? 1 : 0);
        fork_counter.fetch_add(1, std::memory_order_relaxed);
      });
  static_cast<void>(registered);
#endif
}

// -- threads --

#if defined(__unix__) || defined(__APPLE__)
// What is started meanwhile takes no signal of the application's, whose handlers expect their own threads. Those that
// tell of a fault come to the thread that has it.
class signals_blocked {
 public:
  signals_blocked() noexcept {
    sigset_t most;
    ::sigfillset(&most);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) ::sigdelset(&most, fault);
    ::pthread_sigmask(SIG_BLOCK, &most, &before_);
  }
  ~signals_blocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  signals_blocked(const signals_blocked&) = delete;
  signals_blocked& operator=(const signals_blocked&) = delete;

 private:
  sigset_t before_{};
};
#endif

#if defined(AXIOMS_JWKS_NO_EXCEPTIONS) && (defined(__unix__) || defined(__APPLE__))
// A jthread would end the program where it cannot be started.
class own_thread {
 public:
  own_thread() noexcept = default;
  own_thread(own_thread&& other) noexcept : handle_(other.handle_), joinable_(std::exchange(other.joinable_, false)) {}
  own_thread& operator=(own_thread&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(joinable_, other.joinable_);
    return *this;
  }
  ~own_thread() {
    if (joinable_) join();
  }
  [[nodiscard]] bool joinable() const noexcept { return joinable_; }
  void join() noexcept {
    ::pthread_join(handle_, nullptr);
    joinable_ = false;
  }
  void detach() noexcept {
    ::pthread_detach(handle_);
    joinable_ = false;
  }
  template <class Body>
  [[nodiscard]] bool start(Body&& body) noexcept {
    auto* owned = new (std::nothrow) Body(std::move(body));
    const auto run = [](void* argument) -> void* {
      const std::unique_ptr<Body> mine(static_cast<Body*>(argument));
      (*mine)();
      return nullptr;
    };
    joinable_ = owned != nullptr && ::pthread_create(&handle_, nullptr, run, owned) == 0;
    if (!joinable_) delete owned;
    return joinable_;
  }

 private:
  pthread_t handle_{};
  bool joinable_ = false;
};
#else
using own_thread = jthread;
#endif

// Every thread of ours starts here. False: it could not be.
template <class Run>
[[nodiscard]] bool start_thread(own_thread& out, Run run) noexcept {
#if defined(__unix__) || defined(__APPLE__)
  const signals_blocked quiet;
#endif
  auto body = [run = std::move(run)]() mutable {
    {
      auto once = std::move(run);
      once();
    }
    const fork_gate inside;  // or OpenSSL would do it, under its lock, when the thread ends
    OPENSSL_thread_stop();
  };
#if defined(AXIOMS_JWKS_NO_EXCEPTIONS) && (defined(__unix__) || defined(__APPLE__))
  return out.start(std::move(body));
#else
  AXIOMS_JWKS_TRY {
    out = own_thread(std::move(body));
    return true;
  }
  AXIOMS_JWKS_CATCH_ALL { return false; }
#endif
}

// -- blocking manager: hits --

AXIOMS_JWKS_INLINE hit_slot* find_slot(hit_cache& cache, std::uint64_t engine, std::string_view url) noexcept {
  for (hit_slot& slot : cache.slots) {
    if (slot.engine == engine && slot.url == url) return cache.recent = &slot;
  }
  return nullptr;
}

AXIOMS_JWKS_INLINE void keep_hit(std::uint64_t engine, std::string_view url, const outcome& served) noexcept {
  struct owner {
    hit_cache cache;
    owner() noexcept {
      static std::atomic<std::size_t> threads{0};
      cache.shard = threads.fetch_add(1, std::memory_order_relaxed);
      this_thread_hits = &cache;
    }
    // Destructors of other thread_locals may still look keys up: they find no cache and take the slow path.
    ~owner() { this_thread_hits = nullptr; }
  };
  static thread_local bool ended = false;
  struct end_mark {
    ~end_mark() { ended = true; }
  };
  if (ended || url.size() > max_url_bytes) return;
  static thread_local owner mine;
  static thread_local end_mark mark;  // made after `mine`, so that it ends before it
  static_cast<void>(mark);

  AXIOMS_JWKS_TRY {
    hit_cache& cache = mine.cache;
    std::size_t at = cache.next;
    for (std::size_t i = 0; i < cache.slots.size(); ++i) {
      if (cache.slots[i].engine == engine && cache.slots[i].url == url) at = i;
    }
    if (at == cache.next) cache.next = (cache.next + 1) % cache.slots.size();
    hit_slot& slot = cache.slots[at];
    // A control block per thread: the counts of copies made here stay in this core's cache.
    const auto block = std::make_shared<const jwks_ptr>(served.document);
    slot.engine = 0;
    slot.url = url;
    slot.source = served.source;
    slot.version = served.version;
    slot.document = jwks_ptr(block, served.document.get());
    slot.until = served.document->expires_at();
    slot.touch = steady_point{};
    slot.engine = engine;
    cache.recent = &slot;
  }
  AXIOMS_JWKS_CATCH_ALL {}  // out of memory: the next lookup takes the slow path again
}

// -- blocking manager: engine --

// Has the kid keys in the new set, and others than it had before?
inline bool has_other_keys(const jwk_set* before, const jwk_set& after, std::string_view kid) {
  const auto fresh = after.find(kid);
  if (fresh.empty()) return false;
  const auto old = before != nullptr ? before->find(kid) : std::vector<key_ptr>();
  const auto same = [](const key_ptr& a, const key_ptr& b) { return a->thumbprint() == b->thumbprint(); };
  return !std::is_permutation(old.begin(), old.end(), fresh.begin(), fresh.end(), same);
}

// One URL of a manager. Guarded by the engine's mutex.
struct entry {
  entry(std::string normalized, bool https, std::shared_ptr<const jwks_config> its_config)
      : url(std::move(normalized)), insecure(!https), config(std::move(its_config)), policy(*config) {}

  const std::string url;
  const bool insecure;
  std::shared_ptr<const jwks_config> config;
  refresh_policy policy;
  std::optional<discovery_policy> discovery;
  bool configured = false;
  bool gone = false;     // dropped while a flight was in the air
  bool refused = false;  // from the lazy life; goes when nobody waits for it any more
  bool stale_told = false, throttled_told = false;
  jwks_ptr document;
  std::shared_ptr<const document_content> previous;  // what the document replaced
  std::string etag, last_modified;
  std::shared_ptr<publication> cell = std::make_shared<publication>();
  std::shared_ptr<flight> current;
  std::list<std::shared_ptr<waiter>> waiters;
  std::size_t kid_waiters = 0;
};

// What is to be done when the mutex is free again.
struct effects {
  std::vector<std::shared_ptr<waiter>> finished;
  std::vector<std::shared_ptr<flight>> launches, stopped;
  // Kept until the mutex is free: the last reference to a document frees all its keys, and that to a configuration destroys
  // what the user's listener captured, which may call us.
  std::vector<jwks_ptr> replaced;
  std::vector<std::shared_ptr<const document_content>> contents;
  std::vector<std::shared_ptr<const jwks_config>> configs;
  std::vector<std::shared_ptr<entry>> entries;
  bool rescheduled = false, events = false;

  [[nodiscard]] bool empty() const noexcept {
    return finished.empty() && launches.empty() && stopped.empty() && replaced.empty() && configs.empty() &&
           entries.empty() && !rescheduled && !events;
  }
};

inline error shut_down_error() { return {errc::shut_down, "the manager is shut down; initialize() starts it", 0}; }
inline error cancelled_error() { return {errc::cancelled, "the caller asked to stop", 0}; }
inline error clock_error() { return {errc::fetch_failed, "the clock threw an exception", 0}; }
inline outcome failed(error why) {
  outcome out;
  out.failure = std::move(why);
  return out;
}

AXIOMS_JWKS_INLINE engine::engine() noexcept
    : id_([] {
        static std::atomic<std::uint64_t> last{0};
        return last.fetch_add(1, std::memory_order_relaxed) + 1;
      }()),
      epoch_(fork_epoch()),
      config_(std::make_shared<const jwks_config>()) {}

AXIOMS_JWKS_INLINE engine::~engine() = default;

AXIOMS_JWKS_INLINE std::uint64_t engine::draw() const noexcept {
  std::shared_ptr<const jwks_config> config;
  {
    const std::lock_guard lock(mutex_);
    config = config_;
  }
  if (!config->random) return default_random();
  AXIOMS_JWKS_TRY { return config->random(); }
  AXIOMS_JWKS_CATCH_ALL { return default_random(); }
}

// Finds the URL, or makes an entry for it. Errors are of the argument; they come before those of the state.
AXIOMS_JWKS_INLINE result<std::shared_ptr<entry>> engine::find(const request& asked, steady_point now, bool create,
                                                               effects& fx) {
  if (!asked.url) {
    if (state_ == life::down) return shut_down_error();
    if (configured_) return configured_;
    return error{errc::invalid_config, "there is no configured URL: call initialize(), or name one", 0};
  }
  auto url = parse_url(*asked.url);
  if (!url) return std::move(url).error();
  if (config_->require_https && !url->https) return insecure_url_error(url->normalized);
  if (state_ == life::down) return shut_down_error();
  const auto found = entries_.find(url->normalized);
  if (found != entries_.end()) {
    found->second->cell->last_used.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    return found->second;
  }
  if (config_->only_configured_urls) {
    return make_error(errc::invalid_url, "URL ", quote(url->normalized),
                      " is not configured, and only_configured_urls is set");
  }
  if (!create) return std::shared_ptr<entry>();
  if (auto room = make_room(fx); !room) return std::move(room).error();
  auto fresh = std::make_shared<entry>(url->normalized, url->https, config_);
  fresh->cell->last_used.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  entries_.emplace(fresh->url, fresh);
  return fresh;
}

AXIOMS_JWKS_INLINE std::size_t engine::looked_up_urls() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(entries_.begin(), entries_.end(), [](const auto& each) { return !each.second->configured; }));
}

// Looked-up URLs may come from anywhere, so their number is bounded; the least recently used goes.
AXIOMS_JWKS_INLINE result<void> engine::make_room(effects& fx) {
  if (looked_up_urls() < max_looked_up_urls) return {};
  std::shared_ptr<entry> oldest;
  for (const auto& [url, on] : entries_) {
    if (on->configured || !on->waiters.empty()) continue;
    if (!oldest ||
        on->cell->last_used.load(std::memory_order_relaxed) < oldest->cell->last_used.load(std::memory_order_relaxed))
      oldest = on;
  }
  if (!oldest) {
    ++stats_.throttled;
    return make_error(errc::throttled, "lookups of ", max_looked_up_urls, " other URLs are waiting for their fetch");
  }
  drop(oldest, fx);
  return {};
}

AXIOMS_JWKS_INLINE void engine::drop(const std::shared_ptr<entry>& on, effects& fx) {
  on->gone = true;
  on->cell->version.fetch_add(1, std::memory_order_release);
  if (on->document) fx.replaced.push_back(std::move(on->document));
  if (on->current) fx.stopped.push_back(std::move(on->current));
  on->current.reset();
  fx.entries.push_back(on);
  entries_.erase(on->url);
}

// One step of a request: answers it, or says that it must wait. Without who it never starts anything, and waiting is
// all it says.
AXIOMS_JWKS_INLINE engine::progress engine::step(const request& asked, entry& on, steady_point now, outcome& out,
                                                 waiter* who, effects& fx) {
  if (asked.what == verb::ready) {
    if (on.policy.servable(now)) return progress::done;
    if (who != nullptr)
      who->deadline = later(now, std::clamp<milliseconds>(asked.limit, milliseconds(0), max_duration));
    return progress::must_wait;
  }
  if (asked.what == verb::refresh) return on.policy.pinned() ? progress::done : progress::must_wait;
  if (asked.what == verb::bad_signature && who != nullptr && !who->before) who->before = on.document;
  switch (on.policy.ask(now)) {
    case refresh_policy::answer::fresh:
    case refresh_policy::answer::stale: return serve(asked, on, now, out, who, fx);
    case refresh_policy::answer::refuse:
      ++stats_.misses;
      out.failure = on.policy.last_error();
      return progress::done;
    default: return progress::must_wait;
  }
}

AXIOMS_JWKS_INLINE engine::progress engine::serve(const request& asked, entry& on, steady_point now, outcome& out,
                                                  waiter* who, effects& fx) {
  if (asked.what == verb::bad_signature) return ask_for_kid(asked, on, now, out, who, fx);
  if (asked.what == verb::key) {
    auto [key, kid_unknown] = on.policy.select(now, on.document->keys(), asked.query);
    if (kid_unknown) return ask_for_kid(asked, on, now, out, who, fx);
    if (key) {
      out.key = *std::move(key);
    } else {
      out.failure = std::move(key).error();
    }
  }
  out.document = on.document;
  if (on.policy.stale(now)) {
    ++stats_.stale_served;
    if (!on.stale_told) {
      on.stale_told = true;
      jwks_event event;
      event.kind = jwks_event_kind::stale;
      event.error = on.policy.last_error();
      tell(on, std::move(event), nullptr, nullptr, fx);
    }
  } else {
    ++stats_.hits;
    out.source = on.cell;
    out.version = on.cell->version.load(std::memory_order_relaxed);
  }
  return progress::done;
}

// The set lacks the kid, or has a key for it that does not fit a signature. Whether that is worth a fetch is the policy's to
// say.
AXIOMS_JWKS_INLINE engine::progress engine::ask_for_kid(const request& asked, entry& on, steady_point now, outcome& out,
                                                        waiter* who, effects& fx) {
  if (who == nullptr) return progress::must_wait;  // asking would spend the budget
  const std::string_view kid = asked.query.kid;
  const bool bad_signature = asked.what == verb::bad_signature;
  const std::size_t others = on.kid_waiters - (who->refetching ? 1U : 0U);
  switch (bad_signature ? on.policy.ask_bad_signature(now, others, who->refetching)
                        : on.policy.ask_unknown_kid(now, kid, others)) {
    case refresh_policy::kid_answer::missing:
      if (!bad_signature) {
        out.failure = make_error(errc::key_not_found, "no key of the set has kid ", quote(kid));
      } else if (on.previous && on.policy.replaced_lately(now)) {
        out.changed = has_other_keys(&on.previous->keys, on.document->keys(), kid);  // somebody else was faster
      }
      return progress::done;
    case refresh_policy::kid_answer::refuse: out.failure = on.policy.last_error(); return progress::done;
    case refresh_policy::kid_answer::throttled: {
      ++stats_.throttled;
      out.failure = make_error(errc::throttled, "the budget of refetches for tokens is used up; kid ", quote(kid),
                               " was not looked for");
      if (!on.throttled_told) {
        on.throttled_told = true;
        jwks_event event;
        event.kind = jwks_event_kind::throttled;
        event.error = out.failure;
        tell(on, std::move(event), nullptr, nullptr, fx);
      }
      return progress::done;
    }
    default: break;
  }
  on.throttled_told = false;
  if (!who->refetching) {  // one that asks again has waited for a part of its time
    who->refetching = true;
    who->deadline = later(now, on.config->unknown_kid_wait);
  }
  return progress::must_wait;
}

AXIOMS_JWKS_INLINE std::optional<outcome> engine::answer_now(const request& asked) {
  steady_point now{};
  if (!read_clock(now)) return failed(clock_error());
  effects fx;
  outcome out;
  {
    const std::lock_guard lock(mutex_);
    auto on = find(asked, now, false, fx);
    if (!on) return failed(std::move(on).error());
    if (!*on) return std::nullopt;
    if (state_ == life::idle && !(*on)->policy.pinned()) return std::nullopt;  // its background refresh is to begin
    if (step(asked, **on, now, out, nullptr, fx) == progress::must_wait) return std::nullopt;
  }
  perform(fx);
  if (out.source) keep_hit(id_, asked.url.value_or(std::string_view()), out);
  return out;
}

AXIOMS_JWKS_INLINE void engine::submit(const std::shared_ptr<waiter>& who) {
  effects fx;
  steady_point now{};
  const request asked = who->asked();
  const auto answer = [&](error why) {
    who->out.failure = std::move(why);
    finish(*who, fx, true);
  };
  const bool clock_works = read_clock(now);
  const auto opened = asked.url && parse_url(*asked.url) ? ensure_open() : result<void>();
  {
    const std::lock_guard lock(mutex_);
    if (who->cancelled) {
      answer(cancelled_error());
    } else if (!clock_works) {
      answer(clock_error());
    } else if (auto on = find(asked, now, true, fx); !on) {
      answer(std::move(on).error());
    } else if (!opened) {
      answer(opened.error());
    } else if (step(asked, **on, now, who->out, who.get(), fx) == progress::done) {
      finish(*who, fx, true);
    } else {
      if (asked.what == verb::lookup || asked.what == verb::key || asked.what == verb::bad_signature) ++stats_.misses;
      const bool joins = (*on)->policy.in_flight();
      if (joins && asked.what != verb::ready) ++stats_.coalesced;
      who->newest = (*on)->policy.newest_flight();
      enqueue(who, *on, who->deadline, fx);
      if (!joins && asked.what != verb::ready) begin_flight(*on, now, true, fx);
    }
  }
  perform(fx);
}

AXIOMS_JWKS_INLINE void engine::enqueue(const std::shared_ptr<waiter>& who, const std::shared_ptr<entry>& on,
                                        steady_point deadline, effects& fx) {
  who->on = on;
  who->place = on->waiters.insert(on->waiters.end(), who);
  if (who->refetching) ++on->kid_waiters;
  if (deadline != steady_point::max()) fx.rescheduled = true;
}

AXIOMS_JWKS_INLINE bool engine::remove(waiter& who) noexcept {
  const std::shared_ptr<entry> on = std::move(who.on);
  who.on.reset();
  if (!on) return false;
  if (who.refetching) --on->kid_waiters;
  on->waiters.erase(who.place);
  return true;
}

// here: on the thread that asked, or on one of the manager's; elsewhere a continuation without executor is handed over.
AXIOMS_JWKS_INLINE void engine::finish(waiter& who, effects& fx, bool here) {
  auto self = who.shared_from_this();
  remove(who);
  who.finished = true;
  if (who.forgiving && who.out.failure && who.out.failure->code != errc::cancelled &&
      who.out.failure->code != errc::shut_down && who.out.failure->code != errc::no_resources) {
    who.out.failure.reset();  // on_event and health() tell it
  }
  if (!here && who.wants_manager_thread() && defer(self)) return;
  fx.finished.push_back(std::move(self));
}

// Those that are called back later may be in a forked child by then, where the mutex may be held by a thread that does not
// exist.
AXIOMS_JWKS_INLINE void engine::cancel(const std::shared_ptr<waiter>& who) {
  if (forked()) return;
  effects fx;
  {
    const std::lock_guard lock(mutex_);
    if (who->finished) return;
    who->cancelled = true;
    if (!who->on) return;  // not submitted yet; submit() will see it
    who->out = failed(cancelled_error());
    finish(*who, fx, false);
  }
  perform(fx);
}

AXIOMS_JWKS_INLINE void engine::abandon(const std::shared_ptr<waiter>& who) noexcept {
  if (forked()) return;
  const std::lock_guard lock(mutex_);
  remove(*who);
  who->finished = true;
}

inline discovery_policy::step first_step(entry& on, steady_point now) {
  return on.discovery ? on.discovery->begin(now) : discovery_policy::step::keys;
}

inline std::optional<metadata_source> source_of(const entry& on) {
  return on.discovery ? std::optional(on.discovery->source()) : std::nullopt;
}

// The next request of a flight: the metadata of the issuer, or the key set.
AXIOMS_JWKS_INLINE void engine::aim(flight& what, entry& on, discovery_policy::step next, steady_point now) {
  what.reads_metadata = next == discovery_policy::step::metadata;
  what.source = source_of(on);
  what.basis.reset();
  what.request = fetch_request();
  if (what.reads_metadata) {
    what.request.url = on.discovery->metadata_url();
    what.request.etag = on.discovery->etag();
    what.request.last_modified = on.discovery->last_modified();
    what.request.accept = "application/json";
  } else {
    what.request.url = on.discovery ? on.discovery->jwks_uri() : on.url;
    if (on.document && on.document->url() == what.request.url) {  // what came from elsewhere, nothing there can confirm
      what.basis = on.document->content();
      what.request.etag = on.etag;
      what.request.last_modified = on.last_modified;
    }
    what.request.accept = "application/jwk-set+json, application/json";
  }
  what.request.origin = origin_of(on.url);  // what the application named, not where the metadata sent us
  what.request.max_body_bytes = on.config->max_body_bytes;
  what.request.timeout = std::max(std::chrono::ceil<milliseconds>(on.policy.flight_deadline() - now), milliseconds(1));
  what.request.connect_timeout = std::min(on.config->connect_timeout, what.request.timeout);
}

AXIOMS_JWKS_INLINE void engine::begin_flight(const std::shared_ptr<entry>& on, steady_point now, bool foreground,
                                             effects& fx) {
  auto what = std::make_shared<flight>();
  what->on = on;
  what->number = on->policy.begin(now);
  what->begun = now;
  what->foreground = foreground;
  what->accepts.allow_es256k = on->config->allow_es256k;
  aim(*what, *on, first_step(*on, now), now);
  on->current = what;
  fx.launches.push_back(std::move(what));
  fx.rescheduled = true;
}

// A new stamp: what the threads keep is out of date from here on.
AXIOMS_JWKS_INLINE void engine::publish(entry& on, std::chrono::system_clock::time_point fetched_at_system,
                                        std::shared_ptr<const document_content> content, effects& fx) {
  if (on.document && on.document->content() != content) {
    fx.contents.push_back(std::exchange(on.previous, on.document->content()));
  }
  if (on.document) fx.replaced.push_back(std::move(on.document));
  on.document = std::make_shared<const jwks_document>(std::move(content), on.policy.fetched_at(),
                                                      on.policy.expires_at(), fetched_at_system);
  on.cell->version.fetch_add(1, std::memory_order_release);
  on.stale_told = false;
}

AXIOMS_JWKS_INLINE bool engine::arrive(const std::shared_ptr<flight>& what, result<fetch_response> response) {
  if (forked()) return false;
  steady_point now{};
  std::chrono::system_clock::time_point system_now{};
  verdict brought;
  if (!read_clock(now) || !read_clock(system_now)) {
    brought.why = clock_error();
    land(what, std::move(brought));
    return false;
  }
  {
    const std::lock_guard lock(mutex_);
    entry& on = *what->on;
    if (!on.gone && on.policy.in_flight(what->number) && what->source != source_of(on)) {
      aim(*what, on, first_step(on, now), now);  // it was sent by a configuration that is gone
      return true;
    }
  }
  if (what->reads_metadata) {
    auto said = judge_metadata(what->request, std::move(response), *what->source, system_now);
    effects fx;
    bool on_its_way = false;
    {
      const std::lock_guard lock(mutex_);
      on_its_way = go_on(*what, now, std::move(said), brought, fx);
    }
    perform(fx);
    if (on_its_way) return !what->stop.stop_requested();  // a listener may have taken its time
  } else {
    brought = judge(what->request, std::move(response), system_now, what->accepts);
  }
  land(what, std::move(brought));
  return false;
}

// The metadata came, or did not. True: the flight goes on; else failure says why it ends.
AXIOMS_JWKS_INLINE bool engine::go_on(flight& what, steady_point now, metadata&& brought, verdict& failure,
                                      effects& fx) {
  entry& on = *what.on;
  if (on.gone || !on.policy.in_flight(what.number)) return false;  // it lands as one that is dropped
  if (what.source != source_of(on)) {
    aim(what, on, first_step(on, now), now);
    return true;
  }
  const auto next = on.discovery->read(now, std::move(brought));
  if (next == discovery_policy::step::fail) {
    failure.why = on.discovery->failure()->why;
    failure.status = on.discovery->failure()->status;
    failure.retry_after = on.discovery->failure()->retry_after;
    return false;
  }
  if (next == discovery_policy::step::keys && on.discovery->failure()) {
    // The old ones are used. The flight may still end well, so this is the one place where it is told.
    ++stats_.failed;
    jwks_event event;
    event.kind = jwks_event_kind::failed;
    event.error = on.discovery->failure()->why;
    event.status = on.discovery->failure()->status;
    event.duration = std::chrono::duration_cast<milliseconds>(now - what.begun);
    tell(on, std::move(event), nullptr, nullptr, fx);
  }
  aim(what, on, next, now);
  return true;
}

AXIOMS_JWKS_INLINE void engine::land(const std::shared_ptr<flight>& what, verdict&& brought) {
  if (forked()) return;
  steady_point now{};
  std::chrono::system_clock::time_point system_now{};
  if (!read_clock(now) || !read_clock(system_now)) {
    now = what->begun;
    brought.what = verdict::kind::failure;
    brought.why = clock_error();
  }
  const std::uint64_t random = draw();
  effects fx;
  {
    const std::lock_guard lock(mutex_);
    entry& on = *what->on;
    if (on.gone) return;  // shut down or dropped meanwhile
    const bool confirms = on.document && what->basis == on.document->content();
    const auto landing =
        on.policy.land(what->number, now, brought, confirms, random, on.document ? &on.document->keys() : nullptr);
    if (landing == refresh_policy::landing::dropped) return;
    if (on.discovery && !what->reads_metadata) on.discovery->ended(landing != refresh_policy::landing::failed);
    const bool current = on.current == what;
    if (current) on.current.reset();

    jwks_event event;
    event.status = brought.status;
    event.duration = std::chrono::duration_cast<milliseconds>(now - what->begun);
    const auto before = on.document ? on.document->content() : nullptr;
    if (landing == refresh_policy::landing::failed) {
      ++stats_.failed;
      event.kind = jwks_event_kind::failed;
      event.error = on.policy.last_error();
    } else {
      const bool fresh = landing == refresh_policy::landing::published;
      if (fresh) {
        brought.content->url = what->request.url;
        brought.content->generation = ++generation_;
      }
      ++(fresh ? stats_.fetched : stats_.not_modified);
      event.kind = fresh ? jwks_event_kind::fetched : jwks_event_kind::not_modified;
      if (fresh || !brought.etag.empty()) on.etag = std::move(brought.etag);
      if (fresh || !brought.last_modified.empty()) on.last_modified = std::move(brought.last_modified);
      publish(on, system_now, fresh ? std::shared_ptr<const document_content>(std::move(brought.content)) : before, fx);
    }
    tell(on, std::move(event), before, on.document ? on.document->content() : nullptr, fx);
    settle(on, now,
           landing == refresh_policy::landing::failed ? settling::failed
           : current                                  ? settling::answered
                                                      : settling::answered_late,
           fx);
    fx.rescheduled = true;
  }
  perform(fx);
}

// The flight that somebody joined was in the air before it asked, and brought nothing new. True: it waits on, for one that
// begins now.
AXIOMS_JWKS_INLINE bool engine::look_once_more(waiter& who, entry& on, steady_point now, effects& fx) {
  const bool counted = who.refetching;
  if (ask_for_kid(who.asked(), on, now, who.out, &who, fx) == progress::done) return false;
  if (!counted) ++on.kid_waiters;
  fx.rescheduled = true;
  if (!on.policy.in_flight()) begin_flight(who.on, now, true, fx);
  return true;
}

// Answers those who wait: after a flight ended, after a late answer came while the next flight is in the air, after
// add_static() and after import_cache().
AXIOMS_JWKS_INLINE void engine::settle(entry& on, steady_point now, settling why, effects& fx) {
  const bool landed_well = why != settling::failed && why != settling::restored;
  const bool flight_over = why != settling::answered_late && why != settling::restored;
  const bool here = why != settling::pinned && why != settling::restored;
  if (why == settling::restored && !on.policy.servable(now)) return;  // too old to answer anybody
  for (auto next = on.waiters.begin(); next != on.waiters.end();) {
    waiter& who = **next++;
    if (who.what == verb::refresh && !flight_over) continue;  // it waits for the flight that is still in the air
    if ((who.what == verb::key || who.what == verb::bad_signature) && why == settling::restored) continue;
    if (who.what == verb::ready && !on.policy.servable(now)) continue;
    const request asked = who.asked();
    const bool wants_news = who.what == verb::refresh || who.what == verb::bad_signature || who.refetching;
    if (!on.policy.servable(now) || (why == settling::failed && wants_news)) {
      who.out.failure = on.policy.last_error();
    } else if (who.what == verb::key) {
      auto [key, kid_unknown] = on.policy.select(now, on.document->keys(), asked.query);
      if (key) {
        who.out.key = *std::move(key);
      } else {
        const bool proven = on.policy.answered_since(who.newest);
        if (kid_unknown && landed_well && !proven && look_once_more(who, on, now, fx)) continue;
        // Without a good answer it is not known whether the provider has that key: an outage must not look like a bad
        // token.
        if (!who.out.failure)
          who.out.failure = kid_unknown && !landed_well ? on.policy.last_error() : std::move(key).error();
        if (kid_unknown && landed_well && proven) on.policy.remember_missing(now, asked.query.kid);
      }
      who.out.document = on.document;
    } else {
      who.out.document = on.document;
      if (who.what == verb::bad_signature) {
        who.out.changed =
            has_other_keys(who.before ? &who.before->keys() : nullptr, on.document->keys(), asked.query.kid);
        if (!who.out.changed && landed_well && !on.policy.answered_since(who.newest) &&
            look_once_more(who, on, now, fx)) {
          continue;
        }
      }
    }
    if (!who.out.failure && on.policy.stale(now) && who.what != verb::ready) ++stats_.stale_served;
    finish(who, fx, here);
  }
}

AXIOMS_JWKS_INLINE void engine::wait_over(waiter& who, entry& on, effects& fx) {
  who.out.failure = who.what == verb::ready
                        ? make_error(errc::timed_out, "there was no document within the limit")
                        : make_error(errc::timed_out, "the refetch for a token took longer than unknown_kid_wait (",
                                     on.config->unknown_kid_wait.count(), " ms)");
  finish(who, fx, false);
}

// What is imported before the first lookup or initialize() waits for it: nothing is fetched by a configuration that is not
// there yet.
AXIOMS_JWKS_INLINE bool engine::background_runs() const noexcept {
  return state_ == life::lazy || state_ == life::running;
}

AXIOMS_JWKS_INLINE void engine::tick(steady_point now, std::uint64_t random, effects& fx) {
  if (!background_runs()) return;
  std::size_t free = slots() - std::min(slots(), busy());
  for (auto next = entries_.begin(); next != entries_.end();) {
    const std::shared_ptr<entry> on = (next++)->second;
    if (on->policy.expire(now, random)) {
      ++stats_.failed;
      jwks_event event;
      event.kind = jwks_event_kind::failed;
      event.error = on->policy.last_error();
      if (on->current) event.duration = std::chrono::duration_cast<milliseconds>(now - on->current->begun);
      if (on->discovery && on->current)
        on->current->reads_metadata ? on->discovery->overstayed(now) : on->discovery->ended(false);
      tell(*on, std::move(event), nullptr, nullptr, fx);
      if (on->current) fx.stopped.push_back(std::move(on->current));
      on->current.reset();
      settle(*on, now, settling::failed, fx);
    }
    for (auto place = on->waiters.begin(); place != on->waiters.end();) {
      waiter& who = **place++;
      if (now >= who.deadline) wait_over(who, *on, fx);
    }
    if (!on->policy.due(now)) continue;
    const steady_point last_used{steady_point::duration(on->cell->last_used.load(std::memory_order_relaxed))};
    if (!on->configured && on->waiters.empty() && (on->refused || on->policy.unused(now, last_used))) {
      drop(on, fx);
    } else if (free > 0) {
      --free;
      begin_flight(on, now, false, fx);
    }
  }
}

AXIOMS_JWKS_INLINE steady_point engine::next_wake() const noexcept {
  steady_point soonest = steady_point::max();
  if (!background_runs()) return soonest;
  const bool full = busy() >= slots();
  for (const auto& [url, on] : entries_) {
    if (on->policy.in_flight() || !full)
      soonest = std::min(soonest, on->policy.next_wake());  // a slot that gets free wakes us
    for (const auto& who : on->waiters) soonest = std::min(soonest, who->deadline);
  }
  return soonest;
}

AXIOMS_JWKS_INLINE void engine::perform(effects& fx) {
  for (const auto& what : fx.stopped) what->stop.request_stop();
  for (const auto& what : fx.launches) launch(what);
  if (fx.rescheduled) wake();
  if (fx.events) deliver_events();
  for (const auto& who : fx.finished) who->done();
  fx = effects{};
}

AXIOMS_JWKS_INLINE result<void> engine::ensure_open() {
  if (state_.load(std::memory_order_acquire) != life::idle) return {};
  {
    const std::lock_guard lock(life_mutex_);
    if (state_ != life::idle) return {};
    if (auto opened = open(false); !opened) return opened;
    state_.store(life::lazy, std::memory_order_release);
  }
  wake();  // for what was imported before
  return {};
}

// A URL of initialize() or add(): stays until shutdown, with limits of its own. A document that is there keeps its age.
AXIOMS_JWKS_INLINE void engine::configure(entry& on, std::shared_ptr<const jwks_config> config, effects& fx) {
  fx.configs.push_back(std::exchange(on.config, std::move(config)));
  on.policy.configure(*on.config);
  if (on.document) {
    const jwks_ptr old = std::move(on.document);
    on.document = std::make_shared<const jwks_document>(old->content(), old->fetched_at(), on.policy.expires_at(),
                                                        old->fetched_at_system());
    on.cell->version.fetch_add(1, std::memory_order_release);
    fx.replaced.push_back(old);
  }
  fx.rescheduled = true;
}

// Under the life mutex and the mutex.
AXIOMS_JWKS_INLINE std::shared_ptr<entry> engine::settle_in(const parsed_url& url,
                                                            const std::shared_ptr<const jwks_config>& config,
                                                            steady_point first, effects& fx) {
  auto& on = entries_[url.normalized];
  if (!on) on = std::make_shared<entry>(url.normalized, url.https, config);
  configure(*on, config, fx);
  on->configured = true;
  on->refused = false;
  on->policy.plan_first(first);
  if (!config->discovery) {
    on->discovery.reset();
  } else if (auto source = metadata_source_of(*config); source) {
    if (on->discovery && on->discovery->source() == *source) {
      on->discovery->configure(*config);
    } else {
      on->discovery.emplace(*std::move(source), *config);
    }
  }
  return on;
}

AXIOMS_JWKS_INLINE result<bool> engine::try_start(std::shared_ptr<const jwks_config> config, waiter& who) {
  if (auto valid = config->validate(); !valid) return std::move(valid).error();
  if (running()) return false;
  if (auto fit = check_fetcher(); !fit) return std::move(fit).error();
  steady_point now{};
  if (!read_clock(now)) return clock_error();
  const auto url = parse_url(*config->resolved_url());
  effects fx;
  {
    const std::lock_guard life_lock(life_mutex_);
    {
      const std::lock_guard lock(mutex_);
      if (who.cancelled) return cancelled_error();
    }
    if (state_ == life::running) return false;
    if (auto opened = open(static_cast<bool>(config->on_event)); !opened) return std::move(opened).error();
    const std::lock_guard lock(mutex_);
    fx.configs.push_back(std::exchange(config_, config));
    for (auto next = entries_.begin(); next != entries_.end();) {
      const std::shared_ptr<entry> on = (next++)->second;
      if (on->configured) continue;
      // What this configuration would refuse to look up must not be fetched in the background either.
      on->refused =
          (config->require_https && on->insecure) || (config->only_configured_urls && on->url != url->normalized);
      if (on->refused && on->waiters.empty()) {
        drop(on, fx);
      } else {
        configure(*on, config, fx);
        if (!config->prefetch) on->policy.plan_first(later(now, config->refresh_interval));
      }
    }
    const auto known = entries_.find(url->normalized);
    const bool restored = known != entries_.end() && known->second->document;  // else the prefetch asks by itself
    configured_ =
        settle_in(*url, config, config->prefetch && restored ? now : later(now, config->refresh_interval), fx);
    who.forgiving = true;
    state_.store(life::running, std::memory_order_release);
  }
  perform(fx);
  return config->prefetch;
}

AXIOMS_JWKS_INLINE void engine::start(jwks_config config, const std::shared_ptr<waiter>& who) {
  const auto wait = try_start(std::make_shared<const jwks_config>(std::move(config)), *who);
  if (wait && *wait) return submit(who);
  effects fx;
  {
    const std::lock_guard lock(mutex_);
    if (!wait) who->out.failure = wait.error();
    finish(*who, fx, true);
  }
  perform(fx);
}

AXIOMS_JWKS_INLINE result<void> engine::add(jwks_config config) {
  if (auto valid = config.validate(); !valid) return valid;
  if (auto fit = check_fetcher(); !fit) return fit;
  steady_point now{};
  if (!read_clock(now)) return clock_error();
  const auto shared = std::make_shared<const jwks_config>(std::move(config));
  const auto url = parse_url(*shared->resolved_url());
  effects fx;
  {
    const std::lock_guard life_lock(life_mutex_);
    if (state_ == life::down) return shut_down_error();
    if (auto opened = open(static_cast<bool>(shared->on_event)); !opened) return opened;
    if (state_ == life::idle) state_.store(life::lazy, std::memory_order_release);
    const std::lock_guard lock(mutex_);
    settle_in(*url, shared, shared->prefetch ? now : later(now, shared->refresh_interval), fx);
  }
  perform(fx);
  return {};
}

// Puts a document in place that no flight brought. Its policy has taken it already.
AXIOMS_JWKS_INLINE void engine::load(entry& on, verdict&& saved,
                                     std::chrono::system_clock::time_point fetched_at_system, effects& fx) {
  const auto before = on.document ? on.document->content() : nullptr;
  saved.content->url = on.url;
  saved.content->generation = ++generation_;
  on.etag = std::move(saved.etag);
  on.last_modified = std::move(saved.last_modified);
  publish(on, fetched_at_system, std::move(saved.content), fx);
  jwks_event event;
  event.kind = jwks_event_kind::loaded;
  tell(on, std::move(event), before, on.document->content(), fx);
  fx.rescheduled = true;
}

// Judges a key set that no fetch brought, by the rule for those that one did.
AXIOMS_JWKS_INLINE verdict engine::judge_given(const parsed_url& url, fetch_response given,
                                               std::chrono::system_clock::time_point system_now) {
  fetch_request request;
  request.url = url.normalized;
  request.max_body_bytes = max_saved_bytes;
  jwk_options accepts;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(url.normalized);
    accepts.allow_es256k = (found != entries_.end() ? found->second->config : config_)->allow_es256k;
  }
  verdict out = judge(request, std::move(given), system_now, accepts);
  out.why.http_status = 0;  // there was no response
  return out;
}

AXIOMS_JWKS_INLINE result<void> engine::add_static(std::string_view url, std::string_view text) {
  const auto parsed = parse_url(url);
  if (!parsed) return parsed.error();
  steady_point now{};
  std::chrono::system_clock::time_point system_now{};
  if (!read_clock(now) || !read_clock(system_now)) return clock_error();
  verdict given = judge_given(*parsed, fetch_response{200, std::string(text), {}}, system_now);
  if (given.what != verdict::kind::document) return std::move(given.why);
  effects fx;
  {
    const std::lock_guard lock(mutex_);
    if (config_->require_https && !parsed->https) return insecure_url_error(parsed->normalized);
    if (state_ == life::down) return shut_down_error();
    auto& on = entries_[parsed->normalized];
    if (!on) on = std::make_shared<entry>(parsed->normalized, parsed->https, config_);
    on->configured = true;
    on->refused = false;
    on->policy.pin(now, given.content->keys, on->document ? &on->document->keys() : nullptr);
    if (on->current) fx.stopped.push_back(std::move(on->current));
    on->current.reset();
    load(*on, std::move(given), system_now, fx);
    settle(*on, now, settling::pinned, fx);
  }
  perform(fx);
  return {};
}

// The age goes into the text, not what the wall clock said at the fetch: it may have been set since.
AXIOMS_JWKS_INLINE std::string engine::export_cache() {
  steady_point now{};
  std::chrono::system_clock::time_point system_now{};
  std::string out = R"({"axioms_jwks_cache":1,"documents":[)";
  if (read_clock(now) && read_clock(system_now)) {
    std::vector<std::tuple<jwks_ptr, std::string, std::string, std::string>> documents;
    auto room = static_cast<std::ptrdiff_t>(max_saved_bytes);
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [url, on] : entries_) {
        if (!on->document || on->policy.pinned()) continue;
        room -= static_cast<std::ptrdiff_t>(2 * on->document->body().size() + 8192);  // escaped
        if (room < 0) break;  // import_cache() would refuse more
        documents.push_back({on->document, url, on->etag, on->last_modified});
      }
    }
    for (const auto& [document, url, etag, last_modified] : documents) {
      const auto fetched_at = system_now.time_since_epoch() - (now - document->fetched_at());
      append_to(out, concat(out.back() == '[' ? "" : ",", R"({"url":)", json_string(url), R"(,"fetched_at":)",
                            std::chrono::floor<seconds>(fetched_at).count(), R"(,"etag":)", json_string(etag),
                            R"(,"last_modified":)", json_string(last_modified), R"(,"body":)",
                            json_string(document->body()), "}"));
    }
  }
  return out + "]}";
}

// One document of an exported cache.
struct saved_document {
  std::string url, etag, last_modified, body;
  std::int64_t fetched_at = 0;  // seconds since 1970

  static result<saved_document> read(const json_node& member) {
    saved_document out;
    if (member.type != json_node::kind::object) return make_error(errc::not_a_key_set, "it is no object");
    for (const auto& [name, field] : {std::pair("url", &out.url), std::pair("etag", &out.etag),
                                      std::pair("last_modified", &out.last_modified), std::pair("body", &out.body)}) {
      const json_node* found = member.find(name, json_node::kind::string);
      if (found == nullptr) return make_error(errc::not_a_key_set, "it has no string named ", name);
      *field = found->text;
    }
    const json_node* when = member.find("fetched_at", json_node::kind::integer);
    if (when == nullptr) return make_error(errc::not_a_key_set, "it has no integer named fetched_at");
    out.fetched_at = when->integer;
    return out;
  }
};

AXIOMS_JWKS_INLINE result<std::size_t> engine::import_cache(std::string_view text) {
  const auto refuse = [](const auto&... why) {
    return make_error(errc::not_a_key_set, "the text is no exported cache: ", why...);
  };
  const auto saved = json_tree::read(text, {.bytes = max_saved_bytes});
  if (!saved) return refuse("it ", saved.error().description);
  const json_node& root = saved->root();
  if (root.type != json_node::kind::object) return refuse("it is JSON, but no object");
  const json_node* version = root.find("axioms_jwks_cache", json_node::kind::integer);
  if (version == nullptr || version->integer != 1) return refuse("it has no axioms_jwks_cache of 1");
  const json_node* documents = root.find("documents", json_node::kind::array);
  if (documents == nullptr) return refuse("it has no array named documents");

  std::size_t taken = 0, index = 0;
  std::optional<axioms::error> first_fault;
  for (const json_node& document : *documents) {
    const auto done =
        saved_document::read(document).and_then([&](const saved_document& each) { return import_document(each); });
    if (!done && done.error().code == errc::shut_down) return done.error();
    if (done) taken += *done ? 1U : 0U;
    if (!done && !first_fault) {
      first_fault = done.error();
      first_fault->description = concat("document ", index, " of the exported cache: ", first_fault->description);
    }
    ++index;
  }
  if (taken == 0 && first_fault) return *std::move(first_fault);
  return taken;
}

// True: taken. False: there is a document of this URL already, or no room for one more URL.
AXIOMS_JWKS_INLINE result<bool> engine::import_document(const saved_document& saved) {
  const auto parsed = parse_url(saved.url);
  if (!parsed) return parsed.error();
  steady_point now{};
  std::chrono::system_clock::time_point system_now{};
  if (!read_clock(now) || !read_clock(system_now)) return clock_error();
  const auto age = age_of_saved(system_now, saved.fetched_at);
  if (!age) return age.error();
  // Asked for before the document is parsed, and again after, when it is put in place.
  const auto place = [&]() -> result<std::shared_ptr<entry>> {
    if (state_ == life::down) return shut_down_error();
    if (const auto found = entries_.find(parsed->normalized); found != entries_.end()) return found->second;
    if (config_->require_https && !parsed->https) return insecure_url_error(parsed->normalized);
    if (config_->only_configured_urls || looked_up_urls() >= max_looked_up_urls) return std::shared_ptr<entry>();
    auto fresh = std::make_shared<entry>(parsed->normalized, parsed->https, config_);
    fresh->cell->last_used.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    return fresh;
  };
  {
    const std::lock_guard lock(mutex_);
    const auto on = place();
    if (!on) return on.error();
    if (!*on || (*on)->policy.servable(now)) return false;
  }
  verdict given = judge_given(
      *parsed, fetch_response{200, saved.body, {{"ETag", saved.etag}, {"Last-Modified", saved.last_modified}}},
      system_now);
  if (given.what != verdict::kind::document) return std::move(given.why);
  effects fx;
  {
    const std::lock_guard lock(mutex_);
    const auto placed = place();
    if (!placed) return placed.error();
    const std::shared_ptr<entry>& on = *placed;
    if (!on || !on->policy.restore(now, now - *age)) return false;
    load(*on, std::move(given), system_now - *age, fx);
    entries_.emplace(on->url, on);
    settle(*on, now, settling::restored, fx);
  }
  perform(fx);
  return true;
}

AXIOMS_JWKS_INLINE void engine::begin_shutdown(const std::shared_ptr<waiter>& who) noexcept {
  effects fx;
  {
    const std::lock_guard life_lock(life_mutex_);
    const std::lock_guard lock(mutex_);
    state_.store(life::down, std::memory_order_release);
    std::vector<std::shared_ptr<waiter>> last;
    for (const auto& [url, on] : entries_) {
      while (!on->waiters.empty()) {
        const std::shared_ptr<waiter> waiting = on->waiters.front();
        remove(*waiting);
        waiting->finished = true;
        waiting->out = failed(shut_down_error());
        last.push_back(waiting);
      }
      on->gone = true;
      on->cell->version.fetch_add(1, std::memory_order_release);
      if (on->document) fx.replaced.push_back(std::move(on->document));
      if (on->current) fx.stopped.push_back(std::move(on->current));
      on->current.reset();
    }
    for (const auto& [url, on] : entries_) fx.entries.push_back(on);
    entries_.clear();
    configured_.reset();
    // The listener goes with its life; what decides about arguments stays.
    auto plain = std::make_shared<jwks_config>();
    plain->require_https = config_->require_https;
    plain->only_configured_urls = config_->only_configured_urls;
    plain->max_parallel_fetches = config_->max_parallel_fetches;
    fx.configs.push_back(std::exchange(config_, std::move(plain)));
    if (who) who->finished = true;
    retire(fx, std::move(last), who);
  }
  wind_down();
  perform(fx);
}

AXIOMS_JWKS_INLINE std::optional<jwks_ptr> engine::peek(const request& asked) {
  steady_point now{};
  if (!read_clock(now)) return std::nullopt;
  effects fx;
  const std::lock_guard lock(mutex_);
  const auto on = find(asked, now, false, fx);
  if (!on || !*on || !(*on)->policy.servable(now)) return std::nullopt;
  return (*on)->document;
}

AXIOMS_JWKS_INLINE jwks_health engine::health(std::string_view url) {
  jwks_health out;
  steady_point now{};
  if (!read_clock(now)) return out;
  const auto parsed = url.empty() ? result<parsed_url>(parsed_url{}) : parse_url(url);
  if (!parsed) return out;
  const std::lock_guard lock(mutex_);
  std::shared_ptr<entry> on = configured_;
  if (!url.empty()) {
    const auto found = entries_.find(parsed->normalized);
    on = found != entries_.end() ? found->second : nullptr;
  }
  if (!on) return out;
  out.ready = on->policy.servable(now);
  out.stale = on->policy.stale(now);
  out.insecure_transport = on->insecure && !on->policy.pinned();
  if (on->document) out.age = std::chrono::duration_cast<milliseconds>(now - on->policy.fetched_at());
  out.last_error = on->policy.last_error();
  out.consecutive_failures = on->policy.consecutive_failures();
  out.next_attempt = on->policy.in_flight() ? now : on->policy.next_attempt();
  return out;
}

AXIOMS_JWKS_INLINE jwks_stats engine::stats() const {
  jwks_stats out;
  {
    const std::lock_guard lock(mutex_);
    out = stats_;
  }
  for (const auto& shard : hits_) out.hits += shard.count.load(std::memory_order_relaxed);
  return out;
}

AXIOMS_JWKS_INLINE void engine::tell(const entry& on, jwks_event&& event,
                                     std::shared_ptr<const document_content> before,
                                     std::shared_ptr<const document_content> after, effects& fx) {
  const auto& listener = on.config->on_event ? on.config : config_;
  if (!listener->on_event) return;
  event.url = on.url;
  event.next_attempt = on.policy.next_attempt();
  fx.events = true;
  if (!queue_event({listener, std::move(event), std::move(before), std::move(after)})) ++stats_.events_dropped;
}

AXIOMS_JWKS_INLINE void engine::deliver(const event_record& record) noexcept {
  AXIOMS_JWKS_TRY {
    jwks_event event = record.event;
    if (event.kind == jwks_event_kind::fetched || event.kind == jwks_event_kind::loaded) {
      const auto index = [](const document_content* content) {
        std::multimap<std::string_view, const std::string*> keys;  // kid, or the thumbprint of a key without one
        if (content == nullptr) return keys;
        for (const auto& key : content->keys)
          keys.emplace(key->kid().empty() ? std::string_view(key->thumbprint()) : key->kid(), &key->thumbprint());
        return keys;
      };
      const auto prints = [](const auto& keys, std::string_view kid) {
        std::vector<std::string_view> all;
        for (auto [at, end] = keys.equal_range(kid); at != end; ++at) all.push_back(*at->second);
        std::sort(all.begin(), all.end());
        return all;
      };
      const auto before = index(record.before.get()), after = index(record.after.get());
      for (auto at = after.begin(); at != after.end(); at = after.upper_bound(at->first)) {
        if (before.count(at->first) == 0) {
          event.added.emplace_back(at->first);
        } else if (prints(before, at->first) != prints(after, at->first)) {
          event.changed.emplace_back(at->first);
        }
      }
      for (auto at = before.begin(); at != before.end(); at = before.upper_bound(at->first)) {
        if (after.count(at->first) == 0) event.removed.emplace_back(at->first);
      }
    }
    record.listener->on_event(event);
  }
  AXIOMS_JWKS_CATCH_ALL {}  // a listener's exception is its own
}

// -- blocking manager: threads --

// The threads of one life, from the first fetch to shutdown. A new life may begin while an old crew still winds down.
struct crew {
  struct worker {
    std::atomic<bool> ended{false};
    own_thread thread;
  };

  // Guarded by the engine's mutex.
  bool retired = false;  // shutdown was asked: finish what is due and end
  bool ended = false;    // nothing is left but the shutdowns that wait for it
  bool left = false;     // the scheduler's thread is about to return: joining it takes no time
  bool woken = false;
  bool listening = false;
  std::deque<std::shared_ptr<flight>> foreground, background;  // flights that wait for a thread
  std::size_t active = 0;                                      // fetch threads
  std::deque<std::shared_ptr<waiter>> deferred;                // to be finished on the scheduler thread
  std::vector<std::shared_ptr<waiter>> at_end;                 // shutdowns that wait
  std::deque<event_record> events;
  std::chrono::steady_clock::time_point silent_at{};  // when undelivered events are given up, in real time
  std::condition_variable_any wake, listen;

  stop_source stop;          // of the scheduler's waits
  std::mutex handles_mutex;  // guards the handles while they are made or taken; taken before the engine's mutex
  bool closed = false;
  std::list<worker> workers;
  own_thread listener;
  std::mutex join_mutex;  // one thread joins, the others wait for it
  own_thread scheduler;
};

inline constexpr std::size_t max_queued_events = 256;
inline constexpr milliseconds listener_grace{50};

// On whose thread we are: such a thread must not join its own crew.
inline thread_local constinit const engine* manager_thread_of = nullptr;

AXIOMS_JWKS_INLINE thread_engine::thread_engine(std::shared_ptr<blocking_io> io) noexcept : io_(std::move(io)) {}
AXIOMS_JWKS_INLINE thread_engine::~thread_engine() = default;

AXIOMS_JWKS_INLINE result<void> thread_engine::open(bool with_listener) {
  const auto self = std::static_pointer_cast<thread_engine>(shared_from_this());
  std::shared_ptr<crew> mine = crew_;
  const error why{errc::no_resources, "a thread could not be started", 0};
  if (!mine) {
    reap();
    mine = std::make_shared<crew>();
    const auto run = [self, at = mine.get()] { self->schedule(*at, at->stop.get_token()); };
    if (!start_thread(mine->scheduler, run)) return why;
    const std::lock_guard lock(mutex_);
    crew_ = mine;
  }
  if (!with_listener || mine->listening) return {};
  if (!start_thread(mine->listener, [self, at = mine.get()] { self->listen(*at); })) return why;
  const std::lock_guard lock(mutex_);
  mine->listening = true;
  return {};
}

AXIOMS_JWKS_INLINE void thread_engine::retire(effects& fx, std::vector<std::shared_ptr<waiter>> last,
                                              const std::shared_ptr<waiter>& who) {
  if (crew_) {
    crew_->retired = true;
    crew_->silent_at = std::chrono::steady_clock::now() + listener_grace;
    crew_->foreground.clear();
    crew_->background.clear();
    retired_.push_back(std::move(crew_));
    crew_.reset();
  }
  crew* winding_down = !retired_.empty() && !retired_.back()->ended ? retired_.back().get() : nullptr;
  for (auto& waiting : last) {
    if (winding_down != nullptr && waiting->wants_manager_thread()) {
      winding_down->deferred.push_back(std::move(waiting));
    } else {
      fx.finished.push_back(std::move(waiting));
    }
  }
  if (!who) return;
  if (winding_down != nullptr) {
    winding_down->at_end.push_back(who);
  } else {
    fx.finished.push_back(who);
  }
}

AXIOMS_JWKS_INLINE void thread_engine::wind_down() noexcept {
  std::vector<std::shared_ptr<crew>> past;
  {
    const std::lock_guard lock(mutex_);
    past = retired_;
  }
  for (const auto& old : past) {
    old->stop.request_stop();
    old->wake.notify_all();
    old->listen.notify_all();
  }
}

AXIOMS_JWKS_INLINE void thread_engine::join() noexcept {
  if (manager_thread_of == this) return;
  for (;;) {
    std::shared_ptr<crew> old;
    {
      const std::lock_guard lock(mutex_);
      if (retired_.empty()) return;
      old = retired_.back();
    }
    {
      const std::lock_guard lock(old->join_mutex);
      if (old->scheduler.joinable()) old->scheduler.join();
    }
    const std::lock_guard lock(mutex_);
    retired_.erase(std::remove(retired_.begin(), retired_.end(), old), retired_.end());
  }
}

AXIOMS_JWKS_INLINE void thread_engine::close() noexcept {
  begin_shutdown();
  join();
  if (manager_thread_of != this) return;
  // The manager is destroyed by a continuation on one of its own threads. That thread and the scheduler own the engine
  // until they end; nobody is left to join the scheduler.
  const std::lock_guard lock(mutex_);
  for (const auto& old : retired_) {
    const std::lock_guard join_lock(old->join_mutex);
    if (old->scheduler.joinable()) old->scheduler.detach();
  }
}

AXIOMS_JWKS_INLINE void thread_engine::schedule(crew& mine, const stop_token& stop) {
  manager_thread_of = this;
  std::unique_lock lock(mutex_);
  for (;;) {
    effects fx;
    fx.finished.assign(mine.deferred.begin(), mine.deferred.end());
    mine.deferred.clear();
    mine.woken = false;
    lock.unlock();  // the clock and the dice may be the user's
    steady_point now{};
    const bool clock_works = io_->now(now);
    const std::uint64_t random = draw();
    lock.lock();
    if (!mine.retired && clock_works) tick(now, random, fx);
    if (!fx.empty()) {
      fx.rescheduled = false;  // we look again anyway
      lock.unlock();
      perform(fx);
      lock.lock();
      continue;
    }
    if (mine.retired && mine.deferred.empty()) break;
    const auto ready = [&] { return mine.woken || mine.retired || !mine.deferred.empty(); };
    if (!clock_works || !io_->wait(lock, mine.wake, stop, next_wake(), ready)) {
      // A clock that throws must not make this thread spin.
      static_cast<void>(
          axioms::wait_until(lock, mine.wake, stop, std::chrono::steady_clock::now() + std::chrono::seconds(1), ready));
    }
  }
  lock.unlock();
  end_of_life(mine);
}

AXIOMS_JWKS_INLINE void thread_engine::end_of_life(crew& mine) noexcept {
  std::list<crew::worker> workers;
  {
    const std::lock_guard lock(mine.handles_mutex);
    mine.closed = true;
    workers.swap(mine.workers);
  }
  workers.clear();  // joins: their fetches were told to stop
  if (mine.listener.joinable()) mine.listener.join();
  std::vector<std::shared_ptr<waiter>> last;
  {
    const std::lock_guard lock(mutex_);
    mine.ended = true;
    last.swap(mine.at_end);
  }
  for (const auto& who : last) who->done();
  const std::lock_guard lock(mutex_);
  mine.left = true;
}

// An async manager is never joined between its lives; what has ended is taken away when the next one begins.
AXIOMS_JWKS_INLINE void thread_engine::reap() {
  std::vector<std::shared_ptr<crew>> gone;
  {
    const std::lock_guard lock(mutex_);
    const auto has_left = [](const std::shared_ptr<crew>& old) { return old->left; };
    std::copy_if(retired_.begin(), retired_.end(), std::back_inserter(gone), has_left);
    std::erase_if(retired_, has_left);  // in order: the newest stays the last
  }
  for (const auto& old : gone) {
    const std::lock_guard lock(old->join_mutex);
    if (old->scheduler.joinable()) old->scheduler.join();
  }
}

AXIOMS_JWKS_INLINE void thread_engine::launch(const std::shared_ptr<flight>& what) {
  std::shared_ptr<crew> mine;
  {
    const std::lock_guard lock(mutex_);
    if (!crew_ || what->on->gone) return;
    mine = crew_;
    (what->foreground ? mine->foreground : mine->background).push_back(what);
    if (mine->active >= slots()) return;
    ++mine->active;
  }
  spawn_worker(*mine);
}

AXIOMS_JWKS_INLINE void thread_engine::spawn_worker(crew& mine) {
  std::list<crew::worker> ended;  // joined outside the lock; they have nothing left to do
  bool started = false;
  {
    const std::lock_guard lock(mine.handles_mutex);
    if (mine.closed) return;
    for (auto next = mine.workers.begin(); next != mine.workers.end();) {
      const auto at = next++;
      if (at->ended) ended.splice(ended.end(), mine.workers, at);
    }
    crew::worker& fresh = mine.workers.emplace_back();
    started =
        start_thread(fresh.thread, [self = std::static_pointer_cast<thread_engine>(shared_from_this()), &mine, &fresh] {
          self->work(mine);
          fresh.ended = true;
        });
    if (!started) mine.workers.pop_back();
  }
  if (started) return;
  std::deque<std::shared_ptr<flight>> stranded;
  {
    const std::lock_guard lock(mutex_);
    if (--mine.active > 0) return;  // another thread will come to them
    stranded.swap(mine.foreground);
    stranded.insert(stranded.end(), mine.background.begin(), mine.background.end());
    mine.background.clear();
  }
  for (const auto& what : stranded) {
    verdict none;
    none.why = {errc::no_resources, "a thread for the fetch could not be started", 0};
    land(what, std::move(none));
  }
}

AXIOMS_JWKS_INLINE void thread_engine::work(crew& mine) noexcept {
  manager_thread_of = this;
  for (;;) {
    std::shared_ptr<flight> what;
    {
      const std::lock_guard lock(mutex_);
      auto& jobs = mine.foreground.empty() ? mine.background : mine.foreground;
      if (jobs.empty()) {
        --mine.active;
        mine.woken = true;  // a slot is free
        break;
      }
      what = std::move(jobs.front());
      jobs.pop_front();
    }
    const stop_token stop = what->stop.get_token();
    if (stop.stop_requested()) continue;  // it overstayed in the queue
    while (arrive(what, io_->fetch(what->request, stop))) {}
  }
  mine.wake.notify_all();
}

AXIOMS_JWKS_INLINE void thread_engine::listen(crew& mine) noexcept {
  manager_thread_of = this;
  for (;;) {
    std::deque<event_record>
        taken;  // destroyed without the mutex: a record may hold the last reference to its listener
    {
      std::unique_lock lock(mutex_);
      mine.listen.wait(lock, [&] { return mine.retired || !mine.events.empty(); });
      if (mine.events.empty()) return;
      if (mine.retired && std::chrono::steady_clock::now() >= mine.silent_at) {
        count_dropped_events(mine.events.size());
        taken.swap(mine.events);
        continue;
      }
      taken.push_back(std::move(mine.events.front()));
      mine.events.pop_front();
    }
    deliver(taken.front());
  }
}

AXIOMS_JWKS_INLINE void thread_engine::wake() noexcept {
  std::shared_ptr<crew> mine;
  {
    const std::lock_guard lock(mutex_);
    if (!crew_) return;
    mine = crew_;
    mine->woken = true;
  }
  mine->wake.notify_all();
}

AXIOMS_JWKS_INLINE std::size_t thread_engine::busy() const noexcept { return crew_ ? crew_->active : 0; }

AXIOMS_JWKS_INLINE bool thread_engine::defer(const std::shared_ptr<waiter>& who) {
  if (!crew_ || manager_thread_of == this) return false;
  crew_->deferred.push_back(who);
  crew_->wake.notify_all();
  return true;
}

AXIOMS_JWKS_INLINE bool thread_engine::queue_event(event_record&& record) {
  if (!crew_ || crew_->events.size() >= max_queued_events) return false;
  crew_->events.push_back(std::move(record));
  return true;
}

AXIOMS_JWKS_INLINE void thread_engine::deliver_events() noexcept {
  std::shared_ptr<crew> mine;
  {
    const std::lock_guard lock(mutex_);
    mine = crew_;
  }
  if (mine) mine->listen.notify_all();
}

// A caller that is blocked on a condition variable of its own.
class blocked_waiter final : public waiter {
 public:
  using waiter::waiter;
  void done() noexcept override { changed.notify_all(); }
  std::condition_variable_any changed;
};

AXIOMS_JWKS_INLINE outcome thread_engine::ask(const request& asked, const stop_token& stop) {
  if (auto answer = answer_now(asked)) return *std::move(answer);
  if (stop.stop_requested()) return failed(cancelled_error());
  const auto who = std::make_shared<blocked_waiter>(asked);
  submit(who);
  return wait_for(who, who->changed, stop);
}

AXIOMS_JWKS_INLINE outcome thread_engine::start_and_wait(jwks_config config, const stop_token& stop) {
  const auto who = std::make_shared<blocked_waiter>(request{.what = verb::initialize});
  if (stop.stop_requested()) cancel(who);
  start(std::move(config), who);
  return wait_for(who, who->changed, stop);
}

AXIOMS_JWKS_INLINE outcome thread_engine::wait_for(const std::shared_ptr<waiter>& who, std::condition_variable_any& cv,
                                                   const stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!who->finished) {
    // A caller drives the end of its own wait; it does not rely on another thread being scheduled in time.
    steady_point end = who->deadline;
    if (who->on && who->on->policy.in_flight()) end = std::min(end, who->on->policy.flight_deadline());
    const bool clock_works = io_->wait(lock, cv, stop, end, [&] { return who->finished; });
    if (who->finished) break;
    effects fx;
    if (!clock_works || stop.stop_requested()) {
      who->out = failed(clock_works ? cancelled_error() : clock_error());
      finish(*who, fx, true);
      break;
    }
    lock.unlock();
    if (!tick_now()) {
      lock.lock();
      if (who->finished) break;
      who->out = failed(clock_error());
      finish(*who, fx, true);
      break;
    }
    lock.lock();
  }
  return std::move(who->out);
}

}  // namespace detail
}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

#if defined(_WIN32)
#error \
    "axioms_jwks.hpp: the default fetcher is written for POSIX sockets; on Windows define AXIOMS_JWKS_NO_HTTPLIB and pass the managers your own fetcher."
#endif

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

#include <cerrno>

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {
namespace detail {

// -- default fetcher --
//
// Why it has a transport of its own: no release of cpp-httplib keeps an overall deadline, can be stopped while it
// connects or shakes hands, or writes without risking SIGPIPE; and Debian's 0.11.4 overflows the stack on a long status
// line, percent-decodes header values and takes host names from the CN. So sockets, TLS, limits and heads are ours. How
// a body ends, and its chunks, are httplib's to read, from a Stream that bounds them.

using fetch_time = std::chrono::steady_clock::time_point;

inline std::string errno_text(int number) { return std::generic_category().message(number); }

class descriptor {
 public:
  descriptor() noexcept = default;
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

  // For systems that cannot ask for both when they make the descriptor.
  [[nodiscard]] bool tame() const noexcept {
    const int flags = ::fcntl(fd_, F_GETFL);
    return flags >= 0 && ::fcntl(fd_, F_SETFL, flags | O_NONBLOCK) == 0 && ::fcntl(fd_, F_SETFD, FD_CLOEXEC) == 0;
  }

 private:
  int fd_ = -1;
};

// Readable from the moment of a stop, so that poll() can watch for it beside a socket.
class wake_signal {
 public:
  [[nodiscard]] bool open() noexcept {
#if defined(__linux__)
    reader_ = descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    return static_cast<bool>(reader_);
#else
    int ends[2];
    if (::pipe(ends) != 0) return false;
    reader_ = descriptor(ends[0]);
    writer_ = descriptor(ends[1]);
    return reader_.tame() && writer_.tame();
#endif
  }
  [[nodiscard]] int fd() const noexcept { return reader_.get(); }
  void signal() const noexcept {
    const int kept = errno;  // runs inside somebody's request_stop()
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(writer_ ? writer_.get() : reader_.get(), &one, sizeof one);
    errno = kept;
  }

 private:
  descriptor reader_, writer_;
};

// What ends a fetch early, its deadline and its caller's stop, and what the fetch is about, for the text of its errors.
class fetch_context {
 public:
  fetch_context(stop_token stop, std::chrono::milliseconds timeout, std::string url)
      : timeout_(std::clamp(timeout, std::chrono::milliseconds(0),
                            std::chrono::milliseconds(std::chrono::hours(24 * 3650)))),
        deadline_(std::chrono::steady_clock::now() + timeout_),
        url_(std::move(url)),
        stop_(std::move(stop)),
        wakes_(!stop_.stop_possible() || wake_.open()),
        on_stop_(stop_, waker{&wake_}) {}

  [[nodiscard]] fetch_time deadline() const noexcept { return deadline_; }
  void visit(std::string url) { url_ = std::move(url); }
  template <class... Pieces>
  void enter(const Pieces&... phase) {
    phase_ = concat(phase...);
  }

  template <class... Pieces>
  [[nodiscard]] error fail(errc code, const Pieces&... why) const {
    return make_error(code, "fetch of ", quote(url_, 256), ": ", why...);
  }

  // Asked before every read and write of the socket: a peer that never lets a call wait must not outlive the deadline.
  [[nodiscard]] bool over() const noexcept {
    return !wakes_ || stop_.stop_requested() || std::chrono::steady_clock::now() >= deadline_;
  }
  [[nodiscard]] result<void> check() const {
    if (!over()) return {};
    if (!wakes_) return fail(errc::no_resources, "no descriptor left to be woken by");
    if (stop_.stop_requested()) return fail(errc::cancelled, "cancelled while ", phase_);
    return fail(errc::timed_out, "timed out after ", timeout_.count(), " ms while ", phase_);
  }

  // True: one of @p watched is ready, the first of which is for us to fill in. False: @p until came first.
  [[nodiscard]] result<bool> wait(pollfd* watched, std::size_t count, fetch_time until) const {
    for (;;) {
      if (auto live = check(); !live) return std::move(live).error();
      const auto now = std::chrono::steady_clock::now();
      if (now >= until) return false;
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(std::min(until, deadline_) - now).count();
      watched[0] = {wake_.fd(), POLLIN, 0};  // poll() skips a negative descriptor
      const int ready =
          ::poll(watched, static_cast<nfds_t>(count), static_cast<int>(std::min<std::int64_t>(left, 3'600'000)));
      if (ready < 0 && errno != EINTR) return fail(errc::fetch_failed, "poll: ", errno_text(errno));
      if (ready > 0 && watched[0].revents == 0) return true;
    }
  }
  [[nodiscard]] result<bool> wait(int fd, short events, fetch_time until = fetch_time::max()) const {
    std::array<pollfd, 2> watched{{{}, {fd, events, 0}}};
    return wait(watched.data(), watched.size(), until);
  }

 private:
  struct waker {
    const wake_signal* wake;
    void operator()() const noexcept { wake->signal(); }
  };

  std::chrono::milliseconds timeout_;
  fetch_time deadline_;
  std::string url_;
  std::string phase_ = "starting";
  stop_token stop_;
  wake_signal wake_;
  bool wakes_;
  stop_callback<waker> on_stop_;  // last: it uses wake_
};

// - addresses -

struct socket_address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  std::string text;
};

inline socket_address make_address(const void* raw, std::size_t size, std::uint16_t port) {
  socket_address out;
  std::memcpy(&out.storage, raw, std::min(size, sizeof out.storage));
  out.size = static_cast<socklen_t>(size);
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (out.storage.ss_family == AF_INET6) {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
    v6->sin6_port = htons(port);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
    out.text = concat('[', text.data(), "]:", port);
  } else {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&out.storage);
    v4->sin_port = htons(port);
    ::inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
    out.text = concat(text.data(), ':', port);
  }
  return out;
}

inline std::optional<socket_address> numeric_address(const std::string& host, std::uint16_t port) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  if (::inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) return make_address(&v4, sizeof v4, port);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  if (::inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) return make_address(&v6, sizeof v6, port);
  return std::nullopt;
}

// One name asked of the system's resolver, which cannot be interrupted: a thread of its own, which whoever gives up
// leaves behind.
struct resolver_job {
  std::uint64_t owner = 0;  // the fetcher
  std::string host;
  wake_signal done;
  std::atomic<bool> finished{false};  // then nobody writes to what follows
  std::string failure;
  std::vector<socket_address> found;  // without a port
};

inline constexpr std::ptrdiff_t max_resolver_threads = 64, max_resolver_threads_per_fetcher = 32;

// The names that are asked for. Locked inside the gate only, so that no child finds the mutex taken.
struct resolver_jobs {
  std::mutex mutex;  // guards the rest
  std::uint64_t epoch = fork_epoch();
  std::vector<std::shared_ptr<resolver_job>> running;

  static resolver_jobs& all() {
    static resolver_jobs& only = *new resolver_jobs;  // its threads may outlive static objects
    return only;
  }
};

// What the system's resolver says, or why it says nothing.
inline std::vector<socket_address> look_up(const resolver_job& job, std::string& failure) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* made = nullptr;
  const int failed = ::getaddrinfo(job.host.c_str(), nullptr, &hints, &made);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(made, ::freeaddrinfo);
  if (failed != 0) failure = failed == EAI_SYSTEM ? errno_text(errno) : std::string(::gai_strerror(failed));
  std::vector<socket_address> first, second;
  for (const addrinfo* entry = made; entry != nullptr && first.size() + second.size() < 16; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    auto& same_family = first.empty() || first.front().storage.ss_family == entry->ai_family ? first : second;
    same_family.push_back(make_address(entry->ai_addr, entry->ai_addrlen, 0));
  }
  // One of each family in turn (RFC 8305 section 4): a family without a route must not use up the deadline.
  std::vector<socket_address> found;
  for (std::size_t i = 0; i < std::max(first.size(), second.size()); ++i) {
    for (auto* family : {&first, &second}) {
      if (i < family->size()) found.push_back(std::move((*family)[i]));
    }
  }
  return found;
}

inline void run_resolver(resolver_job& job) noexcept {
  AXIOMS_JWKS_TRY { job.found = look_up(job, job.failure); }
  AXIOMS_JWKS_CATCH_ALL { job.failure = "no memory"; }  // fits into any string
  {
    const fork_gate inside;
    resolver_jobs& jobs = resolver_jobs::all();
    const std::lock_guard lock(jobs.mutex);
    std::erase_if(jobs.running, [&](const auto& each) { return each.get() == &job; });
  }
  job.finished.store(true, std::memory_order_release);
  job.done.signal();
}

// Joins whoever asks for this name, or starts. Empty: too many threads are out; an error: none can be started.
AXIOMS_JWKS_INLINE result<std::shared_ptr<resolver_job>> ask_for(const fetch_context& context, std::uint64_t owner,
                                                                 const std::string& host) {
  auto fresh = std::make_shared<resolver_job>();
  fresh->owner = owner;
  fresh->host = host;
  const fork_gate inside;
  resolver_jobs& jobs = resolver_jobs::all();
  const std::lock_guard lock(jobs.mutex);
  if (std::exchange(jobs.epoch, fork_epoch()) != fork_epoch()) jobs.running.clear();  // a child has none of the threads
  std::ptrdiff_t own = 0;
  for (const auto& each : jobs.running) {
    if (each->owner != owner) continue;
    if (each->host == host) return each;
    ++own;
  }
  const bool crowded = own >= max_resolver_threads_per_fetcher || std::ssize(jobs.running) >= max_resolver_threads;
  if (own > 0 && crowded) return std::shared_ptr<resolver_job>();
  own_thread thread;
  jobs.running.push_back(fresh);
  if (!fresh->done.open() || !start_thread(thread, [fresh] { run_resolver(*fresh); })) {
    jobs.running.pop_back();
    return context.fail(errc::no_resources, "no thread could be started to resolve ", quote(host));
  }
  thread.detach();
  return fresh;
}

AXIOMS_JWKS_INLINE result<std::vector<socket_address>> resolve(fetch_context& context, std::uint64_t owner,
                                                               const std::string& host, std::uint16_t port) {
  if (auto numeric = numeric_address(host, port)) return std::vector<socket_address>{*std::move(numeric)};
  context.enter("resolving ", quote(host));
  std::shared_ptr<resolver_job> job;
  while (!job || !job->finished.load(std::memory_order_acquire)) {
    if (!job) {
      auto asked = ask_for(context, owner, host);
      if (!asked) return std::move(asked).error();
      job = *std::move(asked);
    }
    const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);  // for a place
    const auto ready = context.wait(job ? job->done.fd() : -1, POLLIN, job ? fetch_time::max() : soon);
    if (!ready) return ready.error();
  }
  if (!job->failure.empty()) {
    return context.fail(errc::resolve_failed, "cannot resolve ", quote(host), ": ", job->failure);
  }
  if (job->found.empty()) return context.fail(errc::resolve_failed, "the host ", quote(host), " has no address");
  std::vector<socket_address> found;
  for (const socket_address& each : job->found) found.push_back(make_address(&each.storage, each.size, port));
  return found;
}

// - TLS -

// Leaves OpenSSL's per-thread error queue empty behind a fetch: what stays there confuses the next user of the thread.
struct clean_error_queue {
  ~clean_error_queue() {
    const fork_gate inside;
    ERR_clear_error();
  }
};

inline std::string openssl_reason() {
  const unsigned long code = ERR_peek_error();
  if (code == 0) return "no reason given";
  if (ERR_SYSTEM_ERROR(code)) return errno_text(ERR_GET_REASON(code));
  const char* text = ERR_reason_error_string(code);
  return text != nullptr ? std::string(text) : concat("OpenSSL error ", code);
}

template <auto Free>
struct gated_free {
  template <class T>
  void operator()(T* object) const noexcept {
    const fork_gate inside;
    Free(object);
  }
};
using ssl_ptr = std::unique_ptr<SSL, gated_free<&SSL_free>>;
using ssl_ctx_ptr = std::unique_ptr<SSL_CTX, gated_free<&SSL_CTX_free>>;
using x509_ptr = std::unique_ptr<X509, openssl_free<&X509_free>>;
using x509_store_ptr = std::unique_ptr<X509_STORE, gated_free<&X509_STORE_free>>;
using bio_ptr = std::unique_ptr<BIO, openssl_free<&BIO_free>>;

// Something loaded once and then shared, published by one compare-exchange: two threads may both load it, one of them
// wins. There is no lock that a forked child could find held.
template <class Pointer>
class shared_load {
 public:
  using element = typename Pointer::element_type;
  ~shared_load() { Pointer(object_.load(std::memory_order_acquire)); }

  template <class Load>
  [[nodiscard]] result<element*> get(Load load) {
    element* seen = object_.load(std::memory_order_acquire);
    if (seen != nullptr) return seen;
    result<Pointer> loaded = load();
    if (!loaded) return std::move(loaded).error();  // not kept: the file may be right the next time
    if (!object_.compare_exchange_strong(seen, loaded->get(), std::memory_order_acq_rel)) return seen;
    return loaded->release();
  }

 private:
  std::atomic<element*> object_{nullptr};
};

// A PEM file that wants a passphrase must fail: OpenSSL's own answer is to ask on the terminal and wait.
inline int no_passphrase(char*, int, int, void*) { return 0; }

// A file that the user named, and its text. Read here and not by OpenSSL, whose calls are inside the gate.
struct named_file {
  std::string name, text;

  [[nodiscard]] result<void> read(const char* what, const std::string& path) {
    if (path.empty()) return {};
    name = concat(what, ' ', quote(path));
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"), std::fclose);
    std::array<char, 4096> piece;
    constexpr std::size_t most = std::size_t{64} << 20U;
    for (std::size_t got = 1; file && got > 0 && text.size() < most; text.append(piece.data(), got)) {
      got = std::fread(piece.data(), 1, piece.size(), file.get());
    }
    if (file && std::ferror(file.get()) == 0) return {};
    return make_error(errc::tls_failed, "cannot read ", name, ": ", errno_text(errno));
  }
};

inline bio_ptr memory_bio(const std::string& text) {
  constexpr std::size_t most = std::numeric_limits<int>::max();
  return bio_ptr(BIO_new_mem_buf(text.data(), static_cast<int>(std::min(text.size(), most))));
}

inline result<std::vector<x509_ptr>> read_certificates(const std::string& pem, std::string_view name) {
  std::vector<x509_ptr> out;
  const bio_ptr text = memory_bio(pem);
  while (text) {
    x509_ptr certificate(PEM_read_bio_X509(text.get(), nullptr, no_passphrase, nullptr));
    if (!certificate) break;
    // Reads the extensions now. The first handshakes would do it, under a lock in libcrypto that ThreadSanitizer
    // cannot see.
    X509_check_purpose(certificate.get(), -1, 0);
    out.push_back(std::move(certificate));
  }
  const bool at_end = text && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!at_end || out.empty()) {
    return make_error(errc::tls_failed, "cannot read certificates from ", name, ": ", openssl_reason());
  }
  ERR_clear_error();
  return out;
}

// The system's trust store, or the file and directory that SSL_CERT_FILE and SSL_CERT_DIR name: tens of milliseconds to
// read, so once per process. Never destroyed: a fetch may outlive static objects.
inline result<X509_STORE*> system_trust() {
  static shared_load<x509_store_ptr>& only = *new shared_load<x509_store_ptr>;
  return only.get([]() -> result<x509_store_ptr> {
    x509_store_ptr store(X509_STORE_new());
    if (!store || X509_STORE_set_default_paths(store.get()) != 1) {
      return make_error(errc::tls_failed, "cannot load the system's trusted certificates: ", openssl_reason());
    }
    return store;
  });
}

// What the user gave is trusted, also without the root above it.
inline result<void> trust(SSL_CTX* tls, const std::string& pem, std::string_view name) {
  const auto certificates = read_certificates(pem, name);
  if (!certificates) return certificates.error();
  for (const x509_ptr& each : *certificates) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(tls), each.get()) != 1) {
      return make_error(errc::tls_failed, "cannot use a certificate of ", name, ": ", openssl_reason());
    }
  }
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls), X509_V_FLAG_PARTIAL_CHAIN);
  return {};
}

inline result<void> use_client_certificate(SSL_CTX* tls, const named_file& certificate, const named_file& secret) {
  const auto chain = read_certificates(certificate.text, certificate.name);
  if (!chain) return chain.error();
  const bio_ptr text = memory_bio(secret.text);
  const std::unique_ptr<EVP_PKEY, pkey_free> key(
      text ? PEM_read_bio_PrivateKey(text.get(), nullptr, no_passphrase, nullptr) : nullptr);
  bool used = key && SSL_CTX_use_certificate(tls, chain->front().get()) == 1;
  for (std::size_t i = 1; used && i < chain->size(); ++i) used = SSL_CTX_add1_chain_cert(tls, (*chain)[i].get()) == 1;
  if (!used || SSL_CTX_use_PrivateKey(tls, key.get()) != 1) {
    return make_error(errc::tls_failed, "cannot use ", secret.name, ": ", openssl_reason());
  }
  return {};
}

// Without finite-field DH: in TLS 1.2 a server may name a group of 10,000 bits, and then OpenSSL computes for a second
// or more, in which nothing can stop it; in TLS 1.3 one of 8,192 bits, for a tenth of a second. Browsers do without it,
// too.
inline bool leave_out_dhe(SSL_CTX* tls) {
  if (SSL_CTX_set_cipher_list(tls, "DEFAULT:!kDHE") != 1) return false;
  // Names that a release or a provider does not know fail the whole list.
  for (const char* groups :
       {"X25519MLKEM768:X25519:P-256:X448:P-521:P-384", "X25519:P-256:X448:P-521:P-384", "P-256:P-521:P-384"}) {
    if (SSL_CTX_set1_groups_list(tls, groups) == 1) return true;
  }
  return false;
}

// The system's certificates are read only if the user gave none, and @p with_system.
AXIOMS_JWKS_INLINE result<ssl_ctx_ptr> make_tls(const httplib_options& options, bool with_system = true) {
  named_file authority, certificate, secret;
  result<void> done = authority.read("the CA file", options.ca_file);
  if (done) done = certificate.read("the client certificate", options.client_cert_file);
  const std::string& key = options.client_key_file.empty() ? options.client_cert_file : options.client_key_file;
  if (done) done = secret.read("the client key", key);
  if (!done) return std::move(done).error();
  const fork_gate inside;
  ERR_clear_error();
  ssl_ctx_ptr tls(SSL_CTX_new(TLS_client_method()));
  if (!tls || SSL_CTX_set_min_proto_version(tls.get(), TLS1_2_VERSION) != 1 || !leave_out_dhe(tls.get())) {
    return make_error(errc::tls_failed, "cannot set up TLS: ", openssl_reason());
  }
  SSL_CTX_set_verify(tls.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_session_cache_mode(tls.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(tls.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  if (!options.ca_file.empty()) done = trust(tls.get(), authority.text, authority.name);
  if (done && !options.ca_pem.empty()) done = trust(tls.get(), options.ca_pem, "the CA certificates of ca_pem");
  if (done && options.ca_file.empty() && options.ca_pem.empty() && with_system) {
    const auto system = system_trust();
    if (system) {
      SSL_CTX_set1_cert_store(tls.get(), *system);
    } else {
      done = system.error();
    }
  }
  if (done && !options.client_cert_file.empty()) done = use_client_certificate(tls.get(), certificate, secret);
  if (!done) return std::move(done).error();
  ERR_clear_error();
  return tls;
}

// - connection -

// A non-blocking socket, with or without TLS. Everything is sent with MSG_NOSIGNAL, TLS records through a BIO of our
// own, because OpenSSL's socket BIO uses write(): a peer that resets would kill the process by SIGPIPE.
class connection {
 public:
  explicit connection(fetch_context& context) noexcept : context_(context) {}
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  // @p owner: the fetcher, for its resolver threads. @p limit: for one address.
  [[nodiscard]] result<void> open(std::uint64_t owner, const std::string& host, std::uint16_t port,
                                  std::chrono::milliseconds limit);
  // Without @p identified no client certificate is shown.
  [[nodiscard]] result<void> start_tls(SSL_CTX* tls, const std::string& host, bool identified);
  // 0 is the end; over TLS only one that the peer announced.
  [[nodiscard]] result<std::size_t> read(char* out, std::size_t size);
  [[nodiscard]] result<void> write(std::string_view text);
  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  // Tells a TLS peer that we leave; never waits.
  void say_goodbye() noexcept {
    const fork_gate inside;
    if (ssl_) SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }

 private:
  struct attempt {
    const socket_address* to;
    descriptor socket;
    fetch_time until;
  };
  [[nodiscard]] int begin(attempt& fresh, std::chrono::milliseconds limit) const;
  [[nodiscard]] result<void> succeed(const std::string& host, attempt& winner);
  // As recv() and send(), and would block when the fetch has to end: OpenSSL reads on inside one call for as long as a
  // peer sends what it skips (a HelloRequest in a handshake, say), and only what it reads by can make it return.
  [[nodiscard]] ssize_t receive_some(char* out, std::size_t size) const noexcept;
  [[nodiscard]] ssize_t send_some(const char* data, std::size_t size) const noexcept;
  // Calls OpenSSL, inside the gate, until it returns 1 or fails; waits between, outside, for what it wants.
  template <class Call>
  [[nodiscard]] result<void> tls_call(std::string_view action, Call call);
  [[nodiscard]] error tls_error(std::string_view action, int system) const;
  [[nodiscard]] bool prepare_tls(SSL_CTX* tls, const std::string& host, bool identified);
  static BIO_METHOD* bio_method();

  fetch_context& context_;
  std::string peer_;
  descriptor socket_;
  ssl_ptr ssl_;  // last: its BIO uses the rest
};

#if defined(MSG_NOSIGNAL)
inline constexpr int send_flags = MSG_NOSIGNAL;
#else
inline constexpr int send_flags = 0;  // SO_NOSIGPIPE is set where that is missing
#endif

inline descriptor open_socket(int family) noexcept {
#if defined(SOCK_CLOEXEC) && defined(SOCK_NONBLOCK)
  descriptor made(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
#else
  descriptor made(::socket(family, SOCK_STREAM, 0));
  if (made && !made.tame()) return {};
#endif
  if (!made) return made;
  const int on = 1;
#if defined(SO_NOSIGPIPE)
  ::setsockopt(made.get(), SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
  ::setsockopt(made.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return made;
}

inline int socket_error(int fd) noexcept {
  int failed = 0;
  socklen_t size = sizeof failed;
  return ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size) == 0 ? failed : errno;
}

inline bool would_block(int number) noexcept { return number == EAGAIN || number == EWOULDBLOCK || number == EINTR; }

// 0: connected at once; EINPROGRESS: not yet; else why not.
AXIOMS_JWKS_INLINE int connection::begin(attempt& fresh, std::chrono::milliseconds limit) const {
  context_.enter("connecting to ", fresh.to->text);
  fresh.socket = open_socket(fresh.to->storage.ss_family);
  if (!fresh.socket) return errno;
  const auto now = std::chrono::steady_clock::now();
  const bool limited = limit > std::chrono::milliseconds(0) && limit < context_.deadline() - now;
  fresh.until = limited ? now + limit : fetch_time::max();
  const auto* address = reinterpret_cast<const sockaddr*>(&fresh.to->storage);
  if (::connect(fresh.socket.get(), address, fresh.to->size) == 0) return 0;
  return errno == EINTR ? EINPROGRESS : errno;
}

AXIOMS_JWKS_INLINE result<void> connection::succeed(const std::string& host, attempt& winner) {
  socket_ = std::move(winner.socket);
  peer_ = concat(quote(host), " (", winner.to->text, ')');
  return {};
}

// RFC 8305 section 5: the next address begins when all before it have failed, or a quarter of a second after the last
// one began; the first that answers wins.
AXIOMS_JWKS_INLINE result<void> connection::open(std::uint64_t owner, const std::string& host, std::uint16_t port,
                                                 std::chrono::milliseconds limit) {
  if (auto live = context_.check(); !live) return live;
  const auto addresses = resolve(context_, owner, host, port);
  if (!addresses) return addresses.error();
  std::string reasons;
  const auto give_up = [&](const attempt& on, const auto&... why) {
    append_to(reasons, concat(reasons.empty() ? "" : "; ", on.to->text, ": ", why...));
  };
  std::vector<attempt> running;
  fetch_time turn{};
  for (auto next = addresses->begin(); next != addresses->end() || !running.empty();) {
    if (next != addresses->end() && (running.empty() || std::chrono::steady_clock::now() >= turn)) {
      attempt fresh{&*next++, {}, {}};
      turn = std::chrono::steady_clock::now() + std::chrono::milliseconds(250);
      const int failed = begin(fresh, limit);
      if (failed == 0) return succeed(host, fresh);
      const bool shortage = failed == EMFILE || failed == ENFILE || failed == ENOBUFS || failed == ENOMEM;
      if (!fresh.socket && running.empty() && shortage) {
        return context_.fail(errc::no_resources, "no socket: ", errno_text(failed));
      }
      if (failed != EINPROGRESS) give_up(fresh, errno_text(failed));
      if (failed == EINPROGRESS) running.push_back(std::move(fresh));
      continue;
    }
    std::vector<pollfd> watched(1);
    fetch_time soonest = next != addresses->end() ? turn : fetch_time::max();
    for (const attempt& each : running) {
      watched.push_back({each.socket.get(), POLLOUT, 0});
      soonest = std::min(soonest, each.until);
    }
    if (const auto ready = context_.wait(watched.data(), watched.size(), soonest); !ready) return ready.error();
    std::vector<attempt> left;
    for (std::size_t i = 0; i < running.size(); ++i) {
      if (watched[i + 1].revents != 0) {
        const int failed = socket_error(running[i].socket.get());
        if (failed == 0) return succeed(host, running[i]);
        give_up(running[i], errno_text(failed));
      } else if (std::chrono::steady_clock::now() >= running[i].until) {
        give_up(running[i], "no answer within ", limit.count(), " ms");
      } else {
        left.push_back(std::move(running[i]));
      }
    }
    running = std::move(left);
  }
  return context_.fail(errc::connect_failed, "cannot connect to ", quote(host), ": ", reasons);
}

AXIOMS_JWKS_INLINE ssize_t connection::receive_some(char* out, std::size_t size) const noexcept {
  if (!context_.over() && !fork_gate::closing()) return ::recv(socket_.get(), out, size, 0);
  errno = EWOULDBLOCK;
  return -1;
}

AXIOMS_JWKS_INLINE ssize_t connection::send_some(const char* data, std::size_t size) const noexcept {
  if (!context_.over()) return ::send(socket_.get(), data, size, send_flags);
  errno = EWOULDBLOCK;
  return -1;
}

AXIOMS_JWKS_INLINE BIO_METHOD* connection::bio_method() {
  static std::atomic<BIO_METHOD*> shared{nullptr};
  BIO_METHOD* seen = shared.load(std::memory_order_acquire);
  if (seen != nullptr) return seen;
  BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "axioms_jwks socket");
  if (made == nullptr) return nullptr;
  BIO_meth_set_write(made, [](BIO* bio, const char* data, int size) -> int {
    BIO_clear_retry_flags(bio);
    const auto sent = static_cast<connection*>(BIO_get_data(bio))->send_some(data, static_cast<std::size_t>(size));
    if (sent < 0 && would_block(errno)) BIO_set_retry_write(bio);
    return static_cast<int>(sent);
  });
  BIO_meth_set_read(made, [](BIO* bio, char* out, int size) -> int {
    BIO_clear_retry_flags(bio);
    const auto got = static_cast<connection*>(BIO_get_data(bio))->receive_some(out, static_cast<std::size_t>(size));
    if (got < 0 && would_block(errno)) BIO_set_retry_read(bio);
    return static_cast<int>(got);
  });
  BIO_meth_set_ctrl(made, [](BIO*, int command, long, void*) -> long { return command == BIO_CTRL_FLUSH ? 1 : 0; });
  if (shared.compare_exchange_strong(seen, made, std::memory_order_acq_rel)) return made;
  BIO_meth_free(made);
  return seen;
}

template <class Call>
result<void> connection::tls_call(std::string_view action, Call call) {
  for (;;) {
    short wanted = 0;
    {
      const fork_gate inside;
      ERR_clear_error();
      errno = 0;
      const int returned = call();
      if (returned == 1) return {};
      const int system = errno, reason = SSL_get_error(ssl_.get(), returned);
      if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE) return tls_error(action, system);
      wanted = reason == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    }
    if (const auto ready = context_.wait(socket_.get(), wanted); !ready) return ready.error();
  }
}

AXIOMS_JWKS_INLINE error connection::tls_error(std::string_view action, int system) const {
  const unsigned long code = ERR_peek_error();
  const long verdict = SSL_get_verify_result(ssl_.get());
  const std::string why = verdict != X509_V_OK
                              ? concat("certificate not accepted: ", X509_verify_cert_error_string(verdict))
                          : code != 0   ? openssl_reason()
                          : system != 0 ? errno_text(system)
                                        : std::string("the connection was closed without a TLS close_notify");
  // With TLS 1.3 the server's verdict on our certificate comes as an alert after the handshake.
  const bool ended = code == 0 || ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
  return context_.fail(ended && SSL_is_init_finished(ssl_.get()) ? errc::fetch_failed : errc::tls_failed, action, ' ',
                       peer_, " failed: ", why);
}

AXIOMS_JWKS_INLINE bool connection::prepare_tls(SSL_CTX* tls, const std::string& host, bool identified) {
  ssl_.reset(SSL_new(tls));
  BIO_METHOD* method = bio_method();
  BIO* bio = ssl_ && method != nullptr ? BIO_new(method) : nullptr;
  if (bio == nullptr) return false;
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  if (!identified) SSL_certs_clear(ssl_.get());

  // RFC 9525: names come from subjectAltName only, a wildcard stands for one whole label. An address is compared with
  // the addresses in the certificate and never sent as SNI (RFC 6066 section 3).
  X509_VERIFY_PARAM* rules = SSL_get0_param(ssl_.get());
  X509_VERIFY_PARAM_set_hostflags(rules, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  if (numeric_address(host, 0)) return X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str()) == 1;
  std::string name = host;
  if (name.size() > 1 && name.back() == '.') name.pop_back();  // certificates hold names without the root's dot
  return X509_VERIFY_PARAM_set1_host(rules, name.data(), name.size()) == 1 &&
         SSL_ctrl(ssl_.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) == 1;
}

AXIOMS_JWKS_INLINE result<void> connection::start_tls(SSL_CTX* tls, const std::string& host, bool identified) {
  context_.enter("shaking hands with ", peer_);
  {
    const fork_gate inside;
    if (!prepare_tls(tls, host, identified)) {
      return context_.fail(errc::tls_failed, "cannot set up TLS with ", quote(host), ": ", openssl_reason());
    }
    SSL_set_connect_state(ssl_.get());
  }
  if (auto done = tls_call("TLS handshake with", [this] { return SSL_do_handshake(ssl_.get()); }); !done) return done;
  // Cannot happen after SSL_VERIFY_PEER; a change that breaks the set-up above must not go unnoticed.
  const fork_gate inside;
  if (SSL_get_verify_result(ssl_.get()) != X509_V_OK || SSL_get0_peer_certificate(ssl_.get()) == nullptr) {
    return tls_error("TLS handshake with", 0);
  }
  return {};
}

AXIOMS_JWKS_INLINE result<std::size_t> connection::read(char* out, std::size_t size) {
  if (ssl_) {
    std::size_t got = 0;
    const auto done = tls_call("reading from", [&] {
      const int returned = SSL_read_ex(ssl_.get(), out, size, &got);
      return SSL_get_error(ssl_.get(), returned) == SSL_ERROR_ZERO_RETURN ? 1 : returned;
    });
    return done ? result<std::size_t>(got) : result<std::size_t>(done.error());
  }
  for (;;) {
    const auto got = receive_some(out, size);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (!would_block(errno)) {
      return context_.fail(errc::fetch_failed, "reading from ", peer_, " failed: ", errno_text(errno));
    }
    if (const auto ready = context_.wait(socket_.get(), POLLIN); !ready) return ready.error();
  }
}

AXIOMS_JWKS_INLINE result<void> connection::write(std::string_view text) {
  if (ssl_) {
    std::size_t sent = 0;  // all of it, as SSL_MODE_ENABLE_PARTIAL_WRITE is off
    return tls_call("writing to", [&] { return SSL_write_ex(ssl_.get(), text.data(), text.size(), &sent); });
  }
  while (!text.empty()) {
    const auto sent = send_some(text.data(), text.size());
    if (sent >= 0) {
      text.remove_prefix(static_cast<std::size_t>(sent));
    } else if (!would_block(errno)) {
      return context_.fail(errc::fetch_failed, "writing to ", peer_, " failed: ", errno_text(errno));
    } else if (const auto ready = context_.wait(socket_.get(), POLLOUT); !ready) {
      return ready.error();
    }
  }
  return {};
}

// - response -

using header_list = std::vector<std::pair<std::string, std::string>>;

// Of all heads; and of what may stand between two pieces of a body.
inline constexpr std::size_t max_head_bytes = std::size_t{64} * 1024;
inline constexpr int max_interim_responses = 8;

struct response_head {
  int status = 0;
  header_list headers;  // as received, but for folds

  [[nodiscard]] bool has_body() const noexcept {
    return status >= 200 && status < 300 && status != 204 && status != 205;
  }
};

// The first of the content codings in a list that changes the bytes. Some servers write a charset there, or "none".
inline std::string_view real_coding(std::string_view list) noexcept {
  while (!list.empty()) {
    const auto end = std::min(list.find(','), list.size());
    const std::string_view coding = trim(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
    for (const std::string_view real : {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"}) {
      if (iequals(coding, real)) return coding;
    }
  }
  return {};
}

// What a server sends: first the heads, which are read here, then the body, for cpp-httplib to read. Its virtual
// functions are those of every release since 0.11.4, none of which has them all: hence no `override`.
class response_stream : public httplib::Stream {
 public:
  response_stream(connection& link, const fetch_context& context, std::size_t max_body) noexcept
      : link_(link), context_(context), max_body_(max_body) {}
  virtual ~response_stream() = default;

  // The head of the response, behind the interim ones.
  [[nodiscard]] result<response_head> head();
  // What follows the head is for httplib.
  [[nodiscard]] result<void> begin_body(const response_head& head);
  // A piece of the body. False: it is one too many.
  [[nodiscard]] bool deliver(const char* data, std::size_t size, std::string& body);
  // Why httplib could not read the body: it knows only that something went wrong.
  [[nodiscard]] error why() const;
  [[nodiscard]] bool failed() const noexcept { return failure_.has_value(); }
  [[nodiscard]] bool drained() const noexcept { return at_ == buffer_.size(); }

  virtual bool is_readable() const { return true; }
  virtual bool is_writable() const { return true; }
  virtual bool wait_readable() const { return true; }
  virtual bool wait_writable() const { return true; }
  virtual bool is_peer_alive() const { return true; }
  virtual ssize_t read(char* out, std::size_t size);
  // Ours has been sent: releases from 0.30 to 0.47 would rewrite its query.
  virtual ssize_t write(const char*, std::size_t size) { return static_cast<ssize_t>(size); }
  virtual void get_remote_ip_and_port(std::string&, int&) const {}
  virtual void get_local_ip_and_port(std::string&, int&) const {}
  virtual socket_t socket() const { return link_.fd(); }
  virtual time_t duration() const { return 0; }

 private:
  [[nodiscard]] result<std::size_t> receive();
  [[nodiscard]] result<std::string_view> line();  // lives until the next call
  [[nodiscard]] result<int> status_line();
  [[nodiscard]] result<void> header_lines(header_list& headers);
  template <class... Pieces>
  [[nodiscard]] error refuse(const Pieces&... why) const {
    return context_.fail(errc::fetch_failed, "bad response: ", why...);
  }
  ssize_t fail(error why) {
    if (!failure_) failure_ = std::move(why);
    return -1;
  }

  connection& link_;
  const fetch_context& context_;
  std::size_t max_body_;
  std::string buffer_;
  std::size_t at_ = 0;          // what lies before it has been handed out
  std::size_t head_bytes_ = 0;  // of all heads so far
  std::size_t between_ = 0;     // read by httplib since the last piece of the body
  std::uint64_t total_ = 0;     // read by httplib
  bool ended_ = false;
  std::optional<error> failure_;
};

AXIOMS_JWKS_INLINE result<std::size_t> response_stream::receive() {
  constexpr std::size_t piece = 4096;
  buffer_.erase(0, std::exchange(at_, 0));
  const std::size_t kept = buffer_.size();
  buffer_.resize(kept + piece);
  auto got = link_.read(buffer_.data() + kept, piece);
  buffer_.resize(kept + (got ? *got : 0));
  ended_ = got && *got == 0;
  return got;
}

AXIOMS_JWKS_INLINE result<std::string_view> response_stream::line() {
  for (std::size_t searched = at_;;) {
    const auto end = buffer_.find('\n', searched);
    const std::size_t size = (end == std::string::npos ? buffer_.size() : end + 1) - at_;
    if (head_bytes_ + size > max_head_bytes) {
      return context_.fail(errc::response_too_large, "the response head has more than ", max_head_bytes, " bytes");
    }
    if (end != std::string::npos) {
      std::string_view text(buffer_.data() + at_, size - 1);
      at_ = end + 1;
      head_bytes_ += size;
      if (!text.empty() && text.back() == '\r') text.remove_suffix(1);  // a bare LF will do: RFC 9112 section 2.2
      return text;
    }
    searched = buffer_.size() - at_;
    const auto got = receive();
    if (!got) return got.error();
    if (*got == 0) return refuse("the connection was closed in the middle of the head");
  }
}

AXIOMS_JWKS_INLINE result<int> response_stream::status_line() {
  const auto text = line();
  if (!text) return text.error();
  const bool shaped = text->size() >= 12 && text->substr(0, 7) == "HTTP/1." && is_digit((*text)[7]) &&
                      (*text)[8] == ' ' && std::all_of(text->begin() + 9, text->begin() + 12, is_digit) &&
                      (text->size() == 12 || (*text)[12] == ' ');
  const int status = shaped ? ((*text)[9] - '0') * 100 + ((*text)[10] - '0') * 10 + ((*text)[11] - '0') : 0;
  if (status < 100 || status > 599) return refuse("not an HTTP/1.x status line: ", quote(*text, 48));
  return status;
}

// What is no header is left out, and so is a value that could not be sent back: nobody needs it.
AXIOMS_JWKS_INLINE result<void> response_stream::header_lines(header_list& headers) {
  std::string field;  // with the lines that continue it
  for (;;) {
    const auto text = line();
    if (!text) return text.error();
    if (!text->empty() && (text->front() == ' ' || text->front() == '\t')) {
      field.append(1, ' ').append(trim(*text));  // RFC 9112 section 5.2
      continue;
    }
    const auto colon = field.find(':');
    const std::string_view name = std::string_view(field).substr(0, colon);
    const std::string_view value = colon < field.size() ? trim(std::string_view(field).substr(colon + 1)) : "";
    if (colon < field.size() && is_token(name) && is_header_safe(value)) headers.emplace_back(name, value);
    if (text->empty()) return {};
    field = *text;
  }
}

AXIOMS_JWKS_INLINE result<response_head> response_stream::head() {
  for (int interim = 0;; ++interim) {
    response_head head;
    const auto status = status_line();
    if (!status) return status.error();
    head.status = *status;
    if (auto read = header_lines(head.headers); !read) return std::move(read).error();
    if (head.status >= 200) return head;
    if (head.status == 101) return refuse("status 101, although no other protocol was asked for");
    if (interim == max_interim_responses) return refuse("more than ", max_interim_responses, " interim responses");
  }
}

// - exchange -

// Puts before the body what httplib has to know of the head. Without the reason phrase: its regular expression takes
// 320 bytes of stack for each character.
AXIOMS_JWKS_INLINE result<void> response_stream::begin_body(const response_head& head) {
  std::string text = concat("HTTP/1.1 ", head.status, "\r\n");
  for (const auto& [name, value] : head.headers) {
    const bool length = iequals(name, "Content-Length");
    if (length || iequals(name, "Transfer-Encoding")) append_to(text, concat(name, ": ", value, "\r\n"));
    if (length && std::strtoull(value.c_str(), nullptr, 10) > max_body_) {  // waiting for it would be in vain
      return context_.fail(errc::response_too_large, "the body has more than ", max_body_, " bytes");
    }
    const std::string_view coding = iequals(name, "Content-Encoding") ? real_coding(value) : "";
    if (!coding.empty()) return refuse("it is encoded by ", quote(coding), ", although only identity was asked for");
  }
  append_to(text, "\r\n");
  buffer_.replace(0, std::exchange(at_, 0), text);
  return {};
}

// Bounds what httplib reads: releases before 0.20.1 keep a line of any length. Chunks of one byte are six to one.
AXIOMS_JWKS_INLINE ssize_t response_stream::read(char* out, std::size_t size) {
  if (size == 0) return 0;
  if (drained()) {
    const auto got = receive();
    if (!got) return fail(got.error());
  }
  const std::size_t count = std::min(size, buffer_.size() - at_);
  std::memcpy(out, buffer_.data() + at_, count);
  at_ += count;
  between_ += count;
  total_ += count;
  if (between_ > max_head_bytes || (total_ / 16 > max_head_bytes && total_ / 16 - max_head_bytes > max_body_)) {
    return fail(context_.fail(errc::response_too_large, "too much between the pieces of the body"));
  }
  return static_cast<ssize_t>(count);
}

AXIOMS_JWKS_INLINE bool response_stream::deliver(const char* data, std::size_t size, std::string& body) {
  between_ = 0;
  if (size > max_body_ - body.size()) {
    fail(context_.fail(errc::response_too_large, "the body has more than ", max_body_, " bytes"));
    return false;
  }
  body.append(data, size);
  return true;
}

AXIOMS_JWKS_INLINE error response_stream::why() const {
  if (failure_) return *failure_;
  return ended_ ? refuse("the connection was closed in the middle of the body")
                : refuse("cpp-httplib cannot tell how the body ends");
}

// Lends out the protected part of httplib's client: one response over a Stream that somebody else made. Unchanged from
// 0.11.4 to 0.53.1.
class httplib_messages : private httplib::ClientImpl {
 public:
  httplib_messages() : ClientImpl("localhost") {  // never connected to
    set_decompress(false);
    lift_limit(static_cast<httplib::ClientImpl&>(*this));
  }
  bool run(httplib::Stream& stream, httplib::Request& request, httplib::Response& response) {
    httplib::Error ignored = httplib::Error::Success;  // its values differ between releases; the stream knows better
    return process_request(stream, request, response, true, ignored);
  }

 private:
  // Its own body limit, which older releases lack, is below what a user may ask for.
  template <class Client>
  static void lift_limit(Client& client) {
    if constexpr (requires { client.set_payload_max_length(std::size_t{0}); }) {
      client.set_payload_max_length(std::numeric_limits<std::size_t>::max());
    }
  }
};

AXIOMS_JWKS_INLINE result<fetch_response> run_exchange(fetch_context& context, connection& link,
                                                       const std::string& target, const header_list& headers,
                                                       std::size_t max_body) {
  context.enter("sending the request");
  std::string text = concat("GET ", target, " HTTP/1.1\r\n");
  for (const auto& [name, value] : headers) append_to(text, concat(name, ": ", value, "\r\n"));
  append_to(text, "\r\n");
  if (auto sent = link.write(text); !sent) return std::move(sent).error();
  context.enter("waiting for the response");
  response_stream stream(link, context, max_body);
  auto head = stream.head();
  if (!head) return std::move(head).error();
  fetch_response out;
  out.status = head->status;
  // An error page is not read: nobody uses it, and a slow or endless one would hide the status.
  if (head->has_body()) {
    context.enter("reading the body");
    if (auto begun = stream.begin_body(*head); !begun) return std::move(begun).error();
    httplib::Request request;
    request.method = "GET";
    request.path = "/";
    request.content_receiver = [&](const char* data, std::size_t size, auto&&...) {
      return stream.deliver(data, size, out.body);
    };
    httplib::Response response;
    httplib_messages messages;
    if (!messages.run(stream, request, response) || stream.failed()) return stream.why();
  }
  out.headers = std::move(head->headers);
  return out;
}

// - proxy -

struct proxy_route {
  parsed_url where;
  std::string authorization;  // value of Proxy-Authorization, empty without credentials
};

inline std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned byte = 0;
    const char* digits = text.data() + i + 1;
    const bool coded =
        text[i] == '%' && i + 2 < text.size() && std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2;
    out += coded ? static_cast<char>(byte) : text[i];
    if (coded) i += 2;
  }
  return out;
}

// The text may hold a password: no error repeats any of it.
AXIOMS_JWKS_INLINE result<std::optional<proxy_route>> parse_proxy(const fetch_context& context, std::string_view text,
                                                                  std::string_view origin) {
  const auto refuse = [&] {
    return context.fail(errc::connect_failed, "the proxy from ", origin,
                        " is not of the form http://[user:password@]host[:port]");
  };
  text = trim(text);
  if (text.empty()) return std::optional<proxy_route>();
  if (const auto scheme = text.find("://"); scheme != std::string_view::npos) {
    if (!iequals(text.substr(0, scheme), "http")) return refuse();
    text.remove_prefix(scheme + 3);
  }
  text = text.substr(0, text.find_first_of("/?#"));
  proxy_route route;
  if (const auto at = text.rfind('@'); at != std::string_view::npos) {
    const std::string credentials = percent_decoded(text.substr(0, at));
    if (credentials.size() > 1024) return refuse();
    std::string encoded(4 * ((credentials.size() + 2) / 3) + 1, '\0');
    EVP_EncodeBlock(reinterpret_cast<unsigned char*>(encoded.data()),
                    reinterpret_cast<const unsigned char*>(credentials.data()), static_cast<int>(credentials.size()));
    encoded.pop_back();
    route.authorization = concat("Basic ", encoded);
    text.remove_prefix(at + 1);
  }
  auto where = parse_url(concat("http://", text));
  if (!where) return refuse();
  route.where = *std::move(where);
  return std::optional(std::move(route));
}

// The bytes of an address, or of the one that a network begins with; empty: it is none.
inline std::string address_bytes(std::string_view text) {
  if (text.size() > 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  const std::string name(text);
  std::array<char, 16> raw{};
  if (::inet_pton(AF_INET, name.c_str(), raw.data()) == 1) return std::string(raw.data(), 4);
  return ::inet_pton(AF_INET6, name.c_str(), raw.data()) == 1 ? std::string(raw.data(), 16) : std::string();
}

inline bool in_network(const std::string& host, std::string_view network, std::string_view prefix) {
  const std::string base = address_bytes(network);
  std::size_t bits = 0;
  const auto [end, failed] = std::from_chars(prefix.data(), prefix.data() + prefix.size(), bits);
  if (failed != std::errc() || end != prefix.data() + prefix.size() || base.size() != host.size()) return false;
  for (std::size_t i = 0; i < std::min(bits, 8 * host.size()); ++i) {
    if (((host[i / 8] ^ base[i / 8]) & (0x80 >> (i % 8))) != 0) return false;
  }
  return bits <= 8 * host.size();
}

// One entry of NO_PROXY: `*`, a name that stands for its subdomains too, with or without `.` or `*.` before it, an
// address or a network; all but networks also with a port.
inline bool entry_matches(std::string_view entry, const parsed_url& url) {
  if (entry == "*") return true;
  const std::string host = address_bytes(url.host);
  if (const auto slash = entry.find('/'); slash != std::string_view::npos) {
    return !host.empty() && in_network(host, entry.substr(0, slash), entry.substr(slash + 1));
  }
  const auto colon = entry.rfind(':');
  if (colon != std::string_view::npos && (entry.find(':') == colon || (colon > 0 && entry[colon - 1] == ']'))) {
    if (entry.substr(colon + 1) != std::to_string(url.port)) return false;
    entry = entry.substr(0, colon);
  }
  if (!host.empty()) return address_bytes(entry) == host;
  std::string_view name = url.host;
  if (entry.substr(0, 1) == "*") entry.remove_prefix(1);
  if (entry.substr(0, 1) == ".") entry.remove_prefix(1);
  for (std::string_view* each : {&entry, &name}) {
    if (!each->empty() && each->back() == '.') each->remove_suffix(1);
  }
  if (entry.empty() || name.size() < entry.size()) return false;
  const auto before = name.size() - entry.size();
  return iequals(name.substr(before), entry) && (before == 0 || name[before - 1] == '.');
}

AXIOMS_JWKS_INLINE bool bypasses_proxy(std::string_view list, const parsed_url& url) {
  while (!list.empty()) {
    const auto end = std::min(list.find_first_of(", \t"), list.size());
    if (entry_matches(list.substr(0, end), url)) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

// What the environment says of proxies. Read once: an application may call setenv() later, which no reader survives.
struct proxy_environment {
  std::string http, https, bypass;

  static proxy_environment read() {
    const auto value = [](const char* name, const char* otherwise) {
      const char* found = std::getenv(name);
      if ((found == nullptr || *found == '\0') && otherwise != nullptr) found = std::getenv(otherwise);
      return std::string(found != nullptr ? found : "");
    };
    // In a CGI process HTTP_PROXY is a request's Proxy header (CVE-2016-5385 and its like).
    const bool cgi = !value("REQUEST_METHOD", nullptr).empty();
    return {value("http_proxy", cgi ? nullptr : "HTTP_PROXY"), value("https_proxy", "HTTPS_PROXY"),
            value("no_proxy", "NO_PROXY")};
  }
};

AXIOMS_JWKS_INLINE result<void> open_tunnel(fetch_context& context, connection& link, const proxy_route& proxy,
                                            const parsed_url& url) {
  context.enter("asking the proxy ", quote(proxy.where.authority()), " for a tunnel");
  const std::string host = concat(url.ipv6 ? concat('[', url.host, ']') : url.host, ':', url.port);
  std::string text =
      concat("CONNECT ", host, " HTTP/1.1\r\nHost: ", host, "\r\nUser-Agent: axioms_jwks/" AXIOMS_JWKS_VERSION "\r\n");
  if (!proxy.authorization.empty()) append_to(text, concat("Proxy-Authorization: ", proxy.authorization, "\r\n"));
  append_to(text, "\r\n");
  if (auto sent = link.write(text); !sent) return sent;
  response_stream answer(link, context, 0);
  const auto head = answer.head();  // a 2xx to CONNECT has no body whatever it says (RFC 9110 section 9.3.6)
  if (!head) return head.error();
  if (head->status > 299) {
    return context.fail(errc::connect_failed, "the proxy ", quote(proxy.where.authority()),
                        " answered CONNECT with status ", head->status);
  }
  if (!answer.drained()) return context.fail(errc::fetch_failed, "the proxy sent more than its answer to CONNECT");
  return {};
}

// - the fetch -

// The options of a fetcher and what has been made of them.
struct httplib_setup {
  httplib_setup(std::uint64_t fetcher, httplib_options given)
      : owner(fetcher), options(std::move(given)), environment(proxy_environment::read()) {
    for (const std::string& each : options.credential_origins) {
      const auto url = parse_url(each);
      if (url && url->target == "/") {
        credential_origins.emplace_back(origin_of(url->normalized));
      } else if (!wrong) {
        wrong = make_error(errc::invalid_config,
                           "credential_origins holds no origin: ", url ? quote(each) : url.error().description);
      }
    }
    if (!wrong && !options.client_key_file.empty() && options.client_cert_file.empty()) {
      wrong = make_error(errc::invalid_config, "client_key_file needs client_cert_file");
    }
  }

  const std::uint64_t owner;  // for its resolver threads
  const httplib_options options;
  const proxy_environment environment;
  std::vector<std::string> credential_origins;
  std::optional<error> wrong;  // with the options
  mutable shared_load<ssl_ctx_ptr> tls;
};

inline std::atomic<std::uint64_t> fetchers_made{0};

// What the copies of a fetcher share. A fetch keeps the setup that it began with.
class httplib_state {
 public:
  explicit httplib_state(httplib_options options)
      : id_(++fetchers_made), current_(std::make_shared<const httplib_setup>(id_, std::move(options))) {}
  // Locked inside the gate only, so that no child finds the mutex taken.
  [[nodiscard]] std::shared_ptr<const httplib_setup> current() const noexcept {
    const fork_gate inside;
    const std::lock_guard lock(mutex_);
    return current_;
  }
  void set(httplib_options options) {
    auto other = std::make_shared<const httplib_setup>(id_, std::move(options));
    const fork_gate inside;
    const std::lock_guard lock(mutex_);
    current_.swap(other);  // the old one goes when the mutex is free
  }

 private:
  const std::uint64_t id_;
  mutable std::mutex mutex_;  // guards current_
  std::shared_ptr<const httplib_setup> current_;
};

AXIOMS_JWKS_INLINE result<std::optional<proxy_route>> choose_proxy(const fetch_context& context,
                                                                   const httplib_setup& setup, const parsed_url& url) {
  const auto& [http, https, bypass] = setup.environment;
  if (!setup.options.proxy.empty()) return parse_proxy(context, setup.options.proxy, "httplib_options::proxy");
  const bool direct = !setup.options.proxy_from_environment || bypasses_proxy(bypass, url);
  return parse_proxy(context, direct ? "" : url.https ? https : http, "the environment");
}

// The reference @p location as seen from @p base (RFC 3986 section 5.2), not yet checked.
AXIOMS_JWKS_INLINE std::string resolve_reference(const parsed_url& base, std::string_view location) {
  location = location.substr(0, location.find('#'));
  const std::string origin = concat(base.scheme(), "://", base.authority());
  const auto delimiter = location.find_first_of(":/?");
  if (delimiter != std::string_view::npos && location[delimiter] == ':') return std::string(location);
  if (location.substr(0, 2) == "//") return concat(base.scheme(), ':', location);
  const std::string_view base_path = std::string_view(base.target).substr(0, base.target.find('?'));
  if (location.empty()) return concat(origin, base.target);
  if (location.front() == '?') return concat(origin, base_path, location);

  const auto query_at = std::min(location.find('?'), location.size());
  std::string path(location.substr(0, query_at));
  if (path.front() != '/') path.insert(0, base_path.substr(0, base_path.rfind('/') + 1));
  std::vector<std::string_view> segments;
  for (std::string_view rest = std::string_view(path).substr(1);;) {
    const auto end = rest.find('/');
    const std::string_view segment = rest.substr(0, end);
    const bool last = end == std::string_view::npos;
    if (segment == "..") {
      if (!segments.empty()) segments.pop_back();
    } else if (segment != ".") {
      segments.push_back(segment);
    }
    if (last && (segment == "." || segment == "..")) segments.push_back({});  // "/a/." is the directory "/a/"
    if (last) break;
    rest.remove_prefix(end + 1);
  }
  std::string out = origin;
  for (const std::string_view segment : segments) out.append(1, '/').append(segment);
  return out.append(location.substr(query_at));
}

// Percent-encodes what no URL may hold but servers send: blanks and bytes outside ASCII.
inline std::string escaped(std::string_view text) {
  constexpr std::string_view hex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = byte > 0x20 && byte < 0x7f;
    out += plain ? std::string(1, c) : std::string{'%', hex[byte >> 4U], hex[byte & 0xfU]};
  }
  return out;
}

// Refusals are the provider's fault, so they are fetch_failed whatever is wrong with the new URL, and parse_url() shows
// none with an @ in it.
AXIOMS_JWKS_INLINE result<parsed_url> follow(const fetch_context& context, const parsed_url& from,
                                             std::string_view location) {
  auto next = parse_url(resolve_reference(from, escaped(location)));
  if (!next) return context.fail(errc::fetch_failed, "redirect refused: ", next.error().description);
  if (from.https && !next->https) {
    return context.fail(errc::fetch_failed, "redirect refused: it leads from https to ", quote(next->normalized));
  }
  return next;
}

// Headers of the application, or why they cannot be sent. Those that frame or route the message are ours.
AXIOMS_JWKS_INLINE result<header_list> application_headers(const fetch_context& context,
                                                           const httplib_options& options) {
  if (!options.headers) return header_list();
  header_list out;
  AXIOMS_JWKS_TRY { out = options.headers(); }
  AXIOMS_JWKS_CATCH_ALL { return context.fail(errc::fetch_failed, "httplib_options::headers threw an exception"); }
  const auto refuse = [&](const auto&... what) {
    return context.fail(errc::fetch_failed, "httplib_options::headers gave ", what...);
  };
  std::size_t bytes = 0;
  for (const auto& [name, value] : out) {
    bytes += name.size() + value.size();
    if (bytes > max_head_bytes) return refuse("more than ", max_head_bytes, " bytes");  // no server takes them
    // Never the value in the text: it is likely a token.
    if (!is_token(name)) return refuse("the illegal name ", quote(name, 48));
    if (!is_header_safe(value)) return refuse(quote(name, 48), " a control byte");
    for (const std::string_view own :
         {"Host", "Connection", "Content-Length", "Transfer-Encoding", "Accept-Encoding", "TE", "Trailer", "Expect",
          "Upgrade", "Proxy-Authorization", "Proxy-Connection", "Keep-Alive"}) {
      if (iequals(name, own)) return refuse(own, ", which is not for it to give");
    }
  }
  return out;
}

// All headers of one request. The application's replace ours of the same name, except for what application_headers()
// refuses.
AXIOMS_JWKS_INLINE header_list request_headers(const fetch_request& request, const parsed_url& url,
                                               const header_list& extra, bool same_origin) {
  header_list out;
  const auto add = [&](const char* name, std::string_view value) {
    if (value.empty() || !is_header_safe(value)) return;  // an ETag with a line break would begin a header of its own
    for (const auto& header : extra) {
      if (iequals(header.first, name)) return;
    }
    out.emplace_back(name, value);
  };
  add("Host", url.authority());
  add("Accept", request.accept.empty() || !is_header_safe(request.accept) ? "application/jwk-set+json, application/json"
                                                                          : std::string_view(request.accept));
  add("Accept-Encoding", "identity");
  add("User-Agent", "axioms_jwks/" AXIOMS_JWKS_VERSION);
  add("Connection", "close");
  if (same_origin) {
    add("If-None-Match", request.etag);
    add("If-Modified-Since", request.last_modified);
  }
  out.insert(out.end(), extra.begin(), extra.end());
  return out;
}

AXIOMS_JWKS_INLINE result<fetch_response> fetch_hop(fetch_context& context, const httplib_setup& setup,
                                                    const fetch_request& request, const parsed_url& url,
                                                    header_list headers, bool identified) {
  const auto proxy = choose_proxy(context, setup, url);
  if (!proxy) return proxy.error();
  SSL_CTX* tls = nullptr;
  if (url.https) {
    auto loaded = setup.tls.get([&] { return make_tls(setup.options); });
    if (!loaded) return context.fail(loaded.error().code, loaded.error().description);
    tls = *loaded;
  }
  connection link(context);
  const parsed_url& next_hop = *proxy ? (*proxy)->where : url;
  if (auto opened = link.open(setup.owner, next_hop.host, next_hop.port, request.connect_timeout); !opened) {
    return std::move(opened).error();
  }
  if (tls != nullptr) {
    if (*proxy) {
      if (auto tunnel = open_tunnel(context, link, **proxy, url); !tunnel) return std::move(tunnel).error();
    }
    if (auto secured = link.start_tls(tls, url.host, identified); !secured) return std::move(secured).error();
  }
  std::string target = url.target;
  if (*proxy && tls == nullptr) {  // absolute-form, RFC 9112 section 3.2.2
    target.insert(0, concat("http://", url.authority()));
    if (!(*proxy)->authorization.empty()) headers.emplace_back("Proxy-Authorization", (*proxy)->authorization);
  }
  auto answer = run_exchange(context, link, target, headers, request.max_body_bytes);
  link.say_goodbye();
  return answer;
}

AXIOMS_JWKS_INLINE result<fetch_response> fetch(const httplib_setup& setup, const fetch_request& request,
                                                stop_token stop) {
  const clean_error_queue queue;
  auto url = parse_url(request.url);
  if (!url) return std::move(url).error();
  if (setup.wrong) return *setup.wrong;
  fetch_context context(std::move(stop), request.timeout, url->normalized);
  if (auto live = context.check(); !live) return std::move(live).error();

  // Credentials are for the origin that the application named and for those that it allowed; no hop after one that may
  // not see them does.
  const auto named = parse_url(request.origin.empty() ? url->normalized : request.origin);
  const auto may_see = [&](std::string_view origin) {
    const auto& more = setup.credential_origins;
    return (named && origin_of(named->normalized) == origin) ||
           std::find(more.begin(), more.end(), origin) != more.end();
  };
  bool same_origin = true, identified = may_see(origin_of(url->normalized));
  auto extra = identified ? application_headers(context, setup.options) : header_list();
  if (!extra) return std::move(extra).error();
  for (int redirects = 0;; ++redirects) {
    auto answer =
        fetch_hop(context, setup, request, *url, request_headers(request, *url, *extra, same_origin), identified);
    if (!answer) return answer;
    const int status = answer->status;
    const std::string_view location = answer->header("Location");
    if ((status != 301 && status != 302 && status != 303 && status != 307 && status != 308) || location.empty()) {
      answer->url = std::move(url->normalized);
      return answer;
    }
    if (redirects == 5) return context.fail(errc::fetch_failed, "more than 5 redirects");
    auto next = follow(context, *url, location);
    if (!next) return std::move(next).error();
    const std::string_view origin = origin_of(next->normalized);
    if (origin != origin_of(url->normalized)) same_origin = false;  // an ETag is the first origin's business
    if (!may_see(origin)) identified = false;
    if (!identified) extra->clear();
    url = *std::move(next);
    context.visit(url->normalized);
  }
}

AXIOMS_JWKS_INLINE void httplib_access::set_options(httplib_fetcher& fetcher, httplib_options options) {
  fetcher.state_->set(std::move(options));
}

}  // namespace detail

AXIOMS_JWKS_INLINE httplib_fetcher::httplib_fetcher(httplib_options options)
    : state_(std::make_shared<detail::httplib_state>(std::move(options))) {}

AXIOMS_JWKS_INLINE result<fetch_response> httplib_fetcher::operator()(const fetch_request& request,
                                                                      stop_token stop) const {
  const auto setup = state_->current();  // this handle may be assigned to in the meantime
  return detail::fetch(*setup, request, std::move(stop));
}

AXIOMS_JWKS_INLINE result<void> httplib_fetcher::check() const {
  const auto setup = state_->current();
  if (setup->wrong) return *setup->wrong;
  const detail::clean_error_queue queue;
  const auto tls = detail::make_tls(setup->options, false);
  if (!tls) return error{errc::invalid_config, tls.error().description, 0};
  return {};
}

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

#endif  // !AXIOMS_JWKS_NO_HTTPLIB

namespace axioms {
inline namespace AXIOMS_JWKS_ABI {
namespace detail {
// -- async manager --

AXIOMS_JWKS_INLINE void engine::finish_all(effects& fx, std::vector<std::shared_ptr<waiter>> last,
                                           const std::shared_ptr<waiter>& who) {
  fx.finished = std::move(last);
  if (who) fx.finished.push_back(who);
}

AXIOMS_JWKS_INLINE bool engine::tick_now() {
  steady_point now{};
  if (forked() || !read_clock(now)) return false;
  const std::uint64_t random = draw();
  effects fx;
  {
    const std::lock_guard lock(mutex_);
    tick(now, random, fx);
  }
  perform(fx);
  return true;
}

AXIOMS_JWKS_INLINE std::size_t engine::flights_in_the_air() const noexcept {
  return static_cast<std::size_t>(
      std::count_if(entries_.begin(), entries_.end(), [](const auto& at) { return at.second->policy.in_flight(); }));
}

// -- tokens --

inline constexpr std::size_t max_tried_keys = 4;
inline constexpr std::size_t max_object_members = 4096;
inline constexpr double end_of_dates = 253402300800.0;    // 10000-01-01
inline constexpr double begin_of_dates = -62135596800.0;  // 0001-01-01

// The header of a token, as read. Shared by all tokens of a thread that have the same.
struct token_header {
  std::string segment;
  json_tree tree;
  std::string_view alg, kid, x5t, x5t_s256;
  std::string typ;  // see media_type()
};

struct token_content {
  std::string text, payload;
  std::shared_ptr<const token_header> header;
  json_tree claims;
  key_ptr key;
  double expires = 0;
  const json_node *scopes = nullptr, *roles = nullptr, *permissions = nullptr;
  bool split_roles = false;
};

// The rules of a verifier, checked once.
class token_core {
 public:
  explicit token_core(std::vector<token_rules> rules);

  std::vector<token_rules> rules;
  std::optional<axioms::error> broken;
};

// RFC 7515 section 4.1.9: compared without case, and application/ may be left out where there is no other slash.
AXIOMS_JWKS_INLINE std::string media_type(std::string_view typ) {
  std::string out = lower(typ);
  constexpr std::string_view prefix = "application/";
  if (out.starts_with(prefix) && out.find('/', prefix.size()) == std::string::npos) out.erase(0, prefix.size());
  return out;
}

// RFC 6901, where the name begins with a slash.
AXIOMS_JWKS_INLINE const json_node* claim_at(const json_node& root, std::string_view name) {
  if (!name.starts_with('/')) return root.find(name);
  const json_node* at = &root;
  while (at != nullptr && !name.empty()) {
    name.remove_prefix(1);
    const std::string_view raw = name.substr(0, name.find('/'));
    name.remove_prefix(raw.size());
    std::string step;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      const bool escaped = raw[i] == '~' && i + 1 < raw.size() && (raw[i + 1] == '0' || raw[i + 1] == '1');
      step += !escaped ? raw[i] : raw[i + 1] == '0' ? '~' : '/';
      i += escaped ? 1U : 0U;
    }
    if (at->type != json_node::kind::array) {
      at = at->find(step);
      continue;
    }
    std::uint32_t index = 0;
    const auto [end, fault] = std::from_chars(step.data(), step.data() + step.size(), index);
    const bool number = fault == std::errc() && end == step.data() + step.size() && (step == "0" || step[0] != '0');
    if (!number || index >= at->count) return nullptr;
    auto element = at->begin();
    while (index-- > 0) ++element;
    at = element.at;
  }
  return at;
}

// The claim, where null is as good as none.
AXIOMS_JWKS_INLINE const json_node* claim_there(const json_node& root, std::string_view name) {
  const json_node* found = claim_at(root, name);
  return found != nullptr && found->type != json_node::kind::null ? found : nullptr;
}

AXIOMS_JWKS_INLINE const json_node* first_claim(const json_node& root, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (const json_node* found = claim_there(root, name)) return found;
  }
  return nullptr;
}

inline bool is_text(const json_node& node, std::string_view text) noexcept {
  return node.type == json_node::kind::string && node.text == text;
}

// Whether a name is granted: a list with blanks between (RFC 6749 section 3.3), one name, or an array of names.
AXIOMS_JWKS_INLINE bool grants(const json_node* where, bool split, std::string_view name) noexcept {
  if (where == nullptr || name.empty()) return false;
  if (where->type == json_node::kind::array) {
    for (const json_node& each : *where) {
      if (is_text(each, name)) return true;
    }
    return false;
  }
  if (where->type != json_node::kind::string) return false;
  if (!split) return where->text == name;
  for (std::string_view rest = where->text; !rest.empty();) {
    const std::string_view one = rest.substr(0, rest.find(' '));
    if (one == name) return true;
    rest.remove_prefix(std::min(one.size() + 1, rest.size()));
  }
  return false;
}

// ---- rules

AXIOMS_JWKS_INLINE std::optional<axioms::error> broken_rule(const token_rules& rules) {
  std::optional<axioms::error> broken;
  const auto rule = [&](bool holds, const auto&... text) {
    if (!holds && !broken) broken = make_error(errc::invalid_config, text...);
  };
  const auto whole = [&](std::string_view option, const std::vector<std::string>& names) {
    for (const auto& name : names) rule(!name.empty(), option, " holds an empty name; it must hold none");
  };
  rule(rules.issuer.empty() || rules.trust_domain.empty(), "trust_domain is ", quote(rules.trust_domain),
       "; it must be empty with an issuer");
  rule(!rules.issuer.empty() || !rules.trust_domain.empty(), "issuer is empty; it must be set, or trust_domain");
  rule(rules.trust_domain.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-_") == std::string::npos,
       "trust_domain is ", quote(rules.trust_domain),
       "; it must be a name of lower-case letters, digits, '.', '-' and '_'");
  rule(rules.any_audience || !rules.audience.empty(), "audience is empty; it must be set, or any_audience");
  rule(!rules.any_audience || rules.audience.empty(), "audience is set; it must be empty with any_audience");
  whole("audience", rules.audience);
  for (const auto& alg : rules.algorithms)
    rule(kinds_of_alg(alg) != 0, "algorithms holds ", quote(alg), "; it must hold names of asymmetric algorithms only");
  rule(!rules.types.empty() || rules.rfc9068, "types is empty; it must hold a typ, or \"\" for none");
  rule(rules.leeway.count() >= 0 && rules.leeway.count() <= 300, "leeway is ", rules.leeway.count(),
       " s; it must be 0 to 300 s");
  rule(rules.max_token_bytes >= 64 && rules.max_token_bytes <= (std::size_t{1} << 20U), "max_token_bytes is ",
       rules.max_token_bytes, "; it must be 64 bytes to 1 MiB");
  rule(rules.memo <= (std::size_t{1} << 20U), "memo is ", rules.memo, "; it must be 0 to 1048576");
  whole("required_claims", rules.required_claims);
  for (const auto& [name, values] : rules.required_values)
    rule(!name.empty() && !values.empty(), "required_values holds ", quote(name), " with ", values.size(),
         " values; it must hold names with a value at least");
  whole("scope_claims", rules.scope_claims);
  whole("role_claims", rules.role_claims);
  whole("permission_claims", rules.permission_claims);
  if (!rules.jwks_url.empty() && !broken) {
    if (const auto url = parse_url(rules.jwks_url); !url) rule(false, "jwks_url is no URL: ", url.error().description);
  }
  return broken;
}

AXIOMS_JWKS_INLINE token_core::token_core(std::vector<token_rules> given) : rules(std::move(given)) {
  std::size_t before = 0;
  if (rules.empty()) broken = make_error(errc::invalid_config, "there are no rules; there must be some");
  for (auto& each : rules) {
    if (!broken) broken = broken_rule(each);
    if (!broken && rules.size() > 1 && each.jwks_url.empty())
      broken = make_error(errc::invalid_config, "jwks_url is empty; with several issuers each must have one");
    if (!broken && (each.max_token_bytes != rules[0].max_token_bytes || each.memo != rules[0].memo))
      broken = make_error(errc::invalid_config, "max_token_bytes and memo differ; they must be equal for all issuers");
    for (std::size_t i = 0; i < before && !broken; ++i) {
      if (rules[i].issuer == each.issuer && rules[i].trust_domain == each.trust_domain)
        broken = make_error(errc::invalid_config, "issuer ", quote(each.issuer + each.trust_domain),
                            " stands in two rules; issuers must differ");
    }
    ++before;
    if (each.rfc9068) {
      each.types = {"at+jwt"};
      for (const char* name : {"sub", "client_id", "iat", "jti"}) each.required_claims.emplace_back(name);
    }
    if (!each.trust_domain.empty()) each.types.emplace_back("JOSE");
    for (auto& type : each.types) type = media_type(type);
  }
}

AXIOMS_JWKS_INLINE std::shared_ptr<const token_core> compile_rules(std::vector<token_rules> rules) {
  return std::make_shared<const token_core>(std::move(rules));
}

// ---- form

// RFC 4648 section 5 without padding, as RFC 7515 section 2 wants it: one spelling for each value.
AXIOMS_JWKS_INLINE bool decode_strictly(std::string_view text, std::string& out) {
  auto bytes = base64url_decode(text);
  if (bytes) out = *std::move(bytes);
  return bytes.has_value();
}

// An object without a name twice at any depth; nothing else may stand for a header or for claims.
AXIOMS_JWKS_INLINE result<json_tree> read_object(std::string_view what, std::string_view text) {
  const auto refuse = [&](const auto&... why) { return make_error(errc::malformed_token, "the ", what, " ", why...); };
  if (text.starts_with("\xef\xbb\xbf")) return refuse("begins with a byte order mark");
  auto tree = json_tree::read(text, {.code = errc::malformed_token});
  if (!tree) return refuse(tree.error().description);
  if (tree->root().type != json_node::kind::object) return refuse("is JSON, but no object");
  for (const json_node& each : tree->nodes) {
    if (each.twice) return refuse("has an object in which a name stands twice");
    if (each.type == json_node::kind::object && each.count > max_object_members)
      return refuse("has an object of more than ", max_object_members, " members");
  }
  return tree;
}

AXIOMS_JWKS_INLINE result<std::shared_ptr<const token_header>> read_header(std::string_view segment) {
  thread_local std::shared_ptr<const token_header> last;
  if (last && last->segment == segment) return last;
  const auto refuse = [](const auto&... why) { return make_error(errc::malformed_token, "the header ", why...); };
  std::string text;
  if (!decode_strictly(segment, text)) return refuse("is no base64url");
  auto tree = read_object("header", text);
  if (!tree) return tree.error();
  const auto made = std::make_shared<token_header>();
  made->segment = segment;
  made->tree = *std::move(tree);
  const json_node& root = made->tree.root();
  // No extension is understood (RFC 7515 section 4.1.11, RFC 7797 section 6), and no encryption.
  if (root.find("crit") != nullptr) return refuse("has crit");
  if (const json_node* b64 = claim_there(root, "b64");
      b64 && !(b64->type == json_node::kind::boolean && b64->integer == 1))
    return refuse("has a b64 other than true");
  if (claim_there(root, "enc") != nullptr) return refuse("has enc: an encrypted token");
  if (root.find("alg", json_node::kind::string) == nullptr) return refuse("has no alg");
  for (const auto& [name, field] : {std::pair("alg", &made->alg), std::pair("kid", &made->kid)}) {
    const json_node* found = claim_there(root, name);
    if (found != nullptr && found->type != json_node::kind::string) return refuse("has a ", name, " that is no string");
    if (found != nullptr) *field = found->text;
  }
  if (made->kid.size() > max_kid_bytes) return refuse("has a kid of more than ", max_kid_bytes, " bytes");
  if (const json_node* typ = claim_there(root, "typ"); typ != nullptr) {
    if (typ->type != json_node::kind::string) return refuse("has a typ that is no string");
    made->typ = media_type(typ->text);
  }
  for (const auto& [name, field] : {std::pair("x5t", &made->x5t), std::pair("x5t#S256", &made->x5t_s256)}) {
    const json_node* found = root.find(name, json_node::kind::string);
    if (found != nullptr && found->text.size() <= max_kid_bytes) *field = found->text;
  }
  if (segment.size() <= 1024) last = made;
  return std::shared_ptr<const token_header>(made);
}

// The three parts of a compact JWS (RFC 7515 section 7.1).
struct token_parts {
  std::string_view header, payload, signature, signed_text;

  static result<token_parts> of(std::string_view text, std::size_t limit) {
    if (text.empty()) return make_error(errc::token_missing, "there is no token");
    if (text.size() > limit)
      return make_error(errc::malformed_token, "the token has ", text.size(), " bytes, the limit is ", limit);
    const std::size_t first = text.find('.'), second = first == text.npos ? first : text.find('.', first + 1);
    if (second == text.npos || text.find('.', second + 1) != text.npos)
      return make_error(errc::malformed_token, "the token has not three parts");
    return token_parts{text.substr(0, first), text.substr(first + 1, second - first - 1), text.substr(second + 1),
                       text.substr(0, second)};
  }
};

// ---- signature

// What one key, or some keys in turn, say of a signature.
struct tried_keys {
  std::array<key_ptr, max_tried_keys> keys{};
  std::size_t count = 0;
  key_ptr good{};  // the one that verified it

  signature_state check(std::string_view alg, std::string_view message, std::string_view signature) noexcept {
    signature_state state = signature_state::bad;
    for (std::size_t i = 0; i < count && state == signature_state::bad; ++i) {
      state = signature_of(*keys[i], alg, message, signature);
      if (state == signature_state::good) good = std::move(keys[i]);
    }
    return state;
  }
};

AXIOMS_JWKS_INLINE axioms::error bad_signature_error() {
  return {errc::bad_signature, "the signature does not verify", 0};
}
AXIOMS_JWKS_INLINE axioms::error no_verification_error() {
  return {errc::no_resources, "OpenSSL could not carry out the verification", 0};
}

// By what the header names its key.
AXIOMS_JWKS_INLINE key_query query_of(const token_header& header, const jwk_set* keys) noexcept {
  if (!header.kid.empty()) return {header.kid, header.alg};
  if (header.x5t_s256.empty() || (keys != nullptr && !header.x5t.empty() && !keys->contains(header.x5t_s256)))
    return {header.x5t, header.alg};
  return {header.x5t_s256, header.alg};
}

// The keys to try: the one that is named, or without a name the few that fit.
AXIOMS_JWKS_INLINE std::optional<axioms::error> keys_for(const token_header& header, const jwk_set& keys,
                                                         tried_keys& out) {
  const key_query query = query_of(header, &keys);
  if (query.kid.empty()) {
    for (const auto& key : keys) {
      if (!jwk_builder::fits(*key, query.alg)) continue;
      if (out.count == max_tried_keys)
        return make_error(errc::key_ambiguous, "the token names no key, and more than ", max_tried_keys, " fit alg ",
                          quote(query.alg));
      out.keys[out.count++] = key;
    }
    if (out.count > 0) return std::nullopt;
  }
  auto key = keys.select(query);
  if (!key) return std::move(key).error();
  out.keys[out.count++] = *std::move(key);
  return std::nullopt;
}

// ---- claims

// The claims that are looked at (RFC 7519 section 4.1, RFC 7800), found in one walk. null is as good as none.
struct registered_claims {
  const json_node *iss = nullptr, *sub = nullptr, *aud = nullptr, *exp = nullptr, *nbf = nullptr, *iat = nullptr,
                  *jti = nullptr, *cnf = nullptr;

  explicit registered_claims(const json_node& claims) noexcept {
    for (const json_node& each : claims) {
      if (each.name.size() != 3 || each.type == json_node::kind::null) continue;
      for (const auto& [name, place] :
           {std::pair("iss", &iss), std::pair("sub", &sub), std::pair("aud", &aud), std::pair("exp", &exp),
            std::pair("nbf", &nbf), std::pair("iat", &iat), std::pair("jti", &jti), std::pair("cnf", &cnf)}) {
        if (std::equal(each.name.begin(), each.name.end(), name)) *place = &each;
      }
    }
  }
};

// A NumericDate (RFC 7519 section 2) in seconds since 1970; none if it is no date before the year 10000. Only iat may be a string,
// which .NET writes.
AXIOMS_JWKS_INLINE std::optional<double> date_of(const json_node& claim, bool text_too = false) {
  if (claim.type == json_node::kind::integer || claim.type == json_node::kind::real)
    return claim.real >= begin_of_dates && claim.real < end_of_dates ? std::optional(claim.real) : std::nullopt;
  if (!text_too || claim.type != json_node::kind::string || claim.text.empty() || claim.text.size() > 12)
    return std::nullopt;
  double out = 0;
  for (const char c : claim.text) {
    if (!is_digit(c)) return std::nullopt;
    out = out * 10 + (c - '0');
  }
  return out;
}

inline double seconds_of(std::chrono::system_clock::time_point when) noexcept {
  return std::chrono::duration<double>(when.time_since_epoch()).count();
}

AXIOMS_JWKS_INLINE axioms::error wrong_type(std::string_view claim, std::string_view what) {
  return make_error(errc::malformed_token, "the claim ", claim, " is no ", what);
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> check_names(const registered_claims& claims) {
  for (const json_node* each : {claims.iss, claims.sub, claims.jti}) {
    if (each != nullptr && each->type != json_node::kind::string) return wrong_type(each->name, "string");
  }
  return std::nullopt;
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> check_types(const token_rules& rules, const registered_claims& claims) {
  if (auto why = check_names(claims)) return why;
  for (const json_node* each : {claims.exp, claims.nbf, claims.iat}) {
    if (each != nullptr && !date_of(*each, each == claims.iat))
      return wrong_type(each->name, "date before the year 10000");
  }
  if (rules.any_audience || claims.aud == nullptr || claims.aud->type == json_node::kind::string) return std::nullopt;
  bool strings = claims.aud->type == json_node::kind::array;
  for (const json_node& each : *claims.aud) strings = strings && each.type == json_node::kind::string;
  return strings ? std::nullopt : std::optional(wrong_type("aud", "string or array of strings"));
}

AXIOMS_JWKS_INLINE axioms::error missing_claim(std::string_view name) {
  return make_error(errc::claim_missing, "the token has no claim ", quote(name));
}

AXIOMS_JWKS_INLINE bool in_trust_domain(std::string_view subject, std::string_view domain) {
  return subject.starts_with(concat("spiffe://", domain, "/"));
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> check_issuer(const token_rules& rules,
                                                             const registered_claims& claims) {
  if (rules.trust_domain.empty()) {
    if (claims.iss == nullptr) return missing_claim("iss");
    if (claims.iss->text == rules.issuer) return std::nullopt;
    return make_error(errc::issuer_mismatch, "the issuer is ", quote(claims.iss->text), ", not ", quote(rules.issuer));
  }
  if (claims.sub == nullptr) return missing_claim("sub");
  if (in_trust_domain(claims.sub->text, rules.trust_domain)) return std::nullopt;
  return make_error(errc::issuer_mismatch, "the subject is not of the trust domain ", quote(rules.trust_domain));
}

// Whether a string is one of them, or a string of an array.
AXIOMS_JWKS_INLINE bool holds_one_of(const json_node& value, const std::vector<std::string>& wanted) {
  const auto is_wanted = [&](const json_node& each) {
    return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& one) { return is_text(each, one); });
  };
  if (value.type != json_node::kind::array) return is_wanted(value);
  for (const json_node& each : value) {
    if (is_wanted(each)) return true;
  }
  return false;
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> check_audience(const token_rules& rules,
                                                               const registered_claims& claims, const json_node& root) {
  if (rules.any_audience) return std::nullopt;
  const json_node* audience = claims.aud;
  if (audience == nullptr && !rules.audience_claim.empty()) audience = claim_there(root, rules.audience_claim);
  if (audience == nullptr) return missing_claim("aud");
  if (holds_one_of(*audience, rules.audience)) return std::nullopt;
  return make_error(errc::audience_mismatch, "the token is not meant for ", quote(rules.audience.front()),
                    rules.audience.size() > 1 ? " or another name of this service" : "");
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> check_dates(const token_rules& rules, const registered_claims& claims,
                                                            double now) {
  const auto leeway = static_cast<double>(rules.leeway.count());
  if (claims.exp == nullptr) return missing_claim("exp");
  if (now >= *date_of(*claims.exp) + leeway) return make_error(errc::token_expired, "the token has expired");
  for (const json_node* each : {claims.nbf, claims.iat}) {
    if (each != nullptr && *date_of(*each, true) > now + leeway)
      return make_error(errc::token_not_yet_valid, "the token is not valid yet: its ", each->name, " is in the future");
  }
  return std::nullopt;
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> check_required(const token_rules& rules, const registered_claims& known,
                                                               const json_node& claims) {
  for (const auto& name : rules.required_claims) {
    if (claim_there(claims, name) == nullptr) return missing_claim(name);
  }
  for (const auto& [name, values] : rules.required_values) {
    const json_node* found = claim_there(claims, name);
    if (found == nullptr) return missing_claim(name);
    if (!holds_one_of(*found, values))
      return make_error(errc::claim_missing, "the claim ", quote(name), " has none of the values that it must have");
  }
  // RFC 9449 section 7.2, RFC 8705 section 3: who presents it must prove that it holds a key.
  if (!rules.accept_bound && known.cnf != nullptr)
    return make_error(errc::token_type_mismatch, "the token is bound to a key (cnf), and was presented without proof");
  return std::nullopt;
}

// ---- one token

// RFC 8725 section 3: which issuer's rules, then the algorithm and the type.
AXIOMS_JWKS_INLINE bool token_check::read() {
  const auto fail = [&](axioms::error why) { return end(std::move(why)), false; };
  if (core_->broken) return fail(*core_->broken);
  const auto parts = token_parts::of(text_, core_->rules.front().max_token_bytes);
  if (!parts) return fail(parts.error());
  auto header = read_header(parts->header);
  if (!header) return fail(header.error());
  header_ = *std::move(header);
  if (kinds_of_alg(header_->alg) == 0)
    return fail(make_error(errc::unsupported_algorithm, "alg ", quote(header_->alg), " is not accepted"));
  if (auto why = pick_rules()) return fail(*std::move(why));
  const auto& allowed = rules_->algorithms;
  if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), header_->alg) == allowed.end())
    return fail(make_error(errc::unsupported_algorithm, "alg ", quote(header_->alg), " is not accepted"));
  if (std::find(rules_->types.begin(), rules_->types.end(), header_->typ) == rules_->types.end())
    return fail(make_error(errc::token_type_mismatch, "typ ", quote(header_->typ), " is not accepted"));
  if (!decode_strictly(parts->signature, signature_))
    return fail(make_error(errc::malformed_token, "the signature is no base64url"));
  return true;
}

// Of several issuers the token's own, before any key is looked for.
AXIOMS_JWKS_INLINE std::optional<axioms::error> token_check::pick_rules() {
  rules_ = &core_->rules.front();
  if (core_->rules.size() == 1) return std::nullopt;
  if (auto why = read_claims()) return why;
  const registered_claims claims(claims_->root());
  if (auto why = check_names(claims)) return why;
  for (const token_rules& each : core_->rules) {
    rules_ = &each;
    if (claims.iss != nullptr && each.trust_domain.empty() && claims.iss->text == each.issuer) return std::nullopt;
    if (claims.iss == nullptr && claims.sub != nullptr && !each.trust_domain.empty() &&
        in_trust_domain(claims.sub->text, each.trust_domain))
      return std::nullopt;
  }
  return make_error(errc::issuer_mismatch, "the token is of no issuer that is known here");
}

// Once; a token whose key is at hand is read only after its signature.
AXIOMS_JWKS_INLINE std::optional<axioms::error> token_check::read_claims() {
  if (claims_) return std::nullopt;
  const auto parts = token_parts::of(text_, text_.size());
  if (!decode_strictly(parts->payload, payload_))
    return make_error(errc::malformed_token, "the payload is no base64url");
  auto tree = read_object("payload", payload_);
  if (!tree) return std::move(tree).error();
  claims_ = *std::move(tree);
  return std::nullopt;
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> token_check::check_claims(std::chrono::system_clock::time_point now) {
  if (auto why = read_claims()) return why;
  const json_node& root = claims_->root();
  const registered_claims claims(root);
  if (auto why = check_types(*rules_, claims)) return why;
  if (auto why = check_issuer(*rules_, claims)) return why;
  if (auto why = check_audience(*rules_, claims, root)) return why;
  if (auto why = check_dates(*rules_, claims, seconds_of(now))) return why;
  expires_ = claims.exp->real;
  return check_required(*rules_, claims, root);
}

// The order: with the key at hand the signature, then the claims; else the claims, and only for a token that would be accepted but
// for its signature something is fetched.
AXIOMS_JWKS_INLINE token_check::need token_check::look(const jwk_set* served,
                                                       std::chrono::system_clock::time_point now) {
  const auto fail = [&](axioms::error why) { return end(std::move(why)), need::nothing; };
  tried_keys keys;
  if (key_ != nullptr) {
    keys.keys[keys.count++] = key_;
  } else if (served != nullptr) {
    if (auto why = keys_for(*header_, *served, keys)) {
      const std::string_view kid = query_of(*header_, served).kid;
      if (why->code != errc::key_not_found || kid.empty() || served->contains(kid)) return fail(*std::move(why));
    }
  }
  if (keys.count == 0) {
    if (auto why = check_claims(now)) return fail(*std::move(why));
    return served != nullptr ? need::key : need::document;
  }
  const signature_state state = keys.check(header_->alg, text_.substr(0, text_.rfind('.')), signature_);
  if (state == signature_state::failed) return fail(no_verification_error());
  if (state == signature_state::bad) {
    if (fetched_again_ || check_claims(now)) return fail(bad_signature_error());
    return need::other_key;
  }
  if (auto why = check_claims(now)) return fail(*std::move(why));
  accept(std::move(keys.good));
  return need::nothing;
}

AXIOMS_JWKS_INLINE void token_check::accept(key_ptr key) {
  const auto made = std::make_shared<token_content>();
  made->text = text_;
  made->payload = std::move(payload_);
  made->header = header_;
  made->claims = *std::move(claims_);
  made->key = std::move(key);
  const json_node& claims = made->claims.root();
  made->expires = expires_;
  made->scopes = first_claim(claims, rules_->scope_claims);
  made->roles = first_claim(claims, rules_->role_claims);
  made->permissions = first_claim(claims, rules_->permission_claims);
  made->split_roles = rules_->split_roles;
  out_.emplace(verified_token(std::move(made)));
}

AXIOMS_JWKS_INLINE void token_check::end_with(const jwk_set& keys, need what) {
  if (what == need::key) end(keys.select(query_of(*header_, &keys)).error());
  if (what == need::other_key) end(bad_signature_error());
}

AXIOMS_JWKS_INLINE request token_check::asked(need what) const {
  request out;
  if (!rules_->jwks_url.empty()) out.url = rules_->jwks_url;
  out.what = what == need::key ? verb::key : what == need::other_key ? verb::bad_signature : verb::lookup;
  if (what == need::key || what == need::other_key) out.query = query_of(*header_, nullptr);
  if (what == need::other_key) out.query.alg = {};
  return out;
}

AXIOMS_JWKS_INLINE void token_check::take(need what, outcome&& came) {
  if (what == need::other_key) {
    fetched_again_ = true;
    brought_.reset();
    key_.reset();
    const auto code = came.failure ? came.failure->code : errc{};
    if (code == errc::cancelled || code == errc::shut_down || code == errc::no_resources)
      return end(*std::move(came.failure));
    if (came.failure || !came.changed) end(bad_signature_error());
    return;
  }
  if (came.failure) return end(*std::move(came.failure));
  brought_ = std::move(came.document);
  if (what != need::key) return;
  // The set's own handle, if the key is in it.
  if (auto own = brought_ ? brought_->keys().select(query_of(*header_, nullptr)) : result<key_ptr>(axioms::error{});
      own)
    came.key = *std::move(own);
  key_ = std::move(came.key);
}

// ---- with a manager

// What would be served now, without waiting.
AXIOMS_JWKS_INLINE jwks_ptr served_now(engine& core, const request& asked) {
  outcome out;
  if (answer_warm(core, asked, out)) return std::move(out.document);
  if (auto now = core.answer_now(asked); now && now->document) return std::move(now->document);
  return core.peek(asked).value_or(nullptr);
}

AXIOMS_JWKS_INLINE token_check::need proceed(token_check& check, engine& core) {
  if (check.over() || (!check.has_read() && !check.read())) return token_check::need::nothing;
  const jwks_ptr served =
      check.brought() ? check.brought() : served_now(core, check.asked(token_check::need::document));
  std::chrono::system_clock::time_point now{};
  if (!core.read_clock(now)) {
    check.end(clock_error());
    return token_check::need::nothing;
  }
  return check.look(served ? &served->keys() : nullptr, now);
}

AXIOMS_JWKS_INLINE result<verified_token> verify_waiting(thread_engine& core,
                                                         const std::shared_ptr<const token_core>& rules,
                                                         std::string_view token, const stop_token& stop) {
  token_check check(rules, token);
  for (auto need = proceed(check, core); need != token_check::need::nothing; need = proceed(check, core))
    check.take(need, core.ask(check.asked(need), stop));
  return check.take_result();
}

class token_waiter final : public async_waiter {
 public:
  token_waiter(const request& asked, executor_ref where, std::shared_ptr<token_task> task)
      : async_waiter(asked, where), task_(std::move(task)) {}
  void arm(const stop_token& stop, std::shared_ptr<engine> core) {
    on_stop_.emplace(stop, canceller{std::move(core), weak_from_this()});
  }

 private:
  void resume() noexcept override {
    on_stop_.reset();
    const auto task = std::move(task_);
    task->take(std::move(out));
  }
  std::shared_ptr<token_task> task_;
  std::optional<stop_callback<detail::canceller>> on_stop_;
};

AXIOMS_JWKS_INLINE void token_task::start(const stop_token& stop) {
  if (stop.stop_possible()) on_stop_.emplace(stop, canceller{weak_from_this()});
  if (go_on()) return;
  if (!where_) return complete();
  self_ = shared_from_this();
  where_.post({[](void* posted) noexcept {
                 auto* task = static_cast<token_task*>(posted);
                 const auto keep = std::move(task->self_);
                 task->complete();
               },
               this});
}

AXIOMS_JWKS_INLINE void token_task::take(outcome&& came) noexcept {
  AXIOMS_JWKS_TRY { check_.take(need_, std::move(came)); }
  AXIOMS_JWKS_CATCH_ALL { check_.end(out_of_memory_error()); }
  if (!go_on()) complete();
}

AXIOMS_JWKS_INLINE bool token_task::go_on() noexcept {
  AXIOMS_JWKS_TRY {
    need_ = proceed(check_, *core_);
    if (need_ == token_check::need::nothing) return false;
    const auto who = std::make_shared<token_waiter>(check_.asked(need_), where_, shared_from_this());
    who->arm(cancelled_.get_token(), core_);
    const auto core = core_;  // who goes on in there may let go of this
    core->submit(who);
    return true;
  }
  AXIOMS_JWKS_CATCH_ALL {
    check_.end(out_of_memory_error());
    return false;
  }
}

}  // namespace detail

// ---- what users call

AXIOMS_JWKS_INLINE result<token_rules> token_rules::from_environment() {
  const auto read = [](const char* variable) -> std::string_view {
    const char* value = std::getenv(variable);
    return value != nullptr ? value : "";
  };
  token_rules out;
  out.issuer = read("AXIOMS_ISS_URL");
  if (const auto domain = read("AXIOMS_DOMAIN"); out.issuer.empty() && !domain.empty())
    out.issuer = detail::concat("https://", domain);
  for (const auto& [variable, list] :
       {std::pair("AXIOMS_AUDIENCE", &out.audience), std::pair("AXIOMS_TOKEN_TYPS", &out.types),
        std::pair("AXIOMS_SCOPE_CLAIMS", &out.scope_claims), std::pair("AXIOMS_ROLES_CLAIMS", &out.role_claims),
        std::pair("AXIOMS_PERMISSIONS_CLAIMS", &out.permission_claims)}) {
    std::vector<std::string> names;
    constexpr std::string_view between = ", \t";
    for (std::string_view rest = read(variable); !rest.empty();) {
      const std::string_view one = rest.substr(0, rest.find_first_of(between));
      if (!one.empty()) names.emplace_back(one);
      rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    }
    if (!names.empty()) *list = std::move(names);
  }
  return out;
}

AXIOMS_JWKS_INLINE result<void> token_rules::validate() const {
  if (auto broken = detail::broken_rule(*this)) return *std::move(broken);
  return {};
}

AXIOMS_JWKS_INLINE claim_view::kind claim_view::type() const noexcept {
  if (node_ == nullptr) return kind::missing;
  switch (node_->type) {
    case detail::json_node::kind::null: return kind::null;
    case detail::json_node::kind::boolean: return kind::boolean;
    case detail::json_node::kind::integer:
    case detail::json_node::kind::real: return kind::number;
    case detail::json_node::kind::string: return kind::string;
    case detail::json_node::kind::array: return kind::array;
    case detail::json_node::kind::object: return kind::object;
  }
  return kind::missing;
}

AXIOMS_JWKS_INLINE std::optional<std::int64_t> claim_view::integer() const noexcept {
  if (type() != kind::number) return std::nullopt;
  if (node_->type == detail::json_node::kind::integer) return node_->integer;
  constexpr double limit = 9007199254740992.0;  // 2^53: up to there each whole number is a double of its own
  if (node_->real < -limit || node_->real > limit || std::trunc(node_->real) != node_->real) return std::nullopt;
  return static_cast<std::int64_t>(node_->real);
}

AXIOMS_JWKS_INLINE std::string_view verified_token::issuer() const noexcept { return claims()["iss"].string(); }
AXIOMS_JWKS_INLINE std::string_view verified_token::subject() const noexcept { return claims()["sub"].string(); }
AXIOMS_JWKS_INLINE std::string_view verified_token::id() const noexcept { return claims()["jti"].string(); }
AXIOMS_JWKS_INLINE std::string_view verified_token::client_id() const noexcept {
  for (const std::string_view name : {"client_id", "azp", "cid", "appid"}) {
    if (const auto text = claims()[name].string(); !text.empty()) return text;
  }
  return {};
}
AXIOMS_JWKS_INLINE std::chrono::system_clock::time_point verified_token::expires_at() const noexcept {
  using clock = std::chrono::system_clock;
  const std::chrono::duration<double> since(content_->expires);
  if (since >= clock::time_point::max().time_since_epoch()) return clock::time_point::max();
  if (since <= clock::time_point::min().time_since_epoch()) return clock::time_point::min();
  return clock::time_point(std::chrono::duration_cast<clock::duration>(since));
}
AXIOMS_JWKS_INLINE claim_view verified_token::operator[](std::string_view name) const {
  return claim_view(detail::claim_at(content_->claims.root(), name));
}
AXIOMS_JWKS_INLINE claim_view verified_token::claims() const noexcept { return claim_view(&content_->claims.root()); }
AXIOMS_JWKS_INLINE claim_view verified_token::header() const noexcept {
  return claim_view(&content_->header->tree.root());
}
AXIOMS_JWKS_INLINE std::string_view verified_token::payload() const noexcept { return content_->payload; }
AXIOMS_JWKS_INLINE std::string_view verified_token::token() const noexcept { return content_->text; }
AXIOMS_JWKS_INLINE const key_ptr& verified_token::key() const noexcept { return content_->key; }

AXIOMS_JWKS_INLINE bool verified_token::has_scope(std::string_view name) const noexcept {
  return detail::grants(content_->scopes, true, name);
}
AXIOMS_JWKS_INLINE bool verified_token::has_role(std::string_view name) const noexcept {
  return detail::grants(content_->roles, content_->split_roles, name);
}
AXIOMS_JWKS_INLINE bool verified_token::has_permission(std::string_view name) const noexcept {
  return detail::grants(content_->permissions, content_->split_roles, name);
}

AXIOMS_JWKS_INLINE result<void> verified_token::require(const required_access& access) const {
  struct row {
    std::string_view what;
    const std::vector<std::string>&all, &any;
    bool (verified_token::*has)(std::string_view) const noexcept;
  };
  for (const auto& [what, all, any, has] :
       {row{"scope", access.all_scopes, access.any_scopes, &verified_token::has_scope},
        row{"role", access.all_roles, access.any_roles, &verified_token::has_role},
        row{"permission", access.all_permissions, access.any_permissions, &verified_token::has_permission}}) {
    for (const auto& name : all) {
      if (!(this->*has)(name))
        return detail::make_error(errc::insufficient_scope, "the token lacks the ", what, " ", detail::quote(name));
    }
    bool one = any.empty();
    std::string names;
    for (const auto& name : any) {
      one = one || (this->*has)(name);
      names += detail::concat(names.empty() ? "" : ", ", detail::quote(name));
    }
    if (!one) return detail::make_error(errc::insufficient_scope, "the token has no ", what, " of ", names);
  }
  return {};
}

AXIOMS_JWKS_INLINE result<std::string_view> bearer_token(std::string_view authorization) {
  using detail::make_error;
  const std::string_view text = detail::trim(authorization);
  const std::string_view scheme = text.substr(0, text.find_first_of(" \t"));
  if (!detail::iequals(scheme, "Bearer"))
    return make_error(errc::token_missing, text.empty() ? "there is no Authorization header"
                                                        : "the Authorization header has another scheme than Bearer");
  const std::string_view token = detail::trim(text.substr(scheme.size()));
  // b64token of RFC 6750 section 2.1
  const std::string_view digits = token.substr(0, token.find_last_not_of('=') + 1);
  const bool good = std::all_of(digits.begin(), digits.end(), [](char c) {
    return detail::is_alnum(c) || std::string_view("-._~+/").find(c) != std::string_view::npos;
  });
  if (digits.empty() || !good)
    return make_error(errc::malformed_token, "the Authorization header holds no bearer token");
  return token;
}

AXIOMS_JWKS_INLINE result<verified_token> verify_token(std::string_view token, const jwk_set& keys,
                                                       const token_rules& rules,
                                                       std::chrono::system_clock::time_point now) {
  detail::token_check check(detail::compile_rules({rules}), token);
  if (check.read()) check.end_with(keys, check.look(&keys, now));
  return check.take_result();
}

AXIOMS_JWKS_INLINE result<std::string> verify_signature(std::string_view jws, const jwk_set& keys) {
  using detail::make_error;
  const auto parts = detail::token_parts::of(jws, std::size_t{1} << 20U);
  if (!parts) return parts.error();
  const auto header = detail::read_header(parts->header);
  if (!header) return header.error();
  std::string payload, signature;
  if (!detail::decode_strictly(parts->payload, payload) || !detail::decode_strictly(parts->signature, signature))
    return make_error(errc::malformed_token, "the payload or the signature is no base64url");
  detail::tried_keys candidates;
  if (auto why = detail::keys_for(**header, keys, candidates)) return *std::move(why);
  switch (candidates.check((*header)->alg, parts->signed_text, signature)) {
    case detail::signature_state::good: return payload;
    case detail::signature_state::bad: return detail::bad_signature_error();
    default: return detail::no_verification_error();
  }
}

namespace detail {

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

// -- process-wide managers --

struct process_wide {
  // OpenSSL first: what is registered later runs earlier at exit, so the fetches have ended when OpenSSL cleans up.
  static void initialise_openssl() noexcept { OPENSSL_init_ssl(0, nullptr); }
  static void shut_down(async_jwks_manager& manager) noexcept { manager.shutdown_and_join(); }
  static void shut_down(jwks_manager& manager) noexcept { manager.shutdown(); }

  template <class Manager>
  struct slot {
    httplib_fetcher fetch{};
    Manager manager{fetch};
  };
  template <class Manager>
  static slot<Manager>& get() {
    static slot<Manager>& only = []() -> slot<Manager>& {
      initialise_openssl();
      auto* made = new slot<Manager>;  // never deleted: other threads may use it while the process exits
      std::atexit([] { shut_down(get<Manager>().manager); });
      return *made;
    }();
    return only;
  }
  template <class Manager>
  static Manager& with(httplib_options&& options) {
    slot<Manager>& only = get<Manager>();
    if (!only.manager.running()) httplib_access::set_options(only.fetch, std::move(options));
    return only.manager;
  }
  static jwks_config config(std::string&& url, std::chrono::seconds refresh_interval, std::chrono::seconds cache_ttl,
                            bool prefetch) {
    jwks_config out;
    out.jwks_url = std::move(url);
    out.refresh_interval = refresh_interval;
    out.cache_ttl = cache_ttl;
    out.prefetch = prefetch;
    return out;
  }
};

}  // namespace detail

AXIOMS_JWKS_INLINE jwks_manager& default_jwks_manager() { return detail::process_wide::get<jwks_manager>().manager; }
AXIOMS_JWKS_INLINE async_jwks_manager& default_async_jwks_manager() {
  return detail::process_wide::get<async_jwks_manager>().manager;
}

AXIOMS_JWKS_INLINE result<void> initialize_jwks_manager(jwks_config config, httplib_options options) {
  return detail::process_wide::with<jwks_manager>(std::move(options)).initialize(std::move(config));
}
AXIOMS_JWKS_INLINE result<void> initialize_jwks_manager(std::string jwks_url, std::chrono::seconds refresh_interval,
                                                        std::chrono::seconds cache_ttl, bool prefetch) {
  return initialize_jwks_manager(
      detail::process_wide::config(std::move(jwks_url), refresh_interval, cache_ttl, prefetch));
}
AXIOMS_JWKS_INLINE void shutdown_jwks_manager() noexcept { default_jwks_manager().shutdown(); }

AXIOMS_JWKS_INLINE async_operation<result<void>> initialize_async_jwks_manager(jwks_config config,
                                                                               httplib_options options) {
  return detail::process_wide::with<async_jwks_manager>(std::move(options)).initialize(std::move(config));
}
AXIOMS_JWKS_INLINE async_operation<result<void>> initialize_async_jwks_manager(std::string jwks_url,
                                                                               std::chrono::seconds refresh_interval,
                                                                               std::chrono::seconds cache_ttl,
                                                                               bool prefetch) {
  return initialize_async_jwks_manager(
      detail::process_wide::config(std::move(jwks_url), refresh_interval, cache_ttl, prefetch));
}
AXIOMS_JWKS_INLINE async_operation<void> shutdown_async_jwks_manager() {
  return default_async_jwks_manager().shutdown();
}

namespace detail {

#endif

}  // namespace detail
}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

#endif  // !AXIOMS_JWKS_SPLIT || AXIOMS_JWKS_IMPLEMENTATION

// ---- clean-up -----------------------------------------------------------------------------------

#undef AXIOMS_JWKS_ABI
#undef AXIOMS_JWKS_CATCH_ALL
#undef AXIOMS_JWKS_CPLUSPLUS
#undef AXIOMS_JWKS_DEFAULT_FETCHER
#undef AXIOMS_JWKS_HOT
#undef AXIOMS_JWKS_INLINE
#undef AXIOMS_JWKS_LIFETIMEBOUND
#undef AXIOMS_JWKS_SUSPENDS
#undef AXIOMS_JWKS_TRY

#pragma pop_macro("min")
#pragma pop_macro("max")

#endif  // AXIOMS_JWKS_HPP
