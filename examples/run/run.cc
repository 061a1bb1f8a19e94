// `docker run` without a daemon: composes a LayerStore, RootFs, Cgroup,
// Network, Namespace and Launcher, and polls. See --help.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "caisson/caisson.h"

namespace {

constexpr char kUsage[] =
    R"(usage: run [OPTIONS] IMAGE [COMMAND [ARGUMENT...]]
       run [OPTIONS] --rootfs DIRECTORY COMMAND [ARGUMENT...]

Runs a command in a new container and exits with its exit code: 128 + signal if
a signal ended it, 125 if the container could not be set up, 126 if the command
cannot be executed, 127 if it does not exist. Ctrl-C is sent to the command; a
second one kills it.

IMAGE is a name or id in the store, or a docker-archive, OCI archive or OCI
layout to import first: a path with a slash, or oci-archive:FILE,
docker-archive:FILE, oci:DIRECTORY.

An ordinary user can run a directory: root in the container is that user then.
There is no bridge network and, without --cgroup-parent, no limit.

)";

// Thrown for what ends the program, so that everything made so far is undone.
struct Failure {
  std::string message;
  int code = 125;
};

void Check(const absl::Status& status) {
  if (!status.ok()) throw Failure{std::string(status.message())};
}

template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

double ParseNumber(absl::string_view text, double min, double max) {
  double value = 0;
  if (absl::SimpleAtod(text, &value) && value >= min && value <= max) {
    return value;
  }
  throw Failure{
      absl::StrCat(text, ": expected a number from ", min, " to ", max)};
}

struct Options {
  bool interactive = false, terminal = false, remove = false, read_only = false;
  std::string name, user, workdir, image, rootfs, network, cgroup_parent;
  std::string store = "/var/lib/caisson";
  std::vector<std::string> env, command;
  std::vector<caisson::VolumeMount> volumes;
  std::vector<caisson::TmpfsMount> tmpfs;
  std::vector<caisson::DeviceNode> devices;
  std::vector<caisson::PortMapping> ports;
  caisson::CgroupLimits limits;
};

struct Flag {
  char letter;  // 0: only the long name
  const char* name;
  const char* value;  // null: takes none
  const char* help;
  std::function<void(const char*)> set;
};

std::vector<Flag> Flags(Options& o) {
  return {
      {'i', "interactive", nullptr, "connect standard input",
       [&](const char*) { o.interactive = true; }},
      {'t', "tty", nullptr, "give the command a terminal",
       [&](const char*) { o.terminal = true; }},
      {0, "rm", nullptr, "remove what is written; else it is kept",
       [&](const char*) { o.remove = true; }},
      {0, "name", "NAME", "name and host name of the container",
       [&](const char* v) { o.name = v; }},
      {'e', "env", "NAME[=VALUE]", "set a variable, or pass one on",
       [&](const char* v) {
         if (strchr(v, '=') != nullptr) {
           o.env.push_back(v);
         } else if (const char* value = std::getenv(v)) {
           o.env.push_back(absl::StrCat(v, "=", value));
         }
       }},
      {'v', "volume", "SRC:DST[:ro,nocopy]",
       "mount a volume, or a file or directory of the host",
       [&](const char* v) {
         o.volumes.push_back(Check(caisson::ParseVolumeMount(v)));
       }},
      {0, "tmpfs", "DST[:size=BYTES,...]", "mount a file system in memory",
       [&](const char* v) {
         o.tmpfs.push_back(Check(caisson::ParseTmpfsMount(v)));
       }},
      {0, "device", "SRC[:DST]", "make a device of the host available",
       [&](const char* v) {
         o.devices.push_back(Check(caisson::ParseDeviceNode(v)));
       }},
      {'p', "publish", "[[IP:][HOST]:]PORT[/udp]", "publish a port",
       [&](const char* v) {
         o.ports.push_back(Check(caisson::ParsePortMapping(v)));
       }},
      {'m', "memory", "BYTES", "limit memory, without swap; with k, m or g",
       [&](const char* v) {
         o.limits.memory_max = Check(caisson::ParseBytes(v));
         o.limits.memory_swap_max = 0;
       }},
      {0, "cpus", "NUMBER", "limit CPU time, in CPUs",
       [&](const char* v) {
         o.limits.cpu_quota = Check(caisson::ParseCpus(v));
       }},
      {0, "pids-limit", "N", "limit the number of processes",
       [&](const char* v) {
         o.limits.pids_max = static_cast<int64_t>(ParseNumber(v, 1, 4194304));
       }},
      {'u', "user", "USER[:GROUP]", "run as this user of the image",
       [&](const char* v) { o.user = v; }},
      {'w', "workdir", "DIRECTORY", "start in this directory",
       [&](const char* v) { o.workdir = v; }},
      {0, "read-only", nullptr, "make the root file system read-only",
       [&](const char*) { o.read_only = true; }},
      {0, "rootfs", "DIRECTORY", "run in this directory, not in an image",
       [&](const char* v) { o.rootfs = v; }},
      {0, "cgroup-parent", "PATH", "control group to make limits in (/caisson)",
       [&](const char* v) { o.cgroup_parent = v; }},
      {0, "network", "NAME", "bridge to join (\"bridge\"), none, or host",
       [&](const char* v) { o.network = v; }},
      {0, "store", "DIRECTORY", "image store (/var/lib/caisson)",
       [&](const char* v) { o.store = v; }},
      {'h', "help", nullptr, "show this text", nullptr},
  };
}

void PrintUsage(const std::vector<Flag>& flags) {
  std::cout << kUsage;
  for (const Flag& flag : flags) {
    const std::string letter =
        flag.letter != 0 ? absl::StrCat("-", std::string(1, flag.letter), ",")
                         : "";
    const std::string name =
        absl::StrCat(flag.name, flag.value != nullptr ? " " : "",
                     flag.value != nullptr ? flag.value : "");
    std::cout << absl::StrFormat("  %3s --%-29s %s\n", letter, name, flag.help);
  }
}

Options ParseOptions(int argc, char** argv) {
  Options o;
  const std::vector<Flag> flags = Flags(o);
  std::string letters = "+";  // what follows the image belongs to the command
  std::vector<option> names;
  for (size_t i = 0; i < flags.size(); ++i) {
    const int takes = flags[i].value != nullptr ? 1 : 0;
    names.push_back({flags[i].name, takes, nullptr, 256 + static_cast<int>(i)});
    if (flags[i].letter == 0) continue;
    absl::StrAppend(&letters, std::string(1, flags[i].letter),
                    takes ? ":" : "");
  }
  names.push_back({});
  for (int c; (c = getopt_long(argc, argv, letters.c_str(), names.data(),
                               nullptr)) != -1;) {
    const auto flag =
        std::find_if(flags.begin(), flags.end(), [&](const Flag& f) {
          return c >= 256 ? &f == &flags[c - 256] : f.letter == c;
        });
    if (flag == flags.end()) throw Failure{"see run --help"};
    if (flag->set == nullptr) {
      PrintUsage(flags);
      std::exit(0);
    }
    try {
      flag->set(optarg);
    } catch (const Failure& failure) {
      throw Failure{absl::StrCat("--", flag->name, " ", failure.message)};
    }
  }
  if (optind == argc) {
    throw Failure{o.rootfs.empty() ? "no image named; see run --help"
                                   : "no command given; see run --help"};
  }
  if (o.rootfs.empty()) o.image = argv[optind++];
  o.command.assign(argv + optind, argv + argc);
  if (o.name.empty()) {
    std::random_device random;
    o.name = absl::StrFormat("c%08x", random());
  }
  return o;
}

// A line that is rewritten while an import takes its time.
bool ShowProgress(const caisson::ImportProgress& progress) {
  static const absl::Time start = absl::Now();
  static absl::Time shown = start;
  if (!isatty(STDERR_FILENO) && progress.bytes_done < progress.bytes)
    return true;
  if (absl::Now() - start < absl::Seconds(1)) return true;
  if (absl::Now() - shown < absl::Milliseconds(100)) return true;
  shown = absl::Now();
  std::cerr << absl::StrFormat(
      "\rimporting: layer %d of %d, %d of %d MiB  ",
      std::min(progress.layers_done + 1, progress.layers), progress.layers,
      progress.bytes_done >> 20, progress.bytes >> 20);
  if (progress.bytes_done >= progress.bytes) std::cerr << "\n";
  return true;
}

caisson::Image GetImage(caisson::LayerStore& store, absl::string_view image) {
  const bool named_archive = absl::ConsumePrefix(&image, "oci-archive:") ||
                             absl::ConsumePrefix(&image, "docker-archive:") ||
                             absl::ConsumePrefix(&image, "oci:");
  const std::string path(image);
  if (!named_archive &&
      (!absl::StrContains(path, '/') || access(path.c_str(), F_OK) != 0)) {
    return Check(store.Find(path));
  }
  return Check(store.Import(path, {.progress = ShowProgress})).front();
}

// Polls until the process has ended: signals, terminal, published ports.
caisson::ExitStatus Supervise(const caisson::Process& process,
                              caisson::NetEndpoint* endpoint,
                              caisson::Console* console, int signals) {
  bool interrupted = false;
  for (;;) {
    std::vector<pollfd> polls = {
        {process.exit_fd().get(), POLLIN, 0},
        {signals, POLLIN, 0},
        {endpoint != nullptr ? endpoint->poll_fd().get() : -1, POLLIN, 0}};
    if (console != nullptr) console->Watch(polls);
    if (poll(polls.data(), polls.size(), -1) < 0) continue;
    if (polls[0].revents != 0) break;
    signalfd_siginfo info;
    if (polls[1].revents != 0 &&
        read(signals, &info, sizeof(info)) == sizeof(info)) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGWINCH) {
        if (console != nullptr) console->Resize();
      } else {
        process.Signal(interrupted ? SIGKILL : signal).IgnoreError();
        interrupted = true;
      }
    }
    if (polls[2].revents != 0) Check(endpoint->Forward());
    if (console != nullptr) console->Handle(&polls[3]);
  }
  if (console != nullptr) console->Drain();
  return Check(process.Wait());
}

// Anonymous volumes, which go with a container that is not kept. Made before
// what uses them, so that they are removed after it.
struct AnonymousVolumes {
  const caisson::VolumeStore* store = nullptr;
  std::vector<std::string> names;

  ~AnonymousVolumes() {
    for (const std::string& name : names) {
      const absl::Status removed = store->Remove(name);
      if (!removed.ok()) std::cerr << "run: " << removed.message() << "\n";
    }
  }
};

std::vector<caisson::BindMount> BindsOf(
    const Options& o, std::optional<caisson::VolumeStore>& store,
    AnonymousVolumes& anonymous) {
  std::vector<caisson::BindMount> binds;
  for (const caisson::VolumeMount& volume : o.volumes) {
    if (volume.kind == caisson::VolumeMount::Kind::kBind) {
      binds.push_back(volume.mount);
      continue;
    }
    if (!store) {
      store = Check(caisson::VolumeStore::Open({.path = o.store + "/volumes"}));
      anonymous.store = &*store;
    }
    std::string name = volume.volume;
    if (name.empty()) {
      name = Check(store->Create({})).name;
      if (o.remove) anonymous.names.push_back(name);
    }
    const caisson::VolumeUse use =
        Check(store->Use(name, {.user = o.name, .copy = volume.copy}));
    binds.push_back(
        use.BindAt(volume.mount.destination, volume.mount.read_only));
  }
  return binds;
}

// What the root is made of: an image of the store with a writable layer, or a
// directory.
struct Files {
  std::optional<caisson::LayerStore> store;
  std::optional<caisson::LayerSet> layers;
  std::optional<caisson::WritableLayer> writable;
  caisson::UniqueFd directory;
  caisson::ImageConfig config;
};

Files OpenFiles(const Options& o) {
  Files files;
  if (!o.rootfs.empty()) {
    files.directory.reset(
        open(o.rootfs.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!files.directory.valid()) {
      throw Failure{absl::StrCat("--rootfs ", o.rootfs, ": ", strerror(errno))};
    }
    return files;
  }
  files.store = Check(caisson::LayerStore::Open({.path = o.store}));
  const caisson::Image image = GetImage(*files.store, o.image);
  files.config = image.config;
  files.layers = Check(files.store->OpenLayers(image));
  files.writable =
      Check(files.store->CreateWritableLayer({.lower = &*files.layers}));
  return files;
}

void UseFiles(const Files& files, const Options& o,
              caisson::RootFsOptions& root) {
  if (files.directory.valid()) {
    root.layers = {files.directory.borrow()};
    root.writes =
        o.remove ? caisson::RootWrites::kTmpfs : caisson::RootWrites::kInPlace;
    return;
  }
  root.layers = files.layers->dirs();
  root.writes = caisson::RootWrites::kDirectories;
  root.upper_directory = files.writable->upper();
  root.work_directory = files.writable->work();
  root.volatile_upper = o.remove;
}

bool HasLimit(const caisson::CgroupLimits& limits) {
  return limits.memory_max || limits.cpu_quota || limits.pids_max;
}

caisson::Cgroup MakeCgroup(const Options& o, bool ordinary) {
  caisson::CgroupParentOptions options;
  if (!o.cgroup_parent.empty()) options.path = o.cgroup_parent;
  const auto parent = Check(caisson::CgroupParent::Open(options));
  caisson::CgroupOptions group = {.name = o.name, .limits = o.limits};
  // To tell whether memory ran out. An ordinary user may have been given other
  // controllers only.
  if (!ordinary) {
    group.controllers = {caisson::CgroupController::kMemory};
    group.limits.devices = caisson::CgroupDeviceRules::ContainerDefault();
    for (const caisson::DeviceNode& device : o.devices) {
      group.limits.devices->rules.push_back(
          Check(caisson::CgroupDeviceRule::ForNode(device.source)));
    }
  }
  return Check(parent.Create(group));
}

int Run(const Options& o) {
  // A host of its own: signals arrive in the poll loop.
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH}) {
    sigaddset(&signals, signal);
  }
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  caisson::UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC));

  // What is left of containers whose host was killed.
  const std::string net_state = caisson::NetworkOptions().state_dir;
  caisson::CgroupParent::Recover({}).status().IgnoreError();
  caisson::Network::Recover(net_state).status().IgnoreError();

  Files files = OpenFiles(o);
  const caisson::ImageConfig& config = files.config;
  auto launcher = Check(caisson::Launcher::Create());
  const bool ordinary = launcher.identity().own_user_namespace;
  const std::string network_name = !o.network.empty() ? o.network
                                   : ordinary         ? "none"
                                                      : "bridge";

  std::optional<caisson::Network> network;
  std::optional<caisson::NetEndpoint> endpoint;
  if (network_name != "none" && network_name != "host") {
    network = Check(caisson::Network::Open(
        {.name = network_name,
         .uplink_forwarding = caisson::UplinkForwarding::kEnable}));
    endpoint = Check(caisson::NetEndpoint::Create(
        *network, Check(launcher.NewNetNamespace()),
        {.name = o.name, .ports = o.ports}));
  } else if (!o.ports.empty()) {
    throw Failure{"--publish needs a bridge network"};
  }

  std::optional<caisson::VolumeStore> volumes;
  AnonymousVolumes anonymous;
  caisson::RootFsOptions root_options;
  root_options.mounts = launcher.mounts();
  UseFiles(files, o, root_options);
  root_options.read_only = o.read_only;
  root_options.binds = BindsOf(o, volumes, anonymous);
  root_options.tmpfs = o.tmpfs;
  root_options.devices = o.devices;
  root_options.hostname = o.name;
  if (network) root_options.hosts = Check(network->Hosts());
  auto root = Check(caisson::RootFs::Create(root_options));

  std::optional<caisson::Cgroup> cgroup;
  if (!ordinary || HasLimit(o.limits) || !o.cgroup_parent.empty()) {
    cgroup = MakeCgroup(o, ordinary);
  }

  caisson::NamespaceOptions ns_options;
  ns_options.hostname = o.name;
  if (network_name == "host") {
    ns_options.net = caisson::NamespaceSource::ShareWithHost();
  }
  auto namespaces = Check(caisson::Namespace::Create(std::move(ns_options)));

  caisson::ProcessSpec spec;
  spec.argv = config.entrypoint;
  const auto& command = o.command.empty() ? config.cmd : o.command;
  spec.argv.insert(spec.argv.end(), command.begin(), command.end());
  spec.env = caisson::MergeEnvironment(config.env, o.env);
  spec.user = o.user.empty() ? config.user : o.user;
  spec.cwd = !o.workdir.empty() ? o.workdir : config.working_dir;
  if (spec.cwd.empty()) spec.cwd = "/";
  Check(root.MakeDirectory(spec.cwd, 0755));
  spec.root = &root;
  spec.namespaces = &namespaces;
  spec.cgroup = cgroup ? &*cgroup : nullptr;
  spec.network = endpoint ? &*endpoint : nullptr;
  const caisson::BorrowedFd in(o.interactive ? STDIN_FILENO : -1);
  const caisson::BorrowedFd out(STDOUT_FILENO);
  if (o.terminal) {
    spec.terminal = caisson::SizeOfTerminal(out);
  } else {
    if (in.valid()) spec.in = caisson::Stdio::Inherit(in);
    spec.out = caisson::Stdio::Inherit(out);
    spec.err = caisson::Stdio::Inherit(caisson::BorrowedFd(STDERR_FILENO));
  }

  auto process = launcher.Start(spec);
  if (const int code = caisson::ExecFailure(process.status()); code != 0) {
    throw Failure{std::string(process.status().message()), code};
  }
  Check(process.status());
  std::optional<caisson::Console> console;
  if (o.terminal) console.emplace(*process, in, out);
  const caisson::ExitStatus status =
      Supervise(*process, endpoint ? &*endpoint : nullptr,
                console ? &*console : nullptr, signal_fd.get());
  console.reset();

  const int64_t kills =
      cgroup && !ordinary ? Check(cgroup->OomKills()) : int64_t{0};
  if (kills > 0) {
    std::cerr << absl::StrFormat(
        "run: out of memory: the kernel killed %d process%s of the container\n",
        kills, kills == 1 ? "" : "es");
  }
  if (!o.remove && files.writable) Check(files.writable->Keep(o.name));
  return status.shell_code();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(ParseOptions(argc, argv));
  } catch (const Failure& failure) {
    std::cerr << "run: " << failure.message << "\n";
    return failure.code;
  }
}
