// Boost.Asio's awaitable refuses awaitables that are not its own. This adapter makes any verb of an async manager's
// callback form an Asio operation: with use_awaitable, use_future, a callback or `||`, and with cancellation. It is
// meant to be copied.
#ifndef AXIOMS_JWKS_EXAMPLES_ASIO_VERBS_HPP
#define AXIOMS_JWKS_EXAMPLES_ASIO_VERBS_HPP

#include "axioms_jwks.hpp"

#include <boost/asio.hpp>

#include <memory>
#include <string>
#include <utility>

namespace demo {

// [readme]
/// start(callback, stop) begins the verb; what the callback gets completes the operation, on the handler's executor.
template <class... Result, class Start, class Token = boost::asio::use_awaitable_t<>>
auto asio_verb(Start start, Token&& token = {}) {
  namespace asio = boost::asio;
  const auto initiate = [](auto handler, Start begin) {
    const auto stop = std::make_shared<axioms::stop_source>();
    if (auto slot = asio::get_associated_cancellation_slot(handler); slot.is_connected()) {
      slot.assign([stop](asio::cancellation_type) { stop->request_stop(); });
    }
    auto work = asio::make_work_guard(asio::get_associated_executor(handler));
    auto then = [handler = std::move(handler), work = std::move(work)](Result... answer) mutable {
      // Posted, never called here: on a hit this runs inside the initiation.
      asio::post(work.get_executor(), [handler = std::move(handler), ... answer = std::move(answer)]() mutable {
        handler(std::move(answer)...);
      });
    };
    begin(std::move(then), stop->get_token());
  };
  return asio::async_initiate<Token, void(Result...)>(initiate, token, std::move(start));
}

struct asio_verbs {
  axioms::async_jwks_manager& manager;

  auto initialize(axioms::jwks_config config) {
    return asio_verb<axioms::result<void>>(
        [=, this](auto then, auto stop) { manager.async_initialize(config, std::move(then), stop); });
  }
  auto get_jwks() {
    return asio_verb<axioms::result<axioms::jwks_ptr>>(
        [this](auto then, auto stop) { manager.async_get_jwks(std::move(then), stop); });
  }
  auto get_key(std::string kid, std::string alg) {
    return asio_verb<axioms::result<axioms::key_ptr>>(
        [=, this](auto then, auto stop) { manager.async_get_key({.kid = kid, .alg = alg}, std::move(then), stop); });
  }
  auto shutdown() {
    return asio_verb<>([this](auto then, auto) { manager.async_shutdown(std::move(then)); });
  }
};
// [/readme]

}  // namespace demo

#endif
