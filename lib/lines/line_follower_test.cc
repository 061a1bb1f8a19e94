#include "lib/lines/line_follower.h"

#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "lib/base/status_matchers.h"
#include "lib/lines/test_directory.h"
#include "lib/sys/open.h"

namespace caisson::lines {
namespace {

using ::testing::ElementsAre;

class LineFollowerTest : public ::testing::Test {
 protected:
  LineFollower Follow() {
    return LineFollower(*sys::Duplicate(directory_.fd()), "f");
  }

  // All lines there are.
  static std::vector<std::string> Rest(LineFollower& lines) {
    std::vector<std::string> rest;
    for (;;) {
      const auto line = lines.Next();
      EXPECT_OK(line);
      if (!line.ok() || !line->has_value()) return rest;
      rest.emplace_back(**line);
    }
  }

  void Rotate() {
    if (directory_.Has("f.1")) directory_.Rename("f.1", "f.2");
    directory_.Rename("f", "f.1");
  }

  testing::TestDirectory directory_;
};

TEST_F(LineFollowerTest, BeginsWithTheOldestFile) {
  directory_.Append("f.2", "a\nb\n");
  directory_.Append("f.1", "c\n\n");
  directory_.Append("f", "d\ne");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(Rest(lines), ElementsAre());
  directory_.Append("f", "e\nf\n");
  EXPECT_THAT(Rest(lines), ElementsAre("ee", "f"));
}

TEST_F(LineFollowerTest, WaitsForAFile) {
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre());
  directory_.Append("f", "a\n");
  EXPECT_THAT(Rest(lines), ElementsAre("a"));
}

TEST_F(LineFollowerTest, SurvivesRotation) {
  directory_.Append("f", "a\n");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre("a"));
  directory_.Append("f", "b\n");
  Rotate();
  // Between the two renames of a writer: it may still be written.
  EXPECT_THAT(Rest(lines), ElementsAre("b"));
  directory_.Append("f.1", "c\n");
  directory_.Append("f", "d\n");
  EXPECT_THAT(Rest(lines), ElementsAre("c", "d"));
  Rotate();
  directory_.Append("f", "e\n");
  Rotate();
  directory_.Append("f", "g\n");
  EXPECT_THAT(Rest(lines), ElementsAre("e", "g"));
}

TEST_F(LineFollowerTest, ALineThatRotationCutIsDropped) {
  directory_.Append("f", "a\ntorn");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre("a"));
  Rotate();
  directory_.Append("f", "b\n");
  EXPECT_THAT(Rest(lines), ElementsAre("b"));
}

TEST_F(LineFollowerTest, AHoleInTheNumbersIsNotTheEnd) {
  directory_.Append("f.3", "a\n");
  directory_.Append("f.1", "b\n");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre("a", "b"));
  directory_.Append("f", "c\n");
  EXPECT_THAT(Rest(lines), ElementsAre("c"));
}

TEST_F(LineFollowerTest, GoesOnAfterItsFileWasRemoved) {
  directory_.Append("f", "a\n");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre("a"));
  directory_.Append("f", "b\n");
  directory_.Remove("f");
  EXPECT_THAT(Rest(lines), ElementsAre("b"));
  directory_.Append("f", "c\n");
  EXPECT_THAT(Rest(lines), ElementsAre("c"));
}

TEST_F(LineFollowerTest, DoesNotGoBackWhenItsFileIsRemoved) {
  directory_.Append("f.1", "old\n");
  const timespec past[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
  ASSERT_EQ(::utimensat(AT_FDCWD, directory_.path("f.1").c_str(), past, 0), 0);
  directory_.Append("f", "a\n");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre("old", "a"));
  directory_.Remove("f");
  EXPECT_THAT(Rest(lines), ElementsAre());
}

TEST_F(LineFollowerTest, BeginsAgainWhenTruncated) {
  directory_.Append("f", "aaaa\nbbbb\n");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre("aaaa", "bbbb"));
  ASSERT_EQ(::truncate(directory_.path("f").c_str(), 0), 0);
  EXPECT_THAT(Rest(lines), ElementsAre());
  directory_.Append("f", "c\n");
  EXPECT_THAT(Rest(lines), ElementsAre("c"));
}

TEST_F(LineFollowerTest, SkipsLinesThatAreTooLong) {
  const std::string most(LineFollower::kMaxLine, 'x');
  directory_.Append("f", most + "\n" + most + "x\n" + most + most + "\nend\n");
  LineFollower lines = Follow();
  EXPECT_THAT(Rest(lines), ElementsAre(most, "end"));

  LineFollower back = Follow();
  std::vector<size_t> seen;
  ASSERT_OK(back.GoBackWhile([&seen](absl::string_view line) {
    seen.push_back(line.size());
    return true;
  }));
  EXPECT_THAT(seen, ElementsAre(3, most.size()));
  EXPECT_THAT(Rest(back), ElementsAre(most, "end"));
}

TEST_F(LineFollowerTest, GoesBackOverBlocksAndFiles) {
  // Lines of different lengths, so that blocks end anywhere in them.
  std::vector<std::string> all;
  for (int i = 0; i < 3000; ++i) {
    all.push_back(std::to_string(i) + std::string(i % 97, '.'));
    directory_.Append(i < 1000 ? "f.1" : "f", all.back() + "\n");
  }
  directory_.Append("f", "incomplete");
  for (const size_t count :
       {0, 1, 2, 700, 1999, 2000, 2001, 2999, 3000, 4000}) {
    LineFollower lines = Follow();
    std::vector<std::string> seen;
    ASSERT_OK(lines.GoBackWhile([&](absl::string_view line) {
      if (seen.size() == count) return false;
      seen.emplace_back(line);
      return true;
    }));
    const auto first = all.end() - std::min(count, all.size());
    EXPECT_EQ(seen, std::vector<std::string>(
                        all.rbegin(), all.rbegin() + (all.end() - first)));
    EXPECT_EQ(Rest(lines), std::vector<std::string>(first, all.end()));
  }
}

TEST_F(LineFollowerTest, SkipsFilesThatWereWrittenLongAgo) {
  directory_.Append("f.2", "a\n");
  directory_.Append("f.1", "b\n");
  directory_.Append("f", "c\n");
  for (const char* name : {"f.2", "f.1", "f"}) {
    const time_t when = name[1] == 0 ? 3000 : name[2] == '1' ? 2000 : 1000;
    const timespec times[2] = {{.tv_sec = when}, {.tv_sec = when}};
    ASSERT_EQ(::utimensat(AT_FDCWD, directory_.path(name).c_str(), times, 0),
              0);
  }
  LineFollower all = Follow();
  ASSERT_OK(all.SkipFilesBefore(absl::FromUnixSeconds(1000)));
  EXPECT_THAT(Rest(all), ElementsAre("a", "b", "c"));
  LineFollower two = Follow();
  ASSERT_OK(two.SkipFilesBefore(absl::FromUnixSeconds(2000)));
  EXPECT_THAT(Rest(two), ElementsAre("b", "c"));
  // The one that is written may be written again.
  LineFollower last = Follow();
  ASSERT_OK(last.SkipFilesBefore(absl::FromUnixSeconds(4000)));
  EXPECT_THAT(Rest(last), ElementsAre("c"));
}

TEST_F(LineFollowerTest, AFileThatIsALinkIsAnError) {
  ASSERT_EQ(::symlink("/etc/passwd", directory_.path("f").c_str()), 0);
  LineFollower lines = Follow();
  EXPECT_FALSE(lines.Next().ok());
}

}  // namespace
}  // namespace caisson::lines
