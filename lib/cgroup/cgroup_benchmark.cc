// What a group costs: made, limited and removed again. Needs root.
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "caisson/cgroup.h"

namespace caisson {
namespace {

void CreateAndDestroy(benchmark::State& state, CgroupOptions options) {
  auto parent =
      CgroupParent::Open({.path = absl::StrCat("/caisson-bench-", ::getpid())});
  options.name = "job";
  for (auto _ : state) {
    auto group = parent->Create(options);
    if (!group.ok() || !group->Destroy().ok()) {
      state.SkipWithError(group.status().ToString().c_str());
      return;
    }
  }
}

void WithControllers(benchmark::State& state,
                     std::vector<CgroupController> controllers) {
  CreateAndDestroy(state, {.controllers = std::move(controllers)});
}

BENCHMARK_CAPTURE(WithControllers, none, {});
BENCHMARK_CAPTURE(WithControllers, cpu, {CgroupController::kCpu});
BENCHMARK_CAPTURE(WithControllers, cpuacct, {CgroupController::kCpuacct});
BENCHMARK_CAPTURE(WithControllers, cpuset, {CgroupController::kCpuset});
BENCHMARK_CAPTURE(WithControllers, memory, {CgroupController::kMemory});
BENCHMARK_CAPTURE(WithControllers, pids, {CgroupController::kPids});
BENCHMARK_CAPTURE(WithControllers, io, {CgroupController::kIo});
BENCHMARK_CAPTURE(WithControllers, devices, {CgroupController::kDevices});
BENCHMARK_CAPTURE(WithControllers, freezer, {CgroupController::kFreezer});
BENCHMARK_CAPTURE(CreateAndDestroy, limits,
                  CgroupOptions{
                      .limits = {.memory_max = 64 << 20,
                                 .cpu_quota = CpuQuota{absl::Seconds(1)},
                                 .cpu_weight = 100,
                                 .pids_max = 100}});

BENCHMARK_CAPTURE(CreateAndDestroy, device_rules,
                  CgroupOptions{
                      .limits = {
                          .devices = CgroupDeviceRules::ContainerDefault()}});
BENCHMARK_CAPTURE(
    CreateAndDestroy, device_rules_v1,
    CgroupOptions{.limits = {.devices = CgroupDeviceRules::ContainerDefault()},
                  .controllers = {CgroupController::kDevices}});

void Open(benchmark::State& state) {
  for (auto _ : state) {
    auto parent = CgroupParent::Open({.path = "/caisson-bench"});
    benchmark::DoNotOptimize(parent);
  }
}
BENCHMARK(Open);

void OpenEntry(benchmark::State& state) {
  auto parent =
      CgroupParent::Open({.path = absl::StrCat("/caisson-bench-", ::getpid())});
  auto group = parent->Create(
      {.name = "job",
       .limits = {.memory_max = 64 << 20, .cpu_weight = 100, .pids_max = 10}});
  for (auto _ : state) {
    auto entry = group->OpenEntry();
    benchmark::DoNotOptimize(entry);
  }
}
BENCHMARK(OpenEntry);

void OomKills(benchmark::State& state) {
  auto parent =
      CgroupParent::Open({.path = absl::StrCat("/caisson-bench-", ::getpid())});
  auto group =
      parent->Create({.name = "job", .limits = {.memory_max = 64 << 20}});
  for (auto _ : state) {
    auto kills = group->OomKills();
    benchmark::DoNotOptimize(kills);
  }
}
BENCHMARK(OomKills);

}  // namespace
}  // namespace caisson

BENCHMARK_MAIN();
