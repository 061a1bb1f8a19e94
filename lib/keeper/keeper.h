// The keeper of one container: see doc/container.md.
#ifndef CAISSON_LIB_KEEPER_KEEPER_H_
#define CAISSON_LIB_KEEPER_KEEPER_H_

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/container.h"
#include "caisson/launcher.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/health.h"
#include "lib/keeper/loop.h"
#include "lib/keeper/output.h"
#include "lib/keeper/restart_policy.h"
#include "lib/keeper/wire.h"
#include "lib/logs/log_writer.h"

namespace caisson::keeper {

// What a keeper is made with.
struct KeeperTask {
  Request::Start request;
  UniqueFd starter;               // the socket of whoever asked for the start
  UniqueFd lock;                  // ContainerDirectory::LockForKeeper()
  UniqueFd listening;             // ContainerDirectory::Listen()
  UniqueFd termination;           // a signalfd for SIGTERM
  std::vector<UniqueFd> streams;  // of request.attach
};

// One thread, one loop. Not thread-safe.
class Keeper final {
 public:
  Keeper(StoreDirectory store, ContainerDirectory directory, KeeperTask task);
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // Starts the container, tells whoever asked for it, and keeps it until it has
  // ended and is not to be started again.
  void Run();

 private:
  struct Connection {
    UniqueFd socket;
    bool waits = false;  // for the end of the run, once that has begun
  };
  using ConnectionPtr = std::shared_ptr<Connection>;
  struct ExecJob {
    Process process;
    ConnectionPtr connection;  // of whoever waits for its end
    std::string id;
    UniqueFd terminal;  // once nobody else reads it
  };
  struct Probe {
    Process process;
    UniqueFd out;
    Loop::Timer timeout;
  };

  // ---- A run
  absl::Status Begin();
  absl::Status LoadRecord();
  absl::Status OpenLog();
  absl::Status StartRun();
  void BeginStreams();
  void OnExit();
  void FinishRun(const ExitStatus& exit);
  void AfterRun();
  absl::Status StartAgain();
  void OnTermination();
  void RecordFailure(const absl::Status& status);
  void End();

  // ---- Requests: keeper_requests.cc
  void Listen();
  void Accept();
  void OnRequest(const ConnectionPtr& connection);
  void Handle(const ConnectionPtr& connection, const Request& request,
              std::vector<UniqueFd> descriptors);
  void HandleAlive(const ConnectionPtr& connection, const Request& request,
                   std::vector<UniqueFd> descriptors);
  void HandleStart(const ConnectionPtr& connection, const Request::Start& start,
                   std::vector<UniqueFd> descriptors);
  void HandleLeave(const ConnectionPtr& connection);
  void HandleStop(const ConnectionPtr& connection, const Request::Stop& stop);
  void BeginStop(absl::Duration grace);
  absl::Status HandleKill(int signal);
  absl::Status HandlePause(bool pause);
  absl::Status HandleUpdate(const Request::Update& update);
  void HandleAttach(const ConnectionPtr& connection, const Streams& streams,
                    std::vector<UniqueFd> descriptors);
  void HandleExec(const ConnectionPtr& connection, const ExecRequest& exec,
                  std::vector<UniqueFd> descriptors);
  void HandleStats(const ConnectionPtr& connection);
  void HandleRoot(const ConnectionPtr& connection);
  void AttachOutputs(const Streams& streams,
                     std::vector<UniqueFd>& descriptors);
  absl::Status Resize(uint32_t rows, uint32_t columns);
  absl::StatusOr<Process> StartExec(const ExecRequest& exec,
                                    std::vector<UniqueFd>& descriptors);
  void OnExecClient(std::list<ExecJob>::iterator job);
  void OnExecExit(std::list<ExecJob>::iterator job);
  absl::Status Thaw();
  void Answer(const ConnectionPtr& connection, const absl::Status& status);
  void AnswerBegun(const ConnectionPtr& connection, const absl::Status& status);
  void TellEnd();
  void Close(const ConnectionPtr& connection);
  bool Alive() const { return run_ != nullptr; }
  bool HasEnded() const;
  absl::Status NotRunning() const;

  // ---- Health: keeper_health.cc
  void BeginHealth();
  void ContinueHealth();
  void EndHealth();
  void ScheduleProbe();
  void BeginProbe();
  void ReadProbe();
  void EndProbe(bool timed_out);
  void TellHealth(std::optional<HealthStatus> changed);

  // ---- What others see
  void WriteState();
  void FlushEvents();
  void Tell(const std::string& action,
            std::map<std::string, std::string> attributes = {});

  StoreDirectory store_;
  ContainerDirectory directory_;
  KeeperTask task_;
  Places places_;
  Loop loop_;
  ContainerRecord record_;
  ContainerSpec spec_;
  StateRecord state_;
  std::optional<Launcher> launcher_;
  std::unique_ptr<Composition> run_;
  std::optional<logs::LogWriter> log_;
  std::optional<Output> out_;
  std::optional<Output> err_;
  UniqueFd out_pipe_;
  UniqueFd err_pipe_;
  UniqueFd slave_;  // of the terminal
  Input in_;
  UniqueFd first_input_;  // of whoever was attached before the start
  std::vector<ConnectionPtr> waiting_;   // for the end of a run
  std::vector<ConnectionPtr> stopping_;  // for the end because of Stop
  std::vector<ConnectionPtr> restarting_;
  std::vector<ConnectionPtr> removing_;  // told, and waiting for the removal
  std::list<ExecJob> execs_;
  uint64_t exec_serial_ = 0;
  std::optional<RestartDecider> decider_;
  std::optional<TerminalSize> terminal_size_;  // the last one
  std::optional<HealthMonitor> health_;
  std::optional<Probe> probe_;
  Loop::Timer probe_timer_ = 0;
  Loop::Timer kill_timer_ = 0;
  absl::Duration kill_at_;
  std::deque<ContainerEvent> events_;  // that were not written yet
  Loop::Timer events_timer_ = 0;
  Loop::Timer restart_timer_ = 0;
  Loop::Timer end_timer_ = 0;
  bool stopped_by_user_ = false;
  bool restart_at_once_ = false;
  bool terminated_ = false;
  bool ended_ = false;
};

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_KEEPER_H_
