// One line of a log, parsed. Thread-safe.
#ifndef CAISSON_LIB_LOGS_LOG_ENTRY_H_
#define CAISSON_LIB_LOGS_LOG_ENTRY_H_

#include <optional>

#include "absl/strings/string_view.h"
#include "caisson/container_logs.h"

namespace caisson::logs {

// Nothing if `line` is not an entry: a "stream" other than "stdout" and
// "stderr", a "time" that is none, an empty "log". Unknown fields, such as
// Docker's "attrs", are ignored.
std::optional<ContainerLogEntry> ParseLogEntry(absl::string_view line);

}  // namespace caisson::logs

#endif  // CAISSON_LIB_LOGS_LOG_ENTRY_H_
