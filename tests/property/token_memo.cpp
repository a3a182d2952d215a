// Random schedules round the memo of verified tokens: time that goes on and back, keys that rotate, a provider that is down, shutdown.
// Whatever comes, the verifier accepts what the pure function accepts with the set that is served at that moment, and nothing else.
//
// "Red when" names a change to the header that makes the test fail; each has been tried.
#include "support/rig.hpp"
#include "support/token_maker.hpp"

#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using namespace support;  // NOLINT(google-build-using-namespace): how keys and tokens are made
using axioms::errc, axioms::jwks_ptr, axioms::token_rules;

namespace {

constexpr int slow = under_tsan || under_asan ? 8 : 1;

// splitmix64: a sequence is told by its number alone.
struct dice {
  std::uint64_t state;
  std::size_t below(std::size_t most) {
    std::uint64_t z = state += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return (z ^ (z >> 31U)) % most;
  }
};

// A manager whose world changes at random, and tokens that are good, or not, at some time.
class world {
 public:
  explicit world(std::uint64_t seed) : dice_{seed} {
    for (const char* kid : {"a", "b", "c"}) keys_.emplace_back("ES256", kid);
    keys_.emplace_back("ES256", "a");  // forged, or of a key that replaces another under its kid
    const auto now = seconds(r_.clock.system_now());
    for (const auto& key : keys_) {
      for (const std::int64_t begins : {-1000, 0, 300}) {
        for (const std::int64_t ends : {200, 2000, 100000}) {
          tokens_.push_back(key.token(R"({"iss":"https://idp.example.com/","aud":"me","exp":)" +
                                      std::to_string(now + ends) + R"(,"nbf":)" + std::to_string(now + begins) + "}"));
        }
      }
    }
    publish();
    REQUIRE(r_.manager.initialize(config()));
  }
  dice& random() { return dice_; }
  std::size_t tokens() const { return tokens_.size(); }

  // One change: of the time, of what is published, or of the manager's life.
  void change() {
    switch (dice_.below(8)) {
      case 0: r_.clock.step_wall(std::chrono::seconds(dice_.below(400))); break;
      case 1: r_.clock.step_wall(-std::chrono::seconds(dice_.below(400))); break;
      case 2: r_.clock.advance(std::chrono::seconds(dice_.below(dice_.below(8) == 0 ? 9000 : 100))); break;
      case 3: down_ = dice_.below(3) == 0; break;
      case 4:
        r_.manager.shutdown();
        static_cast<void>(r_.manager.initialize(config()).has_value());
        break;
      default:
        for (auto& each : published_) each = dice_.below(4) != 0;
        break;
    }
    publish();
    static_cast<void>(r_.manager.refresh(url).has_value());
  }

  // Empty: what the verifier says of the token is what the pure function says, or what cannot be judged, for more than one
  // change came in between.
  std::string look(std::size_t number, const std::atomic<int>& changes) const {
    const std::string& token = tokens_[number];
    const int before = changes;
    const std::array<std::optional<jwks_ptr>, 2> sets_before{r_.manager.peek(url)};
    const auto first = r_.clock.system_now();
    const auto said = verifier_.verify(token);
    const auto last = r_.clock.system_now();
    const auto set_after = r_.manager.peek(url);
    if (changes != before) return {};
    bool may = false, must = true;
    for (const auto& set : {sets_before[0], set_after}) {
      for (const auto& when : {first, last}) {
        const bool good = set && *set && axioms::verify_token(token, (*set)->keys(), rules_, when).has_value();
        may = may || good;
        must = must && good;
      }
    }
    if (said && !may) return "accepted, and the pure function would not";
    if (said && said->token() != token) return "another token";
    const bool life = !said && said.error().code == errc::shut_down;
    if (!said && must && !life) return "refused, and the pure function would not: " + said.error().description;
    return {};
  }

 private:
  static std::int64_t seconds(std::chrono::system_clock::time_point when) {
    return std::chrono::floor<std::chrono::seconds>(when.time_since_epoch()).count();
  }
  static axioms::jwks_config config() {
    auto out = config_for(url);
    out.min_refresh_interval = 0s;
    out.unknown_kid_burst = 0;  // a fetch in between would be one more change
    return out;
  }
  void publish() {
    std::vector<const signing_key*> now;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (published_[i] && (i != 3 || !published_[0])) now.push_back(&keys_[i]);
    }
    r_.provider.always(down_ || now.empty() ? response(500) : response(200, set_of_keys(now)));
  }

  dice dice_;
  rig r_;
  std::vector<signing_key> keys_;
  std::vector<std::string> tokens_;
  std::array<bool, 4> published_{true, true, true, true};
  bool down_ = false;
  token_rules rules_{.issuer = "https://idp.example.com/", .audience = {"me"}, .memo = 24};
  axioms::basic_token_verifier<manager_type> verifier_{r_.manager, rules_};
};

}  // namespace

// Red when a hit asks neither for the generation, nor for exp, nor for nbf, nor whether anything is served.
TEST_CASE("in no random schedule a known token is accepted that would not be verified") {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    world w(seed);
    const std::atomic<int> changes{0};
    for (int step = 0; step < 160 / slow; ++step) {
      CAPTURE(seed);
      CAPTURE(step);
      w.change();
      for (int i = 0; i < 12; ++i) REQUIRE(w.look(w.random().below(w.tokens()), changes) == "");
    }
  }
}

TEST_CASE("nor while threads verify and the world changes") {
  world w(1);
  std::atomic<int> changes{0};
  std::atomic<bool> over{false}, failed{false};
  std::atomic<std::uint64_t> looks{0};
  std::array<std::string, 3> wrong;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([&, i] {
      dice mine{100 + i};
      while (!over && wrong.at(i).empty()) {
        wrong.at(i) = w.look(mine.below(4) == 0 ? mine.below(w.tokens()) : mine.below(6), changes);
        if (!wrong.at(i).empty()) failed = true;
        ++looks;
      }
    });
  }
  for (int step = 0; step < 400 / slow; ++step) {
    ++changes;
    w.change();
    // So that they see most states, and some of what lies between.
    const std::uint64_t enough = looks + w.random().below(8);
    while (looks < enough && !failed) std::this_thread::yield();
  }
  over = true;
  for (auto& each : threads) each.join();
  for (const auto& each : wrong) CHECK(each == "");
}
