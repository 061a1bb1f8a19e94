#include "lib/unpacker/remote_host.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "lib/unpacker/places.h"

namespace caisson::unpacker {
namespace {

constexpr size_t kFlushAt = 64 << 10;

}  // namespace

// ---- Channel ----

void Channel::Send(Message& message) {
  out_ += message.bytes();
  if (out_.size() >= kFlushAt) Flush();
}

void Channel::Flush() {
  absl::string_view rest = out_;
  while (!rest.empty()) {
    const ssize_t n = ::write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) ::_exit(kExitHostGone);
    rest.remove_prefix(static_cast<size_t>(n));
  }
  out_.clear();
}

Channel::Request Channel::Receive() {
  Flush();
  std::string bytes(kMessageHead, '\0');
  for (size_t have = 0; have < bytes.size();) {
    const ssize_t n = ::read(fd_, &bytes[have], bytes.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) ::_exit(kExitHostGone);
    have += static_cast<size_t>(n);
    if (have == kMessageHead) bytes.resize(MessageSize(bytes));
  }
  return {static_cast<MessageType>(bytes[kMessageHead - 1]),
          bytes.substr(kMessageHead)};
}

// ---- RemoteHost ----

std::string RemoteHost::Ask(Message& question) {
  channel_.Send(question);
  return channel_.Receive().payload;
}

void RemoteHost::Raw(absl::string_view bytes) {
  while (!bytes.empty()) {
    const absl::string_view piece = bytes.substr(0, kFlushAt);
    Message message(MessageType::kRaw);
    channel_.Send(message.Text(piece));
    bytes.remove_prefix(piece.size());
  }
}

void RemoteHost::Data(const std::string& path, uint64_t offset,
                      uint64_t length) {
  Message message(MessageType::kData);
  channel_.Send(message.Text(path).Number(offset).Number(length));
}

int RemoteHost::SetXattr(const std::string& path, const std::string& key,
                         absl::string_view value) {
  Message question(MessageType::kSetXattr);
  const std::string answer = Ask(question.Text(path).Text(key).Text(value));
  return static_cast<int>(MessageReader(answer).Number());
}

int RemoteHost::MakeDevice(const std::string& path, mode_t mode, dev_t device) {
  Message question(MessageType::kMakeDevice);
  const std::string answer =
      Ask(question.Text(path).Number(mode).Number(device));
  return static_cast<int>(MessageReader(answer).Number());
}

int RemoteHost::LinkDevice(const std::string& from, const std::string& to) {
  Message question(MessageType::kLinkDevice);
  const std::string answer = Ask(question.Text(from).Text(to));
  return static_cast<int>(MessageReader(answer).Number());
}

absl::Status RemoteHost::WriteAttributes(
    const std::string& path, bool is_symlink,
    const layer::FileAttributes& attributes, uint64_t& skipped) {
  Message question(MessageType::kWriteAttributes);
  const std::string answer =
      Ask(question.Text(path).Number(is_symlink ? 1 : 0).Add(attributes));
  MessageReader reader(answer);
  const absl::Status status = reader.TakeStatus();
  skipped += reader.Number();
  return status;
}

absl::Status RemoteHost::ClearXattrs(const std::string& path) {
  Message question(MessageType::kClearXattrs);
  const std::string answer = Ask(question.Text(path));
  return MessageReader(answer).TakeStatus();
}

absl::StatusOr<std::optional<layer::OverlayFile>> RemoteHost::Find(
    const std::string& dir, const std::string& name) {
  if (!known_) return std::nullopt;
  Message question(MessageType::kFindLower);
  const std::string answer = Ask(question.Text(dir).Text(name));
  MessageReader reader(answer);
  absl::Status status = reader.TakeStatus();
  if (!status.ok()) return status;
  layer::OverlayFile file = {BorrowedFd(), name, {}};
  file.status.st_mode = static_cast<mode_t>(reader.Number());
  file.status.st_size = static_cast<off_t>(reader.Number());
  if (file.status.st_mode == 0) return std::nullopt;
  return file;
}

absl::StatusOr<std::vector<layer::OverlayFile>> RemoteHost::List(
    const std::string& dir) {
  std::vector<layer::OverlayFile> files;
  if (!known_) return files;
  Message question(MessageType::kListLower);
  const std::string answer = Ask(question.Text(dir));
  MessageReader reader(answer);
  absl::Status status = reader.TakeStatus();
  if (!status.ok()) return status;
  const uint64_t count = reader.Number();
  for (uint64_t i = 0; i < count; ++i) {
    files.push_back({BorrowedFd(), reader.Text(), {}});
  }
  return files;
}

absl::StatusOr<layer::FileAttributes> RemoteHost::Attributes(
    const std::string& dir, const std::string& name) {
  Message question(MessageType::kLowerAttributes);
  const std::string answer = Ask(question.Text(dir).Text(name));
  MessageReader reader(answer);
  absl::Status status = reader.TakeStatus();
  if (!status.ok()) return status;
  return reader.TakeAttributes();
}

absl::Status RemoteHost::CopyUp(const std::string& dir, const std::string& name,
                                BorrowedFd, const std::string&,
                                const std::string& path) {
  Message question(MessageType::kCopyUp);
  const std::string answer = Ask(question.Text(dir).Text(name).Text(path));
  return MessageReader(answer).TakeStatus();
}

}  // namespace caisson::unpacker
