// New images: from what a container changed, from several layers of one image,
// from a tar of a root file system.
//
//   ASSIGN_OR_RETURN(Image built, store.Commit(base, top.upper(), {
//       .name = "app:2", .changes = {.cmd = {{"/app", "--serve"}}}}));
//
//   // One layer instead of the topmost ones, or of all of them:
//   ASSIGN_OR_RETURN(Image flat, store.Squash(built, /*keep=*/0, {.name =
//   "app:flat"}));
//
//   ASSIGN_OR_RETURN(Image root, store.ImportRootFs("rootfs.tar.gz", {.name =
//   "root"}));
//
// The result is an ordinary image: durable, in the index, with the layers that
// it shares shared. The same layers, the same files and the same options, with
// `created` set, make the same image id, on every machine: layers are sorted
// and carry no time but those of files (layer_diff.h).
#ifndef CAISSON_IMAGE_COMMIT_H_
#define CAISSON_IMAGE_COMMIT_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "caisson/image.h"
#include "caisson/layer_diff.h"

namespace caisson {

// What `docker commit --change` and a Dockerfile can say about how an image is
// to be started. What is not set stays as the base image has it.
struct ImageChanges {
  // Added, or in the place of those of the same name: "NAME=value".
  std::vector<std::string> env;
  // Setting the entrypoint alone clears a command of the base image, as in a
  // Dockerfile.
  std::optional<std::vector<std::string>> entrypoint;
  std::optional<std::vector<std::string>> cmd;
  std::optional<std::string> working_dir;
  std::optional<std::string> user;
  std::optional<std::string> stop_signal;
  std::vector<std::string> exposed_ports;     // added: "80/tcp"
  std::vector<std::string> volumes;           // added: "/data"
  std::map<std::string, std::string> labels;  // added or replaced
};

struct CommitOptions {
  // "repository[:tag]", taken from the image that has it; empty: none.
  std::string name;
  ImageChanges changes;
  std::string author;
  std::string message;     // a comment for people
  std::string created_by;  // the command that made the layer
  // The image's date of birth, also in its history. Default: now.
  std::optional<absl::Time> created;
  // For an image without a base. Default: HostPlatform().
  std::optional<Platform> platform;
  // How the writable layer is read; `progress` counts bytes of the layer.
  DiffOptions diff;
};

}  // namespace caisson

#endif  // CAISSON_IMAGE_COMMIT_H_
