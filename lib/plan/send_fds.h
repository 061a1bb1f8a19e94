// A plan operation that sends descriptors of the child back to the host.
#ifndef CAISSON_LIB_PLAN_SEND_FDS_H_
#define CAISSON_LIB_PLAN_SEND_FDS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/plan/builder.h"

namespace caisson::plan {

// Appends a sendmsg(2) of `slots`, at most 8, over the socket in `socket`.
void AppendSendFds(PlanBuilder& plan, Slot socket,
                   const std::vector<Slot>& slots);

// Receives what AppendSendFds() sent: exactly `count` descriptors, O_CLOEXEC.
// UNAVAILABLE if nothing was sent. Does not block.
absl::StatusOr<std::vector<UniqueFd>> ReceiveFds(BorrowedFd socket,
                                                 size_t count);

}  // namespace caisson::plan

#endif  // CAISSON_LIB_PLAN_SEND_FDS_H_
