// Part "engine: what a thread keeps": when a hit reads the precise clock, the keys and documents it gives, and how hits are counted.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "support/coroutine.hpp"
#include "support/rig.hpp"
#include "vectors/keys.hpp"

#include <atomic>
#include <cstdlib>
#include <ctime>
#include <random>
#include <thread>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace std::chrono_literals;
using axioms::jwks_ptr, axioms::key_ptr, axioms::detail::hit_counter, axioms::detail::hit_counters,
    axioms::detail::kept_document, axioms::detail::sparing_clock;
using support::config_for, support::fake_fetcher, support::key_set, support::manual_clock, support::ok,
    support::response, support::rig, support::url;
using time_point = std::chrono::steady_clock::time_point;

namespace {

// ---- a pair of clocks ----------------------------------------------------------------------------

// Real time, the wall clock as it is set, and what a hit of a document would do.
struct pair_of_clocks {
  std::chrono::nanoseconds precise = 1000h, wall = 490000h;
  time_point until = time_point(3000h);
  sparing_clock spared{};
  int reads = 0;

  void pass(std::chrono::nanoseconds time) { precise += time, wall += time; }
  time_point now() const { return time_point(precise); }
  time_point ask() {
    time_point out{};
    const auto read = [this](time_point& to) {
      ++reads;
      to = now();
      return true;
    };
    // Not a CHECK: it would take most of the time of loops.
    if (!spared.now(std::chrono::floor<std::chrono::seconds>(wall).count(), until, out, read)) std::abort();
    return out;
  }
  bool serves() { return ask() < until; }
  // How often it would be served past its time, if it is asked for once every so often.
  int served_late(std::chrono::nanoseconds every, int times) {
    int late = 0;
    for (int i = 0; i < times; ++i, pass(every)) late += serves() && now() >= until ? 1 : 0;
    return late;
  }
};

}  // namespace

// Red when the second is not compared, or not kept.
TEST_CASE("the precise clock is read once a second") {
  pair_of_clocks at;
  for (int i = 0; i < 200; ++i, at.pass(100us)) at.ask();
  CHECK(at.reads == 1);
  at.pass(1s);
  CHECK(at.ask() == at.now());
  CHECK(at.reads == 2);
  at.pass(100ms);
  CHECK(at.ask() == at.now() - 100ms);
  CHECK(at.reads == 2);
}

// Red when short_of_time is one second, or the comparison is with what has passed.
TEST_CASE("in the last two seconds before a document expires the precise clock is read each time") {
  pair_of_clocks at;
  at.until = at.now() + 2s + 1ns;
  at.ask();
  at.ask();
  CHECK(at.reads == 1);
  at.until = at.now() + 2s;
  for (int i = 0; i < 5; ++i, at.pass(1ms)) CHECK(at.ask() == at.now());
  CHECK(at.reads == 6);
}

// Red when one reading is good for another document that has less time.
TEST_CASE("a thread's documents share the readings, and each has its own time to expire") {
  pair_of_clocks at;
  const time_point late = at.until, soon = at.now() + 10ms;
  CHECK(at.serves());
  at.pass(20ms);
  at.until = soon;
  CHECK_FALSE(at.serves());
  at.until = late;
  at.ask();
  CHECK(at.reads == 2);
}

// Red when most_spared is another number, or spared readings are not counted.
TEST_CASE("a wall clock that stands still: a document is served at most 255 times past its time") {
  pair_of_clocks at;
  at.ask();
  at.precise += 5000h;
  int served = 0;
  while (served < 1000 && at.serves()) ++served;
  CHECK(served == 255);
  CHECK_FALSE(at.serves());  // for good: there is no time left
  CHECK(at.reads == 3);
}

// Red when a hit trusts a second that is smaller than the last one.
TEST_CASE("a wall clock that steps, back or forth, is found out at once") {
  for (const auto step : {-3600s, -2s, 2s, 3600s}) {
    pair_of_clocks at;
    at.ask();
    at.pass(1s);
    at.wall += step;
    CHECK(at.ask() == at.now());
    at.wall -= step;
    CHECK(at.ask() == at.now());
  }
}

// Red when short_of_time is one second. A second that is inserted, or a clock that is set back by less, makes a second twice as long.
TEST_CASE("a wall clock that is set back by up to a second serves nothing past its time" *
          doctest::test_suite("slow")) {
  for (const auto at_second : {0ms, 1ms, 500ms, 999ms}) {
    for (const auto by : {1ms, 500ms, 999ms, 1000ms}) {
      pair_of_clocks at;
      at.until = at.now() + 10s;
      at.pass(at_second);
      int late = 0;
      for (int i = 0; i < 2400; ++i, at.pass(5ms)) {
        if (i % 200 == 199) at.wall -= by;  // once each second
        late += at.serves() && at.now() >= at.until ? 1 : 0;
      }
      CHECK(late == 0);
    }
  }
}

// Red when most_spared grows. What remains, as the comment of steady_clock says.
TEST_CASE("a wall clock that is set back to the second seen last: 255 times, no longer than that second") {
  pair_of_clocks at;
  at.until = at.now() + 1h;
  at.ask();
  at.pass(2h);
  at.wall -= 2h;
  CHECK(pair_of_clocks(at).served_late(1us, 10000) == 255);
  CHECK(pair_of_clocks(at).served_late(10ms, 10000) == 100);
}

// Red when the second is not compared.
TEST_CASE(
    "a machine that was suspended: what wall time tells is seen at once, what it does not tell within its second") {
  pair_of_clocks at;
  at.until = at.now() + 1h;
  at.ask();
  at.pass(8h);
  CHECK_FALSE(at.serves());

  pair_of_clocks untold;
  untold.until = untold.now() + 1h;
  untold.ask();
  untold.precise += 8h;
  CHECK(untold.served_late(100ms, 1000) == 10);
}

// Red when the second is not compared, or short_of_time is zero.
TEST_CASE("a clock that runs right is late by less than a second, whatever happens between its two readings" *
          doctest::test_suite("slow")) {
  std::minstd_rand random(1);
  for (int round = 0; round < 10; ++round) {
    pair_of_clocks at;
    at.until = at.now() + std::chrono::milliseconds(random() % 20000);
    bool right = true;
    for (int i = 0; i < 2000; ++i) {
      const auto before = at.now();
      time_point out{};
      const auto tick = std::chrono::floor<std::chrono::seconds>(at.wall).count();
      if (random() % 8 == 0) at.pass(std::chrono::microseconds(random() % 1500000));
      right &= at.spared.now(tick, at.until, out, [&](time_point& to) { return to = at.now(), true; });
      right &= out > before - 1s && (out >= at.until || before < at.until);
      at.pass(std::chrono::microseconds(random() % 20000));
    }
    CHECK(right);
  }
}

// Red when a reading is believed before it has come.
TEST_CASE("a precise clock that fails is no hit, and is asked again by the next one") {
  sparing_clock spared;
  time_point out{};
  const auto fails = [](time_point&) { return false; };
  const auto works = [](time_point& to) { return to = time_point(1h), true; };
  REQUIRE(spared.now(7, time_point(9h), out, works));
  for (int i = 0; i < 2; ++i) CHECK_FALSE(spared.now(8, time_point(9h), out, fails));
  CHECK_FALSE(spared.now(7, time_point(9h), out, fails));
  CHECK(spared.now(8, time_point(9h), out, works));
  CHECK(spared.now(8, time_point(9h), out, fails));  // spared
}

namespace {

// A clock of a user's, and how often it is asked.
struct counted_clock : manual_clock {
  std::shared_ptr<std::atomic<int>> reads = std::make_shared<std::atomic<int>>(0);
  time_point now() const { return ++*reads, manual_clock::now(); }
};
static_assert(axioms::clock_source<counted_clock>);

}  // namespace

// Red when time_of_hit() of the engine or of the blocking manager spares readings of every clock, or of none.
TEST_CASE("a clock of the user's is read at every hit, steady_clock is not") {
  counted_clock clock;
  fake_fetcher provider;
  axioms::basic_jwks_manager<fake_fetcher, counted_clock> blocking{provider, clock};
  axioms::basic_async_jwks_manager<fake_fetcher, counted_clock> on_loop{provider, clock};
  const auto readings = [&](auto& manager, auto&& lookup) {
    REQUIRE(manager.add_static(url, key_set({"k"})).has_value());
    lookup();
    const int before = *clock.reads;
    for (int i = 0; i < 10; ++i) lookup();
    return *clock.reads - before;
  };
  CHECK(readings(blocking, [&] { static_cast<void>(blocking.get_jwks(url)); }) == 10);
  CHECK(readings(on_loop, [&] { on_loop.async_get_jwks(url, [](const axioms::result<jwks_ptr>&) {}); }) == 10);

  axioms::basic_jwks_manager<fake_fetcher, axioms::steady_clock> real{provider, axioms::steady_clock()};
  axioms::detail::engine& core = axioms::detail::manager_access::core(real);
  sparing_clock spared;
  int same = 0;
  for (int i = 0; i < 10; ++i) {  // a second may end in between, but not nine times
    time_point a{}, b{};
    REQUIRE(core.time_of_hit(spared, time_point::max(), a));
    REQUIRE(core.time_of_hit(spared, time_point::max(), b));
    same += a == b ? 1 : 0;
  }
  CHECK(same > 0);

  REQUIRE(real.add_static(url, key_set({"k"})).has_value());
  const auto left = [] {  // how many readings are still to be spared
    sparing_clock copy = axioms::detail::this_thread_hits->clock;
    bool read = false;
    int count = 0;
    for (time_point at{}; !read && count < 1000; ++count) {
      static_cast<void>(copy.now(std::time(nullptr), time_point::max(), at, [&](time_point& to) {
        to = axioms::steady_clock().now();
        return read = true;
      }));
    }
    return count;
  };
  bool spared_all = false;
  for (int i = 0; i < 10 && !spared_all; ++i) {
    for (int n = 0; n < 3; ++n) REQUIRE(real.get_jwks(url).has_value());
    const int before = left();
    for (int n = 0; n < 10; ++n) REQUIRE(real.get_jwks(url).has_value());
    spared_all = left() == before - 10;
  }
  CHECK(spared_all);
}

// ---- when it is looked at ------------------------------------------------------------------------

// Red when the look after a touch comes a second later although the document expires before, or the touch comes at every hit.
TEST_CASE("a hit notes the use of its document once a second, and sees it expire in between") {
  rig r;
  r.start();
  for (int i = 0; i < 2; ++i) REQUIRE(r.manager.get_jwks(url).has_value());
  const auto& used = axioms::detail::this_thread_hits->recent->source->last_used;
  const auto now = [&] { return r.clock.now().time_since_epoch().count(); };
  const auto first = used.load();
  CHECK(first == now());
  r.provider.always(response(503));
  r.clock.advance(999ms);
  REQUIRE(r.manager.get_jwks(url).has_value());
  CHECK(used.load() == first);
  r.clock.advance(1ms);
  REQUIRE(r.manager.get_jwks(url).has_value());
  CHECK(used.load() == now());

  const auto expires = (*r.manager.get_jwks(url))->expires_at();
  r.clock.advance(expires - r.clock.now() - 500ms);
  REQUIRE(r.manager.get_jwks(url).has_value());
  const auto stale = r.manager.stats().stale_served;
  r.clock.advance(500ms);
  REQUIRE(r.manager.get_jwks(url).has_value());
  CHECK(r.manager.stats().stale_served == stale + 1);
}

// ---- keys ----------------------------------------------------------------------------------------

namespace {

std::string with(std::string_view jwk, std::string_view more) {
  return std::string(jwk.substr(0, jwk.size() - 1)) + "," + std::string(more) + "}";
}
std::string many_kinds() {
  return R"({"keys":[)" + with(vectors::rsa_jwk, R"("kid":"r")") + "," + with(vectors::p256_jwk, R"("kid":"e")") + "," +
         with(vectors::ed25519_jwk, R"("kid":"","x5t":"thumb")") + "," + with(vectors::ed448_jwk, R"("kid":"rr")") +
         "]}";
}
jwks_ptr document_of(const std::string& body) {
  auto keys = axioms::jwk_set::parse(body);
  REQUIRE(keys.has_value());
  axioms::detail::document_content content{url, body, *std::move(keys), 1};
  return std::make_shared<const axioms::jwks_document>(
      std::make_shared<const axioms::detail::document_content>(std::move(content)), time_point(1h), time_point(2h),
      std::chrono::system_clock::time_point());
}

}  // namespace

// Red when kid or alg is not compared, a length is not, or a bad answer is kept.
TEST_CASE("what a thread keeps gives the key that select() gives, over and over" * doctest::test_suite("slow")) {
  const jwks_ptr document = document_of(many_kinds());
  kept_document kept(document);
  const std::string_view kids[] = {"r", "e", "rr", "", "thumb", "R", "x"};
  const std::string_view algs[] = {
      "RS256", "PS256", "RS25", "RS2567", "ES256", "ES384", "EdDSA", "Ed25519", "", "none", "a name of no algorithm"};
  std::minstd_rand random(1);
  bool right = true;
  for (int i = 0; i < 500; ++i) {
    // The bytes of a query are gone when the next one comes.
    const std::string kid(kids[random() % std::size(kids)]), alg(algs[random() % std::size(algs)]);
    const auto selected = document->keys().select({kid, alg});
    for (int n = 0; n < 2; ++n) right &= kept.find({kid, alg}) == (selected ? selected->get() : nullptr);
  }
  CHECK(right);
}

// Red when a slot that is filled again keeps the keys of the old document.
TEST_CASE("after a rotation a hit gives the new key of an old kid") {
  rig r;
  r.provider.always(response(200, R"({"keys":[)" + with(vectors::p256_jwk, R"("kid":"k")") + "]}"));
  r.start();
  for (int i = 0; i < 3; ++i) CHECK(r.manager.get_key(url, {.kid = "k"}).value()->kty() == "EC");
  r.provider.always(response(200, R"({"keys":[)" + with(vectors::rsa_jwk, R"("kid":"k")") + "]}"));
  REQUIRE(r.manager.refresh(url).has_value());
  for (int i = 0; i < 3; ++i) CHECK(r.manager.get_key(url, {.kid = "k"}).value()->kty() == "RSA");
}

// Red when a hit gives select()'s own handle, whose count all threads share.
TEST_CASE("handles of hits have the control block of their thread, keys too") {
  rig r;
  r.start();
  struct handles {
    jwks_ptr document;
    key_ptr key, again;
  };
  const auto warm = [&] {
    static_cast<void>(r.manager.get_jwks(url));
    handles out;
    out.document = r.manager.get_jwks(url).value();
    out.key = r.manager.get_key(url, {.kid = "k1", .alg = "EdDSA"}).value();
    out.again = r.manager.get_key({.kid = "k1", .alg = "EdDSA"}).value();  // the slow way: no such slot yet
    out.again = r.manager.get_key({.kid = "k1", .alg = "EdDSA"}).value();
    return out;
  };
  const auto shared = [](const auto& a, const auto& b) { return !a.owner_before(b) && !b.owner_before(a); };
  const handles here = warm();
  handles there;
  std::thread([&] { there = warm(); }).join();
  CHECK(here.key == there.key);
  CHECK(here.document == there.document);
  CHECK(shared(here.document, here.key));
  CHECK_FALSE(shared(here.document, there.document));
  CHECK_FALSE(shared(here.key, there.key));
  CHECK_FALSE(shared(here.again, there.again));
}

// Red when a handle does not own the document (AddressSanitizer sees it too).
TEST_CASE("a held key outlives the replacement of its document, shutdown, the manager and the thread") {
  key_ptr key;
  std::weak_ptr<const axioms::jwks_document> document;
  std::string thumbprint;
  {
    rig r;
    r.start();
    std::thread([&] {
      document = r.manager.get_jwks(url).value();
      for (int i = 0; i < 2; ++i) key = r.manager.get_key(url, {.kid = "k1"}).value();
      thumbprint = key->thumbprint();
    }).join();
    r.provider.always(ok({"k2"}));
    REQUIRE(r.manager.refresh(url).has_value());
    r.manager.shutdown();
  }
  CHECK(key->thumbprint() == thumbprint);
  CHECK(key->kid() == "k1");
  CHECK_FALSE(key->to_pem().empty());
  CHECK_FALSE(document.expired());  // a held key keeps its document
  key.reset();
  CHECK(document.expired());
}

// Red when call() takes a reference to the engine before it looks at what the thread keeps.
TEST_CASE("a hit by callback takes no reference to the engine") {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager{provider, clock};
  REQUIRE(manager.add_static(url, key_set({"k"})).has_value());
  const auto engine = axioms::detail::manager_access::core(manager).weak_from_this();
  const auto idle = engine.use_count();
  long within = 0;
  int calls = 0;
  for (int i = 0; i < 3; ++i) {
    manager.async_get_jwks(url, [&](const axioms::result<jwks_ptr>& answer) {
      calls += answer ? 1 : 0;
      within = engine.use_count();
    });
  }
  CHECK(calls == 3);
  CHECK(within == idle);
}

// ---- counters ------------------------------------------------------------------------------------

// Red when a counter is not let go, or starts anew.
TEST_CASE("a counter that its thread has let go is the next one's, who counts on") {
  auto counters = std::make_shared<hit_counters>();
  auto first = hit_counters::take(counters), second = hit_counters::take(counters);
  CHECK(first != second);
  for (int i = 0; i < 3; ++i) first->add();
  second->add();
  CHECK(counters->sum() == 4);
  const hit_counter* const before = first.get();
  first.reset();
  CHECK(counters->sum() == 4);
  auto third = hit_counters::take(counters);
  CHECK(third.get() == before);
  third->add();
  CHECK(counters->sum() == 5);
  counters.reset();  // the engine is gone
  second->add();
}

// Red when a hit is not counted, or a thread's hits go with it.
TEST_CASE("every hit is counted once, of threads that run and of those that have ended") {
  rig r;
  r.start();
  std::atomic<bool> over{false};
  std::atomic<int> ready{0};
  std::vector<std::thread> staying;
  const auto before = r.manager.stats().hits;
  for (int i = 0; i < 2; ++i) {
    staying.emplace_back([&] {
      for (int n = 0; n < 50; ++n) static_cast<void>(r.manager.get_key(url, {.kid = "k1"}));
      ++ready;
      while (!over) std::this_thread::yield();
    });
  }
  std::uint64_t last = 0;
  for (int i = 0; i < 20; ++i) {
    std::thread([&] {
      for (int n = 0; n < 50; ++n) static_cast<void>(r.manager.get_jwks(url));
    }).join();
    const auto now = r.manager.stats().hits;
    CHECK(now >= last + 50);
    last = now;
  }
  while (ready < 2) std::this_thread::yield();
  CHECK(r.manager.stats().hits == before + 22 * 50);
  over = true;
  for (auto& each : staying) each.join();
  CHECK(r.manager.stats().hits == before + 22 * 50);
}

// Red when a slot that goes to another manager keeps the counter of the last one.
TEST_CASE("one thread with 2,000 managers: each counts its own, also when the others are gone" *
          doctest::test_suite("slow")) {
  constexpr std::size_t many = 2000;
  const fake_fetcher provider;
  const manual_clock clock;
  std::vector<std::unique_ptr<support::manager_type>> all;
  for (std::size_t i = 0; i < many; ++i) {
    all.push_back(std::make_unique<support::manager_type>(provider, clock));
    REQUIRE(all.back()->add_static(url, key_set({"k"})).has_value());
  }
  const auto ask = [](auto& manager, std::size_t times) {
    for (std::size_t n = 0; n < times; ++n) REQUIRE(manager.get_jwks(url).has_value());
  };
  for (int round = 1; round <= 2; ++round) {
    for (std::size_t i = 0; i < many; ++i) ask(*all[i], i % 3 + 1);
  }
  for (std::size_t i = 0; i < many; ++i) REQUIRE(all[i]->stats().hits == 2 * (i % 3 + 1));
  for (std::size_t i = 0; i < many; i += 2) all[i] = nullptr;
  for (std::size_t i = 1; i < many; i += 2) ask(*all[i], 5);
  for (std::size_t i = 1; i < many; i += 2) REQUIRE(all[i]->stats().hits == 2 * (i % 3 + 1) + 5);
}

// Red when URLs of one manager take a counter each: they would be looked for one after the other.
TEST_CASE("a thread has one counter for all documents of a manager") {
  rig r;
  const auto where = [](int i) { return "https://idp.example.com/" + std::to_string(i); };
  for (int i = 0; i < 20; ++i) REQUIRE(r.manager.add_static(where(i), key_set({"k"})).has_value());
  std::shared_ptr<hit_counter> one;
  for (int i = 0; i < 20; ++i) {
    REQUIRE(r.manager.get_jwks(where(i)).has_value());
    const auto& now = axioms::detail::this_thread_hits->recent->counter;
    if (one) CHECK(now == one);
    one = now;
  }
}

#if defined(__unix__)
// Red when the child's manager counts where its parent's did.
TEST_CASE("a forked child counts from zero, and its parent goes on" * doctest::test_suite("slow") *
          doctest::skip(support::under_tsan || support::under_asan)) {
  rig r;
  r.start();
  for (int i = 0; i < 10; ++i) REQUIRE(r.manager.get_jwks(url).has_value());
  const auto before = r.manager.stats().hits;
  const pid_t child = r.clock.fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(20);
    int wrong = r.manager.get_jwks(url).has_value() ? 1 : 0;  // the manager is down
    wrong |= r.manager.stats().hits == 0 ? 0 : 2;
    wrong |= r.manager.add_static(url, key_set({"k"})).has_value() ? 4 : 0;
    ::_exit(wrong);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  REQUIRE(r.manager.get_jwks(url).has_value());
  CHECK(r.manager.stats().hits == before + 1);
}
#endif
