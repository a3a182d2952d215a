// What a server with protected routes answers: ask_token_server PROGRAM runs PROGRAM ISSUER PORT, with the demo issuer
// (http, on loopback) and a free port, sends requests with good and bad tokens, prints what came, and ends the program.
// The issuer is down at first. Exit code: 0 if each answer is the expected one.
#include "issuer.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <csignal>

extern char** environ;

namespace {

int free_port() {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  demo::require(::bind(descriptor, any, size) == 0 && ::getsockname(descriptor, any, &size) == 0, "find a free port");
  ::close(descriptor);
  return ntohs(address.sin_port);
}

class server {
 public:
  server(char* program, std::string issuer) : port_(free_port()) {
    std::string port = std::to_string(port_);
    char* const arguments[] = {program, issuer.data(), port.data(), nullptr};
    demo::require(::posix_spawn(&process_, program, nullptr, nullptr, arguments, environ) == 0, "start the server");
  }
  ~server() { end(); }
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  bool runs() {
    if (process_ != 0 && ::waitpid(process_, nullptr, WNOHANG) == process_) process_ = 0;
    return process_ != 0;
  }
  /// Whether it ran until now, and ended because it was told to.
  bool end() {
    if (!runs()) return false;
    int status = 0;
    ::kill(process_, SIGTERM);
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {}
    process_ = 0;
    return WIFSIGNALED(status) ? WTERMSIG(status) == SIGTERM : WEXITSTATUS(status) == 0;
  }
  httplib::Result ask(bool deletes, const std::string& authorization) const {
    httplib::Client client("127.0.0.1", port_);
    httplib::Headers headers;
    if (!authorization.empty()) headers.emplace("Authorization", authorization);
    return deletes ? client.Delete("/orders", headers) : client.Get("/orders", headers);
  }
  /// Asks until that status comes, for half a minute at most.
  httplib::Result ask_until(int status, const std::string& authorization) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    for (;;) {
      auto answer = ask(false, authorization);
      if ((answer && answer->status == status) || !runs() || std::chrono::steady_clock::now() > end) return answer;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

 private:
  const int port_;
  pid_t process_ = 0;
};

int wrong = 0;
void show(const char* request, int expected, const httplib::Result& answer) {
  const int status = answer ? answer->status : 0;
  const std::string challenge = answer ? answer->get_header_value("WWW-Authenticate") : std::string();
  const bool good = status == expected && challenge.empty() == (status != 401 && status != 403);
  const std::string more = status == 200 ? answer->body : challenge;
  std::printf("%-26s %d%s%s%s\n", request, status, more.empty() ? "" : " ", more.c_str(), good ? "" : "  <- WRONG");
  wrong += good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: ask_token_server PROGRAM\n");
    return 2;
  }
  demo::issuer issuer(demo::issuer::transport::http);
  ::setenv("no_proxy", "127.0.0.1", 1);  // the issuer is on this machine
  const auto bearer = [&](const std::string& members) { return "Bearer " + issuer.token(members); };
  const std::string ours = R"("aud":"https://api.example.com","sub":"alice")";
  const std::string good = bearer(ours + R"(,"scope":"orders:read orders:write")");
  std::string altered = good;
  altered[good.rfind('.') + 9] = altered[good.rfind('.') + 9] == 'A' ? 'B' : 'A';

  issuer.stop();
  server asked(argv[1], issuer.name());
  show("GET, the issuer is down", 503, asked.ask_until(503, good));
  issuer.start();
  show("GET, it is up", 200, asked.ask_until(200, good));
  show("GET without a token", 401, asked.ask(false, ""));
  show("GET, for another service", 401, asked.ask(false, bearer(R"("aud":"https://other.example.com")")));
  show("GET, the signature altered", 401, asked.ask(false, altered));
  show("GET, expired", 401, asked.ask(false, bearer(ours + R"(,"exp":1700000000)")));
  show("GET without the scope", 403, asked.ask(false, bearer(ours + R"(,"scope":"orders:write")")));
  show("DELETE without the role", 403, asked.ask(true, good));
  show("DELETE with it", 200, asked.ask(true, bearer(ours + R"(,"roles":["admin"])")));
  if (!asked.end()) {
    std::printf("the server did not end well\n");
    ++wrong;
  }
  return wrong == 0 ? 0 : 1;
}
