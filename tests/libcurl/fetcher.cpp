// The example fetcher over libcurl, by the rules for a fetcher: its deadline, its stops, its limit, and no way down from https.
#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "../support/fetching.hpp"
#include "support/curl_fetcher.hpp"

using axioms::errc;
using test_support::raw_connection;
using test_support::raw_server;
using test_support::reply;
using test_support::request_for;
using test_support::throwaway_ca;
using test_support::with_length;
using namespace std::chrono_literals;

namespace {

axioms::result<axioms::fetch_response> fetch(const raw_server& server, std::chrono::milliseconds limit = 5s,
                                             const std::string& ca_pem = {}) {
  axioms::fetch_request request = request_for(server.url(), limit);
  request.max_body_bytes = 1000;
  request.etag = "\"v1\"";
  return curl_fetcher{ca_pem}(request, {});
}

}  // namespace

TEST_CASE("libcurl_fetcher keeps the rules for a fetcher") {
  ::setenv("no_proxy", "127.0.0.1", 1);
  const throwaway_ca ca;
  const auto silent = [](raw_connection& connection) {
    if (connection.read_request())
      connection.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), connection.pause(1min);
  };
  {
    std::string asked;
    const raw_server good(ca.issue(), [&](raw_connection& connection) {
      if (connection.read_request())
        asked = connection.request(), connection.send(with_length("{}", "ETag: \"v2\"\r\n"));
    });
    const auto got = fetch(good, 5s, ca.pem());
    REQUIRE_MESSAGE(got, got.error().description);
    CHECK(got->status == 200);
    CHECK(got->body == "{}");
    CHECK(got->header("etag") == "\"v2\"");
    CHECK(asked.find("If-None-Match: \"v1\"\r\n") != std::string::npos);
    CHECK(asked.find("If-Modified-Since") == std::string::npos);
    CHECK(fetch(good, 5s, throwaway_ca().pem()).error().code == errc::tls_failed);
  }
  const auto refuses = [&](raw_server::script script, errc code) {
    const raw_server server(ca.issue(), std::move(script));
    const auto got = fetch(server, 5s, ca.pem());
    CHECK_MESSAGE((!got && got.error().code == code), (got ? std::to_string(got->status) : got.error().description));
  };
  refuses(reply(with_length(std::string(1001, ' '))), errc::response_too_large);
  refuses(
      [](raw_connection& c) { c.read_request(), c.send("HTTP/1.1 200 OK\r\n\r\n"), c.flood(std::string(4096, ' ')); },
      errc::response_too_large);
  refuses(reply("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), errc::fetch_failed);
  refuses(reply("HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"), errc::fetch_failed);
  refuses(reply("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), errc::fetch_failed);

  const raw_server hanging(silent);
  const auto late = fetch(hanging, 100ms);
  REQUIRE_FALSE(late);
  CHECK(late.error().code == errc::timed_out);

  axioms::stop_source source;
  std::chrono::steady_clock::time_point asked;
  std::thread stopper([&] {
    std::this_thread::sleep_for(100ms);
    asked = std::chrono::steady_clock::now();
    source.request_stop();
  });
  const auto stopped = curl_fetcher{}(request_for(hanging.url()), source.get_token());
  const auto back = std::chrono::steady_clock::now();
  stopper.join();
  REQUIRE_FALSE(stopped);
  CHECK(stopped.error().code == errc::cancelled);
  CHECK(back - asked < 50ms * test_support::slow);
}

TEST_CASE("a token goes to the origin that the application named, and to no other") {
  ::setenv("no_proxy", "127.0.0.1", 1);
  const throwaway_ca ca;
  std::string asked;
  const auto note = [&](raw_connection& connection) {
    if (connection.read_request()) asked = connection.request(), connection.send(with_length("{}"));
  };
  const raw_server other(ca.issue(), note);
  const raw_server server(ca.issue(), [&](raw_connection& connection) {
    if (!connection.read_request()) return;
    asked = connection.request();
    connection.send(asked.find("GET /go ") != 0 ? with_length("{}")
                                                : "HTTP/1.1 302 Found\r\nLocation: " + other.url() + "\r\n\r\n");
  });
  const auto sent = [&](const std::string& url, const std::string& origin) {
    axioms::fetch_request request = request_for(url);
    request.origin = origin;
    CHECK(curl_fetcher{ca.pem(), "s3cret"}(request, {}));
    return asked.find("\r\nAuthorization: Bearer s3cret\r\n") != std::string::npos;
  };
  const std::string origin = "https://127.0.0.1:" + std::to_string(server.port());
  CHECK(sent(server.url(), ""));
  CHECK(sent(server.url(), origin));
  CHECK_FALSE(sent(server.url(), "https://127.0.0.1"));
  CHECK_FALSE(sent(other.url(), origin));
  CHECK_FALSE(sent(server.url("/go"), origin));  // redirected
}
