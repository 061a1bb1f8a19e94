#include "lib/runtime/check_program.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "caisson/root_fs.h"
#include "lib/base/errno_error.h"
#include "lib/launcher/program.h"

namespace caisson::runtime {
namespace {

bool IsOnAMount(const std::string& path, const spec::RuntimeConfig& config) {
  for (const spec::Mount& mount : config.mounts) {
    const std::string place = absl::StartsWith(mount.destination, "/")
                                  ? mount.destination
                                  : absl::StrCat("/", mount.destination);
    if (path == place || absl::StartsWith(path, absl::StrCat(place, "/"))) {
      return true;
    }
  }
  return false;
}

// 0, or why it cannot be executed.
int ErrorOf(const RootFs& root, const std::string& path) {
  const auto file = root.Open(path, O_PATH);
  struct stat stat;
  if (!file.ok()) {
    const auto detail = GetErrorDetail(file.status());
    return detail ? detail->error : ENOENT;
  }
  if (::fstat(file->get(), &stat) != 0) return errno;
  return S_ISREG(stat.st_mode) && (stat.st_mode & 0111) != 0 ? 0 : EACCES;
}

}  // namespace

absl::Status CheckProgram(const ProcessSpec& spec,
                          const spec::RuntimeConfig& config) {
  if (spec.root == nullptr) return absl::OkStatus();
  const std::string& name = spec.argv[0];
  int error = ENOENT;
  for (std::string path : launcher::Candidates(name, spec.env)) {
    if (!absl::StartsWith(path, "/")) path = absl::StrCat(spec.cwd, "/", path);
    if (IsOnAMount(path, config)) return absl::OkStatus();
    const int found = ErrorOf(*spec.root, path);
    if (found == 0) return absl::OkStatus();
    if (found == EACCES) error = EACCES;
  }
  // containerd, Docker and Podman know these texts.
  if (error == EACCES) {
    return absl::PermissionDeniedError(
        absl::StrCat("exec: ", Quoted(name), ": permission denied"));
  }
  if (absl::StrContains(name, '/')) {
    return absl::NotFoundError(absl::StrCat("exec: ", Quoted(name), ": stat ",
                                            name,
                                            ": no such file or directory"));
  }
  return absl::NotFoundError(absl::StrCat(
      "exec: ", Quoted(name), ": executable file not found in $PATH"));
}

}  // namespace caisson::runtime
