#include "lib/net/sysctl.h"

#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "caisson/unique_fd.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

std::string ForwardingFile(const std::string& interface) {
  return absl::StrCat("/proc/sys/net/ipv4/conf/", interface, "/forwarding");
}

absl::Status Write(const std::string& file, absl::string_view value) {
  absl::StatusOr<UniqueFd> fd = sys::Open(file, O_WRONLY);
  if (!fd.ok()) {
    return absl::IsNotFound(fd.status())
               ? fd.status()
               : absl::Status(
                     fd.status().code(),
                     absl::StrCat(fd.status().message(),
                                  "; networks need a writable /proc/sys/net"));
  }
  return sys::WriteAll(fd->borrow(), value, file);
}

}  // namespace

absl::StatusOr<bool> ForwardsIpv4(const std::string& interface) {
  ASSIGN_OR_RETURN(
      const std::string value,
      sys::ReadFileAt(BorrowedFd(AT_FDCWD), ForwardingFile(interface),
                      /*resolve=*/0, /*limit=*/64));
  return !value.empty() && value[0] != '0';
}

absl::Status EnableForwardingIpv4(const std::string& interface) {
  return Write(ForwardingFile(interface), "1");
}

absl::Status DisableIpv6(const std::string& interface) {
  const absl::Status status = Write(
      absl::StrCat("/proc/sys/net/ipv6/conf/", interface, "/disable_ipv6"),
      "1");
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

}  // namespace caisson
