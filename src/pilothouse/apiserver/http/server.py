"""The HTTP server: listens, counts, sweeps out what is overdue, closes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from pilothouse.apiserver.http.answering import Shared
from pilothouse.apiserver.http.connection import HttpConnection
from pilothouse.apiserver.http.limits import HttpLimits
from pilothouse.apiserver.http.tls import TlsConnection
from pilothouse.apiserver.model import Handler
from pilothouse.foundation.clock import Clock, SystemClock, Timer

__all__ = ["HttpServer"]

_SWEEP_SECONDS: Final = 1.0
_BACKLOG: Final = 1024
_TURNS: Final = 16
"""Of the loop, in which connections that were aborted are gone."""


class HttpServer:
    """Carry requests over HTTP/1.1 to `handler` and its answers back, in TLS where a context is given.

    The context's own settings say whether client certificates are asked for; one that cannot be verified fails the
    handshake. `start` may be called for several addresses. Works on asyncio's loop and on uvloop.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None = None,
        limits: HttpLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._handler = handler
        self._tls = tls
        self._limits = limits or HttpLimits()
        self._clock = clock or SystemClock()
        self._shared: Shared | None = None
        self._listeners: list[asyncio.Server] = []
        self._sweeper: Timer | None = None
        self.on_count: Callable[[int], object] | None = None
        """Called with the number of open connections once a second while there are any, and when the last has gone."""

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._shared.connections) if self._shared is not None else 0

    async def start(self, host: str = "", port: int = 0, *, listening: socket.socket | None = None) -> tuple[str, int]:
        """Accept connections at an address and return it, with the port chosen when `port` is 0.

        listening: a socket that listens already, instead of an address; it is closed with the server. Raises OSError
        when the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        if self._shared is None:
            self._shared = Shared(self._handler, self._limits, self._clock, loop)
            self._sweep(self._shared)
        shared, tls = self._shared, self._tls
        if tls is not None:
            tls.set_alpn_protocols(["h2", "http/1.1"] if self._limits.http2 else ["http/1.1"])

        def connection() -> asyncio.Protocol:
            return HttpConnection(shared) if tls is None else TlsConnection(shared, tls)

        if listening is not None:
            server = await loop.create_server(connection, sock=listening, backlog=_BACKLOG)
        else:
            server = await loop.create_server(connection, host, port, backlog=_BACKLOG)
        self._listeners.append(server)
        name = server.sockets[0].getsockname()
        return name[0], name[1]

    def _sweep(self, shared: Shared) -> None:
        """Close what is overdue. One timer for all: one for each request would cost more than the request."""
        now = shared.monotonic()
        for connection in [found for found in shared.connections if found.deadline <= now]:
            connection.expire(now)
        if self.on_count is not None:
            self.on_count(len(shared.connections))
        self._sweeper = self._clock.call_later(_SWEEP_SECONDS, lambda: self._sweep(shared))

    async def close(self, grace: float = 5.0) -> None:
        """Stop accepting, let requests in flight be answered within `grace` seconds and streams end, abort the rest."""
        for listener in self._listeners:
            listener.close()
        shared = self._shared
        if shared is not None:
            shared.closing = True
            for connection in list(shared.connections):
                connection.shut_down()
            await shared.wait_empty(self._clock, grace)
            for connection in list(shared.connections):
                connection.abort()
            for _ in range(_TURNS):
                if not shared.connections:
                    break
                await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()
