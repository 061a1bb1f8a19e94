#include "lib/layer/layer_tree.h"

#include "absl/strings/str_cat.h"

namespace caisson::layer {
namespace {

// A node of std::set or of the index beside its strings.
constexpr size_t kNodeOverhead = 96;

}  // namespace

LayerTree::LayerTree() {
  dirs_.emplace_back();
  dirs_[kRootDir].on_disk = true;
  dirs_[kRootDir].in_layer = true;
}

std::optional<DirId> LayerTree::Find(DirId parent,
                                     absl::string_view name) const {
  const auto it = index_.find({parent, name});
  if (it == index_.end()) return std::nullopt;
  return it->second;
}

DirId LayerTree::Add(DirId parent, absl::string_view name) {
  const DirId id = size();
  LayerDir& dir = dirs_.emplace_back();
  dir.parent = parent;
  dir.name = std::string(name);
  dir.depth = dirs_[parent].depth + 1;
  dir.path_size = static_cast<uint32_t>(dirs_[parent].path_size + name.size() +
                                        (parent == kRootDir ? 0 : 1));
  index_.emplace(std::make_pair(parent, absl::string_view(dir.name)), id);
  Charge(sizeof(LayerDir) + kNodeOverhead + name.size());
  return id;
}

void LayerTree::Retire(DirId id) {
  LayerDir& dir = dirs_[id];
  dir.alive = false;
  index_.erase({dir.parent, dir.name});
}

bool LayerTree::IsAlive(DirId id) const {
  for (; id != kRootDir; id = dirs_[id].parent) {
    if (!dirs_[id].alive) return false;
  }
  return true;
}

std::string LayerTree::Path(DirId id) const {
  std::string path(dirs_[id].path_size, '/');
  size_t end = path.size();
  for (; id != kRootDir; id = dirs_[id].parent) {
    const std::string& name = dirs_[id].name;
    path.replace(end - name.size(), name.size(), name);
    end -= name.size() + (end > name.size() ? 1 : 0);
  }
  return path;
}

std::string LayerTree::Path(DirId id, absl::string_view name) const {
  return id == kRootDir ? std::string(name) : absl::StrCat(Path(id), "/", name);
}

void LayerTree::SetEntry(DirId id, FileAttributes attributes) {
  for (const auto& [key, value] : attributes.xattrs) {
    Charge(kNodeOverhead + key.size() + value.size());
  }
  dirs_[id].has_entry = true;
  dirs_[id].attributes = std::move(attributes);
}

void LayerTree::AddWhiteout(DirId dir, absl::string_view name) {
  if (whiteouts_.emplace(dir, name).second) {
    Charge(sizeof(Name) + kNodeOverhead + name.size());
  }
}

void LayerTree::AddFile(DirId dir, absl::string_view name) {
  if (files_.emplace(dir, name).second) {
    Charge(sizeof(Name) + kNodeOverhead + name.size());
  }
}

}  // namespace caisson::layer
