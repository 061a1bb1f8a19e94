// The program of a keeper: descriptor 3 is a socket, on which it is told what
// to do.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/time/time.h"
#include "lib/base/deadline.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/keeper.h"
#include "lib/keeper/wire.h"

namespace caisson::keeper {
namespace {

constexpr int kSocket = 3;

sigset_t Termination() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  return signals;
}

// What the host had as its standard streams and signals is none of its
// business.
void LeaveHost() {
  ::prctl(PR_SET_NAME, "caisson-keeper");
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
  if (null > 3) ::close(null);
  const sigset_t termination = Termination();
  ::sigprocmask(SIG_SETMASK, &termination, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGXFSZ, SIG_IGN);  // a limit of the host's is a full disk
  ::signal(SIGCHLD, SIG_DFL);
  ::umask(022);
}

absl::Status Run() {
  UniqueFd starter(kSocket);
  ::fcntl(starter.get(), F_SETFD, FD_CLOEXEC);
  ASSIGN_OR_RETURN(Received received,
                   Await(starter.borrow(), Deadline(absl::Minutes(1))));
  Request request;
  if (!request.ParseFromString(received.bytes) || !request.has_start() ||
      received.descriptors.size() < 2) {
    return absl::InvalidArgumentError("no request to start");
  }
  KeeperTask task;
  task.request = request.start();
  task.starter = std::move(starter);
  // In the place of standard input: the kernel closes what a killed process has
  // open from the highest number down, so whoever finds the lock free finds the
  // rest gone, too.
  ::dup3(received.descriptors[0].get(), STDIN_FILENO, O_CLOEXEC);
  task.lock.reset(STDIN_FILENO);
  task.listening = std::move(received.descriptors[1]);
  received.descriptors.erase(received.descriptors.begin(),
                             received.descriptors.begin() + 2);
  const sigset_t termination = Termination();
  task.termination.reset(::signalfd(-1, &termination, SFD_CLOEXEC));
  task.streams = std::move(received.descriptors);
  ASSIGN_OR_RETURN(StoreDirectory store,
                   StoreDirectory::Open(task.request.store()));
  ASSIGN_OR_RETURN(ContainerDirectory directory, store.Find(task.request.id()));
  Keeper keeper(std::move(store), std::move(directory), std::move(task));
  keeper.Run();
  return absl::OkStatus();
}

}  // namespace
}  // namespace caisson::keeper

int main() {
  caisson::keeper::LeaveHost();
  return caisson::keeper::Run().ok() ? 0 : 1;
}
