#include "lib/layer/tar_reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/tar_header.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

struct ReadEntry {
  TarEntry entry;
  std::string data;
};

absl::StatusOr<std::vector<ReadEntry>> ReadTar(absl::string_view tar,
                                               const TarLimits& limits = {},
                                               size_t chunk = SIZE_MAX) {
  MemorySource source(tar, chunk);
  TarReader reader(source, limits);
  std::vector<ReadEntry> entries;
  for (;;) {
    ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader.Next());
    if (!entry.has_value()) break;
    ReadEntry read = {*std::move(entry), ""};
    char buffer[1000];
    for (;;) {
      ASSIGN_OR_RETURN(const size_t got, reader.Read(absl::MakeSpan(buffer)));
      if (got == 0) break;
      read.data.append(buffer, got);
    }
    entries.push_back(std::move(read));
  }
  ASSIGN_OR_RETURN(const uint64_t left, Drain(source));
  if (left != 0) return absl::InternalError("the source was not drained");
  return entries;
}

// The only entry of `tar`.
absl::StatusOr<ReadEntry> ReadOne(absl::string_view tar,
                                  const TarLimits& limits = {}) {
  ASSIGN_OR_RETURN(std::vector<ReadEntry> entries, ReadTar(tar, limits));
  if (entries.size() != 1) {
    return absl::InternalError(absl::StrCat(entries.size(), " entries"));
  }
  return std::move(entries[0]);
}

auto IsMalformed(absl::string_view problem) {
  return StatusIs(absl::StatusCode::kInvalidArgument,
                  HasSubstr(std::string(problem)));
}

TEST(TarReaderTest, ReadsTypesAndMetadata) {
  const std::string tar = TestTar()
                              .Owner(1000, 100)
                              .Mtime(1234567890)
                              .Dir("d", 01777)
                              .File("d/f", "some data", 04755)
                              .Symlink("d/s", "f")
                              .Hardlink("d/h", "d/f")
                              .Device("d/c", '3', 1, 3)
                              .Device("d/b", '4', 259, 70000)
                              .Fifo("d/p")
                              .Finish();
  for (const size_t chunk : {size_t{1}, size_t{513}, SIZE_MAX}) {
    ASSERT_OK_AND_ASSIGN(const auto entries, ReadTar(tar, {}, chunk));
    ASSERT_EQ(entries.size(), 7u);
    const TarEntry& dir = entries[0].entry;
    EXPECT_EQ(dir.name, "d/");
    EXPECT_EQ(dir.type, TarType::kDirectory);
    EXPECT_EQ(dir.mode, 01777u);
    EXPECT_EQ(dir.uid, 1000u);
    EXPECT_EQ(dir.gid, 100u);
    EXPECT_EQ(dir.mtime_sec, 1234567890);
    EXPECT_EQ(dir.header_offset, 0u);
    EXPECT_EQ(entries[1].entry.type, TarType::kFile);
    EXPECT_EQ(entries[1].entry.mode, 04755u);
    EXPECT_EQ(entries[1].entry.size, 9u);
    EXPECT_EQ(entries[1].entry.header_offset, 512u);
    EXPECT_EQ(entries[1].data, "some data");
    EXPECT_EQ(entries[2].entry.type, TarType::kSymlink);
    EXPECT_EQ(entries[2].entry.linkname, "f");
    EXPECT_EQ(entries[3].entry.type, TarType::kHardlink);
    EXPECT_EQ(entries[3].entry.linkname, "d/f");
    EXPECT_EQ(entries[4].entry.type, TarType::kCharDevice);
    EXPECT_EQ(entries[4].entry.devmajor, 1u);
    EXPECT_EQ(entries[4].entry.devminor, 3u);
    EXPECT_EQ(entries[5].entry.type, TarType::kBlockDevice);
    EXPECT_EQ(entries[5].entry.devminor, 70000u);
    EXPECT_EQ(entries[6].entry.type, TarType::kFifo);
  }
}

TEST(TarReaderTest, DataOffsetIndexesTheStream) {
  const std::string tar = TestTar()
                              .File("a", std::string(600, 'a'))
                              .Pax({{"path", "bb"}})
                              .File("b", "data of b")
                              .Finish();
  MemorySource source(tar);
  TarReader reader(source, {});
  ASSERT_OK_AND_ASSIGN(auto a, reader.Next());
  EXPECT_EQ(reader.data_offset(), 512u);
  EXPECT_EQ(reader.data_remaining(), 600u);
  ASSERT_OK_AND_ASSIGN(auto b, reader.Next());
  EXPECT_EQ(b->name, "bb");
  EXPECT_EQ(tar.substr(reader.data_offset(), b->size), "data of b");
  ASSERT_OK_AND_ASSIGN(const absl::string_view chunk, reader.ReadChunk());
  EXPECT_EQ(chunk, "data of b");
  ASSERT_OK_AND_ASSIGN(auto end, reader.Next());
  EXPECT_FALSE(end.has_value());
  ASSERT_OK_AND_ASSIGN(end, reader.Next());
  EXPECT_FALSE(end.has_value());
}

TEST(TarReaderTest, EndOfArchive) {
  const std::string one = TestTar().File("a", "x").bytes();
  const std::string zeros(1024, '\0');
  EXPECT_OK(ReadOne(one));                         // no mark at all
  EXPECT_OK(ReadOne(one + zeros.substr(0, 512)));  // half a mark
  EXPECT_OK(ReadOne(one + zeros.substr(0, 700)));  // not even blocks
  EXPECT_OK(ReadOne(one + zeros.substr(0, 100)));
  EXPECT_OK(ReadOne(one + zeros + zeros + "junk after the end"));
  EXPECT_OK(ReadOne(one + zeros + one));  // never looked at
  EXPECT_OK(ReadTar(""));
  EXPECT_OK(ReadTar(zeros));
  EXPECT_THAT(ReadTar(one + zeros.substr(0, 512) + one),
              IsMalformed("tar header at offset 1024: a single zero block"));
  EXPECT_THAT(ReadTar(one + "junk"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("in a header")));
  EXPECT_THAT(ReadTar(std::string(512, 'j')),
              IsMalformed("tar header at offset 0: the checksum does not"));
}

TEST(TarReaderTest, EveryTruncationIsAnError) {
  const std::string tar = TestTar()
                              .Pax({{"mtime", "1.5"}})
                              .File("a", std::string(700, 'a'))
                              .Long('L', "b")
                              .File("x", "data")
                              .bytes();
  // An archive may end behind its first entry, but nowhere else.
  const size_t first_entry = 512 + 512 + 512 + 1024;
  for (size_t size = 1; size < tar.size(); ++size) {
    const auto result = ReadTar(tar.substr(0, size), {}, 4096);
    if (size == first_entry) {
      EXPECT_OK(result);
    } else {
      EXPECT_FALSE(result.ok()) << size;
    }
  }
  EXPECT_THAT(
      ReadTar(tar.substr(0, 512 + 512 + 512 + 300)),
      StatusIs(absl::StatusCode::kDataLoss,
               AllOf(HasSubstr("tar entry \"a\" (header at offset 1024)"),
                     HasSubstr("truncated: it ends at offset 1836"))));
}

TEST(TarReaderTest, AnErrorStays) {
  const std::string tar =
      TestTar().Raw(std::string(512, 'j')).File("a").Finish();
  MemorySource source(tar);
  TarReader reader(source, {});
  EXPECT_FALSE(reader.Next().ok());
  EXPECT_FALSE(reader.Next().ok());
  char buffer[1];
  EXPECT_FALSE(reader.Read(absl::MakeSpan(buffer)).ok());
}

// ---- dialects ----

TEST(TarDialectTest, UstarPrefix) {
  TestTarHeader header;
  header.name = std::string(100, 'n');  // not terminated
  header.prefix = std::string(155, 'p');
  ASSERT_OK_AND_ASSIGN(const auto read,
                       ReadOne(TestTar().Entry(header).Finish()));
  EXPECT_EQ(read.entry.name,
            std::string(155, 'p') + "/" + std::string(100, 'n'));
}

TEST(TarDialectTest, GnuHasNoPrefix) {
  TestTarHeader header;
  header.name = "name";
  header.magic = GnuMagic();
  header.prefix = "07346545000";  // the access time
  ASSERT_OK_AND_ASSIGN(const auto read,
                       ReadOne(TestTar().Entry(header).Finish()));
  EXPECT_EQ(read.entry.name, "name");
}

// Written by Go before 1.8; Docker still reads it (TestPrefixHeaderReadable).
TEST(TarDialectTest, GnuWithPrefixOfOldGo) {
  TestTarHeader header;
  header.name = "name";
  header.magic = GnuMagic();
  header.prefix = "some/long/directory/name";
  ASSERT_OK_AND_ASSIGN(const auto read,
                       ReadOne(TestTar().Entry(header).Finish()));
  EXPECT_EQ(read.entry.name, "some/long/directory/name/name");
}

TEST(TarDialectTest, StarPrefixIsShorter) {
  TestTarHeader header;
  header.name = "name";
  header.prefix = std::string(131, 'p') + "00000000000";
  const std::string block = Rechecksum(header.Block(), [](std::string& bytes) {
    bytes.replace(508, 4, std::string("tar\0", 4));
  });
  ASSERT_OK_AND_ASSIGN(const auto read, ReadOne(TestTar().Raw(block).Finish()));
  EXPECT_EQ(read.entry.name, std::string(131, 'p') + "/name");
}

TEST(TarDialectTest, V7) {
  TestTarHeader header;
  header.name = "dir/";
  header.type = '\0';
  header.size = 100;  // ignored for a directory
  header.magic = "";
  header.prefix = "garbage";
  TestTarHeader file = header;
  file.name = "file";
  file.size = 3;
  ASSERT_OK_AND_ASSIGN(
      const auto entries,
      ReadTar(TestTar().Entry(header).Entry(file, "abc").Finish()));
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].entry.type, TarType::kDirectory);
  EXPECT_EQ(entries[1].entry.type, TarType::kFile);
  EXPECT_EQ(entries[1].entry.name, "file");
  EXPECT_EQ(entries[1].data, "abc");
}

TEST(TarDialectTest, SignedChecksum) {
  TestTarHeader header;
  header.name = "\xe4\xf6\xfc";
  std::string block = header.Block();
  int64_t sum = 0;
  for (size_t i = 0; i < block.size(); ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<int8_t>(block[i]);
  }
  char text[8];
  ::snprintf(text, sizeof(text), "%06llo",
             static_cast<unsigned long long>(sum));
  block.replace(148, 7, text, 7);
  ASSERT_OK_AND_ASSIGN(const auto read, ReadOne(TestTar().Raw(block).Finish()));
  EXPECT_EQ(read.entry.name, "\xe4\xf6\xfc");
}

TEST(TarDialectTest, GnuLongNames) {
  const std::string name(300, 'n');
  const std::string target(400, 't');
  ASSERT_OK_AND_ASSIGN(const auto read, ReadOne(TestTar()
                                                    .Long('K', target)
                                                    .Long('L', name)
                                                    .Symlink("short", "x")
                                                    .Finish()));
  EXPECT_EQ(read.entry.name, name);
  EXPECT_EQ(read.entry.linkname, target);
}

TEST(TarDialectTest, OtherGnuTypes) {
  TestTarHeader dump;
  dump.name = "dir/";
  dump.type = 'D';
  dump.size = 6;
  TestTarHeader volume;
  volume.name = "label";
  volume.type = 'V';
  ASSERT_OK_AND_ASSIGN(const auto entries, ReadTar(TestTar()
                                                       .Entry(volume)
                                                       .Entry(dump, "Yfile\n")
                                                       .File("dir/file", "x")
                                                       .Finish()));
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].entry.type, TarType::kDirectory);
  EXPECT_EQ(entries[0].entry.size, 0u);
  EXPECT_EQ(entries[1].data, "x");
  for (const char type : {'M', 'N', 'A', 'X', 's', '8', '\xff'}) {
    TestTarHeader other;
    other.name = "other";
    other.type = type;
    EXPECT_THAT(ReadTar(TestTar().Entry(other).Finish()),
                IsMalformed("is not supported"))
        << type;
  }
}

TEST(TarDialectTest, GlobalHeadersArePassedOver) {
  const std::string payload = PaxPayload({{"comment", "0123"}, {"path", "x"}});
  TestTarHeader global;
  global.name = "pax_global_header";
  global.type = 'g';
  global.size = static_cast<int64_t>(payload.size());
  ASSERT_OK_AND_ASSIGN(
      const auto read,
      ReadOne(TestTar().Entry(global, payload).File("a", "x").Finish()));
  EXPECT_EQ(read.entry.name, "a");
  // Whatever is in it, and however much.
  const std::string junk(3 << 20, 'j');
  global.size = static_cast<int64_t>(junk.size());
  EXPECT_OK(ReadOne(TestTar().Entry(global, junk).File("a").Finish()));
  EXPECT_THAT(ReadTar(TestTar()
                          .Pax({{"path", "x"}})
                          .Entry(global, junk)
                          .File("a")
                          .Finish()),
              IsMalformed("before a global header"));
}

// ---- numbers ----

TEST(TarNumberTest, Table) {
  const auto text = [](const char* bytes, size_t size) {
    return TarNumber(absl::string_view(bytes, size));
  };
  EXPECT_EQ(text("0000644\0", 8), 0644);
  EXPECT_EQ(text("    644 ", 8), 0644);
  EXPECT_EQ(text("\0\0\0\0\0\0\0\0", 8), 0);
  EXPECT_EQ(text("        ", 8), 0);
  EXPECT_EQ(text("644\0junk", 8), 0644);
  EXPECT_EQ(text("777777777777", 12), 0777777777777);
  EXPECT_EQ(text("\x80\0\0\0\0\0\0\x10", 8), 16);
  EXPECT_EQ(text("\xff\xff\xff\xff\xff\xff\xff\xff", 8), -1);
  EXPECT_EQ(text("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12), INT64_MAX);
  EXPECT_EQ(text("\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", 12), INT64_MIN);
  EXPECT_EQ(text("\x80\0\0\0\x80\0\0\0\0\0\0\0", 12), std::nullopt);
  EXPECT_EQ(text("\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0", 12), std::nullopt);
  EXPECT_EQ(text("\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12),
            std::nullopt);
  EXPECT_EQ(text("0000648\0", 8), std::nullopt);
  EXPECT_EQ(text("-000644\0", 8), std::nullopt);
  EXPECT_EQ(text("06 4\0\0\0\0", 8), std::nullopt);
  EXPECT_EQ(text("0x1f\0\0\0\0", 8), std::nullopt);
}

TEST(TarNumberTest, HeaderFieldsAreChecked) {
  const auto with = [](auto&& change) {
    TestTarHeader header;
    header.name = "victim";
    change(header);
    return ReadTar(TestTar().Entry(header).Finish());
  };
  EXPECT_THAT(with([](auto& h) { h.size = -1; }),
              IsMalformed("tar entry \"victim\" (header at offset 0): the size "
                          "is negative"));
  EXPECT_THAT(with([](auto& h) { h.uid = -5; }),
              IsMalformed("the uid is negative"));
  EXPECT_THAT(with([](auto& h) { h.gid = 0xffffffff; }),
              IsMalformed("the gid (4294967295) is greater than 4294967294"));
  EXPECT_THAT(with([](auto& h) { h.mode = -1; }), IsMalformed("mode"));
  const std::string good = TestTar().File("victim").bytes();
  for (const size_t field : {100, 108, 116, 124, 136}) {
    const std::string bad = Rechecksum(
        good, [field](std::string& block) { block[field + 2] = 'z'; });
    EXPECT_THAT(ReadTar(bad), IsMalformed("is not a number")) << field;
  }
}

TEST(TarNumberTest, LargeIdsAndNegativeTimes) {
  const std::string tar =
      TestTar()
          .Owner(4'000'000'000, 2'097'152)
          .Mtime(-100)
          .File("base256")
          .Owner(0, 0)
          .Pax({{"uid", "4294967294"}, {"gid", "3000000"}, {"mtime", "-1.25"}})
          .File("pax")
          .Finish();
  ASSERT_OK_AND_ASSIGN(const auto entries, ReadTar(tar));
  EXPECT_EQ(entries[0].entry.uid, 4'000'000'000u);
  EXPECT_EQ(entries[0].entry.gid, 2'097'152u);
  EXPECT_EQ(entries[0].entry.mtime_sec, -100);
  EXPECT_EQ(entries[1].entry.uid, 4294967294u);
  EXPECT_EQ(entries[1].entry.gid, 3'000'000u);
  EXPECT_EQ(entries[1].entry.mtime_sec, -2);
  EXPECT_EQ(entries[1].entry.mtime_nsec, 750'000'000);
}

// ---- PAX ----

TEST(TarPaxTest, AppliesRecords) {
  const std::string value("a\0b\n=c", 6);
  ASSERT_OK_AND_ASSIGN(const auto read,
                       ReadOne(TestTar()
                                   .Pax({{"path", "new/name"},
                                         {"linkpath", "new/target"},
                                         {"mtime", "1700000000.123456789123"},
                                         {"atime", "junk is not looked at"},
                                         {"comment", "\xff"},
                                         {"SCHILY.xattr.user.b", value},
                                         {"SCHILY.xattr.user.a", ""},
                                         {"LIBARCHIVE.xattr.user.b", "eA"},
                                         {"hdrcharset", "BINARY"}})
                                   .Symlink("old", "x")
                                   .Finish()));
  EXPECT_EQ(read.entry.name, "new/name");
  EXPECT_EQ(read.entry.linkname, "new/target");
  EXPECT_EQ(read.entry.mtime_sec, 1700000000);
  EXPECT_EQ(read.entry.mtime_nsec, 123456789);
  EXPECT_THAT(read.entry.xattrs,
              ElementsAre(Pair("user.a", ""), Pair("user.b", value)));
}

TEST(TarPaxTest, EmptyValueMeansTheHeader) {
  ASSERT_OK_AND_ASSIGN(
      const auto read,
      ReadOne(TestTar()
                  .Pax({{"path", ""}, {"size", ""}, {"uid", ""}, {"mtime", ""}})
                  .Owner(7, 7)
                  .File("a", "xyz")
                  .Finish()));
  EXPECT_EQ(read.entry.name, "a");
  EXPECT_EQ(read.entry.uid, 7u);
  EXPECT_EQ(read.data, "xyz");
}

// TARmageddon, CVE-2025-62518: a reader that takes one size for the data and
// the other for the next header finds the inner archive.
TEST(TarPaxTest, OneSizeForDataAndNextHeader) {
  const std::string inner = TestTar().File("smuggled", "evil").bytes();
  TestTarHeader header;
  header.name = "outer";
  header.size = 0;
  ASSERT_OK_AND_ASSIGN(const auto entries,
                       ReadTar(TestTar()
                                   .Pax({{"size", absl::StrCat(inner.size())}})
                                   .Entry(header, inner)
                                   .File("next", "x")
                                   .Finish()));
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].data, inner);
  EXPECT_EQ(entries[1].entry.name, "next");

  // The other way round the header's size counts for nothing.
  header.size = static_cast<int64_t>(inner.size());
  ASSERT_OK_AND_ASSIGN(
      const auto visible,
      ReadTar(TestTar().Pax({{"size", "0"}}).Entry(header, inner).Finish()));
  ASSERT_EQ(visible.size(), 2u);
  EXPECT_EQ(visible[0].data, "");
  EXPECT_EQ(visible[1].entry.name, "smuggled");
}

TEST(TarPaxTest, TypesWithoutDataIgnoreSizes) {
  for (const char type : {'1', '2', '3', '4', '5', '6'}) {
    TestTarHeader header;
    header.name = "a";
    header.type = type;
    header.linkname = "b";
    header.size = 5;
    ASSERT_OK_AND_ASSIGN(const auto entries,
                         ReadTar(TestTar()
                                     .Pax({{"size", "1000000"}})
                                     .Entry(header)
                                     .File("next", "x")
                                     .Finish()));
    ASSERT_EQ(entries.size(), 2u) << type;
    EXPECT_EQ(entries[0].entry.size, 0u);
    EXPECT_EQ(entries[1].entry.name, "next");
  }
}

TEST(TarPaxTest, MalformedRecordsAreErrors) {
  const auto read = [](absl::string_view payload) {
    TestTarHeader header;
    header.name = "PaxHeaders/0";
    header.type = 'x';
    header.size = static_cast<int64_t>(payload.size());
    return ReadTar(TestTar().Entry(header, payload).File("a").Finish());
  };
  EXPECT_OK(read("11 path=bc\n"));
  for (const absl::string_view bad :
       {"12 path=bc\n", "10 path=bc\n", "11 path=bcd", "path=bc\n", " 11 a=b\n",
        "11 pathbcd\n", "8 =bcd\n\n", "4 a\n", "3 \n", "0 a=b\n",
        "x1 path=bc\n", "99999999999999999999 a=b\n", "-1 a=b\n",
        "11  path=b\n\n", "11 path=bc\njunk", "11"}) {
    EXPECT_THAT(read(bad), IsMalformed("PAX")) << bad;
  }
  for (const TestTar::Records& bad : std::vector<TestTar::Records>{
           {{"path", std::string("a\0b", 3)}},
           {{"linkpath", std::string("\0", 1)}},
           {{"size", "-1"}},
           {{"size", "1.5"}},
           {{"size", " 1"}},
           {{"size", "9223372036854775808"}},
           {{"uid", "-1"}},
           {{"gid", "abc"}},
           {{"mtime", "abc"}},
           {{"mtime", "."}},
           {{"mtime", "1.2.3"}},
           {{"mtime", "--1"}},
           {{"SCHILY.xattr.", "x"}},
           {{std::string("SCHILY.xattr.a\0b", 16), "x"}},
           {{"SCHILY.devmajor", "x"}}}) {
    EXPECT_THAT(read(PaxPayload(bad)), IsMalformed("PAX record"))
        << bad[0].first << "=" << bad[0].second;
  }
  EXPECT_THAT(read(PaxPayload({{"uid", "4294967295"}})),
              IsMalformed("the uid (4294967295) is greater"));
}

TEST(TarPaxTest, HugeTimesAreClamped) {
  ASSERT_OK_AND_ASSIGN(
      const auto read,
      ReadOne(TestTar()
                  .Pax({{"mtime", "99999999999999999999999.5"}})
                  .File("a")
                  .Finish()));
  EXPECT_EQ(read.entry.mtime_sec, INT64_MAX);
}

TEST(TarPaxTest, OfRepeatedHeadersTheLastCounts) {
  ASSERT_OK_AND_ASSIGN(const auto read,
                       ReadOne(TestTar()
                                   .Pax({{"path", "one"}, {"uid", "5"}})
                                   .Pax({{"path", "two"}, {"path", "three"}})
                                   .File("a")
                                   .Finish()));
  EXPECT_EQ(read.entry.name, "three");
  EXPECT_EQ(read.entry.uid, 0u);
}

TEST(TarPaxTest, HeadersThatContradictAreRefused) {
  EXPECT_THAT(
      ReadTar(
          TestTar().Pax({{"path", "one"}}).Long('L', "two").File("a").Finish()),
      IsMalformed("two different names"));
  EXPECT_OK(ReadTar(
      TestTar().Long('L', "one").Pax({{"path", "one"}}).File("a").Finish()));
  EXPECT_THAT(ReadTar(TestTar()
                          .Long('K', "one")
                          .Pax({{"linkpath", "two"}})
                          .Hardlink("a", "b")
                          .Finish()),
              IsMalformed("two different link targets"));
}

TEST(TarPaxTest, HeadersWithoutAnEntryAreErrors) {
  EXPECT_THAT(ReadTar(TestTar().Pax({{"path", "one"}}).Finish()),
              IsMalformed("no entry follows"));
  EXPECT_THAT(ReadTar(TestTar().Long('L', "one").bytes()),
              IsMalformed("no entry follows"));
}

TEST(TarPaxTest, NamesMustNotBeEmpty) {
  EXPECT_THAT(ReadTar(TestTar().File("").Finish()),
              IsMalformed("the name is empty"));
  EXPECT_THAT(ReadTar(TestTar().Symlink("a", "").Finish()),
              IsMalformed("the link target is empty"));
  EXPECT_THAT(ReadTar(TestTar().Long('L', "").File("a").Finish()),
              IsMalformed("the long name is empty"));
}

// ---- limits ----

TEST(TarLimitsTest, Extensions) {
  const auto exhausted = [](absl::string_view what) {
    return StatusIs(absl::StatusCode::kResourceExhausted,
                    HasSubstr(std::string(what)));
  };
  const TarLimits limits = {.max_extension_bytes = 1000, .max_path_bytes = 50};
  EXPECT_THAT(
      ReadTar(TestTar().Pax({{"c", std::string(1000, 'x')}}).File("a").Finish(),
              limits),
      exhausted("max_extension_bytes (1000)"));
  // Only claimed: refused before anything is allocated.
  for (const char type : {'x', 'L', 'K'}) {
    TestTarHeader header;
    header.name = "huge";
    header.type = type;
    header.size = int64_t{1} << 60;
    EXPECT_THAT(ReadTar(TestTar().Entry(header).File("a").Finish()),
                exhausted("max_extension_bytes (1048576)"));
  }
  EXPECT_OK(ReadTar(TestTar().File(std::string(50, 'n')).Finish(), limits));
  EXPECT_OK(ReadTar(TestTar().Dir(std::string(50, 'n')).Finish(), limits));
  EXPECT_THAT(ReadTar(TestTar().File(std::string(51, 'n')).Finish(), limits),
              exhausted("max_path_bytes (50)"));
  EXPECT_THAT(
      ReadTar(TestTar().Symlink("a", std::string(51, 'n')).Finish(), limits),
      exhausted("max_path_bytes (50)"));
}

TEST(TarLimitsTest, AClaimedSizeAllocatesNothing) {
  TestTarHeader header;
  header.name = "huge";
  header.size = INT64_MAX;
  EXPECT_THAT(ReadTar(TestTar().Entry(header, "a few bytes").Finish()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("truncated")));
}

}  // namespace
}  // namespace caisson::layer
