#include "examples/oci/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/bundle.h"
#include "caisson/notation.h"
#include "caisson/oci_runtime.h"
#include "caisson/unique_fd.h"
#include "examples/oci/exec_process.h"
#include "examples/oci/foreground.h"
#include "examples/oci/report.h"
#include "examples/oci/update_resources.h"

namespace oci {
namespace {

using caisson::BorrowedFd;
using caisson::OciRuntime;
using caisson::OciStreams;
using caisson::Stdio;
using nlohmann::json;

constexpr int kFirstPreserved = 3;
constexpr int kMaxPreserved = 200;

absl::StatusOr<OciRuntime> Open(const Context& context) {
  return OciRuntime::Open({.root = context.root});
}

absl::StatusOr<std::string> IdOf(const Arguments& arguments) {
  if (!arguments.rest().empty()) return arguments.rest()[0];
  return absl::InvalidArgumentError("the container's id is missing");
}

absl::StatusOr<OciStreams> Streams(const Arguments& arguments, bool detach) {
  OciStreams streams;
  streams.needs_console_socket = detach;
  streams.in = Stdio::Inherit(BorrowedFd(STDIN_FILENO));
  streams.out = Stdio::Inherit(BorrowedFd(STDOUT_FILENO));
  streams.err = Stdio::Inherit(BorrowedFd(STDERR_FILENO));
  streams.console_socket = arguments.Get("console-socket");
  auto preserved = arguments.GetNumber("preserve-fds", 0);
  if (!preserved.ok()) return preserved.status();
  if (*preserved > kMaxPreserved) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--preserve-fds: at most ", kMaxPreserved, " can be preserved"));
  }
  for (int fd = kFirstPreserved; fd < kFirstPreserved + *preserved; ++fd) {
    // What was inherited is not close-on-exec; what was opened here is.
    const int flags = fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("--preserve-fds: descriptor ", fd, " is not open"));
    }
    streams.descriptors.push_back({fd, BorrowedFd(fd)});
  }
  return streams;
}

absl::StatusOr<caisson::OciProcess> CreateContainer(const OciRuntime& runtime,
                                                    const Context& context,
                                                    const Arguments& arguments,
                                                    const std::string& id,
                                                    bool detach) {
  caisson::OciCreateOptions options;
  options.bundle = arguments.Has("bundle") ? arguments.Get("bundle") : ".";
  options.pid_file = arguments.Get("pid-file");
  options.new_session_keyring = !arguments.Has("no-new-keyring");
  auto streams = Streams(arguments, detach);
  if (!streams.ok()) return streams.status();
  options.streams = *std::move(streams);
  auto process = runtime.Create(id, options);
  if (!process.ok()) return process.status();
  for (const std::string& warning : process->warnings) context.warn(warning);
  return process;
}

absl::Status DeleteContainer(const OciRuntime& runtime, const Context& context,
                             const std::string& id, bool force) {
  std::vector<std::string> warnings;
  const absl::Status status = runtime.Delete(id, force, &warnings);
  for (const std::string& warning : warnings) context.warn(warning);
  return status;
}

absl::StatusOr<int> Create(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const auto process =
      CreateContainer(*runtime, context, arguments, *id, /*detach=*/true);
  if (!process.ok()) return process.status();
  return 0;
}

absl::StatusOr<int> Run(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const bool detach = arguments.Has("detach");
  absl::Status status;
  // With --no-subreaper as well: nobody else could be waited for.
  if (!detach) status = BecomeItsParent();
  if (!status.ok()) return status;
  const auto process =
      CreateContainer(*runtime, context, arguments, *id, detach);
  if (!process.ok()) return process.status();
  status = runtime->Start(*id);
  if (status.ok() && detach) return 0;
  const auto code =
      status.ok() ? WaitInForeground(*process) : absl::StatusOr<int>(status);
  if (!status.ok() || !arguments.Has("keep")) {
    const absl::Status deleted =
        DeleteContainer(*runtime, context, *id, /*force=*/true);
    if (code.ok() && !deleted.ok()) return deleted;
  }
  return code;
}

absl::StatusOr<int> Start(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const absl::Status status = runtime->Start(*id);
  if (!status.ok()) return status;
  return 0;
}

absl::StatusOr<int> Exec(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  if (arguments.Has("ignore-paused")) {
    return absl::UnimplementedError(
        "--ignore-paused: in a paused container a process would stop before "
        "its program runs; resume the container");
  }
  caisson::OciExecOptions options;
  const auto config = runtime->Config(*id);
  if (!config.ok()) return config.status();
  auto text = ExecProcess(*config, arguments);
  if (!text.ok()) return text.status();
  options.process = *std::move(text);
  options.pid_file = arguments.Get("pid-file");
  const bool detach = arguments.Has("detach");
  auto streams = Streams(arguments, detach);
  if (!streams.ok()) return streams.status();
  options.streams = *std::move(streams);
  if (!detach) {
    const absl::Status status = BecomeItsParent();
    if (!status.ok()) return status;
  }
  const auto process = runtime->Exec(*id, options);
  if (!process.ok()) return process.status();
  for (const std::string& warning : process->warnings) context.warn(warning);
  if (detach) return 0;
  return WaitInForeground(*process);
}

absl::StatusOr<int> State(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const auto state = runtime->State(*id);
  if (!state.ok()) return state.status();
  std::cout << state->ToJson() << "\n";
  return 0;
}

absl::StatusOr<int> List(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  PrintList(runtime->List(), arguments.Has("quiet"),
            arguments.Get("format") == "json");
  return 0;
}

absl::StatusOr<int> Kill(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const std::string text =
      arguments.rest().size() > 1 ? arguments.rest()[1] : "SIGTERM";
  // 0 asks whether it lives.
  const auto signal =
      text == "0" ? absl::StatusOr<int>(0) : caisson::ParseSignal(text);
  if (!signal.ok()) return signal.status();
  const absl::Status status = runtime->Kill(*id, *signal, arguments.Has("all"));
  if (!status.ok()) return status;
  return 0;
}

absl::StatusOr<int> Delete(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const absl::Status status =
      DeleteContainer(*runtime, context, *id, arguments.Has("force"));
  if (!status.ok()) return status;
  return 0;
}

absl::StatusOr<int> Pause(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const absl::Status status = runtime->Pause(*id);
  if (!status.ok()) return status;
  return 0;
}

absl::StatusOr<int> Resume(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const absl::Status status = runtime->Resume(*id);
  if (!status.ok()) return status;
  return 0;
}

absl::StatusOr<int> Ps(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const auto pids = runtime->Processes(*id);
  if (!pids.ok()) return pids.status();
  if (arguments.Get("format") == "json") {
    std::cout << json(*pids).dump() << "\n";
    return 0;
  }
  const std::vector<std::string> options(arguments.rest().begin() + 1,
                                         arguments.rest().end());
  return PrintProcesses(*pids, options);
}

absl::StatusOr<int> Update(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  const auto resources = UpdateResources(arguments);
  if (!resources.ok()) return resources.status();
  const absl::Status status = runtime->Update(*id, *resources);
  if (!status.ok()) return status;
  return 0;
}

absl::Status PrintStats(const OciRuntime& runtime, const std::string& id) {
  const auto stats = runtime.Stats(id);
  if (stats.ok()) std::cout << StatsJson(id, *stats) << std::endl;
  return stats.status();
}

// One line however often it happened since the last time.
absl::Status PrintOutOfMemory(const caisson::CgroupEvents& events,
                              const std::string& id) {
  const auto happened = events.Read();
  if (!happened.ok()) return happened.status();
  const bool any = std::any_of(
      happened->begin(), happened->end(), [](const caisson::CgroupEvent& one) {
        return one.kind != caisson::CgroupEventKind::kRemoved;
      });
  if (any) std::cout << OutOfMemoryJson(id) << std::endl;
  return absl::OkStatus();
}

// Until the container's end: statistics at each interval, and what happens in
// between.
absl::StatusOr<int> Follow(const OciRuntime& runtime, const std::string& id,
                           absl::Duration interval) {
  const auto watch = runtime.Watch(id);
  if (!watch.ok()) return watch.status();
  absl::Status status = PrintStats(runtime, id);
  absl::Time next = absl::Now() + interval;
  while (status.ok()) {
    pollfd polls[] = {
        {watch->end.get(), POLLIN, 0},
        {watch->out_of_memory ? watch->out_of_memory->fd().get() : -1, POLLIN,
         0}};
    const absl::Duration left = next - absl::Now();
    const timespec timeout =
        absl::ToTimespec(std::max(left, absl::ZeroDuration()));
    if (ppoll(polls, 2, &timeout, nullptr) < 0 && errno != EINTR) {
      return absl::InternalError(absl::StrCat("ppoll: ", strerror(errno)));
    }
    const bool ended = polls[0].revents != 0;
    if (watch->out_of_memory && (ended || polls[1].revents != 0)) {
      status = PrintOutOfMemory(*watch->out_of_memory, id);
    }
    if (ended && status.ok()) return 0;
    if (absl::Now() < next) continue;
    status.Update(PrintStats(runtime, id));
    next += interval;
  }
  return status;
}

absl::StatusOr<int> Events(const Context& context, const Arguments& arguments) {
  const auto runtime = Open(context);
  if (!runtime.ok()) return runtime.status();
  const auto id = IdOf(arguments);
  if (!id.ok()) return id.status();
  absl::Duration interval = absl::Seconds(5);
  if (arguments.Has("interval") &&
      (!absl::ParseDuration(arguments.Get("interval"), &interval) ||
       interval <= absl::ZeroDuration())) {
    return absl::InvalidArgumentError(
        absl::StrCat("--interval ", arguments.Get("interval"),
                     " is no duration above zero"));
  }
  if (!arguments.Has("stats")) return Follow(*runtime, *id, interval);
  const absl::Status status = PrintStats(*runtime, *id);
  if (!status.ok()) return status;
  return 0;
}

absl::StatusOr<int> Spec(const Context&, const Arguments& arguments) {
  const std::string path =
      arguments.Has("bundle")
          ? absl::StrCat(arguments.Get("bundle"), "/config.json")
          : "config.json";
  const caisson::UniqueFd file(
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!file.valid()) {
    return absl::AlreadyExistsError(absl::StrCat(
        path, ": ", strerror(errno), "; an existing one is left alone"));
  }
  const std::string text = caisson::OciDefaultConfig(arguments.Has("rootless"));
  if (write(file.get(), text.data(), text.size()) !=
      static_cast<ssize_t>(text.size())) {
    return absl::InternalError(absl::StrCat(path, ": ", strerror(errno)));
  }
  return 0;
}

absl::StatusOr<int> Features(const Context&, const Arguments&) {
  std::cout << caisson::OciFeatures({}) << "\n";
  return 0;
}

std::vector<Option> With(std::vector<Option> options,
                         const std::vector<Option>& more) {
  options.insert(options.end(), more.begin(), more.end());
  options.push_back({"help", false, "h"});
  return options;
}

std::vector<Command> Commands() {
  const std::vector<Option> create = {
      {"bundle", true, "b"}, {"console-socket", true}, {"pid-file", true},
      {"no-pivot"},          {"no-new-keyring"},       {"preserve-fds", true}};
  std::vector<Option> update = {{"resources", true, "r"}};
  for (const std::string& name : LimitOptions()) update.push_back({name, true});
  return {
      {"create", With(create, {}), Create},
      {"run",
       With(create, {{"detach", false, "d"}, {"keep"}, {"no-subreaper"}}), Run},
      {"start", With({}, {}), Start},
      {"exec",
       With(ExecOptions(), {{"console-socket", true},
                            {"pid-file", true},
                            {"detach", false, "d"},
                            {"no-subreaper"},
                            {"preserve-fds", true},
                            {"ignore-paused"}}),
       Exec},
      {"state", With({}, {}), State},
      {"list", With({{"quiet", false, "q"}, {"format", true, "f"}}, {}), List},
      {"kill", With({{"all", false, "a"}}, {}), Kill},
      {"delete", With({{"force", false, "f"}}, {}), Delete},
      {"pause", With({}, {}), Pause},
      {"resume", With({}, {}), Resume},
      {"ps", With({{"format", true, "f"}}, {}), Ps},
      {"update", With(update, {}), Update},
      {"events", With({{"stats"}, {"interval", true}}, {}), Events},
      {"spec", With({{"bundle", true, "b"}, {"rootless"}}, {}), Spec},
      {"features", With({}, {}), Features},
  };
}

}  // namespace

const Command* FindCommand(const std::string& name) {
  static const std::vector<Command>* const commands =
      new std::vector<Command>(Commands());
  const auto it = std::find_if(
      commands->begin(), commands->end(),
      [&](const Command& command) { return command.name == name; });
  return it == commands->end() ? nullptr : &*it;
}

}  // namespace oci
