#include "lib/layer/test_streams.h"

#include <bzlib.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <lzma.h>
#include <string.h>
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

void AppendLittleEndian(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) {
    out.push_back(static_cast<char>(value >> (8 * i)));
  }
}

uint32_t Crc32(absl::string_view data) {
  return crc32_gzip_refl(0, reinterpret_cast<const uint8_t*>(data.data()),
                         data.size());
}

// Compresses `size` bytes that repeat `piece`.
std::string GzipRepeated(absl::string_view piece, uint64_t size) {
  std::string out;
  std::string buffer(1 << 20, '\0');
  auto stream = std::make_unique<isal_zstream>();
  isal_deflate_init(stream.get());
  const auto level_buffer = std::make_unique<uint8_t[]>(ISAL_DEF_LVL1_DEFAULT);
  stream->level = 1;
  stream->level_buf = level_buffer.get();
  stream->level_buf_size = ISAL_DEF_LVL1_DEFAULT;
  stream->gzip_flag = IGZIP_GZIP;
  while (stream->internal_state.state != ZSTATE_END) {
    if (stream->avail_in == 0) {
      const size_t part = std::min<uint64_t>(size, piece.size());
      size -= part;
      stream->next_in =
          reinterpret_cast<uint8_t*>(const_cast<char*>(piece.data()));
      stream->avail_in = static_cast<uint32_t>(part);
      stream->end_of_stream = size == 0;
    }
    stream->next_out = reinterpret_cast<uint8_t*>(buffer.data());
    stream->avail_out = static_cast<uint32_t>(buffer.size());
    isal_deflate(stream.get());
    out.append(buffer, 0, buffer.size() - stream->avail_out);
  }
  return out;
}

}  // namespace

std::string Gzip(absl::string_view data) {
  return GzipRepeated(data, data.size());
}

std::string GzipZeros(uint64_t size) {
  return GzipRepeated(std::string(1 << 20, '\0'), size);
}

std::string GzipStoredWithFields(absl::string_view data) {
  std::string out("\x1f\x8b\x08\x1e\0\0\0\0\0\xff", 10);
  AppendLittleEndian(out, 5, 2);
  out += "extra";
  out += std::string("name\0comment\0", 13);
  AppendLittleEndian(out, Crc32(out) & 0xffff, 2);
  absl::string_view rest = data;
  do {
    const absl::string_view block = rest.substr(0, 0xffff);
    rest.remove_prefix(block.size());
    out.push_back(rest.empty() ? 1 : 0);
    AppendLittleEndian(out, block.size(), 2);
    AppendLittleEndian(out, ~block.size(), 2);
    out.append(block.data(), block.size());
  } while (!rest.empty());
  AppendLittleEndian(out, Crc32(data), 4);
  AppendLittleEndian(out, data.size(), 4);
  return out;
}

std::string Zstd(absl::string_view data, int window_log) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
  if (window_log > 0) {
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
  }
  // Streaming without a known size, so that the frame declares its window.
  std::string out(ZSTD_compressBound(data.size()) + 64, '\0');
  ZSTD_inBuffer in = {data.data(), data.size(), 0};
  ZSTD_outBuffer buffer = {out.data(), out.size(), 0};
  ZSTD_compressStream2(context, &buffer, &in, ZSTD_e_continue);
  ZSTD_compressStream2(context, &buffer, &in, ZSTD_e_end);
  ZSTD_freeCCtx(context);
  out.resize(buffer.pos);
  return out;
}

std::string Xz(absl::string_view data) {
  std::string out(::lzma_stream_buffer_bound(data.size()), '\0');
  size_t size = 0;
  ::lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, nullptr,
                            reinterpret_cast<const uint8_t*>(data.data()),
                            data.size(), reinterpret_cast<uint8_t*>(out.data()),
                            &size, out.size());
  out.resize(size);
  return out;
}

std::string Bzip2(absl::string_view data) {
  std::string out(data.size() + data.size() / 100 + 600, '\0');
  unsigned int size = static_cast<unsigned int>(out.size());
  ::BZ2_bzBuffToBuffCompress(out.data(), &size, const_cast<char*>(data.data()),
                             static_cast<unsigned int>(data.size()), 1, 0, 0);
  out.resize(size);
  return out;
}

std::string ZstdSkippable(absl::string_view data, int variant) {
  std::string out;
  AppendLittleEndian(out, ZSTD_MAGIC_SKIPPABLE_START + variant, 4);
  AppendLittleEndian(out, data.size(), 4);
  out.append(data.data(), data.size());
  return out;
}

std::string SampleText(size_t size) {
  std::string out;
  out.reserve(size);
  uint32_t x = 12345;
  while (out.size() < size) {
    x = x * 1664525 + 1013904223;
    out += "line ";
    out += std::to_string(x >> 12);
    out.push_back('\n');
  }
  out.resize(size);
  return out;
}

absl::StatusOr<std::string> ReadToEnd(ByteSource& source, size_t chunk) {
  std::string out;
  std::string buffer(chunk, '\0');
  for (;;) {
    ASSIGN_OR_RETURN(const size_t got, source.Read(absl::MakeSpan(buffer)));
    if (got == 0) return out;
    out.append(buffer, 0, got);
  }
}

}  // namespace caisson::layer
