// The program that decodes layers for a host, with no rights but to write below
// one directory. Its descriptors: 0, what is to be decoded; 1, what became of
// it, if it decompresses; 3, the conversation with the host (wire.h).
//
// It decodes one thing and ends.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "absl/types/span.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/layer/inflater.h"
#include "lib/layer/unpack.h"
#include "lib/unpacker/places.h"
#include "lib/unpacker/remote_host.h"

namespace caisson::unpacker {
namespace {

constexpr size_t kBuffer = 256 << 10;

// Standard input. Fills what it is given, so that nothing depends on the pieces
// in which the host sends it.
class Input final : public layer::ByteSource {
 public:
  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    return layer::ReadFully(stream_, buffer);
  }

 private:
  layer::FdSource stream_{BorrowedFd(STDIN_FILENO)};
};

// ---- decompressing ----

absl::Status Decompress(const layer::DecompressOptions& options) {
  Input compressed;
  ASSIGN_OR_RETURN(
      const auto source,
      layer::DecompressWith(compressed, options, layer::MakeZlibInflater));
  const auto buffer = std::make_unique<char[]>(kBuffer);
  for (;;) {
    ASSIGN_OR_RETURN(const size_t n,
                     source->Read(absl::MakeSpan(buffer.get(), kBuffer)));
    if (n == 0) return absl::OkStatus();
    for (size_t done = 0; done < n;) {
      const ssize_t written =
          ::write(STDOUT_FILENO, buffer.get() + done, n - done);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) ::_exit(kExitHostGone);
      done += static_cast<size_t>(written);
    }
  }
}

// ---- unpacking ----

absl::StatusOr<std::unique_ptr<layer::LayerUnpack>> Apply(
    const layer::UnpackOptions& options) {
  const UniqueFd dir(
      ::open(kLayerPath, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir.valid()) {
    return ErrnoError(errno, "open(the layer's directory)",
                      {.step = "layer.unpack"});
  }
  ASSIGN_OR_RETURN(auto unpack,
                   layer::LayerUnpack::Open(dir.borrow(), options));
  Input tar;
  RETURN_IF_ERROR(unpack->Apply(tar));
  return unpack;
}

void Unpack(Channel& channel, layer::UnpackOptions options, bool split) {
  RemoteHost host(channel);
  options.host = &host;
  if (split) options.split = &host;
  options.progress = [&channel](const layer::UnpackProgress& progress) {
    Message message(MessageType::kProgress);
    channel.Send(message.Number(progress.entries)
                     .Number(progress.bytes)
                     .Number(progress.tar_bytes));
    channel.Flush();
    return absl::OkStatus();
  };
  auto unpack = Apply(options);
  Message applied(MessageType::kApplied);
  channel.Send(applied.Add(unpack.status()));
  if (!unpack.ok()) return channel.Flush();

  const Channel::Request request = channel.Receive();
  host.set_lowers_known(MessageReader(request.payload).Number() != 0);
  const auto stats = (*unpack)->Finish(std::nullopt);
  Message finished(MessageType::kFinished);
  channel.Send(finished.Add(stats.status())
                   .Add(stats.ok() ? *stats : layer::UnpackStats()));
  channel.Flush();
}

int Main() {
  // A first process of a pid namespace is not killed by abort(3).
  std::set_new_handler([] { ::_exit(kExitOutOfMemory); });
  std::set_terminate([] { ::_exit(kExitBug); });
  Channel channel(kControl);
  const Channel::Request request = channel.Receive();
  MessageReader reader(request.payload);
  if (request.type == MessageType::kDecompress) {
    const absl::Status status = Decompress(reader.TakeDecompressOptions());
    Message message(MessageType::kDecompressed);
    channel.Send(message.Add(status));
    channel.Flush();
  } else {
    layer::UnpackOptions options = reader.TakeUnpackOptions();
    const bool split = reader.Number() != 0;
    Unpack(channel, std::move(options), split);
  }
  return 0;
}

}  // namespace
}  // namespace caisson::unpacker

int main() { ::_exit(caisson::unpacker::Main()); }
