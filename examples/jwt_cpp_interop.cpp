// jwt-cpp beside this library, in two ways: our verifier checks the token, and jwt::decode() reads it; or jwt::verify() checks
// it with our keys. Works offline and without arguments: it signs the tokens itself, and the key set is put in place by
// add_static() instead of a fetch.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"

#include <jwt-cpp/traits/nlohmann-json/defaults.h>

#include <iostream>

constexpr std::string_view url = "https://idp.example.com/.well-known/jwks.json";

/// Our checks, jwt-cpp's claims: the subject, or nothing if the token is refused.
std::string subject_of(const axioms::token_verifier& verifier, std::string_view text) {
  const auto token = verifier.verify(text);
  return token ? jwt::decode(std::string(token->token())).get_subject() : std::string();
}

/// Our key as an algorithm of jwt-cpp: nothing is built or copied for a token.
struct key_algorithm {
  axioms::key_ptr key;
  std::string alg;
  std::string name() const { return alg; }
  void verify(const std::string& data, const std::string& signature, std::error_code& failed) const {
    failed.clear();
    if (!key->verify(alg, data, signature)) failed = jwt::error::signature_verification_error::verifyfinal_failed;
  }
};

/// Our keys, jwt-cpp's checks. The allow-list, not the token, decides which algorithms there are.
std::string subject_by_jwt_cpp(const axioms::jwks_manager& keys, const std::string& text) {
  try {
    const auto token = jwt::decode(text);
    const auto key = keys.get_key(url, {.kid = token.get_key_id(), .alg = "ES256"});
    if (!key) return {};
    const auto verifier = jwt::verify()
                              .allow_algorithm(key_algorithm{*key, "ES256"})
                              .with_issuer("https://idp.example.com/")
                              .with_audience("api://orders");
    std::error_code failed;
    verifier.verify(token, failed);
    return failed ? std::string() : token.get_subject();
  } catch (const std::exception&) {  // jwt-cpp throws for what is no token, and for a claim that is not there
    return {};
  }
}

std::string token_for(const demo::signing_key& signer, const std::string& audience) {
  const auto end = std::chrono::system_clock::now().time_since_epoch() + std::chrono::minutes(5);
  return signer.token(R"({"iss":"https://idp.example.com/","sub":"alice","aud":")" + audience + R"(","exp":)" +
                      std::to_string(std::chrono::floor<std::chrono::seconds>(end).count()) + "}");
}

int main() {
  const demo::signing_key issuer("2026-01", true), impostor("2026-01", true), unknown("2026-02", true);
  axioms::jwks_manager keys;
  if (const auto ok = keys.add_static(url, "{\"keys\":[" + issuer.jwk() + "]}"); !ok)
    return std::cerr << ok.error().description << '\n', 1;
  const axioms::token_verifier verifier(
      keys, {.issuer = "https://idp.example.com/", .audience = {"api://orders"}, .jwks_url = std::string(url)});
  const std::string good = token_for(issuer, "api://orders");
  int wrong = subject_of(verifier, good) == "alice" && subject_by_jwt_cpp(keys, good) == "alice" ? 0 : 1;
  for (const std::string& bad : {token_for(impostor, "api://orders"), token_for(unknown, "api://orders"),
                                 token_for(issuer, "api://billing"), std::string("no.token")}) {
    if (!subject_of(verifier, bad).empty() || !subject_by_jwt_cpp(keys, bad).empty()) ++wrong;
  }
  std::cout << (wrong == 0 ? "one token accepted in both ways, four refused\n" : "wrong\n");
  return wrong;
}
