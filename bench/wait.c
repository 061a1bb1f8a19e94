/* The smallest program that goes on: what runs in the containers of worker's
 * --exec and --memory. */
#include <asm/unistd.h>

void _start(void) {
  for (;;) {
#if defined(__x86_64__)
    register long mask __asm__("r10") = 0;
    register long size __asm__("r8") = 0;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(__NR_ppoll), "D"(0), "S"(0), "d"(0), "r"(mask),
                       "r"(size)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long number __asm__("x8") = __NR_ppoll;
    register long files __asm__("x0") = 0;
    register long count __asm__("x1") = 0;
    register long timeout __asm__("x2") = 0;
    register long mask __asm__("x3") = 0;
    register long size __asm__("x4") = 0;
    __asm__ volatile("svc 0"
                     : "+r"(files)
                     : "r"(number), "r"(count), "r"(timeout), "r"(mask),
                       "r"(size)
                     : "memory");
#endif
  }
}
