#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <limits>

#include "lib/layer/inflater.h"

namespace caisson::layer {
namespace {

absl::string_view Problem(int result) {
  switch (result) {
    case ISAL_DECOMP_OK:
      return {};
    case ISAL_INVALID_BLOCK:
      return kInvalidBlock;
    case ISAL_INVALID_SYMBOL:
      return kInvalidSymbol;
    case ISAL_INVALID_LOOKBACK:
      return kInvalidDistance;
    case ISAL_INCORRECT_CHECKSUM:
      return kWrongChecksum;
    default:
      return kInvalidDeflate;
  }
}

class IsalInflater final : public Inflater {
 public:
  IsalInflater() {
    isal_inflate_init(&state_);
    // The header is read elsewhere, the trailer verified by the library.
    state_.crc_flag = ISAL_GZIP_NO_HDR_VER;
  }

  void Reset() override { isal_inflate_reset(&state_); }

  Step Run(absl::string_view in, absl::Span<char> out) override {
    constexpr size_t kMax = std::numeric_limits<uint32_t>::max();
    const auto room = static_cast<uint32_t>(std::min(out.size(), kMax));
    state_.next_out = reinterpret_cast<uint8_t*>(out.data());
    state_.avail_out = room;
    state_.next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(in.data()));
    state_.avail_in = static_cast<uint32_t>(std::min(in.size(), kMax));
    const uint32_t offered = state_.avail_in;
    const int result = isal_inflate(&state_);
    return {.consumed = offered - state_.avail_in,
            .produced = room - state_.avail_out,
            .finished = state_.block_state == ISAL_BLOCK_FINISH,
            .problem = Problem(result)};
  }

  uint32_t Crc32(uint32_t crc, absl::string_view bytes) const override {
    return crc32_gzip_refl(crc, reinterpret_cast<const uint8_t*>(bytes.data()),
                           bytes.size());
  }

 private:
  inflate_state state_;
};

}  // namespace

std::unique_ptr<Inflater> MakeIsalInflater() {
  return std::make_unique<IsalInflater>();
}

}  // namespace caisson::layer
