"""Active health checks: each endpoint is asked now and then, and left out while it does not answer well."""

from __future__ import annotations

import math

from pilothouse.traffic.config import HealthCheck
from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.heads import HeadReader
from pilothouse.traffic.plane.http import Refused, Request, Response
from pilothouse.traffic.plane.pools import Pool
from pilothouse.traffic.plane.reactor import Reactor, Timed
from pilothouse.traffic.plane.server1 import Server1
from pilothouse.traffic.plane.upstream import Outgoing, Upstream
from pilothouse.traffic.plane.wires import Counters, Gone

__all__ = ["Health", "judged"]


def judged(state: EndpointState, check: HealthCheck, is_well: bool) -> bool:
    """Take note of one answer; return whether the endpoint changed sides.

    state.streak: answers in a row that contradict what it is taken for.
    """
    if is_well == state.is_healthy:
        state.streak = 0
        return False
    state.streak += 1
    if state.streak < (check.healthy if is_well else check.unhealthy):
        return False
    state.is_healthy, state.streak = is_well, 0
    return True


class Health(Timed):
    """Asks all endpoints of a backend, each time after `check.every` seconds."""

    def __init__(
        self, reactor: Reactor, counters: Counters, reader: HeadReader, pool: Pool, check: HealthCheck
    ) -> None:
        super().__init__()
        self.check = check
        self._reactor, self._counters, self._reader, self._pool = reactor, counters, reader, pool
        self._probes: set[_Probe] = set()
        self._is_stopped = False

    @property
    def is_framed(self) -> bool:
        """Whether the endpoints speak HTTP/2."""
        return self._pool.is_framed

    def start(self) -> None:
        """Ask now, and from now on."""
        self.on_deadline()

    def stop(self) -> None:
        """Ask no more; what is known of the endpoints is forgotten."""
        self._is_stopped = True
        self.deadline = math.inf
        for probe in list(self._probes):
            probe.over(None)
        for state in self._pool.balancer.states:
            state.is_healthy, state.streak = True, 0

    def on_deadline(self) -> None:
        if self._is_stopped:
            return
        busy = {probe.state for probe in self._probes}
        for state in self._pool.balancer.states:
            if state not in busy:
                probe = _Probe(self, state)
                self._probes.add(probe)
                probe.begin()
        self._reactor.arm(self, self._reactor.now + self.check.every)

    def connection(self, state: EndpointState) -> Server1:
        """Return a connection of its own to an endpoint."""
        own = Pool(self._pool.name, self._reactor, self._counters, self._reader, self._pool.balancer.chance)
        own.config, own.tls = self._pool.config, self._pool.tls
        own.is_gone = True
        return Server1(self._reactor, self._counters, self._reader, own, EndpointState(state.endpoint, 0.0))

    def arm(self, probe: _Probe) -> None:
        """Give a probe its time."""
        self._reactor.arm(probe, self._reactor.now + self.check.timeout)

    def ended(self, probe: _Probe, is_well: bool | None) -> None:
        """Take an endpoint's answer."""
        self._probes.discard(probe)
        if is_well is not None:
            judged(probe.state, self.check, is_well)


class _Probe(Timed):
    """One question to one endpoint."""

    def __init__(self, health: Health, state: EndpointState) -> None:
        super().__init__()
        self.state = state
        self._health = health
        self._upstream: Server1 | None = None
        self._is_over = False

    def begin(self) -> None:
        """Connect."""
        self._health.arm(self)
        try:
            upstream = self._upstream = self._health.connection(self.state)
        except OSError:
            self.over(None)  # our own shortage says nothing of the endpoint
            return
        upstream.open(self)

    def over(self, is_well: bool | None) -> None:
        """End, with the answer if there is one."""
        if self._is_over:
            return
        self._is_over = True
        self.deadline = math.inf
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        self._health.ended(self, is_well)

    def on_connected(self, upstream: Upstream) -> None:
        check = self._health.check
        if not check.path or self._health.is_framed:
            self.over(True)  # a question in HTTP/2 would want a connection that is shared
            return
        host = self.state.address.encode()
        request = Request(b"GET", check.path.encode(), host, "", [])
        fields = [(b"user-agent", b"pilothouse-health"), (b"connection", b"close")]
        try:
            upstream.begin(self, Outgoing(request, request.target, host, fields), (), [])
        except Gone:
            self.over(False)

    def on_response(self, response: Response, rest: bytes) -> None:
        del rest
        low, high = self._health.check.statuses
        if response.status >= 200:
            self.over(low <= response.status <= high)

    def on_unreachable(self, upstream: Upstream, reason: str) -> None:
        del upstream, reason
        self._upstream = None
        self.over(False)

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None:
        del upstream, reason, is_untouched
        self._upstream = None
        self.over(False)

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        del error
        self._upstream = None
        self.over(False)

    def on_deadline(self) -> None:
        self.over(False)

    def on_readable(self) -> None:
        """Only the head of the answer counts."""

    def on_writable(self) -> None:
        """Do nothing: what is asked fits at once."""
