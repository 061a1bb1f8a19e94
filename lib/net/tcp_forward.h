// The TCP half of a forwarder: listeners, and pairs of joined connections.
#ifndef CAISSON_LIB_NET_TCP_FORWARD_H_
#define CAISSON_LIB_NET_TCP_FORWARD_H_

#include <netinet/in.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/net/forwarder.h"
#include "lib/net/poller.h"

namespace caisson {

// Two connections whose bytes go to each other. An end of stream is passed on
// as such, an abort as an abort; a side that does not take its bytes stops the
// other from being read.
class TcpPair final : public Watcher {
 public:
  using FinishCallback = std::function<void(TcpPair*)>;

  // `client` is accepted, `upstream` a fresh socket; both are non-blocking.
  TcpPair(UniqueFd client, UniqueFd upstream, ForwardContext* context);
  // Resets both connections if the pair has not finished.
  ~TcpPair() override;

  // Begins to connect upstream. False if that failed at once.
  bool Connect(const sockaddr_in& target);
  // To be called when both connections have ended.
  void set_on_finish(FinishCallback callback) {
    on_finish_ = std::move(callback);
  }

  void OnEvents(int fd, uint32_t events) override;
  void OnTimer() override {}

 private:
  struct Side {
    UniqueFd fd;
    bool read_closed = false;
    bool write_closed = false;
    std::string pending;  // to be written to this side
    size_t written = 0;   // of pending
    bool full() const { return written < pending.size(); }
  };

  bool FinishConnecting();
  // Moves bytes from one side to the other; false if the pair is broken.
  bool Pump(Side& from, Side& to);
  bool Flush(Side& to);
  bool UpdateInterest();
  void Finish(bool abort);

  ForwardContext* context_;
  Side client_;
  Side upstream_;
  bool connecting_ = true;
  bool finished_ = false;
  FinishCallback on_finish_;
};

class TcpForward final : public Watcher {
 public:
  static absl::StatusOr<std::unique_ptr<TcpForward>> Create(
      std::vector<ForwardedPort> listeners, ForwardContext* context);
  ~TcpForward() override;

  void OnEvents(int fd, uint32_t events) override;
  void OnTimer() override;

 private:
  TcpForward(std::vector<ForwardedPort> listeners, ForwardContext* context);

  // Starts or stops accepting.
  absl::Status SetAccepting(bool accepting);
  // False if accepting has to pause.
  bool AcceptOne(const ForwardedPort& port);
  void Remove(TcpPair* pair);

  ForwardContext* context_;
  std::unordered_map<int, ForwardedPort> listeners_;  // by descriptor
  std::unordered_map<TcpPair*, std::unique_ptr<TcpPair>> pairs_;
  bool accepting_ = false;
};

}  // namespace caisson

#endif  // CAISSON_LIB_NET_TCP_FORWARD_H_
