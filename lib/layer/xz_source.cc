#include "lib/layer/xz_source.h"

#include <lzma.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {

struct XzSource::Stream {
  lzma_stream lzma = LZMA_STREAM_INIT;
  ~Stream() { ::lzma_end(&lzma); }
};

XzSource::XzSource(BufferedInput& input, uint64_t max_window_bytes)
    : input_(input),
      max_window_bytes_(max_window_bytes),
      stream_(std::make_unique<Stream>()) {}

XzSource::~XzSource() = default;

absl::StatusOr<std::unique_ptr<XzSource>> XzSource::Create(
    BufferedInput& input, uint64_t max_window_bytes, uint64_t overhead) {
  auto source =
      std::unique_ptr<XzSource>(new XzSource(input, max_window_bytes));
  const uint64_t max_memory =
      max_window_bytes + std::min(overhead, UINT64_MAX - max_window_bytes);
  // Several streams with padding between and behind them, as xz(1) reads them.
  const lzma_ret result = ::lzma_stream_decoder(&source->stream_->lzma,
                                                max_memory, LZMA_CONCATENATED);
  if (result != LZMA_OK) return source->Error(result);
  return source;
}

absl::Status XzSource::Error(int code) const {
  const std::string where =
      absl::StrCat("xz stream at offset ", input_.offset(), ": ");
  switch (code) {
    case LZMA_MEMLIMIT_ERROR:
      return absl::ResourceExhaustedError(absl::StrCat(
          where, "it needs a larger window than max_window_bytes (",
          max_window_bytes_, ")"));
    case LZMA_MEM_ERROR:
      return absl::ResourceExhaustedError(absl::StrCat(where, "out of memory"));
    case LZMA_OPTIONS_ERROR:
      return absl::InvalidArgumentError(
          absl::StrCat(where, "it uses options that liblzma does not know"));
    case LZMA_BUF_ERROR:
      return absl::DataLossError(absl::StrCat(where, "it is truncated"));
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(where, "it is damaged (LZMA error ", code, ")"));
  }
}

absl::StatusOr<size_t> XzSource::Read(absl::Span<char> buffer) {
  if (buffer.empty() || end_) return 0;
  lzma_stream& lzma = stream_->lzma;
  lzma.next_out = reinterpret_cast<uint8_t*>(buffer.data());
  lzma.avail_out = buffer.size();
  while (lzma.avail_out == buffer.size()) {
    ASSIGN_OR_RETURN(const absl::string_view in, input_.Peek(1));
    lzma.next_in = reinterpret_cast<const uint8_t*>(in.data());
    lzma.avail_in = in.size();
    const lzma_ret result =
        ::lzma_code(&lzma, in.empty() ? LZMA_FINISH : LZMA_RUN);
    input_.Consume(in.size() - lzma.avail_in);
    if (result == LZMA_STREAM_END) {
      end_ = true;
      break;
    }
    if (result != LZMA_OK) return Error(result);
  }
  return buffer.size() - lzma.avail_out;
}

}  // namespace caisson::layer
