"""The chunked coding: which of the bytes that came belong to a body, and where its data is (RFC 9112, 7.1).

What is passed on is passed as it came, so all of it is checked first: sizes are plain hexadecimal, extensions and
trailers are bounded, each line ends with CR LF, and no trailer may say how a message is framed or routed.
"""

from __future__ import annotations

import re
from typing import Final

from pilothouse.traffic.plane.http import FieldList, Refused

__all__ = ["ChunkScanner"]

_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_NEVER: Final = frozenset(
    {
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_LINE: Final = 256
_TRAILERS: Final = 8192
_SIZE_LINE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class ChunkScanner:
    """Follows one body. left: bytes of data until the current chunk ends; trailers: known once it is `done`.

    status: of the refusal, 400 for clients' bodies and 502 for backends'.
    """

    __slots__ = ("_budget", "_state", "left", "status", "trailers")

    def __init__(self, status: int = 400) -> None:
        self.left = 0
        self.status = status
        self.trailers: FieldList = []
        self._state = _SIZE_LINE
        self._budget = _TRAILERS

    @property
    def done(self) -> bool:
        """Whether the whole body, with its trailers, was seen."""
        return self._state == _DONE

    def skip(self, count: int) -> None:
        """Take so many bytes of data for seen (at most `left`): they went another way."""
        self.left -= count
        if self.left == 0 and self._state == _DATA:
            self._state = _DATA_END

    def feed(self, data: bytes | bytearray | memoryview, payload: list[memoryview] | None = None) -> int:
        """Return how many of the bytes belong to the body; those after them are to come again with more.

        payload: takes the pieces of data, without framing. Raises Refused.
        """
        raw = bytes(data)
        view = memoryview(raw) if payload is not None else None
        at, end = 0, len(raw)
        while at < end and self._state != _DONE:
            if self._state == _DATA:
                count = min(self.left, end - at)
                if view is not None and payload is not None:
                    payload.append(view[at : at + count])
                at += count
                self.skip(count)
                continue
            after = self._line(raw, at)
            if after < 0:
                break
            at = after
        return at

    def _line(self, raw: bytes, at: int) -> int:
        """Read the line there; return where it ends, -1 where it is not whole yet."""
        if self._state == _DATA_END:
            if len(raw) - at < 2:
                if raw[at] != 13:
                    raise self._bad("a chunk is longer than it says")
                return -1
            if raw[at : at + 2] != b"\r\n":
                raise self._bad("a chunk is longer than it says")
            self._state = _SIZE_LINE
            return at + 2
        limit = _LINE if self._state == _SIZE_LINE else self._budget
        stop = raw.find(b"\n", at, at + limit)
        if stop < 0:
            if len(raw) - at >= limit:
                raise self._bad("a line of the chunked coding is too long")
            if self._state == _SIZE_LINE and raw[at : at + 1] not in b"0123456789abcdefABCDEF":
                raise self._bad("bad chunk size")
            return -1
        if self._state == _SIZE_LINE:
            self._sized(raw, at, stop + 1)
        else:
            self._trailer(raw, at, stop + 1)
        return stop + 1

    def _sized(self, raw: bytes, at: int, end: int) -> None:
        found = _SIZE.fullmatch(raw, at, end)
        if found is None:
            raise self._bad("bad chunk size")
        self.left = int(found[1], 16)
        self._state = _DATA if self.left else _TRAILER

    def _trailer(self, raw: bytes, at: int, end: int) -> None:
        if raw[at:end] == b"\r\n":
            self._state = _DONE
            return
        found = _FIELD.fullmatch(raw, at, end)
        if found is None or found[1].lower() in _NEVER:
            raise self._bad("bad trailer")
        self._budget -= end - at
        self.trailers.append((found[1].lower(), found[2].rstrip(b" \t")))

    def _bad(self, text: str) -> Refused:
        return Refused(self.status, "smuggling" if self.status == 400 else "backend body", text)
