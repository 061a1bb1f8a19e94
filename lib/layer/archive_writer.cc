#include "lib/layer/archive_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/tar_header.h"
#include "lib/layer/tar_writer.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

absl::Status CopyExactly(ByteSource& data, uint64_t size, BorrowedFd out,
                         const std::string& path) {
  ASSIGN_OR_RETURN(const uint64_t copied, CopyTo(data, out, path));
  if (copied == size) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      Quoted(path), " has ", copied, " bytes, not the ", size, " expected"));
}

class TarArchiveWriter final : public ArchiveWriter {
 public:
  explicit TarArchiveWriter(BorrowedFd out) : out_(out) {}

  absl::Status MakeDirectory(const std::string& path) override {
    return WriteHeader(
        {.name = path + "/", .type = TarType::kDirectory, .mode = 0755});
  }

  absl::Status Add(const std::string& path, uint64_t size,
                   ByteSource& data) override {
    RETURN_IF_ERROR(WriteHeader({.name = path, .mode = 0644, .size = size}));
    RETURN_IF_ERROR(CopyExactly(data, size, out_, path));
    return sys::WriteAll(out_, std::string(TarPadding(size), '\0'), "archive");
  }

  absl::Status Finish() override {
    return sys::WriteAll(out_, TarEnd(), "archive");
  }

 private:
  absl::Status WriteHeader(const TarEntry& entry) {
    ASSIGN_OR_RETURN(const std::string header, TarHeaderOf(entry));
    return sys::WriteAll(out_, header, "archive");
  }

  const BorrowedFd out_;
};

class DirectoryWriter final : public ArchiveWriter {
 public:
  explicit DirectoryWriter(UniqueFd dir) : dir_(std::move(dir)) {}

  absl::Status MakeDirectory(const std::string& path) override {
    if (::mkdirat(dir_.get(), path.c_str(), 0755) == 0) {
      directories_.push_back(path);
      return absl::OkStatus();
    }
    return ErrnoError(errno, absl::StrCat("mkdirat(", Quoted(path), ")"),
                      {.step = "layer.save", .path = path});
  }

  absl::Status Add(const std::string& path, uint64_t size,
                   ByteSource& data) override {
    ASSIGN_OR_RETURN(
        const UniqueFd file,
        sys::OpenAt2(dir_.borrow(), path, O_WRONLY | O_CREAT | O_EXCL,
                     sys::kNoSymlinks, 0644));
    RETURN_IF_ERROR(CopyExactly(data, size, file.borrow(), path));
    if (::fsync(file.get()) == 0) return absl::OkStatus();
    return ErrnoError(errno, absl::StrCat("fsync(", Quoted(path), ")"),
                      {.step = "layer.save", .path = path});
  }

  absl::Status Finish() override {
    for (const std::string& path : directories_) {
      ASSIGN_OR_RETURN(const UniqueFd dir,
                       sys::OpenDirectory(dir_.borrow(), path));
      RETURN_IF_ERROR(sys::SyncDirectory(dir.borrow(), path));
    }
    return sys::SyncDirectory(dir_.borrow(), "layout");
  }

 private:
  const UniqueFd dir_;
  std::vector<std::string> directories_;
};

}  // namespace

std::unique_ptr<ArchiveWriter> ArchiveWriter::ToTar(BorrowedFd out) {
  return std::make_unique<TarArchiveWriter>(out);
}

absl::StatusOr<std::unique_ptr<ArchiveWriter>> ArchiveWriter::ToDirectory(
    BorrowedFd dir) {
  ASSIGN_OR_RETURN(UniqueFd own, sys::OpenDirectory(dir, "."));
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   sys::ListDirectory(own.borrow()));
  if (!names.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the directory to save to is not empty: it has ",
                     Quoted(names.front())));
  }
  return std::make_unique<DirectoryWriter>(std::move(own));
}

absl::Status ArchiveWriter::Add(const std::string& path,
                                absl::string_view text) {
  MemorySource source(text);
  return Add(path, text.size(), source);
}

}  // namespace caisson::layer
