"""How a server's calls are answered: response headers, messages, trailers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ngh2 import Connection, NGH2Error

from pilothouse.foundation.grpc.calls import Method, ServerCall, ServerStream
from pilothouse.foundation.grpc.connection import Http2Protocol
from pilothouse.foundation.grpc.status import GrpcCode, GrpcError
from pilothouse.foundation.grpc.wire import frame_message, status_headers
from pilothouse.foundation.logs import get_logger

if TYPE_CHECKING:
    from pilothouse.foundation.grpc.serving import ServerConnection

__all__ = ["AnsweringConnection", "ServerOptions"]

_log = get_logger(__name__)

_HEADERS = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,gzip"),
)
_OK = ((b"grpc-status", b"0"),)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits and seams of a server; `GrpcServer` says what each means."""

    max_message_bytes: int
    max_concurrent_streams: int
    max_connections: int
    max_header_list_bytes: int
    max_buffered_bytes: int
    max_queued_bytes: int
    keepalive_seconds: float
    keepalive_timeout: float
    error_mapper: Callable[[Exception], GrpcError | None] | None
    clock: Callable[[], float]
    methods: dict[bytes, Method] = field(default_factory=dict)
    connections: set[ServerConnection] = field(default_factory=set)


class AnsweringConnection(Http2Protocol):
    """Answer the calls of one peer; how they arrive is `ServerConnection`'s."""

    def __init__(self, engine: Connection, options: ServerOptions) -> None:
        super().__init__(
            engine, keepalive_seconds=options.keepalive_seconds, keepalive_timeout=options.keepalive_timeout
        )
        self._options = options
        self._calls: dict[int, ServerCall] = {}
        self._buffered = 0
        self._answered = False  # since the last ping
        self._idle: asyncio.Future[None] | None = None

    @property
    def peer(self) -> str:
        transport = self.transport
        name = transport.get_extra_info("peername") if transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix:"

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        transport = self.transport
        return (transport.get_extra_info("peercert") or None) if transport is not None else None

    def is_open(self, stream_id: int) -> bool:
        return stream_id in self._calls

    def queued_bytes(self, stream_id: int) -> int:
        """Return the bytes of the stream that flow control or the transport holds back."""
        return self.engine.queued_body_size(stream_id)

    def _check_idle(self) -> None:
        idle = self._idle
        if idle is not None and not idle.done() and not any(call.open for call in self._calls.values()):
            idle.set_result(None)

    def guard(self, callback: Callable[[], None]) -> None:
        """Run a handler's callback; log what it raises."""
        try:
            callback()
        except Exception:  # noqa: BLE001  # one call's callback must not end the others
            _log.exception("grpc cancel callback failed", peer=self.peer)

    def respond(self, call: ServerCall, message: bytes) -> None:
        """End a unary call with its message."""
        if not call.open:
            return
        stream_id = call.stream_id
        engine = self.engine
        try:
            engine.send_response(stream_id, _HEADERS)
            engine.send_data(stream_id, b"\0" + len(message).to_bytes(4, "big") + message)
            engine.send_trailers(stream_id, _OK)
        except NGH2Error:
            self._drop(call)  # the stream is gone, and its StreamClosed is on its way
            return
        self._answered = True
        self._close(call)

    def send_headers(self, call: ServerCall, metadata: list[tuple[bytes, bytes]]) -> None:
        """Send a stream's response headers."""
        self._require_open(call)
        call.headers_sent = True
        self._try(call, lambda: self.engine.send_response(call.stream_id, [*_HEADERS, *metadata]))

    def send_message(self, call: ServerStream, message: bytes) -> None:
        """Queue one message of a stream."""
        self._require_open(call)
        engine, stream_id = self.engine, call.stream_id
        if engine.queued_body_size(stream_id) > self._options.max_queued_bytes:
            limit = self._options.max_queued_bytes
            raise GrpcError(GrpcCode.RESOURCE_EXHAUSTED, f"{call.path}: over {limit} bytes queued; await drain() first")
        try:
            if not call.headers_sent:
                call.headers_sent = True
                engine.send_response(stream_id, _HEADERS)
            engine.send_data(stream_id, frame_message(message))
        except NGH2Error:
            raise GrpcError(GrpcCode.CANCELLED, f"{call.path}: the call is over") from None
        self._answered = True
        self.schedule_flush()

    def _require_open(self, call: ServerCall) -> None:
        if not call.open:
            raise GrpcError(GrpcCode.CANCELLED, f"{call.path}: the call is over")

    def finish_with(self, call: ServerCall, error: BaseException) -> None:
        """End a call with the status that an exception stands for."""
        status: GrpcError | None = None
        if isinstance(error, GrpcError):
            status = error
        elif isinstance(error, Exception) and self._options.error_mapper is not None:
            status = self._options.error_mapper(error)
        if status is None:
            _log.error("grpc handler failed", path=call.path, peer=self.peer, exc_info=error)
            status = GrpcError(GrpcCode.UNKNOWN, f"{call.path}: the server failed: {type(error).__name__}")
        self.finish(call, status)

    def finish(self, call: ServerCall, status: GrpcError) -> None:
        """End a call with a status: in trailers after its messages, else in the only headers."""
        if not call.open:
            return
        try:
            trailers = status_headers(status)
        except ValueError as error:
            _log.error("grpc trailers cannot be sent", path=call.path, reason=str(error))
            trailers = status_headers(GrpcError(GrpcCode.INTERNAL, f"{call.path}: the server's trailers are invalid"))
        if not call.headers_sent:
            self._answer(call, (*_HEADERS, *trailers))
            return
        self._try(call, lambda: self.engine.send_trailers(call.stream_id, trailers))
        self._close(call)

    def _answer(self, call: ServerCall, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._try(call, lambda: self.engine.send_response(call.stream_id, headers, end_stream=True))
        self._close(call)

    def _try(self, call: ServerCall, send: Callable[[], None]) -> None:
        try:
            send()
        except NGH2Error:
            self._drop(call)
            return
        self.schedule_flush()

    def _close(self, call: ServerCall) -> None:
        """Let go of a call whose answer is queued."""
        if not call.open:
            return
        call.open = False
        self._release(call)
        if not call.request_done:
            self.reset_when_sent(call.stream_id)
        if self._idle is not None:
            self._check_idle()
        self.schedule_flush()

    def _drop(self, call: ServerCall) -> None:
        """Cancel a call whose stream is gone."""
        if call.open:
            call.open = False
            call.run_cancel()
            if self._idle is not None:
                self._check_idle()
        self._release(call)

    def _release(self, call: ServerCall) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        reader = call.reader
        if reader is not None:
            if isinstance(call, ServerStream):
                call.inbox.discard()
            else:
                self._buffered -= reader.pending
                call.reader = None
