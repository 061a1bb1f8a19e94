// What the limits of LayerStoreOptions mean for those who obey them.
#ifndef CAISSON_LIB_LAYER_STORE_LIMITS_H_
#define CAISSON_LIB_LAYER_STORE_LIMITS_H_

#include "caisson/layer_store.h"
#include "lib/layer/archived_image.h"
#include "lib/layer/decompress.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// Of a layer's file.
DecompressOptions LayerDecompression(const LayerStoreOptions& limits);

// Of the copy of an archive.
DecompressOptions SpoolDecompression(const LayerStoreOptions& limits);

// Of an archive's documents.
ArchiveLimits LimitsOfArchive(const LayerStoreOptions& limits);

// Of a layer's tar, to be unpacked as this store's layers are.
UnpackOptions LayerUnpacking(const LayerStoreOptions& limits);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_STORE_LIMITS_H_
