"""The bodies of one HTTP/2 stream: one comes out of frames and is a source, the other goes into frames: a sink."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from ngh2 import Connection, NGH2Error

from pilothouse.traffic.plane.bodies import ENDLESS
from pilothouse.traffic.plane.http import FieldList
from pilothouse.traffic.plane.outlets2 import Outlet
from pilothouse.traffic.plane.wires import Buffer, Gone, Pipe, Wire

__all__ = ["Carrier", "StreamBodies", "Turns"]

_QUEUED_BYTES: Final = 128 << 10
"""Of a body that waits for its windows, beyond which nothing more is read of it."""
_SHARED_BYTES: Final = 1 << 20
"""Of bodies in pipes, for all streams of a connection together; each may have `_LEAST_SHARE`."""
_LEAST_SHARE: Final = 64 << 10
_SMALL_FRAME: Final = 16 << 10
_LEAST_BYTES: Final = (128 << 10, 1 << 20)
"""Of a body still to come, for a pipe to be worth it: in larger frames, and to a peer that takes small ones only.

See the figures in docs/traffic-plane.md.
"""
_MOST_PIPES: Final = 16
"""Of streams of a connection that are open: who reads nothing of a hundred of them does not take all descriptors.

Beside those there may be some of streams that are over, whose last bytes are not written yet: 1 MiB of them at most.
"""
_ZEROS: Final = bytes(16 << 10)


class Carrier(Protocol):
    """A connection, as its streams see it. load: how many there are."""

    engine: Connection
    outlet: Outlet

    @property
    def load(self) -> int: ...

    def consumed(self, stream_id: int, size: int) -> None:
        """Let the other side send as much again."""

    def wait(self, stream: StreamBodies) -> None:
        """Tell a stream once there is room."""

    def flush_soon(self) -> None:
        """Write at the end of the round."""


class StreamBodies:
    """A stream's bodies. has_ended: whether all of the one that comes has come, done: and was read."""

    __slots__ = ("_carrier", "_is_sent", "_pieces", "_pipe", "_trailers", "done", "has_ended", "id", "turn", "wire")

    def __init__(self, carrier: Carrier, wire: Wire, stream_id: int, *, is_whole: bool) -> None:
        self._carrier = carrier
        self.wire = wire
        self.id = stream_id
        self.has_ended = self.done = is_whole
        self.turn = 0
        self._pieces: deque[bytes] = deque()
        self._trailers: FieldList = []
        self._pipe: Pipe | None = None
        self._is_sent = False

    # What comes

    @property
    def has_more(self) -> bool:
        """Whether a piece is there."""
        return bool(self._pieces)

    def read(self) -> Sequence[Buffer] | None:
        if not self._pieces:
            return None
        pieces = list(self._pieces)
        self._pieces.clear()
        self.done = self.has_ended
        self._carrier.consumed(self.id, sum(map(len, pieces)))
        return pieces

    def _discard(self) -> None:
        """Open the windows again for what nobody reads."""
        size = sum(map(len, self._pieces))
        self._pieces.clear()
        self._carrier.consumed(self.id, size)

    def raw(self) -> int:
        """Return 0: the engine has them."""
        return 0

    def took(self, count: int) -> None:
        """Do nothing: bytes come by `read` only."""

    def trailers(self) -> FieldList:
        return self._trailers

    def pause(self) -> None:
        """Do nothing: what is not read opens no window."""

    def resume(self) -> None:
        """Do nothing: the connection tells of what comes."""

    # What goes

    def write(self, pieces: Sequence[Buffer]) -> None:
        size = sum(map(len, pieces))
        if not size:
            return
        self.wire.counters.bytes_copied += size
        try:
            self._carrier.engine.send_data(self.id, b"".join(pieces))
        except NGH2Error as error:
            raise Gone(str(error)) from None
        self._carrier.flush_soon()

    def takes(self, count: int) -> int:
        carrier, outlet = self._carrier, self._carrier.outlet
        if count >= ENDLESS or not self.wire.is_raw or not outlet.is_dry:
            return 0  # of what has no known end may come little at a time
        if self.id not in outlet.piped:
            if count < _LEAST_BYTES[outlet.most == _SMALL_FRAME] or len(outlet.piped) >= _MOST_PIPES:
                return 0
            outlet.piped.add(self.id)
        share = max(_SHARED_BYTES // max(carrier.load, 1), _LEAST_SHARE)
        with contextlib.suppress(NGH2Error):
            return min(count, share, max(carrier.engine.stream_remote_window_size(self.id), _LEAST_SHARE))
        return 0

    def put(self, pipe: Pipe, *, is_last: bool) -> None:
        engine, size = self._carrier.engine, pipe.held
        try:
            ahead = engine.queued_body_size(self.id)
            for _ in range((size - 1) // len(_ZEROS)):
                engine.send_data(self.id, _ZEROS)
            engine.send_data(self.id, _ZEROS[: (size - 1) % len(_ZEROS) + 1], end_stream=is_last)
        except NGH2Error as error:
            raise Gone(str(error)) from None
        self._pipe = pipe
        self._is_sent = is_last
        self._carrier.outlet.expect(self.id, pipe, ahead)
        self._carrier.flush_soon()

    def has_room(self) -> bool:
        """Return whether more may be queued."""
        if self._is_sent:
            return True
        if self._carrier.outlet.is_blocked or (self._pipe is not None and self._pipe.is_lent):
            return False
        with contextlib.suppress(NGH2Error):
            return self._carrier.engine.queued_body_size(self.id) < _QUEUED_BYTES
        return True  # it finds out with the next piece

    def flush(self) -> bool:
        return self.has_room()

    def wait(self) -> None:
        self._carrier.wait(self)

    def writable(self) -> None:
        """Go on: there is room."""
        raise NotImplementedError

    def finish_body(self, trailers: FieldList) -> None:
        """End the body. Raises Gone."""
        if self._is_sent:
            return
        engine = self._carrier.engine
        try:
            if trailers:
                engine.send_trailers(self.id, trailers)
            else:
                engine.end_stream(self.id)
        except NGH2Error as error:
            raise Gone(str(error)) from None
        self._carrier.flush_soon()


class Turns:
    """Streams of a connection that wait for room, whoever had it longest ago first."""

    __slots__ = ("_count", "_waiting")

    def __init__(self) -> None:
        self._waiting: set[StreamBodies] = set()
        self._count = 0

    def wait(self, stream: StreamBodies) -> None:
        """Have a stream wait."""
        self._waiting.add(stream)

    def leave(self, stream: StreamBodies) -> None:
        """Have a stream wait no more."""
        self._waiting.discard(stream)

    def clear(self) -> None:
        """Have nobody wait."""
        self._waiting.clear()

    def ready(self) -> list[StreamBodies]:
        """Return who may go on, and does not wait any more."""
        if not self._waiting:
            return []
        found = sorted([each for each in self._waiting if each.has_room()], key=lambda each: each.turn)
        for stream in found:
            self._waiting.discard(stream)
            self._count += 1
            stream.turn = self._count
        return found
