#include "lib/cgroup/fake_cgroupfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "lib/base/errno_error.h"

namespace caisson::cgroup {
namespace {

const char kNoLimit[] = "9223372036854771712\n";

// Control files of a new group by the prefix that stands for the controller.
std::map<std::string, std::string> FilesOfV2(absl::string_view controllers) {
  std::map<std::string, std::string> files = {
      {"cgroup.procs", ""},
      {"cgroup.controllers", std::string(controllers)},
      {"cgroup.subtree_control", ""},
      {"cgroup.events", "populated 0\nfrozen 0\n"},
      {"cgroup.kill", ""}};
  if (absl::StrContains(controllers, "memory")) {
    for (const char* limit : {"max", "swap.max", "high", "zswap.max"}) {
      files[absl::StrCat("memory.", limit)] = "max\n";
    }
    for (const char* limit : {"low", "min", "oom.group"}) {
      files[absl::StrCat("memory.", limit)] = "0\n";
    }
    files["memory.events"] = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
  }
  if (absl::StrContains(controllers, "cpu")) {
    files["cpu.max"] = "max 100000\n";
    files["cpu.weight"] = "100\n";
    files["cpu.max.burst"] = "0\n";
    files["cpu.idle"] = "0\n";
  }
  if (absl::StrContains(controllers, "cpuset")) {
    for (const char* list : {"cpus", "mems"}) {
      files[absl::StrCat("cpuset.", list)] = "\n";
      files[absl::StrCat("cpuset.", list, ".effective")] = "0-7\n";
    }
  }
  if (absl::StrContains(controllers, "io")) {
    files["io.max"] = "";
    files["io.weight"] = files["io.bfq.weight"] = "default 100\n";
  }
  if (absl::StrContains(controllers, "hugetlb")) {
    files["hugetlb.2MB.max"] = files["hugetlb.2MB.rsvd.max"] = "max\n";
  }
  if (absl::StrContains(controllers, "rdma")) files["rdma.max"] = "";
  if (absl::StrContains(controllers, "misc")) files["misc.max"] = "sev max\n";
  if (absl::StrContains(controllers, "dmem")) files["dmem.max"] = "";
  if (absl::StrContains(controllers, "pids")) files["pids.max"] = "max\n";
  return files;
}

std::map<std::string, std::string> FilesOfV1(absl::string_view controller) {
  std::map<std::string, std::string> files = {{"cgroup.procs", ""},
                                              {"tasks", ""}};
  if (controller == "memory") {
    files["memory.limit_in_bytes"] = kNoLimit;
    files["memory.memsw.limit_in_bytes"] = kNoLimit;
    files["memory.soft_limit_in_bytes"] = kNoLimit;
    files["memory.swappiness"] = "60\n";
    files["memory.oom_control"] =
        "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
  } else if (controller == "cpu") {
    files["cpu.cfs_quota_us"] = "-1\n";
    files["cpu.cfs_period_us"] = "100000\n";
    files["cpu.cfs_burst_us"] = "0\n";
    files["cpu.shares"] = "1024\n";
    files["cpu.idle"] = "0\n";
  } else if (controller == "cpuset") {
    files["cpuset.cpus"] = files["cpuset.mems"] = "0-7\n";
  } else if (controller == "blkio") {
    for (const char* limit :
         {"read_bps", "write_bps", "read_iops", "write_iops"}) {
      files[absl::StrCat("blkio.throttle.", limit, "_device")] = "";
    }
    files["blkio.bfq.weight"] = "100\n";
    files["blkio.bfq.weight_device"] = "";
  } else if (controller == "devices") {
    files["devices.list"] = "a *:* rwm\n";
    files["devices.allow"] = files["devices.deny"] = "";
  } else if (controller == "hugetlb") {
    files["hugetlb.2MB.limit_in_bytes"] = kNoLimit;
    files["hugetlb.2MB.rsvd.limit_in_bytes"] = kNoLimit;
  } else if (controller == "net_cls") {
    files["net_cls.classid"] = "0\n";
  } else if (controller == "net_prio") {
    files["net_prio.ifpriomap"] = "lo 0\neth0 0\n";
  } else if (controller == "pids") {
    files["pids.max"] = "max\n";
  }
  return files;
}

// Files with one line for each disk, device or resource.
bool IsKeyed(absl::string_view file) {
  for (const char* name :
       {"io.max", "io.weight", "io.bfq.weight", "rdma.max", "misc.max",
        "dmem.max", "blkio.bfq.weight_device", "net_prio.ifpriomap"}) {
    if (file == name) return true;
  }
  return absl::StartsWith(file, "blkio.throttle.");
}

// What the kernel makes of `text` when `line` is written: lines that say
// nothing are not shown.
std::string WithLine(absl::string_view text, absl::string_view line) {
  const absl::string_view key = line.substr(0, line.find(' '));
  std::map<std::string, std::string> lines;
  for (absl::string_view old : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines[std::string(old.substr(0, old.find(' ')))] = std::string(old);
  }
  lines[std::string(key)] = std::string(line);
  const absl::string_view rest = line.substr(key.size());
  if (key != "default" && key != "lo" && key != "eth0" && key != "sev" &&
      (rest == " 0" || rest == " default" || rest == " max" ||
       rest == " rbps=max wbps=max riops=max wiops=max" ||
       rest == " hca_handle=max hca_object=max")) {
    lines.erase(std::string(key));
  }
  std::string all;
  for (const auto& [unused, each] : lines) absl::StrAppend(&all, each, "\n");
  return all;
}

}  // namespace

FakeCgroupfs::FakeCgroupfs(Kind kind) {
  std::string pattern = ::testing::TempDir() + "/fake-cgroupfs-XXXXXX";
  root_ = std::filesystem::canonical(::mkdtemp(pattern.data()));
  const bool v1 = kind == Kind::kV1 || kind == Kind::kFullV1;
  const bool v2 = kind == Kind::kV2 || kind == Kind::kFullV2;
  if (!v2) {
    for (const char* name : {"cpu", "memory", "pids"}) AddMount(name, false);
  }
  if (kind == Kind::kFullV1) {
    for (const char* name :
         {"cpuset", "blkio", "hugetlb", "net_cls", "net_prio"}) {
      AddMount(name, false);
    }
  }
  if (!v1) {
    controllers_v2_ = kind == Kind::kFullV2
                          ? "cpuset cpu io memory hugetlb pids rdma misc dmem"
                      : v2 ? "cpu memory pids"
                           : "hugetlb";
    AddMount("unified", true);
  }
}

FakeCgroupfs::~FakeCgroupfs() { std::filesystem::remove_all(root_); }

void FakeCgroupfs::AddMount(const std::string& name, bool v2) {
  std::filesystem::create_directory(absl::StrCat(root_, "/", name));
  Populate(name);
  if (v2) Set("unified/cgroup.controllers", controllers_v2_);
  const std::string type = v2 ? "cgroup2" : "cgroup";
  absl::StrAppend(&mountinfo_, next_mount_id_++, " 0 0:1 / ", root_, "/", name,
                  " rw - ", type, " ", type, " rw", v2 ? "" : ",",
                  v2 ? "" : name, "\n");
}

// `group` is a path below root_ that begins with the name of the mount.
void FakeCgroupfs::Populate(const std::string& group) const {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(group, absl::MaxSplits('/', 1));
  std::map<std::string, std::string> files;
  if (parts.first == "unified") {
    const std::string parent = group.substr(0, group.rfind('/'));
    files = FilesOfV2(parts.second.empty()
                          ? controllers_v2_
                          : Get(parent + "/cgroup.subtree_control"));
  } else {
    files = FilesOfV1(parts.first);
  }
  for (const auto& [name, value] : files) {
    const std::string path = absl::StrCat(group, "/", name);
    if (name == "cgroup.controllers" || !Exists(path)) Set(path, value);
  }
}

std::string FakeCgroupfs::Get(const std::string& path) const {
  std::ifstream file(absl::StrCat(root_, "/", path));
  EXPECT_TRUE(file.good()) << path;
  std::stringstream text;
  text << file.rdbuf();
  return std::string(absl::StripSuffix(text.str(), "\n"));
}

void FakeCgroupfs::Set(const std::string& path,
                       const std::string& value) const {
  std::ofstream(absl::StrCat(root_, "/", path)) << value;
}

bool FakeCgroupfs::Exists(const std::string& path) const {
  return std::filesystem::exists(absl::StrCat(root_, "/", path));
}

void FakeCgroupfs::Remove(const std::string& path) const {
  std::filesystem::remove_all(absl::StrCat(root_, "/", path));
}

std::vector<std::string> FakeCgroupfs::Directories() const {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(root_)) {
    if (entry.is_directory()) {
      names.push_back(entry.path().string().substr(root_.size() + 1));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> FakeCgroupfs::Files(const std::string& group) const {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat(root_, "/", group))) {
    if (entry.is_regular_file()) names.push_back(entry.path().filename());
  }
  return names;
}

std::string FakeCgroupfs::PathOf(BorrowedFd dir) const {
  const std::string path =
      std::filesystem::read_symlink(absl::StrCat("/proc/self/fd/", dir.get()));
  return std::string(absl::StripPrefix(path, root_ + "/"));
}

int FakeCgroupfs::Allow(const std::string& operation) const {
  const int error = fault == nullptr ? 0 : fault(operation);
  if (error == 0) log.push_back(operation);
  return error;
}

absl::StatusOr<std::string> FakeCgroupfs::ReadProc(
    const std::string& name) const {
  if (name == "self/mountinfo") return mountinfo_;
  if (name == "self/cgroup") return absl::StrCat("0::", own_path, "\n");
  const auto it = proc.find(name);
  if (it != proc.end()) return it->second;
  return absl::NotFoundError(name);
}

absl::StatusOr<UniqueFd> FakeCgroupfs::OpenMount(const Mount& mount) const {
  return UniqueFd(
      ::open(mount.mount_point.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

int FakeCgroupfs::MakeDir(BorrowedFd parent, const std::string& name,
                          mode_t mode) const {
  const std::string path = absl::StrCat(PathOf(parent), "/", name);
  if (const int error = Allow("mkdir " + path)) return error;
  if (const int error = Filesystem::MakeDir(parent, name, mode)) return error;
  Populate(path);
  // The root of version 2 alone has no type.
  if (absl::StartsWith(path, "unified/")) Set(path + "/cgroup.type", "domain");
  return 0;
}

void FakeCgroupfs::Move(const std::string& pid,
                        const std::string& group) const {
  const std::string mount = group.substr(0, group.find('/'));
  for (const std::string& directory : Directories()) {
    if (directory.substr(0, directory.find('/')) != mount) continue;
    const std::string path = directory + "/cgroup.procs";
    std::vector<std::string> pids =
        absl::StrSplit(Get(path), '\n', absl::SkipEmpty());
    pids.erase(std::remove(pids.begin(), pids.end(), pid), pids.end());
    if (directory == group) pids.push_back(pid);
    Set(path, absl::StrJoin(pids, "\n"));
  }
  if (pid == own_pid)
    own_path = absl::StrCat("/", group.substr(mount.size() + 1));
}

int FakeCgroupfs::RemoveDir(BorrowedFd parent, const std::string& name) const {
  const std::string path = absl::StrCat(PathOf(parent), "/", name);
  if (const int error = Allow("rmdir " + path)) return error;
  if (!Exists(path)) return ENOENT;
  if (!Get(path + "/cgroup.procs").empty()) return EBUSY;
  const std::string full = absl::StrCat(root_, "/", path);
  for (const auto& entry : std::filesystem::directory_iterator(full)) {
    if (entry.is_directory()) return EBUSY;
  }
  std::filesystem::remove_all(full);
  return 0;
}

bool FakeCgroupfs::IsDelegated(const Dir& dir) const {
  return PathOf(dir.fd.borrow()) == delegated;
}

absl::Status FakeCgroupfs::ProbeDevicePrograms() const {
  const int error = fault == nullptr ? 0 : fault("probe");
  return error == 0 ? absl::OkStatus() : ErrnoError(error, "bpf(probe)");
}

absl::Status FakeCgroupfs::SetDeviceProgram(
    const Dir& dir, const std::vector<sys::BpfInstruction>& program) const {
  const std::string path = PathOf(dir.fd.borrow()) + "/device_program";
  if (const int error = Allow("bpf " + path)) {
    return ErrnoError(error, absl::StrCat("bpf(", Quoted(path), ")"));
  }
  Set(path, absl::StrCat(program.size()));
  return absl::OkStatus();
}

absl::Status FakeCgroupfs::Write(const Dir& dir, absl::string_view file,
                                 absl::string_view value) const {
  const std::string group = PathOf(dir.fd.borrow());
  const std::string path = absl::StrCat(group, "/", file);
  int error = Allow(absl::StrCat("write ", path, " ", value));
  std::string stored(value);
  if (error == 0 && !Exists(path)) error = ENOENT;
  if (error == 0 && file == "cgroup.subtree_control") {
    const std::string name = stored.substr(1);
    if (stored[0] == '-') {
      stored = absl::StrReplaceAll(Get(path), {{" " + name, ""}, {name, ""}});
      Set(path, stored);
      return absl::OkStatus();
    }
    if (!absl::StrContains(Get(group + "/cgroup.controllers"), name)) {
      error = ENOENT;
    } else if (group != "unified" && !Get(group + "/cgroup.procs").empty()) {
      error = EBUSY;
    }
    stored = absl::StrCat(Get(path), Get(path).empty() ? "" : " ", name);
  }
  if (error != 0) {
    return ErrnoError(error,
                      absl::StrCat("write(", Quoted(Join(dir.path, file)), ", ",
                                   Quoted(value), ")"),
                      {.step = "cgroup", .path = Join(dir.path, file)});
  }
  if (file == "cgroup.procs") {
    Move(stored, group);
    return absl::OkStatus();
  }
  if (IsKeyed(file)) {
    // A weight without a disk is that of all of them.
    const bool all = !absl::StrContains(value, ' ');
    stored = WithLine(Get(path), all ? absl::StrCat("default ", value) : value);
  }
  Set(path, stored);
  if (file == "cgroup.subtree_control") {
    const auto children = Children(dir);
    for (const std::string& child : *children) {
      Populate(absl::StrCat(group, "/", child));
    }
  }
  if (file == "cgroup.kill") {
    Set(group + "/cgroup.procs", "");
    Set(group + "/cgroup.events", "populated 0\nfrozen 0\n");
  }
  return absl::OkStatus();
}

}  // namespace caisson::cgroup
