// The same rules give the same answers: by their definition, by the eBPF
// program and by the lists of version 1.
#include "lib/cgroup/devices.h"

#include <linux/bpf.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_matchers.h"

namespace caisson::cgroup {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Type = CgroupDeviceRule::Type;

CgroupDeviceRules Rules(const std::vector<std::string>& texts) {
  CgroupDeviceRules rules;
  for (const std::string& text : texts) {
    auto rule = CgroupDeviceRule::Parse(text.substr(1), text[0] == '+');
    EXPECT_OK(rule);
    rules.rules.push_back(*rule);
  }
  return rules;
}

// Runs the program as the kernel would; -1 if it does what it should not.
int Execute(const std::vector<sys::BpfInstruction>& program, char type,
            uint32_t major, uint32_t minor, uint8_t access) {
  const uint32_t context[3] = {
      static_cast<uint32_t>(access) << 16 |
          static_cast<uint32_t>(type == 'b' ? BPF_DEVCG_DEV_BLOCK
                                            : BPF_DEVCG_DEV_CHAR),
      major, minor};
  uint32_t registers[6] = {0xdead, 0xdead, 0xdead, 0xdead, 0xdead, 0xdead};
  for (size_t i = 0; i < program.size(); ++i) {
    const sys::BpfInstruction& in = program[i];
    uint32_t& to = registers[in.registers & 15];
    const auto immediate = static_cast<uint32_t>(in.immediate);
    switch (in.code) {
      case BPF_LDX | BPF_MEM | BPF_W:
        to = context[in.offset / 4];
        break;
      case BPF_ALU | BPF_MOV | BPF_X:
        to = registers[in.registers >> 4];
        break;
      case BPF_ALU | BPF_MOV | BPF_K:
        to = immediate;
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        to &= immediate;
        break;
      case BPF_ALU | BPF_RSH | BPF_K:
        to >>= immediate;
        break;
      case BPF_JMP32 | BPF_JNE | BPF_K:
        if (to != immediate) i += in.offset;
        break;
      case BPF_JMP | BPF_EXIT:
        return static_cast<int>(registers[0]);
      default:
        return -1;
    }
  }
  return -1;
}

bool Matches(const DeviceRegion& e, char type, uint32_t major, uint32_t minor) {
  return e.type == type && (!e.major.has_value() || *e.major == major) &&
         (!e.minor.has_value() || *e.minor == minor);
}

// devcgroup_legacy_check_permission() of security/device_cgroup.c.
bool AskV1(const DeviceListV1& list, char type, uint32_t major, uint32_t minor,
           uint8_t access) {
  for (const DeviceRegion& e : list.exceptions) {
    if (!Matches(e, type, major, minor)) continue;
    if (list.allow_by_default && (access & e.access) != 0) return false;
    if (!list.allow_by_default && (access & ~e.access) == 0) return true;
  }
  return list.allow_by_default;
}

TEST(DeviceRulesTest, AllFormsAnswerAlike) {
  std::mt19937 random(7);
  const auto pick = [&](int n) { return static_cast<int>(random() % n); };
  int expressible = 0;
  for (int round = 0; round < 400; ++round) {
    CgroupDeviceRules rules;
    const int count = pick(8);
    for (int i = 0; i < count; ++i) {
      CgroupDeviceRule& rule = rules.rules.emplace_back();
      rule.allow = pick(3) != 0;
      rule.type = static_cast<Type>(pick(3));
      if (pick(4) != 0) rule.major = pick(3) == 0 ? 0xffffffff : pick(3);
      if (pick(2) != 0) rule.minor = pick(3);
      rule.read = pick(2) != 0;
      rule.write = pick(2) != 0;
      rule.mknod = pick(2) != 0;
    }
    ASSERT_OK_AND_ASSIGN(const auto regions, DeviceRegions(rules));
    const auto program = DeviceProgram(regions);
    const auto list = DeviceListOf(regions);
    expressible += list.ok() ? 1 : 0;
    for (const char type : {'c', 'b'}) {
      for (const uint32_t major : {0u, 1u, 2u, 3u, 0xffffffffu}) {
        for (const uint32_t minor : {0u, 1u, 2u, 3u, 0xfffffu}) {
          for (uint8_t access = 1; access <= kAllAccess; ++access) {
            const bool want =
                rules.Allows(type == 'c' ? Type::kCharacter : Type::kBlock,
                             major, minor, AccessText(access));
            ASSERT_EQ(Execute(program, type, major, minor, access), want)
                << round << type << major << ":" << minor << " "
                << AccessText(access);
            if (list.ok()) {
              ASSERT_EQ(AskV1(*list, type, major, minor, access), want)
                  << round << type << major << ":" << minor << " "
                  << AccessText(access);
            }
          }
        }
      }
    }
  }
  // The test would prove nothing about version 1 otherwise.
  EXPECT_GT(expressible, 50);
}

TEST(DeviceRulesTest, NoRulesAllowNothing) {
  const CgroupDeviceRules none;
  EXPECT_FALSE(none.Allows(Type::kCharacter, 1, 3, "r"));
  ASSERT_OK_AND_ASSIGN(const auto regions, DeviceRegions(none));
  EXPECT_EQ(Execute(DeviceProgram(regions), 'c', 1, 3, kRead), 0);
  EXPECT_EQ(Execute(DeviceProgram({}), 'c', 1, 3, kRead), 0);
}

TEST(DeviceRulesTest, ContainerDefault) {
  const auto rules = CgroupDeviceRules::ContainerDefault();
  EXPECT_TRUE(rules.Allows(Type::kCharacter, 1, 3, "rw"));
  EXPECT_TRUE(rules.Allows(Type::kCharacter, 136, 77, "rwm"));
  EXPECT_TRUE(rules.Allows(Type::kCharacter, 10, 200, "rw"));
  EXPECT_TRUE(rules.Allows(Type::kBlock, 8, 0, "m"));
  EXPECT_FALSE(rules.Allows(Type::kBlock, 8, 0, "r"));
  EXPECT_FALSE(rules.Allows(Type::kCharacter, 1, 1, "r"));      // mem
  EXPECT_FALSE(rules.Allows(Type::kCharacter, 1, 11, "r"));     // kmsg
  EXPECT_FALSE(rules.Allows(Type::kCharacter, 10, 229, "rw"));  // fuse
  ASSERT_OK_AND_ASSIGN(const auto regions, DeviceRegions(rules));
  ASSERT_OK_AND_ASSIGN(const DeviceListV1 list, DeviceListOf(regions));
  EXPECT_FALSE(list.allow_by_default);
  EXPECT_EQ(list.exceptions.size(), rules.rules.size());
}

std::string Plan(const DeviceListV1& current, const DeviceListV1& wanted) {
  return absl::StrJoin(PlanDeviceList(current, wanted), ", ",
                       [](std::string* out, const DeviceWrite& write) {
                         absl::StrAppend(out, write.allow ? "+" : "-",
                                         write.text);
                       });
}

DeviceListV1 ListOf(const std::vector<std::string>& texts) {
  const auto regions = DeviceRegions(Rules(texts));
  EXPECT_OK(regions);
  const auto list = DeviceListOf(*regions);
  EXPECT_OK(list);
  return list.value_or(DeviceListV1());
}

TEST(DeviceListV1Test, WritesOfAChange) {
  const DeviceListV1 all = ListOf({"+a"});
  const DeviceListV1 few = ListOf({"+c 1:3 rw", "+c *:* m"});
  const DeviceListV1 other = ListOf({"+c 1:3 r", "+b 8:0 rwm", "+c *:* m"});
  EXPECT_EQ(Plan(all, few), "-a, +c 1:3 rwm, +c *:* m");
  // What both allow is never refused in between.
  EXPECT_EQ(Plan(few, other), "+c 1:3 rm, +c *:* m, +b 8:0 rwm, -c 1:3 w");
  const DeviceListV1 but = ListOf({"+a", "-c 1:3 rw", "-b 8:0 rwm"});
  EXPECT_EQ(Plan(all, but), "-c 1:3 rw, -b 8:0 rwm");
  EXPECT_EQ(Plan(but, but), "-c 1:3 rw, -b 8:0 rwm");
  EXPECT_EQ(Plan(but, ListOf({"+a", "-c 1:3 w", "-c 1:5 r"})),
            "-c 1:3 w, -c 1:5 r, +c 1:3 r, +b 8:0 rwm");
  EXPECT_EQ(Plan(but, all), "+c 1:3 rw, +b 8:0 rwm");
  EXPECT_EQ(Plan(few, all), "+a");
  EXPECT_EQ(Plan(few, ListOf({"+a", "-c 1:3 w"})), "+a, -c 1:3 w");
  EXPECT_EQ(Plan(few, ListOf({})), "-c 1:3 rwm, -c *:* m");
  EXPECT_EQ(Plan(all, ListOf({})), "-a");
}

// devcgroup_update_access() of security/device_cgroup.c.
void Write(DeviceListV1& list, const DeviceWrite& write) {
  if (write.text == "a") {
    list = {.allow_by_default = write.allow};
    return;
  }
  const auto rule = CgroupDeviceRule::Parse(write.text);
  ASSERT_OK(rule);
  const char type = rule->type == Type::kBlock ? 'b' : 'c';
  const uint8_t access = (rule->mknod ? kMknod : 0) | (rule->read ? kRead : 0) |
                         (rule->write ? kWrite : 0);
  const bool add = write.allow != list.allow_by_default;
  for (DeviceRegion& e : list.exceptions) {
    if (e.type != type || e.major != rule->major || e.minor != rule->minor) {
      continue;
    }
    e.access =
        static_cast<uint8_t>(add ? e.access | access : e.access & ~access);
    return;
  }
  if (add) list.exceptions.push_back({type, rule->major, rule->minor, access});
}

// In small numbers, so that lists have much in common.
DeviceListV1 RandomList(std::mt19937& random) {
  const auto pick = [&](int n) { return static_cast<int>(random() % n); };
  for (;;) {
    CgroupDeviceRules rules;
    if (pick(2) == 0) rules.rules.push_back({.allow = true});
    const bool allow = rules.rules.empty();
    for (int i = pick(4); i > 0; --i) {
      CgroupDeviceRule& rule = rules.rules.emplace_back();
      rule.allow = allow;
      rule.type = pick(3) == 0 ? Type::kBlock : Type::kCharacter;
      if (pick(4) != 0) rule.major = pick(2);
      if (pick(4) != 0) rule.minor = pick(2);
      rule.read = pick(2) != 0;
      rule.write = pick(2) != 0;
      rule.mknod = pick(2) != 0;
    }
    const auto regions = DeviceRegions(rules);
    EXPECT_OK(regions);
    if (auto list = DeviceListOf(*regions); list.ok()) return *list;
  }
}

// What `list` allows of every device, one kind of access at a time.
std::string Answers(const DeviceListV1& list) {
  std::string answers;
  for (const char type : {'c', 'b'}) {
    for (const uint32_t major : {0u, 1u, 2u}) {
      for (const uint32_t minor : {0u, 1u, 2u}) {
        for (const uint8_t access : {kMknod, kRead, kWrite}) {
          answers += AskV1(list, type, major, minor, access) ? '1' : '0';
        }
      }
    }
  }
  return answers;
}

TEST(DeviceListV1Test, NothingOpensBetweenTwoWrites) {
  std::mt19937 random(11);
  int changes_of_open_lists = 0, opening = 0;
  for (int round = 0; round < 2000; ++round) {
    const DeviceListV1 from = RandomList(random);
    const DeviceListV1 to = RandomList(random);
    const std::string before = Answers(from), after = Answers(to);
    const bool opens = OpensForAMoment(from, to);
    EXPECT_EQ(opens, !from.allow_by_default && to.allow_by_default &&
                         !to.exceptions.empty());
    opening += opens ? 1 : 0;
    changes_of_open_lists +=
        from.allow_by_default && to.allow_by_default && !from.exceptions.empty()
            ? 1
            : 0;
    DeviceListV1 now = from;
    for (const DeviceWrite& write : PlanDeviceList(from, to)) {
      Write(now, write);
      const std::string between = Answers(now);
      for (size_t i = 0; i < between.size() && !opens; ++i) {
        ASSERT_FALSE(between[i] == '1' && before[i] == '0' && after[i] == '0')
            << round << ": " << Plan(from, to) << " at " << write.text;
      }
    }
    ASSERT_EQ(Answers(now), after) << round << ": " << Plan(from, to);
  }
  EXPECT_GT(changes_of_open_lists, 50);
  EXPECT_GT(opening, 50);
}

TEST(DeviceListV1Test, UnknownExceptionsAreSetAnew) {
  ASSERT_OK_AND_ASSIGN(const auto unknown, ParseDeviceList("a *:* rwm\n"));
  const DeviceListV1 but = ListOf({"+a", "-c 1:3 w"});
  EXPECT_EQ(Plan(unknown, but), "+a, -c 1:3 w");
  EXPECT_TRUE(OpensForAMoment(unknown, but));
  EXPECT_FALSE(OpensForAMoment(unknown, ListOf({"+a"})));
  EXPECT_FALSE(OpensForAMoment(unknown, ListOf({"+c 1:3 r"})));
}

TEST(DeviceListV1Test, ReadsDevicesList) {
  ASSERT_OK_AND_ASSIGN(DeviceListV1 list, ParseDeviceList("a *:* rwm\n"));
  EXPECT_TRUE(list.allow_by_default);
  EXPECT_FALSE(list.complete);
  ASSERT_OK_AND_ASSIGN(list, ParseDeviceList("c *:* m\nb 8:16 rw\n"));
  EXPECT_FALSE(list.allow_by_default);
  EXPECT_TRUE(list.complete);
  ASSERT_EQ(list.exceptions.size(), 2);
  EXPECT_EQ(RegionText(list.exceptions[1]), "b 8:16 rw");
  ASSERT_OK_AND_ASSIGN(list, ParseDeviceList(""));
  EXPECT_TRUE(list.exceptions.empty());
  EXPECT_FALSE(ParseDeviceList("x").ok());
}

TEST(DeviceListV1Test, WhatItCannotExpressIsRefused) {
  const auto regions = DeviceRegions(Rules({"+c 10:* rwm", "-c 10:200 w"}));
  ASSERT_OK(regions);
  EXPECT_THAT(
      DeviceListOf(*regions),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("\"c 10:* rwm\""), HasSubstr("\"c 10:200 rm\""),
                     HasSubstr("one by one"))));
}

TEST(DeviceRulesTest, Notation) {
  for (const char* text : {"c 10:229 rwm", "b *:* m", "a *:* rw", "c 1:* r"}) {
    ASSERT_OK_AND_ASSIGN(const auto rule, CgroupDeviceRule::Parse(text));
    EXPECT_EQ(rule.ToString(), absl::StrCat("allow ", text));
  }
  ASSERT_OK_AND_ASSIGN(const auto all, CgroupDeviceRule::Parse("a", false));
  EXPECT_EQ(all.ToString(), "deny a *:* rwm");
  for (const char* bad :
       {"", "c", "c 1 r", "c 1:3", "d 1:3 r", "c 1:3 x", "c 1:3 rr", "c 1:-3 r",
        "c 1:3 r w", "c 99999999999:1 r", "c :3 r", "c 1:3:4 r"}) {
    EXPECT_THAT(
        CgroupDeviceRule::Parse(bad),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("device rule ")))
        << bad;
  }
  ASSERT_OK_AND_ASSIGN(const auto null,
                       CgroupDeviceRule::ForNode("/dev/null", "rw"));
  EXPECT_EQ(null.ToString(), "allow c 1:3 rw");
  EXPECT_FALSE(CgroupDeviceRule::ForNode("/dev").ok());
  EXPECT_FALSE(CgroupDeviceRule::ForNode("/dev/null", "x").ok());
  EXPECT_FALSE(CgroupDeviceRule::ForNode("/dev/caisson-none").ok());
}

// A few rules can tell very many sets apart.
TEST(DeviceRulesTest, TooManySetsAreRefused) {
  CgroupDeviceRules rules;
  for (uint32_t i = 0; i < 300; ++i) {
    CgroupDeviceRule& rule = rules.rules.emplace_back();
    (i % 2 == 0 ? rule.major : rule.minor) = i;
  }
  EXPECT_THAT(DeviceRegions(rules),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("300 rules tell more than 400 sets")));
}

}  // namespace
}  // namespace caisson::cgroup
