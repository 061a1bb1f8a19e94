#include "caisson/confined_unpacker.h"

#include <fcntl.h>

#include <optional>
#include <utility>

#include "caisson/launcher.h"
#include "caisson/namespace.h"
#include "caisson/security.h"
#include "lib/base/status_macros.h"
#include "lib/layer/unpacker.h"
#include "lib/sys/memfd.h"
#include "lib/unpacker/confined_decompress.h"
#include "lib/unpacker/confined_process.h"
#include "lib/unpacker/confined_unpack.h"
#include "lib/unpacker/policies.h"
#include "lib/unpacker/test_program.h"
#include "lib/unpacker/unpacker_image.h"

namespace caisson {
namespace unpacker {
namespace {

constexpr uint32_t kAllIds = 0xffffffff;  // but -1

class Confined final : public layer::Unpacker {
 public:
  Confined(UniqueFd program, Namespace namespaces, SecurityPolicy decompressor,
           SecurityPolicy unpacker, Confinement confinement)
      : program_(std::move(program)),
        namespaces_(std::move(namespaces)),
        decompressor_(std::move(decompressor)),
        unpacker_(std::move(unpacker)),
        confinement_(confinement) {
    confinement_.program = program_.borrow();
    confinement_.namespaces = &namespaces_;
    confinement_.decompressor = &decompressor_;
    confinement_.unpacker = &unpacker_;
  }

  absl::StatusOr<std::unique_ptr<layer::DecompressedSource>> Decompress(
      layer::ByteSource& compressed,
      const layer::DecompressOptions& options) const override {
    return ConfinedDecompress(confinement_, compressed, options);
  }

  absl::StatusOr<std::unique_ptr<layer::LayerUnpack>> Open(
      BorrowedFd dir, const layer::UnpackOptions& options) const override {
    return OpenConfinedUnpack(confinement_, dir, options);
  }

 private:
  const UniqueFd program_;
  const Namespace namespaces_;
  const SecurityPolicy decompressor_;
  const SecurityPolicy unpacker_;
  Confinement confinement_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const layer::Unpacker>> CreateConfined(
    Launcher& launcher, const ConfinedUnpackerOptions& options,
    absl::string_view program) {
  if (launcher.identity().own_user_namespace) {
    return absl::FailedPreconditionError(
        "ConfinedUnpacker: a host without CAP_SYS_ADMIN has no ids to keep its "
        "processes apart from itself; leave LayerStoreOptions::unpacker unset");
  }
  // Root there may give files to everybody and is, in the kernel's eyes, not
  // the host's root.
  ASSIGN_OR_RETURN(UniqueFd user,
                   launcher.NewUserNamespace(IdRange{0, 0, kAllIds}));
  NamespaceOptions namespaces;
  namespaces.user = std::move(user);
  ASSIGN_OR_RETURN(Namespace isolated,
                   Namespace::Create(std::move(namespaces)));
  ASSIGN_OR_RETURN(SecurityPolicy decompressor, DecompressorPolicy());
  ASSIGN_OR_RETURN(SecurityPolicy unpacker, UnpackerPolicy());
  ASSIGN_OR_RETURN(
      UniqueFd image,
      sys::MakeMemfd("caisson-unpacker", sys::MemfdKind::kProgram,
                     F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE,
                     program));
  return std::make_shared<const Confined>(
      std::move(image), std::move(isolated), std::move(decompressor),
      std::move(unpacker),
      Confinement{.launcher = &launcher, .cgroup = options.cgroup});
}

}  // namespace unpacker

absl::StatusOr<std::shared_ptr<const layer::Unpacker>> ConfinedUnpacker::Create(
    Launcher& launcher, const ConfinedUnpackerOptions& options) {
  if (unpacker::UnpackerImage().empty()) {
    return absl::UnimplementedError(
        "ConfinedUnpacker: this build has sanitizers, and its programs need "
        "shared libraries that a confined one does not find");
  }
  return unpacker::CreateConfined(launcher, options, unpacker::UnpackerImage());
}

}  // namespace caisson
