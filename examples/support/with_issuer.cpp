// Runs a program with an issuer beside it: with_issuer PROGRAM [ARGUMENT...] starts the demo issuer on loopback (http),
// runs PROGRAM with the issuer's URL as its last argument, and returns its exit code.
#include "issuer.hpp"

#include <spawn.h>
#include <sys/wait.h>

extern char** environ;

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: with_issuer PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  const demo::issuer issuer(demo::issuer::transport::http);
  ::setenv("no_proxy", "127.0.0.1", 1);  // the issuer is on this machine
  std::string url = issuer.url();
  std::vector<char*> arguments(argv + 1, argv + argc);
  arguments.push_back(url.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  if (::posix_spawn(&child, argv[1], nullptr, nullptr, arguments.data(), environ) != 0) {
    std::fprintf(stderr, "with_issuer: cannot run %s\n", argv[1]);
    return 2;
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
