#include "lib/layer/image_archive.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/decompress.h"
#include "lib/layer/tar_reader.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

// Links to links; Docker writes one level.
constexpr int kMaxLinks = 8;
// Of all names and link targets together, for each entry that is allowed.
constexpr size_t kNameBytesOfEntry = 168;
constexpr size_t kSpoolChunk = 1 << 20;
constexpr size_t kSpoolStep = 4 << 10;

absl::Status Missing(absl::string_view path) {
  return absl::NotFoundError(
      absl::StrCat(Quoted(path), " is not in the archive"));
}

class TarArchive final : public ImageArchive {
 public:
  // `owned`, if valid, is what `fd` refers to.
  static absl::StatusOr<std::unique_ptr<ImageArchive>> Index(UniqueFd owned,
                                                             BorrowedFd fd,
                                                             uint64_t size,
                                                             size_t entries) {
    std::unique_ptr<TarArchive> archive(new TarArchive(std::move(owned), fd));
    RETURN_IF_ERROR(archive->ReadEntries(size, entries));
    return archive;
  }

  bool Has(absl::string_view path) const override { return Find(path).ok(); }

  absl::StatusOr<std::unique_ptr<ArchiveFile>> Open(
      absl::string_view path) const override {
    ASSIGN_OR_RETURN(const File* file, Find(path));
    return std::make_unique<ArchiveFile>(UniqueFd(), fd_, file->offset,
                                         file->size);
  }

  absl::StatusOr<std::vector<std::string>> TopLevel() const override {
    return std::vector<std::string>(top_level_.begin(), top_level_.end());
  }

 private:
  struct File {
    uint64_t offset = 0;
    uint64_t size = 0;
    std::string link;     // clean path of the file that this one stands for
    std::string problem;  // why it cannot be read
  };

  TarArchive(UniqueFd owned, BorrowedFd fd)
      : owned_(std::move(owned)), fd_(fd) {}

  absl::Status ReadEntries(uint64_t size, size_t max_entries);
  absl::Status Add(const TarEntry& entry, uint64_t data_offset);
  absl::StatusOr<const File*> Find(absl::string_view path) const;

  UniqueFd owned_;
  BorrowedFd fd_;
  std::map<std::string, File, std::less<>> files_;
  std::set<std::string> top_level_;
  size_t name_bytes_ = 0;
};

absl::Status TarArchive::ReadEntries(uint64_t size, size_t max_entries) {
  FdSource source(fd_, 0, size);
  TarReader reader(source, {});
  for (size_t count = 0;; ++count) {
    ASSIGN_OR_RETURN(std::optional<TarEntry> entry, reader.Next());
    if (!entry.has_value()) break;
    if (count == max_entries) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the archive has more than max_archive_entries (", max_entries, ")"));
    }
    RETURN_IF_ERROR(Add(*entry, reader.data_offset()));
    if (name_bytes_ / kNameBytesOfEntry > max_entries) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "names of entries take more than ", kNameBytesOfEntry,
          " bytes for each of max_archive_entries (", max_entries, ")"));
    }
  }
  return absl::OkStatus();
}

// Where a symlink at `path` leads, by its text alone: Docker links layers that
// are equal as "../<id>/layer.tar".
std::optional<std::string> LinkTarget(const std::string& path,
                                      absl::string_view target) {
  if (absl::StartsWith(target, "/")) return std::nullopt;
  std::vector<absl::string_view> parts = absl::StrSplit(path, '/');
  parts.pop_back();
  for (absl::string_view part : absl::StrSplit(target, '/')) {
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      parts.push_back(part);
    } else if (parts.empty()) {
      return std::nullopt;
    } else {
      parts.pop_back();
    }
  }
  if (parts.empty()) return std::nullopt;
  return absl::StrJoin(parts, "/");
}

absl::Status TarArchive::Add(const TarEntry& entry, uint64_t data_offset) {
  const std::optional<std::string> path = CleanArchivePath(entry.name);
  // Nothing is ever extracted by name, so a name that no document can refer to
  // does no harm.
  if (!path.has_value()) return absl::OkStatus();
  name_bytes_ += path->size() + entry.linkname.size();
  top_level_.insert(path->substr(0, path->find('/')));
  File file;
  switch (entry.type) {
    case TarType::kFile:
      if (entry.sparse) file.problem = "is a sparse entry of the archive";
      file.offset = data_offset;
      file.size = entry.size;
      break;
    case TarType::kSymlink:
    case TarType::kHardlink: {
      const std::optional<std::string> target =
          entry.type == TarType::kSymlink ? LinkTarget(*path, entry.linkname)
                                          : CleanArchivePath(entry.linkname);
      if (target.has_value()) {
        file.link = *target;
      } else {
        file.problem = absl::StrCat("is a link that leaves the archive, to ",
                                    Quoted(entry.linkname));
      }
      break;
    }
    default:
      return absl::OkStatus();
  }
  const bool first = files_.insert_or_assign(*path, std::move(file)).second;
  // The last of several entries counts, as in a tar that was appended to. What
  // decides about the content must not depend on that.
  if (!first && path->find('/') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(*path),
                     " is in the archive twice, so which one counts would "
                     "depend on the reader"));
  }
  return absl::OkStatus();
}

absl::StatusOr<const TarArchive::File*> TarArchive::Find(
    absl::string_view path) const {
  absl::string_view current = path;
  for (int i = 0; i <= kMaxLinks; ++i) {
    const auto it = files_.find(std::string(current));
    if (it == files_.end()) {
      if (current == path) return Missing(path);
      return absl::NotFoundError(absl::StrCat(Quoted(path), " is a link to ",
                                              Quoted(current),
                                              ", which is not in the archive"));
    }
    const File& file = it->second;
    if (!file.problem.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Quoted(path), " ", file.problem));
    }
    if (file.link.empty()) return &file;
    current = file.link;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      Quoted(path), " is a link to a link, more than ", kMaxLinks, " times"));
}

class DirectoryArchive final : public ImageArchive {
 public:
  explicit DirectoryArchive(BorrowedFd dir) : dir_(dir) {}

  bool Has(absl::string_view path) const override { return Open(path).ok(); }

  absl::StatusOr<std::unique_ptr<ArchiveFile>> Open(
      absl::string_view path) const override;

  absl::StatusOr<std::vector<std::string>> TopLevel() const override;

 private:
  BorrowedFd dir_;
};

absl::StatusOr<std::unique_ptr<ArchiveFile>> DirectoryArchive::Open(
    absl::string_view path) const {
  // O_NONBLOCK: a FIFO would otherwise wait for a writer.
  absl::StatusOr<UniqueFd> fd = sys::OpenAt2(
      dir_, std::string(path), O_RDONLY | O_NONBLOCK | O_NOCTTY, sys::kBeneath);
  if (!fd.ok()) {
    const auto detail = GetErrorDetail(fd.status());
    const int error = detail.has_value() ? detail->error : 0;
    if (error == ENOENT || error == ENOTDIR) return Missing(path);
    if (error == EXDEV || error == ELOOP) {
      return absl::InvalidArgumentError(absl::StrCat(
          Quoted(path), " is a symbolic link that leaves the directory"));
    }
    return fd.status();
  }
  struct stat status = {};
  if (::fstat(fd->get(), &status) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", Quoted(path), ")"),
                      {.step = "layer.import", .path = path});
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(path), " is not a regular file"));
  }
  const BorrowedFd borrowed = fd->borrow();
  return std::make_unique<ArchiveFile>(*std::move(fd), borrowed, 0,
                                       static_cast<uint64_t>(status.st_size));
}

absl::StatusOr<std::vector<std::string>> DirectoryArchive::TopLevel() const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(dir_));
  std::sort(names.begin(), names.end());
  return names;
}

// What the first bytes of a file say about what has to be done first.
enum class Packing { kNone, kReadable, kUnreadable };

absl::StatusOr<Packing> PackingOf(BorrowedFd fd, std::string* name) {
  char magic[kCompressionMagic] = {};
  const ssize_t n = ::pread(fd.get(), magic, sizeof(magic), 0);
  if (n < 0) {
    return ErrnoError(errno, "pread(archive)", {.step = "layer.import"});
  }
  const absl::string_view head(magic, static_cast<size_t>(n));
  if (CompressionOf(head) != Compression::kNone) return Packing::kReadable;
  if (!absl::StartsWith(head, "PK\x03\x04")) return Packing::kNone;
  *name = "zip";
  return Packing::kUnreadable;
}

// Writes `data` but for whole steps of zeros, over which it moves: what such
// zeros take is no space, and not limited as if it were.
absl::Status AppendSparse(BorrowedFd fd, absl::string_view data,
                          absl::string_view name) {
  static constexpr char kZeros[kSpoolStep] = {};
  const auto zeros = [](absl::string_view step) {
    return ::memcmp(step.data(), kZeros, step.size()) == 0;
  };
  while (!data.empty()) {
    const bool hole = zeros(data.substr(0, kSpoolStep));
    size_t size = 0;
    while (size < data.size() && zeros(data.substr(size, kSpoolStep)) == hole) {
      size += std::min(kSpoolStep, data.size() - size);
    }
    if (!hole) {
      RETURN_IF_ERROR(sys::WriteAll(fd, data.substr(0, size), name));
    } else if (::lseek(fd.get(), static_cast<off_t>(size), SEEK_CUR) < 0) {
      return ErrnoError(errno, absl::StrCat("lseek(", name, ")"),
                        {.step = "layer.import"});
    }
    data.remove_prefix(size);
  }
  return absl::OkStatus();
}

// Copies `fd`, decompressed, into a new file.
absl::StatusOr<UniqueFd> Spool(BorrowedFd fd, bool seekable,
                               const SpoolOptions& options) {
  ASSIGN_OR_RETURN(UniqueFd copy, sys::OpenAt2(options.dir, options.name,
                                               O_RDWR | O_CREAT | O_EXCL,
                                               sys::kNoSymlinks, 0600));
  struct stat status = {};
  if (seekable && ::fstat(fd.get(), &status) != 0) {
    return ErrnoError(errno, "fstat(archive)", {.step = "layer.import"});
  }
  FdSource stream(fd);
  FdSource file(fd, 0, static_cast<uint64_t>(status.st_size));
  ByteSource& raw = seekable ? file : stream;
  ASSIGN_OR_RETURN(auto source, Decompress(raw, options.limits));
  const std::unique_ptr<char[]> buffer(new char[kSpoolChunk]);
  uint64_t size = 0;
  for (;;) {
    ASSIGN_OR_RETURN(
        const size_t n,
        ReadFully(*source, absl::MakeSpan(buffer.get(), kSpoolChunk)));
    if (n == 0) break;
    RETURN_IF_ERROR(AppendSparse(
        copy.borrow(), absl::string_view(buffer.get(), n), options.name));
    size += n;
    if (options.progress) RETURN_IF_ERROR(options.progress());
  }
  if (::ftruncate(copy.get(), static_cast<off_t>(size)) != 0) {
    return ErrnoError(errno, absl::StrCat("ftruncate(", options.name, ")"),
                      {.step = "layer.import"});
  }
  return copy;
}

absl::StatusOr<uint64_t> SizeOf(BorrowedFd fd) {
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0) {
    return ErrnoError(errno, "fstat(archive)", {.step = "layer.import"});
  }
  return static_cast<uint64_t>(status.st_size);
}

}  // namespace

absl::StatusOr<std::string> ImageArchive::ReadDocument(
    absl::string_view path, const DocumentLimit& limit) const {
  ASSIGN_OR_RETURN(std::unique_ptr<ArchiveFile> file, Open(path));
  if (file->size() > limit.bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(Quoted(path), ": ", file->size(), " bytes, more than ",
                     limit.option, " (", limit.bytes, ")"));
  }
  std::string text(file->size(), '\0');
  ASSIGN_OR_RETURN(const size_t n, ReadFully(*file, absl::MakeSpan(text)));
  text.resize(n);
  return text;
}

absl::StatusOr<std::unique_ptr<ImageArchive>> OpenImageArchive(
    BorrowedFd fd, const SpoolOptions& spool, size_t max_entries) {
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0) {
    return ErrnoError(errno, "fstat(archive)", {.step = "layer.import"});
  }
  if (S_ISDIR(status.st_mode)) return std::make_unique<DirectoryArchive>(fd);

  UniqueFd copy;
  BorrowedFd tar = fd;
  const bool seekable = S_ISREG(status.st_mode);
  std::string packing;
  Packing packed = Packing::kReadable;
  if (seekable) {
    ASSIGN_OR_RETURN(packed, PackingOf(fd, &packing));
  }
  if (packed == Packing::kReadable) {
    ASSIGN_OR_RETURN(copy, Spool(fd, seekable, spool));
    tar = copy.borrow();
    ASSIGN_OR_RETURN(packed, PackingOf(tar, &packing));
    if (packed == Packing::kReadable) packing = "one method after another";
  }
  if (!packing.empty()) {
    return absl::UnimplementedError(absl::StrCat(
        "the archive is compressed with ", packing, "; decompress it first"));
  }
  ASSIGN_OR_RETURN(const uint64_t size, SizeOf(tar));
  if (size == 0) return absl::InvalidArgumentError("the archive is empty");
  return TarArchive::Index(std::move(copy), tar, size, max_entries);
}

std::optional<std::string> CleanArchivePath(absl::string_view path) {
  std::vector<absl::string_view> parts;
  for (absl::string_view part : absl::StrSplit(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") return std::nullopt;
    parts.push_back(part);
  }
  if (parts.empty()) return std::nullopt;
  return absl::StrJoin(parts, "/");
}

}  // namespace caisson::layer
