#include "lib/layer/tar_reader.h"

#include <string.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/pax_records.h"
#include "lib/layer/tar_entry.h"
#include "lib/layer/tar_header.h"
#include "lib/layer/tar_sparse.h"

namespace caisson::layer {
namespace {

constexpr size_t kBufferSize = 256 << 10;

bool IsZero(absl::string_view bytes) {
  return bytes.find_first_not_of('\0') == absl::string_view::npos;
}

}  // namespace

absl::string_view TarTypeName(TarType type) {
  switch (type) {
    case TarType::kFile:
      return "file";
    case TarType::kHardlink:
      return "hard link";
    case TarType::kSymlink:
      return "symbolic link";
    case TarType::kCharDevice:
      return "character device";
    case TarType::kBlockDevice:
      return "block device";
    case TarType::kDirectory:
      return "directory";
    case TarType::kFifo:
      return "FIFO";
  }
  return "entry";
}

TarReader::TarReader(ByteSource& source, const TarLimits& limits,
                     TarObserver* observer)
    : source_(source),
      limits_(limits),
      observer_(observer),
      buffer_(new char[kBufferSize]) {}

TarReader::~TarReader() = default;

std::string TarReader::Where() const {
  return current_.empty()
             ? absl::StrCat("tar header at offset ", header_offset_)
             : absl::StrCat("tar entry ", Quoted(current_),
                            " (header at offset ", header_offset_, ")");
}

absl::Status TarReader::Truncated(absl::string_view where) const {
  return absl::DataLossError(absl::StrCat(
      "the archive is truncated: it ends at offset ", offset_, " in ", where));
}

// ---- the buffer ----

void TarReader::Take(size_t count, Use use) {
  if (observer_ != nullptr && use == Use::kRaw) {
    observer_->Raw(absl::string_view(buffer_.get() + begin_, count));
  }
  begin_ += count;
  offset_ += count;
}

// Reads once behind what is buffered, which is at most a partial block.
absl::Status TarReader::Fill() {
  if (begin_ > 0) {
    ::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  ASSIGN_OR_RETURN(
      const size_t got,
      source_.Read(absl::MakeSpan(buffer_.get() + end_, kBufferSize - end_)));
  end_ += got;
  return absl::OkStatus();
}

// A whole block, or what is left before the end of the stream.
absl::StatusOr<absl::string_view> TarReader::TakeBlock() {
  while (end_ - begin_ < kTarBlock) {
    const size_t before = end_ - begin_;
    RETURN_IF_ERROR(Fill());
    if (end_ - begin_ == before) break;
  }
  const absl::string_view block(buffer_.get() + begin_,
                                std::min(end_ - begin_, kTarBlock));
  Take(block.size());
  return block;
}

void TarReader::StartData(uint64_t size) {
  data_remaining_ = size;
  padding_ = TarPadding(size);
}

absl::StatusOr<absl::string_view> TarReader::TakeData(size_t limit, Use use) {
  if (data_remaining_ == 0 || limit == 0) return absl::string_view();
  if (begin_ == end_) {
    RETURN_IF_ERROR(Fill());
    if (begin_ == end_) return Truncated("the data of the entry");
  }
  const size_t count =
      std::min<uint64_t>(std::min(limit, end_ - begin_), data_remaining_);
  const absl::string_view chunk(buffer_.get() + begin_, count);
  Take(count, use);
  data_remaining_ -= count;
  return chunk;
}

absl::StatusOr<absl::string_view> TarReader::ReadChunk() {
  RETURN_IF_ERROR(failure_);
  absl::StatusOr<absl::string_view> chunk = TakeData(SIZE_MAX, Use::kFileData);
  if (!chunk.ok()) return failure_ = Annotate(chunk.status(), Where());
  return chunk;
}

absl::StatusOr<size_t> TarReader::Read(absl::Span<char> buffer) {
  RETURN_IF_ERROR(failure_);
  absl::StatusOr<absl::string_view> chunk =
      TakeData(buffer.size(), Use::kFileData);
  if (!chunk.ok()) return failure_ = Annotate(chunk.status(), Where());
  return chunk->copy(buffer.data(), chunk->size());
}

// Reads `rest` bytes behind an empty buffer, to be seen by the observer.
absl::Status TarReader::PassOver(uint64_t& rest) {
  while (rest > 0) {
    RETURN_IF_ERROR(Fill());
    if (begin_ == end_) return Truncated("the data of the entry");
    const size_t count = std::min<uint64_t>(end_ - begin_, rest);
    Take(count);
    rest -= count;
  }
  return absl::OkStatus();
}

absl::Status TarReader::SkipData() {
  for (uint64_t* rest : {&data_remaining_, &padding_}) {
    const size_t buffered = std::min<uint64_t>(end_ - begin_, *rest);
    Take(buffered);
    *rest -= buffered;
    if (*rest == 0) continue;
    if (observer_ != nullptr) {
      RETURN_IF_ERROR(PassOver(*rest));
      continue;
    }
    RETURN_IF_ERROR(source_.Skip(*rest));
    offset_ += *rest;
    *rest = 0;
  }
  return absl::OkStatus();
}

// ---- headers ----

absl::StatusOr<std::optional<TarEntry>> TarReader::Next() {
  RETURN_IF_ERROR(failure_);
  if (finished_) return std::optional<TarEntry>();
  absl::StatusOr<std::optional<TarEntry>> entry = ReadEntry();
  if (!entry.ok()) return failure_ = Annotate(entry.status(), Where());
  return entry;
}

absl::StatusOr<std::optional<TarEntry>> TarReader::ReadEntry() {
  TarExtensions extensions;
  for (;;) {
    RETURN_IF_ERROR(SkipData());
    current_.clear();
    ASSIGN_OR_RETURN(std::unique_ptr<TarHeader> header, ReadHeader());
    if (header == nullptr) {
      if (!extensions.empty())
        return absl::InvalidArgumentError("no entry follows the headers");
      finished_ = true;
      return std::optional<TarEntry>();
    }
    ASSIGN_OR_RETURN(const bool was_extension,
                     ReadExtension(*header, extensions));
    if (was_extension) continue;
    TarEntry entry;
    RETURN_IF_ERROR(StartEntry(*header, extensions, entry));
    return std::optional<TarEntry>(std::move(entry));
  }
}

// Null at the end of the archive, when the source has been read to its end.
absl::StatusOr<std::unique_ptr<TarHeader>> TarReader::ReadHeader() {
  header_offset_ = offset_;
  ASSIGN_OR_RETURN(const absl::string_view block, TakeBlock());
  if (IsZero(block)) {
    RETURN_IF_ERROR(ReadEndOfArchive());
    return std::unique_ptr<TarHeader>();
  }
  if (block.size() < kTarBlock) return Truncated("a header");
  auto header = std::make_unique<TarHeader>(block);
  if (!header->ChecksumMatches()) {
    return absl::InvalidArgumentError(
        "the checksum does not match; this is no tar header");
  }
  current_ = std::string(header->Text(tar_field::kName));
  return header;
}

// Two zero blocks end an archive. One alone, or none, is accepted at the end of
// the stream; one alone before more headers would hide these from readers which
// stop there.
absl::Status TarReader::ReadEndOfArchive() {
  ASSIGN_OR_RETURN(const absl::string_view second, TakeBlock());
  if (!IsZero(second)) {
    return absl::InvalidArgumentError("a single zero block inside the archive");
  }
  for (;;) {
    Take(end_ - begin_);
    RETURN_IF_ERROR(Fill());
    if (begin_ == end_) return absl::OkStatus();
  }
}

// Handles headers that are no entries of their own; false if `header` is one.
absl::StatusOr<bool> TarReader::ReadExtension(const TarHeader& header,
                                              TarExtensions& extensions) {
  const char type = header.type();
  if (absl::string_view("xgLKV").find(type) == absl::string_view::npos) {
    return false;
  }
  const std::optional<int64_t> size = header.Number(tar_field::kSize);
  if (!size.has_value() || *size < 0)
    return absl::InvalidArgumentError("invalid size");
  StartData(static_cast<uint64_t>(*size));
  switch (type) {
    case 'x': {
      ASSIGN_OR_RETURN(const std::string payload, ReadPayload());
      ASSIGN_OR_RETURN(extensions.pax,
                       ParsePaxRecords(payload, limits_.max_sparse_extents));
      break;
    }
    case 'L': {
      ASSIGN_OR_RETURN(extensions.long_name, ReadLongName());
      break;
    }
    case 'K': {
      ASSIGN_OR_RETURN(extensions.long_linkname, ReadLongName());
      break;
    }
    default:
      // A global header or volume label is no entry, so what came before would
      // describe nothing, or something else for every reader.
      if (!extensions.empty()) {
        return absl::InvalidArgumentError(
            "an extended header before a global header or volume label");
      }
  }
  return true;
}

absl::StatusOr<std::string> TarReader::ReadPayload() {
  if (data_remaining_ > limits_.max_extension_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the extended header has ", data_remaining_,
                     " bytes, more than max_extension_bytes (",
                     limits_.max_extension_bytes, ")"));
  }
  std::string payload;
  while (data_remaining_ > 0) {
    ASSIGN_OR_RETURN(const absl::string_view chunk,
                     TakeData(SIZE_MAX, Use::kRaw));
    payload.append(chunk.data(), chunk.size());
  }
  return payload;
}

absl::StatusOr<std::string> TarReader::ReadLongName() {
  ASSIGN_OR_RETURN(std::string payload, ReadPayload());
  payload.resize(TarText(payload).size());
  if (payload.empty())
    return absl::InvalidArgumentError("the long name is empty");
  return payload;
}

// ---- entries ----

absl::Status TarReader::StartEntry(const TarHeader& header,
                                   TarExtensions& extensions, TarEntry& entry) {
  entry.header_offset = header_offset_;
  uint64_t stored = 0;
  const absl::Status status =
      FillTarEntry(header, limits_, extensions, entry, stored);
  if (!entry.name.empty()) current_ = entry.name;
  if (!status.ok()) return status;
  const bool pax_sparse =
      extensions.pax.has_value() && extensions.pax->is_sparse();
  if (pax_sparse && (entry.type != TarType::kFile || header.type() == 'S')) {
    return absl::InvalidArgumentError(
        "PAX sparse records with a header that is no plain file");
  }
  if (header.type() == 'S') RETURN_IF_ERROR(ReadGnuSparse(header, entry));
  StartData(stored);
  if (pax_sparse) RETURN_IF_ERROR(ReadPaxSparse(*extensions.pax, entry));
  if (entry.sparse) {
    return CheckSparseExtents(entry.extents, entry.size, data_remaining_);
  }
  return absl::OkStatus();
}

// Four regions are in the header, 21 in each block that follows it.
absl::Status TarReader::ReadGnuSparse(const TarHeader& header,
                                      TarEntry& entry) {
  if (header.Dialect() != TarDialect::kGnu) {
    return absl::InvalidArgumentError("type S outside of a GNU archive");
  }
  const std::optional<int64_t> size = header.Number(tar_field::kGnuRealSize);
  if (!size.has_value() || *size < 0) {
    return absl::InvalidArgumentError("the real size is not valid");
  }
  entry.sparse = true;
  entry.size = static_cast<uint64_t>(*size);
  RETURN_IF_ERROR(AddGnuSparsePairs(header.Raw(tar_field::kGnuSparse),
                                    limits_.max_sparse_extents, entry.extents));
  bool extended = header.Raw(tar_field::kGnuIsExtended)[0] != '\0';
  // Also bounds blocks that are empty.
  size_t left = limits_.max_sparse_extents;
  while (extended) {
    ASSIGN_OR_RETURN(const absl::string_view bytes, TakeBlock());
    if (bytes.size() < kTarBlock) return Truncated("a sparse map");
    if (left-- == 0) {
      return absl::ResourceExhaustedError("the sparse map has too many blocks");
    }
    const TarHeader block(bytes);
    RETURN_IF_ERROR(AddGnuSparsePairs(block.Raw(tar_field::kSparseContinued),
                                      limits_.max_sparse_extents,
                                      entry.extents));
    extended = block.Raw(tar_field::kSparseIsExtended)[0] != '\0';
  }
  return absl::OkStatus();
}

absl::Status TarReader::ReadPaxSparse(const PaxRecords& pax, TarEntry& entry) {
  if (!pax.sparse_size.has_value()) {
    return absl::InvalidArgumentError("sparse file without GNU.sparse.size");
  }
  entry.sparse = true;
  entry.size = *pax.sparse_size;
  const uint64_t major = pax.sparse_major.value_or(0);
  const uint64_t minor = pax.sparse_minor.value_or(0);
  if (major == 1 && minor == 0) {
    if (!pax.sparse_map.empty()) {
      return absl::InvalidArgumentError("two sparse maps");
    }
    ASSIGN_OR_RETURN(entry.extents, ReadSparseMapInData());
    return absl::OkStatus();
  }
  if (major != 0 || minor > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "GNU sparse version ", major, ".", minor, " is not supported"));
  }
  for (size_t i = 0; i < pax.sparse_map.size(); i += 2) {
    RETURN_IF_ERROR(AddSparseExtent(pax.sparse_map[i], pax.sparse_map[i + 1],
                                    limits_.max_sparse_extents, entry.extents));
  }
  if (pax.sparse_blocks.value_or(entry.extents.size()) !=
      entry.extents.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("GNU.sparse.numblocks is ", *pax.sparse_blocks,
                     ", the map has ", entry.extents.size(), " regions"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TarExtent>> TarReader::ReadSparseMapInData() {
  SparseMapText map(limits_.max_sparse_extents);
  size_t text = 0;
  for (;;) {
    if (data_remaining_ < kTarBlock) {
      return absl::InvalidArgumentError(
          "the sparse map is longer than the data");
    }
    text += kTarBlock;
    if (text > limits_.max_extension_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the sparse map is longer than max_extension_bytes (",
                       limits_.max_extension_bytes, ")"));
    }
    ASSIGN_OR_RETURN(const absl::string_view block, TakeBlock());
    if (block.size() < kTarBlock) return Truncated("a sparse map");
    data_remaining_ -= kTarBlock;
    ASSIGN_OR_RETURN(const bool complete, map.Feed(block));
    if (complete) return map.TakeExtents();
  }
}

}  // namespace caisson::layer
