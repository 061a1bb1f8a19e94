#include "examples/containers/arguments.h"

#include <getopt.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace containers {
namespace {

constexpr int kFirstLong = 256;

void PrintHelp(const Syntax& syntax, const std::vector<Flag>& flags) {
  std::cout << absl::StrFormat("usage: containers %s %s\n\n%s\n", syntax.name,
                               syntax.arguments, syntax.summary);
  if (!flags.empty()) std::cout << "\n";
  for (const Flag& flag : flags) {
    const std::string letter =
        flag.letter != 0 ? absl::StrCat("-", std::string(1, flag.letter), ",")
                         : "";
    const std::string name = flag.value != nullptr
                                 ? absl::StrCat(flag.name, " ", flag.value)
                                 : flag.name;
    std::cout << absl::StrFormat("  %3s --%-31s %s\n", letter, name, flag.help);
  }
}

// One option, as getopt_long(3) has found it.
void Set(const Syntax& syntax, const std::vector<Flag>& flags, int found) {
  const auto flag =
      std::find_if(flags.begin(), flags.end(), [&](const Flag& f) {
        return found >= kFirstLong
                   ? &f == &flags[static_cast<size_t>(found - kFirstLong)]
                   : f.letter == found;
      });
  if (flag == flags.end()) {
    throw Failure{absl::StrCat("see containers ", syntax.name, " --help")};
  }
  try {
    flag->set(optarg != nullptr ? optarg : "");
  } catch (const Failure& failure) {
    throw Failure{absl::StrCat("--", flag->name, " ", failure.message)};
  }
}

}  // namespace

void Check(const absl::Status& status) {
  if (!status.ok()) throw Failure{std::string(status.message())};
}

Flag Switch(char letter, const char* name, const char* help, bool& value) {
  return {letter, name, nullptr, help,
          [&value](const std::string&) { value = true; }};
}

Flag Text(char letter, const char* name, const char* value_name,
          const char* help, std::string& value) {
  return {letter, name, value_name, help,
          [&value](const std::string& text) { value = text; }};
}

Flag List(char letter, const char* name, const char* value_name,
          const char* help, std::vector<std::string>& values) {
  return {letter, name, value_name, help,
          [&values](const std::string& text) { values.push_back(text); }};
}

int ParseNumber(const std::string& text, int min, int max) {
  int value = 0;
  if (absl::SimpleAtoi(text, &value) && value >= min && value <= max) {
    return value;
  }
  throw Failure{absl::StrFormat("\"%s\": expected a number from %d to %d", text,
                                min, max)};
}

std::vector<std::string> Parse(const Syntax& syntax,
                               const std::vector<Flag>& flags,
                               const std::vector<std::string>& words) {
  // "+": stops at the first word that is no option.
  std::string letters = syntax.words_of_a_program ? "+h" : "h";
  std::vector<option> names = {{"help", no_argument, nullptr, 'h'}};
  for (size_t i = 0; i < flags.size(); ++i) {
    const bool takes = flags[i].value != nullptr;
    names.push_back({flags[i].name, takes ? 1 : 0, nullptr,
                     kFirstLong + static_cast<int>(i)});
    if (flags[i].letter == 0) continue;
    absl::StrAppend(&letters, std::string(1, flags[i].letter),
                    takes ? ":" : "");
  }
  names.push_back({});

  std::string program = absl::StrCat("containers ", syntax.name);
  std::vector<std::string> copies = words;  // getopt_long changes their order
  std::vector<char*> argv = {program.data()};
  for (std::string& word : copies) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int argc = static_cast<int>(argv.size()) - 1;
  optind = 0;
  for (int found; (found = getopt_long(argc, argv.data(), letters.c_str(),
                                       names.data(), nullptr)) != -1;) {
    if (found == 'h') {
      PrintHelp(syntax, flags);
      std::exit(0);
    }
    Set(syntax, flags, found);
  }
  std::vector<std::string> rest(argv.begin() + optind, argv.end() - 1);
  if (rest.size() < syntax.min_words ||
      (syntax.max_words != 0 && rest.size() > syntax.max_words)) {
    throw Failure{absl::StrCat("expected ", syntax.arguments,
                               "; see containers ", syntax.name, " --help")};
  }
  return rest;
}

}  // namespace containers
