// Forks of a process that is amid TLS: what a child finds is whole.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../support/fetching.hpp"
#include "../support/raw_server.hpp"
#include "../support/throwaway_ca.hpp"

extern char** environ;

using test_support::direct;
using test_support::raw_connection;
using test_support::raw_server;
using test_support::reply;
using test_support::request_for;
using test_support::temp_file;
using test_support::throwaway_ca;
using test_support::with_length;
using namespace std::chrono_literals;

namespace {

constexpr const char* one_key =
    R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})";

// A provider in a process of its own: the threads of one in this would be amid TLS as well, outside the gate.
class provider_process {
 public:
  provider_process() {
    REQUIRE(::pipe(life_) == 0);
    ::setenv("AXIOMS_JWKS_TEST_PROVIDER", told_.path().c_str(), 1);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, life_[0], 0);
    ::posix_spawn_file_actions_addclose(&actions, life_[1]);
    const char* arguments[] = {"integration", "--no-skip", "--test-case=child: a provider until its input ends",
                               nullptr};
    REQUIRE(::posix_spawn(&id_, "/proc/self/exe", &actions, nullptr, const_cast<char* const*>(arguments), environ) ==
            0);
    ::posix_spawn_file_actions_destroy(&actions);
    ::unsetenv("AXIOMS_JWKS_TEST_PROVIDER");
    for (int i = 0; i < 2000 && !read(); ++i) std::this_thread::sleep_for(10ms);
    REQUIRE_FALSE(url_.empty());
  }
  ~provider_process() {
    for (const int end : life_) ::close(end);
    ::waitpid(id_, nullptr, 0);
  }
  provider_process(const provider_process&) = delete;
  provider_process& operator=(const provider_process&) = delete;

  const std::string& url() const { return url_; }
  axioms::httplib_options trusting() const {
    auto out = direct();
    out.ca_pem = pem_;
    return out;
  }

 private:
  bool read() {
    std::ifstream file(told_.path());
    std::string url;
    if (!std::getline(file, url)) return false;
    pem_.assign(std::istreambuf_iterator<char>(file), {});
    if (pem_.find("END CERTIFICATE") == std::string::npos) return false;
    url_ = url;
    return true;
  }

  temp_file told_{""};
  int life_[2] = {-1, -1};
  pid_t id_ = 0;
  std::string url_, pem_;
};

}  // namespace

TEST_SUITE_BEGIN("fork");

TEST_CASE("child: a provider until its input ends" * doctest::skip()) {
  const throwaway_ca ca;
  const raw_server server(ca.issue(), reply(with_length(one_key)));
  std::ofstream(std::getenv("AXIOMS_JWKS_TEST_PROVIDER")) << server.url() << '\n' << ca.pem();
  char byte = 0;
  while (::read(0, &byte, 1) > 0) {}
}

TEST_CASE("a thousand children of a parent with four threads in TLS fetch at once and shut down") {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
  return;  // which allow no new thread in a child of threads
#endif
#elif defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  return;
#endif
  const provider_process provider;
  const axioms::httplib_options options = provider.trusting();
  const axioms::httplib_fetcher shared(options);
  axioms::jwks_manager parents(shared);
  axioms::jwks_config config;
  config.jwks_url = provider.url();
  REQUIRE(parents.initialize(config));

  std::atomic<bool> over{false};
  std::atomic<int> fetched{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      while (!over) {
        // Two set up TLS anew each time, two share it; and all parse.
        const auto answer = (i < 2 ? axioms::httplib_fetcher(options) : shared)(request_for(provider.url()), {});
        if (!answer || !axioms::jwk_set::parse(answer->body)) ++wrong;
        ++fetched;
      }
    });
  }
  int failed = 0, hung = 0, first = 0;
  for (int i = 0; i < 1000; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(20);  // ends one that hangs
      if (parents.running()) ::_exit(1);
      axioms::jwks_manager fresh{i % 2 == 0 ? shared : axioms::httplib_fetcher(options)};
      if (!fresh.initialize(config)) ::_exit(2);
      if (!fresh.get_key({.kid = "a", .alg = "EdDSA"})) ::_exit(3);
      fresh.shutdown();
      parents.shutdown();
      ::_exit(fresh.running() ? 4 : 0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) ++hung;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      ++failed;
      if (first == 0) first = status;
    }
    if (hung > 3) break;
  }
  over = true;
  for (std::thread& each : threads) each.join();
  CHECK(hung == 0);
  CHECK_MESSAGE(failed == 0, "the first status: ", first);
  CHECK(wrong == 0);
  CHECK(fetched > 100);
}

TEST_SUITE_END();
