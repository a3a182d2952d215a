// The blocking manager under load and at its bounds: what takes too long to be repeated 1,000 times. No socket, no sleep.
#include "support/rig.hpp"

#include <thread>

using namespace std::chrono_literals;
using axioms::errc, axioms::jwks_config, axioms::jwks_event;
using support::config_for, support::eventually, support::response, support::rig, support::url;

TEST_CASE("at most 64 looked-up URLs are kept, the least recently used goes first, configured ones stay") {
  rig r;
  r.start();
  const auto at = [](int i) { return "https://h" + std::to_string(i) + ".example.com/jwks"; };
  for (int i = 0; i < 64; ++i) {
    REQUIRE(r.manager.get_jwks(at(i)).has_value());
    r.clock.advance(2s);
  }
  REQUIRE(r.manager.get_jwks(at(0)).has_value());  // used again
  r.clock.advance(2s);
  REQUIRE(r.manager.get_jwks(at(64)).has_value());
  CHECK(r.manager.health(at(0)).ready);
  CHECK_FALSE(r.manager.health(at(1)).ready);
  CHECK(r.manager.health(at(2)).ready);
  CHECK(r.manager.health(url).ready);
  CHECK(r.manager.peek(at(64)).has_value());
}

TEST_CASE("the 65th looked-up URL is refused while 64 others wait for their fetch") {
  rig r;
  r.provider.hold();
  std::vector<std::future<axioms::result<axioms::jwks_ptr>>> calls;
  for (int i = 0; i < 64; ++i) calls.push_back(r.get("https://h" + std::to_string(i) + ".example.com/jwks"));
  r.settle(65);
  CHECK(r.manager.get_jwks(url).error().code == errc::throttled);
  CHECK(r.manager.stats().throttled == 1);
  r.provider.release();
  for (auto& call : calls) CHECK(call.get().has_value());
}

TEST_CASE("a slow listener delays nobody; what it cannot take is counted as dropped") {
  rig r;
  std::promise<void> go;
  auto gate = go.get_future().share();
  std::atomic<int> heard{0};
  auto config = config_for(url);
  config.on_event = [&, gate](const jwks_event&) {
    if (heard++ == 0) gate.wait();
  };
  r.start(config);
  REQUIRE(eventually([&] { return heard == 1; }));  // it sits in its first call
  for (int i = 0; i < 300; ++i) REQUIRE(r.manager.refresh().has_value());
  CHECK(r.manager.stats().events_dropped == 300 - 256);
  go.set_value();
  CHECK(eventually([&] { return heard == 257; }));
}

TEST_CASE("readers in many threads always see a whole document while it is replaced") {
  rig r;
  r.start();
  std::atomic<bool> over{false};
  std::vector<std::future<bool>> readers;
  for (int i = 0; i < 4; ++i) {
    readers.push_back(std::async(std::launch::async, [&] {
      std::uint64_t last = 0;
      bool good = true;
      while (!over) {
        const auto document = r.manager.get_jwks(url);
        good = good && document && (*document)->generation() >= last && (*document)->keys().size() == 1;
        if (document) last = (*document)->generation();
      }
      return good;
    }));
  }
  for (int i = 0; i < 50; ++i) CHECK(r.manager.refresh().has_value());
  over = true;
  for (auto& reader : readers) CHECK(reader.get());
}

TEST_CASE("bodies of 10 MB keep the old document and are a typed error") {
  rig r;
  r.start();
  const std::string big(10U << 20U, ' ');
  for (const char* what : {"", "{\"keys\":[", "[["}) {
    r.provider.push(response(200, what + big));
    CHECK(r.manager.refresh().error().code == errc::response_too_large);
    CHECK(r.manager.health().ready);
  }
}

TEST_CASE(
    "lookups, refreshes, adds, initialize and shutdown from many threads at once never hang, and lose no caller") {
  rig r;
  std::atomic<int> calls{0};
  std::vector<std::future<void>> users;
  for (int user = 0; user < 6; ++user) {
    users.push_back(std::async(std::launch::async, [&r, &calls, user] {
      for (int i = 0; i < 60; ++i) {
        const std::string where = url + std::to_string((user + i) % 5);
        switch ((user * 7 + i) % 6) {
          case 0: static_cast<void>(r.manager.initialize(config_for(url))); break;
          case 1: r.manager.shutdown(); break;
          case 2: static_cast<void>(r.manager.refresh(where)); break;
          case 3: static_cast<void>(r.manager.add(config_for(where))); break;
          case 4: static_cast<void>(r.manager.get_key(where, {.kid = "k" + std::to_string(i % 3)})); break;
          default: static_cast<void>(r.manager.get_jwks(where)); break;
        }
        static_cast<void>(r.manager.health(where));
        static_cast<void>(r.manager.stats());
        ++calls;
      }
    }));
  }
  for (auto& user : users) user.get();
  CHECK(calls == 6 * 60);
  r.manager.shutdown();
  CHECK(r.clock.waiting() == 0);
}
