// The log of a container, written: doc/container-logs.md.
#ifndef CAISSON_LIB_LOGS_LOG_WRITER_H_
#define CAISSON_LIB_LOGS_LOG_WRITER_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/container_logs.h"
#include "caisson/unique_fd.h"

namespace caisson::logs {

// The one writer of a directory's log. As long as it lives, readers that follow
// wait for more. It waits for nobody but the disk, and nothing that the disk
// does stops it: what cannot be written is dropped, counted, and reported in
// the log when there is room again.
//
// Thread-compatible. The destructor does not flush: Flush() does.
class [[nodiscard]] LogWriter final {
 public:
  // Continues the log in `directory`, of which it keeps a duplicate, or begins
  // one. FAILED_PRECONDITION if another writer has it, INVALID_ARGUMENT for
  // options out of range.
  static absl::StatusOr<LogWriter> Open(BorrowedFd directory,
                                        const ContainerLogOptions& options);

  LogWriter(LogWriter&&) = default;
  LogWriter& operator=(LogWriter&&) = default;

  // What the container has written. Whole lines go to the file with one
  // write(2); an incomplete last one waits for its rest, in at most 16 KiB of
  // memory.
  void Write(LogStream stream, absl::string_view bytes, absl::Time now);

  // Writes the incomplete line of `stream`, if there is one: at its end.
  void Flush(LogStream stream, absl::Time now);

  // Entries that could not be written, since Open().
  int64_t lost_entries() const { return lost_total_; }

 private:
  LogWriter() = default;

  absl::Status OpenFile();
  void Begin(absl::Time now);
  void Emit(LogStream stream, absl::string_view text);
  void WriteBatch();
  void KeepUnwritten(size_t written, size_t note_begin, size_t note_end);
  bool Rotate();
  int LastNumber() const;
  void RemoveSurplus() const;

  UniqueFd directory_;
  UniqueFd alive_;  // the FIFO by which readers know that there is a writer
  UniqueFd file_;
  ContainerLogOptions options_;
  int64_t size_ = 0;  // of file_
  bool may_rotate_ = true;
  std::string time_;  // as entries have it

  std::array<std::string, 2> incomplete_;  // by stream
  std::string batch_;                      // whole lines of JSON
  // The rest of a line that is half in the file.
  std::string rest_;
  int64_t lost_total_ = 0;
  int64_t lost_unreported_ = 0;
  int lost_error_ = 0;  // errno of the last loss
};

}  // namespace caisson::logs

#endif  // CAISSON_LIB_LOGS_LOG_WRITER_H_
