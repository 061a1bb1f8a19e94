// The options of `create` and `run`, and those that `update` shares.
#ifndef CAISSON_EXAMPLES_CONTAINERS_SPEC_FLAGS_H_
#define CAISSON_EXAMPLES_CONTAINERS_SPEC_FLAGS_H_

#include <optional>
#include <string>
#include <vector>

#include "caisson/container_spec.h"
#include "examples/containers/arguments.h"

namespace containers {

std::vector<Flag> LimitFlags(caisson::CgroupLimits& limits);

// "NAME=VALUE" as it is; "NAME" with the value that it has here, if any.
void AddVariable(const std::string& text, std::vector<std::string>& env);

// Fills a ContainerSpec from options. Not movable: the flags refer to it.
class SpecFlags final {
 public:
  SpecFlags() = default;
  SpecFlags(const SpecFlags&) = delete;
  SpecFlags& operator=(const SpecFlags&) = delete;

  std::vector<Flag> All();
  // With what follows the options: the image, and the command for it.
  caisson::ContainerSpec Finish(const std::vector<std::string>& words);

 private:
  std::vector<Flag> Program();
  std::vector<Flag> Files();
  std::vector<Flag> Network();
  std::vector<Flag> Security();
  std::vector<Flag> Life();
  std::vector<Flag> Health();

  caisson::ContainerSpec spec_;
};

}  // namespace containers

#endif  // CAISSON_EXAMPLES_CONTAINERS_SPEC_FLAGS_H_
