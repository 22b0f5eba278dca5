"""The caller's side of a call: one future for a unary call, one object for a stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ngh2 import ErrorCode

from pilothouse.foundation.grpc.connection import Inbox
from pilothouse.foundation.grpc.status import (
    GrpcCode,
    GrpcError,
    Metadata,
    RefusedError,
    code_of_http_status,
    code_of_reset,
)
from pilothouse.foundation.grpc.wire import MessageReader, decode_metadata, decode_status, frame_message

if TYPE_CHECKING:
    from pilothouse.foundation.grpc.client_connection import ClientConnection

__all__ = ["ClientStream", "UnaryCall"]

Headers = tuple[tuple[bytes, bytes], ...]


def check_response(fields: dict[bytes, bytes]) -> GrpcError | None:
    """Return what is wrong with a response's headers, None when it is a gRPC response."""
    status = fields.get(b":status", b"")
    if status != b"200":
        number = int(status) if status.isdigit() else 0
        return GrpcError(code_of_http_status(number), f"the server answered with HTTP status {number}")
    content_type = fields.get(b"content-type", b"")
    if not content_type.startswith(b"application/grpc"):
        return GrpcError(GrpcCode.UNKNOWN, f"the server answered with content-type {content_type[:80]!r}")
    if fields.get(b"grpc-encoding", b"identity") not in {b"identity", b"gzip"}:
        return GrpcError(GrpcCode.INTERNAL, f"the server answered in grpc-encoding {fields[b'grpc-encoding'][:80]!r}")
    return None


def ended_early(path: str, error_code: int) -> GrpcError:
    """Return the error of a stream that closed without a status."""
    if error_code == ErrorCode.REFUSED_STREAM:
        return RefusedError(GrpcCode.UNAVAILABLE, f"{path}: the server refused the stream")
    if error_code == ErrorCode.NO_ERROR:
        return GrpcError(GrpcCode.INTERNAL, f"{path}: the server ended the stream without a status")
    return GrpcError(code_of_reset(error_code), f"{path}: the server reset the stream, HTTP/2 error {error_code}")


class UnaryCall(asyncio.Future[bytes]):
    """The answer to come. Cancelling it tells the server."""

    def __init__(self, connection: ClientConnection, path: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.connection = connection
        self.path = path
        self.stream_id = 0
        self.timer: asyncio.TimerHandle | None = None
        self._answer: bytes | None = None
        self._reader: MessageReader | None = None
        self._status: GrpcError | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Give the call up."""
        if not super().cancel(msg):
            return False
        self.connection.abandon(self.stream_id)
        return True

    def expire(self) -> None:
        if not self.done():
            self.set_exception(GrpcError(GrpcCode.DEADLINE_EXCEEDED, f"{self.path}: no answer within the timeout"))
            self.connection.abandon(self.stream_id)

    def on_headers(self, headers: Headers) -> None:
        fields = dict(headers)
        status = decode_status(headers) if b"grpc-status" in fields else None
        wrong = check_response(fields)
        self._status = status if wrong is None or status is not None else wrong
        if b"grpc-encoding" in fields:
            gzip = fields[b"grpc-encoding"] == b"gzip"
            self._reader = MessageReader(self.connection.max_message_bytes, gzip=gzip)

    def on_data(self, data: bytes) -> None:
        size = len(data)
        if size == 0:
            return
        self.connection.acknowledge(size, self.stream_id)
        limit = self.connection.max_message_bytes
        reader = self._reader
        if reader is None:
            whole = size >= 5 and data[0] == 0 and int.from_bytes(data[1:5], "big") == size - 5 <= limit
            if whole and self._answer is None:
                self._answer = data[5:]
                return
            reader = self._reader = MessageReader(limit)
        try:
            messages = reader.feed(data)
        except GrpcError as error:
            self.fail(error)
            return
        if messages:
            if len(messages) > 1 or self._answer is not None:
                self.fail(GrpcError(GrpcCode.INTERNAL, f"{self.path}: more than one message answers a unary call"))
                return
            self._answer = messages[0]

    def on_trailers(self, headers: Headers) -> None:
        if self._status is None:
            self._status = _OK if (b"grpc-status", b"0") in headers else decode_status(headers)

    def on_ended(self) -> None:
        """Take the end of the answer; `on_closed` follows, since the request has ended too."""

    def on_closed(self, error_code: int) -> None:
        """Answer with what arrived."""
        if self.timer is not None:
            self.timer.cancel()
        if self.done():
            return
        status = self._status
        if status is None:
            self.set_exception(ended_early(self.path, error_code))
        elif status.code is not GrpcCode.OK:
            self.set_exception(status)
        elif self._answer is None:
            self.set_exception(GrpcError(GrpcCode.INTERNAL, f"{self.path}: status OK without a message"))
        else:
            self.set_result(self._answer)

    def fail(self, error: GrpcError) -> None:
        """End the call for a reason of this side."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.done():
            self.set_exception(error)
            self.connection.abandon(self.stream_id)


_OK = GrpcError(GrpcCode.OK)


class ClientStream:
    """A call with any number of messages either way.

    Iterate over it for the answers; iteration ends with the call, by `GrpcError` unless its status is OK.
    `initial_metadata` and `trailing_metadata` are None until they arrive.
    """

    def __init__(self, connection: ClientConnection, path: str) -> None:
        self.path = path
        self.stream_id = 0
        self.timer: asyncio.TimerHandle | None = None
        self.initial_metadata: Metadata | None = None
        self.trailing_metadata: Metadata | None = None
        self._connection = connection
        self._inbox: Inbox
        self._status: GrpcError | None = None
        self._half_closed = False
        self._closed = False

    def opened(self, stream_id: int) -> None:
        """Take the stream that the connection has given the call."""
        self.stream_id = stream_id
        self._inbox = Inbox(self._connection, stream_id, MessageReader(self._connection.max_message_bytes))

    def send(self, message: bytes) -> None:
        """Queue a message; `GrpcError` when the call is over, RESOURCE_EXHAUSTED when far too much is queued."""
        self._require_sending()
        self._connection.send_message(self, frame_message(message))

    def half_close(self) -> None:
        """Say that no more messages follow."""
        if not self._half_closed:
            self._half_closed = True
            if not self._closed:
                self._connection.half_close(self.stream_id)

    async def drain(self) -> None:
        """Wait while over 1 MiB is queued for this stream or the connection takes no more; as `send` once over."""
        await self._connection.drain(self.stream_id)
        if self._closed and not self._half_closed:
            self._require_sending()

    @property
    def queued_bytes(self) -> int:
        """Bytes sent and not yet given to the transport."""
        return 0 if self._closed else self._connection.engine.queued_body_size(self.stream_id)

    def cancel(self) -> None:
        """Give the call up; iteration raises CANCELLED."""
        self.fail(GrpcError(GrpcCode.CANCELLED, f"{self.path}: cancelled by the caller"))

    def __aiter__(self) -> ClientStream:
        return self

    async def __anext__(self) -> bytes:
        return await self._inbox.get()

    def _require_sending(self) -> None:
        if self._closed:
            if self._status is not None and self._status.code is not GrpcCode.OK:
                raise self._status
            raise GrpcError(GrpcCode.CANCELLED, f"{self.path}: the call is over")
        if self._half_closed:
            raise RuntimeError(f"{self.path}: send after half_close")

    def expire(self) -> None:
        self.fail(GrpcError(GrpcCode.DEADLINE_EXCEEDED, f"{self.path}: the deadline has passed"))

    def on_headers(self, headers: Headers) -> None:
        fields = dict(headers)
        self.initial_metadata = decode_metadata(headers)
        if b"grpc-status" in fields:
            self.on_trailers(headers)
            return
        wrong = check_response(fields)
        if wrong is not None:
            self.fail(wrong)
        elif fields.get(b"grpc-encoding") == b"gzip":
            self._inbox.reader = MessageReader(self._connection.max_message_bytes, gzip=True)

    def on_data(self, data: bytes) -> None:
        if self._closed:
            if data:
                self._connection.acknowledge(len(data), self.stream_id)
            return
        try:
            self._inbox.receive(data)
        except GrpcError as error:
            self.fail(error)

    def on_trailers(self, headers: Headers) -> None:
        if self._closed:
            return
        status = decode_status(headers)
        if status is None:
            status = ended_early(self.path, ErrorCode.NO_ERROR)
        self.trailing_metadata = status.trailers
        if status.code is GrpcCode.OK:
            try:
                self._inbox.reader.finish()
            except GrpcError as error:
                status = error
        self._end(status)
        if not self._half_closed:
            self._connection.abandon(self.stream_id)

    def on_ended(self) -> None:
        """Take the end of the answer, which may come while this side still sends."""
        self.fail(ended_early(self.path, ErrorCode.NO_ERROR))

    def on_closed(self, error_code: int) -> None:
        if not self._closed:
            self._end(ended_early(self.path, error_code))

    def fail(self, error: GrpcError) -> None:
        """End the call for a reason of this side."""
        if not self._closed:
            self._end(error)
            self._connection.abandon(self.stream_id)

    def _end(self, status: GrpcError) -> None:
        self._closed = True
        self._status = status
        if self.timer is not None:
            self.timer.cancel()
        self._inbox.end(None if status.code is GrpcCode.OK else status)
