#include "examples/oci/exec_process.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace oci {
namespace {

using nlohmann::json;

// What is not given stays as the container's program has it.
absl::Status ChangeUser(const std::string& text, json& user) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  const char* const names[] = {"uid", "gid"};
  for (size_t i = 0; i < parts.size(); ++i) {
    uint32_t id = 0;
    if (i > 1 || !absl::SimpleAtoi(parts[i], &id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--user ", text, " is not UID[:GID]"));
    }
    user[names[i]] = id;
  }
  return absl::OkStatus();
}

void AddCapabilities(const std::vector<std::string>& names, json& process) {
  for (const char* set : {"bounding", "effective", "permitted"}) {
    for (const std::string& name : names) {
      process["capabilities"][set].push_back(name);
    }
  }
}

absl::Status Change(const Arguments& arguments, json& process) {
  process["terminal"] = arguments.Has("tty");
  process.erase("consoleSize");
  if (arguments.Has("cwd")) process["cwd"] = arguments.Get("cwd");
  for (const std::string& variable : arguments.GetAll("env")) {
    process["env"].push_back(variable);
  }
  if (arguments.Has("user")) {
    const absl::Status status =
        ChangeUser(arguments.Get("user"), process["user"]);
    if (!status.ok()) return status;
  }
  for (const std::string& text : arguments.GetAll("additional-gids")) {
    uint32_t group = 0;
    if (!absl::SimpleAtoi(text, &group)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--additional-gids ", text, " is no number"));
    }
    process["user"]["additionalGids"].push_back(group);
  }
  if (arguments.Has("process-label")) {
    process["selinuxLabel"] = arguments.Get("process-label");
  }
  if (arguments.Has("apparmor")) {
    process["apparmorProfile"] = arguments.Get("apparmor");
  }
  if (arguments.Has("no-new-privs")) process["noNewPrivileges"] = true;
  AddCapabilities(arguments.GetAll("cap"), process);
  return absl::OkStatus();
}

}  // namespace

std::vector<Option> ExecOptions() {
  return {{"process", true, "p"},  {"cwd", true},
          {"env", true, "e"},      {"tty", false, "t"},
          {"user", true, "u"},     {"additional-gids", true, "g"},
          {"process-label", true}, {"apparmor", true},
          {"no-new-privs"},        {"cap", true, "c"}};
}

absl::StatusOr<std::string> ExecProcess(const std::string& config,
                                        const Arguments& arguments) {
  if (arguments.Has("process")) {
    std::ifstream file(arguments.Get("process"));
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (file.is_open() && !file.bad()) return text;
    return absl::NotFoundError(absl::StrCat(
        "--process ", arguments.Get("process"), " cannot be read"));
  }
  const absl::Status text = arguments.CheckIsUtf8();
  if (!text.ok()) return text;
  json document = json::parse(config, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document["process"].is_object()) {
    return absl::FailedPreconditionError(
        "the container's config.json has no process: name one with --process");
  }
  json process = std::move(document["process"]);
  process["args"] = std::vector<std::string>(arguments.rest().begin() + 1,
                                             arguments.rest().end());
  if (process["args"].empty()) {
    return absl::InvalidArgumentError("process args cannot be empty");
  }
  const absl::Status status = Change(arguments, process);
  if (!status.ok()) return status;
  return process.dump();
}

}  // namespace oci
