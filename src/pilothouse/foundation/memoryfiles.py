"""Files that are gone with the program: a `FileSystem` in memory, for what need not outlive the process."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence

from pilothouse.foundation.files import Buffer

__all__ = ["MemoryFileSystem"]


class _File:
    __slots__ = ("data", "locked_by", "mode", "size")

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.size = 0
        # Shorter than `size` where what follows was never written: space reserved ahead costs nothing.
        self.data = bytearray()
        self.locked_by = 0

    def resize(self, size: int) -> None:
        del self.data[size:]
        self.size = size

    def write(self, buffers: Sequence[Buffer], offset: int) -> int:
        data = self.data
        if offset > len(data):
            data.extend(bytes(offset - len(data)))
        start = offset
        for buffer in buffers:
            data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)
        self.size = max(self.size, len(data))
        return offset - start


class MemoryFileSystem:
    """Implements `FileSystem`; the directory `root` is there from the beginning, and nothing outside of it.

    Syncs do nothing, so writes cost what a copy costs. Any thread may call it. Descriptors are its own numbers.
    """

    def __init__(self, root: str = "/memory") -> None:
        self._root = root
        self._files: dict[str, _File] = {}
        self._directories = {root: stat.S_IFDIR | 0o700}
        self._open: dict[int, _File] = {}
        self._last = 0
        self._mutex = threading.RLock()

    @property
    def open_descriptors(self) -> int:
        """The number of descriptors that have not been closed."""
        return len(self._open)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        with self._mutex:
            if path in self._directories:
                raise _error(errno.EISDIR, path)
            file = self._files.get(path)
            if file is None:
                if not flags & os.O_CREAT or os.path.dirname(path) not in self._directories:
                    raise _error(errno.ENOENT, path)
                file = self._files[path] = _File(stat.S_IFREG | mode)
            elif flags & os.O_CREAT and flags & os.O_EXCL:
                raise _error(errno.EEXIST, path)
            elif flags & os.O_TRUNC:
                file.resize(0)
            self._last += 1
            self._open[self._last] = file
            return self._last

    def close(self, fd: int) -> None:
        with self._mutex:
            file = self._at(fd)
            del self._open[fd]
            if file.locked_by == fd:
                file.locked_by = 0

    def pwrite(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        with self._mutex:
            return self._at(fd).write(buffers, offset)

    def pwrite_durable(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return self.pwrite(fd, buffers, offset)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        with self._mutex:
            file = self._at(fd)
            end = min(offset + size, file.size)
            return bytes(file.data[offset:end]).ljust(max(0, end - offset), b"\0")

    def fdatasync(self, fd: int) -> None:
        self._at(fd)

    def fsync(self, fd: int) -> None:
        self._at(fd)

    def sync_directory(self, path: str) -> None:
        if path not in self._directories and path != os.path.dirname(self._root):
            raise _error(errno.ENOENT, path)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        with self._mutex:
            file = self._at(fd)
            file.size = max(file.size, offset + length)

    def truncate(self, fd: int, length: int) -> None:
        with self._mutex:
            self._at(fd).resize(length)

    def size(self, fd: int) -> int:
        return self._at(fd).size

    def next_data(self, fd: int, offset: int) -> int:
        with self._mutex:
            file = self._at(fd)
            rest = bytes(file.data[offset:]).lstrip(b"\0")
            return len(file.data) - len(rest) if rest else max(offset, file.size)

    def rename(self, source: str, target: str) -> None:
        with self._mutex:
            if source not in self._files or os.path.dirname(target) not in self._directories:
                raise _error(errno.ENOENT, source)
            if target in self._directories:
                raise _error(errno.EISDIR, target)
            self._files[target] = self._files.pop(source)

    def unlink(self, path: str) -> None:
        with self._mutex:
            if self._files.pop(path, None) is None:
                raise _error(errno.ENOENT, path)

    def listdir(self, path: str) -> list[str]:
        with self._mutex:
            if path not in self._directories:
                raise _error(errno.ENOENT, path)
            found = [each for each in (*self._files, *self._directories) if os.path.dirname(each) == path != each]
            return sorted(map(os.path.basename, found))

    def exists(self, path: str) -> bool:
        return path in self._files or path in self._directories

    def mode(self, path: str) -> int:
        with self._mutex:
            file = self._files.get(path)
            if file is not None:
                return file.mode
            if path not in self._directories:
                raise _error(errno.ENOENT, path)
            return self._directories[path]

    def makedirs(self, path: str, mode: int = 0o700) -> None:
        with self._mutex:
            if path in self._files:
                raise _error(errno.EEXIST, path)
            if path in self._directories:
                return
            parent = os.path.dirname(path)
            if parent == path or not path.startswith(self._root):
                raise _error(errno.EACCES, path)
            self.makedirs(parent, mode)
            self._directories[path] = stat.S_IFDIR | mode

    def lock(self, fd: int) -> bool:
        with self._mutex:
            file = self._at(fd)
            if not file.locked_by:
                file.locked_by = fd
            return file.locked_by == fd

    def _at(self, fd: int) -> _File:
        file = self._open.get(fd)
        if file is None:
            raise _error(errno.EBADF, str(fd))
        return file


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
