// A host with 64 threads: 56 allocate, log, fork, execute, collect children and
// get signals all the time, and 8 start containers.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "caisson/launcher.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"
#include "tests/host_safety/scenario.h"
#include "tests/host_safety/workload.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::LeavesTheHostAlone;
using ::caisson::testing::Passes;
using ::caisson::testing::StartOne;
using ::caisson::testing::TestRoot;

#ifdef CAISSON_SANITIZED
constexpr int kStarts = 300;
#else
constexpr int kStarts = 2000;
#endif
constexpr int kAllocators = 32;
constexpr int kLoggers = 14;
constexpr int kForkers = 4;
constexpr int kSignallers = 5;
constexpr int kStarters = 8;

std::atomic<int> signals_handled{0};

void Handler(int) { ++signals_handled; }

void Nap(int microseconds) {
  timespec time = {0, microseconds * 1000};
  ::nanosleep(&time, nullptr);
}

// The threads of a busy host. All of them pause while it is looked at.
class BusyHost {
 public:
  BusyHost() {
    // Without SA_RESTART: every call of every thread is interrupted.
    struct sigaction action = {};
    action.sa_handler = Handler;
    ::sigaction(SIGUSR1, &action, nullptr);
    ::sigaction(SIGCHLD, &action, nullptr);
    for (int i = 0; i < kAllocators; ++i) Add([this] { Allocate(); });
    for (int i = 0; i < kLoggers; ++i) Add([this] { Log(); });
    for (int i = 0; i < kForkers; ++i) Add([this] { Fork(); });
    for (int i = 0; i < kSignallers; ++i) Add([this] { Signal(); });
    Add([this] { Collect(); });
  }

  ~BusyHost() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      paused_ = false;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    ::fclose(log_);
  }

  // Returns once every thread rests and every child was collected.
  void Pause() {
    std::unique_lock<std::mutex> lock(mutex_);
    paused_ = true;
    wake_.wait(lock, [this] { return resting_ == threads_.size(); });
  }
  void Resume() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      paused_ = false;
    }
    wake_.notify_all();
  }

  // What went wrong with the host's own children; empty if nothing did.
  std::string Complaints() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (forked_ == 0) return "no child was forked";
    if (signals_handled == 0) return "no signal came";
    return complaints_;
  }

 private:
  void Add(std::function<void()> work) {
    std::lock_guard<std::mutex> lock(mutex_);
    threads_.emplace_back(std::move(work));
    ids_.push_back(threads_.back().native_handle());
  }

  // False when it is time to end. Rests while the host is paused, unless
  // children have to be collected first.
  bool GoOn(bool collector = false) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (paused_ && !stopping_) {
      if (collector && (resting_ + 1 < threads_.size() || !children_.empty())) {
        return true;
      }
      ++resting_;
      wake_.notify_all();
      wake_.wait(lock, [this] { return !paused_ || stopping_; });
      --resting_;
    }
    return !stopping_ || (collector && !children_.empty());
  }

  void Allocate() {
    for (size_t size = 1; GoOn(); size = size * 7 % 100003 + 1) {
      std::string block(size, 'x');
      std::vector<std::string> more(size % 17, block.substr(0, size % 301));
      Nap(900);
    }
  }

  void Log() {
    while (GoOn()) {
      const time_t now = ::time(nullptr);
      tm parts;
      ::localtime_r(&now, &parts);
      fprintf(log_, "%d:%d %s\n", parts.tm_hour, parts.tm_min,
              ::strerror(ENOENT));
      ::fflush(log_);
      Nap(900);
    }
  }

  void Fork() {
    while (GoOn()) {
      {
        // So that Collect() knows the child before it can see its end.
        std::lock_guard<std::mutex> lock(mutex_);
        const pid_t child = ::fork();
        if (child == 0) {
          ::execl("/bin/true", "true", static_cast<char*>(nullptr));
          ::_exit(1);
        }
        if (child > 0) {
          children_.insert(child);
          ++forked_;
        }
      }
      Nap(20000);
    }
  }

  void Collect() {
    while (GoOn(/*collector=*/true)) {
      int status = -1;
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid <= 0) {
        Nap(500);
        continue;
      }
      std::lock_guard<std::mutex> lock(mutex_);
      if (children_.erase(pid) == 0) {
        absl::StrAppend(&complaints_, "collected ", pid,
                        ", which is not the host's\n");
      }
      if (status != 0) {
        absl::StrAppend(&complaints_, "child with status ", status, "\n");
      }
    }
  }

  void Signal() {
    for (size_t i = 0; GoOn(); ++i) {
      pthread_t thread;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        thread = ids_[i % ids_.size()];
      }
      ::pthread_kill(thread, SIGUSR1);
      ::kill(::getpid(), SIGUSR1);
      Nap(1500);
    }
  }

  FILE* const log_ = ::fopen("/dev/null", "we");
  std::mutex mutex_;
  std::condition_variable wake_;
  bool paused_ = false;
  bool stopping_ = false;
  size_t resting_ = 0;
  std::set<pid_t> children_;
  int forked_ = 0;
  std::string complaints_;
  std::vector<std::thread> threads_;
  std::vector<pthread_t> ids_;
};

// Starts containers from several threads; the first error.
absl::Status StartFromThreads(const TestRoot& root) {
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create());
  std::atomic<int> next{0};
  std::mutex mutex;
  absl::Status first;
  std::vector<std::thread> threads;
  for (int i = 0; i < kStarters; ++i) {
    threads.emplace_back([&] {
      for (int number; (number = next++) < kStarts;) {
        const absl::Status status = StartOne(launcher, root, number);
        if (status.ok()) continue;
        std::lock_guard<std::mutex> lock(mutex);
        first.Update(status);
        next = kStarts;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  first.Update(launcher.Shutdown());
  return first;
}

absl::Status Busy() {
  const TestRoot root;
  BusyHost host;
  host.Pause();
  RETURN_IF_ERROR(LeavesTheHostAlone([&] {
    host.Resume();
    absl::Status status = StartFromThreads(root);
    host.Pause();
    return status;
  }));
  const std::string complaints = host.Complaints();
  host.Resume();
  if (complaints.empty()) return absl::OkStatus();
  return absl::InternalError(complaints);
}

TEST(ThreadsTest, BusyHost) { EXPECT_TRUE(Passes("busy")); }

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsOrScenario(argc, argv,
                                              {{"busy", caisson::Busy}});
}
