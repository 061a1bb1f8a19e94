// A host that knows nothing of the library and loads it in a plugin, from a
// thread that ends while it is loaded and from one that ends afterwards.
#include <dlfcn.h>

#include <future>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "tests/host_safety/host_state.h"

namespace caisson::testing {
namespace {

constexpr int kStarts = 50;
constexpr char kPlugin[] = "tests/host_safety/plugin.so";

struct Plugin {
  void* handle = nullptr;
  int (*start)(int) = nullptr;
};

Plugin Load() {
  Plugin plugin;
  plugin.handle = dlopen(kPlugin, RTLD_NOW | RTLD_LOCAL);
  if (plugin.handle == nullptr) {
    ADD_FAILURE() << dlerror();
    return plugin;
  }
  plugin.start =
      reinterpret_cast<int (*)(int)>(dlsym(plugin.handle, "StartFromPlugin"));
  if (plugin.start == nullptr) ADD_FAILURE() << dlerror();
  return plugin;
}

TEST(PluginTest, LoadingChangesNothing) {
  const HostState before = TakeHostState();
  const Plugin plugin = Load();
  ASSERT_NE(plugin.start, nullptr);
  EXPECT_EQ(Differences(before, TakeHostState()), "");
  EXPECT_EQ(dlclose(plugin.handle), 0);
  EXPECT_EQ(Differences(before, TakeHostState()), "");
}

TEST(PluginTest, NothingIsLeftBeforeAndAfterUnloading) {
  const HostState before = TakeHostState();
  for (int round = 0; round < 3; ++round) {
    const Plugin plugin = Load();
    ASSERT_NE(plugin.start, nullptr);
    EXPECT_EQ(plugin.start(kStarts), 0);
    EXPECT_EQ(Differences(before, TakeHostState()), "");
    EXPECT_EQ(dlclose(plugin.handle), 0);
    EXPECT_EQ(Differences(before, TakeHostState()), "");
  }
}

TEST(PluginTest, ThreadsOutliveThePlugin) {
  // The C library's first thread installs a signal handler.
  std::thread([] {}).join();
  const HostState before = TakeHostState();
  const Plugin plugin = Load();
  ASSERT_NE(plugin.start, nullptr);
  std::thread([&] { EXPECT_EQ(plugin.start(kStarts), 0); }).join();
  std::promise<void> used;
  std::promise<void> unloaded;
  std::thread late([&] {
    EXPECT_EQ(plugin.start(kStarts), 0);
    used.set_value();
    unloaded.get_future().wait();
  });
  used.get_future().wait();
  EXPECT_EQ(dlclose(plugin.handle), 0);
  unloaded.set_value();
  late.join();
  EXPECT_EQ(Differences(before, TakeHostState()), "");
}

}  // namespace
}  // namespace caisson::testing
