// config.json of the OCI runtime specification (versions 1.x, Linux), typed.
//
//   ASSIGN_OR_RETURN(RuntimeConfig config, ParseRuntimeConfig(text));
//   if (config.process) Run(config.process->args);
//
// The structs are the document: names are those of the specification in this
// code's spelling, a std::optional is a field whose absence means something,
// and nothing is interpreted beyond its type, its range and its words. What an
// option of a mount or a capability's name means is decided where it is used.
//
// Unknown fields are ignored, as config.md ("Extensibility") wants it, and null
// counts as absent. A field of another type, out of range, with a word that the
// specification does not have, missing where it is required, or there twice is
// INVALID_ARGUMENT naming it: "config.json: linux.resources.memory.limit:
// expected an integer, found string". So is a document that is too long, too
// deep or of a version other than 1.
//
// Functions only: thread-safe. Sources: config.md, config-linux.md.
#ifndef CAISSON_LIB_SPEC_RUNTIME_CONFIG_H_
#define CAISSON_LIB_SPEC_RUNTIME_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson::spec {

// The versions that are understood, for the features document.
inline constexpr char kMinVersion[] = "1.0.0";
inline constexpr char kMaxVersion[] = "1.3.0";

// Real ones have some ten kilobytes; an environment may have two megabytes.
inline constexpr size_t kMaxDocumentBytes = 4 << 20;

struct IdMapping {
  uint32_t container_id = 0;
  uint32_t host_id = 0;
  uint32_t size = 0;
};

// ---- process ---------------------------------------------------------------

struct ConsoleSize {
  uint16_t height = 0;
  uint16_t width = 0;
};

struct User {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::optional<uint32_t> umask;
  std::vector<uint32_t> additional_gids;
};

struct Capabilities {
  std::vector<std::string> bounding;
  std::vector<std::string> effective;
  std::vector<std::string> permitted;
  std::vector<std::string> inheritable;
  std::vector<std::string> ambient;
};

struct Rlimit {
  std::string type;  // "RLIMIT_NOFILE"
  uint64_t soft = 0;
  uint64_t hard = 0;
};

struct Scheduler {
  std::string policy;  // "SCHED_FIFO"
  int32_t nice = 0;
  int32_t priority = 0;
  std::vector<std::string> flags;  // "SCHED_FLAG_RESET_ON_FORK"
  uint64_t runtime = 0;            // nanoseconds
  uint64_t deadline = 0;
  uint64_t period = 0;
};

struct IoPriority {
  std::string io_class;  // "IOPRIO_CLASS_BE"
  int32_t priority = 0;
};

// Lists of processors ("0-3,7"), of a process that joins a container.
struct ExecCpuAffinity {
  std::string initial;
  std::string final;
};

struct Process {
  bool terminal = false;
  std::optional<ConsoleSize> console_size;  // ignored without a terminal
  User user;
  std::vector<std::string> args;  // at least one
  std::vector<std::string> env;
  std::string cwd;  // absolute
  std::optional<Capabilities> capabilities;
  std::vector<Rlimit> rlimits;
  std::string apparmor_profile;
  std::string selinux_label;
  std::optional<int32_t> oom_score_adj;
  std::optional<Scheduler> scheduler;
  std::optional<IoPriority> io_priority;
  std::optional<ExecCpuAffinity> exec_cpu_affinity;
  bool no_new_privileges = false;
};

// ---- file systems ----------------------------------------------------------

struct Root {
  std::string path;  // relative to the bundle, or absolute
  bool readonly = false;
};

struct Mount {
  std::string destination;
  std::string type;
  std::string source;
  std::vector<std::string> options;
  std::vector<IdMapping> uid_mappings;
  std::vector<IdMapping> gid_mappings;
};

// ---- hooks -----------------------------------------------------------------

struct Hook {
  std::string path;  // absolute
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::optional<int32_t> timeout;  // seconds, more than 0
};

struct Hooks {
  std::vector<Hook> prestart;
  std::vector<Hook> create_runtime;
  std::vector<Hook> create_container;
  std::vector<Hook> start_container;
  std::vector<Hook> poststart;
  std::vector<Hook> poststop;
};

// ---- linux.resources -------------------------------------------------------

struct DeviceRule {
  bool allow = false;
  std::string type;  // "a", "c", "b"; empty is "a"
  std::optional<int64_t> major;
  std::optional<int64_t> minor;
  std::string access;  // of "rwm"
};

// Bytes; -1 is no limit.
struct Memory {
  std::optional<int64_t> limit;
  std::optional<int64_t> reservation;
  std::optional<int64_t> swap;  // memory and swap together
  std::optional<int64_t> kernel;
  std::optional<int64_t> kernel_tcp;
  std::optional<uint64_t> swappiness;
  std::optional<bool> disable_oom_killer;
  std::optional<bool> use_hierarchy;
  std::optional<bool> check_before_update;
};

// Microseconds.
struct Cpu {
  std::optional<uint64_t> shares;
  std::optional<int64_t> quota;
  std::optional<uint64_t> burst;
  std::optional<uint64_t> period;
  std::optional<int64_t> realtime_runtime;
  std::optional<uint64_t> realtime_period;
  std::string cpus;
  std::string mems;
  std::optional<int64_t> idle;
};

struct WeightDevice {
  uint32_t major = 0;
  uint32_t minor = 0;
  std::optional<uint16_t> weight;
  std::optional<uint16_t> leaf_weight;
};

struct ThrottleDevice {
  uint32_t major = 0;
  uint32_t minor = 0;
  uint64_t rate = 0;
};

struct BlockIo {
  std::optional<uint16_t> weight;
  std::optional<uint16_t> leaf_weight;
  std::vector<WeightDevice> weight_device;
  std::vector<ThrottleDevice> throttle_read_bps_device;
  std::vector<ThrottleDevice> throttle_write_bps_device;
  std::vector<ThrottleDevice> throttle_read_iops_device;
  std::vector<ThrottleDevice> throttle_write_iops_device;
};

struct Pids {
  std::optional<int64_t> limit;
};

struct HugepageLimit {
  std::string page_size;  // "2MB"
  uint64_t limit = 0;
};

struct InterfacePriority {
  std::string name;
  uint32_t priority = 0;
};

struct NetworkResources {
  std::optional<uint32_t> class_id;
  std::vector<InterfacePriority> priorities;
};

struct Rdma {
  std::optional<uint32_t> hca_handles;
  std::optional<uint32_t> hca_objects;
};

struct Resources {
  std::vector<DeviceRule> devices;
  std::optional<Memory> memory;
  std::optional<Cpu> cpu;
  std::optional<Pids> pids;
  std::optional<BlockIo> block_io;
  std::vector<HugepageLimit> hugepage_limits;
  std::optional<NetworkResources> network;
  std::map<std::string, Rdma> rdma;
  std::map<std::string, std::string> unified;
};

// ---- linux.seccomp ---------------------------------------------------------

struct SeccompArg {
  uint32_t index = 0;
  uint64_t value = 0;
  uint64_t value_two = 0;
  std::string op;  // "SCMP_CMP_EQ"
};

struct SeccompSyscall {
  std::vector<std::string> names;  // at least one
  std::string action;              // "SCMP_ACT_ALLOW"
  std::optional<uint32_t> errno_ret;
  std::vector<SeccompArg> args;
};

struct Seccomp {
  std::string default_action;
  std::optional<uint32_t> default_errno_ret;
  std::vector<std::string> architectures;  // "SCMP_ARCH_X86_64"
  std::vector<std::string> flags;          // "SECCOMP_FILTER_FLAG_LOG"
  std::string listener_path;
  std::string listener_metadata;
  std::vector<SeccompSyscall> syscalls;
};

// ---- linux -----------------------------------------------------------------

struct NamespaceEntry {
  std::string type;  // "network", as the document calls it
  std::string path;  // absolute; empty: a new one
};

struct TimeOffset {
  int64_t secs = 0;
  uint32_t nanosecs = 0;
};

struct Device {
  std::string path;  // absolute
  std::string type;  // "c", "b", "u" or "p"
  uint32_t major = 0;
  uint32_t minor = 0;
  std::optional<uint32_t> file_mode;
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
};

struct NetDevice {
  std::string name;  // in the container; empty: as on the host
};

struct IntelRdt {
  std::string clos_id;
  std::vector<std::string> schemata;
  std::string l3_cache_schema;
  std::string mem_bw_schema;
  bool enable_monitoring = false;
};

struct MemoryPolicy {
  std::string mode;                // "MPOL_BIND"
  std::string nodes;               // "0-3,7"
  std::vector<std::string> flags;  // "MPOL_F_STATIC_NODES"
};

struct Personality {
  std::string domain;  // "LINUX" or "LINUX32"
  std::vector<std::string> flags;
};

struct Linux {
  std::vector<NamespaceEntry> namespaces;  // each type once
  std::vector<IdMapping> uid_mappings;
  std::vector<IdMapping> gid_mappings;
  std::map<std::string, TimeOffset> time_offsets;  // "monotonic", "boottime"
  std::vector<Device> devices;
  std::map<std::string, NetDevice> net_devices;  // by their name on the host
  std::string cgroups_path;
  std::optional<Resources> resources;
  std::optional<IntelRdt> intel_rdt;
  std::optional<MemoryPolicy> memory_policy;
  std::map<std::string, std::string> sysctl;
  std::optional<Seccomp> seccomp;
  std::string rootfs_propagation;  // "rslave"; empty if absent
  std::vector<std::string> masked_paths;
  std::vector<std::string> readonly_paths;
  std::string mount_label;
  std::optional<Personality> personality;
};

struct RuntimeConfig {
  std::string oci_version;
  std::optional<Process> process;
  Root root;
  std::string hostname;
  std::string domainname;
  std::vector<Mount> mounts;
  Hooks hooks;
  std::map<std::string, std::string> annotations;
  Linux linux_config;  // "linux" is a macro of the compiler
};

// config.json. "root" is required, "process" only where something starts.
absl::StatusOr<RuntimeConfig> ParseRuntimeConfig(absl::string_view text);

// A "process" object alone, as `exec --process FILE` has it.
absl::StatusOr<Process> ParseProcess(absl::string_view text);

// A "linux.resources" object alone, as `update --resources FILE` has it.
absl::StatusOr<Resources> ParseResources(absl::string_view text);

}  // namespace caisson::spec

#endif  // CAISSON_LIB_SPEC_RUNTIME_CONFIG_H_
