// A process that forks while another of its threads uses the header for the first time: what is made once must not be
// half made for ever in the child. Each round is a fresh process. Exits with 0 if no child hung.
#include "axioms_jwks.hpp"

#include <sys/wait.h>
#include <unistd.h>

namespace {

int status_of(pid_t child) {
  int status = 0;
  return ::waitpid(child, &status, 0) == child ? status : -1;
}

void use(int number) {
#if !defined(AXIOMS_JWKS_NO_HTTPLIB)
  if (number % 3 == 0) return static_cast<void>(axioms::default_jwks_manager());
#endif
  if (number % 3 == 1) static_cast<void>(axioms::detail::default_random());
  const axioms::detail::fork_gate inside;
}

void run_round(int number) {
  std::atomic<bool> begun{false};
  std::thread other([&] {
    begun = true;
    use(number);
  });
  while (!begun) {}
  for (std::atomic<int> pause{number / 3 % 64 * (number % 3 == 0 ? 200 : 10)}; pause-- > 0;) {}
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(10);
    use(number);
    ::_exit(0);
  }
  const int status = status_of(child);
  other.join();
  ::_exit(status == 0 ? 0 : 1);
}

}  // namespace

int main() {
  for (int i = 0; i < 1000; ++i) {
    const pid_t fresh = ::fork();
    if (fresh == 0) run_round(i);
    if (status_of(fresh) != 0) return 1;
  }
}
