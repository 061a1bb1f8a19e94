// Bind and tmpfs mounts that the options ask for.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/rootfs/test_container.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class MountsTest : public RootFsTestBase,
                   public ::testing::WithParamInterface<KernelLimits> {
 protected:
  KernelLimits limits() const override { return GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Kernels, MountsTest, ::testing::ValuesIn(AllKernels()),
                         KernelName);

TEST_P(MountsTest, BindsOfDirectoriesAndFiles) {
  const std::string source =
      MakeLayer("source", {"file=content", "sub/other=x"});
  RootFsOptions options = BaseOptions();
  options.binds = {
      {.destination = "/srv/www", .source = source},
      {.destination = "/etc/passwd", .source = source + "/file"},
      {.destination = "/opt/deep/er/file", .source = source + "/file"},
      {.destination = "//data/./fd/", .source_fd = Hold(source)}};
  const ScriptResult result =
      RunWith(options,
              "cat /srv/www/file /etc/passwd /opt/deep/er/file /data/fd/file; "
              "echo; echo new > /srv/www/new; stat -c mode=%a /opt/deep/er; "
              "touch /srv/www/sub/y; cat /data/lower");
  EXPECT_THAT(result.output, HasSubstr("contentcontentcontentcontent\n"));
  EXPECT_EQ(result.Value("mode"), "755");
  EXPECT_THAT(result.output, HasSubstr("lower"));
  EXPECT_EQ(ReadHostFile(source + "/new"), "new\n");
}

// So that a program in a bind mount that could not be executed can be told from
// one that does not exist.
TEST_P(MountsTest, BindsCanBeLookedIntoAfterwards) {
  const std::string outer = MakeLayer("outer", {"file=outer", "in/"});
  const std::string inner = MakeLayer("inner", {"file=inner"});
  RootFsOptions options = BaseOptions({MakeLayer("top", {"l -> srv/in"})});
  options.binds = {{.destination = "/srv", .source = outer},
                   {.destination = "/srv/in", .source = inner}};
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  const auto read = [&](const char* path) -> std::string {
    auto file = root->Open(path, O_RDONLY);
    if (!file.ok()) return file.status().ToString();
    auto text = sys::ReadAll(file->borrow(), 100, path);
    return text.ok() ? *text : text.status().ToString();
  };
  for (int when = 0; when < 2; ++when) {
    EXPECT_EQ(read("/srv/file"), "outer");
    EXPECT_EQ(read("/srv/in/file"), "inner");
    EXPECT_EQ(read("/l/file"), "inner");
    EXPECT_EQ(read("/srv/in/../file"), "outer");
    EXPECT_EQ(read("/srv/../data/lower"), "lower");
    if (when == 0) {
      ASSERT_OK(Run(*root, "true"));
    }
  }
}

TEST_P(MountsTest, ReadOnlyBindsCoverWhatIsMountedBelow) {
  const std::string tree = MakeLayer("tree", {});
  const std::string inner = tree + "/inner";
  ASSERT_EQ(::mount("none", tree.c_str(), "tmpfs", 0, nullptr), 0);
  const absl::Cleanup unmount = [&] {
    EXPECT_EQ(::umount2(tree.c_str(), MNT_DETACH), 0);
    RememberMounts();
  };
  ASSERT_EQ(::mkdir(inner.c_str(), 0755), 0);
  ASSERT_EQ(::mount("none", inner.c_str(), "tmpfs", 0, nullptr), 0);
  RememberMounts();
  RootFsOptions options = BaseOptions();
  options.binds = {
      {.destination = "/ro", .source = tree, .read_only = true},
      {.destination = "/rw", .source = tree},
      {.destination = "/flat", .source = tree, .recursive = false}};
  const ScriptResult result = RunWith(
      options,
      "touch /rw/a; echo rw=$?; touch /rw/inner/b; echo rwinner=$?; "
      "touch /ro/c 2>/dev/null; echo ro=$?; touch /ro/inner/c 2>/dev/null; "
      "echo roinner=$?; ls /ro/inner; echo flat=$(ls /flat/inner)");
  EXPECT_EQ(result.Value("rw"), "0");
  EXPECT_EQ(result.Value("rwinner"), "0");
  EXPECT_EQ(result.Value("ro"), "1");
  EXPECT_EQ(result.Value("roinner"), "1");
  EXPECT_THAT(result.output, HasSubstr("b\n"));
  EXPECT_EQ(result.Value("flat"), "");
}

TEST_P(MountsTest, FlagsOfBinds) {
  const std::string source = MakeLayer("source", {"x="});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv",
                    .source = source,
                    .nosuid = true,
                    .noexec = true}};
  const ScriptResult result =
      RunWith(options,
              "while read -r l; do case $l in *' /srv '*) echo $l;; "
              "esac; done < /proc/self/mountinfo");
  EXPECT_THAT(result.output, HasSubstr(" /srv rw,nosuid,nodev,noexec"));
  EXPECT_THAT(result.output, Not(HasSubstr("shared:")));
}

TEST_P(MountsTest, NothingPropagatesToTheHost) {
  const std::string source = MakeLayer("source", {"sub/"});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv", .source = source}};
  // RunWith compares the host's mounts before and after.
  const ScriptResult result =
      RunWith(options, "mount -t tmpfs none /srv/sub && touch /srv/sub/x");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_NE(::access((source + "/sub/x").c_str(), F_OK), 0);
}

TEST_P(MountsTest, MountsBelowMountsWhateverTheirOrder) {
  const std::string a = MakeLayer("a", {"in/", "file=a"});
  const std::string b = MakeLayer("b", {"file=b"});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/m/in/deeper/b", .source = b},
                   {.destination = "/m", .source = a},
                   {.destination = "/m/in/t/b", .source = b}};
  options.tmpfs = {{.destination = "/m/in/t"}};
  const ScriptResult result =
      RunWith(options,
              "cat /m/file /m/in/deeper/b/file /m/in/t/b/file; echo; "
              "stat -f -c fs=%T /m/in/t");
  EXPECT_THAT(result.output, HasSubstr("abb\n"));
  EXPECT_EQ(result.Value("fs"), "tmpfs");
  // As with docker run -v: the mount point was created in the source.
  struct stat status;
  EXPECT_EQ(::stat((a + "/in/deeper/b").c_str(), &status), 0);
  EXPECT_EQ(::stat((a + "/in/t").c_str(), &status), 0);
  EXPECT_NE(::stat((a + "/in/t/b").c_str(), &status), 0);
}

TEST_P(MountsTest, TmpfsSizesAndModes) {
  RootFsOptions options = BaseOptions();
  options.shm_size_bytes = 1 << 20;
  options.tmpfs = {
      {.destination = "/a", .size_bytes = 65536, .mode = 0710},
      {.destination = "/b", .max_inodes = 2},
      {.destination = "/c", .read_only = true},
      {.destination = "/d", .executable = true},
  };
  const ScriptResult result = RunWith(
      options,
      "stat -c a=%a:%u /a; stat -c b=%a /b; dd if=/dev/zero of=/a/x bs=64k "
      "count=1 2>/dev/null; echo fits=$?; dd if=/dev/zero of=/a/y bs=4k "
      "count=1 2>/dev/null; echo full=$?; touch /b/1; echo one=$?; touch /b/2 "
      "2>/dev/null; echo two=$?; touch /c/x 2>/dev/null; echo c=$?; cat "
      "/bin/busybox > /d/busybox; chmod 755 /d/busybox; cp /bin/busybox /b/; "
      "/bin/busybox chmod 755 /d/busybox; /d/busybox true; echo exec=$?; "
      "dd if=/dev/zero of=/dev/shm/x bs=1M count=1 2>/dev/null; echo shm=$?; "
      "dd if=/dev/zero of=/dev/shm/y bs=4k count=1 2>/dev/null; echo more=$?; "
      "df -k /dev/shm | while read a b c; do echo df_$a=$b; done");
  EXPECT_EQ(result.Value("a"), "710:0");
  EXPECT_EQ(result.Value("b"), "1777");
  EXPECT_EQ(result.Value("fits"), "0");
  EXPECT_EQ(result.Value("full"), "1");
  EXPECT_EQ(result.Value("one"), "0");
  EXPECT_EQ(result.Value("two"), "1");
  EXPECT_EQ(result.Value("c"), "1");
  EXPECT_EQ(result.Value("exec"), "0");
  EXPECT_EQ(result.Value("df_shm"), "1024") << result.output;
  EXPECT_EQ(result.Value("more"), "1");
}

TEST_P(MountsTest, TmpfsWithTheImagesContent) {
  const std::string top = MakeLayer(
      "top", {"var/run/a=text", "var/run/l -> /etc/passwd", "run -> var/run",
              "full/big=" + std::string(9999, 'x')});
  ASSERT_EQ(::chmod((top + "/var/run").c_str(), 0751), 0);
  ASSERT_EQ(::chown((top + "/var/run").c_str(), 5, 6), 0);
  RootFsOptions options = BaseOptions({top});
  options.tmpfs = {{.destination = "/run", .copy_up = true},
                   {.destination = "/data", .read_only = true, .copy_up = true},
                   {.destination = "/missing", .mode = 0700, .copy_up = true}};
  const ScriptResult result = RunWith(
      options,
      "cat /var/run/a; echo; stat -c run=%a:%u:%g /run/; readlink /run/l; "
      "stat -f -c fs=%T /var/run; echo x > /run/b; cat /data/lower; echo; "
      "touch /data/x 2>/dev/null; echo ro=$?; stat -c missing=%a /missing");
  EXPECT_EQ(result.output,
            "text\nrun=751:5:6\n/etc/passwd\nfs=tmpfs\nlower\nro=1\n"
            "missing=700\n");
  EXPECT_NE(::access((top + "/var/run/b").c_str(), F_OK), 0);
  options.tmpfs = {
      {.destination = "/full", .size_bytes = 4096, .copy_up = true}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("RootFsOptions.tmpfs[0]"),
                             HasSubstr("the copy goes to is full"))));
}

TEST_P(MountsTest, MountsInDevAndInsteadOfDefaults) {
  const std::string source = MakeLayer("source", {"file=mine"});
  RootFsOptions options = BaseOptions();
  options.hostname = "web";
  options.binds = {
      {.destination = "/dev/shm", .source = source},
      {.destination = "/dev/mqueue", .source = source},
      {.destination = "/dev/net/tun", .source = source + "/file"},
      {.destination = "/dev/null", .source = source + "/file"},
      {.destination = "/etc/hosts", .source = source + "/file"},
  };
  const ScriptResult result =
      RunWith(options,
              "cat /dev/shm/file /dev/mqueue/file /dev/net/tun /dev/null "
              "/etc/hosts; echo; cat /etc/hostname; cat /proc/interrupts | "
              "(read x; echo masked=$x); echo pts=$(ls /dev/pts)");
  EXPECT_THAT(result.output, HasSubstr("mineminemineminemine\nweb\n"));
  // The mask is the null device, not what the caller mounted over it.
  EXPECT_EQ(result.Value("masked"), "");
  EXPECT_EQ(result.Value("pts"), "ptmx");
}

TEST_P(MountsTest, MountsBelowProcAndSys) {
  const std::string source = MakeLayer("source", {"cpuinfo=faked\n"});
  RootFsOptions options = BaseOptions();
  options.binds = {
      {.destination = "/proc/cpuinfo", .source = source + "/cpuinfo"},
      {.destination = "/sys/fs/cgroup", .source = source, .read_only = true},
      {.destination = "/proc/sys/kernel/hostname",
       .source = source + "/cpuinfo"}};
  const ScriptResult result = RunWith(
      options,
      "cat /proc/cpuinfo /sys/fs/cgroup/cpuinfo /proc/sys/kernel/hostname; "
      "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null; echo sysctl=$?");
  EXPECT_THAT(result.output, HasSubstr("faked\nfaked\nfaked\n"));
  EXPECT_EQ(result.Value("sysctl"), "1");

  options.binds = {
      {.destination = "/proc/nothing", .source = source + "/cpuinfo"}};
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  EXPECT_THAT(Run(*root, "true"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("move_mount(\"/proc/nothing\"): ENOENT"),
                             HasSubstr("must exist"))));
}

TEST_P(MountsTest, FileSystemsOfAnyKind) {
  const std::string lower = MakeLayer("lower", {"a=lower", "b=lower"});
  const std::string top = MakeLayer("top", {"a=top", "run/x=image"});
  RootFsOptions options = BaseOptions({top});
  options.filesystems = {
      {.destination = "/t",
       .type = "tmpfs",
       .source = "mine",
       .options = {"size=64k", "mode=0711", "uid=7"},
       .noexec = true,
       .access_times = AccessTimes::kNever},
      {.destination = "/merged",
       .type = "overlay",
       .options = {absl::StrCat("lowerdir=", top, ":", lower)},
       .read_only = true,
       .unsafe_setuid = true,
       .unsafe_devices = true},
      {.destination = "/run",
       .type = "tmpfs",
       .read_only = true,
       .copy_up = true},
      {.destination = "/dev/shm", .type = "tmpfs", .options = {"size=1m"}}};
  const ScriptResult result =
      RunWith(options,
              "stat -c t=%a:%u:%g /t; cat /merged/a /merged/b /run/x; echo; "
              "touch /run/y 2>/dev/null; echo ro=$?; mknod /t/n c 1 3; "
              "cat /t/n 2>/dev/null; echo node=$?; "
              "df -k /t /dev/shm | while read a b c; do echo df_$a=$b; done; "
              "while read a b c d o; do echo on_$b=$c,$d; done < /proc/mounts");
  EXPECT_EQ(result.Value("t"), "711:7:0");
  EXPECT_THAT(result.output, HasSubstr("toplowerimage\n"));
  EXPECT_EQ(result.Value("ro"), "1");
  EXPECT_EQ(result.Value("node"), "1");
  EXPECT_EQ(result.Value("df_mine"), "64");
  EXPECT_EQ(result.Value("df_tmpfs"), "1024");
  EXPECT_THAT(result.Value("on_/t"),
              HasSubstr("tmpfs,rw,nosuid,nodev,noexec,noatime,size=64k"));
  EXPECT_THAT(result.Value("on_/merged"), HasSubstr("overlay,ro,relatime,"));

  const auto build = [&](FilesystemMount mount) {
    RootFsOptions one = BaseOptions();
    one.filesystems = {std::move(mount)};
    return BuiltRoot::Build(one, limits()).status();
  };
  EXPECT_THAT(build({.destination = "/x", .type = "nosuchfs"}),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("RootFsOptions.filesystems[0]"),
                             HasSubstr("nosuchfs"))));
  EXPECT_THAT(
      build({.destination = "/x", .type = "tmpfs", .options = {"bogus=1"}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bogus")));
  for (const char* type : {"", "proc", "sysfs", "devpts", "cgroup2"}) {
    EXPECT_THAT(build({.destination = "/x", .type = type}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("RootFsOptions.filesystems[0].type")))
        << type;
  }
}

TEST_P(MountsTest, OwnMountsCanBeLeftOut) {
  RootFsOptions options = BaseOptions();
  options.own_mounts = {
      .proc = false, .sys = false, .pts = false, .shm = false, .mqueue = false};
  // Only what the shell itself can do: busybox finds its applets in /proc.
  const ScriptResult result =
      RunWith(options,
              "for i in /proc /sys /dev/pts /dev/shm /dev/mqueue; do "
              "for f in $i/*; do echo in_$i=$f; done; done; "
              "test -c /dev/null; echo null=$?");
  for (const char* empty : {"/proc", "/sys", "/dev/pts", "/dev/mqueue"}) {
    EXPECT_EQ(result.Value(absl::StrCat("in_", empty)),
              absl::StrCat(empty, "/*"));
  }
  EXPECT_EQ(result.Value("null"), "0");
  options.binds = {{.destination = "/proc/cpuinfo", .source = "/etc/passwd"}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("own_mounts leaves out")));
}

TEST_P(MountsTest, BindsInsteadOfProcAndSys) {
  const std::string fake = MakeLayer(
      "fake", {"kcore=secret", "sys/x=1", "acpi/y=2", "firmware/z=3"});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/proc", .source = fake},
                   {.destination = "/sys", .source = fake}};
  const ScriptResult result = RunWith(
      options,
      "echo kcore=$(cat /proc/kcore); echo acpi=$(ls /proc/acpi); "
      "(echo 2 > /proc/sys/x) 2>/dev/null; echo ro=$?; "
      "echo firmware=$(ls /sys/firmware); echo 2 > /sys/new; echo rw=$?");
  EXPECT_EQ(result.Value("kcore"), "");
  EXPECT_EQ(result.Value("acpi"), "");
  EXPECT_EQ(result.Value("ro"), "1");
  EXPECT_EQ(result.Value("firmware"), "");
  EXPECT_EQ(result.Value("rw"), "0");
  EXPECT_EQ(ReadHostFile(fake + "/new"), "2\n");
}

TEST_P(MountsTest, BindInsteadOfDev) {
  const std::string dev =
      MakeLayer("dev", {"pts/", "shm/", "mqueue/", "mine=text"});
  ASSERT_EQ(::mknod((dev + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  RootFsOptions options = BaseOptions();
  options.binds = {
      {.destination = "/dev", .source = dev, .unsafe_devices = true},
      {.destination = "/dev/mine",
       .source = dev + "/null",
       .unsafe_devices = true}};
  options.masked_paths = {"/proc/version"};
  const ScriptResult result = RunWith(
      options,
      "echo dev=$(cd /dev; echo *); echo x > /dev/null; echo null=$?; "
      "echo mine=$(cat /dev/mine); echo version=$(cat /proc/version); "
      "for i in pts shm mqueue; do echo $i=$(stat -f -c %T /dev/$i); done");
  EXPECT_EQ(result.Value("dev"), "mine mqueue null pts shm");
  EXPECT_EQ(result.Value("null"), "0");
  EXPECT_EQ(result.Value("mine"), "");
  EXPECT_EQ(result.Value("version"), "");
  EXPECT_EQ(result.Value("shm"), "tmpfs");
  EXPECT_NE(result.Value("pts"), result.Value("shm"));
  EXPECT_EQ(ReadHostFile(dev + "/mine"), "text");
  options.devices = {{.path = "/dev/zero", .source = "/dev/zero"}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("is hidden by RootFsOptions.binds[0]")));
}

TEST_P(MountsTest, SysCanBeWritableAndTheRootShared) {
  const auto look = [&](RootFsOptions options) {
    return RunWith(options,
                   "while read a b c d at flags tag rest; do "
                   "echo on_$at=$flags,$tag; done < /proc/self/mountinfo");
  };
  RootFsOptions options = BaseOptions();
  options.tmpfs = {{.destination = "/t"}};
  ScriptResult result = look(options);
  EXPECT_THAT(result.Value("on_/sys"), HasSubstr("ro,nosuid,nodev,noexec"));
  EXPECT_THAT(result.Value("on_/"), Not(HasSubstr("shared:")));

  options = BaseOptions();
  options.tmpfs = {{.destination = "/t"}};
  options.unsafe_writable_sys = true;
  options.propagation = RootPropagation::kShared;
  result = look(options);
  EXPECT_THAT(result.Value("on_/sys"), HasSubstr("rw,nosuid,nodev,noexec"));
  EXPECT_THAT(result.Value("on_/"), HasSubstr("shared:"));
  EXPECT_THAT(result.Value("on_/t"), Not(HasSubstr("shared:")));

  options = BaseOptions();
  options.tmpfs = {{.destination = "/t"}};
  options.propagation = RootPropagation::kSharedRecursively;
  result = look(options);
  EXPECT_THAT(result.Value("on_/"), HasSubstr("shared:"));
  EXPECT_THAT(result.Value("on_/t"), HasSubstr("shared:"));
}

TEST_P(MountsTest, ExtraMaskedAndReadOnlyPaths) {
  RootFsOptions options = BaseOptions();
  options.masked_paths = {"/data",         "/etc/passwd", "/nowhere",
                          "/proc/version", "/sys/kernel", "/proc/none"};
  options.read_only_paths = {"/tmp", "/etc/hosts", "/absent", "/proc/self/fd"};
  const ScriptResult result = RunWith(
      options,
      "echo data=$(ls -A /data); echo passwd=$(cat /etc/passwd); echo "
      "version=$(cat /proc/version); echo kernel=$(ls /sys/kernel); touch "
      "/tmp/x 2>/dev/null; echo tmp=$?; touch /data/x 2>/dev/null; echo "
      "touch=$?; (echo x >> /etc/hosts) 2>/dev/null; echo hosts=$?");
  EXPECT_EQ(result.Value("data"), "");
  EXPECT_EQ(result.Value("passwd"), "");
  EXPECT_EQ(result.Value("version"), "");
  EXPECT_EQ(result.Value("kernel"), "");
  EXPECT_EQ(result.Value("tmp"), "1");
  EXPECT_EQ(result.Value("touch"), "1");
  EXPECT_EQ(result.Value("hosts"), "1");
}

TEST_P(MountsTest, UnsafeListsReplaceTheDefaults) {
  RootFsOptions options = BaseOptions();
  options.unsafe_replace_masked_paths = std::vector<std::string>{};
  options.unsafe_replace_read_only_paths = std::vector<std::string>{};
  const ScriptResult result =
      RunWith(options,
              "cat /proc/interrupts > /tmp/i; test -s /tmp/i; echo i=$?; "
              "test -w /proc/sys/kernel/hostname; echo w=$?; echo other > "
              "/proc/sys/kernel/hostname; echo set=$?");
  EXPECT_EQ(result.Value("i"), "0");
  EXPECT_EQ(result.Value("set"), "0");
}

TEST_P(MountsTest, KindsMustAgree) {
  const std::string source = MakeLayer("source", {"file=x"});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/data", .source = source + "/file"}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("RootFsOptions.binds[0]: \"/data\" is a "
                                 "directory of the image, but what is to be "
                                 "mounted there is a file")));
  options.binds = {{.destination = "/etc/passwd", .source = source}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("\"/etc/passwd\" is a file of the image, but "
                                 "what is to be mounted there is a "
                                 "directory")));
  options.binds = {{.destination = "/etc/passwd/x", .source = source}};
  EXPECT_THAT(
      BuiltRoot::Build(options, limits()),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("ENOTDIR")));
}

TEST_P(MountsTest, MissingSourceIsNamed) {
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv", .source = dir() + "/nothing"}};
  const auto root = BuiltRoot::Build(options, limits());
  EXPECT_THAT(
      root,
      StatusIs(absl::StatusCode::kNotFound,
               AllOf(HasSubstr("RootFsOptions.binds[0]"), HasSubstr("\"/srv\""),
                     HasSubstr(dir() + "/nothing"), HasSubstr("ENOENT"))));
}

TEST_P(MountsTest, MountPointThatIsMissingInAReadOnlyBind) {
  const std::string source = MakeLayer("source", {"file=x"});
  RootFsOptions options = BaseOptions();
  options.binds = {{.destination = "/srv", .source = source, .read_only = true},
                   {.destination = "/srv/sub", .source = source}};
  EXPECT_THAT(
      BuiltRoot::Build(options, limits()),
      StatusIs(absl::StatusCode::kPermissionDenied,
               AllOf(HasSubstr("mkdir(\"/srv/sub\") in the root: EROFS"),
                     HasSubstr("is missing and must be created"))));
  EXPECT_NE(::access((source + "/sub").c_str(), F_OK), 0);
}

// 100 binds: on old kernels, each takes two descriptors of the plan.
TEST_P(MountsTest, ManyBinds) {
  const std::string source = MakeLayer("source", {"file=x"});
  RootFsOptions options = BaseOptions();
  std::string script;
  for (int i = 0; i < 100; ++i) {
    options.binds.push_back(
        {.destination = absl::StrCat("/m/", i), .source = source});
    absl::StrAppend(&script, "cat /m/", i, "/file;");
  }
  EXPECT_EQ(RunWith(options, script).output, std::string(100, 'x'));
}

}  // namespace
}  // namespace caisson::rootfs
