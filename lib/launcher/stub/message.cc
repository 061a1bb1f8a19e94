#include "lib/launcher/stub/message.h"

#include <asm/errno.h>
#include <asm/socket.h>

#include "lib/launcher/stub/syscall.h"

extern "C" void* memset(void* to, int value, unsigned long size) {
  char* bytes = static_cast<char*>(to);
  for (unsigned long i = 0; i < size; ++i) {
    bytes[i] = static_cast<char>(value);
    __asm__ volatile("" ::: "memory");
  }
  return to;
}

extern "C" void* memcpy(void* to, const void* from, unsigned long size) {
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
  for (unsigned long i = 0; i < size; ++i) {
    out[i] = in[i];
    __asm__ volatile("" ::: "memory");
  }
  return to;
}

namespace caisson::launcher {
namespace {

constexpr int kScmRights = 1;  // SCM_RIGHTS
constexpr int kMsgDontWait = 0x40;
constexpr int kMsgNoSignal = 0x4000;
constexpr int kMsgCmsgCloexec = 0x40000000;
constexpr int kMsgCtrunc = 0x8;

struct IoVec {
  const void* base;
  unsigned long size;
};

struct MsgHdr {
  void* name;
  int name_size;
  IoVec* iov;
  unsigned long iov_count;
  void* control;
  unsigned long control_size;
  int flags;
};

struct CmsgHdr {
  unsigned long size;
  int level;
  int type;
};

struct FdControl {
  CmsgHdr header;
  int fds[kMaxReceived + kMaxReceived % 2];
};

unsigned long Bytes(int fd_count) {
  return static_cast<unsigned long>(fd_count) * sizeof(int);
}

}  // namespace

bool Send(int socket, Message message, const int* fds, int count) {
  message.version = kProtocolVersion;
  IoVec iov = {&message, sizeof(message)};
  FdControl control;
  MsgHdr header = {};
  header.iov = &iov;
  header.iov_count = 1;
  if (count > 0) {
    control.header = {sizeof(CmsgHdr) + Bytes(count), SOL_SOCKET, kScmRights};
    memcpy(control.fds, fds, Bytes(count));
    header.control = &control;
    header.control_size = (control.header.size + 7) & ~7ul;
  }
  // A host that does not read its channel loses its messages.
  return Call(__NR_sendmsg, socket, &header, kMsgNoSignal | kMsgDontWait) >= 0;
}

bool Receive(int socket, Received& received, bool* gone) {
  FdControl control;
  IoVec iov = {&received.request, sizeof(received.request)};
  MsgHdr header = {};
  header.iov = &iov;
  header.iov_count = 1;
  header.control = &control;
  header.control_size = sizeof(control);
  const long size =
      Call(__NR_recvmsg, socket, &header, kMsgCmsgCloexec | kMsgDontWait);
  if (size == -EAGAIN || size == -EINTR) return false;
  if (size <= 0) {
    *gone = true;
    return false;
  }
  if (header.control_size >= sizeof(CmsgHdr) &&
      control.header.level == SOL_SOCKET && control.header.type == kScmRights) {
    received.fd_count =
        static_cast<int>((control.header.size - sizeof(CmsgHdr)) / sizeof(int));
    memcpy(received.fds, control.fds, Bytes(received.fd_count));
  }
  received.whole = (header.flags & kMsgCtrunc) == 0 &&
                   size == sizeof(received.request) &&
                   received.request.version == kProtocolVersion;
  return true;
}

void Close(int fd) { Call(__NR_close, fd); }

}  // namespace caisson::launcher
