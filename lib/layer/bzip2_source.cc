#include "lib/layer/bzip2_source.h"

#include <bzlib.h>

#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

constexpr size_t kSignature = 10;  // "BZh", a level, six bytes
constexpr absl::string_view kBlock = "1AY&SY";
constexpr absl::string_view kEnd =
    "\x17\x72\x45\x38\x50\x90";  // of an empty one

}  // namespace

bool IsBzip2(absl::string_view bytes) {
  if (bytes.size() < kSignature || !absl::StartsWith(bytes, "BZh"))
    return false;
  const absl::string_view block = bytes.substr(4, kBlock.size());
  return block == kBlock || block == kEnd;
}

struct Bzip2Source::Stream {
  bz_stream bz = {};
  ~Stream() { ::BZ2_bzDecompressEnd(&bz); }
};

Bzip2Source::Bzip2Source(BufferedInput& input) : input_(input) {}
Bzip2Source::~Bzip2Source() = default;

absl::Status Bzip2Source::Error(int code) const {
  const std::string where =
      absl::StrCat("bzip2 stream at offset ", input_.offset(), ": ");
  if (code == BZ_MEM_ERROR) {
    return absl::ResourceExhaustedError(absl::StrCat(where, "out of memory"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(where, "it is damaged (bzip2 error ", code, ")"));
}

// Streams may follow each other, as pbzip2 writes them.
absl::Status Bzip2Source::StartStream() {
  ASSIGN_OR_RETURN(const absl::string_view head, input_.Peek(kSignature));
  if (head.empty()) {
    end_ = true;
    return absl::OkStatus();
  }
  if (!IsBzip2(head)) {
    return absl::InvalidArgumentError(
        absl::StrCat("bzip2 stream at offset ", input_.offset(),
                     ": bytes behind the last stream"));
  }
  stream_ = std::make_unique<Stream>();
  const int result =
      ::BZ2_bzDecompressInit(&stream_->bz, /*verbosity=*/0, /*small=*/0);
  return result == BZ_OK ? absl::OkStatus() : Error(result);
}

absl::StatusOr<size_t> Bzip2Source::Read(absl::Span<char> buffer) {
  buffer = buffer.first(std::min<size_t>(
      buffer.size(), std::numeric_limits<unsigned int>::max()));
  if (buffer.empty()) return 0;
  for (;;) {
    if (stream_ == nullptr) RETURN_IF_ERROR(StartStream());
    if (end_) return 0;
    ASSIGN_OR_RETURN(const absl::string_view in, input_.Peek(1));
    bz_stream& bz = stream_->bz;
    bz.next_in = const_cast<char*>(in.data());
    bz.avail_in = static_cast<unsigned int>(in.size());
    bz.next_out = buffer.data();
    bz.avail_out = static_cast<unsigned int>(buffer.size());
    const int result = ::BZ2_bzDecompress(&bz);
    input_.Consume(in.size() - bz.avail_in);
    const size_t got = buffer.size() - bz.avail_out;
    if (result == BZ_STREAM_END) {
      stream_.reset();
    } else if (result != BZ_OK) {
      return Error(result);
    } else if (in.empty() && got == 0) {
      return absl::DataLossError(absl::StrCat(
          "bzip2 stream is truncated: it ends at offset ", input_.offset()));
    }
    if (got > 0) return got;
  }
}

}  // namespace caisson::layer
