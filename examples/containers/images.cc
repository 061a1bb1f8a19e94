#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "examples/containers/commands.h"
#include "examples/containers/output.h"

namespace containers {
namespace {

// The containers that were made from the image, if there are some.
std::string UsersOf(const Call& call, const caisson::LayerStore& layers,
                    const std::string& name) {
  const auto image = layers.Find(name);
  if (!image.ok()) return "";
  std::vector<std::string> users;
  for (const auto& info :
       Check(call.Containers().List({.all = true, .image = image->id}))) {
    users.push_back(info.spec.name);
  }
  return absl::StrJoin(users, ", ");
}

}  // namespace

int Images(const Call& call) {
  bool quiet = false;
  call.Parse({Switch('q', "quiet", "ids alone", quiet)});
  Table table({"NAME", "IMAGE ID", "PLATFORM", "IMPORTED", "SIZE"});
  for (const caisson::ImageSummary& image : Check(call.Layers().List())) {
    if (quiet) std::cout << ShortId(image.id) << "\n";
    table.Add(
        {NamesText(image.names), ShortId(image.id), image.platform.ToString(),
         absl::StrCat(HumanDuration(absl::Now() - image.imported), " ago"),
         Bytes(static_cast<int64_t>(image.size))});
  }
  if (!quiet) std::cout << table.ToString();
  return 0;
}

int RemoveImage(const Call& call) {
  caisson::LayerStore layers = call.Layers();
  int code = 0;
  for (const std::string& name : call.Parse({})) {
    const absl::Status removed = layers.Remove(name);
    if (removed.ok()) {
      std::cout << name << "\n";
      continue;
    }
    code = 1;
    const std::string users = UsersOf(call, layers, name);
    PrintError(absl::IsFailedPrecondition(removed) && !users.empty()
                   ? absl::StrCat("image \"", name,
                                  "\" is used by the containers ", users)
                   : std::string(removed.message()));
  }
  return code;
}

int Df(const Call& call) {
  const auto words = call.Parse({});
  if (words[0] != "df") throw Failure{"expected system df"};
  const auto images = Check(call.Layers().List());
  int64_t image_bytes = 0;
  for (const caisson::ImageSummary& image : images) {
    image_bytes += static_cast<int64_t>(image.size);
  }
  const auto containers = Check(call.Containers().List({.all = true}));
  const auto active = std::count_if(
      containers.begin(), containers.end(),
      [](const caisson::ContainerInfo& info) { return info.keeper_pid != 0; });
  const caisson::VolumeStore volumes = call.Volumes();
  const auto all_volumes = Check(volumes.List());
  const auto used_volumes = Check(volumes.List({.in_use = true}));
  int64_t volume_bytes = 0;
  for (const caisson::VolumeInfo& volume : all_volumes) {
    volume_bytes +=
        static_cast<int64_t>(Check(volumes.Usage(volume.name)).bytes);
  }
  Table table({"TYPE", "TOTAL", "ACTIVE", "SIZE"});
  table.Add({"Images", absl::StrCat(images.size()), "-", Bytes(image_bytes)});
  table.Add({"Containers", absl::StrCat(containers.size()),
             absl::StrCat(active), "-"});
  table.Add({"Volumes", absl::StrCat(all_volumes.size()),
             absl::StrCat(used_volumes.size()), Bytes(volume_bytes)});
  std::cout << table.ToString();
  return 0;
}

}  // namespace containers
