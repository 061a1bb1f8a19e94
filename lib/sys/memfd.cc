#include "lib/sys/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

// Debian 12's headers lack these two (Linux 6.3).
constexpr unsigned kNoexecSeal = 0x0008;
constexpr unsigned kExec = 0x0010;

}  // namespace

absl::StatusOr<UniqueFd> MakeMemfd(const char* name, MemfdKind kind, int seals,
                                   absl::string_view bytes) {
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const unsigned mode = kind == MemfdKind::kProgram ? kExec : kNoexecSeal;
  UniqueFd fd(::memfd_create(name, kFlags | mode));
  // Older kernels know neither and make every memfd executable.
  if (!fd.valid() && errno == EINVAL) fd.reset(::memfd_create(name, kFlags));
  if (!fd.valid()) {
    return ErrnoError(
        errno, absl::StrCat("memfd_create(\"", name, "\")"),
        {.step = "memfd",
         .hint = errno == EACCES ? "sysctl vm.memfd_noexec is 2" : ""});
  }
  RETURN_IF_ERROR(WriteAll(fd.borrow(), bytes, name));
  if (::lseek(fd.get(), 0, SEEK_SET) != 0) {
    return ErrnoError(errno, absl::StrCat("lseek(", name, ")"),
                      {.step = "memfd"});
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) {
    return ErrnoError(errno, "fcntl(F_ADD_SEALS)", {.step = "memfd"});
  }
  return fd;
}

absl::StatusOr<UniqueFd> SealedMemfd(const char* name,
                                     absl::string_view bytes) {
  return MakeMemfd(name, MemfdKind::kData,
                   F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
                   bytes);
}

}  // namespace caisson::sys
