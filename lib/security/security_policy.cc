#include <utility>

#include "caisson/security.h"
#include "lib/base/status_macros.h"
#include "lib/security/capabilities.h"
#include "lib/security/filter_compiler.h"

namespace caisson {

struct SecurityPolicy::State {
  uint64_t capabilities = 0;
  int last_capability = 0;
  std::vector<std::string> missing_capabilities;
  bool no_new_privileges = true;
  std::vector<BpfInstruction> seccomp_program;
};

absl::StatusOr<SecurityPolicy> SecurityPolicy::Create(
    const SecurityOptions& options) {
  ASSIGN_OR_RETURN(const auto kernel, security::ReadKernelCapabilities());
  std::vector<std::string> drop = options.drop_capabilities;
  // The filter is what keeps root inside from making nodes of the host's
  // devices; without it the capability goes.
  if (options.unsafe_seccomp.has_value()) drop.push_back("CAP_MKNOD");
  ASSIGN_OR_RETURN(auto choice,
                   security::ChooseCapabilities(
                       drop, options.unsafe_add_capabilities, kernel));
  auto state = std::make_unique<State>();
  state->capabilities = choice.granted;
  state->last_capability = kernel.last;
  state->missing_capabilities = std::move(choice.missing);
  state->no_new_privileges = !options.unsafe_new_privileges.has_value();
  if (!options.unsafe_seccomp.has_value()) {
    state->seccomp_program = security::CompileDefaultProfile(
        security::kNativeArchitecture, choice.granted);
  }
  return SecurityPolicy(std::move(state));
}

SecurityPolicy::SecurityPolicy(std::unique_ptr<const State> state)
    : state_(std::move(state)) {}
SecurityPolicy::SecurityPolicy(SecurityPolicy&&) noexcept = default;
SecurityPolicy& SecurityPolicy::operator=(SecurityPolicy&&) noexcept = default;
SecurityPolicy::~SecurityPolicy() = default;

uint64_t SecurityPolicy::capabilities() const { return state_->capabilities; }

int SecurityPolicy::last_capability() const { return state_->last_capability; }

const std::vector<std::string>& SecurityPolicy::missing_capabilities() const {
  return state_->missing_capabilities;
}

bool SecurityPolicy::no_new_privileges() const {
  return state_->no_new_privileges;
}

absl::Span<const BpfInstruction> SecurityPolicy::seccomp_program() const {
  return state_->seccomp_program;
}

}  // namespace caisson
