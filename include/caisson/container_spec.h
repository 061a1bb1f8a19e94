// What a Container is made from and how it shall run: the values that
// ContainerStore::Create() takes and remembers.
//
//   caisson::ContainerSpec spec = {.image = "redis:7", .name = "cache"};
//   spec.ports = {{.host_port = 6379, .container_port = 6379}};
//   spec.volumes = {"cache-data:/data"};
//   spec.limits.memory_max = 256 << 20;
//   spec.restart.kind = caisson::RestartPolicy::Kind::kUnlessStopped;
//
// Everything can be written down, so nothing here is a descriptor or a
// function; where a struct of RootFsOptions has those, there is the text that
// notation.h parses. Plain values: thread-compatible.
#ifndef CAISSON_CONTAINER_SPEC_H_
#define CAISSON_CONTAINER_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "caisson/cgroup_limits.h"
#include "caisson/container_logs.h"
#include "caisson/container_policies.h"
#include "caisson/hosts_entry.h"
#include "caisson/id_range.h"
#include "caisson/namespace.h"
#include "caisson/net_endpoint.h"
#include "caisson/process.h"

namespace caisson {

struct ContainerSpec {
  // ---- What it is made from: one of the three ------------------------------
  // A reference of ContainerStoreOptions::layers; what the container gets is
  // the image that it names when the container is created, and which cannot be
  // removed until the container is.
  std::string image;
  // A directory of the host, absolute: the root itself, written to in place.
  std::string rootfs;
  // A directory with a config.json, which says what is run and in what:
  // bundle.h. Of what follows only `name`, `labels`, `open_stdin`,
  // `stdin_once`, limits (which add to the document's) and "Its life" may be
  // set then.
  std::string bundle;

  // Empty: one is made up ("brisk_brunel"). A letter or digit, then 1 to 62
  // letters, digits, "_", "." and "-".
  std::string name;
  // Beside those of the image, which they replace.
  std::map<std::string, std::string> labels;

  // ---- The program ---------------------------------------------------------
  // Instead of the image's; the image's command is left out then.
  std::optional<std::vector<std::string>> entrypoint;
  // Instead of the image's command.
  std::vector<std::string> command;
  std::vector<std::string> env;  // beside the image's, which they replace
  std::string working_dir;       // empty: the image's, or "/"; made if missing
  std::string user;              // ProcessSpec::user; empty: the image's
  std::vector<std::string> additional_groups;
  std::vector<ResourceLimit> ulimits;
  std::optional<int> oom_score_adj;
  bool init = false;  // ProcessSpec::init

  // ---- The streams ---------------------------------------------------------
  bool terminal = false;
  TerminalSize terminal_size;  // of each run, until somebody changes it
  // Standard input stays open for those who attach; otherwise it is /dev/null.
  bool open_stdin = false;
  // It is closed when the first who had attached to it closes it.
  bool stdin_once = false;

  // ---- Files ---------------------------------------------------------------
  bool read_only = false;
  std::vector<std::string> volumes;  // ParseVolumeMount()
  std::vector<std::string> tmpfs;    // ParseTmpfsMount()
  std::vector<std::string> devices;  // ParseDeviceNode()
  uint64_t shm_size_bytes = uint64_t{64} << 20;

  // ---- Network -------------------------------------------------------------
  std::string hostname;  // empty: the first 12 digits of the id
  std::string domainname;
  // "none", "host" (a weakening), "container:" and the name or id of one that
  // runs, or a bridge network, which is opened with uplink forwarding.
  std::string network = "bridge";
  std::vector<std::string> aliases;  // beside the name
  std::string address;               // empty: a free one
  std::string mac;                   // empty: random
  std::vector<PortMapping> ports;
  std::vector<HostsEntry> extra_hosts;
  std::optional<std::string> resolv_conf;  // RootFsOptions::resolv_conf
  std::vector<Sysctl> sysctls;

  // ---- Limits --------------------------------------------------------------
  // `devices`: absent means those of every container, and the ones above.
  CgroupLimits limits;
  // The group is made in this one, with the id as its name.
  std::string cgroup_parent = "/caisson";

  // ---- Security ------------------------------------------------------------
  // Root in the container is `outside` on the host: needs Linux 6.15.
  std::optional<IdRange> ids;
  std::vector<std::string> drop_capabilities;
  std::string apparmor_profile;
  std::string selinux_label;
  // Weakenings; see SecurityOptions.
  std::vector<std::string> unsafe_add_capabilities;
  bool unsafe_new_privileges = false;
  bool unsafe_seccomp_unconfined = false;

  // ---- Its life ------------------------------------------------------------
  std::string stop_signal;  // "SIGINT", "15"; empty: the image's, or SIGTERM
  absl::Duration stop_timeout = absl::Seconds(10);
  RestartPolicy restart;
  // Absent: the image's; one whose test is "NONE" takes that away.
  std::optional<HealthCheck> health;
  bool logged = true;  // what it writes can be read with Container::Logs()
  ContainerLogOptions logs;
  // Removed, with its anonymous volumes, when it has ended and is not started
  // again.
  bool auto_remove = false;
};

}  // namespace caisson

#endif  // CAISSON_CONTAINER_SPEC_H_
