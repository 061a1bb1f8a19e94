#include "lib/rootfs/layout.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

RootFsOptions Options() {
  RootFsOptions options;
  options.layers = {BorrowedFd(0)};
  options.resolv_conf = "";
  return options;
}

std::vector<std::string> Paths(const Layout& layout) {
  std::vector<std::string> paths;
  for (const Mount& mount : layout.mounts) {
    paths.emplace_back(mount.destination.path());
  }
  return paths;
}

TEST(ParseDestinationTest, NormalForm) {
  struct Case {
    const char* path;
    const char* normal;
    Area area;
    const char* relative;
  };
  const Case kCases[] = {
      {"/etc/hosts", "etc/hosts", Area::kRoot, "etc/hosts"},
      {"//etc///hosts/", "etc/hosts", Area::kRoot, "etc/hosts"},
      {"/./etc/./hosts/.", "etc/hosts", Area::kRoot, "etc/hosts"},
      {"/proc", "proc", Area::kRoot, "proc"},
      {"/proc/kcore", "proc/kcore", Area::kProc, "kcore"},
      {"/sys//fs/cgroup", "sys/fs/cgroup", Area::kSys, "fs/cgroup"},
      {"/process/x", "process/x", Area::kRoot, "process/x"},
      {"/a\nb", "a\nb", Area::kRoot, "a\nb"},
      {"/...", "...", Area::kRoot, "..."},
  };
  for (const Case& c : kCases) {
    ASSERT_OK_AND_ASSIGN(const Destination destination,
                         ParseDestination("f", c.path));
    EXPECT_EQ(destination.path(), c.normal);
    EXPECT_EQ(destination.area(), c.area) << c.path;
    EXPECT_EQ(destination.relative(), c.relative);
    EXPECT_EQ(destination.absolute(), absl::StrCat("/", c.normal));
  }
}

TEST(ParseDestinationTest, Refuses) {
  const std::pair<std::string, const char*> kCases[] = {
      {"", "is not an absolute path"},
      {"etc", "is not an absolute path"},
      {"/", "is the root itself"},
      {"/./", "is the root itself"},
      {"/a/../b", "has a \"..\""},
      {"/..", "has a \"..\""},
      {std::string("/a\0b", 4), "has a NUL"},
      {"/" + std::string(256, 'x'), "too long"},
      {std::string(5000, '/'), "too long"},
  };
  for (const auto& [path, problem] : kCases) {
    EXPECT_THAT(ParseDestination("Options.field", path),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("Options.field"), HasSubstr(problem))))
        << path;
  }
}

TEST(LayoutTest, DefaultsInOrderOfDepth) {
  RootFsOptions options = Options();
  options.hostname = "web";
  options.binds = {{.destination = "/etc/a/b", .source = "/x"},
                   {.destination = "/etc", .source = "/x"}};
  options.tmpfs = {{.destination = "/etc/a"}};
  ASSERT_OK_AND_ASSIGN(const auto layout, MakeLayout(options));
  EXPECT_THAT(Paths(*layout),
              ElementsAre("etc", "dev/shm", "etc/a", "etc/hostname",
                          "etc/hosts", "etc/resolv.conf", "etc/a/b"));
  EXPECT_TRUE(layout->devpts && layout->mqueue && layout->cgroup);
}

TEST(LayoutTest, MountsTakeThePlaceOfDefaults) {
  RootFsOptions options = Options();
  options.binds = {{.destination = "/dev/shm", .source = "/x"},
                   {.destination = "/dev/pts", .source = "/x"},
                   {.destination = "/dev/mqueue", .source = "/x"},
                   {.destination = "/sys/fs/cgroup", .source = "/x"},
                   {.destination = "/etc/hosts", .source = "/x"}};
  ASSERT_OK_AND_ASSIGN(const auto layout, MakeLayout(options));
  EXPECT_THAT(Paths(*layout),
              ElementsAre("dev/mqueue", "dev/pts", "dev/shm", "etc/hosts",
                          "etc/resolv.conf", "sys/fs/cgroup"));
  EXPECT_EQ(layout->mounts[2].kind, Mount::Kind::kBind);
  EXPECT_EQ(layout->mounts[3].kind, Mount::Kind::kBind);
  EXPECT_FALSE(layout->devpts || layout->mqueue || layout->cgroup);
}

TEST(LayoutTest, WithoutEtcFiles) {
  RootFsOptions options = Options();
  options.hostname = "web";
  options.etc_files = false;
  ASSERT_OK_AND_ASSIGN(const auto layout, MakeLayout(options));
  EXPECT_THAT(Paths(*layout), ElementsAre("dev/shm"));
}

TEST(LayoutTest, MasksKnowWhatTheyCover) {
  RootFsOptions options = Options();
  options.masked_paths = {"/proc/fs", "/proc/uptime", "/proc/nothing", "/etc"};
  ASSERT_OK_AND_ASSIGN(const auto layout, MakeLayout(options));
  ASSERT_EQ(layout->masked.size(), 4 + DefaultMaskedPaths().size());
  EXPECT_EQ(layout->masked[0].kind, MaskKind::kDirectory);
  EXPECT_EQ(layout->masked[1].kind, MaskKind::kFile);
  EXPECT_EQ(layout->masked[2].kind, MaskKind::kFile);
  EXPECT_EQ(layout->masked[3].kind, MaskKind::kUnknown);
  // What is sure to exist comes last, so that no clone is left over.
  EXPECT_EQ(layout->masked.back().absolute, "/sys/firmware");
  EXPECT_EQ(layout->read_only.size(), 5u);
}

TEST(LayoutTest, UnsafeListsReplace) {
  RootFsOptions options = Options();
  options.unsafe_replace_masked_paths = {{"/proc/kcore"}};
  options.unsafe_replace_read_only_paths = std::vector<std::string>{};
  options.masked_paths = {"/proc/keys"};
  ASSERT_OK_AND_ASSIGN(const auto layout, MakeLayout(options));
  EXPECT_EQ(layout->masked.size(), 2u);
  EXPECT_EQ(layout->read_only.size(), 0u);
}

TEST(LayoutTest, RefusesMountDestinations) {
  for (const char* path :
       {"/", "/proc", "/sys/", "//dev", "/proc/self/ns", "/proc/1",
        "/proc/thread-self/fd", "/dev/fd/3", "/dev/ptmx", "/dev/stdin/x",
        "/dev/pts/0", "/dev/mqueue/a/b", "relative", "/a/../b"}) {
    RootFsOptions options = Options();
    options.tmpfs = {{.destination = path}};
    EXPECT_THAT(MakeLayout(options),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("RootFsOptions.tmpfs[0].destination")))
        << path;
  }
}

TEST(LayoutTest, RefusesTwoMountsAtOnePlace) {
  RootFsOptions options = Options();
  options.binds = {{.destination = "/a/b", .source = "/x"}};
  options.tmpfs = {{.destination = "/a//b/"}};
  EXPECT_THAT(MakeLayout(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "RootFsOptions.tmpfs[0].destination \"/a/b\" is that of "
                       "RootFsOptions.binds[0], too"));
}

TEST(LayoutTest, RefusesOptionsThatContradict) {
  const auto problem = [](auto change) {
    RootFsOptions options = Options();
    change(options);
    return std::string(MakeLayout(options).status().message());
  };
  using O = RootFsOptions&;
  EXPECT_THAT(problem([](O o) { o.layers.clear(); }),
              HasSubstr("RootFsOptions.layers is empty"));
  EXPECT_THAT(problem([](O o) { o.layers.assign(501, BorrowedFd(0)); }),
              HasSubstr("501 entries"));
  EXPECT_THAT(problem([](O o) { o.layers.push_back(BorrowedFd()); }),
              HasSubstr("RootFsOptions.layers[1] is no descriptor"));
  EXPECT_THAT(problem([](O o) { o.writes = RootWrites::kDirectories; }),
              HasSubstr("upper_directory or work_directory is not given"));
  EXPECT_THAT(problem([](O o) { o.upper_directory = BorrowedFd(0); }),
              HasSubstr("are for kDirectories only"));
  EXPECT_THAT(problem([](O o) { o.volatile_upper = true; }),
              HasSubstr("volatile_upper is for kDirectories only"));
  EXPECT_THAT(problem([](O o) { o.tmpfs_size_bytes = 1; }),
              HasSubstr("tmpfs_size_bytes is for kTmpfs only"));
  EXPECT_THAT(problem([](O o) {
                o.writes = RootWrites::kInPlace;
                o.layers.push_back(BorrowedFd(0));
              }),
              HasSubstr("needs one layer, not 2"));
  EXPECT_THAT(problem([](O o) { o.shm_size_bytes = 0; }),
              HasSubstr("RootFsOptions.shm_size_bytes is 0"));
  EXPECT_THAT(problem([](O o) { o.hostname = "a b"; }),
              HasSubstr("RootFsOptions.hostname \"a b\""));
  EXPECT_THAT(problem([](O o) { o.binds = {{.destination = "/a"}}; }),
              HasSubstr("binds[0] needs one of source, source_fd"));
  EXPECT_THAT(
      problem([](O o) {
        o.binds = {
            {.destination = "/a", .source = "/x", .source_fd = BorrowedFd(0)}};
      }),
      HasSubstr("binds[0] needs one of source, source_fd"));
  EXPECT_THAT(
      problem([](O o) { o.binds = {{.destination = "/a", .source = "x"}}; }),
      HasSubstr("binds[0].source \"x\" is not an absolute path"));
  EXPECT_THAT(
      problem([](O o) { o.tmpfs = {{.destination = "/a", .mode = 010000}}; }),
      HasSubstr("tmpfs[0].mode"));
  EXPECT_THAT(problem([](O o) { o.masked_paths = {"/proc"}; }),
              HasSubstr("RootFsOptions.masked_paths[0] \"/proc\" as a whole"));
  EXPECT_THAT(problem([](O o) {
                o.read_only_paths = {"/a", "../x"};
              }),
              HasSubstr("RootFsOptions.read_only_paths[1]"));
}

}  // namespace
}  // namespace caisson::rootfs
