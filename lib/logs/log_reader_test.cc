#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/container_logs.h"
#include "lib/base/status_matchers.h"
#include "lib/lines/test_directory.h"
#include "lib/logs/log_entry.h"
#include "lib/logs/log_writer.h"

namespace caisson::logs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Time At(int seconds) {
  return absl::FromUnixSeconds(1795302000 + seconds);
}

bool IsReadable(BorrowedFd fd, int timeout_ms = 0) {
  pollfd poll = {.fd = fd.get(), .events = POLLIN};
  return ::poll(&poll, 1, timeout_ms) == 1;
}

std::vector<std::string> Texts(
    const absl::StatusOr<std::vector<ContainerLogEntry>>& entries) {
  EXPECT_OK(entries);
  std::vector<std::string> texts;
  if (!entries.ok()) return texts;
  for (const ContainerLogEntry& entry : *entries) texts.push_back(entry.text);
  return texts;
}

class LogReaderTest : public ::testing::Test {
 protected:
  LogWriter Writer(const ContainerLogOptions& options = {}) {
    return *LogWriter::Open(directory_.fd(), options);
  }
  ContainerLogReader Reader(const ContainerLogReadOptions& options = {}) {
    return *ContainerLogReader::Open(directory_.fd(), options);
  }
  std::vector<std::string> All(const ContainerLogReadOptions& options) {
    ContainerLogReader reader = Reader(options);
    auto texts = Texts(reader.Read());
    EXPECT_TRUE(reader.at_end());
    return texts;
  }

  testing::TestDirectory directory_;
};

TEST(LogEntryTest, ReadsWhatDockerWrites) {
  const auto entry = ParseLogEntry(
      R"({"log":"\u003ca\u003e\n","stream":"stderr","attrs":{"tag":"x"},)"
      R"("time":"2026-11-21T23:00:00.5Z"})");
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(entry->text, "<a>\n");
  EXPECT_EQ(entry->stream, LogStream::kErr);
  EXPECT_EQ(entry->time, At(0) + absl::Milliseconds(500));
  EXPECT_FALSE(entry->partial);
}

TEST(LogEntryTest, SkipsWhatIsNoEntry) {
  for (
      const char* line :
      {"", "x", "{}", "[]", R"({"log":"a","stream":"stdout"})",
       R"({"log":"a","stream":"stdin","time":"2026-11-21T23:00:00Z"})",
       R"({"log":"","stream":"stdout","time":"2026-11-21T23:00:00Z"})",
       R"({"log":1,"stream":"stdout","time":"2026-11-21T23:00:00Z"})",
       R"({"log":"a","stream":"stdout","time":"yesterday"})",
       R"({"log":"a","stream":"stdout","time":"infinite-past"})",
       R"({"log":"a","stream":"stdout","time":"2026-11-21T23:00)",
       R"({"x":{"log":"a","stream":"stdout","time":"2026-11-21T23:00:00Z"}})"}) {
    EXPECT_FALSE(ParseLogEntry(line).has_value()) << line;
  }
}

TEST_F(LogReaderTest, ADirectoryWithoutALogHasNothing) {
  EXPECT_THAT(All({}), ElementsAre());
  EXPECT_THAT(All({.follow = true}), ElementsAre());
  EXPECT_THAT(All({.tail = 5}), ElementsAre());
  EXPECT_THAT(ContainerLogReader::Open(directory_.fd(), {.tail = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("-1")));
  EXPECT_FALSE(directory_.Has("container.log"));
  EXPECT_FALSE(directory_.Has("container.log.writer"));
}

TEST_F(LogReaderTest, ReadsEntriesWithTimeAndStream) {
  LogWriter writer = Writer();
  writer.Write(LogStream::kOut, "a\n", At(1));
  writer.Write(LogStream::kErr, "b", At(2));
  writer.Flush(LogStream::kErr, At(3));
  ContainerLogReader reader = Reader();
  ASSERT_OK_AND_ASSIGN(const auto entries, reader.Read());
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].text, "a\n");
  EXPECT_EQ(entries[0].time, At(1));
  EXPECT_EQ(entries[0].stream, LogStream::kOut);
  EXPECT_FALSE(entries[0].partial);
  EXPECT_EQ(entries[1].text, "b");
  EXPECT_EQ(entries[1].time, At(3));
  EXPECT_EQ(entries[1].stream, LogStream::kErr);
  EXPECT_TRUE(entries[1].partial);
  EXPECT_TRUE(reader.at_end());
  // Also when the writer is still there: it does not follow.
  writer.Write(LogStream::kOut, "c\n", At(4));
  EXPECT_THAT(Texts(reader.Read()), ElementsAre());
}

TEST_F(LogReaderTest, Selects) {
  LogWriter writer = Writer({.max_size_bytes = 200, .max_files = 9});
  for (int i = 0; i < 10; ++i) {
    writer.Write(i % 2 == 0 ? LogStream::kOut : LogStream::kErr,
                 absl::StrCat(i, "\n"), At(i));
  }
  ASSERT_TRUE(directory_.Has("container.log.3"));
  EXPECT_THAT(All({.since = At(7)}), ElementsAre("7\n", "8\n", "9\n"));
  EXPECT_THAT(All({.until = At(2)}), ElementsAre("0\n", "1\n", "2\n"));
  EXPECT_THAT(All({.since = At(3), .until = At(4)}), ElementsAre("3\n", "4\n"));
  EXPECT_THAT(All({.tail = 2}), ElementsAre("8\n", "9\n"));
  EXPECT_THAT(All({.tail = 0}), ElementsAre());
  EXPECT_EQ(All({.tail = 99}).size(), 10u);
  EXPECT_THAT(All({.since = At(8), .tail = 5}), ElementsAre("8\n", "9\n"));
  EXPECT_THAT(All({.until = At(5), .tail = 2}), ElementsAre("4\n", "5\n"));
  EXPECT_THAT(All({.tail = 2, .out = false}), ElementsAre("7\n", "9\n"));
  EXPECT_THAT(All({.since = At(6), .err = false}), ElementsAre("6\n", "8\n"));
  EXPECT_THAT(All({.out = false, .err = false}), ElementsAre());
}

TEST_F(LogReaderTest, TailCountsLinesNotParts) {
  LogWriter writer = Writer();
  writer.Write(LogStream::kOut, "first\n", At(0));
  const std::string line = std::string(40 << 10, 'x') + "\n";
  writer.Write(LogStream::kOut, line, At(1));
  writer.Write(LogStream::kOut, std::string(20 << 10, 'y'), At(2));
  writer.Flush(LogStream::kOut, At(3));
  const auto texts = All({.tail = 2});
  ASSERT_EQ(texts.size(), 5u);
  EXPECT_EQ(texts[0] + texts[1] + texts[2], line);
  EXPECT_EQ(texts[3] + texts[4], std::string(20 << 10, 'y'));
  EXPECT_EQ(All({.tail = 1}).size(), 2u);
}

TEST_F(LogReaderTest, GivesAsManyAsAreAskedForAndStaysReadable) {
  LogWriter writer = Writer();
  writer.Write(LogStream::kOut, "a\nb\nc\n", At(0));
  ContainerLogReader reader = Reader({.follow = true});
  EXPECT_TRUE(IsReadable(reader.fd()));
  EXPECT_THAT(Texts(reader.Read(2)), ElementsAre("a\n", "b\n"));
  EXPECT_TRUE(IsReadable(reader.fd()));
  EXPECT_THAT(Texts(reader.Read(2)), ElementsAre("c\n"));
  EXPECT_FALSE(IsReadable(reader.fd()));
  EXPECT_FALSE(reader.at_end());
}

TEST_F(LogReaderTest, FollowsUntilTheWriterIsGone) {
  auto writer = std::make_unique<LogWriter>(Writer());
  writer->Write(LogStream::kOut, "a\nb\n", At(0));
  ContainerLogReader reader = Reader({.follow = true, .tail = 1});
  EXPECT_THAT(Texts(reader.Read()), ElementsAre("b\n"));
  EXPECT_FALSE(IsReadable(reader.fd()));
  EXPECT_THAT(Texts(reader.Wait(absl::ZeroDuration())), ElementsAre());

  writer->Write(LogStream::kErr, "c\n", At(1));
  EXPECT_TRUE(IsReadable(reader.fd(), 10000));
  EXPECT_THAT(Texts(reader.Read()), ElementsAre("c\n"));
  EXPECT_FALSE(IsReadable(reader.fd()));
  EXPECT_FALSE(reader.at_end());

  writer->Write(LogStream::kOut, "d\n", At(2));
  writer.reset();
  EXPECT_TRUE(IsReadable(reader.fd(), 10000));
  EXPECT_THAT(Texts(reader.Wait(absl::InfiniteDuration())), ElementsAre("d\n"));
  EXPECT_TRUE(reader.at_end());
  EXPECT_TRUE(IsReadable(reader.fd()));
  // A log that nobody writes is at its end at once, until somebody does again.
  EXPECT_EQ(All({.follow = true}).size(), 4u);
  LogWriter next = Writer();
  ContainerLogReader again = Reader({.follow = true, .tail = 0});
  EXPECT_THAT(Texts(again.Read()), ElementsAre());
  EXPECT_FALSE(again.at_end());
}

TEST_F(LogReaderTest, FollowsUntilATime) {
  LogWriter writer = Writer();
  ContainerLogReader reader = Reader({.follow = true, .until = At(5)});
  // The entries have times of their own; the clock decides when no more come.
  writer.Write(LogStream::kOut, "a\n", At(5));
  writer.Write(LogStream::kOut, "b\n", At(6));
  EXPECT_THAT(Texts(reader.Wait(absl::InfiniteDuration())), ElementsAre("a\n"));
  EXPECT_TRUE(reader.at_end());

  ContainerLogReader soon =
      Reader({.follow = true,
              .until = absl::Now() + absl::Milliseconds(20),
              .tail = 0});
  EXPECT_THAT(Texts(soon.Wait(absl::InfiniteDuration())), ElementsAre());
  EXPECT_TRUE(soon.at_end());
}

TEST_F(LogReaderTest, AKilledWriterEndsTheLogAndItsTornLineIsSkipped) {
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    auto writer = LogWriter::Open(directory_.fd(), {});
    if (!writer.ok()) ::_exit(1);
    writer->Write(LogStream::kOut, "a\nincomplete", At(0));
    directory_.Append("container.log", R"({"log":"torn)");
    (void)!::write(ready[1], "", 1);
    for (;;) ::pause();
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(LogWriter::Open(directory_.fd(), {}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("already written")));
  ContainerLogReader reader = Reader({.follow = true});
  EXPECT_THAT(Texts(reader.Read()), ElementsAre("a\n"));
  EXPECT_FALSE(reader.at_end());
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  EXPECT_THAT(Texts(reader.Wait(absl::InfiniteDuration())), ElementsAre());
  EXPECT_TRUE(reader.at_end());
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);

  LogWriter writer = Writer();
  writer.Write(LogStream::kOut, "b\n", At(1));
  EXPECT_THAT(All({}), ElementsAre("a\n", "b\n"));
  ::close(ready[0]);
  ::close(ready[1]);
}

// Killed while they write and rotate, one after the other, and one reader for
// each, which begins where the one before ended.
TEST_F(LogReaderTest, KilledWritersLeaveALogWithoutGapOrRepetition) {
  constexpr int kWriters = 20;
  constexpr int kLines = 250;
  std::vector<std::string> expected;
  for (int round = 0; round < kWriters; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const pid_t pid = ::fork();
    if (pid == 0) {
      auto writer = LogWriter::Open(
          directory_.fd(), {.max_size_bytes = 3000, .max_files = 1000});
      if (!writer.ok() || ::write(ready[1], "", 1) != 1) ::_exit(1);
      for (int i = 0; i < kLines; ++i) {
        writer->Write(LogStream::kOut, absl::StrCat(round, ".", i, "\n"),
                      At(round));
      }
      for (;;) ::pause();
    }
    const UniqueFd read_end(ready[0]);
    const UniqueFd write_end(ready[1]);
    char byte;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    ContainerLogReader reader = Reader({.follow = true, .since = At(round)});
    int lines = 0;
    bool killed = false;
    while (!reader.at_end()) {
      const auto texts = Texts(reader.Wait(absl::InfiniteDuration(), 3));
      for (const std::string& text : texts) {
        EXPECT_EQ(text, absl::StrCat(round, ".", lines++, "\n"));
        expected.push_back(text);
      }
      if (lines >= round * 12 && !killed) {
        killed = ::kill(pid, SIGKILL) == 0;
      }
    }
    ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  }
  ContainerLogReader reader = Reader();
  EXPECT_EQ(Texts(reader.Read(kWriters * kLines)), expected);
  EXPECT_GT(expected.size(), size_t{kWriters * (kWriters - 1) / 2 * 12});
}

// A writer that rotates all the time and readers that may fall behind by no
// more than is kept.
TEST_F(LogReaderTest, ReadersFollowThroughRotationWithoutLossOrRepetition) {
  constexpr int kLines = 2000;
  auto writer = std::make_unique<LogWriter>(
      Writer({.max_size_bytes = 2000, .max_files = 1000}));
  const auto follow = [this](std::vector<std::string>& seen, size_t max) {
    ContainerLogReader reader = Reader({.follow = true});
    while (!reader.at_end()) {
      const auto entries = reader.Wait(absl::InfiniteDuration(), max);
      if (!entries.ok()) return;
      for (const auto& entry : *entries) seen.push_back(entry.text);
    }
  };
  std::vector<std::string> seen[3];
  std::thread one(follow, std::ref(seen[0]), 1);
  std::thread seven(follow, std::ref(seen[1]), 7);
  std::thread many(follow, std::ref(seen[2]), 1000);
  std::vector<std::string> expected;
  std::string batch;
  for (int i = 0; i < kLines; ++i) {
    expected.push_back(absl::StrCat("line ", i, "\n"));
    batch += expected.back();
    if (i % 13 == 0) {
      writer->Write(LogStream::kOut, batch, At(i));
      batch.clear();
    }
  }
  writer->Write(LogStream::kOut, batch, At(kLines));
  EXPECT_EQ(writer->lost_entries(), 0);
  // Threads that come late find the files all the same.
  writer.reset();
  one.join();
  seven.join();
  many.join();
  for (const auto& lines : seen) EXPECT_EQ(lines, expected);
}

}  // namespace
}  // namespace caisson::logs
