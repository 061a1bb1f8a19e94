#include <zlib.h>

#include <algorithm>
#include <limits>
#include <new>

#include "absl/strings/match.h"
#include "lib/layer/inflater.h"

namespace caisson::layer {
namespace {

// RFC 1952, 2.3.1: CRC-32 and length, little-endian.
constexpr size_t kTrailer = 8;

class ZlibInflater final : public Inflater {
 public:
  ZlibInflater() {
    // Raw deflate data with the largest window.
    if (::inflateInit2(&stream_, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  ~ZlibInflater() override { ::inflateEnd(&stream_); }

  void Reset() override {
    ::inflateReset(&stream_);
    data_ended_ = false;
    trailer_size_ = 0;
    crc_ = 0;
    length_ = 0;
  }

  Step Run(absl::string_view in, absl::Span<char> out) override {
    Step step;
    if (!data_ended_) step = Inflate(in, out);
    if (!step.problem.empty() || !data_ended_) return step;
    const absl::string_view rest = in.substr(step.consumed);
    const size_t n = std::min(rest.size(), kTrailer - trailer_size_);
    rest.copy(trailer_ + trailer_size_, n);
    trailer_size_ += n;
    step.consumed += n;
    if (trailer_size_ < kTrailer) return step;
    step.finished = true;
    if (Number(0) != crc_ || Number(4) != length_) {
      step.problem = kWrongChecksum;
    }
    return step;
  }

  uint32_t Crc32(uint32_t crc, absl::string_view bytes) const override {
    return static_cast<uint32_t>(::crc32_z(
        crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
  }

 private:
  Step Inflate(absl::string_view in, absl::Span<char> out) {
    constexpr size_t kMax = std::numeric_limits<uInt>::max();
    const auto room = static_cast<uInt>(std::min(out.size(), kMax));
    const auto offered = static_cast<uInt>(std::min(in.size(), kMax));
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    stream_.avail_in = offered;
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = room;
    const int result = ::inflate(&stream_, Z_NO_FLUSH);
    Step step;
    step.consumed = offered - stream_.avail_in;
    step.produced = room - stream_.avail_out;
    crc_ = Crc32(crc_, absl::string_view(out.data(), step.produced));
    length_ += static_cast<uint32_t>(step.produced);
    data_ended_ = result == Z_STREAM_END;
    // Z_BUF_ERROR: it needs more, of either.
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      step.problem = Problem();
    }
    return step;
  }

  absl::string_view Problem() const {
    const absl::string_view text = stream_.msg != nullptr ? stream_.msg : "";
    if (absl::StrContains(text, "too far back")) return kInvalidDistance;
    if (absl::StrContains(text, "invalid distance code") ||
        absl::StrContains(text, "invalid literal/length code")) {
      return kInvalidSymbol;
    }
    return text.empty() ? kInvalidDeflate : kInvalidBlock;
  }

  uint32_t Number(size_t at) const {
    uint32_t value = 0;
    for (size_t i = 4; i-- > 0;) {
      value = value << 8 | static_cast<uint8_t>(trailer_[at + i]);
    }
    return value;
  }

  z_stream stream_ = {};
  bool data_ended_ = false;
  char trailer_[kTrailer] = {};
  size_t trailer_size_ = 0;
  uint32_t crc_ = 0;
  uint32_t length_ = 0;
};

}  // namespace

std::unique_ptr<Inflater> MakeZlibInflater() {
  return std::make_unique<ZlibInflater>();
}

}  // namespace caisson::layer
