// Asio's completion tokens: an awaitable, a future, a plain callback, a lookup that a timer gives up, a cancellation slot, and a
// handler with an executor of its own. Boost.Asio, or with ASIO_STANDALONE defined the Asio without Boost; the tests build it both
// ways. Run it without arguments; it exits non-zero if an answer is not the expected one.
#include "support/asio_verbs.hpp"
#include "support/issuer.hpp"

#if defined(ASIO_STANDALONE)
#include <asio/experimental/awaitable_operators.hpp>
#else
#include <boost/asio/experimental/awaitable_operators.hpp>
#endif

#include <iostream>
#include <optional>

using namespace std::chrono_literals;
using namespace net::experimental::awaitable_operators;
using document = axioms::result<axioms::jwks_ptr>;

// Never answers: whoever waits for it has to give up.
struct silent_fetcher {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request&, axioms::stop_token stop) const {
    while (!stop.stop_requested()) std::this_thread::sleep_for(5ms);
    return axioms::error{axioms::errc::cancelled, "asked to stop"};
  }
};

int failures = 0;
void expect(const char* what, bool good) {
  std::cout << (good ? "ok      " : "FAILED  ") << what << '\n';
  failures += good ? 0 : 1;
}

template <class Verbs>
net::awaitable<void> give_up(Verbs jwks) {
  net::steady_timer timer(co_await net::this_coro::executor, 50ms);
  const auto first = co_await (timer.async_wait(net::use_awaitable) || jwks.get_jwks());
  expect("a timer || a lookup: the timer wins, and the lookup is cancelled", first.index() == 0);
}

int main() {
  const demo::issuer issuer;
  axioms::httplib_options trust;
  trust.ca_pem = issuer.ca_pem();
  trust.proxy_from_environment = false;  // the issuer is on this machine
  axioms::jwks_config config;
  config.jwks_url = issuer.url();
  net::io_context loop;
  net::thread_pool other(1);
  axioms::async_jwks_manager manager(trust);
  axioms::basic_async_jwks_manager<silent_fetcher> silent;
  demo::asio_verbs jwks{manager, loop.get_executor()};
  demo::asio_verbs unanswered{silent, loop.get_executor()};
  config.prefetch = false;

  const auto here = std::this_thread::get_id();
  net::cancellation_signal signal;
  std::optional<document> cancelled;
  manager.async_initialize(config, [](const axioms::result<void>&) {});
  silent.async_initialize(config, [](const axioms::result<void>&) {});
  auto future = jwks.get_jwks(net::use_future);
  jwks.get_jwks([&](const document& got) { expect("a callback", got && std::this_thread::get_id() == here); });
  jwks.get_jwks(net::bind_executor(other, [&](const document& got) {
    expect("a handler with an executor of its own", got && std::this_thread::get_id() != here);
  }));
  unanswered.get_jwks(net::bind_cancellation_slot(signal.slot(), [&](document got) { cancelled = std::move(got); }));
  net::co_spawn(loop, give_up(unanswered), net::detached);
  net::post(loop, [&] { signal.emit(net::cancellation_type::terminal); });
  loop.run();
  other.join();
  expect("a future", future.get().has_value());
  expect("a cancellation slot", cancelled && cancelled->error().code == axioms::errc::cancelled);
  return failures == 0 ? 0 : 1;
}
