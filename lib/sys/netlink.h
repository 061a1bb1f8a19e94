// Netlink sockets: pipelined requests, dumps, and the kernel's own error texts.
//
// A NetlinkTrain is a row of messages that travels in one system call; the
// messages are built with libmnl in the train's buffer:
//
//   NetlinkTrain train;
//   nlmsghdr* message = train.Add(RTM_NEWLINK, NLM_F_CREATE, "RTM_NEWLINK(a)");
//   mnl_attr_put_strz(message, IFLA_IFNAME, "a");
//   RETURN_IF_ERROR(socket.Run(train));
//
// A socket works in the network namespace of the thread that created it and may
// be used from any thread afterwards. Thread-compatible: one call at a time per
// socket. Calls wait only for the kernel's answer, which for the protocols used
// here is ready when the request has been sent; they use poll(2) and so work
// with any descriptor number.
//
// Sources: netlink(7), Documentation/userspace-api/netlink/intro.rst.
#ifndef CAISSON_LIB_SYS_NETLINK_H_
#define CAISSON_LIB_SYS_NETLINK_H_

#include <linux/netlink.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

class NetlinkTrain final {
 public:
  // Appends a message header and returns it, to be filled with mnl_nlmsg_put_*
  // and mnl_attr_put_* up to `room` bytes, header included. The pointer is
  // valid until the next Add. NLM_F_REQUEST is implied. `what` names the
  // message in errors: "RTM_NEWADDR(10.1.2.3/24)".
  nlmsghdr* Add(uint16_t type, uint16_t flags, std::string what,
                size_t room = 1024);

  bool empty() const { return messages_.empty(); }
  size_t count() const { return messages_.size(); }

  // Which message is the last to be answered; by default the last of all. A
  // batch protocol (nf_tables) does not answer its closing message.
  void set_last_answered(size_t index) { last_answered_ = index; }

  // The message added last may fail with `error` without the train failing:
  // with ENOENT, say, if it removes what vanishes by itself.
  void Tolerate(int error) { messages_.back().tolerated.push_back(error); }

  // The bytes that are sent, sequence numbers aside.
  absl::string_view bytes();

 private:
  friend class NetlinkSocket;

  struct Message {
    size_t offset;
    std::string what;
    std::vector<int> tolerated;
  };

  nlmsghdr* at(size_t index);
  void Close();
  bool Tolerates(size_t index, int error) const;

  std::vector<char> buffer_;
  std::vector<Message> messages_;
  size_t end_ = 0;  // of the closed messages
  size_t last_answered_ = SIZE_MAX;
};

// Attributes after a family header of `header_size` bytes, and those inside
// one.
void ForEachAttribute(const nlmsghdr& message, size_t header_size,
                      absl::FunctionRef<void(const nlattr&)> visit);
void ForEachNested(const nlattr& nest,
                   absl::FunctionRef<void(const nlattr&)> visit);
int AttributeType(const nlattr& attribute);
// The value, or zero or an empty string if the attribute is too short for it.
uint32_t AttributeU32(const nlattr& attribute);
absl::string_view AttributeBytes(const nlattr& attribute);
std::string AttributeString(const nlattr& attribute);

// What a socket belongs to: equal for two sockets of one network namespace.
absl::StatusOr<uint64_t> NetNamespaceCookie(BorrowedFd socket);

// Device and inode of a network namespace.
struct NamespaceId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const NamespaceId& other) const {
    return device == other.device && inode == other.inode;
  }
};

// The identity of the namespace behind an nsfs descriptor; an error if `ns` is
// not a network namespace.
absl::StatusOr<NamespaceId> NetNamespaceIdOf(BorrowedFd ns);
// The identity of the namespace that `socket` lives in (ioctl SIOCGSKNS, which
// wants CAP_NET_ADMIN over that namespace).
absl::StatusOr<NamespaceId> NetNamespaceIdOfSocket(BorrowedFd socket);

class NetlinkSocket final {
 public:
  using Row = absl::FunctionRef<void(const nlmsghdr&)>;

  // A socket of `protocol` (NETLINK_ROUTE, ...) in the network namespace of the
  // calling thread.
  static absl::StatusOr<NetlinkSocket> Open(int protocol);

  // A socket that receives the notifications of multicast `groups` (RTMGRP_LINK
  // | ...), for WaitForNotification.
  static absl::StatusOr<NetlinkSocket> OpenMonitor(int protocol,
                                                   uint32_t groups);

  // Takes a socket that somebody else made; an error if it is not of
  // `protocol`.
  static absl::StatusOr<NetlinkSocket> Adopt(UniqueFd fd, int protocol);

  NetlinkSocket(NetlinkSocket&&) = default;
  NetlinkSocket& operator=(NetlinkSocket&&) = default;

  // Sends the train in one system call and takes the answers. The error is that
  // of the first message which failed; rtnetlink handles the messages after it
  // nevertheless (an nf_tables batch does not), so a caller who undoes must
  // expect any of them to have happened. Answers that are not acknowledgements
  // go to `on_reply`.
  absl::Status Run(
      NetlinkTrain& train, Row on_reply = [](const nlmsghdr&) {});

  // Sends the one message of `request` as a dump and hands every row to `row`.
  // A dump that the kernel marks as interrupted by a change (NLM_F_DUMP_INTR)
  // is repeated, so that the rows are one consistent state; UNAVAILABLE when
  // that did not succeed after many attempts. `row` sees only the final rows.
  absl::Status Dump(NetlinkTrain& request, Row row);

  // Waits for notifications and drops them: they say that something changed,
  // not what is now. False if none came in time.
  absl::StatusOr<bool> WaitForNotification(absl::Duration timeout);

  BorrowedFd fd() const { return fd_.borrow(); }

 private:
  explicit NetlinkSocket(UniqueFd fd) : fd_(std::move(fd)) {}

  void Configure();
  void Drain();
  absl::Status Send(NetlinkTrain& train);
  absl::StatusOr<bool> DumpOnce(NetlinkTrain& request, std::string& rows);

  UniqueFd fd_;
  uint32_t sequence_ = 0;
};

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_NETLINK_H_
