"""Opening the write-ahead log: replays it, judges its end, refuses damage, and hands over the writer.

Nothing is changed before `LogRecovery.writer` is called, so an offline check iterates and stops there.

How the end is judged. Batches are synced one after the other, so at most the last one may have been lost, and of that
any sector. Where replay meets no intact record in the last segment, the place was never synced if the record there
runs past the end of the file, one of its sectors is all zeros from the record on, or it stops short with nothing but
zeros to the end of the file. Then nothing at or after it was acknowledged, unless an intact record further on says
that it was written when this index was durable. Everything else is damage.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from google_crc32c import extend

from pilothouse.foundation.files import FileSystem
from pilothouse.store.errors import DamagedData
from pilothouse.store.wal import DEFAULT_SEGMENT_BYTES, LogWriter, Position, Segment
from pilothouse.store.wal_format import (
    MASKED,
    PADDING,
    PLAIN,
    RECORD_HEAD,
    RECORD_HEADER,
    RECORD_HEADER_SIZE,
    SECTOR,
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    mask,
    parse_segment_name,
    segment_name,
)

__all__ = ["Cut", "LogRecovery", "create_log", "open_log"]

_WINDOW = 4 * 1024 * 1024
_SCAN = 1024 * 1024
_ZEROS = bytes(_SCAN)
_MARKS = (PLAIN, MASKED)
_OVERHEAD = tuple(RECORD_HEADER_SIZE + len(padding) for padding in PADDING)


class Cut(NamedTuple):
    """A tail that was never synced: file, offset, and the first record that is not there."""

    path: str
    offset: int
    record: int


class _Open(NamedTuple):
    path: str
    header: SegmentHeader
    size: int


def open_log(
    fs: FileSystem,
    directory: str,
    cluster_id: int,
    after_index: int = 0,
    *,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    salt: int | None = None,
) -> LogRecovery:
    """Open the log in `directory` to replay the records after `after_index`, what a snapshot covers.

    An empty or missing directory is a new log where `after_index` is 0; `salt` is then its 32-bit salt, random by
    default. Raises `DamagedData`, `NewerFormat` or `OSError`; nothing is changed on disk.
    """
    return LogRecovery(fs, directory, cluster_id, after_index, segment_bytes, salt)


def create_log(
    fs: FileSystem,
    directory: str,
    cluster_id: int,
    first_index: int = 1,
    *,
    segment_bytes: int = DEFAULT_SEGMENT_BYTES,
    salt: int | None = None,
) -> LogWriter:
    """Make a log whose first record will be `first_index`, durable on return; `directory` must hold no log."""
    fs.makedirs(directory)
    fs.sync_directory(os.path.dirname(directory))
    if any(parse_segment_name(name) for name in fs.listdir(directory)):
        raise FileExistsError(f"{directory} holds a log already")
    if salt is None:
        salt = secrets.randbits(32)
    header = SegmentHeader(cluster_id, salt, 1, first_index, salt)
    name = segment_name(1, first_index)
    temporary = os.path.join(directory, "first.tmp")
    fd = fs.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        fs.allocate(fd, 0, segment_bytes)
        data = header.encode()
        if fs.pwrite(fd, (data,), 0) != len(data):
            raise OSError(f"{temporary}: the segment's header could not be written whole")  # noqa: TRY301
        fs.fsync(fd)
        fs.rename(temporary, os.path.join(directory, name))
        fs.sync_directory(directory)
    except OSError:
        fs.close(fd)
        raise
    segments = [Segment(name, segment_bytes, first_index)]
    position = Position(fd, SEGMENT_HEADER_SIZE, first_index - 1, salt)
    return LogWriter(fs, directory, header, segments, position, segment_bytes=segment_bytes)


class LogRecovery:
    """The log as found: iterate once over (index, payload), then take the `writer`."""

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        cluster_id: int,
        after_index: int,
        segment_bytes: int,
        salt: int | None,
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._cluster_id = cluster_id
        self._after_index = after_index
        self._segment_bytes = segment_bytes
        self._salt = salt
        self._offset = SEGMENT_HEADER_SIZE
        self._chain = 0
        self._done = False
        self.last_index = after_index
        """The index of the last intact record seen."""
        self.cut: Cut | None = None
        """What of the log's end was never synced, known after the iteration."""
        self._found = self._find()
        self._needed = self._check_headers()

    @property
    def is_new(self) -> bool:
        """Whether there is no log yet."""
        return not self._found

    @property
    def segment_count(self) -> int:
        """The number of segments there are."""
        return len(self._found)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Replay in order; raises `DamagedData`."""
        needed = self._needed
        for at, segment in enumerate(needed):
            yield from self._replay(segment, needed[at + 1] if at + 1 < len(needed) else None)
        if self.last_index < self._after_index:
            last = needed[-1]
            self._refuse(
                last.path,
                self._offset,
                f"the log ends with record {self.last_index}, but the snapshot was made of records up to "
                f"{self._after_index}",
            )
        self._done = True

    def writer(self) -> LogWriter:
        """Cut what was never synced, make everything replayed durable and return the writer at the end.

        Replays first where that has not been done. Raises `OSError` where the disk fails or is full.
        """
        if not self._done:
            for _ in self:
                pass
        fs = self._fs
        if not self._found:
            return create_log(
                fs,
                self._directory,
                self._cluster_id,
                self._after_index + 1,
                segment_bytes=self._segment_bytes,
                salt=self._salt,
            )
        for name in fs.listdir(self._directory):
            if name.endswith(".tmp"):
                fs.unlink(os.path.join(self._directory, name))
        last = self._needed[-1]
        fd = fs.open(last.path, os.O_RDWR)
        try:
            size = self._settle(fd, last.size)
            fs.sync_directory(self._directory)
        except OSError:
            fs.close(fd)
            raise
        segments = [*self._found[:-1], self._found[-1]._replace(size=size)]
        position = Position(fd, self._offset, self.last_index, self._chain)
        return LogWriter(fs, self._directory, last.header, segments, position, segment_bytes=self._segment_bytes)

    def _settle(self, fd: int, size: int) -> int:
        # What a killed process wrote may be in the page cache only, yet it has been replayed and will be served.
        fs = self._fs
        if self.cut is not None:
            fs.truncate(fd, self._offset)
            size = self._offset
        wanted = max(size, self._segment_bytes)
        if size < wanted:
            # On a full disk the segment grows with each append instead.
            with contextlib.suppress(OSError):
                fs.allocate(fd, size, wanted - size)
                size = wanted
        fs.fsync(fd)
        return size

    # Finding the files

    def _find(self) -> list[Segment]:
        fs = self._fs
        if not fs.exists(self._directory):
            return []
        parsed = sorted(
            (place, name) for name in fs.listdir(self._directory) if (place := parse_segment_name(name)) is not None
        )
        found = []
        for (_, first_index), name in parsed:
            fd = fs.open(self._path(name), os.O_RDONLY)
            try:
                found.append(Segment(name, fs.size(fd), first_index))
            finally:
                fs.close(fd)
        return found

    def _check_headers(self) -> list[_Open]:
        wanted = self._after_index + 1
        if not self._found:
            if self._after_index:
                self._refuse(self._directory, 0, f"the log is missing; record {wanted} and what follows is not there")
            return []
        start = max((at for at, segment in enumerate(self._found) if segment.first_index <= wanted), default=-1)
        if start < 0:
            first = self._found[0]
            self._refuse(
                self._path(first.name), 0, f"the log begins with record {first.first_index}; {wanted} is missing"
            )
        needed = [self._open(segment) for segment in self._found[start:]]
        for before, segment in itertools.pairwise(needed):
            if segment.header.sequence != before.header.sequence + 1:
                self._refuse(
                    segment.path,
                    0,
                    f"segment {segment.header.sequence} follows segment {before.header.sequence}; one is missing",
                )
            if segment.header.salt != before.header.salt:
                self._refuse(segment.path, 0, "the segment belongs to another log")
        return needed

    def _open(self, segment: Segment) -> _Open:
        path = self._path(segment.name)
        fd = self._fs.open(path, os.O_RDONLY)
        try:
            header = SegmentHeader.decode(self._fs.pread(fd, SEGMENT_HEADER_SIZE, 0), path)
        finally:
            self._fs.close(fd)
        if parse_segment_name(segment.name) != (header.sequence, header.first_index):
            self._refuse(
                path,
                0,
                f"the header says segment {header.sequence} from record {header.first_index}, the name does not",
            )
        if header.cluster_id != self._cluster_id:
            self._refuse(
                path, 0, f"the segment belongs to cluster {header.cluster_id:x}, the directory to {self._cluster_id:x}"
            )
        return _Open(path, header, segment.size)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    # Replaying one file

    def _replay(self, segment: _Open, following: _Open | None) -> Iterator[tuple[int, bytes]]:
        fd = self._fs.open(segment.path, os.O_RDONLY)
        try:
            yield from self._records(fd, segment, following.header.first_index if following else 0)
            if following is None:
                _Tail(self, fd, segment).judge()
            elif self.last_index + 1 != following.header.first_index:
                self._refuse(
                    segment.path,
                    self._offset,
                    f"record {self.last_index + 1} is not intact, though the next segment begins with record "
                    f"{following.header.first_index}",
                )
            elif self._chain != following.header.chain:
                self._refuse(following.path, 0, "the checksum chain does not continue that of the segment before")
        finally:
            self._fs.close(fd)

    def _records(self, fd: int, segment: _Open, stop: int) -> Iterator[tuple[int, bytes]]:  # noqa: C901  # a call for each record would double the time of a start
        """Yield intact records up to `stop` (0: no stop); leave offset, index and chain at the first that is not."""
        pread, unpack, after, salt = self._fs.pread, RECORD_HEADER.unpack_from, self._after_index, segment.header.salt
        head_size, checked = RECORD_HEADER_SIZE, RECORD_HEAD.size
        index, chain = segment.header.first_index, segment.header.chain
        base = offset = SEGMENT_HEADER_SIZE
        data = b""
        want = _WINDOW
        try:
            while index != stop:
                at = offset - base
                if at + head_size > len(data):
                    data, base, at = pread(fd, want, offset), offset, 0
                    if len(data) < head_size:
                        return
                mark, size, found, _, crc, head_crc = unpack(data, at)
                if mark not in _MARKS or extend(salt, data[at : at + checked]) != head_crc:
                    return
                end = at + size + _OVERHEAD[size & 7]
                if found != index:
                    self._refuse(segment.path, offset, f"record {found} stands where record {index} is expected")
                if end > len(data):
                    if base + end > segment.size:
                        return
                    data, base, want = pread(fd, max(_WINDOW, end - at), offset), offset, _WINDOW
                    if len(data) < end - at:
                        return
                    continue
                body = data[at + head_size : end]
                if extend(chain, body) != crc:
                    return
                chain = crc
                offset = base + end
                if index > after:
                    payload = body[:size]
                    yield index, payload if mark == PLAIN else mask(payload, salt)
                index += 1
        finally:
            self.last_index, self._offset, self._chain = index - 1, offset, chain

    def _refuse(self, path: str, offset: int, what: str) -> NoReturn:
        raise DamagedData(
            f"{path}: offset {offset}: {what}; intact up to record {self.last_index}. Nothing was changed. "
            "`pilothouse store check DIR` lists the damage; `pilothouse store snapshot restore` makes a new directory "
            "of a saved snapshot",
            path=path,
            offset=offset,
        )


class _Tail:
    """The place in the last segment where replay met no intact record."""

    def __init__(self, recovery: LogRecovery, fd: int, segment: _Open) -> None:
        self._recovery = recovery
        self._fs = recovery._fs
        self._fd = fd
        self._segment = segment
        self._start = recovery._offset
        self._index = recovery.last_index + 1

    def judge(self) -> None:
        """Set the recovery's `cut` where something unsynced is to be cut; raise `DamagedData` for the rest."""
        size = self._segment.size
        if self._data_after(self._start) >= size:
            return
        extent, end = self._extent()
        unfinished = self._start + extent > size or self._data_after(end) >= size
        if not unfinished and not self._lost_sector(extent):
            self._recovery._refuse(
                self._segment.path, self._start, f"record {self._index} is complete, but its checksum is wrong"
            )
        self._refuse_acknowledged()
        self._recovery.cut = Cut(self._segment.path, self._start, self._index)

    def _extent(self) -> tuple[int, int]:
        """Return the record's length, its header's where that cannot be trusted, and where a whole one is not zero.

        Whatever is behind its header is not empty, and the last two bytes of its padding are not zero.
        """
        head = self._fs.pread(self._fd, RECORD_HEADER_SIZE, self._start)
        if len(head) < RECORD_HEADER_SIZE or not _verified(head, self._segment.header.salt):
            return RECORD_HEADER_SIZE, self._start + RECORD_HEADER_SIZE
        size: int = RECORD_HEADER.unpack(head)[1]
        extent = size + _OVERHEAD[size & 7]
        return extent, self._start + extent - 2

    def _lost_sector(self, extent: int) -> bool:
        """Whether a sector of the record has nothing but zeros from the record's start on."""
        position = self._start
        while position < self._start + extent:
            data = self._fs.pread(self._fd, SECTOR - position % SECTOR, position)
            if not data.strip(b"\0"):
                return True
            position += len(data)
        return False

    def _refuse_acknowledged(self) -> None:
        """Look for an intact record further on that proves that the record here was acknowledged."""
        position = self._data_after(self._start)
        carry = RECORD_HEADER_SIZE - 1
        while position < self._segment.size:
            data = self._fs.pread(self._fd, _SCAN + carry, position)
            for mark in _MARKS:
                self._check_candidates(data, position, mark.to_bytes(4, "little"))
            if len(data) < _SCAN + carry:
                return
            position = self._data_after(position + _SCAN)

    def _check_candidates(self, data: bytes, base: int, mark: bytes) -> None:
        at = data.find(mark)
        while at >= 0:
            head = data[at : at + RECORD_HEADER_SIZE]
            if len(head) == RECORD_HEADER_SIZE and _verified(head, self._segment.header.salt):
                _, _, index, durable, _, _ = RECORD_HEADER.unpack(head)
                if durable >= self._index:
                    self._recovery._refuse(
                        self._segment.path,
                        self._start,
                        f"record {self._index} is not intact, though record {index} at offset {base + at} was written "
                        "after it was acknowledged",
                    )
            at = data.find(mark, at + 1)

    def _data_after(self, position: int) -> int:
        """Return where the next byte that is not zero stands, the segment's size if none does."""
        fs, size = self._fs, self._segment.size
        while position < size:
            position = fs.next_data(self._fd, position)
            data = fs.pread(self._fd, _SCAN, position) if position < size else b""
            if not data:
                return size
            # Comparing whole blocks runs at the speed of memory; stripping them goes byte by byte.
            if data != _ZEROS[: len(data)]:
                return position + len(data) - len(data.lstrip(b"\0"))
            position += len(data)
        return size


def _verified(head: bytes, salt: int) -> bool:
    mark, _, _, _, _, head_crc = RECORD_HEADER.unpack(head)
    return mark in _MARKS and extend(salt, head[: RECORD_HEAD.size]) == head_crc
