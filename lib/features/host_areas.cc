// Kernel, privileges, files, network.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/features/areas.h"
#include "lib/launcher/id_maps.h"
#include "lib/sys/capability.h"
#include "lib/sys/open.h"

namespace caisson::features {
namespace {

constexpr size_t kMaxFile = 1 << 20;

struct Version {
  int major = 0;
  int minor = 0;
  std::string release;
  std::string machine;

  bool AtLeast(int wanted_major, int wanted_minor) const {
    return major > wanted_major ||
           (major == wanted_major && minor >= wanted_minor);
  }
};

Version KernelVersion() {
  utsname name = {};
  ::uname(&name);
  Version version;
  version.release = name.release;
  version.machine = name.machine;
  ::sscanf(name.release, "%d.%d", &version.major, &version.minor);
  return version;
}

// The text of a small file without white space around it; "" if it cannot be
// read.
std::string Read(const std::string& path) {
  auto text =
      sys::ReadFileAt(BorrowedFd(AT_FDCWD), path, /*resolve=*/0, kMaxFile);
  if (!text.ok()) return "";
  return std::string(absl::StripAsciiWhitespace(*text));
}

void Add(FeatureReport& report, absl::string_view area, absl::string_view name,
         bool available, std::string detail = "") {
  report.items.push_back(
      {std::string(area), std::string(name), available, std::move(detail)});
}

// ---- Privileges ------------------------------------------------------------

std::string WhyNoUserNamespace(const ProbeResult& result) {
  if (Read("/proc/sys/user/max_user_namespaces") == "0") {
    return "sysctl user.max_user_namespaces = 0; raise it";
  }
  if (Read("/proc/sys/kernel/unprivileged_userns_clone") == "0") {
    return "sysctl kernel.unprivileged_userns_clone = 0; set it to 1";
  }
  if (Read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1") {
    return "sysctl kernel.apparmor_restrict_unprivileged_userns = 1; give this "
           "program an AppArmor profile with \"userns,\"";
  }
  const bool born = result.clone == 0;
  return absl::StrCat(
      born ? "unshare(CLONE_NEWNS) in one: " : "clone(CLONE_NEWUSER): ",
      ErrnoText(born ? result.mount_namespace : result.clone),
      "; a seccomp filter or a security module forbids it, or this process is "
      "in a chroot");
}

void AddUserNamespaces(const ProbeResult& result, FeatureReport& report) {
  const bool works = result.clone == 0 && result.mount_namespace == 0;
  Add(report, "privileges", "user namespaces", works,
      works
          ? absl::StrCat("at most ", Read("/proc/sys/user/max_user_namespaces"))
          : WhyNoUserNamespace(result));
  const auto ids = launcher::FindSubordinates(::getuid(), launcher::IdFiles());
  std::string detail;
  if (ids.ok()) {
    for (const IdRange& range : ids->users) {
      absl::StrAppend(&detail, detail.empty() ? "" : ", ", range.count,
                      " users from ", range.outside);
    }
    if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) {
      absl::StrAppend(&detail,
                      "; but this process has no_new_privs set, with which "
                      "newuidmap cannot work");
    }
  }
  Add(report, "privileges", "subordinate ids", ids.ok(),
      ids.ok() ? detail : std::string(ids.status().message()));
}

// ---- Files -----------------------------------------------------------------

// Of a call that was tried; a call that was not, because an earlier one failed.
std::string TriedText(int error, absl::string_view call) {
  if (error == 0) return "";
  if (error == kNotTried) return "could not be tried, for what is said above";
  return absl::StrCat(call, ": ", ErrnoText(error));
}

std::string ModuleText(ModuleState state, absl::string_view module) {
  switch (state) {
    case ModuleState::kLoaded:
    case ModuleState::kUnknown:
      return "";
    case ModuleState::kBuiltIn:
      return "built in";
    case ModuleState::kLoadable:
      return absl::StrCat("module ", module, ", not loaded yet");
    case ModuleState::kMissing:
      return absl::StrCat("the kernel was built without ", module);
  }
  return "";
}

bool HasFileSystem(absl::string_view name) {
  const std::string text = Read("/proc/filesystems");
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, '\t');
    if (fields.back() == name) return true;
  }
  return false;
}

void AddOverlay(const Trial& trial, const Version& version,
                FeatureReport& report) {
  const ProbeResult& result = trial.result;
  if (result.overlay == kNotTried) {
    const bool loadable = trial.overlay == ModuleState::kLoadable;
    Add(report, "files", "overlay", loadable,
        loadable ? ModuleText(trial.overlay, "overlay")
                 : "not in /proc/filesystems");
    return;
  }
  Add(report, "files", "overlay", result.overlay == 0,
      TriedText(result.overlay, "fsopen(overlay)"));
  Add(report, "files", "overlay with user.* attributes",
      result.overlay_userxattr == 0,
      result.overlay_userxattr == 0 ? "for layers in a user namespace"
                                    : "needs Linux 5.11");
  Add(report, "files", "overlay layers by descriptor",
      result.overlay_by_fd == 0,
      result.overlay_by_fd == 0
          ? ""
          : absl::StrCat("needs Linux 6.13; ",
                         version.AtLeast(6, 5) ? "strings are used"
                                               : "13 to 15 layers at most"));
}

// ---- Network ---------------------------------------------------------------

// Whether an answer says that the kernel knows the kind of interface, whatever
// else it disliked.
bool Knows(int error) { return error != EOPNOTSUPP && error != kNotTried; }

bool AddModule(const char* name, ModuleState state, int tried,
               FeatureReport& report) {
  const bool available = state == ModuleState::kUnknown
                             ? Knows(tried)
                             : state != ModuleState::kMissing;
  std::string detail = ModuleText(state, name);
  if (state == ModuleState::kUnknown && !available) {
    detail = tried == kNotTried
                 ? "not known: there is no /lib/modules, and it cannot be tried"
                 : "the kernel was built without it";
  }
  Add(report, "network", name, available, std::move(detail));
  return available;
}

}  // namespace

void AddKernel(FeatureReport& report) {
  const Version version = KernelVersion();
  const bool supported = version.AtLeast(5, 15);
  Add(report, "kernel", "linux", supported,
      absl::StrCat(version.release, supported ? "" : "; 5.15 is the oldest"));
  const bool known =
      version.machine == "x86_64" || version.machine == "aarch64";
  Add(report, "kernel", "processor", known,
      absl::StrCat(version.machine,
                   known ? "" : "; x86_64 and aarch64 are supported"));
}

Trial AddPrivileges(FeatureReport& report) {
  Trial trial;
  trial.privileged = sys::HasCapability(CAP_SYS_ADMIN);
  Add(report, "privileges", "CAP_SYS_ADMIN", trial.privileged,
      trial.privileged
          ? absl::StrCat("user ", ::geteuid())
          : absl::StrCat("user ", ::geteuid(),
                         "; a launcher gets a user namespace instead"));
  trial.overlay = FindModule("overlay");
  trial.nf_tables = FindModule("nf_tables");
  ProbeOptions options;
  options.overlay = HasFileSystem("overlay");
  // Where nothing can be loaded, trying loads nothing.
  const auto unknown = [](const char* kind) {
    return FindModule(kind) == ModuleState::kUnknown;
  };
  options.nf_tables = unknown("nf_tables");
  if (unknown("veth")) {
    options.link_kinds.assign(std::begin(kLinkKinds), std::end(kLinkKinds));
  }
  const ProbeResult in_user_namespace = Probe(options);
  AddUserNamespaces(in_user_namespace, report);
  options.user_namespace = false;
  trial.result = trial.privileged ? Probe(options) : in_user_namespace;
  Add(report, "privileges", "time namespaces",
      ::access("/proc/self/ns/time", F_OK) == 0,
      ::access("/proc/self/ns/time", F_OK) == 0
          ? ""
          : "needs a kernel with CONFIG_TIME_NS");
  return trial;
}

void AddFiles(const Trial& trial, FeatureReport& report) {
  const Version version = KernelVersion();
  const ProbeResult& result = trial.result;
  Add(report, "files", "detached mounts", result.tmpfs == 0,
      TriedText(result.tmpfs, "fsopen(tmpfs), fsmount()"));
  Add(report, "files", "trees of detached mounts", result.clone_detached == 0,
      result.clone_detached == 0
          ? ""
          : "needs Linux 6.15: no writes into memory, no overlay without "
            "privileges, no overlay with mapped ids");
  AddOverlay(trial, version, report);
  const bool idmap = trial.privileged && version.AtLeast(5, 12);
  Add(report, "files", "idmapped mounts of the host's files", idmap,
      idmap ? "where the file system supports them"
            : "needs CAP_SYS_ADMIN over the file system");
}

void AddNetwork(const Trial& trial, FeatureReport& report) {
  const ProbeResult& result = trial.result;
  Add(report, "network", "network namespaces", result.net_namespace == 0,
      TriedText(result.net_namespace, "unshare(CLONE_NEWNET)"));
  bool kernel = true;
  for (size_t i = 0; i < std::size(kLinkKinds); ++i) {
    const int tried =
        i < result.links.size() ? result.links[i] : int{kNotTried};
    const bool there =
        AddModule(kLinkKinds[i], FindModule(kLinkKinds[i]), tried, report);
    if (i < 2) kernel = kernel && there;
  }
  // ENOENT or EINVAL: without nf_tables in nfnetlink.
  const bool nft_tried = result.nf_tables != kNotTried;
  kernel = AddModule("nf_tables", trial.nf_tables,
                     nft_tried && result.nf_tables != 0 ? EOPNOTSUPP
                                                        : result.nf_tables,
                     report) &&
           kernel;
  const bool admin = sys::HasCapability(CAP_NET_ADMIN);
  Add(report, "network", "bridge networks and published ports", kernel && admin,
      !admin   ? "needs CAP_NET_ADMIN: a container has loopback only, or the "
                 "host's network"
      : kernel ? ""
               : "needs bridge, veth and nf_tables");
}

}  // namespace caisson::features
