#include "lib/lines/json_line.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace caisson::lines {
namespace {

// What the bytes at `text` are, by the table of RFC 3629, section 4.
struct Character {
  size_t length = 0;  // of a valid one; 0: invalid
  bool cut = false;   // invalid only because it ends here
};

uint8_t ByteAt(absl::string_view text, size_t i) {
  return static_cast<uint8_t>(text[i]);
}

// The range of the second byte excludes overlong forms, surrogates and what is
// beyond U+10FFFF.
std::pair<uint8_t, uint8_t> SecondByteRange(uint8_t lead) {
  switch (lead) {
    case 0xe0:
      return {0xa0, 0xbf};
    case 0xed:
      return {0x80, 0x9f};
    case 0xf0:
      return {0x90, 0xbf};
    case 0xf4:
      return {0x80, 0x8f};
    default:
      return {0x80, 0xbf};
  }
}

Character Decode(absl::string_view text) {
  const uint8_t lead = ByteAt(text, 0);
  if (lead < 0x80) return {.length = 1};
  if (lead < 0xc2 || lead > 0xf4) return {};
  const size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {.cut = true};
    const auto [low, high] = i == 1 ? SecondByteRange(lead)
                                    : std::pair<uint8_t, uint8_t>(0x80, 0xbf);
    if (ByteAt(text, i) < low || ByteAt(text, i) > high) return {};
  }
  return {.length = length};
}

bool IsPlain(uint8_t byte) {
  return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

void AppendEscaped(std::string& json, char c) {
  switch (c) {
    case '\n':
      json += "\\n";
      return;
    case '\r':
      json += "\\r";
      return;
    case '\t':
      json += "\\t";
      return;
    case '"':
      json += "\\\"";
      return;
    case '\\':
      json += "\\\\";
      return;
    default:
      break;
  }
  // By hand: a program may write nothing but NULs.
  constexpr char kDigits[] = "0123456789abcdef";
  const auto byte = static_cast<uint8_t>(c);
  const char escaped[] = {
      '\\', 'u', '0', '0', kDigits[byte >> 4], kDigits[byte & 0xf]};
  json.append(escaped, sizeof(escaped));
}

// nlohmann's parser does not recurse: only memory grows with the depth, by no
// more than the line has bytes.
class StringReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit StringReader(StringField field) : field_(field) {}

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override {
    return Value();
  }
  bool binary(binary_t&) override { return Value(); }
  bool string(string_t& value) override {
    if (arrays_ == 0 && depth_ == 1) field_("", name_, value);
    if (arrays_ == 0 && depth_ == 2) field_(object_, name_, value);
    return Value();
  }
  bool key(string_t& name) override {
    name_.swap(name);
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ == 1) object_ = name_;
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(size_t) override {
    ++arrays_;
    return Value();
  }
  bool end_array() override {
    --arrays_;
    return true;
  }
  bool parse_error(size_t, const std::string&,
                   const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  // A line that is no object is refused at its first value.
  bool Value() const { return depth_ > 0; }

  StringField field_;
  std::string object_;
  std::string name_;
  int depth_ = 0;   // of objects
  int arrays_ = 0;  // that are open
};

}  // namespace

void AppendJsonString(std::string& json, absl::string_view text) {
  json += '"';
  size_t begin = 0;  // of what is copied as it is
  size_t i = 0;
  while (i < text.size()) {
    const uint8_t byte = ByteAt(text, i);
    if (IsPlain(byte)) {
      ++i;
      continue;
    }
    if (byte >= 0x80) {
      const size_t length = Decode(text.substr(i)).length;
      if (length > 0) {
        i += length;
        continue;
      }
    }
    json.append(text.data() + begin, i - begin);
    if (byte >= 0x80) {
      json += "\xef\xbf\xbd";  // U+FFFD
    } else {
      AppendEscaped(json, text[i]);
    }
    begin = ++i;
  }
  json.append(text.data() + begin, i - begin);
  json += '"';
}

size_t IncompleteCharacter(absl::string_view text) {
  for (size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const uint8_t byte = ByteAt(text, text.size() - length);
    if ((byte & 0xc0) == 0x80) continue;  // not a first byte
    return Decode(text.substr(text.size() - length)).cut ? length : 0;
  }
  return 0;
}

std::string FormatLineTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E9SZ", time, absl::UTCTimeZone());
}

std::optional<absl::Time> ParseLineTime(absl::string_view text) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error) ||
      time == absl::InfiniteFuture() || time == absl::InfinitePast()) {
    return std::nullopt;
  }
  return time;
}

bool ReadStrings(absl::string_view line, StringField field) {
  StringReader reader(field);
  return nlohmann::json::sax_parse(line.begin(), line.end(), &reader);
}

}  // namespace caisson::lines
