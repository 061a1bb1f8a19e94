#include "lib/container/refusal.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_replace.h"

namespace caisson::container {

absl::Status InTermsOf(const FieldNames& names, const absl::Status& status) {
  if (status.ok()) return status;
  std::string text(status.message());
  for (const auto& [ours, theirs] : names) {
    text = absl::StrReplaceAll(text,
                               {{ours, absl::StrCat("config.json: ", theirs)}});
  }
  absl::Status renamed(status.code(), text);
  status.ForEachPayload(
      [&renamed](absl::string_view type, const absl::Cord& payload) {
        renamed.SetPayload(type, payload);
      });
  return renamed;
}

}  // namespace caisson::container
