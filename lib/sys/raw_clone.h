// Children that run on their caller's memory, as after vfork(2).
#ifndef CAISSON_LIB_SYS_RAW_CLONE_H_
#define CAISSON_LIB_SYS_RAW_CLONE_H_

#include <features.h>
#include <sched.h>

#define CAISSON_NOT_INSTRUMENTED                                   \
  __attribute__((no_sanitize("address"), no_sanitize("undefined"), \
                 no_sanitize("thread")))

// What such a child runs: nothing in it may be instrumented, allocate, or touch
// anything but raw system calls.
#define CAISSON_RAW CAISSON_NOT_INSTRUMENTED __attribute__((noinline))

#ifdef __GLIBC__
// Its own name for clone(3).
extern "C" int __clone(int (*function)(void*), void* stack, int flags,
                       void* argument, ...);
#endif

namespace caisson::sys {

// clone(3). ThreadSanitizer replaces that by one that clears its tables in the
// child, which are the caller's with CLONE_VM: the caller's next thread would
// end the program.
CAISSON_NOT_INSTRUMENTED inline int RawClone(int (*function)(void*),
                                             void* stack_top, int flags,
                                             void* argument) {
#ifdef __GLIBC__
  return ::__clone(function, stack_top, flags, argument);
#else
  return ::clone(function, stack_top, flags, argument);
#endif
}

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_RAW_CLONE_H_
