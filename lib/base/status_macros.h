// Early returns for absl::Status and absl::StatusOr, which Abseil itself lacks.
#ifndef CAISSON_LIB_BASE_STATUS_MACROS_H_
#define CAISSON_LIB_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns the status of `expr` from the enclosing function unless it is OK.
#define RETURN_IF_ERROR(expr)                          \
  do {                                                 \
    ::absl::Status caisson_status_ = (expr);           \
    if (!caisson_status_.ok()) return caisson_status_; \
  } while (false)

// ASSIGN_OR_RETURN(auto value, MakeValue()): declares `value` from the value of
// an absl::StatusOr, or returns its status.
#define ASSIGN_OR_RETURN(lhs, expr) \
  CAISSON_ASSIGN_OR_RETURN_(CAISSON_CONCAT_(caisson_or_, __LINE__), lhs, expr)

#define CAISSON_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return std::move(tmp).status();  \
  lhs = *std::move(tmp)

#define CAISSON_CONCAT_(a, b) CAISSON_CONCAT_INNER_(a, b)
#define CAISSON_CONCAT_INNER_(a, b) a##b

#endif  // CAISSON_LIB_BASE_STATUS_MACROS_H_
