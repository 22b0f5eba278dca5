"""A small HTTP/1.1 server of the operator's own: bounded, with time limits, and a stop that lets answers out."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import httptools

from pilothouse.foundation.logs import get_logger

from .errors import OperatorError

__all__ = ["HttpRequest", "HttpServer", "Page", "ServingLimits", "is_loopback", "split_address"]

_REASONS: Final = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 411: "Length Required", 413: "Content Too Large", 415: "Unsupported Media Type",
    500: "Internal Server Error", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
_TEXT: Final = "text/plain; charset=utf-8"
_CHUNK_LINE: Final = 1_024
_WRITE_SECONDS: Final = 10.0
_LINGER_SECONDS: Final = 1.0
_END_SECONDS: Final = 5.0

_log = get_logger("pilothouse.operator.serving")


class Page(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = _TEXT


class HttpRequest(NamedTuple):
    """A request: names of headers are in lower case, the path is as it came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""


Handler = Callable[[HttpRequest], Awaitable[Page]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingLimits:
    """What a server takes. body_bytes: by path; 0 refuses bodies. buffered_bytes: of all bodies at one time.

    idle_seconds: how long a connection may wait for its next request; 0 answers one request a connection.
    """

    connections: int = 64
    head_bytes: int = 8_192
    head_seconds: float = 5.0
    body_bytes: Callable[[str], int] = field(default=lambda _: 0)
    body_seconds: float = 30.0
    buffered_bytes: int = 1 << 28
    idle_seconds: float = 0.0


class _RefusedError(Exception):
    """A request is answered without being handled, and the connection ends."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.page: Final = Page(status, why.encode() + b"\n")


class _Head:
    """What the parser finds in a request's head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.keep = False
        self.parser: Any = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        # The parser has forgotten it when a request without a body is at its end.
        self.keep = bool(self.parser.should_keep_alive())


class HttpServer:
    """Answers requests on one address with a handler, which shall not raise.

    what: names the server in errors. address: HOST:PORT; port 0 takes a free one, see `port`; or a socket, of unix or
    of an address, that listens already. tls: for any host that is not loopback; plain text is refused there, and
    `remedy` says what to do.
    Raises ValueError for an address that is none or wants TLS; OperatorError where it cannot listen.
    """

    def __init__(
        self,
        address: str | socket.socket,
        handler: Handler,
        *,
        what: str,
        remedy: str = "",
        tls: ssl.SSLContext | None = None,
        limits: ServingLimits | None = None,
    ) -> None:
        self._socket = None if isinstance(address, str) else address
        self.host, self.port = split_address(what, address) if isinstance(address, str) else _bound(address)
        if tls is None and self.host and not is_loopback(self.host):
            raise ValueError(f"{what} {address}: plain text is for loopback only; {remedy}")
        self._what = what
        self._handler = handler
        self._tls = tls
        self._limits = limits or ServingLimits()
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.StreamWriter] = set()
        self._idle: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._buffered = 0
        self._stopping = False

    async def start(self) -> None:
        """Begin to listen."""
        if self._socket is not None and self._socket.family == socket.AF_UNIX:
            bound = self._socket
            self._server = await asyncio.start_unix_server(self._serve, sock=bound, limit=self._limits.head_bytes)
            return
        timeout = self._limits.head_seconds if self._tls is not None else None
        where: dict[str, Any] = {"host": self.host, "port": self.port}
        try:
            self._server = await asyncio.start_server(
                self._serve,
                **(where if self._socket is None else {"sock": self._socket}),
                ssl=self._tls,
                limit=self._limits.head_bytes,
                ssl_handshake_timeout=timeout,
            )
        except OSError as error:
            raise OperatorError(
                f"{self._what} {self.host}:{self.port}: cannot listen there ({error}); choose another one"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def is_listening(self) -> bool:
        """Whether connections are taken."""
        return self._server is not None and not self._stopping

    async def stop(self, seconds: float = 0.0) -> None:
        """End the listening and idle connections at once, the others when they are answered, `seconds` at most."""
        server, self._server = self._server, None
        if server is None:
            return
        self._stopping = True
        server.close()
        for reader in self._idle.values():
            reader.feed_eof()  # a request that has come already is still read and answered
        self._settle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()
        for writer in [*self._busy, *self._idle]:
            writer.transport.abort()
        await self._end_tasks()
        await server.wait_closed()

    def _has_room(self) -> bool:
        """Whether another connection may come; the one that is idle for longest makes room for it."""
        if len(self._busy) + len(self._idle) < self._limits.connections:
            return True
        if not self._idle:
            return False
        self._idle.pop(next(iter(self._idle))).feed_eof()
        return True

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_END_SECONDS)
            for task in left:
                _log.error("does not end though it was cancelled", task=task.get_name())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._has_room() or self._stopping:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  the server makes one for each connection
        self._tasks.add(task)
        try:
            # Clients may dial before they have something to ask, so the first request may be as late as the others.
            seconds = self._limits.idle_seconds or self._limits.head_seconds
            while await self._exchange(reader, writer, seconds):
                pass
            writer.close()
            await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            self._busy.discard(writer)
            self._idle.pop(writer, None)
            self._settle()

    def _settle(self) -> None:
        if self._stopping and not self._busy and not self._idle:
            self._quiet.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> bool:
        """Read a request and answer it; return whether another may follow on this connection."""
        self._busy.discard(writer)
        self._idle[writer] = reader
        async with asyncio.timeout(seconds):
            first = await reader.readexactly(1)
        self._busy.add(writer)
        self._idle.pop(writer, None)
        held = _Held()
        try:
            request, keep = await self._read(first, reader, writer, held)
            page = await self._handler(request)
        except _RefusedError as refused:
            request, keep, page = HttpRequest("", "", "", {}), False, refused.page
        finally:
            self._buffered -= held.size
        keep = keep and self._limits.idle_seconds > 0 and not self._stopping
        async with asyncio.timeout(_WRITE_SECONDS):
            writer.write(_encoded(page, keep=keep, bodiless=request.method == "HEAD"))
            await writer.drain()
        if not keep and not request.method and self._limits.idle_seconds > 0:
            await _linger(reader)
        return keep

    async def _read(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: _Held
    ) -> tuple[HttpRequest, bool]:
        async with asyncio.timeout(self._limits.head_seconds):
            data = first + await reader.readuntil(b"\r\n\r\n")
        head = _Head()
        try:
            head.parser.feed_data(data)
            url = httptools.parse_url(head.url)
            method: str = head.parser.get_method().decode()
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise _RefusedError(400, "not an HTTP request") from None
        path, query = (url.path or b"/").decode("latin-1"), (url.query or b"").decode("latin-1")
        request = HttpRequest(method, path, query, head.headers)
        keep, head.parser = head.keep, None  # or both would keep each other
        size, chunked = head.headers.get("content-length", "0"), "transfer-encoding" in head.headers
        if size == "0" and not chunked:
            return request, keep
        limit = self._limits.body_bytes(path)
        if not chunked and int(size) > limit:
            raise _RefusedError(413, f"the body has {size} bytes; at most {limit} are taken here")
        if head.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        async with asyncio.timeout(self._limits.body_seconds):
            body = await (self._chunks(reader, limit, held) if chunked else self._whole(reader, int(size), held))
        return request._replace(body=body), keep

    def _hold(self, held: _Held, size: int) -> None:
        if self._buffered + size > self._limits.buffered_bytes:
            raise _RefusedError(503, "too many bytes of requests are held at once; ask again later")
        self._buffered += size
        held.size += size

    async def _whole(self, reader: asyncio.StreamReader, size: int, held: _Held) -> bytes:
        self._hold(held, size)
        return await reader.readexactly(size)

    async def _chunks(self, reader: asyncio.StreamReader, limit: int, held: _Held) -> bytes:
        parts: list[bytes] = []
        while True:
            line = await reader.readuntil(b"\r\n")
            try:
                size = int(line.partition(b";")[0].strip(), 16) if len(line) <= _CHUNK_LINE else -1
            except ValueError:
                size = -1
            if size < 0:
                raise _RefusedError(400, "not a chunk of a body")
            if size == 0:
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                return b"".join(parts)
            if held.size + size > limit:
                raise _RefusedError(413, f"the body has over {limit} bytes, and more are not taken here")
            self._hold(held, size)
            parts.append(await reader.readexactly(size))
            if await reader.readexactly(2) != b"\r\n":
                raise _RefusedError(400, "not a chunk of a body")


class _Held:
    """The bytes of one request that count among those held at once."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


async def _linger(reader: asyncio.StreamReader) -> None:
    """Read what still comes of a refused body, so that the client sees the answer and no reset."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while await reader.read(1 << 16):
                pass


def _encoded(page: Page, *, keep: bool, bodiless: bool) -> bytes:
    head = (
        f"HTTP/1.1 {page.status} {_REASONS.get(page.status, 'Unknown')}\r\ncontent-type: {page.content_type}\r\n"
        f"content-length: {len(page.body)}\r\nconnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    return head.encode() + (b"" if bodiless else page.body)


def _bound(made: socket.socket) -> tuple[str, int]:
    """Return the address of a socket, none for one of unix."""
    if made.family == socket.AF_UNIX:
        return "", 0
    host, port, *_ = made.getsockname()
    return host, port


def split_address(what: str, address: str) -> tuple[str, int]:
    """Split HOST:PORT. Raises ValueError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{what} {address!r}: want HOST:PORT, such as 127.0.0.1:8081")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
