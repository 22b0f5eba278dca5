"""The harness: runs an operator in a test, by a clock that the test moves, until nothing is left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, Self

from pilothouse.client import Client
from pilothouse.client.informer import Informer
from pilothouse.client.objects import key_of, resource_version_of
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics

from .errors import NotConverged
from .manager import Manager
from .reconciler import Request
from .scheme import Scheme

__all__ = ["Harness"]

_PAUSE_SECONDS: Final = 0.001
_STEP_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 0.5
"""Of real time that a start and an end may take before the clock is moved."""


class Harness:
    """Runs a manager on any server, in process or not, with a fake clock.

    Build controllers on `harness.manager`, then `async with harness:`. client: of the server. clock: moved here; give
    the server the same one where it shall move along. patience_seconds: of real time, for a server that answers.
    """

    def __init__(
        self,
        client: Client,
        *,
        scheme: Scheme | None = None,
        clock: FakeClock | None = None,
        patience_seconds: float = 30.0,
        **options: Any,
    ) -> None:
        self.clock: Final = clock or FakeClock()
        self.client: Final = client
        self.manager: Final = Manager(client, scheme=scheme, clock=self.clock, metrics=Metrics(), **options)
        self._patience = patience_seconds

    async def __aenter__(self) -> Self:
        await self._finished(self.manager.__aenter__())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._finished(self.manager.__aexit__(*error))

    async def _finished(self, work: Coroutine[Any, Any, object]) -> None:
        """Do it to its end; what waits for the clock meanwhile, which nobody else moves now, gets it moved."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=_PATIENCE_SECONDS))[0]:
                await self.clock.run(_STEP_SECONDS)
        except BaseException:
            task.cancel()
            await asyncio.wait([task])
            raise
        await task

    @property
    def reconciles(self) -> int:
        """How many reconciles have ended, of all controllers."""
        return sum(controller.metrics.total for controller in self.manager.controllers)

    async def settle(self) -> None:
        """Wait, in real time, until caches are what the server has and all requests are worked off; move no clock.

        Raises NotConverged where that does not come about.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        while not await self._is_settled():
            if loop.time() > end:
                raise NotConverged(f"not settled within {self._patience:g} s of real time; {self._state()}")
            if self.manager.failure is not None:
                raise self.manager.failure
            await asyncio.sleep(_PAUSE_SECONDS)

    async def converge(self, seconds: float = 600.0) -> None:
        """Let everything come to rest: move the clock until the last reconcile of each object went well.

        seconds: of the fake clock, at most. What asked to be called again later does not count. Raises NotConverged,
        which names the objects that fail or never rest, how often they were reconciled, and their last errors.
        """
        end = self.clock.monotonic() + seconds
        while True:
            await self.settle()
            failing = [one for controller in self.manager.controllers for one in controller.core.failing()]
            if not failing:
                return
            if self.clock.monotonic() >= end:
                raise NotConverged(f"not converged within {seconds:g} s of the clock; {self._state()}")
            await self.clock.run(_STEP_SECONDS)

    async def advance(self, seconds: float) -> None:
        """Move the clock, and let everything happen that falls due, second by second."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            await self.settle()
            await self.clock.run(min(_STEP_SECONDS, end - self.clock.monotonic()))
        await self.settle()

    async def assert_stable(self) -> None:
        """Check that a converged operator has nothing left to do: reconcile all objects again; nothing may be written.

        Raises NotConverged, which says what was written.
        """
        await self.converge()
        before = self._versions()
        for controller in self.manager.controllers:
            informer = self.manager.cached(controller.kind)
            for obj in informer.indexer.list():
                controller.queue.add(Request.of(obj))
        await self.converge()
        changed = sorted(
            f"{name} {key}"
            for name, versions in self._versions().items()
            for key in versions.keys() | before[name].keys()
            if versions.get(key) != before[name].get(key)
        )
        if changed:
            raise NotConverged(f"a second reconcile, with nothing changed, wrote {', '.join(changed)}")

    def _versions(self) -> dict[str, dict[str, str]]:
        return {informer.name: _cached(informer) for informer in self.manager.factory.informers}

    async def _is_settled(self) -> bool:
        count = self.reconciles
        if not self._is_idle() or not await self._is_current():
            return False
        return self._is_idle() and count == self.reconciles

    def _is_idle(self) -> bool:
        controllers = self.manager.controllers
        return self.manager.companions.is_idle and all(each.is_idle and each.has_synced for each in controllers)

    async def _is_current(self) -> bool:
        """Whether each cache is what the server has now."""
        for kind, informer in self.manager.caches().items():
            namespace = self.manager.namespace if kind.namespaced else "*"
            listed = await self.client.list_all(kind, namespace, limit=0)
            if _versions_of(listed) != _cached(informer):
                return False
        for informer, (resource, labels) in self.manager.followed().items():
            if _versions_of(await resource.list_all(self.manager.namespace, labels=labels)) != _cached(informer):
                return False
        return True

    def _state(self) -> str:
        found = []
        for controller in self.manager.controllers:
            queue = controller.queue
            found.append(f"controller {controller.name}: {len(queue)} queued, {queue.processing} worked on")
            found += map(str, dict.fromkeys([*controller.core.failing(), *controller.unconverged()]))
        found += [f"companion {each.name}: at work" for each in self.manager.companions if not each.is_idle]
        return "; ".join([*found, *self.manager.problems()])


def _cached(informer: Informer[Any]) -> dict[str, str]:
    return _versions_of(informer.indexer.list())


def _versions_of(objects: Iterable[Any]) -> dict[str, str]:
    return {key_of(obj): resource_version_of(obj) for obj in objects}
