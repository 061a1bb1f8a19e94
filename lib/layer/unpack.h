// The layer unpacker: applies one layer's tar stream to a directory.
//
//   UnpackOptions options;
//   options.format = LayerFormat::kOverlayTrusted;
//   options.lowers = lower_roots;  // top first
//   ASSIGN_OR_RETURN(UnpackStats stats, UnpackLayer(tar, staging, options));
//
// or in two steps, of which the first needs no other layer, so that the layers
// of an image can take it side by side:
//
//   ASSIGN_OR_RETURN(auto unpack, LayerUnpack::Open(staging, options));
//   RETURN_IF_ERROR(unpack->Apply(tar));
//   ... the layers below are complete ...
//   ASSIGN_OR_RETURN(UnpackStats stats, unpack->Finish(lower_roots));
//
// The tar is hostile, the directory is the caller's alone: give it a staging
// directory that nobody else can reach (mode 0700 above it) and publish the
// result by rename. Directories stay 0700 until the last entry has been read,
// so no set-id file is reachable before the layer is complete. After an error
// the directory holds a partial tree to be removed (RemoveContents).
//
// Semantics (OCI image-spec, layer.md, and what Docker's users get):
// - Names: a leading "/" and "." components are dropped; ".." is refused. A
//   parent that this layer made a symbolic link is followed as if the directory
//   were "/"; a parent that is another non-directory is replaced by a
//   directory. Lower layers are never followed through: their symbolic links
//   count as missing parents. Nothing outside the directory is ever touched.
// - A later entry replaces an earlier one of the same name; directories merge,
//   also with those of lower layers. A directory that replaces a file of the
//   same layer does not: the file has hidden what was below.
// - ".wh.NAME" hides NAME of lower layers, ".wh..wh..opq" all lower content of
//   its directory, wherever they stand in the tar; neither touches what the
//   layer itself contains. What hides nothing is not written: overlayfs would
//   list it. Other ".wh..wh.*" names are metadata of AUFS: not
//   unpacked, but valid as hard link targets.
// - Hard links share the inode and set no metadata. The target may come later
// in
//   the tar, or be in a lower layer only: then it is copied up, as overlayfs
//   does on link(2).
// - A parent directory without an entry gets the attributes that it has in the
//   lower layers, or else 0755 root. The same holds for the root itself, whose
//   entry is "./".
// - Metadata in the order owner, xattrs, mode, times, so that set-id bits and
//   file capabilities survive; directory times last. Times are clamped to
//   1901..2446, what ext4 can hold.
// - security.selinux, security.SMACK64*, system.nfs4_acl and what the file
//   system refuses are skipped and counted. {trusted,user}.overlay.* are
//   escaped (overlay.overlay.*, Linux 6.7) where the format interprets them and
//   skipped where it does not.
// - A character device 0:0 is refused: it would be an overlay whiteout.
// - Sparse files are written as holes, and so are long runs of zeros.
#ifndef CAISSON_LIB_LAYER_UNPACK_H_
#define CAISSON_LIB_LAYER_UNPACK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/tar_reader.h"
#include "lib/layer/tar_split.h"

namespace caisson::layer {

class UnpackHost;
class Unpacker;

// What the directory is to become; never guessed from the file system.
enum class LayerFormat {
  // A lowerdir of overlayfs: whiteouts are character devices 0:0, opaque
  // directories carry trusted.overlay.opaque (needs CAP_SYS_ADMIN).
  kOverlayTrusted,
  // The same with user.overlay.opaque, for mounts with "userxattr".
  kOverlayUser,
  // The layer is applied to a tree that already holds the lower layers:
  // whiteouts remove.
  kPlain,
};

struct UnpackProgress {
  uint64_t entries = 0;
  uint64_t bytes = 0;      // file sizes, as max_bytes counts them
  uint64_t tar_bytes = 0;  // read from the tar stream
};

// Who owns all files, whatever the tar says.
struct LayerOwner {
  uint32_t uid = 0;
  uint32_t gid = 0;
};

struct UnpackOptions {
  LayerFormat format = LayerFormat::kOverlayTrusted;
  // For UnpackLayer: roots of the layers below, top first, in the same format;
  // none for the lowest layer. They are only read, and must be complete.
  // nullopt if they are not known: then hard links into them and a marker that
  // makes the root opaque are errors, parents without an entry are 0755 root,
  // and whiteouts are written even if they hide nothing. kPlain needs none.
  std::optional<absl::Span<const BorrowedFd>> lowers;

  uint64_t max_entries = 5'000'000;
  // Sum of all file sizes, holes and copies from lower layers included.
  uint64_t max_bytes = uint64_t{64} << 30;
  // What errors call these two: the options that the user has set.
  const char* max_entries_name = "max_entries";
  const char* max_bytes_name = "max_bytes";
  size_t max_path_bytes = 4095;  // PATH_MAX of the kernel without its NUL
  size_t max_path_depth = 256;   // components of a path
  // Memory for what is only decided at the end: directories, whiteouts, links.
  size_t max_layer_memory = size_t{256} << 20;
  TarLimits tar;
  // If set, owners are not those of the tar: for a process that can give files
  // to nobody but itself. It can always read its files and change its
  // directories (modes get 0400 and 0700), capabilities are skipped, and so are
  // device nodes that it may not make.
  std::optional<LayerOwner> owner;
  // If set, is told of every byte of the tar (tar_split.h).
  TarSplitSink* split = nullptr;

  // Called about once per MiB of tar stream and, after its end, per thousand
  // directories and whiteouts, if set; an error stops the unpacking and is
  // returned.
  std::function<absl::Status(const UnpackProgress&)> progress;

  // If set, does what this process may not (unpack_host.h).
  UnpackHost* host = nullptr;
  // If set, does everything instead of this process (unpacker.h).
  const Unpacker* unpacker = nullptr;
};

struct UnpackStats {
  uint64_t entries = 0;    // in the tar
  uint64_t bytes = 0;      // file sizes, as max_bytes counts them
  uint64_t tar_bytes = 0;  // length of the tar stream
  uint64_t whiteouts = 0;  // names and directories hidden
  uint64_t copied_up = 0;  // hard link targets taken from lower layers
  uint64_t skipped_xattrs = 0;
  uint64_t skipped_devices = 0;  // kOverlayUser without CAP_MKNOD
  // Whether the layer lacks data that the tar has: an entry replaced another.
  bool replaced = false;
};

// One layer on its way into one directory. All work is done by the calls below,
// in the thread that makes them. Thread-compatible; any number for different
// directories. Nothing is synced.
class LayerUnpack {
 public:
  // `dir` must be empty except for kPlain; it need not stay open. What
  // `options` refers to must outlive the object.
  static absl::StatusOr<std::unique_ptr<LayerUnpack>> Open(
      BorrowedFd dir, const UnpackOptions& options);
  virtual ~LayerUnpack() = default;

  // Reads `tar` to its very end and makes what it has. Call once. (kPlain: the
  // layers below must have been applied.)
  virtual absl::Status Apply(ByteSource& tar) = 0;

  // Does what depends on the layers below, see UnpackOptions::lowers: hides
  // what the layer hides, makes links into lower layers, and gives directories
  // their attributes. Call once, after Apply.
  virtual absl::StatusOr<UnpackStats> Finish(
      std::optional<absl::Span<const BorrowedFd>> lowers) = 0;
};

// Both steps at once, with options.lowers.
absl::StatusOr<UnpackStats> UnpackLayer(ByteSource& tar, BorrowedFd dir,
                                        const UnpackOptions& options);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_UNPACK_H_
