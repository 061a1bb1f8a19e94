// GoogleTest matchers for absl::Status and absl::StatusOr (tests only).
//
//   EXPECT_OK(status);
//   ASSERT_OK_AND_ASSIGN(auto value, MakeValue());
//   EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound,
//                                HasSubstr("etc/passwd")));
#ifndef CAISSON_LIB_BASE_STATUS_MATCHERS_H_
#define CAISSON_LIB_BASE_STATUS_MATCHERS_H_

#include <stdlib.h>
#include <string.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"

namespace caisson::testing {

// Whether a test that this machine cannot run must fail instead of skipping:
// CAISSON_TESTS_MUST_RUN=1, as in CI.
inline bool TestsMustRun() {
  const char* value = ::getenv("CAISSON_TESTS_MUST_RUN");
  return value != nullptr && ::strcmp(value, "1") == 0;
}

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& value) {
  return value.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << "which is " << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

MATCHER_P2(StatusIs, code, message,
           "has code " + absl::StatusCodeToString(code) +
               " and a message that " +
               ::testing::DescribeMatcher<std::string>(message, negation)) {
  const absl::Status& status = StatusOf(arg);
  *result_listener << "which is " << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(status.message()),
                                       result_listener);
}

}  // namespace caisson::testing

#define EXPECT_OK(expr) EXPECT_THAT(expr, ::caisson::testing::IsOk())
#define ASSERT_OK(expr) ASSERT_THAT(expr, ::caisson::testing::IsOk())

#define ASSERT_OK_AND_ASSIGN(lhs, expr)                                      \
  CAISSON_ASSERT_OK_AND_ASSIGN_(CAISSON_CONCAT_(caisson_or_, __LINE__), lhs, \
                                expr)
#define CAISSON_ASSERT_OK_AND_ASSIGN_(tmp, lhs, expr) \
  auto tmp = (expr);                                  \
  ASSERT_OK(tmp);                                     \
  lhs = *std::move(tmp)

#endif  // CAISSON_LIB_BASE_STATUS_MATCHERS_H_
