#include "caisson/bundle.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "caisson/launcher.h"
#include "caisson/namespace.h"
#include "caisson/root_fs.h"
#include "caisson/security.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/container/mounts.h"
#include "lib/container/namespaces.h"
#include "lib/container/net_devices.h"
#include "lib/container/process.h"
#include "lib/container/refusal.h"
#include "lib/container/resources.h"
#include "lib/spec/runtime_config.h"
#include "lib/sys/open.h"

namespace caisson {

using container::Invalid;
using container::ProcessKind;
using container::Unimplemented;

struct BundleParts::State {
  std::optional<Namespace> namespaces;
  std::optional<RootFs> root;
  std::optional<SecurityPolicy> security;
  std::vector<std::string> warnings;
  ProcessSpec spec;
};

struct Bundle::State {
  std::string directory;
  std::string text;
  spec::RuntimeConfig config;
};

namespace {

constexpr char kConfig[] = "config.json";
constexpr char kResources[] = "linux.resources";

// Fields that caisson has nothing for, whatever they say.
absl::Status CheckHonoured(const spec::RuntimeConfig& config,
                           const BundleOptions& options) {
  if (config.linux_config.intel_rdt && !options.handles_intel_rdt) {
    return Unimplemented("linux.intelRdt: is for OciRuntime to honour");
  }
  return container::CheckNetDevices(config);
}

container::FieldNames NamespaceFields() {
  return {{"NamespaceOptions.sysctls", "linux.sysctl"},
          {"NamespaceOptions.hostname", "hostname"},
          {"NamespaceOptions.domainname", "domainname"},
          {"NamespaceOptions.ipc", "linux.namespaces (ipc)"},
          {"NamespaceOptions.boottime_offset", "linux.timeOffsets"}};
}

std::vector<Hook> ProgramHooks(Launcher& launcher,
                               const std::vector<spec::Hook>& hooks,
                               Hook (*run)(Launcher& launcher,
                                           HookProgram program)) {
  std::vector<Hook> out;
  for (const spec::Hook& hook : hooks) {
    HookProgram program;
    program.path = hook.path;
    program.args = hook.args;
    program.env = hook.env;
    if (hook.timeout) program.timeout = absl::Seconds(*hook.timeout);
    out.push_back(run(launcher, std::move(program)));
  }
  return out;
}

void AddHooks(const spec::RuntimeConfig& config, const std::string& bundle,
              const BundleOptions& options, Hooks& out) {
  Launcher& launcher = *options.launcher;
  const spec::Hooks& hooks = config.hooks;
  out.id = options.id;
  out.bundle = bundle;
  out.annotations = config.annotations;
  out.prestart = ProgramHooks(launcher, hooks.prestart, RunProgram);
  out.create_runtime = ProgramHooks(launcher, hooks.create_runtime, RunProgram);
  out.create_container =
      ProgramHooks(launcher, hooks.create_container, RunProgramInside);
  out.start_container =
      ProgramHooks(launcher, hooks.start_container, RunProgramInside);
  out.poststart = ProgramHooks(launcher, hooks.poststart, RunProgram);
  out.poststop = ProgramHooks(launcher, hooks.poststop, RunProgram);
}

absl::StatusOr<SecurityPolicy> MakePolicy(const spec::RuntimeConfig& config,
                                          const spec::Process& process,
                                          const BundleOptions& options,
                                          std::vector<std::string>& warnings) {
  SecurityOptions security;
  container::TranslateRights(process, security, warnings);
  if (config.linux_config.seccomp) {
    ASSIGN_OR_RETURN(security.unsafe_seccomp_profile,
                     container::TranslateSeccomp(*config.linux_config.seccomp));
  } else {
    security.unsafe_seccomp = SeccompUnconfined{};
  }
  if (!options.new_session_keyring) {
    security.unsafe_session_keyring = HostSessionKeyring{};
  }
  auto policy = SecurityPolicy::Create(security);
  if (!policy.ok()) return Annotate(policy.status(), kConfig);
  for (const std::string& missing : policy->missing_capabilities()) {
    warnings.push_back(
        absl::StrCat("process.capabilities: ", missing, " cannot be granted"));
  }
  return policy;
}

absl::Status CheckOptions(const BundleOptions& options) {
  if (options.launcher != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError("BundleOptions.launcher is null");
}

absl::Status AddRoot(const spec::RuntimeConfig& config,
                     const container::MountScene& scene,
                     std::optional<RootFs>& out) {
  ASSIGN_OR_RETURN(const container::TranslatedRoot root,
                   container::TranslateRoot(config, scene));
  auto built = RootFs::Create(root.options);
  if (!built.ok()) return container::InTermsOf(root.names, built.status());
  out.emplace(*std::move(built));
  return absl::OkStatus();
}

// "system-web.slice" is "/system.slice/system-web.slice" (systemd.slice(5)).
std::string SlicePath(absl::string_view slice) {
  if (slice.empty() || slice == "-.slice") return "";
  std::string path;
  std::string prefix;
  const absl::string_view name = slice.substr(0, slice.size() - 6);
  for (const absl::string_view part : absl::StrSplit(name, '-')) {
    absl::StrAppend(&prefix, prefix.empty() ? "" : "-", part);
    absl::StrAppend(&path, "/", prefix, ".slice");
  }
  return path;
}

}  // namespace

// ---- BundleParts -----------------------------------------------------------

BundleParts::BundleParts(std::unique_ptr<State> state)
    : state_(std::move(state)) {}
BundleParts::BundleParts(BundleParts&&) noexcept = default;
BundleParts& BundleParts::operator=(BundleParts&&) noexcept = default;
BundleParts::~BundleParts() = default;

ProcessSpec& BundleParts::spec() { return state_->spec; }

const std::vector<std::string>& BundleParts::warnings() const {
  return state_->warnings;
}

// ---- Bundle ----------------------------------------------------------------

Bundle::Bundle(std::shared_ptr<const State> state) : state_(std::move(state)) {}

namespace {

// As it was called; but ".." behind a link leads where the kernel knows best.
absl::StatusOr<std::string> AbsolutePath(const std::string& directory,
                                         BorrowedFd opened) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(directory, error);
  if (!error && std::count(path.begin(), path.end(), "..") > 0) {
    path = std::filesystem::read_symlink(
        absl::StrCat("/proc/self/fd/", opened.get()), error);
  }
  if (error) {
    return ErrnoError(error.value(),
                      absl::StrCat("open(", Quoted(directory), ")"),
                      {.path = directory});
  }
  std::string absolute = path.lexically_normal().string();
  if (absolute.size() > 1) {
    absolute = std::string(absl::StripSuffix(absolute, "/"));
  }
  return absolute;
}

}  // namespace

absl::StatusOr<Bundle> Bundle::Load(const std::string& directory) {
  ASSIGN_OR_RETURN(const UniqueFd dir,
                   sys::Open(directory, O_PATH | O_DIRECTORY));
  ASSIGN_OR_RETURN(
      const UniqueFd file,
      sys::OpenAt2(dir.borrow(), kConfig, O_RDONLY | O_NONBLOCK | O_NOCTTY,
                   sys::kBeneath));
  ASSIGN_OR_RETURN(
      const std::string text,
      sys::ReadAll(file.borrow(), spec::kMaxDocumentBytes, kConfig));
  ASSIGN_OR_RETURN(const std::string absolute,
                   AbsolutePath(directory, dir.borrow()));
  return Parse(absolute, text);
}

absl::StatusOr<Bundle> Bundle::Parse(const std::string& directory,
                                     absl::string_view config) {
  if (!absl::StartsWith(directory, "/")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "bundle directory ", Quoted(directory), " is not an absolute path"));
  }
  auto state = std::make_shared<State>();
  state->directory = directory;
  state->text = std::string(config);
  ASSIGN_OR_RETURN(state->config, spec::ParseRuntimeConfig(config));
  return Bundle(std::move(state));
}

const std::string& Bundle::directory() const { return state_->directory; }
const std::string& Bundle::text() const { return state_->text; }
const spec::RuntimeConfig& Bundle::config() const { return state_->config; }
const std::map<std::string, std::string>& Bundle::annotations() const {
  return state_->config.annotations;
}

absl::StatusOr<std::string> Bundle::CgroupsPath() const {
  constexpr absl::string_view kField = "linux.cgroupsPath: ";
  const std::string& path = state_->config.linux_config.cgroups_path;
  if (path.empty()) return std::string();
  const std::vector<absl::string_view> parts = absl::StrSplit(path, ':');
  std::string out = absl::StrCat("/", path);
  if (parts.size() == 3 && !absl::StrContains(path, '/')) {
    if (!parts[0].empty() && !absl::EndsWith(parts[0], ".slice")) {
      return Invalid(kField, Quoted(path), " does not begin with a slice");
    }
    out = absl::StrCat(SlicePath(parts[0]), "/", parts[1],
                       parts[1].empty() ? "" : "-", parts[2], ".scope");
  }
  std::string clean;
  for (const absl::string_view part :
       absl::StrSplit(out, '/', absl::SkipEmpty())) {
    if (part == "..") return Invalid(kField, Quoted(path), " leads upwards");
    if (part != ".") absl::StrAppend(&clean, "/", part);
  }
  if (clean.empty()) return Invalid(kField, Quoted(path), " is the root group");
  return clean;
}

absl::StatusOr<CgroupLimits> Bundle::Limits() const {
  const spec::RuntimeConfig& config = state_->config;
  const spec::Resources resources =
      config.linux_config.resources.value_or(spec::Resources());
  ASSIGN_OR_RETURN(CgroupLimits limits,
                   container::TranslateResources(
                       kResources, resources,
                       container::ZeroPidsAreUnlimited(config.oci_version)));
  ASSIGN_OR_RETURN(limits.devices, container::TranslateDeviceRules(
                                       absl::StrCat(kResources, ".devices"),
                                       resources.devices));
  return limits;
}

absl::StatusOr<CgroupLimits> Bundle::LimitsOfUpdate(
    absl::string_view text) const {
  ASSIGN_OR_RETURN(const spec::Resources resources, spec::ParseResources(text));
  ASSIGN_OR_RETURN(
      CgroupLimits limits,
      container::TranslateResources(
          "resources", resources,
          container::ZeroPidsAreUnlimited(state_->config.oci_version)));
  if (!resources.devices.empty()) {
    ASSIGN_OR_RETURN(limits.devices,
                     container::TranslateDeviceRules("resources.devices",
                                                     resources.devices));
  }
  return limits;
}

std::optional<SeccompAgent> Bundle::seccomp_agent() const {
  const auto& seccomp = state_->config.linux_config.seccomp;
  if (!seccomp || seccomp->listener_path.empty()) return std::nullopt;
  return SeccompAgent{seccomp->listener_path, seccomp->listener_metadata};
}

absl::StatusOr<BundleParts> Bundle::Compose(
    const BundleOptions& options) const {
  RETURN_IF_ERROR(CheckOptions(options));
  const spec::RuntimeConfig& config = state_->config;
  if (!config.process) return Invalid("process: missing");
  RETURN_IF_ERROR(CheckHonoured(config, options));
  RETURN_IF_ERROR(container::CheckNamespaces(config));
  RETURN_IF_ERROR(container::CheckRoot(config));
  auto parts = std::make_unique<BundleParts::State>();
  ProcessSpec& spec = parts->spec;
  RETURN_IF_ERROR(container::TranslateProcess(*config.process,
                                              ProcessKind::kContainer, spec));
  const spec::Linux& linux_config = config.linux_config;
  if (linux_config.memory_policy) {
    RETURN_IF_ERROR(container::TranslateMemoryPolicy(
        *linux_config.memory_policy, spec.scheduling));
  }
  if (linux_config.personality) {
    spec.personality = linux_config.personality->domain == "LINUX32" ? 8 : 0;
  }
  ASSIGN_OR_RETURN(parts->security, MakePolicy(config, *config.process, options,
                                               parts->warnings));
  ASSIGN_OR_RETURN(container::TranslatedNamespaces namespaces,
                   container::TranslateNamespaces(config, *options.launcher));
  RETURN_IF_ERROR(AddRoot(config,
                          {.bundle = state_->directory,
                           .launcher = *options.launcher,
                           .ids = namespaces.ids,
                           .user_namespace = namespaces.options.user.borrow()},
                          parts->root));
  auto made = Namespace::Create(std::move(namespaces.options));
  if (!made.ok()) {
    return container::InTermsOf(NamespaceFields(), made.status());
  }
  parts->namespaces.emplace(*std::move(made));
  AddHooks(config, state_->directory, options, spec.hooks);
  if (!linux_config.net_devices.empty()) {
    spec.hooks.prestart.insert(
        spec.hooks.prestart.begin(),
        container::MoveNetDevices(*options.launcher, linux_config.net_devices));
  }
  spec.root = &*parts->root;
  spec.namespaces = &*parts->namespaces;
  spec.security = &*parts->security;
  spec.cgroup = options.cgroup;
  return BundleParts(std::move(parts));
}

absl::StatusOr<BundleParts> Bundle::ComposeExec(
    absl::string_view process, const BundleOptions& options) const {
  spec::Process parsed;
  if (!process.empty()) {
    ASSIGN_OR_RETURN(parsed, spec::ParseProcess(process));
  } else if (state_->config.process) {
    parsed = *state_->config.process;
  } else {
    return Invalid("process: the document has none");
  }
  auto parts = std::make_unique<BundleParts::State>();
  RETURN_IF_ERROR(
      container::TranslateProcess(parsed, ProcessKind::kExec, parts->spec));
  ASSIGN_OR_RETURN(parts->security, MakePolicy(state_->config, parsed, options,
                                               parts->warnings));
  parts->spec.security = &*parts->security;
  parts->spec.cgroup = options.cgroup;
  return BundleParts(std::move(parts));
}

Hooks Bundle::MakeHooks(const BundleOptions& options) const {
  Hooks hooks;
  AddHooks(state_->config, state_->directory, options, hooks);
  return hooks;
}

}  // namespace caisson
