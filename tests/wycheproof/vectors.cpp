// See run beside it.
#include "axioms_jwks.hpp"

#include <nlohmann/json.hpp>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

namespace {

using nlohmann::json;

struct tally {
  int agreed = 0, differed = 0, hmac = 0, contradicting = 0;

  void add(bool agrees, const std::string& what) {
    ++(agrees ? agreed : differed);
    if (!agrees) std::printf("differs: %s\n", what.c_str());
  }
};

std::string name_of(const json& group, const json& test) {
  return group.value("comment", group.value("type", "")) + " " + std::to_string(test.at("tcId").get<int>()) + ", " +
         test.at("comment").get<std::string>() + ": " + test.at("result").get<std::string>();
}

// RFC 7520 signs with PS384 and ES512; the keys of these vectors say PS256 and ES521.
bool contradicts_its_key(const json& group, const json& test) {
  static const std::set<std::string> ours{"Figure20", "Figure27"};
  return group.value("comment", "").rfind("rfc7520", 0) == 0 && ours.count(test.at("comment").get<std::string>()) != 0;
}

void play_jws(const json& file, tally& out) {
  for (const json& group : file.at("testGroups")) {
    const json& key = group.contains("public") ? group.at("public") : group.at("private");
    const bool hmac = key.at("kty") == "oct";
    const auto keys = axioms::jwk_set::parse(json{{"keys", {key}}}.dump());
    for (const json& test : group.at("tests")) {
      const std::string jws = test.at("jws").get<std::string>();
      const bool accepted = keys && axioms::verify_signature(jws, *keys);
      const bool wanted = test.at("result") == "valid";
      if (hmac || contradicts_its_key(group, test)) {
        ++(hmac ? out.hmac : out.contradicting);
        if (accepted) out.add(false, name_of(group, test) + ", accepted");
      } else {
        out.add(accepted == wanted, name_of(group, test) + (accepted ? ", accepted" : ", refused"));
      }
    }
  }
}

std::string bytes_of(const std::string& hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

// The name of the algorithm in JOSE; empty: it has none there.
std::string alg_of(const json& group, const json& key) {
  const std::string type = group.at("type").get<std::string>(), sha = group.value("sha", "");
  const std::string bits = sha.size() == 7 && sha.rfind("SHA-", 0) == 0 ? sha.substr(4) : "";
  if (type == "EddsaVerify") return "EdDSA";
  if (bits != "256" && bits != "384" && bits != "512") return {};
  if (type == "RsassaPkcs1Verify") return "RS" + bits;
  if (type == "RsassaPssVerify") {
    const bool jose = group.at("mgfSha") == sha && group.at("sLen").get<int>() * 8 == std::stoi(bits);
    return jose ? "PS" + bits : std::string();
  }
  const std::string crv = key.at("crv").get<std::string>();
  if (crv == "P-256" && bits == "256") return "ES256";
  if (crv == "secp256k1" && bits == "256") return "ES256K";
  if (crv == "P-384" && bits == "384") return "ES384";
  if (crv == "P-521" && bits == "512") return "ES512";
  return {};
}

void play_primitives(const json& file, tally& out) {
  static const std::set<std::string> types{"EcdsaP1363Verify", "EddsaVerify", "RsassaPssVerify", "RsassaPkcs1Verify"};
  axioms::jwk_options options;
  options.allow_es256k = true;
  for (const json& group : file.at("testGroups")) {
    if (types.count(group.value("type", "")) == 0) continue;
    const char* member = group.contains("publicKeyJwk") ? "publicKeyJwk" : "keyJwk";
    if (!group.contains(member)) continue;
    const json& key = group.at(member);
    const std::string alg = alg_of(group, key);
    if (alg.empty()) continue;
    const auto keys = axioms::jwk_set::parse(json{{"keys", {key}}}.dump(), options);
    for (const json& test : group.at("tests")) {
      if (test.at("result") == "acceptable") continue;
      const bool accepted = keys && (*keys->begin())
                                        ->verify(alg, bytes_of(test.at("msg").get<std::string>()),
                                                 bytes_of(test.at("sig").get<std::string>()));
      out.add(accepted == (test.at("result") == "valid"),
              alg + " " + name_of(group, test) + (accepted ? ", accepted" : ", refused"));
    }
  }
}

json read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return json::parse(std::string{std::istreambuf_iterator<char>(in), {}});
}

}  // namespace

int main(int, char** arguments) {
  tally jws, primitives;
  for (const auto& each : std::filesystem::directory_iterator(arguments[1])) {
    const std::string name = each.path().filename().string();
    if (name == "json_web_signature_test.json") {
      play_jws(read(each.path()), jws);
    } else if (name.rfind("ec", 0) == 0 || name.rfind("ed", 0) == 0 || name.rfind("rsa_", 0) == 0) {
      play_primitives(read(each.path()), primitives);
    }
  }
  std::printf(
      "JWS by verify_signature(): %d agree, %d differ; all %d of HMAC and %d that contradict their key's alg refused\n",
      jws.agreed, jws.differed, jws.hmac, jws.contradicting);
  std::printf("signatures by jwk::verify(): %d agree, %d differ\n", primitives.agreed, primitives.differed);
  return jws.differed + primitives.differed > 0 || jws.agreed == 0 ? 1 : 0;
}
