// Streams of bytes that are read once, from front to back.
//
// A layer is one such stream seen through several filters: a file, its
// decompression, a digest over either. Each filter is a ByteSource that reads
// another one.
//
//   FdSource file(fd.borrow());
//   ASSIGN_OR_RETURN(auto tar, Decompress(file, {}));
//   TarReader reader(*tar, {});
//
// Sources are thread-compatible and block as their descriptor does. A source
// that has answered an error stays unusable.
#ifndef CAISSON_LIB_LAYER_BYTE_SOURCE_H_
#define CAISSON_LIB_LAYER_BYTE_SOURCE_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"

namespace caisson::layer {

class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Fills the front of `buffer` and returns the number of bytes, which may be
  // less than asked for; 0 only at the end (or for an empty buffer).
  virtual absl::StatusOr<size_t> Read(absl::Span<char> buffer) = 0;

  // Passes over `count` bytes; an end before that is DATA_LOSS. The default
  // reads them, so that a digest sees them; a source that can seek does not.
  virtual absl::Status Skip(uint64_t count);
};

// A descriptor, which must stay open as long as the source is in use.
class FdSource final : public ByteSource {
 public:
  // A file, pipe or socket from its current position to its end.
  explicit FdSource(BorrowedFd fd) : fd_(fd) {}
  // `length` bytes of a seekable file from `offset` on, read by pread(2), so
  // that many sources can share one descriptor. A file that turns out to be
  // shorter is DATA_LOSS.
  FdSource(BorrowedFd fd, uint64_t offset, uint64_t length)
      : fd_(fd), ranged_(true), offset_(offset), remaining_(length) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;
  absl::Status Skip(uint64_t count) override;

 private:
  BorrowedFd fd_;
  bool ranged_ = false;
  uint64_t offset_ = 0;     // where the next pread starts, if ranged_
  uint64_t remaining_ = 0;  // bytes left, if ranged_
};

// Bytes in memory, which must outlive the source. `max_chunk` bounds what one
// Read answers, to exercise the boundaries of a reader.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(absl::string_view data, size_t max_chunk = SIZE_MAX)
      : data_(data), max_chunk_(max_chunk) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  absl::string_view data_;
  size_t max_chunk_;
};

// Passes on `source` and calls `watch` before about every MiB; an error of that
// is what Read then answers. Both must outlive it.
class WatchedSource final : public ByteSource {
 public:
  WatchedSource(ByteSource& source, absl::FunctionRef<absl::Status()> watch)
      : source_(source), watch_(watch) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  ByteSource& source_;
  absl::FunctionRef<absl::Status()> watch_;
  uint64_t since_ = 0;  // bytes since the last call
};

// Reads until `buffer` is full or the source ends; returns the number of bytes.
absl::StatusOr<size_t> ReadFully(ByteSource& source, absl::Span<char> buffer);

// Writes everything up to the end to `fd`, which is any file, pipe or socket;
// `what` names it in errors. Returns the number of bytes.
absl::StatusOr<uint64_t> CopyTo(ByteSource& source, BorrowedFd fd,
                                absl::string_view what);

// Reads and discards up to the end; returns the number of bytes.
absl::StatusOr<uint64_t> Drain(ByteSource& source);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_BYTE_SOURCE_H_
