#include "lib/keeper/restart_policy.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"

namespace caisson {
namespace {

using Kind = RestartPolicy::Kind;

// moby, restartmanager.go.
constexpr absl::Duration kFirstDelay = absl::Milliseconds(100);
constexpr absl::Duration kLongestDelay = absl::Minutes(1);
constexpr absl::Duration kLongRun = absl::Seconds(10);

absl::string_view KindName(Kind kind) {
  switch (kind) {
    case Kind::kNo:
      return "no";
    case Kind::kOnFailure:
      return "on-failure";
    case Kind::kAlways:
      return "always";
    case Kind::kUnlessStopped:
      return "unless-stopped";
  }
  return "no";
}

bool RetriesLeft(const RestartPolicy& policy, int restarts) {
  return policy.max_retries == 0 || restarts < policy.max_retries;
}

}  // namespace

std::string RestartPolicy::ToString() const {
  if (kind != Kind::kOnFailure || max_retries == 0) {
    return std::string(KindName(kind));
  }
  return absl::StrCat(KindName(kind), ":", max_retries);
}

absl::StatusOr<RestartPolicy> ParseRestartPolicy(absl::string_view text) {
  if (text.empty()) return RestartPolicy();
  for (const Kind kind :
       {Kind::kNo, Kind::kOnFailure, Kind::kAlways, Kind::kUnlessStopped}) {
    if (text == KindName(kind)) return RestartPolicy{.kind = kind};
  }
  absl::string_view number = text;
  RestartPolicy policy = {.kind = Kind::kOnFailure};
  // Digits only, so that neither a sign nor a space gets through.
  if (absl::ConsumePrefix(&number, "on-failure:") && !number.empty() &&
      std::all_of(number.begin(), number.end(), absl::ascii_isdigit) &&
      absl::SimpleAtoi(number, &policy.max_retries)) {
    return policy;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Quoted(text),
                   ": expected no, on-failure[:RETRIES], always or "
                   "unless-stopped"));
}

namespace keeper {

std::optional<absl::Duration> RestartDecider::OnExit(const RunEnd& end,
                                                     absl::Time started,
                                                     absl::Time now) {
  if (now - started >= kLongRun) delay_ = absl::ZeroDuration();
  if (end.stopped_by_user) return std::nullopt;
  switch (policy_.kind) {
    case Kind::kNo:
      return std::nullopt;
    case Kind::kOnFailure:
      if (end.exit_code == 0 || !RetriesLeft(policy_, restarts_)) {
        return std::nullopt;
      }
      break;
    case Kind::kAlways:
    case Kind::kUnlessStopped:
      break;
  }
  delay_ = std::clamp(delay_ * 2, kFirstDelay, kLongestDelay);
  ++restarts_;
  return delay_;
}

bool StartsOnRecovery(const RestartPolicy& policy, int exit_code,
                      bool stopped_by_user, int restarts) {
  switch (policy.kind) {
    case Kind::kNo:
      return false;
    case Kind::kOnFailure:
      return !stopped_by_user && exit_code != 0 &&
             RetriesLeft(policy, restarts);
    case Kind::kAlways:
      return true;
    case Kind::kUnlessStopped:
      return !stopped_by_user;
  }
  return false;
}

}  // namespace keeper
}  // namespace caisson
