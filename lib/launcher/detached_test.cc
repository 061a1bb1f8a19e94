// The texts that detached processes leave: records on disk, notes in memory.
#include "caisson/detached.h"

#include <sys/stat.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "absl/strings/str_replace.h"
#include "lib/base/status_matchers.h"
#include "lib/launcher/detached_directory.h"
#include "lib/launcher/process_note.h"

namespace caisson::launcher {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kEnded[] =
    "caisson-process 1\nstate ended\nwait_status 256\nuser_us 1500\n"
    "system_us 20\nmax_rss_kib 4\nend\n";

TEST(ProcessRecordTest, SaysHowAProcessEnded) {
  const auto record = ParseRecord(kEnded);
  ASSERT_TRUE(record && record->exited);
  EXPECT_EQ(record->exited->wait_status, 256);
  EXPECT_EQ(record->exited->user_us, 1500u);
  EXPECT_EQ(record->exited->system_us, 20u);
  EXPECT_EQ(record->exited->max_rss_kib, 4u);
}

TEST(ProcessRecordTest, RunningAndLost) {
  auto record = ParseRecord("caisson-process 1\nstate running\nend\n");
  ASSERT_TRUE(record);
  EXPECT_FALSE(record->exited || record->lost);
  record = ParseRecord("caisson-process 1\nstate lost\nend\n");
  ASSERT_TRUE(record);
  EXPECT_TRUE(record->lost);
}

TEST(ProcessRecordTest, WhatIsNotWholeIsNone) {
  const std::string whole = kEnded;
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseRecord(whole.substr(0, size))) << size;
  }
  EXPECT_FALSE(ParseRecord("caisson-process 2\nstate running\nend\n"));
  EXPECT_FALSE(ParseRecord("caisson-process 1\nstate other\nend\n"));
  EXPECT_FALSE(ParseRecord("caisson-process 1\nend\n\n"));
  EXPECT_FALSE(
      ParseRecord("caisson-process 1\nstate ended\nwait_status x\nuser_us 1\n"
                  "system_us 1\nmax_rss_kib 1\nend\n"));
}

TEST(ProcessNoteTest, IsReadAsItWasWritten) {
  ProcessNote note;
  note.first_namespaces = 0x20000000;
  note.second_namespaces = ~uint64_t{0};
  note.own_pid_namespace = true;
  note.has_init = true;
  note.oom_kills_before = 3;
  note.group = {
      {CgroupVersion::kV2, {}, "/sys/fs/cgroup/with space\nand break"},
      {CgroupVersion::kV1,
       {CgroupController::kMemory, CgroupController::kIo},
       "/sys/fs/cgroup/memory/x"},
      {CgroupVersion::kV2, {}, "/sys/fs/cgroup/y", /*killed=*/true}};
  note.descriptors = {"terminal", "keep", "keep"};
  ASSERT_OK_AND_ASSIGN(const ProcessNote read, ReadNote(WriteNote(note)));
  EXPECT_EQ(read.first_namespaces, note.first_namespaces);
  EXPECT_EQ(read.second_namespaces, note.second_namespaces);
  EXPECT_TRUE(read.own_pid_namespace);
  EXPECT_TRUE(read.has_init);
  EXPECT_FALSE(read.default_policy);
  EXPECT_EQ(read.oom_kills_before, 3);
  ASSERT_EQ(read.group.size(), 3u);
  EXPECT_FALSE(read.group[0].killed);
  EXPECT_EQ(read.group[2].version, CgroupVersion::kV2);
  EXPECT_TRUE(read.group[2].killed);
  EXPECT_EQ(read.group[0].version, CgroupVersion::kV2);
  EXPECT_EQ(read.group[0].directory, note.group[0].directory);
  EXPECT_THAT(read.group[1].controllers,
              ElementsAre(CgroupController::kMemory, CgroupController::kIo));
  EXPECT_EQ(read.descriptors, note.descriptors);
}

TEST(ProcessNoteTest, ErrorsSayWhatIsWrong) {
  const std::string good = WriteNote(ProcessNote());
  EXPECT_OK(ReadNote(good));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(ReadNote(good.substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss,
                         HasSubstr("the note of the detached process")));
  }
  auto with = [&](const char* from, const char* to) {
    return absl::StrReplaceAll(good, {{from, to}});
  };
  EXPECT_THAT(ReadNote(with("caisson-note 1", "caisson-note 2")),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("note")));
  EXPECT_THAT(ReadNote(with("has_init 0", "has_init maybe")),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("has_init")));
  EXPECT_THAT(ReadNote(with("end\n", "group 1 nonsense /x\nend\n")),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("group")));
  // Of a later version that added a line.
  EXPECT_OK(ReadNote(with("end\n", "novelty 1\nend\n")));
}

}  // namespace
}  // namespace caisson::launcher
