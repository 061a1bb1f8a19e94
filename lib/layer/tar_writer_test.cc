#include "lib/layer/tar_writer.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/tar_header.h"
#include "lib/layer/tar_split.h"
#include "lib/layer/test_dir.h"

namespace caisson::layer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using testing::StatusIs;

// Writes `entry` and reads it back.
TarEntry RoundTrip(const TarEntry& entry) {
  auto header = TarHeaderOf(entry);
  EXPECT_OK(header);
  if (!header.ok()) return {};
  EXPECT_EQ(header->size() % kTarBlock, 0u);
  std::string tar = *header;
  tar.append(entry.size + TarPadding(entry.size), '\0');
  tar += TarEnd();
  MemorySource source(tar);
  TarReader reader(source, {});
  auto read = reader.Next();
  EXPECT_OK(read);
  if (!read.ok() || !read->has_value()) return {};
  TarEntry result = **read;
  auto end = reader.Next();
  EXPECT_OK(end);
  EXPECT_FALSE(end.ok() && end->has_value());
  return result;
}

TEST(TarWriterTest, PlainEntriesAreOneBlock) {
  const TarEntry entry = {.name = "etc/motd",
                          .mode = 04755,
                          .uid = 1000,
                          .gid = 2000,
                          .size = 700,
                          .mtime_sec = 1'234'567'890};
  ASSERT_OK_AND_ASSIGN(const std::string header, TarHeaderOf(entry));
  EXPECT_EQ(header.size(), kTarBlock);
  const TarEntry read = RoundTrip(entry);
  EXPECT_EQ(read.name, entry.name);
  EXPECT_EQ(read.mode, entry.mode);
  EXPECT_EQ(read.uid, entry.uid);
  EXPECT_EQ(read.gid, entry.gid);
  EXPECT_EQ(read.size, entry.size);
  EXPECT_EQ(read.mtime_sec, entry.mtime_sec);
  EXPECT_EQ(read.mtime_nsec, 0);
  EXPECT_THAT(read.xattrs, IsEmpty());
}

TEST(TarWriterTest, EveryTypeComesBack) {
  for (const TarType type :
       {TarType::kHardlink, TarType::kSymlink, TarType::kCharDevice,
        TarType::kBlockDevice, TarType::kDirectory, TarType::kFifo}) {
    TarEntry entry = {.name = "x", .type = type};
    if (type == TarType::kHardlink || type == TarType::kSymlink) {
      entry.linkname = "target";
    }
    if (type == TarType::kCharDevice || type == TarType::kBlockDevice) {
      entry.devmajor = 4095;
      entry.devminor = 1048575;
    }
    const TarEntry read = RoundTrip(entry);
    EXPECT_EQ(read.type, type);
    EXPECT_EQ(read.linkname, entry.linkname);
    EXPECT_EQ(read.devmajor, entry.devmajor);
    EXPECT_EQ(read.devminor, entry.devminor);
  }
}

TEST(TarWriterTest, WhatUstarHasNoRoomForIsInPaxRecords) {
  const TarEntry entry = {
      .name = std::string(99, 'd') + "/" + std::string(255, 'n') + "\xff",
      .linkname = std::string(1000, 't'),
      .type = TarType::kSymlink,
      .uid = 4'000'000'000,
      .gid = 2'097'152,
      .mtime_sec = -2,
      .mtime_nsec = 500'000'000,
      .xattrs = {{"user.b", std::string("\0=\n", 3)}, {"user.a", ""}}};
  const TarEntry read = RoundTrip(entry);
  EXPECT_EQ(read.name, entry.name);
  EXPECT_EQ(read.linkname, entry.linkname);
  EXPECT_EQ(read.uid, entry.uid);
  EXPECT_EQ(read.gid, entry.gid);
  EXPECT_EQ(read.mtime_sec, -2);
  EXPECT_EQ(read.mtime_nsec, 500'000'000);
  EXPECT_THAT(
      read.xattrs,
      ElementsAre(Pair("user.a", ""), Pair("user.b", std::string("\0=\n", 3))));
}

TEST(TarWriterTest, LengthsOfRecordsCountTheirOwnDigits) {
  for (size_t size = 60; size < 1100; ++size) {
    const TarEntry entry = {.name = std::string(size, 'n')};
    ASSERT_EQ(RoundTrip(entry).name.size(), size);
  }
}

TEST(TarWriterTest, LargeFilesAndOddTimes) {
  ASSERT_OK_AND_ASSIGN(const std::string header,
                       TarHeaderOf({.name = "big", .size = uint64_t{1} << 33}));
  EXPECT_THAT(header, HasSubstr(" size=8589934592\n"));
  for (const int64_t sec : {int64_t{-1}, int64_t{0}, int64_t{8'589'934'592}}) {
    for (const int32_t nsec : {0, 1, 999'999'999}) {
      const TarEntry read =
          RoundTrip({.name = "t", .mtime_sec = sec, .mtime_nsec = nsec});
      EXPECT_EQ(read.mtime_sec, sec);
      EXPECT_EQ(read.mtime_nsec, nsec);
    }
  }
}

TEST(TarWriterTest, WhatNoTarCanSayIsRefused) {
  EXPECT_THAT(TarHeaderOf({.name = std::string("a\0b", 3)}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("NUL")));
  EXPECT_THAT(
      TarHeaderOf({.name = "a", .xattrs = {{"user.a=b", "c"}}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("user.a=b")));
}

// ---- tar-split ----

TEST(TarSplitTest, PutsTogetherWhatWasTakenApart) {
  TestDir dir;
  dir.MakeDir("diff");
  dir.Write("diff/a", "0123456789");
  TarSplitWriter writer;
  ASSERT_OK(writer.Create(dir.fd(), "split"));
  const std::string large(300'000, 'x');
  writer.Raw("head ");
  writer.Data("diff/a", 2, 5);
  writer.Data("diff/a", 0, 0);
  writer.Raw(large);
  writer.Data("diff/a", 0, 1);
  ASSERT_OK(writer.Finish());
  const UniqueFd split(::open(dir.path("split").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(*TarSplitSize(split.borrow()), 5 + 5 + large.size() + 1);
  ASSERT_OK_AND_ASSIGN(auto tar, OpenTarSplit(split.borrow(), dir.fd()));
  std::string text(large.size() + 100, '\0');
  ASSERT_OK_AND_ASSIGN(const size_t n, ReadFully(*tar, absl::MakeSpan(text)));
  EXPECT_EQ(text.substr(0, n), "head 23456" + large + "0");
}

TEST(TarSplitTest, DamageIsDataLoss) {
  TestDir dir;
  dir.Write("a", "0123");
  TarSplitWriter writer;
  ASSERT_OK(writer.Create(dir.fd(), "split"));
  writer.Data("a", 0, 10);
  ASSERT_OK(writer.Finish());
  const std::string good = dir.Read("split");
  const auto drain = [&dir](const std::string& content) -> absl::Status {
    dir.Write("damaged", content);
    const UniqueFd fd(
        ::open(dir.path("damaged").c_str(), O_RDONLY | O_CLOEXEC));
    auto tar = OpenTarSplit(fd.borrow(), dir.fd());
    if (!tar.ok()) return tar.status();
    return Drain(**tar).status();
  };
  EXPECT_THAT(drain(good), StatusIs(absl::StatusCode::kDataLoss,
                                    HasSubstr("shorter than it was")));
  dir.Write("a", "0123456789");
  EXPECT_OK(drain(good));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(drain(good.substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("")))
        << size;
  }
  ASSERT_EQ(::unlink(dir.path("a").c_str()), 0);
  EXPECT_THAT(drain(good),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("is missing")));
}

// Verify would otherwise repair a sound layer by removing it.
TEST(TarSplitTest, TooFewDescriptorsAreNoDamage) {
  TestDir dir;
  dir.Write("a", "0123");
  TarSplitWriter writer;
  ASSERT_OK(writer.Create(dir.fd(), "split"));
  writer.Data("a", 0, 4);
  ASSERT_OK(writer.Finish());
  const UniqueFd split(::open(dir.path("split").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_OK_AND_ASSIGN(auto tar, OpenTarSplit(split.borrow(), dir.fd()));
  rlimit limit;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit none = {0, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Status status = Drain(*tar).status();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_THAT(status.ToString(), HasSubstr("EMFILE"));
  EXPECT_FALSE(absl::IsDataLoss(status));
}

// The kernel would not only refuse to write, but raise SIGXFSZ.
TEST(TarSplitTest, FileSizeLimitOfTheProcessIsAnError) {
  TestDir dir;
  TarSplitWriter writer;
  ASSERT_OK(writer.Create(dir.fd(), "split"));
  const UniqueFd out(::open(dir.path("out").c_str(),
                            O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string noise;
  for (uint32_t i = 1; noise.size() < 5000; i = i * 1'103'515'245 + 12'345) {
    noise += static_cast<char>(i >> 24);
  }
  writer.Raw(noise);
  const absl::Status split = writer.Finish();
  MemorySource source(noise, 900);
  const absl::Status copied = CopyTo(source, out.borrow(), "out").status();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(split, StatusIs(absl::StatusCode::kResourceExhausted,
                              HasSubstr("RLIMIT_FSIZE (1000)")));
  EXPECT_THAT(copied, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("write(\"out\")")));
}

}  // namespace
}  // namespace caisson::layer
