// One run of a container: everything that is composed for it, from the layers
// to the process, in a keeper.
#ifndef CAISSON_LIB_KEEPER_COMPOSITION_H_
#define CAISSON_LIB_KEEPER_COMPOSITION_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/bundle.h"
#include "caisson/cgroup.h"
#include "caisson/container_spec.h"
#include "caisson/launcher.h"
#include "caisson/layer_store.h"
#include "caisson/namespace.h"
#include "caisson/net_endpoint.h"
#include "caisson/network.h"
#include "caisson/process.h"
#include "caisson/root_fs.h"
#include "caisson/security.h"
#include "caisson/volume.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

// Where the parts of containers are kept: ContainerStoreOptions.
struct Places {
  std::string layers;
  std::string volumes;
  std::string network_state;
};

// The control group of a container has its id as its name. NOT_FOUND if there
// is none.
absl::StatusOr<Cgroup> OpenGroup(const std::string& cgroup_parent,
                                 const std::string& id);

// Removes what a container leaves whose keeper was killed.
absl::Status RemoveRemains(const ContainerRecord& record, const Places& places);

// INVALID_ARGUMENT names the field.
absl::StatusOr<SecurityPolicy> MakePolicy(const ContainerSpec& spec);

struct CompositionOptions {
  const ContainerRecord* record = nullptr;
  const ContainerSpec* spec = nullptr;  // of the record
  const StoreDirectory* store = nullptr;
  const Places* places = nullptr;
  Launcher* launcher = nullptr;
  TerminalSize terminal_size;
  // The address and the ports of the run before, which it gets again if they
  // are free.
  const StateRecord* previous = nullptr;
};

// Thread-compatible. The destructor does what Destroy() does.
class Composition final {
 public:
  // The program executes when it returns. Its streams are pipes, standard input
  // only with `open_stdin`, or a terminal. After a failure nothing is left but
  // anonymous volumes of the record.
  static absl::StatusOr<std::unique_ptr<Composition>> Start(
      const CompositionOptions& options);
  // The files alone, of a container that does not run: its root, volumes and
  // binds, as long as the object lives. Of a bundle, its root.
  static absl::StatusOr<std::unique_ptr<Composition>> Files(
      const CompositionOptions& options);
  Composition(const Composition&) = delete;
  Composition& operator=(const Composition&) = delete;
  ~Composition();

  Process& process() { return *process_; }
  Cgroup* group() { return group_ ? &*group_ : nullptr; }
  NetEndpoint* endpoint() { return endpoint_ ? &*endpoint_ : nullptr; }

  // The container's "/" (O_PATH), with what is mounted in it.
  absl::StatusOr<UniqueFd> OpenRoot();

  // What a further program in the container is to be started with: the
  // container's variables, directory, user and policy.
  absl::StatusOr<Process> Exec(Launcher& launcher,
                               const ContainerRecord& record, ProcessSpec spec);

  // Kills what still runs and takes everything away, in the reverse order. Goes
  // on after a failure, and returns the first.
  absl::Status Destroy();

 private:
  Composition() = default;
  absl::Status ComposeImage(const CompositionOptions& options);
  absl::Status ComposeBundle(const CompositionOptions& options);
  absl::Status UseFiles(const CompositionOptions& options, RootFsOptions& root);
  absl::Status UseVolumes(const CompositionOptions& options,
                          RootFsOptions& root);
  void UseOwner(const ContainerSpec& spec, RootFsOptions& root);
  absl::Status MakeRoot(const CompositionOptions& options);
  absl::Status MountFiles(const CompositionOptions& options);
  absl::Status MakeNamespaces(const CompositionOptions& options);
  absl::Status MakeNetwork(const CompositionOptions& options);
  absl::Status MakeGroup(const CompositionOptions& options,
                         CgroupLimits limits);

  // Of whatever is executed.
  std::vector<std::string> additional_groups_;
  std::vector<ResourceLimit> ulimits_;
  // In the order in which they are made.
  std::optional<LayerStore> layer_store_;
  std::optional<LayerSet> layers_;
  std::optional<WritableLayer> writable_;
  UniqueFd directory_;
  std::optional<VolumeStore> volume_store_;
  UniqueFd user_namespace_;
  std::optional<Cgroup> group_;
  std::optional<Network> network_;
  std::optional<NetEndpoint> endpoint_;
  std::optional<Namespace> namespaces_;
  std::optional<SecurityPolicy> security_;
  std::optional<RootFs> root_;
  std::optional<Bundle> bundle_;
  std::optional<BundleParts> parts_;
  std::optional<Process> process_;
};

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_COMPOSITION_H_
