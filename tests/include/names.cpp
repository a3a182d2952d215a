// Every public name, spelt as users spell it: designated initialisers, braces in calls, doubles of the plainest kind. It must compile
// under strict warnings; what the names do is tested elsewhere.
#include "axioms_jwks.hpp"
#include <deque>
#include <functional>
using namespace std::chrono_literals;
struct clk {
  std::chrono::steady_clock::time_point now() { return std::chrono::steady_clock::now(); }
  std::chrono::system_clock::time_point system_now() { return std::chrono::system_clock::now(); }
  bool wait_until(std::unique_lock<std::mutex>& l, std::condition_variable_any& cv, axioms::stop_token s,
                  std::chrono::steady_clock::time_point d, std::function<bool()> r) {
    return axioms::wait_until(l, cv, s, d, r);
  }
};
struct fet {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& r, axioms::stop_token) {
    return axioms::fetch_response{200, R"({"keys":[]})", {{"ETag", r.etag}}};
  }
};
struct ex {
  std::deque<std::function<void()>> q;
  template <class F>
  void post(F f) noexcept {
    q.emplace_back(f);
  }
};
struct mf {
  struct fn {
    virtual ~fn() = default;
    virtual void call() = 0;
  };
  template <class C>
  struct h : fn {
    C c;
    h(C x) : c(std::move(x)) {}
    void call() override { c(); }
  };
  struct handle {
    void cancel() {}
  };
  std::chrono::steady_clock::time_point now() { return {}; }
  std::chrono::system_clock::time_point system_now() { return {}; }
  template <class C>
  handle call_at(std::chrono::steady_clock::time_point, C c) {
    auto p = std::make_unique<h<C>>(std::move(c));
    return {};
  }
};
struct af {
  template <class C>
  void async_fetch(axioms::fetch_request, axioms::stop_token, C c) {
    c(axioms::result<axioms::fetch_response>(axioms::error{axioms::errc::connect_failed, "x"}));
  }
};
struct af_of_rvalues {
  template <class C>
  void async_fetch(axioms::fetch_request&&, axioms::stop_token, C&&) {}
};
// All of a manager, as who shortens his builds asks for it.
template class axioms::basic_jwks_manager<fet, clk>;
template class axioms::basic_async_jwks_manager<fet, clk>;
template class axioms::basic_async_jwks_manager<af, mf>;
template class axioms::basic_async_jwks_manager<af_of_rvalues, mf>;
static_assert(axioms::async_fetcher<af_of_rvalues>);
static_assert(axioms::fetcher<fet> && axioms::clock_source<clk> && axioms::async_fetcher<af> &&
              axioms::timer_source<mf> && axioms::clock_source<axioms::steady_clock>);
struct task {
  struct promise_type {
    task get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};
task t(axioms::basic_async_jwks_manager<af, mf>& m, ex& e) {
  axioms::stop_source s;
  axioms::stop_token tok = s.get_token();
  axioms::jwks_config c{.jwks_url = "https://a/b"};
  axioms::result<void> r = co_await m.initialize(c);
  axioms::result<axioms::jwks_ptr> d = co_await m.get_jwks("https://a/b", {.executor = e, .stop = tok});
  axioms::result<axioms::key_ptr> k = co_await m.get_key("https://a/b", {.kid = "x", .alg = "RS256"}, {.stop = tok});
  axioms::result<void> f = co_await m.refresh("https://a/b");
  co_await m.shutdown();
  m.async_get_jwks(
      "https://a/b", [](axioms::result<axioms::jwks_ptr>) {}, tok);
  m.async_shutdown([] {}, tok);
  m.async_shutdown([] {}, {.executor = e});
  m.set_executor(e);
}
int main(int argc, char**) {
  std::error_code ec = axioms::errc::timed_out;
  (void)ec;
  static_assert(static_cast<int>(axioms::errc::no_resources) == 29);
  // What is left out is no warning.
  axioms::error cancelled{axioms::errc::cancelled};
  (void)axioms::jwks_health{.ready = true};
  (void)axioms::skipped_key{.index = 1};
  (void)cancelled;
  axioms::error er{.code = axioms::errc::insufficient_scope, .description = "d", .http_status = 3};
  std::string w = er.www_authenticate("realm");
  std::string_view oe = er.oauth_error();
  int sc = er.status_code();
  (void)oe;
  (void)sc;
  axioms::basic_jwks_manager<fet, clk> m{fet{}, clk{}};
  axioms::basic_jwks_manager<fet, clk> m2;
  axioms::result<void> r = m.initialize({.issuer = "https://a",
                                         .refresh_interval = 10s,
                                         .cache_ttl = 20s,
                                         .prefetch = false,
                                         .on_event =
                                             [](const axioms::jwks_event& e) {
                                               (void)e.kind;
                                               (void)e.url;
                                               (void)e.error;
                                               (void)e.status;
                                               (void)e.duration;
                                               (void)e.added;
                                               (void)e.removed;
                                               (void)e.changed;
                                               (void)e.next_attempt;
                                             },
                                         .random = [] { return 0ull; }});
  axioms::stop_source s;
  axioms::result<axioms::jwks_ptr> d = m.get_jwks("https://a/b", s.get_token());
  d = m.get_jwks();
  d = m.get_jwks(s.get_token());
  auto k = m.get_key("https://a/b", {.kid = "k"});
  k = m.get_key({.kid = "k"});
  std::optional<axioms::jwks_ptr> p = m.peek("https://a/b");
  r = m.refresh("https://a/b");
  bool b = m.wait_ready(0ms);
  axioms::jwks_health h = m.health();
  axioms::jwks_stats st = m.stats();
  (void)b;
  (void)h.ready;
  (void)h.stale;
  (void)h.insecure_transport;
  (void)h.age;
  (void)h.last_error;
  (void)h.consecutive_failures;
  (void)h.next_attempt;
  (void)(st.hits + st.misses + st.stale_served + st.fetched + st.not_modified + st.failed + st.coalesced +
         st.throttled + st.events_dropped);
  auto set = axioms::jwk_set::parse("{}");
  if (set) {
    for (axioms::key_ptr q : *set) (void)q->native_handle();
    std::vector<axioms::key_ptr> v = set->find("x");
    auto sel = set->select({.kid = "x"});
    for (const auto& sk : set->skipped()) {
      (void)sk.index;
      (void)sk.kid;
      (void)sk.reason;
    }
  }
  r = m.add({.jwks_url = "https://c/d"});
  m.shutdown();
  ex e;
  axioms::basic_async_jwks_manager<af, mf> am;
  t(am, e);
  axioms::basic_async_jwks_manager<fet, clk> at;
  (void)at.running();
  auto v = axioms::result<int>(3)
               .and_then([](int x) -> axioms::result<long> { return x; })
               .transform([](long x) { return x + 1; })
               .or_else([](axioms::error) -> axioms::result<long> { return 1L; })
               .value_or(2);
  auto env = axioms::jwks_config::from_environment();
  auto u = axioms::jwks_config{.domain = "x.y"}.resolved_url();
  auto val = axioms::jwks_config{}.validate();
#ifndef AXIOMS_JWKS_NO_HTTPLIB
  if (argc > 5) {
    auto a = axioms::initialize_jwks_manager("https://a/b", 3600s, 7200s, true);
    auto a2 = axioms::initialize_jwks_manager({.jwks_url = "https://a"}, {.ca_file = "x"});
    a2 = axioms::initialize_jwks_manager({.jwks_url = "https://a"});
    a2 = axioms::initialize_jwks_manager(std::string_view("https://a"), 1h);
    a2 = axioms::initialize_jwks_manager(std::string("https://a"));
    axioms::shutdown_jwks_manager();
    auto& dm = axioms::default_jwks_manager();
    (void)dm.running();
    auto op = axioms::initialize_async_jwks_manager("https://a/b");
    op = axioms::initialize_async_jwks_manager({.jwks_url = "https://a"});
    auto op2 = axioms::shutdown_async_jwks_manager();
    (void)axioms::default_async_jwks_manager().running();
    (void)a;
    (void)a2;
    (void)op;
    (void)op2;
  }
  axioms::httplib_fetcher hf{};
  axioms::httplib_fetcher hf2{axioms::httplib_options{.ca_pem = "x"}};
#endif
  (void)argc;
  (void)v;
  (void)p;
  (void)env;
  (void)u;
  (void)val;
}
