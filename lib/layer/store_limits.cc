#include "lib/layer/store_limits.h"

#include <unistd.h>

#include "lib/layer/layer_staging.h"

namespace caisson::layer {

DecompressOptions LayerDecompression(const LayerStoreOptions& limits) {
  return {.max_output_bytes = limits.max_layer_bytes,
          .max_output_bytes_name = "max_layer_bytes",
          .max_compression_ratio = limits.max_compression_ratio,
          .max_window_bytes = limits.max_window_bytes,
          .unpacker = limits.unpacker.get()};
}

DecompressOptions SpoolDecompression(const LayerStoreOptions& limits) {
  DecompressOptions options = LayerDecompression(limits);
  options.max_output_bytes = limits.max_spool_bytes;
  options.max_output_bytes_name = "max_spool_bytes";
  return options;
}

ArchiveLimits LimitsOfArchive(const LayerStoreOptions& limits) {
  return {.max_manifest_bytes = limits.max_manifest_bytes,
          .max_config_bytes = limits.max_config_bytes,
          .max_layers = limits.max_layers,
          .max_images = limits.max_images,
          .max_index_depth = limits.max_index_depth,
          .max_index_documents = limits.max_index_documents,
          .layer = LayerDecompression(limits)};
}

UnpackOptions LayerUnpacking(const LayerStoreOptions& limits) {
  UnpackOptions options;
  options.format = UnpackFormat(limits.format);
  options.max_entries = limits.max_layer_entries;
  options.max_entries_name = "max_layer_entries";
  options.max_bytes = limits.max_layer_bytes;
  options.max_bytes_name = "max_layer_bytes";
  options.max_path_bytes = limits.max_path_bytes;
  options.max_path_depth = limits.max_path_depth;
  options.max_layer_memory = limits.max_layer_memory;
  options.tar.max_path_bytes = limits.max_path_bytes;
  options.tar.max_extension_bytes = limits.max_extension_bytes;
  options.tar.max_sparse_extents = limits.max_sparse_extents;
  if (limits.format == LayerStoreFormat::kOverlayUserxattrSingle) {
    options.owner = {.uid = ::geteuid(), .gid = ::getegid()};
  }
  options.unpacker = limits.unpacker.get();
  return options;
}

}  // namespace caisson::layer
