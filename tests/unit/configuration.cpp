// The part "configuration": jwks_config and the plain structs.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <stdlib.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

using axioms::errc;
using axioms::jwks_config;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

// 10 years, as generous as calendars get.
constexpr seconds ten_years{std::int64_t{10} * 366 * 24 * 3600};
constexpr seconds second{1};
constexpr milliseconds tick{1};

jwks_config valid() {
  jwks_config config;
  config.jwks_url = "https://idp.example.com/jwks.json";
  return config;
}

template <class Change>
jwks_config with(Change change) {
  jwks_config config = valid();
  change(config);
  return config;
}

bool holds(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// What validate() says about a config; empty if it is content.
struct complaint {
  errc code{};
  std::string text;
};
complaint of(const jwks_config& config) {
  const auto checked = config.validate();
  return checked ? complaint{} : complaint{checked.error().code, checked.error().description};
}

// Sets variables for one test and puts back what was there.
class environment {
 public:
  environment() {
    for (const char* name : names) {
      const char* value = ::getenv(name);
      before_.emplace_back(name, value != nullptr ? std::optional<std::string>(value) : std::nullopt);
      ::unsetenv(name);
    }
  }
  ~environment() {
    for (const auto& [name, value] : before_) {
      if (value) {
        ::setenv(name, value->c_str(), 1);
      } else {
        ::unsetenv(name);
      }
    }
  }
  environment(const environment&) = delete;
  environment& operator=(const environment&) = delete;

  void set(const std::string& name, const std::string& value) const {
    REQUIRE(::setenv(name.c_str(), value.c_str(), 1) == 0);
  }
  void unset(const std::string& name) const { REQUIRE(::unsetenv(name.c_str()) == 0); }

 private:
  static constexpr const char* names[] = {"AXIOMS_JWKS_URL",       "AXIOMS_ISS_URL",
                                          "AXIOMS_DOMAIN",         "AXIOMS_JWKS_REFRESH_INTERVAL",
                                          "AXIOMS_JWKS_CACHE_TTL", "AXIOMS_JWKS_PREFETCH"};
  std::vector<std::pair<const char*, std::optional<std::string>>> before_;
};

// One duration of jwks_config under the rules that all of them share.
template <class Duration>
struct duration_option {
  const char* name;
  Duration jwks_config::*member;
  bool zero_allowed;
};

template <class Duration>
void check_duration(const duration_option<Duration>& option) {
  CAPTURE(option.name);
  const std::string unit = std::is_same_v<Duration, seconds> ? " s" : " ms";
  const auto set = [&](Duration value) { return with([&](jwks_config& config) { config.*option.member = value; }); };
  const std::string rule = option.zero_allowed ? "0 or more" : "more than 0";
  for (const Duration value : {Duration(-1), Duration(-3600), Duration::min()}) {
    const complaint why = of(set(value));
    CHECK(why.code == errc::invalid_config);
    CHECK(why.text ==
          std::string(option.name) + " is " + std::to_string(value.count()) + unit + "; it must be " + rule);
  }
  {
    const complaint why = of(set(Duration(0)));
    if (option.zero_allowed) {
      CHECK(why.text == "");
    } else {
      CHECK(why.code == errc::invalid_config);
      CHECK(why.text == std::string(option.name) + " is 0" + unit + "; it must be more than 0");
    }
  }
  for (const Duration value : {Duration(ten_years) + Duration(1), Duration::max()}) {
    const complaint why = of(set(value));
    CHECK(why.code == errc::invalid_config);
    CHECK(why.text ==
          std::string(option.name) + " is " + std::to_string(value.count()) + unit + "; it must be at most 10 years");
  }
}

}  // namespace

TEST_CASE("the defaults are those of the documentation") {
  const jwks_config config;
  CHECK(config.jwks_url.empty());
  CHECK(config.issuer.empty());
  CHECK(config.domain.empty());
  CHECK(config.refresh_interval == seconds(3600));
  CHECK(config.cache_ttl == seconds(7200));
  CHECK(config.prefetch);
  CHECK(config.outage_window == seconds(7200));
  CHECK(config.min_refresh_interval == seconds(60));
  CHECK(config.withdrawn_key_grace == seconds(0));
  CHECK(config.fetch_timeout == seconds(10));
  CHECK(config.connect_timeout == seconds(3));
  CHECK(config.backoff_initial == seconds(1));
  CHECK(config.backoff_max == std::chrono::minutes(5));
  CHECK(config.retry_after_max == std::chrono::hours(1));
  CHECK(config.max_body_bytes == 1048576);
  CHECK(config.max_parallel_fetches == 8);
  CHECK(config.unknown_kid_burst == 3);
  CHECK(config.unknown_kid_interval == seconds(30));
  CHECK(config.unknown_kid_wait == seconds(2));
  CHECK_FALSE(config.require_https);
  CHECK_FALSE(config.discovery);
  CHECK_FALSE(config.allow_es256k);
  CHECK_FALSE(config.only_configured_urls);
  CHECK_FALSE(static_cast<bool>(config.on_event));
  CHECK_FALSE(static_cast<bool>(config.random));
}

TEST_CASE("a URL and nothing else is a valid configuration") { CHECK(of(valid()).text == ""); }

TEST_CASE("a configuration can be written with designated initializers") {
  int told = 0;
  const jwks_config config{.jwks_url = "https://idp.example.com/jwks.json",
                           .refresh_interval = seconds(60),
                           .cache_ttl = seconds(120),
                           .prefetch = false,
                           .outage_window = seconds(0),
                           .fetch_timeout = seconds(2),
                           .unknown_kid_burst = 0,
                           .require_https = true,
                           .on_event = [&told](const axioms::jwks_event&) { ++told; },
                           .random = [] { return std::uint64_t{7}; }};
  CHECK(of(config).text == "");
  CHECK(config.fetch_timeout == milliseconds(2000));
  config.on_event({});
  CHECK(told == 1);
  CHECK(config.random() == 7);

  const jwks_config by_issuer{.issuer = "https://idp.example.com/"};
  CHECK(of(by_issuer).text == "");
  const jwks_config by_domain{.domain = "idp.example.com"};
  CHECK(of(by_domain).text == "");
}

TEST_CASE("refresh_interval must be more than 0 and at most 10 years") {
  check_duration(duration_option<seconds>{"refresh_interval", &jwks_config::refresh_interval, false});
}
TEST_CASE("outage_window may be 0 and must be at most 10 years") {
  check_duration(duration_option<seconds>{"outage_window", &jwks_config::outage_window, true});
}
TEST_CASE("min_refresh_interval may be 0 and must be at most 10 years") {
  check_duration(duration_option<seconds>{"min_refresh_interval", &jwks_config::min_refresh_interval, true});
}
TEST_CASE("withdrawn_key_grace may be 0 and must be at most 10 years") {
  check_duration(duration_option<seconds>{"withdrawn_key_grace", &jwks_config::withdrawn_key_grace, true});
}
TEST_CASE("fetch_timeout must be more than 0 and at most 10 years") {
  check_duration(duration_option<milliseconds>{"fetch_timeout", &jwks_config::fetch_timeout, false});
}
TEST_CASE("connect_timeout must be more than 0 and at most 10 years") {
  check_duration(duration_option<milliseconds>{"connect_timeout", &jwks_config::connect_timeout, false});
}
TEST_CASE("backoff_initial must be more than 0 and at most 10 years") {
  check_duration(duration_option<milliseconds>{"backoff_initial", &jwks_config::backoff_initial, false});
}
TEST_CASE("backoff_max must be more than 0 and at most 10 years") {
  check_duration(duration_option<milliseconds>{"backoff_max", &jwks_config::backoff_max, false});
}
TEST_CASE("retry_after_max may be 0 and must be at most 10 years") {
  check_duration(duration_option<milliseconds>{"retry_after_max", &jwks_config::retry_after_max, true});
}
TEST_CASE("unknown_kid_interval must be more than 0 and at most 10 years") {
  check_duration(duration_option<milliseconds>{"unknown_kid_interval", &jwks_config::unknown_kid_interval, false});
}
TEST_CASE("unknown_kid_wait may be 0 and must be at most 10 years") {
  check_duration(duration_option<milliseconds>{"unknown_kid_wait", &jwks_config::unknown_kid_wait, true});
}

TEST_CASE("cache_ttl must be more than 0 and at most 10 years") {
  check_duration(duration_option<seconds>{"cache_ttl", &jwks_config::cache_ttl, false});
}

TEST_CASE("cache_ttl may be twice refresh_interval and more, but not less") {
  const auto times = [](seconds refresh, seconds ttl) {
    return of(with([&](jwks_config& c) { c.refresh_interval = refresh, c.cache_ttl = ttl; }));
  };
  CHECK(times(seconds(3600), seconds(7200)).text == "");
  CHECK(times(seconds(3600), seconds(7201)).text == "");
  CHECK(times(seconds(1), seconds(2)).text == "");
  CHECK(times(seconds(3), seconds(6)).text == "");
  CHECK(times(seconds(3), seconds(7)).text == "");
  CHECK(times(seconds(3), seconds(100000)).text == "");

  const complaint why = times(seconds(3600), seconds(7199));
  CHECK(why.code == errc::invalid_config);
  CHECK(why.text == "cache_ttl is 7199 s; it must be at least 2 x refresh_interval (3600 s)");
  CHECK(times(seconds(3), seconds(5)).text == "cache_ttl is 5 s; it must be at least 2 x refresh_interval (3 s)");
  CHECK(times(seconds(1), seconds(1)).text == "cache_ttl is 1 s; it must be at least 2 x refresh_interval (1 s)");
  CHECK(times(ten_years, ten_years).text ==
        "cache_ttl is 316224000 s; it must be at least 2 x refresh_interval (316224000 s)");
  CHECK(times(ten_years / 2, ten_years).text == "");
}

TEST_CASE("backoff_max may equal backoff_initial but not be smaller") {
  const auto backoffs = [](milliseconds initial, milliseconds most) {
    return of(with([&](jwks_config& c) { c.backoff_initial = initial, c.backoff_max = most; }));
  };
  CHECK(backoffs(seconds(5), seconds(5)).text == "");
  CHECK(backoffs(tick, tick).text == "");
  const complaint why = backoffs(milliseconds(5000), milliseconds(4999));
  CHECK(why.code == errc::invalid_config);
  CHECK(why.text == "backoff_max is 4999 ms; it must be at least backoff_initial (5000 ms)");
}

TEST_CASE("every duration may be exactly 10 years") {
  const auto config = with([](jwks_config& c) {
    c.refresh_interval = ten_years / 2;
    c.cache_ttl = c.outage_window = c.min_refresh_interval = ten_years;
    c.fetch_timeout = c.connect_timeout = c.backoff_initial = c.backoff_max = c.retry_after_max = ten_years;
    c.unknown_kid_interval = c.unknown_kid_wait = ten_years;
  });
  CHECK(of(config).text == "");
}

TEST_CASE("the smallest legal values are accepted together") {
  const auto config = with([](jwks_config& c) {
    c.refresh_interval = second, c.cache_ttl = 2 * second;
    c.outage_window = c.min_refresh_interval = seconds(0);
    c.fetch_timeout = c.connect_timeout = c.backoff_initial = c.backoff_max = c.unknown_kid_interval = tick;
    c.retry_after_max = c.unknown_kid_wait = milliseconds(0);
    c.max_body_bytes = c.max_parallel_fetches = 1;
    c.unknown_kid_burst = 0;
  });
  CHECK(of(config).text == "");
}

TEST_CASE("a floor above refresh_interval and a connect timeout above fetch_timeout are no errors") {
  CHECK(of(with([](jwks_config& c) { c.refresh_interval = seconds(10), c.min_refresh_interval = seconds(60); })).text ==
        "");
  CHECK(of(with([](jwks_config& c) { c.fetch_timeout = milliseconds(100), c.connect_timeout = seconds(3); })).text ==
        "");
}

TEST_CASE("counts and sizes have ranges of their own") {
  const auto body = [](std::size_t bytes) { return of(with([&](jwks_config& c) { c.max_body_bytes = bytes; })).text; };
  CHECK(body(1) == "");
  CHECK(body(std::size_t{1} << 30U) == "");
  CHECK(body(0) == "max_body_bytes is 0; it must be 1 byte to 1 GiB");
  CHECK(body((std::size_t{1} << 30U) + 1) == "max_body_bytes is 1073741825; it must be 1 byte to 1 GiB");
  CHECK(holds(body(std::numeric_limits<std::size_t>::max()), "1 byte to 1 GiB"));

  const auto threads = [](std::size_t count) {
    return of(with([&](jwks_config& c) { c.max_parallel_fetches = count; })).text;
  };
  CHECK(threads(1) == "");
  CHECK(threads(64) == "");
  CHECK(threads(0) == "max_parallel_fetches is 0; it must be 1 to 64");
  CHECK(threads(65) == "max_parallel_fetches is 65; it must be 1 to 64");
  CHECK(holds(threads(std::numeric_limits<std::size_t>::max()), "1 to 64"));

  const auto burst = [](int count) { return of(with([&](jwks_config& c) { c.unknown_kid_burst = count; })).text; };
  CHECK(burst(0) == "");
  CHECK(burst(1000) == "");
  CHECK(burst(-1) == "unknown_kid_burst is -1; it must be 0 to 1000");
  CHECK(burst(1001) == "unknown_kid_burst is 1001; it must be 0 to 1000");
  CHECK(burst(std::numeric_limits<int>::min()) == "unknown_kid_burst is -2147483648; it must be 0 to 1000");
  CHECK(burst(std::numeric_limits<int>::max()) == "unknown_kid_burst is 2147483647; it must be 0 to 1000");
}

TEST_CASE("allow_es256k may be set") {
  CHECK(of(with([](jwks_config& c) { c.allow_es256k = true; })).text == "");
}

TEST_CASE("discovery is for an issuer, not for a key set that is named already") {
  CHECK(of(with([](jwks_config& c) { c.discovery = true, c.jwks_url = "https://user:secret@h/keys"; })).text ==
        "jwks_url is set; it must be empty with discovery");
  CHECK(of(with([](jwks_config& c) {
          c.jwks_url.clear();
          c.discovery = true;
          c.issuer = "https://idp.example.com";
        })).text == "");
}

TEST_CASE("a config whose every number is extreme is refused without overflow") {
  for (const bool lowest : {false, true}) {
    CAPTURE(lowest);
    const auto config = with([&](jwks_config& c) {
      const seconds s = lowest ? seconds::min() : seconds::max();
      const milliseconds ms = lowest ? milliseconds::min() : milliseconds::max();
      c.refresh_interval = c.cache_ttl = c.outage_window = c.min_refresh_interval = c.withdrawn_key_grace = s;
      c.fetch_timeout = c.connect_timeout = c.backoff_initial = c.backoff_max = c.retry_after_max = ms;
      c.unknown_kid_interval = c.unknown_kid_wait = ms;
    });
    const complaint why = of(config);
    CHECK(why.code == errc::invalid_config);
    CHECK(holds(why.text, "refresh_interval is "));
  }
  // The doubling of the comparison must not overflow either.
  CHECK(holds(of(with([](jwks_config& c) { c.refresh_interval = seconds::max(); })).text, "at most 10 years"));
  CHECK(holds(of(with([](jwks_config& c) { c.cache_ttl = seconds::min(); })).text,
              "cache_ttl is -9223372036854775808 s; it must be more than 0"));
}

TEST_CASE("the first broken rule is told, and an option comes before the URL") {
  const complaint why = of(with([](jwks_config& c) { c.fetch_timeout = milliseconds(0), c.jwks_url = "nonsense"; }));
  CHECK(why.code == errc::invalid_config);
  CHECK(why.text == "fetch_timeout is 0 ms; it must be more than 0");
}

TEST_CASE("jwks_url goes before issuer, and issuer before domain") {
  jwks_config config{.jwks_url = "https://a.example/keys", .issuer = "https://b.example", .domain = "c.example"};
  CHECK(config.resolved_url().value_or("") == "https://a.example/keys");
  config.jwks_url.clear();
  CHECK(config.resolved_url().value_or("") == "https://b.example/.well-known/jwks.json");
  config.issuer.clear();
  CHECK(config.resolved_url().value_or("") == "https://c.example/.well-known/jwks.json");
  config.domain.clear();
  const auto none = config.resolved_url();
  REQUIRE_FALSE(none);
  CHECK(none.error().code == errc::invalid_config);
  CHECK(none.error().description == "one of jwks_url, issuer and domain must be set");
  CHECK(of(config).text == none.error().description);
}

TEST_CASE("an issuer loses one trailing slash, and no more") {
  const auto url = [](std::string issuer) {
    return jwks_config{.issuer = std::move(issuer)}.resolved_url().value_or("refused");
  };
  CHECK(url("https://b.example/") == "https://b.example/.well-known/jwks.json");
  CHECK(url("https://b.example//") == "https://b.example//.well-known/jwks.json");
  CHECK(url("https://b.example/realms/one") == "https://b.example/realms/one/.well-known/jwks.json");
  CHECK(url("https://b.example/realms/one/") == "https://b.example/realms/one/.well-known/jwks.json");
  CHECK(url("http://localhost:8080") == "http://localhost:8080/.well-known/jwks.json");
  CHECK(url("https://[::1]:8443/") == "https://[::1]:8443/.well-known/jwks.json");
}

TEST_CASE("a jwks_url is fetched as it is written") {
  for (const std::string_view url : {"https://a.example/keys/", "https://a.example/keys?tenant=one",
                                     "HTTPS://A.example:443/Keys", "https://a.example"}) {
    CHECK(jwks_config{.jwks_url = std::string(url)}.resolved_url().value_or("refused") == url);
  }
}

TEST_CASE("an issuer with a query or a fragment is refused") {
  for (const std::string_view issuer : {"https://b.example?x=1", "https://b.example/#top", "https://b.example/a?b#c"}) {
    CAPTURE(issuer);
    const auto url = jwks_config{.issuer = std::string(issuer)}.resolved_url();
    REQUIRE_FALSE(url);
    CHECK(url.error().code == errc::invalid_config);
    CHECK(url.error().description == "issuer is '" + std::string(issuer) + "'; it must have no query and no fragment");
  }
}

TEST_CASE("an issuer without a host is refused: the path must not become the host") {
  for (const std::string_view issuer : {"https://", "http://", "https:///", "https:", "https:/", "/", "//"}) {
    CAPTURE(issuer);
    const auto url = jwks_config{.issuer = std::string(issuer)}.resolved_url();
    REQUIRE_FALSE(url);
    CHECK(url.error().code == errc::invalid_url);
  }
}

TEST_CASE("a domain is a host name, with a port at most") {
  const auto url = [](std::string domain) { return jwks_config{.domain = std::move(domain)}.resolved_url(); };
  CHECK(url("c.example").value_or("") == "https://c.example/.well-known/jwks.json");
  CHECK(url("c.example/").value_or("") == "https://c.example/.well-known/jwks.json");
  CHECK(url("c.example:8443").value_or("") == "https://c.example:8443/.well-known/jwks.json");
  const auto scheme = url("https://c.example");
  REQUIRE_FALSE(scheme);
  CHECK(scheme.error().code == errc::invalid_config);
  CHECK(scheme.error().description == "domain is 'https://c.example'; it must be a host name, without a scheme");
  for (const std::string_view domain : {"user@c.example", "c example", "c.example:99999", "/",
                                        "c.example\r\nHost: evil", "c.example?x", "c.example#x"}) {
    CAPTURE(domain);
    CHECK_FALSE(url(std::string(domain)));
  }
}

TEST_CASE("with discovery the metadata URL is the one that is fetched") {
  jwks_config config{.jwks_url = "https://a.example/keys",
                     .issuer = "https://b.example/one/",
                     .domain = "c.example",
                     .discovery = true};
  CHECK(config.resolved_url().value_or("") == "https://b.example/one/.well-known/openid-configuration");
  config.issuer.clear();
  CHECK(config.resolved_url().value_or("") == "https://c.example/.well-known/openid-configuration");
  config.domain.clear();
  const auto none = config.resolved_url();
  REQUIRE_FALSE(none);
  CHECK(none.error().code == errc::invalid_config);
  CHECK(none.error().description == "discovery needs issuer or domain");
}

TEST_CASE("metadata_url is where the metadata are, with discovery only, and beside the issuer") {
  jwks_config config;
  config.metadata_url = "https://meta.example.com/x?p=1";
  config.issuer = "https://idp.example.com";
  CHECK(config.validate().error().description == "metadata_url is set; it must be empty without discovery");
  config.discovery = true;
  CHECK(config.validate().has_value());
  CHECK(config.resolved_url().value() == config.metadata_url);
  config.require_https = true;
  config.metadata_url = "http://meta.example.com/x";
  CHECK(config.validate().error().code == errc::unsupported_scheme);
  config.metadata_url = "nonsense";
  CHECK(config.validate().error().code == errc::invalid_url);
  config.issuer.clear();
  CHECK(config.validate().error().code == errc::invalid_config);
}

TEST_CASE("an event is one line for a log, whatever a provider or a fetcher puts into it") {
  axioms::jwks_event event;
  event.kind = axioms::jwks_event_kind::fetched;
  event.url = "https://idp.example.com/keys";
  CHECK(to_string(event) == "fetched 'https://idp.example.com/keys'");
  event.key_set_url = event.url;
  CHECK(to_string(event) == "fetched 'https://idp.example.com/keys'");
  axioms::jwks_event found = event;
  found.key_set_url = "https://keys.example.com/v\n1";
  CHECK(to_string(found) == "fetched 'https://idp.example.com/keys', from 'https://keys.example.com/v\\x0a1'");
  event.status = 200;
  event.duration = std::chrono::milliseconds(35);
  event.added = {"k2", "k\n3"};
  event.removed = std::vector<std::string>(10, "old");
  CHECK(
      to_string(event) ==
      "fetched 'https://idp.example.com/keys', status 200, 35 ms, added 'k2' 'k\\x0a3', removed 'old' 'old' 'old' 'old' "
      "'old' 'old' 'old' 'old' and 2 more");
  axioms::jwks_event bad;
  bad.kind = axioms::jwks_event_kind::failed;
  bad.url = "https://idp.example.com/keys";
  bad.error = axioms::error{errc::fetch_failed, "it\nsays\x7f " + std::string(2000, 'x'), 0};
  CHECK(to_string(bad) ==
        "failed 'https://idp.example.com/keys': fetch_failed: it?says? " + std::string(1024 - 9, 'x'));
}

TEST_CASE("a bad URL is refused with the code of its fault, wherever it comes from") {
  struct row {
    std::string url;
    errc code;
    std::string_view part;
  };
  const row rows[] = {
      {"jwks.json", errc::invalid_url, "relative"},
      {"/jwks.json", errc::invalid_url, "relative"},
      {"//a.example/jwks.json", errc::invalid_url, "relative"},
      {"a.example/jwks.json", errc::invalid_url, "relative"},
      {" https://a.example/", errc::invalid_url, "space or a control byte"},
      {"https://a.example/\r\nX: y", errc::invalid_url, "control byte"},
      {"https://a.example/\x7f", errc::invalid_url, "control byte"},
      {"https://a.example/\xc3\xa9", errc::invalid_url, "outside ASCII"},
      {"https://", errc::invalid_url, "no host"},
      {"https:///path", errc::invalid_url, "no host"},
      {"https:a.example", errc::invalid_url, "'//' must follow"},
      {"https://me:secret@a.example/", errc::invalid_url, "user-info"},
      {"https://a.example:0/", errc::invalid_url, "port"},
      {"https://a.example:65536/", errc::invalid_url, "port"},
      {"https://a.example:-1/", errc::invalid_url, "port"},
      {"https://a.example:80x/", errc::invalid_url, "port"},
      {"https://[::1/", errc::invalid_url, "closing bracket"},
      {"https://[host]/", errc::invalid_url, "IPv6"},
      {"https://a.example/{id}", errc::invalid_url, "illegal character"},
      {"ftp://a.example/jwks.json", errc::unsupported_scheme, "ftp"},
      {"file:///etc/passwd", errc::unsupported_scheme, "file"},
      {"javascript:alert(1)", errc::unsupported_scheme, "javascript"},
      {"httpsx://a.example/", errc::unsupported_scheme, "httpsx"},
  };
  for (const auto& [url, code, part] : rows) {
    const std::string_view which = url;  // clang 14 cannot capture url itself
    CAPTURE(which);
    const complaint why = of(jwks_config{.jwks_url = url});
    CHECK(why.code == code);
    CHECK(holds(why.text, part));
    CHECK_FALSE(holds(why.text, "secret"));
    CHECK(why.text.find_first_of("\r\n\x7f") == std::string::npos);
    CHECK_FALSE(jwks_config{.jwks_url = url}.resolved_url());
    CHECK_FALSE(jwks_config{.issuer = url}.resolved_url());
  }
  const std::string just_fits = "https://a.example/" + std::string(2048 - 18, 'p');
  CHECK(of(jwks_config{.jwks_url = just_fits}).text == "");
  const complaint longer = of(jwks_config{.jwks_url = just_fits + "p"});
  CHECK(longer.code == errc::invalid_url);
  CHECK(holds(longer.text, "2049 bytes, the limit is 2048"));
  // It is the whole URL that is limited, not what it is made of.
  CHECK(of(jwks_config{.issuer = just_fits}).code == errc::invalid_url);
}

TEST_CASE("require_https refuses http, however the URL was given") {
  const auto secure = [](jwks_config config) {
    config.require_https = true;
    return of(config);
  };
  CHECK(secure({.jwks_url = "https://a.example/keys"}).text == "");
  CHECK(secure({.jwks_url = "HTTPS://a.example/keys"}).text == "");
  CHECK(secure({.domain = "a.example"}).text == "");
  for (const jwks_config& config :
       {jwks_config{.jwks_url = "http://a.example/keys"}, jwks_config{.jwks_url = "HTTP://a.example/keys"},
        jwks_config{.issuer = "http://a.example"}}) {
    CHECK(of(config).text == "");
    const complaint why = secure(config);
    CHECK(why.code == errc::unsupported_scheme);
    CHECK(holds(why.text, "require_https allows https only"));
  }
}

TEST_CASE("from_environment with nothing set gives the defaults") {
  const environment variables;
  const auto config = jwks_config::from_environment();
  REQUIRE(config);
  CHECK(config->jwks_url.empty());
  CHECK(config->issuer.empty());
  CHECK(config->domain.empty());
  CHECK(config->refresh_interval == seconds(3600));
  CHECK(config->cache_ttl == seconds(7200));
  CHECK(config->prefetch);
}

TEST_CASE("from_environment reads every variable") {
  const environment variables;
  variables.set("AXIOMS_JWKS_URL", "https://a.example/keys");
  variables.set("AXIOMS_ISS_URL", "https://b.example");
  variables.set("AXIOMS_DOMAIN", "c.example");
  variables.set("AXIOMS_JWKS_REFRESH_INTERVAL", "600");
  variables.set("AXIOMS_JWKS_CACHE_TTL", "1800");
  variables.set("AXIOMS_JWKS_PREFETCH", "false");
  const auto config = jwks_config::from_environment();
  REQUIRE(config);
  CHECK(config->jwks_url == "https://a.example/keys");
  CHECK(config->issuer == "https://b.example");
  CHECK(config->domain == "c.example");
  CHECK(config->refresh_interval == seconds(600));
  CHECK(config->cache_ttl == seconds(1800));
  CHECK_FALSE(config->prefetch);
  CHECK(of(*config).text == "");
  CHECK(config->resolved_url().value_or("") == "https://a.example/keys");

  variables.unset("AXIOMS_JWKS_URL");
  const auto by_issuer = jwks_config::from_environment();
  REQUIRE(by_issuer);
  CHECK(by_issuer->resolved_url().value_or("") == "https://b.example/.well-known/jwks.json");
}

TEST_CASE("an empty variable is one that is not set") {
  const environment variables;
  for (const char* name : {"AXIOMS_JWKS_URL", "AXIOMS_ISS_URL", "AXIOMS_DOMAIN", "AXIOMS_JWKS_REFRESH_INTERVAL",
                           "AXIOMS_JWKS_CACHE_TTL", "AXIOMS_JWKS_PREFETCH"}) {
    variables.set(name, "");
  }
  const auto config = jwks_config::from_environment();
  REQUIRE(config);
  CHECK(config->jwks_url.empty());
  CHECK(config->refresh_interval == seconds(3600));
  CHECK(config->cache_ttl == seconds(7200));
  CHECK(config->prefetch);
}

TEST_CASE("a duration variable that is no whole number of seconds is refused by name") {
  const environment variables;
  for (const std::string name : {"AXIOMS_JWKS_REFRESH_INTERVAL", "AXIOMS_JWKS_CACHE_TTL"}) {
    CAPTURE(name);
    for (const std::string value : {"one hour", "3600s", "1h", " 3600", "3600 ", "+3600", "-1", "-0x1", "3600.5", "1e3",
                                    "0x10", "316224001", "9223372036854775807", "9223372036854775808",
                                    "-9223372036854775809", "99999999999999999999999999999999", "-"}) {
      CAPTURE(value);
      variables.set(name, value);
      const auto config = jwks_config::from_environment();
      REQUIRE_FALSE(config);
      CHECK(config.error().code == errc::invalid_config);
      CHECK(config.error().description ==
            name + " is '" + value + "'; it must be a whole number of seconds, at most 10 years");
    }
    variables.unset(name);
  }
  variables.set("AXIOMS_JWKS_CACHE_TTL", "1\n2");
  const auto forged = jwks_config::from_environment();
  REQUIRE_FALSE(forged);
  CHECK(forged.error().description.find('\n') == std::string::npos);
}

TEST_CASE("numbers that can be read are validate's to judge") {
  const environment variables;
  variables.set("AXIOMS_JWKS_REFRESH_INTERVAL", "0");
  variables.set("AXIOMS_DOMAIN", "c.example");
  const auto zero = jwks_config::from_environment();
  REQUIRE(zero);
  CHECK(of(*zero).text == "refresh_interval is 0 s; it must be more than 0");
  variables.set("AXIOMS_JWKS_REFRESH_INTERVAL", "316224000");
  const auto most = jwks_config::from_environment();
  REQUIRE(most);
  CHECK(most->refresh_interval == ten_years);
  CHECK(holds(of(*most).text, "cache_ttl is 7200 s; it must be at least 2 x refresh_interval"));
  variables.set("AXIOMS_JWKS_REFRESH_INTERVAL", "007");
  CHECK(jwks_config::from_environment().value_or(jwks_config{}).refresh_interval == seconds(7));
}

TEST_CASE("AXIOMS_JWKS_PREFETCH is read in every usual spelling and in no other") {
  const environment variables;
  for (const std::string yes : {"true", "TRUE", "True", "1", "yes", "YES", "on", "On"}) {
    CAPTURE(yes);
    variables.set("AXIOMS_JWKS_PREFETCH", yes);
    const auto config = jwks_config::from_environment();
    REQUIRE(config);
    CHECK(config->prefetch);
  }
  for (const std::string no : {"false", "FALSE", "False", "0", "no", "No", "off", "OFF"}) {
    CAPTURE(no);
    variables.set("AXIOMS_JWKS_PREFETCH", no);
    const auto config = jwks_config::from_environment();
    REQUIRE(config);
    CHECK_FALSE(config->prefetch);
  }
  for (const std::string other : {"t", "y", "2", "-1", "00", "truee", " true", "true ", "enabled", "nil"}) {
    CAPTURE(other);
    variables.set("AXIOMS_JWKS_PREFETCH", other);
    const auto config = jwks_config::from_environment();
    REQUIRE_FALSE(config);
    CHECK(config.error().code == errc::invalid_config);
    CHECK(config.error().description == "AXIOMS_JWKS_PREFETCH is '" + other + "'; it must be true or false");
  }
}

TEST_CASE("an event, a counter set and a health report start empty") {
  const axioms::jwks_event event{};
  CHECK(static_cast<int>(event.kind) == 0);
  CHECK(event.url.empty());
  CHECK_FALSE(event.error.has_value());
  CHECK(event.status == 0);
  CHECK(event.duration.count() == 0);
  CHECK(event.added.size() + event.removed.size() + event.changed.size() == 0);
  CHECK(event.next_attempt == std::chrono::steady_clock::time_point());

  const axioms::jwks_stats stats;
  CHECK(stats.hits + stats.misses + stats.stale_served + stats.fetched + stats.not_modified + stats.failed +
            stats.coalesced + stats.throttled + stats.events_dropped ==
        0);

  const axioms::jwks_health health;
  CHECK_FALSE(health.ready);
  CHECK_FALSE(health.stale);
  CHECK_FALSE(health.insecure_transport);
  CHECK(health.age.count() == 0);
  CHECK_FALSE(health.last_error.has_value());
  CHECK(health.consecutive_failures == 0);
  CHECK(health.next_attempt == std::chrono::steady_clock::time_point::max());
}

TEST_CASE("event kinds have stable numbers and names") {
  using axioms::jwks_event_kind;
  const std::pair<jwks_event_kind, std::string_view> kinds[] = {{jwks_event_kind::fetched, "fetched"},
                                                                {jwks_event_kind::not_modified, "not_modified"},
                                                                {jwks_event_kind::failed, "failed"},
                                                                {jwks_event_kind::stale, "stale"},
                                                                {jwks_event_kind::throttled, "throttled"}};
  int number = 1;
  for (const auto& [kind, name] : kinds) {
    CHECK(static_cast<int>(kind) == number++);
    CHECK(axioms::to_string(kind) == name);
  }
  CHECK(axioms::to_string(jwks_event_kind{}) == "unknown");
  CHECK(axioms::to_string(static_cast<jwks_event_kind>(99)) == "unknown");
}
