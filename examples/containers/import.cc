#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "caisson/confined_unpacker.h"
#include "caisson/launcher.h"
#include "examples/containers/arguments.h"
#include "examples/containers/commands.h"
#include "examples/containers/output.h"

namespace containers {
namespace {

using caisson::ImportProgress;

volatile sig_atomic_t g_signal = 0;

// The first signal ends the import, which leaves nothing; the second ends the
// program, whose remains the next import removes.
void CancelOnSignals() {
  struct sigaction action = {};
  action.sa_handler = [](int signal) { g_signal = signal; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before;
    sigaction(signal, nullptr, &before);
    // Whoever started this with nohup wants that to be so.
    if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

// On a terminal, a bar that is rewritten while it grows; elsewhere a line for
// each layer that is done.
class ProgressDisplay final {
 public:
  // False after a signal.
  bool Show(const ImportProgress& progress) {
    if (progress.phase == ImportProgress::kReading) {
    } else if (bar_) {
      ShowBar(progress);
    } else {
      ShowLayers(progress);
    }
    return g_signal == 0;
  }

  // Takes the bar away.
  void End() {
    if (shown_ != absl::InfinitePast()) std::cerr << "\r\033[K";
    shown_ = absl::InfinitePast();
  }

 private:
  void ShowBar(const ImportProgress& progress) {
    const absl::Time now = absl::Now();
    if (now - shown_ < absl::Milliseconds(100)) return;
    shown_ = now;
    constexpr uint64_t kWidth = 30;
    const uint64_t filled =
        kWidth * progress.bytes_done / std::max<uint64_t>(progress.bytes, 1);
    std::cerr << absl::StrFormat(
        "\r[%s%s] %d of %d MiB, %d entries, %d of %d layers\033[K",
        std::string(filled, '='), std::string(kWidth - filled, ' '),
        progress.bytes_done >> 20, progress.bytes >> 20, progress.entries_done,
        progress.layers_done, progress.layers);
  }

  void ShowLayers(const ImportProgress& progress) {
    for (size_t i = told_; i < progress.each.size(); ++i) {
      const ImportProgress::Layer& layer = progress.each[i];
      if (!layer.done) break;
      std::cerr << absl::StrFormat(
          "layer %d of %d: %s, %s, %d entries\n", i + 1, progress.layers,
          ShortId(layer.diff_id), Bytes(static_cast<int64_t>(layer.bytes)),
          layer.entries_done);
      told_ = i + 1;
    }
  }

  const bool bar_ = isatty(STDERR_FILENO) == 1;
  absl::Time shown_ = absl::InfinitePast();
  size_t told_ = 0;
};

}  // namespace

int Import(const Call& call) {
  std::string name;
  bool confined = false;
  const auto words = call.Parse(
      {Text(0, "name", "NAME[:TAG]", "instead of the archive's names", name),
       Switch(0, "confined",
              "decode layers in processes without rights, for images that "
              "nobody trusts",
              confined)});
  std::optional<caisson::Launcher> launcher;
  caisson::LayerStoreOptions options;
  options.path = call.store;
  // A layer is decompressed, hashed and written at once, and two layers.
  options.import_threads = 3;
  if (confined) {
    launcher = Check(caisson::Launcher::Create());
    options.unpacker = Check(caisson::ConfinedUnpacker::Create(*launcher));
  }
  caisson::LayerStore layers = Check(caisson::LayerStore::Open(options));
  CancelOnSignals();
  ProgressDisplay display;
  auto images = layers.Import(
      words[0], {.name = name, .progress = [&](const ImportProgress& progress) {
                   return display.Show(progress);
                 }});
  display.End();
  if (!images.ok() && absl::IsCancelled(images.status())) {
    throw Failure{"interrupted: nothing was imported", 128 + g_signal};
  }
  for (const caisson::Image& image : Check(std::move(images))) {
    std::cout << NamesText(image.names) << "\n";
  }
  return 0;
}

}  // namespace containers
