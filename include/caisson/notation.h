// Docker's notations for the options of a container, for hosts that take them
// as text from people.
//
//   auto port = caisson::ParsePortMapping("127.0.0.1:8080:80/tcp");
//   auto bind = caisson::ParseBindMount("/srv/www:/www:ro");
//   auto memory = caisson::ParseBytes("64m");
//
// INVALID_ARGUMENT quotes the text and says what was expected. Functions only:
// thread-safe.
#ifndef CAISSON_NOTATION_H_
#define CAISSON_NOTATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/cgroup_limits.h"
#include "caisson/hosts_entry.h"
#include "caisson/net_endpoint.h"
#include "caisson/root_fs.h"

namespace caisson {

// "[[ADDRESS:][HOSTPORT]:]PORT[/tcp|/udp]", the argument of --publish. Without
// HOSTPORT, or with 0, the kernel chooses one: NetEndpoint::ports().
absl::StatusOr<PortMapping> ParsePortMapping(absl::string_view text);

// "/SOURCE:/DESTINATION[:ro|:rw]", the argument of --volume. Both absolute.
absl::StatusOr<BindMount> ParseBindMount(absl::string_view text);

// The argument of --volume.
struct VolumeMount {
  enum class Kind { kBind, kNamed, kAnonymous };
  Kind kind = Kind::kBind;
  std::string volume;  // kNamed: for VolumeStore::Use()
  bool copy = true;    // VolumeUseOptions::copy
  BindMount mount;     // without a source unless kBind
};

// "/SOURCE:/DESTINATION[:OPTIONS]", "NAME:/DESTINATION[:OPTIONS]" or
// "/DESTINATION" (an anonymous volume). OPTIONS are, separated by commas: ro,
// rw, nocopy, and for binds private, slave or shared, with or without an "r" in
// front. slave and shared are the weakenings that MountPropagation calls
// unsafe.
absl::StatusOr<VolumeMount> ParseVolumeMount(absl::string_view text);

// "/DESTINATION[:OPTIONS]", the argument of --tmpfs. OPTIONS: size=BYTES,
// mode=OCTAL, nr_inodes=NUMBER, ro, rw, exec, noexec, nosuid, nodev, tmpcopyup.
absl::StatusOr<TmpfsMount> ParseTmpfsMount(absl::string_view text);

// "/dev/SOURCE[:/dev/DESTINATION][:rwm]", the argument of --device. Less than
// "rwm" is refused: what may be done with a device is up to the control group.
absl::StatusOr<DeviceNode> ParseDeviceNode(absl::string_view text);

// A number of bytes above 0, or one with b, k, m or g (powers of 1024), the
// argument of --memory.
absl::StatusOr<int64_t> ParseBytes(absl::string_view text);

// A number of CPUs above 0, such as "1.5", the argument of --cpus.
absl::StatusOr<CpuQuota> ParseCpus(absl::string_view text);

// "NAME:ADDRESS", the argument of --add-host; IPv4 or IPv6.
absl::StatusOr<HostsEntry> ParseHostsEntry(absl::string_view text);

// The argument of --since and --until: a duration before `now` ("90s",
// "1h30m"), seconds since 1970 ("1700000000.5"), or RFC 3339
// ("2026-01-31T15:04:05Z"), of which the zone (UTC), the seconds, or all of the
// time of day may be left out.
absl::StatusOr<absl::Time> ParseTime(absl::string_view text, absl::Time now);

// The number of a signal: "TERM", "SIGTERM" in any case, "15", "RTMIN+3".
absl::StatusOr<int> ParseSignal(absl::string_view text);

// The variables of `base` with those of `additions`, which win. "NAME=value"
// each; their order is kept.
std::vector<std::string> MergeEnvironment(
    const std::vector<std::string>& base,
    const std::vector<std::string>& additions);

}  // namespace caisson

#endif  // CAISSON_NOTATION_H_
