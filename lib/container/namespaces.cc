#include "lib/container/namespaces.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/container/refusal.h"

namespace caisson::container {
namespace {

const spec::NamespaceEntry* Find(const spec::RuntimeConfig& config,
                                 absl::string_view type) {
  for (const spec::NamespaceEntry& entry : config.linux_config.namespaces) {
    if (entry.type == type) return &entry;
  }
  return nullptr;
}

std::string FieldOf(absl::string_view type) {
  return absl::StrCat("config.json: linux.namespaces (", type, ")");
}

// What is not listed is that of the runtime (config-linux.md, "Namespaces").
absl::StatusOr<NamespaceSource> SourceOf(const spec::RuntimeConfig& config,
                                         absl::string_view type,
                                         NamespaceKind kind) {
  const spec::NamespaceEntry* entry = Find(config, type);
  if (entry == nullptr) return NamespaceSource::ShareWithHost();
  if (entry->path.empty()) return NamespaceSource::New();
  auto ns = OpenNamespace(entry->path, kind);
  if (!ns.ok()) return Annotate(ns.status(), FieldOf(type));
  return NamespaceSource::Join(*std::move(ns));
}

std::vector<IdRange> RangesOf(const std::vector<spec::IdMapping>& mappings,
                              const std::vector<IdRange>& launcher) {
  std::vector<IdRange> ranges;
  for (const spec::IdMapping& mapping : mappings) {
    IdRange range = {mapping.container_id, mapping.host_id, mapping.size};
    // A launcher without privileges has a user namespace of its own, whose ids
    // count below it.
    for (const IdRange& own : launcher) {
      if (mapping.host_id < own.outside ||
          mapping.host_id - own.outside >= own.count) {
        continue;
      }
      range.outside = own.inside + (mapping.host_id - own.outside);
      break;
    }
    ranges.push_back(range);
  }
  return ranges;
}

absl::Status TranslateUser(const spec::RuntimeConfig& config,
                           Launcher& launcher, TranslatedNamespaces& out) {
  const spec::NamespaceEntry* entry = Find(config, "user");
  if (entry == nullptr) return absl::OkStatus();
  const spec::Linux& linux_config = config.linux_config;
  out.ids.users =
      RangesOf(linux_config.uid_mappings, launcher.identity().users);
  out.ids.groups =
      RangesOf(linux_config.gid_mappings, launcher.identity().groups);
  if (!entry->path.empty()) {
    auto user = OpenNamespace(entry->path, NamespaceKind::kUser);
    if (!user.ok()) return Annotate(user.status(), FieldOf("user"));
    out.options.user = *std::move(user);
    return absl::OkStatus();
  }
  auto user = launcher.NewUserNamespace(out.ids);
  if (!user.ok()) {
    return Annotate(user.status(), "config.json: linux.uidMappings");
  }
  out.options.user = *std::move(user);
  return absl::OkStatus();
}

absl::Duration OffsetOf(const spec::Linux& linux_config, const char* clock) {
  const auto found = linux_config.time_offsets.find(clock);
  if (found == linux_config.time_offsets.end()) return absl::ZeroDuration();
  return absl::Seconds(found->second.secs) +
         absl::Nanoseconds(found->second.nanosecs);
}

}  // namespace

absl::Status CheckNamespaces(const spec::RuntimeConfig& config) {
  const spec::NamespaceEntry* mount = Find(config, "mount");
  if (mount == nullptr || !mount->path.empty()) {
    return Unimplemented(
        "linux.namespaces: a container needs a new mount "
        "namespace");
  }
  const spec::Linux& linux_config = config.linux_config;
  const bool mapped =
      !linux_config.uid_mappings.empty() && !linux_config.gid_mappings.empty();
  const bool partly =
      !linux_config.uid_mappings.empty() || !linux_config.gid_mappings.empty();
  const spec::NamespaceEntry* user = Find(config, "user");
  if (user == nullptr) {
    if (!partly) return absl::OkStatus();
    return Invalid(
        "linux.uidMappings: there is no user namespace for it in "
        "linux.namespaces");
  }
  if (mapped) return absl::OkStatus();
  if (!user->path.empty() && !partly) {
    return Unimplemented(
        "linux.uidMappings: missing: who root of the user namespace that is "
        "joined is on the host must be known");
  }
  return Invalid(
      "linux.uidMappings and gidMappings: a user namespace needs "
      "both");
}

absl::StatusOr<TranslatedNamespaces> TranslateNamespaces(
    const spec::RuntimeConfig& config, Launcher& launcher) {
  RETURN_IF_ERROR(CheckNamespaces(config));
  TranslatedNamespaces out;
  NamespaceOptions& options = out.options;
  RETURN_IF_ERROR(TranslateUser(config, launcher, out));
  if (Find(config, "pid") != nullptr) {
    ASSIGN_OR_RETURN(options.pid, SourceOf(config, "pid", NamespaceKind::kPid));
  } else {
    // The runtime's own, in which a launcher that releases is.
    ASSIGN_OR_RETURN(UniqueFd own,
                     OpenNamespace("/proc/self/ns/pid", NamespaceKind::kPid));
    options.pid = NamespaceSource::Join(std::move(own));
  }
  // The document says so.
  if (options.pid.is_joined()) options.unsafe_joined_pid.emplace();
  ASSIGN_OR_RETURN(options.ipc, SourceOf(config, "ipc", NamespaceKind::kIpc));
  ASSIGN_OR_RETURN(options.uts, SourceOf(config, "uts", NamespaceKind::kUts));
  ASSIGN_OR_RETURN(options.cgroup,
                   SourceOf(config, "cgroup", NamespaceKind::kCgroup));
  ASSIGN_OR_RETURN(options.net,
                   SourceOf(config, "network", NamespaceKind::kNet));
  ASSIGN_OR_RETURN(options.time,
                   SourceOf(config, "time", NamespaceKind::kTime));
  options.hostname = config.hostname;
  options.domainname = config.domainname;
  options.monotonic_offset = OffsetOf(config.linux_config, "monotonic");
  options.boottime_offset = OffsetOf(config.linux_config, "boottime");
  for (const auto& [name, value] : config.linux_config.sysctl) {
    options.sysctls.push_back({name, value});
  }
  return out;
}

}  // namespace caisson::container
