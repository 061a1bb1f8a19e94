// Images on disk, unpacked once and shared by every container.
//
// A LayerStore is a directory that holds images and their layers, each layer as
// a directory that overlayfs takes as a lowerdir. Any number of processes may
// have the same store open.
//
//   ASSIGN_OR_RETURN(LayerStore store, LayerStore::Open({.path =
//   "/var/lib/x"})); RETURN_IF_ERROR(store.Import("python.tar", {.name =
//   "python:3"}).status()); ASSIGN_OR_RETURN(Image image,
//   store.Find("python:3")); ASSIGN_OR_RETURN(LayerSet layers,
//   store.OpenLayers(image)); ASSIGN_OR_RETURN(WritableLayer top,
//                    store.CreateWritableLayer({.lower = &layers}));
//   // overlay: layers.dirs() below, top.upper() and top.work() above
//
// It mounts nothing, starts nothing and does not speak to registries. It is not
// a cache: an image stays until Remove.
//
// References. Where a method takes a `reference`, that is, in this order: an
// image id or manifest digest ("sha256:" and 64 digits); a name
// "[registry/]path[:tag]", where the registry defaults to docker.io, a single
// component to docker.io/library and the tag to latest; "name@sha256:...", the
// image of that manifest digest if it has a name in that repository; an image
// id without "sha256:", or at least 4 digits of its beginning that no other id
// has. A name wins over digits.
//
// Durability. What Import, Tag, Remove and Keep reported as done survives a
// power failure, and a layer that is not complete is never visible. kill -9 at
// any instant leaves at most directories that the next Recover removes. The
// on-disk format is described in doc/layer-store.md.
#ifndef CAISSON_LAYER_STORE_H_
#define CAISSON_LAYER_STORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/image.h"
#include "caisson/image_archive.h"
#include "caisson/image_commit.h"
#include "caisson/image_lease.h"
#include "caisson/layer_diff.h"
#include "caisson/store_check.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace layer {
class Unpacker;
}  // namespace layer

// How the layers of a store say that a name of a lower layer is hidden.
enum class LayerStoreFormat {
  // Whiteouts are devices 0:0, opaque directories have trusted.overlay.opaque.
  // Needs CAP_SYS_ADMIN and CAP_MKNOD in the initial user namespace.
  kOverlay,
  // As kOverlay with user.overlay.opaque, for overlay mounts with "userxattr".
  // Needs root, be it of a user namespace; there a range of ids (newuidmap) for
  // the owners that the image has. Device nodes that may not be made are left
  // out.
  kOverlayUserxattr,
  // The same for an ordinary user, who can give files to nobody: everything
  // belongs to the process's user and group, as with Podman's
  // ignore_chown_errors. Capabilities of files and device nodes are left out;
  // the owner may read every file and change every directory. What Save writes
  // has all that the image came with; DiffOptions::ids says for Commit which id
  // of the image the own one is. doc/rootless.md.
  kOverlayUserxattrSingle,
};

struct LayerStoreOptions {
  // The store's directory; created with mode 0700 if missing (its parent must
  // exist). A directory that is neither empty nor a store is refused.
  std::string path;
  LayerStoreFormat format = LayerStoreFormat::kOverlay;
  // Whether Open begins with Recover.
  bool recover = true;
  // Layers that are made from now on get fs-verity: the kernel checks every
  // byte of their files as it is read, answers EIO instead of a wrong one, and
  // refuses to write to them, root included. Verify need not read them. Costs
  // an import one more reading of all data and a flush of every file.
  // FAILED_PRECONDITION from imports where the file system has none: ext4 and
  // f2fs with the feature "verity", btrfs.
  bool fs_verity = false;
  // Threads that an import may start beside the calling one, which then unpacks
  // several layers at once and of each reads and decompresses, hashes and
  // writes at once. One more than there are processors is a good number; what
  // there is nothing for is not started. They block all signals and end with
  // the import; each takes 3 MiB. 0: none, and what an import makes is the
  // same.
  int import_threads = 0;
  // Who decompresses layers and makes files of them, and decompresses archives:
  // ConfinedUnpacker::Create() (confined_unpacker.h) for images that nobody
  // trusts. Null: this process.
  std::shared_ptr<const layer::Unpacker> unpacker;
  // How long a change waits for another process that is committing one.
  absl::Duration busy_timeout = absl::Seconds(30);

  // Limits of what an archive may hold; beyond them is RESOURCE_EXHAUSTED, and
  // the error says which. First, of the archive itself and its documents.
  size_t max_archive_entries = 100'000;         // files; 500 layers have 2,000
  size_t max_manifest_bytes = size_t{4} << 20;  // a manifest or index
  size_t max_config_bytes = size_t{8} << 20;
  size_t max_index_depth = 4;         // indexes in indexes
  size_t max_index_documents = 1000;  // that an index leads to
  size_t max_images = 64;             // of one archive
  size_t max_layers = 500;  // OVL_MAX_STACK, linux fs/overlayfs/params.h
  uint64_t max_layer_bytes = uint64_t{64} << 30;  // uncompressed
  uint64_t max_layer_entries = 5'000'000;
  // Of all layers together that one import unpacks.
  uint64_t max_import_bytes = uint64_t{256} << 30;
  uint64_t max_import_entries = 20'000'000;
  // Copy of an archive that cannot be read in place: from a pipe or compressed.
  uint64_t max_spool_bytes = uint64_t{64} << 30;
  // What layers, and archives that are compressed themselves, may expand to,
  // for each byte of them, beyond the first 64 MiB. Long runs of zeros do not
  // count: they become holes, which is why disk images compress a thousandfold
  // and are welcome. gzip never expands beyond 1032. 0: no limit but those
  // above.
  uint64_t max_compression_ratio = 500;
  // Memory of a zstd or xz decoder. `zstd --ultra` and `--long` above 27 need
  // more.
  uint64_t max_window_bytes = uint64_t{128} << 20;

  // What an entry of a layer's tar may say of itself.
  size_t max_path_bytes = 4095;  // names, link targets; PATH_MAX without NUL
  size_t max_path_depth = 256;   // components
  // One PAX header, GNU long name or sparse map.
  size_t max_extension_bytes = size_t{1} << 20;
  size_t max_sparse_extents = size_t{1} << 17;  // regions of one file
  // Memory for what of a layer is decided at its end: directories, whiteouts,
  // links.
  size_t max_layer_memory = size_t{256} << 20;
};

struct ImportProgress {
  enum Phase {
    kReading,     // the archive's table of contents and documents
    kUnpacking,   // layers
    kPublishing,  // everything is on disk; about to become visible
  };
  // A layer that the store did not have.
  struct Layer {
    std::string diff_id;      // "sha256:..."
    uint64_t bytes_done = 0;  // of the layer as it is in the archive
    uint64_t bytes = 0;
    uint64_t entries_done = 0;  // files of every kind, and whiteouts
    bool done = false;
  };
  Phase phase = kReading;
  size_t layers_done = 0;
  size_t layers = 0;
  // Sums of those of `each`.
  uint64_t bytes_done = 0;
  uint64_t bytes = 0;
  uint64_t entries_done = 0;
  std::vector<Layer> each;  // those below before those above
};

struct ImportOptions {
  // The name for the image, which must then be the only one in the archive.
  // Empty: the names that the archive gives.
  std::string name;
  // What to take from an archive for several platforms, and what an image must
  // be for. Default: HostPlatform().
  std::optional<Platform> platform;
  // If set, each image gets a lease of this name as it becomes visible, so that
  // nobody can prune it first. `image` is not looked at.
  std::optional<ImageLease> lease;
  // Called in the thread that called Import, about once per MiB, also within
  // large files; no number ever falls. false cancels: Import answers CANCELLED
  // and leaves nothing. It must not throw.
  std::function<bool(const ImportProgress&)> progress;
};

struct RecoverReport {
  size_t imports = 0;          // unfinished imports removed
  size_t writable_layers = 0;  // writable layers without an owner removed
  size_t layers = 0;           // layers of no image removed
  size_t leases = 0;           // expired ones removed
  // What could not be removed; the next Recover tries again.
  std::vector<absl::Status> failures;
};

// The layers of one image, open, for as long as the object lives: a shared lock
// keeps Remove from deleting them, in this and every other process.
//
// The destructor closes the directories and the lock. Thread-compatible.
class [[nodiscard]] LayerSet final {
 public:
  LayerSet(LayerSet&&) noexcept = default;
  LayerSet& operator=(LayerSet&&) noexcept = default;

  // The directories in the order of overlayfs' lowerdir: the top layer first.
  // Never empty: an image without layers has one empty directory.
  std::vector<BorrowedFd> dirs() const;

  // The lock as a descriptor. A process that receives a duplicate (by fork or
  // SCM_RIGHTS) keeps the layers until it closes it; hand one to whatever
  // outlives this process and has the layers mounted.
  BorrowedFd lock() const { return lock_.borrow(); }

 private:
  friend class LayerStore;
  LayerSet(UniqueFd lock, std::vector<UniqueFd> dirs)
      : lock_(std::move(lock)), dirs_(std::move(dirs)) {}

  UniqueFd lock_;
  std::vector<UniqueFd> dirs_;
};

struct WritableLayerOptions {
  // If set, the new upper directory, which becomes the root of the overlay,
  // gets mode, owner and extended attributes of the top layer's root. Otherwise
  // it is 0755 and the process's own: root's.
  const LayerSet* lower = nullptr;
  // If set, the owner of upper and work instead: the host's ids for root in the
  // user namespace that will use them.
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
  // What upper and work together may take: bytes in blocks of the file system
  // (rounded up to 1024), and files of every kind, of which three to seven are
  // the layer's own directories and overlayfs'. 0: no limit. Beyond it a
  // program sees EDQUOT, or ENOSPC on XFS, and df(1) the limit on XFS. Kept
  // with the layer.
  //
  // By a project quota, which the file system must have: FAILED_PRECONDITION
  // says what is missing (ext4: the features "quota" and "project"; ext4 and
  // XFS: the mount option "prjquota"; CAP_SYS_ADMIN in the initial user
  // namespace). It holds for what is written through an overlay; on ext4 the
  // host itself, with CAP_SYS_RESOURCE, may write more into upper(). Root of a
  // container without a user namespace of its own owns its files, and whose
  // file it is may move it to another project (FS_IOC_FSSETXATTR): the limit is
  // one for accidents there, and a fence in a user namespace. A layer in memory
  // with a limit: RootWrites::kTmpfs (root_fs.h).
  uint64_t size_bytes = 0;
  uint64_t max_files = 0;
};

struct LayerUsage {
  uint64_t bytes = 0;  // blocks on disk; a file with several names counts once
  uint64_t files = 0;  // of every kind, directories and whiteouts included
  // The limits of a layer that has some; 0: none.
  uint64_t max_bytes = 0;
  uint64_t max_files = 0;
};

// An upper directory with its work directory, for one overlay mount.
//
// Locked for as long as the object, or a duplicate of lock(), lives. Unless
// Keep was called, the destructor removes it, ignoring errors; what then
// remains the next Recover removes. The overlay must be unmounted before. After
// a fork, only the process that created the object removes anything.
// Thread-compatible.
class [[nodiscard]] WritableLayer final {
 public:
  WritableLayer(WritableLayer&&) noexcept;
  WritableLayer& operator=(WritableLayer&&) noexcept;
  ~WritableLayer();

  BorrowedFd upper() const { return upper_.borrow(); }
  BorrowedFd work() const { return work_.borrow(); }
  // See LayerSet::lock.
  BorrowedFd lock() const { return dir_.borrow(); }

  // What its files take, without those of the layers below. What a running
  // container changes meanwhile may be counted or not. Looks at every file; of
  // a layer with limits the file system answers at once, work directory
  // included.
  absl::StatusOr<LayerUsage> Usage() const;

  // Makes the layer stay in the store under `name` (a letter or digit, then up
  // to 127 letters, digits, "_", "." and "-"), to be opened again with
  // OpenWritableLayer. ALREADY_EXISTS if the name is taken. Atomic. The content
  // is as durable as its writers made it: only the name is synced.
  absl::Status Keep(absl::string_view name);

  // From now on the destructor lets the layer be: it goes, unless it is kept,
  // when the last duplicate of lock() is closed and somebody calls
  // LayerStore::Recover() (detached.h).
  void Disown() { disowned_ = true; }

  // Removes the layer, kept or not, and closes it. After a failure the rest
  // stays and Destroy may be called again. Idempotent.
  absl::Status Destroy();

 private:
  friend class LayerStore;
  WritableLayer() = default;
  void Abandon();

  UniqueFd store_;         // the store's directory
  std::string directory_;  // below store_: "writable" or "kept"
  std::string name_;       // in that directory
  UniqueFd dir_;           // carries the lock
  UniqueFd upper_;
  UniqueFd work_;
  bool keep_ = false;
  bool disowned_ = false;
  int owner_ = 0;  // process id
};

// Thread-safe: every method may be called from several threads at once, and
// imports of several threads run side by side. All methods block on the disk;
// those that change something also wait for changes of other processes to be
// committed. In a child made by fork, open the store anew.
class [[nodiscard]] LayerStore final {
 public:
  // Opens the store, creating it if the directory is missing or empty. A store
  // written by a later version is FAILED_PRECONDITION.
  static absl::StatusOr<LayerStore> Open(const LayerStoreOptions& options);

  LayerStore(LayerStore&&) noexcept;
  LayerStore& operator=(LayerStore&&) noexcept;
  // Closes the store. LayerSets and WritableLayers stay valid.
  ~LayerStore();

  // Adds the images of an archive: a docker-archive (`docker save` of any
  // version, with manifest.json or, before Docker 1.10, with "repositories"),
  // an OCI archive, either of them compressed with gzip, zstd, xz or bzip2, or
  // a directory with the content of one (an OCI layout). Which it is is told by
  // content; an archive that is both OCI and Docker, as Docker 25 and later
  // writes it, is read as OCI.
  //
  // All digests are verified. The images are added together or, after an error,
  // none; names that other images had move to the new ones. Layers that the
  // store has already are not unpacked again. Nothing is fetched over a
  // network. Returns the images, also those that the store had.
  absl::StatusOr<std::vector<Image>> Import(const std::string& path,
                                            const ImportOptions& options = {});
  // The same from an open file, pipe (read to its end) or directory.
  absl::StatusOr<std::vector<Image>> Import(BorrowedFd archive,
                                            const ImportOptions& options = {});

  // Writes images to a new file, or for kOciLayout to a directory that is new
  // or empty; see image_archive.h. An image has those of its names in the
  // archive that it is referred to by. The file is complete and on disk before
  // it has its name; a directory is no layout before it is complete.
  // ALREADY_EXISTS if there is such a file; DATA_LOSS if a layer has changed on
  // disk. After a failure nothing is left.
  absl::Status Save(const std::vector<std::string>& references,
                    const std::string& path,
                    const SaveOptions& options = {}) const;
  // The same into an open file, pipe or socket, or for kOciLayout into an empty
  // directory; what was written before a failure stays. Whoever passes a pipe
  // has SIGPIPE ignored or blocked.
  absl::Status Save(const std::vector<std::string>& references, BorrowedFd out,
                    const SaveOptions& options = {}) const;

  // The image of a reference. NOT_FOUND names what the store has; digits that
  // begin several ids are INVALID_ARGUMENT, and the error names them.
  absl::StatusOr<Image> Find(absl::string_view reference) const;

  // All images, the latest import first. Parses no configurations.
  absl::StatusOr<std::vector<ImageSummary>> List() const;

  // Gives the image of `reference` the further name `name`, taking it from the
  // image that had it.
  absl::Status Tag(absl::string_view reference, absl::string_view name);

  // If `reference` is a name without a digest, removes the name, and the image
  // with it if that was its last. Otherwise removes the image with all its
  // names. Layers that no other image has go with it. An image that a LayerSet
  // anywhere or a lease holds is FAILED_PRECONDITION and stays as it was, names
  // included.
  absl::Status Remove(absl::string_view reference);

  // Keeps an image, with its layers, until `expires` or ReleaseLease, whatever
  // becomes of its names and of this process; see image_lease.h. For a lease
  // and image that are there already, the new time counts.
  absl::Status Lease(absl::string_view reference, absl::string_view lease,
                     absl::Time expires = absl::InfiniteFuture());
  // Ends a lease of all its images. NOT_FOUND if there is none.
  absl::Status ReleaseLease(absl::string_view lease);
  // Those that have not expired, sorted by name and image.
  absl::StatusOr<std::vector<ImageLease>> ListLeases() const;

  // Opens the image's layers and locks them. NOT_FOUND if the image has been
  // removed meanwhile; FAILED_PRECONDITION if the image was imported in another
  // format only; DATA_LOSS if a layer is missing on disk (import it again).
  absl::StatusOr<LayerSet> OpenLayers(const Image& image) const;

  // Writes the files of an image into the empty directory `directory`, as one
  // tree without overlayfs: for an OCI bundle, or a host that cannot mount one.
  // Each layer's digest is verified. `progress` as in SaveOptions. After a
  // failure a part of the tree is there (DATA_LOSS: a layer has changed on
  // disk). Nothing is synced.
  absl::Status Unpack(
      const Image& image, BorrowedFd directory,
      const std::function<bool(uint64_t bytes)>& progress = {}) const;

  // Makes an empty writable layer in the store, hence on the same file system
  // as its layers.
  absl::StatusOr<WritableLayer> CreateWritableLayer(
      const WritableLayerOptions& options = {}) const;

  // Opens and locks a kept layer. NOT_FOUND, or FAILED_PRECONDITION while
  // another WritableLayer (or a duplicate of its lock) holds it.
  absl::StatusOr<WritableLayer> OpenWritableLayer(absl::string_view name) const;

  // Opens the upper directory of a kept layer for Diff, Commit and the like,
  // whether or not a container is using it. No lock: if it is destroyed
  // meanwhile, so is what they read.
  absl::StatusOr<UniqueFd> OpenUpper(absl::string_view name) const;

  // What `upper` (WritableLayer::upper, OpenUpper) changes in `lower`, the
  // layers that it was made for, sorted by path; see layer_diff.h.
  absl::StatusOr<std::vector<LayerChange>> Diff(
      BorrowedFd upper, const LayerSet& lower,
      const DiffOptions& options = {}) const;

  // The same as a layer (OCI image-spec, layer.md): an uncompressed tar,
  // written to `out`, a file, socket or pipe. Whoever passes a pipe has SIGPIPE
  // ignored or blocked. After a failure some of it has been written.
  absl::Status WriteDiff(BorrowedFd upper, const LayerSet& lower,
                         BorrowedFd out, const DiffOptions& options = {}) const;

  // Makes an image of `base` and a layer of what `upper` changes in it; a
  // default Image as base has no layers. Without changes there is no layer. The
  // image is durable when this returns; after a failure there is nothing of it.
  // See image_commit.h.
  absl::StatusOr<Image> Commit(const Image& base, BorrowedFd upper,
                               const CommitOptions& options = {});

  // Makes an image with the `keep` bottom layers of `base`, and one layer of
  // all that the others change (0: one layer in all). Its history says so.
  absl::StatusOr<Image> Squash(const Image& base, size_t keep,
                               const CommitOptions& options = {});

  // Makes an image of one layer of a tar, compressed or not, of a root file
  // system: what Export writes. The archive may be a file or pipe. The limits
  // are those of Import.
  absl::StatusOr<Image> ImportRootFs(const std::string& path,
                                     const CommitOptions& options = {});
  absl::StatusOr<Image> ImportRootFs(BorrowedFd tar,
                                     const CommitOptions& options = {});

  // All files of an image, or of an image with a writable layer above it, as a
  // tar without whiteouts; as WriteDiff otherwise.
  absl::Status Export(const LayerSet& layers, BorrowedFd out,
                      const DiffOptions& options = {}) const;
  absl::Status Export(BorrowedFd upper, const LayerSet& lower, BorrowedFd out,
                      const DiffOptions& options = {}) const;

  // Names of the kept layers, sorted.
  absl::StatusOr<std::vector<std::string>> ListWritableLayers() const;

  // Removes images that have no names, and with `all` every image, as far as
  // they are not in use or leased and were imported before `before`. Answers
  // the ids of those removed; the others, or one gone meanwhile, are passed
  // over.
  absl::StatusOr<std::vector<std::string>> Prune(
      bool all = false, absl::Time before = absl::InfiniteFuture());

  // Compares everything in the store, of this format, with what its images say;
  // see store_check.h. Safe at any time; a layer is not removed meanwhile.
  absl::StatusOr<StoreReport> Verify(const VerifyOptions& options = {});

  // Removes what processes that died left behind: unfinished imports, writable
  // layers that were not kept, layers of no image; and expired leases. Leaves
  // alone what live processes are doing. Safe at any time.
  absl::StatusOr<RecoverReport> Recover();

 private:
  class Impl;
  explicit LayerStore(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson

#endif  // CAISSON_LAYER_STORE_H_
