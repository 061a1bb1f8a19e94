#include "lib/runtime/resctrl.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::runtime {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

// A directory with resctrl's layout. What the kernel would make in a new group
// is made by whoever writes there.
class ResctrlTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(root_ + "/info");
    fs::create_directories(root_ + "/mon_groups");
    Put("/schemata", "    L3:0=fff;1=fff\n    MB:0= 100;1= 100\n");
    fs::create_directories(root_ + "/gold/mon_groups");
    Put("/gold/schemata", "    L3:0=00f;1=0f0\n    MB:0=  70;1= 100\n");
  }
  void TearDown() override { fs::remove_all(root_); }

  void Put(const std::string& path, const std::string& text) {
    std::ofstream(root_ + path) << text;
  }
  std::string Get(const std::string& path) {
    std::ifstream file(root_ + path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // rmdir(2) of resctrl takes the kernel's files along.
  void RemoveFiles(const std::string& directory) {
    for (const char* name : {"schemata", "tasks"}) {
      fs::remove(root_ + directory + "/" + name);
    }
  }
  bool Has(const std::string& path) { return fs::exists(root_ + path); }

  const std::string root_ =
      absl::StrCat(::testing::TempDir(), "/resctrl-", ::getpid());
};

TEST_F(ResctrlTest, GroupOfItsOwnIsMadeAndRemoved) {
  const spec::IntelRdt rdt = {.schemata = {"L2:0=3"},
                              .l3_cache_schema = "L3:0=f;1=f\nMB:0=1",
                              .mem_bw_schema = "MB:0=20;1=70"};
  {
    ASSERT_OK_AND_ASSIGN(ResctrlGroup group,
                         ResctrlGroup::Make(root_, rdt, "web"));
    EXPECT_EQ(Get("/web/schemata"), "L3:0=f;1=f\nMB:0=20;1=70\nL2:0=3\n");
    EXPECT_OK(group.Assign(42));
    EXPECT_EQ(Get("/web/tasks"), "42\n");
    EXPECT_THAT(ResctrlGroup::Make(root_, rdt, "web"),
                StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("web")));
    RemoveFiles("/web");
  }
  EXPECT_FALSE(Has("/web"));
  {
    ASSERT_OK_AND_ASSIGN(ResctrlGroup group,
                         ResctrlGroup::Make(root_, rdt, "web"));
    ResctrlGroup moved = std::move(group);
    moved.Keep();
    RemoveFiles("/web");
  }
  EXPECT_TRUE(Has("/web"));
  EXPECT_OK(RemoveResctrlGroup(root_, rdt, "web"));
  EXPECT_FALSE(Has("/web"));
  EXPECT_OK(RemoveResctrlGroup(root_, rdt, "web"));
}

TEST_F(ResctrlTest, NamedGroupIsJoinedIfItIsAsTheDocumentSays) {
  spec::IntelRdt rdt = {.clos_id = "gold"};
  {
    ASSERT_OK_AND_ASSIGN(const ResctrlGroup group,
                         ResctrlGroup::Make(root_, rdt, "web"));
    EXPECT_OK(group.Assign(43));
  }
  EXPECT_EQ(Get("/gold/tasks"), "43\n");
  rdt.l3_cache_schema = "L3:1=f0;0=f";
  rdt.mem_bw_schema = "MB:0=70";
  EXPECT_OK(ResctrlGroup::Make(root_, rdt, "web"));
  EXPECT_THAT(Get("/gold/schemata"), HasSubstr("MB:0=  70;1= 100"));
  rdt.mem_bw_schema = "MB:0=80";
  EXPECT_THAT(ResctrlGroup::Make(root_, rdt, "web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has MB:0=70, where the document has 80")));
  rdt.mem_bw_schema = "MB:2=80";
  EXPECT_THAT(
      ResctrlGroup::Make(root_, rdt, "web"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("MB:2 not")));
  EXPECT_OK(RemoveResctrlGroup(root_, rdt, "web"));
  EXPECT_TRUE(Has("/gold"));
}

TEST_F(ResctrlTest, NamedGroupIsMadeWithSchemataAlone) {
  spec::IntelRdt rdt = {.clos_id = "new"};
  EXPECT_THAT(ResctrlGroup::Make(root_, rdt, "web"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("of a group that is there")));
  rdt.schemata = {"L3:0=f"};
  ASSERT_OK_AND_ASSIGN(ResctrlGroup group,
                       ResctrlGroup::Make(root_, rdt, "web"));
  EXPECT_EQ(Get("/new/schemata"), "L3:0=f\n");
  group.Keep();
  EXPECT_OK(RemoveResctrlGroup(root_, rdt, "web"));
  EXPECT_TRUE(Has("/new"));
  rdt.clos_id = "/";
  EXPECT_OK(ResctrlGroup::Make(root_, {.clos_id = "/"}, "web"));
  for (const char* bad : {"a/b", "..", "info", "mon_groups"}) {
    rdt.clos_id = bad;
    EXPECT_THAT(ResctrlGroup::Make(root_, rdt, "web"),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("linux.intelRdt.closID")))
        << bad;
  }
}

TEST_F(ResctrlTest, MonitoringHasAGroupBelow) {
  const spec::IntelRdt rdt = {.clos_id = "gold", .enable_monitoring = true};
  {
    ASSERT_OK_AND_ASSIGN(ResctrlGroup group,
                         ResctrlGroup::Make(root_, rdt, "web"));
    EXPECT_OK(group.Assign(44));
    group.Keep();
  }
  EXPECT_EQ(Get("/gold/tasks"), "44\n");
  EXPECT_EQ(Get("/gold/mon_groups/web/tasks"), "44\n");
  RemoveFiles("/gold/mon_groups/web");
  EXPECT_OK(RemoveResctrlGroup(root_, rdt, "web"));
  EXPECT_FALSE(Has("/gold/mon_groups/web"));
  EXPECT_TRUE(Has("/gold"));
}

}  // namespace
}  // namespace caisson::runtime
