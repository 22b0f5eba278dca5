"""Checkpoints on disk: a base table and the deltas after it, listed in a manifest that is replaced as a whole.

A table counts only once a durable manifest lists it, and is removed only once a durable manifest lists it no more.
So a crash leaves the checkpoint before or the one after, and files that `open` may remove. All calls block.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from typing import Literal

import msgspec

from pilothouse.foundation.files import FileSystem, write_all
from pilothouse.store.errors import DamagedData, NoSpace
from pilothouse.store.sealed import read_sealed, write_sealed
from pilothouse.store.tables import TableDecoder, TableEncoder, TableHeader, read_table_file

__all__ = ["Checkpoints", "Kind", "Table", "TableFile"]

Kind = Literal["base", "delta"]

_FORMAT_VERSION = 1
_MANIFEST = "MANIFEST"
_SUFFIX = ".table"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# A table goes to disk bit by bit: one sync of all of it at the end would hold up the log's syncs behind it.
_BUFFER = 512 * 1024


class Table(msgspec.Struct, frozen=True):
    """A table of the checkpoint: what it covers up to and its length and checksum as written."""

    name: str
    kind: Kind
    index: int
    revision: int
    bytes: int
    crc: int


class _Manifest(msgspec.Struct, frozen=True):
    cluster_id: int
    member_id: int
    tables: tuple[Table, ...] = ()


class Checkpoints:
    """The checkpoint of a data directory, made by `open`. One table is written at a time."""

    def __init__(self, fs: FileSystem, directory: str, manifest: _Manifest) -> None:
        self._fs = fs
        self.directory = directory
        self._manifest = manifest
        self._writing = False
        self._failure = ""

    @classmethod
    def open(
        cls, fs: FileSystem, directory: str, cluster_id: int, member_id: int, *, read_only: bool = False
    ) -> Checkpoints:
        """Open the checkpoint in `directory`; make an empty one where there is none.

        Removes what a crash left behind, unless `read_only`. Raises `DamagedData` where a listed table is missing
        or of a wrong length, where the manifest is damaged, missing or of another cluster; `NewerFormat`; `OSError`.
        """
        path = os.path.join(directory, _MANIFEST)
        if not fs.exists(path):
            manifest = _Manifest(cluster_id, member_id)
            cls._refuse_orphans(fs, directory)
            if not read_only:
                fs.makedirs(directory)
                fs.sync_directory(os.path.dirname(directory))
                write_sealed(fs, path, manifest, _FORMAT_VERSION)
        else:
            manifest = read_sealed(fs, path, _Manifest, _FORMAT_VERSION)
        if (manifest.cluster_id, manifest.member_id) != (cluster_id, member_id):
            raise DamagedData(
                f"{path}: offset 0: the manifest is of member {manifest.member_id:x} of cluster "
                f"{manifest.cluster_id:x}, the directory of member {member_id:x} of cluster {cluster_id:x}",
                path=path,
            )
        opened = cls(fs, directory, manifest)
        opened._check_tables()
        if not read_only:
            # A manifest that only the page cache has seen must not outlive the files it replaced.
            fs.sync_directory(directory)
            opened._clean()
        return opened

    @property
    def tables(self) -> tuple[Table, ...]:
        """The base and its deltas, oldest first; empty before the first checkpoint."""
        return self._manifest.tables

    @property
    def index(self) -> int:
        """The log index that the checkpoint covers; 0 when there is none."""
        return self.tables[-1].index if self.tables else 0

    @property
    def revision(self) -> int:
        """The revision that the checkpoint covers; 0 when there is none."""
        return self.tables[-1].revision if self.tables else 0

    @property
    def bytes_on_disk(self) -> int:
        """The bytes that the listed tables take."""
        return sum(table.bytes for table in self.tables)

    def begin(self, kind: Kind, program: str = "") -> TableFile:
        """Start writing a table: a `base` that will replace all, or a `delta` after those there.

        Raises `NoSpace`, `OSError`, or `RuntimeError` while another table is being written.
        """
        if self._failure:
            raise OSError(errno.EIO, self._failure)
        if self._writing:
            raise RuntimeError("a table is being written already")
        if kind == "delta" and not self.tables:
            raise ValueError("a delta needs a base before it")
        header = TableHeader(
            cluster_id=self._manifest.cluster_id, member_id=self._manifest.member_id, purpose=kind, program=program
        )
        self._writing = True
        try:
            return TableFile(self, self._fs, os.path.join(self.directory, "next.tmp"), kind, header)
        except BaseException:
            self._writing = False
            raise

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (kind, payload) of all tables in order; raises `DamagedData`."""
        for table in self.tables:
            path = self._path(table.name)
            decoder = TableDecoder(path)
            yield from read_table_file(self._fs, path, decoder)
            if decoder.crc != table.crc:
                raise DamagedData(
                    f"{path}: offset {table.bytes}: whole, but not the table that the manifest lists",
                    path=path,
                    offset=table.bytes,
                )

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @staticmethod
    def _refuse_orphans(fs: FileSystem, directory: str) -> None:
        # The empty manifest is there before the first table, so tables without one are not left from a crash.
        if fs.exists(directory) and any(name.endswith(_SUFFIX) for name in fs.listdir(directory)):
            path = os.path.join(directory, _MANIFEST)
            raise DamagedData(f"{path}: offset 0: the manifest is missing, though there are tables", path=path)

    def _new_name(self, index: int, kind: Kind) -> str:
        listed = {table.name for table in self.tables}
        names = (f"{index:016x}-{number:04x}-{kind}{_SUFFIX}" for number in itertools.count())
        return next(name for name in names if name not in listed)

    def _check_tables(self) -> None:
        for table in self.tables:
            path = self._path(table.name)
            if not self._fs.exists(path):
                raise DamagedData(f"{path}: offset 0: the table is missing, though the manifest lists it", path=path)
            fd = self._fs.open(path, os.O_RDONLY)
            try:
                size = self._fs.size(fd)
            finally:
                self._fs.close(fd)
            if size != table.bytes:
                raise DamagedData(
                    f"{path}: offset {min(size, table.bytes)}: the table has {size} bytes, the manifest says "
                    f"{table.bytes}",
                    path=path,
                    offset=min(size, table.bytes),
                )

    def _clean(self) -> None:
        listed = {table.name for table in self.tables}
        for name in self._fs.listdir(self.directory):
            if name.endswith(".tmp") or (name.endswith(_SUFFIX) and name not in listed):
                self._fs.unlink(self._path(name))

    def _adopt(self, temporary: str, table: Table) -> None:
        """Give a synced table its name and list it; raises `OSError` with the manifest as before, or for good."""
        path = self._path(table.name)
        old = self.tables
        tables = (table,) if table.kind == "base" else (*old, table)
        manifest = msgspec.structs.replace(self._manifest, tables=tables)
        self._fs.rename(temporary, path)
        try:
            self._sync_directory()
            write_sealed(self._fs, self._path(_MANIFEST), manifest, _FORMAT_VERSION)
        except OSError as error:
            # On a full disk its space is wanted. After any other error it is not sure which manifest is there.
            if error.errno in _FULL:
                with contextlib.suppress(OSError):
                    self._fs.unlink(path)
            raise
        self._sync_directory()
        self._manifest = manifest
        for replaced in old if table.kind == "base" else ():
            # What cannot be removed now is removed when the directory is opened next.
            with contextlib.suppress(OSError):
                self._fs.unlink(self._path(replaced.name))

    def _sync_directory(self) -> None:
        try:
            self._fs.sync_directory(self.directory)
        except OSError as error:
            self._failure = (
                f"cannot sync {self.directory} ({error}): no checkpoints are written any more; check the disk, then "
                "start again"
            )
            raise OSError(errno.EIO, self._failure) from error

    def _ended(self) -> None:
        self._writing = False


class TableFile:
    """A table being written. `commit` or `abort` ends it; a failure has aborted it already."""

    def __init__(self, owner: Checkpoints, fs: FileSystem, path: str, kind: Kind, header: TableHeader) -> None:
        self._owner = owner
        self._fs = fs
        self._path = path
        self._kind: Kind = kind
        self._encoder = TableEncoder()
        self._buffer: list[bytes] = [self._encoder.encode_header(header)]
        self._buffered = len(self._buffer[0])
        self._written = 0
        self._fd = -1
        with self._failing():
            self._fd = fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    @property
    def size(self) -> int:
        """The bytes so far."""
        return self._encoder.size

    def write(self, kind: int, payload: bytes) -> None:
        """Add a block. Raises `NoSpace` or `OSError`, and the table is aborted."""
        self._require_open()
        data = self._encoder.encode_block(kind, payload)
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= _BUFFER:
            with self._failing():
                self._flush()

    def commit(self, index: int, revision: int) -> Table:
        """Make the table a part of the checkpoint, which then covers `index` and `revision`; durable on return.

        Raises `NoSpace` or `OSError` with the checkpoint as it was.
        """
        self._require_open()
        if index < self._owner.index or revision < self._owner.revision:
            raise ValueError(
                f"a table up to index {index}, revision {revision} behind the checkpoint's {self._owner.index}, "
                f"{self._owner.revision}"
            )
        encoder = self._encoder
        with self._failing():
            self._buffer.append(encoder.encode_footer())
            self._flush()
            self._fs.fsync(self._fd)
            fd, self._fd = self._fd, -1
            self._fs.close(fd)
            table = Table(
                self._owner._new_name(index, self._kind), self._kind, index, revision, encoder.size, encoder.crc
            )
            self._owner._adopt(self._path, table)
        self._owner._ended()
        self._path = ""
        return table

    def abort(self) -> None:
        """Give the table up; does nothing when it has ended."""
        if not self._path:
            return
        path, self._path = self._path, ""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._fs.close(fd)
        # It may not exist, and what stays behind is overwritten by the next table or removed at the next start.
        with contextlib.suppress(OSError):
            self._fs.unlink(path)
        self._owner._ended()

    def _require_open(self) -> None:
        if not self._path:
            raise RuntimeError("the table has been committed or aborted")

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self._buffer = []
        self._buffered = 0
        self._written = write_all(self._fs.pwrite_durable, self._fd, data, self._written)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        path = self._path
        try:
            yield
        except OSError as error:
            self.abort()
            if error.errno in _FULL:
                raise NoSpace(
                    f"no space for the checkpoint {path} ({error.strerror}): free disk space or raise the quota; the "
                    "checkpoint before stays in force"
                ) from error
            raise
