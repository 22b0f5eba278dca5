"""The client's side of one connection: from calls to HTTP/2 and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    NGH2Error,
    ResponseReceived,
    Role,
    Setting,
    StreamClosed,
    TrailersReceived,
)

from pilothouse.foundation.grpc.client_calls import ClientStream, UnaryCall
from pilothouse.foundation.grpc.connection import CONNECTION_WINDOW, STREAM_WINDOW, Http2Protocol
from pilothouse.foundation.grpc.status import GrpcCode, GrpcError, RefusedError
from pilothouse.foundation.grpc.wire import format_timeout, frame_message

__all__ = ["ClientConnection"]

_LAST_STREAM_ID = (1 << 31) - 10_000
_MAX_QUEUED_BYTES = 64 << 20


def _engine() -> Connection:
    engine = Connection(Role.CLIENT, Configuration(auto_window_update=False))
    engine.initiate_connection({Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW})
    engine.set_local_window_size(CONNECTION_WINDOW)
    return engine


class ClientConnection(Http2Protocol):
    """Carry calls to one server. `too_many_pings` is called when the server finds the keepalive too eager."""

    def __init__(
        self,
        target: str,
        *,
        keepalive_seconds: float,
        keepalive_timeout: float,
        max_message_bytes: int,
        max_calls: int,
        too_many_pings: Callable[[], None],
    ) -> None:
        super().__init__(_engine(), keepalive_seconds=keepalive_seconds, keepalive_timeout=keepalive_timeout)
        self.max_message_bytes = max_message_bytes
        self._target = target
        self._max_calls = max_calls
        self._too_many_pings = too_many_pings
        self._calls: dict[int, UnaryCall | ClientStream] = {}
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.usable = True
        self.flush()

    def lost(self, reason: str) -> None:
        self.usable = False
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.fail(GrpcError(GrpcCode.UNAVAILABLE, f"{call.path}: {self._target}: {reason}"))

    def wants_keepalive(self) -> bool:
        return bool(self._calls)

    def is_open(self, stream_id: int) -> bool:
        return stream_id in self._calls

    # Calls

    def start_unary(
        self, path: str, headers: list[tuple[bytes, bytes]], message: bytes, timeout: float | None
    ) -> UnaryCall:
        """Send a unary call; UNAVAILABLE when the connection takes no more."""
        call = UnaryCall(self, path, self.loop)
        stream_id = self._open(call, headers, timeout)
        self.engine.send_data(stream_id, frame_message(message), end_stream=True)
        self.schedule_flush()
        return call

    def start_stream(self, path: str, headers: list[tuple[bytes, bytes]], timeout: float | None) -> ClientStream:
        """Open a stream; UNAVAILABLE when the connection takes no more."""
        call = ClientStream(self, path)
        call.opened(self._open(call, headers, timeout))
        self.schedule_flush()
        return call

    def _open(self, call: UnaryCall | ClientStream, headers: list[tuple[bytes, bytes]], timeout: float | None) -> int:
        if len(self._calls) >= self._max_calls:
            raise GrpcError(GrpcCode.RESOURCE_EXHAUSTED, f"{call.path}: already {self._max_calls} calls are open")
        if timeout is not None:
            headers = [*headers, (b"grpc-timeout", format_timeout(timeout))]
        try:
            stream_id = self.engine.send_request(headers)
        except NGH2Error as error:
            self.usable = False
            raise RefusedError(GrpcCode.UNAVAILABLE, f"{call.path}: {self._target}: {error}") from None
        if stream_id >= _LAST_STREAM_ID:
            self.retire()
        call.stream_id = stream_id
        self._calls[stream_id] = call
        if timeout is not None:
            call.timer = self.loop.call_later(timeout, call.expire)
        return stream_id

    def send_message(self, call: ClientStream, frame: bytes) -> None:
        """Queue one framed message of a stream."""
        if self.engine.queued_body_size(call.stream_id) > _MAX_QUEUED_BYTES:
            message = f"{call.path}: over {_MAX_QUEUED_BYTES} bytes queued; await drain() first"
            raise GrpcError(GrpcCode.RESOURCE_EXHAUSTED, message)
        try:
            self.engine.send_data(call.stream_id, frame)
        except NGH2Error:
            raise GrpcError(GrpcCode.CANCELLED, f"{call.path}: the call is over") from None
        self.schedule_flush()

    def half_close(self, stream_id: int) -> None:
        """End the request of a stream."""
        try:
            self.engine.end_stream(stream_id)
        except NGH2Error:
            return  # the stream is closed already
        self.schedule_flush()

    def abandon(self, stream_id: int) -> None:
        """Reset a stream whose answer nobody wants."""
        if stream_id in self._calls:
            try:
                self.engine.reset_stream(stream_id, ErrorCode.CANCEL)
            except NGH2Error:
                return  # the connection is ending
            self.schedule_flush()

    def retire(self) -> None:
        """Take no more calls, and close once the open ones have ended."""
        self.usable = False
        self.closing = True
        if not self._calls and self.transport is not None:
            self.transport.close()

    def shut_down(self) -> None:
        """End every call with CANCELLED and close."""
        self.usable = False
        for call in list(self._calls.values()):
            call.fail(GrpcError(GrpcCode.CANCELLED, f"{call.path}: the channel was closed"))
        with contextlib.suppress(NGH2Error):  # it may be over already
            self.engine.terminate_connection(ErrorCode.NO_ERROR)
        self.closing = True
        self.flush()
        if self.transport is not None:
            self.transport.close()

    # Events

    def handle(self, events: list[Event]) -> None:
        calls = self._calls
        for event in events:
            if type(event) is DataReceived:
                self._on_data(event)
            elif type(event) is GoAwayReceived:
                self._on_goaway(event)
            elif type(event) is StreamClosed:
                call = calls.pop(event.stream_id, None)
                if call is not None:
                    call.on_closed(event.error_code)
            elif isinstance(event, ResponseReceived | TrailersReceived):
                self._on_headers(event)
        if self.closing and not calls:
            self.retire()

    def _on_headers(self, event: ResponseReceived | TrailersReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        if type(event) is TrailersReceived:
            call.on_trailers(event.headers)
        elif type(event) is ResponseReceived:
            call.on_headers(event.headers)
            if event.end_stream:
                call.on_ended()

    def _on_data(self, event: DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        data = event.data
        if call is not None:
            call.on_data(data)
            if event.end_stream:
                call.on_ended()
        elif data:
            self.acknowledge(len(data), event.stream_id)

    def _on_goaway(self, event: GoAwayReceived) -> None:
        if event.debug_data == b"too_many_pings":
            self._too_many_pings()
        self.usable = False
        self.closing = True
        for stream_id in [number for number in self._calls if number > event.last_stream_id]:
            call = self._calls.pop(stream_id)
            call.fail(RefusedError(GrpcCode.UNAVAILABLE, f"{call.path}: {self._target} is going away"))
