// Whether a LayerStore is what its images say: fsck.
//
//   ASSIGN_OR_RETURN(StoreReport report, store.Verify({.repair = true}));
//   for (const StoreFinding& finding : report.findings)
//     puts(finding.ToString().c_str());
//
// Every layer is put together as the tar that it came as, hashed and unpacked
// once more beside itself, and both trees are compared, attributes and
// whiteouts included. So nothing goes unnoticed that changed after the import:
// a bad disk, somebody who wrote below the store's directory. It takes about as
// long as an import of all images, and as much space as the largest layer.
#ifndef CAISSON_STORE_CHECK_H_
#define CAISSON_STORE_CHECK_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace caisson {

struct StoreFinding {
  enum Kind {
    kIndexDamaged,     // what SQLite's integrity_check says; not repaired
    kDocumentDamaged,  // a configuration or manifest is not its digest
    kLayerMissing,     // an image has it, the directory has not
    kLayerDamaged,     // data of files is not what the digest says
    kLayerChanged,     // other than by its data: attributes, names, whiteouts
    kLayerUnknown,     // it was imported by a version that kept too little
  };
  Kind kind = kIndexDamaged;
  std::string subject;              // chain ID or digest; empty for the index
  std::vector<std::string> images;  // ids of those that it makes unusable
  std::string detail;               // for people: which file, which digests
  // What VerifyOptions::repair did. kLayerChanged: made anew from its own data.
  // kLayerDamaged and kLayerUnknown: removed, so that importing one of the
  // images again brings it back, and opening them says so meanwhile.
  // kDocumentDamaged: its image is removed. False also if an image was in use.
  bool repaired = false;

  // "layer sha256:... damaged: ... (images sha256:...)".
  std::string ToString() const;
};

struct VerifyOptions {
  bool repair = false;
  // Called before each layer; false cancels: CANCELLED. It must not throw.
  std::function<bool(size_t layers_done, size_t layers)> progress;
};

struct StoreReport {
  size_t images = 0;
  size_t layers = 0;
  std::vector<StoreFinding> findings;
};

}  // namespace caisson

#endif  // CAISSON_STORE_CHECK_H_
