// What an unpacker with few rights has others do: UnpackOptions::host. It needs
// no device nodes, no attributes of the trusted. and security. name spaces, no
// /proc and no lower layers to get along then.
#ifndef CAISSON_LIB_LAYER_UNPACK_HOST_H_
#define CAISSON_LIB_LAYER_UNPACK_HOST_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/lower_layers.h"

namespace caisson::layer {

// Paths are relative to the layer's directory; its own is "" or ".".
// Thread-compatible.
class UnpackHost {
 public:
  virtual ~UnpackHost() = default;

  // Whether an attribute of a regular file or directory is one for SetXattr.
  static bool Sets(absl::string_view key) {
    return absl::StartsWith(key, "trusted.") ||
           absl::StartsWith(key, "security.");
  }

  // As setxattr(2) and mknodat(2), of a character or block device: 0 or an
  // errno.
  virtual int SetXattr(const std::string& path, const std::string& key,
                       absl::string_view value) = 0;
  virtual int MakeDevice(const std::string& path, mode_t mode,
                         dev_t device) = 0;
  // As linkat(2) without flags, of a device: 0 or an errno.
  virtual int LinkDevice(const std::string& from, const std::string& to) = 0;
  // WriteAttributesAt() and ClearXattrs().
  virtual absl::Status WriteAttributes(const std::string& path, bool is_symlink,
                                       const FileAttributes& attributes,
                                       uint64_t& skipped) = 0;
  virtual absl::Status ClearXattrs(const std::string& path) = 0;

  virtual LowerLayers& lowers() = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_UNPACK_HOST_H_
