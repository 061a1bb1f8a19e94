#ifndef CAISSON_LIB_RUNTIME_CONSOLE_SOCKET_H_
#define CAISSON_LIB_RUNTIME_CONSOLE_SOCKET_H_

#include <string>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"

namespace caisson::runtime {

// Sends the master of a terminal to whoever listens at the UNIX socket `path`,
// as runc does ("--console-socket"): one message with one descriptor.
absl::Status SendTerminal(const std::string& path, BorrowedFd master);

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_CONSOLE_SOCKET_H_
