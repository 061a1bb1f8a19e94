// The command line of `containers`: a table of options for each command, in the
// manner of getopt_long(3), from which --help is printed, too.
#ifndef CAISSON_EXAMPLES_CONTAINERS_ARGUMENTS_H_
#define CAISSON_EXAMPLES_CONTAINERS_ARGUMENTS_H_

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace containers {

// Thrown for what ends a command, so that everything made so far is undone.
struct Failure {
  std::string message;
  int code = 0;  // 0: the command's own
};

void Check(const absl::Status& status);

template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

struct Flag {
  char letter;  // 0: only the long name
  const char* name;
  const char* value;  // what it takes, for --help; null: nothing
  const char* help;
  std::function<void(const std::string&)> set;
};

Flag Switch(char letter, const char* name, const char* help, bool& value);
Flag Text(char letter, const char* name, const char* value_name,
          const char* help, std::string& value);
Flag List(char letter, const char* name, const char* value_name,
          const char* help, std::vector<std::string>& values);

// A whole number from `min` to `max`.
int ParseNumber(const std::string& text, int min, int max);

// What a command is and takes.
struct Syntax {
  const char* name;
  const char* arguments;  // "[OPTIONS] CONTAINER..."
  const char* summary;
  size_t min_words = 0;
  size_t max_words = 0;  // 0: any number
  // What follows the first word belongs to a program in the container.
  bool words_of_a_program = false;
};

// Sets `flags` from `words` and returns the words that are no options. Prints
// the help and ends the process if it is asked for.
std::vector<std::string> Parse(const Syntax& syntax,
                               const std::vector<Flag>& flags,
                               const std::vector<std::string>& words);

}  // namespace containers

#endif  // CAISSON_EXAMPLES_CONTAINERS_ARGUMENTS_H_
