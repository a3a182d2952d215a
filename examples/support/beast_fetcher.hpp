// An HTTPS client on a Boost.Asio loop for the managers that live on it alone: an async_fetcher over Boost.Beast. Meant to be copied.
//
// It follows no redirects and uses no proxy. Names are resolved by Asio, which starts a thread of its own for that at the first name; an
// address needs none.
#ifndef AXIOMS_JWKS_EXAMPLES_BEAST_FETCHER_HPP
#define AXIOMS_JWKS_EXAMPLES_BEAST_FETCHER_HPP

#include "axioms_jwks.hpp"

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>

#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace demo {

namespace beast = boost::beast;
using response_result = axioms::result<axioms::fetch_response>;

// One exchange: whatever happens first, the answer, the deadline or a stop, ends it.
class beast_exchange : public std::enable_shared_from_this<beast_exchange> {
  template <class T>
  using awaitable = boost::asio::awaitable<T>;
  using tcp = boost::asio::ip::tcp;
  using error_code = boost::system::error_code;

 public:
  beast_exchange(boost::asio::io_context& loop, std::shared_ptr<boost::asio::ssl::context> trust,
                 axioms::fetch_request request, std::string bearer)
      : trust_(std::move(trust)),
        request_(std::move(request)),
        bearer_(std::move(bearer)),
        deadline_(loop),
        resolver_(loop),
        stream_(loop, *trust_) {}

  // From any thread.
  void watch(axioms::stop_token stop) { on_stop_.emplace(std::move(stop), stopped{weak_from_this()}); }

  awaitable<void> run() {
    deadline_.expires_after(request_.timeout);
    deadline_.async_wait([self = weak_from_this()](error_code failed) {
      if (const auto still = self.lock(); still && !failed) still->end(axioms::errc::timed_out, "it took too long");
    });
    answer_ = co_await exchange();
    deadline_.cancel();
    on_stop_.reset();
    if (ended_) answer_ = axioms::error{ended_->first, ended_->second + (": " + request_.url), 0};
  }
  response_result answer() && { return std::move(answer_); }

 private:
  struct stopped {
    std::weak_ptr<beast_exchange> of;
    void operator()() const {
      if (const auto still = of.lock()) {
        boost::asio::post(still->deadline_.get_executor(),
                          [still] { still->end(axioms::errc::cancelled, "asked to stop"); });
      }
    }
  };
  // On the loop: every operation that is under way comes back with an error.
  void end(axioms::errc code, const char* why) {
    if (!ended_) ended_.emplace(code, why);
    resolver_.cancel();
    error_code ignored;
    beast::get_lowest_layer(stream_).cancel();
    beast::get_lowest_layer(stream_).socket().close(ignored);
  }
  axioms::error failed(axioms::errc code, const error_code& why) const {
    return {code, request_.url + ": " + why.message(), 0};
  }

  awaitable<response_result> exchange() {
    const bool secure = request_.url.starts_with("https://");
    const auto from = request_.url.find("://") + 3;
    const auto to = std::min(request_.url.find_first_of("/?", from), request_.url.size());
    const std::string authority = request_.url.substr(from, to - from);
    const auto bracket = authority.rfind(']'), colon = authority.rfind(':');
    const bool has_port = colon != std::string::npos && (bracket == std::string::npos || colon > bracket);
    std::string host = authority.substr(0, has_port ? colon : std::string::npos);
    const std::string port = has_port ? authority.substr(colon + 1) : secure ? "443" : "80";
    if (host.starts_with('[')) host = host.substr(1, host.size() - 2);

    error_code failure;
    auto token = boost::asio::redirect_error(boost::asio::use_awaitable, failure);
    const auto literal = boost::asio::ip::make_address(host, failure);
    const bool named = static_cast<bool>(failure);
    failure = {};
    std::vector<tcp::endpoint> places;
    if (named) {
      for (const auto& place : co_await resolver_.async_resolve(host, port, token)) places.push_back(place.endpoint());
      if (failure) co_return failed(axioms::errc::resolve_failed, failure);
    } else {
      places.emplace_back(literal, static_cast<std::uint16_t>(std::stoi(port)));
    }
    auto& socket = beast::get_lowest_layer(stream_);
    for (const auto& place : places) {  // each address has its own time, so that a dead one leaves some for the next
      if (ended_) break;                // a connect would open the socket again
      socket.expires_after(request_.connect_timeout);
      co_await socket.async_connect(place, token);
      if (!failure) break;
    }
    if (failure || ended_) co_return failed(axioms::errc::connect_failed, failure);
    socket.expires_never();  // the deadline is of the whole
    const std::string path = request_.url.substr(to), target = path.starts_with('/') ? path : '/' + path;
    if (!secure) co_return co_await transfer(socket, authority, target);

    // The server's name for one of many hosts on an address, and what its certificate must be for.
    if (named &&
        SSL_ctrl(stream_.native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, host.data()) != 1)
      co_return axioms::error{axioms::errc::tls_failed, request_.url + ": the host name is no good", 0};
    stream_.set_verify_mode(boost::asio::ssl::verify_peer);
    stream_.set_verify_callback(boost::asio::ssl::host_name_verification(host));
    co_await stream_.async_handshake(boost::asio::ssl::stream_base::client, token);
    if (failure) co_return failed(axioms::errc::tls_failed, failure);
    co_return co_await transfer(stream_, authority, target);
  }

  template <class Stream>
  awaitable<response_result> transfer(Stream& stream, const std::string& authority, const std::string& target) {
    namespace http = beast::http;
    error_code failure;
    auto token = boost::asio::redirect_error(boost::asio::use_awaitable, failure);
    http::request<http::empty_body> asks(http::verb::get, target, 11);
    asks.set(http::field::host, authority);
    asks.set(http::field::connection, "close");
    const auto origin = request_.url.substr(0, request_.url.find_first_of("/?", request_.url.find("//") + 2));
    // A jwks_uri may be anywhere, and what is there must not see the token.
    if (!bearer_.empty() && (request_.origin.empty() || request_.origin == origin))
      asks.set(http::field::authorization, "Bearer " + bearer_);
    if (!request_.accept.empty()) asks.set(http::field::accept, request_.accept);
    if (!request_.etag.empty()) asks.set(http::field::if_none_match, request_.etag);
    if (!request_.last_modified.empty()) asks.set(http::field::if_modified_since, request_.last_modified);
    co_await http::async_write(stream, asks, token);
    if (failure) co_return failed(axioms::errc::fetch_failed, failure);

    beast::flat_buffer buffer;
    http::response_parser<http::string_body> answer;
    answer.header_limit(32 * 1024);
    answer.body_limit(request_.max_body_bytes);
    co_await http::async_read(stream, buffer, answer, token);
    if (failure == http::error::body_limit || failure == http::error::header_limit)
      co_return failed(axioms::errc::response_too_large, failure);
    if (failure) co_return failed(axioms::errc::fetch_failed, failure);
    axioms::fetch_response out;
    out.status = static_cast<int>(answer.get().result_int());
    for (const auto& field : answer.get()) out.headers.emplace_back(field.name_string(), field.value());
    out.body = std::move(answer.get().body());
    co_return out;
  }

  std::shared_ptr<boost::asio::ssl::context> trust_;
  const axioms::fetch_request request_;
  const std::string bearer_;
  boost::asio::steady_timer deadline_;
  boost::asio::ip::tcp::resolver resolver_;
  beast::ssl_stream<beast::tcp_stream> stream_;
  std::optional<std::pair<axioms::errc, std::string>> ended_;
  response_result answer_ = axioms::error{axioms::errc::fetch_failed, "an exception was thrown", 0};
  std::optional<axioms::stop_callback<stopped>> on_stop_;
};

/// Trusts the system's authorities, or those of @p ca_pem alone. @p bearer is a token for the origin that the application
/// named, and for no other.
class beast_fetcher {
 public:
  explicit beast_fetcher(boost::asio::io_context& loop, const std::string& ca_pem = {}, std::string bearer = {})
      : loop_(loop),
        trust_(std::make_shared<boost::asio::ssl::context>(boost::asio::ssl::context::tls_client)),
        bearer_(std::move(bearer)) {
    trust_->set_options(boost::asio::ssl::context::no_tlsv1 | boost::asio::ssl::context::no_tlsv1_1);
    if (ca_pem.empty()) {
      trust_->set_default_verify_paths();
    } else {
      trust_->add_certificate_authority(boost::asio::buffer(ca_pem));
    }
  }

  template <class Callback>
  void async_fetch(axioms::fetch_request request, axioms::stop_token stop, Callback callback) {
    const auto mine = std::make_shared<beast_exchange>(loop_, trust_, std::move(request), bearer_);
    mine->watch(std::move(stop));
    boost::asio::co_spawn(loop_, mine->run(),
                          [mine, callback = std::move(callback)](const std::exception_ptr&) mutable {
                            callback(std::move(*mine).answer());
                          });
  }

 private:
  boost::asio::io_context& loop_;
  std::shared_ptr<boost::asio::ssl::context> trust_;
  std::string bearer_;
};
static_assert(axioms::async_fetcher<beast_fetcher>);

}  // namespace demo

#endif
