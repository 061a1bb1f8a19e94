// Roots that an attacker made, in whole starts. What RootFs alone does with
// them: lib/rootfs/hostile_root_test.cc.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "tests/hostile/hostile_test.h"

namespace caisson {
namespace {

using ::caisson::testing::Plant;
using ::caisson::testing::ScratchDir;
using ::caisson::testing::StatusIs;
using ::caisson::testing::TestRoot;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using HostileRootsTest = ::caisson::testing::HostileTest;

// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642 (/proc),
// CVE-2026-41579, CVE-2026-47766 (/dev): what would be mounted or made there
// would be the host's.
TEST_F(HostileRootsTest, LinksAtMountPointsOfTheKernel) {
  for (const char* name : {"proc", "sys", "dev"}) {
    for (const std::string& target :
         {absl::StrCat(outside(), "/", name),
          absl::StrCat("../../../../../../../../..", outside(), "/", name)}) {
      const TestRoot image;
      Plant(image.path(), {absl::StrCat(name, " -> ", target)});
      const auto refused =
          StatusIs(absl::StatusCode::kFailedPrecondition,
                   AllOf(HasSubstr(absl::StrCat("\"/", name, "\"")),
                         HasSubstr("symbolic link")));
      EXPECT_THAT(RunIn(image, Shell("true")).status(), refused);
      EXPECT_THAT(Run(Shell("true"), image.Options()).status(), refused);
    }
  }
}

// The same where the file system of the image is below that of the host's
// writable layer: both directories of an overlay count.
TEST_F(HostileRootsTest, LinksInTheWritableLayer) {
  const ScratchDir layer("writable");
  Plant(layer.path(),
        {"upper/dev -> " + outside() + "/dev", "upper/bin/", "work/"});
  UniqueFd upper(::open((layer.path() + "/upper").c_str(),
                        O_PATH | O_DIRECTORY | O_CLOEXEC));
  UniqueFd work(::open((layer.path() + "/work").c_str(),
                       O_PATH | O_DIRECTORY | O_CLOEXEC));
  RootFsOptions options = root_->ReadOnlyOptions();
  options.writes = RootWrites::kDirectories;
  options.upper_directory = upper.borrow();
  options.work_directory = work.borrow();
  EXPECT_THAT(Run(Shell("true"), options).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("\"/dev\""), HasSubstr("link"))));
}

// CVE-2025-31133 (/dev/null), CVE-2025-52565 (/dev/pts, /dev/console) and
// CVE-2026-41579: what the image has in /dev plays no part.
TEST_F(HostileRootsTest, LinksBelowDev) {
  const TestRoot image;
  std::vector<std::string> links;
  for (const char* name : {"null", "zero", "full", "tty", "console", "ptmx",
                           "pts", "shm", "mqueue", "fd", "stdin", "core"}) {
    links.push_back(absl::StrCat("dev/", name, " -> ", outside(), "/file"));
  }
  Plant(image.path(), links);
  ProcessSpec spec = Shell(
      "stat -c '%n %t:%T' /dev/null /dev/zero /dev/full /dev/tty; tty; "
      "stat -c '%n %F' /dev/pts /dev/shm /dev/mqueue; head -c 1 /proc/kcore | "
      "wc -c; echo x > /dev/null; echo seen > /dev/console");
  spec.terminal = TerminalSize{};
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(InPlace(image)));
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  std::string seen;
  char buffer[4096];
  ssize_t n;
  while ((n = ::read(process.terminal().get(), buffer, sizeof(buffer))) > 0) {
    seen.append(buffer, static_cast<size_t>(n));
  }
  EXPECT_OK(process.Wait());
  EXPECT_THAT(seen, AllOf(HasSubstr("/dev/null 1:3\r\n/dev/zero 1:5\r\n"
                                    "/dev/full 1:7\r\n/dev/tty 5:0\r\n"
                                    "/dev/pts/0\r\n"),
                          HasSubstr("/dev/pts directory\r\n"),
                          HasSubstr("\n0\r\n"), HasSubstr("seen\r\n")));
}

// A user that only a file outside of the root knows must not exist.
TEST_F(HostileRootsTest, EtcThatLeadsOutside) {
  for (const std::vector<std::string>& entries :
       {std::vector<std::string>{"etc -> " + outside() + "/etc"},
        {"etc/passwd -> " + outside() + "/etc/passwd"},
        {"etc/passwd -> ../../../../../../../../.." + outside() +
         "/etc/passwd"},
        {"etc/passwd -> /proc/self/root" + outside() + "/etc/passwd"}}) {
    const TestRoot image;
    Plant(image.path(), entries);
    RootFsOptions options = InPlace(image);
    options.hostname = "hostile";
    options.resolv_conf = "nameserver 192.0.2.1\n";
    ProcessSpec spec = Shell("id -u");
    spec.user = "evil";
    EXPECT_THAT(Run(spec, options).status(),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("evil")))
        << entries[0];
    spec.user = "";
    ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec, options));
    EXPECT_EQ(outcome.output, "0\n") << entries[0];
  }
}

// CVE-2019-16884, CVE-2025-52881: labels and kernel parameters are written to
// the kernel's procfs, whatever the image has at the same names.
TEST_F(HostileRootsTest, ProcOfTheImageTakesNoWrites) {
  const TestRoot image;
  const std::string file = outside() + "/file";
  Plant(image.path(),
        {"proc/sys/net/ipv4/ip_forward -> " + file,
         "proc/sys/kernel/domainname -> " + file,
         "proc/self/attr/exec -> " + file, "proc/1/attr/exec -> " + file,
         "proc/self/oom_score_adj -> " + file, "proc/self/setgroups=decoy",
         "proc/self/fd/0=decoy"});
  NamespaceOptions options;
  options.domainname = "inside";
  options.sysctls = {{"net.ipv4.ip_forward", "1"}};
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell(
      "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname "
      "/proc/self/oom_score_adj; stat -f -c %T /proc");
  spec.namespaces = &ns;
  spec.oom_score_adj = 321;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, RunIn(image, spec));
  EXPECT_EQ(outcome.output, "1\ninside\n321\nproc\n");
  struct stat stat;
  ASSERT_EQ(::stat((image.path() + "/proc/self/setgroups").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_size, 5);
}

// CVE-2025-31133, CVE-2025-52881: what shall be hidden or read-only is found
// inside, and what covers it is nothing of the image's.
TEST_F(HostileRootsTest, MasksThroughLinks) {
  const TestRoot image;
  Plant(image.path(), {"link -> " + outside(), "magic -> /proc/self/root",
                       "secret=inside", "here -> /secret"});
  RootFsOptions options = InPlace(image);
  options.masked_paths = {"/link/file", "/link/dir", "/magic/etc/passwd",
                          "/here"};
  options.read_only_paths = {"/link", "/link/etc", "/magic/tmp"};
  ASSERT_OK_AND_ASSIGN(
      Outcome outcome,
      Run(Shell("cat /secret; cat /proc/kcore /proc/keys; ls /link/"),
          options));
  EXPECT_THAT(outcome.output, Not(HasSubstr("inside")));
  EXPECT_THAT(outcome.output, HasSubstr("/link/: No such file"));
}

// CVE-2024-45310 (directories that are made), CVE-2021-30465 and crun's
// CVE-2025-24965 (files that are made).
TEST_F(HostileRootsTest, DestinationsThroughLinks) {
  const TestRoot image;
  const ScratchDir source("source");
  Plant(source.path(), {"file=bound"});
  const std::string up = "../../../../../../../../..";
  Plant(image.path(),
        {"a -> " + outside(), "b -> " + up + outside() + "/dir",
         "c/d -> /../.." + outside(), "srv/e -> " + outside() + "/file"});
  RootFsOptions options = InPlace(image);
  std::string script;
  for (const char* destination :
       {"/a/made/deep", "/b/made", "/c/d/x", "/srv/e"}) {
    options.binds.push_back(
        {.destination = destination, .source = source.path() + "/file"});
    absl::StrAppend(&script, "cat ", destination, "; echo;");
  }
  options.tmpfs.push_back({.destination = "/a/memory"});
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(options));
  ASSERT_OK(root.MakeDirectory("/b/of/the/host", 0755));
  EXPECT_NE(::access((outside() + "/dir/of").c_str(), F_OK), 0);
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(Shell(script), options));
  EXPECT_EQ(outcome.output, "bound\nbound\nbound\nbound\n");
}

}  // namespace
}  // namespace caisson
