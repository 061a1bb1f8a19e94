// A launcher that was born in a user namespace of its own.
#ifndef CAISSON_LIB_LAUNCHER_STUB_USER_NAMESPACE_H_
#define CAISSON_LIB_LAUNCHER_STUB_USER_NAMESPACE_H_

namespace caisson::launcher {

// Whether this is one: the host sent a second control socket then.
bool InUserNamespace();

// Waits until the host says that the id maps are written, which make the caller
// user and group 0. False if the host went away.
bool WaitForIdMaps();

// Splits off the helper that stays in the host's mount namespace and answers on
// the second socket; see kMountsFd. True in that helper.
bool CloneMountHelper();

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_USER_NAMESPACE_H_
