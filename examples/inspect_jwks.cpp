// A command-line tool: shows what is in a key set, which of its keys can be used, and why the others cannot; and what is in
// a token, whether it is good, and if not, why. Run it with a URL or a file; --help tells the rest. Without arguments it shows a set of its own, with a bad member in it.
#include "axioms_jwks.hpp"
#include "support/show_key_set.hpp"
#include "support/show_token.hpp"

#include <nlohmann/json.hpp>

#include <charconv>
#include <csignal>
#include <fstream>
#include <iostream>
#include <iterator>

namespace {

constexpr const char* help = R"(usage: inspect_jwks [OPTION...] URL|FILE
       inspect_jwks [OPTION...] --issuer URL
       inspect_jwks verify TOKEN [OPTION...] --issuer URL --audience NAME [URL|FILE]

Shows the keys of a JSON Web Key Set: the usable ones, and why the others are not.
With verify it shows a token, and whether it is good. TOKEN is - for the standard input, where no other user sees it. The
keys are those of the last argument, else those that the issuer's metadata name.

  --json               one JSON object instead of a table; with --watch one for each change
  --issuer URL         finds the key set through the metadata of that issuer
  --ca-file FILE       trusts these certificates (PEM) instead of the system's
  --allow-es256k       secp256k1 keys are usable
  --watch              fetches again and again, and shows what changes, until it is interrupted
  --every SECONDS      how often; 60 if not given
  --watch-for SECONDS  --watch, and ends after that time
  --audience NAME      verify: a name of the service that the token is for; may be given several times
  --any-audience       verify: for whichever service the token is

Exit code: 0 the set has usable keys (with --watch: had some at its end); 1 it has none, or could not be read; 2 usage.
With verify: 0 the token is good; 1 it is refused; 2 usage; 3 it cannot be told, for there are no keys.
)";

struct arguments {
  std::string source, issuer, ca_file, token;
  std::vector<std::string> audience;
  bool json = false, es256k = false, watch = false, help = false, verify = false, any_audience = false;
  std::chrono::seconds every{60}, watch_for{0};

  bool from_url() const { return source.find("://") != std::string::npos || (source.empty() && !issuer.empty()); }
  // A file does not change under us, and is told from a URL by its name.
  bool go_together() const {
    if (verify) return !token.empty() && !issuer.empty() && !watch && audience.empty() == any_audience;
    return source.empty() != issuer.empty() && audience.empty() && !any_audience && (!watch || from_url());
  }
};

std::optional<arguments> read_arguments(const std::vector<std::string_view>& words) {
  arguments out;
  std::size_t first = 0;
  if (words[0] == "verify") {
    out.verify = true;
    first = 1;
    if (words.size() > 1 && (words[1] == "-" || words[1].substr(0, 1) != "-")) out.token = words[first++];
  }
  for (std::size_t i = first; i < words.size(); ++i) {
    const std::string_view word = words[i];
    const auto text = [&](std::string& to) { return ++i < words.size() && !(to = words[i]).empty(); };
    const auto seconds = [&](std::chrono::seconds& to) {
      int count = 0;
      if (++i >= words.size()) return false;
      const char* const end = words[i].data() + words[i].size();
      const auto [stopped, failed] = std::from_chars(words[i].data(), end, count);
      to = std::chrono::seconds(count);
      return failed == std::errc() && stopped == end && count > 0;
    };
    bool good = true;
    if (word == "--json")
      out.json = true;
    else if (word == "--allow-es256k")
      out.es256k = true;
    else if (word == "--watch")
      out.watch = true;
    else if (word == "--help" || word == "-h")
      out.help = true;
    else if (word == "--issuer")
      good = text(out.issuer);
    else if (word == "--audience")
      good = text(out.audience.emplace_back());
    else if (word == "--any-audience")
      out.any_audience = true;
    else if (word == "--ca-file")
      good = text(out.ca_file);
    else if (word == "--every")
      good = seconds(out.every);
    else if (word == "--watch-for")
      good = out.watch = seconds(out.watch_for);
    else if (word.substr(0, 1) == "-" || !out.source.empty() || word.empty())
      good = false;
    else
      out.source = word;
    if (!good) return std::nullopt;
  }
  return out.help || out.go_together() ? std::optional(out) : std::nullopt;
}

nlohmann::json to_json(const axioms::jwk_set& keys) {
  nlohmann::json out = {{"keys", nlohmann::json::array()}, {"skipped", nlohmann::json::array()}};
  for (const auto& key : keys) {
    out["keys"].push_back({{"kid", key->kid()},
                           {"kty", key->kty()},
                           {"alg", key->alg()},
                           {"use", key->use()},
                           {"curve", key->curve()},
                           {"bits", key->bits()},
                           {"thumbprint", key->thumbprint()},
                           {"key_ops", key->key_ops()},
                           {"x5t", key->x5t()},
                           {"x5t#S256", key->x5t_s256()}});
  }
  for (const auto& member : keys.skipped())
    out["skipped"].push_back({{"index", member.index}, {"kid", member.kid}, {"reason", member.reason}});
  out["held_secrets"] = keys.held_secrets();
  return out;
}

void print(const nlohmann::json& object) {
  std::cout << object.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) << std::endl;
}

int fail(const arguments& asked, const axioms::error& why) {
  const std::string name(axioms::to_string(why.code));
  if (asked.json) print({{"error", {{"code", name}, {"description", why.description}, {"status", why.http_status}}}});
  std::cerr << name << ": " << why.description << '\n';
  return 1;
}

int show(const arguments& asked, const axioms::jwk_set& keys) {
  if (asked.json) {
    print(to_json(keys));
  } else {
    demo::print_table(keys);
  }
  return 0;
}

int inspect_text(const arguments& asked, std::string_view text) {
  const auto keys = axioms::jwk_set::parse(text, {.allow_es256k = asked.es256k});
  return keys ? show(asked, *keys) : fail(asked, keys.error());
}

axioms::result<std::string> file_text(const std::string& name) {
  constexpr std::size_t most = 1 << 20;
  std::ifstream file(name, std::ios::binary);
  std::string text(most + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad() || file.gcount() == 0) {
    return axioms::error{axioms::errc::fetch_failed, "the file cannot be read, or is empty", 0};
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > most) return axioms::error{axioms::errc::response_too_large, "the file is over 1 MiB", 0};
  return text;
}

int inspect_file(const arguments& asked) {
  const auto text = file_text(asked.source);
  return text ? inspect_text(asked, *text) : fail(asked, text.error());
}

void show_event(const arguments& asked, const axioms::jwks_event& event) {
  using kind = axioms::jwks_event_kind;
  const bool changed = !event.added.empty() || !event.removed.empty() || !event.changed.empty();
  if (event.kind == kind::not_modified || (event.kind == kind::fetched && !changed)) return;
  const std::string name(axioms::to_string(event.kind));
  if (asked.json) {
    nlohmann::json line = {
        {"event", name}, {"added", event.added}, {"removed", event.removed}, {"changed", event.changed}};
    if (event.error) line["error"] = event.error->description;
    return print(line);
  }
  std::cout << name;
  for (const auto& [what, kids] : {std::pair(" added ", &event.added), std::pair(" removed ", &event.removed),
                                   std::pair(" changed ", &event.changed)}) {
    for (const auto& kid : *kids) std::cout << what << demo::plain(kid);
  }
  if (event.error) std::cout << ": " << event.error->description;
  std::cout << std::endl;
}

volatile std::sig_atomic_t interrupted = 0;

axioms::httplib_fetcher fetcher_for(const arguments& asked) {
  axioms::httplib_options trust;
  trust.ca_file = asked.ca_file;
  return axioms::httplib_fetcher(trust);
}

axioms::jwks_config config_for(const arguments& asked) {
  axioms::jwks_config config;
  config.jwks_url = asked.source;
  config.issuer = asked.issuer;
  config.discovery = asked.source.empty();
  config.allow_es256k = asked.es256k;
  config.refresh_interval = asked.every;
  config.cache_ttl = std::max<std::chrono::seconds>(config.cache_ttl, 2 * asked.every);
  config.min_refresh_interval = asked.every;
  config.backoff_max = std::chrono::seconds(30);
  return config;
}

axioms::result<axioms::verified_token> verify(const arguments& asked, const std::string& token) {
  axioms::token_rules rules{.issuer = asked.issuer, .audience = asked.audience, .any_audience = asked.any_audience};
  if (!asked.from_url()) {
    return file_text(asked.source)
        .and_then([&](const auto& text) { return axioms::jwk_set::parse(text, {.allow_es256k = asked.es256k}); })
        .and_then([&](const auto& keys) {
          return axioms::verify_token(token, keys, rules, std::chrono::system_clock::now());
        });
  }
  axioms::jwks_manager manager{fetcher_for(asked)};
  return manager.initialize(config_for(asked)).and_then([&] {
    return axioms::token_verifier(manager, rules).verify(token);
  });
}

int inspect_token(const arguments& asked) {
  std::string token = asked.token;
  if (token == "-") std::getline(std::cin, token);
  return demo::show_token(token, verify(asked, token), asked.json);
}

int inspect_url(const arguments& asked) {
  axioms::jwks_config config = config_for(asked);
  if (asked.watch) config.on_event = [&](const axioms::jwks_event& event) { show_event(asked, event); };

  axioms::jwks_manager manager{fetcher_for(asked)};
  if (asked.watch) std::signal(SIGINT, [](int) { interrupted = 1; });
  if (const auto started = manager.initialize(config); !started) return fail(asked, started.error());
  if (asked.watch) {
    const auto start = std::chrono::steady_clock::now();
    const auto over = [&] {
      return asked.watch_for.count() != 0 && std::chrono::steady_clock::now() - start >= asked.watch_for;
    };
    while (interrupted == 0 && !over()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  const auto set = manager.get_jwks();
  manager.shutdown();  // after which no event is shown any more
  return set ? show(asked, (*set)->keys()) : fail(asked, set.error());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) {
    return inspect_text({}, R"({"keys":[
      {"kty":"OKP","crv":"Ed25519","kid":"signing","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
      {"kty":"oct","kid":"a secret does not belong here","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMko"}]})");
  }
  const auto asked = read_arguments({argv + 1, argv + argc});
  if (!asked || asked->help) {
    (asked ? std::cout : std::cerr) << help;
    return asked ? 0 : 2;
  }
  if (asked->verify) return inspect_token(*asked);
  return asked->from_url() ? inspect_url(*asked) : inspect_file(*asked);
}
