// What a host leaves of an endpoint for those who attach to it: the first of
// its lifelines, a sealed memfd with a record (doc/network-state.md).
#ifndef CAISSON_LIB_NET_ENDPOINT_NOTE_H_
#define CAISSON_LIB_NET_ENDPOINT_NOTE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/net_endpoint.h"

namespace caisson {

struct EndpointNote {
  std::string network;
  std::string bridge;  // unique to this life of the network
  std::string mac;
  std::string interface_name;
  std::vector<PortMapping> ports;
};

std::string WriteEndpointNote(const EndpointNote& note);
// DATA_LOSS if `text` is none.
absl::StatusOr<EndpointNote> ReadEndpointNote(absl::string_view text);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_ENDPOINT_NOTE_H_
