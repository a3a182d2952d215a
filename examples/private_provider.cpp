// A provider that is not open to everybody, as the key set of a Kubernetes cluster: a certificate authority of its own,
// and a token in each request. Works offline and without arguments: it starts an issuer on loopback that demands both.
#include "axioms_jwks.hpp"
#include "support/issuer.hpp"

#include <filesystem>
#include <fstream>
#include <iostream>

// [readme]
// A pod's CA, and its token, which the cluster renews on disk: it is read for each fetch.
axioms::httplib_options in_cluster(const std::string& folder = "/var/run/secrets/kubernetes.io/serviceaccount") {
  axioms::httplib_options options;
  options.ca_file = folder + "/ca.crt";
  options.headers = [folder] {
    std::ifstream file(folder + "/token");
    std::string token;
    std::getline(file, token);
    return std::vector<std::pair<std::string, std::string>>{{"Authorization", "Bearer " + token}};
  };
  // The rest is as short: client_cert_file and client_key_file, proxy, credential_origins.
  return options;
}
// [/readme]

struct scratch_folder {
  std::string path = (std::filesystem::temp_directory_path() / "axioms_jwks_XXXXXX").string();
  scratch_folder() { demo::require(::mkdtemp(path.data()) != nullptr, "make a folder"); }
  ~scratch_folder() {
    std::error_code failed;
    std::filesystem::remove_all(path, failed);
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  void write(const std::string& name, const std::string& text) const { std::ofstream(path + '/' + name) << text; }
};

int main() {
  demo::issuer issuer;
  ::setenv("no_proxy", "127.0.0.1", 1);  // the issuer is on this machine
  const scratch_folder folder;
  axioms::jwks_manager keys(in_cluster(folder.path));
  const axioms::jwks_config config{.jwks_url = issuer.url()};
  const auto without_ca = keys.initialize(config);  // a file that is missing is told here, not at the first lookup
  if (without_ca) return 1;
  std::cout << without_ca.error().description << '\n';

  folder.write("ca.crt", issuer.ca_pem());
  folder.write("token", "first\n");
  issuer.demand("Bearer first");
  if (!keys.initialize(config) || !keys.get_jwks()) return 1;

  issuer.demand("Bearer second");
  const auto too_old = keys.refresh();
  folder.write("token", "second\n");
  const auto renewed = keys.refresh();
  std::cout << (too_old ? "no error" : too_old.error().description) << '\n'
            << (renewed ? "keys, with the new token" : renewed.error().description) << '\n';
  return !too_old && too_old.error().http_status == 401 && renewed ? 0 : 1;
}
