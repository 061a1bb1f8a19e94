// The texts of /etc/hosts, /etc/hostname and /etc/resolv.conf.
#ifndef CAISSON_LIB_ROOTFS_ETC_FILES_H_
#define CAISSON_LIB_ROOTFS_ETC_FILES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/root_fs.h"

namespace caisson::rootfs {

// INVALID_ARGUMENT for a name that could end the line or the field that it is
// written to.
absl::Status CheckHostname(absl::string_view hostname);

// hosts(5). INVALID_ARGUMENT names the entry whose address or name is none.
absl::StatusOr<std::string> RenderHosts(absl::string_view hostname,
                                        const std::vector<HostsEntry>& entries);

struct FilteredResolvConf {
  std::string text;      // without the lines of loopback servers
  size_t servers = 0;    // that are left
  size_t loopbacks = 0;  // that were removed
};

// resolv.conf(5). Servers on 127.0.0.0/8, ::1, or the unspecified address,
// which means the local host.
FilteredResolvConf RemoveLoopbackServers(absl::string_view text);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_ETC_FILES_H_
