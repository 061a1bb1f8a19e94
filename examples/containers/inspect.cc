#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "caisson/container.h"
#include "examples/containers/output.h"
#include "nlohmann/json.hpp"

namespace containers {
namespace {

using Json = nlohmann::ordered_json;

int64_t Nanoseconds(absl::Duration duration) {
  return absl::ToInt64Nanoseconds(duration);
}

Json StateJson(const caisson::ContainerInfo& info) {
  Json state = {
      {"Status", std::string(caisson::ContainerStatusName(info.status))},
      {"Pid", info.pid},
      {"KeeperPid", info.keeper_pid},
      {"ExitCode", info.exit_code},
      {"OOMKilled", info.exit.has_value() && info.exit->out_of_memory},
      {"Error", info.error},
      {"StartedAt", Timestamp(info.started)},
      {"FinishedAt", Timestamp(info.finished)}};
  if (info.health.status == caisson::HealthStatus::kNone) return state;
  Json log = Json::array();
  for (const caisson::HealthProbe& probe : info.health.log) {
    log.push_back({{"Start", Timestamp(probe.start)},
                   {"End", Timestamp(probe.end)},
                   {"ExitCode", probe.exit_code},
                   {"Output", probe.output}});
  }
  state["Health"] = {
      {"Status", std::string(caisson::HealthStatusName(info.health.status))},
      {"FailingStreak", info.health.failing_streak},
      {"Log", std::move(log)}};
  return state;
}

Json ConfigJson(const caisson::ContainerInfo& info) {
  const caisson::ContainerSpec& spec = info.spec;
  Json config = {{"Image", spec.image},
                 {"Cmd", info.argv},
                 {"Env", info.env},
                 {"User", info.user},
                 {"WorkingDir", info.working_dir},
                 {"Hostname", spec.hostname.empty() ? info.id.substr(0, 12)
                                                    : spec.hostname},
                 {"Tty", spec.terminal},
                 {"OpenStdin", spec.open_stdin},
                 {"Labels", info.labels}};
  if (!spec.stop_signal.empty()) config["StopSignal"] = spec.stop_signal;
  if (spec.health) {
    config["Healthcheck"] = {{"Test", spec.health->test},
                             {"Interval", Nanoseconds(spec.health->interval)},
                             {"Timeout", Nanoseconds(spec.health->timeout)},
                             {"Retries", spec.health->retries}};
  }
  return config;
}

Json HostConfigJson(const caisson::ContainerSpec& spec) {
  Json limits = {{"Memory", spec.limits.memory_max.value_or(0)},
                 {"PidsLimit", spec.limits.pids_max.value_or(-1)}};
  if (spec.limits.cpu_quota) {
    limits["CpuQuota"] =
        absl::ToInt64Microseconds(spec.limits.cpu_quota->quota);
    limits["CpuPeriod"] =
        absl::ToInt64Microseconds(spec.limits.cpu_quota->period);
  }
  return {{"Binds", spec.volumes},
          {"Tmpfs", spec.tmpfs},
          {"NetworkMode", spec.network},
          {"RestartPolicy", spec.restart.ToString()},
          {"AutoRemove", spec.auto_remove},
          {"ReadonlyRootfs", spec.read_only},
          {"Init", spec.init},
          {"CapAdd", spec.unsafe_add_capabilities},
          {"CapDrop", spec.drop_capabilities},
          {"CgroupParent", spec.cgroup_parent},
          {"Resources", std::move(limits)},
          {"LogConfig",
           {{"max-size", spec.logs.max_size_bytes},
            {"max-file", spec.logs.max_files}}}};
}

Json ContainerJson(const caisson::ContainerInfo& info) {
  Json ports = Json::array();
  for (const caisson::PortMapping& port : info.ports) {
    ports.push_back(PortText(port));
  }
  return {{"Id", info.id},
          {"Name", info.spec.name},
          {"Created", Timestamp(info.created)},
          {"State", StateJson(info)},
          {"Image", info.image_id},
          {"RestartCount", info.restart_count},
          {"Config", ConfigJson(info)},
          {"HostConfig", HostConfigJson(info.spec)},
          {"NetworkSettings",
           {{"IPAddress", info.address},
            {"MacAddress", info.mac},
            {"Ports", std::move(ports)}}}};
}

}  // namespace

std::string InspectJson(const std::vector<caisson::ContainerInfo>& all) {
  Json array = Json::array();
  for (const caisson::ContainerInfo& info : all) {
    array.push_back(ContainerJson(info));
  }
  // What programs write need not be UTF-8.
  return array.dump(4, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace containers
