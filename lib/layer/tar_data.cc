#include "lib/layer/tar_data.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

// Zeros of this length become a hole; they are looked for in such steps.
constexpr size_t kMinHole = 32 << 10;
constexpr size_t kHoleStep = 4 << 10;

// Whole steps of zeros at the front.
size_t LeadingZeros(absl::string_view data) {
  static constexpr char kZeros[kHoleStep] = {};
  size_t count = 0;
  while (data.size() - count >= kHoleStep &&
         ::memcmp(data.data() + count, kZeros, kHoleStep) == 0) {
    count += kHoleStep;
  }
  return count;
}

// What to write before looking for zeros again. Precondition: no more than
// `zeros` at the front.
size_t UpToZeros(absl::string_view data, size_t zeros) {
  size_t count = std::min(data.size(), zeros + kHoleStep);
  while (count < data.size() &&
         LeadingZeros(data.substr(count, kMinHole)) < kMinHole) {
    count = std::min(data.size(), count + kHoleStep);
  }
  return count;
}

absl::Status WriteError(absl::string_view call, const std::string& path) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "layer.unpack", .path = path});
}

}  // namespace

absl::Status WriteTarData(TarReader& reader, const TarEntry& entry,
                          BorrowedFd fd, const std::string& path,
                          absl::FunctionRef<absl::Status(uint64_t)> progress,
                          bool& reader_failed) {
  const TarExtent whole = {0, entry.size};
  const absl::Span<const TarExtent> extents =
      entry.sparse ? absl::MakeConstSpan(entry.extents)
                   : absl::MakeConstSpan(&whole, 1);
  absl::string_view chunk;
  uint64_t taken = 0;    // since the last report
  uint64_t written = 0;  // up to here
  for (const TarExtent& extent : extents) {
    uint64_t at = extent.offset;
    const uint64_t end = extent.offset + extent.length;
    while (at < end) {
      if (chunk.empty()) {
        RETURN_IF_ERROR(progress(taken));
        absl::StatusOr<absl::string_view> next = reader.ReadChunk();
        reader_failed = !next.ok();
        RETURN_IF_ERROR(next.status());
        chunk = *next;
        taken = chunk.size();
        if (chunk.empty()) return absl::InternalError("its data is missing");
      }
      const absl::string_view piece =
          chunk.substr(0, std::min<uint64_t>(chunk.size(), end - at));
      const size_t zeros = LeadingZeros(piece);
      if (zeros >= kMinHole) {
        chunk.remove_prefix(zeros);
        at += zeros;
        continue;
      }
      const ssize_t n =
          ::pwrite(fd.get(), piece.data(), UpToZeros(piece, zeros),
                   static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return WriteError("pwrite", path);
      chunk.remove_prefix(static_cast<size_t>(n));
      at += static_cast<uint64_t>(n);
      written = at;
    }
  }
  if (written < entry.size &&
      ::ftruncate(fd.get(), static_cast<off_t>(entry.size)) != 0) {
    return WriteError("ftruncate", path);
  }
  return progress(taken);
}

}  // namespace caisson::layer
