// Headers of tar archives as caisson writes them: ustar, with a PAX header in
// front where ustar has no room. The same entry is always the same bytes.
//
//   ASSIGN_OR_RETURN(std::string header, TarHeaderOf(entry));
//   ... header, entry.size bytes of data, TarPadding(entry.size) zeros ...
//   ... at the end TarEnd() ...
//
// Times are written to the nanosecond. Extended attributes are
// SCHILY.xattr.* records, as in GNU tar, star and Go, sorted. Holes are not
// written as such: the OCI image specification advises against it (layer.md),
// and Docker and Podman, which rebuild tars from their parts, break on them.
#ifndef CAISSON_LIB_LAYER_TAR_WRITER_H_
#define CAISSON_LIB_LAYER_TAR_WRITER_H_

#include <string>

#include "absl/status/statusor.h"
#include "lib/layer/tar_reader.h"

namespace caisson::layer {

// The header blocks of an entry. TarEntry::sparse, extents and header_offset do
// not matter. INVALID_ARGUMENT for what no tar can say: a NUL in a name, a "="
// in the name of an extended attribute.
absl::StatusOr<std::string> TarHeaderOf(const TarEntry& entry);

// The two zero blocks at the end of an archive.
std::string TarEnd();

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TAR_WRITER_H_
