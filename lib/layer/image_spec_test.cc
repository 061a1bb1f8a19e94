#include "lib/layer/image_spec.h"

#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

constexpr char kManifestType[] = "application/vnd.oci.image.manifest.v1+json";
constexpr char kIndexType[] = "application/vnd.oci.image.index.v1+json";
constexpr char kConfigType[] = "application/vnd.oci.image.config.v1+json";
constexpr char kLayerType[] = "application/vnd.oci.image.layer.v1.tar+gzip";

std::string DescriptorJson(absl::string_view type,
                           absl::string_view extra = "") {
  return absl::StrCat(R"({"mediaType":")", type, R"(","digest":")",
                      Digest::Of(type).str(), R"(","size":7)", extra, "}");
}

std::string ManifestJson() {
  return absl::StrCat(R"({"schemaVersion":2,"config":)",
                      DescriptorJson(kConfigType), R"(,"layers":[)",
                      DescriptorJson(kLayerType), "]}");
}

TEST(ManifestTest, ReadsManifestAndIndex) {
  ASSERT_OK_AND_ASSIGN(
      auto manifest, ParseManifestOrIndex(ManifestJson(), "m", kManifestType));
  ASSERT_TRUE(std::holds_alternative<Manifest>(manifest));
  const Manifest& m = std::get<Manifest>(manifest);
  EXPECT_EQ(m.config.digest, Digest::Of(kConfigType));
  ASSERT_EQ(m.layers.size(), 1u);
  EXPECT_EQ(m.layers[0].size, 7u);
  EXPECT_EQ(m.layers[0].where, "m: layers[0]");

  const std::string index = absl::StrCat(
      R"({"schemaVersion":2,"manifests":[)",
      DescriptorJson(kManifestType,
                     R"(,"platform":{"os":"linux","architecture":"arm",)"
                     R"("variant":"v7"},"annotations":{"a":"b"})"),
      "]}");
  ASSERT_OK_AND_ASSIGN(auto parsed, ParseManifestOrIndex(index, "i", ""));
  ASSERT_TRUE(std::holds_alternative<ImageIndex>(parsed));
  const Descriptor& d = std::get<ImageIndex>(parsed).manifests.at(0);
  EXPECT_EQ(d.platform->ToString(), "linux/arm/v7");
  EXPECT_THAT(d.annotations, ElementsAre(Pair("a", "b")));
}

TEST(ManifestTest, RefusesWhatCouldBeBoth) {
  const std::string both = absl::StrReplaceAll(
      ManifestJson(), {{R"("config")", R"("manifests":[],"config")"}});
  EXPECT_THAT(ParseManifestOrIndex(both, "m", kManifestType),
              StatusIs(kInvalid, HasSubstr("as an index or as a manifest")));
  EXPECT_THAT(ParseManifestOrIndex(both, "m", kIndexType),
              StatusIs(kInvalid, HasSubstr("as an index or as a manifest")));
  const std::string null_both = absl::StrReplaceAll(
      ManifestJson(), {{R"("config")", R"("manifests":null,"config")"}});
  EXPECT_THAT(ParseManifestOrIndex(null_both, "m", ""),
              StatusIs(kInvalid, HasSubstr("as an index or as a manifest")));
  EXPECT_THAT(ParseManifestOrIndex(ManifestJson(), "m", kIndexType),
              StatusIs(kInvalid, HasSubstr("do not fit its media type")));
  const std::string typed = absl::StrReplaceAll(
      ManifestJson(), {{"{\"schema", absl::StrCat("{\"mediaType\":\"",
                                                  kIndexType, "\",\"schema")}});
  EXPECT_THAT(ParseManifestOrIndex(typed, "m", kManifestType),
              StatusIs(kInvalid, HasSubstr("what refers to it says")));
  EXPECT_THAT(ParseManifestOrIndex(typed, "m", ""),
              StatusIs(kInvalid, HasSubstr("do not fit its media type")));
}

TEST(ManifestTest, RefusesBadFields) {
  const std::string good = ManifestJson();
  const std::string digest = Digest::Of(kLayerType).str();
  const struct {
    std::string text;
    absl::StatusCode code;
    std::string error;
  } cases[] = {
      {absl::StrReplaceAll(good, {{"\"schemaVersion\":2", "\"x\":2"}}),
       kInvalid, "schemaVersion: missing"},
      {absl::StrReplaceAll(good, {{":2,", ":3,"}}), kInvalid, "3, expected 2"},
      {absl::StrReplaceAll(good, {{digest, "sha256:../../etc"}}), kInvalid,
       "m: layers[0].digest: \"sha256:../../etc\" is not a digest"},
      {absl::StrReplaceAll(good, {{"\"size\":7", "\"size\":-7"}}), kInvalid,
       "-7 is not from 0 to"},
      {absl::StrReplaceAll(good, {{"\"size\":7", "\"size\":null"}}), kInvalid,
       "size: missing"},
      {absl::StrReplaceAll(good, {{kConfigType, "application/helm"}}),
       kUnimplemented, "is not the configuration of a container image"},
      {R"({"schemaVersion":2,"manifests":null})", kInvalid,
       "m: manifests: missing or null"},
      {R"({"schemaVersion":2,"config":null,"layers":[]})", kInvalid,
       "m: config: missing or null"},
      {absl::StrCat(R"({"schemaVersion":2,"config":)",
                    DescriptorJson(kConfigType), R"(,"layers":null})"),
       kInvalid, "m: layers: missing or null"},
      {absl::StrCat(R"({"schemaVersion":2,"config":)",
                    DescriptorJson(kConfigType), R"(,"layers":[null]})"),
       kInvalid, "m: layers[0]: expected an object, found null"},
      {R"({"schemaVersion":1,"fsLayers":[]})", kUnimplemented,
       "schema version 1"},
      {"[]", kInvalid, "m: expected an object, found array"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParseManifestOrIndex(c.text, "m", ""),
                StatusIs(c.code, HasSubstr(c.error)))
        << c.text;
  }
  EXPECT_THAT(ParseManifestOrIndex("{}", "m", "application/x"),
              StatusIs(kUnimplemented, HasSubstr("neither an image manifest")));
}

TEST(ConfigTest, ReadsWhatAContainerNeeds) {
  const std::string diff_id = Digest::Of("layer").str();
  ASSERT_OK_AND_ASSIGN(
      ConfigDocument document,
      ParseImageConfig(absl::StrCat(R"({"architecture":"amd64","os":"linux",
        "config":{"Env":["A=1","B=2"],"Entrypoint":["/e"],"Cmd":["c","d"],
        "WorkingDir":"/w","User":"u:g","ExposedPorts":{"80/tcp":{}},
        "Labels":{"l":"v"},"Volumes":{"/data":{}},"StopSignal":"SIGINT"},
        "rootfs":{"type":"layers","diff_ids":[")",
                                    diff_id, R"("]}, "history":[]})"),
                       "c"));
  const ImageConfig& config = document.config;
  EXPECT_EQ(config.platform.ToString(), "linux/amd64");
  EXPECT_THAT(config.env, ElementsAre("A=1", "B=2"));
  EXPECT_THAT(config.entrypoint, ElementsAre("/e"));
  EXPECT_THAT(config.cmd, ElementsAre("c", "d"));
  EXPECT_EQ(config.working_dir, "/w");
  EXPECT_EQ(config.user, "u:g");
  EXPECT_THAT(config.exposed_ports, ElementsAre("80/tcp"));
  EXPECT_THAT(config.labels, ElementsAre(Pair("l", "v")));
  EXPECT_THAT(config.volumes, ElementsAre("/data"));
  EXPECT_EQ(config.stop_signal, "SIGINT");
  ASSERT_EQ(document.diff_ids.size(), 1u);
  EXPECT_EQ(document.diff_ids[0].str(), diff_id);
}

TEST(ConfigTest, AcceptsNullWhereGoWritesIt) {
  ASSERT_OK_AND_ASSIGN(ConfigDocument document,
                       ParseImageConfig(R"({"architecture":"amd64","os":"linux",
        "config":{"Env":null,"Entrypoint":null,"Cmd":"single","Labels":null,
        "Volumes":null,"ExposedPorts":null},
        "rootfs":{"type":"layers","diff_ids":null}})",
                                        "c"));
  EXPECT_THAT(document.config.env, IsEmpty());
  EXPECT_THAT(document.config.cmd, ElementsAre("single"));
  EXPECT_THAT(document.diff_ids, IsEmpty());
  EXPECT_OK(
      ParseImageConfig(R"({"config":null,"rootfs":{"type":"layers"}})", "c"));
}

// `healthcheck` is JSON.
absl::StatusOr<ConfigDocument> WithHealthcheck(absl::string_view healthcheck) {
  return ParseImageConfig(
      absl::StrCat(R"({"config":{"Healthcheck":)", healthcheck,
                   R"(},"rootfs":{"type":"layers"}})"),
      "c");
}

TEST(ConfigTest, ReadsTheHealthCheck) {
  ASSERT_OK_AND_ASSIGN(
      ConfigDocument document,
      WithHealthcheck(R"({"Test":["CMD-SHELL","exit 1"],"Interval":5000000000,
          "Timeout":1500000000,"StartPeriod":60000000000,
          "StartInterval":1000000,"Retries":7})"));
  const std::optional<HealthCheck>& health = document.config.health;
  ASSERT_TRUE(health.has_value());
  EXPECT_THAT(health->test, ElementsAre("CMD-SHELL", "exit 1"));
  EXPECT_EQ(health->interval, absl::Seconds(5));
  EXPECT_EQ(health->timeout, absl::Milliseconds(1500));
  EXPECT_EQ(health->start_period, absl::Minutes(1));
  EXPECT_EQ(health->start_interval, absl::Milliseconds(1));
  EXPECT_EQ(health->retries, 7);
}

TEST(ConfigTest, AHealthCheckHasDefaultsForWhatIsNotSaid) {
  for (const char* rest :
       {"", R"(,"Interval":0,"Timeout":0,"StartPeriod":0,"Retries":0)",
        R"(,"Interval":-1,"Timeout":999999,"StartPeriod":-1,
            "StartInterval":null,"Retries":-1)"}) {
    ASSERT_OK_AND_ASSIGN(
        ConfigDocument document,
        WithHealthcheck(absl::StrCat(R"({"Test":["CMD","p"])", rest, "}")));
    const HealthCheck& health = *document.config.health;
    EXPECT_EQ(health.interval, absl::Seconds(30));
    EXPECT_EQ(health.timeout, absl::Seconds(30));
    EXPECT_EQ(health.start_period, absl::ZeroDuration());
    EXPECT_EQ(health.start_interval, absl::Seconds(5));
    EXPECT_EQ(health.retries, 3);
  }
  EXPECT_THAT(WithHealthcheck(R"({"Test":["NONE"]})")->config.health->test,
              ElementsAre("NONE"));
  for (const char* none : {"null", "{}", R"({"Test":[]})", R"({"Test":[""]})",
                           R"({"Test":["CMD"]})", R"({"Test":["HTTP","/"]})"}) {
    EXPECT_EQ(WithHealthcheck(none)->config.health.has_value(), false) << none;
  }
}

TEST(ConfigTest, RefusesBadFields) {
  const struct {
    const char* text;
    const char* error;
  } cases[] = {
      {"{}", "c: rootfs: missing"},
      {R"({"rootfs":{"type":"zip"}})", "c: rootfs.type: \"zip\""},
      {R"({"rootfs":{"type":"layers","diff_ids":["sha256:x"]}})",
       "c: rootfs.diff_ids[0]: \"sha256:x\" is not a digest"},
      {R"({"rootfs":{"type":"layers","diff_ids":{}}})",
       "c: rootfs.diff_ids: expected an array"},
      {R"({"config":[],"rootfs":{"type":"layers"}})",
       "c: config: expected an object"},
      {R"({"config":{"Env":"A=1"},"rootfs":{"type":"layers"}})",
       "c: config.Env: expected an array"},
      {R"({"config":{"Cmd":[1]},"rootfs":{"type":"layers"}})",
       "c: config.Cmd[0]: expected a string"},
      {R"({"config":{"Env":["A=\u0000"]},"rootfs":{"type":"layers"}})",
       "c: config.Env[0]: a string with a NUL"},
      {R"({"os":7,"rootfs":{"type":"layers"}})", "c: os: expected a string"},
      {R"({"os":"a\nb","rootfs":{"type":"layers"}})",
       "c: os: \"a\\nb\", expected up to 64 letters"},
      {R"({"os":"a","os":"b"})", "occurs twice"},
      {R"({"config":{"Healthcheck":[]},"rootfs":{"type":"layers"}})",
       "c: config.Healthcheck: expected an object"},
      {R"({"config":{"Healthcheck":{"Test":"x"}},"rootfs":{"type":"layers"}})",
       "c: config.Healthcheck.Test: expected an array"},
      {R"({"config":{"Healthcheck":{"Interval":1.5}},"rootfs":{}})",
       "c: config.Healthcheck.Interval: expected an integer"},
      {R"({"config":{"Healthcheck":{"Retries":2147483648}},"rootfs":{}})",
       "c: config.Healthcheck.Retries: 2147483648 is not from"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParseImageConfig(c.text, "c"),
                StatusIs(kInvalid, HasSubstr(c.error)))
        << c.text;
  }
}

TEST(DockerManifestTest, ReadsEveryGeneration) {
  ASSERT_OK_AND_ASSIGN(auto images, ParseDockerManifest(R"([
      {"Config":"a.json","RepoTags":["x:1","x:2"],"Layers":["l/layer.tar"]},
      {"Config":"blobs/sha256/b","RepoTags":null,"Layers":null,"Parent":"p",
       "LayerSources":{}}])",
                                                        "manifest.json"));
  ASSERT_EQ(images.size(), 2u);
  EXPECT_EQ(images[0].where, "manifest.json: [0]");
  EXPECT_THAT(images[0].repo_tags, ElementsAre("x:1", "x:2"));
  EXPECT_THAT(images[0].layers, ElementsAre("l/layer.tar"));
  EXPECT_THAT(images[1].repo_tags, IsEmpty());
  EXPECT_THAT(images[1].layers, IsEmpty());

  EXPECT_THAT(ParseDockerManifest("{}", "m"),
              StatusIs(kInvalid, "m: expected an array, found object"));
  EXPECT_THAT(ParseDockerManifest("null", "m"),
              StatusIs(kInvalid, "m: expected an array, found null"));
  EXPECT_THAT(ParseDockerManifest("[null]", "m"),
              StatusIs(kInvalid, "m: [0]: expected an object, found null"));
  EXPECT_THAT(ParseDockerManifest("[{}]", "m"),
              StatusIs(kInvalid, "m: [0].Config: missing"));
}

TEST(LegacyTest, ReadsRepositoriesAndMakesAConfig) {
  const std::string id(64, 'a');
  ASSERT_OK_AND_ASSIGN(
      auto names,
      ParseRepositories(absl::StrCat(R"({"busybox":{"1":")", id, R"("}})"),
                        "repositories"));
  EXPECT_THAT(names, ElementsAre(Pair("busybox:1", id)));
  EXPECT_THAT(ParseRepositories(R"({"b":{"1":"../x"}})", "repositories"),
              StatusIs(kInvalid, HasSubstr("is not an image id")));
  EXPECT_THAT(ParseRepositories(R"({"b":1})", "repositories"),
              StatusIs(kInvalid, HasSubstr("expected an object")));

  const std::string text = absl::StrCat(
      R"({"id":"x","parent":")", id,
      R"(","os":"linux","architecture":"amd64","config":{"Cmd":["sh"]},)"
      R"("Size":3})");
  ASSERT_OK_AND_ASSIGN(LegacyImage image, ParseLegacyImage(text, "j"));
  EXPECT_EQ(image.parent, id);
  EXPECT_THAT(ParseLegacyImage(R"({"parent":"../../x"})", "j"),
              StatusIs(kInvalid, HasSubstr("is not an image id")));
  ASSERT_OK_AND_ASSIGN(
      std::string config,
      ConfigFromLegacyImage(text, "j", {Digest::Of("a"), Digest::Of("b")}));
  ASSERT_OK_AND_ASSIGN(ConfigDocument document, ParseImageConfig(config, "c"));
  EXPECT_THAT(document.config.cmd, ElementsAre("sh"));
  EXPECT_THAT(document.diff_ids, ElementsAre(Digest::Of("a"), Digest::Of("b")));
  EXPECT_EQ(config.find("parent"), std::string::npos);
  EXPECT_EQ(config.find("Size"), std::string::npos);
}

TEST(LayerTest, KnowsMediaTypes) {
  Descriptor layer{.where = "layers[0]", .digest = Digest::Of("")};
  for (const char* type :
       {kLayerType, "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip"}) {
    layer.media_type = type;
    EXPECT_OK(CheckLayerMediaType(layer));
    EXPECT_FALSE(IsNonDistributable(layer));
  }
  layer.media_type =
      "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
  EXPECT_OK(CheckLayerMediaType(layer));
  EXPECT_TRUE(IsNonDistributable(layer));
  layer.media_type = absl::StrCat(kLayerType, "+encrypted");
  EXPECT_THAT(CheckLayerMediaType(layer),
              StatusIs(kUnimplemented, HasSubstr("encrypted layer")));
  layer.media_type = "";
  EXPECT_THAT(CheckLayerMediaType(layer),
              StatusIs(kUnimplemented, HasSubstr("is not a layer")));
}

}  // namespace
}  // namespace caisson::layer
