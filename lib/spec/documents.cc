#include "lib/spec/documents.h"

#include <nlohmann/json.hpp>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/spec/words.h"

namespace caisson::spec {
namespace {

// Fields in the order of the specification.
using Json = nlohmann::ordered_json;

constexpr char kPath[] =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string Print(const Json& json) {
  // Invalid UTF-8 (in a path) becomes U+FFFD: the document stays a document.
  return json.dump(2, ' ', /*ensure_ascii=*/false,
                   Json::error_handler_t::replace) +
         "\n";
}

Json Words(absl::Span<const absl::string_view> words) {
  Json list = Json::array();
  for (const absl::string_view word : words) list.push_back(std::string(word));
  return list;
}

Json Enabled(bool enabled) { return {{"enabled", enabled}}; }

Json Mount(const char* destination, const char* type, const char* source,
           const std::vector<std::string>& options) {
  return {{"destination", destination},
          {"type", type},
          {"source", source},
          {"options", options}};
}

// As runc(8) "spec" has them.
Json DefaultMounts(bool rootless) {
  std::vector<std::string> pts = {"nosuid", "noexec", "newinstance",
                                  "ptmxmode=0666", "mode=0620"};
  if (!rootless) pts.push_back("gid=5");
  return Json::array({
      Mount("/proc", "proc", "proc", {"nosuid", "noexec", "nodev"}),
      Mount("/dev", "tmpfs", "tmpfs",
            {"nosuid", "strictatime", "mode=755", "size=65536k"}),
      Mount("/dev/pts", "devpts", "devpts", pts),
      Mount("/dev/shm", "tmpfs", "shm",
            {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
      Mount("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}),
      Mount("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}),
      Mount("/sys/fs/cgroup", "cgroup", "cgroup",
            {"nosuid", "noexec", "nodev", "relatime", "ro"}),
  });
}

Json DefaultProcess(const Defaults& defaults) {
  const auto& capabilities = defaults.capabilities;
  return {{"terminal", true},
          {"user", {{"uid", 0}, {"gid", 0}}},
          {"args", {"sh"}},
          {"env", {kPath, "TERM=xterm"}},
          {"cwd", "/"},
          {"capabilities",
           {{"bounding", capabilities},
            {"effective", capabilities},
            {"permitted", capabilities}}},
          {"rlimits",
           Json::array(
               {{{"type", "RLIMIT_NOFILE"}, {"hard", 1024}, {"soft", 1024}}})},
          {"noNewPrivileges", true}};
}

Json OneId(uint32_t host) {
  return Json::array({{{"containerID", 0}, {"hostID", host}, {"size", 1}}});
}

Json SeccompArgJson(const SeccompArg& arg) {
  Json json = {{"index", arg.index}, {"value", arg.value}};
  if (arg.value_two != 0) json["valueTwo"] = arg.value_two;
  json["op"] = arg.op;
  return json;
}

Json SeccompJson(const Seccomp& seccomp) {
  Json syscalls = Json::array();
  for (const SeccompSyscall& rule : seccomp.syscalls) {
    Json json = {{"names", rule.names}, {"action", rule.action}};
    if (rule.errno_ret) json["errnoRet"] = *rule.errno_ret;
    for (const SeccompArg& arg : rule.args) {
      json["args"].push_back(SeccompArgJson(arg));
    }
    syscalls.push_back(std::move(json));
  }
  Json json = {{"defaultAction", seccomp.default_action}};
  if (seccomp.default_errno_ret) {
    json["defaultErrnoRet"] = *seccomp.default_errno_ret;
  }
  json["architectures"] = seccomp.architectures;
  json["syscalls"] = std::move(syscalls);
  return json;
}

Json DefaultLinux(const Defaults& defaults) {
  Json linux_config = Json::object();
  Json namespaces = Json::array();
  for (const char* type : {"pid", "network", "ipc", "uts", "mount", "cgroup"}) {
    namespaces.push_back({{"type", type}});
  }
  if (defaults.rootless) {
    namespaces.push_back({{"type", "user"}});
    linux_config["uidMappings"] = OneId(defaults.rootless->uid);
    linux_config["gidMappings"] = OneId(defaults.rootless->gid);
  } else {
    linux_config["resources"]["devices"] =
        Json::array({{{"allow", false}, {"access", "rwm"}}});
  }
  linux_config["namespaces"] = std::move(namespaces);
  if (defaults.seccomp)
    linux_config["seccomp"] = SeccompJson(*defaults.seccomp);
  linux_config["maskedPaths"] = defaults.masked_paths;
  linux_config["readonlyPaths"] = defaults.readonly_paths;
  return linux_config;
}

Json StateOf(const State& state) {
  return {{"ociVersion", kDocumentVersion},
          {"id", state.id},
          {"status", state.status},
          {"pid", state.pid > 0 ? state.pid : 0},
          {"bundle", state.bundle},
          {"annotations", Json(state.annotations)}};
}

}  // namespace

std::string StateJson(const State& state) { return Print(StateOf(state)); }

std::string SeccompProcessJson(pid_t pid, const std::string& metadata,
                               const State& state) {
  Json json = {
      {"ociVersion", kDocumentVersion}, {"fds", {"seccompFd"}}, {"pid", pid}};
  if (!metadata.empty()) json["metadata"] = metadata;
  json["state"] = StateOf(state);
  return Print(json);
}

std::string FeaturesJson(const Features& features) {
  const Json seccomp = {{"enabled", true},
                        {"actions", Words(kSeccompActions)},
                        {"operators", Words(kSeccompOperators)},
                        {"archs", features.seccomp_architectures},
                        {"knownFlags", Words(kSeccompFlags)},
                        {"supportedFlags", Words(kSeccompFlags)}};
  const Json linux_features = {
      {"namespaces", Words(kNamespaceTypes)},
      {"capabilities", features.capabilities},
      {"cgroup",
       {{"v1", true},
        {"v2", true},
        {"systemd", false},
        {"systemdUser", false},
        {"rdma", true}}},
      {"seccomp", seccomp},
      {"apparmor", Enabled(true)},
      {"selinux", Enabled(true)},
      {"memoryPolicy",
       {{"modes", Words(kMemoryPolicyModes)},
        {"flags", Words(kMemoryPolicyFlags)}}},
      {"intelRdt",
       {{"enabled", true}, {"schemata", true}, {"monitoring", true}}},
      {"mountExtensions", {{"idmap", Enabled(true)}}},
      {"netDevices", Enabled(true)}};
  Json json = {{"ociVersionMin", kMinVersion},
               {"ociVersionMax", kMaxVersion},
               {"hooks", Words(kHookPoints)},
               {"mountOptions", features.mount_options},
               {"linux", linux_features}};
  if (!features.annotations.empty()) json["annotations"] = features.annotations;
  return Print(json);
}

std::string DefaultConfigJson(const Defaults& defaults) {
  return Print({{"ociVersion", kDocumentVersion},
                {"process", DefaultProcess(defaults)},
                {"root", {{"path", "rootfs"}, {"readonly", true}}},
                {"hostname", "caisson"},
                {"mounts", DefaultMounts(defaults.rootless.has_value())},
                {"linux", DefaultLinux(defaults)}});
}

}  // namespace caisson::spec
