// Compiles the default profile to classic BPF.
//
// libseccomp serves as the table of numbers only. Its own compiler cannot say
// what the profile says: an unassigned number and a forbidden one have
// different answers, one rule of ioctl is an exception from "allowed", and the
// newest calls are not in its tables. Nor can it join neighbouring numbers with
// the same answer into one comparison, so that its programs are several times
// as long; and the kernel checks, translates and tries a program out at every
// start of a process.
#ifndef CAISSON_LIB_SECURITY_FILTER_COMPILER_H_
#define CAISSON_LIB_SECURITY_FILTER_COMPILER_H_

#include <cstdint>
#include <vector>

#include "caisson/security.h"
#include "lib/security/syscall_numbers.h"

namespace caisson::security {

// The filter for processes with these capabilities, for all ways into a kernel
// of `architecture`. A seccomp_data::arch that such a kernel cannot have kills
// the process. Pure and thread-safe.
std::vector<BpfInstruction> CompileDefaultProfile(Architecture architecture,
                                                  uint64_t capabilities);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_FILTER_COMPILER_H_
