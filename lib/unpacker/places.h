// Where a confined unpacker finds what it has, and how it ends.
#ifndef CAISSON_LIB_UNPACKER_PLACES_H_
#define CAISSON_LIB_UNPACKER_PLACES_H_

namespace caisson::unpacker {

// The descriptor of its conversation with the host; beside it 0 is what it
// decodes and, of one that decompresses, 1 what comes out.
inline constexpr int kControl = 3;
// The one directory of an unpacker of layers.
inline constexpr char kLayerPath[] = "/layer";

// Exit codes of one that cannot say why.
inline constexpr int kExitOutOfMemory = 70;
inline constexpr int kExitBug = 71;
inline constexpr int kExitHostGone = 72;

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_PLACES_H_
