// The demo issuer in a process of its own, for programs that count their threads: they run themselves again, with one argument, as the
// issuer. Not for production.
#ifndef AXIOMS_JWKS_EXAMPLES_ISSUER_PROCESS_HPP
#define AXIOMS_JWKS_EXAMPLES_ISSUER_PROCESS_HPP

#include "issuer.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <iostream>
#include <string>

extern char** environ;

namespace demo {

class issuer_process {
 public:
  /// Starts @p program, which has to call child() when it is given an argument.
  explicit issuer_process(const char* program) {
    int orders[2], answers[2];
    require(::pipe(orders) == 0 && ::pipe(answers) == 0, "make pipes");
    for (const int end : {orders[1], answers[0]}) require(::fcntl(end, F_SETFD, FD_CLOEXEC) == 0, "keep a pipe");
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, orders[0], STDIN_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, answers[1], STDOUT_FILENO);
    std::string name = program, argument = "issuer";
    char* const arguments[] = {name.data(), argument.data(), nullptr};
    const int failed = ::posix_spawn(&process_, program, &actions, nullptr, arguments, environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(orders[0]);
    ::close(answers[1]);
    orders_ = orders[1];
    answers_ = answers[0];
    require(failed == 0, "start its process");
    url_ = line();
    for (std::string next = line(); !next.empty(); next = line()) ca_pem_ += next + '\n';
  }
  ~issuer_process() {
    ::close(orders_);  // which is the order to end
    ::close(answers_);
    ::waitpid(process_, nullptr, 0);
  }
  issuer_process(const issuer_process&) = delete;
  issuer_process& operator=(const issuer_process&) = delete;

  const std::string& url() const { return url_; }
  const std::string& ca_pem() const { return ca_pem_; }
  /// "rotate KID", "stop" or "start"; returns when it is done.
  void say(const std::string& order) {
    const std::string text = order + '\n';
    require(::write(orders_, text.data(), text.size()) == static_cast<ssize_t>(text.size()), "be told");
    line();
  }

  static int child() {
    issuer mine;
    std::cout << mine.url() << '\n' << mine.ca_pem() << std::endl;
    for (std::string order; std::getline(std::cin, order);) {
      if (order.rfind("rotate ", 0) == 0) mine.rotate(order.substr(7));
      if (order == "stop") mine.stop();
      if (order == "start") mine.start();
      std::cout << "done" << std::endl;
    }
    return 0;
  }

 private:
  std::string line() {
    std::string out;
    for (char next = 0; ::read(answers_, &next, 1) == 1 && next != '\n';) out += next;
    return out;
  }

  pid_t process_ = 0;
  int orders_ = -1, answers_ = -1;
  std::string url_, ca_pem_;
};

}  // namespace demo

#endif
