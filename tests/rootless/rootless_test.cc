#include "tests/rootless/rootless_test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"

namespace caisson::testing {
namespace {

constexpr size_t kMaxOutput = 1 << 20;

std::unique_ptr<Launcher> NewLauncher(LauncherIds ids) {
  auto launcher = Launcher::Create({.ids = ids});
  EXPECT_OK(launcher);
  // Nothing can be tested without.
  if (!launcher.ok()) abort();
  return std::make_unique<Launcher>(*std::move(launcher));
}

}  // namespace

ProcessSpec Shell(const std::string& script) {
  ProcessSpec spec;
  spec.argv = {"sh", "-c", script};
  return spec;
}

absl::StatusOr<Outcome> RunIn(Launcher& launcher, RootFsOptions options,
                              ProcessSpec spec) {
  options.mounts = launcher.mounts();
  ASSIGN_OR_RETURN(RootFs root, RootFs::Create(options));
  spec.root = &root;
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2()");
  UniqueFd reader(fds[0]);
  UniqueFd writer(fds[1]);
  spec.out = Stdio::Inherit(writer.borrow());
  spec.err = Stdio::Inherit(writer.borrow());
  ASSIGN_OR_RETURN(Process process, launcher.Start(spec));
  writer.reset();
  Outcome outcome;
  ASSIGN_OR_RETURN(outcome.output,
                   sys::ReadAll(reader.borrow(), kMaxOutput, "output"));
  ASSIGN_OR_RETURN(outcome.status, process.Wait());
  return outcome;
}

void RootlessTest::SetUp() {
  ASSERT_NE(::geteuid(), 0u) << "this test runs as an ordinary user";
  before_ = TakeHostSnapshot();
  root_ = std::make_unique<TestRoot>();
}

void RootlessTest::TearDown() {
  for (auto* launcher : {single_.get(), many_.get()}) {
    if (launcher == nullptr) continue;
    EXPECT_OK(launcher->Shutdown());
  }
  single_.reset();
  many_.reset();
  root_.reset();
  const HostSnapshot after = TakeHostSnapshot();
  EXPECT_EQ(after.mounts, before_.mounts);
  EXPECT_EQ(after.descriptors, before_.descriptors);
  EXPECT_EQ(after.children, before_.children);
}

Launcher& RootlessTest::single() {
  if (single_ == nullptr) single_ = NewLauncher(LauncherIds::kOwn);
  return *single_;
}

Launcher& RootlessTest::many() {
  if (many_ == nullptr) many_ = NewLauncher(LauncherIds::kSubordinate);
  return *many_;
}

std::string RootlessTest::Output(Launcher& launcher,
                                 const RootFsOptions& options,
                                 const std::string& script) {
  auto outcome = RunIn(launcher, options, Shell(script));
  EXPECT_OK(outcome);
  return outcome.ok() ? outcome->output : "";
}

std::string RootlessTest::NewDirectory(const std::string& name) {
  const char* base = ::getenv("TEST_TMPDIR");
  std::string path = (base != nullptr ? base : "/tmp") + ("/" + name);
  EXPECT_EQ(::mkdir(path.c_str(), 0755), 0) << path;
  return path;
}

}  // namespace caisson::testing
