// Control groups, security, processes.
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup_layout.h"
#include "caisson/unique_fd.h"
#include "lib/base/errno_error.h"
#include "lib/features/areas.h"
#include "lib/sys/open.h"

namespace caisson::features {
namespace {

// Debian 12's headers lack these.
constexpr long kSysLandlockCreateRuleset = 444;
constexpr unsigned kLandlockCreateRulesetVersion = 1;
constexpr uint32_t kSeccompRetUserNotif = 0x7fc00000;
// PIDFD_GET_INFO with the first version of its struct (Linux 6.13): 64 bytes.
struct PidfdInfo {
  uint64_t words[8];
};
constexpr unsigned long kPidfdGetInfo = _IOWR(0xFF, 11, PidfdInfo);
constexpr uint64_t kPidfdInfoExit = 1u << 3;

void Add(FeatureReport& report, absl::string_view area, absl::string_view name,
         bool available, std::string detail = "") {
  report.items.push_back(
      {std::string(area), std::string(name), available, std::move(detail)});
}

// The directory of the process's own group in `hierarchy`.
std::string OwnDirectory(const CgroupHierarchy& hierarchy) {
  return absl::StrCat(hierarchy.mount_point,
                      hierarchy.own_path == "/" ? "" : hierarchy.own_path);
}

void AddController(const CgroupLayout& layout, CgroupController controller,
                   FeatureReport& report) {
  const CgroupControllerInfo& info = layout.Find(controller);
  bool available = info.usable;
  std::string detail = info.reason;
  if (available) {
    const CgroupHierarchy& hierarchy =
        layout.hierarchies[static_cast<size_t>(info.hierarchy)];
    const std::string own = OwnDirectory(hierarchy);
    available = ::access(hierarchy.mount_point.c_str(), W_OK) == 0 ||
                ::access(own.c_str(), W_OK) == 0;
    detail = absl::StrCat("version ", static_cast<int>(hierarchy.version), ", ",
                          hierarchy.mount_point);
    if (!available) {
      absl::StrAppend(&detail, ": neither this nor the own group is writable ",
                      "for user ", ::geteuid(),
                      "; root has to make a group and give it away");
    }
  }
  Add(report, "cgroups",
      absl::StrCat(CgroupControllerName(controller), " controller"), available,
      std::move(detail));
}

// Whether this user may make groups below its own one in version 2.
void AddDelegation(const CgroupLayout& layout, FeatureReport& report) {
  constexpr char kName[] = "cgroup v2 delegation";
  const CgroupHierarchy* v2 = nullptr;
  for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
    if (hierarchy.version == CgroupVersion::kV2) v2 = &hierarchy;
  }
  if (v2 == nullptr) {
    Add(report, "cgroups", kName, false, "no cgroup2 file system is mounted");
    return;
  }
  const std::string own =
      absl::StrCat(v2->mount_point, v2->own_path == "/" ? "" : v2->own_path);
  for (const char* file : {"", "/cgroup.procs", "/cgroup.subtree_control"}) {
    const std::string path = own + file;
    if (::access(path.c_str(), W_OK) == 0) continue;
    Add(report, "cgroups", kName, false,
        absl::StrCat(path, " is not writable (", ErrnoName(errno),
                     ") for user ", ::geteuid(),
                     "; start the host by systemd-run --user --scope -p "
                     "Delegate=yes, or let root make and give away a group"));
    return;
  }
  Add(report, "cgroups", kName, true, absl::StrCat("below ", own));
}

std::string ReadLsms() {
  auto text = sys::ReadFileAt(BorrowedFd(AT_FDCWD), "/sys/kernel/security/lsm",
                              /*resolve=*/0, 4096);
  return text.ok() ? std::string(absl::StripAsciiWhitespace(*text)) : "";
}

}  // namespace

void AddCgroups(FeatureReport& report) {
  const auto layout = CgroupLayout::Detect();
  if (!layout.ok()) {
    Add(report, "cgroups", "cgroups", false,
        std::string(layout.status().message()));
    return;
  }
  Add(report, "cgroups", "cgroups", layout->mode != CgroupLayout::Mode::kNone,
      layout->Summary());
  for (const CgroupController controller :
       {CgroupController::kCpu, CgroupController::kMemory,
        CgroupController::kPids, CgroupController::kIo,
        CgroupController::kCpuset}) {
    AddController(*layout, controller, report);
  }
  AddDelegation(*layout, report);
}

void AddSecurity(FeatureReport& report) {
  const auto has_action = [](uint32_t action) {
    return ::syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
  };
  const bool filter = has_action(SECCOMP_RET_ERRNO);
  Add(report, "security", "seccomp filters", filter,
      filter ? "" : absl::StrCat("seccomp(): ", ErrnoText(errno)));
  const bool kill = has_action(SECCOMP_RET_KILL_PROCESS);
  Add(report, "security", "seccomp: kill the process", kill,
      kill ? "" : "needs Linux 4.14");
  const bool notify = has_action(kSeccompRetUserNotif);
  Add(report, "security", "seccomp: ask the host", notify,
      notify ? "" : "needs Linux 5.0");
  const long abi = ::syscall(kSysLandlockCreateRuleset, nullptr, 0,
                             kLandlockCreateRulesetVersion);
  Add(report, "security", "landlock", abi > 0,
      abi > 0 ? absl::StrCat("ABI ", abi)
      : errno == EOPNOTSUPP
          ? "switched off: add landlock to the boot parameter lsm="
          : "the kernel was built without it");
  const std::string modules = ReadLsms();
  Add(report, "security", "security modules", !modules.empty(),
      modules.empty() ? "not known: /sys/kernel/security is not mounted or "
                        "cannot be read"
                      : modules);
  const bool free = ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0;
  Add(report, "security", "set-user-ID programs", free,
      free ? "" : "this process has no_new_privs set");
}

void AddProcesses(FeatureReport& report) {
  const UniqueFd self(
      static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  Add(report, "processes", "pidfds", self.valid(),
      self.valid() ? "" : absl::StrCat("pidfd_open(): ", ErrnoText(errno)));
  PidfdInfo info = {};
  info.words[0] = kPidfdInfoExit;
  const bool known =
      self.valid() && ::ioctl(self.get(), kPidfdGetInfo, &info) == 0;
  Add(report, "processes", "pidfd information", known,
      known ? "" : "needs Linux 6.13 (exit status: 6.15)");
  const bool proc = ::access("/proc/thread-self/fd", F_OK) == 0;
  Add(report, "processes", "/proc of the host", proc,
      proc ? "" : "is not mounted; several calls need it");
}

}  // namespace caisson::features
