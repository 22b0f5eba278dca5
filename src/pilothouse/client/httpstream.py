"""A body that is read as it comes: bounded by pausing the connection, and ended at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from .errors import TransportError

__all__ = ["Carrier", "HttpStream", "Inbox", "UpgradedConnection"]

HIGH: Final = 1 << 20
"""Bytes that are kept unread before the server is made to wait."""


class Carrier(Protocol):
    """The connection under a stream."""

    def pause_reading(self) -> None:
        """Take no more bytes for now."""

    def resume_reading(self) -> None:
        """Take bytes again."""

    def abort(self) -> None:
        """Close at once."""


class Inbox:
    """Bytes between a connection that feeds them and one reader."""

    __slots__ = ("_carrier", "_chunks", "_ended", "_error", "_paused", "_reader", "_size")

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._chunks: list[bytes] = []
        self._size = 0
        self._reader: asyncio.Future[None] | None = None
        self._paused = False
        self._ended = False
        self._error: TransportError | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes in."""
        return self._ended

    @property
    def paused(self) -> bool:
        """Whether the reader is slow and the connection waits for it."""
        return self._paused

    def feed(self, data: bytes) -> None:
        """Add bytes."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= HIGH and not self._paused:
            self._paused = True
            self._carrier.pause_reading()
        self._wake()

    def end(self, error: TransportError | None = None) -> None:
        """Say that nothing follows; the reader gets the error after what is there already."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def drop(self) -> None:
        """Forget what was not read."""
        self._chunks.clear()
        self._size = 0
        self.end()
        self._error = None

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def read(self) -> bytes:
        """Wait for bytes and return all that are there, empty at the end. Raises the error of `end`."""
        while not self._chunks:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return b""
            if self._reader is not None:
                raise RuntimeError("read: another read waits already; one at a time")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        chunks, self._chunks = self._chunks, []
        self._size = 0
        if self._paused:
            self._paused = False
            if not self._ended:
                self._carrier.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class HttpStream:
    """The reader's end of a body. Whoever drops it without reading to its end ends the connection too."""

    __slots__ = ("_carrier", "_closed", "_inbox", "_on_close", "_unpack")

    def __init__(self, inbox: Inbox, carrier: Carrier, unpack: Callable[[bytes], bytes] | None = None) -> None:
        self._inbox = inbox
        self._carrier = carrier
        self._unpack = unpack
        self._closed = False
        self._on_close: list[Callable[[], object]] = []

    def on_close(self, call: Callable[[], object]) -> None:
        """Call this once when the stream is over."""
        self._on_close.append(call)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            while data := await self._inbox.read():
                if self._unpack is None:
                    return data
                if data := self._unpack(data):
                    return data
        except TransportError:
            self._end()
            raise
        self._end()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._inbox.ended:
            self._carrier.abort()
        self._inbox.drop()
        for call in self._on_close:
            call()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._end()


class UpgradedConnection:
    """A connection after an upgrade, as a `Duplex`."""

    __slots__ = ("_connection", "_inbox")

    def __init__(self, inbox: Inbox, connection: Upgradable) -> None:
        self._inbox = inbox
        self._connection = connection

    def on_lost(self, call: Callable[[], object]) -> None:
        """Call this once when the connection is gone, which it may be already."""
        self._connection.when_lost(call)

    async def read(self) -> bytes:
        return await self._inbox.read()

    def write(self, data: bytes) -> None:
        self._connection.send(data)

    async def drain(self) -> None:
        await self._connection.drained()

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()
        self._inbox.drop()


class Upgradable(Carrier, Protocol):
    """A connection that bytes are written to."""

    def send(self, data: bytes) -> None:
        """Write bytes."""

    def when_lost(self, call: Callable[[], object]) -> None:
        """Call this once when the connection is gone."""

    async def drained(self) -> None:
        """Wait until the peer has taken enough."""

    def close(self) -> None:
        """Send what is buffered and close."""
