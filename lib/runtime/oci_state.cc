#include <nlohmann/json.hpp>

#include "absl/time/time.h"
#include "caisson/oci_runtime.h"
#include "lib/spec/documents.h"

namespace caisson {

std::string OciState::ToJson() const {
  nlohmann::ordered_json json = {
      {"ociVersion", spec::kDocumentVersion},
      {"id", id},
      {"pid", pid},
      {"status", std::string(OciStatusName(status))},
      {"bundle", bundle},
      {"rootfs", rootfs},
      {"created",
       absl::FormatTime(absl::RFC3339_full, created, absl::UTCTimeZone())},
      {"annotations", annotations},
      {"owner", owner == 0 ? "" : std::to_string(owner)}};
  return json.dump(2, ' ', /*ensure_ascii=*/false,
                   nlohmann::json::error_handler_t::replace);
}

}  // namespace caisson
