// Any text as an exported cache: what is taken is served, exported and taken again; nothing is fetched, and a second import
// changes nothing.
#include "check.hpp"
#include "support/fake_fetcher.hpp"
#include "support/manual_clock.hpp"

#include <nlohmann/json.hpp>

namespace {

using manager_type = axioms::basic_jwks_manager<support::fake_fetcher, support::manual_clock>;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  const support::manual_clock clock;
  const support::fake_fetcher provider;
  manager_type manager(provider, clock);
  const auto taken = manager.import_cache(text);
  if (!taken) fuzz::check_shown(taken.error());
  const std::size_t count = taken.value_or(0);

  const std::string out = manager.export_cache();
  const auto written = nlohmann::json::parse(out, nullptr, false);
  fuzz::check(written.is_object() && written["documents"].is_array(), "an export is one, also of nothing");
  // A younger one may take the place of one that is too old to be served: both were taken.
  const std::size_t kept = written["documents"].size();
  fuzz::check(kept <= count && (kept > 0) == (count > 0), "what was taken is exported");
  fuzz::check(kept <= 64, "no more URLs than looked-up ones");
  for (const auto& document : written["documents"]) {
    const auto url = document.at("url").get<std::string>();
    const auto parsed = axioms::detail::parse_url(url);
    fuzz::check(parsed.has_value() && parsed->normalized == url, "by its normal URL");
    const auto keys = axioms::jwk_set::parse(document.at("body").get_ref<const std::string&>());
    fuzz::check(keys.has_value() && !keys->held_secrets(), "with keys and without secrets");
    for (const char* name : {"etag", "last_modified"})
      fuzz::check(axioms::detail::is_header_safe(document.at(name).get_ref<const std::string&>()),
                  "a validator can be sent back in a request");
    if (const auto served = manager.peek(url)) {
      fuzz::check(
          (*served)->keys().size() == keys->size() && (*served)->body() == document.at("body").get<std::string>(),
          "what is served is what is exported");
      fuzz::check((*served)->fetched_at() <= clock.now(), "no document is from the future");
    }
  }
  const auto again = manager.import_cache(text);
  fuzz::check(again.value_or(0) == 0 && manager.export_cache() == out, "a second import changes nothing");

  manager_type other(provider, clock);
  fuzz::check(other.import_cache(out).value_or(kept + 1) == kept && other.export_cache() == out,
              "what is exported can be imported, and is the same then");
  fuzz::check(provider.requests() == 0, "nothing is fetched");
  return 0;
}
