"""Connections to backends: kept, counted, and as many as a backend is to bear."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

from pilothouse.traffic.config import Backend
from pilothouse.traffic.plane.balancing import Balancer, EndpointState, RetryBudget
from pilothouse.traffic.plane.heads import HeadReader
from pilothouse.traffic.plane.messages import EndpointCounted, EndpointNow
from pilothouse.traffic.plane.reactor import Reactor
from pilothouse.traffic.plane.server1 import Server1
from pilothouse.traffic.plane.upstream import Upstream, Waiting
from pilothouse.traffic.plane.wires import Counters

if TYPE_CHECKING:
    from pilothouse.traffic.plane.server2 import Server2

__all__ = ["BackendConnector", "Pool", "endpoints_counted", "endpoints_now"]

_IDLE_KEPT: Final = 256
"""Connections to one endpoint that wait for work in one worker, at most."""


class BackendConnector:
    """How TLS to a backend is begun, and its certificate checked. Raises ValueError for one that cannot be used."""

    def __init__(self, context: ssl.SSLContext, hostname: str, names: tuple[str, ...]) -> None:
        self._context = context
        self._hostname = hostname
        self._names = frozenset(names)
        if names:
            context.check_hostname = False  # `check` looks for one of the names instead

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Return the socket with TLS on it, before its handshake."""
        return self._context.wrap_socket(
            sock, server_hostname=self._hostname or None, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )

    def check(self, sock: ssl.SSLSocket) -> None:
        """Look for the names that are asked for. Raises ssl.SSLError."""
        if not self._names:
            return
        certificate = sock.getpeercert() or {}
        named = {str(pair[1]) for pair in cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))}
        if named.isdisjoint(self._names):
            raise ssl.SSLError(f"the certificate has none of the names {', '.join(sorted(self._names))}")


class Pool:
    """One backend in one worker. active: requests on their way to it. share: the part of its limits that is ours."""

    def __init__(
        self, name: str, reactor: Reactor, counters: Counters, reader: HeadReader, chance: random.Random
    ) -> None:
        self.name = name
        self.config = Backend()
        self.tls: BackendConnector | None = None
        self.active = 0
        self.connections = 0
        self.is_gone = False
        self.budget = RetryBudget(reactor.now)
        self._reactor = reactor
        self._counters = counters
        self._reader = reader
        self.balancer = Balancer(self.config.outliers, 0.0, chance)
        self._waiting: deque[Waiting] = deque()
        self._limits = (1024, 4096, 1024)

    def take_config(self, config: Backend, tls: BackendConnector | None, workers: int) -> None:
        """Go on as a new configuration has it; connections of endpoints that are gone end after their request."""
        if (config.tls, config.protocol) != (self.config.tls, self.config.protocol):
            self._close_idle()
        self.config, self.tls = config, tls
        balancer = self.balancer
        balancer.outliers, balancer.slow_start = config.outliers, config.slow_start
        for state in balancer.take(config.endpoints, self._reactor.now):
            self._close_idle_of(state)
        for state in balancer.states:
            if state.endpoint.is_draining:
                self._close_idle_of(state)
        circuit = config.circuit
        self._limits = (
            math.ceil(circuit.connections / workers),
            math.ceil(circuit.requests / workers),
            math.ceil(circuit.waiting / workers),
        )

    def leave(self) -> None:
        """Act on that the backend is configured no more."""
        self.is_gone = True
        self._close_idle()

    @property
    def is_full(self) -> bool:
        """Whether no further request is let through."""
        return self.active >= self._limits[1]

    @property
    def is_framed(self) -> bool:
        """Whether bodies go in frames, without the chunked coding."""
        return self.config.protocol == "h2"

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._waiting)

    def idle(self, state: EndpointState) -> Upstream | None:
        """Return a kept connection, or a stream of one."""
        if self.config.protocol == "h2":
            return next((each.stream() for each in self._shared(state) if each.has_room), None)
        kept = cast("list[Server1]", state.idle)
        return kept.pop() if kept else None

    def _shared(self, state: EndpointState) -> list[Server2]:
        return cast("list[Server2]", state.idle)

    def open(self, state: EndpointState, exchange: Waiting) -> Upstream | None:
        """Return a connection that is being opened, None where the request has to wait, or may not even do that.

        Raises OverflowError where too many wait, OSError where there are no descriptors left.
        """
        is_shared = self.config.protocol == "h2"
        if is_shared:
            opening = next((each for each in self._shared(state) if each.is_opening), None)
            if opening is not None:
                return opening.stream()
        if self.connections >= self._limits[0] and not self._evict(state):
            if len(self._waiting) >= self._limits[2]:
                raise OverflowError
            self._waiting.append(exchange)
            return None
        upstream = Server1(self._reactor, self._counters, self._reader, self, state)
        self.connections += 1
        state.connections += 1
        if not is_shared:
            return upstream
        from pilothouse.traffic.plane.server2 import Server2  # noqa: PLC0415  # nghttp2 only where a backend speaks it

        shared = Server2(self._reactor, self, state, upstream)
        state.idle.append(shared)
        return shared.stream()

    def _evict(self, state: EndpointState) -> bool:
        """Close an idle connection to another endpoint, to make room."""
        for other in self.balancer.states:
            if other is not state and other.idle:
                cast("Server1", other.idle.pop(0)).abort()
                return True
        return False

    def unwait(self, exchange: Waiting) -> None:
        """Take out a request that waits no more."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(exchange)

    def put_back(self, upstream: Server1) -> None:
        """Keep a connection for the next request."""
        state = upstream.endpoint
        if (
            self.is_gone
            or state.endpoint.is_draining
            or state not in self.balancer.states
            or len(state.idle) >= _IDLE_KEPT
        ):
            upstream.abort()
        else:
            upstream.wire.reactor.arm(upstream, self._reactor.now + self.config.idle_timeout)
            state.idle.append(upstream)
            self.wake()

    def forget(self, upstream: Server1 | Server2) -> None:
        """Count a connection no more."""
        self.connections -= 1
        state = upstream.endpoint
        state.connections -= 1
        if upstream in state.idle:
            state.idle.remove(upstream)
        self.wake()

    def wake(self) -> None:
        """Let a request that waits try again."""
        if self._waiting:
            self._reactor.soon(self._waiting.popleft().on_room)

    def _close_idle(self) -> None:
        for state in self.balancer.states:
            self._close_idle_of(state)

    def _close_idle_of(self, state: EndpointState) -> None:
        for kept in list(state.idle):
            if kept in state.idle:
                state.idle.remove(kept)
            cast("Server1", kept).abort()


def endpoints_now(pools: Iterable[Pool], now: float) -> list[EndpointNow]:
    """Return how endpoints are, in the order of backends and endpoints."""
    rows = []
    for pool in pools:
        for state in pool.balancer.states:
            if state.endpoint.is_draining:
                word = "draining"
            elif not state.is_healthy:
                word = "unhealthy"
            else:
                word = "ejected" if state.ejected_until > now else "up"
            counts = (state.active, len(state.idle), state.connections, state.total, state.failed)
            left = max(0.0, state.ejected_until - now)
            rows.append(EndpointNow(pool.name, state.address, word, *counts, left))
    return rows


def endpoints_counted(
    pools: Iterable[Pool], told: dict[EndpointState, tuple[int, int]]
) -> tuple[list[EndpointCounted], dict[EndpointState, tuple[int, int]]]:
    """Return what came to endpoints since it was told last, and what has been told by now."""
    rows, now = [], {}
    for pool in pools:
        for state in pool.balancer.states:
            total, failed = now[state] = state.total, state.failed
            before = told.get(state, (0, 0))
            if (total, failed) != before:
                rows.append(EndpointCounted(pool.name, state.address, total - before[0], failed - before[1]))
    return rows, now
