// A command-line tool: shows what is in a key set, which of its keys can be used, and why the others cannot; what is wrong
// with a set, and what differs between two; and what is in a token, whether it is good, and if not, why. Run it with a URL
// or a file; --help shows the rest. The tests run it in tests/inspect_check.
#include "axioms_jwks.hpp"
#include "support/diff_key_sets.hpp"
#include "support/lint_key_set.hpp"
#include "support/read_key_set.hpp"
#include "support/show_key_set.hpp"
#include "support/show_token.hpp"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <ctime>
#include <fstream>
#include <iostream>
#include <system_error>
#include <variant>

namespace {

// tests/man_page makes the manual page of it.
constexpr std::string_view help = R"(usage: axioms-jwks [OPTION...] URL|FILE
       axioms-jwks [OPTION...] --issuer URL
       axioms-jwks --lint [OPTION...] URL|FILE
       axioms-jwks --lint [OPTION...] --issuer URL
       axioms-jwks --diff [OPTION...] URL|FILE URL|FILE
       axioms-jwks verify TOKEN [OPTION...] --issuer URL --audience NAME [URL|FILE]

Shows the keys of a JSON Web Key Set: the usable ones, and why the others are not. FILE is - for the standard input.

With --lint it tells what is wrong with the set, for those who publish one; of a URL also what is wrong with the
response. With --diff it tells what differs between two sets.

With verify it shows a token, and whether it is good. TOKEN is - for the standard input, where no other user sees it.
The keys are those of the last argument, else those that the issuer's metadata name.

Options:
  --lint               tells what is wrong with the set
  --diff               tells what differs between two sets
  --json               one JSON object instead of text; with --watch one for each change
  --issuer URL         finds the key set through the metadata of that issuer
  --ca-file FILE       trusts these certificates (PEM) instead of the system's
  --allow-es256k       secp256k1 keys are usable
  --watch              fetches again and again, and shows what changes, until it is interrupted
  --every SECONDS      how often; 60 if not given
  --watch-for SECONDS  --watch, and ends after that time
  --audience NAME      verify: a name of the service that the token is for; may be given several times
  --any-audience       verify: for whichever service the token is
  --help               shows this
  --version            shows the version of the library that it was built with

Rules of --lint:
  secret               error: private or symmetric key material is published
  not-a-key-set        error: no JSON object with an array named keys
  no-usable-key        error: none of the members verifies anything
  unusable             error: a member that looks like a key for signatures, and is none
  weak-key             error: an RSA key below 2048 bits; warning: one with an exponent below 65537
  kid-missing          error: a key without kid beside others; warning: the only key has none
  kid-twice            error: a kid twice; warning: for keys of different types, or one that is not usable
  kid-odd              warning: a kid of more than 64 bytes, or not of printable ASCII without blanks
  key-twice            warning: a key twice
  alg-missing          warning: an RSA key does not say its algorithm; note: another key does not
  unknown-kind         warning: a type or curve that this library does not use
  use-missing          note: neither use nor key_ops
  other-use            note: a key that is not for signatures
  size                 error: over 1 MiB or 1,024 members; warning: over 64 KiB or 100 members
  https                error: no TLS on the way
  content-type         warning: neither application/jwk-set+json nor application/json
  cache                warning: may not be kept, or for more than a day; note: nothing says how long
  validator            note: neither ETag nor Last-Modified
  redirect             note: the set comes from another URL

Exit codes:
  0  usable keys; --watch: and the last fetch was good; --lint: notes at most; --diff: the same keys; verify: a good token
  1  no usable key, or no set; --watch: or an outage; --lint: an error; --diff: other keys; verify: a refused token
  2  usage
  3  --lint, --diff and verify: it cannot be told, because the keys cannot be had
  4  --lint: a warning, and no error

Environment:
  NO_COLOR     no colours; without it they are used on a terminal
  HTTPS_PROXY  and HTTP_PROXY, ALL_PROXY, NO_PROXY: as usual
)";

struct arguments {
  std::vector<std::string> sources, audience;
  std::string issuer, ca_file, token;
  bool lint = false, diff = false, json = false, es256k = false, watch = false, help = false, verify = false;
  bool any_audience = false, version = false;
  std::chrono::seconds every{60}, watch_for{0};

  std::string source() const { return sources.empty() ? std::string() : sources[0]; }
};

// A file is told from a URL by its name.
bool is_url(std::string_view source) { return source.find("://") != source.npos; }

struct option {
  std::string_view name;
  std::variant<bool arguments::*, std::string arguments::*, std::vector<std::string> arguments::*,
               std::chrono::seconds arguments::*>
      to;
};
const option options[] = {{"--lint", &arguments::lint},
                          {"--diff", &arguments::diff},
                          {"--json", &arguments::json},
                          {"--issuer", &arguments::issuer},
                          {"--ca-file", &arguments::ca_file},
                          {"--allow-es256k", &arguments::es256k},
                          {"--watch", &arguments::watch},
                          {"--every", &arguments::every},
                          {"--watch-for", &arguments::watch_for},
                          {"--audience", &arguments::audience},
                          {"--any-audience", &arguments::any_audience},
                          {"--help", &arguments::help},
                          {"-h", &arguments::help},
                          {"--version", &arguments::version}};

// What is wrong with the arguments as a whole; empty if nothing is.
std::string contradiction(const arguments& asked) {
  const std::size_t sources = asked.sources.size();
  if (asked.lint + asked.diff + asked.watch + asked.verify > 1) return "only one of --lint, --diff, --watch and verify";
  if (asked.verify) {
    if (asked.token.empty()) return "verify needs a token";
    if (asked.issuer.empty()) return "verify needs --issuer";
    if (asked.audience.empty() != asked.any_audience) return "verify needs either --audience or --any-audience";
    if (sources > 1) return "verify takes one key set";
    return asked.token == "-" && asked.source() == "-" ? "token and key set cannot both come from the standard input"
                                                       : "";
  }
  if (!asked.audience.empty() || asked.any_audience) return "--audience and --any-audience are for verify";
  if (asked.diff) return sources == 2 && asked.issuer.empty() ? "" : "--diff needs two key sets, each a URL or a file";
  if (sources == 0 && asked.issuer.empty()) return "which key set? Name a URL or a file, or an --issuer";
  if (sources + (asked.issuer.empty() ? 0 : 1) > 1) return "one key set at a time";
  return asked.watch && sources == 1 && !is_url(asked.source())
             ? "--watch is for a URL: a file does not change under us"
             : "";
}

bool read_value(const std::string& text, std::chrono::seconds& to) {
  int count = 0;
  const auto [stopped, failed] = std::from_chars(text.data(), text.data() + text.size(), count);
  to = std::chrono::seconds(count);
  return failed == std::errc() && stopped == text.data() + text.size() && count > 0;
}
bool read_value(const std::string& text, std::string& to) { return !(to = text).empty(); }
bool read_value(const std::string& text, std::vector<std::string>& to) { return !to.emplace_back(text).empty(); }

// Returns what is wrong; empty if nothing is.
std::string read_arguments(const std::vector<std::string>& words, arguments& out) {
  std::size_t at = 0;
  if (!words.empty() && words[0] == "verify") {
    out.verify = true;
    at = 1;
    if (words.size() > 1 && (words[1] == "-" || words[1].substr(0, 1) != "-")) out.token = words[at++];
  }
  for (; at < words.size(); ++at) {
    const std::string& word = words[at];
    if (word == "-" || word.substr(0, 1) != "-") {
      if (word.empty()) return "an argument is empty";
      out.sources.push_back(word);
      continue;
    }
    const auto* const known =
        std::find_if(std::begin(options), std::end(options), [&](const option& each) { return each.name == word; });
    if (known == std::end(options)) return "there is no option " + demo::plain(word);
    const std::string wrong = std::visit(
        [&](auto to) -> std::string {
          if constexpr (std::is_same_v<decltype(to), bool arguments::*>) {
            out.*to = true;
          } else {
            if (at + 1 >= words.size()) return word + " needs a value";
            if (!read_value(words[++at], out.*to)) return word + " cannot be " + demo::plain(words[at]);
          }
          return {};
        },
        known->to);
    if (!wrong.empty()) return wrong;
  }
  out.watch = out.watch || out.watch_for.count() > 0;
  return out.help || out.version ? "" : contradiction(out);
}

nlohmann::json to_json(const std::vector<axioms::skipped_key>& skipped) {
  nlohmann::json out = nlohmann::json::array();
  for (const auto& member : skipped)
    out.push_back({{"index", member.index}, {"kid", member.kid}, {"reason", member.reason}});
  return out;
}

nlohmann::json to_json(const axioms::jwk_set& keys) {
  nlohmann::json out = {{"keys", nlohmann::json::array()}};
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
  out["skipped"] = to_json(keys.skipped());
  out["held_secrets"] = keys.held_secrets();
  return out;
}

void print(const nlohmann::json& object) {
  std::cout << object.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) << std::endl;
}

// With the members that are not used, where they are the reason.
int fail(const arguments& asked, const axioms::error& why, const demo::read_key_set* read = nullptr) {
  const std::string name(axioms::to_string(why.code));
  if (asked.json) {
    nlohmann::json out = {{"error", {{"code", name}, {"description", why.description}, {"status", why.http_status}}}};
    if (read != nullptr) out["skipped"] = to_json(read->skipped);
    if (read != nullptr) out["held_secrets"] = read->held_secrets;
    print(out);
  } else if (read != nullptr && !read->skipped.empty()) {
    demo::print_skipped(0, read->skipped, read->held_secrets);
    std::fflush(stdout);
  }
  std::cerr << name << ": " << why.description << '\n';
  if (asked.issuer.empty() && is_url(asked.source()) &&
      (why.code == axioms::errc::http_status || why.code == axioms::errc::not_a_key_set))
    std::cerr << "If that is the name of an issuer: --issuer " << demo::plain(asked.source(), 256) << '\n';
  return asked.lint || asked.diff ? 3 : 1;
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
  const auto set = demo::read(text, {.allow_es256k = asked.es256k});
  return set.keys ? show(asked, *set.keys) : fail(asked, set.keys.error(), &set);
}

// ---- where key sets come from ----

axioms::result<std::string> file_text(const std::string& name) {
  constexpr std::size_t most = 1 << 20;
  const auto refuse = [&](axioms::errc code, const std::string& why) {
    return axioms::error{code, (name == "-" ? "the standard input" : "the file " + demo::plain(name, 256)) + why, 0};
  };
  std::ifstream file;
  if (name != "-") file.open(name, std::ios::binary);
  if (name != "-" && !file.is_open()) {
    const int why = errno;
    return refuse(axioms::errc::fetch_failed, " cannot be read: " + std::generic_category().message(why) +
                                                  (why == ENOENT ? " (a URL begins with https://)" : ""));
  }
  std::istream& from = name == "-" ? std::cin : file;
  std::string text(most + 1, '\0');
  from.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (from.bad() || from.gcount() == 0) return refuse(axioms::errc::fetch_failed, " is none, or is empty");
  text.resize(static_cast<std::size_t>(from.gcount()));
  if (text.size() > most) return refuse(axioms::errc::response_too_large, " is over 1 MiB");
  return text;
}

axioms::httplib_fetcher fetcher_for(const arguments& asked) {
  axioms::httplib_options trust;
  trust.ca_file = asked.ca_file;
  return axioms::httplib_fetcher(trust);
}

axioms::jwks_config config_for(const arguments& asked, const std::string& source) {
  axioms::jwks_config config;
  config.jwks_url = source;
  config.issuer = asked.issuer;
  config.discovery = source.empty();
  config.allow_es256k = asked.es256k;
  config.refresh_interval = asked.every;
  config.cache_ttl = std::max<std::chrono::seconds>(config.cache_ttl, 2 * asked.every);
  config.min_refresh_interval = asked.every;
  config.backoff_max = std::chrono::seconds(30);
  return config;
}

// The set outlives the manager.
axioms::result<std::shared_ptr<const axioms::jwk_set>> keys_of(const arguments& asked, const std::string& source) {
  using keys_ptr = std::shared_ptr<const axioms::jwk_set>;
  if (!source.empty() && !is_url(source)) {
    return file_text(source)
        .and_then([&](const auto& text) { return axioms::jwk_set::parse(text, {.allow_es256k = asked.es256k}); })
        .transform([](auto&& keys) -> keys_ptr { return std::make_shared<axioms::jwk_set>(std::move(keys)); });
  }
  axioms::jwks_manager manager{fetcher_for(asked)};
  return manager.initialize(config_for(asked, source))
      .and_then([&] { return manager.get_jwks(); })
      .transform([](const axioms::jwks_ptr& set) { return keys_ptr(set, &set->keys()); });
}

// Where the issuer's metadata say that its keys are.
axioms::result<std::string> key_set_url(const arguments& asked) {
  if (!asked.sources.empty()) return asked.source();
  axioms::jwks_manager manager{fetcher_for(asked)};
  if (const auto started = manager.initialize(config_for(asked, "")); !started) return started.error();
  const auto set = manager.get_jwks();  // whose keys may be no good: that is for the lint to say
  const auto metadata = nlohmann::json::parse(manager.metadata().value_or(""), nullptr, false);
  const auto url = metadata.is_object() ? metadata.find("jwks_uri") : metadata.end();
  if (url != metadata.end() && url->is_string()) return url->get<std::string>();
  return set ? axioms::error{axioms::errc::not_a_key_set, "the metadata of the issuer name no jwks_uri", 0}
             : set.error();
}

// The response as it came, also with a set that a manager would refuse.
axioms::result<axioms::fetch_response> fetch(const arguments& asked, const std::string& url) {
  axioms::jwks_config config = config_for(asked, url);
  const axioms::httplib_fetcher fetcher = fetcher_for(asked);
  if (const auto good = config.validate(); !good) return good.error();
  if (const auto good = fetcher.check(); !good) return good.error();
  return config.resolved_url()
      .and_then([&](const std::string& resolved) {
        return fetcher({.url = resolved, .accept = "application/jwk-set+json, application/json"}, {});
      })
      .and_then([&](axioms::fetch_response response) -> axioms::result<axioms::fetch_response> {
        if (response.status == 200 || response.status == 203) return response;
        return axioms::error{axioms::errc::http_status,
                             "HTTP status " + std::to_string(response.status) + " from " + demo::plain(url, 256),
                             response.status};
      });
}

// ---- what is asked ----

void show_event(const arguments& asked, const axioms::jwks_event& event) {
  using kind = axioms::jwks_event_kind;
  const bool changed = !event.added.empty() || !event.removed.empty() || !event.changed.empty();
  if (event.kind == kind::not_modified || (event.kind == kind::fetched && !changed)) return;
  const std::string time = demo::utc(std::time(nullptr));
  if (!asked.json) {
    std::cout << time << ' ' << axioms::to_string(event) << std::endl;
    return;
  }
  nlohmann::json line = {{"time", time},
                         {"event", axioms::to_string(event.kind)},
                         {"url", event.url},
                         {"added", event.added},
                         {"removed", event.removed},
                         {"changed", event.changed}};
  if (event.error) line["error"] = event.error->description;
  print(line);
}

volatile std::sig_atomic_t interrupted = 0;

int inspect_url(const arguments& asked) {
  axioms::jwks_config config = config_for(asked, asked.source());
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
  const std::optional<axioms::error> outage = manager.health().last_error;
  manager.shutdown();  // after which no event is shown any more
  if (set) {
    show(asked, (*set)->keys());
    // What was shown are the keys of before.
    return asked.watch && outage ? fail(asked, *outage) : 0;
  }
  if (set.error().code == axioms::errc::no_usable_key) {
    const auto again = key_set_url(asked).and_then([&](const std::string& url) { return fetch(asked, url); });
    if (again) return inspect_text(asked, again->body);
  }
  return fail(asked, set.error());
}

int lint(const arguments& asked) {
  const auto found = [&](std::vector<demo::finding> all) { return demo::show_findings(std::move(all), asked.json); };
  const auto too_large = [&](const axioms::error& why) {
    return why.code == axioms::errc::response_too_large ? found({{demo::severity::error, "size", why.description}})
                                                        : fail(asked, why);
  };
  demo::key_set_lint look_at({.allow_es256k = asked.es256k});
  if (!asked.sources.empty() && !is_url(asked.source())) {
    const auto text = file_text(asked.source());
    return text ? found(look_at(*text)) : too_large(text.error());
  }
  const auto url = key_set_url(asked);
  if (!url) return fail(asked, url.error());
  const auto response = fetch(asked, *url);
  if (!response) return too_large(response.error());
  auto all = look_at(response->body);
  for (auto& each : demo::lint_response(*response, *url)) all.push_back(std::move(each));
  return found(std::move(all));
}

int diff(const arguments& asked) {
  const auto before = keys_of(asked, asked.sources[0]);
  if (!before) return fail(asked, before.error());
  const auto after = keys_of(asked, asked.sources[1]);
  return after ? demo::show_difference(**before, **after, asked.json) : fail(asked, after.error());
}

axioms::result<axioms::verified_token> verify(const arguments& asked, const std::string& token) {
  axioms::token_rules rules{.issuer = asked.issuer, .audience = asked.audience, .any_audience = asked.any_audience};
  if (!asked.sources.empty() && !is_url(asked.source())) {
    return keys_of(asked, asked.source()).and_then([&](const auto& keys) {
      return axioms::verify_token(token, *keys, rules, std::chrono::system_clock::now());
    });
  }
  axioms::jwks_manager manager{fetcher_for(asked)};
  return manager.initialize(config_for(asked, asked.source())).and_then([&] {
    return axioms::token_verifier(manager, rules).verify(token);
  });
}

int inspect_token(const arguments& asked) {
  std::string token = asked.token;
  if (token == "-") std::getline(std::cin, token);
  const auto verdict = verify(asked, token);
  if (!verdict && asked.sources.empty() &&
      (verdict.error().code == axioms::errc::http_status || verdict.error().code == axioms::errc::not_a_key_set))
    std::cerr << "If the issuer has no metadata, name its key set as the last argument: a URL or a file\n";
  return demo::show_token(token, verdict, asked.json);
}

// It is installed under another name than that of the example.
std::string help_for(std::string_view program) {
  constexpr std::string_view installed = "axioms-jwks";
  program.remove_prefix(program.find_last_of("/\\") + 1);  // npos + 1 is 0
  std::string out(help);
  for (std::size_t at = 0; (at = out.find(installed, at)) != out.npos; at += program.size())
    out.replace(at, installed.size(), program);
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  arguments asked;
  if (const std::string wrong = read_arguments({argv + 1, argv + argc}, asked); !wrong.empty()) {
    const std::string all = help_for(argv[0]);
    std::cerr << wrong << "\n\n" << all.substr(0, all.find("\n\n") + 1) << "--help shows the rest.\n";
    return 2;
  }
  if (asked.help) {
    std::cout << help_for(argv[0]);
    return 0;
  }
  if (asked.version) {
    std::cout << "axioms-jwks " << AXIOMS_JWKS_VERSION << '\n';
    return 0;
  }
  if (asked.verify) return inspect_token(asked);
  if (asked.lint) return lint(asked);
  if (asked.diff) return diff(asked);
  if (asked.source().empty() || is_url(asked.source())) return inspect_url(asked);
  const auto text = file_text(asked.source());
  return text ? inspect_text(asked, *text) : fail(asked, text.error());
}
