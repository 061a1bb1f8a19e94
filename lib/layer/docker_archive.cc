// What `docker save` wrote before it was an OCI layout too: manifest.json since
// Docker 1.10 (moby image-spec v1.2), and a directory per layer before that
// (image-spec v1).
#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/archived_image.h"
#include "lib/layer/decompress.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/image_name.h"
#include "lib/layer/image_spec.h"

namespace caisson::layer {
namespace {

constexpr char kManifest[] = "manifest.json";
constexpr char kRepositories[] = "repositories";

class DockerArchiveReader final {
 public:
  DockerArchiveReader(const ImageArchive& archive, const Platform& platform,
                      const ArchiveLimits& limits)
      : archive_(archive), platform_(platform), limits_(limits) {}

  absl::StatusOr<std::vector<ArchivedImage>> Read() {
    return archive_.Has(kManifest) ? ReadManifest() : ReadLegacy();
  }

 private:
  absl::StatusOr<std::vector<ArchivedImage>> ReadManifest() const;
  absl::StatusOr<ArchivedImage> LoadImage(
      const DockerArchiveImage& image) const;

  absl::StatusOr<std::vector<ArchivedImage>> ReadLegacy() const;
  absl::StatusOr<std::map<std::string, std::string>> LegacyNames() const;
  absl::StatusOr<std::vector<std::string>> LegacyHeads() const;
  absl::StatusOr<ArchivedImage> LoadLegacy(const std::string& head) const;
  absl::StatusOr<std::vector<std::string>> LegacyChain(
      const std::string& head) const;
  absl::StatusOr<Digest> DiffIdOf(const std::string& path) const;
  absl::StatusOr<Digest> ComputeDiffId(const std::string& path) const;

  const ImageArchive& archive_;
  const Platform& platform_;
  const ArchiveLimits& limits_;
  // By path: images share layers, and each has to be decompressed for this.
  mutable std::map<std::string, Digest> diff_ids_;
};

absl::StatusOr<std::string> CleanField(const std::string& where,
                                       const std::string& path) {
  std::optional<std::string> clean = CleanArchivePath(path);
  if (clean.has_value()) return *std::move(clean);
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": ", Quoted(path), " is not a path in the archive"));
}

// The digest that a path claims for its file: blobs/sha256/<hex> (Docker 25) or
// <hex>.json (before).
std::optional<Digest> ClaimedDigest(absl::string_view path) {
  absl::string_view hex = path;
  if (!absl::ConsumePrefix(&hex, "blobs/sha256/")) {
    if (!absl::ConsumeSuffix(&hex, ".json")) return std::nullopt;
  }
  if (!IsSha256Hex(hex)) return std::nullopt;
  return *Digest::Parse(absl::StrCat("sha256:", hex), "path");
}

absl::StatusOr<ArchivedImage> DockerArchiveReader::LoadImage(
    const DockerArchiveImage& image) const {
  ASSIGN_OR_RETURN(const std::string config_path,
                   CleanField(image.where + ".Config", image.config));
  absl::StatusOr<std::string> config =
      archive_.ReadDocument(config_path, limits_.config());
  if (!config.ok()) return Annotate(config.status(), image.where + ".Config");
  const std::optional<Digest> claimed = ClaimedDigest(config_path);
  const Digest actual = Digest::Of(*config);
  if (claimed.has_value() && *claimed != actual) {
    return absl::DataLossError(
        absl::StrCat(image.where, ".Config: ", Quoted(config_path),
                     " is damaged: its digest is ", actual.str(), ", expected ",
                     claimed->str()));
  }
  std::vector<LayerFile> files;
  for (size_t i = 0; i < image.layers.size(); ++i) {
    LayerFile file{.where = absl::StrCat(image.where, ".Layers[", i, "]")};
    ASSIGN_OR_RETURN(file.path, CleanField(file.where, image.layers[i]));
    if (absl::StartsWith(file.path, "blobs/")) {
      file.blob_digest = ClaimedDigest(file.path);
    }
    files.push_back(std::move(file));
  }
  return MakeArchivedImage(archive_, Quoted(config_path), *std::move(config),
                           std::move(files), platform_, limits_);
}

absl::StatusOr<std::vector<ArchivedImage>> DockerArchiveReader::ReadManifest()
    const {
  ASSIGN_OR_RETURN(std::string text,
                   archive_.ReadDocument(kManifest, limits_.manifest()));
  ASSIGN_OR_RETURN(auto entries, ParseDockerManifest(text, kManifest));
  if (entries.empty()) {
    return absl::NotFoundError("manifest.json: lists no images");
  }
  std::vector<ArchivedImage> images;
  std::map<std::string, size_t> loaded;  // by the path of the configuration
  for (const DockerArchiveImage& entry : entries) {
    ASSIGN_OR_RETURN(std::string config,
                     CleanField(entry.where + ".Config", entry.config));
    const auto [it, first] = loaded.emplace(std::move(config), images.size());
    if (first) {
      RETURN_IF_ERROR(CheckImageCount(loaded.size(), limits_));
      RETURN_IF_ERROR(
          CheckLayerCount(entry.where, entry.layers.size(), limits_));
      ASSIGN_OR_RETURN(ArchivedImage image, LoadImage(entry));
      images.push_back(std::move(image));
    }
    std::vector<std::string>& names = images[it->second].names;
    for (const std::string& tag : entry.repo_tags) {
      if (tag == "<none>:<none>") continue;
      absl::StatusOr<ImageName> name = ParseTag(tag);
      if (!name.ok()) return Annotate(name.status(), entry.where + ".RepoTags");
      names.push_back(name->Canonical());
    }
  }
  return images;
}

// Names to the ids of their topmost layers.
absl::StatusOr<std::map<std::string, std::string>>
DockerArchiveReader::LegacyNames() const {
  std::map<std::string, std::string> names;
  if (!archive_.Has(kRepositories)) return names;
  ASSIGN_OR_RETURN(std::string text,
                   archive_.ReadDocument(kRepositories, limits_.manifest()));
  ASSIGN_OR_RETURN(auto ids, ParseRepositories(text, kRepositories));
  for (const auto& [spelled, id] : ids) {
    absl::StatusOr<ImageName> name = ParseTag(spelled);
    if (!name.ok()) return Annotate(name.status(), kRepositories);
    names[name->Canonical()] = id;
  }
  return names;
}

// Ids that are no other's parent: the images of an archive without names.
absl::StatusOr<std::vector<std::string>> DockerArchiveReader::LegacyHeads()
    const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, archive_.TopLevel());
  std::vector<std::string> ids;
  std::set<std::string> parents;
  for (const std::string& id : names) {
    const std::string path = id + "/json";
    if (!IsSha256Hex(id) || !archive_.Has(path)) continue;
    if (ids.size() == limits_.max_layers) {
      return absl::ResourceExhaustedError(
          absl::StrCat("more than max_layers (", limits_.max_layers,
                       ") layers without a manifest"));
    }
    ASSIGN_OR_RETURN(std::string text,
                     archive_.ReadDocument(path, limits_.config()));
    ASSIGN_OR_RETURN(LegacyImage image, ParseLegacyImage(text, path));
    ids.push_back(id);
    if (!image.parent.empty()) parents.insert(image.parent);
  }
  ids.erase(std::remove_if(
                ids.begin(), ids.end(),
                [&](const std::string& id) { return parents.count(id) > 0; }),
            ids.end());
  return ids;
}

// The ids from the bottom layer up to `head`.
absl::StatusOr<std::vector<std::string>> DockerArchiveReader::LegacyChain(
    const std::string& head) const {
  std::vector<std::string> chain;
  for (std::string id = head; !id.empty();) {
    if (chain.size() == limits_.max_layers) {
      return absl::ResourceExhaustedError(absl::StrCat(
          Quoted(head), ": more than max_layers (", limits_.max_layers,
          "), or a layer that is its own ancestor"));
    }
    const std::string path = id + "/json";
    ASSIGN_OR_RETURN(std::string text,
                     archive_.ReadDocument(path, limits_.config()));
    ASSIGN_OR_RETURN(LegacyImage image, ParseLegacyImage(text, path));
    chain.push_back(id);
    id = image.parent;
  }
  std::reverse(chain.begin(), chain.end());
  return chain;
}

absl::StatusOr<Digest> DockerArchiveReader::DiffIdOf(
    const std::string& path) const {
  const auto known = diff_ids_.find(path);
  if (known != diff_ids_.end()) return known->second;
  ASSIGN_OR_RETURN(Digest diff_id, ComputeDiffId(path));
  diff_ids_.emplace(path, diff_id);
  return diff_id;
}

absl::StatusOr<Digest> DockerArchiveReader::ComputeDiffId(
    const std::string& path) const {
  ASSIGN_OR_RETURN(auto file, archive_.Open(path));
  auto tar = Decompress(*file, limits_.layer);
  if (!tar.ok()) return Annotate(tar.status(), Quoted(path));
  HashingSource hashing(**tar);
  if (auto n = Drain(hashing); !n.ok()) {
    return Annotate(n.status(), Quoted(path));
  }
  return hashing.Finish();
}

absl::StatusOr<ArchivedImage> DockerArchiveReader::LoadLegacy(
    const std::string& head) const {
  ASSIGN_OR_RETURN(const auto chain, LegacyChain(head));
  std::vector<Digest> diff_ids;
  std::vector<LayerFile> files;
  for (const std::string& id : chain) {
    std::string path = id + "/layer.tar";
    ASSIGN_OR_RETURN(Digest diff_id, DiffIdOf(path));
    diff_ids.push_back(std::move(diff_id));
    files.push_back({.where = id, .path = std::move(path)});
  }
  const std::string path = head + "/json";
  ASSIGN_OR_RETURN(std::string text,
                   archive_.ReadDocument(path, limits_.config()));
  ASSIGN_OR_RETURN(std::string config,
                   ConfigFromLegacyImage(text, path, diff_ids));
  return MakeArchivedImage(archive_, path, std::move(config), std::move(files),
                           platform_, limits_);
}

absl::StatusOr<std::vector<ArchivedImage>> DockerArchiveReader::ReadLegacy()
    const {
  ASSIGN_OR_RETURN(const auto names, LegacyNames());
  std::map<std::string, std::vector<std::string>> heads;  // id -> names
  for (const auto& [name, id] : names) heads[id].push_back(name);
  if (heads.empty()) {
    ASSIGN_OR_RETURN(const auto ids, LegacyHeads());
    for (const std::string& id : ids) heads[id];
  }
  if (heads.empty()) {
    return absl::InvalidArgumentError(
        "not an image archive: it has none of index.json (OCI), manifest.json "
        "(docker save) and repositories (docker save before 1.10)");
  }
  RETURN_IF_ERROR(CheckImageCount(heads.size(), limits_));
  std::vector<ArchivedImage> images;
  for (auto& [id, image_names] : heads) {
    ASSIGN_OR_RETURN(ArchivedImage image, LoadLegacy(id));
    image.names = std::move(image_names);
    images.push_back(std::move(image));
  }
  return images;
}

}  // namespace

absl::StatusOr<std::vector<ArchivedImage>> FindDockerImages(
    const ImageArchive& archive, const Platform& platform,
    const ArchiveLimits& limits) {
  return DockerArchiveReader(archive, platform, limits).Read();
}

}  // namespace caisson::layer
