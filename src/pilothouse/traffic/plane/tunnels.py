"""Bytes that are passed on both ways as they are: of TCP, of TLS that others end, and of what was upgraded.

Each end is a connection of its own, or a stream of an HTTP/2 connection (`tunnels2`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from pilothouse.traffic.plane.bodies import ENDLESS, Pump, Sink, Source, WireSink
from pilothouse.traffic.plane.http import FieldList
from pilothouse.traffic.plane.reactor import HANGUP, IN, OUT, Reactor, Timed
from pilothouse.traffic.plane.wires import Buffer, Pipes, Wire

__all__ = ["End", "Tunnel", "WireEnd"]


class _Stream:
    """All that a connection sends, as a source and a sink of `bodies`."""

    __slots__ = ("_inbox", "done", "wire")

    def __init__(self, wire: Wire, inbox: bytes) -> None:
        self.wire = wire
        self.done = False
        self._inbox = inbox

    def read(self) -> Sequence[Buffer] | None:
        inbox, self._inbox = self._inbox, b""
        if inbox:
            return (inbox,)
        came = self.wire.receive()
        if came is None:
            return None
        if not came:
            self.done = True
        return (came,)

    def raw(self) -> int:
        return ENDLESS if self.wire.is_raw and not self._inbox else 0

    def took(self, count: int) -> None:
        self.done = count == 0

    @property
    def has_more(self) -> bool:
        return bool(self._inbox)

    def trailers(self) -> FieldList:
        return []

    def pause(self) -> None:
        self.wire.pause()

    def resume(self) -> None:
        self.wire.want_read(True)


class _Drain(WireSink):
    __slots__ = ()

    def finish_body(self, trailers: FieldList) -> None:
        del trailers
        self.wire.end_writing()


class End(Protocol):
    """One side of a tunnel: what it sends is a source, what it gets goes into a sink."""

    @property
    def source(self) -> Source: ...

    @property
    def sink(self) -> Sink: ...

    def begin(self, into: Pump, out_of: Pump, abort: Callable[[], object]) -> None:
        """Run the pumps from now on when there is something for them; abort: where the end is lost."""

    def close(self, is_clean: bool) -> None:
        """Let go. Not clean: so that the other side sees that it did not end well."""


class WireEnd:
    """A connection as one end. early: what it has sent already."""

    __slots__ = ("_abort", "_into", "_out_of", "sink", "source", "wire")

    def __init__(self, wire: Wire, early: bytes = b"") -> None:
        self.wire = wire
        self.source = _Stream(wire, early)
        self.sink = _Drain(wire)

    def begin(self, into: Pump, out_of: Pump, abort: Callable[[], object]) -> None:
        self._into, self._out_of, self._abort = into, out_of, abort
        wire = self.wire
        if wire.reactor.has(wire.fd):
            wire.reactor.replace(wire.fd, self)
            wire.want_read(True)
        else:
            wire.attach(self, IN)

    def on_event(self, events: int) -> None:
        if events & (OUT | HANGUP) and not self._into.is_over:
            self._into.run()
        if events & (IN | HANGUP) and not self._out_of.is_over:
            self._out_of.run()
        elif events & HANGUP and not self._into.is_over:
            self._abort()  # it has ended, and takes nothing more either

    def on_crash(self) -> None:
        self._abort()

    def close(self, is_clean: bool) -> None:
        if is_clean:
            self.wire.close()
        else:
            self.wire.abort()


class Tunnel(Timed):
    """Two ends bound to each other; each half closes for itself. on_end: told once, with the bytes both ways."""

    __slots__ = (
        "_idle_seconds",
        "_is_over",
        "_left",
        "_moved",
        "_on_end",
        "_reactor",
        "_right",
        "bytes_in",
        "bytes_out",
        "down",
        "up",
    )

    def __init__(
        self,
        reactor: Reactor,
        pipes: Pipes,
        left: End,
        right: End,
        idle_seconds: float,
        on_end: Callable[[Tunnel], object],
    ) -> None:
        super().__init__()
        self._reactor, self._left, self._right = reactor, left, right
        self._idle_seconds, self._on_end = idle_seconds, on_end
        self._moved = 0
        self._is_over = False
        self.bytes_in = self.bytes_out = 0
        self.up = Pump(reactor, pipes, left.source, right.sink, self._done)
        self.down = Pump(reactor, pipes, right.source, left.sink, self._done)

    def begin(self) -> None:
        """Take both ends over and pass on what there is."""
        self._left.begin(self.down, self.up, self.abort)
        self._right.begin(self.up, self.down, self.abort)
        self._reactor.arm(self, self._reactor.now + self._idle_seconds)
        self.up.run()
        self.down.run()

    def _done(self, error: Exception | None, is_sources: bool) -> None:
        del is_sources
        if error is not None:
            self.abort()
        elif self.up.is_over and self.down.is_over:
            self._close(is_clean=True)

    def abort(self) -> None:
        """End both sides at once."""
        self._close(is_clean=False)

    def on_deadline(self) -> None:
        moved = self.up.passed + self.down.passed
        if moved == self._moved:
            self.abort()
            return
        self._moved = moved
        self._reactor.arm(self, self._reactor.now + self._idle_seconds)

    def _close(self, is_clean: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        self.deadline = math.inf
        self.bytes_in, self.bytes_out = self.up.moved, self.down.moved
        self.up.stop()
        self.down.stop()
        self._left.close(is_clean)
        self._right.close(is_clean)
        self._on_end(self)
