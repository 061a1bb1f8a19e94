#include "lib/layer/read_ahead.h"

#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/hashing_source.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;

std::string Pattern(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 7);
  return text;
}

std::string ReadAll(ByteSource& source, size_t chunk) {
  std::string all;
  std::string buffer(chunk, '\0');
  for (;;) {
    auto n = source.Read(absl::MakeSpan(buffer));
    if (!n.ok() || *n == 0) {
      EXPECT_OK(n);
      return all;
    }
    all.append(buffer, 0, *n);
  }
}

TEST(ReadAheadTest, PassesEverythingInOrder) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{5} << 20}) {
    const std::string text = Pattern(size);
    MemorySource memory(text, 100'003);
    HashingSource hashing(memory);
    ReadAhead ahead(hashing);
    ASSERT_OK(ahead.Start());
    EXPECT_TRUE(ReadAll(ahead, 77'777) == text);
    EXPECT_EQ(hashing.count(), size);
    EXPECT_EQ(hashing.Finish(), Digest::Of(text));
  }
}

TEST(ReadAheadTest, HashesInASecondThread) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{5} << 20}) {
    const std::string text = Pattern(size);
    MemorySource memory(text, 100'003);
    Sha256 hash;
    ReadAhead ahead(memory, &hash);
    ASSERT_OK(ahead.Start());
    EXPECT_TRUE(ReadAll(ahead, 77'777) == text);
    EXPECT_EQ(hash.Finish(), Digest::Of(text));
  }
}

class FailingSource final : public ByteSource {
 public:
  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    if (++reads_ > 3) return absl::DataLossError("cut");
    std::fill(buffer.begin(), buffer.end(), 'x');
    return buffer.size();
  }

 private:
  int reads_ = 0;
};

TEST(ReadAheadTest, DeliversWhatCameBeforeAnErrorAndThenTheError) {
  Sha256 hash;
  for (Sha256* const with : {static_cast<Sha256*>(nullptr), &hash}) {
    FailingSource failing;
    ReadAhead ahead(failing, with);
    ASSERT_OK(ahead.Start());
    std::string buffer(1 << 20, '\0');
    size_t total = 0;
    absl::StatusOr<size_t> n = 1;
    while ((n = ahead.Read(absl::MakeSpan(buffer))).ok()) total += *n;
    EXPECT_EQ(total, 3u * (256 << 10));
    EXPECT_THAT(n, StatusIs(absl::StatusCode::kDataLoss, "cut"));
    EXPECT_THAT(ahead.Read(absl::MakeSpan(buffer)),
                StatusIs(absl::StatusCode::kDataLoss, "cut"));
  }
}

class EndlessSource final : public ByteSource {
 public:
  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    return buffer.size();
  }
};

TEST(ReadAheadTest, StopsWithTheObject) {
  Sha256 hash;
  for (Sha256* const with : {static_cast<Sha256*>(nullptr), &hash}) {
    EndlessSource endless;
    ReadAhead ahead(endless, with);
    ASSERT_OK(ahead.Start());
    char byte;
    EXPECT_EQ(*ahead.Read(absl::MakeSpan(&byte, 1)), 1u);
  }
}

TEST(ReadAheadTest, NeedNotBeStarted) {
  EndlessSource endless;
  ReadAhead ahead(endless);
}

}  // namespace
}  // namespace caisson::layer
