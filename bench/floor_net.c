/* The floor's network: what NetEndpoint sends to the kernel, in the fewest
 * messages that say it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_bridge.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/floor.h"

#define MTU 1500
#define LOOPBACK 1 /* the index of `lo` in every namespace */
#define PEER 2     /* and that of the first other interface in a new one */
/* Indices that the kernel does not give to anybody by itself. */
#define FIRST_INDEX 1000000000
#define PORTS 4095     /* of them for the ports, one more for the bridge */
#define MAX_LEARNED 49 /* IFLA_BR_FDB_MAX_LEARNED, Linux 6.8 */
/* 198.18.0.0/15 is for benchmarks (RFC 2544). */
#define NETWORK 0xc6120000u

static int host_ns, route, state_dir, network_dir, leases, names, lock;
static char state_name[64], bridge[IFNAMSIZ];
static char boot_id[37];
static int bridge_index;
static uint32_t gateway;
static unsigned char bridge_mac[6];

/* The endpoint of this round. */
static unsigned round_number;
static int netns, lease, port;
static uint32_t address;
static char address_text[INET_ADDRSTRLEN];

/* ---- Messages ---- */

static struct {
  _Alignas(4) char data[1024];
  size_t size;
  struct nlmsghdr* last;
} batch;

static void Put(uint16_t type, const void* data, size_t size) {
  struct rtattr* attribute = (struct rtattr*)(batch.data + batch.size);
  attribute->rta_type = type;
  attribute->rta_len = (unsigned short)RTA_LENGTH(size);
  memcpy(RTA_DATA(attribute), data, size);
  batch.size += RTA_SPACE(size);
  batch.last->nlmsg_len =
      (uint32_t)(batch.data + batch.size - (const char*)batch.last);
}

static void PutU32(uint16_t type, uint32_t value) { Put(type, &value, 4); }

static void PutName(uint16_t type, const char* name) {
  Put(type, name, strlen(name) + 1);
}

static struct rtattr* Nest(uint16_t type) {
  struct rtattr* nest = (struct rtattr*)(batch.data + batch.size);
  Put(type | NLA_F_NESTED, "", 0);
  return nest;
}

static void EndNest(struct rtattr* nest) {
  nest->rta_len = (unsigned short)(batch.data + batch.size - (char*)nest);
}

static void* PutHeader(size_t size) {
  void* header = memset(batch.data + batch.size, 0, size);
  batch.size += NLMSG_ALIGN(size);
  batch.last->nlmsg_len =
      (uint32_t)(batch.data + batch.size - (const char*)batch.last);
  return header;
}

static void Message(uint16_t type, uint16_t flags) {
  batch.last = (struct nlmsghdr*)(batch.data + batch.size);
  *batch.last = (struct nlmsghdr){.nlmsg_len = NLMSG_HDRLEN,
                                  .nlmsg_type = type,
                                  .nlmsg_flags = flags | NLM_F_REQUEST};
  batch.size += NLMSG_HDRLEN;
}

static struct ifinfomsg* LinkMessage(uint16_t type, uint16_t flags, int index) {
  Message(type, flags);
  struct ifinfomsg* link = PutHeader(sizeof(struct ifinfomsg));
  link->ifi_index = index;
  return link;
}

/* Without an IPv6 address. */
static void PutUp(int index) {
  LinkMessage(RTM_SETLINK, 0, index);
  struct rtattr* family = Nest(IFLA_AF_SPEC);
  struct rtattr* inet6 = Nest(AF_INET6);
  Put(IFLA_INET6_ADDR_GEN_MODE, &(uint8_t){IN6_ADDR_GEN_MODE_NONE}, 1);
  EndNest(inet6);
  EndNest(family);
  struct ifinfomsg* link = LinkMessage(RTM_SETLINK, 0, index);
  link->ifi_flags = link->ifi_change = IFF_UP;
}

static void PutNeighbour(uint16_t type, int index, uint32_t neighbour,
                         const unsigned char* mac) {
  Message(type, type == RTM_NEWNEIGH ? NLM_F_CREATE | NLM_F_REPLACE : 0);
  struct ndmsg* header = PutHeader(sizeof(struct ndmsg));
  header->ndm_family = AF_INET;
  header->ndm_ifindex = index;
  PutU32(NDA_DST, neighbour);
  if (type == RTM_DELNEIGH) return;
  header->ndm_state = NUD_REACHABLE;
  Put(NDA_LLADDR, mac, 6);
}

static void PutAddress(int index, uint32_t local) {
  Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  struct ifaddrmsg* header = PutHeader(sizeof(struct ifaddrmsg));
  header->ifa_family = AF_INET;
  header->ifa_prefixlen = 24;
  header->ifa_index = (uint32_t)index;
  PutU32(IFA_LOCAL, local);
  PutU32(IFA_ADDRESS, local);
  PutU32(IFA_BROADCAST, local | htonl(0xff));
}

static void PutDefaultRoute(int index) {
  Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  struct rtmsg* header = PutHeader(sizeof(struct rtmsg));
  header->rtm_family = AF_INET;
  header->rtm_table = RT_TABLE_MAIN;
  header->rtm_protocol = RTPROT_STATIC;
  header->rtm_scope = RT_SCOPE_UNIVERSE;
  header->rtm_type = RTN_UNICAST;
  PutU32(RTA_GATEWAY, gateway);
  PutU32(RTA_OIF, (uint32_t)index);
}

static char answer[32768];

/* Sends the batch and waits for the kernel's word on the last message; it
 * answers an earlier one only if that fails. Its errno. */
static int Exchange(int socket) {
  batch.last->nlmsg_flags |= NLM_F_ACK;
  MUST(send(socket, batch.data, batch.size, 0));
  batch.size = 0;
  const struct nlmsghdr* reply = (const struct nlmsghdr*)answer;
  MUST(recv(socket, answer, sizeof(answer), 0));
  const struct nlmsgerr* error = NLMSG_DATA(reply);
  return reply->nlmsg_type == NLMSG_ERROR ? -error->error : EPROTO;
}

static void Send(int socket) {
  errno = Exchange(socket);
  Must(errno == 0 ? 0 : -1, "netlink");
}

/* Whether the kernel's link watch has seen that the link has a carrier. */
static bool IsOperational(int index) {
  LinkMessage(RTM_GETLINK, 0, index);
  MUST(send(route, batch.data, batch.size, 0));
  batch.size = 0;
  const struct nlmsghdr* reply = (const struct nlmsghdr*)answer;
  MUST(recv(route, answer, sizeof(answer), 0));
  MUST(reply->nlmsg_type == RTM_NEWLINK ? 0 : -1);
  struct rtattr* attribute =
      (struct rtattr*)(answer + NLMSG_SPACE(sizeof(struct ifinfomsg)));
  int rest = (int)(reply->nlmsg_len - NLMSG_SPACE(sizeof(struct ifinfomsg)));
  for (; RTA_OK(attribute, rest); attribute = RTA_NEXT(attribute, rest)) {
    if (attribute->rta_type != IFLA_OPERSTATE) continue;
    return *(const uint8_t*)RTA_DATA(attribute) == IF_OPER_UP;
  }
  return false;
}

/* A port drops packets until then. */
static void AwaitOperational(void) {
  if (IsOperational(port) && IsOperational(bridge_index)) return;
  const int monitor =
      (int)MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  struct sockaddr_nl links = {.nl_family = AF_NETLINK,
                              .nl_groups = RTMGRP_LINK};
  MUST(bind(monitor, (struct sockaddr*)&links, sizeof(links)));
  while (!IsOperational(port) || !IsOperational(bridge_index)) {
    MUST(recv(monitor, answer, sizeof(answer), 0));
  }
  close(monitor);
}

/* ---- The network ---- */

static void WriteSysctl(const char* name, const char* value) {
  char path[128];
  snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
  WriteAt(AT_FDCWD, path, O_WRONLY, value, strlen(value));
}

static void MakeBridge(void) {
  LinkMessage(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, bridge_index);
  PutName(IFLA_IFNAME, bridge);
  PutU32(IFLA_MTU, MTU);
  Put(IFLA_ADDRESS, bridge_mac, 6);
  struct rtattr* info = Nest(IFLA_LINKINFO);
  PutName(IFLA_INFO_KIND, "bridge");
  struct rtattr* data = Nest(IFLA_INFO_DATA);
  PutU32(IFLA_BR_FORWARD_DELAY, 0);
  PutU32(MAX_LEARNED, 16384);
  EndNest(data);
  EndNest(info);
  Send(route);
  char name[64];
  snprintf(name, sizeof(name), "ipv6/conf/%s/disable_ipv6", bridge);
  WriteSysctl(name, "1");
  snprintf(name, sizeof(name), "ipv4/conf/%s/forwarding", bridge);
  WriteSysctl(name, "1");
  PutAddress(bridge_index, gateway);
  PutUp(bridge_index);
  Send(route);
}

static int MakeDirectory(int parent, const char* name) {
  MUST(mkdirat(parent, name, 0700));
  return (int)MUST(openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

void OpenNetwork(void) {
  const unsigned pid = (unsigned)getpid();
  const int boot =
      (int)MUST(open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  MUST(read(boot, boot_id, 36));
  close(boot);
  host_ns = (int)MUST(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  route = (int)MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  snprintf(bridge, sizeof(bridge), "cf%06x", pid);
  bridge_index = FIRST_INDEX + (int)(pid % 65536 * (PORTS + 1)) + PORTS;
  gateway = htonl((NETWORK + ((pid & 0x1ff) << 8)) | 1);
  memcpy(bridge_mac, (unsigned char[6]){2, 0xcf, 0, 0, 0, 0}, 6);
  memcpy(bridge_mac + 2, &pid, 4);

  snprintf(state_name, sizeof(state_name), "caisson-bench-%u", pid);
  state_dir = (int)MUST(open("/run", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  network_dir = MakeDirectory(state_dir, state_name);
  leases = MakeDirectory(network_dir, "leases");
  names = MakeDirectory(network_dir, "names");
  lock = (int)MUST(
      openat(network_dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  char record[64];
  const int size = snprintf(record, sizeof(record), "bridge %s\n", bridge);
  WriteAt(network_dir, "network", O_WRONLY | O_CREAT, record, (size_t)size);
  MakeBridge();
}

void CloseNetwork(void) {
  LinkMessage(RTM_DELLINK, 0, bridge_index);
  Send(route);
  unlinkat(names, "bench", 0);
  unlinkat(leases, address_text, 0);
  unlinkat(network_dir, "leases", AT_REMOVEDIR);
  unlinkat(network_dir, "names", AT_REMOVEDIR);
  unlinkat(network_dir, "lock", 0);
  unlinkat(network_dir, "network", 0);
  unlinkat(state_dir, state_name, AT_REMOVEDIR);
}

/* ---- The endpoint ---- */

static void TakeLease(const char* veth, const unsigned char* mac) {
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  MUST(fcntl(lock, F_OFD_SETLKW, &range));
  lease = (int)MUST(openat(leases, address_text,
                           O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  MUST(fcntl(lease, F_OFD_SETLK, &range));
  struct stat ns;
  MUST(fstat(netns, &ns));
  char text[256];
  int size = snprintf(text, sizeof(text),
                      "caisson-lease 1\naddress %s\nboot %s\nnetns %lu:%lu\n"
                      "veth %s\nmac %02x:%02x:%02x:%02x:%02x:%02x\n"
                      "name bench\nend\n",
                      address_text, boot_id, (unsigned long)ns.st_dev,
                      (unsigned long)ns.st_ino, veth, mac[0], mac[1], mac[2],
                      mac[3], mac[4], mac[5]);
  MUST(write(lease, text, (size_t)size));
  MUST(linkat(leases, address_text, names, "bench", 0));
  size = snprintf(text, sizeof(text), "%s 0\n", address_text);
  MUST(pwrite(lock, text, (size_t)size, 0));
  range.l_type = F_UNLCK;
  MUST(fcntl(lock, F_OFD_SETLK, &range));
}

static void PutVeth(const char* veth, const unsigned char* mac,
                    const unsigned char* peer_mac) {
  LinkMessage(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, port);
  PutName(IFLA_IFNAME, veth);
  PutU32(IFLA_MTU, MTU);
  PutU32(IFLA_MASTER, (uint32_t)bridge_index);
  Put(IFLA_ADDRESS, mac, 6);
  PutU32(IFLA_NUM_TX_QUEUES, 1);
  PutU32(IFLA_NUM_RX_QUEUES, 1);
  struct rtattr* info = Nest(IFLA_LINKINFO);
  PutName(IFLA_INFO_KIND, "veth");
  struct rtattr* data = Nest(IFLA_INFO_DATA);
  struct rtattr* peer = Nest(VETH_INFO_PEER);
  struct ifinfomsg* header = PutHeader(sizeof(struct ifinfomsg));
  header->ifi_index = PEER;
  PutName(IFLA_IFNAME, "eth0");
  PutU32(IFLA_MTU, MTU);
  Put(IFLA_ADDRESS, peer_mac, 6);
  PutU32(IFLA_NUM_TX_QUEUES, 1);
  PutU32(IFLA_NUM_RX_QUEUES, 1);
  PutU32(IFLA_NET_NS_FD, (uint32_t)netns);
  EndNest(peer);
  EndNest(data);
  EndNest(info);
}

int MakeEndpoint(void) {
  MUST(unshare(CLONE_NEWNET));
  const int inside =
      (int)MUST(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  MUST(setns(host_ns, CLONE_NEWNET));
  netns = (int)MUST(ioctl(inside, SIOCGSKNS));

  const unsigned n = round_number++;
  address = (gateway & htonl(0xffffff00)) | htonl(2 + n % 250);
  inet_ntop(AF_INET, &address, address_text, sizeof(address_text));
  port = bridge_index - PORTS + (int)(n % PORTS);
  char veth[2 * IFNAMSIZ];
  snprintf(veth, sizeof(veth), "%s%06x", bridge, n & 0xffffff);
  unsigned char mac[6] = {2, 0xcf, 1}, peer_mac[6] = {2, 0xcf, 2};
  memcpy(mac + 3, &n, 3);
  memcpy(peer_mac + 3, &n, 3);

  TakeLease(veth, mac);
  PutVeth(veth, mac, peer_mac);
  PutUp(port);
  PutNeighbour(RTM_NEWNEIGH, bridge_index, address, peer_mac);
  Send(route);
  PutUp(LOOPBACK);
  PutUp(PEER);
  PutAddress(PEER, address);
  PutNeighbour(RTM_NEWNEIGH, PEER, gateway, bridge_mac);
  PutDefaultRoute(PEER);
  Send(inside);
  close(inside);
  AwaitOperational();
  return netns;
}

void RemoveEndpoint(void) {
  struct ifinfomsg* link = LinkMessage(RTM_SETLINK, 0, port);
  link->ifi_family = AF_BRIDGE;
  struct rtattr* info = Nest(IFLA_PROTINFO);
  Put(IFLA_BRPORT_STATE, &(uint8_t){BR_STATE_DISABLED}, 1);
  EndNest(info);
  PutNeighbour(RTM_DELNEIGH, bridge_index, address, NULL);
  /* The kernel forgets it itself when the bridge has had no port for a while.
   */
  errno = Exchange(route);
  Must(errno == 0 || errno == ENOENT ? 0 : -1, "netlink");
  MUST(unlinkat(names, "bench", 0));
  MUST(unlinkat(leases, address_text, 0));
  close(lease);
  close(netns);
}
