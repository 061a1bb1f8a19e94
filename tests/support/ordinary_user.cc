#include "tests/support/ordinary_user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace caisson::testing {
namespace {

namespace fs = std::filesystem;

// Control groups in one another.
constexpr char kGivenAway[] = "/given";
constexpr char kOwnGroup[] = "/host";

void Require(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  exit(1);
}

void Append(const std::string& path, const std::string& line) {
  std::ofstream file(path, std::ios::app);
  file << line << "\n";
  Require(file.good(), path.c_str());
}

// A copy of /etc over /etc that this process and its children see alone.
void MakeUserDatabase(const std::string& dir) {
  Require(unshare(CLONE_NEWNS) == 0, "unshare(CLONE_NEWNS)");
  Require(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0,
          "mount(MS_PRIVATE)");
  Require(mount("tmpfs", dir.c_str(), "tmpfs", 0, "mode=755") == 0,
          "mount(tmpfs)");
  for (const char* name : {"/upper", "/work"}) {
    Require(mkdir((dir + name).c_str(), 0755) == 0, "mkdir");
  }
  const std::string options = absl::StrCat("lowerdir=/etc,upperdir=", dir,
                                           "/upper,workdir=", dir, "/work");
  Require(mount("overlay", "/etc", "overlay", 0, options.c_str()) == 0,
          "mount(overlay, /etc)");
  Append("/etc/passwd", absl::StrCat("caisson-test:x:", kOrdinaryUser, ":",
                                     kOrdinaryGroup, "::/nonexistent:/bin/sh"));
  for (const char* file : {"/etc/subuid", "/etc/subgid"}) {
    Append(file, absl::StrCat("caisson-test:", kFirstSubordinate, ":",
                              kSubordinates));
  }
}

void MountTmpfs(const std::string& path, unsigned long flags,
                const std::string& text) {
  Require(mount("tmpfs", path.c_str(), "tmpfs", 0, "mode=755") == 0, "mount");
  Append(path + "/file", text);
  Require(mount(nullptr, path.c_str(), nullptr, MS_REMOUNT | MS_BIND | flags,
                nullptr) == 0,
          "mount(MS_REMOUNT)");
}

// Mounts that the user can see and not change.
void MakeMounts(const std::string& dir) {
  for (const char* name : {"/locked", "/covering", "/covering/below"}) {
    Require(mkdir((dir + name).c_str(), 0755) == 0, "mkdir");
  }
  MountTmpfs(dir + "/locked", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
             "locked");
  Append(dir + "/covering/below/secret", "hidden");
  MountTmpfs(dir + "/covering/below", 0, "on top");
}

// Where cgroup v2 is mounted; "" if it is not.
std::string FindCgroup2() {
  std::ifstream mounts("/proc/self/mounts");
  std::string device, place, type, rest;
  while (mounts >> device >> place >> type && std::getline(mounts, rest)) {
    if (type == "cgroup2") return place;
  }
  return "";
}

// A control group that the user may do anything with, as systemd's
// "Delegate=yes" makes them, and in it the one that the test itself lives in.
// No controllers come with it, whatever others enable for the groups beside:
// its parent is root's and enables none. Returns the parent's directory.
std::string MakeCgroup() {
  const std::string mount = FindCgroup2();
  if (mount.empty()) return "";
  const std::string base = absl::StrCat(mount, "/caisson-user-", getpid());
  const std::string dir = base + kGivenAway;
  for (const std::string& made : {base, dir, dir + kOwnGroup}) {
    Require(mkdir(made.c_str(), 0755) == 0, "mkdir(cgroup)");
  }
  for (const std::string& file :
       {std::string(), std::string("/cgroup.procs"),
        std::string("/cgroup.subtree_control"), std::string("/cgroup.threads"),
        std::string(kOwnGroup), absl::StrCat(kOwnGroup, "/cgroup.procs")}) {
    Require(chown((dir + file).c_str(), kOrdinaryUser, kOrdinaryGroup) == 0,
            "chown(cgroup)");
  }
  setenv("CAISSON_DELEGATED_GROUP", dir.substr(mount.size()).c_str(), 1);
  return base;
}

void JoinCgroup(const std::string& dir) {
  std::ofstream procs(
      absl::StrCat(dir, kGivenAway, kOwnGroup, "/cgroup.procs"));
  procs << "0" << std::flush;
  Require(procs.good(), "write(cgroup.procs)");
}

// Processes that are being reaped hold it for a moment.
void RemoveCgroup(const std::string& dir) {
  bool removed = false;
  for (int i = 0; i < 1000 && !removed; ++i) {
    rmdir(absl::StrCat(dir, kGivenAway, kOwnGroup).c_str());
    rmdir(absl::StrCat(dir, kGivenAway).c_str());
    removed = rmdir(dir.c_str()) == 0;
    if (!removed) usleep(10000);
  }
  Require(removed, "rmdir(cgroup): the tests left something in it");
}

[[noreturn]] void ExecuteAsUser(int program, char** argv) {
  Require(setgroups(0, nullptr) == 0, "setgroups");
  Require(setresgid(kOrdinaryGroup, kOrdinaryGroup, kOrdinaryGroup) == 0,
          "setresgid");
  Require(setresuid(kOrdinaryUser, kOrdinaryUser, kOrdinaryUser) == 0,
          "setresuid");
  Require(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "prctl");
  Require(chdir("/") == 0, "chdir");
  // By descriptor: the user cannot look into root's directories.
  fexecve(program, argv, environ);
  Require(false, "fexecve");
  abort();
}

int RunAsUser(char** argv) {
  const int program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
  Require(program >= 0, "open(/proc/self/exe)");
  char base[] = "/tmp/caisson-user.XXXXXX";
  Require(mkdtemp(base) != nullptr, "mkdtemp");
  const std::string dir = base;
  MakeUserDatabase(dir);
  MakeMounts(dir);
  const std::string home = dir + "/user";
  Require(mkdir(home.c_str(), 0755) == 0, "mkdir");
  Require(chown(home.c_str(), kOrdinaryUser, kOrdinaryGroup) == 0, "chown");
  const char* xml = getenv("XML_OUTPUT_FILE");
  const std::string wanted_xml = xml != nullptr ? xml : "";
  const std::string user_xml = home + "/test.xml";
  setenv("XML_OUTPUT_FILE", user_xml.c_str(), 1);
  setenv("TEST_TMPDIR", home.c_str(), 1);
  // Files that GoogleTest writes and the user may not.
  unsetenv("TEST_PREMATURE_EXIT_FILE");
  unsetenv("TEST_SHARD_STATUS_FILE");
  unsetenv("TEST_WARNINGS_OUTPUT_FILE");
  const std::string cgroup = MakeCgroup();
  const pid_t child = fork();
  if (child == 0) {
    if (!cgroup.empty()) JoinCgroup(cgroup);
    ExecuteAsUser(program, argv);
  }
  int status = 0;
  Require(waitpid(child, &status, 0) == child, "waitpid");
  if (!cgroup.empty()) RemoveCgroup(cgroup);
  std::error_code error;
  if (!wanted_xml.empty()) {
    fs::copy_file(user_xml, wanted_xml, fs::copy_options::overwrite_existing,
                  error);
  }
  // Only the mount namespace still has what lies in the tmpfs.
  Require(umount2(dir.c_str(), MNT_DETACH) == 0, "umount2");
  Require(rmdir(dir.c_str()) == 0, "rmdir");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

int RunTestsAsOrdinaryUser(int argc, char** argv) {
  if (geteuid() == 0) return RunAsUser(argv);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace caisson::testing
