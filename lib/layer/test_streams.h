// Compressed streams for tests.
#ifndef CAISSON_LIB_LAYER_TEST_STREAMS_H_
#define CAISSON_LIB_LAYER_TEST_STREAMS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

// One gzip member, compressed by ISA-L.
std::string Gzip(absl::string_view data);
// The same of `size` zero bytes, which are never held in memory.
std::string GzipZeros(uint64_t size);
// One gzip member of stored blocks with the optional header fields: extra,
// name, comment and header CRC.
std::string GzipStoredWithFields(absl::string_view data);
// One zstd frame with a checksum; window_log 0 is the library's choice.
std::string Zstd(absl::string_view data, int window_log = 0);
// One xz stream with a CRC64, by liblzma; one bzip2 stream.
std::string Xz(absl::string_view data);
std::string Bzip2(absl::string_view data);
// A zstd skippable frame.
std::string ZstdSkippable(absl::string_view data, int variant = 0);

// Bytes that compress about two to one and repeat at no power of two.
std::string SampleText(size_t size);

// The rest of `source`, read in pieces of `chunk`.
absl::StatusOr<std::string> ReadToEnd(ByteSource& source, size_t chunk = 4096);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_STREAMS_H_
