// The host program of the README: runs a command of an image with limits.
#include <iostream>
#include <stdexcept>

#include "caisson/caisson.h"

template <typename T>
T Get(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

int main(int argc, char** argv) try {
  if (argc != 2) throw std::runtime_error("usage: hello IMAGE-ARCHIVE");
  auto store = Get(caisson::LayerStore::Open({.path = "/var/lib/caisson"}));
  auto layers = Get(store.OpenLayers(Get(store.Import(argv[1])).front()));
  auto root = Get(caisson::RootFs::Create(
      {.layers = layers.dirs(), .writes = caisson::RootWrites::kTmpfs}));
  auto cgroups = Get(caisson::CgroupParent::Open({}));
  auto cgroup = Get(
      cgroups.Create({.name = "hello", .limits = {.memory_max = 64 << 20}}));
  auto launcher = Get(caisson::Launcher::Create());
  caisson::ProcessSpec spec = {.argv = {"echo", "hello from a container"}};
  spec.out = caisson::Stdio::Inherit(caisson::BorrowedFd(1));
  spec.root = &root;
  spec.cgroup = &cgroup;
  auto process = Get(launcher.Start(spec));
  std::cout << Get(process.Wait()).ToString() << "\n";
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
