// gzip (RFC 1952). Internal to decompress.h, which has the contract.
#ifndef CAISSON_LIB_LAYER_GZIP_SOURCE_H_
#define CAISSON_LIB_LAYER_GZIP_SOURCE_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/layer/buffered_input.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/inflater.h"

namespace caisson::layer {

class GzipSource final : public ByteSource {
 public:
  // `input` must outlive the source and be at the start of a member.
  GzipSource(BufferedInput& input, std::unique_ptr<Inflater> inflater)
      : input_(input), inflater_(std::move(inflater)) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  enum class State { kHeader, kBody, kBetweenMembers, kEnd };

  absl::Status ReadHeader();
  absl::Status TakeHeaderBytes(size_t count, char* out);
  absl::Status SkipHeaderString();
  absl::StatusOr<size_t> Inflate(absl::Span<char> buffer);
  absl::Status ReadBetweenMembers();
  absl::Status Malformed(absl::string_view problem) const;
  absl::Status Truncated(absl::string_view where) const;

  BufferedInput& input_;
  std::unique_ptr<Inflater> inflater_;
  State state_ = State::kHeader;
  uint32_t header_crc_ = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_GZIP_SOURCE_H_
