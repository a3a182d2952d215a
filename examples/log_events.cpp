// What a manager does, in a log: to_string(event) is one line, with nothing secret in it. Works offline and without
// arguments: it starts an issuer of its own on loopback, which exchanges a key and then goes down.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"

#include <atomic>
#include <ctime>
#include <iostream>

std::string time_of_day(std::chrono::system_clock::time_point when) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(when);
  std::tm parts{};
  char text[32];
  ::gmtime_r(&seconds, &parts);
  return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts));
}

// [readme]
// Called on one thread of the manager's, an event at a time. Do not wait in it: later events would be lost.
void log(const axioms::jwks_event& event) {
  using kind = axioms::jwks_event_kind;
  const bool bad = event.kind == kind::failed || event.kind == kind::stale || event.kind == kind::throttled;
  const auto now = std::chrono::system_clock::now();
  std::clog << time_of_day(now) << (bad ? " WARN " : " INFO ") << to_string(event);
  if (event.next_attempt != std::chrono::steady_clock::time_point::max()) {
    // It is on the manager's own clock, which is no time of day.
    const auto wait = event.next_attempt - axioms::steady_clock().now();
    const auto due = now + std::chrono::duration_cast<std::chrono::system_clock::duration>(wait);
    std::clog << ", next fetch at " << time_of_day(due);
  }
  std::clog << '\n';
}
// [/readme]

int main() {
  demo::issuer issuer(demo::issuer::transport::http);
  std::atomic<int> fetched{0}, failed{0};
  axioms::jwks_manager keys({.proxy_from_environment = false});  // the issuer is on this machine
  axioms::jwks_config config{.jwks_url = issuer.url()};
  config.on_event = [&](const axioms::jwks_event& event) {
    log(event);
    fetched += event.kind == axioms::jwks_event_kind::fetched;
    failed += event.kind == axioms::jwks_event_kind::failed && event.error.has_value();
  };
  if (!keys.initialize(config)) return 1;
  issuer.rotate("2026-03");
  const auto renewed = keys.refresh();
  issuer.stop();
  const auto refused = keys.refresh();
  for (int i = 0; i < 1000 && failed == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  keys.shutdown();
  return renewed && !refused && fetched == 2 && failed == 1 ? 0 : 1;
}
