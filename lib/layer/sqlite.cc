#include "lib/layer/sqlite.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

absl::StatusCode CodeOf(int result) {
  switch (result & 0xff) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::StatusCode::kUnavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return absl::StatusCode::kPermissionDenied;
    case SQLITE_CONSTRAINT:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kInternal;
  }
}

// `db` may be null: SQLite could not even allocate it.
absl::Status SqlError(sqlite3* db, int result, absl::string_view operation) {
  const int code = db != nullptr ? ::sqlite3_extended_errcode(db) : result;
  const std::string text = absl::StrCat(
      operation, ": ",
      db != nullptr ? ::sqlite3_errmsg(db) : ::sqlite3_errstr(result));
  const int primary = code & 0xff;
  if (primary == SQLITE_FULL) {
    return ErrnoError(ENOSPC, text, {.step = "layer.index"});
  }
  const int error = db != nullptr ? ::sqlite3_system_errno(db) : 0;
  if (error != 0 && (primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN)) {
    return ErrnoError(error, text, {.step = "layer.index"});
  }
  return absl::Status(CodeOf(code), text);
}

}  // namespace

void SqlQuery::Finalize::operator()(sqlite3_stmt* statement) const {
  ::sqlite3_finalize(statement);
}

absl::Status SqlQuery::Bind(int index, absl::string_view text) {
  const int result = ::sqlite3_bind_text64(
      statement_.get(), index, text.data() != nullptr ? text.data() : "",
      text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  if (result == SQLITE_OK) return absl::OkStatus();
  return SqlError(::sqlite3_db_handle(statement_.get()), result,
                  "sqlite3_bind_text()");
}

absl::Status SqlQuery::Bind(int index, int64_t number) {
  const int result = ::sqlite3_bind_int64(statement_.get(), index, number);
  if (result == SQLITE_OK) return absl::OkStatus();
  return SqlError(::sqlite3_db_handle(statement_.get()), result,
                  "sqlite3_bind_int64()");
}

absl::StatusOr<bool> SqlQuery::Next() {
  const int result = ::sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  return SqlError(::sqlite3_db_handle(statement_.get()), result,
                  absl::StrCat("index.db: ", ::sqlite3_sql(statement_.get())));
}

std::string SqlQuery::Text(int column) const {
  const void* data = ::sqlite3_column_blob(statement_.get(), column);
  if (data == nullptr) return std::string();
  return std::string(
      static_cast<const char*>(data),
      static_cast<size_t>(::sqlite3_column_bytes(statement_.get(), column)));
}

int64_t SqlQuery::Int(int column) const {
  return ::sqlite3_column_int64(statement_.get(), column);
}

// A connection that came through fork is the parent's: closing it would drop
// the parent's view of its locks, so the child only forgets it.
void Sqlite::Close::operator()(sqlite3* db) const {
  if (owner == ::getpid()) ::sqlite3_close_v2(db);
}

absl::StatusOr<Sqlite> Sqlite::Open(const std::string& path,
                                    absl::Duration busy_timeout) {
  sqlite3* raw = nullptr;
  const int result = ::sqlite3_open_v2(
      path.c_str(), &raw,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
      /*zVfs=*/nullptr);
  std::unique_ptr<sqlite3, Close> db(raw, Close{.owner = ::getpid()});
  if (result != SQLITE_OK) {
    return SqlError(raw, result,
                    absl::StrCat("sqlite3_open(", Quoted(path), ")"));
  }
  const int64_t timeout =
      std::clamp<int64_t>(absl::ToInt64Milliseconds(busy_timeout), 0, INT_MAX);
  ::sqlite3_busy_timeout(raw, static_cast<int>(timeout));
  Sqlite sqlite(std::move(db));
  RETURN_IF_ERROR(
      sqlite.RunScript("PRAGMA journal_mode=WAL;"
                       "PRAGMA synchronous=FULL;"
                       "PRAGMA foreign_keys=ON;"
                       "PRAGMA trusted_schema=OFF;"));
  return sqlite;
}

absl::StatusOr<SqlQuery> Sqlite::Prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  const int result =
      ::sqlite3_prepare_v2(db_.get(), sql, -1, &statement, nullptr);
  if (result == SQLITE_OK) return SqlQuery(statement);
  return SqlError(db_.get(), result, absl::StrCat("index.db: ", sql));
}

absl::Status Sqlite::RunScript(const char* sql) {
  const int result = ::sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr);
  if (result == SQLITE_OK) return absl::OkStatus();
  return SqlError(db_.get(), result, "index.db");
}

int64_t Sqlite::changes() const { return ::sqlite3_changes64(db_.get()); }

absl::StatusOr<SqlTransaction> SqlTransaction::Begin(Sqlite& db, Kind kind) {
  RETURN_IF_ERROR(
      db.RunScript(kind == Kind::kWrite ? "BEGIN IMMEDIATE" : "BEGIN"));
  return SqlTransaction(&db);
}

SqlTransaction::~SqlTransaction() {
  // SQLite may have rolled back by itself; then this fails and does no harm.
  if (db_ != nullptr) db_->RunScript("ROLLBACK").IgnoreError();
}

absl::Status SqlTransaction::Commit() {
  RETURN_IF_ERROR(db_->RunScript("COMMIT"));
  db_ = nullptr;
  return absl::OkStatus();
}

}  // namespace caisson::layer
