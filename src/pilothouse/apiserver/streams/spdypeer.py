"""A connection of SPDY/3.1 over a `Duplex`: reads it, and gives each stream its own bounded way in and out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from pilothouse.apiserver.model import Duplex
from pilothouse.apiserver.streams.inbox import Inbox
from pilothouse.apiserver.streams.spdy import (
    Data,
    Event,
    GoneAway,
    Opened,
    Pong,
    Reset,
    SpdyConnection,
    SpdyError,
    WindowOpened,
)

__all__ = ["SpdyPeer", "SpdyStream"]

_WAITING_LIMIT: Final = 1 << 18
"""Bytes of a stream that may wait for the peer's window before `drain` waits."""


class SpdyStream:
    """One stream; a `Duplex`, so that it can stand for a connection of its own."""

    def __init__(self, peer: SpdyPeer, number: int, headers: Mapping[str, tuple[str, ...]]) -> None:
        self._peer = peer
        self.number = number
        self.headers = headers
        self.inbox = Inbox(consumed=lambda count: peer.acknowledge(number, count))
        self.accepted = asyncio.Event()
        self.ended = False
        """Whether it was reset or the connection is gone."""
        self._window = asyncio.Event()

    def header(self, name: str) -> str:
        """Return the first value of a header, empty without one; the name in lower case."""
        return self.headers.get(name, ("",))[0]

    async def read(self) -> bytes:
        return await self.inbox.read()

    def write(self, data: bytes) -> None:
        self._peer.send(self.number, data)

    async def drain(self) -> None:
        while self._peer.waiting(self.number) > _WAITING_LIMIT and not self.ended:
            self._window.clear()
            await self._window.wait()
        await self._peer.drain()

    def close(self) -> None:
        """Say that nothing more is sent; the peer may still send."""
        self._peer.send(self.number, b"", fin=True)

    def abort(self) -> None:
        self._peer.reset(self.number)
        self.end()

    def end(self) -> None:
        """Wake whoever waits: nothing comes and nothing goes any more."""
        self.ended = True
        self.inbox.end()
        self.accepted.set()
        self._window.set()

    def window_opened(self) -> None:
        """Wake whoever waits for the peer's window."""
        self._window.set()


class SpdyPeer:
    """The other end of a connection. `run` reads it until its end; all else may be called meanwhile."""

    def __init__(self, duplex: Duplex, *, server: bool, opened: Callable[[SpdyStream], bool] | None = None) -> None:
        self._duplex = duplex
        self._connection = SpdyConnection(server=server)
        self._opened = opened or (lambda stream: False)
        self._streams: dict[int, SpdyStream] = {}
        self._open = True

    async def run(self) -> None:
        """Read until the peer goes away or breaks the protocol; then all streams end."""
        self._connection.announce()
        self._send_out()
        try:
            while data := await self._duplex.read():
                for event in self._connection.receive(data):
                    await self._handle(event)
                self._send_out()
                # A peer that asks and asks and never reads is made to wait.
                await self._duplex.drain()
                if self._connection.gone_away and not self._streams:
                    return
        except SpdyError:
            self._send_out()
        finally:
            self._open = False
            for stream in self._streams.values():
                stream.end()
            self._streams.clear()

    async def _handle(self, event: Event) -> None:
        if isinstance(event, Opened):
            self._on_opened(event)
        elif isinstance(event, GoneAway):
            self._drop_finished()
        elif not isinstance(event, Pong) and (stream := self._streams.get(event.stream)):
            if isinstance(event, Data):
                await self._on_data(event, stream)
            elif isinstance(event, Reset):
                del self._streams[event.stream]
                stream.end()
            elif isinstance(event, WindowOpened):
                stream.window_opened()
            else:
                stream.accepted.set()
                if event.fin:
                    stream.inbox.end()

    async def _on_data(self, event: Data, stream: SpdyStream) -> None:
        stream.inbox.feed(event.data)
        if event.fin:
            stream.inbox.end()
            self._forget(event.stream)
        elif stream.inbox.full:
            # What the reader consumed must reach the peer while we wait, or both wait for ever.
            self._send_out()
            await stream.inbox.room()

    def _on_opened(self, event: Opened) -> None:
        stream = SpdyStream(self, event.stream, event.headers)
        if event.fin:
            stream.inbox.end()
        if not self._opened(stream):
            self._connection.reset(event.stream)
            return
        self._streams[event.stream] = stream
        self._connection.accept(event.stream)

    def _drop_finished(self) -> None:
        self._streams = {number: stream for number, stream in self._streams.items() if self._connection.is_open(number)}

    def open(self, headers: Mapping[str, str]) -> SpdyStream:
        """Open a stream. Raises SpdyError where the peer takes none."""
        number = self._connection.open(headers)
        stream = SpdyStream(self, number, {name: (value,) for name, value in headers.items()})
        self._streams[number] = stream
        self._send_out()
        return stream

    def send(self, number: int, data: bytes, *, fin: bool = False) -> None:
        """Send bytes of a stream."""
        self._connection.send(number, data, fin=fin)
        self._send_out()
        self._forget(number)

    def acknowledge(self, number: int, count: int) -> None:
        """Let the peer send more on a stream."""
        self._connection.acknowledge(number, count)
        self._send_out()

    def waiting(self, number: int) -> int:
        """Return how many bytes of a stream wait for the peer's window."""
        return self._connection.waiting(number)

    def reset(self, number: int) -> None:
        """End a stream at once."""
        self._connection.reset(number)
        self._streams.pop(number, None)
        self._send_out()

    async def drain(self) -> None:
        """Wait until the transport has taken enough."""
        await self._duplex.drain()

    def go_away(self) -> None:
        """Tell the peer that no more streams are taken."""
        self._connection.go_away()
        self._send_out()

    def _forget(self, number: int) -> None:
        if not self._connection.is_open(number):
            self._streams.pop(number, None)

    def _send_out(self) -> None:
        if (data := self._connection.take()) and self._open:
            self._duplex.write(data)
