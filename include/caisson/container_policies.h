// When a container is started again, and how its health is asked for: Docker's
// --restart and HEALTHCHECK.
//
//   spec.restart = *caisson::ParseRestartPolicy("on-failure:3");
//   spec.health = caisson::HealthCheck{
//       .test = {"CMD-SHELL", "curl -f localhost || exit 1"}, .retries = 5};
//
// The structs are values: thread-compatible; the functions are thread-safe.
//
// Sources: Docker Engine API v1.41, RestartPolicy and HealthConfig; for what
// the documentation leaves open, moby's restartmanager.go and health.go.
#ifndef CAISSON_CONTAINER_POLICIES_H_
#define CAISSON_CONTAINER_POLICIES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace caisson {

// A container that is started again is so after 100 ms, which double with each
// time up to a minute, and are 100 ms again once it has run for 10 s. One that
// somebody stopped stays so until somebody starts it; after a reboot, and when
// its keeper was killed, see below.
struct RestartPolicy {
  enum class Kind {
    kNo,
    // Ended with another code than 0; so did one that a reboot cut short.
    kOnFailure,
    // However it ended; after a reboot also one that was stopped.
    kAlways,
    // However it ended; after a reboot not one that was stopped.
    kUnlessStopped,
  };
  Kind kind = Kind::kNo;
  // kOnFailure: so many times at most since somebody started it; 0: no limit.
  int max_retries = 0;

  // "no", "on-failure", "on-failure:3", "always", "unless-stopped".
  std::string ToString() const;
};

// The argument of --restart, as ToString() writes it; empty is "no".
// INVALID_ARGUMENT quotes `text` and says what was expected.
absl::StatusOr<RestartPolicy> ParseRestartPolicy(absl::string_view text);

// How to find out whether the program in a container works: a command that is
// run in it again and again, with the container's user, directory and
// environment.
struct HealthCheck {
  // {"CMD", "/program", "argument", ...}, {"CMD-SHELL", "command"}, which
  // /bin/sh runs, or {"NONE"}: there is no check.
  std::vector<std::string> test;
  // From the start of the container to the first probe, and from the end of one
  // to the start of the next; at least 1 ms.
  absl::Duration interval = absl::Seconds(30);
  // A probe that takes longer is killed and has failed; at least 1 ms.
  absl::Duration timeout = absl::Seconds(30);
  // For so long after the start probes come after `start_interval` until one
  // succeeds, and those that fail do not count.
  absl::Duration start_period;
  absl::Duration start_interval = absl::Seconds(5);  // at least 1 ms
  // After so many failures in a row the container is unhealthy; at least 1.
  int retries = 3;
};

enum class HealthStatus {
  kNone,      // there is no check
  kStarting,  // no probe has succeeded, and not enough have failed
  kHealthy,
  kUnhealthy,  // or the container has ended
};
// "none", "starting", "healthy", "unhealthy".
absl::string_view HealthStatusName(HealthStatus status);

// What became of one probe.
struct HealthProbe {
  absl::Time start;
  absl::Time end;
  // 0: healthy. -1: it took too long or could not be started; `output` says so.
  int exit_code = 0;
  // What it wrote to its standard output and error: at most 4096 bytes, then
  // "...".
  std::string output;
};

struct HealthState {
  HealthStatus status = HealthStatus::kNone;
  int failing_streak = 0;        // failures since the last success
  std::vector<HealthProbe> log;  // the last 5, oldest first
};

}  // namespace caisson

#endif  // CAISSON_CONTAINER_POLICIES_H_
