// The capabilities of the calling thread.
#ifndef CAISSON_LIB_SYS_CAPABILITY_H_
#define CAISSON_LIB_SYS_CAPABILITY_H_

namespace caisson::sys {

// Whether capability number `capability` (CAP_SYS_ADMIN is 21) is in the
// effective set, capget(2). Thread-safe.
bool HasCapability(int capability);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_CAPABILITY_H_
