"""Connections that are passed on as they are: an endpoint is chosen, reached, and bound to the client."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pilothouse.traffic.config import StreamRoute, Weighted
from pilothouse.traffic.numbers import Key
from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.http import Refused, Response
from pilothouse.traffic.plane.reactor import HANGUP, Timed
from pilothouse.traffic.plane.tunnels import Tunnel, WireEnd
from pilothouse.traffic.plane.upstream import Upstream
from pilothouse.traffic.plane.wires import Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["StreamConnection"]

_TRIES = 3


class StreamConnection(Timed):
    """One connection, until it is bound to an endpoint's, and what is counted of it."""

    __slots__ = ("_began", "_found", "_peer", "_pool", "_state", "_tried", "_upstream", "_wire", "_worker")

    def __init__(self, worker: Worker, wire: Wire, peer: Peer, found: tuple[StreamRoute, Weighted] | None) -> None:
        super().__init__()
        self._worker, self._wire, self._peer, self._found = worker, wire, peer, found
        self._pool: Pool | None = None
        self._state: EndpointState | None = None
        self._upstream: Upstream | None = None
        self._tried: list[EndpointState] = []
        self._began = worker.clock()

    def begin(self) -> None:
        """Choose an endpoint; the client has to wait until it is reached."""
        worker = self._worker
        worker.clients.add(self)
        worker.reactor.replace(self._wire.fd, self)
        self._wire.want(0)
        pool = self._pool = worker.pools.get(self._found[1].backend) if self._found is not None else None
        if pool is None or pool.is_full:
            kind = "no route" if self._found is None else "circuit" if pool is not None else "no backend"
            self._pool = None
            self._refuse(Refused(503, kind, "the connection is not passed on"))
            return
        pool.active += 1
        self._try()

    def _try(self) -> None:
        pool = self._pool
        assert pool is not None  # noqa: S101
        state = self._state = pool.balancer.pick(self._worker.reactor.now, self._tried)
        if state is None:
            self._refuse(Refused(503, "no endpoints", "the backend has no healthy endpoints"))
            return
        try:
            self._upstream = pool.open(state, self)
        except (OverflowError, OSError):
            self._refuse(Refused(503, "circuit", "too many connections"))
            return
        if self._upstream is not None:
            self._upstream.open(self)

    def on_room(self) -> None:
        if self._upstream is None and self._pool is not None:
            self._try()

    def on_connected(self, upstream: Upstream) -> None:
        state = self._state
        assert state is not None  # noqa: S101
        state.active += 1
        self._worker.clients.discard(self)
        self._worker.tunnel(self._peer.scope.limits, WireEnd(self._wire), upstream.tunnelled(b""), self._ended)

    def on_unreachable(self, upstream: Upstream, reason: str) -> None:
        del upstream
        self._upstream = None
        pool, state = self._pool, self._state
        if pool is not None and state is not None:
            pool.balancer.erred(state, self._worker.reactor.now)
            self._tried.append(state)
            if len(self._tried) < min(_TRIES, len(pool.balancer.states)):
                self._worker.reactor.soon(self.on_room)
                return
        self._refuse(Refused(503, "connect", f"the backend cannot be reached: {reason}"))

    def _ended(self, tunnel: Tunnel) -> None:
        if self._state is not None:
            self._state.active -= 1
        self._count(0, tunnel.bytes_in, tunnel.bytes_out)

    def _refuse(self, error: Refused) -> None:
        self._worker.refused(error, None)
        self._worker.clients.discard(self)
        self._count(error.status, 0, 0)
        self._wire.abort()

    def _count(self, status: int, bytes_in: int, bytes_out: int) -> None:
        if self._pool is not None:
            self._pool.active -= 1
            self._pool.unwait(self)
            self._pool = None
        if self._found is not None:
            route, weighted = self._found
            key = Key(route.name, "", weighted.backend, weighted.version, self._peer.region or "")
            self._worker.tally.add(key, status, self._worker.clock() - self._began, bytes_in, bytes_out)

    def on_event(self, events: int) -> None:
        if events & HANGUP:
            self.drain()

    def drain(self) -> None:
        """Give up what has not begun."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.forsake()
        self._refuse(Refused(499, "client gone", "closed before it was passed on"))

    def on_crash(self) -> None:
        self.drain()

    def on_deadline(self) -> None:
        self.deadline = math.inf

    # What only requests are told

    def on_response(self, response: Response, rest: bytes) -> None:
        raise NotImplementedError

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None:
        raise NotImplementedError

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        raise NotImplementedError

    def on_readable(self) -> None:
        raise NotImplementedError

    def on_writable(self) -> None:
        raise NotImplementedError
