// The state of a manager as Prometheus reads it (text format 0.0.4). metrics.cpp shows it at work.
#ifndef AXIOMS_JWKS_EXAMPLES_PROMETHEUS_HPP
#define AXIOMS_JWKS_EXAMPLES_PROMETHEUS_HPP

#include "axioms_jwks.hpp"

#include <chrono>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>

namespace demo {

/// A label's value: `\`, `"` and a line's end are escaped. The format asks for UTF-8, which URLs of this library are.
inline std::string label(std::string_view name, std::string_view value) {
  std::string out = std::string(name) + "=\"";
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out + '"';
}

/// @p now is the manager's clock's.
///
/// Threads: any. Blocks: never. There is a series for each URL that the manager knows; `only_configured_urls` keeps
/// their number small.
template <class Manager>
std::string prometheus_text(const Manager& manager,
                            std::chrono::steady_clock::time_point now = axioms::steady_clock().now()) {
  std::ostringstream out;
  const auto begin = [&](std::string_view name, std::string_view type, std::string_view help) {
    out << "# HELP axioms_jwks_" << name << ' ' << help << "\n# TYPE axioms_jwks_" << name << ' ' << type << '\n';
  };
  const auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    begin(name, "counter", help);
    out << "axioms_jwks_" << name << ' ' << value << '\n';
  };
  const axioms::jwks_stats stats = manager.stats();
  counter("hits_total", "Lookups that got a fresh document from memory.", stats.hits);
  counter("misses_total", "Lookups that had to wait, or got nothing.", stats.misses);
  counter("stale_served_total", "Lookups that got a document past its cache_ttl.", stats.stale_served);
  counter("coalesced_total", "Lookups and refreshes that joined a fetch of somebody else.", stats.coalesced);
  counter("throttled_total", "Lookups that were allowed no fetch.", stats.throttled);
  counter("fetched_total", "Fetches that brought a new document.", stats.fetched);
  counter("not_modified_total", "Fetches that confirmed the document.", stats.not_modified);
  counter("failed_total", "Fetches that failed.", stats.failed);
  counter("events_dropped_total", "Events that a slow listener lost.", stats.events_dropped);

  const auto urls = manager.urls();
  const auto gauge = [&](std::string_view name, std::string_view help, auto value) {
    begin(name, "gauge", help);
    for (const auto& url : urls) {
      out << "axioms_jwks_" << name << '{' << label("url", url) << "} ";
      value(url, manager.health(url));
    }
  };
  using seconds = std::chrono::duration<double>;
  using health = axioms::jwks_health;
  gauge("ready", "1 if a lookup would get keys now.", [&](auto&, const health& at) { out << at.ready << '\n'; });
  gauge("stale", "1 if they are past their cache_ttl.", [&](auto&, const health& at) { out << at.stale << '\n'; });
  gauge("keys", "Usable keys.", [&](const std::string& url, const health&) {
    const auto set = manager.peek(url);
    out << (set ? (*set)->keys().size() : 0) << '\n';
  });
  gauge("insecure_transport", "1 if they come by http.",
        [&](auto&, const health& at) { out << at.insecure_transport << '\n'; });
  gauge("age_seconds", "Since they were fetched or confirmed; NaN if there are none.", [&](auto&, const health& at) {
    if (at.ready) {
      out << seconds(at.age).count() << '\n';
    } else {
      out << "NaN\n";
    }
  });
  gauge("consecutive_failures", "Failed fetches since the last good one.",
        [&](auto&, const health& at) { out << at.consecutive_failures << '\n'; });
  gauge("next_attempt_seconds", "Until the next fetch; +Inf if none is planned.", [&](auto&, const health& at) {
    if (at.next_attempt == std::chrono::steady_clock::time_point::max()) {
      out << "+Inf\n";
    } else {
      out << seconds(at.next_attempt - now).count() << '\n';
    }
  });
  return out.str();
}

}  // namespace demo

#endif
