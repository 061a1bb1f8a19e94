// The text form of small records on disk.
//
//   caisson-lease 1
//   name web
//   alias www
//
// The first line is the type and its version; every further line is a key, a
// space and a value; the last is "end". Keys may repeat. Thread-compatible.
// doc/network-state.md and doc/volumes.md list the records.
#ifndef CAISSON_LIB_BASE_RECORD_H_
#define CAISSON_LIB_BASE_RECORD_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson {

class Record final {
 public:
  // Longer records are refused.
  static constexpr size_t kMaxSize = 65536;

  explicit Record(std::string type) : type_(std::move(type)) {}

  // DATA_LOSS if `text` is not a whole record of `type`.
  static absl::StatusOr<Record> Parse(absl::string_view type,
                                      absl::string_view text);

  // Precondition: no line breaks in either, no space in `key`.
  void Add(absl::string_view key, absl::string_view value);
  // The first value of `key`; DATA_LOSS if there is none.
  absl::StatusOr<std::string> Get(absl::string_view key) const;
  std::vector<std::string> GetAll(absl::string_view key) const;

  std::string ToString() const;

 private:
  std::string type_;
  std::vector<std::pair<std::string, std::string>> lines_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_BASE_RECORD_H_
