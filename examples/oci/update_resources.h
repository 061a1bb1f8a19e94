#ifndef CAISSON_EXAMPLES_OCI_UPDATE_RESOURCES_H_
#define CAISSON_EXAMPLES_OCI_UPDATE_RESOURCES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/oci/arguments.h"

namespace oci {

// Options of `update`, each with a number or a list.
std::vector<std::string> LimitOptions();

// The "resources" object that `update` means: a file's, standard input's or
// that of the options.
absl::StatusOr<std::string> UpdateResources(const Arguments& arguments);

}  // namespace oci

#endif  // CAISSON_EXAMPLES_OCI_UPDATE_RESOURCES_H_
