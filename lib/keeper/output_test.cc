#include "lib/keeper/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "absl/strings/string_view.h"
#include "gtest/gtest.h"

namespace caisson::keeper {
namespace {

// What somebody else goes on writing does not keep a container from ending.
TEST(OutputTest, FinishTakesWhatAPipeHolds) {
  constexpr size_t kPipe = 1 << 20;  // fs.pipe-max-size
  constexpr size_t kMuch = 16 * kPipe;
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd reader(fds[0]);
  const UniqueFd writer(fds[1]);
  const auto write = [&](absl::string_view bytes) {
    EXPECT_EQ(::write(writer.get(), bytes.data(), bytes.size()),
              static_cast<ssize_t>(bytes.size()));
  };
  Loop loop;
  size_t taken = 0;
  Output output(loop, [&](absl::string_view bytes) {
    taken += bytes.size();
    if (taken < kMuch) write(bytes);
  });
  write(std::string(4096, 'x'));
  output.Begin(reader.borrow());
  output.Finish();
  EXPECT_GE(taken, kPipe);
  EXPECT_LT(taken, 2 * kPipe);
}

}  // namespace
}  // namespace caisson::keeper
