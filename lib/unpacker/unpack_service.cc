#include "lib/unpacker/unpack_service.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/layer_finish.h"
#include "lib/sys/open.h"
#include "lib/sys/xattr.h"

namespace caisson::unpacker {
namespace {

constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;

absl::Status Refused(absl::string_view what) {
  return absl::InternalError(absl::StrCat(
      "the confined unpacker asked for what no unpacker needs: ", what));
}

bool IsName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.size() <= NAME_MAX && name.find('/') == absl::string_view::npos &&
         name.find('\0') == absl::string_view::npos;
}

// Relative, and nothing but names; "" and "." are the root.
bool IsPath(absl::string_view path) {
  if (path.empty() || path == ".") return true;
  if (path.size() >= PATH_MAX) return false;
  for (const absl::string_view name : absl::StrSplit(path, '/')) {
    if (!IsName(name)) return false;
  }
  return true;
}

// A file of the layer, by its directory.
struct Place {
  UniqueFd dir;
  std::string name;  // "." for the root
};

absl::StatusOr<UniqueFd> OpenDirectory(BorrowedFd layer,
                                       const std::string& path, int flags) {
  return sys::OpenAt2(layer, path.empty() ? "." : path, flags | O_DIRECTORY,
                      kHere);
}

absl::StatusOr<Place> Find(BorrowedFd layer, const std::string& path) {
  const size_t slash = path.rfind('/');
  const bool nested = slash != std::string::npos;
  ASSIGN_OR_RETURN(
      UniqueFd dir,
      OpenDirectory(layer, nested ? path.substr(0, slash) : "", O_PATH));
  const std::string name = nested ? path.substr(slash + 1) : path;
  return Place{std::move(dir), name.empty() ? "." : name};
}

int ErrnoOf(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() ? detail->error : EIO;
}

Message AnswerErrno(int error) {
  Message answer(MessageType::kAnswer);
  answer.Number(static_cast<uint64_t>(error));
  return answer;
}

Message AnswerStatus(const absl::Status& status) {
  Message answer(MessageType::kAnswer);
  answer.Add(status);
  return answer;
}

}  // namespace

absl::StatusOr<Message> UnpackService::Answer(MessageType type,
                                              absl::string_view payload) {
  MessageReader reader(payload);
  switch (type) {
    case MessageType::kSetXattr:
      return SetXattr(reader);
    case MessageType::kMakeDevice:
      return MakeDevice(reader);
    case MessageType::kLinkDevice:
      return LinkDevice(reader);
    case MessageType::kWriteAttributes:
      return WriteAttributes(reader);
    case MessageType::kClearXattrs:
      return ClearXattrs(reader);
    default:
      break;
  }
  if (lowers_ == nullptr) return Refused("lower layers, before the end");
  switch (type) {
    case MessageType::kFindLower:
      return FindLower(reader);
    case MessageType::kListLower:
      return ListLower(reader);
    case MessageType::kLowerAttributes:
      return LowerAttributes(reader);
    case MessageType::kCopyUp:
      return CopyUp(reader);
    default:
      return Refused("a message that there is not");
  }
}

// What overlayfs reads in its attributes can lead it to other files: of these,
// there is what an unpacker writes.
absl::Status UnpackService::CheckXattr(const std::string& key,
                                       absl::string_view value) const {
  const std::string prefix(layer::OverlayXattrPrefix(format_));
  if (!prefix.empty() && key == absl::StrCat(prefix, "opaque") &&
      value == "y") {
    return absl::OkStatus();
  }
  // As an unpacker does with the names in a tar.
  absl::string_view original = key;
  if (!prefix.empty() &&
      absl::StartsWith(key, absl::StrCat(prefix, "overlay."))) {
    return absl::OkStatus();
  }
  const auto on_disk = layer::XattrKeyOnDisk(original, format_);
  if (on_disk.has_value() && *on_disk == key) return absl::OkStatus();
  return Refused(absl::StrCat("the attribute ", Quoted(key)));
}

absl::StatusOr<Message> UnpackService::SetXattr(MessageReader& reader) const {
  const std::string path = reader.Text();
  const std::string key = reader.Text();
  const std::string value = reader.Text();
  if (!reader.Complete() || !IsPath(path)) return Refused("no attribute");
  RETURN_IF_ERROR(CheckXattr(key, value));
  auto place = Find(layer_, path);
  if (!place.ok()) return AnswerErrno(ErrnoOf(place.status()));
  return AnswerErrno(
      sys::SetXattrAt(place->dir.borrow(), place->name, key, value));
}

absl::StatusOr<Message> UnpackService::MakeDevice(MessageReader& reader) const {
  const std::string path = reader.Text();
  const auto mode = static_cast<mode_t>(reader.Number());
  const dev_t device = reader.Number();
  if (!reader.Complete() || !IsPath(path) || path.empty() ||
      !(S_ISCHR(mode) || S_ISBLK(mode))) {
    return Refused("no device");
  }
  auto place = Find(layer_, path);
  if (!place.ok()) return AnswerErrno(ErrnoOf(place.status()));
  const int result =
      ::mknodat(place->dir.get(), place->name.c_str(), mode, device);
  return AnswerErrno(result == 0 ? 0 : errno);
}

absl::StatusOr<Message> UnpackService::LinkDevice(MessageReader& reader) const {
  const std::string from = reader.Text();
  const std::string to = reader.Text();
  if (!reader.Complete() || !IsPath(from) || from.empty() || !IsPath(to) ||
      to.empty()) {
    return Refused("no link");
  }
  auto source = Find(layer_, from);
  if (!source.ok()) return AnswerErrno(ErrnoOf(source.status()));
  auto target = Find(layer_, to);
  if (!target.ok()) return AnswerErrno(ErrnoOf(target.status()));
  const int result = ::linkat(source->dir.get(), source->name.c_str(),
                              target->dir.get(), target->name.c_str(), 0);
  return AnswerErrno(result == 0 ? 0 : errno);
}

absl::StatusOr<Message> UnpackService::WriteAttributes(
    MessageReader& reader) const {
  const std::string path = reader.Text();
  const bool is_symlink = reader.Number() != 0;
  const layer::FileAttributes attributes = reader.TakeAttributes();
  if (!reader.Complete() || !IsPath(path) || path.empty()) {
    return Refused("no attributes");
  }
  for (const auto& [key, value] : attributes.xattrs) {
    RETURN_IF_ERROR(CheckXattr(key, value));
  }
  auto place = Find(layer_, path);
  uint64_t skipped = 0;
  Message answer =
      AnswerStatus(place.ok() ? layer::WriteAttributesAt(
                                    place->dir.borrow(), place->name,
                                    is_symlink, attributes, path, skipped)
                              : place.status());
  answer.Number(skipped);
  return answer;
}

absl::StatusOr<Message> UnpackService::ClearXattrs(
    MessageReader& reader) const {
  const std::string path = reader.Text();
  if (!reader.Complete() || !IsPath(path)) return Refused("no directory");
  auto dir = OpenDirectory(layer_, path, O_RDONLY);
  return AnswerStatus(dir.ok()
                          ? layer::ClearXattrs(dir->borrow(), path, format_)
                          : dir.status());
}

// ---- lower layers ----

absl::StatusOr<Message> UnpackService::FindLower(MessageReader& reader) const {
  const std::string dir = reader.Text();
  const std::string name = reader.Text();
  if (!reader.Complete() || !IsPath(dir) || !(IsName(name) || name == ".")) {
    return Refused("no lower file");
  }
  auto file = lowers_->Find(dir, name);
  Message answer = AnswerStatus(file.status());
  if (!file.ok()) return answer;
  const bool found = file->has_value();
  answer.Number(found ? (*file)->status.st_mode : 0);
  answer.Number(found ? static_cast<uint64_t>((*file)->status.st_size) : 0);
  return answer;
}

absl::StatusOr<Message> UnpackService::ListLower(MessageReader& reader) const {
  const std::string dir = reader.Text();
  if (!reader.Complete() || !IsPath(dir)) return Refused("no lower directory");
  auto files = lowers_->List(dir);
  Message answer = AnswerStatus(files.status());
  if (!files.ok()) return answer;
  answer.Number(files->size());
  for (const layer::OverlayFile& file : *files) answer.Text(file.name);
  return answer;
}

absl::StatusOr<Message> UnpackService::LowerAttributes(
    MessageReader& reader) const {
  const std::string dir = reader.Text();
  const std::string name = reader.Text();
  if (!reader.Complete() || !IsPath(dir) || !(IsName(name) || name == ".")) {
    return Refused("no lower file");
  }
  auto attributes = lowers_->Attributes(dir, name);
  Message answer = AnswerStatus(attributes.status());
  if (attributes.ok()) answer.Add(*attributes);
  return answer;
}

absl::StatusOr<Message> UnpackService::CopyUp(MessageReader& reader) const {
  const std::string dir = reader.Text();
  const std::string name = reader.Text();
  const std::string path = reader.Text();
  if (!reader.Complete() || !IsPath(dir) || !IsName(name) || !IsPath(path) ||
      path.empty()) {
    return Refused("no copy of a lower file");
  }
  auto place = Find(layer_, path);
  if (!place.ok()) return AnswerStatus(place.status());
  return AnswerStatus(
      lowers_->CopyUp(dir, name, place->dir.borrow(), place->name, path));
}

}  // namespace caisson::unpacker
