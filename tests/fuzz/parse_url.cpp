// Any text as a URL: what is accepted is in one normal form, which is accepted again and holds nothing that could end a
// request line.
#include "check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using axioms::detail::parse_url;
  const auto url = parse_url(fuzz::text_of(data, size));
  if (!url) {
    fuzz::check(url.error().code == axioms::errc::invalid_url || url.error().code == axioms::errc::unsupported_scheme,
                "a bad URL is an error about URLs");
    fuzz::check_shown(url.error());
    return 0;
  }
  fuzz::check(!url->host.empty() && url->port != 0, "a URL has a host and a port");
  fuzz::check(!url->target.empty() && url->target.front() == '/', "what is requested starts with a slash");
  fuzz::check(url->normalized.size() <= axioms::detail::max_url_bytes, "the normal form is not too long");
  for (const char c : url->normalized + url->target + url->authority())
    fuzz::check(c > 0x20 && c < 0x7f && c != '#', "no space, control byte or fragment is left");
  for (const char c : url->host) fuzz::check(c < 'A' || c > 'Z', "the host is lower case");
  fuzz::check(url->host.find('@') == std::string::npos, "no user-info is left");

  const auto again = parse_url(url->normalized);
  fuzz::check(again.has_value(), "the normal form is a URL");
  fuzz::check(again->normalized == url->normalized, "the normal form is its own");
  fuzz::check(again->https == url->https && again->ipv6 == url->ipv6 && again->host == url->host &&
                  again->port == url->port && again->target == url->target,
              "the normal form means the same");
  return 0;
}
