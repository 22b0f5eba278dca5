"""Bytes from one task to another: bounded by asking the writer to wait, as a socket would."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pilothouse.apiserver.http.streams import Gate

__all__ = ["MemoryDuplex", "Pipe"]


class Pipe:
    """One direction. Writers wait in `drain` while `high` bytes and more are unread."""

    __slots__ = ("_end", "_error", "_gate", "_high", "_pieces", "_reader", "size")

    def __init__(self, high: int) -> None:
        self._high = high
        self._pieces: deque[bytes] = deque()
        self._gate = Gate()
        self._reader: asyncio.Future[None] | None = None
        self._end = False
        self._error: Exception | None = None
        self.size = 0
        """Bytes not read yet."""

    def feed(self, data: bytes) -> None:
        """Add a piece."""
        if not data or self._end:
            return
        self._pieces.append(data)
        self.size += len(data)
        if self.size >= self._high:
            self._gate.paused = True
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Say that nothing follows; the reader gets the error after what is there already."""
        if not self._end:
            self._end = True
            self._error = error
        self._gate.leave()
        self._wake()

    def drop(self) -> None:
        """Forget what was not read."""
        self._pieces.clear()
        self.size = 0
        self.end()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def read_piece(self) -> bytes:
        """Wait for the next piece as it was written; empty at the end. Raises the error of `end`."""
        while not self._pieces:
            if self._end:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                return b""
            if self._reader is not None:
                raise RuntimeError("read: another read waits already; one at a time")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        piece = self._pieces.popleft()
        self.size -= len(piece)
        if self._gate.paused and self.size < self._high:
            self._gate.open()
        return piece

    async def drain(self) -> None:
        """Wait until little is unread or nobody reads."""
        await self._gate.wait()


class MemoryDuplex:
    """One end of a connection within the process."""

    __slots__ = ("_incoming", "_outgoing", "on_aborted")

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.on_aborted: Callable[[], object] | None = None
        """Called when the other end aborts."""

    @classmethod
    def pair(cls, high: int) -> tuple[MemoryDuplex, MemoryDuplex]:
        """Make both ends; aborting the first tells the second."""
        to, fro = Pipe(high), Pipe(high)
        second = cls(to, fro)
        return _Near(fro, to, second), second

    async def read(self) -> bytes:
        return await self._incoming.read_piece()

    def write(self, data: bytes) -> None:
        self._outgoing.feed(data)

    async def drain(self) -> None:
        await self._outgoing.drain()

    def close(self) -> None:
        self._outgoing.end()
        self._incoming.drop()

    def abort(self) -> None:
        self._outgoing.drop()
        self._incoming.drop()


class _Near(MemoryDuplex):
    """The end whose abort cancels what runs the other one."""

    __slots__ = ("_far",)

    def __init__(self, incoming: Pipe, outgoing: Pipe, far: MemoryDuplex) -> None:
        super().__init__(incoming, outgoing)
        self._far = far

    def abort(self) -> None:
        super().abort()
        if self._far.on_aborted is not None:
            self._far.on_aborted()
