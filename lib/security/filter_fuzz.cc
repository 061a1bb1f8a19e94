// Any profile: the program that it is compiled to does what the profile says,
// for calls near what it decides about.
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <vector>

#include "lib/security/bpf_machine.h"
#include "lib/security/filter_compiler.h"
#include "lib/security/profile_table.h"
#include "lib/security/random_profile.h"

namespace {

using ::caisson::SeccompProfile;
using ::caisson::security::Architecture;

constexpr size_t kMaxInput = 4096;
constexpr int kCalls = 16;
constexpr int kMaxSteps = 4096;

void Require(bool condition) {
  if (!condition) abort();
}

// Choices that the input makes; 0 once it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t Choose(uint64_t bound) {
    uint64_t value = 0;
    for (uint64_t reach = 1; reach < bound && at_ < size_; reach <<= 8) {
      value = value << 8 | data_[at_++];
      if (reach > bound >> 8) break;
    }
    return value % bound;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

}  // namespace

// One profile covers thousands of features, whose statistics would take nine
// tenths of the time.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  static std::vector<char*> arguments(*argv, *argv + *argc);
  static char entropic[] = "-entropic=0";
  arguments.insert(arguments.begin() + 1, entropic);
  *argc = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  *argv = arguments.data();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > kMaxInput) return 0;
  Input input(data, size);
  const auto choose = [&input](uint64_t bound) { return input.Choose(bound); };
  const Architecture architecture =
      choose(2) == 0 ? Architecture::kX86_64 : Architecture::kAarch64;
  const SeccompProfile profile =
      caisson::security::RandomProfile(choose, architecture);
  const auto made = caisson::security::MakeProfileTable(architecture, profile);
  Require(made.ok());
  const auto program = caisson::security::CompileTable(made->table);
  for (int i = 0; i < kCalls; ++i) {
    const seccomp_data call =
        caisson::security::RandomCall(choose, architecture, profile);
    const auto result = caisson::security::RunFilter(program, call);
    Require(!result.broken && result.steps <= kMaxSteps);
    Require(result.value ==
            caisson::security::Interpret(architecture, profile, call));
  }
  return 0;
}
