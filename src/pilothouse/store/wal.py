"""The write-ahead log's writer: appends batches of framed records to preallocated segments, one sync for each.

Log directory: segments `<sequence>-<first index>.wal` in hexadecimal, and `*.tmp` files that are not yet a part of
the log. A segment gets its name only when its header and its first batch are durable, so a named segment is whole.
Calls block. `append` belongs to one thread; `prepare_next` and `release` may be called from another one each.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pilothouse.foundation.files import Buffer, FileSystem
from pilothouse.store.wal_format import SEGMENT_HEADER_SIZE, SegmentHeader, frame, segment_name

__all__ = ["DEFAULT_SEGMENT_BYTES", "LogFailed", "LogFull", "LogWriter", "Position", "Segment", "frame"]

DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a new file may want besides space; nothing has been written yet, so it can be tried again.
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_FEW_BUFFERS = 16
_BLOCK = 4096


class LogFull(OSError):
    """The disk or its quota is full: nothing of the batch will ever be replayed, and the writer goes on."""


class LogFailed(OSError):
    """A write or a sync failed: what is on disk is not known, and the writer refuses everything from now on."""


class Segment(NamedTuple):
    """One file of the log: its name, its length in bytes and the index of its first record."""

    name: str
    size: int
    first_index: int


class Position(NamedTuple):
    """Where the log goes on: the active segment's descriptor, the offset in it, the last index and the chain."""

    fd: int
    offset: int
    last_index: int
    chain: int


class LogWriter:
    """Makes batches of records durable in order.

    `open_log` and `create_log` of `wal_recovery` make one. `segment_bytes` is the size of new segments; a batch
    that is greater gets a segment of its own size.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        header: SegmentHeader,
        segments: list[Segment],
        position: Position,
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._header = header
        self._segments = segments
        self._fd, self._offset, self._last_index, self._chain = position
        self._segment_bytes = segment_bytes
        self._capacity = max(segment_bytes, segments[-1].size)
        self._timer = timer
        self._lock = threading.Lock()
        self._prepared: _Prepared | None = None
        self._prepared_count = 0
        self._failure: str | None = None
        self.last_sync_seconds = 0.0
        """How long the last batch took to be durable."""

    @property
    def last_index(self) -> int:
        """The index of the last durable record."""
        return self._last_index

    @property
    def chain(self) -> int:
        """The checksum chain after the last durable record."""
        return self._chain

    @property
    def salt(self) -> int:
        """The log's salt, the last argument of `frame`."""
        return self._header.salt

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The log's files, oldest first; the last one is active."""
        with self._lock:
            return tuple(self._segments)

    @property
    def bytes_on_disk(self) -> int:
        """The bytes that the segments and the one prepared take."""
        with self._lock:
            prepared = self._prepared.size if self._prepared else 0
            return prepared + sum(segment.size for segment in self._segments)

    def frame(self, payload: bytes, index: int, chain: int, durable_index: int) -> tuple[bytes, int]:
        """Return `payload` as a record of this log and the chain after it; see `wal_format.frame`."""
        return frame(payload, index, chain, durable_index, self._header.salt)

    def append(
        self, frames: Sequence[bytes], first_index: int, last_index: int, chain_before: int, chain_after: int
    ) -> None:
        """Write records `first_index` to `last_index` and make them durable with one sync.

        Raises `LogFull` with the log as before (the next append starts at the same index and chain), or
        `LogFailed`, after which nothing is accepted and only a new start can tell what was kept.
        """
        if self._failure is not None:
            raise LogFailed(errno.EIO, self._failure)
        if first_index != self._last_index + 1 or chain_before != self._chain or last_index < first_index:
            raise ValueError(
                f"records {first_index} to {last_index} do not follow record {self._last_index} and its chain"
            )
        total = sum(map(len, frames))
        if self._offset + total > self._capacity:
            self._rotate(frames, total, first_index)
        else:
            self._extend(frames, total)
        self._last_index = last_index
        self._chain = chain_after

    def prepare_next(self) -> None:
        """Make the next segment's file ahead of time, so that the append that needs it is not slowed.

        Raises `OSError` when it cannot; the log is not concerned.
        """
        if self._prepared is not None or self._failure is not None:
            return
        other = self._exchange(self._prepare(self._segment_bytes, sync=True))
        if other is not None:
            self._discard(other)

    def release(self, index: int) -> int:
        """Remove the segments that hold no record after `index`, never the active one; return how many went.

        Raises `OSError` when one cannot be removed; the log is whole either way.
        """
        removed = 0
        while True:
            with self._lock:
                if len(self._segments) < 2 or self._segments[1].first_index > index + 1:
                    break
                oldest = self._segments[0]
            # Removing a large file takes a while; appends need the lock in the meantime.
            self._fs.unlink(self._path(oldest.name))
            with self._lock:
                del self._segments[0]
            removed += 1
        if removed:
            self._fs.sync_directory(self._directory)
        return removed

    def close(self) -> None:
        """Close the files; what was appended is durable already."""
        self._failure = self._failure or "the log is closed"
        prepared = self._exchange(None)
        if prepared is not None:
            self._discard(prepared)
        if self._fd >= 0:
            self._fs.close(self._fd)
            self._fd = -1

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _extend(self, frames: Sequence[bytes], total: int) -> None:
        try:
            self._write(self._fd, frames, total, self._offset, durably=True)
        except OSError as error:
            if error.errno not in _FULL:
                raise self._failed("write to", self._segments[-1].name, error) from error
            self._restore(error)
            raise self._full(error) from error
        self._offset += total
        if self._offset > self._segments[-1].size:
            with self._lock:
                self._segments[-1] = self._segments[-1]._replace(size=self._offset)

    def _rotate(self, frames: Sequence[bytes], total: int, first_index: int) -> None:
        header = self._header._replace(sequence=self._header.sequence + 1, first_index=first_index, chain=self._chain)
        name = segment_name(header.sequence, first_index)
        fresh = self._claim(SEGMENT_HEADER_SIZE + total)
        try:
            self._write(fresh.fd, (header.encode(), *frames), SEGMENT_HEADER_SIZE + total, 0, durably=False)
            self._sync(fresh.fd, name)
            self._fs.rename(fresh.path, self._path(name))
        except LogFailed:
            raise
        except OSError as error:
            if error.errno not in _FULL:
                raise self._failed("write", name, error) from error
            self._discard(fresh)
            raise self._full(error) from error
        try:
            self._fs.sync_directory(self._directory)
        except OSError as error:
            raise self._failed("sync the directory of", name, error) from error
        self._activate(header, Segment(name, fresh.size, first_index), fresh.fd, SEGMENT_HEADER_SIZE + total)

    def _activate(self, header: SegmentHeader, segment: Segment, fd: int, offset: int) -> None:
        # The rest of the finished segment is of no use. Replay never looks at it, so losing this is no harm.
        with contextlib.suppress(OSError):
            self._fs.truncate(self._fd, self._offset)
        self._fs.close(self._fd)
        with self._lock:
            self._segments[-1] = self._segments[-1]._replace(size=self._offset)
            self._segments.append(segment)
        self._header = header
        self._fd, self._offset, self._capacity = fd, offset, segment.size

    def _claim(self, size: int) -> _Prepared:
        prepared = self._exchange(None)
        if prepared is not None:
            if prepared.size >= size:
                return prepared
            self._discard(prepared)
        try:
            return self._prepare(max(self._segment_bytes, -(-size // _BLOCK) * _BLOCK), sync=False)
        except OSError as error:
            if error.errno in _FULL or error.errno in _SHORT:
                raise self._full(error) from error
            raise self._failed("make", "a new segment", error) from error

    def _exchange(self, prepared: _Prepared | None) -> _Prepared | None:
        with self._lock:
            before, self._prepared = self._prepared, prepared
        return before

    def _prepare(self, size: int, *, sync: bool) -> _Prepared:
        with self._lock:
            self._prepared_count += 1
            path = self._path(f"{self._prepared_count:08x}.tmp")
        fd = self._fs.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        prepared = _Prepared(path, fd, size)
        try:
            self._fs.allocate(fd, 0, size)
            if sync:
                self._fs.fsync(fd)
        except OSError:
            self._discard(prepared)
            raise
        return prepared

    def _discard(self, prepared: _Prepared) -> None:
        self._fs.close(prepared.fd)
        # What stays behind is removed when the log is opened next.
        with contextlib.suppress(OSError):
            self._fs.unlink(prepared.path)

    def _write(self, fd: int, frames: Sequence[bytes], total: int, offset: int, *, durably: bool) -> None:
        write = self._fs.pwrite_durable if durably else self._fs.pwrite
        buffers: Sequence[Buffer] = frames if len(frames) <= _FEW_BUFFERS else (b"".join(frames),)
        start = self._timer()
        written = write(fd, buffers, offset)
        if written < total:
            rest = memoryview(b"".join(buffers))
            while written < total:
                count = write(fd, (rest[written:],), offset + written)
                if count == 0:
                    raise OSError(errno.EIO, "the write took no bytes")
                written += count
        self.last_sync_seconds = self._timer() - start

    def _sync(self, fd: int, name: str) -> None:
        start = self._timer()
        try:
            self._fs.fdatasync(fd)
        except OSError as error:
            raise self._failed("sync", name, error) from error
        self.last_sync_seconds = self._timer() - start

    def _restore(self, cause: OSError) -> None:
        # Cutting the file frees blocks, so unlike overwriting it works on a full disk, and leaves nothing stale.
        name = self._segments[-1].name
        try:
            self._fs.truncate(self._fd, self._offset)
            self._fs.fsync(self._fd)
        except OSError as error:
            raise self._failed("restore the end of", name, error) from cause
        size = self._capacity
        try:
            self._fs.allocate(self._fd, self._offset, size - self._offset)
        except OSError:
            size = self._offset
        with self._lock:
            self._segments[-1] = self._segments[-1]._replace(size=size)

    def _full(self, error: OSError) -> LogFull:
        return LogFull(
            error.errno,
            f"no room for the write-ahead log in {self._directory} ({error.strerror}): free disk space or raise the "
            "limit; writes are accepted again as soon as there is room",
        )

    def _failed(self, what: str, name: str, error: OSError) -> LogFailed:
        self._failure = (
            f"cannot {what} {name} of the write-ahead log in {self._directory} ({error}): no writes are accepted any "
            "more; check the disk, then start again"
        )
        return LogFailed(error.errno or errno.EIO, self._failure)


class _Prepared(NamedTuple):
    path: str
    fd: int
    size: int
