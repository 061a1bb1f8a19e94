// Image archives for tests, in every format that the store reads.
//
//   TestImage image;
//   image.layers = {TestTar().File("a", "1").Finish()};
//   image.names = {"app:1"};
//   std::string tar = OciArchive({image}).Tar();
//
// What is generated is valid; tests break it by editing TestArchive::files.
#ifndef CAISSON_LIB_LAYER_TEST_IMAGE_H_
#define CAISSON_LIB_LAYER_TEST_IMAGE_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "caisson/image.h"
#include "caisson/unique_fd.h"
#include "lib/layer/digest.h"

namespace caisson::layer {

enum class TestCompression { kNone, kGzip, kZstd };

struct TestImage {
  std::vector<std::string> layers;  // uncompressed tars, bottom first
  std::vector<std::string> names;
  Platform platform = HostPlatform();
  TestCompression compression = TestCompression::kGzip;  // OCI only
  std::string env = "A=1";  // makes configurations differ
  std::string annotations;  // of the manifest, a JSON object

  std::string Config() const;
  Digest Id() const { return Digest::Of(Config()); }
  std::string Blob(size_t layer) const;
  std::string Manifest() const;
};

struct TestArchive {
  std::map<std::string, std::string> files;
  std::map<std::string, std::string> symlinks;  // tar only

  // Replaces `from` by `to` in a file; the text must occur in it.
  TestArchive& Edit(const std::string& path, absl::string_view from,
                    absl::string_view to);

  std::string Tar() const;
  // Writes the files into an existing directory.
  void WriteTo(const std::string& dir) const;
};

// An OCI layout; every image has an entry in index.json per name (or one).
TestArchive OciArchive(const std::vector<TestImage>& images);
// An OCI layout with one index of all images under the names of the first.
TestArchive OciMultiPlatform(const std::vector<TestImage>& images);
// `docker save` of 1.10 to 24: <config>.json, <id>/layer.tar, manifest.json.
// A layer that was there before is a symbolic link, as Docker wrote it.
TestArchive DockerArchive(const std::vector<TestImage>& images);
// `docker save` of 25 and later: an OCI layout with a manifest.json.
TestArchive HybridArchive(const std::vector<TestImage>& images);
// `docker save` before 1.10: repositories and <id>/{json,layer.tar,VERSION}.
TestArchive LegacyArchive(const TestImage& image);

// The blob path of some content in an OCI layout.
std::string BlobPathOf(absl::string_view content);

// A memfd with `content`, at offset 0.
UniqueFd MemFile(absl::string_view content);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_IMAGE_H_
