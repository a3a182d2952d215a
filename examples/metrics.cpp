// A manager's state at /metrics, as Prometheus reads it: support/prometheus.hpp writes the text, cpp-httplib serves it.
// Works offline and without arguments: it starts an issuer of its own on loopback, scrapes itself once and prints what
// it got.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"
#include "support/prometheus.hpp"

#include <iostream>

int main() {
  const demo::issuer issuer(demo::issuer::transport::http);
  axioms::jwks_manager keys({.proxy_from_environment = false});  // the issuer is on this machine
  if (const auto started = keys.initialize({.jwks_url = issuer.url()}); !started)
    return std::cerr << started.error().description << '\n', 1;
  static_cast<void>(keys.get_jwks());

  httplib::Server server;
  server.Get("/metrics", [&](const httplib::Request&, httplib::Response& response) {
    response.set_content(demo::prometheus_text(keys), "text/plain; version=0.0.4");
  });
  const int port = server.bind_to_any_port("127.0.0.1");
  std::thread thread([&] { server.listen_after_bind(); });

  httplib::Client scraper("127.0.0.1", port);
  const auto scraped = scraper.Get("/metrics");
  server.stop();
  thread.join();
  if (!scraped || scraped->status != 200) return 1;
  std::cout << scraped->body;
  const std::string ready = "axioms_jwks_ready{url=\"" + issuer.url() + "\"} 1\n";
  const bool good = scraped->body.find(ready) != std::string::npos &&
                    scraped->body.find("axioms_jwks_hits_total 1\n") != std::string::npos;
  return good ? 0 : 1;
}
