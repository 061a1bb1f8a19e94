#include "lib/unpacker/wire.h"

#include <string.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"

namespace caisson::unpacker {
namespace {

constexpr size_t kNumber = 8;
// One is what ErrorDetail takes.
constexpr size_t kMaxPayloads = 4;

// For the rest of the process, which has few of them: the unpacker's.
const char* Kept(const std::string& text) { return ::strdup(text.c_str()); }

std::string Printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return !absl::ascii_isprint(c); },
      '?');
  return text;
}

}  // namespace

// ---- writing ----

Message::Message(MessageType type) : bytes_(kMessageHead, '\0') {
  bytes_[kMessageHead - 1] = static_cast<char>(type);
}

Message& Message::Number(uint64_t value) {
  for (size_t i = 0; i < kNumber; ++i) {
    bytes_.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  }
  return *this;
}

Message& Message::Text(absl::string_view text) {
  Number(text.size());
  bytes_.append(text.data(), text.size());
  return *this;
}

Message& Message::Add(const absl::Status& status) {
  Number(static_cast<uint64_t>(status.code()));
  Text(status.message());
  std::vector<std::pair<std::string, std::string>> payloads;
  status.ForEachPayload(
      [&payloads](absl::string_view url, const absl::Cord& payload) {
        payloads.emplace_back(std::string(url), std::string(payload));
      });
  Number(payloads.size());
  for (const auto& [url, payload] : payloads) Text(url).Text(payload);
  return *this;
}

Message& Message::Add(const layer::FileAttributes& a) {
  Number(a.mode).Number(a.uid).Number(a.gid);
  Number(static_cast<uint64_t>(a.mtime_sec));
  Number(static_cast<uint64_t>(a.mtime_nsec));
  Number(a.xattrs.size());
  for (const auto& [key, value] : a.xattrs) Text(key).Text(value);
  return *this;
}

Message& Message::Add(const layer::DecompressOptions& o) {
  return Number(o.max_output_bytes)
      .Text(o.max_output_bytes_name)
      .Number(o.max_compression_ratio)
      .Number(o.max_window_bytes);
}

Message& Message::Add(const layer::UnpackOptions& o) {
  return Number(static_cast<uint64_t>(o.format))
      .Number(o.max_entries)
      .Text(o.max_entries_name)
      .Number(o.max_bytes)
      .Text(o.max_bytes_name)
      .Number(o.max_path_bytes)
      .Number(o.max_path_depth)
      .Number(o.max_layer_memory)
      .Number(o.tar.max_extension_bytes)
      .Number(o.tar.max_path_bytes)
      .Number(o.tar.max_sparse_extents);
}

Message& Message::Add(const layer::UnpackStats& s) {
  return Number(s.entries)
      .Number(s.bytes)
      .Number(s.tar_bytes)
      .Number(s.whiteouts)
      .Number(s.copied_up)
      .Number(s.skipped_xattrs)
      .Number(s.skipped_devices)
      .Number(s.replaced ? 1 : 0);
}

const std::string& Message::bytes() {
  const size_t size = bytes_.size() - kMessageHead;
  for (size_t i = 0; i < kMessageHead - 1; ++i) {
    bytes_[i] = static_cast<char>(size >> (8 * i) & 0xff);
  }
  return bytes_;
}

// ---- reading ----

uint64_t MessageReader::Number() {
  if (!ok_ || rest_.size() < kNumber) {
    ok_ = false;
    return 0;
  }
  uint64_t value = 0;
  for (size_t i = kNumber; i-- > 0;) {
    value = value << 8 | static_cast<uint8_t>(rest_[i]);
  }
  rest_.remove_prefix(kNumber);
  return value;
}

std::string MessageReader::Text() {
  const uint64_t size = Number();
  if (!ok_ || size > rest_.size()) {
    ok_ = false;
    return {};
  }
  std::string text(rest_.substr(0, size));
  rest_.remove_prefix(size);
  return text;
}

absl::Status MessageReader::TakeStatus() {
  const uint64_t code = Number();
  const std::string message = Printable(Text());
  const uint64_t payloads = Number();
  if (code > static_cast<uint64_t>(absl::StatusCode::kUnauthenticated) ||
      payloads > kMaxPayloads) {
    ok_ = false;
  }
  if (!ok_) return absl::InternalError("a malformed status");
  absl::Status status(static_cast<absl::StatusCode>(code), message);
  for (uint64_t i = 0; i < payloads; ++i) {
    const std::string url = Text();
    const std::string payload = Text();
    if (ok_) status.SetPayload(url, absl::Cord(payload));
  }
  return ok_ ? status : absl::InternalError("a malformed status");
}

layer::FileAttributes MessageReader::TakeAttributes() {
  layer::FileAttributes a;
  a.mode = static_cast<uint32_t>(Number());
  a.uid = static_cast<uint32_t>(Number());
  a.gid = static_cast<uint32_t>(Number());
  a.mtime_sec = static_cast<int64_t>(Number());
  a.mtime_nsec = static_cast<int32_t>(Number());
  const uint64_t count = Number();
  for (uint64_t i = 0; ok_ && i < count; ++i) {
    std::string key = Text();
    std::string value = Text();
    if (ok_) a.xattrs.emplace_back(std::move(key), std::move(value));
  }
  return a;
}

layer::DecompressOptions MessageReader::TakeDecompressOptions() {
  layer::DecompressOptions o;
  o.max_output_bytes = Number();
  o.max_output_bytes_name = Kept(Text());
  o.max_compression_ratio = Number();
  o.max_window_bytes = Number();
  return o;
}

layer::UnpackOptions MessageReader::TakeUnpackOptions() {
  layer::UnpackOptions o;
  o.format = static_cast<layer::LayerFormat>(Number());
  o.max_entries = Number();
  o.max_entries_name = Kept(Text());
  o.max_bytes = Number();
  o.max_bytes_name = Kept(Text());
  o.max_path_bytes = Number();
  o.max_path_depth = Number();
  o.max_layer_memory = Number();
  o.tar.max_extension_bytes = Number();
  o.tar.max_path_bytes = Number();
  o.tar.max_sparse_extents = Number();
  return o;
}

layer::UnpackStats MessageReader::TakeStats() {
  layer::UnpackStats s;
  s.entries = Number();
  s.bytes = Number();
  s.tar_bytes = Number();
  s.whiteouts = Number();
  s.copied_up = Number();
  s.skipped_xattrs = Number();
  s.skipped_devices = Number();
  s.replaced = Number() != 0;
  return s;
}

size_t MessageSize(absl::string_view bytes) {
  if (bytes.size() < kMessageHead) return 0;
  size_t size = 0;
  for (size_t i = kMessageHead - 1; i-- > 0;) {
    size = size << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return kMessageHead + size;
}

std::optional<Received> FirstMessage(absl::string_view bytes) {
  const size_t size = MessageSize(bytes);
  if (size == 0 || bytes.size() < size) return std::nullopt;
  return Received{static_cast<MessageType>(bytes[kMessageHead - 1]),
                  bytes.substr(kMessageHead, size - kMessageHead), size};
}

}  // namespace caisson::unpacker
