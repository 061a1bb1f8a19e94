// The directory of a layer store: its subdirectories, held open.
//
//   index.db              images, names and which layers there are (SQLite)
//   store.lock            store_lock.h
//   reserve               room on a full disk for what makes room
//   empty/                the one layer of an image without layers
//   layers/FORMAT/CHAIN/{diff,tar-split}
//                         a layer; CHAIN are 64 hexadecimal digits
//   staging/RANDOM/       what an import builds, or a removal takes apart
//   writable/RANDOM/{upper,work}
//   kept/NAME/{upper,work}
//
// Whatever is in layers/ is complete and on disk: it was renamed there after a
// syncfs(2). Whatever is in staging/ and writable/ is garbage once nobody holds
// its lock (owned_dir.h). Thread-safe.
#ifndef CAISSON_LIB_LAYER_STORE_DIR_H_
#define CAISSON_LIB_LAYER_STORE_DIR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/layer_store.h"
#include "caisson/unique_fd.h"
#include "lib/layer/digest.h"
#include "lib/layer/unpack.h"
#include "lib/sys/owned_dir.h"

namespace caisson::layer {

inline constexpr char kWritable[] = "writable";
inline constexpr char kKept[] = "kept";
// Of one layer.
inline constexpr char kDiff[] = "diff";
inline constexpr char kTarSplit[] = "tar-split";

inline constexpr LayerStoreFormat kLayerStoreFormats[] = {
    LayerStoreFormat::kOverlay, LayerStoreFormat::kOverlayUserxattr,
    LayerStoreFormat::kOverlayUserxattrSingle};

// "overlay", "overlay-userxattr", ...: the directory below layers/, and the
// column in the index.
const char* FormatName(LayerStoreFormat format);

// The same for who reads and writes layers.
LayerFormat UnpackFormat(LayerStoreFormat format);

class StoreDir final {
 public:
  // Opens the store at `path`, making what is missing. `fs_verity`: new layers
  // are sealed.
  static absl::StatusOr<StoreDir> Open(const std::string& path,
                                       LayerStoreFormat format, bool fs_verity);

  BorrowedFd root() const { return root_.borrow(); }
  BorrowedFd layers() const { return layers_.borrow(); }  // of the own format
  BorrowedFd staging() const { return staging_.borrow(); }
  BorrowedFd writable() const { return writable_.borrow(); }
  BorrowedFd kept() const { return kept_.borrow(); }
  const char* format() const { return format_; }
  bool fs_verity() const { return fs_verity_; }

  // The path of index.db, which does not depend on the working directory.
  absl::StatusOr<std::string> IndexPath() const;

  // The root of an unpacked layer. NOT_FOUND if it is not there.
  absl::StatusOr<UniqueFd> OpenLayer(const Digest& chain_id) const;
  // What has that and its tar-split.
  absl::StatusOr<UniqueFd> OpenLayerDirectory(const Digest& chain_id) const;
  // What puts its tar together again (tar_split.h). NOT_FOUND if it is not
  // there.
  absl::StatusOr<UniqueFd> OpenTarSplitOf(const Digest& chain_id) const;
  bool HasLayer(const Digest& chain_id) const;
  absl::StatusOr<UniqueFd> OpenEmptyLayer() const;

  // Makes the file that GiveUpReserve() deletes, if it is not there and the
  // disk has room for it.
  void KeepReserve() const;

 private:
  StoreDir() = default;

  const char* format_ = nullptr;
  bool fs_verity_ = false;
  UniqueFd root_;
  UniqueFd layers_;
  UniqueFd staging_;
  UniqueFd writable_;
  UniqueFd kept_;
};

// Whether `status` is about a full disk, and the store whose directory is
// `root` had something in reserve, which is now free: it is worth another try.
// For operations that end with more room than before.
bool GiveUpReserve(BorrowedFd root, const absl::Status& status);

// A directory below staging/ that is removed with the object.
class Staging final {
 public:
  static absl::StatusOr<Staging> Create(const StoreDir& store);

  Staging(Staging&&) = default;
  Staging& operator=(Staging&& other) noexcept;
  ~Staging();

  BorrowedFd fd() const { return dir_.fd.borrow(); }

  // Removes it now; what cannot be removed stays for Recover.
  absl::Status Remove();

 private:
  Staging(BorrowedFd parent, sys::OwnedDir dir);

  BorrowedFd parent_;
  sys::OwnedDir dir_;
  int owner_;  // process id: a forked child removes nothing
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_STORE_DIR_H_
