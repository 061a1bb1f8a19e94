// A scratch directory on the real file system, for tests.
#ifndef CAISSON_LIB_LAYER_TEST_DIR_H_
#define CAISSON_LIB_LAYER_TEST_DIR_H_

#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::layer {

// The paths of all files below `root`, which ends with "/", sorted.
std::vector<std::string> TreeNames(const std::string& root);

// One line for the root and each file below it: path, type, mode, owner, mtime,
// size, content or target, extended attributes.
std::string DumpTree(const std::string& root);

// Removed with everything in it by the destructor.
class TestDir final {
 public:
  TestDir();
  TestDir(const TestDir&) = delete;
  TestDir& operator=(const TestDir&) = delete;
  ~TestDir();

  BorrowedFd fd() const { return fd_.borrow(); }
  const std::string& path() const { return path_; }
  std::string path(absl::string_view name) const;

  // The contents of a regular file; "<no such file>" if there is none.
  std::string Read(absl::string_view name) const;
  void Write(absl::string_view name, absl::string_view content,
             mode_t mode = 0644) const;
  void MakeDir(absl::string_view name, mode_t mode = 0755) const;

  bool Exists(absl::string_view name) const;
  // lstat; all zero if there is no such file.
  struct stat Stat(absl::string_view name) const;
  mode_t Mode(absl::string_view name) const {
    return Stat(name).st_mode & 07777;
  }
  bool IsDir(absl::string_view name) const {
    return S_ISDIR(Stat(name).st_mode);
  }
  bool IsFile(absl::string_view name) const {
    return S_ISREG(Stat(name).st_mode);
  }
  std::string Readlink(absl::string_view name) const;
  // Without following; "<none>" if it has no such attribute.
  std::string Xattr(absl::string_view name, const char* key) const;
  void SetXattr(absl::string_view name, const char* key,
                absl::string_view value) const;

  std::string Dump() const { return DumpTree(path_ + "/"); }
  std::vector<std::string> Names() const { return TreeNames(path_ + "/"); }

 private:
  std::string path_;
  UniqueFd fd_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_DIR_H_
