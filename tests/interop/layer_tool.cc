// LayerStore as a command, for tests/interop/run.sh.
//
//   layer_tool STORE import ARCHIVE [NAME]
//   layer_tool STORE import-rootfs TAR NAME
//   layer_tool STORE save docker|oci|layout none|gzip|zstd FILE REFERENCE...
//   layer_tool STORE export REFERENCE FILE
//   layer_tool STORE commit REFERENCE NAME COMMAND
//   layer_tool STORE squash REFERENCE KEEP NAME
//   layer_tool STORE tag REFERENCE NAME
//   layer_tool STORE id|digest|layers|names REFERENCE
//
// commit runs COMMAND with a shell in the upper directory of a new writable
// layer. import and the makers of images print ids, digest the manifest's,
// layers diffIDs, bottom first.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "caisson/image_archive.h"
#include "caisson/image_commit.h"
#include "caisson/layer_store.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

using Arguments = std::vector<std::string>;

void Print(const std::string& text) { std::printf("%s\n", text.c_str()); }

CommitOptions Named(const std::string& name) {
  return {.name = name, .created = absl::FromUnixSeconds(1'735'689'600)};
}

absl::Status Import(LayerStore& store, const Arguments& args) {
  ImportOptions options;
  if (args.size() > 1) options.name = args[1];
  ASSIGN_OR_RETURN(const auto images, store.Import(args.at(0), options));
  for (const Image& image : images) Print(image.id);
  return absl::OkStatus();
}

absl::Status ImportRootFs(LayerStore& store, const Arguments& args) {
  ASSIGN_OR_RETURN(const Image image,
                   store.ImportRootFs(args.at(0), Named(args.at(1))));
  Print(image.id);
  return absl::OkStatus();
}

absl::Status Save(LayerStore& store, const Arguments& args) {
  const std::map<std::string, ArchiveFormat> formats = {
      {"docker", ArchiveFormat::kDocker},
      {"oci", ArchiveFormat::kOci},
      {"layout", ArchiveFormat::kOciLayout}};
  const std::map<std::string, LayerCompression> compressions = {
      {"none", LayerCompression::kNone},
      {"gzip", LayerCompression::kGzip},
      {"zstd", LayerCompression::kZstd}};
  return store.Save({args.begin() + 3, args.end()}, args.at(2),
                    {.format = formats.at(args.at(0)),
                     .compression = compressions.at(args.at(1))});
}

absl::Status Export(LayerStore& store, const Arguments& args) {
  ASSIGN_OR_RETURN(const Image image, store.Find(args.at(0)));
  ASSIGN_OR_RETURN(const LayerSet layers, store.OpenLayers(image));
  const UniqueFd file(::open(args.at(1).c_str(),
                             O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  return store.Export(layers, file.borrow());
}

absl::Status Commit(LayerStore& store, const Arguments& args) {
  ASSIGN_OR_RETURN(const Image base, store.Find(args.at(0)));
  ASSIGN_OR_RETURN(const LayerSet lower, store.OpenLayers(base));
  ASSIGN_OR_RETURN(WritableLayer top,
                   store.CreateWritableLayer({.lower = &lower}));
  if (::fchdir(top.upper().get()) != 0 || ::system(args.at(2).c_str()) != 0) {
    return absl::InternalError("the command failed");
  }
  ASSIGN_OR_RETURN(const Image image,
                   store.Commit(base, top.upper(), Named(args.at(1))));
  Print(image.id);
  return absl::OkStatus();
}

absl::Status Squash(LayerStore& store, const Arguments& args) {
  ASSIGN_OR_RETURN(const Image base, store.Find(args.at(0)));
  size_t keep = 0;
  if (!absl::SimpleAtoi(args.at(1), &keep)) {
    return absl::InvalidArgumentError("KEEP is no number");
  }
  ASSIGN_OR_RETURN(const Image image,
                   store.Squash(base, keep, Named(args.at(2))));
  Print(image.id);
  return absl::OkStatus();
}

absl::Status Show(LayerStore& store, const std::string& what,
                  const Arguments& args) {
  ASSIGN_OR_RETURN(const Image image, store.Find(args.at(0)));
  if (what == "id") Print(image.id);
  if (what == "digest") Print(image.manifest_digest);
  if (what == "names") {
    for (const std::string& name : image.names) Print(name);
  }
  if (what == "layers") {
    for (const LayerInfo& layer : image.layers) Print(layer.diff_id);
  }
  return absl::OkStatus();
}

absl::Status Run(const Arguments& all) {
  ASSIGN_OR_RETURN(LayerStore store, LayerStore::Open({.path = all.at(0)}));
  const std::string& command = all.at(1);
  const Arguments args(all.begin() + 2, all.end());
  if (command == "import") return Import(store, args);
  if (command == "import-rootfs") return ImportRootFs(store, args);
  if (command == "save") return Save(store, args);
  if (command == "export") return Export(store, args);
  if (command == "commit") return Commit(store, args);
  if (command == "squash") return Squash(store, args);
  if (command == "tag") return store.Tag(args.at(0), args.at(1));
  return Show(store, command, args);
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  const absl::Status status =
      caisson::Run(caisson::Arguments(argv + 1, argv + argc));
  if (status.ok()) return 0;
  std::fprintf(stderr, "layer_tool: %s\n", status.ToString().c_str());
  return 1;
}
