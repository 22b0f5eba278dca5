"""How a connection answers: whole, streamed or upgraded; at once or when the handler is done."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from pilothouse.apiserver.http.answers import BODILESS, Dates, batches, encode_headers, head_start
from pilothouse.apiserver.http.heads import Head, HeadReader
from pilothouse.apiserver.http.limits import HttpLimits
from pilothouse.apiserver.http.streams import Flusher, Gate, HttpDuplex, HttpSink, Transport
from pilothouse.apiserver.model import (
    Answer,
    Handler,
    Peer,
    Request,
    Response,
    StreamingResponse,
    UpgradeResponse,
    refusal,
)
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, BadRequest, internal_error

__all__ = ["Answering", "Phase", "Shared", "failed"]

_log = get_logger(__name__)

_CLOSE: Final = b"Connection: close\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_JOINED_BYTES: Final = 64 << 10


class Phase:
    """What a connection does."""

    HEAD: Final = 0
    BODY: Final = 1
    BUSY: Final = 2
    UPGRADED: Final = 3
    REFUSED: Final = 4
    """What the peer still sends is thrown away."""
    CLOSING: Final = 5
    GONE: Final = 6


class Shared:
    """What all connections of a server have in common."""

    def __init__(self, handler: Handler, limits: HttpLimits, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.handler = handler
        self.limits = limits
        self.loop = loop
        self.monotonic: Callable[[], float] = clock.monotonic
        self.heads = HeadReader(limits.max_target_bytes)
        self.dates = Dates(clock.now)
        self.flusher = Flusher(loop)
        self.connections: set[Any] = set()
        self.closing = False
        self._empty: asyncio.Future[None] | None = None

    def leave(self, connection: Any) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        if not self.connections and self._empty is not None:
            self._emptied()

    def _emptied(self) -> None:
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def wait_empty(self, clock: Clock, seconds: float) -> None:
        """Wait until no connection is left, at most `seconds`."""
        if not self.connections:
            return
        self._empty = self.loop.create_future()
        timer = clock.call_later(seconds, self._emptied)
        try:
            await self._empty
        finally:
            timer.cancel()
            self._empty = None


class Answering:
    """The writing half of a connection; the other half says when requests are whole and goes on after an answer."""

    _transport: Transport

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._gate = Gate()
        self._phase: int = Phase.HEAD
        self._peer: Peer | None = None
        self._buffer = b""
        self._rest: Iterator[bytes | memoryview] | None = None
        """What of a big answer is still to be written."""
        self._persistent = True
        """Whether the present request's answer leaves the connection open."""
        self._task: asyncio.Task[None] | None = None
        self._sink: HttpSink | None = None
        self._duplex: HttpDuplex | None = None
        self._ending = False
        """Whether the server closes, and this answer is the last."""
        self.deadline = math.inf

    def _advance(self) -> None:
        """Go on with what the peer sent in the meantime."""
        raise NotImplementedError

    def _handle(self, head: Head, body: bytes) -> None:
        """Answer one request, or have a task do so."""
        fields = head.fields
        request = Request(
            head.method,
            head.target,
            head.path,
            head.query_text,
            fields.headers.copy(),  # who answers may change them, and ours are kept
            body,
            self._peer,
            fields.header_list,
        )
        self._phase = Phase.BUSY
        self.deadline = math.inf
        try:
            answer = self._shared.handler(request)
        except Exception as error:  # noqa: BLE001  # whatever it is, the peer gets an answer
            answer = failed(head.method, head.path, error)
        if isinstance(answer, Response | StreamingResponse | UpgradeResponse):
            self._deliver(head, answer)
        else:
            self._task = self._shared.loop.create_task(self._await(head, answer))

    async def _await(self, head: Head, coming: Awaitable[Answer]) -> None:
        """Wait for the handler's answer and give it. Cancelled where the peer goes."""
        try:
            answer = await coming
        except asyncio.CancelledError:
            if self._phase == Phase.GONE:
                raise
            answer = failed(head.method, head.path, RuntimeError("cancelled"))
        except Exception as error:  # noqa: BLE001  # as above
            answer = failed(head.method, head.path, error)
        self._task = None
        if self._phase == Phase.GONE or self._transport.is_closing():
            return
        self._deliver(head, answer)
        self._advance()

    def _deliver(self, head: Head, answer: Answer) -> None:
        try:
            if isinstance(answer, Response):
                self._respond(head, answer)
            elif isinstance(answer, StreamingResponse):
                self._stream(head, answer)
            elif head.minor:
                self._upgrade(head, answer)
            else:
                self._respond(head, refusal(BadRequest("a connection of HTTP/1.0 cannot be upgraded")))
        except Exception:  # noqa: BLE001  # a header that is no text, say: nobody would ever end this request
            _log.exception("answer cannot be sent", method=head.method, path=head.path)
            self._transport.abort()

    def _respond(self, head: Head, answer: Response) -> None:
        """Write a whole answer; a big one as fast as the peer takes it."""
        body = answer.body
        now = self._shared.monotonic()
        pieces = (body,) if isinstance(body, bytes) else body
        size = sum(map(len, pieces))
        start = self._start(head, answer, size, now)
        if head.method == "HEAD" or answer.status in BODILESS:
            self._transport.write(b"".join(start))
        elif size <= _JOINED_BYTES:
            self._transport.write(b"".join((*start, *pieces)))
        else:
            self._rest = batches((*start, *pieces))
            self._pump(self._rest)
            return
        self._answered(now)

    def _start(self, head: Head, answer: Response, size: int, now: float) -> tuple[bytes, ...]:
        """Return the head of a whole answer, in parts."""
        headers, connection = answer.headers, self._connection_header(head)
        return (
            head_start(answer.status, answer.content_type),
            self._shared.dates.line(now),
            encode_headers(headers) if headers else b"",
            b"%b\r\n" % connection
            if answer.status in BODILESS
            else b"Content-Length: %d\r\n%b\r\n" % (size, connection),
        )

    def _connection_header(self, head: Head) -> bytes:
        """Decide whether the connection stays, and return what says so."""
        self._persistent = persistent = head.persistent and not self._ending
        if not persistent:
            return _CLOSE
        return b"" if head.minor else _KEEP

    def _pump(self, rest: Iterator[bytes | memoryview]) -> None:
        """Write what the peer takes of a big answer."""
        now = self._shared.monotonic()
        self.deadline = now + self._shared.limits.idle_seconds
        while not self._gate.paused:
            piece = next(rest, None)
            if piece is None:
                self._rest = None
                self._answered(now)
                return
            self._transport.write(piece)

    def _answered(self, now: float) -> None:
        """Be ready for the next request, or close."""
        self._sink = None
        if self._phase == Phase.GONE:
            return
        self.deadline = now + self._shared.limits.idle_seconds
        if self._persistent and not self._ending:
            self._phase = Phase.HEAD
        else:
            self._phase = Phase.CLOSING
            self._transport.close()

    def _stream(self, head: Head, answer: StreamingResponse) -> None:
        """Send the head of a stream and have a task write the rest."""
        shared, chunked = self._shared, head.minor == 1
        silent = head.method == "HEAD" or answer.status in BODILESS
        if not chunked and not silent:
            head = head._replace(persistent=False)
        start = b"%b%b%b%b%b\r\n" % (
            head_start(answer.status, answer.content_type),
            shared.dates.line(shared.monotonic()),
            encode_headers(answer.headers) if answer.headers else b"",
            _CHUNKED if chunked else b"",
            self._connection_header(head),
        )
        if silent:
            self._transport.write(start)
            self._answered(shared.monotonic())
            return
        high = shared.limits.write_high_bytes
        self._sink = sink = HttpSink(self._transport, shared.flusher, self._gate, high, chunked=chunked)
        sink.write_raw(start)
        self._task = shared.loop.create_task(self._run_stream(head, answer, sink))
        if self._ending:
            self._cancel()

    def _cancel(self) -> None:
        """Cancel the present task, once it has begun: one that has not would leave undone what it does at its end."""
        if self._task is not None:
            self._shared.loop.call_soon(self._task.cancel)

    async def _run_stream(self, head: Head, answer: StreamingResponse, sink: HttpSink) -> None:
        try:
            await answer.run(sink)
        except asyncio.CancelledError:
            if self._phase == Phase.GONE:
                raise
            if not self._ending:
                self._cut(sink)
                return
            self._persistent = False
        except Exception:  # noqa: BLE001  # whatever it is, the peer gets to know
            _log.exception("stream failed", method=head.method, path=head.path)
            self._cut(sink)
            return
        if self._phase == Phase.GONE:
            return
        sink.finish()
        self._task = None
        self._answered(self._shared.monotonic())
        self._advance()

    def _cut(self, sink: HttpSink) -> None:
        """End a stream so that the peer sees that something is missing."""
        sink.flush()
        sink.drop()
        self._phase = Phase.CLOSING
        self.deadline = self._shared.monotonic() + self._shared.limits.linger_seconds
        if sink.chunked:
            self._transport.close()
        else:
            _reset(self._transport)

    def _upgrade(self, head: Head, answer: UpgradeResponse) -> None:
        """Switch protocols and hand the connection over."""
        shared = self._shared
        start = head_start(101, "") + shared.dates.line(shared.monotonic())
        start += (encode_headers(answer.headers) if answer.headers else b"") + b"\r\n"
        out = HttpSink(self._transport, shared.flusher, self._gate, shared.limits.write_high_bytes, chunked=False)
        out.write_raw(start)
        self._phase = Phase.UPGRADED
        self._sink = out
        self._duplex = duplex = HttpDuplex(self._transport, out)
        received, self._buffer = self._buffer, b""
        self._resume_reading()
        if received:
            duplex.feed(received)
        self._task = shared.loop.create_task(self._run_upgrade(head, answer, duplex))

    def _resume_reading(self) -> None:
        """Read again from a peer that had sent too much."""
        raise NotImplementedError

    async def _run_upgrade(self, head: Head, answer: UpgradeResponse, duplex: HttpDuplex) -> None:
        try:
            await answer.run(duplex)
        except Exception:  # noqa: BLE001  # as above
            _log.exception("upgraded connection failed", method=head.method, path=head.path)
            duplex.abort()
            return
        finally:
            if self._phase != Phase.GONE:
                self._phase = Phase.CLOSING
                self.deadline = self._shared.monotonic() + self._shared.limits.idle_seconds
        duplex.close()


def _reset(transport: Transport) -> None:
    """Abort a connection so that its peer takes it for no proper end."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def failed(method: str, path: str, error: Exception) -> Response:
    """Return the answer to a request that the handler failed at; its query may hold secrets and is not logged."""
    if isinstance(error, ApiStatus):
        return refusal(error)
    _log.error("request failed", method=method, path=path, exc_info=error)
    return refusal(internal_error("the request failed; the server's log says why"))
