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
// Sealed layers (LayerStoreOptions::fs_verity) take a look at each file; and
// VerifyDepth::kQuick reads no file at all. doc/layer-store.md has a table of
// the kinds beside those of other stores.
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
    // It has other data or attributes than when it was sealed, or no fs-verity,
    // yet is what its images say.
    kLayerUnsealed,
    kLayerOrphaned,      // the directory has it, the index has not
    kSizeWrong,          // of a layer's files, in the index
    kImageInconsistent,  // the index has other layers than the configuration
    kRecordUnused,       // a layer or document of no image in the index
    kForeignFile,        // among the layers; not repaired
    kWritableDamaged,    // a kept layer without upper or work; not repaired
  };
  Kind kind = kIndexDamaged;
  // Chain ID, digest, name of a writable layer or file; empty for the index.
  std::string subject;
  std::vector<std::string> images;  // ids of those that it makes unusable
  std::string detail;               // for people: which file, which digests
  // What VerifyOptions::repair did. kLayerChanged: made anew from its own data.
  // kLayerDamaged and kLayerUnknown: removed, so that importing one of the
  // images again brings it back, and opening them says so meanwhile.
  // kDocumentDamaged and kImageInconsistent: the image is removed.
  // kLayerOrphaned and kRecordUnused: removed, as Recover does. kSizeWrong and
  // kLayerUnsealed: put right. False also if an image was in use or leased.
  bool repaired = false;

  // "layer sha256:... damaged: ... (images sha256:...)".
  std::string ToString() const;
};

enum class VerifyDepth {
  // Reads no data of files: sealed layers by their seal, and of others whether
  // their files are there and long enough, as a power failure or a full disk
  // may leave them.
  kQuick,
  // Sealed layers by their seal, which the kernel holds each reader to, and of
  // others everything.
  kStandard,
  // Also reads what is sealed: finds what a disk has lost before a program
  // does.
  kFull,
};

struct VerifyOptions {
  bool repair = false;
  VerifyDepth depth = VerifyDepth::kStandard;
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
