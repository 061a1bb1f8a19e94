#include "lib/layer/json_document.h"

#include <cstddef>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
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

  bool start_object(size_t) override {
    names_.emplace_back();
    return DepthAllowed() && CountAllowed();
  }
  bool end_object() override {
    names_.pop_back();
    return true;
  }
  bool start_array(size_t) override {
    names_.emplace_back();
    return DepthAllowed() && CountAllowed();
  }
  bool end_array() override {
    names_.pop_back();
    return true;
  }
  bool key(string_t& name) override {
    if (names_.back().insert(name).second) return true;
    problem_ = absl::StrCat("the name ", Quoted(name.substr(0, 80)),
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
  bool DepthAllowed() {
    if (names_.size() <= kMaxDepth) return true;
    problem_ = absl::StrCat("nested deeper than ", kMaxDepth, " levels");
    return false;
  }

  bool CountAllowed() {
    if (++values_ <= kMaxValues) return true;
    problem_ = absl::StrCat("more than ", kMaxValues, " values");
    return false;
  }

  std::vector<std::set<std::string>> names_;  // per open object or array
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

absl::StatusOr<uint64_t> JsonObject::Size(const char* field) const {
  const json* value = Value(field);
  if (value == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(PathOf(field), ": missing"));
  }
  if (!value->is_number_integer()) {
    return WrongType(field, "an integer", *value);
  }
  const bool negative =
      !value->is_number_unsigned() && *value->get_ptr<const int64_t*>() < 0;
  if (negative) {
    return absl::InvalidArgumentError(absl::StrCat(
        PathOf(field), ": negative size ", *value->get_ptr<const int64_t*>()));
  }
  const uint64_t size =
      value->is_number_unsigned()
          ? *value->get_ptr<const uint64_t*>()
          : static_cast<uint64_t>(*value->get_ptr<const int64_t*>());
  if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat(PathOf(field), ": size ", size, " is above 2^63-1"));
  }
  return size;
}

}  // namespace caisson::layer
