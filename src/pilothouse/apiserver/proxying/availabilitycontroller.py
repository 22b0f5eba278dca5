"""Keeps the Available condition of APIServices true to what is there: after each change, and now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pilothouse.apiserver.ports import Local, Object, View
from pilothouse.apiserver.proxying import availability
from pilothouse.apiserver.proxying.aggregation import API_SERVICES, Aggregator
from pilothouse.foundation.clock import Clock, SystemClock, Timer
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, NotFound

__all__ = ["AvailabilityController"]

_RESYNC_SECONDS: Final = 30.0
_FIRST_RETRY: Final = 1.0
_AT_ONCE: Final = 8
_SLICES: Final = "endpointslices.discovery.k8s.io"
_PATH: Final = "/apis/apiregistration.k8s.io/v1/apiservices"

_log = get_logger(__name__)


class AvailabilityController:
    """Checks APIServices and writes their status.

    An APIService is checked when it, its service or the service's endpoints change, all of them every 30 seconds, and
    one whose server does not answer after 1, 2, 4… seconds.
    """

    def __init__(self, view: View, local: Local, aggregator: Aggregator, *, clock: Clock | None = None) -> None:
        self._view = view
        self._local = local
        self._aggregator = aggregator
        self._clock = clock or SystemClock()
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._retries: dict[str, float] = {}
        self._timers: dict[str, Timer] = {}

    async def run(self) -> None:
        """Check until cancelled."""
        stops = self._subscribe()
        timer = self._resync()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                due, self._due = self._due, set()
                await self._check_all(sorted(due))
        finally:
            timer[0].cancel()
            for waiting in self._timers.values():
                waiting.cancel()
            for stop in stops:
                stop()

    def _subscribe(self) -> list[Callable[[], None]]:
        return [
            self._view.subscribe(API_SERVICES, self._changed),
            self._view.notify("services", self._service_changed),
            self._view.notify("endpoints", self._service_changed),
            self._view.notify(_SLICES, lambda namespace, _: self._service_changed(namespace)),
        ]

    def _resync(self) -> list[Timer]:
        """Put all APIServices up for a check, now and every 30 seconds; the list holds the timer in force."""
        held: list[Timer] = []

        def again() -> None:
            for api_service in self._view.list(API_SERVICES):
                self._add(api_service["metadata"]["name"])
            held[:] = [self._clock.call_later(_RESYNC_SECONDS, again)]

        again()
        return held

    def _add(self, name: str) -> None:
        self._due.add(name)
        self._wake.set()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        # Our own writes change the status alone.
        if old is None or old.get("spec") != new.get("spec") or not (new.get("status") or {}).get("conditions"):
            self._add(new["metadata"]["name"])

    def _service_changed(self, namespace: str, name: str = "") -> None:
        """Put those up for a check whose service this is; without a name, those of all services of the namespace."""
        for route in self._aggregator.routes().values():
            if route.service_namespace == namespace and name in {"", route.service_name}:
                self._add(route.name)

    async def _check_all(self, names: list[str]) -> None:
        for start in range(0, len(names), _AT_ONCE):
            part = names[start : start + _AT_ONCE]
            outcomes = await asyncio.gather(*(self._check(name) for name in part), return_exceptions=True)
            for name, outcome in zip(part, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    _log.error("an APIService could not be checked", name=name, why=str(outcome))
                    self._plan_retry(name, failed=True)

    async def _check(self, name: str) -> None:
        api_service = self._view.get(API_SERVICES, "", name)
        if api_service is None:
            self._retries.pop(name, None)
            return
        condition = await self._aggregator.condition(api_service)
        self._plan_retry(name, failed=condition["reason"] == "FailedDiscoveryCheck")
        # What was read before the server was asked may be old by now.
        current = self._view.get(API_SERVICES, "", name)
        if current is None:
            return
        status, changed = availability.with_condition(current.get("status"), condition, self._clock.now())
        if not changed:
            return
        try:
            await self._local.call("PUT", f"{_PATH}/{name}/status", {**current, "status": status})
        except NotFound:
            return
        except ApiStatus as error:
            _log.info("the status of an APIService could not be written", name=name, why=error.message)
            self._plan_retry(name, failed=True)

    def _plan_retry(self, name: str, *, failed: bool) -> None:
        if not failed:
            self._retries.pop(name, None)
            return
        seconds = self._retries.get(name, _FIRST_RETRY)
        self._retries[name] = min(seconds * 2, _RESYNC_SECONDS)
        if waiting := self._timers.pop(name, None):
            waiting.cancel()
        self._timers[name] = self._clock.call_later(seconds, lambda: self._retry(name))

    def _retry(self, name: str) -> None:
        self._timers.pop(name, None)
        self._add(name)
