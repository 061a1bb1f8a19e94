#include "lib/launcher/spec_check.h"

#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::launcher {
namespace {

constexpr int kMaxDescriptor = 255;
constexpr mode_t kMaxUmask = 0777;

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("ProcessSpec.", parts...));
}

absl::Status CheckString(absl::string_view field, absl::string_view value) {
  if (value.find('\0') == absl::string_view::npos) return absl::OkStatus();
  return Bad(field, " ", Quoted(value), " has a NUL");
}

absl::Status CheckEnvironment(const ProcessSpec& spec) {
  for (const std::string& variable : spec.env) {
    RETURN_IF_ERROR(CheckString("env", variable));
    const size_t equals = variable.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return Bad("env ", Quoted(variable), " is not NAME=value");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStreams(const ProcessSpec& spec) {
  for (const Stdio* stream : {&spec.in, &spec.out, &spec.err}) {
    RETURN_IF_ERROR(CheckString("in, out or err: path", stream->path()));
    if (stream->kind() == Stdio::Kind::kLikeStdout && stream != &spec.err) {
      return Bad("in and out cannot be LikeStdout(); err can");
    }
    if (!spec.terminal || stream->kind() == Stdio::Kind::kNull) continue;
    return Bad(
        "terminal takes the place of in, out and err: leave them as they are");
  }
  return absl::OkStatus();
}

absl::Status CheckDescriptors(const ProcessSpec& spec) {
  std::set<int> numbers;
  for (const InheritedFd& fd : spec.descriptors) {
    if (fd.number < 3 || fd.number > kMaxDescriptor) {
      return Bad("descriptors: number ", fd.number, " is not from 3 to ",
                 kMaxDescriptor);
    }
    if (!numbers.insert(fd.number).second) {
      return Bad("descriptors: number ", fd.number, " is there twice");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const ProcessSpec& spec) {
  if (spec.umask > kMaxUmask) return Bad("umask is above 0777");
  if (spec.oom_score_adj &&
      (*spec.oom_score_adj < -1000 || *spec.oom_score_adj > 1000)) {
    return Bad("oom_score_adj ", *spec.oom_score_adj,
               " is not from -1000 to 1000");
  }
  if (spec.start_timeout <= absl::ZeroDuration()) {
    return Bad("start_timeout is not positive");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSpec(const ProcessSpec& spec) {
  if (spec.argv.empty() || (spec.argv[0].empty() && spec.executable.empty() &&
                            !spec.executable_fd.valid())) {
    return Bad("argv is empty: there is no program to run");
  }
  if (!spec.executable.empty() && spec.executable_fd.valid()) {
    return Bad("executable and executable_fd are both set");
  }
  for (const std::string& arg : spec.argv) {
    RETURN_IF_ERROR(CheckString("argv", arg));
  }
  RETURN_IF_ERROR(CheckString("executable", spec.executable));
  RETURN_IF_ERROR(CheckEnvironment(spec));
  RETURN_IF_ERROR(CheckString("cwd", spec.cwd));
  if (!absl::StartsWith(spec.cwd, "/")) {
    return Bad("cwd ", Quoted(spec.cwd), " is not an absolute path");
  }
  RETURN_IF_ERROR(CheckStreams(spec));
  RETURN_IF_ERROR(CheckDescriptors(spec));
  return CheckNumbers(spec);
}

absl::Status CheckExecSpec(const ProcessSpec& spec) {
  if (spec.root != nullptr) return Bad("root is the container's own in Exec()");
  if (spec.namespaces != nullptr) {
    return Bad("namespaces are the container's own in Exec()");
  }
  if (spec.network != nullptr) {
    return Bad("network is the container's own in Exec()");
  }
  if (spec.init) return Bad("init is for the first process of a container");
  if (spec.gate.valid()) {
    return Bad("gate is for the first process of a container");
  }
  if (!spec.hooks.empty()) {
    return Bad("hooks are for the first process of a container");
  }
  // It would not survive the clone that brings the process into the container,
  // and nothing may set it afterwards.
  if (spec.scheduling.scheduler &&
      (spec.scheduling.scheduler->reset_on_fork ||
       spec.scheduling.scheduler->policy == SchedulerPolicy::kDeadline)) {
    return Bad(
        "scheduling.scheduler: kDeadline and reset_on_fork are for the first "
        "process of a container");
  }
  return absl::OkStatus();
}

}  // namespace caisson::launcher
