// The index of a layer store: which images it has, under which names, and which
// layers are unpacked. Documents are stored byte for byte.
//
// Every method is one transaction. Thread-safe. The format is described in
// doc/layer-store.md.
#ifndef CAISSON_LIB_LAYER_STORE_INDEX_H_
#define CAISSON_LIB_LAYER_STORE_INDEX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/image.h"
#include "caisson/image_lease.h"
#include "lib/layer/digest.h"
#include "lib/layer/sqlite.h"

namespace caisson::layer {

inline constexpr int kIndexVersion = 2;

struct LayerRecord {
  Digest chain_id;
  Digest diff_id;
  uint64_t size = 0;  // bytes of the files
  std::string seal;   // layer_seal.h; empty if it has none
};

// An image to be added.
struct ImageRecord {
  Digest id;
  std::string config_json;
  std::optional<Digest> manifest_digest;
  std::string manifest_json;
  Platform platform;
  std::vector<LayerRecord> layers;  // bottom first
  std::vector<std::string> names;   // canonical
  std::optional<ImageLease> lease;  // its image is this one
};

// An unpacked layer: in which format, and which.
struct StoredLayer {
  std::string format;
  Digest chain_id;
};

class StoreIndex final {
 public:
  // Opens the index at `path` if it is of this version already: without the
  // store's lock, and without waiting for who changes it. Null otherwise.
  static std::unique_ptr<StoreIndex> OpenPresent(const std::string& path,
                                                 absl::Duration busy_timeout);
  // Opens the index at `path`, creating it, or making it one of this version.
  // Call with the store's lock held.
  static absl::StatusOr<std::unique_ptr<StoreIndex>> Open(
      const std::string& path, absl::Duration busy_timeout);

  // Adds images and the layers of them that are unpacked in `format`. Names
  // that other images have move. What is there already stays.
  absl::Status Add(absl::string_view format,
                   const std::vector<ImageRecord>& images);

  // The layer if it is unpacked in `format`.
  absl::StatusOr<std::optional<LayerRecord>> FindLayer(absl::string_view format,
                                                       const Digest& chain_id);
  absl::StatusOr<std::vector<StoredLayer>> AllLayers();

  // Ids: of the image with the canonical `name`; of those with the manifest
  // digest; of those whose id begins with `prefix` ("sha256:..."), at most
  // `limit`.
  absl::StatusOr<std::optional<std::string>> IdOfName(absl::string_view name);
  absl::StatusOr<std::vector<std::string>> IdsOfManifest(const Digest& digest);
  absl::StatusOr<std::vector<std::string>> IdsOfPrefix(absl::string_view prefix,
                                                       size_t limit);
  absl::StatusOr<bool> HasImage(absl::string_view id);
  // The ids of all images that have the layer.
  absl::StatusOr<std::vector<Digest>> ImagesWith(const Digest& chain_id);

  // Whether the image is there and has this layer, which has no record in any
  // format.
  absl::StatusOr<bool> LacksLayer(absl::string_view image,
                                  const Digest& chain_id);

  // A configuration or manifest, byte for byte; NOT_FOUND if there is none.
  absl::StatusOr<std::string> Document(absl::string_view digest);
  // The same of an image at one moment: nothing if there is no such image, or
  // if its document is another one by now.
  absl::StatusOr<std::optional<std::string>> DocumentOf(
      absl::string_view image, absl::string_view digest);

  // The image without Image::config, which the caller parses from config_json.
  // Names are familiar and sorted. NOT_FOUND if there is none.
  absl::StatusOr<Image> Get(absl::string_view id);
  // The chain_ids of an image, bottom first; NOT_FOUND if there is none.
  absl::StatusOr<std::vector<Digest>> LayersOf(absl::string_view id);
  // The same with what else is known of each layer.
  absl::StatusOr<std::vector<LayerRecord>> LayerRecordsOf(absl::string_view id);
  absl::StatusOr<std::vector<ImageSummary>> List();

  // What SQLite finds wrong with the file; empty if nothing.
  absl::StatusOr<std::vector<std::string>> CheckIntegrity();

  // Up to `limit` names of images (ids of those without a name), sorted, and
  // how many there are beyond.
  struct NameSample {
    std::vector<std::string> names;
    size_t more = 0;
  };
  absl::StatusOr<NameSample> SampleNames(size_t limit);

  // Canonical names of an image.
  absl::StatusOr<std::vector<std::string>> NamesOf(absl::string_view id);
  // Gives `name` to an image. NOT_FOUND if there is no such image.
  absl::Status SetName(absl::string_view name, absl::string_view id);
  absl::Status RemoveName(absl::string_view name);

  // Leases. One of the same name and image is replaced. NOT_FOUND if there is
  // no such image; for EndLease, no such lease. What has expired is not listed.
  absl::Status SetLease(const ImageLease& lease);
  absl::Status EndLease(absl::string_view name);
  absl::StatusOr<std::vector<ImageLease>> Leases(absl::Time now);
  // The lease of an image that lasts longest.
  absl::StatusOr<std::optional<ImageLease>> LeaseOf(absl::string_view image,
                                                    absl::Time now);

  // What Sweep would remove, without leases: chain IDs and digests.
  absl::StatusOr<std::vector<std::string>> Unreferenced();

  // Records the seal of a layer that is unpacked in `format`.
  absl::Status SetSeal(absl::string_view format, const Digest& chain_id,
                       absl::string_view seal);
  // Corrects the size of a layer, and of the images that have it.
  absl::Status SetLayerSize(const Digest& chain_id, uint64_t size);

  // Removes what nothing refers to: records of layers and documents of no
  // image, and leases that have expired; answers how many of the latter.
  absl::StatusOr<size_t> Sweep(absl::Time now);

  // Removes an image with its names, and the records of layers that no image
  // has any more, which it answers.
  absl::StatusOr<std::vector<StoredLayer>> RemoveImage(absl::string_view id);

 private:
  explicit StoreIndex(Sqlite db) : db_(std::move(db)) {}

  absl::StatusOr<bool> IsPresent();
  absl::Status CreateSchema();
  // With mutex_ held, in a transaction:
  absl::Status AddImage(absl::string_view format, const ImageRecord& image);
  absl::Status AddDocument(const Digest& digest, const std::string& content);
  absl::Status PutName(absl::string_view name, absl::string_view id);
  absl::Status PutLease(const ImageLease& lease);
  absl::StatusOr<std::vector<StoredLayer>> RemoveUnreferenced();

  std::mutex mutex_;  // for db_
  Sqlite db_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_STORE_INDEX_H_
