"""A gRPC channel: one connection to one server, made when needed and made anew when lost."""

from __future__ import annotations

import asyncio
import ssl

from pilothouse.foundation.grpc.client_calls import ClientStream
from pilothouse.foundation.grpc.client_connection import ClientConnection
from pilothouse.foundation.grpc.status import GrpcCode, GrpcError, Metadata, RefusedError
from pilothouse.foundation.grpc.wire import encode_metadata

__all__ = ["ClientStream", "GrpcChannel"]

_MAX_CACHED_PATHS = 1024


class GrpcChannel:
    """Call the methods of one server with bytes.

    `metadata` goes with every call. `tls` gets h2 as its only ALPN protocol; `server_name` is checked in its
    certificate instead of `host`. With open calls and a server silent for `keepalive_seconds` a ping is sent; without
    an answer in `keepalive_timeout` the connection is lost, and its calls fail with UNAVAILABLE. A call that a server
    has certainly not looked at is sent once more. `max_calls` bounds the calls open at a time.
    """

    def __init__(  # noqa: PLR0913  # each is one option with its default
        self,
        host: str = "",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        unix_path: str | None = None,
        metadata: Metadata = (),
        connect_timeout: float = 5.0,
        keepalive_seconds: float = 30.0,
        keepalive_timeout: float = 10.0,
        max_message_bytes: int = 4 << 20,
        max_calls: int = 100_000,
    ) -> None:
        self.target = f"unix:{unix_path}" if unix_path is not None else f"{host}:{port}"
        self._host = host
        self._port = port
        self._tls = tls
        self._server_name = server_name
        self._unix_path = unix_path
        self._connect_timeout = connect_timeout
        self._keepalive_seconds = keepalive_seconds
        self._keepalive_timeout = keepalive_timeout
        self._max_message_bytes = max_message_bytes
        self._max_calls = max_calls
        self._connection: ClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._closed = False
        self._headers: dict[str, list[tuple[bytes, bytes]]] = {}
        authority = "localhost" if unix_path is not None else f"{server_name or host}:{port}"
        self._fixed = [
            (b":scheme", b"https" if tls is not None else b"http"),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"grpc-python-pilothouse"),
            (b"grpc-accept-encoding", b"identity,gzip"),
            *encode_metadata(metadata),
        ]
        if tls is not None:
            tls.set_alpn_protocols(["h2"])

    @property
    def connected(self) -> bool:
        """Whether the next call goes out without connecting first."""
        return self._connection is not None and self._connection.usable

    async def connect(self) -> None:
        """Connect if not connected; UNAVAILABLE when that fails."""
        async with self._connecting:
            if self._closed:
                raise GrpcError(GrpcCode.CANCELLED, f"{self.target}: the channel is closed")
            if self.connected:
                return
            try:
                async with asyncio.timeout(self._connect_timeout):
                    self._connection = await self._open()
            except TimeoutError:
                message = f"{self.target}: not connected within {self._connect_timeout} s"
                raise GrpcError(GrpcCode.UNAVAILABLE, message) from None
            except OSError as error:
                raise GrpcError(GrpcCode.UNAVAILABLE, f"{self.target}: cannot connect: {error}") from error

    async def _open(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        name = (self._server_name or self._host) if self._tls is not None else None
        if self._unix_path is not None:
            transport, connection = await loop.create_unix_connection(
                self._protocol, self._unix_path, ssl=self._tls, server_hostname=name
            )
        else:
            transport, connection = await loop.create_connection(
                self._protocol, self._host, self._port, ssl=self._tls, server_hostname=name
            )
        secured = transport.get_extra_info("ssl_object")
        if secured is not None and secured.selected_alpn_protocol() != "h2":
            transport.abort()
            raise GrpcError(GrpcCode.UNAVAILABLE, f"{self.target}: the server does not agree on h2 by ALPN")
        return connection

    def _protocol(self) -> ClientConnection:
        return ClientConnection(
            self.target,
            keepalive_seconds=self._keepalive_seconds,
            keepalive_timeout=self._keepalive_timeout,
            max_message_bytes=self._max_message_bytes,
            max_calls=self._max_calls,
            too_many_pings=self._slow_down,
        )

    def _slow_down(self) -> None:
        self._keepalive_seconds *= 2

    async def unary(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Metadata = (),
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bytes:
        """Send one message and return the answer; `GrpcError` for any other status than OK.

        `timeout` in seconds is also sent to the server; connecting is bounded by `connect_timeout` of its own.
        """
        if not self.connected:
            await self.connect()
        try:
            return await self.unary_future(path, message, metadata=metadata, timeout=timeout)
        except RefusedError:
            await self.connect()
            return await self.unary_future(path, message, metadata=metadata, timeout=timeout)

    def unary_future(
        self, path: str, message: bytes, *, metadata: Metadata = (), timeout: float | None = None
    ) -> asyncio.Future[bytes]:
        """Send one message on the connection there is, and return the answer to come; UNAVAILABLE without one."""
        return self._usable(path).start_unary(path, self._request(path, metadata), message, timeout)

    def stream(self, path: str, *, metadata: Metadata = (), timeout: float | None = None) -> ClientStream:
        """Open a stream on the connection there is; UNAVAILABLE without one, so `await connect()` first."""
        return self._usable(path).start_stream(path, self._request(path, metadata), timeout)

    def _usable(self, path: str) -> ClientConnection:
        connection = self._connection
        if connection is None or not connection.usable:
            raise GrpcError(GrpcCode.UNAVAILABLE, f"{path}: not connected to {self.target}; await connect() first")
        return connection

    def _request(self, path: str, metadata: Metadata) -> list[tuple[bytes, bytes]]:
        headers = self._headers.get(path)
        if headers is None:
            if len(self._headers) >= _MAX_CACHED_PATHS:
                self._headers.clear()
            headers = [(b":method", b"POST"), (b":path", path.encode("ascii")), *self._fixed]
            self._headers[path] = headers
        return [*headers, *encode_metadata(metadata)] if metadata else headers

    async def close(self) -> None:
        """End open calls with CANCELLED and close the connection; the channel is of no use afterwards."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.shut_down()
