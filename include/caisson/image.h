// What an image is: the values that LayerStore answers.
//
// An image is a list of layers and a configuration that says how its program
// is meant to be started. These structs hold the fields that a container needs,
// checked; Image::config_json holds the whole configuration as it was received.
//
// The structs are values: thread-compatible.
#ifndef CAISSON_IMAGE_H_
#define CAISSON_IMAGE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/container_policies.h"

namespace caisson {

// An operating system and processor in Go's words, as images name them: linux
// with amd64, arm64 (variant v8), arm (v5, v6, v7), riscv64, ppc64le, ...
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;

  // "linux/arm/v7".
  std::string ToString() const;
};

// The platform of this machine by uname(2). amd64 has no variant: what every
// such processor runs.
Platform HostPlatform();

// The configuration of an image (OCI image-spec, config.md). Strings have no
// NUL; nothing else about their content is checked, since the image's author
// chose it: a user may not exist and a path may lead anywhere.
struct ImageConfig {
  Platform platform;
  std::vector<std::string> env;  // "NAME=value"
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::string working_dir;
  std::string user;                        // "name", "uid", "name:group", ...
  std::vector<std::string> exposed_ports;  // "80/tcp"
  std::map<std::string, std::string> labels;
  std::vector<std::string> volumes;
  std::string stop_signal;  // "SIGTERM", "15"; empty if the image names none
  // Docker's HEALTHCHECK. What the image leaves open, or says with a number
  // that is out of range, has its default.
  std::optional<HealthCheck> health;
};

// One step that made an image; the oldest comes first.
struct HistoryEntry {
  std::optional<absl::Time> created;
  std::string created_by;  // the command, as a person reads it
  std::string author;
  std::string comment;
  bool empty_layer = false;  // it changed the configuration only
};

struct LayerInfo {
  std::string diff_id;   // digest of the uncompressed tar
  std::string chain_id;  // digest of this layer and all below it
  uint64_t size = 0;     // bytes of the files in it
};

// What a list of images shows.
struct ImageSummary {
  std::string id;  // "sha256:...", the digest of the configuration
  // Digest of the OCI manifest; empty if the archive had none (docker-archive).
  std::string manifest_digest;
  std::vector<std::string> names;  // "busybox:latest", sorted
  Platform platform;
  uint64_t size = 0;    // bytes of the files in all layers
  absl::Time imported;  // when the store first had it
};

struct Image {
  std::string id;
  std::string manifest_digest;
  std::vector<std::string> names;
  std::vector<LayerInfo> layers;  // bottom first, as in the manifest
  ImageConfig config;
  std::optional<absl::Time> created;
  std::string author;
  std::vector<HistoryEntry> history;  // as its author told it; may be empty
  std::string config_json;  // byte for byte what `id` is the digest of
};

}  // namespace caisson

#endif  // CAISSON_IMAGE_H_
