// Discovery: from an issuer to its key set, by OpenID Connect Discovery 1.0 section 4 and RFC 8414; and the refetch after a
// bad signature.
//
// "Red when" names a change to the header that makes the test fail.
#include "support/rig.hpp"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using axioms::errc, axioms::fetch_request, axioms::jwks_config, axioms::jwks_event, axioms::jwks_event_kind;
using axioms::detail::discovery_policy, axioms::detail::judge_metadata, axioms::detail::metadata_source,
    axioms::detail::metadata_source_of, axioms::detail::steady_point, axioms::detail::verdict;
using support::eventually, support::fake_fetcher, support::key_set, support::manual_clock, support::ok,
    support::response, support::rig;
using step = discovery_policy::step;

namespace {

const std::string issuer = "https://idp.example.com/tenant";
const std::string openid_url = "https://idp.example.com/tenant/.well-known/openid-configuration";
const std::string oauth_url = "https://idp.example.com/.well-known/oauth-authorization-server/tenant";
const std::string keys_url = "https://keys.example.com/v1";
const std::string moved_url = "https://keys.example.com/v2";

std::string metadata_of(const std::string& who, const std::string& jwks_uri) {
  return R"({"issuer":")" + who + R"(","authorization_endpoint":"https://x/","jwks_uri":")" + jwks_uri + "\"}";
}
jwks_config discovering(const std::string& who = issuer) {
  jwks_config config;
  config.issuer = who;
  config.discovery = true;
  config.random = [] { return std::uint64_t{0}; };
  return config;
}
axioms::key_query kid(std::string_view name) { return {name, {}}; }

// A provider that publishes metadata and keys.
struct discovered : rig {
  discovered() {
    provider.always(response(404));
    provider.always_at(openid_url, response(200, metadata_of(issuer, keys_url)));
    provider.always_at(keys_url, ok({"k1"}));
  }
  std::vector<std::string> asked() const {
    std::vector<std::string> urls;
    for (std::size_t i = 0; i < provider.requests(); ++i) urls.push_back(provider.request(i).url);
    return urls;
  }
};
using urls = std::vector<std::string>;

verdict judged(const std::string& body, const jwks_config& config = discovering(), int status = 200) {
  const auto source = *metadata_source_of(config);
  fetch_request request;
  request.url = source.urls[0];
  request.max_body_bytes = 4096;
  return judge_metadata(request, response(status, body), source, {});
}

}  // namespace

// ---- the rule of acceptance for metadata ---------------------------------------------------------

// Red when one of the two URLs is built otherwise.
TEST_CASE("metadata are looked for where OpenID Connect puts them, then where RFC 8414 does") {
  const auto at = [](const std::string& who) { return metadata_source_of(discovering(who))->urls; };
  CHECK(at(issuer) == std::array{openid_url, oauth_url});
  CHECK(at("https://h") == std::array<std::string, 2>{"https://h/.well-known/openid-configuration",
                                                      "https://h/.well-known/oauth-authorization-server"});
  CHECK(at("https://h/") == at("https://h"));
  CHECK(at("https://h:8443/a/b/")[1] == "https://h:8443/.well-known/oauth-authorization-server/a/b");
}

// Red when judge_metadata() compares anything but the whole string.
TEST_CASE("metadata must name exactly the issuer that is configured") {
  CHECK(judged(metadata_of(issuer, keys_url)).what == verdict::kind::found);
  for (const char* other :
       {"https://idp.example.com/tenant/", "https://idp.example.com/Tenant", "https://idp.example.com",
        "http://idp.example.com/tenant", "", "https://evil.example.com/tenant"}) {
    CAPTURE(other);
    const auto said = judged(metadata_of(other, keys_url));
    CHECK(said.what == verdict::kind::absent);
    CHECK(said.why.code == errc::not_a_key_set);
    CHECK(said.why.description.find("its issuer is") != std::string::npos);
  }
  CHECK(judged(metadata_of("https://h/", keys_url), discovering("https://h/")).what == verdict::kind::found);
  CHECK(judged(metadata_of("https://h", keys_url), discovering("https://h/")).what == verdict::kind::absent);
}

// Red when slash_optional is not asked for.
TEST_CASE("an issuer that is known by its domain only may end in a slash") {
  jwks_config config;
  config.domain = "tenant.example.com";
  config.discovery = true;
  CHECK(judged(metadata_of("https://tenant.example.com", keys_url), config).what == verdict::kind::found);
  CHECK(judged(metadata_of("https://tenant.example.com/", keys_url), config).what == verdict::kind::found);
  CHECK(judged(metadata_of("https://tenant.example.com//", keys_url), config).what == verdict::kind::absent);
}

// Red when any check of judge_metadata() is left out.
TEST_CASE("hostile metadata are an error that says what is wrong") {
  for (const std::string& body : std::vector<std::string>{
           "", "<html>", "[]", "null", "{}", R"({"issuer":1,"jwks_uri":"https://x/"})",
           R"({"issuer":")" + issuer + "\"}", R"({"issuer":")" + issuer + R"(","jwks_uri":7})", metadata_of(issuer, ""),
           metadata_of(issuer, "/keys"), metadata_of(issuer, "file:///etc/passwd"),
           metadata_of(issuer, "https://user:secret@x/"), metadata_of(issuer, "http://keys.example.com/v1"),
           std::string(5000, ' ') + metadata_of(issuer, keys_url), std::string(3000, '['),
           metadata_of(issuer, keys_url).substr(0, 60)}) {
    CAPTURE(body.substr(0, 200));
    const auto said = judged(body);
    CHECK(said.what != verdict::kind::found);
    CHECK(said.why.code != errc{});
    CHECK_FALSE(said.why.description.empty());
    CHECK(said.why.description.find("secret") == std::string::npos);
    CHECK(said.why.http_status == 200);
  }
  std::string deep = metadata_of(issuer, keys_url);
  deep.insert(deep.size() - 1, R"(,"x":)" + std::string(40, '[') + std::string(40, ']'));
  CHECK(judged(deep).what != verdict::kind::found);
  // http metadata may name an http key set, and https.
  CHECK(judged(metadata_of("http://h", "http://h/keys"), discovering("http://h")).what == verdict::kind::found);
  CHECK(judged(metadata_of("http://h", keys_url), discovering("http://h")).what == verdict::kind::found);
}

// Red when an answer is missing on either side of the rule.
TEST_CASE("metadata are absent when what came is none of that issuer, unless the provider asks to come back later") {
  const auto kind = [](const axioms::result<axioms::fetch_response>& answer) {
    const auto source = *metadata_source_of(discovering());
    fetch_request request;
    request.url = source.urls[0];
    return judge_metadata(request, answer, source, {}).what;
  };
  for (const int status : {201, 204, 301, 302, 304, 400, 401, 403, 404, 405, 410, 500, 502, 503}) {
    CAPTURE(status);
    CHECK(kind(response(status)) == verdict::kind::absent);
    CHECK(kind(response(status, "", {{"Retry-After", "1"}})) == verdict::kind::failure);
  }
  for (const int status : {408, 429}) CHECK(kind(response(status)) == verdict::kind::failure);
  for (const int status : {200, 203}) {
    CHECK(kind(response(status, "<html>Sign in</html>")) == verdict::kind::absent);
    CHECK(kind(response(status, "{}")) == verdict::kind::absent);
    CHECK(kind(response(status, metadata_of("https://else.example.com", keys_url))) == verdict::kind::absent);
    CHECK(kind(response(status, R"({"issuer":")" + issuer + "\"}")) == verdict::kind::absent);
    CHECK(kind(response(status, metadata_of(issuer, "http://keys.example.com/"))) == verdict::kind::failure);
    CHECK(kind(response(status, metadata_of(issuer, "nonsense"))) == verdict::kind::failure);
    CHECK(kind(response(status, metadata_of(issuer, keys_url))) == verdict::kind::found);
  }
  for (const errc code : {errc::resolve_failed, errc::connect_failed, errc::tls_failed, errc::timed_out})
    CHECK(kind(axioms::error{code, "the network", 0}) == verdict::kind::failure);
}

// Red when the text is not kept, kept for ever, or above its limit.
TEST_CASE("metadata are kept as they were published, up to 64 KiB") {
  const std::string text = metadata_of(issuer, keys_url);
  CHECK(*judged(text).metadata == text);
  const auto source = *metadata_source_of(discovering());
  fetch_request request;
  request.url = source.urls[0];
  const auto padded = [&](std::size_t size) {
    std::string out = text;
    return out.insert(out.size() - 1, std::string(size - out.size(), ' '));
  };
  CHECK(judge_metadata(request, response(200, padded(65536)), source, {}).metadata->size() == 65536);
  const auto longer = judge_metadata(request, response(200, padded(65537)), source, {});
  CHECK(longer.what == verdict::kind::found);
  CHECK(longer.metadata == nullptr);
}

// ---- the policy ----------------------------------------------------------------------------------

namespace {
verdict found(std::string jwks_uri = keys_url) {
  verdict out;
  out.what = verdict::kind::found;
  out.jwks_uri = std::move(jwks_uri);
  return out;
}
verdict of_kind(verdict::kind kind, std::string why = "down") {
  verdict out;
  out.what = kind;
  out.why = {errc::http_status, std::move(why), 0};
  return out;
}
struct guide {
  discovery_policy policy{std::make_shared<metadata_source>(*metadata_source_of(discovering())), discovering()};
  steady_point now{1000h};
  step begin() { return policy.begin(now); }
  step begin_for_token() { return policy.begin(now, true); }
  step read(verdict what) { return policy.read(now, std::move(what)); }
};
}  // namespace

// Red when begin() reads them for every token, for none, or looks at their age before a refresh.
TEST_CASE("metadata are read by every refresh, and for a token when they are older than min_refresh_interval") {
  guide g;
  CHECK(g.begin_for_token() == step::metadata);  // there are none
  CHECK(g.read(found()) == step::keys);
  g.policy.ended(true);
  g.now += 60s - steady_point::duration(1);
  CHECK(g.begin_for_token() == step::keys);
  CHECK(g.begin() == step::metadata);
  g.now += steady_point::duration(1);
  CHECK(g.begin_for_token() == step::metadata);
}

// Red when ended(false) is forgotten.
TEST_CASE("metadata are read again when the key set was not to be had where they say") {
  guide g;
  g.begin();
  g.read(found());
  g.policy.ended(false);
  g.now += 1s;
  CHECK(g.begin_for_token() == step::metadata);
  CHECK(g.read(found(moved_url)) == step::keys);
  CHECK(g.policy.jwks_uri() == moved_url);
  g.policy.ended(true);
  CHECK(g.begin_for_token() == step::keys);
}

// Red when keys_failed() reads them twice in one flight, or while they are left alone.
TEST_CASE("a flight that finds no key set reads the metadata, if it has not yet") {
  guide g;
  g.begin();
  g.read(found());
  CHECK(g.policy.keys_failed(g.now) == step::fail);
  g.policy.ended(true);
  g.begin_for_token();
  CHECK(g.policy.keys_failed(g.now) == step::metadata);
  CHECK(g.read(of_kind(verdict::kind::failure)) == step::keys);
  g.policy.ended(true);
  g.begin_for_token();
  CHECK(g.policy.keys_failed(g.now) == step::fail);  // for a minute
}

// Red when read() fails although there is an old jwks_uri, or uses it past cache_ttl + outage_window.
TEST_CASE("while metadata cannot be read the old ones are used, for as long as a document would be") {
  guide g;
  g.begin();
  g.read(found());
  g.now += 14400s - steady_point::duration(1);
  CHECK(g.begin() == step::metadata);
  CHECK(g.read(of_kind(verdict::kind::failure)) == step::keys);
  CHECK(g.policy.failure().has_value());
  g.now += steady_point::duration(1);
  CHECK(g.begin() == step::metadata);
  CHECK_FALSE(g.policy.failure().has_value());
  CHECK(g.read(of_kind(verdict::kind::failure)) == step::fail);
}

// Red when a 304 does not count as read, or counts with nothing to confirm.
TEST_CASE("a 304 confirms the metadata that are there, and nothing else") {
  guide g;
  g.begin();
  CHECK(g.read(of_kind(verdict::kind::not_modified)) == step::fail);
  g.begin();
  verdict first = found();
  first.etag = "\"m1\"";
  g.read(std::move(first));
  g.now += 14000s;
  g.begin();
  CHECK(g.read(of_kind(verdict::kind::not_modified)) == step::keys);
  CHECK(g.policy.etag() == "\"m1\"");
  g.now += 14000s;
  g.begin();
  CHECK(g.read(of_kind(verdict::kind::failure)) == step::keys);  // counted from the 304
}

// Red when the other form is not tried, tried twice, or tried for an outage.
TEST_CASE("the form of RFC 8414 is tried once where OpenID Connect's is absent, and kept if it works") {
  guide g;
  CHECK(g.begin() == step::metadata);
  CHECK(g.policy.metadata_url() == openid_url);
  CHECK(g.read(of_kind(verdict::kind::absent)) == step::metadata);
  CHECK(g.policy.metadata_url() == oauth_url);
  CHECK(g.read(found()) == step::keys);
  CHECK_FALSE(g.policy.failure().has_value());
  g.now += 4000s;
  CHECK(g.begin() == step::metadata);
  CHECK(g.policy.metadata_url() == oauth_url);

  guide moved;
  moved.begin();
  verdict first = found();
  first.etag = first.last_modified = "\"m1\"";
  moved.read(std::move(first));
  moved.now += 4000s;
  moved.begin();
  CHECK(moved.read(of_kind(verdict::kind::absent)) == step::metadata);
  CHECK(moved.policy.etag().empty());  // they belong to the other URL
  CHECK(moved.policy.last_modified().empty());

  guide none;
  none.begin();
  CHECK(none.read(of_kind(verdict::kind::absent, "first")) == step::metadata);
  CHECK(none.read(of_kind(verdict::kind::absent, "second")) == step::fail);
  CHECK(none.policy.failure()->why.description == "first");
  CHECK(none.policy.metadata_url() == openid_url);

  auto elsewhere = discovering();
  elsewhere.metadata_url = "https://meta.example.com/x?p=1";
  discovery_policy one(std::make_shared<metadata_source>(*metadata_source_of(elsewhere)), elsewhere);
  CHECK(one.begin(steady_point(1000h)) == step::metadata);
  CHECK(one.metadata_url() == elsewhere.metadata_url);
  CHECK(one.read(steady_point(1000h), of_kind(verdict::kind::absent)) == step::fail);
  CHECK(one.metadata_url() == elsewhere.metadata_url);

  guide down;
  down.begin();
  CHECK(down.read(of_kind(verdict::kind::failure)) == step::fail);
  CHECK(down.policy.metadata_url() == openid_url);
}

// ---- managers ------------------------------------------------------------------------------------

// Red when the flight ends with its metadata, or the document is not that of the configured URL.
TEST_CASE("with discovery the keys come from where the issuer's metadata say, under the metadata's URL") {
  discovered r;
  r.start(discovering());
  CHECK(r.asked() == urls{openid_url, keys_url});
  CHECK(r.provider.request(0).accept == "application/json");
  CHECK(r.manager.get_key(kid("k1")).has_value());
  const auto document = r.manager.get_jwks(openid_url);
  REQUIRE(document.has_value());
  CHECK((*document)->url() == keys_url);
  CHECK(r.manager.health().ready);
  CHECK(r.manager.health(openid_url).ready);
  CHECK(r.manager.stats().fetched == 1);
  CHECK(r.provider.requests() == 2);
}

// Red when the driver of the event loop forgets the second step.
TEST_CASE("discovery on an event loop does the same") {
  manual_clock clock;
  fake_fetcher provider;
  provider.always(response(404));
  provider.always_at(oauth_url, response(200, metadata_of(issuer, keys_url)));
  provider.always_at(keys_url, ok({"k1"}));
  provider.hold();  // answers come later, not inside the call
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  bool started = false;
  manager.async_initialize(discovering(), [&](auto said) { started = said.has_value(); });
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK_FALSE(started);
    provider.release_one(i);
  }
  CHECK(started);
  CHECK(provider.requests() == 3);
  CHECK(provider.request(1).url == oauth_url);
  bool got = false;
  manager.async_get_key(kid("k1"), [&](auto key) { got = key.has_value(); });
  CHECK(got);
}

// Red when a flight has no deadline of its own over all its requests.
TEST_CASE("one fetch_timeout covers metadata and key set together") {
  discovered r;
  r.provider.hold();
  auto config = discovering();
  config.prefetch = false;
  r.start(config);
  auto waiting = std::async(std::launch::async, [&] { return r.manager.get_jwks(); });
  REQUIRE(r.provider.await_requests(1));
  CHECK(r.provider.request(0).timeout == 10000ms);
  r.clock.advance(4000ms);
  r.provider.release_one(0);
  REQUIRE(r.provider.await_requests(2));
  CHECK(r.provider.request(1).timeout == 6000ms);
  r.settle(2);
  r.clock.advance(6000ms);
  CHECK(waiting.get().error().code == errc::timed_out);
}

// Red when any of the two steps is left out of the refresh.
TEST_CASE("a refresh reads the metadata again, by their own validators, and follows a jwks_uri that moved" *
          doctest::test_suite("slow")) {
  discovered r;
  r.provider.always_at(openid_url, response(200, metadata_of(issuer, keys_url), {{"ETag", "\"m\""}}));
  r.provider.always_at(keys_url, ok({"k1"}, {{"ETag", "\"k\""}}));
  r.start(discovering());
  r.settle(1);
  r.provider.always_at(openid_url, response(304));
  r.provider.always_at(keys_url, response(304));
  r.clock.advance(3600s);
  REQUIRE(r.provider.await_requests(4));
  CHECK(r.provider.request(2).url == openid_url);
  CHECK(r.provider.request(2).etag == "\"m\"");
  CHECK(r.provider.request(3).url == keys_url);
  CHECK(r.provider.request(3).etag == "\"k\"");
  r.quiet();
  CHECK(r.manager.stats().not_modified == 1);

  r.provider.always_at(openid_url, response(200, metadata_of(issuer, moved_url)));
  r.provider.always_at(moved_url, ok({"k2"}));
  r.settle(1);
  r.clock.advance(3600s);
  REQUIRE(r.provider.await_requests(6));
  CHECK(r.provider.request(5).url == moved_url);
  CHECK(r.provider.request(5).etag.empty());  // what the old place said means nothing at the new one
  CHECK(eventually([&] { return r.manager.get_key(kid("k2")).has_value(); }));
}

// Red when begin() trusts young metadata for a refresh, and for one after a failed flight.
TEST_CASE("a jwks_uri that stops working is looked up again at the next try" * doctest::test_suite("slow")) {
  discovered r;
  r.start(discovering());
  r.settle(1);
  SUBCASE("because it is gone") {
    r.provider.always_at(keys_url, response(404));
    r.clock.advance(3600s);
    REQUIRE(r.provider.await_requests(4));
  }
  SUBCASE("because it hangs") {
    r.provider.hold(keys_url);
    r.clock.advance(3600s);
    REQUIRE(r.provider.await_requests(4));
    r.settle(1);
    r.clock.advance(10s);
    REQUIRE(r.provider.await_ended(4));
  }
  REQUIRE(eventually([&] { return r.manager.health().consecutive_failures == 1; }));
  CHECK(r.manager.get_key(kid("k1")).has_value());  // the old document stays
  r.provider.always_at(openid_url, response(200, metadata_of(issuer, moved_url)));
  r.provider.always_at(moved_url, ok({"k2"}));
  r.settle(1);
  r.clock.advance(10s);
  REQUIRE(r.provider.await_requests(6));
  CHECK(r.asked() == urls{openid_url, keys_url, openid_url, keys_url, openid_url, moved_url});
  CHECK(eventually([&] { return r.manager.get_key(kid("k2")).has_value(); }));
}

// Red when receive() does not tell discovery how the flight ended, or tick() of one that was overdue: the metadata would be left alone
// for a minute after they failed once.
TEST_CASE("metadata that are down for a moment while the key set is gone are read again with the next try" *
          doctest::test_suite("slow")) {
  discovered r;
  r.start(discovering());
  bool hangs = false;
  SUBCASE("it is gone") { r.provider.always_at(keys_url, response(404)); }
  SUBCASE("it hangs") {
    hangs = true;
    r.provider.hold(keys_url);
  }
  const auto fails_after = [&](std::chrono::seconds time, int failures) {
    r.settle(1);
    r.clock.advance(time);
    const auto requests = static_cast<std::size_t>(2 * failures + 2);
    REQUIRE(r.provider.await_requests(requests));
    if (hangs) {
      r.settle(1);
      r.clock.advance(10s);
      REQUIRE(r.provider.await_ended(requests));
    }
    REQUIRE(eventually([&] { return r.manager.health().consecutive_failures == failures; }));
  };
  fails_after(3600s, 1);
  r.provider.always_at(openid_url, response(429));
  fails_after(10s, 2);
  r.provider.always_at(openid_url, response(200, metadata_of(issuer, moved_url)));
  r.provider.always_at(moved_url, ok({"k2"}));
  r.settle(1);
  r.clock.advance(20s);
  REQUIRE(r.provider.await_requests(8));
  CHECK(r.asked() == urls{openid_url, keys_url, openid_url, keys_url, openid_url, keys_url, openid_url, moved_url});
}

// Red when a failure of the metadata fails the flight, or nobody is told of it.
TEST_CASE("while the metadata are down the keys are refreshed from where they were, and a listener is told") {
  discovered r;
  std::mutex mutex;
  std::vector<jwks_event> events;
  auto config = discovering();
  config.on_event = [&](const jwks_event& event) {
    const std::lock_guard lock(mutex);
    events.push_back(event);
  };
  r.start(config);
  r.settle(1);
  r.provider.always_at(openid_url, response(503));
  r.provider.always_at(keys_url, ok({"k2"}));
  r.clock.advance(3600s);
  CHECK(eventually([&] { return r.manager.get_key(kid("k2")).has_value(); }));
  REQUIRE(eventually([&] {
    const std::lock_guard lock(mutex);
    return events.size() == 3;
  }));
  CHECK(events[0].url == openid_url);
  CHECK(events[0].key_set_url == keys_url);
  CHECK(events[1].kind == jwks_event_kind::failed);
  CHECK(events[1].status == 503);
  CHECK(events[1].url == openid_url);
  CHECK(events[1].key_set_url.empty());
  CHECK(events[2].kind == jwks_event_kind::fetched);
  CHECK_FALSE(r.manager.health().last_error.has_value());
  r.manager.shutdown();
}

// Red when the error of the metadata is lost, or their Retry-After.
TEST_CASE("metadata that fail at the first try are a failed fetch, with backoff and Retry-After" *
          doctest::test_suite("slow")) {
  discovered r;
  r.provider.always_at(openid_url, response(503, "", {{"Retry-After", "100"}}));
  std::atomic<int> status{0};
  auto config = discovering();
  config.on_event = [&](const jwks_event& event) { status = event.status; };
  r.start(config);
  CHECK(eventually([&] { return status == 503; }));
  const auto health = r.manager.health();
  REQUIRE(health.last_error.has_value());
  CHECK(health.last_error->code == errc::http_status);
  CHECK(health.last_error->http_status == 503);
  CHECK(health.next_attempt == r.clock.now() + 100s);
  CHECK(r.asked() == urls{openid_url});
  CHECK(r.manager.get_jwks().error().http_status == 503);
  r.manager.shutdown();
}

// Red when metadata of another issuer are used, or end the search.
TEST_CASE("metadata of another issuer, a page or an error of the server give no keys, but RFC 8414's may") {
  for (const auto& answer : {response(200, metadata_of("https://evil.example.com", keys_url)),
                             response(200, "<html>Sign in</html>"), response(302), response(500)}) {
    CAPTURE(answer.status);
    discovered r;
    r.provider.always_at(openid_url, answer);
    r.start(discovering());
    CHECK_FALSE(r.manager.get_key(kid("k1")).has_value());
    CHECK(r.asked() == urls{openid_url, oauth_url});

    discovered both;
    both.provider.always_at(openid_url, answer);
    both.provider.always_at(oauth_url, response(200, metadata_of(issuer, keys_url)));
    both.start(discovering());
    CHECK(both.manager.get_key(kid("k1")).has_value());
    CHECK(both.asked() == urls{openid_url, oauth_url, keys_url});
  }
}

// Red when metadata_url is not where they are read, or replaces the issuer.
TEST_CASE("with metadata_url the metadata are read there, must name the issuer, and have no second form") {
  const std::string where = "https://meta.example.com/config?p=policy";
  auto config = discovering();
  config.metadata_url = where;
  discovered r;
  r.provider.always_at(where, response(200, metadata_of(issuer, keys_url)));
  r.start(config);
  CHECK(r.asked() == urls{where, keys_url});
  CHECK(r.manager.get_key(where, kid("k1")).has_value());
  CHECK(r.manager.get_key(kid("k1")).has_value());
  discovered other;
  other.provider.always_at(where, response(200, metadata_of("https://else.example.com", keys_url)));
  other.start(config);
  CHECK(other.manager.get_jwks().error().code == errc::not_a_key_set);
  CHECK(other.asked() == urls{where});
}

// Red when the text is that of another URL, or outlives shutdown().
TEST_CASE("metadata() gives what the issuer published, by the URL that lookups use") {
  discovered r;
  CHECK_FALSE(r.manager.metadata().has_value());
  r.start(discovering());
  CHECK(r.manager.metadata() == metadata_of(issuer, keys_url));
  CHECK(r.manager.metadata(openid_url) == metadata_of(issuer, keys_url));
  CHECK_FALSE(r.manager.metadata(keys_url).has_value());
  CHECK_FALSE(r.manager.metadata("no url").has_value());
  REQUIRE(r.manager.get_jwks("https://other.example.com/keys").has_value() == false);
  CHECK_FALSE(r.manager.metadata("https://other.example.com/keys").has_value());
  r.provider.always_at(openid_url, response(200, metadata_of("https://evil.example.com", keys_url)));
  REQUIRE(r.manager.refresh().has_value());
  CHECK(r.manager.metadata() == metadata_of(issuer, keys_url));
  r.manager.shutdown();
  CHECK_FALSE(r.manager.metadata(openid_url).has_value());
}

// Red when refresh() or an unknown kid trusts old metadata.
TEST_CASE("a jwks_uri that moved while the old one still answers is found by refresh() and by an unknown kid") {
  discovered r;
  r.start(discovering());
  r.provider.always_at(openid_url, response(200, metadata_of(issuer, moved_url)));
  r.provider.always_at(moved_url, ok({"k2"}));
  SUBCASE("by refresh, at once") { REQUIRE(r.manager.refresh().has_value()); }
  SUBCASE("by an unknown kid, after min_refresh_interval") {
    CHECK(r.manager.get_key(kid("k2")).error().code == errc::key_not_found);
    r.settle(1);
    r.clock.advance(60s);
  }
  CHECK(r.manager.get_key(kid("k2")).has_value());
  CHECK((*r.manager.get_jwks())->url() == moved_url);
}

// Red when next_request() does not ask keys_failed(), or asks the same place twice.
TEST_CASE("a jwks_uri whose old place is gone is found in the same flight") {
  discovered r;
  r.start(discovering());
  r.provider.always_at(keys_url, response(404));
  SUBCASE("it has moved") {
    r.provider.always_at(openid_url, response(200, metadata_of(issuer, moved_url)));
    r.provider.always_at(moved_url, ok({"k2"}));
    CHECK(r.manager.get_key(kid("k2")).has_value());
    CHECK(r.asked() == urls{openid_url, keys_url, keys_url, openid_url, moved_url});
    CHECK(r.manager.stats().failed == 0);
  }
  SUBCASE("it has not") {
    CHECK(r.manager.get_key(kid("k2")).error().http_status == 404);
    CHECK(r.asked() == urls{openid_url, keys_url, keys_url, openid_url});
  }
  SUBCASE("the provider asks to come back later") {
    r.provider.always_at(keys_url, response(503, "", {{"Retry-After", "30"}}));
    CHECK(r.manager.get_key(kid("k2")).error().http_status == 503);
    CHECK(r.asked() == urls{openid_url, keys_url, keys_url});
  }
  CHECK(r.manager.get_key(kid("k1")).has_value() == (r.manager.stats().fetched == 1));
}

// Red when the flight of an unknown kid reads the metadata.
TEST_CASE("an unknown kid costs one request, not two, while the metadata are fresh") {
  discovered r;
  r.start(discovering());
  CHECK(r.manager.get_key(kid("nobody")).error().code == errc::key_not_found);
  CHECK(r.asked() == urls{openid_url, keys_url, keys_url});
}

// Red when entries that are looked up take the discovery of initialize().
TEST_CASE("discovery is for the URL it was configured for, not for what is looked up beside it" *
          doctest::test_suite("slow")) {
  discovered r;
  r.provider.always_at("https://other.example.com/keys", ok({"o"}));
  r.start(discovering());
  CHECK(r.manager.get_key("https://other.example.com/keys", kid("o")).has_value());
  CHECK(r.provider.request(2).url == "https://other.example.com/keys");
}

// Red when the exported cache names the key set's URL instead of the one that is looked up.
TEST_CASE("a document found by discovery survives a restart during an outage of the issuer") {
  std::string text;
  {
    discovered r;
    r.start(discovering());
    text = r.manager.export_cache();
  }
  rig r;
  r.provider.always(response(503));
  REQUIRE(r.manager.import_cache(text).has_value());
  r.start(discovering());
  CHECK(r.manager.get_key(kid("k1")).has_value());
}

// Red when who waits is not finished with shut_down.
TEST_CASE("shutdown between metadata and key set ends the flight") {
  discovered r;
  r.provider.hold();
  auto config = discovering();
  config.prefetch = false;
  r.start(config);
  auto waiting = std::async(std::launch::async, [&] { return r.manager.get_jwks(); });
  REQUIRE(r.provider.await_requests(1));
  r.manager.shutdown();
  CHECK(waiting.get().error().code == errc::shut_down);
  CHECK(r.provider.requests() == 1);
}

// Red when neither goes_on() nor arrive() asks whether there is still somebody whose flight it is.
TEST_CASE("metadata that come too late, after shutdown or past the deadline, cause no further request") {
  manual_clock clock;
  fake_fetcher provider;
  provider.always_at(openid_url, response(200, metadata_of(issuer, keys_url)));
  provider.hold();
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  manager.async_initialize(discovering(), [](auto) {});
  REQUIRE(provider.requests() == 1);
  SUBCASE("after shutdown") {
    manager.async_shutdown([] {});
  }
  SUBCASE("past the deadline") { clock.advance(10s); }
  provider.release_one(0);
  CHECK(provider.requests() == 1);
}

namespace {
// The same provider, for a manager on an event loop.
struct discovered_loop {
  manual_clock clock;
  fake_fetcher provider;
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager{provider, clock};

  discovered_loop() {
    provider.always(response(404));
    provider.always_at(openid_url, response(200, metadata_of(issuer, keys_url)));
    provider.always_at(keys_url, ok({"k1"}));
  }
  void start(jwks_config config = discovering()) {
    manager.async_initialize(std::move(config), [](auto) {});
  }
  std::size_t asked(const std::string& what) const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < provider.requests(); ++i) count += provider.request(i).url == what ? 1U : 0U;
    return count;
  }
};
}  // namespace

// Red when tick() does not tell discovery that a flight was over before its metadata came, or begin() does not heed it.
TEST_CASE("metadata that hang do not cost the keys that could be fetched") {
  discovered_loop l;
  l.start();
  l.provider.hold(openid_url);
  for (int i = 0; i < 4 * 360; ++i) l.clock.advance(10s);
  CHECK(l.manager.health().ready);
  CHECK_FALSE(l.manager.health().stale);
  CHECK(l.asked(keys_url) >= 4);
}

// Red when read() treats a timeout like any other failure while the key set is suspect.
TEST_CASE("metadata that time out when the time is nearly over do not cost the keys either") {
  guide g;
  g.begin();
  g.read(found());
  g.policy.ended(true);
  g.now += 3600s;
  verdict late = of_kind(verdict::kind::failure);
  late.why.code = errc::timed_out;
  CHECK(g.begin() == step::metadata);
  CHECK(g.read(verdict(late)) == step::keys);
  g.policy.ended(false);  // there was no time left for them
  CHECK(g.begin() == step::keys);
  g.policy.ended(false);
  g.now += 60s;
  CHECK(g.begin() == step::metadata);
  CHECK(g.read(verdict(late)) == step::keys);
  CHECK(g.begin() == step::keys);
}

// Red when read() forgets the Retry-After, or its limit.
TEST_CASE("metadata that ask for silence get it from every flight, while the old ones may be used") {
  guide g;
  g.begin();
  g.read(found());
  g.now += 3600s;
  g.begin();
  verdict busy = of_kind(verdict::kind::failure);
  busy.retry_after = 100000s;
  CHECK(g.read(std::move(busy)) == step::keys);
  g.policy.ended(true);
  g.now += 3599s;
  CHECK(g.begin() == step::keys);
  g.now += 1s;  // retry_after_max
  CHECK(g.begin() == step::metadata);
}

// Red when read() asks again with every flight although the key set is there.
TEST_CASE("metadata that cannot be read are tried once a minute while the key set is there") {
  guide g;
  g.begin();
  g.read(found());
  g.policy.ended(true);
  g.now += 3600s;
  g.begin();
  g.read(of_kind(verdict::kind::failure));
  g.policy.ended(true);
  g.now += 59s;
  CHECK(g.begin() == step::keys);
  g.now += 1s;
  CHECK(g.begin() == step::metadata);
}

// Red when read() waits a minute whatever became of the key set.
TEST_CASE("metadata that cannot be read are tried by every flight while the key set cannot be had") {
  guide g;
  g.begin();
  g.read(found());
  g.policy.ended(false);
  for (int i = 0; i < 3; ++i) {
    g.now += 1s;
    CHECK(g.begin() == step::metadata);
    CHECK(g.read(of_kind(verdict::kind::failure)) == step::keys);
    g.policy.ended(false);
  }
}

// Red when next_request() goes on with what another configuration asked for.
TEST_CASE("a flight begins anew when the configuration that sent it is replaced") {
  discovered_loop l;
  l.provider.hold();
  std::vector<errc> said;
  const auto note = [&](auto got) { said.push_back(got ? errc{} : got.error().code); };
  SUBCASE("metadata for another spelling of the issuer do not pass for those of the strict one") {
    l.provider.always_at(openid_url, response(200, metadata_of(issuer + "/", keys_url)));
    REQUIRE(l.manager.add(discovering(issuer + "/")));
    l.clock.advance(1ms);
    REQUIRE(l.provider.requests() == 1);
    REQUIRE(l.manager.add(discovering(issuer)));
    l.manager.async_get_jwks(openid_url, note);
    l.provider.release();
    CHECK(said == std::vector{errc::not_a_key_set});
    CHECK(l.asked(keys_url) == 0);
  }
  SUBCASE("an issuer becomes a plain URL") {
    REQUIRE(l.manager.add(discovering()));
    l.clock.advance(1ms);
    REQUIRE(l.manager.add(support::config_for(openid_url)));
    l.provider.always_at(openid_url, ok({"k1"}));
    l.manager.async_get_jwks(openid_url, note);
    l.provider.release();
    CHECK(said == std::vector{errc{}});
  }
  SUBCASE("a plain lookup becomes an issuer") {
    l.manager.async_get_jwks(openid_url, note);
    l.start();
    l.provider.release();
    CHECK(said == std::vector{errc{}});
    CHECK(l.asked(keys_url) == 1);
  }
}

// Red when read() leaves the error of a 304 for nothing empty.
TEST_CASE("a 304 for metadata that are not there is an error with a code") {
  guide g;
  g.begin();
  verdict odd;
  odd.what = verdict::kind::not_modified;
  odd.status = 304;
  CHECK(g.read(std::move(odd)) == step::fail);
  CHECK(g.policy.failure()->why.code == errc::http_status);
}

// Red when arrive() says that the flight goes on whatever happened meanwhile.
TEST_CASE("no request is begun when a listener of failed metadata sees the manager shut down") {
  discovered_loop l;
  bool armed = false, down = false;
  auto config = discovering();
  config.on_event = [&](const jwks_event& event) {
    if (!armed || event.kind != jwks_event_kind::failed) return;
    std::thread([&] { l.manager.async_shutdown([&] { down = true; }); }).join();
  };
  l.start(config);
  armed = true;
  l.provider.always_at(openid_url, response(503));
  l.clock.advance(3600s);
  CHECK(down);
  CHECK(l.asked(keys_url) == 1);
}

#if defined(__cpp_exceptions)
namespace {
struct moody_clock : manual_clock {
  std::shared_ptr<std::atomic<bool>> bad = std::make_shared<std::atomic<bool>>(false);
  time_point now() const {
    if (*bad) throw std::runtime_error("no time");
    return manual_clock::now();
  }
};
}  // namespace

// Red when arrive() goes on with a time that it could not read.
TEST_CASE("a clock that throws between metadata and key set fails the flight") {
  moody_clock clock;
  fake_fetcher provider;
  provider.always_at(openid_url, response(200, metadata_of(issuer, keys_url)));
  provider.always_at(keys_url, ok({"k1"}));
  axioms::basic_async_jwks_manager<fake_fetcher, moody_clock> manager(provider, clock);
  manager.async_initialize(discovering(), [](auto) {});
  provider.hold(openid_url);
  clock.advance(3600s);
  REQUIRE(provider.requests() == 3);
  *clock.bad = true;
  provider.release();
  *clock.bad = false;
  CHECK(provider.requests() == 3);
  CHECK(manager.health().consecutive_failures == 1);
}
#endif

// ---- a bad signature -----------------------------------------------------------------------------

namespace {
// The same kid with other material: the public key of RFC 8032 section 7.1, test 1 and test 2.
std::string set_of(std::string_view kid, std::string_view x) {
  return R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":")" + std::string(kid) + R"(","x":")" + std::string(x) +
         "\"}]}";
}
const std::string first_x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const std::string second_x = "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw";
}  // namespace

// Red when the set is not fetched, or the materials are not compared.
TEST_CASE("after a bad signature the set is fetched again, and the caller is told whether the kid has another key") {
  rig r;
  r.provider.always(response(200, set_of("k", first_x)));
  r.start();
  const auto old = r.manager.get_key(kid("k"));
  REQUIRE(old.has_value());
  r.provider.always(response(200, set_of("k", second_x)));
  r.settle(1);
  r.clock.advance(30s);
  const auto changed = r.manager.refresh_after_bad_signature("k");
  REQUIRE(changed.has_value());
  CHECK(*changed);
  CHECK((*r.manager.get_key(kid("k")))->thumbprint() != (*old)->thumbprint());
  r.settle(1);
  r.clock.advance(30s);
  const auto again = r.manager.refresh_after_bad_signature(support::url, "k");
  REQUIRE(again.has_value());
  CHECK_FALSE(*again);
  CHECK(r.provider.requests() == 3);
}

// Red when ask_bad_signature() does not look at the age of the answer.
TEST_CASE("a set that was fetched less than 30 s ago is not fetched again for a bad signature") {
  rig r;
  r.start();
  r.settle(1);
  r.clock.advance(30s - 1ns);
  for (int i = 0; i < 100; ++i) CHECK(r.manager.refresh_after_bad_signature("k1").value() == false);
  CHECK(r.provider.requests() == 1);
  r.clock.advance(1ns);
  CHECK(r.manager.refresh_after_bad_signature("k1").value() == false);
  CHECK(r.provider.requests() == 2);
}

// Red when it has a budget of its own, or none.
TEST_CASE("bad signatures and unknown kids share one budget") {
  rig r;
  auto config = support::config_for(support::url);
  config.unknown_kid_burst = 2;
  config.unknown_kid_interval = 1h;
  r.start(config);
  CHECK(r.manager.get_key(kid("a")).error().code == errc::key_not_found);
  r.settle(1);
  r.clock.advance(30s);
  CHECK(r.manager.refresh_after_bad_signature("k1").has_value());
  r.settle(1);
  r.clock.advance(30s);
  CHECK(r.manager.refresh_after_bad_signature("k1").value() == false);  // the set is younger than the interval
  CHECK(r.manager.get_key(kid("b")).error().code == errc::key_not_found);
  CHECK(r.manager.stats().throttled == 2);
  CHECK(r.provider.requests() == 3);
}

// Red when the answer of a flight that was in the air before is taken for an answer.
TEST_CASE("a bad signature that joins a fetch in the air looks once more when that brings nothing new" *
          doctest::test_suite("slow")) {
  rig r;
  r.provider.always(response(200, set_of("k", first_x)));
  r.start();
  r.settle(1);
  r.clock.advance(30s);
  r.provider.hold();
  auto unknown = std::async(std::launch::async, [&] { return r.manager.get_key(kid("nobody")); });
  REQUIRE(r.provider.await_requests(2));
  auto changed = std::async(std::launch::async, [&] { return r.manager.refresh_after_bad_signature("k"); });
  REQUIRE(eventually([&] { return r.manager.stats().coalesced == 1; }));
  r.provider.release_one(1);
  REQUIRE(r.provider.await_requests(3));
  r.provider.always(response(200, set_of("k", second_x)));
  r.provider.release();
  CHECK(unknown.get().error().code == errc::key_not_found);
  const auto said = changed.get();
  REQUIRE(said.has_value());
  CHECK(*said);
}

// Red when a failure is told as "unchanged".
TEST_CASE("a bad signature while the provider is down is an outage, not a bad token") {
  rig r;
  r.start();
  r.settle(1);
  r.clock.advance(30s);
  r.provider.always(response(503));
  const auto said = r.manager.refresh_after_bad_signature("k1");
  REQUIRE_FALSE(said.has_value());
  CHECK(said.error().status_code() == 503);
  CHECK(r.manager.get_key(kid("k1")).has_value());
}

// Red when the answer is counted from the document that is there, not from what the callers had.
TEST_CASE("of two callers that had the old key, the second is told of the new one too, for 30 s") {
  rig r;
  r.provider.always(response(200, set_of("k", first_x)));
  r.start();
  r.provider.always(response(200, set_of("k", second_x)));
  r.settle(1);
  r.clock.advance(30s);
  CHECK(r.manager.refresh_after_bad_signature("k").value());
  CHECK(r.manager.refresh_after_bad_signature("k").value());
  CHECK(r.provider.requests() == 2);
  r.settle(1);
  r.clock.advance(30s);
  CHECK_FALSE(r.manager.refresh_after_bad_signature("k").value());
}

// Red when a kid that the set lacks counts as one with another key.
TEST_CASE("a kid that is not in the set has no other key") {
  rig r;
  auto config = support::config_for(support::url);
  config.prefetch = false;
  r.start(config);
  CHECK_FALSE(r.manager.refresh_after_bad_signature("nobody").value());
  CHECK(r.manager.refresh_after_bad_signature("k1").value() == false);
  r.provider.always(ok({"k2"}));
  r.settle(1);
  r.clock.advance(30s);
  CHECK_FALSE(r.manager.refresh_after_bad_signature("k1").value());
}

// Red when `before` is taken only where the budget is asked, or a failed renewal counts as an answer.
TEST_CASE("past cache_ttl a bad signature waits for the renewal, and is told what it brought") {
  for (const bool down : {true, false}) {
    CAPTURE(down);
    manual_clock clock;
    fake_fetcher provider;
    provider.always(ok({"k1"}, {{"ETag", "\"1\""}}));
    axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
    auto config = support::config_for(support::url);
    config.max_parallel_fetches = 1;
    config.fetch_timeout = 3h;
    manager.async_initialize(config, [](auto) {});
    provider.hold("https://other.example.com/");
    manager.async_get_jwks("https://other.example.com/", [](auto) {});  // takes the only slot
    clock.advance(7201s);
    provider.always_at(support::url, response(down ? 503 : 304));
    std::vector<axioms::result<bool>> said;
    manager.async_refresh_after_bad_signature("k1", [&](auto changed) { said.push_back(std::move(changed)); });
    REQUIRE(said.size() == 1);
    CHECK(said[0].has_value() == !down);
    CHECK_FALSE(said[0].value_or(false));
    provider.release();
  }
}

// Red when the async verb is not wired to the same request.
TEST_CASE("the async manager looks again after a bad signature too") {
  manual_clock clock;
  fake_fetcher provider;
  provider.always(response(200, set_of("k", first_x)));
  axioms::basic_async_jwks_manager<fake_fetcher, manual_clock> manager(provider, clock);
  manager.async_initialize(support::config_for(support::url), [](auto) {});
  clock.advance(30s);
  provider.always(response(200, set_of("k", second_x)));
  std::vector<bool> said;
  manager.async_refresh_after_bad_signature("k", [&](auto changed) { said.push_back(changed.value_or(false)); });
  clock.advance(30s);
  manager.async_refresh_after_bad_signature(support::url, "k",
                                            [&](auto changed) { said.push_back(changed.value_or(true)); });
  CHECK(said == std::vector<bool>{true, false});
}
