#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/container.h"
#include "caisson/layer_store.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/container_state.h"
#include "lib/keeper/creation.h"
#include "lib/keeper/holds.h"
#include "lib/keeper/names.h"
#include "lib/keeper/removal.h"
#include "lib/keeper/restart_policy.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/state.h"
#include "lib/spec/runtime_config.h"
#include "lib/sys/boot_id.h"
#include "lib/sys/private_dir.h"

namespace caisson {
namespace {

using keeper::ContainerDirectory;
using keeper::ContainerRecord;
using keeper::HeldLock;
using keeper::Observed;
using keeper::Places;
using keeper::StoreDirectory;

absl::StatusOr<std::string> RandomBytes(size_t size) {
  std::string bytes(size, '\0');
  if (::getrandom(bytes.data(), size, 0) != static_cast<ssize_t>(size)) {
    return ErrnoError(errno, "getrandom()", {.step = "container.create"});
  }
  return bytes;
}

// A name that nobody has. Precondition: LockNames() is held.
absl::StatusOr<std::string> FreeName(const StoreDirectory& store) {
  for (int attempt = 1;; ++attempt) {
    ASSIGN_OR_RETURN(const std::string bytes, RandomBytes(sizeof(uint64_t)));
    uint64_t random;
    memcpy(&random, bytes.data(), sizeof(random));
    std::string name = keeper::MadeUpName(random, attempt);
    if (store.IdOfName(name).empty()) return name;
  }
}

// The image of a new container, with its writable layer.
struct ImageUse {
  Image image;
  WritableLayer writable;
};

absl::StatusOr<ImageUse> UseImage(const StoreDirectory& store,
                                  const ContainerSpec& spec,
                                  const std::string& id, const Places& places) {
  ASSIGN_OR_RETURN(LayerStore images,
                   LayerStore::Open({.path = places.layers, .recover = false}));
  ASSIGN_OR_RETURN(Image image, images.Find(spec.image));
  ASSIGN_OR_RETURN(const LayerSet layers, images.OpenLayers(image));
  WritableLayerOptions options = {.lower = &layers};
  if (spec.ids) options.uid = options.gid = spec.ids->outside;
  ASSIGN_OR_RETURN(WritableLayer writable, images.CreateWritableLayer(options));
  RETURN_IF_ERROR(writable.Keep(id));
  if (const absl::Status held = keeper::HoldImage(store, images, image.id, id);
      !held.ok()) {
    writable.Destroy().IgnoreError();
    return held;
  }
  return ImageUse{std::move(image), std::move(writable)};
}

bool Matches(const ContainerInfo& info,
             const google::protobuf::Map<std::string, std::string>& labels,
             const ContainerFilter& filter) {
  if (!filter.statuses.empty()) {
    if (std::find(filter.statuses.begin(), filter.statuses.end(),
                  info.status) == filter.statuses.end()) {
      return false;
    }
  } else if (!filter.all && (info.status == ContainerStatus::kCreated ||
                             info.status == ContainerStatus::kExited)) {
    return false;
  }
  for (const auto& [key, value] : filter.labels) {
    const auto label = labels.find(key);
    if (label == labels.end() || (value && label->second != *value)) {
      return false;
    }
  }
  return absl::StrContains(info.spec.name, filter.name) &&
         (filter.image.empty() || info.spec.image == filter.image ||
          info.image_id == filter.image);
}

}  // namespace

ContainerStore::ContainerStore(std::shared_ptr<const State> state)
    : state_(std::move(state)) {}
ContainerStore::ContainerStore(ContainerStore&&) noexcept = default;
ContainerStore& ContainerStore::operator=(ContainerStore&&) noexcept = default;
ContainerStore::~ContainerStore() = default;

absl::StatusOr<ContainerStore> ContainerStore::Open(
    const ContainerStoreOptions& options) {
  // A keeper has another working directory.
  Places places;
  ASSIGN_OR_RETURN(places.layers, sys::CleanPath(options.layers, "layers"));
  ASSIGN_OR_RETURN(places.volumes, sys::CleanPath(options.volumes, "volumes"));
  ASSIGN_OR_RETURN(places.network_state,
                   sys::CleanPath(options.network_state, "network_state"));
  ASSIGN_OR_RETURN(StoreDirectory directory,
                   StoreDirectory::Open(options.path));
  return ContainerStore(std::make_shared<const State>(
      State{std::move(directory), std::move(places)}));
}

absl::StatusOr<Container> ContainerStore::Create(
    const ContainerSpec& wanted) const {
  RETURN_IF_ERROR(keeper::CheckSpec(wanted));
  ContainerSpec spec = wanted;
  ASSIGN_OR_RETURN(const std::string bytes, RandomBytes(32));
  const std::string id = absl::BytesToHexString(bytes);
  const StoreDirectory& store = state_->directory;

  std::optional<Bundle> bundle;
  if (!spec.bundle.empty()) {
    ASSIGN_OR_RETURN(bundle, Bundle::Load(spec.bundle));
    const auto& process = bundle->config().process;
    spec.terminal = process && process->terminal;
    if (process && process->console_size) {
      spec.terminal_size = {.rows = process->console_size->height,
                            .columns = process->console_size->width};
    }
  }
  ASSIGN_OR_RETURN(const HeldLock names, store.LockNames());
  if (spec.name.empty()) {
    ASSIGN_OR_RETURN(spec.name, FreeName(store));
  } else if (const std::string owner = store.IdOfName(spec.name);
             !owner.empty()) {
    return absl::AlreadyExistsError(absl::StrCat("name: ", Quoted(spec.name),
                                                 " is the name of container ",
                                                 Quoted(owner.substr(0, 12))));
  }

  // Before what lies elsewhere: whoever finds a directory without a record
  // removes what has its id.
  ASSIGN_OR_RETURN(ContainerDirectory directory, store.Make(id));
  ASSIGN_OR_RETURN(const HeldLock lock, directory.Lock());
  auto undo_directory =
      absl::MakeCleanup([&] { directory.Remove().IgnoreError(); });
  std::optional<ImageUse> use;
  auto undo_layer = absl::MakeCleanup([&] {
    if (!use) return;
    use->writable.Destroy().IgnoreError();
    auto layers =
        LayerStore::Open({.path = state_->places.layers, .recover = false});
    if (layers.ok()) keeper::ReleaseImage(store, *layers, id).IgnoreError();
  });
  if (!spec.image.empty()) {
    ASSIGN_OR_RETURN(use, UseImage(store, spec, id, state_->places));
  }
  const Image* const image = use ? &use->image : nullptr;
  ASSIGN_OR_RETURN(ContainerRecord record, keeper::MakeRecord(id, spec, image));
  auto undo_volumes = absl::MakeCleanup([&] {
    keeper::ReleaseVolumes(store, record, state_->places).IgnoreError();
    keeper::RemoveAnonymousVolumes(state_->places, record);
  });
  RETURN_IF_ERROR(
      keeper::MakeAnonymousVolumes(spec, image, state_->places, record));
  RETURN_IF_ERROR(keeper::HoldVolumes(store, record, state_->places));
  // A name without a record is nobody's; the record makes both valid at once.
  RETURN_IF_ERROR(store.TakeName(spec.name, id));
  if (const absl::Status written = directory.WriteRecord(record);
      !written.ok()) {
    store.DropName(spec.name, id);
    return written;
  }
  std::move(undo_volumes).Cancel();
  std::move(undo_layer).Cancel();
  std::move(undo_directory).Cancel();
  keeper::TellOf(store, record, "create");
  return Container(std::make_unique<Container::State>(
      Container::State{state_, std::move(directory)}));
}

absl::StatusOr<Container> ContainerStore::Find(
    absl::string_view reference) const {
  const StoreDirectory& store = state_->directory;
  std::string id(reference);
  if (!keeper::IsContainerId(reference)) id = store.IdOfName(id);
  if (id.empty() && !reference.empty()) {
    ASSIGN_OR_RETURN(const std::vector<std::string> ids, store.Ids());
    std::vector<std::string> found;
    for (const std::string& one : ids) {
      if (absl::StartsWith(one, reference)) found.push_back(one.substr(0, 12));
      if (absl::StartsWith(one, reference)) id = one;
    }
    if (found.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          Quoted(reference), " begins the ids ", absl::StrJoin(found, ", ")));
    }
  }
  const absl::Status none = absl::NotFoundError(
      absl::StrCat("there is no container ", Quoted(reference)));
  if (id.empty()) return none;
  auto directory = store.Find(id);
  if (absl::IsNotFound(directory.status())) return none;
  RETURN_IF_ERROR(directory.status());
  // Without a record it is none yet, or none any more.
  const auto record = directory->ReadRecord();
  if (absl::IsNotFound(record.status())) return none;
  // One that cannot be read can be removed.
  if (!record.ok() && !absl::IsDataLoss(record.status())) {
    return record.status();
  }
  return Container(std::make_unique<Container::State>(
      Container::State{state_, *std::move(directory)}));
}

absl::StatusOr<std::vector<ContainerInfo>> ContainerStore::List(
    const ContainerFilter& filter) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> ids, state_->directory.Ids());
  std::vector<ContainerInfo> list;
  for (const std::string& id : ids) {
    const auto directory = state_->directory.Find(id);
    if (!directory.ok()) continue;
    const auto observed = keeper::Observe(*directory);
    if (!observed.ok()) continue;
    auto info = keeper::InfoOf(*observed);
    if (info.ok() && Matches(*info, observed->record.labels(), filter)) {
      list.push_back(*std::move(info));
    }
  }
  std::sort(list.begin(), list.end(),
            [](const ContainerInfo& a, const ContainerInfo& b) {
              return a.created > b.created;
            });
  return list;
}

absl::StatusOr<ContainerEvents> ContainerStore::Events(
    const ContainerEventOptions& options) const {
  return ContainerEvents::Open(state_->directory.fd(), options);
}

absl::StatusOr<std::vector<std::string>> ContainerStore::Prune() const {
  ASSIGN_OR_RETURN(const std::vector<ContainerInfo> list,
                   List({.statuses = {ContainerStatus::kCreated,
                                      ContainerStatus::kExited}}));
  std::vector<std::string> removed;
  for (const ContainerInfo& info : list) {
    const auto container = Find(info.id);
    if (!container.ok()) continue;
    const absl::Status status = container->Remove();
    if (status.ok()) {
      removed.push_back(info.id);
    } else if (!absl::IsFailedPrecondition(status) &&
               !absl::IsNotFound(status)) {
      return status;
    }
  }
  return removed;
}

namespace {

// What is to be done about one container after its keeper is gone.
struct Recovered {
  bool ended = false;
  bool start = false;
  int restarts = 0;  // with that one
};

absl::StatusOr<Recovered> RecoverOne(const StoreDirectory& store,
                                     const ContainerDirectory& directory,
                                     const Places& places) {
  ASSIGN_OR_RETURN(const HeldLock lock, directory.Lock());
  const auto observed = keeper::Observe(directory);
  if (absl::IsNotFound(observed.status())) {
    RETURN_IF_ERROR(keeper::RemoveUnfinished(store, directory, places));
    return Recovered();
  }
  RETURN_IF_ERROR(observed.status());
  if (observed->has_keeper) return Recovered();
  const keeper::StateRecord& state = observed->state;
  Recovered result = {.ended = observed->lost, .restarts = 0};
  if (observed->lost) {
    RETURN_IF_ERROR(keeper::RemoveRemains(observed->record, places));
    RETURN_IF_ERROR(directory.WriteState(state));
    keeper::TellOf(store, observed->record, "die",
                   {{"exitCode", absl::StrCat(state.exit_code())}});
  }
  if (state.ever_started() && observed->record.spec().auto_remove()) {
    RETURN_IF_ERROR(keeper::RemoveContainer(store, directory, places,
                                            /*volumes=*/true));
    return result;
  }
  ASSIGN_OR_RETURN(const ContainerSpec spec,
                   keeper::FromRecord(observed->record.spec()));
  ASSIGN_OR_RETURN(const std::string boot_id, sys::BootId());
  const bool rebooted = !state.boot_id().empty() && state.boot_id() != boot_id;
  result.start =
      state.ever_started() &&
      (observed->lost || rebooted || state.interrupted()) &&
      keeper::StartsOnRecovery(spec.restart, state.exit_code(),
                               state.stopped_by_user(), state.restart_count());
  result.restarts = state.restart_count() + 1;
  return result;
}

}  // namespace

absl::StatusOr<ContainerRecovery> ContainerStore::Recover() const {
  ASSIGN_OR_RETURN(const std::vector<std::string> ids, state_->directory.Ids());
  ContainerRecovery recovery;
  {
    ASSIGN_OR_RETURN(const HeldLock names, state_->directory.LockNames());
    RETURN_IF_ERROR(state_->directory.DropStaleNames());
  }
  for (const std::string& id : ids) {
    const auto directory = state_->directory.Find(id);
    if (absl::IsNotFound(directory.status())) continue;
    const auto recovered =
        directory.ok()
            ? RecoverOne(state_->directory, *directory, state_->places)
            : absl::StatusOr<Recovered>(directory.status());
    if (absl::IsNotFound(recovered.status())) continue;
    absl::Status status = recovered.status();
    if (recovered.ok() && recovered->ended) recovery.ended.push_back(id);
    if (recovered.ok() && recovered->start) {
      const auto container = Find(id);
      status = container.ok()
                   ? container->state_
                         ->Start({}, keeper::Streams(), recovered->restarts)
                         .status()
                   : container.status();
      if (status.ok()) recovery.started.push_back(id);
    }
    if (!status.ok()) {
      recovery.failures.push_back(
          Annotate(status, absl::StrCat("container ", id.substr(0, 12))));
    }
  }
  absl::Status strays =
      keeper::ReleaseStrayVolumes(state_->directory, state_->places, "");
  strays.Update(keeper::ReleaseStrayImages(state_->directory, state_->places));
  if (!strays.ok()) recovery.failures.push_back(strays);
  return recovery;
}

}  // namespace caisson
