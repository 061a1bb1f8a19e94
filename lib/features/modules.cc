#include "lib/features/modules.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/sys/open.h"

namespace caisson::features {
namespace {

constexpr size_t kMaxFile = 16 << 20;

std::string ReadModuleFile(absl::string_view name) {
  utsname system = {};
  if (::uname(&system) != 0) return "";
  auto text =
      sys::ReadFileAt(BorrowedFd(AT_FDCWD),
                      absl::StrCat("/lib/modules/", system.release, "/", name),
                      /*resolve=*/0, kMaxFile);
  return text.ok() ? *std::move(text) : "";
}

// Whether a line begins with a path whose file is that module: "a/nf-x.ko.xz:".
bool Lists(absl::string_view text, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    absl::string_view path = line.substr(0, line.find(':'));
    path.remove_prefix(path.rfind('/') + 1);  // npos + 1 is 0
    const absl::string_view module = path.substr(0, path.find(".ko"));
    if (!module.empty() && absl::StrReplaceAll(module, {{"-", "_"}}) == name)
      return true;
  }
  return false;
}

}  // namespace

ModuleState FindModule(absl::string_view name, absl::string_view builtin,
                       absl::string_view dep) {
  if (Lists(builtin, name)) return ModuleState::kBuiltIn;
  if (Lists(dep, name)) return ModuleState::kLoadable;
  return builtin.empty() && dep.empty() ? ModuleState::kUnknown
                                        : ModuleState::kMissing;
}

ModuleState FindModule(absl::string_view name) {
  if (::access(absl::StrCat("/sys/module/", name).c_str(), F_OK) == 0) {
    return ModuleState::kLoaded;
  }
  return FindModule(name, ReadModuleFile("modules.builtin"),
                    ReadModuleFile("modules.dep"));
}

}  // namespace caisson::features
