// A strict streaming reader of tar archives.
//
//   TarReader reader(source, {});
//   for (;;) {
//     ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader.Next());
//     if (!entry.has_value()) break;
//     ... entry->name, reader.Read(buffer) ...
//   }
//
// Reads v7, ustar, star, PAX (POSIX.1-2001) and GNU archives, including GNU
// long names, base-256 numbers and the sparse formats (old GNU, 0.0, 0.1, 1.0).
// Where known readers disagree, it does what Go's archive/tar (Docker,
// containerd) does, or refuses: one effective size decides both how much is
// read and where the next header is, a malformed extension is an error and
// never skipped, and no number may be negative (but for times) or overflow.
// Global PAX headers are passed over. Links, directories, devices and FIFOs
// have no data whatever their header claims.
//
// It does not judge names: what a name may do is up to who creates files.
//
// Errors name the entry and the offset of its header in the stream; a malformed
// archive is INVALID_ARGUMENT, one that stops in the middle DATA_LOSS, one
// beyond a limit RESOURCE_EXHAUSTED. Thread-compatible.
#ifndef CAISSON_LIB_LAYER_TAR_READER_H_
#define CAISSON_LIB_LAYER_TAR_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

class TarHeader;
struct PaxRecords;
struct TarExtensions;

// Bounds of what one entry makes the reader allocate.
struct TarLimits {
  // Payload of one PAX or GNU long name header, and of a sparse map in text.
  size_t max_extension_bytes = 1 << 20;
  // A name without a "/" at its end, or a link target.
  size_t max_path_bytes = 4095;
  // Data regions of one sparse file; each takes 16 bytes.
  size_t max_sparse_extents = 1 << 17;
};

enum class TarType {
  kFile,
  kHardlink,
  kSymlink,
  kCharDevice,
  kBlockDevice,
  kDirectory,
  kFifo,
};

// "file", "hard link", ... for messages.
absl::string_view TarTypeName(TarType type);

struct TarExtent {
  uint64_t offset = 0;
  uint64_t length = 0;
};

struct TarEntry {
  std::string name;      // bytes as stored, never with NUL
  std::string linkname;  // for links
  TarType type = TarType::kFile;
  uint32_t mode = 0;  // permission bits with set-id and sticky: 07777
  uint32_t uid = 0;   // never 2^32-1, which chown(2) takes for "leave it"
  uint32_t gid = 0;
  uint64_t size = 0;       // of the file, holes included; 0 for other types
  int64_t mtime_sec = 0;   // since 1970; any value, clamped to int64
  int32_t mtime_nsec = 0;  // 0..999999999
  uint32_t devmajor = 0;
  uint32_t devminor = 0;
  std::vector<std::pair<std::string, std::string>> xattrs;  // SCHILY.xattr.*
  bool sparse = false;
  // If sparse: the regions that have data, ascending, within `size`. What Read
  // answers is their content without the holes.
  std::vector<TarExtent> extents;
  uint64_t header_offset = 0;  // of the entry's own header in the stream
};

// Sees what a reader passes over.
class TarObserver {
 public:
  virtual ~TarObserver() = default;
  // The next bytes of the stream that Read and ReadChunk do not answer:
  // headers, padding, data that nobody read, everything behind the end.
  virtual void Raw(absl::string_view bytes) = 0;
};

class TarReader final {
 public:
  // `source` and `observer` must outlive the reader, which reads ahead of what
  // it answers.
  TarReader(ByteSource& source, const TarLimits& limits,
            TarObserver* observer = nullptr);
  ~TarReader();
  TarReader(const TarReader&) = delete;
  TarReader& operator=(const TarReader&) = delete;

  // Passes over what is left of the current entry and reads the next one.
  // nullopt after the last, when the source has been read to its very end (what
  // follows the end-of-archive mark is read and ignored). After an error, the
  // same error.
  absl::StatusOr<std::optional<TarEntry>> Next();

  // Data of the current entry as ByteSource::Read has it: 0 at its end.
  absl::StatusOr<size_t> Read(absl::Span<char> buffer);

  // The same without a copy: the next piece of the data, empty at its end,
  // valid until the next call.
  absl::StatusOr<absl::string_view> ReadChunk();

  // Where the data that Read answers next is in the stream. Directly after
  // Next: where the data of the entry starts.
  uint64_t data_offset() const { return offset_; }

  // Bytes of data that Read has still to answer.
  uint64_t data_remaining() const { return data_remaining_; }

 private:
  absl::StatusOr<std::optional<TarEntry>> ReadEntry();
  absl::StatusOr<std::unique_ptr<TarHeader>> ReadHeader();
  absl::Status ReadEndOfArchive();
  absl::StatusOr<bool> ReadExtension(const TarHeader& header,
                                     TarExtensions& extensions);
  absl::StatusOr<std::string> ReadPayload();
  absl::StatusOr<std::string> ReadLongName();
  absl::Status StartEntry(const TarHeader& header, TarExtensions& extensions,
                          TarEntry& entry);
  absl::Status ReadGnuSparse(const TarHeader& header, TarEntry& entry);
  absl::Status ReadPaxSparse(const PaxRecords& pax, TarEntry& entry);
  absl::StatusOr<std::vector<TarExtent>> ReadSparseMapInData();

  void StartData(uint64_t size);
  enum class Use { kFileData, kRaw };
  absl::StatusOr<absl::string_view> TakeData(size_t limit, Use use);
  absl::Status PassOver(uint64_t& rest);
  absl::Status SkipData();
  absl::Status Fill();
  absl::StatusOr<absl::string_view> TakeBlock();
  void Take(size_t count, Use use = Use::kRaw);
  absl::Status Truncated(absl::string_view where) const;
  std::string Where() const;

  ByteSource& source_;
  const TarLimits limits_;
  TarObserver* const observer_;
  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0;  // unread bytes of buffer_
  size_t end_ = 0;
  uint64_t offset_ = 0;  // of buffer_[begin_] in the stream
  uint64_t data_remaining_ = 0;
  uint64_t padding_ = 0;  // behind the data, up to the next block
  uint64_t header_offset_ = 0;
  std::string current_;  // name of the entry, for errors
  bool finished_ = false;
  absl::Status failure_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TAR_READER_H_
