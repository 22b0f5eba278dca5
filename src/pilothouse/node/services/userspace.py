"""Services carried by this program, where rules cannot be made: listeners on cluster addresses out of 127/8."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pilothouse.foundation.logs import get_logger

from .affinity import Affinity
from .carrying import Carried, Limits
from .datagrams import DatagramListener
from .proxying import Changes
from .selection import ServicePortRoute, Target
from .splicing import Pipes
from .streams import StreamListener

__all__ = ["Limits", "UserspaceBackend"]

_log = get_logger("pilothouse.node.services")
_TICK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where connections are taken."""

    protocol: str
    address: str
    port: int


class UserspaceBackend:
    """Takes connections at each address of a service that this machine has, and carries them to an endpoint.

    node_addresses: where node ports and external addresses are taken; all of 127/8 always is. source: of random
    choices. Where there is no endpoint nobody listens, so the kernel refuses at once.
    """

    name: Final = "userspace"

    def __init__(
        self,
        *,
        node_addresses: tuple[str, ...] = ("127.0.0.1",),
        limits: Limits | None = None,
        source: random.Random | None = None,
    ) -> None:
        self._node_addresses = node_addresses
        self._limits = limits or Limits()
        self._source = source or random.Random()  # noqa: S311  # a choice among equals, no secret
        self._listeners: dict[_Place, StreamListener | DatagramListener] = {}
        self._routes: dict[str, tuple[ServicePortRoute, ...]] = {}
        self._failed: dict[_Place, str] = {}
        self._unable: dict[str, str] = {}
        self._affinities: dict[str, Affinity] = {}
        self._pipes = Pipes(self._limits.pipes)
        self._ticking: asyncio.Task[None] | None = None
        self._carried = Carried()

    async def start(self) -> None:
        """Make room for connections."""
        raise_file_limit()
        self._ticking = asyncio.get_running_loop().create_task(self._tick(), name="service proxy limits")

    async def apply(self, changes: Changes) -> None:
        """Listen where services are now, and no longer where they were; connections go on."""
        for key, (_, after) in changes.items():
            if after:
                self._routes[key] = after
            else:
                self._routes.pop(key, None)
            self._unable.pop(key, None)
        wanted = self._wanted()
        for place in self._listeners.keys() - wanted.keys():
            self._listeners.pop(place).close()
        self._failed = {place: why for place, why in self._failed.items() if place in wanted}
        for place, (route, targets) in wanted.items():
            await self._listen(place, route, targets)
        keep = {route.key for routes in self._routes.values() for route in routes if route.affinity_seconds}
        self._affinities = {key: found for key, found in self._affinities.items() if key in keep}

    async def check(self) -> bool:
        """Return whether everything listens; tries again where it does not, as a port may be free by now."""
        return not self._failed

    async def stop(self) -> None:
        """End listeners and connections."""
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._ticking = None
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        self._carried.close()
        self._pipes.close()

    def problems(self) -> list[str]:
        """Return which services are not carried, and why."""
        found = [f"{place.address}:{place.port}/{place.protocol}: {why}" for place, why in self._failed.items()]
        if self._carried.refused:
            found.append(f"{self._carried.refused} connections were refused beyond {self._limits.connections}")
        return [*found, *self._unable.values()]

    def figures(self) -> Mapping[str, float]:
        """Return how much is carried."""
        return {
            "listeners": float(len(self._listeners)),
            "connections": float(self._carried.connections),
            "refused": float(self._carried.refused),
        }

    def _wanted(self) -> dict[_Place, tuple[ServicePortRoute, tuple[Target, ...]]]:
        wanted: dict[_Place, tuple[ServicePortRoute, tuple[Target, ...]]] = {}
        for key in sorted(self._routes):
            for route in self._routes[key]:
                if route.protocol == "SCTP":
                    self._unable[key] = f"{route.namespace}/{route.name}: SCTP is carried by nftables alone"
                    continue
                for address, port, targets in self._places(route):
                    if targets:
                        wanted.setdefault(_Place(route.protocol, address, port), (route, targets))
        return wanted

    def _places(self, route: ServicePortRoute) -> list[tuple[str, int, tuple[Target, ...]]]:
        found = []
        if ipaddress.ip_address(route.cluster_address).is_loopback:
            found.append((route.cluster_address, route.port, route.internal))
        else:
            key = f"{route.namespace}/{route.name}"
            self._unable[key] = (
                f"{key}: nobody but root can answer at the cluster address {route.cluster_address}; "
                "use a service range out of 127.0.0.0/8"
            )
        family = f"IPv{route.family}"
        mine = [each for each in self._node_addresses if f"IPv{ipaddress.ip_address(each).version}" == family]
        if route.node_port:
            found += [(each, route.node_port, route.external) for each in mine]
        outer = {*route.external_addresses, *route.balancer_addresses}
        found += [(each, route.port, route.external) for each in sorted(outer & {*mine})]
        return found

    async def _listen(self, place: _Place, route: ServicePortRoute, targets: tuple[Target, ...]) -> None:
        affinity = None
        if route.affinity_seconds:
            affinity = self._affinities.setdefault(route.key, Affinity(route.affinity_seconds))
            affinity.seconds = route.affinity_seconds
        listener = self._listeners.get(place)
        if listener is None:
            try:
                listener = await self._bound(place)
            except OSError as error:
                why = error.strerror or str(error)
                if self._failed.get(place) != why:
                    _log.warning("a service is not carried", address=place.address, port=place.port, error=why)
                self._failed[place] = why
                return
            self._failed.pop(place, None)
            self._listeners[place] = listener
        listener.lead_to(targets, affinity, route.source_ranges if place.address in route.balancer_addresses else ())

    async def _bound(self, place: _Place) -> StreamListener | DatagramListener:
        if place.protocol == "UDP":
            made = DatagramListener(place.address, place.port, self._limits, self._carried, self._source)
            await made.start()
            return made
        return StreamListener(place.address, place.port, self._limits, self._carried, self._pipes, self._source)

    async def _tick(self) -> None:
        """End what was idle or drained for too long. A wheel of its own would cost more than a look each second."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            live = {target for listener in self._listeners.values() for target in listener.targets}
            self._carried.tidy(live, self._limits)
            for listener in self._listeners.values():
                listener.tidy()


def raise_file_limit() -> None:
    """Allow this process as many open files as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
