// What `containers` prints: tables, amounts and times as Docker writes them.
#ifndef CAISSON_EXAMPLES_CONTAINERS_OUTPUT_H_
#define CAISSON_EXAMPLES_CONTAINERS_OUTPUT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "caisson/container.h"

namespace containers {

// Rows whose columns are as wide as their widest cell.
class Table final {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string ToString() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// The first 12 digits, also after "sha256:".
std::string ShortId(const std::string& id);
// Those of an image, "<none>" without.
std::string NamesText(const std::vector<std::string>& names);
// "1.5MiB"; "-" without.
std::string Bytes(std::optional<int64_t> bytes);
// "3 seconds", "About an hour".
std::string HumanDuration(absl::Duration duration);
// RFC 3339 in UTC with nanoseconds; "" for the infinite past.
std::string Timestamp(absl::Time time);

// "Up 5 minutes (healthy)", "Exited (0) 3 seconds ago".
std::string StatusText(const caisson::ContainerInfo& info);
// "0.0.0.0:8080->80/tcp".
std::string PortText(const caisson::PortMapping& port);
// All that is known, in the manner of `docker inspect`.
std::string InspectJson(const std::vector<caisson::ContainerInfo>& all);

}  // namespace containers

#endif  // CAISSON_EXAMPLES_CONTAINERS_OUTPUT_H_
