#include "caisson/notation.h"

#include <string>

#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(NotationTest, Ports) {
  ASSERT_OK_AND_ASSIGN(PortMapping port, ParsePortMapping("8080:80"));
  EXPECT_EQ(port.host_address, "");
  EXPECT_EQ(port.host_port, 8080);
  EXPECT_EQ(port.container_port, 80);
  EXPECT_EQ(port.protocol, PortMapping::Protocol::kTcp);
  ASSERT_OK_AND_ASSIGN(port, ParsePortMapping("127.0.0.1:0:53/udp"));
  EXPECT_EQ(port.host_address, "127.0.0.1");
  EXPECT_EQ(port.host_port, 0);
  EXPECT_EQ(port.protocol, PortMapping::Protocol::kUdp);
  for (const char* any : {"80", ":80", "127.0.0.1::80"}) {
    ASSERT_OK_AND_ASSIGN(port, ParsePortMapping(any));
    EXPECT_EQ(port.host_port, 0) << any;
    EXPECT_EQ(port.container_port, 80) << any;
    EXPECT_EQ(port.host_address, any[0] == '1' ? "127.0.0.1" : "");
  }
  for (const char* bad :
       {"", "0", "/tcp", "1:2:3:4", "a:80", "80:", "80:0", "65536:80", "80:+1",
        "80: 1", "80:80/icmp", "80:80/", ":80:80", "::80", "-1:80"}) {
    EXPECT_THAT(ParsePortMapping(bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("expected [[ADDRESS:][HOSTPORT]:]PORT")))
        << bad;
  }
}

TEST(NotationTest, Binds) {
  ASSERT_OK_AND_ASSIGN(BindMount bind, ParseBindMount("/a:/b"));
  EXPECT_EQ(bind.source, "/a");
  EXPECT_EQ(bind.destination, "/b");
  EXPECT_FALSE(bind.read_only);
  ASSERT_OK_AND_ASSIGN(bind, ParseBindMount("/a:/b:ro"));
  EXPECT_TRUE(bind.read_only);
  for (const char* bad : {"", "/a", "a:/b", "/a:b", "/a:/b:rx", "/a:/b:ro:x"}) {
    EXPECT_THAT(ParseBindMount(bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("expected /SOURCE:/DESTINATION")))
        << bad;
  }
}

TEST(NotationTest, Signals) {
  for (const char* text : {"TERM", "SIGTERM", "sigterm", "term", "15"}) {
    EXPECT_EQ(ParseSignal(text).value_or(0), 15) << text;
  }
  EXPECT_EQ(ParseSignal("SIGRTMIN").value_or(0), 34);
  EXPECT_EQ(ParseSignal("RTMIN+3").value_or(0), 37);
  for (const char* bad : {"", "0", "-1", "65", "SIG", "SIGNAL", "RTMIN+31",
                          "RTMIN-1", "RTMIN+-1", "15 "}) {
    EXPECT_THAT(ParseSignal(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("is no signal")))
        << bad;
  }
}

TEST(NotationTest, Volumes) {
  ASSERT_OK_AND_ASSIGN(VolumeMount volume,
                       ParseVolumeMount("db:/var/lib/db:ro,nocopy"));
  EXPECT_EQ(volume.kind, VolumeMount::Kind::kNamed);
  EXPECT_EQ(volume.volume, "db");
  EXPECT_EQ(volume.mount.destination, "/var/lib/db");
  EXPECT_TRUE(volume.mount.read_only);
  EXPECT_FALSE(volume.copy);
  ASSERT_OK_AND_ASSIGN(volume, ParseVolumeMount("/scratch"));
  EXPECT_EQ(volume.kind, VolumeMount::Kind::kAnonymous);
  EXPECT_EQ(volume.mount.destination, "/scratch");
  ASSERT_OK_AND_ASSIGN(volume, ParseVolumeMount("/a:/b:rslave,rw"));
  EXPECT_EQ(volume.kind, VolumeMount::Kind::kBind);
  EXPECT_EQ(volume.mount.source, "/a");
  EXPECT_EQ(volume.mount.propagation, MountPropagation::kUnsafeSlave);
  for (const char* bad : {"", "a", ":/b", "a:b", "/a:b", "a:/b:", "a:/b:slave",
                          "/a:/b:nocopy", "a:/b:ro:x", "a:/b:z"}) {
    EXPECT_THAT(
        ParseVolumeMount(bad),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/DESTINATION")))
        << bad;
  }
}

TEST(NotationTest, Tmpfs) {
  ASSERT_OK_AND_ASSIGN(
      TmpfsMount tmpfs,
      ParseTmpfsMount("/run:size=64k,mode=1750,nr_inodes=9,exec,nosuid,"
                      "tmpcopyup,ro"));
  EXPECT_EQ(tmpfs.destination, "/run");
  EXPECT_EQ(tmpfs.size_bytes, 65536u);
  EXPECT_EQ(tmpfs.mode, 01750u);
  EXPECT_EQ(tmpfs.max_inodes, 9u);
  EXPECT_TRUE(tmpfs.executable && tmpfs.copy_up && tmpfs.read_only);
  EXPECT_OK(ParseTmpfsMount("/run"));
  for (const char* bad : {"", "run", "/run:", "/run:size=", "/run:mode=8",
                          "/run:mode=", "/run:dev", "/run:size=1x"}) {
    EXPECT_THAT(
        ParseTmpfsMount(bad),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/DESTINATION")))
        << bad;
  }
}

TEST(NotationTest, Devices) {
  ASSERT_OK_AND_ASSIGN(DeviceNode device, ParseDeviceNode("/dev/fuse"));
  EXPECT_EQ(device.source, "/dev/fuse");
  EXPECT_EQ(device.path, "/dev/fuse");
  ASSERT_OK_AND_ASSIGN(device, ParseDeviceNode("/dev/sda:/dev/xvda:rwm"));
  EXPECT_EQ(device.source, "/dev/sda");
  EXPECT_EQ(device.path, "/dev/xvda");
  EXPECT_OK(ParseDeviceNode("/dev/sda:rwm"));
  for (const char* bad : {"", "fuse", "/dev/a:b", "/dev/a:/dev/b:r", "rwm",
                          "/dev/a:/dev/b:rwm:x", "/dev/a:r"}) {
    EXPECT_THAT(
        ParseDeviceNode(bad),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/dev/SOURCE")))
        << bad;
  }
}

TEST(NotationTest, Bytes) {
  EXPECT_EQ(*ParseBytes("1"), 1);
  EXPECT_EQ(*ParseBytes("7b"), 7);
  EXPECT_EQ(*ParseBytes("64m"), 64 << 20);
  EXPECT_EQ(*ParseBytes("2G"), int64_t{2} << 30);
  for (const char* bad : {"", "m", "0", "-1", "1.5g", "1t", " 1", "1kb",
                          "9999999999g", "99999999999999999999"}) {
    EXPECT_THAT(ParseBytes(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("number of bytes")))
        << bad;
  }
}

TEST(NotationTest, Cpus) {
  ASSERT_OK_AND_ASSIGN(const CpuQuota quota, ParseCpus("1.5"));
  EXPECT_EQ(quota.quota, absl::Milliseconds(150));
  EXPECT_EQ(quota.period, absl::Milliseconds(100));
  EXPECT_EQ(ParseCpus("0.01")->quota, absl::Milliseconds(1));
  EXPECT_EQ(ParseCpus("2")->quota, absl::Milliseconds(200));
  for (const char* bad : {"", "0", "-1", "0.009", "inf", "nan", "0x1", "1e3",
                          "1 ", "1.5.5", "65537"}) {
    EXPECT_THAT(ParseCpus(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("number of CPUs")))
        << bad;
  }
}

TEST(NotationTest, Hosts) {
  ASSERT_OK_AND_ASSIGN(HostsEntry host, ParseHostsEntry("db:10.0.0.7"));
  EXPECT_EQ(host.address, "10.0.0.7");
  EXPECT_THAT(host.names, ElementsAre("db"));
  ASSERT_OK_AND_ASSIGN(host, ParseHostsEntry("db:fe80::1"));
  EXPECT_EQ(host.address, "fe80::1");
  for (const char* bad : {"", "db", "db:", ":10.0.0.7", "db:10.0.0", "db:name",
                          "a b:10.0.0.7", "a\nb:10.0.0.7", "#a:10.0.0.7"}) {
    EXPECT_THAT(
        ParseHostsEntry(bad),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("NAME:ADDRESS")))
        << bad;
  }
}

TEST(NotationTest, Times) {
  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  const auto seconds = [&](const char* text) {
    const auto time = ParseTime(text, now);
    EXPECT_OK(time.status());
    return time.ok() ? absl::ToDoubleSeconds(*time - now) : 0.0;
  };
  EXPECT_EQ(seconds("90s"), -90);
  EXPECT_EQ(seconds("1h30m"), -5400);
  EXPECT_EQ(seconds("1700000000"), 0);
  EXPECT_EQ(seconds("1700000000.5"), 0.5);
  EXPECT_EQ(seconds("2023-11-14T22:13:20Z"), 0);
  EXPECT_EQ(seconds("2023-11-14T23:13:21+01:00"), 1);
  EXPECT_EQ(seconds("2023-11-14T22:13:20.25"), 0.25);
  EXPECT_EQ(seconds("2023-11-14T22:13"), -20);
  EXPECT_EQ(seconds("2023-11-15"), 6400);
  for (const char* bad : {"", "-90s", "inf", "yesterday", "1.2.3", "2023-13-01",
                          "1h x", "infinite-future", "2023-11-14T22:13:20Zx"}) {
    EXPECT_THAT(ParseTime(bad, now),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("expected a duration")))
        << bad;
  }
}

TEST(NotationTest, AdditionsWin) {
  EXPECT_THAT(MergeEnvironment({"A=1", "B=2", "AB=3"}, {"A=x", "C=y", "C=z"}),
              ElementsAre("A=x", "B=2", "AB=3", "C=z"));
}

}  // namespace
}  // namespace caisson
