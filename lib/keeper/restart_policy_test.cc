#include "lib/keeper/restart_policy.h"

#include <vector>

#include "lib/base/status_matchers.h"

namespace caisson::keeper {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = RestartPolicy::Kind;

constexpr absl::Time kStart = absl::FromUnixSeconds(1795302000);
constexpr RunEnd kSuccess = {.exit_code = 0};
constexpr RunEnd kFailure = {.exit_code = 1};

// Milliseconds until it is started again after a run of `ran`; -1: never.
int64_t Delay(RestartDecider& decider, const RunEnd& end,
              absl::Duration ran = absl::ZeroDuration()) {
  const auto delay = decider.OnExit(end, kStart, kStart + ran);
  return delay.has_value() ? absl::ToInt64Milliseconds(*delay) : -1;
}

TEST(RestartPolicyTest, Notation) {
  for (const char* text :
       {"no", "on-failure", "on-failure:3", "always", "unless-stopped"}) {
    ASSERT_OK_AND_ASSIGN(const RestartPolicy policy, ParseRestartPolicy(text));
    EXPECT_EQ(policy.ToString(), text);
  }
  EXPECT_EQ(ParseRestartPolicy("on-failure:3")->max_retries, 3);
  EXPECT_EQ(ParseRestartPolicy("")->kind, Kind::kNo);
  EXPECT_EQ(ParseRestartPolicy("on-failure:0")->ToString(), "on-failure");
  for (const char* text :
       {"yes", "Always", "always:3", "no:1", "unless-stopped:0",
        "on-failure:", "on-failure:-1", "on-failure:+1", "on-failure: 1",
        "on-failure:1:2", "on-failure:99999999999", "on-failure:x", " no"}) {
    EXPECT_THAT(ParseRestartPolicy(text),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("expected no, on-failure[:RETRIES]")))
        << text;
  }
}

TEST(RestartPolicyTest, WhoIsStartedAgain) {
  for (const RunEnd& end : {kSuccess, kFailure, RunEnd{.exit_code = 137}}) {
    RestartDecider no({.kind = Kind::kNo});
    EXPECT_EQ(Delay(no, end), -1);
    RestartDecider always({.kind = Kind::kAlways});
    EXPECT_EQ(Delay(always, end), 100);
    RestartDecider unless_stopped({.kind = Kind::kUnlessStopped});
    EXPECT_EQ(Delay(unless_stopped, end), 100);
    RestartDecider on_failure({.kind = Kind::kOnFailure});
    EXPECT_EQ(Delay(on_failure, end), end.exit_code == 0 ? -1 : 100);
  }
}

TEST(RestartPolicyTest, WhatIsStoppedStaysSo) {
  for (const Kind kind :
       {Kind::kNo, Kind::kOnFailure, Kind::kAlways, Kind::kUnlessStopped}) {
    RestartDecider decider({.kind = kind});
    EXPECT_EQ(Delay(decider, {.exit_code = 143, .stopped_by_user = true}), -1);
    EXPECT_EQ(decider.restarts(), 0);
  }
}

TEST(RestartPolicyTest, DelaysDoubleUpToAMinute) {
  RestartDecider decider({.kind = Kind::kAlways});
  std::vector<int64_t> delays;
  for (int i = 0; i < 12; ++i) delays.push_back(Delay(decider, kFailure));
  EXPECT_THAT(delays, ElementsAre(100, 200, 400, 800, 1600, 3200, 6400, 12800,
                                  25600, 51200, 60000, 60000));
  EXPECT_EQ(decider.restarts(), 12);
  // A run that is almost long enough.
  EXPECT_EQ(Delay(decider, kFailure, absl::Seconds(10) - absl::Nanoseconds(1)),
            60000);
  EXPECT_EQ(Delay(decider, kFailure, absl::Seconds(10)), 100);
  EXPECT_EQ(Delay(decider, kFailure), 200);
  // A clock that was set back.
  EXPECT_EQ(Delay(decider, kFailure, -absl::Hours(1)), 400);
}

TEST(RestartPolicyTest, RetriesAreCountedFromTheFirstStart) {
  RestartDecider decider({.kind = Kind::kOnFailure, .max_retries = 3});
  EXPECT_EQ(Delay(decider, kFailure), 100);
  EXPECT_EQ(Delay(decider, kFailure, absl::Hours(1)), 100);
  EXPECT_EQ(Delay(decider, kFailure), 200);
  EXPECT_EQ(Delay(decider, kFailure), -1);
  EXPECT_EQ(Delay(decider, kFailure, absl::Hours(1)), -1);
  EXPECT_EQ(decider.restarts(), 3);
  decider.SetPolicy({.kind = Kind::kOnFailure, .max_retries = 4});
  EXPECT_EQ(Delay(decider, kFailure), 100);
  EXPECT_EQ(Delay(decider, kFailure), -1);
}

TEST(RestartPolicyTest, WhoIsStartedAfterAReboot) {
  struct Case {
    const char* policy;
    int exit_code;
    bool stopped;
    int restarts;
    bool starts;
  };
  for (const Case& c : std::vector<Case>{
           {"no", 137, false, 0, false},
           {"always", 0, false, 0, true},
           {"always", 143, true, 0, true},
           {"unless-stopped", 137, false, 0, true},
           {"unless-stopped", 0, false, 0, true},
           {"unless-stopped", 143, true, 0, false},
           {"on-failure", 137, false, 99, true},
           {"on-failure", 0, false, 0, false},
           {"on-failure", 143, true, 0, false},
           {"on-failure:2", 137, false, 1, true},
           {"on-failure:2", 1, false, 2, false},
       }) {
    EXPECT_EQ(StartsOnRecovery(*ParseRestartPolicy(c.policy), c.exit_code,
                               c.stopped, c.restarts),
              c.starts)
        << c.policy << " " << c.exit_code << " " << c.stopped;
  }
}

}  // namespace
}  // namespace caisson::keeper
