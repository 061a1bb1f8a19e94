// One caisson host of the benchmark: does one whole start for each byte that
// arrives on standard input and answers how long it took, in nanoseconds, as 8
// bytes. bench/compare drives several of these side by side.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "caisson/caisson.h"

namespace {

constexpr char kUsage[] =
    R"(usage: worker ROOT [--net] [--heap-mib N] [--threads N] [--latencies]

Starts the program /true of the directory ROOT in caisson's full default
composition, waits for its end and removes everything, once for each byte on
standard input. Answers each with its duration in ns (8 bytes).

  --net          with an endpoint in a bridge network
  --heap-mib N   touch N MiB of heap first
  --threads N    have N idle threads
  --latencies    instead, start 200 times and print the median of each step
)";

template <typename T>
T Check(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << "worker: " << value.status().message() << "\n";
    exit(1);
  }
  return *std::move(value);
}

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << "worker: " << status.message() << "\n";
  exit(1);
}

uint64_t Now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000u +
         static_cast<uint64_t>(time.tv_nsec);
}

class Host {
 public:
  Host(const std::string& root, bool net)
      : root_(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)),
        launcher_(Check(caisson::Launcher::Create())),
        cgroups_(Check(caisson::CgroupParent::Open(
            {.path = absl::StrCat("/caisson-bench-", getpid())}))),
        policy_(Check(caisson::SecurityPolicy::Create({}))) {
    if (net) {
      state_dir_ = absl::StrCat("/run/caisson-bench-", getpid());
      network_ = Check(
          caisson::Network::Open({.name = "bench", .state_dir = state_dir_}));
    }
  }

  ~Host() {
    network_.reset();
    if (state_dir_.empty()) return;
    // The library leaves the lock of the directory; this one has no other user.
    unlink(absl::StrCat(state_dir_, "/caisson-net.lock").c_str());
    rmdir(state_dir_.c_str());
  }

  // One start; returns its steps.
  std::vector<caisson::StepLatency> Start() {
    std::optional<caisson::NetEndpoint> endpoint;
    if (network_) {
      endpoint = Check(caisson::NetEndpoint::Create(
          *network_, Check(launcher_.NewNetNamespace()), {.name = "bench"}));
    }
    caisson::RootFsOptions options;
    options.layers = {root_.borrow()};
    options.writes = caisson::RootWrites::kTmpfs;
    options.hostname = "bench";
    options.resolv_conf = "";
    auto root = Check(caisson::RootFs::Create(options));
    auto cgroup = Check(
        cgroups_.Create({.name = "bench",
                         .limits = {.memory_max = 256 << 20, .pids_max = 64}}));
    caisson::ProcessSpec spec;
    spec.argv = {"/true"};
    spec.root = &root;
    spec.cgroup = &cgroup;
    spec.security = &policy_;
    spec.network = endpoint ? &*endpoint : nullptr;
    auto process = Check(launcher_.Start(spec));
    const auto status = Check(process.Wait());
    if (!status.success()) {
      std::cerr << "worker: /true " << status.ToString() << "\n";
      exit(1);
    }
    Check(cgroup.Destroy());
    if (endpoint) Check(endpoint->Destroy());
    return process.latencies();
  }

 private:
  caisson::UniqueFd root_;
  caisson::Launcher launcher_;
  caisson::CgroupParent cgroups_;
  caisson::SecurityPolicy policy_;
  std::string state_dir_;
  std::optional<caisson::Network> network_;
};

void PrintLatencies(Host& host) {
  constexpr int kRounds = 200;
  std::vector<std::string> names;
  std::vector<std::vector<absl::Duration>> durations;
  for (int i = 0; i < kRounds; ++i) {
    const auto steps = host.Start();
    durations.resize(steps.size());
    names.resize(steps.size());
    for (size_t s = 0; s < steps.size(); ++s) {
      names[s] = steps[s].step;
      durations[s].push_back(steps[s].duration);
    }
  }
  for (size_t s = 0; s < names.size(); ++s) {
    std::sort(durations[s].begin(), durations[s].end());
    std::cout << names[s] << "\t"
              << absl::FormatDuration(durations[s][durations[s].size() / 2])
              << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool net = false, latencies = false;
  uint64_t heap_mib = 0;
  int threads = 0;
  std::string root;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (arg == "--net") {
      net = true;
    } else if (arg == "--latencies") {
      latencies = true;
    } else if (arg == "--heap-mib" && absl::SimpleAtoi(value, &heap_mib)) {
      ++i;
    } else if (arg == "--threads" && absl::SimpleAtoi(value, &threads)) {
      ++i;
    } else if (root.empty() && arg[0] != '-') {
      root = arg;
    } else {
      std::cerr << kUsage;
      return arg == "--help" ? 0 : 2;
    }
  }
  if (root.empty()) {
    std::cerr << kUsage;
    return 2;
  }

  std::vector<char> heap(heap_mib << 20, 1);
  absl::Mutex mutex;
  bool stop = false;
  std::vector<std::thread> idle;
  for (int i = 0; i < threads; ++i) {
    idle.emplace_back([&] {
      absl::MutexLock lock(&mutex);
      mutex.Await(absl::Condition(&stop));
    });
  }
  {
    Host host(root, net);
    char byte;
    if (latencies) PrintLatencies(host);
    while (!latencies && read(STDIN_FILENO, &byte, 1) == 1) {
      const uint64_t start = Now();
      host.Start();
      const uint64_t duration = Now() - start;
      if (write(STDOUT_FILENO, &duration, sizeof(duration)) !=
          sizeof(duration)) {
        break;
      }
    }
  }
  {
    absl::MutexLock lock(&mutex);
    stop = true;
  }
  for (std::thread& thread : idle) thread.join();
  return 0;
}
