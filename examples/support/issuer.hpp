// A small OpenID-ish issuer on 127.0.0.1 for the examples: keys that rotate, outages on demand, a count of what it was
// asked. Not for production: it shows what the other side of the library does, and nothing here is needed to use the
// library.
#ifndef AXIOMS_JWKS_EXAMPLES_ISSUER_HPP
#define AXIOMS_JWKS_EXAMPLES_ISSUER_HPP

#include <httplib.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace demo {

inline void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string("the demo issuer could not ") + what);
}

template <class Bytes>  // a string, or a vector of unsigned char
std::string base64url(const Bytes& bytes) {
  std::vector<unsigned char> text((bytes.size() + 2) / 3 * 4 + 1);
  const int length = EVP_EncodeBlock(text.data(), reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
  std::string out(text.begin(), text.begin() + length);
  std::replace(out.begin(), out.end(), '+', '-');
  std::replace(out.begin(), out.end(), '/', '_');
  out.erase(out.find_last_not_of('=') + 1);
  return out;
}

/// A text with its signature, as a token has it (RFC 7518 section 3).
struct signed_text {
  std::string kid, alg, text, signature;
};

/// A private key of the issuer: EC P-256 for ES256, else RSA for RS256.
class signing_key {
 public:
  signing_key(std::string kid, bool elliptic)
      : kid_(std::move(kid)),
        alg_(elliptic ? "ES256" : "RS256"),
        key_(elliptic ? EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256")
                      : EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", std::size_t{2048}),
             EVP_PKEY_free) {
    require(key_ != nullptr, "make a key");
  }
  EVP_PKEY* get() const { return key_.get(); }
  const std::string& kid() const { return kid_; }

  /// The public half (RFC 7517).
  std::string jwk() const {
    const std::string common = R"(,"use":"sig","alg":")" + alg_ + R"(","kid":")" + kid_ + "\"}";
    if (alg_ == "RS256") {
      return R"({"kty":"RSA","n":")" + number(OSSL_PKEY_PARAM_RSA_N) + R"(","e":")" + number(OSSL_PKEY_PARAM_RSA_E) +
             "\"" + common;
    }
    return R"({"kty":"EC","crv":"P-256","x":")" + number(OSSL_PKEY_PARAM_EC_PUB_X, 32) + R"(","y":")" +
           number(OSSL_PKEY_PARAM_EC_PUB_Y, 32) + "\"" + common;
  }

  signed_text sign(std::string text) const {
    const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    unsigned char out[1024];
    std::size_t size = sizeof out;
    require(EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_.get()) == 1 &&
                EVP_DigestSign(context.get(), out, &size, reinterpret_cast<const unsigned char*>(text.data()),
                               text.size()) == 1,
            "sign");
    std::string signature(out, out + size);
    return {kid_, alg_, std::move(text), alg_ == "ES256" ? both_numbers(signature) : std::move(signature)};
  }

  /// A token (RFC 9068) with those claims, which are a JSON object.
  std::string token(const std::string& claims) const {
    const std::string header = R"({"alg":")" + alg_ + R"(","typ":"at+jwt","kid":")" + kid_ + "\"}";
    const signed_text made = sign(base64url(header) + '.' + base64url(claims));
    return made.text + '.' + base64url(made.signature);
  }

 private:
  // A signature of a token has the two numbers side by side (RFC 7518 section 3.4), where OpenSSL writes DER.
  static std::string both_numbers(const std::string& der) {
    const auto* at = reinterpret_cast<const unsigned char*>(der.data());
    const std::unique_ptr<ECDSA_SIG, void (*)(ECDSA_SIG*)> both(
        d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(der.size())), ECDSA_SIG_free);
    require(both != nullptr, "read its own signature");
    std::string out(64, '\0');
    auto* const to = reinterpret_cast<unsigned char*>(out.data());
    BN_bn2binpad(ECDSA_SIG_get0_r(both.get()), to, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(both.get()), to + 32, 32);
    return out;
  }
  std::string number(const char* name, int width = 0) const {
    BIGNUM* big = nullptr;
    require(EVP_PKEY_get_bn_param(key_.get(), name, &big) == 1, "read its key");
    std::vector<unsigned char> bytes(static_cast<std::size_t>(std::max(BN_num_bytes(big), width)));
    BN_bn2binpad(big, bytes.data(), static_cast<int>(bytes.size()));
    BN_free(big);
    return base64url(bytes);
  }

  std::string kid_, alg_;
  std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_;
};

/// Publishes its key set at url(), with an ETag, until it is stopped; start() brings it back on the same port.
///
/// Threads: name(), url(), ca_pem(), demand() and the counts from any; the rest from one.
class issuer {
 public:
  enum class transport { http, https };
  struct counts {
    int full = 0, not_modified = 0;
    int all() const { return full + not_modified; }
  };

  explicit issuer(transport how = transport::https) : tls_(how == transport::https) {
    keys_.emplace_back("2026-01", true);
    keys_.emplace_back("2026-02", false);
    if (tls_) make_certificate();
    start();
  }
  ~issuer() { stop(); }
  issuer(const issuer&) = delete;
  issuer& operator=(const issuer&) = delete;

  /// Its name, under which its metadata are to be found (OpenID Connect Discovery).
  std::string name() const { return (tls_ ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string(port_); }
  std::string url() const { return name() + "/.well-known/jwks.json"; }
  /// What a client has to trust: a certificate of this run, which is its own authority.
  const std::string& ca_pem() const { return certificate_; }
  /// From now on a request for the keys must have this Authorization header.
  void demand(std::string authorization) {
    const std::lock_guard lock(mutex_);
    demanded_ = std::move(authorization);
  }
  counts asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

  void start() {
    if (server_) return;
    server_ = tls_ ? tls_server() : std::make_unique<httplib::Server>();
    server_->set_keep_alive_max_count(1);  // or stop() would wait for idle connections
    server_->Get("/.well-known/jwks.json",
                 [this](const httplib::Request& request, httplib::Response& response) { answer(request, response); });
    server_->Get("/.well-known/openid-configuration", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(R"({"issuer":")" + name() + R"(","jwks_uri":")" + url() + "\"}", "application/json");
    });
    if (port_ == 0) {
      port_ = server_->bind_to_any_port("127.0.0.1");
      require(port_ > 0, "find a free port");
    } else {
      require(server_->bind_to_port("127.0.0.1", port_), "get its port back");
    }
    thread_ = std::thread([this] { server_->listen_after_bind(); });
    while (!server_->is_running()) std::this_thread::yield();
  }
  void stop() {
    if (!server_) return;
    server_->stop();
    thread_.join();
    server_.reset();
  }

  /// A new key comes, the oldest one leaves; the new one signs from now on.
  void rotate(std::string kid) {
    signing_key fresh(std::move(kid), true);
    const std::lock_guard lock(mutex_);
    keys_.push_back(std::move(fresh));
    keys_.pop_front();
  }
  signed_text sign(std::string text) const {
    const std::lock_guard lock(mutex_);
    return keys_.back().sign(std::move(text));
  }
  /// A token for an hour from now on. @p members are its claims beside `iss` and `iat`, and may have an `exp` of their own.
  std::string token(const std::string& members) const {
    const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()).time_since_epoch();
    std::string claims = R"({"iss":")" + name() + R"(","iat":)" + std::to_string(now.count());
    if (members.find("\"exp\"") == std::string::npos) claims += ",\"exp\":" + std::to_string(now.count() + 3600);
    const std::lock_guard lock(mutex_);
    return keys_.back().token(claims + ',' + members + '}');
  }

 private:
  void answer(const httplib::Request& request, httplib::Response& response) {
    const std::lock_guard lock(mutex_);
    if (!demanded_.empty() && request.get_header_value("Authorization") != demanded_) {
      response.status = 401;
      return;
    }
    std::string body = R"({"keys":[)", etag = "\"";
    for (const signing_key& key : keys_) {
      body += (body.back() == '[' ? "" : ",") + key.jwk();
      etag += key.kid() + ";";
    }
    etag += '"';
    response.set_header("ETag", etag);
    if (request.get_header_value("If-None-Match") == etag) {
      ++asked_.not_modified;
      response.status = 304;
      return;
    }
    ++asked_.full;
    response.set_content(body + "]}", "application/jwk-set+json");
  }

  // A certificate for 127.0.0.1 that nobody has to keep: it lives for a day and signs itself.
  void make_certificate() {
    const signing_key key("tls", true);
    const std::unique_ptr<X509, void (*)(X509*)> made(X509_new(), X509_free);
    X509_set_version(made.get(), X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(made.get()), -60);
    X509_gmtime_adj(X509_getm_notAfter(made.get()), 24L * 60 * 60);
    X509_set_pubkey(made.get(), key.get());
    X509_NAME* name = X509_get_subject_name(made.get());
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("demo issuer"), -1, -1,
                               0);
    X509_set_issuer_name(made.get(), name);
    X509V3_CTX context{};
    X509V3_set_ctx(&context, made.get(), made.get(), nullptr, nullptr, 0);
    for (const auto& [kind, value] :
         {std::pair(NID_basic_constraints, "critical,CA:TRUE"), std::pair(NID_subject_alt_name, "IP:127.0.0.1")}) {
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value);
      require(extension != nullptr && X509_add_ext(made.get(), extension, -1) == 1, "write its certificate");
      X509_EXTENSION_free(extension);
    }
    require(X509_sign(made.get(), key.get(), EVP_sha256()) > 0, "sign its certificate");
    certificate_ = pem([&](BIO* out) { return PEM_write_bio_X509(out, made.get()); });
    key_ =
        pem([&](BIO* out) { return PEM_write_bio_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
  }
  template <class Write>
  static std::string pem(Write write) {
    const std::unique_ptr<BIO, void (*)(BIO*)> out(BIO_new(BIO_s_mem()), BIO_free_all);
    require(write(out.get()) == 1, "write PEM");
    char text[8192];
    const int size = BIO_read(out.get(), text, sizeof text);
    return std::string(text, text + std::max(size, 0));
  }

  // By files: that constructor is the same in every release of cpp-httplib.
  std::unique_ptr<httplib::Server> tls_server() const {
    const file certificate(certificate_), key(key_);
    auto out = std::make_unique<httplib::SSLServer>(certificate.path.c_str(), key.path.c_str());
    require(out->is_valid(), "set up TLS");
    return out;
  }
  struct file {
    explicit file(const std::string& text) {
      const char* directory = std::getenv("TMPDIR");
      path = std::string(directory != nullptr ? directory : "/tmp") + "/axioms_jwks_demo_XXXXXX";
      const int descriptor = ::mkstemp(path.data());  // readable by nobody else
      require(descriptor >= 0 && ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size()),
              "write a temporary file");
      ::close(descriptor);
    }
    ~file() { std::remove(path.c_str()); }
    file(const file&) = delete;
    file& operator=(const file&) = delete;
    std::string path;
  };

  const bool tls_;
  mutable std::mutex mutex_;  // guards keys_, demanded_ and asked_
  std::deque<signing_key> keys_;
  std::string demanded_;
  counts asked_;
  std::string certificate_, key_;
  int port_ = 0;
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
};

}  // namespace demo

#endif
