#include <stdio.h>
#include <stdlib.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/tar_header.h"
#include "lib/layer/tar_reader.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

// The content of a sparse file with its holes filled.
struct Expanded {
  TarEntry entry;
  std::string content;
  bool next_found = false;
};

absl::StatusOr<Expanded> Expand(absl::string_view tar,
                                const TarLimits& limits = {}) {
  MemorySource source(tar);
  TarReader reader(source, limits);
  ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader.Next());
  if (!entry.has_value()) return absl::NotFoundError("no entry");
  Expanded expanded = {*entry, std::string(entry->size, '\0')};
  for (const TarExtent& extent : entry->extents) {
    size_t done = 0;
    while (done < extent.length) {
      ASSIGN_OR_RETURN(
          const size_t got,
          reader.Read(absl::MakeSpan(&expanded.content[extent.offset + done],
                                     extent.length - done)));
      if (got == 0) return absl::InternalError("data is missing");
      done += got;
    }
  }
  ASSIGN_OR_RETURN(std::optional<TarEntry> next, reader.Next());
  expanded.next_found = next.has_value() && next->name == "next";
  return expanded;
}

constexpr size_t kSize = 10'000;

// "one" at 100, "three" at 5000, a hole to the end.
std::string Content() {
  std::string content(kSize, '\0');
  content.replace(100, 3, "one");
  content.replace(5000, 5, "three");
  return content;
}

constexpr absl::string_view kData = "onethree";

std::string Octal(uint64_t value) {
  char text[13];
  ::snprintf(text, sizeof(text), "%011llo ",
             static_cast<unsigned long long>(value));
  return text;
}

std::string GnuHeader(const std::vector<std::pair<uint64_t, uint64_t>>& pairs,
                      uint64_t real_size, size_t stored, bool extended) {
  TestTarHeader header;
  header.name = "sparse";
  header.type = 'S';
  header.magic = GnuMagic();
  header.size = static_cast<int64_t>(stored);
  return Rechecksum(header.Block(), [&](std::string& block) {
    size_t at = 386;
    for (const auto& [offset, length] : pairs) {
      block.replace(at, 24, Octal(offset) + Octal(length));
      at += 24;
    }
    block[482] = extended ? 1 : 0;
    block.replace(483, 12, Octal(real_size));
  });
}

std::string GnuContinuation(
    const std::vector<std::pair<uint64_t, uint64_t>>& pairs, bool extended) {
  std::string block(kTarBlock, '\0');
  size_t at = 0;
  for (const auto& [offset, length] : pairs) {
    block.replace(at, 24, Octal(offset) + Octal(length));
    at += 24;
  }
  block[504] = extended ? 1 : 0;
  return block;
}

std::string Padded(absl::string_view data) {
  return absl::StrCat(data, std::string(TarPadding(data.size()), '\0'));
}

std::string PaxTar(const TestTar::Records& records, absl::string_view data) {
  return TestTar()
      .Pax(records)
      .File("GNUSparseFile.1/sparse", data)
      .File("next")
      .Finish();
}

void ExpectContent(const absl::StatusOr<Expanded>& expanded) {
  ASSERT_OK(expanded);
  EXPECT_TRUE(expanded->entry.sparse);
  EXPECT_EQ(expanded->entry.name, "sparse");
  EXPECT_EQ(expanded->entry.size, kSize);
  EXPECT_TRUE(expanded->content == Content());
  EXPECT_TRUE(expanded->next_found);
}

TEST(TarSparseTest, OldGnu) {
  ExpectContent(Expand(TestTar()
                           .Raw(GnuHeader({{100, 3}, {5000, 5}, {kSize, 0}},
                                          kSize, kData.size(), false))
                           .Raw(Padded(kData))
                           .File("next")
                           .Finish()));
}

TEST(TarSparseTest, OldGnuContinued) {
  ExpectContent(Expand(
      TestTar()
          .Raw(GnuHeader({{0, 0}, {0, 0}, {100, 1}, {101, 2}}, kSize,
                         kData.size(), true))
          .Raw(GnuContinuation({{5000, 1}, {5001, 1}, {5002, 1}}, true))
          .Raw(GnuContinuation({{5003, 1}, {5004, 1}, {kSize, 0}}, false))
          .Raw(Padded(kData))
          .File("next")
          .Finish()));
}

TEST(TarSparseTest, Pax00) {
  ExpectContent(Expand(PaxTar({{"GNU.sparse.size", "10000"},
                               {"GNU.sparse.numblocks", "2"},
                               {"GNU.sparse.offset", "100"},
                               {"GNU.sparse.numbytes", "3"},
                               {"GNU.sparse.offset", "5000"},
                               {"GNU.sparse.numbytes", "5"},
                               {"path", "sparse"}},
                              kData)));
}

TEST(TarSparseTest, Pax01) {
  ExpectContent(Expand(PaxTar({{"GNU.sparse.major", "0"},
                               {"GNU.sparse.minor", "1"},
                               {"GNU.sparse.size", "10000"},
                               {"GNU.sparse.numblocks", "2"},
                               {"GNU.sparse.name", "sparse"},
                               {"GNU.sparse.map", "100,3,5000,5"}},
                              kData)));
}

TEST(TarSparseTest, Pax10) {
  ExpectContent(
      Expand(PaxTar({{"GNU.sparse.major", "1"},
                     {"GNU.sparse.minor", "0"},
                     {"GNU.sparse.name", "sparse"},
                     {"GNU.sparse.realsize", "10000"}},
                    Padded("2\n100\n3\n5000\n5\n") + std::string(kData))));
}

TEST(TarSparseTest, Pax10MapOverSeveralBlocks) {
  std::string map = "301\n";
  for (int i = 0; i < 300; ++i) absl::StrAppend(&map, i, "\n0\n");
  absl::StrAppend(&map, "300\n4\n");
  const TestTar::Records records = {{"GNU.sparse.major", "1"},
                                    {"GNU.sparse.minor", "0"},
                                    {"GNU.sparse.realsize", "304"}};
  ASSERT_OK_AND_ASSIGN(const auto expanded,
                       Expand(PaxTar(records, Padded(map) + "data")));
  EXPECT_EQ(expanded.content.substr(300), "data");
  EXPECT_THAT(Expand(PaxTar(records, Padded(map) + "data"),
                     {.max_extension_bytes = 1024}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_extension_bytes (1024)")));
  EXPECT_THAT(Expand(PaxTar(records, Padded(map) + "data"),
                     {.max_sparse_extents = 300}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_sparse_extents (300)")));
}

TEST(TarSparseTest, OneHole) {
  ASSERT_OK_AND_ASSIGN(
      const auto expanded,
      Expand(PaxTar(
          {{"GNU.sparse.size", "10000"}, {"GNU.sparse.numblocks", "0"}}, "")));
  EXPECT_EQ(expanded.content, std::string(kSize, '\0'));
  EXPECT_TRUE(expanded.next_found);
}

TEST(TarSparseTest, MalformedPaxMapsAreErrors) {
  const auto map = [](absl::string_view text, absl::string_view data = kData) {
    return Expand(PaxTar(
        {{"GNU.sparse.size", "10000"}, {"GNU.sparse.map", std::string(text)}},
        data));
  };
  ASSERT_OK(map("100,3,5000,5"));
  for (const absl::string_view bad :
       {"100,3,5000", "100,3,5000,", "100,3,-5000,5", "100,3,102,5",
        "5000,5,100,3", "100,3,9996,5", "10001,8", "100,3,5000,6",
        "100,3,5000,4", "9223372036854775807,8", "0,18446744073709551615",
        "100,3,a,5", ""}) {
    EXPECT_THAT(map(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr("spars")))
        << bad;
  }
  EXPECT_THAT(map("100,3,5000,5", "one"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("the sparse map describes 8 bytes of data, "
                                 "the archive has 3")));
  for (const TestTar::Records& bad : std::vector<TestTar::Records>{
           {{"GNU.sparse.map", "100,3,5000,5"}},  // no size
           {{"GNU.sparse.size", "10000"}, {"GNU.sparse.major", "2"}},
           {{"GNU.sparse.size", "10000"},
            {"GNU.sparse.major", "1"},
            {"GNU.sparse.minor", "1"}},
           {{"GNU.sparse.size", "10000"},
            {"GNU.sparse.numblocks", "3"},
            {"GNU.sparse.map", "100,3,5000,5"}},
           {{"GNU.sparse.size", "10000"}, {"GNU.sparse.numbytes", "8"}},
           {{"GNU.sparse.size", "10000"},
            {"GNU.sparse.offset", "8"},
            {"GNU.sparse.offset", "8"}},
           {{"GNU.sparse.size", "10000"}, {"GNU.sparse.offset", "8"}},
           {{"GNU.sparse.size", "10000"},
            {"GNU.sparse.map", "100,3"},
            {"GNU.sparse.map", "100,3"}},
           {{"GNU.sparse.size", "10000"},
            {"GNU.sparse.map", "100,3"},
            {"GNU.sparse.offset", "100"}},
           {{"GNU.sparse.size", "10000"},
            {"GNU.sparse.major", "1"},
            {"GNU.sparse.minor", "0"},
            {"GNU.sparse.map", "100,8"}}}) {
    EXPECT_THAT(Expand(PaxTar(bad, kData)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")))
        << bad.back().first;
  }
}

TEST(TarSparseTest, MalformedMapsInDataAreErrors) {
  const auto map = [](absl::string_view data) {
    return Expand(PaxTar({{"GNU.sparse.major", "1"},
                          {"GNU.sparse.minor", "0"},
                          {"GNU.sparse.realsize", "10000"}},
                         data));
  };
  for (const absl::string_view bad :
       {"2\n100\n3\n5000\n", "\n", "x\n", "2\n100\n\n5000\n5\n", "-1\n",
        "1\n9999999999999999999\n1\n", "1\n-5\n8\n"}) {
    EXPECT_THAT(
        map(Padded(bad) + std::string(kData)),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sparse map")))
        << bad;
  }
  EXPECT_THAT(map("2\n100"), StatusIs(absl::StatusCode::kInvalidArgument,
                                      HasSubstr("longer than the data")));
  EXPECT_THAT(map(Padded("99999999\n")),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("99999999 regions")));
}

TEST(TarSparseTest, MalformedOldGnuIsAnError) {
  const auto tar = [](const std::string& header) {
    return Expand(TestTar().Raw(header).Raw(Padded(kData)).Finish());
  };
  EXPECT_THAT(
      tar(GnuHeader({{100, 3}, {50, 5}}, kSize, 8, false)),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("overlaps")));
  EXPECT_THAT(tar(GnuHeader({{100, 3}}, kSize, 8, false)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("describes 3 bytes")));
  const std::string good = GnuHeader({{100, 8}}, kSize, 8, false);
  EXPECT_OK(tar(good));
  EXPECT_THAT(
      tar(Rechecksum(good, [](std::string& block) { block[386] = 'x'; })),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("invalid number")));
  EXPECT_THAT(tar(Rechecksum(good, [](std::string& b) { b[262] = 0; })),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("outside of a GNU archive")));
  EXPECT_THAT(
      Expand(TestTar()
                 .Pax({{"GNU.sparse.size", "10000"}, {"GNU.sparse.map", "0,8"}})
                 .Raw(good)
                 .Raw(Padded(kData))
                 .Finish()),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no plain file")));
}

// CVE-2026-32288: continuation blocks without end.
TEST(TarSparseTest, EndlessContinuationIsBounded) {
  TestTar tar;
  tar.Raw(GnuHeader({}, kSize, 0, true));
  for (int i = 0; i < 50; ++i) tar.Raw(GnuContinuation({}, true));
  EXPECT_THAT(Expand(tar.bytes(), {.max_sparse_extents = 40}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("too many blocks")));
  EXPECT_THAT(Expand(tar.bytes()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("sparse map")));
}

}  // namespace
}  // namespace caisson::layer
