// For tests: another program in the unpacker's place, to see what one that was
// taken over could do.
#ifndef CAISSON_LIB_UNPACKER_TEST_PROGRAM_H_
#define CAISSON_LIB_UNPACKER_TEST_PROGRAM_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/confined_unpacker.h"

namespace caisson::unpacker {

// As ConfinedUnpacker::Create(). `program` is a static executable's bytes.
absl::StatusOr<std::shared_ptr<const layer::Unpacker>> CreateConfined(
    Launcher& launcher, const ConfinedUnpackerOptions& options,
    absl::string_view program);

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_TEST_PROGRAM_H_
