// One caisson host of the benchmark: does one round for each byte that arrives
// on standard input and answers how long it took, in nanoseconds, as 8 bytes.
// bench/compare drives several of these side by side.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "bench/host.h"
#include "caisson/caisson.h"

namespace {

using bench::Container;
using bench::Host;
using bench::Now;

constexpr char kUsage[] =
    R"(usage: worker ROOT [--net] [--heap-mib N] [--threads N]
                   [--exec | --throughput | --stats | --latencies]

Starts the program /true of the directory ROOT in caisson's full default
composition, waits for its end and removes everything, once for each byte on
standard input. Answers each with its duration in ns (8 bytes).

  --net          with an endpoint in a bridge network
  --heap-mib N   touch N MiB of heap first
  --threads N    have N idle threads
  --exec         instead, execute /true in one container that runs all the time
  --throughput   instead, 8 threads do 5 starts each at once; the answer is a
                 40th of the time
  --stats        instead, read the statistics of one control group that has all
                 controllers 16 times; the answer is a 16th of the time; ROOT
                 does not matter
  --latencies    instead, start 200 times and print the median of each step
)";

constexpr int kWorkers = 8;
constexpr int kStartsOfWorker = 5;
constexpr int kReadings = 16;

enum class Mode { kStart, kExec, kThroughput, kStats, kLatencies };

struct Options {
  std::string root;
  bool net = false;
  uint64_t heap_mib = 0;
  int threads = 0;
  Mode mode = Mode::kStart;
};

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (arg == "--net") {
      options.net = true;
    } else if (arg == "--exec") {
      options.mode = Mode::kExec;
    } else if (arg == "--throughput") {
      options.mode = Mode::kThroughput;
    } else if (arg == "--stats") {
      options.mode = Mode::kStats;
    } else if (arg == "--latencies") {
      options.mode = Mode::kLatencies;
    } else if (arg == "--heap-mib" &&
               absl::SimpleAtoi(value, &options.heap_mib)) {
      ++i;
    } else if (arg == "--threads" &&
               absl::SimpleAtoi(value, &options.threads)) {
      ++i;
    } else if (options.root.empty() && arg[0] != '-') {
      options.root = arg;
    } else {
      std::cerr << kUsage;
      exit(arg == "--help" ? 0 : 2);
    }
  }
  if (options.root.empty()) {
    std::cerr << kUsage;
    exit(2);
  }
  return options;
}

// Threads that do nothing until they are destroyed.
class IdleThreads {
 public:
  explicit IdleThreads(int count) {
    for (int i = 0; i < count; ++i) {
      threads_.emplace_back([this] {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(&stop_));
      });
    }
  }
  ~IdleThreads() {
    {
      absl::MutexLock lock(&mutex_);
      stop_ = true;
    }
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  absl::Mutex mutex_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

void StartManyAtOnce(Host& host) {
  std::vector<std::thread> workers;
  for (int i = 0; i < kWorkers; ++i) {
    workers.emplace_back([&host, i] {
      const std::string name = absl::StrCat("bench", i);
      for (int start = 0; start < kStartsOfWorker; ++start) {
        host.Start("/true", name).Finish();
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
}

// Does what `round` does, and answers with its time, until there is no more
// input.
void Answer(const std::function<void()>& round, uint64_t divisor = 1) {
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    const uint64_t start = Now();
    round();
    const uint64_t duration = (Now() - start) / divisor;
    if (write(STDOUT_FILENO, &duration, sizeof(duration)) != sizeof(duration)) {
      return;
    }
  }
}

void ReadStats() {
  auto parent = bench::Check(caisson::CgroupParent::Open(
      {.path = absl::StrCat("/caisson-bench-", getpid())}));
  const auto group = bench::Check(parent.Create(
      {.name = "stats",
       .controllers = caisson::CgroupStatsControllers(parent.layout())}));
  const auto reader = bench::Check(group.OpenStats());
  Answer(
      [&] {
        for (int i = 0; i < kReadings; ++i) bench::Check(reader.Read());
      },
      kReadings);
}

void PrintLatencies(Host& host) {
  constexpr int kRounds = 200;
  std::vector<std::string> names;
  std::vector<std::vector<absl::Duration>> durations;
  for (int i = 0; i < kRounds; ++i) {
    Container container = host.Start("/true");
    container.Finish();
    const auto& steps = container.process.latencies();
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
  const Options options = Parse(argc, argv);
  if (options.mode == Mode::kStats) {
    ReadStats();
    return 0;
  }
  std::vector<char> heap(options.heap_mib << 20, 1);
  IdleThreads idle(options.threads);
  Host host(options.root, options.net);
  switch (options.mode) {
    case Mode::kStart:
      Answer([&] { host.Start("/true").Finish(); });
      break;
    case Mode::kExec: {
      Container container = host.Start("/wait");
      Answer([&] { host.Exec(container); });
      container.Kill();
      break;
    }
    case Mode::kThroughput:
      Answer([&] { StartManyAtOnce(host); }, kWorkers * kStartsOfWorker);
      break;
    case Mode::kStats:  // needs no host
      break;
    case Mode::kLatencies:
      PrintLatencies(host);
      break;
  }
  return 0;
}
