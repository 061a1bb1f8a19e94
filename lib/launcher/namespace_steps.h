// How a process comes into its namespaces and control group, as plan
// operations.
#ifndef CAISSON_LIB_LAUNCHER_NAMESPACE_STEPS_H_
#define CAISSON_LIB_LAUNCHER_NAMESPACE_STEPS_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/cgroup.h"
#include "caisson/namespace.h"
#include "caisson/net_endpoint.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// CLONE_NEW* flags of namespaces that another process joins to be where this
// one is: first those that do not belong to its user namespace, then that with
// all that do.
struct ContainerNamespaces {
  uint64_t first = 0;
  uint64_t second = 0;
};

// Those that process `pid` is in and the calling one is not.
absl::StatusOr<ContainerNamespaces> NamespacesOf(pid_t pid);

// The control group's descriptors, in the plan.
struct GroupSlots {
  plan::Slot v2_directory;
  std::vector<plan::Slot> join_files;
};

// FAILED_PRECONDITION if the group was destroyed. `cgroup` may be null.
absl::StatusOr<GroupSlots> SendGroup(plan::PlanBuilder& plan,
                                     const Cgroup* cgroup);

GroupSlots SendEntry(plan::PlanBuilder& plan, CgroupEntry entry);

// Moves the process, which must have one thread.
void AddJoinGroup(plan::PlanBuilder& plan, const GroupSlots& group);

// Brings the process into the namespaces of another, as their root; its
// children are in that one's pid namespace.
void AddEnterContainer(plan::PlanBuilder& plan, BorrowedFd pidfd,
                       const ContainerNamespaces& namespaces);

class NamespaceSteps final {
 public:
  // INVALID_ARGUMENT names what does not go together.
  static absl::StatusOr<NamespaceSteps> Create(const Namespace& namespaces,
                                               const NetEndpoint* network);

  // Clones the process that the plan is about: at once, or from one that joins
  // the user, pid and mount namespaces and stays out of the control group.
  void AddClone(plan::PlanBuilder& plan, plan::Slot v2_directory) const;
  // The rest of the namespaces, as their root. After the control group, whose
  // place is what a new cgroup namespace shows.
  absl::Status AddRest(plan::PlanBuilder& plan) const;

  // What the process of this plan is in beside its launcher's.
  ContainerNamespaces container() const;

 private:
  struct Join {
    const NamespaceSource* source;
    int flag;
    bool of_user_namespace;  // belongs to it
  };

  NamespaceSteps(const Namespace& namespaces, const NetEndpoint* network)
      : options_(namespaces.options()), network_(network) {}

  void AddJoins(plan::PlanBuilder& plan, bool of_user_namespace) const;
  void AddTimeNamespace(plan::PlanBuilder& plan) const;

  const NamespaceOptions& options_;
  const NetEndpoint* network_;
  uint64_t clone_flags_ = 0;
  std::vector<Join> joins_;
};

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_NAMESPACE_STEPS_H_
