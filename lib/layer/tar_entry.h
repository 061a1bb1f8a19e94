// What the headers of one entry say together. Internal to tar_reader.h.
#ifndef CAISSON_LIB_LAYER_TAR_ENTRY_H_
#define CAISSON_LIB_LAYER_TAR_ENTRY_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "lib/layer/pax_records.h"
#include "lib/layer/tar_header.h"
#include "lib/layer/tar_reader.h"

namespace caisson::layer {

// The headers before the one of the entry itself. Of repeated ones the last
// counts, as in GNU tar and Go.
struct TarExtensions {
  std::optional<PaxRecords> pax;             // x
  std::optional<std::string> long_name;      // L
  std::optional<std::string> long_linkname;  // K

  bool empty() const {
    return !pax.has_value() && !long_name.has_value() &&
           !long_linkname.has_value();
  }
};

// Fills all of `entry` but the sparse map, taking strings out of `extensions`.
// `stored` is the length of the data in the archive. After an error the name
// may be set already, to be told to the user.
absl::Status FillTarEntry(const TarHeader& header, const TarLimits& limits,
                          TarExtensions& extensions, TarEntry& entry,
                          uint64_t& stored);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TAR_ENTRY_H_
