#include "lib/keeper/creation.h"

#include <signal.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "caisson/notation.h"
#include "caisson/volume.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/limits.h"
#include "lib/cgroup/place.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/health.h"
#include "lib/keeper/spec_record.h"

namespace caisson::keeper {
namespace {

absl::Status Invalid(absl::string_view field, absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", text));
}

template <typename Parse>
absl::Status CheckAll(const std::vector<std::string>& texts, const char* field,
                      Parse parse) {
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto parsed = parse(texts[i]);
    if (!parsed.ok()) {
      return Annotate(parsed.status(), absl::StrCat(field, "[", i, "]"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSource(const ContainerSpec& spec) {
  const int sources = (spec.image.empty() ? 0 : 1) +
                      (spec.rootfs.empty() ? 0 : 1) +
                      (spec.bundle.empty() ? 0 : 1);
  if (sources != 1) {
    return absl::InvalidArgumentError(
        "one of image, rootfs and bundle says what the container is made from");
  }
  if (!spec.rootfs.empty() && !absl::StartsWith(spec.rootfs, "/")) {
    return Invalid("rootfs", "not an absolute path");
  }
  if (!spec.bundle.empty() && !absl::StartsWith(spec.bundle, "/")) {
    return Invalid("bundle", "not an absolute path");
  }
  if (!spec.rootfs.empty() && spec.command.empty() && !spec.entrypoint) {
    return Invalid("command", "nothing to execute, and there is no image");
  }
  return absl::OkStatus();
}

// What a bundle's config.json says cannot be said here, too.
absl::Status CheckBundle(const ContainerSpec& s) {
  if (s.bundle.empty()) return absl::OkStatus();
  const ContainerSpec unset;
  const std::pair<const char*, bool> fields[] = {
      {"entrypoint", s.entrypoint.has_value()},
      {"command", !s.command.empty()},
      {"env", !s.env.empty()},
      {"working_dir", !s.working_dir.empty()},
      {"user", !s.user.empty()},
      {"additional_groups", !s.additional_groups.empty()},
      {"ulimits", !s.ulimits.empty()},
      {"oom_score_adj", s.oom_score_adj.has_value()},
      {"init", s.init},
      {"terminal", s.terminal},
      {"terminal_size",
       s.terminal_size.rows != unset.terminal_size.rows ||
           s.terminal_size.columns != unset.terminal_size.columns},
      {"read_only", s.read_only},
      {"volumes", !s.volumes.empty()},
      {"tmpfs", !s.tmpfs.empty()},
      {"devices", !s.devices.empty()},
      {"shm_size_bytes", s.shm_size_bytes != unset.shm_size_bytes},
      {"hostname", !s.hostname.empty()},
      {"domainname", !s.domainname.empty()},
      {"network", s.network != unset.network},
      {"aliases", !s.aliases.empty()},
      {"address", !s.address.empty()},
      {"mac", !s.mac.empty()},
      {"ports", !s.ports.empty()},
      {"extra_hosts", !s.extra_hosts.empty()},
      {"resolv_conf", s.resolv_conf.has_value()},
      {"sysctls", !s.sysctls.empty()},
      {"ids", s.ids.has_value()},
      {"drop_capabilities", !s.drop_capabilities.empty()},
      {"apparmor_profile", !s.apparmor_profile.empty()},
      {"selinux_label", !s.selinux_label.empty()},
      {"unsafe_add_capabilities", !s.unsafe_add_capabilities.empty()},
      {"unsafe_new_privileges", s.unsafe_new_privileges},
      {"unsafe_seccomp_unconfined", s.unsafe_seccomp_unconfined},
  };
  for (const auto& [field, is_set] : fields) {
    if (is_set) return Invalid(field, "a bundle's config.json says this");
  }
  return absl::OkStatus();
}

absl::Status CheckEnvironment(const std::vector<std::string>& env) {
  for (size_t i = 0; i < env.size(); ++i) {
    const size_t equals = env[i].find('=');
    if (equals == std::string::npos || equals == 0) {
      return Invalid(absl::StrCat("env[", i, "]"),
                     absl::StrCat(Quoted(env[i]), ", expected NAME=value"));
    }
  }
  return absl::OkStatus();
}

// Keys are those of a map, which only takes UTF-8.
bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isprint(c); });
}

absl::Status CheckNetwork(const ContainerSpec& spec) {
  const bool bridge = spec.network != "none" && spec.network != "host" &&
                      !absl::StartsWith(spec.network, "container:");
  if (spec.network.empty()) {
    return Invalid("network", "empty; \"none\" is for no network");
  }
  if (bridge) return absl::OkStatus();
  const std::string why =
      absl::StrCat("needs a bridge network, not ", Quoted(spec.network));
  if (!spec.ports.empty()) return Invalid("ports", why);
  if (!spec.address.empty()) return Invalid("address", why);
  if (!spec.mac.empty()) return Invalid("mac", why);
  if (!spec.aliases.empty()) return Invalid("aliases", why);
  return absl::OkStatus();
}

absl::Status CheckIds(const ContainerSpec& spec) {
  if (!spec.ids) return absl::OkStatus();
  if (spec.ids->inside != 0 || spec.ids->count == 0) {
    return Invalid("ids", "the range must begin with 0 inside");
  }
  return absl::OkStatus();
}

// The directory where an anonymous volume shall be, by its clean path.
std::string DestinationOf(absl::string_view text) {
  const auto volume = ParseVolumeMount(text);
  return volume.ok() ? volume->mount.destination : std::string();
}

}  // namespace

absl::Status CheckSpec(const ContainerSpec& spec) {
  RETURN_IF_ERROR(CheckSource(spec));
  if (!spec.name.empty()) RETURN_IF_ERROR(CheckContainerName(spec.name));
  RETURN_IF_ERROR(CheckEnvironment(spec.env));
  RETURN_IF_ERROR(CheckAll(spec.volumes, "volumes", ParseVolumeMount));
  RETURN_IF_ERROR(CheckAll(spec.tmpfs, "tmpfs", ParseTmpfsMount));
  RETURN_IF_ERROR(CheckAll(spec.devices, "devices", ParseDeviceNode));
  if (!spec.working_dir.empty() && !absl::StartsWith(spec.working_dir, "/")) {
    return Invalid("working_dir", "not an absolute path");
  }
  if (!spec.stop_signal.empty()) {
    if (const auto signal = ParseSignal(spec.stop_signal); !signal.ok()) {
      return Annotate(signal.status(), "stop_signal");
    }
  }
  if (spec.stop_timeout < absl::ZeroDuration()) {
    return Invalid("stop_timeout", "negative");
  }
  if (spec.shm_size_bytes == 0) return Invalid("shm_size_bytes", "0");
  RETURN_IF_ERROR(CheckNetwork(spec));
  RETURN_IF_ERROR(CheckIds(spec));
  RETURN_IF_ERROR(
      Annotate(cgroup::ValidatePath(spec.cgroup_parent), "cgroup_parent"));
  RETURN_IF_ERROR(Annotate(cgroup::ValidateLimits(spec.limits), "limits"));
  if (spec.health) {
    RETURN_IF_ERROR(Annotate(CheckHealthCheck(*spec.health), "health"));
  }
  if (const auto policy = ParseRestartPolicy(spec.restart.ToString());
      !policy.ok()) {
    return Annotate(policy.status(), "restart");
  }
  if (spec.logs.max_files < 1 || spec.logs.max_files > 1000 ||
      spec.logs.max_size_bytes < 0) {
    return Invalid("logs", "max_files is 1 to 1000, max_size_bytes 0 or more");
  }
  for (const auto& [key, value] : spec.labels) {
    if (key.empty() || !IsPrintable(key)) {
      return Invalid("labels", absl::StrCat(Quoted(key), " is no key"));
    }
  }
  if (spec.bundle.empty()) {
    if (const auto policy = MakePolicy(spec); !policy.ok()) {
      return Annotate(policy.status(), "security");
    }
  }
  if (spec.auto_remove && spec.restart.kind != RestartPolicy::Kind::kNo) {
    return Invalid("auto_remove", "excludes a restart policy");
  }
  return CheckBundle(spec);
}

absl::StatusOr<ContainerRecord> MakeRecord(const std::string& id,
                                           const ContainerSpec& spec,
                                           const Image* image) {
  const ImageConfig config = image != nullptr ? image->config : ImageConfig();
  ContainerRecord record;
  record.set_version(kRecordVersion);
  record.set_id(id);
  record.set_created_unix_ns(absl::ToUnixNanos(absl::Now()));
  if (image != nullptr) record.set_image_id(image->id);
  ToRecord(spec, *record.mutable_spec());

  std::vector<std::string> argv =
      spec.entrypoint ? *spec.entrypoint : config.entrypoint;
  const std::vector<std::string>& command =
      !spec.command.empty() || spec.entrypoint ? spec.command : config.cmd;
  argv.insert(argv.end(), command.begin(), command.end());
  if (argv.empty() && spec.bundle.empty()) {
    return Invalid("command", "the image names no program, so this must");
  }
  record.mutable_argv()->Assign(argv.begin(), argv.end());
  const std::vector<std::string> env = MergeEnvironment(config.env, spec.env);
  record.mutable_env()->Assign(env.begin(), env.end());
  record.set_working_dir(!spec.working_dir.empty()     ? spec.working_dir
                         : !config.working_dir.empty() ? config.working_dir
                                                       : "/");
  record.set_user(spec.user.empty() ? config.user : spec.user);
  const std::string& stop_signal =
      spec.stop_signal.empty() ? config.stop_signal : spec.stop_signal;
  // An image's nonsense is not the caller's fault.
  record.set_stop_signal(ParseSignal(stop_signal).value_or(SIGTERM));
  for (const auto& labels : {config.labels, spec.labels}) {
    for (const auto& [key, value] : labels) {
      (*record.mutable_labels())[key] = value;
    }
  }
  const std::optional<HealthCheck>& health =
      spec.health ? spec.health : config.health;
  if (health) ToRecord(*health, *record.mutable_health());
  return record;
}

absl::Status MakeAnonymousVolumes(const ContainerSpec& spec, const Image* image,
                                  const Places& places,
                                  ContainerRecord& record) {
  std::set<std::string> taken;
  std::vector<std::string> wanted;
  for (const std::string& text : spec.volumes) {
    ASSIGN_OR_RETURN(const VolumeMount volume, ParseVolumeMount(text));
    taken.insert(volume.mount.destination);
    if (volume.kind == VolumeMount::Kind::kAnonymous) {
      wanted.push_back(volume.mount.destination);
    }
  }
  for (const std::string& text : spec.tmpfs) {
    ASSIGN_OR_RETURN(const TmpfsMount tmpfs, ParseTmpfsMount(text));
    taken.insert(tmpfs.destination);
  }
  if (image != nullptr) {
    for (const std::string& text : image->config.volumes) {
      const std::string destination = DestinationOf(text);
      if (!destination.empty() && taken.insert(destination).second) {
        wanted.push_back(destination);
      }
    }
  }
  if (wanted.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(
      const VolumeStore volumes,
      VolumeStore::Open({.path = places.volumes, .recover = false}));
  auto undo =
      absl::MakeCleanup([&] { RemoveAnonymousVolumes(places, record); });
  for (const std::string& destination : wanted) {
    const uint32_t owner = spec.ids ? spec.ids->outside : 0;
    ASSIGN_OR_RETURN(const VolumeInfo volume,
                     volumes.Create({.uid = owner, .gid = owner}));
    record.add_anonymous_volumes(absl::StrCat(volume.name, ":", destination));
  }
  std::move(undo).Cancel();
  return absl::OkStatus();
}

void RemoveAnonymousVolumes(const Places& places,
                            const ContainerRecord& record) {
  if (record.anonymous_volumes().empty()) return;
  const auto volumes =
      VolumeStore::Open({.path = places.volumes, .recover = false});
  if (!volumes.ok()) return;
  for (const std::string& mount : record.anonymous_volumes()) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(mount, absl::MaxSplits(':', 1));
    volumes->Remove(parts.first).IgnoreError();
  }
}

}  // namespace caisson::keeper
