// Keys made on the spot, and tokens signed with them: by OpenSSL alone, with nothing of the header's.
#ifndef AXIOMS_JWKS_TESTS_TOKEN_MAKER_HPP
#define AXIOMS_JWKS_TESTS_TOKEN_MAKER_HPP

#include "jwk_text.hpp"

#include <doctest/doctest.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace support {

class signing_key {
 public:
  // RS*, PS*, ES*, ES256K, or EdDSA with Ed25519.
  signing_key(std::string alg, std::string kid) : alg_(std::move(alg)), kid_(std::move(kid)) {
    if (alg_ == "EdDSA") {
      key_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    } else if (alg_[0] == 'E') {
      key_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", curve()));
    } else {
      key_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", std::size_t{2048}));
    }
    REQUIRE(key_);
  }
  const std::string& kid() const { return kid_; }

  // The public key; with a kid only if it has one.
  std::string jwk() const {
    std::string out = alg_ == "EdDSA"  ? R"({"kty":"OKP","crv":"Ed25519","x":")" + encoded(raw()) + '"'
                      : alg_[0] == 'E' ? R"({"kty":"EC","crv":")" + crv() + R"(","x":")" +
                                             encoded(number(OSSL_PKEY_PARAM_EC_PUB_X)) + R"(","y":")" +
                                             encoded(number(OSSL_PKEY_PARAM_EC_PUB_Y)) + '"'
                                       : R"({"kty":"RSA","n":")" + encoded(number(OSSL_PKEY_PARAM_RSA_N)) +
                                             R"(","e":")" + encoded(number(OSSL_PKEY_PARAM_RSA_E)) + '"';
    if (!kid_.empty()) out += R"(,"kid":")" + kid_ + '"';
    return out + '}';
  }

  // A token with that header and payload, whatever they are.
  std::string sign(std::string_view header, std::string_view payload) const {
    const std::string text = encoded(header) + '.' + encoded(payload);
    return text + '.' + encoded(signature(text));
  }
  std::string token(std::string_view payload) const {
    std::string header = R"({"alg":")" + alg_ + R"(","typ":"at+jwt")";
    if (!kid_.empty()) header += R"(,"kid":")" + kid_ + '"';
    return sign(header + '}', payload);
  }

 private:
  const char* curve() const {
    return alg_ == "ES256" ? "P-256" : alg_ == "ES384" ? "P-384" : alg_ == "ES512" ? "P-521" : "secp256k1";
  }
  std::string crv() const { return curve(); }
  std::string raw() const {
    std::string out(32, '\0');
    std::size_t length = out.size();
    REQUIRE(EVP_PKEY_get_raw_public_key(key_.get(), reinterpret_cast<unsigned char*>(out.data()), &length) == 1);
    return out;
  }
  std::string number(const char* name) const {
    BIGNUM* value = nullptr;
    REQUIRE(EVP_PKEY_get_bn_param(key_.get(), name, &value) == 1);
    std::string out(static_cast<std::size_t>(BN_num_bytes(value)), '\0');
    BN_bn2bin(value, reinterpret_cast<unsigned char*>(out.data()));
    BN_free(value);
    return out;
  }
  std::string signature(const std::string& text) const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    EVP_PKEY_CTX* options = nullptr;
    const std::string digest = alg_ == "EdDSA" ? "" : alg_ == "ES256K" ? "SHA256" : "SHA" + alg_.substr(2);
    REQUIRE(EVP_DigestSignInit_ex(context.get(), &options, digest.empty() ? nullptr : digest.c_str(), nullptr, nullptr,
                                  key_.get(), nullptr) == 1);
    if (alg_[0] == 'P') {
      REQUIRE(EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1);
      REQUIRE(EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1);
    }
    std::size_t length = 0;
    REQUIRE(EVP_DigestSign(context.get(), nullptr, &length, bytes, text.size()) == 1);
    std::string out(length, '\0');
    REQUIRE(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &length, bytes, text.size()) ==
            1);
    out.resize(length);
    return alg_[0] == 'E' && alg_ != "EdDSA" ? sides(out) : out;
  }
  std::string sides(const std::string& der) const {
    const auto* at = reinterpret_cast<const unsigned char*>(der.data());
    const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> both(
        d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())), &ECDSA_SIG_free);
    REQUIRE(both);
    const int half = (EVP_PKEY_get_bits(key_.get()) + 7) / 8;
    std::string out(2 * static_cast<std::size_t>(half), '\0');
    auto* to = reinterpret_cast<unsigned char*>(out.data());
    BN_bn2binpad(ECDSA_SIG_get0_r(both.get()), to, half);
    BN_bn2binpad(ECDSA_SIG_get0_s(both.get()), to + half, half);
    return out;
  }

  struct free_key {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  };
  std::string alg_, kid_;
  std::unique_ptr<EVP_PKEY, free_key> key_;
};

// Two of P-256, which are made in 20 us.
inline const signing_key& key_one() {
  static const signing_key key("ES256", "one");
  return key;
}
inline const signing_key& key_two() {
  static const signing_key key("ES256", "two");
  return key;
}

inline std::string set_of_keys(const std::vector<const signing_key*>& keys) {
  std::vector<std::string> members;
  for (const signing_key* key : keys) members.push_back(key->jwk());
  return set_of(members);
}

}  // namespace support

#endif
