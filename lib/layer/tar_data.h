// The data of a tar entry on its way to a file.
#ifndef CAISSON_LIB_LAYER_TAR_DATA_H_
#define CAISSON_LIB_LAYER_TAR_DATA_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "caisson/unique_fd.h"
#include "lib/layer/tar_reader.h"

namespace caisson::layer {

// Writes the data of the reader's current entry to the empty file `fd`. Holes,
// and long runs of zeros, become holes. `progress` is called before each piece
// is read, with the bytes since the last call. An error of the reader, which
// names the entry itself, sets `reader_failed`; `path` is for the others.
absl::Status WriteTarData(TarReader& reader, const TarEntry& entry,
                          BorrowedFd fd, const std::string& path,
                          absl::FunctionRef<absl::Status(uint64_t)> progress,
                          bool& reader_failed);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TAR_DATA_H_
