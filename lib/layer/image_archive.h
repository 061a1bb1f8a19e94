// The files inside an image archive, whether that is a tar or a directory.
//
//   ASSIGN_OR_RETURN(auto archive, OpenImageArchive(fd, spool));
//   ASSIGN_OR_RETURN(std::string text, archive->ReadDocument("index.json",
//   max)); ASSIGN_OR_RETURN(auto blob, archive->Open("blobs/sha256/..."));
//
// A tar is indexed once, by its headers; its files are then read in place.
// Paths are relative, without "." and ".." (see CleanArchivePath).
// Thread-compatible; files that were opened are independent of each other.
#ifndef CAISSON_LIB_LAYER_IMAGE_ARCHIVE_H_
#define CAISSON_LIB_LAYER_IMAGE_ARCHIVE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"

namespace caisson::layer {

// A file of an archive, read once. Must not outlive the archive.
class ArchiveFile final : public ByteSource {
 public:
  // `size` bytes of `fd` from `offset` on; `owned`, if valid, is closed with
  // it.
  ArchiveFile(UniqueFd owned, BorrowedFd fd, uint64_t offset, uint64_t size)
      : owned_(std::move(owned)), source_(fd, offset, size), size_(size) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    return source_.Read(buffer);
  }

  uint64_t size() const { return size_; }

 private:
  UniqueFd owned_;
  FdSource source_;
  uint64_t size_;
};

// A bound, and the option that it comes from, for errors.
struct DocumentLimit {
  size_t bytes = 0;
  const char* option = "";
};

class ImageArchive {
 public:
  virtual ~ImageArchive() = default;

  // Whether there is a regular file (or a link to one) at `path`.
  virtual bool Has(absl::string_view path) const = 0;
  // NOT_FOUND if there is none.
  virtual absl::StatusOr<std::unique_ptr<ArchiveFile>> Open(
      absl::string_view path) const = 0;
  // The names directly at the top, sorted, each once.
  virtual absl::StatusOr<std::vector<std::string>> TopLevel() const = 0;

  // Reads a small file whole; a larger one is RESOURCE_EXHAUSTED.
  absl::StatusOr<std::string> ReadDocument(absl::string_view path,
                                           const DocumentLimit& limit) const;
};

// Where an archive that cannot be read in place is copied to: one that comes
// from a pipe, or a compressed one. Long runs of zeros become holes.
struct SpoolOptions {
  BorrowedFd dir;
  std::string name;  // in `dir`; stays there for as long as the archive is used
  DecompressOptions limits;  // of what is written
  // Called about once per MiB; an error stops the copy and is returned.
  std::function<absl::Status()> progress;
};

// A bound for memory; an image of 500 layers has some 2,000 entries.
inline constexpr size_t kMaxArchiveEntries = 100'000;

// Opens a directory, a tar file, or any descriptor that can be read to its end.
// `fd` is borrowed for the life of the archive; the offset of a regular file
// does not matter and stays.
absl::StatusOr<std::unique_ptr<ImageArchive>> OpenImageArchive(
    BorrowedFd fd, const SpoolOptions& spool,
    size_t max_entries = kMaxArchiveEntries);

// `path` without a leading "/" or "./" and without "." components; nullopt if
// it has a ".." or names nothing.
std::optional<std::string> CleanArchivePath(absl::string_view path);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_IMAGE_ARCHIVE_H_
