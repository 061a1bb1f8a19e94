#include "tests/support/container_test.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <utility>

#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::testing {
namespace {

constexpr size_t kMaxOutput = 1 << 20;
constexpr int kPatience = 20000;  // ms

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe2");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void UseFor(const Pipe& pipe, ProcessSpec& spec) {
  if (spec.terminal) return;
  spec.out = Stdio::Inherit(pipe.writer.borrow());
  spec.err = Stdio::LikeStdout();
}

}  // namespace

TestRoot* ContainerTest::root_ = nullptr;
Launcher* ContainerTest::launcher_ = nullptr;

void ContainerTest::SetUpTestSuite() {
  root_ = new TestRoot;
  auto launcher = Launcher::Create();
  ASSERT_OK(launcher);
  launcher_ = new Launcher(*std::move(launcher));
}

void ContainerTest::TearDownTestSuite() {
  EXPECT_OK(launcher_->Shutdown());
  delete launcher_;
  delete root_;
}

void ContainerTest::SetUp() { before_ = TakeHostSnapshot(); }

void ContainerTest::TearDown() {
  const auto after = TakeHostSnapshot();
  EXPECT_EQ(after.mounts, before_.mounts);
  EXPECT_EQ(after.descriptors, before_.descriptors);
  EXPECT_EQ(after.children, before_.children);
  EXPECT_EQ(after.cgroups, before_.cgroups);
}

absl::StatusOr<ContainerTest::Outcome> ContainerTest::Run(
    ProcessSpec spec, RootFsOptions options) {
  ASSIGN_OR_RETURN(RootFs root, RootFs::Create(options));
  spec.root = &root;
  ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  UseFor(pipe, spec);
  ASSIGN_OR_RETURN(Process process, launcher_->Start(spec));
  pipe.writer.reset();
  Outcome outcome;
  ASSIGN_OR_RETURN(outcome.output,
                   sys::ReadAll(pipe.reader.borrow(), kMaxOutput, "output"));
  ASSIGN_OR_RETURN(outcome.status, process.Wait());
  return outcome;
}

absl::StatusOr<ContainerTest::Outcome> ContainerTest::Run(ProcessSpec spec) {
  return Run(std::move(spec), root_->Options());
}

absl::StatusOr<ContainerTest::Running> ContainerTest::StartUntilOutput(
    ProcessSpec spec) {
  Running running;
  ASSIGN_OR_RETURN(RootFs root, RootFs::Create(root_->Options()));
  running.root = std::make_unique<RootFs>(std::move(root));
  if (spec.namespaces == nullptr ||
      !spec.namespaces->options().mount.is_joined()) {
    spec.root = running.root.get();
  }
  ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  UseFor(pipe, spec);
  ASSIGN_OR_RETURN(Process process, launcher_->Start(spec));
  running.process = std::make_unique<Process>(std::move(process));
  running.output = std::move(pipe.reader);
  pollfd poll = {running.output.get(), POLLIN, 0};
  if (::poll(&poll, 1, kPatience) != 1 || (poll.revents & POLLIN) == 0) {
    return absl::InternalError("the process said nothing");
  }
  char buffer[256];
  if (::read(running.output.get(), buffer, sizeof(buffer)) <= 0) {
    return absl::InternalError("the process said nothing");
  }
  return running;
}

absl::StatusOr<ContainerTest::Outcome> ContainerTest::Exec(
    const Process& process, ProcessSpec spec) {
  ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  UseFor(pipe, spec);
  ASSIGN_OR_RETURN(Process second, launcher_->Exec(process, spec));
  pipe.writer.reset();
  Outcome outcome;
  ASSIGN_OR_RETURN(outcome.output,
                   sys::ReadAll(pipe.reader.borrow(), kMaxOutput, "output"));
  ASSIGN_OR_RETURN(outcome.status, second.Wait());
  return outcome;
}

ProcessSpec ContainerTest::Shell(const std::string& script) {
  ProcessSpec spec;
  spec.argv = {"sh", "-c", script};
  return spec;
}

std::string ContainerTest::Output(const std::string& script) {
  auto outcome = Run(Shell(script));
  EXPECT_OK(outcome);
  return outcome.ok() ? outcome->output : "";
}

std::string ContainerTest::ExecOutput(const Process& process,
                                      const std::string& script) {
  auto outcome = Exec(process, Shell(script));
  EXPECT_OK(outcome);
  return outcome.ok() ? outcome->output : "";
}

}  // namespace caisson::testing
