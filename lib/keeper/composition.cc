#include "lib/keeper/composition.h"

#include <fcntl.h>
#include <signal.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "caisson/notation.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/place.h"
#include "lib/keeper/spec_record.h"
#include "lib/spec/runtime_config.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd_open.h"

namespace caisson::keeper {
namespace {

constexpr char kContainerNetwork[] = "container:";
constexpr uint32_t kTtyGroup = 5;

std::vector<std::string> Strings(
    const google::protobuf::RepeatedPtrField<std::string>& from) {
  return {from.begin(), from.end()};
}

// Of a container that runs, by its name or id.
absl::StatusOr<UniqueFd> OpenNetworkOf(const StoreDirectory& store,
                                       const std::string& reference) {
  std::string id = store.IdOfName(reference);
  if (id.empty()) id = reference;
  ASSIGN_OR_RETURN(const ContainerDirectory other, store.Find(id));
  ASSIGN_OR_RETURN(const bool runs, other.HasKeeper());
  ASSIGN_OR_RETURN(const StateRecord state, other.ReadState());
  const absl::Status not_running = absl::FailedPreconditionError(absl::StrCat(
      "network: container ", Quoted(reference), " is not running"));
  if (!runs || state.pid() <= 0) return not_running;
  auto pidfd = sys::OpenPidfd(state.pid());
  if (!pidfd.ok()) return not_running;
  ASSIGN_OR_RETURN(UniqueFd network,
                   OpenNamespace(pidfd->borrow(), NamespaceKind::kNet));
  // The number is that of the process if it was so all the time.
  ASSIGN_OR_RETURN(const StateRecord again, other.ReadState());
  ASSIGN_OR_RETURN(const bool still, other.HasKeeper());
  if (!still || again.pid() != state.pid()) return not_running;
  return network;
}

}  // namespace

absl::StatusOr<Cgroup> OpenGroup(const std::string& cgroup_parent,
                                 const std::string& id) {
  ASSIGN_OR_RETURN(const CgroupLayout layout, CgroupLayout::Detect());
  std::vector<UniqueFd> directories;
  const std::string path =
      absl::StrCat(cgroup_parent == "/" ? "" : cgroup_parent, "/", id);
  for (const CgroupPath& place : cgroup::PathsAt(layout, path)) {
    auto directory =
        sys::Open(place.directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (directory.ok()) directories.push_back(*std::move(directory));
  }
  if (directories.empty()) {
    return absl::NotFoundError(
        absl::StrCat("the control group ", path, " does not exist"));
  }
  return Cgroup::Attach(std::move(directories));
}

absl::Status RemoveRemains(const ContainerRecord& record,
                           const Places& places) {
  auto group = OpenGroup(record.spec().cgroup_parent(), record.id());
  absl::Status status;
  if (group.ok()) {
    status = group->Destroy();
    const CgroupParentOptions parent = {.path = record.spec().cgroup_parent(),
                                        .prescribed = true};
    CgroupParent::Recover(parent).status().IgnoreError();
  } else if (!absl::IsNotFound(group.status())) {
    status = group.status();
  }
  status.Update(Network::Recover(places.network_state).status());
  return status;
}

// ---- Files -----------------------------------------------------------------

absl::Status Composition::UseFiles(const CompositionOptions& options,
                                   RootFsOptions& root) {
  if (!options.spec->rootfs.empty()) {
    ASSIGN_OR_RETURN(directory_,
                     sys::Open(options.spec->rootfs, O_PATH | O_DIRECTORY));
    root.layers = {directory_.borrow()};
    root.writes = RootWrites::kInPlace;
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(
      layer_store_,
      LayerStore::Open({.path = options.places->layers, .recover = false}));
  const auto image = layer_store_->Find(options.record->image_id());
  if (!image.ok()) {
    return Annotate(image.status(), absl::StrCat("the image of the container (",
                                                 options.spec->image, ")"));
  }
  ASSIGN_OR_RETURN(layers_, layer_store_->OpenLayers(*image));
  ASSIGN_OR_RETURN(writable_,
                   layer_store_->OpenWritableLayer(options.record->id()));
  root.layers = layers_->dirs();
  root.writes = RootWrites::kDirectories;
  root.upper_directory = writable_->upper();
  root.work_directory = writable_->work();
  return absl::OkStatus();
}

absl::Status Composition::UseVolumes(const CompositionOptions& options,
                                     RootFsOptions& root) {
  std::vector<std::string> texts = Strings(options.record->anonymous_volumes());
  texts.insert(texts.end(), options.spec->volumes.begin(),
               options.spec->volumes.end());
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(VolumeMount volume, ParseVolumeMount(text));
    if (volume.kind == VolumeMount::Kind::kBind) {
      root.binds.push_back(std::move(volume.mount));
      continue;
    }
    // Those of the specification have names by now: anonymous_volumes.
    if (volume.kind == VolumeMount::Kind::kAnonymous) continue;
    if (!volume_store_) {
      ASSIGN_OR_RETURN(volume_store_,
                       VolumeStore::Open({.path = options.places->volumes,
                                          .recover = false}));
    }
    VolumeUseOptions use = {.user = options.spec->name, .copy = volume.copy};
    use.options.uid = use.options.gid =
        options.spec->ids ? options.spec->ids->outside : 0;
    ASSIGN_OR_RETURN(const VolumeUse used,
                     volume_store_->Use(volume.volume, use));
    root.binds.push_back(
        used.BindAt(volume.mount.destination, volume.mount.read_only));
    if (user_namespace_.valid()) {
      root.binds.back().idmap_user_namespace = BorrowedFd();
    }
  }
  return absl::OkStatus();
}

// Who may do what with the root.
void Composition::UseOwner(const ContainerSpec& spec, RootFsOptions& root) {
  root.read_only = spec.read_only;
  if (!spec.selinux_label.empty()) root.mount_label = spec.selinux_label;
  if (!spec.ids) return;
  root.idmap_user_namespace = user_namespace_.borrow();
  root.root_uid = root.root_gid = spec.ids->outside;
  root.tty_group_mapped = spec.ids->inside + spec.ids->count > kTtyGroup;
}

absl::Status Composition::MakeRoot(const CompositionOptions& options) {
  const ContainerSpec& spec = *options.spec;
  RootFsOptions root;
  root.mounts = options.launcher->mounts();
  RETURN_IF_ERROR(UseFiles(options, root));
  RETURN_IF_ERROR(UseVolumes(options, root));
  root.shm_size_bytes = spec.shm_size_bytes;
  for (const std::string& text : spec.tmpfs) {
    ASSIGN_OR_RETURN(root.tmpfs.emplace_back(), ParseTmpfsMount(text));
  }
  for (const std::string& text : spec.devices) {
    ASSIGN_OR_RETURN(root.devices.emplace_back(), ParseDeviceNode(text));
  }
  root.hostname = namespaces_->options().hostname;
  if (network_) {
    ASSIGN_OR_RETURN(root.hosts, network_->Hosts());
  }
  root.hosts.insert(root.hosts.end(), spec.extra_hosts.begin(),
                    spec.extra_hosts.end());
  root.resolv_conf = spec.resolv_conf;
  UseOwner(spec, root);
  ASSIGN_OR_RETURN(root_, RootFs::Create(root));
  return root_->MakeDirectory(options.record->working_dir(), 0755);
}

// ---- What is around the process --------------------------------------------

absl::Status Composition::MakeNetwork(const CompositionOptions& options) {
  const ContainerSpec& spec = *options.spec;
  if (spec.network == "none" || spec.network == "host" ||
      absl::StartsWith(spec.network, kContainerNetwork)) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(
      network_,
      Network::Open({.name = spec.network,
                     .state_dir = options.places->network_state,
                     .uplink_forwarding = UplinkForwarding::kEnable}));
  EndpointOptions endpoint = {.name = spec.name,
                              .aliases = spec.aliases,
                              .address = spec.address,
                              .mac = spec.mac,
                              .ports = spec.ports};
  endpoint.aliases.push_back(options.record->id().substr(0, 12));
  ASSIGN_OR_RETURN(NetNamespace ns,
                   options.launcher->NewNetNamespace(user_namespace_.borrow()));
  if (endpoint.address.empty() && !options.previous->address().empty()) {
    EndpointOptions again = endpoint;
    again.address = options.previous->address();
    if (again.mac.empty()) again.mac = options.previous->mac();
    auto same = NetEndpoint::Create(*network_, std::move(ns), again);
    if (same.ok()) {
      endpoint_ = *std::move(same);
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(
        ns, options.launcher->NewNetNamespace(user_namespace_.borrow()));
  }
  ASSIGN_OR_RETURN(endpoint_,
                   NetEndpoint::Create(*network_, std::move(ns), endpoint));
  return absl::OkStatus();
}

absl::Status Composition::MakeNamespaces(const CompositionOptions& options) {
  const ContainerSpec& spec = *options.spec;
  NamespaceOptions namespaces;
  namespaces.hostname = spec.hostname.empty()
                            ? options.record->id().substr(0, 12)
                            : spec.hostname;
  namespaces.domainname = spec.domainname;
  namespaces.sysctls = spec.sysctls;
  absl::string_view network = spec.network;
  if (network == "host") {
    namespaces.net = NamespaceSource::ShareWithHost();
  } else if (absl::ConsumePrefix(&network, kContainerNetwork)) {
    ASSIGN_OR_RETURN(UniqueFd joined,
                     OpenNetworkOf(*options.store, std::string(network)));
    namespaces.net = NamespaceSource::Join(std::move(joined));
  }
  if (user_namespace_.valid()) {
    ASSIGN_OR_RETURN(namespaces.user, sys::Duplicate(user_namespace_.borrow()));
  }
  ASSIGN_OR_RETURN(namespaces_, Namespace::Create(std::move(namespaces)));
  return absl::OkStatus();
}

absl::Status Composition::MakeGroup(const CompositionOptions& options,
                                    CgroupLimits limits) {
  ASSIGN_OR_RETURN(const CgroupParent parent,
                   CgroupParent::Open({.path = options.spec->cgroup_parent,
                                       .prescribed = true}));
  CgroupOptions group = {.name = options.record->id(),
                         .limits = std::move(limits)};
  // All of them: a later Update() may need any.
  for (int i = 0; i < kCgroupControllerCount; ++i) {
    const auto controller = static_cast<CgroupController>(i);
    if (parent.layout().Find(controller).usable) {
      group.controllers.push_back(controller);
    }
  }
  ASSIGN_OR_RETURN(group_, parent.Create(group));
  return absl::OkStatus();
}

absl::StatusOr<CgroupLimits> LimitsWithDevices(const ContainerSpec& spec) {
  CgroupLimits limits = spec.limits;
  if (limits.devices) return limits;
  limits.devices = CgroupDeviceRules::ContainerDefault();
  for (const std::string& text : spec.devices) {
    ASSIGN_OR_RETURN(const DeviceNode device, ParseDeviceNode(text));
    ASSIGN_OR_RETURN(const CgroupDeviceRule rule,
                     CgroupDeviceRule::ForNode(device.source));
    limits.devices->rules.push_back(rule);
  }
  return limits;
}

absl::StatusOr<SecurityPolicy> MakePolicy(const ContainerSpec& spec) {
  SecurityOptions security;
  security.drop_capabilities = spec.drop_capabilities;
  security.unsafe_add_capabilities = spec.unsafe_add_capabilities;
  if (spec.unsafe_new_privileges) {
    security.unsafe_new_privileges = NewPrivilegesAllowed{};
  }
  if (spec.unsafe_seccomp_unconfined) {
    security.unsafe_seccomp = SeccompUnconfined{};
  }
  security.apparmor_profile = spec.apparmor_profile;
  security.selinux_label = spec.selinux_label;
  return SecurityPolicy::Create(security);
}

// ---- The process -----------------------------------------------------------

void UseStreams(const CompositionOptions& options, ProcessSpec& process) {
  const ContainerSpec& spec = *options.spec;
  if (spec.terminal) {
    process.terminal = options.terminal_size;
    return;
  }
  process.in = spec.open_stdin ? Stdio::Pipe() : Stdio::Null();
  process.out = Stdio::Pipe();
  process.err = Stdio::Pipe();
}

absl::Status Composition::ComposeImage(const CompositionOptions& options) {
  const ContainerSpec& spec = *options.spec;
  const ContainerRecord& record = *options.record;
  if (spec.ids) {
    ASSIGN_OR_RETURN(user_namespace_,
                     options.launcher->NewUserNamespace(*spec.ids));
  }
  ASSIGN_OR_RETURN(CgroupLimits limits, LimitsWithDevices(spec));
  RETURN_IF_ERROR(MakeGroup(options, std::move(limits)));
  RETURN_IF_ERROR(MakeNetwork(options));
  RETURN_IF_ERROR(MakeNamespaces(options));
  ASSIGN_OR_RETURN(security_, MakePolicy(spec));
  RETURN_IF_ERROR(MakeRoot(options));

  ProcessSpec process;
  process.argv = Strings(record.argv());
  process.env = Strings(record.env());
  process.cwd = record.working_dir();
  process.user = record.user();
  process.additional_groups = spec.additional_groups;
  process.limits = spec.ulimits;
  process.oom_score_adj = spec.oom_score_adj;
  process.init = spec.init;
  process.root = &*root_;
  process.namespaces = &*namespaces_;
  process.cgroup = &*group_;
  process.network = endpoint();
  process.security = &*security_;
  UseStreams(options, process);
  additional_groups_ = spec.additional_groups;
  ulimits_ = spec.ulimits;
  ASSIGN_OR_RETURN(process_, options.launcher->Start(process));
  return absl::OkStatus();
}

absl::Status Composition::ComposeBundle(const CompositionOptions& options) {
  ASSIGN_OR_RETURN(bundle_, Bundle::Load(options.spec->bundle));
  ASSIGN_OR_RETURN(CgroupLimits limits, bundle_->Limits());
  Merge(options.spec->limits, limits);
  RETURN_IF_ERROR(MakeGroup(options, std::move(limits)));
  ASSIGN_OR_RETURN(parts_, bundle_->Compose({.id = options.record->id(),
                                             .launcher = options.launcher,
                                             .cgroup = &*group_}));
  ProcessSpec& process = parts_->spec();
  UseStreams(options, process);
  ASSIGN_OR_RETURN(process_, options.launcher->Start(process));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Composition>> Composition::Start(
    const CompositionOptions& options) {
  std::unique_ptr<Composition> made(new Composition());
  RETURN_IF_ERROR(options.spec->bundle.empty() ? made->ComposeImage(options)
                                               : made->ComposeBundle(options));
  return made;
}

// A mount that lies in a tree is crossed by the kernel once the tree is in a
// namespace, so there is a process with one, which is never started.
absl::Status Composition::MountFiles(const CompositionOptions& options) {
  const ContainerSpec& spec = *options.spec;
  if (!spec.bundle.empty()) {
    ASSIGN_OR_RETURN(bundle_, Bundle::Load(spec.bundle));
    const std::string& path = bundle_->config().root.path;
    ASSIGN_OR_RETURN(directory_,
                     sys::Open(absl::StartsWith(path, "/")
                                   ? path
                                   : absl::StrCat(spec.bundle, "/", path),
                               O_PATH | O_DIRECTORY));
    return absl::OkStatus();
  }
  NamespaceOptions namespaces;
  if (spec.ids) {
    ASSIGN_OR_RETURN(user_namespace_,
                     options.launcher->NewUserNamespace(*spec.ids));
    ASSIGN_OR_RETURN(namespaces.user, sys::Duplicate(user_namespace_.borrow()));
  }
  ASSIGN_OR_RETURN(namespaces_, Namespace::Create(std::move(namespaces)));
  RootFsOptions root;
  root.mounts = options.launcher->mounts();
  RETURN_IF_ERROR(UseFiles(options, root));
  RETURN_IF_ERROR(UseVolumes(options, root));
  root.own_mounts = {
      .proc = false, .sys = false, .pts = false, .shm = false, .mqueue = false};
  root.etc_files = false;
  UseOwner(spec, root);
  ASSIGN_OR_RETURN(root_, RootFs::Create(root));
  ProcessSpec process;
  process.argv = {"/"};
  process.root = &*root_;
  process.namespaces = &*namespaces_;
  ASSIGN_OR_RETURN(process_, options.launcher->CreateProcess(process));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Composition>> Composition::Files(
    const CompositionOptions& options) {
  std::unique_ptr<Composition> made(new Composition());
  RETURN_IF_ERROR(made->MountFiles(options));
  return made;
}

absl::StatusOr<UniqueFd> Composition::OpenRoot() {
  const RootFs* const root = root_    ? &*root_
                             : parts_ ? parts_->spec().root
                                      : nullptr;
  if (root != nullptr) return root->Open("/", O_PATH | O_DIRECTORY);
  if (directory_.valid()) return sys::Duplicate(directory_.borrow());
  return absl::FailedPreconditionError(
      "the bundle's program lives in no mount namespace of its own");
}

absl::StatusOr<Process> Composition::Exec(Launcher& launcher,
                                          const ContainerRecord& record,
                                          ProcessSpec spec) {
  std::optional<BundleParts> parts;
  if (bundle_) {
    ASSIGN_OR_RETURN(parts, bundle_->ComposeExec("", {.id = record.id(),
                                                      .launcher = &launcher,
                                                      .cgroup = &*group_}));
    const ProcessSpec& base = parts->spec();
    spec.env = MergeEnvironment(base.env, spec.env);
    if (spec.cwd.empty()) spec.cwd = base.cwd;
    if (spec.user.empty()) {
      spec.user = base.user;
      spec.additional_groups = base.additional_groups;
    }
    spec.limits = base.limits;
    spec.umask = base.umask;
    spec.default_path_and_term = base.default_path_and_term;
    spec.security = base.security;
  } else {
    spec.env = MergeEnvironment(Strings(record.env()), spec.env);
    if (spec.cwd.empty()) spec.cwd = record.working_dir();
    if (spec.user.empty()) {
      spec.user = record.user();
      spec.additional_groups = additional_groups_;
    }
    spec.limits = ulimits_;
    spec.security = &*security_;
  }
  return launcher.Exec(*process_, spec);
}

Composition::~Composition() { Destroy().IgnoreError(); }

absl::Status Composition::Destroy() {
  absl::Status status;
  if (process_) process_->Signal(SIGKILL).IgnoreError();
  // Kills what may be left where there is no pid namespace of its own.
  if (group_) status.Update(group_->Destroy());
  if (process_ && bundle_) {
    // For its poststop hooks.
    status.Update(process_->Destroy());
  }
  process_.reset();
  parts_.reset();
  root_.reset();
  if (endpoint_) status.Update(endpoint_->Destroy());
  endpoint_.reset();
  network_.reset();
  namespaces_.reset();
  group_.reset();
  writable_.reset();
  layers_.reset();
  layer_store_.reset();
  volume_store_.reset();
  return status;
}

}  // namespace caisson::keeper
