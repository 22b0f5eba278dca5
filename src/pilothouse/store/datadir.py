"""The data directory: private to its user, held by one process, and sure of what it is.

LOCK      locked by the process that has the directory, with its id
VERSION   format and identity (cluster, member), under a checksum
wal/      the write-ahead log
snap/     checkpoints
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import msgspec

from pilothouse.foundation.files import FileSystem
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.store.errors import DamagedData, DirectoryInUse, DirectoryPermission
from pilothouse.store.sealed import read_sealed, write_sealed

__all__ = ["FORMAT_VERSION", "DataDir", "Identity", "read_identity"]

FORMAT_VERSION = 1

_LOCK = "LOCK"
_VERSION = "VERSION"
_SNAP = "snap"


class Identity(msgspec.Struct, frozen=True):
    """Whose data it is: random when the directory is first made."""

    cluster_id: int
    member_id: int


class DataDir:
    """A data directory that this process holds until `close`."""

    def __init__(self, fs: FileSystem, path: str, identity: Identity, lock: int) -> None:
        self.path = path
        self.identity = identity
        self._fs = fs
        self._lock = lock

    @classmethod
    def open(
        cls,
        fs: FileSystem,
        path: str,
        *,
        ids: Ids | None = None,
        identity: Identity | None = None,
        pid: int | None = None,
        fill: Callable[[str, Identity], None] | None = None,
    ) -> DataDir:
        """Take the directory, making it where there is none.

        A new one gets `identity`, or random ids, and `fill(snap, identity)` writes the checkpoint that it begins
        with; before that has returned it is not a data directory, so a crash leaves nothing that opens.
        Raises `DirectoryPermission`, `DirectoryInUse`, `NewerFormat` or `DamagedData`, with nothing touched, and
        `OSError`.
        """
        path = os.path.abspath(path)
        _make(fs, path)
        _check_access(fs, path)
        version = os.path.join(path, _VERSION)
        if fs.exists(version):
            read_sealed(fs, version, Identity, FORMAT_VERSION)
        lock = _take_lock(fs, path, os.getpid() if pid is None else pid)
        try:
            found = _read_or_create(fs, path, ids or SystemIds(), identity, fill)
        except BaseException:
            fs.close(lock)
            raise
        return cls(fs, path, found, lock)

    @property
    def wal(self) -> str:
        """The directory of the write-ahead log."""
        return os.path.join(self.path, "wal")

    @property
    def snap(self) -> str:
        """The directory of the checkpoints."""
        return os.path.join(self.path, _SNAP)

    def close(self) -> None:
        """Let another process have the directory."""
        if self._lock >= 0:
            self._fs.close(self._lock)
            self._lock = -1


def read_identity(fs: FileSystem, path: str) -> Identity:
    """Return a directory's identity without taking it, as an offline check does; raises as `DataDir.open`."""
    version = os.path.join(path, _VERSION)
    if not fs.exists(version):
        raise DamagedData(f"{version}: offset 0: the file is missing; {path} is not a data directory", path=version)
    return read_sealed(fs, version, Identity, FORMAT_VERSION)


def _make(fs: FileSystem, path: str) -> None:
    parents: list[str] = []
    missing = path
    while not fs.exists(missing):
        missing = os.path.dirname(missing)
        parents.append(missing)
    if not parents:
        return
    try:
        fs.makedirs(path, 0o700)
        for parent in parents:
            fs.sync_directory(parent)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise DirectoryPermission(
            f"data directory {path} cannot be made ({error.strerror}): choose another one, or make it with "
            f"`mkdir -m 700 {path}` as a user who may"
        ) from error


def _check_access(fs: FileSystem, path: str) -> None:
    mode = fs.mode(path)
    if not stat.S_ISDIR(mode):
        raise DirectoryPermission(f"data directory {path} is not a directory: name another path")
    if mode & 0o077:
        raise DirectoryPermission(
            f"data directory {path} has mode {stat.S_IMODE(mode):o}, so others may read or change what is in it: "
            f"`chmod 700 {path}`"
        )
    try:
        fs.listdir(path)
    except PermissionError as error:
        raise DirectoryPermission(
            f"data directory {path} cannot be read ({error.strerror}): `chmod 700 {path}`, or start as its owner"
        ) from error


def _take_lock(fs: FileSystem, path: str, pid: int) -> int:
    name = os.path.join(path, _LOCK)
    try:
        fd = fs.open(name, os.O_RDWR | os.O_CREAT)
    except PermissionError as error:
        raise DirectoryPermission(
            f"data directory {path} cannot be written ({error.strerror}): `chmod 700 {path}`, or start as its owner"
        ) from error
    try:
        _claim(fs, path, fd, pid)
    except BaseException:
        fs.close(fd)
        raise
    return fd


def _claim(fs: FileSystem, path: str, fd: int, pid: int) -> None:
    if not fs.lock(fd):
        owner = fs.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise DirectoryInUse(f"data directory {path} is in use by process {owner}: stop it, or name another path")
    fs.truncate(fd, 0)
    fs.pwrite(fd, (b"%d\n" % pid,), 0)


def _read_or_create(
    fs: FileSystem,
    path: str,
    ids: Ids,
    identity: Identity | None,
    fill: Callable[[str, Identity], None] | None,
) -> Identity:
    version = os.path.join(path, _VERSION)
    if fs.exists(version):
        found = read_sealed(fs, version, Identity, FORMAT_VERSION)
        if identity is not None and identity != found:
            raise DamagedData(
                f"{version}: offset 0: the directory is of member {found.member_id:x} of cluster "
                f"{found.cluster_id:x}, not of {identity.member_id:x} of {identity.cluster_id:x}",
                path=version,
            )
    else:
        if used := sorted({"wal", _SNAP}.intersection(fs.listdir(path))):
            raise DamagedData(
                f"{version}: offset 0: the file is missing, though there is {used[0]}: restore a snapshot into a new "
                "directory",
                path=version,
            )
        found = identity or Identity(ids.int63(), ids.int63())
        if fill is not None:
            fill(os.path.join(path, _SNAP), found)
        write_sealed(fs, version, found, FORMAT_VERSION)
    # What is built on this identity must not become durable before it does.
    fs.sync_directory(path)
    return found
