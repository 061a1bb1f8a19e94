// The documents of an image: what the OCI image specification and Docker's
// image specification v1.2 say, read from hostile text.
//
// Parsing is pure. Errors name the document and the field.
#ifndef CAISSON_LIB_LAYER_IMAGE_SPEC_H_
#define CAISSON_LIB_LAYER_IMAGE_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/image.h"
#include "lib/layer/digest.h"

namespace caisson::layer {

// OCI image-spec, annotations.md and containerd's names for the same.
inline constexpr char kRefNameAnnotation[] =
    "org.opencontainers.image.ref.name";
inline constexpr char kImageNameAnnotation[] = "io.containerd.image.name";
// Docker's mark of an attestation in an index (BuildKit,
// attestation-storage.md).
inline constexpr char kReferenceTypeAnnotation[] = "vnd.docker.reference.type";

// OCI image-spec, descriptor.md. `where` names it in errors.
struct Descriptor {
  std::string where;
  std::string media_type;
  Digest digest;
  uint64_t size = 0;
  bool has_urls = false;
  std::map<std::string, std::string> annotations;
  std::optional<Platform> platform;
};

// OCI image-spec, manifest.md; Docker's manifest v2, schema 2.
struct Manifest {
  Descriptor config;
  std::vector<Descriptor> layers;
};

// OCI image-spec, image-index.md; Docker's manifest list.
struct ImageIndex {
  std::vector<Descriptor> manifests;
};

// Reads a document that a descriptor with `media_type` led to (empty: there was
// none). A document that could be taken for both, or whose own mediaType
// disagrees, is refused (CVE-2021-41190).
absl::StatusOr<std::variant<Manifest, ImageIndex>> ParseManifestOrIndex(
    absl::string_view text, absl::string_view name,
    absl::string_view media_type);

// A configuration: the public part, and the layers that it is about.
struct ConfigDocument {
  ImageConfig config;
  std::optional<absl::Time> created;
  std::string author;
  std::vector<HistoryEntry> history;
  std::vector<Digest> diff_ids;  // bottom first
};

absl::StatusOr<ConfigDocument> ParseImageConfig(absl::string_view text,
                                                absl::string_view name);

// One element of a docker-archive's manifest.json.
struct DockerArchiveImage {
  std::string where;   // names it in errors
  std::string config;  // path in the archive
  std::vector<std::string> repo_tags;
  std::vector<std::string> layers;  // paths, bottom first
};

absl::StatusOr<std::vector<DockerArchiveImage>> ParseDockerManifest(
    absl::string_view text, absl::string_view name);

// The "repositories" file of a docker-archive: {"busybox": {"latest": "<id>"}}.
// Names with their tags to ids; an id is 64 hexadecimal digits.
absl::StatusOr<std::map<std::string, std::string>> ParseRepositories(
    absl::string_view text, absl::string_view name);

// One `<id>/json` of a docker-archive from before Docker 1.10: an image of one
// layer with its parent (Docker image-spec v1).
struct LegacyImage {
  std::string parent;  // id; empty for the bottom
};

absl::StatusOr<LegacyImage> ParseLegacyImage(absl::string_view text,
                                             absl::string_view name);

// The configuration that Docker makes of the topmost `<id>/json` when it loads
// such an archive (moby image/v1, MakeConfigFromV1Config): the same document
// without the fields of the layer, plus rootfs and an empty history.
absl::StatusOr<std::string> ConfigFromLegacyImage(
    absl::string_view text, absl::string_view name,
    const std::vector<Digest>& diff_ids);

// What a layer's media type says beyond "a tar": OK, or UNIMPLEMENTED for an
// encrypted layer and for what is not a layer.
absl::Status CheckLayerMediaType(const Descriptor& layer);

// Whether the layer is one that its author did not let be distributed, so that
// an archive rightly lacks it (OCI image-spec, layer.md).
bool IsNonDistributable(const Descriptor& layer);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_IMAGE_SPEC_H_
