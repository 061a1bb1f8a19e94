// What a container changed: the list, and the layer that it makes.
//
//   ASSIGN_OR_RETURN(auto changes, store.Diff(top.upper(), layers));
//   for (const LayerChange& change : changes) puts(change.ToString().c_str());
//
//   // The same as an OCI layer, byte for byte reproducible:
//   RETURN_IF_ERROR(store.WriteDiff(top.upper(), layers, file));
//   // All of the tree, as `docker export` writes it:
//   RETURN_IF_ERROR(store.Export(top.upper(), layers, file));
//
// Only what differs is listed and written: a file that was opened for writing
// and left as it was is not, a directory is if anything in it is. The writable
// layer is read as it lies on disk; no overlay need be mounted, and one may be.
// If a program writes to it meanwhile, what it changes may be in the result or
// not, and a file that becomes shorter while it is read is ABORTED: freeze the
// container (cgroup.h) for a state that was there at one time.
//
// The overlay must have been mounted without redirect_dir and metacopy, which
// RootFs switches off; an upper directory that was written with them is
// FAILED_PRECONDITION instead of half a layer.
#ifndef CAISSON_LAYER_DIFF_H_
#define CAISSON_LAYER_DIFF_H_

#include <cstdint>
#include <functional>
#include <string>

#include "caisson/id_range.h"

namespace caisson {

// One line of `docker diff`. A value.
struct LayerChange {
  enum Kind { kAdded, kChanged, kDeleted };
  Kind kind = kAdded;
  // As a program in the container sees it, beginning with "/"; bytes as they
  // are. Of a directory that was deleted, only its own path is listed; one that
  // took the place of something else is kChanged.
  std::string path;

  // "C /etc".
  std::string ToString() const;
};

struct DiffOptions {
  // The user namespace that wrote the layer, whose ids the image shall have:
  // Namespace's maps, or an IdRangeLease's. Empty: the host's ids are the
  // image's. Capabilities and access control lists are translated, too. A file
  // of an owner without a mapping is FAILED_PRECONDITION.
  IdMap ids;
  uint64_t max_entries = 5'000'000;
  // Of a layer or tree that is written.
  uint64_t max_bytes = uint64_t{64} << 30;
  // Called about once per MiB with the bytes so far; false cancels: CANCELLED.
  // It must not throw.
  std::function<bool(uint64_t bytes)> progress;
};

}  // namespace caisson

#endif  // CAISSON_LAYER_DIFF_H_
