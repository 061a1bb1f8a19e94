#include "lib/layer/digest.h"

#include <string>

#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kEmpty[] =
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(DigestTest, ComputesSha256) {
  EXPECT_EQ(Digest::Of("").str(), kEmpty);
  EXPECT_EQ(Digest::Of("abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hash;
  hash.Update(absl::string_view("a"));
  hash.Update(absl::string_view("bc"));
  EXPECT_EQ(hash.Finish(), Digest::Of("abc"));
}

TEST(DigestTest, ParsesOnlyCanonicalDigests) {
  ASSERT_OK_AND_ASSIGN(Digest digest, Digest::Parse(kEmpty, "f"));
  EXPECT_EQ(digest.str(), kEmpty);
  const std::string hex(digest.hex());
  const std::string bad[] = {
      "",
      hex,
      "sha256:",
      "sha256:" + hex.substr(1),
      "sha256:" + hex + "0",
      "SHA256:" + hex,
      "sha256:E" + hex.substr(1),
      "sha256:../" + hex.substr(3),
      "sha256:" + hex.substr(0, 60) + "/../",
      std::string("sha256:") + std::string(64, '\0'),
      "md5:d41d8cd98f00b204e9800998ecf8427e",
  };
  for (const std::string& text : bad) {
    EXPECT_THAT(Digest::Parse(text, "config.digest"),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("config.digest: ")))
        << text;
  }
  EXPECT_THAT(Digest::Parse("sha512:" + hex + hex, "f"),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("sha256")));
}

TEST(DigestTest, ChainIdIsThatOfTheImageSpecification) {
  const Digest a = Digest::Of("a");
  const Digest b = Digest::Of("b");
  EXPECT_EQ(ChainId(nullptr, a), a);
  EXPECT_EQ(ChainId(&a, b), Digest::Of(a.str() + " " + b.str()));
}

}  // namespace
}  // namespace caisson::layer
