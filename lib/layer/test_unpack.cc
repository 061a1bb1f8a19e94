#include "lib/layer/test_unpack.h"

#include <fcntl.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_macros.h"
#include "lib/layer/test_unpacker.h"
#include "lib/sys/mount.h"

namespace caisson::layer {

absl::StatusOr<UnpackStats> Unpack(absl::string_view tar, const TestDir& dir,
                                   const UnpackOptions& options) {
  MemorySource source(tar);
  UnpackOptions used = options;
  used.unpacker = TestUnpacker().get();
  return UnpackLayer(source, dir.fd(), used);
}

absl::Status TestLayers::Add(absl::string_view tar) {
  std::vector<BorrowedFd> lowers;
  for (auto it = dirs_.rbegin(); it != dirs_.rend(); ++it) {
    lowers.push_back((*it)->fd());
  }
  UnpackOptions options;
  options.format = format_;
  if (format_ != LayerFormat::kPlain || dirs_.empty()) {
    dirs_.push_back(std::make_unique<TestDir>());
  }
  if (format_ != LayerFormat::kPlain) options.lowers = lowers;
  ASSIGN_OR_RETURN(stats_, Unpack(tar, top(), options));
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> TestLayers::Mount() const {
  std::vector<std::string> lowers;
  for (auto it = dirs_.rbegin(); it != dirs_.rend(); ++it) {
    // By descriptor: fsconfig(2) takes at most 255 bytes.
    lowers.push_back(absl::StrCat("/proc/self/fd/", (*it)->fd().get()));
  }
  // An overlay without an upper layer wants at least two lower ones.
  TestDir empty;
  if (lowers.size() == 1) {
    lowers.push_back(absl::StrCat("/proc/self/fd/", empty.fd().get()));
  }
  ASSIGN_OR_RETURN(sys::FsContext overlay,
                   sys::FsContext::Open(sys::DirectMounts(), "overlay"));
  RETURN_IF_ERROR(overlay.SetString("lowerdir", absl::StrJoin(lowers, ":")));
  if (format_ == LayerFormat::kOverlayUser) {
    RETURN_IF_ERROR(overlay.SetFlag("userxattr"));
  }
  return overlay.Mount(MOUNT_ATTR_RDONLY);
}

absl::StatusOr<std::string> TestLayers::Merged() const {
  if (format_ == LayerFormat::kPlain) return top().Dump();
  ASSIGN_OR_RETURN(const UniqueFd mount, Mount());
  return DumpTree(absl::StrCat("/proc/self/fd/", mount.get(), "/"));
}

absl::StatusOr<std::string> TestLayers::MergedNames() const {
  if (format_ == LayerFormat::kPlain) return absl::StrJoin(top().Names(), " ");
  ASSIGN_OR_RETURN(const UniqueFd mount, Mount());
  return absl::StrJoin(
      TreeNames(absl::StrCat("/proc/self/fd/", mount.get(), "/")), " ");
}

}  // namespace caisson::layer
