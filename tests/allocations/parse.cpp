// Memory runs out at the n-th allocation, for every n, while a key set, metadata or a saved cache is read or written: nothing is
// leaked, nothing ends the program, and nothing is half done. Then the same inside OpenSSL.
#include "support/failing_new.hpp"
#include "support/jwk_text.hpp"
#include "support/rig.hpp"
#include "vectors/keys.hpp"

#include <doctest/doctest.h>

#include <openssl/crypto.h>
#include <openssl/err.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <thread>

using axioms::errc, axioms::jwk_set, axioms::detail::verdict;
using support::failing_new;

namespace {

// ---- OpenSSL's memory ----------------------------------------------------------------------------
// Replaced before main(), for OpenSSL refuses to change its allocator later.

constexpr std::uint64_t never = ~std::uint64_t{0};
thread_local constinit std::uint64_t openssl_seen = 0, openssl_fails_at = never, openssl_fails_from = never;

bool openssl_fails() {
  const std::uint64_t nth = openssl_seen++;
  return nth == openssl_fails_at || nth >= openssl_fails_from;
}
void* openssl_malloc(std::size_t bytes, const char* /*file*/, int /*line*/) {
  return openssl_fails() ? nullptr : std::malloc(bytes);
}
void* openssl_realloc(void* block, std::size_t bytes, const char* /*file*/, int /*line*/) {
  return openssl_fails() ? nullptr : std::realloc(block, bytes);
}
template <class F>
std::uint64_t openssl_allocations(F f) {
  openssl_seen = 0;
  f();
  return openssl_seen;
}
void openssl_release(void* block, const char* /*file*/, int /*line*/) { std::free(block); }
const int openssl_replaced = CRYPTO_set_mem_functions(openssl_malloc, openssl_realloc, openssl_release);

// Every kind of key, of fault and of text.
std::string mixed_set() {
  using support::with;
  return support::set_of(
      {with(vectors::rsa_jwk, R"("kid":"r\u0061","use":"sig","key_ops":["verify"],"x5c":["MIICMIICMIICMIIC"])"),
       with(vectors::p256_jwk, R"("kid":"e","x5t":"a thumbprint that is long enough","iat":1.5)"),
       with(vectors::ed25519_jwk, R"("kid":"o","note":{"a":[1,2,{"b":null}]})"),
       with(vectors::p384_jwk, R"("kid":"private, and no short one","d":"c2VjcmV0")"),
       with(vectors::rsa_1024_jwk, R"("kid":"weak, with a name that is long")"),
       R"({"kty":"unknown kind of key, told in the reason"})", "7"});
}
axioms::fetch_request request() {
  axioms::fetch_request out;
  out.url = "https://idp.example.com/.well-known/jwks.json";
  return out;
}

enum class outcome { whole, failed, wrong };

// f() with each of its allocations failing in turn. It asserts nothing itself, for doctest allocates, too.
template <class F>
void fails_cleanly(F f) {
  const auto tried = [&]() -> outcome {
    try {
      return f();
    } catch (const std::bad_alloc&) { return outcome::failed; }
  };
  REQUIRE(tried() == outcome::whole);  // what is made once is made here
  const std::uint64_t all = failing_new::count([&] { static_cast<void>(tried()); });
  CHECK(all > 5);
  std::uint64_t failures = 0;
  for (std::uint64_t n = 0; n < all; ++n) {
    outcome came = outcome::wrong;
    const std::int64_t before = failing_new::alive_here();
    const bool failed = failing_new::during(n, [&] { came = tried(); });
    const std::int64_t after = failing_new::alive_here();
    CAPTURE(n);
    CHECK(failed);
    CHECK(after == before);
    CHECK(came != outcome::wrong);
    failures += came == outcome::failed ? 1U : 0U;
  }
  CHECK(failures > all * 3 / 4);  // some do without: std::sort's like
  CHECK(tried() == outcome::whole);
}

using support::holds;
bool holds_secret(std::string_view text) { return holds(text, "c2VjcmV0"); }

}  // namespace

TEST_CASE("a set is read whole, or bad_alloc leaves nothing behind") {
  const std::string text = mixed_set();
  fails_cleanly([&] {
    const auto set = jwk_set::parse(text);
    return set && set->size() == 3 && set->skipped().size() == 4 && set->held_secrets() ? outcome::whole
                                                                                        : outcome::wrong;
  });
}

// Red when judge() throws, or makes a text about the failure that does not fit into the string itself.
TEST_CASE("an answer is judged without an exception: a document, or out of memory") {
  const std::string text = mixed_set();
  const auto asked = request();
  fails_cleanly([&] {
    axioms::fetch_response response{200, text, {{"ETag", "\"an etag that is long enough\""}}, {}};
    try {
      const verdict what = axioms::detail::judge(asked, std::move(response), {});
      if (what.what == verdict::kind::document) {
        const auto& content = *what.content;
        return content.keys.size() == 3 && !holds_secret(content.body) ? outcome::whole : outcome::wrong;
      }
      const bool told = what.why.code == errc::no_resources && what.why.description == "out of memory";
      return told && what.content == nullptr ? outcome::failed : outcome::wrong;
    } catch (const std::bad_alloc&) { return outcome::wrong; }
  });
}

// Red when judge_metadata() throws.
TEST_CASE("metadata are found with their URL, or not") {
  axioms::jwks_config config;
  config.issuer = "https://idp.example.com/a/tenant/with/a/long/name";
  config.discovery = true;
  const auto source = axioms::detail::metadata_source_of(config);
  REQUIRE(source);
  const std::string uri = "https://keys.example.com/with/a/long/path";
  const std::string body =
      R"({"issuer":")" + config.issuer + R"(","jwks_uri":")" + uri + R"(","scopes_supported":["a","b"]})";
  const auto asked = request();
  fails_cleanly([&] {
    axioms::fetch_response response{200, body, {}, {}};
    try {
      const verdict what = axioms::detail::judge_metadata(asked, std::move(response), *source, {});
      if (what.what == verdict::kind::found) return what.jwks_uri == uri ? outcome::whole : outcome::wrong;
      return what.why.code == errc::no_resources ? outcome::failed : outcome::wrong;
    } catch (const std::bad_alloc&) { return outcome::wrong; }
  });
}

TEST_CASE("a cache is exported whole, or bad_alloc leaves nothing behind") {
  support::rig r;
  r.provider.always(support::response(200, mixed_set()));
  r.start();
  const std::string whole = r.manager.export_cache();
  fails_cleanly([&] { return r.manager.export_cache() == whole ? outcome::whole : outcome::wrong; });
}

// Its manager and that one's threads have ended: they would be counted below.
std::string saved_cache() {
  support::rig r;
  r.provider.always(support::response(200, mixed_set()));
  r.start();
  return r.manager.export_cache();
}

// Red when an URL that was imported is in its place before its document is.
TEST_CASE("a cache is imported whole, or bad_alloc leaves the manager as it was") {
  const std::string saved = saved_cache();
  REQUIRE(support::rig().manager.import_cache(saved));  // what is made once is made here
  bool failed = true;
  std::uint64_t n = 0, refused = 0;
  for (; failed; ++n) {
    CAPTURE(n);
    const std::int64_t before = failing_new::alive();
    {
      support::rig next;
      bool threw = false;
      failed = failing_new::during(n, [&] {
        try {
          threw = !next.manager.import_cache(saved);
        } catch (const std::bad_alloc&) { threw = true; }
      });
      CHECK((failed || !threw));
      refused += threw ? 1U : 0U;
      const std::string now = next.manager.export_cache();
      CHECK((now == saved || (threw && holds(now, R"("documents":[])"))));
      const auto again = next.manager.import_cache(saved);
      REQUIRE(again);
      CHECK(*again == (now == saved ? 0U : 1U));
      CHECK(next.manager.export_cache() == saved);
    }
    CHECK(failing_new::alive() == before);
  }
  CHECK(n > 50);
  CHECK(refused > n / 2);
}

// Red when a member is not tried again that OpenSSL refused, for whatever reason: at one place it says that the point is not on the curve
// although it had no memory. Or when the second try finds what the first has left in the key.
TEST_CASE("one allocation of OpenSSL's that fails costs no key") {
  REQUIRE(openssl_replaced == 1);
  const std::string text = mixed_set();
  const auto good = jwk_set::parse(text);
  REQUIRE(good);
  const std::uint64_t all = openssl_allocations([&] { REQUIRE(jwk_set::parse(text)); });
  CHECK(all > 100);
  std::string as_published;
  for (const auto& key : *good) as_published += "," + key->thumbprint() + key->to_json();
  std::size_t whole = 0, refused = 0, smaller = 0;
  for (std::uint64_t n = 0; n < all; ++n) {
    openssl_seen = 0;
    openssl_fails_at = n;
    const auto set = jwk_set::parse(text);
    openssl_fails_at = never;
    CHECK(ERR_peek_error() == 0);
    if (set) {
      ++(set->size() == 3 ? whole : smaller);
      for (const auto& key : *set) CHECK(holds(as_published, "," + key->thumbprint() + key->to_json()));
    } else {
      CHECK(set.error().code == errc::no_resources);
      ++refused;
    }
  }
  MESSAGE("of ", all, " allocations of OpenSSL: ", whole, " cost nothing, ", refused, " the set, ", smaller, " a key");
  CHECK(smaller == 0);
}

// Red when a member for which OpenSSL had no memory is skipped like one that it refuses: a smaller set that looks good.
TEST_CASE("a set is not made smaller when OpenSSL has no memory at all") {
  const std::string text = support::set_of({std::string(vectors::rsa_jwk), std::string(vectors::rsa_e3_jwk)});
  REQUIRE(jwk_set::parse(text));
  for (const std::uint64_t keys : {0U, 1U}) {
    // From the first allocation on, or from the first of the second key on.
    const std::string first = support::set_of({std::string(vectors::rsa_jwk)});
    openssl_fails_from = keys == 0 ? 0 : openssl_allocations([&] { REQUIRE(jwk_set::parse(first)); });
    openssl_seen = 0;
    const auto set = jwk_set::parse(text);
    openssl_fails_from = never;
    REQUIRE_FALSE(set);
    CHECK(set.error().code == errc::no_resources);
    CHECK(set.error().description == "OpenSSL had no memory for key " + std::to_string(keys) + " of the set");
  }
}

// Red when an empty error queue is taken for a refusal (the thread's queue needs memory itself), or a key type that is not found for
// one that OpenSSL lacks.
TEST_CASE("on a thread that has no memory for OpenSSL from its n-th allocation on, a set is whole or not there") {
  // After the second key's lookup fails the first one's reason would not be seen, so each set is of its own.
  const std::string second(vectors::ed25519_jwk),
      sets[] = {support::set_of({std::string(vectors::rsa_jwk), second}),
                support::set_of({std::string(vectors::rsa_jwk), std::string(vectors::rsa_e3_jwk)})};
  REQUIRE(jwk_set::parse(sets[0]));
  bool came_to_it = true;
  std::uint64_t n = 0;
  for (std::size_t which = 0; which < 2; n = came_to_it ? n + 1 : 0, which += came_to_it ? 0U : 1U) {
    const std::string& text = sets[which];
    std::size_t keys = 0;
    std::string why;
    std::thread([&] {
      openssl_seen = 0;
      openssl_fails_from = n;
      const auto set = jwk_set::parse(text);
      openssl_fails_from = never;
      came_to_it = openssl_seen > n;
      if (set) keys = set->size();
      if (!set) why = to_string(set.error().code);
    }).join();
    CAPTURE(n);
    CHECK((keys == 2 || why == "no_resources"));
    CHECK((keys == 2) == !came_to_it);
  }
}
