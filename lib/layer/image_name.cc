#include "lib/layer/image_name.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

constexpr char kDefaultRegistry[] = "docker.io";
constexpr char kOfficial[] = "docker.io/library/";
constexpr char kDefaultTag[] = "latest";
// Limits of distribution/reference.
constexpr size_t kMaxRepository = 255;
constexpr size_t kMaxTag = 128;

bool IsLowerAlnum(char c) {
  return absl::ascii_isdigit(c) || absl::ascii_islower(c);
}

// alphanumeric runs joined by ".", "_", "__" or any number of "-".
bool IsPathComponent(absl::string_view text) {
  if (text.empty() || !IsLowerAlnum(text.front()) ||
      !IsLowerAlnum(text.back())) {
    return false;
  }
  for (size_t i = 0; i < text.size();) {
    if (IsLowerAlnum(text[i])) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && !IsLowerAlnum(text[end])) ++end;
    const absl::string_view separator = text.substr(i, end - i);
    const bool dashes = std::all_of(separator.begin(), separator.end(),
                                    [](char c) { return c == '-'; });
    if (!dashes && separator != "." && separator != "_" && separator != "__") {
      return false;
    }
    i = end;
  }
  return true;
}

bool IsPort(absl::string_view text) {
  return !text.empty() && text.size() <= 5 &&
         std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

// host[:port] with a DNS name, an IPv4 address or [IPv6].
bool IsRegistry(absl::string_view text) {
  absl::string_view host = text;
  if (absl::StartsWith(text, "[")) {
    const size_t close = text.find(']');
    if (close == absl::string_view::npos || close == 1) return false;
    host = text.substr(1, close - 1);
    const absl::string_view rest = text.substr(close + 1);
    return std::all_of(
               host.begin(), host.end(),
               [](char c) { return absl::ascii_isxdigit(c) || c == ':'; }) &&
           (rest.empty() || (rest[0] == ':' && IsPort(rest.substr(1))));
  }
  const size_t colon = text.rfind(':');
  if (colon != absl::string_view::npos) {
    if (!IsPort(text.substr(colon + 1))) return false;
    host = text.substr(0, colon);
  }
  for (absl::string_view label : absl::StrSplit(host, '.')) {
    const bool characters = std::all_of(label.begin(), label.end(), [](char c) {
      return absl::ascii_isalnum(c) || c == '-';
    });
    if (label.empty() || !characters || label.front() == '-' ||
        label.back() == '-') {
      return false;
    }
  }
  return true;
}

bool IsTag(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxTag && text[0] != '.' &&
         text[0] != '-' && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '.' || c == '-';
         });
}

bool LooksLikeRegistry(absl::string_view component) {
  return component == "localhost" ||
         std::any_of(component.begin(), component.end(), [](char c) {
           return c == '.' || c == ':' || absl::ascii_isupper(c);
         });
}

absl::Status Invalid(absl::string_view text, absl::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("image name ", Quoted(text.substr(0, 300)), ": ", problem));
}

// Splits "registry/path" and fills in what Docker leaves out.
absl::StatusOr<std::string> ParseRepository(absl::string_view text,
                                            absl::string_view whole) {
  absl::string_view registry = kDefaultRegistry;
  absl::string_view path = text;
  const size_t slash = text.find('/');
  if (slash != absl::string_view::npos &&
      LooksLikeRegistry(text.substr(0, slash))) {
    registry = text.substr(0, slash);
    path = text.substr(slash + 1);
    if (!IsRegistry(registry)) {
      return Invalid(whole,
                     absl::StrCat(Quoted(registry), " is not a host[:port]"));
    }
    if (registry == "index.docker.io") registry = kDefaultRegistry;
  }
  for (absl::string_view component : absl::StrSplit(path, '/')) {
    if (!IsPathComponent(component)) {
      return Invalid(
          whole, absl::StrCat(Quoted(component),
                              " is not a component of a repository: lower-case "
                              "letters and digits, separated by one \".\", one "
                              "or two \"_\", or \"-\""));
    }
  }
  const bool official =
      registry == kDefaultRegistry && path.find('/') == absl::string_view::npos;
  std::string repository =
      absl::StrCat(registry, official ? "/library/" : "/", path);
  if (repository.size() > kMaxRepository) {
    return Invalid(whole,
                   absl::StrCat("longer than ", kMaxRepository, " characters"));
  }
  return repository;
}

}  // namespace

std::string ImageName::Canonical() const {
  return absl::StrCat(repository, ":", tag);
}

std::string ImageName::Familiar() const {
  std::string name = FamiliarName(repository);
  if (!tag.empty()) absl::StrAppend(&name, ":", tag);
  if (digest.has_value()) absl::StrAppend(&name, "@", digest->str());
  return name;
}

absl::StatusOr<ImageName> ParseImageName(absl::string_view text) {
  ImageName name;
  absl::string_view rest = text;
  const size_t at = rest.find('@');
  if (at != absl::string_view::npos) {
    ASSIGN_OR_RETURN(name.digest,
                     Digest::Parse(rest.substr(at + 1),
                                   absl::StrCat("image name ",
                                                Quoted(text.substr(0, 300)))));
    rest = rest.substr(0, at);
  }
  const size_t colon = rest.rfind(':');
  if (colon != absl::string_view::npos &&
      rest.find('/', colon) == absl::string_view::npos) {
    name.tag = std::string(rest.substr(colon + 1));
    if (!IsTag(name.tag)) {
      return Invalid(text, absl::StrCat(Quoted(name.tag.substr(0, 160)),
                                        " is not a tag: 1 to ", kMaxTag,
                                        " letters, digits, \"_\", \".\", "
                                        "\"-\", the first none of \".-\""));
    }
    rest = rest.substr(0, colon);
  } else if (!name.digest.has_value()) {
    name.tag = kDefaultTag;
  }
  if (rest.empty()) return Invalid(text, "the repository is empty");
  ASSIGN_OR_RETURN(name.repository, ParseRepository(rest, text));
  return name;
}

absl::StatusOr<ImageName> ParseTag(absl::string_view text) {
  ASSIGN_OR_RETURN(ImageName name, ParseImageName(text));
  if (name.digest.has_value()) {
    return Invalid(text, "a name with a digest cannot be given to an image");
  }
  if (IsSha256Hex(FamiliarName(name.repository))) {
    return Invalid(text,
                   "64 hexadecimal digits would be taken for an image id");
  }
  return name;
}

std::string FamiliarName(absl::string_view canonical) {
  absl::string_view name = canonical;
  if (absl::ConsumePrefix(&name, kOfficial)) return std::string(name);
  absl::ConsumePrefix(&name, "docker.io/");
  // "docker.io/localhost/a" without its registry would be another name.
  const size_t slash = name.find('/');
  const bool ambiguous = slash != absl::string_view::npos &&
                         LooksLikeRegistry(name.substr(0, slash));
  return std::string(ambiguous ? canonical : name);
}

}  // namespace caisson::layer
