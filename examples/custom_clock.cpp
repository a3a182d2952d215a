// Your own clock: any type that models axioms::clock_source. This one runs a thousand times as fast as the wall, so a
// day of refreshes can be watched in a minute and a half; a test would move its clock by hand. It takes two seconds.
#include "axioms_jwks.hpp"

#include <iostream>

// [readme]
struct fast_clock {
  using steady = std::chrono::steady_clock;
  static constexpr int factor = 1000;
  steady::time_point origin = steady::now();

  steady::time_point now() const { return origin + (steady::now() - origin) * factor; }
  std::chrono::system_clock::time_point system_now() const { return std::chrono::system_clock::now(); }

  template <class Ready>
  bool wait_until(std::unique_lock<std::mutex>& lock, std::condition_variable_any& changed, axioms::stop_token stop,
                  steady::time_point deadline, Ready ready) const {
    const auto real = deadline == steady::time_point::max() ? deadline : origin + (deadline - origin) / factor;
    return axioms::wait_until(lock, changed, std::move(stop), real, std::move(ready));
  }
};
static_assert(axioms::clock_source<fast_clock>);
// [/readme]

int main() {
  // A provider that is always there; it counts what it is asked.
  const auto asked = std::make_shared<std::atomic<int>>(0);
  const auto provider = [asked](const axioms::fetch_request&,
                                const axioms::stop_token&) -> axioms::result<axioms::fetch_response> {
    ++*asked;
    axioms::fetch_response out;
    out.status = 200;
    out.body =
        R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"signing","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})";
    return out;
  };
  axioms::basic_jwks_manager manager(provider, fast_clock{});
  axioms::jwks_config config;
  config.jwks_url = "https://idp.example.com/jwks.json";
  config.refresh_interval = std::chrono::minutes(10);  // 0.6 s by the wall
  config.cache_ttl = std::chrono::minutes(20);
  config.fetch_timeout = std::chrono::minutes(5);  // also by this clock
  if (const auto ok = manager.initialize(config); !ok) return std::cerr << ok.error().description << '\n', 1;
  for (int i = 0; i < 1000 && *asked < 4; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::cout << *asked << " fetches; the set is " << manager.health().age.count() / 1000 << " s old by its own clock\n";
  return *asked >= 4 && manager.get_jwks() ? 0 : 1;
}
