#include "lib/layer/test_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "lib/sys/remove_tree.h"
#include "lib/sys/xattr.h"

namespace caisson::layer {
namespace {

std::string TypeName(const struct stat& st) {
  switch (st.st_mode & S_IFMT) {
    case S_IFREG:
      return "file";
    case S_IFDIR:
      return "dir";
    case S_IFLNK:
      return "symlink";
    case S_IFCHR:
      return st.st_rdev == 0 ? "whiteout" : "char";
    case S_IFBLK:
      return "block";
    case S_IFIFO:
      return "fifo";
    default:
      return "other";
  }
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

// Small files as they are, others by their hash.
std::string Content(const std::string& path) {
  const std::string content = ReadFile(path);
  if (content.size() < 4096) return absl::CHexEscape(content);
  return absl::StrCat("#", std::hash<std::string>()(content));
}

}  // namespace

TestDir::TestDir() {
  const char* base = ::getenv("TEST_TMPDIR");
  path_ = absl::StrCat(base != nullptr ? base : "/tmp", "/layer", ::getpid(),
                       "XXXXXX");
  if (::mkdtemp(path_.data()) == nullptr) ::abort();
  fd_.reset(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd_.valid()) ::abort();
}

TestDir::~TestDir() {
  EXPECT_TRUE(sys::RemoveContents(fd_.borrow()).ok());
  EXPECT_EQ(::rmdir(path_.c_str()), 0) << path_;
}

std::string TestDir::path(absl::string_view name) const {
  return absl::StrCat(path_, "/", name);
}

std::string TestDir::Read(absl::string_view name) const {
  return IsFile(name) ? ReadFile(path(name)) : "<no such file>";
}

void TestDir::Write(absl::string_view name, absl::string_view content,
                    mode_t mode) const {
  std::ofstream file(path(name), std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  EXPECT_EQ(::chmod(path(name).c_str(), mode), 0);
}

void TestDir::MakeDir(absl::string_view name, mode_t mode) const {
  EXPECT_EQ(::mkdir(path(name).c_str(), 0700), 0) << name;
  EXPECT_EQ(::chmod(path(name).c_str(), mode), 0);
}

struct stat TestDir::Stat(absl::string_view name) const {
  struct stat st = {};
  if (::lstat(path(name).c_str(), &st) != 0) return {};
  return st;
}

bool TestDir::Exists(absl::string_view name) const {
  return Stat(name).st_mode != 0;
}

std::string TestDir::Readlink(absl::string_view name) const {
  char target[4096];
  const ssize_t n = ::readlink(path(name).c_str(), target, sizeof(target));
  return n < 0 ? "<no link>" : std::string(target, static_cast<size_t>(n));
}

std::string TestDir::Xattr(absl::string_view name, const char* key) const {
  char value[4096];
  const ssize_t n = ::lgetxattr(path(name).c_str(), key, value, sizeof(value));
  return n < 0 ? "<none>" : std::string(value, static_cast<size_t>(n));
}

void TestDir::SetXattr(absl::string_view name, const char* key,
                       absl::string_view value) const {
  EXPECT_EQ(::lsetxattr(path(name).c_str(), key, value.data(), value.size(), 0),
            0)
      << name << " " << key;
}

std::vector<std::string> TreeNames(const std::string& root) {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(root)) {
    names.push_back(entry.path().string().substr(root.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string DumpTree(const std::string& root) {
  std::string dump;
  std::vector<std::string> names = TreeNames(root);
  names.insert(names.begin(), ".");
  const UniqueFd dir(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const std::string& name : names) {
    struct stat st = {};
    ::fstatat(dir.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW);
    absl::StrAppendFormat(&dump, "%s %s %04o %d:%d %d.%09d",
                          absl::CHexEscape(name), TypeName(st),
                          st.st_mode & 07777, st.st_uid, st.st_gid,
                          st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    if (S_ISREG(st.st_mode)) {
      absl::StrAppend(&dump, " ", st.st_size, " ", Content(root + name));
    }
    if (S_ISLNK(st.st_mode)) {
      absl::StrAppend(&dump, " -> ",
                      std::filesystem::read_symlink(root + name).string());
    }
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      absl::StrAppend(&dump, " ", major(st.st_rdev), ":", minor(st.st_rdev));
    }
    auto xattrs = sys::ReadXattrsAt(dir.borrow(), name);
    if (xattrs.ok()) {
      std::sort(xattrs->begin(), xattrs->end());
      for (const auto& [key, value] : *xattrs) {
        if (key == "security.selinux") continue;
        absl::StrAppend(&dump, " ", key, "=", absl::CHexEscape(value));
      }
    }
    dump += "\n";
  }
  return dump;
}

}  // namespace caisson::layer
