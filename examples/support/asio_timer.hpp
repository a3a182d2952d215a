// The time of a Boost.Asio loop for the managers that live on it alone: a timer_source, meant to be copied.
#ifndef AXIOMS_JWKS_EXAMPLES_ASIO_TIMER_HPP
#define AXIOMS_JWKS_EXAMPLES_ASIO_TIMER_HPP

#include "axioms_jwks.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <functional>
#include <memory>
#include <utility>

namespace demo {

// [readme]
struct asio_timer {  // for a loop that one thread runs
  boost::asio::io_context& loop;
  struct handle {
    std::shared_ptr<boost::asio::steady_timer> timer;
    void cancel() { timer->cancel(); }
  };
  auto now() const { return std::chrono::steady_clock::now(); }
  auto system_now() const { return std::chrono::system_clock::now(); }
  handle call_at(std::chrono::steady_clock::time_point when, std::function<void()> callback) {
    auto timer = std::make_shared<boost::asio::steady_timer>(loop, when);
    timer->async_wait([timer, callback = std::move(callback)](auto failed) { failed ? void() : callback(); });
    return {timer};
  }
};
// [/readme]
static_assert(axioms::timer_source<asio_timer>);

}  // namespace demo

#endif
