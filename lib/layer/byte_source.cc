#include "lib/layer/byte_source.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr size_t kSkipBuffer = 64 << 10;
constexpr uint64_t kWatchInterval = 1 << 20;

}  // namespace

absl::Status ByteSource::Skip(uint64_t count) {
  if (count == 0) return absl::OkStatus();
  const size_t size = std::min<uint64_t>(count, kSkipBuffer);
  const auto buffer = std::make_unique<char[]>(size);
  while (count > 0) {
    const size_t want = std::min<uint64_t>(count, size);
    ASSIGN_OR_RETURN(const size_t got,
                     Read(absl::MakeSpan(buffer.get(), want)));
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat("the stream ends ", count, " bytes too early"));
    }
    count -= got;
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> FdSource::Read(absl::Span<char> buffer) {
  size_t want = buffer.size();
  if (ranged_) want = std::min<uint64_t>(want, remaining_);
  if (want == 0) return 0;
  ssize_t n;
  do {
    n = ranged_ ? ::pread(fd_.get(), buffer.data(), want,
                          static_cast<off_t>(offset_))
                : ::read(fd_.get(), buffer.data(), want);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    return ErrnoError(
        errno,
        ranged_ ? absl::StrCat("pread(", fd_.get(), ", offset ", offset_, ")")
                : absl::StrCat("read(", fd_.get(), ")"),
        {.step = "read"});
  }
  if (!ranged_) return static_cast<size_t>(n);
  if (n == 0) {
    return absl::DataLossError(absl::StrCat("the file ends at ", offset_, ", ",
                                            remaining_, " bytes too early"));
  }
  offset_ += static_cast<uint64_t>(n);
  remaining_ -= static_cast<uint64_t>(n);
  return static_cast<size_t>(n);
}

absl::Status FdSource::Skip(uint64_t count) {
  if (!ranged_) return ByteSource::Skip(count);
  if (count > remaining_) {
    return absl::DataLossError(absl::StrCat(
        "the stream ends ", count - remaining_, " bytes too early"));
  }
  offset_ += count;
  remaining_ -= count;
  return absl::OkStatus();
}

absl::StatusOr<size_t> MemorySource::Read(absl::Span<char> buffer) {
  const size_t n = std::min({buffer.size(), data_.size(), max_chunk_});
  if (n > 0) ::memcpy(buffer.data(), data_.data(), n);
  data_.remove_prefix(n);
  return n;
}

absl::StatusOr<size_t> WatchedSource::Read(absl::Span<char> buffer) {
  if (since_ >= kWatchInterval) {
    since_ = 0;
    RETURN_IF_ERROR(watch_());
  }
  absl::StatusOr<size_t> n = source_.Read(buffer);
  if (n.ok()) since_ += *n;
  return n;
}

absl::StatusOr<size_t> ReadFully(ByteSource& source, absl::Span<char> buffer) {
  size_t used = 0;
  while (used < buffer.size()) {
    ASSIGN_OR_RETURN(const size_t got, source.Read(buffer.subspan(used)));
    if (got == 0) break;
    used += got;
  }
  return used;
}

absl::StatusOr<uint64_t> CopyTo(ByteSource& source, BorrowedFd fd,
                                absl::string_view what) {
  constexpr size_t kBuffer = 256 << 10;
  const auto buffer = std::make_unique<char[]>(kBuffer);
  for (uint64_t total = 0;;) {
    ASSIGN_OR_RETURN(const size_t n,
                     ReadFully(source, absl::MakeSpan(buffer.get(), kBuffer)));
    if (n == 0) return total;
    RETURN_IF_ERROR(
        sys::WriteAll(fd, absl::string_view(buffer.get(), n), what));
    total += n;
  }
}

absl::StatusOr<uint64_t> Drain(ByteSource& source) {
  const auto buffer = std::make_unique<char[]>(kSkipBuffer);
  uint64_t total = 0;
  for (;;) {
    ASSIGN_OR_RETURN(const size_t got,
                     source.Read(absl::MakeSpan(buffer.get(), kSkipBuffer)));
    if (got == 0) return total;
    total += got;
  }
}

}  // namespace caisson::layer
