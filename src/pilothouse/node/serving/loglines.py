"""Lines of container logs: what the options of a log request choose of them. Pure.

A line is `<RFC3339Nano> stdout|stderr P|F text`; P says that the text goes on in the next line of that stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

__all__ = ["LogOptions", "LogWriter", "options_of", "tail_offset"]

_TIME_LENGTH: Final = 30


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a log; `since` as log lines write it, `tail` None for all, `limit` bytes at most."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    since: bytes = b""
    tail: int | None = None
    limit: int | None = None
    stream: str = ""


def options_of(asked: Mapping[str, Any], now: datetime) -> LogOptions:
    """Read decoded options of a PodLogOptions: `sinceSeconds`, `tailLines` and so on."""
    since: datetime | None = asked.get("sinceTime")
    if "sinceSeconds" in asked:
        try:
            since = now - timedelta(seconds=asked["sinceSeconds"])
        except OverflowError:
            since = None
    stream = asked.get("stream", "All")
    return LogOptions(
        follow=bool(asked.get("follow")),
        previous=bool(asked.get("previous")),
        timestamps=bool(asked.get("timestamps")),
        since=b"" if since is None else _stamp(since),
        tail=asked.get("tailLines"),
        limit=asked.get("limitBytes"),
        stream="" if stream == "All" else str(stream).lower(),
    )


def _stamp(moment: datetime) -> bytes:
    moment = moment.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z".encode()


class LogWriter:
    """Makes of a log file's bytes what a client gets. `done` when nothing more is wanted."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._rest = b""
        self._left = options.limit
        self._open: set[bytes] = set()
        """Streams whose last line goes on."""
        self._stream = options.stream.encode()
        self.done = options.limit == 0

    def feed(self, data: bytes) -> bytes:
        """Return what the whole lines among the bytes so far come to."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        out = b"".join(map(self._line, lines))
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
            self.done = not self._left
        return out

    def _line(self, line: bytes) -> bytes:
        parts = line.split(b" ", 3)
        if len(parts) != 4 or parts[1] not in {b"stdout", b"stderr"}:
            # Not ours, or torn by a crash: nobody knows what it would mean.
            return b""
        stamp, stream, tag, text = parts
        begins = stream not in self._open
        if tag.startswith(b"P"):
            self._open.add(stream)
        else:
            self._open.discard(stream)
            text += b"\n"
        if (self._stream and stream != self._stream) or _key(stamp) < self._options.since:
            return b""
        return stamp + b" " + text if self._options.timestamps and begins else text


def _key(stamp: bytes) -> bytes:
    """Return a time as it can be compared: with all nine digits."""
    if len(stamp) == _TIME_LENGTH or not stamp.endswith(b"Z"):
        return stamp
    whole, _, part = stamp[:-1].partition(b".")
    return whole + b"." + part.ljust(9, b"0") + b"Z"


def tail_offset(block: bytes, wanted: int) -> tuple[int, int]:
    """Return where the last `wanted` lines of a block begin (-1: before it), and how many line ends it has."""
    count = block.count(b"\n")
    if count <= wanted:
        return -1, count
    place = len(block)
    for _ in range(wanted + 1):
        place = block.rfind(b"\n", 0, place)
    return place + 1, count
