// The memo of verified tokens: it answers for the same text only, and only as long as the verification would come to the same.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "axioms_jwks.hpp"
#include "support/rig.hpp"
#include "support/token_maker.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace std::chrono_literals;
using namespace support;  // NOLINT(google-build-using-namespace): how keys and tokens are made
using axioms::errc, axioms::token_rules, axioms::verified_token;

namespace {

const std::string issuer = "https://idp.example.com/";
const std::string audience = "https://api.example.com";

token_rules rules_with(std::size_t memo) { return {.issuer = issuer, .audience = {audience}, .memo = memo}; }
errc code_of(const axioms::result<verified_token>& what) { return what ? errc{} : what.error().code; }

std::string claims_from(double exp, const std::string& more = "", const std::string& from = issuer) {
  return R"({"iss":")" + from + R"(","aud":")" + audience + R"(","exp":)" + std::to_string(exp) + more + "}";
}

// A verifier with a memo over a manager whose provider publishes key one.
struct remembering : rig {
  explicit remembering(axioms::jwks_config config = config_for(url), std::size_t memo = 100)
      : verifier(manager, rules_with(memo)) {
    publish({&key_one()});
    start(std::move(config));
    quiet();
  }
  void publish(const std::vector<const signing_key*>& keys) { provider.always(response(200, set_of_keys(keys))); }
  double now() const { return std::chrono::duration<double>(clock.system_now().time_since_epoch()).count(); }
  std::string good(const signing_key& key = key_one(), const std::string& more = "") {
    return key.token(claims_from(now() + 3600, more));
  }
  errc code(const std::string& token) { return code_of(verifier.verify(token)); }
  // Whether it was known: a copy of what was verified before.
  bool known(const std::string& token) { return known_by(verifier, token); }
  template <class Verifier>
  static bool known_by(const Verifier& by, const std::string& token) {
    const auto a = by.verify(token), b = by.verify(token);
    REQUIRE(a.has_value());
    REQUIRE(b.has_value());
    return a->payload().data() == b->payload().data();
  }
  // From then on it stands in front of the memo, too.
  const void* remember(const std::string& token) {
    REQUIRE(known(token));
    return verifier.verify(token)->payload().data();
  }
  bool is(const void* before, const std::string& token) {
    const auto now = verifier.verify(token);
    REQUIRE(now.has_value());
    return now->payload().data() == before;
  }
  axioms::basic_token_verifier<manager_type> verifier;
};

}  // namespace

TEST_CASE("a token is known again, on every thread, and what is given shares its content") {
  remembering v;
  const std::string token = v.good(key_one(), R"(,"sub":"somebody")");
  const void* const content = v.remember(token);
  CHECK(v.is(content, token));
  std::thread([&] {
    CHECK(v.is(content, token));
    CHECK(v.is(content, token));
  }).join();
  const auto again = v.verifier.verify(token);
  CHECK(again->token() == token);
  CHECK(again->subject() == "somebody");
  CHECK(again->key() == *v.manager.get_jwks(url).value()->keys().begin());
}

TEST_CASE("without memo nothing is known again") {
  remembering v(config_for(url), 0);
  CHECK_FALSE(v.known(v.good()));
}

// Red when the generation is not compared.
TEST_CASE("with another key set a token is verified anew, and refused when its key was withdrawn") {
  auto config = config_for(url);
  config.min_refresh_interval = 0s;
  remembering v(config);
  const std::string token = v.good();
  const void* const content = v.remember(token);
  REQUIRE(v.manager.refresh(url));  // the same bytes: the same generation
  CHECK(v.is(content, token));
  v.publish({&key_one(), &key_two()});
  REQUIRE(v.manager.refresh(url));
  CHECK_FALSE(v.is(content, token));
  CHECK(v.known(token));
  v.publish({&key_two()});
  REQUIRE(v.manager.refresh(url));
  CHECK(v.code(token) == errc::key_not_found);
  std::thread([&] { CHECK(v.code(token) == errc::key_not_found); }).join();
}

// Red when the front does not ask whose token it is.
TEST_CASE("another verifier, with other rules, knows nothing of it") {
  remembering v;
  const std::string token = v.good();
  v.remember(token);
  auto rules = rules_with(100);
  rules.audience = {"https://other.example.com"};
  const axioms::basic_token_verifier other(v.manager, rules);
  for (int i = 0; i < 3; ++i) CHECK(code_of(other.verify(token)) == errc::audience_mismatch);
  const axioms::basic_token_verifier same(v.manager, rules_with(100));
  CHECK(same.verify(token)->payload().data() != v.verifier.verify(token)->payload().data());
}

// Red when exp is not asked, or without its leeway.
TEST_CASE("what is known expires when it would expire") {
  remembering v;
  const std::string token = key_one().token(claims_from(v.now() + 100));
  const void* const content = v.remember(token);
  v.clock.advance(159s);
  CHECK(v.is(content, token));
  v.clock.advance(999ms);
  CHECK(v.is(content, token));
  v.clock.advance(1ms);
  CHECK(v.code(token) == errc::token_expired);
  v.clock.step_wall(-1s);
  CHECK(v.code(token) == errc{});
}

// Red when nbf is not asked, or iat is not.
TEST_CASE("what is known is not valid before its nbf and iat, when the clock is set back") {
  for (const char* name : {"nbf", "iat"}) {
    remembering v;
    const std::string token = v.good(key_one(), ",\"" + std::string(name) + "\":" + std::to_string(v.now()));
    const void* const content = v.remember(token);
    v.clock.step_wall(-60s);
    CHECK(v.is(content, token));
    v.clock.step_wall(-1s);
    CHECK(v.code(token) == errc::token_not_yet_valid);
  }
}

// Red when a hit does not ask whether there is a document to serve.
TEST_CASE("in an outage what is known is known, and nothing is once no key set may be served") {
  remembering v;
  v.provider.always(response(500));
  const std::string token = key_one().token(claims_from(4000000000));
  v.remember(token);
  v.clock.advance(7200s + 1s);
  CHECK(v.code(token) == errc{});
  REQUIRE(eventually([&] { return v.known(token); }));  // once no caller would wait for the request any more
  v.clock.advance(7200s);
  const auto gone = v.verifier.verify(token);
  REQUIRE_FALSE(gone);
  CHECK(gone.error().status_code() == 503);
}

// Red when a hit does not ask the manager.
TEST_CASE("shut down, nothing is known") {
  remembering v;
  const std::string token = v.good();
  v.remember(token);
  v.manager.shutdown();
  CHECK(v.code(token) == errc::shut_down);
  v.start();
  v.quiet();
  CHECK(v.code(token) == errc{});
}

// Red when the comparison leaves out a byte, ends where the shorter text does, or is left out.
TEST_CASE("every byte of the text counts" * doctest::test_suite("slow")) {
  auto config = config_for(url);
  config.unknown_kid_burst = 0;
  remembering v(config);
  std::vector<std::string> tokens;
  for (const std::size_t more : {0U, 1U, 32U, 64U})
    tokens.push_back(v.good(key_one(), R"(,"n":")" + std::string(more, 'x') + '"'));
  for (const std::string& token : tokens) {
    v.remember(token);
    for (std::size_t at = 0; at < token.size(); ++at) {
      std::string other = token;
      other[at] = other[at] == 'A' ? 'B' : 'A';
      CHECK_FALSE(v.verifier.verify(other).has_value());
      if (at % 16 == 0) CHECK_FALSE(v.verifier.verify(token.substr(at + 1)).has_value());
    }
    CHECK_FALSE(v.verifier.verify(token + token).has_value());
    CHECK_FALSE(v.verifier.verify("e" + token).has_value());
  }
}

// Red when keep() does not look for the key in the set.
TEST_CASE("a token of a withdrawn key is good for the time of grace, and is not remembered") {
  auto config = config_for(url);
  config.min_refresh_interval = 0s;
  config.withdrawn_key_grace = 300s;
  remembering v(config);
  const std::string token = v.good();
  v.remember(token);
  v.publish({&key_two()});
  REQUIRE(v.manager.refresh(url));
  CHECK_FALSE(v.known(token));
  CHECK(v.known(v.good(key_two())));
}

// Red when what was refused is remembered.
TEST_CASE("what was refused is not remembered") {
  remembering v;
  const std::string early = v.good(key_one(), ",\"nbf\":" + std::to_string(v.now() + 600));
  CHECK(v.code(early) == errc::token_not_yet_valid);
  const std::string unknown = v.good(key_two());
  CHECK(v.code(unknown) == errc::key_not_found);
  v.publish({&key_one(), &key_two()});
  v.clock.advance(600s);
  CHECK(v.code(early) == errc{});
  CHECK(v.code(unknown) == errc{});
}

TEST_CASE("with several issuers what is known is bound to its own key set") {
  rig r;
  auto config = config_for(url);
  config.min_refresh_interval = 0s;
  const std::string other_url = "https://other.example.com/jwks.json", other = "https://other.example.com/";
  const auto publish = [&](const std::string& where, const signing_key& key) {
    r.provider.always_at(where, response(200, set_of_keys({&key})));
  };
  publish(url, key_one());
  publish(other_url, key_one());
  r.start(config);
  auto first = rules_with(10), second = rules_with(10);
  first.jwks_url = url;
  second.jwks_url = other_url;
  second.issuer = other;
  const axioms::basic_token_verifier verifier(r.manager, std::vector<token_rules>{first, second});
  const std::string a = key_one().token(claims_from(4000000000)),
                    b = key_one().token(claims_from(4000000000, "", other));
  REQUIRE(remembering::known_by(verifier, a));
  REQUIRE(remembering::known_by(verifier, b));
  publish(url, key_two());
  REQUIRE(r.manager.refresh(url));
  CHECK(code_of(verifier.verify(a)) == errc::key_not_found);
  CHECK(remembering::known_by(verifier, b));
}

// Red when a shard gets room for more, or nothing ever goes.
TEST_CASE("no more tokens are remembered than were asked for, and the oldest go" * doctest::test_suite("slow")) {
  for (const std::size_t memo : {std::size_t{1}, std::size_t{9}, std::size_t{100}}) {
    remembering v(config_for(url), memo);
    const axioms::key_ptr key = *v.manager.get_jwks(url).value()->keys().begin();
    const long others = key.use_count();
    std::string last;
    for (int i = 0; i < 300; ++i) {
      last = v.good(key_one(), ",\"n\":" + std::to_string(i));
      REQUIRE(v.code(last) == errc{});
    }
    const auto alive = static_cast<std::size_t>(key.use_count() - others);
    CHECK(alive <= memo);
    CHECK(alive > memo / 2);
    CHECK(v.known(last));
    for (int i = 0; i < 100; ++i) REQUIRE(v.known(v.good(key_one(), ",\"m\":" + std::to_string(i))));
    CHECK(static_cast<std::size_t>(key.use_count() - others) <= memo + 16);
  }
}

// Red when the seconds of time() count where they may be a second late.
TEST_CASE("by the system's clock a known token expires in time" * doctest::test_suite("slow")) {
  fake_fetcher provider;
  provider.always(response(200, set_of_keys({&key_one()})));
  axioms::basic_jwks_manager<fake_fetcher> manager(provider);
  REQUIRE(manager.initialize(config_for(url)));
  const axioms::basic_token_verifier verifier(manager, rules_with(10));
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  };
  const double end = now() + 0.02;
  const std::string token = key_one().token(claims_from(end - 60));
  REQUIRE(remembering::known_by(verifier, token));
  double asked = 0;
  errc said{};
  while (said == errc{}) {
    asked = now();
    REQUIRE(asked < end + 30);
    said = code_of(verifier.verify(token));
    if (said == errc{} && asked > end + 1e-6) FAIL_CHECK("accepted too late");
  }
  CHECK(said == errc::token_expired);
  CHECK(now() >= end - 1e-6);
  const std::string later = key_one().token(claims_from(end + 3600));
  CHECK(remembering::known_by(verifier, later));
}

// Red when the second that a thread has seen last stands for the time of every clock.
TEST_CASE("by a clock of one's own it expires in time, also on a thread that asks the system's clock for others") {
  fake_fetcher provider;
  provider.always(response(200, set_of_keys({&key_one()})));
  axioms::basic_jwks_manager<fake_fetcher> other(provider);
  REQUIRE(other.initialize(config_for(url)));
  remembering v;
  v.clock.step_wall(
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now() - v.clock.system_now()));
  const std::string token = key_one().token(claims_from(v.now() + 100));
  v.remember(token);
  v.clock.advance(160s);
  for (int i = 0; i < 2; ++i) REQUIRE(other.get_jwks(url));
  CHECK(v.code(token) == errc::token_expired);
}

TEST_CASE("the async verifier knows tokens again, with an executor too") {
  manual_clock clock;
  fake_fetcher provider;
  provider.always(response(200, set_of_keys({&key_one()})));
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  const axioms::basic_token_verifier verifier(manager, rules_with(10));
  std::promise<void> started;
  manager.async_initialize(config_for(url), [&](const axioms::result<void>&) { started.set_value(); });
  started.get_future().wait();
  const std::string token = key_one().token(claims_from(4000000000));
  struct inline_executor {
    void post(axioms::executor_task task) const { task(); }
  } here;
  std::set<const void*> contents;
  for (int i = 0; i < 3; ++i) {
    for (const bool with_executor : {false, true}) {
      std::promise<const void*> said;
      axioms::async_options how;
      if (with_executor) how.executor = axioms::executor_ref(here);
      verifier.async_verify(
          token,
          [&](const axioms::result<verified_token>& what) { said.set_value(what ? what->payload().data() : nullptr); },
          how);
      contents.insert(said.get_future().get());
    }
  }
  CHECK(contents.size() == 1);
  CHECK(*contents.begin() != nullptr);
}

namespace {
// Verifies once more when its thread has destroyed what was made after it.
struct late_caller {
  remembering* v = nullptr;
  const std::string* token = nullptr;
  errc* said = nullptr;
  ~late_caller() {
    if (v != nullptr) *said = v->code(*token);
  }
};
}  // namespace

// Red, under AddressSanitizer, when what a thread keeps is used after its end.
TEST_CASE("a token may be verified by the destructor of a thread_local, whether it is known or not") {
  remembering v;
  const std::string token = v.good();
  for (const std::string& other : {token, v.good(key_one(), R"(,"n":1)")}) {
    errc said = errc::timed_out;
    std::thread([&] {
      static thread_local late_caller late;
      late = {.v = &v, .token = &other, .said = &said};
      v.remember(token);
    }).join();
    CHECK(said == errc{});
  }
}

#if defined(__unix__)
namespace {
// What the child exits with; -1: it was killed.
template <class Child>
int status_of_child(const manual_clock& clock, Child body) {
  const pid_t child = clock.fork();
  if (child == 0) {
    ::alarm(20);  // a child that hangs must not outlive the test
    ::_exit(body());
  }
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
}  // namespace

// Red when a hit does not ask whose document its thread has, or a child's key sets get the numbers of the parent's.
TEST_CASE("a forked child knows nothing of what its parent knew, and remembers its own" * doctest::test_suite("slow") *
          doctest::skip(support::under_tsan || support::under_asan)) {
  remembering v;
  const std::string token = v.good();
  const void* const content = v.remember(token);
  const int wrong = status_of_child(v.clock, [&] {
    int out = v.code(token) == errc::shut_down ? 0 : 1;
    out |= v.manager.initialize(config_for(url)).has_value() ? 0 : 2;
    const auto a = v.verifier.verify(token), b = v.verifier.verify(token);
    out |= a && b && a->payload().data() != content ? 0 : 4;
    out |= a && b && a->payload().data() == b->payload().data() ? 0 : 8;
    return out;
  });
  CHECK(wrong == 0);
  CHECK(v.is(content, token));
}

// Red when a set is locked without a fork_gate: one child in forty then finds it locked for ever.
TEST_CASE("a child that is forked while tokens are looked for finds no set locked" * doctest::test_suite("slow") *
          doctest::skip(support::under_tsan || support::under_asan)) {
  remembering v(config_for(url), 8);  // one set
  // Refused for its form, once the memo does not know it: no clock is asked, which would wait for the fork.
  const std::string unknown(200, 'x');
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> looks{0};
  std::thread busy([&] {
    while (!over) {
      static_cast<void>(v.verifier.verify(unknown).has_value());
      ++looks;
    }
  });
  int wrong = 0;
  for (int i = 0; i < 300 && wrong == 0; ++i) {
    const std::uint64_t enough = looks + 100;
    while (looks < enough) std::this_thread::yield();
    wrong = status_of_child(v.clock, [&] { return v.code(unknown) == errc::malformed_token ? 0 : 1; });
  }
  over = true;
  busy.join();
  CHECK(wrong == 0);
}
#endif
