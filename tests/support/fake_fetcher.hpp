// A provider that tests script: what it answers, when, and what it was asked.
#ifndef AXIOMS_JWKS_TESTS_FAKE_FETCHER_HPP
#define AXIOMS_JWKS_TESTS_FAKE_FETCHER_HPP

#include "axioms_jwks.hpp"
#include "manual_clock.hpp"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace support {

inline constexpr std::string_view p256_x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";  // RFC 7517 appendix A.1
inline constexpr std::string_view p256_y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";
inline constexpr std::string_view ed25519_x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";  // RFC 8037 appendix A.2

/// A key set with one Ed25519 key per kid: no other kind is made so fast.
inline std::string key_set(std::initializer_list<std::string_view> kids) {
  std::string out = R"({"keys":[)";
  std::string_view comma;
  for (const auto kid : kids) {
    out.append(comma)
        .append(R"({"kty":"OKP","crv":"Ed25519","kid":")")
        .append(kid)
        .append(R"(","x":")")
        .append(ed25519_x)
        .append(R"("})");
    comma = ",";
  }
  return out + "]}";
}

inline axioms::fetch_response response(int status, std::string body = {},
                                       std::vector<std::pair<std::string, std::string>> headers = {}) {
  axioms::fetch_response out;
  out.status = status;
  out.body = std::move(body);
  out.headers = std::move(headers);
  return out;
}
inline axioms::fetch_response ok(std::initializer_list<std::string_view> kids,
                                 std::vector<std::pair<std::string, std::string>> headers = {}) {
  return response(200, key_set(kids), std::move(headers));
}

using reply = axioms::result<axioms::fetch_response>;

/// A handle onto shared state: copies are the same provider. Models fetcher, and async_fetcher.
///
/// Without a script every request is answered with what always() set (at first a key set with kid "k1"). push() queues answers that
/// are used first, one per request. hold() keeps requests from being answered until release(); a stop ends a held request, unless
/// the provider was told to be deaf().
class fake_fetcher {
 public:
  fake_fetcher() : state_(std::make_shared<state>()) {}

  reply operator()(const axioms::fetch_request& request, const axioms::stop_token& stop) const {
    std::unique_lock lock(state_->mutex);
    const std::size_t number = arrive(request);
    const auto wake = [at = state_] {
      { const std::lock_guard hold(at->mutex); }
      at->changed.notify_all();
    };
    lock.unlock();
    bool answered = false;
    {
      // Made and destroyed while the mutex is free: the callback takes it.
      const axioms::stop_callback<decltype(wake)> on_stop(stop, wake);
      const auto let_go = [&] { return !held(request.url) || state_->released.count(number) != 0; };
      lock.lock();
      state_->changed.wait_for(lock, patience, [&] { return let_go() || (stop.stop_requested() && !state_->deaf); });
      answered = let_go();
      lock.unlock();
    }
    lock.lock();
    reply out =
        answered ? next(request) : reply(axioms::error{axioms::errc::cancelled, "the fake was told to stop", 0});
    ++state_->ended;
    state_->changed.notify_all();
    lock.unlock();
    if (out && out->status == -1) throw_now();
    return out;
  }

  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) const {
    std::unique_lock lock(state_->mutex);
    const std::size_t number = arrive(request);
    if (!held(request.url)) {
      reply out = next(request);
      ++state_->ended;
      lock.unlock();
      return callback(std::move(out));
    }
    // Kept as a shared_ptr since std::function must be copyable and the callback is not.
    const auto kept = std::make_shared<Callback>(std::move(callback));
    state_->unanswered.emplace_back(number, request, std::move(stop), [kept](reply out) { (*kept)(std::move(out)); });
    state_->changed.notify_all();
  }

  void always(reply answer) const {
    const std::lock_guard lock(state_->mutex);
    state_->fallback = std::move(answer);
  }
  void always_at(const std::string& url, reply answer) const {
    const std::lock_guard lock(state_->mutex);
    state_->by_url.insert_or_assign(url, std::move(answer));
  }
  void push(reply answer) const {
    const std::lock_guard lock(state_->mutex);
    state_->script.push_back(std::move(answer));
  }
  /// The next request throws a std::runtime_error.
  void push_throw() const { push(response(-1)); }

  void hold(std::string url = {}) const {
    const std::lock_guard lock(state_->mutex);
    state_->holding = true;
    state_->held_url = std::move(url);
  }
  /// Lets every held request go on, and no longer holds new ones.
  void release() const {
    std::vector<pending> ready;
    {
      const std::lock_guard lock(state_->mutex);
      state_->holding = false;
      ready.swap(state_->unanswered);
    }
    state_->changed.notify_all();
    for (auto& at : ready) answer(at);
  }
  /// Lets one held request go on, by its number (0 is the first ever).
  void release_one(std::size_t number) const {
    std::vector<pending> ready;
    {
      const std::lock_guard lock(state_->mutex);
      state_->released.insert({number, true});
      for (auto at = state_->unanswered.begin(); at != state_->unanswered.end();) {
        if (at->number == number) {
          ready.push_back(std::move(*at));
          at = state_->unanswered.erase(at);
        } else {
          ++at;
        }
      }
    }
    state_->changed.notify_all();
    for (auto& at : ready) answer(at);
  }
  void deaf(bool yes) const {
    const std::lock_guard lock(state_->mutex);
    state_->deaf = yes;
  }

  std::size_t requests() const {
    const std::lock_guard lock(state_->mutex);
    return state_->log.size();
  }
  axioms::fetch_request request(std::size_t number) const {
    const std::lock_guard lock(state_->mutex);
    return state_->log.at(number);
  }
  std::vector<std::thread::id> threads() const {
    const std::lock_guard lock(state_->mutex);
    return state_->threads;
  }
  /// Blocks until that many requests have come; false when patience is over.
  bool await_requests(std::size_t count) const {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, patience, [&] { return state_->log.size() >= count; });
  }
  /// Blocks until that many requests have been answered or stopped.
  bool await_ended(std::size_t count) const {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, patience, [&] { return state_->ended >= count; });
  }
  /// The stop token of the held request of that number was asked.
  bool stopped(std::size_t number) const {
    const std::lock_guard lock(state_->mutex);
    for (const auto& at : state_->unanswered) {
      if (at.number == number) return at.stop.stop_requested();
    }
    return false;
  }

 private:
  struct pending {
    pending(std::size_t which, axioms::fetch_request what, axioms::stop_token token, std::function<void(reply)> whom)
        : number(which), request(std::move(what)), stop(std::move(token)), callback(std::move(whom)) {}
    std::size_t number;
    axioms::fetch_request request;
    axioms::stop_token stop;
    std::function<void(reply)> callback;
  };
  struct state {
    std::mutex mutex;
    std::condition_variable changed;
    reply fallback = ok({"k1"});
    std::map<std::string, reply> by_url;
    std::deque<reply> script;
    bool holding = false, deaf = false;
    std::string held_url;
    std::map<std::size_t, bool> released;
    std::vector<axioms::fetch_request> log;
    std::vector<std::thread::id> threads;
    std::vector<pending> unanswered;
    std::size_t ended = 0;
  };

  static void throw_now() {
#if defined(__cpp_exceptions)
    throw std::runtime_error("the fake fetcher was told to throw");
#endif
  }
  // Those below are called under the mutex.
  std::size_t arrive(const axioms::fetch_request& request) const {
    state_->log.push_back(request);
    state_->threads.push_back(std::this_thread::get_id());
    state_->changed.notify_all();
    return state_->log.size() - 1;
  }
  bool held(const std::string& url) const {
    return state_->holding && (state_->held_url.empty() || state_->held_url == url);
  }
  reply next(const axioms::fetch_request& request) const {
    if (!state_->script.empty()) {
      reply out = std::move(state_->script.front());
      state_->script.pop_front();
      return out;
    }
    const auto found = state_->by_url.find(request.url);
    return found != state_->by_url.end() ? found->second : state_->fallback;
  }
  void answer(pending& at) const {
    reply out = [&] {
      const std::lock_guard lock(state_->mutex);
      ++state_->ended;
      return next(at.request);
    }();
    at.callback(std::move(out));
  }

  std::shared_ptr<state> state_;
};

static_assert(axioms::fetcher<fake_fetcher>);
static_assert(axioms::async_fetcher<fake_fetcher>);

}  // namespace support

#endif
