#include "lib/launcher/sysctl_steps.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/namespace/sysctl.h"

namespace caisson::launcher {

using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

// In the namespaces that they are of: /proc/sys shows those of the process that
// opens a file. "/proc" is the launcher's, in which nothing is masked.
absl::Status AddSysctls(PlanBuilder& plan, const NamespaceOptions& options) {
  if (options.sysctls.empty()) return absl::OkStatus();
  const Slot slot = plan.NewSlot();
  for (const Sysctl& sysctl : options.sysctls) {
    ASSIGN_OR_RETURN(
        const std::string path,
        ValidateSysctl(sysctl.name, sysctl.value, SysctlScopeOf(options)));
    const Data value = plan.String(sysctl.value);
    if (path == "kernel/domainname") {
      // The root of a user namespace may not write the file.
      plan.Call(SYS_setdomainname, {value, sysctl.value.size()},
                absl::StrCat("setdomainname(", Quoted(sysctl.value), ")"))
          .Hint("a domain name has at most 64 bytes");
      continue;
    }
    const std::string file = absl::StrCat("/proc/sys/", path);
    plan.Call(
            SYS_openat,
            {AT_FDCWD, plan.String(file), O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0},
            absl::StrCat("open(", Quoted(file), ")"))
        .Into(slot)
        .Path(file)
        .Hint(absl::StrCat(
            "NamespaceOptions.sysctls: on this kernel no namespace has ",
            Quoted(sysctl.name),
            " of its own, or its module is not loaded; those of ipc are the "
            "host's root's alone on older kernels"));
    plan.Call(SYS_write, {slot, value, sysctl.value.size()},
              absl::StrCat("write(", Quoted(file), ", ", Quoted(sysctl.value),
                           ")"))
        .Path(file)
        .Hint(absl::StrCat("NamespaceOptions.sysctls: the kernel refuses this "
                           "value of ",
                           Quoted(sysctl.name)));
    plan.Call(SYS_close, {slot}, absl::StrCat("close(", Quoted(file), ")"));
  }
  return absl::OkStatus();
}

}  // namespace caisson::launcher
