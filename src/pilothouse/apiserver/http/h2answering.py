"""How an HTTP/2 connection answers: each request by itself, whole or streamed."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable
from typing import Any, Final

from ngh2 import Connection, ErrorCode, NGH2Error

from pilothouse.apiserver.http.answering import Shared, failed
from pilothouse.apiserver.http.answers import BODILESS, batches, clean
from pilothouse.apiserver.model import Answer, Piece, Request, Response, StreamingResponse, refusal
from pilothouse.foundation.grpc.connection import Http2Protocol
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import BadRequest

__all__ = ["Http2Answering", "Stream"]

_log = get_logger(__name__)

_AT_ONCE_BYTES: Final = 256 << 10
"""An answer over it is written as the peer takes it."""
_KEEPALIVE_SECONDS, _KEEPALIVE_TIMEOUT = 60.0, 20.0
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"})


class Stream:
    """One request and its answer."""

    __slots__ = ("body", "deadline", "ended", "request", "sink", "size", "task")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body: list[bytes] = []
        self.size = 0
        self.ended = False
        """Whether the request is whole, or nothing more of it is wanted."""
        self.deadline = math.inf
        self.task: asyncio.Task[None] | None = None
        self.sink: _Sink | None = None


class _Sink:
    """A `Sink` over one stream."""

    __slots__ = ("_connection", "_id", "closed")

    def __init__(self, connection: Http2Answering, stream_id: int) -> None:
        self._connection = connection
        self._id = stream_id
        self.closed = False

    @property
    def buffered(self) -> int:
        return 0 if self.closed else self._connection.buffered(self._id)

    def write(self, data: bytes) -> None:
        if data and not self.closed and not self._connection.send(self._id, data):
            self.closed = True

    def write_piece(self, piece: Piece) -> None:
        self.write(piece.data)

    async def drain(self) -> None:
        if not self.closed:
            await self._connection.drain(self._id)


class Http2Answering(Http2Protocol):
    """The writing half of a connection; the other half says when requests are whole."""

    def __init__(self, shared: Shared, engine: Connection) -> None:
        super().__init__(engine, keepalive_seconds=_KEEPALIVE_SECONDS, keepalive_timeout=_KEEPALIVE_TIMEOUT)
        self._shared = shared
        self._streams: dict[int, Stream] = {}
        self._ending = False
        """Whether the server closes, or the connection was idle for too long."""

    def is_open(self, stream_id: int) -> bool:
        return stream_id in self._streams

    async def _await(self, stream_id: int, stream: Stream, coming: Awaitable[Answer]) -> None:
        request = stream.request
        try:
            answer = await coming
        except asyncio.CancelledError:
            if stream_id not in self._streams:
                raise
            answer = failed(request.method, request.path, RuntimeError("cancelled"))
        except Exception as error:  # noqa: BLE001  # as above
            answer = failed(request.method, request.path, error)
        stream.task = None
        if stream_id in self._streams:
            self._deliver(stream_id, stream, answer)

    def _deliver(self, stream_id: int, stream: Stream, answer: Answer) -> None:
        try:
            if isinstance(answer, Response):
                self._respond(stream_id, stream, answer)
            elif isinstance(answer, StreamingResponse):
                self._stream(stream_id, stream, answer)
            else:
                answer = refusal(BadRequest("HTTP/2 has no upgrades: ask in HTTP/1.1"))
                self._respond(stream_id, stream, answer)
        except NGH2Error:  # the peer has taken the request back
            self._reset(stream_id, ErrorCode.INTERNAL_ERROR)
        except Exception:  # noqa: BLE001  # a header that is no text, say
            _log.exception("answer cannot be sent", method=stream.request.method, path=stream.request.path)
            self._reset(stream_id, ErrorCode.INTERNAL_ERROR)
        self.schedule_flush()

    def _head(self, answer: Response | StreamingResponse) -> list[tuple[bytes, bytes]]:
        date = self._shared.dates.line(self._shared.monotonic())[6:-2]
        fields = [(b":status", b"%d" % answer.status)]
        if answer.content_type:
            fields.append((b"content-type", clean(answer.content_type).encode()))
        fields.append((b"date", date))
        for name, value in answer.headers:
            lower = name.lower()
            if lower not in _HOP_BY_HOP:
                fields.append((lower.encode(), clean(value).strip().encode("utf-8", "replace")))
        return fields

    def _respond(self, stream_id: int, stream: Stream, answer: Response) -> None:
        body = answer.body
        pieces = (body,) if isinstance(body, bytes) else body
        size = sum(map(len, pieces))
        fields = self._head(answer)
        bodiless = answer.status in BODILESS
        if not bodiless:
            fields.append((b"content-length", b"%d" % size))
        empty = bodiless or not size or stream.request.method == "HEAD"
        self.engine.send_response(stream_id, fields, end_stream=empty)
        if empty:
            return
        if size <= _AT_ONCE_BYTES:
            data = body if isinstance(body, bytes) else b"".join(body)
            self.engine.send_data(stream_id, data, end_stream=True)
        else:
            stream.task = self.loop.create_task(self._pump(stream_id, pieces))

    async def _pump(self, stream_id: int, pieces: Any) -> None:
        """Write a big answer as the peer takes it."""
        for batch in batches(pieces):
            if not self.send(stream_id, batch):
                return
            await self.drain(stream_id)
        self._end(stream_id)

    def _stream(self, stream_id: int, stream: Stream, answer: StreamingResponse) -> None:
        silent = stream.request.method == "HEAD" or answer.status in BODILESS
        self.engine.send_response(stream_id, self._head(answer), end_stream=silent)
        if silent:
            return
        stream.sink = sink = _Sink(self, stream_id)
        stream.task = self.loop.create_task(self._run(stream_id, stream, answer, sink))
        if self._ending:
            self.loop.call_soon(stream.task.cancel)

    async def _run(self, stream_id: int, stream: Stream, answer: StreamingResponse, sink: _Sink) -> None:
        try:
            await answer.run(sink)
        except asyncio.CancelledError:
            if stream_id not in self._streams:
                raise
            if not self._ending:
                self._reset(stream_id, ErrorCode.INTERNAL_ERROR)
                return
        except Exception:  # noqa: BLE001  # whatever it is, the peer gets to know
            _log.exception("stream failed", method=stream.request.method, path=stream.request.path)
            self._reset(stream_id, ErrorCode.INTERNAL_ERROR)
            return
        finally:
            sink.closed = True
            stream.task = None
        self._end(stream_id)

    def send(self, stream_id: int, data: bytes | memoryview) -> bool:
        """Queue bytes of an answer; return whether there is anybody to take them."""
        if self.transport is None or stream_id not in self._streams:
            return False
        try:
            self.engine.send_data(stream_id, data)
        except NGH2Error:
            return False
        self.schedule_flush()
        return True

    def buffered(self, stream_id: int) -> int:
        """Return bytes of a stream that are not taken, and those of the connection that the socket has not."""
        if self.transport is None or stream_id not in self._streams:
            return 0
        return self.engine.queued_body_size(stream_id) + self.transport.get_write_buffer_size()

    def _end(self, stream_id: int) -> None:
        if self.transport is not None and stream_id in self._streams:
            with contextlib.suppress(NGH2Error):
                self.engine.end_stream(stream_id)
            self.schedule_flush()

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        with contextlib.suppress(NGH2Error):
            self.engine.reset_stream(stream_id, code)
        self.schedule_flush()
