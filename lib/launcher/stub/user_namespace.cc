#include "lib/launcher/stub/user_namespace.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/signal.h>
#include <linux/prctl.h>

#include "lib/launcher/protocol.h"
#include "lib/launcher/stub/syscall.h"

namespace caisson::launcher {
namespace {

constexpr int kGetFd = 1;  // F_GETFD

}  // namespace

bool InUserNamespace() { return Call(__NR_fcntl, kMountsFd, kGetFd, 0) >= 0; }

bool WaitForIdMaps() {
  Request mapped;
  long size;
  do {
    size = Call(__NR_read, kControlFd, &mapped, sizeof(mapped));
  } while (size == -EINTR);
  if (size != sizeof(mapped)) return false;
  // They brought the capabilities over the exec; now the rules for root hold.
  return Call(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) >=
         0;
}

bool CloneMountHelper() {
  const long pid = Call(__NR_clone, SIGCHLD, 0L, 0L, 0L, 0L);
  if (pid == 0) Call(__NR_dup3, kMountsFd, kControlFd, O_CLOEXEC);
  Call(__NR_close, kMountsFd);
  return pid == 0;
}

}  // namespace caisson::launcher
