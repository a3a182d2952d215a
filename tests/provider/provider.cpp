// Both verifiers beside a real OpenID Provider: npm's oidc-provider, which provider.mjs runs in another process.
// tests/provider/run fetches it and starts this.
#include "axioms_jwks.hpp"

#include <doctest/doctest.h>
#include <httplib.h>
#include <nlohmann/json.hpp>

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <concepts>
#include <cstdlib>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/coroutine.hpp"
#include "support/eventually.hpp"
#include "support/fetching.hpp"
#include "support/manual_clock.hpp"
#include "support/throwaway_ca.hpp"

extern char** environ;

using axioms::errc;
using nlohmann::json;
using support::eventually;
using support::manual_clock;
using namespace std::chrono_literals;

namespace {

constexpr const char* audience = "https://api.example.com";

// One for all tests. The provider reads files, so there are such.
struct identity {
  test_support::throwaway_ca ca;
  test_support::server_identity server = ca.issue();
  test_support::temp_file ca_file{ca.pem()}, certificate{server.chain_pem}, key{server.key_pem};
};
const identity& ours() {
  static const identity one;
  return one;
}

/// The provider's process, from its first line of output to the end of the object.
class provider_process {
 public:
  explicit provider_process(int port = 0) {
    const char* folder = std::getenv("AXIOMS_JWKS_TEST_PROVIDER");
    REQUIRE_MESSAGE(folder != nullptr, "start this by tests/provider/run");
    std::array<std::string, 5> words{"node", std::string(folder) + "/provider.mjs", ours().certificate.path(),
                                     ours().key.path(), std::to_string(port)};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);

    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    here_ = ends[0];
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    const int failed = ::posix_spawnp(&process_, "node", &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    REQUIRE(failed == 0);
    port_ = read_answer().at("port").get<int>();
  }
  ~provider_process() {
    ::close(here_);
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  provider_process(const provider_process&) = delete;
  provider_process& operator=(const provider_process&) = delete;

  int port() const { return port_; }
  json command(std::string line) {
    line += '\n';
    REQUIRE(::send(here_, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size()));
    json answer = read_answer();
    REQUIRE_MESSAGE(!answer.contains("error"), line, answer.dump());
    return answer;
  }

 private:
  json read_answer() {
    std::string::size_type end = 0;
    while ((end = unread_.find('\n')) == std::string::npos) {
      pollfd wait{here_, POLLIN, 0};
      REQUIRE_MESSAGE(::poll(&wait, 1, 60000) == 1, "the provider says nothing");
      char piece[4096];
      const ssize_t got = ::recv(here_, piece, sizeof piece, 0);
      REQUIRE_MESSAGE(got > 0, "the provider has ended");
      unread_.append(piece, static_cast<std::size_t>(got));
    }
    json answer = json::parse(unread_.substr(0, end));
    unread_.erase(0, end + 1);
    return answer;
  }

  int here_ = -1, port_ = 0;
  pid_t process_ = 0;
  std::string unread_;
};

/// What a test wants of a provider.
class oidc_provider {
 public:
  std::string issuer() const { return "https://127.0.0.1:" + std::to_string(process_->port()); }
  // The key set is these, each as kid:alg, and nothing else.
  void publish(const std::string& keys) { process_->command("publish " + keys); }
  void mode(const std::string& mode) { process_->command("mode " + mode); }
  int requests(const char* of) { return process_->command("requests").at(of).get<int>(); }
  // Another process at the same address, which has no key of the old one.
  void restart() {
    const int port = process_->port();
    process_.reset();
    process_ = std::make_unique<provider_process>(port);
  }

  // What a client gets at the token endpoint, signed with the key of that kid.
  std::string issue(const std::string& kid) const {
    httplib::SSLClient client("127.0.0.1", process_->port());
    client.set_ca_cert_path(ours().ca_file.path().c_str());
    const auto response = client.Post("/token", httplib::Params{{"grant_type", "client_credentials"},
                                                                {"client_id", "service"},
                                                                {"client_secret", "secret"},
                                                                {"scope", "orders:read"},
                                                                {"resource", std::string(audience) + '/' + kid}});
    REQUIRE_MESSAGE(response, to_string(response.error()));
    REQUIRE_MESSAGE(response->status == 200, response->body);
    return json::parse(response->body).at("access_token").get<std::string>();
  }
  // What somebody makes who has the key.
  std::string sign(const std::string& kid, const json& header, const json& claims) {
    return process_->command("sign " + json{{"kid", kid}, {"header", header}, {"claims", claims}}.dump())
        .at("token")
        .get<std::string>();
  }

 private:
  std::unique_ptr<provider_process> process_ = std::make_unique<provider_process>();
};

template <class Operation, class T>
support::detached await_into(Operation operation, std::shared_ptr<std::promise<T>> into) {
  into->set_value(co_await operation);
}
// Blocks until an operation is over.
template <class T, class Operation>
T awaited(Operation operation) {
  const auto into = std::make_shared<std::promise<T>>();
  auto came = into->get_future();
  await_into(std::move(operation), into);
  REQUIRE(came.wait_for(support::patience) == std::future_status::ready);
  return came.get();
}

using answer = axioms::result<axioms::verified_token>;
errc code(const answer& what) { return what ? errc{} : what.error().code; }
std::string text(const answer& what) {
  return what ? "accepted" : std::string(to_string(what.error().code)) + ": " + what.error().description;
}

// Tokens are dated by the provider's clock, which is real.
template <class Clock>
Clock today() {
  Clock out;
  if constexpr (std::same_as<Clock, manual_clock>)
    out.step_wall(std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now() - out.system_now()));
  return out;
}

/// A service with both managers and their verifiers, which find the keys by the issuer's metadata.
template <class Clock = manual_clock>
struct service {
  using blocking_manager = axioms::basic_jwks_manager<axioms::httplib_fetcher, Clock>;
  using async_manager = axioms::basic_async_jwks_manager<axioms::httplib_fetcher, Clock>;

  explicit service(const oidc_provider& idp, Clock time = today<Clock>())
      : clock(time),
        blocking(axioms::httplib_fetcher(test_support::trusting(ours().ca)), time),
        async(axioms::httplib_fetcher(test_support::trusting(ours().ca)), time),
        blocking_verifier(blocking, rules_for(idp)),
        async_verifier(async, rules_for(idp)) {
    axioms::jwks_config config;
    config.issuer = idp.issuer();
    config.discovery = true;
    config.require_https = true;
    config.random = [] { return std::uint64_t{0}; };  // no jitter, shortest backoff
    config.refresh_interval = 300s;
    config.cache_ttl = 600s;
    config.outage_window = 600s;
    config.backoff_max = 60s;
    REQUIRE(blocking.initialize(config));
    REQUIRE(awaited<axioms::result<void>>(async.initialize(config)));
    REQUIRE(eventually([&] { return blocking.health().ready && async.health().ready; }));
  }
  static axioms::token_rules rules_for(const oidc_provider& idp) {
    axioms::token_rules out;
    out.issuer = idp.issuer();
    out.audience = {audience};
    out.rfc9068 = true;
    out.memo = 1000;
    return out;
  }
  // Moves the clock, and waits until what is due then has been fetched, or not.
  void advance(std::chrono::seconds by) {
    clock.advance(by);
    REQUIRE(eventually(
        [&] { return blocking.health().next_attempt > clock.now() && async.health().next_attempt > clock.now(); }));
  }

  // Both must say the same, and again what they accept.
  answer verify(const std::string& token) {
    answer first = blocking_verifier.verify(token);
    const answer second = await_verify(token);
    REQUIRE_MESSAGE(code(first) == code(second), text(first), ", but async ", text(second));
    if (first) {
      CHECK(blocking_verifier.verify(token).has_value());
      CHECK(await_verify(token).has_value());
    }
    return first;
  }
  answer await_verify(const std::string& token) { return awaited<answer>(async_verifier.verify(token)); }

  Clock clock;
  blocking_manager blocking;
  async_manager async;
  axioms::basic_token_verifier<blocking_manager> blocking_verifier;
  axioms::basic_token_verifier<async_manager> async_verifier;
};

static_assert(std::same_as<service<axioms::steady_clock>::blocking_manager, axioms::jwks_manager>);
static_assert(std::same_as<service<axioms::steady_clock>::async_manager, axioms::async_jwks_manager>);

}  // namespace

TEST_SUITE_BEGIN("provider");

TEST_CASE("what a provider issues is accepted, whatever the algorithm, and nothing else") {
  oidc_provider idp;
  idp.publish("RS256:RS256 PS256:PS256 ES256:ES256 EdDSA:EdDSA");
  service<axioms::steady_clock> api(idp);
  const axioms::token_verifier other(api.blocking, {.issuer = idp.issuer(), .audience = {"https://other.example.com"}});
  CHECK(json::parse(api.blocking.metadata().value_or("null")).value("issuer", "") == idp.issuer());

  for (const std::string alg : {"RS256", "PS256", "ES256", "EdDSA"}) {
    CAPTURE(alg);
    const std::string token = idp.issue(alg);
    const answer good = api.verify(token);
    REQUIRE_MESSAGE(good, text(good));
    CHECK(good->issuer() == idp.issuer());
    CHECK(good->client_id() == "service");
    CHECK(good->subject() == "service");
    CHECK_FALSE(good->id().empty());
    CHECK(good->has_scope("orders:read"));
    CHECK_FALSE(good->has_scope("orders:write"));
    CHECK(good->header()["alg"].string() == alg);
    CHECK(good->header()["typ"].string() == "at+jwt");
    CHECK(good->key()->kid() == alg);
    CHECK(good->expires_at() > std::chrono::system_clock::now() + 23h);

    // With the same key, as jose writes it.
    json header{{"alg", alg}, {"kid", alg}, {"typ", "at+jwt"}};
    json claims = json::parse(good->payload());
    CHECK(code(api.verify(idp.sign(alg, header, claims))) == errc{});
    // With the key of somebody else.
    CHECK(code(api.verify(idp.sign("stray-" + alg, header, claims))) == errc::bad_signature);
    // A byte of each part is another.
    for (std::size_t at = token.find('.'); at != std::string::npos; at = token.find('.', at + 1)) {
      std::string altered = token;
      altered[at - 3] = altered[at - 3] == 'A' ? 'B' : 'A';
      CHECK_FALSE(api.verify(altered));
    }
    std::string altered = token;
    altered[token.size() - 10] = altered[token.size() - 10] == 'A' ? 'B' : 'A';
    CHECK(code(api.verify(altered)) == errc::bad_signature);

    CHECK(code(other.verify(token)) == errc::audience_mismatch);
    claims["exp"] = claims["iat"].get<std::int64_t>() - 61;
    CHECK(code(api.verify(idp.sign(alg, header, claims))) == errc::token_expired);
    claims = json::parse(good->payload());
    claims["iss"] = "https://other.example.com";
    CHECK(code(api.verify(idp.sign(alg, header, claims))) == errc::issuer_mismatch);
    header["kid"] = "unpublished-" + alg;
    claims = json::parse(good->payload());
    CHECK(code(api.verify(idp.sign("stray-" + alg, header, claims))) == errc::key_not_found);
  }
}

TEST_CASE("a new key is found by the first token of it, and a withdrawn one is gone with the next refresh") {
  oidc_provider idp;
  idp.publish("a:RS256");
  service<> api(idp);
  const std::string old_token = idp.issue("a");
  CHECK(code(api.verify(old_token)) == errc{});
  CHECK(idp.requests("keys") == 2);

  idp.publish("b:ES256 a:RS256");
  CHECK(code(api.verify(idp.issue("b"))) == errc{});
  CHECK(code(api.verify(old_token)) == errc{});
  CHECK(idp.requests("keys") == 4);
  CHECK(idp.requests("metadata") == 2);

  idp.publish("b:ES256");
  CHECK(code(api.verify(old_token)) == errc{});
  CHECK(idp.requests("keys") == 4);
  api.advance(300s);
  CHECK(idp.requests("keys") == 6);
  CHECK(idp.requests("metadata") == 4);
  // It is asked for once more, and then known to be missing.
  for (int i = 0; i < 3; ++i) CHECK(code(api.verify(old_token)) == errc::key_not_found);
  CHECK(idp.requests("keys") == 8);
  CHECK(code(api.verify(idp.issue("b"))) == errc{});
}

TEST_CASE("a provider that starts again with new keys is believed, also when a kid is the same") {
  oidc_provider idp;
  idp.publish("sig:RS256");
  service<> api(idp);
  const std::string first = idp.issue("sig");
  CHECK(code(api.verify(first)) == errc{});

  idp.restart();
  idp.publish("sig:RS256");
  // Nobody has told us yet.
  CHECK(code(api.verify(first)) == errc{});
  const std::string second = idp.issue("sig");
  // A set that is not older than 30 s is not doubted.
  api.advance(29s);
  CHECK(code(api.verify(second)) == errc::bad_signature);
  CHECK(idp.requests("keys") == 0);
  api.advance(1s);
  CHECK(code(api.verify(second)) == errc{});
  CHECK(code(api.verify(first)) == errc::bad_signature);
  CHECK(code(api.verify(second)) == errc{});

  idp.restart();
  idp.publish("other:EdDSA");
  CHECK(code(api.verify(idp.issue("other"))) == errc{});
  CHECK(code(api.verify(first)) == errc::key_not_found);
  CHECK(code(api.verify(second)) == errc::key_not_found);
}

TEST_CASE("an outage is bridged until the end of the outage window, and then every answer is 503") {
  oidc_provider idp;
  idp.publish("a:ES256");
  const std::string token = idp.issue("a");
  for (const std::string mode : {"unavailable", "down"}) {
    CAPTURE(mode);
    const errc reason = mode == "down" ? errc::connect_failed : errc::http_status;
    service<> api(idp);
    CHECK(code(api.verify(token)) == errc{});
    idp.mode(mode);
    const std::string unknown = idp.sign("stray", {{"alg", "ES256"}, {"kid", "stray"}, {"typ", "at+jwt"}},
                                         json::parse(api.verify(token)->payload()));
    // cache_ttl and outage_window are 600 s each.
    for (auto spent = 60s; spent < 1200s; spent += 60s) {
      CAPTURE(spent.count());
      api.advance(60s);
      CHECK(code(api.verify(token)) == errc{});
      CHECK(code(api.verify(unknown)) == reason);
      CHECK(api.blocking.health().stale == (spent >= 600s));
    }
    api.advance(60s);
    for (const std::string& any : {token, unknown}) {
      const answer refused = api.verify(any);
      CHECK(code(refused) == reason);
      if (!refused) CHECK(refused.error().status_code() == 503);
    }
    idp.mode("up");
    api.advance(60s);  // backoff_max
    CHECK(code(api.verify(token)) == errc{});
    CHECK(code(api.verify(unknown)) == errc::key_not_found);
  }
}

TEST_CASE("a provider that hangs costs no known token any time, and others a time-out by the manager's clock") {
  oidc_provider idp;
  idp.publish("a:ES256");
  service<> api(idp);
  const std::string token = idp.issue("a");
  CHECK(code(api.verify(token)) == errc{});
  idp.mode("hang");
  // Before the end of cache_ttl, and of outage_window: the flights are in the air, and nobody waits for them.
  const auto hanging = [&](std::chrono::seconds by) {
    const int before = idp.requests("metadata");
    api.clock.advance(by);
    REQUIRE(eventually([&] { return idp.requests("metadata") == before + 2; }));
  };
  for (int refresh = 0; refresh < 2; ++refresh) {
    hanging(300s);
    CHECK(code(api.verify(token)) == errc{});
    CHECK(api.blocking.health().stale == (refresh == 1));
    api.advance(10s);  // fetch_timeout
    REQUIRE(api.blocking.health().last_error);
    CHECK(api.blocking.health().last_error->code == errc::timed_out);
  }
  // After it.
  hanging(600s);
  auto blocking = std::async(std::launch::async, [&] { return api.blocking_verifier.verify(token); });
  auto async = std::async(std::launch::async, [&] { return api.await_verify(token); });
  api.advance(10s);
  CHECK(code(blocking.get()) == errc::timed_out);
  CHECK(code(async.get()) == errc::timed_out);
  idp.mode("up");
  api.advance(60s);  // backoff_max
  CHECK(code(api.verify(token)) == errc{});
}

TEST_CASE("an hour of traffic with a rotation every ten minutes") {
  oidc_provider idp;
  // Of each algorithm one key, and every ten minutes a new one of the next takes the place of the old.
  std::array<std::string, 4> algs{"RS256", "PS256", "ES256", "EdDSA"};
  std::array<std::string, 4> kids;
  const auto publish = [&] {
    std::string list;
    for (std::size_t i = 0; i < kids.size(); ++i) list += (i == 0 ? "" : " ") + kids[i] + ':' + algs[i];
    idp.publish(list);
  };
  std::map<std::string, std::string> tokens;  // by kid
  std::string withdrawn, unused;              // a token, and the kid of a key that has not signed yet
  for (std::size_t i = 0; i < kids.size(); ++i) kids[i] = "0-" + algs[i];
  publish();
  for (const std::string& kid : kids) tokens[kid] = idp.issue(kid);
  service<> api(idp);

  for (int minute = 1; minute <= 60; ++minute) {
    CAPTURE(minute);
    api.advance(60s);
    const int rotation = minute / 10;
    if (minute % 10 == 5) {
      const std::size_t next = static_cast<std::size_t>(rotation) % kids.size();
      withdrawn = tokens[kids[next]];
      tokens.erase(kids[next]);
      unused = kids[next] = std::to_string(minute) + '-' + algs[next];
      publish();
    }
    // A refresh later the old one is gone, without a token that would have asked for the new one.
    if (minute % 10 == 1 && !withdrawn.empty()) CHECK(code(api.verify(withdrawn)) == errc::key_not_found);
    // Every other new key signs at once.
    if (!unused.empty() && (minute % 10 == 1 || rotation % 2 == 1)) {
      tokens[unused] = idp.issue(unused);
      unused.clear();
    }
    for (const auto& each : tokens) {
      const answer good = api.verify(each.second);
      CHECK_MESSAGE(good, each.first, ": ", text(good));
      if (good) CHECK(good->key()->kid() == each.first);
    }
  }
  // By each manager 12 in the background, and one at most for a key that is new, and for one that is gone.
  const int asked = idp.requests("keys");
  MESSAGE("requests for the key set by two managers in an hour: ", asked);
  CHECK(asked >= 2 * 12);
  CHECK(asked <= 2 * (1 + 12 + 6 + 6));

  // All of them end with their day.
  api.advance(24h);
  for (const auto& each : tokens) CHECK(code(api.verify(each.second)) == errc::token_expired);
  CHECK(code(api.verify(idp.issue(kids[0]))) == errc::token_expired);
}

TEST_SUITE_END();
