// File descriptors as values.
//
// UniqueFd owns one descriptor and closes it; BorrowedFd refers to one that
// somebody else keeps open for as long as the call (or the object that takes
// it) says. Descriptor 0 is valid in both; -1 means "none".
//
//   caisson::UniqueFd fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
//   Use(fd.borrow());
//
// Thread-compatible.
#ifndef CAISSON_UNIQUE_FD_H_
#define CAISSON_UNIQUE_FD_H_

#include <utility>

namespace caisson {

// A descriptor that is owned elsewhere. Never closes.
class BorrowedFd final {
 public:
  constexpr BorrowedFd() = default;
  constexpr explicit BorrowedFd(int fd) : fd_(fd) {}

  constexpr int get() const { return fd_; }
  constexpr bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// Owns a descriptor; the destructor closes it and keeps errno.
class [[nodiscard]] UniqueFd final {
 public:
  constexpr UniqueFd() = default;
  constexpr explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  BorrowedFd borrow() const { return BorrowedFd(fd_); }

  // Gives up ownership and returns the descriptor.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

  // Closes what is held and takes `fd`.
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

}  // namespace caisson

#endif  // CAISSON_UNIQUE_FD_H_
