// Compiles a table of decisions to classic BPF.
//
// libseccomp serves as the table of numbers only. Its own compiler cannot say
// what the default profile says: an unassigned number and a forbidden one have
// different answers, one rule of ioctl is an exception from "allowed", and the
// newest calls are not in its tables. Nor can it join neighbouring numbers with
// the same answer into one comparison, so that its programs are several times
// as long; and the kernel checks, translates and tries a program out at every
// start of a process.
#ifndef CAISSON_LIB_SECURITY_FILTER_COMPILER_H_
#define CAISSON_LIB_SECURITY_FILTER_COMPILER_H_

#include <vector>

#include "caisson/security.h"
#include "lib/security/filter_table.h"

namespace caisson::security {

// A binary search for the number, then for the value of the argument where one
// argument decides, or else condition by condition. Pure and thread-safe. The
// caller checks the length (BPF_MAXINSNS).
std::vector<BpfInstruction> CompileTable(const FilterTable& table);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_FILTER_COMPILER_H_
