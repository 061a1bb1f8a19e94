// Imports an image archive into a new store and ends: what bench/images.sh sets
// beside the commands of other programs.
#include <sys/resource.h>

#include <iostream>
#include <string>

#include "absl/strings/numbers.h"
#include "caisson/layer_store.h"

namespace {

constexpr char kUsage[] =
    R"(usage: import_image ARCHIVE STORE [--threads N] [--memory]

Imports ARCHIVE into the store at the path STORE, with N threads beside its own
(3 by default). --memory prints the most memory that the process had resident,
in bytes.
)";

int Fail(const absl::Status& status) {
  std::cerr << "import_image: " << status.message() << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  caisson::LayerStoreOptions options;
  options.import_threads = 3;
  bool memory = false;
  bool good = argc >= 3;
  for (int i = 3; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--memory") {
      memory = true;
    } else {
      good = good && arg == "--threads" && ++i < argc &&
             absl::SimpleAtoi(argv[i], &options.import_threads);
    }
  }
  if (!good) {
    std::cerr << kUsage;
    return 2;
  }
  options.path = argv[2];
  auto store = caisson::LayerStore::Open(options);
  if (!store.ok()) return Fail(store.status());
  const auto images = store->Import(argv[1]);
  if (!images.ok()) return Fail(images.status());
  if (memory) {
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    std::cout << usage.ru_maxrss * 1024 << "\n";
  }
  return 0;
}
