// Runs a fuzz target over its corpus without libFuzzer: every file of the directories that it is given, and what is left
// of each when it is cut off at up to 64 places.
#include "check.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>

namespace {

// From a buffer of exactly that size, so that AddressSanitizer sees a read past its end.
void run(std::string_view text) {
  const std::vector<std::uint8_t> bytes(text.begin(), text.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t files = 0, cuts = 0;
  for (int i = 1; i < argc; ++i) {
    for (const auto& each : std::filesystem::directory_iterator(argv[i])) {
      std::printf("%s\n", each.path().filename().string().c_str());
      std::fflush(stdout);  // the last one shown is the one that failed
      std::ifstream file(each.path(), std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(file), {}};
      run(text);
      ++files;
      const std::size_t step = text.size() / 64 + 1;
      for (std::size_t size = 0; size < text.size(); size += step, ++cuts) run(std::string_view(text).substr(0, size));
    }
  }
  std::printf("%zu files, %zu cut off\n", files, cuts);
  return files > 0 ? 0 : 1;
}
