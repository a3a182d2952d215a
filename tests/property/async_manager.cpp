// Random interleavings of start, complete, stop, destroy, time and shutdown on both kinds of async manager. Whatever happens,
// an operation completes exactly once, or never if its frame was destroyed first; nothing is lost, and nothing hangs. No sleep.
//
// An interleaving is one random sequence of such steps, with a manager of its own, from its beginning to the manager's end.
// AXIOMS_JWKS_TEST_INTERLEAVINGS sets how many there are in all four tests together; AXIOMS_JWKS_TEST_SEQUENCES how many in each of them,
// and AXIOMS_JWKS_TEST_SEED where they begin. Several run at the same time: most of an interleaving on threads is waiting.
#include "support/coroutine.hpp"
#include "support/eventually.hpp"
#include "support/fake_fetcher.hpp"
#include "support/manual_clock.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config, axioms::jwks_ptr, axioms::key_ptr, axioms::result;
using support::eventually, support::fake_fetcher, support::manual_clock, support::manual_loop, support::ok,
    support::owned, support::response;

namespace {

struct blocking_only {
  fake_fetcher provider;
  result<axioms::fetch_response> operator()(const axioms::fetch_request& request, const axioms::stop_token& stop) {
    return provider(request, stop);
  }
};

// An async client that keeps the contract: a request is answered once, from the loop or from whoever asks it to stop.
class loop_client {
 public:
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    const auto mine = std::make_shared<pending>();
    mine->url = std::move(request.url);
    mine->callback = [kept = std::make_shared<Callback>(std::move(callback))](support::reply out) {
      (*kept)(std::move(out));
    };
    {
      const std::lock_guard lock(state_->mutex);
      if (!state_->inline_answers) {
        state_->open.push_back(mine);
      } else {
        mine->answered = true;
      }
    }
    if (mine->answered) return mine->callback(ok({"k1"}));
    // The callback holds the request weakly: a request that was answered may be forgotten by everybody.
    mine->on_stop.emplace(std::move(stop), stopped{mine});
  }

  /// Answers the request in that place, counted round; false if there is none.
  bool answer(std::size_t place, support::reply what) {
    std::shared_ptr<pending> one;
    {
      const std::lock_guard lock(state_->mutex);
      if (state_->open.empty()) return false;
      const auto at = state_->open.begin() + static_cast<std::ptrdiff_t>(place % state_->open.size());
      one = std::move(*at);
      state_->open.erase(at);
    }
    one->answer(std::move(what));
    return true;
  }
  void answer_inline(bool yes) {
    const std::lock_guard lock(state_->mutex);
    state_->inline_answers = yes;
  }

 private:
  struct pending;
  struct stopped {
    std::weak_ptr<pending> of;
    void operator()() const {
      if (const auto still = of.lock()) still->answer(axioms::error{errc::cancelled, "stopped", 0});
    }
  };
  struct pending {
    void answer(support::reply what) {
      if (!answered.exchange(true)) callback(std::move(what));
    }
    std::string url;
    std::function<void(support::reply)> callback;
    std::atomic<bool> answered{false};
    std::optional<axioms::stop_callback<stopped>> on_stop;
  };
  struct state {
    std::mutex mutex;
    std::vector<std::shared_ptr<pending>> open;
    bool inline_answers = false;
  };
  std::shared_ptr<state> state_ = std::make_shared<state>();
};

using on_threads = axioms::basic_async_jwks_manager<blocking_only, manual_clock>;
using on_loop = axioms::basic_async_jwks_manager<loop_client, manual_clock>;

// One operation: how often it ended, and how it may not end.
struct record {
  std::atomic<int> ended{0};
  std::atomic<bool> wrong{false};
  bool was_destroyed = false;  // by the test, while it waited
  axioms::stop_source stop;

  template <class T>
  void take(const T& value) {
    ++ended;
    if constexpr (!std::is_same_v<T, bool>) {
      if (!value && value.error().code == errc{}) wrong = true;
    }
  }
  void take_nothing() { ++ended; }
};

template <class Operation>
owned drive(Operation operation, record& to) {
  if constexpr (std::is_void_v<decltype(operation.operator co_await().await_resume())>) {
    co_await std::move(operation);
    to.take_nothing();
  } else {
    to.take(co_await std::move(operation));
  }
}

jwks_config config_for(const std::string& url, std::uint64_t kind) {
  jwks_config config;
  config.jwks_url = url;
  config.prefetch = kind % 2 == 0;
  config.refresh_interval = 60s;
  config.cache_ttl = 120s;
  config.outage_window = std::chrono::seconds(kind % 3 * 60);
  config.max_parallel_fetches = 1 + static_cast<std::size_t>(kind % 3);
  config.random = [] { return std::uint64_t{0}; };
  if (kind % 4 == 0) config.on_event = [](const axioms::jwks_event&) {};
  return config;
}

const std::array<std::string, 4> urls{"https://a.example.com/jwks", "https://b.example.com/jwks",
                                      "https://c.example.com/jwks", "no url"};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtoull(text, nullptr, 10) : otherwise;
}

// How many of all interleavings are of one test: @p share of a thousand. Sanitizers are slow.
std::uint64_t sequences(std::uint64_t share) {
  const bool slow = support::under_tsan || support::under_asan;
  const std::uint64_t all = from_environment("AXIOMS_JWKS_TEST_INTERLEAVINGS", slow ? 2000 : 8000);
  return from_environment("AXIOMS_JWKS_TEST_SEQUENCES", all * share / 1000);
}

// Runs the sequences, each from a seed of its own, and says which one failed.
void for_each_seed(std::uint64_t count, bool (*sequence)(std::uint64_t)) {
  const std::uint64_t first = from_environment("AXIOMS_JWKS_TEST_SEED", 1);
  std::atomic<std::uint64_t> next{first}, failed{0};
  const auto play_some = [&] {
    for (std::uint64_t seed = next++; seed < first + count && failed == 0; seed = next++) {
      if (!sequence(seed)) failed = seed;
    }
  };
  {
    std::vector<axioms::jthread> others(count > 1 ? 3 : 0);
    for (auto& each : others) each = axioms::jthread(play_some);
    play_some();
  }
  INFO("AXIOMS_JWKS_TEST_SEED=" << failed.load() << " AXIOMS_JWKS_TEST_SEQUENCES=1 repeats it");
  CHECK(failed == 0);  // or a sequence had an operation that did not end exactly once
}

// splitmix64: a generator with more state would take longer to seed than many a sequence takes to run.
class dice {
 public:
  explicit dice(std::uint64_t seed) : state_(seed) {}
  std::uint64_t operator()() {
    std::uint64_t mixed = (state_ += 0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }

 private:
  std::uint64_t state_;
};

// The operations of one sequence. Frames that wait are destroyed on the thread that would resume them, as the contract asks.
template <class Manager>
struct play {
  explicit play(std::uint64_t seed) : random(seed) {}

  std::uint64_t draw(std::uint64_t bound) { return random() % bound; }

  void start(Manager& manager, axioms::executor_ref where) {
    auto& to = *records.emplace_back(std::make_unique<record>());
    axioms::async_options how;
    how.executor = where;
    const axioms::stop_token token = to.stop.get_token();
    if (draw(2) == 0) how.stop = token;
    if (draw(16) == 0) to.stop.request_stop();
    const std::string& url = urls[static_cast<std::size_t>(draw(urls.size()))];
    switch (draw(9)) {
      case 0: frames.emplace_back(drive(manager.initialize(config_for(urls[0], draw(12)), std::move(how)), to)); break;
      case 1: frames.emplace_back(drive(manager.refresh(url, std::move(how)), to)); break;
      case 2: frames.emplace_back(drive(manager.wait_ready(std::chrono::seconds(draw(20)), std::move(how)), to)); break;
      case 3: frames.emplace_back(drive(manager.get_jwks(std::move(how)), to)); break;
      case 4:
      case 5:
        frames.emplace_back(drive(manager.get_key(url, {.kid = draw(2) == 0 ? "k1" : "k2"}, std::move(how)), to));
        break;
      case 6:
        if (draw(4) == 0) {
          frames.emplace_back(drive(manager.shutdown(std::move(how)), to));
          break;
        }
        [[fallthrough]];
      default: frames.emplace_back(drive(manager.get_jwks(url, std::move(how)), to)); break;
    }
  }
  // By callback. Nobody can take it back.
  void call(Manager& manager, axioms::executor_ref where = {}) {
    auto& to = *records.emplace_back(std::make_unique<record>());
    frames.emplace_back(std::nullopt);
    const axioms::stop_token token = draw(2) == 0 ? to.stop.get_token() : axioms::stop_token();
    axioms::async_options how;
    how.stop = token;
    if (draw(2) == 0) how.executor = where;
    const auto take = [&to](const auto& value) { to.take(value); };
    const std::string& url = urls[static_cast<std::size_t>(draw(urls.size()))];
    switch (draw(5)) {
      case 0: manager.async_get_key(url, {.kid = "k2"}, take, how); break;
      case 1: manager.async_refresh(url, take, how); break;
      case 2: manager.async_initialize(config_for(urls[1], draw(12)), take, how); break;
      case 3:
        if (draw(4) == 0) {
          manager.async_shutdown([&to] { to.take_nothing(); }, how);
          break;
        }
        [[fallthrough]];
      default: manager.async_get_jwks(url, take, how); break;
    }
  }
  // Asks one of the operations to stop, or destroys its frame.
  void stop_one() {
    if (!records.empty()) records[static_cast<std::size_t>(draw(records.size()))]->stop.request_stop();
  }
  void destroy_one() {
    if (frames.empty()) return;
    const auto which = static_cast<std::size_t>(draw(frames.size()));
    if (!frames[which] || frames[which]->done()) return;
    frames[which].reset();
    records[which]->was_destroyed = true;
    destroyed_at.emplace_back(which, records[which]->ended.load());
  }

  bool all_over() const {
    for (const auto& each : records) {
      if (each->ended == 0 && !each->was_destroyed) return false;
    }
    return true;
  }
  bool good() const {
    bool fine = all_over();
    for (const auto& each : records) fine = fine && each->ended == (each->was_destroyed ? 0 : 1) && !each->wrong;
    for (const auto& [which, before] : destroyed_at) fine = fine && records[which]->ended == before;
    return fine;
  }

  dice random;
  std::vector<std::unique_ptr<record>> records;
  std::vector<std::optional<owned>> frames;  // one for each record
  std::vector<std::pair<std::size_t, int>> destroyed_at;
};

support::reply some_answer(std::uint64_t kind) {
  switch (kind % 5) {
    case 0: return response(503);
    case 1: return ok({"k1", "k2"}, {{"ETag", "\"2\""}});
    case 2: return response(304);
    case 3: return axioms::error{errc::connect_failed, "refused", 0};
    default: return ok({"k1"}, {{"ETag", "\"1\""}});
  }
}

bool play_on_loop(std::uint64_t seed) {
  play<on_loop> game(seed);
  manual_clock clock;
  loop_client client;
  manual_loop executor;
  std::optional<on_loop> manager(std::in_place, client, clock);
  const std::uint64_t steps = 4 + game.draw(20);
  for (std::uint64_t step = 0; step < steps; ++step) {
    switch (game.draw(11)) {
      case 0:
      case 1: game.start(*manager, {}); break;
      case 2: game.start(*manager, executor); break;
      case 3: game.call(*manager, executor); break;
      case 4:
      case 5: client.answer(static_cast<std::size_t>(game.draw(8)), some_answer(game.draw(5))); break;
      case 6: game.stop_one(); break;
      case 7: game.destroy_one(); break;
      case 8: clock.advance(std::chrono::milliseconds(game.draw(30000))); break;
      case 9: executor.run_one(); break;
      default: client.answer_inline(game.draw(3) == 0); break;
    }
  }
  manager.reset();
  while (client.answer(0, ok({"late"}))) {}  // answers come after the manager is gone
  executor.run();
  clock.advance(1h);
  return game.good() && clock.timers() == 0;
}

bool play_on_threads(std::uint64_t seed) {
  play<on_threads> game(seed);
  manual_clock clock;
  fake_fetcher provider;
  manual_loop executor;
  if (game.draw(2) == 0) provider.hold();
  std::optional<on_threads> manager(std::in_place, blocking_only{provider}, clock);
  // Every frame goes on in this thread, which may therefore destroy those that wait; what has no executor is by callback.
  const std::uint64_t steps = 4 + game.draw(16);
  for (std::uint64_t step = 0; step < steps; ++step) {
    switch (game.draw(11)) {
      case 0:
      case 1:
      case 2: game.start(*manager, executor); break;
      case 3: game.call(*manager, executor); break;
      case 4: provider.push(some_answer(game.draw(5))); break;
      case 5: game.draw(2) == 0 ? provider.release() : provider.hold(); break;
      case 6: game.stop_one(); break;
      case 7: game.destroy_one(); break;
      case 8: clock.advance(std::chrono::milliseconds(game.draw(30000))); break;
      default: executor.run_one(); break;
    }
  }
  manager.reset();  // ends everything; what has an executor is posted by then
  executor.run();
  return game.good() && clock.waiting() == 0;
}

// As above, but stops, time and answers come from other threads at the same moment.
bool play_against_threads(std::uint64_t seed) {
  play<on_threads> game(seed);
  manual_clock clock;
  fake_fetcher provider;
  manual_loop executor;
  std::optional<on_threads> manager(std::in_place, blocking_only{provider}, clock);
  const auto wave = [&](std::size_t first) {
    std::thread stopper([&game, first, last = game.records.size()] {
      for (std::size_t i = first; i < last; ++i) game.records[i]->stop.request_stop();
    });
    return stopper;
  };
  for (int round = 0; round < 3; ++round) {
    provider.hold();
    const std::size_t first = game.records.size();
    for (std::uint64_t i = 2 + game.draw(6); i > 0; --i)
      game.draw(4) == 0 ? game.call(*manager, executor) : game.start(*manager, executor);
    std::thread stopper = wave(first);
    std::thread answerer([&, jump = std::chrono::milliseconds(game.draw(30000))] {
      provider.release();
      clock.advance(jump);
    });
    for (int i = 0; i < 4; ++i) {
      executor.run_one();
      game.destroy_one();
    }
    if (round == 2) manager.reset();
    stopper.join();
    answerer.join();
    executor.run();
  }
  executor.run();
  return game.good() && clock.waiting() == 0;
}

// Without an executor: frames go on in the manager's threads, race with a stop, and are never destroyed while they wait.
bool play_without_executor(std::uint64_t seed) {
  play<on_threads> game(seed);
  manual_clock clock;
  fake_fetcher provider;
  provider.hold();
  std::optional<on_threads> manager(std::in_place, blocking_only{provider}, clock);
  for (std::uint64_t i = 2 + game.draw(8); i > 0; --i)
    game.draw(4) == 0 ? game.call(*manager) : game.start(*manager, {});
  std::thread stopper([&] {
    for (const auto& each : game.records) each->stop.request_stop();
  });
  provider.release();
  for (std::uint64_t i = game.draw(4); i > 0; --i) clock.advance(std::chrono::milliseconds(game.draw(30000)));
  manager.reset();  // returns when each of them has gone on
  const bool over = game.all_over();
  stopper.join();
  return over && game.good() && clock.waiting() == 0;
}

}  // namespace

TEST_CASE("on an event loop every operation ends exactly once, whatever comes in whatever order") {
  for_each_seed(sequences(880), play_on_loop);
}

TEST_CASE("on threads every operation ends exactly once, whatever comes in whatever order") {
  for_each_seed(sequences(80), play_on_threads);
}

TEST_CASE(
    "on threads every operation ends exactly once, when stops, answers and time come from several threads at once") {
  for_each_seed(sequences(20), play_against_threads);
}

TEST_CASE("the destructor returns only after every operation without an executor has ended, exactly once") {
  for_each_seed(sequences(20), play_without_executor);
}
