#include "lib/keeper/spec_record.h"

#include <string>
#include <utility>

#include "lib/base/status_macros.h"

namespace caisson::keeper {
namespace {

template <typename From, typename To>
void CopyAll(const From& from, To* to) {
  for (const auto& one : from) *to->Add() = one;
}

template <typename From>
std::vector<std::string> Strings(const From& from) {
  return {from.begin(), from.end()};
}

template <typename From>
std::map<std::string, std::string> StringMap(const From& from) {
  return {from.begin(), from.end()};
}

#define CAISSON_SET(field) \
  if (from.field) to.set_##field(*from.field);
#define CAISSON_GET(field) \
  if (from.has_##field()) to.field = from.field();

}  // namespace

int64_t ToNanoseconds(absl::Duration duration) {
  return duration == absl::InfiniteDuration()
             ? -1
             : absl::ToInt64Nanoseconds(duration);
}

absl::Duration FromNanoseconds(int64_t nanoseconds) {
  return nanoseconds < 0 ? absl::InfiniteDuration()
                         : absl::Nanoseconds(nanoseconds);
}

int64_t ToUnixNanoseconds(absl::Time time) {
  return time == absl::InfinitePast() ? 0 : absl::ToUnixNanos(time);
}

absl::Time FromUnixNanoseconds(int64_t nanoseconds) {
  return nanoseconds == 0 ? absl::InfinitePast()
                          : absl::FromUnixNanos(nanoseconds);
}

void ToRecord(const HealthCheck& from, HealthCheckRecord& to) {
  CopyAll(from.test, to.mutable_test());
  to.set_interval_ns(ToNanoseconds(from.interval));
  to.set_timeout_ns(ToNanoseconds(from.timeout));
  to.set_start_period_ns(ToNanoseconds(from.start_period));
  to.set_start_interval_ns(ToNanoseconds(from.start_interval));
  to.set_retries(from.retries);
}

HealthCheck FromRecord(const HealthCheckRecord& from) {
  HealthCheck to;
  to.test = Strings(from.test());
  to.interval = FromNanoseconds(from.interval_ns());
  to.timeout = FromNanoseconds(from.timeout_ns());
  to.start_period = FromNanoseconds(from.start_period_ns());
  to.start_interval = FromNanoseconds(from.start_interval_ns());
  to.retries = from.retries();
  return to;
}

void ToRecord(const HealthState& from, Health& to) {
  to.Clear();
  to.set_status(static_cast<int>(from.status));
  to.set_failing_streak(from.failing_streak);
  for (const HealthProbe& probe : from.log) {
    HealthResult& record = *to.add_log();
    record.set_start_unix_ns(ToUnixNanoseconds(probe.start));
    record.set_end_unix_ns(ToUnixNanoseconds(probe.end));
    record.set_exit_code(probe.exit_code);
    record.set_output(probe.output);
  }
}

HealthState FromRecord(const Health& from) {
  HealthState to;
  to.status = static_cast<HealthStatus>(from.status());
  to.failing_streak = from.failing_streak();
  for (const HealthResult& record : from.log()) {
    to.log.push_back({.start = FromUnixNanoseconds(record.start_unix_ns()),
                      .end = FromUnixNanoseconds(record.end_unix_ns()),
                      .exit_code = record.exit_code(),
                      .output = record.output()});
  }
  return to;
}

void ToRecord(const ExitStatus& from, Exit& to) {
  to.set_signaled(from.signaled);
  to.set_code(from.code);
  to.set_signal(from.signal);
  to.set_core_dumped(from.core_dumped);
  to.set_out_of_memory(from.out_of_memory);
  to.set_user_ns(ToNanoseconds(from.user_cpu));
  to.set_system_ns(ToNanoseconds(from.system_cpu));
  to.set_max_rss_bytes(from.max_rss_bytes);
}

ExitStatus FromRecord(const Exit& from) {
  ExitStatus to;
  to.signaled = from.signaled();
  to.code = from.code();
  to.signal = from.signal();
  to.core_dumped = from.core_dumped();
  to.out_of_memory = from.out_of_memory();
  to.user_cpu = FromNanoseconds(from.user_ns());
  to.system_cpu = FromNanoseconds(from.system_ns());
  to.max_rss_bytes = from.max_rss_bytes();
  return to;
}

void ToRecord(const PortMapping& from, Port& to) {
  to.set_host_address(from.host_address);
  to.set_host_port(from.host_port);
  to.set_container_port(from.container_port);
  to.set_udp(from.protocol == PortMapping::Protocol::kUdp);
}

PortMapping FromRecord(const Port& from) {
  return {.host_address = from.host_address(),
          .host_port = static_cast<uint16_t>(from.host_port()),
          .container_port = static_cast<uint16_t>(from.container_port()),
          .protocol = from.udp() ? PortMapping::Protocol::kUdp
                                 : PortMapping::Protocol::kTcp};
}

namespace {

void ProgramToRecord(const ContainerSpec& from, Spec& to) {
  to.set_image(from.image);
  to.set_rootfs(from.rootfs);
  to.set_bundle(from.bundle);
  to.set_name(from.name);
  to.mutable_labels()->insert(from.labels.begin(), from.labels.end());
  if (from.entrypoint) {
    CopyAll(*from.entrypoint, to.mutable_entrypoint()->mutable_values());
  }
  CopyAll(from.command, to.mutable_command());
  CopyAll(from.env, to.mutable_env());
  to.set_working_dir(from.working_dir);
  to.set_user(from.user);
  CopyAll(from.additional_groups, to.mutable_additional_groups());
  for (const ResourceLimit& limit : from.ulimits) {
    ResourceLimitRecord& record = *to.add_ulimits();
    record.set_name(limit.name);
    record.set_soft(limit.soft);
    record.set_hard(limit.hard);
  }
  CAISSON_SET(oom_score_adj)
  to.set_init(from.init);
  to.set_terminal(from.terminal);
  to.set_terminal_rows(from.terminal_size.rows);
  to.set_terminal_columns(from.terminal_size.columns);
  to.set_open_stdin(from.open_stdin);
  to.set_stdin_once(from.stdin_once);
}

void SurroundingsToRecord(const ContainerSpec& from, Spec& to) {
  to.set_read_only(from.read_only);
  CopyAll(from.volumes, to.mutable_volumes());
  CopyAll(from.tmpfs, to.mutable_tmpfs());
  CopyAll(from.devices, to.mutable_devices());
  to.set_shm_size_bytes(from.shm_size_bytes);
  to.set_hostname(from.hostname);
  to.set_domainname(from.domainname);
  to.set_network(from.network);
  CopyAll(from.aliases, to.mutable_aliases());
  to.set_address(from.address);
  to.set_mac(from.mac);
  for (const PortMapping& port : from.ports) ToRecord(port, *to.add_ports());
  for (const HostsEntry& host : from.extra_hosts) {
    HostsEntryRecord& record = *to.add_extra_hosts();
    record.set_address(host.address);
    CopyAll(host.names, record.mutable_names());
  }
  CAISSON_SET(resolv_conf)
  for (const Sysctl& sysctl : from.sysctls) {
    SysctlRecord& record = *to.add_sysctls();
    record.set_name(sysctl.name);
    record.set_value(sysctl.value);
  }
  ToRecord(from.limits, *to.mutable_limits());
  to.set_cgroup_parent(from.cgroup_parent);
  if (from.ids) {
    to.mutable_ids()->set_inside(from.ids->inside);
    to.mutable_ids()->set_outside(from.ids->outside);
    to.mutable_ids()->set_count(from.ids->count);
  }
  CopyAll(from.drop_capabilities, to.mutable_drop_capabilities());
  to.set_apparmor_profile(from.apparmor_profile);
  to.set_selinux_label(from.selinux_label);
  CopyAll(from.unsafe_add_capabilities, to.mutable_unsafe_add_capabilities());
  to.set_unsafe_new_privileges(from.unsafe_new_privileges);
  to.set_unsafe_seccomp_unconfined(from.unsafe_seccomp_unconfined);
}

}  // namespace

void ToRecord(const ContainerSpec& from, Spec& to) {
  ProgramToRecord(from, to);
  SurroundingsToRecord(from, to);
  to.set_stop_signal(from.stop_signal);
  to.set_stop_timeout_ns(ToNanoseconds(from.stop_timeout));
  to.set_restart(from.restart.ToString());
  if (from.health) ToRecord(*from.health, *to.mutable_health());
  to.mutable_logs()->set_enabled(from.logged);
  to.mutable_logs()->set_max_size_bytes(from.logs.max_size_bytes);
  to.mutable_logs()->set_max_files(from.logs.max_files);
  to.set_auto_remove(from.auto_remove);
}

namespace {

void ProgramFromRecord(const Spec& from, ContainerSpec& to) {
  to.image = from.image();
  to.rootfs = from.rootfs();
  to.bundle = from.bundle();
  to.name = from.name();
  to.labels = StringMap(from.labels());
  if (from.has_entrypoint())
    to.entrypoint = Strings(from.entrypoint().values());
  to.command = Strings(from.command());
  to.env = Strings(from.env());
  to.working_dir = from.working_dir();
  to.user = from.user();
  to.additional_groups = Strings(from.additional_groups());
  for (const ResourceLimitRecord& limit : from.ulimits()) {
    to.ulimits.push_back(
        {.name = limit.name(), .soft = limit.soft(), .hard = limit.hard()});
  }
  CAISSON_GET(oom_score_adj)
  to.init = from.init();
  to.terminal = from.terminal();
  if (from.terminal_rows() != 0 && from.terminal_columns() != 0) {
    to.terminal_size = {
        .rows = static_cast<uint16_t>(from.terminal_rows()),
        .columns = static_cast<uint16_t>(from.terminal_columns())};
  }
  to.open_stdin = from.open_stdin();
  to.stdin_once = from.stdin_once();
}

void SurroundingsFromRecord(const Spec& from, ContainerSpec& to) {
  to.read_only = from.read_only();
  to.volumes = Strings(from.volumes());
  to.tmpfs = Strings(from.tmpfs());
  to.devices = Strings(from.devices());
  to.shm_size_bytes = from.shm_size_bytes();
  to.hostname = from.hostname();
  to.domainname = from.domainname();
  to.network = from.network();
  to.aliases = Strings(from.aliases());
  to.address = from.address();
  to.mac = from.mac();
  for (const Port& port : from.ports()) to.ports.push_back(FromRecord(port));
  for (const HostsEntryRecord& host : from.extra_hosts()) {
    to.extra_hosts.push_back(
        {.address = host.address(), .names = Strings(host.names())});
  }
  CAISSON_GET(resolv_conf)
  for (const SysctlRecord& sysctl : from.sysctls()) {
    to.sysctls.push_back({.name = sysctl.name(), .value = sysctl.value()});
  }
  to.cgroup_parent = from.cgroup_parent();
  if (from.has_ids()) {
    to.ids = IdRange{.inside = from.ids().inside(),
                     .outside = from.ids().outside(),
                     .count = from.ids().count()};
  }
  to.drop_capabilities = Strings(from.drop_capabilities());
  to.apparmor_profile = from.apparmor_profile();
  to.selinux_label = from.selinux_label();
  to.unsafe_add_capabilities = Strings(from.unsafe_add_capabilities());
  to.unsafe_new_privileges = from.unsafe_new_privileges();
  to.unsafe_seccomp_unconfined = from.unsafe_seccomp_unconfined();
}

}  // namespace

absl::StatusOr<ContainerSpec> FromRecord(const Spec& from) {
  ContainerSpec to;
  ProgramFromRecord(from, to);
  SurroundingsFromRecord(from, to);
  ASSIGN_OR_RETURN(to.limits, FromRecord(from.limits()));
  to.stop_signal = from.stop_signal();
  to.stop_timeout = FromNanoseconds(from.stop_timeout_ns());
  ASSIGN_OR_RETURN(to.restart, ParseRestartPolicy(from.restart()));
  if (from.has_health()) to.health = FromRecord(from.health());
  to.logged = from.logs().enabled();
  to.logs.max_size_bytes = from.logs().max_size_bytes();
  to.logs.max_files = from.logs().max_files();
  to.auto_remove = from.auto_remove();
  return to;
}

}  // namespace caisson::keeper
