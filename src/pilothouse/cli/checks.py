"""What `doctor` looks at. Each check returns a state and a detail; what might change something runs in a child."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import os
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Literal

from pilothouse.foundation import processes

__all__ = [
    "Check",
    "cgroup_v1",
    "cgroup_v2",
    "container_runtime",
    "disk",
    "ebpf",
    "io_uring",
    "kernel_tls",
    "libraries",
    "network_namespaces",
    "open_files",
    "root",
    "user_namespaces",
]

Answer = tuple[Literal["ok", "limited", "missing"], str]
Check = Callable[[], Answer]

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_WANTED_FILES = 65_536
_SLOW_SYNC_US = 10_000
_CONTROLLERS = {"cpu", "memory", "pids"}
_SOCKETS = (
    ("containerd", "/run/containerd/containerd.sock"),
    ("containerd (k3s)", "/run/k3s/containerd/containerd.sock"),
    ("CRI-O", "/run/crio/crio.sock"),
)
_SERVER_LIBRARIES = ("google.protobuf", "google_crc32c", "ngh2", "sortedcontainers", "uvloop")
_SYSCALL_BPF = {"x86_64": 321, "aarch64": 280}
_SYSCALL_IO_URING_SETUP = 425
_CAP_SYS_ADMIN, _CAP_BPF = 21, 39

_CALL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
result = {call}
print(0 if result >= 0 else ctypes.get_errno())
"""


def root() -> Answer:
    """Look at the effective user."""
    user = os.geteuid()
    return ("ok", "user id 0") if user == 0 else ("missing", f"user id {user}")


def cgroup_v2() -> Answer:
    """Look for the unified hierarchy, its controllers, and whether groups can be made."""
    for mount_point, kind, _, writable in _mounts():
        if kind != "cgroup2":
            continue
        with open(f"{mount_point}/cgroup.controllers", encoding="ascii") as file:
            controllers = file.read().split()
        detail = f"{mount_point}: {', '.join(controllers) or 'no controllers'}"
        if not writable or not os.access(mount_point, os.W_OK):
            return "limited", f"{detail}; read-only for us"
        missing = sorted(_CONTROLLERS - set(controllers))
        return ("limited", f"{detail}; without {', '.join(missing)}") if missing else ("ok", f"{detail}; writable")
    return "missing", "not mounted"


def cgroup_v1() -> Answer:
    """Look for the older hierarchies and which of them can be written."""
    writable: set[str] = set()
    seen: set[str] = set()
    for mount_point, kind, options, may_write in _mounts():
        if kind != "cgroup":
            continue
        names = {name for name in options.split(",") if name in _CONTROLLERS}
        seen |= names
        if may_write and os.access(mount_point, os.W_OK):
            writable |= names
    if not seen:
        return "missing", "not mounted"
    detail = f"writable: {', '.join(sorted(writable)) or 'none'}; mounted: {', '.join(sorted(seen))}"
    return ("ok" if writable >= _CONTROLLERS else "limited"), detail


def network_namespaces() -> Answer:
    """Try to make one in a child."""
    number = _in_child(f"libc.unshare({_CLONE_NEWNET})")
    return ("ok", "can be made") if number == 0 else ("missing", f"unshare: {os.strerror(number)}")


def user_namespaces() -> Answer:
    """Try to make one, with a network namespace in it, in a child."""
    number = _in_child(f"libc.unshare({_CLONE_NEWUSER | _CLONE_NEWNET})")
    return ("ok", "can be made") if number == 0 else ("missing", f"unshare: {os.strerror(number)}")


def ebpf() -> Answer:
    """Look at tracefs and the capabilities, and make a map of one entry in a child, which ends with it."""
    call = _SYSCALL_BPF.get(os.uname().machine)
    if call is None:
        return "missing", f"not known how to ask on {os.uname().machine}"
    # BPF_MAP_CREATE (0) of an array (2): key size 4, value size 4, one entry.
    attributes = "(ctypes.c_uint32 * 32)(2, 4, 4, 1)"
    number = _in_child(f"libc.syscall({call}, 0, ctypes.byref({attributes}), 128)")
    traced = next((mount for mount, kind, _, _ in _mounts() if kind == "tracefs"), "")
    tracing = f"tracefs at {traced}" if traced else "no tracefs mounted"
    if number != 0:
        return "missing", f"bpf: {os.strerror(number)}; {tracing}; {_capabilities()}"
    return ("ok" if traced else "limited"), f"maps can be made; {tracing}"


def container_runtime() -> Answer:
    """Try to connect to the usual sockets."""
    refused = []
    for name, path in _SOCKETS:
        if not os.path.exists(path):
            continue
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(path)
            except OSError as error:
                refused.append(f"{name} at {path}: {error.strerror or error}")
            else:
                return "ok", f"{name} at {path}"
    return ("limited", "; ".join(refused)) if refused else ("missing", "no socket of containerd or CRI-O")


def open_files() -> Answer:
    """Look at the limit of file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    shown = " of ".join("unlimited" if value == unlimited else str(value) for value in (soft, hard))
    enough = unlimited in {soft, hard} or hard >= _WANTED_FILES
    return ("ok" if enough else "limited"), f"{shown} allowed"


def kernel_tls() -> Answer:
    """Look for the kernel's TLS among TCP's upper-layer protocols."""
    with contextlib.suppress(OSError), open("/proc/sys/net/ipv4/tcp_available_ulp", encoding="ascii") as file:
        if "tls" in file.read().split():
            return "ok", "loaded"
    return "missing", "the kernel's tls module is not loaded"


def io_uring() -> Answer:
    """Ask the kernel with a null pointer: where io_uring is there, that is a bad address and nothing is made."""
    number = _in_child(f"libc.syscall({_SYSCALL_IO_URING_SETUP}, 1, None)")
    if number in {0, errno.EFAULT}:
        return "ok", "allowed"
    return "missing", f"io_uring_setup: {os.strerror(number)}"


def disk(directory: str, writes: int = 50, size: int = 4096) -> Answer:
    """Measure fdatasync: the median over `writes` appends of `size` bytes to a file without a name."""
    with tempfile.TemporaryFile(dir=directory) as file:
        fd = file.fileno()
        micros = []
        for number in range(writes):
            os.pwrite(fd, b"\xa5" * size, number * size)
            started = time.perf_counter_ns()
            os.fdatasync(fd)
            micros.append((time.perf_counter_ns() - started) / 1000)
    median = statistics.median(micros)
    detail = f"fdatasync of {size // 1024} KiB: median {median:,.0f} µs, worst {max(micros):,.0f} µs"
    return ("ok" if median < _SLOW_SYNC_US else "limited"), detail


def libraries() -> Answer:
    """Look for the libraries of the extra `server` without importing them."""
    missing = [name for name in _SERVER_LIBRARIES if not _present(name)]
    if missing:
        return "limited", f"pilothouse[server] lacks {', '.join(missing)}"
    return "ok", "pilothouse[server] is complete"


def _present(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _mounts() -> list[tuple[str, str, str, bool]]:
    """Return place, type, super options and whether it is writable of each mount, as proc(5) `mountinfo` has them."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields, (kind, _, options) = before.split(), after.rstrip("\n").split(" ", 2)
            writable = "rw" in fields[5].split(",") and "rw" in options.split(",")
            found.append((fields[4].replace("\\040", " "), kind, options, writable))
    return found


def _capabilities() -> str:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    held = [name for name, bit in (("CAP_SYS_ADMIN", _CAP_SYS_ADMIN), ("CAP_BPF", _CAP_BPF)) if effective >> bit & 1]
    return f"holds {' and '.join(held)}" if held else "holds neither CAP_BPF nor CAP_SYS_ADMIN"


def _in_child(call: str) -> int:
    """Make a C call in a Python process of its own and return its errno, 0 where it succeeded."""
    command = [sys.executable, "-I", "-S", "-c", _CALL.format(call=call)]
    done = asyncio.run(processes.run(command, env={}, timeout=10))
    return int(done.stdout)
