#include "lib/keeper/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <iterator>

namespace caisson::keeper {
namespace {

constexpr size_t kChunk = 64 << 10;

void MakeNonblocking(BorrowedFd fd) {
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
}

}  // namespace

// ---- Output ----------------------------------------------------------------

Output::~Output() {
  if (source_.valid()) loop_.Forget(source_);
  while (!sinks_.empty()) Remove(sinks_.begin());
}

void Output::Begin(BorrowedFd source) {
  source_ = source;
  ended_ = false;
  MakeNonblocking(source_);
  Watch();
}

void Output::Attach(UniqueFd sink) {
  MakeNonblocking(sink.borrow());
  sinks_.push_back({std::move(sink), ""});
  WatchReader(std::prev(sinks_.end()));
}

// A pipe whose reader is gone tells so at any time (POLLERR).
void Output::WatchReader(std::list<Sink>::iterator sink) {
  loop_.Watch(sink->fd.borrow(), 0, [this, sink] { Remove(sink); });
}

bool Output::pending() const {
  for (const Sink& sink : sinks_) {
    if (!sink.pending.empty()) return true;
  }
  return false;
}

void Output::Watch() {
  if (ended_) return;
  for (const Sink& sink : sinks_) {
    if (!sink.closing && sink.pending.size() >= kMaxPending) {
      loop_.Forget(source_);
      return;
    }
  }
  loop_.Watch(source_, POLLIN, [this] {
    Move();
    Watch();
  });
}

size_t Output::Move() {
  char buffer[kChunk];
  const ssize_t size = ::read(source_.get(), buffer, sizeof(buffer));
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  if (size <= 0) {
    loop_.Forget(source_);
    ended_ = true;
    return 0;
  }
  const absl::string_view bytes(buffer, static_cast<size_t>(size));
  if (log_) log_(bytes);
  for (auto sink = sinks_.begin(); sink != sinks_.end();) {
    const auto current = sink++;
    if (current->closing) continue;
    current->pending.append(bytes.data(), bytes.size());
    FlushAndWatch(current);
  }
  return bytes.size();
}

void Output::Finish() {
  // Whoever else writes there does not count any more.
  constexpr size_t kMost = 1 << 20;  // fs.pipe-max-size
  for (size_t done = 0; !ended_ && done < kMost;) {
    const size_t size = Move();
    if (size == 0) break;
    done += size;
  }
  if (source_.valid()) loop_.Forget(source_);
  source_ = BorrowedFd();
  ended_ = true;
  for (auto sink = sinks_.begin(); sink != sinks_.end();) {
    const auto current = sink++;
    current->closing = true;
    if (current->pending.empty()) Remove(current);
  }
}

bool Output::Flush(Sink& sink) {
  while (!sink.pending.empty()) {
    const ssize_t size =
        ::write(sink.fd.get(), sink.pending.data(), sink.pending.size());
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    sink.pending.erase(0, static_cast<size_t>(size));
  }
  return true;
}

void Output::FlushAndWatch(std::list<Sink>::iterator sink) {
  if (!Flush(*sink)) {
    Remove(sink);
    return;
  }
  if (sink->pending.empty()) {
    if (sink->closing) {
      Remove(sink);
    } else {
      WatchReader(sink);
    }
    return;
  }
  loop_.Watch(sink->fd.borrow(), POLLOUT, [this, sink] {
    FlushAndWatch(sink);
    Watch();
    if (ended_ && !pending() && drained_) drained_();
  });
}

void Output::Remove(std::list<Sink>::iterator sink) {
  loop_.Forget(sink->fd.borrow());
  sinks_.erase(sink);
}

// ---- Input -----------------------------------------------------------------

void Input::Begin(UniqueFd sink, bool once) {
  sink_ = std::move(sink);
  once_ = once;
  close_when_written_ = false;
  MakeNonblocking(sink_.borrow());
  Watch();
}

void Input::Finish() {
  CloseSink();
  for (const UniqueFd& source : sources_) loop_.Forget(source.borrow());
  sources_.clear();
  pending_.clear();
}

void Input::Attach(UniqueFd source) {
  if (!sink_.valid()) return;
  MakeNonblocking(source.borrow());
  sources_.push_back(std::move(source));
  Watch();
}

void Input::CloseSink() {
  if (sink_.valid()) loop_.Forget(sink_.borrow());
  sink_.reset();
}

void Input::Watch() {
  for (auto source = sources_.begin(); source != sources_.end(); ++source) {
    if (pending_.empty()) {
      loop_.Watch(source->borrow(), POLLIN, [this, source] { Read(source); });
    } else {
      loop_.Forget(source->borrow());
    }
  }
}

void Input::Read(std::list<UniqueFd>::iterator source) {
  char buffer[kChunk];
  const ssize_t size = ::read(source->get(), buffer, sizeof(buffer));
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size > 0) {
    pending_.assign(buffer, static_cast<size_t>(size));
    Write();
    return;
  }
  loop_.Forget(source->borrow());
  sources_.erase(source);
  if (!once_) return;
  close_when_written_ = true;
  if (pending_.empty()) CloseSink();
}

void Input::Write() {
  while (!pending_.empty() && sink_.valid()) {
    const ssize_t size = ::write(sink_.get(), pending_.data(), pending_.size());
    if (size > 0) {
      pending_.erase(0, static_cast<size_t>(size));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      loop_.Watch(sink_.borrow(), POLLOUT, [this] { Write(); });
      Watch();
      return;
    }
    CloseSink();  // nobody reads any more
  }
  if (sink_.valid()) loop_.Forget(sink_.borrow());
  pending_.clear();
  if (close_when_written_) CloseSink();
  Watch();
}

}  // namespace caisson::keeper
