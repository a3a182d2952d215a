// A certificate authority that lives as long as a test: keys and certificates are made in memory, so that none is
// committed and none can expire in the repository.
#ifndef AXIOMS_JWKS_TESTS_THROWAWAY_CA_HPP
#define AXIOMS_JWKS_TESTS_THROWAWAY_CA_HPP

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

namespace test_support {

/// A file with the given text, deleted when it goes out of scope.
class temp_file {
 public:
  explicit temp_file(const std::string& text) {
    static std::atomic<int> next{0};
    const char* directory = std::getenv("TMPDIR");
    path_ = std::string(directory != nullptr ? directory : "/tmp") + "/axioms_jwks_test_" + std::to_string(::getpid()) +
            "_" + std::to_string(next++);
    write(text);
  }
  void write(const std::string& text) const { std::ofstream(path_) << text; }
  ~temp_file() { std::remove(path_.c_str()); }
  temp_file(const temp_file&) = delete;
  temp_file& operator=(const temp_file&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// What a server presents: its chain, leaf first, and its key.
struct server_identity {
  std::string chain_pem, key_pem;
};

/// What is to stand in a certificate. The defaults make one that is right for a server on loopback.
struct certificate_options {
  std::string common_name = "test server";
  std::string names = "DNS:localhost,IP:127.0.0.1,IP:::1";  ///< subjectAltName in OpenSSL's notation; empty: none
  bool expired = false;
  bool self_signed = false;
  bool rsa = false;                   ///< in place of P-256; slow to make
  std::string name_constraints = {};  ///< of an intermediate, in OpenSSL's notation: "permitted;DNS:good.test"
};

class throwaway_ca {
 public:
  throwaway_ca() : key_(make_key(), EVP_PKEY_free), certificate_(nullptr, X509_free) {
    certificate_.reset(make({.common_name = "throwaway test CA", .names = ""}, key_.get(), nullptr, true));
    pem_ = to_pem(certificate_.get());
  }

  /// The certificate that a client has to trust.
  const std::string& pem() const { return pem_; }

  server_identity issue(const certificate_options& options = {}) const {
    const key_ptr key(options.rsa ? EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", std::size_t{2048}) : make_key(),
                      EVP_PKEY_free);
    const x509_ptr leaf(make(options, key.get(), options.self_signed ? nullptr : this, false), X509_free);
    return {to_pem(leaf.get()) + (intermediate_ ? pem_ : std::string()), to_pem(key.get())};
  }

  /// A CA below this one; what it issues comes with its own certificate in the chain.
  throwaway_ca intermediate(const certificate_options& options) const {
    throwaway_ca out(make_key(), nullptr);
    out.certificate_.reset(make(options, out.key_.get(), this, true));
    out.pem_ = to_pem(out.certificate_.get());
    out.intermediate_ = true;
    return out;
  }

 private:
  using key_ptr = std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)>;
  using x509_ptr = std::unique_ptr<X509, void (*)(X509*)>;

  throwaway_ca(EVP_PKEY* key, X509* certificate) : key_(key, EVP_PKEY_free), certificate_(certificate, X509_free) {}

  // EVP_EC_gen() casts in its macro; this is what it stands for.
  static EVP_PKEY* make_key() { return EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"); }

  static X509* make(const certificate_options& options, EVP_PKEY* key, const throwaway_ca* issuer, bool is_ca) {
    static std::atomic<long> serial{1};
    X509* out = X509_new();
    X509_set_version(out, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(out), serial++);
    constexpr long day = 24 * 60 * 60;
    X509_gmtime_adj(X509_getm_notBefore(out), options.expired ? -3 * day : -day);
    X509_gmtime_adj(X509_getm_notAfter(out), options.expired ? -2 * day : day);
    X509_set_pubkey(out, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(out), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(options.common_name.c_str()), -1, -1, 0);
    X509* parent = issuer != nullptr ? issuer->certificate_.get() : out;
    X509_set_issuer_name(out, X509_get_subject_name(parent));
    add(out, parent, NID_basic_constraints, is_ca ? "critical,CA:TRUE" : "CA:FALSE");
    add(out, parent, NID_key_usage, is_ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
    add(out, parent, NID_subject_key_identifier, "hash");
    // Every test CA has the same name: only this tells a client which of them issued what.
    add(out, parent, NID_authority_key_identifier, "keyid");
    if (!options.names.empty()) add(out, parent, NID_subject_alt_name, options.names);
    if (!options.name_constraints.empty()) {
      add(out, parent, NID_name_constraints, "critical," + options.name_constraints);
    }
    X509_sign(out, issuer != nullptr ? issuer->key_.get() : key, EVP_sha256());
    return out;
  }

  static void add(X509* certificate, X509* issuer, int nid, const std::string& value) {
    X509V3_CTX context{};
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    if (extension == nullptr) std::abort();  // a test that asks for what OpenSSL cannot write
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }

  static std::string drain(BIO* bio) {
    std::string out;
    char piece[1024];
    for (int got = 0; (got = BIO_read(bio, piece, sizeof piece)) > 0;) out.append(piece, static_cast<std::size_t>(got));
    BIO_free(bio);
    return out;
  }
  static std::string to_pem(X509* certificate) {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, certificate);
    return drain(bio);
  }
  static std::string to_pem(EVP_PKEY* key) {
    BIO* bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
    return drain(bio);
  }

  key_ptr key_;
  x509_ptr certificate_;
  std::string pem_;
  bool intermediate_ = false;
};

}  // namespace test_support

#endif
