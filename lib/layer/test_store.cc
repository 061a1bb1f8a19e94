#include "lib/layer/test_store.h"

#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {

namespace fs = std::filesystem;

TempDir::TempDir() {
  char path[] = "/tmp/caisson-test-XXXXXX";
  EXPECT_NE(::mkdtemp(path), nullptr);
  path_ = path;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

int StoreTest::CountFds() {
  return static_cast<int>(
      std::distance(fs::directory_iterator("/proc/self/fd"), {}));
}

void StoreTest::TearDown() {
  if (IsSkipped()) return;
  EXPECT_EQ(CountFds(), open_fds_) << "descriptors leaked";
  if (staging_must_be_empty_ && fs::exists(StorePath() + "/staging")) {
    EXPECT_EQ(Entries("staging"), std::vector<std::string>());
  }
}

LayerStore StoreTest::OpenStore() const {
  auto store = LayerStore::Open(Options());
  EXPECT_OK(store);
  return *std::move(store);
}

std::string StoreTest::Write(const std::string& name,
                             absl::string_view bytes) const {
  const std::string path = absl::StrCat(temp_.path(), "/", name);
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

std::vector<std::string> StoreTest::Entries(
    const std::string& directory) const {
  std::vector<std::string> names;
  for (const auto& entry :
       fs::directory_iterator(absl::StrCat(StorePath(), "/", directory))) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void StoreTest::OnTmpfs(uint64_t bytes,
                        const std::function<void()>& body) const {
  if (!fs::exists(StorePath())) {
    ASSERT_EQ(::mkdir(StorePath().c_str(), 0700), 0);
  }
  ExpectInChild([&] {
    EXPECT_EQ(::unshare(CLONE_NEWNS), 0);
    EXPECT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    EXPECT_EQ(::mount("tmpfs", StorePath().c_str(), "tmpfs", 0,
                      absl::StrCat("mode=0700,size=", bytes).c_str()),
              0);
    body();
    return true;
  });
}

void StoreTest::Sql(const std::string& sql) const {
  sqlite3* db = nullptr;
  ASSERT_EQ(::sqlite3_open((StorePath() + "/index.db").c_str(), &db),
            SQLITE_OK);
  EXPECT_EQ(::sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr),
            SQLITE_OK)
      << ::sqlite3_errmsg(db);
  ::sqlite3_close(db);
}

TestImage SampleImage(const std::string& seed, int count) {
  TestImage image;
  for (int i = 0; i < count; ++i) {
    const std::string text = absl::StrCat(seed, i);
    image.layers.push_back(TestTar()
                               .Dir("./")
                               .File(absl::StrCat("layer", i), text)
                               .File("shared", text)
                               .Finish());
  }
  image.names = {absl::StrCat(seed, ":1")};
  image.env = absl::StrCat("SEED=", seed);
  return image;
}

std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text;
  char buffer[1 << 16];
  while (stream.read(buffer, sizeof(buffer)) || stream.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(stream.gcount()));
  }
  return text;
}

std::string ReadInLayers(const LayerSet& layers, const std::string& path) {
  for (const BorrowedFd dir : layers.dirs()) {
    const std::string full =
        absl::StrCat("/proc/self/fd/", dir.get(), "/", path);
    if (::access(full.c_str(), F_OK) == 0) return ReadFile(full);
  }
  return "";
}

int InChild(const std::function<bool()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool good = body();
    ::_exit(good && !::testing::Test::HasFailure() ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

void ExpectInChild(const std::function<bool()>& body) {
  const int status = InChild(body);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace caisson::layer
