// Many readers while the documents are replaced as fast as they can be fetched, through both managers. No socket, no sleep.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "support/rig.hpp"
#include "vectors/keys.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <latch>
#include <set>
#include <thread>

using namespace std::chrono_literals;
using axioms::jwks_ptr, axioms::result;
using support::config_for, support::eventually, support::fake_fetcher, support::manual_clock, support::response;

namespace {

constexpr std::size_t readers = 32, publishers = 2, urls = 3;
// Of fetches, over all publishers.
constexpr std::uint64_t rounds = support::under_tsan || support::under_asan ? 400 : 2000;

const std::array<std::string, urls> places{"https://a.example.com/jwks", "https://b.example.com/jwks",
                                           "https://still.example.com/jwks"};

std::size_t place_of(std::string_view url) {
  const auto found = std::find(places.begin(), places.end(), url);
  return static_cast<std::size_t>(found - places.begin());
}

// The document of that number: one key that tells the number, and "k1", which is of another type in every other document.
std::string body_of(std::size_t place, std::uint64_t number) {
  const std::string ec = R"({"kty":"EC","crv":"P-256","kid":"k1","x":")" + std::string(support::p256_x) + R"(","y":")" +
                         std::string(support::p256_y) + "\"}";
  const std::string kid = std::to_string(place) + "n" + std::to_string(number);
  if (number % 2 == 0) return support::key_set({kid, "k1"});
  std::string out = support::key_set({kid});
  return out.substr(0, out.size() - 2) + "," + ec + "]}";
}

// Answers every request of a URL with another document; now and then with a 304, and now and then with an error.
class rotating_fetcher {
 public:
  static constexpr std::uint64_t is_error = 7, is_304 = 3;  // of eight answers

  result<axioms::fetch_response> operator()(const axioms::fetch_request& request, const axioms::stop_token&) const {
    const std::size_t place = place_of(request.url);
    const std::uint64_t number = state_->answers.at(place)++;
    if (number % 8 == is_error) return response(503);
    if (number % 8 == is_304) return response(304);
    return response(200, body_of(place, number), {{"ETag", "\"" + std::to_string(number) + "\""}});
  }
  std::uint64_t answers(std::size_t place) const { return state_->answers.at(place); }

 private:
  struct state {
    std::array<std::atomic<std::uint64_t>, urls> answers{};
  };
  std::shared_ptr<state> state_ = std::make_shared<state>();
};

// The same verbs of both managers. Nobody has to wait in this test, so a callback has come before the call returns.
struct blocking {
  axioms::basic_jwks_manager<rotating_fetcher, manual_clock> manager;
  blocking(const rotating_fetcher& fetch, const manual_clock& clock) : manager(fetch, clock) {}
  bool start(axioms::jwks_config config) { return manager.initialize(std::move(config)).has_value(); }
  result<jwks_ptr> get(const std::string& url) { return manager.get_jwks(url); }
  result<axioms::key_ptr> key(const std::string& url, const axioms::key_query& query) {
    return manager.get_key(url, query);
  }
  bool refresh(const std::string& url) { return manager.refresh(url).has_value(); }
  void shutdown() { manager.shutdown(); }
};

struct async {
  axioms::basic_async_jwks_manager<rotating_fetcher, manual_clock> manager;
  async(const rotating_fetcher& fetch, const manual_clock& clock) : manager(fetch, clock) {}
  static axioms::error waited() { return {axioms::errc::timed_out, "it did not come at once", 0}; }

  bool start(axioms::jwks_config config) {
    std::promise<bool> done;
    manager.async_initialize(std::move(config), [&](result<void> out) { done.set_value(out.has_value()); });
    return done.get_future().get();
  }
  result<jwks_ptr> get(const std::string& url) {
    const auto out = std::make_shared<result<jwks_ptr>>(waited());
    manager.async_get_jwks(url, [out](result<jwks_ptr> document) { *out = std::move(document); });
    return *out;
  }
  result<axioms::key_ptr> key(const std::string& url, const axioms::key_query& query) {
    const auto out = std::make_shared<result<axioms::key_ptr>>(waited());
    manager.async_get_key(url, query, [out](result<axioms::key_ptr> key) { *out = std::move(key); });
    return *out;
  }
  bool refresh(const std::string& url) {
    std::promise<bool> done;
    manager.async_refresh(url, [&](result<void> out) { done.set_value(out.has_value()); });
    return done.get_future().get();
  }
  void shutdown() {
    std::promise<void> done;
    manager.async_shutdown([&] { done.set_value(); });
    done.get_future().get();
  }
};

// What one reader has seen of one URL.
class witness {
 public:
  // Empty: what was seen is in order; else what is not.
  std::string look(const jwks_ptr& document, std::size_t place, std::uint64_t answers) {
    if (document->url() != places.at(place)) return "the document of another URL";
    std::string_view kid;
    for (const auto& key : document->keys()) {
      if (key->kid() != "k1") kid = key->kid();
    }
    if (document->keys().size() != 2 || kid.size() < 3) return "not the keys of any document";
    const std::uint64_t number = std::strtoull(std::string(kid.substr(2)).c_str(), nullptr, 10);
    if (number >= answers) return "a document that was never published";
    if (document->body() != body_of(place, number)) return "the body of another document than the keys";
    const auto k1 = document->keys().select({.kid = "k1"});
    if (!k1 || (*k1)->kty() != (number % 2 == 0 ? "OKP" : "EC")) return "a key of another document";
    if (document->generation() < generation_) return "an older generation than before";
    if ((document->generation() == generation_) != (number == number_)) return "a generation with two documents";
    if (document->fetched_at() < fetched_at_) return "an older stamp than before";
    generation_ = document->generation();
    number_ = number;
    fetched_at_ = document->fetched_at();
    return {};
  }
  std::uint64_t generation() const { return generation_; }

 private:
  std::uint64_t generation_ = 0, number_ = ~std::uint64_t{0};
  std::chrono::steady_clock::time_point fetched_at_{};
};

// Reads by every verb that does not wait; the first thing that is wrong ends it.
template <class Manager>
std::string read_once(Manager& reading, const rotating_fetcher& fetch, std::array<witness, urls>& seen) {
  for (std::size_t place = 0; place < urls; ++place) {
    const std::string& url = places.at(place);
    for (int look = 0; look < 3; ++look) {
      const auto document = reading.get(url);
      if (!document) return "get_jwks: " + document.error().description;
      if (auto wrong = seen.at(place).look(*document, place, fetch.answers(place)); !wrong.empty()) return wrong;
    }
    const auto key = reading.key(url, {.kid = "k1"});
    if (!key) return "get_key: " + key.error().description;
    if ((*key)->native_handle() == nullptr || (*key)->kid() != "k1") return "get_key: not the key";
    const auto peeked = reading.manager.peek(url);
    if (!peeked) return "peek: nothing";
    if (auto wrong = seen.at(place).look(*peeked, place, fetch.answers(place)); !wrong.empty()) return "peek: " + wrong;
    const auto health = reading.manager.health(url);
    if (!health.ready || health.stale) return "health: not ready";
  }
  return {};
}

// A gate that threads wait at until all have come.
class gate {
 public:
  explicit gate(std::size_t count) : missing_(count) {}
  // False when patience is over.
  bool arrive_and_wait() {
    std::unique_lock lock(mutex_);
    if (--missing_ == 0) changed_.notify_all();
    return changed_.wait_for(lock, support::patience, [&] { return missing_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t missing_;
};

}  // namespace

// Red when put() does not count the version up, or gives two documents one generation, keep_hit() takes a new slot each
// time, or peek() takes no lock.
TEST_CASE_TEMPLATE(
    "32 threads that look up while documents are replaced always get a whole one, and never an older one", Manager,
    blocking, async) {
  const manual_clock clock;
  const rotating_fetcher fetch;
  Manager manager(fetch, clock);
  auto config = config_for(places[0]);
  config.min_refresh_interval = 0s;
  REQUIRE(manager.start(config));
  for (std::size_t place = 1; place < urls; ++place) REQUIRE(manager.refresh(places.at(place)));

  std::atomic<bool> over{false};
  gate all_have_looked(readers + publishers), all_rest(readers + 1), all_look_again(readers + 1),
      all_have_looked_again(readers + 1), all_may_go(readers + 1);
  std::array<std::string, readers> wrong;
  std::array<std::array<witness, urls>, readers> seen;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < readers; ++i) {
    threads.emplace_back([&, i] {
      wrong[i] = read_once(manager, fetch, seen[i]);
      bool in_time = all_have_looked.arrive_and_wait();
      while (!over) {
        if (wrong[i].empty()) wrong[i] = read_once(manager, fetch, seen[i]);
        std::this_thread::yield();
      }
      in_time = all_rest.arrive_and_wait() && in_time;
      in_time = all_look_again.arrive_and_wait() && in_time;
      for (std::size_t place = 0; place < urls; ++place) {  // no more than it takes to notice what is new
        const auto document = manager.get(places.at(place));
        if (document && wrong[i].empty()) wrong[i] = seen[i].at(place).look(*document, place, fetch.answers(place));
      }
      in_time = all_have_looked_again.arrive_and_wait() && in_time;
      in_time = all_may_go.arrive_and_wait() && in_time;
      if (wrong[i].empty() && !in_time) wrong[i] = "some thread was too late";
    });
  }

  // Each publishes a URL of its own; the third URL is left alone.
  std::array<std::vector<std::weak_ptr<const axioms::detail::document_content>>, publishers> published;
  std::array<std::array<std::uint64_t, 2>, publishers> refreshed{};  // failed, succeeded
  std::vector<std::thread> publishing;
  for (std::size_t i = 0; i < publishers; ++i) {
    publishing.emplace_back([&, i] {
      all_have_looked.arrive_and_wait();
      auto time = clock;
      for (std::uint64_t round = 0; round < rounds / publishers; ++round) {
        time.advance(1ms);
        ++refreshed[i].at(manager.refresh(places.at(i)) ? 1 : 0);
        if (const auto document = manager.manager.peek(places.at(i))) published[i].emplace_back((*document)->content());
      }
    });
  }
  for (auto& thread : publishing) thread.join();
  over = true;
  // Of every eight answers one is an error, which nobody has noticed.
  const std::uint64_t each_fetched = rounds / publishers;
  for (std::size_t i = 0; i < publishers; ++i) {
    CHECK(fetch.answers(i) == 1 + each_fetched);
    CHECK(refreshed.at(i)[0] == (1 + each_fetched) / 8);
    CHECK(refreshed.at(i)[1] == each_fetched - refreshed.at(i)[0]);
    CHECK(published.at(i).size() == each_fetched);
  }
  CHECK(fetch.answers(2) == 1);

  // The readers rest, and hold what they looked up last, when each URL gets one more document; then each looks once.
  CHECK(all_rest.arrive_and_wait());
  for (std::size_t i = 0; i < publishers; ++i) {
    const jwks_ptr before = *manager.manager.peek(places.at(i));
    jwks_ptr after = before;
    for (int tries = 0; tries < 3 && after->generation() == before->generation(); ++tries) {
      static_cast<void>(manager.refresh(places.at(i)));
      after = *manager.manager.peek(places.at(i));
    }
    CHECK(after->generation() > before->generation());
    published.at(i).emplace_back(after->content());
  }
  CHECK(all_look_again.arrive_and_wait());
  CHECK(all_have_looked_again.arrive_and_wait());
  for (std::size_t place = 0; place < urls; ++place) {
    const std::uint64_t last = (*manager.manager.peek(places.at(place)))->generation();
    for (const auto& each : seen) CHECK(each.at(place).generation() == last);
  }

  // Every reader is still there, but nobody has a reason to hold what was replaced, but for the one that each URL keeps for the
  // question whether a kid has another key now.
  const auto alive = [&] {
    std::set<const void*> contents;
    for (const auto& documents : published) {
      for (const auto& document : documents) {
        if (const auto held = document.lock()) contents.insert(held.get());
      }
    }
    return contents.size();
  };
  const bool freed = eventually([&] { return alive() == 2 * publishers; });  // a fetch thread may still hold one
  CHECK(freed);
  CHECK(all_may_go.arrive_and_wait());
  for (auto& thread : threads) thread.join();
  manager.shutdown();
  CHECK((!freed || eventually([&] { return alive() == 0; })));
  for (const auto& each : wrong) CHECK(each == "");
}

// OpenSSL makes what it needs for a curve when the first key of it is made: whichever thread that is.
TEST_CASE("threads that meet the curves at the same time get keys of their own") {
  const std::array members{std::pair(vectors::p384_jwk, vectors::p384_pem),
                           std::pair(vectors::p521_jwk, vectors::p521_pem),
                           std::pair(vectors::p256_jwk, vectors::p256_pem)};
  constexpr std::size_t count = 8;
  std::latch all_are_there(count);
  std::array<std::set<const void*>, count> handles;
  std::array<bool, count> right{};
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      all_are_there.arrive_and_wait();
      bool good = true;
      std::vector<axioms::jwk_set> kept;  // else a later key could have an earlier one's address
      for (int round = 0; round < 20; ++round) {
        for (const auto& [text, pem] : members) {
          auto set = axioms::jwk_set::parse(R"({"keys":[)" + std::string(text) + "]}");
          good = good && set && (*set->begin())->to_pem() == pem;
          if (!good) break;
          handles[i].insert((*set->begin())->native_handle());
          kept.push_back(*std::move(set));
        }
      }
      right[i] = good && handles[i].size() == kept.size();
    });
  }
  for (auto& thread : threads) thread.join();
  for (const bool each : right) CHECK(each);
}
