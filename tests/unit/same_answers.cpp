// One table of scripts, played through the blocking manager and through the async manager: on threads and on an event loop, by
// coroutine and by callback. Each line of a script has one answer, which all five must give. No test here sleeps or opens a socket.
#include "support/coroutine.hpp"
#include "support/eventually.hpp"
#include "support/fake_fetcher.hpp"
#include "support/manual_clock.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config, axioms::jwks_ptr, axioms::key_ptr, axioms::result;
using support::detached, support::fake_fetcher, support::manual_clock, support::response;

namespace {

// ---- the table -----------------------------------------------------------------------------------
// a, b and c are URLs, "configured" is that of initialize(). A document is shown as its kids, the number of its generation, and its age
// in seconds; nothing is expected of the lines that set the stage.
//
//   provider ...          what every request is answered with from here on; "new k1" is another key under that kid
//   begin LINE            LINE is asked by a caller that has to wait; "end" has the answers, in the order of the questions
//   hold, release, stop   the provider keeps its answers, gives them; whoever has begun to wait is told to stop
//   advance S             seconds; what is due on the way a loop does at its instant, threads at the end, so nothing may tell of that

struct line {
  const char* say;
  const char* answer = "";
};
struct script {
  const char* name;
  std::vector<line> lines;
};

const std::vector<script>& scripts() {
  static const std::vector<script> all{
      {"miss, hit, confirmation, rotation, and every counter",
       {{"provider keys k1"},
        {"initialize a", "ok"},
        {"lookup a", "k1 #1 0s"},
        {"lookup b", "k1 #2 0s"},
        {"lookup a", "k1 #1 0s"},
        {"key a k1", "k1"},
        {"advance 100"},
        {"lookup a", "k1 #1 100s"},
        {"provider 304"},
        {"refresh a", "ok"},
        {"lookup a", "k1 #1 0s"},
        {"provider keys k1 k2"},
        {"refresh a", "ok"},
        {"lookup a", "k1 k2 #3 0s"},
        {"key a k2", "k2"},
        {"peek a", "k1 k2 #3 0s"},
        {"health a", "ready, 0 failures, 0s old, next in 3600s"},
        {"stats", "7 hits, 1 misses, 0 stale, 3 fetched, 1 confirmed, 0 failed, 0 joined, 0 throttled"},
        {"requests", "4"}}},
      {"initialize once, look up without a URL, shut down, start again",
       {{"running", "no"},
        {"lookup configured", "invalid_config"},
        {"ready 0", "no"},
        {"initialize a", "ok"},
        {"running", "yes"},
        {"lookup configured", "k1 #1 0s"},
        {"key configured k1", "k1"},
        {"bad_signature configured k1", "same"},
        {"refresh configured", "ok"},
        {"ready 0", "yes"},
        {"initialize b", "ok"},
        {"peek b", "nothing"},
        {"shutdown", "done"},
        {"shutdown", "done"},
        {"running", "no"},
        {"peek a", "nothing"},
        {"lookup a", "shut_down"},
        {"key configured k1", "shut_down"},
        {"refresh a", "shut_down"},
        {"bad_signature a k1", "shut_down"},
        {"ready 0", "no"},
        {"add b", "shut_down"},
        {"static b k7", "shut_down"},
        {"lookup not-a-url", "invalid_url"},
        {"initialize a", "ok"},
        {"lookup a", "k1 #2 0s"},
        {"requests", "3"}}},
      {"configurations that start nothing, and URLs that nobody fetches",
       {{"initialize a refresh=0", "invalid_config"},
        {"initialize a refresh=100 ttl=199", "invalid_config"},
        {"initialize file", "unsupported_scheme"},
        {"running", "no"},
        {"lookup file", "unsupported_scheme"},
        {"lookup userinfo", "invalid_url"},
        {"key file k1", "unsupported_scheme"},
        {"initialize a only", "ok"},
        {"lookup b", "invalid_url"},
        {"add b", "ok"},
        {"lookup b", "k1 #2 0s"},
        {"shutdown", "done"},
        {"initialize a https", "ok"},
        {"lookup http", "unsupported_scheme"},
        {"static http k1", "unsupported_scheme"},
        {"requests", "3"}}},
      {"a failed prefetch is success; the error of the last fetch until the backoff is over",
       {{"provider status 503"},
        {"initialize a", "ok"},
        {"running", "yes"},
        {"ready 0", "no"},
        {"lookup a", "http_status 503"},
        {"key a k1", "http_status 503"},
        {"health a", "not ready, 1 failures, http_status 503, next in 0.5s"},
        {"requests", "1"},
        {"provider fails"},
        {"advance 0.5"},
        {"lookup a", "connect_failed"},
        {"refresh a", "connect_failed"},
        {"provider keys k1"},
        {"refresh a", "ok"},
        {"lookup a", "k1 #1 0s"},
        {"health a", "ready, 0 failures, 0s old, next in 3600s"},
        {"stats", "1 hits, 3 misses, 0 stale, 1 fetched, 0 confirmed, 3 failed, 0 joined, 0 throttled"}}},
      {"without prefetch the first lookup fetches, or the background after one interval",
       {{"initialize a noprefetch", "ok"},
        {"advance 3599"},
        {"requests", "0"},
        {"advance 1"},
        {"requests", "1"},
        {"lookup a", "k1 #1 0s"},
        {"advance 3599"},
        {"requests", "1"},
        {"advance 1"},
        {"requests", "2"}}},
      {"an outage: the old document, then stale, then the error; and the comeback",
       {{"initialize a refresh=3600 ttl=7200 outage=3600", "ok"},
        {"provider fails"},
        {"advance 3600"},
        {"health a", "ready, 1 failures, connect_failed, 3600s old, next in 0.5s"},
        {"lookup a", "k1 #1 3600s"},
        {"advance 3600"},
        {"lookup a", "k1 #1 7200s"},
        {"key a k1", "k1"},
        {"key a k2", "connect_failed"},
        {"refresh a", "connect_failed"},
        {"bad_signature a k1", "connect_failed"},
        {"stale a", "yes"},
        {"advance 3600"},
        {"lookup a", "connect_failed"},
        {"key a k1", "connect_failed"},
        {"peek a", "nothing"},
        {"ready 0", "no"},
        {"provider keys k2"},
        {"refresh a", "ok"},
        {"lookup a", "k2 #2 0s"},
        {"stale a", "no"}}},
      {"outage_window = 0 fails closed at the TTL",
       {{"initialize a outage=0", "ok"},
        {"provider status 500"},
        {"advance 7199"},
        {"lookup a", "k1 #1 7199s"},
        {"advance 1"},
        {"lookup a", "http_status 500"}}},
      {"what is no key set never replaces a good one",
       {{"initialize a", "ok"},
        {"provider html"},
        {"refresh a", "not_a_key_set 200"},
        {"provider keys"},
        {"refresh a", "no_usable_key 200"},
        {"provider status 200"},
        {"refresh a", "not_a_key_set 200"},
        {"provider status 404"},
        {"refresh a", "http_status 404"},
        {"lookup a", "k1 #1 0s"},
        {"stats", "1 hits, 0 misses, 0 stale, 1 fetched, 0 confirmed, 4 failed, 0 joined, 0 throttled"}}},
      {"unknown kids: one refetch each, remembered; without budget the set is the answer while it is young",
       {{"initialize a", "ok"},
        {"key a k1 RS256", "key_not_found"},
        {"key a k1 HS256", "unsupported_algorithm"},
        {"requests", "1"},
        {"key a k2", "key_not_found"},
        {"requests", "2"},
        {"key a k2", "key_not_found"},
        {"requests", "2"},
        {"provider keys k1 k3"},
        {"key a k3", "k3"},
        {"key a k4", "key_not_found"},
        {"key a k5", "key_not_found"},
        {"requests", "4"},
        {"advance 30"},
        {"key a k5", "key_not_found"},
        {"requests", "5"},
        {"stats", "2 hits, 4 misses, 0 stale, 2 fetched, 3 confirmed, 0 failed, 0 joined, 1 throttled"}}},
      {"unknown kids while the provider hangs: nobody waits longer than the first, then they are throttled",
       {{"initialize a", "ok"},
        {"advance 29"},
        {"hold"},
        {"begin key a x1"},
        {"advance 0.5"},
        {"key a k1", "k1"},
        {"begin key a x2"},
        {"advance 1.5"},
        {"end", "timed_out; timed_out"},
        {"key a x3", "throttled"},
        {"requests", "2"}}},
      {"a bad signature: another key under the same kid is found once",
       {{"initialize a", "ok"},
        {"bad_signature a k1", "same"},
        {"advance 31"},
        {"provider new k1"},
        {"bad_signature a k1", "changed"},
        {"bad_signature a k1", "changed"},
        {"advance 31"},
        {"bad_signature a k1", "same"},
        {"bad_signature b k1", "same"},
        {"bad_signature b", "same"},
        {"requests", "4"}}},
      {"a 200 with the same bytes confirms: the generation stays, and what is known to be missing",
       {{"initialize a", "ok"},
        {"lookup a", "k1 #1 0s"},
        {"key a k2", "key_not_found"},
        {"advance 10"},
        {"refresh a", "ok"},
        {"lookup a", "k1 #1 0s"},
        {"key a k2", "key_not_found"},
        {"requests", "3"},
        {"provider keys k1 k2"},
        {"refresh a", "ok"},
        {"lookup a", "k1 k2 #2 0s"},
        {"stats", "3 hits, 1 misses, 0 stale, 2 fetched, 2 confirmed, 0 failed, 0 joined, 0 throttled"}}},
      {"URLs are known until they are removed, but the configured one stays",
       {{"urls", ""},
        {"remove a", "no"},
        {"lookup b", "k1 #1 0s"},
        {"static c k7", "ok"},
        {"initialize a", "ok"},
        {"urls", "a b c"},
        {"remove nonsense", "no"},
        {"remove a", "no"},
        {"remove b", "yes"},
        {"remove b", "no"},
        {"remove c", "yes"},
        {"urls", "a"},
        {"peek b", "nothing"},
        {"lookup c", "k1 #4 0s"},
        {"hold"},
        {"begin lookup b"},
        {"begin key b k1"},
        {"begin refresh b"},
        {"remove b", "yes"},
        {"end", "cancelled; cancelled; cancelled"},
        {"release"},
        {"add b", "ok"},
        {"lookup b", "k1 #5 0s"},
        {"remove b", "yes"},
        {"shutdown", "done"},
        {"urls", ""},
        {"remove c", "no"}}},
      {"what initialize refuses is refused to those as well who wait for it since an earlier life",
       {{"hold"},
        {"begin lookup b"},
        {"begin lookup http"},
        {"initialize a only https noprefetch", "ok"},
        {"end", "invalid_url; unsupported_scheme"},
        {"release"},
        {"lookup b", "invalid_url"},
        {"lookup http", "unsupported_scheme"},
        {"urls", "a"}}},
      {"a saved document satisfies the prefetch, and is due when it would have been",
       {{"initialize a", "ok"},
        {"advance 600"},
        {"save", "1 documents"},
        {"shutdown", "done"},
        {"initialize b", "ok"},
        {"restore", "1 taken"},
        {"health a", "ready, 0 failures, 600s old, next in 3000s"},
        {"advance 2999"},
        {"requests", "2"},
        {"advance 1"},
        {"requests", "3"}}},
      {"callers that wait: a late answer, a stop, the end of the time, a shutdown",
       {{"hold"},
        {"begin lookup a"},
        {"begin key a k1"},
        {"begin key a k2"},
        {"begin refresh a"},
        {"release"},
        {"end", "k1 #1 0s; k1; key_not_found; ok"},
        {"hold"},
        {"begin lookup b"},
        {"begin key b k1"},
        {"stop"},
        {"end", "cancelled; cancelled"},
        {"begin lookup b"},
        {"advance 10"},
        {"end", "timed_out"},
        {"advance 2"},
        {"begin key a k9"},
        {"advance 2"},
        {"end", "timed_out"},
        {"begin lookup c"},
        {"begin refresh a"},
        {"shutdown", "done"},
        {"end", "shut_down; shut_down"},
        {"release"},
        {"lookup c", "shut_down"}}},
      {"key sets of the application's own, and a restart with what was saved",
       {{"static b k7 k8", "ok"},
        {"lookup b", "k7 k8 #1 0s"},
        {"refresh b", "ok"},
        {"key b k9", "key_not_found"},
        {"advance 100000"},
        {"key b k7", "k7"},
        {"initialize a", "ok"},
        {"advance 60"},
        {"save", "1 documents"},
        {"shutdown", "done"},
        {"save anew", "0 documents"},
        {"initialize c noprefetch", "ok"},
        {"provider fails"},
        {"advance 240"},
        {"restore", "1 taken"},
        {"restore", "0 taken"},
        {"peek a", "k1 #3 300s"},
        {"lookup b", "connect_failed"}}},
  };
  return all;
}

// ---- the players ---------------------------------------------------------------------------------

std::string text_of(const axioms::error& why) {
  return std::string(axioms::to_string(why.code)) + (why.http_status != 0 ? " " + std::to_string(why.http_status) : "");
}
std::string seconds(std::chrono::nanoseconds time) {
  std::ostringstream out;
  out << std::chrono::duration<double>(time).count() << "s";
  return out.str();
}

// What is asked for. url is none for the configured one.
struct question {
  std::string verb;
  std::optional<std::string> url;
  std::string kid, alg;
};

// Each form asks all verbs; the future has the answer.
struct by_blocking {
  template <class T, class Manager>
  static std::future<T> ask(Manager& manager, const question& what, const axioms::stop_token& stop) {
    return std::async(std::launch::async, [&manager, what, stop]() -> T {
      const auto& [verb, url, kid, alg] = what;
      if constexpr (std::is_same_v<T, result<jwks_ptr>>) {
        return url ? manager.get_jwks(*url, stop) : manager.get_jwks(stop);
      } else if constexpr (std::is_same_v<T, result<key_ptr>>) {
        const axioms::key_query query{.kid = kid, .alg = alg};
        return url ? manager.get_key(*url, query, stop) : manager.get_key(query, stop);
      } else if constexpr (std::is_same_v<T, result<bool>>) {
        return url ? manager.refresh_after_bad_signature(*url, kid, stop)
                   : manager.refresh_after_bad_signature(kid, stop);
      } else {
        return url ? manager.refresh(*url, stop) : manager.refresh(stop);
      }
    });
  }
  template <class Manager>
  static result<void> initialize(Manager& manager, jwks_config config) {
    return manager.initialize(std::move(config));
  }
  template <class Manager>
  static std::future<bool> ready(Manager& manager, std::chrono::milliseconds limit) {
    return std::async(std::launch::async, [&manager, limit] { return manager.wait_ready(limit); });
  }
  template <class Manager>
  static void shutdown(Manager& manager) {
    manager.shutdown();
  }
};

template <class T>
T take(std::future<T> from) {
  REQUIRE(from.wait_for(support::patience) == std::future_status::ready);
  return from.get();
}

struct by_coroutine {
  template <class T, class Operation>
  static detached drive(Operation operation, std::promise<T> to) {
    to.set_value(co_await std::move(operation));
  }
  template <class T, class Operation>
  static std::future<T> run(Operation operation) {
    std::promise<T> to;
    auto from = to.get_future();
    drive<T>(std::move(operation), std::move(to));
    return from;
  }
  template <class T, class Manager>
  static std::future<T> ask(Manager& manager, const question& what, const axioms::stop_token& stop) {
    const auto& [verb, url, kid, alg] = what;
    const axioms::async_options how{.executor = {}, .stop = stop};
    if constexpr (std::is_same_v<T, result<jwks_ptr>>) {
      return run<T>(url ? manager.get_jwks(*url, how) : manager.get_jwks(how));
    } else if constexpr (std::is_same_v<T, result<key_ptr>>) {
      const axioms::key_query query{.kid = kid, .alg = alg};
      return run<T>(url ? manager.get_key(*url, query, how) : manager.get_key(query, how));
    } else if constexpr (std::is_same_v<T, result<bool>>) {
      return run<T>(url ? manager.refresh_after_bad_signature(*url, kid, how)
                        : manager.refresh_after_bad_signature(kid, how));
    } else {
      return run<T>(url ? manager.refresh(*url, how) : manager.refresh(how));
    }
  }
  template <class Manager>
  static result<void> initialize(Manager& manager, jwks_config config) {
    return take(run<result<void>>(manager.initialize(std::move(config))));
  }
  template <class Manager>
  static std::future<bool> ready(Manager& manager, std::chrono::milliseconds limit) {
    return run<bool>(manager.wait_ready(limit));
  }
  static detached end(axioms::async_operation<void> operation, std::promise<bool> to) {
    co_await std::move(operation);
    to.set_value(true);
  }
  template <class Manager>
  static void shutdown(Manager& manager) {
    std::promise<bool> to;
    auto from = to.get_future();
    end(manager.shutdown(), std::move(to));
    static_cast<void>(take(std::move(from)));
  }
};

struct by_callback {
  template <class T, class Start>
  static std::future<T> run(Start start) {
    std::promise<T> to;
    auto from = to.get_future();
    start([to = std::move(to)](T out) mutable { to.set_value(std::move(out)); });
    return from;
  }
  template <class T, class Manager>
  static std::future<T> ask(Manager& manager, const question& what, const axioms::stop_token& stop) {
    return run<T>([&](auto then) {
      const auto& [verb, url, kid, alg] = what;
      if constexpr (std::is_same_v<T, result<jwks_ptr>>) {
        url ? manager.async_get_jwks(*url, std::move(then), stop) : manager.async_get_jwks(std::move(then), stop);
      } else if constexpr (std::is_same_v<T, result<key_ptr>>) {
        const axioms::key_query query{.kid = kid, .alg = alg};
        url ? manager.async_get_key(*url, query, std::move(then), stop)
            : manager.async_get_key(query, std::move(then), stop);
      } else if constexpr (std::is_same_v<T, result<bool>>) {
        url ? manager.async_refresh_after_bad_signature(*url, kid, std::move(then), stop)
            : manager.async_refresh_after_bad_signature(kid, std::move(then), stop);
      } else {
        url ? manager.async_refresh(*url, std::move(then), stop) : manager.async_refresh(std::move(then), stop);
      }
    });
  }
  template <class Manager>
  static result<void> initialize(Manager& manager, jwks_config config) {
    return take(run<result<void>>([&](auto then) { manager.async_initialize(std::move(config), std::move(then)); }));
  }
  template <class Manager>
  static std::future<bool> ready(Manager& manager, std::chrono::milliseconds limit) {
    return run<bool>([&](auto then) { manager.async_wait_ready(limit, std::move(then)); });
  }
  template <class Manager>
  static void shutdown(Manager& manager) {
    std::promise<bool> to;
    auto from = to.get_future();
    manager.async_shutdown([to = std::move(to)]() mutable { to.set_value(true); });
    static_cast<void>(take(std::move(from)));
  }
};

std::optional<std::string> url_of(const std::string& word) {
  if (word == "configured") return std::nullopt;
  if (word == "file") return "file:///etc/passwd";
  if (word == "userinfo") return "https://user@idp.example.com/jwks";
  if (word == "http") return "http://idp.example.com/jwks";
  if (word == "not-a-url") return word;
  return "https://" + word + ".example.com/.well-known/jwks.json";
}

axioms::fetch_response other_key(const std::string& kid) {
  return response(200, R"({"keys":[{"kty":"EC","crv":"P-256","kid":")" + kid + R"(","x":")" +
                           std::string(support::p256_x) + R"(","y":")" + std::string(support::p256_y) + R"("}]})");
}

std::string keys_of(const std::vector<std::string>& words, std::size_t from) {
  std::string members;
  for (std::size_t i = from; i < words.size(); ++i) {
    const std::string one = support::key_set({words[i]});
    members += (members.empty() ? "" : ",") + one.substr(9, one.size() - 11);  // without {"keys":[ and ]}
  }
  return R"({"keys":[)" + members + "]}";
}

template <class Manager, class Form>
class player {
 public:
  std::string say(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> words{std::istream_iterator<std::string>(in), {}};
    const bool begins = words.front() == "begin";
    if (begins) words.erase(words.begin());
    std::string answer = begins ? begin(words) : act(words);
    settle();
    return answer;
  }

 private:
  // What is due has begun and ended, if the provider gives answers.
  void settle() {
    if (held_ || !alive_) return;
    clock_.advance(0s);
    REQUIRE(support::eventually([&] {
      for (const char* name : {"a", "b", "c"}) {
        if (manager_.health(*url_of(name)).next_attempt <= clock_.now()) return false;
      }
      return true;
    }));
  }

  std::string act(const std::vector<std::string>& words) {
    const std::string& verb = words[0];
    if (verb == "provider") return provide(words), "";
    if (verb == "hold") return held_ = true, provider_.hold(), "";
    if (verb == "release") return held_ = false, provider_.release(), "";
    if (verb == "stop") return stop_->request_stop(), stop_.emplace(), "";
    if (verb == "end") return end();
    if (verb == "advance") {
      clock_.advance(std::chrono::nanoseconds(std::llround(std::stod(words[1]) * 1e9)));
      return "";
    }
    if (verb == "initialize") return initialize(words);
    if (verb == "shutdown") return Form::shutdown(manager_), alive_ = false, down_ = true, "done";
    if (verb == "ready") {
      auto answer = Form::ready(manager_, std::chrono::milliseconds(std::stoi(words[1])));
      clock_.advance(0s);  // lets the loop look at its timers
      return take(std::move(answer)) ? "yes" : "no";
    }
    if (verb == "running") return manager_.running() ? "yes" : "no";
    if (verb == "requests") return std::to_string(provider_.requests());
    if (verb == "stale") return manager_.health(*url_of(words[1])).stale ? "yes" : "no";
    if (verb == "peek") {
      const auto document = manager_.peek(*url_of(words[1]));
      return document ? show(*document) : "nothing";
    }
    if (verb == "health") return health(*url_of(words[1]));
    if (verb == "stats") return stats();
    if (verb == "add") {
      jwks_config config = config_for(words);
      alive_ = alive_ || !down_;
      return show(manager_.add(std::move(config)));
    }
    if (verb == "static") return show(manager_.add_static(*url_of(words[1]), keys_of(words, 2)));
    if (verb == "remove") return manager_.remove(words[1] == "nonsense" ? words[1] : *url_of(words[1])) ? "yes" : "no";
    if (verb == "urls") return urls();
    if (verb == "save") return save(words.size() == 1);
    if (verb == "restore") {
      const auto taken = manager_.import_cache(saved_);
      return taken ? std::to_string(*taken) + " taken" : text_of(taken.error());
    }
    return ask(words)();
  }

  void provide(const std::vector<std::string>& words) {
    if (words[1] == "keys") provider_.always(response(200, keys_of(words, 2), {{"ETag", "\"1\""}}));
    if (words[1] == "new") provider_.always(other_key(words[2]));
    if (words[1] == "304") provider_.always(response(304));
    if (words[1] == "html") provider_.always(response(200, "<html>"));
    if (words[1] == "status") provider_.always(response(std::stoi(words[2])));
    if (words[1] == "fails") provider_.always(axioms::error{errc::connect_failed, "refused", 0});
  }

  static jwks_config config_for(const std::vector<std::string>& words) {
    jwks_config config;
    config.jwks_url = *url_of(words[1]);
    config.random = [] { return std::uint64_t{0}; };  // no jitter where it makes later, the shortest backoff
    for (std::size_t i = 2; i < words.size(); ++i) {
      const auto equals = words[i].find('=');
      const std::string option = words[i].substr(0, equals);
      const std::chrono::seconds value(equals == std::string::npos ? 0 : std::stoi(words[i].substr(equals + 1)));
      if (option == "refresh") config.refresh_interval = value;
      if (option == "ttl") config.cache_ttl = value;
      if (option == "outage") config.outage_window = value;
      if (option == "noprefetch") config.prefetch = false;
      if (option == "only") config.only_configured_urls = true;
      if (option == "https") config.require_https = true;
    }
    return config;
  }
  std::string initialize(const std::vector<std::string>& words) {
    const auto out = Form::initialize(manager_, config_for(words));
    if (out) alive_ = true, down_ = false;
    return show(out);
  }

  // Asks; what it returns waits for the answer.
  std::function<std::string()> ask(const std::vector<std::string>& words) {
    question what{words[0], url_of(words[1]), words.size() > 2 ? words[2] : "", words.size() > 3 ? words[3] : ""};
    alive_ = alive_ || (!down_ && what.url && what.url->substr(0, 8) == "https://");
    if (what.verb == "lookup") return later(Form::template ask<result<jwks_ptr>>(manager_, what, stop_->get_token()));
    if (what.verb == "key") return later(Form::template ask<result<key_ptr>>(manager_, what, stop_->get_token()));
    if (what.verb == "bad_signature")
      return later(Form::template ask<result<bool>>(manager_, what, stop_->get_token()));
    REQUIRE(what.verb == "refresh");
    return later(Form::template ask<result<void>>(manager_, what, stop_->get_token()));
  }
  template <class T>
  std::function<std::string()> later(std::future<T> from) {
    const auto kept = std::make_shared<std::future<T>>(std::move(from));
    return [this, kept] { return show(take(std::move(*kept))); };
  }
  std::string begin(const std::vector<std::string>& words) {
    const auto before = manager_.stats();
    const std::size_t requests = provider_.requests();
    pending_.push_back(ask(words));
    // Another thread asks, in the blocking form: it waits when it has been counted.
    REQUIRE(support::eventually([&] {
      const auto now = manager_.stats();
      if (now.coalesced > before.coalesced) return true;
      return provider_.requests() > requests && (words[0] == "refresh" || now.misses > before.misses);
    }));
    return "";
  }
  std::string end() {
    std::string all;
    for (const auto& each : std::exchange(pending_, {})) all += (all.empty() ? "" : "; ") + each();
    return all;
  }

  std::string show(const jwks_ptr& document) {
    std::string out;
    for (const auto& key : document->keys()) out.append(key->kid()).append(" ");
    return out + "#" + std::to_string(document->generation() - generations_before_) + " " +
           seconds(clock_.now() - document->fetched_at());
  }
  std::string show(const result<jwks_ptr>& out) { return out ? show(*out) : text_of(out.error()); }
  std::string show(const result<key_ptr>& out) { return out ? std::string((*out)->kid()) : text_of(out.error()); }
  std::string show(const result<bool>& out) { return out ? (*out ? "changed" : "same") : text_of(out.error()); }
  std::string show(const result<void>& out) { return out ? "ok" : text_of(out.error()); }

  std::string urls() {
    std::string out;
    for (const auto& url : manager_.urls()) {
      for (const char* name : {"a", "b", "c", "http"}) {
        if (url == *url_of(name)) out.append(out.empty() ? "" : " ").append(name);
      }
    }
    return out;
  }
  std::string health(const std::string& url) {
    const auto now = manager_.health(url);
    std::string out = now.ready ? "ready" : "not ready";
    out += ", " + std::to_string(now.consecutive_failures) + " failures";
    if (now.last_error) out += ", " + text_of(*now.last_error);
    if (now.ready) out += ", " + seconds(now.age) + " old";
    return out + ", next in " + seconds(now.next_attempt - clock_.now());
  }
  std::string stats() {
    const auto now = manager_.stats();
    std::ostringstream out;
    out << now.hits << " hits, " << now.misses << " misses, " << now.stale_served << " stale, " << now.fetched
        << " fetched, " << now.not_modified << " confirmed, " << now.failed << " failed, " << now.coalesced
        << " joined, " << now.throttled << " throttled";
    return out.str();
  }
  std::string save(bool keep) {
    const std::string text = manager_.export_cache();
    if (keep) saved_ = text;
    std::size_t count = 0;
    for (std::size_t at = text.find("\"body\""); at != std::string::npos; at = text.find("\"body\"", at + 1)) ++count;
    return std::to_string(count) + " documents";
  }

  // The counter is that of the process.
  const std::uint64_t generations_before_ = axioms::detail::generations.load();
  manual_clock clock_;
  fake_fetcher provider_;
  Manager manager_{{provider_}, clock_};
  std::optional<axioms::stop_source> stop_{std::in_place};
  std::vector<std::function<std::string()>> pending_;
  std::string saved_;
  bool held_ = false, alive_ = false, down_ = false;  // alive: the background runs
};

struct blocking_only {
  fake_fetcher provider;
  result<axioms::fetch_response> operator()(const axioms::fetch_request& request, const axioms::stop_token& stop) {
    return provider(request, stop);
  }
};
struct callback_only {
  fake_fetcher provider;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    provider.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};

using blocking = axioms::basic_jwks_manager<blocking_only, manual_clock>;
using on_threads = axioms::basic_async_jwks_manager<blocking_only, manual_clock>;
using on_loop = axioms::basic_async_jwks_manager<callback_only, manual_clock>;

template <class Player>
void play() {
  for (const auto& each : scripts()) {
    const std::string script = each.name;
    CAPTURE(script);
    Player player;
    for (const line& next : each.lines) {
      const std::string said = next.say, answer = player.say(said);
      CAPTURE(said);
      CHECK(answer == std::string(next.answer));
    }
  }
}

}  // namespace

// Each takes milliseconds: too long to be repeated 1,000 times with the others.
TEST_SUITE_BEGIN("slow");

TEST_CASE("one table of scripts, one answer to each line: from the blocking manager") {
  play<player<blocking, by_blocking>>();
}
TEST_CASE("one table of scripts, one answer to each line: from the async manager on threads, by coroutine") {
  play<player<on_threads, by_coroutine>>();
}
TEST_CASE("one table of scripts, one answer to each line: from the async manager on threads, by callback") {
  play<player<on_threads, by_callback>>();
}
TEST_CASE("one table of scripts, one answer to each line: from the async manager on an event loop, by coroutine") {
  play<player<on_loop, by_coroutine>>();
}
TEST_CASE("one table of scripts, one answer to each line: from the async manager on an event loop, by callback") {
  play<player<on_loop, by_callback>>();
}

TEST_SUITE_END();
