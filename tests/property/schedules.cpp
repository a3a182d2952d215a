// Random schedules through a whole manager: time, answers good and bad and late, lookups, shutdown. What holds whatever comes:
// nothing is served past cache_ttl + outage_window, nothing good is replaced by anything bad, one flight per URL, no more
// requests than the budget and the backoff allow, every caller is answered exactly once.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "support/fake_fetcher.hpp"
#include "support/manual_clock.hpp"

#include <doctest/doctest.h>

#include <stdlib.h>

#include <map>
#include <set>

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config;
using std::chrono::milliseconds, std::chrono::seconds;
using support::manual_clock, support::ok, support::response;
using time_point = manual_clock::time_point;

namespace {

const std::vector<std::string> urls{"https://a.example.com/k", "https://b.example.com/k"};

// splitmix64: a sequence is told by its number alone.
struct dice {
  std::uint64_t state;
  std::uint64_t operator()() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  int below(int most) { return static_cast<int>((*this)() % static_cast<std::uint64_t>(most)); }
};

// Requests that wait for their answer. It looks on while they are made.
struct provider {
  struct request {
    std::uint64_t number = 0;
    axioms::fetch_request asked;
    axioms::stop_token stop;
    std::function<void(support::reply)> answer;
  };
  struct state {
    std::vector<request> waiting;
    std::vector<std::string> begun;
    std::uint64_t count = 0;
    const char* broken = nullptr;
  };
  std::shared_ptr<state> at = std::make_shared<state>();

  template <class Callback>
  void async_fetch(axioms::fetch_request asked, axioms::stop_token stop, Callback callback) const {
    for (const request& other : at->waiting) {
      if (other.asked.url == asked.url && !other.stop.stop_requested()) at->broken = "two flights for one URL";
    }
    at->begun.push_back(asked.url);
    const auto kept = std::make_shared<Callback>(std::move(callback));
    at->waiting.push_back(
        {++at->count, std::move(asked), std::move(stop), [kept](support::reply said) { (*kept)(std::move(said)); }});
  }
};

class schedule {
 public:
  explicit schedule(std::uint64_t seed) : roll_{seed * 0x9e3779b97f4a7c15U + 1}, config_(draw()) {}

  const char* run(int steps) {
    start();
    for (int i = 0; i < steps && broken_ == nullptr; ++i) step();
    shut_down();
    while (!provider_.at->waiting.empty()) answer();  // late for ever
    if (broken_ == nullptr) broken_ = provider_.at->broken;
    if (broken_ == nullptr && asked_ != answered_) broken_ = "a caller was not answered, or twice";
    if (broken_ == nullptr && clock_.timers() != 0) broken_ = "a timer is left after shutdown";
    return broken_;
  }

 private:
  struct known {
    std::map<time_point, std::set<std::string>> good;  // what good answers came, and when
    std::uint64_t generation = 0,
                  newest = 0;  // newest: the request whose good answer came, of those that were made last
    time_point no_sooner{};    // a failure's backoff
    std::vector<time_point> kid_requests;
  };

  jwks_config draw() {
    jwks_config config;
    config.jwks_url = urls[0];
    config.refresh_interval = seconds(1 + roll_.below(30));
    config.cache_ttl = 2 * config.refresh_interval + seconds(roll_.below(20));
    config.outage_window = seconds(roll_.below(3) == 0 ? 0 : roll_.below(60));
    config.min_refresh_interval = seconds(roll_.below(20));
    config.fetch_timeout = milliseconds(1 + roll_.below(10000));
    config.backoff_initial = milliseconds(2 + roll_.below(3000));
    config.backoff_max = config.backoff_initial + milliseconds(roll_.below(60000));
    config.unknown_kid_burst = roll_.below(4);
    config.unknown_kid_interval = milliseconds(1000 + roll_.below(20000));
    config.prefetch = roll_.below(2) == 0;
    config.random = [roll = dice{roll_()}]() mutable { return roll(); };
    return config;
  }

  void start() {
    running_ = true;
    ++asked_;
    for (auto& each : known_) each = known();
    manager_.async_initialize(config_, [this](auto) { ++answered_; });
    watch(false, {});
  }
  void shut_down() {
    running_ = false;
    ++asked_;
    manager_.async_shutdown([this] { ++answered_; });
    if (manager_.peek(urls[0])) broken_ = "a document outlived shutdown";
  }

  void step() {
    switch (roll_.below(12)) {
      case 0:
      case 1: advance(); break;
      case 2:
      case 3:
      case 4: answer(); break;
      case 5:
      case 6:
      case 7: lookup(); break;
      case 8:
      case 9: key(); break;
      case 10: look(); break;
      default:
        if (roll_.below(8) != 0) break;
        if (running_) shut_down();
        if (roll_.below(2) == 0) start();
    }
    if (broken_ == nullptr) broken_ = provider_.at->broken;
  }

  // What has been requested since the last look, and whether it was time for it.
  void watch(bool for_a_kid, const std::string& url) {
    for (const std::string& begun : provider_.at->begun) {
      known& of = known_[begun == urls[0] ? 0 : 1];
      if (clock_.now() < of.no_sooner) broken_ = "a request did not wait for the backoff";
      if (for_a_kid && begun == url) of.kid_requests.push_back(clock_.now());
    }
    provider_.at->begun.clear();
    if (!for_a_kid) return;
    const auto& all = known_[url == urls[0] ? 0 : 1].kid_requests;
    for (std::size_t from = 0; from < all.size(); ++from) {
      const auto count = static_cast<std::int64_t>(all.size() - from);
      if (count > config_.unknown_kid_burst + (all.back() - all[from]) / config_.unknown_kid_interval)
        broken_ = "unknown kids went over their budget";
    }
  }

  void advance() {
    clock_.advance(roll_.below(3) == 0 ? milliseconds(roll_.below(100000)) : milliseconds(roll_.below(4000)));
    provider_.at->begun.clear();  // by timers, in between: their times are the policy's tests' business
    for (known& of : known_) of.no_sooner = time_point{};
  }

  void answer() {
    auto& waiting = provider_.at->waiting;
    if (waiting.empty()) return;
    const auto at = waiting.begin() + roll_.below(static_cast<int>(waiting.size()));
    const provider::request which = std::move(*at);
    waiting.erase(at);
    const bool late = which.stop.stop_requested();
    known& of = known_[which.asked.url == urls[0] ? 0 : 1];
    const auto before = running_ ? manager_.peek(which.asked.url) : std::nullopt;
    const int kind = roll_.below(8);
    const std::string body =
        support::key_set({"k", std::string_view("12345").substr(static_cast<std::size_t>(roll_.below(5)), 1)});
    const bool good = kind < 3 || (kind == 3 && !which.asked.etag.empty());
    if (kind < 3) of.good[clock_.now()].insert(body);
    if (kind == 3 && good) {  // confirms one of those that came
      std::set<std::string> all;
      for (const auto& [when, bodies] : of.good) all.insert(bodies.begin(), bodies.end());
      of.good[clock_.now()].merge(all);
    }
    switch (kind) {
      case 0:
      case 1:
      case 2: which.answer(response(200, body, {{"ETag", "\"e\""}})); break;
      case 3: which.answer(response(304)); break;
      case 4: which.answer(response(503)); break;
      case 5: which.answer(response(200, "<html>login</html>")); break;
      case 6: which.answer(response(200, R"({"keys":[{"kty":"oct","k":"AAAA"}]})")); break;
      default: which.answer(axioms::error{errc::connect_failed, "refused", 0});
    }
    if (!running_) return provider_.at->begun.clear();
    if (good) of.no_sooner = time_point{};  // if it was taken
    if (kind < 3 && which.number < of.newest) {
      const auto after = manager_.peek(which.asked.url);
      if (before && (!after || (*before)->generation() != (*after)->generation()))
        broken_ = "an answer replaced that to a younger request";
    }
    if (kind < 3) of.newest = std::max(of.newest, which.number);
    if (!good) {
      const auto after = manager_.peek(which.asked.url);
      if (before.has_value() != after.has_value() || (before && (*before)->body() != (*after)->body()))
        broken_ = "something bad replaced a document, or took it away";
      if (!late) of.no_sooner = clock_.now() + config_.backoff_initial / 2;
    }
    watch(false, {});
  }

  void check(const std::string& url, const axioms::jwks_document& document) {
    known& of = known_[url == urls[0] ? 0 : 1];
    const auto came = of.good.find(document.fetched_at());
    if (came == of.good.end() || came->second.count(std::string(document.body())) == 0)
      broken_ = "a document was served that no good answer brought";
    if (clock_.now() >= document.fetched_at() + config_.cache_ttl + config_.outage_window)
      broken_ = "a document was served past cache_ttl + outage_window";
    if (document.generation() < of.generation) broken_ = "an older document came after a newer";
    of.generation = document.generation();
  }

  void lookup() {
    const std::string& url = urls[static_cast<std::size_t>(roll_.below(2))];
    ++asked_;
    manager_.async_get_jwks(url, [this, &url](auto got) {
      ++answered_;
      if (got) {
        check(url, **got);
      } else if (got.error().code == errc{}) {
        broken_ = "an error without a code";
      }
    });
    watch(false, {});
  }

  void key() {
    const std::string& url = urls[static_cast<std::size_t>(roll_.below(2))];
    const auto cached = running_ ? manager_.peek(url) : std::nullopt;
    const std::string kid(1, "kxyz"[roll_.below(4)]);
    ++asked_;
    manager_.async_get_key(url, {.kid = kid}, [this, kid](auto got) {
      ++answered_;
      if (got && (*got)->kid() != kid) broken_ = "a key of another kid";
    });
    watch(cached && !(*cached)->keys().contains(kid) && clock_.now() < (*cached)->expires_at(), url);
  }

  void look() {
    const std::string& url = urls[static_cast<std::size_t>(roll_.below(2))];
    if (const auto got = manager_.peek(url)) check(url, **got);
  }

  dice roll_;
  jwks_config config_;
  manual_clock clock_;
  provider provider_;
  axioms::basic_async_jwks_manager<provider, manual_clock> manager_{provider_, clock_};
  std::array<known, 2> known_;
  bool running_ = false;
  int asked_ = 0, answered_ = 0;
  const char* broken_ = nullptr;
};

}  // namespace

// Red when servable() lets a document live 5 s longer, has_one() never says no, ask() does not heed the backoff, due() does
// not ask for a flight in the air, fail() drops the document, or land() takes an answer that a younger one has overtaken.
TEST_CASE("no random schedule through a manager breaks a rule of serving, of flights or of budgets") {
  std::uint64_t sequences = 2000;
  if (const char* asked = ::getenv("AXIOMS_JWKS_TEST_SEQUENCES")) sequences = std::strtoull(asked, nullptr, 10);
  REQUIRE(sequences > 0);
  for (std::uint64_t seed = 0; seed < sequences; ++seed) {
    if (const char* broken = schedule(seed).run(60)) {
      CAPTURE(seed);
      FAIL(std::string(broken));
    }
  }
}
