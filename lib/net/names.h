// Which names a network, an endpoint and an interface may have.
//
// The names become file names, lines of /etc/hosts and interface names, so
// what is allowed is a list and not a filter. Thread-safe.
#ifndef CAISSON_LIB_NET_NAMES_H_
#define CAISSON_LIB_NET_NAMES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace caisson {

// 1 to 63 letters, digits, '-', '_' and '.', the first a letter or digit.
// `field` names the input in errors.
absl::Status ValidateNetworkName(absl::string_view field,
                                 absl::string_view name);

// A host name in the sense of RFC 1123, with '_' as Docker allows it: labels of
// 1 to 63 characters that begin and end with a letter or digit, 253 in all.
absl::Status ValidateHostName(absl::string_view field, absl::string_view name);

// What the kernel accepts for an interface (dev_valid_name), without the names
// "lo", "all" and "default" and without '%', which the kernel would expand.
absl::Status ValidateInterfaceName(absl::string_view field,
                                   absl::string_view name);

// How names are compared: host names have no case.
std::string FoldName(absl::string_view name);

// `length` random characters of [a-z2-7], for interface and table names.
std::string RandomTag(size_t length);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_NAMES_H_
