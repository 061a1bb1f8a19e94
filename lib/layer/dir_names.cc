#include "lib/layer/dir_names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

#include <memory>
#include <utility>

#include "absl/strings/string_view.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

}  // namespace

absl::StatusOr<std::vector<std::string>> NamesIn(BorrowedFd dir) {
  ASSIGN_OR_RETURN(UniqueFd fd, sys::OpenAt2(dir, ".", O_RDONLY | O_DIRECTORY,
                                             sys::kNoSymlinks));
  std::unique_ptr<DIR, CloseDir> stream(::fdopendir(fd.get()));
  if (stream == nullptr) {
    return ErrnoError(errno, "fdopendir()", {.step = "layer.unpack"});
  }
  (void)fd.release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  if (errno != 0) {
    return ErrnoError(errno, "readdir()", {.step = "layer.unpack"});
  }
  return names;
}

}  // namespace caisson::layer
