// Features(): what this host offers to containers, and why the rest is missing.
//
//   for (const caisson::Feature& feature : caisson::Features().items) {
//     if (!feature.available) std::cerr << feature.name << ": "
//                                       << feature.detail << "\n";
//   }
//   std::cout << caisson::Features().ToString();
//
// For people, for logs, and for a program that wants to say at its start what
// it will not be able to do. Not for deciding whether a call will succeed: what
// is here can be forbidden in a particular place, and every call of the library
// says by itself what it lacked.
#ifndef CAISSON_FEATURES_H_
#define CAISSON_FEATURES_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace caisson {

struct Feature {
  std::string area;  // "privileges", "files", "cgroups", ...
  std::string name;  // unique: "user namespaces"
  bool available = false;
  // Available: which ("ABI 7"), possibly empty. Otherwise the reason and, where
  // there is something, what to do.
  std::string detail;
};

struct FeatureReport {
  std::vector<Feature> items;  // areas together

  // Null if no item has the name.
  const Feature* Find(absl::string_view name) const;
  // One line for each item, in columns.
  std::string ToString() const;
};

// Looks at the calling thread's privileges and namespaces, at files in /proc,
// /sys and /etc, and tries calls in a short-lived process that has namespaces
// of its own. Nothing of the host changes; kernel modules that are not loaded
// are not loaded by it. Takes some milliseconds. Thread-safe.
FeatureReport Features();

}  // namespace caisson

#endif  // CAISSON_FEATURES_H_
