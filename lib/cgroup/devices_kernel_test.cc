// Devices on the real kernel: eBPF and version 1 give the answers that
// CgroupDeviceRules::Allows() promises.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/sys/bpf.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Type = CgroupDeviceRule::Type;

constexpr char kV2[] = " - cgroup2 ";  // of the mount's line in mountinfo

struct Request {
  const char* node;
  uint32_t major;
  uint32_t minor;
  const char* access;
};
// Nodes that every machine has, and what opening them cannot harm.
constexpr Request kRequests[] = {
    {"/dev/null", 1, 3, "r"},  {"/dev/null", 1, 3, "w"},
    {"/dev/null", 1, 3, "rw"}, {"/dev/zero", 1, 5, "r"},
    {"/dev/full", 1, 7, "rw"}, {"/dev/urandom", 1, 9, "r"},
    {"/dev/kmsg", 1, 11, "r"}, {"/dev/ptmx", 5, 2, "rw"},
    {"/dev/null", 1, 3, "m"},  {"/dev/kmsg", 1, 11, "m"},
};

// "1" for each request that the kernel allows, "0" for EPERM, "?" else.
std::string Ask() {
  std::string answers;
  const std::string node =
      absl::StrCat(::testing::TempDir(), "/node-", ::getpid());
  for (const Request& request : kRequests) {
    const std::string access = request.access;
    int result;
    if (access == "m") {
      result = ::mknod(node.c_str(), S_IFCHR | 0600,
                       makedev(request.major, request.minor));
    } else {
      const int mode = access == "rw"  ? O_RDWR
                       : access == "w" ? O_WRONLY
                                       : O_RDONLY;
      result = ::open(request.node, mode | O_CLOEXEC | O_NOCTTY);
      if (result > 0) ::close(result);
    }
    const int error = errno;
    ::unlink(node.c_str());
    answers += result >= 0 ? '1' : error == EPERM ? '0' : '?';
  }
  return answers;
}

std::string Expected(const CgroupDeviceRules& rules) {
  std::string answers;
  for (const Request& request : kRequests) {
    answers += rules.Allows(Type::kCharacter, request.major, request.minor,
                            request.access)
                   ? '1'
                   : '0';
  }
  return answers;
}

std::string AskIn(const Cgroup& group) {
  int fds[2];
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  Child child(group, [&] {
    const std::string answers = Ask();
    return ::write(write_end.get(), answers.data(), answers.size()) < 0 ? 1 : 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  write_end.reset();
  char buffer[64];
  const ssize_t n = ::read(read_end.get(), buffer, sizeof(buffer));
  return std::string(buffer, n > 0 ? n : 0);
}

CgroupDeviceRules Rules(const std::vector<std::string>& texts) {
  CgroupDeviceRules rules;
  for (const std::string& text : texts) {
    rules.rules.push_back(
        *CgroupDeviceRule::Parse(text.substr(1), text[0] == '+'));
  }
  return rules;
}

class DevicesKernelTest : public CgroupKernelTest {
 protected:
  // The ways of this machine: by eBPF, by the v1 controller.
  std::vector<std::vector<std::string>> Ways() const {
    std::vector<std::vector<std::string>> ways;
    if (layout().mode != CgroupLayout::Mode::kV1) ways.push_back({});
    if (layout().Find(CgroupController::kDevices).usable) ways.push_back({kV2});
    return ways;
  }
};

TEST_F(DevicesKernelTest, TheLayoutSaysHow) {
  EXPECT_EQ(layout().device_filter, layout().mode == CgroupLayout::Mode::kV1
                                        ? CgroupLayout::DeviceFilter::kV1
                                        : CgroupLayout::DeviceFilter::kEbpf)
      << layout().device_filter_reason;
}

TEST_F(DevicesKernelTest, AnswersAreThoseOfTheRules) {
  ASSERT_FALSE(Ways().empty());
  const std::vector<CgroupDeviceRules> cases = {
      CgroupDeviceRules::ContainerDefault(),
      Rules({}),
      Rules({"+a"}),
      Rules({"+a", "-c 1:3 w", "-c 1:11 rwm"}),
      Rules({"+c 1:3 r", "+c 1:* m"}),
      Rules({"+c *:* r", "+c 1:3 w"}),
      Rules({"+b *:* rwm", "+c 5:2 rw"}),
  };
  for (const auto& hidden : Ways()) {
    CgroupParent parent = Open(hidden);
    for (size_t i = 0; i < cases.size(); ++i) {
      ASSERT_OK_AND_ASSIGN(Cgroup group,
                           parent.Create({.name = absl::StrCat("devices-", i),
                                          .limits = {.devices = cases[i]}}));
      EXPECT_EQ(AskIn(group), Expected(cases[i]))
          << "case " << i << (hidden.empty() ? " eBPF" : " v1");
    }
  }
}

// Every rule list after every other one, in one group.
TEST_F(DevicesKernelTest, RulesAreReplaced) {
  const std::vector<CgroupDeviceRules> cases = {
      Rules({"+c 1:3 rw"}), Rules({"+a", "-c 1:5 r"}), Rules({"+c 1:* rwm"}),
      Rules({}), Rules({"+a"})};
  for (const auto& hidden : Ways()) {
    CgroupParent parent = Open(hidden);
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        parent.Create(
            {.name = "replaced", .limits = {.devices = CgroupDeviceRules()}}));
    for (size_t from = 0; from < cases.size(); ++from) {
      for (size_t to = 0; to < cases.size(); ++to) {
        ASSERT_OK(group.SetLimits({.devices = cases[from]}));
        ASSERT_OK(group.SetLimits({.devices = cases[to]}));
        EXPECT_EQ(AskIn(group), Expected(cases[to])) << from << " " << to;
      }
    }
  }
}

// Whoever waits for a moment in which all is allowed waits in vain.
TEST_F(DevicesKernelTest, V1StaysClosedWhileRulesChange) {
  if (!layout().Find(CgroupController::kDevices).usable) {
    return SkipIf("the devices controller of cgroup v1");
  }
  const CgroupDeviceRules few = Rules({"+c 1:3 rw"});
  const std::vector<CgroupDeviceRules> but = {
      Rules({"+a", "-c 1:11 rwm"}),
      Rules({"+a", "-c 1:11 rwm", "-c 1:5 r", "-c 1:9 w"}),
      Rules({"+a", "-c 1:11 rwm", "-c 1:9 r"})};
  CgroupParent parent = Open({kV2});
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "closed", .limits = {.devices = but[0]}}));
  Signal running;
  {
    Child child(group, [&] {
      running.Send();
      while (!ShouldGiveUp()) {
        if (::open("/dev/kmsg", O_RDONLY | O_CLOEXEC) >= 0) return 1;
      }
      return 0;
    });
    running.Await();
    for (int i = 0; i < 500; ++i) {
      ASSERT_OK(group.SetLimits({.devices = but[i % but.size()]}));
    }
    ASSERT_OK(group.Kill());
    const int status = child.Wait();
    EXPECT_TRUE(WIFSIGNALED(status)) << "it opened what is refused";
  }
  {
    // The kernel itself forgets the exceptions before it changes the default
    // (security/device_cgroup.c, devcgroup_update_access()), so nobody waits
    // for that one.
    Signal inside;
    Child child(group, [&] {
      inside.Send();
      while (!ShouldGiveUp()) ::usleep(1000);
      return 0;
    });
    inside.Await();
    ASSERT_OK(group.SetLimits({.devices = few}));
    // A change that the kernel cannot make without opening all is refused.
    EXPECT_THAT(group.SetLimits({.devices = but[0]}),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("for a moment")));
    ASSERT_OK(group.Kill());
    child.Wait();
  }
  EXPECT_EQ(AskIn(group), Expected(few));
  ASSERT_OK(group.SetLimits({.devices = but[1]}));
  EXPECT_EQ(AskIn(group), Expected(but[1]));
}

// A program that somebody else attached stays, and both have to agree.
TEST_F(DevicesKernelTest, ProgramsOfOthersStay) {
  if (layout().mode == CgroupLayout::Mode::kV1) {
    return SkipIf("eBPF programs are attached to groups of cgroup v2");
  }
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "both"}));
  const std::string directory = group.paths()[0].directory;
  const UniqueFd cgroup(::open(directory.c_str(), O_RDONLY | O_CLOEXEC));
  // Refuses everything: R0 = 0; exit.
  const std::vector<sys::BpfInstruction> no = {{0xb7, 0, 0, 0},
                                               {0x95, 0, 0, 0}};
  ASSERT_OK_AND_ASSIGN(const UniqueFd other,
                       sys::LoadDeviceProgram(no, "other"));
  ASSERT_OK(sys::AttachDeviceProgram(cgroup.borrow(), directory, other.borrow(),
                                     "other"));
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK(group.SetLimits({.devices = Rules({"+a"})}));
    EXPECT_EQ(AskIn(group), Expected(Rules({})));
  }
}

TEST_F(DevicesKernelTest, VerifierIsQuoted) {
  // Falls off its end.
  const auto program = sys::LoadDeviceProgram({{0xb7, 0, 0, 0}}, "bad");
  ASSERT_FALSE(program.ok());
  EXPECT_THAT(
      std::string(program.status().message()),
      AllOf(HasSubstr("bpf(BPF_PROG_LOAD"), HasSubstr("the verifier says: ")));
}

// The devices are the last to be set, so whatever fails leaves them alone.
TEST_F(DevicesKernelTest, ARefusedChangeLeavesTheRules) {
  for (const auto& hidden : Ways()) {
    CgroupParent parent = Open(hidden);
    const CgroupDeviceRules rules = Rules({"+c 1:3 rw"});
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        parent.Create(
            {.name = "refused", .limits = {.pids_max = 10, .devices = rules}}));
    EXPECT_FALSE(group
                     .SetLimits({.hugetlb = {{.page_size = 1 << 14, .max = 1}},
                                 .devices = Rules({"+a"})})
                     .ok());
    EXPECT_EQ(AskIn(group), Expected(rules));
  }
}

// Version 1 cannot take back a part of what it allows; eBPF can.
TEST_F(DevicesKernelTest, ExactOrRefused) {
  const CgroupDeviceRules rules = Rules({"+c 1:* rwm", "-c 1:11 rwm"});
  for (const auto& hidden : Ways()) {
    CgroupParent parent = Open(hidden);
    auto group = parent.Create({.name = "exact", .limits = {.devices = rules}});
    if (hidden.empty()) {
      ASSERT_OK(group);
      EXPECT_EQ(AskIn(*group), Expected(rules));
    } else {
      EXPECT_THAT(group.status(),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr("cgroup v1 cannot take back a part")));
    }
  }
}

}  // namespace
}  // namespace caisson
