// How translations say what is wrong with a document.
#ifndef CAISSON_LIB_CONTAINER_REFUSAL_H_
#define CAISSON_LIB_CONTAINER_REFUSAL_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace caisson::container {

// A field that means something, which caisson has nothing for.
template <typename... Parts>
absl::Status Unimplemented(const Parts&... parts) {
  return absl::UnimplementedError(absl::StrCat("config.json: ", parts...));
}

// A field whose value means nothing.
template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", parts...));
}

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_REFUSAL_H_
