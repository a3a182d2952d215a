// The routes of token_server.cpp with coroutines, on one thread: Boost.Beast is the server, and fetches the keys. Arguments: the
// issuer's name, and the port (8080). The tests run it beside support/ask_token_server.cpp.
#include "support/asio_timer.hpp"
#include "support/asio_verbs.hpp"
#include "support/beast_fetcher.hpp"

#include <cstdlib>

namespace http = boost::beast::http;
using manager_type = axioms::basic_async_jwks_manager<demo::beast_fetcher, demo::asio_timer>;
using verifier_type = axioms::basic_token_verifier<manager_type>;
using token_result = axioms::result<axioms::verified_token>;
using response_type = http::response<http::string_body>;

// [readme]
// What the Authorization header of a request is worth. (A co_await within ?: makes g++ 12 destroy the answer twice.)
net::awaitable<token_result> verify(const verifier_type& verifier, std::string_view header) {
  const auto text = axioms::bearer_token(header);
  if (!text) co_return text.error();
  const auto start = [&](auto then, auto stop) { verifier.async_verify(*text, std::move(then), stop); };
  const auto executor = co_await net::this_coro::executor;
  co_return co_await demo::asio_verb<token_result>(executor, start, net::use_awaitable);
}

net::awaitable<response_type> answer(const verifier_type& verifier, const http::request<http::string_body>& request) {
  const bool deletes = request.method() == http::verb::delete_;
  axioms::required_access access;
  (deletes ? access.any_roles : access.all_scopes) = {deletes ? "admin" : "orders:read"};
  const auto token = co_await verify(verifier, std::string_view(request[http::field::authorization]));
  const auto allowed = token.and_then([&](const auto& good) { return good.require(access); });
  response_type response;
  if (allowed) response.body() = deletes ? "deleted" : std::string(token->subject());
  if (!allowed) response.result(static_cast<unsigned>(allowed.error().status_code()));
  const std::string challenge = allowed ? std::string() : allowed.error().www_authenticate();
  if (!challenge.empty()) response.set(http::field::www_authenticate, challenge);
  co_return response;
}
// [/readme]

net::awaitable<void> session(boost::beast::tcp_stream stream, const verifier_type& verifier) {
  boost::beast::flat_buffer buffer;
  http::request_parser<http::string_body> parser;
  parser.header_limit(32 * 1024);  // a token may have 16 KiB
  stream.expires_after(std::chrono::seconds(30));
  co_await http::async_read(stream, buffer, parser, net::use_awaitable);
  response_type response = co_await answer(verifier, parser.get());
  response.keep_alive(false);
  response.prepare_payload();
  co_await http::async_write(stream, response, net::use_awaitable);
}

net::awaitable<void> serve(manager_type& keys, const verifier_type& verifier, axioms::jwks_config config, int port) {
  const auto executor = co_await net::this_coro::executor;
  demo::asio_verbs jwks{keys, executor};
  const auto started = co_await jwks.initialize(config);
  if (!started) co_return;
  const net::ip::tcp::endpoint here(net::ip::make_address("127.0.0.1"), static_cast<net::ip::port_type>(port));
  net::ip::tcp::acceptor acceptor(executor, here);
  net::signal_set ends(executor, SIGINT, SIGTERM);
  ends.async_wait([&](const auto&, int) { acceptor.close(); });
  for (boost::system::error_code failed;;) {
    auto socket = co_await acceptor.async_accept(net::redirect_error(net::use_awaitable, failed));
    if (failed) break;
    net::co_spawn(executor, session(boost::beast::tcp_stream(std::move(socket)), verifier), net::detached);
  }
  co_await jwks.shutdown();
}

int main(int argc, char** argv) {
  axioms::jwks_config config;
  config.issuer = argc > 1 ? argv[1] : "https://idp.example.com";
  config.discovery = true;
  net::io_context loop(1);
  manager_type keys(demo::beast_fetcher{loop}, demo::asio_timer{loop});
  const verifier_type verifier(keys, {.issuer = config.issuer, .audience = {"https://api.example.com"}});
  net::co_spawn(loop, serve(keys, verifier, config, argc > 2 ? std::atoi(argv[2]) : 8080), net::detached);
  loop.run();
}
