#include "lib/launcher/stub/detached.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <linux/fcntl.h>
#include <stddef.h>

#include "lib/launcher/stub/child.h"
#include "lib/launcher/stub/children.h"
#include "lib/launcher/stub/message.h"
#include "lib/launcher/stub/syscall.h"
#include "lib/plan/format.h"

namespace caisson::launcher {
namespace {

Detached g_detached[kMaxDetached];
uint32_t g_detached_count;
int g_directory = -1;

bool Equal(const char* a, const char* b) {
  while (*a != '\0' && *a == *b) ++a, ++b;
  return *a == *b;
}

// One component of a path, which does not begin with a dot.
bool IsName(const char* name) {
  if (name[0] == '\0' || name[0] == '.') return false;
  for (uint32_t i = 0; i < kNameSize; ++i) {
    if (name[i] == '\0') return true;
    if (name[i] == '/') return false;
  }
  return false;
}

// ".<name>.process" as long as it is being written: names do not begin with a
// dot. The rest of it is the final name.
class RecordName final {
 public:
  explicit RecordName(const char* name) {
    text_[0] = '.';
    char* to = text_ + 1;
    while (*name != '\0') *to++ = *name++;
    for (const char* suffix = kRecordSuffix; *suffix != '\0';) {
      *to++ = *suffix++;
    }
    *to = '\0';
  }
  const char* fresh() const { return text_; }
  const char* final() const { return text_ + 1; }

 private:
  char text_[1 + kNameSize + sizeof(kRecordSuffix)];
};

// The text of a record.
class Text final {
 public:
  void Add(const char* text) {
    while (*text != '\0' && size_ < sizeof(text_)) text_[size_++] = *text++;
  }
  void Add(const char* key, uint64_t value) {
    char digits[24];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value > 0);
    Add(key);
    Add(" ");
    while (count > 0 && size_ < sizeof(text_)) text_[size_++] = digits[--count];
    Add("\n");
  }
  // Whole or not at all; `flags` as renameat2(2). 0, or an errno.
  long WriteTo(const RecordName& name, int flags) const {
    const long fd = OpenFresh(name);
    if (fd < 0) return -fd;
    long result = WriteAndClose(fd);
    if (result >= 0) {
      result = Call(__NR_renameat2, g_directory, name.fresh(), g_directory,
                    name.final(), flags);
    }
    if (result < 0) Call(__NR_unlinkat, g_directory, name.fresh(), 0);
    return result < 0 ? -result : 0;
  }
  // Over the record that is there, which is shorter: needs no room on a disk
  // that is full. Who reads half of it takes it for that of a lost process.
  void Overwrite(const RecordName& name) const {
    const long fd = Call(__NR_openat, g_directory, name.final(),
                         O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd >= 0) WriteAndClose(fd);
  }

 private:
  // A file of its own, whatever else somebody put there: nothing that could
  // lead elsewhere or be waited for.
  static long OpenFresh(const RecordName& name) {
    constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    const long fd = Call(__NR_openat, g_directory, name.fresh(), kFlags, 0600);
    if (fd != -EEXIST) return fd;
    Call(__NR_unlinkat, g_directory, name.fresh(), 0);
    return Call(__NR_openat, g_directory, name.fresh(), kFlags, 0600);
  }
  long WriteAndClose(long fd) const {
    const long written = Call(__NR_write, fd, text_, size_);
    Close(static_cast<int>(fd));
    return written < 0 || written == static_cast<long>(size_) ? written
                                                              : -ENOSPC;
  }

  char text_[256];
  unsigned long size_ = 0;
};

constexpr int kNoReplace = 1;  // RENAME_NOREPLACE

constexpr char kHead[] = "caisson-process 1\n";
constexpr char kEnd[] = "end\n";

void CloseKept(Detached& detached) {
  while (detached.kept_count > 0) {
    Close(detached.kept[--detached.kept_count]);
  }
}

// How the child of the init ended, if it left that.
void ReadInitStatus(int plan, Message& exited) {
  plan::Result result;
  if (Call(__NR_pread64, plan, &result, sizeof(result),
           offsetof(plan::Header, result)) ==
          static_cast<long>(sizeof(result)) &&
      result.init_ended != 0) {
    exited.wait_status = result.init_status;
  }
}

}  // namespace

void SetRecordDirectory(int directory) { g_directory = directory; }

void RemoveSocket() {
  if (g_directory >= 0) Call(__NR_unlinkat, g_directory, kSocketName, 0);
}

bool AnyDetached() { return g_detached_count > 0; }

const Detached* FindDetached(const char* name) {
  for (uint32_t i = 0; i < g_detached_count; ++i) {
    if (Equal(g_detached[i].name, name)) return &g_detached[i];
  }
  return nullptr;
}

long BeginDetached(uint64_t serial, const char* name, bool has_init,
                   const int* fds, int count) {
  if (g_directory < 0) return ENOTCONN;
  if (!IsName(name) || count > kMaxKept || count < (has_init ? 2 : 1)) {
    return EINVAL;
  }
  if (FindDetached(name) != nullptr) return EEXIST;
  if (g_detached_count == kMaxDetached) return EAGAIN;
  Detached& detached = g_detached[g_detached_count];
  detached.kept_count = 0;
  for (int i = 0; i < count; ++i) {
    const long kept = Keep(fds[i]);
    if (kept < 0) {
      CloseKept(detached);
      return -kept;
    }
    detached.kept[detached.kept_count++] = static_cast<int>(kept);
  }
  Text record;
  record.Add(kHead);
  record.Add("state running\n");
  record.Add(kEnd);
  const long error = record.WriteTo(RecordName(name), kNoReplace);
  if (error != 0) {
    CloseKept(detached);
    return error;
  }
  detached.serial = serial;
  detached.has_init = has_init;
  memcpy(detached.name, name, kNameSize);
  ++g_detached_count;
  return 0;
}

void EndDetached(uint64_t serial, Message& exited) {
  uint32_t i = 0;
  while (i < g_detached_count && g_detached[i].serial != serial) ++i;
  if (i == g_detached_count) return;
  Detached& detached = g_detached[i];
  if (detached.has_init) ReadInitStatus(detached.kept[1], exited);
  Text record;
  record.Add(kHead);
  record.Add("state ended\n");
  record.Add("wait_status", static_cast<uint32_t>(exited.wait_status));
  record.Add("user_us", exited.user_us);
  record.Add("system_us", exited.system_us);
  record.Add("max_rss_kib", exited.max_rss_kib);
  record.Add(kEnd);
  const RecordName name(detached.name);
  if (record.WriteTo(name, 0) != 0) record.Overwrite(name);
  CloseKept(detached);
  g_detached[i] = g_detached[--g_detached_count];
}

}  // namespace caisson::launcher
