"""One HTTP/2 connection on one transport: what server and client sides share.

All bytes that a turn of the loop produces leave in one write. Nothing is taken out of the engine while the
transport is over its high-water mark, so what a slow reader leaves waiting is counted in `queued_body_size`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from ngh2 import Connection, DenialOfServiceError, ErrorCode, Event, NGH2Error

from pilothouse.foundation.grpc.status import GrpcError
from pilothouse.foundation.grpc.wire import MessageReader, goaway_frame

__all__ = ["CONNECTION_WINDOW", "HIGH_WATER", "STREAM_WINDOW", "Http2Protocol", "Inbox", "RateLimit"]

STREAM_WINDOW = 1 << 20
CONNECTION_WINDOW = 16 << 20
HIGH_WATER = 1 << 20
_CHUNK = 1 << 20
_KEEPALIVE = b"pilothse"


class RateLimit:
    """A token bucket that says when a peer does something too often."""

    __slots__ = ("_burst", "_clock", "_last", "_rate", "_tokens")

    def __init__(self, burst: int, rate: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._rate = rate
        self._clock = clock
        self._tokens = float(burst)
        self._last = clock()

    def spend(self) -> bool:
        """Take one token; False when there is none."""
        if self._tokens < 1:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._last) * self._rate)
            self._last = now
            if self._tokens < 1:
                return False
        self._tokens -= 1
        return True


class Http2Protocol(asyncio.Protocol):
    """Feed an HTTP/2 engine from a transport and write out what it produces."""

    def __init__(self, engine: Connection, *, keepalive_seconds: float, keepalive_timeout: float) -> None:
        self.engine = engine
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.paused = False
        self.closing = False
        self._in_read = False
        self._flush_scheduled = False
        self._heard = True
        self._keepalive_seconds = keepalive_seconds
        self._keepalive_timeout = keepalive_timeout
        self._keepalive: asyncio.TimerHandle | None = None
        self._drainers: dict[asyncio.Future[None], int] = {}
        self._finished_early: list[int] = []

    # What the two sides do differently.

    def handle(self, events: list[Event]) -> None:
        """Act on what the engine understood."""
        raise NotImplementedError

    def lost(self, reason: str) -> None:
        """End every call, since nothing can be sent or received any more."""
        raise NotImplementedError

    def wants_keepalive(self) -> bool:
        """Whether a silent peer should be asked for a sign of life."""
        return True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=256 * 1024)
        self._keepalive = self.loop.call_later(self._keepalive_seconds, self._check_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.closing = True
        if self._keepalive is not None:
            self._keepalive.cancel()
        self.lost(f"connection lost: {exc}" if exc else "connection closed by the peer")
        self._wake_drainers()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._in_read = True
        failure: NGH2Error | None = None
        try:
            self.engine.receive_data(data)
        except NGH2Error as error:
            failure = error
        try:
            self.handle(self.engine.events())
        except NGH2Error as error:
            failure = error
        finally:
            self._in_read = False
        if failure is None:
            self.flush()
        else:
            self.fail(failure)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.flush()

    # Sending

    def schedule_flush(self) -> None:
        """Write what is queued in this turn of the loop, together with what else is queued in it."""
        if not self._flush_scheduled and not self._in_read:
            self._flush_scheduled = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what flow control and the transport allow."""
        self._flush_scheduled = False
        transport = self.transport
        if transport is None:
            return
        try:
            self._write(transport)
            if self._finished_early:
                self._reset_finished(transport)
            events = self.engine.events()  # streams that closed by what was written
            if events:
                self.handle(events)
            if self._drainers:
                self._wake_drainers()
            if self.closing and not self.paused and not self.engine.want_read and not self.engine.want_write:
                transport.close()
        except NGH2Error:
            transport.close()

    def _write(self, transport: asyncio.Transport) -> None:
        take = self.engine.data_to_send
        while not self.paused:
            data = take(_CHUNK)
            if not data:
                return
            transport.write(data)

    def reset_when_sent(self, stream_id: int) -> None:
        """Reset a stream without error once its answer is written, since its sender is still sending."""
        self._finished_early.append(stream_id)

    def _reset_finished(self, transport: asyncio.Transport) -> None:
        waiting = []
        for stream_id in self._finished_early:
            if self.paused or self.engine.queued_body_size(stream_id):
                waiting.append(stream_id)
            else:
                self.engine.reset_stream(stream_id, ErrorCode.NO_ERROR)
        self._finished_early = [stream_id for stream_id in waiting if self.is_open(stream_id)]
        self._write(transport)

    def is_open(self, stream_id: int) -> bool:
        """Whether the engine still keeps the stream."""
        raise NotImplementedError

    async def drain(self, stream_id: int) -> None:
        """Wait until the stream has less than the high-water mark queued and the transport takes more."""
        while self.transport is not None and self.is_open(stream_id) and self._is_full(stream_id):
            waiter = self.loop.create_future()
            self._drainers[waiter] = stream_id
            try:
                await waiter
            finally:
                self._drainers.pop(waiter, None)

    def _is_full(self, stream_id: int) -> bool:
        return self.paused or self.engine.queued_body_size(stream_id) > HIGH_WATER

    def _wake_drainers(self) -> None:
        gone = self.transport is None
        for waiter, stream_id in list(self._drainers.items()):
            if (gone or not self.is_open(stream_id) or not self._is_full(stream_id)) and not waiter.done():
                waiter.set_result(None)

    # Receiving

    def acknowledge(self, amount: int, stream_id: int) -> None:
        """Let the peer send as much again."""
        try:
            self.engine.acknowledge_received_data(amount, stream_id)
        except NGH2Error:
            return  # the connection is ending, nobody waits for the window
        self.schedule_flush()

    # Ending

    def fail(self, error: NGH2Error) -> None:
        """Close a connection on which the peer broke the protocol or a limit."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        try:
            self._write(transport)  # the engine's own farewell
        except NGH2Error:
            flood = isinstance(error, DenialOfServiceError)
            code = ErrorCode.ENHANCE_YOUR_CALM if flood else ErrorCode.PROTOCOL_ERROR
            transport.write(goaway_frame(code, str(error).encode()))
        self.closing = True
        transport.close()

    def refuse(self, reason: str) -> None:
        """End the connection with ENHANCE_YOUR_CALM."""
        self.closing = True
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(goaway_frame(ErrorCode.ENHANCE_YOUR_CALM, reason.encode()))
            transport.close()

    def _check_alive(self) -> None:
        wait = self._keepalive_seconds
        if not self._heard and self.wants_keepalive():
            wait = self._keepalive_timeout
            try:
                self.engine.ping(_KEEPALIVE)
            except NGH2Error:
                return
            self.flush()
            self._keepalive = self.loop.call_later(wait, self._check_answered)
            return
        self._heard = False
        self._keepalive = self.loop.call_later(wait, self._check_alive)

    def _check_answered(self) -> None:
        if self._heard:
            self._check_alive()
        elif self.transport is not None:
            self.lost(f"no answer to a keepalive ping in {self._keepalive_timeout} s")
            self.transport.abort()


class Inbox:
    """The receiving half of a stream: messages not yet read, and the window held back for them.

    The peer's window is given back only when the reader has taken every message, so what one stream and one
    connection keep in memory is bounded by their windows and one message.
    """

    __slots__ = ("_connection", "_ended", "_error", "_held", "_messages", "_stream_id", "_waiter", "reader")

    def __init__(self, connection: Http2Protocol, stream_id: int, reader: MessageReader) -> None:
        self.reader = reader
        self._connection = connection
        self._stream_id = stream_id
        self._messages: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: GrpcError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        return self._ended or self._error is not None

    def receive(self, data: bytes) -> None:
        """Take a piece of the stream; `GrpcError` when it is malformed."""
        self._held += len(data)
        messages = self.reader.feed(data)
        if messages:
            self._messages.extend(messages)
            self._wake()
        elif not self._messages:
            self.release()

    def end(self, error: GrpcError | None = None) -> None:
        """Let the reader take what is there and then stop, with an error if one is given."""
        if not self.is_over:
            self._ended = error is None
            self._error = error
            self._wake()

    def discard(self) -> None:
        """Drop what nobody will read."""
        self._messages.clear()
        self.release()

    def release(self) -> None:
        """Give the held window back."""
        if self._held:
            held, self._held = self._held, 0
            self._connection.acknowledge(held, self._stream_id)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def get(self) -> bytes:
        """Return the next message; `StopAsyncIteration` at the end."""
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError(f"stream {self._stream_id} is already being read by another task")
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        if not self._messages:
            self.release()
        return message
