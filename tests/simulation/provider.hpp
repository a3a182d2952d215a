// The one provider of the simulation: which keys it publishes when, and what it answers at which moment.
#ifndef AXIOMS_JWKS_TESTS_SIMULATION_PROVIDER_HPP
#define AXIOMS_JWKS_TESTS_SIMULATION_PROVIDER_HPP

#include "axioms_jwks.hpp"
#include "vectors/keys.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace simulation {

using namespace std::chrono_literals;
using axioms::detail::judge;
using axioms::detail::steady_point;
using axioms::detail::verdict;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// Virtual time since the beginning, in whole milliseconds; all that the policy adds to it is whole milliseconds too.
using instant = milliseconds;

inline constexpr instant never = instant::max();
inline constexpr steady_point origin{1000h};
inline constexpr std::chrono::system_clock::time_point wall_origin{seconds(1767571200)};  // 2026-01-05, midnight

[[nodiscard]] constexpr steady_point at(instant t) { return origin + t; }
[[nodiscard]] constexpr instant from(steady_point t) {
  return t == steady_point::max() ? never : std::chrono::duration_cast<milliseconds>(t - origin);
}

/// splitmix64: all chance of the simulation comes from it.
struct dice {
  std::uint64_t state = 0;

  std::uint64_t operator()() noexcept {
    std::uint64_t z = state += 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  /// Uniform in [least, most].
  milliseconds between(milliseconds least, milliseconds most) noexcept {
    const auto span = static_cast<std::uint64_t>((most - least).count()) + 1;
    return least + milliseconds(static_cast<std::int64_t>((*this)() % span));
  }
};

[[noreturn]] inline void give_up(std::string_view why) {
  std::fprintf(stderr, "the simulation cannot go on: %.*s\n", static_cast<int>(why.size()), why.data());
  std::exit(2);
}

// ---- what may happen ------------------------------------------------------------------------------

enum class ailment {
  outage,            // no answer: some connections are refused, others hang
  too_many,          // 429 with Retry-After in seconds
  too_many_by_date,  // 429 with Retry-After as a date: the same for everybody
  bad_publish,       // 200 with a page, or a key set without a usable key
  slow               // answers come after 5 to 15 s, most of them later than fetch_timeout
};

struct trouble {
  ailment what{};
  instant begin{}, end{};
  std::string_view name;

  [[nodiscard]] bool holds(instant t) const { return begin <= t && t < end; }
};

struct published_key {
  std::string kid;
  instant from{}, withdrawn = never;
  instant signs_from = never, signs_until = never;  // never: a spare key
};

struct scenario {
  std::string_view name;
  instant length{};
  std::vector<instant> rotations;
  instant lead{};                  // a new key is published so long before it signs
  std::optional<seconds> max_age;  // Cache-Control
  std::vector<trouble> troubles;
  std::vector<instant> withdrawals;  // of a spare key, while everything else goes on
  instant lookup_least{45s}, lookup_most{75s};
  bool attacks = true;
};

inline constexpr milliseconds latency_least{50}, latency_most{300};
inline constexpr milliseconds slow_least{5000}, slow_most{15000};
inline constexpr milliseconds stop_takes{50};  // what a fetcher may take to obey a stop
inline constexpr seconds token_life{300};
inline constexpr seconds asked_retry_after{600};

// ---- the provider ---------------------------------------------------------------------------------

/// What a request gets, and when.
struct reply {
  instant lands{};
  const verdict* what = nullptr;
};

class provider {
 public:
  explicit provider(const scenario& play) : play_(play) {
    plan_keys();
    plan_documents();
    failures();
    requests_.resize(static_cast<std::size_t>(std::chrono::ceil<seconds>(play.length).count()) + 3600);
  }

  [[nodiscard]] const std::vector<published_key>& keys() const { return keys_; }
  /// The key that signs at t.
  [[nodiscard]] std::size_t signer(instant t) const { return signer_[index(rotations_, t)]; }
  [[nodiscard]] instant next_rotation(instant t) const {
    const auto next = std::upper_bound(rotations_.begin(), rotations_.end(), t);
    return next == rotations_.end() ? never : *next;
  }
  [[nodiscard]] bool lists(std::size_t document, std::size_t key) const {
    return (documents_[document].keys >> key & 1U) != 0;
  }
  [[nodiscard]] std::uint64_t keys_of(std::size_t document) const { return documents_[document].keys; }
  /// As it was parsed: what a manager serves.
  [[nodiscard]] const axioms::jwk_set& set_of(std::size_t document) const {
    return documents_[document].full.content->keys;
  }
  /// The document that an answer brought.
  [[nodiscard]] int document_of(const verdict& what) const {
    for (std::size_t i = 0; i < documents_.size(); ++i) {
      if (documents_[i].full.content == what.content) return static_cast<int>(i);
    }
    give_up("an answer brought a document that nobody published");
  }
  [[nodiscard]] const trouble* ails(instant t) const {
    for (const auto& each : play_.troubles) {
      if (each.holds(t)) return &each;
    }
    return nullptr;
  }

  /// A request that leaves its core now. has: the document whose ETag it bears, or -1. hangs: its connections do in an
  /// outage.
  reply ask(instant now, int has, bool hangs, milliseconds fetch_timeout, dice& random) {
    milliseconds latency = random.between(latency_least, latency_most);
    const instant arrives = now + latency / 2;
    const auto second = static_cast<std::size_t>(std::chrono::floor<seconds>(arrives).count());
    if (second < requests_.size()) ++requests_[second];
    const trouble* ill = ails(arrives);
    const auto document = index(changes_, arrives);
    const verdict& good = has == static_cast<int>(document) ? documents_[document].same : documents_[document].full;
    if (ill == nullptr) return {now + latency, &good};
    switch (ill->what) {
      case ailment::outage:
        if (hangs) return {now + fetch_timeout + stop_takes, &timed_out_};
        return {now + latency, &refused_};
      case ailment::too_many: return {now + latency, &too_many_};
      case ailment::too_many_by_date: return {now + latency, &by_date(now + latency, ill->end)};
      case ailment::bad_publish: return {now + latency, &garbage_[random() % garbage_.size()]};
      case ailment::slow: break;
    }
    latency = random.between(slow_least, slow_most);
    return {now + latency, &good};
  }

  /// Requests that reached it, or would have, per second.
  [[nodiscard]] const std::vector<std::uint32_t>& requests() const { return requests_; }

 private:
  struct edition {
    std::uint64_t keys = 0;
    verdict full, same;
  };

  static std::size_t index(const std::vector<instant>& changes, instant t) {
    return static_cast<std::size_t>(std::upper_bound(changes.begin(), changes.end(), t) - changes.begin()) - 1;
  }

  void plan_keys() {
    rotations_ = {instant::min()};
    rotations_.insert(rotations_.end(), play_.rotations.begin(), play_.rotations.end());
    for (std::size_t i = 0; i < rotations_.size(); ++i) {
      const bool last = i + 1 == rotations_.size();
      const instant until = last ? never : rotations_[i + 1];
      signer_.push_back(keys_.size());
      // It stays as long as there are tokens that it signed.
      keys_.push_back({"signing-" + std::to_string(i), i == 0 ? instant::min() : rotations_[i] - play_.lead,
                       last ? never : until + token_life, rotations_[i], until});
    }
    for (const instant end : play_.withdrawals) {
      keys_.push_back({"spare-" + std::to_string(keys_.size()), instant::min(), end, never, never});
    }
    if (keys_.size() > 64) give_up("too many keys");
  }

  void plan_documents() {
    changes_ = {instant::min()};
    for (const auto& key : keys_) {
      if (key.from != instant::min()) changes_.push_back(key.from);
      if (key.withdrawn != never) changes_.push_back(key.withdrawn);
    }
    std::sort(changes_.begin(), changes_.end());
    changes_.erase(std::unique(changes_.begin(), changes_.end()), changes_.end());
    for (std::size_t i = 0; i < changes_.size(); ++i) documents_.push_back(publish(changes_[i], i));
  }

  // Real JSON, accepted by the real rule once for all cores.
  edition publish(instant since, std::size_t number) const {
    edition out;
    axioms::fetch_response response;
    response.status = 200;
    response.body = R"({"keys":[)";
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (keys_[i].from > since || keys_[i].withdrawn <= since) continue;
      if (out.keys != 0) response.body += ',';
      out.keys |= std::uint64_t{1} << i;
      const std::string_view material = i % 2 == 0 ? vectors::p256_jwk : vectors::ed25519_jwk;
      response.body += R"({"kid":")" + keys_[i].kid + R"(",)";
      response.body += material.substr(1);
    }
    response.body += "]}";
    response.headers.emplace_back("ETag", '"' + std::to_string(number) + '"');
    if (play_.max_age)
      response.headers.emplace_back("Cache-Control", "max-age=" + std::to_string(play_.max_age->count()));
    out.full = judge(request(), response, wall_origin);
    if (out.full.what != verdict::kind::document) give_up("a good key set was not accepted");
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (out.full.content->keys.contains(keys_[i].kid) != ((out.keys >> i & 1U) != 0))
        give_up("a key set was misread");
    }
    auto conditional = request();
    conditional.etag = out.full.etag;
    response.status = 304;
    response.body.clear();
    out.same = judge(conditional, response, wall_origin);
    if (out.same.what != verdict::kind::not_modified) give_up("a 304 was not accepted");
    return out;
  }

  void failures() {
    refused_ = judge(request(), axioms::error{axioms::errc::connect_failed, "connection refused", 0}, wall_origin);
    timed_out_ = judge(request(), axioms::error{axioms::errc::timed_out, "told to stop", 0}, wall_origin);
    axioms::fetch_response response;
    response.status = 429;
    response.headers = {{"Retry-After", std::to_string(asked_retry_after.count())}};
    too_many_ = judge(request(), response, wall_origin);
    if (too_many_.retry_after != asked_retry_after) give_up("Retry-After was misread");
    response.status = 200;
    response.headers = {{"Content-Type", "text/html"}};
    response.body = "<!DOCTYPE html><title>Sign in</title>";
    garbage_[0] = judge(request(), response, wall_origin);
    response.body = R"({"keys":[{"kty":"oct","kid":"signing-0","k":"AAAA"}]})";
    garbage_[1] = judge(request(), response, wall_origin);
    for (const auto& each : garbage_) {
      if (each.what != verdict::kind::failure) give_up("a page was taken for a key set");
    }
  }

  // One per second: that is as fine as the header's value.
  const verdict& by_date(instant now, instant until) {
    const auto second = std::chrono::floor<seconds>(now);
    auto& known = by_date_[second.count()];
    if (!known) {
      axioms::fetch_response response;
      response.status = 429;
      response.headers = {{"Retry-After", http_date(std::chrono::ceil<seconds>(until))}};
      known = judge(request(), response, wall_origin + second);
      if (!known->retry_after) give_up("a date in Retry-After was misread");
    }
    return *known;
  }

  static std::string http_date(seconds t) {
    static constexpr std::array<const char*, 7> days{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    const auto when = std::chrono::floor<seconds>(wall_origin) + t;
    const auto day = std::chrono::floor<std::chrono::days>(when);
    const std::chrono::year_month_day date(day);
    if (date.month() != std::chrono::January) give_up("the simulation knows January only");
    const auto of_day = static_cast<int>((when - day).count());
    std::array<char, 64> out{};
    std::snprintf(out.data(), out.size(), "%s, %02u Jan %04d %02d:%02d:%02d GMT",
                  days[std::chrono::weekday(day).c_encoding()], static_cast<unsigned>(date.day()),
                  static_cast<int>(date.year()), of_day / 3600, of_day / 60 % 60, of_day % 60);
    return out.data();
  }

  static axioms::fetch_request request() {
    axioms::fetch_request out;
    out.url = "https://idp.example.com/jwks.json";
    return out;
  }

  const scenario& play_;
  std::vector<published_key> keys_;
  std::vector<instant> rotations_;   // the first is the beginning
  std::vector<std::size_t> signer_;  // since each of them
  std::vector<instant> changes_;     // of the document
  std::vector<edition> documents_;   // since each of them
  verdict refused_, timed_out_, too_many_;
  std::array<verdict, 2> garbage_;
  std::map<std::int64_t, std::optional<verdict>> by_date_;
  std::vector<std::uint32_t> requests_;
};

}  // namespace simulation

#endif
