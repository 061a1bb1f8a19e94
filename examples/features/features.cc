// What this host offers to containers, and why the rest is missing.
#include <iostream>
#include <string>

#include "caisson/caisson.h"

namespace {

constexpr char kUsage[] =
    R"(usage: features [NAME...]

Prints what this host offers to containers, for the user who runs it: one line
for each feature with "yes" or "no" and the reason. Changes nothing.

With names, only says by its exit code whether all of them are available: 0, 1
if one is not (it is printed), 2 if there is no such feature.
)";

}  // namespace

int main(int argc, char** argv) {
  const caisson::FeatureReport report = caisson::Features();
  if (argc == 1) {
    std::cout << report.ToString();
    return 0;
  }
  if (const std::string first = argv[1]; first == "--help" || first == "-h") {
    std::cout << kUsage;
    return 0;
  }
  int code = 0;
  for (int i = 1; i < argc; ++i) {
    const caisson::Feature* feature = report.Find(argv[i]);
    if (feature == nullptr) {
      std::cerr << "features: there is no feature \"" << argv[i] << "\"\n";
      return 2;
    }
    if (feature->available) continue;
    std::cerr << "features: " << feature->name << ": " << feature->detail
              << "\n";
    code = 1;
  }
  return code;
}
