// What the managers tell their fetcher, and ask it: the origin of the application's credentials, and check(); and when they read the clock.
#include "support/rig.hpp"

#include <atomic>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

using namespace std::chrono_literals;
using axioms::errc;
using support::config_for, support::fake_fetcher, support::manual_clock, support::ok, support::response, support::rig,
    support::url;

namespace {

// Knows beforehand whether it can work. Calls the manager back: no lock is held then.
struct checking_fetcher : fake_fetcher {
  struct shared {
    std::atomic<int> checks{0};
    std::atomic<bool> good{true}, throws{false};
    std::function<void()> inside = [] {};
  };
  std::shared_ptr<shared> state = std::make_shared<shared>();

  axioms::result<void> check() const {
    ++state->checks;
    state->inside();
#if defined(__cpp_exceptions)
    if (state->throws) throw std::runtime_error("no");
#endif
    if (!state->good) return axioms::error{errc::invalid_config, "no such file"};
    return {};
  }
};

// Has something else of that name.
struct boasting_fetcher : fake_fetcher {
  bool check() const { return false; }
};

// Says what it is made from: an aggregate, so that it can be written in braces.
struct tenant_options {
  std::string tenant{};
  int port = 443;
};
struct tenant_fetcher : fake_fetcher {
  using options_type = tenant_options;
  explicit tenant_fetcher(tenant_options options = {}) {
    always(ok({options.tenant + ":" + std::to_string(options.port)}));
  }
};
// Says it, and cannot be made from it.
struct boastful_fetcher : fake_fetcher {
  using options_type = tenant_options;
};

template <class Manager>
std::string kid_by_callback(Manager& manager) {
  std::promise<std::string> kid;
  manager.async_get_jwks(url, [&](axioms::result<axioms::jwks_ptr> set) {
    kid.set_value(set ? std::string((*(*set)->keys().begin())->kid()) : set.error().description);
  });
  return kid.get_future().get();
}

template <class Manager, class Initialize>
void asks_once(Initialize initialize) {
  checking_fetcher fetcher;
  Manager manager(fetcher, manual_clock());
  auto& [checks, good, throws, inside] = *fetcher.state;
  inside = [&] { static_cast<void>(manager.stats()), static_cast<void>(manager.health()); };
  good = false;
  const auto refused = initialize(manager, config_for(url));
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::invalid_config);
  CHECK(refused.error().description == "no such file");
  CHECK_FALSE(manager.running());
  CHECK(manager.add(config_for(url)).error().code == errc::invalid_config);
  CHECK(checks == 2);
  CHECK(fetcher.requests() == 0);
#if defined(__cpp_exceptions)
  throws = true;
  CHECK(initialize(manager, config_for(url)).error().code == errc::fetch_failed);
  throws = false;
  CHECK(checks == 3);
#endif
  const int before = checks;
  good = true;
  axioms::jwks_config wrong = config_for(url);
  wrong.refresh_interval = 0s;
  CHECK_FALSE(initialize(manager, wrong).has_value());
  CHECK(checks == before);  // a configuration that is wrong anyway asks nobody
  CHECK(initialize(manager, config_for(url)).has_value());
  CHECK(checks == before + 1);
  good = false;
  CHECK(initialize(manager, config_for(url)).has_value());  // runs already, and changes nothing
  CHECK(checks == before + 1);
  CHECK_FALSE(manager.add(config_for("https://two.example.com/")).has_value());
  CHECK(checks == before + 2);
  inside = [] {};
}

}  // namespace

TEST_CASE("initialize() and add() ask a fetcher that can check itself, once and without a lock") {
  using blocking = axioms::basic_jwks_manager<checking_fetcher, manual_clock>;
  asks_once<blocking>(
      [](blocking& manager, axioms::jwks_config config) { return manager.initialize(std::move(config)); });
  using async = axioms::basic_async_jwks_manager<checking_fetcher, manual_clock>;
  asks_once<async>([](async& manager, axioms::jwks_config config) {
    axioms::result<void> out = axioms::error{errc::no_resources, "not called"};
    std::promise<void> done;
    manager.async_initialize(std::move(config), [&](axioms::result<void> answer) {
      out = std::move(answer);
      done.set_value();
    });
    done.get_future().wait();
    return out;
  });
}

// Red under ThreadSanitizer when a waiter's `cancelled` is a plain bool.
TEST_CASE("a stop that another thread asks for while initialize() checks its fetcher cancels it") {
  const checking_fetcher fetcher;
  axioms::basic_async_jwks_manager<checking_fetcher, manual_clock> manager{fetcher, manual_clock()};
  axioms::stop_source source;
  std::atomic<bool> inside{false}, asked{false};  // relaxed, so that they order nothing else
  std::thread other([&] {
    while (!inside.load(std::memory_order_relaxed)) std::this_thread::yield();
    source.request_stop();
    asked.store(true, std::memory_order_relaxed);
  });
  fetcher.state->inside = [&] {
    inside.store(true, std::memory_order_relaxed);
    while (!asked.load(std::memory_order_relaxed)) std::this_thread::yield();
  };
  std::promise<axioms::result<void>> answer;
  const auto take = [&](axioms::result<void> out) { answer.set_value(std::move(out)); };
  manager.async_initialize(config_for(url), take, source.get_token());
  other.join();
  const auto out = answer.get_future().get();
  REQUIRE_FALSE(out.has_value());
  CHECK(out.error().code == errc::cancelled);
}

TEST_CASE("a check() that returns something else is none") {
  axioms::basic_jwks_manager<boasting_fetcher, manual_clock> manager{boasting_fetcher(), manual_clock()};
  CHECK(manager.initialize(config_for(url)).has_value());
}

TEST_CASE("a manager can be made from the options of its fetcher") {
  using blocking = axioms::basic_jwks_manager<tenant_fetcher>;
  using async = axioms::basic_async_jwks_manager<tenant_fetcher>;
  const tenant_options named{.tenant = "acme", .port = 8443};
  const blocking one(named), two({.tenant = "other"});
  CHECK((*(*one.get_jwks(url))->keys().begin())->kid() == "acme:8443");
  CHECK((*(*two.get_jwks(url))->keys().begin())->kid() == "other:443");
  async three(named);
  CHECK(kid_by_callback(three) == "acme:8443");
  const axioms::basic_jwks_manager<tenant_fetcher, manual_clock> with_clock(named, manual_clock());
  CHECK((*(*with_clock.get_jwks(url))->keys().begin())->kid() == "acme:8443");

  static_assert(!std::is_convertible_v<tenant_options, blocking> && !std::is_convertible_v<tenant_options, async>);
  using no_options = axioms::basic_jwks_manager<fake_fetcher>;
  static_assert(!std::is_constructible_v<no_options, tenant_options>);
  static_assert(!std::is_constructible_v<axioms::basic_jwks_manager<boastful_fetcher>, tenant_options>);
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
  static_assert(std::is_constructible_v<axioms::jwks_manager, axioms::httplib_options>);
  static_assert(std::is_constructible_v<axioms::async_jwks_manager, axioms::httplib_options>);
#endif
}

TEST_CASE("a fetch says the origin that the application named, also for a jwks_uri elsewhere") {
  rig r;
  r.provider.always(response(404));
  const std::string metadata = "https://idp.example.com:8443/tenant/.well-known/openid-configuration";
  const std::string keys = "https://keys.example.net/v1", looked_up = "http://other.example.org/k?a=/b";
  r.provider.always_at(metadata,
                       response(200, R"({"issuer":"https://idp.example.com:8443/tenant","jwks_uri":")" + keys + "\"}"));
  r.provider.always_at(keys, ok({"k1"}));
  r.provider.always_at(looked_up, ok({"k1"}));
  axioms::jwks_config config;
  config.issuer = "https://idp.example.com:8443/tenant";
  config.discovery = true;
  config.random = [] { return std::uint64_t{0}; };
  r.start(config);
  REQUIRE(r.manager.get_jwks().has_value());
  REQUIRE(r.manager.get_jwks(looked_up).has_value());
  REQUIRE(r.provider.requests() == 3);
  CHECK(r.provider.request(0).url == metadata);
  CHECK(r.provider.request(0).origin == "https://idp.example.com:8443");
  CHECK(r.provider.request(1).url == keys);
  CHECK(r.provider.request(1).origin == "https://idp.example.com:8443");
  CHECK(r.provider.request(2).origin == "http://other.example.org");
}

namespace {
struct on_loop_only {
  fake_fetcher provider;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    provider.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};
// Goes on after it has been read: what is done meanwhile is between the reading and its use.
struct interrupted_clock : manual_clock {
  struct shared {
    int countdown = 0;
    std::function<void()> meanwhile;
  };
  std::shared_ptr<shared> state = std::make_shared<shared>();
  time_point now() const {
    const time_point out = manual_clock::now();
    if (state->countdown > 0 && --state->countdown == 0) state->meanwhile();
    return out;
  }
};
}  // namespace

// Red when settle() takes the landing's time for whoever asked after it had been read.
TEST_CASE("who asks while a fetch lands is not answered as of an earlier time") {
  interrupted_clock clock;
  fake_fetcher provider;
  provider.always(ok({"k1"}));
  axioms::basic_async_jwks_manager<on_loop_only, interrupted_clock> manager{on_loop_only{provider}, clock};
  auto config = config_for(url);
  config.fetch_timeout = 24h;
  manager.async_initialize(config, [](const axioms::result<void>& out) { REQUIRE(out.has_value()); });
  provider.hold();
  clock.advance(7200s + 7199s);  // the refresh is in the air, and the document may be served for another second
  REQUIRE(manager.peek().has_value());
  int answered = 0;
  errc code{};
  clock.state->countdown = 2;  // the second reading is that of the landing
  clock.state->meanwhile = [&] {
    clock.advance(2s);
    manager.async_get_jwks(url, [&](const axioms::result<axioms::jwks_ptr>& out) {
      ++answered;
      if (!out) code = out.error().code;
    });
    CHECK(answered == 0);  // it waits for that fetch
  };
  provider.always(response(500));
  provider.release();
  CHECK(clock.state->countdown == 0);
  CHECK(answered == 1);
  CHECK(code == errc::http_status);
}
