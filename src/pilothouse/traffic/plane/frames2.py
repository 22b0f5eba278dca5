"""Which frames a client may send on which streams: the rules of RFC 9113 that libnghttp2 does not keep.

It forgets streams that are over, so frames on them, and numbers that go down, pass it as if nothing were wrong; of
PRIORITY frames it reads nothing. This follows frames by their headers alone, before it gets them.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Container
from typing import Final

__all__ = ["FrameRules"]

_HEADER: Final = struct.Struct(">HBBBL")
_HEADER_BYTES: Final = 9
_PRIORITY_BYTES: Final = 5
_HEADERS, _PRIORITY, _RST_STREAM, _CONTINUATION = 1, 2, 3, 9
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_PREFACE_BYTES: Final = 24
_STREAM_BITS: Final = 0x7FFF_FFFF
_PROTOCOL_ERROR: Final = 0x1
_STREAM_CLOSED: Final = 0x5
_LEFT: Final = 256
"""Streams that were reset here while their client went on sending, which are remembered: it may not know it yet."""


class FrameRules:
    """Follows one connection of a client from its preface on. streams: how many a client may have open at a time."""

    __slots__ = ("_held", "_is_within", "_last", "_live", "_most", "_skip", "_skipped")

    def __init__(self, streams: int) -> None:
        self._skip = _PREFACE_BYTES
        self._held = b""
        self._is_within = False
        self._last = -1
        self._live: dict[int, None] = {}
        self._most = streams + 2 * _LEFT
        self._skipped: deque[range] = deque(maxlen=64)

    def follow(self, data: bytes | memoryview) -> tuple[int, int] | None:
        """Return None, or how many bytes come before a frame that may not be, and which error it is."""
        skip, before = self._skip, len(self._held)
        if skip >= len(data):
            self._skip = skip - len(data)
            return None
        if before:
            data, self._held = self._held + data, b""
        at, size = skip, len(data)
        while at + _HEADER_BYTES <= size:
            high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
            length = high << 8 | low
            is_read = kind == _PRIORITY and length == _PRIORITY_BYTES
            if is_read and at + _HEADER_BYTES + length > size:
                break
            if self._is_within:  # a header block, where only what goes on with it may come: the engine sees to that
                self._is_within = kind != _CONTINUATION or not flags & _END_HEADERS
            elif kind <= _RST_STREAM:
                parent = data[at + _HEADER_BYTES : at + _HEADER_BYTES + 4] if is_read else b""
                error = self._error(kind, flags, stream & _STREAM_BITS, parent)
                if error:
                    return max(at - before, 0), error
            at += _HEADER_BYTES + length
        if at < size:
            self._held = bytes(data[at:])
        self._skip = max(at - size, 0)
        return None

    def _error(self, kind: int, flags: int, stream: int, parent: bytes | memoryview) -> int:
        live = self._live
        if kind == _PRIORITY:
            return 0 if stream and int.from_bytes(parent) & _STREAM_BITS != stream else _PROTOCOL_ERROR
        if kind == _HEADERS:
            self._is_within = not flags & _END_HEADERS
        if kind == _HEADERS and stream > self._last and stream & 1:
            if stream > self._last + 2:
                self._skipped.append(range(self._last + 2, stream))
            self._last = stream
            if not flags & _END_STREAM:
                live[stream] = None
        elif stream in live:
            if kind == _RST_STREAM or flags & _END_STREAM:
                del live[stream]
        elif kind != _RST_STREAM and stream <= self._last and stream & 1:
            is_new = kind == _HEADERS and any(stream in each for each in self._skipped)
            return _PROTOCOL_ERROR if is_new else _STREAM_CLOSED
        return 0

    @property
    def is_full(self) -> bool:
        """Whether `forget` is due: more streams are remembered than there can be."""
        return len(self._live) > self._most

    def forget(self, known: Container[int]) -> None:
        """Remember no longer the older ones of those streams whose client has not ended them, though we have.

        known: the streams that are open here.
        """
        left = [stream for stream in self._live if stream not in known]
        for stream in left[:-_LEFT]:
            del self._live[stream]
