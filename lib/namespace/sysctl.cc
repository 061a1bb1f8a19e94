#include "lib/namespace/sysctl.h"

#include <algorithm>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

// A write(2) of a page or more is refused for strings.
constexpr size_t kMaxValue = 4095;

// ipc/ipc_sysctl.c
constexpr absl::string_view kIpc[] = {
    "kernel/msg_next_id", "kernel/msgmax",
    "kernel/msgmnb",      "kernel/msgmni",
    "kernel/sem",         "kernel/sem_next_id",
    "kernel/shm_next_id", "kernel/shm_rmid_forced",
    "kernel/shmall",      "kernel/shmmax",
    "kernel/shmmni",
};

// kernel/ucount.c
constexpr absl::string_view kUser[] = {
    "user/max_fanotify_groups",
    "user/max_fanotify_marks",
    "user/max_inotify_instances",
    "user/max_inotify_watches",
};

// Below net/, but of the whole host (Linux 6.18): in another namespace these
// are read-only or do not exist. The kernel makes sure that no other one has an
// effect outside (ensure_safe_net_sysctl()); this list is for the error.
constexpr absl::string_view kHostNet[] = {
    "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden",
    "net/core/bpf_jit_kallsyms",
    "net/core/bpf_jit_limit",
    "net/core/busy_poll",
    "net/core/busy_read",
    "net/core/default_qdisc",
    "net/core/dev_weight",
    "net/core/dev_weight_rx_bias",
    "net/core/dev_weight_tx_bias",
    "net/core/devconf_inherit_init_net",
    "net/core/fb_tunnels_only_for_init_net",
    "net/core/flow_limit_cpu_bitmap",
    "net/core/flow_limit_table_len",
    "net/core/gro_normal_batch",
    "net/core/high_order_alloc_disable",
    "net/core/max_skb_frags",
    "net/core/mem_pcpu_rsv",
    "net/core/message_burst",
    "net/core/message_cost",
    "net/core/netdev_budget",
    "net/core/netdev_budget_usecs",
    "net/core/netdev_max_backlog",
    "net/core/netdev_tstamp_prequeue",
    "net/core/netdev_unregister_timeout_secs",
    "net/core/rmem_default",
    "net/core/rmem_max",
    "net/core/rps_sock_flow_entries",
    "net/core/skb_defer_max",
    "net/core/warnings",
    "net/core/wmem_default",
    "net/core/wmem_max",
    "net/ipv4/inet_peer_maxttl",
    "net/ipv4/inet_peer_minttl",
    "net/ipv4/inet_peer_threshold",
    "net/ipv4/neigh/default/gc_interval",
    "net/ipv4/neigh/default/gc_thresh1",
    "net/ipv4/neigh/default/gc_thresh2",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv4/route/gc_thresh",
    "net/ipv4/route/max_size",
    "net/ipv4/tcp_allowed_congestion_control",
    "net/ipv4/tcp_low_latency",
    "net/ipv4/tcp_max_orphans",
    "net/ipv4/tcp_mem",
    "net/ipv4/udp_mem",
    "net/ipv6/mld_max_msf",
    "net/ipv6/mld_qrv",
    "net/ipv6/neigh/default/gc_interval",
    "net/ipv6/neigh/default/gc_thresh1",
    "net/ipv6/neigh/default/gc_thresh2",
    "net/ipv6/neigh/default/gc_thresh3",
    "net/netfilter/nf_conntrack_buckets",
    "net/netfilter/nf_conntrack_expect_max",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_log_all_netns",
    "net/nf_conntrack_max",
};

template <size_t N>
bool Contains(const absl::string_view (&list)[N], absl::string_view path) {
  return std::find(std::begin(list), std::end(list), path) != std::end(list);
}

absl::Status Refuse(absl::string_view name, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("NamespaceOptions.sysctls: ", Quoted(name), " ", why));
}

absl::Status Needs(absl::string_view name, absl::string_view kind) {
  return Refuse(name, absl::StrCat("needs ", kind,
                                   " namespace of its own: it would change "
                                   "the host's"));
}

absl::StatusOr<std::string> ToPath(absl::string_view name) {
  std::string path(name);
  const size_t separator = path.find_first_of("./");
  if (separator == std::string::npos) {
    return Refuse(name, "is no parameter, as \"net.ipv4.ip_forward\" is");
  }
  if (path[separator] == '.') {
    for (char& c : path) {
      if (c == '.') {
        c = '/';
      } else if (c == '/') {
        c = '.';
      }
    }
  }
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty() || part == "." || part == "..") {
      return Refuse(name, absl::StrCat("has a component ", Quoted(part)));
    }
    if (!std::all_of(part.begin(), part.end(), absl::ascii_isgraph)) {
      return Refuse(name, "has a space or a character that is not ASCII");
    }
  }
  return path;
}

absl::Status CheckNamespace(absl::string_view name, absl::string_view path,
                            const SysctlScope& own) {
  if (absl::StartsWith(path, "net/")) {
    if (Contains(kHostNet, path)) {
      return Refuse(name,
                    "is the whole host's and in no network namespace of its "
                    "own: set it on the host");
    }
    return own.net ? absl::OkStatus() : Needs(name, "a network");
  }
  if (Contains(kIpc, path) || absl::StartsWith(path, "fs/mqueue/")) {
    return own.ipc ? absl::OkStatus() : Needs(name, "an ipc");
  }
  if (path == "kernel/hostname") {
    return Refuse(name, "is what NamespaceOptions.hostname is for");
  }
  if (path == "kernel/domainname") {
    return own.uts ? absl::OkStatus() : Needs(name, "a uts");
  }
  if (Contains(kUser, path) || (absl::StartsWith(path, "user/max_") &&
                                absl::EndsWith(path, "_namespaces"))) {
    return own.user ? absl::OkStatus() : Needs(name, "a user");
  }
  return Refuse(name, "belongs to no namespace: it would change the host");
}

absl::Status CheckValue(absl::string_view name, absl::string_view value) {
  if (value.empty()) {
    return Refuse(name, "has an empty value: the kernel would ignore it");
  }
  if (value.size() > kMaxValue) {
    return Refuse(name, absl::StrCat("has a value of ", value.size(),
                                     " bytes; the kernel takes ", kMaxValue));
  }
  for (const char c : value) {
    if (absl::ascii_isprint(c) || c == '\t') continue;
    return Refuse(name, absl::StrCat("has a value ", Quoted(value),
                                     " that is not one line of text"));
  }
  return absl::OkStatus();
}

}  // namespace

SysctlScope SysctlScopeOf(const NamespaceOptions& options) {
  return {.net = options.net.is_new(),
          .ipc = options.ipc.is_new(),
          .uts = options.uts.is_new(),
          .user = options.user.valid()};
}

absl::StatusOr<std::string> ValidateSysctl(absl::string_view name,
                                           absl::string_view value,
                                           const SysctlScope& own) {
  ASSIGN_OR_RETURN(std::string path, ToPath(name));
  RETURN_IF_ERROR(CheckNamespace(name, path, own));
  RETURN_IF_ERROR(CheckValue(name, value));
  return path;
}

}  // namespace caisson
