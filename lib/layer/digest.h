// SHA-256 digests as the OCI image specification writes them
// ("sha256:" and 64 lower-case hexadecimal digits), and how they are computed.
//
// A Digest can only hold a well-formed value, so its hex() is safe as a file
// name. Digest is a value; Sha256 is thread-compatible.
#ifndef CAISSON_LIB_LAYER_DIGEST_H_
#define CAISSON_LIB_LAYER_DIGEST_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

struct evp_md_ctx_st;

namespace caisson::layer {

class Digest final {
 public:
  // The digest that `text` spells; `field` says in errors where it was found.
  // Another algorithm than sha256 is UNIMPLEMENTED, anything else that is not
  // a digest INVALID_ARGUMENT (OCI image-spec, descriptor.md "Digests").
  static absl::StatusOr<Digest> Parse(absl::string_view text,
                                      absl::string_view field);
  // The digest of `data`.
  static Digest Of(absl::string_view data);

  // "sha256:<64 hexadecimal digits>".
  const std::string& str() const { return text_; }
  // The digits alone.
  absl::string_view hex() const { return absl::string_view(text_).substr(7); }

  friend bool operator==(const Digest& a, const Digest& b) {
    return a.text_ == b.text_;
  }
  friend bool operator!=(const Digest& a, const Digest& b) { return !(a == b); }
  friend bool operator<(const Digest& a, const Digest& b) {
    return a.text_ < b.text_;
  }

 private:
  friend class Sha256;
  explicit Digest(std::string text) : text_(std::move(text)) {}

  std::string text_;
};

// Whether `text` is 64 lower-case hexadecimal digits.
bool IsSha256Hex(absl::string_view text);

// The chain ID of a layer with `diff_id` above the layers of `parent`, which is
// null for the bottom layer (OCI image-spec, config.md "Layer ChainID").
Digest ChainId(const Digest* parent, const Digest& diff_id);

// A running SHA-256 of a stream.
class Sha256 final {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::Span<const char> data);
  // The digest of everything so far; nothing may be added afterwards.
  Digest Finish();

 private:
  evp_md_ctx_st* context_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_DIGEST_H_
