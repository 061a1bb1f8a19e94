#include "lib/layer/test_unpacker.h"

namespace caisson::layer {

std::shared_ptr<const Unpacker>& TestUnpacker() {
  static auto* const unpacker = new std::shared_ptr<const Unpacker>();
  return *unpacker;
}

}  // namespace caisson::layer
