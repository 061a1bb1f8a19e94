#include "lib/security/lsm.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "caisson/unique_fd.h"
#include "lib/base/errno_error.h"
#include "lib/sys/open.h"

namespace caisson::security {
namespace {

constexpr char kLsmFile[] = "/sys/kernel/security/lsm";
constexpr size_t kMaxLsmFile = 4096;
constexpr size_t kMaxLabel = 4096;  // a page is what the kernel takes

constexpr long kSysLsmListModules = 461;
// LSM_ID_* of include/uapi/linux/lsm.h.
struct Module {
  uint64_t id;
  absl::string_view name;
};
constexpr Module kModules[] = {
    {100, "capability"}, {101, "selinux"},   {102, "smack"},
    {103, "tomoyo"},     {104, "apparmor"},  {105, "yama"},
    {106, "loadpin"},    {107, "safesetid"}, {108, "lockdown"},
    {109, "bpf"},        {110, "landlock"},  {111, "ima"},
    {112, "evm"},        {113, "ipe"},
};

std::vector<std::string> AskKernel() {
  uint64_t ids[64];
  uint32_t size = sizeof(ids);
  const long count = ::syscall(kSysLsmListModules, ids, &size, 0);
  std::vector<std::string> names;
  for (long i = 0; i < count; ++i) {
    const auto known =
        std::find_if(std::begin(kModules), std::end(kModules),
                     [&](const Module& module) { return module.id == ids[i]; });
    if (known != std::end(kModules)) names.emplace_back(known->name);
  }
  return names;
}

}  // namespace

absl::Status RequireLsm(absl::string_view field, absl::string_view module) {
  auto content =
      sys::ReadFileAt(BorrowedFd(AT_FDCWD), kLsmFile, 0, kMaxLsmFile);
  std::vector<std::string> active;
  if (content.ok()) {
    active = absl::StrSplit(absl::StripAsciiWhitespace(*content), ',',
                            absl::SkipEmpty());
  } else {
    active = AskKernel();
  }
  if (std::find(active.begin(), active.end(), module) != active.end()) {
    return absl::OkStatus();
  }
  const std::string list = active.empty() ? "none that could be learned of"
                                          : absl::StrJoin(active, ",");
  return absl::FailedPreconditionError(absl::StrCat(
      field, ": the security module ", module, " is not active; ", kLsmFile,
      content.ok() ? " has: " : " cannot be read, lsm_list_modules(2) has: ",
      list, "; the kernel takes it as a boot parameter (lsm=)"));
}

absl::Status CheckLabel(absl::string_view field, absl::string_view label) {
  const bool printable =
      std::all_of(label.begin(), label.end(),
                  [](unsigned char c) { return absl::ascii_isprint(c); });
  if (printable && label.size() < kMaxLabel) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", Quoted(label.substr(0, 64)),
                   " is no label: it is too long or has control characters"));
}

}  // namespace caisson::security
