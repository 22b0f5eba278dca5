"""Control groups of this machine: version 2, or 1 with the controllers that are writable; limits, numbers, removal."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pilothouse.foundation.rights import SYS_ADMIN, effective
from pilothouse.node.cgroupmath import shares_to_weight
from pilothouse.node.config import Resources

__all__ = ["CONTROLLERS", "ControlGroups", "Usage", "detect"]

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "devices")
_OPTIONAL = ("cpuset",)
_V2_WANTED = ("cpu", "memory", "pids", "cpuset")
_REMOVE_ATTEMPTS, _REMOVE_PAUSE = 50, 0.02
_MAKE_ATTEMPTS = 5
# What a container may do with devices: make any node, use the harmless ones and terminals.
_DEVICES = (
    "c *:* m",
    "b *:* m",
    *(f"c 1:{minor} rwm" for minor in (3, 5, 7, 8, 9)),
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
)


class Usage(NamedTuple):
    """What a group has used: CPU in ns, memory in bytes, processes, kills for lack of memory."""

    cpu_ns: int = 0
    memory: int = 0
    working_set: int = 0
    rss: int = 0
    pids: int = 0
    oom_kills: int = 0


class ControlGroups:
    """The groups below `prefix` of each hierarchy. `mounts` leads from a controller to its mount; version 2 has ""."""

    def __init__(self, mounts: Mapping[str, str], prefix: str = "") -> None:
        self.mounts = dict(mounts)
        self.prefix = prefix.strip("/")
        self.unavailable: set[str] = set()
        """Controllers of version 2 that turned out not to reach the groups: their limits do not hold."""

    @property
    def version(self) -> int:
        """2, 1, or 0 where there are none to be had."""
        return 2 if "" in self.mounts else 1 if self.mounts else 0

    @property
    def guards_devices(self) -> bool:
        """Whether the group itself keeps devices away, so that making nodes does no harm."""
        return "devices" in self.mounts

    def directories(self, path: str) -> dict[str, str]:
        """Return the directory of a group by controller."""
        inner = "/".join(part for part in (self.prefix, path.strip("/")) if part)
        return {name: f"{mount}/{inner}" for name, mount in self.mounts.items() if name not in _OPTIONAL}

    def create(self, path: str, resources: Resources | None = None, *, all_devices: bool = True) -> None:
        """Make a group with its parents and set its limits. Raises `OSError` that names the file."""
        for name, directory in self.directories(path).items():
            self._make(name, directory)
        if resources is not None:
            self.limit(path, resources)
        if not all_devices and (devices := self.directories(path).get("devices")):
            _write(f"{devices}/devices.deny", "a")
            for rule in _DEVICES:
                _write(f"{devices}/devices.allow", rule)

    def allow_device(self, path: str, rule: str) -> None:
        """Allow one more device, in the form of the kernel: "c 10:229 rw"."""
        if devices := self.directories(path).get("devices"):
            _write(f"{devices}/devices.allow", rule)

    def limit(self, path: str, resources: Resources) -> None:
        """Set limits; those whose controller is missing are left out (see `detect` and `unavailable`)."""
        directories = self.directories(path)
        settings = _v2_settings(resources) if self.version == 2 else _v1_settings(resources)
        for controller, file, value in settings:
            directory = directories.get("" if self.version == 2 else controller)
            if directory is None:
                continue
            try:
                _write(f"{directory}/{file}", value)
            except FileNotFoundError:
                if controller == "optional":
                    continue
                if self.version == 1 or controller in _read(f"{directory}/cgroup.controllers").split():
                    raise
                # In a container the topmost group may have processes, and hands no controllers down then.
                self.unavailable.add(controller)

    def procs_files(self, path: str) -> tuple[str, ...]:
        """Return the files to write a process id to, so that it and its children belong to the group."""
        return tuple(f"{directory}/cgroup.procs" for directory in dict.fromkeys(self.directories(path).values()))

    def oom_file(self, path: str) -> str:
        """Return the file with the line `oom_kill N`, empty where there is none."""
        directories = self.directories(path)
        if self.version == 2:
            return f"{directories['']}/memory.events"
        return f"{directories['memory']}/memory.oom_control" if "memory" in directories else ""

    def processes(self, path: str) -> set[int]:
        """Return the processes of a group and those below it."""
        return {pid for directory in self.directories(path).values() for pid in _processes(directory)}

    def kill(self, path: str) -> None:
        """Send SIGKILL to all processes of a group and those below it."""
        for directory in self.directories(path).values():
            with contextlib.suppress(OSError):
                if os.path.exists(f"{directory}/cgroup.kill"):
                    _write(f"{directory}/cgroup.kill", "1")
                    continue
            for pid in _processes(directory):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def remove(self, path: str) -> bool:
        """Kill what runs in a group and remove it with those below; False if it cannot be removed within a second."""
        left = list(self.directories(path).values())
        for attempt in range(_REMOVE_ATTEMPTS):
            left = [directory for directory in left if not _remove_tree(directory)]
            if not left:
                return True
            self.kill(path)
            if attempt:
                time.sleep(_REMOVE_PAUSE)
        return False

    def remove_empty(self, path: str) -> None:
        """Remove a group that has neither processes nor groups below it; any other one stays."""
        for directory in self.directories(path).values():
            with contextlib.suppress(OSError):
                os.rmdir(directory.rstrip("/"))

    def children(self, path: str) -> set[str]:
        """Return the names of the groups directly below one."""
        found: set[str] = set()
        for directory in self.directories(path).values():
            with contextlib.suppress(OSError):
                found.update(entry.name for entry in os.scandir(directory) if entry.is_dir())
        return found

    def usage(self, path: str) -> Usage:
        """Return what a group has used; zeros where it is gone or a controller is missing."""
        directories = self.directories(path)
        return _v2_usage(directories[""]) if self.version == 2 else _v1_usage(directories) if directories else Usage()

    def _make(self, controller: str, directory: str) -> None:
        for attempt in range(_MAKE_ATTEMPTS):
            try:
                self._make_once(controller, directory)
            except FileNotFoundError:
                # Somebody who shares the parent has just found it empty and removed it.
                if attempt == _MAKE_ATTEMPTS - 1:
                    raise
            else:
                return

    def _make_once(self, controller: str, directory: str) -> None:
        mount = self.mounts[controller]
        current = mount
        for part in directory.removeprefix(mount).strip("/").split("/"):
            if self.version == 2:
                # Before there are children in need of them, and never for a group with processes of its own.
                _enable(current)
            current = f"{current}/{part}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(current, 0o755)


def detect(prefix: str = "", mountinfo: str = "/proc/self/mountinfo") -> ControlGroups:
    """Return the hierarchies in which this process may make groups: all of version 2, else what version 1 has."""
    mounts: dict[str, str] = {}
    for kind, point, options in _mounts(mountinfo):
        if not os.access(point, os.W_OK):
            continue
        if kind == "cgroup2" and {"cpu", "memory", "pids"} <= set(_read(f"{point}/cgroup.controllers").split()):
            return ControlGroups({"": point}, prefix)
        if kind == "cgroup":
            mounts.update((name, point) for name in (*CONTROLLERS, *_OPTIONAL) if name in options)
    if not effective() >> SYS_ADMIN & 1:
        mounts.pop("devices", None)  # whoever owns the files, the kernel takes rules about devices of nobody else
    return ControlGroups(mounts, prefix)


def _mounts(path: str) -> Iterator[tuple[str, str, set[str]]]:
    for line in _read(path).splitlines():
        before, _, after = line.partition(" - ")
        if after:
            kind, _, options = after.split(" ", 2)
            yield kind, before.split()[4], set(options.split(","))


def _v1_settings(resources: Resources) -> Iterator[tuple[str, str, str]]:
    if resources.cpu_shares:
        yield "cpu", "cpu.shares", str(resources.cpu_shares)
    if resources.cpu_quota:
        yield "cpu", "cpu.cfs_period_us", str(resources.cpu_period or 100_000)
        yield "cpu", "cpu.cfs_quota_us", str(resources.cpu_quota)
    if resources.memory_limit:
        yield "memory", "memory.limit_in_bytes", str(resources.memory_limit)
    if resources.pids_limit:
        yield "pids", "pids.max", str(resources.pids_limit)


def _v2_settings(resources: Resources) -> Iterator[tuple[str, str, str]]:
    if resources.cpu_shares:
        yield "cpu", "cpu.weight", str(shares_to_weight(resources.cpu_shares))
    if resources.cpu_quota:
        yield "cpu", "cpu.max", f"{resources.cpu_quota} {resources.cpu_period or 100_000}"
    if resources.memory_limit:
        yield "memory", "memory.max", str(resources.memory_limit)
        yield "optional", "memory.swap.max", "0"
    if resources.pids_limit:
        yield "pids", "pids.max", str(resources.pids_limit)
    if resources.cpuset_cpus:
        yield "cpuset", "cpuset.cpus", resources.cpuset_cpus
    if resources.cpuset_mems:
        yield "cpuset", "cpuset.mems", resources.cpuset_mems
    for file, value in resources.unified.items():
        yield "unified", file, value


def _v1_usage(directories: Mapping[str, str]) -> Usage:
    memory = directories.get("memory", "")
    numbers = _table(_read(f"{memory}/memory.stat")) if memory else {}
    used = _number(f"{memory}/memory.usage_in_bytes") if memory else 0
    return Usage(
        cpu_ns=_number(f"{directories['cpuacct']}/cpuacct.usage") if "cpuacct" in directories else 0,
        memory=used,
        working_set=max(0, used - numbers.get("total_inactive_file", 0)),
        rss=numbers.get("total_rss", 0),
        pids=_number(f"{directories['pids']}/pids.current") if "pids" in directories else 0,
        oom_kills=_table(_read(f"{memory}/memory.oom_control")).get("oom_kill", 0) if memory else 0,
    )


def _v2_usage(directory: str) -> Usage:
    numbers = _table(_read(f"{directory}/memory.stat"))
    used = _number(f"{directory}/memory.current")
    return Usage(
        cpu_ns=_table(_read(f"{directory}/cpu.stat")).get("usage_usec", 0) * 1000,
        memory=used,
        working_set=max(0, used - numbers.get("inactive_file", 0)),
        rss=numbers.get("anon", 0),
        pids=_number(f"{directory}/pids.current"),
        oom_kills=_table(_read(f"{directory}/memory.events")).get("oom_kill", 0),
    )


def _enable(directory: str) -> None:
    have = set(_read(f"{directory}/cgroup.controllers").split())
    on = set(_read(f"{directory}/cgroup.subtree_control").split())
    for name in _V2_WANTED:
        if name in have - on:
            # One at a time: the root may refuse one that something else holds.
            with contextlib.suppress(OSError):
                _write(f"{directory}/cgroup.subtree_control", f"+{name}")


def _remove_tree(directory: str) -> bool:
    try:
        children = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return True
    if not all([_remove_tree(child) for child in children]):  # noqa: C419  # every one of them has its try
        return False
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            raise
        return False
    return True


def _processes(directory: str) -> Iterator[int]:
    for parent, _, _ in os.walk(directory):
        for line in _read(f"{parent}/cgroup.procs").split():
            yield int(line)


def _table(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].lstrip("-").isdigit()}


def _number(path: str) -> int:
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f'cannot set to "{text}": {os.strerror(error.errno or 0)}', path) from error
    finally:
        os.close(fd)
