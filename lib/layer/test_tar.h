// A tar writer for tests, which can also write what no sane archiver does. The
// named kinds of entries may have names of any length, unless another extended
// header comes before them.
//
//   std::string tar = TestTar()
//                         .Dir("etc")
//                         .File("etc/motd", "hello\n")
//                         .Pax({{"SCHILY.xattr.user.x", "y"}})
//                         .File("etc/x", "")
//                         .Finish();
#ifndef CAISSON_LIB_LAYER_TEST_TAR_H_
#define CAISSON_LIB_LAYER_TEST_TAR_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace caisson::layer {

// One header block; numbers are octal unless they do not fit.
struct TestTarHeader {
  std::string name;
  char type = '0';
  int64_t mode = 0644;
  int64_t uid = 0;
  int64_t gid = 0;
  int64_t size = 0;
  int64_t mtime = 1'000'000'000;
  std::string linkname;
  int64_t devmajor = 0;
  int64_t devminor = 0;
  std::string prefix;
  std::string magic = std::string("ustar\00000", 8);

  std::string Block() const;
};

// The magic of GNU archives.
std::string GnuMagic();

class TestTar final {
 public:
  using Records = std::vector<std::pair<std::string, std::string>>;

  TestTar& File(absl::string_view name, absl::string_view data = "",
                int64_t mode = 0644);
  TestTar& Dir(absl::string_view name, int64_t mode = 0755);
  TestTar& Symlink(absl::string_view name, absl::string_view target);
  TestTar& Hardlink(absl::string_view name, absl::string_view target);
  TestTar& Device(absl::string_view name, char type, int64_t major,
                  int64_t minor);
  TestTar& Fifo(absl::string_view name);
  // An x header for the next entry.
  TestTar& Pax(const Records& records);
  // An L or K header for the next entry.
  TestTar& Long(char type, absl::string_view text);
  // Any header with any data behind it, padded.
  TestTar& Entry(const TestTarHeader& header, absl::string_view data = "");
  // Bytes as they are.
  TestTar& Raw(absl::string_view bytes);

  // Metadata of the entries after this call.
  TestTar& Owner(int64_t uid, int64_t gid);
  TestTar& Mtime(int64_t mtime);

  // The archive so far, without its end.
  const std::string& bytes() const { return bytes_; }
  // With two zero blocks.
  std::string Finish() const { return bytes_ + std::string(1024, '\0'); }

 private:
  TestTar& EntryOfAnyLength(const TestTarHeader& header,
                            absl::string_view data = "");
  TestTarHeader Defaults(absl::string_view name, char type, int64_t mode) const;

  std::string bytes_;
  int64_t uid_ = 0;
  int64_t gid_ = 0;
  int64_t mtime_ = 1'000'000'000;
};

// The payload of an x header.
std::string PaxPayload(const TestTar::Records& records);

// `header` with `mutate` applied and the checksum made right again.
std::string Rechecksum(std::string block,
                       const std::function<void(std::string&)>& mutate);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TEST_TAR_H_
