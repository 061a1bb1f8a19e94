// Prints the seccomp program of the default SecurityPolicy: as the initializers
// of a C array of struct sock_filter, for the floor, or, with --oci, the names
// of the system calls that it allows as the `seccomp` object of an OCI runtime
// configuration, for other runtimes.
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/security.h"
#include "lib/security/capabilities.h"
#include "lib/security/default_profile.h"

namespace {

int PrintProgram() {
  const auto policy = caisson::SecurityPolicy::Create({});
  if (!policy.ok()) {
    std::cerr << policy.status() << "\n";
    return 1;
  }
  for (const caisson::BpfInstruction& i : policy->seccomp_program()) {
    std::cout << "{" << i.code << ", " << static_cast<int>(i.jump_true) << ", "
              << static_cast<int>(i.jump_false) << ", " << i.k << "u},\n";
  }
  return 0;
}

// Without the rules for arguments.
void PrintOci() {
  std::vector<std::string> names;
  for (const auto& group : caisson::security::AllowedGroups()) {
    if (group.capabilities != 0 &&
        (group.capabilities & caisson::security::DefaultCapabilities()) == 0) {
      continue;
    }
    for (const absl::string_view name : group.names) {
      names.push_back(absl::StrCat("\"", name, "\""));
    }
  }
  std::cout << R"({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [)"
            << absl::StrJoin(names, ", ")
            << R"(], "action": "SCMP_ACT_ALLOW"}]})"
            << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1) return PrintProgram();
  if (argc != 2 || std::string(argv[1]) != "--oci") {
    std::cerr << "usage: dump_policy [--oci]\n";
    return 2;
  }
  PrintOci();
  return 0;
}
