// `docker cp`.
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "caisson/tree_copy.h"
#include "examples/containers/commands.h"

namespace containers {
namespace {

// One side of the copy.
struct Side {
  std::string container;  // empty: the host
  std::string path;
};

Side ParseSide(const std::string& text) {
  const size_t colon = text.find(':');
  const bool path = absl::StartsWith(text, "/") || absl::StartsWith(text, ".");
  if (path || colon == std::string::npos || colon == 0) {
    return {"", text == "-" ? text : std::filesystem::absolute(text).string()};
  }
  const std::string inside = text.substr(colon + 1);
  return {text.substr(0, colon),
          absl::StartsWith(inside, "/") ? inside : absl::StrCat("/", inside)};
}

// Into the directory that there is, or as what there is not yet.
void CopyTo(caisson::BorrowedFd from, const std::string& source,
            caisson::BorrowedFd to, const std::string& destination,
            caisson::TreeCopyOptions options) {
  absl::Status status = caisson::Copy(from, source, to, destination, options);
  const bool wants_directory =
      absl::EndsWith(destination, "/") || absl::EndsWith(destination, "/.");
  const auto detail = caisson::GetErrorDetail(status);
  if (!wants_directory && detail.has_value() &&
      (detail->error == ENOENT || detail->error == ENOTDIR)) {
    const std::filesystem::path path(destination);
    // With "/." at its end, the directory gets the new name, too.
    const bool content = absl::EndsWith(source, "/.");
    options.name = path.filename();
    status = caisson::Copy(
        from, content ? source.substr(0, source.size() - 2) : source, to,
        path.parent_path().string(), options);
  }
  Check(status);
}

}  // namespace

int Cp(const Call& call) {
  bool archive = false;
  const auto words =
      call.Parse({Switch('a', "archive", "keep owners and groups", archive)});
  const Side from = ParseSide(words[0]), to = ParseSide(words[1]);
  if (from.container.empty() == to.container.empty()) {
    throw Failure{"one of the two is CONTAINER:PATH"};
  }
  const caisson::ContainerStore store = call.Containers();
  const caisson::Container container =
      Check(store.Find(from.container.empty() ? to.container : from.container));
  if (from.path == "-") {
    Check(container.CopyIn(caisson::BorrowedFd(STDIN_FILENO), to.path));
    return 0;
  }
  if (to.path == "-") {
    Check(container.CopyOut(from.path, caisson::BorrowedFd(STDOUT_FILENO)));
    return 0;
  }
  const caisson::UniqueFd host(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const caisson::ContainerFiles files = Check(container.OpenFiles());
  caisson::TreeCopyOptions options;
  if (!archive) {
    // Of root in the container; on the host, of whoever asks.
    options.uid = from.container.empty() ? 0 : geteuid();
    options.gid = from.container.empty() ? 0 : getegid();
  }
  if (from.container.empty()) {
    CopyTo(host.borrow(), from.path, files.root(), to.path, options);
  } else {
    CopyTo(files.root(), from.path, host.borrow(), to.path, options);
  }
  return 0;
}

}  // namespace containers
