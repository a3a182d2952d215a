// Runs a program with an issuer beside it: with_issuer PROGRAM [ARGUMENT...] starts the demo issuer on loopback (http),
// runs PROGRAM with the URL of its key set as last argument, and returns its exit code. Before PROGRAM may stand:
//   --rotate   the issuer exchanges a key as soon as somebody has fetched its set
//   --name     the last argument is the issuer's name, for programs that find the key set by themselves
//   --token M  the environment variable TOKEN is a token with the members M beside iss, iat and, if M has none, exp
#include "issuer.hpp"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>

#include <spawn.h>
#include <sys/wait.h>

extern char** environ;

int main(int argc, char** argv) {
  const auto option = [&](std::string_view name) {
    const bool given = argc > 1 && argv[1] == name;
    if (given) ++argv, --argc;
    return given;
  };
  const bool rotate = option("--rotate");
  const bool by_name = option("--name");
  const bool with_token = option("--token");
  if (argc < (with_token ? 3 : 2)) {
    std::fprintf(stderr, "usage: with_issuer [--rotate] [--name] [--token MEMBERS] PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  std::signal(SIGINT, [](int) {});  // which is meant for the program
  demo::issuer issuer(demo::issuer::transport::http);
  ::setenv("no_proxy", "127.0.0.1", 1);  // the issuer is on this machine
  if (with_token) {
    ::setenv("TOKEN", issuer.token(argv[1]).c_str(), 1);
    --argc, ++argv;
  }
  std::string url = by_name ? issuer.name() : issuer.url();
  std::vector<char*> arguments(argv + 1, argv + argc);
  arguments.push_back(url.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  if (::posix_spawn(&child, argv[1], nullptr, nullptr, arguments.data(), environ) != 0) {
    std::fprintf(stderr, "with_issuer: cannot run %s\n", argv[1]);
    return 2;
  }
  std::atomic<bool> over{false};
  std::thread rotation([&] {
    while (rotate && !over && issuer.asked().all() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (rotate) issuer.rotate("2026-03");
  });
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  over = true;
  rotation.join();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
