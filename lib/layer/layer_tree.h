// What one layer says, in memory: its directories, what it hides, and (for
// kPlain) which files are its own. Names are resolved: no component is a
// symbolic link. Internal to unpack.h.
#ifndef CAISSON_LIB_LAYER_LAYER_TREE_H_
#define CAISSON_LIB_LAYER_LAYER_TREE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/layer/file_attributes.h"

namespace caisson::layer {

// Ascends in the order of creation, so parents come before children. Never used
// again.
using DirId = uint32_t;
inline constexpr DirId kRootDir = 0;

struct LayerDir {
  DirId parent = kRootDir;
  std::string name;  // "" for the root
  uint32_t depth = 0;
  uint32_t path_size = 0;
  bool alive = true;      // not replaced by something else; see also IsAlive
  bool on_disk = false;   // else only whiteouts speak of it so far
  bool in_layer = false;  // has an entry, or is a parent of one
  bool has_entry = false;
  bool opaque = false;
  // Of the entry; without one, the time of the entry it was made for.
  FileAttributes attributes;
  // Set if the directory was on disk before this layer (kPlain, and the root):
  // the time and the default access control list that it had.
  std::unique_ptr<FileAttributes> before;
};

// Thread-compatible.
class LayerTree final {
 public:
  LayerTree();

  std::optional<DirId> Find(DirId parent, absl::string_view name) const;
  DirId Add(DirId parent, absl::string_view name);
  // Forgets a directory, because its name now belongs to something else.
  void Retire(DirId id);
  // A directory below a retired one is not alive either.
  bool IsAlive(DirId id) const;

  LayerDir& operator[](DirId id) { return dirs_[id]; }
  const LayerDir& operator[](DirId id) const { return dirs_[id]; }
  DirId size() const { return static_cast<DirId>(dirs_.size()); }

  // Relative to the root, without leading slash; "" for the root.
  std::string Path(DirId id) const;
  std::string Path(DirId id, absl::string_view name) const;

  // Sets the attributes of an entry.
  void SetEntry(DirId id, FileAttributes attributes);

  // Names of lower layers that are hidden, parents before children.
  using Name = std::pair<DirId, std::string>;
  void AddWhiteout(DirId dir, absl::string_view name);
  bool HasWhiteout(DirId dir, const std::string& name) const {
    return whiteouts_.count({dir, name}) != 0;
  }
  const std::set<Name>& whiteouts() const { return whiteouts_; }

  // Files that the layer itself has brought.
  void AddFile(DirId dir, absl::string_view name);
  bool HasFile(DirId dir, const std::string& name) const {
    return files_.count({dir, name}) != 0;
  }

  // Bytes of memory in use, about.
  size_t memory() const { return memory_; }
  void Charge(size_t bytes) { memory_ += bytes; }

 private:
  std::deque<LayerDir> dirs_;
  // The names are those in dirs_, which stay where they are.
  absl::flat_hash_map<std::pair<DirId, absl::string_view>, DirId> index_;
  std::set<Name> whiteouts_;
  std::set<Name> files_;
  size_t memory_ = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_TREE_H_
