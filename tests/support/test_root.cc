#include "tests/support/test_root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"
#include "tests/support/machine.h"

namespace caisson::testing {
namespace {

namespace fs = std::filesystem;

constexpr const char* kApplets[] = {
    "sh",       "cat",  "ls",   "id",       "sleep", "true",     "false",
    "hostname", "ps",   "kill", "mount",    "stat",  "touch",    "mkdir",
    "rm",       "echo", "test", "grep",     "head",  "tail",     "wc",
    "tty",      "stty", "dd",   "seq",      "umask", "chmod",    "mknod",
    "pwd",      "env",  "ip",   "ifconfig", "wget",  "nc",       "readlink",
    "sed",      "awk",  "cut",  "tr",       "sort",  "setuidgid"};

// In the names of the directories that take the place of memory.
constexpr char kWrites[] = ".caisson-writes";
constexpr size_t kPairsHeld = 64;

void Require(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  abort();
}

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> Entries(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    names.push_back(entry.path().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TestRoot::TestRoot() {
  const char* base = getenv("TEST_TMPDIR");
  path_ = absl::StrCat(base != nullptr ? base : "/tmp", "/root.XXXXXX");
  Require(mkdtemp(path_.data()) != nullptr, "mkdtemp");
  Require(chmod(path_.c_str(), 0755) == 0, "chmod");
  for (const char* name : {"bin", "etc", "tmp", "root", "home"}) {
    Require(mkdir((path_ + "/" + name).c_str(), 0755) == 0, name);
  }
  Require(chmod((path_ + "/tmp").c_str(), 01777) == 0, "chmod");
  std::error_code error;
  fs::copy_file("/bin/busybox", path_ + "/bin/busybox", error);
  Require(!error, "copy /bin/busybox (package busybox-static)");
  for (const char* applet : kApplets) {
    Require(symlink("busybox", (path_ + "/bin/" + applet).c_str()) == 0,
            applet);
  }
  Write("etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home:/bin/sh\n",
        0644);
  Write("etc/group", "root:x:0:\nusers:x:1001:\nextra:x:1002:user\n", 0644);
  fd_.reset(open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  Require(fd_.valid(), "open");
}

TestRoot::~TestRoot() {
  fd_.reset();
  pairs_.clear();
  // Enters no mount: a test may have left one of the real root here.
  const auto parent =
      sys::Open(fs::path(path_).parent_path().string(), O_PATH | O_DIRECTORY);
  if (!parent.ok()) return;
  const std::string name = fs::path(path_).filename().string();
  sys::RemoveTree(parent->borrow(), name).IgnoreError();
  sys::RemoveTree(parent->borrow(), name + kWrites).IgnoreError();
}

void TestRoot::Write(const std::string& name, const std::string& content,
                     unsigned mode) const {
  const std::string path = path_ + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  Require(chmod(path.c_str(), mode) == 0, path.c_str());
}

RootFsOptions TestRoot::ReadOnlyOptions() const {
  RootFsOptions options;
  options.layers = {fd()};
  options.resolv_conf = "";
  return options;
}

RootFsOptions TestRoot::Options() const {
  RootFsOptions options = ReadOnlyOptions();
  // Detached mounts as layers.
  if (IsKernelAtLeast(6, 15)) {
    options.writes = RootWrites::kTmpfs;
  } else if (geteuid() == 0) {
    WriteIntoNewDirectories(options);
  } else {
    options.writes = RootWrites::kInPlace;
  }
  return options;
}

void TestRoot::WriteIntoNewDirectories(RootFsOptions& options) const {
  const std::string writes = path_ + kWrites;
  const std::lock_guard<std::mutex> lock(mutex_);
  // A copy of this process, made by fork(2), has made it as well, maybe.
  Require(mkdir(writes.c_str(), 0755) == 0 || errno == EEXIST, "mkdir");
  std::string pair = writes + "/XXXXXX";
  Require(mkdtemp(pair.data()) != nullptr, "mkdtemp");
  std::array<UniqueFd, 2> fds;
  for (size_t i = 0; i < 2; ++i) {
    const std::string name = pair + (i == 0 ? "/upper" : "/work");
    Require(mkdir(name.c_str(), 0755) == 0, "mkdir");
    fds[i].reset(open(name.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    Require(fds[i].valid(), "open");
  }
  options.writes = RootWrites::kDirectories;
  options.upper_directory = fds[0].borrow();
  options.work_directory = fds[1].borrow();
  pairs_.push_back(std::move(fds));
  if (pairs_.size() > kPairsHeld) pairs_.pop_front();
}

bool IsWritesOfTestRoot(const std::string& path) {
  return path.find(kWrites) != std::string::npos;
}

HostSnapshot TakeHostSnapshot() {
  HostSnapshot snapshot;
  snapshot.mounts = ReadWhole("/proc/self/mountinfo");
  for (const std::string& fd : Entries("/proc/self/fd")) {
    std::error_code error;
    const fs::path target = fs::read_symlink(fd, error);
    // The descriptor that lists the directory itself is gone by now.
    if (error || IsWritesOfTestRoot(target)) continue;
    absl::StrAppend(&snapshot.descriptors, fd, " ", target.string(), "\n");
  }
  for (const std::string& task : Entries("/proc/self/task")) {
    absl::StrAppend(&snapshot.children, ReadWhole(task + "/children"));
  }
  for (const std::string& hierarchy : Entries("/sys/fs/cgroup")) {
    std::error_code error;
    for (const auto& entry : fs::recursive_directory_iterator(
             absl::StrCat(hierarchy, "/caisson-test-", getpid()), error)) {
      if (entry.is_directory()) {
        absl::StrAppend(&snapshot.cgroups, entry.path().string(), "\n");
      }
    }
  }
  return snapshot;
}

}  // namespace caisson::testing
