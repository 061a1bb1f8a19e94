#include "lib/layer/platform.h"

#include <sys/utsname.h>

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace caisson {
namespace layer {
namespace {

// Names of uname and of other tools for what Go calls by another name.
struct Alias {
  absl::string_view name;
  absl::string_view architecture;
  absl::string_view variant;
};
constexpr Alias kAliases[] = {
    {"x86_64", "amd64", ""},    {"x86-64", "amd64", ""},
    {"i386", "386", ""},        {"i486", "386", ""},
    {"i586", "386", ""},        {"i686", "386", ""},
    {"aarch64", "arm64", "v8"}, {"armv5tel", "arm", "v5"},
    {"armv6l", "arm", "v6"},    {"armhf", "arm", "v7"},
    {"armv7l", "arm", "v7"},    {"armel", "arm", "v6"},
    {"armv8l", "arm", "v7"},    {"loongarch64", "loong64", ""},
};

absl::string_view DefaultVariant(absl::string_view architecture) {
  if (architecture == "amd64") return "v1";
  if (architecture == "arm64") return "v8";
  if (architecture == "arm") return "v7";
  return "";
}

Platform Normalised(const Platform& platform) {
  Platform p{.os = absl::AsciiStrToLower(platform.os),
             .architecture = absl::AsciiStrToLower(platform.architecture),
             .variant = absl::AsciiStrToLower(platform.variant)};
  for (const Alias& alias : kAliases) {
    if (p.architecture != alias.name) continue;
    p.architecture = std::string(alias.architecture);
    if (p.variant.empty()) p.variant = std::string(alias.variant);
    break;
  }
  if (!p.variant.empty() && absl::ascii_isdigit(p.variant[0])) {
    p.variant.insert(0, "v");
  }
  if (p.variant.empty()) {
    p.variant = std::string(DefaultVariant(p.architecture));
  }
  return p;
}

// 7 for "v7", 8 for "v8.1"; 0 for what is not a number.
int VariantNumber(absl::string_view variant) {
  int number = 0;
  const absl::string_view digits =
      variant.substr(0, variant.find('.')).substr(variant.empty() ? 0 : 1);
  return absl::SimpleAtoi(digits, &number) ? number : 0;
}

}  // namespace

int PlatformDistance(const Platform& wanted, const Platform& offered) {
  const Platform want = Normalised(wanted);
  const Platform offer = Normalised(offered);
  if (!offered.os.empty() && offer.os != want.os) return -1;
  if (offered.architecture.empty()) return 0;
  if (offer.architecture != want.architecture) return -1;
  if (offer.variant == want.variant) return 0;
  const int distance =
      VariantNumber(want.variant) - VariantNumber(offer.variant);
  return distance > 0 && VariantNumber(offer.variant) > 0 ? distance : -1;
}

Platform PlatformOfMachine(absl::string_view machine) {
  Platform p =
      Normalised({.os = "linux", .architecture = std::string(machine)});
  if (p.architecture == "amd64") p.variant.clear();
  return p;
}

}  // namespace layer

std::string Platform::ToString() const {
  const char* unknown = "unknown";
  std::string text =
      absl::StrCat(os.empty() ? unknown : os, "/",
                   architecture.empty() ? unknown : architecture);
  if (!variant.empty()) absl::StrAppend(&text, "/", variant);
  return text;
}

Platform HostPlatform() {
  utsname name = {};
  ::uname(&name);
  return layer::PlatformOfMachine(name.machine);
}

}  // namespace caisson
