// Launcher: starts processes inside a composition of RootFs, Namespace, Cgroup,
// NetEndpoint and SecurityPolicy.
//
//   auto launcher = caisson::Launcher::Create();
//   if (!launcher.ok()) return launcher.status();
//   caisson::ProcessSpec spec = ...;         // process.h
//   auto process = launcher->Start(spec);
//   auto status = process->Wait();
//
// A launcher is one small helper process. The host is never forked, so a start
// costs the same whatever memory, threads and descriptors the host has; it owns
// no child that its waitpid(-1) could see, and none of its code or memory is
// ever inside a container. When the host ends, however it ends, the launcher
// kills what it started; when the launcher is killed, the kernel does.
//
// Creating one changes nothing in the host process: no thread, no signal
// handler, no SIGCHLD, no limit, no working directory.
//
// A host without privileges, an ordinary user's, gets one in a user namespace:
// doc/rootless.md.
//
// Not for: running host code in a container, or programs outside of one.
#ifndef CAISSON_LAUNCHER_H_
#define CAISSON_LAUNCHER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/detached.h"
#include "caisson/hooks.h"
#include "caisson/id_range.h"
#include "caisson/launcher_options.h"
#include "caisson/net_namespace.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"

namespace caisson {

struct BindMount;
struct TmpfsMount;

namespace sys {
class MountExecutor;
}  // namespace sys

// Thread-safe: many threads may start processes at once. They share the one
// helper, which clones one child after another and runs them side by side.
class [[nodiscard]] Launcher final {
 public:
  // Starts the helper and waits until it is ready (well under a millisecond;
  // some milliseconds for the programs of LauncherIds::kSubordinate).
  // Fails with UNAVAILABLE if it cannot run: the error says why (memfd with
  // exec permission refused, RLIMIT_NOFILE too small, seccomp). A host with
  // CAP_SYS_ADMIN needs CAP_SYS_CHROOT, too.
  //
  // Without CAP_SYS_ADMIN the helper gets a user namespace of its own:
  // PERMISSION_DENIED says which setting of the machine forbids that, see
  // identity() and mounts() for the consequences.
  static absl::StatusOr<Launcher> Create(const LauncherOptions& options = {});

  // Connects to the launcher that looks after the detached processes of
  // `directory`, which this or another host made with that
  // LauncherOptions::directory. NOT_FOUND if none lives there. Any number of
  // hosts may be attached. What they start is their own: it ends with them, or
  // is detached. mounts() is null, so without privileges nothing with a root of
  // its own can be started; Exec() and Find() work.
  static absl::StatusOr<Launcher> Attach(const std::string& directory);

  Launcher(Launcher&&) noexcept;
  Launcher& operator=(Launcher&&) noexcept;
  // As Shutdown(), but does not wait: a host that is PID 1 or a subreaper,
  // which adopts the helper, has to collect it like any orphan then.
  ~Launcher();

  // Starts `spec` and returns when its program executes. Blocks for about a
  // millisecond. If anything fails, before or after the process was cloned,
  // nothing of it remains and the error names the step and the system call. A
  // program that cannot be executed is NOT_FOUND or PERMISSION_DENIED with the
  // reason (a missing ELF interpreter is named); see ExecFailure().
  absl::StatusOr<Process> Start(const ProcessSpec& spec);

  // The detached process of that name, of this or another host. Its destructor
  // lets the process be. NOT_FOUND if none of that name runs: ListDetached()
  // says how it ended. Exec() in it needs a ProcessSpec::security unless it was
  // started without one.
  absl::StatusOr<Process> Find(absl::string_view name);

  // A process that this launcher did not start, such as one that another has
  // released: Exec(), AddMount(), Process::Signal() and the like work; its
  // destructor lets it be; Wait() waits for its end and may fail with
  // UNAVAILABLE, as the status is its parent's. Needs
  // LauncherOptions::releases. NOT_FOUND if it has ended.
  //
  // Of what it was created from, the host may say what it knows: hooks, the
  // security (without, Exec() needs one) and, for a process that waits for its
  // start, the gate, by which Process::Start() works, too, with its hooks; of
  // the program it knows no more than that the gate was opened.
  absl::StatusOr<Process> Adopt(BorrowedFd pidfd);
  absl::StatusOr<Process> Adopt(BorrowedFd pidfd,
                                const ProcessSpec& created_from);

  // The first half of Start(): everything is done, but the program does not run
  // until Process::Start(). Calls the hooks prestart, create_runtime and
  // create_container.
  absl::StatusOr<Process> CreateProcess(const ProcessSpec& spec);

  // Starts another program in the container of `container`: in its namespaces,
  // its control group unless `spec` names one, and under its policy unless
  // `spec` has one; with its own streams, user and limits. `spec.root`,
  // `namespaces`, `network` and `init` must be unset. The container's processes
  // never see a process that has more rights than its program will have, nor a
  // descriptor or memory of the host.
  //
  // `container` must be this launcher's. NOT_FOUND if it has ended,
  // FAILED_PRECONDITION while its control group is frozen or if that is gone.
  // (A v2 group on which Cgroup::Kill() was called lets nothing be born in it
  // on newer kernels: name another group then.)
  absl::StatusOr<Process> Exec(const Process& container,
                               const ProcessSpec& spec);

  // Mounts into a container that runs, as RootFsOptions does before: the mount
  // point is found inside the container's root, and made if it is missing.
  // What processes of the container do meanwhile cannot lead it elsewhere.
  // FAILED_PRECONDITION for its root, its /proc and /sys and places below them,
  // and if the process has left the container's mount namespace. A mount point
  // that was made stays, also after a failure and after RemoveMount().
  absl::Status AddMount(const Process& container, const BindMount& mount);
  absl::Status AddMount(const Process& container, const TmpfsMount& mount);
  // Takes away what was mounted last at `destination`, with what is mounted
  // below it; processes that have files open there keep them (MNT_DETACH).
  // FAILED_PRECONDITION if nothing is mounted at that place.
  absl::Status RemoveMount(const Process& container,
                           const std::string& destination);

  // A new user namespace in which the ids are mapped. It lives as long as the
  // descriptor or a process in it. INVALID_ARGUMENT names a range that is
  // empty, overlaps another or leaves the 32 bits. The kernel takes 340 ranges.
  // `outside` are ids of identity() where that has a user namespace of its own.
  absl::StatusOr<UniqueFd> NewUserNamespace(const IdMap& ids);
  // The same for users and groups alike.
  absl::StatusOr<UniqueFd> NewUserNamespace(IdRange ids);

  // A new network namespace with a loopback interface that is down. It belongs
  // to `user_namespace` if that is valid.
  absl::StatusOr<NetNamespace> NewNetNamespace(
      BorrowedFd user_namespace = BorrowedFd());

  // The network namespace that a process is in, so that the host can set it up
  // as the container is created (Hooks::prestart). NOT_FOUND if the process has
  // ended.
  absl::StatusOr<NetNamespace> OpenNetNamespaceOf(BorrowedFd pidfd);

  // Which users exist in containers: all of the host's, or, without privileges,
  // those of the helper's user namespace.
  const LauncherIdentity& identity() const;
  // For RootFsOptions::mounts: null if the host can mount by itself. May
  // outlive the launcher, but works only as long as that does.
  std::shared_ptr<const sys::MountExecutor> mounts() const;

  // The helper's pidfd: readable when it died.
  BorrowedFd pidfd() const;

  // Kills every process that was started here, still runs and is not detached,
  // and waits for their end and, unless it is needed for detached processes or
  // by other hosts, that of the helper. Start() fails with UNAVAILABLE from
  // then on. Idempotent.
  absl::Status Shutdown();

 private:
  friend Hook RunProgram(Launcher& launcher, HookProgram program);
  friend Hook RunProgramInside(Launcher& launcher, HookProgram program);
  friend class LauncherStart;
  struct State;
  explicit Launcher(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Launcher::Create() in two halves, for a host that starts one container and
// has something else to do while the helper gets ready. Thread-compatible. The
// destructor gives up a helper that nobody took.
class [[nodiscard]] LauncherStart final {
 public:
  // Executes the helper and returns. Where it needs the host on its way
  // (without CAP_SYS_ADMIN, or with a directory) all is done by Finish().
  static absl::StatusOr<LauncherStart> Begin(
      const LauncherOptions& options = {});
  // Waits until it is ready. To be called once.
  absl::StatusOr<Launcher> Finish();

 private:
  LauncherStart() = default;

  LauncherOptions options_;
  UniqueFd control_;  // invalid: nothing was begun
};

// What a failed Start() says about the program, as a shell would: 127 if it (or
// its interpreter) does not exist, 126 if it exists but cannot be executed, 0
// if the failure had nothing to do with the program.
int ExecFailure(const absl::Status& status);

}  // namespace caisson

#endif  // CAISSON_LAUNCHER_H_
