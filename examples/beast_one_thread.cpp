// A program of one thread: a Boost.Asio loop, on which the manager lives alone, with Boost.Beast as its HTTPS client. It counts its own
// threads at every step (Linux), while it prefetches, refreshes in the background, follows a rotation, meets an unknown kid, outlives an
// outage and shuts down; the issuer is a process of its own. Run it without arguments.
//
// The issuer is named by its address: the first name would make Asio start its resolver's thread.
#include "support/asio_timer.hpp"
#include "support/asio_verbs.hpp"
#include "support/beast_fetcher.hpp"
#include "support/issuer_process.hpp"

#include <filesystem>
#include <iostream>

using namespace std::chrono_literals;

int failures = 0;
void expect(const std::string& what, bool good) {
  std::ptrdiff_t threads = 1;
#if defined(__linux__)
  threads = std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
#endif
  good = good && threads == 1;
  std::cout << (good ? "ok      " : "FAILED  ") << what << ", threads: " << threads << '\n';
  failures += good ? 0 : 1;
}

template <class Condition>
net::awaitable<bool> soon(Condition met) {
  net::steady_timer timer(co_await net::this_coro::executor);
  for (int i = 0; i < 2000 && !met(); ++i) {
    timer.expires_after(5ms);
    co_await timer.async_wait(net::use_awaitable);
  }
  co_return met();
}

using manager_type = axioms::basic_async_jwks_manager<demo::beast_fetcher, demo::asio_timer>;

net::awaitable<void> run(manager_type& manager, manager_type& distrustful, demo::issuer_process& issuer) {
  demo::asio_verbs jwks{manager, co_await net::this_coro::executor};
  axioms::jwks_config config;
  config.jwks_url = issuer.url();
  config.refresh_interval = 1s;
  config.cache_ttl = 2s;
  config.backoff_initial = config.backoff_max = 200ms;
  const auto started = co_await jwks.initialize(config);
  expect("prefetch", started && manager.peek());
  expect("background refresh", co_await soon([&] { return manager.stats().not_modified > 0; }));
  expect("a hit", (co_await jwks.get_key("2026-01", "ES256")).has_value());
  issuer.say("rotate 2026-03");
  expect("rotation", (co_await jwks.get_key("2026-03", "ES256")).has_value());
  const auto unknown = co_await jwks.get_key("made-up", "ES256");
  expect("an unknown kid", !unknown && unknown.error().code == axioms::errc::key_not_found);
  issuer.say("stop");
  expect("an outage", co_await soon([&] { return manager.health().stale; }) && co_await jwks.get_jwks());
  issuer.say("start");
  expect("the comeback", co_await soon([&] { return manager.health().consecutive_failures == 0; }));
  demo::asio_verbs others{distrustful, co_await net::this_coro::executor};
  co_await others.initialize(config);
  const auto refused = co_await others.get_jwks();
  expect("a certificate that nobody trusts", !refused && refused.error().code == axioms::errc::tls_failed);
  co_await others.shutdown();
  co_await jwks.shutdown();
  expect("shutdown", !manager.running() && !(co_await jwks.get_jwks()));
}

int main(int argc, char** argv) {
  if (argc > 1) return demo::issuer_process::child();
  demo::issuer_process issuer(argv[0]);
  net::io_context loop(1);
  manager_type manager(demo::beast_fetcher(loop, issuer.ca_pem()), demo::asio_timer{loop});
  manager_type distrustful(demo::beast_fetcher{loop}, demo::asio_timer{loop});
  net::co_spawn(loop, run(manager, distrustful, issuer),
                [](const std::exception_ptr& thrown) { failures += thrown ? 1 : 0; });
  loop.run();
  expect("the end", true);
  return failures == 0 ? 0 : 1;
}
