// What each command of `containers` gets, and what several of them do.
#ifndef CAISSON_EXAMPLES_CONTAINERS_CALL_H_
#define CAISSON_EXAMPLES_CONTAINERS_CALL_H_

#include <functional>
#include <string>
#include <vector>

#include "caisson/container.h"
#include "caisson/layer_store.h"
#include "caisson/volume.h"
#include "examples/containers/arguments.h"

namespace containers {

// One call of one command.
struct Call {
  const Syntax& syntax;
  const std::string& store;  // the directory of everything
  const std::vector<std::string>& words;

  std::vector<std::string> Parse(const std::vector<Flag>& flags) const {
    return containers::Parse(syntax, flags, words);
  }

  caisson::ContainerStore Containers() const;
  caisson::LayerStore Layers() const;
  caisson::VolumeStore Volumes() const;
};

// Does it to each container that is named, and prints the name; goes on after a
// failure, which it prints. The exit code.
int ForEach(const Call& call, const std::vector<std::string>& names,
            const std::function<void(const caisson::Container&)>& action);

void PrintError(const std::string& message);

}  // namespace containers

#endif  // CAISSON_EXAMPLES_CONTAINERS_CALL_H_
