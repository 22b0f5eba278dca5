"""The file seam: every byte that must survive a crash goes through a `FileSystem`.

`OsFileSystem` is the real one. Fault tests put another in its place that fails, tears or drops at a chosen call,
so code above the seam must treat each call as one that may fail. All methods block and raise `OSError` as the
system call does; callers run them off the event loop.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["Buffer", "FileSystem", "OsFileSystem", "write_all", "write_whole"]

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})

Buffer = bytes | bytearray | memoryview


class FileSystem(Protocol):
    """The calls that durable storage is made of. Paths are absolute, descriptors are the process's own."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open a file and return its descriptor."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def pwrite(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write the buffers one after the other at `offset`; return the bytes written, which may be fewer."""

    def pwrite_durable(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Write as `pwrite` does, and make what was written durable before returning, as `fdatasync` does."""

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes at `offset`."""

    def fdatasync(self, fd: int) -> None:
        """Make the file's data durable."""

    def fsync(self, fd: int) -> None:
        """Make the file's data and metadata durable."""

    def sync_directory(self, path: str) -> None:
        """Make renames, creations and removals in a directory durable."""

    def allocate(self, fd: int, offset: int, length: int) -> None:
        """Reserve disk blocks that read as zeros."""

    def truncate(self, fd: int, length: int) -> None:
        """Set the file's length."""

    def size(self, fd: int) -> int:
        """Return the file's length in bytes."""

    def next_data(self, fd: int, offset: int) -> int:
        """Return where, at or after `offset`, the next byte that may not be zero stands; the length if none does."""

    def rename(self, source: str, target: str) -> None:
        """Put `source` in the place of `target`, all or nothing."""

    def unlink(self, path: str) -> None:
        """Remove a file."""

    def listdir(self, path: str) -> list[str]:
        """Return the names in a directory."""

    def exists(self, path: str) -> bool:
        """Whether there is something at `path`."""

    def mode(self, path: str) -> int:
        """Return type and permission bits of what is at `path`, as `stat` does."""

    def makedirs(self, path: str, mode: int = 0o700) -> None:
        """Make a directory and its parents; an existing one is fine."""

    def lock(self, fd: int) -> bool:
        """Take an exclusive lock on a file without waiting; return False when another process holds it."""


class OsFileSystem:
    """The operating system's files.

    A durable write is one system call where the kernel offers it (Linux), so that a thread which makes it need
    not ask for the interpreter in between.
    """

    def __init__(self) -> None:
        self._write_through = hasattr(os, "RWF_DSYNC")

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pwrite(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def pwrite_durable(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        if self._write_through:
            try:
                return os.pwritev(fd, buffers, offset, os.RWF_DSYNC)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._write_through = False
        written = os.pwritev(fd, buffers, offset)
        os.fdatasync(fd)
        return written

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        os.posix_fallocate(fd, offset, length)

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def next_data(self, fd: int, offset: int) -> int:
        try:
            return os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return max(offset, os.fstat(fd).st_size)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def mode(self, path: str) -> int:
        return os.stat(path).st_mode

    def makedirs(self, path: str, mode: int = 0o700) -> None:
        os.makedirs(path, mode, exist_ok=True)

    def lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def write_all(write: Callable[[int, Sequence[Buffer], int], int], fd: int, data: Buffer, offset: int) -> int:
    """Write all of `data` with a file system's `pwrite` or `pwrite_durable`, however few bytes one call takes.

    Returns the offset behind it; raises `OSError`, EIO where a call takes no bytes at all.
    """
    rest = memoryview(data)
    while rest:
        count = write(fd, (rest,), offset)
        if count == 0:
            raise OSError(errno.EIO, "the write took no bytes")
        offset += count
        rest = rest[count:]
    return offset


def write_whole(files: FileSystem, path: str, data: Buffer, mode: int) -> None:
    """Put a file of these bytes and this mode in the place of `path`, durably: whole, or what was there stays.

    Raises `OSError`.
    """
    target = os.path.abspath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        files.unlink(temporary)  # of an earlier process with our id that was killed
    try:
        fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            write_all(files.pwrite, fd, data, 0)
            files.fsync(fd)
        finally:
            files.close(fd)
        files.rename(temporary, target)
        files.sync_directory(os.path.dirname(target))
    except OSError:
        with contextlib.suppress(OSError):
            files.unlink(temporary)
        raise
