// All that a library could change in the process that it is a guest of.
//
// Needs neither the library nor Abseil, so that a host can look at itself
// before it loads them.
#ifndef CAISSON_TESTS_HOST_SAFETY_HOST_STATE_H_
#define CAISSON_TESTS_HOST_SAFETY_HOST_STATE_H_

#include <map>
#include <string>

namespace caisson::testing {

// What it is, by a name such as "fd 7" or "SIGTERM handler": limits, umask,
// directories, credentials, signals, prctl(2) flags, scheduling, timers,
// environment, namespaces, mounts, control groups, keyring, locks, threads with
// their masks, children, and descriptors with their flags.
using HostState = std::map<std::string, std::string>;

// The calling process should be quiet: what comes and goes shows.
HostState TakeHostState();

// One line for each name that has another value; empty if there is none.
std::string Differences(const HostState& before, const HostState& after);

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_HOST_SAFETY_HOST_STATE_H_
