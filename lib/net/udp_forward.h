// The UDP half of a forwarder: one published port and its clients.
#ifndef CAISSON_LIB_NET_UDP_FORWARD_H_
#define CAISSON_LIB_NET_UDP_FORWARD_H_

#include <netinet/in.h>

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/net/forwarder.h"
#include "lib/net/poller.h"

namespace caisson {

// Every client has a socket of its own to the container, so that answers find
// their way back; clients that are silent for long, and those for which there
// is no room, are forgotten. Datagrams that cannot be sent at once are dropped.
class UdpForward final : public Watcher {
 public:
  static absl::StatusOr<std::unique_ptr<UdpForward>> Create(
      ForwardedPort port, ForwardContext* context);
  ~UdpForward() override;

  void OnEvents(int fd, uint32_t events) override;
  void OnTimer() override;

 private:
  // Who sent to which of the host's addresses; answers come from that one.
  struct Client {
    sockaddr_in from = {};
    in_addr to = {};
  };
  using Key = std::tuple<uint32_t, uint16_t, uint32_t>;
  struct Session {
    Client client;
    UniqueFd upstream;
    int64_t last_used = 0;  // CLOCK_MONOTONIC, nanoseconds
  };
  using Sessions = std::list<Session>;  // the longest silent first

  UdpForward(ForwardedPort port, ForwardContext* context)
      : context_(context), port_(std::move(port)) {}

  static Key KeyOf(const Client& client);
  void ReceiveFromClients();
  void ReceiveFromContainer(Sessions::iterator session);
  // The session of a client, made if need be; end() if that is impossible.
  Sessions::iterator SessionOf(const Client& client);
  void Touch(Sessions::iterator session);
  void Forget(Sessions::iterator session);
  void ArmTimer();

  ForwardContext* context_;
  ForwardedPort port_;
  Sessions sessions_;
  std::map<Key, Sessions::iterator> by_client_;
  std::unordered_map<int, Sessions::iterator> by_fd_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_NET_UDP_FORWARD_H_
