#include "lib/layer/buffered_input.h"

#include <string.h>

#include <algorithm>

#include "lib/base/status_macros.h"

namespace caisson::layer {

absl::StatusOr<absl::string_view> BufferedInput::Peek(size_t count) {
  if (end_ - begin_ < count && begin_ > 0) {
    ::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  while (end_ - begin_ < count) {
    ASSIGN_OR_RETURN(
        const size_t got,
        source_.Read(absl::MakeSpan(buffer_.get() + end_, kCapacity - end_)));
    if (got == 0) break;
    end_ += got;
  }
  return absl::string_view(buffer_.get() + begin_, end_ - begin_);
}

absl::StatusOr<size_t> BufferedInput::Read(absl::Span<char> buffer) {
  size_t got = std::min(buffer.size(), end_ - begin_);
  if (got > 0) {
    ::memcpy(buffer.data(), buffer_.get() + begin_, got);
    begin_ += got;
  } else {
    ASSIGN_OR_RETURN(got, source_.Read(buffer));
  }
  offset_ += got;
  return got;
}

}  // namespace caisson::layer
