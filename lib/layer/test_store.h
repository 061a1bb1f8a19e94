// A temporary layer store for tests, and what they ask about it.
#ifndef CAISSON_LIB_LAYER_TEST_STORE_H_
#define CAISSON_LIB_LAYER_TEST_STORE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_unpacker.h"

namespace caisson::layer {

// Skips a test without root, which layers need (owners, devices, xattrs), or
// fails it if CAISSON_TESTS_MUST_RUN=1. Use as the first line of SetUp.
#define CAISSON_NEED_ROOT()                                               \
  do {                                                                    \
    if (::geteuid() == 0) break;                                          \
    if (::caisson::layer::TestsMustRun()) FAIL() << "needs root";         \
    GTEST_SKIP() << "needs root: layers have owners, devices and xattrs"; \
  } while (false)

using ::caisson::testing::TestsMustRun;

// A directory below /tmp that is removed with the object.
class TempDir final {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override { CAISSON_NEED_ROOT(); }
  // Nothing may be left in staging/, and no descriptor open.
  void TearDown() override;

  std::string StorePath() const { return temp_.path() + "/store"; }
  LayerStoreOptions Options() const {
    LayerStoreOptions options;
    options.path = StorePath();
    options.unpacker = TestUnpacker();
    return options;
  }
  LayerStore OpenStore() const;

  // Writes an archive below the temporary directory and returns its path.
  std::string Write(const std::string& name, absl::string_view bytes) const;
  std::string Write(const std::string& name, const TestArchive& archive) const {
    return Write(name, archive.Tar());
  }

  // Names in a directory of the store, sorted.
  std::vector<std::string> Entries(const std::string& directory) const;
  size_t LayersOnDisk() const { return Entries("layers/overlay").size(); }
  // Runs `body` in a child that has a tmpfs of `bytes` where the store belongs,
  // in a mount namespace of its own.
  void OnTmpfs(uint64_t bytes, const std::function<void()>& body) const;
  // Runs SQL in the store's index.
  void Sql(const std::string& sql) const;

  TempDir temp_;
  // Tests that leave staging behind on purpose clear it.
  bool staging_must_be_empty_ = true;
  int open_fds_ = CountFds();

  static int CountFds();
};

// An image of `count` layers that differ from those of any other `seed`; every
// layer i has the files "layer<i>" and "shared", both with the text <seed><i>.
TestImage SampleImage(const std::string& seed, int count = 2);

// The content of `path` in the topmost of `layers` that has it; "" if none has.
std::string ReadInLayers(const LayerSet& layers, const std::string& path);

std::string ReadFile(const std::string& path);

// Runs `body` in a forked child, which exits with 0 if it returns true and no
// test assertion failed in it. Returns the wait status.
int InChild(const std::function<bool()>& body);
// As above; adds a failure unless the child exits with 0.
void ExpectInChild(const std::function<bool()>& body);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_STORE_H_
