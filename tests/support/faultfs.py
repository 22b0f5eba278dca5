"""A file system in memory that fails, tears and forgets at a chosen call.

Every call that changes something is a point, counted from 0. A plan says what happens at which point. What has not
been synced may be lost: a file's 512-byte sectors each by itself (any content since the last sync may be what the
disk has), its length, and the last operations on each directory. After a failed sync the sectors concerned stay
unsynced whatever is synced later, as on Linux.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from pilothouse.foundation.files import Buffer

SECTOR = 512


class SimulatedCrash(BaseException):
    """The machine is gone; every further call on the file system raises it too."""


class Fault(enum.Enum):
    """What happens at a point."""

    EIO = "eio"
    ENOSPC = "enospc"
    SHORT = "short"
    FLIP = "flip"
    CRASH = "crash"


class Point(NamedTuple):
    """A call that changes something."""

    call: str
    path: str


class _Inode:
    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()
        self.abandoned: set[int] = set()
        self.earlier: dict[int, list[bytes]] = {}
        self.resized = False

    def remember(self, start: int, end: int) -> None:
        """Keep what is about to change and was not synced: the disk may have it already."""
        sectors = range(start // SECTOR, -(-end // SECTOR))
        for sector in [sector for sector in self.dirty | self.abandoned if sector in sectors]:
            self.earlier.setdefault(sector, []).append(bytes(self.data[sector * SECTOR : (sector + 1) * SECTOR]))

    def touch(self, start: int, end: int) -> None:
        sectors = range(start // SECTOR, -(-end // SECTOR))
        self.dirty.update(sectors)
        self.abandoned.difference_update(sectors)

    def resize(self, size: int) -> None:
        before = len(self.data)
        self.remember(min(size, before), max(size, before))
        if size < before:
            del self.data[size:]
        else:
            self.data.extend(bytes(size - before))
        self.touch(min(size, before), max(size, before))
        self.resized = True

    def synced(self) -> None:
        kept = {sector: self.durable[sector * SECTOR : (sector + 1) * SECTOR] for sector in self.abandoned}
        self.durable = bytearray(self.data)
        for sector, content in kept.items():
            room = len(self.durable[sector * SECTOR : (sector + 1) * SECTOR])
            self.durable[sector * SECTOR : sector * SECTOR + room] = content[:room].ljust(room, b"\0")
        self.dirty.clear()
        self.earlier.clear()
        self.resized = False

    def sync_failed(self) -> None:
        self.abandoned |= self.dirty
        self.dirty.clear()

    def after_power_loss(self, rng: Random) -> _Inode:
        size = rng.choice((len(self.data), len(self.durable))) if self.resized else len(self.data)
        image = bytearray(self.durable[:size].ljust(size, b"\0"))
        for sector in sorted(self.dirty | self.abandoned):
            at = sector * SECTOR
            room = len(image[at : at + SECTOR])
            kept = rng.choice((None, bytes(self.data[at : at + SECTOR]), *self.earlier.get(sector, ())))
            if kept is not None:
                image[at : at + room] = kept[:room].ljust(room, b"\0")
        fresh = _Inode()
        fresh.data = image
        fresh.durable = bytearray(image)
        return fresh


_Change = Callable[[dict[str, _Inode], set[str]], None]


class FaultFileSystem:
    """Implements `pilothouse.foundation.files.FileSystem`; `root` is there from the beginning.

    `capacity` bounds the bytes of all files: beyond it calls fail with ENOSPC, after a short write where some fits.
    """

    def __init__(
        self, root: str = "/data", plan: Mapping[int, Fault] | None = None, capacity: int | None = None, seed: int = 0
    ) -> None:
        self.plan = dict(plan or {})
        self.capacity = capacity
        self.trace: list[Point] = []
        self.crashed = False
        self._rng = Random(seed)
        self._root = root
        self._names: dict[str, _Inode] = {}
        self._directories = {root}
        self._durable_names: dict[str, _Inode] = {}
        self._durable_directories = {root}
        self._pending: dict[str, list[_Change]] = {}
        self._descriptors: dict[int, tuple[str, _Inode]] = {}
        self._locks: dict[int, int] = {}
        self._next_descriptor = 1000
        self._mutex = threading.RLock()

    @property
    def points(self) -> int:
        """The number of points passed."""
        return len(self.trace)

    @property
    def open_descriptors(self) -> int:
        """The number of descriptors that have not been closed."""
        return len(self._descriptors)

    def read(self, path: str) -> bytes:
        """Return a file's bytes as the next reader sees them."""
        return bytes(self._names[path].data)

    def damage(self, path: str, offset: int, data: bytes) -> None:
        """Change a file's bytes behind everyone's back, durably."""
        inode = self._names[path]
        for image in (inode.data, inode.durable):
            image[offset : offset + len(data)] = data

    def crash_image(self, rng: Random) -> FaultFileSystem:
        """Return what a machine finds after its power was lost now."""
        names, directories = dict(self._durable_names), set(self._durable_directories)
        for changes in self._pending.values():
            for change in changes[: rng.randint(0, len(changes))]:
                change(names, directories)
        image = FaultFileSystem(self._root, capacity=self.capacity)
        image._directories = {path for path in directories if _rooted(path, directories, self._root)}
        kept = {path: inode for path, inode in names.items() if os.path.dirname(path) in image._directories}
        fresh = {id(inode): inode.after_power_loss(rng) for inode in kept.values()}
        image._names = {path: fresh[id(inode)] for path, inode in kept.items()}
        image._durable_names = dict(image._names)
        image._durable_directories = set(image._directories)
        return image

    def killed(self) -> FaultFileSystem:
        """Return what the next process finds after this one was killed: everything, synced or not."""
        image = FaultFileSystem(self._root, capacity=self.capacity)
        image._names, image._directories = dict(self._names), set(self._directories)
        image._durable_names, image._durable_directories = dict(self._durable_names), set(self._durable_directories)
        image._pending = {path: list(changes) for path, changes in self._pending.items()}
        return image

    # The file system

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        with self._mutex:
            self._alive()
            inode = self._names.get(path)
            if path in self._directories:
                raise IsADirectoryError(errno.EISDIR, "is a directory", path)
            if inode is None:
                if not flags & os.O_CREAT or os.path.dirname(path) not in self._directories:
                    raise FileNotFoundError(errno.ENOENT, "no such file", path)
                fault = self._point("create", path)
                inode = self._link(path, _Inode())
                self._maybe_crash(fault)
            elif flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, "exists", path)
            elif flags & os.O_TRUNC and inode.data:
                fault = self._point("truncate", path)
                inode.resize(0)
                self._maybe_crash(fault)
            self._next_descriptor += 1
            self._descriptors[self._next_descriptor] = (path, inode)
            return self._next_descriptor

    def close(self, fd: int) -> None:
        with self._mutex:
            self._alive()
            _, inode = self._descriptors.pop(fd)
            if self._locks.get(id(inode)) == fd:
                del self._locks[id(inode)]

    def pwrite(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        with self._mutex:
            path, inode = self._at(fd)
            data = bytearray(b"".join(buffers))
            fault = self._point("pwrite", path, lambda: self._store(inode, data[: len(data) // 2], offset))
            if fault is Fault.FLIP and data:
                data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
            room = len(data) if fault is not Fault.SHORT else max(1, len(data) // 2)
            room = min(room, max(0, len(inode.data) - offset) + self._free())
            if room == 0 and data:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            self._store(inode, data[:room], offset)
            self._maybe_crash(fault)
            return min(room, len(data))

    def pwrite_durable(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        written = self.pwrite(fd, buffers, offset)
        self.fdatasync(fd)
        return written

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        with self._mutex:
            return bytes(self._at(fd)[1].data[offset : offset + size])

    def fdatasync(self, fd: int) -> None:
        self._sync("fdatasync", fd)

    def fsync(self, fd: int) -> None:
        self._sync("fsync", fd)

    def sync_directory(self, path: str) -> None:
        with self._mutex:
            self._alive()
            if path not in self._directories and path != os.path.dirname(self._root):
                raise FileNotFoundError(errno.ENOENT, "no such directory", path)
            fault = self._point("sync_directory", path)
            self._maybe_crash(fault)
            for change in self._pending.pop(path, []):
                change(self._durable_names, self._durable_directories)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        with self._mutex:
            path, inode = self._at(fd)
            fault = self._point("allocate", path)
            if offset + length - len(inode.data) > self._free():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if offset + length > len(inode.data):
                inode.resize(offset + length)
            self._maybe_crash(fault)

    def truncate(self, fd: int, length: int) -> None:
        with self._mutex:
            path, inode = self._at(fd)
            fault = self._point("truncate", path)
            if length != len(inode.data):
                inode.resize(length)
            self._maybe_crash(fault)

    def size(self, fd: int) -> int:
        with self._mutex:
            return len(self._at(fd)[1].data)

    def next_data(self, fd: int, offset: int) -> int:
        with self._mutex:
            data = self._at(fd)[1].data
            rest = bytes(data[offset:])
            first = offset + len(rest) - len(rest.lstrip(b"\0"))
            # A sector at a time, as a disk would.
            return max(offset, first - first % SECTOR) if first < len(data) else max(offset, len(data))

    def rename(self, source: str, target: str) -> None:
        with self._mutex:
            self._alive()
            if source not in self._names:
                raise FileNotFoundError(errno.ENOENT, "no such file", source)
            directory = os.path.dirname(source)
            assert directory == os.path.dirname(target), "a rename between directories is not modelled"
            fault = self._point("rename", target)

            def change(names: dict[str, _Inode], _directories: set[str]) -> None:
                names[target] = names.pop(source)

            self._change(directory, change)
            self._maybe_crash(fault)

    def unlink(self, path: str) -> None:
        with self._mutex:
            self._alive()
            if path not in self._names:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            fault = self._point("unlink", path)

            def change(names: dict[str, _Inode], _directories: set[str]) -> None:
                del names[path]

            self._change(os.path.dirname(path), change)
            self._maybe_crash(fault)

    def listdir(self, path: str) -> list[str]:
        with self._mutex:
            self._alive()
            if path not in self._directories:
                raise FileNotFoundError(errno.ENOENT, "no such directory", path)
            entries = [*self._names, *(self._directories - {self._root})]
            return sorted(os.path.basename(entry) for entry in entries if os.path.dirname(entry) == path)

    def exists(self, path: str) -> bool:
        with self._mutex:
            self._alive()
            return path in self._names or path in self._directories

    def mode(self, path: str) -> int:
        with self._mutex:
            self._alive()
            if path in self._directories:
                return stat.S_IFDIR | 0o700
            if path in self._names:
                return stat.S_IFREG | 0o600
            raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def makedirs(self, path: str, mode: int = 0o700) -> None:
        with self._mutex:
            self._alive()
            if path in self._names:
                raise FileExistsError(errno.EEXIST, "exists", path)
            if path in self._directories:
                return
            parent = os.path.dirname(path)
            assert parent.startswith(self._root), f"{path} is not under {self._root}"
            self.makedirs(parent, mode)
            fault = self._point("mkdir", path)

            def change(_names: dict[str, _Inode], directories: set[str]) -> None:
                directories.add(path)

            self._change(parent, change)
            self._maybe_crash(fault)

    def lock(self, fd: int) -> bool:
        with self._mutex:
            _, inode = self._at(fd)
            return self._locks.setdefault(id(inode), fd) == fd

    def _alive(self) -> None:
        if self.crashed:
            raise SimulatedCrash

    def _at(self, fd: int) -> tuple[str, _Inode]:
        self._alive()
        if fd not in self._descriptors:
            raise OSError(errno.EBADF, "bad descriptor")
        return self._descriptors[fd]

    def _point(self, call: str, path: str, partly: Callable[[], None] | None = None) -> Fault | None:
        """Count a point; a failing call may have done a part of its work (`partly`)."""
        fault = self.plan.get(len(self.trace))
        self.trace.append(Point(call, path))
        if fault in {Fault.EIO, Fault.ENOSPC}:
            if partly is not None:
                partly()
            number = errno.EIO if fault is Fault.EIO else errno.ENOSPC
            raise OSError(number, os.strerror(number), path)
        return fault

    def _maybe_crash(self, fault: Fault | None) -> None:
        if fault is Fault.CRASH:
            self.crashed = True
            raise SimulatedCrash

    def _sync(self, call: str, fd: int) -> None:
        with self._mutex:
            path, inode = self._at(fd)
            fault = self._point(call, path, inode.sync_failed)
            self._maybe_crash(fault)
            inode.synced()

    @staticmethod
    def _store(inode: _Inode, data: bytearray, offset: int) -> None:
        end = offset + len(data)
        if end > len(inode.data):
            inode.resize(end)
        inode.remember(offset, end)
        inode.data[offset:end] = data
        if data:
            inode.touch(offset, end)

    def _free(self) -> int:
        if self.capacity is None:
            return 1 << 50
        inodes = {id(inode): inode for _, inode in self._descriptors.values()}
        inodes.update((id(inode), inode) for inode in self._names.values())
        return max(0, self.capacity - sum(len(inode.data) for inode in inodes.values()))

    def _link(self, path: str, inode: _Inode) -> _Inode:
        def change(names: dict[str, _Inode], _directories: set[str]) -> None:
            names[path] = inode

        self._change(os.path.dirname(path), change)
        return inode

    def _change(self, directory: str, change: _Change) -> None:
        change(self._names, self._directories)
        self._pending.setdefault(directory, []).append(change)


def count_points(workload: Callable[[FaultFileSystem], object]) -> list[Point]:
    """Run a workload without faults and return the points it passes."""
    fs = FaultFileSystem()
    workload(fs)
    return fs.trace


def _rooted(path: str, directories: set[str], root: str) -> bool:
    while path != root:
        if path not in directories:
            return False
        path = os.path.dirname(path)
    return True
