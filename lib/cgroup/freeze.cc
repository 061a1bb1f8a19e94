#include "lib/cgroup/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/tree.h"
#include "lib/cgroup/wait_event.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

constexpr char kFreeze[] = "cgroup.freeze";
constexpr char kEvents[] = "cgroup.events";
constexpr char kStateV1[] = "freezer.state";
constexpr char kSelfFreezingV1[] = "freezer.self_freezing";
constexpr char kParentFreezingV1[] = "freezer.parent_freezing";
constexpr char kFrozenV1[] = "FROZEN";
constexpr char kThawedV1[] = "THAWED";

// v1 has no event for "frozen".
constexpr absl::Duration kPollV1 = absl::Milliseconds(1);
// Rounds after which v1 is thawed for a moment: what it had stopped may be what
// the rest waits for.
constexpr int kRoundsV1 = 50;

absl::StatusOr<bool> Reads(const Filesystem& filesystem, const Dir& group,
                           absl::string_view file, absl::string_view want) {
  ASSIGN_OR_RETURN(const std::string text, filesystem.Read(group, file));
  return absl::StripSuffix(text, "\n") == want;
}

// The nearest group above `group` whose `file` reads "1"; empty if there is
// none that can be seen.
std::string AncestorThatFreezes(const Filesystem& filesystem, const Dir& group,
                                absl::string_view file) {
  Dir here = {UniqueFd(), group.path};
  int fd = group.fd.get();
  for (;;) {
    // The mount's root is where this file is missing, or the mount ends.
    here.fd = UniqueFd(sys::OpenAt2Raw(
        fd, "..", O_RDONLY | O_DIRECTORY,
        RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS));
    if (!here.fd.valid()) return "";
    fd = here.fd.get();
    here.path = here.path.substr(0, here.path.rfind('/'));
    const auto freezes = Reads(filesystem, here, file, "1");
    if (!freezes.ok()) return "";
    if (*freezes) return here.path;
  }
}

absl::Status KeptFrozen(const Dir& group, absl::string_view ancestor) {
  return absl::FailedPreconditionError(absl::StrCat(
      "thaw(", Quoted(group.path), "): the group itself is thawed, but ",
      ancestor.empty()
          ? "a group above it"
          : absl::StrCat("the group ", Quoted(ancestor), " above it"),
      " is frozen; thaw that"));
}

absl::Status NotFrozen(const Dir& group, const Deadline& deadline) {
  return absl::DeadlineExceededError(absl::StrCat(
      "freeze(", Quoted(group.path), "): not all processes stopped within ",
      absl::FormatDuration(deadline.timeout()),
      " and the group was thawed again; such a process is in uninterruptible "
      "sleep (state D in /proc/PID/stat), as a parent is in vfork(2)"));
}

absl::Status FreezeV2(const Filesystem& filesystem, const Dir& group,
                      const Deadline& deadline) {
  ASSIGN_OR_RETURN(const std::string before, filesystem.Read(group, kFreeze));
  RETURN_IF_ERROR(filesystem.Write(group, kFreeze, "1"));
  const auto frozen = WaitForEvent(filesystem, group, "frozen", 1, deadline);
  if (frozen.ok() && *frozen) return absl::OkStatus();
  if (!absl::StartsWith(before, "1")) {
    (void)filesystem.Write(group, kFreeze, "0");
  }
  return frozen.ok() ? NotFrozen(group, deadline) : frozen.status();
}

absl::Status FreezeV1(const Filesystem& filesystem, const Dir& group,
                      const Deadline& deadline) {
  ASSIGN_OR_RETURN(const bool own,
                   Reads(filesystem, group, kSelfFreezingV1, "1"));
  for (int round = 1;; ++round) {
    RETURN_IF_ERROR(filesystem.Write(group, kStateV1, kFrozenV1));
    // Reading makes the kernel look again whether all have stopped.
    ASSIGN_OR_RETURN(const bool frozen,
                     Reads(filesystem, group, kStateV1, kFrozenV1));
    if (frozen) return absl::OkStatus();
    if (deadline.expired()) break;
    if (round % kRoundsV1 == 0) {
      RETURN_IF_ERROR(filesystem.Write(group, kStateV1, kThawedV1));
    }
    deadline.Poll({}, kPollV1);
  }
  if (!own) (void)filesystem.Write(group, kStateV1, kThawedV1);
  return NotFrozen(group, deadline);
}

absl::Status ThawV2(const Filesystem& filesystem, const Dir& group,
                    const Deadline& deadline) {
  RETURN_IF_ERROR(filesystem.Write(group, kFreeze, "0"));
  const std::string above = AncestorThatFreezes(filesystem, group, kFreeze);
  if (!above.empty()) return KeptFrozen(group, above);
  ASSIGN_OR_RETURN(const bool thawed,
                   WaitForEvent(filesystem, group, "frozen", 0, deadline));
  if (thawed) return absl::OkStatus();
  return absl::DeadlineExceededError(
      absl::StrCat("thaw(", Quoted(group.path),
                   "): cgroup.events still says frozen 1 after ",
                   absl::FormatDuration(deadline.timeout()),
                   "; a group above what is mounted here may be frozen"));
}

absl::Status ThawV1(const Filesystem& filesystem, const Dir& group) {
  RETURN_IF_ERROR(filesystem.Write(group, kStateV1, kThawedV1));
  // There is no half-thawed state.
  ASSIGN_OR_RETURN(const bool kept,
                   Reads(filesystem, group, kParentFreezingV1, "1"));
  if (!kept) return absl::OkStatus();
  return KeptFrozen(group,
                    AncestorThatFreezes(filesystem, group, kSelfFreezingV1));
}

}  // namespace

absl::StatusOr<CgroupFreezeState> FreezeStateOf(const Filesystem& filesystem,
                                                CgroupVersion version,
                                                const Dir& group,
                                                GroupsAbove above) {
  if (version == CgroupVersion::kV1) {
    ASSIGN_OR_RETURN(const std::string state, filesystem.Read(group, kStateV1));
    if (absl::StartsWith(state, kFrozenV1)) return CgroupFreezeState::kFrozen;
    return absl::StartsWith(state, kThawedV1) ? CgroupFreezeState::kThawed
                                              : CgroupFreezeState::kFreezing;
  }
  ASSIGN_OR_RETURN(const std::string events, filesystem.Read(group, kEvents));
  ASSIGN_OR_RETURN(const int64_t frozen, FlatKeyedValue(events, "frozen"));
  if (frozen != 0) return CgroupFreezeState::kFrozen;
  ASSIGN_OR_RETURN(const bool own, Reads(filesystem, group, kFreeze, "1"));
  if (own || (above == GroupsAbove::kLook &&
              !AncestorThatFreezes(filesystem, group, kFreeze).empty())) {
    return CgroupFreezeState::kFreezing;
  }
  return CgroupFreezeState::kThawed;
}

absl::Status FreezeGroup(const Filesystem& filesystem, CgroupVersion version,
                         const Dir& group, const Deadline& deadline) {
  return WithStep(version == CgroupVersion::kV2
                      ? FreezeV2(filesystem, group, deadline)
                      : FreezeV1(filesystem, group, deadline),
                  "cgroup.freeze");
}

absl::Status ThawGroup(const Filesystem& filesystem, CgroupVersion version,
                       const Dir& group, const Deadline& deadline) {
  return WithStep(version == CgroupVersion::kV2
                      ? ThawV2(filesystem, group, deadline)
                      : ThawV1(filesystem, group),
                  "cgroup.thaw");
}

void ThawTreeV1(const Filesystem& filesystem, const Dir& group) {
  (void)WalkTree(
      filesystem, group,
      [&](const Dir& dir) {
        (void)filesystem.Write(dir, kStateV1, kThawedV1);
        return absl::OkStatus();
      },
      nullptr);
}

std::string FrozenAncestorV1(const Filesystem& filesystem, const Dir& group) {
  const auto kept = Reads(filesystem, group, kParentFreezingV1, "1");
  if (!kept.ok() || !*kept) return "";
  const std::string above =
      AncestorThatFreezes(filesystem, group, kSelfFreezingV1);
  return above.empty() ? "a group above what is mounted here" : Quoted(above);
}

}  // namespace caisson::cgroup
