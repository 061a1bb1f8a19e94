#include "lib/keeper/names.h"

#include <iterator>

#include "absl/strings/str_cat.h"

namespace caisson::keeper {
namespace {

constexpr const char* kManners[] = {
    "able",    "bold",   "brave",  "bright", "brisk",  "calm",    "candid",
    "clever",  "cool",   "crisp",  "daring", "deft",   "eager",   "earnest",
    "fair",    "famous", "frank",  "gentle", "glad",   "hardy",   "honest",
    "jolly",   "keen",   "kind",   "lively", "loyal",  "lucid",   "mellow",
    "merry",   "mighty", "modest", "neat",   "nimble", "patient", "plucky",
    "prudent", "quick",  "quiet",  "ready",  "sharp",  "sober",   "solid",
    "spry",    "steady", "stout",  "sunny",  "tidy",   "trusty",  "upbeat",
    "valiant", "vivid",  "warm",   "wise",   "witty"};

// Who built bridges, tunnels, harbours and ships.
constexpr const char* kEngineers[] = {
    "ammann",     "armstrong", "baker",      "bazalgette", "brassey",
    "brindley",   "brunel",    "cierva",     "coade",      "cubitt",
    "darby",      "dufour",    "eads",       "eiffel",     "ellet",
    "fairbairn",  "fowler",    "freyssinet", "froude",     "gauthey",
    "greathead",  "harrison",  "hennebique", "hodgkinson", "jessop",
    "khan",       "latrobe",   "lesseps",    "locke",      "maillart",
    "mitchell",   "modjeski",  "morandi",    "navier",     "nervi",
    "otis",       "paxton",    "peto",       "perronet",   "rennie",
    "roebling",   "seguin",    "shukhov",    "smeaton",    "steinman",
    "stephenson", "strauss",   "telford",    "torroja",    "trevithick",
    "triger",     "vauban",    "warren",     "whipple"};

}  // namespace

std::string MadeUpName(uint64_t random, int attempt) {
  const std::string name = absl::StrCat(
      kManners[random % std::size(kManners)], "_",
      kEngineers[random / std::size(kManners) % std::size(kEngineers)]);
  return attempt <= 1 ? name : absl::StrCat(name, attempt);
}

}  // namespace caisson::keeper
