// LayerStore::Save: images out of the store.
#include <fcntl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/image_archive.h"
#include "caisson/layer_store.h"
#include "lib/base/errno_error.h"
#include "lib/base/json_document.h"
#include "lib/base/status_macros.h"
#include "lib/layer/archive_writer.h"
#include "lib/layer/compress.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/image_name.h"
#include "lib/layer/image_spec.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/save_target.h"
#include "lib/layer/tar_split.h"
#include "lib/sys/open.h"

namespace caisson {
namespace layer {
namespace {

using nlohmann::json;

constexpr char kManifestType[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kIndexType[] = "application/vnd.oci.image.index.v1+json";
constexpr char kConfigType[] = "application/vnd.oci.image.config.v1+json";
constexpr char kLayerType[] = "application/vnd.oci.image.layer.v1.tar";
constexpr uint64_t kProgressInterval = 1 << 20;

std::string BlobPath(const Digest& digest) {
  return absl::StrCat("blobs/sha256/", digest.hex());
}

std::string Text(const json& document) {
  return document.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false,
                       json::error_handler_t::replace);
}

// Counts and reports what passes.
class ReportingSource final : public ByteSource {
 public:
  ReportingSource(ByteSource& source, const SaveOptions& options,
                  uint64_t& bytes)
      : source_(source), options_(options), bytes_(bytes) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    ASSIGN_OR_RETURN(const size_t n, source_.Read(buffer));
    const uint64_t before = bytes_;
    bytes_ += n;
    if (options_.progress &&
        before / kProgressInterval != bytes_ / kProgressInterval &&
        !options_.progress(bytes_)) {
      return absl::CancelledError("cancelled by SaveOptions::progress");
    }
    return n;
  }

 private:
  ByteSource& source_;
  const SaveOptions& options_;
  uint64_t& bytes_;
};

class ImageSaver final {
 public:
  // An image, locked, and the names that it is to have in the archive.
  struct Source {
    Image image;
    LayerSet layers;
    std::vector<std::string> names;  // canonical
  };

  ImageSaver(const StoreDir& store, StoreIndex& index,
             const SaveOptions& options, ArchiveWriter& writer)
      : store_(store), index_(index), options_(options), writer_(writer) {}

  absl::Status Run(const std::vector<Source>& sources) {
    RETURN_IF_ERROR(writer_.MakeDirectory("blobs"));
    RETURN_IF_ERROR(writer_.MakeDirectory("blobs/sha256"));
    json manifests = json::array();
    json docker = json::array();
    for (const Source& source : sources) {
      RETURN_IF_ERROR(AddImage(source, manifests, docker));
    }
    if (options_.format == ArchiveFormat::kDocker) {
      RETURN_IF_ERROR(writer_.Add("manifest.json", Text(docker)));
    }
    if (!options_.index_name.empty()) {
      ASSIGN_OR_RETURN(manifests, AddIndex(std::move(manifests)));
    }
    RETURN_IF_ERROR(
        writer_.Add("oci-layout", Text({{"imageLayoutVersion", "1.0.0"}})));
    // Last: without it a directory is no layout yet.
    RETURN_IF_ERROR(
        writer_.Add("index.json", Text({{"schemaVersion", 2},
                                        {"mediaType", kIndexType},
                                        {"manifests", std::move(manifests)}})));
    return writer_.Finish();
  }

 private:
  struct Blob {
    Digest digest;
    uint64_t size;
  };

  std::string LayerType() const {
    switch (options_.compression) {
      case LayerCompression::kNone:
        break;
      case LayerCompression::kGzip:
        return absl::StrCat(kLayerType, "+gzip");
      case LayerCompression::kZstd:
        return absl::StrCat(kLayerType, "+zstd");
    }
    return kLayerType;
  }

  absl::Status AddDocument(const Digest& digest, const std::string& text) {
    if (!written_.insert(digest).second) return absl::OkStatus();
    return writer_.Add(BlobPath(digest), text);
  }

  // The blob of the layer whose root is `diff`, written if it was not before.
  absl::StatusOr<Blob> AddLayer(const LayerInfo& layer, BorrowedFd diff) {
    ASSIGN_OR_RETURN(const Digest diff_id,
                     Digest::Parse(layer.diff_id, "diff_id"));
    if (const auto it = layers_.find(diff_id); it != layers_.end()) {
      return it->second;
    }
    ASSIGN_OR_RETURN(const StoredTar tar, OpenStoredTar(store_, layer, diff));
    HashingSource hash(*tar.source);
    ReportingSource source(hash, options_, bytes_);
    absl::StatusOr<Blob> blob =
        options_.compression == LayerCompression::kNone
            ? WritePlain(diff_id, tar.split.borrow(), source)
            : WriteCompressed(hash, diff_id, source);
    if (!blob.ok()) {
      return Annotate(blob.status(), absl::StrCat("layer ", layer.diff_id));
    }
    if (options_.compression == LayerCompression::kNone) {
      RETURN_IF_ERROR(CheckStoredDigest(hash, diff_id));
    }
    layers_.emplace(diff_id, *blob);
    return blob;
  }

  absl::StatusOr<Blob> WritePlain(const Digest& diff_id, BorrowedFd split,
                                  ByteSource& source) {
    ASSIGN_OR_RETURN(const uint64_t size, TarSplitSize(split));
    written_.insert(diff_id);
    RETURN_IF_ERROR(writer_.Add(BlobPath(diff_id), size, source));
    return Blob{diff_id, size};
  }

  // By way of a file without a name: how large it gets, and its digest, come
  // before it in an archive.
  absl::StatusOr<Blob> WriteCompressed(HashingSource& hash,
                                       const Digest& diff_id,
                                       ByteSource& source) {
    ASSIGN_OR_RETURN(const UniqueFd file,
                     sys::OpenAt2(store_.staging(), ".", O_RDWR | O_TMPFILE,
                                  sys::kNoSymlinks, 0600));
    ASSIGN_OR_RETURN(CompressedBlob blob,
                     CompressTo(source, file.borrow(),
                                options_.compression == LayerCompression::kGzip
                                    ? Compression::kGzip
                                    : Compression::kZstd));
    RETURN_IF_ERROR(CheckStoredDigest(hash, diff_id));
    if (written_.insert(blob.digest).second) {
      FdSource compressed(file.borrow(), 0, blob.size);
      RETURN_IF_ERROR(
          writer_.Add(BlobPath(blob.digest), blob.size, compressed));
    }
    return Blob{std::move(blob.digest), blob.size};
  }

  // The manifest that the image came with, if it is about these very blobs.
  absl::StatusOr<std::optional<std::string>> OwnManifest(
      const Image& image, const std::vector<Blob>& blobs, json& annotations) {
    if (image.manifest_digest.empty()) return std::nullopt;
    ASSIGN_OR_RETURN(std::string text, index_.Document(image.manifest_digest));
    ASSIGN_OR_RETURN(const auto parsed,
                     ParseManifestOrIndex(text, image.manifest_digest, ""));
    const auto* manifest = std::get_if<Manifest>(&parsed);
    if (manifest == nullptr) return std::nullopt;
    ASSIGN_OR_RETURN(const json tree, ParseJson(text, "manifest"));
    if (tree.contains("annotations")) annotations = tree["annotations"];
    bool same = manifest->layers.size() == blobs.size();
    for (size_t i = 0; same && i < blobs.size(); ++i) {
      same = manifest->layers[i].digest == blobs[i].digest;
    }
    if (!same) return std::nullopt;
    return text;
  }

  absl::StatusOr<std::string> ManifestOf(const Image& image,
                                         const std::vector<Blob>& blobs) {
    json annotations;
    ASSIGN_OR_RETURN(std::optional<std::string> own,
                     OwnManifest(image, blobs, annotations));
    if (own.has_value()) return *std::move(own);
    json layers = json::array();
    for (const Blob& blob : blobs) {
      layers.push_back({{"mediaType", LayerType()},
                        {"digest", blob.digest.str()},
                        {"size", blob.size}});
    }
    json manifest = {{"schemaVersion", 2},
                     {"mediaType", kManifestType},
                     {"config",
                      {{"mediaType", kConfigType},
                       {"digest", image.id},
                       {"size", image.config_json.size()}}},
                     {"layers", std::move(layers)}};
    if (annotations.is_object()) manifest["annotations"] = annotations;
    return Text(manifest);
  }

  json DescriptorOf(const Image& image, const std::string& manifest,
                    const Digest& digest) const {
    json descriptor = {{"mediaType", kManifestType},
                       {"digest", digest.str()},
                       {"size", manifest.size()}};
    const auto tree = ParseJson(manifest, "manifest");
    if (tree.ok() && tree->contains("mediaType")) {
      descriptor["mediaType"] = (*tree)["mediaType"];
    }
    const Platform& platform = image.config.platform;
    json& object = descriptor["platform"];
    object["os"] = platform.os;
    object["architecture"] = platform.architecture;
    if (!platform.variant.empty()) object["variant"] = platform.variant;
    return descriptor;
  }

  // One index of all manifests; answers the list of the one descriptor of it.
  absl::StatusOr<json> AddIndex(json manifests) {
    ASSIGN_OR_RETURN(const ImageName name, ParseTag(options_.index_name));
    const std::string text = Text({{"schemaVersion", 2},
                                   {"mediaType", kIndexType},
                                   {"manifests", std::move(manifests)}});
    const Digest digest = Digest::Of(text);
    RETURN_IF_ERROR(AddDocument(digest, text));
    json descriptor = {{"mediaType", kIndexType},
                       {"digest", digest.str()},
                       {"size", text.size()}};
    descriptor["annotations"] = {{kImageNameAnnotation, name.Canonical()},
                                 {kRefNameAnnotation, name.Canonical()}};
    json list = json::array();
    list.push_back(std::move(descriptor));
    return list;
  }

  absl::Status AddImage(const Source& source, json& manifests, json& docker) {
    const Image& image = source.image;
    // An image without layers has one directory, which is none of them.
    const std::vector<BorrowedFd> dirs = source.layers.dirs();
    std::vector<Blob> blobs;
    for (size_t i = 0; i < image.layers.size(); ++i) {
      ASSIGN_OR_RETURN(Blob blob, AddLayer(image.layers[i],
                                           dirs[image.layers.size() - 1 - i]));
      blobs.push_back(std::move(blob));
    }
    ASSIGN_OR_RETURN(const Digest id, Digest::Parse(image.id, "id"));
    RETURN_IF_ERROR(AddDocument(id, image.config_json));
    ASSIGN_OR_RETURN(const std::string manifest, ManifestOf(image, blobs));
    const Digest digest = Digest::Of(manifest);
    RETURN_IF_ERROR(AddDocument(digest, manifest));

    const json descriptor = DescriptorOf(image, manifest, digest);
    const bool in_index = !options_.index_name.empty();
    if (source.names.empty() || in_index) manifests.push_back(descriptor);
    for (const std::string& name : source.names) {
      if (in_index) break;
      json named = descriptor;
      const bool tag_only = options_.format == ArchiveFormat::kDocker;
      named["annotations"] = {
          {kImageNameAnnotation, name},
          {kRefNameAnnotation,
           tag_only ? name.substr(name.rfind(':') + 1) : name}};
      manifests.push_back(std::move(named));
    }
    json layers = json::array();
    for (const Blob& blob : blobs) layers.push_back(BlobPath(blob.digest));
    json tags = json::array();
    for (const std::string& name : source.names) {
      tags.push_back(FamiliarName(name));
    }
    docker.push_back({{"Config", BlobPath(id)},
                      {"RepoTags", std::move(tags)},
                      {"Layers", std::move(layers)}});
    return absl::OkStatus();
  }

  const StoreDir& store_;
  StoreIndex& index_;
  const SaveOptions& options_;
  ArchiveWriter& writer_;
  std::map<Digest, Blob> layers_;  // by diff_id
  std::set<Digest> written_;
  uint64_t bytes_ = 0;
};

// Whether images can be one for several platforms.
absl::Status CheckIndex(const std::vector<ImageSaver::Source>& sources,
                        const SaveOptions& options) {
  RETURN_IF_ERROR(ParseTag(options.index_name).status());
  if (options.format == ArchiveFormat::kDocker) {
    return absl::InvalidArgumentError(
        "SaveOptions::index_name: kDocker has no images for several platforms; "
        "kOci and kOciLayout have");
  }
  std::map<std::string, std::string> ids;  // by platform
  for (const ImageSaver::Source& source : sources) {
    const std::string platform = source.image.config.platform.ToString();
    const auto [it, added] = ids.emplace(platform, source.image.id);
    if (added) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("SaveOptions::index_name: images ", it->second, " and ",
                     source.image.id, " are both for ", platform));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace layer

absl::Status LayerStore::Save(const std::vector<std::string>& references,
                              BorrowedFd out,
                              const SaveOptions& options) const {
  if (references.empty()) {
    return absl::InvalidArgumentError("Save: no images are named");
  }
  std::vector<layer::ImageSaver::Source> sources;
  std::map<std::string, size_t> known;  // by id
  for (const std::string& reference : references) {
    ASSIGN_OR_RETURN(const layer::ResolvedImage found,
                     layer::ResolveImage(*impl_->index, reference));
    const auto [it, added] = known.emplace(found.id, sources.size());
    if (added) {
      ASSIGN_OR_RETURN(Image image, layer::LoadImage(*impl_->index, found.id));
      ASSIGN_OR_RETURN(LayerSet layers, OpenLayers(image));
      sources.push_back({std::move(image), std::move(layers), {}});
    }
    std::vector<std::string>& names = sources[it->second].names;
    if (!found.name.empty() &&
        std::find(names.begin(), names.end(), found.name) == names.end()) {
      names.push_back(found.name);
    }
  }
  if (!options.index_name.empty()) {
    RETURN_IF_ERROR(layer::CheckIndex(sources, options));
  }
  std::unique_ptr<layer::ArchiveWriter> writer;
  if (options.format == ArchiveFormat::kOciLayout) {
    ASSIGN_OR_RETURN(writer, layer::ArchiveWriter::ToDirectory(out));
  } else {
    writer = layer::ArchiveWriter::ToTar(out);
  }
  return layer::ImageSaver(impl_->dir, *impl_->index, options, *writer)
      .Run(sources);
}

absl::Status LayerStore::Save(const std::vector<std::string>& references,
                              const std::string& path,
                              const SaveOptions& options) const {
  const auto save = [&](BorrowedFd out) {
    return Save(references, out, options);
  };
  const absl::Status status = options.format == ArchiveFormat::kOciLayout
                                  ? layer::SaveToDirectory(path, save)
                                  : layer::SaveToFile(path, save);
  if (status.ok()) return status;
  return Annotate(status, absl::StrCat("save ", Quoted(path)));
}

}  // namespace caisson
