#include "examples/oci/arguments.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace oci {
namespace {

using nlohmann::json;

const Option* Find(const std::vector<Option>& options,
                   const std::string& name) {
  if (name.empty()) return nullptr;  // as is the alias of most
  const auto it =
      std::find_if(options.begin(), options.end(), [&](const Option& option) {
        return option.name == name || option.alias == name;
      });
  return it == options.end() ? nullptr : &*it;
}

// Whether writing it as JSON leaves out nothing.
bool IsUtf8(const std::string& text) {
  return json::parse(json(text).dump(-1, ' ', false,
                                     json::error_handler_t::ignore)) == text;
}

}  // namespace

absl::StatusOr<Arguments> Arguments::Parse(
    const std::vector<std::string>& words, size_t first,
    const std::vector<Option>& options) {
  Arguments out;
  size_t i = first;
  for (; i < words.size() && words[i].size() > 1 && words[i][0] == '-'; ++i) {
    if (words[i] == "--") {
      ++i;
      break;
    }
    // runc takes one dash for two.
    std::string name =
        words[i].substr(absl::StartsWith(words[i], "--") ? 2 : 1);
    std::string value;
    const size_t equals = name.find('=');
    const bool has_equals = equals != std::string::npos;
    if (has_equals) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    const Option* option = Find(options, name);
    if (option == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("unknown option ", words[i]));
    }
    if (option->has_value && !has_equals) {
      if (i + 1 == words.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("option ", words[i], " needs a value"));
      }
      value = words[++i];
    }
    // "--flag=false"
    if (!option->has_value && has_equals && value == "false") continue;
    out.values_.emplace(option->name, std::move(value));
  }
  out.rest_.assign(words.begin() + static_cast<ptrdiff_t>(i), words.end());
  return out;
}

absl::Status Arguments::CheckIsUtf8() const {
  std::vector<std::string> all = rest_;
  for (const auto& [name, value] : values_) all.push_back(value);
  for (const std::string& text : all) {
    if (IsUtf8(text)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", absl::CHexEscape(text),
        "\" is not UTF-8, as what is in a JSON document has to be"));
  }
  return absl::OkStatus();
}

std::string Arguments::Get(const std::string& name) const {
  const auto [begin, end] = values_.equal_range(name);
  return begin == end ? "" : std::prev(end)->second;
}

std::vector<std::string> Arguments::GetAll(const std::string& name) const {
  std::vector<std::string> all;
  const auto [begin, end] = values_.equal_range(name);
  for (auto it = begin; it != end; ++it) all.push_back(it->second);
  return all;
}

absl::StatusOr<int> Arguments::GetNumber(const std::string& name,
                                         int otherwise) const {
  if (!Has(name)) return otherwise;
  int number = 0;
  if (absl::SimpleAtoi(Get(name), &number) && number >= 0) return number;
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, " ", Get(name), " is no number"));
}

}  // namespace oci
