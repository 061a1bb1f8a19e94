#include "tests/hostile/hostile_test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"

namespace caisson::testing {
namespace {

namespace fs = std::filesystem;

constexpr char kAttacker[] = "tests/hostile/attacker";
constexpr size_t kMaxOutput = 16 << 20;

// `path`, which must be "DIRECTORY/NAME".
absl::Status Remove(const std::string& path) {
  const fs::path place(path);
  ASSIGN_OR_RETURN(UniqueFd parent, sys::Open(place.parent_path().string(),
                                              O_PATH | O_DIRECTORY));
  return sys::RemoveTree(parent.borrow(), place.filename().string());
}

// Everything about a tree that an attack could change.
std::string Describe(const std::string& directory) {
  std::vector<std::string> lines;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(directory, error)) {
    struct stat stat = {};
    EXPECT_EQ(::lstat(entry.path().c_str(), &stat), 0) << entry.path();
    std::string content;
    if (S_ISREG(stat.st_mode)) {
      std::ifstream file(entry.path(), std::ios::binary);
      content.assign(std::istreambuf_iterator<char>(file), {});
    }
    lines.push_back(absl::StrCat(
        entry.path().string(), " mode ", absl::Hex(stat.st_mode), " owner ",
        stat.st_uid, ":", stat.st_gid, " links ", stat.st_nlink, " changed ",
        stat.st_ctim.tv_sec, ".", stat.st_ctim.tv_nsec, " \"", content, "\""));
  }
  EXPECT_FALSE(error) << directory << ": " << error.message();
  std::sort(lines.begin(), lines.end());
  return absl::StrJoin(lines, "\n");
}

}  // namespace

ScratchDir::ScratchDir(const std::string& name) {
  const char* base = ::getenv("TEST_TMPDIR");
  path_ = absl::StrCat(base != nullptr ? base : "/tmp", "/", name, ".XXXXXX");
  if (::mkdtemp(path_.data()) == nullptr) ::abort();
  EXPECT_EQ(::chmod(path_.c_str(), 0755), 0);
}

ScratchDir::~ScratchDir() { EXPECT_OK(Remove(path_)); }

void Plant(const std::string& directory,
           const std::vector<std::string>& entries) {
  for (const std::string& entry : entries) {
    const std::pair<std::string, std::string> link =
        absl::StrSplit(entry, absl::MaxSplits(" -> ", 1));
    const std::pair<std::string, std::string> file =
        absl::StrSplit(link.first, absl::MaxSplits('=', 1));
    const bool is_directory = absl::EndsWith(file.first, "/");
    const std::string path =
        absl::StrCat(directory, "/",
                     is_directory ? file.first.substr(0, file.first.size() - 1)
                                  : file.first);
    fs::create_directories(fs::path(path).parent_path());
    ASSERT_OK(Remove(path));
    if (is_directory) {
      ASSERT_EQ(::mkdir(path.c_str(), 0755), 0) << path;
    } else if (absl::StrContains(entry, " -> ")) {
      ASSERT_EQ(::symlink(link.second.c_str(), path.c_str()), 0) << path;
    } else {
      std::ofstream(path, std::ios::binary) << file.second;
    }
  }
}

void HostileTest::SetUpTestSuite() {
  ContainerTest::SetUpTestSuite();
  std::error_code error;
  fs::copy_file(kAttacker, root_->path() + "/bin/attacker", error);
  ASSERT_FALSE(error) << kAttacker << ": " << error.message();
}

void HostileTest::SetUp() {
  outside_ = std::make_unique<ScratchDir>("outside");
  Plant(outside(),
        {"file=untouched", "dir/inner=untouched", "dev/", "pts/", "proc/",
         "sys/", "etc/passwd=root:x:0:0::/:/bin/sh\nevil:x:0:0::/:/bin/sh\n"});
  before_outside_ = Describe(outside());
  ContainerTest::SetUp();
}

void HostileTest::TearDown() {
  ContainerTest::TearDown();
  EXPECT_EQ(Describe(outside()), before_outside_);
  outside_.reset();
}

RootFsOptions HostileTest::InPlace(const TestRoot& image) {
  RootFsOptions options = image.ReadOnlyOptions();
  options.writes = RootWrites::kInPlace;
  return options;
}

absl::StatusOr<ContainerTest::Outcome> HostileTest::RunIn(const TestRoot& image,
                                                          ProcessSpec spec) {
  return Run(std::move(spec), InPlace(image));
}

ProcessSpec HostileTest::Attack(std::vector<std::string> words) {
  ProcessSpec spec;
  spec.argv = {"attacker"};
  spec.argv.insert(spec.argv.end(), words.begin(), words.end());
  return spec;
}

std::string HostileTest::KillAndRead(Running& running) {
  EXPECT_OK(running.process->Signal(SIGKILL));
  EXPECT_OK(running.process->Wait());
  auto text = sys::ReadAll(running.output.borrow(), kMaxOutput, "output");
  EXPECT_OK(text);
  return text.ok() ? *std::move(text) : "";
}

}  // namespace caisson::testing
