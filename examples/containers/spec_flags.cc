#include "examples/containers/spec_flags.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "caisson/notation.h"

namespace containers {
namespace {

using caisson::HealthCheck;

absl::Duration ParseDuration(const std::string& text) {
  absl::Duration duration;
  if (absl::ParseDuration(text, &duration) && duration > absl::ZeroDuration()) {
    return duration;
  }
  throw Failure{absl::StrCat(
      "\"", text, "\": expected a duration, such as 1m30s or 500ms")};
}

void SetLogOption(const std::string& text, caisson::ContainerLogOptions& logs) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.first == "max-size") {
    logs.max_size_bytes = Check(caisson::ParseBytes(parts.second));
  } else if (parts.first == "max-file") {
    logs.max_files = ParseNumber(parts.second, 1, 1000);
  } else {
    throw Failure{
        absl::StrCat("\"", text, "\": expected max-size=BYTES or max-file=N")};
  }
}

void Append(std::vector<Flag> from, std::vector<Flag>& to) {
  for (Flag& flag : from) to.push_back(std::move(flag));
}

}  // namespace

std::vector<Flag> LimitFlags(caisson::CgroupLimits& limits) {
  return {
      {'m', "memory", "BYTES", "limit memory; with k, m or g",
       [&](const std::string& v) {
         limits.memory_max = Check(caisson::ParseBytes(v));
       }},
      {0, "cpus", "NUMBER", "limit CPU time, in CPUs",
       [&](const std::string& v) {
         limits.cpu_quota = Check(caisson::ParseCpus(v));
       }},
      {0, "pids-limit", "N", "limit the number of processes; -1: no limit",
       [&](const std::string& v) {
         limits.pids_max = ParseNumber(v, -1, 4194304);
       }},
  };
}

void AddVariable(const std::string& text, std::vector<std::string>& env) {
  if (text.find('=') != std::string::npos) {
    env.push_back(text);
  } else if (const char* value = std::getenv(text.c_str())) {
    env.push_back(absl::StrCat(text, "=", value));
  }
}

std::vector<Flag> SpecFlags::Program() {
  return {
      Text(0, "name", "NAME", "name of the container; made up without",
           spec_.name),
      {'l', "label", "KEY[=VALUE]", "set a label",
       [&](const std::string& v) {
         const std::pair<std::string, std::string> parts =
             absl::StrSplit(v, absl::MaxSplits('=', 1));
         spec_.labels[parts.first] = parts.second;
       }},
      Switch('i', "interactive", "keep standard input open", spec_.open_stdin),
      Switch('t', "tty", "give it a terminal", spec_.terminal),
      {'e', "env", "NAME[=VALUE]", "set a variable, or pass one on",
       [&](const std::string& v) { AddVariable(v, spec_.env); }},
      Text('u', "user", "USER[:GROUP]", "run as this user of the image",
           spec_.user),
      Text('w', "workdir", "DIRECTORY", "start in this directory",
           spec_.working_dir),
      {0, "entrypoint", "PROGRAM", "run this instead of the image's program",
       [&](const std::string& v) {
         spec_.entrypoint.emplace();
         if (!v.empty()) spec_.entrypoint->push_back(v);
       }},
      Switch(0, "init", "run it below a small PID 1", spec_.init),
  };
}

std::vector<Flag> SpecFlags::Files() {
  return {
      List('v', "volume", "[SOURCE:]PATH[:OPTIONS]",
           "mount a volume, or a file or directory of the host", spec_.volumes),
      List(0, "tmpfs", "PATH[:size=BYTES,...]", "mount a file system in memory",
           spec_.tmpfs),
      List(0, "device", "SOURCE[:PATH]", "make a device available",
           spec_.devices),
      {0, "shm-size", "BYTES", "size of /dev/shm (64m)",
       [&](const std::string& v) {
         spec_.shm_size_bytes =
             static_cast<uint64_t>(Check(caisson::ParseBytes(v)));
       }},
      Switch(0, "read-only", "make the root file system read-only",
             spec_.read_only),
  };
}

std::vector<Flag> SpecFlags::Network() {
  return {
      Text(0, "network", "NAME",
           "bridge to join (\"bridge\"), none, host, or container:NAME",
           spec_.network),
      {'p', "publish", "[[IP:][HOST]:]PORT[/udp]", "publish a port",
       [&](const std::string& v) {
         spec_.ports.push_back(Check(caisson::ParsePortMapping(v)));
       }},
      Text(0, "hostname", "NAME", "the beginning of the id without",
           spec_.hostname),
      List(0, "network-alias", "NAME", "a further name in the network",
           spec_.aliases),
      {0, "add-host", "NAME:ADDRESS", "add a line to /etc/hosts",
       [&](const std::string& v) {
         spec_.extra_hosts.push_back(Check(caisson::ParseHostsEntry(v)));
       }},
  };
}

std::vector<Flag> SpecFlags::Security() {
  return {
      List(0, "cap-add", "CAPABILITY", "give it a capability (unsafe)",
           spec_.unsafe_add_capabilities),
      List(0, "cap-drop", "CAPABILITY", "take a capability away; ALL",
           spec_.drop_capabilities),
      Text(0, "cgroup-parent", "PATH", "control group to be in (/caisson)",
           spec_.cgroup_parent),
  };
}

std::vector<Flag> SpecFlags::Life() {
  return {
      {0, "restart", "POLICY", "no, on-failure[:N], always or unless-stopped",
       [&](const std::string& v) {
         spec_.restart = Check(caisson::ParseRestartPolicy(v));
       }},
      Switch(0, "rm", "remove it when it has ended", spec_.auto_remove),
      Text(0, "stop-signal", "SIGNAL", "what asks it to end",
           spec_.stop_signal),
      {0, "stop-timeout", "SECONDS", "until it is killed (10)",
       [&](const std::string& v) {
         spec_.stop_timeout = absl::Seconds(ParseNumber(v, 0, 1 << 20));
       }},
      {0, "log-opt", "NAME=VALUE", "max-size=BYTES, max-file=N",
       [&](const std::string& v) { SetLogOption(v, spec_.logs); }},
  };
}

std::vector<Flag> SpecFlags::Health() {
  const auto check = [this]() -> HealthCheck& {
    if (!spec_.health) spec_.health.emplace();
    return *spec_.health;
  };
  const auto duration = [check](const char* name, const char* help,
                                absl::Duration HealthCheck::*field) {
    return Flag{0, name, "DURATION", help,
                [check, field](const std::string& v) {
                  check().*field = ParseDuration(v);
                }};
  };
  return {
      {0, "health-cmd", "COMMAND", "ask for its health with this",
       [check](const std::string& v) {
         check().test = {"CMD-SHELL", v};
       }},
      duration("health-interval", "between two probes (30s)",
               &HealthCheck::interval),
      duration("health-timeout", "for one probe (30s)", &HealthCheck::timeout),
      duration("health-start-period", "in which failures do not count",
               &HealthCheck::start_period),
      {0, "health-retries", "N", "failures that make it unhealthy (3)",
       [check](const std::string& v) {
         check().retries = ParseNumber(v, 1, 1 << 20);
       }},
      {0, "no-healthcheck", nullptr, "nor as the image says",
       [check](const std::string&) { check().test = {"NONE"}; }},
  };
}

std::vector<Flag> SpecFlags::All() {
  std::vector<Flag> all = Program();
  Append(Files(), all);
  Append(Network(), all);
  Append(LimitFlags(spec_.limits), all);
  Append(Security(), all);
  Append(Life(), all);
  Append(Health(), all);
  return all;
}

caisson::ContainerSpec SpecFlags::Finish(
    const std::vector<std::string>& words) {
  if (spec_.health && spec_.health->test.empty()) {
    throw Failure{"options of health checks need --health-cmd"};
  }
  spec_.image = words.front();
  spec_.command.assign(words.begin() + 1, words.end());
  return spec_;
}

}  // namespace containers
