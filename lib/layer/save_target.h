// Where an archive goes when it is named by a path: complete, or not at all.
#ifndef CAISSON_LIB_LAYER_SAVE_TARGET_H_
#define CAISSON_LIB_LAYER_SAVE_TARGET_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"

namespace caisson::layer {

using SaveFunction = std::function<absl::Status(BorrowedFd out)>;

// Has `save` write a new file, which gets its name when it is complete and on
// disk. ALREADY_EXISTS if there is one.
absl::Status SaveToFile(const std::string& path, const SaveFunction& save);

// The same by way of another name beside `path`, which stays behind if this
// process is killed: for file systems that cannot make a file without a name,
// as some network and stacked ones, where SaveToFile does this.
absl::Status SaveByRename(const std::string& path, const SaveFunction& save);

// Has `save` fill a directory that is new or empty. After a failure it is as it
// was.
absl::Status SaveToDirectory(const std::string& path, const SaveFunction& save);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_SAVE_TARGET_H_
