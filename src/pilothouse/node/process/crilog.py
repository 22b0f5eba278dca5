"""Container output as log lines of the CRI: `<RFC3339Nano> stdout|stderr P|F text`. Pure but for the file's writer."""

from __future__ import annotations

import os
import time

__all__ = ["MAX_LINE", "LineFormatter", "LogFile", "timestamp"]

MAX_LINE = 16 << 10
"""Bytes after which a line is written in parts, marked P, the last one F."""


def timestamp(nanoseconds: int) -> bytes:
    """Return a time since the epoch as RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest


class LineFormatter:
    """Cuts one stream into lines; what has no end yet is kept, at most `MAX_LINE` bytes."""

    def __init__(self, stream: str) -> None:
        self._name = b" " + stream.encode()
        self._rest = b""

    def feed(self, data: bytes, nanoseconds: int) -> bytes:
        """Return the log lines that `data` completes."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        head = timestamp(nanoseconds) + self._name
        full, part = head + b" F ", head + b" P "
        found: list[bytes] = []
        for line in lines:
            rest = line
            while len(rest) > MAX_LINE:
                found += (part, rest[:MAX_LINE], b"\n")
                rest = rest[MAX_LINE:]
            found += (full, rest, b"\n")
        while len(self._rest) > MAX_LINE:
            found += (part, self._rest[:MAX_LINE], b"\n")
            self._rest = self._rest[MAX_LINE:]
        return b"".join(found)

    def finish(self, nanoseconds: int) -> bytes:
        """Return the line that the stream's end left open."""
        return self.feed(b"\n", nanoseconds) if self._rest else b""


class LogFile:
    """A log file that never fails its writer: what cannot be written is counted in `lost` (bytes)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost = 0
        self._fd = -1
        self.reopen()

    def reopen(self) -> None:
        """Open the path anew, after the old file was renamed; nothing is written before the new one is there."""
        self.close()
        if not self.path:
            return
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError:
            self._fd = -1

    def write(self, data: bytes) -> None:
        """Append whole lines."""
        if not data or not self.path:
            return
        rest = memoryview(data)
        while rest and self._fd >= 0:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except OSError:
                break
        self.lost += len(rest)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
