// What tests of the default fetcher share: fetches with their outcome, answers for a raw_server, and what the process
// holds.
#ifndef AXIOMS_JWKS_TESTS_FETCHING_HPP
#define AXIOMS_JWKS_TESTS_FETCHING_HPP

#include "axioms_jwks.hpp"

#include <dirent.h>
#include <openssl/err.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "raw_server.hpp"
#include "throwaway_ca.hpp"

namespace test_support {

/// Wall-clock limits are multiplied by this: sanitizers are slow.
inline constexpr int slow = AXIOMS_JWKS_TEST_TIME_FACTOR;

struct outcome {
  axioms::result<axioms::fetch_response> answer;
  std::chrono::milliseconds took{0};
  bool left_openssl_errors = false;

  axioms::errc code() const { return answer ? axioms::errc{} : answer.error().code; }
  int status() const { return answer ? answer->status : 0; }
  std::string text() const { return answer ? std::string() : answer.error().description; }
  std::string body() const { return answer ? answer->body : std::string(); }
};

inline axioms::httplib_options direct() {
  axioms::httplib_options out;
  out.proxy_from_environment = false;  // what the machine that runs the tests has set is not their business
  return out;
}

inline axioms::httplib_options trusting(const throwaway_ca& ca) {
  axioms::httplib_options out = direct();
  out.ca_pem = ca.pem();
  return out;
}

inline axioms::fetch_request request_for(std::string url,
                                         std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
  axioms::fetch_request out;
  out.url = std::move(url);
  out.timeout = timeout;
  return out;
}

/// Fetches on the calling thread.
inline outcome timed_fetch(const axioms::httplib_fetcher& fetcher, const axioms::fetch_request& request,
                           axioms::stop_token stop = {}) {
  const auto start = std::chrono::steady_clock::now();
  auto answer = fetcher(request, std::move(stop));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
  return {std::move(answer), took, ERR_peek_error() != 0};
}

inline raw_server::script reply(std::string text) {
  return [text = std::move(text)](raw_connection& connection) {
    if (connection.read_request()) connection.send(text);
  };
}

inline std::string with_length(const std::string& body, const std::string& headers = {}) {
  return "HTTP/1.1 200 OK\r\n" + headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

/// Of a directory in /proc, less "." and ".."; -1 where there is no such thing.
inline int entries_of(const char* path) {
  DIR* directory = ::opendir(path);
  if (directory == nullptr) return -1;
  int count = -2;
  while (::readdir(directory) != nullptr) ++count;
  ::closedir(directory);
  return count;
}
inline int open_descriptors() { return entries_of("/proc/self/fd"); }
inline int running_threads() { return entries_of("/proc/self/task"); }

/// The count once it is down to @p wanted, or after ten seconds: servers under test close a little later than clients.
inline int settles_at(int (*count)(), int wanted) {
  for (int i = 0; i < 1000 && count() > wanted; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return count();
}

}  // namespace test_support

#endif
