"""Which endpoint takes the next request: the less busy of two chosen by chance, without those that fail (pure).

New endpoints come into their share slowly; those that fail in a row are left out for a time that grows; a share of the
endpoints stays whatever fails.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final

from pilothouse.traffic.config import Endpoint, OutlierEjection

__all__ = ["Allowance", "Balancer", "EndpointState", "RetryBudget"]

_RAMP_LEAST: Final = 0.1
_EJECTIONS_COUNTED: Final = 10


class EndpointState:
    """One address and what is known of it. active: requests on their way. is_healthy: by health checks."""

    __slots__ = (
        "active",
        "connections",
        "ejected_until",
        "ejections",
        "endpoint",
        "failed",
        "failures",
        "idle",
        "is_healthy",
        "since",
        "streak",
        "total",
    )

    def __init__(self, endpoint: Endpoint, now: float) -> None:
        self.endpoint = endpoint
        self.since = now
        self.active = 0
        self.connections = 0
        self.total = 0
        self.failed = 0
        self.failures = 0
        self.ejections = 0
        self.ejected_until = -math.inf
        self.is_healthy = True
        self.streak = 0
        self.idle: list[object] = []

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self.endpoint.authority


class Balancer:
    """Chooses among a backend's endpoints. chance: where its choice of two comes from."""

    def __init__(self, outliers: OutlierEjection, slow_start: float, chance: random.Random) -> None:
        self.outliers = outliers
        self.slow_start = slow_start
        self.chance = chance
        self.states: tuple[EndpointState, ...] = ()
        self._tagged: dict[bytes, EndpointState] | None = None
        self._began = False

    def take(self, endpoints: Sequence[Endpoint], now: float) -> list[EndpointState]:
        """Go on with these endpoints; return the states of those that are gone. The first ones start at once."""
        known = {(state.endpoint.address, state.endpoint.port): state for state in self.states}
        states = []
        for endpoint in endpoints:
            state = known.pop((endpoint.address, endpoint.port), None)
            if state is None:
                state = EndpointState(endpoint, now if self._began else -math.inf)
            state.endpoint = endpoint
            states.append(state)
        self.states = tuple(states)
        self._tagged = None
        self._began = True
        return list(known.values())

    def pick(self, now: float, tried: Collection[EndpointState] = ()) -> EndpointState | None:
        """Return an endpoint that was not tried yet, if there is one; None where none may be used."""
        fit = self.fit(now, tried)
        if len(fit) <= 1:
            return fit[0] if fit else None
        one, other = self.chance.sample(fit, 2) if len(fit) > 2 else fit
        weight, against = self._weight(one, now), self._weight(other, now)
        load, beside = (one.active + 1) * against, (other.active + 1) * weight
        if load == beside:
            return one if self.chance.random() < weight / (weight + against) else other
        return one if load < beside else other

    def fit(self, now: float, tried: Collection[EndpointState] = ()) -> list[EndpointState]:
        """Return the endpoints that may be used, without those that were tried if there are others."""
        fit = [state for state in self.states if self._is_fit(state, now)]
        return ([state for state in fit if state not in tried] or fit) if tried else fit

    def tagged(self, tag_of: Callable[[str], bytes]) -> dict[bytes, EndpointState]:
        """Return the endpoints by what sessions call them."""
        if self._tagged is None:
            self._tagged = {tag_of(state.address): state for state in self.states}
        return self._tagged

    def may_keep(self, state: EndpointState, now: float) -> bool:
        """Return whether an endpoint may go on with its clients, which one that drains may."""
        return state.is_healthy and state.endpoint.weight > 0 and state.ejected_until <= now

    def _is_fit(self, state: EndpointState, now: float) -> bool:
        endpoint = state.endpoint
        return state.is_healthy and not endpoint.is_draining and endpoint.weight > 0 and state.ejected_until <= now

    def _weight(self, state: EndpointState, now: float) -> float:
        weight = float(state.endpoint.weight)
        age = now - state.since
        if self.slow_start > 0 and age < self.slow_start:
            weight *= max(_RAMP_LEAST, age / self.slow_start)
        return weight

    def succeeded(self, state: EndpointState) -> None:
        """Take note of an answer."""
        state.failures = 0

    def erred(self, state: EndpointState, now: float) -> bool:
        """Take note of a failure (no answer, or a status of 500 and more); return whether it is left out now."""
        state.failures += 1
        state.failed += 1
        if not self.outliers.failures or state.failures < self.outliers.failures or state.ejected_until > now:
            return False
        out = sum(1 for each in self.states if each.ejected_until > now)
        if (out + 1) * 100 > self.outliers.most * len(self.states):
            return False
        state.failures = 0
        state.ejections = min(state.ejections + 1, _EJECTIONS_COUNTED)
        state.ejected_until = now + self.outliers.seconds * state.ejections
        return True


class RetryBudget:
    """How many tries more a backend may get: a share of its requests, beside a few a second."""

    __slots__ = ("_share", "_spare", "_then")

    def __init__(self, now: float) -> None:
        self._share = 0.0
        self._spare = math.inf  # as many as a second may have
        self._then = now

    def earn(self, budget: int) -> None:
        """Take note of a request; budget: percent."""
        self._share = min(self._share + budget / 100, 100.0)

    def spend(self, least: int, now: float) -> bool:
        """Return whether one more try may be made, and count it."""
        self._spare = min(self._spare + (now - self._then) * least, float(least))
        self._then = now
        if self._spare >= 1:
            self._spare -= 1
        elif self._share >= 1:
            self._share -= 1
        else:
            return False
        return True


class Allowance:
    """How often a peer may do something: a burst, and so many a second."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst, self._rate = burst, rate
        self._tokens, self._then = float(burst), now

    def spend(self, now: float) -> bool:
        """Take one; return False where there is none."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
