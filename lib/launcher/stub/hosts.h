// The hosts that are connected: the one that made the launcher, and those that
// attached to it.
#ifndef CAISSON_LIB_LAUNCHER_STUB_HOSTS_H_
#define CAISSON_LIB_LAUNCHER_STUB_HOSTS_H_

#include <stdint.h>

#include "lib/launcher/protocol.h"

namespace caisson::launcher {

// pollfd of poll(2).
struct Poll {
  int fd;
  short events;
  short revents;
};

// The listening socket and each host.
inline constexpr uint32_t kMaxPolls = 1 + kMaxHosts;

// What every host is told first.
void SetHello(const Message& hello);
// Takes `socket`.
void AddHost(int socket);

// What to wait for; the result is how many.
uint32_t FillPolls(Poll* polls);
// Serves what became ready.
void ServeHosts(const Poll* polls, uint32_t count);

// Lets hosts go that have gone and whose processes have ended. Ends the
// launcher when nobody is left.
void SettleHosts();

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_HOSTS_H_
