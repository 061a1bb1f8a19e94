#include "lib/logs/log_writer.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_matchers.h"
#include "lib/lines/test_directory.h"
#include "lib/logs/log_entry.h"

namespace caisson::logs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Time kTime = absl::FromUnixSeconds(1795302000);
constexpr char kFile[] = "container.log";

class LogWriterTest : public ::testing::Test {
 protected:
  LogWriter Writer(const ContainerLogOptions& options = {}) {
    return *LogWriter::Open(directory_.fd(), options);
  }
  // The texts of a file whose lines are all entries.
  std::vector<std::string> Texts(const std::string& name = kFile) {
    std::vector<std::string> texts;
    for (const absl::string_view line :
         absl::StrSplit(directory_.Read(name), '\n', absl::SkipEmpty())) {
      const auto entry = ParseLogEntry(line);
      EXPECT_TRUE(entry.has_value()) << line.substr(0, 200);
      if (entry.has_value()) texts.push_back(entry->text);
    }
    return texts;
  }

  testing::TestDirectory directory_;
};

TEST_F(LogWriterTest, WritesWhatDockerWrites) {
  LogWriter writer = Writer();
  writer.Write(LogStream::kOut, "hello\n", kTime);
  writer.Write(LogStream::kErr, "a \"quote\"\xff\r\n", kTime);
  EXPECT_EQ(directory_.Read(kFile),
            R"({"log":"hello\n","stream":"stdout",)"
            R"("time":"2026-11-21T23:00:00.000000000Z"})"
            "\n"
            R"({"log":"a \"quote\")"
            "\xef\xbf\xbd"
            R"(\r\n","stream":"stderr",)"
            R"("time":"2026-11-21T23:00:00.000000000Z"})"
            "\n");
  struct stat status;
  ASSERT_EQ(::stat(directory_.path(kFile).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(LogWriterTest, JoinsWhatComesInPieces) {
  LogWriter writer = Writer();
  writer.Write(LogStream::kOut, "a", kTime);
  writer.Write(LogStream::kErr, "x", kTime);
  writer.Write(LogStream::kOut, "", kTime);
  writer.Write(LogStream::kOut, "b\n\nc\xc3", kTime);
  EXPECT_THAT(Texts(), ElementsAre("ab\n", "\n"));
  writer.Write(LogStream::kOut, "\xa4\n", kTime);
  writer.Flush(LogStream::kErr, kTime);
  writer.Flush(LogStream::kErr, kTime);
  writer.Flush(LogStream::kOut, kTime);
  EXPECT_THAT(Texts(), ElementsAre("ab\n", "\n", "c\xc3\xa4\n", "x"));
}

TEST_F(LogWriterTest, SplitsLongLinesBetweenCharacters) {
  constexpr size_t kPart = 16 << 10;
  std::string line;
  while (line.size() < 5 * kPart) line += "\xf0\x9f\x90\x8b.";
  line += "\n";
  const std::string full = std::string(kPart - 1, 'x') + "\n";
  const std::string over = std::string(kPart, 'y') + "\n";
  // The pieces in which it comes make no difference.
  for (const size_t piece :
       {size_t{1}, size_t{777}, kPart, kPart + 1, size_t{1} << 20}) {
    ASSERT_EQ(::truncate(directory_.path(kFile).c_str(), 0) == 0, piece != 1);
    LogWriter writer = Writer({.max_size_bytes = 0});
    const std::string all = line + full + over + "end\n";
    for (size_t i = 0; i < all.size(); i += piece) {
      writer.Write(LogStream::kOut, absl::string_view(all).substr(i, piece),
                   kTime);
    }
    const std::vector<std::string> texts = Texts();
    ASSERT_EQ(texts.size(), 10u) << piece;
    std::string joined;
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_LE(texts[i].size(), kPart);
      EXPECT_FALSE(absl::StrContains(texts[i], "\xef\xbf\xbd"));
      joined += texts[i];
    }
    EXPECT_EQ(joined, line);
    EXPECT_EQ(texts[6], full);
    EXPECT_EQ(texts[7], std::string(kPart, 'y'));
    EXPECT_EQ(texts[8], "\n");
    EXPECT_EQ(texts[9], "end\n");
  }
}

TEST_F(LogWriterTest, RotatesAndKeepsSoManyFiles) {
  LogWriter writer = Writer({.max_size_bytes = 210, .max_files = 3});
  // 71 bytes each: two in a file.
  writer.Write(LogStream::kOut, "0\n1\n2\n3\n4\n5\n6\n", kTime);
  EXPECT_THAT(Texts("container.log.2"), ElementsAre("2\n", "3\n"));
  EXPECT_THAT(Texts("container.log.1"), ElementsAre("4\n", "5\n"));
  EXPECT_THAT(Texts(), ElementsAre("6\n"));
  EXPECT_FALSE(directory_.Has("container.log.3"));
  EXPECT_FALSE(directory_.Has("container.log.new"));
  EXPECT_EQ(writer.lost_entries(), 0);
}

TEST_F(LogWriterTest, AnEntryThatIsLargerThanAFileIsAlone) {
  LogWriter writer = Writer({.max_size_bytes = 10, .max_files = 2});
  writer.Write(LogStream::kOut, "a\nb\n", kTime);
  EXPECT_THAT(Texts("container.log.1"), ElementsAre("a\n"));
  EXPECT_THAT(Texts(), ElementsAre("b\n"));
}

TEST_F(LogWriterTest, OneFileIsReplaced) {
  LogWriter writer = Writer({.max_size_bytes = 210, .max_files = 1});
  writer.Write(LogStream::kOut, "0\n1\n2\n", kTime);
  EXPECT_THAT(Texts(), ElementsAre("2\n"));
  EXPECT_FALSE(directory_.Has("container.log.1"));
}

TEST_F(LogWriterTest, RotationContinuesWhereAKilledOneStopped) {
  { LogWriter(Writer()).Write(LogStream::kOut, "1\n", kTime); }
  directory_.Rename(kFile, "container.log.2");
  { LogWriter(Writer()).Write(LogStream::kOut, "2\n", kTime); }
  directory_.Append("container.log.new", "rubbish");
  LogWriter writer = Writer({.max_size_bytes = 10, .max_files = 4});
  EXPECT_FALSE(directory_.Has("container.log.new"));
  writer.Write(LogStream::kOut, "3\n", kTime);
  EXPECT_THAT(Texts("container.log.2"), ElementsAre("1\n"));
  EXPECT_THAT(Texts("container.log.1"), ElementsAre("2\n"));
  EXPECT_THAT(Texts(), ElementsAre("3\n"));
}

TEST_F(LogWriterTest, RemovesWhatOtherOptionsKept) {
  for (const char* name : {"container.log.1", "container.log.2",
                           "container.log.3", "container.log.5"}) {
    directory_.Append(name, "x");
  }
  { LogWriter writer = Writer({.max_size_bytes = 0, .max_files = 2}); }
  EXPECT_TRUE(directory_.Has("container.log.3"));
  { LogWriter writer = Writer({.max_files = 2}); }
  EXPECT_TRUE(directory_.Has("container.log.1"));
  for (const char* name :
       {"container.log.2", "container.log.3", "container.log.5"}) {
    EXPECT_FALSE(directory_.Has(name)) << name;
  }
}

TEST_F(LogWriterTest, ATruncatedFileIsNotRotatedEarly) {
  LogWriter writer = Writer({.max_size_bytes = 210, .max_files = 2});
  writer.Write(LogStream::kOut, "0\n1\n", kTime);
  ASSERT_EQ(::truncate(directory_.path(kFile).c_str(), 0), 0);
  writer.Write(LogStream::kOut, "2\n3\n", kTime);
  EXPECT_THAT(Texts(), ElementsAre("2\n", "3\n"));
  EXPECT_FALSE(directory_.Has("container.log.1"));
}

TEST_F(LogWriterTest, RefusesOptionsOutOfRangeAndASecondWriter) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(LogWriter::Open(directory_.fd(), {.max_size_bytes = -1}),
              StatusIs(kInvalid, HasSubstr("max_size_bytes is -1")));
  EXPECT_THAT(LogWriter::Open(directory_.fd(), {.max_files = 0}),
              StatusIs(kInvalid, HasSubstr("max_files is 0")));
  EXPECT_THAT(LogWriter::Open(directory_.fd(), {.max_files = 1001}),
              StatusIs(kInvalid, HasSubstr("1 to 1000")));
  EXPECT_FALSE(directory_.Has(kFile));
  {
    const LogWriter writer = Writer();
    EXPECT_THAT(LogWriter::Open(directory_.fd(), {}),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("already written")));
  }
  EXPECT_OK(LogWriter::Open(directory_.fd(), {}));
}

// The end of the space in the middle of a line, made by RLIMIT_FSIZE.
class FullDisk final {
 public:
  explicit FullDisk(rlim_t size) {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &old_), 0);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    rlimit limit = old_;
    limit.rlim_cur = size;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FullDisk() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &old_), 0);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_ = {};
  void (*handler_)(int) = nullptr;
};

TEST_F(LogWriterTest, AFullDiskLosesLinesAndSaysSo) {
  LogWriter writer = Writer();
  // 71 bytes each; wherever the space ends, each line is there whole or
  // counted.
  for (rlim_t room = 0; room <= 5 * 71; ++room) {
    ASSERT_EQ(::truncate(directory_.path(kFile).c_str(), 0), 0);
    const int64_t lost_before = writer.lost_entries();
    {
      const FullDisk full(room);
      writer.Write(LogStream::kOut, "0\n1\n2\n3\n", kTime);
      writer.Write(LogStream::kOut, "4\n", kTime);
    }
    writer.Write(LogStream::kOut, "5\n", kTime);
    const int64_t lost = writer.lost_entries() - lost_before;
    const std::vector<std::string> texts = Texts();
    if (lost == 0) {
      EXPECT_THAT(texts, ElementsAre("0\n", "1\n", "2\n", "3\n", "4\n", "5\n"));
      EXPECT_GT(room, 4u * 71);
      continue;
    }
    // As many as there is room for and the one that was begun.
    ASSERT_EQ(static_cast<int64_t>(texts.size()) - 1, 6 - lost) << room;
    EXPECT_EQ(texts.back(), "5\n");
    EXPECT_EQ(texts[texts.size() - 2],
              absl::StrCat("caisson: ", lost, lost == 1 ? " entry" : " entries",
                           " of this log could not be written: EFBIG: file too "
                           "large\n"));
    for (size_t i = 0; i + 2 < texts.size(); ++i) {
      EXPECT_EQ(texts[i], absl::StrCat(i, "\n"));
    }
  }
}

// With a real full disk: a rotation that has no room changes nothing.
TEST_F(LogWriterTest, AFullFileSystemStopsNothing) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    const std::string path = directory_.path("small");
    if (::unshare(CLONE_NEWNS) != 0) ::_exit(errno == EPERM ? 77 : 2);
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mkdir(path.c_str(), 0700) != 0 ||
        ::mount("tmpfs", path.c_str(), "tmpfs", 0, "size=64k,nr_inodes=6") !=
            0) {
      ::_exit(3);
    }
    const UniqueFd small(::open(path.c_str(), O_PATH | O_CLOEXEC));
    auto writer = LogWriter::Open(small.borrow(),
                                  {.max_size_bytes = 20000, .max_files = 9});
    if (!writer.ok()) ::_exit(4);
    for (int i = 0; i < 2000; ++i) {
      writer->Write(LogStream::kOut, absl::StrCat(i, "\n"), kTime);
    }
    if (writer->lost_entries() == 0) ::_exit(5);
    if (::unlink((path + "/container.log.1").c_str()) != 0) ::_exit(6);
    const int64_t lost = writer->lost_entries();
    writer->Write(LogStream::kOut, "end\n", kTime);
    if (writer->lost_entries() != lost) ::_exit(7);
    ::_exit(0);
  }
  int status;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77 && !testing::TestsMustRun()) {
    GTEST_SKIP() << "needs CAP_SYS_ADMIN for a small file system";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ::rmdir(directory_.path("small").c_str());
}

}  // namespace
}  // namespace caisson::logs
