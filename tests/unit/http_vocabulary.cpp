// The part "http vocabulary": URLs, header look-up, and what headers say about time.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using axioms::errc;
using axioms::fetch_response;
using axioms::detail::parse_url;
using std::chrono::seconds;
using std::chrono::system_clock;

namespace {

system_clock::time_point at(long long unix_seconds) { return system_clock::time_point(seconds(unix_seconds)); }

// 2026-01-01T00:00:00Z
const system_clock::time_point now = at(1767225600);

fetch_response with(std::vector<std::pair<std::string, std::string>> headers) {
  return fetch_response{200, {}, std::move(headers)};
}

std::optional<long long> unix_time(std::string_view text, system_clock::time_point reference = now) {
  const auto parsed = axioms::detail::parse_http_date(text, reference);
  if (!parsed) return std::nullopt;
  return std::chrono::duration_cast<seconds>(parsed->time_since_epoch()).count();
}

std::optional<long long> fresh_for(std::vector<std::pair<std::string, std::string>> headers) {
  const auto lifetime = axioms::detail::freshness_lifetime(with(std::move(headers)), now);
  if (!lifetime) return std::nullopt;
  return lifetime->count();
}

std::optional<long long> retry_in(std::string value) {
  const auto wait = axioms::detail::retry_after(with({{"Retry-After", std::move(value)}}), now);
  if (!wait) return std::nullopt;
  return wait->count();
}

}  // namespace

TEST_CASE("a URL is taken apart") {
  const auto url = parse_url("https://issuer.example:8443/realms/a/keys?v=2#top");
  REQUIRE(url.has_value());
  CHECK(url->https);
  CHECK_FALSE(url->ipv6);
  CHECK(url->scheme() == "https");
  CHECK(url->host == "issuer.example");
  CHECK(url->port == 8443);
  CHECK(url->target == "/realms/a/keys?v=2");
  CHECK(url->authority() == "issuer.example:8443");
  CHECK(url->normalized == "https://issuer.example:8443/realms/a/keys?v=2");
}

TEST_CASE("a URL without a port has its scheme's port") {
  CHECK(parse_url("https://a.example/")->port == 443);
  CHECK(parse_url("http://a.example/")->port == 80);
  CHECK(parse_url("http://a.example/")->scheme() == "http");
  CHECK(parse_url("https://a.example/")->authority() == "a.example");
  CHECK(parse_url("https://a.example:80/")->authority() == "a.example:80");
}

TEST_CASE("the target of a URL is never empty and never holds the fragment") {
  CHECK(parse_url("https://a.example")->target == "/");
  CHECK(parse_url("https://a.example#x")->target == "/");
  CHECK(parse_url("https://a.example?x=1")->target == "/?x=1");
  CHECK(parse_url("https://a.example/p?x=/y")->target == "/p?x=/y");
}

TEST_CASE("an IPv6 address stands in brackets and is kept without them") {
  const auto url = parse_url("http://[2001:DB8::1]:8080/k");
  REQUIRE(url.has_value());
  CHECK(url->ipv6);
  CHECK(url->host == "2001:db8::1");
  CHECK(url->port == 8080);
  CHECK(url->authority() == "[2001:db8::1]:8080");
  CHECK(parse_url("https://[::1]/k")->authority() == "[::1]");
  CHECK(parse_url("https://[::ffff:127.0.0.1]/k").has_value());
}

TEST_CASE("URLs that mean the same have one normalised form") {
  const std::vector<std::pair<std::string_view, std::string_view>> table{
      {"HTTPS://Issuer.EXAMPLE/Keys", "https://issuer.example/Keys"},
      {"https://issuer.example:443/Keys", "https://issuer.example/Keys"},
      {"https://issuer.example:/Keys", "https://issuer.example/Keys"},
      {"https://issuer.example/Keys#fragment", "https://issuer.example/Keys"},
      {"http://issuer.example:80/Keys", "http://issuer.example/Keys"},
      {"https://[2001:DB8::1]:443/Keys", "https://[2001:db8::1]/Keys"},
      // What a server may tell apart stays as it is.
      {"https://issuer.example/keys", "https://issuer.example/keys"},
      {"https://issuer.example/Keys/", "https://issuer.example/Keys/"},
      {"https://issuer.example/Keys?A=b", "https://issuer.example/Keys?A=b"},
      {"https://issuer.example/%7Ea/../b", "https://issuer.example/%7Ea/../b"},
      {"http://issuer.example:443/Keys", "http://issuer.example:443/Keys"},
      {"https://issuer.example:80/Keys", "https://issuer.example:80/Keys"},
  };
  for (const auto& row : table) {
    const std::string_view given = row.first;
    CAPTURE(given);
    const auto url = parse_url(given);
    REQUIRE(url.has_value());
    CHECK(url->normalized == row.second);
    CHECK(parse_url(url->normalized)->normalized == row.second);
  }
}

TEST_CASE("a URL of the greatest length is taken, one byte more is refused, and neither is shown in full") {
  const std::string start = "https://a.example/";
  const std::string longest = start + std::string(2048 - start.size(), 'x');
  CHECK(parse_url(longest).has_value());
  const auto refused = parse_url(longest + "x");
  REQUIRE_FALSE(refused.has_value());
  CHECK(refused.error().code == errc::invalid_url);
  CHECK(refused.error().description.find("2048") != std::string::npos);
  CHECK(refused.error().description.size() < 300);
}

TEST_CASE("a URL that is no absolute http or https URL is refused with a reason") {
  const std::vector<std::pair<std::string, std::string_view>> table{
      {"", "empty"},
      {"/keys", "relative"},
      {"keys.json", "relative"},
      {"//issuer.example/keys", "relative"},
      {"://issuer.example/", "relative"},
      {"1http://issuer.example/", "relative"},
      {"https:/issuer.example/", "//"},
      {"https:issuer.example", "//"},
      {"https://", "no host"},
      {"https:///keys", "no host"},
      {"https://:443/keys", "no host"},
      {"https://?x", "no host"},
      {"https://issuer.example:0/", "port"},
      {"https://issuer.example:65536/", "port"},
      {"https://issuer.example:99999999999999999999/", "port"},
      {"https://issuer.example:-1/", "port"},
      {"https://issuer.example:+80/", "port"},
      {"https://issuer.example:80x/", "port"},
      {"https://issuer.example:8:0/", "port"},
      {"https://[::1]8080/", "port"},
      {"https://[::1/", "bracket"},
      {"https://[]/", "IPv6"},
      {"https://[issuer.example]/", "IPv6"},
      {"https://[fe80::1%25eth0]/", "IPv6"},
      {"https://[1:2:3:4:5:6:7:8:9]/", "IPv6"},
      {"https://issuer.example/a b", "space"},
      {" https://issuer.example/", "space"},
      {"https://issuer.example/\r\nX-Injected: 1", "control"},
      {"https://issuer.example/\n", "control"},
      {"https://issuer.example/\t", "control"},
      {"https://issuer.example/\x7f", "control"},
      {std::string("https://issuer.example/\0keys", 28), "control"},
      {"https://issuer\xC3\xA9.example/", "ASCII"},
      {"https://issuer.example/\xff", "ASCII"},
      {"https://issuer.example\\@evil.example/", "illegal"},
      {"https://issuer.example/<script>", "illegal"},
      {"https://issuer.example/\"", "illegal"},
      {"https://issuer,example/", "illegal"},
      {"https://issuer%2eexample/", "illegal"},
      {"https://" + std::string(254, 'a') + "/", "253"},
  };
  for (const auto& row : table) {
    const std::string& given = row.first;
    CAPTURE(axioms::detail::quote(given));
    const auto url = parse_url(given);
    REQUIRE_FALSE(url.has_value());
    CHECK(url.error().code == errc::invalid_url);
    CHECK(url.error().status_code() == 500);
    CAPTURE(url.error().description);
    CHECK(url.error().description.find(row.second) != std::string::npos);
    for (const char c : url.error().description) CHECK((c >= 0x20 && c < 0x7f));
  }
}

TEST_CASE("a host has no empty label: OpenSSL would take a leading dot for any subdomain") {
  for (const char* text : {"https://.example.com/", "https://./", "https://../", "https://a..b/", "https://a.b../",
                           "http://.localhost:80/k", "https://..a/"}) {
    const auto url = parse_url(text);
    CAPTURE(text);
    REQUIRE_FALSE(url.has_value());
    CHECK(url.error().code == errc::invalid_url);
    CHECK(url.error().description.find("empty label") != std::string::npos);
  }
  CHECK(parse_url("https://a.b./")->host == "a.b.");  // the root's
}

TEST_CASE("the origin of a URL is its scheme, host and port") {
  for (const auto& [text, origin] : std::vector<std::pair<std::string_view, std::string_view>>{
           {"HTTPS://Issuer.EXAMPLE:443/Keys?a=b", "https://issuer.example"},
           {"https://issuer.example", "https://issuer.example"},
           {"https://issuer.example?a=/b", "https://issuer.example"},
           {"http://[2001:DB8::1]:8080/k", "http://[2001:db8::1]:8080"}}) {
    CHECK(axioms::detail::origin_of(parse_url(text)->normalized) == origin);
  }
}

TEST_CASE("a URL of another scheme is refused as such") {
  for (const std::string_view given :
       {"file:///etc/passwd", "ftp://issuer.example/keys", "ws://issuer.example/", "javascript:alert(1)", "data:,x",
        "httpss://issuer.example/", "git+ssh://issuer.example/", "gopher://127.0.0.1:6379/_x", "urn:x:y"}) {
    CAPTURE(given);
    const auto url = parse_url(given);
    REQUIRE_FALSE(url.has_value());
    CHECK(url.error().code == errc::unsupported_scheme);
    CHECK(url.error().oauth_error() == "server_error");
    CHECK(url.error().status_code() == 500);
    CHECK(url.error().description.find("only http and https") != std::string::npos);
  }
}

TEST_CASE("user-info in a URL is refused, and its password is never shown, whatever else is wrong") {
  for (const std::string_view given : {
           "https://user:hunter2@issuer.example/",
           "https://hunter2@issuer.example/",
           "https://user:hunter2@issuer.example:99999/",
           "https://user:hunter2@issuer.example/a b",
           "https://user:hunter2@issuer.example/\n",
           "https://user:hunter2 @issuer.example/",
           "https://user:hunter2\xC3\xA9@issuer.example/",
           "https://user:hunter2^@issuer.example/",
           "https:user:hunter2@issuer.example/",
           "ftp://user:hunter2@issuer.example/",
           "user:hunter2@issuer.example/",
           "//user:hunter2@issuer.example/",
       }) {
    CAPTURE(axioms::detail::quote(given));
    const auto url = parse_url(given);
    REQUIRE_FALSE(url.has_value());
    CHECK((url.error().code == errc::invalid_url || url.error().code == errc::unsupported_scheme));
    CHECK(url.error().description.find("hunter2") == std::string::npos);
    CHECK_FALSE(url.error().description.empty());
  }
  const auto url = parse_url("https://user:hunter2@issuer.example/");
  CHECK(url.error().code == errc::invalid_url);
  CHECK(url.error().description.find("user-info") != std::string::npos);
  CHECK(url.error().description.find("user:") == std::string::npos);
  CHECK(parse_url("https://issuer.example/@path?x=a@b").has_value());
}

TEST_CASE("random bytes in a URL give a URL or an error of the two kinds, and an accepted one is stable" *
          doctest::test_suite("slow")) {
  std::mt19937 random(20260101);  // NOLINT(cert-msc51-cpp)
  const std::string_view alphabet = "htps:/.@[]?#%a1-\\ \n\xff:80";
  int accepted = 0;
  for (int round = 0; round < 4'000; ++round) {
    std::string text = round % 2 == 0 ? "http://a" : "";
    for (auto length = random() % 14; length > 0; --length) text += alphabet[random() % alphabet.size()];
    const auto url = parse_url(text);
    if (!url) {
      REQUIRE((url.error().code == errc::invalid_url || url.error().code == errc::unsupported_scheme));
      continue;
    }
    ++accepted;
    const auto again = parse_url(url->normalized);
    REQUIRE(again.has_value());
    REQUIRE(again->normalized == url->normalized);
    REQUIRE(url->target.front() == '/');
    REQUIRE(url->port != 0);
    REQUIRE_FALSE(url->host.empty());
  }
  CHECK(accepted > 50);
}

TEST_CASE("a header is found whatever the case of its letters, and the first of several counts") {
  const fetch_response response = with({{"Content-Type", "application/json"}, {"ETAG", "\"1\""}, {"etag", "\"2\""}});
  CHECK(response.header("content-type") == "application/json");
  CHECK(response.header("CONTENT-TYPE") == "application/json");
  CHECK(response.header("ETag") == "\"1\"");
  CHECK(response.header("ETags").empty());
  CHECK(response.header("ETa").empty());
  CHECK(response.header("").empty());
  CHECK(fetch_response().header("ETag").empty());
}

TEST_CASE("a value that could split a request is not safe for a header") {
  using axioms::detail::is_header_safe;
  CHECK(is_header_safe("W/\"abc\""));
  CHECK(is_header_safe("a\tb"));
  CHECK(is_header_safe("\xC3\xA9"));
  CHECK_FALSE(is_header_safe("a\r\nX: 1"));
  CHECK_FALSE(is_header_safe("a\n"));
  CHECK_FALSE(is_header_safe(std::string_view("a\0b", 3)));
  CHECK_FALSE(is_header_safe("\x7f"));
}

TEST_CASE("seconds in a header are whole digits and never overflow") {
  using axioms::detail::parse_delta_seconds;
  CHECK(parse_delta_seconds("0") == seconds(0));
  CHECK(parse_delta_seconds("300") == seconds(300));
  CHECK(parse_delta_seconds(" \t300 ") == seconds(300));
  CHECK(parse_delta_seconds("0000300") == seconds(300));
  CHECK(parse_delta_seconds("2147483647") == seconds(2147483647));
  CHECK(parse_delta_seconds("2147483648") == seconds(2147483647));
  CHECK(parse_delta_seconds("99999999999999999999999999") == seconds(2147483647));
  for (const std::string_view bad : {"", " ", "-1", "+1", "1.5", "1e3", "0x10", "12 34", "12s", "\xff"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_delta_seconds(bad).has_value());
  }
}

TEST_CASE("the three forms of an HTTP date mean the same second") {
  CHECK(unix_time("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777);
  CHECK(unix_time("Sunday, 06-Nov-94 08:49:37 GMT") == 784111777);
  CHECK(unix_time("Sun Nov  6 08:49:37 1994") == 784111777);
  CHECK(unix_time("Sun Nov 16 08:49:37 1994") == 784111777 + 10 * 86400);
  CHECK(unix_time("  Sun, 06 Nov 1994 08:49:37 GMT ") == 784111777);
}

TEST_CASE("every month of an HTTP date is known, and leap days are") {
  const std::string_view months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const long long days_before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  for (std::size_t i = 0; i < 12; ++i) {
    CAPTURE(months[i]);
    const std::string text = "Mon, 01 " + std::string(months[i]) + " 2026 00:00:00 GMT";
    CHECK(unix_time(text) == 1767225600 + days_before[i] * 86400);
  }
  CHECK(unix_time("Thu, 29 Feb 2024 12:00:00 GMT") == 1709208000);
  CHECK_FALSE(unix_time("Sat, 29 Feb 2025 12:00:00 GMT").has_value());
  CHECK(unix_time("Sat, 31 Dec 2016 23:59:60 GMT") == 1483228800);  // a leap second
}

TEST_CASE("a year of two digits is at most fifty years ahead") {
  CHECK(unix_time("Friday, 01-Jan-27 00:00:00 GMT") == 1798761600);   // 2027
  CHECK(unix_time("Tuesday, 01-Jan-74 00:00:00 GMT") == 3281990400);  // 2074
  CHECK(unix_time("Sunday, 01-Jan-78 00:00:00 GMT") == 252460800);    // 1978
  CHECK(unix_time("Friday, 01-Jan-99 00:00:00 GMT") == 915148800);    // 1999
  // The same text some years earlier means the past century.
  CHECK(unix_time("Monday, 01-Jan-74 00:00:00 GMT", at(946684800)) == 126230400);  // seen in 2000: 1974
}

TEST_CASE("text that is no HTTP date is none") {
  for (const std::string_view bad : {"",
                                     " ",
                                     "0",
                                     "-1",
                                     "now",
                                     "Sun",
                                     "GMT",
                                     ",,,,,,",
                                     "- - - - - -",
                                     "Sun, 06 Nov 1994",
                                     "Sun, 06 Nov 1994 08:49:37",
                                     "Sun, 06 Nov 1994 08:49:37 UTC",
                                     "Sun, 06 Nov 1994 08:49:37 GMT x",
                                     "Sun, 06 Nov 1994 08:49:37 +0000",
                                     "Sun, 00 Nov 1994 08:49:37 GMT",
                                     "Sun, 32 Nov 1994 08:49:37 GMT",
                                     "Sun, 31 Nov 1994 08:49:37 GMT",
                                     "Sun, 262 Nov 1994 08:49:37 GMT",
                                     "Sun, 06 Nvo 1994 08:49:37 GMT",
                                     "Sun, 06 anf 1994 08:49:37 GMT",
                                     "Sun, 06 Nov 1994 24:00:00 GMT",
                                     "Sun, 06 Nov 1994 08:60:37 GMT",
                                     "Sun, 06 Nov 1994 08:49:61 GMT",
                                     "Sun, 06 Nov 1994 8:49:37 GMT",
                                     "Sun, 06 Nov 1994 08-49-37 GMT",
                                     "Sun, 06 Nov 1994 08:49:3x GMT",
                                     "Sun, 06 Nov 99999 08:49:37 GMT",
                                     "Sun, 06 Nov 994 08:49:37 GMT",
                                     "Sun, 06 Nov 0001 08:49:37 GMT",
                                     "Sun, 06 Nov 9999 08:49:37 GMT",
                                     "1994-11-06T08:49:37Z",
                                     "784111777",
                                     "Sun, 99999999999999999999 Nov 1994 08:49:37 GMT"}) {
    CAPTURE(bad);
    CHECK_FALSE(unix_time(bad).has_value());
  }
}

TEST_CASE("a damaged HTTP date is none, or one between 1970 and 2200" * doctest::test_suite("slow")) {
  std::mt19937 random(7);  // NOLINT(cert-msc51-cpp)
  const std::string_view whole[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                    "Sun Nov  6 08:49:37 1994"};
  int parsed = 0;
  for (int round = 0; round < 6'000; ++round) {
    std::string text(whole[static_cast<std::size_t>(round) % 3]);
    for (auto damage = 1 + random() % 3; damage > 0 && !text.empty(); --damage) {
      const auto where = random() % text.size();
      switch (random() % 3) {
        case 0: text[where] = static_cast<char>(random() % 256); break;
        case 1: text.erase(where, 1 + random() % 3); break;
        default: text.insert(where, 1, "0123456789 ,-:"[random() % 14]); break;
      }
    }
    const auto time = unix_time(text);
    if (!time) continue;
    ++parsed;
    CAPTURE(axioms::detail::quote(text));
    REQUIRE(*time >= 0);
    REQUIRE(*time <= 7'289'654'401);  // the end of 2200
  }
  CHECK(parsed > 50);
}

TEST_CASE("max-age less Age says how long an answer is fresh") {
  CHECK(fresh_for({{"Cache-Control", "max-age=300"}}) == 300);
  CHECK(fresh_for({{"cache-control", "public, MAX-AGE=300 , must-revalidate"}}) == 300);
  CHECK(fresh_for({{"Cache-Control", "max-age=\"300\""}}) == 300);
  CHECK(fresh_for({{"Cache-Control", "public,,max-age=300,"}}) == 300);
  CHECK(fresh_for({{"Cache-Control", "max-age=300"}, {"Age", "100"}}) == 200);
  CHECK(fresh_for({{"Cache-Control", "max-age=300"}, {"Age", "nonsense"}}) == 300);
  CHECK(fresh_for({{"Cache-Control", "max-age=99999999999999999999"}}) == 2147483647);
}

TEST_CASE("several Cache-Control headers count as one, and the least max-age wins") {
  CHECK(fresh_for({{"Cache-Control", "public"}, {"Cache-Control", "max-age=300"}}) == 300);
  CHECK(fresh_for({{"Cache-Control", "max-age=300, max-age=200"}}) == 200);
  CHECK(fresh_for({{"Cache-Control", "max-age=200"}, {"cache-control", "max-age=300"}}) == 200);
}

TEST_CASE("an answer that is stale already or forbids caching has no freshness") {
  CHECK_FALSE(fresh_for({}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", ""}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "max-age=0"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "max-age=300"}, {"Age", "300"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "max-age=300"}, {"Age", "4000000000"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "no-cache, max-age=300"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "max-age=300"}, {"Cache-Control", "No-Store"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "max-age"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "max-age=-5"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "max-age=1.5"}}).has_value());
}

TEST_CASE("a directive that only looks like another has no meaning") {
  CHECK_FALSE(fresh_for({{"Cache-Control", "s-maxage=300"}}).has_value());
  CHECK_FALSE(fresh_for({{"Cache-Control", "x-max-age=300"}}).has_value());
  CHECK(fresh_for({{"Cache-Control", "ext=\"a, max-age=1, no-store\", max-age=60"}}) == 60);
  CHECK(fresh_for({{"Cache-Control", "no-cached, max-age=60"}}) == 60);
}

TEST_CASE("Expires counts from Date, or from now, and only without max-age") {
  CHECK(fresh_for({{"Expires", "Thu, 01 Jan 2026 00:10:00 GMT"}}) == 600);
  CHECK(fresh_for({{"Expires", "Thu, 01 Jan 2026 00:10:00 GMT"}, {"Date", "Thu, 01 Jan 2026 00:05:00 GMT"}}) == 300);
  CHECK(fresh_for({{"Expires", "Thu, 01 Jan 2026 00:10:00 GMT"}, {"Date", "yesterday"}}) == 600);
  CHECK(fresh_for({{"Expires", "Thu, 01 Jan 2026 00:10:00 GMT"}, {"Age", "100"}}) == 500);
  CHECK(fresh_for({{"Expires", "Thu, 01 Jan 2026 00:10:00 GMT"}, {"Cache-Control", "max-age=60"}}) == 60);
  CHECK_FALSE(fresh_for({{"Expires", "Thu, 01 Jan 2026 00:10:00 GMT"}, {"Cache-Control", "no-store"}}).has_value());
  CHECK_FALSE(fresh_for({{"Expires", "Wed, 31 Dec 2025 23:59:59 GMT"}}).has_value());
  CHECK_FALSE(fresh_for({{"Expires", "0"}}).has_value());
  CHECK_FALSE(fresh_for({{"Expires", "-1"}}).has_value());
}

TEST_CASE("Retry-After is read in seconds and as a date") {
  CHECK(retry_in("120") == 120);
  CHECK(retry_in("0") == 0);
  CHECK(retry_in(" 5 ") == 5);
  CHECK(retry_in("99999999999999") == 2147483647);
  CHECK(retry_in("Thu, 01 Jan 2026 00:02:00 GMT") == 120);
  CHECK(retry_in("Thursday, 01-Jan-26 00:02:00 GMT") == 120);
  CHECK(retry_in("Thu Jan  1 00:02:00 2026") == 120);
  CHECK(retry_in("Wed, 31 Dec 2025 00:00:00 GMT") == 0);
}

TEST_CASE("a Retry-After that is neither is none") {
  for (const std::string_view bad : {"", "-5", "1.5", "soon", "120s", "Thu, 01 Jan 2026"}) {
    CAPTURE(bad);
    CHECK_FALSE(retry_in(std::string(bad)).has_value());
  }
  CHECK_FALSE(axioms::detail::retry_after(fetch_response(), now).has_value());
}
