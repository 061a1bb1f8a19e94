#include "lib/rootfs/etc_files.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson {
namespace rootfs {
namespace {

// What Docker writes (moby libnetwork/etchosts).
constexpr char kStandardHosts[] =
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n";

constexpr size_t kMaxName = 253;  // RFC 1035, as text

// A word of hosts(5): no blank, no comment sign, nothing unprintable.
bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isgraph(static_cast<unsigned char>(c)) &&
                  c != '#';
         });
}

bool IsAddress(const std::string& text) {
  in6_addr address;
  return text.find('\0') == std::string::npos &&
         (::inet_pton(AF_INET, text.c_str(), &address) == 1 ||
          ::inet_pton(AF_INET6, text.c_str(), &address) == 1);
}

bool IsLoopback4(uint32_t address) {
  return address >> 24 == 127 || address == 0;
}

bool IsLoopback(absl::string_view server) {
  // A zone ("fe80::1%eth0") is no part of the address.
  const std::string text(server.substr(0, server.find('%')));
  in_addr v4;
  if (::inet_pton(AF_INET, text.c_str(), &v4) == 1) {
    return IsLoopback4(ntohl(v4.s_addr));
  }
  in6_addr v6;
  if (::inet_pton(AF_INET6, text.c_str(), &v6) != 1) return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) {
    return IsLoopback4(ntohl(v6.s6_addr32[3]));
  }
  return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6);
}

// The address of a "nameserver" line.
std::optional<absl::string_view> ServerOf(absl::string_view line) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (words.size() < 2 || words[0] != "nameserver") return std::nullopt;
  return words[1];
}

}  // namespace

absl::Status CheckHostname(absl::string_view hostname) {
  if (hostname.empty() || IsName(hostname)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "RootFsOptions.hostname ", Quoted(hostname), " is no host name"));
}

absl::StatusOr<std::string> RenderHosts(
    absl::string_view hostname, const std::vector<HostsEntry>& entries) {
  std::string text = kStandardHosts;
  bool named = hostname.empty() || hostname == "localhost";
  for (size_t i = 0; i < entries.size(); ++i) {
    const HostsEntry& entry = entries[i];
    const std::string field = absl::StrCat("RootFsOptions.hosts[", i, "]");
    if (!IsAddress(entry.address)) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ".address ", Quoted(entry.address),
                       " is neither an IPv4 nor an IPv6 address"));
    }
    if (entry.names.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, " gives ", entry.address, " no name"));
    }
    for (const std::string& name : entry.names) {
      if (!IsName(name)) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ".names: ", Quoted(name), " is no host name"));
      }
      named = named || name == hostname;
    }
    absl::StrAppend(&text, entry.address, "\t", absl::StrJoin(entry.names, " "),
                    "\n");
  }
  if (!named) absl::StrAppend(&text, "127.0.0.1\t", hostname, "\n");
  return text;
}

FilteredResolvConf RemoveLoopbackServers(absl::string_view text) {
  FilteredResolvConf result;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::optional<absl::string_view> server = ServerOf(line);
    if (server.has_value() && IsLoopback(*server)) {
      ++result.loopbacks;
      continue;
    }
    if (server.has_value()) ++result.servers;
    absl::StrAppend(&result.text, line, "\n");
  }
  // The text after the last newline is a line only if there is something.
  if (text.empty() || text.back() == '\n') result.text.pop_back();
  return result;
}

}  // namespace rootfs

namespace {

constexpr char kResolvConf[] = "/etc/resolv.conf";
// The servers that systemd-resolved itself asks (systemd-resolved.service(8)).
constexpr char kUplinkResolvConf[] = "/run/systemd/resolve/resolv.conf";
constexpr size_t kMaxResolvConf = 1 << 20;

absl::StatusOr<std::string> ReadIfPresent(const char* path) {
  auto file = sys::Open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
  if (file.ok()) return sys::ReadAll(file->borrow(), kMaxResolvConf, path);
  const auto detail = GetErrorDetail(file.status());
  if (detail.has_value() && detail->error == ENOENT) return std::string();
  return file.status();
}

}  // namespace

absl::StatusOr<std::string> HostResolvConf(LoopbackServers loopback) {
  ASSIGN_OR_RETURN(std::string text, ReadIfPresent(kResolvConf));
  if (loopback == LoopbackServers::kKeep) return text;
  rootfs::FilteredResolvConf filtered = rootfs::RemoveLoopbackServers(text);
  if (filtered.servers > 0 || filtered.loopbacks == 0) return filtered.text;
  ASSIGN_OR_RETURN(text, ReadIfPresent(kUplinkResolvConf));
  rootfs::FilteredResolvConf uplink = rootfs::RemoveLoopbackServers(text);
  return uplink.servers > 0 ? uplink.text : filtered.text;
}

}  // namespace caisson
