// Names of volumes, and the text of their records; doc/volumes.md. Pure
// functions: thread-safe.
#ifndef CAISSON_LIB_VOLUME_VOLUME_RECORD_H_
#define CAISSON_LIB_VOLUME_VOLUME_RECORD_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/volume.h"

namespace caisson::volume {

// INVALID_ARGUMENT unless `name` is what Docker allows.
absl::Status CheckName(absl::string_view name);

// INVALID_ARGUMENT for a key that is empty or has a "=", or for too much text.
absl::Status CheckLabels(const VolumeLabels& labels);

// Name, time, kind and labels of `info`. Precondition: CheckLabels() is OK.
std::string RenderVolume(const VolumeInfo& info);
// The same back; DATA_LOSS for anything else.
absl::StatusOr<VolumeInfo> ParseVolume(absl::string_view text);

std::string RenderUser(const VolumeUser& user);
absl::StatusOr<VolumeUser> ParseUser(absl::string_view text);

// "web" (process 12), "" (process 13), "db" (not running)
std::string DescribeUsers(const std::vector<VolumeUser>& users);

bool Matches(const VolumeFilter& filter, const VolumeInfo& info);

}  // namespace caisson::volume

#endif  // CAISSON_LIB_VOLUME_VOLUME_RECORD_H_
