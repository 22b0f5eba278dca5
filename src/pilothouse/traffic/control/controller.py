"""The controller: follows all objects, tells the data plane what they ask for, and writes what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import msgspec

from pilothouse.client.errors import ClientError
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.foundation.clock import Timer
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, NotFound
from pilothouse.kinds.structs import Resource, to_dict
from pilothouse.operator import Companion, Manager
from pilothouse.operator.errors import OperatorError
from pilothouse.traffic.config import Configuration

from .addresses import Addresses
from .conditions import CONTROLLER, StatusOf, merged
from .errands import AGAIN_SECONDS, Errand
from .ingresses import PORTS
from .install import install
from .kinds import KINDS, BackendTLSPolicy, GRPCRoute, HTTPRoute, TCPRoute, TLSRoute, TrafficPolicy
from .snapshot import SEEN, key_of
from .store import Store
from .translate import Options, Translation, translate

__all__ = ["Plane", "TrafficController", "add_gateway"]

_log = get_logger(__name__)

_GATHER_SECONDS: Final = 0.005
"""Many objects of one change come one by one; what comes within this time is one configuration."""
_YIELD_SECONDS: Final = 0.25
"""How long a status waits for a configuration that is on its way, at most."""
_REFUSED_SECONDS: Final = 15.0
"""After which a listener that could not be had is tried again."""
_WRITERS: Final = 16
_LISTENER: Final = re.compile("listener '([^']*)'")
_ATTEMPTS: Final = 64
_Place: TypeAlias = tuple[type[Resource], str, str]
"""An object: its kind, namespace and name."""
_SHARED: Final[dict[type[Resource], str]] = {
    HTTPRoute: "parents",
    GRPCRoute: "parents",
    TLSRoute: "parents",
    TCPRoute: "parents",
    BackendTLSPolicy: "ancestors",
    TrafficPolicy: "ancestors",
}
"""Kinds in whose status several controllers have entries, and in which list."""


class Plane(Protocol):
    """What is told configurations: `pilothouse.traffic.gateway.Gateway`. Raises ValueError for one it cannot take."""

    async def push(self, configuration: Configuration) -> None: ...


@runtime_checkable
class _Startable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class TrafficController(Companion):
    """Runs within a manager, beside its other controllers.

    One snapshot of the caches is translated at most each 5 ms, taking over what has not changed, and told the plane;
    statuses are written after that, beside it. What cannot be taken up by the plane is said in the status of the
    listener it is about; everything else goes on. A plane that can be started is, before the first configuration, and
    stopped at the end.
    """

    name = "gateway"

    def __init__(
        self,
        manager: Manager,
        plane: Plane,
        addresses: Addresses | None = None,
        ingress_ports: tuple[int, int] = PORTS,
    ) -> None:
        self._manager = manager
        self._plane = plane
        self._options = Options(addresses=addresses or Addresses(), ingress_ports=ingress_ports)
        self._store = Store()
        self._done: Translation | None = None
        self._pushed = Configuration()
        self._wanted: dict[_Place, StatusOf] = {}
        self._unwritten: set[_Place] = set()
        self._pushing = Errand("configuration", self._work, manager.clock, _GATHER_SECONDS)
        self._writing = Errand("statuses", self._write, manager.clock)
        self._retrying: Timer | None = None
        self.installing: asyncio.Task[None] | None = None
        self._handlers = [self._follow(kind) for kind in SEEN]

    # What the manager calls

    async def run(self) -> None:
        """Work until it is cancelled; a write that goes on is cut then."""
        is_started = False
        try:
            for each in self._handlers:
                await each.wait_synced()
            if isinstance(self._plane, _Startable):
                is_started = True
                await self._plane.start()
            self._pushing.ask()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pushing.run(), name="gateway configurations")
                group.create_task(self._writing.run(), name="gateway statuses")
        finally:
            if self.installing is not None:
                self.installing.cancel()
            if self._retrying is not None:
                self._retrying.cancel()
            if isinstance(self._plane, _Startable) and is_started:
                await self._plane.stop()

    @property
    def is_idle(self) -> bool:
        """Whether everything that there is is told and written."""
        return all(each.has_synced for each in self._handlers) and self._pushing.is_idle and self._writing.is_idle

    @property
    def configuration(self) -> Configuration:
        """The configuration that the plane took up last."""
        return self._pushed

    # Following

    def _follow(self, kind: type[Resource]) -> Any:
        def gone(obj: Resource | DeletedFinalStateUnknown[Resource]) -> None:
            if self._store.remove(kind, obj):
                self._pushing.ask()

        def put(obj: Resource) -> None:
            if self._store.put(obj):
                self._pushing.ask()
            else:  # its status alone, so that somebody may have undone what we wrote
                self._write_later({(kind, *key_of(obj))})

        return self._manager.informer(kind).add_handler(
            on_add=lambda obj, _: put(obj),
            on_update=lambda _, new: put(new),
            on_delete=gone,
            name=f"gateway {kind.__name__}",
        )

    async def _work(self) -> None:
        """Translate what there is and tell the plane, then have the statuses written."""
        refused: dict[str, str] = {}
        options = self._options
        for _ in range(_ATTEMPTS):
            made = translate(self._store.snapshot(), options, self._done)
            try:
                await self._push(made.configuration)
            except ValueError as error:
                found = _LISTENER.search(str(error))
                if found is None or found[1] in refused:
                    _log.error("the data plane did not take up the configuration", error=str(error))
                    options = replace(options, failure=str(error))
                    made = translate(self._store.snapshot(), options, self._done)
                    break
                refused[found[1]] = str(error)
                options = replace(self._options, refused=dict(refused))
            else:
                break
        self._done = made
        if options is not self._options:
            self._look_again()
        wanted = {(each.kind, each.namespace, each.name): each for each in self._with_former(made)}
        changed = {key for key, each in wanted.items() if (old := self._wanted.get(key)) is not each and old != each}
        self._wanted = wanted
        self._write_later(changed)

    def _look_again(self) -> None:
        """Try what was refused once more after a while: whoever has a port may have let go of it by then."""
        if self._retrying is None:
            self._retrying = self._manager.clock.call_later(_REFUSED_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retrying = None
        self._pushing.ask()

    def _with_former(self, made: Translation) -> list[StatusOf]:
        """Return the statuses, and for what is no more ours that we say nothing of it, as after a restart."""
        found = list(made.statuses)
        known = {(each.kind, each.namespace, each.name) for each in found}
        for kind, shared in _SHARED.items():
            for (namespace, name), obj in self._store.objects[kind].items():
                if (kind, namespace, name) in known:
                    continue
                entries = getattr(getattr(obj, "status", None), shared)
                if any(each.controller_name == CONTROLLER for each in entries):
                    found.append(StatusOf(kind, namespace, name, shared=(shared, [])))
        return found

    async def _push(self, configuration: Configuration) -> None:
        same = msgspec.structs.replace(configuration, generation=self._pushed.generation)
        if same == self._pushed and self._pushed.generation:
            return
        configuration = msgspec.structs.replace(configuration, generation=self._pushed.generation + 1)
        await self._plane.push(configuration)
        self._pushed = configuration

    # Writing

    def _write_later(self, keys: set[_Place]) -> None:
        if keys:
            self._unwritten |= keys
            self._writing.ask()

    async def _write(self) -> None:
        keys, self._unwritten = self._unwritten, set()
        limit = asyncio.Semaphore(_WRITERS)

        async def one(key: _Place) -> None:
            async with limit:
                await self._pushing.quiet(_YIELD_SECONDS)
                try:
                    await self._write_one(key)
                except (ClientError, ApiStatus, OSError):
                    self._unwritten.add(key)
                    raise

        results = await asyncio.gather(*(one(key) for key in keys), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _write_one(self, key: _Place) -> None:
        kind, namespace, name = key
        wanted, obj = self._wanted.get(key), self._store.objects[kind].get((namespace, name))
        if wanted is None or obj is None:
            return
        status = getattr(obj, "status", None)
        present = to_dict(status) if status is not None else {}
        fields = merged(wanted, present, self._manager.clock.now())
        if fields is None:
            return
        with contextlib.suppress(NotFound):
            written = await self._manager.client.patch(
                kind, name, {"status": fields}, namespace or None, subresource="status"
            )
            # Until the cache has it: what is compared next is what was written.
            if (now := self._store.objects[kind].get((namespace, name))) is not None and _is_same(now, written):
                self._store.put(written)


def _is_same(now: Resource, written: Resource) -> bool:
    return now.metadata.uid == written.metadata.uid and now.metadata.generation == written.metadata.generation


def add_gateway(
    manager: Manager,
    plane: Plane,
    addresses: Addresses | None = None,
    *,
    with_definitions: bool = False,
    ingress_ports: tuple[int, int] = PORTS,
) -> TrafficController:
    """Add the controller of gateways to a manager, before it runs.

    plane: started and stopped with the manager, where it can be. addresses: of gateways. with_definitions: whether the
    definitions of the kinds, and our classes, are put into the cluster at once, which needs the right to do so and a
    running loop; else they have to be there. ingress_ports: where ingresses are reached, without and with TLS.
    """
    manager.scheme.register(*KINDS)
    made = TrafficController(manager, plane, addresses, ingress_ports)
    manager.add_companion(made)
    if with_definitions:
        made.installing = asyncio.get_running_loop().create_task(_install(manager), name="gateway definitions")
    return made


async def _install(manager: Manager) -> None:
    least, most = AGAIN_SECONDS
    for attempt in range(_ATTEMPTS):
        try:
            await install(manager.client)
        except (ClientError, ApiStatus, OperatorError, OSError) as error:
            _log.warning("the definitions of gateways are not installed yet", error=str(error))
            await manager.clock.sleep(min(most, least * 2**attempt))
        else:
            return
