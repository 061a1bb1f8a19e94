#include "caisson/layer_store.h"

#include <fcntl.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/digest.h"
#include "lib/layer/image_name.h"
#include "lib/layer/image_spec.h"
#include "lib/layer/layer_import.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/store_dir.h"
#include "lib/layer/store_index.h"
#include "lib/layer/store_lock.h"
#include "lib/layer/store_recover.h"
#include "lib/layer/tar_split.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using layer::Digest;
using layer::ImageName;
using layer::ResolvedImage;
using layer::Staging;
using layer::StoreIndex;
using layer::StoreLock;

constexpr size_t kNamesInErrors = 12;
// Fewer digits are more likely a mistyped name.
constexpr size_t kMinPrefix = 4;

absl::Status NoSuchImage(StoreIndex& index, absl::string_view reference) {
  ASSIGN_OR_RETURN(const auto sample, index.SampleNames(kNamesInErrors));
  std::string has = "it has no images";
  if (!sample.names.empty()) {
    has = absl::StrCat("it has ", absl::StrJoin(sample.names, ", "));
    if (sample.more > 0) absl::StrAppend(&has, " and ", sample.more, " more");
  }
  return absl::NotFoundError(absl::StrCat("there is no image ",
                                          Quoted(reference.substr(0, 300)),
                                          " in the store; ", has));
}

absl::Status Ambiguous(absl::string_view reference,
                       const std::vector<std::string>& ids) {
  return absl::InvalidArgumentError(absl::StrCat("image ", Quoted(reference),
                                                 " could be any of ",
                                                 absl::StrJoin(ids, ", ")));
}

absl::StatusOr<std::optional<ResolvedImage>> ByDigest(StoreIndex& index,
                                                      const Digest& digest) {
  ASSIGN_OR_RETURN(const bool is_id, index.HasImage(digest.str()));
  if (is_id) return ResolvedImage{.id = digest.str()};
  ASSIGN_OR_RETURN(auto ids, index.IdsOfManifest(digest));
  if (ids.empty()) return std::nullopt;
  return ResolvedImage{.id = std::move(ids.front())};
}

absl::StatusOr<std::optional<ResolvedImage>> ByName(StoreIndex& index,
                                                    const ImageName& name) {
  if (!name.digest.has_value()) {
    const std::string canonical = name.Canonical();
    ASSIGN_OR_RETURN(auto id, index.IdOfName(canonical));
    if (!id.has_value()) return std::nullopt;
    return ResolvedImage{.id = *std::move(id), .name = canonical};
  }
  ASSIGN_OR_RETURN(auto found, ByDigest(index, *name.digest));
  if (!found.has_value()) return found;
  ASSIGN_OR_RETURN(const auto names, index.NamesOf(found->id));
  const bool has_name = std::any_of(
      names.begin(), names.end(), [&name](const std::string& other) {
        return absl::StartsWith(other, name.repository + ":");
      });
  if (!has_name) return std::nullopt;
  return found;
}

// The digits of an id, with or without "sha256:"; nullopt if it is no prefix.
std::optional<std::string> IdPrefix(absl::string_view reference) {
  std::string prefix(reference);
  if (!absl::StartsWith(prefix, "sha256:")) prefix.insert(0, "sha256:");
  const absl::string_view digits = absl::string_view(prefix).substr(7);
  const bool hex = std::all_of(digits.begin(), digits.end(), [](char c) {
    return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
  });
  if (digits.size() < kMinPrefix || digits.size() > 64 || !hex)
    return std::nullopt;
  return prefix;
}

absl::StatusOr<std::optional<ResolvedImage>> ByPrefix(
    StoreIndex& index, absl::string_view reference) {
  const std::optional<std::string> prefix = IdPrefix(reference);
  if (!prefix.has_value()) return std::nullopt;
  ASSIGN_OR_RETURN(auto ids, index.IdsOfPrefix(*prefix, kNamesInErrors));
  if (ids.size() > 1) return Ambiguous(reference, ids);
  if (ids.empty()) return std::nullopt;
  return ResolvedImage{.id = std::move(ids.front())};
}

}  // namespace

absl::StatusOr<ResolvedImage> layer::ResolveImage(StoreIndex& index,
                                                  absl::string_view reference) {
  if (auto digest = Digest::Parse(reference, "image"); digest.ok()) {
    ASSIGN_OR_RETURN(auto found, ByDigest(index, *digest));
    if (found.has_value()) return *std::move(found);
    return NoSuchImage(index, reference);
  }
  const absl::StatusOr<ImageName> name = layer::ParseImageName(reference);
  if (name.ok()) {
    ASSIGN_OR_RETURN(auto found, ByName(index, *name));
    if (found.has_value()) return *std::move(found);
  }
  ASSIGN_OR_RETURN(auto found, ByPrefix(index, reference));
  if (found.has_value()) return *std::move(found);
  if (!name.ok()) return name.status();
  return NoSuchImage(index, reference);
}

absl::StatusOr<layer::StoredTar> layer::OpenStoredTar(const StoreDir& store,
                                                      const LayerInfo& layer,
                                                      BorrowedFd diff) {
  ASSIGN_OR_RETURN(Digest diff_id, Digest::Parse(layer.diff_id, "diff_id"));
  ASSIGN_OR_RETURN(const Digest chain_id,
                   Digest::Parse(layer.chain_id, "chain_id"));
  absl::StatusOr<UniqueFd> split = store.OpenTarSplitOf(chain_id);
  if (absl::IsNotFound(split.status())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "layer ", layer.diff_id,
        " was imported by a version that kept too little of it; remove the "
        "image and import it again"));
  }
  RETURN_IF_ERROR(split.status());
  StoredTar tar{.diff_id = std::move(diff_id), .split = *std::move(split)};
  ASSIGN_OR_RETURN(tar.source, OpenTarSplit(tar.split.borrow(), diff));
  return tar;
}

absl::Status layer::CheckStoredDigest(HashingSource& hash,
                                      const Digest& diff_id) {
  const Digest actual = hash.Finish();
  if (actual == diff_id) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "layer ", diff_id.str(), " is damaged on disk: its digest is ",
      actual.str(), "; remove the image and import it again"));
}

absl::Status layer::CheckLayersOf(const Image& image, const LayerSet& layers) {
  // An image without layers has one directory, which is none of them.
  const size_t expected = std::max<size_t>(image.layers.size(), 1);
  if (layers.dirs().size() == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "Image::layers has ", image.layers.size(), " layers, but the image ",
      image.id, " in the store has ", layers.dirs().size()));
}

absl::StatusOr<Image> layer::LoadImage(StoreIndex& index,
                                       const std::string& id) {
  ASSIGN_OR_RETURN(Image image, index.Get(id));
  // It was valid when it was imported.
  auto document = layer::ParseImageConfig(image.config_json, image.id);
  if (!document.ok()) {
    return absl::DataLossError(absl::StrCat(
        "index.db is damaged: configuration ", document.status().message()));
  }
  image.config = std::move(document->config);
  image.created = document->created;
  image.author = std::move(document->author);
  image.history = std::move(document->history);
  return image;
}

namespace {

absl::Status InUse(const std::string& id) {
  return absl::FailedPreconditionError(
      absl::StrCat("image ", id,
                   " is in use by a LayerSet or an import, in this process or "
                   "another"));
}

absl::Status Leased(const ImageLease& lease) {
  return absl::FailedPreconditionError(absl::StrCat(
      "image ", lease.image, " is held by the lease ", Quoted(lease.name),
      lease.expires == absl::InfiniteFuture()
          ? ""
          : absl::StrCat(" until ", absl::FormatTime(lease.expires)),
      "; ReleaseLease ends it"));
}

// Why a layer that an image has is not on disk.
absl::Status MissingLayer(StoreIndex& index, const char* format,
                          const std::string& image, const Digest& chain_id) {
  ASSIGN_OR_RETURN(const auto record, index.FindLayer(format, chain_id));
  if (record.has_value()) {
    return absl::DataLossError(
        absl::StrCat("layer ", chain_id.str(), " of image ", image,
                     " is missing in the store's directory; import the image "
                     "again"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("image ", image, " has not been unpacked in the format ",
                   Quoted(format), " of this LayerStore; import it again"));
}

}  // namespace

std::vector<BorrowedFd> LayerSet::dirs() const {
  std::vector<BorrowedFd> dirs;
  for (const UniqueFd& dir : dirs_) dirs.push_back(dir.borrow());
  return dirs;
}

LayerStore::LayerStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LayerStore::LayerStore(LayerStore&&) noexcept = default;
LayerStore& LayerStore::operator=(LayerStore&&) noexcept = default;
LayerStore::~LayerStore() = default;

absl::StatusOr<LayerStore> LayerStore::Open(const LayerStoreOptions& options) {
  absl::StatusOr<LayerStore> store = Impl::TryOpen(options);
  if (!store.ok()) {
    // Somebody may be here to make room.
    const auto root = sys::Open(options.path, O_RDONLY | O_DIRECTORY);
    if (!root.ok() || !layer::GiveUpReserve(root->borrow(), store.status())) {
      return store;
    }
    store = Impl::TryOpen(options);
  }
  if (store.ok()) store->impl_->dir.KeepReserve();
  return store;
}

absl::StatusOr<LayerStore> LayerStore::Impl::TryOpen(
    const LayerStoreOptions& options) {
  ASSIGN_OR_RETURN(
      layer::StoreDir dir,
      layer::StoreDir::Open(options.path, options.format, options.fs_verity));
  auto impl = std::make_unique<Impl>(options, std::move(dir));
  ASSIGN_OR_RETURN(const std::string path, impl->dir.IndexPath());
  // Who is here to read waits for nobody who is publishing.
  impl->index = StoreIndex::OpenPresent(path, options.busy_timeout);
  if (impl->index == nullptr) {
    ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(impl->dir.root()));
    ASSIGN_OR_RETURN(impl->index, StoreIndex::Open(path, options.busy_timeout));
  }
  LayerStore store(std::move(impl));
  // What cannot be removed must not keep the store from being used.
  if (options.recover) RETURN_IF_ERROR(store.Recover().status());
  return store;
}

absl::StatusOr<std::vector<Image>> LayerStore::Import(
    const std::string& path, const ImportOptions& options) {
  ASSIGN_OR_RETURN(UniqueFd fd, sys::Open(path, O_RDONLY | O_NOCTTY));
  auto images = Import(fd.borrow(), options);
  if (!images.ok()) {
    return Annotate(images.status(), absl::StrCat("import ", Quoted(path)));
  }
  return images;
}

absl::StatusOr<std::vector<Image>> LayerStore::Import(
    BorrowedFd archive, const ImportOptions& options) {
  layer::LayerImport import(impl_->dir, *impl_->index, impl_->options, options);
  ASSIGN_OR_RETURN(const auto ids, import.Run(archive));
  std::vector<Image> images;
  for (const Digest& id : ids) {
    ASSIGN_OR_RETURN(Image image, layer::LoadImage(*impl_->index, id.str()));
    images.push_back(std::move(image));
  }
  return images;
}

absl::StatusOr<Image> LayerStore::Find(absl::string_view reference) const {
  ASSIGN_OR_RETURN(const ResolvedImage found,
                   layer::ResolveImage(*impl_->index, reference));
  return layer::LoadImage(*impl_->index, found.id);
}

absl::StatusOr<std::vector<ImageSummary>> LayerStore::List() const {
  return impl_->index->List();
}

absl::Status LayerStore::Tag(absl::string_view reference,
                             absl::string_view name) {
  ASSIGN_OR_RETURN(const ImageName tag, layer::ParseTag(name));
  ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(impl_->dir.root()));
  ASSIGN_OR_RETURN(const ResolvedImage found,
                   layer::ResolveImage(*impl_->index, reference));
  return impl_->index->SetName(tag.Canonical(), found.id);
}

absl::Status LayerStore::Remove(absl::string_view reference) {
  absl::Status status = impl_->TryRemove(reference);
  if (!layer::GiveUpReserve(impl_->dir.root(), status)) return status;
  status = impl_->TryRemove(reference);
  impl_->dir.KeepReserve();
  return status;
}

absl::Status LayerStore::Impl::TryRemove(absl::string_view reference) {
  std::optional<Staging> trash;
  {
    ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(dir.root()));
    ASSIGN_OR_RETURN(const ResolvedImage found,
                     layer::ResolveImage(*index, reference));
    ASSIGN_OR_RETURN(const auto names, index->NamesOf(found.id));
    if (!found.name.empty() && names.size() > 1) {
      return index->RemoveName(found.name);
    }
    ASSIGN_OR_RETURN(const auto lease, index->LeaseOf(found.id, absl::Now()));
    if (lease.has_value()) return Leased(*lease);
    ASSIGN_OR_RETURN(const Digest id, Digest::Parse(found.id, "id"));
    ASSIGN_OR_RETURN(const bool free, lock.TryImage(id));
    if (!free) return InUse(found.id);
    ASSIGN_OR_RETURN(trash, Staging::Create(dir));
    ASSIGN_OR_RETURN(const auto layers, index->RemoveImage(found.id));
    // The image is gone. A layer that cannot be moved is an orphan, which
    // Recover finds.
    std::vector<absl::Status> failures;
    layer::MoveLayersToTrash(dir, layers, *trash, failures);
  }
  trash.reset();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> LayerStore::Prune(bool all,
                                                           absl::Time before) {
  ASSIGN_OR_RETURN(const auto images, impl_->index->List());
  std::vector<std::string> removed;
  for (const ImageSummary& image : images) {
    if ((!all && !image.names.empty()) || image.imported >= before) continue;
    const absl::Status status = Remove(image.id);
    if (status.ok()) {
      removed.push_back(image.id);
    } else if (!absl::IsFailedPrecondition(status) &&
               !absl::IsNotFound(status)) {
      return status;
    }
  }
  return removed;
}

absl::Status LayerStore::Lease(absl::string_view reference,
                               absl::string_view lease, absl::Time expires) {
  RETURN_IF_ERROR(layer::CheckKeptName("name of a lease", lease));
  ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(impl_->dir.root()));
  ASSIGN_OR_RETURN(const ResolvedImage found,
                   layer::ResolveImage(*impl_->index, reference));
  return impl_->index->SetLease(
      {.name = std::string(lease), .image = found.id, .expires = expires});
}

absl::Status LayerStore::ReleaseLease(absl::string_view lease) {
  return impl_->index->EndLease(lease);
}

absl::StatusOr<std::vector<ImageLease>> LayerStore::ListLeases() const {
  return impl_->index->Leases(absl::Now());
}

absl::StatusOr<LayerSet> LayerStore::OpenLayers(const Image& image) const {
  ASSIGN_OR_RETURN(const Digest id, Digest::Parse(image.id, "Image::id"));
  ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Open(impl_->dir.root(),
                                                   StoreLock::Mode::kShared));
  // First the lock, then the look: an image that is there now stays.
  RETURN_IF_ERROR(lock.ShareImage(id));
  ASSIGN_OR_RETURN(const auto chain, impl_->index->LayersOf(image.id));
  std::vector<UniqueFd> dirs;
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    absl::StatusOr<UniqueFd> dir = impl_->dir.OpenLayer(*it);
    if (absl::IsNotFound(dir.status())) {
      return MissingLayer(*impl_->index, impl_->dir.format(), image.id, *it);
    }
    RETURN_IF_ERROR(dir.status());
    dirs.push_back(*std::move(dir));
  }
  if (dirs.empty()) {
    ASSIGN_OR_RETURN(UniqueFd empty, impl_->dir.OpenEmptyLayer());
    dirs.push_back(std::move(empty));
  }
  return LayerSet(lock.TakeFd(), std::move(dirs));
}

absl::StatusOr<RecoverReport> LayerStore::Recover() {
  return layer::RecoverStore(impl_->dir, *impl_->index);
}

}  // namespace caisson
