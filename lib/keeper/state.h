// What a container's records say together. Functions only: thread-safe.
#ifndef CAISSON_LIB_KEEPER_STATE_H_
#define CAISSON_LIB_KEEPER_STATE_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "caisson/container.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

// A container as it is now.
struct Observed {
  ContainerRecord record;
  StateRecord state;
  bool has_keeper = false;
  // The keeper of a run that goes on according to `state` is gone; `state` says
  // so by now.
  bool lost = false;
};
absl::StatusOr<Observed> Observe(const ContainerDirectory& directory);

absl::StatusOr<ContainerInfo> InfoOf(const Observed& observed);

// `record` with what an update changes. INVALID_ARGUMENT names the field.
absl::StatusOr<ContainerRecord> UpdatedRecord(const ContainerRecord& record,
                                              const Request::Update& update);

ContainerEvent EventOf(const ContainerRecord& record, const std::string& action,
                       std::map<std::string, std::string> attributes = {});
// Appends an event of the container; what cannot be written is lost.
void TellOf(const StoreDirectory& store, const ContainerRecord& record,
            const std::string& action,
            std::map<std::string, std::string> attributes = {});

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_STATE_H_
