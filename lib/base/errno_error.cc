#include "lib/base/errno_error.h"

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace caisson {
namespace {

constexpr char kPayloadUrl[] = "caisson/error-detail";

absl::StatusCode CodeOf(int error) {
  switch (error) {
    case EPIPE:
    case ECONNREFUSED:
    case EAGAIN:
      return absl::StatusCode::kUnavailable;
    case EXFULL:
    case ENOSR:
    case EUSERS:
      return absl::StatusCode::kResourceExhausted;
    default:
      return absl::ErrnoToStatusCode(error);
  }
}

// The payload is "errno NUL step NUL path": nothing outside this file reads it.
void AttachDetail(absl::Status& status, const ErrorDetail& detail) {
  const char nul[] = {'\0'};
  const absl::string_view separator(nul, 1);
  status.SetPayload(
      kPayloadUrl, absl::Cord(absl::StrCat(detail.error, separator, detail.step,
                                           separator, detail.path)));
}

}  // namespace

std::string ErrnoName(int error) {
  const char* name = ::strerrorname_np(error);
  return name != nullptr ? name : absl::StrCat("errno ", error);
}

std::string ErrnoText(int error) {
  const char* text = ::strerrordesc_np(error);
  if (text == nullptr) return ErrnoName(error);
  std::string lower(text);
  // "Operation not permitted" -> "operation not permitted", but "RFS ..."
  // stays.
  if (lower.size() > 1 && absl::ascii_islower(lower[1])) {
    lower[0] = absl::ascii_tolower(lower[0]);
  }
  return absl::StrCat(ErrnoName(error), ": ", lower);
}

absl::Status ErrnoError(int error, absl::string_view operation,
                        const ErrorContext& context) {
  std::string message = absl::StrCat(operation, ": ", ErrnoText(error));
  if (!context.hint.empty()) absl::StrAppend(&message, "; ", context.hint);
  absl::Status status(CodeOf(error), message);
  AttachDetail(status, {.step = std::string(context.step),
                        .error = error,
                        .path = std::string(context.path)});
  return status;
}

absl::Status Annotate(const absl::Status& status, absl::string_view prefix) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         absl::StrCat(prefix, ": ", status.message()));
  status.ForEachPayload(
      [&annotated](absl::string_view url, const absl::Cord& payload) {
        annotated.SetPayload(url, payload);
      });
  return annotated;
}

absl::Status WithStep(absl::Status status, absl::string_view step) {
  std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (status.ok() || !detail.has_value()) return status;
  detail->step = std::string(step);
  AttachDetail(status, *detail);
  return status;
}

std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status) {
  auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string flat(*payload);
  std::vector<absl::string_view> fields =
      absl::StrSplit(flat, absl::MaxSplits('\0', 2));
  ErrorDetail detail;
  if (fields.size() != 3 || !absl::SimpleAtoi(fields[0], &detail.error)) {
    return std::nullopt;
  }
  detail.step = std::string(fields[1]);
  detail.path = std::string(fields[2]);
  return detail;
}

std::string Quoted(absl::string_view path) {
  return absl::StrCat("\"", absl::CHexEscape(path), "\"");
}

}  // namespace caisson
