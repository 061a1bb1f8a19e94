#include "lib/keeper/state.h"

#include <utility>

#include "caisson/container_events.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/limits.h"
#include "lib/events/append_event.h"
#include "lib/keeper/spec_record.h"
#include "lib/sys/boot_id.h"

namespace caisson {

absl::string_view ContainerStatusName(ContainerStatus status) {
  switch (status) {
    case ContainerStatus::kCreated:
      return "created";
    case ContainerStatus::kRunning:
      return "running";
    case ContainerStatus::kPaused:
      return "paused";
    case ContainerStatus::kRestarting:
      return "restarting";
    case ContainerStatus::kExited:
      return "exited";
  }
  return "unknown";
}

namespace keeper {
namespace {

constexpr int kKilled = 137;

bool SaysAlive(const StateRecord& state) {
  const auto status = static_cast<ContainerStatus>(state.status());
  return state.composing() || status == ContainerStatus::kRunning ||
         status == ContainerStatus::kPaused ||
         status == ContainerStatus::kRestarting;
}

}  // namespace

absl::StatusOr<Observed> Observe(const ContainerDirectory& directory) {
  Observed observed;
  StateRecord& state = observed.state;
  do {
    // In this order: a keeper that is gone has written its last.
    ASSIGN_OR_RETURN(observed.has_keeper, directory.HasKeeper());
    ASSIGN_OR_RETURN(observed.record, directory.ReadRecord());
    ASSIGN_OR_RETURN(state, directory.ReadState());
    if (observed.has_keeper || !SaysAlive(state)) return observed;
    // One that was made in between has written that.
    ASSIGN_OR_RETURN(observed.has_keeper, directory.HasKeeper());
  } while (observed.has_keeper);
  observed.lost = true;
  state.set_composing(false);
  ASSIGN_OR_RETURN(const std::string boot_id, sys::BootId());
  const bool rebooted = state.boot_id() != boot_id;
  state.set_status(static_cast<int>(ContainerStatus::kExited));
  state.set_pid(0);
  state.set_keeper_pid(0);
  state.set_exit_code(kKilled);
  state.clear_exit();
  state.set_error(rebooted ? "the machine was off"
                           : "its keeper was killed, and it with it");
  return observed;
}

absl::StatusOr<ContainerInfo> InfoOf(const Observed& observed) {
  const ContainerRecord& record = observed.record;
  const StateRecord& state = observed.state;
  ContainerInfo info;
  info.id = record.id();
  ASSIGN_OR_RETURN(info.spec, FromRecord(record.spec()));
  info.image_id = record.image_id();
  info.created = FromUnixNanoseconds(record.created_unix_ns());
  info.argv.assign(record.argv().begin(), record.argv().end());
  info.env.assign(record.env().begin(), record.env().end());
  if (info.spec.bundle.empty()) info.working_dir = record.working_dir();
  info.user = record.user();
  info.labels.insert(record.labels().begin(), record.labels().end());
  info.status = static_cast<ContainerStatus>(state.status());
  info.pid = state.pid();
  info.keeper_pid = observed.has_keeper ? state.keeper_pid() : 0;
  info.started = FromUnixNanoseconds(state.started_unix_ns());
  info.finished = FromUnixNanoseconds(state.finished_unix_ns());
  if (state.has_exit()) info.exit = FromRecord(state.exit());
  info.exit_code = state.exit_code();
  info.error = state.error();
  info.restart_count = state.restart_count();
  info.health = FromRecord(state.health());
  info.address = state.address();
  info.mac = state.mac();
  for (const Port& port : state.ports()) {
    info.ports.push_back(FromRecord(port));
  }
  return info;
}

absl::StatusOr<ContainerRecord> UpdatedRecord(const ContainerRecord& record,
                                              const Request::Update& update) {
  ContainerRecord updated = record;
  ASSIGN_OR_RETURN(CgroupLimits limits, FromRecord(record.spec().limits()));
  ASSIGN_OR_RETURN(const CgroupLimits changes, FromRecord(update.limits()));
  Merge(changes, limits);
  RETURN_IF_ERROR(Annotate(cgroup::ValidateLimits(limits), "limits"));
  if (update.has_restart()) {
    RETURN_IF_ERROR(
        Annotate(ParseRestartPolicy(update.restart()).status(), "restart"));
  }
  updated.mutable_spec()->clear_limits();
  ToRecord(limits, *updated.mutable_spec()->mutable_limits());
  if (update.has_restart()) {
    updated.mutable_spec()->set_restart(update.restart());
  }
  return updated;
}

ContainerEvent EventOf(const ContainerRecord& record, const std::string& action,
                       std::map<std::string, std::string> attributes) {
  ContainerEvent event = {.time = absl::Time(),  // that of its line
                          .id = record.id(),
                          .name = record.spec().name(),
                          .action = action,
                          .attributes = std::move(attributes)};
  event.attributes.insert(record.labels().begin(), record.labels().end());
  if (!record.spec().image().empty()) {
    event.attributes["image"] = record.spec().image();
  }
  return event;
}

void TellOf(const StoreDirectory& store, const ContainerRecord& record,
            const std::string& action,
            std::map<std::string, std::string> attributes) {
  events::AppendEvent(store.fd(),
                      EventOf(record, action, std::move(attributes)))
      .IgnoreError();
}

}  // namespace keeper
}  // namespace caisson
