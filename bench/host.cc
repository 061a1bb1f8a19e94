#include "bench/host.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace bench {
namespace {

void WaitForSuccess(const caisson::Process& process) {
  const auto status = Check(process.Wait());
  if (status.success()) return;
  std::cerr << program_invocation_short_name << ": /true " << status.ToString()
            << "\n";
  exit(1);
}

}  // namespace

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << program_invocation_short_name << ": " << status.message()
            << "\n";
  exit(1);
}

uint64_t Now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000u +
         static_cast<uint64_t>(time.tv_nsec);
}

void Container::Finish() {
  WaitForSuccess(process);
  Check(cgroup.Destroy());
  if (endpoint) Check(endpoint->Destroy());
}

void Container::Kill() {
  Check(process.Destroy());
  Check(cgroup.Destroy());
  if (endpoint) Check(endpoint->Destroy());
}

Host::Host(const std::string& root, bool net)
    : root_(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)),
      launcher_(Check(caisson::Launcher::Create())),
      cgroups_(Check(caisson::CgroupParent::Open(
          {.path = absl::StrCat("/caisson-bench-", getpid())}))),
      policy_(Check(caisson::SecurityPolicy::Create({}))) {
  if (net) {
    state_dir_ = absl::StrCat("/run/caisson-bench-", getpid());
    network_ = Check(
        caisson::Network::Open({.name = "bench", .state_dir = state_dir_}));
  }
}

Host::~Host() {
  network_.reset();
  if (state_dir_.empty()) return;
  // The library leaves the lock of the directory; this one has no other user.
  unlink(absl::StrCat(state_dir_, "/caisson-net.lock").c_str());
  rmdir(state_dir_.c_str());
}

Container Host::Start(const std::string& program, const std::string& name) {
  std::optional<caisson::NetEndpoint> endpoint;
  if (network_) {
    endpoint = Check(caisson::NetEndpoint::Create(
        *network_, Check(launcher_.NewNetNamespace()), {.name = name}));
  }
  caisson::RootFsOptions options;
  options.layers = {root_.borrow()};
  options.writes = caisson::RootWrites::kTmpfs;
  options.hostname = "bench";
  options.resolv_conf = "";
  auto root = Check(caisson::RootFs::Create(options));
  auto cgroup = Check(cgroups_.Create(
      {.name = name, .limits = {.memory_max = 256 << 20, .pids_max = 64}}));
  caisson::ProcessSpec spec;
  spec.argv = {program};
  spec.root = &root;
  spec.cgroup = &cgroup;
  spec.security = &policy_;
  spec.network = endpoint ? &*endpoint : nullptr;
  auto process = Check(launcher_.Start(spec));
  return {.endpoint = std::move(endpoint),
          .root = std::move(root),
          .cgroup = std::move(cgroup),
          .process = std::move(process)};
}

void Host::Exec(const Container& container) {
  caisson::ProcessSpec spec;
  spec.argv = {"/true"};
  WaitForSuccess(Check(launcher_.Exec(container.process, spec)));
}

}  // namespace bench
