#include "lib/layer/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/hard_links.h"
#include "lib/layer/layer_directory.h"
#include "lib/layer/layer_finish.h"
#include "lib/layer/overlay_view.h"
#include "lib/layer/tar_data.h"
#include "lib/layer/unpack_host.h"
#include "lib/layer/unpacker.h"
#include "lib/sys/file_size.h"

namespace caisson::layer {
namespace {

// OCI image-spec, layer.md, "Whiteouts".
constexpr absl::string_view kWhiteoutPrefix = ".wh.";
constexpr absl::string_view kOpaqueMarker = ".wh..wh..opq";
// AUFS keeps its own files under such names; images of 2014 have them. Hard
// links of that time point into the second one.
constexpr absl::string_view kAufsPrefix = ".wh..wh.";
constexpr absl::string_view kAufsLinks = ".wh..wh.plnk";

// dev_t of the kernel: 12 bits of major, 20 of minor number.
constexpr uint32_t kMaxMajor = (1u << 12) - 1;
constexpr uint32_t kMaxMinor = (1u << 20) - 1;

class LayerUnpacker final : public LayerUnpack {
 public:
  explicit LayerUnpacker(const UnpackOptions& options) : options_(options) {}

  absl::Status Open(BorrowedFd dir) {
    ASSIGN_OR_RETURN(directory_, LayerDirectory::Open(dir, options_));
    links_.emplace(*directory_, options_, stats_);
    return absl::OkStatus();
  }

  absl::Status Apply(ByteSource& tar) override;
  absl::StatusOr<UnpackStats> Finish(
      std::optional<absl::Span<const BorrowedFd>> lowers) override;

 private:
  absl::Status ApplyEntries();
  absl::Status Apply(TarEntry& entry);
  void SetImpliedRootTime(const TarEntry& entry);
  absl::Status ApplyRoot(TarEntry& entry);
  absl::Status ApplyWhiteout(const LayerName& name);
  absl::Status ApplyDirectory(DirId parent, absl::string_view base,
                              FileAttributes attributes);
  absl::Status ApplyFile(const TarEntry& entry, DirId parent,
                         const std::string& base,
                         const FileAttributes& attributes);
  absl::Status ApplySpecial(const TarEntry& entry, DirId parent,
                            const std::string& base,
                            const FileAttributes& attributes);
  absl::StatusOr<bool> MakeSpecial(const TarEntry& entry, DirId parent,
                                   const std::string& base);
  absl::Status Create(DirId parent, const std::string& base,
                      absl::string_view call,
                      absl::FunctionRef<int(BorrowedFd)> make);
  absl::Status WriteData(const TarEntry& entry, BorrowedFd fd,
                         const std::string& path);
  absl::Status CountBytes(const TarEntry& entry);
  absl::Status Report();

  const UnpackOptions options_;
  std::unique_ptr<LayerDirectory> directory_;
  UnpackStats stats_;
  std::optional<HardLinks> links_;
  TarReader* reader_ = nullptr;  // during Apply
  // An error of the reader, which names the entry itself.
  bool reader_failed_ = false;
};

absl::Status LayerUnpacker::Apply(ByteSource& tar) {
  const auto watch = [this] {
    stats_.tar_bytes = reader_->data_offset();
    return Report();
  };
  WatchedSource watched(tar, watch);
  TarReader reader(watched, options_.tar, options_.split);
  reader_ = &reader;
  const absl::Status status = ApplyEntries();
  stats_.tar_bytes = reader.data_offset();
  reader_ = nullptr;
  return status;
}

absl::Status LayerUnpacker::ApplyEntries() {
  for (;;) {
    ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader_->Next());
    if (!entry.has_value()) return absl::OkStatus();
    if (++stats_.entries > options_.max_entries) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the layer has more than ", options_.max_entries_name,
                       " (", options_.max_entries, ")"));
    }
    if (stats_.entries == 1) SetImpliedRootTime(*entry);
    const absl::Status status = Apply(*entry);
    if (!status.ok()) {
      if (reader_failed_) return status;
      return Annotate(
          status,
          absl::StrCat(TarTypeName(entry->type), " ", Quoted(entry->name),
                       " (header at offset ", entry->header_offset, ")"));
    }
  }
}

// A root without an entry is implied by the first one, like other directories.
void LayerUnpacker::SetImpliedRootTime(const TarEntry& entry) {
  FileAttributes& root = directory_->tree()[kRootDir].attributes;
  root.mtime_sec = entry.mtime_sec;
  root.mtime_nsec = entry.mtime_nsec;
}

absl::StatusOr<UnpackStats> LayerUnpacker::Finish(
    std::optional<absl::Span<const BorrowedFd>> lowers) {
  OverlayView own(lowers, options_.format);
  LowerLayers& view = options_.host != nullptr ? options_.host->lowers() : own;
  RETURN_IF_ERROR(Report());
  RETURN_IF_ERROR(links_->Finish(view));
  LayerTree& tree = directory_->tree();
  if (tree.Find(kRootDir, kAufsLinks).has_value()) {
    RETURN_IF_ERROR(directory_->Remove(kRootDir, std::string(kAufsLinks)));
  }
  const auto report = [this] { return Report(); };
  RETURN_IF_ERROR(ApplyWhiteouts(*directory_, view, options_, stats_, report));
  RETURN_IF_ERROR(
      FinishDirectories(*directory_, view, options_, stats_, report));
  stats_.replaced = directory_->replaced();
  return stats_;
}

absl::Status LayerUnpacker::Report() {
  if (!options_.progress) return absl::OkStatus();
  return options_.progress({.entries = stats_.entries,
                            .bytes = stats_.bytes,
                            .tar_bytes = stats_.tar_bytes});
}

// ---- entries ----

absl::Status LayerUnpacker::Apply(TarEntry& entry) {
  ASSIGN_OR_RETURN(const LayerName name, ParseLayerName(entry.name, options_));
  if (name.components.empty()) return ApplyRoot(entry);
  const absl::string_view top = name.components.front();
  const bool root_marker = name.components.size() == 1 && top == kOpaqueMarker;
  if (absl::StartsWith(top, kAufsPrefix) && !root_marker) {
    const bool linkable =
        top == kAufsLinks &&
        (entry.type == TarType::kFile || entry.type == TarType::kDirectory);
    if (!linkable) return absl::OkStatus();
  } else {
    for (const absl::string_view component : name.parent()) {
      if (absl::StartsWith(component, kWhiteoutPrefix)) {
        return absl::InvalidArgumentError(
            absl::StrCat("a directory must not be called ", Quoted(component)));
      }
    }
    if (absl::StartsWith(name.base(), kWhiteoutPrefix)) {
      return ApplyWhiteout(name);
    }
  }

  FileAttributes attributes = TakeAttributes(
      entry, options_.format, options_.owner, stats_.skipped_xattrs);
  ASSIGN_OR_RETURN(const DirId parent, directory_->ParentFor(name, attributes));
  const std::string base(name.base());
  switch (entry.type) {
    case TarType::kDirectory:
      return ApplyDirectory(parent, base, std::move(attributes));
    case TarType::kFile:
      return ApplyFile(entry, parent, base, attributes);
    case TarType::kHardlink:
      return links_->Link(parent, base, entry.linkname);
    default:
      return ApplySpecial(entry, parent, base, attributes);
  }
}

// CVE-2021-29136: a root that is a symbolic link would redirect the next layer.
absl::Status LayerUnpacker::ApplyRoot(TarEntry& entry) {
  if (entry.type != TarType::kDirectory) {
    return absl::InvalidArgumentError("the root must be a directory");
  }
  directory_->tree().SetEntry(
      kRootDir, TakeAttributes(entry, options_.format, options_.owner,
                               stats_.skipped_xattrs));
  return directory_->CheckMemory();
}

absl::Status LayerUnpacker::ApplyWhiteout(const LayerName& name) {
  LayerTree& tree = directory_->tree();
  const absl::string_view base = name.base();
  const absl::string_view hidden = base.substr(kWhiteoutPrefix.size());
  if (hidden.empty() || hidden == "." || hidden == "..") {
    return absl::InvalidArgumentError("a whiteout without a name");
  }
  const bool opaque = base == kOpaqueMarker;
  if (!opaque && absl::StartsWith(base, kAufsPrefix)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::optional<DirId> dir,
                   directory_->Note(name.parent()));
  // In something that is no directory there is nothing to hide.
  if (!dir.has_value()) return absl::OkStatus();
  if (opaque) {
    tree[*dir].opaque = true;
    return absl::OkStatus();
  }
  tree.AddWhiteout(*dir, hidden);
  return directory_->CheckMemory();
}

absl::Status LayerUnpacker::ApplyDirectory(DirId parent, absl::string_view base,
                                           FileAttributes attributes) {
  ASSIGN_OR_RETURN(const DirId id, directory_->MakeDirectory(parent, base));
  directory_->tree().SetEntry(id, std::move(attributes));
  return directory_->CheckMemory();
}

// Calls `make`, which answers -1 and errno if it fails, and once more after
// removing what has the name already.
absl::Status LayerUnpacker::Create(DirId parent, const std::string& base,
                                   absl::string_view call,
                                   absl::FunctionRef<int(BorrowedFd)> make) {
  for (int attempt = 0;; ++attempt) {
    ASSIGN_OR_RETURN(const BorrowedFd dir, directory_->Fd(parent));
    if (make(dir) >= 0) {
      directory_->FileMade(parent, base);
      return directory_->CheckMemory();
    }
    if (errno != EEXIST || attempt > 0) {
      return directory_->Error(errno, call, parent, base);
    }
    RETURN_IF_ERROR(directory_->Remove(parent, base));
  }
}

absl::Status LayerUnpacker::CountBytes(const TarEntry& entry) {
  if (entry.size > options_.max_bytes - stats_.bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("its ", entry.size,
                     " bytes take the files of the layer "
                     "beyond ",
                     options_.max_bytes_name, " (", options_.max_bytes, ")"));
  }
  RETURN_IF_ERROR(sys::CheckFileSize(entry.size));
  stats_.bytes += entry.size;
  return absl::OkStatus();
}

absl::Status LayerUnpacker::ApplyFile(const TarEntry& entry, DirId parent,
                                      const std::string& base,
                                      const FileAttributes& attributes) {
  RETURN_IF_ERROR(CountBytes(entry));
  UniqueFd fd;
  RETURN_IF_ERROR(Create(parent, base, "openat", [&](BorrowedFd dir) {
    fd.reset(::openat(dir.get(), base.c_str(),
                      O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                      0600));
    return fd.get();
  }));
  const std::string path = directory_->tree().Path(parent, base);
  RETURN_IF_ERROR(WriteData(entry, fd.borrow(), path));
  return WriteAttributes(fd.borrow(), attributes, path, stats_.skipped_xattrs,
                         options_.host);
}

absl::Status LayerUnpacker::WriteData(const TarEntry& entry, BorrowedFd fd,
                                      const std::string& path) {
  if (options_.split != nullptr) {
    if (!entry.sparse) options_.split->Data(path, 0, entry.size);
    for (const TarExtent& extent : entry.extents) {
      options_.split->Data(path, extent.offset, extent.length);
    }
  }
  return WriteTarData(
      *reader_, entry, fd, path, [](uint64_t) { return absl::OkStatus(); },
      reader_failed_);
}

absl::Status LayerUnpacker::ApplySpecial(const TarEntry& entry, DirId parent,
                                         const std::string& base,
                                         const FileAttributes& attributes) {
  ASSIGN_OR_RETURN(const bool made, MakeSpecial(entry, parent, base));
  if (!made) {
    ++stats_.skipped_devices;
    return absl::OkStatus();
  }
  const bool is_symlink = entry.type == TarType::kSymlink;
  const std::string path = directory_->tree().Path(parent, base);
  // Only the owner and times of a link take no path below /proc.
  if (options_.host != nullptr && !(is_symlink && attributes.xattrs.empty())) {
    return options_.host->WriteAttributes(path, is_symlink, attributes,
                                          stats_.skipped_xattrs);
  }
  ASSIGN_OR_RETURN(const BorrowedFd dir, directory_->Fd(parent));
  return WriteAttributesAt(dir, base, is_symlink, attributes, path,
                           stats_.skipped_xattrs);
}

// Makes a symbolic link, device node or FIFO. False if it is a device that this
// process may not make and may do without.
absl::StatusOr<bool> LayerUnpacker::MakeSpecial(const TarEntry& entry,
                                                DirId parent,
                                                const std::string& base) {
  if (entry.type == TarType::kSymlink) {
    RETURN_IF_ERROR(Create(parent, base, "symlinkat", [&](BorrowedFd dir) {
      return ::symlinkat(entry.linkname.c_str(), dir.get(), base.c_str());
    }));
    return true;
  }
  mode_t type = S_IFIFO;
  dev_t device = 0;
  if (entry.type != TarType::kFifo) {
    if (entry.devmajor > kMaxMajor || entry.devminor > kMaxMinor) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the device number ", entry.devmajor, ":", entry.devminor,
          " is beyond ", kMaxMajor, ":", kMaxMinor));
    }
    type = entry.type == TarType::kCharDevice ? S_IFCHR : S_IFBLK;
    device = makedev(entry.devmajor, entry.devminor);
    if (type == S_IFCHR && device == 0) {
      return absl::InvalidArgumentError(
          "a character device 0:0 would be a whiteout of overlayfs");
    }
  }
  const absl::Status status =
      Create(parent, base, "mknodat", [&](BorrowedFd dir) {
        if (options_.host == nullptr || type == S_IFIFO) {
          return ::mknodat(dir.get(), base.c_str(), type | 0600, device);
        }
        errno = options_.host->MakeDevice(directory_->tree().Path(parent, base),
                                          type | 0600, device);
        return errno == 0 ? 0 : -1;
      });
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  const bool may_skip = options_.format == LayerFormat::kOverlayUser ||
                        options_.owner.has_value();
  if (may_skip && type != S_IFIFO && detail.has_value() &&
      detail->error == EPERM) {
    return false;
  }
  RETURN_IF_ERROR(status);
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LayerUnpack>> LayerUnpack::Open(
    BorrowedFd dir, const UnpackOptions& options) {
  if (options.unpacker != nullptr) return options.unpacker->Open(dir, options);
  auto unpacker = std::make_unique<LayerUnpacker>(options);
  RETURN_IF_ERROR(unpacker->Open(dir));
  return unpacker;
}

absl::StatusOr<UnpackStats> UnpackLayer(ByteSource& tar, BorrowedFd dir,
                                        const UnpackOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LayerUnpack> unpack,
                   LayerUnpack::Open(dir, options));
  RETURN_IF_ERROR(unpack->Apply(tar));
  return unpack->Finish(options.lowers);
}

}  // namespace caisson::layer
