#include "caisson/features.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/features/areas.h"

namespace caisson {

const Feature* FeatureReport::Find(absl::string_view name) const {
  for (const Feature& item : items) {
    if (item.name == name) return &item;
  }
  return nullptr;
}

std::string FeatureReport::ToString() const {
  size_t area_width = 0;
  size_t name_width = 0;
  for (const Feature& item : items) {
    area_width = std::max(area_width, item.area.size());
    name_width = std::max(name_width, item.name.size());
  }
  const auto padded = [](absl::string_view text, size_t width) {
    return absl::StrCat(text, std::string(width - text.size(), ' '));
  };
  std::string text;
  absl::string_view area;
  for (const Feature& item : items) {
    absl::StrAppend(
        &text, padded(item.area == area ? "" : item.area, area_width), "  ",
        padded(item.name, name_width), item.available ? "  yes" : "  no ",
        item.detail.empty() ? "" : "  ", item.detail, "\n");
    area = item.area;
  }
  return text;
}

FeatureReport Features() {
  FeatureReport report;
  features::AddKernel(report);
  const features::Trial trial = features::AddPrivileges(report);
  features::AddFiles(trial, report);
  features::AddCgroups(report);
  features::AddSecurity(report);
  features::AddProcesses(report);
  features::AddNetwork(trial, report);
  return report;
}

}  // namespace caisson
