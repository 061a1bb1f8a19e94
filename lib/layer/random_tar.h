// Layers of random content for tests: every kind of entry, names that are no
// text, large and negative numbers, attributes, holes, and names that change
// their kind. The same seed makes the same bytes.
#ifndef CAISSON_LIB_LAYER_RANDOM_TAR_H_
#define CAISSON_LIB_LAYER_RANDOM_TAR_H_

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {

// One layer, with its whiteouts where they came up, before all other entries,
// and behind them: it means the same.
struct RandomLayer {
  std::string mixed;
  std::string whiteouts_first;
  std::string whiteouts_last;
};

class RandomTars final {
 public:
  // With `implied`, some directories have no entry; with
  // `replace_directories`, names become something else than directories.
  RandomTars(uint64_t seed, bool implied, bool replace_directories)
      : random_(seed),
        make_implied_(implied),
        replace_directories_(replace_directories) {}

  // The next layer above those so far. Each has an entry for its root, no entry
  // is below what is no directory, and no link leads anywhere outside. What a
  // hard link is to stays what it was, and so does an opaque directory: a
  // marker makes it, if there is none. The first layer has no whiteouts.
  RandomLayer Layer();

  // Directories that some layer made without having an entry for them.
  const std::set<std::string>& implied() const { return implied_; }

 private:
  struct Node {
    bool directory = false;
    bool linkable = false;
    size_t layer = 0;  // the latest that has an entry of it
  };

  uint64_t Number(uint64_t limit) { return random_() % limit; }
  bool Once(uint64_t in) { return Number(in) == 0; }
  std::string Bytes(size_t size);
  std::string NewPath();
  std::string Existing(bool directory, bool linkable);
  bool IsHidden(absl::string_view path) const;
  bool IsFixed(absl::string_view path) const;
  bool HidesParents(const std::string& directory) const;
  void Hide(const std::string& path);
  void Whiteout();
  void Remove(const std::string& path);
  void Entry();
  void Add(const std::string& path, char type, const std::string& target);
  void AddSparse(TestTarHeader& header, TestTar::Records& records,
                 std::string& data);
  void Note(const std::string& path, char type);

  std::mt19937_64 random_;
  const bool make_implied_;
  const bool replace_directories_;
  size_t layer_ = 0;
  std::map<std::string, Node> tree_;  // of all layers
  std::set<std::string> implied_;
  // Of the current layer: what of lower layers it hides, what stays as it is,
  // and its entries.
  std::vector<std::string> hidden_;
  std::set<std::string> fixed_;
  std::string mixed_;
  std::string whiteouts_;
  std::string others_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_RANDOM_TAR_H_
