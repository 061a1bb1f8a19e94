// Runs a command in a container with limits and shows what it uses, live, as
// `docker stats` does: CgroupLimits, CgroupStatsReader and CgroupEvents in one
// poll loop. See --help.
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "caisson/caisson.h"

namespace {

constexpr char kUsage[] =
    R"(usage: limits [OPTIONS] ROOT COMMAND [ARGUMENT...]

Runs a command of the directory ROOT in a container and shows on standard error
what it uses: in place on a terminal, else one line for each measurement. Exits
with its exit code: 128 + signal if a signal ended it, 125 if the container could
not be set up. Ctrl-C kills it. Needs root.

  -m, --memory BYTES   limit memory, without swap; with k, m or g
  -c, --cpus NUMBER    limit CPU time, in CPUs
  -p, --pids N         limit the number of processes
  -i, --interval S     seconds between measurements, 1 by default
      --plain          one line for each measurement on a terminal, too
  -h, --help           print this

CPU %      of one CPU since the measurement before
MEMORY     used, without page cache that was not used lately
WAITED     share of the last 10 s in which something waited for memory
THROTTLED  how long the limit of CPU time stopped it
Where the kernel does not tell something, there is a dash.
)";

// Thrown for what ends the program, so that everything made so far is undone.
struct Failure {
  std::string message;
  int code = 125;
};

template <typename T>
T Check(absl::StatusOr<T> value) {
  if (!value.ok()) throw Failure{std::string(value.status().message())};
  return *std::move(value);
}

struct Options {
  caisson::CgroupLimits limits;
  absl::Duration interval = absl::Seconds(1);
  bool plain = false;
  std::string root;
  std::vector<std::string> command;
};

double ParseNumber(absl::string_view text, double min, double max) {
  double value = 0;
  if (absl::SimpleAtod(text, &value) && value >= min && value <= max) {
    return value;
  }
  throw Failure{
      absl::StrCat(text, ": expected a number from ", min, " to ", max), 2};
}

Options Parse(int argc, char** argv) {
  static constexpr option kOptions[] = {
      {"memory", required_argument, nullptr, 'm'},
      {"cpus", required_argument, nullptr, 'c'},
      {"pids", required_argument, nullptr, 'p'},
      {"interval", required_argument, nullptr, 'i'},
      {"plain", no_argument, nullptr, 'P'},
      {"help", no_argument, nullptr, 'h'},
      {nullptr, 0, nullptr, 0}};
  Options options;
  int letter;
  while ((letter = getopt_long(argc, argv, "+m:c:p:i:h", kOptions, nullptr)) !=
         -1) {
    switch (letter) {
      case 'm':
        options.limits.memory_max = Check(caisson::ParseBytes(optarg));
        options.limits.memory_swap_max = 0;
        break;
      case 'c':
        options.limits.cpu_quota = caisson::CpuQuota{
            absl::Milliseconds(100) * ParseNumber(optarg, 0.01, 4096)};
        break;
      case 'p':
        options.limits.pids_max =
            static_cast<int64_t>(ParseNumber(optarg, 1, 4194304));
        break;
      case 'i':
        options.interval = absl::Seconds(ParseNumber(optarg, 0.01, 3600));
        break;
      case 'P':
        options.plain = true;
        break;
      case 'h':
        std::cout << kUsage;
        exit(0);
      default:
        throw Failure{"see --help", 2};
    }
  }
  if (argc - optind < 2) throw Failure{"expected ROOT COMMAND; see --help", 2};
  options.root = argv[optind];
  options.command.assign(argv + optind + 1, argv + argc);
  return options;
}

// "1.5 MiB"
std::string Bytes(std::optional<int64_t> bytes) {
  if (!bytes.has_value()) return "-";
  if (*bytes == caisson::CgroupLimits::kUnlimited) return "no limit";
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(*bytes);
  size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return unit == 0 ? absl::StrCat(*bytes, " B")
                   : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string Number(std::optional<int64_t> number) {
  if (!number.has_value()) return "-";
  return *number == caisson::CgroupLimits::kUnlimited ? "no limit"
                                                      : absl::StrCat(*number);
}

std::string Percent(std::optional<double> percent) {
  return percent.has_value() ? absl::StrFormat("%.1f", *percent) : "-";
}

// Draws the table.
class Display final {
 public:
  explicit Display(bool in_place) : in_place_(in_place) {}

  void Show(const caisson::CgroupStats& before,
            const caisson::CgroupStats& now) {
    const auto memory = caisson::MemoryWithoutInactiveFile(now.memory);
    std::optional<double> waited;
    if (now.memory.pressure.has_value() &&
        now.memory.pressure->some.has_value()) {
      waited = now.memory.pressure->some->avg10;
    }
    const std::string row = Row(
        Percent(CpuPercent(before, now)),
        absl::StrCat(Bytes(memory), " / ", Bytes(now.memory.limit)),
        absl::StrCat(Number(now.pids.current), " / ", Number(now.pids.limit)),
        absl::StrCat(Bytes(now.io.read_bytes()), " / ",
                     Bytes(now.io.write_bytes())),
        Percent(waited),
        now.cpu.throttled.has_value()
            ? absl::StrFormat("%.2f s",
                              absl::ToDoubleSeconds(*now.cpu.throttled))
            : "-");
    if (!in_place_) {
      if (!header_) std::cerr << Header();
      header_ = true;
      std::cerr << row << std::flush;
      return;
    }
    Clear();
    std::cerr << Header() << row << std::flush;
    drawn_ = true;
  }

  // The table stays where it is.
  void Keep() { drawn_ = false; }

  // A line that stays, above the table.
  void Say(const std::string& line) {
    Clear();
    std::cerr << line << "\n" << std::flush;
  }

 private:
  static std::string Row(const std::string& cpu, const std::string& memory,
                         const std::string& pids, const std::string& io,
                         const std::string& waited,
                         const std::string& throttled) {
    return absl::StrFormat("%8s  %-23s  %-15s  %-21s  %8s  %10s\n", cpu, memory,
                           pids, io, waited, throttled);
  }
  static std::string Header() {
    return Row("CPU %", "MEMORY / LIMIT", "PIDS / LIMIT", "READ / WRITTEN",
               "WAITED %", "THROTTLED");
  }
  // Back to where the table began, if it is still the last on the terminal.
  void Clear() {
    if (drawn_) std::cerr << "\x1b[2A\x1b[J";
    drawn_ = false;
  }

  bool in_place_;
  bool drawn_ = false;
  bool header_ = false;
};

// What a host that has everything in one loop waits for.
class Timer final {
 public:
  explicit Timer(absl::Duration interval)
      : fd_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
    const itimerspec when = {absl::ToTimespec(interval),
                             absl::ToTimespec(interval)};
    timerfd_settime(fd_.get(), 0, &when, nullptr);
  }
  int fd() const { return fd_.get(); }
  void Take() const {
    uint64_t ticks;
    (void)!read(fd_.get(), &ticks, sizeof(ticks));
  }

 private:
  caisson::UniqueFd fd_;
};

caisson::UniqueFd WatchSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return caisson::UniqueFd(signalfd(-1, &set, SFD_CLOEXEC));
}

// All that this host can tell of what is worth a line.
std::vector<caisson::CgroupEvents> Subscribe(const caisson::Cgroup& group) {
  std::vector<caisson::CgroupEvents> all;
  for (const caisson::CgroupEventKind kind :
       {caisson::CgroupEventKind::kOomKill, caisson::CgroupEventKind::kPidsMax,
        caisson::CgroupEventKind::kHigh}) {
    auto events = group.Watch({.kinds = {kind}});
    if (events.ok()) all.push_back(*std::move(events));
  }
  auto pressure = group.WatchPressure({.stall = absl::Milliseconds(200)});
  if (pressure.ok()) all.push_back(*std::move(pressure));
  return all;
}

std::string Describe(const caisson::CgroupEvent& event) {
  switch (event.kind) {
    case caisson::CgroupEventKind::kOomKill:
      return absl::StrCat("out of memory: ", event.count, " killed");
    case caisson::CgroupEventKind::kPidsMax:
      return absl::StrCat("limit of processes: ", event.count, " forks failed");
    case caisson::CgroupEventKind::kPressure:
      return "waited for memory for more than 0.2 s of 2 s";
    default:
      return absl::StrCat(caisson::CgroupEventName(event.kind), ": ",
                          event.count);
  }
}

class Run final {
 public:
  Run(const caisson::Cgroup& group, const caisson::Process& process,
      const Options& options)
      : process_(process),
        reader_(Check(group.OpenStats())),
        events_(Subscribe(group)),
        timer_(options.interval),
        signals_(WatchSignals()),
        display_(!options.plain && isatty(STDERR_FILENO)),
        last_(Check(reader_.Read())) {}

  // Until the command has ended.
  caisson::ExitStatus Loop() {
    std::vector<pollfd> polls = {
        {.fd = process_.exit_fd().get(), .events = POLLIN},
        {.fd = timer_.fd(), .events = POLLIN},
        {.fd = signals_.get(), .events = POLLIN}};
    for (const caisson::CgroupEvents& events : events_) {
      polls.push_back({.fd = events.fd().get(), .events = POLLIN});
    }
    while (polls[0].revents == 0) {
      if (poll(polls.data(), polls.size(), -1) < 0) continue;
      for (size_t i = 0; i < events_.size(); ++i) {
        if (polls[3 + i].revents != 0) Tell(events_[i]);
      }
      if (polls[2].revents != 0) {
        signalfd_siginfo info;
        (void)!read(signals_.get(), &info, sizeof(info));
        (void)process_.Signal(SIGKILL);
      }
      if (polls[1].revents == 0) continue;
      timer_.Take();
      Measure();
    }
    Measure();
    // What came with the end.
    for (const caisson::CgroupEvents& events : events_) {
      pollfd ready = {.fd = events.fd().get(), .events = POLLIN};
      if (poll(&ready, 1, 0) > 0) Tell(events);
    }
    return Check(process_.Wait());
  }

  void Summarize(const caisson::ExitStatus& status) {
    const auto& memory = last_.memory;
    display_.Keep();
    display_.Say(absl::StrCat(
        status.ToString(), "; ",
        absl::FormatDuration(last_.cpu.usage.value_or(absl::ZeroDuration())),
        " of CPU, ",
        Bytes(memory.peak.has_value() ? memory.peak : memory.usage),
        memory.peak.has_value() ? " at most" : " at the end"));
  }

 private:
  void Tell(const caisson::CgroupEvents& events) {
    for (const caisson::CgroupEvent& event : Check(events.Read())) {
      display_.Say(Describe(event));
    }
  }
  void Measure() {
    caisson::CgroupStats now = Check(reader_.Read());
    display_.Show(last_, now);
    last_ = std::move(now);
  }

  const caisson::Process& process_;
  caisson::CgroupStatsReader reader_;
  std::vector<caisson::CgroupEvents> events_;
  Timer timer_;
  caisson::UniqueFd signals_;
  Display display_;
  caisson::CgroupStats last_;
};

int Main(const Options& options) {
  const caisson::UniqueFd directory(
      open(options.root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) {
    throw Failure{absl::StrCat(options.root, " is no directory")};
  }
  auto cgroups = Check(caisson::CgroupParent::Open({}));
  auto group = Check(cgroups.Create(
      {.name = "limits",
       .limits = options.limits,
       .controllers = caisson::CgroupStatsControllers(cgroups.layout())}));
  auto root = Check(caisson::RootFs::Create(
      {.layers = {directory.borrow()}, .writes = caisson::RootWrites::kTmpfs}));
  auto policy = Check(caisson::SecurityPolicy::Create({}));
  auto launcher = Check(caisson::Launcher::Create());
  caisson::ProcessSpec spec;
  spec.argv = options.command;
  spec.in = caisson::Stdio::Inherit(caisson::BorrowedFd(STDIN_FILENO));
  spec.out = caisson::Stdio::Inherit(caisson::BorrowedFd(STDOUT_FILENO));
  spec.err = caisson::Stdio::Inherit(caisson::BorrowedFd(STDERR_FILENO));
  spec.root = &root;
  spec.cgroup = &group;
  spec.security = &policy;
  spec.init = true;
  // Made, but not started before somebody watches.
  auto process = Check(launcher.CreateProcess(spec));
  Run run(group, process, options);
  if (const absl::Status started = process.Start(); !started.ok()) {
    throw Failure{std::string(started.message())};
  }
  const caisson::ExitStatus status = run.Loop();
  run.Summarize(status);
  return status.shell_code();
}

}  // namespace

int main(int argc, char** argv) try {
  return Main(Parse(argc, argv));
} catch (const Failure& failure) {
  std::cerr << "limits: " << failure.message << "\n";
  return failure.code;
}
