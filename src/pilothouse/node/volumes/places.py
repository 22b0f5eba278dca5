"""Directories on the machine: host paths checked by type, sub paths made without leaving a volume, owners, sizes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from pilothouse.node.process.syscalls import open_in_root

__all__ = ["HostPathError", "check_host_path", "disk_usage", "make_within", "owners_left", "set_group"]

_KINDS: Final = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}
_WRITE, _READ = 0o660, 0o440
_ENTER: Final = 0o110


class HostPathError(Exception):
    """A host path is not what it should be; the text is a kubelet's."""


def check_host_path(path: str, kind: str) -> None:
    """See to it that a host path is of a type, made where the type says so. Raises `HostPathError`."""
    if not kind:
        if not os.path.lexists(path):
            # A runtime makes what a bind mount needs, as Docker did; nothing here may depend on which one it is.
            _make(path, directory=True)
        return
    if kind not in _KINDS:
        raise HostPathError(f"unknown host path type: {kind}")
    if kind.endswith("OrCreate") and not os.path.exists(path):
        _make(path, directory=kind.startswith("Directory"))
    fits, shown = _KINDS[kind]
    try:
        mode = os.stat(path).st_mode
    except OSError:
        raise HostPathError(f"hostPath type check failed: {path} is not {shown}") from None
    if not fits(mode):
        raise HostPathError(f"hostPath type check failed: {path} is not {shown}")


def _make(path: str, *, directory: bool) -> None:
    try:
        if directory:
            os.makedirs(path, 0o755, exist_ok=True)
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise HostPathError(f"cannot make {path}: {error.strerror}") from error


def make_within(base: str, path: str, mode: int = 0o755) -> None:
    """Make the directories of `path` below `base` where they are missing; links never lead out of `base`.

    What is there already may be a file too. Raises ValueError for a path that is none of a volume's, OSError.
    """
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f'sub path "{path}" must be relative and must not contain ".."')
    root = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for count in range(1, len(parts) + 1):
            _step(root, parts[:count], mode)
    finally:
        os.close(root)


def _step(root: int, parts: list[str], mode: int) -> None:
    try:
        os.close(open_in_root(root, "/".join(parts)))
    except FileNotFoundError:
        parent = open_in_root(root, "/".join(parts[:-1]) or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            # A link that leads nowhere is not followed: mkdirat fails on it.
            os.mkdir(parts[-1], dir_fd=parent)
            os.chmod(parts[-1], mode, dir_fd=parent)
        except FileExistsError as error:
            with contextlib.suppress(OSError):
                os.close(open_in_root(root, "/".join(parts)))
                return
            raise OSError(errno.ELOOP, "leads nowhere within the volume", "/".join(parts)) from error
        finally:
            os.close(parent)


@contextlib.contextmanager
def owners_left() -> Iterator[None]:
    """Leave owners as they are where this user may not change them, or its namespace does not have the new one."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES, errno.EINVAL}:
            raise


def _entries(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield a directory and all below it with what they are; nothing is followed, nothing of other mounts entered."""
    device = os.lstat(path).st_dev
    waiting = [path]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.lstat(current)
            if found.st_dev != device:
                continue
            yield current, found
            if stat.S_ISDIR(found.st_mode):
                waiting += [entry.path for entry in os.scandir(current)]


def set_group(path: str, group: int, *, read_only: bool = False, on_mismatch_only: bool = False) -> None:
    """Let a group own a volume and all in it, with new files its own too, as `fsGroup` asks for.

    on_mismatch_only: leave everything where the volume's root is right already. Without rights nothing happens.
    """
    access = _READ if read_only else _WRITE
    top = os.lstat(path)
    wanted = access | _ENTER | stat.S_ISGID
    if on_mismatch_only and top.st_gid == group and top.st_mode & wanted == wanted:
        return
    with owners_left():
        for place, found in _entries(path):
            if stat.S_ISLNK(found.st_mode):
                os.chown(place, -1, group, follow_symlinks=False)
                continue
            mode = stat.S_IMODE(found.st_mode) | (wanted if stat.S_ISDIR(found.st_mode) else access)
            os.chown(place, -1, group, follow_symlinks=False)
            os.chmod(place, mode)


def disk_usage(path: str, limit: int = 1_000_000) -> tuple[int, int]:
    """Return the bytes and inodes that a directory takes on its disk; counting ends after `limit` entries."""
    size = count = 0
    seen: set[int] = set()
    with contextlib.suppress(FileNotFoundError):
        for _, found in _entries(path):
            if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                if found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
            count += 1
            if count > limit:
                break
            size += found.st_blocks * 512
    return size, count
