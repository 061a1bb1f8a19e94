#include "lib/layer/test_image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using nlohmann::json;

constexpr char kManifestType[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kIndexType[] = "application/vnd.oci.image.index.v1+json";

json PlatformJson(const Platform& platform) {
  json object = {{"os", platform.os}, {"architecture", platform.architecture}};
  if (!platform.variant.empty()) object["variant"] = platform.variant;
  return object;
}

json DescriptorJson(absl::string_view type, absl::string_view content) {
  return {{"mediaType", std::string(type)},
          {"digest", Digest::Of(content).str()},
          {"size", content.size()}};
}

std::string LayerType(TestCompression compression) {
  const char* suffix = compression == TestCompression::kGzip   ? "+gzip"
                       : compression == TestCompression::kZstd ? "+zstd"
                                                               : "";
  return absl::StrCat("application/vnd.oci.image.layer.v1.tar", suffix);
}

void AddBlob(TestArchive& archive, const std::string& content) {
  archive.files[BlobPathOf(content)] = content;
}

void AddImageBlobs(TestArchive& archive, const TestImage& image) {
  for (size_t i = 0; i < image.layers.size(); ++i) {
    AddBlob(archive, image.Blob(i));
  }
  AddBlob(archive, image.Config());
  AddBlob(archive, image.Manifest());
}

void AddIndex(TestArchive& archive, json manifests) {
  archive.files["oci-layout"] = R"({"imageLayoutVersion":"1.0.0"})";
  archive.files["index.json"] =
      json({{"schemaVersion", 2}, {"manifests", std::move(manifests)}}).dump();
}

json Annotated(json descriptor, const std::string& name) {
  descriptor["annotations"] = {{"org.opencontainers.image.ref.name", name}};
  return descriptor;
}

// 64 digits that name the layer in archives whose ids are no content digests.
std::string LayerId(const TestImage& image, size_t i) {
  return std::string(
      Digest::Of(absl::StrCat(image.env, i, image.layers[i])).hex());
}

}  // namespace

std::string TestImage::Config() const {
  json diff_ids = json::array();
  for (const std::string& tar : layers) {
    diff_ids.push_back(Digest::Of(tar).str());
  }
  json config = PlatformJson(platform);
  config["config"] = {{"Env", {env}}, {"Cmd", {"/bin/sh"}}};
  config["rootfs"] = {{"type", "layers"}, {"diff_ids", diff_ids}};
  return config.dump();
}

std::string TestImage::Blob(size_t layer) const {
  switch (compression) {
    case TestCompression::kNone:
      return layers[layer];
    case TestCompression::kGzip:
      return Gzip(layers[layer]);
    case TestCompression::kZstd:
      return Zstd(layers[layer]);
  }
  return "";
}

std::string TestImage::Manifest() const {
  json list = json::array();
  for (size_t i = 0; i < layers.size(); ++i) {
    list.push_back(DescriptorJson(LayerType(compression), Blob(i)));
  }
  json manifest = {
      {"schemaVersion", 2},
      {"mediaType", kManifestType},
      {"config",
       DescriptorJson("application/vnd.oci.image.config.v1+json", Config())},
      {"layers", list}};
  if (!annotations.empty()) manifest["annotations"] = json::parse(annotations);
  return manifest.dump();
}

TestArchive& TestArchive::Edit(const std::string& path, absl::string_view from,
                               absl::string_view to) {
  std::string& text = files.at(path);
  EXPECT_NE(text.find(std::string(from)), std::string::npos) << path;
  text = absl::StrReplaceAll(text, {{from, to}});
  return *this;
}

std::string TestArchive::Tar() const {
  TestTar tar;
  for (const auto& [path, content] : files) tar.File(path, content);
  for (const auto& [path, target] : symlinks) tar.Symlink(path, target);
  return tar.Finish();
}

void TestArchive::WriteTo(const std::string& dir) const {
  for (const auto& [path, content] : files) {
    for (size_t i = path.find('/'); i != std::string::npos;
         i = path.find('/', i + 1)) {
      ::mkdir(absl::StrCat(dir, "/", path.substr(0, i)).c_str(), 0700);
    }
    const int fd = ::open(absl::StrCat(dir, "/", path).c_str(),
                          O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0) << path;
    ASSERT_EQ(::write(fd, content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    ::close(fd);
  }
}

TestArchive OciArchive(const std::vector<TestImage>& images) {
  TestArchive archive;
  json manifests = json::array();
  for (const TestImage& image : images) {
    AddImageBlobs(archive, image);
    const json descriptor = DescriptorJson(kManifestType, image.Manifest());
    if (image.names.empty()) manifests.push_back(descriptor);
    for (const std::string& name : image.names) {
      manifests.push_back(Annotated(descriptor, name));
    }
  }
  AddIndex(archive, std::move(manifests));
  return archive;
}

TestArchive OciMultiPlatform(const std::vector<TestImage>& images) {
  TestArchive archive;
  json children = json::array();
  for (const TestImage& image : images) {
    AddImageBlobs(archive, image);
    json descriptor = DescriptorJson(kManifestType, image.Manifest());
    descriptor["platform"] = PlatformJson(image.platform);
    children.push_back(std::move(descriptor));
  }
  const std::string index =
      json({{"schemaVersion", 2}, {"manifests", children}}).dump();
  AddBlob(archive, index);
  json top = json::array();
  for (const std::string& name : images.front().names) {
    top.push_back(Annotated(DescriptorJson(kIndexType, index), name));
  }
  if (top.empty()) top.push_back(DescriptorJson(kIndexType, index));
  AddIndex(archive, std::move(top));
  return archive;
}

TestArchive DockerArchive(const std::vector<TestImage>& images) {
  TestArchive archive;
  json manifest = json::array();
  std::map<std::string, std::string> seen;  // layer -> its first id
  for (const TestImage& image : images) {
    json layers = json::array();
    for (size_t i = 0; i < image.layers.size(); ++i) {
      const std::string id = LayerId(image, i);
      layers.push_back(id + "/layer.tar");
      archive.files[id + "/VERSION"] = "1.0";
      archive.files[id + "/json"] = "{}";
      const auto [it, first] = seen.emplace(image.layers[i], id);
      if (first) {
        archive.files[id + "/layer.tar"] = image.layers[i];
      } else if (it->second != id) {
        archive.symlinks[id + "/layer.tar"] =
            absl::StrCat("../", it->second, "/layer.tar");
      }
    }
    const std::string config = absl::StrCat(image.Id().hex(), ".json");
    archive.files[config] = image.Config();
    json tags = nullptr;
    for (const std::string& name : image.names) tags.push_back(name);
    manifest.push_back(
        {{"Config", config}, {"RepoTags", tags}, {"Layers", layers}});
  }
  archive.files["manifest.json"] = manifest.dump();
  archive.files["repositories"] = "{}";
  return archive;
}

TestArchive HybridArchive(const std::vector<TestImage>& images) {
  std::vector<TestImage> plain = images;
  for (TestImage& image : plain) image.compression = TestCompression::kNone;
  TestArchive archive = OciArchive(plain);
  json manifest = json::array();
  for (const TestImage& image : plain) {
    json layers = json::array();
    for (const std::string& tar : image.layers) {
      layers.push_back(BlobPathOf(tar));
    }
    manifest.push_back({{"Config", BlobPathOf(image.Config())},
                        {"RepoTags", image.names},
                        {"Layers", layers}});
  }
  archive.files["manifest.json"] = manifest.dump();
  archive.files["repositories"] = "{}";
  return archive;
}

TestArchive LegacyArchive(const TestImage& image) {
  TestArchive archive;
  std::string parent;
  for (size_t i = 0; i < image.layers.size(); ++i) {
    const std::string id = LayerId(image, i);
    json layer = PlatformJson(image.platform);
    layer["id"] = id;
    if (!parent.empty()) layer["parent"] = parent;
    layer["config"] = {{"Env", {image.env}}};
    archive.files[id + "/VERSION"] = "1.0";
    archive.files[id + "/json"] = layer.dump();
    archive.files[id + "/layer.tar"] = image.layers[i];
    parent = id;
  }
  json repositories = json::object();
  for (const std::string& name : image.names) {
    const size_t colon = name.rfind(':');
    repositories[name.substr(0, colon)][name.substr(colon + 1)] = parent;
  }
  if (!image.names.empty()) {
    archive.files["repositories"] = repositories.dump();
  }
  return archive;
}

std::string BlobPathOf(absl::string_view content) {
  return absl::StrCat("blobs/sha256/", Digest::Of(content).hex());
}

UniqueFd MemFile(absl::string_view content) {
  UniqueFd fd(::memfd_create("caisson-test", MFD_CLOEXEC));
  EXPECT_EQ(::pwrite(fd.get(), content.data(), content.size(), 0),
            static_cast<ssize_t>(content.size()));
  return fd;
}

}  // namespace caisson::layer
