"""What a request is and what answers it, whatever carries them: the HTTP server or the in-process transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qs

import msgspec

from pilothouse.kinds.status import ApiStatus

__all__ = [
    "ANONYMOUS",
    "Answer",
    "Duplex",
    "Handler",
    "Peer",
    "Piece",
    "Request",
    "RequestInfo",
    "Response",
    "Sink",
    "StreamingResponse",
    "UpgradeResponse",
    "User",
    "refusal",
]


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, as authentication found."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    address: of the peer, without port. certificates: the verified client certificate in DER, None without one.
    secure: whether the connection is encrypted, or does not leave this process.
    """

    address: str = ""
    certificate: bytes | None = None
    secure: bool = True


class RequestInfo(msgspec.Struct, frozen=True, gc=False):
    """What a path and method ask for, in the terms of Kubernetes.

    verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `connect` stays what the
    method says (`create` for POST); for paths that are no resource the method in lower case. path: decoded.
    """

    is_resource: bool
    verb: str
    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    rest: str = ""
    """What follows a `proxy` subresource, with its leading slash."""
    field_selector: str = ""
    """Of a list, watch or deletecollection, as sent: authorization may look at it."""


class Request:
    """One request. Headers have names in lower case; where one came several times `headers` has the first.

    target: path and query as sent. path: percent-decoded. `query` is read when first asked for.
    """

    __slots__ = (
        "_query",
        "annotations",
        "body",
        "header_list",
        "headers",
        "impersonator",
        "info",
        "method",
        "path",
        "peer",
        "query_text",
        "target",
        "user",
        "warnings",
    )

    def __init__(  # noqa: PLR0913 - made in one place for each transport
        self,
        method: str,
        target: str,
        path: str,
        query_text: str,
        headers: dict[str, str],
        body: bytes = b"",
        peer: Peer | None = None,
        header_list: Sequence[tuple[str, str]] = (),
        user: User | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query_text = query_text
        self.headers = headers
        self.header_list = header_list
        self.body = body
        self.peer = peer
        self.user = user
        """Set by authentication; the in-process transport sets it itself and skips authentication."""
        self.impersonator: User | None = None
        self.info: RequestInfo | None = None
        self.warnings: list[str] = []
        """Texts for `Warning` headers, each once, in order."""
        self.annotations: dict[str, str] = {}
        """What audit events say about this request."""
        self._query: dict[str, list[str]] | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's values by name, empty ones kept. Raises ValueError for more than 1,000 of them."""
        if self._query is None:
            self._query = (
                parse_qs(self.query_text, keep_blank_values=True, max_num_fields=1000) if self.query_text else {}
            )
        return self._query

    def param(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def all_headers(self, name: str) -> list[str]:
        """Return all values of a header that may come several times; the name in lower case."""
        return [value for found, value in self.header_list if found == name]


class Piece:
    """Bytes that go to many streams, with what each transport makes of them once for all.

    chunk: as a chunk of HTTP/1.1, made when first needed.
    """

    __slots__ = ("_chunk", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._chunk: bytes | None = None

    @property
    def chunk(self) -> bytes:
        """The piece as one chunk of HTTP/1.1's chunked coding."""
        if self._chunk is None:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.data), self.data)
        return self._chunk


class Sink(Protocol):
    """Where a streamed answer goes. Writing after the peer has gone does nothing."""

    @property
    def buffered(self) -> int:
        """Bytes that the peer has not taken yet, those not yet handed to the socket included."""

    @property
    def closed(self) -> bool:
        """Whether the peer has gone or the answer has ended."""

    def write(self, data: bytes) -> None:
        """Send a piece; what is written in one turn of the loop goes out in one write."""

    def write_piece(self, piece: Piece) -> None:
        """Send a piece that other streams get as well."""

    async def drain(self) -> None:
        """Wait until the peer has taken enough. Returns at once where little is buffered or the peer has gone."""


class Duplex(Protocol):
    """A connection after an upgrade: bytes both ways."""

    async def read(self) -> bytes:
        """Wait for bytes of the peer; empty at its end."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    async def drain(self) -> None:
        """Wait until the peer has taken enough."""

    def close(self) -> None:
        """Send what is buffered and close."""

    def abort(self) -> None:
        """Close at once."""


@dataclass(slots=True)
class Response:
    """A whole answer. `body` may be in pieces, which are sent without being joined in Python.

    headers: without Content-Length, which the transport adds, and Date.
    """

    status: int = 200
    body: bytes | Sequence[bytes] = b""
    headers: Sequence[tuple[str, str]] = ()
    content_type: str = "application/json"


@dataclass(slots=True)
class StreamingResponse:
    """An answer that goes on: `run` writes it to the sink; its return ends the answer.

    The transport runs it as a task and cancels that when the peer goes. An exception of `run` cuts the stream off
    without its proper end, so that the peer notices.
    """

    run: Callable[[Sink], Coroutine[Any, Any, None]]
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()
    content_type: str = "application/json"


@dataclass(slots=True)
class UpgradeResponse:
    """101 Switching Protocols; `run` owns the connection from then on, and it is closed when it returns."""

    run: Callable[[Duplex], Coroutine[Any, Any, None]]
    headers: Sequence[tuple[str, str]] = ()


Answer: TypeAlias = Response | StreamingResponse | UpgradeResponse

Handler: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]
"""What answers requests: at once where it can, else as something to await. Raises nothing but CancelledError."""


def refusal(error: ApiStatus) -> Response:
    """Return the answer that a Status error travels in."""
    headers = [("Retry-After", str(error.retry_after_seconds))] if error.retry_after_seconds else []
    return Response(error.code, msgspec.json.encode(error.to_dict()), headers)
