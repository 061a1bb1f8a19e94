// A line of /etc/hosts: what networks answer and roots take.
#ifndef CAISSON_HOSTS_ENTRY_H_
#define CAISSON_HOSTS_ENTRY_H_

#include <string>
#include <vector>

namespace caisson {

struct HostsEntry {
  std::string address;             // IPv4 or IPv6
  std::vector<std::string> names;  // the name, then the aliases
};

}  // namespace caisson

#endif  // CAISSON_HOSTS_ENTRY_H_
