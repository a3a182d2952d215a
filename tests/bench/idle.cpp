// What a service pays that only holds one key set: threads, memory, and how often it wakes up.
//
//   idle               watches for a minute
//   idle SECONDS       for so long
//   idle --smoke       for a second
#include "axioms_jwks.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace {

struct from_memory {
  axioms::result<axioms::fetch_response> operator()(const axioms::fetch_request&, axioms::stop_token) const {
    axioms::fetch_response out;
    out.status = 200;
    out.body =
        R"({"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]})";
    return out;
  }
};

// The number after `name:` in a file of /proc, or -1.
long from_proc(const std::string& file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stol(line.substr(name.size() + 1));
  }
  return -1;
}
long wakes_of_others() {
  long sum = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (task.path().filename() == std::to_string(from_proc("/proc/self/status", "Pid"))) continue;
    sum += from_proc((task.path() / "status").string(), "voluntary_ctxt_switches");
  }
  return sum;
}
long threads() { return from_proc("/proc/self/status", "Threads"); }
long resident() { return from_proc("/proc/self/status", "VmRSS"); }

}  // namespace

int main(int argc, char** argv) {
  const bool smoke = argc > 1 && std::strcmp(argv[1], "--smoke") == 0;
  if (threads() < 0) return std::printf("no /proc here\n"), 0;
  // What OpenSSL takes for the first key of a process is not ours to count.
  if (!axioms::jwk_set::parse(from_memory()({}, {})->body)) return 1;
  const long before = resident();
  axioms::basic_jwks_manager<from_memory> manager;
  axioms::jwks_config config;
  config.jwks_url = "https://idp.example.com/jwks.json";
  if (!manager.initialize(config) || !manager.get_jwks()) return 1;
  // The thread of the first fetch ends by itself.
  for (int i = 0; threads() > 2 && i < 600; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  // The scheduler is woken once more, to join it.
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const long ours = threads() - 1, kilobytes = resident() - before, woken = wakes_of_others();
  const int seconds = smoke ? 1 : argc > 1 ? std::atoi(argv[1]) : 60;
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  const long wakes = wakes_of_others() - woken;
  std::printf("%ld thread of ours, %ld KiB of RSS more than before (%ld in all), woken %ld times in %d s\n", ours,
              kilobytes, resident(), wakes, seconds);
  return ours <= 1 && wakes <= seconds / 600 ? 0 : 1;  // a refresh in just under an hour, and the clock's slices
}
