// Your own HTTP client: any callable that models axioms::fetcher. Here it reads key sets from a directory, as tests and
// air-gapped machines do; yours would call libcurl or Beast. Nothing of cpp-httplib is compiled in. Run it without
// arguments.

// In a real project on the command line, for every file: CMake's axioms::jwks_core does that.
#define AXIOMS_JWKS_NO_HTTPLIB
#include "axioms_jwks.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

// [readme]
struct directory_fetcher {
  std::filesystem::path directory;

  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request,
                                                    axioms::stop_token stop) const {
    if (stop.stop_requested()) return axioms::error{axioms::errc::cancelled, "asked to stop"};
    const auto name = request.url.substr(request.url.rfind('/') + 1);
    std::ifstream file(directory / name, std::ios::binary);
    axioms::fetch_response out;
    out.status = file ? 200 : 404;  // any status is a response; an error is an exchange that failed
    out.body.assign(std::istreambuf_iterator<char>(file), {});
    return out;
  }
};
static_assert(axioms::fetcher<directory_fetcher>);
using directory_manager = axioms::basic_jwks_manager<directory_fetcher>;
// [/readme]

int main() {
  const auto directory = std::filesystem::temp_directory_path() / "axioms_jwks_custom_fetcher";
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "jwks.json")
      << R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"signing","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})";

  directory_manager manager(directory_fetcher{directory});
  const auto key = manager.get_key("https://idp.example.com/jwks.json", {.kid = "signing", .alg = "EdDSA"});
  const auto missing = manager.get_jwks("https://idp.example.com/other.json");
  std::filesystem::remove_all(directory);
  if (!key) return std::cerr << key.error().description << '\n', 1;
  std::cout << (*key)->kid() << ": " << (*key)->curve() << ", " << (*key)->thumbprint() << '\n';
  if (missing || missing.error().http_status != 404) return 1;
  std::cout << missing.error().description << '\n';
}
