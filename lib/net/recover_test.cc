// Failures at every step, deaths at every step, and what Recover makes of them.
#include "lib/net/recover.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "caisson/net_endpoint.h"
#include "caisson/network.h"
#include "lib/base/status_matchers.h"
#include "lib/net/net_testbed.h"
#include "lib/net/network_state.h"

namespace caisson {
namespace {

using ::caisson::testing::BindUdp;
using ::caisson::testing::CountFds;
using ::caisson::testing::Join;
using ::caisson::testing::NetKernelTest;
using ::caisson::testing::OpenNetwork;
using ::caisson::testing::RunForked;
using ::caisson::testing::RunInTestbed;
using ::caisson::testing::StatusIs;
using ::caisson::testing::Testbed;
using ::caisson::testing::TestSocket;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RecoverTest : public NetKernelTest {};

const EndpointOptions& Everything() {
  static const auto* options =
      new EndpointOptions{.name = "victim",
                          .aliases = {"v"},
                          .ports = {
                              {.host_port = 8080, .container_port = 80},
                              {.host_port = 53,
                               .container_port = 53,
                               .protocol = PortMapping::Protocol::kUdp},
                          }};
  return *options;
}

// Opens a network and creates an endpoint, with a hook that acts at the
// `fatal`-th step; how many steps there were until the end.
struct Walk {
  absl::Status status;
  int steps = 0;
  std::string step;  // the one at which the hook acted
};

Walk OpenAndCreate(Testbed& bed, const std::string& name, int fatal,
                   const std::function<absl::Status()>& act) {
  Walk walk;
  const StepHook hook = [&](absl::string_view step) {
    if (walk.steps++ != fatal) return absl::OkStatus();
    walk.step = std::string(step);
    return act();
  };
  absl::StatusOr<std::shared_ptr<NetworkState>> state =
      NetworkState::Open(bed.Options(name), hook);
  if (!state.ok()) {
    walk.status = state.status();
    return walk;
  }
  Network network = NetworkAccess::Make(*std::move(state));
  walk.status =
      NetEndpoint::Create(network, bed.MakeNamespace(), Everything()).status();
  return walk;
}

TEST_F(RecoverTest, FailureAtEveryStepLeavesNothing) {
  RunInTestbed([](Testbed& bed) {
    const absl::Status injected = absl::AbortedError("injected");
    const int fds = CountFds();
    std::vector<std::string> steps;
    for (int i = 0;; ++i) {
      const Walk walk = OpenAndCreate(bed, "web", i, [&] { return injected; });
      bed.ExpectClean();
      EXPECT_EQ(CountFds(), fds) << walk.step;
      if (walk.step == "destroy.forward") {
        // Creation came to its end; this was the walk's own clean-up.
        EXPECT_OK(walk.status);
        break;
      }
      EXPECT_THAT(walk.status,
                  StatusIs(absl::StatusCode::kAborted, HasSubstr("injected")));
      steps.push_back(walk.step);
      ASSERT_LT(i, 100);
    }
    EXPECT_THAT(
        steps,
        ElementsAre("network.join", "network.record", "network.bridge",
                    "network.firewall", "network.uplink", "endpoint.options",
                    "endpoint.namespace", "endpoint.reserve", "endpoint.lease",
                    "endpoint.link", "endpoint.interface", "endpoint.port",
                    "endpoint.publish", "endpoint.flows", "endpoint.announce",
                    "endpoint.forward"));
  });
}

// The same with another endpoint on the network, which must not notice.
TEST_F(RecoverTest, FailureAtEveryStepLeavesOthersAlone) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint other = Join(bed, network, {.name = "other"});
    const std::vector<std::string> links = bed.Links();
    const std::vector<std::string> files = bed.StateFiles();
    for (int i = 0;; ++i) {
      const Walk walk = OpenAndCreate(
          bed, "web", i, [] { return absl::AbortedError("injected"); });
      EXPECT_TRUE(bed.WaitForLinks(links));
      EXPECT_EQ(bed.StateFiles(), files);
      EXPECT_EQ(bed.Tables().size(), 2u);
      if (walk.status.ok()) break;
      ASSERT_LT(i, 100);
    }
    TestSocket server = bed.In(other.netns(), [] { return BindUdp(53); });
    TestSocket client = BindUdp(0);
    ASSERT_TRUE(client.SendTo(other.address(), 53, "alive"));
    EXPECT_TRUE(server.ReceiveFrom().has_value());
  });
}

TEST_F(RecoverTest, DeathAtEveryStepIsRecovered) {
  RunInTestbed([](Testbed& bed) {
    for (int i = 0;; ++i) {
      const int status = RunForked([&] {
        OpenAndCreate(bed, "web", i, [] {
          ::kill(::getpid(), SIGKILL);
          return absl::OkStatus();
        });
      });
      const absl::StatusOr<std::vector<std::string>> removed =
          Network::Recover(bed.state_dir());
      EXPECT_OK(removed);
      bed.ExpectClean();
      if (!WIFSIGNALED(status)) {
        EXPECT_THAT(*removed, IsEmpty());
        break;
      }
      ASSERT_LT(i, 100);
    }
  });
}

// Without Recover: the next one who opens the network cleans up.
TEST_F(RecoverTest, OpenCleansUpAfterTheDead) {
  RunInTestbed([](Testbed& bed) {
    RunForked([&] {
      Network network = OpenNetwork(bed.Options("web"));
      NetEndpoint endpoint = Join(bed, network, Everything());
      ::kill(::getpid(), SIGKILL);
    });
    EXPECT_THAT(bed.StateFiles(), Contains("web/names/victim"));
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint endpoint = Join(bed, network, Everything());
    EXPECT_EQ(network.Hosts()->size(), 1u);
    EXPECT_TRUE(bed.WaitForLinks({std::string(network.bridge()),
                                  std::string(endpoint.host_interface())}));
    EXPECT_EQ(bed.Tables().size(), 2u);
  });
}

TEST_F(RecoverTest, RecoverTellsTheDeadFromTheLiving) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint alive = Join(bed, network, {.name = "alive"});
    // A namespace that somebody else keeps, so that the dead one's interface
    // does not go by itself.
    NetNamespace kept = bed.MakeNamespace();
    const int status = RunForked([&] {
      Network own = OpenNetwork(bed.Options("web"));
      Network other = OpenNetwork(bed.Options("other"));
      NetNamespace copy;
      copy.ns = UniqueFd(::dup(kept.ns.get()));
      copy.rtnetlink = UniqueFd(::dup(kept.rtnetlink.get()));
      absl::StatusOr<NetEndpoint> endpoint =
          NetEndpoint::Create(own, std::move(copy), Everything());
      EXPECT_OK(endpoint);
      EXPECT_EQ(bed.Links().size(), 4u);
      ::kill(::getpid(), SIGKILL);
    });
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(bed.Links().size(), 4u);
    // The dead process's tables went with it, and its lease is not listed.
    EXPECT_EQ(bed.Tables().size(), 2u);
    EXPECT_EQ(network.Hosts()->size(), 1u);

    const absl::StatusOr<std::vector<std::string>> removed =
        Network::Recover(bed.state_dir());
    ASSERT_OK(removed);
    EXPECT_THAT(*removed,
                ElementsAre(HasSubstr("bridge"), "state of network \"other\"",
                            HasSubstr("by \"victim\" on network \"web\"")));
    EXPECT_TRUE(bed.WaitForLinks(
        {std::string(network.bridge()), std::string(alive.host_interface())}));
    EXPECT_THAT(*Network::Recover(bed.state_dir()), IsEmpty());
    TestSocket server = bed.In(alive.netns(), [] { return BindUdp(53); });
    TestSocket client = BindUdp(0);
    ASSERT_TRUE(client.SendTo(alive.address(), 53, "alive"));
    EXPECT_TRUE(server.ReceiveFrom().has_value());
  });
}

TEST_F(RecoverTest, BridgeWithoutStateIsFound) {
  RunInTestbed([](Testbed& bed) {
    RunForked([&] {
      Network network = OpenNetwork(bed.Options("web"));
      ::kill(::getpid(), SIGKILL);
    });
    std::filesystem::remove_all(absl::StrCat(bed.state_dir(), "/web"));
    EXPECT_EQ(bed.Links().size(), 1u);
    const absl::StatusOr<std::vector<std::string>> removed =
        Network::Recover(bed.state_dir());
    ASSERT_OK(removed);
    EXPECT_THAT(*removed, ElementsAre(HasSubstr("bridge")));
    bed.ExpectClean();
  });
}

TEST_F(RecoverTest, TouchesNoDirectoryThatIsNotItsOwn) {
  RunInTestbed([](Testbed& bed) {
    namespace fs = std::filesystem;
    // Not a state directory at all.
    const std::string other = absl::StrCat(bed.state_dir(), "-other");
    fs::create_directories(other + "/web/leases");
    fs::create_directories(other + "/empty");
    EXPECT_THAT(*Network::Recover(other), IsEmpty());
    EXPECT_TRUE(fs::exists(other + "/web/leases"));
    EXPECT_TRUE(fs::exists(other + "/empty"));
    EXPECT_THAT(*Network::Recover(other + "/missing"), IsEmpty());
    // A stranger's directory in a state directory.
    { Network network = OpenNetwork(bed.Options("web")); }
    fs::create_directories(bed.state_dir() + "/stranger/leases");
    EXPECT_THAT(*Network::Recover(bed.state_dir()), IsEmpty());
    EXPECT_TRUE(fs::exists(bed.state_dir() + "/stranger/leases"));
  });
}

TEST_F(RecoverTest, DamagedRecordsDoNotStopIt) {
  RunInTestbed([](Testbed& bed) {
    RunForked([&] {
      Network network = OpenNetwork(bed.Options("web"));
      NetEndpoint endpoint = Join(bed, network, Everything());
      ::kill(::getpid(), SIGKILL);
    });
    const std::string web = absl::StrCat(bed.state_dir(), "/web/");
    for (const char* file : {"network", "names/victim", "leases/garbage"}) {
      std::ofstream damaged(web + file, std::ios::trunc);
      damaged << "caisson-";
    }
    // The bridge is then known by its mark alone, and goes when it is empty.
    std::vector<std::string> links = bed.Links();
    ASSERT_FALSE(links.empty());
    EXPECT_TRUE(bed.WaitForLinks({links[0]}));
    EXPECT_OK(Network::Recover(bed.state_dir()));
    bed.ExpectClean();
  });
}

}  // namespace
}  // namespace caisson
