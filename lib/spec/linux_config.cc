#include "lib/spec/linux_config.h"

#include <cstddef>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/spec/field_reader.h"
#include "lib/spec/words.h"

namespace caisson::spec {
namespace {

constexpr auto kRequired = Presence::kRequired;
constexpr absl::string_view kDeviceTypes[] = {"b", "c", "p", "u"};
constexpr uint32_t kMaxSeccompArgument = 5;
constexpr uint32_t kNanosecondsPerSecond = 1'000'000'000;

absl::Status ReadNamespace(const JsonObject& json, NamespaceEntry& out) {
  FieldReader read(json);
  read.Word("type", kNamespaceTypes, out.type, kRequired);
  read.Path("path", out.path);
  return read.status();
}

void CheckNamespaces(const Linux& linux_config, FieldReader& read) {
  std::set<absl::string_view> types;
  for (size_t i = 0; i < linux_config.namespaces.size(); ++i) {
    const std::string& type = linux_config.namespaces[i].type;
    if (types.insert(type).second) continue;
    read.Fail(absl::StrCat("namespaces[", i, "].type").c_str(),
              absl::StrCat(Quoted(type), " is there twice"));
  }
}

absl::Status ReadTimeOffset(const JsonObject& json, TimeOffset& out) {
  FieldReader read(json);
  read.Number("secs", out.secs);
  read.Number("nanosecs", out.nanosecs);
  if (out.nanosecs >= kNanosecondsPerSecond) {
    read.Fail("nanosecs", absl::StrCat(out.nanosecs, " is a second or more"));
  }
  return read.status();
}

void CheckClocks(const Linux& linux_config, FieldReader& read) {
  for (const auto& [clock, offset] : linux_config.time_offsets) {
    if (clock == "monotonic" || clock == "boottime") continue;
    read.Fail("timeOffsets",
              absl::StrCat("the clock ", Quoted(clock.substr(0, 80)),
                           " is neither monotonic nor boottime"));
  }
}

absl::Status ReadDevice(const JsonObject& json, Device& out) {
  FieldReader read(json);
  read.Path("path", out.path, kRequired);
  read.Word("type", kDeviceTypes, out.type, kRequired);
  const auto needed = out.type == "p" ? Presence::kOptional : kRequired;
  read.Number("major", out.major, needed);
  read.Number("minor", out.minor, needed);
  read.Number("fileMode", out.file_mode);
  read.Number("uid", out.uid);
  read.Number("gid", out.gid);
  return read.status();
}

absl::Status ReadNetDevice(const JsonObject& json, NetDevice& out) {
  FieldReader read(json);
  read.Text("name", out.name);
  return read.status();
}

absl::Status ReadIntelRdt(const JsonObject& json, IntelRdt& out) {
  FieldReader read(json);
  read.Text("closID", out.clos_id);
  read.Texts("schemata", out.schemata);
  read.Text("l3CacheSchema", out.l3_cache_schema);
  read.Text("memBwSchema", out.mem_bw_schema);
  read.Bool("enableMonitoring", out.enable_monitoring);
  // Until 1.2, for the cache and for the bandwidth.
  bool cache = false;
  bool bandwidth = false;
  read.Bool("enableCMT", cache);
  read.Bool("enableMBM", bandwidth);
  out.enable_monitoring = out.enable_monitoring || cache || bandwidth;
  return read.status();
}

absl::Status ReadMemoryPolicy(const JsonObject& json, MemoryPolicy& out) {
  FieldReader read(json);
  read.Word("mode", kMemoryPolicyModes, out.mode, kRequired);
  read.Text("nodes", out.nodes);
  read.Words("flags", kMemoryPolicyFlags, out.flags);
  return read.status();
}

absl::Status ReadPersonality(const JsonObject& json, Personality& out) {
  FieldReader read(json);
  read.Word("domain", kPersonalityDomains, out.domain, kRequired);
  read.Texts("flags", out.flags);
  if (!out.flags.empty()) {
    read.Fail("flags", "the specification has no flags yet");
  }
  return read.status();
}

absl::Status ReadSeccompArg(const JsonObject& json, SeccompArg& out) {
  FieldReader read(json);
  read.Number("index", out.index, kRequired);
  if (out.index > kMaxSeccompArgument) {
    read.Fail("index", absl::StrCat(out.index, " is not from 0 to 5"));
  }
  read.Number("value", out.value, kRequired);
  read.Number("valueTwo", out.value_two);
  read.Word("op", kSeccompOperators, out.op, kRequired);
  return read.status();
}

absl::Status ReadSeccompSyscall(const JsonObject& json, SeccompSyscall& out) {
  FieldReader read(json);
  read.Texts("names", out.names, kRequired);
  read.Word("action", kSeccompActions, out.action, kRequired);
  read.Number("errnoRet", out.errno_ret);
  read.Objects("args", out.args, ReadSeccompArg);
  return read.status();
}

}  // namespace

absl::Status ReadIdMapping(const JsonObject& json, IdMapping& out) {
  FieldReader read(json);
  read.Number("containerID", out.container_id, kRequired);
  read.Number("hostID", out.host_id, kRequired);
  read.Number("size", out.size, kRequired);
  return read.status();
}

absl::Status ReadSeccomp(const JsonObject& json, Seccomp& out) {
  FieldReader read(json);
  read.Word("defaultAction", kSeccompActions, out.default_action, kRequired);
  read.Number("defaultErrnoRet", out.default_errno_ret);
  read.Words("architectures", kSeccompArchitectures, out.architectures);
  read.Words("flags", kSeccompFlags, out.flags);
  read.Text("listenerPath", out.listener_path);
  read.Text("listenerMetadata", out.listener_metadata);
  if (!out.listener_metadata.empty() && out.listener_path.empty()) {
    read.Fail("listenerMetadata", "is there without listenerPath");
  }
  read.Objects("syscalls", out.syscalls, ReadSeccompSyscall);
  return read.status();
}

absl::Status ReadLinux(const JsonObject& json, Linux& out) {
  FieldReader read(json);
  read.Objects("namespaces", out.namespaces, ReadNamespace);
  CheckNamespaces(out, read);
  read.Objects("uidMappings", out.uid_mappings, ReadIdMapping);
  read.Objects("gidMappings", out.gid_mappings, ReadIdMapping);
  read.ObjectMap("timeOffsets", out.time_offsets, ReadTimeOffset);
  CheckClocks(out, read);
  read.Objects("devices", out.devices, ReadDevice);
  read.ObjectMap("netDevices", out.net_devices, ReadNetDevice);
  read.Text("cgroupsPath", out.cgroups_path);
  read.Object("resources", out.resources, ReadResources);
  read.Object("intelRdt", out.intel_rdt, ReadIntelRdt);
  read.Object("memoryPolicy", out.memory_policy, ReadMemoryPolicy);
  read.TextMap("sysctl", out.sysctl);
  read.Object("seccomp", out.seccomp, ReadSeccomp);
  read.Word("rootfsPropagation", kPropagations, out.rootfs_propagation);
  read.Texts("maskedPaths", out.masked_paths);
  read.Texts("readonlyPaths", out.readonly_paths);
  read.Text("mountLabel", out.mount_label);
  read.Object("personality", out.personality, ReadPersonality);
  return read.status();
}

}  // namespace caisson::spec
