// The part "keys": what real identity providers publish, one peculiarity a test, as a service meets it: through a manager.
#include "axioms_jwks.hpp"
#include "support/jwk_text.hpp"
#include "support/rig.hpp"
#include "vectors/keys.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <future>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using axioms::errc;
using namespace support;  // NOLINT(google-build-using-namespace): how the texts of key sets are made

// Each takes the better part of a millisecond: too long to be repeated 1,000 times with the others.
TEST_SUITE_BEGIN("slow");

namespace {

// A manager that has fetched that body.
struct fetched : rig {
  explicit fetched(std::string body, axioms::jwks_config config = config_for(url)) {
    provider.always(response(200, std::move(body)));
    start(std::move(config));
  }
  // The thumbprint of the key, or what was wrong. Known keys cost no request.
  std::string key(std::string_view kid, std::string_view alg) {
    const auto found = manager.get_key(url, {.kid = kid, .alg = alg});
    CHECK(provider.requests() == 1);
    return found ? (*found)->thumbprint() : std::string(to_string(found.error().code));
  }
  const axioms::jwk_set& keys() {
    document = *manager.get_jwks(url);
    return document->keys();
  }
  axioms::jwks_ptr document;
};

// Two faces of one provider: for a manager on threads, and for one on a loop.
struct blocking_only {
  fake_fetcher provider;
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request,
                                                    const axioms::stop_token& stop) {
    return provider(request, stop);
  }
};
struct callback_only {
  fake_fetcher provider;
  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    provider.async_fetch(std::move(request), std::move(stop), std::move(callback));
  }
};

std::string plain_rsa() { return replaced(rfc7517_rsa(), R"(,"alg":"RS256","kid":"2011-04-29")", ""); }
constexpr std::string_view rfc7638_thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
const std::string certificate = R"("x5c":["MIIDBTCCAe2gAwIBAgIQ"])";

}  // namespace

TEST_CASE("Microsoft Entra: no alg on any key, kid equal to x5t, an issuer per key") {
  const std::string more = R"("use":"sig","issuer":"https://login.example/{tenantid}/v2.0",)" + certificate;
  fetched idp(set_of(
      {with(plain_rsa(), R"("kid":"nOo3ZDrODXEK1jKWhXslHR_KXEg","x5t":"nOo3ZDrODXEK1jKWhXslHR_KXEg",)" + more),
       with(vectors::rsa_jwk, R"("kid":"l3sQ-50cCH4xBVZLHTGwnSR7680","x5t":"l3sQ-50cCH4xBVZLHTGwnSR7680",)" + more)}));
  CHECK(idp.key("nOo3ZDrODXEK1jKWhXslHR_KXEg", "RS256") == rfc7638_thumbprint);
  CHECK(idp.key("l3sQ-50cCH4xBVZLHTGwnSR7680", "RS256") == vectors::rsa_thumbprint);
  CHECK(idp.key("l3sQ-50cCH4xBVZLHTGwnSR7680", "ES256") == "key_not_found");
  CHECK(idp.keys().skipped().empty());
}

// Red when contains() does not know x5t: the manager would fetch for each token.
TEST_CASE("ADFS: the token names the key by x5t alone, and the key may have no kid") {
  fetched idp(
      set_of({with(plain_rsa(), R"("use":"sig","alg":"RS256","x5t":"VEbUnvyMZM2oIaIjULA9n6pCpQQ",)" + certificate),
              with(vectors::rsa_jwk,
                   R"("use":"sig","alg":"RS256","kid":"new","x5t":"BB8CeFVqyaGrGNuehJIiL4dfjzw",)" + certificate)}));
  CHECK(idp.key("VEbUnvyMZM2oIaIjULA9n6pCpQQ", "RS256") == rfc7638_thumbprint);
  CHECK(idp.key("BB8CeFVqyaGrGNuehJIiL4dfjzw", "RS256") == vectors::rsa_thumbprint);
  CHECK(idp.key("new", "RS256") == vectors::rsa_thumbprint);
  CHECK(idp.key("VEbUnvyMZM2oIaIjULA9n6pCpQQ", "RS384") == "key_not_found");
}

TEST_CASE("Firebase: a modulus with an extra zero byte") {
  fetched idp(set_of(
      {with(replaced(plain_rsa(), rfc7517_n, encoded('\0' + decoded(rfc7517_n))), R"("kid":"a","alg":"RS256")")}));
  CHECK(idp.key("a", "RS256") == rfc7638_thumbprint);
  CHECK((*idp.keys().begin())->bits() == 2048);
}

TEST_CASE("Keycloak: an encryption key of the same type beside the signing key, and x5c on both") {
  fetched idp(
      set_of({with(vectors::rsa_jwk, R"("kid":"enc","alg":"RSA-OAEP","use":"enc","x5t":"e",)" + certificate),
              with(plain_rsa(), R"("kid":"sig","alg":"RS256","use":"sig","x5t":"s","x5t#S256":"t",)" + certificate)}));
  CHECK(idp.key("sig", "RS256") == rfc7638_thumbprint);
  CHECK(idp.key("", "RS256") == rfc7638_thumbprint);  // old versions send tokens without kid
  REQUIRE(idp.keys().skipped().size() == 1);
  CHECK(idp.keys().skipped()[0].kid == "enc");
  CHECK(idp.keys().skipped()[0].reason == "use is 'enc', not sig");
}

TEST_CASE("OpenAM: one kid for RS256, RS384 and RS512, the same key each time, and a kid with + / =") {
  const std::string kid = R"("kid":"wU3ifIIaLOUAReRB/FG6eM1P1QM=+","use":"sig","x5t":"5eOfy1Nn2MMIKVRRkq0OgFAw348",)";
  fetched idp(set_of({with(plain_rsa(), kid + R"("alg":"RS256")"), with(plain_rsa(), kid + R"("alg":"RS384")"),
                      with(plain_rsa(), kid + R"("alg":"RS512")"), with(vectors::p256_jwk, kid + R"("alg":"ES256")")}));
  for (const std::string_view alg : {"RS256", "RS384", "RS512"}) {
    CAPTURE(alg);
    CHECK(idp.key("wU3ifIIaLOUAReRB/FG6eM1P1QM=+", alg) == rfc7638_thumbprint);
  }
  CHECK(idp.key("wU3ifIIaLOUAReRB/FG6eM1P1QM=+", "ES256") == vectors::p256_thumbprint);
  CHECK(idp.key("wU3ifIIaLOUAReRB/FG6eM1P1QM=+", "PS256") == "key_not_found");
}

TEST_CASE("one kid for different keys of one algorithm is refused, not guessed at") {
  fetched idp(
      set_of({with(plain_rsa(), R"("kid":"a","alg":"RS256")"), with(vectors::rsa_jwk, R"("kid":"a","alg":"RS256")"),
              with(vectors::rsa_e3_jwk, R"("kid":"a","alg":"RS384")")}));
  CHECK(idp.key("a", "RS256") == "key_ambiguous");
  CHECK(idp.key("a", "RS384") == vectors::rsa_e3_thumbprint);
}

TEST_CASE("SPIFFE: uses of its own, and top-level members") {
  fetched idp(R"({"spiffe_sequence":12,"spiffe_refresh_hint":300,"keys":[)" +
              with(vectors::p256_jwk, R"("kid":"jwt","use":"jwt-svid")") + "," +
              with(vectors::p384_jwk, R"("use":"x509-svid",)" + certificate) + "," +
              with(vectors::p521_jwk, R"("use":"wit-svid","kid":"w")") + "]}");
  CHECK(idp.key("jwt", "ES256") == vectors::p256_thumbprint);
  REQUIRE(idp.keys().size() == 1);
  CHECK(idp.keys().skipped().size() == 2);
}

TEST_CASE("padded base64, missing leading zeros and an empty x5c in one set") {
  fetched idp(set_of({with(replaced(plain_rsa(), "Kgw\"", "Kgw==\""), R"("kid":"padded","x5c":[])"),
                      with(vectors::p256_zero_x_dropped_jwk, R"("kid":"short","x5c":[])")}));
  CHECK(idp.key("padded", "RS256") == rfc7638_thumbprint);
  CHECK(idp.key("short", "ES256") == vectors::p256_zero_x_thumbprint);
}

TEST_CASE("neither the key nor the token has a kid: the only key that fits is taken") {
  fetched idp(set_of({plain_rsa(), std::string(vectors::p256_jwk), std::string(vectors::p384_jwk)}));
  CHECK(idp.key("", "RS256") == rfc7638_thumbprint);
  CHECK(idp.key("", "ES384") == vectors::p384_thumbprint);
  CHECK(idp.key("", "EdDSA") == "key_not_found");
  fetched two(set_of({plain_rsa(), std::string(vectors::rsa_jwk)}));
  CHECK(two.key("", "RS256") == "key_ambiguous");
}

// Red when the flight does not carry the option to judge().
TEST_CASE("allow_es256k is an option of each URL") {
  const std::string body = set_of({with(vectors::secp256k1_jwk, R"("kid":"k","alg":"ES256K")"), std::string(rfc8037)});
  const std::string other = "https://other.example.com/jwks.json";
  fetched idp(body);
  CHECK(idp.key("k", "ES256K") == "unsupported_algorithm");
  auto config = config_for(other);
  config.allow_es256k = true;
  REQUIRE(idp.manager.add(config).has_value());
  const auto key = idp.manager.get_key(other, {.kid = "k", .alg = "ES256K"});
  REQUIRE(key);
  CHECK((*key)->thumbprint() == vectors::secp256k1_thumbprint);
}

// Red when aim() sends the validators of a document that was read without the option: a 304 would confirm it for ever.
TEST_CASE("allow_es256k that comes later has the set read again, also from a provider that answers 304") {
  rig r;
  const std::string body = set_of({with(vectors::secp256k1_jwk, R"("kid":"k","alg":"ES256K")"), std::string(rfc8037)});
  r.provider.always(response(200, body, {{"ETag", "\"1\""}}));
  REQUIRE(r.manager.get_jwks(url).has_value());
  auto config = config_for(url);
  config.allow_es256k = true;
  r.start(config);
  for (const bool again : {false, true}) {
    REQUIRE(r.manager.refresh().has_value());
    CHECK(r.provider.request(r.provider.requests() - 1).etag.empty() == !again);
    CHECK(r.manager.get_key({.kid = "k", .alg = "ES256K"}).has_value());
  }
}

// Red when the flight does not carry the option to judge(), or an answer that is called back is judged without it.
TEST_CASE("an async manager obeys allow_es256k, on threads and on a loop") {
  const auto thumbprint_by = [](auto fetch, bool allowed) {
    fake_fetcher& provider = fetch.provider;
    provider.always(
        response(200, set_of({with(vectors::secp256k1_jwk, R"("kid":"k","alg":"ES256K")"), std::string(rfc8037)})));
    axioms::basic_async_jwks_manager<decltype(fetch), manual_clock> manager{fetch, manual_clock()};
    auto config = config_for(url);
    config.allow_es256k = allowed;
    std::promise<std::string> found;
    manager.async_initialize(config, [&](const axioms::result<void>& started) {
      CHECK(started.has_value());
      manager.async_get_key({.kid = "k", .alg = "ES256K"}, [&](const axioms::result<axioms::key_ptr>& key) {
        found.set_value(key ? (*key)->thumbprint() : std::string(to_string(key.error().code)));
      });
    });
    return found.get_future().get();
  };
  CHECK(thumbprint_by(blocking_only{}, true) == vectors::secp256k1_thumbprint);
  CHECK(thumbprint_by(blocking_only{}, false) == "unsupported_algorithm");
  CHECK(thumbprint_by(callback_only{}, true) == vectors::secp256k1_thumbprint);
  CHECK(thumbprint_by(callback_only{}, false) == "unsupported_algorithm");
}

TEST_CASE("a private key in the set is in no document") {
  const std::string secret(vectors::rsa_private_jwk);
  fetched idp(set_of({with(secret, R"("kid":"a")"), with(vectors::p256_jwk, R"("kid":"b")")}));
  CHECK(idp.key("b", "ES256") == vectors::p256_thumbprint);
  CHECK(idp.keys().held_secrets());
  for (const std::string_view name : {"d", "p", "q", "dp", "dq", "qi"}) {
    CHECK_FALSE(holds(idp.document->body(), text_of(secret, name)));
  }
  CHECK(idp.document->body() == set_of({(*idp.keys().begin())->to_json()}));
}

// ---- members that are null, and other spellings --------------------------------------------------
// Serialisers that write every member of a record, and encoders of another kind. Public reports of each exist.

namespace {

// The RSA key of that set under kid "a", or by another name.
void check_taken(const std::string& member, std::string_view kid = "a") {
  fetched idp(set_of({member}));
  CHECK(idp.key(kid, "RS256") == rfc7638_thumbprint);
  CHECK(idp.key(kid, "ES256") == "key_not_found");
  CHECK(idp.keys().skipped().empty());
  CHECK_FALSE(idp.keys().held_secrets());
  CHECK(idp.document->body() == set_of({member}));
}
std::string standard(std::string_view base64url) {
  std::string out(base64url);
  for (char& c : out) c = c == '-' ? '+' : c == '_' ? '/' : c;
  return out + std::string((4 - out.size() % 4) % 4, '=');
}

}  // namespace

TEST_CASE("null_alg: alg is null") { check_taken(with(plain_rsa(), R"("kid":"a","alg":null)")); }

TEST_CASE("null_use: use is null") { check_taken(with(plain_rsa(), R"("kid":"a","alg":"RS256","use":null)")); }

TEST_CASE("null_key_ops: key_ops is null") {
  check_taken(with(plain_rsa(), R"("kid":"a","use":"sig","key_ops":null)"));
}

TEST_CASE("null_crv: crv of an RSA key is null") { check_taken(with(plain_rsa(), R"("kid":"a","crv":null)")); }

TEST_CASE("null_kid: kid is null, and the token has none") {
  check_taken(with(plain_rsa(), R"("kid":null,"alg":"RS256")"), "");
}

TEST_CASE("null_all_dotnet: every member of the record is written, private ones too") {
  const std::string record =
      R"("kid":"a","use":"sig","alg":null,"crv":null,"d":null,"dp":null,"dq":null,"k":null,"key_ops":null,"oth":null,)"
      R"("p":null,"q":null,"qi":null,"x":null,"x5t":null,"x5c":null,"x5u":null,"x5t#S256":null,"y":null)";
  check_taken(with(plain_rsa(), record));
}

TEST_CASE("null_ec_dotnet: the same of an EC key") {
  fetched idp(
      set_of({with(vectors::p256_jwk,
                   R"("kid":"a","alg":"ES256","use":"sig","n":null,"e":null,"d":null,"oth":[],"k":null,"x5c":null)")}));
  CHECK(idp.key("a", "ES256") == vectors::p256_thumbprint);
  CHECK_FALSE(idp.keys().held_secrets());
}

TEST_CASE("std_alphabet: n in the standard alphabet of base64, padded") {
  check_taken(with(replaced(plain_rsa(), rfc7517_n, standard(rfc7517_n)), R"("kid":"a","alg":"RS256")"));
}

TEST_CASE("std_alphabet_zero_pad_uaa: the same behind a zero byte") {
  const std::string n = standard(encoded('\0' + decoded(rfc7517_n)));
  check_taken(with(replaced(plain_rsa(), rfc7517_n, n), R"("kid":"a","alg":"RS256")"));
}

TEST_CASE("n_line_breaks: n in lines of 64 characters") {
  for (const std::string_view line_break : {"\\n", "\\r\\n"}) {
    std::string n;
    for (std::size_t i = 0; i < rfc7517_n.size(); i += 64)
      n += std::string(rfc7517_n.substr(i, 64)) + std::string(line_break);
    check_taken(with(replaced(plain_rsa(), rfc7517_n, n), R"("kid":"a","alg":"RS256")"));
  }
}

TEST_CASE("key_ops_string: one operation as a string") {
  check_taken(with(plain_rsa(), R"("kid":"a","key_ops":"verify")"));
}

TEST_CASE("keys_300: a set of 300 keys, each of which is found") {
  std::vector<std::string> members;
  for (int i = 0; i < 299; ++i) members.push_back(with(vectors::p256_jwk, R"("kid":"k)" + std::to_string(i) + "\""));
  members.push_back(with(plain_rsa(), R"("kid":"k299")"));
  fetched idp(set_of(members));
  CHECK(idp.key("k299", "RS256") == rfc7638_thumbprint);
  CHECK(idp.key("k256", "ES256") == vectors::p256_thumbprint);
  CHECK(idp.keys().size() == 300);
}

TEST_SUITE_END();
