// The one TU that holds doctest and main(). `--repeat=N` runs everything N times in this process and stops at the first failure.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

int main(int argc, char** argv) {
  long times = 1;
  constexpr std::string_view option = "--repeat=";
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).substr(0, option.size()) == option)
      times = std::strtol(argv[i] + option.size(), nullptr, 10);
  }
  const auto start = std::chrono::steady_clock::now();
  for (long run = 1; run <= times; ++run) {
    doctest::Context context(argc, argv);
    if (times > 1) context.setOption("minimal", run > 1);  // failures only
    const int failed = context.run();
    if (failed != 0 && times > 1) std::printf("run %ld of %ld failed\n", run, times);
    if (failed != 0 || context.shouldExit()) return failed;
  }
  const auto spent =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start).count();
  if (times > 1) std::printf("%ld of %ld runs passed in %lld ms\n", times, times, static_cast<long long>(spent));
  return 0;
}
