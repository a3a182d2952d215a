// For small machines: compiled with -Os -fno-exceptions -fno-rtti, without cpp-httplib and libssl, and with no stream. The bytes come from
// your own client, here one for the firmware's test bench, which answers from memory. Run it without arguments. By hand:
//   g++ -std=c++20 -Os -fno-exceptions -fno-rtti -DAXIOMS_JWKS_NO_HTTPLIB embedded.cpp -lcrypto -pthread

#include "axioms_jwks.hpp"

#include <cstdio>

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this example shows that neither is needed: compile it with -fno-exceptions -fno-rtti"
#endif
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
#error "compile it with -DAXIOMS_JWKS_NO_HTTPLIB, in every file of a program"
#endif

namespace {

// Any callable of this signature. What fails comes back as a value.
struct bench_client {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request,
                                                    axioms::stop_token stop) const {
    if (stop.stop_requested()) return axioms::error{axioms::errc::cancelled, "asked to stop"};
    if (request.url != "https://idp.example.com/jwks.json")
      return axioms::error{axioms::errc::resolve_failed, "no such host"};
    axioms::fetch_response out;
    out.status = 200;
    out.body =
        R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"device","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})";
    return out;
  }
};

}  // namespace

int main() {
  axioms::basic_jwks_manager<bench_client> manager;
  axioms::jwks_config config;
  config.jwks_url = "https://idp.example.com/jwks.json";
  config.max_parallel_fetches = 1;  // one scheduler, and one thread for a fetch while it lasts
  config.max_body_bytes = 16 * 1024;
  if (const auto started = manager.initialize(config); !started) {
    std::printf("%s\n", started.error().description.c_str());
    return 1;
  }
  const auto key = manager.get_key({.kid = "device", .alg = "EdDSA"});
  const auto none = manager.get_key("https://other.example.com/jwks.json", {.kid = "device"});
  if (!key || none) return 1;
  std::printf("%s: %s, %s\n", (*key)->thumbprint().c_str(), std::string((*key)->curve()).c_str(),
              none.error().description.c_str());
}
