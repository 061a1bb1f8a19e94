// Hostile tars, compressed or not. What the reader answers and what it shows an
// observer are together the whole stream, in order; and what it understood of
// an entry, the writer writes so that it is understood again.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <algorithm>
#include <optional>
#include <string>

#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/layer/tar_reader.h"
#include "lib/layer/tar_writer.h"

namespace {

using caisson::layer::MemorySource;
using caisson::layer::TarEntry;
using caisson::layer::TarObserver;
using caisson::layer::TarReader;

constexpr size_t kMaxTar = 128 << 10;

void Require(bool condition) {
  if (!condition) abort();
}

class Recorder final : public TarObserver {
 public:
  void Raw(absl::string_view bytes) override {
    text.append(bytes.data(), bytes.size());
  }
  std::string text;
};

void WriteAndReadAgain(TarEntry entry) {
  entry.sparse = false;
  std::sort(entry.xattrs.begin(), entry.xattrs.end());
  auto header = caisson::layer::TarHeaderOf(entry);
  if (!header.ok()) return;
  MemorySource source(*header);
  caisson::layer::TarLimits limits;
  limits.max_extension_bytes = 4 << 20;
  limits.max_path_bytes = 1 << 20;
  TarReader reader(source, limits);
  const auto again = reader.Next();
  Require(again.ok() && again->has_value());
  const TarEntry& read = **again;
  Require(read.name == entry.name && read.type == entry.type);
  Require(read.linkname == entry.linkname && read.size == entry.size);
  Require(read.mode == entry.mode && read.uid == entry.uid);
  Require(read.gid == entry.gid && read.mtime_sec == entry.mtime_sec);
  Require(read.mtime_nsec == entry.mtime_nsec);
  Require(read.xattrs == entry.xattrs);
}

void Read(absl::string_view tar) {
  MemorySource source(tar, 700);
  Recorder seen;
  TarReader reader(source, {}, &seen);
  std::string buffer(1000, '\0');
  for (;;) {
    const auto entry = reader.Next();
    if (!entry.ok()) return;
    if (!entry->has_value()) break;
    WriteAndReadAgain(**entry);
    // Of every other entry the data is passed over.
    if ((*entry)->header_offset % 1024 == 0) continue;
    for (;;) {
      const auto n = reader.Read(absl::MakeSpan(buffer));
      if (!n.ok()) return;
      if (*n == 0) break;
      seen.Raw(absl::string_view(buffer).substr(0, *n));
    }
  }
  Require(seen.text == tar);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  MemorySource compressed(input);
  const auto source = caisson::layer::Decompress(
      compressed, {.max_output_bytes = kMaxTar, .max_window_bytes = 1 << 20});
  if (!source.ok()) return 0;
  std::string tar(kMaxTar + 1, '\0');
  const auto n = caisson::layer::ReadFully(**source, absl::MakeSpan(tar));
  if (!n.ok()) return 0;
  Read(absl::string_view(tar).substr(0, *n));
  return 0;
}
