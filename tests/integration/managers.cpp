// Both managers with the default fetcher against a real provider on loopback, by http and https.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <cstdlib>
#include <exception>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/loopback_server.hpp"
#include "../support/raw_server.hpp"
#include "../support/throwaway_ca.hpp"

extern char** environ;

using axioms::errc;
using axioms::jwks_config;
using axioms::jwks_event;
using axioms::jwks_event_kind;
using axioms::jwks_ptr;
using test_support::loopback_server;
using test_support::raw_connection;
using test_support::raw_server;
using test_support::throwaway_ca;
using namespace std::chrono_literals;

namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool under_tsan = true;
constexpr int slow = 10;
#elif defined(__SANITIZE_ADDRESS__)
constexpr bool under_tsan = false;
constexpr int slow = 10;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr bool under_tsan = true;
constexpr int slow = 10;
#elif __has_feature(address_sanitizer)
constexpr bool under_tsan = false;
constexpr int slow = 10;
#else
constexpr bool under_tsan = false;
constexpr int slow = 1;
#endif
#else
constexpr bool under_tsan = false;
constexpr int slow = 1;
#endif

// How long something may take that happens at once on an idle machine; no test depends on its being short.
constexpr auto patience = 20s;

template <class Condition>
bool eventually(Condition met) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!met()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

class stopwatch {
 public:
  std::chrono::milliseconds took() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start_);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

axioms::httplib_options direct() {
  axioms::httplib_options out;
  out.proxy_from_environment = false;  // what the machine that runs the tests has set is not their business
  return out;
}

axioms::httplib_options trusting(const throwaway_ca& ca) {
  axioms::httplib_options out = direct();
  out.ca_pem = ca.pem();
  return out;
}

axioms::httplib_fetcher fetcher() { return axioms::httplib_fetcher(direct()); }

jwks_config config_for(std::string url) {
  jwks_config out;
  out.jwks_url = std::move(url);
  return out;
}

// One P-256 key (RFC 7517 appendix A.1) per kid.
std::string key_set(const std::vector<std::string>& kids) {
  std::string out = R"({"keys":[)";
  for (const std::string& kid : kids) {
    if (out.back() != '[') out += ',';
    out += R"({"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",)"
           R"("y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":")" +
           kid + "\"}";
  }
  return out + "]}";
}

loopback_server::handler serving(std::string body, int status = 200) {
  return [body = std::move(body), status](const httplib::Request&, httplib::Response& response) {
    response.status = status;
    response.set_content(body, "application/jwk-set+json");
  };
}
loopback_server::handler serving_keys(const std::vector<std::string>& kids) { return serving(key_set(kids)); }

// A provider that takes a request and never answers.
raw_server::script hanging() {
  return [](raw_connection& connection) {
    if (connection.read_request()) connection.wait_for_close();
  };
}

template <class T>
errc code(const axioms::result<T>& answer) {
  return answer ? errc{} : answer.error().code;
}

std::string kids(const axioms::result<jwks_ptr>& set) {
  if (!set) return std::string(axioms::to_string(set.error().code));
  std::string out;
  for (const auto& key : (*set)->keys()) out.append(out.empty() ? "" : " ").append(key->kid());
  return out;
}

// What a listener was told.
class event_log {
 public:
  std::function<void(const jwks_event&)> listener() {
    return [this](const jwks_event& event) {
      const std::lock_guard lock(mutex_);
      events_.push_back(event);
    };
  }
  std::vector<jwks_event> all() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }

 private:
  mutable std::mutex mutex_;  // guards events_
  std::vector<jwks_event> events_;
};

// Where another thread leaves an answer, once.
template <class T>
class box {
 public:
  void put(T value) {
    const std::lock_guard lock(mutex_);
    ++puts_;
    value_ = std::move(value);
    filled_.notify_all();
  }
  // Empty if nothing came.
  std::optional<T> take() {
    std::unique_lock lock(mutex_);
    filled_.wait_for(lock, patience, [&] { return value_.has_value(); });
    return std::move(value_);
  }
  int puts() const {
    const std::lock_guard lock(mutex_);
    return puts_;
  }

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable filled_;
  std::optional<T> value_;
  int puts_ = 0;
};

// A coroutine that starts at once and belongs to nobody.
struct task {
  struct promise_type {
    task get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

template <class T>
task await_into(axioms::async_operation<T> operation, std::shared_ptr<box<T>> into) {
  into->put(co_await operation);
}
task await_into(axioms::async_operation<void> operation, std::shared_ptr<box<bool>> into) {
  co_await operation;
  into->put(true);
}
// Awaits in a coroutine while this thread blocks.
template <class T>
T wait(axioms::async_operation<T> operation) {
  const auto into = std::make_shared<box<T>>();
  await_into(std::move(operation), into);
  auto answer = into->take();
  REQUIRE_MESSAGE(answer.has_value(), "the coroutine was not resumed");
  return *std::move(answer);
}
void wait(axioms::async_operation<void> operation) {
  const auto into = std::make_shared<box<bool>>();
  await_into(std::move(operation), into);
  REQUIRE_MESSAGE(into->take().has_value(), "the coroutine was not resumed");
}

// For tests that are the same by http and https.
struct provider {
  explicit provider(bool tls)
      : server(tls ? std::make_unique<loopback_server>(ca.issue(), serving_keys({"a", "b"}))
                   : std::make_unique<loopback_server>(serving_keys({"a", "b"}))),
        options(tls ? trusting(ca) : direct()) {}
  throwaway_ca ca;
  std::unique_ptr<loopback_server> server;
  axioms::httplib_options options;
};

}  // namespace

TEST_SUITE_BEGIN("blocking manager");

TEST_CASE("initialize fetches once, and lookups make no request") {
  for (const bool tls : {false, true}) {
    CAPTURE(tls);
    const provider idp(tls);
    axioms::jwks_manager manager{axioms::httplib_fetcher(idp.options)};
    REQUIRE(manager.initialize(config_for(idp.server->url())));
    CHECK(manager.running());
    CHECK(idp.server->requests() == 1);
    for (int i = 0; i < 100; ++i) {
      CHECK(kids(manager.get_jwks()) == "a b");
      CHECK(kids(manager.get_jwks(idp.server->url())) == "a b");
      CHECK(manager.get_key({.kid = "b", .alg = "ES256"}));
    }
    CHECK(idp.server->requests() == 1);
    const auto health = manager.health();
    CHECK(health.ready);
    CHECK_FALSE(health.stale);
    CHECK(health.insecure_transport == !tls);
    CHECK(manager.stats().hits >= 300);
  }
}

TEST_CASE("initialize without prefetch makes no request before the first lookup") {
  loopback_server server(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  auto config = config_for(server.url());
  config.prefetch = false;
  REQUIRE(manager.initialize(config));
  CHECK_FALSE(manager.peek());
  CHECK_FALSE(manager.health().ready);
  std::this_thread::sleep_for(50ms);
  CHECK(server.requests() == 0);
  CHECK(kids(manager.get_jwks()) == "a");
  CHECK(server.requests() == 1);
}

TEST_CASE("a failed prefetch is success, told by health, by an event and by the first lookup") {
  loopback_server server(serving("busy", 503));
  event_log log;
  axioms::jwks_manager manager{fetcher()};
  auto config = config_for(server.url());
  config.on_event = log.listener();
  REQUIRE(manager.initialize(config));
  CHECK(manager.running());
  const auto set = manager.get_jwks();  // within the backoff: the same error, no request
  REQUIRE_FALSE(set);
  CHECK(set.error().code == errc::http_status);
  CHECK(set.error().http_status == 503);
  CHECK(set.error().status_code() == 503);
  CHECK(server.requests() == 1);
  CHECK(manager.health().consecutive_failures == 1);
  REQUIRE(manager.health().last_error);
  REQUIRE(eventually([&] { return !log.all().empty(); }));
  CHECK(log.all().front().kind == jwks_event_kind::failed);
  CHECK(log.all().front().status == 503);
}

TEST_CASE("initialize while it runs changes nothing") {
  loopback_server first(serving_keys({"a"})), second(serving_keys({"b"}));
  axioms::jwks_manager manager{fetcher()};
  REQUIRE(manager.initialize(config_for(first.url())));
  REQUIRE(manager.initialize(config_for(second.url())));
  CHECK(kids(manager.get_jwks()) == "a");
  CHECK(second.requests() == 0);
}

TEST_CASE("background refresh goes on, twice and more, and sees a rotation") {
  for (const bool tls : {false, true}) {
    CAPTURE(tls);
    provider idp(tls);
    event_log log;
    axioms::jwks_manager manager{axioms::httplib_fetcher(idp.options)};
    auto config = config_for(idp.server->url());
    config.refresh_interval = 1s;
    config.cache_ttl = 60s;
    config.on_event = log.listener();
    REQUIRE(manager.initialize(config));
    const auto before = manager.get_jwks();
    REQUIRE(kids(before) == "a b");

    idp.server->set_handler(serving_keys({"b", "c"}));
    CHECK(eventually([&] { return kids(manager.get_jwks()) == "b c"; }));
    CHECK(eventually([&] { return idp.server->requests() >= 3; }));
    CHECK(manager.stats().misses <= 1);  // the prefetch at most: no lookup waited for the rotation
    CHECK(kids(before) == "a b");        // a document that somebody holds does not change

    manager.shutdown();
    const auto told = log.all();
    const auto rotation =
        std::find_if(told.begin(), told.end(), [](const jwks_event& event) { return !event.removed.empty(); });
    REQUIRE(rotation != told.end());
    CHECK(rotation->kind == jwks_event_kind::fetched);
    CHECK(rotation->added == std::vector<std::string>{"c"});
    CHECK(rotation->removed == std::vector<std::string>{"a"});
  }
}

TEST_CASE("a kid that the set lacks is looked for at the provider once") {
  loopback_server server(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  REQUIRE(manager.initialize(config_for(server.url())));
  server.set_handler(serving_keys({"a", "new"}));
  CHECK(manager.get_key({.kid = "new", .alg = "ES256"}));
  CHECK(server.requests() == 2);
  for (int i = 0; i < 20; ++i) CHECK(code(manager.get_key({.kid = "forged"})) == errc::key_not_found);
  CHECK(server.requests() == 3);
  CHECK(code(manager.get_key({.kid = "new", .alg = "RS256"})) == errc::key_not_found);  // known kid: no request
  CHECK(server.requests() == 3);
}

TEST_CASE("an answer that is no key set keeps the old one") {
  struct bad {
    const char* what;
    int status;
    std::string body;
    errc expected;
  };
  const std::vector<bad> answers = {
      {"HTML", 200, "<!doctype html><title>Maintenance</title>", errc::not_a_key_set},
      {"nothing", 200, "", errc::not_a_key_set},
      {"truncated", 200, key_set({"a", "b"}).substr(0, 100), errc::not_a_key_set},
      {"an object without keys", 200, "{}", errc::not_a_key_set},
      {"no keys", 200, R"({"keys":[]})", errc::no_usable_key},
      {"a symmetric key", 200, R"({"keys":[{"kty":"oct","k":"c2VjcmV0"}]})", errc::no_usable_key},
      {"deeply nested", 200, std::string(100000, '['), errc::not_a_key_set},
      {"10 MB", 200, std::string(10'000'000, ' '), errc::response_too_large},
      {"404", 404, "not here", errc::http_status},
      {"500", 500, key_set({"b"}), errc::http_status},
      {"204", 204, "", errc::http_status},
      {"304 that nobody asked for", 304, "", errc::http_status},
  };
  for (const bad& answer : answers) {
    CAPTURE(answer.what);
    loopback_server server(serving_keys({"a"}));
    axioms::jwks_manager manager{fetcher()};
    REQUIRE(manager.initialize(config_for(server.url())));
    const auto before = manager.get_jwks();
    server.set_handler(serving(answer.body, answer.status));
    const auto refreshed = manager.refresh();
    CHECK(code(refreshed) == answer.expected);
    if (!refreshed) {
      CHECK_FALSE(refreshed.error().description.empty());
      if (answer.status != 200) CHECK(refreshed.error().http_status == answer.status);
    }
    const auto after = manager.get_jwks();
    REQUIRE(after);
    CHECK(*after == *before);
    CHECK(manager.health().ready);
    CHECK(manager.health().consecutive_failures == 1);
  }
}

TEST_CASE("a 304 renews the document without a new body") {
  for (const bool tls : {false, true}) {
    CAPTURE(tls);
    provider idp(tls);
    std::atomic<int> conditional{0};
    idp.server->set_handler([&](const httplib::Request& request, httplib::Response& response) {
      response.set_header("ETag", "\"v1\"");
      if (request.get_header_value("If-None-Match") == "\"v1\"") {
        ++conditional;
        response.status = 304;
        return;
      }
      response.set_content(key_set({"a"}), "application/json");
    });
    axioms::jwks_manager manager{axioms::httplib_fetcher(idp.options)};
    REQUIRE(manager.initialize(config_for(idp.server->url())));
    const auto before = manager.get_jwks();
    REQUIRE(before);
    REQUIRE(manager.refresh());
    const auto after = manager.get_jwks();
    REQUIRE(after);
    CHECK(conditional == 1);
    CHECK((*after)->body().data() == (*before)->body().data());
    CHECK(&(*after)->keys() == &(*before)->keys());
    CHECK((*after)->generation() == (*before)->generation());
    CHECK((*after)->fetched_at() > (*before)->fetched_at());
    CHECK(manager.stats().not_modified == 1);
    CHECK(manager.stats().fetched == 1);
  }
}

TEST_CASE("when the provider is gone, lookups go on") {
  auto server = std::make_unique<loopback_server>(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  REQUIRE(manager.initialize(config_for(server->url())));
  server.reset();
  CHECK(code(manager.refresh()) == errc::connect_failed);
  CHECK(kids(manager.get_jwks()) == "a");
  CHECK(manager.get_key({.kid = "a"}));
  CHECK(manager.health().ready);
}

TEST_CASE("a provider with another CA's certificate is refused, and a lookup says so") {
  const throwaway_ca ca, other;
  loopback_server server(ca.issue(), serving_keys({"a"}));
  axioms::jwks_manager manager(trusting(other));
  REQUIRE(manager.initialize(config_for(server.url())));
  const auto set = manager.get_jwks();
  REQUIRE_FALSE(set);
  CHECK(set.error().code == errc::tls_failed);
  CHECK(set.error().status_code() == 503);
  CHECK(server.requests() == 0);
}

TEST_CASE("credentials do not follow discovery to another origin, unless it is allowed") {
  const throwaway_ca ca;
  const auto client = ca.issue({.common_name = "client", .names = ""});
  const test_support::temp_file both(client.chain_pem + client.key_pem);
  struct origin {
    std::mutex mutex;  // guards the rest
    std::string page, credentials;
    std::string seen() {
      const std::lock_guard lock(mutex);
      return std::exchange(credentials, {});
    }
  };
  const auto serve = [](origin& at) {
    return [&at](raw_connection& connection) {
      if (!connection.read_request()) return;
      const std::lock_guard lock(at.mutex);
      if (connection.request().find("\r\nAuthorization: Bearer t\r\n") != std::string::npos) at.credentials += "token ";
      at.credentials += connection.client_name();
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(at.page.size()) + "\r\n\r\n" + at.page);
    };
  };
  raw_server::options asking;
  asking.ask_client = true;
  origin home, elsewhere;
  const raw_server idp(ca.issue(), serve(home), asking), keys(ca.issue(), serve(elsewhere), asking);
  jwks_config config;
  config.discovery = true;
  config.issuer = "https://127.0.0.1:" + std::to_string(idp.port());
  home.page = R"({"issuer":")" + config.issuer + R"(","jwks_uri":")" + keys.url() + "\"}";
  elsewhere.page = key_set({"a"});
  auto options = trusting(ca);
  options.client_cert_file = both.path();
  options.headers = [] { return std::vector<std::pair<std::string, std::string>>{{"Authorization", "Bearer t"}}; };
  {
    axioms::jwks_manager manager{axioms::httplib_fetcher(options)};
    REQUIRE(manager.initialize(config));
    CHECK(kids(manager.get_jwks()) == "a");
    CHECK(home.seen() == "token /CN=client");
    CHECK(elsewhere.seen().empty());
  }
  options.credential_origins = {"https://127.0.0.1:" + std::to_string(keys.port())};
  axioms::async_jwks_manager manager{axioms::httplib_fetcher(options)};
  REQUIRE(wait(manager.initialize(config)));
  CHECK(kids(wait(manager.get_jwks())) == "a");
  CHECK(home.seen() == "token /CN=client");
  CHECK(elsewhere.seen() == "token /CN=client");
}

TEST_CASE("a file that is missing is told by initialize() and add()") {
  auto options = direct();
  options.ca_file = "/no/such/file.pem";
  axioms::jwks_manager manager{axioms::httplib_fetcher(options)};
  axioms::async_jwks_manager async{axioms::httplib_fetcher(options)};
  for (const auto& told :
       {manager.initialize(config_for("https://127.0.0.1:1/")), manager.add(config_for("https://127.0.0.1:1/")),
        wait(async.initialize(config_for("https://127.0.0.1:1/"))), async.add(config_for("https://127.0.0.1:1/"))}) {
    REQUIRE_FALSE(told);
    CHECK(told.error().code == errc::invalid_config);
    CHECK(told.error().description.find("/no/such/file.pem") != std::string::npos);
  }
}

TEST_CASE("a file URL is a configuration error before anything is read") {
  axioms::jwks_manager manager{fetcher()};
  for (const char* url : {"file:///etc/passwd", "ftp://127.0.0.1/jwks.json"}) {
    CAPTURE(url);
    const auto set = manager.get_jwks(url);
    REQUIRE_FALSE(set);
    CHECK(set.error().code == errc::unsupported_scheme);
    CHECK(set.error().status_code() == 500);
    CHECK(set.error().oauth_error() == "server_error");
    CHECK(code(manager.initialize(config_for(url))) == errc::unsupported_scheme);
  }
  CHECK_FALSE(manager.running());
  CHECK(manager.stats().failed == 0);
}

TEST_CASE("a lookup works without initialize, and initialize keeps what it brought") {
  loopback_server server(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  CHECK(kids(manager.get_jwks(server.url())) == "a");
  CHECK(kids(manager.get_jwks(server.url())) == "a");
  CHECK(manager.get_key(server.url(), {.kid = "a"}));
  CHECK_FALSE(manager.running());
  CHECK(manager.health(server.url()).next_attempt !=
        std::chrono::steady_clock::time_point::max());  // a refresh is planned
  auto config = config_for(server.url());
  config.prefetch = false;
  REQUIRE(manager.initialize(config));
  CHECK(manager.running());
  CHECK(kids(manager.get_jwks()) == "a");
  CHECK(server.requests() == 1);
}

TEST_CASE("after a lazy first use initialize starts the background refresh of that URL") {
  loopback_server server(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  CHECK(kids(manager.get_jwks(server.url())) == "a");
  auto config = config_for(server.url());
  config.refresh_interval = 1s;
  config.cache_ttl = 2s;
  config.prefetch = false;
  REQUIRE(manager.initialize(config));
  CHECK(eventually([&] { return server.requests() >= 3; }));
}

TEST_CASE("ten threads look up at once") {
  for (const bool tls : {false, true}) {
    CAPTURE(tls);
    provider idp(tls);
    axioms::jwks_manager manager{axioms::httplib_fetcher(idp.options)};
    auto config = config_for(idp.server->url());
    config.refresh_interval = 1s;
    config.cache_ttl = 2s;
    REQUIRE(manager.initialize(config));
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 10; ++t) {
      threads.emplace_back([&, t] {
        const stopwatch since;
        for (int i = 0; since.took() < 1200ms; ++i) {  // over a background refresh
          const auto set = t % 2 == 0 ? manager.get_jwks() : manager.get_jwks(idp.server->url());
          if (!set || (*set)->keys().size() != 2) ++wrong;
          if (!manager.get_key({.kid = i % 2 == 0 ? "a" : "b", .alg = "ES256"})) ++wrong;
          std::this_thread::sleep_for(1ms);
        }
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(manager.stats().failed == 0);
    CHECK(idp.server->requests() <= 4);
  }
}

TEST_CASE("64 threads that miss together make exactly one request") {
  for (const bool tls : {false, true}) {
    CAPTURE(tls);
    provider idp(tls);
    axioms::jwks_manager manager{axioms::httplib_fetcher(idp.options)};
    std::atomic<bool> all_here{false};
    idp.server->set_handler([&](const httplib::Request& request, httplib::Response& response) {
      all_here = eventually([&] { return manager.stats().coalesced >= 63; });  // the answer waits for the last of them
      serving_keys({"a", "b"})(request, response);
    });
    const std::string url = idp.server->url();
    std::latch start(64);
    std::atomic<int> good{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 64; ++t) {
      threads.emplace_back([&, t] {
        start.arrive_and_wait();
        good += t % 2 == 0 ? manager.get_jwks(url).has_value()
                           : manager.get_key(url, {.kid = "a", .alg = "ES256"}).has_value();
      });
    }
    for (auto& thread : threads) thread.join();
    CHECK(good == 64);
    CHECK(all_here);
    CHECK(idp.server->requests() == 1);
    CHECK(manager.stats().fetched == 1);
  }
}

TEST_CASE("a URL that hangs delays no other") {
  raw_server stuck(hanging());
  loopback_server server(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  auto config = config_for(server.url());
  config.prefetch = false;
  REQUIRE(manager.initialize(config));
  REQUIRE(manager.add(config_for(stuck.url())));
  REQUIRE(eventually([&] { return stuck.connections() == 1; }));
  const stopwatch watch;
  CHECK(kids(manager.get_jwks()) == "a");
  CHECK(watch.took() < 1s * slow);
}

TEST_CASE("a fetch that hangs ends at fetch_timeout") {
  raw_server stuck(hanging());
  axioms::jwks_manager manager{fetcher()};
  auto config = config_for(stuck.url());
  config.prefetch = false;
  config.fetch_timeout = 300ms;
  REQUIRE(manager.initialize(config));
  const stopwatch watch;
  CHECK(code(manager.get_jwks()) == errc::timed_out);
  CHECK(watch.took() >= 290ms);
  CHECK(watch.took() < 300ms + 200ms * slow);
}

TEST_CASE("a caller that is cancelled leaves alone, and the fetch goes on for the others") {
  loopback_server server(serving_keys({"a"}));
  std::atomic<bool> answer{false};
  server.set_handler([&](const httplib::Request& request, httplib::Response& response) {
    eventually([&] { return answer.load(); });
    serving_keys({"a"})(request, response);
  });
  axioms::jwks_manager manager{fetcher()};
  axioms::stop_source stop;
  errc impatient{};
  std::chrono::milliseconds left_after{};
  std::string patient;
  std::thread first([&] {
    const auto set = manager.get_jwks(server.url(), stop.get_token());
    impatient = code(set);
  });
  std::thread second([&] { patient = kids(manager.get_jwks(server.url())); });
  REQUIRE(eventually([&] { return manager.stats().coalesced == 1; }));
  const stopwatch watch;
  stop.request_stop();
  first.join();
  left_after = watch.took();
  answer = true;
  second.join();
  CHECK(impatient == errc::cancelled);
  CHECK(left_after < 100ms * slow);
  CHECK(patient == "a");
  CHECK(server.requests() == 1);
}

TEST_CASE("shutdown with a request hanging returns within 100 ms, and whoever waits gets shut_down") {
  const throwaway_ca ca;
  const auto identity = ca.issue();
  raw_server plain(hanging());
  raw_server secure(identity, hanging());
  raw_server mute(identity, [](raw_connection& connection) { connection.wait_for_close(); },
                  {.tls_first = false});  // no handshake
  for (const raw_server* stuck : {&plain, &secure, &mute}) {
    CAPTURE(stuck->url());
    axioms::jwks_manager manager(trusting(ca));
    auto config = config_for(stuck->url());
    config.prefetch = false;
    REQUIRE(manager.initialize(config));
    errc got{};
    std::thread caller([&] { got = code(manager.get_jwks()); });
    REQUIRE(eventually([&] { return stuck->connections() == 1; }));
    std::this_thread::sleep_for(50ms);  // well inside the exchange
    const stopwatch watch;
    manager.shutdown();
    CHECK(watch.took() < 100ms * slow);
    caller.join();
    CHECK(got == errc::shut_down);
    CHECK_FALSE(manager.running());
  }
}

TEST_CASE("shutdown is idempotent, lookups after it give shut_down, and initialize starts afresh") {
  loopback_server server(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  manager.shutdown();  // before any use
  for (int round = 1; round <= 3; ++round) {
    REQUIRE(manager.initialize(config_for(server.url())));
    CHECK(kids(manager.get_jwks()) == "a");
    CHECK(server.requests() == round);
    const auto held = manager.get_jwks();
    manager.shutdown();
    manager.shutdown();
    CHECK_FALSE(manager.running());
    CHECK(code(manager.get_jwks()) == errc::shut_down);
    CHECK(code(manager.get_jwks(server.url())) == errc::shut_down);
    CHECK(code(manager.get_key({.kid = "a"})) == errc::shut_down);
    CHECK_FALSE(manager.peek());
    CHECK(kids(held) == "a");
  }
}

TEST_CASE("a manager may be destroyed while it fetches") {
  raw_server stuck(hanging());
  for (int i = 0; i < 5; ++i) {
    const stopwatch watch;
    {
      axioms::jwks_manager manager{fetcher()};
      REQUIRE(manager.add(config_for(stuck.url())));
      REQUIRE(eventually([&] { return stuck.connections() == i + 1; }));
    }
    CHECK(watch.took() < 1s * slow);
  }
}

TEST_SUITE_END();
TEST_SUITE_BEGIN("async manager");

TEST_CASE("a coroutine initializes, looks up and shuts down") {
  for (const bool tls : {false, true}) {
    CAPTURE(tls);
    const provider idp(tls);
    axioms::async_jwks_manager manager{axioms::httplib_fetcher(idp.options)};
    struct seen {
      bool initialized = false, running = false, key = false;
      std::string set, again, after;
    };
    const auto into = std::make_shared<box<seen>>();
    [](axioms::async_jwks_manager& m, std::string url, std::shared_ptr<box<seen>> out) -> task {
      seen now;
      now.initialized = (co_await m.initialize(config_for(url))).has_value();
      now.running = m.running();
      now.set = kids(co_await m.get_jwks());
      now.again = kids(co_await m.get_jwks(url));
      now.key = (co_await m.get_key({.kid = "b", .alg = "ES256"})).has_value();
      co_await m.shutdown();
      now.after = kids(co_await m.get_jwks());
      out->put(now);
    }(manager, idp.server->url(), into);
    const auto got = into->take();
    REQUIRE(got);
    CHECK(got->initialized);
    CHECK(got->running);
    CHECK(got->set == "a b");
    CHECK(got->again == "a b");
    CHECK(got->key);
    CHECK(got->after == "shut_down");
    CHECK(idp.server->requests() == 1);
    CHECK_FALSE(manager.running());
  }
}

TEST_CASE("a lookup without initialize works in a coroutine, and background refresh goes on after initialize") {
  loopback_server server(serving_keys({"a"}));
  axioms::async_jwks_manager manager{fetcher()};
  CHECK(kids(wait(manager.get_jwks(server.url()))) == "a");
  CHECK(server.requests() == 1);
  auto config = config_for(server.url());
  config.refresh_interval = 1s;
  config.cache_ttl = 2s;
  REQUIRE(wait(manager.initialize(config)));
  CHECK(eventually([&] { return server.requests() >= 4; }));
  server.set_handler(serving_keys({"b"}));
  CHECK(eventually([&] { return kids(wait(manager.get_jwks())) == "b"; }));
  wait(manager.shutdown());
  wait(manager.shutdown());
  CHECK(code(wait(manager.get_jwks())) == errc::shut_down);
  REQUIRE(wait(manager.initialize(config)));
  CHECK(kids(wait(manager.get_jwks())) == "b");
}

TEST_CASE("64 coroutines and callbacks that miss together make exactly one request") {
  loopback_server server(serving_keys({"a"}));
  axioms::async_jwks_manager manager{fetcher()};
  server.set_handler([&](const httplib::Request& request, httplib::Response& response) {
    eventually([&] { return manager.stats().coalesced >= 63; });
    serving_keys({"a"})(request, response);
  });
  const std::string url = server.url();
  std::vector<std::shared_ptr<box<axioms::result<jwks_ptr>>>> answers;
  for (int i = 0; i < 64; ++i) {
    answers.push_back(std::make_shared<box<axioms::result<jwks_ptr>>>());
    if (i % 2 == 0) {
      await_into(manager.get_jwks(url), answers.back());
    } else {
      manager.async_get_jwks(url, [out = answers.back()](axioms::result<jwks_ptr> set) { out->put(std::move(set)); });
    }
  }
  for (const auto& answer : answers) {
    const auto set = answer->take();
    REQUIRE(set);
    CHECK(kids(*set) == "a");
    CHECK(answer->puts() == 1);
  }
  CHECK(server.requests() == 1);
}

TEST_CASE("the async manager keeps no caller waiting while a fetch hangs") {
  raw_server stuck(hanging());
  axioms::async_jwks_manager manager{fetcher()};
  const auto started = std::make_shared<box<axioms::result<void>>>();
  const auto set = std::make_shared<box<axioms::result<jwks_ptr>>>();
  const stopwatch watch;
  manager.async_initialize(config_for(stuck.url()),
                           [started](axioms::result<void> answer) { started->put(std::move(answer)); });
  await_into(manager.get_jwks(stuck.url()), set);
  CHECK(watch.took() < 100ms * slow);
  CHECK(started->puts() == 0);
  CHECK(set->puts() == 0);
  REQUIRE(eventually([&] { return stuck.connections() == 1; }));

  const stopwatch ending;
  wait(manager.shutdown());
  CHECK(ending.took() < 100ms * slow);
  const auto first = started->take();
  const auto second = set->take();
  REQUIRE(first);
  REQUIRE(second);
  CHECK(code(*first) == errc::shut_down);
  CHECK(code(*second) == errc::shut_down);
}

TEST_CASE("a coroutine that is cancelled while a fetch hangs goes on at once, with cancelled") {
  raw_server stuck(hanging());
  axioms::async_jwks_manager manager{fetcher()};
  axioms::stop_source stop;
  const auto set = std::make_shared<box<axioms::result<jwks_ptr>>>();
  const std::string url = stuck.url();
  await_into(manager.get_jwks(url, {.stop = stop.get_token()}), set);
  REQUIRE(eventually([&] { return stuck.connections() == 1; }));
  const stopwatch watch;
  stop.request_stop();
  const auto answer = set->take();
  CHECK(watch.took() < 100ms * slow);
  REQUIRE(answer);
  CHECK(code(*answer) == errc::cancelled);
  CHECK(set->puts() == 1);
}

TEST_CASE("an async manager that is destroyed while a fetch hangs has completed every waiter") {
  raw_server stuck(hanging());
  const auto set = std::make_shared<box<axioms::result<jwks_ptr>>>();
  {
    axioms::async_jwks_manager manager{fetcher()};
    manager.async_get_jwks(stuck.url(), [set](axioms::result<jwks_ptr> answer) { set->put(std::move(answer)); });
    REQUIRE(eventually([&] { return stuck.connections() == 1; }));
  }
  CHECK(set->puts() == 1);
  const auto answer = set->take();
  REQUIRE(answer);
  CHECK(code(*answer) == errc::shut_down);
}

TEST_CASE("the async manager tells errors as the blocking one does") {
  const throwaway_ca ca, other;
  loopback_server server(ca.issue(), serving_keys({"a"}));
  loopback_server html(serving("<html>"));
  axioms::async_jwks_manager manager(trusting(other));
  CHECK(code(wait(manager.get_jwks("file:///etc/passwd"))) == errc::unsupported_scheme);
  CHECK(code(wait(manager.get_jwks(server.url()))) == errc::tls_failed);
  CHECK(code(wait(manager.get_jwks(html.url()))) == errc::not_a_key_set);
  CHECK(code(wait(manager.initialize(config_for("file:///etc/passwd")))) == errc::unsupported_scheme);
}

TEST_SUITE_END();
TEST_SUITE_BEGIN("process-wide managers");

TEST_CASE("singleton pattern: there is one blocking and one async manager") {
  CHECK(&axioms::default_jwks_manager() == &axioms::default_jwks_manager());
  CHECK(&axioms::default_async_jwks_manager() == &axioms::default_async_jwks_manager());
}

TEST_CASE("the process-wide manager takes a configuration and a CA, then the short form") {
  const throwaway_ca ca;
  loopback_server secure(ca.issue(), serving_keys({"a"}));
  const test_support::temp_file ca_file(ca.pem());
  auto options = direct();
  options.ca_file = ca_file.path();
  axioms::shutdown_jwks_manager();
  REQUIRE(axioms::initialize_jwks_manager(config_for(secure.url()), options));
  CHECK(axioms::default_jwks_manager().running());
  CHECK(kids(axioms::default_jwks_manager().get_jwks()) == "a");
  REQUIRE(axioms::initialize_jwks_manager(config_for("http://127.0.0.1:1/")));  // it runs: nothing changes
  CHECK(kids(axioms::default_jwks_manager().get_jwks()) == "a");
  axioms::shutdown_jwks_manager();
  axioms::shutdown_jwks_manager();
  CHECK_FALSE(axioms::default_jwks_manager().running());
  CHECK(code(axioms::default_jwks_manager().get_jwks()) == errc::shut_down);

  const char* spared = std::getenv("no_proxy");  // the short form has no options, and the environment may name a proxy
  const std::string before = spared != nullptr ? spared : "";
  ::setenv("no_proxy", "127.0.0.1", 1);
  loopback_server plain(serving_keys({"b"}));
  REQUIRE(axioms::initialize_jwks_manager(plain.url(), 1s, 2s, false));
  CHECK(plain.requests() == 0);
  CHECK(kids(axioms::default_jwks_manager().get_jwks()) == "b");
  CHECK(eventually([&] { return plain.requests() >= 3; }));
  axioms::shutdown_jwks_manager();
  CHECK(code(axioms::initialize_jwks_manager(plain.url(), 10s, 19s)) == errc::invalid_config);
  REQUIRE(axioms::initialize_jwks_manager(plain.url(), 10s, 20s));
  axioms::shutdown_jwks_manager();
  if (spared != nullptr) {
    ::setenv("no_proxy", before.c_str(), 1);
  } else {
    ::unsetenv("no_proxy");
  }
}

TEST_CASE(
    "initialize async jwks manager, shutdown async jwks manager: the process-wide one does the same in coroutines") {
  const throwaway_ca ca;
  loopback_server secure(ca.issue(), serving_keys({"a"}));
  wait(axioms::shutdown_async_jwks_manager());
  REQUIRE(wait(axioms::initialize_async_jwks_manager(config_for(secure.url()), trusting(ca))));
  CHECK(kids(wait(axioms::default_async_jwks_manager().get_jwks())) == "a");
  wait(axioms::shutdown_async_jwks_manager());
  wait(axioms::shutdown_async_jwks_manager());
  CHECK(code(wait(axioms::default_async_jwks_manager().get_jwks())) == errc::shut_down);
  CHECK(code(wait(axioms::initialize_async_jwks_manager("http://127.0.0.1:1/", 10s, 19s))) == errc::invalid_config);
  REQUIRE(wait(axioms::initialize_async_jwks_manager("http://127.0.0.1:1/", 10s, 20s, false)));
  CHECK(axioms::default_async_jwks_manager().running());
  wait(axioms::shutdown_async_jwks_manager());
}

// Run by the test below, in a process of its own.
TEST_CASE("child: exits while the process-wide managers fetch" * doctest::skip()) {
  const char* url = std::getenv("AXIOMS_JWKS_TEST_URL");
  REQUIRE(url != nullptr);
  auto config = config_for(url);
  config.on_event = [](const jwks_event&) {};  // so that the listener's thread is there as well
  auto idle = config;
  idle.prefetch = false;
  REQUIRE(axioms::initialize_jwks_manager(idle, direct()));
  config.jwks_url += "?second";
  REQUIRE(axioms::default_jwks_manager().add(config));  // fetches in the background
  auto& async = axioms::default_async_jwks_manager();
  async.async_initialize(config, [](const axioms::result<void>&) {});
  char byte = 0;
  while (::read(STDIN_FILENO, &byte, 1) < 0) {}
  std::exit(0);
}

TEST_CASE("a process that exits while its process-wide managers fetch exits at once, with its own code") {
  raw_server stuck(hanging());
  int gate[2];
  REQUIRE(::pipe2(gate, O_CLOEXEC) == 0);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, gate[0], STDIN_FILENO);
  std::vector<std::string> arguments = {"integration", "--test-case=child: exits while the process-wide managers fetch",
                                        "--no-skip"};
  std::vector<std::string> variables = {"AXIOMS_JWKS_TEST_URL=" + stuck.url(), "no_proxy=127.0.0.1"};
  std::vector<char*> argv, envp;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  for (auto& variable : variables) envp.push_back(variable.data());
  for (char** variable = environ; *variable != nullptr; ++variable) envp.push_back(*variable);
  envp.push_back(nullptr);
  pid_t child = 0;
  REQUIRE(::posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv.data(), envp.data()) == 0);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(gate[0]);
  const bool both = eventually([&] { return stuck.connections() == 2; });
  const stopwatch watch;
  ::close(gate[1]);
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(both);
  CHECK(watch.took() < 1s * slow);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_SUITE_END();
TEST_SUITE_BEGIN("fork");

namespace {

// Runs the checks in a forked child; returns the number of the first that failed, 0 if none did.
int in_child(const std::function<int()>& checks) {
  std::this_thread::sleep_for(50ms);  // the server's threads have put down OpenSSL's locks
  const pid_t child = ::fork();
  if (child == 0) ::_exit(checks());
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return 100;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 101;
}

}  // namespace

TEST_CASE("in a forked child the managers are down, and initialize starts them afresh") {
  const throwaway_ca ca;
  loopback_server server(ca.issue(), serving_keys({"a"}));
  const std::string url = server.url();
  axioms::jwks_manager manager(trusting(ca));
  axioms::async_jwks_manager async{axioms::httplib_fetcher(trusting(ca))};
  REQUIRE(manager.initialize(config_for(url)));
  REQUIRE(wait(async.initialize(config_for(url))));
  REQUIRE(axioms::initialize_jwks_manager(config_for(url), trusting(ca)));
  REQUIRE(server.requests() == 3);
  REQUIRE(kids(manager.get_jwks()) == "a");  // this thread holds the document, also in the child

  const int failed = in_child([&] {
    if (manager.running() || async.running() || axioms::default_jwks_manager().running()) return 1;
    if (code(manager.get_jwks()) != errc::shut_down || code(manager.get_jwks(url)) != errc::shut_down) return 2;
    if (code(wait(async.get_jwks(url))) != errc::shut_down) return 3;
    if (code(axioms::default_jwks_manager().get_jwks()) != errc::shut_down) return 4;
    if (manager.peek() || manager.health().ready) return 5;
    manager.shutdown();        // touches no thread of the parent's
    if (under_tsan) return 0;  // ThreadSanitizer allows no new thread after a fork
    if (!manager.initialize(config_for(url)) || kids(manager.get_jwks()) != "a") return 6;
    if (!wait(async.initialize(config_for(url))) || kids(wait(async.get_jwks())) != "a") return 7;
    if (!axioms::initialize_jwks_manager(config_for(url), trusting(ca)) ||
        kids(axioms::default_jwks_manager().get_jwks()) != "a")
      return 8;
    manager.shutdown();
    wait(async.shutdown());
    axioms::shutdown_jwks_manager();
    return 0;
  });
  CHECK(failed == 0);
  CHECK(manager.running());  // the parent's go on
  CHECK(kids(manager.get_jwks()) == "a");
  CHECK(kids(wait(async.get_jwks())) == "a");
  CHECK(server.requests() == (under_tsan ? 3 : 6));
  axioms::shutdown_jwks_manager();
}

TEST_CASE("a child that is forked while a fetch hangs is down, too") {
  raw_server stuck(hanging());
  loopback_server server(serving_keys({"a"}));
  axioms::jwks_manager manager{fetcher()};
  auto config = config_for(stuck.url());
  config.prefetch = false;
  REQUIRE(manager.initialize(config));
  errc got{};
  std::thread caller([&] { got = code(manager.get_jwks()); });
  REQUIRE(eventually([&] { return stuck.connections() == 1; }));
  const int failed = in_child([&] {
    if (code(manager.get_jwks()) != errc::shut_down) return 1;
    if (under_tsan) return 0;
    if (!manager.initialize(config_for(server.url())) || kids(manager.get_jwks()) != "a") return 2;
    manager.shutdown();
    return 0;
  });
  CHECK(failed == 0);
  CHECK(manager.running());
  manager.shutdown();
  caller.join();
  CHECK(got == errc::shut_down);
}

TEST_SUITE_END();
