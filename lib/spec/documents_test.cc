#include "lib/spec/documents.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/spec/runtime_config.h"

namespace caisson::spec {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(StateJsonTest, IsThatOfTheSpecification) {
  EXPECT_EQ(StateJson({.id = "web",
                       .status = "running",
                       .pid = 4422,
                       .bundle = "/containers/web",
                       .annotations = {{"key", "va\"lue"}}}),
            R"({
  "ociVersion": "1.2.0",
  "id": "web",
  "status": "running",
  "pid": 4422,
  "bundle": "/containers/web",
  "annotations": {
    "key": "va\"lue"
  }
}
)");
  EXPECT_EQ(
      StateJson({.id = "x", .status = "stopped", .pid = -1, .bundle = "/"}),
      R"({
  "ociVersion": "1.2.0",
  "id": "x",
  "status": "stopped",
  "pid": 0,
  "bundle": "/",
  "annotations": {}
}
)");
}

TEST(SeccompProcessJsonTest, IsThatOfTheSpecification) {
  EXPECT_EQ(
      SeccompProcessJson(
          4422, "MKNOD=/dev/null",
          {.id = "web", .status = "creating", .pid = 4422, .bundle = "/b"}),
      R"({
  "ociVersion": "1.2.0",
  "fds": [
    "seccompFd"
  ],
  "pid": 4422,
  "metadata": "MKNOD=/dev/null",
  "state": {
    "ociVersion": "1.2.0",
    "id": "web",
    "status": "creating",
    "pid": 4422,
    "bundle": "/b",
    "annotations": {}
  }
}
)");
}

TEST(FeaturesJsonTest, HasTheNamesOfTheSpecification) {
  EXPECT_EQ(FeaturesJson({.mount_options = {"bind", "ro"},
                          .capabilities = {"CAP_CHOWN"},
                          .seccomp_architectures = {"SCMP_ARCH_X86_64"},
                          .annotations = {{"version", "1"}}}),
            R"({
  "ociVersionMin": "1.0.0",
  "ociVersionMax": "1.3.0",
  "hooks": [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop"
  ],
  "mountOptions": [
    "bind",
    "ro"
  ],
  "linux": {
    "namespaces": [
      "cgroup",
      "ipc",
      "mount",
      "network",
      "pid",
      "time",
      "user",
      "uts"
    ],
    "capabilities": [
      "CAP_CHOWN"
    ],
    "cgroup": {
      "v1": true,
      "v2": true,
      "systemd": false,
      "systemdUser": false,
      "rdma": true
    },
    "seccomp": {
      "enabled": true,
      "actions": [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP"
      ],
      "operators": [
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE"
      ],
      "archs": [
        "SCMP_ARCH_X86_64"
      ],
      "knownFlags": [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
      ],
      "supportedFlags": [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
      ]
    },
    "apparmor": {
      "enabled": true
    },
    "selinux": {
      "enabled": true
    },
    "memoryPolicy": {
      "modes": [
        "MPOL_BIND",
        "MPOL_DEFAULT",
        "MPOL_INTERLEAVE",
        "MPOL_LOCAL",
        "MPOL_PREFERRED",
        "MPOL_PREFERRED_MANY",
        "MPOL_WEIGHTED_INTERLEAVE"
      ],
      "flags": [
        "MPOL_F_NUMA_BALANCING",
        "MPOL_F_RELATIVE_NODES",
        "MPOL_F_STATIC_NODES"
      ]
    },
    "intelRdt": {
      "enabled": true,
      "schemata": true,
      "monitoring": true
    },
    "mountExtensions": {
      "idmap": {
        "enabled": true
      }
    },
    "netDevices": {
      "enabled": true
    }
  },
  "annotations": {
    "version": "1"
  }
}
)");
}

TEST(DefaultConfigJsonTest, CanBeRead) {
  ASSERT_OK_AND_ASSIGN(
      const RuntimeConfig config,
      ParseRuntimeConfig(DefaultConfigJson({.capabilities = {"CAP_KILL"},
                                            .masked_paths = {"/proc/keys"},
                                            .readonly_paths = {"/proc/sys"}})));
  EXPECT_EQ(config.root.path, "rootfs");
  EXPECT_TRUE(config.root.readonly);
  EXPECT_TRUE(config.process->no_new_privileges);
  EXPECT_THAT(config.process->args, ElementsAre("sh"));
  EXPECT_THAT(config.process->capabilities->bounding, ElementsAre("CAP_KILL"));
  EXPECT_THAT(config.process->capabilities->ambient, IsEmpty());
  EXPECT_THAT(config.linux_config.masked_paths, ElementsAre("/proc/keys"));
  EXPECT_THAT(config.linux_config.readonly_paths, ElementsAre("/proc/sys"));
  EXPECT_EQ(config.linux_config.namespaces.size(), 6u);
  EXPECT_EQ(config.mounts.size(), 7u);
  EXPECT_EQ(config.linux_config.resources->devices.size(), 1u);
  EXPECT_THAT(config.linux_config.uid_mappings, IsEmpty());
}

TEST(DefaultConfigJsonTest, WithoutPrivilegesHasAUserNamespace) {
  Defaults defaults;
  defaults.rootless = Defaults::Owner{1000, 100};
  ASSERT_OK_AND_ASSIGN(const RuntimeConfig config,
                       ParseRuntimeConfig(DefaultConfigJson(defaults)));
  EXPECT_EQ(config.linux_config.namespaces.back().type, "user");
  EXPECT_EQ(config.linux_config.uid_mappings[0].host_id, 1000u);
  EXPECT_EQ(config.linux_config.gid_mappings[0].host_id, 100u);
  EXPECT_FALSE(config.linux_config.resources.has_value());
}

}  // namespace
}  // namespace caisson::spec
