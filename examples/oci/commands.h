#ifndef CAISSON_EXAMPLES_OCI_COMMANDS_H_
#define CAISSON_EXAMPLES_OCI_COMMANDS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/oci/arguments.h"

namespace oci {

struct Context {
  std::string root;
  std::function<void(const std::string&)> warn;
};

struct Command {
  std::string name;
  std::vector<Option> options;
  // The exit code.
  std::function<absl::StatusOr<int>(const Context&, const Arguments&)> run;
};

// Null if there is none of that name.
const Command* FindCommand(const std::string& name);

}  // namespace oci

#endif  // CAISSON_EXAMPLES_OCI_COMMANDS_H_
