// The Beast client of the examples against good and bad servers: whom it trusts, its limits, its deadline, and that it answers once.
#include "examples/support/beast_fetcher.hpp"
#include "support/eventually.hpp"
#include "support/raw_server.hpp"
#include "support/throwaway_ca.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>

using namespace std::chrono_literals;
using axioms::errc;
using test_support::raw_connection, test_support::raw_server, test_support::throwaway_ca;

namespace {

struct landed {
  int count = 0;
  demo::response_result answer = axioms::error{errc::no_resources, "not called", 0};
};

// One exchange on a loop of its own; returns when the loop has nothing left to do.
landed fetch(axioms::fetch_request request, const std::string& ca_pem, axioms::stop_token stop = {}) {
  boost::asio::io_context loop(1);
  demo::beast_fetcher client(loop, ca_pem);
  landed out;
  client.async_fetch(std::move(request), std::move(stop), [&](demo::response_result answer) {
    ++out.count;
    out.answer = std::move(answer);
  });
  CHECK(out.count == 0);
  loop.run();
  CHECK(out.count == 1);
  return out;
}
axioms::fetch_request request_for(std::string url) {
  axioms::fetch_request out;
  out.url = std::move(url);
  return out;
}
errc code(const landed& out) { return out.answer ? errc{} : out.answer.error().code; }

raw_server::script saying(std::string text) {
  return [text](raw_connection& connection) {
    if (connection.read_request()) connection.send(text);
  };
}
std::string with_body(std::size_t size) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(size) + "\r\n\r\n" + std::string(size, 'x');
}

}  // namespace

TEST_CASE("a response comes as it is, by http and by https, and the validators and Accept go with the request") {
  const throwaway_ca ca;
  const auto answer = [](raw_connection& connection) {
    if (!connection.read_request()) return;
    const bool asked = connection.request().find("GET /jwks?a=b HTTP/1.1\r\n") == 0 &&
                       connection.request().find("If-None-Match: \"1\"\r\n") != std::string::npos &&
                       connection.request().find("If-Modified-Since: yesterday\r\n") != std::string::npos &&
                       connection.request().find("Accept: text/x\r\n") != std::string::npos;
    connection.send("HTTP/1.1 " + std::string(asked ? "203" : "400") +
                    " OK\r\nETag: \"2\"\r\nContent-Length: 2\r\n\r\n{}");
  };
  raw_server plain(answer), secure(ca.issue(), answer);
  for (const std::string& base : {plain.url(), secure.url()}) {
    auto request = request_for(base.substr(0, base.find('/', 8)) + "/jwks?a=b");
    request.etag = "\"1\"";
    request.last_modified = "yesterday";
    request.accept = "text/x";
    const auto out = fetch(request, ca.pem());
    REQUIRE(out.answer.has_value());
    CHECK(out.answer->status == 203);
    CHECK(out.answer->header("etag") == "\"2\"");
    CHECK(out.answer->body == "{}");
  }
}

TEST_CASE("a token goes to the origin that the application named, and to no other") {
  std::string asked;
  raw_server server([&](raw_connection& connection) {
    if (!connection.read_request()) return;
    asked = connection.request();
    connection.send(with_body(2));
  });
  const auto sent = [&](const std::string& origin) {
    boost::asio::io_context loop(1);
    demo::beast_fetcher client(loop, {}, "s3cret");
    auto request = request_for(server.url());
    request.origin = origin;
    client.async_fetch(std::move(request), {}, [](const demo::response_result& answer) { CHECK(answer.has_value()); });
    loop.run();
    return asked.find("\r\nAuthorization: Bearer s3cret\r\n") != std::string::npos;
  };
  CHECK(sent(""));
  CHECK(sent("http://127.0.0.1:" + std::to_string(server.port())));
  CHECK_FALSE(sent("http://127.0.0.1"));
  CHECK_FALSE(sent("https://127.0.0.1:" + std::to_string(server.port())));
}

TEST_CASE("peer and host are verified") {
  const throwaway_ca ca, other;
  raw_server good(ca.issue(), saying(with_body(2)));
  CHECK(code(fetch(request_for(good.url()), ca.pem())) == errc{});
  CHECK(code(fetch(request_for(good.url()), other.pem())) == errc::tls_failed);
  CHECK(code(fetch(request_for(good.url()), {})) == errc::tls_failed);  // the system's authorities
  raw_server elsewhere(ca.issue({.names = "DNS:elsewhere.test"}), saying(with_body(2)));
  CHECK(code(fetch(request_for(elsewhere.url()), ca.pem())) == errc::tls_failed);
  raw_server expired(ca.issue({.expired = true}), saying(with_body(2)));
  CHECK(code(fetch(request_for(expired.url()), ca.pem())) == errc::tls_failed);
}

TEST_CASE("body and header have limits") {
  auto request = [](const raw_server& server) {
    auto out = request_for(server.url());
    out.max_body_bytes = 1000;
    return out;
  };
  raw_server fits(saying(with_body(1000))), too_long(saying(with_body(1001)));
  CHECK(code(fetch(request(fits), {})) == errc{});
  CHECK(code(fetch(request(too_long), {})) == errc::response_too_large);
  raw_server endless([](raw_connection& connection) {
    if (connection.read_request() && connection.send("HTTP/1.1 200 OK\r\n\r\n"))
      connection.flood(std::string(4096, 'x'));
  });
  CHECK(code(fetch(request(endless), {})) == errc::response_too_large);
  raw_server header([](raw_connection& connection) {
    if (connection.read_request() && connection.send("HTTP/1.1 200 OK\r\n"))
      connection.flood("X: yyyyyyyyyyyyyyyyyyy\r\n");
  });
  CHECK(code(fetch(request(header), {})) == errc::response_too_large);
  raw_server nonsense(saying("hello\r\n\r\n")), cut(saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"));
  CHECK(code(fetch(request(nonsense), {})) == errc::fetch_failed);
  CHECK(code(fetch(request(cut), {})) == errc::fetch_failed);
}

TEST_CASE("the deadline is of the whole exchange, and a stop ends it at once, from any thread") {
  const auto silent = [](raw_connection& connection) {
    if (connection.read_request()) connection.wait_for_close();
  };
  raw_server stuck(silent);
  raw_server dripping([](raw_connection& connection) {
    if (connection.read_request()) connection.drip(with_body(100000), 5ms);
  });
  raw_server no_handshake([](raw_connection& connection) { connection.wait_for_close(); });
  const std::pair<raw_server&, std::string> all[] = {
      {stuck, stuck.url()},
      {dripping, dripping.url()},
      {no_handshake, "https" + no_handshake.url().substr(no_handshake.url().find(':'))}};
  for (const auto& [server, url] : all) {
    auto request = request_for(url);
    request.timeout = 500ms;
    const auto begun = std::chrono::steady_clock::now();
    CHECK(code(fetch(request, {})) == errc::timed_out);
    const auto took = std::chrono::steady_clock::now() - begun;
    CHECK(took >= 500ms);
    CHECK(took < 5s * support::slowness);

    axioms::stop_source stop, early;
    std::thread stopper([&stop, &at = server] {
      static_cast<void>(support::eventually([&] { return at.connections() == 2; }));
      stop.request_stop();
    });
    CHECK(code(fetch(request_for(url), {}, stop.get_token())) == errc::cancelled);
    stopper.join();
    early.request_stop();
    CHECK(code(fetch(request_for(url), {}, early.get_token())) == errc::cancelled);
    CHECK(server.connections() == 2);  // one that was told to stop before it began connects nowhere
  }
}

TEST_CASE("nobody there") {
  std::string url;
  {
    url = raw_server([](raw_connection&) {}).url();
  }
  CHECK(code(fetch(request_for(url), {})) == errc::connect_failed);
}
