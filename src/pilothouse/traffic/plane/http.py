"""The HTTP messages that pass through, whatever the version they came by."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

__all__ = ["UNKNOWN", "Body", "FieldList", "Refused", "Request", "Response"]

FieldList: TypeAlias = list[tuple[bytes, bytes]]
"""Names in lower case, values without white space around them, in the order they came; no hop-by-hop fields."""

UNKNOWN: Final = -1
"""A body's length that no head says."""


class Body(IntEnum):
    """How a body ends."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3
    FRAMES = 4


class Refused(Exception):
    """A message that is not passed on. status: what its client is told; kind: a short name to count it by."""

    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind


class Request:
    """What a client asks. target: the path and query as they came; host: lower case, without port.

    authority: host and port as the client sent them. minor: of HTTP/1, 2 stands for HTTP/2. upgrade: the protocol
    asked for, empty for none.
    """

    __slots__ = (
        "authority",
        "body",
        "expects",
        "fields",
        "host",
        "length",
        "method",
        "minor",
        "path",
        "persistent",
        "query",
        "target",
        "trailers",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, authority: bytes, host: str, fields: FieldList) -> None:
        self.method = method
        self.target = target
        self.authority = authority
        self.host = host
        self.fields = fields
        path, _, query = target.partition(b"?")
        self.path = path.decode("latin-1")
        self.query = query.decode("latin-1") if query else ""
        self.body = Body.NONE
        self.length = 0
        self.minor = 1
        self.persistent = True
        self.expects = False
        self.upgrade = b""
        self.trailers = False

    def copy(self) -> Request:
        """Return another of the same, with a list of fields of its own."""
        other = Request.__new__(Request)
        other.method, other.target, other.authority, other.host = self.method, self.target, self.authority, self.host
        other.path, other.query, other.fields = self.path, self.query, self.fields.copy()
        other.body, other.length, other.minor = self.body, self.length, self.minor
        other.persistent, other.expects = self.persistent, self.expects
        other.upgrade, other.trailers = self.upgrade, self.trailers
        return other

    def field(self, name: bytes) -> bytes | None:
        """Return the first value of a field, None where there is none."""
        for each, value in self.fields:
            if each == name:
                return value
        return None

    def header(self, name: str) -> str | None:
        """Return a field by its name in lower case, several values joined by commas; None where it is not there."""
        wanted = name.encode("latin-1", "replace")
        if wanted == b"host":
            return self.authority.decode("latin-1")
        found = [value for each, value in self.fields if each == wanted]
        return b",".join(found).decode("latin-1") if found else None


class Response:
    """What a backend answers. length: of the body where its kind is LENGTH.

    lines: the fields as they are written in HTTP/1.1, None where they have changed since they were read.
    """

    __slots__ = ("body", "fields", "length", "lines", "minor", "persistent", "reason", "status", "upgrade")

    def __init__(self, status: int, reason: bytes, fields: FieldList) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.lines: bytes | None = None
        self.body = Body.NONE
        self.length = 0
        self.minor = 1
        self.persistent = True
        self.upgrade = b""

    def copy(self) -> Response:
        """Return another of the same, with a list of fields of its own."""
        other = Response.__new__(Response)
        other.status, other.reason, other.fields, other.lines = self.status, self.reason, self.fields.copy(), self.lines
        other.body, other.length, other.minor = self.body, self.length, self.minor
        other.persistent, other.upgrade = self.persistent, self.upgrade
        return other
