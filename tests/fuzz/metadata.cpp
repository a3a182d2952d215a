// Any answer as the metadata of an issuer. The first byte says where it came from, what follows is the body: bit 0 http, else
// https; bit 1 the issuer is known by its domain only. What is accepted names our issuer, and a key set that we may fetch.
#include "check.hpp"

#include <nlohmann/json.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using axioms::detail::verdict;
  if (size == 0) return 0;
  const bool http = (data[0] & 1U) != 0, by_domain = (data[0] & 2U) != 0;
  axioms::jwks_config config;
  config.discovery = true;
  if (by_domain) {
    config.domain = "idp.example.com";
  } else {
    config.issuer = http ? "http://idp.example.com/" : "https://idp.example.com/";
  }
  const auto source = axioms::detail::metadata_source_of(config);
  fuzz::check(source.has_value(), "there is a place for the metadata");
  axioms::fetch_request request;
  request.url = (http ? "http://" : "https://") + std::string("idp.example.com/.well-known/openid-configuration");
  axioms::fetch_response response;
  response.status = 200;
  response.body = fuzz::text_of(data + 1, size - 1);

  auto read = axioms::detail::judge_metadata(request, response, *source, fuzz::now);
  fuzz::check(read.what != verdict::kind::not_modified, "a 200 is read or refused");
  if (read.what != verdict::kind::found) {
    fuzz::check_shown(read.why);
    return 0;
  }
  const auto document = nlohmann::json::parse(response.body, nullptr, false);
  fuzz::check(document.is_object(), "metadata are an object");
  const auto issuer = document.value("issuer", std::string());
  fuzz::check(issuer == source->issuer || (by_domain && issuer == source->issuer + "/"), "it is our issuer");
  const auto url = axioms::detail::parse_url(read.jwks_uri);
  fuzz::check(url.has_value() && url->normalized == read.jwks_uri, "the key set is at a normal URL");
  fuzz::check(url->https || http, "https does not lead to http");

  axioms::detail::discovery_policy policy(std::make_shared<const axioms::detail::metadata_source>(*source), config);
  const axioms::detail::steady_point start{std::chrono::hours(1000)};
  using step = axioms::detail::discovery_policy::step;
  fuzz::check(policy.begin(start) == step::metadata && policy.read(start, std::move(read)) == step::keys,
              "the key set is fetched next");
  fuzz::check(policy.jwks_uri() == url->normalized, "from where the metadata say");
  return 0;
}
