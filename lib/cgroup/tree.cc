#include "lib/cgroup/tree.h"

#include <errno.h>
#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

// A group that was removed under our hands: its name is gone (ENOENT) or its
// files are (ENODEV).
bool Vanished(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() &&
         (detail->error == ENOENT || detail->error == ENODEV);
}

// One directory on the way from the top to where the walk is.
struct Level {
  std::string name;
  std::vector<std::string> pending;  // children that were not entered yet
};

}  // namespace

absl::Status WalkTree(const Filesystem& filesystem, const Dir& top,
                      const std::function<absl::Status(const Dir&)>& enter,
                      const std::function<absl::Status(
                          BorrowedFd parent, const std::string& name)>& leave) {
  const auto arrive = [&](const Dir& dir,
                          std::string name) -> absl::StatusOr<Level> {
    if (enter != nullptr) RETURN_IF_ERROR(enter(dir));
    ASSIGN_OR_RETURN(std::vector<std::string> children,
                     filesystem.Children(dir));
    return Level{std::move(name), std::move(children)};
  };
  ASSIGN_OR_RETURN(Dir here,
                   filesystem.OpenDir(top.fd.borrow(), top.path, "."));
  std::vector<Level> way;
  ASSIGN_OR_RETURN(Level first, arrive(here, ""));
  way.push_back(std::move(first));
  for (;;) {
    if (!way.back().pending.empty()) {
      const std::string name = std::move(way.back().pending.back());
      way.back().pending.pop_back();
      auto child = filesystem.OpenDir(here.fd.borrow(), top.path, name);
      if (!child.ok() && Vanished(child.status())) continue;
      RETURN_IF_ERROR(child.status());
      auto level = arrive(*child, name);
      if (!level.ok() && Vanished(level.status())) continue;
      RETURN_IF_ERROR(level.status());
      way.push_back(*std::move(level));
      here = *std::move(child);
      continue;
    }
    if (way.size() == 1) return absl::OkStatus();
    // ".." is sound here: a group cannot move to another parent.
    UniqueFd parent(
        ::openat(here.fd.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!parent.valid()) {
      return ErrnoError(errno, "open(\"..\")",
                        {.step = "cgroup", .path = top.path});
    }
    here.fd = std::move(parent);
    if (leave != nullptr) {
      RETURN_IF_ERROR(leave(here.fd.borrow(), way.back().name));
    }
    way.pop_back();
  }
}

namespace {

// The ids in `file` of `top` and its descendants.
absl::StatusOr<std::vector<pid_t>> ListIds(const Filesystem& filesystem,
                                           const Dir& top,
                                           absl::string_view file) {
  std::vector<pid_t> pids;
  const auto read = [&](const Dir& dir) -> absl::Status {
    auto text = filesystem.Read(dir, file);
    // A threaded group: its processes are listed in the domain above it.
    if (auto detail = GetErrorDetail(text.status());
        detail.has_value() && detail->error == EOPNOTSUPP) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(text.status());
    for (absl::string_view line :
         absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
      pid_t pid;
      if (absl::SimpleAtoi(line, &pid)) pids.push_back(pid);
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(WalkTree(filesystem, top, read, nullptr));
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  return pids;
}

}  // namespace

absl::StatusOr<std::vector<pid_t>> ListProcesses(const Filesystem& filesystem,
                                                 const Dir& top) {
  return ListIds(filesystem, top, "cgroup.procs");
}

absl::StatusOr<std::vector<pid_t>> ListThreads(const Filesystem& filesystem,
                                               CgroupVersion version,
                                               const Dir& top) {
  return ListIds(filesystem, top,
                 version == CgroupVersion::kV2 ? "cgroup.threads" : "tasks");
}

absl::Status RemoveDescendants(const Filesystem& filesystem, const Dir& top) {
  return WalkTree(
      filesystem, top, nullptr,
      [&](BorrowedFd parent, const std::string& name) {
        const int error = filesystem.RemoveDir(parent, name);
        if (error == 0 || error == ENOENT || error == EBUSY) {
          return absl::OkStatus();
        }
        return ErrnoError(
            error, absl::StrCat("rmdir(", Quoted(Join(top.path, name)), ")"),
            {.step = "cgroup", .path = top.path});
      });
}

}  // namespace caisson::cgroup
