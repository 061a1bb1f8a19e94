// The files of a container, as its clients see them.
#include <memory>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "caisson/container.h"
#include "caisson/launcher.h"
#include "caisson/tree_copy.h"
#include "lib/base/deadline.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/call.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/container_state.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/state.h"

namespace caisson {
namespace {

// While a container is about to be started again.
constexpr absl::Duration kPause = absl::Milliseconds(10);

}  // namespace

struct ContainerFiles::State {
  // Of one that does not run, in the order in which they are made.
  keeper::HeldLock lock;
  std::optional<Launcher> launcher;
  std::unique_ptr<keeper::Composition> files;
  UniqueFd root;
};

ContainerFiles::ContainerFiles(std::unique_ptr<State> state)
    : state_(std::move(state)) {}
ContainerFiles::ContainerFiles(ContainerFiles&&) noexcept = default;
ContainerFiles& ContainerFiles::operator=(ContainerFiles&&) noexcept = default;
ContainerFiles::~ContainerFiles() = default;

BorrowedFd ContainerFiles::root() const { return state_->root.borrow(); }

absl::StatusOr<ContainerFiles> Container::OpenFiles() const {
  auto files = std::make_unique<ContainerFiles::State>();
  keeper::Request request;
  request.mutable_root();
  const Deadline deadline(keeper::kAnswerTimeout);
  for (;; absl::SleepFor(kPause)) {
    auto answered = state_->Call(request, {}, keeper::kAnswerTimeout);
    if (answered.ok() && answered->descriptors.size() == 1) {
      files->root = std::move(answered->descriptors.front());
      return ContainerFiles(std::move(files));
    }
    if (!absl::IsFailedPrecondition(answered.status())) {
      return answered.status();
    }
    const absl::Status left = state_->AskToLeave();
    if (absl::IsFailedPrecondition(left) && !deadline.expired()) continue;
    RETURN_IF_ERROR(left);
    ASSIGN_OR_RETURN(files->lock, state_->directory.Lock());
    ASSIGN_OR_RETURN(const keeper::Observed observed,
                     keeper::Observe(state_->directory));
    if (!observed.has_keeper) {
      if (observed.lost) {
        RETURN_IF_ERROR(
            keeper::RemoveRemains(observed.record, state_->store->places));
      }
      ASSIGN_OR_RETURN(const ContainerSpec spec,
                       keeper::FromRecord(observed.record.spec()));
      ASSIGN_OR_RETURN(files->launcher, Launcher::Create());
      ASSIGN_OR_RETURN(files->files, keeper::Composition::Files(
                                         {.record = &observed.record,
                                          .spec = &spec,
                                          .store = &state_->store->directory,
                                          .places = &state_->store->places,
                                          .launcher = &*files->launcher,
                                          .terminal_size = {},
                                          .previous = &observed.state}));
      ASSIGN_OR_RETURN(files->root, files->files->OpenRoot());
      return ContainerFiles(std::move(files));
    }
    files->lock.reset();
  }
}

absl::Status Container::CopyOut(absl::string_view path, BorrowedFd tar,
                                const TreeCopyOptions& options) const {
  ASSIGN_OR_RETURN(const ContainerFiles files, OpenFiles());
  return caisson::CopyOut(files.root(), path, tar, options);
}

absl::Status Container::CopyIn(BorrowedFd tar, absl::string_view directory,
                               const TreeCopyOptions& options) const {
  ASSIGN_OR_RETURN(const ContainerInfo info, Inspect());
  TreeCopyOptions owned = options;
  if (info.spec.ids) {
    if (!owned.uid) owned.uid = info.spec.ids->outside;
    if (!owned.gid) owned.gid = info.spec.ids->outside;
  }
  ASSIGN_OR_RETURN(const ContainerFiles files, OpenFiles());
  return caisson::CopyIn(tar, files.root(), directory, owned);
}

}  // namespace caisson
