#include "lib/namespace/host_ids.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::ids {
namespace {

constexpr char kRemedy[] =
    "; choose other ids, or set IdRangePoolOptions.unsafe_host_ids";

uint64_t End(const HostIdRange& range) {
  return uint64_t{range.first} + range.count;
}

absl::Status BadLine(absl::string_view file, int number, absl::string_view line,
                     absl::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat(Quoted(file), ", line ", number, " ", Quoted(line), ": ",
                   why, "; the format is \"user:first:count\""));
}

std::string Describe(const SubidUser& user) {
  if (user.name.empty()) return absl::StrCat("uid ", user.uid.value_or(0));
  std::string text = Quoted(user.name);
  if (user.uid.has_value()) absl::StrAppend(&text, " (uid ", *user.uid, ")");
  return text;
}

// Sorted, and joined where they touch.
std::vector<HostIdRange> Union(std::vector<HostIdRange> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const HostIdRange& a, const HostIdRange& b) {
              return a.first < b.first;
            });
  std::vector<HostIdRange> joined;
  for (const HostIdRange& range : ranges) {
    if (joined.empty() || range.first > End(joined.back())) {
      joined.push_back(range);
      continue;
    }
    HostIdRange& last = joined.back();
    last.count =
        static_cast<uint32_t>(std::max(End(last), End(range)) - last.first);
  }
  return joined;
}

}  // namespace

std::optional<uint32_t> ParseId(absl::string_view text) {
  if (text.empty() || text.size() > 10) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (!absl::ascii_isdigit(c)) return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  if (value > kMaxId) return std::nullopt;
  return static_cast<uint32_t>(value);
}

std::string ToString(const HostIdRange& range) {
  return absl::StrCat(range.first, "-", End(range) - 1);
}

bool Overlap(const HostIdRange& a, const HostIdRange& b) {
  return a.first < End(b) && b.first < End(a);
}

absl::Status CheckRange(absl::string_view what, const HostIdRange& range) {
  if (range.count == 0) {
    return absl::InvalidArgumentError(absl::StrCat(what, " has no ids"));
  }
  if (End(range) - 1 > kMaxId) {
    return absl::InvalidArgumentError(absl::StrCat(
        what, " ends at ", End(range) - 1, "; the last id is ", kMaxId));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SubidLine>> ParseSubids(absl::string_view file,
                                                   absl::string_view text) {
  std::vector<SubidLine> lines;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (line.empty() || line[0] == '#') continue;
    const std::vector<absl::string_view> f = absl::StrSplit(line, ':');
    if (f.size() != 3) {
      return BadLine(file, number, line, "does not have three fields");
    }
    if (f[0].empty()) return BadLine(file, number, line, "names no user");
    const auto first = ParseId(f[1]);
    const auto count = ParseId(f[2]);
    if (!first || !count) {
      return BadLine(file, number, line,
                     absl::StrCat(Quoted(first ? f[2] : f[1]),
                                  " is not a number from 0 to ", kMaxId));
    }
    const HostIdRange range = {*first, *count};
    const absl::Status status = CheckRange("the range", range);
    if (!status.ok()) return BadLine(file, number, line, status.message());
    lines.push_back({std::string(f[0]), range, number});
  }
  return lines;
}

std::vector<Account> ParseAccounts(absl::string_view text) {
  std::vector<Account> accounts;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> f =
        absl::StrSplit(line, absl::MaxSplits(':', 3));
    if (f.size() < 3) continue;
    const auto id = ParseId(f[2]);
    if (id) accounts.push_back({std::string(f[0]), *id});
  }
  return accounts;
}

bool SubidUser::Owns(const SubidLine& line) const {
  if (!name.empty() && line.owner == name) return true;
  return uid.has_value() && ParseId(line.owner) == uid;
}

SubidUser FindSubidUser(absl::string_view user,
                        const std::vector<Account>& passwd) {
  // As everywhere, a name made of digits is a number.
  const auto number = ParseId(user);
  for (const Account& account : passwd) {
    if (number ? account.id == *number : account.name == user) {
      return {account.name, account.id};
    }
  }
  if (number) return {"", number};
  return {std::string(user), std::nullopt};
}

absl::StatusOr<std::vector<HostIdRange>> RangesOf(
    const SubidUser& user, absl::string_view file,
    const std::vector<SubidLine>& lines) {
  std::vector<HostIdRange> ranges;
  for (const SubidLine& line : lines) {
    if (user.Owns(line)) ranges.push_back(line.range);
  }
  if (ranges.empty()) {
    return absl::NotFoundError(
        absl::StrCat("IdRangePoolOptions.subid_user: ", Quoted(file),
                     " has no line of ", Describe(user), "; add one, as in \"",
                     user.name.empty() ? absl::StrCat(*user.uid) : user.name,
                     ":1000000:1048576\""));
  }
  return Union(std::move(ranges));
}

absl::Status CheckPrivate(const HostIdRange& range, const Neighbours& others,
                          const std::optional<SubidUser>& user) {
  if (range.first < kFirstPrivateId) {
    return absl::FailedPreconditionError(
        absl::StrCat("ids ", ToString(range), " have ids below ",
                     kFirstPrivateId, ", which are the host's", kRemedy));
  }
  for (const Account& account : others.accounts) {
    if (!Overlap(range, {account.id, 1})) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "ids ", ToString(range), " have id ", account.id, " of ",
        Quoted(account.name), " in ", Quoted(others.accounts_file), kRemedy));
  }
  for (const SubidLine& line : others.subids) {
    if (!Overlap(range, line.range)) continue;
    if (user.has_value() && user->Owns(line)) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "ids ", ToString(range), " have ids ", ToString(line.range), " that ",
        Quoted(others.subid_file), ", line ", line.number, ", gives to ",
        Quoted(line.owner), kRemedy));
  }
  return absl::OkStatus();
}

}  // namespace caisson::ids
