// The life of a key set in one table: prefetch, lookups from memory, a signature checked, background refresh, a
// rotation, an outage and the recovery, against an issuer of its own on loopback (HTTPS). Exits non-zero if a step does
// not do what its line says.
//
//   examples/run                  the demo, a few seconds
//   examples/run https://...      fetches that key set and shows its keys
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"
#include "support/show_key_set.hpp"
#include "support/table.hpp"

using namespace std::chrono_literals;

template <class Condition>
bool soon(Condition met) {
  for (int i = 0; i < 1000 && !met(); ++i) std::this_thread::sleep_for(10ms);
  return met();
}

int main(int argc, char** argv) {
  if (argc > 1) return demo::show_key_set(argv[1]);

  demo::issuer issuer;
  axioms::httplib_options trust;
  trust.ca_pem = issuer.ca_pem();
  trust.proxy_from_environment = false;  // the issuer is on this machine
  std::atomic<int> events{0};            // outlives the manager, which may call the listener until it is shut down
  axioms::jwks_manager manager(trust);
  demo::table table(manager, issuer);

  axioms::jwks_config config;
  config.jwks_url = issuer.url();
  config.refresh_interval = 1s;  // for the demo; the defaults are 1 h and 2 h
  config.cache_ttl = 2s;
  config.backoff_initial = config.backoff_max = 200ms;
  config.on_event = [&](const axioms::jwks_event&) { ++events; };
  const auto started = manager.initialize(config);
  auto set = manager.get_jwks();
  table.line("initialize, with prefetch", demo::kids(set), started && set && issuer.asked().all() == 1);

  if (!set) return table.exit_code();

  int same = 0;
  for (int i = 0; i < 10000; ++i) {
    if (const auto again = manager.get_jwks()) same += (*again)->generation() == (*set)->generation();
  }
  table.line("10,000 lookups", std::to_string(same) + " times the same document", same == 10000);

  auto token = issuer.sign("subject: alice");
  auto key = manager.get_key({.kid = token.kid, .alg = token.alg});
  bool good = key && demo::verifies(**key, token);
  table.line("a signature by " + token.kid, good ? token.alg + " signature is good" : "no good", good);

  good = soon([&] { return issuer.asked().all() >= 2; });
  table.line("background refresh", "nothing to wait for", good && manager.get_jwks());

  issuer.rotate("2026-03");
  token = issuer.sign("subject: bob");
  key = manager.get_key({.kid = token.kid, .alg = token.alg});  // the set lacks this kid: one refetch, at once
  good = key && demo::verifies(**key, token);
  table.line("rotation: a token by " + token.kid, good ? token.alg + " signature is good" : "no good", good);
  issuer.stop();
  good = soon([&] { return manager.health().consecutive_failures > 0; });
  set = manager.get_jwks();
  table.line("outage", demo::kids(set) + ", from the cache", good && set);

  good = soon([&] { return manager.health().stale; });
  set = manager.get_jwks();
  table.line("outage past cache_ttl", demo::kids(set) + ", stale", good && set && manager.stats().stale_served > 0);
  issuer.start();
  good = soon([&] { return !manager.health().stale && manager.health().consecutive_failures == 0; });
  set = manager.get_jwks();
  table.line("the issuer is back", demo::kids(set), good && set);
  manager.shutdown();
  set = manager.get_jwks();
  table.line("shutdown", demo::kids(set), !set && set.error().code == axioms::errc::shut_down && !manager.running());
  const auto stats = manager.stats();
  std::printf("%d hits, %d misses, %d events\n", int(stats.hits), int(stats.misses), events.load());
  return table.exit_code();
}
