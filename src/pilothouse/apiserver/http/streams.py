"""What goes on after the headers: streamed answers, which join what one turn wrote, and upgraded connections."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from pilothouse.apiserver.model import Piece

__all__ = ["Flusher", "Gate", "HttpDuplex", "HttpSink", "Transport"]

_LAST_CHUNK: Final = b"0\r\n\r\n"
_JOINED_BYTES: Final = 16 << 10
_MAX_UNREAD: Final = 256 << 10


class Transport(Protocol):
    """What this package uses of a transport."""

    def write(self, data: bytes | memoryview, /) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def get_write_buffer_size(self) -> int: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def can_write_eof(self) -> bool: ...
    def write_eof(self) -> None: ...
    def get_extra_info(self, name: str, default: Any = None, /) -> Any: ...


class Gate:
    """Whether a peer takes more, and who waits until it does."""

    __slots__ = ("_waiters", "gone", "paused")

    def __init__(self) -> None:
        self.paused = False
        self.gone = False
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait until the peer takes more or has gone."""
        while self.paused and not self.gone:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if not waiter.done() or waiter.cancelled():
                    self._waiters = [found for found in self._waiters if found is not waiter]

    def open(self) -> None:
        """Let those that wait go on."""
        self.paused = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def leave(self) -> None:
        """Take note that the peer has gone."""
        self.gone = True
        self.open()


class Flusher:
    """Writes at the end of a turn of the loop what streams were given during it."""

    __slots__ = ("_dirty", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[HttpSink] = []

    def add(self, sink: HttpSink) -> None:
        """Have `sink.flush` called."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(sink)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for sink in dirty:
            sink.flush()


class HttpSink:
    """A `Sink` over a connection: in chunks, or as it is where the connection's end is that of the answer."""

    __slots__ = ("_flusher", "_gate", "_high", "_pending", "_pending_bytes", "_transport", "chunked", "closed")

    def __init__(self, transport: Transport, flusher: Flusher, gate: Gate, high: int, *, chunked: bool) -> None:
        self._transport = transport
        self._flusher = flusher
        self._gate = gate
        self._high = high
        self.chunked = chunked
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.closed = False

    @property
    def buffered(self) -> int:
        return 0 if self._gate.gone else self._pending_bytes + self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self.chunked:
            self.write_raw(data)
        elif len(data) <= _JOINED_BYTES:
            self.write_raw(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self.write_raw(b"%x\r\n" % len(data))
            self.write_raw(data)
            self.write_raw(b"\r\n")

    def write_piece(self, piece: Piece) -> None:
        if piece.data:
            self.write_raw(piece.chunk if self.chunked else piece.data)

    def write_raw(self, data: bytes) -> None:
        """Send bytes as they are: the head of the answer, or what is framed already."""
        if self.closed:
            return
        if not self._pending:
            self._flusher.add(self)
        self._pending.append(data)
        self._pending_bytes += len(data)

    def flush(self) -> None:
        """Hand what is pending to the socket."""
        pending = self._pending
        if not pending:
            return
        self._pending = []
        self._pending_bytes = 0
        if not self._gate.gone and not self._transport.is_closing():
            self._transport.write(pending[0] if len(pending) == 1 else b"".join(pending))

    async def drain(self) -> None:
        if self.buffered >= self._high:
            self.flush()
        if self._gate.paused:
            await self._gate.wait()

    def finish(self) -> None:
        """End the answer properly."""
        if self.chunked:
            self.write_raw(_LAST_CHUNK)
        self.flush()
        self.closed = True

    def drop(self) -> None:
        """Forget what is pending: the peer has gone."""
        self.closed = True
        self._pending = []
        self._pending_bytes = 0


class HttpDuplex:
    """A `Duplex` over an upgraded connection. The peer is not read from while much is unread."""

    __slots__ = ("_eof", "_out", "_reader", "_stopped", "_transport", "_unread", "_unread_bytes")

    def __init__(self, transport: Transport, out: HttpSink) -> None:
        self._transport = transport
        self._out = out
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._stopped = False
        self._eof = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer."""
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > _MAX_UNREAD and not self._stopped:
            self._stopped = True
            self._transport.pause_reading()
        self._wake()

    def feed_eof(self) -> None:
        """Take note that no more bytes will come."""
        self._eof = True
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def read(self) -> bytes:
        while not self._unread and not self._eof:
            if self._reader is not None:
                raise RuntimeError("read: another read waits already; one at a time")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        if self._stopped:
            self._stopped = False
            if not self._eof and not self._transport.is_closing():
                self._transport.resume_reading()
        return unread[0] if len(unread) == 1 else b"".join(unread)

    def write(self, data: bytes) -> None:
        self._out.write(data)

    async def drain(self) -> None:
        await self._out.drain()

    def close(self) -> None:
        self._out.finish()
        self._transport.close()

    def abort(self) -> None:
        self._out.drop()
        self._transport.abort()
