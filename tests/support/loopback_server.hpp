// A real cpp-httplib server on 127.0.0.1, at a port of the system's choice, with or without TLS.
#ifndef AXIOMS_JWKS_TESTS_LOOPBACK_SERVER_HPP
#define AXIOMS_JWKS_TESTS_LOOPBACK_SERVER_HPP

#include <httplib.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "throwaway_ca.hpp"

namespace test_support {

/// Answers every GET by one handler, which may be replaced while it runs. Stops when it is destroyed.
class loopback_server {
 public:
  using handler = std::function<void(const httplib::Request&, httplib::Response&)>;

  explicit loopback_server(handler answer)
      : loopback_server(std::make_unique<httplib::Server>(), std::move(answer), "http") {}
  loopback_server(const server_identity& identity, handler answer)
      : loopback_server(make_tls(identity), std::move(answer), "https") {}
  ~loopback_server() {
    server_->stop();
    thread_.join();
  }
  loopback_server(const loopback_server&) = delete;
  loopback_server& operator=(const loopback_server&) = delete;

  int port() const { return port_; }
  int requests() const { return requests_; }
  std::string url(const std::string& path = "/jwks.json", const std::string& host = "127.0.0.1") const {
    return scheme_ + "://" + host + ":" + std::to_string(port_) + path;
  }
  void set_handler(handler answer) {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(answer);
  }

 private:
  loopback_server(std::unique_ptr<httplib::Server> server, handler answer, std::string scheme)
      : server_(std::move(server)), scheme_(std::move(scheme)), handler_(std::move(answer)) {
    server_->set_keep_alive_max_count(1);  // or stop() waits for idle connections
    server_->Get(".*", [this](const httplib::Request& request, httplib::Response& response) {
      ++requests_;
      handler current;
      {
        const std::lock_guard lock(mutex_);
        current = handler_;
      }
      current(request, response);
    });
    port_ = server_->bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_->listen_after_bind(); });
    while (!server_->is_running()) std::this_thread::yield();
  }
  // By files, because that constructor is the same in every release.
  static std::unique_ptr<httplib::Server> make_tls(const server_identity& identity) {
    const temp_file chain(identity.chain_pem), key(identity.key_pem);
    return std::make_unique<httplib::SSLServer>(chain.path().c_str(), key.path().c_str());
  }

  std::unique_ptr<httplib::Server> server_;
  std::string scheme_;
  std::atomic<int> requests_{0};
  std::mutex mutex_;  // guards handler_
  handler handler_;
  int port_ = 0;
  std::thread thread_;
};

}  // namespace test_support

#endif
