#include "examples/oci/update_resources.h"

#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "caisson/notation.h"

namespace oci {
namespace {

using nlohmann::json;

enum class Kind { kNumber, kBytes, kText };

struct Limit {
  const char* option;
  const char* object;
  const char* field;
  Kind kind;
};

constexpr Limit kLimits[] = {
    {"memory", "memory", "limit", Kind::kBytes},
    {"memory-swap", "memory", "swap", Kind::kBytes},
    {"memory-reservation", "memory", "reservation", Kind::kBytes},
    {"cpu-share", "cpu", "shares", Kind::kNumber},
    {"cpu-shares", "cpu", "shares", Kind::kNumber},
    {"cpu-quota", "cpu", "quota", Kind::kNumber},
    {"cpu-burst", "cpu", "burst", Kind::kNumber},
    {"cpu-period", "cpu", "period", Kind::kNumber},
    {"cpu-idle", "cpu", "idle", Kind::kNumber},
    {"cpu-rt-period", "cpu", "realtimePeriod", Kind::kNumber},
    {"cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::kNumber},
    {"cpuset-cpus", "cpu", "cpus", Kind::kText},
    {"cpuset-mems", "cpu", "mems", Kind::kText},
    {"pids-limit", "pids", "limit", Kind::kNumber},
    {"blkio-weight", "blockIO", "weight", Kind::kNumber},
};

absl::StatusOr<json> ValueOf(const Limit& limit, const std::string& text) {
  if (limit.kind == Kind::kText) return json(text);
  int64_t number = 0;
  if (absl::SimpleAtoi(text, &number)) return json(number);
  if (limit.kind == Kind::kBytes) {
    const auto bytes = caisson::ParseBytes(text);
    if (bytes.ok()) return json(*bytes);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", limit.option, " ", text, " is no number"));
}

absl::StatusOr<std::string> ReadFrom(const std::string& path) {
  if (path == "-") {
    return std::string{std::istreambuf_iterator<char>(std::cin), {}};
  }
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.is_open() && !file.bad()) return text;
  return absl::NotFoundError(
      absl::StrCat("--resources ", path, " cannot be read"));
}

}  // namespace

std::vector<std::string> LimitOptions() {
  std::vector<std::string> names;
  for (const Limit& limit : kLimits) names.emplace_back(limit.option);
  return names;
}

absl::StatusOr<std::string> UpdateResources(const Arguments& arguments) {
  if (arguments.Has("resources")) return ReadFrom(arguments.Get("resources"));
  const absl::Status status = arguments.CheckIsUtf8();
  if (!status.ok()) return status;
  json resources = json::object();
  for (const Limit& limit : kLimits) {
    if (!arguments.Has(limit.option)) continue;
    auto value = ValueOf(limit, arguments.Get(limit.option));
    if (!value.ok()) return value.status();
    resources[limit.object][limit.field] = *std::move(value);
  }
  return resources.dump();
}

}  // namespace oci
