#include "lib/security/capabilities.h"

#include <linux/capability.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::security {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr uint64_t Mask(int capability) { return uint64_t{1} << capability; }

constexpr KernelCapabilities kEverything = {
    .last = CAP_CHECKPOINT_RESTORE,
    .bounding = (uint64_t{1} << (CAP_CHECKPOINT_RESTORE + 1)) - 1};

TEST(CapabilitiesTest, DefaultIsDockers) {
  // "docker run busybox grep CapBnd /proc/self/status"
  EXPECT_EQ(DefaultCapabilities(), 0xa80425fbu);
}

TEST(CapabilitiesTest, NamesAndNumbersBelongTogether) {
  EXPECT_EQ(CapabilityName(CAP_CHOWN), "CAP_CHOWN");
  EXPECT_EQ(CapabilityName(CAP_SYS_ADMIN), "CAP_SYS_ADMIN");
  EXPECT_EQ(CapabilityName(CAP_SETFCAP), "CAP_SETFCAP");
  EXPECT_EQ(CapabilityName(CAP_CHECKPOINT_RESTORE), "CAP_CHECKPOINT_RESTORE");
  EXPECT_EQ(CapabilityName(41), "CAP_41");
  EXPECT_EQ(CapabilityName(-1), "CAP_-1");
  for (int i = 0; i <= CAP_CHECKPOINT_RESTORE; ++i) {
    ASSERT_OK_AND_ASSIGN(const int number,
                         ParseCapability("f", CapabilityName(i)));
    EXPECT_EQ(number, i);
  }
}

TEST(CapabilitiesTest, PrefixAndCaseDoNotMatter) {
  for (const char* name : {"CAP_NET_ADMIN", "NET_ADMIN", "cap_net_admin",
                           "net_admin", "Cap_Net_Admin"}) {
    ASSERT_OK_AND_ASSIGN(const int number, ParseCapability("f", name));
    EXPECT_EQ(number, CAP_NET_ADMIN) << name;
  }
}

TEST(CapabilitiesTest, UnknownNameTeaches) {
  EXPECT_THAT(ParseCapability("Field", "CAP_NET_ADMN"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "Field: \"CAP_NET_ADMN\" is no capability; did you mean "
                       "\"CAP_NET_ADMIN\"?"));
  EXPECT_THAT(ParseCapability("Field", "sysadmin"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("did you mean \"CAP_SYS_ADMIN\"?")));
  EXPECT_THAT(ParseCapability("Field", "CAP_ALL"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("did you mean \"ALL\"?")));
}

TEST(CapabilitiesTest, HopelessNameIsNotGuessedAt) {
  for (const char* name :
       {"", "CAP_", "everything", "CAP_CAP_CHOWN_AND_MORE", "--privileged"}) {
    EXPECT_THAT(ParseCapability("Field", name),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("capabilities(7) lists those that exist")))
        << name;
  }
}

TEST(CapabilitiesTest, HostileNameStaysOneShortLine) {
  EXPECT_THAT(
      ParseCapability("Field", std::string(1 << 20, 'x')),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("x\"... is no")));
  const auto forged = ParseCapability("Field", "CAP_CHOWN\nroot: granted");
  EXPECT_THAT(forged, StatusIs(absl::StatusCode::kInvalidArgument,
                               Not(HasSubstr("\n"))));
  // A valid name followed by rubbish.
  EXPECT_FALSE(
      ParseCapability("Field", "CAP_CHOWN" + std::string(200, ' ')).ok());
  EXPECT_FALSE(ParseCapability("Field", absl::string_view("CHOWN\0", 6)).ok());
}

TEST(CapabilitiesTest, DropsComeBeforeAdds) {
  ASSERT_OK_AND_ASSIGN(
      const auto choice,
      ChooseCapabilities({"ALL"}, {"CHOWN", "CAP_SYS_TIME"}, kEverything));
  EXPECT_EQ(choice.granted, Mask(CAP_CHOWN) | Mask(CAP_SYS_TIME));
  EXPECT_THAT(choice.missing, IsEmpty());

  ASSERT_OK_AND_ASSIGN(
      const auto readded,
      ChooseCapabilities({"NET_RAW"}, {"NET_RAW"}, kEverything));
  EXPECT_EQ(readded.granted, DefaultCapabilities());
}

TEST(CapabilitiesTest, DroppingWhatIsNotThereIsNoError) {
  ASSERT_OK_AND_ASSIGN(const auto choice,
                       ChooseCapabilities({"SYS_ADMIN"}, {}, kEverything));
  EXPECT_EQ(choice.granted, DefaultCapabilities());
}

TEST(CapabilitiesTest, AllMeansWhatTheKernelKnows) {
  ASSERT_OK_AND_ASSIGN(const auto all,
                       ChooseCapabilities({}, {"all"}, kEverything));
  EXPECT_EQ(all.granted, kEverything.bounding);

  // Linux 5.8 has no CAP_CHECKPOINT_RESTORE: "ALL" does not ask for it, the
  // name does.
  const KernelCapabilities older = {.last = CAP_BPF,
                                    .bounding = Mask(CAP_BPF + 1) - 1};
  ASSERT_OK_AND_ASSIGN(const auto fewer,
                       ChooseCapabilities({}, {"ALL"}, older));
  EXPECT_EQ(fewer.granted, older.bounding);
  EXPECT_THAT(fewer.missing, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const auto named,
                       ChooseCapabilities({}, {"CHECKPOINT_RESTORE"}, older));
  EXPECT_EQ(named.granted, DefaultCapabilities());
  EXPECT_THAT(named.missing, ElementsAre("CAP_CHECKPOINT_RESTORE"));

  // A later kernel has some that are unknown here; the last one is bit 63.
  const KernelCapabilities later = {.last = 63, .bounding = ~Mask(62)};
  ASSERT_OK_AND_ASSIGN(const auto more, ChooseCapabilities({}, {"ALL"}, later));
  EXPECT_EQ(more.granted, ~Mask(62));
  EXPECT_THAT(more.missing, ElementsAre("CAP_62"));
}

TEST(CapabilitiesTest, BoundingSetIsTheLimit) {
  const KernelCapabilities kernel = {.last = CAP_CHECKPOINT_RESTORE,
                                     .bounding = kEverything.bounding &
                                                 ~Mask(CAP_SYS_RESOURCE) &
                                                 ~Mask(CAP_MKNOD)};
  ASSERT_OK_AND_ASSIGN(
      const auto choice,
      ChooseCapabilities({}, {"SYS_RESOURCE", "SYS_NICE"}, kernel));
  EXPECT_EQ(choice.granted,
            (DefaultCapabilities() & ~Mask(CAP_MKNOD)) | Mask(CAP_SYS_NICE));
  EXPECT_THAT(choice.missing, ElementsAre("CAP_SYS_RESOURCE", "CAP_MKNOD"));
}

TEST(CapabilitiesTest, ErrorNamesTheField) {
  EXPECT_THAT(ChooseCapabilities({"CHWON"}, {}, kEverything),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("SecurityOptions.drop_capabilities"),
                             HasSubstr("CAP_CHOWN"))));
  EXPECT_THAT(ChooseCapabilities({}, {"CHWON"}, kEverything),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("SecurityOptions.unsafe_add_capabilities: ")));
}

}  // namespace
}  // namespace caisson::security
