// The command line of caisson-oci: that of runc, as its callers use it.
#ifndef CAISSON_EXAMPLES_OCI_ARGUMENTS_H_
#define CAISSON_EXAMPLES_OCI_ARGUMENTS_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace oci {

struct Option {
  std::string name;        // without dashes
  bool has_value = false;  // "--name VALUE" or "--name=VALUE"
  std::string alias = "";  // one letter
};

// Options of one command, or those before the command, and what follows.
class Arguments {
 public:
  // Takes words from `first` on. Stops at the first word that is no option, and
  // after "--".
  static absl::StatusOr<Arguments> Parse(const std::vector<std::string>& words,
                                         size_t first,
                                         const std::vector<Option>& options);

  bool Has(const std::string& name) const { return values_.count(name) > 0; }
  // The last value; "" without.
  std::string Get(const std::string& name) const;
  std::vector<std::string> GetAll(const std::string& name) const;
  // A number that is not negative; `otherwise` without.
  absl::StatusOr<int> GetNumber(const std::string& name, int otherwise) const;

  const std::vector<std::string>& rest() const { return rest_; }

  // INVALID_ARGUMENT unless all can be in a JSON document.
  absl::Status CheckIsUtf8() const;

 private:
  std::multimap<std::string, std::string> values_;
  std::vector<std::string> rest_;
};

}  // namespace oci

#endif  // CAISSON_EXAMPLES_OCI_ARGUMENTS_H_
