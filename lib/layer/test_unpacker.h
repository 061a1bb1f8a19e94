// Who unpacks in tests that do not say it: this process, unless a test program
// with a main of its own says otherwise (lib/unpacker).
#ifndef CAISSON_LIB_LAYER_TEST_UNPACKER_H_
#define CAISSON_LIB_LAYER_TEST_UNPACKER_H_

#include <memory>

#include "lib/layer/unpacker.h"

namespace caisson::layer {

// Null: this process. To be set before the first test.
std::shared_ptr<const Unpacker>& TestUnpacker();

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_UNPACKER_H_
