"""What the agent holds of sandboxes and containers, and the files it is read back from."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from typing import Any

import msgspec

from pilothouse.node.config import ContainerConfig, DNSConfig, SandboxConfig
from pilothouse.node.runtime import ContainerStatus, SandboxStatus

from .links import KeeperLink
from .spec import ContainerRecord, KeeperRecord, boot_id, marked, parent_of, process_start, read_file
from .zygote import KEEPER_NAME, MODULE

__all__ = [
    "Container",
    "Pod",
    "StoredContainer",
    "StoredSandbox",
    "descends_from",
    "keeper_of",
    "kill_marked",
    "kill_recorded",
    "kill_zygotes",
    "processes_of",
    "remove_tree",
    "write_pod_files",
]


_KILL_ROUNDS = 100


class StoredSandbox(msgspec.Struct, frozen=True, kw_only=True):
    """`sandbox.json`: written before anything that has to be given back."""

    id: str
    config: SandboxConfig
    created_at: int
    address: str = ""
    cgroup: str = ""
    own_cgroup_parent: bool = False


class StoredContainer(msgspec.Struct, frozen=True, kw_only=True):
    """`config.json` of a container."""

    id: str
    config: ContainerConfig
    created_at: int
    image_id: str
    image_ref: str
    stop_signal: int
    cgroup: str = ""


class Container:
    """A container, and the agent's newest word of it."""

    def __init__(self, stored: StoredContainer, sandbox_id: str, directory: str) -> None:
        self.stored = stored
        self.sandbox_id = sandbox_id
        self.directory = directory
        self.record = ContainerRecord(id=stored.id)
        self.exited = asyncio.Event()

    def take(self, record: ContainerRecord) -> bool:
        """Take over a newer record; return whether the state is another one."""
        if self.record.state == "Exited":
            return False  # the end is the end, whatever comes late
        changed = record.state != self.record.state
        self.record = record
        if record.state == "Exited":
            self.exited.set()
        return changed

    def status(self, log_path: str) -> ContainerStatus:
        """Return the status as others see it."""
        stored, record = self.stored, self.record
        return ContainerStatus(
            id=stored.id,
            metadata=stored.config.metadata,
            sandbox_id=self.sandbox_id,
            state=record.state,
            created_at=stored.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            exit_code=record.exit_code,
            signal=record.signal,
            reason=record.reason,
            message=record.message,
            image=stored.config.image,
            image_id=stored.image_ref,
            pid=record.pid if record.state == "Running" else 0,
            log_path=log_path,
            labels=stored.config.labels,
            annotations=stored.config.annotations,
        )


class Pod:
    """A sandbox with its containers; `link` is None when its keeper is gone."""

    def __init__(self, stored: StoredSandbox, directory: str) -> None:
        self.stored = stored
        self.directory = directory
        self.link: KeeperLink | None = None
        self.pid = 0
        self.containers: dict[str, Container] = {}
        self.ended = asyncio.Event()
        self.lock = asyncio.Lock()

    def status(self) -> SandboxStatus:
        """Return the status as others see it."""
        stored = self.stored
        return SandboxStatus(
            id=stored.id,
            metadata=stored.config.metadata,
            state="Ready" if self.link is not None else "NotReady",
            created_at=stored.created_at,
            ip=stored.address,
            pid=self.pid if self.link is not None else 0,
            labels=stored.config.labels,
            annotations=stored.config.annotations,
        )

    def log_path(self, container: Container) -> str:
        """Return the path of a container's log, empty for none."""
        directory, name = self.stored.config.log_directory, container.stored.config.log_path
        return f"{directory}/{name}" if directory and name else ""


def write_pod_files(directory: str, config: SandboxConfig, address: str) -> None:
    """Write the pod's `hostname`, `hosts` and `resolv.conf`. Raises `OSError`."""
    name = config.hostname or os.uname().nodename
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    hosts += [f"{address}\t{name}"] if address else []
    _write(f"{directory}/hostname", f"{name}\n")
    _write(f"{directory}/hosts", "\n".join(hosts) + "\n")
    _write(f"{directory}/resolv.conf", _resolver(config.dns))


def keeper_of(directory: str) -> int:
    """Return the id of a sandbox's keeper if that very process is alive, else 0."""
    try:
        record = read_file(f"{directory}/keeper.json", KeeperRecord)
    except (OSError, ValueError):
        return 0
    alive = record.boot_id == boot_id() and process_start(record.pid) == record.started_ticks
    return record.pid if alive else 0


def kill_recorded(directory: str, on_this_boot: Callable[[], bool]) -> None:
    """Kill the first process of a container that its keeper left behind, if it is that very process."""
    with contextlib.suppress(OSError, ValueError):
        record = read_file(f"{directory}/state.json", ContainerRecord)
        if record.pid and record.started_ticks and on_this_boot() and process_start(record.pid) == record.started_ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)


def kill_marked(ids: set[str]) -> None:
    """Kill what bears the mark of these containers, until there is none: some may be forking. A round is some ms."""
    for _ in range(_KILL_ROUNDS if ids else 0):
        found = {pid for pid in marked(ids, _all_processes()) if process_start(pid)}
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.005)


def _all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def processes_of(root: str) -> list[int]:
    """Return the zygotes and keepers of a runtime's directory."""
    wanted = [MODULE.encode(), os.fsencode(root)]
    found = []
    for pid in _all_processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if words[3:4] == wanted[:1] and words[5:6] == wanted[1:] and process_start(pid):
                found.append(pid)
    return found


def descends_from(pid: int, known: set[int]) -> bool:
    """Return whether a process is one of some, or a descendant of one."""
    while pid > 1:
        if pid in known:
            return True
        pid = parent_of(pid)
    return False


def kill_zygotes(root: str, *, keepers: bool = False) -> None:
    """Kill the zygotes of a runtime's directory, until there is none: what they fork last would be nobody's.

    keepers: kill those too, and what they have forked that runs no program yet.
    """
    for _ in range(_KILL_ROUNDS):
        found = [pid for pid in processes_of(root) if keepers or not _is_keeper(pid)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(0.005)


def _is_keeper(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
        return file.read().strip() == KEEPER_NAME
    return True  # it is gone


def remove_tree(path: str) -> None:
    """Remove a directory with all in it, also what its owner made unreadable."""

    def retry(function: Callable[..., Any], name: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), stat.S_IRWXU)
            if os.path.isdir(name) and not os.path.islink(name):
                os.chmod(name, stat.S_IRWXU)
                shutil.rmtree(name, ignore_errors=True)
            else:
                function(name)

    shutil.rmtree(path, onerror=retry)


def _resolver(dns: DNSConfig) -> str:
    if not (dns.servers or dns.searches or dns.options):
        with contextlib.suppress(OSError), open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return file.read()
        return ""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "\n".join(lines) + "\n"


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
        os.fchmod(fd, 0o644)
    finally:
        os.close(fd)
