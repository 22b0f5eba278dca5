"""Copies of requests, sent to another backend whose answers nobody reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies import Truncated
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.decisions import Decision
from pilothouse.traffic.plane.http import Body, FieldList, Refused, Request, Response
from pilothouse.traffic.plane.reactor import Timed
from pilothouse.traffic.plane.upstream import Outgoing, Upstream, UpstreamBody
from pilothouse.traffic.plane.wires import Buffer, Gone

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["Mirrored"]

_SECONDS: Final = 30.0


class Mirrored(Timed):
    """One copy, of the head and a body that came whole with it; larger bodies are not copied."""

    __slots__ = ("_is_over", "_outgoing", "_pieces", "_pool", "_source", "_state", "_upstream", "_worker")

    def __init__(self, worker: Worker, pool: Pool, decision: Decision, request: Request, peer: Peer) -> None:
        super().__init__()
        self._worker, self._pool = worker, pool
        fields: FieldList = peer.forwarding.fields(decision.fields, request.authority)
        self._outgoing = Outgoing(request, decision.target, decision.authority, fields)
        self._is_over = False
        self._pieces: Sequence[Buffer] = ()
        self._state: EndpointState | None = None
        self._upstream: Upstream | None = None
        self._source: UpstreamBody | None = None

    def begin(self, pieces: Sequence[Buffer]) -> None:
        """Send it if there is room."""
        pool, worker = self._pool, self._worker
        self._pieces = pieces
        state = self._state = pool.balancer.pick(worker.reactor.now)
        if state is None or pool.is_full:
            return
        worker.mirrored += 1
        pool.active += 1
        worker.reactor.arm(self, worker.reactor.now + _SECONDS)
        kept = pool.idle(state)
        if kept is not None:
            self.on_connected(kept)
            return
        try:
            upstream = pool.open(state, self)
        except (OverflowError, OSError):
            self._over(is_clean=False)
            return
        self._upstream = upstream
        if upstream is None:
            pool.unwait(self)
            self._over(is_clean=False)
        else:
            upstream.open(self)

    def on_connected(self, upstream: Upstream) -> None:
        self._upstream = upstream
        try:
            upstream.begin(self, self._outgoing, self._pieces, [])
        except Gone:
            self._over(is_clean=False)

    def on_response(self, response: Response, rest: bytes) -> None:
        if response.status < 200:
            if response.status == 101:
                self._over(is_clean=False)
            return
        if self._upstream is None:
            return
        self._source = self._upstream.source(response, rest)
        if response.body is Body.NONE:
            self._over(is_clean=response.persistent)
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
        except (Gone, Truncated, Refused):
            self._over(is_clean=False)
            return
        self._over(is_clean=not source.beyond)

    def _over(self, is_clean: bool) -> None:
        upstream, self._upstream = self._upstream, None
        if self._is_over:
            return
        self._is_over = True
        self.deadline = float("inf")
        self._worker.mirrored -= 1
        self._pool.active -= 1
        if upstream is not None:
            if is_clean:
                upstream.finish(True)
            else:
                upstream.abort()

    def on_deadline(self) -> None:
        self._over(is_clean=False)

    def on_unreachable(self, upstream: Upstream, reason: str) -> None:
        del upstream, reason
        self._upstream = None
        self._over(is_clean=False)

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None:
        del upstream, reason, is_untouched
        self._upstream = None
        self._over(is_clean=False)

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        del error, is_endpoints
        self._upstream = None
        self._over(is_clean=False)

    def on_writable(self) -> None:
        if self._upstream is not None:
            try:
                self._upstream.wire.flush()
            except Gone:
                self._over(is_clean=False)

    def on_room(self) -> None:
        """Do nothing: copies do not wait."""
