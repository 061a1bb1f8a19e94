// A program that starts containers with caisson, as the benchmarks measure it:
// what is made once, and one container in the full default composition.
#ifndef CAISSON_BENCH_HOST_H_
#define CAISSON_BENCH_HOST_H_

#include <stdlib.h>

#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <utility>

#include "caisson/caisson.h"

namespace bench {

// The value of what must not fail: otherwise the program ends.
void Check(const absl::Status& status);
template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// CLOCK_MONOTONIC in nanoseconds.
uint64_t Now();

// A container that runs. What it consists of is destroyed in the reverse order.
struct Container {
  std::optional<caisson::NetEndpoint> endpoint;
  caisson::RootFs root;
  caisson::Cgroup cgroup;
  caisson::Process process;

  // Waits for its end, which must be a success, and removes everything.
  void Finish();
  // Kills it and removes everything.
  void Kill();
};

// Thread-safe.
class Host {
 public:
  // `root` is the directory that is every container's layer; with `net`, each
  // gets an endpoint in a bridge network.
  Host(const std::string& root, bool net);
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host();

  // Starts `program` of the root in a container. No two that run may have the
  // same `name`.
  Container Start(const std::string& program,
                  const std::string& name = "bench");

  // Starts /true in the container and waits for its end.
  void Exec(const Container& container);

  const caisson::Launcher& launcher() const { return launcher_; }

 private:
  caisson::UniqueFd root_;
  caisson::Launcher launcher_;
  caisson::CgroupParent cgroups_;
  caisson::SecurityPolicy policy_;
  std::string state_dir_;
  std::optional<caisson::Network> network_;
};

}  // namespace bench

#endif  // CAISSON_BENCH_HOST_H_
