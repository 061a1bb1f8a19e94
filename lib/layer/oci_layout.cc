// OCI image layouts (OCI image-spec, image-layout.md), also inside of what
// Docker 25 and later saves.
#include <cstddef>
#include <map>
#include <optional>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"
#include "lib/base/json_document.h"
#include "lib/base/status_macros.h"
#include "lib/layer/archived_image.h"
#include "lib/layer/image_name.h"
#include "lib/layer/image_spec.h"
#include "lib/layer/platform.h"

namespace caisson::layer {
namespace {

class OciLayoutReader final {
 public:
  OciLayoutReader(const ImageArchive& archive, const Platform& platform,
                  const ArchiveLimits& limits)
      : archive_(archive), platform_(platform), limits_(limits) {}

  absl::StatusOr<std::vector<ArchivedImage>> Read();

 private:
  struct Candidate {
    Descriptor descriptor;
    Manifest manifest;
    std::string manifest_json;
    int distance = 0;
  };

  absl::Status CheckLayoutVersion() const;
  absl::StatusOr<std::string> ReadBlob(const Descriptor& descriptor,
                                       const DocumentLimit& limit);
  absl::Status Collect(const Descriptor& descriptor, size_t depth);
  absl::Status CollectManifest(const Descriptor& descriptor, Manifest manifest,
                               std::string text);
  absl::StatusOr<Platform> PlatformOf(const Manifest& manifest);
  absl::Status Resolve(const std::string& name,
                       const std::vector<Descriptor>& descriptors);
  absl::Status ResolveUnnamed(const std::vector<Descriptor>& descriptors);
  absl::Status NoneFits(const std::string& name) const;
  absl::StatusOr<ArchivedImage> Load(Candidate candidate);

  const ImageArchive& archive_;
  const Platform& platform_;
  const ArchiveLimits& limits_;
  size_t documents_ = 0;
  std::vector<ArchivedImage> images_;
  std::map<Digest, size_t> loaded_;  // by digest of the manifest
  // What Collect found: the first manifest that fits best, the platforms of
  // those that do not fit, and why something was no image at all.
  std::optional<Candidate> best_;
  std::vector<std::string> others_;
  absl::Status artifact_;
  absl::Status left_out_;
};

std::string BlobPath(const Digest& digest) {
  return absl::StrCat("blobs/sha256/", digest.hex());
}

// BuildKit lists provenance and SBOMs in the index, as manifests of no
// platform.
bool IsAttestation(const Descriptor& descriptor) {
  return descriptor.annotations.count(kReferenceTypeAnnotation) > 0 ||
         (descriptor.platform.has_value() &&
          descriptor.platform->os == "unknown" &&
          descriptor.platform->architecture == "unknown");
}

// The image name that the annotations of a descriptor give, canonical; empty if
// none. containerd's annotation is a whole name; the OCI one may be a whole
// name (skopeo), a tag alone (umoci, Docker) or any other text. A lone word
// other than "latest" is taken for a repository.
std::string NameOf(const Descriptor& descriptor) {
  const auto value = [&descriptor](const char* key) {
    const auto it = descriptor.annotations.find(key);
    return it == descriptor.annotations.end() ? std::string() : it->second;
  };
  std::string text = value(kImageNameAnnotation);
  if (text.empty()) text = value(kRefNameAnnotation);
  if (text.empty() || text == "latest") return std::string();
  absl::StatusOr<ImageName> name = ParseTag(text);
  return name.ok() ? name->Canonical() : std::string();
}

absl::Status OciLayoutReader::CheckLayoutVersion() const {
  constexpr char kFile[] = "oci-layout";
  ASSIGN_OR_RETURN(std::string text,
                   archive_.ReadDocument(kFile, limits_.manifest()));
  ASSIGN_OR_RETURN(nlohmann::json json, ParseJson(text, kFile));
  ASSIGN_OR_RETURN(JsonObject object, JsonObject::Of(json, kFile));
  ASSIGN_OR_RETURN(std::string version, object.String("imageLayoutVersion"));
  if (version == "1.0.0") return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat(object.PathOf("imageLayoutVersion"), ": ", Quoted(version),
                   ", expected \"1.0.0\""));
}

absl::StatusOr<std::string> OciLayoutReader::ReadBlob(
    const Descriptor& descriptor, const DocumentLimit& limit) {
  if (++documents_ > limits_.max_index_documents) {
    return absl::ResourceExhaustedError(
        absl::StrCat(descriptor.where,
                     ": the index leads to more than max_index_documents (",
                     limits_.max_index_documents, ")"));
  }
  const std::string path = BlobPath(descriptor.digest);
  absl::StatusOr<std::string> text = archive_.ReadDocument(path, limit);
  if (!text.ok()) return Annotate(text.status(), descriptor.where);
  const Digest actual = Digest::Of(*text);
  if (actual != descriptor.digest) {
    return absl::DataLossError(absl::StrCat(
        descriptor.where, ": ", Quoted(path), " is damaged: its digest is ",
        actual.str(), ", expected ", descriptor.digest.str()));
  }
  if (text->size() != descriptor.size) {
    return absl::InvalidArgumentError(
        absl::StrCat(descriptor.where, ".size: ", descriptor.size, ", but ",
                     Quoted(path), " has ", text->size(), " bytes"));
  }
  return text;
}

// Follows `descriptor` down to the manifests that fit.
absl::Status OciLayoutReader::Collect(const Descriptor& descriptor,
                                      size_t depth) {
  if (IsAttestation(descriptor)) return absl::OkStatus();
  if (descriptor.platform.has_value() &&
      PlatformDistance(platform_, *descriptor.platform) < 0) {
    others_.push_back(descriptor.platform->ToString());
    return absl::OkStatus();
  }
  if (depth > limits_.max_index_depth) {
    return absl::ResourceExhaustedError(absl::StrCat(
        descriptor.where, ": indexes are nested deeper than max_index_depth (",
        limits_.max_index_depth, ")"));
  }
  ASSIGN_OR_RETURN(std::string text, ReadBlob(descriptor, limits_.manifest()));
  auto document = ParseManifestOrIndex(text, BlobPath(descriptor.digest),
                                       descriptor.media_type);
  if (absl::IsUnimplemented(document.status())) {
    // Signatures and other artifacts stand beside images.
    artifact_ = document.status();
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(document.status());
  if (auto* manifest = std::get_if<Manifest>(&*document)) {
    return CollectManifest(descriptor, std::move(*manifest), std::move(text));
  }
  for (const Descriptor& child : std::get<ImageIndex>(*document).manifests) {
    RETURN_IF_ERROR(Collect(child, depth + 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<Platform> OciLayoutReader::PlatformOf(const Manifest& manifest) {
  ASSIGN_OR_RETURN(std::string config,
                   ReadBlob(manifest.config, limits_.config()));
  ASSIGN_OR_RETURN(ConfigDocument document,
                   ParseImageConfig(config, BlobPath(manifest.config.digest)));
  return document.config.platform;
}

absl::Status OciLayoutReader::CollectManifest(const Descriptor& descriptor,
                                              Manifest manifest,
                                              std::string text) {
  Platform platform;
  if (descriptor.platform.has_value()) {
    platform = *descriptor.platform;
  } else {
    ASSIGN_OR_RETURN(platform, PlatformOf(manifest));
  }
  const int distance = PlatformDistance(platform_, platform);
  if (distance < 0) {
    others_.push_back(platform.ToString());
    return absl::OkStatus();
  }
  if (best_.has_value() && best_->distance <= distance) return absl::OkStatus();
  best_ = Candidate{.descriptor = descriptor,
                    .manifest = std::move(manifest),
                    .manifest_json = std::move(text),
                    .distance = distance};
  return absl::OkStatus();
}

absl::StatusOr<ArchivedImage> OciLayoutReader::Load(Candidate candidate) {
  RETURN_IF_ERROR(CheckLayerCount(candidate.descriptor.where,
                                  candidate.manifest.layers.size(), limits_));
  std::vector<LayerFile> files;
  for (const Descriptor& layer : candidate.manifest.layers) {
    RETURN_IF_ERROR(CheckLayerMediaType(layer));
    files.push_back({.where = layer.where,
                     .path = BlobPath(layer.digest),
                     .blob_digest = layer.digest,
                     .non_distributable = IsNonDistributable(layer)});
  }
  const Descriptor& config = candidate.manifest.config;
  ASSIGN_OR_RETURN(std::string text, ReadBlob(config, limits_.config()));
  ASSIGN_OR_RETURN(
      ArchivedImage image,
      MakeArchivedImage(archive_, BlobPath(config.digest), std::move(text),
                        std::move(files), platform_, limits_));
  for (size_t i = 0; i < candidate.manifest.layers.size(); ++i) {
    const Descriptor& layer = candidate.manifest.layers[i];
    if (layer.size != image.layers[i].size) {
      return absl::InvalidArgumentError(
          absl::StrCat(layer.where, ".size: ", layer.size, ", but ",
                       Quoted(image.layers[i].path), " has ",
                       image.layers[i].size, " bytes"));
    }
  }
  image.manifest_digest = candidate.descriptor.digest;
  image.manifest_json = std::move(candidate.manifest_json);
  return image;
}

// The image of descriptors that are one image for several platforms.
absl::Status OciLayoutReader::Resolve(
    const std::string& name, const std::vector<Descriptor>& descriptors) {
  best_.reset();
  others_.clear();
  artifact_ = absl::OkStatus();
  for (const Descriptor& descriptor : descriptors) {
    RETURN_IF_ERROR(Collect(descriptor, 0));
  }
  if (!best_.has_value()) return NoneFits(name);
  const Digest digest = best_->descriptor.digest;
  auto it = loaded_.find(digest);
  if (it == loaded_.end()) {
    RETURN_IF_ERROR(CheckImageCount(images_.size() + 1, limits_));
    ASSIGN_OR_RETURN(ArchivedImage image, Load(*std::move(best_)));
    it = loaded_.emplace(digest, images_.size()).first;
    images_.push_back(std::move(image));
  }
  if (!name.empty()) images_[it->second].names.push_back(name);
  return absl::OkStatus();
}

absl::Status OciLayoutReader::NoneFits(const std::string& name) const {
  const std::string image =
      name.empty() ? "the image" : Quoted(FamiliarName(name));
  if (others_.empty() && !artifact_.ok()) return artifact_;
  if (others_.empty()) {
    return absl::NotFoundError(
        absl::StrCat("index.json: ", image, " has no manifests"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "index.json: ", image, " is for ", absl::StrJoin(others_, ", "), ", but ",
      platform_.ToString(),
      " is wanted; to import it all the same, ask for its platform"));
}

// Images without a name are told apart by nothing, so those that do not fit are
// left out; Read reports one only if there is nothing else.
absl::Status OciLayoutReader::ResolveUnnamed(
    const std::vector<Descriptor>& descriptors) {
  for (const Descriptor& descriptor : descriptors) {
    if (IsAttestation(descriptor)) continue;
    const absl::Status status = Resolve("", {descriptor});
    if (absl::IsFailedPrecondition(status) || absl::IsUnimplemented(status)) {
      left_out_ = status;
    } else if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ArchivedImage>> OciLayoutReader::Read() {
  RETURN_IF_ERROR(CheckLayoutVersion());
  ASSIGN_OR_RETURN(std::string text,
                   archive_.ReadDocument("index.json", limits_.manifest()));
  ASSIGN_OR_RETURN(auto document, ParseManifestOrIndex(text, "index.json", ""));
  const auto* index = std::get_if<ImageIndex>(&document);
  if (index == nullptr) {
    return absl::InvalidArgumentError(
        "index.json: is a manifest, expected an index");
  }
  std::map<std::string, std::vector<Descriptor>> by_name;
  for (const Descriptor& descriptor : index->manifests) {
    by_name[NameOf(descriptor)].push_back(descriptor);
  }
  for (const auto& [name, descriptors] : by_name) {
    RETURN_IF_ERROR(name.empty() ? ResolveUnnamed(descriptors)
                                 : Resolve(name, descriptors));
  }
  if (images_.empty() && !left_out_.ok()) return left_out_;
  if (images_.empty()) {
    return absl::NotFoundError("index.json: lists no images");
  }
  return std::move(images_);
}

}  // namespace

absl::StatusOr<std::vector<ArchivedImage>> FindOciImages(
    const ImageArchive& archive, const Platform& platform,
    const ArchiveLimits& limits) {
  return OciLayoutReader(archive, platform, limits).Read();
}

}  // namespace caisson::layer
