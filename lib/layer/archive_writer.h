// Files of an image archive on their way out: into a tar or a directory.
//
//   ASSIGN_OR_RETURN(auto writer, ArchiveWriter::ToTar(fd));
//   RETURN_IF_ERROR(writer->Add("index.json", text));
//   RETURN_IF_ERROR(writer->Finish());
//
// Thread-compatible.
#ifndef CAISSON_LIB_LAYER_ARCHIVE_WRITER_H_
#define CAISSON_LIB_LAYER_ARCHIVE_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

class ArchiveWriter {
 public:
  virtual ~ArchiveWriter() = default;

  // A tar, written front to back. The same files make the same bytes.
  static std::unique_ptr<ArchiveWriter> ToTar(BorrowedFd out);
  // A directory, which must be empty (FAILED_PRECONDITION). Files are synced.
  static absl::StatusOr<std::unique_ptr<ArchiveWriter>> ToDirectory(
      BorrowedFd dir);

  // Makes a directory; those above it must have been made.
  virtual absl::Status MakeDirectory(const std::string& path) = 0;
  // Adds a file of exactly `size` bytes; another length of `data` is an error,
  // after which the archive is not valid.
  virtual absl::Status Add(const std::string& path, uint64_t size,
                           ByteSource& data) = 0;
  absl::Status Add(const std::string& path, absl::string_view text);

  virtual absl::Status Finish() = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_ARCHIVE_WRITER_H_
