#include "caisson/namespace.h"

#include <errno.h>
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

namespace caisson {
namespace {

// __NEW_UTS_LEN
constexpr size_t kMaxHostname = 64;

absl::Status CheckHostname(const NamespaceOptions& options) {
  const std::string& name = options.hostname;
  if (name.empty()) return absl::OkStatus();
  if (options.uts != NamespaceSource::kNew) {
    return absl::InvalidArgumentError(
        "NamespaceOptions.hostname needs a uts namespace of its own: setting "
        "it would rename the host");
  }
  if (name.size() > kMaxHostname) {
    return absl::InvalidArgumentError(
        absl::StrCat("NamespaceOptions.hostname has ", name.size(),
                     " bytes; the kernel allows ", kMaxHostname));
  }
  for (const char c : name) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '.') {
      return absl::InvalidArgumentError(
          absl::StrCat("NamespaceOptions.hostname ", Quoted(name),
                       " has a character that is not a letter, digit, '-' or "
                       "'.'"));
    }
  }
  if (name.front() == '-' || name.front() == '.') {
    return absl::InvalidArgumentError(
        absl::StrCat("NamespaceOptions.hostname ", Quoted(name),
                     " begins with '", name.substr(0, 1), "'"));
  }
  return absl::OkStatus();
}

absl::Status CheckUser(const NamespaceOptions& options) {
  if (!options.user.valid()) return absl::OkStatus();
  const int type = ::ioctl(options.user.get(), NS_GET_NSTYPE);
  if (type < 0) {
    return ErrnoError(
        errno, "ioctl(NamespaceOptions.user, NS_GET_NSTYPE)",
        {.step = "namespaces", .hint = "the descriptor is no namespace"});
  }
  if (type != CLONE_NEWUSER) {
    return absl::InvalidArgumentError(
        "NamespaceOptions.user is a namespace of another kind");
  }
  if (options.ipc == NamespaceSource::kNew) return absl::OkStatus();
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
  RETURN_IF_ERROR(CheckHostname(options));
  RETURN_IF_ERROR(CheckUser(options));
  RETURN_IF_ERROR(CheckSysctls(options));
  return Namespace(std::move(options));
}

uint64_t Namespace::clone_flags() const {
  uint64_t flags = CLONE_NEWNS | CLONE_NEWPID;
  if (options_.ipc == NamespaceSource::kNew) flags |= CLONE_NEWIPC;
  if (options_.uts == NamespaceSource::kNew) flags |= CLONE_NEWUTS;
  if (options_.net == NamespaceSource::kNew) flags |= CLONE_NEWNET;
  return flags;
}

}  // namespace caisson
