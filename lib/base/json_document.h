// Hostile JSON documents: parsed without exceptions, read through typed getters
// whose errors name the field.
//
//   ASSIGN_OR_RETURN(nlohmann::json json, ParseJson(text, "index.json"));
//   ASSIGN_OR_RETURN(JsonObject index, JsonObject::Of(json, "index.json"));
//   ASSIGN_OR_RETURN(std::string type, index.String("mediaType"));
//
// The getters treat a missing field and null alike, as Go's encoding/json does,
// which writes null for what is empty; a field of another type is an error.
// Field names are case-sensitive. Thread-compatible.
#ifndef CAISSON_LIB_BASE_JSON_DOCUMENT_H_
#define CAISSON_LIB_BASE_JSON_DOCUMENT_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson {

// Parses one document. What two parsers could read differently is an error: a
// name that occurs twice in an object, invalid UTF-8, bytes behind the document
// (RFC 8259 leaves all three open). So are more than 64 levels and 250,000
// values. `name` says in errors which document it is.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text,
                                         absl::string_view name);

// One object of a document, which must outlive it.
class JsonObject final {
 public:
  // `value` as an object; `path` names it in errors: "index.json:
  // manifests[2]".
  static absl::StatusOr<JsonObject> Of(const nlohmann::json& value,
                                       std::string path);

  // Whether the field exists and is not null.
  bool Has(const char* field) const { return Value(field) != nullptr; }
  // Whether it exists, null or not.
  bool Contains(const char* field) const {
    return value_ != nullptr && value_->contains(field);
  }

  // Empty if missing. A string with a NUL is an error: nothing in an image may
  // have one, and every C interface would cut it.
  absl::StatusOr<std::string> String(const char* field) const;
  absl::StatusOr<std::vector<std::string>> Strings(const char* field) const;
  absl::StatusOr<std::map<std::string, std::string>> StringMap(
      const char* field) const;
  // The names of an object whose values say nothing: {"80/tcp": {}}.
  absl::StatusOr<std::vector<std::string>> Names(const char* field) const;
  // An object; an empty one if it is missing.
  absl::StatusOr<JsonObject> Object(const char* field) const;
  // The objects of an array; a null element is an error.
  absl::StatusOr<std::vector<JsonObject>> Objects(const char* field) const;
  // The objects of an object, by name: {"eth0": {...}}; null is an error.
  absl::StatusOr<std::map<std::string, JsonObject>> ObjectMap(
      const char* field) const;
  // A size in bytes: an integer from 0 to 2^63-1; a missing one is an error.
  absl::StatusOr<uint64_t> Size(const char* field) const;
  // Integers within a range; a missing one is an error. A number with a
  // fraction or an exponent is none, and neither is one beyond 64 bits.
  absl::StatusOr<int64_t> Signed(const char* field, int64_t min,
                                 int64_t max) const;
  absl::StatusOr<uint64_t> Unsigned(const char* field, uint64_t max) const;
  absl::StatusOr<std::vector<uint64_t>> Unsigneds(const char* field,
                                                  uint64_t max) const;
  // False if missing.
  absl::StatusOr<bool> Bool(const char* field) const;

  // "index.json: manifests[2].digest", for errors about a value.
  std::string PathOf(absl::string_view field) const;
  const std::string& path() const { return path_; }

 private:
  JsonObject(const nlohmann::json* value, std::string path)
      : value_(value), path_(std::move(path)) {}

  const nlohmann::json* Value(const char* field) const;
  absl::Status WrongType(absl::string_view field, absl::string_view expected,
                         const nlohmann::json& actual) const;
  absl::StatusOr<const nlohmann::json*> Required(const char* field) const;
  absl::StatusOr<uint64_t> UnsignedOf(absl::string_view field,
                                      const nlohmann::json& value,
                                      uint64_t max) const;
  absl::Status OutOfRange(absl::string_view field, const nlohmann::json& value,
                          const std::string& range) const;
  absl::StatusOr<std::string> StringOf(absl::string_view field,
                                       const nlohmann::json& value) const;

  const nlohmann::json* value_;  // null: an empty object
  std::string path_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_BASE_JSON_DOCUMENT_H_
