"""What a keeper is told, worked out to the last detail by the agent, and what it writes down. Files in JSON."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from typing import Literal, TypeVar

import msgspec

from pilothouse.node.config import Device, Mount

__all__ = [
    "MARK",
    "ContainerRecord",
    "ContainerSpec",
    "ExecSpec",
    "KeeperRecord",
    "NetworkSpec",
    "RootSpec",
    "SandboxSpec",
    "UserSpec",
    "boot_id",
    "marked",
    "parent_of",
    "process_start",
    "read_file",
    "write_file",
]

_T = TypeVar("_T")

MARK = "PILOTHOUSE_CONTAINER"
"""The variable by which a container's processes are told where neither groups nor namespaces do it."""

_MAX_ENVIRONMENT = 4 << 20

Mode = Literal["root", "userns", "plain"]


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's link to the bridge."""

    address: str
    prefix: int
    gateway: str
    bridge: str
    veth: str
    mtu: int = 1500


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a keeper makes before its first container. Without `network` the machine's own is used."""

    id: str
    directory: str
    mode: Mode
    hostname: str = ""
    network: NetworkSpec | None = None
    own_ipc: bool = True
    share_processes: bool = False
    sysctls: dict[str, str] = {}
    shm_size: int = 64 << 20


class RootSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where a container's files come from.

    "overlay": `lower`, the topmost first, below `base`, with `upper` and `work`; "directory": `path` as it is; "host":
    this machine's files without those in `hidden`; "none": no root of its own, where no mounts can be made.
    """

    type: Literal["overlay", "directory", "host", "none"]
    base: str = ""
    lower: tuple[str, ...] = ()
    upper: str = ""
    work: str = ""
    path: str = ""
    hidden: tuple[str, ...] = ()


class UserSpec(msgspec.Struct, frozen=True, kw_only=True):
    """As whom to run: numbers count before `name`, which is the image's form `user[:group]`."""

    name: str = ""
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    merge: bool = True


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that makes a container. `capabilities` is a bit set, `seccomp` a compiled filter or empty."""

    id: str
    directory: str
    argv: tuple[str, ...]
    root: RootSpec
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    user: UserSpec = UserSpec()
    read_only_root: bool = False
    privileged: bool = False
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    capabilities: int = 0
    no_new_privileges: bool = True
    seccomp: bytes = b""
    masked: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    log_path: str = ""
    cgroup_files: tuple[str, ...] = ()
    cgroup_views: tuple[tuple[str, str], ...] = ()
    oom_file: str = ""
    oom_score_adj: int = 0
    pid: Literal["Container", "Pod", "Node", "Target"] = "Container"
    target_id: str = ""
    target_pid: int = 0


class ExecSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A further command in a container."""

    argv: tuple[str, ...]
    tty: bool = False
    stdin: bool = False


class ContainerRecord(msgspec.Struct, kw_only=True):
    """What a keeper knows of a container; written at each change. Times in ns, `started_ticks` as the kernel counts."""

    id: str
    state: Literal["Created", "Running", "Exited"] = "Created"
    pid: int = 0
    started_ticks: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    log_lost: int = 0


class KeeperRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which process keeps a sandbox: the id alone could be another's by now."""

    pid: int
    started_ticks: int
    boot_id: str


def write_file(path: str, value: msgspec.Struct) -> None:
    """Put a record in the place of `path`: a reader sees the old or the new one, whole."""
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = memoryview(msgspec.json.encode(value))
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read_file(path: str, kind: type[_T]) -> _T:
    """Read a record; raises `OSError`, `ValueError` for one that is broken."""
    with open(path, "rb") as file:
        data = file.read()
    return msgspec.json.decode(data, type=kind)


def marked(ids: Collection[str], among: Iterable[int]) -> set[int]:
    """Return those of some processes that bear the mark of one of these containers."""
    wanted = {f"{MARK}={container_id}".encode() for container_id in ids}
    found = set()
    for pid in among:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if wanted & set(file.read(_MAX_ENVIRONMENT).split(b"\0")):
                found.add(pid)
    return found


def boot_id() -> str:
    """Return what tells this start of the machine from others."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def parent_of(pid: int) -> int:
    """Return the id of a process's parent, 0 where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def process_start(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where there is none or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])
