#include "lib/launcher/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"

namespace caisson::launcher {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A root with a few programs in it.
class ProgramTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/program.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
    ASSERT_OK_AND_ASSIGN(root_, sys::Open(path_, O_PATH | O_DIRECTORY));
    ASSERT_EQ(::mkdirat(root_.get(), "bin", 0755), 0);
  }

  void TearDown() override {
    for (const std::string& name : names_)
      ::unlinkat(root_.get(), name.c_str(), 0);
    ::unlinkat(root_.get(), "bin", AT_REMOVEDIR);
    ::rmdir(path_.c_str());
  }

  void Write(const std::string& name, const std::string& content, mode_t mode) {
    std::ofstream(path_ + "/" + name, std::ios::binary) << content;
    ASSERT_EQ(::chmod((path_ + "/" + name).c_str(), mode), 0);
    names_.push_back(name);
  }

  absl::Status Explain(int error, const std::string& argv0) {
    return ExplainExecFailure(error, Candidates(argv0, {"PATH=/sbin:/bin"}),
                              [this](const std::string& path, int flags) {
                                return sys::OpenAt2(root_.borrow(), path, flags,
                                                    sys::kInRoot);
                              });
  }

  static std::string Elf(uint16_t machine, const std::string& interpreter) {
    Elf64_Ehdr elf = {};
    memcpy(elf.e_ident, ELFMAG, SELFMAG);
    elf.e_ident[EI_CLASS] = ELFCLASS64;
    elf.e_machine = machine;
    elf.e_phoff = sizeof(elf);
    elf.e_phentsize = sizeof(Elf64_Phdr);
    elf.e_phnum = 1;
    Elf64_Phdr header = {};
    header.p_type = PT_INTERP;
    header.p_offset = sizeof(elf) + sizeof(header);
    header.p_filesz = interpreter.size() + 1;
    std::string file(reinterpret_cast<char*>(&elf), sizeof(elf));
    file.append(reinterpret_cast<char*>(&header), sizeof(header));
    return file + interpreter + '\0';
  }

  std::string path_;
  UniqueFd root_;
  std::vector<std::string> names_;
};

TEST_F(ProgramTest, CandidatesFollowPath) {
  EXPECT_THAT(Candidates("./a", {"PATH=/bin"}), ElementsAre("./a"));
  EXPECT_THAT(Candidates("a", {"X=1", "PATH=/bin::/usr/bin/", "PATH=/no"}),
              ElementsAre("/bin/a", "/usr/bin/a"));
  EXPECT_THAT(Candidates("a", {"PATH="}), IsEmpty());
  EXPECT_THAT(Candidates("a", {}), IsEmpty());
}

TEST_F(ProgramTest, MissingProgramNamesThePath) {
  EXPECT_THAT(Explain(ENOENT, "nothing"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("execve(\"nothing\"): ENOENT"),
                             HasSubstr("executable file not found in $PATH "
                                       "(/sbin:/bin)"))));
  EXPECT_THAT(Explain(ENOENT, "/x/nothing"),
              StatusIs(absl::StatusCode::kNotFound,
                       "execve(\"/x/nothing\"): ENOENT: no such file or "
                       "directory"));
}

TEST_F(ProgramTest, MissingElfInterpreterIsNamed) {
  Write("bin/tool", Elf(EM_X86_64, "/lib64/ld-linux-x86-64.so.2"), 0755);
  EXPECT_THAT(
      Explain(ENOENT, "tool"),
      StatusIs(absl::StatusCode::kNotFound,
               AllOf(HasSubstr("execve(\"/bin/tool\"): ENOENT"),
                     HasSubstr("ELF interpreter "
                               "\"/lib64/ld-linux-x86-64.so.2\" does not "
                               "exist in the root"))));
}

TEST_F(ProgramTest, MissingScriptInterpreterIsNamed) {
  Write("bin/script", "#! /usr/bin/python9 -u\nprint()\n", 0755);
  EXPECT_THAT(Explain(ENOENT, "/bin/script"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("interpreter (#!) \"/usr/bin/python9\"")));
  Write("bin/crlf", "#!/bin/sh\r\n", 0755);
  EXPECT_THAT(Explain(ENOENT, "/bin/crlf"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"/bin/sh\"")));
}

TEST_F(ProgramTest, DeniedSaysWhy) {
  Write("bin/plain", "#!/bin/sh\n", 0644);
  EXPECT_THAT(Explain(EACCES, "plain"),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("not executable")));
  EXPECT_THAT(Explain(EACCES, "/bin"),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("it is a directory")));
}

TEST_F(ProgramTest, OtherMachineIsNamed) {
  Write("bin/risc", Elf(EM_RISCV, "/lib/ld.so"), 0755);
  const absl::Status status = Explain(ENOEXEC, "risc");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("the program is for riscv, this machine is"));
  EXPECT_EQ(GetErrorDetail(status)->step, "exec");
}

TEST_F(ProgramTest, NoProgramAtAll) {
  Write("bin/text", "echo hello\n", 0755);
  EXPECT_THAT(std::string(Explain(ENOEXEC, "text").message()),
              HasSubstr("neither an ELF program nor a script"));
  Write("bin/empty", "", 0755);
  EXPECT_THAT(std::string(Explain(ENOEXEC, "empty").message()),
              HasSubstr("the file is empty"));
}

TEST_F(ProgramTest, HostileElfFilesAreHarmless) {
  Elf64_Ehdr elf = {};
  memcpy(elf.e_ident, ELFMAG, SELFMAG);
  elf.e_ident[EI_CLASS] = ELFCLASS64;
  elf.e_machine = EM_X86_64;
  elf.e_phoff = ~0ull;
  elf.e_phentsize = sizeof(Elf64_Phdr);
  elf.e_phnum = 0xffff;
  Write("bin/evil", std::string(reinterpret_cast<char*>(&elf), sizeof(elf)),
        0755);
  EXPECT_THAT(Explain(ENOENT, "evil"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/bin/evil")));
  std::string huge = Elf(EM_X86_64, "x");
  Elf64_Phdr header;
  memcpy(&header, huge.data() + sizeof(Elf64_Ehdr), sizeof(header));
  header.p_filesz = ~0ull;
  memcpy(huge.data() + sizeof(Elf64_Ehdr), &header, sizeof(header));
  Write("bin/huge", huge, 0755);
  EXPECT_THAT(Explain(ENOENT, "huge"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/bin/huge")));
}

}  // namespace
}  // namespace caisson::launcher
