// The names of a log's files: doc/container-logs.md.
#ifndef CAISSON_LIB_LOGS_LOG_FILES_H_
#define CAISSON_LIB_LOGS_LOG_FILES_H_

namespace caisson::logs {

inline constexpr char kLogFile[] = "container.log";
// The next one, until it takes that name.
inline constexpr char kNewLogFile[] = "container.log.new";
// A FIFO that the writer holds open. Readers that have its other end see a
// hang-up when the last writer is gone, however it ended.
inline constexpr char kWriterFifo[] = "container.log.writer";

}  // namespace caisson::logs

#endif  // CAISSON_LIB_LOGS_LOG_FILES_H_
