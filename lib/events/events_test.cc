#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/container_events.h"
#include "lib/base/status_matchers.h"
#include "lib/events/append_event.h"
#include "lib/events/event_line.h"
#include "lib/lines/test_directory.h"

namespace caisson::events {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr absl::Time At(int seconds) {
  return absl::FromUnixSeconds(1795302000 + seconds);
}

bool IsReadable(BorrowedFd fd, int timeout_ms = 0) {
  pollfd poll = {.fd = fd.get(), .events = POLLIN};
  return ::poll(&poll, 1, timeout_ms) == 1;
}

std::vector<std::string> Actions(
    const absl::StatusOr<std::vector<ContainerEvent>>& events) {
  EXPECT_OK(events);
  std::vector<std::string> actions;
  if (!events.ok()) return actions;
  for (const ContainerEvent& event : *events) actions.push_back(event.action);
  return actions;
}

class EventsTest : public ::testing::Test {
 protected:
  void Append(const std::string& action, int seconds = 0,
              const std::string& id = "0123abcd",
              const std::map<std::string, std::string>& attributes = {}) {
    EXPECT_OK(AppendEvent(directory_.fd(), {.time = At(seconds),
                                            .id = id,
                                            .name = "name-of-" + id,
                                            .action = action,
                                            .attributes = attributes}));
  }
  ContainerEvents Events(const ContainerEventOptions& options) {
    return *ContainerEvents::Open(directory_.fd(), options);
  }
  std::vector<std::string> Past(ContainerEventOptions options) {
    if (!options.since.has_value()) options.since = At(0);
    if (!options.until.has_value()) options.until = absl::Now();
    ContainerEvents events = Events(options);
    auto actions = Actions(events.Wait(absl::InfiniteDuration()));
    EXPECT_TRUE(events.at_end());
    return actions;
  }

  testing::TestDirectory directory_;
};

TEST_F(EventsTest, WhatIsAppendedIsRead) {
  Append("die", 1, "0123abcd", {{"exitCode", "137"}, {"a\nb", "\"ü\""}});
  EXPECT_EQ(directory_.Read("events"),
            R"({"time":"2026-11-21T23:00:01.000000000Z","id":"0123abcd",)"
            R"("name":"name-of-0123abcd","action":"die",)"
            R"("attributes":{"a\nb":"\"ü\"","exitCode":"137"}})"
            "\n");
  ContainerEvents events = Events({.since = At(0)});
  ASSERT_OK_AND_ASSIGN(const auto read, events.Read());
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].time, At(1));
  EXPECT_EQ(read[0].id, "0123abcd");
  EXPECT_EQ(read[0].name, "name-of-0123abcd");
  EXPECT_EQ(read[0].action, "die");
  EXPECT_THAT(read[0].attributes,
              ElementsAre(Pair("a\nb", "\"ü\""), Pair("exitCode", "137")));
  EXPECT_FALSE(events.at_end());
}

TEST_F(EventsTest, TheTimeIsThatOfTheCall) {
  const absl::Time before = absl::Now();
  EXPECT_OK(AppendEvent(directory_.fd(), {.id = "x", .action = "start"}));
  ContainerEvents events = Events({.since = before - absl::Seconds(1)});
  ASSERT_OK_AND_ASSIGN(const auto read, events.Read());
  ASSERT_EQ(read.size(), 1u);
  EXPECT_GE(read[0].time, before - absl::Milliseconds(1));
  EXPECT_LE(read[0].time, absl::Now() + absl::Milliseconds(1));
}

TEST_F(EventsTest, WithoutSinceOnlyWhatComes) {
  ContainerEvents first = Events({});
  EXPECT_THAT(Actions(first.Read()), ElementsAre());
  EXPECT_FALSE(IsReadable(first.fd()));
  Append("create");
  EXPECT_TRUE(IsReadable(first.fd(), 10000));
  ContainerEvents second = Events({});
  Append("start");
  EXPECT_THAT(Actions(first.Read(1)), ElementsAre("create"));
  EXPECT_TRUE(IsReadable(first.fd()));
  EXPECT_THAT(Actions(first.Read(1)), ElementsAre("start"));
  EXPECT_THAT(Actions(second.Wait(absl::InfiniteDuration())),
              ElementsAre("start"));
  EXPECT_THAT(Actions(second.Wait(absl::ZeroDuration())), ElementsAre());
  EXPECT_FALSE(IsReadable(second.fd()));
}

TEST_F(EventsTest, Filters) {
  Append("create", 0, "a", {{"env", "test"}});
  Append("start", 1, "a", {{"env", "prod"}});
  Append("health_status: healthy", 2, "a");
  Append("health_status: unhealthy", 3, "b");
  Append("die", 4, "b", {{"env", "test"}});
  EXPECT_THAT(Past({.since = At(3)}),
              ElementsAre("health_status: unhealthy", "die"));
  EXPECT_THAT(Past({.until = At(1)}), ElementsAre("create", "start"));
  EXPECT_THAT(Past({.containers = {"b"}}),
              ElementsAre("health_status: unhealthy", "die"));
  EXPECT_THAT(Past({.containers = {"name-of-a", "x"}, .actions = {"start"}}),
              ElementsAre("start"));
  EXPECT_THAT(
      Past({.actions = {"health_status"}}),
      ElementsAre("health_status: healthy", "health_status: unhealthy"));
  EXPECT_THAT(Past({.actions = {"health_status: healthy", "die"}}),
              ElementsAre("health_status: healthy", "die"));
  EXPECT_THAT(Past({.actions = {"health"}}), ElementsAre());
  EXPECT_THAT(Past({.labels = {{"env", std::nullopt}}}),
              ElementsAre("create", "start", "die"));
  EXPECT_THAT(Past({.labels = {{"env", "test"}}}),
              ElementsAre("create", "die"));
  EXPECT_THAT(Past({.labels = {{"other", std::nullopt}}}), ElementsAre());
}

TEST_F(EventsTest, EndsAtATimeThatIsToCome) {
  ContainerEvents events =
      Events({.until = absl::Now() + absl::Milliseconds(30)});
  EXPECT_THAT(Actions(events.Read()), ElementsAre());
  EXPECT_FALSE(events.at_end());
  EXPECT_TRUE(IsReadable(events.fd(), 10000));
  EXPECT_THAT(Actions(events.Wait(absl::InfiniteDuration())), ElementsAre());
  EXPECT_TRUE(events.at_end());
  EXPECT_TRUE(IsReadable(events.fd()));
}

TEST_F(EventsTest, SkipsWhatIsNoEvent) {
  Append("create");
  directory_.Append("events",
                    "rubbish\n{}\n[1]\n"
                    R"({"time":"2026-11-21T23:00:01Z","id":"a"})"
                    "\n"
                    R"({"action":"a","id":"a"})"
                    "\n\n");
  directory_.Append("events", R"({"time":"2026-11-21T23:00:0)");
  // Ends the line that a writer was killed in.
  Append("start");
  EXPECT_THAT(Past({}), ElementsAre("create", "start"));
}

TEST_F(EventsTest, RefusesAnEventThatNoReaderWouldRead) {
  EXPECT_THAT(
      AppendEvent(directory_.fd(),
                  {.action = "create",
                   .attributes = {{"label", std::string(1 << 20, 'x')}}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("1048576")));
  EXPECT_EQ(directory_.Read("events"), "");
}

TEST_F(EventsTest, KeepsOneToTwoMebibytesAndReadersSurviveIt) {
  ContainerEvents events = Events({});
  const std::string large(100 << 10, 'x');
  std::vector<std::string> expected;
  std::vector<std::string> seen;
  for (int i = 0; i < 30; ++i) {
    expected.push_back(absl::StrCat("action", i));
    Append(expected.back(), i, "a", {{"large", large}});
    if (i % 4 != 0) continue;
    for (const auto& action : Actions(events.Read())) seen.push_back(action);
  }
  for (const auto& action : Actions(events.Read())) seen.push_back(action);
  EXPECT_EQ(seen, expected);
  EXPECT_LE(directory_.Read("events").size(), size_t{1} << 20);
  EXPECT_LE(directory_.Read("events.1").size(), size_t{1} << 20);
  EXPECT_GT(directory_.Read("events.1").size(), size_t{900} << 10);
  EXPECT_FALSE(directory_.Has("events.2"));
  // The oldest were given up.
  EXPECT_EQ(Past({}).size(), 20u);
}

// Processes that append, are killed while they do, and readers meanwhile.
TEST_F(EventsTest, ManyWritersAndReadersInManyProcesses) {
  constexpr int kWriters = 3;
  constexpr int kEvents = 400;
  ContainerEvents reader = Events({});
  const auto write = [this](int writer, int count) {
    const std::string padding(static_cast<size_t>(800 + writer), 'x');
    for (int i = 0; i < count; ++i) {
      if (!AppendEvent(directory_.fd(), {.id = absl::StrCat(writer),
                                         .action = absl::StrCat(i),
                                         .attributes = {{"p", padding}}})
               .ok()) {
        ::_exit(1);
      }
    }
    ::_exit(0);
  };
  std::vector<pid_t> pids;
  for (int writer = 0; writer < kWriters; ++writer) {
    pids.push_back(::fork());
    if (pids.back() == 0) write(writer, kEvents);
  }
  const pid_t victim = ::fork();
  // All of them are no more than is kept, however slow the reader is.
  if (victim == 0) write(kWriters, kEvents);
  std::vector<int> next(kWriters + 1);
  int left = kWriters * kEvents;
  while (left > 0) {
    const auto events = reader.Wait(absl::Seconds(30), 10);
    ASSERT_OK(events);
    ASSERT_FALSE(events->empty()) << left;
    for (const ContainerEvent& event : *events) {
      const int writer = std::stoi(event.id);
      // In order, none twice, none missing.
      ASSERT_EQ(std::stoi(event.action), next[static_cast<size_t>(writer)]++);
      if (writer < kWriters) --left;
    }
    if (next[kWriters] > 100) ::kill(victim, SIGKILL);
  }
  ::kill(victim, SIGKILL);
  for (const pid_t pid : pids) {
    int status;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  ASSERT_EQ(::waitpid(victim, nullptr, 0), victim);
}

}  // namespace
}  // namespace caisson::events
