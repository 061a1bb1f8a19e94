// What flows between a container's program and those who are attached to it,
// and into its log.
#ifndef CAISSON_LIB_KEEPER_OUTPUT_H_
#define CAISSON_LIB_KEEPER_OUTPUT_H_

#include <functional>
#include <list>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/keeper/loop.h"

namespace caisson::keeper {

// One output stream of a program, to the log and to any number of pipes. One
// that takes nothing while kMaxPending bytes wait for it makes the program
// wait; one that was closed is left out. Not thread-safe.
class Output final {
 public:
  static constexpr size_t kMaxPending = 1 << 20;

  Output(Loop& loop, std::function<void(absl::string_view)> log)
      : loop_(loop), log_(std::move(log)) {}
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output();

  // Where the program writes; borrowed until Finish().
  void Begin(BorrowedFd source);
  // Takes what is there, without waiting and at most what a pipe holds, and
  // closes the pipes once they have taken it.
  void Finish();
  // A pipe to which everything goes from now on.
  void Attach(UniqueFd sink);

  // Whether a pipe has yet to take something; `drained` is called when none has
  // any more, after Finish().
  bool pending() const;
  void OnDrained(Loop::Callback drained) { drained_ = std::move(drained); }

 private:
  struct Sink {
    UniqueFd fd;
    std::string pending;
    bool closing = false;  // nothing more comes
  };

  void Watch();
  // How many bytes; 0 at the end of the stream and if nothing is there.
  size_t Move();
  // False if it was closed.
  bool Flush(Sink& sink);
  void WatchReader(std::list<Sink>::iterator sink);
  void FlushAndWatch(std::list<Sink>::iterator sink);
  void Remove(std::list<Sink>::iterator sink);

  Loop& loop_;
  std::function<void(absl::string_view)> log_;
  BorrowedFd source_;
  bool ended_ = true;
  std::list<Sink> sinks_;
  Loop::Callback drained_;
};

// A program's standard input, from whoever is attached to it, one after the
// other as they come. Not thread-safe.
class Input final {
 public:
  explicit Input(Loop& loop) : loop_(loop) {}
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;
  ~Input() { Finish(); }

  // Where the program reads: a pipe, or a duplicate of its terminal's master.
  // `once`: closed when the first source ends.
  void Begin(UniqueFd sink, bool once);
  void Finish();
  // From now on `source` is read; it is closed if the program reads nothing.
  void Attach(UniqueFd source);

 private:
  void Watch();
  void Read(std::list<UniqueFd>::iterator source);
  void Write();
  void CloseSink();

  Loop& loop_;
  UniqueFd sink_;
  bool once_ = false;
  bool close_when_written_ = false;
  std::list<UniqueFd> sources_;
  std::string pending_;
};

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_OUTPUT_H_
