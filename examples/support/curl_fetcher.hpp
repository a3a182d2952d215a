// An axioms::fetcher over libcurl (7.85 or later): one deadline, stopped at once, a limit on the body while it comes, and
// no redirect to anything but https.
#ifndef AXIOMS_JWKS_EXAMPLES_CURL_FETCHER_HPP
#define AXIOMS_JWKS_EXAMPLES_CURL_FETCHER_HPP

#include "axioms_jwks.hpp"

#include <curl/curl.h>

struct curl_fetcher {
  std::string ca_pem{};  // trusted in place of the system's certificates; empty: the system's
  std::string bearer{};  // a token for the origin that the application named, and for no other

  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request& request,
                                                    axioms::stop_token stop) const {
    const std::unique_ptr<CURLM, freed_by<curl_multi_cleanup>> multi(curl_multi_init());  // which a stop can wake
    const std::unique_ptr<CURL, freed_by<curl_easy_cleanup>> easy(curl_easy_init());
    std::unique_ptr<curl_slist, freed_by<curl_slist_free_all>> headers;
    for (const auto& line : {"Accept: " + request.accept, "If-None-Match: " + request.etag,
                             "If-Modified-Since: " + request.last_modified}) {  // libcurl sends none that is empty
      headers.reset(curl_slist_append(headers.release(), line.c_str()));
    }
    received got{.limit = request.max_body_bytes};
    const auto set = [&](CURLoption option, auto value) { curl_easy_setopt(easy.get(), option, value); };
    set(CURLOPT_URL, request.url.c_str());
    set(CURLOPT_HTTPHEADER, headers.get());
    set(CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>(request.timeout.count())));
    set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request.connect_timeout.count()));
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_FOLLOWLOCATION, 1L);
    set(CURLOPT_MAXREDIRS, 5L);
    set(CURLOPT_REDIR_PROTOCOLS_STR, "https");  // "http,https" would let a second redirect undo the first
    set(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
    curl_blob trusted{const_cast<char*>(ca_pem.data()), ca_pem.size(), CURL_BLOB_NOCOPY};
    if (!ca_pem.empty()) set(CURLOPT_CAINFO_BLOB, &trusted);
    set(CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075700
    set(CURLOPT_QUICK_EXIT, 1L);  // a stop must not wait for a resolver that hangs
#endif
    // To the host of the URL only: without CURLOPT_UNRESTRICTED_AUTH none of a redirect gets it.
    if (!bearer.empty() && of_origin(request)) {
      set(CURLOPT_HTTPAUTH, long{CURLAUTH_BEARER});
      set(CURLOPT_XOAUTH2_BEARER, bearer.c_str());
    }
    set(CURLOPT_WRITEDATA, &got);
    set(CURLOPT_WRITEFUNCTION, &received::take);

    curl_multi_add_handle(multi.get(), easy.get());
    int running = 1, left = 0;
    {
      const axioms::stop_callback wake(stop, [&] { curl_multi_wakeup(multi.get()); });
      while (running != 0 && !stop.stop_requested()) {
        curl_multi_perform(multi.get(), &running);
        if (running != 0) curl_multi_poll(multi.get(), nullptr, 0, 1000, nullptr);
      }
    }
    const CURLMsg* done = curl_multi_info_read(multi.get(), &left);
    const CURLcode code = done != nullptr ? done->data.result : CURLE_ABORTED_BY_CALLBACK;
    long status = 0;
    curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
    got.response.status = static_cast<int>(status);
    for (curl_header* each = nullptr; (each = curl_easy_nextheader(easy.get(), CURLH_HEADER, -1, each)) != nullptr;) {
      got.response.headers.emplace_back(each->name, each->value);
    }
    curl_multi_remove_handle(multi.get(), easy.get());
    if (code == CURLE_OK) return std::move(got.response);
    return axioms::error{meaning(code, got.too_large), "fetch of " + request.url + ": " + curl_easy_strerror(code)};
  }

 private:
  template <auto Free>
  struct freed_by {
    void operator()(auto* object) const { Free(object); }
  };
  struct received {
    std::size_t limit = 0;
    axioms::fetch_response response{};
    bool too_large = false;

    static std::size_t take(char* data, std::size_t, std::size_t size, void* to) {
      auto& [limit, response, too_large] = *static_cast<received*>(to);
      too_large = size > limit - response.body.size();
      return too_large ? 0 : (response.body.append(data, size), size);
    }
  };
  // A jwks_uri may be anywhere, and what is there must not see the token.
  static bool of_origin(const axioms::fetch_request& request) {
    const auto end = request.url.find_first_of("/?", request.url.find("//") + 2);
    return request.origin.empty() || request.url.substr(0, end) == request.origin;
  }
  static axioms::errc meaning(CURLcode code, bool too_large) {
    using axioms::errc;
    switch (code) {
      case CURLE_ABORTED_BY_CALLBACK: return errc::cancelled;
      case CURLE_OPERATION_TIMEDOUT: return errc::timed_out;
      case CURLE_COULDNT_RESOLVE_HOST: return errc::resolve_failed;
      case CURLE_COULDNT_CONNECT: return errc::connect_failed;
      case CURLE_SSL_CONNECT_ERROR:
      case CURLE_PEER_FAILED_VERIFICATION: return errc::tls_failed;
      default: return too_large ? errc::response_too_large : errc::fetch_failed;
    }
  }
};

#endif
