#include "lib/layer/config_edit.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "lib/base/errno_error.h"
#include "lib/base/json_document.h"
#include "lib/base/status_macros.h"
#include "lib/layer/image_spec.h"

namespace caisson::layer {
namespace {

using nlohmann::json;

// As Go writes it.
std::string TimeText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", time, absl::UTCTimeZone());
}

json StepOf(const HistoryEntry& entry) {
  json step = json::object();
  if (entry.created.has_value()) step["created"] = TimeText(*entry.created);
  if (!entry.created_by.empty()) step["created_by"] = entry.created_by;
  if (!entry.author.empty()) step["author"] = entry.author;
  if (!entry.comment.empty()) step["comment"] = entry.comment;
  if (entry.empty_layer) step["empty_layer"] = true;
  return step;
}

bool HasLayer(const json& step) {
  const auto empty = step.find("empty_layer");
  return empty == step.end() || !empty->is_boolean() || !empty->get<bool>();
}

// Makes `history` have exactly `kept` steps with layers.
void FitHistory(size_t layers, size_t kept, json& history) {
  if (!history.is_array()) history = json::array();
  const size_t told = static_cast<size_t>(
      std::count_if(history.begin(), history.end(), HasLayer));
  if (told != layers) {
    history = json::array();
    for (size_t i = 0; i < layers; ++i) {
      history.push_back({{"comment", "layer of the base image"}});
    }
  }
  size_t seen = 0;
  for (json& step : history) {
    if (HasLayer(step) && ++seen > kept) step["empty_layer"] = true;
  }
}

void PutEnv(const std::vector<std::string>& changes, json& run) {
  json& env = run["Env"];
  if (!env.is_array()) env = json::array();
  for (const std::string& variable : changes) {
    const std::string prefix = variable.substr(0, variable.find('=') + 1);
    const auto same =
        std::find_if(env.begin(), env.end(), [&prefix](const json& other) {
          return absl::StartsWith(other.get_ref<const std::string&>(), prefix);
        });
    if (same == env.end()) {
      env.push_back(variable);
    } else {
      *same = variable;
    }
  }
}

// Adds names to an object whose values say nothing: {"80/tcp": {}}.
void PutNames(const std::vector<std::string>& names, const char* field,
              json& run) {
  if (names.empty()) return;
  json& object = run[field];
  if (!object.is_object()) object = json::object();
  for (const std::string& name : names) object[name] = json::object();
}

void PutRunConfig(const ImageChanges& changes, json& run) {
  if (!changes.env.empty()) PutEnv(changes.env, run);
  if (changes.entrypoint.has_value()) {
    run["Entrypoint"] = *changes.entrypoint;
    run.erase("Cmd");
  }
  if (changes.cmd.has_value()) run["Cmd"] = *changes.cmd;
  const auto text = [&run](const char* field,
                           const std::optional<std::string>& value) {
    if (value.has_value()) run[field] = *value;
  };
  text("WorkingDir", changes.working_dir);
  text("User", changes.user);
  text("StopSignal", changes.stop_signal);
  PutNames(changes.exposed_ports, "ExposedPorts", run);
  PutNames(changes.volumes, "Volumes", run);
  if (changes.labels.empty()) return;
  json& labels = run["Labels"];
  if (!labels.is_object()) labels = json::object();
  for (const auto& [key, value] : changes.labels) labels[key] = value;
}

absl::Status CheckChanges(const ImageChanges& changes) {
  for (const std::string& variable : changes.env) {
    const size_t equals = variable.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("ImageChanges::env: ", Quoted(variable),
                       ", expected \"NAME=value\""));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> EditConfig(const ConfigEdit& edit) {
  RETURN_IF_ERROR(CheckChanges(edit.changes));
  json config = json::object();
  size_t base_layers = 0;
  if (edit.base.empty()) {
    config["os"] = edit.platform.os;
    config["architecture"] = edit.platform.architecture;
    if (!edit.platform.variant.empty()) {
      config["variant"] = edit.platform.variant;
    }
  } else {
    // Valid in all that is touched below.
    ASSIGN_OR_RETURN(const ConfigDocument base,
                     ParseImageConfig(edit.base, "the base image"));
    base_layers = base.diff_ids.size();
    ASSIGN_OR_RETURN(config, ParseJson(edit.base, "the base image"));
  }
  // Of the container that made the base image (Docker before 25).
  config.erase("container");
  config.erase("container_config");
  json& run = config["config"];
  if (!run.is_object()) run = json::object();
  PutRunConfig(edit.changes, run);
  if (edit.step.created.has_value()) {
    config["created"] = TimeText(*edit.step.created);
  }
  if (!edit.step.author.empty()) config["author"] = edit.step.author;
  json diff_ids = json::array();
  for (const Digest& diff_id : edit.diff_ids) diff_ids.push_back(diff_id.str());
  config["rootfs"] = {{"type", "layers"}, {"diff_ids", std::move(diff_ids)}};
  json& history = config["history"];
  FitHistory(base_layers, edit.kept, history);
  history.push_back(StepOf(edit.step));
  // Text that is no UTF-8 must not throw; it cannot be said in JSON either.
  std::string text = config.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false,
                                 json::error_handler_t::replace);
  RETURN_IF_ERROR(ParseImageConfig(text, "the new image").status());
  return text;
}

}  // namespace caisson::layer
