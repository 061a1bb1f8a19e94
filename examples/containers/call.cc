#include "examples/containers/call.h"

#include <iostream>

#include "absl/strings/str_cat.h"

namespace containers {

caisson::ContainerStore Call::Containers() const {
  return Check(caisson::ContainerStore::Open(
      {.path = absl::StrCat(store, "/containers"),
       .layers = store,
       .volumes = absl::StrCat(store, "/volumes")}));
}

caisson::LayerStore Call::Layers() const {
  return Check(caisson::LayerStore::Open({.path = store}));
}

caisson::VolumeStore Call::Volumes() const {
  return Check(
      caisson::VolumeStore::Open({.path = absl::StrCat(store, "/volumes")}));
}

void PrintError(const std::string& message) {
  std::cout.flush();
  std::cerr << "containers: " << message << "\n";
}

int ForEach(const Call& call, const std::vector<std::string>& names,
            const std::function<void(const caisson::Container&)>& action) {
  const caisson::ContainerStore store = call.Containers();
  int code = 0;
  for (const std::string& name : names) {
    try {
      action(Check(store.Find(name)));
      std::cout << name << "\n" << std::flush;
    } catch (const Failure& failure) {
      PrintError(failure.message);
      code = 1;
    }
  }
  return code;
}

}  // namespace containers
