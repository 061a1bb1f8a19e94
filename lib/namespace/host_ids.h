// What the files of /etc say about the host's ids: subuid(5), subgid(5),
// passwd(5), group(5). Pure functions on their texts; thread-safe.
#ifndef CAISSON_LIB_NAMESPACE_HOST_IDS_H_
#define CAISSON_LIB_NAMESPACE_HOST_IDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/id_range_pool.h"

namespace caisson::ids {

// 2^32 - 1 means "no id" to the kernel.
inline constexpr uint64_t kMaxId = 4294967294;
// Below are the ids that Linux distributions give to accounts, 65534 and 65535
// included (systemd, "Users, Groups, UIDs and GIDs").
inline constexpr uint32_t kFirstPrivateId = 65536;

// A decimal number of at most kMaxId: digits only, nothing around them.
std::optional<uint32_t> ParseId(absl::string_view text);

// "100000-165535".
std::string ToString(const HostIdRange& range);
bool Overlap(const HostIdRange& a, const HostIdRange& b);
// INVALID_ARGUMENT if it is empty or goes beyond kMaxId.
absl::Status CheckRange(absl::string_view what, const HostIdRange& range);

struct SubidLine {
  std::string owner;  // a name or a uid, as written
  HostIdRange range;
  int number = 0;  // in the file, from 1
};

// Every line must be "owner:first:count", empty or a comment ('#').
// FAILED_PRECONDITION names the first that is not. `file` is for errors.
absl::StatusOr<std::vector<SubidLine>> ParseSubids(absl::string_view file,
                                                   absl::string_view text);

// A line of passwd or group. Lines that name no id (NIS's "+", damaged ones)
// are left out: nobody can have an id by them.
struct Account {
  std::string name;
  uint32_t id = 0;
};
std::vector<Account> ParseAccounts(absl::string_view text);

// A user of subuid files: a name, a uid or, where passwd knows both, both.
struct SubidUser {
  std::string name;
  std::optional<uint32_t> uid;

  bool Owns(const SubidLine& line) const;
};
// `user` is a name or a number. It need not have an account.
SubidUser FindSubidUser(absl::string_view user,
                        const std::vector<Account>& passwd);

// The ids of the lines that `user` owns, joined where they touch or overlap,
// ascending. NOT_FOUND if it owns none.
absl::StatusOr<std::vector<HostIdRange>> RangesOf(
    const SubidUser& user, absl::string_view file,
    const std::vector<SubidLine>& lines);

// What else could have an id of a range.
struct Neighbours {
  absl::string_view accounts_file;
  std::vector<Account> accounts;
  absl::string_view subid_file;
  std::vector<SubidLine> subids;
};

// FAILED_PRECONDITION if `range` has an id below kFirstPrivateId, of an
// account, or of a line that somebody else than `user` owns.
absl::Status CheckPrivate(const HostIdRange& range, const Neighbours& others,
                          const std::optional<SubidUser>& user);

}  // namespace caisson::ids

#endif  // CAISSON_LIB_NAMESPACE_HOST_IDS_H_
