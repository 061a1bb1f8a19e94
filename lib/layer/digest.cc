#include "lib/layer/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson::layer {
namespace {

constexpr char kPrefix[] = "sha256:";

}  // namespace

bool IsSha256Hex(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

absl::StatusOr<Digest> Digest::Parse(absl::string_view text,
                                     absl::string_view field) {
  if (absl::StartsWith(text, kPrefix) && IsSha256Hex(text.substr(7))) {
    return Digest(std::string(text));
  }
  const std::string shown = Quoted(text.substr(0, 160));
  if (absl::StartsWith(text, "sha512:") || absl::StartsWith(text, "blake3:")) {
    return absl::UnimplementedError(
        absl::StrCat(field, ": ", shown, ": only sha256 digests are read"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", shown,
                   " is not a digest; expected \"sha256:\" and 64 lower-case "
                   "hexadecimal digits"));
}

Digest Digest::Of(absl::string_view data) {
  Sha256 hash;
  hash.Update(data);
  return hash.Finish();
}

Digest ChainId(const Digest* parent, const Digest& diff_id) {
  if (parent == nullptr) return diff_id;
  return Digest::Of(absl::StrCat(parent->str(), " ", diff_id.str()));
}

// SHA-256 of libcrypto's default provider fails for want of memory only, which
// ends the program elsewhere too.
Sha256::Sha256() : context_(::EVP_MD_CTX_new()) {
  if (context_ == nullptr ||
      ::EVP_DigestInit_ex(context_, ::EVP_sha256(), nullptr) != 1) {
    std::abort();
  }
}

Sha256::~Sha256() { ::EVP_MD_CTX_free(context_); }

void Sha256::Update(absl::Span<const char> data) {
  if (::EVP_DigestUpdate(context_, data.data(), data.size()) != 1) {
    std::abort();
  }
}

Digest Sha256::Finish() {
  unsigned char value[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (::EVP_DigestFinal_ex(context_, value, &size) != 1 || size != 32) {
    std::abort();
  }
  return Digest(
      absl::StrCat(kPrefix, absl::BytesToHexString(absl::string_view(
                                reinterpret_cast<const char*>(value), size))));
}

}  // namespace caisson::layer
