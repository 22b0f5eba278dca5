"""The audit log: events as lines of a file that is rotated, written by a thread of its own."""

from __future__ import annotations

import os
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pilothouse.apiserver.audit.event import Event
from pilothouse.foundation import logs
from pilothouse.foundation.clock import Clock

__all__ = ["AuditLog", "LogSettings"]

_MIB = 1024 * 1024
_STAMP = "%Y-%m-%dT%H-%M-%S.%f"
_log = logs.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How an audit log is kept; defaults as those of kube-apiserver.

    max_size: of the file in MiB before it is rotated. max_age: of rotated files in days, 0 for any. max_backups:
    rotated files kept, 0 for all. buffer: events that wait for the writer; more are refused (and counted) rather than
    stopping the server. batch: events written at once. max_event: bytes of one event with its bodies.
    """

    max_size: int = 100
    max_age: int = 366
    max_backups: int = 100
    buffer: int = 10_000
    batch: int = 400
    max_event: int = 10 * _MIB
    buffer_bytes: int = 64 * _MIB


class AuditLog:
    """An event sink that appends JSON lines to a file with mode 0600.

    Rotated files are called `NAME-2026-01-31T23-59-59.000.EXT`. When the disk refuses, events are lost and counted in
    `lost`, and the next batch is tried again. `close` writes all that waits.
    """

    def __init__(self, path: str, clock: Clock, settings: LogSettings | None = None) -> None:
        self.path = path
        self.settings = settings or LogSettings()
        self.lost = 0
        """Events that could not be written, or found no place in the buffer."""
        self._clock = clock
        self._events: deque[tuple[Event, int]] = deque()
        self._waiting_bytes = 0
        self._ready = threading.Condition()
        self._closing = False
        self._failing = False
        self._torn = False
        self._rotated = datetime(1, 1, 1, tzinfo=UTC)
        self._fd: int | None = None
        self._size = 0
        self._open()
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> bool:
        """Take an event; False where the buffer is full or the log is closed."""
        size = _body_size(event)
        with self._ready:
            full = len(self._events) >= self.settings.buffer
            if full or self._closing or (self._events and self._waiting_bytes + size > self.settings.buffer_bytes):
                self.lost += 1
                return False
            self._events.append((event, size))
            self._waiting_bytes += size
            if len(self._events) == 1:
                self._ready.notify()
        return True

    def close(self, timeout: float = 10.0) -> bool:
        """Write what waits and close the file; False where that took more than `timeout` seconds."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._events and not self._closing:
                    self._ready.wait()
                count = min(len(self._events), self.settings.batch)
                taken = [self._events.popleft() for _ in range(count)]
                self._waiting_bytes -= sum(size for _, size in taken)
                if not taken:
                    break
            self._append([event for event, _ in taken])
        if self._fd is not None:
            os.close(self._fd)

    def _append(self, events: list[Event]) -> None:
        lines = []
        for event in events:
            try:
                lines.append(event.encode(self.settings.max_event) + b"\n")
            except (TypeError, ValueError) as error:
                self._failed(1, error)
        lost = len(lines)
        try:
            for chunk in self._chunks(lines):
                self._put(b"".join(chunk))
                lost -= len(chunk)
            self._failing = False
        except OSError as error:
            self._failed(lost, error)

    def _chunks(self, lines: list[bytes]) -> list[list[bytes]]:
        """Divide lines so that each part fits into a file."""
        limit, size = self.settings.max_size * _MIB, self._size
        chunks: list[list[bytes]] = [[]]
        for line in lines:
            if limit and chunks[-1] and size + len(line) > limit:
                chunks.append([])
                size = 0
            chunks[-1].append(line)
            size += len(line)
        return [chunk for chunk in chunks if chunk]

    def _put(self, data: bytes) -> None:
        limit = self.settings.max_size * _MIB
        if self._fd is None:
            self._open()
        elif limit and self._size and self._size + len(data) > limit:
            self._rotate()
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest and self._fd is not None:
            written = os.write(self._fd, rest)
            self._size += written
            rest = rest[written:]
            # If the next call fails, the line that it leaves must not take the one after it along.
            self._torn = bool(rest)

    def _failed(self, count: int, error: Exception) -> None:
        with self._ready:
            self.lost += count
        if not self._failing:
            self._failing = True
            _log.error("audit events are lost", file=self.path, error=type(error).__name__, detail=str(error))

    def _open(self) -> None:
        folder = os.path.dirname(self.path)
        if folder:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        stem, extension = os.path.splitext(self.path)
        # Names tell the age, also where the clock stood still or went back.
        moment = max(self._clock.now().astimezone(UTC), self._rotated + timedelta(milliseconds=1))
        while os.path.exists(target := f"{stem}-{moment.strftime(_STAMP)[:-3]}{extension}"):
            moment += timedelta(milliseconds=1)
        os.rename(self.path, target)
        self._rotated = moment
        self._open()
        self._remove_old()

    def _remove_old(self) -> None:
        settings, backups = self.settings, self._backups()
        gone = backups[settings.max_backups :] if settings.max_backups else []
        if settings.max_age:
            oldest = self._clock.now() - timedelta(days=settings.max_age)
            gone += [each for each in backups if each[0] < oldest and each not in gone]
        for _, path in gone:
            os.unlink(path)

    def _backups(self) -> list[tuple[datetime, str]]:
        """Return the rotated files with their times, the newest first."""
        folder, name = os.path.split(self.path)
        stem, extension = os.path.splitext(name)
        found = []
        for each in os.listdir(folder or "."):
            if not (each.startswith(f"{stem}-") and each.endswith(extension)):
                continue
            text = each[len(stem) + 1 : len(each) - len(extension)]
            try:
                moment = datetime.strptime(text, _STAMP).replace(tzinfo=UTC)
            except ValueError:
                continue
            found.append((moment, os.path.join(folder, each)))
        return sorted(found, reverse=True)


def _body_size(event: Event) -> int:
    size = 0
    for body in (event.request, event.response):
        if body is not None:
            size += len(body) if isinstance(body, bytes) else sum(map(len, body))
    return size
