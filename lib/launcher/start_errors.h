// What a launcher answers when something fails, as errors.
#ifndef CAISSON_LIB_LAUNCHER_START_ERRORS_H_
#define CAISSON_LIB_LAUNCHER_START_ERRORS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/launcher/protocol.h"
#include "lib/plan/builder.h"
#include "lib/plan/format.h"

namespace caisson::launcher {

// UNAVAILABLE: nobody is at the other end any more.
absl::Status Dead(absl::string_view what);

// Of a kRejected.
absl::Status RejectError(const Message& message);

// The error of the operation that failed, in the builder's words.
absl::Status OperationError(const plan::PlanBuilder& plan,
                            const plan::Result& result);

// Why a child ended before its plan did.
absl::Status KilledDuringSetup(const plan::PlanBuilder& plan,
                               const plan::Result& result,
                               const absl::StatusOr<Message>& exited);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_START_ERRORS_H_
