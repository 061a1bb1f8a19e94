#include "lib/cgroup/events.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::cgroup {
namespace {

constexpr char kStep[] = "cgroup.events";

absl::Status EventError(int error, absl::string_view call) {
  return ErrnoError(error, call, {.step = kStep});
}

}  // namespace

absl::StatusOr<ControlFile> ControlFile::Open(const Filesystem& filesystem,
                                              const Dir& dir,
                                              absl::string_view name,
                                              int flags) {
  ControlFile file;
  auto fd = filesystem.OpenFile(dir, std::string(name), flags);
  if (!fd.ok()) return WithStep(fd.status(), kStep);
  file.fd_ = *std::move(fd);
  file.path_ = Join(dir.path, name);
  return file;
}

absl::StatusOr<std::string> ControlFile::Read() const {
  // No file that has events is longer.
  char text[4096];
  ssize_t n;
  do {
    n = ::pread(fd_.get(), text, sizeof(text), 0);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return std::string(text, static_cast<size_t>(n));
  const int error = errno;
  const std::string call = absl::StrCat("read(", Quoted(path_), ")");
  if (error == ENODEV) {
    return absl::NotFoundError(
        absl::StrCat(call, ": ENODEV: the control group was removed"));
  }
  return ErrnoError(error, call, {.step = kStep, .path = path_});
}

absl::StatusOr<std::unique_ptr<EventSource>> EventSource::Create(
    std::vector<std::unique_ptr<Watched>> watched) {
  std::unique_ptr<EventSource> source(new EventSource());
  source->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!source->epoll_.valid()) {
    return EventError(errno, "epoll_create1(EPOLL_CLOEXEC)");
  }
  for (const auto& one : watched) {
    for (const Watched::Poll& poll : one->polls()) {
      epoll_event event = {};
      event.events = poll.events;
      if (::epoll_ctl(source->epoll_.get(), EPOLL_CTL_ADD, poll.fd.get(),
                      &event) != 0) {
        return EventError(errno, "epoll_ctl(EPOLL_CTL_ADD)");
      }
    }
    std::vector<CgroupEvent> before;
    RETURN_IF_ERROR(one->Collect(before));
  }
  MutexLock lock(&source->mutex_);
  source->watched_ = std::move(watched);
  return source;
}

absl::Status EventSource::Forget() {
  for (const auto& one : watched_) {
    for (const Watched::Poll& poll : one->polls()) {
      if (::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, poll.fd.get(), nullptr) !=
          0) {
        return EventError(errno, "epoll_ctl(EPOLL_CTL_DEL)");
      }
    }
  }
  watched_.clear();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CgroupEvent>> EventSource::Read() {
  std::vector<CgroupEvent> events;
  MutexLock lock(&mutex_);
  for (const auto& one : watched_) {
    const absl::Status status = one->Collect(events);
    if (absl::IsNotFound(status)) {
      RETURN_IF_ERROR(Forget());
      events.push_back({.kind = CgroupEventKind::kRemoved});
      return events;
    }
    RETURN_IF_ERROR(status);
  }
  return events;
}

}  // namespace caisson::cgroup

namespace caisson {

absl::string_view CgroupEventName(CgroupEventKind kind) {
  static constexpr absl::string_view kNames[kCgroupEventKindCount] = {
      "low",       "high",     "max",    "oom",    "oom_kill", "oom_group_kill",
      "populated", "empty",    "frozen", "thawed", "pids_max", "usage",
      "reclaim",   "pressure", "removed"};
  return kNames[static_cast<size_t>(kind)];
}

CgroupEvents::CgroupEvents(std::unique_ptr<cgroup::EventSource> source)
    : source_(std::move(source)) {}
CgroupEvents::CgroupEvents(CgroupEvents&&) noexcept = default;
CgroupEvents& CgroupEvents::operator=(CgroupEvents&&) noexcept = default;
CgroupEvents::~CgroupEvents() = default;

BorrowedFd CgroupEvents::fd() const { return source_->fd(); }

absl::StatusOr<std::vector<CgroupEvent>> CgroupEvents::Read() const {
  return source_->Read();
}

absl::StatusOr<std::vector<CgroupEvent>> CgroupEvents::Wait(
    absl::Duration timeout) const {
  const Deadline deadline(timeout);
  for (;;) {
    pollfd poll = {.fd = source_->fd().get(), .events = POLLIN};
    if (deadline.Poll({&poll, 1}) > 0) {
      ASSIGN_OR_RETURN(std::vector<CgroupEvent> events, source_->Read());
      if (!events.empty()) return events;
    }
    if (deadline.expired()) return std::vector<CgroupEvent>();
  }
}

}  // namespace caisson
