"""The bodies of HTTP/1.1 requests: of a given length, or in chunks."""

from __future__ import annotations

import re
from typing import Final

from pilothouse.apiserver.http.heads import Malformed, read_fields

__all__ = ["ChunkedBody", "PlainBody", "TooLarge"]

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_MAX_SIZE_LINE: Final = 256
_MAX_TRAILER_BYTES: Final = 8192


class TooLarge(Exception):
    """The body is over its limit."""


class PlainBody:
    """A body of `length` bytes."""

    __slots__ = ("_missing", "_parts")

    def __init__(self, length: int) -> None:
        self._parts: list[bytes] = []
        self._missing = length

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return those after the body once it is whole, None before."""
        missing = self._missing
        if len(data) < missing:
            self._parts.append(data)
            self._missing = missing - len(data)
            return None
        self._parts.append(data[:missing])
        return data[missing:]

    def whole(self) -> bytes:
        """Return the body."""
        return b"".join(self._parts)


class ChunkedBody:
    """A body in chunked coding; extensions and trailers are read and dropped."""

    __slots__ = ("_body", "_buffer", "_limit", "_missing", "_trailers")

    def __init__(self, limit: int) -> None:
        self._body = bytearray()
        self._buffer = b""
        self._limit = limit
        self._missing = 0
        """Of the present chunk, with the two bytes after it."""
        self._trailers: int | None = None
        """Bytes of trailers so far; None while chunks come."""

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return those after the body once it is whole, None before. Raises Malformed, TooLarge."""
        buffer = self._buffer + data if self._buffer else data
        position = 0
        while True:
            if self._missing:
                position = self._take(buffer, position)
                if self._missing:
                    break
            end = buffer.find(b"\r\n", position)
            if end < 0:
                _check_partial(buffer, position)
                break
            line = buffer[position:end]
            position = end + 2
            if self._trailers is None:
                self._begin(line)
            elif line:
                self._trailer(line)
            else:
                return buffer[position:]
        self._buffer = buffer[position:]
        return None

    def _take(self, buffer: bytes, position: int) -> int:
        """Take what there is of the present chunk; its line end only whole."""
        content = self._missing - 2
        if content > 0:
            part = buffer[position : position + content]
            self._body += part
            self._missing -= len(part)
            position += len(part)
        if self._missing == 2 and len(buffer) - position >= 2:
            if buffer[position : position + 2] != b"\r\n":
                raise Malformed("malformed chunked encoding")
            self._missing = 0
            position += 2
        return position

    def _begin(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None or len(line) > _MAX_SIZE_LINE:
            raise Malformed("invalid chunk size")
        size = int(found[1], 16)
        if len(self._body) + size > self._limit:
            raise TooLarge
        if size:
            self._missing = size + 2
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> None:
        self._trailers = (self._trailers or 0) + len(line)
        if self._trailers > _MAX_TRAILER_BYTES:
            raise Malformed("trailers too long", 431)
        read_fields(line)

    def whole(self) -> bytes:
        """Return the body."""
        return bytes(self._body)


def _check_partial(buffer: bytes, position: int) -> None:
    """Refuse a line that will not become one of ours, before it is whole."""
    if b"\n" in buffer[position:]:
        raise Malformed("bare line feed in chunked encoding")
    if len(buffer) - position > _MAX_TRAILER_BYTES:
        raise Malformed("line of chunked encoding too long")
