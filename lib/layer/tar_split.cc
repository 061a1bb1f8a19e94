#include "lib/layer/tar_split.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/decompress.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr absl::string_view kMagic = "caisson tar-split 1\n";
constexpr char kRaw = 'R';
constexpr char kData = 'D';
constexpr char kEnd = 'E';
constexpr size_t kChunk = 64 << 10;
constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;

// Little-endian.
std::string Number(uint64_t value) {
  std::string text(8, '\0');
  for (char& c : text) {
    c = static_cast<char>(value & 0xff);
    value >>= 8;
  }
  return text;
}

absl::Status Damaged(absl::string_view problem) {
  return absl::DataLossError(
      absl::StrCat("the tar-split of the layer is damaged: ", problem));
}

// One record, without the bytes that follow a raw one.
struct Record {
  char type = kEnd;
  uint64_t length = 0;  // of the tar; all of it for kEnd
  std::string path;
  uint64_t offset = 0;
};

class RecordReader final {
 public:
  explicit RecordReader(BorrowedFd fd, uint64_t size) : file_(fd, 0, size) {}

  absl::Status Open() {
    DecompressOptions options;
    options.max_output_bytes = UINT64_MAX;
    ASSIGN_OR_RETURN(source_, Decompress(file_, options));
    ASSIGN_OR_RETURN(const std::string magic, Take(kMagic.size()));
    return magic == kMagic ? absl::OkStatus() : Damaged("it begins wrong");
  }

  // Call only when the bytes of a raw record have been taken.
  absl::StatusOr<Record> Next() {
    Record record;
    ASSIGN_OR_RETURN(const std::string type, Take(1));
    record.type = type[0];
    ASSIGN_OR_RETURN(record.length, TakeNumber());
    if (record.type != kData) {
      if (record.type != kRaw && record.type != kEnd) {
        return Damaged("a record of an unknown type");
      }
      return record;
    }
    ASSIGN_OR_RETURN(record.offset, TakeNumber());
    ASSIGN_OR_RETURN(const uint64_t size, TakeNumber());
    if (size > PATH_MAX) return Damaged("a path is too long");
    ASSIGN_OR_RETURN(record.path, Take(size));
    return record;
  }

  // Call after the last record: nothing may follow, but the checksum must fit.
  absl::Status ReadEnd() {
    char byte;
    auto n = source_->Read(absl::MakeSpan(&byte, 1));
    if (!n.ok()) return Damaged(n.status().message());
    return *n == 0 ? absl::OkStatus() : Damaged("something follows its end");
  }

  // Of the bytes of a raw record.
  absl::StatusOr<size_t> Read(absl::Span<char> buffer) {
    absl::StatusOr<size_t> n = source_->Read(buffer);
    if (!n.ok()) return Damaged(n.status().message());
    if (*n == 0) return Damaged("it is truncated");
    return n;
  }

 private:
  absl::StatusOr<std::string> Take(size_t size) {
    std::string bytes(size, '\0');
    auto n = ReadFully(*source_, absl::MakeSpan(bytes));
    if (!n.ok()) return Damaged(n.status().message());
    if (*n < size) return Damaged("it is truncated");
    return bytes;
  }

  absl::StatusOr<uint64_t> TakeNumber() {
    ASSIGN_OR_RETURN(const std::string bytes, Take(8));
    uint64_t value = 0;
    for (size_t i = 8; i-- > 0;) {
      value = value << 8 | static_cast<uint8_t>(bytes[i]);
    }
    return value;
  }

  FdSource file_;
  std::unique_ptr<DecompressedSource> source_;
};

absl::StatusOr<std::unique_ptr<RecordReader>> OpenRecords(BorrowedFd split) {
  struct stat status;
  if (::fstat(split.get(), &status) != 0) {
    return ErrnoError(errno, "fstat(tar-split)", {.step = "layer.tar_split"});
  }
  auto reader = std::make_unique<RecordReader>(
      split, static_cast<uint64_t>(status.st_size));
  RETURN_IF_ERROR(reader->Open());
  return reader;
}

// Any other failure (descriptors, memory, rights) does not tell of the layer.
bool IsMissing(const absl::Status& failure) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(failure);
  const int error = detail.has_value() ? detail->error : 0;
  return error == ENOENT || error == ENOTDIR || error == ELOOP ||
         error == EXDEV || error == ENAMETOOLONG;
}

class TarSplitSource final : public ByteSource {
 public:
  TarSplitSource(std::unique_ptr<RecordReader> records, BorrowedFd diff)
      : records_(std::move(records)), diff_(diff) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    if (buffer.empty()) return 0;
    while (record_.length == 0 && !ended_) RETURN_IF_ERROR(Advance());
    if (ended_) return 0;
    buffer = buffer.first(std::min<uint64_t>(buffer.size(), record_.length));
    absl::StatusOr<size_t> n =
        record_.type == kRaw ? records_->Read(buffer) : ReadFile(buffer);
    RETURN_IF_ERROR(n.status());
    record_.length -= *n;
    total_ += *n;
    return n;
  }

 private:
  absl::Status Advance() {
    ASSIGN_OR_RETURN(Record next, records_->Next());
    if (next.type == kEnd) {
      if (next.length != total_) return Damaged("its length is wrong");
      RETURN_IF_ERROR(records_->ReadEnd());
      ended_ = true;
      return absl::OkStatus();
    }
    const bool same_file = next.path == record_.path && file_.valid();
    record_ = std::move(next);
    if (record_.type != kData || same_file) return absl::OkStatus();
    // O_NONBLOCK: nothing in a layer may make this wait.
    absl::StatusOr<UniqueFd> file = sys::OpenAt2(
        diff_, record_.path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, kHere);
    if (!file.ok()) {
      if (!IsMissing(file.status())) return file.status();
      return absl::DataLossError(absl::StrCat(
          "a file of the layer is missing: ", file.status().message()));
    }
    file_ = *std::move(file);
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> ReadFile(absl::Span<char> buffer) {
    ssize_t n;
    do {
      n = ::pread(file_.get(), buffer.data(), buffer.size(),
                  static_cast<off_t>(record_.offset));
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
      return absl::DataLossError(absl::StrCat(
          Quoted(record_.path), " of the layer is ",
          n == 0 ? "shorter than it was"
                 : absl::StrCat("unreadable: ", ErrnoText(errno))));
    }
    record_.offset += static_cast<uint64_t>(n);
    return static_cast<size_t>(n);
  }

  const std::unique_ptr<RecordReader> records_;
  const BorrowedFd diff_;
  Record record_;
  UniqueFd file_;
  bool ended_ = false;
  uint64_t total_ = 0;
};

}  // namespace

// ---- writing ----

void TarSplitWriter::FreeContext::operator()(ZSTD_CCtx_s* context) const {
  ::ZSTD_freeCCtx(context);
}

TarSplitWriter::TarSplitWriter() : out_(kChunk, '\0') {}
TarSplitWriter::~TarSplitWriter() = default;

absl::Status TarSplitWriter::Create(BorrowedFd dir, const std::string& name) {
  ASSIGN_OR_RETURN(fd_, sys::OpenAt2(dir, name, O_WRONLY | O_CREAT | O_TRUNC,
                                     sys::kNoSymlinks, 0600));
  context_.reset(::ZSTD_createCCtx());
  if (context_ == nullptr) {
    return absl::ResourceExhaustedError("no memory for ZSTD_createCCtx()");
  }
  ::ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, 1);
  ::ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_checksumFlag, 1);
  status_ = absl::OkStatus();
  total_ = 0;
  raw_.clear();
  in_.clear();
  Put(kMagic);
  return status_;
}

// Compresses all of in_.
void TarSplitWriter::Compress(int mode) {
  ZSTD_inBuffer in = {in_.data(), in_.size(), 0};
  for (bool more = true; more && status_.ok();) {
    ZSTD_outBuffer out = {out_.data(), out_.size(), 0};
    const size_t left = ::ZSTD_compressStream2(
        context_.get(), &out, &in, static_cast<ZSTD_EndDirective>(mode));
    if (::ZSTD_isError(left)) {
      status_ = absl::InternalError(
          absl::StrCat("ZSTD_compressStream2: ", ::ZSTD_getErrorName(left)));
      return;
    }
    status_ = sys::WriteAll(
        fd_.borrow(), absl::string_view(out_.data(), out.pos), "tar-split");
    more = mode == ZSTD_e_end ? left != 0 : in.pos < in.size;
  }
  in_.clear();
}

void TarSplitWriter::Put(absl::string_view bytes) {
  if (!status_.ok()) return;
  in_.append(bytes.data(), bytes.size());
  if (in_.size() >= kChunk) Compress(ZSTD_e_continue);
}

// Together, up to a chunk: what is written depends on the tar alone, not on the
// pieces in which it came.
void TarSplitWriter::Raw(absl::string_view bytes) {
  total_ += bytes.size();
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kChunk - raw_.size());
    raw_.append(bytes.data(), count);
    bytes.remove_prefix(count);
    if (raw_.size() == kChunk) FlushRaw();
  }
}

void TarSplitWriter::FlushRaw() {
  if (raw_.empty()) return;
  Put(absl::StrCat(absl::string_view(&kRaw, 1), Number(raw_.size())));
  Put(raw_);
  raw_.clear();
}

void TarSplitWriter::Data(const std::string& path, uint64_t offset,
                          uint64_t length) {
  if (length == 0) return;
  FlushRaw();
  Put(absl::StrCat(absl::string_view(&kData, 1), Number(length), Number(offset),
                   Number(path.size()), path));
  total_ += length;
}

absl::Status TarSplitWriter::Finish() {
  FlushRaw();
  Put(absl::StrCat(absl::string_view(&kEnd, 1), Number(total_)));
  if (status_.ok()) Compress(ZSTD_e_end);
  context_.reset();
  fd_.reset();
  return status_;
}

// ---- reading ----

absl::StatusOr<std::unique_ptr<ByteSource>> OpenTarSplit(BorrowedFd split,
                                                         BorrowedFd diff) {
  ASSIGN_OR_RETURN(auto records, OpenRecords(split));
  return std::make_unique<TarSplitSource>(std::move(records), diff);
}

namespace {

// Calls `data` for each record of file data; returns the length of the tar.
absl::StatusOr<uint64_t> WalkRecords(
    BorrowedFd split, absl::FunctionRef<absl::Status(const Record&)> data) {
  ASSIGN_OR_RETURN(auto records, OpenRecords(split));
  std::vector<char> buffer(kChunk);
  uint64_t total = 0;
  for (;;) {
    ASSIGN_OR_RETURN(Record record, records->Next());
    if (record.type == kEnd) {
      if (record.length != total) return Damaged("its length is wrong");
      RETURN_IF_ERROR(records->ReadEnd());
      return total;
    }
    total += record.length;
    if (record.type == kData) RETURN_IF_ERROR(data(record));
    while (record.type == kRaw && record.length > 0) {
      ASSIGN_OR_RETURN(const size_t n,
                       records->Read(absl::MakeSpan(buffer).first(
                           std::min<uint64_t>(buffer.size(), record.length))));
      record.length -= n;
    }
  }
}

}  // namespace

absl::StatusOr<uint64_t> TarSplitSize(BorrowedFd split) {
  return WalkRecords(split, [](const Record&) { return absl::OkStatus(); });
}

absl::Status CheckTarSplitFiles(BorrowedFd split, BorrowedFd diff) {
  const auto check = [diff](const Record& record) -> absl::Status {
    absl::StatusOr<UniqueFd> file =
        sys::OpenAt2(diff, record.path, O_PATH | O_NOFOLLOW, kHere);
    if (!file.ok() && !IsMissing(file.status())) return file.status();
    if (!file.ok()) {
      return absl::DataLossError(absl::StrCat(
          "a file of the layer is missing: ", file.status().message()));
    }
    struct stat status;
    if (::fstat(file->get(), &status) != 0) {
      return ErrnoError(errno, absl::StrCat("fstat(", Quoted(record.path), ")"),
                        {.step = "layer.tar_split", .path = record.path});
    }
    const uint64_t size = static_cast<uint64_t>(status.st_size);
    if (S_ISREG(status.st_mode) && size >= record.length &&
        size - record.length >= record.offset) {
      return absl::OkStatus();
    }
    return absl::DataLossError(absl::StrCat(Quoted(record.path),
                                            " of the layer has ", size,
                                            " bytes, fewer than it had"));
  };
  return WalkRecords(split, check).status();
}

}  // namespace caisson::layer
