#include "lib/layer/image_spec.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "lib/base/errno_error.h"
#include "lib/base/json_document.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

using nlohmann::json;

enum class Kind { kUnknown, kManifest, kIndex };

Kind KindOf(absl::string_view media_type) {
  if (media_type == "application/vnd.oci.image.manifest.v1+json" ||
      media_type == "application/vnd.docker.distribution.manifest.v2+json") {
    return Kind::kManifest;
  }
  if (media_type == "application/vnd.oci.image.index.v1+json" ||
      media_type ==
          "application/vnd.docker.distribution.manifest.list.v2+json") {
    return Kind::kIndex;
  }
  return Kind::kUnknown;
}

constexpr absl::string_view kLayerTypes[] = {
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
};

constexpr absl::string_view kConfigTypes[] = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
};

absl::Status Invalid(absl::string_view where, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", problem));
}

// Text of a document as errors show it.
std::string Shown(absl::string_view text) {
  return Quoted(text.substr(0, 160));
}

// Go's words for platforms are short and plain; lists and errors show them.
absl::StatusOr<std::string> PlatformWord(const JsonObject& object,
                                         const char* field) {
  ASSIGN_OR_RETURN(std::string word, object.String(field));
  const bool plain = std::all_of(word.begin(), word.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (plain && word.size() <= 64) return word;
  return Invalid(object.PathOf(field),
                 absl::StrCat(Shown(word),
                              ", expected up to 64 letters, digits, \".\", "
                              "\"_\" and \"-\""));
}

absl::StatusOr<Platform> ParsePlatform(const JsonObject& object) {
  Platform platform;
  ASSIGN_OR_RETURN(platform.os, PlatformWord(object, "os"));
  ASSIGN_OR_RETURN(platform.architecture, PlatformWord(object, "architecture"));
  ASSIGN_OR_RETURN(platform.variant, PlatformWord(object, "variant"));
  return platform;
}

absl::StatusOr<Descriptor> ParseDescriptor(const JsonObject& object) {
  ASSIGN_OR_RETURN(std::string digest_text, object.String("digest"));
  ASSIGN_OR_RETURN(Digest digest,
                   Digest::Parse(digest_text, object.PathOf("digest")));
  Descriptor descriptor{.where = object.path(), .digest = std::move(digest)};
  ASSIGN_OR_RETURN(descriptor.media_type, object.String("mediaType"));
  ASSIGN_OR_RETURN(descriptor.size, object.Size("size"));
  ASSIGN_OR_RETURN(auto urls, object.Strings("urls"));
  descriptor.has_urls = !urls.empty();
  ASSIGN_OR_RETURN(descriptor.annotations, object.StringMap("annotations"));
  if (object.Has("platform")) {
    ASSIGN_OR_RETURN(JsonObject platform, object.Object("platform"));
    ASSIGN_OR_RETURN(descriptor.platform, ParsePlatform(platform));
  }
  return descriptor;
}

absl::StatusOr<std::vector<Descriptor>> ParseDescriptors(
    const JsonObject& object, const char* field) {
  if (!object.Has(field)) {
    return Invalid(object.PathOf(field), "missing or null, expected an array");
  }
  ASSIGN_OR_RETURN(auto objects, object.Objects(field));
  std::vector<Descriptor> descriptors;
  for (const JsonObject& item : objects) {
    ASSIGN_OR_RETURN(Descriptor descriptor, ParseDescriptor(item));
    descriptors.push_back(std::move(descriptor));
  }
  return descriptors;
}

// The kind that the media types and the fields agree on.
absl::StatusOr<Kind> AgreedKind(const JsonObject& document,
                                absl::string_view expected_type) {
  ASSIGN_OR_RETURN(std::string own_type, document.String("mediaType"));
  if (!own_type.empty() && !expected_type.empty() &&
      own_type != expected_type) {
    return Invalid(
        document.PathOf("mediaType"),
        absl::StrCat(Shown(own_type), ", but what refers to it says ",
                     Shown(expected_type)));
  }
  if (document.Contains("fsLayers") || document.Contains("signatures")) {
    return absl::UnimplementedError(absl::StrCat(
        document.path(),
        ": a manifest of schema version 1, which Docker gave up in "
        "2017; only schema version 2 is read"));
  }
  const bool as_manifest =
      document.Contains("layers") || document.Contains("config");
  const bool as_index = document.Contains("manifests");
  if (as_manifest && as_index) {
    return Invalid(document.path(),
                   "has both \"manifests\" and \"layers\" or \"config\", so it "
                   "could be read as an index or as a manifest");
  }
  const std::string type =
      expected_type.empty() ? own_type : std::string(expected_type);
  const Kind kind = KindOf(type);
  if (!type.empty() && kind == Kind::kUnknown) {
    return absl::UnimplementedError(
        absl::StrCat(document.path(), ": media type ", Shown(type),
                     " is neither an image manifest nor an index"));
  }
  if ((kind == Kind::kManifest && as_index) ||
      (kind == Kind::kIndex && as_manifest)) {
    return Invalid(document.path(), absl::StrCat("its fields do not fit its "
                                                 "media type ",
                                                 Shown(type)));
  }
  if (kind != Kind::kUnknown) return kind;
  return as_index ? Kind::kIndex : Kind::kManifest;
}

// Docker once wrote Cmd and Entrypoint as a single string.
absl::StatusOr<std::vector<std::string>> StringOrStrings(
    const JsonObject& object, const char* field) {
  if (auto text = object.String(field); text.ok()) {
    if (text->empty()) return std::vector<std::string>();
    return std::vector<std::string>{*std::move(text)};
  }
  return object.Strings(field);
}

// In nanoseconds; 0, what is below Docker's minimum, and nothing are
// `otherwise`.
absl::StatusOr<absl::Duration> DurationOr(const JsonObject& object,
                                          const char* field,
                                          absl::Duration otherwise) {
  if (!object.Has(field)) return otherwise;
  ASSIGN_OR_RETURN(const int64_t nanoseconds,
                   object.Signed(field, std::numeric_limits<int64_t>::min(),
                                 std::numeric_limits<int64_t>::max()));
  const absl::Duration value = absl::Nanoseconds(nanoseconds);
  return value < absl::Milliseconds(1) ? otherwise : value;
}

// Docker's image-spec v1.2, Healthcheck. A test of an unknown kind is none, as
// it is for Docker.
absl::StatusOr<std::optional<HealthCheck>> ParseHealthCheck(
    const JsonObject& object) {
  HealthCheck check;
  ASSIGN_OR_RETURN(check.test, object.Strings("Test"));
  ASSIGN_OR_RETURN(check.interval,
                   DurationOr(object, "Interval", check.interval));
  ASSIGN_OR_RETURN(check.timeout, DurationOr(object, "Timeout", check.timeout));
  ASSIGN_OR_RETURN(check.start_period,
                   DurationOr(object, "StartPeriod", check.start_period));
  ASSIGN_OR_RETURN(check.start_interval,
                   DurationOr(object, "StartInterval", check.start_interval));
  if (object.Has("Retries")) {
    ASSIGN_OR_RETURN(const int64_t retries,
                     object.Signed("Retries", std::numeric_limits<int>::min(),
                                   std::numeric_limits<int>::max()));
    if (retries > 0) check.retries = static_cast<int>(retries);
  }
  const std::string kind = check.test.empty() ? "" : check.test.front();
  const bool command = kind == "CMD" || kind == "CMD-SHELL";
  if (kind != "NONE" && !(command && check.test.size() > 1)) {
    return std::nullopt;
  }
  return check;
}

absl::StatusOr<ImageConfig> ParseRunConfig(const JsonObject& document) {
  ImageConfig config;
  ASSIGN_OR_RETURN(config.platform, ParsePlatform(document));
  ASSIGN_OR_RETURN(JsonObject run, document.Object("config"));
  ASSIGN_OR_RETURN(config.env, run.Strings("Env"));
  ASSIGN_OR_RETURN(config.entrypoint, StringOrStrings(run, "Entrypoint"));
  ASSIGN_OR_RETURN(config.cmd, StringOrStrings(run, "Cmd"));
  ASSIGN_OR_RETURN(config.working_dir, run.String("WorkingDir"));
  ASSIGN_OR_RETURN(config.user, run.String("User"));
  ASSIGN_OR_RETURN(config.exposed_ports, run.Names("ExposedPorts"));
  ASSIGN_OR_RETURN(config.labels, run.StringMap("Labels"));
  ASSIGN_OR_RETURN(config.volumes, run.Names("Volumes"));
  ASSIGN_OR_RETURN(config.stop_signal, run.String("StopSignal"));
  ASSIGN_OR_RETURN(const JsonObject health, run.Object("Healthcheck"));
  ASSIGN_OR_RETURN(config.health, ParseHealthCheck(health));
  return config;
}

// What is no time is none: only people read it.
absl::StatusOr<std::optional<absl::Time>> TimeOf(const JsonObject& object) {
  ASSIGN_OR_RETURN(const std::string text, object.String("created"));
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) {
    return std::nullopt;
  }
  return time;
}

absl::StatusOr<std::vector<HistoryEntry>> ParseHistory(
    const JsonObject& document) {
  std::vector<HistoryEntry> history;
  ASSIGN_OR_RETURN(const auto objects, document.Objects("history"));
  for (const JsonObject& object : objects) {
    HistoryEntry entry;
    ASSIGN_OR_RETURN(entry.created, TimeOf(object));
    ASSIGN_OR_RETURN(entry.created_by, object.String("created_by"));
    ASSIGN_OR_RETURN(entry.author, object.String("author"));
    ASSIGN_OR_RETURN(entry.comment, object.String("comment"));
    ASSIGN_OR_RETURN(entry.empty_layer, object.Bool("empty_layer"));
    history.push_back(std::move(entry));
  }
  return history;
}

absl::StatusOr<std::vector<Digest>> ParseDiffIds(const JsonObject& document) {
  if (!document.Has("rootfs")) {
    return Invalid(document.PathOf("rootfs"),
                   "missing; this is not the configuration of an image");
  }
  ASSIGN_OR_RETURN(JsonObject rootfs, document.Object("rootfs"));
  ASSIGN_OR_RETURN(std::string type, rootfs.String("type"));
  if (type != "layers") {
    return Invalid(rootfs.PathOf("type"),
                   absl::StrCat(Shown(type), ", expected \"layers\""));
  }
  ASSIGN_OR_RETURN(auto texts, rootfs.Strings("diff_ids"));
  std::vector<Digest> diff_ids;
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSIGN_OR_RETURN(Digest digest,
                     Digest::Parse(texts[i], rootfs.PathOf(absl::StrCat(
                                                 "diff_ids[", i, "]"))));
    diff_ids.push_back(std::move(digest));
  }
  return diff_ids;
}

}  // namespace

absl::StatusOr<std::variant<Manifest, ImageIndex>> ParseManifestOrIndex(
    absl::string_view text, absl::string_view name,
    absl::string_view media_type) {
  ASSIGN_OR_RETURN(json tree, ParseJson(text, name));
  ASSIGN_OR_RETURN(JsonObject document,
                   JsonObject::Of(tree, std::string(name)));
  ASSIGN_OR_RETURN(Kind kind, AgreedKind(document, media_type));
  ASSIGN_OR_RETURN(uint64_t version, document.Size("schemaVersion"));
  if (version != 2) {
    return Invalid(document.PathOf("schemaVersion"),
                   absl::StrCat(version, ", expected 2"));
  }
  if (kind == Kind::kIndex) {
    ImageIndex index;
    ASSIGN_OR_RETURN(index.manifests, ParseDescriptors(document, "manifests"));
    return index;
  }
  if (!document.Has("config")) {
    return Invalid(document.PathOf("config"), "missing or null");
  }
  ASSIGN_OR_RETURN(JsonObject config_object, document.Object("config"));
  ASSIGN_OR_RETURN(Descriptor config, ParseDescriptor(config_object));
  if (std::find(std::begin(kConfigTypes), std::end(kConfigTypes),
                config.media_type) == std::end(kConfigTypes)) {
    return absl::UnimplementedError(absl::StrCat(
        config_object.PathOf("mediaType"), ": ", Shown(config.media_type),
        " is not the configuration of a container image; the manifest is of "
        "some other artifact"));
  }
  ASSIGN_OR_RETURN(auto layers, ParseDescriptors(document, "layers"));
  return Manifest{.config = std::move(config), .layers = std::move(layers)};
}

absl::StatusOr<ConfigDocument> ParseImageConfig(absl::string_view text,
                                                absl::string_view name) {
  ASSIGN_OR_RETURN(json tree, ParseJson(text, name));
  ASSIGN_OR_RETURN(JsonObject document,
                   JsonObject::Of(tree, std::string(name)));
  ConfigDocument result;
  ASSIGN_OR_RETURN(result.config, ParseRunConfig(document));
  ASSIGN_OR_RETURN(result.created, TimeOf(document));
  ASSIGN_OR_RETURN(result.author, document.String("author"));
  ASSIGN_OR_RETURN(result.history, ParseHistory(document));
  ASSIGN_OR_RETURN(result.diff_ids, ParseDiffIds(document));
  return result;
}

absl::StatusOr<std::vector<DockerArchiveImage>> ParseDockerManifest(
    absl::string_view text, absl::string_view name) {
  ASSIGN_OR_RETURN(json tree, ParseJson(text, name));
  if (!tree.is_array()) {
    return Invalid(name,
                   absl::StrCat("expected an array, found ", tree.type_name()));
  }
  std::vector<DockerArchiveImage> images;
  for (size_t i = 0; i < tree.size(); ++i) {
    ASSIGN_OR_RETURN(
        JsonObject object,
        JsonObject::Of(tree[i], absl::StrCat(name, ": [", i, "]")));
    DockerArchiveImage image{.where = object.path()};
    ASSIGN_OR_RETURN(image.config, object.String("Config"));
    ASSIGN_OR_RETURN(image.repo_tags, object.Strings("RepoTags"));
    ASSIGN_OR_RETURN(image.layers, object.Strings("Layers"));
    if (image.config.empty()) {
      return Invalid(object.PathOf("Config"), "missing");
    }
    images.push_back(std::move(image));
  }
  return images;
}

absl::StatusOr<std::map<std::string, std::string>> ParseRepositories(
    absl::string_view text, absl::string_view name) {
  ASSIGN_OR_RETURN(json tree, ParseJson(text, name));
  RETURN_IF_ERROR(JsonObject::Of(tree, std::string(name)).status());
  std::map<std::string, std::string> ids;
  for (auto it = tree.begin(); it != tree.end(); ++it) {
    const std::string where = absl::StrCat(name, ": ", Shown(it.key()));
    ASSIGN_OR_RETURN(JsonObject tags, JsonObject::Of(*it, where));
    for (auto tag = it->begin(); tag != it->end(); ++tag) {
      ASSIGN_OR_RETURN(std::string id, tags.String(tag.key().c_str()));
      if (!IsSha256Hex(id)) {
        return Invalid(where, absl::StrCat(Shown(id),
                                           " is not an image id of 64 "
                                           "hexadecimal digits"));
      }
      ids[absl::StrCat(it.key(), ":", tag.key())] = std::move(id);
    }
  }
  return ids;
}

absl::StatusOr<LegacyImage> ParseLegacyImage(absl::string_view text,
                                             absl::string_view name) {
  ASSIGN_OR_RETURN(json tree, ParseJson(text, name));
  ASSIGN_OR_RETURN(JsonObject document,
                   JsonObject::Of(tree, std::string(name)));
  LegacyImage image;
  ASSIGN_OR_RETURN(image.parent, document.String("parent"));
  if (!image.parent.empty() && !IsSha256Hex(image.parent)) {
    return Invalid(
        document.PathOf("parent"),
        absl::StrCat(Shown(image.parent),
                     " is not an image id of 64 hexadecimal digits"));
  }
  return image;
}

absl::StatusOr<std::string> ConfigFromLegacyImage(
    absl::string_view text, absl::string_view name,
    const std::vector<Digest>& diff_ids) {
  ASSIGN_OR_RETURN(json tree, ParseJson(text, name));
  RETURN_IF_ERROR(JsonObject::Of(tree, std::string(name)).status());
  for (const char* field :
       {"id", "parent", "Size", "parent_id", "layer_id", "throwaway"}) {
    tree.erase(field);
  }
  json list = json::array();
  for (const Digest& diff_id : diff_ids) list.push_back(diff_id.str());
  tree["rootfs"] = {{"type", "layers"}, {"diff_ids", std::move(list)}};
  tree["history"] = json::array();
  return tree.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false,
                   json::error_handler_t::replace);
}

absl::Status CheckLayerMediaType(const Descriptor& layer) {
  if (std::find(std::begin(kLayerTypes), std::end(kLayerTypes),
                layer.media_type) != std::end(kLayerTypes)) {
    return absl::OkStatus();
  }
  const bool encrypted = absl::EndsWith(layer.media_type, "+encrypted");
  return absl::UnimplementedError(
      absl::StrCat(layer.where, ".mediaType: ", Shown(layer.media_type),
                   encrypted ? " is an encrypted layer; decrypt the image first"
                             : " is not a layer of a container image"));
}

bool IsNonDistributable(const Descriptor& layer) {
  return layer.has_urls || absl::StrContains(layer.media_type, "foreign") ||
         absl::StrContains(layer.media_type, "nondistributable");
}

}  // namespace caisson::layer
