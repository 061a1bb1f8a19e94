// Hostile compressed streams. In which pieces a stream arrives and is asked for
// changes nothing; what zlib makes of a gzip file is what we make of it; and
// what was compressed in any number of members, frames or streams comes back.
//
// The first byte of an input says what to do with the rest, the second in which
// pieces.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>

#include <algorithm>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/layer/test_streams.h"

namespace {

using caisson::layer::Compression;
using caisson::layer::MemorySource;

constexpr size_t kMaxOutput = 256 << 10;

void Require(bool condition) {
  if (!condition) abort();
}

struct Result {
  std::string output;  // also what came before an error
  absl::Status status;
  Compression compression = Compression::kNone;
};

Result Inflate(absl::string_view stream, size_t in_chunk, size_t out_chunk) {
  Result result;
  MemorySource input(stream, in_chunk);
  const auto source = caisson::layer::Decompress(
      input, {.max_output_bytes = kMaxOutput, .max_window_bytes = 1 << 22});
  result.status = source.status();
  if (!source.ok()) return result;
  result.compression = (*source)->compression();
  std::string buffer(out_chunk, '\0');
  for (;;) {
    const auto n = (*source)->Read(absl::MakeSpan(buffer));
    if (!n.ok()) {
      result.status = n.status();
      // It stays an error, and the same one.
      Require((*source)->Read(absl::MakeSpan(buffer)).status() == n.status());
      return result;
    }
    if (*n == 0) break;
    result.output.append(buffer, 0, *n);
  }
  // A digest around the input has seen all of it.
  const auto left = caisson::layer::Drain(input);
  Require(left.ok() && *left == 0);
  return result;
}

bool IsBegin(const std::string& begin, const std::string& all) {
  return begin.size() <= all.size() && all.compare(0, begin.size(), begin) == 0;
}

// The output of gunzip, by zlib; nullopt if it refuses the file, or if that
// expands beyond the limit.
std::optional<std::string> Gunzip(absl::string_view stream) {
  z_stream z = {};
  if (::inflateInit2(&z, 15 + 16) != Z_OK) return std::nullopt;
  std::string out(kMaxOutput + 1, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(stream.data()));
  z.avail_in = static_cast<uInt>(stream.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  bool good = false;
  for (;;) {
    const int code = ::inflate(&z, Z_NO_FLUSH);
    if (code != Z_STREAM_END) break;
    // Another member, or zeros up to the end.
    if (z.avail_in < 2 || z.next_in[0] != 0x1f || z.next_in[1] != 0x8b) {
      good = std::all_of(z.next_in, z.next_in + z.avail_in,
                         [](Bytef byte) { return byte == 0; });
      break;
    }
    ::inflateReset(&z);
  }
  out.resize(out.size() - z.avail_out);
  ::inflateEnd(&z);
  if (!good || out.size() > kMaxOutput) return std::nullopt;
  return out;
}

void CheckHostile(absl::string_view stream, size_t chunk) {
  const Result whole = Inflate(stream, SIZE_MAX, 64 << 10);
  const Result pieces = Inflate(stream, chunk, 1 + (chunk * 7) % 999);
  Require(IsBegin(whole.output, pieces.output) ||
          IsBegin(pieces.output, whole.output));
  Require(whole.compression == pieces.compression);
  if (whole.status.ok() || pieces.status.ok()) {
    Require(whole.status.ok() && pieces.status.ok());
    Require(whole.output == pieces.output);
  }
  if (whole.compression != Compression::kGzip) return;
  const std::optional<std::string> zlib = Gunzip(stream);
  if (!absl::IsResourceExhausted(whole.status)) {
    Require(zlib.has_value() == whole.status.ok());
  }
  if (zlib.has_value() && whole.status.ok()) Require(*zlib == whole.output);
}

// `data` in pieces, each compressed in a way of its method.
std::string Compress(absl::string_view data, uint8_t method, size_t chunk) {
  std::string out;
  for (size_t i = 0;; ++i) {
    const absl::string_view piece = data.substr(0, chunk * (1 + i % 5));
    data.remove_prefix(piece.size());
    switch (method % 4) {
      case 0:
        out += i % 2 == 0 ? caisson::layer::Gzip(piece)
                          : caisson::layer::GzipStoredWithFields(piece);
        break;
      case 1:
        if (i % 3 == 0) out += caisson::layer::ZstdSkippable(piece);
        out += caisson::layer::Zstd(piece);
        break;
      case 2:
        out += caisson::layer::Xz(piece);
        out.append(i % 3 * 4, '\0');
        break;
      default:
        out += caisson::layer::Bzip2(piece);
    }
    if (data.empty()) return out;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint8_t what = data[0];
  const size_t chunk = 1 + size_t{data[1]} * 3;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 2,
                               size - 2);
  // Printable, so that corpora can be read.
  if (what != 'c') {
    CheckHostile(rest, chunk);
    return 0;
  }
  if (rest.empty()) return 0;
  // Few streams: each has a decoder made for it.
  const size_t piece = std::max(chunk, rest.size() / 8);
  const std::string stream =
      Compress(rest.substr(1), static_cast<uint8_t>(rest[0]), piece);
  const Result back = Inflate(stream, chunk, 1 + (chunk * 13) % 5000);
  Require(back.status.ok() && back.output == rest.substr(1));
  return 0;
}
