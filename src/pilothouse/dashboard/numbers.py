"""Live numbers of traffic: the port by which they come, and the last minutes of them while somebody looks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from pilothouse.foundation.clock import Clock

__all__ = ["KEPT_SECONDS", "Board", "Flow", "NoNumbers", "Numbers", "Sample", "sample_for"]

KEPT_SECONDS: Final = 300
_PAUSE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 60.0
"""How long it is looked on after the last page has gone, so that a page that is loaded anew has its minutes."""


class NoNumbers(Exception):
    """There are none now; the message says why, and the way out."""


class Flow(NamedTuple):
    """What came in the last seconds, of one route, version and region. region: empty where all are summed up.

    rate: requests a second; errors: 0 to 1; p95: seconds.
    """

    route: str
    version: str
    region: str
    rate: float
    errors: float
    p95: float


class Sample(NamedTuple):
    """One look. at: seconds since 1970."""

    at: int
    versions: Sequence[Flow]
    regions: Sequence[Flow]


class Numbers(Protocol):
    """The port: what a data plane counts."""

    async def look(self) -> tuple[Sequence[Flow], Sequence[Flow]]:
        """Return flows by route and version, and by route, version and region. Raises NoNumbers."""


class Board:
    """The last minutes, looked at once a second for all pages together, and only while there is one."""

    def __init__(self, numbers: Numbers | None, clock: Clock) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT_SECONDS)
        self.problem = "" if numbers is not None else "no gateway is known here, so there are no live numbers"
        self._numbers = numbers
        self._clock = clock
        self._listeners: set[Callable[[], object]] = set()
        self._wanted_until = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def take(self, listener: Callable[[], object]) -> None:
        """Have `listener` called at each look."""
        self._listeners.add(listener)
        if self._numbers is not None and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run(self._numbers))

    def give_back(self, listener: Callable[[], object]) -> None:
        """Call it no more."""
        self._listeners.discard(listener)
        self._wanted_until = self._clock.monotonic() + _LINGER_SECONDS

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, numbers: Numbers) -> None:
        while self._listeners or self._clock.monotonic() < self._wanted_until:
            try:
                versions, regions = await numbers.look()
                self.samples.append(Sample(int(self._clock.now().timestamp()), versions, regions))
                self.problem = ""
            except NoNumbers as error:
                self.problem = str(error)
            for each in [*self._listeners]:
                each()
            await self._clock.sleep(_PAUSE_SECONDS)


def sample_for(sample: Sample, namespace: str, routes: Sequence[str], roles: dict[str, str]) -> dict[str, Any]:
    """Return what one rollout's page shows of a sample: figures by version, and by region and version.

    roles: `canary` and `stable` by the names of their services, of `namespace`. Without routes, all of the namespace's
    count that lead to these services. Several routes are summed up; the slowest p95 counts.
    """

    def is_ours(flow: Flow) -> bool:
        where = flow.route.partition("/")[0]
        return flow.version in roles and (flow.route in routes if routes else where == namespace)

    versions: dict[str, list[float]] = {}
    for flow in filter(is_ours, sample.versions):
        _add(versions.setdefault(roles[flow.version], [0.0, 0.0, 0.0]), flow)
    regions: dict[str, dict[str, list[float]]] = {}
    for flow in filter(is_ours, sample.regions):
        there = regions.setdefault(flow.region or "elsewhere", {})
        _add(there.setdefault(roles[flow.version], [0.0, 0.0, 0.0]), flow)
    return {"t": sample.at, "v": versions, "r": regions}


def _add(figures: list[float], flow: Flow) -> None:
    whole = figures[0] + flow.rate
    figures[1] = round((figures[0] * figures[1] + flow.rate * flow.errors) / whole, 6) if whole else 0.0
    figures[0], figures[2] = round(whole, 2), round(max(figures[2], flow.p95), 5)
