#include "lib/sys/conntrack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::sys {
namespace {

// Bits of CTA_FILTER_ORIG_FLAGS, Linux 5.8; net/netfilter/nf_internals.h.
constexpr uint32_t kFilterProtocol = 1 << 3;
constexpr uint32_t kFilterDestinationPort = 1 << 5;

constexpr size_t kDeletionsPerTrain = 256;

// A flow with what its deletion needs: the tuple as the kernel wrote it, and
// the id, so that a newer flow with the same tuple is not hit.
struct Entry {
  ConntrackFlow flow;
  std::string tuple;
  std::string zone;
  std::string id;
};

nlmsghdr* Add(NetlinkTrain& train, uint8_t type, const char* what) {
  nlmsghdr* message = train.Add(
      static_cast<uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | type), 0, what);
  auto* header = static_cast<nfgenmsg*>(
      mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  header->nfgen_family = AF_INET;
  header->version = NFNETLINK_V0;
  return message;
}

void PutFilter(nlmsghdr* message, uint8_t protocol, uint16_t port) {
  nlattr* tuple = mnl_attr_nest_start(message, CTA_TUPLE_ORIG);
  nlattr* proto = mnl_attr_nest_start(message, CTA_TUPLE_PROTO);
  mnl_attr_put_u8(message, CTA_PROTO_NUM, protocol);
  mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(port));
  mnl_attr_nest_end(message, proto);
  mnl_attr_nest_end(message, tuple);
  nlattr* filter = mnl_attr_nest_start(message, CTA_FILTER);
  mnl_attr_put_u32(message, CTA_FILTER_ORIG_FLAGS,
                   kFilterProtocol | kFilterDestinationPort);
  mnl_attr_put_u32(message, CTA_FILTER_REPLY_FLAGS, 0);
  mnl_attr_nest_end(message, filter);
}

template <typename T>
void CopyExact(const nlattr& attribute, T* value) {
  const absl::string_view bytes = AttributeBytes(attribute);
  if (bytes.size() == sizeof(T)) ::memcpy(value, bytes.data(), sizeof(T));
}

struct Tuple {
  in_addr source = {};
  in_addr destination = {};
  uint8_t protocol = 0;
  uint16_t destination_port = 0;
};

Tuple ParseTuple(const nlattr& nest) {
  Tuple tuple;
  ForEachNested(nest, [&tuple](const nlattr& part) {
    ForEachNested(part, [&](const nlattr& field) {
      const int type = AttributeType(field);
      if (AttributeType(part) == CTA_TUPLE_IP) {
        if (type == CTA_IP_V4_SRC) CopyExact(field, &tuple.source);
        if (type == CTA_IP_V4_DST) CopyExact(field, &tuple.destination);
      } else if (AttributeType(part) == CTA_TUPLE_PROTO) {
        if (type == CTA_PROTO_NUM) CopyExact(field, &tuple.protocol);
        if (type == CTA_PROTO_DST_PORT) {
          CopyExact(field, &tuple.destination_port);
          tuple.destination_port = ntohs(tuple.destination_port);
        }
      }
    });
  });
  return tuple;
}

// nullopt for a row that is not a flow of `protocol` to `port`: the kernel's
// filter is an economy, not the decision.
std::optional<Entry> ParseEntry(const nlmsghdr& row, uint8_t protocol,
                                uint16_t port) {
  Entry entry;
  Tuple original;
  ForEachAttribute(row, sizeof(nfgenmsg), [&](const nlattr& attribute) {
    switch (AttributeType(attribute)) {
      case CTA_TUPLE_ORIG:
        original = ParseTuple(attribute);
        entry.tuple = std::string(AttributeBytes(attribute));
        break;
      case CTA_TUPLE_REPLY:
        entry.flow.answers_from = ParseTuple(attribute).source;
        break;
      case CTA_ZONE:
        entry.zone = std::string(AttributeBytes(attribute));
        break;
      case CTA_ID:
        entry.id = std::string(AttributeBytes(attribute));
        break;
    }
  });
  if (original.protocol != protocol || original.destination_port != port) {
    return std::nullopt;
  }
  entry.flow.destination = original.destination;
  entry.flow.destination_port = original.destination_port;
  return entry;
}

void PutDeletion(NetlinkTrain& train, const Entry& entry) {
  nlmsghdr* message = Add(train, IPCTNL_MSG_CT_DELETE, "CT_DELETE(flow)");
  mnl_attr_put(message, CTA_TUPLE_ORIG | NLA_F_NESTED, entry.tuple.size(),
               entry.tuple.data());
  if (!entry.zone.empty()) {
    mnl_attr_put(message, CTA_ZONE, entry.zone.size(), entry.zone.data());
  }
  mnl_attr_put(message, CTA_ID, entry.id.size(), entry.id.data());
  train.Tolerate(ENOENT);
}

absl::Status Explain(const absl::Status& status) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (!detail.has_value() || detail->error != EINVAL) return status;
  return ErrnoError(EINVAL, "CT_GET(dump)",
                    {.step = "conntrack",
                     .hint = "the kernel needs CONFIG_NF_CT_NETLINK (module "
                             "nf_conntrack_netlink), Linux 5.8 or later"});
}

}  // namespace

absl::Status DeleteConntrackFlows(
    NetlinkSocket& socket, uint8_t protocol, uint16_t destination_port,
    absl::FunctionRef<bool(const ConntrackFlow&)> stale) {
  NetlinkTrain request;
  PutFilter(Add(request, IPCTNL_MSG_CT_GET, "CT_GET(dump)"), protocol,
            destination_port);
  std::vector<Entry> entries;
  const absl::Status dumped = socket.Dump(request, [&](const nlmsghdr& row) {
    std::optional<Entry> entry = ParseEntry(row, protocol, destination_port);
    if (entry.has_value() && stale(entry->flow)) {
      entries.push_back(*std::move(entry));
    }
  });
  RETURN_IF_ERROR(Explain(dumped));
  for (size_t i = 0; i < entries.size(); i += kDeletionsPerTrain) {
    NetlinkTrain train;
    for (size_t j = i; j < entries.size() && j < i + kDeletionsPerTrain; ++j) {
      PutDeletion(train, entries[j]);
    }
    RETURN_IF_ERROR(socket.Run(train));
  }
  return absl::OkStatus();
}

}  // namespace caisson::sys
