// Asio's awaitable refuses awaitables that are not its own. This adapter makes any verb of an async manager's callback form an Asio
// operation: with use_awaitable, use_future, a callback or `||`, with cancellation slots and associated executors. The text is the same
// for Boost.Asio and, with ASIO_STANDALONE defined, for the Asio that comes without Boost. It is meant to be copied.
#ifndef AXIOMS_JWKS_EXAMPLES_ASIO_VERBS_HPP
#define AXIOMS_JWKS_EXAMPLES_ASIO_VERBS_HPP

#include "axioms_jwks.hpp"

#if defined(ASIO_STANDALONE)
#include <asio.hpp>
namespace net = asio;
#else
#include <boost/asio.hpp>
namespace net = boost::asio;
#endif

#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace demo {

// [readme]
/// start(then, stop) begins the verb. The answer is posted to the executor of the handler, or to @p executor if it has none.
template <class... Result, class Executor, class Start, class Token>
auto asio_verb(const Executor& executor, Start start, Token&& token) {
  const auto initiate = [executor](auto handler, Start begin) {
    const auto stop = std::make_shared<axioms::stop_source>();
    if (auto slot = net::get_associated_cancellation_slot(handler); slot.is_connected())
      slot.assign([stop](net::cancellation_type) { stop->request_stop(); });
    auto work = net::make_work_guard(net::get_associated_executor(handler, executor));
    auto then = [handler = std::move(handler), work = std::move(work)](Result... answer) mutable {
      net::post(work.get_executor(), std::bind_front(std::move(handler), std::move(answer)...));
    };
    begin(std::move(then), stop->get_token());
  };
  return net::async_initiate<Token, void(Result...)>(initiate, token, std::move(start));
}
// [/readme]

/// The verbs of a manager as Asio operations, by default to be awaited.
template <class Manager, class Executor>
struct asio_verbs {
  Manager& manager;
  Executor executor;

  template <class Token = net::use_awaitable_t<>>
  auto initialize(axioms::jwks_config config, Token&& token = {}) {
    return asio_verb<axioms::result<void>>(
        executor, [=, this](auto then, auto stop) { manager.async_initialize(config, std::move(then), stop); }, token);
  }
  template <class Token = net::use_awaitable_t<>>
  auto get_jwks(Token&& token = {}) {
    return asio_verb<axioms::result<axioms::jwks_ptr>>(
        executor, [this](auto then, auto stop) { manager.async_get_jwks(std::move(then), stop); }, token);
  }
  template <class Token = net::use_awaitable_t<>>
  auto get_key(std::string kid, std::string alg, Token&& token = {}) {
    return asio_verb<axioms::result<axioms::key_ptr>>(
        executor,
        [=, this](auto then, auto stop) { manager.async_get_key({.kid = kid, .alg = alg}, std::move(then), stop); },
        token);
  }
  template <class Token = net::use_awaitable_t<>>
  auto shutdown(Token&& token = {}) {
    return asio_verb<>(
        executor, [this](auto then, auto) { manager.async_shutdown(std::move(then)); }, token);
  }
};
template <class Manager, class Executor>
asio_verbs(Manager&, Executor) -> asio_verbs<Manager, Executor>;

}  // namespace demo

#endif
