// ConfinedUnpacker: layers of images that nobody trusts are decoded in
// processes that can do nothing else.
//
//   auto unpacker = caisson::ConfinedUnpacker::Create(*launcher);
//   if (!unpacker.ok()) return unpacker.status();
//   caisson::LayerStoreOptions options;
//   options.path = "/var/lib/x";
//   options.unpacker = *unpacker;
//   auto store = caisson::LayerStore::Open(options);
//   auto images = store->Import("hostile.tar");
//
// Without it, gzip, zstd, xz and bzip2 are decoded, and tars are read, in the
// host's own process: a fault in a decoder is a fault in the host. With it,
// each layer is decompressed in one process and made into files by another. The
// host carries the bytes from one to the other, and hashes both the file of the
// layer and the tar on the way. Results and errors are the same. It takes a few
// milliseconds for each layer, and the bytes are copied twice more.
//
// The processes are the Launcher's: a user namespace of their own, in which
// they are root without being anybody outside; new mount, pid, network, ipc,
// uts and cgroup namespaces; a root directory that is empty but for the one
// layer directory that is to be written (nodev, nosuid, noexec); no
// capabilities but CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SETFCAP of that user
// namespace, and none at all for decompressing; a list of 45 system calls (22
// for decompressing), of which any other ends the process; Landlock, where the
// kernel has it; limits of memory. They inherit two sockets: what to decode,
// and a conversation. Whoever kills the host kills them.
//
// What this guarantees of an image that takes over the process that decodes it:
// - It reaches nothing of the host and of other layers: no file, no process, no
//   network. What it needs of lower layers it asks the host for: the names,
//   kinds and attributes of their files, and copies of them, all of which its
//   own image contains.
// - In its layer's directory there is what any image could bring there: files,
//   links, set-user-ID programs, device nodes, which the host makes when asked
//   and nothing can open there. Nothing is outside of it. Attributes by which
//   overlayfs finds other files are not set in kOverlay; in kOverlayUserxattr
//   overlayfs does not follow them.
// - It spoils no layer of others. Both digests are the host's own: what is
//   stored under a layer's diff id was made by a process that read exactly the
//   bytes of this digest. So whoever imports the real layer has it made of the
//   real bytes, and no process that other bytes have taken over was near it.
// - The tar-split, which the host reads later, is written by the host.
//
// What it does not:
// - That the directory has what the tar says: the process may lie about its own
//   layer. LayerStore::Verify() finds that out.
// - That the disk does not fill up: an honest unpacker obeys the limits of
//   LayerStoreOptions, one that was taken over need not. Put the store on a
//   file system, or under a quota, of its own.
// - The documents of an image (JSON) and the headers of the archive around its
//   layers are read by the host.
//
// Needs a host with CAP_SYS_ADMIN; Create() refuses others, whose processes
// cannot be kept apart from them in this way.
#ifndef CAISSON_CONFINED_UNPACKER_H_
#define CAISSON_CONFINED_UNPACKER_H_

#include <memory>

#include "absl/status/statusor.h"

namespace caisson {

class Cgroup;
class Launcher;
namespace layer {
class Unpacker;
}  // namespace layer

struct ConfinedUnpackerOptions {
  // Where the processes live, to limit what memory and processor time all of
  // them take together. Null: the host's own group. Must outlive the unpacker.
  const Cgroup* cgroup = nullptr;
};

class ConfinedUnpacker final {
 public:
  // For LayerStoreOptions::unpacker. `launcher` must neither be moved nor
  // destroyed before the unpacker and every store that has it. The result is
  // thread-safe: imports of many threads may use it at once.
  //
  // FAILED_PRECONDITION if the host lacks CAP_SYS_ADMIN, UNIMPLEMENTED if the
  // library was built with sanitizers.
  //
  // How a process ended that did not end by itself is an error of the import:
  // PERMISSION_DENIED if a system call that no unpacker makes ended it
  // (SIGSYS), RESOURCE_EXHAUSTED if it had no more memory, INTERNAL if it
  // crashed or says what no unpacker says.
  static absl::StatusOr<std::shared_ptr<const layer::Unpacker>> Create(
      Launcher& launcher, const ConfinedUnpackerOptions& options = {});
};

}  // namespace caisson

#endif  // CAISSON_CONFINED_UNPACKER_H_
