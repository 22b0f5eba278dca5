"""The server's side of one connection: from HTTP/2 events to handlers and back."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Any, cast

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    NGH2Error,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

from pilothouse.foundation.grpc.answering import AnsweringConnection, ServerOptions
from pilothouse.foundation.grpc.calls import Method, ServerCall, ServerStream
from pilothouse.foundation.grpc.connection import (
    CONNECTION_WINDOW,
    STREAM_WINDOW,
    Inbox,
    RateLimit,
)
from pilothouse.foundation.grpc.status import GrpcCode, GrpcError
from pilothouse.foundation.grpc.wire import MessageReader, parse_timeout
from pilothouse.foundation.logs import get_logger

__all__ = ["ServerConnection"]

_log = get_logger(__name__)

_ENCODINGS = {None: False, b"identity": False, b"gzip": True}
_CONTENT_TYPES = frozenset({b"application/grpc", b"application/grpc+proto"})
_GOODBYE = b"goodbye!"
_UNKNOWN = Method("unknown", None, None)
_SETTINGS_BURST, _SETTINGS_RATE = 100, 10.0
_PING_BURST, _PING_RATE = 1000, 100.0


def _engine(options: ServerOptions) -> Connection:
    engine = Connection(
        Role.SERVER,
        Configuration(
            auto_window_update=False,
            max_inbound_header_list_size=options.max_header_list_bytes,
            # Resets are counted here, so that the connection ends with ENHANCE_YOUR_CALM.
            stream_reset_rate_limit=(1 << 30, 1 << 30),
        ),
    )
    engine.initiate_connection(
        {
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_CONCURRENT_STREAMS: options.max_concurrent_streams,
            Setting.MAX_HEADER_LIST_SIZE: options.max_header_list_bytes,
        }
    )
    engine.set_local_window_size(CONNECTION_WINDOW)
    return engine


class ServerConnection(AnsweringConnection):
    """Answer the calls of one peer."""

    def __init__(self, options: ServerOptions) -> None:
        super().__init__(_engine(options), options)
        self._unarmed: list[ServerCall] = []
        self._overfull = False
        streams = options.max_concurrent_streams
        self._resets = RateLimit(streams, max(streams / 10, 100), options.clock)
        self._pings = RateLimit(_PING_BURST, _PING_RATE, options.clock)
        self._settings = RateLimit(_SETTINGS_BURST, _SETTINGS_RATE, options.clock)

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        if isinstance(secured, ssl.SSLObject) and secured.selected_alpn_protocol() != "h2":
            _log.warning("grpc connection refused", peer=self.peer, reason="the client did not offer h2 by ALPN")
            transport.close()
            return
        connections = self._options.connections
        if len(connections) >= self._options.max_connections:
            _log.warning("grpc connection refused", peer=self.peer, max_connections=self._options.max_connections)
            self.flush()
            self.refuse(f"the server already has its {self._options.max_connections} connections")
            return
        connections.add(self)
        self.flush()

    def lost(self, reason: str) -> None:
        self._options.connections.discard(self)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            self._drop(call)
        self._check_idle()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self.transport.pause_reading()  # a peer that does not read its answers gets to ask nothing more

    def resume_writing(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()
        super().resume_writing()

    def flush(self) -> None:
        super().flush()
        self._overfull = self.engine.queued_body_size() > self._options.max_queued_bytes

    async def shut_down(self, grace: float) -> None:
        """Take no new calls, wait up to `grace` seconds for the open ones, then end them with UNAVAILABLE."""
        if self.transport is None:
            return
        try:
            self.engine.send_shutdown_notice()
            self.engine.ping(_GOODBYE)  # its answer says that the peer has seen the notice
        except NGH2Error:
            self.transport.close()
        self.closing = True
        self._idle = self.loop.create_future()
        self.flush()
        self._check_idle()
        await asyncio.wait([self._idle], timeout=grace)
        for call in list(self._calls.values()):
            if call.open:
                self.finish(call, GrpcError(GrpcCode.UNAVAILABLE, "the server is shutting down"))
                call.run_cancel()
        if self.transport is not None:
            self._terminate(ErrorCode.NO_ERROR)
            self.transport.close()
        self._options.connections.discard(self)

    def _terminate(self, code: ErrorCode) -> None:
        self.flush()
        try:
            self.engine.terminate_connection(code)
        except NGH2Error:
            return
        self.flush()

    # Events

    def handle(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is RequestReceived:
                self._on_request(event)
            elif type(event) is DataReceived:
                self._on_data(event)
            elif type(event) is StreamClosed:
                call = self._calls.pop(event.stream_id, None)
                if call is not None:
                    self._drop(call)
            elif not self._on_rare(event):
                break
        if self._unarmed:
            self._arm()

    def _on_rare(self, event: Event) -> bool:
        """Act on an event off the hot path; False when the peer overdid it and the connection ends."""
        if isinstance(event, StreamReset):
            return self._tolerate(self._resets, "stream resets")
        if isinstance(event, PingReceived):
            # Clients that estimate their bandwidth send one with every answer they read; those are no flood.
            answered, self._answered = self._answered, False
            return answered or self._tolerate(self._pings, "pings")
        if isinstance(event, SettingsReceived):
            return self._tolerate(self._settings, "settings")
        if isinstance(event, TrailersReceived):
            call = self._calls.get(event.stream_id)
            if call is not None:
                self._on_end(call)
        elif isinstance(event, GoAwayReceived):
            self.closing = True
        elif isinstance(event, PingAcknowledged) and event.opaque_data == _GOODBYE and self.closing:
            self.engine.send_goaway(ErrorCode.NO_ERROR)
        return True

    def _tolerate(self, limit: RateLimit, what: str) -> bool:
        if limit.spend():
            return True
        _log.warning("grpc connection ended", peer=self.peer, reason=f"too many {what}")
        self.refuse(f"too many {what}")
        self.lost(f"too many {what}")
        return False

    def _on_request(self, event: RequestReceived) -> None:
        headers = event.headers
        fields = dict(headers)
        stream_id = event.stream_id
        method = self._options.methods.get(fields.get(b":path", b""), _UNKNOWN)
        encoding = fields.get(b"grpc-encoding")
        call = (ServerCall if method.stream is None else ServerStream)(self, stream_id, method, headers)
        self._calls[stream_id] = call
        call.request_done = event.end_stream
        if (
            method is _UNKNOWN
            or fields.get(b"content-type") not in _CONTENT_TYPES
            or fields[b":method"] != b"POST"
            or encoding not in _ENCODINGS
            or self._overfull
        ) and self._refuse_request(call, fields):
            return
        if encoding is not None or method.stream is not None:
            call.reader = MessageReader(self._options.max_message_bytes, gzip=_ENCODINGS[encoding])
        if isinstance(call, ServerStream):
            call.inbox = Inbox(self, stream_id, cast("MessageReader", call.reader))
        timeout = fields.get(b"grpc-timeout")
        if timeout is not None and not self._set_deadline(call, timeout):
            return
        if isinstance(call, ServerStream):
            self._start(call, method.stream(call))  # type: ignore[misc]
        if event.end_stream:
            self._on_end(call)

    def _refuse_request(self, call: ServerCall, fields: dict[bytes, bytes]) -> bool:
        """Answer a request that no handler gets; False when it is fine after all."""
        if fields[b":method"] != b"POST":
            self._answer(call, ((b":status", b"405"), (b"allow", b"POST")))
        elif not fields.get(b"content-type", b"").startswith(b"application/grpc"):
            self._answer(call, ((b":status", b"415"),))
        elif call.method is _UNKNOWN:
            path = fields.get(b":path", b"").decode("latin-1")
            self.finish(call, GrpcError(GrpcCode.UNIMPLEMENTED, f"unknown method {path}"))
        elif fields.get(b"grpc-encoding") not in _ENCODINGS:
            name = fields[b"grpc-encoding"].decode("latin-1")
            self.finish(call, GrpcError(GrpcCode.UNIMPLEMENTED, f"grpc-encoding {name} is not identity or gzip"))
        elif self._overfull:
            message = f"over {self._options.max_queued_bytes} bytes of answers wait for this connection to read them"
            self.finish(call, GrpcError(GrpcCode.RESOURCE_EXHAUSTED, message))
        else:
            return False
        return True

    def _set_deadline(self, call: ServerCall, value: bytes) -> bool:
        try:
            call.timeout = parse_timeout(value)
        except GrpcError as error:
            self.finish(call, error)
            return False
        call.deadline = self._options.clock() + call.timeout
        self._unarmed.append(call)
        return True

    def _arm(self) -> None:
        """Start the timers of the calls that this read did not answer."""
        calls, self._unarmed = self._unarmed, []
        for call in calls:
            if call.open and call.timeout is not None:
                call.timer = self.loop.call_later(call.timeout, self._expire, call)

    def _expire(self, call: ServerCall) -> None:
        if call.open:
            self.finish(call, GrpcError(GrpcCode.DEADLINE_EXCEEDED, f"{call.path}: the deadline has passed"))
            call.run_cancel()

    def _on_data(self, event: DataReceived) -> None:
        stream_id = event.stream_id
        data = event.data
        call = self._calls.get(stream_id)
        if call is None or not call.open:
            if data:
                self.acknowledge(len(data), stream_id)
            if call is not None and event.end_stream:
                call.request_done = True
            return
        try:
            if isinstance(call, ServerStream):
                call.inbox.receive(data)
            else:
                self._on_unary_data(call, data)
        except GrpcError as error:
            self.finish(call, error)
            call.run_cancel()
        if event.end_stream:
            self._on_end(call)

    def _on_unary_data(self, call: ServerCall, data: bytes) -> None:
        size = len(data)
        if size:
            self.engine.acknowledge_received_data(size, call.stream_id)
        limit = self._options.max_message_bytes
        reader = call.reader
        if reader is None:
            if (
                call.message is None
                and size >= 5
                and data[0] == 0
                and int.from_bytes(data[1:5], "big") == size - 5 <= limit
            ):
                call.message = data[5:]
                return
            reader = call.reader = MessageReader(limit)
        before = reader.pending
        messages = reader.feed(data)
        self._buffered += reader.pending - before
        if self._buffered > self._options.max_buffered_bytes:
            limit = self._options.max_buffered_bytes
            raise GrpcError(
                GrpcCode.RESOURCE_EXHAUSTED,
                f"half-received messages of this connection are over the {limit} bytes kept for them",
            )
        for message in messages:
            if call.message is not None:
                raise GrpcError(GrpcCode.INTERNAL, f"{call.path}: a unary call has one request message, not more")
            call.message = message

    def _on_end(self, call: ServerCall) -> None:
        """Act on the end of the request."""
        call.request_done = True
        if not call.open:
            return
        try:
            if call.reader is not None:
                call.reader.finish()
            if isinstance(call, ServerStream):
                call.inbox.end()
                return
        except GrpcError as error:
            self.finish(call, error)
            call.run_cancel()
            return
        if call.message is None:
            self.finish(call, GrpcError(GrpcCode.INTERNAL, f"{call.path}: the request ended without a message"))
            return
        self._dispatch(call, call.message)

    # Handlers

    def _dispatch(self, call: ServerCall, message: bytes) -> None:
        call.message = None
        try:
            result = call.method.unary(message, call)  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001  # whatever a handler raises is the caller's status
            self.finish_with(call, error)
            return
        if isinstance(result, bytes):
            self.respond(call, result)
        elif isinstance(result, asyncio.Future):
            result.add_done_callback(call.settle)
        else:
            self._start(call, result)

    def _start(self, call: ServerCall, work: Awaitable[Any]) -> None:
        # A coroutine goes in bare: a wrapper cancelled before its first step would leave it never awaited.
        task = call.task = self.loop.create_task(work if asyncio.iscoroutine(work) else _run(work))
        if isinstance(call, ServerStream):
            task.add_done_callback(call.finished)
        else:
            task.add_done_callback(call.settle)


async def _run(work: Awaitable[Any]) -> Any:
    return await work
