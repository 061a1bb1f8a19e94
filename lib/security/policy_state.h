// What a SecurityPolicy holds, for those who carry it out.
#ifndef CAISSON_LIB_SECURITY_POLICY_STATE_H_
#define CAISSON_LIB_SECURITY_POLICY_STATE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "caisson/security.h"
#include "lib/security/filter_table.h"
#include "lib/security/landlock.h"

namespace caisson {

struct SecurityPolicy::State {
  CapabilityMasks root;
  CapabilityMasks user;
  int last_capability = 0;
  std::vector<std::string> missing_capabilities;
  uint32_t securebits = 0;
  bool no_new_privileges = true;
  bool own_session_keyring = true;

  // Empty, no entries: unconfined.
  security::FilterTable table;
  std::vector<BpfInstruction> program;
  uint32_t filter_flags = 0;  // SECCOMP_FILTER_FLAG_*
  bool listener = false;
  // Why no process can wait for its start (ProcessSpec::gate) when the filter
  // is loaded; OK if that comes later: with no_new_privileges and without a
  // listener.
  absl::Status with_gate;

  security::Landlock landlock;
  std::string apparmor_profile;  // empty: none
  std::string selinux_label;     // empty: none

  std::vector<std::string> notes;  // what has no effect, and why
};

}  // namespace caisson

#endif  // CAISSON_LIB_SECURITY_POLICY_STATE_H_
