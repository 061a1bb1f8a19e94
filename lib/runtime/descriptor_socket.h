// What a runtime sends to UNIX sockets of its caller: one descriptor each.
#ifndef CAISSON_LIB_RUNTIME_DESCRIPTOR_SOCKET_H_
#define CAISSON_LIB_RUNTIME_DESCRIPTOR_SOCKET_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::runtime {

// Sends the master of a terminal to whoever listens at the socket `path`, as
// runc does ("--console-socket").
absl::Status SendTerminal(const std::string& path, BorrowedFd master);

// Sends the container process state, a document, with a seccomp listener to the
// agent at `path` (config-linux.md, "The Container Process State").
// DEADLINE_EXCEEDED if it does not take that.
absl::Status SendListener(const std::string& path, absl::string_view state,
                          BorrowedFd listener);

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_DESCRIPTOR_SOCKET_H_
