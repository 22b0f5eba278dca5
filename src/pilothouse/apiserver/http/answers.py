"""The heads of answers: status line and headers as bytes, with as much as can be made once made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Final

__all__ = ["BODILESS", "CONTINUE", "Dates", "batches", "clean", "encode_headers", "head_start", "plain_refusal"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
BODILESS: Final = frozenset({204, 304})
_BATCH_BYTES: Final = 64 << 10
_PART_BYTES: Final = 256 << 10
_STARTS: Final[dict[tuple[int, str], bytes]] = {}
_MAX_STARTS: Final = 256
_REMEMBERED_HEADERS: Final = 4


def head_start(status: int, content_type: str) -> bytes:
    """Return the status line and `Content-Type`, which is left out where empty."""
    found = _STARTS.get((status, content_type))
    if found is None:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        found = f"HTTP/1.1 {status} {phrase}\r\n".encode()
        if content_type:
            found += encode_headers([("Content-Type", content_type)])
        if len(_STARTS) < _MAX_STARTS:
            _STARTS[status, content_type] = found
    return found


def encode_headers(headers: Sequence[tuple[str, str]]) -> bytes:
    """Write the lines of at least one header. Line ends and NULs in one become spaces: a value is never a header."""
    if type(headers) is tuple and len(headers) <= _REMEMBERED_HEADERS:
        return _remembered(headers)
    return _encode_headers(headers)


def _encode_headers(headers: Sequence[tuple[str, str]]) -> bytes:
    text = "\r\n".join(map(": ".join, headers))
    breaks = len(headers) - 1
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        text = "\r\n".join([f"{clean(name)}: {clean(value)}" for name, value in headers])
    return text.encode("utf-8", "replace") + b"\r\n"


_remembered: Final = lru_cache(maxsize=512)(_encode_headers)
"""The headers that the server itself puts into each answer of a kind are few; those of objects come as lists."""


def clean(text: str) -> str:
    """Return a header's text without what would end it."""
    return text.replace("\r", " ").replace("\n", " ").replace("\0", " ")


def batches(pieces: Sequence[bytes]) -> Iterator[bytes | memoryview]:
    """Give the pieces in batches that are worth a write each; big ones in parts, which are not copied."""
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        if size and size + len(piece) > _BATCH_BYTES:
            yield batch[0] if len(batch) == 1 else b"".join(batch)
            batch, size = [], 0
        if len(piece) > _PART_BYTES:
            view = memoryview(piece)
            yield from (view[start : start + _PART_BYTES] for start in range(0, len(piece), _PART_BYTES))
            continue
        batch.append(piece)
        size += len(piece)
    if batch:
        yield batch[0] if len(batch) == 1 else b"".join(batch)


def plain_refusal(status: int, text: str) -> bytes:
    """Return a whole answer to what is no request; the connection ends with it."""
    body = f"{status} {HTTPStatus(status).phrase}: {text}".encode()
    start = head_start(status, "text/plain; charset=utf-8")
    return b"%bContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (start, len(body), body)


class Dates:
    """The `Date` header, made once a second."""

    __slots__ = ("_line", "_now", "_until")

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._until = float("-inf")
        self._line = b""

    def line(self, monotonic: float) -> bytes:
        """Return the header line for a monotonic time in seconds."""
        if monotonic >= self._until:
            now = self._now()
            self._line = b"Date: %b\r\n" % format_datetime(now, usegmt=True).encode("ascii")
            self._until = monotonic + 1 - now.microsecond / 1e6
        return self._line
