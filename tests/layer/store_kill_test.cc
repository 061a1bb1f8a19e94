// What kill -9 leaves of a LayerStore, at random system calls of an import, a
// commit, a removal and a collection.
//
//   CAISSON_TEST_SEED=N repeats a run that printed N
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_tar.h"
#include "tests/layer/store_state.h"

namespace caisson::layer {
namespace {

using Change = std::function<absl::Status(LayerStore&)>;

constexpr int kKills = 300;

// Everybody who was started, threads and helpers of a killed process included.
void WaitForAll() {
  while (::waitpid(-1, nullptr, __WALL) > 0 || errno == EINTR) {
  }
}

class StoreKillTest : public StoreTest {
 protected:
  // Makes the change in a process of its own, which is killed at the stop of
  // that number; it stops before and after each system call. Answers how many
  // stops there were if it came to its end.
  std::optional<size_t> Kill(const Change& change, size_t at) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::raise(SIGSTOP);
      LayerStoreOptions options = Options();
      options.recover = false;
      options.import_threads = 2;
      auto store = LayerStore::Open(options);
      EXPECT_OK(store);
      EXPECT_OK(change(*store));
      ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(::ptrace(PTRACE_SETOPTIONS, child, nullptr,
                       PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD),
              0);
    size_t stops = 0;
    for (long signal = 0;;) {
      if (stops == at) ::kill(child, SIGKILL);
      ::ptrace(PTRACE_SYSCALL, child, nullptr, signal);
      EXPECT_EQ(::waitpid(child, &status, __WALL), child);
      EXPECT_TRUE(!WIFEXITED(status) || WEXITSTATUS(status) == 0);
      if (!WIFSTOPPED(status)) break;
      const bool at_call = WSTOPSIG(status) == (SIGTRAP | 0x80);
      signal = at_call ? 0 : WSTOPSIG(status);
      if (at_call) ++stops;
    }
    WaitForAll();
    if (WIFSIGNALED(status)) return std::nullopt;
    return stops;
  }

  static TestImage Named(TestImage image, const std::string& name) {
    image.names.clear();
    if (!name.empty()) image.names.push_back(name);
    return image;
  }

  // Two layers of "base" and one of its own.
  static TestImage Above(const std::string& seed, const std::string& name) {
    TestImage image = SampleImage("base", 2);
    image.layers.push_back(TestTar()
                               .Dir("./")
                               .File(seed, std::string(9000, 'x'))
                               .Hardlink("same", seed)
                               .Symlink("link", seed)
                               .File(".wh.layer0", "")
                               .Finish());
    image.env = absl::StrCat("SEED=", seed);
    return Named(image, name);
  }

  absl::Status Import(LayerStore& store, const TestImage& image) {
    const std::string tar = OciArchive({image}).Tar();
    const UniqueFd archive = MemFile(tar);
    return store.Import(archive.borrow()).status();
  }

  absl::Status ImportNew(LayerStore& store) {
    return Import(store, Above("new", "new:1"));
  }

  // What every change starts from.
  void Restore() {
    LayerStore store = OpenStore();
    for (const char* name : {"new:1", "committed:1"}) {
      const absl::Status status = store.Remove(name);
      EXPECT_TRUE(status.ok() || absl::IsNotFound(status)) << status;
    }
    EXPECT_OK(Import(store, Above("victim", "victim:1")));
    EXPECT_OK(Import(store, Above("nameless", "")));
  }

  void MakeStore() {
    LayerStore store = OpenStore();
    ASSERT_OK(Import(store, SampleImage("base", 3)));
    ASSERT_OK_AND_ASSIGN(const Image image, store.Find("base:1"));
    ASSERT_OK_AND_ASSIGN(const LayerSet lower, store.OpenLayers(image));
    ASSERT_OK_AND_ASSIGN(WritableLayer top,
                         store.CreateWritableLayer({.lower = &lower}));
    const int upper = top.upper().get();
    ASSERT_EQ(::mkdirat(upper, "made", 0755), 0);
    const UniqueFd file(
        ::openat(upper, "made/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    ASSERT_EQ(::write(file.get(), "text", 4), 4);
    ASSERT_EQ(::mknodat(upper, "shared", S_IFCHR, makedev(0, 0)), 0);
    ASSERT_OK(top.Keep("changes"));
    Restore();
  }

  // Without Recover.
  std::string State() {
    LayerStoreOptions options = Options();
    options.recover = false;
    const auto store = LayerStore::Open(options);
    EXPECT_OK(store);
    auto state = DescribeStore(*store, StorePath());
    EXPECT_OK(state);
    return state.ok() ? *state : "";
  }

  absl::Status Commit(LayerStore& store) {
    ASSIGN_OR_RETURN(const Image base, store.Find("base:1"));
    ASSIGN_OR_RETURN(const UniqueFd upper, store.OpenUpper("changes"));
    CommitOptions options;
    options.name = "committed:1";
    options.created = absl::UnixEpoch();
    return store.Commit(base, upper.borrow(), options).status();
  }

  static absl::Status Collect(LayerStore& store) {
    RETURN_IF_ERROR(store.Prune().status());
    return store.Recover().status();
  }
};

// A change that is killed again and again, from the same start.
struct Killed {
  const char* name;
  Change change;
  size_t stops = 0;        // of the whole change
  std::string after = {};  // what is seen when it is done
};

TEST_F(StoreKillTest, AtRandomSystemCalls) {
  const char* given = ::getenv("CAISSON_TEST_SEED");
  const uint64_t seed = given != nullptr ? ::strtoull(given, nullptr, 10)
                                         : std::random_device()();
  std::cout << "CAISSON_TEST_SEED=" << seed << std::endl;
  // In memory: what a disk forgets is not the question here.
  OnTmpfs(64 << 20, [&] {
    EXPECT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    MakeStore();
    const std::string before = State();
    Killed kinds[] = {
        {"import", [this](auto& store) { return ImportNew(store); }},
        {"commit", [this](auto& store) { return Commit(store); }},
        {"remove", [](auto& store) { return store.Remove("victim:1"); }},
        {"collect", Collect}};
    for (Killed& kind : kinds) {
      kind.stops = Kill(kind.change, SIZE_MAX).value_or(0);
      EXPECT_GT(kind.stops, 100u) << kind.name;
      kind.after = State();
      EXPECT_NE(kind.after, before) << kind.name;
      Restore();
      EXPECT_EQ(State(), before) << kind.name;
    }
    std::mt19937_64 random(seed);
    for (int kills = 0; kills < kKills && !HasFailure();) {
      const Killed& kind = kinds[random() % std::size(kinds)];
      const bool collect = &kind == &kinds[3];
      // So that there is something to collect.
      if (collect) Kill(kinds[0].change, random() % kinds[0].stops);
      const std::string start = State();
      const size_t at = random() % kind.stops;
      if (!Kill(kind.change, at).has_value()) ++kills;
      if (start != before) {  // the import before it had come so far
        EXPECT_EQ(start, kinds[0].after);
        LayerStore store = OpenStore();
        EXPECT_OK(store.Remove("new:1"));
      }
      EXPECT_EQ(CheckStore(StorePath(), {before, kind.after}), "")
          << kind.name << " killed at stop " << at << " of " << kind.stops;
      Restore();
    }
  });
}

}  // namespace
}  // namespace caisson::layer
