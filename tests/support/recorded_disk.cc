#include "tests/support/recorded_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::testing {
namespace {

constexpr size_t kBlock = 4096;
constexpr uint32_t kMaxWrite = 1 << 20;
// Nodes of the file system.
constexpr uint64_t kDisk = FUSE_ROOT_ID + 1;
constexpr uint64_t kMarks = FUSE_ROOT_ID + 2;

absl::Status Failed(absl::string_view what) {
  return ErrnoError(errno, what, {.step = "recorded_disk"});
}

absl::StatusOr<UniqueFd> NewMemory(const char* name, uint64_t size) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd.valid() || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) {
    return Failed(absl::StrCat("memfd_create(", name, ")"));
  }
  return fd;
}

absl::StatusOr<uint64_t> SizeOf(BorrowedFd fd) {
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0) return Failed("fstat()");
  return static_cast<uint64_t>(status.st_size);
}

// ---- the process that answers the kernel ----------------------------------

// How an event stands in the log; its data follows.
struct LogHeader {
  uint64_t kind;
  uint64_t offset;
  uint64_t size;
};

// Serves one FUSE connection, alone and in order: what it has answered it has
// also logged. It may not touch anything on the disk that it serves.
class Server final {
 public:
  Server(int fuse, int disk, int log, uint64_t size)
      : fuse_(fuse), disk_(disk), log_(log), size_(size) {}

  // Returns when the file system is gone.
  void Run() {
    // Not by new: the sizes are the kernel's business.
    char* buffer = static_cast<char*>(::malloc(kMaxWrite + kBlock));
    for (;;) {
      const ssize_t n = ::read(fuse_, buffer, kMaxWrite + kBlock);
      if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) {
        continue;
      }
      if (n < static_cast<ssize_t>(sizeof(fuse_in_header))) break;
      Handle(buffer);
    }
    ::free(buffer);
  }

 private:
  template <typename T>
  static T As(const char* bytes) {
    T value;
    ::memcpy(&value, bytes, sizeof(value));
    return value;
  }

  void Handle(const char* request) {
    const auto in = As<fuse_in_header>(request);
    const char* body = request + sizeof(in);
    switch (in.opcode) {
      case FUSE_INIT:
        return Init(in, As<fuse_init_in>(body));
      case FUSE_LOOKUP:
        return LookUp(in, body);
      case FUSE_GETATTR: {
        const fuse_attr_out out = {.attr = Attributes(in.nodeid)};
        return Reply(in, &out, sizeof(out));
      }
      case FUSE_OPEN: {
        // Each write of a mark is to arrive as one.
        const fuse_open_out out = {
            .fh = in.nodeid,
            .open_flags = in.nodeid == kMarks ? FOPEN_DIRECT_IO : 0U};
        return Reply(in, &out, sizeof(out));
      }
      case FUSE_READ:
        return Read(in, As<fuse_read_in>(body));
      case FUSE_WRITE:
        return Write(in, As<fuse_write_in>(body), body + sizeof(fuse_write_in));
      case FUSE_FALLOCATE:
        return Allocate(in, As<fuse_fallocate_in>(body));
      case FUSE_FSYNC:
        if (in.nodeid == kDisk) Log({DiskEvent::kFlush, 0, 0}, nullptr);
        return Reply(in, nullptr, 0);
      case FUSE_FLUSH:
      case FUSE_RELEASE:
        return Reply(in, nullptr, 0);
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return;  // no answer is expected
      default:
        return Refuse(in, ENOSYS);
    }
  }

  void Init(const fuse_in_header& in, const fuse_init_in& asked) {
    fuse_init_out out = {};
    out.major = FUSE_KERNEL_VERSION;
    out.minor = std::min<uint32_t>(asked.minor, 31);
    out.max_readahead = asked.max_readahead;
    out.flags = asked.flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES);
    out.max_background = 12;
    out.congestion_threshold = 9;
    out.max_write = kMaxWrite;
    out.time_gran = 1;
    out.max_pages = kMaxWrite / kBlock;
    Reply(in, &out, sizeof(out));
  }

  void LookUp(const fuse_in_header& in, const char* name) {
    const uint64_t node = ::strcmp(name, "disk") == 0    ? kDisk
                          : ::strcmp(name, "marks") == 0 ? kMarks
                                                         : 0;
    if (node == 0) return Refuse(in, ENOENT);
    const fuse_entry_out out = {
        .nodeid = node, .entry_valid = 1000, .attr = Attributes(node)};
    Reply(in, &out, sizeof(out));
  }

  fuse_attr Attributes(uint64_t node) const {
    fuse_attr attr = {};
    attr.ino = node;
    attr.size = node == kDisk ? size_ : 0;
    attr.blocks = attr.size / 512;
    attr.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0700U : S_IFREG | 0600U;
    attr.nlink = 1;
    attr.blksize = kBlock;
    return attr;
  }

  void Read(const fuse_in_header& in, const fuse_read_in& what) {
    char* data = static_cast<char*>(::malloc(what.size));
    const ssize_t n =
        ::pread(disk_, data, what.size, static_cast<off_t>(what.offset));
    if (n >= 0) {
      Reply(in, data, static_cast<size_t>(n));
    } else {
      Refuse(in, errno);
    }
    ::free(data);
  }

  void Write(const fuse_in_header& in, const fuse_write_in& what,
             const char* data) {
    if (in.nodeid == kDisk) {
      if (::pwrite(disk_, data, what.size, static_cast<off_t>(what.offset)) !=
          static_cast<ssize_t>(what.size)) {
        return Refuse(in, EIO);
      }
    }
    Log({in.nodeid == kDisk ? DiskEvent::kWrite : DiskEvent::kMark, what.offset,
         what.size},
        data);
    const fuse_write_out out = {.size = what.size};
    Reply(in, &out, sizeof(out));
  }

  // A discard, or a write of zeros.
  void Allocate(const fuse_in_header& in, const fuse_fallocate_in& what) {
    if (in.nodeid != kDisk || (what.mode & FALLOC_FL_KEEP_SIZE) == 0 ||
        ::fallocate(disk_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(what.offset),
                    static_cast<off_t>(what.length)) != 0) {
      return Refuse(in, EOPNOTSUPP);
    }
    Log({DiskEvent::kZero, what.offset, what.length}, nullptr);
    Reply(in, nullptr, 0);
  }

  void Log(const LogHeader& header, const char* data) {
    const size_t size = data != nullptr ? header.size : 0;
    iovec parts[2] = {{const_cast<LogHeader*>(&header), sizeof(header)},
                      {const_cast<char*>(data), size}};
    if (::writev(log_, parts, 2) !=
        static_cast<ssize_t>(sizeof(header) + size)) {
      ::_exit(1);  // the connection ends, and with it the test
    }
  }

  void Reply(const fuse_in_header& in, const void* data, size_t size) {
    Answer({.len = 0, .error = 0, .unique = in.unique}, data, size);
  }
  void Refuse(const fuse_in_header& in, int error) {
    Answer({.len = 0, .error = -error, .unique = in.unique}, nullptr, 0);
  }
  void Answer(fuse_out_header out, const void* data, size_t size) {
    out.len = static_cast<uint32_t>(sizeof(out) + size);
    iovec parts[2] = {{&out, sizeof(out)}, {const_cast<void*>(data), size}};
    // ENOENT: who asked has been killed.
    static_cast<void>(!::writev(fuse_, parts, size > 0 ? 2 : 1));
  }

  const int fuse_;
  const int disk_;
  const int log_;
  const uint64_t size_;
};

// The root of a detached mount that the process behind `fuse` serves.
absl::StatusOr<UniqueFd> MountFuse(BorrowedFd fuse) {
  UniqueFd context(::fsopen("fuse", FSOPEN_CLOEXEC));
  if (!context.valid()) return Failed("fsopen(fuse)");
  const std::pair<const char*, std::string> options[] = {
      {"fd", absl::StrCat(fuse.get())},
      {"rootmode", "40700"},
      {"user_id", "0"},
      {"group_id", "0"}};
  for (const auto& [key, value] : options) {
    if (::fsconfig(context.get(), FSCONFIG_SET_STRING, key, value.c_str(), 0) !=
        0) {
      return Failed(absl::StrCat("fsconfig(fuse, ", key, ")"));
    }
  }
  if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) !=
      0) {
    return Failed("fsconfig(fuse, CMD_CREATE)");
  }
  UniqueFd root(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  if (!root.valid()) return Failed("fsmount(fuse)");
  return root;
}

}  // namespace

// ---- disks ----------------------------------------------------------------

absl::StatusOr<LoopDevice> AttachLoop(BorrowedFd file, uint32_t block_size) {
  const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control.valid()) return Failed("open(/dev/loop-control)");
  loop_config config = {};
  config.fd = static_cast<uint32_t>(file.get());
  config.block_size = block_size;
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
  for (int attempt = 0; attempt < 100; ++attempt) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return Failed("ioctl(LOOP_CTL_GET_FREE)");
    LoopDevice loop{.path = absl::StrCat("/dev/loop", number)};
    loop.fd.reset(::open(loop.path.c_str(), O_RDWR | O_CLOEXEC));
    if (!loop.fd.valid()) return Failed(absl::StrCat("open(", loop.path, ")"));
    if (::ioctl(loop.fd.get(), LOOP_CONFIGURE, &config) == 0) return loop;
    // Somebody else was faster.
    if (errno != EBUSY) return Failed("ioctl(LOOP_CONFIGURE)");
  }
  return absl::UnavailableError("others take every free loop device");
}

absl::StatusOr<UniqueFd> CopyDisk(BorrowedFd disk) {
  ASSIGN_OR_RETURN(const uint64_t size, SizeOf(disk));
  ASSIGN_OR_RETURN(UniqueFd copy, NewMemory("disk", size));
  std::string buffer(size_t{1} << 20, '\0');
  const std::string zeros(size_t{32} << 10, '\0');
  const off_t end = static_cast<off_t>(size);
  for (off_t at = 0; at < end;) {
    at = ::lseek(disk.get(), at, SEEK_DATA);
    if (at < 0 && errno == ENXIO) break;
    const off_t hole = at < 0 ? -1 : ::lseek(disk.get(), at, SEEK_HOLE);
    if (hole < 0) return Failed("lseek(SEEK_DATA)");
    while (at < hole) {
      const size_t want =
          std::min(buffer.size(), static_cast<size_t>(hole - at));
      if (::pread(disk.get(), buffer.data(), want, at) !=
          static_cast<ssize_t>(want)) {
        return Failed("pread(disk)");
      }
      // What mkfs has zeroed, such as a journal, is nothing to copy.
      for (size_t i = 0; i < want; i += zeros.size()) {
        const size_t n = std::min(zeros.size(), want - i);
        if (::memcmp(buffer.data() + i, zeros.data(), n) == 0) continue;
        if (::pwrite(copy.get(), buffer.data() + i, n,
                     at + static_cast<off_t>(i)) != static_cast<ssize_t>(n)) {
          return Failed("pwrite(disk)");
        }
      }
      at += static_cast<off_t>(want);
    }
  }
  return copy;
}

absl::StatusOr<UniqueFd> MakeDisk(const std::string& mkfs, uint64_t size) {
  ASSIGN_OR_RETURN(const UniqueFd disk, NewMemory("mkfs", size));
  // By the path of this process: the shell's own would be another file.
  const std::string command =
      absl::StrCat(mkfs, " /proc/", ::getpid(), "/fd/", disk.get());
  if (::system(command.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat(command, ": failed"));
  }
  return CopyDisk(disk.borrow());
}

absl::Status Apply(const DiskEvent& event, BorrowedFd disk, uint64_t begin,
                   uint64_t end) {
  const off_t at = static_cast<off_t>(event.offset + begin);
  if (event.kind == DiskEvent::kZero) {
    if (::fallocate(disk.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                    static_cast<off_t>(end - begin)) == 0) {
      return absl::OkStatus();
    }
    return Failed("fallocate(disk)");
  }
  if (event.kind != DiskEvent::kWrite) return absl::OkStatus();
  if (::pwrite(disk.get(), event.data.data() + begin, end - begin, at) ==
      static_cast<ssize_t>(end - begin)) {
    return absl::OkStatus();
  }
  return Failed("pwrite(disk)");
}

// ---- recorded -------------------------------------------------------------

absl::StatusOr<std::unique_ptr<RecordedDisk>> RecordedDisk::Create(
    BorrowedFd disk, uint32_t block_size) {
  std::unique_ptr<RecordedDisk> made(new RecordedDisk);
  ASSIGN_OR_RETURN(const uint64_t size, SizeOf(disk));
  ASSIGN_OR_RETURN(const UniqueFd content, CopyDisk(disk));
  ASSIGN_OR_RETURN(made->log_, NewMemory("log", 0));
  UniqueFd fuse(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fuse.valid()) return Failed("open(/dev/fuse)");
  ASSIGN_OR_RETURN(const UniqueFd root, MountFuse(fuse.borrow()));
  const pid_t parent = ::getpid();
  made->server_ = ::fork();
  if (made->server_ < 0) return Failed("fork()");
  if (made->server_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    Server(fuse.get(), content.get(), made->log_.get(), size).Run();
    ::_exit(0);
  }
  // The server's alone: with it the connection ends.
  fuse.reset();
  made->marks_.reset(::openat(root.get(), "marks", O_WRONLY | O_CLOEXEC));
  const UniqueFd file(::openat(root.get(), "disk", O_RDWR | O_CLOEXEC));
  if (!made->marks_.valid() || !file.valid()) return Failed("openat(fuse)");
  ASSIGN_OR_RETURN(made->loop_, AttachLoop(file.borrow(), block_size));
  return made;
}

absl::Status RecordedDisk::Mark(absl::string_view text) {
  if (::write(marks_.get(), text.data(), text.size()) ==
      static_cast<ssize_t>(text.size())) {
    return absl::OkStatus();
  }
  return Failed("write(marks)");
}

void RecordedDisk::StopServer() {
  marks_.reset();
  loop_.fd.reset();
  if (server_ > 0) {
    ::kill(server_, SIGKILL);
    ::waitpid(server_, nullptr, 0);
  }
  server_ = -1;
}

RecordedDisk::~RecordedDisk() { StopServer(); }

absl::StatusOr<std::vector<DiskEvent>> RecordedDisk::Finish() {
  StopServer();
  std::vector<DiskEvent> events;
  for (off_t at = 0;;) {
    LogHeader header = {};
    const ssize_t n = ::pread(log_.get(), &header, sizeof(header), at);
    if (n == 0) return events;
    if (n != sizeof(header)) return Failed("pread(log)");
    at += n;
    DiskEvent event{.kind = static_cast<DiskEvent::Kind>(header.kind),
                    .offset = header.offset,
                    .size = header.size};
    if (event.kind == DiskEvent::kWrite || event.kind == DiskEvent::kMark) {
      event.data.resize(header.size);
      if (::pread(log_.get(), event.data.data(), header.size, at) !=
          static_cast<ssize_t>(header.size)) {
        return Failed("pread(log)");
      }
      at += static_cast<off_t>(header.size);
    }
    events.push_back(std::move(event));
  }
}

}  // namespace caisson::testing
