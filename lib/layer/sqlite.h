// A thin, exception-free C++ face of SQLite: a connection, statements,
// transactions. Errors carry SQLite's text and, where the system refused, the
// errno. Thread-compatible.
#ifndef CAISSON_LIB_LAYER_SQLITE_H_
#define CAISSON_LIB_LAYER_SQLITE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

struct sqlite3;
struct sqlite3_stmt;

namespace caisson::layer {

// One run of one statement: bound when it is made, then stepped through.
//
//   ASSIGN_OR_RETURN(SqlQuery query, db.Query("SELECT a FROM t WHERE b=?", b));
//   for (;;) {
//     ASSIGN_OR_RETURN(const bool row, query.Next());
//     if (!row) break;
//     ... query.Text(0) ...
//   }
class SqlQuery final {
 public:
  SqlQuery(SqlQuery&&) = default;
  SqlQuery& operator=(SqlQuery&&) = default;

  // Steps to the next row; false after the last.
  absl::StatusOr<bool> Next();

  // Columns of the current row, from 0. NULL is empty, or 0.
  std::string Text(int column) const;  // also for BLOBs
  int64_t Int(int column) const;

 private:
  friend class Sqlite;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  explicit SqlQuery(sqlite3_stmt* statement) : statement_(statement) {}

  absl::Status Bind(int index, absl::string_view text);
  absl::Status Bind(int index, int64_t number);

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

class Sqlite final {
 public:
  // Opens the database file at the absolute `path`, creating it with SQLite's
  // mode of 0644 minus the umask if it is missing, in WAL mode with every
  // commit synced.
  static absl::StatusOr<Sqlite> Open(const std::string& path,
                                     absl::Duration busy_timeout);

  // A statement with its parameters; strings are copied.
  template <typename... Values>
  absl::StatusOr<SqlQuery> Query(const char* sql, const Values&... values) {
    absl::StatusOr<SqlQuery> query = Prepare(sql);
    if (!query.ok()) return query;
    int index = 0;
    absl::Status status;
    const bool bound =
        ((status = query->Bind(++index, Value(values))).ok() && ...);
    if (!bound) return status;
    return query;
  }

  // Runs a statement that answers no rows.
  template <typename... Values>
  absl::Status Run(const char* sql, const Values&... values) {
    absl::StatusOr<SqlQuery> query = Query(sql, values...);
    if (!query.ok()) return query.status();
    return query->Next().status();
  }

  // Runs several statements without parameters.
  absl::Status RunScript(const char* sql);

  // Rows that the last Run changed.
  int64_t changes() const;

 private:
  struct Close {
    int owner = 0;
    void operator()(sqlite3* db) const;
  };
  explicit Sqlite(std::unique_ptr<sqlite3, Close> db) : db_(std::move(db)) {}

  absl::StatusOr<SqlQuery> Prepare(const char* sql);

  template <typename T>
  static auto Value(const T& value) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<int64_t>(value);
    } else {
      return absl::string_view(value);
    }
  }

  std::unique_ptr<sqlite3, Close> db_;
};

// BEGIN ... COMMIT; the destructor rolls back what was not committed.
class SqlTransaction final {
 public:
  enum class Kind { kRead, kWrite };

  // kWrite waits for other writers at once, so that no later step is refused.
  static absl::StatusOr<SqlTransaction> Begin(Sqlite& db, Kind kind);

  SqlTransaction(SqlTransaction&& other) noexcept
      : db_(std::exchange(other.db_, nullptr)) {}
  SqlTransaction& operator=(SqlTransaction&&) = delete;
  ~SqlTransaction();

  absl::Status Commit();

 private:
  explicit SqlTransaction(Sqlite* db) : db_(db) {}

  Sqlite* db_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_SQLITE_H_
