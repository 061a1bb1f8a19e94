// Names of images as Docker writes them: [registry/]path[:tag].
//
// "busybox" is short for "docker.io/library/busybox:latest". Names are compared
// and stored in the long form and shown in the short one, as Docker does
// (distribution/reference, "familiar names"). A value; thread-compatible.
#ifndef CAISSON_LIB_LAYER_IMAGE_NAME_H_
#define CAISSON_LIB_LAYER_IMAGE_NAME_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/layer/digest.h"

namespace caisson::layer {

struct ImageName {
  std::string repository;  // "docker.io/library/busybox"
  std::string tag;         // "latest" if the text had neither tag nor digest
  std::optional<Digest> digest;  // of NAME[:TAG]@DIGEST

  // "docker.io/library/busybox:latest"; precondition: !tag.empty().
  std::string Canonical() const;
  // "busybox:latest".
  std::string Familiar() const;
};

// Parses [registry/]path[:tag][@digest]. The first component is a registry if
// it has a "." or ":", an upper-case letter, or is "localhost". Errors quote
// the text and say which part is wrong.
absl::StatusOr<ImageName> ParseImageName(absl::string_view text);

// The same without a digest: a name that an image can be given.
absl::StatusOr<ImageName> ParseTag(absl::string_view text);

// "busybox:latest" for "docker.io/library/busybox:latest".
std::string FamiliarName(absl::string_view canonical);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_IMAGE_NAME_H_
