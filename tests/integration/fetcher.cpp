// The default fetcher against real sockets on loopback: what a good server gets, and what a bad one cannot do.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/fetching.hpp"
#include "../support/httplib_release.hpp"
#include "../support/loopback_server.hpp"
#include "../support/raw_server.hpp"
#include "../support/throwaway_ca.hpp"

using axioms::errc;
using axioms::fetch_request;
using axioms::fetch_response;
using axioms::httplib_fetcher;
using axioms::httplib_options;
using test_support::direct;
using test_support::loopback_server;
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

namespace {

// Text that a server's thread leaves for the test.
class noted {
 public:
  void operator=(std::string text) {
    const std::lock_guard lock(mutex_);
    text_ = std::move(text);
  }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;  // guards text_
  std::string text_;
};

std::string first_line(const noted& message) { return message.text().substr(0, message.text().find("\r\n")); }

outcome fetch(const fetch_request& request, const httplib_options& options = direct(), axioms::stop_token stop = {}) {
  outcome out = timed_fetch(httplib_fetcher(options), request, std::move(stop));
  CHECK_FALSE(out.left_openssl_errors);
  return out;
}

outcome fetch(const std::string& url, const httplib_options& options = direct()) {
  return fetch(request_for(url), options);
}

// The outcome with a stop asked for once `reached` has returned; `took` counts from the request to stop.
outcome fetch_and_stop(const std::string& url, const httplib_options& options, const std::function<void()>& reached) {
  axioms::stop_source source;
  std::chrono::steady_clock::time_point asked;
  std::thread stopper([&] {
    reached();
    asked = std::chrono::steady_clock::now();
    source.request_stop();
  });
  outcome out = timed_fetch(httplib_fetcher(options), request_for(url), source.get_token());
  const auto back = std::chrono::steady_clock::now();
  stopper.join();
  out.took = std::chrono::duration_cast<std::chrono::milliseconds>(back - asked);
  return out;
}

std::function<void()> after(std::chrono::milliseconds time) {
  return [time] { std::this_thread::sleep_for(time); };
}

outcome fetch_reply(std::string text) {
  const raw_server server(reply(std::move(text)));
  return fetch(server.url());
}

struct set_environment {
  set_environment(const char* variable, const std::string& value) : name(variable) { ::setenv(name, value.c_str(), 1); }
  ~set_environment() { ::unsetenv(name); }
  set_environment(const set_environment&) = delete;
  set_environment& operator=(const set_environment&) = delete;
  const char* name;
};

// A resolver that does not answer for names that end in ".stuck" until it is told to.
struct stuck_resolver {
  std::mutex mutex;  // guards the rest
  std::condition_variable changed;
  bool stuck = false;
  int waiting = 0;
  int most = 0;

  void set(bool value) {
    std::unique_lock lock(mutex);
    stuck = value;
    changed.notify_all();
    if (!value) changed.wait(lock, [this] { return waiting == 0; });
  }
  void pass() {
    std::unique_lock lock(mutex);
    most = std::max(most, ++waiting);
    changed.notify_all();
    changed.wait(lock, [this] { return !stuck; });
    --waiting;
    changed.notify_all();
  }
};
stuck_resolver resolver;

// Where the signal mask of the thread that asks for "signals.mask" goes.
sigset_t* mask_of_resolver = nullptr;

// What names that end in ".addresses" stand for; set while no fetch is on its way.
std::vector<std::string> addresses;

std::string encrypted_key() {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"),
                                                           EVP_PKEY_free);
  const std::unique_ptr<BIO, void (*)(BIO*)> out(BIO_new(BIO_s_mem()), BIO_free_all);
  char phrase[] = "passphrase";
  PEM_write_bio_PrivateKey(out.get(), key.get(), EVP_aes_128_cbc(), nullptr, 0, nullptr, phrase);
  std::string text(4096, '\0');
  text.resize(static_cast<std::size_t>(std::max(BIO_read(out.get(), text.data(), 4096), 0)));
  return text;
}

constexpr const char* key_set = R"({"keys":[]})";

void answer_key_set(const httplib::Request&, httplib::Response& response) {
  response.set_content(key_set, "application/json");
}

}  // namespace

// Stands before libc's, which this program calls through it.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** out) {
  const std::string name = node != nullptr ? node : "";
  if (name.size() > 6 && name.substr(name.size() - 6) == ".stuck") {
    resolver.pass();
    return EAI_NONAME;
  }
  using function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto next = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  if (name == "no.memory") throw std::bad_alloc();
  if (name == "signals.mask") {
    ::pthread_sigmask(SIG_SETMASK, nullptr, mask_of_resolver);
    return EAI_NONAME;
  }
  if (name.size() > 10 && name.substr(name.size() - 10) == ".addresses") {
    addrinfo numeric = *hints;
    numeric.ai_flags |= AI_NUMERICHOST;
    for (const std::string& each : addresses) {
      if (const int failed = next(each.c_str(), service, &numeric, out); failed != 0) return failed;
      while (*out != nullptr) out = &(*out)->ai_next;
    }
    return 0;
  }
  return next(node, service, hints, out);
}

TEST_SUITE_BEGIN("integration: fetcher");

TEST_CASE("a 200 gives status, body and headers as received") {
  const raw_server server(reply(with_length(key_set, "ETag: \"a%20b\"\r\nX-Two: 1\r\nx-two:  2 \r\n")));
  const outcome got = fetch(server.url());
  REQUIRE_MESSAGE(got.answer, got.text());
  CHECK(got.answer->status == 200);
  CHECK(got.answer->body == key_set);
  CHECK(got.answer->header("etag") == "\"a%20b\"");
  CHECK(got.answer->url == server.url());
  REQUIRE(got.answer->headers.size() == 4);
  CHECK(got.answer->headers[1] == std::pair<std::string, std::string>("X-Two", "1"));
  CHECK(got.answer->headers[2] == std::pair<std::string, std::string>("x-two", "2"));
}

TEST_CASE("folded lines are one header, and what is no header is left out") {
  using namespace std::string_literals;
  const std::string odd = "no colon\r\nA : 1\r\n: 2\r\nA\0B: 3\r\nB: 4\r\n\t 5\r\nC:\r\nD: \x01\r\n"s;
  const outcome got = fetch_reply(with_length("{}", odd));
  REQUIRE_MESSAGE(got.answer, got.text());
  const std::vector<std::pair<std::string, std::string>> kept{{"B", "4 5"}, {"C", ""}, {"Content-Length", "2"}};
  CHECK(got.answer->headers == kept);
}

TEST_CASE("every status is a response, and a 304 or an error page is not waited for") {
  for (const int status : {204, 304, 404, 500, 503}) {
    // Announces a body that never comes.
    const raw_server server([status](raw_connection& connection) {
      if (!connection.read_request()) return;
      connection.send("HTTP/1.1 " + std::to_string(status) +
                      " Whatever\r\nRetry-After: 7\r\nContent-Length: 50\r\n\r\n");
      connection.wait_for_close();
    });
    const outcome got = fetch(server.url());
    CHECK_MESSAGE(got.status() == status, got.text());
    CHECK(got.took < 1s * slow);
    if (got.answer) CHECK(got.answer->header("Retry-After") == "7");
  }
}

TEST_CASE("a real server of cpp-httplib is read over http and https") {
  const throwaway_ca ca;
  const loopback_server plain(answer_key_set);
  const loopback_server secure(ca.issue(), answer_key_set);
  CHECK(fetch(plain.url()).body() == key_set);
  CHECK(fetch(secure.url(), trusting(ca)).body() == key_set);
  CHECK(plain.requests() == 1);
  CHECK(secure.requests() == 1);
}

TEST_CASE("the request says what it wants, and sends path and query as given") {
  noted seen;
  const raw_server server([&](raw_connection& connection) {
    if (!connection.read_request()) return;
    seen = connection.request();
    connection.send(with_length("{}"));
  });
  fetch_request request =
      request_for("HTTP://127.0.0.1:" + std::to_string(server.port()) + "/a%2Fb/c?x=%2F+y&&z#fragment");
  request.etag = "W/\"v1\"";
  request.last_modified = "Sun, 06 Nov 1994 08:49:37 GMT";
  REQUIRE(fetch(request).answer);
  CHECK(first_line(seen) == "GET /a%2Fb/c?x=%2F+y&&z HTTP/1.1");
  for (const std::string& line :
       {"Host: 127.0.0.1:" + std::to_string(server.port()),
        std::string("Accept: application/jwk-set+json, application/json"), std::string("Accept-Encoding: identity"),
        std::string("User-Agent: axioms_jwks/" AXIOMS_JWKS_VERSION), std::string("Connection: close"),
        std::string("If-None-Match: W/\"v1\""), std::string("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT")}) {
    CHECK_MESSAGE(seen.text().find("\r\n" + line + "\r\n") != std::string::npos,
                  line << " is missing in " << seen.text());
  }
  request.accept = "application/json";
  REQUIRE(fetch(request).answer);
  CHECK(seen.text().find("\r\nAccept: application/json\r\n") != std::string::npos);
}

TEST_CASE("an ETag with a line break in it starts no header of its own") {
  noted seen;
  const raw_server server([&](raw_connection& connection) {
    if (!connection.read_request()) return;
    seen = connection.request();
    connection.send(with_length("{}", "ETag: \"x%0d%0aX-Injected: 1\"\r\n"));
  });
  fetch_request request = request_for(server.url());
  request.etag = "\"x\r\nX-Injected: 1\"";
  const outcome first = fetch(request);
  REQUIRE(first.answer);
  CHECK(seen.text().find("X-Injected") == std::string::npos);
  CHECK(first.answer->header("ETag") == "\"x%0d%0aX-Injected: 1\"");
  for (const char* etag : {"\"\x01\"", "\"\x7f\"", "\n"}) {  // nor is any other control byte sent
    request.etag = etag;
    REQUIRE(fetch(request).answer);
    CHECK(seen.text().find("If-None-Match") == std::string::npos);
  }
  request.etag = first.answer->header("ETag");
  REQUIRE(fetch(request).answer);
  CHECK(seen.text().find("\r\nX-Injected") == std::string::npos);
  CHECK(seen.text().find("If-None-Match: \"x%0d%0aX-Injected: 1\"\r\n") != std::string::npos);
}

TEST_CASE("extra headers are asked for at every fetch and may not break the message") {
  noted seen;
  const raw_server server([&](raw_connection& connection) {
    if (!connection.read_request()) return;
    seen = connection.request();
    connection.send(with_length("{}"));
  });
  httplib_options options = direct();
  int calls = 0;
  std::vector<std::pair<std::string, std::string>> next{{"Authorization", "Bearer 1"}, {"user-agent", "mine"}};
  options.headers = [&] {
    ++calls;
    return next;
  };
  const httplib_fetcher fetcher(options);
  const fetch_request request = request_for(server.url());
  REQUIRE(fetcher(request, {}));
  CHECK(seen.text().find("\r\nAuthorization: Bearer 1\r\n") != std::string::npos);
  CHECK(seen.text().find("\r\nuser-agent: mine\r\n") != std::string::npos);
  CHECK(seen.text().find("User-Agent: axioms") == std::string::npos);
  next = {{"Authorization", "Bearer 2"}};
  REQUIRE(fetcher(request, {}));
  CHECK(seen.text().find("\r\nAuthorization: Bearer 2\r\n") != std::string::npos);
  CHECK(calls == 2);
  next = {{"X-A", std::string(40'000, 'x')}};
  CHECK(fetcher(request, {}));
  for (const auto& bad : std::vector<std::pair<std::string, std::string>>{{"X-A", "secret\r\nX-B: 1"},
                                                                          {"X A", "secret"},
                                                                          {"", "secret"},
                                                                          {"X-A", "secret" + std::string(70'000, 'x')},
                                                                          {"Content-Length", "3"},
                                                                          {"host", "secret"}}) {
    next = {bad};
    const auto refused = fetcher(request, {});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::fetch_failed);
    CHECK(refused.error().description.find("secret") == std::string::npos);
  }
#if defined(__cpp_exceptions)
  options.headers = []() -> std::vector<std::pair<std::string, std::string>> { throw std::runtime_error("secret"); };
  const outcome thrown = fetch(request, options);
  CHECK(thrown.code() == errc::fetch_failed);
  CHECK(thrown.text().find("secret") == std::string::npos);
#endif
}

TEST_CASE("URLs are refused before anything is sent") {
  CHECK(fetch("ftp://localhost/").code() == errc::unsupported_scheme);
  CHECK(fetch("localhost/jwks").code() == errc::invalid_url);
  CHECK(fetch("http://user:secret@localhost/").code() == errc::invalid_url);
  CHECK(fetch("http://user:secret@localhost/").text().find("secret") == std::string::npos);
}

TEST_CASE("names are resolved, and errors tell resolving from connecting") {
  const loopback_server server(answer_key_set);
  CHECK(fetch(server.url("/", "localhost")).status() == 200);
  const outcome unknown = fetch("http://no-such-host.invalid/");
  CHECK(unknown.code() == errc::resolve_failed);
  CHECK(unknown.text().find("no-such-host.invalid") != std::string::npos);
  CHECK(fetch("http://no.memory/").code() == errc::resolve_failed);  // on a thread that nobody catches anything for
  const outcome refused = fetch("http://127.0.0.1:1/");
  CHECK(refused.code() == errc::connect_failed);
  CHECK(refused.text().find("127.0.0.1:1") != std::string::npos);
}

TEST_CASE("a resolver that does not answer holds neither deadline nor stop") {
  resolver.set(true);
  const outcome late = fetch(request_for("http://a.stuck/", 200ms));
  CHECK_MESSAGE(late.code() == errc::timed_out, late.text());
  CHECK(late.took >= 200ms);
  CHECK(late.took < 300ms * slow);
  const outcome stopped = fetch_and_stop("http://b.stuck/", direct(), after(20ms));
  CHECK_MESSAGE(stopped.code() == errc::cancelled, stopped.text());
  CHECK_MESSAGE(stopped.text().find("resolving") != std::string::npos, stopped.text());
  CHECK(stopped.took < 50ms * slow);
  resolver.set(false);
}

TEST_CASE(
    "names that never resolve take at most 32 threads of a fetcher and 64 of the process, and nobody else's time") {
  const loopback_server server(answer_key_set);
  const auto wait_for = [](int threads) {  // the last one may still be about to ask
    std::unique_lock lock(resolver.mutex);
    resolver.changed.wait_for(lock, 10s, [&] { return resolver.waiting >= threads; });
    CHECK(resolver.waiting == threads);
  };
  const auto ask = [](const httplib_fetcher& fetcher, const std::string& name) {
    return timed_fetch(fetcher, request_for("http://" + name + "/", 20ms)).code();
  };
  const auto usual = [&](const httplib_fetcher& fetcher) {
    const outcome got = timed_fetch(fetcher, request_for(server.url("/", "localhost")));
    CHECK_MESSAGE(got.status() == 200, got.text());
    CHECK(got.took < 1s * slow);
  };
  resolver.set(true);
  const httplib_fetcher first(direct()), second(direct()), third(direct());
  for (int i = 0; i < 20; ++i) CHECK(ask(first, std::to_string(i) + ".first.stuck") == errc::timed_out);
  wait_for(20);
  usual(second);
  usual(first);  // which has threads left
  for (int i = 0; i < 20; ++i) CHECK(ask(first, std::to_string(i) + ".first.stuck") == errc::timed_out);
  wait_for(20);
  CHECK(ask(first, "0.first.stuck:81") == errc::timed_out);
  wait_for(20);  // a name that is asked for again shares its thread, whatever the port
  for (int i = 20; i < 40; ++i) CHECK(ask(first, std::to_string(i) + ".first.stuck") == errc::timed_out);
  wait_for(32);
  CHECK(timed_fetch(first, request_for(server.url("/", "localhost"), 50ms)).code() ==
        errc::timed_out);                                                // its turn never comes
  CHECK(timed_fetch(first, request_for(server.url())).status() == 200);  // an address needs no resolver
  usual(second);
  for (int i = 0; i < 40; ++i) CHECK(ask(second, std::to_string(i) + ".second.stuck") == errc::timed_out);
  wait_for(64);
  usual(third);  // one that has none is always granted one
  CHECK(ask(third, "0.third.stuck") == errc::timed_out);
  wait_for(65);
  CHECK(ask(third, "1.third.stuck") == errc::timed_out);
  wait_for(65);
  resolver.set(false);
  CHECK(resolver.most == 65);
  for (const httplib_fetcher* each : {&first, &second, &third}) usual(*each);
}

TEST_CASE("a resolver thread that fails gives its place back") {
  const httplib_fetcher fetcher(direct());
  for (int i = 0; i < 100; ++i) {
    CHECK(timed_fetch(fetcher, request_for("http://no.memory/")).code() == errc::resolve_failed);
  }
  const loopback_server server(answer_key_set);
  CHECK(timed_fetch(fetcher, request_for(server.url("/", "localhost"))).status() == 200);
}

TEST_CASE("callers that ask for one name together share the thread, and all get the answer") {
  const loopback_server server(answer_key_set);
  addresses = {"127.0.0.1"};
  const httplib_fetcher fetcher(direct());
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 20; ++n) good += fetcher(request_for(server.url("/", "shared.addresses")), {}).has_value();
    });
  }
  for (std::thread& each : threads) each.join();
  CHECK(good == 160);
}

TEST_CASE("threads of the fetcher take no signals of the application's, but those of faults") {
  sigset_t seen;
  ::sigemptyset(&seen);
  mask_of_resolver = &seen;
  CHECK(fetch("http://signals.mask/").code() == errc::resolve_failed);
  mask_of_resolver = nullptr;
  for (const int each : {SIGUSR1, SIGTERM, SIGINT, SIGCHLD, SIGALRM}) CHECK(sigismember(&seen, each) == 1);
  for (const int each : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) CHECK(sigismember(&seen, each) == 0);
  sigset_t mine;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  CHECK(sigismember(&mine, SIGUSR1) == 0);  // nor is it left blocked here
}

TEST_CASE("one address has connect_timeout") {
  raw_server::options full;
  full.accepting = false;
  const raw_server server([](raw_connection&) {}, full);
  fetch_request request = request_for(server.url());
  request.connect_timeout = 200ms;
  const outcome one = fetch(request);
  CHECK_MESSAGE(one.code() == errc::connect_failed, one.text());
  CHECK(one.took >= 200ms);
  CHECK(one.took < 300ms * slow);
  request.timeout = 100ms;
  CHECK(fetch(request).code() == errc::timed_out);
  request.connect_timeout = std::chrono::milliseconds::max();
  CHECK(fetch(request).code() == errc::timed_out);
}

TEST_CASE("the addresses of a name are tried in turn, first one of each family") {
  addresses = {"127.0.0.2", "127.0.0.3", "::1"};
  const std::string text = fetch("http://three.addresses:1/").text();
  const auto first = text.find("127.0.0.2:1: "), second = text.find("[::1]:1: "), third = text.find("127.0.0.3:1: ");
  CHECK_MESSAGE((first < second && second < third && third != std::string::npos), text);

  addresses.clear();
  for (int i = 2; i < 22; ++i) addresses.push_back("127.0.0." + std::to_string(i));
  const std::string many = fetch("http://twenty.addresses:1/").text();
  CHECK_MESSAGE((many.find("127.0.0.17:1") != std::string::npos && many.find("127.0.0.18:1") == std::string::npos),
                many);
  addresses.clear();
  CHECK(fetch("http://no.addresses/").code() == errc::resolve_failed);

  const raw_server good(reply(with_length("{}")));
  addresses = {"127.0.0.2", "127.0.0.1"};
  CHECK(fetch(good.url("/", "two.addresses")).status() == 200);  // nobody listens at the first
  raw_server::options full;
  full.accepting = false;
  full.address = "127.0.0.2";
  full.port = good.port();
  const raw_server silent([](raw_connection&) {}, full);
  fetch_request request = request_for(good.url("/", "two.addresses"));
  request.connect_timeout = 100ms;
  const outcome got = fetch(request);  // nobody answers at the first
  CHECK_MESSAGE(got.status() == 200, got.text());
  CHECK(got.took >= 100ms);
}

TEST_CASE("four dead addresses before a live one cost a second, and a dead one of each family in turn less") {
  const raw_server good(reply(with_length("{}")));
  raw_server::options full;
  full.accepting = false;
  full.port = good.port();
  std::vector<std::unique_ptr<raw_server>> dead;
  addresses.clear();
  for (const char* each : {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}) {
    full.address = each;
    dead.push_back(std::make_unique<raw_server>([](raw_connection&) {}, full));
    addresses.push_back(each);
  }
  addresses.push_back("127.0.0.1");
  const outcome fifth = fetch(good.url("/", "five.addresses"));
  CHECK_MESSAGE(fifth.status() == 200, fifth.text());
  CHECK(fifth.took >= 1000ms);
  CHECK(fifth.took < 2000ms);
  addresses = {"127.0.0.2", "127.0.0.1"};
  const outcome second = fetch(good.url("/", "two.addresses"));
  CHECK_MESSAGE(second.status() == 200, second.text());
  CHECK(second.took >= 250ms);
  CHECK(second.took < 1000ms * slow);

  if (raw_server::can_listen("::1")) {  // IPv6 that leads nowhere
    full.address = "::1";
    dead.push_back(std::make_unique<raw_server>([](raw_connection&) {}, full));
    addresses = {"::1", "127.0.0.1"};
    const outcome other_family = fetch(good.url("/", "both.addresses"));
    CHECK_MESSAGE(other_family.status() == 200, other_family.text());
    CHECK(other_family.took < 1000ms * slow);
  }
  addresses = {"127.0.0.2", "127.0.0.3"};  // each has its own time from when it began
  fetch_request request = request_for(good.url("/", "dead.addresses"));
  request.connect_timeout = 400ms;
  const outcome none = fetch(request);
  CHECK_MESSAGE(none.code() == errc::connect_failed, none.text());
  const auto at = none.text().find("127.0.0.2:");
  CHECK_MESSAGE((at < none.text().find("127.0.0.3:") && none.text().find("no answer within 400 ms", at)), none.text());
  CHECK(none.took >= 650ms);
  CHECK(none.took < 900ms * slow);
}

TEST_CASE("an address that answers late still wins over one that never does") {
  const raw_server good(reply(with_length("{}")));
  raw_server::options full;
  full.accepting = false;
  full.port = good.port();
  full.address = "127.0.0.2";
  const raw_server dead([](raw_connection&) {}, full);
  addresses = {"127.0.0.1", "127.0.0.2"};
  CHECK(fetch(good.url("/", "first.addresses")).took < 250ms * slow);  // the second is not even begun
  addresses.assign(16, "127.0.0.2");
  addresses.back() = "127.0.0.1";
  const int before = open_descriptors();
  fetch_request request = request_for(good.url("/", "sixteen.addresses"), 1s);
  const outcome late = fetch(request);  // 15 dead ones take 3.75 s
  CHECK_MESSAGE(late.code() == errc::timed_out, late.text());
  CHECK_MESSAGE(late.text().find("connecting to 127.0.0.2") != std::string::npos, late.text());
  CHECK(open_descriptors() <= before);
}

TEST_CASE("IPv6 literals are connected to, verified and named in brackets") {
  if (!raw_server::can_listen("::1")) return;
  const throwaway_ca ca;
  noted seen, sni;
  const auto script = [&](raw_connection& connection) {
    if (!connection.read_request()) return;
    seen = connection.request();
    sni = connection.server_name();
    connection.send(with_length("{}"));
  };
  raw_server::options how;
  how.address = "::1";
  const raw_server plain(script, how), secure(ca.issue(), script, how),
      other(ca.issue({.names = "IP:::2"}), script, how);
  CHECK(fetch(plain.url("/", "[::1]")).status() == 200);
  CHECK(seen.text().find("\r\nHost: [::1]:" + std::to_string(plain.port()) + "\r\n") != std::string::npos);
  CHECK(fetch(secure.url("/", "[0:0::1]"), trusting(ca)).status() == 200);
  CHECK(sni.text().empty());
  CHECK(fetch(other.url("/", "[::1]"), trusting(ca)).code() == errc::tls_failed);
  CHECK(fetch("http://[fe80::1%25lo]/").code() == errc::invalid_url);  // zones are not for URLs that services share
}

TEST_CASE("a stop ends every phase within 50 ms, and the deadline ends it as well") {
  struct phase {
    std::string name;
    std::string words;  // by which the error tells the phase
    bool tls = false;
    raw_server::script run{};  // returns when the phase has been reached; then the server is silent
    raw_server::options how{};
    bool proxy = false;
    std::size_t header_bytes = 1;
    std::string flood{};
    outcome stopped{{axioms::error{errc::fetch_failed, "not tried"}}};
    outcome late{{axioms::error{errc::fetch_failed, "not tried"}}};
  };
  const std::string part = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc";
  raw_server::options full, raw, narrow;
  full.accepting = false;
  narrow.narrow = true;
  raw.tls_first = false;
  const auto ask = [](raw_connection& c) { c.read_request(); };
  std::vector<phase> phases{
      {"connect", "connecting to", false, {}, full},
      {"handshake, silent", "shaking hands", true, [](raw_connection&) {}, raw},
      {"handshake, half", "shaking hands", true, [](raw_connection& c) { c.send(c.hello_answer().substr(0, 200)); },
       raw},
      // OpenSSL skips every HelloRequest, and reads on as long as there is one.
      {"handshake, flooded", "shaking hands", true, [](raw_connection& c) { c.hello_answer(); }, raw, false, 1,
       "\x16\x03\x03\x40" + std::string(1 + (1 << 14), '\0')},
      {"CONNECT, silent", "asking the proxy", true, ask, raw, true},
      {"CONNECT, half", "asking the proxy", true, [&](raw_connection& c) { ask(c), c.send("HTTP/1.1 200 OK\r\nA: "); },
       raw, true},
      {"handshake in the tunnel", "shaking hands", true,
       [&](raw_connection& c) { ask(c), c.send("HTTP/1.1 200 OK\r\n\r\n"), c.hello_answer(); }, raw, true},
      {"request", "sending the request", false, [](raw_connection&) {}, narrow, false, 60'000},
      {"request, TLS", "sending the request", true, [](raw_connection&) {}, narrow, false, 60'000},
      {"headers", "waiting for the response", false, ask},
      {"headers, TLS", "waiting for the response", true, ask},
      {"body", "reading the body", false, [&](raw_connection& c) { ask(c), c.send(part); }},
      {"body, TLS", "reading the body", true, [&](raw_connection& c) { ask(c), c.send(part); }},
  };
  const throwaway_ca ca;
  const server_identity identity = ca.issue({.names = "DNS:idp.test,IP:127.0.0.1"});
  const auto run = [&](phase& each) {
    std::mutex mutex;
    std::condition_variable changed;
    int reached = 0;
    const auto script = [&](raw_connection& connection) {
      each.run(connection);
      {
        const std::lock_guard lock(mutex);
        ++reached;
      }
      changed.notify_all();
      if (!each.flood.empty()) connection.flood(each.flood);
      connection.pause(1min);
    };
    const auto server = each.tls ? std::make_unique<raw_server>(identity, script, each.how)
                                 : std::make_unique<raw_server>(script, each.how);
    httplib_options options = trusting(ca);
    if (each.proxy) options.proxy = "127.0.0.1:" + std::to_string(server->port());
    options.headers = [&] {
      return std::vector<std::pair<std::string, std::string>>{{"X-Padding", std::string(each.header_bytes, 'x')}};
    };
    const std::string url = each.proxy ? std::string("https://idp.test/") : server->url();
    each.stopped = fetch_and_stop(url, options, [&] {
      std::unique_lock lock(mutex);
      if (each.how.accepting) changed.wait(lock, [&] { return reached > 0; });
      lock.unlock();
      std::this_thread::sleep_for(100ms);  // for the client to get as far, and wait
    });
    each.late = timed_fetch(httplib_fetcher(options), request_for(url, 300ms * slow));
  };
  std::vector<std::thread> threads;
  for (phase& each : phases) {
    if (each.flood.empty()) threads.emplace_back([&] { run(each); });
  }
  for (std::thread& each : threads) each.join();
  for (phase& each : phases) {
    if (!each.flood.empty()) run(each);  // alone: it keeps two processors busy
  }
  for (const phase& each : phases) {
    CAPTURE(each.name);
    CHECK_MESSAGE(each.stopped.code() == errc::cancelled, each.stopped.text());
    CHECK_MESSAGE(each.stopped.text().find(each.words) != std::string::npos, each.stopped.text());
    CHECK(each.stopped.took < 50ms * slow);
    CHECK_MESSAGE(each.late.code() == errc::timed_out, each.late.text());
    CHECK_MESSAGE(each.late.text().find(each.words) != std::string::npos, each.late.text());
    CHECK(each.late.took >= 300ms * slow);
    CHECK(each.late.took < 400ms * slow);
    CHECK_FALSE(each.stopped.left_openssl_errors);
    CHECK_FALSE(each.late.left_openssl_errors);
  }
}

TEST_CASE("a stop that was asked for before ends the fetch without I/O") {
  const raw_server server(reply(with_length("{}")));
  axioms::stop_source source;
  source.request_stop();
  httplib_options options = direct();
  int calls = 0;
  options.headers = [&] {
    ++calls;  // which may be I/O too
    return std::vector<std::pair<std::string, std::string>>();
  };
  CHECK(fetch(request_for(server.url()), options, source.get_token()).code() == errc::cancelled);
  CHECK(calls == 0);
  CHECK(server.connections() == 0);
  CHECK(fetch(request_for(server.url(), 0ms)).code() == errc::timed_out);
}

TEST_CASE("a stop ends a fetch whose server floods it") {
  const raw_server server([](raw_connection& connection) {
    if (!connection.read_request()) return;
    connection.send("HTTP/1.1 200 OK\r\n\r\n");
    connection.flood(std::string(1 << 16, ' '));
  });
  axioms::stop_source source;
  std::thread stopper([&] {
    std::this_thread::sleep_for(100ms);
    source.request_stop();
  });
  fetch_request request = request_for(server.url());
  request.max_body_bytes = std::size_t{1} << 40U;
  // The memory stays bounded by what 100 ms bring in.
  CHECK(fetch(request, direct(), source.get_token()).code() == errc::cancelled);
  stopper.join();
}

TEST_CASE("a body of exactly the limit is read") {
  fetch_request request;
  request.max_body_bytes = 5;
  for (const std::string text :
       {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345", "HTTP/1.0 200 OK\r\n\r\n12345",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n3\r\n345\r\n0\r\n\r\n"}) {
    const raw_server server(reply(text));
    request.url = server.url();
    CHECK_MESSAGE(fetch(request).body() == "12345", text);
  }
}

TEST_CASE("bodies end by length, by chunks with extensions and trailers, or with the connection") {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  CHECK(fetch_reply(with_length("")).status() == 200);
  for (const std::string text :
       {"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 203 By a proxy\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\nabc"}) {
    CHECK_MESSAGE(fetch_reply(text).body() == "abc", text);
  }
  for (const std::string text :
       {"3\r\nabc\r\n0\r\n\r\n", "0003\r\nabc\r\n0\r\n\r\n", "1;a=b\r\na\r\n2 ; c\r\nbc\r\n0;x\r\n\r\n"}) {
    CHECK_MESSAGE(fetch_reply(chunked + text).body() == "abc", text);
  }
  const outcome trailers = fetch_reply(chunked + "3\r\nabc\r\n0\r\nX-Trailer: 1\r\nB: 2\r\n\r\n");
  if (test_support::httplib_release < 1202) {
    CHECK_MESSAGE(trailers.code() == errc::fetch_failed, trailers.text());  // it does not know them
  } else {
    CHECK_MESSAGE(trailers.body() == "abc", trailers.text());
  }
}

TEST_CASE("over TLS a close_notify ends a body without length") {
  const throwaway_ca ca;
  const raw_server polite(ca.issue(), [](raw_connection& c) {
    if (c.read_request()) c.send("HTTP/1.1 200 OK\r\n\r\nabc"), c.close_notify();
  });
  CHECK(fetch(polite.url(), trusting(ca)).body() == "abc");
}

TEST_CASE("a TLS server is told that the client leaves") {
  const throwaway_ca ca;
  std::atomic<bool> told{false};
  {
    const raw_server server(ca.issue(), [&](raw_connection& c) {
      if (c.read_request() && c.send(with_length("{}"))) c.wait_for_close(), told = c.got_close_notify();
    });
    CHECK(fetch(server.url(), trusting(ca)).status() == 200);
    for (int i = 0; i < 1000 && !told; ++i) std::this_thread::sleep_for(1ms);
  }
  CHECK(told);
}

TEST_CASE("a good certificate is accepted by address, by name in any case, and below a constraint that permits it") {
  const throwaway_ca ca;
  const throwaway_ca constrained =
      ca.intermediate({.common_name = "constrained", .names = "", .name_constraints = "permitted;DNS:localhost"});
  for (const auto& each : std::vector<std::pair<server_identity, std::string>>{
           {ca.issue(), "127.0.0.1"},
           {ca.issue(), "localhost"},
           {ca.issue({.names = "DNS:LOCALHOST"}), "LocalHost"},
           {constrained.issue({.names = "DNS:localhost"}), "localhost"}}) {
    const raw_server server(each.first, reply(with_length("{}")));
    const outcome got = fetch(server.url("/", each.second), trusting(ca));
    CHECK_MESSAGE(got.status() == 200, got.text());
  }
}

TEST_CASE("a wildcard stands for one whole label") {
  const throwaway_ca ca;
  addresses = {"127.0.0.1"};
  for (const auto& each : std::vector<std::pair<std::string, int>>{{"*.idp.addresses", 200},
                                                                   {"*.IDP.addresses", 200},
                                                                   {"k*.idp.addresses", 0},
                                                                   {"*s.idp.addresses", 0},
                                                                   {"*.addresses", 0},
                                                                   {"*.*.addresses", 0},
                                                                   {"keys.*.addresses", 0},
                                                                   {"*idp.addresses", 0}}) {
    const raw_server server(ca.issue({.names = "DNS:" + each.first}), reply(with_length("{}")));
    const outcome got = fetch(server.url("/", "keys.idp.addresses"), trusting(ca));
    CHECK_MESSAGE(got.status() == each.second, each.first << ": " << got.text());
  }
}

TEST_CASE("TLS 1.2 is enough") {
  const throwaway_ca ca;
  raw_server::options how;
  how.max_version = TLS1_2_VERSION;
  const raw_server server(ca.issue(), reply(with_length("{}")), how);
  CHECK(fetch(server.url(), trusting(ca)).status() == 200);
}

TEST_CASE("the names of addresses are not sent as SNI, those of hosts are") {
  const throwaway_ca ca;
  noted sni;
  const raw_server server(ca.issue(), [&](raw_connection& connection) {
    if (!connection.read_request()) return;
    sni = connection.server_name();
    connection.send(with_length("{}"));
  });
  CHECK(fetch(server.url("/", "localhost"), trusting(ca)).status() == 200);
  CHECK(sni.text() == "localhost");
  CHECK(fetch(server.url("/", "127.0.0.1"), trusting(ca)).status() == 200);
  CHECK(sni.text().empty());
}

TEST_CASE("trusted certificates come from a file or a text, and a bad one is the fetch's error") {
  const throwaway_ca ca, other;
  const loopback_server server(ca.issue(), answer_key_set);
  const temp_file good(other.pem() + ca.pem()), empty(""), garbage("no certificate"), broken(ca.pem().substr(0, 200));
  const auto with_file = [&](const std::string& path) {
    httplib_options options = direct();
    options.ca_file = path;
    return fetch(server.url(), options);
  };
  CHECK(with_file(good.path()).status() == 200);
  CHECK(fetch(server.url()).code() == errc::tls_failed);  // not the system's business
  for (const std::string& path : {empty.path(), garbage.path(), broken.path(), std::string("/no/such/file.pem")}) {
    const outcome got = with_file(path);
    CHECK(got.code() == errc::tls_failed);
    CHECK_MESSAGE(got.text().find(path) != std::string::npos, got.text());
  }
  CHECK(with_file("/no/such/file.pem").text().find("No such file") != std::string::npos);
  httplib_options options = direct();
  options.ca_pem = "nonsense";
  CHECK(fetch(server.url(), options).code() == errc::tls_failed);
  CHECK(server.requests() == 1);
}

TEST_CASE("a client certificate is shown to a server that asks, and a bad one is the fetch's error") {
  const throwaway_ca ca;
  const server_identity client = ca.issue({.common_name = "client", .names = ""});
  noted subject;
  raw_server::options how;
  how.ask_client = true;
  const raw_server server(
      ca.issue(),
      [&](raw_connection& connection) {
        if (!connection.read_request()) return;
        subject = connection.client_name();
        connection.send(with_length("{}"));
      },
      how);
  const temp_file chain(client.chain_pem), key(client.key_pem), both(client.chain_pem + client.key_pem);
  httplib_options options = trusting(ca);
  options.client_cert_file = chain.path();
  options.client_key_file = key.path();
  CHECK(fetch(server.url(), options).status() == 200);
  CHECK(subject.text().find("client") != std::string::npos);
  options.client_cert_file = both.path();
  options.client_key_file.clear();
  CHECK(fetch(server.url(), options).status() == 200);
  options.client_cert_file = chain.path();
  options.client_key_file = chain.path();
  CHECK(fetch(server.url(), options).code() == errc::tls_failed);
  const temp_file encrypted(encrypted_key());
  options.client_key_file = encrypted.path();
  CHECK(fetch(server.url(), options).code() == errc::tls_failed);  // and asks nobody for the passphrase
  options.client_key_file = "/no/such/key.pem";
  CHECK(fetch(server.url(), options).code() == errc::tls_failed);
  const server_identity stranger = ca.issue();
  const temp_file wrong_key(stranger.key_pem);
  options.client_key_file = wrong_key.path();
  CHECK(fetch(server.url(), options).code() == errc::tls_failed);
}

struct counts_copies {
  explicit counts_copies(int& where) : copies(&where) {}
  counts_copies(const counts_copies& other) : copies(other.copies) { ++*copies; }
  counts_copies& operator=(const counts_copies&) = delete;
  std::vector<std::pair<std::string, std::string>> operator()() const { return {}; }
  int* copies;
};

TEST_CASE("files that are replaced on disk are used after a fetch that failed for the old ones, if they are any good") {
  const throwaway_ca before, after;
  const loopback_server old(before.issue(), answer_key_set), renewed(after.issue(), answer_key_set);
  const temp_file authority(before.pem());
  httplib_options options = direct();
  options.ca_file = authority.path();
  int copies = 0;
  options.headers = counts_copies(copies);
  const httplib_fetcher fetcher(std::move(options));
  const int made = copies;
  const auto get = [&](const loopback_server& from) { return timed_fetch(fetcher, request_for(from.url())); };
  CHECK(get(old).status() == 200);
  authority.write(after.pem());
  CHECK(get(old).status() == 200);  // nothing has failed
  CHECK(get(renewed).code() == errc::tls_failed);
  CHECK(get(renewed).status() == 200);
  authority.write("garbage");
  CHECK(get(old).code() == errc::tls_failed);
  CHECK(get(renewed).status() == 200);
  CHECK(copies == made);  // another fetch may be in headers() meanwhile
}

TEST_CASE("a client certificate that is replaced on disk is shown after the old one was refused") {
  const throwaway_ca ca;
  const server_identity expired = ca.issue({.common_name = "expired"}), good = ca.issue({.common_name = "good"});
  raw_server::options how;
  how.ask_client = true;
  // As nginx does it: TLS goes on, and the request is answered with 400.
  const raw_server server(
      ca.issue(),
      [&](raw_connection& connection) {
        if (!connection.read_request()) return;
        const bool refused = connection.client_name().find("good") == std::string::npos;
        connection.send(refused ? "HTTP/1.1 400 Bad Request\r\n\r\n" : with_length("{}"));
      },
      how);
  const temp_file both(expired.chain_pem + expired.key_pem);
  httplib_options options = trusting(ca);
  options.client_cert_file = both.path();
  const httplib_fetcher fetcher(options);
  const auto status = [&] { return timed_fetch(fetcher, request_for(server.url())).status(); };
  CHECK(status() == 400);
  both.write(good.chain_pem + good.key_pem);
  CHECK(status() == 400);
  CHECK(status() == 200);
}

TEST_CASE("redirects are followed five times") {
  const throwaway_ca ca;
  loopback_server server(ca.issue(), answer_key_set);
  const auto redirect = [&](const std::string& location, int status = 302) {
    server.set_handler([=](const httplib::Request& request, httplib::Response& response) {
      if (request.path != "/a/b") return response.set_content(request.path, "text/plain");
      response.status = status;
      response.set_header("Location", location);
    });
    return fetch(server.url("/a/b?q=1"), trusting(ca));
  };
  for (const int status : {301, 302, 303, 307, 308}) { CHECK(redirect("/c", status).body() == "/c"); }
  for (const auto& target : std::vector<std::pair<std::string, std::string>>{
           {"c", "/a/c"},
           {"../c", "/c"},
           {"./c/../d", "/a/d"},
           {"../../..", "/"},
           {"/x/./y/..", "/x/"},
           {"c?d=../e#f", "/a/c"},
           {server.url("/abs"), "/abs"},
           {"//127.0.0.1:" + std::to_string(server.port()) + "/net", "/net"}}) {
    CHECK_MESSAGE(redirect(target.first).body() == target.second, target.first);
  }
  const int before = server.requests();
  CHECK(redirect("/a/b").text().find("more than 5 redirects") != std::string::npos);
  CHECK(server.requests() == before + 6);
  const raw_server down(reply("HTTP/1.1 302 Found\r\nLocation: " + server.url("/a/b") + "\r\n\r\n"));
  CHECK(redirect(down.url()).code() == errc::fetch_failed);  // https to http
  const outcome forth_and_back = fetch(down.url(), trusting(ca));
  CHECK_MESSAGE(forth_and_back.text().find("leads from https to") != std::string::npos, forth_and_back.text());
  const raw_server nowhere(reply("HTTP/1.1 302 Found\r\n\r\n"));
  CHECK(fetch(nowhere.url()).status() == 302);
  const raw_server up(reply("HTTP/1.1 302 Found\r\nLocation: " + server.url("/up") + "\r\n\r\n"));
  const outcome gone_up = fetch(up.url(), trusting(ca));
  CHECK(gone_up.body() == "/up");
  REQUIRE(gone_up.answer);
  CHECK(gone_up.answer->url == server.url("/up"));
}

TEST_CASE("tokens and validators stay with the origin they are meant for") {
  noted first_seen, second_seen;
  const raw_server second([&](raw_connection& connection) {
    if (!connection.read_request()) return;
    second_seen = connection.request();
    connection.send(with_length("{}"));
  });
  const raw_server first([&](raw_connection& connection) {
    if (!connection.read_request()) return;
    first_seen = connection.request();
    connection.send("HTTP/1.1 302 Found\r\nLocation: " + second.url() + "\r\n\r\n");
  });
  httplib_options options = direct();
  options.headers = [] { return std::vector<std::pair<std::string, std::string>>{{"Authorization", "Bearer t"}}; };
  fetch_request request = request_for(first.url());
  request.etag = "\"v1\"";
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(first_seen.text().find("Bearer t") != std::string::npos);
  CHECK(first_seen.text().find("If-None-Match") != std::string::npos);
  CHECK(second_seen.text().find("Bearer t") == std::string::npos);
  CHECK(second_seen.text().find("If-None-Match") == std::string::npos);
}

TEST_CASE("credentials go to the origin that the application named, and to those that it allowed") {
  const throwaway_ca ca;
  struct seen {
    noted request, client;
  };
  const server_identity client = ca.issue({.common_name = "client", .names = ""});
  const temp_file both(client.chain_pem + client.key_pem);
  raw_server::options how;
  how.ask_client = true;
  const auto record = [](seen& into, const std::string& location) {
    return [&into, location](raw_connection& connection) {
      if (!connection.read_request()) return;
      into.request = connection.request();
      into.client = connection.client_name();
      const bool there = connection.request().find("GET /go ") != 0;
      connection.send(there ? with_length("{}") : "HTTP/1.1 302 Found\r\nLocation: " + location + "\r\n\r\n");
      connection.close_notify();
    };
  };
  const auto got_both = [](const seen& at) {
    return at.request.text().find("Bearer t") != std::string::npos &&
           at.client.text().find("client") != std::string::npos;
  };
  const auto got_neither = [](const seen& at) {
    return at.request.text().find("Bearer t") == std::string::npos && at.client.text().empty();
  };
  seen home_saw, other_saw, third_saw;
  const raw_server third(ca.issue(), record(third_saw, ""), how);
  std::string back;
  const raw_server other(
      ca.issue(), [&](raw_connection& c) { record(other_saw, back)(c); }, how);
  const raw_server home(ca.issue(), record(home_saw, other.url("/go")), how);
  back = home.url("/back");
  const auto origin = [](const raw_server& server) { return "https://127.0.0.1:" + std::to_string(server.port()); };
  httplib_options options = trusting(ca);
  options.client_cert_file = both.path();
  options.headers = [] { return std::vector<std::pair<std::string, std::string>>{{"Authorization", "Bearer t"}}; };

  fetch_request request = request_for(home.url("/keys"));
  REQUIRE(fetch(request, options).status() == 200);  // without an origin: that of the URL
  CHECK(got_both(home_saw));
  request.origin = origin(home);
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_both(home_saw));

  request.url = third.url("/keys");  // a jwks_uri elsewhere
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_neither(third_saw));
  request.origin = "no origin";
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_neither(third_saw));
  request.origin = "https://127.0.0.1";  // another port is another origin, and so is another scheme or name
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_neither(third_saw));
  request.origin = origin(home);
  options.credential_origins = {"https://localhost:" + std::to_string(third.port()),
                                "http://127.0.0.1:" + std::to_string(third.port())};
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_neither(third_saw));
  options.credential_origins.push_back("HTTPS://127.0.0.1:" + std::to_string(third.port()) + "/");
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_both(third_saw));

  options.credential_origins.clear();
  request.url = home.url("/go");  // by way of another origin, and back
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_neither(other_saw));
  CHECK(first_line(home_saw.request) == "GET /back HTTP/1.1");
  CHECK(got_neither(home_saw));
  options.credential_origins = {origin(other)};
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_both(other_saw));
  CHECK(got_both(home_saw));
  options.credential_origins = {origin(home)};
  request.origin = origin(third);
  REQUIRE(fetch(request, options).status() == 200);
  CHECK(got_neither(other_saw));
  CHECK(got_neither(home_saw));
}

TEST_CASE("headers are not asked for where they may not go, and no proxy is told them for https") {
  noted asked;
  const raw_server proxy([&](raw_connection& connection) {
    if (!connection.read_request()) return;
    asked = connection.request();
    connection.send("HTTP/1.1 403 No\r\n\r\n");
  });
  httplib_options options = direct();
  int calls = 0;
  options.headers = [&] {
    ++calls;
    return std::vector<std::pair<std::string, std::string>>{{"Authorization", "Bearer t"}};
  };
  options.proxy = "127.0.0.1:" + std::to_string(proxy.port());
  CHECK(fetch("https://idp.test/", options).code() == errc::connect_failed);
  CHECK(asked.text().find("CONNECT idp.test:443 ") == 0);
  CHECK(asked.text().find("Bearer") == std::string::npos);
  CHECK(calls == 1);
  fetch_request elsewhere = request_for("https://idp.test/");
  elsewhere.origin = "https://other.test";
  CHECK(fetch(elsewhere, options).code() == errc::connect_failed);
  CHECK(calls == 1);
}

TEST_CASE("options that cannot be right are invalid_config, of check() and of each fetch") {
  const loopback_server server(answer_key_set);
  httplib_options options = direct();
  options.credential_origins = {"https://idp.test", "http://[::1]:81/"};
  CHECK(httplib_fetcher(options).check());
  CHECK(fetch(server.url(), options).status() == 200);
  for (const char* bad : {"", "idp.test", "https://idp.test/path", "https://idp.test?q", "https://user:s3cret@idp.test",
                          "ftp://idp.test", "https://*.idp.test", "https://.idp.test"}) {
    options.credential_origins = {"https://idp.test", bad};
    const auto checked = httplib_fetcher(options).check();
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == errc::invalid_config);
    CHECK(checked.error().description.find("s3cret") == std::string::npos);
    CHECK(fetch(server.url(), options).code() == errc::invalid_config);
  }
  options = direct();
  options.client_key_file = "/some/key.pem";
  CHECK(httplib_fetcher(options).check().error().code == errc::invalid_config);
  for (const char* bad : {"https://me:s3cret@127.0.0.1:1", "socks5://me:s3cret@127.0.0.1", "http://me:s3cret@",
                          "me:s3cret@127.0.0.1:99999", "http://[::1"}) {
    options = direct();
    options.proxy = bad;
    const auto checked = httplib_fetcher(options).check();
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == errc::invalid_config);
    CHECK(checked.error().description.find("s3cret") == std::string::npos);
    CHECK(fetch(server.url(), options).code() == errc::invalid_config);
  }
  options.proxy = " http://me:s3cret@127.0.0.1 ";
  CHECK(httplib_fetcher(options).check());
  CHECK(server.requests() == 1);
}

TEST_CASE("check() reads the files that the options name, and never the system's certificates") {
  const throwaway_ca ca;
  const server_identity client = ca.issue(), stranger = ca.issue();
  const temp_file authority(ca.pem()), chain(client.chain_pem), key(client.key_pem), other_key(stranger.key_pem),
      garbage("no certificate"), encrypted(encrypted_key());
  const auto check = [](const std::string& ca_file, const std::string& cert = {}, const std::string& key_file = {},
                        const std::string& pem = {}) {
    httplib_options options = direct();
    options.ca_file = ca_file;
    options.ca_pem = pem;
    options.client_cert_file = cert;
    options.client_key_file = key_file;
    const auto checked = httplib_fetcher(options).check();
    CHECK(ERR_peek_error() == 0);
    return checked ? errc{} : checked.error().code;
  };
  CHECK(check("") == errc{});
  CHECK(check(authority.path(), chain.path(), key.path(), ca.pem()) == errc{});
  for (const std::string& bad : {garbage.path(), std::string("/no/such/file"), std::string("/tmp")}) {
    CHECK(check(bad) == errc::invalid_config);
    CHECK(check("", bad, key.path()) == errc::invalid_config);
    CHECK(check("", chain.path(), bad) == errc::invalid_config);
  }
  CHECK(check("", "", "", "nonsense") == errc::invalid_config);
  CHECK(check("", chain.path(), other_key.path()) == errc::invalid_config);
  CHECK(check("", chain.path(), encrypted.path()) == errc::invalid_config);
  CHECK(check("", chain.path()) == errc::invalid_config);  // which holds no key
  {
    const set_environment no_file("SSL_CERT_FILE", "/tmp"), no_directory("SSL_CERT_DIR", "/dev/null");
    CHECK(check("") == errc{});
  }
}

TEST_CASE("what ca_pem and ca_file hold is trusted: a root, an intermediate or a leaf") {
  const throwaway_ca root;
  const throwaway_ca between = root.intermediate({.common_name = "between", .names = ""});
  const server_identity leaf = between.issue();
  const std::string leaf_pem = leaf.chain_pem.substr(0, leaf.chain_pem.find("-----END") + 26);
  const raw_server server(leaf, reply(with_length("{}")));
  for (const std::string& pem : {root.pem(), between.pem(), leaf_pem}) {
    httplib_options options = direct();
    options.ca_pem = pem;
    CHECK_MESSAGE(fetch(server.url(), options).status() == 200, pem);
    const temp_file file(pem);
    options.ca_pem.clear();
    options.ca_file = file.path();
    CHECK(fetch(server.url(), options).status() == 200);
    const raw_server stranger(throwaway_ca().issue(), reply(with_length("{}")));
    CHECK(fetch(stranger.url(), options).code() == errc::tls_failed);
    const raw_server expired(between.issue({.expired = true}), reply(with_length("{}")));
    CHECK(fetch(expired.url(), options).code() == errc::tls_failed);
  }
}

TEST_CASE("a proxy is asked in absolute form for http, and for a tunnel for https") {
  const throwaway_ca ca;
  noted asked, inside;
  const raw_server proxy(
      ca.issue({.names = "DNS:idp.test"}),
      [&](raw_connection& connection) {
        if (!connection.read_request()) return;
        asked = connection.request();
        if (connection.request().substr(0, 8) != "CONNECT ") {
          connection.send(with_length("plain"));
          return;
        }
        connection.send("HTTP/1.1 200 Connection established\r\nTransfer-Encoding: whatever\r\n\r\n");
        if (!connection.start_tls() || !connection.read_request()) return;
        inside = connection.request();
        connection.send(with_length("tunnelled"));
      },
      {.tls_first = false});
  httplib_options options = trusting(ca);
  options.proxy = "http://me:s%20cret@127.0.0.1:" + std::to_string(proxy.port());
  CHECK(fetch("http://idp.test:81/keys?a=b", options).body() == "plain");
  CHECK(first_line(asked) == "GET http://idp.test:81/keys?a=b HTTP/1.1");
  CHECK(asked.text().find("\r\nHost: idp.test:81\r\n") != std::string::npos);
  CHECK(asked.text().find("\r\nProxy-Authorization: Basic bWU6cyBjcmV0\r\n") != std::string::npos);
  const outcome tunnelled = fetch("https://idp.test/keys", options);
  CHECK_MESSAGE(tunnelled.body() == "tunnelled", tunnelled.text());
  CHECK(first_line(asked) == "CONNECT idp.test:443 HTTP/1.1");
  CHECK(inside.text().find("\r\nHost: idp.test\r\n") != std::string::npos);  // without the default port
  CHECK(asked.text().find("\r\nProxy-Authorization: Basic bWU6cyBjcmV0\r\n") != std::string::npos);
  CHECK(first_line(inside) == "GET /keys HTTP/1.1");
  CHECK(inside.text().find("Proxy-Authorization") == std::string::npos);
  CHECK(fetch("https://IDP.test.:8443/", options).status() == 200);  // the root's dot is not in a certificate
  CHECK(first_line(asked) == "CONNECT idp.test.:8443 HTTP/1.1");
  CHECK(fetch("https://[::1]/", options).code() == errc::tls_failed);
  CHECK(first_line(asked) == "CONNECT [::1]:443 HTTP/1.1");
  CHECK(fetch("https://other.test/keys", options).code() ==
        errc::tls_failed);  // the certificate is checked in the tunnel too
}

TEST_CASE(
    "a proxy that refuses or is missing is a connect_failed without its password, a bad one of the environment too") {
  const raw_server refusing(reply("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"));
  httplib_options options = direct();
  for (const std::string& proxy :
       {"http://me:secret@127.0.0.1:" + std::to_string(refusing.port()), std::string("http://me:secret@127.0.0.1:1")}) {
    options.proxy = proxy;
    const outcome got = fetch("https://idp.test/", options);
    CHECK_MESSAGE(got.code() == errc::connect_failed, got.text());
    CHECK_MESSAGE(got.text().find("secret") == std::string::npos, got.text());
  }
  for (const char* name : {"no_proxy", "NO_PROXY"}) ::unsetenv(name);
  const set_environment bad("https_proxy", "socks5://me:secret@127.0.0.1");
  const httplib_fetcher fetcher{};
  CHECK(fetcher.check());  // it may never be used
  const outcome got = timed_fetch(fetcher, request_for("https://idp.test/"));
  CHECK_MESSAGE(got.code() == errc::connect_failed, got.text());
  CHECK_MESSAGE(got.text().find("secret") == std::string::npos, got.text());
}

TEST_CASE("the environment names the proxy, and what goes past it, as it is when the fetcher is made") {
  const raw_server proxy(reply(with_length("by proxy")));
  const loopback_server server(answer_key_set);
  const auto body = [](const std::string& url) { return fetch(url, httplib_options()).body(); };
  for (const char* name :
       {"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"})
    ::unsetenv(name);
  const std::string address = "127.0.0.1:" + std::to_string(proxy.port());
  {
    const httplib_fetcher before{};
    const set_environment upper("HTTP_PROXY", "http://" + address);
    CHECK(timed_fetch(before, request_for(server.url())).body() == key_set);
    const httplib_fetcher meanwhile{};
    CHECK(body("http://idp.test/") == "by proxy");
    CHECK(body(server.url()) == "by proxy");  // loopback is no exception
    CHECK(fetch(server.url()).body() == key_set);
    const set_environment cgi("REQUEST_METHOD", "GET");
    CHECK(body(server.url()) == key_set);
    CHECK(timed_fetch(meanwhile, request_for(server.url())).body() == "by proxy");
  }
  for (const char* name : {"HTTPS_PROXY", "https_proxy"}) {
    const set_environment wrong("http_proxy", "127.0.0.1:1");
    const set_environment tunnel(name, address);
    const int before = proxy.connections();
    CHECK(fetch("https://idp.test/", httplib_options()).code() == errc::fetch_failed);  // it says more than its answer
    CHECK(proxy.connections() == before + 1);
  }
  const set_environment lower("http_proxy", address);
  const std::string port = std::to_string(server.port());
  for (const std::string& list :
       {std::string("*"), std::string("127.0.0.1"), "a.test, 127.0.0.1:" + port, std::string("127.0.0.0/8")}) {
    const set_environment past("NO_PROXY", list);
    CHECK_MESSAGE(body(server.url()) == key_set, list);
  }
  for (const char* list : {"127.0.0.1:1", "0.1", "1", ".,,", "127.0.1.0/24"}) {
    const set_environment past("no_proxy", list);
    CHECK_MESSAGE(body(server.url()) == "by proxy", list);
  }
}

TEST_CASE("NO_PROXY: names, suffixes, addresses, networks and ports") {
  const raw_server proxy(reply(with_length("by proxy")));
  for (const char* name : {"http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"}) ::unsetenv(name);
  const set_environment through("http_proxy", "127.0.0.1:" + std::to_string(proxy.port()));
  addresses.clear();  // so that what goes past the proxy fails at once
  const auto past_it = [](const std::string& list, const std::string& host) {
    const set_environment past("NO_PROXY", list);
    const httplib_fetcher fetcher{};
    // What is asked directly fails: nobody is there.
    return timed_fetch(fetcher, request_for("http://" + host + "/", 50ms)).status() != 200;
  };
  for (const auto& [list, host] :
       std::vector<std::pair<std::string, std::string>>{{"idp.addresses", "idp.addresses"},
                                                        {"idp.addresses", "keys.idp.addresses"},
                                                        {".idp.addresses", "keys.idp.addresses"},
                                                        {"*.idp.addresses", "keys.idp.addresses"},
                                                        {"IDP.Addresses.", "idp.addresses"},
                                                        {"idp.addresses.", "keys.idp.addresses"},
                                                        {"x,\tidp.addresses:80", "idp.addresses"},
                                                        {"idp.addresses:81", "idp.addresses:81"},
                                                        {"127.0.0.2", "127.0.0.2:1"},
                                                        {"127.0.0.2:1", "127.0.0.2:1"},
                                                        {"127.0.0.0/29", "127.0.0.7:1"},
                                                        {"127.0.0.2/32", "127.0.0.2:1"},
                                                        {"0.0.0.0/0", "127.0.0.2:1"},
                                                        {"::1", "[::1]:1"},
                                                        {"[::1]", "[::1]:1"},
                                                        {"[::1]:1", "[::1]:1"},
                                                        {"0:0:0:0:0:0:0:1", "[::1]:1"},
                                                        {"::1", "[0:0:0:0:0:0:0:1]:1"},
                                                        {"0000:0000::0001/128", "[::1]:1"},
                                                        {"::/64", "[::1]:1"}}) {
    const std::string shown = list + " and " + host;
    CHECK_MESSAGE(past_it(list, host), shown);
  }
  for (const auto& [list, host] :
       std::vector<std::pair<std::string, std::string>>{{"dp.addresses", "idp.addresses"},
                                                        {"sub.idp.addresses", "idp.addresses"},
                                                        {"idp.addresses:81", "idp.addresses"},
                                                        {"127.0.0.0/8", "idp.addresses"},
                                                        {"addresses.test", "idp.addresses"},
                                                        {"1", "10.0.0.1"},
                                                        {"0.0.1", "10.0.0.1"},
                                                        {"10.0.0.0/31", "10.0.0.2"},
                                                        {"10.0.0.0/", "10.0.0.0"},
                                                        {"10.0.0.0/x", "10.0.0.0"},
                                                        {"10.0.0.0/33", "10.0.0.0"},
                                                        {"10.0.0.0/-1", "10.0.0.0"},
                                                        {"/8", "10.0.0.0"},
                                                        {"10.0.0.1:81", "10.0.0.1"},
                                                        {"::/0", "10.0.0.1"},
                                                        {"0.0.0.0/0", "[::1]"},
                                                        {"::2", "[::1]"},
                                                        {"[::1]:81", "[::1]"},
                                                        {",, .,*.,/", "idp.addresses"}}) {
    const std::string shown = list + " and " + host;
    CHECK_MESSAGE(!past_it(list, host), shown);
  }
}

TEST_CASE("options can be replaced for all copies of a fetcher") {
  const throwaway_ca ca;
  const loopback_server server(ca.issue(), answer_key_set);
  httplib_fetcher fetcher(direct());
  const httplib_fetcher copy = fetcher;
  CHECK_FALSE(copy(request_for(server.url()), {}));
  axioms::detail::httplib_access::set_options(fetcher, trusting(ca));
  axioms::detail::httplib_access::set_options(fetcher, trusting(ca));
  CHECK(copy(request_for(server.url()), {}));
}

TEST_CASE("an old setup lives as long as the last fetch that began with it") {
  const raw_server server([](raw_connection& connection) {
    if (connection.read_request()) connection.wait_for_close();
  });
  httplib_options options = direct();
  const auto token = std::make_shared<int>(1);
  const std::weak_ptr<int> alive = token;
  std::atomic<bool> asked{false};
  options.headers = [held = token, &asked] {
    asked = true;
    return std::vector<std::pair<std::string, std::string>>{{"X", std::to_string(*held)}};
  };
  const_cast<std::shared_ptr<int>&>(token).reset();
  httplib_fetcher fetcher(std::move(options));
  axioms::stop_source stop;
  std::thread in_flight([&] { CHECK_FALSE(fetcher(request_for(server.url()), stop.get_token())); });
  while (!asked) std::this_thread::yield();
  axioms::detail::httplib_access::set_options(fetcher, direct());
  CHECK_FALSE(alive.expired());
  stop.request_stop();
  in_flight.join();
  CHECK(alive.expired());
}

TEST_CASE("10,000 fetches that fail leave no descriptor and no thread behind") {
  const throwaway_ca ca, other;
  const raw_server reset([](raw_connection& connection) { connection.reset(); });
  const raw_server silent([](raw_connection& connection) { connection.wait_for_close(); });
  const raw_server untrusted(other.issue(), reply(with_length("{}")));
  const auto round = [&] {
    CHECK_FALSE(fetch(request_for(reset.url(), 50ms)).answer);
    CHECK_FALSE(fetch(request_for(silent.url(), 5ms)).answer);
    CHECK_FALSE(fetch(untrusted.url(), trusting(ca)).answer);
    CHECK_FALSE(fetch("http://127.0.0.1:1/").answer);
    CHECK_FALSE(fetch_and_stop(silent.url(), direct(), after(2ms)).answer);
  };
  const httplib_fetcher plain(direct());
  const auto quick = [&] {
    CHECK_FALSE(timed_fetch(plain, request_for("http://127.0.0.1:1/")).answer);
    CHECK_FALSE(timed_fetch(plain, request_for("http://no.addresses/")).answer);
    CHECK_FALSE(timed_fetch(plain, request_for(reset.url())).answer);
  };
  addresses.clear();
  round();
  const int before = open_descriptors(), threads = running_threads();
  for (int i = 0; i < 200; ++i) round();
  for (int i = 0; i < 3000; ++i) quick();
  CHECK(settles_at(open_descriptors, before) <= before);
  CHECK(settles_at(running_threads, threads) <= threads);
}

TEST_CASE("many threads fetch at once through one fetcher") {
  const throwaway_ca ca;
  const raw_server server(ca.issue(), [](raw_connection& connection) {
    if (connection.read_request() && connection.pause(5ms)) connection.send(with_length(key_set));
  });
  const httplib_fetcher fetcher(trusting(ca));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&, i] {
      for (int n = 0; n < 10; ++n) {
        axioms::stop_source source;
        const bool hurried = (i + n) % 3 == 0;
        fetch_request request =
            request_for(server.url("/", n % 2 == 0 ? "localhost" : "127.0.0.1"), hurried ? 3ms : 60s);
        if ((i + n) % 5 == 0) source.request_stop();
        const auto answer = fetcher(request, source.get_token());
        const bool fine = answer ? answer->body == key_set
                                 : (answer.error().code == errc::timed_out && hurried) ||
                                       (answer.error().code == errc::cancelled && source.stop_requested());
        if (!fine) ++wrong;
      }
    });
  }
  for (std::thread& each : threads) each.join();
  CHECK(wrong == 0);
}

TEST_SUITE_END();
