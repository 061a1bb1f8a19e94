// The unpacker's end of its conversation with the host.
//
//   Channel channel(kControl);
//   const Request request = channel.Receive();
//   RemoteHost host(channel);             // UnpackOptions::host
//
// When the host is gone, so is the process: nothing here can fail.
// Thread-compatible.
#ifndef CAISSON_LIB_UNPACKER_REMOTE_HOST_H_
#define CAISSON_LIB_UNPACKER_REMOTE_HOST_H_

#include <optional>
#include <string>
#include <vector>

#include "lib/layer/lower_layers.h"
#include "lib/layer/tar_split.h"
#include "lib/layer/unpack_host.h"
#include "lib/unpacker/wire.h"

namespace caisson::unpacker {

class Channel final {
 public:
  explicit Channel(int fd) : fd_(fd) {}

  // Keeps it until there is more, or Flush.
  void Send(Message& message);
  void Flush();

  struct Request {
    MessageType type;
    std::string payload;
  };
  // Waits for the host.
  Request Receive();

 private:
  int fd_;
  std::string out_;
};

class RemoteHost final : public layer::UnpackHost,
                         public layer::LowerLayers,
                         public layer::TarSplitSink {
 public:
  explicit RemoteHost(Channel& channel) : channel_(channel) {}

  void set_lowers_known(bool known) { known_ = known; }

  // TarSplitSink:
  void Raw(absl::string_view bytes) override;
  void Data(const std::string& path, uint64_t offset, uint64_t length) override;

  // UnpackHost:
  int SetXattr(const std::string& path, const std::string& key,
               absl::string_view value) override;
  int MakeDevice(const std::string& path, mode_t mode, dev_t device) override;
  int LinkDevice(const std::string& from, const std::string& to) override;
  absl::Status WriteAttributes(const std::string& path, bool is_symlink,
                               const layer::FileAttributes& attributes,
                               uint64_t& skipped) override;
  absl::Status ClearXattrs(const std::string& path) override;
  layer::LowerLayers& lowers() override { return *this; }

  // LowerLayers:
  bool known() const override { return known_; }
  absl::StatusOr<std::optional<layer::OverlayFile>> Find(
      const std::string& dir, const std::string& name) override;
  absl::StatusOr<std::vector<layer::OverlayFile>> List(
      const std::string& dir) override;
  absl::StatusOr<layer::FileAttributes> Attributes(
      const std::string& dir, const std::string& name) override;
  absl::Status CopyUp(const std::string& dir, const std::string& name,
                      BorrowedFd to, const std::string& to_name,
                      const std::string& path) override;

 private:
  // The payload of the answer.
  std::string Ask(Message& question);

  Channel& channel_;
  bool known_ = false;
};

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_REMOTE_HOST_H_
