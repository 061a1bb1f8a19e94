// Messages of the launcher to hosts.
#ifndef CAISSON_LIB_LAUNCHER_STUB_MESSAGE_H_
#define CAISSON_LIB_LAUNCHER_STUB_MESSAGE_H_

#include <stdint.h>

#include "lib/launcher/protocol.h"

// The compiler emits calls to these two.
extern "C" void* memset(void* to, int value, unsigned long size);
extern "C" void* memcpy(void* to, const void* from, unsigned long size);

namespace caisson::launcher {

inline constexpr int kMaxReceived = 253;  // SCM_MAX_FD

// Sends `message` with `count` descriptors; false if nobody can receive it any
// more.
bool Send(int socket, Message message, const int* fds = nullptr, int count = 0);

// What recvmsg(2) brought.
struct Received {
  Request request = {};
  int fds[kMaxReceived];
  int fd_count = 0;
  bool whole = false;  // nothing of it got lost
};

// False when nothing is left to read; *gone says that the host is.
bool Receive(int socket, Received& received, bool* gone);

void Close(int fd);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_MESSAGE_H_
