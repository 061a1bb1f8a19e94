// Which files a subscription needs, and the ones that the kernel notifies
// pollers of: memory.events, cgroup.events, pids.events, *.pressure.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <bitset>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/events.h"
#include "lib/cgroup/stats_parse.h"

namespace caisson::cgroup {
namespace {

using Kind = CgroupEventKind;
using Kinds = std::bitset<kCgroupEventKindCount>;

constexpr char kStep[] = "cgroup.events";

bool Has(const Kinds& kinds, Kind kind) {
  return kinds[static_cast<size_t>(kind)];
}

void Append(Kind kind, std::optional<int64_t> before,
            std::optional<int64_t> now, std::vector<CgroupEvent>& events) {
  const int64_t count = now.value_or(0) - before.value_or(0);
  if (count > 0) events.push_back({.kind = kind, .count = count});
}

// Files that say that they changed by POLLPRI, until they are read again.
class NotifyingFile : public Watched {
 public:
  explicit NotifyingFile(ControlFile file) : file_(std::move(file)) {}
  std::vector<Poll> polls() const override { return {{file_.fd(), EPOLLPRI}}; }

 protected:
  ControlFile file_;
};

class MemoryEvents final : public NotifyingFile {
 public:
  MemoryEvents(ControlFile file, const Kinds& kinds)
      : NotifyingFile(std::move(file)), kinds_(kinds) {}

  absl::Status Collect(std::vector<CgroupEvent>& events) override {
    ASSIGN_OR_RETURN(const std::string text, file_.Read());
    CgroupMemoryEvents now;
    RETURN_IF_ERROR(ParseMemoryEvents(text, now));
    static constexpr std::pair<Kind,
                               std::optional<int64_t> CgroupMemoryEvents::*>
        kFields[] = {
            {Kind::kLow, &CgroupMemoryEvents::low},
            {Kind::kHigh, &CgroupMemoryEvents::high},
            {Kind::kMax, &CgroupMemoryEvents::max},
            {Kind::kOom, &CgroupMemoryEvents::oom},
            {Kind::kOomKill, &CgroupMemoryEvents::oom_kill},
            {Kind::kOomGroupKill, &CgroupMemoryEvents::oom_group_kill}};
    for (const auto& [kind, field] : kFields) {
      if (Has(kinds_, kind)) Append(kind, last_.*field, now.*field, events);
    }
    last_ = now;
    return absl::OkStatus();
  }

 private:
  Kinds kinds_;
  CgroupMemoryEvents last_;
};

class PidsEvents final : public NotifyingFile {
 public:
  using NotifyingFile::NotifyingFile;

  absl::Status Collect(std::vector<CgroupEvent>& events) override {
    ASSIGN_OR_RETURN(const std::string text, file_.Read());
    std::optional<int64_t> now;
    RETURN_IF_ERROR(ParseKey(text, "max", now));
    Append(Kind::kPidsMax, last_, now, events);
    last_ = now;
    return absl::OkStatus();
  }

 private:
  std::optional<int64_t> last_;
};

// cgroup.events
class GroupEvents final : public NotifyingFile {
 public:
  GroupEvents(ControlFile file, const Kinds& kinds)
      : NotifyingFile(std::move(file)), kinds_(kinds) {}

  absl::Status Collect(std::vector<CgroupEvent>& events) override {
    ASSIGN_OR_RETURN(const std::string text, file_.Read());
    std::optional<int64_t> populated, frozen;
    RETURN_IF_ERROR(ParseKey(text, "populated", populated));
    RETURN_IF_ERROR(ParseKey(text, "frozen", frozen));
    Change(populated_, populated, Kind::kPopulated, Kind::kEmpty, events);
    Change(frozen_, frozen, Kind::kFrozen, Kind::kThawed, events);
    return absl::OkStatus();
  }

 private:
  void Change(std::optional<int64_t>& last, std::optional<int64_t> now, Kind on,
              Kind off, std::vector<CgroupEvent>& events) const {
    const Kind kind = now.value_or(0) != 0 ? on : off;
    if (now != last && Has(kinds_, kind)) events.push_back({.kind = kind});
    last = now;
  }

  Kinds kinds_;
  std::optional<int64_t> populated_, frozen_;
};

class Pressure final : public NotifyingFile {
 public:
  using NotifyingFile::NotifyingFile;

  absl::Status Collect(std::vector<CgroupEvent>& events) override {
    ASSIGN_OR_RETURN(const std::string text, file_.Read());
    CgroupEvent event = {.kind = Kind::kPressure};
    RETURN_IF_ERROR(ParsePressure(text, event.pressure));
    events.push_back(std::move(event));
    return absl::OkStatus();
  }
};

absl::Status Refuse(const Group& group, absl::string_view what,
                    absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat(
      "watch(cgroup ", Quoted(group.name()), ", ", what, "): ", why));
}

// Why v1 does not have an event; empty if it does.
absl::string_view MissingInV1(Kind kind) {
  switch (kind) {
    case Kind::kLow:
    case Kind::kHigh:
      return "cgroup v1 has no such limit; "
             "CgroupWatchOptions::usage_thresholds "
             "tells of an amount that is used";
    case Kind::kMax:
      return "cgroup v1 counts in memory.failcnt how often the limit was met, "
             "but has no event for it; a value of "
             "CgroupWatchOptions::usage_thresholds just below the limit does";
    case Kind::kOomGroupKill:
      return "cgroup v1 never kills a whole group";
    case Kind::kPopulated:
    case Kind::kEmpty:
      return "cgroup v1 has no event for it but a program that the kernel "
             "starts (release_agent); mount cgroup2, or wait for the processes "
             "by pidfd";
    case Kind::kFrozen:
    case Kind::kThawed:
      return "freezer.state of cgroup v1 has no event; Cgroup::Freeze() and "
             "Thaw() return when it is so";
    default:
      return "";
  }
}

// Since 6.11 the kernel notifies a file of v2 instead (kernel/cgroup/pids.c,
// pids_event()); seen in 6.18.
bool PidsEventsNotifyInV1() {
  utsname name = {};
  int major = 0, minor = 0;
  return ::uname(&name) == 0 &&
         ::sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
         std::make_pair(major, minor) < std::make_pair(6, 11);
}

absl::StatusOr<Kinds> ValidKinds(const CgroupWatchOptions& options) {
  Kinds kinds;
  for (Kind kind : options.kinds) {
    const size_t index = static_cast<size_t>(kind);
    if (index >= kinds.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("CgroupWatchOptions::kinds has ", index,
                       ", which is no kind of event"));
    }
    if (index >= static_cast<size_t>(Kind::kUsage)) {
      return absl::InvalidArgumentError(
          absl::StrCat("CgroupWatchOptions::kinds has ", CgroupEventName(kind),
                       kind == Kind::kRemoved
                           ? ", which always comes"
                           : ", which is asked for by an option of its own"));
    }
    kinds.set(index);
  }
  if (kinds.none() && options.usage_thresholds.empty() &&
      !options.reclaim_level.has_value()) {
    return absl::InvalidArgumentError(
        "CgroupWatchOptions names nothing to watch for");
  }
  for (int64_t threshold : options.usage_thresholds) {
    if (threshold > 0) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("CgroupWatchOptions::usage_thresholds has ", threshold,
                     "; want bytes, more than 0"));
  }
  return kinds;
}

// The first of `kinds` between `first` and `last`.
std::optional<Kind> FirstOf(const Kinds& kinds, Kind first, Kind last) {
  for (size_t i = static_cast<size_t>(first); i <= static_cast<size_t>(last);
       ++i) {
    if (kinds[i]) return static_cast<Kind>(i);
  }
  return std::nullopt;
}

// Collects the files of a subscription.
class Builder final {
 public:
  Builder(const Group& group, const CgroupWatchOptions& options,
          const Kinds& kinds)
      : group_(group),
        filesystem_(*group.filesystem()),
        options_(options),
        kinds_(kinds) {}

  absl::StatusOr<std::unique_ptr<EventSource>> Build() {
    RETURN_IF_ERROR(AddMemory());
    RETURN_IF_ERROR(AddGroup());
    RETURN_IF_ERROR(AddPids());
    return EventSource::Create(std::move(watched_));
  }

 private:
  absl::StatusOr<ControlFile> Open(const Dir& dir, absl::string_view name) {
    return ControlFile::Open(filesystem_, dir, name, O_RDONLY);
  }

  absl::Status RefuseForV1(Kind first, Kind last) const {
    for (size_t i = static_cast<size_t>(first); i <= static_cast<size_t>(last);
         ++i) {
      const Kind kind = static_cast<Kind>(i);
      if (kinds_[i] && !MissingInV1(kind).empty()) {
        return Refuse(group_, CgroupEventName(kind), MissingInV1(kind));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddMemory() {
    const std::optional<Kind> kind =
        FirstOf(kinds_, Kind::kLow, Kind::kOomGroupKill);
    const bool extra = !options_.usage_thresholds.empty() ||
                       options_.reclaim_level.has_value();
    if (!kind.has_value() && !extra) return absl::OkStatus();
    const Member* memory = group_.Find(CgroupController::kMemory);
    if (memory == nullptr) {
      return Refuse(group_,
                    CgroupEventName(kind.value_or(
                        options_.usage_thresholds.empty() ? Kind::kReclaim
                                                          : Kind::kUsage)),
                    "the group was created without the memory controller; name "
                    "it in CgroupOptions::controllers");
    }
    if (memory->version == CgroupVersion::kV1) return AddMemoryV1(memory->dir);
    if (extra) {
      return Refuse(group_,
                    options_.reclaim_level.has_value() ? "reclaim_level"
                                                       : "usage_thresholds",
                    "cgroup v2 has no such event; use kHigh with memory.high, "
                    "or WatchPressure()");
    }
    ASSIGN_OR_RETURN(ControlFile file,
                     Open(memory->dir, options_.local ? "memory.events.local"
                                                      : "memory.events"));
    watched_.push_back(std::make_unique<MemoryEvents>(std::move(file), kinds_));
    return absl::OkStatus();
  }

  absl::Status AddMemoryV1(const Dir& dir) {
    RETURN_IF_ERROR(RefuseForV1(Kind::kLow, Kind::kOomGroupKill));
    if (Has(kinds_, Kind::kOom) || Has(kinds_, Kind::kOomKill)) {
      ASSIGN_OR_RETURN(watched_.emplace_back(),
                       WatchOomV1(filesystem_, dir, Has(kinds_, Kind::kOom),
                                  Has(kinds_, Kind::kOomKill)));
    }
    for (int64_t threshold : options_.usage_thresholds) {
      ASSIGN_OR_RETURN(watched_.emplace_back(),
                       WatchUsageV1(filesystem_, dir, threshold));
    }
    if (options_.reclaim_level.has_value()) {
      ASSIGN_OR_RETURN(watched_.emplace_back(),
                       WatchReclaimV1(filesystem_, dir, *options_.reclaim_level,
                                      options_.local));
    }
    return absl::OkStatus();
  }

  absl::Status AddGroup() {
    if (!FirstOf(kinds_, Kind::kPopulated, Kind::kThawed).has_value()) {
      return absl::OkStatus();
    }
    const Member* v2 = group_.FindV2();
    if (v2 == nullptr) return RefuseForV1(Kind::kPopulated, Kind::kThawed);
    ASSIGN_OR_RETURN(ControlFile file, Open(v2->dir, "cgroup.events"));
    watched_.push_back(std::make_unique<GroupEvents>(std::move(file), kinds_));
    return absl::OkStatus();
  }

  absl::Status AddPids() {
    if (!Has(kinds_, Kind::kPidsMax)) return absl::OkStatus();
    const Member* pids = group_.Find(CgroupController::kPids);
    if (pids == nullptr) {
      return Refuse(group_, CgroupEventName(Kind::kPidsMax),
                    "the group was created without the pids controller; name "
                    "it in CgroupOptions::controllers");
    }
    if (pids->version == CgroupVersion::kV1 && !PidsEventsNotifyInV1()) {
      return Refuse(group_, CgroupEventName(Kind::kPidsMax),
                    "since Linux 6.11 nobody is told when pids.events of "
                    "cgroup v1 changes; CgroupPidsStats::max_events has the "
                    "number");
    }
    // Before 6.11, and on v1, pids.events is of the group alone.
    absl::StatusOr<ControlFile> file = absl::NotFoundError("");
    if (options_.local) file = Open(pids->dir, "pids.events.local");
    if (!file.ok()) file = Open(pids->dir, "pids.events");
    RETURN_IF_ERROR(file.status());
    watched_.push_back(std::make_unique<PidsEvents>(*std::move(file)));
    return absl::OkStatus();
  }

  const Group& group_;
  const Filesystem& filesystem_;
  const CgroupWatchOptions& options_;
  Kinds kinds_;
  std::vector<std::unique_ptr<Watched>> watched_;
};

absl::Status ValidateTrigger(const CgroupPressureTrigger& trigger) {
  // kernel/sched/psi.c: WINDOW_MIN_US, WINDOW_MAX_US.
  if (trigger.window < absl::Milliseconds(500) ||
      trigger.window > absl::Seconds(10)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "CgroupPressureTrigger::window is ",
        absl::FormatDuration(trigger.window), "; want 500ms to 10s"));
  }
  if (trigger.stall < absl::Microseconds(1) || trigger.stall > trigger.window) {
    return absl::InvalidArgumentError(absl::StrCat(
        "CgroupPressureTrigger::stall is ", absl::FormatDuration(trigger.stall),
        "; want 1us to the window of ", absl::FormatDuration(trigger.window)));
  }
  return absl::OkStatus();
}

absl::string_view PressureFile(CgroupResource resource) {
  switch (resource) {
    case CgroupResource::kCpu:
      return "cpu.pressure";
    case CgroupResource::kMemory:
      return "memory.pressure";
    case CgroupResource::kIo:
      return "io.pressure";
  }
  return "";
}

absl::Status PressureError(int error, absl::string_view call,
                           const std::string& path) {
  absl::string_view hint;
  if (error == ENOENT || error == EOPNOTSUPP) {
    hint =
        "pressure is not accounted: the kernel lacks CONFIG_PSI, was booted "
        "without psi=1 or with psi=0, or cgroup.pressure of the group is 0";
  } else if (error == EINVAL) {
    hint =
        "without CAP_SYS_RESOURCE in the initial user namespace the window "
        "must be a multiple of 2s";
  } else if (error == EPERM || error == EACCES) {
    hint =
        "before Linux 6.5 a trigger needs CAP_SYS_RESOURCE in the initial user "
        "namespace";
  }
  return ErrnoError(error, call, {.step = kStep, .path = path, .hint = hint});
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventSource>> OpenWatch(
    const Group& group, const CgroupWatchOptions& options) {
  RETURN_IF_ERROR(group.CheckExists());
  ASSIGN_OR_RETURN(const Kinds kinds, ValidKinds(options));
  return Builder(group, options, kinds).Build();
}

absl::StatusOr<std::unique_ptr<EventSource>> OpenPressure(
    const Group& group, const CgroupPressureTrigger& trigger) {
  RETURN_IF_ERROR(group.CheckExists());
  RETURN_IF_ERROR(ValidateTrigger(trigger));
  const absl::string_view name = PressureFile(trigger.resource);
  const Member* v2 = group.FindV2();
  if (v2 == nullptr) {
    return Refuse(group, name,
                  "cgroup v1 does not account pressure by group, and "
                  "/proc/pressure is that of the whole machine; mount cgroup2, "
                  "without controllers will do");
  }
  auto file = ControlFile::Open(*group.filesystem(), v2->dir, name,
                                O_RDWR | O_NONBLOCK);
  const std::string path = Join(v2->dir.path, name);
  if (!file.ok()) {
    const auto detail = GetErrorDetail(file.status());
    return PressureError(detail.has_value() ? detail->error : EIO,
                         absl::StrCat("open(", Quoted(path), ")"), path);
  }
  const std::string text =
      absl::StrCat(trigger.full ? "full" : "some", " ",
                   absl::ToInt64Microseconds(trigger.stall), " ",
                   absl::ToInt64Microseconds(trigger.window));
  // With the byte 0, as accounting/psi.rst has it.
  if (::write(file->fd().get(), text.c_str(), text.size() + 1) < 0) {
    return PressureError(
        errno, absl::StrCat("write(", Quoted(path), ", ", Quoted(text), ")"),
        path);
  }
  std::vector<std::unique_ptr<Watched>> watched;
  watched.push_back(std::make_unique<Pressure>(*std::move(file)));
  return EventSource::Create(std::move(watched));
}

}  // namespace caisson::cgroup
