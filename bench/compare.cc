// Runs benchmark programs side by side, one round of each in turn, and prints
// how they compare.
//
// Rounds are interleaved because machines are noisy: what disturbs one program
// disturbs the one that it is compared with. The kernel cleans up behind a
// start when that is over: so each program does some rounds that are not
// measured before the one that is, and the order of the programs changes from
// round to round. The ratio is that of the medians; its spread comes from the
// quartiles of the ratios of neighbouring rounds.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

extern char** environ;

namespace {

constexpr char kUsage[] =
    R"(usage: compare [OPTION...] ROW... -- PROGRAM...

  --rounds N      500 by default
  --warm-up N     rounds that do not count, at the beginning: 5 by default
  --unmeasured N  more of them, of each program before each of its rounds: 2
  --before FILE   a program to be run before each round, with the name of the
                  one whose round it is
  --json FILE     write one JSON object a row

PROGRAM is NAME=COMMAND LINE: a program that does one round for each byte on its
standard input, answers each with a duration in ns (8 bytes), and cleans up and
ends when that is closed. ROW is NAME:AGAINST, both names of programs. All
programs run one after another in every round; one line is printed for each row,
and with --json one JSON object a line.
)";

volatile sig_atomic_t g_stop = 0;

// The programs are told to end by the end of their input, not by signals, and
// so clean up: a terminal must not reach them.
void StopOnSignals() {
  struct sigaction action = {};
  action.sa_handler = [](int) { g_stop = 1; };
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) {
    sigaction(signal, &action, nullptr);
  }
  signal(SIGPIPE, SIG_IGN);
}

[[noreturn]] void Fail(const std::string& message) {
  std::cerr << "compare: " << message << "\n";
  exit(1);
}

struct Program {
  std::string name;
  pid_t pid = 0;
  int to = -1;
  int from = -1;
  std::vector<double> us;

  double Round() {
    uint64_t ns = 0;
    if (write(to, "g", 1) != 1 || read(from, &ns, sizeof(ns)) != sizeof(ns)) {
      std::cerr << "compare: " << name << " stopped answering\n";
      g_stop = 1;  // the others shall clean up
    }
    return static_cast<double>(ns) / 1000;
  }
};

Program Spawn(const std::string& text) {
  const std::vector<std::string> parts =
      absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.size() != 2) Fail(text + " is not NAME=COMMAND");
  const std::vector<std::string> words =
      absl::StrSplit(parts[1], ' ', absl::SkipEmpty());
  std::vector<char*> argv;
  for (const std::string& word : words) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) Fail("pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  Program program = {.name = parts[0], .to = in[1], .from = out[0]};
  if (words.empty() || posix_spawn(&program.pid, argv[0], &actions, &attributes,
                                   argv.data(), environ) != 0) {
    Fail(text + " cannot be started");
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(in[0]);
  close(out[1]);
  return program;
}

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q *
                                    static_cast<double>(values.size() - 1))];
}

const Program& Find(const std::vector<Program>& programs,
                    const std::string& name) {
  for (const Program& program : programs) {
    if (program.name == name) return program;
  }
  Fail("no program is called " + name);
}

struct Options {
  int rounds = 500;
  int warm_up = 5;
  int unmeasured = 2;
  std::string before;
  std::string json;
  std::vector<std::string> rows;
  std::vector<std::string> programs;
};

Options Parse(int argc, char** argv) {
  Options options;
  int i = 1;
  for (; i < argc && std::string(argv[i]) != "--"; ++i) {
    const std::string arg = argv[i];
    int* number = arg == "--rounds"       ? &options.rounds
                  : arg == "--warm-up"    ? &options.warm_up
                  : arg == "--unmeasured" ? &options.unmeasured
                                          : nullptr;
    if (number != nullptr && i + 1 < argc &&
        absl::SimpleAtoi(argv[i + 1], number) && *number >= 0 &&
        options.rounds > 0) {
      ++i;
    } else if (arg == "--before" && i + 1 < argc) {
      options.before = argv[++i];
    } else if (arg == "--json" && i + 1 < argc) {
      options.json = argv[++i];
    } else if (arg[0] != '-') {
      options.rows.push_back(arg);
    } else {
      (arg == "--help" ? std::cout : std::cerr) << kUsage;
      exit(arg == "--help" ? 0 : 2);
    }
  }
  for (++i; i < argc; ++i) options.programs.push_back(argv[i]);
  if (options.rows.empty() || options.programs.empty()) {
    std::cerr << kUsage;
    exit(2);
  }
  return options;
}

void RunBefore(const Options& options, const Program& program) {
  if (options.before.empty()) return;
  char* argv[] = {const_cast<char*>(options.before.c_str()),
                  const_cast<char*>(program.name.c_str()), nullptr};
  pid_t pid = 0;
  int status = 0;
  if (posix_spawn(&pid, argv[0], nullptr, nullptr, argv, environ) == 0 &&
      waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
      WEXITSTATUS(status) == 0) {
    return;
  }
  std::cerr << "compare: " << options.before << " " << program.name
            << " failed\n";
  g_stop = 1;
}

// False if a signal ended it early.
bool Measure(std::vector<Program>& programs, const Options& options) {
  const int rounds = options.rounds;
  const bool progress = isatty(STDERR_FILENO) == 1;
  std::vector<size_t> order(programs.size());
  std::iota(order.begin(), order.end(), 0);
  std::minstd_rand random;  // the same orders in every run
  for (int round = -options.warm_up; round < rounds && !g_stop; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (size_t i : order) {
      for (int n = 0; n < options.unmeasured; ++n) {
        programs[i].Round();
      }
      RunBefore(options, programs[i]);
      if (g_stop) break;
      const double us = programs[i].Round();
      if (round >= 0) programs[i].us.push_back(us);
    }
    if (progress && round % 50 == 0) {
      std::cerr << absl::StrFormat("\rround %d of %d ", std::max(round, 0),
                                   rounds);
    }
  }
  if (progress) std::cerr << "\r                      \r";
  return !g_stop;
}

void Report(const std::vector<Program>& programs, const Options& options) {
  std::ofstream file;
  if (!options.json.empty()) {
    file.open(options.json, std::ios::app);
    if (!file) Fail(options.json + " cannot be written");
  }
  std::cout << absl::StrFormat("%-16s %10s %10s   %-16s %10s %7s  %s\n", "row",
                               "median us", "p90 us", "against", "median us",
                               "ratio", "quartiles");
  for (const std::string& row : options.rows) {
    const std::vector<std::string> names = absl::StrSplit(row, ':');
    if (names.size() != 2) Fail(row + " is not NAME:AGAINST");
    const Program& a = Find(programs, names[0]);
    const Program& b = Find(programs, names[1]);
    std::vector<double> ratios;
    for (size_t r = 0; r < a.us.size(); ++r) {
      ratios.push_back(a.us[r] / b.us[r]);
    }
    const double median = Quantile(a.us, 0.5);
    const double against = Quantile(b.us, 0.5);
    const double q1 = Quantile(ratios, 0.25);
    const double q3 = Quantile(ratios, 0.75);
    std::cout << absl::StrFormat(
        "%-16s %10.1f %10.1f   %-16s %10.1f %7.2f  %.2f-%.2f\n", a.name, median,
        Quantile(a.us, 0.9), b.name, against, median / against, q1, q3);
    if (!file.is_open()) continue;
    file << absl::StrFormat(
        "{\"name\": \"%s\", \"unit\": \"us\", \"median\": %.1f, \"p90\": "
        "%.1f, \"n\": %d, \"against\": \"%s\", \"against_median\": %.1f, "
        "\"ratio\": %.3f, \"ratio_q1\": %.3f, \"ratio_q3\": %.3f}\n",
        a.name, median, Quantile(a.us, 0.9), a.us.size(), b.name, against,
        median / against, q1, q3);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  StopOnSignals();
  std::vector<Program> programs;
  for (const std::string& program : options.programs) {
    programs.push_back(Spawn(program));
  }
  const bool complete = Measure(programs, options);
  if (complete) Report(programs, options);

  for (Program& program : programs) close(program.to);
  bool ok = complete;
  for (Program& program : programs) {
    int status = 0;
    waitpid(program.pid, &status, 0);
    ok = ok && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  return ok ? 0 : 1;
}
