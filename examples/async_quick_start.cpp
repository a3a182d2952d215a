// The demo of quick_start.cpp with coroutines on Boost.Asio: one thread runs the loop, nothing on it ever waits for the
// network. Exits non-zero if a step does not do what its line says. Run it:  examples/run async
#include "axioms_jwks.hpp"
#include "support/asio_verbs.hpp"
#include "support/issuer.hpp"
#include "support/table.hpp"

#include <boost/asio/co_spawn.hpp>

namespace asio = boost::asio;
using namespace std::chrono_literals;

template <class Condition>
asio::awaitable<bool> soon(Condition met) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  for (int i = 0; i < 1000 && !met(); ++i) {
    timer.expires_after(10ms);
    co_await timer.async_wait(asio::use_awaitable);
  }
  co_return met();
}

asio::awaitable<void> run(axioms::async_jwks_manager& manager, demo::issuer& issuer,
                          demo::table<axioms::async_jwks_manager>& table) {
  demo::asio_verbs jwks{manager, co_await asio::this_coro::executor};
  axioms::jwks_config config;
  config.jwks_url = issuer.url();
  config.refresh_interval = 1s;  // for the demo; the defaults are 1 h and 2 h
  config.cache_ttl = 2s;
  config.backoff_initial = config.backoff_max = 200ms;
  const auto started = co_await jwks.initialize(config);
  auto set = co_await jwks.get_jwks();
  table.line("co_await initialize", demo::kids(set), started && set && issuer.asked().all() == 1);

  auto token = issuer.sign("subject: alice");
  auto key = co_await jwks.get_key(token.kid, token.alg);
  table.line("a signature by " + token.kid, token.alg, key && demo::verifies(**key, token));
  bool good = co_await soon([&] { return issuer.asked().all() >= 2; });
  table.line("background refresh", "nothing to wait for", good);

  issuer.rotate("2026-03");
  token = issuer.sign("subject: bob");
  key = co_await jwks.get_key(token.kid, token.alg);
  table.line("rotation: a token by " + token.kid, token.alg, key && demo::verifies(**key, token));

  issuer.stop();
  good = co_await soon([&] { return manager.health().stale; });
  set = co_await jwks.get_jwks();
  table.line("outage past cache_ttl", demo::kids(set) + ", stale", good && set);
  issuer.start();
  good = co_await soon([&] { return !manager.health().stale && manager.health().consecutive_failures == 0; });
  set = co_await jwks.get_jwks();
  table.line("the issuer is back", demo::kids(set), good && set);

  co_await jwks.shutdown();
  set = co_await jwks.get_jwks();
  table.line("co_await shutdown", demo::kids(set), !set && set.error().code == axioms::errc::shut_down);
}

int main() {
  demo::issuer issuer;
  axioms::httplib_options trust;
  trust.ca_pem = issuer.ca_pem();
  trust.proxy_from_environment = false;  // the issuer is on this machine
  axioms::async_jwks_manager manager(trust);
  demo::table table(manager, issuer);
  asio::io_context loop;
  asio::co_spawn(loop, run(manager, issuer, table), asio::detached);
  loop.run();
  return table.exit_code();
}
