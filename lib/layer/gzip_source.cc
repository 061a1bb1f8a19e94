#include "lib/layer/gzip_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

// RFC 1952, 2.3.1.
constexpr uint8_t kMagic1 = 0x1f;
constexpr uint8_t kMagic2 = 0x8b;
constexpr uint8_t kDeflate = 8;
constexpr uint8_t kFlagHeaderCrc = 0x02;
constexpr uint8_t kFlagExtra = 0x04;
constexpr uint8_t kFlagName = 0x08;
constexpr uint8_t kFlagComment = 0x10;
constexpr uint8_t kFlagsReserved = 0xe0;
constexpr size_t kFixedHeader = 10;

uint32_t LittleEndian16(const char* bytes) {
  return static_cast<uint8_t>(bytes[0]) |
         static_cast<uint32_t>(static_cast<uint8_t>(bytes[1])) << 8;
}

}  // namespace

absl::Status GzipSource::Malformed(absl::string_view problem) const {
  return absl::InvalidArgumentError(
      absl::StrCat("gzip stream at offset ", input_.offset(), ": ", problem));
}

absl::Status GzipSource::Truncated(absl::string_view where) const {
  return absl::DataLossError(
      absl::StrCat("gzip stream is truncated: it ends at "
                   "offset ",
                   input_.offset(), " in ", where));
}

absl::StatusOr<size_t> GzipSource::Read(absl::Span<char> buffer) {
  if (buffer.empty()) return 0;
  while (state_ != State::kEnd) {
    switch (state_) {
      case State::kHeader:
        RETURN_IF_ERROR(ReadHeader());
        break;
      case State::kBody: {
        ASSIGN_OR_RETURN(const size_t got, Inflate(buffer));
        if (got > 0) return got;
        break;
      }
      case State::kBetweenMembers:
        RETURN_IF_ERROR(ReadBetweenMembers());
        break;
      case State::kEnd:
        break;
    }
  }
  return 0;
}

absl::Status GzipSource::TakeHeaderBytes(size_t count, char* out) {
  ASSIGN_OR_RETURN(const absl::string_view bytes, input_.Peek(count));
  if (bytes.size() < count) return Truncated("a member header");
  header_crc_ = inflater_->Crc32(header_crc_, bytes.substr(0, count));
  if (out != nullptr) bytes.copy(out, count);
  input_.Consume(count);
  return absl::OkStatus();
}

absl::Status GzipSource::SkipHeaderString() {
  for (;;) {
    ASSIGN_OR_RETURN(const absl::string_view bytes, input_.Peek(1));
    if (bytes.empty()) return Truncated("a member header");
    const size_t nul = bytes.find('\0');
    if (nul != absl::string_view::npos) {
      return TakeHeaderBytes(nul + 1, nullptr);
    }
    RETURN_IF_ERROR(TakeHeaderBytes(bytes.size(), nullptr));
  }
}

absl::Status GzipSource::ReadHeader() {
  char fixed[kFixedHeader];
  header_crc_ = 0;
  RETURN_IF_ERROR(TakeHeaderBytes(kFixedHeader, fixed));
  if (static_cast<uint8_t>(fixed[2]) != kDeflate) {
    return Malformed("the compression method is not deflate");
  }
  const uint8_t flags = static_cast<uint8_t>(fixed[3]);
  if ((flags & kFlagsReserved) != 0) {
    return Malformed("reserved header flags are set");
  }
  if ((flags & kFlagExtra) != 0) {
    char length[2];
    RETURN_IF_ERROR(TakeHeaderBytes(sizeof(length), length));
    RETURN_IF_ERROR(TakeHeaderBytes(LittleEndian16(length), nullptr));
  }
  if ((flags & kFlagName) != 0) RETURN_IF_ERROR(SkipHeaderString());
  if ((flags & kFlagComment) != 0) RETURN_IF_ERROR(SkipHeaderString());
  if ((flags & kFlagHeaderCrc) != 0) {
    const uint32_t expected = header_crc_ & 0xffff;
    char crc[2];
    RETURN_IF_ERROR(TakeHeaderBytes(sizeof(crc), crc));
    if (LittleEndian16(crc) != expected) {
      return Malformed("the CRC of the member header does not match");
    }
  }
  inflater_->Reset();
  state_ = State::kBody;
  return absl::OkStatus();
}

absl::StatusOr<size_t> GzipSource::Inflate(absl::Span<char> buffer) {
  for (;;) {
    ASSIGN_OR_RETURN(const absl::string_view in, input_.Peek(1));
    const Inflater::Step step = inflater_->Run(in, buffer);
    input_.Consume(step.consumed);
    if (!step.problem.empty()) return Malformed(step.problem);
    if (step.finished) {
      state_ = State::kBetweenMembers;
      return step.produced;
    }
    if (step.produced > 0) return step.produced;
    // Without input and without output the data cannot go on.
    if (in.empty()) return Truncated("compressed data");
    if (step.consumed == 0) return Malformed("the decoder makes no progress");
  }
}

absl::Status GzipSource::ReadBetweenMembers() {
  ASSIGN_OR_RETURN(absl::string_view bytes, input_.Peek(2));
  if (bytes.size() >= 2 && static_cast<uint8_t>(bytes[0]) == kMagic1 &&
      static_cast<uint8_t>(bytes[1]) == kMagic2) {
    state_ = State::kHeader;
    return absl::OkStatus();
  }
  while (!bytes.empty()) {
    const size_t zeros = std::min(bytes.find_first_not_of('\0'), bytes.size());
    input_.Consume(zeros);
    if (zeros < bytes.size()) {
      return Malformed("bytes behind the last member that are no padding");
    }
    ASSIGN_OR_RETURN(bytes, input_.Peek(1));
  }
  state_ = State::kEnd;
  return absl::OkStatus();
}

}  // namespace caisson::layer
