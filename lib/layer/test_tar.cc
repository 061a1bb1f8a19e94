#include "lib/layer/test_tar.h"

#include <stdio.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/layer/tar_header.h"

namespace caisson::layer {
namespace {

void PutText(std::string& block, TarField field, absl::string_view text) {
  block.replace(field.offset, std::min(field.size, text.size()),
                std::string(text.substr(0, field.size)));
}

void PutNumber(std::string& block, TarField field, int64_t value) {
  const bool fits = value >= 0 && value < int64_t{1} << (3 * (field.size - 1));
  if (fits) {
    char text[24];
    ::snprintf(text, sizeof(text), "%0*llo", static_cast<int>(field.size - 1),
               static_cast<unsigned long long>(value));
    PutText(block, field, text);
    return;
  }
  for (size_t i = 0; i < field.size; ++i) {
    const int shift = static_cast<int>(8 * (field.size - 1 - i));
    const int64_t byte = shift < 64 ? value >> shift : value < 0 ? -1 : 0;
    block[field.offset + i] = static_cast<char>(byte);
  }
  block[field.offset] = static_cast<char>(block[field.offset] | 0x80);
}

}  // namespace

std::string Rechecksum(std::string block,
                       const std::function<void(std::string&)>& mutate) {
  mutate(block);
  PutText(block, tar_field::kChecksum, "        ");
  int64_t sum = 0;
  for (const char c : block) sum += static_cast<uint8_t>(c);
  // Six octal digits and a NUL; the sum of 512 bytes always fits.
  const std::string text = absl::StrFormat("%06o", sum) + '\0';
  PutText(block, tar_field::kChecksum, text);
  return block;
}

std::string TestTarHeader::Block() const {
  return Rechecksum(std::string(kTarBlock, '\0'), [this](std::string& block) {
    PutText(block, tar_field::kName, name);
    PutNumber(block, tar_field::kMode, mode);
    PutNumber(block, tar_field::kUid, uid);
    PutNumber(block, tar_field::kGid, gid);
    PutNumber(block, tar_field::kSize, size);
    PutNumber(block, tar_field::kMtime, mtime);
    block[tar_field::kType.offset] = type;
    PutText(block, tar_field::kLinkname, linkname);
    PutText(block, tar_field::kMagic, magic);
    PutNumber(block, tar_field::kDevmajor, devmajor);
    PutNumber(block, tar_field::kDevminor, devminor);
    PutText(block, tar_field::kPrefix, prefix);
  });
}

std::string GnuMagic() { return std::string("ustar  \0", 8); }

std::string PaxPayload(const TestTar::Records& records) {
  std::string payload;
  for (const auto& [key, value] : records) {
    const size_t rest = key.size() + value.size() + 3;
    size_t length = rest + 1;
    while (absl::StrCat(length).size() + rest != length) ++length;
    absl::StrAppend(&payload, length, " ", key, "=", value, "\n");
  }
  return payload;
}

TestTarHeader TestTar::Defaults(absl::string_view name, char type,
                                int64_t mode) const {
  TestTarHeader header;
  header.name = std::string(name);
  header.type = type;
  header.mode = mode;
  header.uid = uid_;
  header.gid = gid_;
  header.mtime = mtime_;
  return header;
}

TestTar& TestTar::Entry(const TestTarHeader& header, absl::string_view data) {
  bytes_ += header.Block();
  bytes_.append(data.data(), data.size());
  bytes_.append(TarPadding(data.size()), '\0');
  return *this;
}

// With an x header for what does not fit into the fields.
TestTar& TestTar::EntryOfAnyLength(const TestTarHeader& header,
                                   absl::string_view data) {
  Records records;
  if (header.name.size() > tar_field::kName.size) {
    records.emplace_back("path", header.name);
  }
  if (header.linkname.size() > tar_field::kLinkname.size) {
    records.emplace_back("linkpath", header.linkname);
  }
  if (!records.empty()) Pax(records);
  return Entry(header, data);
}

TestTar& TestTar::File(absl::string_view name, absl::string_view data,
                       int64_t mode) {
  TestTarHeader header = Defaults(name, '0', mode);
  header.size = static_cast<int64_t>(data.size());
  return EntryOfAnyLength(header, data);
}

TestTar& TestTar::Dir(absl::string_view name, int64_t mode) {
  return EntryOfAnyLength(Defaults(absl::StrCat(name, "/"), '5', mode));
}

TestTar& TestTar::Symlink(absl::string_view name, absl::string_view target) {
  TestTarHeader header = Defaults(name, '2', 0777);
  header.linkname = std::string(target);
  return EntryOfAnyLength(header);
}

TestTar& TestTar::Hardlink(absl::string_view name, absl::string_view target) {
  TestTarHeader header = Defaults(name, '1', 0644);
  header.linkname = std::string(target);
  return EntryOfAnyLength(header);
}

TestTar& TestTar::Device(absl::string_view name, char type, int64_t major,
                         int64_t minor) {
  TestTarHeader header = Defaults(name, type, 0600);
  header.devmajor = major;
  header.devminor = minor;
  return EntryOfAnyLength(header);
}

TestTar& TestTar::Fifo(absl::string_view name) {
  return EntryOfAnyLength(Defaults(name, '6', 0644));
}

TestTar& TestTar::Pax(const Records& records) {
  const std::string payload = PaxPayload(records);
  TestTarHeader header = Defaults("PaxHeaders/0", 'x', 0644);
  header.size = static_cast<int64_t>(payload.size());
  return Entry(header, payload);
}

TestTar& TestTar::Long(char type, absl::string_view text) {
  const std::string payload = absl::StrCat(text, absl::string_view("\0", 1));
  TestTarHeader header = Defaults("././@LongLink", type, 0644);
  header.magic = GnuMagic();
  header.size = static_cast<int64_t>(payload.size());
  return Entry(header, payload);
}

TestTar& TestTar::Raw(absl::string_view bytes) {
  bytes_.append(bytes.data(), bytes.size());
  return *this;
}

TestTar& TestTar::Owner(int64_t uid, int64_t gid) {
  uid_ = uid;
  gid_ = gid;
  return *this;
}

TestTar& TestTar::Mtime(int64_t mtime) {
  mtime_ = mtime;
  return *this;
}

}  // namespace caisson::layer
