#include "lib/keeper/health.h"

#include "lib/base/status_matchers.h"

namespace caisson::keeper {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
absl::Time At(double seconds) {
  return absl::FromUnixSeconds(1795302000) + absl::Seconds(seconds);
}

HealthCheck Check() { return {.test = {"CMD", "probe"}}; }

// A probe from `start` on that takes a second; the new status or "".
std::string Probe(HealthMonitor& monitor, int exit_code, double start) {
  monitor.OnProbeStarted(At(start));
  const auto changed = monitor.OnProbeEnded(exit_code, At(start + 1));
  if (!changed.has_value()) return "";
  EXPECT_EQ(*changed, monitor.state().status);
  return std::string(HealthStatusName(*changed));
}

TEST(HealthTest, ChecksItsOptions) {
  EXPECT_OK(CheckHealthCheck(Check()));
  EXPECT_OK(CheckHealthCheck({.test = {"NONE"}}));
  EXPECT_OK(CheckHealthCheck({.test = {"CMD-SHELL", "exit 1"}}));
  const auto refuses = [](auto change, const char* message) {
    HealthCheck check = Check();
    change(check);
    EXPECT_THAT(CheckHealthCheck(check),
                StatusIs(kInvalid, HasSubstr(message)));
  };
  refuses([](HealthCheck& c) { c.test.clear(); }, "test begins with \"\"");
  refuses([](HealthCheck& c) { c.test = {"cmd", "x"}; }, "begins with \"cmd\"");
  refuses([](HealthCheck& c) { c.test = {"CMD"}; }, "nothing to execute");
  refuses([](HealthCheck& c) { c.test = {"CMD-SHELL"}; }, "nothing to execute");
  refuses([](HealthCheck& c) { c.interval = absl::ZeroDuration(); },
          "interval is 0; want 1ms or more");
  refuses([](HealthCheck& c) { c.timeout = absl::Microseconds(999); },
          "timeout is 999us");
  refuses([](HealthCheck& c) { c.start_period = -absl::Seconds(1); },
          "start_period is -1s; want 0 or more");
  refuses([](HealthCheck& c) { c.start_interval = absl::InfiniteDuration(); },
          "start_interval is inf");
  refuses([](HealthCheck& c) { c.retries = 0; }, "retries is 0");
}

TEST(HealthTest, Commands) {
  EXPECT_THAT(ProbeCommand({.test = {"CMD", "a", "b"}}), ElementsAre("a", "b"));
  EXPECT_THAT(ProbeCommand({.test = {"CMD-SHELL", "a || b"}}),
              ElementsAre("/bin/sh", "-c", "a || b"));
  for (const std::vector<std::string>& test :
       std::vector<std::vector<std::string>>{
           {}, {"NONE"}, {"NONE", "x"}, {"CMD"}, {"OTHER", "x"}}) {
    EXPECT_THAT(ProbeCommand({.test = test}), IsEmpty());
  }
}

TEST(HealthTest, WithoutACheckThereIsNoStatus) {
  HealthMonitor monitor({.test = {"NONE"}},
                        {.status = HealthStatus::kHealthy, .log = {{}}});
  monitor.OnStarted(At(0));
  EXPECT_EQ(monitor.NextProbeIn(At(0)), std::nullopt);
  EXPECT_EQ(Probe(monitor, 1, 5), "");
  EXPECT_EQ(monitor.state().status, HealthStatus::kNone);
  EXPECT_THAT(monitor.state().log, IsEmpty());
}

TEST(HealthTest, HealthyWithTheFirstSuccess) {
  HealthMonitor monitor(Check());
  monitor.OnStarted(At(0));
  EXPECT_EQ(HealthStatusName(monitor.state().status), "starting");
  EXPECT_EQ(monitor.NextProbeIn(At(0)), absl::Seconds(30));
  EXPECT_EQ(Probe(monitor, 1, 30), "");
  EXPECT_EQ(monitor.state().failing_streak, 1);
  EXPECT_EQ(Probe(monitor, 0, 61), "healthy");
  EXPECT_EQ(monitor.state().failing_streak, 0);
  EXPECT_EQ(Probe(monitor, 0, 92), "");
}

TEST(HealthTest, UnhealthyAfterSoManyFailuresInARow) {
  HealthMonitor monitor(Check());
  monitor.OnStarted(At(0));
  EXPECT_EQ(Probe(monitor, 0, 30), "healthy");
  EXPECT_EQ(Probe(monitor, 1, 60), "");
  EXPECT_EQ(Probe(monitor, 2, 90), "");
  EXPECT_EQ(Probe(monitor, 0, 120), "");
  EXPECT_EQ(Probe(monitor, 1, 150), "");
  EXPECT_EQ(Probe(monitor, 127, 180), "");
  EXPECT_EQ(Probe(monitor, 1, 210), "unhealthy");
  EXPECT_EQ(Probe(monitor, 1, 240), "");
  EXPECT_EQ(monitor.state().failing_streak, 4);
  EXPECT_EQ(Probe(monitor, 0, 270), "healthy");
}

TEST(HealthTest, FailuresInTheStartPeriodDoNotCount) {
  HealthCheck check = Check();
  check.start_period = absl::Seconds(20);
  check.retries = 1;
  HealthMonitor monitor(check);
  monitor.OnStarted(At(0));
  EXPECT_EQ(monitor.NextProbeIn(At(0)), absl::Seconds(5));
  for (const double start : {5, 11, 17}) {
    EXPECT_EQ(Probe(monitor, 1, start), "");
    EXPECT_EQ(monitor.state().failing_streak, 0);
  }
  // It began in the period and ended after it.
  EXPECT_EQ(Probe(monitor, 1, 19.5), "");
  EXPECT_EQ(monitor.NextProbeIn(At(20.5)), absl::Seconds(30));
  EXPECT_EQ(Probe(monitor, 1, 20), "unhealthy");
}

TEST(HealthTest, ASuccessEndsTheStartPeriod) {
  HealthCheck check = Check();
  check.start_period = absl::Seconds(60);
  check.retries = 2;
  HealthMonitor monitor(check);
  monitor.OnStarted(At(0));
  EXPECT_EQ(Probe(monitor, 0, 5), "healthy");
  EXPECT_EQ(monitor.NextProbeIn(At(6)), absl::Seconds(30));
  EXPECT_EQ(Probe(monitor, 1, 36), "");
  EXPECT_EQ(monitor.state().failing_streak, 1);
  EXPECT_EQ(Probe(monitor, 1, 50), "unhealthy");
}

TEST(HealthTest, TimeoutsAndFailedStartsAreFailures) {
  HealthCheck check = Check();
  check.retries = 2;
  check.timeout = absl::Milliseconds(1500);
  HealthMonitor monitor(check);
  EXPECT_EQ(monitor.timeout(), absl::Milliseconds(1500));
  monitor.OnStarted(At(0));
  monitor.OnProbeStarted(At(30));
  monitor.OnProbeOutput("waiting\n");
  EXPECT_EQ(monitor.OnProbeTimedOut(At(32)), std::nullopt);
  EXPECT_EQ(
      monitor.OnProbeFailed(absl::NotFoundError("no such program"), At(62)),
      HealthStatus::kUnhealthy);
  const auto& log = monitor.state().log;
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0].start, At(30));
  EXPECT_EQ(log[0].end, At(32));
  EXPECT_EQ(log[0].exit_code, -1);
  EXPECT_EQ(log[0].output, "Health check exceeded timeout (1.5s): waiting\n");
  EXPECT_EQ(log[1].start, At(62));
  EXPECT_EQ(log[1].exit_code, -1);
  EXPECT_EQ(log[1].output, "no such program");
}

TEST(HealthTest, KeepsFiveResultsAndSoMuchOutput) {
  HealthMonitor monitor(Check());
  monitor.OnStarted(At(0));
  for (int i = 0; i < 7; ++i) {
    monitor.OnProbeStarted(At(i));
    monitor.OnProbeOutput(std::string(4000, 'a'));
    monitor.OnProbeOutput(std::string(i == 6 ? 97 : 96, 'b'));
    monitor.OnProbeOutput(i == 6 ? "more" : "");
    monitor.OnProbeEnded(i, At(i + 0.5));
  }
  const auto& log = monitor.state().log;
  ASSERT_EQ(log.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(log[i].exit_code, static_cast<int>(i) + 2);
    EXPECT_EQ(log[i].output, std::string(4000, 'a') + std::string(96, 'b') +
                                 (i == 4 ? "..." : ""));
  }
}

TEST(HealthTest, AnotherRunStartsAnewAndKeepsTheLog) {
  HealthMonitor first(Check());
  first.OnStarted(At(0));
  for (const double start : {30, 60, 90}) Probe(first, 1, start);
  EXPECT_EQ(first.state().status, HealthStatus::kUnhealthy);
  HealthMonitor second(Check(), first.state());
  second.OnStarted(At(100));
  EXPECT_EQ(second.state().status, HealthStatus::kStarting);
  EXPECT_EQ(second.state().failing_streak, 0);
  EXPECT_EQ(second.state().log.size(), 3u);
}

}  // namespace
}  // namespace caisson::keeper
