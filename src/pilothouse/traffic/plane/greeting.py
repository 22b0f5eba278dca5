"""The first message of a TLS client: which name and protocols it asks for (RFC 8446, 4.1.2)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from pilothouse.traffic.plane.http import Refused

__all__ = ["MOST", "Greeting", "read_greeting"]

MOST: Final = 16_384 + 5
"""Bytes of a greeting that is read at most, with its record's header."""

_NAME: Final = re.compile(rb"[0-9A-Za-z_.-]{1,253}")


class Greeting(NamedTuple):
    """name: of the server that the client wants, lower case, empty where it does not say."""

    name: str
    protocols: tuple[str, ...]


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) < count:
            raise _malformed()
        self._at += count
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def _malformed() -> Refused:
    return Refused(400, "tls greeting", "the connection does not begin with a TLS greeting")


def read_greeting(data: bytes) -> Greeting | None:
    """Return what the greeting says, None where more bytes are needed. Raises Refused where it is none.

    A greeting in several records, or longer than MOST, is refused.
    """
    if not data:
        return None
    if data[0] != 22 or (len(data) > 1 and data[1] != 3):
        raise _malformed()
    if len(data) < 5:
        return None
    length = int.from_bytes(data[3:5], "big")
    if not 4 <= length <= MOST - 5:
        raise _malformed()
    if len(data) < 5 + length:
        return None
    record = _Reader(data[5 : 5 + length])
    if record.number(1) != 1:
        raise _malformed()
    return _hello(_Reader(record.vector(3)))


def _hello(hello: _Reader) -> Greeting:
    hello.take(34)
    hello.vector(1)
    hello.vector(2)
    hello.vector(1)
    name = ""
    protocols: tuple[str, ...] = ()
    extensions = _Reader(hello.vector(2)) if hello.left else _Reader(b"")
    while extensions.left:
        kind, body = extensions.number(2), _Reader(extensions.vector(2))
        if kind == 0:
            name = _server_name(_Reader(body.vector(2)))
        elif kind == 16:
            protocols = _protocols(_Reader(body.vector(2)))
    return Greeting(name, protocols)


def _server_name(names: _Reader) -> str:
    while names.left:
        kind, name = names.number(1), names.vector(2)
        if kind == 0:
            if not _NAME.fullmatch(name):
                raise _malformed()
            return name.decode("ascii").lower().removesuffix(".")
    return ""


def _protocols(protocols: _Reader) -> tuple[str, ...]:
    found = []
    while protocols.left:
        found.append(protocols.vector(1).decode("latin-1"))
    return tuple(found)
