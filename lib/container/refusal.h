// How translations say what is wrong with a document.
#ifndef CAISSON_LIB_CONTAINER_REFUSAL_H_
#define CAISSON_LIB_CONTAINER_REFUSAL_H_

#include <string>
#include <utility>
#include <vector>

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

// Fields of caisson's options, and of the document: "RootFsOptions.binds[2]" is
// "mounts[5]".
using FieldNames = std::vector<std::pair<std::string, std::string>>;

// `status` with the fields of the document in its text.
absl::Status InTermsOf(const FieldNames& names, const absl::Status& status);

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_REFUSAL_H_
