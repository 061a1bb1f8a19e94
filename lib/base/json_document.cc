#include "lib/base/json_document.h"

#include <cstddef>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

using nlohmann::json;

constexpr size_t kMaxDepth = 64;
// A tree of this many values takes some 30 MB; real documents have hundreds.
constexpr size_t kMaxValues = 250'000;

// Sees every event of the parser and stops at what ParseJson refuses, before a
// tree is built from it.
class Checker final : public json::json_sax_t {
 public:
  bool null() override { return CountAllowed(); }
  bool boolean(bool) override { return CountAllowed(); }
  bool number_integer(number_integer_t) override { return CountAllowed(); }
  bool number_unsigned(number_unsigned_t) override { return CountAllowed(); }
  bool number_float(number_float_t, const string_t&) override {
    return CountAllowed();
  }
  bool string(string_t&) override { return CountAllowed(); }
  bool binary(binary_t&) override { return CountAllowed(); }

  bool start_object(size_t) override { return Enter(/*array=*/false); }
  bool end_object() override { return Leave(); }
  bool start_array(size_t) override { return Enter(/*array=*/true); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    levels_.back().name = name;
    if (levels_.back().names.insert(name).second) return true;
    problem_ = absl::StrCat(Path(), ": the name ", Quoted(name.substr(0, 80)),
                            " occurs twice in one object");
    return false;
  }
  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::detail::exception&) override {
    problem_ = absl::StrCat("invalid JSON at byte ", position, ", near ",
                            Quoted(token.substr(0, 40)));
    return false;
  }

  const std::string& problem() const { return problem_; }

 private:
  // An open object or array.
  struct Level {
    bool array = false;
    size_t index = 0;             // in an array: of the next element
    std::string name;             // in an object: the last one
    std::set<std::string> names;  // all of them
  };

  bool Enter(bool array) {
    if (!CountAllowed()) return false;
    levels_.emplace_back().array = array;
    if (levels_.size() <= kMaxDepth) return true;
    problem_ = absl::StrCat("nested deeper than ", kMaxDepth, " levels");
    return false;
  }

  bool Leave() {
    levels_.pop_back();
    return true;
  }

  // "manifests[2].digest": where the parser is.
  std::string Path() const {
    std::string path;
    for (const Level& level : levels_) {
      if (level.array) {
        absl::StrAppend(&path, "[", level.index - 1, "]");
      } else {
        absl::StrAppend(&path, path.empty() ? "" : ".",
                        level.name.substr(0, 80));
      }
    }
    return path;
  }

  bool CountAllowed() {
    if (!levels_.empty()) ++levels_.back().index;
    if (++values_ <= kMaxValues) return true;
    problem_ = absl::StrCat("more than ", kMaxValues, " values");
    return false;
  }

  std::vector<Level> levels_;
  size_t values_ = 0;
  std::string problem_;
};

}  // namespace

absl::StatusOr<json> ParseJson(absl::string_view text, absl::string_view name) {
  Checker checker;
  if (!json::sax_parse(text.begin(), text.end(), &checker)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", checker.problem()));
  }
  json value = json::parse(text.begin(), text.end(), /*cb=*/nullptr,
                           /*allow_exceptions=*/false);
  if (value.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": invalid JSON"));
  }
  return value;
}

absl::StatusOr<JsonObject> JsonObject::Of(const json& value, std::string path) {
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected an object, found ", value.type_name()));
  }
  return JsonObject(&value, std::move(path));
}

const json* JsonObject::Value(const char* field) const {
  if (value_ == nullptr) return nullptr;
  const auto it = value_->find(field);
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

std::string JsonObject::PathOf(absl::string_view field) const {
  // "index.json: manifests[0]" + ".digest", but "index.json" + ": digest".
  const char* separator = path_.find(": ") == std::string::npos ? ": " : ".";
  return absl::StrCat(path_, separator, field);
}

absl::Status JsonObject::WrongType(absl::string_view field,
                                   absl::string_view expected,
                                   const json& actual) const {
  return absl::InvalidArgumentError(absl::StrCat(
      PathOf(field), ": expected ", expected, ", found ", actual.type_name()));
}

absl::StatusOr<std::string> JsonObject::StringOf(absl::string_view field,
                                                 const json& value) const {
  const std::string* text = value.get_ptr<const std::string*>();
  if (text == nullptr) return WrongType(field, "a string", value);
  if (text->find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(PathOf(field), ": a string with a NUL character"));
  }
  return *text;
}

absl::StatusOr<std::string> JsonObject::String(const char* field) const {
  const json* value = Value(field);
  if (value == nullptr) return std::string();
  return StringOf(field, *value);
}

absl::StatusOr<std::vector<std::string>> JsonObject::Strings(
    const char* field) const {
  std::vector<std::string> strings;
  const json* value = Value(field);
  if (value == nullptr) return strings;
  if (!value->is_array()) return WrongType(field, "an array", *value);
  for (size_t i = 0; i < value->size(); ++i) {
    ASSIGN_OR_RETURN(std::string text,
                     StringOf(absl::StrCat(field, "[", i, "]"), (*value)[i]));
    strings.push_back(std::move(text));
  }
  return strings;
}

absl::StatusOr<std::map<std::string, std::string>> JsonObject::StringMap(
    const char* field) const {
  std::map<std::string, std::string> map;
  const json* value = Value(field);
  if (value == nullptr) return map;
  if (!value->is_object()) return WrongType(field, "an object", *value);
  for (auto it = value->begin(); it != value->end(); ++it) {
    RETURN_IF_ERROR(StringOf(field, it.key()).status());
    ASSIGN_OR_RETURN(
        map[it.key()],
        StringOf(absl::StrCat(field, "[", Quoted(it.key().substr(0, 80)), "]"),
                 *it));
  }
  return map;
}

absl::StatusOr<std::vector<std::string>> JsonObject::Names(
    const char* field) const {
  std::vector<std::string> names;
  const json* value = Value(field);
  if (value == nullptr) return names;
  if (!value->is_object()) return WrongType(field, "an object", *value);
  for (auto it = value->begin(); it != value->end(); ++it) {
    RETURN_IF_ERROR(StringOf(field, it.key()).status());
    names.push_back(it.key());
  }
  return names;
}

absl::StatusOr<JsonObject> JsonObject::Object(const char* field) const {
  const json* value = Value(field);
  if (value == nullptr) return JsonObject(nullptr, PathOf(field));
  if (!value->is_object()) return WrongType(field, "an object", *value);
  return JsonObject(value, PathOf(field));
}

absl::StatusOr<std::vector<JsonObject>> JsonObject::Objects(
    const char* field) const {
  std::vector<JsonObject> objects;
  const json* value = Value(field);
  if (value == nullptr) return objects;
  if (!value->is_array()) return WrongType(field, "an array", *value);
  for (size_t i = 0; i < value->size(); ++i) {
    ASSIGN_OR_RETURN(JsonObject object,
                     Of((*value)[i], absl::StrCat(PathOf(field), "[", i, "]")));
    objects.push_back(std::move(object));
  }
  return objects;
}

absl::StatusOr<std::map<std::string, JsonObject>> JsonObject::ObjectMap(
    const char* field) const {
  std::map<std::string, JsonObject> objects;
  const json* value = Value(field);
  if (value == nullptr) return objects;
  if (!value->is_object()) return WrongType(field, "an object", *value);
  for (auto it = value->begin(); it != value->end(); ++it) {
    RETURN_IF_ERROR(StringOf(field, it.key()).status());
    ASSIGN_OR_RETURN(
        JsonObject object,
        Of(*it, absl::StrCat(PathOf(field), "[", Quoted(it.key().substr(0, 80)),
                             "]")));
    objects.emplace(it.key(), std::move(object));
  }
  return objects;
}

absl::StatusOr<const json*> JsonObject::Required(const char* field) const {
  const json* value = Value(field);
  if (value != nullptr) return value;
  return absl::InvalidArgumentError(absl::StrCat(PathOf(field), ": missing"));
}

absl::Status JsonObject::OutOfRange(absl::string_view field, const json& value,
                                    const std::string& range) const {
  return absl::InvalidArgumentError(
      absl::StrCat(PathOf(field), ": ", value.dump(), " is not from ", range));
}

absl::StatusOr<int64_t> JsonObject::Signed(const char* field, int64_t min,
                                           int64_t max) const {
  ASSIGN_OR_RETURN(const json* value, Required(field));
  if (!value->is_number_integer()) {
    return WrongType(field, "an integer", *value);
  }
  const std::string range = absl::StrCat(min, " to ", max);
  const auto* big = value->get_ptr<const uint64_t*>();
  if (big != nullptr &&
      *big > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return OutOfRange(field, *value, range);
  }
  const int64_t number = value->get<int64_t>();
  if (number < min || number > max) return OutOfRange(field, *value, range);
  return number;
}

absl::StatusOr<uint64_t> JsonObject::UnsignedOf(absl::string_view field,
                                                const json& value,
                                                uint64_t max) const {
  if (!value.is_number_integer()) return WrongType(field, "an integer", value);
  const bool negative =
      !value.is_number_unsigned() && *value.get_ptr<const int64_t*>() < 0;
  if (negative || value.get<uint64_t>() > max) {
    return OutOfRange(field, value, absl::StrCat("0 to ", max));
  }
  return value.get<uint64_t>();
}

absl::StatusOr<uint64_t> JsonObject::Unsigned(const char* field,
                                              uint64_t max) const {
  ASSIGN_OR_RETURN(const json* value, Required(field));
  return UnsignedOf(field, *value, max);
}

absl::StatusOr<std::vector<uint64_t>> JsonObject::Unsigneds(
    const char* field, uint64_t max) const {
  std::vector<uint64_t> numbers;
  const json* value = Value(field);
  if (value == nullptr) return numbers;
  if (!value->is_array()) return WrongType(field, "an array", *value);
  for (size_t i = 0; i < value->size(); ++i) {
    ASSIGN_OR_RETURN(
        const uint64_t number,
        UnsignedOf(absl::StrCat(field, "[", i, "]"), (*value)[i], max));
    numbers.push_back(number);
  }
  return numbers;
}

absl::StatusOr<bool> JsonObject::Bool(const char* field) const {
  const json* value = Value(field);
  if (value == nullptr) return false;
  if (!value->is_boolean()) return WrongType(field, "a boolean", *value);
  return value->get<bool>();
}

absl::StatusOr<uint64_t> JsonObject::Size(const char* field) const {
  return Unsigned(field, std::numeric_limits<int64_t>::max());
}

}  // namespace caisson
