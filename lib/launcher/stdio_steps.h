// The descriptors of a process, as plan operations.
#ifndef CAISSON_LIB_LAUNCHER_STDIO_STEPS_H_
#define CAISSON_LIB_LAUNCHER_STDIO_STEPS_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"
#include "lib/launcher/user.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// The container's /dev, and /dev/pts if there is a terminal.
struct DeviceSlots {
  plan::Slot dev;
  plan::Slot devpts;
};

// The host's ends of what the process will hold.
struct HostEnds {
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;
  UniqueFd terminal_socket;  // the child sends the terminal's master here
};

// Opens /dev, and /dev/pts, of the root that the process is in.
DeviceSlots AddOpenDevices(plan::PlanBuilder& plan, bool terminal);

// Puts the streams, or a new terminal, on descriptors 0 to 2, owned by `user`.
absl::Status AddStreams(plan::PlanBuilder& plan, const ProcessSpec& spec,
                        const DeviceSlots& devices, const User& user,
                        HostEnds& ends);

// Shows the terminal on descriptor 0 as /dev/console.
void AddConsole(plan::PlanBuilder& plan, plan::Slot dev);

// A session of its own, with the terminal if there is one.
void AddSession(plan::PlanBuilder& plan, const ProcessSpec& spec);

// Moves what the program inherits, and `kept`, out of the way of the numbers
// that they will have. Returns the slots, in the order of spec.descriptors.
absl::StatusOr<std::vector<plan::Slot>> AddSetAside(plan::PlanBuilder& plan,
                                                    const ProcessSpec& spec);
// Gives them their numbers. After CloseDescriptors().
void AddInherited(plan::PlanBuilder& plan, const ProcessSpec& spec,
                  const std::vector<plan::Slot>& set_aside);

// Not a directory and no O_PATH descriptor, which would lead out of the root.
absl::Status CheckInherited(BorrowedFd fd, absl::string_view what);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STDIO_STEPS_H_
