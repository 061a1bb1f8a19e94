// The deflate data of gzip members (RFC 1951), by whichever library. Internal
// to decompress.h.
#ifndef CAISSON_LIB_LAYER_INFLATER_H_
#define CAISSON_LIB_LAYER_INFLATER_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace caisson::layer {

// Thread-compatible.
class Inflater {
 public:
  virtual ~Inflater() = default;

  // Before the data of each member.
  virtual void Reset() = 0;

  struct Step {
    size_t consumed = 0;
    size_t produced = 0;
    bool finished = false;      // with the data, and the trailer behind it
    absl::string_view problem;  // what is wrong with them; empty: nothing
  };
  // Inflates some of `in` into `out`, and checks the trailer.
  virtual Step Run(absl::string_view in, absl::Span<char> out) = 0;

  // CRC-32 of gzip, of `bytes` behind those with the checksum `crc`.
  virtual uint32_t Crc32(uint32_t crc, absl::string_view bytes) const = 0;
};

using InflaterFactory = std::unique_ptr<Inflater> (*)();

// By ISA-L, twice as fast as zlib, but only to be had as a shared library.
std::unique_ptr<Inflater> MakeIsalInflater();
// By zlib.
std::unique_ptr<Inflater> MakeZlibInflater();

inline constexpr absl::string_view kInvalidBlock = "invalid deflate block";
inline constexpr absl::string_view kInvalidSymbol = "invalid deflate symbol";
inline constexpr absl::string_view kInvalidDistance =
    "deflate distance before the start of the data";
inline constexpr absl::string_view kWrongChecksum =
    "the CRC-32 or length of the member does not match its data";
inline constexpr absl::string_view kInvalidDeflate = "invalid deflate data";

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_INFLATER_H_
