#include "lib/runtime/resctrl.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::runtime {
namespace {

constexpr char kStep[] = "resctrl";
constexpr char kField[] = "config.json: linux.intelRdt";
constexpr char kSchemata[] = "schemata";
constexpr char kMonitoringGroups[] = "mon_groups";
constexpr size_t kMaxFile = 1 << 20;
constexpr mode_t kMode = 0755;

// Directories of the kernel's own.
constexpr absl::string_view kReserved[] = {"info", "mon_groups", "mon_data"};

absl::Status FileError(int error, absl::string_view call,
                       const std::string& path, absl::string_view hint = {}) {
  return ErrnoError(error,
                    absl::StrCat(kField, ": ", call, "(", Quoted(path), ")"),
                    {.step = kStep, .path = path, .hint = hint});
}

absl::StatusOr<std::string> Read(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd file, sys::Open(path, O_RDONLY));
  return sys::ReadAll(file.borrow(), kMaxFile, path);
}

// In one write(2), which the kernel takes as a whole or not at all. The kernel
// makes the files with their directory; what it did not make cannot be made.
absl::Status Write(const std::string& root, const std::string& path,
                   const std::string& text) {
  const UniqueFd file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.valid()) {
    return FileError(errno, "open", path,
                     errno == EPERM || errno == EACCES
                         ? "the processor has nothing of that kind"
                         : "");
  }
  const ssize_t size = ::write(file.get(), text.data(), text.size());
  if (size == static_cast<ssize_t>(text.size())) return absl::OkStatus();
  const int error = size < 0 ? errno : EIO;
  const auto why = Read(absl::StrCat(root, "/info/last_cmd_status"));
  return FileError(error, "write", path,
                   why.ok() ? absl::StripAsciiWhitespace(*why) : "");
}

absl::Status CheckName(const std::string& id) {
  bool good = id != "." && id != ".." && !absl::StrContains(id, '/') &&
              !absl::StrContains(id, '\n');
  for (const absl::string_view name : kReserved) good = good && id != name;
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(kField, ".closID: ", Quoted(id), " is no name of a group"));
}

// Of the class of service; "/" is that of everything that is in no other.
std::string DirectoryOf(const std::string& root, const spec::IntelRdt& rdt,
                        const std::string& id) {
  if (rdt.clos_id == "/") return root;
  return absl::StrCat(root, "/", rdt.clos_id.empty() ? id : rdt.clos_id);
}

std::string MonitoringOf(const std::string& directory, const std::string& id) {
  return absl::StrCat(directory, "/", kMonitoringGroups, "/", id);
}

bool IsBandwidth(absl::string_view line) {
  return absl::StartsWith(absl::StripLeadingAsciiWhitespace(line), "MB:");
}

// What is to be written, in the order in which later lines win.
std::vector<std::string> LinesOf(const spec::IntelRdt& rdt) {
  std::vector<std::string> lines;
  const auto add = [&lines](const std::string& text, bool bandwidth) {
    for (const absl::string_view line :
         absl::StrSplit(text, '\n', absl::SkipWhitespace())) {
      if (bandwidth || !IsBandwidth(line)) lines.emplace_back(line);
    }
  };
  // As the specification has it, of the two the second says the bandwidth.
  add(rdt.l3_cache_schema, rdt.mem_bw_schema.empty());
  add(rdt.mem_bw_schema, true);
  for (const std::string& line : rdt.schemata) add(line, true);
  return lines;
}

// "L3:0=ff;1=ff" as {"L3:0": ff, "L3:1": ff}; the later of two counts.
using Values = std::map<std::string, std::string>;
Values ParseSchemata(const std::vector<std::string>& lines) {
  Values values;
  for (const std::string& line : lines) {
    const std::vector<absl::string_view> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (parts.size() != 2) continue;
    const std::string resource(absl::StripAsciiWhitespace(parts[0]));
    for (const absl::string_view domain : absl::StrSplit(parts[1], ';')) {
      const std::vector<absl::string_view> pair =
          absl::StrSplit(domain, absl::MaxSplits('=', 1));
      if (pair.size() != 2) continue;
      values[absl::StrCat(resource, ":", absl::StripAsciiWhitespace(pair[0]))] =
          std::string(absl::StripAsciiWhitespace(pair[1]));
    }
  }
  return values;
}

// The kernel pads masks with zeros, and bandwidths with spaces.
bool SameValue(const std::string& a, const std::string& b) {
  uint64_t first = 0;
  uint64_t second = 0;
  if (absl::SimpleHexAtoi(a, &first) && absl::SimpleHexAtoi(b, &second)) {
    return first == second;
  }
  return a == b;
}

absl::Status CompareSchemata(const std::string& directory,
                             const std::vector<std::string>& lines) {
  const std::string path = absl::StrCat(directory, "/", kSchemata);
  ASSIGN_OR_RETURN(const std::string text, Read(path));
  const Values there =
      ParseSchemata(absl::StrSplit(text, '\n', absl::SkipWhitespace()));
  for (const auto& [domain, value] : ParseSchemata(lines)) {
    const auto found = there.find(domain);
    if (found != there.end() && SameValue(found->second, value)) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        kField, ": the group exists and ", Quoted(path), " has ", domain,
        found == there.end() ? " not" : absl::StrCat("=", found->second),
        ", where the document has ", value));
  }
  return absl::OkStatus();
}

// True if it was not there.
absl::StatusOr<bool> MakeDirectory(const std::string& path) {
  if (::mkdir(path.c_str(), kMode) == 0) return true;
  if (errno == EEXIST) return false;
  return FileError(errno, "mkdir", path,
                   errno == ENOSPC
                       ? "the processor has no more classes of service, or no "
                         "more ids to count by"
                       : "");
}

absl::Status RemoveDirectory(const std::string& path) {
  if (::rmdir(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
  return FileError(errno, "rmdir", path);
}

}  // namespace

absl::StatusOr<std::string> FindResctrl() {
  ASSIGN_OR_RETURN(const std::string text, Read("/proc/self/mountinfo"));
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const size_t dash = line.find(" - resctrl ");
    if (dash == absl::string_view::npos) continue;
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    constexpr size_t kMountPoint = 4;
    if (fields.size() > kMountPoint) return std::string(fields[kMountPoint]);
  }
  const auto known = Read("/proc/filesystems");
  const bool has = known.ok() && absl::StrContains(*known, "\tresctrl\n");
  return absl::FailedPreconditionError(absl::StrCat(
      kField, ": ",
      has ? "resctrl is not mounted: mount -t resctrl resctrl /sys/fs/resctrl"
          : "this kernel has no resctrl, or this processor nothing that it "
            "controls (rdt_a, cat_l3, mba in /proc/cpuinfo)"));
}

ResctrlGroup::ResctrlGroup(ResctrlGroup&& other) noexcept
    : root_(std::move(other.root_)),
      directory_(std::move(other.directory_)),
      monitoring_(std::move(other.monitoring_)),
      made_directory_(std::exchange(other.made_directory_, false)),
      made_monitoring_(std::exchange(other.made_monitoring_, false)) {}

ResctrlGroup::~ResctrlGroup() {
  if (made_monitoring_) RemoveDirectory(monitoring_).IgnoreError();
  if (made_directory_) RemoveDirectory(directory_).IgnoreError();
}

absl::StatusOr<ResctrlGroup> ResctrlGroup::Make(const std::string& root,
                                                const spec::IntelRdt& rdt,
                                                const std::string& id) {
  if (rdt.clos_id != "/") {
    RETURN_IF_ERROR(CheckName(rdt.clos_id.empty() ? id : rdt.clos_id));
  }
  const std::vector<std::string> lines = LinesOf(rdt);
  ResctrlGroup group;
  group.root_ = root;
  group.directory_ = DirectoryOf(root, rdt, id);
  if (rdt.clos_id.empty() || !lines.empty()) {
    ASSIGN_OR_RETURN(group.made_directory_, MakeDirectory(group.directory_));
    if (rdt.clos_id.empty() && !group.made_directory_) {
      return absl::AlreadyExistsError(absl::StrCat(
          kField, ": ", Quoted(group.directory_), " exists already"));
    }
  } else if (::access(group.directory_.c_str(), F_OK) != 0) {
    return FileError(errno, "access", group.directory_,
                     "a closID without schemata is that of a group that is "
                     "there");
  }
  if (group.made_directory_ && !lines.empty()) {
    RETURN_IF_ERROR(Write(root, absl::StrCat(group.directory_, "/", kSchemata),
                          absl::StrCat(absl::StrJoin(lines, "\n"), "\n")));
  } else if (!lines.empty()) {
    RETURN_IF_ERROR(CompareSchemata(group.directory_, lines));
  }
  if (rdt.enable_monitoring) {
    group.monitoring_ = MonitoringOf(group.directory_, id);
    ASSIGN_OR_RETURN(group.made_monitoring_, MakeDirectory(group.monitoring_));
    if (!group.made_monitoring_) {
      return absl::AlreadyExistsError(absl::StrCat(
          kField, ": ", Quoted(group.monitoring_), " exists already"));
    }
  }
  return group;
}

absl::Status ResctrlGroup::Assign(pid_t pid) const {
  // A task that is moved to another class leaves its monitoring group, so the
  // class comes first.
  for (const std::string& directory : {directory_, monitoring_}) {
    if (directory.empty()) continue;
    RETURN_IF_ERROR(Write(root_, absl::StrCat(directory, "/tasks"),
                          absl::StrCat(pid, "\n")));
  }
  return absl::OkStatus();
}

void ResctrlGroup::Keep() {
  made_directory_ = false;
  made_monitoring_ = false;
}

absl::Status RemoveResctrlGroup(const std::string& root,
                                const spec::IntelRdt& rdt,
                                const std::string& id) {
  const std::string directory = DirectoryOf(root, rdt, id);
  absl::Status status;
  if (rdt.enable_monitoring) {
    status = RemoveDirectory(MonitoringOf(directory, id));
  }
  if (rdt.clos_id.empty()) status.Update(RemoveDirectory(directory));
  return status;
}

}  // namespace caisson::runtime
