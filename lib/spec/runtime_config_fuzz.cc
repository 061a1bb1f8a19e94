// Any bytes: each parser refuses them with INVALID_ARGUMENT or reads a document
// that keeps what runtime_config.h promises.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "lib/spec/runtime_config.h"

namespace {

using namespace caisson::spec;  // NOLINT: the one thing that is tested

void Require(bool condition) {
  if (!condition) abort();
}

void CheckStatus(const absl::Status& status) {
  Require(status.ok() || status.code() == absl::StatusCode::kInvalidArgument);
}

void CheckProcess(const Process& process) {
  Require(!process.args.empty() && process.cwd[0] == '/');
  for (const std::string& variable : process.env) {
    Require(variable.find('=') != std::string::npos && variable[0] != '=');
  }
}

}  // namespace

// A document covers thousands of features, whose statistics would take most of
// the time.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  static std::vector<char*> arguments(*argv, *argv + *argc);
  static char entropic[] = "-entropic=0";
  arguments.insert(arguments.begin() + 1, entropic);
  *argc = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  *argv = arguments.data();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = ParseRuntimeConfig(text);
  CheckStatus(config.status());
  if (config.ok()) {
    Require(!config->root.path.empty() && config->oci_version[0] == '1');
    if (config->process) CheckProcess(*config->process);
    for (const Device& device : config->linux_config.devices) {
      Require(device.path[0] == '/');
    }
  }
  const auto process = ParseProcess(text);
  CheckStatus(process.status());
  if (process.ok()) CheckProcess(*process);
  CheckStatus(ParseResources(text).status());
  return 0;
}
