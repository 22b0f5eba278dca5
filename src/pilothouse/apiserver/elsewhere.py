"""What other servers serve behind this one, as discovery tells it: asked after each change, and now and then."""

from __future__ import annotations

import asyncio

import msgspec

from pilothouse.apiserver.discovery import AggregatedVersion
from pilothouse.apiserver.discovery.aggregated import fetched
from pilothouse.apiserver.ports import View
from pilothouse.apiserver.proxying.aggregation import API_SERVICES, Aggregator, Route
from pilothouse.foundation.clock import Clock

__all__ = ["Elsewhere"]

_AGAIN_SECONDS = 60.0


class Elsewhere:
    """Keeps `versions`: the groups and versions that are served elsewhere, with their resources."""

    def __init__(self, view: View, aggregator: Aggregator, clock: Clock) -> None:
        self.versions: tuple[AggregatedVersion, ...] = ()
        self._view = view
        self._aggregator = aggregator
        self._clock = clock
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Ask until cancelled. Costs nothing while nothing is served elsewhere."""
        stop = self._view.notify(API_SERVICES, lambda namespace, name: self._wake.set())
        try:
            while True:
                await self.refresh()
                timer = self._clock.call_later(_AGAIN_SECONDS, self._wake.set) if self.versions else None
                await self._wake.wait()
                self._wake.clear()
                if timer is not None:
                    timer.cancel()
        finally:
            stop()

    async def refresh(self) -> None:
        """Ask all servers once."""
        found = await asyncio.gather(*(self._version(route) for route in self._aggregator.routes().values()))
        kept = {each: each for each in self.versions}
        # The same objects while nothing changes, so that documents made of them stay.
        self.versions = tuple(kept.get(each, each) for each in found)

    async def _version(self, route: Route) -> AggregatedVersion:
        spec = (self._view.get(API_SERVICES, "", route.name) or {}).get("spec") or {}
        resources = None
        if route.available:
            answer = await self._aggregator.fetch(route, f"/apis/{route.group}/{route.version}")
            if answer is not None:
                try:
                    resources = fetched(msgspec.json.decode(answer[0]), route.group, route.version)
                except (msgspec.DecodeError, KeyError, TypeError):
                    resources = None
        return AggregatedVersion(
            route.group,
            route.version,
            spec.get("groupPriorityMinimum") or 0,
            spec.get("versionPriority") or 0,
            route.available,
            resources,
        )
