// What a running container holds: starts many, and looks at what has grown.
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/host.h"
#include "caisson/caisson.h"

namespace {

using bench::Check;
using bench::Container;
using bench::Host;

constexpr char kUsage[] =
    R"(usage: memory ROOT N

Runs the program /wait of the directory ROOT in N containers at once, in
caisson's full default composition, and prints a JSON object with what one of
them holds, in bytes:

  value          the host process and its launcher together: their proportional
                 set size
  host           the host process's part of it
  launcher       the launcher's part of it
  program        the proportional set size of the container's only process
  kernel_memory  of the whole machine: slabs, kernel stacks, page tables, per-CPU
                 areas and files in memory (shmem)

and how many descriptors the two have open for it.
)";

// Started before the first look, so that what is made once does not count.
constexpr int kWarmUp = 20;

volatile sig_atomic_t g_stop = 0;

// The number of a line "NAME: 123 kB" or "NAME:\t123" of a file of /proc.
int64_t ReadNumber(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string word;
  int64_t number = 0;
  while (file >> word) {
    if (word == name && file >> number) return number;
  }
  std::cerr << "memory: " << path << " has no number " << name << "\n";
  exit(1);
}

int64_t PssBytes(pid_t pid) {
  return ReadNumber(absl::StrCat("/proc/", pid, "/smaps_rollup"), "Pss:") *
         1024;
}

int64_t KernelBytes() {
  int64_t kib = 0;
  for (const char* name :
       {"Slab:", "KernelStack:", "PageTables:", "Percpu:", "Shmem:"}) {
    kib += ReadNumber("/proc/meminfo", name);
  }
  return kib * 1024;
}

int64_t Descriptors(pid_t pid) {
  const std::filesystem::directory_iterator entries(
      absl::StrCat("/proc/", pid, "/fd"));
  return std::distance(begin(entries), end(entries));
}

pid_t LauncherPid(const Host& host) {
  return static_cast<pid_t>(ReadNumber(
      absl::StrCat("/proc/self/fdinfo/", host.launcher().pidfd().get()),
      "Pid:"));
}

struct Usage {
  int64_t host = 0;
  int64_t launcher = 0;
  int64_t kernel = 0;
  int64_t host_descriptors = 0;
  int64_t launcher_descriptors = 0;
};

Usage Look(const Host& host) {
  const pid_t launcher = LauncherPid(host);
  return {.host = PssBytes(getpid()),
          .launcher = PssBytes(launcher),
          .kernel = KernelBytes(),
          .host_descriptors = Descriptors(getpid()),
          .launcher_descriptors = Descriptors(launcher)};
}

void Print(const Usage& before, const Usage& after, int64_t program,
           int count) {
  const auto each = [count](int64_t first, int64_t last) {
    return static_cast<double>(last - first) / count;
  };
  const double host = each(before.host, after.host);
  const double launcher = each(before.launcher, after.launcher);
  std::cout << absl::StrFormat(
      "{\"name\": \"memory_per_container\", \"unit\": \"bytes\", "
      "\"value\": %.0f, \"n\": %d, \"host\": %.0f, \"launcher\": %.0f, "
      "\"program\": %d, \"kernel_memory\": %.0f, \"host_descriptors\": %.2f, "
      "\"launcher_descriptors\": %.2f}\n",
      host + launcher, count, host, launcher, program,
      each(before.kernel, after.kernel),
      each(before.host_descriptors, after.host_descriptors),
      each(before.launcher_descriptors, after.launcher_descriptors));
}

// A container has several descriptors.
void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Signals are looked at between two starts, so that everything is removed.
void StopOnSignals() {
  struct sigaction action = {};
  action.sa_handler = [](int) { g_stop = 1; };
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace

int main(int argc, char** argv) {
  int count = 0;
  if (argc != 3 || !absl::SimpleAtoi(argv[2], &count) || count <= 0) {
    std::cerr << kUsage;
    return argc == 2 && std::string(argv[1]) == "--help" ? 0 : 2;
  }
  RaiseDescriptorLimit();
  StopOnSignals();
  Host host(argv[1], /*net=*/false);
  std::vector<Container> containers;
  containers.reserve(static_cast<size_t>(kWarmUp + count));
  Usage before;
  for (int i = 0; i < kWarmUp + count && !g_stop; ++i) {
    if (i == kWarmUp) before = Look(host);
    containers.push_back(host.Start("/wait", absl::StrCat("bench", i)));
  }
  if (!g_stop) {
    Print(before, Look(host), PssBytes(containers.back().process.pid()), count);
  }
  // All at once: the end of a container is mostly waiting.
  for (const Container& container : containers) {
    Check(container.process.Signal(SIGKILL));
  }
  for (Container& container : containers) container.Kill();
  return g_stop ? 1 : 0;
}
