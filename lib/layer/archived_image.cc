#include "lib/layer/archived_image.h"

#include <map>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/image_name.h"
#include "lib/layer/image_spec.h"
#include "lib/layer/platform.h"

namespace caisson::layer {
namespace {

absl::Status CheckPlatform(const std::string& where, const Platform& wanted,
                           const Platform& actual) {
  if (PlatformDistance(wanted, actual) >= 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      where, ": the image is for ", actual.ToString(), ", but ",
      wanted.ToString(),
      " is wanted; to import it all the same, ask for its platform"));
}

std::vector<LayerFile> BlobsOfDiffIds(const ImageArchive& archive,
                                      const std::string& where,
                                      const std::vector<Digest>& diff_ids) {
  std::vector<LayerFile> files;
  for (const Digest& diff_id : diff_ids) {
    std::string path = absl::StrCat("blobs/sha256/", diff_id.hex());
    if (!archive.Has(path)) return {};
    files.push_back({.where = where, .path = path, .blob_digest = diff_id});
  }
  return files;
}

absl::StatusOr<uint64_t> SizeOfLayer(const ImageArchive& archive,
                                     const LayerFile& file,
                                     const DecompressOptions& limits) {
  auto opened = archive.Open(file.path);
  if (absl::IsNotFound(opened.status()) && file.non_distributable) {
    return absl::NotFoundError(absl::StrCat(
        file.where, ": the layer is not distributable, so the archive lacks ",
        Quoted(file.path), "; layers are never fetched from their urls"));
  }
  if (!opened.ok()) return Annotate(opened.status(), file.where);
  const uint64_t size = (*opened)->size();
  if (size > limits.max_output_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(file.where, ": ", Quoted(file.path), " has ", size,
                     " bytes, more than ", limits.max_output_bytes_name, " (",
                     limits.max_output_bytes, ")"));
  }
  return size;
}

// Joins images that are the same under several names.
std::vector<ArchivedImage> Merge(std::vector<ArchivedImage> images) {
  std::vector<ArchivedImage> merged;
  std::map<Digest, size_t> index;
  for (ArchivedImage& image : images) {
    const auto [it, inserted] = index.emplace(image.id, merged.size());
    if (inserted) {
      merged.push_back(std::move(image));
      continue;
    }
    std::vector<std::string>& names = merged[it->second].names;
    names.insert(names.end(), image.names.begin(), image.names.end());
  }
  return merged;
}

}  // namespace

absl::Status CheckImageCount(size_t images, const ArchiveLimits& limits) {
  if (images <= limits.max_images) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the archive has more than max_images (", limits.max_images, ") images"));
}

absl::Status CheckLayerCount(const std::string& where, size_t layers,
                             const ArchiveLimits& limits) {
  if (layers <= limits.max_layers) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(where, ": ", layers, " layers, more than max_layers (",
                   limits.max_layers, ")"));
}

absl::StatusOr<ArchivedImage> MakeArchivedImage(const ImageArchive& archive,
                                                const std::string& where,
                                                std::string config_json,
                                                std::vector<LayerFile> files,
                                                const Platform& platform,
                                                const ArchiveLimits& limits) {
  ASSIGN_OR_RETURN(ConfigDocument document,
                   ParseImageConfig(config_json, where));
  RETURN_IF_ERROR(CheckPlatform(where, platform, document.config.platform));
  const std::vector<Digest>& diff_ids = document.diff_ids;
  if (files.empty()) files = BlobsOfDiffIds(archive, where, diff_ids);
  if (files.size() != diff_ids.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": rootfs.diff_ids names ", diff_ids.size(),
                     " layers, but the manifest lists ", files.size()));
  }
  RETURN_IF_ERROR(CheckLayerCount(where, files.size(), limits));
  ArchivedImage image{.id = Digest::Of(config_json),
                      .config_json = std::move(config_json),
                      .config = std::move(document.config)};
  const Digest* parent = nullptr;
  image.layers.reserve(files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    ASSIGN_OR_RETURN(const uint64_t size,
                     SizeOfLayer(archive, files[i], limits.layer));
    image.layers.push_back({.path = files[i].path,
                            .size = size,
                            .diff_id = diff_ids[i],
                            .chain_id = ChainId(parent, diff_ids[i]),
                            .blob_digest = files[i].blob_digest});
    parent = &image.layers.back().chain_id;
  }
  return image;
}

absl::StatusOr<std::vector<ArchivedImage>> FindImages(
    const ImageArchive& archive, const Platform& platform,
    const ArchiveLimits& limits) {
  const bool oci = archive.Has("oci-layout") || archive.Has("index.json");
  ASSIGN_OR_RETURN(std::vector<ArchivedImage> images,
                   oci ? FindOciImages(archive, platform, limits)
                       : FindDockerImages(archive, platform, limits));
  return Merge(std::move(images));
}

}  // namespace caisson::layer
