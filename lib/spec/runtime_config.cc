#include "lib/spec/runtime_config.h"

#include <cstddef>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/json_document.h"
#include "lib/base/status_macros.h"
#include "lib/spec/field_reader.h"
#include "lib/spec/linux_config.h"
#include "lib/spec/words.h"

namespace caisson::spec {
namespace {

constexpr auto kRequired = Presence::kRequired;
constexpr int kMinOomScoreAdj = -1000;
constexpr int kMaxOomScoreAdj = 1000;
constexpr uint32_t kMaxUmask = 0777;
constexpr int kMaxIoPriority = 7;

absl::Status ReadConsoleSize(const JsonObject& json, ConsoleSize& out) {
  FieldReader read(json);
  read.Number("height", out.height, kRequired);
  read.Number("width", out.width, kRequired);
  return read.status();
}

absl::Status ReadUser(const JsonObject& json, User& out) {
  FieldReader read(json);
  read.Number("uid", out.uid, kRequired);
  read.Number("gid", out.gid, kRequired);
  read.Number("umask", out.umask);
  if (out.umask.value_or(0) > kMaxUmask) read.Fail("umask", "above 0777");
  read.Numbers("additionalGids", out.additional_gids);
  return read.status();
}

absl::Status ReadCapabilities(const JsonObject& json, Capabilities& out) {
  FieldReader read(json);
  read.Texts("bounding", out.bounding);
  read.Texts("effective", out.effective);
  read.Texts("permitted", out.permitted);
  read.Texts("inheritable", out.inheritable);
  read.Texts("ambient", out.ambient);
  return read.status();
}

absl::Status ReadRlimit(const JsonObject& json, Rlimit& out) {
  FieldReader read(json);
  read.Text("type", out.type, kRequired);
  read.Number("soft", out.soft, kRequired);
  read.Number("hard", out.hard, kRequired);
  return read.status();
}

absl::Status ReadScheduler(const JsonObject& json, Scheduler& out) {
  FieldReader read(json);
  read.Word("policy", kSchedulerPolicies, out.policy, kRequired);
  read.Number("nice", out.nice);
  read.Number("priority", out.priority);
  read.Words("flags", kSchedulerFlags, out.flags);
  read.Number("runtime", out.runtime);
  read.Number("deadline", out.deadline);
  read.Number("period", out.period);
  return read.status();
}

absl::Status ReadIoPriority(const JsonObject& json, IoPriority& out) {
  FieldReader read(json);
  read.Word("class", kIoClasses, out.io_class, kRequired);
  read.Number("priority", out.priority);
  if (out.priority < 0 || out.priority > kMaxIoPriority) {
    read.Fail("priority",
              absl::StrCat(out.priority, " is not from 0 to ", kMaxIoPriority));
  }
  return read.status();
}

absl::Status ReadAffinity(const JsonObject& json, ExecCpuAffinity& out) {
  FieldReader read(json);
  read.Text("initial", out.initial);
  read.Text("final", out.final);
  return read.status();
}

void CheckEnvironment(const Process& process, FieldReader& read) {
  for (size_t i = 0; i < process.env.size(); ++i) {
    const std::string& variable = process.env[i];
    const size_t equals = variable.find('=');
    if (equals != 0 && equals != std::string::npos) continue;
    read.Fail(
        absl::StrCat("env[", i, "]").c_str(),
        absl::StrCat(Quoted(variable.substr(0, 80)), " is not NAME=value"));
  }
}

void CheckRlimits(const Process& process, FieldReader& read) {
  std::set<absl::string_view> types;
  for (size_t i = 0; i < process.rlimits.size(); ++i) {
    const std::string& type = process.rlimits[i].type;
    if (types.insert(type).second) continue;
    read.Fail(absl::StrCat("rlimits[", i, "].type").c_str(),
              absl::StrCat(Quoted(type), " is there twice"));
  }
}

absl::Status ReadProcess(const JsonObject& json, Process& out) {
  FieldReader read(json);
  read.Bool("terminal", out.terminal);
  read.Object("consoleSize", out.console_size, ReadConsoleSize);
  read.Object("user", out.user, ReadUser);
  read.Texts("args", out.args, kRequired);
  read.Texts("env", out.env);
  CheckEnvironment(out, read);
  read.Path("cwd", out.cwd, kRequired);
  read.Object("capabilities", out.capabilities, ReadCapabilities);
  read.Objects("rlimits", out.rlimits, ReadRlimit);
  CheckRlimits(out, read);
  read.Text("apparmorProfile", out.apparmor_profile);
  read.Text("selinuxLabel", out.selinux_label);
  read.Number("oomScoreAdj", out.oom_score_adj);
  const int score = out.oom_score_adj.value_or(0);
  if (score < kMinOomScoreAdj || score > kMaxOomScoreAdj) {
    read.Fail("oomScoreAdj", absl::StrCat(score, " is not from -1000 to 1000"));
  }
  read.Object("scheduler", out.scheduler, ReadScheduler);
  read.Object("ioPriority", out.io_priority, ReadIoPriority);
  read.Object("execCPUAffinity", out.exec_cpu_affinity, ReadAffinity);
  read.Bool("noNewPrivileges", out.no_new_privileges);
  return read.status();
}

absl::Status ReadRoot(const JsonObject& json, Root& out) {
  FieldReader read(json);
  read.Text("path", out.path, kRequired);
  read.Bool("readonly", out.readonly);
  return read.status();
}

absl::Status ReadMount(const JsonObject& json, Mount& out) {
  FieldReader read(json);
  read.Text("destination", out.destination, kRequired);
  read.Text("type", out.type);
  read.Text("source", out.source);
  read.Texts("options", out.options);
  read.Objects("uidMappings", out.uid_mappings, ReadIdMapping);
  read.Objects("gidMappings", out.gid_mappings, ReadIdMapping);
  return read.status();
}

absl::Status ReadHook(const JsonObject& json, Hook& out) {
  FieldReader read(json);
  read.Path("path", out.path, kRequired);
  read.Texts("args", out.args);
  read.Texts("env", out.env);
  read.Number("timeout", out.timeout);
  if (out.timeout.value_or(1) <= 0) {
    read.Fail("timeout", absl::StrCat(*out.timeout, " is not above 0"));
  }
  return read.status();
}

absl::Status ReadHooks(const JsonObject& json, Hooks& out) {
  FieldReader read(json);
  read.Objects("prestart", out.prestart, ReadHook);
  read.Objects("createRuntime", out.create_runtime, ReadHook);
  read.Objects("createContainer", out.create_container, ReadHook);
  read.Objects("startContainer", out.start_container, ReadHook);
  read.Objects("poststart", out.poststart, ReadHook);
  read.Objects("poststop", out.poststop, ReadHook);
  return read.status();
}

// "1.2.0", "1.0.2-dev", "1.1.0-rc.1+build" (semver.org 2.0.0).
void CheckVersion(const std::string& version, FieldReader& read) {
  if (!read.status().ok()) return;
  const absl::string_view release =
      absl::string_view(version).substr(0, version.find_first_of("-+"));
  const std::vector<absl::string_view> parts = absl::StrSplit(release, '.');
  bool valid = parts.size() == 3;
  uint32_t number = 0;
  for (const absl::string_view part : parts) {
    valid = valid && !part.empty() &&
            absl::ascii_isdigit(static_cast<unsigned char>(part[0])) &&
            absl::SimpleAtoi(part, &number);
  }
  const std::string quoted = Quoted(version.substr(0, 80));
  if (!valid) {
    read.Fail("ociVersion",
              absl::StrCat(quoted, " is not a version (MAJOR.MINOR.PATCH)"));
  } else if (parts[0] != "1") {
    read.Fail("ociVersion",
              absl::StrCat(
                  quoted, " is not a version that is understood: ", kMinVersion,
                  " to ", kMaxVersion, " and whatever else begins with 1."));
  }
}

absl::Status ReadConfig(const JsonObject& json, RuntimeConfig& out) {
  FieldReader read(json);
  read.Text("ociVersion", out.oci_version, kRequired);
  CheckVersion(out.oci_version, read);
  read.Object("process", out.process, ReadProcess);
  read.Object("root", out.root, ReadRoot, kRequired);
  read.Text("hostname", out.hostname);
  read.Text("domainname", out.domainname);
  read.Objects("mounts", out.mounts, ReadMount);
  read.Object("hooks", out.hooks, ReadHooks);
  read.TextMap("annotations", out.annotations);
  read.Object("linux", out.linux_config, ReadLinux);
  return read.status();
}

template <typename T>
absl::StatusOr<T> ParseDocument(absl::string_view text, const char* name,
                                absl::Status (*read)(const JsonObject&, T&)) {
  if (text.size() > kMaxDocumentBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": ", text.size(), " bytes are more than ", kMaxDocumentBytes));
  }
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, name));
  ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Of(json, name));
  T value;
  RETURN_IF_ERROR(read(object, value));
  return value;
}

}  // namespace

absl::StatusOr<RuntimeConfig> ParseRuntimeConfig(absl::string_view text) {
  return ParseDocument<RuntimeConfig>(text, "config.json", ReadConfig);
}

absl::StatusOr<Process> ParseProcess(absl::string_view text) {
  return ParseDocument<Process>(text, "process.json", ReadProcess);
}

absl::StatusOr<Resources> ParseResources(absl::string_view text) {
  return ParseDocument<Resources>(text, "resources.json", ReadResources);
}

}  // namespace caisson::spec
