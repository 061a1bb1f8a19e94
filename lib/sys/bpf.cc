#include "lib/sys/bpf.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::sys {
namespace {

static_assert(sizeof(BpfInstruction) == sizeof(bpf_insn));

constexpr size_t kLogSize = 64 << 10;
// kernel/bpf/cgroup.c, BPF_CGROUP_MAX_PROGS.
constexpr size_t kMaxPrograms = 64;

int Bpf(int command, bpf_attr& attr) {
  return static_cast<int>(::syscall(SYS_bpf, command, &attr, sizeof(attr)));
}

uint64_t Address(const void* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

bpf_attr LoadAttributes(const std::vector<BpfInstruction>& program,
                        absl::string_view name) {
  static constexpr char kLicense[] = "";
  bpf_attr attr;
  ::memset(&attr, 0, sizeof(attr));
  attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attr.insns = Address(program.data());
  attr.insn_cnt = static_cast<uint32_t>(program.size());
  attr.license = Address(kLicense);
  ::memcpy(attr.prog_name, name.data(),
           std::min<size_t>(name.size(), BPF_OBJ_NAME_LEN - 1));
  return attr;
}

absl::Status LoadError(int error, size_t size, absl::string_view log) {
  std::string hint;
  switch (error) {
    case EPERM:
      hint =
          "needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the initial "
          "user namespace";
      break;
    case ENOSYS:
      hint = "this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)";
      break;
    case E2BIG:
      hint = "more rules than the kernel takes";
      break;
    case EINVAL:
      if (log.empty()) {
        hint =
            "this kernel has no programs for control groups "
            "(CONFIG_CGROUP_BPF)";
      }
      break;
    default:
      break;
  }
  if (!log.empty()) {
    absl::StrAppend(&hint, hint.empty() ? "" : "; ",
                    "the verifier says: ", log.substr(0, 2000));
  }
  return ErrnoError(error,
                    absl::StrCat("bpf(BPF_PROG_LOAD, cgroup_device, ", size,
                                 " instructions)"),
                    {.step = "cgroup.devices", .hint = hint});
}

// The ids of the programs that are attached to this very group.
absl::StatusOr<std::vector<uint32_t>> AttachedTo(BorrowedFd cgroup,
                                                 const std::string& path) {
  std::vector<uint32_t> ids(kMaxPrograms);
  bpf_attr attr;
  ::memset(&attr, 0, sizeof(attr));
  attr.query.target_fd = static_cast<uint32_t>(cgroup.get());
  attr.query.attach_type = BPF_CGROUP_DEVICE;
  attr.query.prog_ids = Address(ids.data());
  attr.query.prog_cnt = static_cast<uint32_t>(ids.size());
  if (Bpf(BPF_PROG_QUERY, attr) != 0) {
    const int error = errno;
    return ErrnoError(
        error, absl::StrCat("bpf(BPF_PROG_QUERY, ", Quoted(path), ")"),
        {.step = "cgroup.devices",
         .path = path,
         .hint = error == EINVAL ? "this kernel has no programs for control "
                                   "groups (CONFIG_CGROUP_BPF)"
                                 : ""});
  }
  ids.resize(attr.query.prog_cnt);
  return ids;
}

// The attached program called `name`; not valid if there is none.
absl::StatusOr<UniqueFd> FindAttached(BorrowedFd cgroup,
                                      const std::string& path,
                                      absl::string_view name) {
  ASSIGN_OR_RETURN(const std::vector<uint32_t> ids, AttachedTo(cgroup, path));
  for (const uint32_t id : ids) {
    bpf_attr attr;
    ::memset(&attr, 0, sizeof(attr));
    attr.prog_id = id;
    // Close-on-exec by itself, as all descriptors of bpf(2).
    UniqueFd program(Bpf(BPF_PROG_GET_FD_BY_ID, attr));
    if (!program.valid()) {
      const int error = errno;
      if (error == ENOENT) continue;  // somebody detached it
      return ErrnoError(error,
                        absl::StrCat("bpf(BPF_PROG_GET_FD_BY_ID, ", id, ")"),
                        {.step = "cgroup.devices",
                         .path = path,
                         .hint = error == EPERM ? "needs CAP_SYS_ADMIN" : ""});
    }
    bpf_prog_info info;
    ::memset(&info, 0, sizeof(info));
    ::memset(&attr, 0, sizeof(attr));
    attr.info.bpf_fd = static_cast<uint32_t>(program.get());
    attr.info.info = Address(&info);
    attr.info.info_len = sizeof(info);
    if (Bpf(BPF_OBJ_GET_INFO_BY_FD, attr) == 0 &&
        name == absl::string_view(info.name,
                                  ::strnlen(info.name, sizeof(info.name)))) {
      return program;
    }
  }
  return UniqueFd();
}

}  // namespace

absl::StatusOr<UniqueFd> LoadDeviceProgram(
    const std::vector<BpfInstruction>& program, absl::string_view name) {
  bpf_attr attr = LoadAttributes(program, name);
  UniqueFd fd(Bpf(BPF_PROG_LOAD, attr));
  if (fd.valid()) return fd;
  const int error = errno;
  if (error == EPERM || error == ENOSYS)
    return LoadError(error, program.size(), "");
  // Once more, for the verifier's words.
  std::string log(kLogSize, '\0');
  attr = LoadAttributes(program, name);
  attr.log_level = 1;
  attr.log_buf = Address(log.data());
  attr.log_size = kLogSize;
  fd = UniqueFd(Bpf(BPF_PROG_LOAD, attr));
  if (fd.valid()) return fd;
  return LoadError(error, program.size(),
                   absl::StripAsciiWhitespace(log.c_str()));
}

absl::Status AttachDeviceProgram(BorrowedFd cgroup, const std::string& path,
                                 BorrowedFd program, absl::string_view name) {
  ASSIGN_OR_RETURN(const UniqueFd old, FindAttached(cgroup, path, name));
  bpf_attr attr;
  ::memset(&attr, 0, sizeof(attr));
  attr.target_fd = static_cast<uint32_t>(cgroup.get());
  attr.attach_bpf_fd = static_cast<uint32_t>(program.get());
  attr.attach_type = BPF_CGROUP_DEVICE;
  attr.attach_flags = BPF_F_ALLOW_MULTI;
  if (old.valid()) {
    attr.attach_flags |= BPF_F_REPLACE;
    attr.replace_bpf_fd = static_cast<uint32_t>(old.get());
  }
  if (Bpf(BPF_PROG_ATTACH, attr) == 0) return absl::OkStatus();
  const int error = errno;
  absl::string_view hint;
  if (error == EPERM) {
    hint =
        "a group above, or this one, has a program that allows no others "
        "(attached without BPF_F_ALLOW_MULTI)";
  } else if (error == E2BIG) {
    hint = "64 programs are attached to the group already";
  }
  return ErrnoError(
      error,
      absl::StrCat("bpf(BPF_PROG_ATTACH, ", Quoted(path), ", cgroup_device)"),
      {.step = "cgroup.devices", .path = path, .hint = hint});
}

}  // namespace caisson::sys
