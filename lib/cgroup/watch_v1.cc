// Events of cgroup v1's memory controller: admin-guide/cgroup-v1/memory.rst,
// sections 9 to 11.
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/events.h"
#include "lib/cgroup/limits.h"
#include "lib/cgroup/stats_parse.h"

namespace caisson::cgroup {
namespace {

using Kind = CgroupEventKind;

constexpr char kStep[] = "cgroup.events";
constexpr char kEventControl[] = "cgroup.event_control";

// An eventfd that the kernel increases, and the file that it is about.
struct Registered {
  UniqueFd eventfd;
  ControlFile file;

  // How often it happened since the last call. Also when the group is removed:
  // whoever sees a number reads the file.
  int64_t Take() const {
    uint64_t count = 0;
    return ::read(eventfd.get(), &count, sizeof(count)) == sizeof(count)
               ? static_cast<int64_t>(count)
               : 0;
  }
};

// cgroup.event_control: "<eventfd> <fd of the file> <arguments>".
absl::StatusOr<Registered> Register(const Filesystem& filesystem,
                                    const Dir& memory, absl::string_view name,
                                    absl::string_view arguments) {
  Registered registered;
  registered.eventfd = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!registered.eventfd.valid()) {
    return ErrnoError(errno, "eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)",
                      {.step = kStep});
  }
  ASSIGN_OR_RETURN(registered.file,
                   ControlFile::Open(filesystem, memory, name, O_RDONLY));
  const absl::Status status = filesystem.Write(
      memory, kEventControl,
      absl::StrCat(registered.eventfd.get(), " ", registered.file.fd().get(),
                   arguments.empty() ? "" : " ", arguments));
  if (!status.ok()) {
    return WithStep(Annotate(status, absl::StrCat("watch(", name, ")")), kStep);
  }
  return registered;
}

class Oom final : public Watched {
 public:
  Oom(Registered registered, UniqueFd timer, bool oom, bool oom_kill)
      : registered_(std::move(registered)),
        timer_(std::move(timer)),
        tell_oom_(oom),
        tell_kill_(oom_kill) {}

  std::vector<Poll> polls() const override {
    return {{registered_.eventfd.borrow(), EPOLLIN},
            {timer_.borrow(), EPOLLIN}};
  }

  // The kernel tells of an OOM before it kills, and nothing tells of the kill.
  // So as long as the group is under OOM, a timer of the kernel makes the
  // descriptor readable again soon.
  absl::Status Collect(std::vector<CgroupEvent>& events) override {
    const int64_t count = registered_.Take();
    ASSIGN_OR_RETURN(const std::string text, registered_.file.Read());
    std::optional<int64_t> under_oom, disabled, kills;
    RETURN_IF_ERROR(ParseKey(text, "under_oom", under_oom));
    RETURN_IF_ERROR(ParseKey(text, "oom_kill_disable", disabled));
    RETURN_IF_ERROR(ParseKey(text, "oom_kill", kills));
    if (count > 0 && tell_oom_) {
      events.push_back({.kind = Kind::kOom, .count = count});
    }
    const int64_t killed = kills.value_or(0) - last_kills_;
    last_kills_ = kills.value_or(0);
    if (killed > 0 && tell_kill_) {
      events.push_back({.kind = Kind::kOomKill, .count = killed});
    }
    const bool waiting =
        under_oom.value_or(0) != 0 && disabled.value_or(0) == 0 && tell_kill_;
    return LookAgain(waiting);
  }

 private:
  absl::Status LookAgain(bool again) {
    constexpr absl::Duration kFirst = absl::Milliseconds(1);
    constexpr absl::Duration kLongest = absl::Milliseconds(100);
    // Zero disarms it, and setting it takes back that it had expired.
    delay_ =
        again ? std::clamp(2 * delay_, kFirst, kLongest) : absl::ZeroDuration();
    const itimerspec when = {.it_interval = {},
                             .it_value = absl::ToTimespec(delay_)};
    if (::timerfd_settime(timer_.get(), 0, &when, nullptr) == 0) {
      return absl::OkStatus();
    }
    return ErrnoError(errno, "timerfd_settime()", {.step = kStep});
  }

  Registered registered_;
  UniqueFd timer_;
  bool tell_oom_;
  bool tell_kill_;
  int64_t last_kills_ = 0;
  absl::Duration delay_;
};

// Usage thresholds and reclaim: the number is all that there is to know.
class Counted final : public Watched {
 public:
  Counted(Registered registered, Dir memory, CgroupEvent event)
      : registered_(std::move(registered)),
        memory_(std::move(memory)),
        event_(std::move(event)) {}

  std::vector<Poll> polls() const override {
    return {{registered_.eventfd.borrow(), EPOLLIN}};
  }

  absl::Status Collect(std::vector<CgroupEvent>& events) override {
    // The removal of the group is counted, too, but later.
    if (::faccessat(memory_.fd.get(), kEventControl, F_OK, 0) != 0) {
      return absl::NotFoundError("the control group was removed");
    }
    event_.count = registered_.Take();
    if (event_.count > 0) events.push_back(event_);
    return absl::OkStatus();
  }

 private:
  Registered registered_;
  Dir memory_;
  CgroupEvent event_;
};

absl::StatusOr<std::unique_ptr<Watched>> MakeCounted(
    const Filesystem& filesystem, const Dir& memory, absl::string_view name,
    absl::string_view arguments, CgroupEvent event) {
  ASSIGN_OR_RETURN(Registered registered,
                   Register(filesystem, memory, name, arguments));
  ASSIGN_OR_RETURN(Dir dir,
                   filesystem.OpenDir(memory.fd.borrow(), memory.path, "."));
  return std::make_unique<Counted>(std::move(registered), std::move(dir),
                                   std::move(event));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Watched>> WatchOomV1(
    const Filesystem& filesystem, const Dir& memory, bool oom, bool oom_kill) {
  ASSIGN_OR_RETURN(Registered registered,
                   Register(filesystem, memory, kOomControlV1, ""));
  UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.valid()) {
    return ErrnoError(errno, "timerfd_create(CLOCK_MONOTONIC)",
                      {.step = kStep});
  }
  return std::make_unique<Oom>(std::move(registered), std::move(timer), oom,
                               oom_kill);
}

absl::StatusOr<std::unique_ptr<Watched>> WatchUsageV1(
    const Filesystem& filesystem, const Dir& memory, int64_t threshold) {
  return MakeCounted(filesystem, memory, "memory.usage_in_bytes",
                     absl::StrCat(threshold),
                     {.kind = Kind::kUsage, .threshold = threshold});
}

absl::StatusOr<std::unique_ptr<Watched>> WatchReclaimV1(
    const Filesystem& filesystem, const Dir& memory, CgroupReclaimLevel level,
    bool local) {
  static constexpr absl::string_view kLevels[] = {"low", "medium", "critical"};
  return MakeCounted(filesystem, memory, "memory.pressure_level",
                     absl::StrCat(kLevels[static_cast<size_t>(level)], ",",
                                  local ? "local" : "hierarchy"),
                     {.kind = Kind::kReclaim});
}

}  // namespace caisson::cgroup
