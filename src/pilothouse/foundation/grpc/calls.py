"""What a server's handlers see of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pilothouse.foundation.grpc.connection import Inbox
from pilothouse.foundation.grpc.status import GrpcCode, GrpcError, Metadata
from pilothouse.foundation.grpc.wire import MessageReader, decode_metadata, encode_metadata

if TYPE_CHECKING:
    from pilothouse.foundation.grpc.answering import AnsweringConnection

__all__ = ["Method", "ServerCall", "ServerStream", "StreamHandler", "UnaryHandler"]

UnaryHandler = Callable[[bytes, "ServerCall"], bytes | Awaitable[bytes]]
StreamHandler = Callable[["ServerStream"], Awaitable[None]]


class Method:
    """A registered path: how it is called and by what."""

    __slots__ = ("path", "stream", "unary")

    def __init__(self, path: str, unary: UnaryHandler | None, stream: StreamHandler | None) -> None:
        self.path = path
        self.unary = unary
        self.stream = stream


class ServerCall:
    """One call, from its request's headers to its answer.

    `deadline` is in seconds of the server's clock, None without one. `cancelled` turns true when the caller gave up,
    the deadline passed or the connection was lost; answers are then dropped.
    """

    __slots__ = (
        "_callbacks",
        "_headers",
        "_metadata",
        "cancelled",
        "connection",
        "deadline",
        "headers_sent",
        "message",
        "method",
        "open",
        "reader",
        "request_done",
        "stream_id",
        "task",
        "timeout",
        "timer",
    )

    def __init__(
        self, connection: AnsweringConnection, stream_id: int, method: Method, headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.method = method
        self.cancelled = False
        self.deadline: float | None = None
        self.timeout: float | None = None
        self.open = True
        self.request_done = False
        self.headers_sent = False
        self.reader: MessageReader | None = None
        self.message: bytes | None = None
        self.task: asyncio.Task[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._headers = headers
        self._metadata: dict[str, str | bytes] | None = None
        self._callbacks: list[Callable[[], None]] | None = None

    @property
    def path(self) -> str:
        return self.method.path

    @property
    def metadata(self) -> dict[str, str | bytes]:
        """The caller's metadata by lower-case name.

        Repeated text values are joined by commas, of repeated binary ones the last stays.
        """
        found = self._metadata
        if found is None:
            found = self._metadata = {}
            for name, value in decode_metadata(self._headers):
                before = found.get(name)
                found[name] = f"{before},{value}" if isinstance(before, str) and isinstance(value, str) else value
        return found

    @property
    def authority(self) -> str:
        """The host that the caller asked for."""
        return dict(self._headers).get(b":authority", b"").decode("latin-1")

    @property
    def peer(self) -> str:
        """The caller's address, `host:port` or `unix:`."""
        return self.connection.peer

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The caller's verified certificate as `ssl.SSLSocket.getpeercert` gives it; None without one."""
        return self.connection.peer_certificate

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once when the call is cancelled; at once if it is already."""
        if self.cancelled:
            callback()
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def settle(self, future: asyncio.Future[bytes]) -> None:
        """Answer with a future's outcome; its done-callback."""
        if not self.open:
            if not future.cancelled():
                future.exception()  # nobody is left to be told
        elif future.cancelled():
            self.connection.finish(self, GrpcError(GrpcCode.CANCELLED, f"{self.path}: the server gave the call up"))
        elif (error := future.exception()) is not None:
            self.connection.finish_with(self, error)
        else:
            self.connection.respond(self, future.result())

    def run_cancel(self) -> None:
        """Mark the call cancelled, tell who asked to know, stop its task."""
        if self.cancelled:
            return
        self.cancelled = True
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            self.connection.guard(callback)
        if self.task is not None:
            self.task.cancel()


class ServerStream(ServerCall):
    """A call whose handler reads and writes messages as it likes.

    Iterate over it for the request's messages; iteration ends when the client half-closes and raises `GrpcError`
    CANCELLED when the call is cancelled. The handler's return ends the call with OK, a `GrpcError` with its status.
    """

    __slots__ = ("inbox", "trailing_metadata")

    def __init__(
        self, connection: AnsweringConnection, stream_id: int, method: Method, headers: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        super().__init__(connection, stream_id, method, headers)
        self.inbox: Inbox
        self.trailing_metadata: Metadata = ()

    def __aiter__(self) -> ServerStream:
        return self

    async def __anext__(self) -> bytes:
        return await self.inbox.get()

    def send(self, message: bytes) -> None:
        """Queue a message; CANCELLED when the call is over, RESOURCE_EXHAUSTED when far too much is queued."""
        self.connection.send_message(self, message)

    def send_initial_metadata(self, metadata: Metadata = ()) -> None:
        """Send the response's headers now rather than with the first message; `RuntimeError` the second time."""
        if self.headers_sent:
            raise RuntimeError(f"{self.path}: initial metadata is already sent")
        self.connection.send_headers(self, encode_metadata(metadata))

    async def drain(self) -> None:
        """Wait while over 1 MiB is queued for this stream or the connection takes no more.

        `GrpcError` CANCELLED when the call is over.
        """
        await self.connection.drain(self.stream_id)
        if not self.open:
            raise GrpcError(GrpcCode.CANCELLED, f"{self.path}: the call is over")

    def finished(self, task: asyncio.Task[None]) -> None:
        """End the call as its handler ended."""
        if not self.open:
            if not task.cancelled():
                task.exception()  # nobody is left to be told
        elif task.cancelled():
            self.connection.finish(self, GrpcError(GrpcCode.CANCELLED, f"{self.path}: the server gave the call up"))
        elif (error := task.exception()) is not None:
            self.connection.finish_with(self, error)
        else:
            self.connection.finish(self, GrpcError(GrpcCode.OK, "", self.trailing_metadata))

    @property
    def queued_bytes(self) -> int:
        """Bytes sent by the handler and not yet given to the transport."""
        return self.connection.queued_bytes(self.stream_id) if self.open else 0

    def run_cancel(self) -> None:
        self.inbox.end(GrpcError(GrpcCode.CANCELLED, f"{self.path}: the call was cancelled"))
        super().run_cancel()
