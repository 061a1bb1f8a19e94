#include "lib/layer/random_tar.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace caisson::layer {
namespace {

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool IsBelow(absl::string_view path, absl::string_view directory) {
  return path.size() > directory.size() && path[directory.size()] == '/' &&
         absl::StartsWith(path, directory);
}

// As a tar stores them.
std::string SparseData(
    const std::vector<std::pair<uint64_t, uint64_t>>& regions) {
  std::string data;
  for (const auto& [offset, length] : regions) {
    data.append(length, static_cast<char>('a' + offset % 26));
  }
  return data;
}

}  // namespace

std::string RandomTars::Bytes(size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random_());
  return bytes;
}

bool RandomTars::IsHidden(absl::string_view path) const {
  return std::any_of(hidden_.begin(), hidden_.end(),
                     [path](const std::string& root) {
                       return path == root || IsBelow(path, root);
                     });
}

// A path of the tree; empty if none was found.
std::string RandomTars::Existing(bool directory, bool linkable) {
  if (tree_.empty()) return "";
  for (int attempt = 0; attempt < 8; ++attempt) {
    auto it = tree_.begin();
    std::advance(it, static_cast<int64_t>(Number(tree_.size())));
    if (directory && !it->second.directory) continue;
    if (linkable && !it->second.linkable) continue;
    if (it->second.layer < layer_ && IsHidden(it->first)) continue;
    return it->first;
  }
  return "";
}

std::string RandomTars::NewPath() {
  const std::vector<std::string> names = {"a",
                                          "b",
                                          "c",
                                          "d",
                                          "-rf",
                                          "sp ace",
                                          "new\nline",
                                          "...",
                                          "..x",
                                          "*",
                                          "\xff",
                                          "\xc3\xa4",
                                          std::string(255, 'n'),
                                          std::string(120, 'm'),
                                          std::string(254, 'o') + "\xfe",
                                          ".w",
                                          "=1",
                                          "%3D"};
  std::string path = Once(4) ? "" : Existing(/*directory=*/true, false);
  // Directories that nothing else tells of.
  const size_t depth = make_implied_ && Once(6) ? 2 : 1;
  for (size_t i = 0; i < depth; ++i) {
    const auto it = tree_.find(path);
    if (i > 0 && it != tree_.end() && !it->second.directory) break;
    absl::StrAppend(&path, path.empty() ? "" : "/",
                    names[Number(names.size())]);
  }
  return path.size() > 1500 ? "a" : path;
}

void RandomTars::Remove(const std::string& path) {
  for (auto it = tree_.begin(); it != tree_.end();) {
    const bool gone = it->first == path || IsBelow(it->first, path);
    it = gone ? tree_.erase(it) : std::next(it);
  }
}

// Whether `path` or something below it is to stay what it is in this layer.
bool RandomTars::IsFixed(absl::string_view path) const {
  return std::any_of(fixed_.begin(), fixed_.end(),
                     [path](const std::string& fixed) {
                       return fixed == path || IsBelow(fixed, path);
                     });
}

// Whether an entry of this layer is in a directory that only lower layers
// describe, below `directory`: when that is hidden too, its attributes are
// those that it had for some programs, and the default ones for others.
bool RandomTars::HidesParents(const std::string& directory) const {
  for (const auto& [path, node] : tree_) {
    if (node.layer < layer_ || !IsBelow(path, directory)) continue;
    for (std::string parent = ParentOf(path); parent != directory;
         parent = ParentOf(parent)) {
      if (tree_.at(parent).layer < layer_) return true;
    }
  }
  return false;
}

void RandomTars::Hide(const std::string& path) {
  for (auto it = tree_.begin(); it != tree_.end();) {
    const bool gone = (it->first == path || IsBelow(it->first, path)) &&
                      it->second.layer < layer_;
    if (gone) hidden_.push_back(it->first);
    it = gone ? tree_.erase(it) : std::next(it);
  }
}

void RandomTars::Whiteout() {
  const bool opaque = Once(3);
  const std::string path = Existing(/*directory=*/opaque, false);
  if (path.empty() || HidesParents(path) || IsFixed(path)) return;
  const std::string parent = ParentOf(path);
  const std::string base =
      parent.empty() ? path : path.substr(parent.size() + 1);
  if (base.size() > 251) return;
  // A directory that is described by this layer alone can be in one that is
  // hidden; one that it adds to cannot be hidden itself.
  const Node node = tree_.at(path);
  TestTar tar;
  if (opaque) {
    tar.File(path + "/.wh..wh..opq");
    fixed_.insert(path);
    Hide(path);
    tree_[path] = node;
  } else {
    for (const auto& [other, that] : tree_) {
      if (node.layer < layer_ && that.layer == layer_ && IsBelow(other, path)) {
        return;
      }
    }
    tar.File(absl::StrCat(parent, parent.empty() ? "" : "/", ".wh.", base));
    Hide(path);
  }
  whiteouts_ += tar.bytes();
  mixed_ += tar.bytes();
}

// Three regions of whole blocks, as GNU tar wants them, the first not at the
// beginning, and a hole at the end.
void RandomTars::AddSparse(TestTarHeader& header, TestTar::Records& records,
                           std::string& data) {
  const std::vector<std::pair<uint64_t, uint64_t>> regions = {
      {512 * (1 + Number(20)), 512 * (1 + Number(2))},
      {65536, 512 * (1 + Number(3))},
      {200'192, 512},
      {300'000, 0}};  // GNU tar wants the end to be said
  data = SparseData(regions);
  std::string map;
  for (const auto& [offset, length] : regions) {
    absl::StrAppend(&map, map.empty() ? "" : ",", offset, ",", length);
  }
  const std::string size = "300000";
  records.push_back({"GNU.sparse.major", "0"});
  records.push_back({"GNU.sparse.minor", "1"});
  records.push_back({"GNU.sparse.name", header.name});
  records.push_back({"GNU.sparse.size", size});
  records.push_back({"GNU.sparse.numblocks", "4"});
  records.push_back({"GNU.sparse.map", map});
}

void RandomTars::Note(const std::string& path, char type) {
  if (type != '5') Remove(path);
  for (std::string parent = ParentOf(path); !parent.empty();
       parent = ParentOf(parent)) {
    const auto [it, fresh] =
        tree_.emplace(parent, Node{.directory = true, .layer = layer_});
    if (fresh) implied_.insert(parent);
  }
  tree_[path] = {.directory = type == '5',
                 .linkable = type != '5' && type != '1',
                 .layer = layer_};
  implied_.erase(path);
}

void RandomTars::Add(const std::string& path, char type,
                     const std::string& target) {
  TestTarHeader header{.name = path, .type = type, .linkname = target};
  const std::vector<int64_t> ids = {0, 7, 2'097'151, 2'097'152, 4'294'967'294};
  const std::vector<int64_t> times = {0, 1, 1'000'000'000, -1'000'000,
                                      5'000'000'000};
  header.mode = static_cast<int64_t>(Number(010000));
  header.uid = ids[Number(ids.size())];
  header.gid = ids[Number(ids.size())];
  header.mtime = times[Number(times.size())];
  TestTar::Records records;
  std::string data;
  if (Once(3)) {
    records.push_back(
        {"mtime", absl::StrCat(1'500'000'000 + Number(1000), ".",
                               100'000'000 + Number(800'000'000))});
  }
  switch (type) {
    case '0':
      data = std::string(Number(1500), static_cast<char>('a' + Number(26)));
      break;
    case '2':
      header.linkname = Once(3) ? std::string(150, 'l') : "a/b";
      break;
    case '3':
    case '4':
      header.devmajor = 1 + static_cast<int64_t>(Number(4095));
      header.devminor = static_cast<int64_t>(Number(1 << 20));
      break;
    case '5':
      header.name += "/";
      break;
    default:
      break;
  }
  if ((type == '0' || (type == '5' && tree_.count(path) == 0)) && Once(3)) {
    records.push_back({"SCHILY.xattr.user.\xc3\xa4", Bytes(1 + Number(50))});
    records.push_back({"SCHILY.xattr.trusted.t", "v\n"});
  }
  if (type == '0' && Once(6)) {
    // cap_net_raw+ep, version 2.
    records.push_back(
        {"SCHILY.xattr.security.capability",
         std::string("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20)});
  }
  if (type == '0' && Once(6)) AddSparse(header, records, data);
  header.size = static_cast<int64_t>(data.size());
  TestTar tar;
  // One entry is of one dialect: where both speak, programs listen to one.
  const bool gnu = records.empty() && Once(2);
  if (header.name.size() > 100 && gnu) tar.Long('L', header.name);
  if (header.name.size() > 100 && !gnu)
    records.push_back({"path", header.name});
  if (header.linkname.size() > 100 && gnu) tar.Long('K', header.linkname);
  if (header.linkname.size() > 100 && !gnu) {
    records.push_back({"linkpath", header.linkname});
  }
  if (!records.empty()) tar.Pax(records);
  tar.Entry(header, data);
  others_ += tar.bytes();
  mixed_ += tar.bytes();
  Note(path, type);
}

void RandomTars::Entry() {
  const std::string types = "00000555512346";
  const char type = types[Number(types.size())];
  const std::string path = NewPath();
  if (IsFixed(path)) return;
  for (std::string parent = path; !parent.empty(); parent = ParentOf(parent)) {
    const auto it = tree_.find(parent);
    if (it == tree_.end()) continue;
    if (parent != path && !it->second.directory) return;
    // What this layer hides of a directory is not there for its entries.
    if (parent == path && it->second.directory && type != '5' &&
        !replace_directories_) {
      return;
    }
  }
  std::string target;
  if (type == '1') {
    target = Existing(/*directory=*/false, /*linkable=*/true);
    if (target.empty() || target == path || IsBelow(target, path)) return;
    fixed_.insert(target);
  }
  Add(path, type, target);
}

RandomLayer RandomTars::Layer() {
  hidden_.clear();
  fixed_.clear();
  whiteouts_.clear();
  others_.clear();
  const std::string root = TestTar().Dir(".").bytes();
  mixed_ = root;
  for (int i = 0; i < 60; ++i) {
    if (layer_ > 0 && Once(6)) {
      Whiteout();
    } else {
      Entry();
    }
  }
  ++layer_;
  const std::string end = TestTar().Finish();
  return {.mixed = mixed_ + end,
          .whiteouts_first = root + whiteouts_ + others_ + end,
          .whiteouts_last = root + others_ + whiteouts_ + end};
}

}  // namespace caisson::layer
