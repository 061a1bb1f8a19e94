#!/usr/bin/env python3
"""An untrusted program that tries what it must not be able to do.

Prints a line for each attempt and exits with 1 if one is not refused. Every
attempt is harmless where it succeeds: run as root outside of a container, this
prints what an unconfined program may do and changes nothing that lasts.

Needs nothing but Python's standard library and Linux on x86-64 or aarch64.
"""
import argparse
import ctypes
import errno
import fcntl
import os
import platform
import socket
import stat
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# asm/unistd_64.h and asm-generic/unistd.h; the newer numbers are the same.
COMMON = {
    "pidfd_open": 434, "clone3": 435, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "io_uring_setup": 425,
}
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "syslog": 103, "mount": 165, "umount2": 166,
        "pivot_root": 155, "swapon": 167, "reboot": 169, "sethostname": 170,
        "init_module": 175, "finit_module": 313, "delete_module": 176,
        "kexec_load": 246, "add_key": 248, "keyctl": 250, "unshare": 272,
        "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "perf_event_open": 298, "bpf": 321, "userfaultfd": 323,
        "open_by_handle_at": 304, "clock_settime": 227, "acct": 163,
        "chroot": 161, "iopl": 172,
    },
    "aarch64": {
        "ptrace": 117, "syslog": 116, "mount": 40, "umount2": 39,
        "pivot_root": 41, "swapon": 224, "reboot": 142, "sethostname": 161,
        "init_module": 105, "finit_module": 273, "delete_module": 106,
        "kexec_load": 104, "add_key": 217, "keyctl": 219, "unshare": 97,
        "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
        "perf_event_open": 241, "bpf": 280, "userfaultfd": 282,
        "open_by_handle_at": 265, "clock_settime": 112, "acct": 89,
        "chroot": 51,
    },
}[platform.machine()]
NUMBERS.update(COMMON)

# How the kernel says that a thing is not allowed; an attempt adds what means
# "there is no such thing in here".
REFUSED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS}

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
MS_BIND, MS_REMOUNT, MNT_DETACH = 4096, 32, 2


def syscall(name, *arguments):
    """Calls and raises OSError; bytes and ints as arguments."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *values)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Attempts:
    def __init__(self):
        self.total = 0
        self.not_refused = []

    def section(self, title):
        print(f"\n{title}", flush=True)

    def attempt(self, title, action, absent=()):
        """`action` must raise, or return why nothing was reached."""
        self.total += 1
        try:
            verdict = action()
            refused = isinstance(verdict, str)
            text = verdict if refused else "NOT REFUSED"
        except OSError as error:
            refused = error.errno in REFUSED or error.errno in absent
            text = os.strerror(error.errno)
            if not refused:
                text = f"NOT REFUSED, only failed: {text}"
        if not refused:
            self.not_refused.append(title)
        elif text != "NOT REFUSED":
            text = f"refused: {text}"
        print(f"  {title:<44} {text}", flush=True)


def write(path, data=b"x", flags=0):
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def write_same(path):
    """Writes to a kernel file what it says already."""
    with open(path, "rb") as file:
        old = file.read()
    write(path, old)


def read_something(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not os.read(fd, 512):
            return "it is empty"
    finally:
        os.close(fd)
    return None


def climbed(path):
    return "/" + "../" * 40 + path.lstrip("/")


def in_child(action):
    """Runs `action` in a child, which it may spoil; passes its errno on."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            if isinstance(action(), str):
                code = 255
        except OSError as error:
            code = error.errno
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 255:
        return "nothing gained"
    if code < 0:
        return f"killed by signal {-code}"
    if code:
        raise OSError(code, os.strerror(code))
    return None


def outside(a, options):
    a.section("Reaching the host's files")
    secret, new = options.host_file, options.host_file + ".written"
    gone = {errno.ENOENT, errno.ENOTDIR}
    flags = os.O_CREAT | os.O_EXCL
    a.attempt("read a host file by its path", lambda: read_something(secret), gone)
    a.attempt("read it by climbing out with ../../..",
              lambda: read_something(climbed(secret)), gone)
    a.attempt("read it through /proc/1/root", lambda: read_something("/proc/1/root" + secret), gone)
    a.attempt("create a file beside it", lambda: write(climbed(new), flags=flags), gone)
    here = os.path.dirname(os.path.abspath(__file__))
    a.attempt("write to a read-only volume", lambda: write(here + "/written", flags=flags))

    def old_chroot():
        # A chroot inside a chroot, with a directory of the outer one kept.
        keep = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        os.chroot("/tmp")
        os.fchdir(keep)
        for _ in range(40):
            os.chdir("..")
        os.chroot(".")
        return read_something(secret)
    a.attempt("break out of the root with chroot", lambda: in_child(old_chroot), gone)

    handle = struct.pack("IiII", 8, 1, 2, 0)  # inode 2, the root of ext4

    def by_handle():
        fd = os.open(here, os.O_RDONLY)
        try:
            os.close(syscall("open_by_handle_at", fd, handle, os.O_RDONLY))
        finally:
            os.close(fd)
    a.attempt("open the host's root by its file handle", by_handle)


def kernel_files(a):
    a.section("Writing to the kernel")
    gone = {errno.ENOENT}
    a.attempt("/proc/sys/kernel/hostname", lambda: write_same("/proc/sys/kernel/hostname"))
    a.attempt("/proc/sys/kernel/core_pattern", lambda: write_same("/proc/sys/kernel/core_pattern"))
    a.attempt("/proc/sys/vm/drop_caches", lambda: write("/proc/sys/vm/drop_caches", b"0"), gone)
    a.attempt("/proc/sysrq-trigger", lambda: write("/proc/sysrq-trigger", b"\n"), gone)
    affinity = "/proc/irq/default_smp_affinity"
    a.attempt(affinity, lambda: write_same(affinity), gone)
    a.attempt("/sys/kernel/uevent_helper", lambda: write_same("/sys/kernel/uevent_helper"), gone)

    def huge_pages():
        path = "/sys/kernel/mm/transparent_hugepage/enabled"
        with open(path, "rb") as file:
            chosen = file.read().split(b"[")[1].split(b"]")[0]
        write(path, chosen)
    a.attempt("/sys/kernel/mm/transparent_hugepage", huge_pages, gone)

    def cgroup_files():
        reached = []
        for directory, _, names in os.walk("/sys/fs/cgroup"):
            for name in names:
                if name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cgroup.procs",
                            "release_agent", "notify_on_release"):
                    reached.append(os.path.join(directory, name))
        error = None
        for path in reached:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
                return None
            except OSError as e:
                error = e
        if error:
            raise error
        return "no control group is visible"
    a.attempt("its own control group's limits", cgroup_files)
    a.attempt("read /proc/kcore (all memory)", lambda: read_something("/proc/kcore"), gone)
    a.attempt("read /proc/keys", lambda: read_something("/proc/keys"), gone)
    log = ctypes.create_string_buffer(256)
    a.attempt("read the kernel's log", lambda: syscall("syslog", 3, log, 256))


def processes(a, options):
    a.section("Reaching the host's processes")

    def visible():
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
        for pid in pids:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if b"quickstart.sh" in file.read():
                        return None
            except FileNotFoundError:
                pass
        if len(pids) > 8:
            return None
        return f"sees {len(pids)}, its own"
    pid = options.host_pid
    nobody = {errno.ESRCH, errno.ENOENT}
    a.attempt("list them in /proc", visible)
    a.attempt(f"signal process {pid}", lambda: os.kill(pid, 0), nobody)
    for name, request in (("ATTACH", PTRACE_ATTACH), ("SEIZE", PTRACE_SEIZE)):
        def trace(request=request):
            syscall("ptrace", request, pid, 0, 0)
        a.attempt(f"ptrace(PTRACE_{name}, {pid})", lambda: in_child(trace), nobody)
    buffer = ctypes.create_string_buffer(16)
    # The address is never valid: a process that may be read gives EFAULT.
    vector = struct.pack("QQ", ctypes.addressof(buffer), 16)
    remote = struct.pack("QQ", 8, 16)
    for name in ("process_vm_readv", "process_vm_writev"):
        a.attempt(f"{name}({pid})",
                  lambda: syscall(name, pid, vector, 1, remote, 1, 0), nobody)
    a.attempt(f"pidfd_open({pid})", lambda: os.close(syscall("pidfd_open", pid, 0)), nobody)
    for name, mode in (("mem", os.O_RDWR), ("ns/mnt", os.O_RDONLY)):
        path = f"/proc/{pid}/{name}"
        a.attempt(f"open {path}", lambda: os.close(os.open(path, mode)), nobody)


def mounts(a):
    a.section("Mounting")

    def mount_and_undo(source, fstype, flags=0):
        syscall("mount", source, b"/mnt", fstype, flags, None)
        syscall("umount2", b"/mnt", MNT_DETACH)
    a.attempt("mount(tmpfs)", lambda: mount_and_undo(b"tmpfs", b"tmpfs"))
    a.attempt("mount(proc)", lambda: mount_and_undo(b"proc", b"proc"))
    a.attempt("mount(cgroup2)", lambda: mount_and_undo(b"none", b"cgroup2"))
    a.attempt("mount(bind, /proc/sys)", lambda: mount_and_undo(b"/proc/sys", None, MS_BIND))
    a.attempt("mount(remount /proc/sys read-write)",
              lambda: syscall("mount", b"none", b"/proc/sys", None, MS_BIND | MS_REMOUNT, None))
    # Not a mount point: who may unmount gets EINVAL.
    a.attempt("umount()", lambda: syscall("umount2", b"/mnt", MNT_DETACH))
    a.attempt("pivot_root()", lambda: syscall("pivot_root", b"/mnt", b"/mnt/not-there"))
    a.attempt("open_tree(clone)", lambda: os.close(syscall("open_tree", -100, b"/", 1)))
    a.attempt("fsopen(tmpfs)", lambda: os.close(syscall("fsopen", b"tmpfs", 0)))
    for name, flag in (("user", CLONE_NEWUSER), ("mount", CLONE_NEWNS)):
        a.attempt(f"unshare({name} namespace)",
                  lambda: in_child(lambda: syscall("unshare", flag)))

    def join():
        fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
        try:
            syscall("setns", fd, 0)
        finally:
            os.close(fd)
    a.attempt("setns()", lambda: in_child(join))


def kernel(a):
    a.section("Controlling the kernel")
    # Arguments that are wrong in a way which is found after the permission.
    a.attempt("init_module()", lambda: syscall("init_module", b"not a module", 12, b""))
    a.attempt("finit_module()", lambda: syscall("finit_module", -1, b"", 0))
    a.attempt("delete_module()", lambda: syscall("delete_module", b"no_such_module", 0))
    a.attempt("kexec_load()", lambda: syscall("kexec_load", 0, 999, 0, 0xFFFF))
    a.attempt("reboot()", lambda: syscall("reboot", 0, 0, 0, 0))
    a.attempt("swapon()", lambda: syscall("swapon", b"/not-there", 0))
    a.attempt("acct()", lambda: syscall("acct", b"/not-there/x"))

    def set_clock():
        syscall("clock_settime", 0, struct.pack("qq", *divmod(time.time_ns(), 10**9)))
    a.attempt("clock_settime()", set_clock)
    name = socket.gethostname().encode()
    a.attempt("sethostname()", lambda: syscall("sethostname", name, len(name)))
    a.attempt("bpf(BPF_PROG_LOAD)", lambda: syscall("bpf", 5, b"\0" * 128, 128))
    event = struct.pack("IIQ", 1, 112, 0) + bytes(96)  # a software clock
    a.attempt("perf_event_open()",
              lambda: os.close(syscall("perf_event_open", event, -1, 0, -1, 0)))
    a.attempt("userfaultfd()", lambda: os.close(syscall("userfaultfd", 0)))
    a.attempt("add_key()", lambda: syscall("add_key", b"user", b"caisson", b"x", 1, -2))
    a.attempt("keyctl()", lambda: syscall("keyctl", 0, -3, 0))
    parameters = ctypes.create_string_buffer(120)
    a.attempt("io_uring_setup()", lambda: os.close(syscall("io_uring_setup", 1, parameters)))
    if "iopl" in NUMBERS:
        a.attempt("iopl()", lambda: in_child(lambda: syscall("iopl", 3)))


def devices(a, options):
    a.section("Reaching devices")

    def node(directory, kind, number):
        major, minor = (int(part) for part in number.split(":"))
        path = os.path.join(directory, "caisson-attempt")
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        finally:
            os.unlink(path)
    missing = {errno.ENXIO, errno.ENODEV} if not options.host_disk else ()
    disk = options.host_disk or "8:0"
    for directory in ("/tmp", "/dev", "/dev/shm"):
        a.attempt(f"open the host's disk ({disk}) in {directory}",
                  lambda: node(directory, stat.S_IFBLK, disk), missing)
    a.attempt("open /dev/mem (1:1)", lambda: node("/dev", stat.S_IFCHR, "1:1"))
    a.attempt("open /dev/kmsg (1:11)", lambda: node("/dev", stat.S_IFCHR, "1:11"))

    def interface_down():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            request = struct.pack("16sh14x", b"lo", 0x1 | 0x8)
            fcntl.ioctl(s, 0x8914, request)  # SIOCSIFFLAGS, as it is: up
    a.attempt("change a network interface", interface_down)


def privileges(a):
    a.section("Gaining privileges")

    def as_user(program, check):
        def run():
            os.setgroups([])
            os.setgid(1000)
            os.setuid(1000)
            read, wr = os.pipe()
            if os.fork() == 0:
                os.dup2(wr, 1)
                os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
                os.execv(program[0], program)
            os.close(wr)
            out = os.read(read, 4096)
            os.wait()
            return None if check(out) else "nothing gained"
        return lambda: in_child(run)
    suid, capable = "/app/bin/suid-id", "/app/bin/cap-cat"
    if os.path.exists(suid):
        a.attempt("run a set-user-ID program as a user",
                  as_user([suid, "-u"], lambda out: out.strip() == b"0"))
        a.attempt("read /etc/shadow by file capabilities", as_user([capable, "/etc/shadow"], bool))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--host-file", required=True, help="path of a file outside")
    parser.add_argument("--host-pid", required=True, type=int, help="a process outside")
    parser.add_argument("--host-disk", default="", help="major:minor of the host's disk")
    options = parser.parse_args()

    a = Attempts()
    outside(a, options)
    kernel_files(a)
    processes(a, options)
    mounts(a)
    kernel(a)
    devices(a, options)
    privileges(a)
    print(f"\n{a.total} attempts, {a.total - len(a.not_refused)} refused")
    sys.exit(1 if a.not_refused else 0)


if __name__ == "__main__":
    main()
