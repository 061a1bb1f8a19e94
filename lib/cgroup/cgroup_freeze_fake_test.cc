// Groups that do not freeze or thaw in time, on plain files.
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/fake_cgroupfs.h"
#include "lib/cgroup/owner.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Kind = cgroup::FakeCgroupfs::Kind;

class CgroupFreezeFakeTest : public ::testing::Test {
 protected:
  absl::StatusOr<Cgroup> Create(Kind kind) {
    fs_ = std::make_shared<cgroup::FakeCgroupfs>(kind);
    auto owner = cgroup::Owner::Open({.path = "/ours"}, fs_);
    if (!owner.ok()) return owner.status();
    parent_ = std::make_unique<CgroupParent>(*std::move(owner));
    return parent_->Create({.name = "job"});
  }
  std::string Path(const std::string& file) const {
    return absl::StrCat("unified", parent_->path(), "/job/", file);
  }

  std::shared_ptr<cgroup::FakeCgroupfs> fs_;
  std::unique_ptr<CgroupParent> parent_;
};

TEST_F(CgroupFreezeFakeTest, WhatDoesNotFreezeInTimeIsThawedAgain) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(Kind::kV2));
  fs_->Set(Path("cgroup.freeze"), "0\n");
  EXPECT_THAT(group.Freeze(absl::Milliseconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("/job\")"), HasSubstr("within 1ms"))));
  EXPECT_EQ(fs_->Get(Path("cgroup.freeze")), "0");
  // But not what was to be frozen already.
  fs_->Set(Path("cgroup.freeze"), "1\n");
  EXPECT_THAT(group.Freeze(absl::ZeroDuration()),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("stop")));
  EXPECT_EQ(fs_->Get(Path("cgroup.freeze")), "1");
  ASSERT_OK_AND_ASSIGN(const CgroupFreezeState state, group.FreezeState());
  EXPECT_EQ(state, CgroupFreezeState::kFreezing);
}

TEST_F(CgroupFreezeFakeTest, FrozenByWhatCannotBeSeen) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(Kind::kV2));
  fs_->Set(Path("cgroup.freeze"), "0\n");
  fs_->Set(Path("cgroup.events"), "populated 1\nfrozen 1\n");
  ASSERT_OK_AND_ASSIGN(const CgroupFreezeState state, group.FreezeState());
  EXPECT_EQ(state, CgroupFreezeState::kFrozen);
  EXPECT_THAT(group.Thaw(absl::Milliseconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("above what is mounted here")));
}

TEST_F(CgroupFreezeFakeTest, RefusedWrites) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(Kind::kV2));
  EXPECT_THAT(group.Freeze(), StatusIs(absl::StatusCode::kNotFound,
                                       HasSubstr("cgroup.freeze")));
  fs_->Set(Path("cgroup.freeze"), "0\n");
  fs_->fault = [&](const std::string& operation) {
    return operation == absl::StrCat("write ", Path("cgroup.freeze"), " 1") ? 13
                                                                            : 0;
  };
  EXPECT_THAT(group.Freeze(), StatusIs(absl::StatusCode::kPermissionDenied,
                                       HasSubstr("cgroup.freeze\", \"1\")")));
}

TEST_F(CgroupFreezeFakeTest, V1WithoutFreezer) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(Kind::kV1));
  EXPECT_THAT(group.Freeze(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("freezer controller")));
  ASSERT_OK_AND_ASSIGN(const CgroupFreezeState state, group.FreezeState());
  EXPECT_EQ(state, CgroupFreezeState::kThawed);
}

}  // namespace
}  // namespace caisson
