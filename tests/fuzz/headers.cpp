// Any header lines, "name: value": the times that are read from them are within sane limits, and a date means the same when
// it is written anew.
#include "check.hpp"

namespace {

using namespace std::chrono;

// The preferred form of RFC 9110 section 5.6.7.
std::string http_date(system_clock::time_point when) {
  const auto day = floor<days>(when);
  const year_month_day date(day);
  const hh_mm_ss<seconds> time(floor<seconds>(when) - day);
  constexpr std::string_view names = "JanFebMarAprMayJunJulAugSepOctNovDec";
  char out[64];
  std::snprintf(out, sizeof out, "Sun, %02u %.3s %04d %02d:%02d:%02d GMT", static_cast<unsigned>(date.day()),
                names.substr((static_cast<unsigned>(date.month()) - 1) * 3, 3).data(), static_cast<int>(date.year()),
                static_cast<int>(time.hours().count()), static_cast<int>(time.minutes().count()),
                static_cast<int>(time.seconds().count()));
  return out;
}

void check_value(std::string_view value) {
  const auto delta = axioms::detail::parse_delta_seconds(value);
  fuzz::check(!delta || (*delta >= seconds(0) && *delta <= seconds(std::numeric_limits<std::int32_t>::max())),
              "seconds are not negative and saturated");
  const auto date = axioms::detail::parse_http_date(value, fuzz::now);
  if (!date) return;
  fuzz::check(*date >= system_clock::time_point{} && *date <= sys_days(year(2201) / 1 / 1), "a date is of our age");
  if (*date == sys_days(year(2201) / 1 / 1)) return;  // a leap second after the last year that is read
  fuzz::check(axioms::detail::parse_http_date(http_date(*date), fuzz::now) == date, "a date written anew is the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  axioms::fetch_response response;
  for (std::string_view rest = fuzz::text_of(data, size); !rest.empty();) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    const auto colon = std::min(line.find(':'), line.size());
    const auto value = axioms::detail::trim(line.substr(std::min(colon + 1, line.size())));
    check_value(value);
    response.headers.emplace_back(line.substr(0, colon), value);
  }
  constexpr seconds most = days(366) * 231;  // 1970 to 2200
  const auto fresh = axioms::detail::freshness_lifetime(response, fuzz::now);
  fuzz::check(!fresh || (*fresh > seconds(0) && *fresh <= most), "a freshness lifetime is positive and bounded");
  const auto later = axioms::detail::retry_after(response, fuzz::now);
  fuzz::check(!later || (*later >= seconds(0) && *later <= most), "a Retry-After is not negative and bounded");
  if (axioms::detail::iequals(response.header("Cache-Control"), "no-store"))
    fuzz::check(!fresh, "what must not be stored is not fresh");

  axioms::fetch_request request;
  request.url = "https://idp.example.com/jwks.json";
  request.etag = "\"1\"";
  for (const int status : {304, 503}) {
    response.status = status;
    const auto verdict = axioms::detail::judge(request, response, fuzz::now);
    for (const auto& validator : {verdict.etag, verdict.last_modified}) {
      fuzz::check(validator.size() <= 1024 && axioms::detail::is_header_safe(validator),
                  "a validator can be sent back in a request");
    }
    fuzz::check((verdict.what == axioms::detail::verdict::kind::not_modified) == (status == 304), "304 confirms");
    if (status != 304) fuzz::check_shown(verdict.why);
  }
  return 0;
}
