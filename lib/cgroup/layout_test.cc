#include "lib/cgroup/layout.h"

#include <fcntl.h>

#include <map>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "caisson/cgroup_layout.h"
#include "lib/base/status_matchers.h"

namespace caisson::cgroup {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kHybridMountinfo[] =
    "23 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
    "31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 master:3 - cgroup "
    "cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "36 31 0:36 / /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
    "38 31 0:35 / /sys/fs/cgroup/blk\\040io rw - cgroup cgroup rw,blkio\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup "
    "rw,xattr,name=systemd\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
constexpr char kHybridCgroup[] =
    "9:name=systemd:/user.slice\n4:memory:/a:b/c\n2:cpu,cpuacct:/x\n"
    "3:blkio:/\n8:pids:/\n0::/user.slice/me\n";
constexpr char kHybridControllers[] =
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
    "cpu\t2\t1\t1\ncpuacct\t2\t1\t1\nmemory\t4\t13\t1\nblkio\t3\t1\t1\n"
    "pids\t8\t1\t1\nhugetlb\t0\t1\t1\ndevices\t5\t1\t1\nnet_cls\t0\t1\t1\n"
    "rdma\t0\t1\t0\n";

// Files of /proc from strings; every mount has the same cgroup.controllers.
class TextFilesystem final : public Filesystem {
 public:
  std::map<std::string, std::string> proc;
  std::string controllers;
  std::string hidden_mount;

  absl::StatusOr<std::string> ReadProc(const std::string& name) const override {
    const auto it = proc.find(name);
    if (it == proc.end()) return absl::NotFoundError(name);
    return it->second;
  }
  absl::StatusOr<UniqueFd> OpenMount(const Mount& mount) const override {
    if (mount.mount_point == hidden_mount) return absl::NotFoundError("hidden");
    return UniqueFd(::open("/", O_PATH | O_CLOEXEC));
  }
  absl::StatusOr<std::string> Read(const Dir&,
                                   absl::string_view) const override {
    return controllers;
  }
};

TextFilesystem Hybrid() {
  TextFilesystem filesystem;
  filesystem.proc = {{"self/mountinfo", kHybridMountinfo},
                     {"self/cgroup", kHybridCgroup},
                     {"cgroups", kHybridControllers}};
  filesystem.controllers = "hugetlb\n";
  return filesystem;
}

TEST(ParseMountinfoTest, ReadsCgroupMountsOnly) {
  const std::vector<MountLine> lines = ParseMountinfo(kHybridMountinfo);
  ASSERT_EQ(lines.size(), 6);
  EXPECT_EQ(lines[0].mount.id, 32);
  EXPECT_EQ(lines[0].mount.version, CgroupVersion::kV1);
  EXPECT_THAT(lines[0].super_options, ElementsAre("rw", "cpu", "cpuacct"));
  EXPECT_FALSE(lines[2].writable);
  EXPECT_EQ(lines[3].mount.mount_point, "/sys/fs/cgroup/blk io");
  EXPECT_EQ(lines[5].mount.version, CgroupVersion::kV2);
}

TEST(ParseMountinfoTest, SkipsMalformedLines) {
  EXPECT_THAT(ParseMountinfo(""), IsEmpty());
  EXPECT_THAT(ParseMountinfo("garbage\n-\n- cgroup2\n"), IsEmpty());
  EXPECT_THAT(ParseMountinfo("x 31 0:38 / /m rw - cgroup2 cgroup2 rw\n"),
              IsEmpty());
  EXPECT_THAT(ParseMountinfo("41 31 0:38 / /m rw - cgroup2\n"), IsEmpty());
}

TEST(DetectLayoutTest, Hybrid) {
  ASSERT_OK_AND_ASSIGN(const DetectedLayout detected, DetectLayout(Hybrid()));
  const CgroupLayout& layout = detected.layout;
  EXPECT_EQ(layout.mode, CgroupLayout::Mode::kHybrid);
  ASSERT_EQ(layout.hierarchies.size(), 6);
  ASSERT_EQ(detected.mounts.size(), 6);
  EXPECT_EQ(layout.hierarchies[0].version, CgroupVersion::kV2);
  EXPECT_EQ(layout.hierarchies[0].own_path, "/user.slice/me");
  EXPECT_EQ(layout.hierarchies[1].own_path, "/x");
  EXPECT_EQ(layout.hierarchies[2].own_path, "/a:b/c");
  EXPECT_EQ(layout.hierarchies[5].name, "systemd");
  EXPECT_EQ(layout.hierarchies[5].own_path, "/user.slice");
  EXPECT_EQ(detected.mounts[0].mount_point, "/sys/fs/cgroup/unified");

  EXPECT_TRUE(layout.Find(CgroupController::kCpu).usable);
  EXPECT_EQ(layout.Find(CgroupController::kCpu).hierarchy,
            layout.Find(CgroupController::kCpuacct).hierarchy);
  EXPECT_TRUE(layout.Find(CgroupController::kIo).usable);
  EXPECT_TRUE(layout.Find(CgroupController::kHugetlb).usable);
  EXPECT_EQ(layout.Find(CgroupController::kHugetlb).hierarchy, 0);
  EXPECT_EQ(layout.Summary(),
            "hybrid: cpu v1, cpuacct v1, memory v1, blkio v1, pids v1 "
            "(read-only), hugetlb v2");
}

TEST(DetectLayoutTest, SaysWhyAControllerIsMissing) {
  ASSERT_OK_AND_ASSIGN(const DetectedLayout detected, DetectLayout(Hybrid()));
  const auto reason = [&](CgroupController controller) {
    const CgroupControllerInfo& info = detected.layout.Find(controller);
    EXPECT_FALSE(info.usable);
    EXPECT_EQ(info.controller, controller);
    return info.reason;
  };
  EXPECT_EQ(reason(CgroupController::kPids),
            "mounted read-only at /sys/fs/cgroup/pids");
  EXPECT_EQ(reason(CgroupController::kDevices),
            "attached to cgroup v1 hierarchy 5, which is not mounted in this "
            "mount namespace");
  EXPECT_EQ(reason(CgroupController::kRdma),
            "switched off by the boot parameter cgroup_disable=rdma");
  EXPECT_THAT(reason(CgroupController::kNetCls),
              HasSubstr("not a controller of cgroup v2"));
  EXPECT_THAT(reason(CgroupController::kMisc),
              HasSubstr("cgroup.subtree_control of the group above"));
}

TEST(DetectLayoutTest, PureV2WithAllControllers) {
  TextFilesystem filesystem;
  filesystem.proc = {{"self/mountinfo",
                      "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"},
                     {"self/cgroup", "0::/init.scope\n"}};
  filesystem.controllers = "cpuset cpu io memory hugetlb pids rdma misc dmem\n";
  ASSERT_OK_AND_ASSIGN(const DetectedLayout detected, DetectLayout(filesystem));
  EXPECT_EQ(detected.layout.mode, CgroupLayout::Mode::kV2);
  EXPECT_EQ(detected.layout.Summary(),
            "v2: cpu v2, cpuset v2, memory v2, io v2, pids v2, hugetlb v2, "
            "rdma v2, misc v2, dmem v2");
  EXPECT_THAT(detected.layout.Find(CgroupController::kFreezer).reason,
              HasSubstr("cgroup.freeze is in every group"));
}

TEST(DetectLayoutTest, NamedV1HierarchyAloneIsNotHybrid) {
  TextFilesystem filesystem;
  filesystem.proc = {{"self/mountinfo",
                      "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup "
                      "rw,name=systemd\n"
                      "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"},
                     {"self/cgroup", "0::/\n1:name=systemd:/\n"}};
  ASSERT_OK_AND_ASSIGN(const DetectedLayout detected, DetectLayout(filesystem));
  EXPECT_EQ(detected.layout.mode, CgroupLayout::Mode::kV2);
}

TEST(DetectLayoutTest, NothingMounted) {
  TextFilesystem filesystem;
  filesystem.proc = {{"self/mountinfo", "23 1 254:0 / / rw - ext4 /dev/r rw\n"},
                     {"self/cgroup", "0::/\n"}};
  ASSERT_OK_AND_ASSIGN(const DetectedLayout detected, DetectLayout(filesystem));
  EXPECT_EQ(detected.layout.mode, CgroupLayout::Mode::kNone);
  EXPECT_EQ(detected.layout.Summary(), "no cgroups: no controllers");
  EXPECT_THAT(detected.layout.Find(CgroupController::kMemory).reason,
              HasSubstr("mount -t cgroup2"));
}

TEST(DetectLayoutTest, PrefersTheMountThatIsWritableAndShowsMore) {
  TextFilesystem filesystem;
  filesystem.proc = {{"self/mountinfo",
                      "1 0 0:38 /../.. /outside rw - cgroup2 cgroup2 rw\n"
                      "2 0 0:38 / /read-only ro - cgroup2 cgroup2 rw\n"
                      "3 0 0:38 /docker/1234 /part rw - cgroup2 cgroup2 rw\n"
                      "4 0 0:38 / /whole rw - cgroup2 cgroup2 rw\n"
                      "5 0 0:38 / /hidden rw - cgroup2 cgroup2 rw\n"},
                     {"self/cgroup", "0::/\n"}};
  filesystem.hidden_mount = "/hidden";
  ASSERT_OK_AND_ASSIGN(DetectedLayout detected, DetectLayout(filesystem));
  ASSERT_EQ(detected.layout.hierarchies.size(), 1);
  EXPECT_EQ(detected.layout.hierarchies[0].mount_point, "/whole");
  EXPECT_EQ(detected.mounts[0].id, 4);
}

TEST(PathBelowMountTest, FollowsTheRootOfTheMount) {
  CgroupHierarchy hierarchy;
  hierarchy.mount_point = "/sys/fs/cgroup";
  hierarchy.mount_root = "/";
  ASSERT_OK_AND_ASSIGN(std::string below, PathBelowMount(hierarchy, "/a/b"));
  EXPECT_EQ(below, "a/b");
  ASSERT_OK_AND_ASSIGN(below, PathBelowMount(hierarchy, "/"));
  EXPECT_EQ(below, "");
  hierarchy.mount_root = "/docker/1234";
  ASSERT_OK_AND_ASSIGN(below, PathBelowMount(hierarchy, "/docker/1234/job"));
  EXPECT_EQ(below, "job");
  ASSERT_OK_AND_ASSIGN(below, PathBelowMount(hierarchy, "/docker/1234"));
  EXPECT_EQ(below, "");
  for (const char* path : {"/", "/docker", "/docker/12345", "/job"}) {
    EXPECT_THAT(PathBelowMount(hierarchy, path),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("shows only what is below")))
        << path;
  }
  hierarchy.mount_root = "/..";
  EXPECT_THAT(PathBelowMount(hierarchy, "/../a"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("outside this cgroup namespace")));
}

TEST(CgroupControllerNameTest, DiffersBetweenVersions) {
  EXPECT_EQ(CgroupControllerName(CgroupController::kIo), "io");
  EXPECT_EQ(CgroupControllerName(CgroupController::kIo, CgroupVersion::kV1),
            "blkio");
  for (int i = 0; i < kCgroupControllerCount; ++i) {
    const auto controller = static_cast<CgroupController>(i);
    EXPECT_EQ(ControllerByName(CgroupControllerName(controller)), controller);
    EXPECT_EQ(
        ControllerByName(CgroupControllerName(controller, CgroupVersion::kV1)),
        controller);
  }
}

}  // namespace
}  // namespace caisson::cgroup
