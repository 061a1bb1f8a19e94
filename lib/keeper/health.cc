#include "lib/keeper/health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {

absl::string_view HealthStatusName(HealthStatus status) {
  switch (status) {
    case HealthStatus::kNone:
      return "none";
    case HealthStatus::kStarting:
      return "starting";
    case HealthStatus::kHealthy:
      return "healthy";
    case HealthStatus::kUnhealthy:
      return "unhealthy";
  }
  return "none";
}

namespace keeper {
namespace {

// moby, health.go.
constexpr size_t kMaxOutput = 4096;
constexpr size_t kMaxLog = 5;
constexpr int kNoExitCode = -1;
constexpr absl::Duration kShortest = absl::Milliseconds(1);

constexpr char kNone[] = "NONE";
constexpr char kCommand[] = "CMD";
constexpr char kShellCommand[] = "CMD-SHELL";

absl::Status CheckDuration(absl::string_view field, absl::Duration value,
                           absl::Duration min) {
  if (value >= min && value < absl::InfiniteDuration()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("HealthCheck::", field, " is ", absl::FormatDuration(value),
                   "; want ", absl::FormatDuration(min), " or more"));
}

}  // namespace

absl::Status CheckHealthCheck(const HealthCheck& check) {
  const std::string kind = check.test.empty() ? "" : check.test.front();
  const bool command = kind == kCommand || kind == kShellCommand;
  if (!command && kind != kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat("HealthCheck::test begins with ", Quoted(kind),
                     "; want \"CMD\", \"CMD-SHELL\" or \"NONE\""));
  }
  if (command && check.test.size() < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "HealthCheck::test has nothing to execute after ", Quoted(kind)));
  }
  RETURN_IF_ERROR(CheckDuration("interval", check.interval, kShortest));
  RETURN_IF_ERROR(CheckDuration("timeout", check.timeout, kShortest));
  RETURN_IF_ERROR(
      CheckDuration("start_period", check.start_period, absl::ZeroDuration()));
  RETURN_IF_ERROR(
      CheckDuration("start_interval", check.start_interval, kShortest));
  if (check.retries >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "HealthCheck::retries is ", check.retries, "; want 1 or more"));
}

std::vector<std::string> ProbeCommand(const HealthCheck& check) {
  const std::vector<std::string>& test = check.test;
  std::vector<std::string> command;
  if (test.size() < 2) return command;
  if (test.front() == kShellCommand) {
    command = {"/bin/sh", "-c"};
  } else if (test.front() != kCommand) {
    return command;
  }
  command.insert(command.end(), test.begin() + 1, test.end());
  return command;
}

HealthMonitor::HealthMonitor(HealthCheck check, HealthState previous)
    : check_(std::move(check)), state_(std::move(previous)) {
  if (ProbeCommand(check_).empty()) {
    state_ = {};
  } else if (!enabled()) {
    state_.status = HealthStatus::kStarting;
  }
}

void HealthMonitor::OnStarted(absl::Time now) {
  if (!enabled()) return;
  started_ = now;
  state_.status = HealthStatus::kStarting;
  state_.failing_streak = 0;
}

void HealthMonitor::OnEnded() {
  if (enabled()) state_.status = HealthStatus::kUnhealthy;
}

std::optional<absl::Duration> HealthMonitor::NextProbeIn(absl::Time now) const {
  if (!enabled()) return std::nullopt;
  const bool starting = state_.status == HealthStatus::kStarting &&
                        now - started_ < check_.start_period;
  return starting ? check_.start_interval : check_.interval;
}

void HealthMonitor::OnProbeStarted(absl::Time now) {
  probe_started_ = now;
  output_.clear();
}

void HealthMonitor::OnProbeOutput(absl::string_view bytes) {
  // One more than is kept tells that there was more.
  absl::StrAppend(&output_, bytes.substr(0, kMaxOutput + 1 - output_.size()));
}

std::string HealthMonitor::TakeOutput() {
  if (output_.size() > kMaxOutput) {
    output_.resize(kMaxOutput);
    output_ += "...";
  }
  return std::exchange(output_, {});
}

std::optional<HealthStatus> HealthMonitor::OnProbeEnded(int exit_code,
                                                        absl::Time now) {
  return Record({.start = probe_started_,
                 .end = now,
                 .exit_code = exit_code,
                 .output = TakeOutput()});
}

std::optional<HealthStatus> HealthMonitor::OnProbeTimedOut(absl::Time now) {
  const std::string output = TakeOutput();
  return Record(
      {.start = probe_started_,
       .end = now,
       .exit_code = kNoExitCode,
       .output = absl::StrCat("Health check exceeded timeout (",
                              absl::FormatDuration(check_.timeout), ")",
                              output.empty() ? "" : ": ", output)});
}

std::optional<HealthStatus> HealthMonitor::OnProbeFailed(
    const absl::Status& why, absl::Time now) {
  OnProbeStarted(now);
  OnProbeOutput(why.message());
  return OnProbeEnded(kNoExitCode, now);
}

std::optional<HealthStatus> HealthMonitor::Record(HealthProbe probe) {
  if (!enabled()) return std::nullopt;
  const HealthStatus before = state_.status;
  Count(probe);
  std::vector<HealthProbe>& log = state_.log;
  log.push_back(std::move(probe));
  if (log.size() > kMaxLog) log.erase(log.begin(), log.end() - kMaxLog);
  if (state_.status == before) return std::nullopt;
  return state_.status;
}

void HealthMonitor::Count(const HealthProbe& probe) {
  if (probe.exit_code == 0) {
    state_.failing_streak = 0;
    state_.status = HealthStatus::kHealthy;
    return;
  }
  // When the probe began counts, not when it ended.
  if (state_.status == HealthStatus::kStarting &&
      probe.start - started_ < check_.start_period) {
    return;
  }
  ++state_.failing_streak;
  if (state_.failing_streak >= check_.retries) {
    state_.status = HealthStatus::kUnhealthy;
  }
}

}  // namespace keeper
}  // namespace caisson
