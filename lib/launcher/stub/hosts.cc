#include "lib/launcher/stub/hosts.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/poll.h>
#include <asm/socket.h>
#include <linux/fcntl.h>

#include "lib/launcher/stub/child.h"
#include "lib/launcher/stub/children.h"
#include "lib/launcher/stub/detached.h"
#include "lib/launcher/stub/message.h"
#include "lib/launcher/stub/start.h"
#include "lib/launcher/stub/syscall.h"

namespace caisson::launcher {
namespace {

struct Host {
  int socket;
  uint32_t number;
  bool gone;  // its processes are being ended
};

Message g_hello;
Host g_hosts[kMaxHosts];
uint32_t g_host_count;
uint32_t g_hosts_so_far;
int g_listening = -1;
// Given up to take a host away that there is no descriptor for.
int g_spare = -1;

void Answer(const Received& received, MessageKind kind, RejectStage stage,
            long error) {
  Message answer = {};
  answer.kind = error == 0 ? kind : kRejected;
  answer.stage = stage;
  answer.error = static_cast<int32_t>(error);
  Send(received.fds[kChannelFd], answer);
}

// Keeps the descriptors behind the channel.
long Listen(const Received& received) {
  if (g_listening >= 0 || received.fd_count != 4) return EINVAL;
  long kept[3];
  for (int i = 0; i < 3; ++i) {
    kept[i] = Keep(received.fds[1 + i]);
    if (kept[i] >= 0) continue;
    const long error = -kept[i];
    while (i > 0) Close(static_cast<int>(kept[--i]));
    return error;
  }
  g_listening = static_cast<int>(kept[0]);
  SetRecordDirectory(static_cast<int>(kept[1]));
  // The third has a lock, which is held until the launcher's end, however that
  // comes.
  g_spare = static_cast<int>(Keep(g_listening));
  return 0;
}

void Detach(const Received& received, uint32_t host) {
  const Request& request = received.request;
  const long error =
      received.whole
          ? DetachChild(request.serial, host, request.name,
                        request.has_init != 0, received.fds + kFirstKeptFd,
                        received.fd_count - kFirstKeptFd)
          : EMFILE;
  Answer(received, kDetached, kStageDetach, error);
}

void Find(const Received& received) {
  const long error = received.whole ? FindChild(received.request.name,
                                                received.fds[kChannelFd])
                                    : EMFILE;
  // What was found has been sent.
  if (error != 0) Answer(received, kFound, kStageFind, error);
}

void Serve(Host& host) {
  Received received;
  bool gone = false;
  if (!Receive(host.socket, received, &gone)) {
    if (!gone) return;
    host.gone = true;
    AbandonAllOf(host.number);
    return;
  }
  received.request.name[kNameSize - 1] = '\0';
  const uint32_t kind = received.request.kind;
  if (kind == kAbandon) {
    Abandon(received.request.serial, host.number);
  } else if (received.fd_count > kChannelFd) {
    if (kind == kStart) StartProcess(received, host.number);
    if (kind == kDetach) Detach(received, host.number);
    if (kind == kFind) Find(received);
    if (kind == kRelease) {
      Answer(received, kReleased, kStageRelease,
             ReleaseChild(received.request.serial, host.number));
    }
    if (kind == kListen) {
      Answer(received, kListening, kStageListen,
             received.whole ? Listen(received) : EMFILE);
    }
  }
  for (int i = 0; i < received.fd_count; ++i) Close(received.fds[i]);
}

// A process below the launcher, which is PID 1 of a pid namespace, is one of a
// container, whatever the container can reach; all others have no number here.
bool IsHost(int socket) {
  struct {
    int pid;
    uint32_t uid;
    uint32_t gid;
  } peer = {};
  unsigned size = sizeof(peer);
  return Call(__NR_getsockopt, socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) ==
             0 &&
         peer.pid == 0;
}

// One that stayed in the queue would be reported again and again.
long AcceptWithSpare() {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  const long accepted = Call(__NR_accept4, g_listening, 0L, 0L, kFlags);
  if (accepted != -EMFILE && accepted != -ENFILE) return accepted;
  Close(g_spare);
  const long refused = Call(__NR_accept4, g_listening, 0L, 0L, kFlags);
  if (refused >= 0) Close(static_cast<int>(refused));
  g_spare = static_cast<int>(Keep(g_listening));
  return accepted;
}

void Accept() {
  const long accepted = AcceptWithSpare();
  if (accepted < 0) return;
  const long socket = IsHost(static_cast<int>(accepted))
                          ? Keep(static_cast<int>(accepted))
                          : -1;
  Close(static_cast<int>(accepted));
  if (socket >= 0) AddHost(static_cast<int>(socket));
}

}  // namespace

void SetHello(const Message& hello) { g_hello = hello; }

void AddHost(int socket) {
  if (g_host_count == kMaxHosts) {
    Message full = {};
    full.kind = kRejected;
    full.stage = kStageHosts;
    full.error = EAGAIN;
    Send(socket, full);
    return Close(socket);
  }
  g_hosts[g_host_count++] = {socket, ++g_hosts_so_far, /*gone=*/false};
  const int self = kSelfPidfd;
  Send(socket, g_hello, &self, 1);
}

uint32_t FillPolls(Poll* polls) {
  // One that is negative is left alone.
  polls[0] = {g_listening, POLLIN, 0};
  for (uint32_t i = 0; i < g_host_count; ++i) {
    polls[1 + i] = {g_hosts[i].gone ? -1 : g_hosts[i].socket, POLLIN, 0};
  }
  return 1 + g_host_count;
}

void ServeHosts(const Poll* polls, uint32_t count) {
  for (uint32_t i = 1; i < count; ++i) {
    if (polls[i].revents != 0) Serve(g_hosts[i - 1]);
  }
  if (polls[0].revents != 0) Accept();
}

void SettleHosts() {
  for (uint32_t i = 0; i < g_host_count;) {
    if (!g_hosts[i].gone || AnyChildOf(g_hosts[i].number)) {
      ++i;
      continue;
    }
    if (g_host_count > 1 || AnyDetached()) {
      Message goodbye = {};
      goodbye.kind = kGoodbye;
      Send(g_hosts[i].socket, goodbye);
    }
    Close(g_hosts[i].socket);
    g_hosts[i] = g_hosts[--g_host_count];
  }
  if (g_host_count > 0 || AnyDetached()) return;
  RemoveSocket();
  // What is left in its pid namespace, if it has one, ends with it.
  Exit(0);
}

}  // namespace caisson::launcher
