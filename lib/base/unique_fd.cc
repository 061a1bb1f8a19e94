#include "caisson/unique_fd.h"

#include <errno.h>
#include <unistd.h>

namespace caisson {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) {
    const int saved = errno;
    // Linux frees the number even when close() reports an error: never retry.
    ::close(fd_);
    errno = saved;
  }
  fd_ = fd;
}

}  // namespace caisson
