// Names for containers that were given none. Thread-safe function.
#ifndef CAISSON_LIB_KEEPER_NAMES_H_
#define CAISSON_LIB_KEEPER_NAMES_H_

#include <cstdint>
#include <string>

namespace caisson::keeper {

// "brisk_brunel": of `random`, with a number from the second `attempt` on.
std::string MadeUpName(uint64_t random, int attempt);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_NAMES_H_
