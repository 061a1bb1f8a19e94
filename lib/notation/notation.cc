#include "caisson/notation.h"

#include <limits>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"

namespace caisson {
namespace {

absl::Status Expected(absl::string_view text, absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(text), ": expected ", what));
}

// Digits only, so that neither a sign nor a space gets through.
bool ParsePort(absl::string_view text, uint32_t min, uint16_t* port) {
  uint32_t value = 0;
  if (text.empty() || text.size() > 5) return false;
  for (const char c : text) {
    if (!absl::ascii_isdigit(c)) return false;
    value = value * 10 + static_cast<uint32_t>(c - '0');
  }
  *port = static_cast<uint16_t>(value);
  return value >= min && value <= 65535;
}

absl::string_view NameOf(absl::string_view variable) {
  return variable.substr(0, variable.find('='));
}

}  // namespace

absl::StatusOr<PortMapping> ParsePortMapping(absl::string_view text) {
  absl::string_view rest = text;
  PortMapping mapping;
  if (absl::ConsumeSuffix(&rest, "/udp")) {
    mapping.protocol = PortMapping::Protocol::kUdp;
  } else {
    absl::ConsumeSuffix(&rest, "/tcp");
  }
  const std::vector<absl::string_view> parts = absl::StrSplit(rest, ':');
  const size_t count = parts.size();
  if (count < 2 || count > 3 || (count == 3 && parts[0].empty()) ||
      !ParsePort(parts[count - 2], 0, &mapping.host_port) ||
      !ParsePort(parts[count - 1], 1, &mapping.container_port)) {
    return Expected(text, "[ADDRESS:]HOSTPORT:PORT[/udp]");
  }
  if (count == 3) mapping.host_address = std::string(parts[0]);
  return mapping;
}

absl::StatusOr<BindMount> ParseBindMount(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  const bool has_mode = parts.size() == 3;
  if (parts.size() < 2 || parts.size() > 3 ||
      !absl::StartsWith(parts[0], "/") || !absl::StartsWith(parts[1], "/") ||
      (has_mode && parts[2] != "ro" && parts[2] != "rw")) {
    return Expected(text, "/SOURCE:/DESTINATION[:ro]");
  }
  BindMount bind;
  bind.source = std::string(parts[0]);
  bind.destination = std::string(parts[1]);
  bind.read_only = has_mode && parts[2] == "ro";
  return bind;
}

absl::StatusOr<int64_t> ParseBytes(absl::string_view text) {
  constexpr absl::string_view kUnits = "bkmg";
  absl::string_view digits = text;
  int shift = 0;
  if (!digits.empty()) {
    const size_t unit = kUnits.find(absl::ascii_tolower(digits.back()));
    if (unit != absl::string_view::npos) {
      shift = static_cast<int>(unit) * 10;
      digits.remove_suffix(1);
    }
  }
  int64_t value = 0;
  if (digits.empty() || !absl::ascii_isdigit(digits[0]) ||
      !absl::SimpleAtoi(digits, &value) || value <= 0 ||
      value > std::numeric_limits<int64_t>::max() >> shift) {
    return Expected(text, "a number of bytes, or one with k, m or g");
  }
  return value << shift;
}

std::vector<std::string> MergeEnvironment(
    const std::vector<std::string>& base,
    const std::vector<std::string>& additions) {
  std::vector<std::string> merged;
  for (const std::vector<std::string>* variables : {&base, &additions}) {
    for (const std::string& variable : *variables) {
      bool replaced = false;
      for (std::string& existing : merged) {
        if (NameOf(existing) != NameOf(variable)) continue;
        existing = variable;
        replaced = true;
      }
      if (!replaced) merged.push_back(variable);
    }
  }
  return merged;
}

}  // namespace caisson
