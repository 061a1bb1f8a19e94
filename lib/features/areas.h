// The parts of the report.
#ifndef CAISSON_LIB_FEATURES_AREAS_H_
#define CAISSON_LIB_FEATURES_AREAS_H_

#include "caisson/features.h"
#include "lib/features/modules.h"
#include "lib/features/probe.h"

namespace caisson::features {

// What was tried, for several parts.
struct Trial {
  bool privileged = false;  // CAP_SYS_ADMIN
  ProbeResult result;
  ModuleState overlay = ModuleState::kUnknown;
  ModuleState nf_tables = ModuleState::kUnknown;
};

// The kinds of interfaces that are tried, in the order of ProbeResult::links.
inline constexpr const char* kLinkKinds[] = {"bridge", "veth", "macvlan",
                                             "ipvlan", "vxlan"};

void AddKernel(FeatureReport& report);
Trial AddPrivileges(FeatureReport& report);
void AddFiles(const Trial& trial, FeatureReport& report);
void AddCgroups(FeatureReport& report);
void AddSecurity(FeatureReport& report);
void AddProcesses(FeatureReport& report);
void AddNetwork(const Trial& trial, FeatureReport& report);

}  // namespace caisson::features

#endif  // CAISSON_LIB_FEATURES_AREAS_H_
