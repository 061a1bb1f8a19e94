// What an image archive contains: which images, their documents, and where the
// layers of each are. Nothing is unpacked here.
#ifndef CAISSON_LIB_LAYER_ARCHIVED_IMAGE_H_
#define CAISSON_LIB_LAYER_ARCHIVED_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/image.h"
#include "lib/layer/decompress.h"
#include "lib/layer/digest.h"
#include "lib/layer/image_archive.h"

namespace caisson::layer {

struct ArchivedLayer {
  std::string path;   // in the archive
  uint64_t size = 0;  // of the file
  Digest diff_id;     // what the configuration claims; still to be verified
  Digest chain_id;    // follows from the diff_ids
  // What the manifest, or the path, claims about the file itself.
  std::optional<Digest> blob_digest;
};

struct ArchivedImage {
  Digest id;  // of config_json, verified
  std::string config_json;
  ImageConfig config;
  std::optional<Digest> manifest_digest;  // verified
  std::string manifest_json;
  std::vector<std::string> names;     // canonical
  std::vector<ArchivedLayer> layers;  // bottom first
};

struct ArchiveLimits {
  size_t max_manifest_bytes = 0;
  size_t max_config_bytes = 0;
  size_t max_layers = 0;
  size_t max_images = 64;
  size_t max_index_depth = 4;
  size_t max_index_documents = 1000;
  // Also of files that are not compressed.
  DecompressOptions layer;

  DocumentLimit manifest() const {
    return {max_manifest_bytes, "max_manifest_bytes"};
  }
  DocumentLimit config() const {
    return {max_config_bytes, "max_config_bytes"};
  }
};

// The images of `archive` for `platform`, each once (images that differ only in
// name are one with several names), at least one. Reads an archive with an
// "oci-layout" as OCI, one with a "manifest.json" as docker-archive, and any
// other as a docker-archive from before Docker 1.10.
absl::StatusOr<std::vector<ArchivedImage>> FindImages(
    const ImageArchive& archive, const Platform& platform,
    const ArchiveLimits& limits);

// The two halves of FindImages, one per family of formats. They may answer the
// same image several times.
absl::StatusOr<std::vector<ArchivedImage>> FindOciImages(
    const ImageArchive& archive, const Platform& platform,
    const ArchiveLimits& limits);
absl::StatusOr<std::vector<ArchivedImage>> FindDockerImages(
    const ImageArchive& archive, const Platform& platform,
    const ArchiveLimits& limits);

// RESOURCE_EXHAUSTED if an archive of `images` images, or an image (`where`) of
// `layers` layers, is beyond the limits: before anything large is loaded.
absl::Status CheckImageCount(size_t images, const ArchiveLimits& limits);
absl::Status CheckLayerCount(const std::string& where, size_t layers,
                             const ArchiveLimits& limits);

// Where the file of a layer is, as a manifest says.
struct LayerFile {
  std::string where;  // names it in errors
  std::string path;
  std::optional<Digest> blob_digest;
  bool non_distributable = false;
};

// What both halves have in common: the image of a configuration (`where` names
// it in errors) whose layers are `files`. The configuration must parse, fit
// `platform` and be about as many layers; every file must be there. If `files`
// is empty, the layers are the blobs that are named by their diff_ids: Docker
// 25.0.0 forgot to list them (moby#47065).
absl::StatusOr<ArchivedImage> MakeArchivedImage(const ImageArchive& archive,
                                                const std::string& where,
                                                std::string config_json,
                                                std::vector<LayerFile> files,
                                                const Platform& platform,
                                                const ArchiveLimits& limits);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_ARCHIVED_IMAGE_H_
