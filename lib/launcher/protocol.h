// The messages between the host and its launcher, over a SOCK_SEQPACKET pair.
//
// Shared with the freestanding launcher: nothing but <stdint.h>. See
// doc/plan-format.md.
#ifndef CAISSON_LIB_LAUNCHER_PROTOCOL_H_
#define CAISSON_LIB_LAUNCHER_PROTOCOL_H_

#include <stdint.h>

namespace caisson::launcher {

inline constexpr uint32_t kProtocolVersion = 4;

// The launcher finds its end of the control socket here.
inline constexpr int kControlFd = 3;
// One that was born in a user namespace of its own finds a second one here, for
// a helper that it clones: that stays in the host's mount namespace, where it
// may do nothing but unshare a copy of it, and so is the one that can clone a
// mount of the host's for the user namespace. It takes requests as the launcher
// does.
inline constexpr int kMountsFd = 4;

enum RequestKind : uint32_t {
  // Carries these descriptors: the launcher's end of the process's channel, the
  // plan's memfd, then those that the plan names.
  kStart = 0,
  // Ends a start that the host gave up, whatever became of it meanwhile.
  kAbandon = 1,
  // Answers kNeedsIdMaps: /proc/PID/uid_map and gid_map are written.
  kIdMapsWritten = 2,
  // Carries a channel for the answer, a listening socket, where further hosts
  // come, the directory in which it is bound, for the records of detached
  // processes, and a file whose lock says that the launcher lives. Once.
  kListen = 3,
  // The process outlives its host from now on, under a name. Carries a channel
  // for the answer and what is kept open as long as the process lives: first a
  // file for whoever finds it, then the plan if `has_init`, then the rest.
  kDetach = 4,
  // Asks for the detached process of a name. Carries a channel.
  kFind = 5,
  // The process is left to whoever collects the launcher's orphans. Carries a
  // channel. Only to a launcher that is no PID 1.
  kRelease = 6,
};

// Of a detached process, with its NUL.
inline constexpr uint32_t kNameSize = 64;
// What one detached process keeps open.
inline constexpr int kMaxKept = 64;
inline constexpr int kFirstKeptFd = 1;
// In the directory of kListen.
inline constexpr char kSocketName[] = "launcher.sock";
inline constexpr char kLockName[] = "launcher.lock";
// Records: the process's name and this.
inline constexpr char kRecordSuffix[] = ".process";

// Host to launcher.
struct Request {
  uint32_t version;
  uint32_t kind;          // RequestKind
  uint64_t serial = 0;    // kAbandon, kDetach, kRelease: that of kStarted
  uint32_t has_init = 0;  // kDetach
  uint32_t reserved = 0;
  char name[kNameSize] = {};  // kDetach, kFind
};
inline constexpr int kChannelFd = 0;  // first: it survives a truncation
inline constexpr int kPlanFd = 1;
inline constexpr int kFirstPlanFd = 2;

enum MessageKind : uint32_t {
  kHello = 1,  // on the control socket, with the launcher's pidfd
  // On the channel, with the child's pidfd and the read end of its status pipe.
  kStarted = 2,
  kRejected = 3,  // on the channel: no child exists
  kExited = 4,    // on the channel: the child was reaped
  // On the channel, with its pidfd: another process took the child's place
  // (plan::kFork) before it runs.
  kForked = 5,
  // On the control socket, with the launcher's pidfd, before kHello: it was
  // born in a user namespace. Answered by kIdMapsWritten.
  kNeedsIdMaps = 6,
  kDetached = 7,  // on the channel of kDetach
  // On the channel of kFind, with the process's pidfd and what was kept; later
  // kExited.
  kFound = 8,
  // On the control socket of a host that shut it down: what it started has
  // ended, and the launcher goes on for others. (Without, the launcher ends.)
  kGoodbye = 9,
  kListening = 10,  // on the channel of kListen
  kReleased = 11,   // on the channel of kRelease
};

// Why a start was rejected, beside the plan::Reject reasons.
enum RejectStage : uint32_t {
  kStageReceive = 1,   // descriptors got lost on the way; error = EMFILE
  kStagePlan = 2,      // the block is no plan; `reason` is a plan::Reject
  kStageMap = 3,       // the memfd is not sealed or cannot be mapped
  kStageFull = 4,      // kMaxChildren run already
  kStageClone = 5,     // clone3() failed
  kStageIdMap = 6,     // /proc/PID/{setgroups,uid_map,gid_map}
  kStageDetach = 7,    // of kDetach
  kStageFind = 8,      // of kFind
  kStageListen = 9,    // of kListen
  kStageHosts = 10,    // on a control socket: kMaxHosts are connected
  kStageRelease = 11,  // of kRelease
};

// Processes that one launcher looks after at a time.
inline constexpr uint32_t kMaxChildren = 8192;
// Of these, detached.
inline constexpr uint32_t kMaxDetached = 1024;
// Hosts that are connected to one launcher at a time.
inline constexpr uint32_t kMaxHosts = 64;

enum Feature : uint32_t {
  // The launcher lives in a mount namespace that shows nothing of the host.
  kIsolatedMounts = 1u << 0,
  // It was born in a user namespace of its own.
  kOwnUserNamespace = 1u << 1,
  // It is no PID 1, so that what it started can outlive it.
  kReleases = 1u << 2,
};

struct Message {
  uint32_t version;
  uint32_t kind;  // MessageKind
  // kHello
  uint32_t features;
  int32_t isolation_error;  // errno that kept kIsolatedMounts away
  // kStarted, kExited, kForked, kFound, kHello
  int32_t pid;      // as the launcher's pid namespace numbers it
  uint64_t serial;  // kStarted, kFound: of this start
  // kRejected
  uint32_t stage;     // RejectStage
  uint32_t reason;    // plan::Reject
  uint32_t position;  // table index, or which id map file (0, 1, 2)
  int32_t error;      // errno
  // kExited: as wait4(2) reports it
  int32_t wait_status;
  uint64_t user_us;
  uint64_t system_us;
  uint64_t max_rss_kib;
};

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_PROTOCOL_H_
