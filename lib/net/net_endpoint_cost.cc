// What an endpoint costs, in microseconds by step: run it as root.
//
//   net_endpoint_cost [iterations] [live endpoints] [published ports]
//
// Everything happens in network namespaces of its own. Prints medians.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "caisson/net_endpoint.h"
#include "caisson/network.h"
#include "lib/net/net_testbed.h"
#include "lib/net/network_state.h"

namespace caisson {
namespace {

using Clock = std::chrono::steady_clock;

// Collects the time between one step and the next.
struct Ledger {
  std::map<std::string, std::vector<double>> steps;
  std::vector<std::string> order;
  std::string current;
  Clock::time_point since;

  void Begin(const std::string& step) {
    const Clock::time_point now = Clock::now();
    if (!current.empty()) {
      auto [entry, added] = steps.try_emplace(current);
      if (added) order.push_back(current);
      entry->second.push_back(
          std::chrono::duration<double, std::micro>(now - since).count());
    }
    current = step;
    since = Clock::now();
  }
  void Clear() {
    steps.clear();
    order.clear();
    current.clear();
  }
};

double Median(std::vector<double> values, double quantile = 0.5) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(quantile * (values.size() - 1))];
}

int Argument(int argc, char** argv, int index, int fallback) {
  int value = fallback;
  if (index < argc && !absl::SimpleAtoi(argv[index], &value)) ::exit(2);
  return value;
}

void Measure(testing::Testbed& bed, int iterations, int live, int ports) {
  auto ledger = std::make_shared<Ledger>();
  NetworkOptions options = bed.Options("cost");
  options.subnet = "10.99.0.0/20";
  const Clock::time_point opening = Clock::now();
  absl::StatusOr<std::shared_ptr<NetworkState>> state =
      NetworkState::Open(options, [ledger](absl::string_view step) {
        ledger->Begin(std::string(step));
        return absl::OkStatus();
      });
  if (!state.ok()) {
    ::printf("%s\n", state.status().ToString().c_str());
    ::exit(1);
  }
  ::printf("network open %.0f us\n",
           std::chrono::duration<double, std::micro>(Clock::now() - opening)
               .count());
  ledger->Clear();
  Network network = NetworkAccess::Make(*std::move(state));
  std::vector<NetEndpoint> others;
  std::vector<double> undisturbed;
  for (int i = 0; i < live; ++i) {
    const Clock::time_point start = Clock::now();
    others.push_back(
        testing::Join(bed, network, {.name = absl::StrCat("live", i)}));
    undisturbed.push_back(
        std::chrono::duration<double, std::micro>(Clock::now() - start)
            .count());
  }
  // The namespace included, and no other one being torn down meanwhile.
  for (size_t i = 100; i <= undisturbed.size(); i += 100) {
    ::printf("live endpoints %zu to %zu: median %.1f us each\n", i - 99, i,
             Median({undisturbed.begin() + static_cast<ptrdiff_t>(i) - 100,
                     undisturbed.begin() + static_cast<ptrdiff_t>(i)}));
  }
  ledger->Clear();

  EndpointOptions endpoint = {.name = "e"};
  for (int i = 0; i < ports; ++i) {
    endpoint.ports.push_back({.host_port = static_cast<uint16_t>(10'000 + i),
                              .container_port = static_cast<uint16_t>(1 + i)});
  }
  std::vector<double> create;
  std::vector<double> destroy;
  for (int i = 0; i < iterations; ++i) {
    NetNamespace ns = bed.MakeNamespace();
    const Clock::time_point start = Clock::now();
    absl::StatusOr<NetEndpoint> made =
        NetEndpoint::Create(network, std::move(ns), endpoint);
    const Clock::time_point created = Clock::now();
    ledger->Begin("");
    if (!made.ok()) {
      ::printf("%s\n", made.status().ToString().c_str());
      ::exit(1);
    }
    const Clock::time_point begin = Clock::now();
    const absl::Status status = made->Destroy();
    const Clock::time_point end = Clock::now();
    ledger->Begin("");
    if (!status.ok()) ::printf("%s\n", status.ToString().c_str());
    create.push_back(
        std::chrono::duration<double, std::micro>(created - start).count());
    destroy.push_back(
        std::chrono::duration<double, std::micro>(end - begin).count());
  }
  ::printf("%d iterations, %d live endpoints, %d ports\n", iterations, live,
           ports);
  for (const std::string& step : ledger->order) {
    ::printf("  %-22s %8.1f\n", step.c_str(), Median(ledger->steps[step]));
  }
  ::printf("create  median %8.1f  p90 %8.1f us\n", Median(create),
           Median(create, 0.9));
  ::printf("destroy median %8.1f  p90 %8.1f us\n", Median(destroy),
           Median(destroy, 0.9));
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  const int iterations = caisson::Argument(argc, argv, 1, 200);
  const int live = caisson::Argument(argc, argv, 2, 0);
  const int ports = caisson::Argument(argc, argv, 3, 1);
  const int status = caisson::testing::RunForked([&] {
    caisson::testing::Testbed bed;
    caisson::Measure(bed, iterations, live, ports);
  });
  return status == 0 ? 0 : 1;
}
