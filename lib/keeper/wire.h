// Messages between a keeper and those who ask it something: a protocol buffer
// and descriptors, over a SOCK_SEQPACKET socket. The bytes are in a sealed
// memfd, which is the first descriptor: so no buffer of a socket limits them,
// and a message is there at once or not at all.
//
// Thread-safe functions.
#ifndef CAISSON_LIB_KEEPER_WIRE_H_
#define CAISSON_LIB_KEEPER_WIRE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "google/protobuf/message_lite.h"
#include "lib/base/deadline.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

// The most descriptors of one message, and bytes.
inline constexpr size_t kMaxDescriptors = 8;
inline constexpr size_t kMaxMessage = 16 << 20;

// Does not wait: UNAVAILABLE if nobody reads, or the other end is closed.
absl::Status Send(BorrowedFd socket, const google::protobuf::MessageLite& bytes,
                  absl::Span<const BorrowedFd> descriptors);

struct Received {
  std::string bytes;
  std::vector<UniqueFd> descriptors;
};

// What has arrived; nullopt if nothing has. UNAVAILABLE if the other end is
// closed, INVALID_ARGUMENT for what is no message.
absl::StatusOr<std::optional<Received>> Receive(BorrowedFd socket);

// Waits for a message. DEADLINE_EXCEEDED.
absl::StatusOr<Received> Await(BorrowedFd socket, const Deadline& deadline);

// A status in a reply, with its payloads.
void SetStatus(const absl::Status& status, Reply& reply);
absl::Status StatusOf(const Reply& reply);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_WIRE_H_
