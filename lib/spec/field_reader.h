// Reads the fields of one object into a struct. The first error is kept, and
// what comes after it is left alone, so that a parser is a list of fields:
//
//   FieldReader read(json);
//   read.Number("limit", memory.limit);
//   read.Word("type", kNamespaceTypes, entry.type, Presence::kRequired);
//   return read.status();
//
// A missing field leaves its target as it was. Thread-compatible.
#ifndef CAISSON_LIB_SPEC_FIELD_READER_H_
#define CAISSON_LIB_SPEC_FIELD_READER_H_

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/base/json_document.h"

namespace caisson::spec {

enum class Presence { kOptional, kRequired };

class FieldReader final {
 public:
  explicit FieldReader(const JsonObject& json) : json_(json) {}

  const absl::Status& status() const { return status_; }

  template <typename T>
  void Number(const char* field, T& value,
              Presence presence = Presence::kOptional) {
    if (!Wanted(field, presence)) return;
    if constexpr (std::is_signed_v<T>) {
      Take(json_.Signed(field, std::numeric_limits<T>::min(),
                        std::numeric_limits<T>::max()),
           value);
    } else {
      Take(json_.Unsigned(field, std::numeric_limits<T>::max()), value);
    }
  }

  template <typename T>
  void Number(const char* field, std::optional<T>& value) {
    if (Wanted(field, Presence::kOptional)) Number(field, value.emplace());
  }

  void Bool(const char* field, bool& value,
            Presence presence = Presence::kOptional) {
    if (Wanted(field, presence)) Take(json_.Bool(field), value);
  }
  void Bool(const char* field, std::optional<bool>& value) {
    if (Wanted(field, Presence::kOptional)) Bool(field, value.emplace());
  }

  // kRequired: nor empty.
  void Text(const char* field, std::string& value,
            Presence presence = Presence::kOptional);
  // An absolute path; empty only if it is optional.
  void Path(const char* field, std::string& value,
            Presence presence = Presence::kOptional);
  // One of `words`.
  void Word(const char* field, absl::Span<const absl::string_view> words,
            std::string& value, Presence presence = Presence::kOptional);
  // kRequired: at least one.
  void Texts(const char* field, std::vector<std::string>& values,
             Presence presence = Presence::kOptional);
  void Words(const char* field, absl::Span<const absl::string_view> words,
             std::vector<std::string>& values);
  void Numbers(const char* field, std::vector<uint32_t>& values);
  void TextMap(const char* field, std::map<std::string, std::string>& values);

  // Below, `parse` is an absl::Status(const JsonObject&, T&).
  template <typename T, typename Parse>
  void Object(const char* field, T& value, Parse parse,
              Presence presence = Presence::kOptional) {
    if (!Wanted(field, presence)) return;
    auto object = json_.Object(field);
    Keep(object.ok() ? parse(*object, value) : object.status());
  }
  template <typename T, typename Parse>
  void Object(const char* field, std::optional<T>& value, Parse parse) {
    if (Wanted(field, Presence::kOptional)) {
      Object(field, value.emplace(), parse);
    }
  }
  template <typename T, typename Parse>
  void Objects(const char* field, std::vector<T>& values, Parse parse) {
    if (!Wanted(field, Presence::kOptional)) return;
    auto objects = json_.Objects(field);
    if (!objects.ok()) return Keep(objects.status());
    for (const JsonObject& object : *objects) {
      Keep(parse(object, values.emplace_back()));
      if (!status_.ok()) return;
    }
  }
  template <typename T, typename Parse>
  void ObjectMap(const char* field, std::map<std::string, T>& values,
                 Parse parse) {
    if (!Wanted(field, Presence::kOptional)) return;
    auto objects = json_.ObjectMap(field);
    if (!objects.ok()) return Keep(objects.status());
    for (const auto& [name, object] : *objects) {
      Keep(parse(object, values[name]));
      if (!status_.ok()) return;
    }
  }

  // "config.json: root.path PROBLEM"; an error of before is kept.
  void Fail(const char* field, absl::string_view problem);

 private:
  // Whether there is something to read.
  bool Wanted(const char* field, Presence presence);
  void Keep(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  template <typename From, typename To>
  void Take(absl::StatusOr<From> from, To& to) {
    if (!from.ok()) return Keep(std::move(from).status());
    to = static_cast<To>(*std::move(from));
  }

  const JsonObject& json_;
  absl::Status status_;
};

}  // namespace caisson::spec

#endif  // CAISSON_LIB_SPEC_FIELD_READER_H_
