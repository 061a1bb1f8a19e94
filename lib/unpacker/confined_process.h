// One run of the confined unpacker's program, and the conversation with it.
//
//   ASSIGN_OR_RETURN(auto process,
//                    ConfinedProcess::Start(confinement, {.layer = dir}));
//   RETURN_IF_ERROR(process->Send(request));
//   ... TryWrite, TryRead, Handle, Wait ...
//
// The destructor kills it and waits for its end: from then on it writes
// nothing. Thread-compatible.
#ifndef CAISSON_LIB_UNPACKER_CONFINED_PROCESS_H_
#define CAISSON_LIB_UNPACKER_CONFINED_PROCESS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/launcher.h"
#include "caisson/namespace.h"
#include "caisson/security.h"
#include "caisson/unique_fd.h"
#include "lib/unpacker/wire.h"

namespace caisson::unpacker {

// What all runs have in common. Made once; read by many threads.
struct Confinement {
  Launcher* launcher = nullptr;
  const Cgroup* cgroup = nullptr;
  BorrowedFd program;
  const Namespace* namespaces = nullptr;
  const SecurityPolicy* decompressor = nullptr;
  const SecurityPolicy* unpacker = nullptr;
};

class ConfinedProcess final {
 public:
  struct Options {
    // What an unpacker writes to; invalid: it decompresses.
    BorrowedFd layer;
    // RLIMIT_AS.
    uint64_t max_memory_bytes = 0;
  };
  static absl::StatusOr<std::unique_ptr<ConfinedProcess>> Start(
      const Confinement& confinement, const Options& options);
  ~ConfinedProcess();

  // Sends a message. Waits until there is room for it, calling `idle`.
  using Idle = std::function<absl::Status()>;
  absl::Status Send(Message& message, const Idle& idle = nullptr);

  // What it shall decode, as much as there is room for; all, if it reads no
  // more.
  absl::StatusOr<size_t> TryWrite(absl::string_view bytes);
  void CloseInput() { input_.reset(); }

  // What it has decompressed: 0 at the end, nullopt if there is none yet.
  absl::StatusOr<std::optional<size_t>> TryRead(absl::Span<char> buffer);

  // Calls `handler` for every message that has come, until it answers true:
  // that is what was waited for, and so does this. If the process has ended,
  // the error says how; what `handler` answers as an error is returned.
  using Handler =
      absl::FunctionRef<absl::StatusOr<bool>(MessageType, absl::string_view)>;
  absl::StatusOr<bool> Handle(Handler handler);

  // Waits until there are messages, or room to write, or something to read.
  // Calls `idle`, if set, when nothing happens for half a second, and now and
  // then.
  absl::Status Wait(bool to_write, bool to_read, const Idle& idle);

  // For what it may not say: INTERNAL.
  static absl::Status Nonsense(absl::string_view what);

 private:
  explicit ConfinedProcess(uint64_t max_memory_bytes)
      : max_memory_bytes_(max_memory_bytes) {}

  absl::Status Died();

  const uint64_t max_memory_bytes_;
  UniqueFd input_;
  UniqueFd output_;
  UniqueFd control_;
  std::string received_;
  uint64_t turns_ = 0;
  std::optional<Process> process_;
};

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_CONFINED_PROCESS_H_
