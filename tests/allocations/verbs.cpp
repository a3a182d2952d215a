// The n-th allocation fails: of each verb of both managers on the caller's thread, and of all threads together.
//
// On the caller's thread a bad_alloc leaves everything as it was: no URL is known that was not before, no callback comes. On any
// other thread it fails a flight at most. Afterwards the manager works as if nothing had been, and nothing is lost or left.
//
// AXIOMS_JWKS_TEST_STEP: every how many allocations one fails. 7 in the ordinary run; tests/allocations/run plays all of them.
#include "support/coroutine.hpp"
#include "support/failing_new.hpp"
#include "support/fake_fetcher.hpp"
#include "support/manual_clock.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <future>
#include <new>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using axioms::jwks_config, axioms::jwks_ptr, axioms::key_ptr, axioms::result;
using support::failing_new;

namespace {

const std::string url = "https://idp.example.com/.well-known/jwks.json";
const std::string other = "https://other.example.com/.well-known/jwks.json";
const std::string issuer = "https://issuer.example.com/with/a/path";
const std::string metadata_url = issuer + "/.well-known/openid-configuration";

// A provider that is always there and has nothing to lose: what it says was made before any allocation could fail.
struct provider {
  static axioms::result<axioms::fetch_response> answer(const axioms::fetch_request& request) {
    static const std::string keys = support::key_set({"k1"}),
                             metadata = R"({"issuer":")" + issuer + R"(","jwks_uri":")" + url + "\"}";
    axioms::fetch_response out;
    out.status = 200;
    out.body = request.url == metadata_url ? metadata : keys;
    return out;
  }
};
struct blocking_provider {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request, const axioms::stop_token&) {
    return provider::answer(request);
  }
};
struct loop_provider {
  template <class Callback>
  void async_fetch(axioms::fetch_request request, const axioms::stop_token&, Callback callback) {
    callback([&]() -> result<axioms::fetch_response> {
      try {
        return provider::answer(request);
      } catch (const std::bad_alloc&) { return axioms::error{axioms::errc::fetch_failed, {}, 0}; }
    }());
  }
};

using blocking = axioms::basic_jwks_manager<blocking_provider>;
using on_threads = axioms::basic_async_jwks_manager<blocking_provider>;
using on_loop = axioms::basic_async_jwks_manager<loop_provider, support::manual_clock>;

std::size_t step() {
  const char* asked = std::getenv("AXIOMS_JWKS_TEST_STEP");
  const long number = asked != nullptr ? std::strtol(asked, nullptr, 10) : 7;
  return number > 0 ? static_cast<std::size_t>(number) : 1;
}

// Who was called back.
struct tally {
  std::atomic<int> asked{0}, answered{0};
};

jwks_config configured(const std::string& where = url) {
  jwks_config config;
  config.jwks_url = where;
  config.on_event = [](const axioms::jwks_event&) {};
  return config;
}
jwks_config discovering() {
  jwks_config config;
  config.issuer = issuer;
  config.discovery = true;
  return config;
}

// A verb in one form; counts itself when it was taken.
template <class Manager>
struct verb_of {
  const char* name;
  std::function<void(Manager&, tally&)> call;
};

// What both managers answer at once.
template <class Manager>
void add_plain_verbs(std::vector<verb_of<Manager>>& all, const std::string& saved) {
  const auto plain = [&](const char* name, auto call) {
    all.push_back({name, [call](Manager& m, tally&) { call(m); }});
  };
  plain("add", [](Manager& m) { static_cast<void>(m.add(configured(other))); });
  plain("add with discovery", [](Manager& m) { static_cast<void>(m.add(discovering())); });
  plain("add_static", [](Manager& m) { static_cast<void>(m.add_static(other, support::key_set({"s", "t"}))); });
  plain("export_cache", [](Manager& m) { static_cast<void>(m.export_cache()); });
  plain("import_cache", [saved](Manager& m) { static_cast<void>(m.import_cache(saved)); });
  plain("remove", [](Manager& m) { static_cast<void>(m.remove(url)); });
  plain("urls", [](Manager& m) { static_cast<void>(m.urls()); });
  plain("metadata", [](Manager& m) { static_cast<void>(m.metadata(metadata_url)); });
  plain("peek", [](Manager& m) { static_cast<void>(m.peek(url)); });
  plain("health", [](Manager& m) { static_cast<void>(m.health(url)); });
  plain("stats", [](Manager& m) { static_cast<void>(m.stats()); });
}

std::vector<verb_of<blocking>> verbs(const std::string& saved, const blocking*) {
  std::vector<verb_of<blocking>> all;
  const auto plain = [&](const char* name, auto call) {
    all.push_back({name, [call](blocking& m, tally&) { static_cast<void>(call(m)); }});
  };
  plain("get_jwks", [](blocking& m) { return m.get_jwks(url); });
  plain("get_jwks of an issuer", [](blocking& m) { return m.get_jwks(metadata_url); });
  plain("get_key", [](blocking& m) { return m.get_key(url, {.kid = "k1"}); });
  plain("get_key, unknown", [](blocking& m) { return m.get_key(url, {.kid = "a kid that is longer than 15 bytes"}); });
  plain("bad signature", [](blocking& m) { return m.refresh_after_bad_signature(url, "k1"); });
  plain("refresh", [](blocking& m) { return m.refresh(url); });
  plain("wait_ready", [](blocking& m) { return m.wait_ready(0ms); });
  plain("initialize", [](blocking& m) { return m.initialize(configured()); });
  plain("initialize with discovery", [](blocking& m) { return m.initialize(discovering()); });
  plain("shutdown", [](blocking& m) { return m.shutdown(), 0; });
  add_plain_verbs(all, saved);
  return all;
}

// What throws in there throws at the caller, before it waits.
template <class Operation>
support::detached await(Operation operation, tally& count, bool& threw) {
  try {
    static_cast<void>(co_await std::move(operation));
    ++count.answered;
  } catch (const std::bad_alloc&) { threw = true; }
}

template <class Manager>
std::vector<verb_of<Manager>> verbs(const std::string& saved, const Manager*) {
  std::vector<verb_of<Manager>> all;
  const auto called_back = [&](const char* name, auto start) {
    all.push_back({name, [start](Manager& m, tally& count) {
                     start(m, [&count](auto&&...) { ++count.answered; });
                     ++count.asked;
                   }});
  };
  called_back("get_jwks", [](Manager& m, auto then) { m.async_get_jwks(url, then); });
  called_back("get_key", [](Manager& m, auto then) { m.async_get_key(url, {.kid = "k1"}, then); });
  called_back("get_key, unknown",
              [](Manager& m, auto then) { m.async_get_key(url, {.kid = "a kid that is longer than 15 bytes"}, then); });
  called_back("bad signature", [](Manager& m, auto then) { m.async_refresh_after_bad_signature(url, "k1", then); });
  called_back("refresh", [](Manager& m, auto then) { m.async_refresh(url, then); });
  called_back("wait_ready", [](Manager& m, auto then) { m.async_wait_ready(0ms, then); });
  called_back("initialize", [](Manager& m, auto then) { m.async_initialize(configured(), then); });
  called_back("initialize with discovery", [](Manager& m, auto then) { m.async_initialize(discovering(), then); });
  called_back("shutdown", [](Manager& m, auto then) { m.async_shutdown([then]() mutable { then(0); }); });
  const auto awaited = [&](const char* name, auto start) {
    all.push_back({name, [start](Manager& m, tally& count) {
                     bool threw = false;
                     await(start(m), count, threw);
                     if (threw) throw std::bad_alloc();
                     ++count.asked;
                   }});
  };
  awaited("get_jwks, awaited", [](Manager& m) { return m.get_jwks(url); });
  awaited("get_key, awaited", [](Manager& m) { return m.get_key(url, {.kid = "k1"}); });
  awaited("get_key, unknown, awaited",
          [](Manager& m) { return m.get_key(url, {.kid = "a kid that is longer than 15 bytes"}); });
  awaited("bad signature, awaited", [](Manager& m) { return m.refresh_after_bad_signature(url, "k1"); });
  awaited("refresh, awaited", [](Manager& m) { return m.refresh(url); });
  awaited("wait_ready, awaited", [](Manager& m) { return m.wait_ready(0ms); });
  awaited("initialize, awaited", [](Manager& m) { return m.initialize(configured()); });
  awaited("initialize with discovery, awaited", [](Manager& m) { return m.initialize(discovering()); });
  awaited("shutdown, awaited", [](Manager& m) { return m.shutdown(); });
  add_plain_verbs(all, saved);
  return all;
}

// On a thread of its own, whose memory goes with it.
template <class F>
void on_a_thread(F f) {
  std::thread(f).join();
}

// What a verb finds: nothing, something that was looked up, a manager that runs.
enum class before { idle, lazy, running };

template <class Manager>
void prepare(Manager& m, before state) {
  std::promise<void> done;
  if constexpr (std::is_same_v<Manager, blocking>) {
    if (state == before::lazy) REQUIRE(m.get_jwks(url).has_value());
    if (state == before::running) REQUIRE(m.initialize(configured(url)).has_value());
    done.set_value();
  } else {
    if (state == before::idle) done.set_value();
    if (state == before::lazy) m.async_get_jwks(url, [&](auto&&) { done.set_value(); });
    if (state == before::running) m.async_initialize(configured(url), [&](auto&&) { done.set_value(); });
  }
  done.get_future().wait();
}

template <class Manager>
bool still_works(Manager& m) {
  std::promise<bool> works;
  if constexpr (std::is_same_v<Manager, blocking>) {
    static_cast<void>(m.initialize(configured()));
    works.set_value(m.refresh(url).has_value() && m.get_key(url, {.kid = "k1"}).has_value());
  } else {
    m.async_initialize(configured(), [](auto&&) {});
    m.async_refresh(url, [&](auto&& fetched) {
      m.async_get_key(url, {.kid = "k1"},
                      [&, ok = fetched.has_value()](auto&& key) { works.set_value(ok && key.has_value()); });
    });
  }
  return works.get_future().get();
}

template <class Manager>
void end(Manager& m) {
  if constexpr (std::is_same_v<Manager, blocking>) {
    m.shutdown();
  } else {
    std::promise<void> done;
    m.async_shutdown([&] { done.set_value(); });
    done.get_future().wait();
  }
}

std::string saved_cache() {
  blocking m;
  REQUIRE(m.get_jwks(url).has_value());
  REQUIRE(m.get_jwks(other).has_value());
  return m.export_cache();
}

// The n-th allocation of the verb's own thread.
template <class Manager>
void fail_each_on_this_thread() {
  const std::string saved = saved_cache();
  std::size_t tried = 0;
  for (const before state : {before::idle, before::lazy, before::running}) {
    for (const auto& verb : verbs(saved, static_cast<const Manager*>(nullptr))) {
      CAPTURE(static_cast<int>(state));
      CAPTURE(verb.name);
      bool failed = true;
      std::size_t n = 0;
      while (failed) {
        CAPTURE(n);
        const auto blocks = failing_new::alive();
        bool threw = false, works = false;
        std::vector<std::string> known, known_after;
        tally count;
        on_a_thread([&] {
          Manager m;
          prepare(m, state);
          known = m.urls();
          failed = failing_new::during(n, [&] {
            try {
              verb.call(m, count);
            } catch (const std::bad_alloc&) { threw = true; }
          });
          known_after = m.urls();
          works = still_works(m);
          end(m);
        });
        REQUIRE(works);
        if (threw) REQUIRE(known == known_after);
        REQUIRE(count.answered == count.asked);
        known = std::vector<std::string>();
        known_after = std::vector<std::string>();
        REQUIRE(failing_new::alive() == blocks);
        ++tried;
        REQUIRE(n < 20000);
        n += step();
      }
    }
  }
  CHECK(tried > 60);
}

// The n-th allocation of whichever thread comes to it, while the manager is used.
template <class Manager>
void fail_each_anywhere() {
  const std::string saved = saved_cache();
  bool failed = true;
  std::size_t n = 0;
  while (failed) {
    CAPTURE(n);
    const auto blocks = failing_new::alive();
    bool works = false;
    tally count;
    on_a_thread([&] {
      Manager m;
      const auto all = verbs(saved, static_cast<const Manager*>(nullptr));
      failing_new::fail_anywhere(n);
      for (const auto& verb : all) {
        if (std::string_view(verb.name).starts_with("shutdown")) continue;
        try {
          verb.call(m, count);
        } catch (const std::bad_alloc&) {}
      }
      try {
        end(m);
      } catch (const std::bad_alloc&) {  // the one who waits for it, or asks; the manager itself needs none
      }
      failed = failing_new::stop();
      works = still_works(m);
      end(m);
    });
    REQUIRE(works);
    REQUIRE(count.answered == count.asked);
    REQUIRE(failing_new::alive() == blocks);
    REQUIRE(n < 100000);
    n += step();
  }
  CHECK(n > 200);
}

}  // namespace

TEST_CASE("the n-th allocation of a verb fails: blocking") { fail_each_on_this_thread<blocking>(); }
TEST_CASE("the n-th allocation of a verb fails: async on threads") { fail_each_on_this_thread<on_threads>(); }
TEST_CASE("the n-th allocation of a verb fails: async on a loop") { fail_each_on_this_thread<on_loop>(); }
TEST_CASE("the n-th allocation of all threads fails: blocking") { fail_each_anywhere<blocking>(); }
TEST_CASE("the n-th allocation of all threads fails: async on threads") { fail_each_anywhere<on_threads>(); }
TEST_CASE("the n-th allocation of all threads fails: async on a loop") { fail_each_anywhere<on_loop>(); }
