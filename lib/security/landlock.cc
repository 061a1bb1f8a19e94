#include "lib/security/landlock.h"

#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::security {
namespace {

// linux/landlock.h of Linux 6.12.
constexpr uint64_t kTruncate = uint64_t{1} << 14;  // 3
constexpr uint64_t kIoctlDev = uint64_t{1} << 15;  // 5
constexpr uint64_t kBindTcp = uint64_t{1} << 0;    // 4
constexpr uint64_t kConnectTcp = uint64_t{1} << 1;
constexpr uint64_t kScopeAbstractSockets = uint64_t{1} << 0;  // 6
constexpr uint64_t kScopeSignals = uint64_t{1} << 1;

constexpr int kAbiOfRefer = 2;
constexpr int kAbiOfTruncate = 3;
constexpr int kAbiOfTcp = 4;
constexpr int kAbiOfIoctlDev = 5;
constexpr int kAbiOfScopes = 6;

constexpr uint64_t kRead =
    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
// Device nodes are missing: a container makes none.
constexpr uint64_t kWrite =
    kRead | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
    LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |
    LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM |
    LANDLOCK_ACCESS_FS_REFER | kTruncate | kIoctlDev;
constexpr uint64_t kOfFiles =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
    LANDLOCK_ACCESS_FS_READ_FILE | kTruncate | kIoctlDev;
constexpr uint64_t kAll = kWrite | LANDLOCK_ACCESS_FS_EXECUTE |
                          LANDLOCK_ACCESS_FS_MAKE_CHAR |
                          LANDLOCK_ACCESS_FS_MAKE_BLOCK;

uint64_t RightsOf(PathAccess access) {
  switch (access) {
    case PathAccess::kRead:
      return kRead;
    case PathAccess::kReadExecute:
      return kRead | LANDLOCK_ACCESS_FS_EXECUTE;
    case PathAccess::kWrite:
      return kWrite;
    case PathAccess::kWriteExecute:
      return kWrite | LANDLOCK_ACCESS_FS_EXECUTE;
  }
  return 0;
}

uint64_t KnownRights(int abi) {
  uint64_t known = abi > 0 ? kAll : 0;
  if (abi < kAbiOfRefer) known &= ~uint64_t{LANDLOCK_ACCESS_FS_REFER};
  if (abi < kAbiOfTruncate) known &= ~kTruncate;
  if (abi < kAbiOfIoctlDev) known &= ~kIoctlDev;
  return known;
}

std::vector<PathRule> AllPaths(const SecurityOptions& options) {
  std::vector<PathRule> rules = options.path_rules;
  for (const std::string& path : options.read_only_paths) {
    rules.push_back({.path = path, .access = PathAccess::kReadExecute});
  }
  for (const std::string& path : options.writable_paths) {
    rules.push_back({.path = path, .access = PathAccess::kWriteExecute});
  }
  return rules;
}

absl::Status AddPaths(const SecurityOptions& options, int abi, Landlock& out) {
  const std::vector<PathRule> rules = AllPaths(options);
  if (rules.empty()) return absl::OkStatus();
  for (const PathRule& rule : rules) {
    if (!absl::StartsWith(rule.path, "/") ||
        rule.path.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("SecurityOptions: the path ", Quoted(rule.path),
                       " of a Landlock rule is not absolute"));
    }
  }
  if (abi < 1) {
    out.missing.emplace_back("rules for paths (Linux 5.13)");
    return absl::OkStatus();
  }
  if (abi < kAbiOfTruncate) {
    out.missing.emplace_back("protection from truncate(2) (Linux 6.2)");
  }
  const uint64_t known = KnownRights(abi);
  out.attr.handled_access_fs = known;
  for (const PathRule& rule : rules) {
    const uint64_t rights = RightsOf(rule.access) & known;
    out.paths.push_back({.path = rule.path,
                         .directory_access = rights,
                         .file_access = rights & kOfFiles,
                         .if_exists = rule.if_exists});
  }
  return absl::OkStatus();
}

void AddPorts(const std::optional<std::vector<uint16_t>>& ports, uint64_t right,
              absl::string_view what, int abi, Landlock& out) {
  if (!ports.has_value()) return;
  if (abi < kAbiOfTcp) {
    out.missing.push_back(absl::StrCat("rules for ", what, " (Linux 6.7)"));
    return;
  }
  out.attr.handled_access_net |= right;
  for (const uint16_t port : *ports) {
    out.ports.push_back({.allowed_access = right, .port = port});
  }
}

void AddScope(bool wanted, uint64_t scope, absl::string_view what, int abi,
              Landlock& out) {
  if (!wanted) return;
  if (abi < kAbiOfScopes) {
    out.missing.push_back(absl::StrCat("scopes of ", what, " (Linux 6.12)"));
    return;
  }
  out.attr.scoped |= scope;
}

}  // namespace

int LandlockAbi() {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0,
                             LANDLOCK_CREATE_RULESET_VERSION);
  return abi < 0 ? 0 : static_cast<int>(abi);
}

absl::StatusOr<Landlock> MakeLandlock(const SecurityOptions& options, int abi) {
  Landlock landlock;
  RETURN_IF_ERROR(AddPaths(options, abi, landlock));
  AddPorts(options.tcp_bind_ports, kBindTcp, "bound TCP ports", abi, landlock);
  AddPorts(options.tcp_connect_ports, kConnectTcp, "connected TCP ports", abi,
           landlock);
  AddScope(options.scope_abstract_sockets, kScopeAbstractSockets,
           "abstract sockets", abi, landlock);
  AddScope(options.scope_signals, kScopeSignals, "signals", abi, landlock);
  if (!landlock.missing.empty() &&
      !options.unsafe_landlock_best_effort.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this kernel's Landlock (version ", abi, ", 0: none) lacks ",
        absl::StrJoin(landlock.missing, ", "),
        "; SecurityOptions.unsafe_landlock_best_effort goes on without"));
  }
  return landlock;
}

}  // namespace caisson::security
