// What a host and its confined unpacker tell each other: messages on a stream
// socket, each a length, a type and fields.
//
//   Message message(MessageType::kSetXattr);
//   message.Text("etc/x").Text("trusted.a").Text(value);
//   ... message.bytes() ...
//
//   MessageReader reader(payload);
//   const std::string path = reader.Text();
//   if (!reader.Complete()) ...  // not what such a message has
//
// Both sides are of one build, so there are no versions. The host believes
// nothing that it reads: sizes are bounded, and what is malformed ends the
// unpacker. Values; thread-compatible.
#ifndef CAISSON_LIB_UNPACKER_WIRE_H_
#define CAISSON_LIB_UNPACKER_WIRE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/layer/decompress.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/unpack.h"

namespace caisson::unpacker {

enum class MessageType : uint8_t {
  // The host's: first what is to be done, ...
  kDecompress = 1,  // DecompressOptions
  kUnpack,          // UnpackOptions, whether it wants kRaw and kData
  kFinish,          // whether the lower layers are known
  kAnswer,          // to one of the questions

  // The unpacker's: results, ...
  kDecompressed = 32,  // status
  kApplied,            // status, and the statistics so far
  kFinished,           // status, statistics
  // ... what goes on, ...
  kRaw,       // bytes of the tar that are no file's (TarSplitSink)
  kData,      // path, offset, length of a file's data in the tar
  kProgress,  // UnpackProgress
  // ... and questions, for which it waits (UnpackHost):
  kSetXattr,         // path, key, value                 -> errno
  kMakeDevice,       // path, mode, device               -> errno
  kWriteAttributes,  // path, is a link, attributes      -> status, skipped
  kClearXattrs,      // path                             -> status
  kFindLower,        // directory, name                  -> status, mode, size
  kListLower,        // directory                        -> status, names
  kLowerAttributes,  // directory, name                  -> status, attributes
  kCopyUp,           // directory, name, path            -> status
  kLinkDevice,       // path, path                       -> errno
};

// Of a message with its head, from the unpacker. An attribute's value has up to
// 64 KiB, and an entry may have several.
inline constexpr size_t kMaxMessage = size_t{2} << 20;
// Length of what follows (4 bytes, little-endian) and type.
inline constexpr size_t kMessageHead = 5;

class Message final {
 public:
  explicit Message(MessageType type);

  Message& Number(uint64_t value);
  Message& Text(absl::string_view text);
  Message& Add(const absl::Status& status);
  Message& Add(const layer::FileAttributes& attributes);
  Message& Add(const layer::DecompressOptions& options);
  // Without what is no value: lowers, split, progress.
  Message& Add(const layer::UnpackOptions& options);
  Message& Add(const layer::UnpackStats& stats);

  // With the head.
  const std::string& bytes();

 private:
  std::string bytes_;
};

// Reads fields in the order in which they were written. After something is
// missing all fields are empty.
class MessageReader final {
 public:
  // Refers to `payload`.
  explicit MessageReader(absl::string_view payload) : rest_(payload) {}

  uint64_t Number();
  std::string Text();
  // Never OK if a field is missing. Characters that are not printable, which no
  // error of the library has, become "?".
  absl::Status TakeStatus();
  layer::FileAttributes TakeAttributes();
  layer::DecompressOptions TakeDecompressOptions();
  layer::UnpackOptions TakeUnpackOptions();
  layer::UnpackStats TakeStats();

  // Whether every field was there and nothing is left.
  bool Complete() const { return ok_ && rest_.empty(); }
  bool ok() const { return ok_; }

 private:
  absl::string_view rest_;
  bool ok_ = true;
};

// The first message in `bytes`, if all of it is there.
struct Received {
  MessageType type;
  absl::string_view payload;
  size_t size;  // of the message with its head
};
std::optional<Received> FirstMessage(absl::string_view bytes);
// What the head of a message says its size is; 0 if there is no whole head.
size_t MessageSize(absl::string_view bytes);

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_WIRE_H_
