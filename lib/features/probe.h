// System calls that are tried where they do no harm: in a child that shares the
// caller's memory but lives in new namespaces and ends at once.
#ifndef CAISSON_LIB_FEATURES_PROBE_H_
#define CAISSON_LIB_FEATURES_PROBE_H_

#include <string>
#include <vector>

namespace caisson::features {

inline constexpr int kNotTried = -1;

// Each 0, an errno, or kNotTried.
struct ProbeResult {
  int clone = kNotTried;            // the child, in a user namespace if wanted
  int mount_namespace = kNotTried;  // unshare(CLONE_NEWNS)
  int net_namespace = kNotTried;    // unshare(CLONE_NEWNET)
  int tmpfs = kNotTried;            // fsopen, fsconfig, fsmount
  int clone_detached = kNotTried;   // open_tree() of that mount
  int overlay = kNotTried;          // fsopen
  int overlay_by_fd = kNotTried;    // fsconfig(FSCONFIG_SET_FD, "lowerdir+")
  int overlay_userxattr = kNotTried;
  int nf_tables = kNotTried;
  std::vector<int> links;  // of ProbeOptions::link_kinds
};

struct ProbeOptions {
  bool user_namespace = true;
  // These would load a kernel module that is not there.
  bool overlay = false;
  bool nf_tables = false;
  std::vector<std::string> link_kinds;  // rtnetlink's names: "veth"; at most 8
};

// Thread-safe; blocks for some milliseconds. Changes nothing in the caller.
ProbeResult Probe(const ProbeOptions& options);

}  // namespace caisson::features

#endif  // CAISSON_LIB_FEATURES_PROBE_H_
