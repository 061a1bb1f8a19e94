// Prints the seccomp program of the default SecurityPolicy as the initializers
// of a C array of struct sock_filter, for the floor.
#include <iostream>

#include "caisson/security.h"

int main() {
  const auto policy = caisson::SecurityPolicy::Create({});
  if (!policy.ok()) {
    std::cerr << policy.status() << "\n";
    return 1;
  }
  for (const caisson::BpfInstruction& i : policy->seccomp_program()) {
    std::cout << "{" << i.code << ", " << static_cast<int>(i.jump_true) << ", "
              << static_cast<int>(i.jump_false) << ", " << i.k << "u},\n";
  }
}
