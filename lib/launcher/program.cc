#include "lib/launcher/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"

namespace caisson::launcher {
namespace {

constexpr size_t kMaxInterpreter = 4096;  // PATH_MAX
constexpr size_t kMaxScriptLine = 256;    // BINPRM_BUF_SIZE
constexpr int kMaxProgramHeaders = 128;

#if defined(__x86_64__)
constexpr uint16_t kOwnMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kOwnMachine = EM_AARCH64;
#endif

std::string MachineName(uint16_t machine) {
  switch (machine) {
    case EM_X86_64:
      return "x86-64";
    case EM_386:
      return "x86";
    case EM_AARCH64:
      return "aarch64";
    case EM_ARM:
      return "arm";
    case EM_RISCV:
      return "riscv";
    case EM_PPC64:
      return "ppc64";
    case EM_S390:
      return "s390";
    default:
      return absl::StrCat("ELF machine ", machine);
  }
}

bool ReadAt(BorrowedFd fd, void* to, size_t size, uint64_t offset) {
  return ::pread(fd.get(), to, size, static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(size);
}

// What the beginning of a program says it needs.
struct Needs {
  std::string interpreter;  // of an ELF file or a script; may be empty
  bool script = false;
  std::optional<uint16_t> machine;  // of an ELF file
};

std::string ElfInterpreter(BorrowedFd file, const Elf64_Ehdr& elf) {
  if (elf.e_ident[EI_CLASS] != ELFCLASS64 ||
      elf.e_phentsize != sizeof(Elf64_Phdr)) {
    return "";
  }
  const int count = std::min<int>(elf.e_phnum, kMaxProgramHeaders);
  for (int i = 0; i < count; ++i) {
    Elf64_Phdr header;
    if (!ReadAt(file, &header, sizeof(header),
                elf.e_phoff + static_cast<uint64_t>(i) * sizeof(header))) {
      return "";
    }
    if (header.p_type != PT_INTERP) continue;
    if (header.p_filesz < 2 || header.p_filesz > kMaxInterpreter) return "";
    std::string path(header.p_filesz, '\0');
    if (!ReadAt(file, path.data(), path.size(), header.p_offset)) return "";
    return path.substr(0, path.find('\0'));
  }
  return "";
}

Needs NeedsOf(BorrowedFd file) {
  Needs needs;
  char start[kMaxScriptLine] = {};
  const ssize_t size = ::pread(file.get(), start, sizeof(start), 0);
  if (size >= 2 && start[0] == '#' && start[1] == '!') {
    absl::string_view line(start, static_cast<size_t>(size));
    line = line.substr(2, line.find('\n') - 2);
    line = absl::StripLeadingAsciiWhitespace(line);
    needs.script = true;
    needs.interpreter = std::string(
        line.substr(0, line.find_first_of(absl::string_view(" \t\r\0", 4))));
    return needs;
  }
  Elf64_Ehdr elf;
  if (size < static_cast<ssize_t>(sizeof(elf))) return needs;
  memcpy(&elf, start, sizeof(elf));
  if (memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0) return needs;
  // e_machine lies at the same place in 32-bit files.
  needs.machine = elf.e_machine;
  needs.interpreter = ElfInterpreter(file, elf);
  return needs;
}

std::string ExecCall(absl::string_view path) {
  return absl::StrCat("execve(", Quoted(path), ")");
}

absl::Status ExecError(int error, absl::string_view path,
                       absl::string_view hint) {
  return ErrnoError(error, ExecCall(path),
                    {.step = "exec", .path = path, .hint = hint});
}

// The file that execve(2) would have executed, and its path.
struct Found {
  UniqueFd file;
  std::string path;
  struct stat stat = {};
};

std::optional<Found> FindProgram(const std::vector<std::string>& candidates,
                                 const OpenInside& open) {
  std::optional<Found> best;
  for (const std::string& path : candidates) {
    auto file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!file.ok()) continue;
    Found found = {.file = *std::move(file), .path = path};
    if (::fstat(found.file.get(), &found.stat) != 0) continue;
    const bool executable =
        S_ISREG(found.stat.st_mode) && (found.stat.st_mode & 0111) != 0;
    if (executable) return found;
    if (!best.has_value()) best = std::move(found);
  }
  return best;
}

absl::Status ExplainDenied(const Found& found) {
  if (S_ISDIR(found.stat.st_mode)) {
    return ExecError(EACCES, found.path, "it is a directory");
  }
  if (!S_ISREG(found.stat.st_mode)) {
    return ExecError(EACCES, found.path, "it is not a regular file");
  }
  if ((found.stat.st_mode & 0111) == 0) {
    return ExecError(EACCES, found.path, "the file is not executable");
  }
  return ExecError(EACCES, found.path,
                   "the user may not execute it, or may not search a directory "
                   "on the way, or it lies on a file system that is noexec");
}

absl::Status ExplainMissing(const Found& found, const OpenInside& open) {
  const Needs needs = NeedsOf(found.file.borrow());
  if (needs.interpreter.empty() || open(needs.interpreter, O_PATH).ok()) {
    return ExecError(ENOENT, found.path, "");
  }
  return ExecError(
      ENOENT, found.path,
      absl::StrCat("the file exists, but its ",
                   needs.script ? "interpreter (#!) " : "ELF interpreter ",
                   Quoted(needs.interpreter), " does not exist in the root",
                   needs.script ? "" : ": the image lacks its C library"));
}

absl::Status ExplainFormat(const Found& found) {
  const Needs needs = NeedsOf(found.file.borrow());
  if (needs.machine.has_value() && *needs.machine != kOwnMachine) {
    return ExecError(
        ENOEXEC, found.path,
        absl::StrCat("the program is for ", MachineName(*needs.machine),
                     ", this machine is ", MachineName(kOwnMachine)));
  }
  if (found.stat.st_size == 0) {
    return ExecError(ENOEXEC, found.path, "the file is empty");
  }
  return ExecError(ENOEXEC, found.path,
                   "neither an ELF program nor a script that begins with #!");
}

}  // namespace

std::vector<std::string> Candidates(absl::string_view argv0,
                                    const std::vector<std::string>& env) {
  if (absl::StrContains(argv0, '/')) return {std::string(argv0)};
  std::vector<std::string> candidates;
  for (absl::string_view variable : env) {
    if (!absl::ConsumePrefix(&variable, "PATH=")) continue;
    for (const absl::string_view directory : absl::StrSplit(variable, ':')) {
      if (directory.empty()) continue;
      candidates.push_back(
          absl::StrCat(absl::StripSuffix(directory, "/"), "/", argv0));
    }
    break;
  }
  return candidates;
}

absl::Status ExplainExecFailure(int error,
                                const std::vector<std::string>& candidates,
                                const OpenInside& open) {
  const std::optional<Found> found = FindProgram(candidates, open);
  if (!found.has_value()) {
    if (candidates.size() == 1) return ExecError(error, candidates.front(), "");
    if (error != ENOENT && error != ENOTDIR) {
      return ExecError(error, candidates.back(), "");
    }
    const std::string& last = candidates.back();
    const std::string name = last.substr(last.rfind('/') + 1);
    std::vector<absl::string_view> directories;
    for (const std::string& path : candidates) {
      directories.push_back(absl::string_view(path).substr(0, path.rfind('/')));
    }
    return ErrnoError(
        error, ExecCall(name),
        {.step = "exec",
         .path = name,
         .hint = absl::StrCat("executable file not found in $PATH (",
                              absl::StrJoin(directories, ":"), ")")});
  }
  switch (error) {
    case EACCES:
      return ExplainDenied(*found);
    case ENOENT:
      return ExplainMissing(*found, open);
    case ENOEXEC:
      return ExplainFormat(*found);
    case E2BIG:
      return ExecError(
          E2BIG, found->path,
          "arguments and environment exceed a quarter of the stack "
          "limit, or one string exceeds 128 KiB");
    default:
      return ExecError(error, found->path, "");
  }
}

}  // namespace caisson::launcher
