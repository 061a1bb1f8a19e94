// What a LayerStore shows its users, as one text, and what is wrong with it.
#ifndef CAISSON_TESTS_LAYER_STORE_STATE_H_
#define CAISSON_TESTS_LAYER_STORE_STATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/layer_store.h"

namespace caisson::layer {

// Every image with its names, configuration, layers and their files, and every
// kept layer with its files: the same text for the same content. An image whose
// layers cannot be opened is an error. `path` is the store's directory.
absl::StatusOr<std::string> DescribeStore(const LayerStore& store,
                                          const std::string& path);

// What is wrong with the store at `path`, which nobody uses; empty if nothing
// is. It must open, show one of `allowed` before and after Recover, which must
// leave nothing that is not part of an image, and pass Verify.
std::string CheckStore(const std::string& path,
                       const std::vector<std::string>& allowed);
// The same whatever is seen.
std::string CheckStore(const std::string& path);

}  // namespace caisson::layer

#endif  // CAISSON_TESTS_LAYER_STORE_STATE_H_
