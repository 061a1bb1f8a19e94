#include "lib/cgroup/stats.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/limits.h"
#include "lib/cgroup/stats_files.h"
#include "lib/cgroup/stats_parse.h"
#include "lib/cgroup/tree.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

// Holds memory.stat of any kernel; a file that does not fit is read again.
constexpr size_t kBufferSize = 16 << 10;
constexpr size_t kMostBytes = 16 << 20;

constexpr char kHugetlbPrefix[] = "hugetlb.";

int ErrnoOf(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() ? detail->error : 0;
}

absl::Status Removed(absl::string_view path) {
  return absl::FailedPreconditionError(absl::StrCat(
      "read(", Quoted(path), "): ENODEV: the control group was removed"));
}

// "2MB" of each file hugetlb.2MB<suffix> in the directory, in ascending order.
absl::StatusOr<std::vector<std::string>> PageSizes(const Filesystem& filesystem,
                                                   const Dir& dir,
                                                   absl::string_view suffix) {
  ASSIGN_OR_RETURN(UniqueFd fd,
                   filesystem.OpenFile(dir, ".", O_RDONLY | O_DIRECTORY));
  std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd.get()), ::closedir);
  if (stream == nullptr) {
    return ErrnoError(errno, absl::StrCat("fdopendir(", Quoted(dir.path), ")"),
                      {.step = "cgroup.stats", .path = dir.path});
  }
  (void)fd.release();
  std::vector<std::string> sizes;
  while (const dirent* entry = ::readdir(stream.get())) {
    absl::string_view name(entry->d_name);
    if (absl::ConsumePrefix(&name, kHugetlbPrefix) &&
        absl::ConsumeSuffix(&name, suffix) && !absl::StrContains(name, '.')) {
      sizes.emplace_back(name);
    }
  }
  std::sort(sizes.begin(), sizes.end(), [](const auto& a, const auto& b) {
    return std::make_pair(a.size(), a) < std::make_pair(b.size(), b);
  });
  return sizes;
}

void Increase(std::optional<int64_t>& sum, std::optional<int64_t> by) {
  if (by.has_value()) sum = sum.value_or(0) + *by;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StatsFiles>> StatsFiles::Open(
    std::shared_ptr<const Filesystem> filesystem,
    const std::vector<Member>& members) {
  std::unique_ptr<StatsFiles> files(new StatsFiles());
  files->filesystem_ = std::move(filesystem);
  for (const Member& member : members) {
    RETURN_IF_ERROR(files->OpenMember(member));
  }
  MutexLock lock(&files->mutex_);
  files->buffer_.resize(kBufferSize);
  return files;
}

absl::Status StatsFiles::Add(const Dir& dir, absl::string_view name,
                             File file) {
  auto fd = filesystem_->OpenFile(dir, std::string(name), O_RDONLY);
  if (!fd.ok()) {
    // Not in this kernel, or another controller's; or PSI is switched off.
    const int error = ErrnoOf(fd.status());
    if (error == ENOENT || error == EOPNOTSUPP) return absl::OkStatus();
    return WithStep(fd.status(), "cgroup.stats");
  }
  file.fd = *std::move(fd);
  file.path = Join(dir.path, name);
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status StatsFiles::OpenMember(const Member& member) {
  for (const StatsFile& known : StatsFilesOf(member.version)) {
    File file;
    file.parse = known.parse;
    RETURN_IF_ERROR(Add(member.dir, known.name, std::move(file)));
  }
  if (member.version == CgroupVersion::kV1 &&
      member.controllers[IndexOf(CgroupController::kMemory)]) {
    ASSIGN_OR_RETURN(memory_v1_.fd, sys::Duplicate(member.dir.fd.borrow()));
    memory_v1_.path = member.dir.path;
  }
  return OpenHugetlb(member);
}

absl::Status StatsFiles::OpenHugetlb(const Member& member) {
  const auto known_files = HugetlbFilesOf(member.version);
  ASSIGN_OR_RETURN(
      const std::vector<std::string> sizes,
      PageSizes(*filesystem_, member.dir, known_files.front().suffix));
  for (const std::string& size : sizes) {
    for (const HugetlbFile& known : known_files) {
      File file;
      file.parse_hugetlb = known.parse;
      file.page_size = page_sizes_.size();
      RETURN_IF_ERROR(Add(member.dir,
                          absl::StrCat(kHugetlbPrefix, size, known.suffix),
                          std::move(file)));
    }
    page_sizes_.push_back(size);
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::string_view> StatsFiles::ReadFile(const File& file) const {
  for (;;) {
    const ssize_t n = ::pread(file.fd.get(), buffer_.data(), buffer_.size(), 0);
    if (n >= 0 && static_cast<size_t>(n) < buffer_.size()) {
      return absl::string_view(buffer_.data(), static_cast<size_t>(n));
    }
    if (n >= 0) {
      if (buffer_.size() >= kMostBytes) {
        return absl::ResourceExhaustedError(absl::StrCat(
            Quoted(file.path), " has more than ", kMostBytes, " bytes"));
      }
      buffer_.resize(buffer_.size() * 4);
      continue;
    }
    const int error = errno;
    if (error == EINTR) continue;
    if (error == ENODEV) return Removed(file.path);
    if (error == EOPNOTSUPP) return absl::string_view();
    return ErrnoError(error, absl::StrCat("read(", Quoted(file.path), ")"),
                      {.step = "cgroup.stats", .path = file.path});
  }
}

absl::Status StatsFiles::SumEventsV1(CgroupMemoryStats& memory) const {
  if (!memory_v1_.fd.valid()) return absl::OkStatus();
  memory.events = memory.local_events;
  struct stat st = {};
  // kernfs counts child directories as links.
  if (::fstat(memory_v1_.fd.get(), &st) == 0 && st.st_nlink == 2) {
    return absl::OkStatus();
  }
  CgroupMemoryEvents sum;
  RETURN_IF_ERROR(WalkTree(
      *filesystem_, memory_v1_,
      [&](const Dir& dir) -> absl::Status {
        CgroupMemoryEvents here;
        ASSIGN_OR_RETURN(const std::string control,
                         filesystem_->Read(dir, kOomControlV1));
        RETURN_IF_ERROR(ParseKey(control, "oom_kill", here.oom_kill));
        ASSIGN_OR_RETURN(const std::string failures,
                         filesystem_->Read(dir, "memory.failcnt"));
        RETURN_IF_ERROR(ParseValue(failures, here.max));
        Increase(sum.oom_kill, here.oom_kill);
        Increase(sum.max, here.max);
        return absl::OkStatus();
      },
      nullptr));
  memory.events = sum;
  return absl::OkStatus();
}

absl::StatusOr<CgroupStats> StatsFiles::Read() const {
  CgroupStats stats;
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  stats.taken_at = absl::DurationFromTimespec(now);
  for (const std::string& size : page_sizes_) {
    stats.hugetlb.emplace_back().page_size = size;
  }
  MutexLock lock(&mutex_);
  for (const File& file : files_) {
    ASSIGN_OR_RETURN(const absl::string_view text, ReadFile(file));
    if (text.empty()) continue;
    const absl::Status status =
        file.parse != nullptr
            ? file.parse(text, stats)
            : file.parse_hugetlb(text, stats.hugetlb[file.page_size]);
    if (!status.ok()) return Annotate(status, Quoted(file.path));
  }
  RETURN_IF_ERROR(SumEventsV1(stats.memory));
  return stats;
}

}  // namespace caisson::cgroup

namespace caisson {
namespace {

std::optional<int64_t> Sum(const std::vector<CgroupIoDevice>& devices,
                           std::optional<int64_t> CgroupIoDevice::*field) {
  std::optional<int64_t> sum;
  for (const CgroupIoDevice& device : devices) {
    cgroup::Increase(sum, device.*field);
  }
  return sum;
}

}  // namespace

std::optional<int64_t> CgroupIoStats::read_bytes() const {
  return Sum(devices, &CgroupIoDevice::read_bytes);
}

std::optional<int64_t> CgroupIoStats::write_bytes() const {
  return Sum(devices, &CgroupIoDevice::write_bytes);
}

std::optional<int64_t> MemoryWithoutInactiveFile(
    const CgroupMemoryStats& memory) {
  if (!memory.usage.has_value() || !memory.use.inactive_file.has_value()) {
    return std::nullopt;
  }
  return std::max<int64_t>(0, *memory.usage - *memory.use.inactive_file);
}

std::optional<double> CpuPercent(const CgroupStats& earlier,
                                 const CgroupStats& later) {
  const absl::Duration between = later.taken_at - earlier.taken_at;
  if (!earlier.cpu.usage.has_value() || !later.cpu.usage.has_value() ||
      between <= absl::ZeroDuration()) {
    return std::nullopt;
  }
  return 100 *
         absl::FDivDuration(*later.cpu.usage - *earlier.cpu.usage, between);
}

std::vector<CgroupController> CgroupStatsControllers(
    const CgroupLayout& layout) {
  const bool has_v2 = !layout.hierarchies.empty() &&
                      layout.hierarchies[0].version == CgroupVersion::kV2 &&
                      layout.hierarchies[0].writable;
  std::vector<CgroupController> controllers;
  for (CgroupController controller :
       {CgroupController::kCpu, CgroupController::kCpuacct,
        CgroupController::kMemory, CgroupController::kIo,
        CgroupController::kPids, CgroupController::kHugetlb,
        CgroupController::kRdma, CgroupController::kMisc,
        CgroupController::kFreezer}) {
    // v2 tells whether a group is frozen by itself.
    if (controller == CgroupController::kFreezer && has_v2) continue;
    if (layout.Find(controller).usable) controllers.push_back(controller);
  }
  return controllers;
}

CgroupStatsReader::CgroupStatsReader(std::unique_ptr<cgroup::StatsFiles> files)
    : files_(std::move(files)) {}
CgroupStatsReader::CgroupStatsReader(CgroupStatsReader&&) noexcept = default;
CgroupStatsReader& CgroupStatsReader::operator=(CgroupStatsReader&&) noexcept =
    default;
CgroupStatsReader::~CgroupStatsReader() = default;

absl::StatusOr<CgroupStats> CgroupStatsReader::Read() const {
  return files_->Read();
}

}  // namespace caisson
