// What examples/support/prometheus.hpp writes: the text format 0.0.4 of Prometheus, to the byte.
#include "examples/support/prometheus.hpp"
#include "support/rig.hpp"

#include <doctest/doctest.h>

#include <regex>
#include <sstream>
#include <string>

using namespace std::chrono_literals;
using support::ok, support::response, support::rig;

TEST_CASE("a label's value is escaped as the format says, and nothing else is") {
  CHECK(demo::label("url", "https://idp.example.com/keys?a=b&c={d}") ==
        R"(url="https://idp.example.com/keys?a=b&c={d}")");
  CHECK(demo::label("url", "a\\b\"c\nd") == R"(url="a\\b\"c\nd")");
  CHECK(demo::label("url", "z\xc3\xbcrich") == "url=\"z\xc3\xbcrich\"");
  CHECK(demo::label("url", "") == R"(url="")");
}

TEST_CASE("a manager's state as Prometheus reads it: counters of all, gauges of each URL") {
  rig r;
  r.provider.always(ok({"k1", "k2"}));
  const std::string down = "http://down.example.com/keys";
  r.provider.always_at(down, response(503));
  r.start();
  r.settle(1);
  REQUIRE(r.manager.get_jwks().has_value());
  REQUIRE_FALSE(r.get(down).get().has_value());
  REQUIRE(r.manager.add_static("https://own.example.com/", support::key_set({"own"})).has_value());
  r.settle(1);
  r.clock.advance(0s);
  REQUIRE(support::eventually([&] { return r.manager.health(down).consecutive_failures == 1; }));
  const std::string text = demo::prometheus_text(r.manager, r.clock.now() - 1500ms);
  const auto has = [&](const std::string& line) {
    CAPTURE(line);
    CHECK(("\n" + text).find("\n" + line + "\n") != std::string::npos);
  };
  has("# HELP axioms_jwks_hits_total Lookups that got a fresh document from memory.\n"
      "# TYPE axioms_jwks_hits_total counter\n"
      "axioms_jwks_hits_total 1");
  has("axioms_jwks_misses_total 1");
  has("axioms_jwks_fetched_total 1");
  has("axioms_jwks_failed_total 1");
  has("# HELP axioms_jwks_ready 1 if a lookup would get keys now.\n"
      "# TYPE axioms_jwks_ready gauge\n"
      R"(axioms_jwks_ready{url="http://down.example.com/keys"} 0)"
      "\n"
      R"(axioms_jwks_ready{url="https://idp.example.com/.well-known/jwks.json"} 1)"
      "\n"
      R"(axioms_jwks_ready{url="https://own.example.com/"} 1)");
  has(R"(axioms_jwks_keys{url="http://down.example.com/keys"} 0)");
  has(R"(axioms_jwks_keys{url="https://idp.example.com/.well-known/jwks.json"} 2)");
  has(R"(axioms_jwks_insecure_transport{url="http://down.example.com/keys"} 1)");
  has(R"(axioms_jwks_insecure_transport{url="https://own.example.com/"} 0)");
  has(R"(axioms_jwks_age_seconds{url="http://down.example.com/keys"} NaN)");
  has(R"(axioms_jwks_age_seconds{url="https://idp.example.com/.well-known/jwks.json"} 0)");
  has(R"(axioms_jwks_consecutive_failures{url="http://down.example.com/keys"} 1)");
  has(R"(axioms_jwks_next_attempt_seconds{url="https://idp.example.com/.well-known/jwks.json"} 3601.5)");
  has(R"(axioms_jwks_next_attempt_seconds{url="https://own.example.com/"} +Inf)");

  r.clock.advance(7200s);
  REQUIRE(support::eventually([&] { return r.manager.stats().failed > 1; }));
  CHECK(demo::prometheus_text(r.manager, r.clock.now()).find("axioms_jwks_failed_total 1\n") == std::string::npos);
}

// Red when a HELP or TYPE line, or the end of a line, is left out.
TEST_CASE("each line of the text for Prometheus is a comment or a sample, and each family is announced once") {
  rig r;
  r.start();
  const std::string text = demo::prometheus_text(r.manager, r.clock.now());
  REQUIRE_FALSE(text.empty());
  CHECK(text.back() == '\n');
  std::istringstream lines(text);
  std::string line, family;
  int families = 0;
  const std::regex sample(R"(axioms_jwks_[a-z_]+(\{url="([^"\\\n]|\\["\\n])*"\})? (-?[0-9]+(\.[0-9]+)?|\+Inf|NaN))");
  while (std::getline(lines, line)) {
    CAPTURE(line);
    if (line.starts_with("# HELP ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      ++families;
      REQUIRE(std::getline(lines, line));
      const bool counter = family.ends_with("_total");
      CHECK(line == "# TYPE " + family + (counter ? " counter" : " gauge"));
      CHECK(text.find("# HELP " + family + ' ') == text.rfind("# HELP " + family + ' '));
      continue;
    }
    CHECK(std::regex_match(line, sample));
    CHECK(line.starts_with(family + (family.ends_with("_total") ? " " : "{")));
  }
  CHECK(families == 16);
}
