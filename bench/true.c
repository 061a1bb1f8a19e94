/* The smallest program: what the start benchmarks execute. */
#include <asm/unistd.h>

void _start(void) {
  for (;;) {
#if defined(__x86_64__)
    __asm__ volatile("syscall" : : "a"(__NR_exit_group), "D"(0) : "rcx", "r11");
#elif defined(__aarch64__)
    register long number __asm__("x8") = __NR_exit_group;
    register long status __asm__("x0") = 0;
    __asm__ volatile("svc 0" : : "r"(number), "r"(status));
#endif
  }
}
