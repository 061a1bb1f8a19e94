// Raw system calls of the freestanding launcher: the one file that differs per
// architecture, besides the entry point at its end.
#ifndef CAISSON_LIB_LAUNCHER_STUB_SYSCALL_H_
#define CAISSON_LIB_LAUNCHER_STUB_SYSCALL_H_

#include <asm/unistd.h>
#include <stdint.h>

namespace caisson::launcher {

// Returns what the kernel returns: a negative errno on failure.
inline long Syscall6(long number, long a, long b, long c, long d, long e,
                     long f) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
                     "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
#else
#error "caisson's launcher knows x86-64 and aarch64"
#endif
}

inline long ToWord(long value) { return value; }
inline long ToWord(int value) { return value; }
inline long ToWord(unsigned value) { return static_cast<long>(value); }
inline long ToWord(unsigned long value) { return static_cast<long>(value); }
inline long ToWord(const void* value) { return reinterpret_cast<long>(value); }

template <typename... Args>
inline long Call(long number, Args... args) {
  static_assert(sizeof...(args) <= 6);
  const long a[6 + 1] = {ToWord(args)..., 0};
  return Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

[[noreturn]] inline void Exit(int status) {
  for (;;) Call(__NR_exit_group, status);
}

}  // namespace caisson::launcher

// The kernel enters here with the stack pointer at argc; it must be 16-byte
// aligned at the call.
#if defined(__x86_64__)
#define CAISSON_LAUNCHER_ENTRY(function)                 \
  __asm__(                                               \
      ".globl _start\n.type _start,@function\n_start:\n" \
      "  xor %ebp, %ebp\n  and $-16, %rsp\n  call " #function "\n  hlt\n")
#else
#define CAISSON_LAUNCHER_ENTRY(function)                 \
  __asm__(                                               \
      ".globl _start\n.type _start,%function\n_start:\n" \
      "  mov x29, #0\n  mov x30, #0\n  bl " #function "\n  brk #1\n")
#endif

#endif  // CAISSON_LIB_LAUNCHER_STUB_SYSCALL_H_
