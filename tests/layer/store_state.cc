#include "tests/layer/store_state.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "lib/base/status_macros.h"
#include "lib/layer/digest.h"
#include "lib/layer/test_dir.h"
#include "lib/layer/test_store.h"

namespace caisson::layer {
namespace {

namespace fs = std::filesystem;

std::string LayerPath(const std::string& store, const LayerInfo& layer) {
  return absl::StrCat(store, "/layers/overlay/", layer.chain_id.substr(7));
}

std::set<std::string> Names(const std::string& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    names.insert(entry.path().filename());
  }
  return names;
}

// The files below `directory`. Of a whiteout only that it is there counts: its
// time is that of the import.
std::string Files(const std::string& directory) {
  std::vector<std::string> lines =
      absl::StrSplit(DumpTree(directory + "/"), '\n');
  for (std::string& line : lines) {
    const size_t at = line.find(" whiteout ");
    if (at != std::string::npos) line.resize(at + 9);
  }
  return absl::StrJoin(lines, "\n");
}

std::string Problem(absl::string_view what, const absl::Status& status) {
  return absl::StrCat(what, ": ", status.ToString());
}

// The first line in which two descriptions differ.
std::string Difference(const std::string& expected, const std::string& found) {
  const std::vector<std::string> a = absl::StrSplit(expected, '\n');
  const std::vector<std::string> b = absl::StrSplit(found, '\n');
  const auto [left, right] =
      std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return absl::StrCat("expected: ", left == a.end() ? "(end)" : *left,
                      "\nfound:    ", right == b.end() ? "(end)" : *right);
}

// What Recover must have left in the directories of the store.
std::string CheckLeftovers(const LayerStore& store, const std::string& path) {
  const auto list = store.List();
  if (!list.ok()) return Problem("List", list.status());
  std::set<std::string> expected;
  for (const ImageSummary& summary : *list) {
    const auto image = store.Find(summary.id);
    if (!image.ok()) return Problem("Find", image.status());
    for (const LayerInfo& layer : image->layers) {
      expected.insert(layer.chain_id.substr(7));
    }
  }
  const std::set<std::string> found = Names(path + "/layers/overlay");
  if (found != expected) {
    return absl::StrCat("layers on disk: ", absl::StrJoin(found, " "),
                        "\nlayers of images: ", absl::StrJoin(expected, " "));
  }
  for (const char* empty : {"/staging", "/writable"}) {
    for (const std::string& name : Names(path + empty)) {
      return absl::StrCat("left in ", empty, ": ", name);
    }
  }
  return "";
}

// `allowed` may be null.
std::string Check(const std::string& path,
                  const std::vector<std::string>* allowed) {
  auto store = LayerStore::Open({.path = path, .recover = false});
  if (!store.ok()) return Problem("Open", store.status());
  for (const char* when : {"before Recover", "after Recover"}) {
    const auto seen = DescribeStore(*store, path);
    if (!seen.ok()) return Problem(when, seen.status());
    if (allowed != nullptr &&
        std::find(allowed->begin(), allowed->end(), *seen) == allowed->end()) {
      return absl::StrCat(when, "\n", Difference(allowed->front(), *seen));
    }
    const auto report = store->Recover();
    if (!report.ok()) return Problem("Recover", report.status());
    for (const absl::Status& failure : report->failures) {
      return Problem("Recover", failure);
    }
  }
  const auto report = store->Verify();
  if (!report.ok()) return Problem("Verify", report.status());
  for (const StoreFinding& finding : report->findings) {
    return absl::StrCat("Verify: ", finding.ToString());
  }
  return CheckLeftovers(*store, path);
}

}  // namespace

absl::StatusOr<std::string> DescribeStore(const LayerStore& store,
                                          const std::string& path) {
  std::vector<std::string> parts;
  ASSIGN_OR_RETURN(const auto images, store.List());
  for (const ImageSummary& summary : images) {
    ASSIGN_OR_RETURN(const Image image, store.Find(summary.id));
    RETURN_IF_ERROR(store.OpenLayers(image).status());
    std::string part =
        absl::StrCat("image ", image.id, " ", absl::StrJoin(image.names, " "),
                     "\n", image.config_json, "\n");
    for (const LayerInfo& layer : image.layers) {
      const std::string directory = LayerPath(path, layer);
      absl::StrAppend(
          &part, layer.chain_id, "\n", Files(directory + "/diff"), "tar-split ",
          Digest::Of(ReadFile(directory + "/tar-split")).str(), "\n");
    }
    parts.push_back(std::move(part));
  }
  std::sort(parts.begin(), parts.end());
  ASSIGN_OR_RETURN(const auto kept, store.ListWritableLayers());
  for (const std::string& name : kept) {
    RETURN_IF_ERROR(store.OpenWritableLayer(name).status());
    parts.push_back(
        absl::StrCat("kept ", name, "\n",
                     Files(absl::StrCat(path, "/kept/", name, "/upper"))));
  }
  return absl::StrJoin(parts, "\n");
}

std::string CheckStore(const std::string& path,
                       const std::vector<std::string>& allowed) {
  return Check(path, &allowed);
}

std::string CheckStore(const std::string& path) { return Check(path, nullptr); }

}  // namespace caisson::layer
