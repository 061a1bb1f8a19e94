#include "lib/launcher/start_errors.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson::launcher {
namespace {

constexpr char kDead[] =
    "the launcher process has ended, and with it what it started, or "
    "Launcher::Shutdown() was called; create a new Launcher";

absl::string_view RejectText(uint32_t reason) {
  switch (reason) {
    case plan::kBadVersion:
      return "the plan is of another version than the launcher";
    case plan::kBadSize:
      return "the plan's size is wrong";
    case plan::kBadMagic:
      return "this is no plan";
    case plan::kBadTables:
      return "a table lies outside the plan";
    case plan::kBadReloc:
      return "bad relocation";
    case plan::kBadOpKind:
      return "unknown operation";
    case plan::kBadOpArg:
      return "an argument lies outside the plan";
    case plan::kBadOpSlot:
      return "a descriptor slot does not exist";
    case plan::kBadOpStep:
      return "bad step";
    case plan::kBadOpSkip:
      return "a skip leads out of the plan";
    case plan::kBadCloneFlags:
      return "clone flags that a plan may not have";
    case plan::kBadIdMap:
      return "an id map lies outside the plan";
    case plan::kNotTerminated:
      return "the plan does not end in NUL";
    default:
      return "unknown reason";
  }
}

absl::string_view CloneHint(int error) {
  switch (error) {
    case EPERM:
      return "creating these namespaces needs CAP_SYS_ADMIN, or a user "
             "namespace";
    case ENOSPC:
      return "a limit of /proc/sys/user/max_*_namespaces, or 32 nested ones";
    case EAGAIN:
      return "RLIMIT_NPROC, kernel.pid_max or the pids limit of the control "
             "group";
    case EBUSY:
      return "the v2 control group has controllers enabled for its children";
    case EOPNOTSUPP:
      return "the v2 control group is threaded or being removed";
    case ENODEV:
      return "the v2 control group was removed";
    default:
      return "";
  }
}

}  // namespace

absl::Status Dead(absl::string_view what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", kDead));
}

absl::Status RejectError(const Message& message) {
  switch (message.stage) {
    case kStageReceive:
      return ErrnoError(message.error, "recvmsg(launcher)",
                        {.step = "launcher",
                         .hint = "the launcher has as many descriptors open as "
                                 "RLIMIT_NOFILE allows"});
    case kStagePlan:
      return absl::InvalidArgumentError(absl::StrCat(
          "the launcher refused the plan: ", RejectText(message.reason),
          " (entry ", message.position, ")"));
    case kStageMap:
      return ErrnoError(
          message.error, "mmap(plan)",
          {.step = "launcher",
           .hint = message.error == EPERM ? "the memfd is not sealed against "
                                            "shrinking and growing"
                                          : ""});
    case kStageFull:
      return absl::ResourceExhaustedError(
          absl::StrCat("this launcher runs ", kMaxChildren,
                       " processes already; create another one"));
    case kStageDetach:
      return ErrnoError(
          message.error, "Process::Detach()",
          {.step = "launcher",
           .hint = message.error == EEXIST
                       ? "there is a detached process of that name in the "
                         "directory, or the record of one that has ended "
                         "(ForgetDetached)"
                   : message.error == ESRCH ? "the process has ended"
                   : message.error == ENOTCONN
                       ? "the launcher has no directory "
                         "(LauncherOptions.directory)"
                   : message.error == EAGAIN
                       ? "the launcher has as many detached processes as it "
                         "can look after"
                       : ""});
    case kStageListen:
      return ErrnoError(message.error, "LauncherOptions.directory",
                        {.step = "launcher"});
    case kStageHosts:
      return absl::ResourceExhaustedError(absl::StrCat(
          "Launcher::Attach(): ", kMaxHosts,
          " hosts are connected to this launcher, and it takes no more"));
    case kStageFind:
      return ErrnoError(
          message.error, "Launcher::Find()",
          {.step = "launcher",
           .hint = message.error == ENOENT
                       ? "no detached process of that name runs; "
                         "ListDetached() tells how it ended"
                   : message.error == EAGAIN
                       ? "too many objects for detached processes "
                         "of this launcher are in use"
                       : ""});
    case kStageRelease:
      return ErrnoError(
          message.error, "Process::Release()",
          {.step = "launcher",
           .hint = message.error == ESRCH ? "the start was given up" : ""});
    case kStageIdMap: {
      constexpr const char* kFiles[] = {"setgroups", "uid_map", "gid_map"};
      return ErrnoError(
          message.error,
          absl::StrCat("write(\"/proc/PID/",
                       kFiles[std::min<uint32_t>(message.position, 2)], "\")"),
          {.step = "namespaces",
           .hint = message.error == EPERM
                       ? "mapping other ids than the own one needs CAP_SETUID "
                         "and CAP_SETGID"
                       : "the ranges overlap or are not mapped in the parent"});
    }
    default:
      return ErrnoError(message.error, "clone3()",
                        {.step = "clone", .hint = CloneHint(message.error)});
  }
}

absl::Status OperationError(const plan::PlanBuilder& plan,
                            const plan::Result& result) {
  if (result.op >= plan.op_count() || result.error <= 0) {
    return absl::InternalError("the launcher reported an impossible failure");
  }
  const plan::Explanation& explanation = plan.explanation(result.op);
  const bool clone = absl::StartsWith(explanation.call, "clone3(");
  return ErrnoError(result.error, explanation.call,
                    {.step = plan.step_of(result.op),
                     .path = explanation.path,
                     .hint = clone ? CloneHint(result.error)
                                   : absl::string_view(explanation.hint)});
}

absl::Status KilledDuringSetup(const plan::PlanBuilder& plan,
                               const plan::Result& result,
                               const absl::StatusOr<Message>& exited) {
  const absl::string_view step =
      result.op < plan.op_count() ? plan.step_of(result.op) : "clone";
  if (!exited.ok()) return Dead(absl::StrCat("start, step ", step));
  const int status = exited->wait_status;
  return absl::AbortedError(absl::StrCat(
      "the process was killed ",
      WIFSIGNALED(status)
          ? absl::StrCat("by signal ", WTERMSIG(status), " (SIG",
                         ::sigabbrev_np(WTERMSIG(status)), ") ")
          : "",
      "during its set-up, in step ", step,
      "; a memory limit that is too small for a program to start does this"));
}

}  // namespace caisson::launcher
