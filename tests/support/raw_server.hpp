// A server that says exactly what a test tells it to, byte by byte: for everything that a real HTTP server would not do.
#ifndef AXIOMS_JWKS_TESTS_RAW_SERVER_HPP
#define AXIOMS_JWKS_TESTS_RAW_SERVER_HPP

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "throwaway_ca.hpp"

namespace test_support {

class raw_server;

/// One accepted connection, in the hands of the test's script. Calls return false once the peer or the server is gone.
class raw_connection {
 public:
  /// Reads up to the empty line of a request; what was read is in request().
  bool read_request();
  const std::string& request() const { return request_; }
  bool read_byte() {
    char byte = 0;
    return receive(&byte, 1) == 1;
  }
  bool send(std::string_view text);
  /// Sends byte by byte, with a pause before each.
  bool drip(std::string_view text, std::chrono::milliseconds pause);
  /// Sends the same text until the peer has enough.
  void flood(std::string_view text) {
    while (send(text)) {}
  }
  /// Reads and drops whatever comes until the peer closes.
  void wait_for_close();
  bool pause(std::chrono::milliseconds time);
  /// Closes with RST instead of FIN.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  }
  /// TLS, from here on. Plain servers may call it later, as a proxy does with a tunnel.
  bool start_tls();
  /// Reads a ClientHello and gives the bytes that a good server would answer it with; empty if it was none.
  std::string hello_answer();
  bool got_close_notify() const { return ssl_ && (SSL_get_shutdown(ssl_.get()) & SSL_RECEIVED_SHUTDOWN) != 0; }
  bool close_notify() { return ssl_ && SSL_shutdown(ssl_.get()) >= 0; }
  /// What the client sent as SNI, and the subject of its certificate; empty without.
  std::string server_name() const;
  std::string client_name() const;
  int fd() const { return fd_; }
  /// The server's, for a redirect to itself.
  int port() const;

 private:
  friend class raw_server;
  raw_connection(raw_server& server, int fd) : server_(server), fd_(fd) {}
  long receive(char* out, std::size_t size);

  raw_server& server_;
  int fd_;
  std::string request_;
  std::unique_ptr<SSL, void (*)(SSL*)> ssl_{nullptr, SSL_free};
};

/// Accepts on loopback and runs the script for each connection in a thread of its own. The destructor ends all scripts.
class raw_server {
 public:
  using script = std::function<void(raw_connection&)>;
  struct options {
    bool tls_first = true;                    ///< with an identity: shake hands before the script runs
    int max_version = 0;                      ///< TLS1_1_VERSION and so on; 0: the library's newest
    const char* ciphers = "ALL:@SECLEVEL=0";  ///< of an older version
    const char* groups = nullptr;             ///< of key exchange, nullptr: OpenSSL's
    bool accepting = true;    ///< false: the backlog is full, so that Linux leaves a connect() without an answer
    bool ask_client = false;  ///< for a certificate, and take any
    const char* address = "127.0.0.1";  ///< or another of loopback's, also ::1
    int port = 0;                       ///< 0: of the system's choice
    bool narrow = false;                ///< takes a few KiB that nobody reads, where the kernel would take megabytes
  };

  explicit raw_server(script run) : raw_server(std::move(run), nullptr, {}) {}
  raw_server(script run, options how) : raw_server(std::move(run), nullptr, how) {}
  raw_server(const server_identity& identity, script run) : raw_server(std::move(run), &identity, {}) {}
  raw_server(const server_identity& identity, script run, options how) : raw_server(std::move(run), &identity, how) {}

  ~raw_server() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      for (const worker& each : workers_) {
        if (each.fd >= 0) ::shutdown(each.fd, SHUT_RDWR);  // ends a blocking read or write
      }
    }
    changed_.notify_all();
    const char end = 0;
    if (::write(wake_[1], &end, 1) != 1) std::abort();
    acceptor_.join();
    for (worker& each : workers_) each.thread.join();
    for (const int fd : {wake_[0], wake_[1], listener_}) ::close(fd);
    for (const int fd : backlog_) ::close(fd);
  }
  raw_server(const raw_server&) = delete;
  raw_server& operator=(const raw_server&) = delete;

  /// False where an address cannot be listened at: there may be no IPv6.
  static bool can_listen(const char* address) {
    sockaddr_storage where{};
    const socklen_t size = make_address(address, 0, where);
    const int fd = ::socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool can = fd >= 0 && ::bind(fd, reinterpret_cast<const sockaddr*>(&where), size) == 0;
    if (fd >= 0) ::close(fd);
    return can;
  }

  int port() const { return port_; }
  int connections() const { return connections_; }
  std::string url(const std::string& path = "/jwks.json", const std::string& host = "127.0.0.1") const {
    return (tls_ ? "https://" : "http://") + host + ":" + std::to_string(port_) + path;
  }

 private:
  friend class raw_connection;
  struct worker {
    int fd;
    std::thread thread = {};
  };

  raw_server(script run, const server_identity* identity, options how) : script_(std::move(run)), how_(how) {
    if (identity != nullptr) set_up_tls(*identity);
    sockaddr_storage address{};
    socklen_t size = make_address(how.address, how.port, address);
    listener_ = ::socket(address.ss_family, SOCK_STREAM, 0);
    const int on = 1;
    if (how.port != 0) ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (how.narrow) {
      const int window = 1, segment = 536;
      ::setsockopt(listener_, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
      ::setsockopt(listener_, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
        ::listen(listener_, how.accepting ? 64 : 0) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0 || ::pipe(wake_) != 0) {
      std::abort();
    }
    for (const int fd : {listener_, wake_[0], wake_[1]}) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
    port_ = ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(&address)->sin6_port
                                                : reinterpret_cast<const sockaddr_in*>(&address)->sin_port);
    for (int i = 0; i < 4 && !how.accepting; ++i) {
      backlog_.push_back(::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      [[maybe_unused]] const int pending =
          ::connect(backlog_.back(), reinterpret_cast<const sockaddr*>(&address), size);
    }
    acceptor_ = std::thread([this] { accept_all(); });
  }

  static socklen_t make_address(const char* text, int port, sockaddr_storage& out) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&out);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&out);
    if (::inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
      v4->sin_family = AF_INET;
      v4->sin_port = htons(static_cast<std::uint16_t>(port));
      return sizeof *v4;
    }
    if (::inet_pton(AF_INET6, text, &v6->sin6_addr) != 1) std::abort();
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<std::uint16_t>(port));
    return sizeof *v6;
  }

  void set_up_tls(const server_identity& identity) {
    const temp_file chain(identity.chain_pem), key(identity.key_pem);
    tls_.reset(SSL_CTX_new(TLS_server_method()));
    if (SSL_CTX_use_certificate_chain_file(tls_.get(), chain.path().c_str()) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls_.get(), key.path().c_str(), SSL_FILETYPE_PEM) != 1) {
      std::abort();
    }
    if (how_.ask_client) SSL_CTX_set_verify(tls_.get(), SSL_VERIFY_PEER, [](int, X509_STORE_CTX*) { return 1; });
    if (how_.groups != nullptr && SSL_CTX_set1_groups_list(tls_.get(), how_.groups) != 1) std::abort();
    if (how_.max_version != 0) {
      SSL_CTX_set_min_proto_version(tls_.get(), TLS1_VERSION);
      SSL_CTX_set_max_proto_version(tls_.get(), how_.max_version);
      SSL_CTX_set_cipher_list(tls_.get(), how_.ciphers);
      SSL_CTX_ctrl(tls_.get(), SSL_CTRL_SET_DH_AUTO, 1, nullptr);
    }
  }

  void accept_all() {
    for (;;) {
      pollfd watched[2] = {{wake_[0], POLLIN, 0}, {how_.accepting ? listener_ : -1, POLLIN, 0}};
      if (::poll(watched, 2, -1) < 0) continue;
      if (watched[0].revents != 0) return;
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) continue;
      ::fcntl(fd, F_SETFD, FD_CLOEXEC);
      ++connections_;
      const std::lock_guard lock(mutex_);
      // Thousands of connections must not keep the stacks of thousands of threads.
      workers_.remove_if([](worker& each) { return each.fd < 0 && (each.thread.join(), true); });
      workers_.push_back({fd});
      worker& added = workers_.back();
      if (stopping_) ::shutdown(fd, SHUT_RDWR);
      added.thread = std::thread([this, &added, fd] { serve(added, fd); });
    }
  }

  void serve(worker& me, int fd) {
    // OpenSSL writes without MSG_NOSIGNAL; a test must see the client's SIGPIPE only.
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
    {
      raw_connection connection(*this, fd);
      if (!tls_ || !how_.tls_first || connection.start_tls()) script_(connection);
    }
    ERR_clear_error();
    const std::lock_guard lock(mutex_);
    ::close(fd);
    me.fd = -1;  // from now on it may be joined, with the lock held: the last thing that is done under it
  }

  script script_;
  options how_;
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> tls_{nullptr, SSL_CTX_free};
  int listener_ = -1;
  int wake_[2] = {-1, -1};
  std::vector<int> backlog_;  // connections that are never accepted
  int port_ = 0;
  std::atomic<int> connections_{0};
  std::mutex mutex_;  // guards workers_ and stopping_
  std::condition_variable changed_;
  std::list<worker> workers_;
  bool stopping_ = false;
  std::thread acceptor_;
};

inline bool raw_connection::start_tls() {
  ssl_.reset(SSL_new(server_.tls_.get()));
  SSL_set_fd(ssl_.get(), fd_);
  return SSL_accept(ssl_.get()) == 1;
}

inline int raw_connection::port() const { return server_.port(); }

inline std::string raw_connection::hello_answer() {
  const std::unique_ptr<SSL, void (*)(SSL*)> ssl(SSL_new(server_.tls_.get()), SSL_free);
  BIO* in = BIO_new(BIO_s_mem());
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), in, out);
  std::string answer;
  char piece[4096];
  while (answer.empty()) {
    const auto got = ::recv(fd_, piece, sizeof piece, 0);
    if (got <= 0) break;
    BIO_write(in, piece, static_cast<int>(got));
    SSL_accept(ssl.get());
    for (int size = 0; (size = BIO_read(out, piece, sizeof piece)) > 0;) {
      answer.append(piece, static_cast<std::size_t>(size));
    }
  }
  return answer;
}

inline std::string raw_connection::server_name() const {
  const char* name = ssl_ ? SSL_get_servername(ssl_.get(), TLSEXT_NAMETYPE_host_name) : nullptr;
  return name != nullptr ? name : "";
}

inline std::string raw_connection::client_name() const {
  X509* certificate = ssl_ ? SSL_get0_peer_certificate(ssl_.get()) : nullptr;
  char text[256] = "";
  if (certificate != nullptr) X509_NAME_oneline(X509_get_subject_name(certificate), text, sizeof text);
  return text;
}

inline long raw_connection::receive(char* out, std::size_t size) {
  if (ssl_) return SSL_read(ssl_.get(), out, static_cast<int>(size));
  return ::recv(fd_, out, size, 0);
}

inline bool raw_connection::read_request() {
  request_.clear();
  while (request_.find("\r\n\r\n") == std::string::npos) {
    char byte = 0;
    if (receive(&byte, 1) != 1) return false;
    request_ += byte;
  }
  return true;
}

inline bool raw_connection::send(std::string_view text) {
  while (!text.empty()) {
    const long sent = ssl_ ? SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size()))
                           : ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

inline bool raw_connection::drip(std::string_view text, std::chrono::milliseconds pause_before) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!pause(pause_before) || !send(text.substr(i, 1))) return false;
  }
  return true;
}

inline bool raw_connection::pause(std::chrono::milliseconds time) {
  std::unique_lock lock(server_.mutex_);
  return !server_.changed_.wait_for(lock, time, [this] { return server_.stopping_; });
}

inline void raw_connection::wait_for_close() {
  char piece[4096];
  while (receive(piece, sizeof piece) > 0) {}
}

}  // namespace test_support

#endif
