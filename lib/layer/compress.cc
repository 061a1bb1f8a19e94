#include "lib/layer/compress.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr size_t kBuffer = 256 << 10;
constexpr int kZstdLevel = 3;  // the default of zstd(1)

// Where the compressed bytes go.
class Output final {
 public:
  explicit Output(BorrowedFd fd) : fd_(fd) {}

  absl::Status Write(absl::string_view bytes) {
    hash_.Update(absl::MakeConstSpan(bytes.data(), bytes.size()));
    size_ += bytes.size();
    return sys::WriteAll(fd_, bytes, "layer");
  }
  CompressedBlob Finish() { return {.digest = hash_.Finish(), .size = size_}; }

 private:
  const BorrowedFd fd_;
  Sha256 hash_;
  uint64_t size_ = 0;
};

absl::Status Gzip(ByteSource& source, Output& output) {
  std::vector<char> in(kBuffer);
  std::vector<char> out(kBuffer);
  std::vector<uint8_t> level(ISAL_DEF_LVL2_DEFAULT);
  const auto stream = std::make_unique<isal_zstream>();
  ::isal_deflate_init(stream.get());
  stream->level = 2;
  stream->level_buf = level.data();
  stream->level_buf_size = static_cast<uint32_t>(level.size());
  stream->gzip_flag = IGZIP_GZIP;
  while (stream->internal_state.state != ZSTATE_END) {
    if (stream->avail_in == 0 && stream->end_of_stream == 0) {
      ASSIGN_OR_RETURN(const size_t n, ReadFully(source, absl::MakeSpan(in)));
      stream->next_in = reinterpret_cast<uint8_t*>(in.data());
      stream->avail_in = static_cast<uint32_t>(n);
      stream->end_of_stream = n < in.size() ? 1 : 0;
    }
    stream->next_out = reinterpret_cast<uint8_t*>(out.data());
    stream->avail_out = static_cast<uint32_t>(out.size());
    if (const int result = ::isal_deflate(stream.get()); result != COMP_OK) {
      return absl::InternalError(absl::StrCat("isal_deflate: ", result));
    }
    RETURN_IF_ERROR(output.Write(
        absl::string_view(out.data(), out.size() - stream->avail_out)));
  }
  return absl::OkStatus();
}

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ::ZSTD_freeCCtx(context); }
};

absl::Status Zstd(ByteSource& source, Output& output) {
  std::vector<char> in(kBuffer);
  std::vector<char> out(kBuffer);
  const std::unique_ptr<ZSTD_CCtx, FreeContext> context(::ZSTD_createCCtx());
  if (context == nullptr) {
    return absl::ResourceExhaustedError("no memory for ZSTD_createCCtx()");
  }
  ::ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kZstdLevel);
  ::ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  for (bool last = false; !last;) {
    ASSIGN_OR_RETURN(const size_t n, ReadFully(source, absl::MakeSpan(in)));
    last = n < in.size();
    ZSTD_inBuffer input = {in.data(), n, 0};
    for (bool more = true; more;) {
      ZSTD_outBuffer chunk = {out.data(), out.size(), 0};
      const size_t left = ::ZSTD_compressStream2(
          context.get(), &chunk, &input, last ? ZSTD_e_end : ZSTD_e_continue);
      if (::ZSTD_isError(left)) {
        return absl::InternalError(
            absl::StrCat("ZSTD_compressStream2: ", ::ZSTD_getErrorName(left)));
      }
      RETURN_IF_ERROR(output.Write(absl::string_view(out.data(), chunk.pos)));
      more = last ? left != 0 : input.pos < input.size;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompressedBlob> CompressTo(ByteSource& source, BorrowedFd fd,
                                          Compression compression) {
  Output output(fd);
  switch (compression) {
    case Compression::kGzip:
      RETURN_IF_ERROR(Gzip(source, output));
      return output.Finish();
    case Compression::kZstd:
      RETURN_IF_ERROR(Zstd(source, output));
      return output.Finish();
    case Compression::kNone:
    case Compression::kXz:
    case Compression::kBzip2:
      break;
  }
  return absl::InvalidArgumentError("CompressTo: neither gzip nor zstd");
}

}  // namespace caisson::layer
