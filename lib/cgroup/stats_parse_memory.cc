// memory.stat, memory.numa_stat and memory.events.
#include <unistd.h>

#include "absl/strings/strip.h"
#include "lib/cgroup/stats_parse.h"
#include "lib/cgroup/stats_text.h"

namespace caisson::cgroup {
namespace {

using Use = CgroupMemoryUse;
// In the kernel's order (mm/memcontrol.c, memory_stats), which makes look-ups
// of one line after the other short.
constexpr Field<Use> kUse[] = {
    {"anon", "rss", &Use::anon},
    {"file", "cache", &Use::file},
    {"kernel", "", &Use::kernel},
    {"kernel_stack", "", &Use::kernel_stack},
    {"pagetables", "", &Use::page_tables},
    {"sec_pagetables", "", &Use::secondary_page_tables},
    {"percpu", "", &Use::per_cpu},
    {"sock", "", &Use::sockets},
    {"vmalloc", "", &Use::vmalloc},
    {"shmem", "shmem", &Use::shmem},
    {"zswap", "", &Use::zswap},
    {"zswapped", "", &Use::zswapped},
    {"file_mapped", "mapped_file", &Use::file_mapped},
    {"file_dirty", "dirty", &Use::file_dirty},
    {"file_writeback", "writeback", &Use::file_writeback},
    {"swapcached", "swapcached", &Use::swap_cached},
    {"anon_thp", "rss_huge", &Use::anon_thp},
    {"file_thp", "", &Use::file_thp},
    {"shmem_thp", "", &Use::shmem_thp},
    {"inactive_anon", "inactive_anon", &Use::inactive_anon},
    {"active_anon", "active_anon", &Use::active_anon},
    {"inactive_file", "inactive_file", &Use::inactive_file},
    {"active_file", "active_file", &Use::active_file},
    {"unevictable", "unevictable", &Use::unevictable},
    {"slab_reclaimable", "", &Use::slab_reclaimable},
    {"slab_unreclaimable", "", &Use::slab_unreclaimable},
    {"slab", "", &Use::slab},
    {"hugetlb", "", &Use::hugetlb},
};

using Memory = CgroupMemoryStats;
constexpr Field<Memory> kMemory[] = {
    {"workingset_refault_anon", "workingset_refault_anon",
     &Memory::refaults_anon},
    {"workingset_refault_file", "workingset_refault_file",
     &Memory::refaults_file},
    {"pgscan", "", &Memory::pages_scanned},
    {"pgsteal", "", &Memory::pages_reclaimed},
    {"pgfault", "pgfault", &Memory::page_faults},
    {"pgmajfault", "pgmajfault", &Memory::major_page_faults},
    // v2 has it in a file of its own.
    {"", "swap", &Memory::swap},
};

using Events = CgroupMemoryEvents;
constexpr Field<Events> kEvents[] = {
    {"low", "", &Events::low},
    {"high", "", &Events::high},
    {"max", "", &Events::max},
    {"oom", "", &Events::oom},
    {"oom_kill", "", &Events::oom_kill},
    {"oom_group_kill", "", &Events::oom_group_kill},
    {"sock_throttled", "", &Events::sock_throttled},
};

absl::Status ParseMemoryStat(absl::string_view text, CgroupVersion version,
                             CgroupMemoryStats& mem) {
  Finder uses(kUse, version);
  Finder counters(kMemory, version);
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view value) {
                    // v1 has the group alone first, then the same with
                    // descendants.
                    if (version == CgroupVersion::kV1 &&
                        !absl::ConsumePrefix(&key, "total_")) {
                      return absl::OkStatus();
                    }
                    if (const auto* use = uses.Find(key)) {
                      return SetCount(key, value, mem.use.*use->member);
                    }
                    if (const auto* counter = counters.Find(key)) {
                      return SetCount(key, value, mem.*counter->member);
                    }
                    if (const auto count = ParseCount(value); count.ok()) {
                      mem.other.emplace_back(key, *count);
                    }
                    return absl::OkStatus();
                  });
}

CgroupMemoryNode& NodeOf(CgroupMemoryStats& mem, int node) {
  for (CgroupMemoryNode& known : mem.nodes) {
    if (known.node == node) return known;
  }
  CgroupMemoryNode& added = mem.nodes.emplace_back();
  added.node = node;
  return added;
}

}  // namespace

absl::Status ParseMemoryStatV2(absl::string_view text, CgroupMemoryStats& mem) {
  return ParseMemoryStat(text, CgroupVersion::kV2, mem);
}

absl::Status ParseMemoryStatV1(absl::string_view text, CgroupMemoryStats& mem) {
  return ParseMemoryStat(text, CgroupVersion::kV1, mem);
}

absl::Status ParseNumaStatV2(absl::string_view text, CgroupMemoryStats& mem) {
  Finder uses(kUse, CgroupVersion::kV2);
  return EachLine(text, ' ',
                  [&](absl::string_view key, absl::string_view nodes) {
                    const auto* use = uses.Find(key);
                    if (use == nullptr) return absl::OkStatus();
                    return EachNode(nodes, [&](int node, int64_t value) {
                      NodeOf(mem, node).use.*use->member = value;
                    });
                  });
}

absl::Status ParseNumaStatV1(absl::string_view text, CgroupMemoryStats& mem) {
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  return EachLine(text, '=',
                  [&](absl::string_view key, absl::string_view rest) {
                    if (!absl::ConsumePrefix(&key, "hierarchical_")) {
                      return absl::OkStatus();
                    }
                    (void)Take(rest, ' ');  // the sum
                    return EachNode(rest, [&](int node, int64_t pages) {
                      CgroupMemoryNode& known = NodeOf(mem, node);
                      if (key == "total") known.total = pages * page;
                      if (key == "file") known.use.file = pages * page;
                      if (key == "anon") known.use.anon = pages * page;
                      if (key == "unevictable")
                        known.use.unevictable = pages * page;
                    });
                  });
}

absl::Status ParseMemoryEvents(absl::string_view text,
                               CgroupMemoryEvents& events) {
  Finder finder(kEvents, CgroupVersion::kV2);
  return EachLine(
      text, ' ', [&](absl::string_view key, absl::string_view value) {
        const auto* event = finder.Find(key);
        return event == nullptr ? absl::OkStatus()
                                : SetCount(key, value, events.*event->member);
      });
}

}  // namespace caisson::cgroup
