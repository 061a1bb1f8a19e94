#include "lib/features/modules.h"

#include "gtest/gtest.h"

namespace caisson::features {
namespace {

constexpr char kBuiltin[] =
    "kernel/fs/overlayfs/overlay.ko\nkernel/net/bridge/bridge.ko\n";
constexpr char kDep[] =
    "kernel/net/netfilter/nf_tables.ko.xz: kernel/lib/libcrc32c.ko.xz\n"
    "kernel/drivers/net/ip-vlan.ko:\nkernel/crypto/sha.ko.zst:\n";

TEST(ModulesTest, FindsWhatIsListed) {
  EXPECT_EQ(FindModule("overlay", kBuiltin, kDep), ModuleState::kBuiltIn);
  EXPECT_EQ(FindModule("nf_tables", kBuiltin, kDep), ModuleState::kLoadable);
  EXPECT_EQ(FindModule("ip_vlan", kBuiltin, kDep), ModuleState::kLoadable);
  EXPECT_EQ(FindModule("sha", kBuiltin, kDep), ModuleState::kLoadable);
}

TEST(ModulesTest, DependenciesAndPartsOfNamesAreNoModules) {
  for (const char* name : {"libcrc32c", "bridg", "over", "", "net"}) {
    EXPECT_EQ(FindModule(name, kBuiltin, kDep), ModuleState::kMissing) << name;
  }
}

TEST(ModulesTest, WithoutListsNothingIsKnown) {
  EXPECT_EQ(FindModule("veth", "", ""), ModuleState::kUnknown);
  EXPECT_EQ(FindModule("veth", "", kDep), ModuleState::kMissing);
}

}  // namespace
}  // namespace caisson::features
