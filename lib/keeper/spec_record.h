// Container specifications as records, and back. Functions only: thread-safe.
#ifndef CAISSON_LIB_KEEPER_SPEC_RECORD_H_
#define CAISSON_LIB_KEEPER_SPEC_RECORD_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/cgroup_limits.h"
#include "caisson/container_policies.h"
#include "caisson/container_spec.h"
#include "caisson/net_endpoint.h"
#include "caisson/process.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

// -1: infinite.
int64_t ToNanoseconds(absl::Duration duration);
absl::Duration FromNanoseconds(int64_t nanoseconds);
// 0: InfinitePast().
int64_t ToUnixNanoseconds(absl::Time time);
absl::Time FromUnixNanoseconds(int64_t nanoseconds);

void ToRecord(const ContainerSpec& spec, Spec& record);
// DATA_LOSS names the field that no specification can have.
absl::StatusOr<ContainerSpec> FromRecord(const Spec& record);

void ToRecord(const CgroupLimits& limits, Limits& record);
absl::StatusOr<CgroupLimits> FromRecord(const Limits& record);

void ToRecord(const HealthCheck& health, HealthCheckRecord& record);
HealthCheck FromRecord(const HealthCheckRecord& record);

void ToRecord(const HealthState& health, Health& record);
HealthState FromRecord(const Health& record);

void ToRecord(const ExitStatus& exit, Exit& record);
ExitStatus FromRecord(const Exit& record);

void ToRecord(const PortMapping& port, Port& record);
PortMapping FromRecord(const Port& record);

// Changes what is present in `changes`.
void Merge(const CgroupLimits& changes, CgroupLimits& limits);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_SPEC_RECORD_H_
