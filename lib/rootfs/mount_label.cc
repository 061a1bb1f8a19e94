#include "lib/rootfs/mount_label.h"

#include <fcntl.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

constexpr char kFileSystems[] = "/proc/filesystems";
constexpr size_t kMaxFileSystems = 1 << 16;
constexpr size_t kMaxLabel = 255;  // fsconfig(2): strndup_user(value, 256)
// The kernel registers it if SELinux was not disabled at boot.
constexpr absl::string_view kSelinux = "selinuxfs";
constexpr char kContext[] = "context";

}  // namespace

absl::Status CheckLabel(const std::string& label,
                        absl::string_view file_systems) {
  if (label.empty()) return absl::OkStatus();
  const bool printable = std::all_of(
      label.begin(), label.end(),
      [](unsigned char c) { return absl::ascii_isgraph(c) && c != '"'; });
  if (!printable || label.size() > kMaxLabel) {
    return absl::InvalidArgumentError(
        absl::StrCat("RootFsOptions.mount_label ", Quoted(label),
                     " is no security context (user:role:type:level)"));
  }
  for (const absl::string_view line : absl::StrSplit(file_systems, '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (!words.empty() && words.back() == kSelinux) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "RootFsOptions.mount_label needs SELinux, which this kernel does not "
      "have or which is disabled (/proc/filesystems lacks selinuxfs)");
}

absl::Status CheckMountLabel(const std::string& label) {
  if (label.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const UniqueFd file, sys::Open(kFileSystems, O_RDONLY));
  ASSIGN_OR_RETURN(const std::string text,
                   sys::ReadAll(file.borrow(), kMaxFileSystems, kFileSystems));
  return CheckLabel(label, text);
}

absl::Status SetLabel(sys::FsContext& file_system, const std::string& label) {
  if (label.empty()) return absl::OkStatus();
  return file_system.SetString(kContext, label);
}

std::string LabelOption(const std::string& label) {
  if (label.empty()) return "";
  return absl::StrCat(",", kContext, "=\"", label, "\"");
}

}  // namespace caisson::rootfs
