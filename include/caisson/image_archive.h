// Images as files: what LayerStore::Save writes and other programs read.
//
//   RETURN_IF_ERROR(store.Save({"app:1", "busybox"}, "images.tar"));
//
//   RETURN_IF_ERROR(store.Save({"app:1"}, "layout",
//                              {.format = ArchiveFormat::kOciLayout,
//                               .compression = LayerCompression::kGzip}));
//
// Image ids (digests of configurations) and diffIDs are those that the images
// came with, byte for byte: the store keeps what it takes to write each layer's
// tar again, and checks it while writing. The manifest is the one that the
// image came with where its layers were uncompressed, and are written so;
// otherwise it is a new one with the same annotations, because the store does
// not keep compressed blobs. Of an image that came with others for further
// platforms only the one that was imported is in the store, and in the archive,
// as with Docker. The same images and options make the same bytes,
// but for compressed ones, which may change with the processor and the
// libraries.
#ifndef CAISSON_IMAGE_ARCHIVE_H_
#define CAISSON_IMAGE_ARCHIVE_H_

#include <cstdint>
#include <functional>
#include <string>

namespace caisson {

enum class ArchiveFormat {
  // A tar that is both, as `docker save` writes it since Docker 25: an OCI
  // layout with Docker's manifest.json. Docker from 1.10 on, Podman, skopeo
  // (docker-archive: and oci-archive:) and containerd read it.
  kDocker,
  // A tar of an OCI image layout: oci-archive.
  kOci,
  // The layout as a directory (OCI image-spec, image-layout.md), for umoci and
  // for skopeo's oci:. References are whole names:
  // "layout:docker.io/library/app:1".
  kOciLayout,
};

enum class LayerCompression {
  kNone,
  kGzip,
  kZstd,  // Docker from 23 on, Podman, containerd; not umoci before 0.5
};

struct SaveOptions {
  ArchiveFormat format = ArchiveFormat::kDocker;
  LayerCompression compression = LayerCompression::kNone;
  // If set, the images are one image for several platforms, of this name: an
  // index of manifests. Import each under a name of its own
  // (ImportOptions::platform) to have them. Not for kDocker, whose format has
  // no such thing.
  std::string index_name;
  // Called about once per MiB with the bytes of uncompressed layers so far;
  // false cancels: CANCELLED. It must not throw.
  std::function<bool(uint64_t bytes)> progress;
};

}  // namespace caisson

#endif  // CAISSON_IMAGE_ARCHIVE_H_
