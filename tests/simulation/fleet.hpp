// Many policy cores and what stands round each of them in a manager, on a virtual clock in one thread.
//
// The driver does what detail::engine does, in its order: decide, conclude, begin_flight, receive, settle, tick. It
// decides nothing about time, retries or acceptance. What it checks it works out by itself,
// from what it saw, not from what the core says.
#ifndef AXIOMS_JWKS_TESTS_SIMULATION_FLEET_HPP
#define AXIOMS_JWKS_TESTS_SIMULATION_FLEET_HPP

#include "simulation/provider.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <map>

namespace simulation {

using axioms::jwks_config;
using axioms::detail::refresh_policy;

// ---- what comes out -------------------------------------------------------------------------------

/// Why a lookup got no key.
enum class reason { nothing_cached, kid_unreachable, kid_timed_out, kid_throttled, kid_not_found };
inline constexpr std::size_t reasons = 5;
inline constexpr std::array<std::string_view, reasons> reason_names{
    "nothing cached", "unknown kid, provider in trouble", "unknown kid, waited too long", "unknown kid, no budget",
    "unknown kid, not found"};

/// Breaches of a rule: the first one and how many.
class breaches {
 public:
  void expect(bool holds, std::string_view sentence, instant when) {
    if (holds) return;
    auto& [count, first] = seen_[std::string(sentence)];
    if (count++ == 0) first = when;
  }
  [[nodiscard]] const auto& all() const { return seen_; }

 private:
  std::map<std::string, std::pair<std::uint64_t, instant>> seen_;
};

struct figures {
  std::uint64_t lookups = 0, hits = 0, stale = 0, waited = 0;
  std::array<std::uint64_t, reasons> failed{};
  std::uint64_t failed_after_comeback = 0;  // of kid_unreachable: the provider was well again, the core held back
  instant refused_after_comeback{0};        // the longest after an outage or a bad publish that this happened
  std::uint64_t first_fetch_failed = 0;     // of nothing_cached: the core had never had a document
  std::uint64_t attacks = 0;
  std::array<std::uint64_t, reasons> attacks_refused{};
  std::uint64_t by_timer = 0, by_lookup = 0, by_kid = 0;  // flights
  std::uint64_t published = 0, confirmed = 0, failures = 0, dropped = 0, late_but_good = 0;
  instant longest_wait{0}, oldest_served{0};
  instant withdrawn_fair{0}, withdrawn_troubled{0};  // how long after its withdrawal a key was still served
  instant unknown_fair{0}, unknown_attacked{0}, unknown_troubled{0};  // from the first lookup in vain to its arrival
  instant unknown_after_comeback{0};         // of the last, from the trouble's end on, in a core that nobody attacks
  std::uint64_t unknown = 0;                 // how often a core asked for a new key in vain
  std::uint64_t told_to_wait = 0;            // by a date in Retry-After
  std::uint64_t attacked_requests_most = 0;  // of one attacked core
};

// ---- cores ----------------------------------------------------------------------------------------

struct lookup {
  std::uint64_t kid = 0;  // number of a key; of an attack's: made up
  instant asked{}, deadline = never;
  bool attack = false, prefetch = false;
  bool refetching = false;
  std::uint64_t newest = 0;  // the newest flight when it began to wait
};

/// From one refresh to the next, at most: the provider may ask for sooner.
[[nodiscard]] inline milliseconds interval(const scenario& play, const jwks_config& config) {
  if (!play.max_age) return config.refresh_interval;
  return std::min(config.refresh_interval, std::max(*play.max_age, config.min_refresh_interval));
}

/// A bucket of its own, in exact arithmetic: never more than `burst` at once, one more per `interval`.
class exact_bucket {
 public:
  bool take(instant now, int burst, milliseconds interval) {
    if (now < full_at_ - interval * (burst - 1)) return false;
    full_at_ = std::max(full_at_, now) + interval;
    return true;
  }

 private:
  instant full_at_{std::chrono::hours(-24)};
};

struct core {
  explicit core(const jwks_config& config) : policy(config) {}

  refresh_policy policy;
  dice random;
  bool hangs = false, attacked = false;
  instant started{}, first_lookup{};
  milliseconds period{};

  int document = -1;  // that it serves
  instant published = never;
  std::uint64_t flight = 0;  // in the air and not given up
  int basis = -1;
  instant begun{};
  instant told_until{0};
  std::vector<lookup> waiters;
  std::size_t kid_waiters = 0;

  std::int64_t next = 0;                                   // the first lookup that is not counted yet
  instant wake_at = never, lookup_at = never;              // when it is due
  instant wake_queued = never, lookup_queued = never;      // what stands in the queue: not later than that
  std::vector<std::pair<std::uint64_t, instant>> in_vain;  // kids of the provider's, since when
  exact_bucket budget;
  std::uint64_t requests = 0;
};

// ---- what is to come -------------------------------------------------------------------------------

enum class happening : std::uint8_t { start, lookup, attack, landing, wake };

struct event {
  instant when{};
  std::uint64_t order = 0;  // first come, first served
  std::uint32_t who = 0;
  happening what{};
  int basis = -1;
  std::uint64_t flight = 0;
  const verdict* brought = nullptr;
};

/// A bucket per second, and a heap of the present second: there are far more events than fit into the caches.
class agenda {
 public:
  explicit agenda(instant end) : buckets_(static_cast<std::size_t>(std::chrono::ceil<seconds>(end).count())) {}

  void push(event what) {
    what.order = ++order_;
    const auto second = static_cast<std::size_t>(what.when / 1s);
    if (second >= buckets_.size()) return;  // after the end
    if (second > second_) {
      buckets_[second].push_back(what);
    } else {
      heap_.push_back(what);
      std::push_heap(heap_.begin(), heap_.end(), later);
    }
  }
  [[nodiscard]] std::optional<event> pop() {
    while (heap_.empty()) {
      if (++second_ >= buckets_.size()) return std::nullopt;
      heap_ = std::move(buckets_[second_]);
      buckets_[second_] = {};
      std::make_heap(heap_.begin(), heap_.end(), later);
    }
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const event out = heap_.back();
    heap_.pop_back();
    return out;
  }

 private:
  static bool later(const event& a, const event& b) { return a.when != b.when ? a.when > b.when : a.order > b.order; }

  std::vector<std::vector<event>> buckets_;
  std::vector<event> heap_;
  std::size_t second_ = 0;
  std::uint64_t order_ = 0;
};

class fleet {
 public:
  fleet(const scenario& play, provider& idp, const jwks_config& config, std::size_t cores, std::uint64_t seed)
      : play_(play),
        idp_(idp),
        config_(config),
        hard_(config.cache_ttl + config.outage_window),
        seed_(seed),
        agenda_(play.length) {
    for (const auto& key : idp_.keys()) {
      gone_by_.push_back(key.withdrawn == never ? never : withdrawal_bound(key.withdrawn));
      fair_.push_back(key.withdrawn == never || gone_by_.back() == key.withdrawn + fair_withdrawal());
    }
    populate(cores);
  }

  void run() {
    while (const auto next = agenda_.pop()) happen(*next);
    for (auto& each : cores_) {
      if (each.started < play_.length) flush(each, play_.length);
      if (each.attacked) figures_.attacked_requests_most = std::max(figures_.attacked_requests_most, each.requests);
    }
  }

  [[nodiscard]] const figures& result() const { return figures_; }
  breaches& broken() { return broken_; }

  // ---- bounds that the rules give ------------------------------------------------------------------

  /// How long after a trouble's end a core's background may still be held back: its last failure came fetch_timeout
  /// later at most (it hung), then it waits for its backoff, or as long as it was told to and up to backoff_max more,
  /// then for one fetch. (A date in Retry-After names the end, to the second.)
  [[nodiscard]] milliseconds recovery(const trouble& ill) const {
    milliseconds wait = config_.backoff_max;
    if (ill.what == ailment::too_many) wait += asked_retry_after;
    return config_.fetch_timeout + wait + latency_most;
  }
  /// How long after it a lookup of an unknown kid may still be refused: from the last failure on for
  /// unknown_kid_interval, or as long as the provider asked for.
  [[nodiscard]] milliseconds kid_recovery(const trouble& ill) const {
    milliseconds wait = config_.unknown_kid_interval;
    if (ill.what == ailment::too_many) wait = std::max<milliseconds>(wait, asked_retry_after);
    return config_.fetch_timeout + wait;
  }
  /// When a core has a key again that it asked for in vain since then. Its next lookup after kid_recovery() brings it,
  /// if all tokens are of that key by then; else the background does.
  [[nodiscard]] instant known_by(const trouble& ill, instant since) const {
    instant limit = ill.end + recovery(ill);
    if (since + token_life <= ill.end) limit = std::min(limit, ill.end + kid_recovery(ill) + play_.lookup_most);
    return std::max(since, limit);
  }
  /// Something was wrong in [since, until], or cores still suffered from it.
  [[nodiscard]] const trouble* troubled(instant since, instant until) const {
    for (const auto& ill : play_.troubles) {
      if (ill.begin - latency_most <= until && since <= ill.end + recovery(ill)) return &ill;
    }
    return nullptr;
  }
  /// The document was answered before the withdrawal and landed a latency later; one refresh_interval after that the
  /// next flight begins, and takes another.
  [[nodiscard]] milliseconds fair_withdrawal() const { return interval(play_, config_) + 2 * latency_most; }
  /// From an unknown kid to its key: one fetch, or two if the first was in the air before.
  [[nodiscard]] static milliseconds fair_unknown() { return 2 * latency_most; }
  /// With the budget used up: until there is a token again, until somebody asks (the attacker does, all the time), and
  /// as above.
  [[nodiscard]] milliseconds attacked_unknown() const {
    return config_.unknown_kid_interval + attack_gap + fair_unknown();
  }

  static constexpr milliseconds attack_gap{5000};
  static constexpr std::uint64_t attack_burst = 20;  // more than max_kid_waiters

 private:
  enum class cause { timer, lookup, kid };
  enum class step_end { served, wait, refused };

  void populate(std::size_t count) {
    dice random{seed_};
    cores_.reserve(count);
    const std::size_t together = std::min<std::size_t>(500, count / 20);
    const std::size_t unlucky = std::min<std::size_t>(20, count / 100);
    const std::size_t attacked = play_.attacks ? std::min<std::size_t>(10, count / 10) : 0;
    for (std::size_t i = 0; i < count; ++i) {
      core& each = cores_.emplace_back(config_);
      each.random.state = random();
      each.hangs = random() % 2 == 0;
      each.attacked = i >= count - attacked;
      each.started = random.between(0s, 1h - 1ms);
      if (i < together) each.started = 30min + random.between(0ms, 999ms);
      // A few begin their life in an outage.
      if (i >= together && i < together + unlucky) {
        for (const auto& ill : play_.troubles) {
          if (ill.what == ailment::outage && ill.end - ill.begin < 1h)
            each.started = ill.begin + 10min + random.between(0s, 60s);
        }
      }
      each.period = random.between(play_.lookup_least, play_.lookup_most);
      each.first_lookup = each.started + random.between(0ms, each.period);
      push({each.started, 0, static_cast<std::uint32_t>(i), happening::start});
      if (each.attacked) {
        push({each.started + random.between(0ms, attack_gap), 0, static_cast<std::uint32_t>(i), happening::attack});
      }
    }
  }

  void push(const event& what) { agenda_.push(what); }

  [[nodiscard]] instant withdrawal_bound(instant withdrawn) const {
    instant limit = withdrawn + fair_withdrawal();
    for (const auto& ill : play_.troubles) {  // in the order of time
      if (ill.begin - latency_most <= limit && ill.end >= withdrawn - latency_most)
        limit = std::max(limit, ill.end + recovery(ill));
    }
    return std::min(limit, withdrawn + latency_most + hard_);
  }

  // ---- events --------------------------------------------------------------------------------------

  void happen(const event& what) {
    core& on = cores_[what.who];
    const instant now = what.when;
    switch (what.what) {
      case happening::start: start(on, now); break;
      case happening::lookup:
        if (now != on.lookup_queued) return;  // an earlier one took its place
        on.lookup_queued = never;
        if (now < on.lookup_at) break;  // it was put off
        flush(on, now);
        look_up(on, now);
        break;
      case happening::attack: attack(on, now); break;
      case happening::landing: land(on, now, what); break;
      case happening::wake:
        if (now != on.wake_queued) return;
        on.wake_queued = never;
        if (now < on.wake_at) break;
        tick(on, now);
        // Red when: expire() waits for the time after the deadline.
        if (from(on.policy.next_wake()) <= now) {
          broken_.expect(false, "a core wanted to be woken again at once", now);
          on.wake_queued = now + 1s;
          push({on.wake_queued, 0, what.who, happening::wake});
          return;
        }
        break;
    }
    plan(on, now);
  }

  void start(core& on, instant now) {
    on.policy.plan_first(at(now + config_.refresh_interval));
    lookup who;
    who.asked = now;
    who.prefetch = true;
    submit(on, now, who);
  }

  void look_up(core& on, instant now) {
    lookup who;
    who.kid = signer_of(on, on.next, now);
    who.asked = now;
    ++on.next;
    ++figures_.lookups;
    submit(on, now, who);
  }

  void attack(core& on, instant now) {
    for (std::uint64_t i = on.random() % 8 == 0 ? attack_burst : 1; i > 0; --i) {
      lookup who;
      who.kid = on.random();
      who.asked = now;
      who.attack = true;
      ++figures_.attacks;
      submit(on, now, who);
    }
    push({now + attack_gap, 0, number(on), happening::attack});
  }

  [[nodiscard]] std::uint32_t number(const core& on) const { return static_cast<std::uint32_t>(&on - cores_.data()); }

  // Three of four tokens were issued just now, the others any time within their life.
  [[nodiscard]] std::size_t signer_of(const core& on, std::int64_t index, instant now) const {
    dice token{seed_ ^ (std::uint64_t{number(on)} << 40U) ^ static_cast<std::uint64_t>(index)};
    const std::uint64_t chance = token();
    const auto life = static_cast<std::uint64_t>(milliseconds(token_life).count()) + 1;
    const auto age = chance % 4 != 0 ? milliseconds(0) : milliseconds(static_cast<std::int64_t>((chance >> 2U) % life));
    return idp_.signer(now - age);
  }

  // ---- lookups that change nothing -----------------------------------------------------------------

  // A lookup that is answered `fresh`, of a kid that the document has, calls only const members of the policy. So those
  // before the document's expiry and before the next rotation are not events; they are counted when something happens.
  [[nodiscard]] instant quiet_until(const core& on, instant now) const {
    if (on.document < 0) return now;
    const auto document = static_cast<std::size_t>(on.document);
    if (!idp_.lists(document, idp_.signer(now)) || !idp_.lists(document, idp_.signer(now - token_life))) return now;
    return std::min(from(on.policy.expires_at()), idp_.next_rotation(now));
  }

  void plan(core& on, instant now) {
    const instant quiet = std::max(quiet_until(on, now), now);
    std::int64_t index = on.next;
    if (quiet > on.first_lookup + on.period * index) {
      index = (quiet - on.first_lookup + on.period - 1ms) / on.period;  // the first that is not before it
    }
    on.lookup_at = on.first_lookup + on.period * index;
    if (on.lookup_at < on.lookup_queued) {
      on.lookup_queued = on.lookup_at;
      push({on.lookup_at, 0, number(on), happening::lookup});
    }
    instant wake = from(on.policy.next_wake());
    for (const auto& who : on.waiters) wake = std::min(wake, who.deadline);
    on.wake_at = std::max(wake, now);
    if (on.wake_at < on.wake_queued) {
      on.wake_queued = on.wake_at;
      push({on.wake_at, 0, number(on), happening::wake});
    }
  }

  void flush(core& on, instant now) {
    const instant first = on.first_lookup + on.period * on.next;
    if (first >= now) return;
    const std::int64_t count = (now - first + on.period - 1ms) / on.period;
    const instant last = first + on.period * (count - 1);
    on.next += count;
    figures_.lookups += static_cast<std::uint64_t>(count);
    figures_.hits += static_cast<std::uint64_t>(count);
    broken_.expect(on.policy.ask(at(last)) == refresh_policy::answer::fresh,
                   "a lookup that was counted as a hit would not have been one", last);
    served(on, last);
  }

  // What is asserted about every document that a lookup gets.
  void served(const core& on, instant now) {
    const milliseconds age = now - on.published;
    figures_.oldest_served = std::max(figures_.oldest_served, age);
    // Red when: servable() allows twice the outage_window.
    broken_.expect(age < hard_, "a document was served past cache_ttl + outage_window", now);
    for (std::uint64_t left = idp_.keys_of(static_cast<std::size_t>(on.document)); left != 0; left &= left - 1) {
      const auto key = static_cast<std::size_t>(std::countr_zero(left));
      const instant withdrawn = idp_.keys()[key].withdrawn;
      if (withdrawn >= now) continue;
      instant& longest = fair_[key] ? figures_.withdrawn_fair : figures_.withdrawn_troubled;
      longest = std::max(longest, now - withdrawn);
      // Red when: succeed() plans the next refresh at twice the interval; backoff_max is 16 times as long.
      broken_.expect(now <= gone_by_[key], "a withdrawn key was served too long", now);
    }
  }

  // ---- the engine's part ---------------------------------------------------------------------------

  void submit(core& on, instant now, lookup who) {
    cause why = cause::lookup;
    switch (on.policy.ask(at(now))) {
      case refresh_policy::answer::fresh:
      case refresh_policy::answer::stale:
        if (who.prefetch) return;
        if (!kid_unknown(on, now, who)) return finish(on, now, who, false);
        if (ask_for_kid(on, now, who) == step_end::refused) return;
        why = cause::kid;
        break;
      case refresh_policy::answer::refuse: return fail(on, now, who, reason::nothing_cached);
      default: break;
    }
    const bool joins = on.policy.in_flight();
    who.newest = on.policy.newest_flight();
    on.waiters.push_back(who);
    if (who.refetching) ++on.kid_waiters;
    if (!joins) begin_flight(on, now, why);
  }

  [[nodiscard]] const axioms::jwk_set* served_set(const core& on) const {
    return on.document < 0 ? nullptr : &idp_.set_of(static_cast<std::size_t>(on.document));
  }

  // Either the set has the key, or its kid is unknown: there are no others here.
  [[nodiscard]] bool kid_unknown(const core& on, instant now, const lookup& who) {
    kid_text text;
    const auto got = on.policy.select(at(now), *served_set(on), {.kid = kid_of(who, text), .alg = {}});
    const bool listed = !who.attack && idp_.lists(static_cast<std::size_t>(on.document), who.kid);
    // Red when: select() calls no kid unknown.
    broken_.expect(got.key.has_value() == listed && got.kid_unknown == !listed,
                   "a lookup got another key than the one that its document lists", now);
    return !listed;
  }

  using kid_text = std::array<char, 24>;
  [[nodiscard]] std::string_view kid_of(const lookup& who, kid_text& text) const {
    if (!who.attack) return idp_.keys()[who.kid].kid;
    const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), who.kid, 36);
    return {text.data(), static_cast<std::size_t>(end - text.data())};
  }

  step_end ask_for_kid(core& on, instant now, lookup& who) {
    kid_text text;
    const std::size_t others = on.kid_waiters - (who.refetching ? 1U : 0U);
    switch (on.policy.ask_unknown_kid(at(now), kid_of(who, text), others)) {
      case refresh_policy::kid_answer::missing: fail(on, now, who, reason::kid_not_found); return step_end::refused;
      case refresh_policy::kid_answer::refuse: fail(on, now, who, reason::kid_unreachable); return step_end::refused;
      case refresh_policy::kid_answer::answered:  // not looked for either
      case refresh_policy::kid_answer::throttled:
        // Or it came to a flight that has been in the air for longer than anybody waits.
        fail(on, now, who,
             on.flight != 0 && now >= on.begun + config_.unknown_kid_wait ? reason::kid_timed_out
                                                                          : reason::kid_throttled);
        return step_end::refused;
      case refresh_policy::kid_answer::start: on.policy.pay(at(now)); break;
      case refresh_policy::kid_answer::join: break;
    }
    asked_in_vain(on, now, who);
    if (!who.refetching) {
      who.refetching = true;
      who.deadline = from(on.policy.token_deadline(at(now)));
    }
    return step_end::wait;
  }

  void begin_flight(core& on, instant now, cause why) {
    // Red when: due() forgets in_flight_.
    broken_.expect(on.flight == 0, "a core began a second flight while one was in the air", now);
    // Red when: fail() drops Retry-After.
    broken_.expect(now >= on.told_until, "a core came back before the time that Retry-After had told it", now);
    if (why == cause::kid) {
      // Red when: has_one() always says true.
      broken_.expect(on.budget.take(now, config_.unknown_kid_burst, config_.unknown_kid_interval),
                     "unknown kids made more requests than the budget allows", now);
    }
    ++(why == cause::timer ? figures_.by_timer : why == cause::lookup ? figures_.by_lookup : figures_.by_kid);
    ++on.requests;
    on.flight = on.policy.begin(at(now));
    on.basis = on.document;
    on.begun = now;
    const reply answer = idp_.ask(now, on.document, on.hangs, config_.fetch_timeout, on.random);
    event landing{answer.lands, 0, number(on), happening::landing};
    landing.flight = on.flight;
    landing.basis = on.basis;
    landing.brought = answer.what;
    push(landing);
  }

  void land(core& on, instant now, const event& what) {
    flush(on, now);  // they got the document that may be replaced now
    const verdict& brought = *what.brought;
    const bool confirms = on.document >= 0 && what.basis == on.document;
    const auto landing = on.policy.land(what.flight, at(now), brought, confirms, on.random(), served_set(on));
    if (landing == refresh_policy::landing::dropped) {
      ++figures_.dropped;
      return;
    }
    const bool current = on.flight == what.flight;
    if (current) on.flight = 0;
    if (landing == refresh_policy::landing::failed) {
      ++figures_.failures;
      broken_.expect(brought.what == verdict::kind::failure || !confirms, "a good answer was taken for a failure", now);
      if (brought.retry_after) {
        on.told_until = now + std::min<milliseconds>(*brought.retry_after, config_.retry_after_max);
        ++figures_.told_to_wait;
      }
    } else {
      // Red when: land() takes every answer with status 200 for a good one.
      broken_.expect(brought.what != verdict::kind::failure, "a failure replaced a good document", now);
      if (!current) ++figures_.late_but_good;
      on.told_until = 0ms;
      on.published = now;
      if (landing == refresh_policy::landing::published) {
        ++figures_.published;
        on.document = idp_.document_of(brought);
        arrived(on, now);
      } else {
        ++figures_.confirmed;
      }
    }
    settle(on, now, landing != refresh_policy::landing::failed);
  }

  void settle(core& on, instant now, bool landed_well) {
    for (std::size_t i = 0; i < on.waiters.size();) {
      lookup& who = on.waiters[i];
      std::optional<reason> why;
      if (who.prefetch) {
        // its failure is success
      } else if (!on.policy.servable(at(now))) {
        why = reason::nothing_cached;
      } else if (!landed_well && who.refetching) {
        why = reason::kid_unreachable;
      } else if (kid_unknown(on, now, who)) {
        const bool proven = on.policy.answered_since(who.newest);
        if (landed_well && !proven && on.policy.in_flight()) {  // its own flight may still bring it
          ++i;
          continue;
        }
        if (landed_well && !proven) {
          const bool counted = who.refetching;
          if (ask_for_kid(on, now, who) == step_end::wait) {
            if (!counted) ++on.kid_waiters;
            if (!on.policy.in_flight()) begin_flight(on, now, cause::kid);
            ++i;
            continue;
          }
          leave(on, i);  // ask_for_kid() told why
          continue;
        }
        why = landed_well ? reason::kid_not_found : reason::kid_unreachable;
        kid_text text;
        if (landed_well) on.policy.remember_missing(at(now), kid_of(who, text));
      }
      const lookup done = who;
      leave(on, i);
      if (done.prefetch) continue;
      if (why) {
        fail(on, now, done, *why);
      } else {
        finish(on, now, done, true);
      }
    }
  }

  static void leave(core& on, std::size_t place) {
    if (on.waiters[place].refetching) --on.kid_waiters;
    on.waiters.erase(on.waiters.begin() + static_cast<std::ptrdiff_t>(place));
  }

  void tick(core& on, instant now) {
    if (on.policy.expire(at(now), on.random())) {
      ++figures_.failures;
      on.flight = 0;
      settle(on, now, false);
    }
    for (std::size_t i = 0; i < on.waiters.size();) {
      if (now < on.waiters[i].deadline) {
        ++i;
        continue;
      }
      const lookup done = on.waiters[i];
      leave(on, i);
      fail(on, now, done, reason::kid_timed_out);
    }
    if (on.policy.due(at(now))) begin_flight(on, now, cause::timer);
  }

  // ---- ends of lookups -----------------------------------------------------------------------------

  void finish(core& on, instant now, const lookup& who, bool waited) {
    broken_.expect(!who.attack, "an attacker's kid was found", now);
    if (who.attack) return;
    ++(waited ? figures_.waited : on.policy.stale(at(now)) ? figures_.stale : figures_.hits);
    wait_over(now, who);
    served(on, now);
  }

  void fail(core& on, instant now, const lookup& who, reason why) {
    if (who.prefetch) return;
    wait_over(now, who);
    const auto index = static_cast<std::size_t>(why);
    if (who.attack) {
      ++figures_.attacks_refused[index];
      return;
    }
    ++figures_.failed[index];
    if (why != reason::nothing_cached) asked_in_vain(on, now, who);
    const trouble* ill = troubled(who.asked, now);
    switch (why) {
      case reason::nothing_cached: {
        // Only before the first document or when the last is past the hard limit, and not longer after the provider's
        // return than its last failure (fetch_timeout) and the 10 s after which a lookup may try again.
        const bool never_had = on.published == never;
        if (never_had) ++figures_.first_fetch_failed;
        // Red when: servable() forgets the outage_window.
        broken_.expect(never_had || now - on.published >= hard_,
                       "a lookup failed although there was a document that may be served", now);
        // Red when: backoff::blocks() keeps the whole backoff although nothing is cached.
        broken_.expect(ill != nullptr && who.asked <= ill->end + config_.fetch_timeout +
                                                          axioms::detail::max_backoff_without_document + latency_most,
                       "a lookup without a document failed although the provider was well", now);
        break;
      }
      case reason::kid_unreachable:
        // Red when: ask_for_refetch() waits for the whole backoff.
        broken_.expect(ill != nullptr && who.asked <= ill->end + kid_recovery(*ill),
                       "an unknown kid was refused although the provider was well", now);
        if (idp_.ails(who.asked) != nullptr) break;
        ++figures_.failed_after_comeback;
        if (ill != nullptr && (ill->what == ailment::outage || ill->what == ailment::bad_publish))
          figures_.refused_after_comeback = std::max(figures_.refused_after_comeback, who.asked - ill->end);
        break;
      case reason::kid_timed_out:
        // It joined a flight that began before the end.
        broken_.expect(ill != nullptr && who.asked <= ill->end + config_.fetch_timeout,
                       "an unknown kid waited too long although the provider was well", now);
        break;
      case reason::kid_throttled:
        // However busy the core is and however long the outage: while it fails, the background tries as soon as the
        // backoff is over, so an unknown kid begins a flight an interval after the last failure, when there is a token.
        // Red when: the bucket is empty at first; ask_for_refetch() looks at no backoff.
        broken_.expect(on.attacked, "a core that nobody attacks refused a key for want of budget", now);
        break;
      case reason::kid_not_found:
        // Red when: ask_unknown_kid() says missing when the budget is used up.
        broken_.expect(false, "a key that the provider published was said not to exist", now);
        break;
    }
  }

  // Red when: begin() allows a flight 20 s more.
  void wait_over(instant now, const lookup& who) {
    figures_.longest_wait = std::max(figures_.longest_wait, now - who.asked);
    broken_.expect(now - who.asked <= config_.fetch_timeout + (who.refetching ? config_.unknown_kid_wait : 0ms),
                   "a lookup waited longer than fetch_timeout", now);
    broken_.expect(!who.refetching || now <= who.deadline, "a lookup waited longer than unknown_kid_wait for a kid",
                   now);
  }

  void asked_in_vain(core& on, instant now, const lookup& who) {
    if (who.attack) return;
    for (const auto& [kid, since] : on.in_vain) {
      if (kid == who.kid) return;
    }
    on.in_vain.emplace_back(who.kid, now);
    ++figures_.unknown;
  }

  void arrived(core& on, instant now) {
    std::erase_if(on.in_vain, [&](const auto& waited_for) {
      const auto& [kid, since] = waited_for;
      if (!idp_.lists(static_cast<std::size_t>(on.document), kid)) return false;
      const milliseconds took = now - since;
      if (const trouble* ill = troubled(since, now)) {
        figures_.unknown_troubled = std::max(figures_.unknown_troubled, took);
        if (!on.attacked) {
          figures_.unknown_after_comeback =
              std::max(figures_.unknown_after_comeback, std::min(took, now - std::min(now, ill->end)));
        }
        // Red when: ask_for_refetch() waits for the whole backoff.
        broken_.expect(now <= known_by(*ill, since) + (on.attacked ? attacked_unknown() : fair_unknown()),
                       "a new key was unknown too long after the provider came back", now);
      } else if (on.attacked) {
        // Red when: the bucket earns a token per two intervals.
        figures_.unknown_attacked = std::max(figures_.unknown_attacked, took);
        broken_.expect(took <= attacked_unknown(), "an attack kept a new key unknown too long", now);
      } else {
        // Red when: ask_unknown_kid() never starts a flight.
        figures_.unknown_fair = std::max(figures_.unknown_fair, took);
        broken_.expect(took <= fair_unknown(), "a new key was unknown for longer than a fetch", now);
      }
      return true;
    });
  }

  const scenario& play_;
  provider& idp_;
  const jwks_config& config_;
  const milliseconds hard_;  // past its fetch a document must not be served
  const std::uint64_t seed_;
  std::vector<instant> gone_by_;  // per key: until when it may be served
  std::vector<bool> fair_;        // per key: nothing was wrong then
  std::vector<core> cores_;
  agenda agenda_;
  figures figures_;
  breaches broken_;
};

}  // namespace simulation

#endif
