// A crowd of kids that no provider ever published, through a whole manager.
#include "support/fake_fetcher.hpp"
#include "support/manual_clock.hpp"

#include <doctest/doctest.h>

#if !defined(AXIOMS_JWKS_TEST_TIME_FACTOR)
#define AXIOMS_JWKS_TEST_TIME_FACTOR 1
#endif

using namespace std::chrono_literals;
using axioms::errc;

namespace {

struct callback_only {
  support::fake_fetcher provider;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    provider.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};

// A manager on a loop alone: every answer comes inside the call.
struct world {
  support::fake_fetcher provider;
  support::manual_clock clock;
  axioms::basic_async_jwks_manager<callback_only, support::manual_clock> manager{callback_only{provider}, clock};

  world() {
    axioms::jwks_config config;
    config.jwks_url = "https://idp.example.com/.well-known/jwks.json";
    bool started = false;
    manager.async_initialize(config, [&](const axioms::result<void>& done) { started = done.has_value(); });
    REQUIRE(started);
  }
  // What a lookup ends with: errc{} is a key.
  errc key(std::string_view kid) {
    std::optional<errc> out;
    manager.async_get_key({.kid = kid, .alg = "EdDSA"}, [&](const axioms::result<axioms::key_ptr>& found) {
      out = found ? errc{} : found.error().code;
    });
    REQUIRE(out.has_value());
    return *out;
  }
};

}  // namespace

// Ten minutes of it, in which a key is published. The attacker is always first to ask when a token falls into the bucket.
//
// Red when the bucket gives one token too many, or when every question that it refuses puts off the next token.
TEST_CASE("a million random kids cause no more requests than the budget, and a new key is found within one interval" *
          doctest::test_suite("slow")) {
  constexpr std::chrono::milliseconds interval = 30s, step = 100ms, attack = 600s, published_after = 300s + 50ms;
  constexpr int kids_in_a_step = 1'000'000 / (attack / step) / AXIOMS_JWKS_TEST_TIME_FACTOR + 1;
  world w;
  std::uint64_t random = 1, tried = 0, unexpected = 0;
  std::optional<std::chrono::milliseconds> found_after;
  bool published = false;
  for (std::chrono::milliseconds now{0}; now < attack; now += step, w.clock.advance(step)) {
    if (!published && now >= published_after) {
      published = true;
      w.provider.always(support::ok({"k1", "new"}));
    }
    for (int i = 0; i < kids_in_a_step; ++i, ++tried) {
      random = random * 6364136223846793005U + 1442695040888963407U;
      const errc said = w.key("attack-" + std::to_string(random));
      unexpected += said == errc::throttled || said == errc::key_not_found ? 0U : 1U;
    }
    const errc known = w.key("k1"), fresh = w.key("new");
    unexpected += known == errc{} ? 0U : 1U;  // known kids never pay
    unexpected += !published && fresh == errc{} ? 1U : 0U;
    if (published && fresh == errc{} && !found_after) found_after = now - published_after;
    unexpected += found_after && fresh != errc{} ? 1U : 0U;
  }
  CHECK(tried >= 1'000'000 / AXIOMS_JWKS_TEST_TIME_FACTOR);
  CHECK(unexpected == 0);
  // The first fetch, the burst, and one for each interval that is over.
  CHECK(w.provider.requests() == 1 + 3 + attack / interval - 1);
  REQUIRE(found_after.has_value());
  CHECK(*found_after <= interval);
}
