// Runs shell scripts inside of a root (tests only).
#ifndef CAISSON_LIB_ROOTFS_TEST_CONTAINER_H_
#define CAISSON_LIB_ROOTFS_TEST_CONTAINER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/root_fs.h"
#include "caisson/unique_fd.h"
#include "gtest/gtest.h"
#include "lib/launcher/session.h"
#include "lib/rootfs/built_root.h"

namespace caisson::rootfs {

// What a script did.
struct ScriptResult {
  int exit_code = -1;
  std::string output;  // both streams

  // The value of the line "name=value"; "(none)" if there is none.
  std::string Value(const std::string& name) const;
};

struct ScriptOptions {
  bool isolated_launcher = true;
  BorrowedFd user_namespace;
  bool new_pid_namespace = true;
  bool new_net_namespace = true;
  bool new_ipc_namespace = true;
  bool own_cgroup2 = false;  // takes the current group for that
  std::vector<V1Group> v1_groups;
};

// A user namespace that maps 65536 ids from 0 to `first`.
absl::StatusOr<UniqueFd> NewUserNamespace(const launcher::Session& session,
                                          uint32_t first);

// A directory for one test with directories for layers in it, and a launcher.
// The destructor checks that nothing is left: no descriptor, no mount.
class RootFsTestBase : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  void SetUp() override;
  void TearDown() override;

  // Skips, or fails where nothing may be skipped, on older kernels.
  void NeedKernel(int major, int minor);

  const std::string& dir() const { return dir_; }
  launcher::Session& session() { return *session_; }

  // Creates "layers/<name>" with the entries: "etc/": a directory; "a -> b": a
  // symbolic link; "etc/x=text": a file. Parents are created.
  std::string MakeLayer(const std::string& name,
                        const std::vector<std::string>& entries);
  // A layer with a shell, /proc, /sys, /dev, /etc and /tmp.
  std::string BaseLayer();
  // That layer with upper and work directories over it, and further layers on
  // top of it.
  RootFsOptions BaseOptions(const std::vector<std::string>& upper_layers = {});
  // Adds the shell to a layer.
  void AddShell(const std::string& layer);
  // An O_PATH descriptor that lives as long as the test.
  BorrowedFd Hold(const std::string& path);
  // The mounts that must be there after every start, from now on.
  void RememberMounts();
  // Empty upper and work directories for `options`.
  void UseDirectories(RootFsOptions& options);

  absl::StatusOr<ScriptResult> Run(BuiltRoot& root, const std::string& script,
                                   const ScriptOptions& options = {});
  // Builds, runs; failures are fatal to the test.
  ScriptResult RunWith(const RootFsOptions& options, const std::string& script,
                       const ScriptOptions& script_options = {});

  virtual KernelLimits limits() const { return {}; }

 private:
  void Need(bool condition, const std::string& what);

  std::string dir_;
  std::unique_ptr<launcher::Session> session_;
  std::vector<UniqueFd> held_;
  std::string mounts_before_;
  size_t descriptors_before_ = 0;
};

bool IsKernelAtLeast(int major, int minor);
// This kernel and, as far as one can act like them, older ones.
std::vector<KernelLimits> AllKernels();
std::string KernelName(const ::testing::TestParamInfo<KernelLimits>& info);

std::string ReadHostFile(const std::string& path);
size_t OpenDescriptors();

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_TEST_CONTAINER_H_
