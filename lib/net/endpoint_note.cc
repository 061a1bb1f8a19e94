#include "lib/net/endpoint_note.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

constexpr char kType[] = "caisson-endpoint";
constexpr char kTcp[] = "tcp";

absl::StatusOr<uint16_t> ParsePort(absl::string_view text) {
  uint32_t port = 0;
  if (absl::SimpleAtoi(text, &port) && port > 0 && port <= 65535) {
    return static_cast<uint16_t>(port);
  }
  return absl::DataLossError(absl::StrCat("port ", Quoted(text)));
}

// "tcp 8080 80 127.0.0.1", without an address for all of them.
absl::StatusOr<PortMapping> ParseMapping(absl::string_view value) {
  const std::vector<std::string> words = absl::StrSplit(value, ' ');
  if (words.size() != 4) {
    return absl::DataLossError(absl::StrCat("port ", Quoted(value)));
  }
  PortMapping mapping;
  mapping.protocol = words[0] == kTcp ? PortMapping::Protocol::kTcp
                                      : PortMapping::Protocol::kUdp;
  ASSIGN_OR_RETURN(mapping.host_port, ParsePort(words[1]));
  ASSIGN_OR_RETURN(mapping.container_port, ParsePort(words[2]));
  mapping.host_address = words[3];
  return mapping;
}

}  // namespace

std::string WriteEndpointNote(const EndpointNote& note) {
  Record record(kType);
  record.Add("network", note.network);
  record.Add("bridge", note.bridge);
  record.Add("mac", note.mac);
  record.Add("interface", note.interface_name);
  for (const PortMapping& port : note.ports) {
    const bool tcp = port.protocol == PortMapping::Protocol::kTcp;
    record.Add("port",
               absl::StrCat(tcp ? kTcp : "udp", " ", port.host_port, " ",
                            port.container_port, " ", port.host_address));
  }
  return record.ToString();
}

absl::StatusOr<EndpointNote> ReadEndpointNote(absl::string_view text) {
  ASSIGN_OR_RETURN(const Record record, Record::Parse(kType, text));
  EndpointNote note;
  ASSIGN_OR_RETURN(note.network, record.Get("network"));
  ASSIGN_OR_RETURN(note.bridge, record.Get("bridge"));
  ASSIGN_OR_RETURN(note.mac, record.Get("mac"));
  ASSIGN_OR_RETURN(note.interface_name, record.Get("interface"));
  for (const std::string& value : record.GetAll("port")) {
    ASSIGN_OR_RETURN(PortMapping mapping, ParseMapping(value));
    note.ports.push_back(std::move(mapping));
  }
  return note;
}

}  // namespace caisson
