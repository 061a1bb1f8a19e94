#include "lib/net/names.h"

#include <sys/random.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"

namespace caisson {
namespace {

constexpr size_t kMaxNetworkName = 63;
constexpr size_t kMaxLabel = 63;
constexpr size_t kMaxHostName = 253;
constexpr size_t kMaxInterfaceName = 15;  // IFNAMSIZ - 1

absl::Status Invalid(absl::string_view field, absl::string_view name,
                     absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", Quoted(name), " ", rule));
}

bool IsLabel(absl::string_view label) {
  return !label.empty() && label.size() <= kMaxLabel &&
         absl::ascii_isalnum(label.front()) &&
         absl::ascii_isalnum(label.back()) &&
         std::all_of(label.begin(), label.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_';
         });
}

}  // namespace

absl::Status ValidateNetworkName(absl::string_view field,
                                 absl::string_view name) {
  const bool valid =
      !name.empty() && name.size() <= kMaxNetworkName &&
      absl::ascii_isalnum(name.front()) &&
      std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
      });
  if (valid) return absl::OkStatus();
  return Invalid(field, name,
                 "is not a network name: 1 to 63 letters, digits, '-', '_' and "
                 "'.', the first a letter or digit");
}

absl::Status ValidateHostName(absl::string_view field, absl::string_view name) {
  bool valid = name.size() <= kMaxHostName;
  for (absl::string_view label : absl::StrSplit(name, '.')) {
    valid = valid && IsLabel(label);
  }
  if (valid) return absl::OkStatus();
  return Invalid(field, name,
                 "is not a host name: labels of 1 to 63 letters, digits, '-' "
                 "and '_' that begin and end with a letter or digit");
}

absl::Status ValidateInterfaceName(absl::string_view field,
                                   absl::string_view name) {
  const bool valid =
      !name.empty() && name.size() <= kMaxInterfaceName && name != "." &&
      name != ".." && name != "lo" && name != "all" && name != "default" &&
      std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return absl::ascii_isgraph(c) && c != '/' && c != ':' && c != '%';
      });
  if (valid) return absl::OkStatus();
  return Invalid(field, name,
                 "is not an interface name: 1 to 15 printable characters "
                 "without '/', ':' and '%', and not \"lo\"");
}

std::string FoldName(absl::string_view name) {
  return absl::AsciiStrToLower(name);
}

std::string RandomTag(size_t length) {
  constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
  std::string tag(length, '\0');
  // Short reads of getrandom(2) do not happen up to 256 bytes.
  if (length > 256 ||
      ::getrandom(tag.data(), length, 0) != static_cast<ssize_t>(length)) {
    std::abort();
  }
  for (char& c : tag) c = kAlphabet[static_cast<unsigned char>(c) % 32];
  return tag;
}

}  // namespace caisson
