// Two threads that verify tokens for a long time, while keys rotate and the provider fails. tests/soak/run builds and
// starts it.
//
//   soak SECONDS blocking|async [SEED]
//
// The provider is a TLS server on loopback, the fetcher and the clock are the library's own. Every 5 s a new key
// comes and the oldest of three goes; a third of the time the provider fails, in one of several ways. Each thread
// presents 90 % tokens that it presented before, 9 % that are new and 1 % that are bad. What must come of each is
// known from the times at which keys were published and withdrawn.
//
// Odd periods are quiet: no token makes the manager fetch, for the new key does not sign yet, and bad tokens are bad
// by their claims or by a withdrawn key. So what is withdrawn then goes by the automatic refresh or not at all.
#define DOCTEST_CONFIG_IMPLEMENT
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

#include "support/eventually.hpp"
#include "support/fetching.hpp"
#include "support/loopback_server.hpp"
#include "support/token_maker.hpp"

namespace {

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;
using answer = axioms::result<axioms::verified_token>;

constexpr std::string_view issuer = "https://idp.example.com/", audience = "https://api.example.com";
constexpr std::chrono::milliseconds period{5000}, failing = period / 3;
constexpr std::chrono::seconds refresh_interval{2};
constexpr auto backoff_max = 500ms, fetch_timeout = 500ms;
// So long must the provider have answered until everything it says is known.
constexpr auto refresh_known = refresh_interval + fetch_timeout + 100ms;
// The same of a key whose tokens come: they make the manager ask.
constexpr auto publication_known = 1s;
// A memo may ask a clock that ticks every few milliseconds.
constexpr auto clock_tick = 20ms;

std::int64_t wall_seconds() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}
std::chrono::system_clock::time_point at_wall(std::int64_t seconds) {
  return std::chrono::system_clock::time_point(std::chrono::seconds(seconds));
}

std::string claims(std::string_view iss, std::string_view aud, std::int64_t exp) {
  static std::atomic<std::uint64_t> number{0};
  return axioms::detail::concat(R"({"iss":")", iss, R"(","aud":")", aud, R"(","exp":)", exp, R"(,"iat":)",
                                wall_seconds(), R"(,"sub":"auth0|5f7c8ec7c33c6c004bbafe82","jti":"token-)", number++,
                                R"(","client_id":"my_client_id_123456789","scope":"openid profile orders:read"})");
}

struct token {
  std::string text;
  std::int64_t exp;
};

// A key of the provider and the tokens of it that clients use again and again. Those in the second list end while they
// are in use.
struct key {
  key(const std::string& alg, const std::string& kid) : signer(alg, kid) {
    for (int i = 0; i < 64; ++i) lasting.push_back(make(3600));
    for (int i = 0; i < 16; ++i) brief.push_back(make(1 + i));
  }
  token make(std::int64_t lifetime) const {
    const std::int64_t exp = wall_seconds() + lifetime;
    return {signer.token(claims(issuer, audience, exp)), exp};
  }
  support::signing_key signer;
  std::vector<token> lasting, brief;
  steady::time_point published = steady::time_point::max();
  // Known: the manager must have it. Gone: it must know that the key is withdrawn.
  std::atomic<bool> known{false}, withdrawn{false}, gone{false};
  steady::time_point withdrawn_at{};  // of the main thread
};
using key_ptr = std::shared_ptr<key>;

// What is true of the keys from one rotation to the next.
struct epoch {
  std::vector<key_ptr> published, signers;
  key_ptr withdrawn;
  bool quiet = false;
};

// Serves a body, or fails in the way of the block.
class provider {
 public:
  enum class mode { answers, unavailable, page, empty_set, hangs };

  explicit provider(const test_support::throwaway_ca& ca)
      : server_(ca.issue(), [this](const httplib::Request&, httplib::Response& response) { respond(response); }) {}
  ~provider() { set(mode::unavailable); }
  provider(const provider&) = delete;
  provider& operator=(const provider&) = delete;

  std::string url() const { return server_.url(); }
  void publish(std::string body) {
    const std::lock_guard lock(mutex_);
    body_ = std::move(body);
  }
  void set(mode now) {
    const std::lock_guard lock(mutex_);
    mode_ = now;
    ++blocks_;
    changed_.notify_all();
  }

 private:
  void respond(httplib::Response& response) {
    std::unique_lock lock(mutex_);
    switch (mode_) {
      case mode::answers: return response.set_content(body_, "application/jwk-set+json");
      case mode::page: return response.set_content("<html>We are down for maintenance</html>", "text/html");
      case mode::empty_set: return response.set_content(R"({"keys":[]})", "application/jwk-set+json");
      case mode::hangs: changed_.wait(lock, [&, block = blocks_] { return blocks_ != block; }); break;
      case mode::unavailable: break;
    }
    response.status = 503;
  }

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::string body_;
  mode mode_ = mode::answers;
  std::uint64_t blocks_ = 0;
  test_support::loopback_server server_;
};

// How long things took, to a sixteenth.
class durations {
 public:
  void add(std::chrono::nanoseconds took) {
    const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 16));
    const auto power = static_cast<std::size_t>(std::bit_width(ns)) - 5;
    ++counts_[power * 16 + ((ns >> power) & 15U)];
    ++total_;
    most_ = std::max(most_, took);
  }
  void add(const durations& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
    most_ = std::max(most_, other.most_);
  }
  double microseconds(double share) const {
    auto left = static_cast<std::uint64_t>(share * static_cast<double>(total_));
    std::size_t i = 0;
    while (i + 1 < counts_.size() && counts_[i] <= left) left -= counts_[i++];
    return static_cast<double>((16 + i % 16) << (i / 16)) / 1000;
  }
  double most() const { return static_cast<double>(most_.count()) / 1000; }

 private:
  std::array<std::uint64_t, 60 * 16> counts_{};
  std::uint64_t total_ = 0;
  std::chrono::nanoseconds most_{0};
};

struct tally {
  std::uint64_t repeated = 0, fresh = 0, bad = 0;
  std::uint64_t accepted = 0, too_early = 0, unavailable = 0;                // of good tokens
  std::uint64_t refused = 0, bad_unavailable = 0;                            // of bad ones
  std::uint64_t judged_withdrawn = 0, judged_ended = 0;                      // among them
  std::uint64_t bad_accepted = 0, refused_published = 0, refused_known = 0;  // wrong answers
  durations took;                                                            // of good tokens that were accepted

  void add(const tally& other) {
    for (auto member : {&tally::repeated, &tally::fresh, &tally::bad, &tally::accepted, &tally::too_early,
                        &tally::unavailable, &tally::refused, &tally::bad_unavailable, &tally::judged_withdrawn,
                        &tally::judged_ended, &tally::bad_accepted, &tally::refused_published, &tally::refused_known})
      this->*member += other.*member;
    took.add(other.took);
  }
  std::uint64_t verified() const { return repeated + fresh + bad; }
  std::uint64_t wrong() const { return bad_accepted + refused_published + refused_known; }
};

answer verify(const axioms::token_verifier& verifier, const std::string& text) { return verifier.verify(text); }
answer verify(const axioms::async_token_verifier& verifier, const std::string& text) {
  const auto into = std::make_shared<std::promise<answer>>();
  auto came = into->get_future();
  verifier.async_verify(text, [into](answer what) { into->set_value(std::move(what)); });
  return came.get();
}

// What the threads share.
struct stage {
  test_support::throwaway_ca ca;
  provider idp{ca};
  std::mutex mutex;  // guards now
  std::shared_ptr<const epoch> now;
  std::atomic<std::uint64_t> rotations{0};
  std::atomic<bool> over{false};

  std::shared_ptr<const epoch> current() {
    const std::lock_guard lock(mutex);
    return now;
  }
};

template <class Verifier>
class client {
 public:
  client(stage& on, const Verifier& verifier, std::uint64_t seed) : on_(on), verifier_(verifier), random_(seed) {}

  void run() {
    std::uint64_t seen = 0;
    while (!on_.over) {
      if (const auto newest = on_.rotations.load(); newest != seen || !keys_) {
        seen = newest;
        keys_ = on_.current();
      }
      const auto dice = below(1000);
      if (dice < 900) {
        ++counted.repeated;
        const key_ptr& by = any(keys_->signers);
        present(*by, any(below(10) == 0 ? by->brief : by->lasting));
      } else if (dice < 990) {
        ++counted.fresh;
        const key_ptr& by = any(keys_->signers);
        present(*by, by->make(3600));
      } else {
        ++counted.bad;
        keys_->quiet ? present_quiet_bad() : present_loud_bad();
      }
    }
  }
  tally counted;

 private:
  std::uint64_t below(std::uint64_t end) { return random_() % end; }
  template <class T>
  const T& any(const std::vector<T>& list) {
    return list[below(list.size())];
  }
  void wrong(std::uint64_t& count, std::string_view what, const answer& came) {
    if (++count > 5) return;
    std::printf("WRONG: %.*s: %s\n", static_cast<int>(what.size()), what.data(),
                came ? "accepted"
                     : axioms::detail::concat(to_string(came.error().code), ": ", came.error().description).c_str());
  }

  // Of a key that is published: good until its end.
  void present(const key& by, const token& what) {
    const bool known = by.known;
    const auto wall_before = std::chrono::system_clock::now();
    const auto before = steady::now();
    const answer came = verify(verifier_, what.text);
    const auto after = steady::now();
    if (wall_before >= at_wall(what.exp) + clock_tick) {
      ++counted.judged_ended;
      return judge_bad(came, "a token after its exp");
    }
    if (came) {
      ++counted.accepted;
      return counted.took.add(after - before);
    }
    if (std::chrono::system_clock::now() >= at_wall(what.exp) || by.withdrawn) return;  // while we asked
    const bool unauthorized = came.error().status_code() == 401;
    if (known) return wrong(counted.refused_known, "a good token of a known key", came);
    if (unauthorized && before >= by.published + publication_known)
      return wrong(counted.refused_published, "a good token of a key that was published over 1 s ago", came);
    ++(unauthorized ? counted.too_early : counted.unavailable);
  }
  void judge_bad(const answer& came, std::string_view what) {
    if (came) return wrong(counted.bad_accepted, what, came);
    ++(came.error().status_code() == 401 ? counted.refused : counted.bad_unavailable);
  }
  void present_bad(const std::string& text, std::string_view what) { judge_bad(verify(verifier_, text), what); }

  // What is refused without asking the provider.
  void present_quiet_bad() {
    const key_ptr& by = any(keys_->signers);
    const std::int64_t now = wall_seconds();
    switch (below(5)) {
      case 0: return present_bad(by->signer.token(claims(issuer, audience, now - 2)), "an expired token");
      case 1:
        return present_bad(by->signer.token(claims(issuer, "https://other.example", now + 3600)), "a foreign aud");
      case 2:
        return present_bad(by->signer.token(claims("https://other.example", audience, now + 3600)), "a foreign iss");
      case 3: {
        std::string text = by->signer.sign(R"({"alg":"none","typ":"at+jwt"})", claims(issuer, audience, now + 3600));
        text.resize(text.rfind('.') + 1);
        return present_bad(text, "no signature");
      }
      default: return present_withdrawn();
    }
  }
  // And what is not.
  void present_loud_bad() {
    const key_ptr& by = any(keys_->signers);
    const std::string& good = any(by->lasting).text;
    std::string text = good;
    const std::size_t signature = good.rfind('.') + 1;
    switch (below(5)) {
      case 0:
        text[signature + below(good.size() - signature - 4)] ^= 1;  // another letter, or a byte that is none
        return present_bad(text, "a signature with another bit");
      case 1: {
        const std::string other = by->signer.token(claims(issuer, audience, wall_seconds() + 7200));
        return present_bad(other.substr(0, other.rfind('.') + 1) + good.substr(signature),
                           "the signature of another token");
      }
      case 2: return present_bad(forge(by->signer.kid()), "a foreign key under a published kid");
      case 3: return present_bad(forge("made-up-" + std::to_string(random_())), "a made-up kid");
      default: return present_quiet_bad();
    }
  }
  std::string forge(const std::string& kid) {
    return stray_.sign(R"({"alg":"ES256","typ":"at+jwt","kid":")" + kid + "\"}",
                       claims(issuer, audience, wall_seconds() + 3600));
  }
  void present_withdrawn() {
    if (!keys_->withdrawn) return;
    const bool gone = keys_->withdrawn->gone;
    const answer came = verify(verifier_, any(keys_->withdrawn->lasting).text);
    if (!gone) return;  // either answer is right
    ++counted.judged_withdrawn;
    judge_bad(came, "a token of a withdrawn key");
  }

  stage& on_;
  const Verifier& verifier_;
  std::mt19937_64 random_;
  std::shared_ptr<const epoch> keys_;
  support::signing_key stray_{"ES256", "stray"};
};

// Rotates the keys and lets the provider fail, by the real clock.
class conductor {
 public:
  explicit conductor(stage& on, std::uint64_t seed) : on_(on), random_(seed) {
    for (int i = 0; i < 3; ++i) add();
    show(nullptr, false);
    begin_period(steady::now());
  }
  void tick() {
    const auto now = steady::now();
    if (!failing_) {
      const auto told = now - refresh_known;
      for (const key_ptr& each : published_) each->known = each->known || told >= std::max(answering_, each->published);
      if (withdrawn_ && told >= std::max(answering_, withdrawn_->withdrawn_at)) withdrawn_->gone = true;
    }
    if (now >= period_ + period) {
      rotate();
      begin_period(period_ + period);
    }
    const bool fails = now >= fails_from_ && now < fails_from_ + failing;
    if (fails == failing_) return;
    failing_ = fails;
    on_.idp.set(fails ? static_cast<provider::mode>(1 + random_() % 4) : provider::mode::answers);
    if (!fails) failed_ += now - fails_from_;
    answering_ = now;
  }
  int rotations() const { return rotations_; }
  steady::duration failed() const { return failing_ ? failed_ + (steady::now() - fails_from_) : failed_; }

 private:
  void add() {
    static constexpr std::array algs{"RS256", "ES256", "PS256", "EdDSA"};
    const int number = made_++;
    published_.push_back(
        std::make_shared<key>(algs[static_cast<std::size_t>(number) % 4], "key-" + std::to_string(number)));
  }
  void rotate() {
    ++rotations_;
    add();
    const key_ptr oldest = published_.front();
    published_.erase(published_.begin());
    oldest->withdrawn = true;
    show(oldest, rotations_ % 2 == 1);
  }
  void show(const key_ptr& withdrawn, bool quiet) {
    std::vector<const support::signing_key*> signers;
    for (const key_ptr& each : published_) signers.push_back(&each->signer);
    // Others that come and go with each rotation: whoever keeps an old set is seen in memory.
    std::vector<support::signing_key> others;
    for (int i = 0; i < 32; ++i)
      others.emplace_back("ES256", "other-" + std::to_string(made_) + '-' + std::to_string(i));
    for (const support::signing_key& each : others) signers.push_back(&each);
    on_.idp.publish(support::set_of_keys(signers));
    const auto now = steady::now();
    for (const key_ptr& each : published_) {
      // Nobody sees a new one yet.
      if (each->published == steady::time_point::max()) each->published = now;
    }
    if (withdrawn) withdrawn->withdrawn_at = now;
    withdrawn_ = withdrawn;
    const auto next = std::make_shared<epoch>();
    next->published = next->signers = published_;
    if (quiet) next->signers.pop_back();
    next->withdrawn = withdrawn;
    next->quiet = quiet;
    const std::lock_guard lock(on_.mutex);
    on_.now = next;
    ++on_.rotations;
  }
  // In a quiet period the block comes early or late, so that the provider answers long enough beside it to be judged.
  void begin_period(steady::time_point now) {
    period_ = now;
    const bool quiet = rotations_ % 2 == 1;
    constexpr auto room = period - failing;
    const auto early = std::chrono::milliseconds(random_() % 300);
    const auto any = std::chrono::milliseconds(random_() % static_cast<std::uint64_t>(room.count()));
    fails_from_ = period_ + (!quiet ? any : random_() % 2 == 0 ? early : room - early);
  }

  stage& on_;
  std::mt19937_64 random_;
  std::vector<key_ptr> published_;
  key_ptr withdrawn_;
  steady::time_point period_, fails_from_, answering_ = steady::now();
  steady::duration failed_{0};
  bool failing_ = false;
  int made_ = 0, rotations_ = 0;
};

// What /proc tells, once a second.
class memory_log {
 public:
  void sample() {
    std::ifstream statm("/proc/self/statm");
    std::size_t all = 0, resident = 0;
    statm >> all >> resident;
    pages_.push_back(resident);
    descriptors_ = std::max(descriptors_, test_support::open_descriptors());
  }
  // Median of a quarter, in MiB.
  double quarter(std::size_t which) const {
    const std::size_t size = pages_.size() / 4;
    std::vector<std::size_t> part(pages_.begin() + static_cast<std::ptrdiff_t>(which * size),
                                  pages_.begin() + static_cast<std::ptrdiff_t>((which + 1) * size));
    std::nth_element(part.begin(), part.begin() + static_cast<std::ptrdiff_t>(size / 2), part.end());
    return static_cast<double>(part[size / 2]) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1048576;
  }
  int descriptors() const { return descriptors_; }

 private:
  std::vector<std::size_t> pages_;
  int descriptors_ = 0;
};

double share(std::uint64_t part, std::uint64_t of) {
  return of == 0 ? 0 : 100 * static_cast<double>(part) / static_cast<double>(of);
}

// The rows for README; true if all is well.
bool report(const tally& sum, const axioms::jwks_stats& stats, const conductor& keys, const memory_log& memory,
            std::string_view kind, int seconds, std::uint64_t seed) {
  const auto ull = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
  const double failed = std::chrono::duration<double>(keys.failed()).count();
  const double grown = memory.quarter(3) - memory.quarter(1);
  std::printf("| soak, %.*s verifier | %d s, 2 threads, seed %llu |\n|---|---|\n", static_cast<int>(kind.size()),
              kind.data(), seconds, ull(seed));
  std::printf("| tokens verified | %llu, %.0f a second: %.1f %% repeated, %.1f %% new, %.1f %% bad |\n",
              ull(sum.verified()), static_cast<double>(sum.verified()) / seconds, share(sum.repeated, sum.verified()),
              share(sum.fresh, sum.verified()), share(sum.bad, sum.verified()));
  std::printf("| rotations; provider failing | %d; %.0f %% of the time |\n", keys.rotations(), 100 * failed / seconds);
  std::printf("| fetches: new content, confirmed, failed | %llu, %llu, %llu |\n", ull(stats.fetched),
              ull(stats.not_modified), ull(stats.failed));
  std::printf("| good tokens: accepted; 401 in the first second of a key; 503 in an outage | %llu; %llu; %llu |\n",
              ull(sum.accepted), ull(sum.too_early), ull(sum.unavailable));
  std::printf("| time until accepted: median, 99 %%, 99.99 %%, longest | %.2f us, %.0f us, %.0f us, %.1f ms |\n",
              sum.took.microseconds(0.5), sum.took.microseconds(0.99), sum.took.microseconds(0.9999),
              sum.took.most() / 1000);
  std::printf("| bad tokens: 401; 503 | %llu; %llu |\n", ull(sum.refused), ull(sum.bad_unavailable));
  std::printf("| of them with a withdrawn key; that ended while in use | %llu; %llu |\n", ull(sum.judged_withdrawn),
              ull(sum.judged_ended));
  std::printf(
      "| wrong: bad accepted; 401 for a key published over 1 s ago; 401 or 503 for a known key | %llu; %llu; %llu |\n",
      ull(sum.bad_accepted), ull(sum.refused_published), ull(sum.refused_known));
  std::printf("| resident memory, median of each quarter | %.1f, %.1f, %.1f, %.1f MiB |\n", memory.quarter(0),
              memory.quarter(1), memory.quarter(2), memory.quarter(3));
  std::printf("| descriptors at most | %d |\n", memory.descriptors());

  const bool empty = sum.accepted == 0 || sum.refused == 0 || sum.judged_ended == 0 || sum.judged_withdrawn == 0;
  if (empty) std::printf("RED: something was never put to the test\n");
  if (sum.wrong() > 0) std::printf("RED: %llu wrong answers\n", ull(sum.wrong()));
  // Sanitizers keep memory of their own.
  const bool leaks = grown > 1 && support::slowness == 1;
  if (leaks) std::printf("RED: memory grew by %.1f MiB, more than 1 MiB\n", grown);
  return !empty && !leaks && sum.wrong() == 0;
}

template <class Manager>
axioms::jwks_stats run_clients(stage& on, Manager& manager, conductor& keys, memory_log& memory, tally& sum,
                               int seconds, std::uint64_t seed) {
  axioms::token_rules rules;
  rules.issuer = issuer;
  rules.audience = {std::string(audience)};
  rules.leeway = 0s;
  rules.memo = 4096;
  const axioms::basic_token_verifier<Manager> verifier(manager, rules);
  using client_type = client<axioms::basic_token_verifier<Manager>>;
  std::array<client_type, 2> clients{client_type(on, verifier, seed + 1), client_type(on, verifier, seed + 2)};
  std::vector<std::thread> threads;
  for (client_type& each : clients) threads.emplace_back([&each] { each.run(); });

  const auto end = steady::now() + std::chrono::seconds(seconds);
  for (auto sample = steady::now(); steady::now() < end; std::this_thread::sleep_for(5ms)) {
    keys.tick();
    if (steady::now() >= sample) {
      memory.sample();
      sample += 1s;
    }
  }
  on.over = true;
  on.idp.set(provider::mode::answers);
  for (std::thread& each : threads) each.join();
  for (const client_type& each : clients) sum.add(each.counted);
  return manager.stats();
}

axioms::jwks_config config_for(const provider& idp, std::uint64_t seed) {
  axioms::jwks_config out;
  out.jwks_url = idp.url();
  out.require_https = true;
  out.refresh_interval = refresh_interval;
  out.cache_ttl = 4s;
  out.outage_window = 10s;
  out.fetch_timeout = fetch_timeout;
  out.backoff_initial = 100ms;
  out.backoff_max = backoff_max;
  out.unknown_kid_interval = 100ms;
  const auto random = std::make_shared<std::pair<std::mutex, std::mt19937_64>>();
  random->second.seed(seed);
  out.random = [random] {
    const std::lock_guard lock(random->first);
    return random->second();
  };
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  doctest::Context asserts;  // of what makes the tokens
  asserts.setAsDefaultForAssertsOutOfTestCases();
  asserts.setAssertHandler([](const doctest::AssertData& data) {
    if (data.m_failed) std::abort();
  });
  const int seconds = argc > 2 ? std::atoi(argv[1]) : 0;
  const std::string_view kind = argc > 2 ? argv[2] : "";
  if (seconds < 10 || (kind != "blocking" && kind != "async")) {
    std::fprintf(stderr, "usage: soak SECONDS blocking|async [SEED], of at least 10 seconds\n");
    return 2;
  }
  const std::uint64_t seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : std::random_device{}();

  stage on;
  conductor keys(on, seed);
  memory_log memory;
  const auto sum = std::make_unique<tally>();
  axioms::jwks_stats stats;
  const auto config = config_for(on.idp, seed);
  axioms::httplib_fetcher fetcher(test_support::trusting(on.ca));
  if (kind == "blocking") {
    axioms::jwks_manager manager(std::move(fetcher));
    if (auto begun = manager.initialize(config); !begun) return std::puts(begun.error().description.c_str()), 2;
    stats = run_clients(on, manager, keys, memory, *sum, seconds, seed);
  } else {
    axioms::async_jwks_manager manager(std::move(fetcher));
    std::promise<bool> begun;
    manager.async_initialize(config, [&](axioms::result<void> how) { begun.set_value(how.has_value()); });
    if (!begun.get_future().get()) return 2;
    stats = run_clients(on, manager, keys, memory, *sum, seconds, seed);
  }
  return report(*sum, stats, keys, memory, kind, seconds, seed) ? 0 : 1;
}
