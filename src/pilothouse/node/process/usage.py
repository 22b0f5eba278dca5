"""How much a directory holds."""

from __future__ import annotations

import os

from pilothouse.node.runtime import FilesystemUsage

__all__ = ["directory_usage", "filesystem_usage", "process_usage"]

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def directory_usage(path: str) -> FilesystemUsage:
    """Return what a directory takes on disk; zeros for one that is not there. Goes through all of it."""
    used = count = 0
    waiting = [path]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                used += entry.stat(follow_symlinks=False).st_blocks * 512
            except OSError:
                continue
            count += 1
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
    return FilesystemUsage(path=path, used_bytes=used, inodes_used=count)


def process_usage(pid: int) -> tuple[int, int, int]:
    """Return CPU time in ns, resident bytes and number of a process and those that come of it, as long as they live."""
    cpu = memory = count = 0
    waiting = [pid]
    while waiting:
        found = waiting.pop()
        try:
            with open(f"/proc/{found}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{found}/task/{found}/children", encoding="ascii") as file:
                waiting += [int(word) for word in file.read().split()]
        except OSError:
            continue
        cpu += (int(fields[11]) + int(fields[12])) * 1_000_000_000 // _TICKS
        memory += int(fields[21]) * _PAGE
        count += 1
    return cpu, memory, count


def filesystem_usage(path: str, used: int) -> FilesystemUsage:
    """Return how full the file system of `path` is, of which `used` bytes are ours. Raises `OSError`."""
    found = os.statvfs(path)
    return FilesystemUsage(
        path=path,
        used_bytes=used,
        capacity_bytes=found.f_blocks * found.f_frsize,
        available_bytes=found.f_bavail * found.f_frsize,
    )
