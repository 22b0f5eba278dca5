"""Connections whose bytes are passed on both ways as they are: TCP, TLS that others end, and what was upgraded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from pilothouse.traffic.plane.bodies import Pump, Truncated
from pilothouse.traffic.plane.http import FieldList
from pilothouse.traffic.plane.reactor import HANGUP, IN, OUT, Reactor, Timed
from pilothouse.traffic.plane.wires import Buffer, Pipes, Wire

__all__ = ["Tunnel"]

_ENDLESS: Final = 1 << 40


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
        return _ENDLESS if self.wire.is_raw and not self._inbox else 0

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


class _Drain:
    __slots__ = ("wire",)

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def write(self, pieces: Sequence[Buffer]) -> None:
        size = sum(map(len, pieces))
        if size:
            self.wire.counters.bytes_copied += size
            self.wire.send(pieces)

    def raw(self, count: int) -> int:
        return count if self.wire.is_raw else 0

    def flush(self) -> bool:
        return not self.wire.blocked or self.wire.flush()

    def wait(self) -> None:
        self.wire.want_write(True)

    def finish_body(self, trailers: FieldList) -> None:
        del trailers
        self.wire.end_writing()


class _End:
    """Tells the tunnel of one side's events."""

    __slots__ = ("_into", "_out_of", "_tunnel")

    def __init__(self, tunnel: Tunnel, into: Pump, out_of: Pump) -> None:
        self._tunnel, self._into, self._out_of = tunnel, into, out_of

    def on_event(self, events: int) -> None:
        if events & (OUT | HANGUP) and not self._into.is_over:
            self._into.run()
        if events & (IN | HANGUP) and not self._out_of.is_over:
            self._out_of.run()
        self._tunnel.look()

    def on_crash(self) -> None:
        self._tunnel.abort()


class Tunnel(Timed):
    """Two connections bound to each other; each half closes for itself. on_end: told once, with the bytes both ways."""

    __slots__ = (
        "_idle_seconds",
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

    def __init__(  # two sides, and what each has sent already
        self,
        reactor: Reactor,
        pipes: Pipes,
        left: Wire,
        right: Wire,
        early: tuple[bytes, bytes],
        idle_seconds: float,
        on_end: Callable[[Tunnel], object],
    ) -> None:
        super().__init__()
        self._reactor, self._left, self._right = reactor, left, right
        self._idle_seconds, self._on_end = idle_seconds, on_end
        self._moved = 0
        self.bytes_in = self.bytes_out = 0
        self.up = Pump(reactor, pipes, _Stream(left, early[0]), _Drain(right), self._done)
        self.down = Pump(reactor, pipes, _Stream(right, early[1]), _Drain(left), self._done)

    def begin(self) -> None:
        """Take both connections over and pass on what there is."""
        self._take(self._left, _End(self, self.down, self.up))
        self._take(self._right, _End(self, self.up, self.down))
        self._reactor.arm(self, self._reactor.now + self._idle_seconds)
        self.up.run()
        if not self.down.is_over:
            self.down.run()
        self.look()

    def _take(self, wire: Wire, end: _End) -> None:
        if self._reactor.has(wire.fd):
            self._reactor.replace(wire.fd, end)
            wire.want_read(True)
        else:
            wire.attach(end, IN)

    def _done(self, error: Exception | None, is_sources: bool) -> None:
        del is_sources
        if error is not None and not isinstance(error, Truncated):
            self.abort()

    def look(self) -> None:
        """Close what is over on both sides."""
        if self.up.is_over and self.down.is_over:
            self._close(is_clean=True)

    def abort(self) -> None:
        """End both sides at once."""
        self._close(is_clean=False)

    def on_deadline(self) -> None:
        moved = self.up.moved + self.down.moved
        if moved == self._moved:
            self.abort()
            return
        self._moved = moved
        self._reactor.arm(self, self._reactor.now + self._idle_seconds)

    def _close(self, is_clean: bool) -> None:
        if self._left.is_closed and self._right.is_closed:
            return
        self.deadline = math.inf
        self.bytes_in, self.bytes_out = self.up.moved, self.down.moved
        self.up.stop()
        self.down.stop()
        for wire in (self._left, self._right):
            if is_clean:
                wire.close()
            else:
                wire.abort()
        self._on_end(self)
