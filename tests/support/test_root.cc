#include "tests/support/test_root.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"

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
  // Enters no mount: a test may have left one of the real root here.
  const auto parent =
      sys::Open(fs::path(path_).parent_path().string(), O_PATH | O_DIRECTORY);
  if (parent.ok()) {
    sys::RemoveTree(parent->borrow(), fs::path(path_).filename().string())
        .IgnoreError();
  }
}

void TestRoot::Write(const std::string& name, const std::string& content,
                     unsigned mode) const {
  const std::string path = path_ + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  Require(chmod(path.c_str(), mode) == 0, path.c_str());
}

RootFsOptions TestRoot::Options() const {
  RootFsOptions options;
  options.layers = {fd()};
  options.writes = RootWrites::kTmpfs;
  options.resolv_conf = "";
  return options;
}

HostSnapshot TakeHostSnapshot() {
  HostSnapshot snapshot;
  snapshot.mounts = ReadWhole("/proc/self/mountinfo");
  for (const std::string& fd : Entries("/proc/self/fd")) {
    std::error_code error;
    const fs::path target = fs::read_symlink(fd, error);
    // The descriptor that lists the directory itself is gone by now.
    if (!error)
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
