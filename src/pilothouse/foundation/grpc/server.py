"""A gRPC server: register handlers by path, listen, close."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable

from pilothouse.foundation.grpc.answering import ServerOptions
from pilothouse.foundation.grpc.calls import Method, StreamHandler, UnaryHandler
from pilothouse.foundation.grpc.serving import ServerConnection
from pilothouse.foundation.grpc.status import GrpcError

__all__ = ["GrpcServer"]

_HANDSHAKE_SECONDS = 10.0
"""How long a peer may take over TLS; until then it counts as no connection."""


class GrpcServer:
    """Serve byte-level handlers by method path over HTTP/2, in plain text or TLS.

    Limits: `max_message_bytes` of one message, also after decompression; `max_concurrent_streams` of a connection;
    `max_connections`; `max_header_list_bytes` of a request's headers; `max_buffered_bytes` of half-received messages
    of a connection; `max_queued_bytes` of answers that a peer does not read, after which its calls are refused.
    A peer silent for `keepalive_seconds` is pinged and dropped after `keepalive_timeout` more.

    `error_mapper` turns an exception of a handler into the status to send; None means UNKNOWN, and it is logged.
    `clock` gives monotonic seconds.
    """

    def __init__(  # noqa: PLR0913  # each is one bound with its default
        self,
        *,
        max_message_bytes: int = 4 << 20,
        max_concurrent_streams: int = 10_000,
        max_connections: int = 10_000,
        max_header_list_bytes: int = 16 << 10,
        max_buffered_bytes: int = 64 << 20,
        max_queued_bytes: int = 64 << 20,
        keepalive_seconds: float = 60.0,
        keepalive_timeout: float = 20.0,
        error_mapper: Callable[[Exception], GrpcError | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = ServerOptions(
            max_message_bytes=max_message_bytes,
            max_concurrent_streams=max_concurrent_streams,
            max_connections=max_connections,
            max_header_list_bytes=max_header_list_bytes,
            max_buffered_bytes=max_buffered_bytes,
            max_queued_bytes=max_queued_bytes,
            keepalive_seconds=keepalive_seconds,
            keepalive_timeout=keepalive_timeout,
            error_mapper=error_mapper,
            clock=clock,
        )
        self._listeners: list[asyncio.Server] = []

    def unary(self, path: str, handler: UnaryHandler) -> None:
        """Answer calls of `path`, one message for one.

        The handler runs inside the read that completed the request. Bytes answer at once; a future answers when it is
        done and is never cancelled; a coroutine gets a task, cancelled with the call.
        """
        self._add(Method(path, handler, None))

    def stream(self, path: str, handler: StreamHandler) -> None:
        """Answer calls of `path`, any number of messages either way; each call's handler runs in its own task."""
        self._add(Method(path, None, handler))

    def _add(self, method: Method) -> None:
        key = method.path.encode("ascii")
        if not key.startswith(b"/") or key in self._options.methods:
            raise ValueError(f"method path {method.path!r} must start with / and be registered once")
        self._options.methods[key] = method

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return len(self._options.connections)

    async def listen_tcp(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Accept connections at an address and return it, with the port chosen when `port` is 0.

        `tls` gets h2 as its only ALPN protocol. `OSError` when the address cannot be had. May be called several times.
        """
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        loop = asyncio.get_running_loop()
        patience = None if tls is None else _HANDSHAKE_SECONDS
        server = await loop.create_server(
            self._connection, host, port, ssl=tls, backlog=1024, ssl_handshake_timeout=patience
        )
        self._listeners.append(server)
        name = server.sockets[0].getsockname()
        return name[0], name[1]

    async def listen_unix(self, path: str) -> None:
        """Accept connections of this user at a Unix socket, mode 0600; `OSError` when it cannot be made."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self._connection, path, backlog=1024, start_serving=False)
        self._listeners.append(server)
        # Whoever may write to it is served without TLS, and the mode it was made with is the umask's.
        os.chmod(path, 0o600)
        await server.start_serving()

    def _connection(self) -> ServerConnection:
        return ServerConnection(self._options)

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, let open calls end within `grace` seconds, end the rest with UNAVAILABLE."""
        for listener in self._listeners:
            listener.close()
        connections = list(self._options.connections)
        if connections:
            await asyncio.gather(*(connection.shut_down(grace) for connection in connections))
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()
