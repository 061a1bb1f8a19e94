#include "lib/spec/field_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"

namespace caisson::spec {
namespace {

constexpr size_t kQuotedBytes = 80;

bool Knows(absl::Span<const absl::string_view> words, absl::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string NotOneOf(absl::string_view word,
                     absl::Span<const absl::string_view> words) {
  return absl::StrCat(Quoted(word.substr(0, kQuotedBytes)), " is none of ",
                      absl::StrJoin(words, ", "));
}

}  // namespace

bool FieldReader::Wanted(const char* field, Presence presence) {
  if (!status_.ok()) return false;
  if (json_.Has(field)) return true;
  if (presence == Presence::kRequired) Fail(field, "missing");
  return false;
}

void FieldReader::Fail(const char* field, absl::string_view problem) {
  Keep(absl::InvalidArgumentError(
      absl::StrCat(json_.PathOf(field), ": ", problem)));
}

void FieldReader::Text(const char* field, std::string& value,
                       Presence presence) {
  if (!Wanted(field, presence)) return;
  Take(json_.String(field), value);
  if (presence == Presence::kRequired && value.empty()) Fail(field, "empty");
}

void FieldReader::Path(const char* field, std::string& value,
                       Presence presence) {
  Text(field, value, presence);
  if (!status_.ok() || value.empty() || value[0] == '/') return;
  Fail(field, absl::StrCat(Quoted(value.substr(0, kQuotedBytes)),
                           " is not an absolute path"));
}

void FieldReader::Word(const char* field,
                       absl::Span<const absl::string_view> words,
                       std::string& value, Presence presence) {
  Text(field, value, presence);
  if (!status_.ok() || value.empty() || Knows(words, value)) return;
  Fail(field, NotOneOf(value, words));
}

void FieldReader::Texts(const char* field, std::vector<std::string>& values,
                        Presence presence) {
  if (!Wanted(field, presence)) return;
  Take(json_.Strings(field), values);
  if (presence == Presence::kRequired && values.empty()) Fail(field, "empty");
}

void FieldReader::Words(const char* field,
                        absl::Span<const absl::string_view> words,
                        std::vector<std::string>& values) {
  Texts(field, values);
  for (size_t i = 0; status_.ok() && i < values.size(); ++i) {
    if (Knows(words, values[i])) continue;
    Fail(absl::StrCat(field, "[", i, "]").c_str(), NotOneOf(values[i], words));
  }
}

void FieldReader::Numbers(const char* field, std::vector<uint32_t>& values) {
  if (!Wanted(field, Presence::kOptional)) return;
  auto numbers = json_.Unsigneds(field, std::numeric_limits<uint32_t>::max());
  if (!numbers.ok()) return Keep(numbers.status());
  values.assign(numbers->begin(), numbers->end());
}

void FieldReader::TextMap(const char* field,
                          std::map<std::string, std::string>& values) {
  if (Wanted(field, Presence::kOptional)) Take(json_.StringMap(field), values);
}

}  // namespace caisson::spec
