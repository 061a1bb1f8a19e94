// The system calls that an init (plan::kInit) may make.
#ifndef CAISSON_LIB_LAUNCHER_INIT_FILTER_H_
#define CAISSON_LIB_LAUNCHER_INIT_FILTER_H_

#include "lib/plan/builder.h"

namespace caisson::launcher {

// A sock_fprog that allows waiting for signals and children, kill and exit, and
// kills the process for anything else.
plan::Data AddInitFilter(plan::PlanBuilder& plan);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_INIT_FILTER_H_
