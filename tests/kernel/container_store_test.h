// A container store in a directory of the test's own, for tests of containers
// with their keepers.
#ifndef CAISSON_TESTS_KERNEL_CONTAINER_STORE_TEST_H_
#define CAISSON_TESTS_KERNEL_CONTAINER_STORE_TEST_H_

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"
#include "tests/support/container_test.h"

namespace caisson {

inline constexpr absl::Duration kPatience = absl::Seconds(30);
inline constexpr char kForever[] =
    "trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done";

inline std::string ReadAll(const UniqueFd& fd) {
  return sys::ReadAll(fd.borrow(), 1 << 20, "a stream").value_or("");
}

// Whether it becomes true in time.
template <typename Condition>
bool Await(Condition condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

class ContainerStoreTest : public testing::ContainerTest {
 protected:
  void SetUp() override {
    directory_ = absl::StrCat(absl::StripSuffix(::testing::TempDir(), "/"),
                              "/container-", ::getpid());
    std::filesystem::create_directories(directory_);
    testing::ContainerTest::SetUp();
    options_ = {.path = directory_ + "/containers",
                .layers = directory_ + "/layers",
                .volumes = directory_ + "/volumes",
                .network_state = directory_ + "/net"};
    ASSERT_OK_AND_ASSIGN(ContainerStore store, ContainerStore::Open(options_));
    store_.emplace(std::move(store));
  }
  void TearDown() override {
    ASSERT_OK_AND_ASSIGN(const std::vector<ContainerInfo> left,
                         store_->List({.all = true}));
    for (const ContainerInfo& info : left) {
      const auto container = store_->Find(info.id);
      if (!container.ok()) continue;  // removed itself meanwhile
      EXPECT_OK(container->Remove({.force = true, .volumes = true}));
    }
    const std::string layers = options_.layers + "/kept";
    if (std::filesystem::exists(layers)) {
      EXPECT_TRUE(std::filesystem::is_empty(layers));
    }
    EXPECT_TRUE(std::filesystem::is_empty(options_.path + "/names"));
    store_.reset();
    testing::ContainerTest::TearDown();
    const size_t slash = directory_.rfind('/');
    ASSERT_OK_AND_ASSIGN(
        const UniqueFd above,
        sys::Open(directory_.substr(0, slash), O_RDONLY | O_DIRECTORY));
    EXPECT_OK(sys::RemoveTree(above.borrow(), directory_.substr(slash + 1)));
  }

  // In a root of its own, which is written to in place.
  ContainerSpec Spec(const std::string& script) {
    ContainerSpec spec;
    spec.rootfs = NewRoot();
    spec.command = {"sh", "-c", script};
    spec.network = "none";
    spec.cgroup_parent = Parent();
    return spec;
  }
  static std::string Parent() {
    return absl::StrCat("/caisson-test-", ::getpid());
  }
  std::string NewRoot() {
    const std::string root = absl::StrCat(directory_, "/root", ++roots_);
    std::filesystem::copy(root_->path(), root,
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::copy_symlinks);
    return root;
  }
  // "busybox", of the test root.
  void ImportImage() {
    const std::string tar = directory_ + "/root.tar";
    ASSERT_EQ(
        ::system(
            absl::StrCat("tar -C ", root_->path(), " -cf ", tar, " .").c_str()),
        0);
    ASSERT_OK_AND_ASSIGN(LayerStore layers,
                         LayerStore::Open({.path = options_.layers}));
    CommitOptions options = {.name = "busybox"};
    options.changes.env = {"PATH=/bin", "FROM=image"};
    options.changes.cmd = {{"sh", "-c", "echo $FROM $WHO; pwd"}};
    options.changes.working_dir = "/made";
    options.changes.stop_signal = "SIGUSR1";
    options.changes.volumes = {"/of/image"};
    options.changes.labels = {{"tier", "image"}, {"kept", "yes"}};
    ASSERT_OK(layers.ImportRootFs(tar, options));
  }

  absl::StatusOr<Container> Started(const ContainerSpec& spec) {
    auto container = store_->Create(spec);
    if (!container.ok()) return container;
    if (const absl::Status status = container->Start(); !status.ok()) {
      return status;
    }
    return container;
  }
  // Runs until its first output is in the log.
  absl::StatusOr<Container> Ready(const ContainerSpec& spec) {
    auto container = Started(spec);
    if (container.ok()) {
      EXPECT_TRUE(Await([&] { return !LogText(*container).empty(); }));
    }
    return container;
  }

  static std::string LogText(const Container& container,
                             ContainerLogReadOptions options = {}) {
    auto logs = container.Logs(options);
    if (!logs.ok()) return logs.status().ToString();
    std::string text;
    while (!logs->at_end()) {
      const auto entries = logs->Wait(kPatience);
      if (!entries.ok() || (entries->empty() && !logs->at_end())) break;
      for (const ContainerLogEntry& entry : *entries) text += entry.text;
    }
    return text;
  }

  struct Ran {
    int code = -1;
    std::string out;
    std::string err;
  };
  static absl::StatusOr<Ran> Exec(const Container& container,
                                  ContainerExecSpec spec) {
    spec.out = Stdio::Pipe();
    spec.err = Stdio::Pipe();
    auto exec = container.Exec(spec);
    if (!exec.ok()) return exec.status();
    const ContainerStreams streams = exec->TakeStreams();
    Ran ran;
    ran.out = ReadAll(streams.out);
    ran.err = ReadAll(streams.err);
    const auto exit = exec->Wait(absl::Now() + kPatience);
    if (!exit.ok()) return exit.status();
    ran.code = exit->shell_code();
    return ran;
  }
  static absl::StatusOr<Ran> Sh(const Container& container,
                                const std::string& script) {
    return Exec(container, {.argv = {"sh", "-c", script}});
  }

  static ContainerInfo Info(const Container& container) {
    auto info = container.Inspect();
    EXPECT_OK(info);
    return info.ok() ? *std::move(info) : ContainerInfo();
  }
  static bool Exists(pid_t pid) {
    return ::kill(pid, 0) == 0 || errno != ESRCH;
  }

  std::vector<std::string> Actions(const std::string& id) {
    std::vector<std::string> actions;
    auto events = store_->Events(
        {.since = absl::UnixEpoch(), .until = absl::Now(), .containers = {id}});
    EXPECT_OK(events);
    if (!events.ok()) return actions;
    while (!events->at_end()) {
      const auto some = events->Wait(absl::Seconds(1));
      EXPECT_OK(some);
      if (!some.ok()) break;
      for (const ContainerEvent& event : *some) actions.push_back(event.action);
    }
    return actions;
  }

  std::string directory_;
  ContainerStoreOptions options_;
  std::optional<ContainerStore> store_;
  int roots_ = 0;
};

}  // namespace caisson

#endif  // CAISSON_TESTS_KERNEL_CONTAINER_STORE_TEST_H_
