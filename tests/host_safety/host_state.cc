#include "tests/host_safety/host_state.h"

#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <sstream>
#include <vector>

namespace caisson::testing {
namespace {

namespace fs = std::filesystem;

// Empty where it cannot be read: without a security module, "attr/current"
// fails with EINVAL.
std::string ReadWhole(const std::string& path) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  char buffer[4096];
  ssize_t n = 0;
  while (fd >= 0 && (n = read(fd, buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(n));
  }
  if (fd >= 0) close(fd);
  return text;
}

std::string LinkOf(const std::string& path) {
  std::error_code error;
  return fs::read_symlink(path, error).string();
}

std::vector<std::string> NamesIn(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

// Lines of a status file that describe the process, not what it does.
void AddStatus(HostState& state, const std::string& prefix,
               const std::string& path) {
  static const char* const kFields[] = {
      "Name",           "Umask",  "Uid",        "Gid",     "Groups", "Threads",
      "SigBlk",         "SigIgn", "SigCgt",     "CapInh",  "CapPrm", "CapEff",
      "CapBnd",         "CapAmb", "NoNewPrivs", "Seccomp", "NSpid",  "NSsid",
      "Seccomp_filters"};
  std::istringstream lines(ReadWhole(path));
  std::string line;
  while (std::getline(lines, line)) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string field = line.substr(0, colon);
    if (std::find(std::begin(kFields), std::end(kFields), field) !=
        std::end(kFields)) {
      state[prefix + field] = line.substr(colon + 1);
    }
  }
}

void AddLimits(HostState& state) {
  for (int i = 0; i < RLIMIT_NLIMITS; ++i) {
    rlimit limit = {};
    getrlimit(static_cast<__rlimit_resource>(i), &limit);
    state["rlimit " + std::to_string(i)] =
        std::to_string(limit.rlim_cur) + " " + std::to_string(limit.rlim_max);
  }
}

void AddSignals(HostState& state) {
  for (int i = 1; i < NSIG; ++i) {
    struct sigaction action = {};
    if (sigaction(i, nullptr, &action) != 0) continue;
    std::ostringstream text;
    text << reinterpret_cast<void*>(action.sa_handler) << " flags "
         << action.sa_flags << " mask";
    for (int other = 1; other < NSIG; ++other) {
      if (sigismember(&action.sa_mask, other) == 1) text << " " << other;
    }
    state["handler of signal " + std::to_string(i)] = text.str();
  }
}

void AddFlags(HostState& state) {
  state["dumpable"] = std::to_string(prctl(PR_GET_DUMPABLE));
  state["keepcaps"] = std::to_string(prctl(PR_GET_KEEPCAPS));
  state["securebits"] = std::to_string(prctl(PR_GET_SECUREBITS));
  state["timer slack"] = std::to_string(prctl(PR_GET_TIMERSLACK));
  state["no huge pages"] =
      std::to_string(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
  int value = -1;
  prctl(PR_GET_PDEATHSIG, &value);
  state["parent death signal"] = std::to_string(value);
  prctl(PR_GET_CHILD_SUBREAPER, &value);
  state["subreaper"] = std::to_string(value);
  state["session"] = std::to_string(getsid(0));
  state["process group"] = std::to_string(getpgrp());
  state["nice"] = std::to_string(getpriority(PRIO_PROCESS, 0));
  state["scheduler"] = std::to_string(sched_getscheduler(0));
  state["io priority"] = std::to_string(syscall(SYS_ioprio_get, 1, 0));
  state["session keyring"] = std::to_string(
      syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  sched_getaffinity(0, sizeof(cpus), &cpus);
  state["cpus"] = std::to_string(CPU_COUNT(&cpus));
  for (const auto which : {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF}) {
    itimerval timer = {};
    getitimer(which, &timer);
    state["timer " + std::to_string(which)] =
        std::to_string(timer.it_interval.tv_sec) + "." +
        std::to_string(timer.it_interval.tv_usec) +
        (timer.it_value.tv_sec != 0 || timer.it_value.tv_usec != 0 ? " armed"
                                                                   : "");
  }
}

void AddFiles(HostState& state) {
  for (const char* name : {"oom_score_adj", "personality", "coredump_filter",
                           "loginuid", "sessionid", "attr/current", "cgroup",
                           "mountinfo", "timers", "uid_map", "gid_map"}) {
    state[name] = ReadWhole(std::string("/proc/self/") + name);
  }
  for (const char* name : {"cwd", "root", "exe"}) {
    state[name] = LinkOf(std::string("/proc/self/") + name);
  }
  for (const std::string& name : NamesIn("/proc/self/ns")) {
    state["namespace " + name] = LinkOf("/proc/self/ns/" + name);
  }
  std::string& environment = state["environment"];
  for (char** entry = environ; *entry != nullptr; ++entry) {
    environment += std::string(*entry) + "\n";
  }
  std::istringstream locks(ReadWhole("/proc/locks"));
  std::string line;
  const std::string own = " " + std::to_string(getpid()) + " ";
  while (std::getline(locks, line)) {
    if (line.find(own) != std::string::npos) {
      state["locks"] += line.substr(line.find(':')) + "\n";
    }
  }
}

void AddThreads(HostState& state) {
  for (const std::string& task : NamesIn("/proc/self/task")) {
    const std::string directory = "/proc/self/task/" + task;
    AddStatus(state, "thread " + task + " ", directory + "/status");
    state["children"] += ReadWhole(directory + "/children");
  }
}

void AddDescriptors(HostState& state) {
  for (const std::string& name : NamesIn("/proc/self/fd")) {
    const int fd = std::stoi(name);
    const std::string target = LinkOf("/proc/self/fd/" + name);
    // The descriptor that lists the directory itself is gone by now.
    if (target.empty()) continue;
    state["fd " + name] = target + " flags " +
                          std::to_string(fcntl(fd, F_GETFD)) + " " +
                          std::to_string(fcntl(fd, F_GETFL));
  }
}

}  // namespace

HostState TakeHostState() {
  HostState state;
  AddStatus(state, "", "/proc/self/status");
  AddLimits(state);
  AddSignals(state);
  AddFlags(state);
  AddFiles(state);
  AddThreads(state);
  AddDescriptors(state);
  return state;
}

std::string Differences(const HostState& before, const HostState& after) {
  std::string text;
  for (const auto& [name, value] : before) {
    const auto found = after.find(name);
    if (found == after.end()) {
      text += name + ": was \"" + value + "\", is gone\n";
    } else if (found->second != value) {
      text += name + ": was \"" + value + "\", is \"" + found->second + "\"\n";
    }
  }
  for (const auto& [name, value] : after) {
    if (before.count(name) == 0) text += name + ": new, \"" + value + "\"\n";
  }
  return text;
}

}  // namespace caisson::testing
