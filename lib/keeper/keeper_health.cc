// The keeper's probes of its container's health.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <utility>

#include "absl/time/clock.h"
#include "lib/keeper/health.h"
#include "lib/keeper/keeper.h"
#include "lib/keeper/spec_record.h"

namespace caisson::keeper {

void Keeper::BeginHealth() {
  if (!health_) {
    if (!record_.has_health()) return;
    health_.emplace(FromRecord(record_.health()), FromRecord(state_.health()));
  }
  health_->OnStarted(absl::Now());
  TellHealth(std::nullopt);
  ScheduleProbe();
}

void Keeper::ContinueHealth() {
  if (health_) ScheduleProbe();
}

void Keeper::EndHealth() {
  loop_.Cancel(probe_timer_);
  if (!probe_) return;
  loop_.Cancel(probe_->timeout);
  loop_.Forget(probe_->process.exit_fd());
  if (probe_->out.valid()) loop_.Forget(probe_->out.borrow());
  // Its destructor kills it.
  probe_.reset();
}

void Keeper::ScheduleProbe() {
  const auto delay = health_->NextProbeIn(absl::Now());
  if (!delay) return;
  loop_.Cancel(probe_timer_);
  probe_timer_ = loop_.After(*delay, [this] {
    probe_timer_ = 0;
    BeginProbe();
  });
}

void Keeper::BeginProbe() {
  ProcessSpec spec;
  spec.argv = ProbeCommand(FromRecord(record_.health()));
  spec.out = Stdio::Pipe();
  spec.err = Stdio::LikeStdout();
  health_->OnProbeStarted(absl::Now());
  auto process = run_->Exec(*launcher_, record_, std::move(spec));
  if (!process.ok()) {
    TellHealth(health_->OnProbeFailed(process.status(), absl::Now()));
    ScheduleProbe();
    return;
  }
  UniqueFd out = process->TakeStdout();
  ::fcntl(out.get(), F_SETFL, ::fcntl(out.get(), F_GETFL) | O_NONBLOCK);
  probe_.emplace(Probe{*std::move(process), std::move(out), 0});
  loop_.Watch(probe_->out.borrow(), POLLIN, [this] { ReadProbe(); });
  loop_.Watch(probe_->process.exit_fd(), POLLIN,
              [this] { EndProbe(/*timed_out=*/false); });
  probe_->timeout =
      loop_.After(health_->timeout(), [this] { EndProbe(/*timed_out=*/true); });
}

void Keeper::ReadProbe() {
  char buffer[4096];
  for (;;) {
    const ssize_t size = ::read(probe_->out.get(), buffer, sizeof(buffer));
    if (size > 0) {
      health_->OnProbeOutput({buffer, static_cast<size_t>(size)});
      continue;
    }
    if (size < 0 && errno == EINTR) continue;
    if (size == 0) loop_.Forget(probe_->out.borrow());
    return;
  }
}

void Keeper::EndProbe(bool timed_out) {
  ReadProbe();
  std::optional<HealthStatus> changed;
  if (timed_out) {
    // With what it has started: it is the first of a session of its own.
    if (const pid_t pid = probe_->process.pid(); pid > 1) {
      ::kill(-pid, SIGKILL);
    }
    changed = health_->OnProbeTimedOut(absl::Now());
  } else if (const auto exit = probe_->process.Wait(); exit.ok()) {
    changed = health_->OnProbeEnded(exit->shell_code(), absl::Now());
  } else {
    changed = health_->OnProbeFailed(exit.status(), absl::Now());
  }
  EndHealth();
  TellHealth(changed);
  ScheduleProbe();
}

void Keeper::TellHealth(std::optional<HealthStatus> changed) {
  state_.clear_health();
  ToRecord(health_->state(), *state_.mutable_health());
  WriteState();
  if (changed) {
    Tell(absl::StrCat("health_status: ", HealthStatusName(*changed)));
  }
}

}  // namespace caisson::keeper
