// Runs a program that nobody trusts and says how it ended; see README.md.
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <stdexcept>
#include <string>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/caisson.h"

namespace {

constexpr char kUsage[] =
    "usage: judge ROOT PROGRAM [ARGUMENT...]   run PROGRAM of the directory\n"
    "       judge --explain                    print what it may do\n"
    "       judge --explain-log                say which rule refused what "
    "the\n"
    "                                          kernel logged, line by line\n";

constexpr absl::Duration kTimeLimit = absl::Seconds(5);

template <typename T>
T Get(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

caisson::SecurityOptions Rules() {
  caisson::SecurityOptions rules;
  rules.drop_capabilities = {"ALL"};
  rules.no_network = true;
  rules.no_new_processes = true;
  rules.no_debugging = true;
  rules.kill_on_violation = true;
  for (const char* path : {"/bin", "/lib", "/lib64", "/usr", "/etc"}) {
    rules.path_rules.push_back({.path = path,
                                .access = caisson::PathAccess::kReadExecute,
                                .if_exists = true});
  }
  rules.writable_paths = {"/tmp"};
  // An older kernel lets a program truncate by path; the root is a copy anyway.
  rules.unsafe_landlock_best_effort = caisson::LandlockBestEffort{};
  return rules;
}

int ExplainLog(const caisson::SecurityPolicy& policy) {
  for (std::string line; std::getline(std::cin, line);) {
    const auto event = caisson::ParseAuditRecord(line);
    if (event.ok()) std::cout << policy.ExplainViolation(*event) << "\n";
  }
  return 0;
}

int Judge(const caisson::SecurityPolicy& policy, char** words) {
  caisson::UniqueFd directory(
      ::open(words[0], O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) throw std::runtime_error("ROOT is no directory");
  auto root = Get(caisson::RootFs::Create(
      {.layers = {directory.borrow()}, .writes = caisson::RootWrites::kTmpfs}));
  auto launcher = Get(caisson::Launcher::Create());
  caisson::ProcessSpec spec;
  for (char** word = words + 1; *word != nullptr; ++word) {
    spec.argv.push_back(*word);
  }
  spec.user = "65534:65534";
  spec.in = caisson::Stdio::Inherit(caisson::BorrowedFd(STDIN_FILENO));
  spec.out = caisson::Stdio::Inherit(caisson::BorrowedFd(STDOUT_FILENO));
  spec.root = &root;
  spec.security = &policy;
  auto process = Get(launcher.Start(spec));
  const auto status = process.Wait(absl::Now() + kTimeLimit);
  if (absl::IsDeadlineExceeded(status.status())) {
    std::cerr << "time limit exceeded\n";
  } else if (Get(status).signal == SIGSYS) {
    std::cerr << "forbidden system call; the kernel's log has its number\n";
  } else {
    std::cerr << Get(status).ToString() << "\n";
    return status->success() ? 0 : 1;
  }
  return 1;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string first = argc > 1 ? argv[1] : "";
  const auto policy = Get(caisson::SecurityPolicy::Create(Rules()));
  if (first == "--explain-log") return ExplainLog(policy);
  if (first == "--explain") {
    std::cout << policy.Explain();
    return 0;
  }
  if (argc < 3) {
    std::cerr << kUsage;
    return 2;
  }
  return Judge(policy, argv + 1);
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 3;
}
