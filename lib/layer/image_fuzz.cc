// Hostile documents of image archives: OCI's index, manifest and configuration,
// Docker's manifest.json and repositories, and the configurations of images
// from before Docker 1.10. What is found of them is sound, and what can be
// imported can be built upon.
//
// An input is documents with lines "---" between them. The first says which
// kind of archive it is: oci, docker or legacy. The second is the document that
// a reader begins with. Each further one is a file by its digest, which those
// before it can refer to, so that changes keep digests right: "@3" stands for
// the digest of the third of these, "$3" for its digits alone, and "#3" for its
// size.
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/layer/archived_image.h"
#include "lib/layer/config_edit.h"
#include "lib/layer/digest.h"
#include "lib/layer/image_archive.h"
#include "lib/layer/image_name.h"
#include "lib/layer/image_spec.h"

namespace {

using caisson::layer::ArchivedImage;
using caisson::layer::ArchivedLayer;
using caisson::layer::ArchiveFile;
using caisson::layer::Digest;

void Require(bool condition) {
  if (!condition) abort();
}

class FakeArchive final : public caisson::layer::ImageArchive {
 public:
  bool Has(absl::string_view path) const override {
    return files.count(std::string(path)) > 0;
  }

  absl::StatusOr<std::unique_ptr<ArchiveFile>> Open(
      absl::string_view path) const override {
    const auto it = files.find(std::string(path));
    if (it == files.end()) return absl::NotFoundError(path);
    const std::string& text = it->second;
    caisson::UniqueFd fd(::memfd_create("document", MFD_CLOEXEC));
    Require(::write(fd.get(), text.data(), text.size()) ==
            static_cast<ssize_t>(text.size()));
    const caisson::BorrowedFd borrowed = fd.borrow();
    return std::make_unique<ArchiveFile>(std::move(fd), borrowed, 0,
                                         text.size());
  }

  absl::StatusOr<std::vector<std::string>> TopLevel() const override {
    std::set<std::string> names;
    for (const auto& [path, text] : files) {
      names.insert(path.substr(0, path.find('/')));
    }
    return std::vector<std::string>(names.begin(), names.end());
  }

  std::map<std::string, std::string> files;
};

// `text` with what it refers to; of `files`, those behind `first` are final.
std::string Resolve(absl::string_view text,
                    const std::vector<std::string>& files, size_t first) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t digit =
        i + 1 < text.size() ? static_cast<size_t>(text[i + 1] - '0') : 0;
    const bool reference = absl::StrContains("@$#", text.substr(i, 1)) &&
                           digit > first && digit <= files.size();
    if (!reference) {
      out.push_back(text[i]);
      continue;
    }
    const std::string& file = files[digit - 1];
    if (text[i] == '@') out += Digest::Of(file).str();
    if (text[i] == '$') absl::StrAppend(&out, Digest::Of(file).hex());
    if (text[i] == '#') absl::StrAppend(&out, file.size());
    ++i;
  }
  return out;
}

FakeArchive MakeArchive(absl::string_view input) {
  std::vector<std::string> parts = absl::StrSplit(input, "\n---\n");
  FakeArchive archive;
  if (parts.size() < 2) return archive;
  std::vector<std::string> files(parts.begin() + 2, parts.end());
  for (size_t i = files.size(); i-- > 0;) {
    files[i] = Resolve(files[i], files, i + 1);
  }
  const std::string top = Resolve(parts[1], files, 0);
  for (const std::string& file : files) {
    const Digest digest = Digest::Of(file);
    const std::string hex(digest.hex());
    if (parts[0] == "legacy") {
      archive.files[hex + "/json"] = file;
      archive.files[hex + "/layer.tar"] = "";
    } else {
      archive.files["blobs/sha256/" + hex] = file;
    }
  }
  if (parts[0] == "oci") {
    archive.files["oci-layout"] = R"({"imageLayoutVersion":"1.0.0"})";
    archive.files["index.json"] = top;
  } else {
    archive.files[parts[0] == "legacy" ? "repositories" : "manifest.json"] =
        top;
  }
  return archive;
}

// Whatever a configuration says that Import accepts, Commit takes for a base.
void BuildUpon(const ArchivedImage& image) {
  caisson::layer::ConfigEdit edit{
      .base = image.config_json,
      .platform = {.os = "linux", .architecture = "amd64"},
      .kept = image.layers.size() / 2};
  edit.changes.env = {"A=1", "PATH=/bin"};
  edit.changes.cmd = std::vector<std::string>{"/bin/sh"};
  edit.changes.user = "root";
  edit.changes.exposed_ports = {"80/tcp"};
  edit.changes.volumes = {"/data"};
  edit.changes.labels = {{"a", "b"}};
  edit.step.created = absl::UnixEpoch();
  for (const ArchivedLayer& layer : image.layers) {
    edit.diff_ids.push_back(layer.diff_id);
  }
  edit.diff_ids.push_back(Digest::Of("new"));
  const auto json = caisson::layer::EditConfig(edit);
  Require(json.ok());
  const auto again = caisson::layer::ParseImageConfig(*json, "edited");
  Require(again.ok() && again->diff_ids == edit.diff_ids);
  Require(again->config.user == "root" && again->config.labels.at("a") == "b");
}

void Check(const FakeArchive& archive, const ArchivedImage& image) {
  Require(image.id == Digest::Of(image.config_json));
  if (image.manifest_digest.has_value()) {
    Require(*image.manifest_digest == Digest::Of(image.manifest_json));
  }
  const Digest* parent = nullptr;
  for (size_t i = 0; i < image.layers.size(); ++i) {
    const ArchivedLayer& layer = image.layers[i];
    Require(archive.Has(layer.path));
    Require(layer.chain_id == caisson::layer::ChainId(parent, layer.diff_id));
    parent = &layer.chain_id;
  }
  for (const std::string& name : image.names) {
    const auto parsed = caisson::layer::ParseTag(name);
    Require(parsed.ok() && parsed->Canonical() == name);
  }
  BuildUpon(image);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const FakeArchive archive =
      MakeArchive(absl::string_view(reinterpret_cast<const char*>(data), size));
  caisson::layer::ArchiveLimits limits{.max_manifest_bytes = 64 << 10,
                                       .max_config_bytes = 64 << 10,
                                       .max_layers = 20,
                                       .max_images = 5,
                                       .max_index_depth = 2,
                                       .max_index_documents = 30};
  limits.layer.max_output_bytes = 64 << 10;
  const auto images = caisson::layer::FindImages(
      archive, {.os = "linux", .architecture = "amd64"}, limits);
  if (!images.ok()) {
    Require(!images.status().message().empty());
    return 0;
  }
  Require(!images->empty() && images->size() <= limits.max_images);
  for (const ArchivedImage& image : *images) Check(archive, image);
  return 0;
}
