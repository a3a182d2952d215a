// axioms_jwks.hpp - verifies tokens with the JSON Web Key Sets (JWKS, RFC 7517) of identity providers, for C++20:
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
//     // Whoever verifies tokens takes a token_verifier. This is the key alone; no I/O while the set is cached.
//     auto key = manager.get_key({.kid = "2026-01", .alg = "RS256"});
//     if (!key) return std::cerr << key.error().description << '\n', 1;
//     std::cout << (*key)->to_pem();
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
//   detail: engine
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

// clang before 17 may keep locals of an inlined await_suspend() in the frame, which another thread may have freed by
// then.
#if defined(__clang__) && __clang_major__ < 17
#define AXIOMS_JWKS_SUSPENDS __attribute__((noinline))
#else
#define AXIOMS_JWKS_SUSPENDS
#endif

// Of the hit path: with several callers in one TU compilers would call what is worth inlining.
#if defined(__GNUC__)
#define AXIOMS_JWKS_HOT __attribute__((always_inline))
#define AXIOMS_JWKS_COLD __attribute__((noinline, cold))
#else
#define AXIOMS_JWKS_HOT
#define AXIOMS_JWKS_COLD
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

// <windows.h>, <AssertMacros.h> and others make macros of these. They are put aside down to the end of this header.
#pragma push_macro("min")
#pragma push_macro("max")
#pragma push_macro("check")
#pragma push_macro("require")
#pragma push_macro("verify")
#undef min
#undef max
#undef check
#undef require
#undef verify

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
#include <cstring>
#include <ctime>
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
  invalid_config = 1,  ///< an option breaks its rule, which the description names; or no URL is configured
  invalid_url,         ///< not an absolute http(s) URL, or one with user-info, control bytes, too long
  unsupported_scheme,  ///< a scheme other than https (and http, unless `require_https`)
  resolve_failed,      ///< the host name has no address
  connect_failed,      ///< no address of the host accepted a connection
  tls_failed,          ///< handshake or certificate check failed, or a CA or key file is bad
  fetch_failed,        ///< any other failure of the exchange, and whatever a fetcher or clock throws
  timed_out,           ///< `fetch_timeout` or `unknown_kid_wait` was over
  cancelled,           ///< the caller's stop token asked
  shut_down,           ///< the manager is shut down, or the process was forked
  http_status,         ///< a status other than 200 and 203 (or 304 where it was asked for)
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

namespace detail {

// How a request is refused: the one table behind oauth_error(), status_code() and www_authenticate(). Whoever forges
// tokens learns nothing from the text, which a client may read: of what is wrong only expiry is told.
struct refusal {
  int status;
  std::string_view error, text{};
};
constexpr refusal refusal_of(errc code) noexcept {
  using enum errc;
  if (code == token_expired) return {401, "invalid_token", "The access token expired"};
  if (code == token_missing) return {401, {}};
  if (code == insufficient_scope) return {403, "insufficient_scope", "The access token lacks what the request needs"};
  if (code == key_not_found || code == key_ambiguous || (code >= malformed_token && code <= claim_missing))
    return {401, "invalid_token", "The access token is invalid"};
  return {code >= invalid_config && code <= unsupported_scheme ? 500 : 503, "server_error"};
}

}  // namespace detail

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
  errc code{};                ///< which of the closed list
  std::string description{};  ///< one sentence for logs: may hold URLs, never key bytes, tokens or credentials
  int http_status = 0;        ///< status of the response that failed, 0 if there was none

  /// The OAuth 2.0 error code to answer a request with (RFC 6749 section 5.2, RFC 6750 section 3.1); empty for
  /// token_missing.
  [[nodiscard]] std::string_view oauth_error() const noexcept { return detail::refusal_of(code).error; }
  /// The HTTP status to answer a request with: 401, 403, 500 for a fault of configuration, 503 for an outage.
  [[nodiscard]] int status_code() const noexcept { return detail::refusal_of(code).status; }
  /// The value of a `WWW-Authenticate` header (RFC 6750 section 3): fixed text, never the description.
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
  attribute("error_description", detail::refusal_of(code).text);
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

// What a result<void> holds.
struct nothing {};

}  // namespace detail

/// A value or an error: what std::expected<T, error> will be where every standard library has it.
///
/// Both T and error convert to it, so a function returns either. Inside the class the type error is spelt
/// axioms::error. operator*, operator-> and error() on the wrong alternative end the program: they are for after a
/// check.
template <class T>
class [[nodiscard]] result {
  using held = std::conditional_t<std::is_void_v<T>, detail::nothing, T>;

 public:
  using value_type = T;
  using error_type = axioms::error;

  result() noexcept requires std::is_void_v<T> : value_(), has_value_(true) {}
  template <class U = T>
    requires(!std::same_as<std::remove_cvref_t<U>, result> && std::is_constructible_v<T, U> &&
             std::is_convertible_v<U, T> && !std::same_as<std::remove_cvref_t<U>, axioms::error>)
  result(U&& value) : value_(static_cast<T>(std::forward<U>(value))), has_value_(true) {}
  result(axioms::error why) noexcept : error_(std::move(why)), has_value_(false) {}

  result(const result& other) requires std::is_copy_constructible_v<held> : has_value_(other.has_value_) {
    construct(other);
  }
  result(result&& other) noexcept(std::is_nothrow_move_constructible_v<held>) : has_value_(other.has_value_) {
    construct(std::move(other));
  }
  result& operator=(const result& other) requires std::is_copy_constructible_v<held> {
    if (this != std::addressof(other)) *this = result(other);
    return *this;
  }
  result& operator=(result&& other) noexcept(std::is_nothrow_move_constructible_v<held>) {
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

  void operator*() const& noexcept requires std::is_void_v<T> { expect(true); }
  [[nodiscard]] held& operator*() & noexcept requires(!std::is_void_v<T>) { return expect(true), value_; }
  [[nodiscard]] const held& operator*() const& noexcept requires(!std::is_void_v<T>) { return expect(true), value_; }
  [[nodiscard]] held&& operator*() && noexcept requires(!std::is_void_v<T>) { return expect(true), std::move(value_); }
  [[nodiscard]] held* operator->() noexcept requires(!std::is_void_v<T>) {
    return expect(true), std::addressof(value_);
  }
  [[nodiscard]] const held* operator->() const noexcept requires(!std::is_void_v<T>) {
    return expect(true), std::addressof(value_);
  }

  /// The value; throws axioms::exception on an error (ends the program without exceptions).
  void value() const& requires std::is_void_v<T> { checked(); }
  [[nodiscard]] held& value() & requires(!std::is_void_v<T>) { return checked(), **this; }
  [[nodiscard]] const held& value() const& requires(!std::is_void_v<T>) { return checked(), **this; }
  [[nodiscard]] held&& value() && requires(!std::is_void_v<T>) { return checked(), *std::move(*this); }

  template <class U>
    requires(!std::is_void_v<T>)
  [[nodiscard]] held value_or(U&& other) const& {
    return has_value() ? **this : static_cast<T>(std::forward<U>(other));
  }
  template <class U>
    requires(!std::is_void_v<T>)
  [[nodiscard]] held value_or(U&& other) && {
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
      std::construct_at(const_cast<std::remove_const_t<held>*>(std::addressof(value_)),
                        std::forward<Other>(other).value_);
    } else {
      std::construct_at(std::addressof(error_), std::forward<Other>(other).error_);
    }
  }
  void destroy() noexcept {
    if (has_value_) {
      value_.~held();
    } else {
      error_.~error();
    }
  }
  void checked() const {
    if (!has_value()) detail::throw_error(error());
  }
  // f(value), or f() of a result<void>.
  template <class Self, class F>
  static decltype(auto) apply(Self&& self, F&& f) {
    if constexpr (std::is_void_v<T>) return std::forward<F>(f)();
    if constexpr (!std::is_void_v<T>) return std::forward<F>(f)(*std::forward<Self>(self));
  }
  template <class Self, class F>
  static auto chain(Self&& self, F&& f) {
    using next = std::remove_cvref_t<decltype(apply(std::forward<Self>(self), std::forward<F>(f)))>;
    static_assert(detail::is_result<next>,
                  "and_then takes a function that returns an axioms::result; use transform for a plain value");
    if (!self) return next(std::forward<Self>(self).error());
    return next(apply(std::forward<Self>(self), std::forward<F>(f)));
  }
  template <class Self, class F>
  static auto map(Self&& self, F&& f) {
    using plain = std::remove_cvref_t<decltype(apply(std::forward<Self>(self), std::forward<F>(f)))>;
    if (!self) return result<plain>(std::forward<Self>(self).error());
    if constexpr (std::is_void_v<plain>) {
      apply(std::forward<Self>(self), std::forward<F>(f));
      return result<plain>();
    } else {
      return result<plain>(apply(std::forward<Self>(self), std::forward<F>(f)));
    }
  }

  // Not a std::variant: its machinery, once per T, took a tenth of what including this header costs.
  union {
    held value_;
    axioms::error error_;
  };
  bool has_value_;
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

// Names that differ mostly do so in length, first or last byte; a call of memcmp for each would be most of what a hit
// costs.
constexpr bool same_name(std::string_view a, std::string_view b) noexcept {
  return a.size() == b.size() && (a.empty() || (a.front() == b.front() && a.back() == b.back() && a == b));
}

constexpr std::string_view trim(std::string_view text) noexcept {
  constexpr std::string_view blank = " \t";
  const auto first = text.find_first_not_of(blank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blank) - first + 1);
}

// Whether wanted(item) is true of an item of the list, asked in turn; what is empty is none.
template <class Wanted>
constexpr bool any_item(std::string_view list, std::string_view separators, Wanted wanted) {
  while (!list.empty()) {
    const std::string_view item = list.substr(0, list.find_first_of(separators));
    if (!item.empty() && wanted(item)) return true;
    list.remove_prefix(item.size() < list.size() ? item.size() + 1 : item.size());
  }
  return false;
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

// ---- concepts -----------------------------------------------------------------------------------

#if !defined(AXIOMS_JWKS_OWN_STOP_TOKEN)

using stop_token = std::stop_token;
using stop_source = std::stop_source;
using std::stop_callback;  // not an alias template: clang before 19 deduces no arguments for one
using jthread = std::jthread;

#else

namespace detail {

struct no_stop_state {};

struct stop_link {
  virtual void run() noexcept = 0;
  stop_link* next = nullptr;
  stop_link** at = nullptr;  // what points to it in the list; nullptr: it is in none

 protected:
  ~stop_link() = default;
};

// What a stop_source, its tokens and its callbacks share. Callbacks run once, in the thread that asks, outside
// the lock; a callback's destructor waits while another thread runs it.
class stop_state {
 public:
  [[nodiscard]] bool requested() const noexcept { return requested_.load(std::memory_order_acquire); }
  bool request() noexcept {
    std::unique_lock lock(mutex_);
    if (requested_.exchange(true, std::memory_order_acq_rel)) return false;
    runner_ = std::this_thread::get_id();
    while (first_ != nullptr) {
      running_ = first_;
      take_out(*running_);
      lock.unlock();
      running_->run();
      lock.lock();
      running_ = nullptr;
      idle_.notify_all();
    }
    return true;
  }
  // False: asked already, the link is not kept.
  bool attach(stop_link& link) noexcept {
    const std::lock_guard lock(mutex_);
    if (requested()) return false;
    link.next = std::exchange(first_, &link);
    link.at = &first_;
    if (link.next != nullptr) link.next->at = &link.next;
    return true;
  }
  void detach(stop_link& link) noexcept {
    std::unique_lock lock(mutex_);
    // Destroyed from inside its own call: nothing to wait for. request() does not touch a link that ran.
    if (runner_ != std::this_thread::get_id()) idle_.wait(lock, [&] { return running_ != &link; });
    if (link.at != nullptr) take_out(link);
  }

  std::atomic<int> sources{0};  // stop_possible() ends with the last source

 private:
  static void take_out(stop_link& link) noexcept {
    *link.at = link.next;
    if (link.next != nullptr) link.next->at = link.at;
    link.at = nullptr;
  }

  std::atomic<bool> requested_{false};
  std::mutex mutex_;  // guards everything below, and the links' neighbours
  std::condition_variable idle_;
  stop_link* first_ = nullptr;
  stop_link* running_ = nullptr;
  std::thread::id runner_;
};

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

  bool request_stop() noexcept {
    const auto state = state_;  // a callback may destroy this source, the last one
    return state && state->request();
  }
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
  jthread& operator=(jthread other) noexcept {
    std::swap(source_, other.source_);
    thread_.swap(other.thread_);
    return *this;
  }
  ~jthread() {
    if (!joinable()) return;
    request_stop();
    join();
  }

  [[nodiscard]] bool joinable() const noexcept { return thread_.joinable(); }
  void join() { thread_.join(); }
  void detach() { thread_.detach(); }
  [[nodiscard]] std::thread::id get_id() const noexcept { return thread_.get_id(); }
  bool request_stop() noexcept { return source_.request_stop(); }
  [[nodiscard]] stop_token get_stop_token() const noexcept { return source_.get_token(); }

 private:
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
/// `check() -> result<void>`, which initialize() and add() call, on the caller's thread; its error is theirs. One that
/// names `options_type` and can be made from it lets the managers be made from it too.
///
/// Threads: called from several threads at once.
template <class F>  // compilers show the line that a type does not keep to, and so what stands beside it here and below
concept fetcher = requires(F& f, const fetch_request& request, stop_token stop) {
  { f(request, stop) } -> std::same_as<result<fetch_response>>;  // a fetcher is called so, and returns that result
};

namespace detail {

// Fetchers that say what they are made from.
template <class Fetcher>
concept made_from_options = std::constructible_from<Fetcher, typename Fetcher::options_type>;

}  // namespace detail

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
/// - `system_now() -> std::chrono::system_clock::time_point`: for tokens, HTTP dates and saved documents.
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
/// returns a handle with `cancel()`. The callback, a `std::function<void()>`, runs once, on the loop, never inside
/// call_at(). cancel() does nothing once it runs, also when the callback itself calls it.
///
/// Threads: now() and system_now() from any thread, several at once; call_at() and cancel() from any thread that calls
///          the manager or completes a fetch, one at a time.
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

// ---- configuration ------------------------------------------------------------------------------

/// What a jwks_event tells.
enum class jwks_event_kind {
  fetched = 1,   ///< a new document was published; `added`, `removed` and `changed` say how its keys differ
  not_modified,  ///< the provider confirmed the document (304, or the same bytes again)
  failed,        ///< a fetch failed; the old document stays
  stale,         ///< told once when lookups begin to get a document past its `cache_ttl`
  throttled,     ///< told once when the budget for unknown kids is used up
  loaded         ///< add_static() or import_cache() put a document in place; the kids are told as for `fetched`
};

[[nodiscard]] constexpr std::string_view to_string(jwks_event_kind kind) noexcept {
  constexpr std::array<std::string_view, 7> names{"unknown", "fetched",   "not_modified", "failed",
                                                  "stale",   "throttled", "loaded"};
  const auto index = static_cast<std::size_t>(kind);
  return names[index < names.size() ? index : 0];
}

/// One thing that happened to one URL. Holds no key material.
struct jwks_event {
  jwks_event_kind kind{};
  std::string url{};
  std::optional<axioms::error> error{};   ///< of `failed`, and of `stale` if a failed fetch is the reason
  int status = 0;                         ///< of the response, 0 if there was none
  std::chrono::milliseconds duration{0};  ///< of the fetch, by the manager's clock
  /// Kids (thumbprints of keys without kid); changed: same kid, new key.
  std::vector<std::string> added{}, removed{}, changed{};
  /// When the next fetch is due, by the manager's clock, which is no time of day: by default
  /// `next_attempt - axioms::steady_clock().now()` is the time until then.
  std::chrono::steady_clock::time_point next_attempt{};
  std::string key_set_url{};  ///< of `fetched` and `loaded`: where the keys came from; with `discovery` not `url`
};

/// One line for a log: kind, URL, where the keys came from if it was elsewhere, status, duration, kids and error, as
/// far as there are any. What comes from outside is escaped and cut.
[[nodiscard]] std::string to_string(const jwks_event& event);

/// Counters since the manager was made; they only grow.
struct jwks_stats {
  std::uint64_t hits = 0;            ///< lookups answered with a document younger than `cache_ttl`
  std::uint64_t misses = 0;          ///< lookups that had to wait, or found nothing to serve
  std::uint64_t stale_served = 0;    ///< lookups answered with a document past `cache_ttl`
  std::uint64_t fetched = 0;         ///< fetches that published a document
  std::uint64_t not_modified = 0;    ///< fetches that confirmed it (304, or the same bytes again)
  std::uint64_t failed = 0;          ///< fetches that failed
  std::uint64_t coalesced = 0;       ///< lookups and refreshes that joined a fetch of somebody else
  std::uint64_t throttled = 0;       ///< lookups for which a budget allowed no fetch
  std::uint64_t events_dropped = 0;  ///< events a slow listener lost
};

/// The state of one URL, for a readiness probe or a dashboard.
struct jwks_health {
  bool ready = false;                         ///< a lookup would get a document now
  bool stale = false;                         ///< that document is past its `cache_ttl`
  bool insecure_transport = false;            ///< the URL is http: anybody on the path can exchange the keys
  std::chrono::milliseconds age{0};           ///< of the document; 0 if there is none
  std::optional<axioms::error> last_error{};  ///< of the last fetch, none if it succeeded
  int consecutive_failures = 0;
  /// Of a fetch, by the manager's clock as in jwks_event: now while one runs; max(): none is planned.
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
  /// How long get_key() still gives a key that left the set, for tokens that were signed just before. 0 or more; 0:
  /// gone at once, as a key that was withdrawn because it leaked must be. Default 0.
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
  /// `unknown_kid_interval` (more than 0). Without budget such a kid is `key_not_found` while the set is younger than
  /// that interval, else `throttled`. A caller waits until `unknown_kid_wait` (0 or more) after the fetch began.
  /// Default 3, 30 s and 2 s.
  int unknown_kid_burst = 3;
  std::chrono::milliseconds unknown_kid_interval{30000}, unknown_kid_wait{2000};
  /// Refuses http. Default false, as in the Python original.
  bool require_https = false;
  /// Finds the key set through the metadata of `issuer` (or of https://`domain`): OpenID Connect Discovery 1.0 section
  /// 4, else RFC 8414, if there are none of that issuer. They must name exactly that issuer. They are read again by
  /// every refresh, for a token if they are older than `min_refresh_interval`, and when the key set cannot be fetched;
  /// they outlive an outage like the keys. `jwks_url` must be empty. Default false.
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
  /// With `discovery`: where the metadata are, if not under the issuer, which they must still name. Default: under the
  /// issuer.
  std::string metadata_url{};

  /// Reads AXIOMS_JWKS_URL, AXIOMS_ISS_URL, AXIOMS_DOMAIN, AXIOMS_JWKS_REFRESH_INTERVAL and AXIOMS_JWKS_CACHE_TTL
  /// (seconds) and AXIOMS_JWKS_PREFETCH (true/false, 1/0, yes/no, on/off). A variable that is unset or empty leaves
  /// its default.
  ///
  /// Errors: invalid_config for a value that cannot be read; it names the variable. The rest is validate()'s.
  [[nodiscard]] static result<jwks_config> from_environment();

  /// The URL that will be fetched; with `discovery` that of the metadata, by which lookups name the key set.
  ///
  /// Errors: invalid_config (no URL option is set), invalid_url, unsupported_scheme.
  [[nodiscard]] result<std::string> resolved_url() const;

  /// Checks every option and their combination; the description names the option, its value and the rule.
  ///
  /// Errors: invalid_config, invalid_url, unsupported_scheme.
  [[nodiscard]] result<void> validate() const;
};

// ---- keys ---------------------------------------------------------------------------------------

namespace detail {

// One value of a JSON text. What is in it follows it in the array of its json_tree, so a walk over its members or
// elements steps from one to the next over all that is in them.
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
struct alg_info;
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
  ///
  /// For tokens use verify() or a token_verifier: OpenSSL wants an ECDSA signature in DER, a JWS has r and s in a row
  /// (RFC 7518 section 3.4), and EVP_DigestVerify refuses that.
  [[nodiscard]] EVP_PKEY* native_handle() const noexcept { return key_.get(); }
  /// Whether the signature, as a JWS has it (RFC 7518 section 3), is good. False if @p alg does not go with the key,
  /// and if OpenSSL cannot carry it out.
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
  std::string kid{};      ///< empty if it has none; from outside: quote before showing
  std::string reason{};
};

/// What jwk_set::parse() accepts beyond the default.
struct jwk_options {
  bool allow_es256k = false;  ///< secp256k1 keys for ES256K (RFC 8812)
  bool operator==(const jwk_options&) const noexcept = default;
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
  /// Skipped are also members that repeat a name (RFC 7517 section 4), and members past 1,024. A member of a key that
  /// is null counts as absent. Private and symmetric key material is not kept.
  ///
  /// Errors: not_a_key_set (no JSON object with one array `keys`; nested deeper than 32; over 65,536 values; a zero
  ///         byte in it), no_usable_key, no_resources (OpenSSL had no memory for a key).
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
  /// From one counter per process, which a forked child continues; a 304, or the same bytes again, keep it.
  [[nodiscard]] std::uint64_t generation() const noexcept { return content_->generation; }
  [[nodiscard]] const std::shared_ptr<const detail::document_content>& content() const noexcept { return content_; }

 private:
  std::shared_ptr<const detail::document_content> content_;
  time_point fetched_at_, expires_at_;
  std::chrono::system_clock::time_point fetched_at_system_;
};

using jwks_ptr = std::shared_ptr<const jwks_document>;

// ---- detail: refresh policy ---------------------------------------------------------------------

namespace detail {

using steady_point = std::chrono::steady_clock::time_point;
using wall_point = std::chrono::system_clock::time_point;
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
inline constexpr std::size_t max_kept_metadata_bytes = std::size_t{64} << 10U;
inline constexpr seconds max_wall_clock_step{60};

// t + d without overflow: a deadline beyond the end of time is none.
[[nodiscard]] constexpr steady_point later(steady_point t, steady_point::duration d) noexcept {
  return t > steady_point::max() - d ? steady_point::max() : t + d;
}

// Errors of a flight that fails need no memory: their text goes if there is none.
template <class... Pieces>
[[nodiscard]] error short_error(errc code, int http_status, const Pieces&... pieces) noexcept {
  error out{code, {}, http_status};
  AXIOMS_JWKS_TRY { out.description = concat(pieces...); }
  AXIOMS_JWKS_CATCH_ALL {}
  return out;
}
[[nodiscard]] inline error copy_of(const error& why) noexcept {
  return short_error(why.code, why.http_status, why.description);
}

// What a flight brought, judged without a lock.
struct verdict {
  enum class kind { document, found, not_modified, absent, failure };
  kind what = kind::failure;
  axioms::error why{};  // of a failure
  int status = 0;
  std::string etag{}, last_modified{};
  std::optional<seconds> freshness{}, retry_after{};
  std::shared_ptr<document_content> content{};    // of a document
  std::string jwks_uri{};                         // of metadata that were found
  std::shared_ptr<const std::string> metadata{};  // the same, as published, unless it is too long to be kept

  void refuse(axioms::error&& reason) noexcept {  // with what it tells
    why = std::move(reason);
    if (status != 0) why.http_status = status;              // else a fetcher may have told one, a proxy's 407
    if (why.code == errc{}) why.code = errc::fetch_failed;  // a fetcher's error without a code is still one
  }
};

// The rule of acceptance: only a 200 with a usable key set is a document, and only a 304 that was asked for confirms
// one.
[[nodiscard]] verdict judge(const fetch_request& request, result<fetch_response> response, wall_point now,
                            const jwk_options& options = {});

// A body that is equal to the served one confirms it like a 304. One that the keys of were read by other options does
// not.
[[nodiscard]] bool is_same(const document_content& brought, const document_content& served) noexcept;

// How old a document is that an earlier process fetched, which only the wall clock can tell. Errors: that clock makes
// no sense. A document from the future is no younger than now: the clock may have been stepped back a little.
[[nodiscard]] result<seconds> age_of_saved(wall_point now, std::int64_t fetched_at);

// Which issuer metadata must name, and where they may be (OpenID Connect Discovery 1.0 section 4, RFC 8414 section
// 3.1).
struct metadata_source {
  std::string issuer;
  bool slash_optional = false;      // of an issuer that is known by its domain only
  std::array<std::string, 2> urls;  // the second is empty where metadata_url says where they are
  bool operator==(const metadata_source&) const = default;
};
[[nodiscard]] result<metadata_source> metadata_source_of(const jwks_config& config);

// The rule of acceptance for metadata: a JSON object of exactly that issuer, whose jwks_uri is a URL that we may fetch,
// and not http if the metadata came by https. Absent: what came is no metadata of that issuer, and no outage.
[[nodiscard]] verdict judge_metadata(const fetch_request& request, result<fetch_response> response,
                                     const metadata_source& source, wall_point now);

// From an issuer to the URL of its key set. Sans-I/O, like refresh_policy. It says what each flight asks for next.
class discovery_policy {
 public:
  enum class step { metadata, keys, fail };

  discovery_policy(std::shared_ptr<const metadata_source> source, const jwks_config& config)
      : source_(std::move(source)) {
    configure(config);
  }
  void configure(const jwks_config& config) noexcept {
    usable_for_ = config.cache_ttl + config.outage_window;
    floor_ = std::min(config.min_refresh_interval, config.refresh_interval);
    retry_after_max_ = config.retry_after_max;
  }

  // A flight begins, to refresh the keys or because of a token, which may not read young metadata again.
  step begin(steady_point now, bool for_token = false) noexcept {
    failure_.reset();
    other_form_tried_ = read_by_flight_ = false;
    if (!usable(now)) return step::metadata;
    if (now < retry_at_) return step::keys;
    return suspect_ || !for_token || now >= later(read_at_, floor_) ? step::metadata : step::keys;
  }
  // Its metadata came, or did not.
  step read(steady_point now, verdict&& brought) noexcept {
    read_by_flight_ = true;
    if (brought.what == verdict::kind::found || (brought.what == verdict::kind::not_modified && !jwks_uri_.empty())) {
      const bool found = brought.what == verdict::kind::found;
      read_at_ = now;
      retry_at_ = steady_point{};
      failure_.reset();
      if (found) jwks_uri_ = std::move(brought.jwks_uri);
      if (found) document_ = std::move(brought.metadata);
      if (found || !brought.etag.empty()) etag_ = std::move(brought.etag);
      if (found || !brought.last_modified.empty()) last_modified_ = std::move(brought.last_modified);
      return step::keys;
    }
    const bool absent = brought.what == verdict::kind::absent;
    if (brought.what == verdict::kind::not_modified)
      brought.why = short_error(errc::http_status, 304, "HTTP status 304 for metadata that were not there");
    // With a key set that cannot be had every flight asks again, unless that costs it its time.
    if (!suspect_ || brought.why.code == errc::timed_out) retry_at_ = std::max(retry_at_, later(now, floor_));
    if (brought.retry_after)
      retry_at_ = std::max(retry_at_, later(now, std::min<milliseconds>(*brought.retry_after, retry_after_max_)));
    if (!failure_ || !absent) failure_ = std::move(brought);
    const bool other_form = absent && !other_form_tried_ && !source_->urls[1].empty();
    if (other_form || other_form_tried_) form_ = 1 - form_;  // there, or back
    if (!other_form) return usable(now) ? step::keys : step::fail;
    other_form_tried_ = true;
    etag_.clear();
    last_modified_.clear();
    return step::metadata;
  }
  // The key set was not to be had where the metadata say, which may be out of date.
  step keys_failed(steady_point now) const noexcept {
    return !read_by_flight_ && now >= retry_at_ ? step::metadata : step::fail;
  }
  // It was over before its metadata came: the next one must not lose its time in the same way.
  void overstayed(steady_point now) noexcept { retry_at_ = later(now, floor_); }
  // It ended, with a good answer of the key set or without.
  void ended(bool well) noexcept { suspect_ = !well; }

  [[nodiscard]] const std::shared_ptr<const metadata_source>& source() const noexcept { return source_; }
  [[nodiscard]] const std::string& metadata_url() const noexcept { return source_->urls[form_]; }
  [[nodiscard]] const std::string& jwks_uri() const noexcept { return jwks_uri_; }
  [[nodiscard]] const std::shared_ptr<const std::string>& document() const noexcept { return document_; }
  [[nodiscard]] const std::string& etag() const noexcept { return etag_; }
  [[nodiscard]] const std::string& last_modified() const noexcept { return last_modified_; }
  [[nodiscard]] bool usable(steady_point now) const noexcept {
    return !jwks_uri_.empty() && now < later(read_at_, usable_for_);
  }
  // Of the metadata that were read last, or not.
  [[nodiscard]] const std::optional<verdict>& failure() const noexcept { return failure_; }

 private:
  std::shared_ptr<const metadata_source> source_;
  seconds usable_for_{}, floor_{};
  milliseconds retry_after_max_{};
  std::size_t form_ = 0;
  bool read_by_flight_ = false, other_form_tried_ = false;  // by the flight in the air
  bool suspect_ = false;                                    // the key set was not to be had where the metadata say
  std::string jwks_uri_, etag_, last_modified_;
  std::shared_ptr<const std::string> document_;
  steady_point read_at_{};
  steady_point retry_at_{};  // the old ones do until then
  std::optional<verdict> failure_;
};

// How often tokens may make us fetch: a bucket of `burst`, and one more per interval.
class refetch_budget {
 public:
  void configure(int burst, milliseconds interval) noexcept { burst_ = burst, interval_ = interval; }
  [[nodiscard]] bool never() const noexcept { return burst_ == 0; }
  [[nodiscard]] bool has_one(steady_point now) const noexcept { return level(now).first > 0; }
  void spend(steady_point now) noexcept {
    const auto [left, since] = level(now);
    touched_ = true;
    left_ = left - 1;
    since_ = since;
  }

 private:
  [[nodiscard]] std::pair<int, steady_point> level(steady_point now) const noexcept {
    if (!touched_) return {burst_, now};
    if (now <= since_) return {std::min(left_, burst_), since_};
    const auto earned = (now - since_) / interval_;
    const auto left = std::min<std::int64_t>(burst_, left_ + std::min<std::int64_t>(earned, burst_));
    // A full bucket earns nothing.
    return {static_cast<int>(left), left == burst_ ? now : since_ + earned * interval_};
  }
  int burst_ = 0;
  milliseconds interval_{1};
  bool touched_ = false;
  int left_ = 0;
  steady_point since_{};
};

// Uniform in [0, most).
inline milliseconds scaled(milliseconds most, std::uint64_t random) noexcept {
  return milliseconds(
      static_cast<std::int64_t>(static_cast<double>(most.count()) * (static_cast<double>(random >> 11U) * 0x1p-53)));
}

// When a provider that failed may be asked again: full jitter under a limit that doubles, and whatever it asked for
// itself.
class backoff {
 public:
  void configure(const jwks_config& config) noexcept {
    initial_ = config.backoff_initial, most_ = config.backoff_max, retry_after_max_ = config.retry_after_max;
  }
  // Returns: when the background tries again.
  steady_point fail(steady_point now, const std::optional<seconds>& retry_after, std::uint64_t random) noexcept {
    failures_ = std::min(failures_ + 1, 1000000);
    failed_at_ = now;
    milliseconds limit = initial_;
    for (int i = 1; i < failures_ && limit < most_; ++i) limit *= 2;
    own_end_ = later(now, std::max(scaled(std::min(limit, most_), random), (initial_ + milliseconds(1)) / 2));
    asked_end_ = steady_point{};
    if (!retry_after) return own_end_;
    const milliseconds asked = std::min<milliseconds>(*retry_after, retry_after_max_);
    asked_end_ = later(now, asked);
    // Whoever was told the same date must not come back in the same second.
    return std::max(own_end_, later(asked_end_, scaled(std::min(asked, most_), random)));
  }
  void clear() noexcept { failures_ = 0; }
  // For somebody whose patience with our own backoff ends that long after the failure. What the provider asked for is
  // kept.
  [[nodiscard]] bool blocks(steady_point now, steady_point::duration patience) const noexcept {
    const steady_point own_end = later(failed_at_, patience) < own_end_ ? later(failed_at_, patience) : own_end_;
    return failures_ > 0 && (now < own_end || now < asked_end_);
  }
  [[nodiscard]] int failures() const noexcept { return failures_; }

 private:
  milliseconds initial_{}, most_{}, retry_after_max_{};
  int failures_ = 0;
  steady_point failed_at_{}, own_end_{}, asked_end_{};
};

// Kids that a good answer lacked, each for a while.
class missing_kids {
 public:
  [[nodiscard]] bool contains(steady_point now, std::string_view kid) const {
    const auto found = until_.find(kid);
    return found != until_.end() && now < found->second;
  }
  void remember(steady_point now, std::string_view kid);
  void clear() noexcept { until_.clear(); }
  [[nodiscard]] std::size_t size() const noexcept { return until_.size(); }

 private:
  std::map<std::string, steady_point, std::less<>> until_;
};

// Keys that left the set less than withdrawn_key_grace ago.
class withdrawn_keys {
 public:
  void configure(seconds grace) noexcept { grace_ = grace; }
  // Makes replace() allocate nothing.
  void reserve(std::size_t served) { keys_.reserve(keys_.size() + (grace_.count() > 0 ? served : 0)); }
  // served: what the new set takes the place of; null if it was served no more.
  // What the new set lacks is withdrawn now, and what came back is withdrawn no more. Keys of a set that was not served
  // any more are not brought back.
  void replace(steady_point now, const jwk_set* served, const jwk_set& keys);
  [[nodiscard]] result<key_ptr> select(steady_point now, const key_query& query) const;
  [[nodiscard]] std::size_t size() const noexcept { return keys_.size(); }

 private:
  seconds grace_{};
  std::vector<std::pair<key_ptr, steady_point>> keys_;  // since when, oldest first
};

// Everything that is decided about one URL over time: what to serve, whether to fetch, when to look again.
//
// Sans-I/O: it is told the time, what happened and a random number; it has no thread, lock, socket or clock. Both
// managers call it under their lock. What begins with ask changes nothing. A flight is a number; the newest one may be
// in progress.
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
  // What a lookup of a kid gets that the served set lacks, or whose key does not fit a signature.
  enum class kid_answer {
    join,
    start,      // and pay()
    missing,    // the provider said so
    answered,   // no budget, place or time to ask again, but the set is so young that it is the answer
    throttled,  // the same, and it is older
    refuse      // last_error(): the provider is in trouble
  };
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
  // The same for a document that was restored and has a plan of its own: not before.
  void put_off(steady_point when) noexcept {
    if (next_attempt_ < when) plan_first(when);
  }

  [[nodiscard]] answer ask(steady_point now) const noexcept;
  // waiting: how many others wait because of a token.
  [[nodiscard]] kid_answer ask_unknown_kid(steady_point now, std::string_view kid, std::size_t waiting) const {
    const bool missing = pinned_ || kid.size() > max_kid_bytes || missing_.contains(now, kid);
    return missing ? kid_answer::missing : ask_for_refetch(now, waiting);
  }
  // What a caller gets whose key of a known kid did not verify a signature. missing: the set is what the provider said
  // just now. insist: that answer may be older than the question.
  [[nodiscard]] kid_answer ask_bad_signature(steady_point now, std::size_t waiting, bool insist) const noexcept {
    const bool answered = pinned_ || (!insist && now < later(fetched_at_, negative_kid_ttl));
    return answered ? kid_answer::missing : ask_for_refetch(now, waiting);
  }
  // A flight is begun for a token.
  void pay(steady_point now) noexcept { budget_.spend(now); }
  // How long a caller waits because of a token: counted from the beginning of the first flight that it joins, so that a
  // provider that hangs holds nobody for longer.
  [[nodiscard]] steady_point token_deadline(steady_point now) const noexcept {
    return later(in_flight_ ? begun_ : now, kid_wait_);
  }
  // A fetch that brought a set without the kid: do not ask for it again for a while.
  void remember_missing(steady_point now, std::string_view kid) { missing_.remember(now, kid); }
  // True if an answer came from a flight that began after `newest` was the newest. An older one proves nothing to who
  // asked then: the provider may have answered before it published the key.
  [[nodiscard]] bool answered_since(std::uint64_t newest) const noexcept { return answered_ > newest; }
  [[nodiscard]] std::uint64_t newest_flight() const noexcept { return newest_; }

  // Which key a query gets: one of the set that is served, else one that left it less than withdrawn_key_grace ago.
  [[nodiscard]] selection select(steady_point now, const jwk_set& served, const key_query& query) const;

  // Makes pin() and land() allocate nothing.
  void reserve(const jwk_set* served) { withdrawn_.reserve(served != nullptr ? served->size() : 0); }
  // The document is the application's own: it never ages, is never fetched, and no answer replaces it.
  void pin(steady_point now, const jwk_set& keys, const jwk_set* served = nullptr);
  // A document that an earlier process fetched at that time. It is refreshed when it would have been; what is overdue
  // is spread, for many processes may start at once. False: there is one that is served, or younger.
  [[nodiscard]] bool restore(steady_point now, steady_point fetched_at, std::uint64_t random) noexcept;

  std::uint64_t begin(steady_point now) noexcept {
    in_flight_ = true;
    begun_ = now;
    deadline_ = later(now, timeout_);
    return ++newest_;
  }
  // A flight came back, in time or late. served: the set that a new one would replace.
  landing land(std::uint64_t flight, steady_point now, const verdict& brought, bool confirms_current,
               std::uint64_t random, const jwk_set* served = nullptr);
  // True once when the flight in progress has overstayed; it then counts as failed.
  [[nodiscard]] bool expire(steady_point now, std::uint64_t random) noexcept;
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
  [[nodiscard]] steady_point next_attempt() const noexcept { return next_attempt_; }
  [[nodiscard]] steady_point next_wake() const noexcept { return in_flight_ ? deadline_ : next_attempt_; }
  [[nodiscard]] steady_point fetched_at() const noexcept { return fetched_at_; }
  [[nodiscard]] steady_point expires_at() const noexcept { return expiry_of(fetched_at_); }
  // Of a document of that time.
  [[nodiscard]] steady_point expiry_of(steady_point fetched_at) const noexcept {
    return pinned_ ? steady_point::max() : later(fetched_at, ttl_);
  }
  [[nodiscard]] bool pinned() const noexcept { return pinned_; }
  // New content came so lately that callers may still hold keys of the old.
  [[nodiscard]] bool replaced_lately(steady_point now) const noexcept {
    return has_document_ && now < later(replaced_at_, negative_kid_ttl);
  }
  [[nodiscard]] const std::optional<axioms::error>& last_error() const noexcept { return last_error_; }
  [[nodiscard]] int consecutive_failures() const noexcept { return backoff_.failures(); }
  [[nodiscard]] std::size_t negative_kids() const noexcept { return missing_.size(); }
  [[nodiscard]] std::size_t withdrawn_keys() const noexcept { return withdrawn_.size(); }

 private:
  void succeed(std::uint64_t flight, steady_point now, const std::optional<seconds>& freshness,
               std::uint64_t random) noexcept;
  void fail(steady_point now, axioms::error&& why, const std::optional<seconds>& retry_after,
            std::uint64_t random) noexcept {
    last_error_ = std::move(why);
    next_attempt_ = backoff_.fail(now, retry_after, random);
  }
  [[nodiscard]] kid_answer ask_for_refetch(steady_point now, std::size_t waiting) const noexcept;
  [[nodiscard]] steady_point restored_attempt() const noexcept;

  // limits
  seconds refresh_{}, ttl_{}, outage_{}, floor_{};
  milliseconds timeout_{}, kid_interval_{}, kid_wait_{};

  // document
  bool has_document_ = false;
  bool pinned_ = false;
  steady_point fetched_at_{}, replaced_at_{};
  steady_point confirmed_from_ = steady_point::min();  // when the fetch began that confirmed it
  detail::withdrawn_keys withdrawn_;

  // of a restored document that no flight has confirmed yet
  bool restored_ = false;
  steady_point restored_at_{};
  std::uint64_t restored_random_ = 0;

  // flights
  bool in_flight_ = false;
  std::uint64_t newest_ = 0;    // number of the newest flight
  std::uint64_t answered_ = 0;  // number of the newest flight whose answer was good
  steady_point begun_{}, deadline_{};
  steady_point next_attempt_ = steady_point::max();

  // failures
  std::optional<axioms::error> last_error_;
  backoff backoff_;

  // unknown kids
  refetch_budget budget_;
  missing_kids missing_;
};

// ---- clocks -------------------------------------------------------------------------------------

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

// The time for a thread's hits. To read the precise clock is most of what a hit costs, so it is read only when the
// second of the wall clock is another one, when time is short, and at every 256th hit: a wall clock may stand still.
class sparing_clock {
 public:
  using time_point = std::chrono::steady_clock::time_point;
  static constexpr unsigned most_spared = 255;
  static constexpr std::chrono::seconds short_of_time{2};  // a second, and one more that is inserted or set back

  // tick: the wall clock's second, read before this call: so no reading is spared for longer than a second.
  // until: what the time is asked for. False: the precise clock failed.
  template <class Read>
  [[nodiscard]] bool now(std::int64_t tick, time_point until, time_point& out, Read&& read) noexcept {
    if (tick != tick_ || spared_ == most_spared || until - now_ <= short_of_time) return precise(tick, out, read);
    ++spared_;
    out = now_;
    return true;
  }
  // The tick of the last call that succeeded.
  [[nodiscard]] std::int64_t second() const noexcept { return tick_; }

 private:
  template <class Read>
  AXIOMS_JWKS_COLD bool precise(std::int64_t tick, time_point& out, Read& read) noexcept {
    spared_ = most_spared;
    if (!read(now_)) return false;
    tick_ = tick;
    spared_ = 0;
    out = now_;
    return true;
  }

  std::int64_t tick_ = 0;
  unsigned spared_ = most_spared;
  time_point now_{};
};

}  // namespace detail

/// Real time: the default clock of both managers.
///
/// On Linux now() counts suspended time too (CLOCK_BOOTTIME): keys must not look fresh after a night in a closed
/// laptop.
///
/// Lookups that are answered from what their thread keeps do not read it each time, but when the second of time() is
/// another one, in the last two seconds before `cache_ttl`, and every 256th time. So a document is served past its
/// `cache_ttl` only where time() is set back to, or stands still in, the second that the thread has seen last: by each
/// thread at most 255 times, and no longer than that second lasts. A clock of your own is read at every lookup.
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
    // The kernel's wait does not count suspended time, so a long one is looked at again from time to time: less than
    // twice an hour.
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

// ---- default fetcher ----------------------------------------------------------------------------

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

namespace detail {
class httplib_state;
struct httplib_access;
}  // namespace detail

/// How httplib_fetcher reaches a provider. There is no option that turns certificate checks off.
///
/// Files are read at the first https fetch, and by check(); a bad one is that fetch's `tls_failed`, and the next fetch
/// reads it again. So they are after each fetch that ended with `tls_failed` or a status of 4xx: certificates may be
/// replaced on disk. What cannot be used then is passed over.
///
/// "Credentials" are `headers` and the client certificate: they go to the origin of the URL that the application named
/// (fetch_request::origin) and to `credential_origins`, nowhere else. Each hop of a redirect is judged by its own
/// origin, and after one that may not see them no later one does.
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
  /// Further request headers, asked for once per fetch that may send them, from the fetching threads, several at once,
  /// so that a token can be renewed; default: none. At most 64 KiB together. What it throws becomes `fetch_failed`.
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
  using options_type = httplib_options;

  explicit httplib_fetcher(httplib_options options = {});
  // Without moves: a moved-from handle would have no state to fetch with.
  httplib_fetcher(const httplib_fetcher&) noexcept = default;
  httplib_fetcher& operator=(const httplib_fetcher&) noexcept = default;
  ~httplib_fetcher() = default;

  result<fetch_response> operator()(const fetch_request& request, stop_token stop) const;

  /// Reads the files that the options name, never the system's certificates. initialize() and add() of the managers
  /// call it.
  ///
  /// Errors: invalid_config: a file is missing or no good, the key is not the certificate's, an origin or the proxy is
  ///         none.
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

#endif  // !AXIOMS_JWKS_NO_HTTPLIB

// ---- detail: engine -----------------------------------------------------------------------------
//
// All that the two managers share: locks, flights and waiters round the policies, which decide about time and retries.
// The way of a lookup, from get_jwks(url) to its answer:
//
//   warm_hit()              this thread has the document that is published now: no lock, no more
//   engine::ask()           the URL is parsed, once, before any lock
//   lookups::answer_now()   under the mutex: find() the URL's entry, decide() what it has now, conclude()
//   lookups::look_up()      there is none yet: place() makes the caller a waiter of the entry, and begins a flight
//   perform()               the mutex is free: the flight is launched, on a fetch thread or an event loop
//   flights::arrive()       its response is judged; with discovery there may be more to ask for
//   flights::receive()      the policy takes it, put() publishes it, settle(): each waiter decides again, is finished
//   waiter::done()          the caller wakes up, or goes on where it wants to
//
// decide() changes nothing, and perform() does what must not be done under the mutex. In between everything that needs
// memory is made before anything is changed, so a caller that runs out of it leaves no trace; what happens on other
// threads needs none (noexcept), or fails the flight.
//
// Here stands what the managers and other templates need. The rest is in the bodies: a chain of classes, from
// engine_state to engine_life, each a room that uses those above it, and at its end the two drivers, engine_on_threads
// and engine_on_loop.

namespace detail {

class engine;
class waiter;
struct entry;
struct flight;
struct process_wide;
using waiter_list = std::list<std::shared_ptr<waiter>>;  // they and flights go from list to list without memory

// Of every new content of every manager. A forked child counts on.
inline std::atomic<std::uint64_t> generations{0};

// Tells the threads that keep a document whether it is still the published one, without a lock and without the manager.
struct publication {
  std::atomic<std::uint64_t> version{1};   // grows with every stamp, and when the URL is dropped
  std::atomic<std::int64_t> last_used{0};  // ticks of the manager's clock, at most once a second
};

enum class verb { lookup, key, bad_signature, refresh, ready, initialize, shutdown };

// What a caller asks, in its own words. url: none for the configured one.
struct question {
  verb what = verb::lookup;
  std::optional<std::string_view> url{};
  key_query query{};
  milliseconds limit{0};  // of ready
};
// The URL that is meant, parsed, or what is wrong with it. None: the configured one.
using url_asked = result<std::optional<parsed_url>>;
[[nodiscard]] inline url_asked url_asked_of(const question& asked) {
  if (!asked.url) return std::optional<parsed_url>();
  return parse_url(*asked.url).transform([](parsed_url&& url) { return std::optional(std::move(url)); });
}

// What a question ends with. failure is empty on success.
struct outcome {
  jwks_ptr document{};
  key_ptr key{};
  bool changed = false;  // of bad_signature: the kid has another key now
  std::optional<axioms::error> failure{};
  std::shared_ptr<publication> source{};  // of a fresh document: may be kept per thread while version is this
  std::uint64_t version = 0;
};

// What a verb returns for it.
template <class T>
[[nodiscard]] T answer_of(outcome&& out) {
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

// -- engine: what a thread keeps --

// Hits of one manager, counted by one thread at a time; the next one counts on.
struct alignas(64) hit_counter {
  std::atomic<std::uint64_t> count{0};
  std::atomic<bool> taken{true};
  hit_counter* next = nullptr;
  void add() noexcept { count.store(count.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
};

// The counters of one manager, as many as threads have counted at the same time. Of its engine and of those threads:
// the last one frees it. No lock, which a forked child could find taken.
class hit_counters {
 public:
  ~hit_counters() {
    for (hit_counter* each = first_.load(std::memory_order_acquire); each != nullptr;) {
      const std::unique_ptr<hit_counter> last(std::exchange(each, each->next));
    }
  }
  // For the calling thread, until it lets go.
  [[nodiscard]] static std::shared_ptr<hit_counter> take(const std::shared_ptr<hit_counters>& from);
  [[nodiscard]] std::uint64_t sum() const noexcept {
    std::uint64_t out = 0;
    for (const hit_counter* each = first_.load(std::memory_order_acquire); each != nullptr; each = each->next)
      out += each->count.load(std::memory_order_relaxed);
    return out;
  }

 private:
  std::atomic<hit_counter*> first_{nullptr};
};

[[nodiscard]] AXIOMS_JWKS_HOT inline bool same_bytes(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size()) [[unlikely]]
    return false;
  return b.empty() || std::memcmp(a.data(), b.data(), b.size()) == 0;
}

// A document that a thread keeps, and the keys that it has given lately. Its control block is the thread's own, and so
// is that of every handle it gives: copies do not fight over a cache line.
class kept_document {
 public:
  explicit kept_document(jwks_ptr document) noexcept : document_(std::move(document)) {}

  // What select() gives, or null.
  [[nodiscard]] const jwk* find(const key_query& query);

 private:
  struct choice {
    const jwk* key = nullptr;
    std::string_view kid;  // within the key
    std::array<char, 15> alg{};
    std::uint8_t alg_size = 0;
  };
  const jwk* choose(const key_query& query);

  const jwks_ptr document_;
  std::array<choice, 4> lately_{};
  std::size_t oldest_ = 0;
};

// A document that this thread has got lately. A hit reads nothing else: no lock, no allocation, no parsing.
struct hit_slot {
  std::uint64_t engine = 0;  // never reused, so a new manager at an old address is no hit
  std::string url;           // as the caller spells it; empty: the configured one
  std::shared_ptr<publication> source;
  std::uint64_t version = 0;
  jwks_ptr document;  // with the control block of what is kept
  kept_document* kept = nullptr;
  std::shared_ptr<hit_counter> counter;
  steady_point until{};
  steady_point look{};    // a hit from then on has more to do than to answer
  std::uint8_t next = 0;  // of the same bucket, counted from 1
  std::uint64_t hash = 0;
  std::uint64_t generation = 0;  // of the document: no other URL of the engine has it

  [[nodiscard]] AXIOMS_JWKS_HOT inline bool is(std::uint64_t of, std::string_view at) const noexcept {
    if (engine != of) [[unlikely]]
      return false;
    return same_bytes(url, at);
  }
  // What it has, counted as a hit. No key: it may be worth a fetch.
  [[nodiscard]] const jwks_ptr& give() const noexcept { return counter->add(), document; }
  [[nodiscard]] AXIOMS_JWKS_HOT inline const jwk* give(const key_query& query) const {
    const jwk* const key = kept->find(query);
    if (key != nullptr) counter->add();
    return key;
  }
};

// As many as a manager keeps looked-up URLs, so that going round all of them costs no lock either.
struct hit_cache {
  std::array<hit_slot, max_looked_up_urls> places;
  std::array<std::uint8_t, 2 * max_looked_up_urls> buckets{};  // the first slot of each, counted from 1
  hit_slot* recent = places.data();
  std::size_t oldest = 0;
  sparing_clock clock;
};

// A plain pointer costs no guard on the hit path; the object behind it is made on the first refill and freed at thread
// exit.
inline thread_local constinit hit_cache* this_thread_hits = nullptr;

[[nodiscard]] hit_slot* find_slot(hit_cache& cache, std::uint64_t engine, std::string_view url) noexcept;
[[nodiscard]] bool still_good(hit_slot& slot, steady_point now) noexcept;
void keep_hit(std::uint64_t engine, const std::shared_ptr<hit_counters>& counters, std::string_view url,
              const outcome& served) noexcept;

// Reads again what a hit would else keep at hand for it.
template <class Engine>
[[nodiscard]] AXIOMS_JWKS_COLD hit_slot* find_slot(const Engine& core, std::string_view url) noexcept {
  return find_slot(*this_thread_hits, core.id(), url);
}

// The slot that this thread may serve without the engine's slow path. The slot used last is looked at first, inline; a
// thread that goes back and forth between URLs pays for a call. Who knows the generation spares a comparison of URLs.
template <class Engine>
[[nodiscard]] AXIOMS_JWKS_HOT inline hit_slot* warm_hit(Engine&& core, std::string_view url,
                                                        std::uint64_t generation = 0) noexcept {
  if (this_thread_hits == nullptr) return nullptr;
  hit_slot* slot = this_thread_hits->recent;
  const bool known = generation != 0 && slot->generation == generation && slot->engine == core.id();
  if (!known && !slot->is(core.id(), url)) [[unlikely]] {
    slot = find_slot(core, url);
    if (slot == nullptr) return nullptr;
  }
  if (slot->source->version.load(std::memory_order_acquire) != slot->version) return nullptr;
  steady_point now{};
  if (!core.time_of_hit(this_thread_hits->clock, slot->until, now)) return nullptr;
  if (now >= slot->look && !still_good(*slot, now)) return nullptr;
  return slot;
}

// What a verb returns, if this thread has it.
template <class T, class Engine>
[[nodiscard]] AXIOMS_JWKS_HOT inline std::optional<T> answer_warm(Engine&& core, const question& asked) {
  if constexpr (std::same_as<T, result<jwks_ptr>> || std::same_as<T, result<key_ptr>>) {
    if (asked.url && asked.url->empty()) return std::nullopt;  // which would stand for the configured one
    const hit_slot* const slot = warm_hit(core, asked.url.value_or(std::string_view()));
    if (slot == nullptr) return std::nullopt;
    if constexpr (std::same_as<T, result<jwks_ptr>>) return slot->give();
    if constexpr (std::same_as<T, result<key_ptr>>) {
      if (const jwk* const key = slot->give(asked.query)) return key_ptr(slot->document, key);
    }
  }
  return std::nullopt;
}

// -- engine: callers that wait --

// One caller that waits, blocked or suspended. Everything below the constants is guarded by the engine's mutex until
// done() is called, which happens once, without the mutex.
class waiter : public std::enable_shared_from_this<waiter> {
 public:
  waiter(const question& asked, url_asked where);
  virtual ~waiter() = default;

  virtual void done() noexcept = 0;
  // A continuation that nobody gave an executor for: it must run on a manager thread, not on the one that cancels.
  [[nodiscard]] virtual bool wants_manager_thread() const noexcept { return false; }
  // Copies, but for the URL: what the caller's views point to may be gone while it waits.
  [[nodiscard]] question asked() const noexcept { return {what, std::nullopt, {kid_, alg_}, limit}; }

  const verb what;
  const milliseconds limit;
  const url_asked where;

  bool finished = false;
  std::atomic<bool> cancelled{false};  // before it was submitted
  bool for_token = false;              // waits because of a token, and is counted by its entry
  bool forgiving = false;              // waits for a prefetch, whose failure is success
  std::uint64_t newest = 0;            // the newest flight when it asked
  std::uint64_t joined = 0;            // the flight that it waits for
  steady_point since{};                // when it asked
  steady_point deadline = steady_point::max();
  jwks_ptr before;            // of bad_signature: what the key was taken from
  outcome out;                // until it is finished, what shutdown ends it with
  std::shared_ptr<entry> on;  // in whose list it stands until then
  waiter_list::iterator place;

 private:
  std::string kid_, alg_;
};

// -- engine: the user's fetcher and clock --

// What the fetcher and the timer are given. They hold the engine weakly: the manager may be gone when they are called.
struct landing {
  void operator()(result<fetch_response> response);
  std::weak_ptr<engine> core;
  std::shared_ptr<flight> what;
};
struct alarm {
  void operator()() const;
  std::weak_ptr<engine> core;
};

// Nothing that they throw gets past it. False: the clock failed.
class engine_io {
 public:
  virtual ~engine_io() = default;
  [[nodiscard]] virtual bool now(steady_point& out) noexcept = 0;
  [[nodiscard]] virtual bool now(wall_point& out) noexcept = 0;
  [[nodiscard]] virtual result<void> check() noexcept = 0;  // of a fetcher that can tell that no fetch will succeed
  // False: the fetcher threw. With threads it has called back when it returns.
  [[nodiscard]] virtual bool fetch(const fetch_request& request, const stop_token& stop, landing&& call) noexcept = 0;
  // With threads only.
  [[nodiscard]] virtual bool wait(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv,
                                  const stop_token& stop, steady_point deadline,
                                  const std::function<bool()>& ready) noexcept = 0;
  // With a loop only: in place of the alarm that was set before. steady_point::max(): none.
  virtual void call_at(steady_point when, const alarm& call) noexcept = 0;
};

[[nodiscard]] inline error fetcher_threw() noexcept {
  return short_error(errc::fetch_failed, 0, "the fetcher threw an exception");
}

template <bool OnLoop, class Clock>
struct timer_of {
  using type = std::nullptr_t;
};
template <class Clock>
struct timer_of<true, Clock> {
  using type = decltype(std::declval<Clock&>().call_at(steady_point{}, std::function<void()>()));
};

template <bool OnLoop, class Fetcher, class Clock>
class io_of final : public engine_io {
 public:
  explicit io_of(std::shared_ptr<std::pair<Fetcher, Clock>> users) noexcept : users_(std::move(users)) {}
  bool now(steady_point& out) noexcept override {
    AXIOMS_JWKS_TRY { return out = users_->second.now(), true; }
    AXIOMS_JWKS_CATCH_ALL { return false; }
  }
  bool now(wall_point& out) noexcept override {
    AXIOMS_JWKS_TRY { return out = users_->second.system_now(), true; }
    AXIOMS_JWKS_CATCH_ALL { return false; }
  }
  result<void> check() noexcept override {
    AXIOMS_JWKS_TRY {
      if constexpr (requires(Fetcher & fetch) {
                      { fetch.check() } -> std::same_as<result<void>>;
                    })
        return users_->first.check();
      return {};
    }
    AXIOMS_JWKS_CATCH_ALL { return fetcher_threw(); }
  }

  bool fetch(const fetch_request& request, const stop_token& stop, landing&& call) noexcept override {
    AXIOMS_JWKS_TRY {
      if constexpr (OnLoop) {
        users_->first.async_fetch(fetch_request(request), stop, std::move(call));
      } else {
        call(users_->first(request, stop));
      }
      return true;
    }
    AXIOMS_JWKS_CATCH_ALL { return false; }
  }
  bool wait(std::unique_lock<std::mutex>& lock, std::condition_variable_any& cv, const stop_token& stop,
            steady_point deadline, const std::function<bool()>& ready) noexcept override {
    AXIOMS_JWKS_TRY {
      if constexpr (!OnLoop) static_cast<void>(users_->second.wait_until(lock, cv, stop, deadline, ready));
      return true;
    }
    AXIOMS_JWKS_CATCH_ALL {
      if (!lock.owns_lock()) lock.lock();
      return false;
    }
  }
  void call_at(steady_point when, const alarm& call) noexcept override {
    AXIOMS_JWKS_TRY {
      if constexpr (OnLoop) {
        if (timer_) timer_->cancel();
        timer_.reset();
        if (when != steady_point::max()) timer_.emplace(users_->second.call_at(when, std::function<void()>(call)));
      }
    }
    AXIOMS_JWKS_CATCH_ALL {}  // the next lookup or landing sets it again
  }

 private:
  const std::shared_ptr<std::pair<Fetcher, Clock>> users_;
  std::optional<typename timer_of<OnLoop, Clock>::type> timer_;
};

// -- engine: as its manager sees it --

// Locks, flights and waiters of one manager. How flights are launched and when it is woken is its driver's: threads or
// an event loop. All of that is in the bodies.
//
// After fork() the child must touch nothing here, for the mutex may be held by a thread that does not exist there.
// Verbs get a new engine from their engine_holder; what comes later by itself (a response, a timer, a stop callback,
// the end of a frame) asks forked() first.
class engine : public std::enable_shared_from_this<engine> {
 public:
  enum class life { idle, lazy, running, down };

  virtual ~engine() = default;

  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  [[nodiscard]] bool forked() const noexcept { return epoch_ != fork_epoch(); }
  [[nodiscard]] bool idle() const noexcept { return state_.load(std::memory_order_acquire) == life::idle; }
  [[nodiscard]] bool running() const noexcept { return state_.load(std::memory_order_acquire) == life::running; }
  [[nodiscard]] bool read_clock(steady_point& now) noexcept { return io_->now(now); }
  [[nodiscard]] bool read_clock(wall_point& now) noexcept { return io_->now(now); }
  // For a hit, which is good until then. Of steady_clock fewer readings will do.
  [[nodiscard]] AXIOMS_JWKS_HOT inline bool time_of_hit(sparing_clock& spared, steady_point until,
                                                        steady_point& now) noexcept {
    if (!sparing_) [[unlikely]]
      return read_clock(now);
    return spared.now(std::time(nullptr), until, now,
                      [](steady_point& precise) { return precise = steady_clock().now(), true; });
  }

  // Of its holder. It owns itself until the holder lets go; threads that still run keep it a little longer.
  void own_itself(std::shared_ptr<engine> self) noexcept {
    const std::shared_ptr<engine> last = std::exchange(self_, std::move(self));
  }
  // sparing: its clock is steady_clock, which need not be read each time.
  void work_with(std::shared_ptr<engine_io> io, bool sparing) noexcept { io_ = std::move(io), sparing_ = sparing; }
  [[nodiscard]] bool sparing() const noexcept { return sparing_; }
  // For who knows what it was made with.
  template <class Io>
  [[nodiscard]] Io& io() const noexcept {
    return static_cast<Io&>(*io_);
  }
  void start_down() noexcept { state_.store(life::down, std::memory_order_release); }

  // The answer, if it needs no waiting.
  [[nodiscard]] virtual std::optional<outcome> answer_now(const question& asked, const url_asked& where) = 0;
  // Finishes the waiter now or lets it wait. If it throws, it has done nothing. config: of initialize.
  virtual void submit(const std::shared_ptr<waiter>& who, std::shared_ptr<const jwks_config> config = nullptr) = 0;
  // The same for a caller that blocks until the answer, the stop, or an end by the manager's clock. Not with a loop.
  [[nodiscard]] virtual outcome ask(const question& asked, const stop_token& stop,
                                    std::shared_ptr<const jwks_config> config = nullptr) = 0;
  // A stop token asked: the waiter alone is finished, with `cancelled`.
  virtual void cancel(waiter& who) noexcept = 0;
  // The frame of the waiter is gone: nobody may be told.
  virtual void abandon(waiter& who) noexcept = 0;

  [[nodiscard]] virtual result<void> add(std::shared_ptr<const jwks_config> config) = 0;
  [[nodiscard]] virtual bool forget(std::string_view url) = 0;
  // Ends this life at once; threads and flights wind down by themselves, then those in last are finished.
  virtual void begin_shutdown(waiter_list&& last) noexcept = 0;
  // Waits until the threads of all past lives have ended; returns at once on one of them.
  virtual void join() noexcept = 0;
  // The manager is being destroyed: no new life any more, whatever a continuation asks for.
  virtual void close() noexcept = 0;

  [[nodiscard]] virtual result<void> add_static(std::string_view url, std::string_view json) = 0;
  [[nodiscard]] virtual std::string export_cache() = 0;
  [[nodiscard]] virtual result<std::size_t> import_cache(std::string_view text) = 0;
  [[nodiscard]] virtual std::optional<jwks_ptr> peek(const question& asked) = 0;
  [[nodiscard]] virtual std::optional<std::string> published_metadata(std::string_view url) const = 0;
  [[nodiscard]] virtual std::vector<std::string> urls() const = 0;
  [[nodiscard]] virtual jwks_health health(std::string_view url) = 0;
  [[nodiscard]] virtual jwks_stats stats() const = 0;

 protected:
  std::shared_ptr<engine_io> io_;
  std::atomic<life> state_{life::idle};
  const std::shared_ptr<hit_counters> hits_ = std::make_shared<hit_counters>();

 private:
  bool sparing_ = false;
  static inline std::atomic<std::uint64_t> last_id{0};
  const std::uint64_t id_ = last_id.fetch_add(1, std::memory_order_relaxed) + 1;
  const std::uint64_t epoch_ = fork_epoch();
  std::shared_ptr<engine> self_;
};

[[nodiscard]] std::shared_ptr<engine> make_engine(bool on_loop);

// Holds the engine that is in use. A forked child gets a new one: the old one's locks may be held by threads that do
// not exist here, so it is left as it is and never touched again.
class engine_holder {
 public:
  template <bool OnLoop, class Fetcher, class Clock>
  engine_holder(std::bool_constant<OnLoop>, Fetcher&& fetch, Clock&& time)
      : make_([users = std::make_shared<std::pair<Fetcher, Clock>>(std::forward<Fetcher>(fetch),
                                                                   std::forward<Clock>(time))] {
          auto made = make_engine(OnLoop);
          made->work_with(std::make_shared<io_of<OnLoop, Fetcher, Clock>>(users), std::same_as<Clock, steady_clock>);
          return made;
        }) {
    watch_forks();
    const std::shared_ptr<engine> first = make_();
    current_.store(first.get(), std::memory_order_release);
    first->own_itself(first);
  }
  void close() noexcept {
    if (engine* const last = inherited()) {
      last->close();
      last->own_itself(nullptr);
    }
  }

  [[nodiscard]] AXIOMS_JWKS_HOT inline engine& get() {
    engine* now = current_.load(std::memory_order_acquire);
    return now->forked() ? renewed(now) : *now;
  }
  // None in a forked child that has asked for nothing yet: its manager is down, and to say so needs no memory.
  [[nodiscard]] engine* inherited() const noexcept {
    engine* const now = current_.load(std::memory_order_acquire);
    return now->forked() ? nullptr : now;
  }

 private:
  engine& renewed(engine* old) {
    const std::shared_ptr<engine> fresh = make_();
    fresh->start_down();
    if (!current_.compare_exchange_strong(old, fresh.get(), std::memory_order_acq_rel))
      return *old;  // another thread was faster
    fresh->own_itself(fresh);
    return *fresh;
  }

  std::function<std::shared_ptr<engine>()> make_;
  std::atomic<engine*> current_{nullptr};
};

// For the parts below: what a manager works with.
struct manager_access {
  template <class Manager>
  [[nodiscard]] static engine& core(const Manager& manager) {
    return manager.engine_.get();
  }
  template <class Manager>
  [[nodiscard]] static auto& shell(const Manager& manager) noexcept {
    return manager.shell_;
  }
};

}  // namespace detail

/// What both managers have in common: the verbs that wait for nothing.
class jwks_manager_verbs {
 public:
  jwks_manager_verbs(const jwks_manager_verbs&) = delete;
  jwks_manager_verbs& operator=(const jwks_manager_verbs&) = delete;

  /// True between a successful initialize() and shutdown(); with the async manager from the start of the former.
  [[nodiscard]] bool running() const noexcept {
    const detail::engine* const core = engine_.inherited();
    return core != nullptr && core->running();
  }

  /// Adds one more URL, with a policy of its own; with `prefetch` its first fetch starts at once, in the background.
  ///
  /// A URL that is configured already takes the new policy and keeps its document. Options marked "of initialize()
  /// only" are ignored; without an `on_event` of its own its events go to that of initialize().
  ///
  /// Errors: as initialize(), and shut_down.
  result<void> add(jwks_config config) {
    return engine_.get().add(std::make_shared<const jwks_config>(std::move(config)));
  }

  /// Forgets @p url: its document goes, a fetch in flight is stopped, and whoever waits for it gets `cancelled`.
  ///
  /// For URLs of add(), static sets and those that were looked up; the next lookup begins anew.
  ///
  /// Returns: false if it is not known, or the URL of initialize(), which stays.
  /// Blocks:  never.
  bool remove(std::string_view url) { return engine_.get().forget(url); }

  /// All URLs that are known, in alphabetical order: configured, added, static, and looked up. Blocks: never.
  [[nodiscard]] std::vector<std::string> urls() const { return engine_.get().urls(); }

  /// With `discovery`: the issuer's metadata that were accepted last, as published, for their other members
  /// (endpoints).
  ///
  /// By the URL that lookups use; the configured one if it is empty. At most 64 KiB are kept, and none after
  /// shutdown().
  ///
  /// Blocks: never.
  [[nodiscard]] std::optional<std::string> metadata(std::string_view url = {}) const {
    return engine_.get().published_metadata(url);
  }

  /// Puts a key set of the application's own in place at @p url: @p json is served like a fetched one, never ages and
  /// is never fetched.
  ///
  /// Called again, it replaces the set. It stays until shutdown(), also when initialize() or add() name that URL (but
  /// with `require_https` no lookup of an http URL is answered); refresh() succeeds without a fetch, and an unknown kid
  /// is `key_not_found` at once. Not an answer in the air, nor import_cache(), replaces it. Legal before initialize(),
  /// but for secp256k1 keys: the configuration in force must `allow_es256k`.
  ///
  /// Blocks: never. Errors: invalid_url, unsupported_scheme, shut_down, not_a_key_set, no_usable_key,
  ///         response_too_large (over 16 MiB); the old set stays.
  result<void> add_static(std::string_view url, std::string_view json) { return engine_.get().add_static(url, json); }

  /// The fetched documents as text for import_cache(), so that a restart during an outage still has keys.
  ///
  /// Holds what the providers published, their validators, and when that was by the wall clock; no static sources.
  /// After shutdown() it is empty. Who can change the text chooses your keys: store it like a CA file.
  ///
  /// Blocks: never; fit for `on_event`.
  [[nodiscard]] std::string export_cache() const { return engine_.get().export_cache(); }

  /// Takes the documents of an export_cache() of an earlier process. Legal before initialize(), where it belongs.
  ///
  /// Each keeps its age by the wall clock, is served within `cache_ttl` + `outage_window` like any other, and is
  /// refreshed `refresh_interval` after it was fetched; overdue ones within `min_refresh_interval` (without `prefetch`
  /// no sooner than one `refresh_interval` after initialize()). One that may be served satisfies the prefetch.
  /// Documents from the future (by more than a minute) or older than 10 years are refused, and so is what is no key
  /// set. A URL that has a document to serve keeps it.
  ///
  /// Returns: how many documents were taken.
  /// Blocks:  never.
  /// Errors:  not_a_key_set (no such text), shut_down; if no document could be taken, the reason why the first one was
  ///          refused.
  result<std::size_t> import_cache(std::string_view text) { return engine_.get().import_cache(text); }

  /// What is cached and may be served now, fresh or stale; none if there is nothing. Blocks: never.
  [[nodiscard]] std::optional<jwks_ptr> peek(std::string_view url) const { return engine_.get().peek({.url = url}); }
  [[nodiscard]] std::optional<jwks_ptr> peek() const { return engine_.get().peek({}); }

  /// The state of @p url, of the configured one if it is empty. Never waits for a fetch.
  [[nodiscard]] jwks_health health(std::string_view url = {}) const { return engine_.get().health(url); }
  /// Counters of all URLs since the manager was made. Never waits for a fetch.
  [[nodiscard]] jwks_stats stats() const { return engine_.get().stats(); }

 protected:
  template <bool OnLoop, class Fetcher, class Clock>
  jwks_manager_verbs(std::bool_constant<OnLoop> on_loop, Fetcher&& fetch, Clock&& time)
      : engine_(on_loop, std::forward<Fetcher>(fetch), std::forward<Clock>(time)) {}
  ~jwks_manager_verbs() = default;
  void shutdown_and_join() noexcept {
    detail::engine* const core = engine_.inherited();
    if (core == nullptr) return;
    core->begin_shutdown({});
    core->join();
  }

  mutable detail::engine_holder engine_;

 private:
  friend struct detail::manager_access;
  friend struct detail::process_wide;
};

// ---- blocking manager ---------------------------------------------------------------------------

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
/// Lifetime: documents and keys outlive the manager. The destructor calls shutdown(). A static manager is destroyed in
///           time; shut down one that a static pointer owns, or nobody, before main() returns: OpenSSL cleans up then.
///           After fork() the child's manager is down, without threads; initialize() starts it afresh there.
template <fetcher Fetcher AXIOMS_JWKS_DEFAULT_FETCHER, clock_source Clock = steady_clock>
class basic_jwks_manager : public jwks_manager_verbs {
 public:
  explicit basic_jwks_manager(Fetcher fetch = Fetcher(), Clock time = Clock())
      : jwks_manager_verbs(std::false_type(), std::move(fetch), std::move(time)) {}
  /// A fetcher with these options, as in `jwks_manager keys({.ca_file = "/etc/ssl/private_ca.pem"})`.
  template <class Made = Fetcher>
    requires detail::made_from_options<Made>
  explicit basic_jwks_manager(typename Made::options_type options, Clock time = Clock())
      : basic_jwks_manager(Made(std::move(options)), std::move(time)) {}
  ~basic_jwks_manager() { engine_.close(); }

  /// Starts the manager: checks @p config, fetches its URL (unless `prefetch` is false), then refreshes it in the
  /// background.
  ///
  /// A failed prefetch is success; on_event and health() tell it. While the manager runs it succeeds and changes
  /// nothing. Documents that were looked up before stay cached.
  ///
  /// Blocks: for the prefetch, at most `fetch_timeout`.
  /// Errors: invalid_config, invalid_url, unsupported_scheme, no_resources (no thread could be started): the manager
  ///         does not run. cancelled: @p stop ended the wait for the prefetch (the manager runs, unless the stop was
  ///         asked before the call). shut_down: shutdown() was called meanwhile.
  result<void> initialize(jwks_config config, stop_token stop = {}) {
    return detail::answer_of<result<void>>(engine_.get().ask({.what = detail::verb::initialize}, stop,
                                                             std::make_shared<const jwks_config>(std::move(config))));
  }

  /// Stops everything: waiting callers get `shut_down`, fetches in flight are stopped, threads joined, documents
  /// dropped.
  ///
  /// Idempotent. Afterwards lookups give `shut_down` until initialize().
  ///
  /// Blocks: until the threads have ended, within 100 ms if the fetcher returns within 50 ms of a stop and no
  ///         `on_event` is running.
  void shutdown() noexcept { shutdown_and_join(); }

  /// Returns the key set published at @p url, from the cache when it is younger than `cache_ttl`.
  ///
  /// A miss makes the caller wait for one fetch; callers that miss together share it. Past `cache_ttl`, within
  /// `outage_window`, one caller waits for the renewal and everybody else gets the stale document at once.
  ///
  /// Blocks:   only on a miss, at most `fetch_timeout`; ends at once when @p stop or shutdown() asks.
  /// Errors:   invalid_url, unsupported_scheme, cancelled, shut_down, no_resources, throttled, timed_out, and every
  ///           error of a fetch.
  /// Lifetime: the document lives as long as the returned pointer, also after it has been replaced.
  [[nodiscard]] result<jwks_ptr> get_jwks(std::string_view url, stop_token stop) const {
    return ask<result<jwks_ptr>>({.url = url}, stop);
  }
  [[nodiscard]] result<jwks_ptr> get_jwks(std::string_view url) const {
    const hot_engine core{engine_.get()};
    if (!url.empty()) {  // which stands for the configured URL in there
      if (const detail::hit_slot* const slot = detail::warm_hit(core, url)) return slot->give();
    }
    return missed<result<jwks_ptr>>({.url = url}, {});
  }
  /// The same for the URL of initialize(). Errors: also invalid_config, if there is none.
  [[nodiscard]] result<jwks_ptr> get_jwks(stop_token stop = {}) const { return ask<result<jwks_ptr>>({}, stop); }

  /// Returns the one key of the set at @p url that fits @p query.
  ///
  /// A kid that the set lacks is fetched again once, within the budget of `unknown_kid_burst`; a known kid never is.
  /// With the budget used up it is `key_not_found` if the provider was asked less than `unknown_kid_interval` ago, else
  /// `throttled`. With a `withdrawn_key_grace`, a key that left the set is still given for that long.
  ///
  /// Blocks:   as get_jwks(), and for an unknown kid until `unknown_kid_wait` after the fetch began.
  /// Errors:   as get_jwks(), and unsupported_algorithm, key_not_found, key_ambiguous, throttled.
  /// Lifetime: the key lives as long as the returned pointer, and with it the document that it was found in.
  [[nodiscard]] result<key_ptr> get_key(std::string_view url, const key_query& query, stop_token stop = {}) const {
    const hot_engine core{engine_.get()};
    if (!url.empty()) {
      if (const detail::hit_slot* const slot = detail::warm_hit(core, url)) {
        if (const jwk* const key = slot->give(query)) return key_ptr(slot->document, key);
      }
    }
    return missed<result<key_ptr>>({.what = detail::verb::key, .url = url, .query = query}, stop);
  }
  /// The same for the URL of initialize().
  [[nodiscard]] result<key_ptr> get_key(const key_query& query, stop_token stop = {}) const {
    return ask<result<key_ptr>>({.what = detail::verb::key, .query = query}, stop);
  }

  /// For a caller whose key of a known @p kid did not verify a signature: a provider may have put new material under an
  /// old kid. Fetches the set again, within the budget for unknown kids, unless that was done less than 30 s ago.
  ///
  /// Returns: true if that kid has another key now than 30 s ago: look it up and verify again. A kid that is new has
  ///          not changed. An empty one stands for the keys without a kid.
  /// Blocks:  as get_key() for an unknown kid. Errors: as get_jwks(), and throttled (the budget is used up).
  [[nodiscard]] result<bool> refresh_after_bad_signature(std::string_view url, std::string_view kid,
                                                         stop_token stop = {}) {
    return ask<result<bool>>({.what = detail::verb::bad_signature, .url = url, .query = {.kid = kid}}, stop);
  }
  /// The same for the URL of initialize().
  [[nodiscard]] result<bool> refresh_after_bad_signature(std::string_view kid, stop_token stop = {}) {
    return ask<result<bool>>({.what = detail::verb::bad_signature, .query = {.kid = kid}}, stop);
  }

  /// Fetches now, whatever the age of the document and the backoff, joining a fetch in progress.
  ///
  /// Blocks: until that fetch is over, at most `fetch_timeout`. Errors: as get_jwks(); the old document stays.
  result<void> refresh(std::string_view url, stop_token stop = {}) {
    return ask<result<void>>({.what = detail::verb::refresh, .url = url}, stop);
  }
  result<void> refresh(stop_token stop = {}) { return ask<result<void>>({.what = detail::verb::refresh}, stop); }

  /// Waits until the configured URL has a document that would be served; false if it has none when @p limit is over,
  /// and at once if there is no configured URL.
  ///
  /// Blocks: at most @p limit, by the manager's clock; ends at once on shutdown().
  [[nodiscard]] bool wait_ready(std::chrono::milliseconds limit) const {
    return ask<bool>({.what = detail::verb::ready, .limit = limit}, {});
  }

 private:
  template <class T>
  T ask(const detail::question& asked, const stop_token& stop) const {
    if (auto warm = detail::answer_warm<T>(hot_engine{engine_.get()}, asked)) return *std::move(warm);
    return missed<T>(asked, stop);
  }
  // As a hit sees it: with a clock that is known, and so inlined.
  struct hot_engine {
    detail::engine& core;
    [[nodiscard]] std::uint64_t id() const noexcept { return core.id(); }
    [[nodiscard]] AXIOMS_JWKS_HOT inline bool time_of_hit(detail::sparing_clock& spared, detail::steady_point until,
                                                          detail::steady_point& now) const noexcept {
      if constexpr (std::same_as<Clock, steady_clock>) {
        return core.time_of_hit(spared, until, now);
      } else {
        return core.template io<detail::io_of<false, Fetcher, Clock>>().now(now);
      }
    }
  };
  template <class T>
  AXIOMS_JWKS_COLD T missed(const detail::question& asked, const stop_token& stop) const {
    return detail::answer_of<T>(engine_.get().ask(asked, stop));
  }
};

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
using jwks_manager = basic_jwks_manager<>;
#endif

// ---- async manager ------------------------------------------------------------------------------

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

// A callback that takes what its verb ends with.
template <class Callback, class... T>
concept completes = std::invocable<Callback&, T...>;

template <class How>
[[nodiscard]] std::pair<executor_ref, stop_token> taken_apart(const How& how) noexcept {
  if constexpr (std::same_as<How, async_options>) {
    return {how.executor, how.stop.get()};
  } else {
    return {executor_ref(), how};
  }
}

// A waiter that goes on somewhere: on its executor, or where it is finished.
class async_waiter : public waiter {
 public:
  async_waiter(const question& asked, url_asked at, executor_ref executor)
      : waiter(asked, std::move(at)), executor_(executor) {}
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
    if (const auto still = who.lock()) keep->cancel(*still);
  }
};

// The frame of a coroutine that waits. It is resumed at most once, and never inside its own await_suspend(): a fetcher
// or a stop that completes at once would otherwise destroy the awaiter while it is still being set up.
class suspension {
 public:
  // Of await_suspend(), at its beginning and at its end: true if the frame is suspended now; it may be gone already,
  // then.
  void starts(std::coroutine_handle<> frame) noexcept { frame_ = frame; }
  [[nodiscard]] bool suspend() noexcept { return move(phase::starting, phase::suspended); }
  // Of the awaiter's destructor: true if nobody will resume the frame.
  [[nodiscard]] bool abandon() noexcept { return move(phase::suspended, phase::over); }
  // What is waited for is there: true if somebody has to resume the frame.
  [[nodiscard]] bool arrive() noexcept { return !move(phase::starting, phase::early); }
  void resume() noexcept {
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

class coroutine_waiter final : public async_waiter {
 public:
  using async_waiter::async_waiter;
  suspension frame;

 protected:
  bool arrive() noexcept override { return frame.arrive(); }
  void resume() noexcept override { frame.resume(); }
};

template <class T, class Callback>
class callback_waiter final : public async_waiter {
 public:
  callback_waiter(const question& asked, url_asked at, executor_ref executor, Callback&& callback)
      : async_waiter(asked, std::move(at), executor), callback_(std::move(callback)) {}
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
      mine(answer_of<T>(std::move(out)));
    }
  }
  Callback callback_;
  std::optional<stop_callback<canceller>> on_stop_;
};

// What the awaitables need of their manager.
struct async_shell {
  [[nodiscard]] engine& hot_core() const { return engines.get(); }
  [[nodiscard]] std::shared_ptr<engine> core() const { return engines.get().shared_from_this(); }
  engine_holder& engines;
  executor_ref default_executor{};
};

// Warm, then now: the answer if it needs no waiting, else what its waiter has to know.
template <class T>
[[nodiscard]] std::optional<T> answer_at_once(engine& core, const question& asked, url_asked& where) {
  if (auto warm = answer_warm<T>(core, asked)) return warm;
  where = url_asked_of(asked);
  if (auto now = core.answer_now(asked, where)) return answer_of<T>(*std::move(now));
  return std::nullopt;
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
    ~awaiter() {
      stop_.reset();
      if (who_ && who_->frame.abandon()) core_->abandon(*who_);
    }

    [[nodiscard]] bool await_ready() {
      detail::url_asked where = std::optional<detail::parsed_url>();
      if constexpr (!std::is_void_v<T>) {
        ready_ = detail::answer_at_once<T>(what_.shell_->hot_core(), what_.asked_, where);
        if (ready_) return true;
      }
      const executor_ref executor = what_.executor_ ? what_.executor_ : what_.shell_->default_executor;
      who_ = std::make_shared<detail::coroutine_waiter>(what_.asked_, std::move(where), executor);
      return false;
    }
    [[nodiscard]] AXIOMS_JWKS_SUSPENDS bool await_suspend(std::coroutine_handle<> frame) {
      core_ = what_.shell_->core();
      who_->frame.starts(frame);
      if (what_.token_.stop_possible()) stop_.emplace(what_.token_, detail::canceller{core_, who_});
      // From here on the frame may be resumed elsewhere, and *this be gone with it, when suspend() says so.
      const auto core = core_;
      const auto who = who_;
      core->submit(who, std::move(what_.config_));
      return who->frame.suspend();
    }
    T await_resume() {
      stop_.reset();
      if constexpr (!std::is_void_v<T>) return ready_ ? *std::move(ready_) : detail::answer_of<T>(std::move(who_->out));
    }

   private:
    async_operation what_;
    std::optional<std::conditional_t<std::is_void_v<T>, bool, T>> ready_;
    std::shared_ptr<detail::engine> core_;
    std::shared_ptr<detail::coroutine_waiter> who_;
    std::optional<stop_callback<detail::canceller>> stop_;
  };

  async_operation(const detail::async_shell& shell, const detail::question& asked, async_options options,
                  std::shared_ptr<const jwks_config> config = nullptr)
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
  detail::question asked_;
  executor_ref executor_;
  stop_token token_;
  std::shared_ptr<const jwks_config> config_;  // of initialize: it is larger than all the rest
};

/// Keeps the key sets of identity providers for event loops and coroutines: what basic_jwks_manager does, without
/// blocking anybody.
///
/// Every verb comes twice: as an awaitable (`co_await m.get_jwks(url, {.executor = e, .stop = t})`) and with a callback
/// (`m.async_get_jwks(url, callback, {.executor = e, .stop = t})`, or a stop_token alone for the last). With a blocking
/// fetcher it runs fetches on threads of its own; with an async_fetcher and a timer_source it lives on their event loop
/// alone and starts no thread. A hit neither suspends nor allocates, but for the post of a callback that has an
/// executor.
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
/// Lifetime: documents and keys outlive the manager. An executor must outlive the manager, or the call that it was
///           given to and its post() (see executor_ref); an awaitable that has not been awaited must not outlive the
///           manager.
template <class Fetcher AXIOMS_JWKS_DEFAULT_FETCHER, class Clock = steady_clock>
  requires((fetcher<Fetcher> && clock_source<Clock>) || (async_fetcher<Fetcher> && timer_source<Clock>))
class basic_async_jwks_manager : public jwks_manager_verbs {
  // A loop is preferred: who brings a timer_source wants no threads.
  using on_loop = std::bool_constant<async_fetcher<Fetcher> && timer_source<Clock>>;

 public:
  explicit basic_async_jwks_manager(Fetcher fetch = Fetcher(), Clock time = Clock())
      : jwks_manager_verbs(on_loop(), std::move(fetch), std::move(time)) {}
  /// As that of basic_jwks_manager.
  template <class Made = Fetcher>
    requires detail::made_from_options<Made>
  explicit basic_async_jwks_manager(typename Made::options_type options, Clock time = Clock())
      : basic_async_jwks_manager(Made(std::move(options)), std::move(time)) {}
  ~basic_async_jwks_manager() { engine_.close(); }

  /// Where continuations run that no executor was given for. Threads: set it before the first verb.
  void set_executor(executor_ref executor) noexcept { shell_.default_executor = executor; }

  /// As basic_jwks_manager::initialize(). Awaits the prefetch.
  ///
  /// Give the configuration a name: `co_await m.initialize({.jwks_url = url})` is miscompiled by g++ 12, which destroys
  /// an aggregate written in braces inside a co_await expression twice.
  [[nodiscard]] async_operation<result<void>> initialize(jwks_config config, async_options options = {}) {
    return {
        shell_, {.what = detail::verb::initialize}, options, std::make_shared<const jwks_config>(std::move(config))};
  }
  template <detail::completes<result<void>> Callback, async_how How = async_options>
  void async_initialize(jwks_config config, Callback callback, How how = {}) {
    call<result<void>>({.what = detail::verb::initialize}, std::move(callback), how,
                       std::make_shared<const jwks_config>(std::move(config)));
  }

  /// As basic_jwks_manager::shutdown(). Completes when the threads of this life have ended; with
  /// an async_fetcher, when its fetches were told to stop.
  [[nodiscard]] async_operation<void> shutdown(async_options options = {}) {
    options.stop = stop_ref();  // it is not to be cancelled
    return {shell_, {.what = detail::verb::shutdown}, options};
  }
  template <detail::completes Callback, async_how How = async_options>
  void async_shutdown(Callback callback, How how = {}) {
    const executor_ref executor = detail::taken_apart(how).first;
    call<void>({.what = detail::verb::shutdown}, std::move(callback), async_options{.executor = executor});
  }

  /// As basic_jwks_manager::get_jwks().
  [[nodiscard]] async_operation<result<jwks_ptr>> get_jwks(std::string_view url, async_options options = {}) const {
    return {shell_, {.url = url}, options};
  }
  [[nodiscard]] async_operation<result<jwks_ptr>> get_jwks(async_options options = {}) const {
    return {shell_, {}, options};
  }
  template <detail::completes<result<jwks_ptr>> Callback, async_how How = async_options>
  void async_get_jwks(std::string_view url, Callback callback, How how = {}) const {
    call<result<jwks_ptr>>({.url = url}, std::move(callback), how);
  }
  template <detail::completes<result<jwks_ptr>> Callback, async_how How = async_options>
  void async_get_jwks(Callback callback, How how = {}) const {
    call<result<jwks_ptr>>({}, std::move(callback), how);
  }

  /// As basic_jwks_manager::get_key().
  [[nodiscard]] async_operation<result<key_ptr>> get_key(std::string_view url, const key_query& query,
                                                         async_options options = {}) const {
    return {shell_, {.what = detail::verb::key, .url = url, .query = query}, options};
  }
  [[nodiscard]] async_operation<result<key_ptr>> get_key(const key_query& query, async_options options = {}) const {
    return {shell_, {.what = detail::verb::key, .query = query}, options};
  }
  template <detail::completes<result<key_ptr>> Callback, async_how How = async_options>
  void async_get_key(std::string_view url, const key_query& query, Callback callback, How how = {}) const {
    call<result<key_ptr>>({.what = detail::verb::key, .url = url, .query = query}, std::move(callback), how);
  }
  template <detail::completes<result<key_ptr>> Callback, async_how How = async_options>
  void async_get_key(const key_query& query, Callback callback, How how = {}) const {
    call<result<key_ptr>>({.what = detail::verb::key, .query = query}, std::move(callback), how);
  }

  /// As basic_jwks_manager::refresh_after_bad_signature().
  [[nodiscard]] async_operation<result<bool>> refresh_after_bad_signature(std::string_view url, std::string_view kid,
                                                                          async_options options = {}) {
    return {shell_, {.what = detail::verb::bad_signature, .url = url, .query = {.kid = kid}}, options};
  }
  [[nodiscard]] async_operation<result<bool>> refresh_after_bad_signature(std::string_view kid,
                                                                          async_options options = {}) {
    return {shell_, {.what = detail::verb::bad_signature, .query = {.kid = kid}}, options};
  }
  template <detail::completes<result<bool>> Callback, async_how How = async_options>
  void async_refresh_after_bad_signature(std::string_view url, std::string_view kid, Callback callback, How how = {}) {
    call<result<bool>>({.what = detail::verb::bad_signature, .url = url, .query = {.kid = kid}}, std::move(callback),
                       how);
  }
  template <detail::completes<result<bool>> Callback, async_how How = async_options>
  void async_refresh_after_bad_signature(std::string_view kid, Callback callback, How how = {}) {
    call<result<bool>>({.what = detail::verb::bad_signature, .query = {.kid = kid}}, std::move(callback), how);
  }

  /// As basic_jwks_manager::refresh().
  [[nodiscard]] async_operation<result<void>> refresh(std::string_view url, async_options options = {}) {
    return {shell_, {.what = detail::verb::refresh, .url = url}, options};
  }
  [[nodiscard]] async_operation<result<void>> refresh(async_options options = {}) {
    return {shell_, {.what = detail::verb::refresh}, options};
  }
  template <detail::completes<result<void>> Callback, async_how How = async_options>
  void async_refresh(std::string_view url, Callback callback, How how = {}) {
    call<result<void>>({.what = detail::verb::refresh, .url = url}, std::move(callback), how);
  }
  template <detail::completes<result<void>> Callback, async_how How = async_options>
  void async_refresh(Callback callback, How how = {}) {
    call<result<void>>({.what = detail::verb::refresh}, std::move(callback), how);
  }

  /// As basic_jwks_manager::wait_ready().
  [[nodiscard]] async_operation<bool> wait_ready(std::chrono::milliseconds limit, async_options options = {}) const {
    return {shell_, {.what = detail::verb::ready, .limit = limit}, options};
  }
  template <detail::completes<bool> Callback, async_how How = async_options>
  void async_wait_ready(std::chrono::milliseconds limit, Callback callback, How how = {}) const {
    call<bool>({.what = detail::verb::ready, .limit = limit}, std::move(callback), how);
  }

 private:
  friend struct detail::manager_access;

  template <class T, class Callback, class How>
  void call(const detail::question& asked, Callback&& callback, const How& how,
            std::shared_ptr<const jwks_config> config = nullptr) const {
    const auto [wished, stop] = detail::taken_apart(how);
    const executor_ref executor = wished ? wished : shell_.default_executor;
    detail::url_asked where = std::optional<detail::parsed_url>();
    if (executor) {
      where = detail::url_asked_of(asked);
    } else if constexpr (!std::is_void_v<T>) {
      // Before a reference to the engine is taken, whose count threads fight over; and without a waiter to allocate.
      if (auto ready = detail::answer_at_once<T>(engine_.get(), asked, where))
        return static_cast<void>(callback(*std::move(ready)));
    }
    const auto core = engine_.get().shared_from_this();
    const auto who = std::make_shared<detail::callback_waiter<T, Callback>>(asked, std::move(where), executor,
                                                                            std::forward<Callback>(callback));
    who->arm(stop, core);
    core->submit(who, std::move(config));
  }

  detail::async_shell shell_{engine_};
};

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
using async_jwks_manager = basic_async_jwks_manager<>;
#endif

// ---- tokens -------------------------------------------------------------------------------------

/// What a token must be to be accepted. A verifier keeps a copy; nothing changes it then.
///
/// Claims are named as in verified_token::operator[]: `/realm_access/roles` is a path (RFC 6901).
struct token_rules {
  /// `iss`, byte for byte: no slash is added or dropped (RFC 7519 sections 4.1.1 and 7.3). Required, but with
  /// `trust_domain`.
  std::string issuer{};
  /// The names of this service: `aud` must hold one of them (RFC 7519 section 4.1.3). Required, but with
  /// `any_audience`.
  std::vector<std::string> audience{};
  /// Whose keys: a URL that the manager knows; with discovery what `resolved_url()` says. Empty: the manager's
  /// configured one, which is legal with one issuer only.
  std::string jwks_url{};
  /// Algorithms that are accepted (RFC 8725 section 3.1). Empty: all asymmetric ones; each goes with its kind of key
  /// only.
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
  /// In place of `issuer`, for SPIFFE JWT-SVIDs: `iss` is not needed, `sub` must begin with `spiffe://<trust_domain>/`,
  /// and `typ` may also be JOSE.
  std::string trust_domain{};
  /// Takes tokens with `cnf` (DPoP, mTLS); whoever sets it compares `token["/cnf/jkt"]` with the proof. Default false.
  bool accept_bound = false;
  /// Where scopes, roles and permissions stand: the first claim that is there.
  std::vector<std::string> scope_claims{"scope", "scp"}, role_claims{"roles"}, permission_claims{"permissions"};
  /// A string among roles and permissions is a list with blanks between, as in the Python original. Default: one name.
  bool split_roles = false;
  /// The longest token. 64 bytes to 1 MiB. Default 16 KiB.
  std::size_t max_token_bytes = 16384;
  /// How many verified tokens are remembered, beside 16 by each thread: with the same text, byte for byte, one is good
  /// again without its signature, as long as the key set that verified it is the one to be had, and its dates allow.
  /// Takes about 4 KiB a token. 0: none. 0 to 1 Mi. Default 0.
  std::size_t memo = 0;

  /// Reads AXIOMS_ISS_URL, else AXIOMS_DOMAIN (https:// is put before it), AXIOMS_AUDIENCE, AXIOMS_TOKEN_TYPS,
  /// AXIOMS_SCOPE_CLAIMS, AXIOMS_ROLES_CLAIMS and AXIOMS_PERMISSIONS_CLAIMS; lists have commas or blanks between. A
  /// variable that is unset or empty leaves its default. The rest is validate()'s.
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

struct token_core;
class token_check;

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
  double expires = 0;           // exp
  double begins = 0, ends = 0;  // when it is good: from the later of nbf and iat to exp, with the leeway
  const json_node *scopes = nullptr, *roles = nullptr, *permissions = nullptr;
  bool split_roles = false;
};

[[nodiscard]] bool grants(const json_node* where, bool split, std::string_view name) noexcept;

}  // namespace detail

/// A token that was accepted. A handle: copies share the content.
///
/// Threads: callable from any number at once. Lifetime: outlives the verifier and the manager.
class verified_token {
 public:
  [[nodiscard]] std::string_view issuer() const noexcept { return claims()["iss"].string(); }   ///< `iss`; empty: none
  [[nodiscard]] std::string_view subject() const noexcept { return claims()["sub"].string(); }  ///< `sub`
  [[nodiscard]] std::string_view id() const noexcept { return claims()["jti"].string(); }       ///< `jti`
  /// `client_id`, else `azp`, else `cid`, else `appid`.
  [[nodiscard]] std::string_view client_id() const noexcept;
  /// `exp`, at most what the clock's type can hold.
  [[nodiscard]] std::chrono::system_clock::time_point expires_at() const noexcept;
  /// A claim by its name; a name with a leading / is a path (RFC 6901): "/realm_access/roles".
  [[nodiscard]] claim_view operator[](std::string_view name) const;
  [[nodiscard]] claim_view claims() const noexcept { return claim_view(&content_->claims.root()); }
  [[nodiscard]] claim_view header() const noexcept { return claim_view(&content_->header->tree.root()); }
  [[nodiscard]] std::string_view payload() const noexcept { return content_->payload; }  ///< the JSON as it was signed
  [[nodiscard]] std::string_view token() const noexcept { return content_->text; }  ///< the compact text: a credential
  /// What verified it: the key set's own handle, which keeps no document alive.
  [[nodiscard]] const key_ptr& key() const noexcept { return content_->key; }

  /// Whether the name is among the scopes, roles or permissions. A string of scopes is a list with blanks between, an
  /// array a list of names; nothing else grants anything.
  [[nodiscard]] bool has_scope(std::string_view name) const noexcept {
    return detail::grants(content_->scopes, true, name);
  }
  [[nodiscard]] bool has_role(std::string_view name) const noexcept {
    return detail::grants(content_->roles, content_->split_roles, name);
  }
  [[nodiscard]] bool has_permission(std::string_view name) const noexcept {
    return detail::grants(content_->permissions, content_->split_roles, name);
  }
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
/// Errors:   token_missing (no header, or another scheme), malformed_token.
/// Lifetime: that of the header's text. Of a temporary string it is a copy: servers return headers by value.
[[nodiscard]] result<std::string_view> bearer_token(std::string_view authorization AXIOMS_JWKS_LIFETIMEBOUND);
template <std::same_as<std::string> String>
[[nodiscard]] result<std::string> bearer_token(String&& authorization) {
  return bearer_token(std::string_view(authorization)).transform([](auto token) { return std::string(token); });
}

/// Verifies a token with the keys at hand: no manager, no fetch. What the verifiers do, as a function.
///
/// Errors: as basic_token_verifier::verify(), but for those of a fetch.
[[nodiscard]] result<verified_token> verify_token(std::string_view token, const jwk_set& keys, const token_rules& rules,
                                                  std::chrono::system_clock::time_point now);

/// The payload of any compact JWS (a logout token, a DPoP proof, signed metadata) whose signature is good. Looks at no
/// claim.
///
/// Errors: token_missing, malformed_token, unsupported_algorithm, key_not_found, key_ambiguous, bad_signature,
///         no_resources.
[[nodiscard]] result<std::string> verify_signature(std::string_view jws, const jwk_set& keys);

namespace detail {

template <class Fetcher, class Clock>
std::true_type blocks(const basic_jwks_manager<Fetcher, Clock>&);
template <class Fetcher, class Clock>
std::false_type blocks(const basic_async_jwks_manager<Fetcher, Clock>&);
template <class Manager>
concept blocking_keys = decltype(blocks(std::declval<const Manager&>()))::value;
template <class Manager>
concept async_keys = !decltype(blocks(std::declval<const Manager&>()))::value;

[[nodiscard]] std::shared_ptr<const token_core> compile_rules(std::vector<token_rules> rules, bool with_memo = true);
// With the keys at hand: no manager.
[[nodiscard]] result<verified_token> verify_alone(const std::shared_ptr<const token_core>& rules,
                                                  std::string_view token, const jwk_set& keys,
                                                  std::chrono::system_clock::time_point now);
// What comes of it, if nothing has to be waited for.
[[nodiscard]] std::optional<result<verified_token>> verify_at_once(engine& core,
                                                                   const std::shared_ptr<const token_core>& rules,
                                                                   std::string_view token);
[[nodiscard]] result<verified_token> verify_waiting(engine& core, const std::shared_ptr<const token_core>& rules,
                                                    std::string_view token, const stop_token& stop);

// A verification that waits, one request of the engine after the other.
class token_task : public std::enable_shared_from_this<token_task> {
 public:
  token_task(std::shared_ptr<engine> core, std::shared_ptr<const token_core> rules, std::string_view token,
             executor_ref where);
  virtual ~token_task() = default;
  token_task(const token_task&) = delete;
  token_task& operator=(const token_task&) = delete;

  // complete() is called once: in here if there is nothing to wait for and no executor, else later.
  void start(const stop_token& stop);
  void cancel() noexcept { cancelled_.request_stop(); }
  void take(outcome&& came) noexcept;

 protected:
  virtual void complete() noexcept = 0;
  [[nodiscard]] result<verified_token> take_result();

 private:
  // Whether it waits now.
  bool go_on() noexcept;

  std::shared_ptr<engine> core_;
  std::shared_ptr<token_check> check_;
  executor_ref where_;
  stop_source cancelled_;
  std::shared_ptr<void> on_stop_;     // a stop_callback
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

class coroutine_token_task final : public token_task {
 public:
  using token_task::take_result;
  using token_task::token_task;
  suspension frame;

 private:
  void complete() noexcept override {
    if (frame.arrive()) frame.resume();
  }
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
    if (task_ && task_->frame.abandon()) task_->cancel();
  }
  [[nodiscard]] bool await_ready() {
    ready_ = detail::verify_at_once(what_.shell_->hot_core(), what_.rules_, what_.token_);
    return ready_.has_value();
  }
  [[nodiscard]] AXIOMS_JWKS_SUSPENDS bool await_suspend(std::coroutine_handle<> frame);
  result<verified_token> await_resume() { return ready_ ? *std::move(ready_) : task_->take_result(); }

 private:
  token_operation what_;
  std::optional<result<verified_token>> ready_;
  std::shared_ptr<detail::coroutine_token_task> task_;
};

inline token_operation::awaiter token_operation::operator co_await() noexcept { return awaiter(std::move(*this)); }

/// Verifies JWT access tokens (RFC 7519, RFC 9068, RFC 8725) with the keys of a manager.
///
/// A token is accepted if its signature, issuer, audience and times are good and the rules are kept. An unknown kid is
/// looked for once, within the manager's budget, and only for a token that would be accepted but for its signature; so
/// expired, foreign and malformed tokens cause no request. After a wrong signature of a known kid the key set is
/// fetched again, within the same budget.
///
/// Threads:  verify() is callable from any number at once.
/// Errors:   malformed_token, unsupported_algorithm, bad_signature, token_expired, token_not_yet_valid,
///           issuer_mismatch, audience_mismatch, token_type_mismatch, claim_missing, token_missing, key_not_found,
///           key_ambiguous: the token is refused (401). invalid_config: the rules are broken (500). Everything else:
///           the keys are not to be had (503). A token with several faults gets the code of any of them.
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
    return detail::verify_waiting(detail::manager_access::core(keys_), rules_, token, stop);
  }

  /// Ready without suspending when the keys are at hand. @p token must live until the `co_await` has suspended.
  [[nodiscard]] token_operation verify(std::string_view token,
                                       async_options options = {}) const requires detail::async_keys<Manager> {
    return {detail::manager_access::shell(keys_), rules_, token, options};
  }
  /// The same with a callback: inline when the keys are at hand and there is no executor.
  template <class Callback, async_how How = async_options>
    requires std::invocable<Callback&, result<verified_token>> && detail::async_keys<Manager>
  void async_verify(std::string_view token, Callback callback, How how = {}) const {
    const detail::async_shell& shell = detail::manager_access::shell(keys_);
    const auto [wished, stop] = detail::taken_apart(how);
    const executor_ref where = wished ? wished : shell.default_executor;
    if (!where) {
      if (auto ready = detail::verify_at_once(shell.hot_core(), rules_, token))
        return static_cast<void>(callback(*std::move(ready)));
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

// ---- process-wide managers ----------------------------------------------------------------------

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

/// The one blocking manager of this process. Made at the first use, shut down at process exit, never destroyed.
[[nodiscard]] jwks_manager& default_jwks_manager();
/// The one async manager of this process, as above.
[[nodiscard]] async_jwks_manager& default_async_jwks_manager();

namespace detail {
[[nodiscard]] jwks_config short_config(std::string_view jwks_url, seconds refresh_interval, seconds cache_ttl,
                                       bool prefetch);
}

/// default_jwks_manager().initialize(); the options take effect unless that manager runs already.
///
/// Blocks and Errors: as basic_jwks_manager::initialize().
result<void> initialize_jwks_manager(jwks_config config, httplib_options options = {});
/// The short form, for a URL and the three options that are set most. A template, so that braces always mean a
/// jwks_config: g++ 12 calls `{.jwks_url = url}` ambiguous otherwise.
template <std::convertible_to<std::string_view> Url>
result<void> initialize_jwks_manager(const Url& jwks_url,
                                     std::chrono::seconds refresh_interval = std::chrono::seconds(3600),
                                     std::chrono::seconds cache_ttl = std::chrono::seconds(7200),
                                     bool prefetch = true) {
  return initialize_jwks_manager(detail::short_config(jwks_url, refresh_interval, cache_ttl, prefetch));
}
/// default_jwks_manager().shutdown().
void shutdown_jwks_manager() noexcept;

/// The awaitable twins, on default_async_jwks_manager().
[[nodiscard]] async_operation<result<void>> initialize_async_jwks_manager(jwks_config config,
                                                                          httplib_options options = {});
template <std::convertible_to<std::string_view> Url>
[[nodiscard]] async_operation<result<void>> initialize_async_jwks_manager(
    const Url& jwks_url, std::chrono::seconds refresh_interval = std::chrono::seconds(3600),
    std::chrono::seconds cache_ttl = std::chrono::seconds(7200), bool prefetch = true) {
  return initialize_async_jwks_manager(detail::short_config(jwks_url, refresh_interval, cache_ttl, prefetch));
}
[[nodiscard]] async_operation<void> shutdown_async_jwks_manager();

#endif

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

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
#if defined(_WIN32)
#error \
    "axioms_jwks.hpp: the default fetcher is written for POSIX sockets; on Windows define AXIOMS_JWKS_NO_HTTPLIB and pass the managers your own fetcher."
#endif
#include <arpa/inet.h>
#include <fcntl.h>
#include <httplib.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#endif

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>
#include <random>
#include <set>
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
  const int days = number(day);  // at most 31, for std::chrono::day keeps eight bits
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 || years < 0 || days < 1 ||
      days > 31)
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
                    std::chrono::day(static_cast<unsigned>(days));
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
  // splitmix64 over a counter: no lock, and a forked child goes its own way with the next seed. Nor a guard round the
  // first value, which a child would find taken for ever.
  static constinit std::atomic<std::uint64_t> state{0};
  if (std::uint64_t none = 0; state.load(std::memory_order_relaxed) == none) {
    auto seed = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    AXIOMS_JWKS_TRY {
      std::random_device device;
      seed ^= (static_cast<std::uint64_t>(device()) << 32U) ^ device();
    }
    AXIOMS_JWKS_CATCH_ALL {}  // no entropy source: the time has to do, jitter is no secret
    state.compare_exchange_strong(none, seed | 1U, std::memory_order_relaxed);
  }
  std::uint64_t z =
      state.fetch_add(0x9e3779b97f4a7c15U, std::memory_order_relaxed) + fork_epoch() * 0xd1342543de82ef95U;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

// A variable that is unset is as good as an empty one.
AXIOMS_JWKS_INLINE std::string_view environment(const char* variable) noexcept {
  const char* value = std::getenv(variable);
  return value != nullptr ? value : "";
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

AXIOMS_JWKS_INLINE std::string to_string(const jwks_event& event) {
  constexpr std::size_t most = 8;
  std::string out = detail::concat(to_string(event.kind), ' ', detail::quote(event.url, 256));
  if (!event.key_set_url.empty() && event.key_set_url != event.url)
    out += detail::concat(", from ", detail::quote(event.key_set_url, 256));
  if (event.status != 0) out += detail::concat(", status ", event.status);
  if (event.duration.count() > 0) out += detail::concat(", ", event.duration.count(), " ms");
  for (const auto& [name, kids] :
       {std::pair("added", &event.added), std::pair("removed", &event.removed), std::pair("changed", &event.changed)}) {
    for (std::size_t i = 0; i < kids->size() && i < most; ++i)
      out += detail::concat(i == 0 ? ", " : " ", i == 0 ? name : "", i == 0 ? " " : "", detail::quote((*kids)[i]));
    if (kids->size() > most) out += detail::concat(" and ", kids->size() - most, " more");
  }
  if (!event.error) return out;
  out += detail::concat(": ", to_string(event.error->code), ": ");
  // Our own texts are escaped already; a fetcher's may hold anything.
  for (const char c : std::string_view(event.error->description).substr(0, 1024)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return out;
}

AXIOMS_JWKS_INLINE result<jwks_config> jwks_config::from_environment() {
  using detail::environment;
  jwks_config config;
  config.jwks_url = environment("AXIOMS_JWKS_URL");
  config.issuer = environment("AXIOMS_ISS_URL");
  config.domain = environment("AXIOMS_DOMAIN");
  for (const auto& [variable, option] : {std::pair("AXIOMS_JWKS_REFRESH_INTERVAL", &jwks_config::refresh_interval),
                                         std::pair("AXIOMS_JWKS_CACHE_TTL", &jwks_config::cache_ttl)}) {
    if (const std::string_view text = environment(variable); !text.empty()) {
      const auto value = detail::integer_from(variable, text);
      if (!value) return value.error();
      config.*option = std::chrono::seconds(*value);
    }
  }
  if (const std::string_view text = environment("AXIOMS_JWKS_PREFETCH"); !text.empty()) {
    const auto value = detail::boolean_from("AXIOMS_JWKS_PREFETCH", text);
    if (!value) return value.error();
    config.prefetch = *value;
  }
  return config;
}

namespace detail {

// Where an issuer's key set is unless the configuration says something else. Most have theirs elsewhere.
inline constexpr std::string_view default_jwks_path = "/.well-known/jwks.json";

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
  if (discovery && !metadata_url.empty()) return detail::checked_url(metadata_url);
  return detail::checked_url(
      detail::concat(*base, discovery ? "/.well-known/openid-configuration" : detail::default_jwks_path));
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
  rule(discovery || metadata_url.empty(), "metadata_url", "set", "", "empty without discovery");
  if (broken) return *broken;

  const auto url = resolved_url();
  if (!url) return url.error();
  if (require_https && !detail::parse_url(*url)->https) return detail::insecure_url_error(*url);
  return {};
}

namespace detail {

// -- json --

using json = nlohmann::json;

// A text as nlohmann's parser gets it: it finds the strings empty that are plain ASCII without an escape, for it takes
// 60 instructions for each of their bytes. The reader takes them from here.
class json_source {
 public:
  explicit json_source(std::string_view text) noexcept : at_(text.data()), end_(at_ + text.size()) {}

  struct iterator {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    json_source* of;
    const char& operator*() const noexcept { return *of->at_; }
    iterator& operator++() noexcept { return of->step(), *this; }
    bool operator==(const iterator& end) const noexcept { return of == end.of || of->at_ == of->end_; }
  };
  // The string that ended last, if it was found empty; else empty.
  [[nodiscard]] std::string_view plain() const noexcept { return plain_; }
  [[nodiscard]] std::size_t left_out() const noexcept { return left_out_; }

 private:
  void step() noexcept {
    const char c = *at_++;
    if (inside_) {
      inside_ = c != '"' || escaped_;
      escaped_ = c == '\\' && !escaped_;
    } else if (c == '"') {
      inside_ = true;
      const char* last = at_;
      while (last != end_ && *last >= ' ' && *last <= '~' && *last != '"' && *last != '\\') ++last;
      plain_ = last != end_ && *last == '"' ? std::string_view(at_, last) : std::string_view();
      at_ += plain_.size();
      left_out_ += plain_.size();
    }
  }

  const char *at_, *end_;
  bool inside_ = false, escaped_ = false;  // of a string
  std::string_view plain_{};
  std::size_t left_out_ = 0;
};

// nlohmann's parser calls these for what it meets; false ends it.
class json_reader {
 public:
  json_reader(std::string_view text, const json_rules& rules) : source_(text), rules_(rules) {
    tree.nodes.reserve(std::min(text.size() / 16 + 4, rules.values));
    tree.texts = std::make_unique_for_overwrite<char[]>(text.size());  // without its escapes no text is longer
    free_ = tree.texts.get();
  }
  bool read() { return json::sax_parse(json_source::iterator{&source_}, json_source::iterator{nullptr}, this); }
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
    const std::string_view text = whole(value);
    return add({.type = json_node::kind::string, .count = static_cast<std::uint32_t>(text.size()), .text = text});
  }
  bool binary(const json::binary_t&) { return false; }
  bool key(const std::string& name) { return name_ = keep(whole(name)), true; }
  bool start_object(std::size_t) { return open(json_node::kind::object); }
  bool start_array(std::size_t) { return open(json_node::kind::array); }
  bool end_object() { return look_for_repeated_names(close()), true; }
  bool end_array() { return close(), true; }
  // The texts that come with it quote what they are about. True would not mean that it goes on.
  bool parse_error(std::size_t at, const std::string&, const json::exception&) {
    return refuse("is no JSON from byte ", at + source_.left_out(), " on");
  }

  json_tree tree{};
  std::string fault{};

 private:
  [[nodiscard]] std::string_view whole(const std::string& found) const noexcept {
    return source_.plain().empty() ? std::string_view(found) : source_.plain();
  }
  std::string_view keep(std::string_view text) {
    char* const begin = std::exchange(free_, std::copy(text.begin(), text.end(), free_));
    return {begin, text.size()};
  }
  [[nodiscard]] bool keeps(const json_node& node) const {
    return unkept_at_ == 0 && std::find(rules_.unkept.begin(), rules_.unkept.end(), node.name) == rules_.unkept.end();
  }
  bool add(json_node node) {
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
  bool open(json_node::kind type) {
    if (++depth_ > rules_.depth) return refuse("is nested deeper than ", rules_.depth, " levels");
    if (!add({.type = type})) return false;
    if (unkept_at_ == 0 && !keeps(tree.nodes.back())) unkept_at_ = depth_;
    tree.nodes.back().span = std::exchange(open_, static_cast<std::uint32_t>(tree.nodes.size() - 1));
    return true;
  }
  json_node& close() {
    json_node& node = tree.nodes[open_];
    open_ = std::exchange(node.span, static_cast<std::uint32_t>(tree.nodes.size()) - open_);
    if (unkept_at_ == depth_) unkept_at_ = 0;
    --depth_;
    return node;
  }
  void look_for_repeated_names(json_node& object) {
    names_.clear();
    names_.reserve(object.count);
    for (const json_node& each : object) names_.push_back(each.name);
    // Most names differ in length, which is compared sooner than bytes.
    std::sort(names_.begin(), names_.end(), [](std::string_view a, std::string_view b) {
      return a.size() != b.size() ? a.size() < b.size() : a < b;
    });
    object.twice = std::adjacent_find(names_.begin(), names_.end()) != names_.end();
  }
  bool refuse(const auto&... why) { return fault = concat(why...), false; }

  json_source source_;
  const json_rules& rules_;
  char* free_ = nullptr;     // where the next text goes
  std::string_view name_{};  // of the next value
  std::size_t depth_ = 0;
  std::size_t unkept_at_ = 0;  // the depth of the container that loses its texts, 0: none
  std::uint32_t open_ = 0;     // the innermost container; while it is open its span is the index of the one round it
  std::vector<std::string_view> names_{};
};

AXIOMS_JWKS_INLINE result<json_tree> json_tree::read(std::string_view text, const json_rules& rules) {
  if (text.size() > rules.bytes) return make_error(rules.code, "is over the limit of ", rules.bytes, " bytes");
  // nlohmann takes a zero byte for the end of the text.
  if (const auto zero = text.find('\0'); zero != text.npos)
    return make_error(rules.code, "is no JSON from byte ", zero + 1, " on, a zero byte");
  json_reader reader(text, rules);
  if (!reader.read()) return axioms::error{rules.code, std::move(reader.fault)};
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

template <auto Free, bool gated = false>
struct openssl_free {
  template <class T>
  void operator()(T* object) const noexcept {
    [[maybe_unused]] const std::conditional_t<gated, fork_gate, char> inside{};
    Free(object);
  }
};

// The kinds of key beside RSA.
struct key_info {
  std::string_view kty;
  std::string_view name;  // crv, or alg of AKP, and what OpenSSL calls it; a literal, which ends with a zero byte
  std::size_t bytes;      // of a coordinate, or of the public key
};
inline constexpr std::string_view opt_in_curve = "secp256k1";  // needs jwk_options::allow_es256k
// clang-format off
inline constexpr std::array known_keys{
    key_info{"EC", "P-256", 32},
    key_info{"EC", "P-384", 48},
    key_info{"EC", "P-521", 66},
    key_info{"EC", opt_in_curve, 32},
    key_info{"OKP", "Ed25519", 32},
    key_info{"OKP", "Ed448", 57},
    key_info{"AKP", "ML-DSA-44", 1312},  // FIPS 204 table 2, RFC 9964
    key_info{"AKP", "ML-DSA-65", 1952},
    key_info{"AKP", "ML-DSA-87", 2592},
};
// clang-format on

// A bit for each kind of key: what select() compares, for every key, in place of names.
inline constexpr key_kinds rsa_kind = 1;
constexpr key_kinds kind_of(std::size_t index) noexcept { return static_cast<key_kinds>(2U << index); }

// Which kinds an algorithm goes with (RFC 7518 section 3.1, RFC 8812, RFC 9864), and how it signs.
struct alg_info {
  std::string_view alg;
  key_kinds kinds;
  int digest = -1;  // SHA-256, SHA-384 or SHA-512; -1: the message itself is signed
  bool pss = false;
};
// clang-format off
inline constexpr std::array algs{
    alg_info{"RS256", rsa_kind, 0}, alg_info{"RS384", rsa_kind, 1}, alg_info{"RS512", rsa_kind, 2},
    alg_info{"PS256", rsa_kind, 0, true}, alg_info{"PS384", rsa_kind, 1, true}, alg_info{"PS512", rsa_kind, 2, true},
    alg_info{"ES256", kind_of(0), 0}, alg_info{"ES384", kind_of(1), 1}, alg_info{"ES512", kind_of(2), 2},
    alg_info{"ES256K", kind_of(3), 0}, alg_info{"Ed25519", kind_of(4)}, alg_info{"Ed448", kind_of(5)},
    alg_info{"EdDSA", kind_of(4) | kind_of(5)},
    alg_info{"ML-DSA-44", kind_of(6)}, alg_info{"ML-DSA-65", kind_of(7)}, alg_info{"ML-DSA-87", kind_of(8)},
};
// clang-format on

// No unknown algorithm goes with any kind.
inline constexpr alg_info unknown_alg{{}, 0};
constexpr const alg_info& alg_of(std::string_view alg) noexcept {
  for (const auto& known : algs) {
    if (same_name(alg, known.alg)) return known;
  }
  return unknown_alg;
}
constexpr key_kinds kinds_of_alg(std::string_view alg) noexcept { return alg_of(alg).kinds; }
inline constexpr key_kinds opt_in_kind = kinds_of_alg("ES256K");  // needs jwk_options::allow_es256k

// Whether the providers that are loaded know the key type: ML-DSA came with OpenSSL 3.5.
AXIOMS_JWKS_INLINE bool openssl_knows(const char* type) noexcept {
  const openssl_errors scope;
  EVP_KEYMGMT* found = EVP_KEYMGMT_fetch(nullptr, type, nullptr);
  EVP_KEYMGMT_free(found);
  return found != nullptr;
}

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
  const auto put = [&](std::uint32_t bits, std::uint32_t digits, std::size_t bytes) {
    faults |= digits;
    for (std::size_t i = 0; i < bytes; ++i) *to++ = static_cast<char>((bits >> (16 - 8 * i)) & 0xffU);
  };
  for (std::size_t i = 0; i < whole; i += 4)
    put(value(i) << 18U | value(i + 1) << 12U | value(i + 2) << 6U | value(i + 3),
        value(i) | value(i + 1) | value(i + 2) | value(i + 3), 3);
  if (left > 0) {
    std::uint32_t bits = 0, digits = 0;
    for (std::size_t i = 0; i < left; ++i) {
      digits |= value(whole + i);
      bits |= (value(whole + i) & 0x3fU) << (18 - 6 * i);
    }
    if (!any_spare_bits && (bits & (left == 2 ? 0xffffU : 0xffU)) != 0) return std::nullopt;
    put(bits, digits, left - 1);
  }
  return (faults & 0xff000000U) == 0 ? std::optional(std::move(out)) : std::nullopt;
}

// Key material as providers publish it: RFC 4648 section 5, but also in the alphabet of section 4, padded, or with line
// breaks.
AXIOMS_JWKS_INLINE std::optional<std::string> key_bytes(std::string_view text) {
  std::string digits;
  digits.reserve(text.size());
  for (const char c : text) {
    if (c != '\r' && c != '\n') digits += c == '+' ? '-' : c == '/' ? '_' : c;
  }
  digits.erase(digits.find_last_not_of('=') + 1);
  return digits.empty() ? std::nullopt : base64url_decode(digits, true);
}

AXIOMS_JWKS_INLINE std::string base64_encode(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), reinterpret_cast<const unsigned char*>(bytes.data()),
                  static_cast<int>(bytes.size()));
  out.pop_back();  // the zero byte behind it
  return out;
}

AXIOMS_JWKS_INLINE std::string base64url_encode(std::string_view bytes) {
  std::string out = base64_encode(bytes);
  out.erase(out.find_last_not_of('=') + 1);
  for (char& c : out) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return out;
}

inline void trim_zeros(std::string& number) {
  number.erase(0, std::min(number.find_first_not_of('\0'), number.size()));
}

inline constexpr std::size_t max_set_members = 1024;
inline constexpr std::size_t max_key_ops = 32;

// Members that hold private or symmetric key material (RFC 7518 sections 6.2.2, 6.3.2 and 6.4, RFC 8037, RFC 9964), and
// the certificates, which are most of what a provider sends. Nobody reads what they hold.
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
  static jwk_options options_of(const jwk_set& set) noexcept { return {.allow_es256k = set.allow_es256k_}; }
  // The algorithm goes with the kind of key and with the key's own alg; EdDSA and Ed25519 name the same (RFC 9864).
  static bool fits(const jwk& key, std::string_view alg, key_kinds kinds) noexcept {
    return (key.kind_ & kinds) != 0 && (key.alg_.empty() || same_name(key.alg_, alg) || key.kty_ == "OKP");
  }
  static signature_state digest_signature(const jwk& key, const alg_info& how, std::string_view message,
                                          std::string_view signature);
  static signature_state message_signature(const jwk& key, std::string_view message, std::string_view signature);
  result<jwk_set> build_set(std::string_view text);
  reason build(const json_node& member, jwk& out);
  static reason read_common(const json_node& member, jwk& out);
  reason build_rsa(const json_node& member, jwk& out, public_members& published);
  reason build_ec(const json_node& member, const key_info& curve, jwk& out, public_members& published);
  reason build_raw(const json_node& member, std::string_view name, std::size_t bytes, const char* type, jwk& out,
                   public_members& published);
  reason publish(jwk& out, public_members& published);
  reason import(EVP_PKEY_CTX* maker, OSSL_PARAM_BLD* parameters, jwk& out);
  reason refused();
  std::shared_ptr<jwk> build_surely(const json_node& member, reason& why);
};

inline constexpr int no_openssl_error = 7517;

// OpenSSL did not do what it was asked for with a key that passed our own checks: the point is none of the curve, or
// there was no memory, for which OpenSSL gives many reasons, none at all, or has not even a queue.
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
  const int bits = BN_num_bits(modulus.get());
  if (bits < 2048 || bits > 16384) return concat("the modulus has ", bits, " bits, not 2048 to 16384");
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

AXIOMS_JWKS_INLINE jwk_builder::reason jwk_builder::build_ec(const json_node& member, const key_info& curve, jwk& out,
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
      OSSL_PARAM_BLD_push_utf8_string(parameters.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve.name.data(), 0) != 1 ||
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
  return out.key_ ? std::nullopt : refused();
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
  } else {
    const bool akp = out.kty_ == "AKP";  // its alg says what kind of key it is
    const std::string& name = akp ? out.alg_ : out.curve_;
    const std::string_view says = akp ? "alg" : "crv";
    if (akp && name.empty()) return "alg is missing";
    const auto* end = known_keys.data() + known_keys.size();
    const auto* known = std::find_if(known_keys.data(), end,
                                     [&](const auto& each) { return each.kty == out.kty_ && each.name == name; });
    if (known == end) return concat(says, ' ', quote(name), " is not supported");
    if (known->name == opt_in_curve && !options.allow_es256k)
      return concat("crv ", quote(name), " is used with the option allow_es256k only");
    out.kind_ = kind_of(static_cast<std::size_t>(known - known_keys.data()));
    published.emplace_back(says, json_string(name));
    why = out.kty_ == "EC" ? build_ec(member, *known, out, published)
                           : build_raw(member, akp ? "pub" : "x", known->bytes, known->name.data(), out, published);
  }
  if (why) return why;
  out.bits_ = EVP_PKEY_get_bits(out.key_.get());
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

// What a thread keeps of a kind. nullptr: its thread_locals are gone, which the destructors of others may outlive.
template <class Kept>
[[nodiscard]] Kept* of_this_thread() noexcept {
  static thread_local constinit bool ended = false;
  struct owner {
    Kept kept{};
    ~owner() { ended = true; }
  };
  if (ended) return nullptr;
  static thread_local owner mine;
  return &mine.kept;
}

using digest_context = std::unique_ptr<EVP_MD_CTX, openssl_free<&EVP_MD_CTX_free>>;

// A context for each digest, kept by each thread: fetching a digest by its name takes as long as to compute it. A
// thread that ends uses the caller's. nullptr: no memory.
AXIOMS_JWKS_INLINE EVP_MD_CTX* thread_digest(std::size_t which, digest_context& spare) noexcept {
  auto* const kept = of_this_thread<std::array<digest_context, 3>>();
  digest_context& mine = kept != nullptr ? (*kept)[which] : spare;
  if (!mine) {
    constexpr std::array names{"SHA256", "SHA384", "SHA512"};
    const std::unique_ptr<EVP_MD, openssl_free<&EVP_MD_free>> digest(EVP_MD_fetch(nullptr, names[which], nullptr));
    digest_context made(EVP_MD_CTX_new());
    if (!digest || !made || EVP_DigestInit_ex2(made.get(), digest.get(), nullptr) != 1) return nullptr;
    mine = std::move(made);
  }
  return EVP_DigestInit_ex2(mine.get(), nullptr, nullptr) == 1 ? mine.get() : nullptr;
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

// A duplicate of a context of the key that is ready for the algorithm. That is made when it is first used, by whichever
// thread.
AXIOMS_JWKS_INLINE EVP_PKEY_CTX* ready_context(std::atomic<EVP_PKEY_CTX*>& place, EVP_PKEY* key, const alg_info& how,
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

AXIOMS_JWKS_INLINE signature_state jwk_builder::digest_signature(const jwk& key, const alg_info& how,
                                                                 std::string_view message, std::string_view signature) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); };
  const auto length = (static_cast<std::size_t>(key.bits_) + 7) / 8;
  const bool ecdsa = key.kty_ == "EC";
  if (signature.size() != (ecdsa ? 2 * length : length)) return signature_state::bad;
  const std::string der = ecdsa ? der_of(signature) : std::string();
  if (ecdsa) signature = der;
  digest_context spare;
  EVP_MD_CTX* digest = thread_digest(static_cast<std::size_t>(how.digest), spare);
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
  unsigned hash_length = 0;
  if (digest == nullptr || EVP_DigestUpdate(digest, message.data(), message.size()) != 1 ||
      EVP_DigestFinal_ex(digest, hash.data(), &hash_length) != 1)
    return signature_state::failed;
  const auto row = static_cast<std::size_t>(&how - algs.data());
  const std::unique_ptr<EVP_PKEY_CTX, openssl_free<&EVP_PKEY_CTX_free>> context(
      ready_context(key.contexts_.ready[ecdsa ? 0 : row], key.key_.get(), how, EVP_MD_CTX_get0_md(digest)));
  if (!context) return signature_state::failed;
  return state_of(EVP_PKEY_verify(context.get(), bytes(signature), signature.size(), hash.data(), hash_length));
}

// Ed25519, Ed448 and ML-DSA sign the message itself.
AXIOMS_JWKS_INLINE signature_state jwk_builder::message_signature(const jwk& key, std::string_view message,
                                                                  std::string_view signature) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); };
  const digest_context context(EVP_MD_CTX_new());
  if (!context ||
      EVP_DigestVerifyInit_ex(context.get(), nullptr, nullptr, nullptr, nullptr, key.key_.get(), nullptr) != 1)
    return signature_state::failed;
  return state_of(EVP_DigestVerify(context.get(), bytes(signature), signature.size(), bytes(message), message.size()));
}

// The algorithm is bound to the key before any cryptography (RFC 8725 section 3.1).
AXIOMS_JWKS_INLINE signature_state signature_of(const jwk& key, std::string_view alg, std::string_view message,
                                                std::string_view signature) noexcept {
  const alg_info& how = alg_of(alg);
  if (!jwk_builder::fits(key, alg, how.kinds)) return signature_state::bad;
  const openssl_errors scope;
  AXIOMS_JWKS_TRY {
    return how.digest >= 0 ? jwk_builder::digest_signature(key, how, message, signature)
                           : jwk_builder::message_signature(key, message, signature);
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
    return query.alg.empty() || detail::jwk_builder::fits(key, query.alg, kinds);
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
    std::string kid = query.kid.empty() ? std::string() : concat("kid ", quote(query.kid));
    if (query.alg.empty()) return kid;
    return concat(kid, kid.empty() ? "alg " : " and alg ", quote(query.alg));
  };
  if (chosen.first == nullptr) {
    // Not that the key is unknown: no fetch can help.
    if (query.alg.starts_with("ML-") && !detail::openssl_knows(std::string(query.alg).c_str()))
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

// The rule for replies, whatever they carry. True: there is a body to be read; else out says all.
AXIOMS_JWKS_INLINE bool brings_body(const fetch_request& request, result<fetch_response>& response, wall_point now,
                                    verdict& out) {
  if (!response) return out.refuse(std::move(response).error()), false;
  out.status = response->status;
  out.freshness = freshness_lifetime(*response, now);
  out.retry_after = retry_after(*response, now);
  out.etag = validator(*response, "ETag");
  out.last_modified = validator(*response, "Last-Modified");
  const std::string from = quote(request.url, 256);
  if (out.status == 304 && !(request.etag.empty() && request.last_modified.empty())) {
    out.what = verdict::kind::not_modified;
  } else if (out.status != 200 &&
             out.status != 203) {  // which is a 200 that a proxy has changed (RFC 9110 section 15.3.4)
    out.refuse(make_error(errc::http_status, "HTTP status ", out.status, " from ", from));
  } else if (response->body.size() > request.max_body_bytes) {
    out.refuse(make_error(errc::response_too_large, "the body from ", from, " is over the limit of ",
                          request.max_body_bytes, " bytes"));
  } else {
    return true;
  }
  return false;
}

// Short enough for a string that allocates nothing.
inline axioms::error memory_error() noexcept { return {errc::no_resources, "out of memory", 0}; }
inline verdict failure_of(axioms::error&& why) noexcept {
  verdict out;
  out.why = std::move(why);
  return out;
}

AXIOMS_JWKS_INLINE verdict judge(const fetch_request& request, result<fetch_response> response, wall_point now,
                                 const jwk_options& options) {
  verdict out;
  AXIOMS_JWKS_TRY {
    if (!brings_body(request, response, now, out)) {
      if (out.status == 404 && std::string_view(request.url).ends_with(default_jwks_path))
        out.why.description += "; if the issuer has its keys elsewhere, set jwks_config::discovery, or jwks_url";
      return out;
    }
    auto keys = jwk_set::parse(response->body, options);
    if (!keys) {
      out.refuse(
          make_error(keys.error().code, "no key set from ", quote(request.url, 256), ": ", keys.error().description));
      return out;
    }
    auto content = std::make_shared<document_content>();
    content->url = request.url;
    content->body = keys->held_secrets() ? public_part(*keys) : std::move(response->body);
    content->keys = *std::move(keys);
    out.content = std::move(content);
    out.what = verdict::kind::document;
  }
  AXIOMS_JWKS_CATCH_ALL { out = failure_of(memory_error()); }
  return out;
}

AXIOMS_JWKS_INLINE bool is_same(const document_content& brought, const document_content& served) noexcept {
  return brought.body == served.body && brought.url == served.url &&
         jwk_builder::options_of(brought.keys) == jwk_builder::options_of(served.keys);
}

AXIOMS_JWKS_INLINE result<seconds> age_of_saved(wall_point now, std::int64_t fetched_at) {
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
  if (!config.metadata_url.empty()) {
    out.urls[0] = config.metadata_url;
    return out;
  }
  out.urls[0] = concat(*base, "/.well-known/openid-configuration");
  out.urls[1] = concat(url->scheme(), "://", url->authority(), "/.well-known/oauth-authorization-server",
                       url->target == "/" ? std::string() : url->target);
  return out;
}

// The jwks_uri of metadata, or why they are none. absent: they are none of that issuer.
AXIOMS_JWKS_INLINE result<std::string> jwks_uri_of(std::string_view body, const fetch_request& request,
                                                   const metadata_source& source, bool& absent) {
  const auto none = [&](const auto&... why) { return make_error(errc::not_a_key_set, why...); };
  absent = true;
  const auto document = json_tree::read(body, {});
  if (!document) return none("the body ", document.error().description);
  const json_node& root = document->root();
  if (root.type != json_node::kind::object) return none("the body is JSON, but no object");
  const json_node* const issuer = root.find("issuer", json_node::kind::string);
  if (issuer == nullptr) return none("it has no string named issuer");
  if (issuer->text != source.issuer && !(source.slash_optional && issuer->text == source.issuer + "/"))
    return none("its issuer is ", quote(issuer->text, 256), ", not ", quote(source.issuer, 256));
  const json_node* const jwks_uri = root.find("jwks_uri", json_node::kind::string);
  if (jwks_uri == nullptr) return none("it has no string named jwks_uri");
  absent = false;
  auto url = parse_url(jwks_uri->text);
  if (!url) return none("its jwks_uri: ", url.error().description);
  if (const auto own = parse_url(request.url); own && own->https && !url->https)
    return none("its jwks_uri ", quote(jwks_uri->text, 256), " is http, the metadata are https");
  return std::move(url->normalized);
}

AXIOMS_JWKS_INLINE verdict judge_metadata(const fetch_request& request, result<fetch_response> response,
                                          const metadata_source& source, wall_point now) {
  verdict out;
  AXIOMS_JWKS_TRY {
    bool absent = response.has_value();  // a page, a redirect or an error of the server: not there, or not for us
    if (brings_body(request, response, now, out)) {
      auto jwks_uri = jwks_uri_of(response->body, request, source, absent);
      if (jwks_uri) {
        if (response->body.size() <= max_kept_metadata_bytes)
          out.metadata = std::make_shared<const std::string>(std::move(response->body));
        out.jwks_uri = *std::move(jwks_uri);
        out.what = verdict::kind::found;
        return out;
      }
      out.refuse(make_error(errc::not_a_key_set, "no metadata of the issuer from ", quote(request.url, 256), ": ",
                            jwks_uri.error().description));
    }
    // Who asks us to come back later says nothing about where they are.
    if (out.what == verdict::kind::failure && absent && !out.retry_after && out.status != 408 && out.status != 429)
      out.what = verdict::kind::absent;
  }
  AXIOMS_JWKS_CATCH_ALL { out = failure_of(memory_error()); }
  return out;
}

AXIOMS_JWKS_INLINE void missing_kids::remember(steady_point now, std::string_view kid) {
  const auto sooner = [](const auto& a, const auto& b) { return a.second < b.second; };
  if (until_.size() >= max_negative_kids && until_.find(kid) == until_.end())
    until_.erase(std::min_element(until_.begin(), until_.end(), sooner));
  until_.insert_or_assign(std::string(kid), later(now, negative_kid_ttl));
}

AXIOMS_JWKS_INLINE void withdrawn_keys::replace(steady_point now, const jwk_set* served, const jwk_set& keys) {
  const auto published = [&](const key_ptr& key) {
    return std::any_of(keys.begin(), keys.end(), [&](const key_ptr& other) {
      return other->thumbprint() == key->thumbprint() && other->kid() == key->kid();
    });
  };
  std::erase_if(keys_, [&](const auto& old) { return now >= later(old.second, grace_) || published(old.first); });
  if (grace_.count() == 0 || served == nullptr) return;
  for (const auto& key : *served) {
    if (!published(key)) keys_.emplace_back(key, now);
  }
  if (keys_.size() > max_withdrawn_keys)
    keys_.erase(keys_.begin(), keys_.end() - static_cast<std::ptrdiff_t>(max_withdrawn_keys));
}

AXIOMS_JWKS_INLINE result<key_ptr> withdrawn_keys::select(steady_point now, const key_query& query) const {
  std::vector<key_ptr> graced;
  for (const auto& [key, since] : keys_) {
    if (now < later(since, grace_)) graced.push_back(key);
  }
  return jwk_builder::set_of(std::move(graced)).select(query);
}

AXIOMS_JWKS_INLINE void refresh_policy::configure(const jwks_config& config) noexcept {
  refresh_ = config.refresh_interval;
  ttl_ = config.cache_ttl;
  outage_ = config.outage_window;
  floor_ = std::min(config.min_refresh_interval, config.refresh_interval);
  timeout_ = config.fetch_timeout;
  kid_interval_ = config.unknown_kid_interval;
  kid_wait_ = config.unknown_kid_wait;
  withdrawn_.configure(config.withdrawn_key_grace);
  backoff_.configure(config);
  budget_.configure(config.unknown_kid_burst, config.unknown_kid_interval);
  if (!has_document_ || pinned_ || last_error_) return;
  // A document from a lazy life keeps its age; its renewal must not wait for the old, longer interval.
  next_attempt_ = restored_ ? restored_attempt() : std::min(next_attempt_, later(fetched_at_, refresh_));
}

// While there is nothing to serve, a lookup may try again after 10 s at most: the provider's return must not be missed
// for the rest of a long backoff. What the provider itself asked for is kept all the same.
AXIOMS_JWKS_INLINE refresh_policy::answer refresh_policy::ask(steady_point now) const noexcept {
  if (servable(now)) {
    if (now < expires_at()) return answer::fresh;
    return in_flight_ || backoff_.blocks(now, steady_point::duration::max()) ? answer::stale : answer::start;
  }
  if (in_flight_) return answer::join;
  return backoff_.blocks(now, max_backoff_without_document) ? answer::refuse : answer::start;
}

AXIOMS_JWKS_INLINE bool refresh_policy::expire(steady_point now, std::uint64_t random) noexcept {
  if (!in_flight_ || now < deadline_) return false;
  in_flight_ = false;
  fail(now, short_error(errc::timed_out, 0, "the fetch took longer than fetch_timeout (", timeout_.count(), " ms)"),
       std::nullopt, random);
  return true;
}

AXIOMS_JWKS_INLINE refresh_policy::landing refresh_policy::land(std::uint64_t flight, steady_point now,
                                                                const verdict& brought, bool confirms_current,
                                                                std::uint64_t random, const jwk_set* served) {
  const bool current = in_flight(flight);
  const bool fresh = brought.what == verdict::kind::document;
  if (fresh || (brought.what == verdict::kind::not_modified && confirms_current)) {
    if (flight <= answered_) return landing::dropped;  // a newer flight has brought its answer already
    if (fresh) {
      missing_.clear();
      replaced_at_ = now;
      if (served != nullptr) withdrawn_.replace(now, servable(now) ? served : nullptr, brought.content->keys);
    }
    succeed(flight, now, brought.freshness, random);
    if (current) in_flight_ = false;
    return fresh ? landing::published : landing::confirmed;
  }
  if (!current) return landing::dropped;  // it was counted as failed when it overstayed
  in_flight_ = false;
  fail(now,
       brought.what == verdict::kind::not_modified
           ? short_error(errc::http_status, 304, "HTTP status 304 for a document that was replaced meanwhile")
           : copy_of(brought.why),
       brought.retry_after, random);
  return landing::failed;
}

AXIOMS_JWKS_INLINE void refresh_policy::succeed(std::uint64_t flight, steady_point now,
                                                const std::optional<seconds>& freshness,
                                                std::uint64_t random) noexcept {
  if (in_flight(flight)) confirmed_from_ = begun_;  // of a late one it is not known any more, but that it was before
  answered_ = flight;
  has_document_ = true;
  restored_ = false;
  fetched_at_ = now;
  last_error_.reset();
  backoff_.clear();
  milliseconds wait = refresh_, least{0};
  if (freshness && std::max(*freshness, floor_) < refresh_) {  // the server may ask for sooner, never for later
    wait = std::max(*freshness, floor_);
    least = floor_;
  }
  next_attempt_ = later(now, std::max(wait - scaled(wait / 10, random), least));
}

// The one budget of all that tokens can make us fetch.
AXIOMS_JWKS_INLINE refresh_policy::kid_answer refresh_policy::ask_for_refetch(steady_point now,
                                                                              std::size_t waiting) const noexcept {
  if (budget_.never()) return kid_answer::missing;
  const auto not_now = now < later(confirmed_from_, kid_interval_) ? kid_answer::answered : kid_answer::throttled;
  if (in_flight_) return waiting < max_kid_waiters && now < later(begun_, kid_wait_) ? kid_answer::join : not_now;
  // Our own backoff may be long, and a rotation may have gone with the outage: no longer than the budget's interval.
  if (backoff_.blocks(now, kid_interval_)) return kid_answer::refuse;
  return waiting < max_kid_waiters && budget_.has_one(now) ? kid_answer::start : not_now;
}

AXIOMS_JWKS_INLINE refresh_policy::selection refresh_policy::select(steady_point now, const jwk_set& served,
                                                                    const key_query& query) const {
  auto key = served.select(query);
  if (key || key.error().code != errc::key_not_found) return {std::move(key), false};
  if (withdrawn_.size() > 0) {
    if (auto old = withdrawn_.select(now, query)) return {std::move(old), false};
  }
  return {std::move(key), !query.kid.empty() && !served.contains(query.kid)};
}

AXIOMS_JWKS_INLINE void refresh_policy::pin(steady_point now, const jwk_set& keys, const jwk_set* served) {
  if (served != nullptr) withdrawn_.replace(now, servable(now) ? served : nullptr, keys);
  pinned_ = has_document_ = true;
  fetched_at_ = replaced_at_ = now;
  in_flight_ = false;
  answered_ = newest_;  // what is still in the air is overtaken
  next_attempt_ = steady_point::max();
  last_error_.reset();
  backoff_.clear();
  missing_.clear();
}

AXIOMS_JWKS_INLINE bool refresh_policy::restore(steady_point now, steady_point fetched_at,
                                                std::uint64_t random) noexcept {
  if (has_document_ && (servable(now) || fetched_at <= fetched_at_)) return false;
  has_document_ = restored_ = true;
  fetched_at_ = fetched_at;
  restored_at_ = now;
  restored_random_ = random;
  if (!last_error_) next_attempt_ = restored_attempt();  // else the backoff says when
  return true;
}

AXIOMS_JWKS_INLINE steady_point refresh_policy::restored_attempt() const noexcept {
  const steady_point due = later(fetched_at_, refresh_ - scaled(refresh_ / 10, restored_random_));
  return due > restored_at_ ? due : later(restored_at_, scaled(floor_, restored_random_));
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
  // Without a guard, which a child could find taken for ever. To be registered twice does no harm.
  static constinit std::atomic<bool> registered{false};
  if (registered.load(std::memory_order_acquire)) return;
  ::pthread_atfork(
      [] {
        gate.fetch_add(one_fork);
        while (gate.load() % one_fork > (gate_depth > 0 ? 1U : 0U)) pause_at_gate();
      },
      [] { gate.fetch_sub(one_fork); },
      [] {
        gate.store(gate_depth > 0 ? 1 : 0);
        fork_counter.fetch_add(1, std::memory_order_relaxed);
      });
  registered.store(true, std::memory_order_release);
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

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

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

 private:
  int fd_ = -1;
};

// What ends a fetch early, its deadline and its caller's stop, and what the fetch is about, for the text of its errors.
class fetch_context {
 public:
  fetch_context(stop_token stop, std::chrono::milliseconds timeout, std::string url)
      : timeout_(std::clamp(timeout, std::chrono::milliseconds(0),
                            std::chrono::milliseconds(std::chrono::hours(24 * 3650)))),
        deadline_(std::chrono::steady_clock::now() + timeout_),
        url_(std::move(url)),
        stop_(std::move(stop)) {}

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
    return stop_.stop_requested() || std::chrono::steady_clock::now() >= deadline_;
  }
  [[nodiscard]] result<void> check() const {
    if (!over()) return {};
    if (stop_.stop_requested()) return fail(errc::cancelled, "cancelled while ", phase_);
    return fail(errc::timed_out, "timed out after ", timeout_.count(), " ms while ", phase_);
  }

  // True: one of @p watched is ready. False: @p until came first. A stop is looked for every 10 ms.
  [[nodiscard]] result<bool> wait(std::span<pollfd> watched, fetch_time until = fetch_time::max()) const {
    for (;;) {
      // Before check(), so that there is time left: for poll() -1 ms is for ever.
      const auto now = std::chrono::steady_clock::now();
      if (auto live = check(); !live) return std::move(live).error();
      if (now >= until) return false;
      const auto end = std::min({until, deadline_, now + std::chrono::milliseconds(10)});
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - now).count();
      const int ready = ::poll(watched.data(), static_cast<unsigned>(watched.size()), static_cast<int>(left));
      if (ready < 0 && errno != EINTR) return fail(errc::fetch_failed, "poll: ", errno_text(errno));
      if (ready > 0) return true;
    }
  }
  [[nodiscard]] result<bool> wait(int fd, short events) const {
    pollfd one{fd, events, 0};
    return wait({&one, 1});
  }

 private:
  std::chrono::milliseconds timeout_;
  fetch_time deadline_;
  std::string url_;
  std::string phase_ = "starting";
  stop_token stop_;
};

// - addresses -

struct socket_address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  std::string text;
};

// The bytes of an address, or of the one that a network begins with; empty: it is none.
inline std::string address_bytes(std::string_view text) {
  if (text.size() > 2 && text.front() == '[' && text.back() == ']') text = text.substr(1, text.size() - 2);
  const std::string name(text);
  std::array<char, 16> raw{};
  if (::inet_pton(AF_INET, name.c_str(), raw.data()) == 1) return std::string(raw.data(), 4);
  return ::inet_pton(AF_INET6, name.c_str(), raw.data()) == 1 ? std::string(raw.data(), 16) : std::string();
}

// One name asked of the system's resolver, which cannot be interrupted: a thread of its own, which whoever gives up
// leaves behind.
struct resolver_job {
  std::uint64_t owner = 0;  // the fetcher
  std::string host;
  std::atomic<bool> finished{false};  // then nobody writes to what follows
  std::string failure;
  std::vector<socket_address> found;
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
inline std::vector<socket_address> look_up(const std::string& host, int flags, std::string& failure) {
  addrinfo hints{};
  hints.ai_flags = flags;
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* made = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), nullptr, &hints, &made);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(made, ::freeaddrinfo);
  if (failed != 0) failure = failed == EAI_SYSTEM ? errno_text(errno) : std::string(::gai_strerror(failed));
  std::vector<socket_address> first, second;
  for (const addrinfo* entry = made; entry != nullptr && first.size() + second.size() < 16; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    auto& same_family = first.empty() || first.front().storage.ss_family == entry->ai_family ? first : second;
    socket_address& to = same_family.emplace_back();
    to.size = entry->ai_addrlen;
    std::memcpy(&to.storage, entry->ai_addr, entry->ai_addrlen);
    std::array<char, 64> text{};
    ::getnameinfo(entry->ai_addr, entry->ai_addrlen, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST);
    to.text = entry->ai_family == AF_INET6 ? concat('[', text.data(), ']') : text.data();
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
  AXIOMS_JWKS_TRY { job.found = look_up(job.host, 0, job.failure); }
  AXIOMS_JWKS_CATCH_ALL { job.failure = "no memory"; }  // fits into any string
  {
    const fork_gate inside;
    resolver_jobs& jobs = resolver_jobs::all();
    const std::lock_guard lock(jobs.mutex);
    std::erase_if(jobs.running, [&](const auto& each) { return each.get() == &job; });
  }
  job.finished.store(true, std::memory_order_release);
}

// Joins whoever asks for the same, or starts. Empty: too many threads are out; an error: none can be started.
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
  if (!start_thread(thread, [fresh] { run_resolver(*fresh); })) {
    jobs.running.pop_back();
    return context.fail(errc::no_resources, "no thread could be started to resolve ", quote(host));
  }
  thread.detach();
  return fresh;
}

AXIOMS_JWKS_INLINE result<std::vector<socket_address>> resolve(fetch_context& context, std::uint64_t owner,
                                                               const std::string& host, std::uint16_t port) {
  context.enter("resolving ", quote(host));
  std::shared_ptr<resolver_job> job;
  if (!address_bytes(host).empty()) {
    job = std::make_shared<resolver_job>();
    job->found = look_up(host, AI_NUMERICHOST, job->failure);
    job->finished = true;
  }
  while (!job || !job->finished.load(std::memory_order_acquire)) {
    if (!job) {
      auto asked = ask_for(context, owner, host);
      if (!asked) return std::move(asked).error();
      job = *std::move(asked);
    }
    const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(job ? 1 : 5);  // 5: for a place
    if (const auto waited = context.wait({}, soon); !waited) return waited.error();
  }
  if (!job->failure.empty()) {
    return context.fail(errc::resolve_failed, "cannot resolve ", quote(host), ": ", job->failure);
  }
  if (job->found.empty()) return context.fail(errc::resolve_failed, "the host ", quote(host), " has no address");
  std::vector<socket_address> found = job->found;
  for (socket_address& each : found) {
    const bool v6 = each.storage.ss_family == AF_INET6;
    (v6 ? reinterpret_cast<sockaddr_in6*>(&each.storage)->sin6_port
        : reinterpret_cast<sockaddr_in*>(&each.storage)->sin_port) = htons(port);
    append_to(each.text, concat(':', port));
  }
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

using ssl_ptr = std::unique_ptr<SSL, openssl_free<&SSL_free, true>>;
using ssl_ctx_ptr = std::unique_ptr<SSL_CTX, openssl_free<&SSL_CTX_free, true>>;
using x509_ptr = std::unique_ptr<X509, openssl_free<&X509_free>>;
using x509_store_ptr = std::unique_ptr<X509_STORE, openssl_free<&X509_STORE_free, true>>;
using bio_ptr = std::unique_ptr<BIO, openssl_free<&BIO_free>>;

// Something loaded once and then shared, published by one compare-exchange: two threads may both load it, one of them
// wins. There is no lock that a forked child could find held. A copy has loaded nothing yet.
template <class Pointer>
class shared_load {
 public:
  using element = typename Pointer::element_type;
  shared_load() noexcept = default;
  shared_load(const shared_load&) noexcept {}
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

inline result<std::vector<x509_ptr>> read_certificates(const std::string& pem, std::string_view name) {
  std::vector<x509_ptr> out;
  const bio_ptr text(BIO_new_mem_buf(pem.c_str(), -1));
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
  const bio_ptr text(BIO_new_mem_buf(secret.text.c_str(), -1));
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
    if (!system) return system.error();
    SSL_CTX_set1_cert_store(tls.get(), *system);
  }
  if (done && !options.client_cert_file.empty()) done = use_client_certificate(tls.get(), certificate, secret);
  if (!done) return std::move(done).error();
  ERR_clear_error();
  return tls;
}

// - connection -

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
  if (made && (::fcntl(made.get(), F_SETFL, O_NONBLOCK) != 0 || ::fcntl(made.get(), F_SETFD, FD_CLOEXEC) != 0))
    return {};
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

inline bool would_block(int number) noexcept { return number == EAGAIN || number == EINTR; }

// A socket that is connected, and the name of its peer for errors.
struct connected {
  descriptor socket;
  std::string name;
};

struct attempt {
  const socket_address* to;
  descriptor socket;
  fetch_time until;
};

// 0: connected at once; EINPROGRESS: not yet; else why not.
AXIOMS_JWKS_INLINE int begin_attempt(fetch_context& context, attempt& fresh, std::chrono::milliseconds limit) {
  context.enter("connecting to ", fresh.to->text);
  fresh.socket = open_socket(fresh.to->storage.ss_family);
  if (!fresh.socket) return errno;
  const auto now = std::chrono::steady_clock::now();
  // As nanoseconds a limit of milliseconds::max() would overflow.
  const auto left = std::chrono::floor<std::chrono::milliseconds>(context.deadline() - now);
  const bool limited = limit > std::chrono::milliseconds(0) && limit < left;
  fresh.until = limited ? now + limit : fetch_time::max();
  const auto* address = reinterpret_cast<const sockaddr*>(&fresh.to->storage);
  if (::connect(fresh.socket.get(), address, fresh.to->size) == 0) return 0;
  return errno == EINTR ? EINPROGRESS : errno;
}

// RFC 8305 section 5: the next address begins when all before it have failed, or a quarter of a second after the last
// one began; the first that answers wins.
AXIOMS_JWKS_INLINE result<connected> connect(fetch_context& context, std::uint64_t owner, const std::string& host,
                                             std::uint16_t port, std::chrono::milliseconds limit) {
  if (auto live = context.check(); !live) return std::move(live).error();
  const auto addresses = resolve(context, owner, host, port);
  if (!addresses) return addresses.error();
  std::string reasons;
  const auto give_up = [&](const attempt& on, const auto&... why) {
    append_to(reasons, concat(reasons.empty() ? "" : "; ", on.to->text, ": ", why...));
  };
  const auto succeed = [&](attempt& winner) {
    return connected{std::move(winner.socket), concat(quote(host), " (", winner.to->text, ')')};
  };
  std::vector<attempt> running;
  fetch_time turn{};
  for (auto next = addresses->begin(); next != addresses->end() || !running.empty();) {
    if (next != addresses->end() && (running.empty() || std::chrono::steady_clock::now() >= turn)) {
      attempt fresh{&*next++, {}, {}};
      turn = std::chrono::steady_clock::now() + std::chrono::milliseconds(250);
      const int failed = begin_attempt(context, fresh, limit);
      if (failed == 0) return succeed(fresh);
      const bool shortage = failed == EMFILE || failed == ENFILE || failed == ENOBUFS || failed == ENOMEM;
      if (!fresh.socket && running.empty() && shortage) {
        return context.fail(errc::no_resources, "no socket: ", errno_text(failed));
      }
      if (failed != EINPROGRESS) give_up(fresh, errno_text(failed));
      if (failed == EINPROGRESS) running.push_back(std::move(fresh));
      continue;
    }
    std::vector<pollfd> watched;
    fetch_time soonest = next != addresses->end() ? turn : fetch_time::max();
    for (const attempt& each : running) {
      watched.push_back({each.socket.get(), POLLOUT, 0});
      soonest = std::min(soonest, each.until);
    }
    if (const auto ready = context.wait(watched, soonest); !ready) return ready.error();
    std::vector<attempt> left;
    for (std::size_t i = 0; i < running.size(); ++i) {
      if (watched[i].revents != 0) {
        const int failed = socket_error(running[i].socket.get());
        if (failed == 0) return succeed(running[i]);
        give_up(running[i], errno_text(failed));
      } else if (std::chrono::steady_clock::now() >= running[i].until) {
        give_up(running[i], "no answer within ", limit.count(), " ms");
      } else {
        left.push_back(std::move(running[i]));
      }
    }
    running = std::move(left);
  }
  return context.fail(errc::connect_failed, "cannot connect to ", quote(host), ": ", reasons);
}

// A non-blocking socket, with or without TLS. Everything is sent with MSG_NOSIGNAL, TLS records through a BIO of our
// own, because OpenSSL's socket BIO uses write(): a peer that resets would kill the process by SIGPIPE.
class connection {
 public:
  connection(fetch_context& context, connected&& peer) noexcept
      : context_(context), peer_(std::move(peer.name)), socket_(std::move(peer.socket)) {}
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;

  // Without @p identified no client certificate is shown.
  result<void> start_tls(SSL_CTX* tls, const std::string& host, bool identified) {
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
  // 0 is the end; over TLS only one that the peer announced.
  result<std::size_t> read(char* out, std::size_t size) {
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
  result<void> write(std::string_view text) {
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
  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  // Tells a TLS peer that we leave; never waits.
  void say_goodbye() noexcept {
    const fork_gate inside;
    if (ssl_) SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }

 private:
  // As recv() and send(), and would block when the fetch has to end: OpenSSL reads on inside one call for as long as a
  // peer sends what it skips (a HelloRequest in a handshake, say), and only what it reads by can make it return.
  ssize_t receive_some(char* out, std::size_t size) const noexcept {
    if (!context_.over() && !fork_gate::closing()) return ::recv(socket_.get(), out, size, 0);
    errno = EAGAIN;
    return -1;
  }
  ssize_t send_some(const char* data, std::size_t size) const noexcept {
    if (!context_.over()) return ::send(socket_.get(), data, size, send_flags);
    errno = EAGAIN;
    return -1;
  }
  // Calls OpenSSL, inside the gate, until it returns 1 or fails; waits between, outside, for what it wants.
  template <class Call>
  result<void> tls_call(std::string_view action, Call call) {
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
  error tls_error(std::string_view action, int system) const {
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
  bool prepare_tls(SSL_CTX* tls, const std::string& host, bool identified) {
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
    if (!address_bytes(host).empty()) return X509_VERIFY_PARAM_set1_ip_asc(rules, host.c_str()) == 1;
    std::string name = host;
    if (name.size() > 1 && name.back() == '.') name.pop_back();  // certificates hold names without the root's dot
    return X509_VERIFY_PARAM_set1_host(rules, name.data(), name.size()) == 1 &&
           SSL_ctrl(ssl_.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, name.data()) == 1;
  }
  static BIO_METHOD* bio_method() {
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

  fetch_context& context_;
  std::string peer_;
  descriptor socket_;
  ssl_ptr ssl_;  // last: its BIO uses the rest
};

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
  std::string_view found;
  any_item(list, ", \t", [&](std::string_view coding) {
    for (const std::string_view real : {"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"}) {
      if (iequals(coding, real)) found = coding;
    }
    return !found.empty();
  });
  return found;
}

// What a server sends: first the heads, which are read here, then the body, for cpp-httplib to read. Its virtual
// functions are those of every release since 0.11.4, none of which has them all: hence no `override`.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsuggest-override"
#endif
class response_stream : public httplib::Stream {
 public:
  response_stream(connection& link, const fetch_context& context, std::size_t max_body) noexcept
      : link_(link), context_(context), max_body_(max_body) {}
  virtual ~response_stream() = default;

  // The head of the response, behind the interim ones.
  result<response_head> head() {
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
  // Puts before the body what httplib has to know of the head. Without the reason phrase: its regular expression takes
  // 320 bytes of stack for each character.
  result<void> begin_body(const response_head& head) {
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
  // A piece of the body. False: it is one too many.
  bool deliver(const char* data, std::size_t size, std::string& body) {
    between_ = 0;
    if (size > max_body_ - body.size()) {
      fail(context_.fail(errc::response_too_large, "the body has more than ", max_body_, " bytes"));
      return false;
    }
    body.append(data, size);
    return true;
  }
  // Why httplib could not read the body: it knows only that something went wrong.
  error why() const {
    if (failure_) return *failure_;
    return ended_ ? refuse("the connection was closed in the middle of the body")
                  : refuse("cpp-httplib cannot tell how the body ends");
  }
  [[nodiscard]] bool failed() const noexcept { return failure_.has_value(); }
  [[nodiscard]] bool drained() const noexcept { return at_ == buffer_.size(); }

  virtual bool is_readable() const { return true; }
  virtual bool is_writable() const { return true; }
  virtual bool wait_readable() const { return true; }
  virtual bool wait_writable() const { return true; }
  virtual bool is_peer_alive() const { return true; }
  // Bounds what httplib reads: releases before 0.20.1 keep a line of any length. Chunks of one byte are six to one.
  virtual ssize_t read(char* out, std::size_t size) {
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
  // Ours has been sent: releases from 0.30 to 0.47 would rewrite its query.
  virtual ssize_t write(const char*, std::size_t size) { return static_cast<ssize_t>(size); }
  virtual void get_remote_ip_and_port(std::string&, int&) const {}
  virtual void get_local_ip_and_port(std::string&, int&) const {}
  virtual socket_t socket() const { return link_.fd(); }
  virtual time_t duration() const { return 0; }

 private:
  result<std::size_t> receive() {
    constexpr std::size_t piece = 4096;
    buffer_.erase(0, std::exchange(at_, 0));
    const std::size_t kept = buffer_.size();
    buffer_.resize(kept + piece);
    auto got = link_.read(buffer_.data() + kept, piece);
    buffer_.resize(kept + (got ? *got : 0));
    ended_ = got && *got == 0;
    return got;
  }
  // Lives until the next call.
  result<std::string_view> line() {
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
  result<int> status_line() {
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
  result<void> header_lines(header_list& headers) {
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
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

// - exchange -

// Lends out the protected part of httplib's client: one response over a Stream that somebody else made. Unchanged from
// 0.11.4 to 0.53.1.
class httplib_messages : private httplib::ClientImpl {
 public:
  httplib_messages() : ClientImpl("localhost") {  // never connected to
    set_decompress(false);
    lift_limit(static_cast<httplib::ClientImpl&>(*this));
  }
  bool run(httplib::Stream& stream, httplib::Request& request, httplib::Response& response) {
    httplib::Error ignored{};  // its values differ between releases; the stream knows better
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
inline constexpr std::string_view not_a_proxy = " is not of the form http://[user:password@]host[:port]";
AXIOMS_JWKS_INLINE std::optional<proxy_route> parse_proxy(std::string_view text) {
  if (const auto scheme = text.find("://"); scheme != std::string_view::npos) {
    if (!iequals(text.substr(0, scheme), "http")) return std::nullopt;
    text.remove_prefix(scheme + 3);
  }
  text = text.substr(0, text.find_first_of("/?#"));
  proxy_route route;
  if (const auto at = text.rfind('@'); at != std::string_view::npos) {
    const std::string credentials = percent_decoded(text.substr(0, at));
    if (credentials.size() > 1024) return std::nullopt;
    route.authorization = concat("Basic ", base64_encode(credentials));
    text.remove_prefix(at + 1);
  }
  auto where = parse_url(concat("http://", text));
  if (!where) return std::nullopt;
  route.where = *std::move(where);
  return route;
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
      : owner(fetcher),
        options(std::make_shared<const httplib_options>(std::move(given))),
        environment(proxy_environment::read()) {
    for (const std::string& each : options->credential_origins) {
      const auto url = parse_url(each);
      if (url && url->target == "/") {
        credential_origins.emplace_back(origin_of(url->normalized));
      } else if (!wrong) {
        wrong = make_error(errc::invalid_config,
                           "credential_origins holds no origin: ", url ? quote(each) : url.error().description);
      }
    }
    if (!wrong && !options->client_key_file.empty() && options->client_cert_file.empty()) {
      wrong = make_error(errc::invalid_config, "client_key_file needs client_cert_file");
    }
    if (const auto proxy = trim(options->proxy); !wrong && !proxy.empty() && !parse_proxy(proxy)) {
      wrong = make_error(errc::invalid_config, "proxy", not_a_proxy);
    }
  }

  [[nodiscard]] result<SSL_CTX*> tls() const {
    return tls_.get([this] { return make_tls(*options); });
  }

  const std::uint64_t owner;                             // for its resolver threads
  const std::shared_ptr<const httplib_options> options;  // headers() is never copied: it may be running
  const proxy_environment environment;
  std::vector<std::string> credential_origins;
  std::optional<error> wrong;  // with the options

 private:
  mutable shared_load<ssl_ctx_ptr> tls_;
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
  void set(httplib_options options) { put(std::make_shared<const httplib_setup>(id_, std::move(options))); }
  // Reads the files that @p old has read again: they may have been replaced since. Those that are no good, or not to be
  // read any more, are not taken.
  void renew(const std::shared_ptr<const httplib_setup>& old) {
    if (old->options->ca_file.empty() && old->options->client_cert_file.empty()) return;
    const clean_error_queue queue;
    const auto fresh = std::make_shared<const httplib_setup>(*old);
    if (fresh->tls()) put(fresh, old.get());
  }

 private:
  // The old one goes when the mutex is free.
  void put(std::shared_ptr<const httplib_setup> other, const httplib_setup* in_place_of = nullptr) {
    const fork_gate inside;
    const std::lock_guard lock(mutex_);
    if (in_place_of == nullptr || in_place_of == current_.get()) current_.swap(other);
  }

  const std::uint64_t id_;
  mutable std::mutex mutex_;  // guards current_
  std::shared_ptr<const httplib_setup> current_;
};

AXIOMS_JWKS_INLINE result<std::optional<proxy_route>> choose_proxy(const fetch_context& context,
                                                                   const httplib_setup& setup, const parsed_url& url) {
  const auto& [http, https, bypass] = setup.environment;
  const bool given = !setup.options->proxy.empty();
  const auto matches = [&](std::string_view entry) { return entry_matches(entry, url); };
  const std::string_view named = trim(given ? setup.options->proxy : url.https ? https : http);
  if (named.empty() || (!given && (!setup.options->proxy_from_environment || any_item(bypass, ", \t", matches))))
    return std::optional<proxy_route>();
  auto route = parse_proxy(named);
  if (!route) return context.fail(errc::connect_failed, "the proxy from the environment", not_a_proxy);
  return route;
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
    const auto loaded = setup.tls();
    if (!loaded) return context.fail(loaded.error().code, loaded.error().description);
    tls = *loaded;
  }
  const parsed_url& next_hop = *proxy ? (*proxy)->where : url;
  auto peer = connect(context, setup.owner, next_hop.host, next_hop.port, request.connect_timeout);
  if (!peer) return std::move(peer).error();
  connection link(context, *std::move(peer));
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
  auto extra = identified ? application_headers(context, *setup.options) : header_list();
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
  const auto state = state_;  // this handle may be assigned to in the meantime
  const auto setup = state->current();
  auto answer = detail::fetch(*setup, request, std::move(stop));
  // A client certificate that has expired may be refused by either.
  if (answer ? answer->status / 100 == 4 : answer.error().code == errc::tls_failed) state->renew(setup);
  return answer;
}

AXIOMS_JWKS_INLINE result<void> httplib_fetcher::check() const {
  const auto setup = state_->current();
  if (setup->wrong) return *setup->wrong;
  const detail::clean_error_queue queue;
  const auto tls = detail::make_tls(*setup->options, false);
  if (!tls) return error{errc::invalid_config, tls.error().description, 0};
  return {};
}

namespace detail {

#endif  // !AXIOMS_JWKS_NO_HTTPLIB

// -- engine: what a thread keeps --

// By the low half: a size is no wider on every machine.
constexpr std::size_t place_of(std::uint64_t hash, std::size_t places) noexcept {
  return static_cast<std::uint32_t>(hash) % places;
}

// Eight bytes at a time: a URL is hashed in less time than two of them are compared.
inline std::uint64_t hash_of(std::uint64_t engine, std::string_view url) noexcept {
  std::uint64_t hash = engine ^ (url.size() * 0x9e3779b97f4a7c15U);
  for (std::size_t at = 0; at < url.size(); at += sizeof hash) {
    std::uint64_t word = 0;
    std::memcpy(&word, url.data() + at, std::min(sizeof word, url.size() - at));
    hash = (hash ^ word) * 0xbf58476d1ce4e5b9U;
    hash ^= hash >> 29U;
  }
  return hash;
}

AXIOMS_JWKS_INLINE std::shared_ptr<hit_counter> hit_counters::take(const std::shared_ptr<hit_counters>& from) {
  hit_counter* mine = from->first_.load(std::memory_order_acquire);
  while (mine != nullptr && mine->taken.exchange(true, std::memory_order_acquire)) mine = mine->next;
  if (mine == nullptr) {
    mine = new hit_counter;
    mine->next = from->first_.load(std::memory_order_relaxed);
    while (
        !from->first_.compare_exchange_weak(mine->next, mine, std::memory_order_acq_rel, std::memory_order_relaxed)) {}
  }
  return {mine, [from](hit_counter* counter) { counter->taken.store(false, std::memory_order_release); }};
}

AXIOMS_JWKS_INLINE const jwk* kept_document::find(const key_query& query) {
  for (const choice& each : lately_) {
    if (each.key != nullptr && same_bytes(each.kid, query.kid) &&
        same_bytes({each.alg.data(), each.alg_size}, query.alg))
      return each.key;
  }
  return choose(query);
}

AXIOMS_JWKS_INLINE const jwk* kept_document::choose(const key_query& query) {
  const auto chosen = document_->keys().select(query);
  if (!chosen) return nullptr;
  const jwk& key = **chosen;
  // The query's own bytes are the caller's. What select() goes by stands in the key as well.
  for (const std::string_view kid : {std::string_view(), key.kid(), key.x5t(), key.x5t_s256()}) {
    if (kid != query.kid || query.alg.size() > sizeof choice::alg) continue;
    choice& place = lately_[oldest_++ % lately_.size()];
    place = {.key = &key, .kid = kid, .alg_size = static_cast<std::uint8_t>(query.alg.size())};
    query.alg.copy(place.alg.data(), place.alg.size());
    break;
  }
  return &key;
}

AXIOMS_JWKS_INLINE hit_slot* find_slot(hit_cache& cache, std::uint64_t engine, std::string_view url) noexcept {
  const std::uint64_t hash = hash_of(engine, url);
  for (std::size_t at = cache.buckets[place_of(hash, cache.buckets.size())]; at != 0; at = cache.places[at - 1].next) {
    hit_slot& slot = cache.places[at - 1];
    if (slot.hash == hash && slot.engine == engine && slot.url == url) return cache.recent = &slot;
  }
  return nullptr;
}

// The slot for a URL that has none: the one that was filled first, which leaves its bucket.
inline hit_slot& reused_slot(hit_cache& cache, std::uint64_t hash) noexcept {
  hit_slot& slot = cache.places[cache.oldest];
  const auto number = static_cast<std::uint8_t>(++cache.oldest);
  cache.oldest %= cache.places.size();
  std::uint8_t* from = &cache.buckets[place_of(slot.hash, cache.buckets.size())];
  while (*from != 0 && *from != number) from = &cache.places[*from - 1U].next;
  if (*from == number) *from = slot.next;
  slot.hash = hash;
  slot.next = std::exchange(cache.buckets[place_of(hash, cache.buckets.size())], number);
  return slot;
}

// One for all documents of a manager.
inline std::shared_ptr<hit_counter> counter_of(const hit_cache& cache, std::uint64_t engine,
                                               const std::shared_ptr<hit_counters>& counters) {
  for (const hit_slot& slot : cache.places) {
    if (slot.engine == engine) return slot.counter;
  }
  return hit_counters::take(counters);
}

// Once a second it is noted that the document was used.
AXIOMS_JWKS_INLINE bool still_good(hit_slot& slot, steady_point now) noexcept {
  if (now >= slot.until) return false;
  slot.source->last_used.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  slot.look = std::min(later(now, std::chrono::seconds(1)), slot.until);
  return true;
}

AXIOMS_JWKS_INLINE void keep_hit(std::uint64_t engine, const std::shared_ptr<hit_counters>& counters,
                                 std::string_view url, const outcome& served) noexcept {
  static thread_local bool ended = false;
  struct owner {
    hit_cache cache;
    owner() noexcept { this_thread_hits = &cache; }
    // Destructors of other thread_locals may still look keys up: they find no cache and take the slow path.
    ~owner() { this_thread_hits = nullptr, ended = true; }
  };
  if (ended || url.size() > max_url_bytes) return;
  static thread_local owner mine;

  AXIOMS_JWKS_TRY {
    hit_cache& cache = mine.cache;
    std::string spelled(url);
    auto kept = std::make_shared<kept_document>(served.document);
    hit_slot* slot = find_slot(cache, engine, url);
    auto counter = slot != nullptr ? slot->counter : counter_of(cache, engine, counters);
    if (slot == nullptr) slot = &reused_slot(cache, hash_of(engine, url));
    slot->engine = engine;
    slot->url = std::move(spelled);
    slot->source = served.source;
    slot->version = served.version;
    slot->kept = kept.get();
    slot->document = jwks_ptr(std::move(kept), served.document.get());
    slot->counter = std::move(counter);
    slot->generation = served.document->generation();
    slot->until = served.document->expires_at();
    slot->look = steady_point{};
    cache.recent = slot;
  }
  AXIOMS_JWKS_CATCH_ALL {}  // out of memory: the next lookup takes the slow path again
}

// -- engine: flights, events and the table of URLs --

inline error shut_down_error() {
  return make_error(errc::shut_down, "the manager is shut down; initialize() starts it");
}
inline error cancelled_error() noexcept { return short_error(errc::cancelled, 0, "the caller asked to stop"); }
inline error clock_error() noexcept { return short_error(errc::fetch_failed, 0, "the clock threw an exception"); }

inline outcome failed(error&& why) noexcept {
  outcome out;
  out.failure = std::move(why);
  return out;
}

AXIOMS_JWKS_INLINE waiter::waiter(const question& asked, url_asked at)
    : what(asked.what),
      limit(asked.limit),
      where(std::move(at)),
      out(failed(shut_down_error())),
      kid_(asked.query.kid),
      alg_(asked.query.alg) {}

using flight_list = std::list<std::shared_ptr<flight>>;

// One fetch in progress. It belongs to the manager; whoever waits for it may leave.
struct flight {
  std::shared_ptr<entry> on;
  std::uint64_t number = 0;
  fetch_request request;
  jwk_options accepts;
  stop_source stop;
  std::shared_ptr<const document_content> basis;  // whose validators were sent
  steady_point begun{}, deadline{};
  bool foreground = false;
  bool for_token = false;
  // With discovery:
  bool reads_metadata = false;                    // its next response is metadata
  std::shared_ptr<const metadata_source> source;  // by which it is led
  std::optional<verdict> refused;                 // the key set was not to be had
  std::string refused_at;                         // from that URL
  std::shared_ptr<flight> next;                   // of those that are to be stopped
};

// One URL of a manager. Guarded by the engine's mutex.
struct entry {
  entry(const parsed_url& at, std::shared_ptr<const jwks_config> its_config, steady_point now)
      : url(at.normalized), insecure(!at.https), config(std::move(its_config)), policy(*config) {
    touch(now);
  }
  void touch(steady_point now) const noexcept {
    cell->last_used.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  }
  [[nodiscard]] steady_point last_used() const noexcept {
    return steady_point(steady_point::duration(cell->last_used.load(std::memory_order_relaxed)));
  }
  [[nodiscard]] std::shared_ptr<const document_content> content() const noexcept {
    return document ? document->content() : nullptr;
  }
  [[nodiscard]] const jwk_set* served() const noexcept { return document ? &document->keys() : nullptr; }
  [[nodiscard]] std::shared_ptr<const metadata_source> source() const noexcept {
    return discovery ? discovery->source() : nullptr;
  }
  [[nodiscard]] discovery_policy::step first_step(steady_point now, bool for_token) noexcept {
    return discovery ? discovery->begin(now, for_token) : discovery_policy::step::keys;
  }

  const std::string url;
  const bool insecure;
  std::shared_ptr<const jwks_config> config;
  refresh_policy policy;
  std::optional<discovery_policy> discovery;
  bool configured = false;
  bool gone = false;  // dropped; a flight may still be in the air
  bool stale_told = false, throttled_told = false;
  jwks_ptr document;
  std::shared_ptr<const document_content> previous;  // what the document replaced
  std::string etag, last_modified;
  const std::shared_ptr<publication> cell = std::make_shared<publication>();
  std::shared_ptr<flight> current;
  waiter_list waiters;
  std::size_t token_waiters = 0;
};

// An event as it is queued; the kids are compared when it is delivered, not under the engine's lock. It is destroyed
// without the mutex: it may hold the last reference to its listener.
struct event_record {
  jwks_event event{};
  std::shared_ptr<const document_content> before{}, after{};
  std::shared_ptr<const jwks_config> listener{};
};
using event_queue = std::list<event_record>;
inline constexpr std::size_t max_events = 256;

// Which URLs may be looked up: what initialize() said, also for what an earlier life has looked up, and after
// shutdown().
struct url_rules {
  bool require_https = false, only_configured = false;
  [[nodiscard]] std::optional<error> refuse(std::string_view url, bool insecure, bool configured) const {
    if (require_https && insecure) return insecure_url_error(url);
    if (!only_configured || configured) return std::nullopt;
    return make_error(errc::invalid_url, "URL ", quote(url), " is not configured, and only_configured_urls is set");
  }
};

// All URLs of a manager. Guarded by the engine's mutex.
class url_table {
 public:
  using map = std::map<std::string, std::shared_ptr<entry>, std::less<>>;

  [[nodiscard]] std::shared_ptr<entry> find(std::string_view normalized) const {
    const auto found = all.find(normalized);
    return found != all.end() ? found->second : nullptr;
  }
  // The one maker of entries. One that is new is in a map of its own, to be added.
  [[nodiscard]] std::pair<std::shared_ptr<entry>, map> find_or_make(const parsed_url& at,
                                                                    std::shared_ptr<const jwks_config> config,
                                                                    steady_point now) const {
    std::pair<std::shared_ptr<entry>, map> out(find(at.normalized), map());
    if (out.first) return out;
    out.first = std::make_shared<entry>(at, std::move(config), now);
    out.second.emplace(at.normalized, out.first);
    return out;
  }
  void add(map&& one) noexcept { all.merge(one); }
  void drop(entry& on, map& to) noexcept {
    on.gone = true;
    on.cell->version.fetch_add(1, std::memory_order_release);
    to.insert(all.extract(on.url));
  }
  // Looked-up URLs may come from anywhere, so their number is bounded.
  [[nodiscard]] bool full() const noexcept {
    const auto looked_up = [](const auto& each) { return !each.second->configured; };
    return std::count_if(all.begin(), all.end(), looked_up) >= static_cast<std::ptrdiff_t>(max_looked_up_urls);
  }
  // Who goes for one more: nobody, or the one that was not used for the longest time.
  [[nodiscard]] result<std::shared_ptr<entry>> crowded_out() const {
    std::shared_ptr<entry> oldest;
    if (!full()) return oldest;
    for (const auto& [url, on] : all) {
      if (on->configured || !on->waiters.empty()) continue;
      if (!oldest || on->last_used() < oldest->last_used()) oldest = on;
    }
    if (oldest) return oldest;
    return make_error(errc::throttled, "lookups of ", max_looked_up_urls, " other URLs are waiting for their fetch");
  }

  map all;
};

// What is to be done when the mutex is free again.
struct errands {
  bool here = true;  // on a thread where continuations may run: the caller's own that asked, or the manager's
  bool rescheduled = false;
  waiter_list finished{};
  flight_list launches{};
  std::shared_ptr<flight> stopped{};
  url_table::map dropped{};
  // The last reference to a document frees all its keys, and that to a configuration destroys what the user's listener
  // captured, which may call us. Room is made before anything is changed.
  std::vector<std::shared_ptr<const void>> released{};

  void reserve(std::size_t more) { released.reserve(released.size() + more); }
  void stop(std::shared_ptr<flight>& what) noexcept {
    if (what) what->next = std::exchange(stopped, what);
    what.reset();
  }
};

// -- engine: what a question gets --

// What a question gets now. To say so changes nothing.
struct decision {
  enum class act { answer, wait, fetch };
  act what = act::answer;
  outcome out{};           // of answer
  bool for_token = false;  // the set lacks the kid, or its key fits no signature
  bool proven = false;     // that the provider has no such kid
  bool throttled = false;  // nobody looked for it

  [[nodiscard]] bool waits() const noexcept { return what != act::answer; }
};

// Has the kid other keys in the new set than it had before? A kid that is new has none to compare.
inline bool has_other_keys(const jwk_set& before, const jwk_set& after, std::string_view kid) {
  const auto old = before.find(kid), fresh = after.find(kid);
  const auto same = [](const key_ptr& a, const key_ptr& b) { return a->thumbprint() == b->thumbprint(); };
  return !old.empty() && !fresh.empty() &&
         !std::is_permutation(old.begin(), old.end(), fresh.begin(), fresh.end(), same);
}

inline decision fail_with(const std::optional<error>& why) { return {.out = {.failure = why ? *why : memory_error()}}; }

// The set lacks the kid, or has a key for it that does not fit a signature. Whether that is worth a fetch is the
// policy's to say. again: it has waited for one.
inline decision decide_for_token(const question& asked, const entry& on, steady_point now, const waiter* again) {
  const bool signature = asked.what == verb::bad_signature;
  const bool proven = again != nullptr && on.policy.answered_since(again->newest);
  const std::string_view kid = asked.query.kid;
  decision said{.for_token = true};
  if (signature) {
    const jwk_set* before = again != nullptr && again->before               ? &again->before->keys()
                            : on.previous && on.policy.replaced_lately(now) ? &on.previous->keys
                                                                            : nullptr;
    said.out.changed = before != nullptr && has_other_keys(*before, on.document->keys(), kid);
    if (said.out.changed || proven) return said;  // somebody else was faster
  }
  const auto not_found = [&] {
    if (signature) return;
    said.out.failure = make_error(errc::key_not_found, "no key of the set has kid ", quote(kid));
  };
  said.proven = proven;
  if (proven) return not_found(), std::move(said);
  const std::size_t others = on.token_waiters - (again != nullptr && again->for_token ? 1U : 0U);
  switch (signature ? on.policy.ask_bad_signature(now, others, again != nullptr)
                    : on.policy.ask_unknown_kid(now, kid, others)) {
    case refresh_policy::kid_answer::join: said.what = decision::act::wait; break;
    case refresh_policy::kid_answer::start: said.what = decision::act::fetch; break;
    case refresh_policy::kid_answer::answered: said.throttled = true; [[fallthrough]];
    case refresh_policy::kid_answer::missing: not_found(); break;
    case refresh_policy::kid_answer::refuse: return fail_with(on.policy.last_error());
    case refresh_policy::kid_answer::throttled:
      said.throttled = true;
      said.out.failure = make_error(errc::throttled, "the budget of refetches for tokens is used up; kid ", quote(kid),
                                    " was not looked for");
  }
  return said;
}

inline decision decide(const question& asked, const entry& on, steady_point now, const waiter* again = nullptr) {
  using act = decision::act;
  const refresh_policy& policy = on.policy;
  const bool any_will_do = asked.what == verb::ready || asked.what == verb::initialize;
  if (any_will_do && policy.servable(now)) return {};
  if (asked.what == verb::ready) return {.what = act::wait};
  if (asked.what == verb::refresh) {
    if (policy.pinned() || (again != nullptr && policy.answered_since(again->joined - 1))) return {};
    if (again != nullptr && !policy.in_flight(again->joined)) return fail_with(policy.last_error());
    return {.what = policy.in_flight() ? act::wait : act::fetch};
  }
  switch (policy.ask(now)) {
    case refresh_policy::answer::join: return {.what = act::wait};
    case refresh_policy::answer::start: return {.what = act::fetch};
    case refresh_policy::answer::refuse: return fail_with(policy.last_error());
    default: break;
  }
  if (asked.what == verb::bad_signature) return decide_for_token(asked, on, now, again);
  if (asked.what != verb::key) return {};
  auto [key, kid_unknown] = policy.select(now, on.document->keys(), asked.query);
  if (key) return {.out = {.key = *std::move(key)}};
  if (kid_unknown) return decide_for_token(asked, on, now, again);
  return fail_with(std::move(key).error());
}

// -- engine: what its rooms share --

// By kid, or by thumbprint where there is none: the thumbprints of all its keys.
inline std::map<std::string_view, std::multiset<std::string_view>> prints_of(const document_content* content) {
  std::map<std::string_view, std::multiset<std::string_view>> out;
  if (content == nullptr) return out;
  for (const auto& key : content->keys)
    out[key->kid().empty() ? std::string_view(key->thumbprint()) : key->kid()].insert(key->thumbprint());
  return out;
}

inline void deliver(event_record& record) noexcept {
  jwks_event& event = record.event;
  AXIOMS_JWKS_TRY {
    if (event.kind == jwks_event_kind::fetched || event.kind == jwks_event_kind::loaded) {
      if (record.after != nullptr) event.key_set_url = record.after->url;
      const auto before = prints_of(record.before.get()), after = prints_of(record.after.get());
      for (const auto& [kid, prints] : after) {
        const auto old = before.find(kid);
        if (old == before.end() || old->second != prints)
          (old == before.end() ? event.added : event.changed).emplace_back(kid);
      }
      for (const auto& [kid, prints] : before) {
        if (!after.contains(kid)) event.removed.emplace_back(kid);
      }
    }
  }
  AXIOMS_JWKS_CATCH_ALL {}  // out of memory: some kids are left out
  AXIOMS_JWKS_TRY { record.listener->on_event(event); }
  AXIOMS_JWKS_CATCH_ALL {}  // a listener's exception is its own
}

class engine_state : public engine {
 protected:
  // The mutex, and what is to be done when it is free again: both at the end of the scope.
  class visit : public errands {
   public:
    explicit visit(engine_state& core, bool from_here = true)
        : errands{.here = from_here}, core_(core), lock_(core.mutex_) {}
    ~visit() {
      lock_.unlock();
      core_.perform(*this);
    }

   private:
    engine_state& core_;
    std::unique_lock<std::mutex> lock_;
  };

  // Of the driver. Those marked (locked) are called under the mutex.
  virtual result<void> open(bool with_listener) = 0;  // be ready to launch flights
  // (locked) A life ends: finishes the last when its threads have ended.
  virtual void retire(waiter_list&& last, errands& todo) noexcept = 0;
  virtual void launch(flight_list&& one) noexcept = 0;          // may come back inside
  virtual void wake() noexcept = 0;                             // next_wake() may be sooner now
  [[nodiscard]] virtual std::size_t busy() const noexcept = 0;  // (locked) flights that hold a slot
  [[nodiscard]] virtual waiter_list* deferred() noexcept = 0;   // (locked) for a manager thread to finish; none: here
  [[nodiscard]] virtual event_queue* events() noexcept = 0;     // (locked)

  [[nodiscard]] std::uint64_t draw() const noexcept {
    std::shared_ptr<const jwks_config> config;
    {
      const std::lock_guard lock(mutex_);
      config = config_;
    }
    if (!config->random) return default_random();
    AXIOMS_JWKS_TRY { return config->random(); }
    AXIOMS_JWKS_CATCH_ALL { return default_random(); }
  }

  // The one way to tell something. An event for which there is no memory is one that the listener lost.
  void tell(const entry& on, event_record&& what, const std::optional<axioms::error>& why, errands& todo) noexcept {
    what.listener = on.config->on_event ? on.config : config_;
    if (!what.listener->on_event) return;
    todo.rescheduled = true;
    AXIOMS_JWKS_TRY {
      what.event.url = on.url;
      what.event.error = why;
      what.event.next_attempt = on.policy.next_attempt();
      event_queue* const queue = events();
      if (queue != nullptr && queue->size() < max_events) return queue->push_back(std::move(what));
    }
    AXIOMS_JWKS_CATCH_ALL {}
    ++stats_.events_dropped;
  }

  void drop(entry& on, errands& todo) noexcept {
    todo.stop(on.current);
    urls_.drop(on, todo.dropped);
  }

  void perform(errands& todo) noexcept {
    const auto keep = shared_from_this();  // who goes on in there may destroy the manager
    while (todo.stopped) {
      const std::shared_ptr<flight> what = std::exchange(todo.stopped, todo.stopped->next);
      what->next.reset();
      what->stop.request_stop();
    }
    while (!todo.launches.empty()) {
      flight_list one;
      one.splice(one.end(), todo.launches, todo.launches.begin());
      launch(std::move(one));
    }
    if (todo.rescheduled) wake();
    // A flight that is still in the air keeps its entry, but not the keys.
    for (const auto& [url, on] : todo.dropped) on->document.reset();  // nobody reads it there any more
    while (!todo.finished.empty()) {
      const std::shared_ptr<waiter> who = std::move(todo.finished.front());
      todo.finished.pop_front();
      who->done();
    }
    todo.dropped.clear();
    todo.released.clear();
  }

  [[nodiscard]] std::size_t most_fetches() const noexcept { return config_->max_parallel_fetches; }  // locked

  // Guards everything below, and the entries; never held over I/O, parsing or a call of the user's.
  mutable std::mutex mutex_;
  std::mutex life_mutex_;  // start, add, ensure_open and begin_shutdown one after the other; taken before mutex_
  const std::shared_ptr<const jwks_config> plain_ = std::make_shared<const jwks_config>();
  std::shared_ptr<const jwks_config> config_ = plain_;
  std::shared_ptr<entry> configured_;
  url_table urls_;
  url_rules rules_;
  jwks_stats stats_;
};

// -- engine: callers that wait --

// The next request of a flight: the metadata of the issuer, or the key set.
inline void aim(flight& what, entry& on, discovery_policy::step next, steady_point now) {
  what.reads_metadata = next == discovery_policy::step::metadata;
  what.source = on.source();
  what.basis.reset();
  fetch_request request;
  if (what.reads_metadata) {
    request.url = on.discovery->metadata_url();
    request.etag = on.discovery->etag();
    request.last_modified = on.discovery->last_modified();
    request.accept = "application/json";
  } else {
    request.url = on.discovery ? on.discovery->jwks_uri() : on.url;
    // What came from elsewhere, or was read by other options, nothing there can confirm.
    if (on.document && on.document->url() == request.url &&
        jwk_builder::options_of(on.document->keys()) == what.accepts) {
      what.basis = on.content();
      request.etag = on.etag;
      request.last_modified = on.last_modified;
    }
    request.accept = "application/jwk-set+json, application/json";
  }
  request.origin = origin_of(on.url);  // what the application named, not where the metadata sent us
  request.max_body_bytes = on.config->max_body_bytes;
  request.timeout = std::max(std::chrono::ceil<milliseconds>(what.deadline - now), milliseconds(1));
  request.connect_timeout = std::min(on.config->connect_timeout, request.timeout);
  what.request = std::move(request);
}

inline flight_list prepare_flight(const std::shared_ptr<entry>& on, steady_point now, bool foreground,
                                  bool for_token = false) {
  flight_list one(1, std::make_shared<flight>());
  flight& what = *one.front();
  what.on = on;
  what.begun = now;
  what.deadline = later(now, on->config->fetch_timeout);
  what.foreground = foreground;
  what.for_token = for_token;
  what.accepts.allow_es256k = on->config->allow_es256k;
  aim(what, *on, on->first_step(now, for_token), now);
  return one;
}

inline void begin_flight(flight_list&& fresh, steady_point now, errands& todo) noexcept {
  const std::shared_ptr<flight>& what = fresh.front();
  what->number = what->on->policy.begin(now);
  what->on->current = what;
  todo.launches.splice(todo.launches.end(), fresh);
  todo.rescheduled = true;
}

class waiting_callers : public engine_state {
 public:
  // Those that are called back later may be in a forked child by then.
  void cancel(waiter& who) noexcept override {
    if (forked()) return;
    visit todo(*this, false);
    if (who.finished) return;
    who.cancelled = true;
    if (!who.on) return;  // not submitted yet; submit() will see it
    who.out = failed(cancelled_error());
    finish(who, todo);
  }

  void abandon(waiter& who) noexcept override {
    if (forked()) return;
    errands todo;
    const std::lock_guard lock(mutex_);
    if (who.on && !who.finished) finish(who, todo);
    who.finished = true;
  }

 protected:
  // What was decided, as a caller gets it, with all that is counted and told.
  void conclude(decision&& said, const question& asked, entry& on, steady_point now, outcome& out, errands& todo,
                bool waited) noexcept {
    out = std::move(said.out);
    if (said.throttled) {
      ++stats_.throttled;
      if (!std::exchange(on.throttled_told, true)) tell(on, {{.kind = jwks_event_kind::throttled}}, out.failure, todo);
    }
    if (asked.what == verb::ready || asked.what == verb::refresh || asked.what == verb::initialize) return;
    if (!on.policy.servable(now)) {
      if (!waited) ++stats_.misses;
      return;
    }
    out.document = on.document;
    if (said.for_token) return;
    if (on.policy.stale(now)) {
      ++stats_.stale_served;
      if (!std::exchange(on.stale_told, true))
        tell(on, {{.kind = jwks_event_kind::stale}}, on.policy.last_error(), todo);
    } else if (!waited) {
      ++stats_.hits;
      out.source = on.cell;
      out.version = on.cell->version.load(std::memory_order_relaxed);
    }
  }

  // It stands in the list of its entry.
  void keep_waiting(waiter& who, const decision& said, steady_point now, flight_list&& fresh, errands& todo) noexcept {
    entry& on = *who.on;
    if (said.for_token) {
      on.throttled_told = false;
      if (!std::exchange(who.for_token, true)) {  // one that asks again has waited for a part of its time
        ++on.token_waiters;
        who.deadline = on.policy.token_deadline(now);
      }
      if (!fresh.empty()) on.policy.pay(now);
    }
    if (!fresh.empty()) begin_flight(std::move(fresh), now, todo);
    who.joined = on.policy.newest_flight();
    todo.rescheduled = todo.rescheduled || who.deadline != steady_point::max();
  }

  void finish(waiter& who, errands& todo) noexcept {
    if (who.for_token) --who.on->token_waiters;
    who.finished = true;
    if (who.forgiving && who.out.failure && who.out.failure->code != errc::cancelled &&
        who.out.failure->code != errc::shut_down)
      who.out.failure.reset();  // on_event and health() tell it
    // Elsewhere than where continuations may run, one without an executor is handed over.
    waiter_list* const later = !todo.here && who.wants_manager_thread() ? deferred() : nullptr;
    waiter_list& to = later != nullptr ? *later : todo.finished;
    to.splice(to.end(), who.on->waiters, who.place);
  }

  // One that has not waited.
  static void finish(waiter& who, outcome&& out, waiter_list& ticket, errands& todo) noexcept {
    who.out = std::move(out);
    who.finished = true;
    todo.finished.splice(todo.finished.end(), ticket);
  }

  // Those who wait decide again: after a flight ended, after a late answer came while the next flight is in the air,
  // and after a document was loaded.
  void settle(entry& on, steady_point landed, errands& todo) noexcept {
    for (auto next = on.waiters.begin(); next != on.waiters.end();) {
      waiter& who = **next++;
      const question asked = who.asked();
      const steady_point now = std::max(landed, who.since);  // the landing's clock may have been read before it asked
      AXIOMS_JWKS_TRY {
        auto said = decide(asked, on, now, &who);
        if ((said.waits() || said.out.failure) && on.policy.in_flight(who.joined))
          continue;  // its flight may still bring it
        if (said.waits()) {
          flight_list fresh;
          if (said.what == decision::act::fetch) fresh = prepare_flight(who.on, now, true, said.for_token);
          keep_waiting(who, said, now, std::move(fresh), todo);
          continue;
        }
        if (said.proven && said.out.failure) on.policy.remember_missing(now, asked.query.kid);
        conclude(std::move(said), asked, on, now, who.out, todo, true);
      }
      AXIOMS_JWKS_CATCH_ALL { who.out = failed(memory_error()); }
      finish(who, todo);
    }
  }

  // A document, or a new stamp of the one that is there, takes its place; its policy has taken it already. What the
  // threads keep is out of date from here on.
  void put(entry& on, steady_point now, verdict& given, jwks_ptr&& stamp, event_record&& what, errands& todo) noexcept {
    const bool fresh = given.what == verdict::kind::document;
    if (fresh) given.content->generation = generations.fetch_add(1, std::memory_order_relaxed) + 1;
    if (fresh || !given.etag.empty()) on.etag = std::move(given.etag);
    if (fresh || !given.last_modified.empty()) on.last_modified = std::move(given.last_modified);
    what.before = on.content();
    what.after = stamp->content();
    if (what.before != what.after) todo.released.push_back(std::exchange(on.previous, what.before));
    todo.released.push_back(std::exchange(on.document, std::move(stamp)));
    on.cell->version.fetch_add(1, std::memory_order_release);
    on.stale_told = false;
    tell(on, std::move(what), std::nullopt, todo);
    settle(on, now, todo);
    todo.rescheduled = true;
  }

  // Those who wait for it are finished, with that error or with what they have from the beginning, shut_down; it goes.
  void turn_away(entry& on, const axioms::error* why, errands& todo) noexcept {
    while (!on.waiters.empty()) {
      waiter& who = *on.waiters.front();
      if (why != nullptr) who.out = failed(copy_of(*why));
      finish(who, todo);
    }
    drop(on, todo);
  }
};

// -- engine: lookups --

class lookups : public waiting_callers {
 public:
  [[nodiscard]] std::optional<outcome> answer_now(const question& asked, const url_asked& where) override {
    if (asked.what == verb::initialize || asked.what == verb::shutdown) return std::nullopt;
    steady_point now{};
    if (!read_clock(now)) return failed(clock_error());
    errands todo;
    outcome out;
    {
      const std::lock_guard lock(mutex_);
      auto on = find(where, now);
      if (!on) return failed(std::move(on).error());
      if (!*on) return std::nullopt;
      if (state_ == life::idle && !(*on)->policy.pinned()) return std::nullopt;  // its background refresh is to begin
      auto said = decide(asked, **on, now);
      if (said.waits()) return std::nullopt;
      conclude(std::move(said), asked, **on, now, out, todo, false);
    }
    if (out.source) keep_hit(id(), hits_, asked.url.value_or(std::string_view()), out);
    perform(todo);
    return out;
  }

  [[nodiscard]] std::optional<jwks_ptr> peek(const question& asked) override {
    steady_point now{};
    if (!read_clock(now)) return std::nullopt;
    const url_asked where = url_asked_of(asked);
    const std::lock_guard lock(mutex_);
    const auto on = find(where, now);
    if (!on || !*on || !(*on)->policy.servable(now)) return std::nullopt;
    return (*on)->document;
  }

  [[nodiscard]] std::optional<std::string> published_metadata(std::string_view url) const override {
    std::shared_ptr<const std::string> text;
    read(url, [&](const entry& on) {
      if (on.discovery) text = on.discovery->document();
    });
    return text ? std::optional(*text) : std::nullopt;
  }

  [[nodiscard]] std::vector<std::string> urls() const override {
    std::vector<std::string> out;
    const std::lock_guard lock(mutex_);
    for (const auto& [url, on] : urls_.all) out.push_back(url);
    return out;
  }

  [[nodiscard]] jwks_health health(std::string_view url) override {
    jwks_health out;
    steady_point now{};
    if (!read_clock(now)) return out;
    read(url, [&](const entry& on) {
      out.ready = on.policy.servable(now);
      out.stale = on.policy.stale(now);
      out.insecure_transport = on.insecure && !on.policy.pinned();
      const steady_point fetched = on.policy.fetched_at();  // after now, if it landed since that was read
      if (on.document) out.age = std::chrono::duration_cast<milliseconds>(std::max(now, fetched) - fetched);
      out.last_error = on.policy.last_error();
      out.consecutive_failures = on.policy.consecutive_failures();
      out.next_attempt = on.policy.in_flight() ? now : on.policy.next_attempt();
    });
    return out;
  }

  [[nodiscard]] jwks_stats stats() const override {
    jwks_stats out;
    {
      const std::lock_guard lock(mutex_);
      out = stats_;
    }
    out.hits += hits_->sum();
    return out;
  }

 protected:
  // Finishes the waiter now or lets it wait.
  void look_up(const std::shared_ptr<waiter>& who) {
    waiter_list ticket(1, who);
    steady_point now{};
    const bool clock_works = read_clock(now);
    auto opened = who->where && *who->where ? ensure_open() : result<void>();
    visit todo(*this);
    auto on = find(who->where, now);
    if (on && !opened) on = std::move(opened).error();
    if (!clock_works) on = clock_error();
    if (who->cancelled) on = cancelled_error();
    if (on) {
      place(who, *std::move(on), now, ticket, todo);
    } else {
      finish(*who, failed(std::move(on).error()), ticket, todo);
    }
  }

 private:
  // Under the mutex, if it is known. Empty: the configured one.
  template <class Reader>
  void read(std::string_view url, Reader reader) const {
    const auto at = url.empty() ? result<parsed_url>(parsed_url{}) : parse_url(url);
    if (!at) return;
    const std::lock_guard lock(mutex_);
    if (const auto on = url.empty() ? configured_ : urls_.find(at->normalized)) reader(*on);
  }

  // Errors of the argument come before those of the state. Null: nobody has asked for it yet.
  [[nodiscard]] result<std::shared_ptr<entry>> find(const url_asked& where, steady_point now) const {
    const bool down = state_ == life::down;
    if (!where) return where.error();
    if (!*where) {
      if (down) return shut_down_error();
      if (configured_) return configured_;
      return make_error(errc::invalid_config, "there is no configured URL: call initialize(), or name one");
    }
    const parsed_url& url = **where;
    auto known = urls_.find(url.normalized);
    if (auto why = rules_.refuse(url.normalized, !url.https, down || (known && known->configured)))
      return *std::move(why);
    if (down) return shut_down_error();
    if (known) known->touch(now);
    return known;
  }

  result<void> ensure_open() {
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

  // on: null for a URL that is new.
  void place(const std::shared_ptr<waiter>& who, std::shared_ptr<entry> on, steady_point now, waiter_list& ticket,
             errands& todo) {
    url_table::map fresh_entry;
    std::shared_ptr<entry> victim;
    if (!on) {
      auto crowded_out = urls_.crowded_out();
      if (!crowded_out) {
        ++stats_.throttled;
        return finish(*who, failed(std::move(crowded_out).error()), ticket, todo);
      }
      victim = *std::move(crowded_out);
      std::tie(on, fresh_entry) = urls_.find_or_make(**who->where, config_, now);
    }
    auto said = decide(who->asked(), *on, now);
    flight_list fresh;
    if (said.what == decision::act::fetch) fresh = prepare_flight(on, now, true, said.for_token);

    // From here on nothing fails.
    if (victim) drop(*victim, todo);
    urls_.add(std::move(fresh_entry));
    if (said.waits()) {
      if (who->what == verb::lookup || who->what == verb::key || who->what == verb::bad_signature) ++stats_.misses;
      if (who->what != verb::ready && on->policy.in_flight()) ++stats_.coalesced;
      if (who->what == verb::ready)
        who->deadline = later(now, std::clamp<milliseconds>(who->limit, milliseconds(0), max_duration));
      who->on = on;
      who->since = now;
      who->newest = on->policy.newest_flight();
      if (on->policy.servable(now)) who->before = on->document;
      who->place = ticket.begin();
      on->waiters.splice(on->waiters.end(), ticket);
      keep_waiting(*who, said, now, std::move(fresh), todo);
      return;
    }
    outcome out;
    conclude(std::move(said), who->asked(), *on, now, out, todo, false);
    finish(*who, std::move(out), ticket, todo);
  }
};

// -- engine: flights --

class flights : public lookups {
 public:
  // A response came, or the reason why there is none. True: the flight goes on, with its next request.
  [[nodiscard]] bool arrive(const std::shared_ptr<flight>& what, result<fetch_response> response) noexcept {
    if (forked()) return false;
    steady_point now = what->begun;
    wall_point wall{};
    verdict brought;
    AXIOMS_JWKS_TRY {
      if (!read_clock(now) || !read_clock(wall)) {
        brought.why = clock_error();
      } else if (goes_on(*what, now, wall, std::move(response), brought)) {
        return !what->stop.stop_requested();
      }
    }
    AXIOMS_JWKS_CATCH_ALL { brought = failure_of(memory_error()); }
    return end(what, wall, std::move(brought)), false;
  }
  void fetch(const std::shared_ptr<flight>& what) noexcept {
    const bool called = io_->fetch(what->request, what->stop.get_token(), landing{weak_from_this(), what});
    if (!called && arrive(what, fetcher_threw())) fetch(what);
  }

 protected:
  // Whatever it was to ask for next.
  void end(const std::shared_ptr<flight>& what, wall_point wall, verdict&& brought) noexcept {
    steady_point now = what->begun;
    const std::uint64_t random = draw();
    static_cast<void>(read_clock(now));  // judging has taken its time
    visit todo(*this);
    if (!what->on->gone) receive(what, now, wall, random, brought, todo);  // else shut down or dropped meanwhile
  }
  void flight_failed(entry& on, steady_point now, int status, milliseconds duration, errands& todo) noexcept {
    ++stats_.failed;
    tell(on, {{.kind = jwks_event_kind::failed, .status = status, .duration = duration}}, on.policy.last_error(), todo);
    settle(on, now, todo);
    todo.rescheduled = true;
  }

 private:
  [[nodiscard]] bool goes_on(flight& what, steady_point now, wall_point wall, result<fetch_response>&& response,
                             verdict& brought) {
    verdict said = what.reads_metadata ? judge_metadata(what.request, std::move(response), *what.source, wall)
                                       : judge(what.request, std::move(response), wall, what.accepts);
    if (!what.reads_metadata) brought = std::move(said);
    if (!what.source && brought.what != verdict::kind::failure) return false;
    visit todo(*this);
    const bool in_time = !what.on->gone && what.on->policy.in_flight(what.number);  // else it lands as too late
    return in_time && next_request(what, now, std::move(said), brought, todo);
  }

  // A response of a flight in the air was judged. True: it asks for something else now; else brought is what it ends
  // with.
  [[nodiscard]] bool next_request(flight& what, steady_point now, verdict&& said, verdict& brought, errands& todo) {
    using step = discovery_policy::step;
    entry& on = *what.on;
    step next = step::fail;
    if (what.source != on.source()) {  // it was sent by a configuration that is gone
      next = on.first_step(now, what.for_token);
    } else if (!on.discovery) {
      return false;
    } else if (!what.reads_metadata) {
      if (brought.what != verdict::kind::failure || brought.retry_after || brought.status == 408 ||
          brought.status == 429)
        return false;
      next = on.discovery->keys_failed(now);
      if (next == step::fail) return false;
      what.refused_at = what.request.url;
      what.refused = std::move(brought);
    } else {
      next = on.discovery->read(now, std::move(said));
      const auto& failure = on.discovery->failure();
      const bool same_place = next == step::keys && what.refused_at == on.discovery->jwks_uri();
      if (what.refused && (next == step::fail || same_place)) {
        brought = *std::exchange(what.refused, std::nullopt);
        return false;
      }
      if (next == step::fail) {
        brought = *failure;
        brought.what = verdict::kind::failure;
        return false;
      }
      if (next == step::keys && failure) {
        // The old ones are used. The flight may still end well, so this is the one place where it is told.
        ++stats_.failed;
        const auto took = std::chrono::duration_cast<milliseconds>(now - what.begun);
        tell(on, {{.kind = jwks_event_kind::failed, .status = failure->status, .duration = took}}, failure->why, todo);
      }
    }
    aim(what, on, next, now);
    return true;
  }

  void receive(const std::shared_ptr<flight>& what, steady_point now, wall_point wall, std::uint64_t random,
               verdict& brought, errands& todo) noexcept {
    entry& on = *what->on;
    const auto before = on.content();
    const bool same = brought.content && before && is_same(*brought.content, *before);
    if (same) brought.what = verdict::kind::not_modified;  // a 200 with the same bytes confirms like a 304
    const bool fresh = brought.what == verdict::kind::document;
    const bool confirms = before && (same || what->basis == before);
    jwks_ptr stamp;
    AXIOMS_JWKS_TRY {
      todo.reserve(2);
      on.policy.reserve(on.served());
      std::shared_ptr<const document_content> content = fresh ? brought.content : before;
      stamp = std::make_shared<const jwks_document>(std::move(content), now, on.policy.expiry_of(now), wall);
    }
    AXIOMS_JWKS_CATCH_ALL {
      brought.what = verdict::kind::failure;
      brought.why = memory_error();
    }
    const auto landing = on.policy.land(what->number, now, brought, confirms, random, on.served());
    if (landing == refresh_policy::landing::dropped) return;
    if (on.discovery) on.discovery->ended(landing != refresh_policy::landing::failed);
    if (on.current == what) on.current.reset();
    const auto took = std::chrono::duration_cast<milliseconds>(now - what->begun);
    if (landing == refresh_policy::landing::failed) return flight_failed(on, now, brought.status, took, todo);
    ++(fresh ? stats_.fetched : stats_.not_modified);
    const auto kind = fresh ? jwks_event_kind::fetched : jwks_event_kind::not_modified;
    put(on, now, brought, std::move(stamp), {{.kind = kind, .status = brought.status, .duration = took}}, todo);
  }
};

// -- engine: what is due --

class timetable : public flights {
 public:
  bool tick_now() noexcept {
    steady_point now{};
    if (forked() || !read_clock(now)) return false;
    const std::uint64_t random = draw();
    visit todo(*this);
    tick(now, random, todo);
    return true;
  }

 protected:
  void tick(steady_point now, std::uint64_t random, errands& todo) noexcept {
    if (!background_runs()) return;
    std::size_t free = most_fetches() - std::min(most_fetches(), busy());
    for (auto next = urls_.all.begin(); next != urls_.all.end();) {
      const std::shared_ptr<entry> on = (next++)->second;
      if (on->policy.expire(now, random)) {
        const std::shared_ptr<flight> late = on->current;
        if (on->discovery && late) late->reads_metadata ? on->discovery->overstayed(now) : on->discovery->ended(false);
        const auto took = std::chrono::duration_cast<milliseconds>(late ? now - late->begun : steady_point::duration());
        todo.stop(on->current);
        flight_failed(*on, now, 0, took, todo);
      }
      for (auto place = on->waiters.begin(); place != on->waiters.end();) {
        waiter& who = **place++;
        if (now < who.deadline) continue;
        who.out =
            failed(who.what == verb::ready
                       ? short_error(errc::timed_out, 0, "there was no document within the limit")
                       : short_error(errc::timed_out, 0, "the refetch for a token took longer than unknown_kid_wait (",
                                     on->config->unknown_kid_wait.count(), " ms)"));
        finish(who, todo);
      }
      if (!on->policy.due(now)) continue;
      if (!on->configured && on->waiters.empty() && on->policy.unused(now, on->last_used())) {
        drop(*on, todo);
      } else if (free > 0) {
        --free;
        AXIOMS_JWKS_TRY { begin_flight(prepare_flight(on, now, false), now, todo); }
        AXIOMS_JWKS_CATCH_ALL {  // it counts as one that failed, or this would be tried again at once
          static_cast<void>(on->policy.land(on->policy.begin(now), now, failure_of(memory_error()), false, random));
          flight_failed(*on, now, 0, milliseconds(0), todo);
        }
      }
    }
  }

  [[nodiscard]] steady_point next_wake() const noexcept {
    steady_point soonest = steady_point::max();
    if (!background_runs()) return soonest;
    const bool full = busy() >= most_fetches();
    for (const auto& [url, on] : urls_.all) {
      if (on->policy.in_flight() || !full)
        soonest = std::min(soonest, on->policy.next_wake());  // a slot that gets free wakes us
      for (const auto& who : on->waiters) soonest = std::min(soonest, who->deadline);
    }
    return soonest;
  }

  // What is imported before the first lookup or initialize() waits for it: nothing is fetched by a configuration that
  // is not there yet.
  [[nodiscard]] bool background_runs() const noexcept { return state_ == life::lazy || state_ == life::running; }
};

// -- engine: documents that no flight brought --

// One document of an exported cache, when it has been judged.
struct saved_set {
  parsed_url at;
  verdict given;
  steady_point fetched_at;
  wall_point wall;  // of the same
  std::uint64_t random = 0;
  url_table::map fresh{};  // if the URL is new
  jwks_ptr stamp{};
};

class saved_documents : public timetable {
 public:
  [[nodiscard]] result<void> add_static(std::string_view url, std::string_view text) override {
    const auto at = parse_url(url);
    if (!at) return at.error();
    steady_point now{};
    wall_point wall{};
    if (!read_clock(now) || !read_clock(wall)) return clock_error();
    verdict given = judge_given(*at, fetch_response{200, std::string(text), {}}, wall);
    if (given.what != verdict::kind::document) return std::move(given.why);
    auto stamp = std::make_shared<const jwks_document>(given.content, now, steady_point::max(), wall);
    visit todo(*this, false);
    if (auto why = rules_.refuse(at->normalized, !at->https, true)) return *std::move(why);
    if (state_ == life::down) return shut_down_error();
    auto [on, fresh] = urls_.find_or_make(*at, config_, now);
    todo.reserve(2);
    on->policy.reserve(on->served());

    // From here on nothing fails.
    urls_.add(std::move(fresh));
    on->configured = true;
    on->policy.pin(now, given.content->keys, on->served());
    todo.stop(on->current);
    put(*on, now, given, std::move(stamp), {{.kind = jwks_event_kind::loaded}}, todo);
    return {};
  }

  // The age goes into the text, not what the wall clock said at the fetch: it may have been set since.
  [[nodiscard]] std::string export_cache() override {
    steady_point now{};
    wall_point wall{};
    std::string out = R"({"axioms_jwks_cache":1,"documents":[)";
    if (read_clock(now) && read_clock(wall)) {
      std::vector<std::tuple<jwks_ptr, std::string, std::string, std::string>> documents;
      auto room = static_cast<std::ptrdiff_t>(max_saved_bytes);
      {
        const std::lock_guard lock(mutex_);
        for (const auto& [url, on] : urls_.all) {
          if (!on->document || on->policy.pinned()) continue;
          room -= static_cast<std::ptrdiff_t>(2 * on->document->body().size() + 8192);  // escaped
          if (room < 0) break;  // import_cache() would refuse more
          documents.push_back({on->document, url, on->etag, on->last_modified});
        }
      }
      for (const auto& [document, url, etag, last_modified] : documents) {
        const auto fetched_at = wall.time_since_epoch() - (now - document->fetched_at());
        append_to(out, concat(out.back() == '[' ? "" : ",", R"({"url":)", json_string(url), R"(,"fetched_at":)",
                              std::chrono::floor<seconds>(fetched_at).count(), R"(,"etag":)", json_string(etag),
                              R"(,"last_modified":)", json_string(last_modified), R"(,"body":)",
                              json_string(document->body()), "}"));
      }
    }
    return out + "]}";
  }

  [[nodiscard]] result<std::size_t> import_cache(std::string_view text) override {
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

    std::size_t index = 0;
    std::optional<axioms::error> first_fault;
    std::vector<saved_set> sets;
    for (const json_node& document : *documents) {
      auto judged = judge_saved(document);
      if (judged && *judged) sets.push_back(**std::move(judged));
      if (!judged && !first_fault) {
        first_fault = std::move(judged).error();
        first_fault->description = concat("document ", index, " of the exported cache: ", first_fault->description);
      }
      ++index;
    }
    auto taken = restore(sets);
    if (taken && *taken == 0 && first_fault && first_fault->code != errc::shut_down) return *std::move(first_fault);
    return taken;
  }

 private:
  // Judges a key set by the rule for those that a fetch brought.
  [[nodiscard]] verdict judge_given(const parsed_url& at, fetch_response given, wall_point wall) {
    fetch_request request;
    request.url = at.normalized;
    request.max_body_bytes = max_saved_bytes;
    jwk_options accepts;
    {
      const std::lock_guard lock(mutex_);
      const auto known = urls_.find(at.normalized);
      accepts.allow_es256k = (known ? known->config : config_)->allow_es256k;
    }
    verdict out = judge(request, std::move(given), wall, accepts);
    out.why.http_status = 0;  // there was no response
    return out;
  }

  // None: there is a document of this URL already, or no room for one more URL.
  [[nodiscard]] result<std::optional<saved_set>> judge_saved(const json_node& saved) {
    for (const char* name : {"url", "etag", "last_modified", "body"}) {
      if (saved.find(name, json_node::kind::string) == nullptr)
        return make_error(errc::not_a_key_set, "it has no string named ", name);
    }
    const auto text = [&](const char* name) { return std::string(saved.find(name, json_node::kind::string)->text); };
    const json_node* const when = saved.find("fetched_at", json_node::kind::integer);
    if (when == nullptr) return make_error(errc::not_a_key_set, "it has no integer named fetched_at");
    auto at = parse_url(text("url"));
    if (!at) return std::move(at).error();
    steady_point now{};
    wall_point wall{};
    if (!read_clock(now) || !read_clock(wall)) return clock_error();
    const auto age = age_of_saved(wall, when->integer);
    if (!age) return age.error();
    {
      const std::lock_guard lock(mutex_);
      const auto known = urls_.find(at->normalized);
      if (auto why = rules_.refuse(at->normalized, !at->https, known && known->configured)) return *std::move(why);
      if (known ? known->policy.servable(now) : urls_.full()) return std::optional<saved_set>();
    }
    fetch_response given_text{200, text("body"), {{"ETag", text("etag")}, {"Last-Modified", text("last_modified")}}};
    verdict given = judge_given(*at, std::move(given_text), wall);
    if (given.what != verdict::kind::document) return std::move(given.why);
    return std::optional(saved_set{*std::move(at), std::move(given), now - *age, wall - *age, draw()});
  }

  // How many were put in place.
  [[nodiscard]] result<std::size_t> restore(std::vector<saved_set>& sets) {
    steady_point now{};
    if (!read_clock(now)) return clock_error();
    std::size_t taken = 0;
    visit todo(*this, false);
    if (state_ == life::down) return shut_down_error();
    for (saved_set& each : sets) {
      std::shared_ptr<entry> on;
      std::tie(on, each.fresh) = urls_.find_or_make(each.at, config_, now);
      each.stamp = std::make_shared<const jwks_document>(each.given.content, each.fetched_at,
                                                         on->policy.expiry_of(each.fetched_at), each.wall);
    }
    todo.reserve(2 * sets.size());

    // From here on nothing fails.
    for (saved_set& each : sets) {
      if (!each.fresh.empty() && urls_.full()) continue;
      urls_.add(std::move(each.fresh));
      entry& on = *urls_.find(each.at.normalized);
      if (!on.policy.restore(now, each.fetched_at, each.random)) continue;
      put(on, now, each.given, std::move(each.stamp), {{.kind = jwks_event_kind::loaded}}, todo);
      ++taken;
    }
    return taken;
  }
};

// -- engine: life --

// The document that is there, as another configuration lets it age. Null if there is none.
inline jwks_ptr stamp_for(const entry& on, const jwks_config& config) {
  if (!on.document) return nullptr;
  const jwks_document& old = *on.document;
  const auto expiry = on.policy.pinned() ? steady_point::max() : later(old.fetched_at(), config.cache_ttl);
  return std::make_shared<const jwks_document>(old.content(), old.fetched_at(), expiry, old.fetched_at_system());
}

// A document that is there keeps its age.
inline void configure(entry& on, std::shared_ptr<const jwks_config> config, jwks_ptr&& stamp, errands& todo) noexcept {
  todo.released.push_back(std::exchange(on.config, std::move(config)));
  on.policy.configure(*on.config);
  if (stamp) {
    todo.released.push_back(std::exchange(on.document, std::move(stamp)));
    on.cell->version.fetch_add(1, std::memory_order_release);
  }
  todo.rescheduled = true;
}

class engine_life : public saved_documents {
 public:
  void submit(const std::shared_ptr<waiter>& who, std::shared_ptr<const jwks_config> config) override {
    if (config) {
      start(std::move(config), who);
    } else if (who->what == verb::shutdown) {
      begin_shutdown(waiter_list(1, who));
    } else {
      look_up(who);
    }
  }

  [[nodiscard]] result<void> add(std::shared_ptr<const jwks_config> config) override {
    if (auto valid = config->validate(); !valid) return valid;
    if (auto fit = io_->check(); !fit) return fit;
    steady_point now{};
    if (!read_clock(now)) return clock_error();
    const auto at = parse_url(*config->resolved_url());
    errands todo{.here = false};
    {
      const std::lock_guard life_lock(life_mutex_);
      if (state_ == life::down || closed_) return shut_down_error();
      if (auto opened = open(static_cast<bool>(config->on_event)); !opened) return opened;
      const std::lock_guard lock(mutex_);
      take_over(*at, config, now, config->prefetch ? now : later(now, config->refresh_interval), todo);
      if (state_ == life::idle) state_.store(life::lazy, std::memory_order_release);
    }
    perform(todo);
    return {};
  }

  [[nodiscard]] bool forget(std::string_view url) override {
    const auto at = parse_url(url);
    if (!at) return false;
    visit todo(*this, false);
    const auto on = urls_.find(at->normalized);
    if (!on || on == configured_) return false;
    const error why = cancelled_error();
    turn_away(*on, &why, todo);
    return true;
  }

  void begin_shutdown(waiter_list&& last) noexcept override {
    errands todo{.here = false};
    std::shared_ptr<const jwks_config> config = plain_;
    std::shared_ptr<entry> configured;
    {
      const std::lock_guard life_lock(life_mutex_);
      const std::lock_guard lock(mutex_);
      state_.store(life::down, std::memory_order_release);
      while (!urls_.all.empty()) turn_away(*urls_.all.begin()->second, nullptr, todo);
      configured_.swap(configured);
      config_.swap(config);  // the listener goes with its life
      for (const auto& who : last) who->finished = true;
      retire(std::move(last), todo);
    }
    todo.rescheduled = true;  // nothing is due any more
    perform(todo);
  }

  void close() noexcept override {
    closed_ = true;
    begin_shutdown({});
    join();
  }

 protected:
  std::atomic<bool> closed_{false};

 private:
  // A URL of initialize() or add(): stays until shutdown, with limits of its own. first: its first fetch in the
  // background. Under both mutexes; if it throws, it has done nothing.
  std::shared_ptr<entry> take_over(const parsed_url& at, const std::shared_ptr<const jwks_config>& config,
                                   steady_point now, steady_point first, errands& todo) {
    auto [on, fresh] = urls_.find_or_make(at, config, now);
    auto stamp = stamp_for(*on, *config);
    std::optional<discovery_policy> discovery;
    if (config->discovery)
      discovery.emplace(std::make_shared<const metadata_source>(*metadata_source_of(*config)), *config);
    todo.reserve(2);

    // From here on nothing fails.
    urls_.add(std::move(fresh));
    configure(*on, config, std::move(stamp), todo);
    on->configured = true;
    if (!on->policy.servable(now)) {
      on->policy.plan_first(first);
    } else if (!config->prefetch) {
      on->policy.put_off(first);
    }
    if (discovery && on->discovery && *on->discovery->source() == *discovery->source()) {
      on->discovery->configure(*config);
    } else {
      on->discovery = std::move(discovery);
    }
    return on;
  }

  result<bool> try_start(std::shared_ptr<const jwks_config> config, waiter& who) {
    struct kept_url {
      std::shared_ptr<entry> on;
      std::optional<axioms::error> refused;  // what this configuration would refuse to look up goes
      jwks_ptr stamp;
    };
    if (auto valid = config->validate(); !valid) return std::move(valid).error();
    if (running()) return false;
    if (auto fit = io_->check(); !fit) return std::move(fit).error();
    steady_point now{};
    if (!read_clock(now)) return clock_error();
    const auto at = parse_url(*config->resolved_url());
    const steady_point one_interval = later(now, config->refresh_interval);
    const url_rules rules{config->require_https, config->only_configured_urls};
    errands todo{.here = false};
    {
      const std::lock_guard life_lock(life_mutex_);
      if (who.cancelled) return cancelled_error();
      if (closed_) return shut_down_error();
      if (state_ == life::running) return false;
      if (auto opened = open(static_cast<bool>(config->on_event)); !opened) return std::move(opened).error();
      const std::lock_guard lock(mutex_);
      std::vector<kept_url> looked_up;
      for (const auto& [url, on] : urls_.all) {
        if (!on->configured && url != at->normalized)
          looked_up.push_back({on, rules.refuse(url, on->insecure, false), stamp_for(*on, *config)});
      }
      todo.reserve(2 * looked_up.size() + 3);
      configured_ = take_over(*at, config, now, one_interval, todo);

      // From here on nothing fails.
      todo.released.push_back(std::exchange(config_, config));
      rules_ = rules;
      // What threads keep was found by the old ones.
      for (const auto& [url, on] : urls_.all) on->cell->version.fetch_add(1, std::memory_order_release);
      for (kept_url& each : looked_up) {
        if (each.refused) {
          turn_away(*each.on, &*each.refused, todo);
        } else {
          configure(*each.on, config, std::move(each.stamp), todo);
          if (!config->prefetch) each.on->policy.put_off(one_interval);
        }
      }
      who.forgiving = true;
      state_.store(life::running, std::memory_order_release);
    }
    perform(todo);
    return config->prefetch;
  }

  void start(std::shared_ptr<const jwks_config> config, const std::shared_ptr<waiter>& who) {
    waiter_list ticket(1, who);
    const auto prefetch = try_start(std::move(config), *who);
    outcome out;
    if (!prefetch) out.failure = copy_of(prefetch.error());
    AXIOMS_JWKS_TRY {
      if (prefetch && *prefetch) return look_up(who);
    }
    AXIOMS_JWKS_CATCH_ALL {  // out of memory: a prefetch that fails is no failure, and the background tries again
      const std::lock_guard lock(mutex_);
      if (configured_) configured_->policy.plan_first(steady_point{});
    }
    visit todo(*this);
    finish(*who, std::move(out), ticket, todo);
    todo.rescheduled = true;
  }
};

// -- engine: threads --

// The threads of one life, from the first fetch to shutdown. A new life may begin while an old crew still winds down.
struct crew {
  struct worker {
    std::atomic<bool> ended{false};
    own_thread thread;
  };
  void join() noexcept {
    const std::lock_guard lock(join_mutex);
    if (scheduler.joinable()) scheduler.join();
  }
  void detach() noexcept {
    const std::lock_guard lock(join_mutex);
    if (scheduler.joinable()) scheduler.detach();
  }

  // Guarded by the engine's mutex; retired is also read under handles_mutex.
  std::atomic<bool> retired{false};  // shutdown was asked: finish what is due and end
  bool ended = false;                // nothing is left but the shutdowns that wait for it
  bool woken = false;
  std::shared_ptr<crew> older;         // retired before
  flight_list foreground, background;  // flights that wait for a thread
  std::size_t active = 0;              // fetch threads
  waiter_list deferred;                // to be finished on the scheduler thread
  waiter_list at_end;                  // shutdowns that wait
  event_queue events;
  std::chrono::steady_clock::time_point silent_at{};  // when undelivered events are given up, in real time
  std::condition_variable_any wake, listen;

  std::mutex handles_mutex;  // guards the handles while they are made or taken; taken before the engine's mutex
  std::list<worker> workers;
  own_thread listener;
  std::mutex join_mutex;  // one thread joins, the others wait for it
  own_thread scheduler;
};

inline constexpr milliseconds listener_grace{50};

// On whose thread we are: such a thread must not join its own crew.
inline thread_local constinit const engine* manager_thread_of = nullptr;

// A caller that is blocked on a condition variable of its own.
class blocked_waiter final : public waiter {
 public:
  using waiter::waiter;
  void done() noexcept override { changed.notify_all(); }
  std::condition_variable_any changed;
};

// The threads of a manager: a crew for each of its lives, with one scheduler thread.
class crews : public engine_life {
 public:
  // The threads of a crew join those of the one before it, at their end.
  void join() noexcept override {
    std::shared_ptr<crew> last;
    {
      const std::lock_guard lock(mutex_);
      last = retired_;
    }
    if (!last) return;
    if (manager_thread_of != this) return last->join();
    // The manager is destroyed by a continuation on one of its own threads. That thread and the scheduler own the
    // engine until they end; nobody is left to join the scheduler.
    if (closed_) last->detach();
  }

 protected:
  void retire(waiter_list&& last, errands& todo) noexcept override {
    if (crew_) {
      crew_->retired = true;
      crew_->silent_at = std::chrono::steady_clock::now() + listener_grace;
      crew_->foreground.clear();
      crew_->background.clear();
      crew_->older = std::exchange(retired_, crew_);
      crew_.reset();
      retired_->wake.notify_all();
      retired_->listen.notify_all();
    }
    waiter_list& to = retired_ && !retired_->ended ? retired_->at_end : todo.finished;
    to.splice(to.end(), last);
  }

  void schedule(crew& mine) noexcept {
    manager_thread_of = this;
    for (;;) {
      {
        visit todo(*this);
        todo.finished.swap(mine.deferred);
        mine.woken = false;
      }
      const bool clock_works = mine.retired || tick_now();
      std::unique_lock lock(mutex_);
      if (mine.woken || !mine.deferred.empty()) continue;
      if (mine.retired) break;
      const auto ready = [&] { return mine.woken || mine.retired || !mine.deferred.empty(); };
      if (!clock_works || !io_->wait(lock, mine.wake, {}, next_wake(), std::ref(ready))) {
        // A clock that throws must not make this thread spin.
        static_cast<void>(
            axioms::wait_until(lock, mine.wake, {}, std::chrono::steady_clock::now() + std::chrono::seconds(1), ready));
      }
    }
    end_of_life(mine);
  }

  void end_of_life(crew& mine) noexcept {
    std::list<crew::worker> workers;
    {
      const std::lock_guard lock(mine.handles_mutex);
      workers.swap(mine.workers);
    }
    workers.clear();  // joins: their fetches were told to stop
    if (mine.listener.joinable()) mine.listener.join();
    waiter_list last;
    {
      const std::lock_guard lock(mutex_);
      mine.ended = true;
      last.swap(mine.at_end);
    }
    for (const auto& who : last) who->done();
    if (const auto before = std::exchange(mine.older, nullptr)) before->join();
  }

  void wake() noexcept override {
    const std::lock_guard lock(mutex_);
    if (!crew_) return;
    crew_->woken = true;
    crew_->wake.notify_all();
    crew_->listen.notify_all();
  }

  waiter_list* deferred() noexcept override {
    if (!crew_ || manager_thread_of == this) return nullptr;
    crew_->wake.notify_all();
    return &crew_->deferred;
  }

  std::size_t busy() const noexcept override { return crew_ ? crew_->active : 0; }
  event_queue* events() noexcept override { return crew_ ? &crew_->events : nullptr; }

  std::shared_ptr<crew> crew_;     // of the present life
  std::shared_ptr<crew> retired_;  // of past lives, the newest first, until joined
};

// Drives the engine with fetch threads on demand, and a listener thread if somebody listens.
class engine_on_threads final : public crews {
 public:
  [[nodiscard]] outcome ask(const question& asked, const stop_token& stop,
                            std::shared_ptr<const jwks_config> config) override {
    url_asked where = url_asked_of(asked);
    if (auto answer = answer_now(asked, where)) return *std::move(answer);
    if (stop.stop_requested() && !config) return failed(cancelled_error());
    const auto who = std::make_shared<blocked_waiter>(asked, std::move(where));
    if (stop.stop_requested()) cancel(*who);  // which may be too late: a manager that runs is success
    submit(who, std::move(config));
    return wait_for(*who, who->changed, stop);
  }

 private:
  result<void> open(bool with_listener) override {
    const auto self = std::static_pointer_cast<engine_on_threads>(shared_from_this());
    std::shared_ptr<crew> mine = crew_;
    const error why{errc::no_resources, "a thread could not be started", 0};
    if (!mine) {
      mine = std::make_shared<crew>();
      const auto run = [self, at = mine.get()] { self->schedule(*at); };
      if (!start_thread(mine->scheduler, run)) return why;
      const std::lock_guard lock(mutex_);
      crew_ = mine;
    }
    const auto run = [self, at = mine.get()] { self->listen(*at); };
    if (with_listener && !mine->listener.joinable() && !start_thread(mine->listener, run)) return why;
    return {};
  }

  void launch(flight_list&& one) noexcept override {
    std::shared_ptr<crew> mine;
    {
      const std::lock_guard lock(mutex_);
      if (!crew_ || one.front()->on->gone) return;
      mine = crew_;
      flight_list& jobs = one.front()->foreground ? mine->foreground : mine->background;
      jobs.splice(jobs.end(), one);
      if (mine->active >= most_fetches()) return;
      ++mine->active;
    }
    spawn_worker(*mine);
  }

  void spawn_worker(crew& mine) noexcept {
    std::list<crew::worker> ended;  // joined outside the lock; they have nothing left to do
    bool started = false;
    {
      const std::lock_guard lock(mine.handles_mutex);
      if (mine.retired) return;
      for (auto next = mine.workers.begin(); next != mine.workers.end();) {
        const auto at = next++;
        if (at->ended) ended.splice(ended.end(), mine.workers, at);
      }
      std::list<crew::worker> one;
      AXIOMS_JWKS_TRY {
        crew::worker& fresh = one.emplace_back();
        started = start_thread(fresh.thread,
                               [self = std::static_pointer_cast<engine_on_threads>(shared_from_this()), &mine, &fresh] {
                                 self->work(mine);
                                 fresh.ended = true;
                               });
        if (started) mine.workers.splice(mine.workers.end(), one);
      }
      AXIOMS_JWKS_CATCH_ALL {}
    }
    if (started) return;
    flight_list stranded;
    {
      const std::lock_guard lock(mutex_);
      if (--mine.active > 0) return;  // another thread will come to them
      stranded.swap(mine.foreground);
      stranded.splice(stranded.end(), mine.background);
    }
    for (const auto& what : stranded)
      end(what, {}, failure_of(short_error(errc::no_resources, 0, "a thread for the fetch could not be started")));
  }

  void work(crew& mine) noexcept {
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
      fetch(what);
    }
    mine.wake.notify_all();
  }

  void listen(crew& mine) noexcept {
    manager_thread_of = this;
    for (;;) {
      std::list<event_record> taken;  // destroyed without the mutex
      {
        std::unique_lock lock(mutex_);
        mine.listen.wait(lock, [&] { return mine.retired || !mine.events.empty(); });
        if (mine.events.empty()) return;
        if (mine.retired && std::chrono::steady_clock::now() >= mine.silent_at) {
          stats_.events_dropped += mine.events.size();
          taken.swap(mine.events);
          continue;
        }
        taken.splice(taken.end(), mine.events, mine.events.begin());
      }
      deliver(taken.front());
    }
  }

  outcome wait_for(waiter& who, std::condition_variable_any& cv, const stop_token& stop) noexcept {
    const auto ended = [&] { return who.finished; };
    std::unique_lock lock(mutex_);
    while (!who.finished) {
      // Deadlines are the scheduler's to see.
      const bool clock_works = io_->wait(lock, cv, stop, steady_point::max(), std::ref(ended));
      const bool asked_to_stop = stop.stop_requested();
      if (who.finished || (clock_works && !asked_to_stop)) continue;
      errands todo;
      who.out = failed(asked_to_stop ? cancelled_error() : clock_error());
      finish(who, todo);
    }
    return std::move(who.out);
  }
};

// -- engine: an event loop --

// Drives the engine on an event loop: no thread of ours, and nothing ever waits.
class engine_on_loop final : public engine_life {
 public:
  [[nodiscard]] outcome ask(const question&, const stop_token&, std::shared_ptr<const jwks_config>) override {
    return {};
  }
  void join() noexcept override {}
  void on_timer() noexcept {
    if (tick_now()) wake();  // with a clock that throws it would come back at once, for ever
  }

 private:
  result<void> open(bool) override { return {}; }
  void retire(waiter_list&& last, errands& todo) noexcept override { todo.finished.splice(todo.finished.end(), last); }
  void launch(flight_list&& one) noexcept override { fetch(one.front()); }
  // One thread at a time tells events, in order, and sets the timer; whoever comes meanwhile makes it look again.
  void wake() noexcept override {
    std::unique_lock lock(mutex_);
    again_ = true;
    if (std::exchange(busy_, true)) return;
    while (std::exchange(again_, false) || !events_.empty()) {
      const steady_point when = next_wake();
      event_queue taken;
      if (!events_.empty()) taken.splice(taken.end(), events_, events_.begin());
      lock.unlock();
      io_->call_at(when, alarm{weak_from_this()});
      if (!taken.empty()) deliver(taken.front());
      taken.clear();
      lock.lock();
    }
    busy_ = false;
  }
  std::size_t busy() const noexcept override {
    return static_cast<std::size_t>(std::count_if(urls_.all.begin(), urls_.all.end(),
                                                  [](const auto& at) { return at.second->policy.in_flight(); }));
  }
  waiter_list* deferred() noexcept override { return nullptr; }
  event_queue* events() noexcept override { return &events_; }

  bool busy_ = false, again_ = false;
  event_queue events_;
};

AXIOMS_JWKS_INLINE std::shared_ptr<engine> make_engine(bool on_loop) {
  {
    // What is registered later runs earlier at exit: OpenSSL must not clean up before a static manager is destroyed. Of
    // no option nothing would come.
    const fork_gate inside;
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CRYPTO_STRINGS, nullptr);
  }
  if (on_loop) return std::make_shared<engine_on_loop>();
  return std::make_shared<engine_on_threads>();
}
AXIOMS_JWKS_INLINE void landing::operator()(result<fetch_response> response) {
  const auto still = std::static_pointer_cast<flights>(core.lock());
  if (still && still->arrive(what, std::move(response))) still->fetch(what);
}
AXIOMS_JWKS_INLINE void alarm::operator()() const {
  if (const auto still = core.lock()) static_cast<engine_on_loop&>(*still).on_timer();
}

// -- tokens --

inline constexpr std::size_t max_tried_keys = 4;
inline constexpr std::size_t max_object_members = 4096;
inline constexpr double end_of_dates = 253402300800.0;    // 10000-01-01
inline constexpr double begin_of_dates = -62135596800.0;  // 0001-01-01

// RFC 7515 section 4.1.9: compared without case, and application/ may be left out where there is no other slash.
AXIOMS_JWKS_INLINE std::string media_type(std::string_view typ) {
  std::string out = lower(typ);
  constexpr std::string_view prefix = "application/";
  const bool plain = out.size() > prefix.size() && out.starts_with(prefix);
  if (plain && out.find('/', prefix.size()) == std::string::npos) out.erase(0, prefix.size());
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
    const json_node* next = nullptr;
    std::uint32_t index = 0;
    for (const json_node& each : *at) {
      if (at->type == json_node::kind::array ? std::to_string(index++) == step : each.name == step) next = &each;
    }
    at = next;
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

// Whether it is that string, or an array that holds it.
AXIOMS_JWKS_INLINE bool holds(const json_node& value, std::string_view text) noexcept {
  if (value.type != json_node::kind::array) return is_text(value, text);
  for (const json_node& each : value) {
    if (is_text(each, text)) return true;
  }
  return false;
}

// Whether a name is granted: a list with blanks between (RFC 6749 section 3.3), one name, or an array of names.
AXIOMS_JWKS_INLINE bool grants(const json_node* where, bool split, std::string_view name) noexcept {
  if (where == nullptr || name.empty()) return false;
  if (where->type != json_node::kind::string || !split) return holds(*where, name);
  return any_item(where->text, " ", [&](std::string_view one) { return one == name; });
}

// -- tokens: memo --

// A token that was accepted, and by whom: it is accepted again only where all of it is the same.
struct remembered_token {
  std::uint64_t memo = 0;  // never reused
  std::uint64_t index = 0;
  std::uint64_t generation = 0;  // unique, so of one URL of one engine; a forked child has new ones
  const token_rules* rules = nullptr;
  std::shared_ptr<const token_content> content{};
};

// The last tokens, of which the oldest goes.
template <std::size_t Most>
struct token_ring {
  [[nodiscard]] remembered_token* find(std::uint64_t memo, std::uint64_t index) noexcept {
    for (remembered_token& each : tokens) {
      if (each.index == index && each.memo == memo) return &each;
    }
    return nullptr;
  }
  // Gives what had to go.
  remembered_token put(remembered_token token, std::size_t room = Most) noexcept {
    remembered_token* place = find(token.memo, token.index);
    if (place == nullptr) place = &tokens[oldest++ % room];
    return std::exchange(*place, std::move(token));
  }
  std::array<remembered_token, Most> tokens{};
  std::size_t oldest = 0;
};

// The verified tokens of one verifier. A thread that meets one again keeps it in front, under a control block of its
// own, for threads would fight over a common one.
class token_memo {
 public:
  explicit token_memo(std::size_t most);
  // The token, if the same text would be accepted now; else none.
  [[nodiscard]] AXIOMS_JWKS_HOT inline std::shared_ptr<const token_content> find(engine& core, std::string_view text);
  void keep(remembered_token token, const jwk_set& by) noexcept;

 private:
  static constexpr std::size_t most_in_set = 8;
  static constexpr std::size_t shortest = 128;  // a signature and some claims are longer
  struct set {
    std::mutex mutex;  // guards the ring
    token_ring<most_in_set> ring;
  };
  struct locked_set {
    const fork_gate inside{};  // so that no child finds the mutex taken
    set& where;
    const std::lock_guard<std::mutex> lock{where.mutex};
  };
  [[nodiscard]] std::shared_ptr<const token_content> find_shared(engine& core, std::string_view text,
                                                                 std::uint64_t index);
  [[nodiscard]] std::uint64_t index_of(std::string_view text) const noexcept;
  [[nodiscard]] set& set_of(std::uint64_t index) noexcept { return sets_[place_of(index, sets_.size())]; }

  const std::uint64_t id_, seed_;
  std::vector<set> sets_;
  const std::size_t room_;  // of each set
};

AXIOMS_JWKS_INLINE token_memo::token_memo(std::size_t most)
    : id_([] {
        static std::atomic<std::uint64_t> last{0};
        return last.fetch_add(1, std::memory_order_relaxed) + 1;
      }()),
      seed_([] {
        static const std::uint64_t seed = default_random();
        return seed;
      }()),
      sets_((most + most_in_set - 1) / most_in_set),
      room_(most / sets_.size()) {}

// Of the end of the signature. Secret, so that nobody can choose tokens that crowd out others.
AXIOMS_JWKS_INLINE std::uint64_t token_memo::index_of(std::string_view text) const noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, text.data() + text.size() - sizeof word, sizeof word);
  const std::uint64_t hash = (word ^ seed_) * 0xbf58476d1ce4e5b9U;
  return hash ^ (hash >> 32U);
}

#if defined(__GNUC__)
using wide_word = std::uint64_t __attribute__((vector_size(16)));
#else
using wide_word = std::uint64_t;
#endif

// Zero if they are equal.
template <std::size_t Size>
[[nodiscard]] AXIOMS_JWKS_HOT inline wide_word difference(const char* a, const char* b) noexcept {
  if constexpr (Size > sizeof(wide_word)) {
    return difference<Size / 2>(a, b) | difference<Size / 2>(a + Size / 2, b + Size / 2);
  } else {
    wide_word x, y;
    std::memcpy(&x, a, Size);
    std::memcpy(&y, b, Size);
    return x ^ y;
  }
}

// Looks at every byte, so that the time it takes does not tell where two texts differ. Both have 128 bytes at least.
inline bool same_text(std::string_view a, std::string_view b) noexcept {
  constexpr std::size_t word = sizeof(wide_word), block = 128;
  if (a.size() != b.size()) return false;
  const std::size_t last = a.size() - block;
  wide_word all = difference<word>(a.data(), b.data()) | difference<block>(a.data() + last, b.data() + last);
  // An aligned word needs no load of its own.
  for (std::size_t at = word - reinterpret_cast<std::uintptr_t>(a.data()) % word; at < last; at += block)
    all |= difference<block>(std::assume_aligned<word>(a.data() + at), b.data() + at);
  std::array<std::uint64_t, word / sizeof(std::uint64_t)> words;
  std::memcpy(words.data(), &all, word);
  return words.front() == 0 && words.back() == 0;
}

inline double seconds_of(std::chrono::system_clock::time_point when) noexcept {
  return std::chrono::duration<double>(when.time_since_epoch()).count();
}

// Whether get_jwks() would answer with the same keys now, and the dates allow it.
[[nodiscard]] AXIOMS_JWKS_HOT inline bool is_good(std::uint64_t generation, std::string_view url,
                                                  const token_content& content, engine& core) {
  const auto in_time = [&](double now, double spare) {
    return content.begins <= now - spare && now + spare < content.ends;
  };
  if (const hit_slot* const slot = warm_hit(core, url, generation)) {
    if (slot->generation != generation) return false;
    slot->counter->add();
    // The second of time() that warm_hit() has asked for lags by a few milliseconds.
    if (core.sparing() && in_time(static_cast<double>(this_thread_hits->clock.second()), 2)) return true;
  } else {
    const question asked{.url = url.empty() ? std::nullopt : std::optional(url)};
    const auto now = core.answer_now(asked, url_asked_of(asked));
    if (!now || !now->document || now->document->generation() != generation) return false;
  }
  wall_point now{};
  return core.read_clock(now) && in_time(seconds_of(now), 0);
}

std::shared_ptr<const token_content> token_memo::find(engine& core, std::string_view text) {
  if (text.size() < shortest) return nullptr;
  const std::uint64_t index = index_of(text);
  auto* const front = of_this_thread<token_ring<16>>();
  const auto* const kept = front != nullptr ? front->find(id_, index) : nullptr;
  if (kept != nullptr && same_text(kept->content->text, text)) {
    auto content = kept->content;  // a listener that is called in there may verify tokens, too
    if (is_good(kept->generation, kept->rules->jwks_url, *content, core)) return content;
  }
  return find_shared(core, text, index);
}

// Brings it to the front.
AXIOMS_JWKS_COLD AXIOMS_JWKS_INLINE std::shared_ptr<const token_content> token_memo::find_shared(engine& core,
                                                                                                 std::string_view text,
                                                                                                 std::uint64_t index) {
  remembered_token shared;
  {
    const locked_set among{.where = set_of(index)};
    if (const auto* const found = among.where.ring.find(id_, index)) shared = *found;
  }
  if (shared.content == nullptr || !same_text(shared.content->text, text)) return nullptr;
  if (!is_good(shared.generation, shared.rules->jwks_url, *shared.content, core)) return nullptr;
  const auto own = std::make_shared<std::shared_ptr<const token_content>>(shared.content);
  shared.content = {own, own->get()};
  auto content = shared.content;
  if (auto* const front = of_this_thread<token_ring<16>>()) front->put(std::move(shared));
  return content;
}

// A key that the set does not hold any more verified by grace: that may end at any moment.
AXIOMS_JWKS_INLINE void token_memo::keep(remembered_token token, const jwk_set& by) noexcept {
  if (std::find(by.begin(), by.end(), token.content->key) == by.end()) return;
  token.memo = id_;
  token.index = index_of(token.content->text);
  const locked_set among{.where = set_of(token.index)};
  token = among.where.ring.put(std::move(token), room_);
}

// -- tokens: rules --

// The rules of a verifier, checked once and made ready.
struct token_core {
  std::vector<token_rules> rules;
  std::optional<axioms::error> broken;
  std::unique_ptr<token_memo> memo;
};

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

AXIOMS_JWKS_INLINE std::shared_ptr<const token_core> compile_rules(std::vector<token_rules> given, bool with_memo) {
  const auto core = std::make_shared<token_core>();
  auto& [rules, broken, memo] = *core;
  rules = std::move(given);
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
    if (!each.trust_domain.empty()) each.types.emplace_back("JOSE");
    if (each.rfc9068) {
      each.types = {"at+jwt"};
      for (const char* name : {"sub", "client_id", "iat", "jti"}) each.required_claims.emplace_back(name);
    }
    for (auto& type : each.types) type = media_type(type);
  }
  if (!broken && with_memo && rules[0].memo > 0) memo = std::make_unique<token_memo>(rules[0].memo);
  return core;
}

// -- tokens: form --

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
  auto* const last = of_this_thread<std::shared_ptr<const token_header>>();
  if (last != nullptr && *last != nullptr && (*last)->segment == segment) return *last;
  const auto refuse = [](const auto&... why) { return make_error(errc::malformed_token, "the header ", why...); };
  const auto text = base64url_decode(segment);
  if (!text) return refuse("is no base64url");
  auto tree = read_object("header", *text);
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
  if (last != nullptr && segment.size() <= 1024) *last = made;
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

// -- tokens: signature --

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
      if (!jwk_builder::fits(*key, query.alg, kinds_of_alg(query.alg))) continue;
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

// -- tokens: claims --

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

// A NumericDate (RFC 7519 section 2) in seconds since 1970; none if it is no date before the year 10000. Only iat may
// be a string, which .NET writes.
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

AXIOMS_JWKS_INLINE bool holds_one_of(const json_node& value, const std::vector<std::string>& wanted) {
  return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& one) { return holds(value, one); });
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

// -- tokens: one token --

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
  // What came of the last need, in place of a key set that is served.
  void take(outcome&& came);

  // The text is read until it is over, so whoever waits must keep it.
  void keep_text() {
    kept_ = text_;
    text_ = kept_;
  }
  // Of the key set, and what is wanted of it; valid after read().
  [[nodiscard]] question asked(need what) const;
  [[nodiscard]] const jwks_ptr& brought() const noexcept { return brought_; }
  [[nodiscard]] bool over() const noexcept { return out_.has_value(); }
  [[nodiscard]] bool has_read() const noexcept { return rules_ != nullptr; }
  [[nodiscard]] result<verified_token> take_result() { return *std::move(out_); }
  void end(axioms::error why) { out_.emplace(std::move(why)); }
  // The memo's: before a token is read, and when it is accepted.
  [[nodiscard]] AXIOMS_JWKS_HOT static std::optional<result<verified_token>> recall(const token_core& rules,
                                                                                    engine& core,
                                                                                    std::string_view text) {
    auto known = rules.memo ? rules.memo->find(core, text) : nullptr;
    return known ? std::optional<result<verified_token>>(verified_token(std::move(known))) : std::nullopt;
  }
  void recall(engine& core) { out_ = recall(*core_, core, text_); }
  void remember(const jwks_ptr& by) const noexcept;
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
  token_parts parts_{};
  const token_rules* rules_ = nullptr;
  std::shared_ptr<const token_header> header_;
  std::string signature_;
  std::shared_ptr<token_content> content_;  // once the claims are read
  jwks_ptr brought_;
  key_ptr key_;
  need needs_ = need::nothing;
  bool fetched_again_ = false;
  std::optional<result<verified_token>> out_;
};

// RFC 8725 section 3: which issuer's rules, then the algorithm and the type.
AXIOMS_JWKS_INLINE bool token_check::read() {
  const auto fail = [&](axioms::error why) { return end(std::move(why)), false; };
  if (core_->broken) return fail(*core_->broken);
  const auto parts = token_parts::of(text_, core_->rules.front().max_token_bytes);
  if (!parts) return fail(parts.error());
  parts_ = *parts;
  auto header = read_header(parts_.header);
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
  auto signature = base64url_decode(parts_.signature);
  if (!signature) return fail(make_error(errc::malformed_token, "the signature is no base64url"));
  signature_ = *std::move(signature);
  return true;
}

// Of several issuers the token's own, before any key is looked for.
AXIOMS_JWKS_INLINE std::optional<axioms::error> token_check::pick_rules() {
  rules_ = &core_->rules.front();
  if (core_->rules.size() == 1) return std::nullopt;
  if (auto why = read_claims()) return why;
  const registered_claims claims(content_->claims.root());
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
  if (content_) return std::nullopt;
  auto payload = base64url_decode(parts_.payload);
  if (!payload) return make_error(errc::malformed_token, "the payload is no base64url");
  auto tree = read_object("payload", *payload);
  if (!tree) return std::move(tree).error();
  content_ = std::make_shared<token_content>();
  content_->payload = *std::move(payload);
  content_->claims = *std::move(tree);
  return std::nullopt;
}

AXIOMS_JWKS_INLINE std::optional<axioms::error> token_check::check_claims(std::chrono::system_clock::time_point now) {
  if (auto why = read_claims()) return why;
  const json_node& root = content_->claims.root();
  const registered_claims claims(root);
  if (auto why = check_types(*rules_, claims)) return why;
  if (auto why = check_issuer(*rules_, claims)) return why;
  if (auto why = check_audience(*rules_, claims, root)) return why;
  if (auto why = check_dates(*rules_, claims, seconds_of(now))) return why;
  const auto leeway = static_cast<double>(rules_->leeway.count());
  content_->expires = claims.exp->real;
  content_->ends = content_->expires + leeway;
  for (const json_node* each : {claims.nbf, claims.iat})
    content_->begins = each != nullptr ? std::max(content_->begins, *date_of(*each, true) - leeway) : content_->begins;
  return check_required(*rules_, claims, root);
}

// The order: with the key at hand the signature, then the claims; else the claims, and only for a token that would be
// accepted but for its signature something is fetched.
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
    return needs_ = query_of(*header_, nullptr).kid.empty() ? need::document : need::key;
  }
  const signature_state state = keys.check(header_->alg, parts_.signed_text, signature_);
  if (state == signature_state::failed) return fail(no_verification_error());
  if (state == signature_state::bad) {
    if (fetched_again_ || check_claims(now)) return fail(bad_signature_error());
    return needs_ = need::other_key;
  }
  if (auto why = check_claims(now)) return fail(*std::move(why));
  accept(std::move(keys.good));
  return need::nothing;
}

AXIOMS_JWKS_INLINE void token_check::accept(key_ptr key) {
  const json_node& claims = content_->claims.root();
  content_->text = text_;
  content_->header = header_;
  content_->key = std::move(key);
  content_->scopes = first_claim(claims, rules_->scope_claims);
  content_->roles = first_claim(claims, rules_->role_claims);
  content_->permissions = first_claim(claims, rules_->permission_claims);
  content_->split_roles = rules_->split_roles;
  out_.emplace(verified_token(std::move(content_)));
}

AXIOMS_JWKS_INLINE void token_check::remember(const jwks_ptr& by) const noexcept {
  if (core_->memo && by && out_ && *out_)
    core_->memo->keep({.generation = by->generation(), .rules = rules_, .content = (*out_)->content_}, by->keys());
}

AXIOMS_JWKS_INLINE void token_check::end_with(const jwk_set& keys, need what) {
  if (what == need::key) end(keys.select(query_of(*header_, &keys)).error());
  if (what == need::other_key) end(bad_signature_error());
}

AXIOMS_JWKS_INLINE question token_check::asked(need what) const {
  question out;
  if (!rules_->jwks_url.empty()) out.url = rules_->jwks_url;
  out.what = what == need::key ? verb::key : what == need::other_key ? verb::bad_signature : verb::lookup;
  if (what == need::key || what == need::other_key) out.query = query_of(*header_, nullptr);
  if (what == need::other_key) out.query.alg = {};
  return out;
}

AXIOMS_JWKS_INLINE void token_check::take(outcome&& came) {
  if (needs_ == need::other_key) {
    fetched_again_ = true;
    brought_.reset();
    key_.reset();
    const auto code = came.failure ? came.failure->code : errc{};
    if (code == errc::cancelled || code == errc::shut_down || code == errc::no_resources)
      return end(*std::move(came.failure));
    if (came.failure || !came.changed) end(bad_signature_error());
    return;
  }
  brought_ = std::move(came.document);
  if (needs_ == need::key && brought_ != nullptr) {
    // The set's own handle, if the key is in it; and of two thumbprints the one that the set has.
    const jwk_set& keys = brought_->keys();
    if (auto own = keys.select(query_of(*header_, &keys))) return static_cast<void>(key_ = *std::move(own));
  }
  if (came.failure) return end(*std::move(came.failure));
  key_ = std::move(came.key);
}

// -- tokens: with a manager --

// What would be served now, without waiting.
AXIOMS_JWKS_INLINE jwks_ptr served_now(engine& core, const question& asked) {
  url_asked where = std::optional<parsed_url>();
  if (auto now = answer_at_once<result<jwks_ptr>>(core, asked, where); now && *now) return **std::move(now);
  if (core.idle()) return nullptr;  // what was imported is to be looked up: that begins its background refresh
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
  const auto need = check.look(served ? &served->keys() : nullptr, now);
  check.remember(served);
  return need;
}

AXIOMS_JWKS_INLINE result<verified_token> verify_alone(const std::shared_ptr<const token_core>& rules,
                                                       std::string_view token, const jwk_set& keys,
                                                       std::chrono::system_clock::time_point now) {
  token_check check(rules, token);
  if (check.read()) check.end_with(keys, check.look(&keys, now));
  return check.take_result();
}

AXIOMS_JWKS_INLINE std::optional<result<verified_token>> verify_at_once(engine& core,
                                                                        const std::shared_ptr<const token_core>& rules,
                                                                        std::string_view token) {
  if (auto known = token_check::recall(*rules, core, token)) return known;
  token_check check(rules, token);
  if (proceed(check, core) != token_check::need::nothing) return std::nullopt;
  return check.take_result();
}

AXIOMS_JWKS_INLINE result<verified_token> verify_waiting(engine& core, const std::shared_ptr<const token_core>& rules,
                                                         std::string_view token, const stop_token& stop) {
  if (auto known = token_check::recall(*rules, core, token)) return *std::move(known);
  token_check check(rules, token);
  for (auto need = proceed(check, core); need != token_check::need::nothing; need = proceed(check, core))
    check.take(core.ask(check.asked(need), stop));
  return check.take_result();
}

class token_waiter final : public async_waiter {
 public:
  token_waiter(const question& asked, executor_ref executor, std::shared_ptr<token_task> task)
      : async_waiter(asked, url_asked_of(asked), executor), task_(std::move(task)) {}
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

AXIOMS_JWKS_INLINE token_task::token_task(std::shared_ptr<engine> core, std::shared_ptr<const token_core> rules,
                                          std::string_view token, executor_ref where)
    : core_(std::move(core)), check_(std::make_shared<token_check>(std::move(rules), token)), where_(where) {
  check_->keep_text();
}

AXIOMS_JWKS_INLINE result<verified_token> token_task::take_result() {
  on_stop_.reset();
  return check_->take_result();
}

AXIOMS_JWKS_INLINE void token_task::start(const stop_token& stop) {
  const auto cancel = [task = weak_from_this()]() noexcept {
    if (const auto still = task.lock()) still->cancel();
  };
  if (stop.stop_possible())
    on_stop_ = std::make_shared<stop_callback<std::remove_const_t<decltype(cancel)>>>(stop, cancel);
  check_->recall(*core_);
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
  AXIOMS_JWKS_TRY { check_->take(std::move(came)); }
  AXIOMS_JWKS_CATCH_ALL { check_->end(memory_error()); }
  if (!go_on()) complete();
}

AXIOMS_JWKS_INLINE bool token_task::go_on() noexcept {
  AXIOMS_JWKS_TRY {
    const auto need = proceed(*check_, *core_);
    if (need == token_check::need::nothing) return false;
    const auto who = std::make_shared<token_waiter>(check_->asked(need), where_, shared_from_this());
    who->arm(cancelled_.get_token(), core_);
    const auto core = core_;  // who goes on in there may let go of this
    core->submit(who);
    return true;
  }
  AXIOMS_JWKS_CATCH_ALL {
    check_->end(memory_error());
    return false;
  }
}

}  // namespace detail

// -- tokens: what users call --

AXIOMS_JWKS_INLINE bool token_operation::awaiter::await_suspend(std::coroutine_handle<> frame) {
  const executor_ref where = what_.executor_ ? what_.executor_ : what_.shell_->default_executor;
  const auto task =
      std::make_shared<detail::coroutine_token_task>(what_.shell_->core(), what_.rules_, what_.token_, where);
  task->frame.starts(frame);
  task_ = task;
  // From here on the frame may be resumed elsewhere, and *this be gone with it, when suspend() says so.
  task->start(what_.stop_);
  return task->frame.suspend();
}

AXIOMS_JWKS_INLINE result<token_rules> token_rules::from_environment() {
  using detail::environment;
  token_rules out;
  out.issuer = environment("AXIOMS_ISS_URL");
  if (const auto domain = environment("AXIOMS_DOMAIN"); out.issuer.empty() && !domain.empty())
    out.issuer = detail::concat("https://", domain);
  for (const auto& [variable, list] :
       {std::pair("AXIOMS_AUDIENCE", &out.audience), std::pair("AXIOMS_TOKEN_TYPS", &out.types),
        std::pair("AXIOMS_SCOPE_CLAIMS", &out.scope_claims), std::pair("AXIOMS_ROLES_CLAIMS", &out.role_claims),
        std::pair("AXIOMS_PERMISSIONS_CLAIMS", &out.permission_claims)}) {
    std::vector<std::string> names;
    detail::any_item(environment(variable), ", \t", [&](std::string_view one) {
      names.emplace_back(one);
      return false;
    });
    if (!names.empty()) *list = std::move(names);
  }
  return out;
}

AXIOMS_JWKS_INLINE result<void> token_rules::validate() const {
  if (auto broken = detail::broken_rule(*this)) return *std::move(broken);
  return {};
}

AXIOMS_JWKS_INLINE claim_view::kind claim_view::type() const noexcept {
  // In the order of json_node::kind.
  constexpr std::array kinds{kind::null,   kind::boolean, kind::number, kind::number,
                             kind::string, kind::array,   kind::object};
  return node_ == nullptr ? kind::missing : kinds.at(static_cast<std::size_t>(node_->type));
}

AXIOMS_JWKS_INLINE std::optional<std::int64_t> claim_view::integer() const noexcept {
  if (type() != kind::number) return std::nullopt;
  if (node_->type == detail::json_node::kind::integer) return node_->integer;
  constexpr double limit = 9007199254740992.0;  // 2^53: up to there each whole number is a double of its own
  if (node_->real < -limit || node_->real > limit || std::trunc(node_->real) != node_->real) return std::nullopt;
  return static_cast<std::int64_t>(node_->real);
}

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
  return clock::time_point(std::chrono::duration_cast<clock::duration>(since));
}
AXIOMS_JWKS_INLINE claim_view verified_token::operator[](std::string_view name) const {
  return claim_view(detail::claim_at(content_->claims.root(), name));
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
  return detail::verify_alone(detail::compile_rules({rules}, false), token, keys, now);
}

AXIOMS_JWKS_INLINE result<std::string> verify_signature(std::string_view jws, const jwk_set& keys) {
  using detail::make_error;
  const auto parts = detail::token_parts::of(jws, std::size_t{1} << 20U);
  if (!parts) return parts.error();
  const auto header = detail::read_header(parts->header);
  if (!header) return header.error();
  auto payload = detail::base64url_decode(parts->payload);
  const auto signature = detail::base64url_decode(parts->signature);
  if (!payload || !signature) return make_error(errc::malformed_token, "the payload or the signature is no base64url");
  detail::tried_keys candidates;
  if (auto why = detail::keys_for(**header, keys, candidates)) return *std::move(why);
  switch (candidates.check((*header)->alg, parts->signed_text, *signature)) {
    case detail::signature_state::good: return *std::move(payload);
    case detail::signature_state::bad: return detail::bad_signature_error();
    default: return detail::no_verification_error();
  }
}

#if !defined(AXIOMS_JWKS_NO_HTTPLIB)

// -- process-wide managers --

namespace detail {

struct process_wide {
  static void shut_down(async_jwks_manager& manager) noexcept { manager.shutdown_and_join(); }
  static void shut_down(jwks_manager& manager) noexcept { manager.shutdown(); }

  template <class Manager>
  struct slot {
    httplib_fetcher fetch{};
    Manager manager{fetch};
  };
  template <class Manager>
  static slot<Manager>& get() {
    // Never deleted: other threads may use it while the process exits. No guard, which a forked child could find taken.
    static constinit std::atomic<slot<Manager>*> only{nullptr};
    slot<Manager>* seen = only.load(std::memory_order_acquire);
    if (seen != nullptr) return *seen;
    auto made = std::make_unique<slot<Manager>>();
    if (!only.compare_exchange_strong(seen, made.get(), std::memory_order_acq_rel)) return *seen;
    // After OpenSSL, which every engine initialises: what is registered later runs earlier.
    std::atexit([] { shut_down(get<Manager>().manager); });
    return *made.release();
  }
  template <class Manager>
  static Manager& with(httplib_options&& options) {
    slot<Manager>& only = get<Manager>();
    if (!only.manager.running()) httplib_access::set_options(only.fetch, std::move(options));
    return only.manager;
  }
};

AXIOMS_JWKS_INLINE jwks_config short_config(std::string_view jwks_url, seconds refresh_interval, seconds cache_ttl,
                                            bool prefetch) {
  return {.jwks_url = std::string(jwks_url),
          .refresh_interval = refresh_interval,
          .cache_ttl = cache_ttl,
          .prefetch = prefetch};
}

}  // namespace detail

AXIOMS_JWKS_INLINE jwks_manager& default_jwks_manager() { return detail::process_wide::get<jwks_manager>().manager; }
AXIOMS_JWKS_INLINE async_jwks_manager& default_async_jwks_manager() {
  return detail::process_wide::get<async_jwks_manager>().manager;
}

AXIOMS_JWKS_INLINE result<void> initialize_jwks_manager(jwks_config config, httplib_options options) {
  return detail::process_wide::with<jwks_manager>(std::move(options)).initialize(std::move(config));
}
AXIOMS_JWKS_INLINE void shutdown_jwks_manager() noexcept { default_jwks_manager().shutdown(); }

AXIOMS_JWKS_INLINE async_operation<result<void>> initialize_async_jwks_manager(jwks_config config,
                                                                               httplib_options options) {
  return detail::process_wide::with<async_jwks_manager>(std::move(options)).initialize(std::move(config));
}
AXIOMS_JWKS_INLINE async_operation<void> shutdown_async_jwks_manager() {
  return default_async_jwks_manager().shutdown();
}

#endif

}  // namespace AXIOMS_JWKS_ABI
}  // namespace axioms

#endif  // !AXIOMS_JWKS_SPLIT || AXIOMS_JWKS_IMPLEMENTATION

// ---- clean-up -----------------------------------------------------------------------------------

#undef AXIOMS_JWKS_ABI
#undef AXIOMS_JWKS_CATCH_ALL
#undef AXIOMS_JWKS_CPLUSPLUS
#undef AXIOMS_JWKS_DEFAULT_FETCHER
#undef AXIOMS_JWKS_HOT
#undef AXIOMS_JWKS_COLD
#undef AXIOMS_JWKS_INLINE
#undef AXIOMS_JWKS_LIFETIMEBOUND
#undef AXIOMS_JWKS_SUSPENDS
#undef AXIOMS_JWKS_TRY

#pragma pop_macro("min")
#pragma pop_macro("max")
#pragma pop_macro("check")
#pragma pop_macro("require")
#pragma pop_macro("verify")

#endif  // AXIOMS_JWKS_HPP
