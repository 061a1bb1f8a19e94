/* Makes the system calls that its arguments spell, one after another, and
 * prints what each returns: a number, or minus an errno.
 *
 *   syscall_probe NUMBER ARGUMENT... , NUMBER ARGUMENT... , ...
 *
 * An argument is a number, s:TEXT or h:HEX (a pointer to those bytes), b:SIZE
 * (a pointer to zeroes) or $ (what the call before returned). */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long parse(const char* text, long previous) {
  if (strcmp(text, "$") == 0) return previous;
  if (strncmp(text, "s:", 2) == 0) return (long)(text + 2);
  if (strncmp(text, "b:", 2) == 0) {
    return (long)calloc(1, strtoul(text + 2, NULL, 0));
  }
  if (strncmp(text, "h:", 2) == 0) {
    const size_t size = strlen(text + 2) / 2;
    char* bytes = calloc(1, size + 1);
    for (size_t i = 0; i < size; ++i) {
      char digits[3] = {text[2 + 2 * i], text[3 + 2 * i], 0};
      bytes[i] = (char)strtoul(digits, NULL, 16);
    }
    return (long)bytes;
  }
  return (long)strtoull(text, NULL, 0);
}

int main(int argc, char** argv) {
  long previous = 0;
  for (int at = 1; at < argc; ++at) {
    long words[7] = {0};
    for (int i = 0; at < argc && strcmp(argv[at], ",") != 0; ++at, ++i) {
      if (i == 7) return 2;
      words[i] = parse(argv[at], previous);
    }
    errno = 0;
    const long result = syscall(words[0], words[1], words[2], words[3],
                                words[4], words[5], words[6]);
    previous = result == -1 ? -errno : result;
    printf("%ld\n", previous);
    fflush(stdout);
  }
  return 0;
}
