#include "caisson/notation.h"

#include <arpa/inet.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <limits>
#include <utility>

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

bool SetPropagation(absl::string_view option, BindMount& bind) {
  absl::ConsumePrefix(&option, "r");
  if (option == "private") {
    bind.propagation = MountPropagation::kPrivate;
  } else if (option == "slave") {
    bind.propagation = MountPropagation::kUnsafeSlave;
  } else if (option == "shared") {
    bind.propagation = MountPropagation::kUnsafeShared;
  } else {
    return false;
  }
  return true;
}

bool SetVolumeOption(absl::string_view option, VolumeMount& volume) {
  const bool bind = volume.kind == VolumeMount::Kind::kBind;
  if (option == "ro" || option == "rw") {
    volume.mount.read_only = option == "ro";
  } else if (option == "nocopy" && !bind) {
    volume.copy = false;
  } else {
    return bind && SetPropagation(option, volume.mount);
  }
  return true;
}

bool SetTmpfsOption(absl::string_view option, TmpfsMount& tmpfs) {
  if (option == "ro" || option == "rw") {
    tmpfs.read_only = option == "ro";
  } else if (option == "exec" || option == "noexec") {
    tmpfs.executable = option == "exec";
  } else if (option == "tmpcopyup") {
    tmpfs.copy_up = true;
  } else if (absl::ConsumePrefix(&option, "size=")) {
    const auto bytes = ParseBytes(option);
    if (!bytes.ok()) return false;
    tmpfs.size_bytes = static_cast<uint64_t>(*bytes);
  } else if (absl::ConsumePrefix(&option, "nr_inodes=")) {
    return absl::SimpleAtoi(option, &tmpfs.max_inodes);
  } else if (absl::ConsumePrefix(&option, "mode=")) {
    tmpfs.mode = 0;
    if (option.empty() || option.size() > 5) return false;
    for (const char c : option) {
      if (c < '0' || c > '7') return false;
      tmpfs.mode = tmpfs.mode * 8 + static_cast<uint32_t>(c - '0');
    }
  } else {
    return option == "nosuid" || option == "nodev";  // it always is
  }
  return true;
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
  const absl::string_view host = count < 2 ? "" : parts[count - 2];
  if (count > 3 || (count == 3 && parts[0].empty()) ||
      (!host.empty() && !ParsePort(host, 0, &mapping.host_port)) ||
      !ParsePort(parts[count - 1], 1, &mapping.container_port)) {
    return Expected(text, "[[ADDRESS:][HOSTPORT]:]PORT[/udp]");
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

absl::StatusOr<VolumeMount> ParseVolumeMount(absl::string_view text) {
  constexpr absl::string_view kExpected =
      "[/SOURCE|NAME:]/DESTINATION[:ro,nocopy,...]";
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  VolumeMount volume;
  if (parts.size() == 1 && absl::StartsWith(text, "/")) {
    volume.kind = VolumeMount::Kind::kAnonymous;
    volume.mount.destination = std::string(text);
    return volume;
  }
  if (parts.size() < 2 || parts.size() > 3 || parts[0].empty() ||
      !absl::StartsWith(parts[1], "/")) {
    return Expected(text, kExpected);
  }
  volume.mount.destination = std::string(parts[1]);
  if (parts[0][0] == '/') {
    volume.mount.source = std::string(parts[0]);
  } else {
    volume.kind = VolumeMount::Kind::kNamed;
    volume.volume = std::string(parts[0]);
  }
  if (parts.size() == 2) return volume;
  for (const absl::string_view option : absl::StrSplit(parts[2], ',')) {
    if (!SetVolumeOption(option, volume)) return Expected(text, kExpected);
  }
  return volume;
}

absl::StatusOr<TmpfsMount> ParseTmpfsMount(absl::string_view text) {
  constexpr absl::string_view kExpected =
      "/DESTINATION[:size=BYTES,mode=OCTAL,ro,exec,...]";
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  TmpfsMount tmpfs;
  tmpfs.destination = std::string(parts.first);
  if (!absl::StartsWith(parts.first, "/")) return Expected(text, kExpected);
  if (parts.first.size() == text.size()) return tmpfs;
  for (const absl::string_view option : absl::StrSplit(parts.second, ',')) {
    if (!SetTmpfsOption(option, tmpfs)) return Expected(text, kExpected);
  }
  return tmpfs;
}

absl::StatusOr<DeviceNode> ParseDeviceNode(absl::string_view text) {
  std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  if (parts.size() > 1 && parts.back() == "rwm") parts.pop_back();
  const bool ok = parts.size() <= 2 && absl::StartsWith(parts.front(), "/") &&
                  absl::StartsWith(parts.back(), "/");
  if (!ok) return Expected(text, "/dev/SOURCE[:/dev/DESTINATION][:rwm]");
  DeviceNode device;
  device.source = std::string(parts.front());
  device.path = std::string(parts.back());
  return device;
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

absl::StatusOr<CpuQuota> ParseCpus(absl::string_view text) {
  double cpus = 0;
  CpuQuota quota;
  // SimpleAtod() also takes "inf", "nan" and "0x1".
  if (text.find_first_not_of("0123456789.") != absl::string_view::npos ||
      !absl::SimpleAtod(text, &cpus) || cpus < 0.01 || cpus > 65536) {
    return Expected(text, "a number of CPUs, at least 0.01");
  }
  quota.quota = absl::Trunc(quota.period * cpus, absl::Microseconds(1));
  return quota;
}

absl::StatusOr<HostsEntry> ParseHostsEntry(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  const std::string address(parts.second);
  in6_addr parsed;
  if (parts.first.empty() ||
      parts.first.find_first_of(" \t\n#") != absl::string_view::npos ||
      (::inet_pton(AF_INET, address.c_str(), &parsed) != 1 &&
       ::inet_pton(AF_INET6, address.c_str(), &parsed) != 1)) {
    return Expected(text, "NAME:ADDRESS");
  }
  return HostsEntry{address, {std::string(parts.first)}};
}

absl::StatusOr<absl::Time> ParseTime(absl::string_view text, absl::Time now) {
  double seconds = 0;
  // A year alone would be one, too; nobody means 1970.
  if (!text.empty() &&
      text.find_first_not_of("0123456789.") == absl::string_view::npos &&
      absl::SimpleAtod(text, &seconds)) {
    return absl::UnixEpoch() + absl::Seconds(seconds);
  }
  absl::Duration ago;
  if (absl::ParseDuration(text, &ago) && ago >= absl::ZeroDuration() &&
      ago < absl::InfiniteDuration()) {
    return now - ago;
  }
  absl::Time time;
  for (const char* format : {absl::RFC3339_full, "%Y-%m-%dT%H:%M:%E*S",
                             "%Y-%m-%dT%H:%M", "%Y-%m-%d"}) {
    if (!text.empty() && absl::ascii_isdigit(text[0]) &&
        absl::ParseTime(format, text, &time, nullptr)) {
      return time;
    }
  }
  return Expected(text,
                  "a duration (\"10m\"), seconds since 1970, or a time "
                  "(\"2026-01-31T15:04:05Z\")");
}

absl::StatusOr<int> ParseSignal(absl::string_view text) {
  const absl::Status unknown = absl::InvalidArgumentError(
      absl::StrCat(Quoted(text), " is no signal, such as SIGTERM or 15"));
  // Digits only, so that neither a sign nor a space gets through.
  const auto number_of = [](absl::string_view digits) {
    int number = -1;
    const bool all = std::all_of(digits.begin(), digits.end(), [](char c) {
      return absl::ascii_isdigit(static_cast<unsigned char>(c));
    });
    return all && absl::SimpleAtoi(digits, &number) ? number : -1;
  };
  if (const int number = number_of(text); number >= 0) {
    return number > 0 && number < NSIG ? absl::StatusOr<int>(number) : unknown;
  }
  const std::string upper = absl::AsciiStrToUpper(text);
  absl::string_view name = upper;
  absl::ConsumePrefix(&name, "SIG");
  if (absl::ConsumePrefix(&name, "RTMIN")) {
    if (name.empty()) return SIGRTMIN;
    if (!absl::ConsumePrefix(&name, "+")) return unknown;
    const int number = number_of(name);
    return number >= 0 && number <= SIGRTMAX - SIGRTMIN
               ? absl::StatusOr<int>(SIGRTMIN + number)
               : unknown;
  }
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* const abbreviation = ::sigabbrev_np(signal);
    if (abbreviation != nullptr && name == abbreviation) return signal;
  }
  return unknown;
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
