// Our keys in jwt-cpp: the manager finds, checks and keeps the key, jwt::verify() checks the token with it. Works offline and
// without arguments: it signs a token itself, and the key set is put in place by add_static() instead of a fetch.
#include "axioms_jwks.hpp"

#include <jwt-cpp/traits/nlohmann-json/defaults.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <iostream>

constexpr std::string_view url = "https://idp.example.com/.well-known/jwks.json";

/// True if the token was signed by a key of that set, and its issuer and times are right.
bool accepts(const axioms::jwks_manager& manager, const std::string& token) {
  try {
    const auto decoded = jwt::decode(token);
    // The allow-list, not the token, decides which algorithms there are; the set's key must be for the same one.
    if (decoded.get_algorithm() != "ES256" || !decoded.has_key_id()) return false;
    const std::string kid = decoded.get_key_id();
    const auto key = manager.get_key(url, {.kid = kid, .alg = "ES256"});
    if (!key) return std::cerr << key.error().description << '\n', false;
    const auto verifier = jwt::verify()
                              .allow_algorithm(jwt::algorithm::es256((*key)->to_pem()))
                              .with_issuer("https://idp.example.com/")
                              .with_audience("api://orders");
    std::error_code failed;
    verifier.verify(decoded, failed);
    return !failed;
  } catch (const std::exception& error) {  // jwt-cpp throws for what is no token
    return std::cerr << error.what() << '\n', false;
  }
}

struct signer {
  std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key{EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"), EVP_PKEY_free};

  std::string private_pem() const {
    const std::unique_ptr<BIO, void (*)(BIO*)> out(BIO_new(BIO_s_mem()), BIO_free_all);
    PEM_write_bio_PrivateKey(out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    char* text = nullptr;
    const long size = BIO_get_mem_data(out.get(), &text);
    return {text, static_cast<std::size_t>(size)};
  }
  std::string coordinate(const char* name) const {
    BIGNUM* number = nullptr;
    EVP_PKEY_get_bn_param(key.get(), name, &number);
    std::string bytes(32, '\0');
    BN_bn2binpad(number, reinterpret_cast<unsigned char*>(bytes.data()), 32);
    BN_free(number);
    return jwt::base::trim<jwt::alphabet::base64url>(jwt::base::encode<jwt::alphabet::base64url>(bytes));
  }
  std::string key_set(const std::string& kid) const {
    return R"({"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":")" + kid + R"(","x":")" +
           coordinate(OSSL_PKEY_PARAM_EC_PUB_X) + R"(","y":")" + coordinate(OSSL_PKEY_PARAM_EC_PUB_Y) + "\"}]}";
  }
  std::string token(const std::string& kid, const std::string& audience) const {
    const auto now = std::chrono::system_clock::now();
    return jwt::create()
        .set_key_id(kid)
        .set_issuer("https://idp.example.com/")
        .set_audience(audience)
        .set_issued_at(now)
        .set_expires_at(now + std::chrono::minutes(5))
        .sign(jwt::algorithm::es256("", private_pem()));
  }
};

int main() {
  const signer issuer, stranger;
  axioms::jwks_manager manager;
  if (const auto ok = manager.add_static(url, issuer.key_set("2026-01")); !ok)
    return std::cerr << ok.error().description << '\n', 1;
  const bool good = accepts(manager, issuer.token("2026-01", "api://orders"));
  const bool bad = accepts(manager, stranger.token("2026-01", "api://orders")) ||  // another key under that kid
                   accepts(manager, issuer.token("2026-02", "api://orders")) ||    // no such kid
                   accepts(manager, issuer.token("2026-01", "api://billing")) || accepts(manager, "no.token");
  std::cout << (good && !bad ? "one token accepted, four refused\n" : "wrong\n");
  return good && !bad ? 0 : 1;
}
