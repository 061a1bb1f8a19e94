#include "lib/cgroup/kill.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/freeze.h"
#include "lib/cgroup/tree.h"
#include "lib/cgroup/wait_event.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "lib/sys/pidfd_open.h"

namespace caisson::cgroup {
namespace {

constexpr char kKill[] = "cgroup.kill";
constexpr char kType[] = "cgroup.type";
constexpr char kPidsMax[] = "pids.max";
constexpr char kFreeze[] = "cgroup.freeze";

// Descriptors that the killing of a group on v1 takes at most.
constexpr size_t kBatch = 128;

// v2: how long what cgroup.kill signalled may take to end before the listed
// processes are killed one by one, at first.
constexpr absl::Duration kPatience = absl::Milliseconds(20);

// What a freeze may take before killing begins anyway.
constexpr absl::Duration kMaxFreeze = absl::Milliseconds(200);

absl::Status NotDead(const Filesystem& filesystem, const Dir& group,
                     const ForkBarrier& barrier, const Deadline& deadline) {
  auto pids = ListProcesses(filesystem, group);
  std::string who = "processes that cannot be listed";
  if (pids.ok() && !pids->empty()) {
    const size_t shown = std::min<size_t>(pids->size(), 10);
    who =
        absl::StrCat(pids->size(), " of its processes (pid ",
                     absl::StrJoin(pids->begin(), pids->begin() + shown, ", "),
                     shown < pids->size() ? ", ..." : "", ")");
  }
  std::string why =
      "such a process is in uninterruptible sleep (state D in /proc/PID/stat), "
      "frozen, or in another PID namespace";
  if (barrier.freezer != nullptr) {
    const std::string above = FrozenAncestorV1(filesystem, *barrier.freezer);
    if (!above.empty()) {
      why =
          absl::StrCat("they die when ", above, " is thawed, which is frozen");
    }
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "kill(", Quoted(group.path), "): ", who, " did not end within ",
      absl::FormatDuration(deadline.timeout()), " of SIGKILL; ", why));
}

bool HasErrno(const absl::Status& status, int error) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == error;
}

// Pidfds of processes that were members of the group while they were open.
class Batch final {
 public:
  // Opens the next processes of `pids` from `next` on and moves it.
  absl::Status Open(const std::vector<pid_t>& pids, size_t& next) {
    for (; next < pids.size() && members_.size() < kBatch; ++next) {
      auto fd = sys::OpenPidfd(pids[next]);
      const auto detail = GetErrorDetail(fd.status());
      const int error = detail.has_value() ? detail->error : 0;
      if (fd.ok()) {
        members_.push_back({pids[next], *std::move(fd)});
      } else if (!members_.empty() && (error == EMFILE || error == ENFILE)) {
        break;  // fewer at a time
      } else if (error != ESRCH && error != EINVAL) {
        return WithStep(fd.status(), "cgroup.kill");
      }
    }
    return absl::OkStatus();
  }

  // Signals those that `listed`, read after Open(), still has: whoever has such
  // a PID now is the process behind the pidfd, or that one has ended and the
  // signal goes nowhere.
  absl::Status Send(const std::vector<pid_t>& listed, int signal) {
    members_.erase(std::remove_if(members_.begin(), members_.end(),
                                  [&](const Member& member) {
                                    return !std::binary_search(listed.begin(),
                                                               listed.end(),
                                                               member.pid);
                                  }),
                   members_.end());
    for (const Member& member : members_) {
      const absl::Status status = sys::SendSignal(member.fd.borrow(), signal);
      if (!status.ok() && !HasErrno(status, ESRCH)) {
        return WithStep(status, "cgroup.kill");
      }
    }
    return absl::OkStatus();
  }

  // Waits until those have ended or the deadline has passed.
  void Wait(const Deadline& deadline) {
    std::vector<pollfd> polls;
    // Nobody to wait for: the listed ones ended by themselves, or they cannot
    // be seen from here. No event tells the two apart.
    if (members_.empty()) deadline.Poll({}, absl::Milliseconds(1));
    for (const Member& member : members_) {
      polls.push_back({.fd = member.fd.get(), .events = POLLIN});
    }
    while (!polls.empty() && !deadline.expired()) {
      deadline.Poll(absl::MakeSpan(polls));
      polls.erase(
          std::remove_if(polls.begin(), polls.end(),
                         [](const pollfd& p) { return p.revents != 0; }),
          polls.end());
    }
  }

 private:
  struct Member {
    pid_t pid;
    UniqueFd fd;
  };
  std::vector<Member> members_;
};

// Stops the group, if there is a freezer and nothing else that stops forks.
// Best effort: a process in uninterruptible sleep does not freeze.
absl::Status Freeze(const Filesystem& filesystem, const ForkBarrier& barrier,
                    const Deadline& deadline) {
  const Deadline soon(std::min(kMaxFreeze, deadline.timeout()));
  if (barrier.unified != nullptr) {
    // Linux before 5.2 cannot.
    (void)FreezeGroup(filesystem, CgroupVersion::kV2, *barrier.unified, soon);
    return absl::OkStatus();
  }
  if (barrier.freezer == nullptr || barrier.pids != nullptr) {
    return absl::OkStatus();
  }
  const absl::Status status =
      FreezeGroup(filesystem, CgroupVersion::kV1, *barrier.freezer, soon);
  return absl::IsDeadlineExceeded(status) ? absl::OkStatus() : status;
}

// A frozen process dies only when it thaws, on v1.
void Thaw(const Filesystem& filesystem, const ForkBarrier& barrier) {
  if (barrier.unified != nullptr) {
    (void)filesystem.Write(*barrier.unified, kFreeze, "0");
  }
  if (barrier.freezer != nullptr) ThawTreeV1(filesystem, *barrier.freezer);
}

// Sends the signal to each process that is listed. The last batch; none if
// nobody was listed.
absl::StatusOr<std::optional<Batch>> SendToListed(const Filesystem& filesystem,
                                                  const Dir& group,
                                                  int signal) {
  ASSIGN_OR_RETURN(const std::vector<pid_t> pids,
                   ListProcesses(filesystem, group));
  std::optional<Batch> batch;
  for (size_t next = 0; next < pids.size();) {
    batch.emplace();
    RETURN_IF_ERROR(batch->Open(pids, next));
    ASSIGN_OR_RETURN(const std::vector<pid_t> listed,
                     ListProcesses(filesystem, group));
    RETURN_IF_ERROR(batch->Send(listed, signal));
  }
  return batch;
}

// Sends one SIGKILL to each process that is listed, then waits for the last
// batch. False if there was none.
absl::StatusOr<bool> KillRound(const Filesystem& filesystem, const Dir& group,
                               const ForkBarrier& barrier,
                               const Deadline& deadline) {
  absl::Cleanup thaw = [&] { Thaw(filesystem, barrier); };
  RETURN_IF_ERROR(Freeze(filesystem, barrier, deadline));
  ASSIGN_OR_RETURN(std::optional<Batch> last,
                   SendToListed(filesystem, group, SIGKILL));
  if (!last) return false;
  std::move(thaw).Invoke();
  last->Wait(deadline);
  return true;
}

absl::Status CheckNoThreads(const Filesystem& filesystem, const Dir& group) {
  // Missing before Linux 4.14, which has no threaded groups.
  const auto type = filesystem.Read(group, kType);
  if (!type.ok() || !absl::StartsWith(*type, "threaded")) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::vector<pid_t> threads,
                   ListThreads(filesystem, CgroupVersion::kV2, group));
  if (threads.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "kill(", Quoted(group.path), "): the group is threaded and has ",
      threads.size(),
      " threads; SIGKILL would end the processes of which they are, in the "
      "group above: kill that one"));
}

}  // namespace

absl::Status KillUnified(const Filesystem& filesystem, const Dir& group,
                         const ForkBarrier& barrier, const Deadline& deadline) {
  const absl::Status status = filesystem.Write(group, kKill, "1");
  // Linux before 5.14 has no cgroup.kill; a threaded group refuses it.
  if (HasErrno(status, ENOENT) || HasErrno(status, EOPNOTSUPP)) {
    RETURN_IF_ERROR(CheckNoThreads(filesystem, group));
    return KillListed(filesystem, group, barrier, deadline);
  }
  RETURN_IF_ERROR(status);
  if (barrier.freezer != nullptr) ThawTreeV1(filesystem, *barrier.freezer);
  for (absl::Duration patience = kPatience;; patience *= 2) {
    const Deadline soon(std::min(patience, deadline.timeout()));
    ASSIGN_OR_RETURN(const bool dead,
                     WaitForEvent(filesystem, group, "populated", 0, soon));
    if (dead) break;
    if (deadline.expired()) {
      return NotDead(filesystem, group, barrier, deadline);
    }
    // The kernel signals the first thread of each process only (__cgroup_kill()
    // in kernel/cgroup/cgroup.c), which takes nothing once it has ended while
    // others run. A pidfd reaches them; and what they forked meanwhile is the
    // kernel's again.
    RETURN_IF_ERROR(
        KillRound(filesystem, group, {.unified = &group}, soon).status());
    RETURN_IF_ERROR(filesystem.Write(group, kKill, "1"));
  }
  // Who is put here later shall run.
  if (const auto frozen = filesystem.Read(group, kFreeze);
      frozen.ok() && absl::StartsWith(*frozen, "1")) {
    return filesystem.Write(group, kFreeze, "0");
  }
  return absl::OkStatus();
}

absl::Status KillListed(const Filesystem& filesystem, const Dir& group,
                        const ForkBarrier& barrier, const Deadline& deadline) {
  ASSIGN_OR_RETURN(const std::vector<pid_t> pids,
                   ListProcesses(filesystem, group));
  if (pids.empty()) {
    if (barrier.freezer != nullptr) ThawTreeV1(filesystem, *barrier.freezer);
    return absl::OkStatus();
  }
  std::string pids_max;
  if (barrier.pids != nullptr) {
    ASSIGN_OR_RETURN(pids_max, filesystem.Read(*barrier.pids, kPidsMax));
    RETURN_IF_ERROR(filesystem.Write(*barrier.pids, kPidsMax, "0"));
  }
  absl::Cleanup restore = [&] {
    if (barrier.pids != nullptr) {
      (void)filesystem.Write(*barrier.pids, kPidsMax, pids_max);
    }
  };
  for (;;) {
    ASSIGN_OR_RETURN(const bool any,
                     KillRound(filesystem, group, barrier, deadline));
    if (!any) return absl::OkStatus();
    if (deadline.expired())
      return NotDead(filesystem, group, barrier, deadline);
  }
}

absl::Status SignalListed(const Filesystem& filesystem, const Dir& group,
                          int signal) {
  return SendToListed(filesystem, group, signal).status();
}

}  // namespace caisson::cgroup
