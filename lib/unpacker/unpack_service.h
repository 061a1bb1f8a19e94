// What the host does for a confined unpacker, which asks for it: look into the
// lower layers, and the few things that need more rights than it has.
//
//   UnpackService service(layer, format);
//   ASSIGN_OR_RETURN(Message answer, service.Answer(type, payload));
//
// Whoever asks may be an attacker. Names are looked up below the layer's own
// directory, or the lower layers, without following any link; what is written
// there is what the image could have asked for, too. A question that no
// unpacker would ask is INTERNAL, and nothing is done. Thread-compatible.
#ifndef CAISSON_LIB_UNPACKER_UNPACK_SERVICE_H_
#define CAISSON_LIB_UNPACKER_UNPACK_SERVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/layer/overlay_view.h"
#include "lib/unpacker/wire.h"

namespace caisson::unpacker {

class UnpackService final {
 public:
  // `layer`, the directory of the layer, must stay open.
  UnpackService(BorrowedFd layer, layer::LayerFormat format)
      : layer_(layer), format_(format) {}

  // From now on lower layers can be asked for. Null: no longer.
  void set_lowers(layer::OverlayView* lowers) { lowers_ = lowers; }

  absl::StatusOr<Message> Answer(MessageType type, absl::string_view payload);

 private:
  absl::StatusOr<Message> SetXattr(MessageReader& reader) const;
  absl::StatusOr<Message> MakeDevice(MessageReader& reader) const;
  absl::StatusOr<Message> LinkDevice(MessageReader& reader) const;
  absl::StatusOr<Message> WriteAttributes(MessageReader& reader) const;
  absl::StatusOr<Message> ClearXattrs(MessageReader& reader) const;
  absl::StatusOr<Message> FindLower(MessageReader& reader) const;
  absl::StatusOr<Message> ListLower(MessageReader& reader) const;
  absl::StatusOr<Message> LowerAttributes(MessageReader& reader) const;
  absl::StatusOr<Message> CopyUp(MessageReader& reader) const;

  absl::Status CheckXattr(const std::string& key,
                          absl::string_view value) const;

  const BorrowedFd layer_;
  const layer::LayerFormat format_;
  layer::OverlayView* lowers_ = nullptr;
};

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_UNPACK_SERVICE_H_
