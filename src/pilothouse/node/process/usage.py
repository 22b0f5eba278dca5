"""How much a directory holds."""

from __future__ import annotations

import os

from pilothouse.node.runtime import FilesystemUsage

__all__ = ["directory_usage", "filesystem_usage"]


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


def filesystem_usage(path: str, used: int) -> FilesystemUsage:
    """Return how full the file system of `path` is, of which `used` bytes are ours. Raises `OSError`."""
    found = os.statvfs(path)
    return FilesystemUsage(
        path=path,
        used_bytes=used,
        capacity_bytes=found.f_blocks * found.f_frsize,
        available_bytes=found.f_bavail * found.f_frsize,
    )
