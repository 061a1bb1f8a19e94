// A hold on an image of a LayerStore that outlives its process.
//
//   RETURN_IF_ERROR(store.Lease("app:1", "build-7", absl::Now() +
//   absl::Hours(1)));
//   // Whoever removes or prunes images, in any process, leaves it alone.
//   RETURN_IF_ERROR(store.ReleaseLease("build-7"));
//
// A LayerSet holds an image as long as a process has it open; a lease is for
// the time in which nobody has: between a pull and a start, or across a restart
// of the host. It is durable when Lease returns. Time is that of the machine's
// clock. An expired lease protects nothing and is not listed; Recover removes
// it. The image itself stays until somebody removes it.
#ifndef CAISSON_IMAGE_LEASE_H_
#define CAISSON_IMAGE_LEASE_H_

#include <string>

#include "absl/time/time.h"

namespace caisson {

// A value. One name may hold several images, and one image have several names
// of leases.
struct ImageLease {
  std::string name;   // as WritableLayer::Keep takes them
  std::string image;  // the id
  absl::Time expires = absl::InfiniteFuture();
};

}  // namespace caisson

#endif  // CAISSON_IMAGE_LEASE_H_
