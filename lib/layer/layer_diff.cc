#include "caisson/layer_diff.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "lib/base/status_macros.h"
#include "lib/layer/layer_changes.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/layer_tar.h"
#include "lib/layer/store_dir.h"

namespace caisson {
namespace {

using layer::LayerChanges;
using layer::LayerChangesOptions;
using layer::LayerEntry;
using layer::LayerTarOptions;
using layer::LayerTarSource;

LayerChangesOptions OptionsFor(LayerStoreFormat format,
                               const DiffOptions& options) {
  return {.format = layer::UnpackFormat(format),
          .ids = options.ids,
          .max_entries = options.max_entries};
}

absl::Status WriteTar(LayerChangesOptions changes, const DiffOptions& options,
                      BorrowedFd out) {
  LayerTarSource tar(LayerTarOptions{.changes = changes,
                                     .plain = changes.all,
                                     .max_bytes = options.max_bytes,
                                     .progress = options.progress});
  return layer::CopyTo(tar, out, "layer").status();
}

}  // namespace

absl::StatusOr<std::vector<LayerChange>> LayerStore::Diff(
    BorrowedFd upper, const LayerSet& lower, const DiffOptions& options) const {
  LayerChangesOptions what = OptionsFor(impl_->options.format, options);
  what.tops = {upper};
  what.lowers = lower.dirs();
  LayerChanges changes(std::move(what));
  std::vector<LayerChange> list;
  for (;;) {
    ASSIGN_OR_RETURN(const std::optional<LayerEntry> entry, changes.Next());
    if (!entry.has_value()) break;
    // As Docker, which does not list it.
    if (entry->path == ".") continue;
    list.push_back({entry->kind, absl::StrCat("/", entry->path)});
  }
  std::sort(list.begin(), list.end(),
            [](const LayerChange& a, const LayerChange& b) {
              return a.path < b.path;
            });
  return list;
}

absl::Status LayerStore::WriteDiff(BorrowedFd upper, const LayerSet& lower,
                                   BorrowedFd out,
                                   const DiffOptions& options) const {
  LayerChangesOptions what = OptionsFor(impl_->options.format, options);
  what.tops = {upper};
  what.lowers = lower.dirs();
  return WriteTar(std::move(what), options, out);
}

absl::Status LayerStore::Export(const LayerSet& layers, BorrowedFd out,
                                const DiffOptions& options) const {
  LayerChangesOptions what = OptionsFor(impl_->options.format, options);
  what.tops = layers.dirs();
  what.all = true;
  return WriteTar(std::move(what), options, out);
}

absl::Status LayerStore::Export(BorrowedFd upper, const LayerSet& lower,
                                BorrowedFd out,
                                const DiffOptions& options) const {
  LayerChangesOptions what = OptionsFor(impl_->options.format, options);
  what.tops = lower.dirs();
  what.tops.insert(what.tops.begin(), upper);
  what.all = true;
  return WriteTar(std::move(what), options, out);
}

}  // namespace caisson
