// Runs a command line, a container runtime's, once for each byte that arrives
// on standard input, waits for its end and answers how long that took, in
// nanoseconds, as 8 bytes. The process is spawned without a copy of this one
// (posix_spawn(3) is CLONE_VM and CLONE_VFORK).
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <iostream>

extern char** environ;

namespace {

uint64_t Now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000u +
         static_cast<uint64_t>(time.tv_nsec);
}

// Has no input and no output but its errors.
class Command {
 public:
  explicit Command(char** argv) : argv_(argv) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null",
                                     O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions_, STDOUT_FILENO, "/dev/null",
                                     O_WRONLY, 0);
    posix_spawnattr_init(&attributes_);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGPIPE);  // which bench/compare ignores
    posix_spawnattr_setsigdefault(&attributes_, &signals);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGDEF);
  }
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  ~Command() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&actions_);
  }

  bool Run() {
    pid_t pid;
    const int error =
        posix_spawn(&pid, argv_[0], &actions_, &attributes_, argv_, environ);
    if (error != 0) {
      std::cerr << "peer: posix_spawn(" << argv_[0] << "): " << strerror(error)
                << "\n";
      return false;
    }
    int status = 0;
    if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
        WEXITSTATUS(status) == 0) {
      return true;
    }
    std::cerr << "peer: " << argv_[0] << " failed, wait status " << status
              << "\n";
    return false;
  }

 private:
  char** argv_;
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argv[1][0] != '/') {
    std::cerr << "usage: peer /PROGRAM [ARGUMENT...]\n";
    return 2;
  }
  Command command(argv + 1);
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    const uint64_t start = Now();
    if (!command.Run()) return 1;
    const uint64_t duration = Now() - start;
    if (write(STDOUT_FILENO, &duration, sizeof(duration)) != sizeof(duration)) {
      break;
    }
  }
  return 0;
}
