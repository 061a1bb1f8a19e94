#include "lib/rootfs/protected_paths.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace rootfs {
namespace {

constexpr absl::string_view kProc = "/proc/";
constexpr absl::string_view kSys = "/sys/";

constexpr ProtectedPath Known(absl::string_view path, MaskKind kind) {
  const bool proc = path[1] == 'p';
  return {path, path.substr((proc ? kProc : kSys).size()),
          proc ? Area::kProc : Area::kSys, kind};
}

// What each path is, so that nothing has to find out. /proc/interrupts and
// /sys/firmware exist on every kernel; masking them last leaves no unused mount
// (MountSteps::Mask()).
constexpr ProtectedPath kDefaultMasks[] = {
    Known("/proc/kcore", MaskKind::kFile),
    Known("/proc/keys", MaskKind::kFile),
    Known("/proc/latency_stats", MaskKind::kFile),
    Known("/proc/timer_list", MaskKind::kFile),
    Known("/proc/interrupts", MaskKind::kFile),
    Known("/proc/acpi", MaskKind::kDirectory),
    Known("/proc/asound", MaskKind::kDirectory),
    Known("/proc/scsi", MaskKind::kDirectory),
    Known("/sys/devices/virtual/powercap", MaskKind::kDirectory),
    Known("/sys/firmware", MaskKind::kDirectory),
};

constexpr ProtectedPath kDefaultReadOnly[] = {
    Known("/proc/bus", MaskKind::kUnknown),
    Known("/proc/fs", MaskKind::kUnknown),
    Known("/proc/irq", MaskKind::kUnknown),
    Known("/proc/sys", MaskKind::kUnknown),
    Known("/proc/sysrq-trigger", MaskKind::kUnknown),
};

constexpr absl::string_view kThermalPrefix = "/sys/devices/system/cpu/cpu";
constexpr absl::string_view kThermalSuffix = "/thermal_throttle";

// Temperature tells what other tenants compute (GHSA-6fw5-f8r9-fgfm). Either
// every processor has the directory or none.
std::vector<std::string> ThermalPaths() {
  const auto path = [](long cpu) {
    return absl::StrCat(kThermalPrefix, cpu, kThermalSuffix);
  };
  std::vector<std::string> paths;
  if (::access(path(0).c_str(), F_OK) != 0) return paths;
  const long cpus = ::sysconf(_SC_NPROCESSORS_CONF);
  for (long cpu = 0; cpu < cpus; ++cpu) paths.push_back(path(cpu));
  return paths;
}

void SetKind(ProtectedPath& path) {
  for (const ProtectedPath& known : kDefaultMasks) {
    if (known.absolute != path.absolute) continue;
    path.kind = known.kind;
    return;
  }
  if (path.area == Area::kRoot) return;
  // The container's /proc and /sys are those of the same kernel. If this is
  // wrong the start fails: nothing stays unmasked.
  struct stat status;
  const bool directory =
      ::stat(std::string(path.absolute).c_str(), &status) == 0 &&
      S_ISDIR(status.st_mode);
  path.kind = directory ? MaskKind::kDirectory : MaskKind::kFile;
  path.guessed = true;
}

absl::Status AddPaths(absl::string_view field,
                      const std::vector<std::string>& paths, Layout& layout,
                      std::vector<ProtectedPath>& out) {
  for (size_t i = 0; i < paths.size(); ++i) {
    const std::string item = absl::StrCat(field, "[", i, "]");
    ASSIGN_OR_RETURN(const Destination destination,
                     ParseDestination(item, paths[i]));
    if (destination.path() == "proc" || destination.path() == "sys") {
      return absl::InvalidArgumentError(
          absl::StrCat(item, " ", Quoted(paths[i]),
                       " as a whole cannot be masked or made read-only"));
    }
    const std::string& text = layout.texts.emplace_back(destination.absolute());
    ProtectedPath path;
    path.absolute = text;
    path.relative =
        path.absolute.substr(text.size() - destination.relative().size());
    path.area = destination.area();
    out.push_back(path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status AddProtectedPaths(const RootFsOptions& options, Layout& layout) {
  RETURN_IF_ERROR(AddPaths("RootFsOptions.masked_paths", options.masked_paths,
                           layout, layout.masked));
  if (options.unsafe_replace_masked_paths.has_value()) {
    RETURN_IF_ERROR(AddPaths("RootFsOptions.unsafe_replace_masked_paths",
                             *options.unsafe_replace_masked_paths, layout,
                             layout.masked));
  }
  for (ProtectedPath& path : layout.masked) SetKind(path);
  if (!options.unsafe_replace_masked_paths.has_value()) {
    for (std::string& path : ThermalPaths()) {
      const std::string& text = layout.texts.emplace_back(std::move(path));
      layout.masked.push_back(Known(text, MaskKind::kDirectory));
    }
    layout.masked.insert(layout.masked.end(), std::begin(kDefaultMasks),
                         std::end(kDefaultMasks));
  }

  if (options.unsafe_replace_read_only_paths.has_value()) {
    RETURN_IF_ERROR(AddPaths("RootFsOptions.unsafe_replace_read_only_paths",
                             *options.unsafe_replace_read_only_paths, layout,
                             layout.read_only));
  } else {
    layout.read_only.assign(std::begin(kDefaultReadOnly),
                            std::end(kDefaultReadOnly));
  }
  return AddPaths("RootFsOptions.read_only_paths", options.read_only_paths,
                  layout, layout.read_only);
}

}  // namespace rootfs

std::vector<std::string> DefaultMaskedPaths() {
  std::vector<std::string> paths = rootfs::ThermalPaths();
  for (const rootfs::ProtectedPath& mask : rootfs::kDefaultMasks) {
    paths.emplace_back(mask.absolute);
  }
  return paths;
}

std::vector<std::string> DefaultReadOnlyPaths() {
  std::vector<std::string> paths;
  for (const rootfs::ProtectedPath& path : rootfs::kDefaultReadOnly) {
    paths.emplace_back(path.absolute);
  }
  return paths;
}

}  // namespace caisson
