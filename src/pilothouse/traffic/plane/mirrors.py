"""Copies of requests, sent to another backend whose answers nobody reads.

A body that comes in parts is copied as it moves on: what a mirror has not taken yet waits, up to a bound, and a mirror
that falls further behind is cut. The request itself waits for no mirror.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies import Pump, Sink, Source, Truncated
from pilothouse.traffic.plane.http import UNKNOWN, Body, FieldList, Refused, Response
from pilothouse.traffic.plane.reactor import Timed
from pilothouse.traffic.plane.upstream import Outgoing, Upstream, UpstreamBody
from pilothouse.traffic.plane.wires import Buffer, Gone, Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["HELD_BYTES", "CopyingPump", "MirrorRoom", "Mirrored"]

HELD_BYTES: Final = 4 << 20
"""Of one body that a mirror has not taken yet, at most."""
_HELD_BY_ALL: Final = 64 << 20
_MOST: Final = 256
_AT_ONCE: Final = 256 << 10
_SECONDS: Final = 30.0
"""Without that anything moves."""


class MirrorRoom:
    """What all mirrors of a worker have: the copies that are on their way, and how many bytes wait."""

    __slots__ = ("bytes", "open")

    def __init__(self) -> None:
        self.open: set[Mirrored] = set()
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no further copy is begun."""
        return len(self.open) >= _MOST


class _Copy:
    """What waits of a copied body, as a source. left: bytes that still come, UNKNOWN where no head says."""

    __slots__ = ("_held", "_left", "_pieces", "_room", "_trailers", "done", "has_ended", "wire")

    def __init__(self, room: MirrorRoom, left: int) -> None:
        self.wire: Wire  # of the mirror, once there is one; nothing is spliced from it
        self.done = False
        self._room = room
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._left = left
        self.has_ended = False
        self._trailers: FieldList = []

    def put(self, data: bytes) -> bool:
        """Take a piece; return whether there was room."""
        size = len(data)
        if self._held + size > HELD_BYTES or self._room.bytes + size > _HELD_BY_ALL:
            return False
        self._held += size
        self._room.bytes += size
        self._pieces.append(data)
        if self._left != UNKNOWN:
            self._left -= size
            self.has_ended = self._left <= 0  # the request may wait for its backend before it says so
        return True

    def end(self, trailers: FieldList) -> None:
        """Take note of the body's end."""
        self.has_ended, self._trailers = True, trailers
        self.done = not self._pieces

    def drop(self) -> None:
        """Forget what waits."""
        self._pieces.clear()
        self._room.bytes -= self._held
        self._held = 0

    def read(self) -> Sequence[Buffer] | None:
        if not self._pieces:
            return None
        taken, size = [], 0
        while self._pieces and size < _AT_ONCE:
            taken.append(self._pieces.popleft())
            size += len(taken[-1])
        self._held -= size
        self._room.bytes -= size
        self.done = self.has_ended and not self._pieces
        return taken

    def raw(self) -> int:
        return 0

    def took(self, count: int) -> None:
        """Do nothing: bytes come by `read` only."""

    @property
    def has_more(self) -> bool:
        """Whether a piece is there."""
        return bool(self._pieces)

    def trailers(self) -> FieldList:
        return self._trailers

    def pause(self) -> None:
        """Do nothing: the request's own body goes on."""

    def resume(self) -> None:
        """Do nothing: what comes is `put`."""


class Mirrored(Timed):
    """One copy of a request. `begin`, then for a body that comes in parts `feed`, and `end` or `cut`."""

    __slots__ = (
        "_body",
        "_is_over",
        "_outgoing",
        "_pieces",
        "_pool",
        "_pump",
        "_source",
        "_state",
        "_trailers",
        "_upstream",
        "_worker",
    )

    def __init__(self, worker: Worker, pool: Pool, outgoing: Outgoing) -> None:
        super().__init__()
        self._worker, self._pool = worker, pool
        request = outgoing.request.copy()
        request.expects, request.upgrade = False, b""
        self._outgoing = Outgoing(request, outgoing.target, outgoing.authority, outgoing.fields)
        self._is_over = True
        self._pieces: Sequence[Buffer] = ()
        self._trailers: FieldList | None = None
        self._body: _Copy | None = None
        self._pump: Pump | None = None
        self._state: EndpointState | None = None
        self._upstream: Upstream | None = None
        self._source: UpstreamBody | None = None

    def begin(self, pieces: Sequence[Buffer], trailers: FieldList | None) -> bool:
        """Send it if there is room; return whether more of its body is wanted.

        pieces: what there is of the body; trailers: behind it, None where more of it comes.
        """
        pool, worker, room = self._pool, self._worker, self._worker.mirrors
        self._pieces, self._trailers = pieces, trailers
        state = self._state = pool.balancer.pick(worker.reactor.now)
        if state is None or pool.is_full or room.is_full:
            worker.tally.happen("mirror left out")
            return False
        self._is_over = False
        room.open.add(self)
        pool.active += 1
        worker.reactor.arm(self, worker.reactor.now + _SECONDS)
        if trailers is None:
            request = self._outgoing.request
            left = request.length - sum(map(len, pieces)) if request.body is Body.LENGTH else UNKNOWN
            self._body = _Copy(room, left)
        kept = pool.idle(state)
        if kept is not None:
            self.on_connected(kept)
        else:
            self._open(pool, state)
        return self._body is not None and not self._is_over

    def _open(self, pool: Pool, state: EndpointState) -> None:
        try:
            upstream = pool.open(state, self)
        except (OverflowError, OSError):
            self.cut("no connection can be opened")
            return
        self._upstream = upstream
        if upstream is None:
            pool.unwait(self)
            self.cut("it has as many connections as it may have")
        else:
            upstream.open(self)

    # The body

    def feed(self, data: bytes) -> None:
        """Take a piece of the body; it is sent when its turn comes."""
        body = self._body
        if self._is_over or body is None:
            return
        if not body.put(data):
            self.cut("it does not take the body as fast as it comes")
            return
        self._move_soon()

    def end(self, trailers: FieldList) -> None:
        """Take note of the body's end."""
        if self._body is not None and not self._is_over:
            self._body.end(trailers)
            self._move_soon()

    def cut(self, reason: str) -> None:
        """End it before its end, and say so."""
        if self._is_over:
            return
        self._worker.tally.happen("mirror cut")
        self._worker.note("a mirror was cut", backend=self._pool.name, reason=reason)
        self._over(is_clean=False)

    def abort(self) -> None:
        """End it without a word."""
        if not self._is_over:
            self._over(is_clean=False)

    def cut_if_open(self) -> None:
        """End it if the rest of its body will never come."""
        if self._body is not None and not self._body.has_ended:
            self.cut("the request ended before its end")

    def _move_soon(self) -> None:
        worker = self._worker
        worker.reactor.arm(self, worker.reactor.now + _SECONDS)
        if self._pump is not None:
            worker.reactor.soon(self._pump.run)

    def _uploaded(self, error: Exception | None, is_sources: bool) -> None:
        del is_sources
        if error is not None:
            self.cut(f"the connection was lost: {error}")

    # What its backend says

    def on_connected(self, upstream: Upstream) -> None:
        self._upstream = upstream
        if self._is_over:
            upstream.abort()
            return
        try:
            upstream.begin(self, self._outgoing, self._pieces, self._trailers)
        except Gone as error:
            self.cut(str(error))
            return
        self._pieces = ()
        body, worker = self._body, self._worker
        if body is not None:
            body.wire = upstream.wire
            sink = upstream.sink(self._outgoing.request)
            pump = self._pump = Pump(worker.reactor, worker.pipes, body, sink, self._uploaded)
            worker.reactor.soon(pump.run)

    def on_response(self, response: Response, rest: bytes) -> None:
        if response.status < 200:
            if response.status == 101:
                self.cut("it switches protocols")
            return
        if self._upstream is None:
            return
        self._source = self._upstream.source(response, rest)
        if response.body is Body.NONE:
            self._answered(is_reusable=response.persistent)
        else:
            self.on_readable()

    def on_readable(self) -> None:
        source = self._source
        if source is None:
            return
        try:
            while not source.done:
                if source.read() is None:
                    return
        except (Gone, Truncated, Refused) as error:
            self.cut(f"its answer is cut: {error}")
            return
        self._answered(is_reusable=not source.beyond)

    def _answered(self, *, is_reusable: bool) -> None:
        pump = self._pump
        if pump is not None and not pump.is_over:
            self.cut("it answered before the end of the body")
        else:
            self._over(is_clean=is_reusable)

    def _over(self, *, is_clean: bool) -> None:
        upstream, self._upstream = self._upstream, None
        self._is_over = True
        self.deadline = float("inf")
        self._worker.mirrors.open.discard(self)
        self._pool.active -= 1
        pump, self._pump = self._pump, None
        if pump is not None and not pump.is_over:
            pump.stop()
        if self._body is not None:
            self._body.drop()
        if upstream is not None:
            if is_clean:
                upstream.finish(True)
            else:
                upstream.abort()

    def on_deadline(self) -> None:
        self.cut("nothing moves")

    def on_unreachable(self, upstream: Upstream, reason: str) -> None:
        del upstream
        self._upstream = None
        self.cut(f"it cannot be reached: {reason}")

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None:
        del upstream, is_untouched
        self._upstream = None
        self.cut(f"the connection was lost: {reason}")

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        del is_endpoints
        self._upstream = None
        self.cut(str(error))

    def on_writable(self) -> None:
        if self._pump is not None:
            self._pump.run()
        elif self._upstream is not None:
            try:
                self._upstream.wire.flush()
            except Gone as error:
                self.cut(str(error))

    def on_room(self) -> None:
        """Do nothing: copies do not wait."""


class CopyingPump(Pump):
    """Moves a body, and gives copies of it to mirrors; nothing is spliced, because the bytes are needed."""

    __slots__ = ("_mirrored",)

    def __init__(  # a pump's, and for whom
        self,
        worker: Worker,
        source: Source,
        sink: Sink,
        on_done: Callable[[Exception | None, bool], object],
        mirrored: Sequence[Mirrored],
    ) -> None:
        super().__init__(worker.reactor, worker.pipes, source, sink, on_done)
        self._mirrored = mirrored

    def _step(self) -> bool:
        pieces = self.source.read()
        if pieces is None:
            return False
        data = pieces[0] if len(pieces) == 1 and isinstance(pieces[0], bytes) else b"".join(pieces)
        self._count(len(data))
        if data:
            for each in self._mirrored:
                each.feed(bytes(data))
        self.sink.write(pieces)
        return True

    def _end(self, error: Exception | None, is_sources: bool) -> None:
        if error is None:
            for each in self._mirrored:
                each.end(self.source.trailers())
        super()._end(error, is_sources)

    def stop(self) -> None:
        super().stop()
        for each in self._mirrored:
            each.cut_if_open()
