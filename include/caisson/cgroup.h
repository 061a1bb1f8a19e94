// Control groups: limits, statistics, events, freeze and kill for a set of
// processes, on cgroup v1, v2 and hybrid hosts alike.
//
//   auto parent = caisson::CgroupParent::Open({.path = "/jobs"});
//   auto group = parent->Create({.name = "job-7",
//                                .limits = {.memory_max = 64 << 20,
//                                           .pids_max = 32}});
//   auto entry = group->OpenEntry();
//   ... start a process that is born in *entry, wait for it ...
//   bool out_of_memory = *group->OomKills() > 0;
//   absl::Status status = group->Destroy();
//
// A CgroupParent is a lifetime. It makes one directory of its own below the
// path that it is given and holds a lock (flock(2)) on it; its groups lie in
// that directory:
//
//   /jobs/caisson-<pid>-<random>/job-7      in each hierarchy that is needed
//
// The kernel drops the lock when the process dies, however it dies (and with it
// all copies of it that were forked and executed nothing). Recover() kills and
// removes what unlocked directories hold and touches nothing else. Processes
// that share one path therefore never meet each other's groups.
//
// Not for: systemd's scopes (make one over D-Bus and give its path as the
// parent). Of the caller's own group see cgroup_bootstrap.h.
#ifndef CAISSON_CGROUP_H_
#define CAISSON_CGROUP_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/cgroup_events.h"
#include "caisson/cgroup_layout.h"
#include "caisson/cgroup_limits.h"
#include "caisson/cgroup_stats.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace cgroup {
class Group;
class Owner;
}  // namespace cgroup

// How long Kill(), Destroy() and Recover() wait for killed processes to be
// gone. Longer is needed only for processes in uninterruptible sleep.
inline constexpr absl::Duration kCgroupKillTimeout = absl::Seconds(30);

// How long Freeze() and Thaw() wait. Mostly it takes less than a millisecond.
inline constexpr absl::Duration kCgroupFreezeTimeout = absl::Seconds(10);

enum class CgroupFreezeState {
  kThawed,
  kFreezing,  // asked for, of this group or one above; some process still runs
  kFrozen,
};

struct CgroupOptions {
  std::string name;  // one path component, unique below its CgroupParent
  CgroupLimits limits;
  // Controllers that the group shall have although no limit asks for them:
  // kMemory to count OOM kills without a limit, or whatever a later
  // SetLimits() will need. Each v1 hierarchy costs a mkdir and an rmdir, so a
  // group joins only those that it needs.
  std::vector<CgroupController> controllers;
  // Join the named v1 hierarchies, too ("name=systemd"), wherever this process
  // may: nothing is limited there, but /proc/PID/cgroup shows the group in all
  // of them, and whoever kills or lists by them finds the processes.
  bool named_hierarchies = true;
  // v2, and for Cgroup::CreateChild() only: the group holds threads instead of
  // processes (cgroup.type "threaded"). It can limit cpu, cpuset and pids, and
  // the group above it may have processes. In version 1 every group does.
  //
  // Threads of the processes in the group above are put there by writing their
  // ids to cgroup.threads in the directory of Cgroup::paths(). What is about
  // processes is FAILED_PRECONDITION: OpenEntry(), MoveIn(), Processes(), and
  // while there are threads Kill() and Destroy(), which the group above is for.
  bool threaded = false;
};

// What a new process needs to be born in a group. Everything is opened for
// the caller, close-on-exec, and independent of the Cgroup's lifetime.
struct CgroupEntry {
  // For clone3() with CLONE_INTO_CGROUP; none on a host without cgroup v2, in a
  // group that was attached, and after Kill() of the group or one that it was
  // made in. What was opened before Kill() must not be used after it.
  UniqueFd v2_directory;
  // Files to which the child itself writes "0" while it still has one thread:
  // `tasks` of each v1 hierarchy (which does not wait for an RCU grace period
  // as `cgroup.procs` does), and without v2_directory `cgroup.procs` of v2.
  std::vector<UniqueFd> join_files;
};

// One directory of a group, for programs that read other kernel files.
struct CgroupPath {
  CgroupVersion version = CgroupVersion::kV2;
  std::vector<CgroupController> controllers;  // that the group asked for there
  std::string directory;  // "/sys/fs/cgroup/memory/jobs/caisson-1-2f.../job-7"
  // v2: enter by moving only. Kill() was called of the group or one that it was
  // made in, or it was attached and its owner may have done so.
  bool killed = false;
};

// The directory of a group in one v1 hierarchy, for showing it in a container.
struct CgroupV1Directory {
  // What hosts call the hierarchy's directory below /sys/fs/cgroup: "memory";
  // "cpu,cpuacct", all controllers that are attached to it; "systemd" for a
  // hierarchy that has a name and no controllers.
  std::string hierarchy;
  std::vector<std::string> controllers;  // the kernel's names
  BorrowedFd directory;                  // valid as long as the Cgroup
};

// One control group. The const methods are thread-safe; the others need
// external synchronisation. Kill() and Destroy() block until the processes are
// gone; the rest only waits for the kernel to make, write and read files.
//
// The destructor does what Destroy() does and ignores its status: what cannot
// be removed is left for CgroupParent::Recover(). In a process that was forked
// from the one that made the group it does nothing.
class [[nodiscard]] Cgroup final {
 public:
  Cgroup(Cgroup&&) noexcept;
  Cgroup& operator=(Cgroup&&) noexcept;
  ~Cgroup();

  const std::string& name() const;
  // Absolute path of the group in every hierarchy that it is in, as
  // /proc/PID/cgroup shows it outside of cgroup namespaces.
  const std::string& path() const;
  std::vector<CgroupPath> paths() const;
  // Of the v1 hierarchies that the group is in, in the order of paths().
  std::vector<CgroupV1Directory> v1_directories() const;

  absl::StatusOr<CgroupEntry> OpenEntry() const;

  // Makes a group inside of this one, in the same hierarchies. Its controllers
  // are among those of this group; v2 enables them here, for which this group
  // may have no processes of its own, but in groups below it (the
  // no-internal-process rule), unless the child is threaded. All or nothing,
  // but for the controllers: they stay enabled here, after a failure and after
  // the end of the last child, for other children may use them, and so this
  // group can have no processes of its own any more.
  // Destroy() of this group takes its children along.
  absl::StatusOr<Cgroup> CreateChild(const CgroupOptions& options) const;

  // Gives the group's v2 directory to a user, who may then make groups in it,
  // move its own processes there and enable what controllers it has, but not
  // change its limits: chown(2) of the directory, cgroup.procs,
  // cgroup.threads and cgroup.subtree_control. For root in a user namespace of
  // a container: the ids that it has outside. All or nothing.
  // FAILED_PRECONDITION on version 1, where it would not be safe.
  absl::Status Delegate(uid_t user, gid_t group) const;

  // Changes the limits that are present in `limits`. All values are validated
  // before the first write; if a write fails, those before it are taken back.
  // FAILED_PRECONDITION if a controller is needed that the group was not
  // created with. Lowering memory_max below what is in use makes the kernel
  // reclaim and then kill (v2), or fails with EBUSY (v1); so it is written when
  // only the devices are left.
  absl::Status SetLimits(const CgroupLimits& limits);

  // Opens the files of the group's statistics, to read them again and again.
  // See cgroup_stats.h.
  absl::StatusOr<CgroupStatsReader> OpenStats() const;

  // Tells what happens in the group from now on, by a descriptor to poll. See
  // cgroup_events.h. FAILED_PRECONDITION for what this host or kernel cannot
  // tell, with the reason.
  absl::StatusOr<CgroupEvents> Watch(const CgroupWatchOptions& options) const;
  absl::StatusOr<CgroupEvents> WatchPressure(
      const CgroupPressureTrigger& trigger) const;

  // How many processes of this group and its descendants the kernel's
  // out-of-memory killer has killed. v2: memory.events, which also counts
  // descendants that are gone; v1: memory.oom_control of the existing ones.
  // FAILED_PRECONDITION without the memory controller (see
  // CgroupOptions::controllers).
  absl::StatusOr<int64_t> OomKills() const;

  // The processes of the group and its descendants, in ascending order, as seen
  // from the caller's PID namespace (0: not visible there; v2 only).
  absl::StatusOr<std::vector<pid_t>> Processes() const;

  // The same of threads, by their ids.
  absl::StatusOr<std::vector<pid_t>> Threads() const;

  // Moves a process that runs, with all its threads, into the group; children
  // that it has stay where they are, and so does the memory that it was charged
  // for. Back to where it was if one of the hierarchies refuses it, and then
  // the error says why. The group must not be frozen, or it stops. A process
  // that starts should be born in its group instead: see OpenEntry().
  //
  // The kernel takes a PID only. It is looked up from `pidfd` before each
  // write; if the process ends during the move (so that its PID might have been
  // another's) the result is ABORTED: then a stranger might be in the group,
  // whom Kill() would hit, so look at Processes() first. NOT_FOUND if it has
  // ended before, or is in a PID namespace that the caller does not see. Of
  // `pid` it is the caller who knows that it was not reused before the call:
  // children that were not waited for.
  absl::Status MoveIn(BorrowedFd pidfd) const;
  absl::Status MoveIn(pid_t pid) const;

  // Stops all processes of the group and its descendants, in a way that they
  // cannot see or undo, and those that are moved in or forked later; returns
  // when all have stopped. Idempotent. What was killed while it was frozen
  // dies: on v2 at once, on v1 when it is thawed, as Kill() does. If some
  // process cannot be stopped in time, DEADLINE_EXCEEDED, and the group is as
  // it was. v2: cgroup.freeze, waiting for cgroup.events by poll(2). v1:
  // freezer.state, for which the group needs kFreezer in
  // CgroupOptions::controllers (FAILED_PRECONDITION); v1 has no event, so the
  // state is read each millisecond. Precondition: the caller is not in the
  // group.
  absl::Status Freeze(absl::Duration timeout = kCgroupFreezeTimeout) const;

  // Lets them go on. Idempotent. FAILED_PRECONDITION, naming the group, if one
  // above is frozen: this one is thawed then, and its processes go on with it.
  absl::Status Thaw(absl::Duration timeout = kCgroupFreezeTimeout) const;

  // Whoever froze it: a group above, too. kThawed on v1 without kFreezer.
  absl::StatusOr<CgroupFreezeState> FreezeState() const;

  // Sends a signal to all processes of the group and its descendants; SIGKILL
  // is Kill(). They are frozen while it is sent, where that is possible and
  // does not take longer than 200 ms, so that none is forked unsignalled. It
  // goes to pidfds of verified members, never to a bare PID. What is frozen
  // takes it when it is thawed. `timeout` is for the thaw. Precondition: the
  // caller is not in the group.
  absl::Status Signal(int signal,
                      absl::Duration timeout = kCgroupKillTimeout) const;

  // Sends SIGKILL to all processes of the group and its descendants, also to
  // those that are being forked, and waits until they are gone. The group stays
  // and can be entered again, on v2 by moving only: newer kernels (seen
  // in 6.18) kill what is born by CLONE_INTO_CGROUP in a group that cgroup.kill
  // was ever written to, or to one above it; OpenEntry() knows. A fork bomb
  // cannot outrun it: v2 uses cgroup.kill, and the freezer for processes
  // whose first thread has ended, which that leaves alone; on v1 nothing can be
  // forked meanwhile (pids.max 0, or the freezer; on a host that mounts neither
  // a bomb may win), and signals go to pidfds of verified members, never to a
  // bare PID. A frozen group is thawed by it; on v1 what a group above keeps
  // frozen cannot die, and the error names that one. DEADLINE_EXCEEDED names
  // processes that outlived `timeout`. Precondition: the caller is not in the
  // group.
  absl::Status Kill(absl::Duration timeout = kCgroupKillTimeout) const;

  // Kills what is inside and removes the group with all its descendants from
  // all hierarchies. Idempotent. After a failure it can be called again.
  absl::Status Destroy(absl::Duration timeout = kCgroupKillTimeout);

  // Descriptors that keep the group from Recover() when its owner is dead, for
  // a process in it that outlives the host (detached.h): as long as they, or
  // duplicates in whatever process, are open, the group is somebody's.
  // To be made once: FAILED_PRECONDITION later on; also if the group was
  // destroyed, and for a child of another group, which is kept with that one.
  absl::StatusOr<std::vector<UniqueFd>> Lifelines() const;
  // From now on neither the destructor nor that of the CgroupParent destroys
  // the group. Destroy() still does.
  void Disown();
  // The group behind lifelines that another owner made, all of them and nothing
  // else; it is disowned. As long as this object lives, Recover() leaves the
  // group alone. The directory above it goes with CgroupParent::Recover().
  // Of a group whose place was prescribed its directories (O_RDONLY |
  // O_DIRECTORY), in the order of paths(). FAILED_PRECONDITION if it was
  // destroyed.
  static absl::StatusOr<Cgroup> Attach(std::vector<UniqueFd> lifelines);
  // The group at a prescribed place, by what path() and paths() were; it is
  // disowned. Directories that are gone are left out. Nothing else of the host
  // is looked at, so CreateChild() is FAILED_PRECONDITION and v1_directories()
  // is empty. FAILED_PRECONDITION if it was destroyed.
  static absl::StatusOr<Cgroup> Attach(const std::string& path,
                                       const std::vector<CgroupPath>& paths);

  // Whether a directory above was made by this library, and so is left for
  // CgroupParent::Recover() when the group is gone.
  bool IsBelowMadeDirectory() const;

 private:
  friend class CgroupParent;
  explicit Cgroup(std::unique_ptr<cgroup::Group> group);
  void DestroyIfOurs();

  std::unique_ptr<cgroup::Group> group_;  // null when moved from
};

struct CgroupParentOptions {
  // Absolute path of the group below which the groups are made, the same in
  // all hierarchies and as /proc/self/cgroup would show it. What does not exist
  // of it is made, and removed with the last CgroupParent that uses it.
  std::string path = "/caisson";
  // The groups lie in `path` itself, at places that somebody else prescribes:
  // the engine that calls an OCI runtime. Nothing tells such a group from those
  // of others, so Recover() finds none (but removes what was made of `path` and
  // is empty), and Lifelines() are refused: whoever disowns one keeps a record
  // of its paths() (see Cgroup::Attach()).
  bool prescribed = false;
};

// Makes groups below one path. Thread-safe.
//
// Cgroup v2: controllers that a group needs are enabled
// (cgroup.subtree_control) in every group from the mount's root down, where
// they are not yet; that is not undone. A group with processes of its own
// cannot have controllers enabled (the no-internal-process rule), so no process
// may live in `path`; the error says which group is in the way.
//
// The directory goes away with the last of the CgroupParent and its groups.
class [[nodiscard]] CgroupParent final {
 public:
  // Detects the layout; makes nothing yet: hierarchies are prepared when the
  // first group needs them. INVALID_ARGUMENT for a bad path,
  // FAILED_PRECONDITION if no hierarchy is mounted writable.
  static absl::StatusOr<CgroupParent> Open(const CgroupParentOptions& options);

  // Kills the processes in and removes the directories of CgroupParents at
  // `options.path` whose owner is dead; goes on after a failure and returns the
  // first. A path that does not exist is OK. The result lists what was removed.
  // Safe to call at any time and by several processes at once.
  static absl::StatusOr<std::vector<std::string>> Recover(
      const CgroupParentOptions& options,
      absl::Duration timeout = kCgroupKillTimeout);

  CgroupParent(CgroupParent&&) noexcept;
  CgroupParent& operator=(CgroupParent&&) noexcept;
  ~CgroupParent();

  // Makes a group with its limits. All or nothing. ALREADY_EXISTS if this
  // CgroupParent has one of that name; FAILED_PRECONDITION, naming the
  // controller, the layout and what to do, if a controller is missing.
  absl::StatusOr<Cgroup> Create(const CgroupOptions& options) const;

  // The name of the group that the process is in, or in a group below which it
  // is. NOT_FOUND if it is in none of this CgroupParent.
  absl::StatusOr<std::string> FindGroupOf(pid_t pid) const;

  // Removes the directory now. FAILED_PRECONDITION (EBUSY) while there are
  // groups; they go on working, and the directory goes with the last of them.
  // Create() fails from then on.
  absl::Status Close();

  // The directory of this object: "/caisson/caisson-<pid>-<random>", or
  // CgroupParentOptions::path if that is prescribed.
  const std::string& path() const;
  const CgroupLayout& layout() const;

  // For the library itself: nobody else can make an Owner.
  explicit CgroupParent(std::shared_ptr<cgroup::Owner> owner);

 private:
  std::shared_ptr<cgroup::Owner> owner_;  // null when moved from
};

}  // namespace caisson

#endif  // CAISSON_CGROUP_H_
