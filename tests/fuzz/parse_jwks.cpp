// Any text as a key set: keys that can be found, written and read again as the same, and nothing secret in what is written.
#include "check.hpp"

#include <nlohmann/json.hpp>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>

namespace {

using nlohmann::json;

bool is_secret(std::string_view name) {
  constexpr std::string_view names[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"};
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// All strings in it, apart from those of secret members, which come by themselves.
void collect(const json& value, bool secret, std::vector<std::string>& open, std::vector<std::string>& hidden) {
  if (value.is_string()) (secret ? hidden : open).push_back(value.get<std::string>());
  if (value.is_array()) {
    for (const auto& each : value) collect(each, secret, open, hidden);
  }
  if (value.is_object()) {
    for (const auto& [name, each] : value.items()) {
      open.push_back(name);
      collect(each, secret || is_secret(name), open, hidden);
    }
  }
}

void check_no_secret(std::string_view input, const std::vector<std::string_view>& written) {
  const json document = json::parse(input, nullptr, false);
  if (document.is_discarded()) return;
  std::vector<std::string> open, hidden;
  collect(document, false, open, hidden);
  for (const auto& secret : hidden) {
    if (secret.size() < 12) continue;  // may be anywhere by chance
    const auto holds = [&](std::string_view text) { return text.find(secret) != std::string_view::npos; };
    // Key material may be published with other spare bits in its last digit, and is written without them.
    const auto nearly = [&](std::string_view text) {
      return text.find(secret.substr(0, secret.size() - 1)) != text.npos;
    };
    if (std::any_of(open.begin(), open.end(), nearly)) continue;
    fuzz::check(std::none_of(written.begin(), written.end(), holds), "no secret is written");
  }
}

void check_key(const axioms::jwk_set& set, const axioms::key_ptr& key, const axioms::jwk_options& options) {
  fuzz::check(key->kid().size() <= 1024 && key->thumbprint().size() == 43 && key->bits() > 0, "a key is complete");
  const auto found = set.find(key->kid());
  fuzz::check(std::find(found.begin(), found.end(), key) != found.end() && set.contains(key->kid()),
              "a key is found by its kid");
  for (const auto id : {key->x5t(), key->x5t_s256()})
    fuzz::check(id.empty() || set.contains(id), "a key is found by its x5t");
  const auto selected = set.select({.kid = key->kid(), .alg = key->alg()});
  if (selected) {
    fuzz::check((*selected)->thumbprint() == key->thumbprint(), "kid and alg select the key itself");
  } else {
    fuzz::check(selected.error().code == axioms::errc::key_ambiguous, "kid and alg select the key, or it has rivals");
    fuzz::check_shown(selected.error());
  }

  const std::string pem = key->to_pem();
  BIO* const memory = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  EVP_PKEY* const read = PEM_read_bio_PUBKEY(memory, nullptr, nullptr, nullptr);
  fuzz::check(read != nullptr && EVP_PKEY_eq(read, key->native_handle()) == 1, "its PEM is the same key");
  EVP_PKEY_free(read);
  BIO_free(memory);

  const auto again = axioms::jwk_set::parse("{\"keys\":[" + key->to_json() + "]}", options);
  fuzz::check(again.has_value() && again->size() == 1 && !again->held_secrets(), "its JSON is a key set of one");
  const auto& same = **again->begin();
  fuzz::check(same.thumbprint() == key->thumbprint() && same.to_json() == key->to_json(), "its JSON is its own");
  fuzz::check(same.kid() == key->kid() && same.alg() == key->alg() && same.use() == key->use() &&
                  same.curve() == key->curve() && same.key_ops() == key->key_ops() && same.bits() == key->bits() &&
                  EVP_PKEY_eq(same.native_handle(), key->native_handle()) == 1,
              "its JSON means the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  for (const bool es256k : {false, true}) {
    const axioms::jwk_options options{.allow_es256k = es256k};
    const auto set = axioms::jwk_set::parse(input, options);
    if (!set) {
      fuzz::check(set.error().code == axioms::errc::not_a_key_set || set.error().code == axioms::errc::no_usable_key,
                  "what is refused is no key set, or has no key");
      fuzz::check_shown(set.error());
      continue;
    }
    fuzz::check(set->size() > 0 && set->size() <= 1024 && set->skipped().size() <= 2048,
                "a set has a key, and a limit");
    std::vector<std::string_view> written;
    for (const auto& left_out : set->skipped()) {
      fuzz::check_shown(left_out.reason);
      written.push_back(left_out.reason);
    }
    for (const auto& key : *set) {
      check_key(*set, key, options);
      written.push_back(key->to_json());
    }
    if (set->select({.alg = "HS256"}) || set->select({.alg = "none"})) fuzz::check(false, "HMAC and none are refused");

    // What a manager would keep of it.
    axioms::fetch_response response;
    response.status = 200;
    response.body = input;
    axioms::fetch_request request;
    const auto verdict = axioms::detail::judge(request, response, fuzz::now, options);
    if (input.size() <= request.max_body_bytes) {
      fuzz::check(verdict.what == axioms::detail::verdict::kind::document, "the policy takes the same sets");
      written.push_back(verdict.content->body);
      const auto kept = axioms::jwk_set::parse(verdict.content->body, options);
      fuzz::check(kept.has_value() && kept->size() == set->size(), "the body that is kept has the same keys");
      fuzz::check(!set->held_secrets() || !kept->held_secrets(), "the body that is kept has no secrets");
    }
    check_no_secret(input, written);
  }
  return 0;
}
