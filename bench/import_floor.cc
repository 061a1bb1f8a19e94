// The least that an import can take: each of its three works alone, with
// everything that it needs in memory before. Answers, for each byte that
// arrives on standard input, how long one round took, in nanoseconds, as 8
// bytes.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace {

constexpr char kUsage[] = R"(usage: import_floor MODE

  inflate FILE...  decompresses the gzip files, with ISA-L
  sha256 FILE...   computes the digest of each, with OpenSSL
  write TREE DIR   writes the tree TREE to the new directory DIR and syncs it
)";

[[noreturn]] void Fail(const std::string& what) {
  std::cerr << "import_floor: " << what << ": " << strerror(errno) << "\n";
  exit(1);
}

uint64_t Now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000u +
         static_cast<uint64_t>(time.tv_nsec);
}

std::string Load(int dir, const std::string& path) {
  const int fd = openat(dir, path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) Fail(path);
  std::string data;
  char buffer[1 << 16];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof(buffer))) > 0) data.append(buffer, n);
  if (n < 0) Fail(path);
  close(fd);
  return data;
}

// ---- inflate, sha256 ----

void Inflate(const std::vector<std::string>& files) {
  static unsigned char out[256 << 10];
  inflate_state state;
  for (const std::string& file : files) {
    isal_inflate_init(&state);
    state.crc_flag = ISAL_GZIP;
    state.next_in =
        reinterpret_cast<unsigned char*>(const_cast<char*>(file.data()));
    state.avail_in = static_cast<uint32_t>(file.size());
    do {
      state.next_out = out;
      state.avail_out = sizeof(out);
      if (isal_inflate(&state) != ISAL_DECOMP_OK) Fail("isal_inflate");
    } while (state.block_state != ISAL_BLOCK_FINISH);
  }
}

void Hash(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    if (EVP_Digest(file.data(), file.size(), digest, nullptr, EVP_sha256(),
                   nullptr) != 1) {
      Fail("EVP_Digest");
    }
  }
}

// ---- write ----

struct File {
  std::string path;
  struct stat status;
  std::string data;  // or the target of a link
};

void LoadTree(int root, const std::string& path, std::vector<File>& files) {
  const int fd =
      openat(root, path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY);
  DIR* dir = fd < 0 ? nullptr : fdopendir(fd);
  if (dir == nullptr) Fail(path);
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir)) names.push_back(entry->d_name);
  closedir(dir);
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    if (name == "." || name == "..") continue;
    File file = {path.empty() ? name : path + "/" + name, {}, {}};
    const char* at = file.path.c_str();
    if (fstatat(root, at, &file.status, AT_SYMLINK_NOFOLLOW) != 0) Fail(at);
    const mode_t mode = file.status.st_mode;
    if (S_ISREG(mode)) {
      file.data = Load(root, file.path);
    } else if (S_ISLNK(mode)) {
      char target[4096];
      const ssize_t n = readlinkat(root, at, target, sizeof(target));
      if (n < 0) Fail(at);
      file.data.assign(target, static_cast<size_t>(n));
    }
    const std::string below = file.path;
    files.push_back(std::move(file));
    if (S_ISDIR(mode)) LoadTree(root, below, files);
  }
}

void SetAttributes(int root, const File& file) {
  const char* path = file.path.c_str();
  const struct stat& status = file.status;
  const timespec times[2] = {status.st_mtim, status.st_mtim};
  if (fchownat(root, path, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW) !=
          0 ||
      (!S_ISLNK(status.st_mode) &&
       fchmodat(root, path, status.st_mode & 07777, 0) != 0) ||
      utimensat(root, path, times, AT_SYMLINK_NOFOLLOW) != 0) {
    Fail(file.path);
  }
}

void WriteFile(int root, const File& file) {
  const int fd =
      openat(root, file.path.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (fd < 0) Fail(file.path);
  for (size_t at = 0; at < file.data.size();) {
    const ssize_t n = write(fd, file.data.data() + at, file.data.size() - at);
    if (n < 0) Fail(file.path);
    at += static_cast<size_t>(n);
  }
  const timespec times[2] = {file.status.st_mtim, file.status.st_mtim};
  if (fchown(fd, file.status.st_uid, file.status.st_gid) != 0 ||
      fchmod(fd, file.status.st_mode & 07777) != 0 ||
      futimens(fd, times) != 0) {
    Fail(file.path);
  }
  close(fd);
}

void Make(int root, const File& file) {
  const char* path = file.path.c_str();
  const mode_t mode = file.status.st_mode;
  if (S_ISREG(mode)) return WriteFile(root, file);
  const int made = S_ISDIR(mode)   ? mkdirat(root, path, 0700)
                   : S_ISLNK(mode) ? symlinkat(file.data.c_str(), root, path)
                                   : mknodat(root, path, (mode & S_IFMT) | 0600,
                                             file.status.st_rdev);
  if (made != 0) Fail(file.path);
  if (!S_ISDIR(mode)) SetAttributes(root, file);
}

void WriteTree(const std::vector<File>& files, const char* dir) {
  if (mkdir(dir, 0700) != 0) Fail(dir);
  const int root = open(dir, O_RDONLY | O_DIRECTORY);
  if (root < 0) Fail(dir);
  for (const File& file : files) Make(root, file);
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    if (S_ISDIR(file->status.st_mode)) SetAttributes(root, *file);
  }
  if (syncfs(root) != 0) Fail("syncfs");
  close(root);
}

// ---- rounds ----

template <typename Work>
int Serve(const Work& work) {
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    const uint64_t start = Now();
    work();
    const uint64_t duration = Now() - start;
    if (write(STDOUT_FILENO, &duration, sizeof(duration)) != sizeof(duration)) {
      return 1;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "write" && argc == 4) {
    const int root = open(argv[2], O_RDONLY | O_DIRECTORY);
    if (root < 0) Fail(argv[2]);
    std::vector<File> files;
    LoadTree(root, "", files);
    return Serve([&] { WriteTree(files, argv[3]); });
  }
  if ((mode != "inflate" && mode != "sha256") || argc < 3) {
    std::cerr << kUsage;
    return 2;
  }
  std::vector<std::string> files;
  for (int i = 2; i < argc; ++i) files.push_back(Load(AT_FDCWD, argv[i]));
  return Serve([&] { mode == "inflate" ? Inflate(files) : Hash(files); });
}
