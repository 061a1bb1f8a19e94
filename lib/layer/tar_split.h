// A tar, split into the data of its files, which a layer has on disk anyway,
// and everything else; and put together again, byte for byte. So a layer whose
// blob is not kept can still be written with the digest that it came with.
//
//   TarSplitWriter split;                        // while a layer is unpacked
//   RETURN_IF_ERROR(split.Create(dir, "tar-split"));
//   options.split = &split;                      // UnpackOptions
//   ... UnpackLayer(...) ...
//   RETURN_IF_ERROR(split.Finish());
//
//   ASSIGN_OR_RETURN(auto tar, OpenTarSplit(file, diff));  // later
//
// The format is described in doc/layer-store.md.
#ifndef CAISSON_LIB_LAYER_TAR_SPLIT_H_
#define CAISSON_LIB_LAYER_TAR_SPLIT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/tar_reader.h"

struct ZSTD_CCtx_s;

namespace caisson::layer {

// Is told of all bytes of a tar, in their order.
class TarSplitSink : public TarObserver {
 public:
  // Raw(): bytes of the tar that are not file data.
  // `length` bytes that are those of the file `path` from `offset` on.
  virtual void Data(const std::string& path, uint64_t offset,
                    uint64_t length) = 0;
};

// Thread-compatible.
class TarSplitWriter final : public TarSplitSink {
 public:
  TarSplitWriter();
  ~TarSplitWriter() override;

  // Makes the file `name` in `dir`, or empties it.
  absl::Status Create(BorrowedFd dir, const std::string& name);

  void Raw(absl::string_view bytes) override;
  void Data(const std::string& path, uint64_t offset, uint64_t length) override;

  // Writes what is buffered; the first error of all calls.
  absl::Status Finish();

 private:
  struct FreeContext {
    void operator()(ZSTD_CCtx_s* context) const;
  };

  void FlushRaw();
  void Put(absl::string_view bytes);
  void Compress(int mode);

  UniqueFd fd_;
  std::unique_ptr<ZSTD_CCtx_s, FreeContext> context_;
  std::string raw_;  // of the next record
  std::string in_;
  std::string out_;
  uint64_t total_ = 0;
  absl::Status status_;
};

// The tar that `split` describes with the files in `diff`; both must outlive
// it. Which of several failures of a damaged file comes first is not specified:
// all are DATA_LOSS. What does not tell of damage, as too few descriptors, is
// not.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenTarSplit(BorrowedFd split,
                                                         BorrowedFd diff);

// Whether the files that the tar takes data from are there and long enough:
// DATA_LOSS if not. Reads all of `split`, but no files.
absl::Status CheckTarSplitFiles(BorrowedFd split, BorrowedFd diff);

// The length of that tar. Reads all of `split`, but no files.
absl::StatusOr<uint64_t> TarSplitSize(BorrowedFd split);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TAR_SPLIT_H_
