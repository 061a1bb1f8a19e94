#include "lib/layer/decompress.h"

#include <lzma.h>
#include <stdio.h>
#include <unistd.h>

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lib/base/status_matchers.h"
#include "lib/layer/test_streams.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

absl::StatusOr<std::string> Inflate(absl::string_view compressed,
                                    const DecompressOptions& options = {},
                                    size_t in_chunk = SIZE_MAX,
                                    size_t out_chunk = 4096) {
  MemorySource source(compressed, in_chunk);
  ASSIGN_OR_RETURN(auto stream, Decompress(source, options));
  ASSIGN_OR_RETURN(std::string out, ReadToEnd(*stream, out_chunk));
  // The end of the output is the end of the input.
  ASSIGN_OR_RETURN(const uint64_t left, Drain(source));
  if (left != 0) return absl::InternalError("compressed bytes were left");
  return out;
}

struct GoodCase {
  std::string name;
  std::string compressed;
  std::string expected;
  Compression compression;
};

std::vector<GoodCase> MakeGoodCases() {
  const std::string text = SampleText(300'000);
  const std::string zeros(1 << 20, '\0');
  const auto gzip = Compression::kGzip;
  const auto zstd = Compression::kZstd;
  return {
      {"Plain", text, text, Compression::kNone},
      {"PlainEmpty", "", "", Compression::kNone},
      {"PlainOneByte", "x", "x", Compression::kNone},
      {"PlainNamedLikeBzip2", "BZh91.txt and more", "BZh91.txt and more",
       Compression::kNone},
      {"Gzip", Gzip(text), text, gzip},
      {"GzipEmpty", Gzip(""), "", gzip},
      {"GzipZeros", Gzip(zeros), zeros, gzip},
      {"GzipAllHeaderFields", GzipStoredWithFields(text), text, gzip},
      {"GzipMembers", Gzip("one") + Gzip("") + GzipStoredWithFields("two"),
       "onetwo", gzip},
      // One method is undone: what is below is no tar, and refused as such.
      {"GzipOfGzip", Gzip(Gzip(text)), Gzip(text), gzip},
      {"GzipZeroPadding", Gzip(text) + std::string(700'000, '\0'), text, gzip},
      {"GzipMembersThenPadding", Gzip("a") + Gzip("b") + std::string(1, '\0'),
       "ab", gzip},
      {"Zstd", Zstd(text), text, zstd},
      {"ZstdEmpty", Zstd(""), "", zstd},
      {"ZstdFrames", Zstd("one") + Zstd("") + Zstd("two"), "onetwo", zstd},
      {"ZstdLeadingSkippable", ZstdSkippable("index") + Zstd(text), text, zstd},
      {"ZstdSkippableEverywhere",
       ZstdSkippable("", 15) + Zstd("a") + ZstdSkippable(text, 3) + Zstd("b") +
           ZstdSkippable("x"),
       "ab", zstd},
      {"ZstdOnlySkippable", ZstdSkippable("nothing"), "", zstd},
      {"Xz", Xz(text), text, Compression::kXz},
      {"XzEmpty", Xz(""), "", Compression::kXz},
      {"XzStreamsAndPadding",
       Xz("one") + std::string(4, '\0') + Xz("two") + std::string(8, '\0'),
       "onetwo", Compression::kXz},
      {"Bzip2", Bzip2(text), text, Compression::kBzip2},
      {"Bzip2Empty", Bzip2(""), "", Compression::kBzip2},
      {"Bzip2Streams", Bzip2("one") + Bzip2("") + Bzip2(text), "one" + text,
       Compression::kBzip2},
  };
}

const std::vector<GoodCase>& GoodCases() {
  static const auto* cases = new std::vector<GoodCase>(MakeGoodCases());
  return *cases;
}

using GoodParam = std::tuple<size_t, size_t, size_t>;  // case, in, out chunk

class DecompressGood : public ::testing::TestWithParam<GoodParam> {};

TEST_P(DecompressGood, GivesTheData) {
  const auto [index, in_chunk, out_chunk] = GetParam();
  const GoodCase& test = GoodCases()[index];
  SCOPED_TRACE(test.name);
  ASSERT_OK_AND_ASSIGN(const std::string out,
                       Inflate(test.compressed, {}, in_chunk, out_chunk));
  EXPECT_TRUE(out == test.expected) << out.size() << " bytes";
  MemorySource source(test.compressed);
  ASSERT_OK_AND_ASSIGN(auto stream, Decompress(source, {}));
  EXPECT_EQ(stream->compression(), test.compression);
}

INSTANTIATE_TEST_SUITE_P(
    All, DecompressGood,
    ::testing::Combine(::testing::Range<size_t>(0, GoodCases().size()),
                       ::testing::Values(1, 7, 4096, SIZE_MAX),
                       ::testing::Values(1, 333, 1 << 20)));

TEST(DecompressTest, EveryTruncationOfGzipIsAnError) {
  const std::string whole = Gzip(SampleText(5000));
  for (size_t size = 2; size < whole.size(); ++size) {
    EXPECT_THAT(Inflate(whole.substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss,
                         HasSubstr("gzip stream is truncated")))
        << size;
  }
  // The second of two members.
  for (size_t size = 3; size < whole.size(); size += 97) {
    EXPECT_THAT(Inflate(whole + whole.substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("truncated")))
        << size;
  }
}

TEST(DecompressTest, EveryTruncationOfZstdIsAnError) {
  for (const std::string& whole :
       {Zstd(SampleText(5000)), ZstdSkippable("index") + Zstd("a")}) {
    const size_t boundary = whole.size() > 100 ? 0 : 13;
    for (size_t size = 4; size < whole.size(); ++size) {
      if (size == boundary) continue;
      const auto result = Inflate(whole.substr(0, size));
      EXPECT_FALSE(result.ok()) << size;
    }
  }
  EXPECT_THAT(Inflate(Zstd(SampleText(5000)).substr(0, 1000)),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("zstd stream is truncated: it ends at offset "
                                 "1000")));
  EXPECT_THAT(Inflate(ZstdSkippable("0123456789").substr(0, 12)),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("truncated")));
}

TEST(DecompressTest, GzipChecksumAndLengthAreVerified) {
  const std::string good = Gzip("some data");
  for (size_t from_end = 1; from_end <= 8; ++from_end) {
    std::string bad = good;
    bad[bad.size() - from_end] ^= 1;
    EXPECT_THAT(Inflate(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("CRC-32 or length")));
    // The trailer is checked when it arrives byte by byte, too.
    EXPECT_THAT(Inflate(bad, {}, 1),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("CRC-32 or length")));
  }
}

TEST(DecompressTest, GzipHeaderIsVerified) {
  std::string reserved = Gzip("x");
  reserved[3] = '\x20';
  EXPECT_THAT(Inflate(reserved), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("reserved")));
  std::string method = Gzip("x");
  method[2] = 7;
  EXPECT_THAT(Inflate(method), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("not deflate")));
  std::string header_crc = GzipStoredWithFields("x");
  header_crc[14] ^= 1;
  EXPECT_THAT(Inflate(header_crc), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("member header")));
}

TEST(DecompressTest, TrailingGarbageIsAnErrorWithItsOffset) {
  const std::string gzip = Gzip("data");
  EXPECT_THAT(Inflate(gzip + std::string(3, '\0') + "garbage"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("offset " + std::to_string(gzip.size() + 3))));
  EXPECT_THAT(Inflate(gzip + "\x1f"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("behind the last member")));
  const std::string zstd = Zstd("data");
  EXPECT_THAT(Inflate(zstd + "garbage"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("offset " + std::to_string(zstd.size()))));
  // A frame of the format of zstd 0.7 is garbage, too.
  EXPECT_THAT(Inflate(zstd + "\x27\xb5\x2f\xfd" + std::string(20, 'x')),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("behind the last frame")));
}

TEST(DecompressTest, InvalidDataIsAnError) {
  std::string gzip = Gzip(SampleText(100'000));
  int errors = 0;
  for (size_t i = 10; i < gzip.size(); i += 501) {
    gzip[i] ^= 0x55;
    errors += Inflate(gzip).ok() ? 0 : 1;
    gzip[i] ^= 0x55;
  }
  EXPECT_EQ(errors, static_cast<int>((gzip.size() - 10 + 500) / 501));
  std::string zstd = Zstd(SampleText(100'000));
  for (size_t i = 10; i < zstd.size(); i += 501) {
    zstd[i] ^= 0x55;
    EXPECT_FALSE(Inflate(zstd).ok()) << i;
    zstd[i] ^= 0x55;
  }
}

TEST(DecompressTest, OutputIsLimited) {
  const std::string zeros(1 << 20, '\0');
  for (const std::string& bomb : {Gzip(zeros), Zstd(zeros), zeros}) {
    EXPECT_OK(Inflate(bomb, {.max_output_bytes = zeros.size()}));
    for (const size_t out_chunk : {size_t{1000}, size_t{4} << 20}) {
      EXPECT_THAT(Inflate(bomb, {.max_output_bytes = zeros.size() - 1},
                          SIZE_MAX, out_chunk),
                  StatusIs(absl::StatusCode::kResourceExhausted,
                           HasSubstr("max_output_bytes (1048575)")));
    }
  }
  EXPECT_OK(Inflate(Gzip("x"), {.max_output_bytes = UINT64_MAX}));
}

TEST(DecompressTest, AnErrorStays) {
  const std::string bad = Gzip("data") + "garbage";
  MemorySource source(bad);
  ASSERT_OK_AND_ASSIGN(auto stream, Decompress(source, {}));
  EXPECT_FALSE(ReadToEnd(*stream).ok());
  EXPECT_FALSE(ReadToEnd(*stream).ok());
}

TEST(DecompressTest, ZstdWindowIsLimited) {
  const std::string big = Zstd(SampleText(1000), 28);
  EXPECT_THAT(Inflate(big),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_window_bytes (134217728)")));
  EXPECT_OK(Inflate(big, {.max_window_bytes = 1 << 28}));
  EXPECT_OK(Inflate(big, {.max_window_bytes = UINT64_MAX}));
  EXPECT_FALSE(Inflate(big, {.max_window_bytes = (1 << 28) - 1}).ok());
  EXPECT_THAT(Inflate(big, {.max_window_bytes = 99}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("max_window_bytes: 99")));
}

// The dictionary that a block of xz claims, one byte behind its filter's id and
// the size of its properties: 40 is 4 GiB.
TEST(DecompressTest, XzDictionaryIsLimited) {
  std::string xz = Xz(SampleText(1000));
  const size_t filter = xz.find("\x21\x01", 12);
  ASSERT_LT(filter, 20u);
  xz[filter + 2] = 40;
  const size_t header = (static_cast<uint8_t>(xz[12]) + 1) * 4;
  const uint32_t crc = ::lzma_crc32(
      reinterpret_cast<const uint8_t*>(xz.data() + 12), header - 4, 0);
  for (size_t i = 0; i < 4; ++i) {
    xz[12 + header - 4 + i] = static_cast<char>(crc >> (8 * i));
  }
  EXPECT_THAT(Inflate(xz), StatusIs(absl::StatusCode::kResourceExhausted,
                                    HasSubstr("max_window_bytes (134217728)")));
  ASSERT_OK_AND_ASSIGN(
      const std::string text,
      Inflate(Xz(SampleText(1000)), {.max_window_bytes = UINT64_MAX}));
  EXPECT_EQ(text, SampleText(1000));
}

// The decompressed size, for streams that would be too large for memory.
absl::StatusOr<uint64_t> InflatedSize(absl::string_view compressed,
                                      uint64_t ratio) {
  MemorySource source(compressed);
  DecompressOptions options;
  options.max_compression_ratio = ratio;
  ASSIGN_OR_RETURN(auto stream, Decompress(source, options));
  return Drain(*stream);
}

TEST(DecompressTest, TheRatioIsLimitedButForZeros) {
  constexpr size_t kSize = kFreeOutputBytes + (32 << 20);
  const std::string bomb = Zstd(std::string(kSize, 'x'));
  ASSERT_LT(bomb.size(), size_t{64} << 10);
  EXPECT_THAT(InflatedSize(bomb, 500),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("more than max_compression_ratio (500)")));
  ASSERT_OK_AND_ASSIGN(uint64_t size, InflatedSize(bomb, 0));
  EXPECT_EQ(size, kSize);
  ASSERT_OK_AND_ASSIGN(size, InflatedSize(bomb, 1'000'000));
  EXPECT_EQ(size, kSize);
  // What is small may be anything.
  const std::string small = Zstd(std::string(8 << 20, 'x'));
  EXPECT_OK(InflatedSize(small, 2));
  // A disk image: a thousand to one, and all holes.
  const std::string zeros = GzipZeros(kSize);
  EXPECT_GT(kSize / zeros.size(), 500u);
  ASSERT_OK_AND_ASSIGN(size, InflatedSize(zeros, 2));
  EXPECT_EQ(size, kSize);
  // Many streams of one file are one stream.
  std::string streams;
  for (int i = 0; i < 20; ++i) streams += small;
  EXPECT_THAT(InflatedSize(streams, 500),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
}

TEST(DecompressTest, ZstdDictionaryIsRefused) {
  // Frame header: single segment, 4-byte dictionary id, 1-byte content size.
  const std::string frame("\x28\xb5\x2f\xfd\x23\x2a\0\0\0\x01\x09\0\0x", 14);
  EXPECT_THAT(Inflate(frame), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("dictionary")));
}

TEST(DecompressTest, DamagedXzAndBzip2) {
  const std::string text = SampleText(100'000);
  for (std::string compressed : {Xz(text), Bzip2(text)}) {
    compressed[compressed.size() / 2] ^= 1;
    EXPECT_THAT(
        Inflate(compressed),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("damaged")));
  }
  EXPECT_THAT(Inflate(Bzip2("x") + "junk, which is long enough"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("behind the last stream")));
}

// The member length is modulo 2^32 and the decoder counts in 32 bits.
TEST(DecompressTest, MembersOverFourGigabytes) {
  constexpr uint64_t kSize = 4'400'000'000;
  const std::string compressed = GzipZeros(kSize);
  MemorySource source(compressed);
  ASSERT_OK_AND_ASSIGN(auto stream, Decompress(source, {}));
  std::string buffer(1 << 20, '\0');
  uint64_t size = 0;
  for (;;) {
    ASSERT_OK_AND_ASSIGN(const size_t got,
                         stream->Read(absl::MakeSpan(buffer)));
    if (got == 0) break;
    size += got;
  }
  EXPECT_EQ(size, kSize);
}

TEST(FdSourceTest, RangesAreCheckedAgainstTheFile) {
  FILE* file = ::tmpfile();
  ASSERT_NE(file, nullptr);
  const BorrowedFd fd(::fileno(file));
  ASSERT_EQ(::pwrite(fd.get(), "0123456789", 10, 0), 10);
  FdSource range(fd, 2, 5);
  EXPECT_OK(range.Skip(1));
  ASSERT_OK_AND_ASSIGN(const std::string middle, ReadToEnd(range, 2));
  EXPECT_EQ(middle, "3456");
  EXPECT_THAT(range.Skip(1), StatusIs(absl::StatusCode::kDataLoss,
                                      HasSubstr("1 bytes too early")));
  FdSource beyond(fd, 8, 5);
  EXPECT_THAT(ReadToEnd(beyond),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("ends at 10, 3 bytes too early")));
  FdSource closed{BorrowedFd(-1)};
  EXPECT_THAT(ReadToEnd(closed), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("EBADF")));
  ::fclose(file);
}

TEST(FdSourceTest, StreamsAreReadToTheirEnd) {
  FILE* pipe = ::popen("printf 0123456789", "re");
  ASSERT_NE(pipe, nullptr);
  FdSource source{BorrowedFd(::fileno(pipe))};
  EXPECT_OK(source.Skip(4));
  ASSERT_OK_AND_ASSIGN(const std::string rest, ReadToEnd(source));
  EXPECT_EQ(rest, "456789");
  EXPECT_THAT(source.Skip(1),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("too early")));
  ::pclose(pipe);
}

}  // namespace
}  // namespace caisson::layer
