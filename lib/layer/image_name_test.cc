#include "lib/layer/image_name.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ImageNameTest, FillsInWhatDockerLeavesOut) {
  const struct {
    const char* text;
    const char* canonical;
    const char* familiar;
  } cases[] = {
      {"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
      {"busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"},
      {"library/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
      {"docker.io/busybox", "docker.io/library/busybox:latest",
       "busybox:latest"},
      {"index.docker.io/library/busybox", "docker.io/library/busybox:latest",
       "busybox:latest"},
      {"user/app:v1", "docker.io/user/app:v1", "user/app:v1"},
      {"localhost/app", "localhost/app:latest", "localhost/app:latest"},
      {"localhost:5000/app", "localhost:5000/app:latest",
       "localhost:5000/app:latest"},
      {"ghcr.io/a/b/c:x_Y.z-1", "ghcr.io/a/b/c:x_Y.z-1",
       "ghcr.io/a/b/c:x_Y.z-1"},
      {"[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
      {"docker.io/localhost/a", "docker.io/localhost/a:latest",
       "docker.io/localhost/a:latest"},
      {"REG/app", "REG/app:latest", "REG/app:latest"},
      {"a__b/c--d/e.f", "docker.io/a__b/c--d/e.f:latest",
       "a__b/c--d/e.f:latest"},
  };
  for (const auto& c : cases) {
    ASSERT_OK_AND_ASSIGN(ImageName name, ParseImageName(c.text));
    EXPECT_EQ(name.Canonical(), c.canonical) << c.text;
    EXPECT_EQ(name.Familiar(), c.familiar) << c.text;
    EXPECT_EQ(FamiliarName(c.canonical), c.familiar) << c.text;
    ASSERT_OK_AND_ASSIGN(ImageName again, ParseTag(c.familiar));
    EXPECT_EQ(again.Canonical(), c.canonical) << c.text;
  }
}

TEST(ImageNameTest, ReadsADigest) {
  const std::string digest = Digest::Of("x").str();
  ASSERT_OK_AND_ASSIGN(ImageName name,
                       ParseImageName(absl::StrCat("busybox@", digest)));
  EXPECT_EQ(name.tag, "");
  EXPECT_EQ(name.digest->str(), digest);
  ASSERT_OK_AND_ASSIGN(name,
                       ParseImageName(absl::StrCat("busybox:1@", digest)));
  EXPECT_EQ(name.tag, "1");
  EXPECT_EQ(name.Familiar(), "busybox:1@" + digest);
  EXPECT_THAT(
      ParseTag(absl::StrCat("busybox@", digest)),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("with a digest")));
}

TEST(ImageNameTest, RefusesWhatDockerRefuses) {
  const std::string bad[] = {
      "",
      ":tag",
      "busybox:",
      "busybox:-x",
      "busybox:.x",
      "busybox:a b",
      std::string("busybox:") + std::string(129, 'a'),
      "Busybox",
      "user/App",
      "a//b",
      "/a",
      "a/",
      "../a",
      "a/../b",
      "a_-b",
      "a___b",
      "-a",
      "a.",
      "a\nb",
      std::string("a\0b", 3),
      "reg.io:port/a",
      "-reg.io/a",
      "[::1/a",
      "a@sha256:12",
      std::string(300, 'a'),
  };
  for (const std::string& text : bad) {
    EXPECT_THAT(
        ParseImageName(text),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("image name ")))
        << text;
  }
  EXPECT_THAT(ParseTag(Digest::Of("").hex()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("taken for an image id")));
}

}  // namespace
}  // namespace caisson::layer
