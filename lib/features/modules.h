// Which parts of the kernel are there, without loading any.
#ifndef CAISSON_LIB_FEATURES_MODULES_H_
#define CAISSON_LIB_FEATURES_MODULES_H_

#include <string>

#include "absl/strings/string_view.h"

namespace caisson::features {

enum class ModuleState {
  kLoaded,    // loaded, or built in with parameters (/sys/module)
  kBuiltIn,   // /lib/modules/RELEASE/modules.builtin
  kLoadable,  // /lib/modules/RELEASE/modules.dep
  kMissing,   // in none of them
  kUnknown,   // there are no such files: whoever asks has to try
};

// `builtin` and `dep` are the texts of the two files; empty if they do not
// exist. `name` as in /sys/module: '_' stands for '-', too.
ModuleState FindModule(absl::string_view name, absl::string_view builtin,
                       absl::string_view dep);

// On this host.
ModuleState FindModule(absl::string_view name);

}  // namespace caisson::features

#endif  // CAISSON_LIB_FEATURES_MODULES_H_
