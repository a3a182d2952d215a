// The default fetcher against servers that mean harm: for each the error that it must give, and when. One table, every
// row a server of its own; and what must hold for the process while all of them try.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/fetching.hpp"
#include "../support/httplib_release.hpp"
#include "../support/raw_server.hpp"
#include "../support/throwaway_ca.hpp"

using axioms::errc;
using test_support::certificate_options;
using test_support::direct;
using test_support::open_descriptors;
using test_support::outcome;
using test_support::raw_connection;
using test_support::raw_server;
using test_support::reply;
using test_support::request_for;
using test_support::running_threads;
using test_support::server_identity;
using test_support::settles_at;
using test_support::slow;
using test_support::temp_file;
using test_support::throwaway_ca;
using test_support::timed_fetch;
using test_support::trusting;
using test_support::with_length;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

// ---- the table -----------------------------------------------------------------------------------

enum class over { plain, tls, both, handshake };  // handshake: the script begins where TLS would

struct row {
  std::string name;
  over where = over::both;
  errc expected{};    // errc{}: a good answer
  std::string words;  // which the description holds; of a good answer, the ETag
  raw_server::script run;
  std::optional<errc> also = std::nullopt;  // for what the kernel may tell in two ways
  raw_server::options how = {};
  std::optional<server_identity> identity = std::nullopt;
  std::string host = "127.0.0.1";
  int connections = 1;
  std::size_t max_body = 100'000;
  bool busy = false;  // keeps two processors busy, and so runs alone
};

constexpr auto deadline = 700ms;  // of those that hang
constexpr auto at_once = 3s;      // of those that are refused, so that a slow machine does not turn them into timeouts
constexpr auto drip_pause = 200ms;

constexpr int always = 1'000'000;

const std::string ok = "HTTP/1.1 200 OK\r\n";
const std::string chunked = ok + "Transfer-Encoding: chunked\r\n\r\n";

// A script that goes on where the request has been read.
template <class Then>
raw_server::script then(Then action) {
  return [action](raw_connection& connection) {
    if (connection.read_request()) action(connection);
  };
}
// A polite end, so that the text itself is what is wrong.
raw_server::script say(std::string text) {
  return then([text = std::move(text)](raw_connection& connection) {
    connection.send(text);
    connection.close_notify();
  });
}
raw_server::script redirect(std::string location) {
  return say("HTTP/1.1 302 Found\r\nLocation: " + location + "\r\n\r\n");
}
std::string padded(const std::string& text, std::size_t size) { return text + std::string(size, 'x'); }

void hang(std::vector<row>& table) {
  const auto add = [&](const char* name, over where, const char* words, raw_server::script run) {
    table.push_back({name, where, errc::timed_out, words, std::move(run)});
  };
  const auto drip = [](const std::string& first, const std::string& rest) {
    return then([=](raw_connection& c) { c.send(first), c.drip(rest, drip_pause); });
  };
  add("slow status line", over::both, "waiting for the response", drip("", ok));
  add("slow headers", over::both, "waiting for the response", drip(ok, "ETag: \"1\"\r\nX: 1\r\n"));
  add("slow body", over::both, "reading the body", drip(ok + "Content-Length: 20\r\n\r\n", std::string(20, ' ')));
  add("slow body until the end of the connection", over::both, "reading the body",
      drip(ok + "\r\n", std::string(20, ' ')));
  add("slow chunks", over::both, "reading the body", drip(chunked, "1\r\n \r\n1\r\n \r\n"));
  add("a chunk of a byte now and then", over::both, "reading the body", then([](raw_connection& c) {
        c.send(chunked);
        while (c.pause(5ms) && c.send("1\r\n \r\n")) {}
      }));
  add("silent after accept", over::plain, "waiting for the response", [](raw_connection& c) { c.pause(1min); });
  add("silent after the request", over::both, "waiting for the response",
      then([](raw_connection& c) { c.wait_for_close(); }));
  add("silent after the head", over::both, "reading the body",
      then([](raw_connection& c) { c.send(ok + "Content-Length: 2\r\n\r\n"), c.wait_for_close(); }));
  if (test_support::httplib_release >= 1202) {  // which know trailers
    add("silent in the trailers", over::both, "reading the body",
        then([](raw_connection& c) { c.send(chunked + "0\r\nX: 1\r\n"), c.wait_for_close(); }));
  }
  add("interim responses now and then", over::both, "waiting for the response", then([](raw_connection& c) {
        while (c.pause(drip_pause) && c.send("HTTP/1.1 103 Early Hints\r\n\r\n")) {}
      }));
  add("handshake: silent after accept", over::handshake, "shaking hands", [](raw_connection& c) { c.pause(1min); });
  add("handshake: silent after the ClientHello", over::handshake, "shaking hands",
      [](raw_connection& c) { c.wait_for_close(); });
  add("handshake: stalls in the middle", over::handshake, "shaking hands", [](raw_connection& c) {
    const std::string answer = c.hello_answer();
    c.send(answer.substr(0, answer.size() / 2)), c.wait_for_close();
  });
  add("handshake: drips", over::handshake, "shaking hands",
      [](raw_connection& c) { c.drip(c.hello_answer(), drip_pause); });
  add("handshake: drips fast", over::handshake, "shaking hands",
      [](raw_connection& c) { c.drip(c.hello_answer(), 2ms); });
  add("handshake: a record that is announced and does not come", over::handshake, "shaking hands",
      [](raw_connection& c) { c.drip("\x16\x03\x03\x40" + std::string(9999, '\0'), 20ms); });
  // Where the peer never lets a call wait. These small pieces take longer to read than to send.
  add("handshake: HelloRequests for ever", over::handshake, "shaking hands", [](raw_connection& c) {
    c.hello_answer(), c.flood("\x16\x03\x03\x40"s + std::string(1 + (1 << 14), '\0'));  // OpenSSL skips each
  });
  table.back().busy = true;
  std::string crumbs;
  for (int i = 0; i < 1'000; ++i) crumbs += padded("1;", 100) + "\r\nx\r\n";  // the body stays small
  add("chunks of one byte for ever", over::both, "reading the body",
      then([=](raw_connection& c) { c.send(chunked), c.flood(crumbs); }));
  table.back().max_body = std::size_t{1} << 30;
  table.back().busy = true;
  raw_server::options full;
  full.accepting = false;
  table.push_back({.name = "never accepting",
                   .where = over::plain,
                   .expected = errc::timed_out,
                   .words = "connecting to 127.0.0.1",
                   .run = [](raw_connection&) {},
                   .how = full});
}

void break_off(std::vector<row>& table) {
  const auto add = [&](const char* name, over where, errc expected, const char* words, raw_server::script run,
                       std::optional<errc> also = std::nullopt) {
    table.push_back({name, where, expected, words, std::move(run), also});
  };
  const std::string part = ok + "Content-Length: 10\r\n\r\n123";
  // Right after accept() it may still come while the client connects.
  add(
      "reset at accept", over::plain, errc::fetch_failed, "127.0.0.1", [](raw_connection& c) { c.reset(); },
      errc::connect_failed);
  add(
      "reset at accept, where TLS is expected", over::handshake, errc::tls_failed, "127.0.0.1",
      [](raw_connection& c) { c.reset(); }, errc::connect_failed);
  add("reset after the handshake", over::tls, errc::fetch_failed, "127.0.0.1", [](raw_connection& c) { c.reset(); });
  add("reset after the ClientHello", over::handshake, errc::tls_failed, "TLS handshake with",
      [](raw_connection& c) { c.read_byte(), c.reset(); });
  add("reset in the middle of the handshake", over::handshake, errc::tls_failed, "TLS handshake with",
      [](raw_connection& c) {
        const std::string answer = c.hello_answer();
        c.send(answer.substr(0, answer.size() / 2)), c.pause(20ms), c.reset();
      });
  add("closed in the middle of the handshake", over::handshake, errc::tls_failed, "TLS handshake with",
      [](raw_connection& c) { c.hello_answer(); });
  add("no TLS at all", over::handshake, errc::tls_failed, "TLS handshake with",
      [](raw_connection& c) { c.send("HTTP/1.1 400 Bad Request\r\n\r\n"), c.wait_for_close(); });
  add("reset after the request", over::both, errc::fetch_failed, "failed", then([](raw_connection& c) { c.reset(); }));
  add("reset in the head", over::both, errc::fetch_failed, "failed",
      then([](raw_connection& c) { c.send(ok), c.pause(20ms), c.reset(); }));
  add("reset in the body", over::both, errc::fetch_failed, "failed",
      then([=](raw_connection& c) { c.send(part), c.pause(20ms), c.reset(); }));
  add("reset in the body, at once", over::both, errc::fetch_failed, "failed",
      then([=](raw_connection& c) { c.send(part), c.reset(); }));
  add("closed without a word", over::both, errc::fetch_failed, "the connection was closed", say(""));
  add("closed in the head", over::both, errc::fetch_failed, "the connection was closed", say(ok + "A: 1\r\n"));
  add("truncated body", over::both, errc::fetch_failed, "the connection was closed", say(part));
  add("truncated chunk", over::both, errc::fetch_failed, "the connection was closed", say(chunked + "a\r\n12"));
  add("truncated after a chunk", over::both, errc::fetch_failed, "the connection was closed", say(chunked + "2\r\n12"));
  add("truncated before the last chunk", over::both, errc::fetch_failed, "the connection was closed",
      say(chunked + "2\r\n12\r\n"));
  add("TLS end without close_notify", over::tls, errc::fetch_failed, "close_notify", reply(ok + "\r\nabc"));
  add("TLS end without close_notify in a body with length", over::tls, errc::fetch_failed, "close_notify", reply(part));
}

void too_much(std::vector<row>& table) {
  const auto add = [&](const char* name, const char* words, raw_server::script run) {
    table.push_back({name, over::both, errc::response_too_large, words, then(std::move(run))});
  };
  const auto flood = [](std::string first, std::string rest) {
    return [=](raw_connection& c) { c.send(first), c.flood(rest); };
  };
  const std::string piece(1 << 14, 'x');
  const char* body = "the body has more than 100000 bytes";
  add("one byte too many announced", body,
      [](raw_connection& c) { c.send(ok + "Content-Length: 100001\r\n\r\n"), c.wait_for_close(); });
  add("huge Content-Length", body,
      [](raw_connection& c) { c.send(ok + "Content-Length: 18446744073709551615\r\n\r\n"), c.wait_for_close(); });
  add("endless body", body, flood(ok + "\r\n", piece));
  add("endless chunked body", body, flood(chunked, "4000\r\n" + piece + "\r\n"));
  std::string crumbs;
  for (int i = 0; i < 1000; ++i) crumbs += "1\r\nx\r\n";
  add("endless chunks of one byte", "more than 5000 bytes", flood(chunked, crumbs));
  table.back().max_body = 5000;
  add("a chunk of 2^64-1", "", [](raw_connection& c) { c.send(chunked + "ffffffffffffffff\r\n"), c.flood(piece); });
  table.back().also = errc::fetch_failed;  // of releases that see an overflow there
  add("a chunk of 2^63", body, [](raw_connection& c) { c.send(chunked + "8000000000000000\r\n"), c.flood(piece); });
  add("a chunk of 2^63 after another", body,
      [](raw_connection& c) { c.send(chunked + "1\r\nx\r\n8000000000000000\r\n"), c.flood(piece); });
  const char* head = "the response head has more than 65536 bytes";
  add("status line of 64 KB", head,
      [](raw_connection& c) { c.send(padded("HTTP/1.1 200 ", 1 << 16) + "\r\n\r\n"), c.wait_for_close(); });
  add("endless status line", head, flood("HTTP/1.1 200 ", piece));
  add("10,000 headers", head, [](raw_connection& c) {
    std::string text = ok;
    for (int i = 0; i < 10'000; ++i) text += "X-" + std::to_string(i) + ": 1\r\n";
    c.send(text + "\r\n"), c.wait_for_close();
  });
  add("few headers, 64 KB together", head, [](raw_connection& c) {
    std::string text = ok;
    for (int i = 0; i < 9; ++i) text += padded("X: ", 8000) + "\r\n";
    c.send(text + "\r\n"), c.wait_for_close();
  });
  add("endless header line", head, flood(ok + "A: ", piece));
  add("endless folds of a header line", head, flood(ok + "A: 1\r\n", " 1\r\n"));
  add("endless headers", head, flood(ok, "X-Header: 1\r\n"));
  add("endless headers, each long", head, flood(ok, padded("A: ", 4000) + "\r\n"));
  add("endless lines that are no headers", head, flood(ok, "no colon\n"));
  // Our limit, or one that the release has.
  const auto between = [&](const char* name, std::string first, std::string rest) {
    add(name, "", flood(std::move(first), std::move(rest)));
    table.back().also = errc::fetch_failed;
  };
  between("endless trailers", chunked + "0\r\n", "A: 1\r\n");
  between("endless chunk extension", chunked + "3;", piece);
  between("an endless line after a chunk", chunked + "1\r\nx", piece);
  between("chunks of one byte, each with an extension of 2 KB", chunked, padded("1;", 2000) + "\r\nx\r\n");
  // Each is within the limits of one head.
  std::string early = "HTTP/1.1 103 Early Hints\r\n";
  for (int i = 0; i < 3; ++i) early += padded("Link: ", 7000) + "\r\n";
  add("interim responses, 64 KB together", head, flood("", early + "\r\n"));
}

void misframed(std::vector<row>& table) {
  const auto add = [&](const char* name, const char* words, std::string text) {
    table.push_back({name, over::both, errc::fetch_failed, words, say(std::move(text))});
  };
  // What some releases of cpp-httplib take, from one to before another: no harm on a connection that serves one response, whose
  // body is JSON.
  const auto taken = [&](const std::string& name, int from, int until, std::string text) {
    const bool good = test_support::httplib_release >= from && test_support::httplib_release < until;
    table.push_back(
        {name, over::both, good ? errc{} : errc::fetch_failed, good ? "" : "bad response", say(std::move(text))});
  };
  for (const char* size : {"zz", "-1", "", "11111111111111111", "x;1"}) {
    taken("chunk size \""s + size + '"', 0, 0, chunked + size + "\r\nabc\r\n0\r\n\r\n");
  }
  for (const char* size : {"0x3", "3zz", "+3", "3 3"}) {
    taken("chunk size \""s + size + '"', 0, 4304, chunked + size + "\r\nabc\r\n0\r\n\r\n");
  }
  for (const char* size : {"3\t;\v", "000003", "3;\xff"}) {
    taken("chunk size \""s + size + '"', 0, always, chunked + size + "\r\nabc\r\n0\r\n\r\n");
  }
  taken("a chunk longer than its size", 0, 1202, chunked + "3\r\nabcd\r\n0\r\n\r\n");
  taken("a chunk without its end", 0, 1202, chunked + "3\r\nabc0\r\n\r\n");
  taken("a chunk that ends with LF", 0, 1202, chunked + "3\r\nabc\n0\r\n\r\n");
  taken("truncated in the last chunk", 1800, 2900, chunked + "2\r\n12\r\n0\r\n");
  taken("trailers", 1202, always, chunked + "3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n");
  taken("a trailer that is none", 1202, 2900, chunked + "0\r\nno colon\r\n\r\n");
  taken("two lengths", 0, 3702, ok + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd");
  for (const char* length : {"+3", "3, 3", "abc", "3 3", "0x3", "3\r\n 3"}) {
    taken("Content-Length \""s + length + '"', 0, 1805, ok + "Content-Length: " + length + "\r\n\r\nabc");
  }
  taken("no Content-Length", 0, 1700, ok + "Content-Length:\r\n\r\nabc");
  taken("a Content-Length of 9 KB", 0, 0, ok + padded("Content-Length: 3", 9'000) + "\r\n\r\nabc");
  taken("a Content-Length of 60 KB", 0, 0, ok + padded("Content-Length: 3", 60'000) + "\r\n\r\nabc");
  for (const char* length : {"-5", "18446744073709551616", "100001abc"}) {
    table.push_back({"Content-Length \""s + length + '"', over::both, errc::response_too_large,
                     "the body has more than", say(ok + "Content-Length: " + length + "\r\n\r\nabc")});
  }
  taken("length and chunks", 0, always,
        ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  taken("gzip under the chunks", 0, always, ok + "Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  taken("chunked twice", 0, always,
        ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  taken("an unknown transfer encoding", 0, always, ok + "Transfer-Encoding: identity\r\n\r\nabc");
  taken("a folded transfer encoding", 0, always, ok + "Transfer-Encoding:\r\n chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  taken("a transfer encoding of 9 KB", 0, 0, ok + padded("Transfer-Encoding: ", 9'000) + "\r\n\r\nabc");
  taken("chunks in HTTP/1.0", 0, always, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  taken("a transfer encoding of 60 KB", 0, 0, ok + padded("Transfer-Encoding: ", 60'000) + "\r\n\r\nabc");
  taken("a transfer encoding without a name", 0, always, ok + ": chunked\r\n\r\nabc");
  for (const char* coding :
       {"gzip", "x-gzip", "deflate", "br", "zstd", "Compress", "identity, gzip", "gzip,", "utf-8,br"}) {
    table.push_back({"Content-Encoding \""s + coding + '"', over::both, errc::fetch_failed, "it is encoded by",
                     say(with_length("abc", "content-encoding: "s + coding + "\r\n"))});
  }
  add("gzip bomb", "it is encoded by", ok + "Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08"s + std::string(1000, '\0'));
  add("gzip after identity", "it is encoded by",
      with_length("abc", "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"));
  for (const char* line : {"HTTP/2 200", "HTTP/2.0 200 OK", "HTTP/1.1 099 No", "HTTP/1.1 999 No", "HTTP/1.1 600 No",
                           "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 -20 OK", "HTTP/1.1  200 OK",
                           "HTTP/1.1 200OK", "HTTP/x.1 200 OK", "ICY 200 OK", "<html>", "", " HTTP/1.1 200 OK"}) {
    table.push_back({"status line \""s + line + '"', over::both, errc::fetch_failed, "not an HTTP/1.x status line",
                     say(line + "\r\n\r\nabc"s)});
  }
  add("switching protocols", "status 101", "HTTP/1.1 101 Switching\r\n\r\n");
  table.push_back({"endless interim responses", over::both, errc::fetch_failed, "interim responses",
                   then([](raw_connection& c) { c.flood("HTTP/1.1 100 Continue\r\n\r\n"); })});
}

// Odd heads before a good body: nobody needs what is odd in them.
void odd_heads(std::vector<row>& table) {
  const auto add = [&](const std::string& name, const std::string& headers) {
    table.push_back({name, over::both, errc{}, "\"v1\"", say(with_length("{}", headers + "ETag: \"v1\"\r\n"))});
  };
  add("a folded header", "A: 1\r\n  folded\r\n\tand again\r\n");
  add("a folded header whose lines end with LF", "A: 1\n  folded\n");
  add("a fold of no header", " folded\r\n");
  add("a fold of a header that is left out", "no colon\r\n A: 1\r\n");
  add("a blank before the colon", "A : 1\r\n");
  add("no name", ": 1\r\n");
  add("no colon", "no colon\r\n");
  add("no value", "A:\r\n");
  add("NUL in a name", "A\0B: 1\r\n"s);
  add("NUL in a header", "ETag: \"a\0b\"\r\n"s);
  add("CR in a header", "ETag: \"a\rX-Injected: 1\"\r\n");
  add("DEL in a header", "ETag: \"a\x7f\"\r\n");
  add("a line of 9 KB", padded("A: ", 9'000) + "\r\n");
  add("a line of 60 KB", padded("A: ", 60'000) + "\r\n");
  add("a line of 60 KB without a colon", padded("A", 60'000) + "\r\n");
  add("a coding that is none", "Content-Encoding: utf-8\r\nContent-Encoding: none, aws-chunked, identity,,\r\n");
  std::string many;
  for (int i = 0; i < 110; ++i) many += "X-" + std::to_string(i) + ": 1\r\n";
  add("110 headers", many);
  many.clear();
  for (int i = 0; i < 5'000; ++i) many += "X: " + std::to_string(i) + "\r\n";
  add("5,000 headers", many);
  // What it cannot be taken for, it is not taken for: the body then ends with the connection.
  add("a blank before the colon of the length", "Content-Length : 3\r\n");
  add("an odd second length", "Content-Length: \x01\r\n");
  for (const std::string& reason : {""s, " "s, " \0"s, padded(" ", 60'000), " \xff\x80"s}) {
    table.push_back({"a reason phrase of " + std::to_string(reason.size()), over::both, errc{}, "\"v1\"",
                     say("HTTP/1.1 200" + reason + "\r\nETag: \"v1\"\r\nContent-Length: 2\r\n\r\n{}")});
  }
  // The server that uses bare LF keeps its connection open: the body must end by its length.
  table.push_back({"bare LF on a connection that stays open", over::both, errc{}, "\"v1\"", then([](raw_connection& c) {
                     c.send("HTTP/1.1 200 OK\nETag: \"v1\"\nContent-Length: 2\n\n{}"), c.wait_for_close();
                   })});
  table.push_back(
      {"LF in a header", over::both, errc{}, "\"a", say(with_length("{}", "ETag: \"a\nInjected by a server\"\r\n"))});
  // Neither decoded nor refused: it is a legal ETag. That it splits no request when it is sent back, fetcher.cpp shows.
  table.push_back({"ETag with percent-encoded CR and LF", over::both, errc{}, "\"x%0d%0aX-Injected: 1\"",
                   say(with_length("{}", "ETag: \"x%0d%0aX-Injected: 1\"\r\n"))});
}

void redirects(std::vector<row>& table) {
  const auto add = [&](std::string name, over where, const char* words, raw_server::script run, int connections = 1) {
    table.push_back({.name = std::move(name),
                     .where = where,
                     .expected = errc::fetch_failed,
                     .words = words,
                     .run = std::move(run),
                     .connections = connections});
  };
  add("redirect loop", over::both, "more than 5 redirects", redirect("/"), 6);
  add("redirect loop by an empty query", over::both, "more than 5 redirects", redirect("?"), 6);
  add("redirect to http", over::tls, "leads from https to 'http://127.0.0.1", then([](raw_connection& c) {
        c.send("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:" + std::to_string(c.port()) + "/\r\n\r\n");
      }));
  add("redirect to HTTP in capitals", over::tls, "leads from https to", redirect("HTTP://127.0.0.1/"));
  for (const char* location :
       {"https://user:s3cret@127.0.0.1/", "http://s3cret@127.0.0.1/", "//user:s3cret@127.0.0.1/",
        "https:/\\s3cret@127.0.0.1", "ftp://user:s3cret@127.0.0.1/", "http://127.0.0.1:80@127.0.0.1/"}) {
    add("redirect with user-info: "s + location, over::both, "redirect refused", redirect(location));
  }
  for (const char* location :
       {"file:///etc/passwd", "FILE:/etc/passwd", "ftp://127.0.0.1/", "javascript:alert(1)", "data:,x",
        "gopher://127.0.0.1:1/_x", "https://", "https:///x", "https://127.0.0.1:99999/", "https://127.0.0.1:0/",
        "https://[::1/", "https://a b/", "https://\xc3\xa4.test/"}) {
    add("redirect to "s + location, over::both, "redirect refused", redirect(location));
  }
  add("redirect to a URL of 8,000 bytes", over::both, "redirect refused", redirect(padded("/", 8'000)));
  table.push_back({"redirect to where nobody is", over::plain, errc::connect_failed,
                   "fetch of 'http://127.0.0.1:1/gone'", redirect("http://127.0.0.1:1/gone")});
  table.push_back({"redirect with CR", over::both, errc{}, "", redirect("/a\rb")});  // is a 302 without a Location
  table.push_back({"redirect over a blank and UTF-8",
                   over::both,
                   errc{},
                   "\"v1\"",
                   then([](raw_connection& c) {
                     const bool followed = c.request().find("GET /a%20b%C3%A4?c%20d HTTP/1.1\r\n") == 0;
                     c.send(followed ? with_length("{}", "ETag: \"v1\"\r\n")
                                     : "HTTP/1.1 302 Found\r\nLocation: /a b\xc3\xa4?c d\r\n\r\n");
                     c.close_notify();
                   }),
                   std::nullopt,
                   {},
                   std::nullopt,
                   "127.0.0.1",
                   2});
  table.push_back({"redirect in a folded header of 9 KB", over::both, errc::fetch_failed, "redirect refused",
                   redirect(padded("/\r\n ", 9'000))});
  table.push_back({"redirects for ever, each slow",
                   over::both,
                   errc::timed_out,
                   "timed out after",
                   then([](raw_connection& c) {
                     if (c.pause(150ms)) c.send("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), c.close_notify();
                   }),
                   std::nullopt,
                   {},
                   std::nullopt,
                   "127.0.0.1",
                   6});
}

void untrusted(std::vector<row>& table, const throwaway_ca& ca) {
  const throwaway_ca other;
  const throwaway_ca constrained =
      ca.intermediate({.common_name = "constrained", .names = "", .name_constraints = "permitted;DNS:good.test"});
  const auto add = [&](const char* name, server_identity identity, const char* host) {
    table.push_back({.name = name,
                     .where = over::tls,
                     .expected = errc::tls_failed,
                     .words = "certificate not accepted: ",
                     .run = say(with_length("{}")),
                     .identity = std::move(identity),
                     .host = host});
  };
  add("another CA", other.issue(), "localhost");
  add("self-signed", ca.issue({.self_signed = true}), "localhost");
  add("expired", ca.issue({.expired = true}), "localhost");
  add("wrong host", ca.issue({.names = "DNS:other.test"}), "localhost");
  add("wrong address", ca.issue({.names = "IP:127.0.0.2"}), "127.0.0.1");
  add("address as a name", ca.issue({.names = "DNS:127.0.0.1"}), "127.0.0.1");
  add("name in the CN only", ca.issue({.common_name = "localhost", .names = ""}), "localhost");
  add("name in the CN, another in the SAN", ca.issue({.common_name = "localhost", .names = "DNS:other.test"}),
      "localhost");
  add("address in the CN only", ca.issue({.common_name = "127.0.0.1", .names = ""}), "127.0.0.1");
  add("bare wildcard", ca.issue({.names = "DNS:*"}), "localhost");
  add("partial wildcard", ca.issue({.names = "DNS:local*"}), "localhost");
  add("wildcard that would have to stand for a part", ca.issue({.names = "DNS:*host"}), "localhost");
  add("outside the name constraint", constrained.issue(), "localhost");
  add("CN outside a name constraint, SAN inside",
      constrained.issue({.common_name = "localhost", .names = "DNS:good.test"}), "localhost");
  add("CN inside a name constraint, SAN outside",
      constrained.issue({.common_name = "good.test", .names = "DNS:localhost"}), "localhost");
  raw_server::options finite_12, finite_13;
  finite_12.max_version = TLS1_2_VERSION;
  finite_12.ciphers = "kDHE";
  finite_13.groups = "ffdhe8192:ffdhe2048";
  for (const auto& [name, how] : {std::pair("TLS 1.2 with finite-field DH only", finite_12),
                                  std::pair("TLS 1.3 with finite-field DH only", finite_13)}) {
    table.push_back({.name = name,
                     .where = over::tls,
                     .expected = errc::tls_failed,
                     .words = "handshake failure",
                     .run = say(with_length("{}")),
                     .how = how,
                     .identity = ca.issue({.rsa = true})});
  }
  for (const auto& [name, version] :
       {std::pair("TLS 1.0 only", TLS1_VERSION), std::pair("TLS 1.1 only", TLS1_1_VERSION)}) {
    raw_server::options old;
    old.max_version = version;
    table.push_back({.name = name,
                     .where = over::tls,
                     .expected = errc::tls_failed,
                     .words = "TLS handshake with",
                     .run = say(with_length("{}")),
                     .how = old});
  }
}

std::vector<row> whole_table(const throwaway_ca& ca) {
  std::vector<row> out;
  hang(out);
  break_off(out);
  too_much(out);
  misframed(out);
  odd_heads(out);
  redirects(out);
  untrusted(out, ca);
  // Those over plain and TLS are two.
  std::vector<row> split;
  for (row& each : out) {
    if (each.where == over::both) {
      row plain = each;
      plain.where = over::plain;
      plain.name += ", plain";
      split.push_back(std::move(plain));
      each.where = over::tls;
      each.name += ", TLS";
    }
    split.push_back(std::move(each));
  }
  return split;
}

// ---- one row -------------------------------------------------------------------------------------

struct verdict {
  outcome got;
  int connections = 0;
  bool was_asked = false;  // a request reached the script
};

verdict try_row(const row& each, const throwaway_ca& ca, const server_identity& good) {
  verdict out{{axioms::error{errc::fetch_failed, "not tried"}}};
  std::atomic<bool> asked{false};
  raw_server::options how = each.how;
  if (each.where == over::handshake) how.tls_first = false;
  const auto script = [&](raw_connection& connection) {
    each.run(connection);
    if (!connection.request().empty()) asked = true;
  };
  {
    const auto server = each.where == over::plain
                            ? std::make_unique<raw_server>(script, how)
                            : std::make_unique<raw_server>(each.identity ? *each.identity : good, script, how);
    axioms::httplib_options options = trusting(ca);
    options.headers = [] {
      return std::vector<std::pair<std::string, std::string>>{{"Authorization", "Bearer s3cret"}};
    };
    axioms::fetch_request request =
        request_for(server->url("/jwks.json", each.host), each.expected == errc::timed_out ? deadline : at_once * slow);
    request.max_body_bytes = each.max_body;
    out.got = timed_fetch(axioms::httplib_fetcher(options), request);
    out.connections = server->connections();
  }
  out.was_asked = asked;
  return out;
}

void judge(const row& each, const verdict& what) {
  CAPTURE(each.name);
  const outcome& got = what.got;
  const std::string text = got.answer ? std::string(got.answer->header("ETag")) : got.text();
  const bool right = got.code() == each.expected || (each.also && got.code() == *each.also);
  CHECK_MESSAGE(right, axioms::to_string(got.code()), " in place of ", axioms::to_string(each.expected), ": ", text);
  CHECK_MESSAGE(text.find(each.words) != std::string::npos, text);
  CHECK_MESSAGE(text.find("s3cret") == std::string::npos, text);
  const auto limit = each.expected == errc::timed_out ? std::chrono::milliseconds(deadline) : at_once * slow;
  CHECK(got.took < limit + 100ms * slow);
  if (got.code() == errc::timed_out) CHECK(got.took >= limit);
  CHECK_FALSE(got.left_openssl_errors);
  CHECK(what.connections <= each.connections);
  if (each.expected == errc::tls_failed) CHECK_FALSE(what.was_asked);
}

// The most memory that this process has had since reset(), beyond what it had then; in KiB, 0 where Linux does not tell.
class memory_peak {
 public:
  memory_peak() {
    std::ofstream("/proc/self/clear_refs") << 5;
    before_ = line("VmRSS:");
  }
  long growth() const { return before_ > 0 ? line("VmHWM:") - before_ : 0; }

 private:
  static long line(const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
      long value = 0;
      if (word == name && status >> value) return value;
    }
    return 0;
  }
  long before_ = 0;
};

// Where a write to a closed connection would end the process, as in a service that does nothing about it.
struct default_sigpipe {
  default_sigpipe() {
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    ::sigaction(SIGPIPE, &standard, &before);
    sigset_t pipe_signal;
    ::sigemptyset(&pipe_signal);
    ::sigaddset(&pipe_signal, SIGPIPE);
    ::pthread_sigmask(SIG_UNBLOCK, &pipe_signal, nullptr);
  }
  ~default_sigpipe() { ::sigaction(SIGPIPE, &before, nullptr); }
  default_sigpipe(const default_sigpipe&) = delete;
  default_sigpipe& operator=(const default_sigpipe&) = delete;
  struct sigaction before {};
};

// ---- many at once --------------------------------------------------------------------------------

// The stop of the fetch that a thread is about, for somebody else to ask for.
class stop_slot {
 public:
  axioms::stop_token renew() {
    const std::lock_guard lock(mutex_);
    source_ = axioms::stop_source();
    return source_.get_token();
  }
  void stop() {
    axioms::stop_source source;
    {
      const std::lock_guard lock(mutex_);
      source = source_;
    }
    source.request_stop();
  }

 private:
  std::mutex mutex_;  // guards source_
  axioms::stop_source source_;
};

// ---- another process ------------------------------------------------------------------------------

// Runs one test case of this program that is skipped otherwise.
int status_of_test(const std::string& name) {
  const std::string choice = "--test-case=" + name;
  const char* arguments[] = {"integration", "--no-skip", choice.c_str(), nullptr};
  pid_t child = 0;
  if (::posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, const_cast<char* const*>(arguments), environ) != 0)
    return -1;
  int status = -1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  return status;
}

// ---- stack ---------------------------------------------------------------------------------------

// Runs @p run in a thread with that much stack, and gives how much of it was used.
std::size_t stack_used(std::size_t size, const std::function<void()>& run) {
  constexpr unsigned char paint = 0xa5;
  void* stack = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(stack != MAP_FAILED);
  std::memset(stack, paint, size);
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstack(&attributes, stack, size);
  pthread_t thread;
  auto* start = +[](void* argument) -> void* {
    (*static_cast<const std::function<void()>*>(argument))();
    return nullptr;
  };
  REQUIRE(::pthread_create(&thread, &attributes, start, const_cast<std::function<void()>*>(&run)) == 0);
  ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&attributes);
  const auto* bytes = static_cast<const unsigned char*>(stack);
  const auto* deepest = std::find_if(bytes, bytes + size, [](unsigned char byte) { return byte != paint; });
  const auto used = static_cast<std::size_t>(bytes + size - deepest);
  ::munmap(stack, size);
  return used;
}

}  // namespace

TEST_SUITE_BEGIN("integration: hostile server");

TEST_CASE("no server can hang, crash or fool a fetch: the table") {
  const default_sigpipe fatal;
  const throwaway_ca ca;
  const server_identity good = ca.issue();
  const std::vector<row> table = whole_table(ca);
  std::vector<verdict> verdicts;
  for (std::size_t i = 0; i < table.size(); ++i) verdicts.push_back({{axioms::error{errc::fetch_failed, "not tried"}}});
  const int descriptors = open_descriptors(), threads = running_threads();
  const memory_peak memory;

  // Most rows only wait: several at a time.
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> runners;
  for (int i = 0; i < 8; ++i) {
    runners.emplace_back([&] {
      for (std::size_t at = next++; at < table.size(); at = next++) {
        if (!table[at].busy) verdicts[at] = try_row(table[at], ca, good);
      }
    });
  }
  for (std::thread& each : runners) each.join();
  for (std::size_t at = 0; at < table.size(); ++at) {
    if (table[at].busy) verdicts[at] = try_row(table[at], ca, good);
  }

  const long kib = memory.growth();
  for (std::size_t i = 0; i < table.size(); ++i) judge(table[i], verdicts[i]);
  CHECK(settles_at(open_descriptors, descriptors) <= descriptors);
  CHECK(settles_at(running_threads, threads) <= threads);
  if (!sanitized) CHECK_MESSAGE(kib < 16 * 1024, "KiB: ", kib);
}

// Run by the next one, in a process whose system settings allow everything.
TEST_CASE("TLS 1.1 is refused though the system allows it" * doctest::skip()) {
  const throwaway_ca ca;
  raw_server::options old;
  old.max_version = TLS1_1_VERSION;
  const raw_server server(ca.issue(), say(with_length("{}")), old);
  CHECK(timed_fetch(axioms::httplib_fetcher(trusting(ca)), request_for(server.url())).code() == errc::tls_failed);
  // The control: a client that sets nothing gets through.
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> lax(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  const std::unique_ptr<BIO, void (*)(BIO*)> link(BIO_new_ssl_connect(lax.get()), BIO_free_all);
  BIO_set_conn_hostname(link.get(), ("127.0.0.1:" + std::to_string(server.port())).c_str());
  CHECK(BIO_do_handshake(link.get()) == 1);
}

TEST_CASE("TLS 1.1 is refused whatever the system allows") {
  const temp_file permissive(
      "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMinProtocol = TLSv1\n"
      "CipherString = DEFAULT:@SECLEVEL=0\n");
  ::setenv("OPENSSL_CONF", permissive.path().c_str(), 1);
  const int status = status_of_test("TLS 1.1 is refused though*");
  ::unsetenv("OPENSSL_CONF");
  CHECK(status == 0);
}

// Run by the next one, in a process that has not read them yet.
TEST_CASE("child: the system's trusted certificates are read once" * doctest::skip()) {
  const throwaway_ca ca;
  const raw_server server(ca.issue(), say(with_length("{}")));
  {
    const temp_file trusted(throwaway_ca().pem());
    ::setenv("SSL_CERT_FILE", trusted.path().c_str(), 1);
    CHECK(axioms::httplib_fetcher(direct()).check());  // does not read them
    std::ofstream(trusted.path()) << ca.pem();
    CHECK(timed_fetch(axioms::httplib_fetcher(direct()), request_for(server.url())).status() == 200);
  }
  CHECK(timed_fetch(axioms::httplib_fetcher(direct()), request_for(server.url())).status() == 200);
}

TEST_CASE("the system's trusted certificates are read once, for all fetchers") {
  CHECK(status_of_test("child: the system's trusted*") == 0);
}

TEST_CASE("24 threads with random deadlines and stops: every fetch ends in time and nothing is left behind") {
  const default_sigpipe fatal;
  const throwaway_ca ca;
  const server_identity good = ca.issue();
  raw_server::options raw, full;
  raw.tls_first = false;
  full.accepting = false;
  const int descriptors = open_descriptors(), threads = running_threads();
  std::atomic<int> wrong{0}, overdue{0}, answers{0}, late{0}, stopped{0}, dirty{0};
  {
    std::vector<std::unique_ptr<raw_server>> servers;
    const auto add = [&](auto&&... arguments) { servers.push_back(std::make_unique<raw_server>(arguments...)); };
    add(say(with_length("{}")));
    add(good, say(with_length("{}")));
    add(good, redirect("/"));
    add(then([](raw_connection& c) { c.wait_for_close(); }));
    add(then([](raw_connection& c) { c.send(chunked), c.drip("1\r\nx\r\n", 2ms); }));
    add(then([](raw_connection& c) { c.send(ok + "\r\n"), c.flood(std::string(1 << 12, 'x')); }));
    add(good, then([](raw_connection& c) { c.send(ok), c.reset(); }));
    add(
        good, [](raw_connection& c) { c.send(c.hello_answer().substr(0, 100)), c.wait_for_close(); }, raw);
    add([](raw_connection&) {}, full);
    const axioms::httplib_fetcher fetcher(trusting(ca));

    std::vector<stop_slot> slots(24);
    std::atomic<bool> over{false};
    std::thread stopper([&] {
      std::mt19937 random(1);
      while (!over) {
        std::this_thread::sleep_for(1ms);
        slots[random() % slots.size()].stop();
      }
    });
    std::vector<std::thread> runners;
    for (stop_slot& slot : slots) {
      runners.emplace_back([&, seed = static_cast<unsigned>(runners.size())] {
        std::mt19937 random(seed);
        for (int i = 0; i < 200; ++i) {
          const raw_server& server = *servers[random() % servers.size()];
          const std::chrono::milliseconds limit(1 + random() % 30);
          axioms::fetch_request request =
              request_for(server.url("/", random() % 4 == 0 ? "localhost" : "127.0.0.1"), limit);
          request.connect_timeout = limit;
          request.max_body_bytes = 100'000;
          const outcome got = timed_fetch(fetcher, request, slot.renew());
          const errc code = got.code();
          const bool of_the_server = code == errc::fetch_failed || code == errc::tls_failed ||
                                     code == errc::response_too_large || code == errc::connect_failed;
          if (got.answer)
            ++answers;
          else if (code == errc::cancelled)
            ++stopped;
          else if (code == errc::timed_out && got.took >= limit)
            ++late;
          else if (!of_the_server)
            ++wrong;
          if (got.took > limit + 1s * slow) ++overdue;  // the threads are many more than the processors
          if (got.left_openssl_errors) ++dirty;
        }
      });
    }
    for (std::thread& each : runners) each.join();
    over = true;
    stopper.join();
  }
  CHECK(wrong == 0);
  CHECK(overdue == 0);
  CHECK(dirty == 0);
  CHECK(answers > 0);
  CHECK(stopped > 0);
  CHECK(late > 0);
  CHECK(settles_at(open_descriptors, descriptors) <= descriptors);
  CHECK(settles_at(running_threads, threads) <= threads);
}

TEST_CASE("a service with 1,100 open descriptors still fetches") {
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit raised = before;
  raised.rlim_cur = std::max<rlim_t>(before.rlim_cur, std::min<rlim_t>(before.rlim_max, 2048));
  if (raised.rlim_cur < 1200 || ::setrlimit(RLIMIT_NOFILE, &raised) != 0) {
    MESSAGE("skipped: this process may not have 1,200 descriptors");
    return;
  }
  const throwaway_ca ca;
  std::vector<int> held;
  for (int i = 0; i < 1100; ++i) held.push_back(::fcntl(0, F_DUPFD_CLOEXEC, 0));
  CHECK(*std::max_element(held.begin(), held.end()) >= 1100);  // select() ends at 1,024
  {
    const raw_server plain(say(with_length("{}"))), secure(ca.issue(), say(with_length("{}")));
    for (const raw_server* server : {&plain, &secure}) {
      for (const char* host : {"127.0.0.1", "localhost"}) {
        const outcome got = timed_fetch(axioms::httplib_fetcher(trusting(ca)), request_for(server->url("/", host)));
        CHECK_MESSAGE(got.status() == 200, got.text());
      }
    }
  }
  for (const int fd : held) ::close(fd);
  ::setrlimit(RLIMIT_NOFILE, &before);
}

TEST_CASE("a fetch needs less than 64 KiB of stack, whatever the status line, so that musl's threads will do") {
  if (sanitized) return;  // whose frames are larger
  const throwaway_ca ca;
  const std::string body(50'000, ' ');
  const raw_server secure(ca.issue(), say(with_length(body)));
  const raw_server talkative(
      ca.issue(), say("HTTP/1.1 200 " + std::string(60'000, 'x') + "\r\nContent-Length: 50000\r\n\r\n" + body));
  const axioms::httplib_fetcher trusted(trusting(ca)), by_the_system(direct());
  for (const raw_server* server : {&secure, &talkative}) {
    int status = 0;
    errc code{};
    const std::size_t used = stack_used(std::size_t{1} << 20, [&] {
      status = timed_fetch(trusted, request_for(server->url())).status();
      code = timed_fetch(by_the_system, request_for(server->url())).code();
    });
    CHECK(status == 200);
    CHECK(code == errc::tls_failed);
    CHECK(used > 4096);
    CHECK(used < 64 * 1024);
  }
}

TEST_SUITE_END();
