#include "caisson/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/namespace/sysctl.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

// Debian 12's headers lack it (Linux 5.6).
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

namespace caisson {
namespace {

struct Kind {
  NamespaceKind kind;
  absl::string_view name;
  int flag;
};

constexpr Kind kKinds[] = {
    {NamespaceKind::kMount, "mnt", CLONE_NEWNS},
    {NamespaceKind::kPid, "pid", CLONE_NEWPID},
    {NamespaceKind::kNet, "net", CLONE_NEWNET},
    {NamespaceKind::kIpc, "ipc", CLONE_NEWIPC},
    {NamespaceKind::kUts, "uts", CLONE_NEWUTS},
    {NamespaceKind::kUser, "user", CLONE_NEWUSER},
    {NamespaceKind::kCgroup, "cgroup", CLONE_NEWCGROUP},
    {NamespaceKind::kTime, "time", CLONE_NEWTIME},
};

const Kind& Find(NamespaceKind kind) {
  for (const Kind& k : kKinds) {
    if (k.kind == kind) return k;
  }
  return kKinds[0];
}

absl::string_view NameOfFlag(int flag) {
  for (const Kind& k : kKinds) {
    if (k.flag == flag) return k.name;
  }
  return "unknown";
}

// That `fd` is a namespace of `kind`; `what` names it.
absl::Status CheckKind(BorrowedFd fd, NamespaceKind kind,
                       absl::string_view what) {
  const int type = ::ioctl(fd.get(), NS_GET_NSTYPE);
  if (type < 0) {
    if (errno != ENOTTY) {
      return ErrnoError(errno, absl::StrCat("ioctl(", what, ", NS_GET_NSTYPE)"),
                        {.step = "namespaces"});
    }
    return absl::InvalidArgumentError(absl::StrCat(what, " is no namespace"));
  }
  if (type == Find(kind).flag) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is a namespace of kind ", NameOfFlag(type), ", not ",
                   Find(kind).name));
}

// __NEW_UTS_LEN
constexpr size_t kMaxHostname = 64;

absl::Status CheckUtsName(const NamespaceOptions& options,
                          absl::string_view field, const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  if (!options.uts.is_new()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "NamespaceOptions.", field, " needs a new uts namespace: setting it ",
        options.uts.is_joined() ? "would rename the other members"
                                : "would rename the host"));
  }
  if (name.size() > kMaxHostname) {
    return absl::InvalidArgumentError(
        absl::StrCat("NamespaceOptions.", field, " has ", name.size(),
                     " bytes; the kernel allows ", kMaxHostname));
  }
  for (const char c : name) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '.') {
      return absl::InvalidArgumentError(
          absl::StrCat("NamespaceOptions.", field, " ", Quoted(name),
                       " has a character that is not a letter, digit, '-' or "
                       "'.'"));
    }
  }
  if (name.front() == '-' || name.front() == '.') {
    return absl::InvalidArgumentError(
        absl::StrCat("NamespaceOptions.", field, " ", Quoted(name),
                     " begins with '", name.substr(0, 1), "'"));
  }
  return absl::OkStatus();
}

absl::Status CheckSources(const NamespaceOptions& options) {
  const struct {
    const char* field;
    NamespaceKind kind;
    const NamespaceSource& source;
    bool may_share;
  } sources[] = {
      {"mount", NamespaceKind::kMount, options.mount, false},
      {"pid", NamespaceKind::kPid, options.pid, false},
      {"ipc", NamespaceKind::kIpc, options.ipc, true},
      {"uts", NamespaceKind::kUts, options.uts, true},
      {"cgroup", NamespaceKind::kCgroup, options.cgroup, true},
      {"net", NamespaceKind::kNet, options.net, true},
      {"time", NamespaceKind::kTime, options.time, true},
  };
  for (const auto& s : sources) {
    const std::string field = absl::StrCat("NamespaceOptions.", s.field);
    if (s.source.is_joined()) {
      RETURN_IF_ERROR(CheckKind(s.source.ns(), s.kind, field));
    } else if (!s.source.is_new() && !s.may_share) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, " cannot be the host's: the ", s.field,
                       " namespace is new or joined"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTime(const NamespaceOptions& options) {
  if (options.time.is_new() ||
      (options.boottime_offset == absl::ZeroDuration() &&
       options.monotonic_offset == absl::ZeroDuration())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "NamespaceOptions.boottime_offset and monotonic_offset need a new time "
      "namespace");
}

absl::Status CheckUser(const NamespaceOptions& options) {
  if (!options.user.valid()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckKind(options.user.borrow(), NamespaceKind::kUser,
                            "NamespaceOptions.user"));
  if (options.ipc.kind() != NamespaceSource::Kind::kShareWithHost) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "NamespaceOptions.ipc is the host's, which NamespaceOptions.user has no "
      "rights in: /dev/mqueue could not be mounted");
}

absl::Status CheckSysctls(const NamespaceOptions& options) {
  const SysctlScope own = SysctlScopeOf(options);
  std::set<std::string> paths;
  for (const Sysctl& sysctl : options.sysctls) {
    ASSIGN_OR_RETURN(std::string path,
                     ValidateSysctl(sysctl.name, sysctl.value, own));
    if (!paths.insert(std::move(path)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("NamespaceOptions.sysctls: ", Quoted(sysctl.name),
                       " is there twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

Namespace::Namespace(NamespaceOptions options) : options_(std::move(options)) {}

absl::StatusOr<Namespace> Namespace::Create(NamespaceOptions options) {
  RETURN_IF_ERROR(CheckSources(options));
  RETURN_IF_ERROR(CheckUtsName(options, "hostname", options.hostname));
  RETURN_IF_ERROR(CheckUtsName(options, "domainname", options.domainname));
  RETURN_IF_ERROR(CheckTime(options));
  RETURN_IF_ERROR(CheckUser(options));
  RETURN_IF_ERROR(CheckSysctls(options));
  return Namespace(std::move(options));
}

uint64_t Namespace::clone_flags() const {
  uint64_t flags = 0;
  if (options_.mount.is_new()) flags |= CLONE_NEWNS;
  if (options_.pid.is_new()) flags |= CLONE_NEWPID;
  if (options_.ipc.is_new()) flags |= CLONE_NEWIPC;
  if (options_.uts.is_new()) flags |= CLONE_NEWUTS;
  if (options_.net.is_new()) flags |= CLONE_NEWNET;
  return flags;
}

absl::string_view NamespaceKindName(NamespaceKind kind) {
  return Find(kind).name;
}

absl::StatusOr<UniqueFd> OpenNamespace(BorrowedFd pidfd, NamespaceKind kind) {
  const pid_t pid = sys::PidOf(pidfd);
  if (pid <= 0) {
    return absl::NotFoundError(
        "OpenNamespace: the process has ended, or is not visible here");
  }
  const std::string path = absl::StrCat("/proc/", pid, "/ns/", Find(kind).name);
  ASSIGN_OR_RETURN(UniqueFd ns, sys::Open(path, O_RDONLY));
  // The number was still this process's if it has not been reaped.
  if (sys::PidOf(pidfd) != pid) {
    return absl::NotFoundError("OpenNamespace: the process has ended");
  }
  return ns;
}

absl::StatusOr<UniqueFd> OpenNamespace(const std::string& path,
                                       NamespaceKind kind) {
  // Nothing happens to what is no namespace: a pipe would block.
  ASSIGN_OR_RETURN(UniqueFd ns,
                   sys::Open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  RETURN_IF_ERROR(CheckKind(ns.borrow(), kind, Quoted(path)));
  return ns;
}

}  // namespace caisson
