// A directory of a test, with files that it writes and reads.
#ifndef CAISSON_LIB_LINES_TEST_DIRECTORY_H_
#define CAISSON_LIB_LINES_TEST_DIRECTORY_H_

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "gtest/gtest.h"
#include "lib/sys/remove_tree.h"

namespace caisson::testing {

// Removed with everything in it by the destructor.
class TestDirectory final {
 public:
  TestDirectory() {
    path_ = absl::StrCat(::testing::TempDir(), "/dirXXXXXX");
    if (::mkdtemp(path_.data()) == nullptr) ::abort();
    fd_.reset(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  ~TestDirectory() {
    const UniqueFd readable(
        ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    EXPECT_TRUE(sys::RemoveContents(readable.borrow()).ok());
    EXPECT_EQ(::rmdir(path_.c_str()), 0) << path_;
  }

  BorrowedFd fd() const { return fd_.borrow(); }
  std::string path(absl::string_view name) const {
    return absl::StrCat(path_, "/", name);
  }
  void Append(absl::string_view name, absl::string_view content) const {
    std::ofstream(path(name), std::ios::app) << content;
  }
  // Empty if there is no such file.
  std::string Read(absl::string_view name) const {
    std::ifstream file(path(name));
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  bool Has(absl::string_view name) const {
    return ::access(path(name).c_str(), F_OK) == 0;
  }
  void Rename(absl::string_view from, absl::string_view to) const {
    EXPECT_EQ(::rename(path(from).c_str(), path(to).c_str()), 0);
  }
  void Remove(absl::string_view name) const {
    EXPECT_EQ(::unlink(path(name).c_str()), 0);
  }

 private:
  std::string path_;
  UniqueFd fd_;
};

}  // namespace caisson::testing

#endif  // CAISSON_LIB_LINES_TEST_DIRECTORY_H_
