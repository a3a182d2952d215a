// Any text as an Authorization header: what is taken as a token is a part of it, of the characters that a token may have. The
// same text as what a challenge tells: it stays one header line.
#include "check.hpp"

#include <algorithm>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  const auto token = axioms::bearer_token(input);
  if (token) {
    fuzz::check(!token->empty() && token->data() >= input.data() &&
                    token->data() + token->size() <= input.data() + input.size(),
                "a token is a view into the header");
    fuzz::check(token->find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=") ==
                    std::string_view::npos,
                "a token is a b64token");
    const std::string_view before = input.substr(0, static_cast<std::size_t>(token->data() - input.data()));
    std::string scheme(axioms::detail::trim(before));
    for (char& c : scheme) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
    fuzz::check(scheme == "bearer" && (before.back() == ' ' || before.back() == '\t'), "the scheme is Bearer");
    const std::string anew = "Bearer " + std::string(*token);
    const auto again = axioms::bearer_token(anew);
    fuzz::check(again && *again == *token, "written anew it is the same");
  } else {
    const auto code = token.error().code;
    fuzz::check(code == axioms::errc::token_missing || code == axioms::errc::malformed_token,
                "it is none, or none at all");
    fuzz::check_shown(token.error());
    fuzz::check(token.error().status_code() == 401, "the client is asked for one");
  }
  for (const auto code :
       {axioms::errc::token_missing, axioms::errc::malformed_token, axioms::errc::insufficient_scope}) {
    const axioms::error why{code, std::string(input), 0};
    const std::string told =
        why.www_authenticate(axioms::challenge{.realm = input, .scope = input, .resource_metadata = input});
    fuzz::check(told.starts_with("Bearer") && axioms::detail::is_header_safe(told), "a challenge is one header line");
    fuzz::check(std::count(told.begin(), told.end(), '"') >= 2 || input.empty(), "its attributes are quoted");
  }
  return 0;
}
