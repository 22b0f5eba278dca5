"""Requests over HTTP/1.1: a bounded pool of connections, credentials with each request, answers whole or as streams."""

from __future__ import annotations

import asyncio
import ipaddress
from functools import partial
from typing import Final

from pilothouse import __version__
from pilothouse.foundation.clock import Clock

from .config import ClientConfig, Impersonation
from .credentials import Credentials, Shown, credentials_for
from .errors import ConnectFailed, TransportError
from .httpconnecting import Connector
from .httpconnection import HttpConnection
from .httpstream import HttpStream, UpgradedConnection
from .transport import Answer, Headers

__all__ = ["HttpTransport", "impersonation_headers"]

USER_AGENT: Final = f"pilothouse/{__version__}"
_SAFE: Final = frozenset({"GET", "HEAD"})
_IDLE_SECONDS: Final = 60.0
_UNAUTHORIZED: Final = 401


def impersonation_headers(who: Impersonation) -> list[tuple[str, str]]:
    """Return the headers that say as whom to act."""
    made = [("Impersonate-User", who.user)]
    made += [("Impersonate-Group", group) for group in who.groups]
    if who.uid:
        made.append(("Impersonate-Uid", who.uid))
    for key, values in who.extra.items():
        made += [(f"Impersonate-Extra-{_escaped(key)}", value) for value in values]
    return made


def _escaped(key: str) -> str:
    """Write a key so that it can be part of a header's name. Follows Kubernetes' `headerKeyEscape`."""
    allowed = "!#$&'*+-.^_`|~"
    return "".join(
        chr(byte) if chr(byte) in allowed or (byte < 128 and chr(byte).isalnum()) else f"%{byte:02X}"
        for byte in key.encode()
    )


class HttpTransport:
    """Carries requests to the server of a configuration.

    calls, streams: how many of each may go on at once; others wait for their turn. Streams do not take the calls'
    places, so however many watches there are, calls go through. seconds: the time limit of a call that names none;
    connect_seconds: that of a connection. credentials: instead of the configuration's.
    """

    def __init__(  # noqa: PLR0913  # all but one have a default
        self,
        config: ClientConfig,
        *,
        credentials: Credentials | None = None,
        calls: int = 64,
        streams: int = 1024,
        seconds: float = 60.0,
        connect_seconds: float = 10.0,
        clock: Clock | None = None,
        user_agent: str = USER_AGENT,
    ) -> None:
        self._connector = Connector(config, seconds=connect_seconds)
        self._credentials = credentials or credentials_for(config, clock)
        self._seconds = seconds
        self._calls = asyncio.Semaphore(calls)
        self._streams = asyncio.Semaphore(streams)
        self._idle: list[HttpConnection] = []
        self._open: set[HttpConnection] = set()
        self._certificate: tuple[bytes, bytes] = (b"", b"")
        self._closed = False
        self._sweeper: asyncio.TimerHandle | None = None
        fixed = [("Host", _host(self._connector)), ("User-Agent", user_agent)]
        if _compresses(config, self._connector.host):
            fixed.append(("Accept-Encoding", "gzip"))
        if config.impersonate is not None:
            fixed += impersonation_headers(config.impersonate)
        self._fixed = _lines(fixed)

    @property
    def open_connections(self) -> int:
        """How many connections there are, idle ones included."""
        return sum(not connection.closed for connection in self._open)

    async def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        stream: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109
        idle: float | None = None,
    ) -> Answer:
        if self._closed:
            raise ConnectFailed(f"{self._connector.where}: this transport was closed")
        turn = self._streams if stream or any(name == "Upgrade" for name, _ in headers) else self._calls
        await turn.acquire()
        handed = False
        try:
            limit = self._seconds if timeout is None else timeout
            answer = await self._authorized(method, target, headers, body, stream, limit, idle)
            if isinstance(answer.stream, HttpStream):
                answer.stream.on_close(turn.release)
                handed = True
            elif isinstance(answer.duplex, UpgradedConnection):
                answer.duplex.on_lost(turn.release)
                handed = True
            return answer
        finally:
            if not handed:
                turn.release()

    async def _authorized(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        stream: bool,
        limit: float,
        idle: float | None,
    ) -> Answer:
        shown = await self._credentials.shown()
        data = self._head(method, target, headers, body, shown.authorization)
        answer = await self._sent(method, data, shown, stream=stream, limit=limit, idle=idle)
        if answer.status != _UNAUTHORIZED or not self._credentials.refused(shown):
            return answer
        again = await self._credentials.shown()
        if again == shown:
            return answer
        data = self._head(method, target, headers, body, again.authorization)
        return await self._sent(method, data, again, stream=stream, limit=limit, idle=idle)

    async def _sent(
        self, method: str, data: bytes, shown: Shown, *, stream: bool, limit: float, idle: float | None
    ) -> Answer:
        while True:
            connection = await self._connection(shown)
            fresh = connection.uses == 0
            try:
                answer = await connection.exchange(data, stream=stream, timeout=limit, idle=idle)
            except TransportError:
                # The server may close an idle connection just when we use it; a request that changes nothing is safe.
                if fresh or connection.answered or method not in _SAFE or not connection.closed:
                    raise
                continue
            if isinstance(answer.stream, HttpStream):
                answer.stream.on_close(partial(self._give_back, connection))
            elif answer.duplex is None:
                self._give_back(connection)
            return answer

    async def _connection(self, shown: Shown) -> HttpConnection:
        if (shown.certificate, shown.key) != self._certificate:
            self._certificate = shown.certificate, shown.key
            self._drop_idle(float("inf"))
        while self._idle:
            found = self._idle.pop()
            if found.reusable:
                return found
        connection = await self._connector.connect(shown)
        if self._closed:
            connection.abort()
            raise ConnectFailed(f"{self._connector.where}: this transport was closed")
        self._open.add(connection)
        connection.when_lost(partial(self._open.discard, connection))
        return connection

    def _give_back(self, connection: HttpConnection) -> None:
        if not connection.reusable or self._closed:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(_IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        loop = asyncio.get_running_loop()
        self._drop_idle(loop.time() - _IDLE_SECONDS)
        if self._idle:
            self._sweeper = loop.call_later(_IDLE_SECONDS, self._sweep)

    def _drop_idle(self, until: float) -> None:
        """Close the connections that were idle since before then."""
        kept = [one for one in self._idle if one.reusable and one.idle_since > until]
        for connection in self._idle:
            if connection not in kept:
                connection.close()
        self._idle = kept

    def _head(self, method: str, target: str, headers: Headers, body: bytes, authorization: str) -> bytes:
        if not target.isascii() or not target.isprintable() or " " in target:
            raise ValueError(f"{method} {target!r}: not the path of a request; quote what is in it")
        text = f"{method} {self._connector.prefix}{target} HTTP/1.1\r\n{self._fixed}"
        if authorization:
            text += f"Authorization: {authorization}\r\n"
        if headers:
            text += _lines(headers)
        if body or method in {"POST", "PUT", "PATCH"}:
            text += f"Content-Length: {len(body)}\r\n"
        try:
            return text.encode("latin-1") + b"\r\n" + body
        except UnicodeEncodeError as error:
            raise ValueError(f"{method} {target}: a header that is not Latin-1; encode it") from error

    async def aclose(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for connection in list(self._open):
            connection.abort()
        self._open.clear()
        await asyncio.sleep(0)  # lets the loop close the sockets


def _host(connector: Connector) -> str:
    return connector.where.partition("://")[2]


def _lines(headers: Headers) -> str:
    text = "".join(f"{name}: {value}\r\n" for name, value in headers)
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ValueError("headers: a line break or a null character in one of them")
    return text


def _compresses(config: ClientConfig, host: str) -> bool:
    """Say whether to ask for gzip: on this machine it costs more than it saves."""
    if config.compression is not None:
        return config.compression
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
